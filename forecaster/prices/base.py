"""What a source of prices is, and how prices are loaded from one."""

from __future__ import annotations

import datetime
import difflib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd

from forecaster.errors import ParameterError, SymbolError
from forecaster.prices.checks import PRICE_COLUMNS, Finding, Inspection, failure_reason, inspect
from forecaster.prices.levels import inspect_level

__all__ = [
    "PRICE_COLUMNS",
    "FetchedPrices",
    "Finding",
    "IncrementalSource",
    "LoadedPrices",
    "OffCalendar",
    "Source",
    "combined_hash",
    "content_hash",
    "did_you_mean",
    "inspect_as",
    "load_prices",
    "nearest",
    "price_table",
    "symbol_hash",
]


OffCalendar = Callable[[str, pd.DatetimeIndex], tuple[pd.DatetimeIndex, pd.DatetimeIndex] | None]
"""For a symbol and the dates of its rows, the sessions that are missing and the dates that are none, as
`forecaster.calendars.Calendars.missing_and_extra` gives them; None where its calendar is not known."""


class Source(Protocol):
    """Where prices come from.

    A source may be made as of a session: it then says what it would have said that evening, and what stands
    after the session does not matter, whatever it is.
    """

    def symbols(self) -> tuple[str, ...]:
        """Return the symbols that were asked for or, if none were, all that the source offers.

        Raises
        ------
        SourceError
            If the source as a whole cannot be used.
        """
        ...

    def load(self, symbol: str) -> pd.DataFrame:
        """Return the prices of one symbol, not yet checked.

        Returns
        -------
        DataFrame of shape (n_sessions, 7)
            A price table as `price_table` makes it: float64 columns `PRICE_COLUMNS`, NaN where a price is
            missing, and a sorted index ``session`` of dates.

        Raises
        ------
        SymbolError
            If this symbol cannot be had; others may.
        SourceError
            If the source as a whole cannot be used.
        """
        ...


class FetchedPrices(Protocol):
    """What a fetch brought."""

    @property
    def prices(self) -> pd.DataFrame:
        """A price table of the sessions that are over."""
        ...

    @property
    def first(self) -> datetime.date:
        """First session that was asked for."""
        ...

    @property
    def last(self) -> datetime.date:
        """Last session that the source has; before `first` where nothing is new."""
        ...

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was noticed on the way; none of them an error."""
        ...

    @property
    def first_trade(self) -> datetime.date | None:
        """When trading began, if the source says so."""
        ...


@runtime_checkable
class IncrementalSource(Source, Protocol):
    """A source that can be asked for the last sessions alone, and that may stop answering."""

    def fetch(self, symbol: str, since: datetime.date | None = None) -> FetchedPrices:
        """Return the sessions of a symbol from `since` on; all where it is None.

        Raises
        ------
        SymbolError
            If this symbol cannot be had; others may.
        SourceError
            If the source answers no more: this symbol was not tried.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LoadedPrices:
    """Prices that passed the checks, and what is to be said about the others.

    Parameters
    ----------
    frames : dict of str to DataFrame
        A price table for each usable symbol, in the order asked for; every session has a close.
    findings : tuple of Finding
        What the checks found, of usable symbols and of others.
    failures : dict of str to str
        Why each of the other symbols was left out, in one line.
    quarantined : dict of str to DataFrame
        The rows of usable symbols that are not used, as `forecaster.prices.checks.Inspection` gives them.
    """

    frames: dict[str, pd.DataFrame]
    findings: tuple[Finding, ...]
    failures: dict[str, str]
    quarantined: dict[str, pd.DataFrame] = field(default_factory=dict)

    def __repr__(self) -> str:
        ends = [day for frame in self.frames.values() for day in (frame.index[0], frame.index[-1])]
        span = f", {min(ends):%Y-%m-%d} to {max(ends):%Y-%m-%d}" if ends else ""
        names = ", ".join(list(self.frames)[:3]) or "no symbol"
        others = f" and {len(self.frames) - 3} others" if len(self.frames) > 3 else ""
        rows = sum(len(frame) for frame in self.frames.values())
        return (
            f"LoadedPrices({names}{others}: {rows:,} sessions{span}; "
            f"{len(self.failures)} failed, {len(self.findings)} findings)"
        )


def load_prices(
    source: Source,
    symbols: Sequence[str],
    minimum_sessions: int,
    off_calendar: OffCalendar | None = None,
    settled: Mapping[str, pd.Series[str]] | None = None,
    covariates: Mapping[str, str] | None = None,
) -> LoadedPrices:
    """Load and check the prices of symbols; leave a bad one out by name and go on with the rest.

    Parameters
    ----------
    source : Source
        Where the prices come from.
    symbols : sequence of str
        The symbols; empty for all that the source offers.
    minimum_sessions : int
        Sessions with a close that each needs at least.
    off_calendar : callable, optional
        Compares dates with the calendar of a symbol. Without it no calendar is looked at.
    settled : mapping of str to Series of str, optional
        For each symbol the sessions that were judged before (`forecaster.prices.checks.inspect`).
    covariates : mapping of str to {"return", "level", "difference"}, optional
        Symbols that are only looked at, and what of them. They need two sessions, and where it is not the
        return they are checked as levels (`forecaster.prices.levels`).

    Returns
    -------
    LoadedPrices
        Usable prices, findings and failures. All symbols may have failed.

    Raises
    ------
    SourceError
        If the source as a whole cannot be used.
    ParameterError
        If `symbols` is a bare text or names one twice, or `minimum_sessions` is below 1.
    """
    if isinstance(symbols, str):
        raise ParameterError(f"`symbols` must be a sequence of symbols, not one text. Received: {symbols!r}")
    names = tuple(symbols) or source.symbols()
    twice = sorted(symbol for symbol, count in Counter(names).items() if count > 1)
    if twice:
        raise ParameterError(f"each symbol must be named once. Named more often: {', '.join(twice)}")
    frames: dict[str, pd.DataFrame] = {}
    findings: list[Finding] = []
    failures: dict[str, str] = {}
    quarantined: dict[str, pd.DataFrame] = {}
    for symbol in names:
        try:
            raw = source.load(symbol)
            off = off_calendar(symbol, pd.DatetimeIndex(raw.index)) if off_calendar else None
        except SymbolError as error:
            failures[symbol] = error.reason
            findings.append(
                Finding(symbol, "not-loaded", "error", 0, None, error.reason, "the symbol is left out")
            )
            continue
        inspection = inspect_as(
            symbol, raw, minimum_sessions, off, (settled or {}).get(symbol), (covariates or {}).get(symbol)
        )
        findings.extend(inspection.findings)
        if inspection.errors:
            failures[symbol] = failure_reason(inspection.errors)
            continue
        frames[symbol] = inspection.prices
        if len(inspection.quarantined):
            quarantined[symbol] = inspection.quarantined
    return LoadedPrices(frames, tuple(findings), failures, quarantined)


def inspect_as(
    symbol: str,
    frame: pd.DataFrame,
    minimum_sessions: int,
    off_calendar: tuple[pd.DatetimeIndex, pd.DatetimeIndex] | None,
    settled: pd.Series[str] | None,
    transform: str | None,
) -> Inspection:
    """Check a symbol as what it is: a series, or a covariate of which something is looked at.

    Parameters
    ----------
    symbol, frame, minimum_sessions, off_calendar, settled
        As `forecaster.prices.checks.inspect`; a covariate needs two sessions.
    transform : {"return", "level", "difference"} or None
        What is looked at of a covariate. A level and a difference are checked as levels.
    """
    if transform in ("level", "difference"):
        return inspect_level(symbol, frame, settled)
    return inspect(symbol, frame, minimum_sessions if transform is None else 2, off_calendar, settled)


def price_table(prices: pd.DataFrame) -> pd.DataFrame:
    """Give prices the one form that all sources share.

    Parameters
    ----------
    prices : DataFrame of shape (n_sessions, ...)
        Any of `PRICE_COLUMNS`, numeric, with an index of dates in any order; other columns are left out.

    Returns
    -------
    DataFrame of shape (n_sessions, 7)
        Float64 columns `PRICE_COLUMNS` and an index ``session`` (datetime64[s]), sorted. A missing price or
        volume is NaN; a missing dividend is 0 and a missing split is 1.
    """
    table = prices.reindex(columns=list(PRICE_COLUMNS)).astype(np.float64)
    table = table.fillna({"dividend": 0.0, "split": 1.0})
    table.index = pd.DatetimeIndex(prices.index).as_unit("s").rename("session")
    table.columns.name = None
    return table.sort_index(kind="stable")


def content_hash(frames: Mapping[str, pd.DataFrame]) -> str:
    """Return the version of the data: SHA-256 over symbols, sessions and numbers.

    It does not depend on the order of the symbols, the rows or the columns, nor on the resolution of the
    index.

    Parameters
    ----------
    frames : mapping of str to DataFrame
        A price table for each symbol; a session occurs once.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    return combined_hash({symbol: symbol_hash(frame) for symbol, frame in frames.items()})


def symbol_hash(frame: pd.DataFrame) -> bytes:
    """Return the SHA-256 of the prices of one symbol, as `content_hash` takes it."""
    digest = hashlib.sha256()
    frame = frame if frame.index.is_monotonic_increasing else frame.sort_index(kind="stable")
    sessions = frame.index.to_numpy().astype("datetime64[D]").astype("<i8")
    # Adding zero turns -0.0 into 0.0; the second step gives every NaN the same bits.
    numbers = frame[list(PRICE_COLUMNS)].to_numpy(dtype="<f8") + 0.0
    numbers[np.isnan(numbers)] = np.nan
    # The length comes first: without it sessions and numbers could be cut differently and hash alike.
    digest.update(len(frame).to_bytes(8, "little") + sessions.tobytes())
    digest.update(numbers.tobytes())
    return digest.digest()


def combined_hash(digests: Mapping[str, bytes]) -> str:
    """Return the version of the data, as `content_hash`, from the `symbol_hash` of each symbol."""
    digest = hashlib.sha256(b"prices 2\n" + " ".join(PRICE_COLUMNS).encode())
    for symbol in sorted(digests):
        name = symbol.encode()
        digest.update(len(name).to_bytes(8, "little") + name + digests[symbol])
    return digest.hexdigest()


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the one of `names` most like `name`, whatever the case, or None if no ratio reaches `cutoff`."""
    folded = {candidate.casefold(): candidate for candidate in names}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=cutoff)
    return folded[near[0]] if near else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return ``" (did you mean 'X'?)"`` for the nearest of `names`, or nothing if none is near."""
    near = nearest(name, names)
    return f" (did you mean {near!r}?)" if near else ""
