"""The 2D kernel on a 1D series: reference operators, their exact folding to 1D, and what the taps mean.

``convolve`` lifts a bare series and applies a 2D kernel to it exactly as scipy does. ``fold`` gives the 1D
kernels that do the same on the series itself. With front padding pt and pl, strides sh and sw, dilations dh
and dw, for a lifting of lags ``lag_r`` over the sessions t-W+1 .. t::

    Y[i, j, f] = bias_f + sum over a in A_i, b in B_j and c of
                 K[a, b, c, f] * x_c[t-W+1 + j*sw + b*dw - pl - lag_{i*sh + a*dh - pt}]

A_i holds the kernel rows that fall on a lifted row, B_j the kernel columns that fall on a lifted column.
Wherever B_j is complete, output row i is therefore a 1D correlation with taps ``kappa_i[m]``, the sum of the
K[a, b] whose ``b*dw - lag`` is m; at the edges the kernels are truncated (or reach back into the array, for
the boundary modes ``wrap`` and ``symm``).

Conventions
-----------
``convolution``
    ``scipy.signal.convolve2d``: the kernel is flipped. A stride subsamples the result.
``correlation``
    ``scipy.signal.correlate2d``: the kernel is not flipped. A stride subsamples the result.
``tensorflow``
    As correlation, but mode ``same`` pads as TensorFlow and Keras do: just what the stride needs, the odd
    cell at the end. Equal to correlation at stride 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.signal import convolve2d, correlate2d

from forecaster.errors import ParameterError
from forecaster.liftings import Array, Lifting, Placement, Replicate, as_finite, check_choice, check_integer

__all__ = [
    "FoldedKernel",
    "Folding",
    "Parallel",
    "convolve",
    "fold",
    "frequency_response",
    "full_height",
    "lag_weights",
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
            _check_lifting("Parallel: lifting", self.lifting)


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
            _sources(axis, size, length, mode, boundary, convention, step, spread)  # for its refusals
        spaced = np.zeros([(n - 1) * d + 1 for n, d in zip(plane.shape, dilations, strict=True)])
        spaced[:: dilations[0], :: dilations[1]] = plane
        operator = convolve2d if convention == "convolution" else correlate2d
        result = operator(lifted, spaced, mode=mode, boundary=boundary, fillvalue=fill)
        return np.ascontiguousarray(result[:: strides[0], :: strides[1]])

    parallel = isinstance(strategy, Parallel)
    strides, dilations = _pair("stride", stride, parallel), _pair("dilation", dilation, parallel)
    if not isinstance(strategy, Parallel):
        _check_lifting("strategy", strategy)
        return operate(_lift_series(series, strategy, fill), taps, strides, dilations)
    bank = taps if strategy.axis == "rows" else taps.T
    lifted = _lift_series(series, _rows_of(strategy, bank, series.size), fill)
    outputs = np.concatenate(
        [operate(lifted[a : a + 1], bank[a : a + 1], strides, dilations) for a in range(len(bank))]
    )
    if strategy.aggregate == "concatenate":
        return outputs.ravel()
    joins: dict[str, Callable[..., Float64]] = {"mean": np.mean, "sum": np.sum, "max": np.max}
    return joins[strategy.aggregate](outputs, axis=0)


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
    strides, dilations = _pair("stride", stride, parallel), _pair("dilation", dilation, parallel)
    if isinstance(strategy, Parallel):
        # The filters of a bank are the rows of one kernel of full height, with output channels of their own.
        bank = taps if strategy.axis == "rows" else taps.swapaxes(0, 1)
        lifting, modes = _rows_of(strategy, bank, lookback), ("valid", mode)
        taps = join_bank(bank[:, ::-1] if convention == "convolution" else bank, strategy.aggregate)
    else:
        lifting, modes = strategy, mode if isinstance(mode, tuple) and len(mode) == 2 else (mode, mode)
        _check_lifting("strategy", lifting)
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
    over_rows, _ = _sources(
        "row", size[0], taps.shape[0], modes[0], boundary, convention, strides[0], dilations[0]
    )
    over_columns, before = _sources(
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


def lag_weights(folding: Folding, row: int = 0, column: int = -1) -> Float64:
    """Weight of every session of the window in one output cell: the kernel as a map of lags.

    Parameters
    ----------
    folding : Folding
        A folded kernel.
    row, column : int
        Output cell; negative values count from the end. The last column is the newest.

    Returns
    -------
    ndarray of shape (lookback + history, channels, filters)
        Entry ``l`` is the weight of the session ``l`` sessions before the origin.
    """
    kernel, base = folding.at(row, column)
    weights = np.zeros((folding.sessions, *kernel.taps.shape[1:]))
    weights[folding.sessions - 1 - base - np.array(kernel.offsets, dtype=np.intp)] = kernel.taps
    return weights


def frequency_response(
    taps: npt.ArrayLike, offsets: Sequence[int] | npt.ArrayLike, periods: npt.ArrayLike
) -> tuple[Float64, Float64]:
    """Frequency response of a 1D kernel: ``H(p) = sum over k of taps[k] * exp(2 pi i offsets[k] / p)``.

    Parameters
    ----------
    taps : array-like of shape (taps, ...)
        Such as ``FoldedKernel.taps``; further axes (channels, filters) are kept.
    offsets : sequence of int, one a tap
        Session of each tap, such as ``FoldedKernel.offsets``: negative for the past.
    periods : float or array-like of shape (periods,)
        In sessions: at least 2 (shorter ones cannot be told from longer ones); infinity is the mean level.

    Returns
    -------
    magnitude : ndarray of shape (periods, ...)
        Amplitude out over amplitude in.
    phase : ndarray of shape (periods, ...)
        Lead of the output over the input at offset 0, in radians in (-pi, pi]; a delay is negative.

    Raises
    ------
    ParameterError
        When a period is below 2, or the offsets do not match the taps.
    """
    values = np.asarray(taps)
    values = as_finite("taps", values, [("taps", *("axis",) * max(values.ndim - 1, 0))])
    where = as_finite("offsets", offsets, [("taps",)])
    if where.shape != values.shape[:1] or (where != np.rint(where)).any():
        raise ParameterError(
            f"offsets must be one integer for each of the {len(values)} taps. Received: {offsets!r}."
        )
    lengths = np.atleast_1d(np.asarray(periods))
    if lengths.ndim != 1 or lengths.dtype.kind not in "iuf" or not (lengths >= 2).all():
        raise ParameterError(
            f"periods must be one-dimensional, each at least 2 sessions. Received: {periods!r}."
        )
    waves = np.exp(2j * np.pi * where / lengths[:, None])
    response = np.tensordot(waves, values, axes=1)
    return np.abs(response), np.angle(response)


def _sources(
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


def _rows_of(strategy: Parallel, bank: Float64, lookback: int) -> Lifting:
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


def _check_lifting(name: str, value: object) -> None:
    if isinstance(value, type) or not isinstance(value, Lifting):
        kinds = "a lifting, such as Row()" + (", or Parallel()" if name == "strategy" else "")
        raise ParameterError(f"{name} must be {kinds}. Received: {value!r}.")


def _pair(name: str, value: Any, one_row: bool) -> tuple[int, int]:
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
