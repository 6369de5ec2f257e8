"""The price store: append-only, bitemporal, a Delta table in a folder or an object store.

Each row says what was known of one symbol and session from `fetched_at` on: its prices as traded, where they
came from, and a status. Nothing is edited. What the source changes later, what it no longer has, and what is
decided about a quarantined session are further rows of the same symbol and session with a higher `revision`;
the row of the highest revision is current.

========== ==========================================================================================
column     what
========== ==========================================================================================
symbol     the symbol, as text
session    the session, a date
open ...   open, high, low, close, volume, dividend, split as traded; null where none is known
fetched_at since when this is known (UTC, microseconds)
revision   number of older rows of this symbol and session: 0 is the first sight
status     accepted, quarantined, rejected (by a decision), removed (the source no longer has the session)
settled    whether a decision, not a check, set the status
source     where the prices came from
reason     codes of the checks, or why it was decided so; null otherwise
amended    partition: false for the first sight of an accepted session, true for everything else
========== ==========================================================================================

Two times never mix. `as_of` is the last session that a read may see. `known_at` is a `fetched_at`: the read
sees what the store knew then. `fetched_at` rises from commit to commit, so what was known at the *mark* of a
read (the time of the last commit) can be read again for ever: a forecast records the mark.

Any tool that reads Delta tables, or only Parquet, has the current prices by one view::

    SELECT * FROM (
        SELECT *, row_number() OVER (PARTITION BY symbol, session ORDER BY revision DESC) AS place
        FROM delta_scan('workspace/prices/prices')
    ) WHERE place = 1 AND status = 'accepted'

and what was known at a time by ``WHERE fetched_at <= TIMESTAMPTZ '...'`` inside it. The second table,
``fetches``, has one row a symbol and write, also where nothing was new.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from forecaster.errors import DataError, ParameterError, SourceError
from forecaster.prices.checks import PRICE_COLUMNS
from forecaster.prices.store import compaction, copies, frames
from forecaster.prices.store.batch import Batch
from forecaster.prices.store.fetches import FetchesTable
from forecaster.prices.store.layout import ROWS_PER_FILE, pieces
from forecaster.prices.store.reading import Snapshot, Span
from forecaster.prices.store.results import Closes, Compaction, Fetch, StoredPrices, WriteResult
from forecaster.prices.store.rows import (
    ACCEPTED,
    QUARANTINED,
    REJECTED,
    REMOVED,
    STATUSES,
    Rows,
    SymbolIndex,
    concatenate,
    latest,
)
from forecaster.prices.store.table import Location, PricesTable

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["PriceStore"]

_CLOCK_SLACK = datetime.timedelta(minutes=5)
_STATE = (*PRICE_COLUMNS, "revision", "status", "settled", "fetched_at", "source")
_VACUUM_AFTER = datetime.timedelta(days=7)


class PriceStore:
    """Daily prices of many symbols, and everything that was ever known about them.

    Parameters
    ----------
    url : str or path
        Folder of the store, made by the first write, or the URL of an object store, such as
        ``s3://bucket/prices``. ``file://`` is one too: a folder without a lock file, for network drives.
    storage_options : mapping of str to str or None
        Options for an object store, as deltalake takes them. Credentials belong to the environment
        (``AWS_ACCESS_KEY_ID`` and so on), not here. The object store must support conditional puts: they keep
        two writers apart.
    rows_per_file : int
        Rows of a large file. Smaller files make a read of few symbols quicker and one of all slower.
    """

    def __init__(
        self,
        url: str | Path,
        storage_options: Mapping[str, str] | None = None,
        *,
        rows_per_file: int = ROWS_PER_FILE,
    ) -> None:
        if rows_per_file < 1:
            raise ParameterError(f"`rows_per_file` must be at least 1. Received: {rows_per_file}")
        self._rows_per_file = rows_per_file
        self._location = Location(str(url), storage_options)
        self._prices = PricesTable(self._location)
        self._fetches = FetchesTable(self._location)

    @property
    def url(self) -> str:
        """Where the store lies."""
        return self._location.url

    def exists(self) -> bool:
        """Whether anything was ever written.

        Raises
        ------
        SourceError
            If the place holds something else, or a store that cannot be read.
        """
        if self._prices.open() is not None:
            return True
        self._location.require_own()
        return False

    def mark(self) -> pd.Timestamp | None:
        """Return the time of the last thing known, None in an empty store."""
        mark = self._prices.mark(self._open(None))
        return None if mark is None else frames.timestamp(mark)

    def symbols(self) -> tuple[str, ...]:
        """Return every symbol that the store has rows of, in order."""
        return self._snapshot(None).symbols().names

    # ---------------------------------------------------------------- writing

    def write(
        self,
        fetches: Mapping[str, Fetch],
        *,
        fetched_at: datetime.datetime,
        source: str,
        tolerance: float = 0.0,
    ) -> WriteResult:
        """Record what a source said; add only what is new, changed or gone.

        All or nothing is written. Writing the same again adds nothing. Any number of processes may write at
        once.

        Parameters
        ----------
        fetches : mapping of str to Fetch
            What was fetched, by symbol.
        fetched_at : datetime
            When, with a time zone. Rows count as known from the later of this and the moment after all that
            the store already knows.
        source : str
            Where it came from, such as ``yahoo``.
        tolerance : float
            Relative difference up to which a number counts as unchanged; 0 takes every other number for a
            restatement. Sources that give prices adjusted for later splits in few digits need one.

        Returns
        -------
        WriteResult
            What changed.

        Raises
        ------
        ParameterError
            If an argument breaks a rule above.
        SourceError
            If the store cannot be written.
        """
        given = frames.microseconds(fetched_at, "fetched_at")
        _require_past(fetched_at, "fetched_at")
        if not 0 <= tolerance < 1:
            raise ParameterError(f"`tolerance` must be at least 0 and below 1. Received: {tolerance}")
        if not source:
            raise ParameterError("`source` must name where the prices came from. Received: an empty text")
        batch = Batch.of(fetches)

        def work(table: DeltaTable) -> WriteResult:
            snapshot = Snapshot(self._prices, table)
            known = snapshot.latest(batch.index, _STATE, batch.span, accepted=False)
            new, old, counts = batch.compare(known, tolerance)
            mark = self._prices.mark(table)
            moment = given if mark is None else max(given, mark + 1)
            version = table.version()
            new.columns["fetched_at"] = np.full(len(new), moment, dtype=np.int64)
            new.columns["source"] = np.full(len(new), source, dtype=object)
            if len(new):
                version = self._add(table, new, batch.index, moment)
            self._fetches.add(fetches, counts, moment, source)
            return WriteResult(
                version, frames.timestamp(moment), counts, frames.restatements(new, old, batch.index)
            )

        return self._prices.attempt(work)

    def settle(
        self,
        symbol: str,
        session: datetime.date,
        decision: Literal["accept", "reject"],
        reason: str,
        *,
        decided_at: datetime.datetime | None = None,
    ) -> bool:
        """Accept or reject a session by hand: a further row, which holds until the prices change.

        Parameters
        ----------
        symbol : str
            The symbol.
        session : date
            The session.
        decision : {"accept", "reject"}
            Whether reads shall see it.
        reason : str
            Why, for the record.
        decided_at : datetime or None
            From when the decision counts, with a time zone; now by default.

        Returns
        -------
        bool
            Whether anything changed: False if the session already has this status.

        Raises
        ------
        DataError
            If the store does not have the session, or the source no longer has it.
        ParameterError
            If `decision` is neither, or `reason` is empty.
        """
        if decision not in ("accept", "reject"):
            raise ParameterError(f"`decision` must be 'accept' or 'reject'. Received: {decision!r}")
        if not reason.strip():
            raise ParameterError("`reason` must say why. Received: an empty text")
        status = ACCEPTED if decision == "accept" else REJECTED
        given = frames.microseconds(decided_at or datetime.datetime.now(datetime.UTC), "decided_at")
        index = SymbolIndex((symbol,))
        self._open(None)

        def work(table: DeltaTable) -> bool:
            span = Span(first=session, last=session)
            row = Snapshot(self._prices, table).latest(index, _STATE, span, accepted=False)
            if not len(row) or row.columns["status"][0] == REMOVED:
                why = "is not in the store" if not len(row) else "was removed by its source"
                raise DataError(
                    f"only a stored session can be settled; {symbol} {session} {why}; "
                    "`forecaster data quarantine` lists what waits"
                )
            if row.columns["status"][0] == status:
                return False
            moment = max(given, (self._prices.mark(table) or 0) + 1)
            row.columns["revision"] = row.columns["revision"] + np.int32(1)
            row.columns["status"] = np.array([status], dtype=np.int8)
            row.columns["settled"] = np.ones(1, dtype=bool)
            row.columns["fetched_at"] = np.array([moment], dtype=np.int64)
            row.columns["reason"] = np.array([reason], dtype=object)
            self._add(table, row, index, moment)
            return True

        return self._prices.attempt(work)

    # ---------------------------------------------------------------- reading

    def read(
        self,
        symbols: Sequence[str] | None = None,
        *,
        as_of: datetime.date | None = None,
        known_at: datetime.datetime | None = None,
        version: int | None = None,
    ) -> StoredPrices:
        """Return accepted prices as they were known at a time.

        Parameters
        ----------
        symbols : sequence of str or None
            The symbols; all by default. One that has no accepted session is absent from the result.
        as_of : date or None
            Last session to return.
        known_at : datetime or None
            Time, with a time zone, of which the knowledge is wanted; the newest by default.
        version : int or None
            Version of the table to read; the newest by default.

        Raises
        ------
        SourceError
            If there is no store, or it cannot be read.
        DataError
            If compaction dropped rows that `known_at` would need.
        """
        snapshot = self._snapshot(version)
        index = self._index(snapshot, symbols)
        until = self._until(snapshot.table, known_at)
        rows = snapshot.latest(index, PRICE_COLUMNS, Span(last=as_of, until=until))
        names, offsets, sessions = frames.layout(rows, index)
        times = pd.DatetimeIndex(sessions.astype("datetime64[s]"), name="session")
        found = {}
        for name, start, stop in zip(names, offsets[:-1], offsets[1:], strict=True):
            columns = {column: values[start:stop] for column, values in rows.columns.items()}
            found[name] = pd.DataFrame(columns, index=times[start:stop])
        first = self._fetches.first_fetched(names)
        return StoredPrices(found, snapshot.table.version(), self._mark(snapshot.table, until), first)

    def closes(
        self,
        columns: Sequence[str] = ("close",),
        *,
        as_of: datetime.date | None = None,
        known_at: datetime.datetime | None = None,
        version: int | None = None,
    ) -> Closes:
        """Return columns of all accepted sessions, flat and in order: the quick way to a panel.

        Parameters
        ----------
        columns : sequence of str
            Which of `PRICE_COLUMNS`.
        as_of, known_at, version
            As in `read`, which also says what it raises.
        """
        unknown = [name for name in columns if name not in PRICE_COLUMNS]
        if unknown or not columns:
            raise ParameterError(
                f"`columns` must be some of {', '.join(PRICE_COLUMNS)}. Received: {columns!r}"
            )
        snapshot = self._snapshot(version)
        index = snapshot.symbols()
        until = self._until(snapshot.table, known_at)
        rows = snapshot.latest(index, tuple(columns), Span(last=as_of, until=until))
        names, offsets, sessions = frames.layout(rows, index)
        mark = self._mark(snapshot.table, until)
        return Closes(names, offsets, sessions, rows.columns, snapshot.table.version(), mark)

    def diff(
        self,
        since: datetime.datetime | None = None,
        until: datetime.datetime | None = None,
        symbols: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Return what sources changed in history.

        Parameters
        ----------
        since, until : datetime or None
            Restatements fetched later than `since` and no later than `until`, with a time zone; all that
            compaction left by default.
        symbols : sequence of str or None
            Of these symbols; of all by default.

        Returns
        -------
        DataFrame
            One row a changed number: ``symbol, session, column, old, new, old_status, new_status,
            old_fetched_at, new_fetched_at``, in the order of time, symbol and session. A session that was
            removed has NaN for `new`. A read whose mark lies from `old_fetched_at` on, and before
            `new_fetched_at`, saw the old value (if its status was accepted). First sights and decisions are
            no restatements.
        """
        start = None if since is None else frames.microseconds(since, "since")
        end = None if until is None else frames.microseconds(until, "until")
        snapshot = self._snapshot(None)
        limit = compaction.horizon(snapshot.table)
        if since is None or start is None:
            start = limit or 0
        elif limit is not None and start < limit:
            raise DataError(
                f"restatements are kept from {frames.timestamp(limit).isoformat()} on, where "
                f"`forecaster data compact` dropped older ones. Received: since {since.isoformat()}"
            )
        return self._restatements(snapshot, self._index(snapshot, symbols), Span(since=start, until=end))

    def quarantine(
        self,
        symbols: Sequence[str] | None = None,
        *,
        as_of: datetime.date | None = None,
        known_at: datetime.datetime | None = None,
        rejected: bool = False,
    ) -> pd.DataFrame:
        """Return the sessions that wait for a decision.

        Parameters
        ----------
        symbols, as_of, known_at
            As in `read`, which also says what it raises.
        rejected : bool
            Return the sessions that were rejected as well: with them, everything that `read` leaves out.

        Returns
        -------
        DataFrame
            ``symbol, session``, `PRICE_COLUMNS`, ``reason, source, fetched_at, status``, by symbol and
            session.
        """
        snapshot = self._snapshot(None)
        index = self._index(snapshot, symbols)
        names = (*PRICE_COLUMNS, "reason", "source", "fetched_at", "status", "revision")
        span = Span(last=as_of, until=self._until(snapshot.table, known_at))
        rows = latest(snapshot.amendments(index, names, span))
        status = rows.columns["status"]
        rows = rows.take((status == QUARANTINED) | (rejected & (status == REJECTED)))
        frame = frames.table(rows, index, (*PRICE_COLUMNS, "reason", "source", "fetched_at"))
        frame["fetched_at"] = frames.timestamps(rows.columns["fetched_at"])
        frame["status"] = np.array(STATUSES, dtype=object)[rows.columns["status"]]
        return frame

    def status(self) -> pd.DataFrame:
        """Return the state of each symbol.

        Returns
        -------
        DataFrame indexed by symbol
            ``sessions`` (accepted), ``first_session``, ``last_session``, ``quarantined``, ``rejected``,
            ``removed`` (sessions whose latest row says so), ``restated`` (sessions that were changed or
            removed at least once, as far as their rows were kept), ``first_fetched``, ``last_fetched``,
            ``last_full`` (the last fetch of all that the source has), ``source`` and ``notice`` of the last
            fetch. NaT, None or 0 where there is none.
        """
        snapshot = self._snapshot(None)
        fetched = self._fetches.summary()
        names = set(snapshot.symbols().names)
        index = SymbolIndex(tuple(sorted(names | set(fetched.index))))
        rows = snapshot.latest(index, (), Span())
        present, offsets, sessions = frames.layout(rows, index)
        frame = pd.DataFrame(index=pd.Index(index.names, name="symbol", dtype="str"))
        frame["sessions"] = pd.Series(np.diff(offsets), index=present).reindex(frame.index, fill_value=0)
        ends = sessions.astype("datetime64[s]")
        frame["first_session"] = pd.Series(ends[offsets[:-1]], index=present, dtype="datetime64[s]")
        frame["last_session"] = pd.Series(ends[offsets[1:] - 1], index=present, dtype="datetime64[s]")
        amended = snapshot.amendments(index, ("settled",), Span())
        current = latest(amended)
        numbers = current.keys >> 32
        for status in (QUARANTINED, REJECTED, REMOVED):
            of_status = numbers[current.columns["status"] == status]
            frame[STATUSES[status]] = np.bincount(of_status, minlength=len(index.names))
        restated = self._restatements(snapshot, index, Span(since=0))
        days = restated[["symbol", "session"]].drop_duplicates().groupby("symbol").size()
        frame["restated"] = days.reindex(frame.index, fill_value=0).astype(np.int64)
        return frame.join(fetched)

    # ---------------------------------------------------------------- upkeep

    def compact(
        self,
        *,
        before: datetime.datetime | None = None,
        keep: Iterable[datetime.datetime] = (),
        vacuum_after: datetime.timedelta = _VACUUM_AFTER,
    ) -> Compaction:
        """Merge small files and, if asked to, drop rows that no read needs any more.

        Writers and readers may go on meanwhile. Reads give the same before and after, except that one of
        dropped knowledge is refused.

        Parameters
        ----------
        before : datetime or None
            What was known at any time from here on stays readable, as does the current state; of earlier
            times only `keep`. None drops nothing. It never moves back.
        keep : iterable of datetime
            Marks that stay readable: those of the forecasts issued.
        vacuum_after : timedelta
            Age from which files that belong to no version are deleted: what compaction replaced, which
            older versions need, and what a killed writer left behind. Below the time that a read or a write
            may take, it pulls files from under them.

        Returns
        -------
        Compaction
            What it did.

        Raises
        ------
        ParameterError
            If a time lacks its zone, `before` lies in the future or `vacuum_after` is negative.
        SourceError
            If the store cannot be written.
        """
        self._open(None)
        limit = None if before is None else frames.microseconds(before, "before")
        marks = [frames.microseconds(moment, "keep") for moment in keep]
        if vacuum_after < datetime.timedelta(0):
            raise ParameterError(f"`vacuum_after` must not be negative. Received: {vacuum_after}")
        _require_past(before, "before")
        count, left, dropped, lost = self._prices.attempt(
            lambda table: compaction.compact(
                self._prices, table, limit, sorted(set(marks)), self._rows_per_file
            )
        )
        deleted = self._prices.vacuum(vacuum_after)
        self._prices.attempt(lambda table: self._fetches.compact(vacuum_after))
        return Compaction(count, left, dropped, deleted, tuple(frames.timestamp(moment) for moment in lost))

    # ---------------------------------------------------------------- helpers

    def backup(self, path: Path) -> None:
        """Copy the store, as it is at one moment, into a folder; writers wait until it is done.

        Parameters
        ----------
        path : Path
            A folder that is not there yet.

        Raises
        ------
        SourceError
            If the folder exists or cannot be written, or the store is no local folder; nothing is left then.
        """
        copies.backup(self._location, path)

    def restore(self, path: Path) -> None:
        """Make this store, which must not exist, from a folder that `backup` wrote.

        Raises
        ------
        SourceError
            If the store exists, or the folder is no backup; nothing is changed then.
        """
        copies.restore(path, self._location)

    def _open(self, version: int | None) -> DeltaTable:
        table = self._prices.open(version)
        if table is None:
            self._location.require_own()
            raise SourceError(
                f"there is no price store at {self._location.url}; `forecaster ingest` makes one, "
                "or give another `store`"
            )
        return table

    def _snapshot(self, version: int | None) -> Snapshot:
        return Snapshot(self._prices, self._open(version))

    @staticmethod
    def _index(snapshot: Snapshot, symbols: Sequence[str] | None) -> SymbolIndex:
        if isinstance(symbols, str):
            raise ParameterError(
                f"`symbols` must be a sequence of symbols, not one text. Received: {symbols!r}"
            )
        return snapshot.symbols() if symbols is None else SymbolIndex(tuple(sorted(set(symbols))))

    @staticmethod
    def _restatements(snapshot: Snapshot, index: SymbolIndex, span: Span) -> pd.DataFrame:
        names = ("revision", "status", "fetched_at", *PRICE_COLUMNS)
        past = Span(until=span.until)
        touched = index.present(snapshot.amendments(index, (), span).keys)
        # The row before a restatement is a first sight or an older restatement, from whatever time.
        rows = concatenate(
            [snapshot.amendments(touched, names, past), snapshot.unamended(touched, names, past)]
        )
        rows = rows.take(np.lexsort((rows.columns["revision"], rows.keys)))
        later = rows.columns["fetched_at"][1:] > (span.since or 0)
        follows = np.flatnonzero((rows.keys[1:] == rows.keys[:-1]) & later)
        return frames.restatements(rows.take(follows + 1), rows.take(follows), touched)

    def _add(self, table: DeltaTable, rows: Rows, index: SymbolIndex, moment: int) -> int:
        written = self._prices.write_files(pieces(rows, index, self._rows_per_file))
        return self._prices.commit(table, written, moment)

    def _until(self, table: DeltaTable, known_at: datetime.datetime | None) -> int | None:
        if known_at is None:
            return None
        until = frames.microseconds(known_at, "known_at")
        if not compaction.readable(table, until):
            raise DataError(
                f"what was known at {known_at.isoformat()} was dropped by `forecaster data compact`; "
                f"times from {frames.timestamp(compaction.horizon(table) or 0).isoformat()} on can be read"
            )
        return until

    def _mark(self, table: DeltaTable, until: int | None) -> pd.Timestamp:
        mark = self._prices.mark(table) or 0
        return frames.timestamp(mark if until is None else min(mark, until))


def _require_past(moment: datetime.datetime | None, name: str) -> None:
    """Refuse a time after now: all later rows would have to be later still."""
    if moment is not None and moment > datetime.datetime.now(datetime.UTC) + _CLOCK_SLACK:
        raise ParameterError(
            f"`{name}` must not lie in the future. Received: {moment.isoformat()}; look at the clock"
        )
