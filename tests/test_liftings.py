"""One check suite over every lifting: list a new one in LIFTINGS and it is tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from forecaster.errors import ParameterError
from forecaster.liftings import (
    CalendarFold,
    Column,
    Lagged,
    Lifting,
    Placement,
    Replicate,
    Row,
    Spectrogram,
)

# Each lifting, and whether it promises a view of the windows.
LIFTINGS: list[tuple[Any, bool]] = [
    (Row(), True),
    (Column(), True),
    (Replicate(), True),
    (Replicate(rows=1), True),
    (Lagged(rows=4, stride=2), True),
    (Lagged(rows=1), True),
    (Lagged(lags=(3,)), True),
    (Lagged(lags=range(0, 22, 7)), True),
    (Lagged(lags=[6, 3, 0]), True),
    (Lagged(lags=(0, 1, 5, 21)), False),
    (Lagged(lags=np.array([2, 0, 9])), False),
    (CalendarFold(), True),
    (CalendarFold(period=21), True),
    (CalendarFold(period=1), True),
    (Spectrogram(), False),
    (Spectrogram(segment=9, hop=3, taper="boxcar", scale="power"), False),
    (Spectrogram(segment=4, hop=2, taper=("kaiser", 4.0), scale="log"), False),
]
PLACEMENTS = [one for one, _ in LIFTINGS if isinstance(one, Placement)]
LOOKBACKS = (1, 10, 23)


def parametrize(liftings: list[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("lifting", [pytest.param(one, id=repr(one)) for one in liftings])


def draw(*shape: int) -> Any:
    return np.random.default_rng(7).standard_normal(shape)


def windows_of(lifting: Any, lookback: int, series: Any) -> Any:
    """All windows of a series (sessions, channels), one an origin, as views."""
    length = lookback + lifting.history
    return np.lib.stride_tricks.sliding_window_view(series, length, axis=0).swapaxes(1, 2)


@parametrize([one for one, _ in LIFTINGS])
class TestEveryLifting:
    def test_keeps_the_protocol_and_its_own_shape(self, lifting: Any) -> None:
        assert isinstance(lifting, Lifting)
        assert isinstance(lifting.history, int)
        for lookback in LOOKBACKS:
            lifted = lifting(draw(3, lookback + lifting.history, 2))
            assert lifted.shape == (3, *lifting.shape(lookback), 2)
            assert lifted.dtype == np.float64

    def test_is_a_stateless_transformer(self, lifting: Any) -> None:
        windows = draw(3, 10 + lifting.history, 2)
        twin = clone(lifting)
        assert repr(twin) == repr(lifting)
        assert all(getattr(twin, name) is value for name, value in twin.get_params().items())
        np.testing.assert_array_equal(twin.transform(windows), lifting(windows))
        np.testing.assert_array_equal(twin.fit_transform(windows), lifting(windows))
        assert vars(twin).keys() == vars(lifting).keys()

    def test_lifts_inside_a_scikit_learn_pipeline(self, lifting: Any) -> None:
        series = draw(120, 2)
        windows = windows_of(lifting, 10, series)
        target = series[-len(windows) :, 0]
        flatten = FunctionTransformer(lambda lifted: lifted.reshape(len(lifted), -1))
        pipeline = Pipeline([("lift", lifting), ("flatten", flatten), ("ridge", Ridge())])
        search = GridSearchCV(
            pipeline, {"ridge__alpha": [0.1, 1.0]}, cv=TimeSeriesSplit(2), error_score="raise"
        )
        assert search.fit(windows, target).predict(windows).shape == (len(windows),)

    def test_reads_its_own_window_only(self, lifting: Any) -> None:
        # Changing sessions after the origin, or before the history, leaves the image of a window as it was.
        series = draw(90, 2)
        changed = series.copy()
        changed[:20] += 100.0
        changed[60:] -= 100.0
        length = 10 + lifting.history
        before, after = (lifting(windows_of(lifting, 10, s)) for s in (series, changed))
        origins = np.arange(len(before)) + length - 1
        untouched = (origins < 60) & (origins - length + 1 >= 20)
        assert untouched.any()
        np.testing.assert_array_equal(before[untouched], after[untouched])

    def test_covers_the_window_and_no_more_than_its_history(self, lifting: Any) -> None:
        # Some lookback reads the oldest session of the history, every lookback the newest of the window.
        oldest_counts = False
        for lookback in range(1, 30):
            windows = draw(1, lookback + lifting.history, 1)
            image = lifting(windows)
            for session in (0, -1):
                other = windows.copy()
                other[0, session] += 1.0
                differs = bool((lifting(other) != image).any())
                if session == 0:
                    oldest_counts |= differs
                elif not (isinstance(lifting, Lagged) and 0 not in lifting.lag_set):
                    assert differs
        assert oldest_counts or lifting.__dict__.get("taper") == "hann", (
            "hann gives its first session no weight"
        )

    def test_is_independent_of_batch_mates(self, lifting: Any) -> None:
        windows = draw(5, 10 + lifting.history, 2)
        images = lifting(windows)
        for i in range(5):
            np.testing.assert_allclose(lifting(windows[i : i + 1])[0], images[i], rtol=0, atol=1e-13)
        np.testing.assert_allclose(lifting(windows[::-1])[::-1], images, rtol=0, atol=1e-13)

    def test_lifts_each_channel_alone(self, lifting: Any) -> None:
        windows = draw(2, 10 + lifting.history, 3)
        images = lifting(windows)
        for c in range(3):
            np.testing.assert_allclose(lifting(windows[..., c : c + 1])[..., 0], images[..., c], atol=1e-13)

    def test_float32_stays_and_integers_become_float64(self, lifting: Any) -> None:
        windows = draw(2, 10 + lifting.history, 1)
        small = lifting(windows.astype(np.float32))
        assert small.dtype == np.float32
        np.testing.assert_allclose(small, lifting(windows), rtol=1e-4, atol=1e-5)
        whole = np.rint(10 * windows)
        assert lifting(whole.astype(int)).dtype == np.float64
        np.testing.assert_array_equal(lifting(whole.astype(int)), lifting(whole))
        np.testing.assert_array_equal(lifting(whole.tolist()), lifting(whole))

    def test_never_writes_to_its_windows(self, lifting: Any) -> None:
        windows = draw(2, 10 + lifting.history, 1)
        copy = windows.copy()
        lifted = lifting(windows)
        if np.shares_memory(lifted, windows):
            with pytest.raises(ValueError, match="read-only"):
                lifted[...] = 0.0
        else:
            lifted[...] = 0.0
        np.testing.assert_array_equal(windows, copy)

    @pytest.mark.parametrize(
        ("spoil", "text"),
        [
            (
                lambda w: np.where(np.arange(w.shape[1])[None, :, None] == 1, np.nan, w),
                r"must be finite\. Rec",
            ),
            (
                lambda w: np.where(np.arange(w.shape[1])[None, :, None] == 1, -np.inf, w),
                r"-inf at index \(0, 1, 0",
            ),
            (lambda w: w[0], r"axes \(windows, sessions, channels\)\. Received: shape \(\d+, 2\)"),
            (lambda w: w[None], r"axes \(windows, sessions, channels\)\. Received: shape \(1, "),
            (lambda w: w[:0], r"must not be empty\. Received: shape \(0, "),
            (lambda w: w[..., :0], r"must not be empty\. Received: shape \("),
            (lambda w: w.astype(str), r"must be real numbers\. Received: dtype <U"),
            (lambda w: w + 1j, r"must be real numbers\. Received: dtype complex128"),
            (lambda w: [[[0.0], [1.0]], [[2.0]]], r"rectangular array of numbers"),
        ],
    )
    def test_refuses_bad_windows(self, lifting: Any, spoil: Callable[[Any], Any], text: str) -> None:
        bad = spoil(draw(2, 10 + lifting.history, 2))
        for entry in (lifting, lifting.fit, lifting.transform):
            with pytest.raises(ParameterError, match=f"^{type(lifting).__name__}: windows.*{text}"):
                entry(bad)

    def test_refuses_a_window_without_lookback(self, lifting: Any) -> None:
        if lifting.history:
            with pytest.raises(
                ParameterError, match=f"the history of {lifting.history} sessions and at least"
            ):
                lifting(draw(1, lifting.history, 1))
        for lookback in (0, -1, 2.5, True):
            with pytest.raises(ParameterError, match="lookback must be an integer of at least 1"):
                lifting.shape(lookback)


@pytest.mark.parametrize(("lifting", "view"), [pytest.param(*one, id=repr(one[0])) for one in LIFTINGS])
def test_views_where_promised(lifting: Any, view: bool) -> None:
    series = draw(60, 2).astype(np.float32)
    windows = windows_of(lifting, 10, series)
    assert np.shares_memory(lifting(windows), series) is view


@parametrize(PLACEMENTS)
@pytest.mark.parametrize("lookback", LOOKBACKS)
def test_a_placement_is_described_by_its_row_lags(lifting: Any, lookback: int) -> None:
    windows = draw(2, lookback + lifting.history, 2)
    rows, columns = lifting.shape(lookback)
    lags = lifting.row_lags(lookback)
    origin = windows.shape[1] - 1
    lifted = lifting(windows)
    assert len(lags) == rows
    for r in range(rows):
        for j in range(columns):
            np.testing.assert_array_equal(lifted[:, r, j], windows[:, origin - (columns - 1 - j) - lags[r]])


@parametrize(PLACEMENTS)
def test_numbers_whose_sum_overflows_are_finite_all_the_same(lifting: Any) -> None:
    windows = np.full((1, 10 + lifting.history, 1), 3e38, dtype=np.float32)
    assert (lifting(windows) == np.float32(3e38)).all()


def test_a_spectrogram_places_nothing() -> None:
    assert not isinstance(Spectrogram(), Placement)


def test_row_and_column_are_the_window_itself() -> None:
    windows = draw(3, 8, 2)
    np.testing.assert_array_equal(Row()(windows)[:, 0], windows)
    np.testing.assert_array_equal(Column()(windows)[:, :, 0], windows)
    assert Row().lag_set == (0,)


def test_replicate_repeats_the_window() -> None:
    windows = draw(3, 8, 2)
    np.testing.assert_array_equal(Replicate(rows=4)(windows), np.stack([windows] * 4, axis=1))
    assert Replicate(rows=4).lag_set == (0, 0, 0, 0)


def test_row_r_of_lagged_is_the_series_delayed_by_its_lag() -> None:
    image = Lagged(rows=3, stride=2)(np.arange(8.0).reshape(1, 8, 1))[0, :, :, 0]
    np.testing.assert_array_equal(image, [[4, 5, 6, 7], [2, 3, 4, 5], [0, 1, 2, 3]])
    image = Lagged(lags=(0, 1, 5))(np.arange(8.0).reshape(1, 8, 1))[0, :, :, 0]
    np.testing.assert_array_equal(image, [[5, 6, 7], [4, 5, 6], [0, 1, 2]])


@given(
    lags=st.lists(st.integers(0, 30), min_size=1, max_size=6, unique=True),
    lookback=st.integers(1, 12),
    channels=st.integers(1, 3),
)
def test_any_lag_set_delays_the_series(lags: list[int], lookback: int, channels: int) -> None:
    lifting = Lagged(lags=lags)
    windows = draw(2, lookback + max(lags), channels)
    expected = np.stack([windows[:, max(lags) - lag : max(lags) - lag + lookback] for lag in lags], axis=1)
    np.testing.assert_array_equal(lifting(windows), expected)
    assert lifting.lag_set == tuple(lags)
    steps = np.diff(lags)
    assert np.shares_memory(lifting(windows), windows) is bool((steps == steps[:1]).all())


@given(rows=st.integers(1, 8), stride=st.integers(1, 7))
def test_rows_and_stride_name_evenly_spaced_lags(rows: int, stride: int) -> None:
    assert Lagged(rows=rows, stride=stride).lag_set == tuple(stride * r for r in range(rows))
    assert Lagged(rows=rows, stride=stride).history == stride * (rows - 1)
    assert Lagged(rows=rows).lag_set == tuple(range(rows))


def test_calendar_fold_reads_like_a_calendar_and_ends_at_the_origin() -> None:
    lifting = CalendarFold(period=5)
    # 12 sessions make 3 weeks; the oldest week is completed by 3 of the 4 sessions of history.
    image = lifting(np.arange(16.0).reshape(1, 16, 1))[0, :, :, 0]
    np.testing.assert_array_equal(image, np.arange(1, 16).reshape(3, 5))
    assert lifting.shape(10) == (2, 5)
    assert lifting.shape(11) == (3, 5)


@given(
    segment=st.integers(2, 12),
    hop=st.integers(1, 4),
    lookback=st.integers(1, 15),
    scale=st.sampled_from(["magnitude", "power", "log"]),
)
def test_a_spectrogram_column_is_the_spectrum_of_the_segment_that_ends_there(
    segment: int, hop: int, lookback: int, scale: str
) -> None:
    lifting = Spectrogram(segment=segment, hop=hop, taper="hamming", scale=scale)
    windows = draw(2, lookback + lifting.history, 2)
    k = np.arange(segment)
    taper = 0.54 - 0.46 * np.cos(2 * np.pi * k / segment)
    image = lifting(windows)
    newest = windows.shape[1] - 1
    for j in range(image.shape[2]):
        end = newest - hop * (image.shape[2] - 1 - j)
        part = windows[:, end - segment + 1 : end + 1]
        for band in range(segment // 2 + 1):
            wave = taper * np.exp(-2j * np.pi * band * k / segment)
            amplitude = np.abs(np.einsum("k,nkc->nc", wave, part))
            power = amplitude**2 / (taper**2).sum()
            expected = {"magnitude": amplitude / taper.sum(), "power": power, "log": np.log1p(power)}[scale]
            np.testing.assert_allclose(image[:, band, j], expected, rtol=0, atol=1e-12)


def test_a_spectrogram_finds_the_period_of_a_cycle() -> None:
    lifting = Spectrogram(segment=20)
    cycle = 3.0 * np.sin(2 * np.pi * np.arange(60) / 5)
    image = lifting(cycle.reshape(1, -1, 1))[0, :, :, 0]
    band = int(np.argmax(image[:, -1]))
    assert lifting.periods[band] == pytest.approx(5.0)
    assert lifting.periods[0] == np.inf
    np.testing.assert_allclose(image[band], 1.5, atol=1e-12)


def test_tapers_change_the_weights_of_a_segment() -> None:
    # Hann gives the first session of a segment no weight; boxcar weights all alike.
    windows = draw(1, 8, 1)
    other = windows.copy()
    other[0, 0] += 1.0
    for taper, counts in (("hann", False), ("boxcar", True)):
        lifting = Spectrogram(segment=8, taper=taper)
        assert bool((lifting(windows) != lifting(other)).any()) is counts


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: Replicate(rows=0), "Replicate: rows must be an integer of at least 1. Received: 0."),
        (lambda: Replicate(rows=-3), "Replicate: rows must be an integer of at least 1. Received: -3."),
        (lambda: Replicate(rows=2.0), "Replicate: rows must be an integer of at least 1. Received: 2.0."),  # type: ignore[arg-type]
        (lambda: Replicate(rows=True), "Replicate: rows must be an integer of at least 1. Received: True."),
        (lambda: Lagged(), "Lagged needs lags or rows. Received: neither."),
        (lambda: Lagged(stride=2), "Lagged needs lags or rows. Received: neither."),
        (lambda: Lagged(rows=0), "Lagged: rows must be an integer of at least 1. Received: 0."),
        (lambda: Lagged(rows=3, stride=0), "Lagged: stride must be an integer of at least 1. Received: 0."),
        (lambda: Lagged(lags=(0, -1)), "Lagged: every lag must be an integer of at least 0. Received: -1."),
        (lambda: Lagged(lags=(0, 1.5)), "Lagged: every lag must be an integer of at least 0. Received: 1.5."),  # type: ignore[arg-type]
        (lambda: Lagged(lags="ab"), "Lagged: every lag must be an integer of at least 0. Received: 'a'."),  # type: ignore[arg-type]
        (lambda: Lagged(lags=()), "Lagged: lags must name at least one lag. Received: none."),
        (lambda: Lagged(lags=5), "Lagged: lags must be a sequence of integers. Received: 5."),  # type: ignore[arg-type]
        (
            lambda: Lagged(lags=np.array(5)),
            "Lagged: lags must be a sequence of integers. Received: array(5).",
        ),
        (lambda: Lagged(lags={0, 1}), "Lagged: lags must be a sequence of integers. Received: {0, 1}."),  # type: ignore[arg-type]
        (
            lambda: Lagged(lags=(0, 5, 5)),
            "Lagged: no lag may be repeated. Received: (0, 5, 5); use Replicate to repeat a row.",
        ),
        (
            lambda: Lagged(lags=(0, 1), rows=2),
            "Lagged takes either lags, or rows and stride. Received: lags=(0, 1), rows=2, stride=None.",
        ),
        (
            lambda: Lagged(lags=(0, 1), stride=2),
            "Lagged takes either lags, or rows and stride. Received: lags=(0, 1), rows=None, stride=2.",
        ),
        (
            lambda: CalendarFold(period=0),
            "CalendarFold: period must be an integer of at least 1. Received: 0.",
        ),
        (
            lambda: Spectrogram(segment=1),
            "Spectrogram: segment must be an integer of at least 2. Received: 1.",
        ),
        (lambda: Spectrogram(hop=0), "Spectrogram: hop must be an integer of at least 1. Received: 0."),
        (
            lambda: Spectrogram(scale="magnitud"),
            "Spectrogram: scale must be one of 'magnitude', 'power', 'log'. Received: 'magnitud'. "
            "Did you mean 'magnitude'?",
        ),
        (
            lambda: Spectrogram(taper="hannn"),
            "Spectrogram: taper must be a window of scipy.signal.get_window, such as 'hann' or 'boxcar'. "
            "Received: 'hannn'.",
        ),
    ],
)
def test_refuses_a_bad_parameter_at_once(build: Callable[[], object], text: str) -> None:
    with pytest.raises(ParameterError) as caught:
        build()
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("lifting", "bad"),
    [
        (Replicate(), {"rows": 0}),
        (Lagged(rows=3), {"rows": 0}),
        (Lagged(lags=(0, 1)), {"lags": (0, 0)}),
        (CalendarFold(), {"period": -5}),
        (Spectrogram(), {"hop": 0}),
        (Spectrogram(), {"segment": 1}),
    ],
)
def test_refuses_a_bad_parameter_set_later_when_used(lifting: Any, bad: dict[str, Any]) -> None:
    broken = clone(lifting).set_params(**bad)
    for use in (broken, broken.fit):
        with pytest.raises(ParameterError, match=rf"^{type(lifting).__name__}: "):
            use(draw(1, 40, 1))


def test_parameters_can_be_switched_from_rows_to_lags() -> None:
    lifting = Lagged(rows=4, stride=2).set_params(rows=None, stride=None, lags=(0, 9))
    assert lifting.lag_set == (0, 9)
