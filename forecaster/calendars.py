"""Exchange calendars: which dates are sessions of a symbol, and when a session is over.

Symbols are written as Yahoo writes them, and their suffix says where they trade: ``0700.HK`` in Hong Kong,
``SAP.DE`` on Xetra, ``AAPL`` in New York. The calendars themselves are those of ``exchange_calendars``. A
session is a date in the exchange's own time zone.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster.errors import ParameterError, SymbolError

__all__ = ["FINAL_AFTER", "Calendars", "calendar_name"]

FINAL_AFTER: Final = datetime.timedelta(minutes=30)
"""How long after the close a bar still changes: closing auctions last up to ten minutes, and free quotes are
delayed by up to twenty."""

# By the text after the last dot. Where exchange_calendars has no calendar of the exchange itself, the one
# that keeps the same holidays: Shenzhen as Shanghai, the National Stock Exchange of India as Bombay, TSX
# Venture, Cboe Canada and the Canadian Securities Exchange as Toronto, small German exchanges as Hamburg.
_SUFFIXES: Final = {
    "AS": "XAMS", "AT": "ASEX", "AX": "XASX", "BA": "XBUE", "BD": "XBUD", "BE": "XHAM", "BK": "XBKK",
    "BO": "XBOM", "BR": "XBRU", "CBT": "CMES", "CL": "XBOG", "CME": "CMES", "CMX": "CMES", "CN": "XTSE",
    "CO": "XCSE", "DE": "XETR", "DU": "XDUS", "F": "XFRA", "HA": "XHAM", "HE": "XHEL", "HK": "XHKG",
    "HM": "XHAM", "IC": "XICE", "IL": "XLON", "IR": "XDUB", "IS": "XIST", "JK": "XIDX", "JO": "XJSE",
    "KL": "XKLS", "KQ": "XKRX", "KS": "XKRX", "L": "XLON", "LS": "XLIS", "MC": "XMAD", "ME": "XMOS",
    "MI": "XMIL", "MU": "XHAM", "MX": "XMEX", "NE": "XTSE", "NS": "XBOM", "NYB": "IEPA", "NYM": "CMES",
    "NZ": "XNZE", "OL": "XOSL", "PA": "XPAR", "PR": "XPRA", "PS": "XPHS", "RG": "XRIS", "RO": "XBSE",
    "SA": "BVMF", "SAU": "XSAU", "SG": "XSTU", "SI": "XSES", "SN": "XSGO", "SR": "XSAU", "SS": "XSHG",
    "ST": "XSTO", "SW": "XSWX", "SZ": "XSHG", "T": "XTKS", "TA": "XTAE", "TL": "XTAL", "TO": "XTSE",
    "TW": "XTAI", "TWO": "XTAI", "V": "XTSE", "VI": "XWBO", "VS": "XLIT", "WA": "XWAR", "XC": "XLON",
}  # fmt: skip

# Volatility indices are computed from options, which trade a quarter of an hour longer than stocks.
_INDICES: Final = {
    "^AEX": "XAMS", "^AORD": "XASX", "^ATX": "XWBO", "^AXJO": "XASX", "^BFX": "XBRU", "^BSESN": "XBOM",
    "^BVSP": "BVMF", "^DJI": "XNYS", "^DJT": "XNYS", "^DJU": "XNYS", "^FCHI": "XPAR", "^FTMC": "XLON",
    "^FTSE": "XLON", "^FVX": "XNYS", "^GDAXI": "XETR", "^GSPC": "XNYS", "^GSPTSE": "XTSE", "^HSCE": "XHKG",
    "^HSI": "XHKG", "^IBEX": "XMAD", "^IPSA": "XSGO", "^IRX": "XNYS", "^ISEQ": "XDUB", "^IXIC": "XNYS",
    "^JKSE": "XIDX", "^KLSE": "XKLS", "^KQ11": "XKRX", "^KS11": "XKRX", "^KS200": "XKRX", "^MDAXI": "XETR",
    "^MERV": "XBUE", "^MID": "XNYS", "^MXX": "XMEX", "^N225": "XTKS", "^NDX": "XNYS", "^NSEBANK": "XBOM",
    "^NSEI": "XBOM", "^NYA": "XNYS", "^NZ50": "XNZE", "^OEX": "XNYS", "^OMX": "XSTO", "^OMXC25": "XCSE",
    "^OMXH25": "XHEL", "^RUA": "XNYS", "^RUI": "XNYS", "^RUT": "XNYS", "^SOX": "XNYS", "^SP400": "XNYS",
    "^SP500TR": "XNYS", "^SP600": "XNYS", "^SSMI": "XSWX", "^STI": "XSES", "^STOXX": "XPAR",
    "^STOXX50E": "XPAR", "^TECDAX": "XETR", "^TNX": "XNYS", "^TWII": "XTAI", "^TYX": "XNYS", "^VIX": "XCBF",
    "^VXN": "XCBF", "^W5000": "XNYS", "^XAX": "XNYS",
}  # fmt: skip

# Softs and the dollar index trade at ICE Futures U.S.; every other ``=F`` of Yahoo's at a CME Group exchange.
_ICE_FUTURES: Final = frozenset({"CC=F", "CT=F", "DX=F", "KC=F", "OJ=F", "SB=F"})

# ``BTC-USD`` is a pair and ``BRK-B`` a share class: a pair ends in a currency.
_PAIR = re.compile(
    r"[A-Z0-9]+-(?:AUD|BNB|BRL|BTC|BUSD|CAD|CHF|CNY|ETH|EUR|GBP|HKD|IDR|INR|JPY|KRW|MXN|NZD|PHP|RUB|SEK|SGD"
    r"|THB|TRY|TWD|USD|USDC|USDT|ZAR)"
)

_WIDEST: Final = (pd.Timestamp(1900, 1, 1), pd.Timestamp(2049, 12, 31))

_SEARCH: Final = datetime.timedelta(days=60)
# Longer than any closure on record since 1945: New York stayed open, Moscow closed for 27 days in 2022.


def calendar_name(symbol: str) -> str:
    """Return the calendar that a symbol follows by its spelling.

    Parameters
    ----------
    symbol : str
        As Yahoo writes it: ``AAPL``, ``BRK-B``, ``0700.HK``, ``^N225``, ``CL=F``, ``EURUSD=X``, ``BTC-USD``.

    Returns
    -------
    str
        A name of ``exchange_calendars``: ``XNYS`` without a suffix, ``24/5`` for currencies (sessions from
        midnight to midnight UTC, Monday to Friday), ``24/7`` for pairs of crypto currencies.

    Raises
    ------
    SymbolError
        If the suffix or the index is not known.
    """
    text = symbol.upper()
    way_out = f"name its calendar in the job, for example `calendars: {{{symbol}: XNYS}}`"
    if text.startswith("^"):
        if text in _INDICES:
            return _INDICES[text]
        if "." not in text:
            raise SymbolError(symbol, f"the exchange of this index is not known; {way_out}")
    if text.endswith("=F"):
        return "IEPA" if text in _ICE_FUTURES else "CMES"
    if text.endswith("=X"):
        return "24/5"
    if _PAIR.fullmatch(text):
        return "24/7"
    if "." not in text:
        return "XNYS"
    suffix = text.rpartition(".")[2]
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    raise SymbolError(symbol, f"the exchange of the suffix `.{suffix}` is not known; {way_out}")


class Calendars:
    """The sessions of symbols.

    Parameters
    ----------
    overrides : mapping of str to str, default none
        A calendar of ``exchange_calendars`` (or one of its aliases, such as ``NASDAQ``) for each symbol whose
        spelling does not say where it trades.

    Raises
    ------
    ParameterError
        If an override names no calendar.

    Notes
    -----
    Calendars do not reach back for ever: Tokyo starts in 1997, Shanghai in 1990, Riyadh in 2021, and some end
    with the current year, because their holidays are announced year by year. `known_span` says so, and
    `missing_and_extra` keeps to it.
    """

    def __init__(self, overrides: Mapping[str, str] | None = None) -> None:
        self._overrides = dict(overrides or {})
        if self._overrides:
            from exchange_calendars import get_calendar_names

            names = get_calendar_names()
            for symbol, name in self._overrides.items():
                if name not in names:
                    raise ParameterError(
                        "a calendar must be one that exchange_calendars knows. "
                        f"Received: {name!r} for {symbol}; there are "
                        + ", ".join(get_calendar_names(include_aliases=False))
                    )

    def name(self, symbol: str) -> str:
        """Return the calendar of a symbol: the override or, without one, `calendar_name`.

        Raises
        ------
        SymbolError
            If there is no override and the spelling does not tell.
        """
        return self._overrides.get(symbol) or calendar_name(symbol)

    def known_span(self, symbol: str) -> tuple[datetime.date, datetime.date]:
        """Return the first and the last date between which the calendar of a symbol is known.

        Never before 1900 or after 2049.

        Raises
        ------
        SymbolError
            If the calendar is not known or cannot be made.
        """
        calendar = _calendar(symbol, self.name(symbol))
        first, last = calendar.bound_min() or _WIDEST[0], calendar.bound_max() or _WIDEST[1]
        return max(first, _WIDEST[0]).date(), min(last, _WIDEST[1]).date()

    def time_zone(self, symbol: str) -> str:
        """Return the name of the time zone in which the sessions of a symbol are dates."""
        return str(_calendar(symbol, self.name(symbol)).tz)

    def sessions(self, symbol: str, first: datetime.date, last: datetime.date) -> pd.DatetimeIndex:
        """Return the sessions of a symbol from `first` to `last`, both included.

        Returns
        -------
        DatetimeIndex of shape (n_sessions,)
            Named ``session``, in seconds without a time zone, ascending, as the index of a price table.

        Raises
        ------
        ParameterError
            If the calendar does not reach that far back or ahead.
        SymbolError
            If the calendar is not known or cannot be made.
        """
        if last < first:
            return _index([])
        known = self.known_span(symbol)
        if first < known[0] or last > known[1]:
            raise ParameterError(
                f"the calendar {self.name(symbol)} of {symbol} is known from {known[0]} to {known[1]} only. "
                f"Received: {first} to {last}; ask within `known_span`"
            )
        calendar = _calendar(symbol, self.name(symbol))
        return _index(calendar.sessions[calendar.sessions.slice_indexer(str(first), str(last))])

    def known_sessions(self, symbol: str, first: datetime.date, last: datetime.date) -> pd.DatetimeIndex:
        """Return the sessions of a symbol from `first` to `last`, as far as its calendar reaches.

        As `sessions`, but beyond `known_span` there are none.
        """
        known = self.known_span(symbol)
        return self.sessions(symbol, max(first, known[0]), min(last, known[1]))

    def missing_and_extra(
        self, symbol: str, dates: pd.DatetimeIndex
    ) -> tuple[pd.DatetimeIndex, pd.DatetimeIndex]:
        """Compare dates with the sessions of a symbol.

        Parameters
        ----------
        symbol : str
            The symbol.
        dates : DatetimeIndex of shape (n,)
            Dates without a time zone, in any order.

        Returns
        -------
        missing, extra : DatetimeIndex
            Sessions between the first and the last of `dates` that are not among them, and those of `dates`
            that are no session. Outside `known_span` nothing is missing and nothing is extra.

        Raises
        ------
        SymbolError
            If the calendar is not known or cannot be made.
        """
        if not len(dates):
            return _index([]), _index([])
        known = self.known_span(symbol)
        first = max(dates.min().date(), known[0])
        last = min(dates.max().date(), known[1])
        if last < first:
            return _index([]), _index([])
        sessions = self.sessions(symbol, first, last)
        inside = _index(dates[(dates >= pd.Timestamp(first)) & (dates <= pd.Timestamp(last))])
        return sessions.difference(inside), inside.difference(sessions)

    def close(self, symbol: str, session: datetime.date) -> datetime.datetime:
        """Return the moment (UTC) at which a session closes, early closes included.

        Raises
        ------
        ParameterError
            If `session` is no session of the symbol.
        SymbolError
            If the calendar is not known or cannot be made.
        """
        if not len(self.sessions(symbol, session, session)):
            raise ParameterError(
                f"{session} is no session of {symbol} (calendar {self.name(symbol)}); ask `sessions` for one"
            )
        closes = _calendar(symbol, self.name(symbol)).closes
        moment: datetime.datetime = closes[pd.Timestamp(session)].to_pydatetime()
        return moment

    def next_open(self, symbol: str, session: datetime.date) -> datetime.datetime:
        """Return the moment (UTC) at which the first session after a date opens.

        After the end of a calendar whose holidays are announced year by year, that is midnight of the next
        day.

        Raises
        ------
        SymbolError
            If the calendar is not known or cannot be made.
        """
        first = session + datetime.timedelta(days=1)
        ahead = self.known_sessions(symbol, first, session + _SEARCH)
        if not len(ahead):
            return datetime.datetime.combine(first, datetime.time(), datetime.UTC)
        moment: datetime.datetime = _calendar(symbol, self.name(symbol)).opens[ahead[0]].to_pydatetime()
        return moment.astimezone(datetime.UTC)

    def sessions_since(self, symbol: str, last: datetime.date, now: datetime.datetime) -> int:
        """Count the sessions that an exchange has finished after one, by now.

        Parameters
        ----------
        symbol : str
            The symbol.
        last : date
            The last session that is there; it is not counted.
        now : datetime
            The moment, with a time zone.

        Raises
        ------
        ParameterError, SymbolError
            As of `last_finished_session`.
        """
        finished = self.last_finished_session(symbol, now)
        if finished <= last:
            return 0
        missing, _ = self.missing_and_extra(symbol, pd.DatetimeIndex([last, finished]))
        return len(missing) + 1

    def closings(self, symbol: str, dates: pd.DatetimeIndex) -> NDArray[np.datetime64]:
        """Return the moments (UTC) at which sessions close, early closes included.

        Parameters
        ----------
        symbol : str
            The symbol.
        dates : DatetimeIndex of shape (n,)
            Dates without a time zone. One that is no session, or that the calendar does not reach, closes
            when the last session of the calendar does that is not cut short.

        Returns
        -------
        ndarray of shape (n,), datetime64[s]

        Raises
        ------
        SymbolError
            If the calendar is not known or cannot be made.
        """
        calendar = _calendar(symbol, self.name(symbol))
        closes = calendar.closes.dt.tz_convert(None)
        # As the clock on the wall shows it: summer time moves it in UTC.
        walls = dates + _usual_close(calendar)
        walls = walls.tz_localize(calendar.tz, ambiguous=True, nonexistent="shift_forward")
        moments = closes.reindex(dates).fillna(walls.tz_convert(None).to_series(index=dates))
        result: NDArray[np.datetime64] = moments.to_numpy().astype("datetime64[s]")
        return result

    def same(self, symbols: Iterable[str]) -> bool:
        """Tell whether symbols follow one calendar, and so close together.

        Raises
        ------
        SymbolError
            If the calendar of one is not known.
        """
        names = {self.name(symbol) for symbol in symbols}
        if len(names) < 2:
            return True
        from exchange_calendars import resolve_alias

        return len({resolve_alias(name) for name in names}) == 1

    def last_finished_session(
        self, symbol: str, now: datetime.datetime, margin: datetime.timedelta = FINAL_AFTER
    ) -> datetime.date:
        """Return the last session whose bar is final.

        Parameters
        ----------
        symbol : str
            The symbol.
        now : datetime
            The moment, with a time zone.
        margin : timedelta, default FINAL_AFTER
            How long after its close a bar may still change.

        Returns
        -------
        date
            The last session with close + margin <= now.

        Raises
        ------
        ParameterError
            If `now` has no time zone.
        SymbolError
            If the calendar is not known or cannot be made, or starts after `now`.

        Notes
        -----
        After the end of a calendar whose holidays are announced year by year, every day from Monday to Friday
        counts as a session with the last known hours: which of them will be holidays does not matter to
        whether a bar is final.
        """
        if now.tzinfo is None:
            raise ParameterError(f"`now` must have a time zone, such as datetime.UTC. Received: {now!r}")
        moment = pd.Timestamp(now).tz_convert("UTC") - pd.Timedelta(margin)
        known = self.known_span(symbol)
        # A session of the far east is a day ahead of UTC.
        last = min((moment + pd.Timedelta(days=1)).date(), known[1])
        first = max(last - _SEARCH, known[0])
        if last <= first:
            raise SymbolError(
                symbol,
                f"the calendar {self.name(symbol)} starts on {known[0]}. Received: {now:%Y-%m-%d}; "
                "name another with the same sessions in the job, for example "
                f"`calendars: {{{symbol}: 24/5}}`",
            )
        calendar = _calendar(symbol, self.name(symbol))
        closes = calendar.closes.loc[str(first) : str(last)]
        finished = closes[closes <= moment]
        session: datetime.date = finished.index[-1].date()
        if moment.date() > known[1]:
            usual = _usual_close(calendar)
            days = pd.bdate_range(known[1] + datetime.timedelta(days=1), moment.date())
            for day in days[::-1]:
                if (day + usual).tz_localize(calendar.tz) <= moment:
                    return day.date()
        return session


def _calendar(symbol: str, name: str) -> Any:
    try:
        return _make(name)
    except (ValueError, NotImplementedError, TypeError) as error:
        # Version 4.13 cannot make ASEX, XBEL, XBSE, XCYS (Orthodox Easter) and XTAE under pandas 3.1.
        raise SymbolError(
            symbol,
            f"exchange_calendars cannot make the calendar {name} ({type(error).__name__}: {_line(error)}); "
            "name another with nearly the same sessions in the job, for example "
            f"`calendars: {{{symbol}: 24/5}}`",
        ) from error


@cache
def _make(name: str) -> Any:
    """Make a calendar as wide as can be: that takes no longer than the default window of 20 years."""
    import exchange_calendars

    try:
        return exchange_calendars.get_calendar(name, start=_WIDEST[0], end=_WIDEST[1])
    except ValueError:
        default = exchange_calendars.get_calendar(name)
        first, last = default.bound_min() or _WIDEST[0], default.bound_max() or _WIDEST[1]
        return exchange_calendars.get_calendar(name, start=max(first, _WIDEST[0]), end=min(last, _WIDEST[1]))


def _usual_close(calendar: Any) -> pd.Timedelta:
    """Time from midnight to the close, on the wall, of the last session that is not cut short.

    The last of all may be: many exchanges close early on New Year's Eve.
    """
    usual = calendar.closes[~calendar.closes.index.isin(calendar.early_closes)]
    length: pd.Timedelta = usual.iloc[-1].tz_convert(calendar.tz).tz_localize(None) - usual.index[-1]
    return length


def _index(dates: Any) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(np.asarray(dates, dtype="datetime64[s]"), name="session")


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 80 else text[:80] + "..."
