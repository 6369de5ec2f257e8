"""Look at an evening and at the record so far: every check, its state and its reason, in the ledger.

When the coverage of the champion breaks it is calibrated adaptively from the next evening on; when it breaks
all the same, the best baseline takes its place. Both are recorded as changes of the model in use, and nothing
but a promotion, a rollback or a recovery ends them.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster.errors import DataError, SymbolError
from forecaster.features import ewma_volatility, expanding_mean
from forecaster.job import Job
from forecaster.monitoring import (
    Check,
    Remedy,
    coverage_check,
    crps_check,
    drift_check,
    missing_check,
    remedy,
    runtime_check,
    stale_check,
)
from pipelines.loading import JobData, job_calendars

if TYPE_CHECKING:
    from forecaster.ledger import Ledger, Step
    from forecaster.windows import Panel
    from pipelines.evening import Evening

__all__ = ["Watched", "features", "monitor_evening", "monitor_step", "read_promise"]

LOOKED_AT = 2583
"""Sessions that drift is looked for in: ten years, and a quarter that is compared with them."""

SAMPLED = 500
"""Symbols that are enough to see whether the inputs of all have drifted."""

USUAL = 30
"""Evenings that the usual time of a step is taken from."""


@dataclass(frozen=True)
class Watched:
    """The model that is watched.

    Parameters
    ----------
    model, version : str
        Name of the model in use, and its version.
    baseline : str or None
        The best baseline, issued beside it; None where that is itself.
    promise : DataFrame or None
        What the backtest promised by which it was judged: `forecaster.monitoring.promise_table`.
    """

    model: str
    version: str
    baseline: str | None = None
    promise: pd.DataFrame | None = None


def monitor_step(evening: Evening, step: Step) -> None:
    """Check an evening, record what was found, and switch on what helps where the coverage broke."""
    try:
        data = evening.data
    except DataError as error:
        # Prices that cannot be read at all are what the alert is about.
        data, why = None, str(error)
    else:
        why = ""
    from pipelines.champion import in_use

    model, version, baseline, folder = in_use(evening)
    watched = Watched(model, version, baseline, read_promise(folder)) if model else None
    checks = monitor_evening(
        evening.job, evening.ledger, evening.as_of, watched, data, evening.clock(), evening.failures
    )
    if data is None:
        checks = (*checks, _recorded(evening, Check("stale", "fail", f"there are no prices: {why}")))
    said = "; ".join(f"{check.name} {check.state}: {check.reason}" for check in checks if check.state != "ok")
    step.note(reason=said or f"{len(checks)} checks are ok")


def _recorded(evening: Evening, check: Check) -> Check:
    evening.ledger.record_alert(
        evening.job.name, as_of=evening.as_of, check=check.name, state=check.state, reason=check.reason
    )
    return check


def monitor_evening(
    job: Job,
    ledger: Ledger,
    as_of: datetime.date,
    watched: Watched | None,
    data: JobData | None,
    now: datetime.datetime,
    failures: dict[str, str] | None = None,
) -> tuple[Check, ...]:
    """Make the checks of an evening and record them.

    Parameters
    ----------
    job : Job
    ledger : Ledger
        Holds the record, the steps of the evening and the changes of the model in use.
    as_of : date
        The evening.
    watched : Watched or None
        The model in use; None where none that was fitted by the evening is registered.
    data : JobData or None
        Its prices; None where they could not be loaded, so that they are not checked.
    now : datetime
        The time: sessions that are not over are not missing.
    failures : dict of str to str, optional
        Symbols that failed on the evening, and why.

    Returns
    -------
    tuple of Check
        In the order in which they are recorded.
    """
    settings = job.monitoring
    status = ledger.status(job.name, evenings=USUAL + 1, as_of=as_of)
    checks: list[Check] = []
    if watched is None:
        said = "no registered model was fitted by this evening, so that there is no promise to hold"
        checks.append(Check("coverage", "ok", said))
    else:
        checks += _promises(job, ledger, as_of, watched)
    if data is not None:
        checks.append(drift_check(features(data.panel), recent=settings.recent))
        total = len(data.prices.frames) + len(data.prices.failures)
        behind = _behind(job, data, as_of, now)
        checks.append(stale_check(behind, total, minimum_coverage=job.minimum_coverage))
        missing = {**data.prices.failures, **(failures or {})}
        checks.append(missing_check(missing, max(total, len(missing)), minimum_coverage=job.minimum_coverage))
    elapsed, seconds, before = _seconds(status, as_of)
    checks.append(runtime_check(seconds, before, total=elapsed, longest=settings.longest_seconds))
    for check in checks:
        ledger.record_alert(job.name, as_of=as_of, check=check.name, state=check.state, reason=check.reason)
    return tuple(checks)


def _promises(job: Job, ledger: Ledger, as_of: datetime.date, used: Watched) -> list[Check]:
    """Check coverage and CRPS since the last change of what is used, and help where coverage broke."""
    settings = job.monitoring
    now = remedy(ledger.model_events(job.name))
    start = now.since + datetime.timedelta(days=1) if now.since else None
    daily = ledger.track_record(job.name, start=start, end=as_of, by_origin=True)
    # Calibrated forecasts are held to their levels.
    promise = None if now.calibrate else used.promise
    coverage = coverage_check(
        daily, promise, used.model, alpha=settings.alpha, tolerance=settings.coverage_tolerance
    )
    if coverage.state == "fail":
        done = _help(job, ledger, as_of, used, coverage, now)
        coverage = replace(coverage, reason=f"{coverage.reason}; {done}")
    crps = crps_check(
        daily,
        used.promise,
        used.model,
        used.baseline,
        alpha=settings.alpha,
        tolerance=settings.crps_tolerance,
    )
    return [coverage, crps]


def _help(job: Job, ledger: Ledger, as_of: datetime.date, used: Watched, broken: Check, now: Remedy) -> str:
    """Switch on what helps a model whose coverage broke, beyond what is in force; say what was done."""
    if not job.monitoring.remedies:
        return "nothing is done about it, as the job says"
    if now.fallback is not None:
        return f"the fallback {now.fallback} is in use already: train, or promote, another model"
    if not now.calibrate:
        event, model, version = "calibration", used.model, used.version
        done = f"{used.model} is calibrated adaptively from the next evening on"
    elif used.baseline is None:
        return "it is calibrated already, and no baseline could take its place"
    else:
        event, model, version = "fallback", used.baseline, ""
        done = f"{used.baseline} takes its place from the next evening on"
    ledger.record_model_event(
        job.name, as_of=as_of, event=event, model=model, version=version, reason=broken.reason
    )
    return done


def read_promise(folder: Path | None) -> pd.DataFrame | None:
    """Read what a backtest promised; None where its folder has no such file."""
    if folder is None or not (folder / "promise.csv").is_file():
        return None
    # A model may be named NA; only a number can be missing.
    missing = {"value": [""], "standard_error": [""]}
    text = {"model": str, "metric": str, "against": str}
    return pd.read_csv(folder / "promise.csv", dtype=text, keep_default_na=False, na_values=missing)


def features(panel: Panel) -> dict[str, NDArray[np.float64]]:
    """Lay out what drift is looked for in: scale-free numbers by session and symbol.

    Returns
    -------
    dict of str to ndarray of shape (n_sessions, n_symbols)
        The last `LOOKED_AT` sessions: the size of returns over the volatility of the day before, and the
        logarithm of the volatility over the mean size since the start; NaN where a symbol has no session. Of
        more than `SAMPLED` symbols as many, evenly spaced.
    """
    calendar = panel.calendar[-LOOKED_AT:]
    count = len(panel.symbols)
    chosen = np.unique(np.linspace(0, count - 1, min(count, SAMPLED)).round().astype(np.int64))
    size = np.full((len(calendar), len(chosen)), np.nan)
    level = np.full_like(size, np.nan)
    for column, number in enumerate(chosen.tolist()):
        part = panel.parts[number]
        returns = panel.returns[part]
        volatility = ewma_volatility(returns)
        ordinary = np.maximum(expanding_mean(np.abs(returns)), 1e-8)
        before = np.concatenate([[np.nan], volatility[:-1]])
        shown = panel.sessions[part] >= calendar[0]
        rows = np.searchsorted(calendar, panel.sessions[part][shown])
        size[rows, column] = (np.abs(returns) / before)[shown]
        level[rows, column] = np.log(volatility / ordinary)[shown]
    return {"the size of returns": size, "volatility": level}


def _behind(job: Job, data: JobData, as_of: datetime.date, now: datetime.datetime) -> dict[str, int]:
    """Count the sessions that symbols lack up to the evening, of those that are over."""
    calendars = job_calendars(job)
    found = {}
    for symbol, frame in data.prices.frames.items():
        last = frame.index[-1].date()
        lacking = int((data.panel.calendar > np.datetime64(last, "D")).sum())
        if calendars is not None and job.has_calendar(symbol):
            try:
                until = min(as_of, calendars.last_finished_session(symbol, now))
            except SymbolError:
                continue
            lacking = len(calendars.known_sessions(symbol, last + datetime.timedelta(days=1), until))
        if lacking:
            found[symbol] = lacking
    return found


def _seconds(status: pd.DataFrame, as_of: datetime.date) -> tuple[float, dict[str, float], pd.DataFrame]:
    """Seconds of all attempts of an evening, of each step that was done, and of those of evenings before."""
    ended = status[status["finished_at"].notna() & status["started_at"].notna()]
    took = (ended["finished_at"] - ended["started_at"]).dt.total_seconds()
    table = ended[["step", "as_of", "status"]].assign(seconds=took)
    tonight = table["as_of"] == str(as_of)
    done = table["status"] == "done"
    seconds = table[tonight & done].groupby("step", sort=False)["seconds"].sum()
    before = table.loc[(table["as_of"] < str(as_of)) & done, ["step", "seconds"]]
    return (
        float(table.loc[tonight, "seconds"].sum()),
        {str(step): float(value) for step, value in seconds.items()},
        before,
    )
