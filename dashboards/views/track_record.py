"""Track record: how the forecasts did since they were issued, beside what the backtest promised."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboards import elements, sources
from dashboards.sources import Place
from forecaster.report import charts
from forecaster.report.results import Results
from forecaster.report.style import count, percent
from forecaster.report.tables import scores_of

__all__ = ["show", "track_rows"]

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


def show(place: Place) -> None:
    """Show the page."""
    elements.page(
        "Track record",
        "Forecasts as they were issued, held against what then happened. Late ones do not count.",
    )
    said: list[str] = []
    record = sources.from_ledger(place, "track_record", said)
    if record.empty:
        elements.notes(
            said or ["No forecast has been scored yet: outcomes come when their horizon has passed."]
        )
        return
    elements.table(
        "Averages since issue", COLUMNS, track_rows(record, sources.results_of(place)), numbers=COLUMNS[1:]
    )
    left, right = st.columns(2)
    model = left.selectbox("Model", sorted(record["model"].unique()), key="track-model")
    horizons = record.loc[record["model"] == model, "horizon"].tolist()
    horizon = right.selectbox("Horizon", horizons, key="track-horizon", format_func=charts.sessions)
    by_origin = sources.from_ledger(place, "track_record_by_origin", said)
    mine = by_origin[(by_origin["model"] == model) & (by_origin["horizon"] == horizon)]
    elements.section(f"Coverage of {model}, {charts.sessions(int(horizon))} ahead")
    elements.chart(charts.track_record(mine), "track-coverage", legend=True)
    elements.notes(said)
