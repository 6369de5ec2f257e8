"""What goes into the store and what comes out of it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["COUNTS", "Closes", "Compaction", "Fetch", "StoredPrices", "WriteResult"]

COUNTS = ("added", "changed", "removed", "quarantined", "released")
"""What a write did, by symbol: the columns of `WriteResult.counts`."""


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
        When the rows count as known: the time given or, if the store knew later things already, just after
        them.
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


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction did.

    Parameters
    ----------
    files_before, files_after : int
        Files of price rows that a read opens.
    rows_dropped : int
        Rows that no read needs any more.
    files_deleted : int
        Files, no longer part of any version kept, that were deleted.
    lost : tuple of Timestamp
        Times among `keep` whose rows an earlier compaction dropped; they cannot be read.
    """

    files_before: int
    files_after: int
    rows_dropped: int
    files_deleted: int
    lost: tuple[pd.Timestamp, ...]
