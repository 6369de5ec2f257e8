"""Load and check the prices of a job, from its store or its source, and lay them out as a panel."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from forecaster.errors import DataError, ParameterError, SourceError, SymbolError
from forecaster.job import Job
from forecaster.prices.base import (
    PRICE_COLUMNS,
    Finding,
    LoadedPrices,
    OffCalendar,
    combined_hash,
    did_you_mean,
    load_prices,
    symbol_hash,
)

if TYPE_CHECKING:
    from forecaster.calendars import Calendars
    from forecaster.prices.store import PriceStore
    from forecaster.windows import Panel

STOPPED_AFTER = 10
"""Sessions of the others after which a series counts as stopped."""

SHOWN_SESSIONS = 130
"""Closes of each symbol that a report and a dashboard can draw."""
BLOCK = 250
"""Symbols of a store that are read and checked at once: a tenth of a gigabyte of thirty years."""

NAMED = 5
"""Symbols, and reasons, that are named where none can be used."""

__all__ = [
    "SHOWN_SESSIONS",
    "JobData",
    "Known",
    "job_calendars",
    "load_data",
    "off_calendar",
    "open_store",
    "recent_prices",
    "with_held",
    "without",
]


@dataclass(frozen=True, eq=False)
class Known:
    """What a price store knew when it was read.

    Parameters
    ----------
    url : str
        Where the store lies.
    version : int
        Version of its table; old ones are tidied away in time.
    mark : Timestamp
        ``fetched_at`` of the last thing known: given as ``--known-at`` it reads the same again.
    first_fetched : Timestamp or None
        When the last of the symbols was first fetched: sessions before it are history as it looked then.
    point_in_time : bool
        Whether no session used lies before the first fetch of its symbol.
    behind : dict of str to int
        Sessions that the exchange has finished since the last one of the symbol; only where there are any and
        the read is of the present.
    """

    url: str
    version: int
    mark: pd.Timestamp
    first_fetched: pd.Timestamp | None
    point_in_time: bool
    behind: dict[str, int]


@dataclass(frozen=True, eq=False)
class JobData:
    """The prices that a job works on.

    Parameters
    ----------
    panel : Panel
        The usable series.
    prices : LoadedPrices
        Checked prices, findings and failures.
    data_version : str
        SHA-256 of the usable prices.
    known : Known, optional
        What the store knew; None where the source was read directly.
    digests : dict of str to bytes
        SHA-256 of the prices of each usable symbol, which the version is made of.

    Notes
    -----
    Of more than `BLOCK` symbols of a store the panel lies in files that are mapped into memory, and the
    prices hold the last sessions of each symbol alone, as many as an origin needs.
    """

    panel: Panel
    prices: LoadedPrices
    data_version: str
    known: Known | None = None
    digests: dict[str, bytes] = field(default_factory=dict)

    @property
    def coverage(self) -> float:
        """Share of the symbols that can be used."""
        usable = {*self.prices.frames, *self.panel.symbols}  # portfolios have no prices of their own
        return len(usable) / (len(usable) + len(self.prices.failures))

    def provenance(self, job: Job) -> dict[str, Any]:
        """Say which prices these are, for the record of a result."""
        record: dict[str, Any] = {
            "job": job.name,
            "job_hash": job.hash,
            "data_version": self.data_version,
            "first_session": str(self.panel.calendar[0]),
            "last_session": str(self.panel.calendar[-1]),
            "quarantined": sum(len(rows) for rows in self.prices.quarantined.values()),
            "store": None,
        }
        if self.known is not None:
            record["store"] = {
                "url": self.known.url,
                "version": self.known.version,
                "known_at": self.known.mark.isoformat(),
                "first_fetched": self.known.first_fetched and self.known.first_fetched.isoformat(),
                "point_in_time": self.known.point_in_time,
                "sessions_behind": max(self.known.behind.values(), default=0),
            }
        return record


def open_store(job: Job) -> PriceStore:
    """Open the price store of a job.

    Raises
    ------
    SourceError
        If the job has none.
    """
    if job.store_url is None:
        raise SourceError(
            f"the job {job.name} has no price store; name one, for example `store: {job.workspace}/prices`"
        )
    from forecaster.prices.store import PriceStore

    return PriceStore(job.store_url)


def job_calendars(job: Job) -> Calendars | None:
    """Make the calendars of a job; None where those of its symbols are not known.

    Symbols of files and samples are not spelled as Yahoo does, so only those count that the job names.
    """
    if job.prices.kind != "yahoo" and not job.calendars:
        return None
    from forecaster.calendars import Calendars

    return Calendars(job.calendars)


def off_calendar(job: Job, calendars: Calendars | None) -> OffCalendar | None:
    """Make what compares dates with the calendars of a job."""
    if calendars is None:
        return None
    known = None if job.prices.kind == "yahoo" else frozenset(job.calendars)

    def compare(symbol: str, sessions: pd.DatetimeIndex) -> tuple[pd.DatetimeIndex, pd.DatetimeIndex] | None:
        return calendars.missing_and_extra(symbol, sessions) if known is None or symbol in known else None

    return compare


def load_data(
    job: Job,
    folder: Path,
    minimum_sessions: int,
    as_of: date | None = None,
    known_at: datetime | None = None,
) -> JobData:
    """Load and check the prices of a job: from its store, where it has one, and else from its source.

    Parameters
    ----------
    job : Job
    folder : Path
        Folder of the job file, which paths in it are relative to.
    minimum_sessions : int
        Sessions with a close that each symbol needs.
    as_of : date, optional
        Forget every session after it, as if it were that evening.
    known_at : datetime, optional
        Read what the store knew at that time, with a time zone; all that it knows by default.

    Raises
    ------
    DataError
        If the source or the store, or every symbol of it, cannot be used.
    SourceError
        If `known_at` is given and the job has no store.
    """
    # Imports scipy.signal, which takes seconds: the commands of the store do without.
    from forecaster.job.panel import lay_out

    if job.store_url is not None:
        return _load_stored(job, minimum_sessions, as_of, known_at)
    if known_at is not None:
        raise SourceError(
            f"--known-at asks a price store what it knew, and the job {job.name} has none; name a `store`"
        )
    source = job.source(folder, as_of)
    compare = off_calendar(job, job_calendars(job))
    prices = load_prices(source, (), minimum_sessions, compare, covariates=job.covariates)
    if not prices.frames:
        raise _nothing_usable(prices.failures, as_of)
    panel, failures = lay_out(job, prices.frames, minimum_sessions)
    prices = replace(prices, failures=prices.failures | failures)
    digests = {symbol: symbol_hash(frame) for symbol, frame in prices.frames.items()}
    return JobData(
        panel,
        replace(prices, findings=prices.findings + _stopped(panel)),
        combined_hash(digests),
        None,
        digests,
    )


class _Stored:
    """Prices that were read from a store, as a source."""

    def __init__(self, tables: dict[str, pd.DataFrame], names: Sequence[str], place: str, past: str) -> None:
        self._tables, self._names, self._place, self._past = tables, tuple(names), place, past

    def symbols(self) -> tuple[str, ...]:
        return self._names

    def load(self, symbol: str) -> pd.DataFrame:
        if symbol not in self._tables:
            near = did_you_mean(symbol, self._tables)
            why = self._past or f"{near}; `forecaster ingest` fetches what is missing"
            raise SymbolError(symbol, f"the price store {self._place} had no session of it{why}")
        return self._tables[symbol]


@dataclass(frozen=True, eq=False)
class _Block:
    """What was loaded of some symbols of a store."""

    prices: LoadedPrices
    digests: dict[str, bytes]
    first: dict[str, pd.Timestamp]
    early: list[str]
    behind: dict[str, int]


def _load_stored(job: Job, minimum_sessions: int, as_of: date | None, known_at: datetime | None) -> JobData:
    """Load from the store as of one commit; of many symbols, blocks at once as the engine says."""
    from forecaster.engine import Engine, Failure, Task
    from forecaster.job.panel import lay_out
    from forecaster.windows import Panel, PanelWriter, Universe

    store = open_store(job)
    wanted = job.prices.symbols or None
    names = wanted or store.symbols()
    # All that follows is as of this commit: another writer may be at work.
    seen = store.read(names[:1], as_of=as_of, known_at=known_at)
    held = store.quarantine(wanted, as_of=as_of, known_at=seen.mark, rejected=True)
    arguments = (job, minimum_sessions, as_of, known_at, seen.version)
    if len(names) <= BLOCK or not _one_by_one(job, names):
        blocks = [_load_block(names, held, None, *arguments)]
        prices = blocks[0].prices
        if not prices.frames:
            raise _nothing_usable(prices.failures, as_of)
        panel, failures = lay_out(job, prices.frames, minimum_sessions)
        prices = replace(prices, failures=prices.failures | failures)
    else:
        workspace = Path(job.workspace).resolve()
        workspace.mkdir(parents=True, exist_ok=True)
        # When the panel is there its files have no name any more: none is left, however this process ends.
        with tempfile.TemporaryDirectory(prefix=".panel-", dir=workspace) as name:
            tasks = []
            for start in range(0, len(names), BLOCK):
                some, part = names[start : start + BLOCK], Path(name) / str(start)
                part.mkdir()
                mine = held[held["symbol"].isin(some)]
                tasks.append(Task(f"{some[0]} to {some[-1]}", _load_block, (some, mine, part, *arguments)))
            local = job.engine.kind in ("loky", "threading")
            with job.engine.build(job.threads) if local else Engine() as engine:
                results = dict(engine.run(tasks))
            blocks = [results[number] for number in range(len(tasks))]
            for block in blocks:
                if isinstance(block, Failure):
                    raise DataError(f"the prices of {block.name} cannot be loaded: {block.reason}")
            prices = _together([block.prices for block in blocks])
            if not prices.frames:
                raise _nothing_usable(prices.failures, as_of)
            if job.market is not None and job.market not in prices.frames:
                raise ParameterError(
                    f"the market is one of the symbols that have prices. Received: {job.market!r}, which has "
                    "none"
                )
            members = tuple(symbol for symbol in sorted(prices.frames) if symbol != job.market)
            writer = PanelWriter(Path(name))
            for task in tasks:
                if (task.arguments[2] / "panel.json").exists():
                    writer.take(task.arguments[2])
            forecast = None if job.market is None else members
            writer.finish(Universe(members, job.market), forecast, job.backtest.learn_from)
            panel = Panel.open(Path(name))
    first = {symbol: moment for block in blocks for symbol, moment in block.first.items()}
    known = Known(
        url=store.url,
        version=seen.version,
        mark=seen.mark,
        first_fetched=max(first.values()) if first else None,
        point_in_time=not any(block.early for block in blocks),
        behind={symbol: count for block in blocks for symbol, count in block.behind.items()},
    )
    digests = {symbol: digest for block in blocks for symbol, digest in block.digests.items()}
    findings = prices.findings + _stopped(panel)
    if not known.point_in_time:
        findings += (_not_point_in_time(panel, known),)
    return JobData(panel, replace(prices, findings=findings), combined_hash(digests), known, digests)


def _one_by_one(job: Job, names: Sequence[str]) -> bool:
    """Whether the panel of a symbol does not depend on others: no portfolios, and all close together."""
    if job.covariates or job.portfolios:
        return False
    known = set(names) if job.prices.kind == "yahoo" else set(job.calendars) & set(names)
    if not known:
        return True
    from forecaster.calendars import Calendars

    return Calendars(job.calendars).same(known)


def _load_block(
    names: tuple[str, ...],
    held: pd.DataFrame,
    folder: Path | None,
    job: Job,
    minimum_sessions: int,
    as_of: date | None,
    known_at: datetime | None,
    version: int,
) -> _Block:
    """Read and check some symbols; into a folder write their panel, and keep their last sessions only."""
    store = open_store(job)
    stored = store.read(names, as_of=as_of, known_at=known_at, version=version)
    tables, settled = with_held(stored.frames, held)
    if not job.prices.symbols:
        names = tuple(sorted(tables))
    calendars = job_calendars(job)
    past = (f" up to {as_of}" if as_of else "") + (
        f", as known at {known_at.isoformat()}" if known_at else ""
    )
    source = _Stored(tables, names, store.url, past)
    compare = off_calendar(job, calendars)
    prices = load_prices(source, names, minimum_sessions, compare, settled, job.covariates)
    first = {
        symbol: stored.first_fetched[symbol] for symbol in prices.frames if symbol in stored.first_fetched
    }
    early = [
        symbol
        for symbol, frame in prices.frames.items()
        # A writer that was killed may have left rows without the record of their fetch.
        if symbol not in first or frame.index[0].date() < first[symbol].date()
    ]
    behind: dict[str, int] = {}
    if as_of is None and known_at is None and calendars is not None:
        now = datetime.now(UTC)
        for symbol, frame in prices.frames.items():
            if job.prices.kind == "yahoo" or symbol in job.calendars:
                missed = calendars.sessions_since(symbol, frame.index[-1].date(), now)
                behind |= {symbol: missed} if missed else {}
    digests = {symbol: symbol_hash(frame) for symbol, frame in prices.frames.items()}
    if folder is not None:
        from forecaster.windows import Panel

        if prices.frames:
            Panel.from_prices(prices.frames, job.returns, variance=job.variance).save(folder)
        last = {name: frame.tail(job.warm_up + 1).copy() for name, frame in prices.frames.items()}
        prices = replace(prices, frames=last)
    return _Block(prices, digests, first, early, behind)


def _together(parts: Sequence[LoadedPrices]) -> LoadedPrices:
    return LoadedPrices(
        {symbol: frame for part in parts for symbol, frame in part.frames.items()},
        tuple(finding for part in parts for finding in part.findings),
        {symbol: reason for part in parts for symbol, reason in part.failures.items()},
        {symbol: rows for part in parts for symbol, rows in part.quarantined.items()},
    )


def with_held(
    frames: dict[str, pd.DataFrame], held: pd.DataFrame
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.Series[str]]]:
    """Put the rows that are held back among the accepted ones, and say which are which.

    Parameters
    ----------
    frames : dict of str to DataFrame
        Accepted rows of each symbol, as `PriceStore.read` gives them.
    held : DataFrame
        Other rows, as `PriceStore.quarantine` gives them.

    Returns
    -------
    tables : dict of str to DataFrame
        All rows of each symbol, sorted.
    settled : dict of str to Series of str
        For each of them the codes for which it is held back; empty where it is accepted.
    """
    tables: dict[str, pd.DataFrame] = {}
    settled: dict[str, pd.Series[str]] = {}
    waiting = {str(symbol): rows for symbol, rows in held.groupby("symbol")}
    for symbol in sorted({*frames, *waiting}):
        parts = [frames[symbol]] if symbol in frames else []
        codes = [pd.Series("", index=part.index, dtype=object) for part in parts]
        if symbol in waiting:
            rows = waiting[symbol].set_index("session")
            parts.append(rows[list(PRICE_COLUMNS)])
            codes.append(rows["reason"].astype(object))
        tables[symbol] = pd.concat(parts).sort_index(kind="stable") if len(parts) > 1 else parts[0]
        settled[symbol] = pd.concat(codes) if len(codes) > 1 else codes[0]
    return tables, settled


def _not_point_in_time(panel: Panel, known: Known) -> Finding:
    first = known.first_fetched
    return Finding(
        "*", "not-point-in-time", "info", len(panel.calendar), date.fromisoformat(str(panel.calendar[0])),
        f"sessions before the first fetch (the last symbol's on {first and first.date()}) are history as it "
        "looked then, with later restatements in it",
        "used as given; a backtest over them is not point-in-time",
    )  # fmt: skip


def _stopped(panel: Panel) -> tuple[Finding, ...]:
    """Find series that end well before the others: a forecast from their last session is an old one."""
    findings = []
    ends = dict(zip(panel.symbols, panel.sessions[panel.last_rows()], strict=True))
    ends |= {symbol: one.closings[-1].astype("datetime64[D]") for symbol, one in panel.covariates.items()}
    for symbol, last in ends.items():
        behind = int((panel.calendar > last).sum())
        if behind > STOPPED_AFTER:
            message = f"its last session is {last}, {behind} sessions before the last of the others"
            findings.append(
                Finding(symbol, "stopped", "warning", behind, date.fromisoformat(str(last)), message, "kept")
            )
    return tuple(findings)


def _nothing_usable(failures: dict[str, str], as_of: date | None = None) -> DataError:
    alike: dict[str, list[str]] = {}
    for symbol, reason in failures.items():
        alike.setdefault(reason, []).append(symbol)
    told = []
    for reason, symbols in list(alike.items())[:NAMED]:
        others = f" and {len(symbols) - NAMED} others" if len(symbols) > NAMED else ""
        told.append(f"{', '.join(symbols[:NAMED])}{others}: {reason}")
    reasons = "; ".join([*told, *([f"{len(alike) - NAMED} other reasons"] if len(alike) > NAMED else [])])
    return DataError(f"no symbol can be used: {reasons or f'there are no prices up to {as_of}'}")


def without(data: JobData, failures: dict[str, str]) -> JobData:
    """Leave further symbols out, by name and with the reason."""
    if not failures:
        return data
    frames = {symbol: frame for symbol, frame in data.prices.frames.items() if symbol not in failures}
    symbols = [symbol for symbol in data.panel.symbols if symbol not in failures]
    if not symbols:
        raise _nothing_usable(failures)
    prices = replace(data.prices, frames=frames, failures=data.prices.failures | failures)
    digests = {symbol: digest for symbol, digest in data.digests.items() if symbol in frames}
    return JobData(data.panel.select(symbols), prices, combined_hash(digests), data.known, digests)


def recent_prices(panel: Panel, sessions: int) -> pd.DataFrame:
    """Last closes of each symbol: ``symbol, session, close``."""
    rows = np.concatenate(
        [np.arange(max(part.start, part.stop - sessions), part.stop) for part in panel.parts]
    )
    return pd.DataFrame(
        {
            "symbol": np.array(panel.symbols, dtype=object)[panel.series_of(rows)],
            "session": panel.sessions[rows].astype("datetime64[ms]"),
            "close": panel.closes[rows],
        }
    )
