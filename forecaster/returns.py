"""Prices to log returns and back.

Conventions, for one symbol and prices as traded:

- ``split`` is new shares per old share, effective before the open of its session: 4.0 for four-for-one, 0.1
  for a reverse split of one-for-ten, 1.0 otherwise;
- ``dividend`` is the cash per share held *after* that session's split, on its ex-date;
- the return of a session belongs to the session in which it is earned: ``r[t]`` runs from the close of the
  session before to the close of session ``t``.

The holder of one share at the previous close owns ``split`` shares at this close and was paid ``dividend``
on each, so that ``r[t] = ln(split[t] * (close[t] + dividend[t]) / close[t-1])``. This is the return of a
holder who reinvests the dividend at the close of the ex-date (CRSP's definition of the holding-period
return).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import reduce
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from forecaster.errors import ParameterError

__all__ = [
    "adjusted_prices",
    "forward_returns",
    "log_returns",
    "portfolio_prices",
    "to_log_returns",
    "to_prices",
]

_COLUMNS = ("close", "dividend", "split")


def log_returns(frame: pd.DataFrame, kind: Literal["total", "price"] = "total") -> NDArray[np.float64]:
    """Log return of each session, from the close of the session before it.

    Parameters
    ----------
    frame : DataFrame of shape (n_sessions, ...)
        Prices of one symbol in the order of its sessions, with the columns ``close``, ``dividend`` and
        ``split`` as defined at the top of this module. Prices already adjusted have dividend 0 and split 1.
    kind : {"total", "price"}
        ``"total"`` counts dividends as reinvested; ``"price"`` leaves them out. Splits count in both.

    Returns
    -------
    ndarray of shape (n_sessions,)
        Log returns, float64. The first is NaN: nothing comes before it. A NaN in a number makes the returns
        that need it NaN (a missing close: its own and the next).

    Raises
    ------
    ParameterError
        If `kind` is unknown, a column is missing, a close or a split is not positive (no log return exists
        there), or a dividend that counts is negative.
    """
    close, dividend, split = _traded(frame, kind)
    # Logs are added where the numbers could overflow although the return does not.
    with np.errstate(divide="ignore", invalid="ignore"):
        held = np.logaddexp(np.log(close), np.log(dividend)) if kind == "total" else np.log(close)
    returns = np.full(close.size, np.nan)
    returns[1:] = np.log(split[1:]) + held[1:] - np.log(close[:-1])
    return returns


def adjusted_prices(
    frame: pd.DataFrame, as_of: date | None = None, kind: Literal["total", "price"] = "total"
) -> pd.DataFrame:
    """Prices adjusted for the splits and dividends up to a session, and for no later one.

    Parameters
    ----------
    frame : DataFrame of shape (n_sessions, ...)
        As for `log_returns`, indexed by session; also ``open``, ``high``, ``low`` and ``volume``, where there
        are any.
    as_of : date, optional
        The last session that is known: later ones are left out and count for nothing. All by default.
    kind : {"total", "price"}
        ``"total"`` adjusts for dividends and splits, ``"price"`` for splits alone.

    Returns
    -------
    DataFrame of shape (n_sessions up to `as_of`, ...)
        The columns of `frame`. Prices per share of the last session, whose own prices are as traded; volumes
        in such shares; ``split`` is 1 throughout, and ``dividend`` 0 or, with ``"price"``, per such share.
        Its log returns are those of `frame`, of that kind. Where a close or a dividend that is needed is NaN,
        all that comes before it is NaN.

    Raises
    ------
    ParameterError
        As `log_returns`.

    Notes
    -----
    Before the session t the factor of prices is that from t on, times ``close[t] / (split[t] * (close[t] +
    dividend[t]))``: the dividend is reinvested at the close of its ex-date, as in `log_returns`. The factor
    ``1 - dividend[t] / close[t-1]`` that data vendors use reinvests it at the close before, and differs from
    this one by the return of the ex-date times the yield.
    """
    if as_of is not None:
        frame = frame[frame.index <= pd.Timestamp(as_of)]
    close, dividend, split = _traded(frame, kind)
    with np.errstate(divide="ignore", invalid="ignore"):
        held = np.logaddexp(np.log(close), np.log(dividend)) if kind == "total" else np.log(close)
        paid = np.where(dividend == 0, 0.0, held - np.log(close)) if kind == "total" else np.zeros(close.size)
    splits, payments = (_after(steps) for steps in (np.log(split), paid))
    result = frame.copy()
    for column in ("open", "high", "low", "close"):
        if column in frame.columns:
            result[column] = frame[column] * np.exp(-splits - payments)
    if "volume" in frame.columns:
        result["volume"] = frame["volume"] * np.exp(splits)
    result["dividend"] = 0.0 if kind == "total" else dividend * np.exp(-splits)
    result["split"] = 1.0
    return result


def portfolio_prices(
    frames: Mapping[str, pd.DataFrame],
    weights: Mapping[str, float],
    kind: Literal["total", "price"] = "total",
) -> pd.DataFrame:
    """Value of a portfolio that is brought back to fixed weights at every close, as a price table.

    Parameters
    ----------
    frames : mapping of str to DataFrame
        Prices of every member, as for `log_returns`, indexed by session, each with a close.
    weights : mapping of str to float
        Share of the value that is held in each member; negative for one that is sold short. What they lack of
        one is cash without interest, and what they exceed it by is borrowed at none.
    kind : {"total", "price"}
        Whether dividends of the members count.

    Returns
    -------
    DataFrame of shape (n_sessions, 7)
        The sessions on which all members have a close, from 100 on; dividends are 0, splits 1, and all but
        the close is NaN. Its simple return is the weighted sum of the simple returns of the members, each
        from the session before in this table: over one that some member missed, the others' returns are
        cumulated.

    Raises
    ------
    ParameterError
        If the value falls to zero or below, as that of a short or leveraged portfolio can.
    """
    logs = {name: pd.Series(log_returns(frames[name], kind), frames[name].index) for name in sorted(weights)}
    shared = reduce(pd.Index.intersection, (series.index for series in logs.values()))
    earned = np.zeros(max(len(shared) - 1, 0))
    for name, series in logs.items():
        value = series.fillna(0.0).cumsum().reindex(shared).to_numpy()
        earned += weights[name] * np.expm1(np.diff(value))
    ruined = np.flatnonzero(~(earned > -1.0))
    if len(ruined):
        day, lost = pd.Timestamp(shared[ruined[0] + 1]).date(), earned[ruined[0]]
        raise ParameterError(
            "the value of a portfolio stays above zero. Received: weights with which it loses "
            f"{-lost:.1%} on {day}; take smaller ones"
        )
    columns = ["open", "high", "low", "close", "volume", "dividend", "split"]
    table = pd.DataFrame(np.nan, index=shared.rename("session"), columns=columns)
    table["close"] = 100.0 * np.exp(np.cumsum(np.log1p(np.append(0.0, earned))))[: len(shared)]
    return table.assign(dividend=0.0, split=1.0)


def _after(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of the steps after each session."""
    sums = np.zeros(steps.size)
    sums[:-1] = np.cumsum(steps[:0:-1])[::-1]
    return sums


def forward_returns(returns: ArrayLike, horizons: Sequence[int]) -> NDArray[np.float64]:
    """Log return cumulated over the `h` sessions after each origin: the target of a forecast.

    Parameters
    ----------
    returns : array_like of shape (n_sessions,)
        Log return of each session, as from `log_returns`.
    horizons : sequence of int, of length n_horizons
        Numbers of sessions ahead, each at least 1.

    Returns
    -------
    ndarray of shape (n_sessions, n_horizons)
        Row `t` holds ``returns[t + 1] + ... + returns[t + h]``. NaN where a session of the sum lies in the
        future or its return is NaN. Row `t` is computed from sessions ``t + 1`` to ``t + h`` and nothing
        else, to the last bit.

    Raises
    ------
    ParameterError
        If `returns` is not one-dimensional, or `horizons` is empty or holds anything but whole numbers above
        0.
    """
    values = np.asarray(returns, dtype=np.float64)
    if values.ndim != 1:
        raise ParameterError(f"`returns` must have one dimension. Received: shape {values.shape}")
    if not horizons or any(
        isinstance(h, bool) or not isinstance(h, (int, np.integer)) or h < 1 for h in horizons
    ):
        raise ParameterError(f"`horizons` must be whole numbers of at least 1. Received: {horizons!r}")
    result = np.full((values.size, len(horizons)), np.nan)
    for column, horizon in enumerate(horizons):
        known = values.size - horizon
        if known > 0:
            # Each window is summed on its own: differences of one running sum would let earlier sessions in
            # through the rounding, and one NaN would spoil all later origins.
            windows = np.lib.stride_tricks.sliding_window_view(values[1:], horizon)
            result[:known, column] = windows.sum(axis=1)
    return result


def to_prices(close: ArrayLike, log_return: ArrayLike) -> NDArray[np.float64]:
    """Prices that cumulative log returns lead to.

    Parameters
    ----------
    close : array_like of shape (...)
        Close at the origin, in the currency of the price.
    log_return : array_like of shape (..., ...)
        Cumulative log returns from the origin. Its first axes are those of `close`: ``(n_origins,)`` goes
        with ``(n_origins, n_horizons, n_levels)``.

    Returns
    -------
    ndarray, shaped as `log_return`
        ``close * exp(log_return)``, per share of the origin. From total returns it is the value with the
        dividends reinvested, not the price on the screen. NaN stays NaN.

    Raises
    ------
    ParameterError
        If the first axes differ, or a close is not positive.
    """
    base, returns = _aligned(close, log_return, "log_return")
    result: NDArray[np.float64] = base * np.exp(returns)
    return result


def to_log_returns(close: ArrayLike, prices: ArrayLike) -> NDArray[np.float64]:
    """Cumulative log returns that lead from a close to prices: the inverse of `to_prices`.

    Parameters
    ----------
    close : array_like of shape (...)
        Close at the origin, in the currency of the prices.
    prices : array_like of shape (..., ...)
        Prices per share of the origin. The first axes are those of `close`.

    Returns
    -------
    ndarray, shaped as `prices`
        ``ln(prices / close)``. NaN stays NaN.

    Raises
    ------
    ParameterError
        If the first axes differ, or a close or a price is not positive.
    """
    base, values = _aligned(close, prices, "prices")
    _require_positive("prices", values)
    result: NDArray[np.float64] = np.log(values) - np.log(base)
    return result


def _traded(
    frame: pd.DataFrame, kind: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Take close, dividend and split out of prices as traded, and see that they can be used."""
    if kind not in ("total", "price"):
        raise ParameterError(f"`kind` must be 'total' or 'price'. Received: kind={kind!r}")
    missing = [column for column in _COLUMNS if column not in frame.columns]
    if missing:
        raise ParameterError(
            f"`frame` must have the columns {', '.join(_COLUMNS)}. Missing: {', '.join(missing)}"
        )
    close, dividend, split = (frame[column].to_numpy(dtype=np.float64) for column in _COLUMNS)
    _require_positive("close", close)
    _require_positive("split", split)
    if kind == "total" and (dividend < 0).any():
        raise ParameterError(f"`dividend` must be at least 0. Received: {np.nanmin(dividend):g}")
    return close, dividend, split


def _aligned(
    close: ArrayLike, other: ArrayLike, name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    base, values = np.asarray(close, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if values.shape[: base.ndim] != base.shape:
        # Plain broadcasting would align the last axes, and be wrong in silence where the sizes happen to
        # agree.
        raise ParameterError(
            f"the first axes of `{name}` must be those of `close`. Received: {values.shape} and {base.shape}"
        )
    _require_positive("close", base)
    return base.reshape(base.shape + (1,) * (values.ndim - base.ndim)), values


def _require_positive(name: str, values: NDArray[np.float64]) -> None:
    wrong: NDArray[Any] = np.flatnonzero(values <= 0)
    if wrong.size:
        raise ParameterError(
            f"`{name}` must be positive, as no log return exists otherwise. "
            f"Received: {values.flat[wrong[0]]:g} at position {wrong[0]} ({wrong.size} in all)"
        )
