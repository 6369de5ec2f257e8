"""Losses of single forecasts: one number a row, from quantiles, tails and what then happened."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster.errors import ParameterError
from forecaster.quantiles import (
    LEVELS,
    TAIL_COLUMNS,
    QuantileForecast,
    Tails,
    expected_shortfall,
    probability_below,
    quantile_columns,
    quantile_weights,
)

__all__ = [
    "COVERAGES",
    "RISK_LEVELS",
    "crps",
    "fissler_ziegel",
    "forecast_of",
    "log_variance_error",
    "pinball",
    "qlike",
    "row_scores",
    "winkler",
]

Array = NDArray[np.float64]

COVERAGES = (0.5, 0.8, 0.95)
RISK_LEVELS = (0.01, 0.05)
"""Levels of value at risk and expected shortfall."""

VARIANCE_FLOOR = 1e-8
"""Smallest variance in a loss: a move of one basis point squared, so that no move has a logarithm."""


def pinball(y: Array, values: Array) -> Array:
    """Pinball loss of each quantile.

    Parameters
    ----------
    y : ndarray of shape (...)
        Outcomes; NaN gives NaN.
    values : ndarray of shape (..., n_levels)
        Quantiles.

    Returns
    -------
    ndarray of shape (..., n_levels)
        ``max(level * (y - q), (level - 1) * (y - q))``, in the units of the outcome (Koenker and Bassett,
        "Regression Quantiles", Econometrica 46, 1978).
    """
    levels = np.array(LEVELS)
    error = y[..., None] - values
    return np.maximum(levels * error, (levels - 1.0) * error)


def crps(y: Array, values: Array) -> Array:
    """Continuous ranked probability score from quantiles.

    Twice the integral of the pinball loss over the levels (Gneiting and Ranjan, Journal of Business and
    Economic Statistics 29, 2011, equation 7), by the trapezoid rule over the 23 levels with zero loss at 0
    and 1.

    Parameters
    ----------
    y : ndarray of shape (...)
        Outcomes; NaN gives NaN.
    values : ndarray of shape (..., n_levels)
        Quantiles.

    Returns
    -------
    ndarray of shape (...)
        In the units of the outcome; lower is better.
    """
    result: Array = 2.0 * (pinball(y, values) @ quantile_weights())
    return result


def winkler(y: Array, low: Array, high: Array, coverage: float) -> Array:
    """Interval score: the width, and a penalty for each outcome outside it.

    Winkler, "A Decision-Theoretic Approach to Interval Estimation", Journal of the American Statistical
    Association 67 (1972).
    """
    penalty = 2.0 / (1.0 - coverage)
    return (high - low) + penalty * np.maximum(low - y, 0.0) + penalty * np.maximum(y - high, 0.0)


def fissler_ziegel(y: Array, value_at_risk: Array, shortfall: Array, level: float) -> Array:
    """Joint loss of value at risk and expected shortfall.

    ``(v - y) 1{y <= v} / (-level * e) + v / e + log(-e) - 1``, the member of the class of Fissler and Ziegel
    ("Higher order elicitability and Osband's principle", Annals of Statistics 44, 2016) whose differences do
    not depend on the unit of the returns: Patton, Ziegel and Chen, "Dynamic semiparametric models for
    expected shortfall (and Value-at-Risk)", Journal of Econometrics 211 (2019), equation 6.

    Parameters
    ----------
    y : ndarray of shape (...)
        Outcomes; NaN gives NaN.
    value_at_risk, shortfall : ndarray of shape (...)
        The forecast quantile v at the level, and the forecast mean e of the outcomes below it, as returns (a
        loss is negative).
    level : float
        Share of the worst outcomes.

    Returns
    -------
    ndarray of shape (...)
        Lower is better; ``log(-e)`` on average where the forecast is right. NaN where e is not negative: the
        loss does not exist there.
    """
    usable = shortfall < 0
    e = np.where(usable, shortfall, -1.0)
    beyond = np.where(y <= value_at_risk, value_at_risk - y, np.where(np.isnan(y), np.nan, 0.0))
    loss = -beyond / (level * e) + value_at_risk / e + np.log(-e) - 1.0
    return np.where(usable, loss, np.nan)


def qlike(variance: Array, proxy: Array) -> Array:
    """Quasi-likelihood loss of a variance forecast.

    ``p / v - log(p / v) - 1``, zero where the forecast hits; ranks forecasts as the true variance would for
    any unbiased proxy (Patton, "Volatility forecast comparison using imperfect volatility proxies", Journal
    of Econometrics 160, 2011, equation 24).

    Parameters
    ----------
    variance, proxy : ndarray of shape (...)
        Forecast v and proxy p of the variance of the same outcome, both taken as at least one squared basis
        point; NaN gives NaN.
    """
    ratio = np.maximum(proxy, VARIANCE_FLOOR) / np.maximum(variance, VARIANCE_FLOOR)
    result: Array = ratio - np.log(ratio) - 1.0
    return result


def log_variance_error(variance: Array, proxy: Array) -> Array:
    """Squared error of the log variance; arguments as of `qlike`.

    Unlike QLIKE it is swayed by noise in the proxy: compare by it only where the proxy is a precise one.
    """
    ratio = np.maximum(proxy, VARIANCE_FLOOR) / np.maximum(variance, VARIANCE_FLOOR)
    result: Array = np.square(np.log(ratio))
    return result


def forecast_of(forecasts: pd.DataFrame) -> QuantileForecast:
    """Take the forecasts out of a table, as one horizon; with tails where some row states them.

    In other rows the distribution is taken to end at its outermost quantiles; a variance there is zero and
    means nothing.

    Raises
    ------
    ParameterError
        If a quantile column is missing, or some but not all columns of the tails.
    """
    missing = [name for name in quantile_columns() if name not in forecasts.columns]
    if missing:
        raise ParameterError(
            f"a table of forecasts has the 23 quantile columns. Missing: {', '.join(missing)}"
        )
    values = forecasts[quantile_columns()].to_numpy(dtype=np.float64)[:, None, :]
    lacking = [name for name in TAIL_COLUMNS if name not in forecasts.columns]
    if len(lacking) == len(TAIL_COLUMNS):
        return QuantileForecast(values, (1,))
    if lacking:
        raise ParameterError(
            f"a table of forecasts has all columns of the tails or none. Missing: {', '.join(lacking)}"
        )
    stated = _states_tails(forecasts)[:, None]
    if not stated.any():
        return QuantileForecast(values, (1,))
    low, high, variance = (forecasts[name].to_numpy(dtype=np.float64)[:, None] for name in TAIL_COLUMNS)
    tails = Tails(
        np.where(stated, low, values[:, :, 0]),
        np.where(stated, high, values[:, :, -1]),
        np.where(stated, variance, 0.0),
    )
    return QuantileForecast(values, (1,), tails)


def _states_tails(forecasts: pd.DataFrame) -> NDArray[np.bool_]:
    """Rows whose model states its tails."""
    return np.asarray(forecasts[list(TAIL_COLUMNS)].notna().to_numpy().all(axis=1))


def row_scores(forecasts: pd.DataFrame) -> pd.DataFrame:
    """Losses of each row of a table of forecasts.

    Parameters
    ----------
    forecasts : DataFrame
        Columns ``y`` (NaN while unknown) and ``q0.01`` to ``q0.99``. Further columns give further losses:
        ``tail_low, tail_high, variance`` (see `forecaster.quantiles.Tails`); ``scale``, the volatility of the
        outcome as known at the origin, the same for every model; ``naive_error``, the mean absolute outcome
        in training, which is the error of *no change* there; ``realised_variance``, the proxy for the
        variance.

    Returns
    -------
    DataFrame
        With the same index: ``crps``, ``pinball_<level>``, ``coverage_<percent>`` (1 inside),
        ``winkler_<percent>``, ``hit_rate_<level>`` (1 where the outcome is below the value at risk),
        ``squared_error`` (of the mean), ``absolute_error`` (of the median), ``direction`` (1 right, 0 wrong,
        0.5 undecided, NaN where the price did not move), ``direction_base_rate`` (what always saying *up*
        would have scored) and ``pit``. With a scale ``crps_normalised``, in its unit; with a naive error
        ``mase`` (Hyndman and Koehler, "Another look at measures of forecast accuracy", International Journal
        of Forecasting 22, 2006); with tails ``fissler_ziegel_<level>``; with tails and realised variance
        ``qlike`` and ``mse_log_variance``. NaN where the outcome, or what a loss needs, is unknown.
    """
    forecast = forecast_of(forecasts)
    values = forecast.values[:, 0]
    y = forecasts["y"].to_numpy(dtype=np.float64)
    known = np.isfinite(y)
    losses = pinball(y, values)
    columns: dict[str, Array] = {"crps": 2.0 * (losses @ quantile_weights())}
    columns |= {f"pinball_{level!r}": losses[:, index] for index, level in enumerate(LEVELS)}
    for coverage in COVERAGES:
        low, high = (end[:, 0] for end in forecast.interval(coverage))
        percent = round(coverage * 100)
        columns[f"coverage_{percent}"] = np.where(known, ((low <= y) & (y <= high)).astype(float), np.nan)
        columns[f"winkler_{percent}"] = winkler(y, low, high, coverage)
    for level in RISK_LEVELS:
        hits = (y < values[:, LEVELS.index(level)]).astype(float)
        columns[f"hit_rate_{level!r}"] = np.where(known, hits, np.nan)
    columns["squared_error"] = np.square(y - forecast.mean[:, 0])
    columns["absolute_error"] = np.abs(y - forecast.median[:, 0])
    call = np.sign(forecast.probability_of_rise()[:, 0] - 0.5)
    moved = known & (y != 0.0)
    columns["direction"] = np.where(
        moved, np.where(call == 0.0, 0.5, (call == np.sign(y)).astype(float)), np.nan
    )
    columns["direction_base_rate"] = np.where(moved, (y > 0.0).astype(float), np.nan)
    columns["pit"] = probability_below(values, y)
    if "scale" in forecasts:
        columns["crps_normalised"] = columns["crps"] / _positive(forecasts["scale"])
    if "naive_error" in forecasts:
        columns["mase"] = columns["absolute_error"] / _positive(forecasts["naive_error"])
    if forecast.tails is not None:
        stated = known & _states_tails(forecasts)
        for level in RISK_LEVELS:
            shortfall = expected_shortfall(values, forecast.tails.low[:, 0], level)
            at_risk = values[:, LEVELS.index(level)]
            joint = fissler_ziegel(y, at_risk, shortfall, level)
            columns[f"fissler_ziegel_{level!r}"] = np.where(stated, joint, np.nan)
        if "realised_variance" in forecasts:
            variance = forecast.tails.variance[:, 0]
            proxy = np.where(stated, forecasts["realised_variance"].to_numpy(dtype=np.float64), np.nan)
            columns["qlike"] = qlike(variance, proxy)
            columns["mse_log_variance"] = log_variance_error(variance, proxy)
    return pd.DataFrame(columns, index=forecasts.index)


def _positive(column: pd.Series) -> Array:
    """Divisors, with NaN in the place of what cannot divide."""
    numbers = column.to_numpy(dtype=np.float64)
    return np.where(numbers > 0, numbers, np.nan)
