"""Look into the price store of a job, settle what is quarantined, and tidy it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from forecaster.errors import DataError, JobError, SymbolError
from forecaster.job import Job
from forecaster.prices.base import did_you_mean
from forecaster.prices.checks import IMPOSSIBLE, SEVERITIES
from pipelines.loading import JobData, job_calendars, open_store
from pipelines.results import write_table

if TYPE_CHECKING:
    from forecaster.prices.store import Compaction

__all__ = [
    "Compacted",
    "compact_data",
    "data_diff",
    "data_quarantine",
    "data_status",
    "forecasts_that_saw",
    "issued_forecasts",
    "settle_session",
    "write_restatements",
]

ISSUED = ["symbol", "origin", "known_at"]


@dataclass(frozen=True, slots=True)
class Compacted:
    """What tidying the store did.

    Parameters
    ----------
    done : Compaction
        What became of files and rows.
    kept : int
        Times before that of which everything known was kept, because forecasts were made then.
    """

    done: Compaction
    kept: int


def data_status(job: Job, symbols: Sequence[str] = ()) -> pd.DataFrame:
    """State of each symbol in the store, and how far it lies behind its exchange.

    Returns
    -------
    DataFrame indexed by symbol
        As `PriceStore.status` gives it, and ``behind``: sessions that the exchange has finished since the
        last one stored; missing where the calendar of the symbol is not known.
    """
    status = open_store(job).status()
    wanted = _wanted(job, symbols, lambda: status.index)
    if wanted:
        status = status.reindex(pd.Index(wanted, name="symbol"))
        status["sessions"] = status["sessions"].fillna(0).astype("int64")
    calendars, now = job_calendars(job), datetime.now(UTC)
    behind: dict[str, int] = {}
    for symbol, last in status["last_session"].dropna().items():
        name = str(symbol)
        if calendars is not None and job.has_calendar(name):
            try:
                behind[name] = calendars.sessions_since(name, last.date(), now)
            except SymbolError:
                continue
    return status.assign(behind=pd.Series(behind, dtype="Int64").reindex(status.index))


def data_diff(
    job: Job, since: datetime | None = None, until: datetime | None = None, symbols: Sequence[str] = ()
) -> pd.DataFrame:
    """Return what sources changed in history, as `PriceStore.diff` gives it; all of it by default."""
    store = open_store(job)
    return store.diff(since, until, _wanted(job, symbols, store.symbols))


def write_restatements(job: Job, data: JobData, folder: Path) -> None:
    """Write ``restatements.csv``: what sources changed until the prices were read; none without a store."""
    if data.known is not None:
        table = data_diff(job, until=data.known.mark.to_pydatetime())
        write_table(table, folder / "restatements.csv")


def _wanted(job: Job, symbols: Sequence[str], stored: Callable[[], Iterable[str]]) -> tuple[str, ...] | None:
    """Return the symbols asked for, else those of the job, else None for all; a mistyped one is an error."""
    if not symbols:
        return job.prices.symbols or None
    known = {*stored(), *job.prices.symbols}
    for symbol in symbols:
        if symbol not in known:
            raise JobError(
                f"--symbols names symbols of the store or the job; {symbol!r} is none"
                f"{did_you_mean(symbol, known)}"
            )
    return tuple(dict.fromkeys(symbols))


def issued_forecasts(folders: Sequence[Path]) -> pd.DataFrame:
    """Forecasts in folders of finished results, and what the store knew when they were made.

    Returns
    -------
    DataFrame
        ``symbol, origin, known_at, results, store``: one row a folder, symbol and origin; `store` is the
        address by which the store was read.

    Raises
    ------
    DataError
        If a folder holds no results, or its prices came from no store.
    """
    parts = [pd.DataFrame(columns=[*ISSUED, "results", "store"])]
    for folder in folders:
        try:
            record = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
            tables = [
                pd.read_parquet(folder / name, columns=["symbol", "origin"])
                for name in ("forecasts.parquet", "latest.parquet")
                if (folder / name).exists()
            ]
        except (OSError, ValueError) as error:
            raise DataError(
                f"{folder}: there are no finished results: {error}; name a folder that `forecaster run` wrote"
            ) from None
        if not tables or not record.get("store"):
            raise DataError(
                f"{folder}: its forecasts were not made from a price store; nothing says what they "
                "saw; leave it out"
            )
        rows = pd.concat(tables, ignore_index=True).drop_duplicates()
        store = record["store"]
        known_at = pd.Timestamp(store["known_at"])
        parts.append(rows.assign(known_at=known_at, results=str(folder), store=store["url"]))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def forecasts_that_saw(restatements: pd.DataFrame, issued: pd.DataFrame) -> pd.DataFrame:
    """Find the forecasts that were made from values that were changed afterwards.

    Parameters
    ----------
    restatements : DataFrame
        As `PriceStore.diff` gives them.
    issued : DataFrame
        One row a forecast, with at least ``symbol``, ``origin`` and ``known_at`` (the ``fetched_at`` up to
        which it knew the store, with a time zone).

    Returns
    -------
    DataFrame
        The rows of `issued` that saw an old value: one of a session up to the origin, accepted when it was
        read, and not yet changed. Added are ``restated`` (how many such sessions) and ``first_restated``.
    """
    seen = restatements[restatements["old_status"] == "accepted"]
    found = []
    for symbol, forecasts in issued.groupby("symbol"):
        changes = seen[seen["symbol"] == symbol].drop_duplicates(["session", "new_fetched_at"])
        pairs = forecasts.reset_index(names="place").merge(changes, how="cross", suffixes=("", "_changed"))
        pairs = pairs[
            (pairs["session"] <= pd.to_datetime(pairs["origin"]))
            & (pairs["old_fetched_at"] <= pairs["known_at"])
            & (pairs["known_at"] < pairs["new_fetched_at"])
        ]
        sessions = pairs.groupby("place")["session"]
        found.append(
            forecasts.loc[sorted(pairs["place"].unique())].assign(
                restated=sessions.nunique(), first_restated=sessions.min()
            )
        )
    columns = [*issued.columns, "restated", "first_restated"]
    return pd.concat(found)[columns] if found else pd.DataFrame(columns=columns)


def data_quarantine(job: Job, symbols: Sequence[str] = ()) -> pd.DataFrame:
    """Sessions that wait for a decision, as `PriceStore.quarantine` gives them."""
    store = open_store(job)
    return store.quarantine(_wanted(job, symbols, store.symbols))


def settle_session(
    job: Job, symbol: str, session: date, decision: Literal["accept", "reject"], reason: str
) -> bool:
    """Accept or reject a session; tell whether that changed anything.

    The codes for which a session waits stay with a rejection: where they say that its dividend or split is
    wrong, the next session does not count it.

    Raises
    ------
    DataError
        If the store does not have the session, or it is to be accepted with a number that no return can be
        taken of.
    """
    store = open_store(job)
    held = store.quarantine([symbol], rejected=True) if store.exists() else pd.DataFrame()
    text = "".join(held.loc[held["session"] == pd.Timestamp(session), "reason"]) if len(held) else ""
    codes = [code for code in text.split(",") if code in SEVERITIES]
    impossible = [code for code in codes if code in IMPOSSIBLE]
    if decision == "accept" and impossible:
        raise DataError(
            f"{symbol} {session} cannot be accepted, for no return can be taken of it ({impossible[0]}); "
            "reject it, or correct it at the source and ingest again"
        )
    because = reason if decision == "accept" else ",".join([*codes, reason])
    return store.settle(symbol, session, decision, because)


def compact_data(
    job: Job, before: datetime | None, folders: Sequence[Path], seen: Sequence[datetime] = ()
) -> Compacted:
    """Merge the files of the store; drop what was known before a time, but for what forecasts saw.

    Kept is what the forecasts in `folders` saw, and those in any folder of results in the workspace.

    Parameters
    ----------
    job : Job
    before : datetime or None
        What was known at any time from here on stays; None drops nothing.
    folders : sequence of Path
        Folders of finished results outside the workspace.
    seen : sequence of datetime
        Further times of which everything known is kept, such as those of a ledger's forecasts.

    Raises
    ------
    JobError
        If there are results to keep and nothing is to be dropped.
    DataError
        If one of `folders` holds no results, or its prices came from no store.
    """
    if folders and before is None:
        raise JobError(
            "--results says what to keep of what --before drops. Received: --results "
            "alone; give --before too, or neither"
        )
    store = open_store(job)
    if before is None:
        return Compacted(store.compact(), 0)
    marks = {mark.to_pydatetime() for mark in issued_forecasts(folders)["known_at"].drop_duplicates()}
    marks |= _marks_of(job.workspace) | set(seen)
    done = store.compact(before=before, keep=sorted(marks))
    return Compacted(done, sum(mark < before for mark in marks) - len(done.lost))


def _marks_of(workspace: str) -> set[datetime]:
    """Collect the times at which the results in a workspace read a store.

    Whichever store that was: the same one may have been reached by another path, and to keep too much is no
    harm.
    """
    marks = set()
    for path in Path(workspace).rglob("provenance.json"):
        try:
            store = json.loads(path.read_text(encoding="utf-8")).get("store")
            if store:
                marks.add(datetime.fromisoformat(store["known_at"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: what its forecasts saw is to be kept, and cannot be read ({error}); repair the "
                "file, or remove its folder; nothing was dropped"
            ) from None
    return marks
