"""Frames for other tools: what arrives there is what was forecast."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from planted import garch, prices
from scipy.stats import spearmanr

from forecaster.errors import ParameterError
from forecaster.interop import from_nixtla, to_nixtla, to_skfolio
from forecaster.models.econometric import EwmaForecaster
from forecaster.models.naive import HistoricalForecaster
from forecaster.quantiles import LEVELS
from forecaster.walkforward import fit_windows, forecast_table
from forecaster.windows import Panel, Windows

HORIZONS = (1, 5)


@pytest.fixture(scope="module")
def panel() -> Panel:
    common = garch(900, 1)
    own = {name: garch(900, seed) for seed, name in enumerate(("AAA", "BBB"), start=2)}
    own["CCC"] = 0.9 * common + 0.1 * own["AAA"]
    own["BBB"] = 0.9 * common + 0.2 * own["BBB"]
    return Panel.from_prices({name: prices(series) for name, series in own.items()})


@pytest.fixture(scope="module")
def table(panel: Panel) -> pd.DataFrame:
    train = fit_windows(panel, panel.calendar[600], HORIZONS, 20)
    test = Windows(panel, np.flatnonzero(panel.sessions > panel.calendar[600]), HORIZONS)
    models = {"ewma": EwmaForecaster().fit(train), "past": HistoricalForecaster().fit(train)}
    return pd.concat([forecast_table(name, test, model.predict(test)) for name, model in models.items()])


def test_a_nixtla_frame_holds_the_quantiles_and_the_session_of_the_outcome(
    panel: Panel, table: pd.DataFrame
) -> None:
    frame = to_nixtla(table, 5, (50, 80, 95))
    assert list(frame.columns[:4]) == ["unique_id", "ds", "cutoff", "y"]
    assert [name for name in frame if name.startswith("ewma")] == [
        "ewma", "ewma-lo-50", "ewma-hi-50", "ewma-lo-80", "ewma-hi-80", "ewma-lo-95", "ewma-hi-95"
    ]  # fmt: skip
    assert len(frame) == 3 * 300 - 3 * 1  # one row a symbol and origin
    rng = np.random.default_rng(0)
    by_key = table.set_index(["model", "symbol", "origin", "horizon"])
    calendar = panel.calendar
    for row in rng.choice(len(frame), 50):
        one = frame.iloc[row]
        ours = by_key.loc[("past", one["unique_id"], one["cutoff"], 5)]
        assert one["past"] == ours["q0.5"]
        assert (one["past-lo-80"], one["past-hi-95"]) == (ours["q0.1"], ours["q0.975"])
        np.testing.assert_equal(one["y"], ours["y"])
        place = np.searchsorted(calendar, np.datetime64(one["cutoff"], "D")) + 5
        if place < len(calendar):
            assert np.datetime64(one["ds"], "D") == calendar[place]
    assert (frame["ds"] > frame["cutoff"]).all()


def test_sessions_on_weekends_are_counted_and_kept(table: pd.DataFrame) -> None:
    """A market that never closes; beyond its last session there is nothing but business days to count."""
    rows = table[(table["model"] == "past") & (table["symbol"] == "AAA") & (table["horizon"] == 1)].iloc[:6]
    days = pd.date_range("2024-01-05", periods=6)  # from a Friday to a Wednesday
    frame = to_nixtla(rows.assign(origin=days), 1)
    assert frame["ds"].tolist() == [*days[1:], pd.Timestamp("2024-01-11")]
    frame = to_nixtla(rows.iloc[:2].assign(origin=days[:2]), 1)
    assert frame["ds"].tolist() == [days[1], pd.Timestamp("2024-01-08")]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"horizon": 2}, r"the horizon is one of the table's. Received: 2; there are \[1, 5\]"),
        ({"intervals": (81,)}, "an interval lies between two forecast levels. Received: 81 percent"),
        ({"intervals": (-20,)}, "an interval lies between two forecast levels. Received: -20 percent"),
        ({"drop": "q0.5"}, "forecasts have the columns of forecasts.parquet. Received: none named 'q0.5'"),
    ],
)
def test_what_cannot_be_laid_out_is_refused(
    table: pd.DataFrame, change: dict[str, object], text: str
) -> None:
    dropped = change.pop("drop", None)
    with pytest.raises(ParameterError, match=text):
        to_nixtla(table.drop(columns=[dropped] if dropped else []), **{"horizon": 1, **change})  # type: ignore[arg-type]


def test_prices_from_a_nixtla_frame_are_those_of_the_frame(panel: Panel) -> None:
    parts = [
        pd.DataFrame({"unique_id": symbol, "ds": panel.sessions[part], "y": panel.closes[part]})
        for symbol, part in zip(panel.symbols, panel.parts, strict=True)
    ]
    again = Panel.from_prices(from_nixtla(pd.concat(parts).sample(frac=1, random_state=0)))
    assert again.symbols == panel.symbols
    np.testing.assert_allclose(again.returns[again.parts[1]], panel.returns[panel.parts[1]][1:], rtol=1e-9)
    with pytest.raises(ParameterError, match="none named 'y'"):
        from_nixtla(parts[0].rename(columns={"y": "close"}))


def test_scenarios_have_the_forecasts_as_margins_and_the_dependence_of_the_past(panel: Panel) -> None:
    train = fit_windows(panel, panel.calendar[-1], HORIZONS, 20)
    last = Windows(panel, panel.last_rows(), HORIZONS)
    forecast = EwmaForecaster().fit(train).predict(last)
    scenarios = to_skfolio(forecast, last, 5)
    assert list(scenarios.columns) == ["AAA", "BBB", "CCC"]
    logs = np.log1p(scenarios)
    for place, symbol in enumerate(scenarios):
        np.testing.assert_allclose(
            np.quantile(logs[symbol], LEVELS, method="hazen"), forecast.values[place, 1], atol=2e-3
        )
        assert forecast.tails is not None
        worst = logs[symbol].sort_values()[: int(0.01 * len(logs))]
        assert worst.mean() == pytest.approx(forecast.tails.low[place, 1], rel=0.1)
    dependence = spearmanr(logs["BBB"], logs["CCC"]).statistic
    assert dependence > 0.8
    assert abs(spearmanr(logs["AAA"], logs["BBB"]).statistic) < 0.3


def test_scenarios_do_not_see_beyond_their_origin(panel: Panel) -> None:
    train = fit_windows(panel, panel.calendar[700], HORIZONS, 20)
    model = EwmaForecaster().fit(train)
    rows = panel.offsets[:-1] + 700
    early = Windows(panel, rows, HORIZONS)
    cut = Panel.from_prices(
        {
            name: prices(panel.returns[part][:701], panel.closes[part][0] / np.exp(panel.returns[part][0]))
            for name, part in zip(panel.symbols, panel.parts, strict=True)
        }
    )
    alone = Windows(cut, cut.last_rows(), HORIZONS)
    pd.testing.assert_frame_equal(
        to_skfolio(model.predict(early), early, 5), to_skfolio(model.predict(alone), alone, 5), rtol=1e-9
    )


def test_scenarios_go_into_an_optimiser(panel: Panel) -> None:
    skfolio = pytest.importorskip("skfolio.optimization")
    last = Windows(panel, panel.last_rows(), HORIZONS)
    forecast = EwmaForecaster().fit(fit_windows(panel, panel.calendar[-1], HORIZONS, 20)).predict(last)
    weights = skfolio.InverseVolatility().fit(to_skfolio(forecast, last, 5)).weights_
    assert weights.sum() == pytest.approx(1)
    assert (weights > 0).all()


def test_scenarios_that_cannot_be_made_are_refused(panel: Panel) -> None:
    last = Windows(panel, panel.last_rows(), HORIZONS)
    train = fit_windows(panel, panel.calendar[-1], HORIZONS, 20)
    forecast = HistoricalForecaster().fit(train).predict(last)
    with pytest.raises(ParameterError, match=r"Received: 21; there are \[1, 5\]"):
        to_skfolio(forecast, last, 21)
    twice = Windows(panel, np.repeat(panel.last_rows(), 2), HORIZONS)
    with pytest.raises(ParameterError, match=r"one origin a symbol. Received: 6 origins of 3 symbols"):
        to_skfolio(HistoricalForecaster().fit(train).predict(twice), twice, 1)
    early = Windows(panel, panel.offsets[:-1] + 50, HORIZONS)
    with pytest.raises(ParameterError, match="scenarios need 100 sessions"):
        to_skfolio(HistoricalForecaster().fit(train).predict(early), early, 1)
