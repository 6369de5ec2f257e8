"""The charts of report and dashboard: the numbers they draw, their words, and their colours in both modes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.quantiles import LEVELS, quantile_columns
from forecaster.report import charts, style

HOSTILE = "<script>alert(1)</script>"


def forecasts(models: tuple[str, ...] = ("a",), horizons: tuple[int, ...] = (1, 5, 21)) -> pd.DataFrame:
    rows = [
        {"model": model, "symbol": "X", "origin": pd.Timestamp("2024-05-31"), "horizon": h, "close": 50.0}
        | dict(zip(quantile_columns(), (k + 1) * 0.02 * np.sqrt(h) * (np.array(LEVELS) - 0.5), strict=True))
        for k, model in enumerate(models)
        for h in horizons
    ]
    return pd.DataFrame(rows)


def closes(n: int = 90) -> pd.DataFrame:
    days = pd.bdate_range(end="2024-06-05", periods=n)
    return pd.DataFrame({"session": days, "close": np.linspace(40, 60, n)})


def verdict(ratios: list[float]) -> pd.DataFrame:
    names = [f"m{k}" for k in range(len(ratios))]
    others = {"baseline": "m0", "p_value": 0.2, "verdict": "cannot tell", "smallest_detectable": 0.004}
    return pd.DataFrame({"model": names, "crps_ratio": ratios}).assign(**others)


def by_origin(n: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    shares = {f"coverage_{c}": rng.uniform(0.3, 1, n) for c in (50, 80, 95)}
    days = pd.bdate_range("2024-01-02", periods=n)
    return pd.DataFrame({"origin": days, "forecasts": rng.integers(1, 9, n), **shares})


def sizes() -> pd.DataFrame:
    return pd.DataFrame(
        {"channel": ["z", "z", "abs_z", "abs_z"], "lag": [0, 5, 0, 5], "size": [3.0, 0, 0, 4]}
    )


def responses() -> pd.DataFrame:
    periods = np.geomspace(2, 252, 12)
    return pd.concat(
        pd.DataFrame({"name": name, "period": periods, "magnitude": values})
        for name, values in (("2D", 1 / periods), ("control", periods / 252))
    )


EVERY = {
    "fan": lambda: charts.fan(forecasts(), closes()),
    "intervals": lambda: charts.intervals(forecasts(("a", "b"), (5,))),
    "leaderboard": lambda: charts.leaderboard(verdict([1.0, 0.99, 1.004, 7.0, float("nan")])),
    "pit_histogram": lambda: charts.pit_histogram(np.linspace(0.5, 1.5, 20)),
    "coverage_by_year": lambda: charts.coverage_by_year(
        by_origin(3).assign(year=[2020, 2021, 2022], rows=250)
    ),
    "coverage": lambda: charts.coverage(by_origin(3).assign(group=["calm", "middle", "turbulent"], rows=9)),
    "crps_ratio_by_year": lambda: charts.crps_ratio_by_year(
        pd.DataFrame({"year": [2020, 2021], "rows": 250, "crps_ratio": [0.99, 1.01]}), "b", (0.98, 1.02)
    ),
    "track_record": lambda: charts.track_record(by_origin()),
    "lag_weights": lambda: charts.lag_weights(pd.DataFrame({"lag": [0, 1, 2], "weight": [0.5, -0.7, 0.0]})),
    "lag_map": lambda: charts.lag_map(sizes()),
    "frequency_response": lambda: charts.frequency_response(responses()),
    "matrix": lambda: charts.matrix(np.array([[1.0, np.nan], [-2.0, 0.5]]), ["r", HOSTILE], ["0", "1"]),
}


def colours_in(value: object) -> set[str]:
    return {word for word in json.dumps(value).split('"') if word.startswith("#")}


@pytest.mark.parametrize("name", EVERY)
def test_every_chart_is_valid_in_both_modes_and_says_what_it_is(name: str) -> None:
    chart = EVERY[name]()
    assert chart.summary.endswith(".")
    assert not chart.shows.endswith(".")
    assert not chart.hides.endswith(".")
    assert "nan" not in chart.summary
    assert colours_in(chart.figure) <= set(asdict(style.LIGHT).values())
    assert "<script" not in json.dumps(chart.figure, allow_nan=False)
    for palette in (style.LIGHT, style.DARK):
        dressed = style.themed(chart.figure, palette, legend=True)
        assert colours_in(dressed) <= set(asdict(palette).values())
        go.Figure(dressed)  # plotly checks every property
    assert "template" not in chart.figure["layout"]
    # A second dressing starts from the same figure.
    assert style.themed(chart.figure, style.LIGHT)["layout"]["height"] == chart.figure["layout"]["height"]


def test_names_of_every_chart_are_tested() -> None:
    drawn = {name for name in charts.__all__ if callable(getattr(charts, name)) and name[0].islower()}
    assert drawn - {"sessions"} == set(EVERY)


def test_a_fan_holds_the_prices_of_its_quantiles() -> None:
    table = forecasts()
    figure = charts.fan(table.sample(frac=1, random_state=1), closes()).figure
    for line, level in zip(figure["data"][:6], (0.025, 0.975, 0.1, 0.9, 0.25, 0.75), strict=True):
        expected = 50 * np.exp([0, *table[f"q{level!r}"]])
        np.testing.assert_allclose(line["y"], expected, rtol=1e-5)
    past = figure["data"][6]
    assert past["x"] == list(range(-59, 1))
    until = closes()[closes()["session"] <= "2024-05-31"]["close"].tail(60)
    np.testing.assert_allclose(past["y"], until, rtol=1e-5)


def test_a_fan_without_closes_begins_at_the_last_one() -> None:
    assert charts.fan(forecasts(), closes().iloc[:0]).figure["data"][6]["y"] == [50.0]


def test_the_record_since_issue_weighs_evenings_by_their_forecasts() -> None:
    table = by_origin()
    chart = charts.track_record(table.iloc[::-1])
    for line, name in zip(chart.figure["data"], ("coverage_50", "coverage_80", "coverage_95"), strict=True):
        hits = (table[name] * table["forecasts"]).to_numpy()
        n = table["forecasts"].to_numpy()
        slow = [hits[max(0, k - 20) : k + 1].sum() / n[max(0, k - 20) : k + 1].sum() for k in range(len(n))]
        np.testing.assert_allclose(line["y"], slow, rtol=1e-5)
    whole = (table["coverage_80"] * table["forecasts"]).sum() / table["forecasts"].sum()
    assert f"held {100 * whole:.2f}% of {table['forecasts'].sum()} outcomes" in chart.summary


def test_the_map_of_lags_says_where_the_weight_is() -> None:
    chart = charts.lag_map(sizes())
    (image,) = chart.figure["data"]
    assert image["z"] == [[3.0, 0.0], [0.0, 4.0]]
    assert "36% of the squared weight is on lag 0, 64% on the channel abs z" in chart.summary


def test_strongest_responses_are_named() -> None:
    summary = charts.frequency_response(responses()).summary
    assert summary == "Strongest response, in sessions: 2D at 2, control at 252."


@settings(max_examples=25)
@given(st.lists(st.floats(0.9, 1.1), min_size=1, max_size=8))
def test_a_leaderboard_counts_what_is_below_one(ratios: list[float]) -> None:
    summary = charts.leaderboard(verdict(ratios)).summary
    assert summary.startswith(f"{sum(ratio < 1 for ratio in ratios[1:])} of {len(ratios)} models have")


def test_charts_load_no_model_library() -> None:
    script = """
import sys
import forecaster.report.charts
assert not {"tensorflow", "keras", "mlflow", "sqlalchemy", "streamlit"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
