"""Leaderboard: every model of the backtest against the best baseline, with how sure that is."""

from __future__ import annotations

import math

import streamlit as st

from dashboards import elements, sources
from dashboards.sources import Place
from forecaster.report import charts
from forecaster.report.results import Results
from forecaster.report.style import MISSING, VERDICT_MARKS, count, p_value, percent, ratio, seconds
from forecaster.report.tables import LeaderboardRow, leaderboard
from forecaster.report.words import tried

__all__ = ["leaderboard_rows", "show"]

COLUMNS = [
    "model", "what it is", "CRPS ratio", "verdict", "p-value", "90% set", "detectable", "skill", "80% held",
    "95% held", "weights", "fit, s",
]  # fmt: skip
NUMBERS = ["CRPS ratio", "p-value", "detectable", "80% held", "95% held", "weights", "fit, s"]


def leaderboard_rows(rows: list[LeaderboardRow], index: int, champion: str) -> list[list[str]]:
    """Write the leaderboard of one horizon, the lowest CRPS first, models without one last."""

    def place(row: LeaderboardRow) -> tuple[float, str]:
        value = row.cells[index].crps_ratio
        return (value if math.isfinite(value) else math.inf, row.model)

    written = []
    for row in sorted(rows, key=place):
        cell = row.cells[index]
        verdict = f"{VERDICT_MARKS.get(cell.verdict, ('', ''))[0]} {cell.verdict}".strip()
        told = [
            f"{row.model} ★" if row.model == champion else row.model, row.description or row.kind,
            ratio(cell.crps_ratio), verdict, p_value(cell.p_value), cell.confidence_set,
            percent(cell.smallest_detectable), cell.skill, percent(cell.coverage_80, 1),
            percent(cell.coverage_95, 1), count(row.parameters), seconds(row.fit_seconds),
        ]  # fmt: skip
        written.append([text or MISSING for text in told])
    return written


def show(place: Place) -> None:
    """Show the page."""
    elements.page(
        "Leaderboard",
        "The backtest: every model scored on the same symbols and days, the CRPS as a ratio to the best "
        "baseline; lower is better.",
    )
    results = sources.finished(place)
    elements.section("", sources.made_words(results))
    if results.horizons:
        _compared(results)
    else:
        elements.note("The results compare no models.")
    elements.notes(results.missing)


def _compared(results: Results) -> None:
    if results.champion:
        reason = results.summary.text("champion_reason")
        elements.note(f"Champion ★ {results.champion}{f': {reason}' if reason else ''}")
    horizons = list(results.horizons)
    horizon = st.radio(
        "Horizon", horizons, key="leaderboard-horizon", format_func=charts.sessions, horizontal=True
    )
    verdict = results.verdict[results.verdict["horizon"] == horizon].sort_values("crps_ratio")
    if verdict["crps_ratio"].notna().any():
        elements.chart(charts.leaderboard(verdict), "leaderboard-ratios")
    else:
        elements.note("No model has a CRPS ratio at this horizon.")
    rows = leaderboard(results)
    elements.note(tried(results, rows))
    elements.table(
        f"Models at {charts.sessions(int(horizon))}, the best baseline: "
        f"{results.baselines.get(int(horizon), 'not named')}",
        COLUMNS,
        leaderboard_rows(rows, horizons.index(horizon), results.champion),
        numbers=NUMBERS,
    )
