"""How good forecasts were: losses a row, and the table of scores by model, symbol and horizon."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster.errors import ParameterError
from forecaster.quantiles import (
    LEVELS,
    QuantileForecast,
    probability_below,
    quantile_columns,
    quantile_weights,
)

__all__ = ["COVERAGES", "crps", "pinball", "row_scores", "score_table", "winkler"]

Array = NDArray[np.float64]

COVERAGES = (0.5, 0.8, 0.95)
POOLED = "*"
"""Stands for all symbols in a table of scores; ALL is a ticker."""


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


def _quantile_values(forecasts: pd.DataFrame) -> Array:
    missing = [name for name in quantile_columns() if name not in forecasts.columns]
    if missing:
        raise ParameterError(
            f"a table of forecasts has the 23 quantile columns. Missing: {', '.join(missing)}"
        )
    return forecasts[quantile_columns()].to_numpy(dtype=np.float64)


def row_scores(forecasts: pd.DataFrame) -> pd.DataFrame:
    """Losses of each row of a table of forecasts.

    Parameters
    ----------
    forecasts : DataFrame
        Columns ``y`` (NaN while unknown) and ``q0.01`` to ``q0.99``.

    Returns
    -------
    DataFrame
        With the same index: ``crps``, ``pinball_<level>``, ``coverage_<percent>`` (1 inside),
        ``winkler_<percent>``, ``squared_error`` (of the mean), ``absolute_error`` (of the median),
        ``direction`` (1 right, 0 wrong, 0.5 undecided, NaN where the price did not move),
        ``direction_base_rate`` (what always saying *up* would have scored) and ``pit``. NaN where the
        outcome is unknown.
    """
    values = _quantile_values(forecasts)
    y = forecasts["y"].to_numpy(dtype=np.float64)
    forecast = QuantileForecast(values[:, None, :], (1,))
    known = np.isfinite(y)
    losses = pinball(y, values)
    columns: dict[str, Array] = {"crps": 2.0 * (losses @ quantile_weights())}
    columns |= {f"pinball_{level!r}": losses[:, index] for index, level in enumerate(LEVELS)}
    for coverage in COVERAGES:
        low, high = (end[:, 0] for end in forecast.interval(coverage))
        percent = round(coverage * 100)
        columns[f"coverage_{percent}"] = np.where(known, ((low <= y) & (y <= high)).astype(float), np.nan)
        columns[f"winkler_{percent}"] = winkler(y, low, high, coverage)
    columns["squared_error"] = np.square(y - forecast.mean[:, 0])
    columns["absolute_error"] = np.abs(y - forecast.median[:, 0])
    call = np.sign(forecast.probability_of_rise()[:, 0] - 0.5)
    moved = known & (y != 0.0)
    columns["direction"] = np.where(
        moved, np.where(call == 0.0, 0.5, (call == np.sign(y)).astype(float)), np.nan
    )
    columns["direction_base_rate"] = np.where(moved, (y > 0.0).astype(float), np.nan)
    columns["pit"] = probability_below(values, y)
    return pd.DataFrame(columns, index=forecasts.index)


def score_table(forecasts: pd.DataFrame) -> pd.DataFrame:
    """Average scores by model, symbol and horizon, in a long table.

    Parameters
    ----------
    forecasts : DataFrame
        One row a model, symbol, origin and horizon: ``model, symbol, origin, horizon, y`` and the quantiles.
        Rows whose outcome is unknown do not count.

    Returns
    -------
    DataFrame
        Columns ``model, symbol, horizon, metric, value``; the symbol ``*`` pools all rows. Metrics: ``crps``,
        ``pinball_<level>``, ``coverage_<percent>``, ``winkler_<percent>``, ``rmse`` (of the mean), ``mae``
        (of the median), ``direction``, ``direction_base_rate`` and ``origins``, the number of rows scored.

    Raises
    ------
    ParameterError
        If a quantile column is missing, or a symbol is named ``*``.
    """
    if (forecasts["symbol"] == POOLED).any():
        raise ParameterError(
            f"the symbol {POOLED!r} stands for all symbols in a table of scores. Received: forecasts of a "
            "symbol of that name; rename it"
        )
    known = forecasts[np.isfinite(forecasts["y"].to_numpy(dtype=np.float64))]
    rows = row_scores(known).drop(columns="pit")
    rows.insert(0, "origins", 1.0)
    keys = known[["model", "symbol", "horizon"]]
    table = pd.concat([keys, rows], axis=1)
    pooled = table.assign(symbol=POOLED)
    everything = pd.concat([table, pooled], ignore_index=True)
    grouped = everything.groupby(["model", "symbol", "horizon"], sort=False, observed=True)
    means = grouped.mean()
    means["origins"] = grouped.size().astype(float)
    means["rmse"] = np.sqrt(means.pop("squared_error"))
    means = means.rename(columns={"absolute_error": "mae"})
    stacked = pd.Series(means.rename_axis(columns="metric").stack(), name="value")
    long = stacked.reset_index()
    return long[["model", "symbol", "horizon", "metric", "value"]]
