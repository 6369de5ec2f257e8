"""Daily variance from the range of prices, where the prices are fit for it, and from returns.

With log prices o, h, l, c of one session (open, high, low, close), in the unit of a squared log return:

- Parkinson: (h - l)^2 / (4 ln 2), 5 times as efficient as the squared return from open to close;
- Garman-Klass: (h - l)^2 / 2 - (2 ln 2 - 1)(c - o)^2, 7 times;
- Rogers-Satchell: (h - c)(h - o) + (l - c)(l - o), 6 times, and right under any drift;
- Yang-Zhang: over a window, the variance of the overnight returns, plus k times that of the returns from open
  to close, plus 1 - k times the mean Rogers-Satchell variance; right under drift and opening jumps.

All but the last measure the session from its open to its close, not the night before it. Many vendors fill
the open of an index with the previous close; on such a session every estimator that uses the open mistakes
the night for trading, and Parkinson's alone remains.

Parkinson, Journal of Business 53 (1980); Garman and Klass, Journal of Business 53 (1980); Rogers and
Satchell, Annals of Applied Probability 1 (1991); Yang and Zhang, Journal of Business 73 (2000).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster.errors import ParameterError
from forecaster.returns import forward_returns

__all__ = [
    "VARIANCE_FLOOR",
    "copied_opens",
    "daily_variance",
    "garman_klass",
    "parkinson",
    "realised_variance",
    "rogers_satchell",
    "yang_zhang",
]

Array = NDArray[np.float64]

VARIANCE_FLOOR = 1e-7
"""Smallest daily variance, a volatility of 3 basis points: QLIKE divides by it."""

_PRICES = ("open", "high", "low", "close")


def _log_prices(frame: pd.DataFrame) -> tuple[Array, Array, Array, Array]:
    missing = [column for column in _PRICES if column not in frame.columns]
    if missing:
        raise ParameterError(
            f"variance from the range needs the columns {', '.join(_PRICES)}. Received: a frame without "
            f"{', '.join(missing)}"
        )
    values = frame[list(_PRICES)].to_numpy(dtype=np.float64)
    if (values <= 0).any():
        raise ParameterError(
            "prices must be positive, as no logarithm exists otherwise. Received: "
            f"{values[values <= 0][0]:g} ({int((values <= 0).sum())} in all)"
        )
    opens, highs, lows, closes = np.log(values).T
    # NaN compares false: a session without a price is no contradiction, and its variance is NaN.
    wrong = (highs < np.fmax(opens, closes)) | (lows > np.fmin(opens, closes)) | (highs < lows)
    if wrong.any():
        raise ParameterError(
            f"high and low enclose open and close. Received: {int(wrong.sum())} sessions where they do not, "
            f"the first at position {np.flatnonzero(wrong)[0]}; check the prices first"
        )
    return opens, highs, lows, closes


def parkinson(frame: pd.DataFrame) -> Array:
    """Variance of each session from its high and low, shape (n_sessions,); NaN where a price is missing.

    Parameters
    ----------
    frame : DataFrame of shape (n_sessions, ...)
        Prices of one symbol with the columns ``open``, ``high``, ``low`` and ``close``.

    Raises
    ------
    ParameterError
        If a column is missing, a price is not positive, or open or close lie outside low and high.
    """
    _, highs, lows, _ = _log_prices(frame)
    variance: Array = np.square(highs - lows) / (4.0 * np.log(2.0))
    return variance


def garman_klass(frame: pd.DataFrame) -> Array:
    """Variance of each session from its four prices, shape (n_sessions,); otherwise as `parkinson`."""
    opens, highs, lows, closes = _log_prices(frame)
    variance: Array = 0.5 * np.square(highs - lows) - (2.0 * np.log(2.0) - 1.0) * np.square(closes - opens)
    return variance


def rogers_satchell(frame: pd.DataFrame) -> Array:
    """Variance of each session under any drift, shape (n_sessions,); otherwise as `parkinson`."""
    opens, highs, lows, closes = _log_prices(frame)
    variance: Array = (highs - closes) * (highs - opens) + (lows - closes) * (lows - opens)
    return variance


def copied_opens(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Sessions whose open is the close of the session before, to the last digit, shape (n_sessions,).

    A market that opens where it closed gives the same, now and then; taking its open for a copy costs a
    little efficiency and no bias.
    """
    opens, closes = (frame[column].to_numpy(dtype=np.float64) for column in ("open", "close"))
    return np.concatenate([[False], opens[1:] == closes[:-1]])


def daily_variance(frame: pd.DataFrame) -> Array:
    """Garman-Klass variance, and Parkinson's on sessions whose open is a copy: a target for forecasts.

    Returns
    -------
    ndarray of shape (n_sessions,)
        At least `VARIANCE_FLOOR`; NaN where a price is missing. Errors are those of `parkinson`.
    """
    variance = np.where(copied_opens(frame), parkinson(frame), garman_klass(frame))
    floored: Array = np.maximum(variance, VARIANCE_FLOOR)
    return floored


def yang_zhang(frame: pd.DataFrame, window: int = 22) -> Array:
    """Mean daily variance, nights included, over the last ``window`` sessions up to and including each.

    Parameters
    ----------
    frame : DataFrame of shape (n_sessions, ...)
        As for `parkinson`.
    window : int
        Sessions, at least 2.

    Returns
    -------
    ndarray of shape (n_sessions,)
        NaN where the window, with the close before it, is not complete: at the start, where a price is
        missing, and where an open is a copy of the previous close, since no night can be told from it.
    """
    if window < 2:
        raise ParameterError(f"`window` must be at least 2, as a variance needs two. Received: {window}")
    opens, _, _, closes = _log_prices(frame)
    night = np.concatenate([[np.nan], opens[1:] - closes[:-1]])
    night[copied_opens(frame)] = np.nan
    result = np.full(len(opens), np.nan)
    if len(opens) < window:
        return result
    # Each window on its own: a running sum would carry the rounding of earlier sessions along.
    nights, days, ranges = (
        np.lib.stride_tricks.sliding_window_view(values, window)
        for values in (night, closes - opens, rogers_satchell(frame))
    )
    weight = 0.34 / (1.34 + (window + 1) / (window - 1))
    result[window - 1 :] = (
        nights.var(axis=1, ddof=1) + weight * days.var(axis=1, ddof=1) + (1 - weight) * ranges.mean(axis=1)
    )
    return result


def realised_variance(variances: Array, horizons: Sequence[int]) -> Array:
    """Sum of daily variances over the h sessions after each: what a variance forecast is judged by.

    Parameters
    ----------
    variances : ndarray of shape (n_sessions,)
        Daily variances: squared returns, or `daily_variance`.
    horizons : sequence of int

    Returns
    -------
    ndarray of shape (n_sessions, n_horizons)
        At least h times `VARIANCE_FLOOR`; NaN while unknown.
    """
    sums = forward_returns(variances, horizons)
    floored: Array = np.maximum(sums, VARIANCE_FLOOR * np.array(horizons, dtype=np.float64))
    return floored
