"""Data quality: what the checks of the prices found, and what is not used because of it."""

from __future__ import annotations

import pandas as pd

from dashboards import elements, sources
from dashboards.sources import Place
from forecaster.report.style import count

__all__ = ["restated_rows", "show"]

LISTED = 200


def show(place: Place) -> None:
    """Show the page."""
    elements.page(
        "Data quality",
        "What the checks of the prices found. Bad sessions are set aside with a reason.",
    )
    results = sources.results_of(place)
    if results is None:
        elements.note(f"There are no results yet in {place.results}: `forecaster run` makes them.")
        return
    aside = sources.quarantine(place)
    summary = results.summary
    data = summary.values.get("data")
    store = data.get("store") if isinstance(data, dict) else None
    known = str(store.get("mark", "")) if isinstance(store, dict) else ""
    elements.cards(
        [
            ("Symbols", count(len(summary.texts("symbols"))), f"{count(len(results.failures))} left out"),
            ("Findings", count(len(results.findings)), "of the checks, listed below"),
            ("Sessions set aside", count(len(aside)), "in quarantine: not used until accepted"),
            ("Prices", summary.text("data_version")[:12] or "unknown",
             f"known at {known}" if known else "read from the source, not from a price store"),
        ]
    )  # fmt: skip
    elements.section("Findings")
    if len(results.findings):
        elements.table(
            _counted(len(results.findings), "findings"),
            ["symbol", "severity", "check", "sessions", "first", "what was found", "what is done"],
            [
                [row["symbol"], row["severity"], row["code"], count(row["sessions"]), row["first_session"],
                 row["message"], row["action"]]
                for row in results.findings.head(LISTED).to_dict("records")
            ],
            numbers=["sessions"],
        )  # fmt: skip
    else:
        elements.note("The checks found nothing.")
    if len(results.failures):
        elements.section("Symbols left out")
        elements.table(
            _counted(len(results.failures), "symbols"),
            ["symbol", "reason"],
            [[row["symbol"], row["reason"]] for row in results.failures.head(LISTED).to_dict("records")],
        )
    if results.restatements is not None and len(results.restatements):
        elements.section("Restated since", "Numbers that the source changed after forecasts had seen them.")
        rows = restated_rows(results.restatements)
        elements.table(
            _counted(len(rows), "symbols"),
            ["symbol", "sessions", "numbers", "first", "last"],
            rows[:LISTED],
            numbers=["sessions", "numbers"],
        )
    if len(aside):
        elements.section("Quarantine", "`forecaster data accept` or `reject` settles them.")
        columns = [name for name in ("symbol", "session", "close", "codes") if name in aside.columns]
        elements.table(
            _counted(len(aside), "sessions"), columns, aside[columns].head(LISTED).to_numpy().tolist()
        )
    elements.notes(results.missing)


def restated_rows(table: pd.DataFrame) -> list[list[str]]:
    """Sum up restatements by symbol, the most sessions first."""
    found = [
        (part["session"].nunique(), str(symbol), len(part), part["session"].min(), part["session"].max())
        for symbol, part in table.groupby("symbol")
    ]
    return [
        [symbol, count(sessions), count(numbers), f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}"]
        for sessions, symbol, numbers, first, last in sorted(found, key=lambda one: (-one[0], one[1]))
    ]


def _counted(number: int, what: str) -> str:
    named = what.removesuffix("s") if number == 1 else what
    return f"{count(number)} {named}" + (f", the first {LISTED}" if number > LISTED else "")
