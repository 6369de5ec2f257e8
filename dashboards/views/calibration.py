"""Calibration: whether the intervals hold as many outcomes as they promise."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import streamlit as st

from dashboards import elements, sources
from dashboards.sources import Place
from forecaster.report import charts
from forecaster.report.backtest import Backtest
from forecaster.report.results import Results
from forecaster.report.style import percent
from forecaster.report.tables import COVERAGE_METRICS, HIT_METRICS, scores_of

__all__ = ["coverage_rows", "show"]

COLUMNS = ["horizon", "50% held", "80% held", "95% held", "below the 5% quantile", "below the 1% quantile"]


def coverage_rows(results: Results, model: str) -> list[list[str]]:
    """Write the shares of one model at every horizon, pooled over symbols."""
    pooled = scores_of(results)
    metrics = (*COVERAGE_METRICS, *HIT_METRICS)
    return [
        [charts.sessions(h), *(percent(pooled.get((model, h, metric)), 1) for metric in metrics)]
        for h in results.horizons
    ]


def show(place: Place) -> None:
    """Show the page."""
    elements.page(
        "Calibration",
        "Whether the forecasts of the backtest promise what then happens, and when they did not.",
    )
    results = sources.finished(place)
    elements.section("", sources.made_words(results))
    models = sorted({*results.scores["model"], *results.verdict["model"]} - {""})
    if not models or not results.horizons:
        elements.notes(["The results score no model.", *results.missing])
        return
    left, right = st.columns(2)
    first = models.index(results.champion) if results.champion in models else 0
    model = str(left.selectbox("Model", models, index=first, key="calibration-model"))
    horizon = int(
        right.selectbox("Horizon", results.horizons, key="calibration-horizon", format_func=charts.sessions)
    )
    elements.table("Outcomes inside the intervals, of all symbols", COLUMNS, coverage_rows(results, model),
                   numbers=COLUMNS[1:])  # fmt: skip
    said: list[str] = []
    backtest = sources.backtest_of(place, model, said)
    densities = backtest.pit(model)
    years = backtest.coverage_by_year(model)
    years = years[years["horizon"] == horizon]
    if horizon not in densities.index or not math.isfinite(float(np.sum(densities.loc[horizon]))):
        elements.notes(said or [f"There is no known outcome of {model} at {charts.sessions(horizon)}."])
        return
    elements.section("Where outcomes fell in the forecast")
    elements.chart(charts.pit_histogram(densities.loc[horizon].to_numpy(dtype=float)), "calibration-pit")
    elements.section("Coverage by year")
    elements.chart(charts.coverage_by_year(years), "calibration-years", legend=True)
    regimes = backtest.coverage_by_regime(model)
    regimes = regimes[regimes["horizon"] == horizon]
    if len(regimes):
        elements.section(
            "Coverage by volatility", "Thirds of the origins by the size of the outcomes known before them."
        )
        elements.chart(charts.coverage(regimes), "calibration-regimes", legend=True)
    baseline = results.baselines.get(horizon, "")
    if baseline and baseline != model:
        _gains(place, model, baseline, horizon)
    elements.notes(said)


def _gains(place: Place, model: str, baseline: str, horizon: int) -> None:
    """Show what the model gained on the baseline, year by year."""
    sums = [sources.backtest_of(place, name, []).sums for name in (model, baseline)]
    gains = Backtest(pd.concat(sums, ignore_index=True)).crps_ratio_by_year(model, {horizon: baseline})
    if gains.empty:
        return
    elements.section(f"CRPS against {baseline}, by year")
    ratios = gains["crps_ratio"]
    limits = (float(ratios.min()), float(ratios.max()))
    elements.chart(charts.crps_ratio_by_year(gains, baseline, limits), "calibration-gains")
