"""Frames that leave for other tools and come from them: Nixtla's long frames, and scenarios for skfolio."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from forecaster.errors import ParameterError
from forecaster.prices.base import price_table
from forecaster.quantiles import LEVELS, QuantileForecast, quantile_columns
from forecaster.returns import forward_returns
from forecaster.windows import Windows

__all__ = ["from_nixtla", "to_nixtla", "to_skfolio"]

KEYS = ["model", "symbol", "origin", "horizon", "y"]


def to_nixtla(
    forecasts: pd.DataFrame,
    horizon: int,
    intervals: Sequence[int] = (80, 95),
    sessions: pd.DatetimeIndex | None = None,
) -> pd.DataFrame:
    """Lay forecasts out as Nixtla's libraries do, for `utilsforecast.evaluate` and its plots.

    Parameters
    ----------
    forecasts : DataFrame
        As in ``forecasts.parquet``: ``model, symbol, origin, horizon, y`` and the quantiles.
    horizon : int
        One of its horizons, in sessions.
    intervals : sequence of int
        Central intervals in percent, of 50, 80, 90, 95 and others whose ends are forecast levels.
    sessions : DatetimeIndex, optional
        Sessions to count the horizon in; the origins of the table where it is not given. A target beyond the
        last of them is counted in business days.

    Returns
    -------
    DataFrame
        ``unique_id, ds`` (the session of the outcome), ``cutoff`` (the origin), ``y`` (the cumulative log
        return; NaN while unknown) and for each model ``<model>`` (its median), ``<model>-lo-80``,
        ``<model>-hi-80`` and so on.

    Raises
    ------
    ParameterError
        If the table has no such horizon or lacks columns, or an interval is not between forecast levels.
    """
    lacking = [name for name in (*KEYS, *quantile_columns()) if name not in forecasts]
    if lacking:
        raise ParameterError(
            f"forecasts have the columns of forecasts.parquet. Received: none named {lacking[0]!r}"
        )
    rows = forecasts[forecasts["horizon"] == horizon]
    if rows.empty:
        there = sorted(set(forecasts["horizon"].tolist()))
        raise ParameterError(f"the horizon is one of the table's. Received: {horizon}; there are {there}")
    columns = {"": "q0.5"}
    for interval in intervals:
        low = round((1 - interval / 100) / 2, 6)
        if low not in LEVELS or low >= 0.5:
            allowed = [
                round(100 * (1 - 2 * level)) for level in LEVELS if level < 0.5 and (200 * level) % 1 < 1e-9
            ]
            raise ParameterError(
                f"an interval lies between two forecast levels. Received: {interval} percent; "
                f"allowed: {allowed}"
            )
        columns |= {f"-lo-{interval}": f"q{low!r}", f"-hi-{interval}": f"q{round(1 - low, 6)!r}"}
    wide = rows.pivot(index=["symbol", "origin"], columns="model", values=list(columns.values()))
    models = list(dict.fromkeys(rows["model"]))
    out = pd.DataFrame(
        {f"{model}{suffix}": wide[name, model] for model in models for suffix, name in columns.items()}
    )
    out.insert(0, "y", rows.groupby(["symbol", "origin"])["y"].first())
    out = out.reset_index().rename(columns={"symbol": "unique_id", "origin": "cutoff"})
    known = pd.DatetimeIndex(np.unique(rows["origin"] if sessions is None else sessions)).as_unit("ms")
    out.insert(1, "ds", _ahead(pd.DatetimeIndex(out["cutoff"]).as_unit("ms"), horizon, known))
    out["unique_id"] = out["unique_id"].astype(str)
    return out


def _ahead(origins: pd.DatetimeIndex, horizon: int, sessions: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Give the session so many after each origin, in business days beyond the last that is known."""
    place = sessions.searchsorted(origins, side="right") - 1 + horizon
    beyond = np.maximum(place - len(sessions) + 1, 0)
    base = sessions[np.minimum(place, len(sessions) - 1)].to_numpy().astype("datetime64[D]")
    # A session that is known may lie on a weekend, where business days would move it.
    ahead = np.where(beyond > 0, np.busday_offset(base, beyond, roll="backward"), base)
    return pd.DatetimeIndex(ahead).as_unit("ms")


def from_nixtla(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Take prices from a long frame of Nixtla's.

    Parameters
    ----------
    frame : DataFrame
        ``unique_id, ds`` and ``y``, the close of the session.

    Returns
    -------
    dict of str to DataFrame
        A price table of each symbol, as `forecaster.windows.Panel.from_prices` takes them; a NaN stays one,
        and `forecaster.prices.base.load_prices` checks such tables.

    Raises
    ------
    ParameterError
        If a column is not there.
    """
    lacking = [name for name in ("unique_id", "ds", "y") if name not in frame]
    if lacking:
        raise ParameterError(
            f"a long frame has the columns unique_id, ds and y. Received: none named {lacking[0]!r}"
        )
    return {
        str(symbol): price_table(
            pd.DataFrame({"close": rows["y"].to_numpy()}, index=pd.DatetimeIndex(rows["ds"]))
        )
        for symbol, rows in frame.groupby("unique_id", sort=True)
    }


def to_skfolio(forecast: QuantileForecast, windows: Windows, horizon: int) -> pd.DataFrame:
    """Make scenarios that have tonight's forecasts as margins and the past's dependence, for skfolio.

    Each past session on which all symbols have an outcome is one scenario. What counts of it is each symbol's
    rank among its own standardised outcomes; the forecast quantile function of the symbol at that rank is its
    return in the scenario: the Schaake shuffle (Clark et al., "The Schaake Shuffle", Journal of
    Hydrometeorology 5, 2004). The result goes where skfolio takes returns: ``MeanRisk().fit(scenarios)``.

    Parameters
    ----------
    forecast : QuantileForecast
        Forecasts at `windows`; where it states tails, their means hold beyond the outermost levels, else
        nothing lies beyond them.
    windows : Windows
        One origin a symbol, as ``Windows(panel, panel.last_rows(), horizons)``.
    horizon : int
        One of the horizons, in sessions.

    Returns
    -------
    DataFrame of shape (n_scenarios, n_symbols)
        Simple returns over the horizon, indexed by the past session.

    Raises
    ------
    ParameterError
        If the horizon is not there, a symbol has several origins, or fewer than 100 sessions are common.
    """
    if horizon not in forecast.horizons:
        raise ParameterError(
            f"the horizon is one of the forecast's. Received: {horizon}; there are {list(forecast.horizons)}"
        )
    symbols = [str(symbol) for symbol in windows.symbols]
    if len(set(symbols)) < len(symbols) or len(symbols) != len(forecast):
        raise ParameterError(
            f"scenarios need one origin a symbol. Received: {len(symbols)} origins of "
            f"{len(set(symbols))} symbols "
            f"and {len(forecast)} forecasts"
        )
    panel, number = windows.panel, forecast.horizons.index(horizon)
    outcomes = {}
    for symbol, row in zip(symbols, windows.rows, strict=True):
        start = panel.parts[panel.symbols.index(symbol)].start
        past = slice(start, int(row) + 1)  # an outcome that ends after the origin is not known at it
        ahead = forward_returns(panel.returns[past], (horizon,))[:, 0]
        outcomes[symbol] = pd.Series(
            ahead / panel.volatility[past], index=panel.sessions[past].astype("datetime64[s]")
        )
    together = pd.DataFrame(outcomes)[symbols].dropna()
    if len(together) < 100:
        raise ParameterError(
            f"scenarios need 100 sessions on which all symbols have an outcome. Received: {len(together)}"
        )
    shares = (rankdata(together.to_numpy(), axis=0) - 0.5) / len(together)
    tails = forecast.tails
    columns = []
    for place in range(len(symbols)):
        values = forecast.values[place, number]
        low, high = (
            (values[0], values[-1])
            if tails is None
            else (tails.low[place, number], tails.high[place, number])
        )
        columns.append(np.expm1(_quantile(values, float(low), float(high), shares[:, place])))
    return pd.DataFrame(np.stack(columns, axis=1), index=together.index.rename("session"), columns=symbols)


def _quantile(
    values: NDArray[np.float64], low: float, high: float, shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Quantile function: linear between levels, and uniform beyond them with the stated mean."""
    inner = np.interp(shares, LEVELS, values)
    below = values[0] - 2 * (values[0] - low) * (1 - shares / LEVELS[0])
    above = values[-1] + 2 * (high - values[-1]) * (1 - (1 - shares) / (1 - LEVELS[-1]))
    return np.where(shares < LEVELS[0], below, np.where(shares > LEVELS[-1], above, inner))
