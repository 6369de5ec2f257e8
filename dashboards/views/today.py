"""Today: what the last evening did, how fresh the forecasts are, and what asks for attention."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd

from dashboards import elements, sources
from dashboards.sources import Place, late_words
from forecaster.monitoring import is_delivery, remedy
from forecaster.report.style import MISSING, count, day, seconds

__all__ = ["evening_rows", "show", "stale_symbols", "state_of_checks", "step_rows"]

STALE_AFTER = 1
"""Finished sessions without a forecast after which it is said: the last evening may not have run yet."""
STALE_WEEKDAYS = 3
"""The same where the exchange is not known, in weekdays: a long weekend has none."""
LISTED = 30
STATES = {"fail": "✖ fail", "warn": "▲ warn", "ok": "● ok"}


def stale_symbols(table: pd.DataFrame) -> pd.DataFrame:
    """Find the symbols whose newest forecast is older than the newest of all: ``symbol, origin``."""
    last = table.groupby("symbol")["origin"].max()
    behind: pd.DataFrame = last[last < last.max()].sort_values().reset_index()
    return behind


def state_of_checks(alerts: pd.DataFrame) -> pd.DataFrame:
    """Give what each check said last; deliveries of alerts are none."""
    if alerts.empty:
        return alerts
    checks = alerts[~alerts["check"].map(is_delivery)]
    last = checks.groupby("check", sort=False).tail(1)
    rank = last["state"].map({"fail": 0, "warn": 1, "ok": 2}).fillna(0)
    return last.assign(rank=rank).sort_values(["rank", "check"]).drop(columns="rank")


def show(place: Place) -> None:
    """Show the page."""
    elements.page(f"Today: {place.job.name}", "What the last evening did, and what asks for attention.")
    said: list[str] = []
    status = sources.from_ledger(place, "status", said)
    alerts = sources.from_ledger(place, "alerts", said)
    events = sources.from_ledger(place, "model_events", said)
    why = sources.first_error(place)
    table = pd.DataFrame() if why else sources.newest(place).table
    facts: list[tuple[str, str, str]] = []
    if len(status):
        facts.append(_evening(status))
    if why:
        elements.note(why, bad=True)
    else:
        facts += _freshness(place, table, sources.newest(place).source)
    if facts:
        elements.cards(facts)
    elements.section("Checks", "What the monitoring said last, the worst first.")
    checks = state_of_checks(alerts)
    if len(checks):
        elements.table(
            "State of each check",
            ["check", "state", "evening", "reason"],
            [
                [row["check"], STATES.get(row["state"], row["state"]), day(row["as_of"]), row["reason"]]
                for row in checks.to_dict("records")
            ],
        )
    else:
        elements.note("No check has been recorded yet.")
    behind = stale_symbols(table) if len(table) else table
    if len(behind):
        elements.section("Symbols that lag behind", "Their last forecast is older than the newest one.")
        elements.table(
            elements.counted(len(behind), "symbol", LISTED),
            ["symbol", "last forecast from"],
            [[row["symbol"], day(row["origin"])] for row in behind.head(LISTED).to_dict("records")],
        )
    if len(status):
        elements.section("The last evening", "Every attempt at every step, the newest first.")
        elements.table(
            "Steps, times in UTC",
            ["step", "attempt", "state", "began", "seconds", "what there is to say"],
            step_rows(status),
            numbers=["attempt", "seconds"],
        )
        elements.section("Evenings", "The last evenings, the newest first.")
        elements.table(
            "Steps of each evening, by their last attempt",
            ["evening", "done", "failed", "not begun", "what failed"],
            evening_rows(status),
            numbers=["done", "failed", "not begun"],
        )
    if len(events):
        elements.section("Model in use", "Promotions, rollbacks and remedies, the newest first.")
        now = remedy(events)
        if now.fallback is not None:
            elements.note(
                f"In force: the fallback {now.fallback} is issued instead of the champion.", bad=True
            )
        if now.calibrate:
            elements.note(
                "In force: the champion is calibrated adaptively, because coverage broke.", bad=True
            )
        elements.table(
            "Changes of the model",
            ["evening", "event", "model", "version", "reason"],
            [
                [day(row["as_of"]), row["event"], row["model"], row["version"], row["reason"]]
                for row in events.iloc[::-1].head(LISTED).to_dict("records")
            ],
        )
    elements.notes(said)


def _evening(status: pd.DataFrame) -> tuple[str, str, str]:
    """Sum up the last evening, and say which of its steps failed."""
    last = status[status["as_of"] == status["as_of"].max()]
    final = last.groupby("step", sort=False).tail(1)
    failed = final["step"][final["status"] == "failed"].tolist()
    done = int(final["status"].isin(["done", "skipped"]).sum())
    if failed:
        elements.note(
            f"The last evening is not whole: {', '.join(failed)} failed. The reason stands below.", bad=True
        )
    word = f"{len(failed)} failed" if failed else "nothing failed"
    return "Last evening", day(last["as_of"].iloc[0]), f"{done} of {len(final)} steps done, {word}"


def _freshness(place: Place, table: pd.DataFrame, source: str) -> list[tuple[str, str, str]]:
    """Sum up the newest forecasts, and say when they are old."""
    age = sources.age_of(place.job, table, datetime.now(UTC))
    if age.sessions > (STALE_AFTER if age.known else STALE_WEEKDAYS):
        elements.note(
            f"These forecasts are old: the last origin is {day(age.origin)}, {age.words} ago. "
            "New prices, or a new evening, are missing.",
            bad=True,
        )
    if late := late_words(table):
        elements.note(late, bad=True)
    horizons = ", ".join(str(horizon) for horizon in sorted(table["horizon"].unique()))
    models = sorted(table["model"].unique())
    named = ", ".join(models[:3]) + (f" and {len(models) - 3} more" if len(models) > 3 else "")
    return [
        ("Newest forecasts", day(table["origin"].max()), f"{age.words} ago, {source}"),
        ("Symbols", count(table["symbol"].nunique()), elements.counted(len(table), "forecast")),
        ("Models", named, f"horizons {horizons}"),
    ]


def step_rows(status: pd.DataFrame) -> list[list[str]]:
    """Write the steps of the last evening, the newest first; see `forecaster.ledger.Ledger.status`."""
    rows = []
    last = status[status["as_of"] == status["as_of"].max()]
    for row in last.iloc[::-1].to_dict("records"):
        took = MISSING
        if not pd.isna(row["started_at"]) and not pd.isna(row["finished_at"]):
            took = seconds((row["finished_at"] - row["started_at"]).total_seconds())
        began = MISSING if pd.isna(row["started_at"]) else f"{row['started_at']:%Y-%m-%d %H:%M}"
        said = "" if pd.isna(row["reason"]) else str(row["reason"])
        rows.append([str(row["step"]), str(row["attempt"]), str(row["status"]), began, took, said])
    return rows


def evening_rows(status: pd.DataFrame) -> list[list[str]]:
    """Sum up each evening by the last attempt at each of its steps, the newest evening first."""
    rows = []
    for as_of, steps in status.groupby("as_of"):
        states = steps.groupby("step", sort=False).tail(1)
        failed = states["step"][states["status"] == "failed"].tolist()
        done = int(states["status"].isin(["done", "skipped"]).sum())
        pending = int((states["status"] == "pending").sum())
        rows.append([day(as_of), count(done), count(len(failed)), count(pending), ", ".join(failed)])
    return rows[::-1]
