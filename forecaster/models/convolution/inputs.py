"""What the network of a scale sees: channels of each session, and features of each origin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from forecaster import features
from forecaster.features import CLIP, VOLATILITY_FLOOR
from forecaster.models.econometric.harx import HarxForecaster, regressor_names
from forecaster.windows import Panel, Universe, Windows

__all__ = [
    "BLOCK_ROWS",
    "CHANNELS",
    "VARIANCE_CHANNELS",
    "feature_count",
    "network_channels",
    "network_features",
    "variance_channels",
]

Array = NDArray[np.float64]

CHANNELS = (
    "z",
    "abs_z",
    "log_abs_z",
    "market_z",
    "market_abs_z",
    "cross_section",
    "log_volatility_ratio",
    "market_log_volatility_ratio",
    "log_cross_section",
)

VARIANCE_CHANNELS = ("log_variance_ratio", "cross_log_variance_ratio")

BLOCK_ROWS = 1 << 19
"""Rows of a panel whose channels and features are held at once to forecast: a tenth of a gigabyte."""

SMALLEST = 0.02
"""Of a ratio whose log is taken: a return of zero has no log."""

_NAMES = regressor_names(cross_section=True)
_SIZES = [number for number, name in enumerate(_NAMES) if "abs" in name]
_LEVERAGE = [number for number, name in enumerate(_NAMES) if "negative" in name]
_LEVEL, _OWN, _MARKET = (_NAMES.index(name) for name in ("inverse_volatility", "gjr", "market_gjr"))


def _log_ratio(values: Array, volatility: Array) -> Array:
    """Log of the volatility over the expanding mean absolute return."""
    usual = np.maximum(features.expanding_mean(np.abs(values)), VOLATILITY_FLOOR)
    ratio: Array = np.log(volatility / usual)
    return ratio


def network_channels(panel: Panel, universe: Universe) -> NDArray[np.float32]:
    """Channels of every session of a panel.

    Parameters
    ----------
    panel : Panel
    universe : Universe
        Whose market and cross-section they look at.

    Returns
    -------
    ndarray of shape (total, len(CHANNELS)), float32
        All clipped at 8: the return over the EWMA volatility of its own day, z; its size; log(size + 0.1); z
        and its size of the market; the cross-section c of `Panel.cross_section` over its own EWMA; the log of
        volatility over the expanding mean absolute return, own and the market's; the log of the EWMA of c.
        A session sees the last session of the market and the cross-section that had closed by its own close.
        Where there was none, its own values stand in for the market's, and c is 1. Without an index the
        market is the mean of the members; of a single symbol, it is that symbol.
    """
    market, cross = panel.market(universe), panel.cross_section(universe)
    market_volatility = features.ewma_volatility(market.values)
    market_z = market.values / market_volatility
    of_market = np.stack([market_z, np.abs(market_z), _log_ratio(market.values, market_volatility)], axis=-1)
    # The EWMA of c itself: the volatility is the root of the EWMA of squares.
    ewma = np.square(features.ewma_volatility(np.sqrt(cross.values)))
    of_cross = np.stack([cross.values / ewma, np.log(ewma)], axis=-1)
    result = np.empty((len(panel), len(CHANNELS)), dtype=np.float32)
    for part in panel.parts:
        closed = panel.closed[part]
        z = panel.returns[part] / panel.volatility[part]
        ratio = _log_ratio(panel.returns[part], panel.volatility[part])
        beside = market.seen(closed, of_market, np.stack([z, np.abs(z), ratio], axis=-1))
        around = cross.seen(closed, of_cross, np.broadcast_to([1.0, 0.0], (len(z), 2)))
        own = [z, np.abs(z), np.log(np.abs(z) + 0.1)]
        columns = [*own, beside[:, 0], beside[:, 1], around[:, 0], ratio, beside[:, 2], around[:, 1]]
        result[part] = np.clip(np.stack(columns, axis=-1), -CLIP, CLIP)
    return result


def variance_channels(panel: Panel, universe: Universe) -> NDArray[np.float32]:
    """Channels of the variance of every session, for a network that forecasts it.

    Parameters
    ----------
    panel : Panel
    universe : Universe
        Whose cross-section they look at.

    Returns
    -------
    ndarray of shape (total, len(VARIANCE_CHANNELS)), float32
        The log of the session's variance over its EWMA, and the mean over the members of the same; clipped at
        8. A session sees the last mean that was known by its close; where there was none, its own value.
    """
    means = panel.cross_variance(universe)
    ratio = (means[0].values - means[1].values)[:, None]
    result = np.empty((len(panel), len(VARIANCE_CHANNELS)), dtype=np.float32)
    for part in panel.parts:
        variances = panel.variances[part]
        own = (features.log_variance(variances) - features.log_ewma_variance(variances))[:, None]
        around = means[0].seen(panel.closed[part], ratio, own)
        result[part] = np.clip(np.concatenate([own, around], axis=1), -CLIP, CLIP)
    return result


def feature_count(n_horizons: int, anchored: bool) -> int:
    """Columns of `network_features`."""
    return len(_SIZES) + len(_LEVERAGE) + 2 + (2 + anchored) * n_horizons


def network_features(
    linear: HarxForecaster, windows: Windows, anchored: bool
) -> tuple[NDArray[np.float32], Array]:
    """Features of each origin, beside its window, and the scale of the linear model, from one pass.

    Parameters
    ----------
    linear : HarxForecaster
        Fitted, with the cross-section: from its regressors and GJR volatilities features are made.
    windows : Windows
    anchored : bool
        Whether the scale of the linear model is a feature too.

    Returns
    -------
    features : ndarray of shape (n_origins, feature_count(n_horizons, anchored)), float32
        Logs of the mean absolute returns of HARX (own, market, cross-section; those below 0.02 EWMA
        volatilities taken as that), its mean negative returns, the logs of the EWMA volatility in percent,
        own and the market's, and for each horizon the logs of the GJR volatility over the EWMA one, own and
        the market's, and of the scale of the linear model over the EWMA one.
    scales : ndarray of shape (n_origins, n_horizons)
        As ``linear.scales`` gives them.
    """
    panel = windows.panel
    market = panel.market(linear.universe)
    market_volatility = features.ewma_volatility(market.values)[:, None]
    volatility = windows.volatility[:, None]
    of_market = market.seen(panel.closed[windows.rows], market_volatility, volatility)
    scales = windows.scales
    result = np.empty((len(windows), feature_count(len(windows.horizons), anchored)), dtype=np.float32)
    for mine, regressors in linear.regressors(windows):
        base = regressors[0]
        ratio = volatility[mine] / of_market[mine]
        own = np.stack([columns[:, _OWN] for columns in regressors], axis=-1)
        others = np.stack([columns[:, _MARKET] for columns in regressors], axis=-1) * ratio
        level = -np.log(base[:, [_LEVEL]])
        columns = [np.log(np.maximum(base[:, _SIZES], SMALLEST)), base[:, _LEVERAGE], level]
        columns += [level - np.log(ratio), np.log(own), np.log(others)]
        ordinary = scales[mine]
        scales[mine] *= linear.stretch(regressors)
        if anchored:
            columns.append(np.log(scales[mine] / ordinary))
        result[mine] = np.concatenate(columns, axis=1)
    return result, scales
