"""Data quality: what the checks of the prices found, and what is not used because of it."""

from __future__ import annotations

import pandas as pd

from dashboards import elements, sources
from dashboards.sources import Place
from forecaster.report.style import MISSING, count, day, price
from forecaster.report.tables import restated_symbols

__all__ = ["show"]

LISTED = 200


def show(place: Place) -> None:
    """Show the page."""
    elements.page(
        "Data quality",
        "What the checks of the prices found. Bad sessions are set aside with a reason.",
    )
    results = sources.newest_results(place)
    elements.section("", sources.made_words(results))
    summary, aside = results.summary, results.quarantine
    known = summary.text("data", "store", "known_at")

    def number(table: pd.DataFrame, file: str) -> str:
        return MISSING if results.trouble(file) else count(len(table))

    elements.cards(
        [
            ("Symbols", count(len(summary.texts("symbols"))),
             f"{number(results.failures, 'failures.csv')} left out"),
            ("Findings", number(results.findings, "findings.csv"), "of the checks, listed below"),
            ("Sessions set aside", number(aside, "quarantine.csv"), "in quarantine: not used until accepted"),
            ("Prices", summary.text("data_version")[:12] or "unknown",
             f"known at {known}" if known else "read from the source, not from a price store"),
        ]
    )  # fmt: skip
    elements.section("Findings")
    if len(results.findings):
        elements.table(
            elements.counted(len(results.findings), "finding", LISTED),
            ["symbol", "severity", "check", "sessions", "first", "what was found", "what is done"],
            [
                [row["symbol"], row["severity"], row["code"], count(row["sessions"]), row["first_session"],
                 row["message"], row["action"]]
                for row in results.findings.head(LISTED).to_dict("records")
            ],
            numbers=["sessions"],
        )  # fmt: skip
    elif not results.trouble("findings.csv"):
        elements.note("The checks found nothing.")
    if len(results.failures):
        elements.section("Symbols left out")
        elements.table(
            elements.counted(len(results.failures), "symbol", LISTED),
            ["symbol", "reason"],
            [[row["symbol"], row["reason"]] for row in results.failures.head(LISTED).to_dict("records")],
        )
    if restated := restated_symbols(results):
        elements.section("Restated since", "Numbers that the source changed after forecasts had seen them.")
        elements.table(
            elements.counted(len(restated), "symbol", LISTED),
            ["symbol", "sessions", "numbers", "first", "last"],
            [
                [row.symbol, count(row.sessions), count(row.numbers), day(row.first), day(row.last)]
                for row in restated[:LISTED]
            ],
            numbers=["sessions", "numbers"],
        )
    if len(aside):
        elements.section("Quarantine", "`forecaster data accept` or `reject` settles them.")
        elements.table(
            elements.counted(len(aside), "session", LISTED),
            ["symbol", "session", "close", "codes"],
            [
                [row["symbol"], day(row["session"]), price(row["close"]), row["codes"]]
                for row in aside.head(LISTED).to_dict("records")
            ],
            numbers=["close"],
        )  # fmt: skip
    elements.notes(results.missing)
