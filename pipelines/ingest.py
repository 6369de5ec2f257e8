"""Fetch the prices of a job from their source into its store, checked, and only what is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from forecaster.errors import ForecasterError, JobError, SourceError, SymbolError
from forecaster.job import Job
from forecaster.prices.base import PRICE_COLUMNS, IncrementalSource, Source, did_you_mean, inspect_as
from forecaster.prices.checks import failure_reason
from pipelines.loading import job_calendars, off_calendar, open_store, with_held

if TYPE_CHECKING:
    from forecaster.ledger import Step
    from forecaster.prices.store import Fetch
    from pipelines.backtest import Progress
    from pipelines.evening import Evening

__all__ = ["IngestResult", "ingest_job", "ingest_step"]

BATCH = 50
"""Symbols that are written together: what a killed ingest fetches again is no more."""

REFETCHED = 10
"""Sessions that are fetched again each time, because sources correct their latest ones."""

COMPARED = 300
"""Stored sessions before the fetched ones that they are checked against."""

VANISHED_SHARE, VANISHED_ROWS = 0.05, 3
"""Share of the stored sessions that a source may no longer have, and the number that is always allowed."""

NEWLY_LISTED = timedelta(days=365)
"""Age up to which a symbol that is fetched for the first time is called newly listed."""

COUNTS = ["added", "changed", "removed", "quarantined", "released"]


@dataclass(frozen=True, eq=False)
class IngestResult:
    """What an ingest did.

    Parameters
    ----------
    url : str
        Where the store lies.
    symbols : tuple of str
        The symbols of the ingest.
    counts : DataFrame indexed by symbol
        Sessions added, changed, removed, quarantined and released of each symbol that was fetched.
    fresh : tuple of str
        Symbols that were not fetched, because nothing can be new since the last time.
    failures : dict of str to str
        Why each of the others failed, or was not tried.
    notices : dict of str to str
        What else is to be said of a symbol: that its prices end, or have just begun.
    quarantined : DataFrame
        ``symbol, session, codes`` of the sessions fetched that are held back.
    restatements : DataFrame
        What sources changed in history, as `PriceStore.diff` gives it.
    """

    url: str
    symbols: tuple[str, ...]
    counts: pd.DataFrame
    fresh: tuple[str, ...]
    failures: dict[str, str]
    notices: dict[str, str]
    quarantined: pd.DataFrame
    restatements: pd.DataFrame

    @property
    def coverage(self) -> float:
        """Share of the symbols that did not fail."""
        return 1 - len(self.failures) / len(self.symbols)


def ingest_job(
    job: Job,
    folder: Path,
    progress: Progress,
    since: date | None = None,
    symbols: Sequence[str] = (),
) -> IngestResult:
    """Fetch prices into the store of a job.

    An incremental source is asked for what is missing and the last sessions again, or for everything where a
    dividend or split is new; a symbol of which nothing can be new is not fetched. Files and samples are read
    whole. Every session is checked, and what cannot be true is quarantined. Symbols are written in batches,
    so that an ingest that was stopped goes on where it was.

    Parameters
    ----------
    job : Job
    folder : Path
        Folder of the job file, which paths in it are relative to.
    progress : callable
        Told how many symbols are done.
    since : date, optional
        Fetch every symbol from this session on, whatever is stored; from before it where sessions would be
        missing between the stored ones and it.
    symbols : sequence of str
        Some of the job's symbols; all by default.

    Raises
    ------
    SourceError
        If the source as a whole or the store cannot be used, or the job has no store.
    JobError
        If one of `symbols` is none of the job's.
    """
    store = open_store(job)
    source = job.source(folder)
    names = _chosen(source.symbols(), symbols)
    exists = store.exists()
    before = store.status() if exists else pd.DataFrame(columns=["last_session", "last_fetched", "last_full"])
    reader = _Reader(job, source, since, before)
    failures: dict[str, str] = {}
    notices: dict[str, str] = {}
    fresh: list[str] = []
    counts = [pd.DataFrame(columns=COUNTS, dtype=np.int64)]
    restatements, held = [], []
    for start in range(0, len(names), BATCH):
        batch = names[start : start + BATCH]
        stored = _Stored({}, {}, {})
        if exists:
            held_back = store.quarantine(batch, rejected=True)
            rejected = held_back[held_back["status"] == "rejected"].groupby("symbol")["session"]
            tables, settled = with_held(store.read(batch).frames, held_back)
            stored = _Stored(tables, settled, {str(name): pd.Index(days) for name, days in rejected})
        fetches: dict[str, Fetch] = {}
        for number, symbol in enumerate(batch, start=start):
            progress("ingest", number, len(names))
            if reader.is_fresh(symbol):
                fresh.append(symbol)
                continue
            try:
                fetches[symbol], reason = reader.read(symbol, stored)
            except SymbolError as error:
                reason = error.reason
            if reason:
                failures[symbol] = reason
        if fetches:
            tolerance = job.prices.tolerance
            # Not earlier than the last answer: nothing is said to have been known before it was.
            moment = datetime.now(UTC)
            written = store.write(fetches, fetched_at=moment, source=job.prices.kind, tolerance=tolerance)
            exists = True
            counts.append(written.counts[COUNTS])
            restatements.append(written.restatements)
            held += [
                {"symbol": symbol, "session": session, "codes": codes}
                for symbol, fetch in fetches.items()
                if written.counts.loc[symbol, "quarantined"]
                for session, codes in fetch.quarantined.items()
            ]
            notices |= {symbol: fetch.notice for symbol, fetch in fetches.items() if fetch.notice}
    progress("ingest", len(names), len(names))
    return IngestResult(
        url=store.url,
        symbols=names,
        counts=pd.concat(counts),
        fresh=tuple(fresh),
        failures=failures,
        notices=notices,
        quarantined=pd.DataFrame(held, columns=["symbol", "session", "codes"]),
        restatements=pd.concat(restatements) if restatements else pd.DataFrame(columns=["symbol", "session"]),
    )


def ingest_step(evening: Evening, step: Step) -> None:
    """Fetch what is missing into the store, on an evening.

    The evening goes on without the symbols that failed, and the step is repeated by the next attempt.

    Raises
    ------
    ForecasterError
        If too few symbols succeeded: the evening then waits for better prices.
    """
    job = evening.job
    if job.store_url is None:
        step.skip("the job reads its prices directly")
        return
    result = ingest_job(job, evening.folder, evening.progress)
    evening.failures.update(result.failures)
    counts = result.counts[COUNTS].sum().astype(int)
    said = ", ".join(f"{counts[name]} {name}" for name in COUNTS if counts[name]) or "nothing new"
    step.note(reason=said)
    if not result.failures:
        return
    failed = "; ".join(f"{symbol}: {reason}" for symbol, reason in result.failures.items())
    if result.coverage < job.minimum_coverage:
        raise ForecasterError(
            f"only {result.coverage:.0%} of the symbols could be fetched, below the minimum coverage of "
            f"{job.minimum_coverage:.0%}: {failed}"
        )
    step.fail(f"{said}; {failed}")


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    """What the store has of some symbols before they are fetched."""

    tables: dict[str, pd.DataFrame]
    """All rows of each symbol, accepted and held back."""
    settled: dict[str, pd.Series[str]]
    """For each of them the codes for which it is held back; empty where it is accepted."""
    rejected: dict[str, pd.Index]
    """Sessions of each symbol that were rejected by hand."""


def _chosen(offered: tuple[str, ...], symbols: Sequence[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(symbols)) or tuple(dict.fromkeys(offered))
    known = frozenset(offered)
    for symbol in names:
        if symbol not in known:
            raise JobError(
                f"--symbols names symbols of the job; {symbol!r} is none{did_you_mean(symbol, offered)}"
            )
    if not names:
        raise SourceError("there is nothing to ingest: the source holds no symbol")
    return names


class _Reader:
    """Asks the source for what is needed of a symbol, and checks what it says."""

    def __init__(self, job: Job, source: Source, since: date | None, before: pd.DataFrame) -> None:
        self._source, self._since, self._before = source, since, before
        self._tolerance = job.prices.tolerance
        self._covariates = job.covariates
        self._now = datetime.now(UTC)
        self._calendars = job_calendars(job)
        self._off_calendar = off_calendar(job, self._calendars)
        self._stopped = ""

    def is_fresh(self, symbol: str) -> bool:
        """Tell whether the last finished session is stored, and was finished when the symbol was fetched."""
        if not isinstance(self._source, IncrementalSource) or self._calendars is None or self._since:
            return False
        fetched = self._known(symbol, "last_fetched")
        if fetched is None or self._known(symbol, "last_full") is None:
            return False
        try:
            finished = self._calendars.last_finished_session(symbol, self._now)
            # An answer may come before its last bar does: what is not stored is asked for again.
            last = self._known(symbol, "last_session")
            stored = last is not None and last.date() >= finished
            return (
                stored and self._calendars.last_finished_session(symbol, fetched.to_pydatetime()) == finished
            )
        except SymbolError:
            return False  # the fetch says so too, in its own words

    def _known(self, symbol: str, column: str) -> pd.Timestamp | None:
        value = self._before[column].get(symbol)
        return None if value is None or pd.isna(value) else pd.Timestamp(value)

    def read(self, symbol: str, stored: _Stored) -> tuple[Fetch, str]:
        """Return what is to be written of a symbol, and why it fails all the same; empty where it does not.

        Raises
        ------
        SymbolError
            If nothing of it is to be written.
        """
        table = stored.tables.get(symbol)
        if isinstance(self._source, IncrementalSource):
            prices, window, full, notice = self._ask(self._source, symbol, table)
        else:
            prices, full, notice = self._source.load(symbol), self._since is None, None
            if self._since is not None:
                prices = prices[prices.index >= pd.Timestamp(self._since)]
            # A file says nothing of sessions before its first and after its last.
            window = (prices.index[0].date(), prices.index[-1].date()) if len(prices) else None
        if table is not None and window is not None:
            _require_history(symbol, table, prices, window)
        return self._check(symbol, prices, window, full, notice, stored)

    def _ask(
        self, source: IncrementalSource, symbol: str, table: pd.DataFrame | None
    ) -> tuple[pd.DataFrame, tuple[date, date] | None, bool, str | None]:
        if self._stopped:
            raise SymbolError(symbol, f"not tried: {self._stopped}")
        since = self._since
        if table is not None and self._known(symbol, "last_full") is not None:
            # A later start would leave a hole that no further ingest fills.
            due = table.index[-min(REFETCHED, len(table))].date()
            since = min(since or due, due)
        try:
            fetched = source.fetch(symbol, since)
            if since is not None and _has_new_action(fetched.prices, table):
                since, fetched = None, source.fetch(symbol)
        except SourceError as error:
            self._stopped = str(error)
            raise SymbolError(symbol, f"not tried: {self._stopped}") from error
        notice = "; ".join(finding.reason for finding in fetched.findings) or None
        listed = fetched.first_trade
        if table is None and listed is not None and self._now.date() - listed < NEWLY_LISTED:
            notice = f"newly listed: trading began on {listed}" + (f"; {notice}" if notice else "")
        window = (fetched.first, fetched.last) if fetched.first <= fetched.last else None
        return fetched.prices, window, since is None, notice

    def _check(
        self,
        symbol: str,
        prices: pd.DataFrame,
        window: tuple[date, date] | None,
        full: bool,
        notice: str | None,
        stored: _Stored,
    ) -> tuple[Fetch, str]:
        """Judge the fetched rows after the stored ones before them, which were judged when they came."""
        from forecaster.prices.store import Fetch

        table, codes = stored.tables.get(symbol), stored.settled.get(symbol)
        if table is not None and codes is not None and len(prices):
            # What is as it was, and accepted by a check or a person, or rejected by one, is not judged again.
            same = _unchanged(table, prices, self._tolerance)
            rejected = same[same.isin(stored.rejected.get(symbol, same[:0]))]
            same = same[(codes.loc[same] == "") | same.isin(rejected)]
            if len(same) == len(prices):
                return Fetch(prices, window, {}, full, notice), ""
            others = table[~table.index.isin(prices.index)]
            others = others[others.index < prices.index[0]].tail(COMPARED)
            frame = pd.concat([others, prices]).sort_index(kind="stable")
            settled = codes.loc[others.index.union(same)]
        else:
            frame, settled, rejected = prices, None, prices.index[:0]
        off = self._off_calendar(symbol, pd.DatetimeIndex(frame.index)) if self._off_calendar else None
        inspection = inspect_as(symbol, frame, 1, off, settled, self._covariates.get(symbol))
        errors = {finding.code: finding for finding in inspection.errors}
        if "duplicate-session" in errors:
            raise SymbolError(symbol, failure_reason([errors["duplicate-session"]]))
        held = inspection.quarantined["codes"]
        held = held[held.index.isin(prices.index) & ~held.index.isin(rejected)]
        quarantined = dict(zip(pd.DatetimeIndex(held.index).date, held, strict=True))
        fetch = Fetch(prices, window, quarantined, full, notice)
        # Its rows are stored all the same, in quarantine: that is where they are looked at.
        many = errors.get("too-many-quarantined")
        return fetch, many.reason if many else ""


def _unchanged(table: pd.DataFrame, prices: pd.DataFrame, tolerance: float) -> pd.Index:
    """Sessions whose rows are stored as they are fetched, as the store will see it."""
    both = table.index.intersection(prices.index)
    columns = list(PRICE_COLUMNS)
    old, new = (each.loc[both, columns].to_numpy(np.float64) for each in (table, prices))
    same: pd.Index = both[np.isclose(old, new, rtol=tolerance, atol=0.0, equal_nan=True).all(axis=1)]
    return same


def _has_new_action(prices: pd.DataFrame, table: pd.DataFrame | None) -> bool:
    """Tell whether a dividend or split was fetched that is not stored."""
    actions = prices.loc[(prices["dividend"] != 0) | (prices["split"] != 1), ["dividend", "split"]]
    if table is None or actions.empty:
        return False
    known = table.reindex(actions.index)[["dividend", "split"]].to_numpy(np.float64)
    return not np.allclose(known, actions.to_numpy(np.float64), rtol=1e-6, atol=0.0)


def _require_history(
    symbol: str, table: pd.DataFrame, prices: pd.DataFrame, window: tuple[date, date]
) -> None:
    """Refuse an answer that lacks much of what the source had before: a cut answer looks like that."""
    inside = table.index[(table.index >= pd.Timestamp(window[0])) & (table.index <= pd.Timestamp(window[1]))]
    gone = inside[~inside.isin(prices.index)]
    if len(gone) > max(VANISHED_ROWS, VANISHED_SHARE * len(inside)):
        raise SymbolError(
            symbol,
            f"a source may lack {VANISHED_SHARE:.0%} of what it had; {len(gone)} of {len(inside)} sessions "
            f"are gone, the first {gone[0].date()}; nothing of it is written: correct the source, or ingest "
            "into another store",
        )
