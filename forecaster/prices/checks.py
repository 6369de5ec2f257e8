"""What makes prices usable, and what is said about them.

Every check has a stable code. Nothing is repaired, and the only rows left out are sessions without a close,
which are counted in a finding.

======================= ======== =====================================================================
code                    severity what it says
======================= ======== =====================================================================
duplicate-session       error    a session occurs twice: which one is true cannot be known
infinite-number         error    a number is infinite
non-positive-price      error    a price is zero or negative: no log return exists there
invalid-split           error    a split ratio is not a positive number
invalid-dividend        error    a dividend is negative or not a number
action-without-close    error    a dividend or split falls on a session without a close, and would be lost
constant-series         error    the return is zero throughout: there is nothing to forecast
too-short               error    fewer sessions with a close than needed
high-below-low          warning  the high of a session is below its low
price-outside-range     warning  an open or a close lies outside [low, high]
negative-volume         warning  a volume is negative
stale-close             warning  ten or more sessions in a row have the same close
jump-without-action     warning  |log return| exceeds ln(1.5), and no dividend or split says why
jump-with-action        warning  |log return| exceeds ln(1.5) with the session's dividend and split counted
open-is-previous-close  warning  on most days of some 250 sessions the open is the close before it
no-close                info     sessions without a close (holidays), left out
======================= ======== =====================================================================
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster.errors import ParameterError, SymbolError
from forecaster.returns import log_returns

__all__ = ["PRICE_COLUMNS", "Finding", "check", "inspect"]

PRICE_COLUMNS = ("open", "high", "low", "close", "volume", "dividend", "split")
"""The columns of a price table, all float64; its index is ``session``."""

STALE_RUN = 10
"""Identical closes in a row from which a run is called stale."""

JUMP = math.log(1.5)
"""Absolute log return above which a session is called a jump."""

OPEN_WINDOW = 250
"""Sessions over which the share of opens equal to the previous close is taken."""

_TOLERANCE = 1e-6
# Relative: adjusted prices carry rounding, and a high a billionth below the close is not worth a warning.

_Mask = NDArray[np.bool_]
_Numbers = NDArray[np.float64]
_Severity = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is known about the prices of a symbol.

    Parameters
    ----------
    symbol : str
        The symbol.
    code : str
        Stable name of the check, from the table at the top of this module, or ``not-loaded``.
    severity : {"info", "warning", "error"}
        With an error the symbol is left out; otherwise it is used.
    sessions : int
        Number of sessions concerned.
    first_session : date or None
        The first of them, where there is one.
    message : str
        The rule and what was found, in one line.
    action : str
        What was done, or what to do.
    """

    symbol: str
    code: str
    severity: _Severity
    sessions: int
    first_session: datetime.date | None
    message: str
    action: str

    @property
    def reason(self) -> str:
        """Message and action in one line."""
        return f"{self.message}; {self.action}"


def check(
    symbol: str, frame: pd.DataFrame, minimum_sessions: int
) -> tuple[pd.DataFrame, tuple[Finding, ...]]:
    """Return the usable prices of a symbol and what there is to say about them.

    Parameters
    ----------
    symbol : str
        The symbol, for the messages.
    frame : DataFrame of shape (n_sessions, 7)
        `PRICE_COLUMNS` as float64, with a sorted index of dates. NaN is a missing price.
    minimum_sessions : int
        Sessions with a close that are needed at least.

    Returns
    -------
    prices : DataFrame of shape (n_usable, 7)
        The sessions that have a close, otherwise as given.
    findings : tuple of Finding
        In the order of the table above; none of them an error.

    Raises
    ------
    SymbolError
        If any check is an error; the first is told in full, the others by code.
    ParameterError
        If `frame` is not a price table, or `minimum_sessions` is below 1.
    """
    prices, findings = inspect(symbol, frame, minimum_sessions)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise SymbolError(symbol, failure_reason(errors))
    return prices, findings


def failure_reason(errors: list[Finding]) -> str:
    """One line for why a symbol is left out: the first error in full, the others by code."""
    others = ", ".join(finding.code for finding in errors[1:])
    return errors[0].reason + (f" (also: {others})" if others else "")


def inspect(
    symbol: str, frame: pd.DataFrame, minimum_sessions: int
) -> tuple[pd.DataFrame, tuple[Finding, ...]]:
    """Do as `check`, but return the errors among the findings instead of raising the first.

    The prices returned beside an error are not fit for use.
    """
    _require_table(frame, minimum_sessions)
    report = _Report(symbol)
    duplicated = frame.index.duplicated(keep="first")
    report.add(
        "duplicate-session", "error", frame.index, duplicated,
        "sessions must be unique; {first} occurs more than once ({count} rows too many)",
        "keep one row a session",
    )  # fmt: skip
    _check_numbers(report, frame)
    has_close: _Mask = ~np.isnan(_column(frame, "close"))
    acts = (_column(frame, "dividend") != 0) | (_column(frame, "split") != 1)
    report.add(
        "action-without-close", "error", frame.index, ~has_close & acts,
        "a dividend or split needs a close in its session; {first} has none ({count} in all)",
        "give the close, or move the action to the next session that has one",
    )  # fmt: skip
    prices = frame.loc[has_close]
    # The checks along time compare neighbours, which is meaningless while the rows themselves are wrong.
    if not report.has_errors:
        _check_series(report, prices)
    if len(prices) < minimum_sessions:
        report.say(
            "too-short", "error", len(prices), None,
            f"a symbol needs at least {minimum_sessions} sessions with a close; it has {len(prices)}",
            "give a longer history, or ask for less",
        )  # fmt: skip
    _check_ranges(report, prices)
    report.add(
        "no-close", "info", frame.index, ~has_close,
        "{count} of {total} sessions have no close, the first on {first}", "they are left out",
    )  # fmt: skip
    return prices, tuple(report.findings)


class _Report:
    """Collects the findings of one symbol."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.findings: list[Finding] = []

    @property
    def has_errors(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)

    def say(
        self,
        code: str,
        severity: _Severity,
        sessions: int,
        first: datetime.date | None,
        message: str,
        action: str,
    ) -> None:
        self.findings.append(Finding(self.symbol, code, severity, sessions, first, message, action))

    def add(
        self, code: str, severity: _Severity, index: pd.Index, where: _Mask, message: str, action: str
    ) -> None:
        """Say `message` of the sessions `where`, if any; {first}, {count} and {total} are filled in."""
        count = int(where.sum())
        if count:
            first = _date(index, int(np.argmax(where)))
            text = message.format(first=first, count=count, total=len(index))
            self.say(code, severity, count, first, text, action)


def _require_table(frame: pd.DataFrame, minimum_sessions: int) -> None:
    if minimum_sessions < 1:
        raise ParameterError(f"`minimum_sessions` must be at least 1. Received: {minimum_sessions}")
    missing = [column for column in PRICE_COLUMNS if column not in frame.columns]
    if missing:
        raise ParameterError(
            f"a price table has the columns {', '.join(PRICE_COLUMNS)}. Missing: {', '.join(missing)}"
        )
    index = frame.index
    if not isinstance(index, pd.DatetimeIndex) or index.tz is not None:
        raise ParameterError(
            f"the index of a price table is dates without a time zone. Received: {index.dtype}"
        )
    if index.hasnans or not index.is_monotonic_increasing or not bool((index == index.normalize()).all()):
        raise ParameterError("the index of a price table is sorted dates without a time of day")


def _check_numbers(report: _Report, frame: pd.DataFrame) -> None:
    """Check each number on its own."""
    index = frame.index
    for column in PRICE_COLUMNS:
        report.add(
            "infinite-number", "error", index, np.isinf(_column(frame, column)),
            f"`{column}` must be finite; it is infinite on {{first}} ({{count}} in all)",
            "give the number, or leave the cell empty where none is known",
        )  # fmt: skip
    for column in ("open", "high", "low", "close"):
        values = _column(frame, column)
        wrong: _Mask = values <= 0
        value = f"{values[np.argmax(wrong)]:g}" if wrong.any() else ""
        report.add(
            "non-positive-price", "error", index, wrong,
            f"`{column}` must be positive, as no log return exists otherwise; "
            f"it is {value} on {{first}} ({{count}} in all)",
            "leave the cell empty where no price is known, or leave the symbol out",
        )  # fmt: skip
    splits, dividends = _column(frame, "split"), _column(frame, "dividend")
    bad_split: _Mask = ~(splits > 0)
    value = f"{splits[np.argmax(bad_split)]:g}" if bad_split.any() else ""
    report.add(
        "invalid-split", "error", index, bad_split,
        f"`split` is new shares per old and must be positive; it is {value} on {{first}} ({{count}} in all)",
        "use 1 where there is no split",
    )  # fmt: skip
    bad_dividend: _Mask = ~(dividends >= 0)
    value = f"{dividends[np.argmax(bad_dividend)]:g}" if bad_dividend.any() else ""
    report.add(
        "invalid-dividend", "error", index, bad_dividend,
        f"`dividend` must be at least 0; it is {value} on {{first}} ({{count}} in all)",
        "use 0 where there is no dividend",
    )  # fmt: skip


def _check_series(report: _Report, prices: pd.DataFrame) -> None:
    """Check each session against the ones before it; every number is already known to be sound."""
    index = prices.index
    returns = log_returns(prices)
    acts = (_column(prices, "dividend") != 0) | (_column(prices, "split") != 1)
    with np.errstate(invalid="ignore"):
        jumps: _Mask = np.abs(returns) > JUMP
    if returns.size > 1 and bool((np.abs(log_returns(prices, "price")[1:]) < 1e-12).all()):
        report.say(
            "constant-series", "error", returns.size, _date(index, 0),
            f"the price must change; it is {_column(prices, 'close')[0]:g} in all {returns.size} sessions",
            "leave the symbol out: there is nothing to forecast",
        )  # fmt: skip
        return
    run = _run_lengths(_column(prices, "close"))
    longest = int(run.max(initial=0))
    report.add(
        "stale-close", "warning", index, run >= STALE_RUN,
        f"{{count}} sessions lie in runs of {STALE_RUN} or more identical closes, the longest of {longest}, "
        "the first from {first}",
        "used as given; a halted or illiquid instrument looks calmer than it is",
    )  # fmt: skip
    report.add(
        "jump-without-action", "warning", index, jumps & ~acts,
        "|log return| exceeds ln(1.5) without a dividend or split in {count} sessions, the first on {first}",
        "used as given; look for a split that is not recorded",
    )  # fmt: skip
    report.add(
        "jump-with-action", "warning", index, jumps & acts,
        "|log return| exceeds ln(1.5) with the action counted in {count} sessions, the first on {first}",
        "used as given; the prices may already be adjusted for it",
    )  # fmt: skip
    repeats = np.zeros(returns.size, dtype=bool)
    opens, closes = _column(prices, "open"), _column(prices, "close")
    repeats[1:] = np.abs(opens[1:] - closes[:-1]) <= _TOLERANCE * closes[:-1]
    window = min(OPEN_WINDOW, returns.size - 1)
    if window > 0:
        share = np.lib.stride_tricks.sliding_window_view(repeats[1:], window).mean(axis=1).max()
        if share > 0.5:
            report.add(
                "open-is-previous-close", "warning", index, repeats,
                f"the open is the previous close in {{count}} of {{total}} sessions, first on {{first}}, "
                f"and in {share:.0%} of the worst {window}",
                "used as given; volatility estimators that use the open are invalid on those days",
            )  # fmt: skip


def _check_ranges(report: _Report, prices: pd.DataFrame) -> None:
    """Check the numbers of a session against each other; a NaN is outside nothing."""
    index = prices.index
    opens, high, low, close = (_column(prices, name) for name in ("open", "high", "low", "close"))
    crossed: _Mask = high < low * (1 - _TOLERANCE)
    report.add(
        "high-below-low", "warning", index, crossed,
        "the high is below the low in {count} sessions, the first on {first}",
        "used as given; range estimators are invalid on those days",
    )  # fmt: skip
    above = high * (1 + _TOLERANCE)
    below = low * (1 - _TOLERANCE)
    outside: _Mask = (close > above) | (close < below) | (opens > above) | (opens < below)
    report.add(
        "price-outside-range", "warning", index, outside & ~crossed,
        "the open or the close lies outside [low, high] in {count} sessions, the first on {first}",
        "used as given; range estimators are invalid on those days",
    )  # fmt: skip
    report.add(
        "negative-volume", "warning", index, _column(prices, "volume") < 0,
        "the volume is negative in {count} sessions, the first on {first}", "used as given",
    )  # fmt: skip


def _column(frame: pd.DataFrame, name: str) -> _Numbers:
    return frame[name].to_numpy(dtype=np.float64)


def _date(index: pd.Index, position: int) -> datetime.date:
    return pd.Timestamp(index[position]).date()


def _run_lengths(values: _Numbers) -> NDArray[np.int64]:
    """Length of the run of equal values that each value lies in."""
    if not values.size:
        return np.zeros(0, dtype=np.int64)
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    lengths = np.diff(np.r_[starts, values.size])
    return np.repeat(lengths, lengths)
