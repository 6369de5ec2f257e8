"""From prices that are restated for later splits back to prices as traded."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import numpy as np
import pandas as pd

from forecaster.errors import ParameterError
from forecaster.prices.base import price_table

__all__ = ["LARGE_SPLIT", "ROOM", "Traded", "as_traded"]

LARGE_SPLIT = float(np.log(1.49))
"""|log ratio| from which a split is told from the ordinary move of a day: 3 for 2 and larger."""

ROOM = 0.15
"""How far the log move of the close over a split may lie from the split's own for the prices before it to
count as not restated."""


@dataclass(frozen=True, slots=True, eq=False)
class Traded:
    """Prices as traded, and the splits that could not be treated as any other.

    Parameters
    ----------
    prices : DataFrame of shape (n_sessions, 7)
        A price table. Dividends and splits stand on the first session with a close on or after their date.
    not_restated : tuple of date
        Sessions of splits for which the prices before them had not been restated, so nothing was undone.
    pending : tuple of date
        Dates of splits without a close on or after them: whether the prices before them are restated for them
        cannot be told. They are not undone, so `prices` must not be used.
    """

    prices: pd.DataFrame
    not_restated: tuple[datetime.date, ...]
    pending: tuple[datetime.date, ...]


def as_traded(bars: pd.DataFrame, dividends: pd.Series[float], splits: pd.Series[float]) -> Traded:
    """Undo the splits for which prices, volumes and dividends were restated.

    With F(t) the product of the ratios of all splits after session t, a price or a dividend of t is
    multiplied by F(t) and a volume divided by it.

    Parameters
    ----------
    bars : DataFrame of shape (n_sessions, 5)
        ``open, high, low, close, volume`` restated for all splits to date, NaN where missing, with an
        ascending index of dates without repetition. They must reach to the present: a later split that is
        not in `splits` would go unnoticed.
    dividends : Series
        Restated in the same way, a share, by date.
    splits : Series
        New shares for an old one, by date.

    Returns
    -------
    Traded
        Prices as traded. Volumes are whole shares again.

    Raises
    ------
    ParameterError
        If a ratio is not a positive number.

    Notes
    -----
    That a split is in the prices is checked at its date. The close before it over the close after it is
    about 1 if they are restated and about the ratio if they are not. A large split counts as not restated if
    the logarithms of the two lie within `ROOM` of each other: for 2 for 1, if the close fell by 42 to 57%.
    """
    if not bool(((splits > 0) & np.isfinite(splits)).all()):
        raise ParameterError(f"a split must have a positive ratio. Received: {splits.tolist()}")
    closes = bars["close"].dropna()
    first = bars.index[0] if len(bars) else None
    factor = np.ones(len(bars))
    table = bars.assign(dividend=0.0, split=1.0)
    not_restated: list[datetime.date] = []
    pending: list[datetime.date] = []
    ratios: dict[pd.Timestamp, float] = {}
    for date, ratio in splits.items():
        assert isinstance(date, pd.Timestamp)
        if first is None or date < first or ratio == 1.0:
            continue
        position = int(closes.index.searchsorted(date))
        if position == len(closes):
            pending.append(date.date())
        else:
            session = closes.index[position]
            ratios[session] = ratios.get(session, 1.0) * float(ratio)
    for session, ratio in ratios.items():
        table.loc[session, "split"] = ratio
        if _restated(closes, session, ratio):
            before = np.asarray(bars.index < session)
            factor = np.where(before, factor * ratio, factor)
        else:
            not_restated.append(session.date())
    for date, amount in dividends.items():
        assert isinstance(date, pd.Timestamp)
        position = int(closes.index.searchsorted(date))
        if first is not None and date >= first and position < len(closes):
            table.loc[closes.index[position], "dividend"] += float(amount)
    for column in ("open", "high", "low", "close", "dividend"):
        table[column] = table[column].to_numpy() * factor
    table["volume"] = np.rint(table["volume"].to_numpy() / factor)
    return Traded(price_table(table), tuple(not_restated), tuple(pending))


def _restated(closes: pd.Series[float], session: pd.Timestamp, ratio: float) -> bool:
    """Tell whether the closes before a split at `session` are restated for it."""
    position = int(closes.index.searchsorted(session))
    split = float(np.log(ratio))
    if position == 0 or abs(split) < LARGE_SPLIT:
        return True
    before, after = float(closes.iloc[position - 1]), float(closes.iloc[position])
    if not (before > 0 and after > 0):
        return True
    return abs(float(np.log(before / after)) - split) > ROOM
