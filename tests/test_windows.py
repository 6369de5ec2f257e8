"""The panel and its windows against slow loops over each series."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from forecaster import features
from forecaster.errors import ParameterError
from forecaster.returns import log_returns
from forecaster.windows import Panel, Universe, Windows

Array = NDArray[np.float64]


def prices(
    closes: list[float] | Array, start: str = "2020-01-01", skip: tuple[int, ...] = ()
) -> pd.DataFrame:
    """Checked prices on every day from a start but for some."""
    closes = np.asarray(closes, dtype=float)
    days = pd.date_range(start, periods=len(closes) + len(skip), name="session")
    frame = pd.DataFrame({"close": closes}, index=days.delete(list(skip)))
    return frame.assign(dividend=0.0, split=1.0)


@st.composite
def price_maps(draw: st.DrawFn) -> dict[str, pd.DataFrame]:
    """One to four series, each on a calendar of its own."""
    result = {}
    for symbol in draw(st.lists(st.sampled_from(["B", "A", "NA", "0700"]), min_size=1, unique=True)):
        length = draw(st.integers(2, 15))
        closes = draw(st.lists(st.floats(1.0, 100.0), min_size=length, max_size=length))
        skip = draw(st.sets(st.integers(0, length - 1), max_size=3))
        start = draw(st.sampled_from(["2020-01-01", "2020-01-05"]))
        result[symbol] = prices(closes, start, tuple(sorted(skip)))
    return result


@pytest.fixture(scope="module")
def panel() -> Panel:
    """Two symbols of different lengths on different calendars."""
    rng = np.random.default_rng(0)
    walk = np.exp(np.cumsum(0.01 * rng.normal(size=60)))
    return Panel.from_prices(
        {"TOKYO": prices(100 * walk[:40], skip=(3, 17)), "NEWYORK": prices(50 * walk[10:], "2020-01-04")}
    )


def test_two_calendars_by_hand() -> None:
    panel = Panel.from_prices(
        {
            "B": prices([1.0, 2.0, 4.0], "2020-01-01", skip=(1,)),
            "A": prices([8.0, 4.0, 4.0, 2.0], "2020-01-02"),
        }
    )
    two = math.log(2.0)
    assert panel.symbols == ("A", "B")
    assert panel.offsets.tolist() == [0, 3, 5]
    assert panel.sessions.astype(str).tolist() == [
        "2020-01-03", "2020-01-04", "2020-01-05", "2020-01-03", "2020-01-04",
    ]  # fmt: skip
    assert panel.closes.tolist() == [4.0, 4.0, 2.0, 2.0, 4.0]
    np.testing.assert_allclose(panel.returns, [-two, 0.0, -two, two, two], atol=1e-15)
    assert panel.series.tolist() == [0, 0, 0, 1, 1]
    assert panel.positions.tolist() == [0, 1, 2, 0, 1]
    assert panel.calendar.astype(str).tolist() == ["2020-01-03", "2020-01-04", "2020-01-05"]
    assert panel.last_rows().tolist() == [2, 4]
    assert panel.parts == [slice(0, 3), slice(3, 5)]
    windows = Windows(panel, np.arange(5), (1, 2))
    nan = math.nan
    np.testing.assert_allclose(
        windows.targets, [[0.0, -two], [-two, nan], [nan, nan], [two, nan], [nan, nan]], atol=1e-15
    )


@given(price_maps())
def test_layout_is_each_series_end_to_end(frames: dict[str, pd.DataFrame]) -> None:
    panel = Panel.from_prices(frames)
    assert panel.symbols == tuple(sorted(frames))
    assert len(panel) == sum(len(frame) - 1 for frame in frames.values())
    assert panel.sessions.dtype == np.dtype("datetime64[D]")
    for number, (symbol, part) in enumerate(zip(panel.symbols, panel.parts, strict=True)):
        frame = frames[symbol]
        np.testing.assert_array_equal(panel.sessions[part], frame.index.to_numpy()[1:])
        np.testing.assert_array_equal(panel.closes[part], frame["close"].to_numpy()[1:])
        np.testing.assert_array_equal(panel.returns[part], log_returns(frame)[1:])
        assert panel.series[part].tolist() == [number] * (len(frame) - 1)
        assert panel.positions[part].tolist() == list(range(len(frame) - 1))
        np.testing.assert_array_equal(panel.volatility[part], features.ewma_volatility(panel.returns[part]))
        np.testing.assert_array_equal(
            panel.channels[part], features.channels(panel.returns[part], panel.volatility[part])
        )
        np.testing.assert_array_equal(
            panel.har_features[part], features.har_features(panel.returns[part], panel.volatility[part])
        )
    days = [day for frame in frames.values() for day in frame.index[1:].to_numpy()]
    np.testing.assert_array_equal(panel.calendar, sorted(set(days)))


@settings(max_examples=50)
@given(price_maps(), st.sets(st.integers(1, 6), min_size=1), st.data())
def test_targets_are_a_slow_loop_over_prices(
    frames: dict[str, pd.DataFrame], horizons: set[int], data: st.DataObject
) -> None:
    panel = Panel.from_prices(frames)
    ahead = tuple(sorted(horizons))
    rows = np.array(data.draw(st.lists(st.integers(0, len(panel) - 1))), dtype=np.int64)
    windows = Windows(panel, rows, ahead)
    expected = np.full((len(rows), len(ahead)), np.nan)
    for place, row in enumerate(rows):
        frame = frames[str(windows.symbols[place])]
        closes = frame["close"].tolist()
        origin = frame.index.tolist().index(pd.Timestamp(windows.sessions[place]))
        assert closes[origin] == panel.closes[row]
        for column, h in enumerate(ahead):
            if origin + h < len(closes):
                expected[place, column] = math.log(closes[origin + h] / closes[origin])
    np.testing.assert_allclose(windows.targets, expected, atol=1e-12)


def test_dividends_count_in_total_returns_alone() -> None:
    frame = prices([10.0, 9.0, 9.0])
    frame.loc[frame.index[1], "dividend"] = 1.0
    total, price = Panel.from_prices({"A": frame}), Panel.from_prices({"A": frame}, "price")
    np.testing.assert_allclose(total.returns, [0.0, 0.0], atol=1e-15)
    np.testing.assert_allclose(price.returns, [math.log(0.9), 0.0], atol=1e-15)
    assert total.closes.tolist() == [9.0, 9.0]


def test_a_panel_of_nothing_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"^a panel holds at least one series\. Received: none$"):
        Panel.from_prices({})


def test_sequences_end_with_the_origin_newest_last(panel: Panel) -> None:
    rows = np.array([20, 9, 49 + 9, len(panel) - 1])
    sequences = Windows(panel, rows, (1,)).sequences(10)
    assert sequences.shape == (4, 10, len(features.CHANNELS))
    assert sequences.dtype == np.float32
    for sequence, row in zip(sequences, rows, strict=True):
        for step in range(10):
            np.testing.assert_array_equal(sequence[step], panel.channels[row - 9 + step])
    np.testing.assert_array_equal(sequences[:, -1], panel.channels[rows])


def test_lags_are_the_first_channel_of_the_sequences(panel: Panel) -> None:
    for rows in (np.array([20, 9, 49 + 9, len(panel) - 1]), np.arange(9, 49), np.array([], dtype=np.int64)):
        windows = Windows(panel, rows, (1,))
        lags = windows.lags(10)
        np.testing.assert_array_equal(lags, windows.sequences(10)[:, :, features.CHANNELS.index("z")])
        assert lags.dtype == np.float32
        assert not lags.flags.writeable  # rows overlap: writing into one would change others


def test_lags_of_one_series_are_a_view_of_the_panel(panel: Panel) -> None:
    run = Windows(panel, np.arange(9, 49), (1,)).lags(10)
    assert np.shares_memory(run, panel.channels)
    assert run.strides == (panel.channels.strides[0],) * 2
    scattered = Windows(panel, np.array([9, 11, 12]), (1,)).lags(10)
    assert not np.shares_memory(scattered, panel.channels)


def test_lags_never_reach_into_the_series_before(panel: Panel) -> None:
    """Rows that follow each other in the panel cross into the next series, whose first lack history."""
    with pytest.raises(ParameterError, match=r"needs 10 sessions up to it\. Received: 9 origins with fewer"):
        Windows(panel, np.arange(40, 60), (1,)).lags(10)


def test_a_window_never_reaches_into_the_series_before(panel: Panel) -> None:
    assert panel.offsets.tolist() == [0, 49, 88]
    exactly = Windows(panel, np.array([9, 49 + 9]), (1,))
    assert exactly.sequences(10).shape == (2, 10, len(features.CHANNELS))
    with pytest.raises(ParameterError) as caught:
        Windows(panel, np.array([30, 49 + 8, 49 + 3]), (1,)).sequences(10)
    session = panel.sessions[49 + 8]
    assert str(caught.value) == (
        "every origin needs 10 sessions up to it. Received: 2 origins with fewer, the first at "
        f"{session} of TOKYO; start later or look back less"
    )


def test_windows_say_where_they_are(panel: Panel) -> None:
    rows = np.array([87, 3, 50])
    windows = Windows(panel, rows, (1, 4, 21))
    assert len(windows) == 3
    assert windows.symbols.tolist() == ["TOKYO", "NEWYORK", "TOKYO"]
    assert windows.series.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(windows.sessions, panel.sessions[rows])
    np.testing.assert_array_equal(windows.volatility, panel.volatility[rows])
    np.testing.assert_allclose(windows.scales, panel.volatility[rows][:, None] * [1.0, 2.0, math.sqrt(21)])


def test_take_keeps_origins_by_mask_and_by_position_with_their_targets(panel: Panel) -> None:
    windows = Windows(panel, np.arange(0, 80, 7), (1, 5))
    known = windows.targets  # computed before, so that a stale copy would show
    mask = np.arange(len(windows)) % 3 == 1
    for selection in (mask, np.flatnonzero(mask)):
        taken = windows.take(selection)
        np.testing.assert_array_equal(taken.rows, windows.rows[mask])
        np.testing.assert_array_equal(taken.targets, known[mask])
    assert len(windows.take(np.zeros(len(windows), dtype=bool))) == 0
    assert windows.take(np.array([], dtype=np.int64)).targets.shape == (0, 2)


@given(price_maps(), st.data())
def test_select_is_the_panel_of_those_symbols(frames: dict[str, pd.DataFrame], data: st.DataObject) -> None:
    panel = Panel.from_prices(frames)
    assert panel.channels is panel.channels  # computed once
    chosen = data.draw(st.lists(st.sampled_from(sorted(frames)), min_size=1, unique=True))
    selected = panel.select(chosen)
    alone = Panel.from_prices({symbol: frames[symbol] for symbol in chosen})
    assert selected.symbols == alone.symbols
    for name in ("offsets", "sessions", "closes", "returns", "volatility", "channels", "har_features"):
        assert getattr(selected, name).tobytes() == getattr(alone, name).tobytes(), name


@given(price_maps(), st.integers(1, 5), st.data())
def test_some_series_are_learned_from(
    frames: dict[str, pd.DataFrame], count: int, data: st.DataObject
) -> None:
    """The same ones whatever their order, their prices and who else is there; their origins, in order."""
    whole = replace(Panel.from_prices(frames), learn_from=count)
    drawn = whole.pooled
    assert drawn.pooled is drawn
    assert (drawn is whole) == (count >= len(frames))
    assert len(drawn.symbols) == min(count, len(frames))
    absent = sorted(frames)[0]
    if len(frames) > 1 and absent not in drawn.symbols:
        rest = {symbol: frame * 2.0 for symbol, frame in frames.items() if symbol != absent}
        others = replace(Panel.from_prices(rest), learn_from=count)
        assert others.pooled.symbols == drawn.symbols
    rows = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), unique=True)), dtype=np.int64)
    windows = Windows(whole, rows, (1, 2))
    mine = windows.take(np.isin(windows.symbols, drawn.symbols))
    learned = windows.pooled
    assert learned.panel is drawn
    np.testing.assert_array_equal(learned.symbols, mine.symbols)
    np.testing.assert_array_equal(learned.sessions, mine.sessions)
    np.testing.assert_array_equal(learned.targets, mine.targets)


def test_features_of_a_series_do_not_depend_on_its_neighbours(panel: Panel) -> None:
    for symbol, part in zip(panel.symbols, panel.parts, strict=True):
        alone = panel.select([symbol])
        assert alone.channels.tobytes() == panel.channels[part].tobytes()
        assert alone.har_features.tobytes() == panel.har_features[part].tobytes()


# Series that are looked at and not forecast


def business(returns: Array, start: str = "2020-01-01", skip: tuple[int, ...] = ()) -> pd.DataFrame:
    return prices(100 * np.exp(np.concatenate([[0.0], np.cumsum(returns)])), start, skip)


def rough(n: int, seed: int) -> Array:
    return 0.01 * np.random.default_rng(seed).standard_t(4, n)


def test_the_market_is_looked_at_and_not_forecast() -> None:
    frames = {"A": business(rough(30, 0)), "M": business(rough(30, 1)), "B": business(rough(25, 2))}
    panel = Panel.from_prices(frames, market="M")
    assert panel.symbols == ("A", "B")
    assert panel.universe == Universe(("A", "B"), "M")
    assert panel.every.symbols == ("A", "B", "M")
    np.testing.assert_array_equal(panel.market().values, log_returns(frames["M"])[1:])
    np.testing.assert_array_equal(panel.select(["B"]).market().values, panel.market().values)
    np.testing.assert_array_equal(panel.covariate("M").values, panel.market().values)


@pytest.mark.parametrize(
    ("symbols", "market", "said"),
    [
        ("AB", "M", r"^the market is one of the symbols that have prices\. Received: 'M', which has none$"),
        ("M", "M", r"^a panel holds at least one series\. Received: M$"),
    ],
)
def test_a_market_without_prices_or_without_others_is_refused(symbols: str, market: str, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        Panel.from_prices({symbol: business(rough(5, 0)) for symbol in symbols}, market=market)


def test_an_unknown_covariate_names_those_there_are(panel: Panel) -> None:
    with pytest.raises(ParameterError, match=r"Received: 'VIX'; there are NEWYORK, TOKYO$"):
        panel.covariate("VIX")


@given(price_maps(), st.data())
def test_means_over_the_members_are_a_slow_loop(frames: dict[str, pd.DataFrame], data: st.DataObject) -> None:
    panel = Panel.from_prices(frames)
    some = tuple(sorted(data.draw(st.sets(st.sampled_from(sorted(frames)), min_size=1))))
    mean: dict[str, list[float]] = {}
    relative: dict[str, list[float]] = {}
    for symbol in some:
        series = log_returns(frames[symbol])[1:]
        for place, day in enumerate(frames[symbol].index[1:]):
            mean.setdefault(str(day.date()), []).append(series[place])
            usual = max(np.mean(np.abs(series[: place + 1])), features.VOLATILITY_FLOOR)
            relative.setdefault(str(day.date()), []).append(abs(series[place]) / usual)
    universe = Universe(some, "no such index")
    for covariate, expected in (
        (panel.market(universe), mean),
        (panel.cross_section(universe), relative),
    ):
        assert covariate.closings.astype("datetime64[D]").astype(str).tolist() == sorted(expected)
        np.testing.assert_allclose(
            covariate.values, [np.mean(expected[day]) for day in sorted(expected)], rtol=1e-9, atol=1e-15
        )
    assert panel.missing(universe) == ("no such index",)
    # The same whichever series are kept to be forecast.
    kept = panel.select([some[0]])
    assert kept.cross_section(universe).values.tobytes() == panel.cross_section(universe).values.tobytes()
    assert kept.market().values.tobytes() == panel.market().values.tobytes()


def test_tokyo_has_not_seen_new_york_of_the_same_date() -> None:
    frames = {"NEWYORK": business(rough(10, 0)), "TOKYO": business(rough(10, 1), skip=(4,))}
    closings = {
        symbol: (frame.index + pd.Timedelta(hours=hour)).to_numpy().astype("datetime64[s]")
        for (symbol, frame), hour in zip(frames.items(), (21, 6), strict=True)
    }
    panel = Panel.from_prices(frames, closings=closings)
    dates = panel.sessions
    tokyo, new_york = panel.parts[1], panel.parts[0]
    new_york_seen = panel.covariate("NEWYORK")
    seen = new_york_seen.last_known(panel.closed[tokyo])
    assert seen[0] == -1
    np.testing.assert_array_equal(
        new_york_seen.closings[seen[1:]].astype("datetime64[D]"),
        [dates[new_york][dates[new_york] < day].max() for day in dates[tokyo][1:]],
    )
    seen = panel.covariate("TOKYO").last_known(panel.closed[new_york])
    assert (panel.covariate("TOKYO").closings[seen] < panel.closed[new_york]).all()
    # A mean over both is known when its date is over, at which time no member of it can be missing any more.
    for covariate in (panel.market(), panel.cross_section()):
        for part in (tokyo, new_york):
            seen = covariate.last_known(panel.closed[part])
            assert seen.tolist() == [np.sum(panel.calendar < day) - 1 for day in dates[part]]


def test_closings_go_with_the_prices() -> None:
    frame = business(rough(5, 0))
    times = frame.index.to_numpy().astype("datetime64[s]")
    said = r"closings are one increasing time for each session .* Received: {} times for 6 sessions of A$"
    with pytest.raises(ParameterError, match=said.format(5)):
        Panel.from_prices({"A": frame}, closings={"A": times[1:]})
    with pytest.raises(ParameterError, match=said.format(0)):
        Panel.from_prices({"A": frame}, closings={})
    with pytest.raises(ParameterError, match=said.format(6)):
        Panel.from_prices({"A": frame}, closings={"A": times[::-1]})


@given(price_maps(), st.data())
def test_means_over_the_members_do_not_see_later_prices(
    frames: dict[str, pd.DataFrame], data: st.DataObject
) -> None:
    panel = Panel.from_prices(frames)
    day = data.draw(st.sampled_from(panel.calendar.tolist()))
    later = {symbol: frame.copy() for symbol, frame in frames.items()}
    for frame in later.values():
        frame.loc[frame.index > pd.Timestamp(day), "close"] *= 3.0
    changed = Panel.from_prices(later)
    known = int(np.searchsorted(panel.calendar, np.datetime64(day), side="right"))
    for one, other in (
        (panel.market(), changed.market()),
        (panel.cross_section(), changed.cross_section()),
    ):
        assert one.values[:known].tobytes() == other.values[:known].tobytes()


@given(price_maps(), st.data())
def test_going_through_the_series_meets_each_origin_once(
    frames: dict[str, pd.DataFrame], data: st.DataObject
) -> None:
    panel = Panel.from_prices(frames)
    rows = np.array(data.draw(st.lists(st.integers(0, len(panel) - 1))), dtype=np.int64)
    windows = Windows(panel, rows, (1,))
    met = []
    for part, mine in windows.by_series():
        assert ((rows[mine] >= part.start) & (rows[mine] < part.stop)).all()
        met.extend(mine.tolist())
    assert sorted(met) == list(range(len(rows)))
