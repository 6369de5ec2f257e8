"""Track record: how the forecasts did since they were issued, beside what the backtest promised."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboards import elements, sources
from dashboards.sources import Place
from forecaster.report import charts
from forecaster.report.results import Results
from forecaster.report.style import count, percent
from forecaster.report.tables import COVERAGE_METRICS, HIT_METRICS, TrackRow, scores_of, track_record

__all__ = ["as_ledger", "nothing_scored", "show", "track_rows"]

COLUMNS = [
    "model", "horizon", "scored", "first origin", "last origin", "mean CRPS", "in the backtest", "50% held",
    "80% held", "95% held", "below the 5% quantile", "below the 1% quantile",
]  # fmt: skip


def track_rows(record: pd.DataFrame, results: Results | None) -> list[list[str]]:
    """Write the track record, a row a model and horizon, with the CRPS that the backtest had."""
    promised = scores_of(results) if results is not None else {}
    return [
        [
            str(row["model"]), str(row["horizon"]), count(row["forecasts"]),
            f"{row['first_origin']:%Y-%m-%d}", f"{row['last_origin']:%Y-%m-%d}",
            percent(row["crps"], 3), percent(promised.get((row["model"], row["horizon"], "crps")), 3),
            percent(row["coverage_50"], 1), percent(row["coverage_80"], 1), percent(row["coverage_95"], 1),
            percent(row["hit_rate_0.05"], 1), percent(row["hit_rate_0.01"], 1),
        ]
        for row in record.to_dict("records")
    ]  # fmt: skip


def as_ledger(rows: list[TrackRow]) -> pd.DataFrame:
    """Give the averages of results as the ledger gives them: the columns that `track_rows` reads."""
    return pd.DataFrame(
        {
            "model": row.model, "horizon": row.horizon, "forecasts": row.forecasts,
            "first_origin": row.first, "last_origin": row.last, "crps": row.crps,
            **dict(zip(COVERAGE_METRICS, row.coverage, strict=True)),
            **dict(zip(HIT_METRICS, row.hits, strict=True)),
        }
        for row in rows
    )  # fmt: skip


def _by_origin(results: Results) -> pd.DataFrame:
    table = results.track_record
    return pd.DataFrame() if table is None else table[(table["forecasts"] > 0) & table["crps"].notna()]


def nothing_scored(place: Place) -> str:
    """Say why a ledger has no score."""
    if not sources.first_error(place) and sources.newest(place).table["late"].all():
        return (
            "No forecast has been scored: the newest ones are all late, issued after the first session that "
            "they forecast had opened, and late ones do not count."
        )
    return "No forecast has been scored yet: outcomes come when their horizon has passed."


def show(place: Place) -> None:
    """Show the page."""
    elements.page(
        "Track record",
        "Forecasts as they were issued, held against what then happened. Late ones do not count.",
    )
    said: list[str] = []
    results = sources.results_of(place)
    record = sources.from_ledger(place, "track_record", said)
    by_origin = sources.from_ledger(place, "track_record_by_origin", said)
    if record.empty and said and results is not None and (rows := track_record(results)):
        # The ledger lies elsewhere, or cannot be read: an evening's folder has a copy of its record.
        said.append(f"This is the track record as {place.results} keeps it.")
        record, by_origin = as_ledger(rows), _by_origin(results)
    if record.empty:
        elements.notes(said or [nothing_scored(place)])
        return
    elements.notes(said)
    elements.table("Averages since issue", COLUMNS, track_rows(record, results), numbers=COLUMNS[1:])
    left, right = st.columns(2)
    model = left.selectbox("Model", sorted(record["model"].unique()), key="track-model")
    horizons = record.loc[record["model"] == model, "horizon"].tolist()
    horizon = right.selectbox("Horizon", horizons, key="track-horizon", format_func=charts.sessions)
    mine = by_origin[(by_origin["model"] == model) & (by_origin["horizon"] == horizon)]
    elements.section(f"Coverage of {model}, {charts.sessions(int(horizon))} ahead")
    elements.chart(charts.track_record(mine), "track-coverage", legend=True)
