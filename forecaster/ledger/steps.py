"""Runs and their steps: each is done once, by one process at a time, and what went wrong stays visible."""

from __future__ import annotations

import contextlib
import datetime
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import pandas as pd
from sqlalchemy import Connection, Row, select, update

from forecaster.errors import ForecasterError, LedgerBusyError, LedgerError, ParameterError
from forecaster.ledger.database import Database, first_or_insert
from forecaster.ledger.processes import Holder, alive, this_process
from forecaster.ledger.tables import job_files, jobs, runs, steps
from forecaster.redaction import one_line

__all__ = ["LEASE", "Run", "Step", "reason_of", "run_status"]

Clock = Callable[[], datetime.datetime]

LEASE = datetime.timedelta(minutes=2)
"""How long a process on another machine may be silent before its step is taken over."""

_POLL = 0.2
_LONGEST_REASON = 2000


class Step:
    """A step that this process is doing.

    Parameters
    ----------
    database : Database
    step_id : int
        Row of the attempt.
    attempt : int
        1 for the first.
    """

    def __init__(self, database: Database, step_id: int, attempt: int) -> None:
        self.attempt = attempt
        self._database = database
        self._id = step_id
        self._status: Literal["done", "skipped", "failed"] = "done"
        self._noted: dict[str, str] = {}

    def note(
        self, *, data_version: str | None = None, model_version: str | None = None, reason: str | None = None
    ) -> None:
        """Record what the step works with, or what there is to say about it, when it ends."""
        given = {"data_version": data_version, "model_version": model_version, "reason": reason}
        self._noted |= {name: value for name, value in given.items() if value is not None}

    def skip(self, reason: str) -> None:
        """Say that there was nothing to do, and why; the step counts as done."""
        self._status = "skipped"
        self.note(reason=reason)

    def fail(self, reason: str) -> None:
        """Say that some of it failed, though the rest is done: it ends as failed, and can be repeated."""
        self._status = "failed"
        self.note(reason=reason)

    def _end(self, clock: Clock, failure: str | None) -> None:
        if "reason" in self._noted:
            self._noted["reason"] = one_line(self._noted["reason"])[:_LONGEST_REASON]
        values: dict[str, Any] = {**self._noted, "finished_at": clock(), "lease_until": None}
        values["status"] = self._status if failure is None else "failed"
        if failure is not None:
            values["reason"] = failure
        with self._database.writing() as connection:
            changed = connection.execute(
                update(steps).where(steps.c.id == self._id, steps.c.status == "running").values(values)
            ).rowcount
        if not changed:
            raise LedgerError(
                "a process that is silent for longer than its lease loses its step, and another took this "
                f"one over: attempt {self.attempt} was ended from elsewhere; see the status"
            )

    @property
    def status(self) -> Literal["done", "skipped", "failed"]:
        """How it will end, or has ended, unless its body raises."""
        return self._status

    @property
    def reason(self) -> str:
        """What was said about it so far."""
        return self._noted.get("reason", "")

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Renew the lease from a thread of its own while the step is worked on."""
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(LEASE.total_seconds() / 4):
                # A ledger that is busy for a moment: the next time comes before the lease ends.
                with contextlib.suppress(LedgerError), self._database.writing() as connection:
                    until = self._database.clock(connection) + LEASE
                    connection.execute(
                        update(steps)
                        .where(steps.c.id == self._id, steps.c.status == "running")
                        .values(lease_until=until)
                    )

        thread = threading.Thread(target=renew, name="ledger-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class Run:
    """One evening of one job.

    Parameters
    ----------
    database : Database
    clock : callable
        Gives the time that is recorded.
    run_id, job_id, job_file_id : int
        Rows of the ledger.
    job : str
        Name of the job.
    as_of : date
        The session.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        run_id: int,
        job_id: int,
        job_file_id: int,
        job: str,
        as_of: datetime.date,
    ) -> None:
        self.id = run_id
        self.job_id = job_id
        self.job_file_id = job_file_id
        self.job = job
        self.as_of = as_of
        self._database = database
        self._clock = clock

    @classmethod
    def start(
        cls,
        database: Database,
        clock: Clock,
        job: str,
        job_hash: str,
        yaml: str,
        as_of: datetime.date,
        names: Sequence[str],
    ) -> Run:
        """Begin an evening, or go on with it; see `forecaster.ledger.Ledger.start_run`."""
        if len(set(names)) < len(names):
            raise ParameterError(f"the steps of a run have distinct names. Received: {', '.join(names)}")
        with database.writing() as connection:
            job_id = first_or_insert(connection, jobs, {"name": job})
            file_id = first_or_insert(
                connection, job_files, {"job_id": job_id, "hash": job_hash}, yaml=yaml, added_at=clock()
            )
            run_id = first_or_insert(
                connection, runs, {"job_id": job_id, "as_of": as_of}, attempts=0, started_at=clock()
            )
            connection.execute(update(runs).where(runs.c.id == run_id).values(attempts=runs.c.attempts + 1))
            for name in names:
                key = {"run_id": run_id, "name": name, "attempt": 1}
                first_or_insert(connection, steps, key, status="pending")
        return cls(database, clock, run_id, job_id, file_id, job, as_of)

    @contextlib.contextmanager
    def step(self, name: str, *, code_version: str, wait: float = 0.0) -> Iterator[Step | None]:
        """Do a step, unless it is done: ``with run.step("score", ...) as step: if step: ...``.

        The step ends as done, as skipped where `Step.skip` was called, or as failed where the body raises,
        with the error as its reason. A process that died in the middle of it is recognised, and its attempt
        is recorded as failed: on the same machine at once, by its process id and when it began; on another
        when its lease has not been renewed for two minutes.

        Parameters
        ----------
        name : str
            Name of the step.
        code_version : str
            What does it.
        wait : float
            Seconds to wait for another process that does the same step.

        Yields
        ------
        Step or None
            None where the step was done or skipped before, also by a process that was waited for.

        Raises
        ------
        LedgerBusyError
            If another process is still doing it after the wait.
        LedgerError
            If the step was taken over from this process, which had been silent for longer than its lease.
        """
        step = self._claimed(name, code_version, wait)
        if step is None:
            yield None
            return
        with step._kept():
            try:
                yield step
            except BaseException as error:
                # What went wrong matters more than that it cannot be recorded.
                with contextlib.suppress(LedgerError):
                    step._end(self._clock, reason_of(error))
                raise
        step._end(self._clock, None)

    def _claimed(self, name: str, code_version: str, wait: float) -> Step | None:
        deadline = time.monotonic() + wait
        while True:
            with self._database.writing() as connection:
                last = self._last(connection, name)
                if last is not None and last.status in ("done", "skipped"):
                    return None
                held = _held(self._database, connection, last) if last is not None else None
                if held is None:
                    return self._claim(connection, name, code_version, last)
            if time.monotonic() >= deadline:
                raise LedgerBusyError(
                    f"one process at a time does a step: {name!r} of {self.job} for {self.as_of} is being "
                    f"done by {held}; wait until it ends, and repeat"
                )
            time.sleep(_POLL)

    def _last(self, connection: Connection, name: str) -> Row[Any] | None:
        return connection.execute(
            select(steps)
            .where(steps.c.run_id == self.id, steps.c.name == name)
            .order_by(steps.c.attempt.desc())
            .limit(1)
        ).first()

    def _claim(self, connection: Connection, name: str, code_version: str, last: Row[Any] | None) -> Step:
        holder = this_process()
        values = {
            "status": "running",
            "started_at": self._clock(),
            "code_version": code_version,
            "host": holder.host,
            "pid": holder.pid,
            "process": holder.process,
            "lease_until": self._database.clock(connection) + LEASE,
        }
        if last is not None and last.status == "pending":
            connection.execute(update(steps).where(steps.c.id == last.id).values(values))
            return Step(self._database, int(last.id), int(last.attempt))
        attempt = 1 if last is None else last.attempt + 1
        if last is not None and last.status == "running":
            connection.execute(
                update(steps)
                .where(steps.c.id == last.id)
                .values(status="failed", finished_at=self._clock(), reason=_died(last), lease_until=None)
            )
        key = {"run_id": self.id, "name": name, "attempt": attempt}
        return Step(self._database, first_or_insert(connection, steps, key, **values), attempt)


def _held(database: Database, connection: Connection, row: Row[Any]) -> str | None:
    """Say who is doing a step; None where nobody is, or nobody who lives."""
    if row.status != "running":
        return None
    lives = alive(Holder(row.host, row.pid, row.process))
    if lives is None:
        lives = database.clock(connection) < row.lease_until
    if not lives:
        return None
    return f"process {row.pid} on {row.host} since {row.started_at:%Y-%m-%d %H:%M:%S} UTC"


def _died(row: Row[Any]) -> str:
    return f"process {row.pid} on {row.host} died in the middle of it"


def reason_of(error: BaseException) -> str:
    """Say in one line what went wrong, as the status of a step does: without secrets, never nothing."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    lines = str(error).strip().splitlines()
    said = lines[0] if lines else ""
    kind = "" if isinstance(error, ForecasterError) and said else type(error).__name__
    return one_line(": ".join(part for part in (kind, said) if part))[:_LONGEST_REASON]


def run_status(
    database: Database, job: str | None, evenings: int, as_of: datetime.date | None
) -> pd.DataFrame:
    """Every attempt at every step of the last evenings; see `forecaster.ledger.Ledger.status`."""
    with database.reading() as connection:
        wanted = select(runs.c.as_of).join(jobs).distinct().order_by(runs.c.as_of.desc()).limit(evenings)
        if as_of is not None:
            wanted = wanted.where(runs.c.as_of <= as_of)
        query = select(jobs.c.name.label("job"), runs.c.as_of, runs.c.attempts.label("starts"), steps)
        query = query.select_from(steps).join(runs).join(jobs)
        if job is not None:
            wanted, query = wanted.where(jobs.c.name == job), query.where(jobs.c.name == job)
        sessions = connection.execute(wanted).scalars().all()
        query = query.where(runs.c.as_of.in_(sessions))
        rows = connection.execute(query.order_by(jobs.c.name, runs.c.as_of, steps.c.id)).all()
        dead = {
            row.id for row in rows if row.status == "running" and _held(database, connection, row) is None
        }
        values = [tuple(row._mapping[name] for name in ("id", *_STATUS_COLUMNS)) for row in rows]
        table = pd.DataFrame(values, columns=["id", *_STATUS])
        table["as_of"] = pd.to_datetime(table["as_of"]).astype("datetime64[ms]")
        # Also where there is no row, and where nothing has ended.
        for name in ("started_at", "finished_at"):
            table[name] = pd.to_datetime(table[name], utc=True).astype("datetime64[us, UTC]")
        died = table["id"].isin(dead)
        table.loc[died, "reason"] = [_died(row) for row in rows if row.id in dead]
        table.loc[died, "status"] = "failed"
        return table.drop(columns="id")


_STATUS_COLUMNS = (
    "job", "as_of", "starts", "name", "attempt", "status", "started_at", "finished_at", "reason",
    "code_version", "data_version", "model_version", "host", "pid",
)  # fmt: skip
_STATUS = tuple("step" if name == "name" else name for name in _STATUS_COLUMNS)
