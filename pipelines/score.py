"""Record what happened, and score the forecasts of it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from forecaster.returns import forward_returns

if TYPE_CHECKING:
    from forecaster.ledger import Step
    from forecaster.windows import Panel
    from pipelines.evening import Evening

__all__ = ["known_outcomes", "score_step"]

PATIENCE = 66
"""Sessions after the longest horizon for which an outcome is waited for: a symbol may be traded no more."""


def score_step(evening: Evening, step: Step) -> None:
    """Record the outcomes that are known by an evening; forecasts are not touched."""
    job, data = evening.job, evening.data
    # Two days a session are more than any exchange takes.
    since = evening.as_of - timedelta(days=2 * (max(job.horizons) + PATIENCE))
    pending = evening.ledger.pending_outcomes(job.name, since=since)
    known = known_outcomes(data.panel, pending)
    step.note(data_version=data.data_version)
    if known.empty:
        step.skip(f"no outcome of {len(pending)} awaited is known yet")
        return
    done = evening.ledger.record_outcomes(job.name, known, data_version=data.data_version)
    step.note(reason=f"{done.outcomes} outcomes, {done.scores} scores; {len(pending) - len(known)} awaited")


def known_outcomes(panel: Panel, pending: pd.DataFrame) -> pd.DataFrame:
    """Find the outcomes that a panel knows.

    Parameters
    ----------
    panel : Panel
    pending : DataFrame
        ``symbol, origin, horizon``, as `forecaster.ledger.Ledger.pending_outcomes` gives them.

    Returns
    -------
    DataFrame
        ``symbol, origin, horizon, target, y`` of those that are known: the log return cumulated over the
        sessions after the origin, and the last of these sessions. An origin that the panel does not have, and
        one whose sessions are not all there yet, is left out.
    """
    parts = []
    places = dict(zip(panel.symbols, panel.parts, strict=True))
    for symbol, rows in pending.groupby("symbol"):
        if symbol not in places:
            continue
        part = places[str(symbol)]
        sessions = panel.sessions[part]
        horizons = sorted(set(rows["horizon"].tolist()))
        ahead = forward_returns(panel.returns[part], horizons)
        origin = rows["origin"].to_numpy().astype("datetime64[D]")
        row = np.searchsorted(sessions, origin)
        there = row < len(sessions)
        there[there] = sessions[row[there]] == origin[there]
        column = np.searchsorted(horizons, rows["horizon"].to_numpy())
        last = row + rows["horizon"].to_numpy()
        there &= last < len(sessions)
        found = rows[there]
        y = ahead[row[there], column[there]]
        target = sessions[last[there]].astype("datetime64[ms]")
        parts.append(found.assign(target=target, y=y)[np.isfinite(y)])
    columns = ["symbol", "origin", "horizon", "target", "y"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
