"""What makes prices usable, and what is said about them.

Every check has a stable code. Nothing is repaired. A row that cannot be true, or cannot be used, is
quarantined: it is left out, named with its reason, and the symbol goes on. Whether a row is quarantined
depends on the rows up to it and on nothing after, so that a forecast does not change with what comes later.

======================= ========== ===================================================================
code                    severity   what it says
======================= ========== ===================================================================
duplicate-session       error      a session occurs twice: which one is true cannot be known
too-many-quarantined    error      more rows are quarantined than a symbol may have
constant-series         error      the return is zero throughout: there is nothing to forecast
too-short               error      fewer usable sessions than needed
infinite-number         quarantine a number is infinite
non-positive-price      quarantine a price is zero or negative: no log return exists there
invalid-split           quarantine a split ratio is not a positive number
invalid-dividend        quarantine a dividend is negative or not a number
extra-session           quarantine the exchange did not hold the session, and nothing was traded in it
split-mismatch          quarantine the close did not move as the recorded split says
unit-slip               quarantine the close is about 100 times, or a hundredth of, the one before
dividend-out-of-scale   quarantine the close did not fall as so large a dividend says
rejected                quarantine somebody rejected the session, for the reason that is named
missing-session         warning    the exchange held a session that has no row
traded-extra-session    warning    the exchange did not hold the session, but something was traded in it
action-without-close    warning    a dividend or split without a usable close: the next session counts it
zero-open               warning    the open is zero, as some feeds write where none is known
high-below-low          warning    the high of a session is below its low
price-outside-range     warning    an open or a close lies outside [low, high]
negative-volume         warning    a volume is negative
zero-volume             warning    nothing was traded, although on most sessions something is
stale-close             warning    ten or more sessions in a row have the same close
jump-without-action     warning    |log return| exceeds ln(1.5), and no dividend or split says why
split-missing           warning    such a jump is close to the ratio of a split
jump-with-action        warning    |log return| exceeds ln(1.5) with the session's dividend counted
open-is-previous-close  warning    on most days of some 250 sessions the open is the close before it
return-over-gap         info       the return spans quarantined sessions and counts as one session's
no-close                info       sessions without a close (holidays), left out
======================= ========== ===================================================================

A dividend or split of a session that cannot be used is not lost: the next usable session counts it, so that
its return is what a holder earned between the two closes. Where the action itself is wrong, it is left out.
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
from forecaster.prices.screening import (
    IMPOSSIBLE,
    JUMP,
    PRICE_COLUMNS,
    TOLERANCE,
    Mask,
    Screening,
    row_faults,
    screen,
)
from forecaster.returns import log_returns

__all__ = [
    "IMPOSSIBLE",
    "PRICE_COLUMNS",
    "SEVERITIES",
    "Finding",
    "Inspection",
    "Severity",
    "check",
    "failure_reason",
    "inspect",
]

STALE_RUN = 10
"""Identical closes in a row from which a run is called stale."""

OPEN_WINDOW = 250
"""Sessions over which the share of opens equal to the previous close is taken."""

QUARANTINE_SHARE, QUARANTINE_ROWS = 0.05, 3
"""Share of its rows that a symbol may have in quarantine, and the number that is always allowed."""

SPLIT_RATIOS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0)
"""Ratios that splits have, new shares per old; reverse splits have the inverse."""

SPLIT_ROOM = 0.03
"""How far the log return of a jump may lie from that of a split to be called close to it."""

Severity = Literal["info", "warning", "quarantine", "error"]

SEVERITIES: dict[str, Severity] = {
    **dict.fromkeys(("duplicate-session", "too-many-quarantined", "constant-series", "too-short"), "error"),
    **dict.fromkeys(IMPOSSIBLE, "quarantine"),
    **dict.fromkeys(("extra-session", "split-mismatch", "unit-slip"), "quarantine"),
    **dict.fromkeys(("dividend-out-of-scale", "rejected"), "quarantine"),
    **dict.fromkeys(("missing-session", "traded-extra-session", "action-without-close"), "warning"),
    **dict.fromkeys(("zero-open", "high-below-low", "price-outside-range", "negative-volume"), "warning"),
    **dict.fromkeys(("zero-volume", "stale-close", "jump-without-action", "split-missing"), "warning"),
    **dict.fromkeys(("jump-with-action", "open-is-previous-close"), "warning"),
    **dict.fromkeys(("return-over-gap", "no-close"), "info"),
}
"""The checks in the order in which they are reported, and how serious each is."""

_Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is known about the prices of a symbol.

    Parameters
    ----------
    symbol : str
        The symbol.
    code : str
        Stable name of the check, from the table at the top of this module, or ``not-loaded``.
    severity : {"info", "warning", "quarantine", "error"}
        With an error the symbol is left out; with ``quarantine`` the rows are, and the symbol goes on.
    sessions : int
        Number of sessions concerned.
    first_session : date or None
        The first of them, where there is one.
    message : str
        The rule and what was found, in one line.
    action : str
        What was done, or what to do.
    rows : tuple of date
        The sessions concerned; empty where it is the symbol as a whole.
    """

    symbol: str
    code: str
    severity: Severity
    sessions: int
    first_session: datetime.date | None
    message: str
    action: str
    rows: tuple[datetime.date, ...] = ()

    @property
    def reason(self) -> str:
        """Message and action in one line."""
        return f"{self.message}; {self.action}"


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """What the checks made of the prices of a symbol.

    Parameters
    ----------
    prices : DataFrame of shape (n_usable, 7)
        The sessions with a close that are not quarantined; as given, but for a dividend or split carried from
        a session before that cannot be used. Beside an error they are not fit for use.
    quarantined : DataFrame of shape (n_quarantined, 8)
        The quarantined rows as given, and their ``codes``, joined by commas.
    findings : tuple of Finding
        In the order of the table at the top of this module.
    """

    prices: pd.DataFrame
    quarantined: pd.DataFrame
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> list[Finding]:
        """The findings for which the symbol is left out."""
        return [finding for finding in self.findings if finding.severity == "error"]


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
        Usable sessions that are needed at least.

    Returns
    -------
    prices : DataFrame of shape (n_usable, 7)
        As in `Inspection`.
    findings : tuple of Finding
        In the order of the table above; none of them an error.

    Raises
    ------
    SymbolError
        If any check is an error; the first is told in full, the others by code.
    ParameterError
        If `frame` is not a price table, or `minimum_sessions` is below 1.
    """
    inspection = inspect(symbol, frame, minimum_sessions)
    if inspection.errors:
        raise SymbolError(symbol, failure_reason(inspection.errors))
    return inspection.prices, inspection.findings


def failure_reason(errors: list[Finding]) -> str:
    """One line for why a symbol is left out: the first error in full, the others by code."""
    others = ", ".join(finding.code for finding in errors[1:])
    return errors[0].reason + (f" (also: {others})" if others else "")


def inspect(
    symbol: str,
    frame: pd.DataFrame,
    minimum_sessions: int,
    off_calendar: tuple[pd.DatetimeIndex, pd.DatetimeIndex] | None = None,
    settled: pd.Series[str] | None = None,
) -> Inspection:
    """Do as `check`, but return the errors among the findings instead of raising the first.

    Parameters
    ----------
    symbol, frame, minimum_sessions
        As in `check`.
    off_calendar : tuple of two DatetimeIndex, optional
        The sessions of the exchange that have no row, and the rows on days that were no session, as
        `forecaster.calendars.Calendars.missing_and_extra` gives them. Without it neither is looked for.
    settled : Series of str, optional
        Sessions that were judged before: empty where the row was accepted, otherwise the codes for which it
        is held back, joined by commas. They are not judged again, but for a number that is impossible.

    Raises
    ------
    ParameterError
        As `check`.
    """
    _require_table(frame, minimum_sessions)
    report = _Report(symbol, frame.index)
    faults = row_faults(frame)
    trusted, before = _settled(frame.index, settled)
    missing, extra_days = off_calendar or (frame.index[:0], frame.index[:0])
    extra: Mask = frame.index.isin(extra_days)
    idle = extra & ~(_column(frame, "volume") > 0) & ~trusted
    codes = _codes(faults, before, idle)
    screening = screen(frame, codes, trusted)
    _say_structure(report, frame, faults, screening, minimum_sessions)
    _say_quarantined(report, frame, faults, screening)
    _say_calendar(report, missing, extra & screening.usable)
    _say_actions(report, frame, screening)
    _say_rows(report, faults, screening)
    # The checks along time compare neighbours, which is meaningless while the rows themselves are wrong.
    if not report.has_errors:
        _say_series(report, screening.prices)
    _say_gaps(report, frame, screening)
    quarantined = frame.loc[screening.held]
    codes_held = [",".join(each) for each in screening.codes if each] if len(quarantined) else []
    quarantined = quarantined.assign(codes=pd.Series(codes_held, quarantined.index, dtype="str"))
    order = {code: place for place, code in enumerate(SEVERITIES)}
    return Inspection(
        screening.prices, quarantined, tuple(sorted(report.findings, key=lambda each: order[each.code]))
    )


class _Report:
    """Collects the findings of one symbol."""

    def __init__(self, symbol: str, index: pd.Index) -> None:
        self.symbol, self.index = symbol, index
        self.findings: list[Finding] = []

    @property
    def has_errors(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)

    def say(
        self, code: str, sessions: int, message: str, action: str, rows: tuple[datetime.date, ...] = ()
    ) -> None:
        first = rows[0] if rows else None
        self.findings.append(
            Finding(self.symbol, code, SEVERITIES[code], sessions, first, message, action, rows)
        )

    def add(self, code: str, where: Mask, message: str, action: str, index: pd.Index | None = None) -> None:
        """Say `message` of the sessions `where`, if any; {first}, {count} and {total} are filled in."""
        if not where.any():
            return
        days = self.index if index is None else index
        rows = _dates(days[where])
        if rows:
            text = message.format(first=rows[0], count=len(rows), total=len(days))
            self.say(code, len(rows), text, action, rows)


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


def _settled(index: pd.Index, settled: pd.Series[str] | None) -> tuple[Mask, list[str]]:
    """Give the rows that were judged before, and the codes for which they are held back."""
    if settled is None:
        return np.zeros(len(index), dtype=bool), [""] * len(index)
    known = settled if settled.index is index else settled.reindex(index)
    return known.notna().to_numpy(), known.fillna("").tolist()


def _codes(faults: dict[tuple[str, str], Mask], before: list[str], idle: Mask) -> list[tuple[str, ...]]:
    """Give the codes for which each row is held back before it is compared with others."""
    codes: list[tuple[str, ...]] = [()] * len(before)
    if any(before):
        codes = [_split(text) for text in before]
    masks = [(code, mask) for (code, _), mask in faults.items() if code in IMPOSSIBLE]
    for code, mask in [*masks, ("extra-session", idle)]:
        for row in np.flatnonzero(mask):
            if code not in codes[row]:
                codes[row] = (*codes[row], code)
    return codes


def _split(text: str) -> tuple[str, ...]:
    """Divide what a row is held back for: codes and, after them, the words of whoever rejected it."""
    parts = text.split(",") if text else []
    ours = next((place for place, part in enumerate(parts) if part not in SEVERITIES), len(parts))
    return (*parts[:ours], *([",".join(parts[ours:])] if ours < len(parts) else []))


def _say_structure(
    report: _Report,
    frame: pd.DataFrame,
    faults: dict[tuple[str, str], Mask],
    screening: Screening,
    minimum_sessions: int,
) -> None:
    """Say for what the symbol as a whole is left out."""
    nothing = np.zeros(len(frame), dtype=bool)
    report.add(
        "duplicate-session", faults.get(("duplicate-session", "session"), nothing),
        "sessions must be unique; {first} occurs more than once ({count} rows too many)",
        "keep one row a session",
    )  # fmt: skip
    held = int(screening.held.sum())
    allowed = max(QUARANTINE_ROWS, math.floor(QUARANTINE_SHARE * len(frame)))
    if held > allowed:
        counts = pd.Series([code for codes in screening.codes for code in codes]).value_counts(sort=True)
        named = ", ".join(f"{code} {count}" for code, count in counts.items())
        report.say(
            "too-many-quarantined", held,
            f"at most {allowed} of {len(frame)} rows may be quarantined; {held} are ({named})",
            "correct them at the source", _dates(frame.index[screening.held]),
        )  # fmt: skip
    usable = int(screening.usable.sum())
    if usable < minimum_sessions:
        report.say(
            "too-short", usable,
            f"a symbol needs at least {minimum_sessions} sessions with a close; it has {usable}",
            "give a longer history, or ask for less",
        )  # fmt: skip


_IMPOSSIBLE_TEXTS = {
    "infinite-number": "`{column}` must be finite; it is infinite on {{first}} ({{count}} in all)",
    "non-positive-price": "`{column}` must be positive, as no log return exists otherwise; it is {value} on "
    "{{first}} ({{count}} in all)",
    "invalid-split": "`split` is new shares per old and must be positive; it is {value} on {{first}} "
    "({{count}} in all)",
    "invalid-dividend": "`dividend` must be at least 0; it is {value} on {{first}} ({{count}} in all)",
}
_JUDGED_TEXTS = {
    "extra-session": "the exchange held no session on {first} ({count} such rows), and nothing was traded",
    "split-mismatch": "the close must move as the split of its session says; on {first} it does not "
    "({count} in all)",
    "unit-slip": "the close is about 100 times, or a hundredth of, the last one on {first} ({count} in all), "
    "as pence for pounds",
    "dividend-out-of-scale": "the close falls by about the dividend on its ex-date; on {first} it does not "
    "({count} in all)",
}
_LEFT_OUT = "the session is quarantined"


def _say_quarantined(
    report: _Report,
    frame: pd.DataFrame,
    faults: dict[tuple[str, str], Mask],
    screening: Screening,
) -> None:
    for (code, column), mask in faults.items():
        if code in IMPOSSIBLE:
            value = f"{_column(frame, column)[np.argmax(mask)]:g}"
            report.add(code, mask, _IMPOSSIBLE_TEXTS[code].format(column=column, value=value), _LEFT_OUT)
    if not screening.held.any():
        return
    for code, text in _JUDGED_TEXTS.items():
        report.add(code, np.array([code in codes for codes in screening.codes], dtype=bool), text, _LEFT_OUT)
    # A code that is none of ours is the reason that somebody gave.
    reasons = [[code for code in codes if code not in SEVERITIES] for codes in screening.codes]
    named = sorted({reason for each in reasons for reason in each})
    report.add(
        "rejected", np.array([bool(each) for each in reasons], dtype=bool),
        f"{{count}} sessions were rejected, the first on {{first}}: {'; '.join(named)}",
        "left out; `forecaster data accept` takes one back",
    )  # fmt: skip


def _say_calendar(report: _Report, missing: pd.Index, extra: Mask) -> None:
    report.add(
        "missing-session", np.ones(len(missing), dtype=bool),
        "{count} sessions of the exchange have no row, the first on {first}",
        "the return after them counts as one session's", missing,
    )  # fmt: skip
    report.add(
        "traded-extra-session", extra,
        "the exchange held no session on {first} ({count} such rows), but something was traded",
        "used as given; look whether the calendar is the right one",
    )  # fmt: skip


def _say_actions(report: _Report, frame: pd.DataFrame, screening: Screening) -> None:
    report.add(
        "action-without-close", screening.carried,
        "a dividend or split needs a usable close in its session; {first} has none ({count} in all)",
        "the next session counts it",
    )  # fmt: skip


def _say_rows(report: _Report, faults: dict[tuple[str, str], Mask], screening: Screening) -> None:
    """Say what is odd about the numbers of single usable sessions."""
    texts = {
        ("zero-open", "open"): (
            "the open is zero in {count} sessions, the first on {first}",
            "used as given; volatility estimators that use the open are invalid on those days",
        ),
        ("high-below-low", ""): (
            "the high is below the low in {count} sessions, the first on {first}",
            "used as given; range estimators are invalid on those days",
        ),
        ("price-outside-range", ""): (
            "the open or the close lies outside [low, high] in {count} sessions, the first on {first}",
            "used as given; range estimators are invalid on those days",
        ),
        ("negative-volume", "volume"): (
            "the volume is negative in {count} sessions, the first on {first}",
            "used as given",
        ),
    }
    for (code, column), (message, action) in texts.items():
        if (code, column) in faults:
            report.add(code, faults[code, column] & screening.usable, message, action)


def _say_series(report: _Report, prices: pd.DataFrame) -> None:
    """Check each session against the ones before it; every number is already known to be sound."""
    index = prices.index
    returns = log_returns(prices)
    acts = (_column(prices, "dividend") != 0) | (_column(prices, "split") != 1)
    with np.errstate(invalid="ignore"):
        jumps: Mask = np.abs(returns) > JUMP
    if returns.size > 1 and bool((np.abs(log_returns(prices, "price")[1:]) < 1e-12).all()):
        report.say(
            "constant-series", returns.size,
            f"the price must change; it is {_column(prices, 'close')[0]:g} in all {returns.size} sessions",
            "leave the symbol out: there is nothing to forecast",
        )  # fmt: skip
        return
    volume = _column(prices, "volume")
    if (volume > 0).sum() > 0.5 * volume.size:
        report.add(
            "zero-volume", volume == 0,
            "nothing was traded in {count} sessions, the first on {first}",
            "used as given; the close may be an old one", index,
        )  # fmt: skip
    run = _run_lengths(_column(prices, "close"))
    longest = int(run.max(initial=0))
    report.add(
        "stale-close", run >= STALE_RUN,
        f"{{count}} sessions lie in runs of {STALE_RUN} or more identical closes, the longest of {longest}, "
        "the first from {first}",
        "used as given; a halted or illiquid instrument looks calmer than it is", index,
    )  # fmt: skip
    report.add(
        "jump-without-action", jumps & ~acts,
        "|log return| exceeds ln(1.5) without a dividend or split in {count} sessions, the first on {first}",
        "used as given; look for a split that is not recorded", index,
    )  # fmt: skip
    ratios = np.log(SPLIT_RATIOS)
    with np.errstate(invalid="ignore"):
        near = np.abs(np.abs(returns)[:, None] - ratios).min(axis=1, initial=np.inf) < SPLIT_ROOM
    report.add(
        "split-missing", jumps & ~acts & near,
        "the close moves by the ratio of a split, and none is recorded, in {count} sessions, the first on "
        "{first}",
        "used as given; record the split if there was one", index,
    )  # fmt: skip
    report.add(
        "jump-with-action", jumps & acts,
        "|log return| exceeds ln(1.5) with the action counted in {count} sessions, the first on {first}",
        "used as given; the prices may already be adjusted for it", index,
    )  # fmt: skip
    repeats = np.zeros(returns.size, dtype=bool)
    opens, closes = _column(prices, "open"), _column(prices, "close")
    repeats[1:] = np.abs(opens[1:] - closes[:-1]) <= TOLERANCE * closes[:-1]
    window = min(OPEN_WINDOW, returns.size - 1)
    if window > 0:
        counts = np.concatenate([[0], np.cumsum(repeats[1:])])
        share = (counts[window:] - counts[:-window]).max() / window
        if share > 0.5:
            report.add(
                "open-is-previous-close", repeats,
                f"the open is the previous close in {{count}} of {{total}} sessions, first on {{first}}, "
                f"and in {share:.0%} of the worst {window}",
                "used as given; volatility estimators that use the open are invalid on those days", index,
            )  # fmt: skip


def _say_gaps(report: _Report, frame: pd.DataFrame, screening: Screening) -> None:
    held, usable = screening.held, screening.usable
    since = np.zeros(len(frame), dtype=bool)
    if usable.any():
        # Held rows up to each usable one, less those up to the usable one before it.
        passed = np.cumsum(held)[usable]
        since[usable] = np.diff(passed, prepend=passed[0]) > 0
    report.add(
        "return-over-gap", since,
        "{count} returns span quarantined sessions, the first on {first}",
        "each is that between the closes beside the gap and counts as one session's",
    )  # fmt: skip
    report.add(
        "no-close", np.isnan(_column(frame, "close")) & ~held,
        "{count} of {total} sessions have no close, the first on {first}", "they are left out",
    )  # fmt: skip


def _dates(index: pd.Index) -> tuple[datetime.date, ...]:
    return tuple(pd.DatetimeIndex(index).date)


def _column(frame: pd.DataFrame, name: str) -> _Numbers:
    return frame[name].to_numpy(dtype=np.float64)


def _run_lengths(values: _Numbers) -> NDArray[np.int64]:
    """Length of the run of equal values that each value lies in."""
    if not values.size:
        return np.zeros(0, dtype=np.int64)
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    lengths = np.diff(np.r_[starts, values.size])
    return np.repeat(lengths, lengths)
