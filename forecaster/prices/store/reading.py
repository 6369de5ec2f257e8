"""Reading rows from the files of one version, in order, without deduplicating what was never restated."""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from forecaster.prices.store.rows import (
    ACCEPTED,
    STATUSES,
    Merged,
    Rows,
    SymbolIndex,
    concatenate,
    in_order,
    latest,
)
from forecaster.prices.store.table import FILE_SCHEMA, File, PricesTable

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["Snapshot", "Span"]

_GROUPS_A_PART = 2
_PARTS_AHEAD = 4
_TEXTS = ("source", "reason")
_NUMBER_OF_STATUS = {name: number for number, name in enumerate(STATUSES)}


@dataclass(frozen=True, slots=True)
class Span:
    """What part of the rows is wanted: sessions and times, both ends counted; None is no bound.

    Parameters
    ----------
    first, last : date or None
        Sessions.
    since, until : int or None
        ``fetched_at`` in microseconds: later than `since`, and no later than `until`.
    """

    first: datetime.date | None = None
    last: datetime.date | None = None
    since: int | None = None
    until: int | None = None

    def misses(self, file: File) -> bool:
        """Whether no row of a file can be wanted."""
        return (
            (self.first is not None and file.last_session is not None and file.last_session < self.first)
            or (self.last is not None and file.first_session is not None and file.first_session > self.last)
            or (self.since is not None and file.last_fetched is not None and file.last_fetched <= self.since)
            or (self.until is not None and file.first_fetched is not None and file.first_fetched > self.until)
        )

    def times_within(self, file: File) -> bool:
        """Whether every row of a file was fetched at a wanted time."""
        return (
            self.since is None or (file.first_fetched is not None and file.first_fetched > self.since)
        ) and (self.until is None or (file.last_fetched is not None and file.last_fetched <= self.until))


class Snapshot:
    """The rows of one version of the table.

    Base files hold at most one row a symbol and session, accepted. The others hold what came after: restated,
    quarantined, settled and removed rows. They are few, so only they are searched for the latest.
    """

    def __init__(self, prices: PricesTable, table: DeltaTable) -> None:
        self._prices = prices
        self.table = table
        files = prices.files(table)
        self.base = [file for file in files if not file.amended]
        self.amended = [file for file in files if file.amended]

    def symbols(self) -> SymbolIndex:
        """Return every symbol that any row has."""
        names: set[str] = set()
        with self._prices.location.errors("read"):
            for file in (*self.base, *self.amended):
                with self._prices.parquet(file) as parquet:
                    for batch in parquet.iter_batches(columns=["symbol"], batch_size=1 << 20):
                        names.update(batch.column(0).dictionary.to_pylist())
        return SymbolIndex(tuple(sorted(names)))

    def amendments(self, index: SymbolIndex, columns: Sequence[str], span: Span) -> Rows:
        """Return all amended rows of a span, not in order."""
        names = dict.fromkeys((*columns, "revision", "status"))
        return self._read_all(self.amended, index, tuple(names), span)

    def unamended(self, index: SymbolIndex, columns: Sequence[str], span: Span) -> Rows:
        """Return all base rows of a span, not in order."""
        return self._read_all(self.base, index, tuple(columns), span)

    def latest(
        self, index: SymbolIndex, columns: Sequence[str], span: Span, *, accepted: bool = True
    ) -> Rows:
        """Return the latest row of every symbol and session, sorted by them.

        Parameters
        ----------
        index : SymbolIndex
            The symbols wanted.
        columns : sequence of str
            Columns to return: numbers as float64, ``fetched_at`` as int64 microseconds, ``status`` as its
            number in `STATUSES`, texts as objects.
        span : Span
            The span; what was known `until` a time is the latest row of that time.
        accepted : bool
            Leave out sessions whose latest row is not accepted.
        """
        overrides = latest(self.amendments(index, columns, span))
        shown = overrides
        if accepted:
            shown = overrides.take(overrides.columns["status"] == ACCEPTED)
        shown = Rows(shown.keys, {name: shown.columns[name] for name in columns})
        wanted = self._wanted(self.base, index, span)
        spine, others = _spine(wanted)
        places = [self._place(file, index, span) for file in spine]
        while True:
            # What lies beside the spine is small: put in order at once, then laid between its rows.
            stray = in_order(self._read_all(others, index, tuple(columns), span))
            beside = Merged(shown, len(stray) + len(shown))
            beside.add(stray, shown, overrides.keys)
            try:
                return _along(places, tuple(columns), beside.rows(), overrides.keys)
            except _UnorderedError as error:
                # Another program wrote this file: its rows are put in order with those beside the spine.
                others = [*others, error.file]
                places = [place for place in places if place.file is not error.file]

    def stored(self, file: File, index: SymbolIndex) -> tuple[pa.Table, NDArray[np.int64]]:
        """Return the rows of some symbols of one file as they are stored, and their keys."""
        with self._prices.location.errors("read"):
            place = self._place(file, index, Span())
            with self._prices.parquet(file, place.metadata) as parquet:
                data = parquet.read_row_groups(place.groups, columns=FILE_SCHEMA.names)
            numbers = _encode(data["symbol"], index)
            keep = numbers >= 0
            days = data["session"].cast(pa.int32()).to_numpy()
            return data.filter(pa.array(keep)), SymbolIndex.keys(numbers, days)[keep]

    def _wanted(self, files: Iterable[File], index: SymbolIndex, span: Span) -> list[File]:
        return [
            file
            for file in files
            if not span.misses(file) and index.meets(file.first_symbol, file.last_symbol)
        ]

    def _read_all(
        self, files: Iterable[File], index: SymbolIndex, columns: tuple[str, ...], span: Span
    ) -> Rows:
        parts = [self.read(file, index, columns, span) for file in self._wanted(files, index, span)]
        return concatenate([_empty(columns), *parts])

    def read(self, file: File, index: SymbolIndex, columns: tuple[str, ...], span: Span) -> Rows:
        """Read the wanted rows of one file, in the order of the file."""
        return self._place(file, index, span).read(columns)

    def _place(self, file: File, index: SymbolIndex, span: Span) -> _Place:
        with self._prices.location.errors("read"), self._prices.parquet(file) as parquet:
            metadata = parquet.metadata
        count = metadata.num_row_groups
        groups = [group for group in range(count) if _group_meets(metadata, group, index, span)]
        return _Place(self._prices, file, metadata, groups, index, span)


@dataclass(frozen=True, slots=True)
class _Place:
    """The row groups of a file that can hold wanted rows."""

    prices: PricesTable
    file: File
    metadata: pq.FileMetaData
    groups: list[int]
    index: SymbolIndex
    span: Span

    def parts(self) -> list[_Place]:
        """Divide into a few row groups each."""
        starts = range(0, len(self.groups), _GROUPS_A_PART)
        return [replace(self, groups=self.groups[start : start + _GROUPS_A_PART]) for start in starts]

    @property
    def sizes(self) -> list[int]:
        """Rows of each group."""
        return [self.metadata.row_group(group).num_rows for group in self.groups]

    @property
    def rows(self) -> int:
        """Rows of all the groups, wanted or not."""
        return sum(self.sizes)

    def read(self, columns: tuple[str, ...]) -> Rows:
        """Read the wanted rows, in the order of the file."""
        if not self.groups:
            return _empty(columns)
        timed = not self.span.times_within(self.file)
        stored = [name for name in columns if name != "status" or self.file.amended]
        needed = list(dict.fromkeys(("session", *stored, *(("fetched_at",) if timed else ()))))
        groups, sizes = self.groups, self.sizes
        # A reader of its own: two threads that read through one wait for each other for ever.
        with (
            self.prices.location.errors("read"),
            self.prices.parquet(self.file, self.metadata) as parquet,
        ):
            numbers = _encode(parquet.read_row_groups(groups, columns=["symbol"])["symbol"], self.index)
            known = numbers >= 0
            # Among groups that can hold a wanted symbol few may: the other columns are read of those only.
            found = np.logical_or.reduceat(known, np.cumsum([0, *sizes[:-1]]))
            if not found.any():
                return _empty(columns)
            if not found.all():
                numbers = numbers[np.repeat(found, sizes)]
                groups = [group for group, there in zip(groups, found, strict=True) if there]
            data = parquet.read_row_groups(groups, columns=needed)
            return _rows(data, numbers, columns, self.span, timed)


class _UnorderedError(Exception):
    """The rows of a file are not in order."""

    def __init__(self, file: File) -> None:
        super().__init__(file.path)
        self.file = file


def _along(
    places: Sequence[_Place], columns: tuple[str, ...], beside: Rows, overridden: NDArray[np.int64]
) -> Rows:
    """Put the rows of the spine and those beside it together, a few row groups at a time.

    Small parts stay in the processor's cache and in memory that was used before.
    """
    if not places:
        return beside
    merged = Merged(beside, sum(place.rows for place in places) + len(beside))
    rows = _empty(columns)
    first = first_overridden = 0
    parts = [part for place in places for part in place.parts()]
    for part, following in _read_ahead(parts, columns):
        if not len(following):
            continue
        if len(rows) and following.keys[0] <= rows.keys[-1]:
            raise _UnorderedError(part.file)
        bound = following.keys[0]
        last, last_overridden = np.searchsorted(beside.keys, bound), np.searchsorted(overridden, bound)
        merged.add(rows, beside.take(slice(first, last)), overridden[first_overridden:last_overridden])
        rows, first, first_overridden = following, last, last_overridden
    merged.add(rows, beside.take(slice(first, None)), overridden[first_overridden:])
    return merged.rows()


def _read_ahead(parts: Sequence[_Place], columns: tuple[str, ...]) -> Iterator[tuple[_Place, Rows]]:
    """Read parts in order, the next ones while the caller works on one."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        coming: deque[Future[Rows]] = deque()
        for number, part in enumerate(parts):
            for following in parts[number + len(coming) : number + _PARTS_AHEAD]:
                coming.append(pool.submit(_read_sorted, following, columns))
            yield part, coming.popleft().result()


def _read_sorted(part: _Place, columns: tuple[str, ...]) -> Rows:
    return in_order(part.read(columns))


def _rows(
    data: pa.Table,
    numbers: NDArray[np.int64],
    columns: tuple[str, ...],
    span: Span,
    timed: bool,
) -> Rows:
    days = data["session"].cast(pa.int32()).to_numpy()
    if len(days) and (days.min() < _day(datetime.date.min) or days.max() > _day(datetime.date.max)):
        raise pa.ArrowInvalid("a session that is no date of the calendar")
    keep = numbers >= 0
    if span.first is not None:
        keep &= days >= _day(span.first)
    if span.last is not None:
        keep &= days <= _day(span.last)
    if timed:
        times = _column(data, "fetched_at")
        keep &= times > (-(1 << 62) if span.since is None else span.since)
        keep &= times <= ((1 << 62) if span.until is None else span.until)
    rows = Rows(SymbolIndex.keys(numbers, days), {name: _column(data, name) for name in columns})
    return rows if keep.all() else rows.take(keep)


def _day(session: datetime.date) -> int:
    return (session - datetime.date(1970, 1, 1)).days


def _column(data: pa.Table, name: str) -> NDArray[Any]:
    values: NDArray[Any]
    if name not in data.column_names:  # the status of base rows, which are all accepted
        return np.full(data.num_rows, ACCEPTED, dtype=np.int8)
    column = data[name]
    if name == "fetched_at":
        values = column.cast(pa.int64()).to_numpy()
        return values
    if name == "status":
        column = column.combine_chunks()
        table = np.array([_NUMBER_OF_STATUS[text] for text in column.dictionary.to_pylist()], dtype=np.int8)
        return table[column.indices.to_numpy()] if len(table) else np.zeros(0, dtype=np.int8)
    if name in _TEXTS:
        values = column.cast(pa.string()).to_numpy(zero_copy_only=False)
        return values
    values = column.to_numpy()
    return values


def _empty(columns: Sequence[str]) -> Rows:
    types = {"fetched_at": np.int64, "revision": np.int32, "status": np.int8, "settled": np.bool_}
    return Rows(
        np.zeros(0, dtype=np.int64),
        {
            name: np.zeros(0, dtype=object if name in _TEXTS else types.get(name, np.float64))
            for name in columns
        },
    )


def _encode(symbols: pa.ChunkedArray, index: SymbolIndex) -> NDArray[np.int64]:
    parts = []
    for chunk in symbols.chunks:
        table = index.encode(chunk.dictionary.to_pylist())
        parts.append(table[chunk.indices.to_numpy()])
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _group_meets(metadata: pq.FileMetaData, group: int, index: SymbolIndex, span: Span) -> bool:
    """Whether a row group can hold a wanted row, by its statistics."""
    columns = metadata.row_group(group)
    for number in range(columns.num_columns):
        column = columns.column(number)
        found = column.statistics
        if found is None or not found.has_min_max:
            continue
        if column.path_in_schema == "symbol" and not index.meets(found.min, found.max):
            return False
        if column.path_in_schema == "session" and (
            (span.first is not None and found.max < span.first)
            or (span.last is not None and found.min > span.last)
        ):
            return False
    return True


def _spine(files: Sequence[File]) -> tuple[list[File], list[File]]:
    """Choose large files whose symbols do not overlap, in order, to be read one by one, and the others."""
    spine: list[File] = []
    others: list[File] = []
    for file in sorted(files, key=lambda file: (-file.rows, file.path)):
        bounded = file.first_symbol is not None and file.last_symbol is not None
        if bounded and all(_apart(file, other) for other in spine):
            spine.append(file)
        else:
            others.append(file)
    return sorted(spine, key=lambda file: file.first_symbol or ""), others


def _apart(a: File, b: File) -> bool:
    # Both have bounds: only such files are laid on the spine.
    return (a.last_symbol or "") < (b.first_symbol or "") or (b.last_symbol or "") < (a.first_symbol or "")
