"""The exact folding of a 2D kernel on a lifting to 1D kernels on the series itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from forecaster.errors import ParameterError
from forecaster.kernels.operators import (
    Boundary,
    Convention,
    Float64,
    Mode,
    Parallel,
    check_lifting,
    pair,
    rows_of,
    sources,
)
from forecaster.liftings import Lifting, Placement, as_finite, check_choice, check_integer

__all__ = ["FoldedKernel", "Folding", "fold", "fold_placed", "full_height", "join_bank"]


@dataclass(frozen=True, eq=False)
class FoldedKernel:
    """A 1D kernel, and the output cells that it gives exactly.

    For each row ``i`` of ``rows`` with its delay, and each column ``j`` of ``columns``::

        Y[i, j] = constant + sum over k of  x[start + j * step + offsets[k] - delay_i] @ taps[k]

    where ``start`` and ``step`` are those of the ``Folding``. The taps are the kernel's impulse response.

    Attributes
    ----------
    taps : ndarray of shape (taps, channels, filters)
        float64.
    offsets : tuple of int
        Session of each tap, strictly increasing; negative ones reach back before the column's own start.
    constant : ndarray of shape (filters,)
        The bias, and the share of the kernel that lies on the fill value.
    rows : tuple of int
        Output rows.
    delays : tuple of int
        Sessions by which each of these rows is delayed against the first of them.
    columns : tuple of int
        Output columns.
    complete : bool
        Whether every kernel column falls inside the lifted array here.
    """

    taps: Float64
    offsets: tuple[int, ...]
    constant: Float64
    rows: tuple[int, ...]
    delays: tuple[int, ...]
    columns: tuple[int, ...]
    complete: bool

    def dense(self) -> Float64:
        """Taps at every session from the first offset to the last, zeros between: a Conv1D kernel.

        Returns
        -------
        ndarray of shape (last offset - first offset + 1, channels, filters)
        """
        if not self.offsets:
            return self.taps
        kernel = np.zeros((self.offsets[-1] - self.offsets[0] + 1, *self.taps.shape[1:]))
        kernel[np.array(self.offsets) - self.offsets[0]] = self.taps
        return kernel


@dataclass(frozen=True, eq=False)
class Folding:
    """The 1D kernels that equal a 2D kernel on a lifting, cell by cell of the output.

    Attributes
    ----------
    kernels : tuple of FoldedKernel
        Every output cell belongs to exactly one.
    shape : (int, int)
        Output rows and columns.
    filters : int
        Output channels.
    sessions : int
        Length of an extended window: lookback + history.
    start : int
        Index in the extended window of offset 0 at output column 0; negative inside the front padding.
    step : int
        Sessions between output columns: the column stride.
    row_terms : tuple of tuples of (int, int)
        For each output row, the kernel rows that act on it and the lag at which they do. On complete columns,
        ``Y_i[n] = bias + sum over (a, lag) of P_a[n - lag]`` with ``P_a`` the series correlated once with
        kernel row a: this shift-add form costs the same for any lags. Kernel rows count as in correlation
        (from the end, under ``convolution``).
    """

    kernels: tuple[FoldedKernel, ...]
    shape: tuple[int, int]
    filters: int
    sessions: int
    start: int
    step: int
    row_terms: tuple[tuple[tuple[int, int], ...], ...]

    def __repr__(self) -> str:
        rows, columns = self.shape
        taps = ", ".join(str(len(kernel.offsets)) for kernel in self.kernels[:3])
        more = ", ..." if len(self.kernels) > 3 else ""
        return f"Folding(1D kernels of {taps}{more} taps; output {rows} x {columns} x {self.filters})"

    @property
    def complete_columns(self) -> range:
        """Output columns on which every kernel column falls inside the lifted array; may be empty."""
        columns = next((kernel.columns for kernel in self.kernels if kernel.complete), ())
        return range(columns[0], columns[-1] + 1) if columns else range(0)

    def at(self, row: int = 0, column: int = -1) -> tuple[FoldedKernel, int]:
        """Return the kernel of one output cell and the index in the extended window of its offset 0.

        Parameters
        ----------
        row, column : int
            Output cell; negative values count from the end. The last column is the newest.

        Raises
        ------
        ParameterError
            When there is no such cell.
        """
        cell = []
        for name, index, size in (("row", row, self.shape[0]), ("column", column, self.shape[1])):
            if check_integer(name, index, -size) >= size:
                raise ParameterError(
                    f"{name} must be less than the {size} of the output. Received: {index!r}."
                )
            cell.append(index % size)
        i, j = cell
        kernel = next(kernel for kernel in self.kernels if i in kernel.rows and j in kernel.columns)
        return kernel, self.start + j * self.step - kernel.delays[kernel.rows.index(i)]

    def apply(self, windows: npt.ArrayLike) -> Float64:
        """Apply the 1D kernels to windows that were never lifted.

        Parameters
        ----------
        windows : array-like of shape (n, lookback + history, channels)
            Oldest session first. No NaN.

        Returns
        -------
        ndarray of shape (n, rows, columns, filters)
            float64; what the 2D kernel gives on the lifted windows.
        """
        array = as_finite("windows", windows, [("windows", "sessions", "channels")]).astype(np.float64)
        expected = (self.sessions, self.kernels[0].taps.shape[1])
        if array.shape[1:] != expected:
            raise ParameterError(
                f"windows must have {expected[0]} sessions and {expected[1]} channels, as folded. "
                f"Received: shape {array.shape}."
            )
        result = np.empty((len(array), *self.shape, self.filters))
        for kernel in self.kernels:
            columns = np.array(kernel.columns)
            base = self.start + self.step * columns[:, None] + np.array(kernel.offsets, dtype=np.intp)
            for row, delay in zip(kernel.rows, kernel.delays, strict=True):
                result[:, row, columns] = kernel.constant + np.einsum(
                    "njkc,kcf->njf", array[:, base - delay], kernel.taps
                )
        return result


def fold(
    kernel: npt.ArrayLike,
    strategy: Lifting | Parallel,
    lookback: int,
    mode: Mode | tuple[Mode, Mode] = "same",
    boundary: Boundary = "fill",
    fill_value: float = 0.0,
    convention: Convention = "tensorflow",
    stride: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
    bias: npt.ArrayLike | None = None,
) -> Folding:
    """Fold a 2D kernel on a lifting into the 1D kernels that do exactly the same on the series.

    Parameters
    ----------
    kernel : array-like of shape (height, width) or (height, width, channels, filters)
        The 2D kernel.
    strategy : Lifting or Parallel
        Any lifting that only places sessions. ``Parallel`` folds to one output row: of height * filters
        filters when concatenated (those of the first 1D filter first), of filters when summed or averaged.
    lookback : int
        Sessions of a window, without the history.
    mode, boundary, fill_value, stride, dilation
        As for ``convolve``; a lifting also takes a mode for rows and one for columns: ("valid", "same").
    convention : {"tensorflow", "correlation", "convolution"}
        See the module's text. The default is what a Keras layer computes.
    bias : array-like of shape (filters,), optional
        Added to every output; zero by default.

    Returns
    -------
    Folding
        Output rows that differ by a delay only share one kernel: there is one in all for evenly spaced lags
        or replicated rows in mode ``valid``, ``min(rows, height)`` for replicated rows in mode ``same``.

    Raises
    ------
    ParameterError
        As ``convolve``; also when there is no linear 1D form: a spectrogram (but see ``full_height``), or the
        maximum of parallel filters.

    Examples
    --------
    >>> folding = fold([[1, 2, 3], [10, 20, 30]], Replicate(rows=4), lookback=8, mode="valid")
    >>> [(k.rows, k.offsets, k.taps.ravel().tolist()) for k in folding.kernels]
    [((0, 1, 2), (0, 1, 2), [11.0, 22.0, 33.0])]
    """
    taps = as_finite("kernel", kernel, [("height", "width"), ("height", "width", "channels", "filters")])
    taps = taps.astype(np.float64).reshape(*taps.shape, *(1,) * (4 - taps.ndim))
    lookback = check_integer("lookback", lookback, 1)
    check_choice("convention", convention, get_args(Convention))
    fill = float(as_finite("fill_value", fill_value, [()]))
    parallel = isinstance(strategy, Parallel)
    strides, dilations = pair("stride", stride, parallel), pair("dilation", dilation, parallel)
    if isinstance(strategy, Parallel):
        # The filters of a bank are the rows of one kernel of full height, with output channels of their own.
        bank = taps if strategy.axis == "rows" else taps.swapaxes(0, 1)
        lifting, modes = rows_of(strategy, bank, lookback), ("valid", mode)
        taps = join_bank(bank[:, ::-1] if convention == "convolution" else bank, strategy.aggregate)
    else:
        lifting, modes = strategy, mode if isinstance(mode, tuple) and len(mode) == 2 else (mode, mode)
        check_lifting("strategy", lifting)
        taps = taps[::-1, ::-1] if convention == "convolution" else taps
    if not isinstance(lifting, Placement):
        raise ParameterError(
            "Only a lifting that places sessions folds to kernels on the series. "
            f"Received: {lifting!r}; full_height folds a kernel as high as its rows."
        )
    size = lifting.shape(lookback)
    filters = taps.shape[3]
    shift = np.zeros(filters) if bias is None else as_finite("bias", bias, [("filters",)]).astype(np.float64)
    if shift.shape != (filters,):
        raise ParameterError(
            f"bias must have one value for each of the {filters} filters. Received: {len(shift)}."
        )

    lags = lifting.row_lags(lookback)
    over_rows, _ = sources(
        "row", size[0], taps.shape[0], modes[0], boundary, convention, strides[0], dilations[0]
    )
    over_columns, before = sources(
        "column", size[1], taps.shape[1], modes[1], boundary, convention, strides[1], dilations[1]
    )
    row_terms = tuple(tuple((a, lags[r]) for a, r in enumerate(row) if r >= 0) for row in over_rows.tolist())
    column_terms = [
        tuple((b, c - (j * strides[1] - before)) for b, c in enumerate(column) if c >= 0)
        for j, column in enumerate(over_columns.tolist())
    ]
    sessions = lookback + lifting.history
    start = sessions - size[1] - before
    return fold_placed(taps, row_terms, column_terms, dilations[1], shift, fill, sessions, start, strides[1])


def fold_placed(
    taps: Float64,
    row_terms: Sequence[tuple[tuple[int, int], ...]],
    column_terms: Sequence[tuple[tuple[int, int], ...]],
    dilation: int,
    bias: Float64,
    fill: float,
    sessions: int,
    start: int,
    step: int,
) -> Folding:
    """Fold a kernel whose taps are placed already: `fold` without the geometry of its modes.

    Parameters
    ----------
    taps : ndarray of shape (height, width, channels, filters)
        Of a correlation.
    row_terms : sequence of tuples of (int, int)
        For each output row, the kernel rows that act on it, and the lag at which they do.
    column_terms : sequence of tuples of (int, int)
        For each output column, the kernel columns that act on it, and the session that they read, counted
        from ``start + column * step``.
    dilation : int
        Sessions between kernel columns that all act.
    bias : ndarray of shape (filters,)
    fill : float
        What the taps that are in no term read.
    sessions, start, step : int
        As of `Folding`.
    """
    # Two output rows share a kernel when the same kernel rows act on them at the same lags but for one delay.
    row_groups: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for i, terms in enumerate(row_terms):
        row_groups.setdefault(tuple((a, lag - terms[0][1]) for a, lag in terms), []).append(i)
    column_groups: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for j, terms in enumerate(column_terms):
        column_groups.setdefault(terms, []).append(j)
    everywhere = tuple((b, b * dilation) for b in range(taps.shape[1]))

    kernels = []
    for rows in row_groups.values():
        first = row_terms[rows[0]]
        lead = first[0][1] if first else 0
        delays = tuple(row_terms[i][0][1] - lead if first else 0 for i in rows)
        for acting, columns in column_groups.items():
            kappa: dict[int, Float64] = {}
            beyond = taps.sum(axis=(0, 1, 2)) if fill else np.zeros(taps.shape[3])
            for a, lag in first:
                for b, session in acting:
                    kappa[session - lag] = kappa.get(session - lag, 0.0) + taps[a, b]
                    beyond = beyond - taps[a, b].sum(axis=0) if fill else beyond
            offsets = tuple(sorted(kappa))
            kernels.append(
                FoldedKernel(
                    taps=np.array([kappa[m] for m in offsets]).reshape(len(offsets), *taps.shape[2:]),
                    offsets=offsets,
                    constant=bias + fill * beyond,
                    rows=tuple(rows),
                    delays=delays,
                    columns=tuple(columns),
                    complete=acting == everywhere,
                )
            )
    return Folding(
        kernels=tuple(kernels),
        shape=(len(row_terms), len(column_terms)),
        filters=taps.shape[3],
        sessions=sessions,
        start=start,
        step=step,
        row_terms=tuple(row_terms),
    )


def full_height(kernel: npt.ArrayLike) -> Float64:
    """Turn a 2D kernel as high as its lifting into a Conv1D kernel over rows as channels, for any lifting.

    In row mode ``valid``, a kernel of height ``rows`` gives one output row, and equals the 1D kernel returned
    here on ``lifted.swapaxes(1, 2).reshape(n, columns, rows * channels)``: cheaper than the sum along
    diagonals, and true of the spectrogram too.

    Parameters
    ----------
    kernel : array-like of shape (rows, width, channels, filters)
        As Keras stores it (correlation).

    Returns
    -------
    ndarray of shape (width, rows * channels, filters)
    """
    taps = as_finite("kernel", kernel, [("height", "width", "channels", "filters")]).astype(np.float64)
    rows, width, channels, filters = taps.shape
    return np.ascontiguousarray(taps.swapaxes(0, 1).reshape(width, rows * channels, filters))


def join_bank(bank: Float64, aggregate: str) -> Float64:
    """Turn a bank of 1D filters into one kernel of full height, block-diagonal to concatenate outputs.

    Parameters
    ----------
    bank : ndarray of shape (height, width, channels, filters)
        A row a filter.
    aggregate : {"concatenate", "mean", "sum"}
        How the outputs of the filters are joined.

    Returns
    -------
    ndarray of shape (height, width, channels, filters), or height times as many filters when concatenated

    Raises
    ------
    ParameterError
        For the maximum.
    """
    height, width, channels, filters = bank.shape
    if aggregate == "max":
        raise ParameterError(
            "The maximum of parallel filters is not linear and does not fold. "
            "Received: aggregate='max'; fold with 'concatenate' and take the maximum of the outputs."
        )
    if aggregate != "concatenate":
        return bank if aggregate == "sum" else bank / height
    joined = np.zeros((height, width, channels, height, filters))
    joined[np.arange(height), :, :, np.arange(height)] = bank
    return joined.reshape(height, width, channels, height * filters)
