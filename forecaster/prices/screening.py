"""Which rows of a price table can be used: each row by itself, then against the rows before it.

Rows are judged in the order of their sessions, each against the last usable one before it, so that what comes
later changes nothing about them. What cannot be used is named by code and left as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["IMPOSSIBLE", "JUMP", "PRICE_COLUMNS", "TOLERANCE", "Screening", "row_faults", "screen"]

PRICE_COLUMNS = ("open", "high", "low", "close", "volume", "dividend", "split")
"""The columns of a price table, all float64; its index is ``session``."""

IMPOSSIBLE = ("infinite-number", "non-positive-price", "invalid-split", "invalid-dividend")
"""Codes of rows that no decision can make usable."""

JUMP = math.log(1.5)
"""Absolute log return above which a session is called a jump."""

SLIP, SLIP_ROOM = math.log(100.0), math.log(1.25)
"""Log ratio of a unit slip (pence for pounds), and how far a return may lie from it."""

LARGE_YIELD, NOTABLE_YIELD, UNUSUAL = 0.1, 0.02, 20.0
"""A dividend is judged from this share of the price before it; or from the second share, where it is so many
times the median of those before it, of which there must be three."""

TOLERANCE = 1e-6
"""Relative: adjusted prices carry rounding, and a high a billionth below the close is not worth a warning."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Screening:
    """Which rows can be used.

    Parameters
    ----------
    codes : list of tuple of str, one a row
        Why the row is held back; empty where it is not.
    usable : ndarray of shape (n_sessions,), bool
        Rows with a close that are not held back.
    carried : ndarray of shape (n_sessions,), bool
        Rows without a usable close whose dividend or split the next usable row counts.
    prices : DataFrame of shape (n_usable, 7)
        The usable rows, with the dividends and splits carried to them.
    """

    codes: list[tuple[str, ...]]
    usable: Mask
    carried: Mask
    prices: pd.DataFrame

    @cached_property
    def held(self) -> Mask:
        """Rows that are held back, shape (n_sessions,), bool."""
        return _held(self.codes)


def _held(codes: list[tuple[str, ...]]) -> Mask:
    if not any(codes):
        return np.zeros(len(codes), dtype=bool)
    return np.fromiter(map(bool, codes), dtype=bool, count=len(codes))


def row_faults(frame: pd.DataFrame) -> dict[tuple[str, str], Mask]:
    """Find what is wrong with each row by itself.

    Parameters
    ----------
    frame : DataFrame of shape (n_sessions, 7)
        A price table.

    Returns
    -------
    dict of (code, column) to ndarray of shape (n_sessions,), bool
        The rows at fault, in the order of the checks; the column is empty where several are concerned.
        Nothing but faults that were found.
    """
    if _ordinary(frame):
        return {}
    schema = _schema()
    numbered = frame.reset_index()
    found: dict[tuple[str, str], Mask] = {}
    for column in ("session", *PRICE_COLUMNS):
        for check in schema.columns[column].checks:
            # One by one: `validate` turns failures into tables and texts, which takes ten times as long.
            _note(found, (check.name, column), check(numbered[column]), numbered.index)
    for check in schema.checks:
        _note(found, (check.name, ""), check(numbered), numbered.index)
    order = list(_CODES)
    return dict(sorted(found.items(), key=lambda item: order.index(item[0][0])))


def _ordinary(frame: pd.DataFrame) -> bool:
    """Tell whether no rule can find anything, as in most tables: forty times as fast as to ask each."""
    numbers = frame[list(PRICE_COLUMNS)].to_numpy(dtype=np.float64).T
    prices, (volume, dividend, split) = numbers[:4], numbers[4:]
    opens, highs, lows, closes = prices
    # NaN compares false, so that a table with one is left to the rules.
    return bool(
        np.isfinite(numbers).all()
        and (prices > 0).all()
        and (volume >= 0).all()
        and (dividend >= 0).all()
        and (split > 0).all()
        and (lows <= np.minimum(opens, closes)).all()
        and (highs >= np.maximum(opens, closes)).all()
        and frame.index.is_unique
    )


def _note(found: dict[tuple[str, str], Mask], place: tuple[str, str], result: Any, index: pd.Index) -> None:
    passed = result.check_output
    if not bool(passed.all()):
        # Without the rows whose NaN was to be passed over.
        found[place] = ~passed.reindex(index, fill_value=True).to_numpy(dtype=bool)


_PRICES = ("open", "high", "low", "close")
_CODES = (
    "duplicate-session",
    *IMPOSSIBLE,
    "zero-open",
    "high-below-low",
    "price-outside-range",
    "negative-volume",
)
"""Codes of what can be wrong with a row by itself, in the order in which it is reported."""


@cache
def _schema() -> Any:
    """Make the schema; pandera is imported here, as it takes part of a second."""
    import pandera.pandas as pa

    def rule(code: str, holds: Any, ignore_na: bool = True) -> Any:
        return pa.Check(holds, name=code, ignore_na=ignore_na)

    finite = rule("infinite-number", lambda values: ~np.isinf(values))
    # A zero open is no price but the mark of some feeds for one that is not known.
    rules = {
        "open": [rule("non-positive-price", lambda values: values >= 0)],
        **{name: [rule("non-positive-price", lambda values: values > 0)] for name in _PRICES[1:]},
        "volume": [rule("negative-volume", lambda values: values >= 0)],
        "dividend": [rule("invalid-dividend", lambda values: values >= 0, ignore_na=False)],
        "split": [rule("invalid-split", lambda values: values > 0, ignore_na=False)],
    }
    rules["open"].append(rule("zero-open", lambda values: values != 0))
    columns = {
        column: pa.Column("float64", [finite, *checks], nullable=True) for column, checks in rules.items()
    }
    sessions = pa.Column("datetime64[s]", [rule("duplicate-session", lambda days: ~days.duplicated())])
    across = [
        rule("high-below-low", lambda table: ~_crossed(table), ignore_na=False),
        rule("price-outside-range", lambda table: ~_outside(table), ignore_na=False),
    ]
    return pa.DataFrameSchema({"session": sessions, **columns}, checks=across)


def _crossed(table: pd.DataFrame) -> pd.Series[bool]:
    return table["high"] < table["low"] * (1 - TOLERANCE)


def _outside(table: pd.DataFrame) -> pd.Series[bool]:
    """Find rows whose open or close lies outside [low, high]; a NaN, or a zero open, is outside nothing."""
    above, below = table["high"] * (1 + TOLERANCE), table["low"] * (1 - TOLERANCE)
    opens = table["open"].where(table["open"] != 0)
    outside = (table["close"] > above) | (table["close"] < below) | (opens > above) | (opens < below)
    return outside & ~_crossed(table)


def screen(frame: pd.DataFrame, codes: list[tuple[str, ...]], trusted: Mask) -> Screening:
    """Judge each row against the usable ones before it, and carry the actions of rows that cannot be used.

    Parameters
    ----------
    frame : DataFrame of shape (n_sessions, 7)
        A price table, each session once.
    codes : list of tuple of str, one a row
        Why a row is held back already; empty where it is not.
    trusted : ndarray of shape (n_sessions,), bool
        Rows that are not to be judged, because they were.
    """
    close, dividend, split = (frame[name].to_numpy(np.float64) for name in ("close", "dividend", "split"))
    held = _held(codes)
    codes = list(codes)
    usable: Mask = ~np.isnan(close) & ~held
    carried = np.zeros(len(frame), dtype=bool)
    acts: Mask = (dividend != 0) | (split != 1)
    if not (acts & ~usable).any() and not _suspect(close[usable], dividend[usable], split[usable]):
        return Screening(codes, usable, carried, frame.loc[usable])
    walk = _Walk()
    dividends, splits = dividend.copy(), split.copy()
    for row, numbers in enumerate(zip(close.tolist(), dividend.tolist(), split.tolist(), strict=True)):
        if not usable[row]:
            carried[row] = walk.pass_over(*numbers[1:], codes[row])
            continue
        code = "" if trusted[row] else walk.judge(*numbers)
        if code:
            codes[row], usable[row] = (code,), False
            carried[row] = walk.pass_over(*numbers[1:], (code,))
        else:
            dividends[row], splits[row] = walk.accept(*numbers)
    # What no usable row followed is not counted yet.
    last = int(np.flatnonzero(usable)[-1]) if usable.any() else 0
    carried[last:] = False
    prices = frame.assign(dividend=dividends, split=splits).loc[usable]
    return Screening(codes, usable, carried, prices)


def _suspect(close: NDArray[Any], dividend: NDArray[Any], split: NDArray[Any]) -> bool:
    """Tell whether any row could be held back, judged against its neighbour: most tables have none."""
    before = close[:-1]
    with np.errstate(all="ignore"):
        moved = np.abs(np.log(split[1:]) + np.log(close[1:]) - np.log(before))
        paid = dividend[1:] * split[1:] / before
    return bool(
        ((moved > JUMP) & ((split[1:] != 1) | (moved > SLIP - SLIP_ROOM)) | (paid > NOTABLE_YIELD)).any()
    )


@dataclass(slots=True)
class _Walk:
    """The state of a walk along the rows: the last usable close and what was carried since."""

    before: float = math.nan
    """Close of the last usable row."""
    shares: float = 1.0
    """Shares that one share at that close has become."""
    cash: float = 0.0
    """Cash paid since, per share held now."""
    yields: list[float] = field(default_factory=list)
    """Dividends of usable rows over the close before them."""

    def _with(self, dividend: float, split: float) -> tuple[float, float]:
        return dividend + self.cash / split, self.shares * split

    def judge(self, close: float, dividend: float, split: float) -> str:
        """Say why a row cannot be true; empty where it can."""
        if math.isnan(self.before):
            return ""
        dividend, split = self._with(dividend, split)
        if not 0 < split < math.inf:  # so many of them that numbers end
            return "split-mismatch"
        if not math.isfinite(dividend):
            return "dividend-out-of-scale"
        moved = math.log(split) + math.log(close) - math.log(self.before)
        if split != 1 and abs(moved) > JUMP:
            return "split-mismatch"
        if abs(abs(moved) - SLIP) < SLIP_ROOM:
            return "unit-slip"
        if dividend > 0:
            paid = math.exp(min(math.log(split) + math.log(dividend) - math.log(self.before), 700.0))
            unusual = len(self.yields) >= 3 and paid > UNUSUAL * float(np.median(self.yields))
            earned = moved + math.log1p(dividend / close)
            # The price falls by about the dividend on its ex-date: the total return hardly feels it.
            if (paid > LARGE_YIELD or (paid > NOTABLE_YIELD and unusual)) and earned > 0.5 * math.log1p(paid):
                return "dividend-out-of-scale"
        return ""

    def accept(self, close: float, dividend: float, split: float) -> tuple[float, float]:
        """Go on from a usable row; give the dividend and the split that it counts."""
        if not math.isnan(self.before):
            dividend, split = self._with(dividend, split)
            if dividend > 0:
                self.yields.append(dividend * split / self.before)
        self.before, self.shares, self.cash = close, 1.0, 0.0
        return dividend, split

    def pass_over(self, dividend: float, split: float, codes: tuple[str, ...]) -> bool:
        """Carry the actions of a row that cannot be used, but for those that are wrong themselves."""
        if math.isnan(self.before):
            return False
        if "split-mismatch" in codes:
            # The one that does not fit may be one that was carried here.
            self.shares, split = 1.0, 1.0
        if not (math.isfinite(split) and split > 0):
            split = 1.0
        if "dividend-out-of-scale" in codes:
            self.cash = 0.0
        if {"dividend-out-of-scale", "unit-slip"} & set(codes) or not (
            math.isfinite(dividend) and dividend >= 0
        ):
            dividend = 0.0
        self.cash = self.cash / split + dividend
        self.shares *= split
        return dividend != 0 or split != 1
