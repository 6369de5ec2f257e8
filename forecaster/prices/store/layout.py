"""How rows are laid out in files, so that the usual reads open few of them.

A file is sorted by symbol and session and holds about `ROWS_PER_FILE` rows of a range of symbols at most.
Where there are many rows, those of the last `RECENT_DAYS` days have files of their own, and a daily update
compares with no others.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from forecaster.prices.checks import PRICE_COLUMNS
from forecaster.prices.store.rows import ACCEPTED, STATUSES, Rows, SymbolIndex, split_keys
from forecaster.prices.store.table import FILE_SCHEMA

__all__ = ["RECENT_DAYS", "ROWS_PER_FILE", "Piece", "arrange", "pieces"]

ROWS_PER_FILE = 2_000_000
"""Rows of a large file: some 60 to 100 MB."""

RECENT_DAYS = 60
"""Calendar days before the newest session that are kept apart."""

Piece = tuple[bool, pa.Table]
"""Rows for one file, with `FILE_SCHEMA`'s columns, and whether they are amended."""


def arrange(keys: NDArray[np.int64], rows_per_file: int) -> list[NDArray[np.int64]]:
    """Divide sorted keys of first sights into files.

    Returns
    -------
    list of ndarray
        Positions of the rows of each file, in order.
    """
    if len(keys) <= rows_per_file // 2:
        return [np.arange(len(keys))] if len(keys) else []
    sessions = split_keys(keys)[1]
    recent = sessions > sessions.max() - np.timedelta64(RECENT_DAYS, "D")
    files: list[NDArray[np.int64]] = []
    for where in (np.flatnonzero(~recent), np.flatnonzero(recent)):
        files += divide(keys, where, rows_per_file)
    return files


def divide(keys: NDArray[np.int64], where: NDArray[np.int64], rows_per_file: int) -> list[NDArray[np.int64]]:
    """Divide the rows `where` of sorted keys into files of at most about `rows_per_file`, between symbols."""
    count = -(-len(where) // rows_per_file)
    if count <= 1:
        return [where] if len(where) else []
    numbers = keys[where] >> 32
    starts = np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1]])
    wanted = np.arange(1, count) * len(where) // count
    cuts = np.unique(starts[np.clip(np.searchsorted(starts, wanted), 0, len(starts) - 1)])
    return [part for part in np.split(where, cuts) if len(part)]


def pieces(rows: Rows, index: SymbolIndex, rows_per_file: int) -> Iterator[Piece]:
    """Turn sorted new rows, complete in all columns, into tables for files."""
    first_sight = (rows.columns["revision"] == 0) & (rows.columns["status"] == ACCEPTED)
    base = rows.take(first_sight)
    for where in arrange(base.keys, rows_per_file):
        yield False, _table(base.take(where), index)
    amended = rows.take(~first_sight)
    for where in divide(amended.keys, np.arange(len(amended)), rows_per_file):
        yield True, _table(amended.take(where), index)


def _table(rows: Rows, index: SymbolIndex) -> pa.Table:
    numbers, sessions = split_keys(rows.keys)
    columns = rows.columns
    present, codes = np.unique(numbers, return_inverse=True)
    names = pa.array([index.names[number] for number in present], pa.string())
    arrays = {
        "symbol": pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), names),
        "session": pa.array(sessions),
        **{name: pa.array(columns[name], from_pandas=True) for name in PRICE_COLUMNS},
        "fetched_at": pa.array(columns["fetched_at"]).cast(FILE_SCHEMA.field("fetched_at").type),
        "revision": pa.array(columns["revision"]),
        "status": pa.DictionaryArray.from_arrays(pa.array(columns["status"]), list(STATUSES)),
        "settled": pa.array(columns["settled"]),
        "source": pa.array(columns["source"], pa.string()).dictionary_encode(),
        "reason": pa.array(columns["reason"], pa.string()).dictionary_encode(),
    }
    return pa.table({name: arrays[name] for name in FILE_SCHEMA.names})
