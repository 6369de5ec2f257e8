"""Series that are looked at as levels, such as rates: which of their rows can be used.

No return is taken of them, so that a value may be zero or negative and may move by any factor.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from forecaster.prices.checks import SEVERITIES, Finding, Inspection

__all__ = ["inspect_level"]

_HOLDING = ("infinite-number", "extra-session", "rejected")
"""Codes of rows that are held back of a level as well; the others judge prices."""


def inspect_level(symbol: str, frame: pd.DataFrame, settled: pd.Series[str] | None = None) -> Inspection:
    """Do as `forecaster.prices.checks.inspect`, for a series of which no return is taken.

    Parameters
    ----------
    symbol : str
        The symbol.
    frame : DataFrame of shape (n_sessions, 7)
        A price table; its close is the level. NaN is a missing value.
    settled : Series of str, optional
        Sessions that were judged before, with the codes for which they are held back. Of these an infinite
        number, a session that the exchange did not hold, and what somebody rejected still count.

    Returns
    -------
    Inspection
        Errors are a session that occurs twice, and fewer than two usable ones.
    """
    findings: list[Finding] = []

    def say(code: str, rows: pd.Index, message: str, action: str) -> None:
        days = tuple(pd.DatetimeIndex(rows).date)
        first = days[0] if days else None
        findings.append(Finding(symbol, code, SEVERITIES[code], len(days), first, message, action, days))

    close = frame["close"].to_numpy(dtype=np.float64)
    twice = frame.index[frame.index.duplicated()]
    if len(twice):
        text = f"sessions must be unique; {twice[0].date()} occurs more than once"
        say("duplicate-session", twice, text, "keep one row a session")
    codes = np.where(np.isinf(close), "infinite-number", "").astype(object)
    if settled is not None:
        before = settled.groupby(level=0).first().reindex(frame.index).fillna("")
        named = [",".join(part for part in text.split(",") if part in _HOLDING) for text in before]
        codes = np.where(codes == "", np.array(named, dtype=object), codes)
    held = codes != ""
    for code in _HOLDING:
        rows = frame.index[[code in text.split(",") for text in codes]]
        if len(rows):
            text = f"{len(rows)} values of a level cannot be used, the first on {rows[0].date()}"
            say(code, rows, text, "the session is quarantined")
    usable = ~held & ~np.isnan(close)
    if usable.sum() < 2:
        text = f"a series that is looked at has at least two values; it has {int(usable.sum())}"
        say("too-short", frame.index[:0], text, "give a longer history, or leave the covariate out")
    missing = frame.index[np.isnan(close) & ~held]
    if len(missing):
        text = f"{len(missing)} of {len(frame)} sessions have no close, the first on {missing[0].date()}"
        say("no-close", missing, text, "they are left out")
    quarantined = frame.loc[held].assign(codes=pd.Series(codes[held], frame.index[held], dtype="str"))
    order = list(SEVERITIES)
    findings.sort(key=lambda each: order.index(each.code))
    return Inspection(frame.loc[usable], quarantined, tuple(findings))
