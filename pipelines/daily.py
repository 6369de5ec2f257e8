"""An evening from prices to track record: its steps in order, each done once, whatever process dies."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from forecaster.errors import ForecasterError, LedgerBusyError
from forecaster.job import Job
from forecaster.ledger import Step, reason_of
from pipelines.alerts import record_failure, record_success, send_alerts
from pipelines.evening import Clock, Evening, open_ledger, utc_now
from pipelines.provenance import code_version

if TYPE_CHECKING:
    from pipelines.backtest import Progress

__all__ = ["STEPS", "Night", "daily_job", "run_steps"]


def _ingest(evening: Evening, step: Step) -> None:
    from pipelines.ingest import ingest_step

    ingest_step(evening, step)


def _train(evening: Evening, step: Step) -> None:
    from pipelines.train import train_step

    train_step(evening, step)


def _forecast(evening: Evening, step: Step) -> None:
    from pipelines.forecast import forecast_step

    forecast_step(evening, step)


def _score(evening: Evening, step: Step) -> None:
    from pipelines.score import score_step

    score_step(evening, step)


def _report(evening: Evening, step: Step) -> None:
    from pipelines.report import report_step

    report_step(evening, step)


def _monitor(evening: Evening, step: Step) -> None:
    from pipelines.monitor import monitor_step

    monitor_step(evening, step)


def _tidy(evening: Evening, step: Step) -> None:
    from pipelines.tidy import tidy_step

    tidy_step(evening, step)


STEPS: Mapping[str, Callable[[Evening, Step], None]] = {
    "ingest": _ingest,
    "train": _train,
    "forecast": _forecast,
    "score": _score,
    "report": _report,
    "monitor": _monitor,
    "tidy": _tidy,
}
"""The steps of an evening in their order; each imports what it needs when it is done."""

MONITOR = "monitor"
"""The step that is also done after another one raised."""


@dataclass(frozen=True)
class Night:
    """What became of an evening.

    Parameters
    ----------
    as_of : date
    steps : dict of str to str
        Of each step: ``done``, ``skipped`` (there was nothing to do), ``failed`` (some of it; the next
        attempt repeats it) or ``before`` (an earlier attempt did it).
    failures : dict of str to str
        Symbols that failed, and why.
    coverage : float
        Share of the symbols that did not fail.
    """

    as_of: date
    steps: dict[str, str]
    failures: dict[str, str]
    coverage: float


def daily_job(
    job: Job,
    path: Path,
    as_of: date,
    progress: Progress,
    *,
    clock: Clock = utc_now,
    wait: float = 0.0,
) -> Night:
    """Do an evening, or what is left of it.

    Parameters
    ----------
    job : Job
    path : Path
        The job file.
    as_of : date
        The evening.
    progress : callable
        Told of what takes long.
    clock : callable
        Gives the time, by which forecasts are late or not.
    wait : float
        Seconds to wait for another process that does the same step.

    Raises
    ------
    LedgerBusyError
        If another process does the same evening.
    ForecasterError
        What ended a step; the ledger has it as the step's reason, and the next attempt goes on from there.
    """
    return run_steps(job, path, as_of, tuple(STEPS), progress, clock=clock, wait=wait)


def run_steps(
    job: Job,
    path: Path,
    as_of: date,
    names: tuple[str, ...],
    progress: Progress,
    *,
    clock: Clock = utc_now,
    wait: float = 0.0,
) -> Night:
    """Do some steps of an evening, in the order given; parameters as of `daily_job`."""
    with open_ledger(job, clock) as ledger:
        run = ledger.start_run(
            job.name, job_hash=job.hash, yaml=path.read_text(encoding="utf-8"), as_of=as_of, steps=names
        )
        evening = Evening(job, path, as_of, ledger, run, clock, progress)
        try:
            return _work(evening, names, wait)
        finally:
            send_alerts(job, ledger, as_of)


def _work(evening: Evening, names: tuple[str, ...], wait: float) -> Night:
    """Do the steps; after one that others need has raised, only the monitor, so that somebody hears of it."""
    became: dict[str, str] = {}
    raised: Exception | None = None
    stopped = False
    for number, name in enumerate(names):
        if stopped and name != MONITOR:
            continue
        evening.progress(name, number, len(names))
        try:
            became[name] = _done(evening, name, wait, stopped)
        except LedgerBusyError:
            raise
        except Exception as error:
            _tell(evening, name, reason_of(error))
            raised = raised or error
            stopped = stopped or not _dispensable(evening, name)
    # What cannot be recorded now is no reason to lose what is done.
    with contextlib.suppress(ForecasterError):
        well = [name for name, how in became.items() if how != "failed"]
        record_success(evening.job, evening.ledger, evening.as_of, well)
    if raised is not None:
        raise raised
    evening.progress("done", len(names), len(names))
    return Night(evening.as_of, became, dict(evening.failures), evening.coverage)


def _done(evening: Evening, name: str, wait: float, stopped: bool) -> str:
    with evening.run.step(name, code_version=code_version(), wait=wait) as step:
        if step is None:
            return "before"
        STEPS[name](evening, step)
        if stopped:
            step.fail("; ".join(filter(None, (step.reason, "the evening is not finished"))))
    if step.status == "failed" and not stopped:
        _tell(evening, name, step.reason)
    return step.status


def _dispensable(evening: Evening, name: str) -> bool:
    """Whether an evening can go on without a step: without a training, where there is a champion."""
    if name != "train":
        return False
    try:
        return evening.registry.aliased("champion") is not None
    except ForecasterError:
        return False


def _tell(evening: Evening, name: str, reason: str) -> None:
    with contextlib.suppress(ForecasterError):
        record_failure(evening.job, evening.ledger, evening.as_of, name, reason)
