"""The reference: a lifted series under a 2D kernel, as scipy has it, and the geometry of its modes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.signal import convolve2d, correlate2d

from forecaster.errors import ParameterError
from forecaster.liftings import Array, Lifting, Replicate, as_finite, check_choice, check_integer

__all__ = [
    "Boundary",
    "Convention",
    "Float64",
    "Mode",
    "Parallel",
    "check_lifting",
    "convolve",
    "pair",
    "rows_of",
    "sources",
]

Mode = Literal["full", "same", "valid"]
Boundary = Literal["fill", "wrap", "symm"]
Convention = Literal["convolution", "correlation", "tensorflow"]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Parallel:
    """Parallel 1D filters: each row, or column, of the 2D kernel is a 1D filter of its own.

    Attributes
    ----------
    axis : {"rows", "columns"}
        What one filter is: a row of the kernel, or a column of it.
    aggregate : {"concatenate", "mean", "sum", "max"}
        What becomes of the filters' outputs: one after the other, or joined session by session.
    lifting : Lifting, optional
        Give each filter a row of this lifting for its own input (a band of a spectrogram, say), instead of
        the series. Then the kernel has as many filters as the lifting has rows.

    Raises
    ------
    ParameterError
        When the axis or the aggregate is unknown, or the lifting is none.
    """

    axis: Literal["rows", "columns"] = "rows"
    aggregate: Literal["concatenate", "mean", "sum", "max"] = "concatenate"
    lifting: Lifting | None = None

    def __post_init__(self) -> None:
        check_choice("Parallel: axis", self.axis, ("rows", "columns"))
        check_choice("Parallel: aggregate", self.aggregate, ("concatenate", "mean", "sum", "max"))
        if self.lifting is not None:
            check_lifting("Parallel: lifting", self.lifting)


def convolve(
    x: npt.ArrayLike,
    kernel: npt.ArrayLike,
    strategy: Lifting | Parallel,
    mode: Mode = "same",
    boundary: Boundary = "fill",
    fill_value: float = 0.0,
    convention: Literal["convolution", "correlation"] = "convolution",
    stride: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
) -> Float64:
    """Apply a 2D kernel to a bare series by a strategy, exactly as scipy does on the lifted array.

    The whole series is one window: the lifted array is the same in every mode, and a lagged row takes
    ``fill_value`` before the series starts. The mode and the boundary belong to the 2D operation.

    Parameters
    ----------
    x : array-like of shape (sessions,)
        The series, oldest first. No NaN.
    kernel : array-like of shape (height, width)
        Rows of the kernel meet rows of the lifted array, its columns meet time (for ``Column``, its rows do).
    strategy : Lifting or Parallel
        How the series becomes two-dimensional.
    mode : {"same", "full", "valid"}
        Size of the output: that of the lifted array, every overlap, or complete overlaps only.
    boundary : {"fill", "wrap", "symm"}
        What lies beyond the lifted array: ``fill_value``, the array again, or its mirror image.
    fill_value : float
        The value beyond the lifted array, and before the series.
    convention : {"convolution", "correlation"}
        Whether the kernel is flipped, and with it where ``same`` puts the odd cell of an even kernel.
    stride, dilation : int or (int, int)
        For rows and columns. A stride keeps every n-th output, a dilation puts n - 1 zeros between the taps.
        The filters of ``Parallel`` know time only: an integer, or (1, n).

    Returns
    -------
    ndarray of float64
        Shape (rows, columns) for a lifting. For ``Parallel``, shape (outputs,), or (filters * outputs,) when
        concatenated, the first filter first.

    Raises
    ------
    ParameterError
        For an unknown option, a wrong rank, an empty array, a NaN, a kernel larger than the lifted array in
        either dimension in mode ``valid`` (scipy would swap the two), or a dilated even kernel that no lifted
        cell meets.

    Examples
    --------
    >>> convolve([1, 2, 3, 4, 5, 6], [[1, 0, 1], [0, 1, 0], [1, 0, 1]], Replicate(rows=3))
    array([[ 3.,  6.,  9., 12., 15., 11.],
           [ 5., 10., 15., 20., 25., 16.],
           [ 3.,  6.,  9., 12., 15., 11.]])
    """
    series = as_finite("x", x, [("sessions",)]).astype(np.float64)
    taps = as_finite("kernel", kernel, [("height", "width")]).astype(np.float64)
    check_choice("convention", convention, ("convolution", "correlation"))
    fill = float(as_finite("fill_value", fill_value, [()]))

    def operate(
        lifted: Array, plane: Float64, strides: tuple[int, int], dilations: tuple[int, int]
    ) -> Float64:
        for size, length, step, spread, axis in zip(
            lifted.shape, plane.shape, strides, dilations, ("row", "column"), strict=True
        ):
            sources(axis, size, length, mode, boundary, convention, step, spread)  # for its refusals
        spaced = np.zeros([(n - 1) * d + 1 for n, d in zip(plane.shape, dilations, strict=True)])
        spaced[:: dilations[0], :: dilations[1]] = plane
        operator = convolve2d if convention == "convolution" else correlate2d
        result = operator(lifted, spaced, mode=mode, boundary=boundary, fillvalue=fill)
        return np.ascontiguousarray(result[:: strides[0], :: strides[1]])

    parallel = isinstance(strategy, Parallel)
    strides, dilations = pair("stride", stride, parallel), pair("dilation", dilation, parallel)
    if not isinstance(strategy, Parallel):
        check_lifting("strategy", strategy)
        return operate(_lift_series(series, strategy, fill), taps, strides, dilations)
    bank = taps if strategy.axis == "rows" else taps.T
    lifted = _lift_series(series, rows_of(strategy, bank, series.size), fill)
    outputs = np.concatenate(
        [operate(lifted[a : a + 1], bank[a : a + 1], strides, dilations) for a in range(len(bank))]
    )
    if strategy.aggregate == "concatenate":
        return outputs.ravel()
    joins: dict[str, Callable[..., Float64]] = {"mean": np.mean, "sum": np.sum, "max": np.max}
    return joins[strategy.aggregate](outputs, axis=0)


def sources(
    axis: str,
    size: int,
    length: int,
    mode: object,
    boundary: Boundary,
    convention: Convention,
    stride: int,
    dilation: int,
) -> tuple[npt.NDArray[np.intp], int]:
    """Tell which cell of a lifted axis each tap of a kernel axis reads, for each output: the whole geometry.

    Taps count as in correlation. Returns the cells, shape (outputs, length), with -1 for the fill value, and
    the number of cells padded in front.
    """
    check_choice("mode", mode, get_args(Mode))
    check_choice("boundary", boundary, get_args(Boundary))
    extent = (length - 1) * dilation + 1
    outputs = -(-size // stride)
    if mode == "valid":
        if extent > size:
            raise ParameterError(
                "mode 'valid' needs a kernel no larger than the lifted array in rows and in columns. "
                f"Received: {extent} on {size} {axis}s, dilation included; use 'same' or 'full'."
            )
        before, outputs = 0, (size - extent) // stride + 1
    elif mode == "full":
        before, outputs = extent - 1, -(-(size + extent - 1) // stride)
    elif convention == "tensorflow":
        before = max((outputs - 1) * stride + extent - size, 0) // 2
    else:
        # scipy centres on the full result: for an even kernel, the flip moves the odd cell to the other side.
        before = extent // 2 if convention == "convolution" else (extent - 1) // 2
    cells = np.arange(outputs)[:, None] * stride - before + np.arange(length) * dilation
    if boundary == "wrap":
        cells %= size
    elif boundary == "symm":
        cells %= 2 * size
        cells = np.minimum(cells, 2 * size - 1 - cells)
    else:
        cells[(cells < 0) | (cells >= size)] = -1
    if (cells < 0).all():
        raise ParameterError(
            f"A kernel must meet at least one lifted {axis}, or the output would be the bias alone. "
            f"Received: {length} kernel {axis}s with {axis} dilation {dilation} on {size} lifted {axis}s "
            f"in mode {mode!r}; use an odd number of kernel {axis}s, or {axis} dilation 1."
        )
    return cells, before


def _lift_series(series: Float64, lifting: Lifting, fill: float) -> Float64:
    """Lift a bare series as one window whose history is the fill value: shape (rows, columns)."""
    window = np.concatenate([np.full(lifting.history, fill), series])
    return np.asarray(lifting(window[None, :, None])[0, :, :, 0], dtype=np.float64)


def rows_of(strategy: Parallel, bank: Float64, lookback: int) -> Lifting:
    """Return the lifting that gives each filter of a bank its input row."""
    if strategy.lifting is None:
        return Replicate(rows=len(bank))
    rows = strategy.lifting.shape(lookback)[0]
    if rows != len(bank):
        raise ParameterError(
            f"Parallel: a kernel must have one filter for each of the {rows} rows of its lifting. "
            f"Received: {len(bank)} filters."
        )
    return strategy.lifting


def check_lifting(name: str, value: object) -> None:
    """Refuse what is no lifting; of a ``strategy``, say that it may be `Parallel` too."""
    if isinstance(value, type) or not isinstance(value, Lifting):
        kinds = "a lifting, such as Row()" + (", or Parallel()" if name == "strategy" else "")
        raise ParameterError(f"{name} must be {kinds}. Received: {value!r}.")


def pair(name: str, value: Any, one_row: bool) -> tuple[int, int]:
    """Return a (rows, columns) pair from an integer or a pair; 1D filters have one row."""
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        if len(value) != 2:
            raise ParameterError(f"{name} must be an integer or a pair (rows, columns). Received: {value!r}.")
        rows, columns = (check_integer(name, part, 1) for part in value)
        if one_row and rows != 1:
            raise ParameterError(
                f"Parallel: {name} must be an integer or (1, n), as 1D filters know time only. "
                f"Received: {value!r}."
            )
        return rows, columns
    number = check_integer(name, value, 1)
    return (1 if one_row else number), number
