"""Forecasts of what comes after the last session: by every model into a folder, or issued to the ledger."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from forecaster.job import Job
from forecaster.walkforward import forecast_table, latest_table, tail_table
from forecaster.windows import Panel, Windows
from pipelines.backtest import Progress
from pipelines.loading import JobData, job_calendars, load_data
from pipelines.provenance import code_version
from pipelines.results import staged, write_json, write_quality, write_table
from pipelines.train import fit_model

if TYPE_CHECKING:
    from forecaster.calendars import Calendars
    from forecaster.ledger import Step
    from pipelines.champion import InUse
    from pipelines.evening import Evening

RECENT = 60
"""Sessions from which the trading days of a symbol without a calendar are taken."""

__all__ = ["first_opening", "forecast_job", "forecast_step", "issue_table"]


def forecast_job(
    job: Job,
    folder: Path,
    as_of: date | None,
    output: Path,
    progress: Progress,
    known_at: datetime | None = None,
) -> JobData:
    """Fit every model on the evening of ``as_of`` and write its forecasts.

    Nothing after ``as_of`` is used: the prices are cut there before they are checked, and the outcomes in the
    table are unknown (NaN).

    Parameters
    ----------
    job : Job
    folder : Path
        Folder of the job file.
    as_of : date or None
        The evening; the last session there is where it is None. Each symbol is forecast from its last session
        up to then.
    output : Path
        Folder for ``forecasts.parquet``, ``tails.parquet`` (of the models that state them),
        ``provenance.json`` and what was found about the prices.
    progress : callable
        Told of every model.
    known_at : datetime, optional
        Use what the price store knew at that time; all that it knows by default.
    """
    data = load_data(job, folder, job.warm_up + 1, as_of, known_at)
    panel = data.panel
    origins = Windows(panel, panel.last_rows(), job.horizons)
    session = panel.calendar[-1]
    tables, tails = [], []
    with staged(output) as staging:
        for number, spec in enumerate(job.models):
            progress(spec.name, number, len(job.models))
            model = fit_model(job, spec.name, panel, np.datetime64(session, "D"))
            forecast = model.predict(origins)
            table = forecast_table(spec.name, origins, forecast)
            tables.append(table)
            keys = table[["model", "symbol", "origin", "horizon"]]
            tails.append(pd.concat([keys, tail_table(forecast)], axis=1).dropna())
        progress("done", len(job.models), len(job.models))
        write_table(pd.concat(tables, ignore_index=True), staging / "forecasts.parquet")
        write_table(pd.concat(tails, ignore_index=True), staging / "tails.parquet")
        write_quality(data.prices, staging)
        write_json(data.provenance(job), staging / "provenance.json")
    return data


def forecast_step(evening: Evening, step: Step) -> None:
    """Issue the forecasts of an evening to the ledger, by the champion and the best baseline.

    Each symbol is forecast from its last session up to the evening, unless it was before. The step ends as
    failed, though the rest is issued, where a symbol lacks its session of the evening or no model could be
    used as registered; a repeat then issues what is still missing.
    """
    from pipelines.champion import load_in_use

    job, data, ledger = evening.job, evening.data, evening.ledger
    evening.failures.update(data.prices.failures)
    evening.failures.update(_behind(evening))
    panel = data.panel
    origins = Windows(panel, panel.last_rows(), job.horizons)
    sessions = origins.sessions.astype(object).tolist()
    # Day by day: the last session of a symbol that is traded no more lies years back.
    issued = {day: set(ledger.forecasts(job.name, start=day, end=day)["symbol"]) for day in set(sessions)}
    fresh = [
        symbol not in issued[day] for symbol, day in zip(origins.symbols.tolist(), sessions, strict=True)
    ]
    missing = "; ".join(f"{symbol}: {reason}" for symbol, reason in evening.failures.items())
    if not any(fresh):
        step.note(data_version=data.data_version)
        if missing:
            step.fail(missing)
        else:
            step.skip("no symbol has a session that was not forecast before")
        return
    models, trouble = load_in_use(evening)
    table = pd.concat([issue_table(each, origins, evening) for each in models], ignore_index=True)
    # The champion sees every symbol, also those that were forecast before.
    table = table[np.tile(np.repeat(fresh, len(job.horizons)), len(models))].reset_index(drop=True)
    ledger.issue(
        evening.run,
        table,
        data_version=data.data_version,
        known_at=data.known.mark.to_pydatetime() if data.known else None,
        code_version=code_version(),
    )
    names = ", ".join(f"{each.name} {each.version}" for each in models)
    late = int(table["late"].sum())
    said = [*trouble, *([f"{late} of {len(table)} forecasts are late"] if late else [])]
    step.note(
        data_version=data.data_version, model_version=models[0].version, reason="; ".join([names, *said])
    )
    if missing:
        step.fail("; ".join([names, *said, missing]))


def issue_table(use: InUse, origins: Windows, evening: Evening) -> pd.DataFrame:
    """Forecast, and lay the forecasts out as the ledger takes them."""
    table = latest_table(use.name, origins, use.model.predict(origins))
    table.insert(1, "model_version", use.version)
    calendars, now = job_calendars(evening.job), evening.clock()
    late = [now >= first_opening(evening, origins.panel, row, calendars) for row in origins.rows.tolist()]
    table["late"] = np.repeat(np.array(late, dtype=bool), len(origins.horizons))
    return table


def first_opening(evening: Evening, panel: Panel, row: int, calendars: Calendars | None) -> datetime:
    """Give the moment at which the first session after an origin opens.

    Where the calendar of a symbol is not known, that is midnight in UTC of the next day of the week on which
    it has traded lately: rather too early than too late.
    """
    number, job = int(panel.series_of(row)), evening.job
    symbol = panel.symbols[number]
    origin = panel.sessions[row].astype(date)
    traded = tuple(job.portfolios.get(symbol, (symbol,)))
    if calendars is not None and all(map(job.has_calendar, traded)):
        # The outcome of a portfolio begins with the first of its members.
        return min(calendars.next_open(each, origin) for each in traded)
    part = panel.parts[number]
    recent = panel.sessions[max(part.start, row - RECENT) : row + 1]
    weekdays = set(pd.DatetimeIndex(recent).day_of_week)
    following = next(
        day for day in (origin + timedelta(days=n) for n in range(1, 8)) if day.weekday() in weekdays
    )
    return datetime.combine(following, time(), UTC)


def _behind(evening: Evening) -> dict[str, str]:
    """Symbols whose last session is not the last one that their exchange had up to the evening."""
    calendars = job_calendars(evening.job)
    if calendars is None:
        return {}
    found = {}
    for symbol, frame in evening.data.prices.frames.items():
        if not evening.job.has_calendar(symbol):
            continue
        last = frame.index[-1].date()
        missed = calendars.known_sessions(symbol, last + timedelta(days=1), evening.as_of)
        if len(missed):
            found[symbol] = f"its last session is {last}; {len(missed)} up to {evening.as_of} are missing"
    return found
