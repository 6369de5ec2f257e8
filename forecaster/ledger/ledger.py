"""The ledger: what was done each evening, what was forecast, and what then happened."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd
from sqlalchemy import Select, Table, insert, select

from forecaster.errors import LedgerError
from forecaster.ledger import copies, record
from forecaster.ledger.database import Database, first_or_insert
from forecaster.ledger.forecasts import Issued, issue, read_forecasts, read_latest, read_seen
from forecaster.ledger.record import Scored
from forecaster.ledger.steps import Run, run_status
from forecaster.ledger.tables import alerts, issues, job_files, jobs, model_events

__all__ = ["Ledger"]

WAIT = 30.0
"""Seconds to wait for another process that writes."""


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Ledger:
    """A ledger in SQLite or PostgreSQL; make one by `Ledger.open`.

    Every write is one transaction: a process that dies, or a disk that is full, leaves no half of it.
    Whatever is recorded twice is recorded once, and refused where it differs; what was recorded is never
    changed, which the database itself enforces.

    Parameters
    ----------
    database : Database
    clock : callable
        Gives the time that is recorded.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime.datetime]) -> None:
        self._database = database
        self._clock = clock

    @classmethod
    def open(
        cls,
        url: str | Path,
        *,
        wait: float = WAIT,
        clock: Callable[[], datetime.datetime] = _now,
    ) -> Self:
        """Open a ledger. A new file, or an empty database, becomes one; an older one is brought up to date.

        Parameters
        ----------
        url : str or Path
            A path, ``sqlite:///FILE``, or ``postgresql://user@host/database`` (with the extra ``postgres``;
            the password belongs to ``PGPASSWORD`` or a password file). SQLite needs a local disk.
        wait : float
            Seconds to wait for another process that writes.
        clock : callable
            Gives the time that is recorded, with its zone; leases of steps go by the real time.

        Raises
        ------
        LedgerError
            If it cannot be opened, holds something else, or is of a newer version of this application.
        LedgerBusyError
            If another process writes for longer than the wait.
        """
        return cls(Database(url, wait), clock)

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Ledger({self.name})"

    @property
    def name(self) -> str:
        """Where the ledger lies, without a password."""
        return self._database.name

    # ------------------------------------------------------------------------------------------ the evenings

    def start_run(
        self, job: str, *, job_hash: str, yaml: str, as_of: datetime.date, steps: Sequence[str] = ()
    ) -> Run:
        """Begin an evening of a job, or go on with it.

        Parameters
        ----------
        job : str
            Name of the job. Its track records go on when its file changes.
        job_hash, yaml : str
            Hash and text of its file; no secret may be in it.
        as_of : date
            The session.
        steps : sequence of str
            Names of the steps to come, in their order; they are pending until `Run.step` does them.
        """
        return Run.start(self._database, self._clock, job, job_hash, yaml, as_of, steps)

    def status(
        self, job: str | None = None, *, evenings: int = 5, as_of: datetime.date | None = None
    ) -> pd.DataFrame:
        """Say what was done on the last evenings: one row an attempt at a step.

        Parameters
        ----------
        job : str, optional
            Name of the job; all by default.
        evenings : int
            How many evenings.
        as_of : date, optional
            Look at evenings up to this one only.

        Returns
        -------
        DataFrame
            Columns ``job, as_of, starts`` (how often the evening was begun), ``step, attempt, status``
            (pending, running, done, failed, skipped), ``started_at, finished_at, reason, code_version,
            data_version, model_version, host, pid``. A step whose process died is failed, whether or not
            anybody took it over.
        """
        return run_status(self._database, job, evenings, as_of)

    def job_file(self, job: str, job_hash: str) -> str:
        """Give the text of a job's file as it was."""
        with self._database.reading() as connection:
            query = select(job_files.c.yaml).join(jobs)
            found = connection.execute(query.where(jobs.c.name == job, job_files.c.hash == job_hash)).scalar()
        if found is None:
            raise LedgerError(
                f"the ledger has no file of the job {job!r} with the hash {job_hash!r}; "
                "restore a backup that has it"
            )
        return str(found)

    # ----------------------------------------------------------------------------------------- the forecasts

    def issue(
        self,
        run: Run,
        table: pd.DataFrame,
        *,
        data_version: str,
        known_at: datetime.datetime | None,
        code_version: str,
    ) -> Issued:
        """Record forecasts as issued, all or none.

        A forecast is known by its job, model, symbol, origin and horizon. One that was issued before is left
        as it is where its numbers and its model version are the same, else nothing is recorded and it is an
        error. A symbol without a new session has its forecast already: leave it out.

        Parameters
        ----------
        run : Run
            The evening.
        table : DataFrame
            ``model, model_version, symbol, origin, horizon, close, late`` and ``q0.01`` to ``q0.99``; with
            ``tail_low, tail_high, variance`` where models state them (NaN where one does not). `late` is
            whether the first target session had opened.
        data_version : str
            Version of the prices.
        known_at : datetime or None
            Mark of the price store: what the forecasts saw can be read again by it. None without a store.
        code_version : str
            What made the forecasts.

        Raises
        ------
        ParameterError
            If the table is no table of forecasts: a quantile is missing, not finite or crosses another, an
            origin lies after the evening, a forecast is there twice.
        LedgerError
            If a forecast was issued before with other numbers, or by another version of the model.
        """
        return issue(
            self._database,
            run,
            table,
            data_version=data_version,
            known_at=known_at,
            code_version=code_version,
            issued_at=self._clock(),
        )

    def forecasts(
        self,
        job: str,
        *,
        models: Sequence[str] | None = None,
        symbols: Sequence[str] | None = None,
        start: datetime.date | None = None,
        end: datetime.date | None = None,
    ) -> pd.DataFrame:
        """Read forecasts, late ones too, with the outcomes that are known.

        Parameters
        ----------
        job : str
            Name of the job.
        models, symbols : sequence of str, optional
            All by default.
        start, end : date, optional
            First and last origin.

        Returns
        -------
        DataFrame
            ``id, job, as_of, model, symbol, origin, horizon, y`` (NaN while unknown), ``late, close``,
            quantiles and tails (NaN where not stated), ``model_version, data_version, known_at,
            code_version, job_hash, issued_at``, sorted by model, symbol, origin and horizon. The functions of
            `forecaster.scores` take it as it is.
        """
        with self._database.reading() as connection:
            return read_forecasts(connection, job, models, symbols, start, end)

    def forecast(self, forecast_id: int) -> pd.Series[Any]:
        """Read one forecast by its id: a row of what `forecasts` gives."""
        with self._database.reading() as connection:
            found = read_forecasts(connection, forecast_id=forecast_id)
        if found.empty:
            raise LedgerError(
                f"the ledger {self.name} has no forecast {forecast_id}; an export and "
                "`Ledger.forecasts` tell the ids that there are"
            )
        return found.iloc[0]

    def known_marks(self) -> list[datetime.datetime]:
        """Give every mark of a price store that a forecast of any job has seen, in order."""
        with self._database.reading() as connection:
            query = select(issues.c.known_at).where(issues.c.known_at.is_not(None)).distinct()
            return sorted(connection.execute(query).scalars())

    def latest(self, job: str, as_of: datetime.date | None = None) -> pd.DataFrame:
        """Read the forecasts of the last evening that issued any; columns as of `forecasts`.

        Parameters
        ----------
        job : str
            Name of the job.
        as_of : date, optional
            Look at evenings up to this one only.
        """
        with self._database.reading() as connection:
            return read_latest(connection, job, as_of)

    def seen(self, symbol: str, session: datetime.date) -> pd.DataFrame:
        """Say which forecasts of a symbol, of any job, had seen its price of a session.

        A price that was restated at a time was seen, as it had been before, by those with an earlier
        ``known_at``. That a model may also see other symbols, as its market, is not looked at.

        Returns
        -------
        DataFrame
            Columns of `forecasts` without the numbers.
        """
        with self._database.reading() as connection:
            return read_seen(connection, symbol, session)

    # -------------------------------------------------------------------------------------- the track record

    def pending_outcomes(self, job: str, *, since: datetime.date) -> pd.DataFrame:
        """Say which forecasts have no outcome yet.

        Parameters
        ----------
        job : str
            Name of the job.
        since : date
            First origin. Older ones are given up: a symbol that is traded no more has no outcome.

        Returns
        -------
        DataFrame
            Columns ``symbol, origin, horizon``, each once, whatever the models; late forecasts too.
        """
        with self._database.reading() as connection:
            return record.pending_outcomes(connection, job, since)

    def record_outcomes(self, job: str, table: pd.DataFrame, *, data_version: str) -> Scored:
        """Record what happened, and score every forecast of it that was issued in time.

        Outcomes that are there already are left as they are where they are the same, else nothing is recorded
        and it is an error: a track record does not change when prices are restated.

        Parameters
        ----------
        job : str
            Name of the job.
        table : DataFrame
            ``symbol, origin, horizon, target`` (the session in which it became known) and ``y``, the
            cumulative log return, finite.
        data_version : str
            Version of the prices that it was taken from.
        """
        return record.record_outcomes(self._database, job, table, data_version, self._clock())

    def track_record(
        self,
        job: str,
        *,
        start: datetime.date | None = None,
        end: datetime.date | None = None,
        by_origin: bool = False,
    ) -> pd.DataFrame:
        """Average the scores of the forecasts that were issued in time, by model and horizon.

        Parameters
        ----------
        job : str
            Name of the job.
        start, end : date, optional
            First and last origin.
        by_origin : bool
            A row an origin too: what is watched day by day.

        Returns
        -------
        DataFrame
            ``model, horizon, [origin,] forecasts, [first_origin, last_origin,] crps, pit, absolute_error,
            coverage_50, coverage_80, coverage_95, hit_rate_0.01, hit_rate_0.05, pinball_0.01, pinball_0.05,
            pinball_0.95, pinball_0.99``, averages of what `forecaster.scores.row_scores` defines.
        """
        with self._database.reading() as connection:
            return record.track_record(connection, job, start, end, by_origin)

    def scores(
        self, job: str, *, start: datetime.date | None = None, end: datetime.date | None = None
    ) -> pd.DataFrame:
        """Read the scores of the forecasts that were issued in time, a row each.

        Returns
        -------
        DataFrame
            ``model, symbol, origin, horizon`` and the scores of `track_record`.
        """
        with self._database.reading() as connection:
            return record.read_scores(connection, job, start, end)

    # -------------------------------------------------------------------------------- models and monitoring

    def record_model_event(
        self, job: str, *, as_of: datetime.date, event: str, model: str, version: str, reason: str
    ) -> None:
        """Record a change of the model in use, such as a promotion; the same one again is not recorded."""
        key = {"as_of": as_of, "event": event, "model": model, "version": version}
        self._note(model_events, job, key, reason)

    def model_events(self, job: str) -> pd.DataFrame:
        """Read the changes of the model in use, in their order.

        Returns
        -------
        DataFrame
            Columns ``as_of, event, model, version, reason, recorded_at``.
        """
        return self._notes(model_events, job)

    def record_alert(
        self,
        job: str,
        *,
        as_of: datetime.date,
        check: str,
        state: Literal["ok", "warn", "fail"],
        reason: str,
    ) -> bool:
        """Record what a check found; the same state of a check is recorded once an evening.

        Returns
        -------
        bool
            Whether it is new.
        """
        return self._note(alerts, job, {"as_of": as_of, "check": check, "state": state}, reason)

    def alerts(self, job: str) -> pd.DataFrame:
        """Read what the checks found, in their order.

        Returns
        -------
        DataFrame
            Columns ``as_of, check, state, reason, recorded_at``.
        """
        return self._notes(alerts, job)

    def _note(self, table: Table, job: str, key: dict[str, Any], reason: str) -> bool:
        with self._database.writing() as connection:
            job_id = first_or_insert(connection, jobs, {"name": job})
            whole = {"job_id": job_id, **key}
            there = select(table.c.id).where(*(table.c[name] == value for name, value in whole.items()))
            if connection.execute(there).first() is not None:
                return False
            connection.execute(insert(table).values(**whole, reason=reason, recorded_at=self._clock()))
            return True

    def _notes(self, table: Table, job: str) -> pd.DataFrame:
        names = [column.name for column in table.columns if column.name not in ("id", "job_id")]
        query: Select[Any] = select(*(table.c[name] for name in names)).join(jobs).where(jobs.c.name == job)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(table.c.id)).all()
            found = pd.DataFrame(rows, columns=names)
            found["as_of"] = pd.to_datetime(found["as_of"]).astype("datetime64[ms]")
            return found

    # -------------------------------------------------------------------------------------------- the copies

    def backup(self, path: Path) -> None:
        """Copy the ledger, as it is at one moment, into a file; others may go on writing.

        Parameters
        ----------
        path : Path
            A file that is not there yet: a ledger in SQLite, whatever this one lies in.

        Raises
        ------
        LedgerError
            If the file exists or cannot be written; then nothing is left of it.
        """
        copies.backup(self._database, path)

    @staticmethod
    def restore(path: Path, url: str | Path, *, wait: float = WAIT) -> None:
        """Make a ledger from a backup, in SQLite or PostgreSQL, whatever it was a backup of.

        Parameters
        ----------
        path : Path
            What `backup` wrote; it is not changed.
        url : str or Path
            Where to, as for `open`: a file that is not there yet, or an empty database of PostgreSQL.
        wait : float
            Seconds to wait for another process that writes.

        Raises
        ------
        LedgerError
            If the backup is damaged or none, or something is there already; nothing is changed then.
        """
        copies.restore(path, url, wait)
