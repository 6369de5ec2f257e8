"""Rows of prices as sorted NumPy columns: keys, the latest row of each session, merging."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ACCEPTED",
    "QUARANTINED",
    "REJECTED",
    "REMOVED",
    "STATUSES",
    "Merged",
    "Rows",
    "SymbolIndex",
    "concatenate",
    "equal_values",
    "latest",
    "sessions_in_place",
    "split_keys",
]

STATUSES = ("accepted", "quarantined", "rejected", "removed")
"""What the latest row of a symbol and session says about it; only accepted rows are read."""

ACCEPTED, QUARANTINED, REJECTED, REMOVED = range(4)

_SHIFT = 32
_EPOCH = 1 << 31  # days may lie before 1970, and a key must sort as (symbol, day) does


@dataclass(frozen=True)
class SymbolIndex:
    """The symbols of a read, sorted, and the number of each.

    Parameters
    ----------
    names : tuple of str
        Distinct symbols in the order of their code points, which is how Delta and Parquet order text.
    """

    names: tuple[str, ...]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Number of each symbol."""
        return {name: number for number, name in enumerate(self.names)}

    def encode(self, symbols: Iterable[str]) -> NDArray[np.int64]:
        """Return the number of each symbol, -1 where it is not of this read."""
        numbers = self.numbers
        return np.array([numbers.get(symbol, -1) for symbol in symbols], dtype=np.int64)

    def start(self, symbol: str) -> int:
        """Return the least key that a row of `symbol`, or of any symbol after it, can have."""
        return bisect.bisect_left(self.names, symbol) << _SHIFT

    def meets(self, first: str | None, last: str | None) -> bool:
        """Whether any symbol lies within [first, last]; None is no bound."""
        place = 0 if first is None else bisect.bisect_left(self.names, first)
        return place < len(self.names) and (last is None or self.names[place] <= last)

    def present(self, keys: NDArray[np.int64]) -> SymbolIndex:
        """Return the symbols that occur in keys, as an index of their own."""
        return SymbolIndex(tuple(self.names[number] for number in np.unique(keys >> _SHIFT)))

    def translate(self, keys: NDArray[np.int64], other: SymbolIndex) -> NDArray[np.int64]:
        """Return keys of `other`, all of whose symbols are in this index, as keys of this index."""
        numbers = self.encode(other.names)
        translated: NDArray[np.int64] = (numbers[keys >> _SHIFT] << _SHIFT) + (keys & ((1 << _SHIFT) - 1))
        return translated

    @staticmethod
    def keys(numbers: NDArray[np.int64], days: NDArray[Any]) -> NDArray[np.int64]:
        """Pack symbol numbers and days since 1970-01-01 into keys that sort by symbol, then session."""
        keys: NDArray[np.int64] = numbers << _SHIFT
        keys += days
        keys += _EPOCH
        return keys


def split_keys(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.datetime64]]:
    """Return the symbol numbers and the sessions (datetime64[D]) of keys."""
    days = (keys & ((1 << _SHIFT) - 1)) - _EPOCH
    return keys >> _SHIFT, days.view("datetime64[D]")


def sessions_in_place(keys: NDArray[np.int64]) -> NDArray[np.datetime64]:
    """Turn keys, which are of no use afterwards, into sessions (datetime64[D]) without more memory."""
    keys &= (1 << _SHIFT) - 1
    keys -= _EPOCH
    return keys.view("datetime64[D]")


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows in columns.

    Parameters
    ----------
    keys : ndarray of shape (n,), int64
        Symbol and session of each row.
    columns : dict of str to ndarray of shape (n,)
        Anything else.
    """

    keys: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, where: Any) -> Rows:
        """Return the rows at `where`: a mask, positions or a slice."""
        if getattr(where, "dtype", None) == np.bool_ and where.all():
            return Rows(self.keys, dict(self.columns))
        return Rows(self.keys[where], {name: column[where] for name, column in self.columns.items()})


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Put rows with the same columns one after the other; at least one part is needed."""
    parts = [part for part in parts if len(part)] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    keys = np.concatenate([part.keys for part in parts])
    return Rows(
        keys, {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    )


def in_order(rows: Rows) -> Rows:
    """Sort by key, unless the rows are sorted already; equal keys keep their order."""
    if len(rows) < 2 or bool((rows.keys[1:] > rows.keys[:-1]).all()):
        return rows
    return rows.take(np.argsort(rows.keys, kind="stable"))


def latest(rows: Rows) -> Rows:
    """Keep the row of the highest ``revision`` of each key, sorted by key."""
    order = np.lexsort((rows.columns["revision"], rows.keys))
    keys = rows.keys[order]
    last = np.ones(len(keys), dtype=bool)
    last[:-1] = keys[1:] != keys[:-1]
    return rows.take(order[last])


def find(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return for each of `wanted` its place in sorted `keys`, and whether it is there."""
    places = np.searchsorted(keys, wanted)
    there = np.zeros(len(wanted), dtype=bool)
    inside = places < len(keys)
    there[inside] = keys[places[inside]] == wanted[inside]
    return places, there


class Merged:
    """Sorted rows that grow part by part; the parts come in the order of their keys.

    Everything is written once, where it stays: at tens of millions of rows, memory that is touched anew costs
    as much as reading the files does.

    Parameters
    ----------
    like : Rows
        Rows with the columns wanted.
    capacity : int
        Rows that there can be at most.
    """

    def __init__(self, like: Rows, capacity: int) -> None:
        self._size = 0
        self._keys = np.empty(capacity, dtype=np.int64)
        self._columns = {name: np.empty(capacity, column.dtype) for name, column in like.columns.items()}

    def add(self, rows: Rows, more: Rows, overridden: NDArray[np.int64]) -> None:
        """Append `rows` without the keys `overridden`, and `more` in their place or between them.

        All three are sorted by key, and each has a key once. Keys of `more` that `rows` has are overridden.
        """
        places, there = find(rows.keys, overridden)
        gone = places[there & ~find(more.keys, overridden)[1]]
        if len(gone):
            keep = np.ones(len(rows), dtype=bool)
            keep[gone] = False
            rows = rows.take(keep)
        places, instead = find(rows.keys, more.keys)
        places += np.cumsum(~instead) - ~instead  # where each of `more` comes to lie
        size = len(rows) + int((~instead).sum())
        stay = np.ones(size, dtype=bool)
        stay[places[~instead]] = False
        whole = bool(stay.all())
        part = slice(self._size, self._size + size)
        self._size += size
        pairs = [(self._keys, rows.keys, more.keys)]
        pairs += [(into, rows.columns[name], more.columns[name]) for name, into in self._columns.items()]
        for into, column, extra in pairs:
            target = into[part]
            if whole:
                target[:] = column
            else:
                target[stay] = column
            target[places] = extra

    def rows(self) -> Rows:
        """Return what was put together."""
        columns = {name: column[: self._size] for name, column in self._columns.items()}
        return Rows(self._keys[: self._size], columns)


def equal_values(a: NDArray[np.float64], b: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    """Whether numbers are equal, or both NaN, or differ by no more than `tolerance` times the larger."""
    with np.errstate(invalid="ignore"):
        near = np.abs(a - b) <= tolerance * np.maximum(np.abs(a), np.abs(b))
    equal: NDArray[np.bool_] = (a == b) | near | (np.isnan(a) & np.isnan(b))
    return equal
