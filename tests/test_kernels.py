"""The 2D kernel on a 1D series: scipy and slow loops against ``convolve`` and ``fold``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import correlate_windows
from scipy import signal

from forecaster.errors import ParameterError
from forecaster.kernels import (
    Folding,
    Parallel,
    convolve,
    fold,
    frequency_response,
    full_height,
    lag_weights,
)
from forecaster.liftings import CalendarFold, Column, Lagged, Replicate, Row, Spectrogram

X = np.arange(1.0, 7.0)
CROSS = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])

PLACEMENTS = st.one_of(
    st.just(Row()),
    st.just(Column()),
    st.builds(Replicate, rows=st.integers(1, 5)),
    st.builds(Lagged, rows=st.integers(1, 5), stride=st.integers(1, 4)),
    st.builds(Lagged, lags=st.lists(st.integers(0, 12), min_size=1, max_size=5, unique=True)),
    st.builds(CalendarFold, period=st.integers(1, 6)),
)
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))
BOUNDARIES = st.sampled_from(["fill", "wrap", "symm"])
MODES = st.sampled_from(["full", "same", "valid"])


TOO_LARGE = (
    "mode 'valid' needs a kernel no larger than the lifted array in rows and in columns. "
    "Received: {}, dilation included; use 'same' or 'full'."
)
thorough = settings(max_examples=300)


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0.0, atol=1e-10)


def lift_slowly(x: Any, lifting: Any, fill: float) -> Any:
    """The lifted array of a bare series, written out kind by kind."""
    if isinstance(lifting, Row):
        return np.array([x])
    if isinstance(lifting, Column):
        return np.array([[value] for value in x])
    if isinstance(lifting, Replicate):
        return np.array([x for _ in range(lifting.rows)])
    if isinstance(lifting, Lagged):
        return np.array(
            [[x[t - lag] if t >= lag else fill for t in range(len(x))] for lag in lifting.lag_set]
        )
    missing = -len(x) % lifting.period
    return np.concatenate([np.full(missing, fill), x]).reshape(-1, lifting.period)


def spread(kernel: Any, dilation: tuple[int, int]) -> Any:
    """The kernel with zeros between its taps."""
    for axis, factor in enumerate(dilation):
        for place in range(kernel.shape[axis] - 1, 0, -1):
            for _ in range(factor - 1):
                kernel = np.insert(kernel, place, 0.0, axis=axis)
    return kernel


def draw_length(data: st.DataObject, size: int, dilation: int, mode: str) -> int:
    """A kernel length; one that fits in mode valid."""
    return data.draw(st.integers(1, min(4, (size - 1) // dilation + 1) if mode == "valid" else 4))


# --- convolve ---


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (Row(), [[1, 2, 3, 4, 5, 6]]),
        (Column(), [[1], [2], [3], [4], [5], [6]]),
        (Replicate(rows=3), [[3, 6, 9, 12, 15, 11], [5, 10, 15, 20, 25, 16], [3, 6, 9, 12, 15, 11]]),
        (Parallel(axis="rows"), [2, 4, 6, 8, 10, 5, 1, 2, 3, 4, 5, 6, 2, 4, 6, 8, 10, 5]),
        (Parallel(axis="rows", aggregate="sum"), [5, 10, 15, 20, 25, 16]),
        (Parallel(axis="rows", aggregate="mean"), np.array([5, 10, 15, 20, 25, 16]) / 3),
        (Parallel(axis="rows", aggregate="max"), [2, 4, 6, 8, 10, 6]),
    ],
    ids=repr,
)
def test_golden_values(strategy: Any, expected: Any) -> None:
    result = convolve(X, CROSS, strategy)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result.shape, np.shape(expected))
    np.testing.assert_allclose(result, expected, rtol=1e-15)
    # The cross is symmetric, so the conventions agree.
    np.testing.assert_allclose(convolve(X, CROSS, strategy, convention="correlation"), expected, rtol=1e-15)


@thorough
@given(
    data=st.data(),
    lifting=PLACEMENTS,
    sessions=st.integers(1, 14),
    mode=MODES,
    boundary=BOUNDARIES,
    fill=st.sampled_from([0.0, -1.5]),
    convention=st.sampled_from(["convolution", "correlation"]),
    stride=PAIRS,
    dilation=PAIRS,
)
def test_convolve_is_scipy_on_the_lifted_array(
    data: st.DataObject,
    lifting: Any,
    sessions: int,
    mode: Any,
    boundary: Any,
    fill: float,
    convention: Any,
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    x = rng().standard_normal(sessions)
    lifted = lift_slowly(x, lifting, fill)
    kernel = rng().standard_normal(
        [draw_length(data, n, d, mode) for n, d in zip(lifted.shape, dilation, strict=True)]
    )
    operator = {"convolution": signal.convolve2d, "correlation": signal.correlate2d}[convention]
    expected = operator(lifted, spread(kernel, dilation), mode, boundary, fill)[:: stride[0], :: stride[1]]
    # Counts the lifted cells that each output meets: none at all means that the kernel acts nowhere.
    met = operator(np.ones(lifted.shape), spread(np.ones(kernel.shape), dilation), mode, boundary)
    if not met[:: stride[0], :: stride[1]].any():
        with pytest.raises(ParameterError, match="must meet at least one lifted"):
            convolve(x, kernel, lifting, mode, boundary, fill, convention, stride, dilation)
        return
    close(convolve(x, kernel, lifting, mode, boundary, fill, convention, stride, dilation), expected)


@thorough
@given(
    data=st.data(),
    sessions=st.integers(1, 14),
    height=st.integers(1, 4),
    mode=MODES,
    boundary=BOUNDARIES,
    fill=st.sampled_from([0.0, 2.0]),
    convention=st.sampled_from(["convolution", "correlation"]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    axis=st.sampled_from(["rows", "columns"]),
)
def test_parallel_is_scipy_on_each_filter(
    data: st.DataObject,
    sessions: int,
    height: int,
    mode: Any,
    boundary: Any,
    fill: float,
    convention: Any,
    stride: int,
    dilation: int,
    axis: Any,
) -> None:
    x = rng().standard_normal(sessions)
    bank = rng().standard_normal((height, draw_length(data, sessions, dilation, mode)))
    kernel = bank if axis == "rows" else bank.T
    filters = spread(bank, (1, dilation))
    operator = {"convolution": signal.convolve2d, "correlation": signal.correlate2d}[convention]
    outputs = np.array([operator(x[None], f[None], mode, boundary, fill)[0, ::stride] for f in filters])
    if boundary == "fill" and fill == 0.0 and convention == "convolution":
        plain = [signal.convolve(x, f, mode, method="direct")[::stride] for f in filters]
        close(outputs, plain)
    met = operator(np.ones((1, sessions)), spread(np.ones((1, bank.shape[1])), (1, dilation)), mode, boundary)
    if not met[:, ::stride].any():
        with pytest.raises(ParameterError, match="must meet at least one lifted column"):
            convolve(x, kernel, Parallel(axis), mode, boundary, fill, convention, stride, dilation)
        return
    for aggregate, expected in (
        ("concatenate", np.concatenate(list(outputs))),
        ("mean", outputs.mean(axis=0)),
        ("sum", outputs.sum(axis=0)),
        ("max", outputs.max(axis=0)),
    ):
        strategy = Parallel(axis, aggregate)  # type: ignore[arg-type]
        result = convolve(x, kernel, strategy, mode, boundary, fill, convention, stride, dilation)
        close(result, expected)
        pair = convolve(x, kernel, strategy, mode, boundary, fill, convention, (1, stride), (1, dilation))
        np.testing.assert_array_equal(pair, result)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_parallel_filters_meet_the_bands_of_a_spectrogram(mode: Any) -> None:
    x, kernel = rng().standard_normal(30), rng().standard_normal((5, 3))
    lifting = Spectrogram(segment=8)
    bands = lifting(np.concatenate([np.full(7, 0.5), x])[None, :, None])[0, :, :, 0]
    expected = [
        signal.convolve(band, f, mode, method="direct") for band, f in zip(bands, kernel, strict=True)
    ]
    result = convolve(x, kernel, Parallel(lifting=lifting), mode, fill_value=0.5)
    # At the edges of the array the fill value counts too; inside, it cannot.
    inside = slice(2, 28) if mode != "valid" else slice(None)
    close(result.reshape(5, -1)[:, inside], np.array(expected)[:, inside])


@pytest.mark.parametrize(
    "lifting", [Lagged(lags=(0, 2, 7)), Replicate(rows=3), CalendarFold(period=5)], ids=repr
)
def test_parallel_filters_meet_the_rows_of_a_lifting(lifting: Any) -> None:
    x = rng().standard_normal(15)
    lifted = lift_slowly(x, lifting, 0.0)
    kernel = rng().standard_normal((3, 4))
    expected = sum(
        signal.convolve(row, f, "same", method="direct") for row, f in zip(lifted, kernel, strict=True)
    )
    close(convolve(x, kernel, Parallel(aggregate="sum", lifting=lifting)), expected)
    close(convolve(x, kernel.T, Parallel("columns", "sum", lifting=lifting)), expected)


def test_the_lifted_array_is_as_long_as_the_series_in_every_mode() -> None:
    x, one = rng().standard_normal(9), [[1.0]]
    for mode in ("full", "same", "valid"):
        lifted = convolve(x, one, Lagged(lags=(0, 3)), mode, fill_value=-7.0)
        np.testing.assert_array_equal(lifted, [x, np.concatenate([[-7.0] * 3, x[:-3]])])
    # The lagged rows start with the fill value whatever the boundary of the 2D operation.
    wrapped = convolve(x, one, Lagged(lags=(0, 3)), boundary="wrap", fill_value=-7.0)
    np.testing.assert_array_equal(wrapped, lifted)


def test_input_is_left_alone_and_any_number_type_gives_float64() -> None:
    x, kernel = np.arange(6, dtype=np.float32), np.array([[1, 2]], dtype=np.int32)
    result = convolve(x, kernel, Row())
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, [[0, 1, 4, 7, 10, 13]])
    np.testing.assert_array_equal(x, np.arange(6))
    np.testing.assert_array_equal(kernel, [[1, 2]])


# --- fold ---


@thorough
@given(
    data=st.data(),
    lifting=PLACEMENTS,
    lookback=st.integers(1, 9),
    mode=st.one_of(MODES, st.tuples(MODES, MODES)),
    boundary=BOUNDARIES,
    fill=st.sampled_from([0.0, -1.5]),
    stride=PAIRS,
    dilation=PAIRS,
    channels=st.integers(1, 3),
    filters=st.integers(1, 3),
)
def test_fold_is_the_2d_kernel_on_the_lifted_window(
    data: st.DataObject,
    lifting: Any,
    lookback: int,
    mode: Any,
    boundary: Any,
    fill: float,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    channels: int,
    filters: int,
) -> None:
    size = lifting.shape(lookback)
    modes = (mode, mode) if isinstance(mode, str) else mode
    lengths = [draw_length(data, n, d, m) for n, d, m in zip(size, dilation, modes, strict=True)]
    kernel = rng().standard_normal((*lengths, channels, filters))
    bias = rng().standard_normal(filters)
    windows = rng().standard_normal((2, lookback + lifting.history, channels))
    expected = correlate_windows(lifting(windows), kernel, bias, mode, stride, dilation, boundary, fill)
    ones = np.ones((*lengths, 1, 1))
    if not correlate_windows(np.ones((1, *size, 1)), ones, None, mode, stride, dilation, boundary).any():
        with pytest.raises(ParameterError, match="the output would be the bias alone"):
            fold(kernel, lifting, lookback, mode, boundary, fill, "tensorflow", stride, dilation, bias)
        return
    folding = fold(kernel, lifting, lookback, mode, boundary, fill, "tensorflow", stride, dilation, bias)
    close(folding.apply(windows), expected)
    check_structure(folding)
    if modes[1] == "valid":
        assert folding.complete_columns == range(folding.shape[1])


def check_structure(folding: Folding) -> None:
    """Every output cell has one kernel, and every tap a session of the window."""
    owners = np.zeros(folding.shape, dtype=int)
    for kernel in folding.kernels:
        owners[np.ix_(kernel.rows, kernel.columns)] += 1
        assert kernel.delays[0] == 0
        assert list(kernel.offsets) == sorted(set(kernel.offsets))
        assert kernel.taps.shape[0] == len(kernel.offsets)
        dense = kernel.dense()
        for m, tap in zip(kernel.offsets, kernel.taps, strict=True):
            np.testing.assert_array_equal(dense[m - kernel.offsets[0]], tap)
        assert np.count_nonzero(dense) == np.count_nonzero(kernel.taps)
        if kernel.complete:
            assert kernel.columns == tuple(folding.complete_columns)
    np.testing.assert_array_equal(owners, 1)
    assert len(folding.row_terms) == folding.shape[0]


@thorough
@given(
    data=st.data(),
    lifting=PLACEMENTS,
    sessions=st.integers(1, 12),
    mode=MODES,
    boundary=BOUNDARIES,
    fill=st.sampled_from([0.0, 2.5]),
    convention=st.sampled_from(["convolution", "correlation"]),
    stride=PAIRS,
    dilation=PAIRS,
    parallel=st.sampled_from([None, "concatenate", "mean", "sum"]),
    axis=st.sampled_from(["rows", "columns"]),
)
def test_fold_is_convolve_on_a_bare_series(
    data: st.DataObject,
    lifting: Any,
    sessions: int,
    mode: Any,
    boundary: Any,
    fill: float,
    convention: Any,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    parallel: Any,
    axis: Any,
) -> None:
    x = rng().standard_normal(sessions)
    rows, columns = lifting.shape(sessions)
    if parallel:
        stride, dilation = (1, stride[1]), (1, dilation[1])
        lengths = [rows, draw_length(data, columns, dilation[1], mode)]
    else:
        lengths = [draw_length(data, n, d, mode) for n, d in zip((rows, columns), dilation, strict=True)]
    kernel = rng().standard_normal(lengths)
    strategy = Parallel(axis, parallel, lifting) if parallel else lifting
    if parallel and axis == "columns":
        kernel = kernel.T
    options = (mode, boundary, fill, convention, stride, dilation)
    try:
        expected = convolve(x, kernel, strategy, *options)
    except ParameterError:  # such kernels are tested with convolve
        with pytest.raises(ParameterError, match="must meet at least one lifted"):
            fold(kernel, strategy, sessions, *options)
        return
    folding = fold(kernel, strategy, sessions, *options)
    window = np.concatenate([np.full(lifting.history, fill), x])[None, :, None]
    result = folding.apply(window)[0]
    # The filters of a concatenated bank are channels here, one stretch after the other there.
    flat = np.moveaxis(result[0], 1, 0).ravel() if parallel else result[..., 0]
    close(flat, expected)


@given(
    lags=st.lists(st.integers(0, 9), min_size=2, max_size=4, unique=True),
    mode=MODES,
    stride=PAIRS,
    column=st.integers(0, 3),
)
def test_lag_weights_are_the_answer_to_unit_impulses(
    lags: list[int], mode: Any, stride: tuple[int, int], column: int
) -> None:
    lifting = Lagged(lags=lags)
    folding = fold(rng().standard_normal((2, 3, 2, 3)), lifting, 8, mode, stride=stride)
    sessions = 8 + lifting.history
    column = min(column, folding.shape[1] - 1)
    impulses = np.zeros((sessions, 2, sessions, 2))
    for lag in range(sessions):
        for c in range(2):
            impulses[lag, c, sessions - 1 - lag, c] = 1.0
    answers = folding.apply(impulses.reshape(-1, sessions, 2)).reshape(sessions, 2, *folding.shape, 3)
    for row in range(folding.shape[0]):
        close(lag_weights(folding, row, column), answers[:, :, row, column])
    np.testing.assert_array_equal(lag_weights(folding), lag_weights(folding, 0, folding.shape[1] - 1))


# --- the folding table ---


def conv1d(series: Any, taps: Any) -> Any:
    """Valid 1D correlation of (sessions, channels) with (width, channels, filters)."""
    outputs = len(series) - len(taps) + 1
    return np.array([sum(series[n + k] @ taps[k] for k in range(len(taps))) for n in range(outputs)])


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_row_same_is_the_acting_row_of_the_kernel(height: int, dilation: int) -> None:
    kernel = rng().standard_normal((height, 3, 2, 4))
    before = (height - 1) * dilation // 2
    if before % dilation:
        assert height % 2 == 0
        assert dilation >= 2
        with pytest.raises(
            ParameterError, match=f"{height} kernel rows with row dilation {dilation} on 1 lifted row"
        ):
            fold(kernel, Row(), 10, dilation=(dilation, 1))
        return
    folding = fold(kernel, Row(), 10, dilation=(dilation, 1))
    acting = before // dilation
    complete = next(k for k in folding.kernels if k.complete)
    np.testing.assert_array_equal(complete.taps, kernel[acting])
    assert complete.offsets == (0, 1, 2)
    assert folding.row_terms == (((acting, 0),),)


def test_replicate_valid_is_the_sum_of_the_kernel_rows() -> None:
    kernel = rng().standard_normal((3, 4, 2, 5))
    folding = fold(kernel, Replicate(rows=6), 12, mode="valid")
    (only,) = folding.kernels
    close(only.taps, kernel.sum(axis=0))
    assert only.rows == (0, 1, 2, 3)
    assert only.delays == (0, 0, 0, 0)


@pytest.mark.parametrize("rows", [1, 3, 4, 8])
@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 7])
def test_replicate_same_has_as_many_distinct_rows_as_the_lesser_of_rows_and_height(
    rows: int, height: int
) -> None:
    kernel = rng().standard_normal((height, 3))
    folding = fold(kernel, Replicate(rows=rows), 12)
    assert len([k for k in folding.kernels if k.complete]) == min(rows, height)
    outputs = folding.apply(rng().standard_normal((1, 12, 1)))[0, :, :, 0]
    assert len(np.unique(np.round(outputs, 9), axis=0)) == min(rows, height)
    for one in folding.kernels:
        acting = [a for a, _ in folding.row_terms[one.rows[0]]]
        if one.complete:
            close(one.taps[:, 0, 0], kernel[acting].sum(axis=0))


@given(
    s=st.integers(1, 4),
    height=st.integers(1, 3),
    width=st.integers(1, 4),
    row_stride=st.integers(1, 3),
    dh=st.integers(1, 2),
    dw=st.integers(1, 3),
)
def test_lagged_valid_is_one_diagonal_kernel_delayed_row_by_row(
    s: int, height: int, width: int, row_stride: int, dh: int, dw: int
) -> None:
    kernel = rng().standard_normal((height, width, 2, 3))
    lifting = Lagged(rows=7, stride=s)
    folding = fold(kernel, lifting, 15, mode="valid", stride=(row_stride, 1), dilation=(dh, dw))
    (only,) = folding.kernels
    assert only.rows == tuple(range(folding.shape[0]))
    assert only.delays == tuple(i * row_stride * s for i in only.rows)
    kappa: dict[int, Any] = {}
    for a in range(height):
        for b in range(width):
            m = b * dw - a * dh * s
            kappa[m] = kappa.get(m, 0.0) + kernel[a, b]
    assert only.offsets == tuple(sorted(kappa))
    for m, tap in zip(only.offsets, only.taps, strict=True):
        close(tap, kappa[m])
    # Hence Y[i, n] = y[n - i * sh * s]: one 1D pass over the series gives every row.
    windows = rng().standard_normal((1, 15 + lifting.history, 2))
    y = conv1d(windows[0], only.dense())
    result = folding.apply(windows)[0]
    for i, delay in enumerate(only.delays):
        first = folding.start + only.offsets[0] - delay
        close(result[i], y[first : first + folding.shape[1]])


@given(lags=st.lists(st.integers(0, 21), min_size=2, max_size=6, unique=True), mode=MODES, data=st.data())
def test_any_lag_set_is_a_sum_of_shifted_rows(lags: list[int], mode: Any, data: st.DataObject) -> None:
    height = data.draw(st.integers(1, len(lags)))
    kernel = rng().standard_normal((height, 3, 2, 4))
    bias = rng().standard_normal(4)
    lifting = Lagged(lags=lags)
    series = rng().standard_normal((16 + max(lags), 2))
    folding = fold(kernel, lifting, 16, mode, bias=bias)
    once = [conv1d(series, kernel[a]) for a in range(height)]
    expected = correlate_windows(lifting(series[None]), kernel, bias, mode)[0]
    columns = folding.complete_columns
    for i, terms in enumerate(folding.row_terms):
        first = folding.start + columns.start
        shifted = [once[a][first - lag : first - lag + len(columns)] for a, lag in terms]
        close(bias + sum(shifted), expected[i, columns.start : columns.stop])


@pytest.mark.parametrize(
    "lifting",
    [Lagged(lags=(0, 1, 5, 21)), Replicate(rows=4), CalendarFold(period=5), Spectrogram(segment=6)],
    ids=repr,
)
def test_a_kernel_of_full_height_is_conv1d_over_rows_as_channels(lifting: Any) -> None:
    lifted = lifting(rng().standard_normal((2, 20 + lifting.history, 3)))
    rows = lifted.shape[1]
    kernel = rng().standard_normal((rows, 4, 3, 5))
    expected = correlate_windows(lifted, kernel)[:, 0]
    flat = lifted.swapaxes(1, 2).reshape(2, -1, rows * 3)
    taps = full_height(kernel)
    assert taps.shape == (4, rows * 3, 5)
    close([conv1d(one, taps) for one in flat], expected)


def test_parallel_concatenated_is_one_conv1d_with_all_the_filters() -> None:
    kernel = rng().standard_normal((3, 4, 2, 5))
    folding = fold(kernel, Parallel(), 12, mode="valid")
    (only,) = folding.kernels
    assert folding.shape == (1, 9)
    assert folding.filters == 15
    np.testing.assert_array_equal(only.taps, np.concatenate(list(kernel), axis=-1))


def test_parallel_summed_is_replicate_valid() -> None:
    kernel = rng().standard_normal((3, 4, 2, 5))
    (summed,) = fold(kernel, Parallel(aggregate="sum"), 12, mode="valid").kernels
    (averaged,) = fold(kernel, Parallel(aggregate="mean"), 12, mode="valid").kernels
    (replicated,) = fold(kernel, Replicate(rows=3), 12, mode="valid").kernels
    close(summed.taps, replicated.taps)
    close(averaged.taps, replicated.taps / 3)


def test_the_maximum_of_parallel_filters_has_no_fold() -> None:
    with pytest.raises(ParameterError, match="maximum of parallel filters is not linear and does not fold"):
        fold(CROSS, Parallel(aggregate="max"), 12)


@given(
    width=st.integers(1, 5), dilation=st.integers(1, 3), stride=st.integers(1, 3), lookback=st.integers(3, 14)
)
def test_edge_columns_have_truncated_kernels(width: int, dilation: int, stride: int, lookback: int) -> None:
    kernel = rng().standard_normal((1, width))
    extent = (width - 1) * dilation + 1
    before = max((-(-lookback // stride) - 1) * stride + extent - lookback, 0) // 2
    assume(width % 2 == 1 or dilation == 1)
    folding = fold(kernel, Row(), lookback, stride=(1, stride), dilation=(1, dilation))
    complete = []
    for j in range(folding.shape[1]):
        inside = [b for b in range(width) if 0 <= j * stride + b * dilation - before < lookback]
        one, base = folding.at(0, j)
        np.testing.assert_array_equal(one.taps[:, 0, 0], kernel[0, inside])
        assert [base + m for m in one.offsets] == [j * stride + b * dilation - before for b in inside]
        if len(inside) == width:
            complete.append(j)
    assert list(folding.complete_columns) == complete


# --- what the taps mean ---


def test_frequency_response_is_what_the_kernel_does_to_a_cycle() -> None:
    folding = fold(rng().standard_normal((3, 4)), Lagged(lags=(0, 2, 7)), 40, mode="valid")
    (only,) = folding.kernels
    t = np.arange(40 + 7)
    periods = np.array([2.0, 3.7, 5.0, 21.0, np.inf])
    magnitude, phase = frequency_response(only.taps, only.offsets, periods)
    assert magnitude.shape == phase.shape == (5, 1, 1)
    where = folding.start + np.arange(folding.shape[1])
    for k, period in enumerate(periods):
        answer = folding.apply(np.cos(2 * np.pi * t / period)[None, :, None])[0, 0, :, 0]
        expected = magnitude[k, 0, 0] * np.cos(2 * np.pi * where / period + phase[k, 0, 0])
        close(answer, expected)


def test_frequency_response_of_known_filters() -> None:
    # A week's mean erases the week, a difference the mean; a delay by one session is a phase of -2 pi / p.
    week, _ = frequency_response(np.full(5, 0.2), range(-4, 1), [5.0, np.inf])
    np.testing.assert_allclose(week, [0.0, 1.0], atol=1e-15)
    difference, _ = frequency_response([-1.0, 1.0], (-1, 0), [2.0, np.inf])
    np.testing.assert_allclose(difference, [2.0, 0.0], atol=1e-15)
    _, delay = frequency_response([1.0], [-1], [8.0])
    np.testing.assert_allclose(delay, [-np.pi / 4], atol=1e-15)


def test_dense_of_a_kernel_without_taps_is_empty() -> None:
    # Between dilated kernel rows, mode full has rows that hold the bias alone; so has scipy.
    folding = fold(np.ones((2, 1)), Row(), 4, mode="full", dilation=(3, 1), bias=[0.5])
    assert folding.shape == (4, 4)
    empty, _ = folding.at(1, 0)
    assert empty.dense().shape == (0, 1, 1)
    assert (lag_weights(folding, 1) == 0).all()
    np.testing.assert_array_equal(folding.apply(np.ones((1, 4, 1)))[0, :, 0, 0], [1.5, 0.5, 0.5, 1.5])


# --- refusals ---


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: convolve(X, CROSS, Row(), mode="valid"),
            TOO_LARGE.format("3 on 1 rows"),
        ),
        (
            lambda: convolve(X[:2], np.ones((1, 3)), Row(), mode="valid"),
            TOO_LARGE.format("3 on 2 columns"),
        ),
        (
            lambda: convolve(X, np.ones((2, 4)), Replicate(rows=3), mode="valid", dilation=(1, 2)),
            TOO_LARGE.format("7 on 6 columns"),
        ),
        (
            lambda: convolve(X[:2], np.ones((1, 3)), Parallel(), mode="valid"),
            TOO_LARGE.format("3 on 2 columns"),
        ),
        (
            lambda: convolve(X, np.ones((2, 3)), Row(), dilation=2),
            "A kernel must meet at least one lifted row, or the output would be the bias alone. "
            "Received: 2 kernel rows with row dilation 2 on 1 lifted rows in mode 'same'; "
            "use an odd number of kernel rows, or row dilation 1.",
        ),
        (
            lambda: fold(np.ones((3, 2)), Column(), 8, dilation=(1, 2)),
            "A kernel must meet at least one lifted column, or the output would be the bias alone. "
            "Received: 2 kernel columns with column dilation 2 on 1 lifted columns in mode 'same'; "
            "use an odd number of kernel columns, or column dilation 1.",
        ),
        (
            lambda: convolve(X, CROSS, Row(), mode="vaild"),  # type: ignore[arg-type]
            "mode must be one of 'full', 'same', 'valid'. Received: 'vaild'. Did you mean 'valid'?",
        ),
        (
            lambda: convolve(X, CROSS, Row(), boundary="symmetric"),  # type: ignore[arg-type]
            "boundary must be one of 'fill', 'wrap', 'symm'. Received: 'symmetric'. Did you mean 'symm'?",
        ),
        (
            lambda: convolve(X, CROSS, Row(), convention="corelation"),  # type: ignore[arg-type]
            "convention must be one of 'convolution', 'correlation'. Received: 'corelation'. "
            "Did you mean 'correlation'?",
        ),
        (
            lambda: fold(CROSS, Row(), 8, convention="keras"),  # type: ignore[arg-type]
            "convention must be one of 'convolution', 'correlation', 'tensorflow'. Received: 'keras'.",
        ),
        (
            lambda: Parallel(axis="row"),  # type: ignore[arg-type]
            "Parallel: axis must be one of 'rows', 'columns'. Received: 'row'. Did you mean 'rows'?",
        ),
        (
            lambda: Parallel(aggregate="maximum"),  # type: ignore[arg-type]
            "Parallel: aggregate must be one of 'concatenate', 'mean', 'sum', 'max'. Received: 'maximum'. "
            "Did you mean 'max'?",
        ),
        (
            lambda: Parallel(lifting="row"),  # type: ignore[arg-type]
            "Parallel: lifting must be a lifting, such as Row(). Received: 'row'.",
        ),
        (
            lambda: convolve(X, CROSS, "row"),  # type: ignore[arg-type]
            "strategy must be a lifting, such as Row(), or Parallel(). Received: 'row'.",
        ),
        (
            lambda: convolve(X, CROSS, Row),  # type: ignore[arg-type]
            "strategy must be a lifting, such as Row(), or Parallel(). Received: "
            "<class 'forecaster.liftings.Row'>.",
        ),
        (
            lambda: convolve([], CROSS, Row()),
            "x must not be empty. Received: shape (0,).",
        ),
        (
            lambda: convolve(X, np.ones((0, 3)), Row()),
            "kernel must not be empty. Received: shape (0, 3).",
        ),
        (
            lambda: convolve(X[:, None], CROSS, Row()),
            "x must have the axes (sessions,). Received: shape (6, 1).",
        ),
        (
            lambda: convolve(X, [1.0, 2.0], Row()),
            "kernel must have the axes (height, width). Received: shape (2,).",
        ),
        (
            lambda: fold(np.ones((2, 2, 2)), Row(), 8),
            "kernel must have the axes (height, width) or (height, width, channels, filters). "
            "Received: shape (2, 2, 2).",
        ),
        (
            lambda: convolve([1.0, np.nan, 3.0], CROSS, Row()),
            "x must be finite. Received: nan at index (1,); leave such values out or fill them first.",
        ),
        (
            lambda: fold([[np.inf]], Row(), 8),
            "kernel must be finite. Received: inf at index (0, 0); leave such values out or fill them first.",
        ),
        (
            lambda: convolve(X, CROSS, Row(), fill_value=np.nan),
            "fill_value must be finite. Received: nan at index (); leave such values out or fill them first.",
        ),
        (
            lambda: convolve(X, CROSS, Row(), stride=0),
            "stride must be an integer of at least 1. Received: 0.",
        ),
        (
            lambda: convolve(X, CROSS, Row(), dilation=(1, -1)),
            "dilation must be an integer of at least 1. Received: -1.",
        ),
        (
            lambda: convolve(X, CROSS, Row(), stride=(1, 2, 3)),  # type: ignore[arg-type]
            "stride must be an integer or a pair (rows, columns). Received: (1, 2, 3).",
        ),
        (
            lambda: convolve(X, CROSS, Parallel(), stride=(2, 1)),
            "Parallel: stride must be an integer or (1, n), as 1D filters know time only. Received: (2, 1).",
        ),
        (
            lambda: convolve(X, CROSS, Parallel(lifting=Replicate(rows=4))),
            "Parallel: a kernel must have one filter for each of the 4 rows of its lifting. "
            "Received: 3 filters.",
        ),
        (
            lambda: fold(CROSS, Parallel(), 8, mode=("valid", "same")),
            "mode must be one of 'full', 'same', 'valid'. Received: ('valid', 'same').",
        ),
        (
            lambda: fold(CROSS, Row(), 8, mode=("same", "same", "valid")),  # type: ignore[arg-type]
            "mode must be one of 'full', 'same', 'valid'. Received: ('same', 'same', 'valid').",
        ),
        (lambda: fold(CROSS, Row(), 0), "lookback must be an integer of at least 1. Received: 0."),
        (
            lambda: fold(CROSS, Spectrogram(), 8),
            "Only a lifting that places sessions folds to kernels on the series. Received: Spectrogram(); "
            "full_height folds a kernel as high as its rows.",
        ),
        (
            lambda: fold(CROSS, Row(), 8, bias=[1.0, 2.0]),
            "bias must have one value for each of the 1 filters. Received: 2.",
        ),
        (
            lambda: fold(CROSS, Row(), 8).apply(np.ones((1, 9, 1))),
            "windows must have 8 sessions and 1 channels, as folded. Received: shape (1, 9, 1).",
        ),
        (lambda: fold(CROSS, Row(), 8).at(1), "row must be less than the 1 of the output. Received: 1."),
        (
            lambda: lag_weights(fold(CROSS, Row(), 8), 0, -9),
            "column must be an integer of at least -8. Received: -9.",
        ),
        (
            lambda: frequency_response([1.0, 2.0], [0], [5.0]),
            "offsets must be one integer for each of the 2 taps. Received: [0].",
        ),
        (
            lambda: frequency_response([1.0], [0.5], [5.0]),
            "offsets must be one integer for each of the 1 taps. Received: [0.5].",
        ),
        (
            lambda: frequency_response([1.0], [0], [5.0, 1.5]),
            "periods must be one-dimensional, each at least 2 sessions. Received: [5.0, 1.5].",
        ),
        (
            lambda: frequency_response([1.0], [0], [np.nan]),
            "periods must be one-dimensional, each at least 2 sessions. Received: [nan].",
        ),
    ],
)
def test_refuses_bad_input(call: Callable[[], object], text: str) -> None:
    with pytest.raises(ParameterError) as caught:
        call()
    assert str(caught.value) == text
