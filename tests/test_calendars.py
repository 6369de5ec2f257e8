"""Exchange calendars by symbol."""

from __future__ import annotations

import datetime
import re
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.calendars import _INDICES, _SUFFIXES, FINAL_AFTER, Calendars, calendar_name
from forecaster.errors import ParameterError, SymbolError

CALENDARS = Calendars()
NEW_YORK = ZoneInfo("America/New_York")


def date(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("AAPL", "XNYS"), ("BRK-B", "XNYS"), ("BF-A", "XNYS"), ("aapl", "XNYS"), ("0700.HK", "XHKG"),
        ("7203.T", "XTKS"), ("SAP.DE", "XETR"), ("SAP.F", "XFRA"), ("VOD.L", "XLON"), ("MC.PA", "XPAR"),
        ("RY.TO", "XTSE"), ("BHP.AX", "XASX"), ("600519.SS", "XSHG"), ("000001.SZ", "XSHG"),
        ("TCS.NS", "XBOM"), ("TCS.BO", "XBOM"), ("VALE3.SA", "BVMF"), ("005930.KS", "XKRX"),
        ("NESN.SW", "XSWX"), ("ENI.MI", "XMIL"), ("ASML.AS", "XAMS"), ("VOLV-B.ST", "XSTO"),
        ("^GSPC", "XNYS"), ("^N225", "XTKS"), ("^TA125.TA", "XTAE"), ("CL=F", "CMES"),
        ("KC=F", "IEPA"), ("EURUSD=X", "24/5"), ("BTC-USD", "24/7"), ("ETH-BTC", "24/7"),
        ("DX-Y.NYB", "IEPA"),
    ],
)  # fmt: skip
def test_the_spelling_of_a_symbol_says_where_it_trades(symbol: str, name: str) -> None:
    assert calendar_name(symbol) == name
    assert CALENDARS.name(symbol) == name


@pytest.mark.parametrize(
    ("symbol", "what"),
    [
        ("ABC.QQ", "the exchange of the suffix `.QQ` is not known"),
        ("^NONE", "the exchange of this index is not"),
    ],
)
def test_an_unknown_exchange_is_named_with_the_way_out(symbol: str, what: str) -> None:
    with pytest.raises(SymbolError, match=re.escape(what)) as error:
        calendar_name(symbol)
    assert f"`calendars: {{{symbol}: XNYS}}`" in str(error.value)
    assert Calendars({symbol: "XNYS"}).name(symbol) == "XNYS"


def test_an_override_counts_for_its_symbol_alone() -> None:
    calendars = Calendars({"SPY": "24/7"})
    saturday = date("2024-06-01")
    assert len(calendars.sessions("SPY", saturday, saturday)) == 1
    assert len(calendars.sessions("QQQ", saturday, saturday)) == 0


def test_an_override_must_name_a_calendar() -> None:
    with pytest.raises(ParameterError, match=r"Received: 'NYSX' for SPY; there are 24/5, .*XNYS"):
        Calendars({"SPY": "NYSX"})


@pytest.mark.slow
def test_every_exchange_can_be_asked_or_says_what_to_do() -> None:
    # Version 4.13 of exchange_calendars cannot make five of them under pandas 3.1.
    now = datetime.datetime(2025, 6, 11, 23, 59, tzinfo=datetime.UTC)
    failed: dict[str, str] = {}
    symbols = {name: f"X.{suffix}" for suffix, name in _SUFFIXES.items()}
    symbols |= {name: index for index, name in _INDICES.items() if name not in symbols}
    for name, symbol in symbols.items():
        try:
            finished = CALENDARS.last_finished_session(symbol, now)
        except SymbolError as error:
            failed[name] = str(error)
        else:
            assert finished >= date("2025-06-05"), name
    for name, text in failed.items():
        assert f"cannot make the calendar {name}" in text
        assert re.search(r"for example `calendars: \{\S+: 24/5\}`$", text)
    assert set(failed) <= {"ASEX", "XBEL", "XBSE", "XCYS", "XTAE"}


def test_sessions_are_dates_of_the_exchange() -> None:
    # Good Friday, and the two days of hurricane Sandy.
    sessions = CALENDARS.sessions("AAPL", date("2024-03-28"), date("2024-04-02"))
    pd.testing.assert_index_equal(
        sessions, pd.DatetimeIndex(["2024-03-28", "2024-04-01", "2024-04-02"], name="session").as_unit("s")
    )
    assert len(CALENDARS.sessions("AAPL", date("2012-10-29"), date("2012-10-30"))) == 0
    # The golden week of Tokyo, where New York traded.
    assert len(CALENDARS.sessions("7203.T", date("2024-05-03"), date("2024-05-06"))) == 0
    assert len(CALENDARS.sessions("AAPL", date("2024-05-02"), date("2024-05-01"))) == 0
    assert len(CALENDARS.sessions("AAPL", date("1928-01-01"), date("2030-12-31"))) > 25_000


def test_an_early_close_is_one() -> None:
    thanksgiving = date("2024-11-29")
    assert CALENDARS.close("AAPL", date("2024-11-27")) == datetime.datetime(2024, 11, 27, 16, tzinfo=NEW_YORK)
    assert CALENDARS.close("AAPL", thanksgiving) == datetime.datetime(2024, 11, 29, 13, tzinfo=NEW_YORK)
    with pytest.raises(ParameterError, match="2024-11-28 is no session of AAPL"):
        CALENDARS.close("AAPL", date("2024-11-28"))


@pytest.mark.parametrize(
    ("symbol", "now", "session"),
    [
        ("AAPL", "2024-06-03T15:59-04:00", "2024-05-31"),
        ("AAPL", "2024-06-03T16:29-04:00", "2024-05-31"),
        ("AAPL", "2024-06-03T16:30-04:00", "2024-06-03"),
        ("AAPL", "2024-11-29T13:30-05:00", "2024-11-29"),  # an early close
        ("AAPL", "2024-01-15T20:00-05:00", "2024-01-12"),  # a holiday
        ("7203.T", "2024-06-03T18:00-04:00", "2024-06-03"),  # already the fourth in Tokyo
        ("7203.T", "2024-06-04T16:00+09:00", "2024-06-04"),
        ("0700.HK", "2024-06-04T08:00+00:00", "2024-06-03"),
        ("BTC-USD", "2024-06-03T00:31+00:00", "2024-06-02"),
        ("BTC-USD", "2024-06-03T00:29+00:00", "2024-06-01"),
        ("EURUSD=X", "2024-06-03T12:00+00:00", "2024-05-31"),
    ],
)
def test_a_session_is_finished_some_time_after_its_close(symbol: str, now: str, session: str) -> None:
    assert CALENDARS.last_finished_session(symbol, datetime.datetime.fromisoformat(now)) == date(session)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["AAPL", "7203.T", "BHP.AX", "VALE3.SA", "CL=F", "EURUSD=X", "BTC-USD", "SAP.DE"]),
    st.datetimes(datetime.datetime(1999, 3, 1), datetime.datetime(2026, 10, 1)),
    st.timedeltas(datetime.timedelta(0), datetime.timedelta(hours=3)),
)
def test_it_is_the_last_whose_close_and_margin_have_passed(
    symbol: str, moment: datetime.datetime, margin: datetime.timedelta
) -> None:
    now = moment.replace(tzinfo=datetime.UTC)
    session = CALENDARS.last_finished_session(symbol, now, margin)
    assert CALENDARS.close(symbol, session) + margin <= now
    later = CALENDARS.sessions(symbol, session, session + datetime.timedelta(days=30))[1].date()
    assert CALENDARS.close(symbol, later) + margin > now


def test_the_moment_needs_a_time_zone() -> None:
    with pytest.raises(ParameterError, match="`now` must have a time zone"):
        CALENDARS.last_finished_session("AAPL", datetime.datetime(2024, 6, 3))


def test_a_calendar_that_starts_late_says_so() -> None:
    assert CALENDARS.known_span("7203.T") == (date("1997-01-01"), date("2049-12-31"))
    with pytest.raises(
        ParameterError, match=r"XTKS of 7203.T is known from 1997-01-01 to .* ask within `known_"
    ):
        CALENDARS.sessions("7203.T", date("1990-01-01"), date("1999-01-01"))
    old = pd.DatetimeIndex(["1989-12-29", "1996-12-30"])
    missing, extra = CALENDARS.missing_and_extra("7203.T", old)
    assert (len(missing), len(extra)) == (0, 0)
    with pytest.raises(SymbolError, match=r"the calendar XTKS starts on 1997-01-01. Received: 1996-12-30"):
        CALENDARS.last_finished_session("7203.T", datetime.datetime(1996, 12, 30, tzinfo=datetime.UTC))


def test_after_the_end_of_a_calendar_weekdays_count() -> None:
    # The holidays of India are announced year by year: the calendar ends with one.
    end = CALENDARS.known_span("TCS.NS")[1]
    kolkata = ZoneInfo("Asia/Kolkata")
    day = next(
        after
        for days in range(5, 12)
        if (after := end + datetime.timedelta(days=days)).weekday() == 2  # a Wednesday
    )
    evening = datetime.datetime.combine(day, datetime.time(16, 0), kolkata)
    assert CALENDARS.last_finished_session("TCS.NS", evening) == day
    noon = datetime.datetime.combine(day, datetime.time(12, 0), kolkata)
    assert CALENDARS.last_finished_session("TCS.NS", noon) == day - datetime.timedelta(days=1)
    sunday = datetime.datetime.combine(day + datetime.timedelta(days=4), datetime.time(12, 0), kolkata)
    assert CALENDARS.last_finished_session("TCS.NS", sunday) == day + datetime.timedelta(days=2)
    last = CALENDARS.sessions("TCS.NS", end - datetime.timedelta(days=10), end)[-1].date()
    new_year = datetime.datetime.combine(end, datetime.time(23, 0), kolkata)
    assert CALENDARS.last_finished_session("TCS.NS", new_year) == last


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.dates(date("2023-11-01"), date("2024-03-01"))), st.sampled_from(["AAPL", "0700.HK", "BTC-USD"])
)
def test_missing_and_extra_are_the_differences(days: set[datetime.date], symbol: str) -> None:
    missing, extra = CALENDARS.missing_and_extra(symbol, pd.DatetimeIndex(sorted(days, reverse=True)))
    if not days:
        assert (len(missing), len(extra)) == (0, 0)
        return
    sessions = {day.date() for day in CALENDARS.sessions(symbol, min(days), max(days))}
    assert {day.date() for day in missing} == sessions - days
    assert {day.date() for day in extra} == days - sessions


def test_the_margin_covers_delayed_quotes() -> None:
    assert datetime.timedelta(minutes=20) <= FINAL_AFTER <= datetime.timedelta(hours=1)


@pytest.mark.parametrize("symbol", ["^VIX", "^VXN"])
def test_volatility_indices_are_computed_until_after_stocks_close(symbol: str) -> None:
    calendars = Calendars({})
    days = pd.DatetimeIndex(["2024-06-03", "2024-11-29"])  # the second closes early
    later = calendars.closings(symbol, days) - calendars.closings("SPY", days)
    assert (later == pd.Timedelta(minutes=15)).all()
    assert not calendars.same([symbol, "SPY"])


@pytest.mark.parametrize("symbol", ["AAPL", "VOD.L", "SAP.DE", "AIR.PA", "0700.HK", "BHP.AX"])
def test_a_date_that_is_no_session_closes_when_others_usually_do(symbol: str) -> None:
    # Many calendars end with a day on which the exchange closes early.
    wednesday, new_year = pd.DatetimeIndex(["2025-06-11"]), pd.DatetimeIndex(["2025-01-01"])
    zone = CALENDARS.time_zone(symbol)
    local = [
        pd.DatetimeIndex(CALENDARS.closings(symbol, day)).tz_localize("UTC").tz_convert(zone)[0]
        for day in (wednesday, new_year)
    ]
    assert local[0].time() == local[1].time()
    assert local[1].date() == new_year[0].date()
