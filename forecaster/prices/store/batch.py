"""A batch of fetches against what is known: which rows are new, changed or gone."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster.errors import ParameterError
from forecaster.prices.checks import PRICE_COLUMNS
from forecaster.prices.store.reading import Span
from forecaster.prices.store.results import COUNTS, Fetch
from forecaster.prices.store.rows import (
    ACCEPTED,
    QUARANTINED,
    REMOVED,
    Rows,
    SymbolIndex,
    concatenate,
    equal_values,
    find,
    in_order,
    split_keys,
)

__all__ = ["Batch"]

_NO_ROWS = Rows(
    np.zeros(0, dtype=np.int64),
    {
        **{name: np.zeros(0) for name in PRICE_COLUMNS},
        "status": np.zeros(0, dtype=np.int8),
        "reason": np.zeros(0, dtype=object),
    },
)


@dataclass(frozen=True, eq=False)
class Batch:
    """All fetches of a write as sorted rows."""

    index: SymbolIndex
    rows: Rows
    windows: tuple[NDArray[np.int64], NDArray[np.int64]]
    span: Span

    @classmethod
    def of(cls, fetches: Mapping[str, Fetch]) -> Batch:
        """Put the fetches of all symbols together.

        Raises
        ------
        ParameterError
            If a symbol, a price table, a window or a quarantined session breaks a rule of `Fetch`.
        """
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
        return cls(index, concatenate([_NO_ROWS, *parts]), (lows, highs), span)

    def compare(self, known: Rows, tolerance: float) -> tuple[Rows, Rows, pd.DataFrame]:
        """Return the rows to add, the known row before each that has one, and the counts of each symbol."""
        rows = self.rows
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
        gone: NDArray[np.bool_] = inside & (known.columns["status"] != REMOVED)
        return gone & ~find(self.rows.keys, known.keys)[1]

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
            f"`prices` must have the columns {', '.join(PRICE_COLUMNS)}. "
            f"Missing for {symbol}: {', '.join(missing)}"
        )
    if not isinstance(prices.index, pd.DatetimeIndex) or prices.index.tz is not None or prices.index.hasnans:
        raise ParameterError(
            f"`prices` must be indexed by dates without a time zone. "
            f"Received for {symbol}: {prices.index.dtype}"
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
