"""The table of fetches: one row a symbol and write, also where nothing was new."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, cast

import pandas as pd
import pyarrow as pa

from forecaster.prices.store.table import Location, vacuum

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["FetchesTable"]

_COUNTS = ("added", "changed", "removed", "quarantined", "released")

_SCHEMA = pa.schema(
    [
        ("symbol", pa.string()),
        ("fetched_at", pa.timestamp("us", tz="UTC")),
        ("source", pa.string()),
        ("first", pa.date32()),
        ("last", pa.date32()),
        ("full", pa.bool_()),
        *((name, pa.int64()) for name in _COUNTS),
        ("notice", pa.string()),
    ]
)


class _Fetch(Protocol):
    @property
    def window(self) -> tuple[datetime.date, datetime.date] | None: ...

    @property
    def full(self) -> bool: ...

    @property
    def notice(self) -> str | None: ...


class FetchesTable:
    """When each symbol was fetched, and what it brought.

    Written after the prices: a process killed between the two leaves prices whose fetch is not recorded, and
    fetches them once more.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._url = location.table("fetches")

    def add(self, fetches: Mapping[str, _Fetch], counts: pd.DataFrame, moment: int, source: str) -> None:
        """Record a write."""
        from deltalake import write_deltalake

        names = list(counts.index)
        windows = [fetches[name].window or (None, None) for name in names]
        data = pa.table(
            {
                "symbol": names,
                "fetched_at": pa.array([moment] * len(names), pa.int64()).cast(
                    _SCHEMA.field("fetched_at").type
                ),
                "source": [source] * len(names),
                "first": pa.array([window[0] for window in windows], pa.date32()),
                "last": pa.array([window[1] for window in windows], pa.date32()),
                "full": [fetches[name].full for name in names],
                **{name: counts[name].to_numpy() for name in _COUNTS},
                "notice": pa.array([fetches[name].notice for name in names], pa.string()),
            },
            schema=_SCHEMA,
        )
        # Each row is a fact of its own, so appends need no conflict.
        with self._location.errors("write"):
            write_deltalake(self._url, data, mode="append", storage_options=self._location.options or None)

    def first_fetched(self, names: Iterable[str]) -> dict[str, pd.Timestamp]:
        """Return when each symbol was first fetched; one whose first fetch was not recorded is absent."""
        data = self._read(["symbol", "fetched_at"])
        first = data.groupby("symbol")["fetched_at"].min().to_dict()
        return {name: first[name] for name in names if name in first}

    def summary(self) -> pd.DataFrame:
        """Return first, last and last full fetch of each symbol, with source and notice of the last."""
        data = self._read(["symbol", "fetched_at", "source", "full", "notice"]).sort_values(
            "fetched_at", kind="stable"
        )
        groups = data.groupby("symbol")
        last = data.drop_duplicates("symbol", keep="last").set_index("symbol")
        return pd.DataFrame(
            {
                "first_fetched": groups["fetched_at"].min(),
                "last_fetched": groups["fetched_at"].max(),
                "last_full": data[data["full"]].groupby("symbol")["fetched_at"].max(),
                "source": last["source"],
                "notice": last["notice"],
            }
        )

    def compact(self, after: datetime.timedelta) -> None:
        """Merge small files and delete those replaced longer ago than `after`."""
        table = self._open()
        if table is not None:
            with self._location.errors("write"):
                table.optimize.compact()
                vacuum(table, after)

    def _read(self, columns: list[str]) -> pd.DataFrame:
        table = self._open()
        if table is None:
            return cast(pd.DataFrame, _SCHEMA.empty_table().select(columns).to_pandas())
        with self._location.errors("read"):
            return table.to_pandas(columns=columns)

    def _open(self) -> DeltaTable | None:
        from deltalake import DeltaTable

        options = self._location.options or None
        with self._location.errors("read"):
            return (
                DeltaTable(self._url, storage_options=options)
                if DeltaTable.is_deltatable(self._url, options)
                else None
            )
