"""Real prices that come with installed packages: no network, the same everywhere.

From ``arch`` (always installed): the S&P 500 and the NASDAQ Composite 1999-2018, and the spot price of West
Texas Intermediate crude oil 1986-2019, which has no price on 290 holidays. From ``skfolio`` (the extra
``samples``): adjusted closes of 20 US stocks and the S&P 500 index 1990-2022.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from datetime import date
from functools import lru_cache

import pandas as pd

from forecaster.errors import ParameterError, SymbolError
from forecaster.prices.base import did_you_mean, price_table

__all__ = ["SAMPLE_SYMBOLS", "SampleSource"]

_ARCH = {"SP500": "sp500", "NASDAQ": "nasdaq", "WTI": "wti"}
_STOCKS = (
    "AAPL", "AMD", "BAC", "BBY", "CVX", "GE", "HD", "JNJ", "JPM", "KO",
    "LLY", "MRK", "MSFT", "PEP", "PFE", "PG", "RRC", "UNH", "WMT", "XOM",
)  # fmt: skip
_INDEX = "SPX"  # skfolio calls it SP500, which is taken

SAMPLE_SYMBOLS = (*_ARCH, *_STOCKS, _INDEX)
"""Every symbol that the samples hold."""


class SampleSource:
    """Sample prices that are bundled with installed packages.

    Parameters
    ----------
    symbols : sequence of str
        The symbols asked for, out of `SAMPLE_SYMBOLS`. An unknown one fails when it is loaded, and only it.
    as_of : date, optional
        Forget every session after it.

    Notes
    -----
    ``SP500`` and ``NASDAQ`` have open, high, low, close and volume, the closes as given; ``WTI``, the stocks
    and ``SPX`` a close alone. The stocks' closes are adjusted for dividends and splits by their publisher,
    so none has dividends or splits of its own.
    """

    def __init__(
        self, symbols: Sequence[str] = ("SP500", "NASDAQ", "WTI"), as_of: date | None = None
    ) -> None:
        if isinstance(symbols, str) or not symbols:
            raise ParameterError(
                f"`symbols` must be a sequence of at least one symbol. Received: {symbols!r}"
            )
        self._symbols = tuple(symbols)
        self._as_of = None if as_of is None else pd.Timestamp(as_of)

    def __repr__(self) -> str:
        return f"SampleSource({', '.join(self._symbols)})"

    def symbols(self) -> tuple[str, ...]:
        """Return the symbols asked for."""
        return self._symbols

    def load(self, symbol: str) -> pd.DataFrame:
        """Return the prices of one symbol, not yet checked.

        Raises
        ------
        SymbolError
            If no sample has this name, or the package that holds it cannot be imported.
        """
        table = price_table(self._read(symbol))
        return table if self._as_of is None else table[table.index <= self._as_of]

    def _read(self, symbol: str) -> pd.DataFrame:
        if symbol in _ARCH:
            return _read_arch(_ARCH[symbol])
        if symbol in _STOCKS or symbol == _INDEX:
            try:
                closes = _read_skfolio()
            except ImportError as error:
                raise SymbolError(
                    symbol,
                    f"this sample needs the package `skfolio`, which cannot be imported ({error}); "
                    "install the extra `forecaster[samples]`",
                ) from error
            return closes[[symbol]].rename(columns={symbol: "close"})
        raise SymbolError(
            symbol, f"no sample has this name{did_you_mean(symbol, SAMPLE_SYMBOLS)}; "
            f"there are {', '.join(SAMPLE_SYMBOLS)}",
        )  # fmt: skip


@lru_cache(maxsize=len(_ARCH))
def _read_arch(name: str) -> pd.DataFrame:
    data: pd.DataFrame = importlib.import_module(f"arch.data.{name}").load()
    return data.rename(columns={"DCOILWTICO": "close"}).rename(columns=str.lower)


@lru_cache(maxsize=1)
def _read_skfolio() -> pd.DataFrame:
    """Read both tables, which skfolio ships inside its package; its other data sets would be downloaded."""
    from skfolio.datasets import load_sp500_dataset, load_sp500_index

    stocks: pd.DataFrame = load_sp500_dataset()
    index: pd.DataFrame = load_sp500_index()
    return stocks.join(index.set_axis([_INDEX], axis=1), how="outer")
