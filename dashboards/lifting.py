"""What the lifting explorer computes: one window, lifted and convolved, and the 1D kernels that do the same.

NumPy and SciPy only, by `forecaster.liftings` and `forecaster.kernels`: nothing is drawn here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from forecaster.errors import ParameterError
from forecaster.kernels import (
    Boundary,
    Convention,
    FoldedKernel,
    Folding,
    Mode,
    Parallel,
    convolve,
    fold,
    frequency_response,
)
from forecaster.liftings import (
    Array,
    CalendarFold,
    Column,
    Lagged,
    Lifting,
    Placement,
    Replicate,
    Row,
    Spectrogram,
)

__all__ = [
    "AGGREGATES",
    "KERNELS",
    "STRATEGIES",
    "Exploration",
    "Setting",
    "explore",
    "parse_kernel",
    "parse_lags",
    "responses",
    "same_maps",
    "tap_table",
]

Aggregate = Literal["concatenate", "sum", "mean", "max"]
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)
Float64 = npt.NDArray[np.float64]
LARGEST_KERNEL = 32
"""Rows and columns of a kernel: what can be seen at a glance, and computed at once."""

KERNELS = {
    "cross (of the documentation)": "1 0 1\n0 1 0\n1 0 1",
    "average": "1/9 1/9 1/9\n1/9 1/9 1/9\n1/9 1/9 1/9",
    "change in time": "-1 0 1\n-1 0 1\n-1 0 1",
    "change between rows": "-1 -1 -1\n0 0 0\n1 1 1",
    "newest day against its row": "-1 -1 2\n-1 -1 2\n-1 -1 2",
    "one row": "1 2 3 2 1",
}
"""Kernels to begin with, as they are typed."""


@dataclass(frozen=True)
class Setting:
    """What is chosen in the explorer.

    Parameters
    ----------
    strategy : str
        A key of `STRATEGIES`.
    rows : int
        Rows of `replicate`.
    lags : tuple of int
        Of `lagged`.
    period : int
        Of the calendar fold.
    segment : int
        Of the spectrogram.
    aggregate : str
        How parallel filters are joined.
    mode, boundary, fill_value, convention
        As for `forecaster.kernels.convolve`.
    """

    strategy: str = "lagged rows"
    rows: int = 3
    lags: tuple[int, ...] = (0, 1, 5, 21)
    period: int = 5
    segment: int = 16
    aggregate: Aggregate = "concatenate"
    mode: Mode = "same"
    boundary: Boundary = "fill"
    fill_value: float = 0.0
    convention: Literal["convolution", "correlation"] = "correlation"


STRATEGIES: dict[str, Callable[[Setting], Lifting | Parallel]] = {
    "row": lambda _: Row(),
    "column": lambda _: Column(),
    "identical rows": lambda setting: Replicate(rows=setting.rows),
    "lagged rows": lambda setting: Lagged(lags=setting.lags),
    "calendar fold": lambda setting: CalendarFold(period=setting.period),
    "spectrogram": lambda setting: Spectrogram(segment=setting.segment),
    "parallel filters, rows": lambda setting: Parallel("rows", setting.aggregate),
    "parallel filters, columns": lambda setting: Parallel("columns", setting.aggregate),
}
"""How each strategy is made, by the name that a reader sees."""


@dataclass(frozen=True)
class _Lifted:
    """An array that is lifted already, so that the library's own operator can be applied to it."""

    array: Float64
    history: int = field(default=0, init=False)

    def shape(self, lookback: int) -> tuple[int, int]:
        """Rows and columns of the array."""
        rows, columns = self.array.shape
        return rows, columns

    def __call__(self, windows: npt.ArrayLike) -> Array:
        """Give the array, whatever the window."""
        return self.array[None, :, :, None]


@dataclass(frozen=True, eq=False)
class Exploration:
    """One window under one kernel.

    Parameters
    ----------
    window : ndarray of shape (lookback + history,)
        The sessions that are used, the newest last.
    history : int
        How many of them lie before the window, for lags.
    lifted : ndarray of shape (rows, columns)
    row_names : list of str
        What each lifted row is.
    output : ndarray of shape (output rows, output columns)
        The 2D operation on the lifted array.
    folding : Folding or None
        The 1D kernels that do the same on the series; None where there are none.
    difference : float
        Largest difference of the two; NaN without a folding.
    why_not : str
        Why nothing folds; empty where it does.
    """

    window: Float64
    history: int
    lifted: Float64
    row_names: list[str]
    output: Float64
    folding: Folding | None
    difference: float
    why_not: str


def parse_kernel(text: str) -> Float64:
    """Read a kernel that was typed: a row a line, numbers or fractions divided by blanks or commas.

    Raises
    ------
    ParameterError
        If a cell is no finite number, rows differ in length, or there are too many.
    """
    rows = [line.replace(",", " ").split() for line in text.splitlines() if line.strip()]
    if not rows or len({len(row) for row in rows}) > 1:
        lengths = ", ".join(str(len(row)) for row in rows) or "no row"
        raise ParameterError(f"every row of a kernel has as many numbers. Received: rows of {lengths}")
    if len(rows) > LARGEST_KERNEL or len(rows[0]) > LARGEST_KERNEL:
        raise ParameterError(
            f"a kernel has at most {LARGEST_KERNEL} rows and columns. Received: {len(rows)} x {len(rows[0])}"
        )
    return np.array([[_number(cell) for cell in row] for row in rows])


def _number(text: str) -> float:
    over, _, under = text.partition("/")
    try:
        value = float(over) / float(under) if under else float(text)
    except (ValueError, ZeroDivisionError):
        value = float("nan")
    if not np.isfinite(value):
        raise ParameterError(f"a kernel holds numbers such as 2, -0.5 or 1/3. Received: {text[:20]!r}")
    return value


def parse_lags(text: str) -> tuple[int, ...]:
    """Read lags that were typed, divided by blanks or commas; `Lagged` checks them."""
    words = text.replace(",", " ").split()
    if not words or not all(word.isdecimal() and len(word) <= 4 for word in words):
        raise ParameterError(
            f"lags are whole numbers of sessions, such as 0, 1, 5, 21. Received: {text[:40]!r}"
        )
    return tuple(int(word) for word in words)


def _lift(strategy: Lifting | Parallel, kernel: Float64) -> Lifting:
    """Give the lifting whose rows the filters of a strategy meet."""
    if not isinstance(strategy, Parallel):
        return strategy
    return Replicate(rows=kernel.shape[0] if strategy.axis == "rows" else kernel.shape[1])


def _row_names(setting: Setting, lifting: Lifting, lookback: int, parallel: bool) -> list[str]:
    if parallel:
        return [f"filter {row + 1}" for row in range(lifting.shape(lookback)[0])]
    if isinstance(lifting, Spectrogram):
        return ["mean level", *(f"period {period:.3g}" for period in lifting.periods[1:])]
    if isinstance(lifting, Placement):
        lags = lifting.row_lags(lookback)
        if isinstance(lifting, Replicate):
            return [f"copy {row + 1}" for row in range(len(lags))]
        return [f"lag {lag}" for lag in lags]
    return [f"row {row + 1}" for row in range(lifting.shape(lookback)[0])]


def explore(values: Float64, setting: Setting, kernel: Float64, lookback: int) -> Exploration:
    """Lift the window that ends with the last of the values, and apply the kernel to it in 2D and in 1D.

    Parameters
    ----------
    values : ndarray of shape (sessions,)
        A series up to the origin, oldest first; only the last ``lookback + history`` are used.
    setting : Setting
    kernel : ndarray of shape (height, width)
    lookback : int
        Sessions of a window.

    Raises
    ------
    ParameterError
        If the series is too short, or the strategy or the operation refuses its settings.
    """
    strategy = STRATEGIES[setting.strategy](setting)
    parallel = isinstance(strategy, Parallel)
    lifting = _lift(strategy, kernel)
    needed = lookback + lifting.history
    if len(values) < needed:
        raise ParameterError(
            f"this strategy needs {needed} sessions up to the origin: {lookback} of the window and "
            f"{lifting.history} of history. Received: {len(values)}; take a later origin or a shorter window"
        )
    window = np.asarray(values[-needed:], dtype=np.float64)
    lifted = np.asarray(lifting(window[None, :, None])[0, :, :, 0], dtype=np.float64)
    operate = partial(
        convolve, mode=setting.mode, boundary=setting.boundary, fill_value=setting.fill_value,
        convention=setting.convention,
    )  # fmt: skip
    output = operate(window, kernel, strategy if parallel else _Lifted(lifted))
    if isinstance(strategy, Parallel):
        count = len(lifted) if strategy.aggregate == "concatenate" else 1
        output = output.reshape(count, -1)
    folding: Folding | None = None
    difference, why_not = float("nan"), ""
    try:
        folding = _fold(kernel, strategy, lookback, setting.mode, setting)
    except ParameterError as error:
        why_not = str(error)
    if folding is not None:
        folded = folding.apply(window[None, :, None])[0]
        # Concatenated filters are channels of one row.
        flat = folded[0].T if parallel else folded[:, :, 0]
        difference = float(np.abs(flat - output).max())
    names = _row_names(setting, lifting, lookback, parallel)
    return Exploration(window, lifting.history, lifted, names, output, folding, difference, why_not)


def _fold(
    kernel: Float64, strategy: Lifting | Parallel, lookback: int, mode: Mode, setting: Setting
) -> Folding:
    convention: Convention = setting.convention
    return fold(kernel, strategy, lookback, mode, setting.boundary, setting.fill_value, convention)


def _interior(folding: Folding) -> list[tuple[FoldedKernel, int, str]]:
    """Give the distinct 1D kernels away from the edges of the window: kernel, filter and name."""
    whole = [kernel for kernel in folding.kernels if kernel.complete and kernel.offsets]
    if folding.shape[1] == 1 and folding.shape[0] > 1:
        # In a column, time runs down the rows: its edges are the rows that share a kernel with few.
        widest = max(folding.kernels, key=lambda kernel: len(kernel.rows))
        whole = [widest] if len(widest.rows) > 1 else []
    alike: dict[tuple[float, ...], tuple[FoldedKernel, int, list[int]]] = {}
    several = folding.filters > 1
    for kernel in whole:
        for number in range(folding.filters):
            taps = tuple(_trimmed(kernel, number))
            _, _, members = alike.setdefault(taps, (kernel, number, []))
            members += [number] if several else kernel.rows
    return [
        (kernel, number, _named("filter" if several else "row", members))
        for kernel, number, members in alike.values()
    ]


def _trimmed(kernel: FoldedKernel, number: int) -> list[float]:
    """Give the taps of one filter without the zeros around them, to what rounding leaves alone."""
    taps: list[float] = np.trim_zeros(np.round(kernel.dense()[:, 0, number], 12) + 0.0).tolist()
    return taps or [0.0]


def _named(what: str, members: list[int]) -> str:
    """Name the outputs that share a kernel, counted from one."""
    counted = sorted(member + 1 for member in members)
    if len(counted) > 4:
        return f"{len(counted)} {what}s from {counted[0]}"
    return f"{what}{'s' if len(counted) > 1 else ''} {', '.join(map(str, counted))}"


def tap_table(folding: Folding) -> pd.DataFrame:
    """Give the taps of the distinct 1D kernels: ``name, lag, weight``.

    A tap's lag is counted from the newest session that its kernel reads. Kernels at the edges of the window,
    which are parts of these, are left out.
    """
    rows = []
    for kernel, number, name in _interior(folding):
        weights = kernel.dense()[::-1, 0, number].tolist()
        rows += [(name, lag, weight) for lag, weight in enumerate(weights)]
    return pd.DataFrame(rows, columns=["name", "lag", "weight"])


def responses(folding: Folding, names: int = 5) -> pd.DataFrame:
    """Give the frequency responses of at most `names` distinct 1D kernels: ``name, period, magnitude``."""
    periods = np.geomspace(2.0, 252.0, 160)
    parts = []
    for kernel, number, name in _interior(folding)[:names]:
        magnitude, _ = frequency_response(kernel.taps[:, 0, number], kernel.offsets, periods)
        parts.append(pd.DataFrame({"name": name, "period": periods, "magnitude": magnitude}))
    return pd.concat(parts) if parts else pd.DataFrame(columns=["name", "period", "magnitude"])


Signature = frozenset[tuple[float, ...]]


def _signature(folding: Folding) -> Signature:
    """Tell maps apart by their distinct 1D kernels, whatever their delay and how often they occur."""
    return frozenset(tuple(_trimmed(kernel, number)) for kernel, number, _ in _interior(folding))


def same_maps(setting: Setting, kernel: Float64, lookback: int) -> pd.DataFrame:
    """Find which strategies are the same linear map of the series, with this kernel and these settings.

    Two are the same where they apply the same distinct 1D kernels to the series, wherever a kernel lies
    wholly inside the window: one may repeat or delay what the other gives once. A column takes the kernel
    turned, so that its rows meet time.

    Returns
    -------
    DataFrame
        ``group`` (a letter, shared by those that are the same), ``strategy, mode, rows, columns`` (of the
        output), ``kernels`` (distinct ones). Where a strategy is no linear map of the series, cannot take the
        kernel, or gives nothing away from the edges, the group is empty and ``note`` says why.
    """
    rows = []
    groups: dict[Signature, str] = {}
    modes: tuple[Mode, ...] = ("same", "valid")
    for name, strategy in _candidates(setting):
        turned = np.ascontiguousarray(kernel.T) if isinstance(strategy, Column) else kernel
        for mode in modes:
            try:
                folding = _fold(turned, strategy, lookback, mode, setting)
            except ParameterError as error:
                larger = "'valid'" in str(error)
                note = "the kernel is larger than the image" if larger else "not a linear map"
                rows.append(("", name, mode, 0, 0, 0, note))
                continue
            signature = _signature(folding)
            outputs = folding.shape[0] * folding.filters
            letter, note = "", "every output touches an edge"
            if signature:
                letter, note = groups.setdefault(signature, _letter(len(groups))), ""
            rows.append((letter, name, mode, outputs, folding.shape[1], len(signature), note))
    columns = ["group", "strategy", "mode", "rows", "columns", "kernels", "note"]
    return pd.DataFrame(rows, columns=columns)


def _candidates(setting: Setting) -> list[tuple[str, Lifting | Parallel]]:
    """Give every strategy with these settings, parallel filters in each way of joining them."""
    axes: tuple[Literal["rows", "columns"], ...] = ("rows", "columns")
    return [
        *((name, make(setting)) for name, make in STRATEGIES.items() if not name.startswith("parallel")),
        *((f"parallel filters, {axis}, {how}", Parallel(axis, how)) for axis in axes for how in AGGREGATES),
    ]


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"A{number}"
