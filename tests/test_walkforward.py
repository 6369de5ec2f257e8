"""The walk-forward backtest: nothing learned from the future, each origin forecast exactly once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from forecaster.errors import ParameterError
from forecaster.models.econometric import EwmaForecaster, HarxForecaster
from forecaster.models.naive import HistoricalForecaster
from forecaster.quantiles import LEVELS, QuantileForecast, Tails, quantile_columns
from forecaster.walkforward import (
    Fold,
    backtest,
    fit_windows,
    folds,
    forecast_table,
    latest_table,
    origin_windows,
)
from forecaster.windows import Panel, Windows

Array = NDArray[np.float64]


def day(number: int) -> np.datetime64:
    return np.datetime64("2020-01-01") + np.timedelta64(int(number), "D")


def panel_of(calendars: dict[str, list[int]], seed: int = 0) -> Panel:
    """Series with a return on each of the given days."""
    symbols = tuple(sorted(calendars))
    lengths = [len(calendars[symbol]) for symbol in symbols]
    sessions = np.array([day(number) for symbol in symbols for number in calendars[symbol]], "datetime64[D]")
    returns = 0.01 * np.random.default_rng(seed).standard_t(5, size=len(sessions))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Panel(symbols, offsets, sessions, 100 * np.exp(np.cumsum(returns)), returns)


def weekdays(n: int, start: int = 0, holidays: tuple[int, ...] = ()) -> list[int]:
    days = [number for number in range(start, start + 2 * n) if number % 7 < 5 and number not in holidays]
    return days[:n]


@dataclass(frozen=True)
class Setting:
    """A panel of ragged series with holidays, and how to walk through it."""

    panel: Panel
    horizons: tuple[int, ...]
    start: int
    end: int | None
    refit_every: int
    warm_up: int
    embargo: int
    rolling: int

    def folds(self) -> list[Fold]:
        return folds(
            self.panel,
            self.horizons,
            day(self.start),
            None if self.end is None else day(self.end),
            self.refit_every,
            self.warm_up,
            self.embargo,
            self.rolling,
        )


@st.composite
def settings_of_a_walk(draw: st.DrawFn) -> Setting:
    calendars = {}
    for symbol in ("A", "B", "C")[: draw(st.integers(1, 3))]:
        # The first series is long enough to learn from; others begin, pause and end as they like.
        length = 230 if symbol == "A" else draw(st.integers(1, 230))
        start = 0 if symbol == "A" else draw(st.integers(0, 320))
        holidays = draw(st.sets(st.integers(0, 320), max_size=12))
        calendars[symbol] = weekdays(length, start, tuple(holidays))
    # 130 sessions before the start: at least 100 origins to learn from, whatever is drawn.
    start = draw(st.integers(200, 270))
    return Setting(
        panel=panel_of(calendars),
        horizons=draw(st.sampled_from([(1,), (1, 5), (2, 5, 8)])),
        start=start,
        end=draw(st.none() | st.integers(start + 3, 340)),
        refit_every=draw(st.integers(1, 40)),
        warm_up=draw(st.integers(1, 12)),
        embargo=draw(st.integers(0, 7)),
        rolling=draw(st.sampled_from([0, 100, 120])),
    )


@settings(max_examples=60, deadline=None)
@given(settings_of_a_walk())
def test_no_training_outcome_lies_after_the_refit(setting: Setting) -> None:
    panel = setting.panel
    for fold in setting.folds():
        assert np.isfinite(fold.train.targets).all()
        for row in fold.train.rows:
            part = panel.parts[panel.series[row]]
            last_outcome = row + max(setting.horizons)
            assert last_outcome < part.stop
            assert panel.sessions[last_outcome] <= fold.refit
            # The embargo: so many further sessions of the series, all of them before the evening.
            assert last_outcome + setting.embargo < part.stop
            assert panel.sessions[last_outcome + setting.embargo] <= fold.refit
        assert (fold.test.sessions >= fold.refit).all()


@settings(max_examples=60, deadline=None)
@given(settings_of_a_walk())
def test_training_origins_are_all_that_the_rules_allow(setting: Setting) -> None:
    panel = setting.panel
    for fold in setting.folds():
        expected = []
        for part in panel.parts:
            past = [row for row in range(part.start, part.stop) if panel.sessions[row] <= fold.refit]
            usable = past[setting.warm_up - 1 : max(len(past) - max(setting.horizons) - setting.embargo, 0)]
            if setting.rolling:
                # The last so many sessions whose outcomes are known, less those of the warm-up.
                known = past[: max(len(past) - max(setting.horizons) - setting.embargo, 0)]
                usable = [row for row in usable if row in set(known[-setting.rolling :])]
            expected += usable
        assert fold.train.rows.tolist() == expected


@settings(max_examples=60, deadline=None)
@given(settings_of_a_walk())
def test_each_origin_of_the_span_is_forecast_exactly_once(setting: Setting) -> None:
    panel = setting.panel
    walk = setting.folds()
    tested = np.concatenate([fold.test.rows for fold in walk])
    last = panel.calendar[-1] if setting.end is None else day(setting.end)
    eligible = [
        row
        for row in range(len(panel))
        if day(setting.start) <= panel.sessions[row] <= last and panel.positions[row] >= setting.warm_up - 1
    ]
    assert sorted(tested.tolist()) == eligible
    assert all(len(fold.test) for fold in walk)


@settings(max_examples=60, deadline=None)
@given(settings_of_a_walk())
def test_refits_come_every_so_many_sessions_of_the_common_calendar(setting: Setting) -> None:
    calendar = setting.panel.calendar
    in_span = calendar[calendar >= day(setting.start)]
    walk = setting.folds()
    assert [fold.number for fold in walk] == sorted({fold.number for fold in walk})
    for fold in walk:
        assert fold.refit == in_span[fold.number * setting.refit_every]
        until = in_span[fold.number * setting.refit_every :][: setting.refit_every][-1]
        assert (fold.test.sessions <= until).all()


def test_a_fold_by_hand() -> None:
    # Two series, the second with a holiday on day 130 and nothing after day 134.
    panel = panel_of({"A": list(range(140)), "B": [n for n in range(135) if n != 130]})
    first, second = folds(panel, (1, 3), day(130), day(137), 5, warm_up=10, embargo=2)
    assert (first.number, first.refit, second.number, second.refit) == (0, day(130), 1, day(135))
    assert first.train.sessions[first.train.series == 0].tolist() == [day(n) for n in range(9, 126)]
    # B's last session up to the evening of its holiday is day 129.
    assert first.train.sessions[first.train.series == 1].tolist() == [day(n) for n in range(9, 125)]
    assert first.test.sessions[first.test.series == 0].tolist() == [day(n) for n in range(130, 135)]
    assert first.test.sessions[first.test.series == 1].tolist() == [day(n) for n in range(131, 135)]
    assert second.test.sessions.tolist() == [day(135), day(136), day(137)]
    assert set(second.test.symbols) == {"A"}


def test_start_and_end_need_not_be_sessions() -> None:
    panel = panel_of({"A": weekdays(200)})
    walk = folds(panel, (1,), day(215), day(222), 100, warm_up=2)  # a Saturday, a Saturday
    assert walk[0].refit == day(217)
    assert walk[-1].test.sessions.max() == day(221)


def test_fit_windows_of_a_late_evening_learn_from_everything_known() -> None:
    panel = panel_of({"A": list(range(30)), "B": list(range(20, 23))})
    windows = fit_windows(panel, day(999), (1, 5), warm_up=4)
    assert windows.rows.tolist() == list(range(3, 25))
    assert windows.horizons == (1, 5)
    assert fit_windows(panel, day(999), (1, 5), warm_up=4, rolling=6).rows.tolist() == list(range(19, 25))
    assert len(fit_windows(panel, day(-1), (1,), warm_up=1)) == 0


@pytest.mark.parametrize(("one_close", "newest"), [(False, [15, 15]), (True, [16, 16])])
def test_the_first_to_close_learns_nothing_of_the_same_date_elsewhere(
    one_close: bool, newest: list[int]
) -> None:
    panel = panel_of({"EAST": weekdays(25), "WEST": weekdays(25)})
    hours = np.where(panel.series == 0, np.timedelta64(6, "h"), np.timedelta64(21, "h"))
    apart = replace(panel, closings=panel.sessions + hours, one_close=one_close)
    train = fit_windows(apart, panel.sessions[18], (1, 2), 5)
    last = [int(panel.positions[train.rows[mine]].max()) for _, mine in train.by_series()]
    assert last == newest


def test_a_close_later_on_the_date_of_a_refit_changes_no_forecast_of_who_closed_before() -> None:
    days = pd.bdate_range("2015-01-01", periods=300)
    refit = days[280].to_numpy().astype("datetime64[D]")
    closings = {"EAST": days + pd.Timedelta(hours=6), "WEST": days + pd.Timedelta(hours=21)}
    forecasts = []
    for bump in (0.0, 0.2):
        prices = {}
        for number, symbol in enumerate(closings):
            steps = 0.01 * np.random.default_rng(number).standard_normal(len(days))
            steps[280] += bump if symbol == "WEST" else 0.0
            close = 100.0 * np.exp(np.cumsum(steps))
            prices[symbol] = pd.DataFrame({"close": close, "dividend": 0.0, "split": 1.0}, index=days)
        panel = Panel.from_prices(prices, closings={name: at.to_numpy() for name, at in closings.items()})
        fold = folds(panel, (1, 5), refit, None, 10, 30)[0]
        first = fold.test.take((fold.test.symbols == "EAST") & (fold.test.sessions == refit))
        forecasts.append(HarxForecaster().fit(fold.train).predict(first).values)
    assert forecasts[0].size
    assert forecasts[0].tobytes() == forecasts[1].tobytes()


def test_origin_windows_include_both_ends() -> None:
    panel = panel_of({"A": list(range(30)), "B": list(range(20, 30))})
    windows = origin_windows(panel, day(21), day(24), (1,), warm_up=3)
    assert windows.sessions.tolist() == [day(n) for n in (21, 22, 23, 24, 22, 23, 24)]


def test_a_span_without_sessions_is_refused() -> None:
    panel = panel_of({"A": list(range(200))})
    for start, end in ((300, None), (150, 140)):
        with pytest.raises(ParameterError) as caught:
            folds(panel, (1,), day(start), None if end is None else day(end), 5, warm_up=2)
        assert str(caught.value) == (
            f"the backtest needs sessions between its start and its end. Received: start {day(start)}, end "
            f"{'none' if end is None else day(end)}, while the prices run from {day(0)} to {day(199)}"
        )


def test_too_little_to_learn_from_is_refused_and_just_enough_is_not() -> None:
    panel = panel_of({"A": list(range(300))})
    # Origins 9 to 108, whose outcomes 5 sessions later end with day 113; 2 more are left out.
    assert len(folds(panel, (1, 5), day(115), None, 50, warm_up=10, embargo=2)[0].train) == 100
    with pytest.raises(ParameterError) as caught:
        folds(panel, (1, 5), day(114), None, 50, warm_up=10, embargo=2)
    assert str(caught.value) == (
        "a model learns from at least 100 origins whose outcomes are known. Received: 99 on the evening of "
        f"{day(114)} (prices from {day(0)}, longest horizon 5); start later, bring more history or learn "
        "from more sessions"
    )
    with pytest.raises(ParameterError, match=r"Received: 60 on the evening of .* learn from more sessions"):
        folds(panel, (1,), day(200), None, 50, warm_up=2, rolling=60)


def test_a_span_without_origins_is_refused() -> None:
    # A ends before the span; B has begun, but not long enough ago.
    panel = panel_of({"A": list(range(200)), "B": list(range(190, 215))})
    with pytest.raises(ParameterError, match=r"holds at least one origin. Received: none from 2020-07-23 on"):
        folds(panel, (1,), day(204), None, 50, warm_up=30)


# The backtest itself


@dataclass
class Recorder:
    """A model that writes down what it was given, and forecasts the number of its making."""

    log: list[Any]
    parameters: int = 0
    seen: list[int] = field(default_factory=list)

    def fit(self, windows: Windows) -> Self:
        assert not self.seen, "a model is made anew for each fold"
        self.seen.append(len(windows))
        self.parameters = len(windows)
        self.log.append(("fit", windows))
        return self

    def predict(self, windows: Windows) -> QuantileForecast:
        self.log.append(("predict", windows))
        values = np.broadcast_to(np.array(LEVELS), (len(windows), len(windows.horizons), len(LEVELS)))
        return QuantileForecast(values + float(self.seen[0]), windows.horizons)

    def save(self, folder: Path) -> None:
        raise AssertionError

    def load(self, folder: Path) -> Self:
        raise AssertionError


def test_each_model_is_fitted_and_asked_anew_in_each_fold_in_order() -> None:
    walk = folds(panel_of({"A": list(range(300))}), (1, 5), day(250), None, 20, warm_up=2)
    log: list[Any] = []
    made: list[str] = []

    def builder(name: str) -> Any:
        def build() -> Recorder:
            made.append(name)
            return Recorder(log)

        return build

    results = backtest({"one": builder("one"), "two": builder("two")}, walk)
    first = next(results)
    assert made == ["one"], "nothing is computed before it is asked for"
    everything = [first, *results]
    assert [(result.model, result.fold.number) for result in everything] == [
        ("one", 0), ("one", 1), ("one", 2), ("two", 0), ("two", 1), ("two", 2),
    ]  # fmt: skip
    assert made == ["one"] * 3 + ["two"] * 3
    assert [step for step, _ in log] == ["fit", "predict"] * 6
    assert [windows for _, windows in log] == [
        windows for _ in range(2) for fold in walk for windows in (fold.train, fold.test)
    ]
    for result in everything:
        assert result.fitted.parameters == len(result.fold.train)
        assert len(result.forecast) == len(result.fold.test)
        assert result.fit_seconds >= 0
        assert result.predict_seconds >= 0


@pytest.mark.parametrize("build", [HistoricalForecaster, EwmaForecaster], ids=["historical", "ewma"])
def test_prices_after_an_origin_change_no_bit_of_its_forecast(build: Any) -> None:
    panel = panel_of({"A": weekdays(330), "B": weekdays(300, 20, (150, 151)), "C": weekdays(150, 10)})
    evening = day(400)
    returns = panel.returns.copy()
    after = panel.sessions > evening
    assert after.sum() > 50
    returns[after] = 7.0 * returns[after][::-1] - 0.05
    changed = Panel(panel.symbols, panel.offsets, panel.sessions, panel.closes, returns)

    def tables(of: Panel) -> pd.DataFrame:
        walk = folds(of, (1, 5, 21), day(300), None, 30, warm_up=5)
        parts = [
            forecast_table(result.model, result.fold.test, result.forecast)
            for result in backtest({"m": build}, walk)
        ]
        return pd.concat(parts, ignore_index=True)

    before, then = tables(panel), tables(changed)
    past = (before["origin"] <= pd.Timestamp(evening)).to_numpy()
    assert past.sum() > 300
    quantiles = quantile_columns()
    assert before.loc[past, quantiles].to_numpy().tobytes() == then.loc[past, quantiles].to_numpy().tobytes()
    # The change does show where it may.
    assert not before.loc[~past, quantiles].equals(then.loc[~past, quantiles])


def test_a_combination_averages_the_forecasts_of_its_members_without_a_second_fit() -> None:
    panel = panel_of({"A": weekdays(330), "B": weekdays(300)})
    walk = folds(panel, (1, 5), day(300), None, 40, warm_up=5)
    log: list[Any] = []
    models: dict[str, Any] = {"r": lambda: Recorder(log), "h": HistoricalForecaster, "e": EwmaForecaster}
    results = list(backtest(models, walk, {"two": ("h", "r"), "both": ("two", "e")}))
    assert [result.model for result in results[:: len(walk)]] == ["r", "h", "e", "two", "both"]
    assert sum(what == "fit" for what, _ in log) == len(walk)
    by_name = {(result.model, result.fold.number): result for result in results}
    for fold in walk:
        one, two, three, four = (
            by_name[name, fold.number].forecast.values for name in ("r", "h", "two", "e")
        )
        np.testing.assert_allclose(three, (one + two) / 2.0, rtol=1e-12)
        combined = by_name["both", fold.number]
        np.testing.assert_allclose(combined.forecast.values, (three + four) / 2.0, rtol=1e-12)
        assert combined.fitted.parameters == sum(by_name[m, fold.number].fitted.parameters for m in "rhe")


@dataclass
class Renewing(Recorder):
    """Fitted at every third refit."""

    refit_every: int = 3

    def renew(self, previous: Any, windows: Windows) -> Self:
        self.seen = previous.seen
        self.log.append(("renew", windows))
        return self


def test_a_model_is_renewed_between_its_full_fits() -> None:
    panel = panel_of({"A": weekdays(330)})
    walk = folds(panel, (1, 5), day(200), None, 20, warm_up=5)
    assert len(walk) > 7
    log: list[Any] = []
    results = list(backtest({"m": lambda: Renewing(log)}, walk))
    made = [(what, windows) for what, windows in log if what != "predict"]
    assert [what for what, _ in made] == [("fit", "renew", "renew")[k % 3] for k in range(len(walk))]
    for fold, result, (_, windows) in zip(walk, results, made, strict=True):
        assert windows is fold.train
        assert result.forecast.values[0, 0, 0] - LEVELS[0] == len(walk[fold.number // 3 * 3].train)


# Tables


@pytest.fixture(scope="module")
def issued() -> tuple[Windows, QuantileForecast]:
    panel = panel_of({"NA": list(range(8)), "0700": list(range(4))})
    windows = Windows(panel, np.array([6, 11, 1]), (1, 5))
    values = np.arange(3 * 2 * len(LEVELS), dtype=float).reshape(3, 2, -1)
    return windows, QuantileForecast(values, (1, 5))


def test_forecast_table_is_the_contract(issued: tuple[Windows, QuantileForecast]) -> None:
    windows, forecast = issued
    before = forecast.values.copy()
    table = forecast_table("conv", windows, forecast)
    assert list(table.columns) == ["model", "symbol", "origin", "horizon", "y", *quantile_columns()]
    assert table["model"].tolist() == ["conv"] * 6
    assert table["symbol"].tolist() == ["NA", "NA", "NA", "NA", "0700", "0700"]
    assert table["origin"].tolist() == [pd.Timestamp(day(n)) for n in (2, 2, 7, 7, 1, 1)]
    assert table["horizon"].tolist() == [1, 5, 1, 5, 1, 5]
    np.testing.assert_array_equal(table["y"], windows.targets.ravel())
    assert table["y"].isna().tolist() == [False, False, True, True, False, True]
    quantiles = table[quantile_columns()].to_numpy()
    for place in range(3):
        for column in range(2):
            np.testing.assert_array_equal(quantiles[2 * place + column], forecast.values[place, column])
    table.loc[:, quantile_columns()] = 0.0
    np.testing.assert_array_equal(forecast.values, before)


def test_forecast_table_survives_parquet_with_its_types(
    issued: tuple[Windows, QuantileForecast], tmp_path: Path
) -> None:
    table = forecast_table("conv", *issued)
    assert isinstance(table["origin"].dtype, np.dtype)
    assert table["origin"].dtype.kind == "M"
    assert table["horizon"].dtype == np.int64
    assert all(table[name].dtype == np.float64 for name in ["y", *quantile_columns()])
    table.to_parquet(tmp_path / "forecasts.parquet")
    read = pd.read_parquet(tmp_path / "forecasts.parquet")
    assert read["symbol"].tolist() == table["symbol"].tolist()
    pd.testing.assert_frame_equal(read, table, check_dtype=False)


def test_latest_table_has_the_close_in_place_of_the_outcome(
    issued: tuple[Windows, QuantileForecast],
) -> None:
    windows, forecast = issued
    table = latest_table("conv", windows, forecast)
    keys = ["model", "symbol", "origin", "horizon", "close"]
    assert list(table.columns) == [*keys, *quantile_columns(), "tail_low", "tail_high", "variance"]
    assert table["tail_low"].isna().all() == (forecast.tails is None)
    low, high = forecast.values[:, :, 0] - 0.01, forecast.values[:, :, -1] + 0.02
    stated = replace(forecast, tails=Tails(low, high, np.full_like(low, 0.3)))
    told = latest_table("conv", windows, stated)
    np.testing.assert_array_equal(told["tail_low"], low.ravel())
    np.testing.assert_array_equal(told["tail_high"], high.ravel())
    assert (told["variance"] == 0.3).all()
    np.testing.assert_array_equal(table["close"], np.repeat(windows.panel.closes[windows.rows], 2))


def test_no_origins_make_an_empty_table() -> None:
    panel = panel_of({"A": list(range(8))})
    empty = Windows(panel, np.array([], dtype=np.int64), (1, 5))
    table = forecast_table("m", empty, QuantileForecast(np.zeros((0, 2, len(LEVELS))), (1, 5)))
    assert table.empty
    assert list(table.columns) == ["model", "symbol", "origin", "horizon", "y", *quantile_columns()]
