"""The panel of a job: its prices with its calendars, its market, its covariates and its portfolios."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster.errors import DataError, JobError, ParameterError
from forecaster.job.settings import Job
from forecaster.prices.base import did_you_mean
from forecaster.returns import portfolio_prices
from forecaster.windows import Panel

__all__ = ["lay_out"]

Frames = Mapping[str, pd.DataFrame]


def lay_out(job: Job, frames: Frames, minimum_sessions: int) -> tuple[Panel, dict[str, str]]:
    """Lay checked prices out as the panel that the models of a job see.

    Parameters
    ----------
    job : Job
    frames : mapping of str to DataFrame
        Checked prices of each symbol that has any.
    minimum_sessions : int
        Sessions that each portfolio needs.

    Returns
    -------
    panel : Panel
    failures : dict of str to str
        Portfolios that are left out, and why.

    Raises
    ------
    DataError
        If a covariate has no prices that can be used, or a portfolio has the name of a symbol.
    JobError
        If it is not known which of several symbols closes first.
    ParameterError
        As `Panel.from_prices`.
    """
    for symbol in job.covariates:
        if symbol not in frames:
            raise DataError(
                f"the covariate {symbol} has no prices that can be used, and models would be others without "
                f"it{did_you_mean(symbol, frames)}; supply them, or take it out of `covariates`"
            )
    made: dict[str, pd.DataFrame] = {}
    failures: dict[str, str] = {}
    for name, weights in job.portfolios.items():
        if name in frames:
            raise DataError(f"the portfolio {name} has the name of a symbol; give it another")
        absent = [member for member in weights if member not in frames]
        if absent:
            near = did_you_mean(absent[0], frames)
            failures[name] = f"its members have no prices that can be used: {', '.join(absent)}{near}"
            continue
        try:
            table = portfolio_prices(frames, weights, job.returns)
        except ParameterError as error:
            failures[name] = str(error)
            continue
        if len(table) < minimum_sessions:
            failures[name] = (
                f"a portfolio needs at least {minimum_sessions} sessions on which all members have a close; "
                f"it has {len(table)}"
            )
            continue
        made[name] = table
    closings, one_close = _closings(job, frames, made)
    panel = Panel.from_prices(
        {**frames, **made},
        job.returns,
        job.market,
        closings,
        job.variance,
        job.covariates,
        one_close,
        made,
    )
    return replace(panel, learn_from=job.backtest.learn_from), failures


def _closings(
    job: Job, frames: Frames, made: Frames
) -> tuple[dict[str, NDArray[np.datetime64]] | None, bool]:
    """Tell when sessions closed, and whether those of all but covariates close together.

    Where nothing says that symbols close at different times, nothing is asked of calendars.
    """
    known = set(frames) if job.prices.kind == "yahoo" else set(job.calendars) & set(frames)
    if not known:
        return None, False
    from forecaster.calendars import Calendars

    calendars = Calendars(job.calendars)
    together = calendars.same(known)
    unknown = sorted(set(frames) - known)
    if unknown and (not together or job.covariates):
        raise JobError(
            "calendars: which session a forecast has seen depends on which closed first, so that either all "
            f"symbols or none have a calendar. Received: none for {', '.join(unknown)}; name theirs"
        )
    if together:
        return None, False
    moments = {symbol: calendars.closings(symbol, _days(frame)) for symbol, frame in frames.items()}
    for name, table in made.items():
        members = [
            pd.Series(moments[member], frames[member].index).reindex(table.index).to_numpy()
            for member in job.portfolios[name]
        ]
        moments[name] = np.max(np.stack(members), axis=0)
    return moments, calendars.same(symbol for symbol in frames if symbol not in job.covariates)


def _days(frame: pd.DataFrame) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(frame.index)
