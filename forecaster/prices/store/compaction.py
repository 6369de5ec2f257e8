"""Merging small files and dropping rows that no read needs any more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from forecaster.prices.store.layout import Piece, arrange, divide
from forecaster.prices.store.reading import Snapshot, Span
from forecaster.prices.store.rows import ACCEPTED, Rows, SymbolIndex, concatenate, find
from forecaster.prices.store.table import ConflictError, File, PricesTable

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["compact"]

_NEVER = np.iinfo(np.int64).max
_FILES_AT_ONCE = 4
_Stored = tuple[pa.Table, NDArray[np.int64]]  # rows as they are stored, and their keys
_TRIMMED = "forecaster.trimmed"
_TRIMS = "forecaster.trims"  # how often rows were dropped; a time is kept if the last of them says so
_KEPT = "forecaster.kept.{}"


def horizon(table: DeltaTable) -> int | None:
    """Return the time before which only kept times can be read, or None if nothing was ever dropped."""
    return table.transaction_version(_TRIMMED)


def readable(table: DeltaTable, known_at: int) -> bool:
    """Whether every row that a read of `known_at` needs is still there."""
    before = horizon(table)
    if before is None or known_at >= before:
        return True
    return table.transaction_version(_KEPT.format(known_at)) == table.transaction_version(_TRIMS)


@dataclass(frozen=True, eq=False)
class _Trim:
    """What is to be dropped, and what moves to the base.

    Parameters
    ----------
    dropped_base : ndarray of int64
        Sorted keys of base rows that nobody needs.
    dropped, promoted : Rows with ``revision``
        Amended rows that nobody needs, and those that become the base row of their key.
    """

    dropped_base: NDArray[np.int64]
    dropped: Rows
    promoted: Rows


def compact(
    prices: PricesTable, table: DeltaTable, before: int | None, keep: Sequence[int], rows_per_file: int
) -> tuple[int, int, int, tuple[int, ...]]:
    """Compact one version.

    Returns
    -------
    files_before, files_after, rows_dropped : int
    lost : tuple of int
        Times of `keep` that can no longer be read.
    """
    snapshot = Snapshot(prices, table)
    index = snapshot.symbols()
    if not snapshot.base and not snapshot.amended:
        return 0, 0, 0, ()
    lost = tuple(moment for moment in keep if not readable(table, moment))
    marks: dict[str, int] = {}
    trim = _nothing()
    if before is not None:
        before = max(before, horizon(table) or before)
        kept = sorted({moment for moment in keep if moment not in lost and moment < before})
        trim = _trim(snapshot, index, before, np.array(kept, dtype=np.int64))
        trims = (table.transaction_version(_TRIMS) or 0) + 1
        marks = {_TRIMMED: before, _TRIMS: trims, **{_KEPT.format(moment): trims for moment in kept}}
    base = _base_files(snapshot, index, trim, rows_per_file)
    amended = snapshot.amended
    if not len(trim.dropped) and not len(trim.promoted):
        amended = _small(amended, rows_per_file, 1)
    removed = [*base, *amended]
    dropped = len(trim.dropped_base) + len(trim.dropped)
    count = len(snapshot.base) + len(snapshot.amended)
    if not removed:
        if horizon(table) != marks.get(_TRIMMED, horizon(table)):
            prices.commit(table, (), prices.mark(table) or 0, marks=marks)
        return count, count, 0, lost

    added = 0

    def fresh() -> Iterator[Piece]:
        nonlocal added
        for piece in _rewritten(snapshot, index, trim, base, amended, rows_per_file):
            added += 1
            yield piece

    # Whoever appended meanwhile did not touch these files, so only another compaction is in the way.
    written = prices.write_files(fresh())
    newest = prices.create()
    paths = {file.path for file in prices.files(newest)}
    if any(file.path not in paths for file in removed):
        raise ConflictError("another compaction was faster")
    prices.commit(newest, written, prices.mark(newest) or 0, removed, marks, data_change=dropped > 0)
    return count, count - len(removed) + added, dropped, lost


def _nothing() -> _Trim:
    keys = np.zeros(0, dtype=np.int64)
    rows = Rows(keys, {"revision": keys.astype(np.int32)})
    return _Trim(keys, rows, rows)


def _trim(snapshot: Snapshot, index: SymbolIndex, before: int, kept: NDArray[np.int64]) -> _Trim:
    """Find the rows that neither a kept time nor any time from `before` on sees, in chains of revisions."""
    names = ("fetched_at", "revision", "status")
    amended = snapshot.amendments(index, names, Span())
    if not len(amended):
        return _nothing()
    touched = index.present(amended.keys)
    amended = snapshot.amendments(touched, names, Span())
    base = snapshot.unamended(touched, names, Span())
    base = base.take(np.isin(base.keys, amended.keys))
    rows = concatenate([base, amended])
    from_base = np.arange(len(rows)) < len(base)
    order = np.lexsort((rows.columns["revision"], rows.keys))
    rows, from_base = rows.take(order), from_base[order]
    starts = rows.columns["fetched_at"]
    ends = np.full(len(rows), _NEVER)
    ends[:-1][rows.keys[1:] == rows.keys[:-1]] = starts[1:][rows.keys[1:] == rows.keys[:-1]]
    needed = (ends > before) | (np.searchsorted(kept, starts) < np.searchsorted(kept, ends))
    left = rows.take(needed)
    oldest = np.ones(len(left), dtype=bool)
    oldest[1:] = left.keys[1:] != left.keys[:-1]
    promoted = left.take(oldest & ~from_base[needed] & (left.columns["status"] == ACCEPTED))
    rows, promoted = (Rows(index.translate(some.keys, touched), some.columns) for some in (rows, promoted))
    return _Trim(rows.keys[~needed & from_base], rows.take(~needed & ~from_base), promoted)


def _base_files(snapshot: Snapshot, index: SymbolIndex, trim: _Trim, rows_per_file: int) -> list[File]:
    """Choose the base files to write anew: small ones if that makes fewer, and those that lose rows."""
    losing: list[File] = []
    if len(trim.dropped_base):
        touched = index.present(trim.dropped_base)
        for file in snapshot.base:
            keys = index.translate(snapshot.read(file, touched, (), Span()).keys, touched)
            if find(trim.dropped_base, keys)[1].any():
                losing.append(file)
    # Two: one of the past and one of recent days.
    small = _small(snapshot.base, rows_per_file, 1 if _rows(snapshot.base) <= rows_per_file // 2 else 2)
    return [file for file in snapshot.base if file in small or file in losing]


def _small(files: Sequence[File], rows_per_file: int, fewest: int) -> list[File]:
    """Return the small files, or none if merging them would only make as many again."""
    small = [file for file in files if file.rows < rows_per_file // 2]
    return small if len(small) > fewest + _rows(small) // rows_per_file else []


def _rows(files: Sequence[File]) -> int:
    return sum(file.rows for file in files)


def _rewritten(
    snapshot: Snapshot,
    index: SymbolIndex,
    trim: _Trim,
    base: Sequence[File],
    amended: Sequence[File],
    rows_per_file: int,
) -> Iterator[Piece]:
    """Make the new files, a range of symbols at a time so that memory stays bounded."""
    blocks = -(-_rows(base) // (_FILES_AT_ONCE * rows_per_file))
    size = max(1, -(-len(index.names) // max(1, blocks)))
    for start in range(0, len(index.names), size):
        part = SymbolIndex(index.names[start : start + size])
        kept: list[_Stored] = []
        for file in base:
            data, keys = snapshot.stored(file, part)
            keys = index.translate(keys, part)
            stay = ~find(trim.dropped_base, keys)[1]
            kept.append((data.filter(pa.array(stay)), keys[stay]))
        for file in amended if len(trim.promoted) else ():
            data, keys = snapshot.stored(file, part)
            keys = index.translate(keys, part)
            move = _member(trim.promoted, keys, data)
            kept.append((data.filter(pa.array(move)), keys[move]))
        yield from _sorted_pieces(kept, rows_per_file, amended=False)
    kept = []
    for file in amended:
        data, keys = snapshot.stored(file, index)
        stay = ~_member(trim.promoted, keys, data) & ~_member(trim.dropped, keys, data)
        kept.append((data.filter(pa.array(stay)), keys[stay]))
    yield from _sorted_pieces(kept, rows_per_file, amended=True)


def _member(some: Rows, keys: NDArray[np.int64], data: pa.Table) -> NDArray[np.bool_]:
    """Whether each row, by key and revision, is one of `some`."""
    if not len(some):
        return np.zeros(len(keys), dtype=bool)
    # Revisions of a key are few: a pair becomes one number by the place of its key.
    unique = np.unique(some.keys)
    places, there = find(unique, keys)
    wanted = np.unique((find(unique, some.keys)[0] << 32) + some.columns["revision"])
    return there & find(wanted, (places << 32) + data["revision"].to_numpy())[1]


def _sorted_pieces(parts: Sequence[_Stored], rows_per_file: int, *, amended: bool) -> Iterator[Piece]:
    filled = [(data, keys) for data, keys in parts if len(keys)]
    if not filled:
        return
    data = pa.concat_tables([data for data, _ in filled]).unify_dictionaries()
    keys = np.concatenate([keys for _, keys in filled])
    order = np.lexsort((data["revision"].to_numpy(), keys))
    keys = keys[order]
    for where in (
        divide(keys, np.arange(len(keys)), rows_per_file) if amended else arrange(keys, rows_per_file)
    ):
        yield amended, data.take(pa.array(order[where]))
