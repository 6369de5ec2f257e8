"""Series whose truth is known, to see whether it is found, or rightly not found."""

from __future__ import annotations

import numpy as np
import pandas as pd

from forecaster.prices.base import price_table

FIRST = np.datetime64("2000-01-03")


def business_days(n: int) -> pd.DatetimeIndex:
    return pd.bdate_range(FIRST, periods=n, unit="s")


def prices(returns: np.ndarray, start: float = 100.0) -> pd.DataFrame:
    """Closes that have the given log returns, as a price table of one session more."""
    close = start * np.exp(np.concatenate([[0.0], np.cumsum(returns)]))
    return price_table(pd.DataFrame({"close": close}, index=business_days(len(close))))


def random_walk(n: int, seed: int, daily: float = 0.01) -> np.ndarray:
    return daily * np.random.default_rng(seed).standard_t(6, n) / np.sqrt(1.5)


def garch(n: int, seed: int, daily: float = 0.01) -> np.ndarray:
    """GARCH(1,1) with persistence 0.98 and normal shocks."""
    shocks = np.random.default_rng(seed).standard_normal(n)
    variance, out = 1.0, np.empty(n)
    for t, shock in enumerate(shocks):
        out[t] = np.sqrt(variance) * shock
        variance = 0.02 + 0.13 * out[t] ** 2 + 0.85 * variance
    return daily * out


def autoregression(n: int, seed: int, coefficient: float = 0.2, daily: float = 0.01) -> np.ndarray:
    """AR(1): the mean of tomorrow has an R2 of the coefficient squared."""
    shocks = np.random.default_rng(seed).standard_normal(n)
    out = np.empty(n)
    before = 0.0
    for t, shock in enumerate(shocks):
        before = coefficient * before + np.sqrt(1 - coefficient**2) * shock
        out[t] = before
    return daily * out
