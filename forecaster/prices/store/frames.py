"""Rows as the frames and times that callers see."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster.errors import ParameterError
from forecaster.prices.checks import PRICE_COLUMNS
from forecaster.prices.store.rows import STATUSES, Rows, SymbolIndex, equal_values, find, split_keys

__all__ = ["layout", "microseconds", "restatements", "table", "timestamp", "timestamps"]

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def restatements(new: Rows, old: Rows, index: SymbolIndex) -> pd.DataFrame:
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
                    "old_fetched_at": timestamps(old.columns["fetched_at"][other]),
                    "new_fetched_at": timestamps(new.columns["fetched_at"][other]),
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
                    "old_fetched_at": timestamps(nothing),
                    "new_fetched_at": timestamps(nothing),
                }
            )
        ]
    frame = pd.concat(parts, ignore_index=True)
    return frame.sort_values(["new_fetched_at", "symbol", "session"], kind="stable", ignore_index=True)


def table(rows: Rows, index: SymbolIndex, columns: Sequence[str]) -> pd.DataFrame:
    """Return rows with their symbols, sessions and some columns."""
    numbers, sessions = split_keys(rows.keys)
    names = np.array(index.names, dtype=object)
    return pd.DataFrame(
        {
            "symbol": names[numbers] if len(names) else names,
            "session": sessions.astype("datetime64[s]"),
            **{name: rows.columns[name] for name in columns},
        }
    )


def layout(
    rows: Rows, index: SymbolIndex
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.datetime64]]:
    """Return the symbols that have rows, where each begins, and the sessions."""
    starts = np.searchsorted(rows.keys, np.arange(len(index.names) + 1, dtype=np.int64) << 32)
    present = np.flatnonzero(np.diff(starts))
    names = tuple(index.names[number] for number in present)
    return names, np.append(starts[present], len(rows)), split_keys(rows.keys)[1]


def microseconds(moment: datetime.datetime, name: str) -> int:
    """Return a time as microseconds since 1970, UTC; `name` is what the message calls it."""
    if moment.tzinfo is None:
        raise ParameterError(
            f"`{name}` must have a time zone. Received: {moment.isoformat()}; give UTC, as +00:00"
        )
    return (moment - _EPOCH) // datetime.timedelta(microseconds=1)


def timestamp(microseconds: int) -> pd.Timestamp:
    """Return microseconds since 1970 as a time in UTC."""
    return pd.Timestamp(microseconds, unit="us", tz="UTC")


def timestamps(microseconds: NDArray[np.int64]) -> pd.Series:
    """Return microseconds since 1970 as times in UTC."""
    return pd.Series(microseconds.astype("datetime64[us]")).dt.tz_localize("UTC")
