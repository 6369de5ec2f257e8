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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from forecaster.errors import DataError, ParameterError, SourceError
from forecaster.prices.checks import PRICE_COLUMNS
from forecaster.prices.store.fetches import FetchesTable
from forecaster.prices.store.reading import Snapshot, Span
from forecaster.prices.store.rows import (
    ACCEPTED,
    QUARANTINED,
    REJECTED,
    REMOVED,
    STATUSES,
    Rows,
    SymbolIndex,
    concatenate,
    equal_values,
    find,
    in_order,
    latest,
    split_keys,
)
from forecaster.prices.store.table import PRICES_SCHEMA, Location, PricesTable

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["Closes", "Fetch", "PriceStore", "StoredPrices", "WriteResult"]

COUNTS = ("added", "changed", "removed", "quarantined", "released")
"""What a write did, by symbol: the columns of `WriteResult.counts`."""

_CLOCK_SLACK = datetime.timedelta(minutes=5)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_STATE = (*PRICE_COLUMNS, "revision", "status", "settled", "fetched_at", "source")


@dataclass(frozen=True, slots=True, eq=False)
class Fetch:
    """What a source said about one symbol at one time.

    Parameters
    ----------
    prices : DataFrame of shape (n_sessions, 7)
        Price table as `forecaster.prices.base.price_table` makes it, prices as traded; each session once.
    window : (date, date) or None
        First and last session that the fetch covered. A stored session inside it that `prices` lacks is
        recorded as removed. None: nothing is said about sessions that are not in `prices`.
    quarantined : mapping of date to str
        Sessions of `prices` that checks hold back, each with its codes; all others are accepted.
    full : bool
        Whether it covered all that the source has of the symbol.
    notice : str or None
        What is to be said of the symbol: delisted, renamed, newly listed.
    """

    prices: pd.DataFrame
    window: tuple[datetime.date, datetime.date] | None = None
    quarantined: Mapping[datetime.date, str] = field(default_factory=dict)
    full: bool = False
    notice: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class WriteResult:
    """What a write changed.

    Parameters
    ----------
    version : int
        Version of the table after it.
    fetched_at : Timestamp
        When the rows count as known: the time given or, if the store already knew later things, just after them.
    counts : DataFrame indexed by symbol
        Sessions of each symbol that were added, changed (restated), removed, quarantined, or released from
        quarantine because the checks no longer object.
    restatements : DataFrame
        What was changed and removed, as `PriceStore.diff` returns it.
    """

    version: int
    fetched_at: pd.Timestamp
    counts: pd.DataFrame
    restatements: pd.DataFrame


@dataclass(frozen=True, slots=True, eq=False)
class StoredPrices:
    """Prices as they were known at one time.

    Parameters
    ----------
    frames : dict of str to DataFrame
        Price table of each symbol that has an accepted session, sorted by symbol.
    version : int
        Version of the table that was read. Old versions are tidied away in time; the mark is not.
    mark : Timestamp
        `fetched_at` of the last thing known to this read: what a forecast records, and gives as `known_at` to
        read the same again.
    first_fetched : dict of str to Timestamp
        When each of `frames` was first fetched. Its sessions before that date are not point-in-time: they are
        history as it looked then, with later restatements in it.
    """

    frames: dict[str, pd.DataFrame]
    version: int
    mark: pd.Timestamp
    first_fetched: dict[str, pd.Timestamp]


@dataclass(frozen=True, slots=True, eq=False)
class Closes:
    """Closes of all symbols end to end, as `forecaster.windows.Panel` lays out its series.

    Parameters
    ----------
    symbols : tuple of str
        In order; only those with an accepted session.
    offsets : ndarray of shape (n_symbols + 1,), int64
        Symbol i occupies the rows ``offsets[i]`` to ``offsets[i + 1]``.
    sessions : ndarray of shape (total,), datetime64[D]
        Session of each row, increasing within a symbol.
    columns : dict of str to ndarray of shape (total,), float64
        ``close``, as traded, and what else was asked for; NaN where the source has none.
    version : int
        Version of the table that was read.
    mark : Timestamp
        As in `StoredPrices`.
    """

    symbols: tuple[str, ...]
    offsets: NDArray[np.int64]
    sessions: NDArray[np.datetime64]
    columns: dict[str, NDArray[np.float64]]
    version: int
    mark: pd.Timestamp


class PriceStore:
    """Daily prices of many symbols, and everything that was ever known about them.

    Parameters
    ----------
    url : str or path
        Folder of the store, made by the first write, or the URL of an object store, such as
        ``s3://bucket/prices``.
    storage_options : mapping of str to str or None
        Options for an object store, as deltalake takes them. Credentials belong to the environment
        (``AWS_ACCESS_KEY_ID`` and so on), not here. The object store must support conditional puts: they keep
        two writers apart.
    """

    def __init__(self, url: str, storage_options: Mapping[str, str] | None = None) -> None:
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
        return None if mark is None else _timestamp(mark)

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
        given = _microseconds(fetched_at, "fetched_at")
        if fetched_at > datetime.datetime.now(datetime.UTC) + _CLOCK_SLACK:
            raise ParameterError(
                f"`fetched_at` must not lie in the future, where it would hold back all later rows. "
                f"Received: {fetched_at.isoformat()}; set the clock"
            )
        if not 0 <= tolerance < 1:
            raise ParameterError(f"`tolerance` must be at least 0 and below 1. Received: {tolerance}")
        if not source:
            raise ParameterError("`source` must name where the prices came from. Received: an empty text")
        batch = _Batch.of(fetches)

        def work(table: DeltaTable) -> WriteResult:
            snapshot = Snapshot(self._prices, table)
            known = snapshot.latest(batch.index, _STATE, batch.span, accepted=False)
            new, old, counts = batch.compare(known, tolerance)
            mark = self._prices.mark(table)
            moment = given if mark is None else max(given, mark + 1)
            version = table.version()
            if len(new):
                new.columns["fetched_at"] = np.full(len(new), moment, dtype=np.int64)
                new.columns["source"] = np.full(len(new), source, dtype=object)
                version = self._prices.commit(table, _files(new, batch.index), moment)
            self._fetches.add(fetches, counts, moment, source)
            return WriteResult(version, _timestamp(moment), counts, _restatements(new, old, batch.index))

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
        """Accept or reject a session by hand; the decision is a further row and holds until its prices change.

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
        given = _microseconds(decided_at or datetime.datetime.now(datetime.UTC), "decided_at")
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
            self._prices.commit(table, _files(row, index), moment)
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
        index = snapshot.symbols() if symbols is None else SymbolIndex(tuple(sorted(set(symbols))))
        until = self._until(snapshot.table, known_at)
        rows = snapshot.latest(index, PRICE_COLUMNS, Span(last=as_of, until=until))
        names, offsets, sessions = _layout(rows, index)
        times = pd.DatetimeIndex(sessions.astype("datetime64[s]"), name="session")
        frames = {}
        for name, start, stop in zip(names, offsets[:-1], offsets[1:], strict=True):
            columns = {column: values[start:stop] for column, values in rows.columns.items()}
            frames[name] = pd.DataFrame(columns, index=times[start:stop])
        first = self._fetches.first_fetched(names)
        return StoredPrices(frames, snapshot.table.version(), self._mark(snapshot.table, until), first)

    def closes(
        self,
        columns: Sequence[str] = ("close",),
        *,
        as_of: datetime.date | None = None,
        known_at: datetime.datetime | None = None,
        version: int | None = None,
    ) -> Closes:
        """Return columns of all accepted sessions of all symbols, flat and in order; the quick way to a panel.

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
        names, offsets, sessions = _layout(rows, index)
        mark = self._mark(snapshot.table, until)
        return Closes(names, offsets, sessions, rows.columns, snapshot.table.version(), mark)

    def diff(
        self,
        since: datetime.datetime,
        until: datetime.datetime | None = None,
        symbols: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Return what sources changed in history.

        Parameters
        ----------
        since, until : datetime
            Restatements fetched later than `since` and no later than `until`, with a time zone.
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
        span = Span(since=_microseconds(since, "since"), until=_optional(until, "until"))
        snapshot = self._snapshot(None)
        index = snapshot.symbols() if symbols is None else SymbolIndex(tuple(sorted(set(symbols))))
        names = ("revision", "status", "fetched_at", *PRICE_COLUMNS)
        # Every amendment up to the end: the row before a restatement may itself be one.
        rows = snapshot.amendments(index, names, Span(until=span.until))
        times = rows.columns["fetched_at"]
        touched = SymbolIndex(
            tuple(index.names[n] for n in np.unique(split_keys(rows.keys[times > span.since])[0]))
        )
        if touched.names:
            rows = concatenate(
                [
                    snapshot.amendments(touched, names, Span(until=span.until)),
                    snapshot.unamended(touched, names, Span(until=span.until)),
                ]
            )
        order = np.lexsort((rows.columns["revision"], rows.keys))
        rows = rows.take(order)
        follows = np.flatnonzero(
            (rows.keys[1:] == rows.keys[:-1]) & (rows.columns["fetched_at"][1:] > span.since)
        )
        return _restatements(rows.take(follows + 1), rows.take(follows), touched)

    def quarantine(self, symbols: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the sessions that wait for a decision.

        Returns
        -------
        DataFrame
            ``symbol, session``, `PRICE_COLUMNS`, ``reason, source, fetched_at``, by symbol and session.
        """
        snapshot = self._snapshot(None)
        index = snapshot.symbols() if symbols is None else SymbolIndex(tuple(sorted(set(symbols))))
        names = (*PRICE_COLUMNS, "reason", "source", "fetched_at", "status", "revision")
        rows = latest(snapshot.amendments(index, names, Span()))
        rows = rows.take(rows.columns["status"] == QUARANTINED)
        frame = _frame(rows, index, (*PRICE_COLUMNS, "reason", "source", "fetched_at"))
        frame["fetched_at"] = _timestamps(rows.columns["fetched_at"])
        return frame

    def status(self) -> pd.DataFrame:
        """Return the state of each symbol.

        Returns
        -------
        DataFrame indexed by symbol
            ``sessions`` (accepted), ``first_session``, ``last_session``, ``quarantined``, ``rejected``,
            ``removed`` (sessions whose latest row says so), ``restated`` (sessions that were changed or removed
            at least once), ``first_fetched``, ``last_fetched``, ``last_full`` (the last fetch of all that the
            source has), ``source`` and ``notice`` of the last fetch. NaT, None or 0 where there is none.
        """
        snapshot = self._snapshot(None)
        fetched = self._fetches.summary()
        names = set(snapshot.symbols().names)
        index = SymbolIndex(tuple(sorted(names | set(fetched.index))))
        rows = snapshot.latest(index, (), Span())
        present, offsets, sessions = _layout(rows, index)
        frame = pd.DataFrame(index=pd.Index(index.names, name="symbol", dtype="str"))
        frame["sessions"] = pd.Series(np.diff(offsets), index=present).reindex(frame.index, fill_value=0)
        ends = sessions.astype("datetime64[s]")
        frame["first_session"] = pd.Series(ends[offsets[:-1]], index=present, dtype="datetime64[s]")
        frame["last_session"] = pd.Series(ends[offsets[1:] - 1], index=present, dtype="datetime64[s]")
        amended = snapshot.amendments(index, ("settled",), Span())
        current = latest(amended)
        numbers = split_keys(current.keys)[0]
        for status in (QUARANTINED, REJECTED, REMOVED):
            of_status = numbers[current.columns["status"] == status]
            frame[STATUSES[status]] = np.bincount(of_status, minlength=len(index.names))
        restated = self.diff(datetime.datetime.fromtimestamp(0, datetime.UTC))
        days = restated[["symbol", "session"]].drop_duplicates().groupby("symbol").size()
        frame["restated"] = days.reindex(frame.index, fill_value=0).astype(np.int64)
        return frame.join(fetched)

    # ---------------------------------------------------------------- helpers

    def _open(self, version: int | None) -> DeltaTable:
        table = self._prices.open(version)
        if table is None:
            self._location.require_own()
            raise SourceError(
                f"there is no price store at {self._location.url}; `forecaster ingest` makes one, or give another `store`"
            )
        return table

    def _snapshot(self, version: int | None) -> Snapshot:
        return Snapshot(self._prices, self._open(version))

    def _until(self, table: DeltaTable, known_at: datetime.datetime | None) -> int | None:
        return _optional(known_at, "known_at")

    def _mark(self, table: DeltaTable, until: int | None) -> pd.Timestamp:
        mark = self._prices.mark(table) or 0
        return _timestamp(mark if until is None else min(mark, until))


@dataclass(frozen=True, eq=False)
class _Batch:
    """All fetches of a write as sorted rows."""

    index: SymbolIndex
    rows: Rows
    windows: tuple[NDArray[np.int64], NDArray[np.int64]]
    span: Span

    @classmethod
    def of(cls, fetches: Mapping[str, Fetch]) -> _Batch:
        index = SymbolIndex(tuple(sorted(fetches)))
        parts: list[Rows] = []
        bounds: list[datetime.date] = []
        lows, highs = np.ones((2, len(index.names)), dtype=np.int64)
        highs -= 1  # an empty window: nothing lies in [1, 0]
        for number, symbol in enumerate(index.names):
            fetch = fetches[symbol]
            rows = _fetched_rows(number, symbol, fetch)
            parts.append(rows)
            if fetch.window is not None:
                first, last = fetch.window
                if first > last:
                    raise ParameterError(
                        f"`window` must not end before it begins. Received for {symbol}: {first} to {last}"
                    )
                edges = np.array(fetch.window, dtype="datetime64[D]").astype(np.int64)
                lows[number], highs[number] = SymbolIndex.keys(np.full(2, number), edges)
                bounds += fetch.window
            if len(rows):
                sessions = split_keys(rows.keys)[1]
                bounds += [sessions[0].item(), sessions[-1].item()]
        span = Span(first=min(bounds), last=max(bounds)) if bounds else Span(first=datetime.date.max)
        empty = Rows(np.zeros(0, dtype=np.int64), {})
        return cls(index, concatenate(parts) if parts else empty, (lows, highs), span)

    def compare(self, known: Rows, tolerance: float) -> tuple[Rows, Rows, pd.DataFrame]:
        """Return the rows to add, the known row before each that has one, and the counts of each symbol."""
        rows = self.rows
        if not len(rows) and not len(known):
            return rows, rows, self._counts({})
        places, there = find(known.keys, rows.keys)
        before = known.take(places[there])
        same = np.ones(len(before), dtype=bool)
        for name in PRICE_COLUMNS:
            same &= equal_values(before.columns[name], rows.columns[name][there], tolerance)
        status, was = rows.columns["status"][there], before.columns["status"]
        restated = ~same | (was == REMOVED)
        # The checks may judge the same prices anew; a decision about them stands.
        judged = ~restated & ~before.columns["settled"] & (status != was)
        add = np.ones(len(rows), dtype=bool)
        add[there] = restated | judged
        revision = np.zeros(len(rows), dtype=np.int32)
        revision[there] = before.columns["revision"] + 1
        rows.columns["revision"] = revision
        rows.columns["settled"] = np.zeros(len(rows), dtype=bool)
        gone = known.take(self._vanished(known))
        tombstones = Rows(
            gone.keys,
            {
                **{name: np.full(len(gone), np.nan) for name in PRICE_COLUMNS},
                "status": np.full(len(gone), REMOVED, dtype=np.int8),
                "reason": np.full(len(gone), None, dtype=object),
                "revision": gone.columns["revision"] + np.int32(1),
                "settled": np.zeros(len(gone), dtype=bool),
            },
        )
        new = in_order(concatenate([rows.take(add), tombstones]))
        old_places, has_old = find(known.keys, new.keys)
        old = known.take(old_places[has_old])
        counts = self._counts(
            {
                "added": rows.keys[~there],
                "changed": rows.keys[there][restated],
                "removed": gone.keys,
                "quarantined": rows.keys[add & (rows.columns["status"] == QUARANTINED)],
                "released": rows.keys[there][judged & (status == ACCEPTED)],
            }
        )
        return new, old, counts

    def _vanished(self, known: Rows) -> NDArray[np.bool_]:
        numbers = known.keys >> 32
        inside = (known.keys >= self.windows[0][numbers]) & (known.keys <= self.windows[1][numbers])
        return inside & (known.columns["status"] != REMOVED) & ~find(self.rows.keys, known.keys)[1]

    def _counts(self, keys: Mapping[str, NDArray[np.int64]]) -> pd.DataFrame:
        size = len(self.index.names)
        nothing = np.zeros(0, dtype=np.int64)
        return pd.DataFrame(
            {name: np.bincount(keys.get(name, nothing) >> 32, minlength=size) for name in COUNTS},
            index=pd.Index(self.index.names, name="symbol", dtype="str"),
        )


def _fetched_rows(number: int, symbol: str, fetch: Fetch) -> Rows:
    prices = fetch.prices
    if not symbol or not symbol.isprintable():
        raise ParameterError(f"a symbol must be printable text. Received: {symbol!r}")
    missing = [name for name in PRICE_COLUMNS if name not in prices.columns]
    if missing:
        raise ParameterError(
            f"`prices` must have the columns {', '.join(PRICE_COLUMNS)}. Missing for {symbol}: {', '.join(missing)}"
        )
    if not isinstance(prices.index, pd.DatetimeIndex) or prices.index.tz is not None or prices.index.hasnans:
        raise ParameterError(
            f"`prices` must be indexed by dates without a time zone. Received for {symbol}: {prices.index.dtype}"
        )
    days = prices.index.to_numpy().astype("datetime64[D]").astype(np.int64)
    columns: dict[str, NDArray[Any]] = {
        name: prices[name].to_numpy(dtype=np.float64) for name in PRICE_COLUMNS
    }
    columns["status"] = np.full(len(days), ACCEPTED, dtype=np.int8)
    columns["reason"] = np.full(len(days), None, dtype=object)
    rows = in_order(Rows(SymbolIndex.keys(np.full(len(days), number), days), columns))
    if len(rows) > 1 and bool((rows.keys[1:] == rows.keys[:-1]).any()):
        twice = split_keys(rows.keys[:-1][rows.keys[1:] == rows.keys[:-1]])[1][0]
        raise ParameterError(f"`prices` must have each session once. Twice for {symbol}: {twice}")
    if fetch.quarantined:
        held = np.array(list(fetch.quarantined), dtype="datetime64[D]")
        places, there = find(rows.keys, SymbolIndex.keys(np.full(len(held), number), held.astype(np.int64)))
        if not there.all():
            raise ParameterError(
                f"`quarantined` must name sessions of `prices`. Not one of {symbol}: {held[~there][0]}"
            )
        rows.columns["status"][places] = QUARANTINED
        rows.columns["reason"][places] = list(fetch.quarantined.values())
    return rows


def _files(rows: Rows, index: SymbolIndex) -> list[pa.Table]:
    """Turn sorted rows into tables of `PRICES_SCHEMA`, one for each file."""
    base = (rows.columns["revision"] == 0) & (rows.columns["status"] == ACCEPTED)
    tables = []
    for amended, where in ((False, base), (True, ~base)):
        if where.any():
            tables.append(_table(rows.take(where), index, amended))
    return tables


def _table(rows: Rows, index: SymbolIndex, amended: bool) -> pa.Table:
    numbers, sessions = split_keys(rows.keys)
    columns = rows.columns
    arrays = {
        "symbol": pa.DictionaryArray.from_arrays(pa.array(numbers.astype(np.int32)), list(index.names)).cast(
            pa.string()
        ),
        "session": pa.array(sessions),
        **{name: pa.array(columns[name], from_pandas=True) for name in PRICE_COLUMNS},
        "fetched_at": pa.array(columns["fetched_at"]).cast(PRICES_SCHEMA.field("fetched_at").type),
        "revision": pa.array(columns["revision"]),
        "status": pa.array(np.array(STATUSES)[columns["status"]]),
        "settled": pa.array(columns["settled"]),
        "source": pa.array(columns["source"], pa.string()),
        "reason": pa.array(columns["reason"], pa.string()),
        "amended": pa.array(np.full(len(rows), amended)),
    }
    return pa.table(arrays, schema=PRICES_SCHEMA)


def _restatements(new: Rows, old: Rows, index: SymbolIndex) -> pd.DataFrame:
    """Compare rows with the rows before them, number by number; rows of `new` without one are left out."""
    new = new.take(find(old.keys, new.keys)[1]) if len(new) != len(old) else new
    parts = []
    for name in PRICE_COLUMNS:
        if not len(new):
            break
        other = ~equal_values(old.columns[name], new.columns[name], 0.0)
        numbers, sessions = split_keys(new.keys[other])
        parts.append(
            pd.DataFrame(
                {
                    "symbol": np.array(index.names, dtype=object)[numbers],
                    "session": sessions.astype("datetime64[s]"),
                    "column": name,
                    "old": old.columns[name][other],
                    "new": new.columns[name][other],
                    "old_status": np.array(STATUSES, dtype=object)[old.columns["status"][other]],
                    "new_status": np.array(STATUSES, dtype=object)[new.columns["status"][other]],
                    "old_fetched_at": _timestamps(old.columns["fetched_at"][other]),
                    "new_fetched_at": _timestamps(new.columns["fetched_at"][other]),
                }
            )
        )
    if not parts:
        nothing = np.zeros(0, dtype=np.int64)
        parts = [
            pd.DataFrame(
                {
                    "symbol": np.zeros(0, dtype=object),
                    "session": nothing.astype("datetime64[s]"),
                    "column": np.zeros(0, dtype=object),
                    "old": nothing.astype(np.float64),
                    "new": nothing.astype(np.float64),
                    "old_status": np.zeros(0, dtype=object),
                    "new_status": np.zeros(0, dtype=object),
                    "old_fetched_at": _timestamps(nothing),
                    "new_fetched_at": _timestamps(nothing),
                }
            )
        ]
    frame = pd.concat(parts, ignore_index=True)
    return frame.sort_values(["new_fetched_at", "symbol", "session"], kind="stable", ignore_index=True)


def _frame(rows: Rows, index: SymbolIndex, columns: Sequence[str]) -> pd.DataFrame:
    numbers, sessions = split_keys(rows.keys)
    names = np.array(index.names, dtype=object)
    return pd.DataFrame(
        {
            "symbol": names[numbers] if len(names) else names,
            "session": sessions.astype("datetime64[s]"),
            **{name: rows.columns[name] for name in columns},
        }
    )


def _layout(
    rows: Rows, index: SymbolIndex
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.datetime64]]:
    """Return the symbols that have rows, where each begins, and the sessions."""
    starts = np.searchsorted(rows.keys, np.arange(len(index.names) + 1, dtype=np.int64) << 32)
    present = np.flatnonzero(np.diff(starts))
    names = tuple(index.names[number] for number in present)
    return names, np.append(starts[present], len(rows)), split_keys(rows.keys)[1]


def _microseconds(moment: datetime.datetime, name: str) -> int:
    if moment.tzinfo is None:
        raise ParameterError(
            f"`{name}` must have a time zone. Received: {moment.isoformat()}; give UTC, as +00:00"
        )
    return (moment - _EPOCH) // datetime.timedelta(microseconds=1)


def _optional(moment: datetime.datetime | None, name: str) -> int | None:
    return None if moment is None else _microseconds(moment, name)


def _timestamp(microseconds: int) -> pd.Timestamp:
    return pd.Timestamp(microseconds, unit="us", tz="UTC")


def _timestamps(microseconds: NDArray[np.int64]) -> pd.Series:
    return pd.Series(microseconds.astype("datetime64[us]")).dt.tz_localize("UTC")
