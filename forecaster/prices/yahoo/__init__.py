"""Daily prices from Yahoo, brought back to prices as traded."""

from __future__ import annotations

from forecaster.prices.yahoo.politeness import Politeness
from forecaster.prices.yahoo.source import Fetched, YahooSource

__all__ = ["Fetched", "Politeness", "YahooSource"]
