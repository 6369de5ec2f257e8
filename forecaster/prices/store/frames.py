"""Rows as the frames and times that callers see."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster.errors import ParameterError
from forecaster.prices.checks import PRICE_COLUMNS
from forecaster.prices.store.rows import (
    STATUSES,
    Rows,
    SymbolIndex,
    equal_values,
    find,
    sessions_in_place,
    split_keys,
)

__all__ = ["layout", "microseconds", "restatements", "table", "timestamp", "timestamps"]

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def restatements(new: Rows, old: Rows, index: SymbolIndex) -> pd.DataFrame:
    """Compare rows with the rows before them, number by number; rows of `new` without one are left out."""
    new = new.take(find(old.keys, new.keys)[1]) if len(new) != len(old) else new
    changed = [~equal_values(old.columns[name], new.columns[name], 0.0) for name in PRICE_COLUMNS]
    # One row a number: the places of the rows in which each column differs, column after column.
    places = np.concatenate([np.flatnonzero(where) for where in changed])
    names = np.repeat(np.array(PRICE_COLUMNS, dtype=object), [int(where.sum()) for where in changed])
    order = np.lexsort((new.keys[places], new.columns["fetched_at"][places]))
    places, names = places[order], names[order]
    numbers, sessions = split_keys(new.keys[places])
    values: dict[str, NDArray[np.float64]] = {}
    for side, rows in (("old", old), ("new", new)):
        values[side] = np.empty(len(places))
        for name in PRICE_COLUMNS:
            of_name = names == name
            values[side][of_name] = rows.columns[name][places[of_name]]
    statuses = np.array(STATUSES, dtype=object)
    return pd.DataFrame(
        {
            "symbol": np.array(index.names, dtype=object)[numbers],
            "session": sessions.astype("datetime64[s]"),
            "column": names,
            "old": values["old"],
            "new": values["new"],
            "old_status": statuses[old.columns["status"][places]],
            "new_status": statuses[new.columns["status"][places]],
            "old_fetched_at": timestamps(old.columns["fetched_at"][places]),
            "new_fetched_at": timestamps(new.columns["fetched_at"][places]),
        }
    ).astype(dict.fromkeys(("symbol", "column", "old_status", "new_status"), "str"))


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
    """Return the symbols that have rows, where each begins, and the sessions; these replace the keys."""
    starts = np.searchsorted(rows.keys, np.arange(len(index.names) + 1, dtype=np.int64) << 32)
    present = np.flatnonzero(np.diff(starts))
    names = tuple(index.names[number] for number in present)
    return names, np.append(starts[present], len(rows)), sessions_in_place(rows.keys)


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
