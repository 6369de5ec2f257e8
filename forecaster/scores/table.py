"""The table of scores: averages and tests by model, symbol and horizon."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster.errors import ParameterError
from forecaster.quantiles import LEVELS
from forecaster.scores.losses import RISK_LEVELS, crps, forecast_of, row_scores
from forecaster.scores.risk import christoffersen, kupiec, pit_uniformity

__all__ = ["POOLED", "score_table"]

Array = NDArray[np.float64]

POOLED = "*"
"""Stands for all symbols in a table of scores; ALL is a ticker."""

PASSED = 0.05
"""A test is passed when its p-value is at least this."""

RANKED_SYMBOLS = 5
"""Symbols that a day needs for a correlation of ranks."""


def score_table(forecasts: pd.DataFrame) -> pd.DataFrame:
    """Average scores by model, symbol and horizon, in a long table.

    Parameters
    ----------
    forecasts : DataFrame
        One row a model, symbol, origin and horizon: ``model, symbol, origin, horizon, y`` and the quantiles,
        and what else `row_scores` takes. Rows whose outcome is unknown do not count.

    Returns
    -------
    DataFrame
        Columns ``model, symbol, horizon, metric, value``; the symbol ``*`` pools all rows. Metrics:

        - averages over rows: those of `row_scores`, with ``rmse`` (of the mean) and ``mae`` (of the median)
          for its errors, and ``origins``, the number of rows scored;
        - ``crps_without_drift``: CRPS with the average outcome of each symbol taken from its outcomes, and
          the average forecast mean from its forecasts. Stocks that survived have risen; ``crps`` minus this
          is what a model gains or loses by the drift alone;
        - tests on every h-th origin of a symbol: ``kupiec_p_<level>``, ``christoffersen_p_<level>``
          (conditional coverage) and ``pit_p``; pooled, because hits of several symbols fall on the same days,
          the share of symbols that pass at 5%: ``kupiec_passed_<level>``, ``christoffersen_passed_<level>``
          and ``pit_passed``;
        - ``rank_ic``, pooled only: correlation of the ranks of forecast means and of outcomes over the
          symbols of a day, averaged over days with five symbols or more that differ in both.

        A test or a correlation that cannot be made has no row.

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
    # One model after the other: the losses of all would take several times the memory of the forecasts.
    tables = [_model_scores(rows).assign(model=model) for model, rows in known.groupby("model", sort=False)]
    columns = ["model", "symbol", "horizon", "metric", "value"]
    if not tables:
        forecast_of(known)
        return pd.DataFrame(columns=columns)
    return pd.concat(tables, ignore_index=True)[columns]


def _model_scores(known: pd.DataFrame) -> pd.DataFrame:
    """Scores of one model: ``symbol, horizon, metric, value``."""
    known = known.sort_values("origin", kind="stable", ignore_index=True)
    forecast = forecast_of(known)
    groups = np.asarray(known.groupby(["symbol", "horizon"], sort=False, observed=True).ngroup(), np.int64)
    rows = row_scores(known)
    pit = rows.pop("pit").to_numpy()
    mean = forecast.mean[:, 0]
    y = known["y"].to_numpy(dtype=np.float64)
    shift = _group_means(groups, mean)
    rows["crps_without_drift"] = crps(y - _group_means(groups, y), forecast.values[:, 0] - shift[:, None])

    keys = known[["symbol", "horizon"]]
    parts = []
    for part in (keys, keys.assign(symbol=POOLED)):
        grouped = rows.join(part).groupby(["symbol", "horizon"], sort=False, observed=True)
        means = grouped.mean()
        means["origins"] = grouped.size().astype(float)
        means["rmse"] = np.sqrt(means.pop("squared_error"))
        means = means.rename(columns={"absolute_error": "mae"})
        stacked = pd.Series(means.rename_axis(columns="metric").stack(), name="value")
        parts.append(stacked.reset_index())
    parts.append(_risk_tests(known, groups, forecast.values[:, 0], pit))
    parts.append(_rank_correlations(known, mean, y))
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def _group_means(groups: NDArray[np.int64], numbers: Array) -> Array:
    """Mean of each row's group, a row each."""
    means: Array = np.bincount(groups, numbers) / np.bincount(groups)
    return means[groups]


def _risk_tests(known: pd.DataFrame, groups: NDArray[np.int64], values: Array, pit: Array) -> pd.DataFrame:
    """Test each symbol on every h-th origin, and give the share of symbols that pass."""
    y = known["y"].to_numpy(dtype=np.float64)
    hits = {level: y < values[:, LEVELS.index(level)] for level in RISK_LEVELS}
    symbols, horizons = known["symbol"].to_numpy(dtype=object), known["horizon"].to_numpy()
    order = np.argsort(groups, kind="stable")
    results = []
    for mine in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        horizon = int(horizons[mine[0]])
        apart = mine[::horizon]
        tests = {"pit_p": pit_uniformity(pit[apart])}
        for level in RISK_LEVELS:
            tests[f"kupiec_p_{level!r}"] = kupiec(hits[level][apart], level)
            tests[f"christoffersen_p_{level!r}"] = christoffersen(hits[level][apart], level)[1]
        results += [
            (symbols[mine[0]], horizon, metric, value)
            for metric, value in tests.items()
            if not math.isnan(value)
        ]
    table = pd.DataFrame(results, columns=["symbol", "horizon", "metric", "value"])
    passed = table.assign(
        symbol=POOLED,
        metric=table["metric"].str.replace("_p", "_passed", regex=False),
        value=(table["value"] >= PASSED).astype(float),
    )
    shares = passed.groupby(["symbol", "horizon", "metric"], sort=False)["value"].mean().reset_index()
    return pd.concat([table, shares], ignore_index=True)


def _rank_correlations(known: pd.DataFrame, mean: Array, y: Array) -> pd.DataFrame:
    """Average Spearman's correlation over symbols over days, a row a horizon."""
    days = known.groupby(["horizon", "origin"], sort=False).ngroup().to_numpy()
    counts = np.bincount(days)
    centred = []
    for numbers in (mean, y):
        ranks = pd.Series(numbers).groupby(days).rank().to_numpy()
        centred.append(ranks - (counts[days] + 1) / 2.0)
    first, second = centred
    spread = np.sqrt(np.bincount(days, first**2) * np.bincount(days, second**2))
    usable = (counts >= RANKED_SYMBOLS) & (spread > 0)
    correlation = np.divide(
        np.bincount(days, first * second), spread, out=np.zeros(len(spread)), where=usable
    )
    horizon = np.zeros(len(counts), dtype=np.int64)
    horizon[days] = known["horizon"].to_numpy()
    daily = pd.DataFrame({"horizon": horizon[usable], "value": correlation[usable]})
    result = daily.groupby("horizon", as_index=False)["value"].mean()
    return pd.DataFrame(result.assign(symbol=POOLED, metric="rank_ic"))
