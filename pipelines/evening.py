"""An evening of a job: what every step of it is given, and which evening it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from forecaster.errors import SymbolError
from forecaster.job import Job
from forecaster.ledger import Ledger, Run
from forecaster.tracking.saved import registered_name
from pipelines.loading import JobData, job_calendars, load_data

if TYPE_CHECKING:
    from forecaster.tracking import Registry
    from pipelines.backtest import Progress

__all__ = ["Clock", "Evening", "evening_of", "open_ledger", "open_registry", "utc_now"]

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Give the time."""
    return datetime.now(UTC)


@dataclass(frozen=True, eq=False)
class Evening:
    """One evening of one job, as its steps see it.

    Parameters
    ----------
    job : Job
    path : Path
        The job file.
    as_of : date
        The evening: sessions up to it, and nothing else.
    ledger : Ledger
    run : Run
        The evening in the ledger.
    clock : callable
        Gives the time, with its zone.
    progress : callable
        Told of what takes long.
    failures : dict of str to str
        Symbols that failed, and why; filled by the steps.
    """

    job: Job
    path: Path
    as_of: date
    ledger: Ledger
    run: Run
    clock: Clock
    progress: Progress
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Folder of the job file, which paths in it are relative to."""
        return self.path.parent

    @property
    def workspace(self) -> Path:
        """Folder of everything that the job writes."""
        return Path(self.job.workspace)

    @cached_property
    def data(self) -> JobData:
        """The prices up to the evening, loaded when they are first asked for: after the ingest."""
        return load_data(self.job, self.folder, self.job.warm_up + 1, self.as_of)

    @property
    def coverage(self) -> float:
        """Share of the symbols that did not fail, of those that are named or were found in the prices."""
        known = {*self.job.prices.symbols, *self.failures}
        if "data" in vars(self):
            known |= {*self.data.prices.frames, *self.data.panel.symbols}
        return 1 - len(self.failures) / len(known) if known else 1.0

    @cached_property
    def registry(self) -> Registry:
        """The registry of the job's models, whose aliases are resolved once; MLflow is slow to import."""
        return open_registry(self.job)


def open_registry(job: Job) -> Registry:
    """Open the registry of a job's models."""
    from forecaster.tracking import Registry

    return Registry(Path(job.workspace), registered_name(job))


def open_ledger(job: Job, clock: Clock = utc_now) -> Ledger:
    """Open the ledger of a job."""
    return Ledger.open(job.ledger_url, clock=clock)


def evening_of(job: Job, now: datetime) -> date:
    """Give the evening that a moment belongs to.

    Parameters
    ----------
    job : Job
    now : datetime
        With its zone.

    Returns
    -------
    date
        The last finished session of any of the job's symbols; the date in UTC where no calendar is known.
    """
    calendars = job_calendars(job)
    finished = []
    for symbol in filter(job.has_calendar, job.prices.symbols or job.calendars):
        try:
            assert calendars is not None
            finished.append(calendars.last_finished_session(symbol, now))
        except SymbolError:
            continue
    return max(finished, default=now.astimezone(UTC).date())
