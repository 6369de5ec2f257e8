"""yfinance itself, unchanged, against a Yahoo on this machine that behaves as badly as the real one."""

from __future__ import annotations

import concurrent.futures
import datetime
import email.utils
import json
import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yahoo_server import Bar, Fault, Listing, YahooServer

from forecaster.calendars import Calendars
from forecaster.errors import ParameterError, SourceError, SymbolError
from forecaster.prices.yahoo import Fetched, Politeness, YahooSource
from forecaster.prices.yahoo.politeness import RateLimit
from forecaster.prices.yahoo.traded import as_traded

CALENDARS = Calendars()
QUICK = Politeness(interval=0.0, timeout=0.5, attempts=3, backoff=0.01, longest_backoff=0.05, stop_after=3)
FRIDAY_EVENING = datetime.datetime(2024, 6, 14, 21, 0, tzinfo=datetime.UTC)
"""An hour after the close of New York."""


def date(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)


def sessions(first: str, last: str, symbol: str = "AAPL") -> list[datetime.date]:
    return [day.date() for day in CALENDARS.sessions(symbol, date(first), date(last))]


def bars(days: list[datetime.date], start: float = 100.0) -> dict[datetime.date, Bar]:
    """Prices that differ in every row and column."""
    return {
        day: (start + row, start + row + 2.5, start + row - 1.5, start + row + 1.25, 1000.0 + row)
        for row, day in enumerate(days)
    }


def expected(listing: Listing) -> pd.DataFrame:
    """The price table that was really traded."""
    days = sorted(listing.bars)
    table = pd.DataFrame(
        [listing.bars[day] for day in days],
        columns=["open", "high", "low", "close", "volume"],
        index=pd.DatetimeIndex(days).as_unit("s").rename("session"),
        dtype=np.float64,
    )
    table["dividend"] = [float(listing.dividends.get(day, 0.0)) for day in days]
    table["split"] = [np.divide(*listing.splits.get(day, (1.0, 1.0))) for day in days]
    return table


JUNE = sessions("2024-05-20", "2024-06-14")


@pytest.fixture
def yahoo() -> Iterator[YahooServer]:
    _forget_crumb()
    with YahooServer({"AAPL": Listing(bars(JUNE))}) as server:
        yield server


def source(
    server: YahooServer,
    *symbols: str,
    politeness: Politeness = QUICK,
    now: datetime.datetime = FRIDAY_EVENING,
    calendars: Calendars | None = None,
    state: Path | None = None,
) -> YahooSource:
    return YahooSource(symbols or ("AAPL",), calendars, politeness, state, server.url, lambda: now)


def assert_prices(got: pd.DataFrame, wanted: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(got, wanted, rtol=1e-12, check_freq=False)


# What Yahoo says when all is well


def test_a_history_comes_back_whole_by_one_request(yahoo: YahooServer) -> None:
    listing = Listing(bars(JUNE), {JUNE[3]: 0.25}, meta={"instrumentType": "ETF", "exchangeName": "PCX"})
    yahoo.listings["SPY"] = listing
    asked = source(yahoo, "SPY")
    fetched = asked.fetch("SPY")
    assert_prices(fetched.prices, expected(listing))
    assert (fetched.first, fetched.last) == (date("1900-01-01"), date("2024-06-14"))
    assert (fetched.currency, fetched.instrument, fetched.exchange) == ("USD", "ETF", "PCX")
    assert (fetched.name, fetched.time_zone) == ("SPY Inc.", "America/New_York")
    assert fetched.first_trade == JUNE[0]
    assert fetched.findings == ()
    assert asked.symbols() == ("SPY",)
    assert_prices(asked.load("SPY"), expected(listing))
    assert len(yahoo.charts()) == 2
    # One cookie and at most one crumb however many symbols: yfinance would ask for the cookie each time.
    others = [path for _, path in yahoo.requests if "/chart/" not in path]
    assert len([path for path in others if "fc.yahoo.com" in path]) <= 1
    assert len(others) <= 2


def test_an_incremental_fetch_is_the_tail_of_a_full_one(yahoo: YahooServer) -> None:
    since = date("2024-06-06")
    fetched = source(yahoo).fetch("AAPL", since)
    assert_prices(fetched.prices, expected(yahoo.listings["AAPL"]).loc["2024-06-06":])
    assert (fetched.first, fetched.last) == (since, date("2024-06-14"))
    ((_, path),) = yahoo.charts()
    start = int(re.search(r"period1=(-?\d+)", path)[1])  # type: ignore[index]
    assert date("2024-05-20") <= datetime.datetime.fromtimestamp(start, datetime.UTC).date() < since


def test_nothing_new_is_an_empty_table_and_no_error(yahoo: YahooServer) -> None:
    fetched = source(yahoo).fetch("AAPL", date("2024-06-17"))
    assert fetched.prices.empty
    assert list(fetched.prices.columns) == list(expected(yahoo.listings["AAPL"]).columns)
    assert fetched.last < fetched.first


# Unfinished, missing and repeated bars


@pytest.mark.parametrize(
    ("now", "last"),
    [
        ("2024-06-14T16:29-04:00", "2024-06-13"),  # closed, but not yet final
        ("2024-06-14T16:30-04:00", "2024-06-14"),
        ("2024-06-14T11:00-04:00", "2024-06-13"),
        ("2024-06-15T11:00-04:00", "2024-06-14"),
    ],
)
def test_an_unfinished_bar_is_never_returned(yahoo: YahooServer, now: str, last: str) -> None:
    prices = source(yahoo, now=datetime.datetime.fromisoformat(now)).load("AAPL")
    assert_prices(prices, expected(yahoo.listings["AAPL"]).loc[:last])


def test_after_an_early_close_the_bar_is_final(yahoo: YahooServer) -> None:
    days = sessions("2024-11-20", "2024-11-29")
    yahoo.listings["AAPL"] = Listing(bars(days))
    for hour, last in ((13, "2024-11-27"), (14, "2024-11-29")):
        now = datetime.datetime.fromisoformat(f"2024-11-29T{hour}:05-05:00")
        assert source(yahoo, now=now).load("AAPL").index[-1] == pd.Timestamp(last)


def test_the_live_quote_behind_the_bar_of_the_day_takes_its_place(yahoo: YahooServer) -> None:
    # After the close Yahoo repeats the session, stamped with the time of the last trade.
    listing = yahoo.listings["AAPL"]
    live = (110.0, 120.0, 100.0, 115.0, 5000.0)
    listing.extra = [(listing.moment(JUNE[-1]) + 6.5 * 3600, live)]
    fetched = source(yahoo).fetch("AAPL")
    assert len(fetched.prices) == len(JUNE)
    assert tuple(fetched.prices.iloc[-1, :5]) == live
    assert fetched.findings == ()


def test_a_null_last_bar_is_not_there_yet(yahoo: YahooServer) -> None:
    yahoo.listings["AAPL"].bars[JUNE[-1]] = (None,) * 5
    fetched = source(yahoo).fetch("AAPL")
    assert_prices(fetched.prices, expected(Listing(bars(JUNE[:-1]))))
    assert fetched.last == JUNE[-2]
    # Nor is one that lacks the close alone.
    yahoo.listings["AAPL"].bars[JUNE[-1]] = (100.0, 101.0, 99.0, None, 10.0)
    assert source(yahoo).fetch("AAPL").last == JUNE[-2]


def test_a_null_bar_inside_is_missing_and_its_dividend_falls_on_the_next(yahoo: YahooServer) -> None:
    hole, after = JUNE[5], JUNE[6]
    listing = yahoo.listings["AAPL"]
    listing.bars[hole] = (None,) * 5
    listing.dividends = {hole: 0.5}
    prices = source(yahoo).load("AAPL")
    assert pd.Timestamp(hole) not in prices.index
    assert prices["dividend"].to_dict() == {
        day: 0.5 if day == pd.Timestamp(after) else 0.0 for day in prices.index
    }


def test_actions_on_a_day_without_a_bar_fall_on_the_next_session(yahoo: YahooServer) -> None:
    # yfinance would put them on the session before, which traded with the dividend and before the split.
    saturday, monday = date("2024-06-01"), date("2024-06-03")
    yahoo.listings["AAPL"] = Listing(
        bars(JUNE), dividends={saturday: 0.5}, splits={date("2024-06-08"): (2.0, 1.0)}
    )
    prices = source(yahoo).load("AAPL")
    assert prices.index[prices["dividend"] == 0.5].tolist() == [pd.Timestamp(monday)]
    assert prices.index[prices["split"] == 2.0].tolist() == [pd.Timestamp("2024-06-10")]
    assert_prices(
        prices[["open", "high", "low", "close", "volume"]],
        expected(yahoo.listings["AAPL"])[["open", "high", "low", "close", "volume"]],
    )


def test_repeated_rows_count_once(yahoo: YahooServer) -> None:
    yahoo.listings["AAPL"].repeated = [JUNE[0], JUNE[4], JUNE[-1]]
    fetched = source(yahoo).fetch("AAPL")
    assert_prices(fetched.prices, expected(yahoo.listings["AAPL"]))
    assert fetched.findings == ()


def test_two_different_bars_of_a_session_are_said(yahoo: YahooServer) -> None:
    listing = yahoo.listings["AAPL"]
    listing.extra = [(listing.moment(JUNE[4]) + 60, (1.0, 1.0, 1.0, 1.0, 1.0))]
    fetched = source(yahoo).fetch("AAPL")
    assert_prices(fetched.prices, expected(listing))
    (finding,) = fetched.findings
    assert (finding.code, finding.severity, finding.rows) == ("conflicting-bars", "warning", (JUNE[4],))


@pytest.mark.parametrize(
    ("symbol", "zone", "opens", "first", "last"),
    [
        ("AAPL", "America/New_York", "09:30", "2024-02-26", "2024-04-05"),
        ("7203.T", "Asia/Tokyo", "09:00", "2024-03-01", "2024-04-05"),
        ("BHP.AX", "Australia/Sydney", "10:00", "2024-03-25", "2024-04-19"),
        ("VOD.L", "Europe/London", "08:00", "2023-10-16", "2023-11-10"),
        ("VALE3.SA", "America/Sao_Paulo", "10:00", "2018-10-22", "2018-11-16"),
        ("AIR.NZ", "Pacific/Auckland", "10:00", "2023-09-11", "2023-10-13"),
        ("EURUSD=X", "Europe/London", "00:00", "2024-03-18", "2024-04-12"),
        ("BTC-USD", "UTC", "00:00", "2024-03-18", "2024-04-12"),
    ],
)
def test_sessions_are_dates_of_the_exchange_when_the_clocks_change(
    yahoo: YahooServer, symbol: str, zone: str, opens: str, first: str, last: str
) -> None:
    listing = Listing(
        bars(sessions(first, last, symbol)), time_zone=zone, opens=datetime.time.fromisoformat(opens)
    )
    listing.dividends = {sorted(listing.bars)[7]: 0.5}
    yahoo.listings[symbol] = listing
    now = datetime.datetime.combine(date(last), datetime.time(), datetime.UTC) + datetime.timedelta(days=2)
    assert_prices(source(yahoo, symbol, now=now).load(symbol), expected(listing))


def test_a_midnight_that_yahoo_shifted_is_the_next_date(yahoo: YahooServer) -> None:
    # Seen for Brazil: bars stamped at 23:00 of the day before.
    days = sessions("2024-06-03", "2024-06-07", "VALE3.SA")
    before = [day - datetime.timedelta(days=1) for day in days]
    listing = Listing(
        dict(zip(before, bars(days).values(), strict=True)),
        dividends={before[2]: 0.5}, time_zone="America/Sao_Paulo", opens=datetime.time(23, 0),
    )  # fmt: skip
    yahoo.listings["VALE3.SA"] = listing
    wanted = expected(Listing(bars(days), {days[2]: 0.5}))
    assert_prices(source(yahoo, "VALE3.SA").load("VALE3.SA"), wanted)


# Splits and dividends


def split_listing(**how: object) -> Listing:
    """Ten for one on 2024-06-10, with dividends before and after it."""
    days = [day for day in JUNE if day < date("2024-06-10")]
    after = [day for day in JUNE if day >= date("2024-06-10")]
    traded = {**bars(days, 1200.0), **bars(after, 120.0)}
    dividends = {date("2024-05-24"): 0.4, date("2024-06-11"): 0.01}
    return Listing(traded, dividends, {date("2024-06-10"): (10.0, 1.0)}, **how)  # type: ignore[arg-type]


def test_a_split_that_restates_all_history_is_undone(yahoo: YahooServer) -> None:
    yahoo.listings["NVDA"] = split_listing()
    assert_prices(source(yahoo, "NVDA").load("NVDA"), expected(split_listing()))


@pytest.mark.parametrize("since", ["2024-06-05", "2024-06-10", "2024-06-12"])
def test_a_split_inside_or_before_the_window_is_undone_where_it_should_be(
    yahoo: YahooServer, since: str
) -> None:
    yahoo.listings["NVDA"] = split_listing()
    assert_prices(
        source(yahoo, "NVDA").fetch("NVDA", date(since)).prices, expected(split_listing()).loc[since:]
    )


def test_what_was_stored_before_a_split_is_what_is_fetched_after_it(yahoo: YahooServer) -> None:
    before = split_listing()
    before.bars = {day: bar for day, bar in before.bars.items() if day < date("2024-06-10")}
    before.splits = {}
    yahoo.listings["NVDA"] = before
    stored = source(yahoo, "NVDA", now=datetime.datetime(2024, 6, 7, 22, tzinfo=datetime.UTC)).load("NVDA")
    yahoo.listings["NVDA"] = split_listing()
    again = source(yahoo, "NVDA").fetch("NVDA", date("2024-05-24")).prices
    assert_prices(again.loc[: stored.index[-1]], stored.loc["2024-05-24":])


def test_the_unfinished_bar_of_the_day_of_a_split_tells_that_history_is_restated(yahoo: YahooServer) -> None:
    yahoo.listings["NVDA"] = split_listing()
    noon = datetime.datetime(2024, 6, 10, 16, tzinfo=datetime.UTC)
    listing = yahoo.listings["NVDA"]
    listing.bars = {day: bar for day, bar in listing.bars.items() if day <= date("2024-06-10")}
    prices = source(yahoo, "NVDA", now=noon).load("NVDA")
    assert_prices(prices, expected(split_listing()).loc[:"2024-06-07"])


def test_a_split_without_a_bar_after_it_is_refused(yahoo: YahooServer) -> None:
    yahoo.listings["NVDA"] = split_listing()
    listing = yahoo.listings["NVDA"]
    listing.bars = {day: bar for day, bar in listing.bars.items() if day < date("2024-06-10")}
    dawn = datetime.datetime(2024, 6, 10, 10, tzinfo=datetime.UTC)
    with pytest.raises(SymbolError, match=r"NVDA: a split on 2024-06-10 has no close yet, so .* fetch again"):
        source(yahoo, "NVDA", now=dawn).load("NVDA")


def test_a_split_that_yahoo_has_not_worked_in_is_told_from_one_that_it_has(yahoo: YahooServer) -> None:
    yahoo.listings["NVDA"] = split_listing(not_restated=[date("2024-06-10")])
    fetched = source(yahoo, "NVDA").fetch("NVDA")
    assert_prices(fetched.prices, expected(split_listing()))
    (finding,) = fetched.findings
    assert (finding.code, finding.first_session) == ("split-not-restated", date("2024-06-10"))


def test_actions_that_yahoo_lists_twice_count_once(yahoo: YahooServer) -> None:
    yahoo.listings["NVDA"] = split_listing()
    chart = yahoo.listings["NVDA"].chart("NVDA", -1e12, 1e12)
    for kind in ("dividends", "splits"):
        events = chart["chart"]["result"][0]["events"][kind]
        for key, event in list(events.items()):
            events[key + "0"] = {**event, "date": event["date"] + 1800}
    yahoo.always["NVDA"] = Fault(body=json.dumps(chart).encode())
    assert_prices(source(yahoo, "NVDA").load("NVDA"), expected(split_listing()))


def test_a_split_that_cannot_be_is_refused(yahoo: YahooServer) -> None:
    chart = Listing(bars(JUNE)).chart("AAPL", -1e12, 1e12)
    event = {"date": Listing({}).moment(JUNE[5]), "numerator": 2, "denominator": 0, "splitRatio": "2:0"}
    chart["chart"]["result"][0]["events"] = {"splits": {"1": event}}
    yahoo.always["AAPL"] = Fault(body=json.dumps(chart).encode())
    with pytest.raises(SymbolError, match=r"AAPL: .*positive ratio. Received: 2 for 0 on 2024-05-28"):
        source(yahoo).load("AAPL")


def test_dividends_are_in_the_unit_of_the_prices_or_it_is_said(yahoo: YahooServer) -> None:
    days = sessions("2024-05-20", "2024-06-14", "VOD.L")
    yahoo.listings["VOD.L"] = Listing(
        bars(days), {days[3]: 0.05}, dividend_currency="GBP", time_zone="Europe/London",
        opens=datetime.time(8), meta={"currency": "GBp"},
    )  # fmt: skip
    fetched = source(yahoo, "VOD.L").fetch("VOD.L")
    assert fetched.prices["dividend"].iloc[3] == pytest.approx(5.0)
    assert (fetched.currency, fetched.findings) == ("GBp", ())
    yahoo.listings["VOD.L"].dividend_currency = "USD"
    (finding,) = source(yahoo, "VOD.L").fetch("VOD.L").findings
    assert (finding.code, finding.rows) == ("dividend-currency", (days[3],))
    assert "in the currency of the prices, GBp" in finding.message


@pytest.mark.parametrize("amount", [None, float("nan"), float("inf"), "much"])
def test_a_dividend_that_is_no_number_is_not_taken_for_none(yahoo: YahooServer, amount: object) -> None:
    chart = Listing(bars(JUNE)).chart("AAPL", -1e12, 1e12)
    event = {"date": Listing({}).moment(JUNE[5]), "amount": amount}
    chart["chart"]["result"][0]["events"] = {"dividends": {"1": event}}
    yahoo.always["AAPL"] = Fault(body=json.dumps(chart).replace("Infinity", "1e999").encode())
    with pytest.raises(SymbolError, match="AAPL: Yahoo's answer cannot be read"):
        source(yahoo).load("AAPL")


def test_capital_gains_of_a_fund_are_said(yahoo: YahooServer) -> None:
    yahoo.listings["SPY"] = Listing(bars(JUNE), capital_gains={JUNE[3]: 1.5}, meta={"instrumentType": "ETF"})
    fetched = source(yahoo, "SPY").fetch("SPY")
    assert (fetched.prices["dividend"] == 0).all()
    assert [(finding.code, finding.rows) for finding in fetched.findings] == [("capital-gains", (JUNE[3],))]


RATIOS = [(2.0, 1.0), (3.0, 1.0), (3.0, 2.0), (7.0, 1.0), (21.0, 20.0), (1.0, 10.0), (1.0, 3.0)]


@st.composite
def histories(draw: st.DrawFn) -> Listing:
    """Random prices as traded: a random walk that falls by the ratio at each split."""
    days = sessions("2024-03-01", "2024-06-14")[: draw(st.integers(25, 60))]
    seed = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    places = st.sampled_from(days[1:])
    splits = draw(st.dictionaries(places, st.sampled_from(RATIOS), max_size=4))
    dividends = draw(st.dictionaries(places, st.floats(0.001, 3.0), max_size=6))
    close = 50.0 * np.exp(np.cumsum(seed.uniform(-0.2, 0.2, len(days))))
    close /= np.cumprod([np.divide(*splits.get(day, (1.0, 1.0))) for day in days])
    low, high = close * seed.uniform(0.9, 1, len(days)), close * seed.uniform(1, 1.1, len(days))
    volume = seed.integers(10**6, 10**9, len(days)).astype(float)
    columns = (seed.uniform(low, high), high, low, close, volume)
    rows: list[Bar] = list(zip(*(column.tolist() for column in columns), strict=True))
    return Listing(dict(zip(days, rows, strict=True)), dividends, splits)


def until(listing: Listing, last: datetime.date) -> Listing:
    """What Yahoo shows at the end of a day: it does not know of later splits."""
    return Listing(
        {day: bar for day, bar in listing.bars.items() if day <= last},
        {day: amount for day, amount in listing.dividends.items() if day <= last},
        {day: ratio for day, ratio in listing.splits.items() if day <= last},
    )


def assert_traded(got: pd.DataFrame, listing: Listing) -> None:
    wanted = expected(listing)
    pd.testing.assert_frame_equal(
        got.drop(columns="volume"), wanted.drop(columns="volume"), rtol=1e-9, check_freq=False
    )
    # Yahoo rounds restated volumes to whole shares.
    np.testing.assert_allclose(got["volume"], wanted["volume"], rtol=1e-3)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(histories(), st.data())
def test_as_traded_prices_are_the_original_however_they_are_fetched(
    listing: Listing, data: st.DataObject
) -> None:
    days = sorted(listing.bars)
    evenings = sorted(data.draw(st.sets(st.sampled_from(days[5:]), min_size=1, max_size=3)) | {days[-1]})
    stored: pd.DataFrame | None = None
    with YahooServer() as server:
        for evening in evenings:
            server.listings["X"] = until(listing, evening)
            now = CALENDARS.close("X", evening) + datetime.timedelta(hours=1)
            asked = source(server, "X", now=now)
            if stored is None:
                stored = asked.load("X")
            else:
                # What is missing and some sessions before it, which must agree with what is stored.
                back = data.draw(st.integers(1, len(stored)))
                since = stored.index[-back]
                fetched = asked.fetch("X", since.date()).prices
                assert fetched.index[0] == since
                stored = pd.concat([stored[stored.index < since], fetched])
            assert_traded(stored, until(listing, evening))
    assert stored is not None
    assert len(stored) == len(days)


@settings(max_examples=60, deadline=None)
@given(histories())
def test_undoing_splits_gives_back_what_was_traded(listing: Listing) -> None:
    wanted = expected(listing)
    index = wanted.index
    dates = pd.DatetimeIndex(list(listing.splits))
    splits = pd.Series([float(np.divide(*ratio)) for ratio in listing.splits.values()], dates, dtype=float)
    factor = np.array([splits[splits.index > day].prod() for day in index])
    served = wanted[["open", "high", "low", "close"]].div(factor, axis=0)
    served["volume"] = wanted["volume"] * factor
    dividends = (wanted["dividend"] / factor)[wanted["dividend"] > 0]
    traded = as_traded(served, dividends, splits)
    assert_traded(traded.prices, listing)
    assert (traded.not_restated, traded.pending) == ((), ())
    # As it would be seen before the last bar: what came before is the same.
    earlier = as_traded(served.iloc[:-1], dividends, splits[splits.index < index[-1]])
    scale = float(splits.get(index[-1], 1.0))
    np.testing.assert_allclose(earlier.prices["close"] * scale, traded.prices["close"].iloc[:-1], rtol=1e-9)


# Symbols that cannot be had


def test_an_unknown_symbol_is_named_in_yahoos_words_by_one_request(yahoo: YahooServer) -> None:
    with pytest.raises(SymbolError) as error:
        source(yahoo, "NONE").load("NONE")
    assert str(error.value) == (
        "NONE: Yahoo does not know it (No data found, symbol may be delisted); correct it, or remove it if "
        "it was delisted or renamed"
    )
    assert len(yahoo.charts()) == 1


def test_a_symbol_that_vanished_is_called_delisted_or_renamed(yahoo: YahooServer) -> None:
    with pytest.raises(
        SymbolError, match=r"no prices since 2024-05-23 \(No data .*delisted, suspended or ren"
    ):
        source(yahoo, "NONE").fetch("NONE", date("2024-06-07"))


def test_an_empty_answer_is_named(yahoo: YahooServer) -> None:
    yahoo.listings["OLD"] = Listing({}, meta={"firstTradeDate": 345479400})
    with pytest.raises(
        SymbolError, match=r"OLD: Yahoo has no finished session since 2024-05-23: delisted, susp"
    ):
        source(yahoo, "OLD").fetch("OLD", date("2024-06-07"))
    with pytest.raises(
        SymbolError, match="OLD: Yahoo has no finished session since 1980-12-12: delisted, susp"
    ):
        source(yahoo, "OLD").fetch("OLD")


def test_a_symbol_of_today_is_called_newly_listed(yahoo: YahooServer) -> None:
    yahoo.listings["IPO"] = Listing(bars(JUNE[-1:]))
    noon = datetime.datetime(2024, 6, 14, 16, tzinfo=datetime.UTC)
    with pytest.raises(
        SymbolError, match=r"IPO: newly listed: trading began on 2024-06-14 and no session is fin"
    ):
        source(yahoo, "IPO", now=noon).load("IPO")
    assert len(source(yahoo, "IPO").load("IPO")) == 1


def test_a_symbol_that_stopped_trading_is_said(yahoo: YahooServer) -> None:
    yahoo.listings["OLD"] = Listing(bars(sessions("2024-01-02", "2024-05-24")))
    fetched = source(yahoo, "OLD").fetch("OLD")
    (finding,) = fetched.findings
    assert (finding.code, finding.severity, finding.first_session) == (
        "stopped",
        "warning",
        date("2024-05-24"),
    )
    assert finding.reason == (
        "Yahoo has no close since 2024-05-24, though the exchange was open until 2024-06-14; delisted, "
        "suspended or renamed; its prices end there"
    )


def test_a_renamed_symbol_is_not_stored_under_its_old_name(yahoo: YahooServer) -> None:
    yahoo.listings["FB"] = Listing(bars(JUNE), meta={"symbol": "META"})
    with pytest.raises(
        SymbolError, match="FB: Yahoo answers with META: the symbol was renamed; name META in"
    ):
        source(yahoo, "FB").load("FB")


def test_months_are_not_taken_for_days(yahoo: YahooServer) -> None:
    # Yahoo widens the bars of some symbols when all of their history is asked for.
    yahoo.listings["OLD"] = Listing(bars(JUNE), meta={"dataGranularity": "1mo"})
    with pytest.raises(SymbolError, match="OLD: Yahoo answers with bars of 1mo where days were asked for"):
        source(yahoo, "OLD").load("OLD")


@pytest.mark.parametrize("symbol", ["A/B", "A B", "", "..", "A?x=1", "Ä", ".X"])
def test_what_cannot_be_a_symbol_is_not_asked_for(yahoo: YahooServer, symbol: str) -> None:
    with pytest.raises(SymbolError, match="Yahoo's symbols have letters, digits and"):
        source(yahoo, symbol).load(symbol)
    with pytest.raises(SymbolError, match="US0378331005: this is an ISIN"):
        source(yahoo).load("US0378331005")
    with pytest.raises(
        SymbolError, match=r"the exchange of the suffix `.QQ` is not known; .*`calendars: {A.QQ:"
    ):
        source(yahoo).load("A.QQ")
    assert yahoo.requests == []


def test_a_symbol_has_one_spelling(yahoo: YahooServer) -> None:
    with pytest.raises(SymbolError, match="writes symbols in capitals; name AAPL instead"):
        source(yahoo, "aapl").fetch("aapl")
    assert yahoo.requests == []


def test_a_calendar_of_another_part_of_the_world_is_refused(yahoo: YahooServer) -> None:
    yahoo.listings["AAPL"].time_zone = "Asia/Tokyo"
    with pytest.raises(
        SymbolError, match=r"places the exchange in Asia/Tokyo, the calendar XNYS lies elsewhere"
    ):
        source(yahoo).load("AAPL")
    # A session of 24/5 ends at midnight UTC.
    assert len(source(yahoo, calendars=Calendars({"AAPL": "24/5"})).load("AAPL")) == len(JUNE) - 1


# Yahoo in trouble


@pytest.mark.parametrize(
    "fault",
    [
        Fault(429, body=b"Too Many Requests"),
        Fault(429, {"retry-after": "0"}, b"Too Many Requests"),
        Fault(500, body=b"{}"),
        Fault(502, body=b"<html>Bad gateway</html>"),
        Fault(503),
        Fault(999),
        Fault(how="cut"),
        Fault(how="drop"),
        Fault(how="slow", seconds=0.7),
        Fault(body=b'{"chart":{"result":[{"meta":{"currency":"USD"'),
        Fault(body=b""),
        Fault(body=b"<html>Will be right back</html>"),
        Fault(body=b"[]"),
        Fault(body=b'{"chart":{"result":[],"error":null}}'),
        Fault(404, body=b"<html>not JSON</html>"),
    ],
    ids=lambda fault: f"{fault.status}-{fault.how}-{(fault.body or b'')[:12].decode()}",
)
def test_trouble_that_passes_costs_nothing(yahoo: YahooServer, fault: Fault) -> None:
    yahoo.faults["AAPL"] = deque([fault, fault])
    fetched = source(yahoo).fetch("AAPL")
    assert_prices(fetched.prices, expected(yahoo.listings["AAPL"]))
    assert fetched.findings == ()
    assert len(yahoo.charts()) == 3


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (Fault(429, body=b"no"), "HTTP status 429; try again later"),
        (Fault(429, {"retry-after": "0"}, b"no"), "HTTP status 429, retry after 0 s; try again later"),
        (Fault(500), "HTTP status 500; try again later"),
        (Fault(how="drop"), "no answer (Failed to perform, curl: (52)"),
        (Fault(how="slow", seconds=0.7), "no answer (Failed to perform, curl: (28)"),
        (
            Fault(body=b'{"chart"'),
            "HTTP status 200, 8 bytes that are not the JSON of a chart; try again later",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_trouble_that_stays_is_named_for_its_symbol_and_the_others_go_on(
    yahoo: YahooServer, fault: Fault, what: str
) -> None:
    yahoo.always["BAD"] = fault
    asked = source(yahoo, "BAD", "AAPL", "BAD")
    with pytest.raises(
        SymbolError, match=re.escape(f"BAD: Yahoo gave no usable answer in 3 attempts: {what}")
    ):
        asked.load("BAD")
    assert_prices(asked.load("AAPL"), expected(yahoo.listings["AAPL"]))
    # libcurl sends a request again, once, if a connection that it kept open was dropped.
    assert len(yahoo.charts("BAD")) in ((3, 4, 5, 6) if fault.how == "drop" else (3,))


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(yahoo: YahooServer, form: str) -> None:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
    header = "1" if form == "seconds" else email.utils.format_datetime(moment, usegmt=True)
    yahoo.faults["AAPL"] = deque([Fault(429, {"Retry-After": header}, b"no")])
    begun = time.time()
    assert len(source(yahoo).load("AAPL")) == len(JUNE)
    (first, _), (second, _) = yahoo.charts()
    if form == "seconds":
        assert 1.0 <= second - first < 10.0
    else:
        # A date has whole seconds only.
        assert time.time() >= moment.timestamp() - 1.0 > begun


def test_the_wait_doubles_and_has_an_end(yahoo: YahooServer) -> None:
    yahoo.always["AAPL"] = Fault(503)
    with pytest.raises(SymbolError, match="in 4 attempts"):
        source(yahoo, politeness=Politeness(interval=0, attempts=4, backoff=0.1)).load("AAPL")
    waits = np.diff([moment for moment, _ in yahoo.charts()])
    assert (waits >= [0.1, 0.2, 0.4]).all()
    begun = time.time()
    with pytest.raises(SymbolError, match="in 3 attempts"):
        source(yahoo, politeness=Politeness(interval=0, attempts=3, backoff=90, longest_backoff=0.05)).load(
            "AAPL"
        )
    assert time.time() - begun < 80


def test_after_some_symbols_in_a_row_the_source_stops_and_names_what_was_not_tried(
    yahoo: YahooServer,
) -> None:
    yahoo.always["*"] = Fault(429, body=b"no")
    asked = source(yahoo, *"ABCDE")
    for symbol in "ABC":
        with pytest.raises(SymbolError, match=f"{symbol}: Yahoo gave no usable answer in 3 attempts"):
            asked.load(symbol)
    seen = len(yahoo.requests)
    for symbol in "DE":
        with pytest.raises(SourceError) as error:
            asked.load(symbol)
        assert str(error.value) == (
            "Yahoo is not asked any more: 3 symbols in a row had no answer (the last: HTTP status 429); "
            "try again later"
        )
    assert len(yahoo.requests) == seen
    # The next run goes on.
    yahoo.always.clear()
    assert len(source(yahoo).load("AAPL")) == len(JUNE)


def test_answers_in_between_keep_the_source_going(yahoo: YahooServer) -> None:
    yahoo.always["BAD"] = Fault(500)
    asked = source(yahoo, politeness=Politeness(interval=0, attempts=1, stop_after=2))
    for _ in range(3):
        with pytest.raises(SymbolError, match="HTTP status 500"):
            asked.load("BAD")
        with pytest.raises(SymbolError, match="does not know it"):
            asked.load("NONE")
    assert len(asked.load("AAPL")) == len(JUNE)


def test_a_longer_wait_than_is_granted_stops_the_source_at_once(yahoo: YahooServer) -> None:
    yahoo.always["*"] = Fault(429, {"retry-after": "3600"}, b"no")
    asked = source(yahoo)
    with pytest.raises(SymbolError, match=r"in 1 attempts: HTTP status 429, retry after 3600 s"):
        asked.load("AAPL")
    with pytest.raises(
        SourceError, match="not asked any more: HTTP status 429, retry after 3600 s; try again"
    ):
        asked.load("B")
    assert len(yahoo.charts()) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(429, body=b"Too Many Requests"),
        Fault(500),
        Fault(how="drop"),
        Fault(how="slow", seconds=25.0),
        Fault(body=b"<html>no crumb</html>"),
    ],
)
def test_prices_come_without_a_crumb_too(yahoo: YahooServer, fault: Fault) -> None:
    _forget_crumb()
    yahoo.crumb = fault
    begun = time.time()
    assert_prices(source(yahoo).load("AAPL"), expected(yahoo.listings["AAPL"]))
    # yfinance alone would wait 30 seconds for it.
    assert time.time() - begun < 20
    _forget_crumb()


def test_a_refused_cookie_is_renewed(yahoo: YahooServer) -> None:
    denied = b'{"finance":{"result":null,"error":{"code":"Unauthorized","description":"Invalid Crumb"}}}'
    yahoo.faults["AAPL"] = deque([Fault(401, body=denied)])
    assert_prices(source(yahoo).load("AAPL"), expected(yahoo.listings["AAPL"]))
    yahoo.always["*"] = Fault(401, body=denied)
    asked = source(yahoo)
    for _ in range(3):
        with pytest.raises(
            SymbolError, match="AAPL: Yahoo refuses to answer: HTTP status 401, although yfinance"
        ):
            asked.load("AAPL")
    with pytest.raises(SourceError, match="3 symbols in a row had no answer"):
        asked.load("AAPL")


def test_prices_that_yfinance_cannot_read_are_named(yahoo: YahooServer) -> None:
    chart = yahoo.listings["AAPL"].chart("AAPL", -1e12, 1e12)
    del chart["chart"]["result"][0]["indicators"]["quote"][0]["volume"]
    yahoo.always["AAPL"] = Fault(body=json.dumps(chart).encode())
    with pytest.raises(SymbolError, match=r"AAPL: Yahoo's answer cannot be read \(KeyError: 'volume'\)"):
        source(yahoo).load("AAPL")


def test_many_threads_lose_nothing_and_double_nothing(yahoo: YahooServer) -> None:
    symbols = [f"S{number}" for number in range(12)]
    for number, symbol in enumerate(symbols):
        yahoo.listings[symbol] = Listing(bars(JUNE, 100.0 + 50 * number))
        yahoo.faults[symbol] = deque([Fault(503)] * (number % 3))
    yahoo.always["S5"] = Fault(500)
    asked = source(yahoo, *symbols)
    results: dict[str, Fetched] = {}
    failures: dict[str, str] = {}

    def fetch(symbol: str) -> None:
        try:
            results[symbol] = asked.fetch(symbol)
        except SymbolError as error:
            failures[symbol] = error.reason

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(fetch, symbols))
    assert list(failures) == ["S5"]
    assert len(results) == 11
    for symbol, fetched in results.items():
        assert_prices(fetched.prices, expected(yahoo.listings[symbol]))


# The rate limit


def test_turns_of_threads_are_an_interval_apart(tmp_path: Path) -> None:
    limits = [RateLimit(Politeness(interval=0.05), tmp_path) for _ in range(3)]
    begun = time.time()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda turn: limits[turn % 3].wait(), range(15)))
    assert time.time() - begun >= 14 * 0.05


def test_turns_of_processes_are_an_interval_apart(tmp_path: Path) -> None:
    script = (
        "import time; from pathlib import Path\n"
        "from forecaster.prices.yahoo.politeness import Politeness, RateLimit\n"
        "limit = RateLimit(Politeness(interval=0.2), Path('.'))\n"
        "for _ in range(8): limit.wait(); print(time.time())"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    turns = sorted(float(line) for process in running for line in process.communicate()[0].split())
    assert len(turns) == 16
    # Each alone would take 1.4 s; the first may wake up late.
    assert turns[-1] - turns[0] >= 15 * 0.2 - 0.5


def test_requests_keep_to_the_rate(yahoo: YahooServer, tmp_path: Path) -> None:
    politeness = Politeness(interval=0.2)
    for _ in range(2):
        source(yahoo, politeness=politeness, state=tmp_path).load("AAPL")
    moments = [moment for moment, _ in yahoo.requests]
    assert len(moments) >= 3
    assert moments[-1] - moments[0] >= (len(moments) - 1) * 0.2 - 0.15


def test_everyone_waits_when_one_is_told_to(tmp_path: Path) -> None:
    one, other = (RateLimit(Politeness(interval=0.0), tmp_path) for _ in range(2))
    begun = time.time()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = RateLimit(Politeness(interval=0.3), tmp_path)
        slow.wait()
        waiting = pool.submit(lambda: (slow.wait(), time.time())[1])  # type: ignore[func-returns-value]
        time.sleep(0.1)
        one.hold(0.6)
        other.wait()
        assert time.time() - begun >= 0.65
        # Also one who had its turn already.
        assert waiting.result() - begun >= 0.65


@pytest.mark.parametrize(
    "content", ["", "x", "1 2 3", "1e300 1e300", "9999999999 9999999999", "nan nan", "\xff"]
)
def test_a_file_of_turns_that_cannot_be_is_no_obstacle(tmp_path: Path, content: str) -> None:
    limit = RateLimit(Politeness(interval=0.0, longest_wait=90.0), tmp_path)
    (tmp_path / "next-request").write_text(content, "latin-1")
    begun = time.time()
    limit.wait()
    assert time.time() - begun < 80


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        SourceError, match=r"keeps the rate limit must be writable. Received: .*file/state \(Not a"
    ):
        YahooSource(["AAPL"], state=tmp_path / "file" / "state")


def test_a_folder_that_goes_away_stops_the_source_and_not_a_symbol(
    yahoo: YahooServer, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    asked = source(yahoo, state=state)
    asked.load("AAPL")
    for file in state.iterdir():
        file.unlink()
    state.rmdir()
    assert len(asked.load("AAPL")) == len(JUNE)
    for file in state.iterdir():
        file.unlink()
    state.rmdir()
    state.write_text("a file now")
    with pytest.raises(SourceError, match="the folder that keeps the rate limit must be writable"):
        asked.load("AAPL")


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interval": -1.0}, "`interval` must be a number of seconds. Received: -1.0"),
        ({"timeout": 0.0}, "`timeout` must be a number of seconds"),
        ({"backoff": float("nan")}, "`backoff` must be a number of seconds. Received: nan"),
        ({"attempts": 0}, "`attempts` must be at least 1. Received: 0"),
        ({"stop_after": 0}, "`stop_after` must be at least 1"),
    ],
)
def test_politeness_has_limits(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ParameterError, match=re.escape(message)):
        Politeness(**settings)  # type: ignore[arg-type]


def test_a_source_needs_symbols_and_a_gateway_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for symbols in ((), "AAPL"):
        with pytest.raises(ParameterError, match="`symbols` must be a sequence of at least one symbol"):
            YahooSource(symbols)
    monkeypatch.setenv("FORECASTER_YAHOO_GATEWAY", "localhost:80")
    with pytest.raises(ParameterError, match=r"an http or https address. Received: 'localhost:80'; cor"):
        YahooSource(["AAPL"])


def test_nothing_is_written_outside_the_state_folder_and_the_home_may_be_read_only(
    yahoo: YahooServer, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    script = (
        "from pathlib import Path; from forecaster.prices.yahoo import YahooSource\n"
        "print(len(YahooSource(['AAPL'], state=Path('state')).load('AAPL')))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    environment |= {"HOME": str(home), "FORECASTER_YAHOO_GATEWAY": yahoo.url, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == len(JUNE)
    assert list(home.iterdir()) == []
    assert {path.name for path in tmp_path.rglob("*")} == {
        "home",
        "state",
        "next-request",
        "next-request.lock",
    }


def _forget_crumb() -> None:
    """yfinance keeps its crumb, and how it came by one, as long as the process lives."""
    from yfinance.data import YfData

    YfData()._crumb = None
    YfData()._cookie_strategy = "basic"


def test_yahoo_can_be_asked_after_tensorflow_was_loaded() -> None:
    # TensorFlow exports a BoringSSL of its own, which curl_cffi must not be bound to.
    code = (
        "import forecaster.models.convolution.runtime\n"
        "from forecaster.prices.yahoo.curl import RequestException, Session\n"
        "try:\n    Session(impersonate='chrome').get('http://127.0.0.1:9/')\n"
        "except RequestException as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Failed to connect to 127.0.0.1" in done.stdout
