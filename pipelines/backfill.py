"""Evenings that were missed, done one after the other; what comes too late is marked so."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from forecaster.errors import JobError
from forecaster.job import Job
from pipelines.daily import Night, daily_job
from pipelines.evening import Clock, utc_now
from pipelines.loading import job_calendars, load_data

if TYPE_CHECKING:
    from pipelines.backtest import Progress

__all__ = ["backfill_job", "evenings"]


def evenings(job: Job, folder: Path, start: date, end: date) -> list[date]:
    """Give the sessions of any symbol of a job from `start` to `end`.

    By the exchange calendars, where every symbol has one; else those that the prices have.

    Raises
    ------
    JobError
        If the dates are not in order.
    """
    if end < start:
        raise JobError(f"--from lies before --to. Received: --from {start} --to {end}")
    calendars, symbols = job_calendars(job), job.prices.symbols
    if calendars is not None and symbols and all(map(job.has_calendar, symbols)):
        found = {day.date() for symbol in symbols for day in calendars.sessions(symbol, start, end)}
        return sorted(found)
    days = load_data(job, folder, job.warm_up + 1).panel.calendar.tolist()
    return [day for day in days if start <= day <= end]


def backfill_job(
    job: Job,
    path: Path,
    start: date,
    end: date,
    progress: Progress,
    *,
    clock: Clock = utc_now,
    wait: float = 0.0,
) -> Iterator[Night]:
    """Do every evening from `start` to `end` that is not done; parameters as of `daily_job`.

    No evening uses a model that was fitted after it. The first one that fails ends it, and it goes on from
    there when it is repeated.

    Yields
    ------
    Night
        As soon as it is done.
    """
    for as_of in evenings(job, path.parent, start, end):
        yield daily_job(job, path, as_of, progress, clock=clock, wait=wait)
