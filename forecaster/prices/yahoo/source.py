"""Yahoo as a source of prices."""

from __future__ import annotations

import datetime
import logging
import os
import re
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from forecaster.calendars import Calendars
from forecaster.errors import ParameterError, SourceError, SymbolError
from forecaster.prices.base import price_table
from forecaster.prices.checks import Finding
from forecaster.prices.yahoo.politeness import Politeness, RateLimit
from forecaster.prices.yahoo.traded import as_traded

if TYPE_CHECKING:
    from forecaster.prices.yahoo.transport import YahooSession

__all__ = ["GATEWAY_VARIABLE", "Fetched", "YahooSource"]

GATEWAY_VARIABLE: Final = "FORECASTER_YAHOO_GATEWAY"
"""Environment variable with the address of a gateway through which Yahoo is reached."""

_BEGINNING: Final = datetime.date(1900, 1, 1)
_OVERLAP: Final = datetime.timedelta(days=15)
# Asked for beyond `since`, so that an empty reply means that trading stopped and not a week of holidays.
_AHEAD: Final = datetime.timedelta(days=8)
# Asked for beyond today, so that a split that takes effect next is seen.
_STOPPED: Final = datetime.timedelta(days=14)

_ROUND_THE_CLOCK: Final = frozenset({"24/5", "24/7"})
_NEAR: Final = datetime.timedelta(hours=3)
# Between the zones of a calendar and of Yahoo: futures of Chicago are in New York's time, for example.

_GONE: Final = "delisted, suspended or renamed; remove it or name its successor"

_SYMBOL = re.compile(r"[A-Za-z0-9^][A-Za-z0-9.^=&_-]*")
_ISIN = re.compile(r"[A-Z]{2}[A-Z0-9]{9}[0-9]")

_MINOR_UNITS: Final = {("GBP", "GBp"): 100.0, ("ZAR", "ZAc"): 100.0, ("ILS", "ILA"): 100.0}
"""What a dividend in one currency is multiplied by for prices in another, where that is a fixed number."""

# yfinance keeps one session, one cookie and one configuration for the whole process.
_ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Fetched:
    """What Yahoo had for a symbol.

    Parameters
    ----------
    prices : DataFrame of shape (n_sessions, 7)
        Finished sessions from `first` on, as traded, as `price_table` makes them; may be empty.
    first, last : date
        The span that was asked for and answered: a session in it that `prices` lacks is one that Yahoo does
        not have. `last` is the last session with a close, and lies before `first` if there is nothing new.
    findings : tuple of Finding
        What was noticed on the way; none is an error.
    time_zone : str
        Of the exchange; sessions are dates there.
    currency : str
        Of the prices, as Yahoo writes it (``GBp`` is pence); empty if Yahoo does not say.
    instrument : str
        ``EQUITY``, ``ETF``, ``INDEX``, ``FUTURE``, ``CURRENCY``, ``CRYPTOCURRENCY``, ``MUTUALFUND`` or empty.
    exchange : str
        Yahoo's code of the exchange, such as ``NMS``; may be empty.
    name : str
        Of the company or the instrument; may be empty.
    first_trade : date or None
        When trading began, if Yahoo says so.
    """

    prices: pd.DataFrame
    first: datetime.date
    last: datetime.date
    findings: tuple[Finding, ...]
    time_zone: str
    currency: str
    instrument: str
    exchange: str
    name: str
    first_trade: datetime.date | None


class YahooSource:
    """Daily prices from Yahoo, by yfinance, one symbol at a time.

    Parameters
    ----------
    symbols : sequence of str
        As Yahoo writes them: ``AAPL``, ``0700.HK``, ``^GSPC``, ``CL=F``, ``EURUSD=X``, ``BTC-USD``.
    calendars : Calendars, default by the spelling of the symbols
        Say when a session is finished.
    politeness : Politeness, default Politeness()
        How often and how patiently Yahoo is asked.
    state : Path or None, default None
        A folder in which the processes that use it share one rate limit. None: only the threads of this
        process do.
    gateway : str or None, default the environment variable FORECASTER_YAHOO_GATEWAY
        Address of a reverse proxy: ``https://query2.finance.yahoo.com/v8`` is reached as
        ``GATEWAY/query2.finance.yahoo.com/v8``.
    clock : callable, default the time now in UTC
        Returns the moment of the fetch, with a time zone.

    Raises
    ------
    ParameterError
        If `symbols` is empty or a bare text, or the gateway is not an http address.
    SourceError
        If `state` cannot be written.

    Notes
    -----
    Yahoo restates its "unadjusted" prices for every later split. A fetch therefore always runs to the
    present, however few sessions are asked for: every split that is in its prices is then in the same reply,
    and is undone (see `forecaster.prices.yahoo.traded`).

    After `Politeness.stop_after` symbols in a row that Yahoo would not answer, or a ``retry-after`` longer
    than `Politeness.longest_wait`, the source stops: every further fetch raises SourceError without asking.
    Make a new source to try again.

    yfinance would keep cookies and time zones in SQLite files in the user's cache folder. It keeps none here:
    cookies live as long as the process, and the time zone comes from the calendar.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        calendars: Calendars | None = None,
        politeness: Politeness | None = None,
        state: Path | None = None,
        gateway: str | None = None,
        clock: Callable[[], datetime.datetime] | None = None,
    ) -> None:
        if isinstance(symbols, str) or not symbols:
            raise ParameterError(
                f"`symbols` must be a sequence of at least one symbol. Received: {symbols!r}"
            )
        self._symbols = tuple(symbols)
        self._calendars = calendars or Calendars()
        self._politeness = politeness or Politeness()
        self._gateway = gateway or os.environ.get(GATEWAY_VARIABLE) or None
        if self._gateway is not None and not self._gateway.startswith(("http://", "https://")):
            raise ParameterError(
                f"the gateway to Yahoo must be an http or https address. Received: {self._gateway!r}; "
                f"correct it or unset {GATEWAY_VARIABLE}"
            )
        self._rate_limit = RateLimit(self._politeness, state)
        self._clock = clock or (lambda: datetime.datetime.now(datetime.UTC))
        self._session: YahooSession | None = None
        self._in_a_row = 0
        self._stopped: str | None = None

    def symbols(self) -> tuple[str, ...]:
        """Return the symbols asked for."""
        return self._symbols

    def load(self, symbol: str) -> pd.DataFrame:
        """Return all finished sessions of one symbol as traded, not yet checked.

        Raises
        ------
        SymbolError, SourceError
            As `fetch`.
        """
        return self.fetch(symbol).prices

    def fetch(self, symbol: str, since: datetime.date | None = None) -> Fetched:
        """Return what Yahoo has of one symbol.

        Parameters
        ----------
        symbol : str
            The symbol.
        since : date or None, default None
            The first session to return; None for all.

        Returns
        -------
        Fetched
            Finished sessions as traded, and what Yahoo says about the symbol.

        Raises
        ------
        SymbolError
            If Yahoo does not know the symbol, has no prices of it, answers with another one, or gave no
            usable answer in all attempts; if a split was announced that no bar follows yet; or if the
            calendar of the symbol is not known or lies in another part of the world.
        SourceError
            If the source has stopped and this symbol was not tried, or the state folder cannot be written.
        """
        if not _SYMBOL.fullmatch(symbol) or symbol in {".", ".."}:
            raise SymbolError(symbol, "Yahoo's symbols have letters, digits and .^=&_- only; correct it")
        if symbol != symbol.upper():
            # yfinance asks in capitals: one instrument would be stored under two names.
            raise SymbolError(symbol, f"Yahoo writes symbols in capitals; name {symbol.upper()} instead")
        if _ISIN.fullmatch(symbol):
            raise SymbolError(symbol, "this is an ISIN; give the symbol that Yahoo uses for it")
        now = self._clock()
        finished = self._calendars.last_finished_session(symbol, now)
        with _ONE_AT_A_TIME:
            if self._stopped is not None:
                raise SourceError(f"Yahoo is not asked any more: {self._stopped}; try again later")
            frame, chart = self._ask(symbol, since, finished)
        try:
            self._agree(symbol, now, str(chart["meta"]["exchangeTimezoneName"]))
            return _read(symbol, since, finished, frame, chart)
        except (KeyError, TypeError, ValueError) as error:
            # What yfinance lets pass: an infinite dividend, for example.
            raise SymbolError(symbol, _unreadable(error)) from error

    def _agree(self, symbol: str, now: datetime.datetime, time_zone: str) -> None:
        """See that the calendar is that of the exchange: another's would let an unfinished bar through."""
        name = self._calendars.name(symbol)
        ours = now.astimezone(ZoneInfo(self._calendars.time_zone(symbol))).utcoffset()
        theirs = now.astimezone(ZoneInfo(time_zone)).utcoffset()
        if name in _ROUND_THE_CLOCK or ours is None or theirs is None or abs(ours - theirs) <= _NEAR:
            return
        raise SymbolError(
            symbol,
            f"Yahoo places the exchange in {time_zone}, the calendar {name} lies elsewhere; name the "
            f"calendar in the job, for example `calendars: {{{symbol}: 24/5}}`",
        )

    def _ask(
        self, symbol: str, since: datetime.date | None, finished: datetime.date
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Have yfinance ask Yahoo, and turn whatever goes wrong into an error that says what."""
        from forecaster.prices.yahoo.transport import Busy, Refused, YahooSession

        yfinance = _yfinance()
        if self._session is None:
            self._session = YahooSession(self._politeness, self._rate_limit, self._gateway)
        session = self._session
        session.forget()
        start = _BEGINNING if since is None else since - _OVERLAP
        end = datetime.datetime.now(datetime.UTC).date() + _AHEAD
        try:
            ticker = yfinance.Ticker(symbol, session=session)
            # Without it yfinance asks Yahoo for the time zone first, which doubles the requests. It turns
            # `start` and `end` into moments and does nothing else.
            ticker._tz = self._calendars.time_zone(symbol)
            frame: pd.DataFrame = ticker.history(
                start=start, end=end, interval="1d", auto_adjust=False, repair=False, actions=False,
                keepna=True, timeout=self._politeness.timeout,
            )  # fmt: skip
        except SourceError:
            raise
        except Busy as error:
            self._refused(str(error), final=error.final)
            raise SymbolError(
                symbol, f"Yahoo gave no usable answer in {error.attempts} attempts: {error}; try again later"
            ) from error
        except Refused as error:
            self._in_a_row = 0
            raise SymbolError(symbol, _unknown(since, str(error))) from error
        except Exception as error:
            # yfinance raises whatever its parsing meets: KeyError, TypeError and exceptions of its own.
            if session.denied is not None:
                what = f"HTTP status {session.denied}, although yfinance renewed its cookie"
                self._refused(what, final=False)
                raise SymbolError(symbol, f"Yahoo refuses to answer: {what}; try again later") from error
            self._in_a_row = 0
            if session.chart is not None and not session.chart.get("timestamp"):
                raise SymbolError(symbol, _empty(session.chart, since, finished)) from error
            raise SymbolError(symbol, _unreadable(error)) from error
        self._in_a_row = 0
        if session.chart is None:
            raise SymbolError(symbol, "yfinance did not ask Yahoo for prices; update yfinance or forecaster")
        return frame, session.chart

    def _refused(self, what: str, *, final: bool) -> None:
        """Count a symbol that Yahoo would not answer, and stop the source when there were too many."""
        self._in_a_row += 1
        if final:
            self._stopped = what
        elif self._in_a_row >= self._politeness.stop_after:
            self._stopped = f"{self._in_a_row} symbols in a row had no answer (the last: {what})"


def _yfinance() -> Any:
    """Import yfinance and make it raise what goes wrong and write nothing."""
    import yfinance

    yfinance.config.debug.hide_exceptions = False
    # A folder that cannot be made: yfinance then does without its SQLite files, whose first writers collide
    # and which hold pickles.
    yfinance.set_tz_cache_location(str(Path(os.devnull) / "none"))
    # What yfinance logs is raised as well; its warnings about pandas are for its authors.
    logging.getLogger("yfinance").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="yfinance")
    return yfinance


def _read(
    symbol: str,
    since: datetime.date | None,
    finished: datetime.date,
    frame: pd.DataFrame,
    chart: dict[str, Any],
) -> Fetched:
    """Make prices as traded of what yfinance and Yahoo returned."""
    meta = chart["meta"]
    answered = str(meta.get("symbol") or symbol)
    if answered.upper() != symbol.upper():
        raise SymbolError(
            symbol,
            f"Yahoo answers with {answered}: the symbol was renamed; name {answered} in the job instead",
        )
    if meta.get("dataGranularity", "1d") != "1d":
        raise SymbolError(
            symbol,
            f"Yahoo answers with bars of {meta['dataGranularity']} where days were asked for; try later",
        )
    time_zone = str(meta["exchangeTimezoneName"])
    bars = frame.rename(columns=str.lower).reindex(columns=["open", "high", "low", "close", "volume"])
    bars = bars.astype(np.float64)
    bars.index = pd.DatetimeIndex(frame.index).tz_localize(None).normalize().as_unit("s")
    bars = bars[bars[["open", "high", "low", "close"]].notna().any(axis=1)]
    currency = str(meta.get("currency") or "")
    dividends, strange = _dividends(symbol, chart, time_zone, currency)
    traded = as_traded(bars, dividends, _splits(symbol, chart, time_zone))
    if traded.pending:
        raise SymbolError(
            symbol,
            f"a split on {traded.pending[0]} has no close yet, so whether Yahoo has restated the "
            "prices before it cannot be told; fetch again after that session",
        )
    prices = traded.prices[traded.prices.index <= pd.Timestamp(finished)]
    prices = prices.loc[: prices["close"].last_valid_index()] if prices["close"].notna().any() else prices[:0]
    if prices.empty:
        raise SymbolError(symbol, _empty(chart, since, finished))
    last: datetime.date = prices.index[-1].date()
    findings = [*_duplicates(symbol, chart, time_zone, finished), *strange]
    findings += [
        Finding(
            symbol, "split-not-restated", "warning", 1, session,
            f"Yahoo restates prices for every later split, but the close falls at the split of {session}",
            "the prices before it are taken as traded", (session,),
        )
        for session in traded.not_restated
    ]  # fmt: skip
    if finished - last > _STOPPED:
        findings.append(
            Finding(
                symbol, "stopped", "warning", 0, last,
                f"Yahoo has no close since {last}, though the exchange was open until {finished}",
                "delisted, suspended or renamed; its prices end there",
            )
        )  # fmt: skip
    if since is not None:
        prices = prices[prices.index >= pd.Timestamp(since)]
    return Fetched(
        prices=price_table(prices),
        first=_BEGINNING if since is None else since,
        last=last,
        findings=tuple(findings),
        time_zone=time_zone,
        currency=currency,
        instrument=str(meta.get("instrumentType") or ""),
        exchange=str(meta.get("exchangeName") or ""),
        name=str(meta.get("longName") or meta.get("shortName") or ""),
        first_trade=_first_trade(meta),
    )


def _dates(timestamps: Sequence[float], time_zone: str) -> pd.DatetimeIndex:
    """Dates of moments in the exchange's own zone, by yfinance's rule.

    A bar of 22:00 or 23:00 sharp is a midnight that Yahoo shifted by a change of the clocks: the next date.
    """
    moments = pd.to_datetime(np.asarray(timestamps, dtype="int64"), unit="s", utc=True).tz_convert(time_zone)
    shifted = (moments.minute == 0) & np.isin(moments.hour, (22, 23))
    return pd.DatetimeIndex(
        moments.tz_localize(None).normalize() + pd.to_timedelta(shifted.astype("int64"), unit="D")
    ).as_unit("s")


def _events(chart: dict[str, Any], kind: str, time_zone: str) -> list[tuple[pd.Timestamp, dict[str, Any]]]:
    """Dividends or splits with their dates, ascending.

    yfinance puts an event without a bar on the bar before; the holder of an ex-date gets it on the one after.
    """
    events = list(((chart.get("events") or {}).get(kind) or {}).values())
    dates = _dates([event["date"] for event in events], time_zone)
    return sorted(zip(dates, events, strict=True), key=lambda pair: pair[0])


def _splits(symbol: str, chart: dict[str, Any], time_zone: str) -> pd.Series[float]:
    """Ratios by date; one that Yahoo lists twice for a date counts once."""
    ratios: dict[tuple[pd.Timestamp, float], float] = {}
    for date, event in _events(chart, "splits", time_zone):
        old, new = float(event.get("denominator") or 0), float(event.get("numerator") or 0)
        if not (old > 0 and new > 0):
            raise SymbolError(
                symbol,
                f"a split must have a positive ratio. Received: {new:g} for {old:g} on {date.date()}; "
                "try again later",
            )
        ratios[date, new / old] = new / old
    return pd.Series(list(ratios.values()), pd.DatetimeIndex([date for date, _ in ratios]), np.float64)


def _dividends(
    symbol: str, chart: dict[str, Any], time_zone: str, currency: str
) -> tuple[pd.Series[float], list[Finding]]:
    """Amounts by date in the unit of the prices; one that Yahoo lists twice for a date counts once."""
    amounts: dict[tuple[pd.Timestamp, float], float] = {}
    foreign: list[datetime.date] = []
    for date, event in _events(chart, "dividends", time_zone):
        amount = float(event["amount"])
        if not np.isfinite(amount):
            raise ValueError(f"a dividend of {amount} on {date.date()}")
        paid = str(event.get("currency") or currency)
        if paid != currency:
            if (paid, currency) in _MINOR_UNITS:
                amount *= _MINOR_UNITS[paid, currency]
            else:
                foreign.append(date.date())
        amounts[date, amount] = amount
    findings = []
    if foreign:
        findings.append(
            Finding(
                symbol, "dividend-currency", "warning", len(foreign), foreign[0],
                f"dividends must be in the currency of the prices, {currency or 'unknown'}; "
                f"{len(foreign)} are in another",
                "the amounts are kept as they are", tuple(foreign),
            )
        )  # fmt: skip
    gains = [date.date() for date, _ in _events(chart, "capitalGains", time_zone)]
    if gains:
        findings.append(
            Finding(
                symbol, "capital-gains", "info", len(gains), gains[0],
                f"Yahoo lists capital gains beside dividends on {len(gains)} days",
                "they are not counted, because Yahoo's dividends often hold them already", tuple(gains),
            )
        )  # fmt: skip
    index = pd.DatetimeIndex([date for date, _ in amounts])
    return pd.Series(list(amounts.values()), index, np.float64), findings


def _duplicates(symbol: str, chart: dict[str, Any], time_zone: str, finished: datetime.date) -> list[Finding]:
    """Say which finished sessions Yahoo has more than once with different closes."""
    dates = _dates(chart["timestamp"], time_zone)
    closes = pd.Series(chart["indicators"]["quote"][0]["close"], dates, "float64")
    # Of the newest session the second bar is the quote after the close.
    closes = closes[(closes.index <= pd.Timestamp(finished)) & (closes.index < dates.max())].dropna()
    different = closes.groupby(level=0).nunique()
    twice = tuple(date.date() for date in different.index[different > 1])
    if not twice:
        return []
    return [
        Finding(
            symbol, "conflicting-bars", "warning", len(twice), twice[0],
            f"Yahoo has {len(twice)} sessions twice with different closes",
            "the first bar is taken", twice,
        )
    ]  # fmt: skip


def _first_trade(meta: dict[str, Any]) -> datetime.date | None:
    moment = meta.get("firstTradeDate")
    if moment is None:
        return None
    date: datetime.date = _dates([moment], str(meta["exchangeTimezoneName"]))[0].date()
    return date


def _unknown(since: datetime.date | None, words: str) -> str:
    """Say what it means that Yahoo has no such prices."""
    if since is None:
        return f"Yahoo does not know it ({words}); correct it, or remove it if it was delisted or renamed"
    return f"Yahoo has no prices since {since - _OVERLAP} ({words}): {_GONE}"


def _unreadable(error: Exception) -> str:
    text = " ".join(str(error).split())[:160]
    return (
        f"Yahoo's answer cannot be read ({type(error).__name__}: {text}); try again later or update yfinance"
    )


def _empty(chart: dict[str, Any], since: datetime.date | None, finished: datetime.date) -> str:
    """Say what it means that Yahoo knows the symbol and has no finished session of it."""
    began = _first_trade(chart.get("meta") or {})
    if began is not None and began > finished - _STOPPED:
        return f"newly listed: trading began on {began} and no session is finished; fetch again tomorrow"
    start = since - _OVERLAP if since is not None else began
    return f"Yahoo has no finished session{'' if start is None else f' since {start}'}: {_GONE}"
