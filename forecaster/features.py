"""Causal numbers computed from one series of returns: volatilities, HAR terms, the channels a network sees.

Every function takes the returns of *one* series in session order and gives, for each session, a number that
depends on that session and earlier ones only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from forecaster.volatility import VARIANCE_FLOOR

__all__ = [
    "CHANNELS",
    "DECAY",
    "HARX_WINDOWS",
    "HAR_FEATURES",
    "LEVERAGE_WINDOWS",
    "MARKET_WINDOWS",
    "channels",
    "ewma_volatility",
    "expanding_mean",
    "har_features",
    "har_terms",
    "log_ewma_variance",
    "log_variance",
    "relative_size",
    "running_mean",
]

Array = NDArray[np.float64]

DECAY = 0.94
"""Decay of the daily EWMA variance (RiskMetrics Technical Document, 4th edition, 1996, section 5.3)."""

VOLATILITY_FLOOR = 1e-4
"""Smallest daily volatility: one basis point, so that a flat stretch scales nothing to infinity."""

CLIP = 8.0
"""Scaled returns beyond eight volatilities are clipped: one crash must not rule a least-squares fit."""

HARX_WINDOWS = (1, 5, 22, 66, 250)
"""Sessions of the means of a symbol's own absolute returns."""

MARKET_WINDOWS = (1, 5, 22, 66)
"""Sessions of the means over the market and the cross-section."""

LEVERAGE_WINDOWS = (1, 5)
"""Sessions of the means of negative returns."""

CHANNELS = ("z", "abs_z", "log_abs_z", "log_volatility_ratio")
HAR_FEATURES = (
    "log_abs_1",
    "log_abs_5",
    "log_abs_22",
    "log_abs_66",
    "log_abs_250",
    "negative_1",
    "negative_5",
    "log_abs_expanding",
    "log_volatility",
)


def ewma_volatility(returns: Array, decay: float = DECAY) -> Array:
    """Exponentially weighted daily volatility, made at each session with that session's return included.

    Parameters
    ----------
    returns : ndarray of shape (n_sessions,)
        Daily log returns without NaN.
    decay : float
        Weight of yesterday's variance, between 0 and 1.

    Returns
    -------
    ndarray of shape (n_sessions,)
        Daily volatility, at least `VOLATILITY_FLOOR`. The weights are normalised to sum to one, so the first
        sessions need no starting value taken from later ones.
    """
    numerator = lfilter([1.0 - decay], [1.0, -decay], np.square(returns))
    weight = 1.0 - decay ** np.arange(1, len(returns) + 1)
    result: Array = np.sqrt(np.maximum(numerator / weight, VOLATILITY_FLOOR**2))
    return result


def running_mean(values: Array, window: int) -> Array:
    """Mean over the last ``window`` sessions, over those there are at the start."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    return _mean_up_to(total, np.arange(1, len(values) + 1), window)


def _mean_up_to(total: Array, stop: NDArray[np.int64], window: int) -> Array:
    start = np.maximum(stop - window, 0)
    mean: Array = (total[stop] - total[start]) / (stop - start)
    return mean


def expanding_mean(values: Array) -> Array:
    """Mean since the start, each session's own value included."""
    mean: Array = np.cumsum(values) / np.arange(1, len(values) + 1)
    return mean


def relative_size(returns: Array) -> Array:
    """Absolute return over its own expanding mean, shape (n_sessions,): about 1 in usual times."""
    size = np.abs(returns)
    relative: Array = size / np.maximum(expanding_mean(size), VOLATILITY_FLOOR)
    return relative


def log_variance(variances: Array) -> Array:
    """Log of the variance of each session, at least that of `VARIANCE_FLOOR`, shape (n_sessions,)."""
    logs: Array = np.log(np.maximum(variances, VARIANCE_FLOOR))
    return logs


def log_ewma_variance(variances: Array) -> Array:
    """Log of the EWMA of the variances up to each session, by `ewma_volatility`, shape (n_sessions,)."""
    logs: Array = np.log(np.maximum(np.square(ewma_volatility(np.sqrt(variances))), VARIANCE_FLOOR))
    return logs


def har_terms(returns: Array, windows: tuple[int, ...], places: NDArray[np.int64] | None = None) -> Array:
    """Mean absolute return over each window and mean negative return over each of `LEVERAGE_WINDOWS`.

    After Corsi, "A Simple Approximate Long-Memory Model of Realized Volatility", Journal of Financial
    Econometrics 7 (2009), and Corsi and Reno, "Discrete-Time Volatility Forecasting With Persistent Leverage
    Effect", Journal of Business and Economic Statistics 30 (2012).

    Parameters
    ----------
    returns : ndarray of shape (n_sessions,)
        Daily log returns without NaN.
    windows : tuple of int
        Sessions of each mean; over those there are at the start.
    places : ndarray of int, optional
        The sessions wanted; all by default. The bits of one do not depend on the others.

    Returns
    -------
    ndarray of shape (n_sessions or n_places, len(windows) + len(LEVERAGE_WINDOWS))
        In the unit of a return; the means of negative returns are zero or below.
    """
    stop = np.arange(1, len(returns) + 1) if places is None else places + 1
    columns = []
    for values, spans in (
        (np.abs(returns), windows),
        (np.minimum(returns, 0.0), LEVERAGE_WINDOWS),
    ):
        total = np.concatenate([[0.0], np.cumsum(values)])
        columns += [_mean_up_to(total, stop, window) for window in spans]
    return np.stack(columns, axis=-1)


def channels(returns: Array, volatility: Array) -> NDArray[np.float32]:
    """Channels of a network, each session scaled by its own day's volatility.

    Parameters
    ----------
    returns, volatility : ndarray of shape (n_sessions,)
        Daily log returns and their EWMA volatility.

    Returns
    -------
    ndarray of shape (n_sessions, len(CHANNELS)), float32
        The scaled return z, its size, log(size + 0.1), and the log of volatility over the expanding mean
        absolute return, all clipped at eight.
    """
    z = returns / volatility
    ordinary = np.maximum(expanding_mean(np.abs(returns)), VOLATILITY_FLOOR)
    stacked = np.stack([z, np.abs(z), np.log(np.abs(z) + 0.1), np.log(volatility / ordinary)], axis=-1)
    clipped: NDArray[np.float32] = np.clip(stacked, -CLIP, CLIP).astype(np.float32)
    return clipped


def har_features(returns: Array, volatility: Array) -> NDArray[np.float32]:
    """Heterogeneous autoregressive terms of absolute returns, over the day's volatility.

    Mean absolute return over 1, 5, 22, 66 and 250 sessions and since the start, in logs; mean negative return
    over 1 and 5 sessions (the leverage effect); the log of the volatility itself. After Corsi, "A Simple
    Approximate Long-Memory Model of Realized Volatility", Journal of Financial Econometrics 7 (2009).

    Parameters
    ----------
    returns, volatility : ndarray of shape (n_sessions,)
        Daily log returns and their EWMA volatility.

    Returns
    -------
    ndarray of shape (n_sessions, len(HAR_FEATURES)), float32
    """
    terms = har_terms(returns, HARX_WINDOWS) / volatility[:, None]
    sizes, losses = np.split(terms, [len(HARX_WINDOWS)], axis=1)
    usual = expanding_mean(np.abs(returns)) / volatility
    level = np.log(volatility * 100.0)
    columns = [
        np.log(np.maximum(sizes, 0.02)),
        np.maximum(losses, -CLIP),
        np.log(np.maximum(usual, 0.02)),
        level,
    ]
    return np.column_stack(columns).astype(np.float32)
