"""The bundled samples: what they hold, offline, and what is said when they do not."""

from __future__ import annotations

import datetime
import socket
import sys

import numpy as np
import pandas as pd
import pytest

from forecaster.errors import ParameterError, SymbolError
from forecaster.prices import samples
from forecaster.prices.base import PRICE_COLUMNS, content_hash, load_prices
from forecaster.prices.samples import SAMPLE_SYMBOLS, SampleSource

STOCKS = [symbol for symbol in SAMPLE_SYMBOLS if symbol not in ("SP500", "NASDAQ", "WTI", "SPX")]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError(f"tried the network: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    samples._read_arch.cache_clear()
    samples._read_skfolio.cache_clear()


@pytest.mark.usefixtures("offline")
def test_every_sample_passes_the_checks_offline() -> None:
    loaded = load_prices(SampleSource(SAMPLE_SYMBOLS), (), 2500)
    assert loaded.failures == {}
    assert tuple(loaded.frames) == SAMPLE_SYMBOLS
    assert len(STOCKS) == 20
    for frame in loaded.frames.values():
        assert tuple(frame.columns) == PRICE_COLUMNS
        assert frame.index.name == "session"
        assert frame.index.dtype == "datetime64[s]"
        assert set(frame.dtypes) == {np.dtype("float64")}
        assert frame["close"].notna().all()
        assert (frame["dividend"] == 0).all()
        assert (frame["split"] == 1).all()
    kinds = {(finding.symbol, finding.code): finding.sessions for finding in loaded.findings}
    assert kinds["WTI", "no-close"] == 290
    assert kinds["SP500", "open-is-previous-close"] > 1700
    assert ("NASDAQ", "open-is-previous-close") not in kinds


def test_prices_are_those_of_the_packages() -> None:
    from arch.data import sp500, wti
    from skfolio.datasets import load_sp500_dataset, load_sp500_index

    given = sp500.load()
    frame = SampleSource().load("SP500")
    for column in ("Open", "High", "Low", "Close", "Volume"):
        np.testing.assert_array_equal(frame[column.lower()], given[column].astype(float))
    assert frame.index.equals(pd.DatetimeIndex(given.index).as_unit("s"))
    oil = SampleSource().load("WTI")
    assert len(oil) == 8611
    assert oil["close"].isna().sum() == wti.load()["DCOILWTICO"].isna().sum() == 290
    assert oil[["open", "high", "low", "volume"]].isna().all(axis=None)
    stocks = load_sp500_dataset()
    assert list(stocks.columns) == STOCKS
    for symbol in STOCKS:
        np.testing.assert_array_equal(SampleSource().load(symbol)["close"], stocks[symbol])
    np.testing.assert_array_equal(SampleSource().load("SPX")["close"], load_sp500_index()["SP500"])


def test_symbols_are_those_asked_for() -> None:
    assert SampleSource().symbols() == ("SP500", "NASDAQ", "WTI")
    assert SampleSource(["AAPL", "nonsense"]).symbols() == ("AAPL", "nonsense")


def test_what_a_caller_does_to_a_frame_stays_there() -> None:
    version = content_hash({"NASDAQ": SampleSource().load("NASDAQ")})
    frame = SampleSource().load("NASDAQ")
    frame.loc[:, "close"] = 0.0
    frame.index += pd.Timedelta(days=1)
    assert content_hash({"NASDAQ": SampleSource().load("NASDAQ")}) == version


@pytest.mark.parametrize(("symbol", "near"), [("SP5OO", "SP500"), ("aapl", "AAPL"), ("NASDQ", "NASDAQ")])
def test_an_unknown_symbol_suggests_the_nearest(symbol: str, near: str) -> None:
    with pytest.raises(SymbolError) as caught:
        SampleSource().load(symbol)
    assert str(caught.value).startswith(
        f"{symbol}: no sample has this name (did you mean {near!r}?); there are SP500, NASDAQ, WTI, AAPL, "
    )


def test_a_symbol_near_nothing_gets_the_list() -> None:
    with pytest.raises(SymbolError, match=r"ZZZZ: no sample has this name; there are SP500, .*SPX$"):
        SampleSource().load("ZZZZ")


def test_without_skfolio_the_extra_is_named_and_the_indices_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    samples._read_skfolio.cache_clear()
    for module in [name for name in sys.modules if name.split(".")[0] == "skfolio"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "skfolio", None)
    loaded = load_prices(SampleSource(("SP500", "AAPL", "SPX")), (), 100)
    assert list(loaded.frames) == ["SP500"]
    for symbol in ("AAPL", "SPX"):
        assert loaded.failures[symbol].startswith(
            "this sample needs the package `skfolio`, which cannot be im"
        )
        assert loaded.failures[symbol].endswith("install the extra `forecaster[samples]`")


@pytest.mark.parametrize("symbols", ["SP500", ()])
def test_symbols_must_be_a_sequence(symbols: str | tuple[str, ...]) -> None:
    with pytest.raises(ParameterError, match="`symbols` must be a sequence of at least one symbol"):
        SampleSource(symbols)


def test_as_of_forgets_what_came_after() -> None:
    evening = datetime.date(2008, 9, 14)  # a Sunday
    whole, known = SampleSource(["WTI"]).load("WTI"), SampleSource(["WTI"], evening).load("WTI")
    assert str(known.index[-1].date()) == "2008-09-12"
    pd.testing.assert_frame_equal(known, whole.loc[:"2008-09-12"])
