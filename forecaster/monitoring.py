"""Whether a model in use keeps its promise, and whether its prices do: checks for every evening.

A test that is looked at daily and stops at its first rejection rejects sooner or later. The tests of coverage
and of CRPS here are *e-processes*: bets against the hypothesis that the promise is kept, at fair odds or
worse. Whoever bets on a kept promise multiplies the stake by 1 / alpha at any time whatever with a
probability of at most alpha (Ville, "Étude critique de la notion de collectif", 1939), so that the check may
be looked at every evening for years and raises a false alarm in at most a share alpha of them.

- The bets are those of Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
  Journal of the Royal Statistical Society B 86 (2024): the stake grows by ``1 + bet * (x - m)``, for x in
  [0, 1] and the hypothesis that its mean, given all that was known at the origin, is at most m.
- A share of the stake waits and begins anew each quarter, so that years of a kept promise do not hide that it
  is broken now (as the mixtures of Shin, Ramdas and Rinaldo, "E-detectors", New England Journal of Statistics
  in Data Science 2, 2024; here with weights that add up to one, which keeps the probability of any false
  alarm below alpha instead of their rate).
- Outcomes of h sessions overlap. Each h-th origin makes a process of its own, whose next outcome begins after
  the last one ended (Arnold, Henzi and Ziegel, "Sequentially valid tests for forecast calibration", Annals of
  Applied Statistics 17, 2023). The h processes see each other's outcomes early, so they are not averaged: one
  of them must reach h / alpha.
- Symbols of a day are averaged first, because they share that day.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster.errors import ParameterError

__all__ = [
    "DELIVERY",
    "Check",
    "Remedy",
    "State",
    "coverage_check",
    "crps_check",
    "drift_check",
    "evidence",
    "is_delivery",
    "missing_check",
    "promise_table",
    "remedy",
    "runtime_check",
    "stale_check",
    "worst",
]

Array = NDArray[np.float64]
State = Literal["ok", "warn", "fail"]

INTERVALS = (80, 95)
"""Central intervals whose coverage is watched, in percent."""

BETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
"""Shares of the largest bet allowed, with equal parts of the stake: small ones find small faults in time."""

QUARTER = 63
"""Sessions after which a new part of the stake begins."""

SPREAD = 0.5
"""Where a day's relative difference of two CRPS, (a - b) / (a + b), is cut: a day threefold as bad."""

WARN = 10.0
"""A check warns at this multiple of alpha."""

MINIMUM_BLOCKS = 20
"""Quarters of the past that the drift of the inputs is judged by."""

MATTERS = 0.03
"""Smaller distances of distributions are no drift, however sure they are: no probability is off by more."""

BINS = 50
"""Parts of equal probability at whose borders distributions are compared."""

DELIVERY = "sent by "
"""What the records of delivered alerts begin with; see `is_delivery`."""


@dataclass(frozen=True)
class Check:
    """What a check found.

    Parameters
    ----------
    name : str
        Such as ``coverage``.
    state : str
        ``ok``, ``warn`` or ``fail``.
    reason : str
        Why, in one line.
    """

    name: str
    state: State
    reason: str


@dataclass(frozen=True)
class Remedy:
    """What is in force because a promise was broken.

    Parameters
    ----------
    calibrate : bool
        Whether the champion is calibrated adaptively.
    fallback : str or None
        The baseline that is used instead of the champion.
    since : date or None
        Evening of the last change of what is used; forecasts of later evenings are watched.
    """

    calibrate: bool = False
    fallback: str | None = None
    since: datetime.date | None = None


def worst(states: Sequence[State]) -> State:
    """Give the worst of some states; ok where there is none."""
    return max(states, key=("ok", "warn", "fail").index, default="ok")


def is_delivery(check: str) -> bool:
    """Tell whether a record among the alerts says that one was sent, and is no check."""
    return check.startswith(DELIVERY)


def remedy(events: pd.DataFrame) -> Remedy:
    """Say what is in force, from the changes of the model in use.

    Parameters
    ----------
    events : DataFrame
        ``as_of, event, model``, in their order, as `forecaster.ledger.Ledger.model_events` gives them. A
        ``calibration`` and a ``fallback`` are in force until a ``promotion``, a ``rollback`` or a
        ``recovery``; others change nothing.
    """
    now = Remedy()
    champion: str | None = None
    for as_of, event, model in zip(events["as_of"], events["event"], events["model"], strict=True):
        day = pd.Timestamp(as_of).date()
        if event == "calibration":
            now = Remedy(True, now.fallback, day)
        elif event == "fallback":
            now = Remedy(False, str(model), day)
        elif event in ("rollback", "recovery") or (
            # The record of a model that is only trained anew goes on.
            event == "promotion" and (now.calibrate or now.fallback or model != champion)
        ):
            now = Remedy(since=day)
        if event in ("promotion", "rollback"):
            champion = str(model)
    return now


# ------------------------------------------------------------------------------------------- sequential tests


def evidence(values: Array, bound: Array | float, horizon: int = 1) -> Array:
    """Evidence that the conditional mean of bounded numbers is larger than a bound, day by day.

    Parameters
    ----------
    values : ndarray of shape (n_origins,)
        Numbers between 0 and 1, one an origin, in their order; NaN where there is none.
    bound : float or ndarray of shape (n_origins,)
        The largest mean that the hypothesis allows, strictly between 0 and 1, known at the origin.
    horizon : int
        Sessions after which a number becomes known.

    Returns
    -------
    ndarray of shape (n_origins, horizon)
        What a stake of one has become after each origin in each of the processes of every h-th origin. If the
        mean of each number, given all that is known at its origin, is at most the bound, then each column
        ever reaches c with a probability of at most 1 / c.

    Raises
    ------
    ParameterError
        If a number or a bound lies outside.

    Notes
    -----
    With bets b on parts of equal size, and a fresh stake each quarter k with the weight 1 / ((k + 1)(k + 2)),
    the process is ``sum_k w_k mean_b prod_{t in or after quarter k} (1 + b (x_t - m_t) / m_t)``: a sum of
    nonnegative supermartingales that begin at ``sum_k w_k = 1``.
    """
    if horizon < 1:
        raise ParameterError(f"a horizon is at least one session. Received: {horizon}")
    known = values[np.isfinite(values)]
    if len(known) and (known.min() < -1e-12 or known.max() > 1.0 + 1e-12):
        raise ParameterError(
            f"evidence is gathered on numbers between 0 and 1. Received: {known.min()} to {known.max()}"
        )
    bounds = np.broadcast_to(np.asarray(bound, dtype=np.float64), values.shape)
    if len(bounds) and not ((bounds > 0.0) & (bounds < 1.0)).all():
        raise ParameterError(
            f"a bound lies between 0 and 1. Received: {np.min(bounds)} to {np.max(bounds)}; take a smaller "
            "tolerance"
        )
    gain = np.where(np.isfinite(values), (np.clip(values, 0.0, 1.0) - bounds) / bounds, 0.0)
    rows = np.arange(len(values))
    stake = np.ones((len(values), horizon))
    for number in range(min(horizon, len(values))):
        mine = _mixture(gain[number::horizon], rows[number::horizon] // QUARTER)
        stake[number:, number] = np.exp(np.minimum(mine, 700.0))[(rows[number:] - number) // horizon]
    return stake


def _mixture(gain: Array, quarters: NDArray[np.int64]) -> Array:
    """Logarithm of a stake that is spread over bets and over the quarters it begins in, after each number."""
    steps = np.log1p(np.multiply.outer(gain, np.array(BETS)))
    grown = np.full(len(BETS), -np.inf)
    waiting = 1.0
    mixed = np.empty(len(gain))
    for quarter in np.unique(quarters):
        begin, end = np.searchsorted(quarters, [quarter, quarter + 1])
        # The sum of the weights 1 / ((k + 1)(k + 2)) that are still to come.
        still = 1.0 / (quarter + 2.0)
        path = np.logaddexp(grown, math.log(waiting - still)) + np.cumsum(steps[begin:end], axis=0)
        waiting, grown = still, path[-1]
        together = np.logaddexp.reduce(path, axis=1) - math.log(len(BETS))
        mixed[begin:end] = np.logaddexp(together, math.log(waiting))
    return mixed


def _state(strength: float, alpha: float) -> State:
    if strength >= 1.0 / alpha:
        return "fail"
    return "warn" if strength >= 1.0 / min(1.0, WARN * alpha) else "ok"


def _odds(strength: float) -> str:
    """Say how strong evidence is: the chance of as much of it, ever, were the promise kept."""
    chance = min(1.0, 1.0 / strength) if strength > 0 else 1.0
    return f"p {chance:.2g}" if chance >= 1e-6 else "p < 1e-06"


def promise_table(daily: pd.DataFrame) -> pd.DataFrame:
    """Say what a backtest promises of each model.

    Parameters
    ----------
    daily : DataFrame
        ``model, horizon, origin, crps, coverage_80, coverage_95``: averages over the symbols of an origin, as
        `forecaster.ledger.Ledger.track_record` gives them ``by_origin``.

    Returns
    -------
    DataFrame
        ``model, horizon, metric, against, value, standard_error``. Metrics ``coverage_80`` and
        ``coverage_95``, with an empty ``against``; and ``crps`` for each other model: the mean of the day's
        relative difference ``(a - b) / (a + b)``, cut at one half, below zero where the model is better. The
        standard error is that of means over quarters, NaN below four of them.
    """
    rows: list[tuple[str, int, str, str, float, float]] = []
    for horizon, part in daily.groupby("horizon"):
        wide = {
            metric: part.pivot(index="origin", columns="model", values=metric).sort_index()
            for metric in ("crps", *(f"coverage_{level}" for level in INTERVALS))
        }
        for model in sorted(part["model"].unique()):
            for level in INTERVALS:
                metric = f"coverage_{level}"
                told = _mean_and_error(wide[metric][model].to_numpy(dtype=np.float64))
                rows.append((str(model), int(str(horizon)), metric, "", *told))
            for other in sorted(part["model"].unique()):
                if other != model:
                    difference = _relative(wide["crps"][model], wide["crps"][other])
                    rows.append(
                        (str(model), int(str(horizon)), "crps", str(other), *_mean_and_error(difference))
                    )
    return pd.DataFrame(rows, columns=["model", "horizon", "metric", "against", "value", "standard_error"])


def _relative(mine: pd.Series[float], other: pd.Series[float]) -> Array:
    """Relative difference of two CRPS, NaN where one is missing, zero where both are."""
    a, b = mine.to_numpy(dtype=np.float64), other.to_numpy(dtype=np.float64)
    ratio = np.divide(a - b, a + b, out=np.where(np.isnan(a + b), np.nan, 0.0), where=(a + b) > 0)
    return np.clip(ratio, -SPREAD, SPREAD)


def _mean_and_error(values: Array) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan, math.nan
    blocks = len(values) // QUARTER
    if blocks < 4:
        return float(values.mean()), math.nan
    means = values[: blocks * QUARTER].reshape(blocks, QUARTER).mean(axis=1)
    return float(values.mean()), float(means.std(ddof=1) / math.sqrt(blocks))


def _promised(
    promise: pd.DataFrame | None, model: str, horizon: int, metric: str, against: str = ""
) -> tuple[float, float] | None:
    """Value and doubt of a promise: two standard errors; None where nothing was promised."""
    if promise is None:
        return None
    mine = promise[
        (promise["model"] == model)
        & (promise["horizon"] == horizon)
        & (promise["metric"] == metric)
        & (promise["against"].fillna("") == against)
    ]
    if mine.empty or not math.isfinite(float(mine["value"].iloc[0])):
        return None
    error = float(mine["standard_error"].iloc[0])
    return float(mine["value"].iloc[0]), 2.0 * error if math.isfinite(error) else 0.0


def coverage_check(
    daily: pd.DataFrame, promise: pd.DataFrame | None, model: str, *, alpha: float, tolerance: float
) -> Check:
    """Test whether the intervals of a model hold as many outcomes as promised.

    Parameters
    ----------
    daily : DataFrame
        ``model, horizon, origin, coverage_80, coverage_95``: the record of the forecasts in use, an origin a
        row, from the first that is watched.
    promise : DataFrame or None
        What `promise_table` gave for the backtest; without it the levels themselves are the promise.
    model : str
        The model to watch.
    alpha : float
        Probability of ever failing although the promise is kept; the check warns at ten times of it.
    tolerance : float
        How far coverage may lie outside of the range from the level to what was promised, which is widened
        further by two standard errors of the promise.

    Returns
    -------
    Check
        ``coverage``. It fails while the evidence against the promise stands, and is ok again when outcomes
        have spoken for it long enough.
    """
    mine = daily[daily["model"] == model].sort_values("origin")
    if mine.empty:
        return Check("coverage", "ok", f"{model}: no outcome is known yet")
    horizons = sorted(int(each) for each in mine["horizon"].unique())
    strongest, about = 0.0, ""
    for horizon in horizons:
        rows = mine[mine["horizon"] == horizon]
        processes, told = [], []
        for level in INTERVALS:
            held = rows[f"coverage_{level}"].to_numpy(dtype=np.float64)
            stated, doubt = _promised(promise, model, horizon, f"coverage_{level}") or (level / 100, 0.0)
            low = max(min(stated, level / 100) - tolerance - doubt, 0.01)
            high = min(max(stated, level / 100) + tolerance + doubt, 0.999)
            below, above = evidence(1.0 - held, 1.0 - low, horizon), evidence(held, high, horizon)
            processes += [below, above]
            strength = float(max(below[-1].max(), above[-1].max()))
            late = f"{np.nanmean(held[-QUARTER:]):.1%} of late, " if len(held) > QUARTER else ""
            told.append((strength, f"{level}% held {np.nanmean(held):.1%}, {late}promised {stated:.1%}"))
        # Both sides of both intervals in the same filtration: their average is a process as well.
        together = float(np.mean(processes, axis=0)[-1].max()) / (horizon * len(horizons))
        if together >= strongest:
            strongest, about = together, f"h={horizon}: {max(told)[1]} over {len(rows)} origins"
    return Check("coverage", _state(strongest, alpha), f"{model}: {about}, {_odds(strongest)}")


def crps_check(
    daily: pd.DataFrame,
    promise: pd.DataFrame | None,
    model: str,
    baseline: str | None,
    *,
    alpha: float,
    tolerance: float,
) -> Check:
    """Test whether the CRPS of a model, against a baseline of the same days, is as good as promised.

    Parameters
    ----------
    daily : DataFrame
        ``model, horizon, origin, crps``, as for `coverage_check`, of both models.
    promise : DataFrame or None
        What `promise_table` gave; without it the promise is to be as good as the baseline.
    model, baseline : str
        The model to watch, and the one it is held against day by day: the size of a CRPS moves with the
        markets. Without a baseline nothing is tested, and the check says so.
    alpha : float
        As of `coverage_check`.
    tolerance : float
        How much worse the CRPS may be, as a share.

    Returns
    -------
    Check
        ``crps``.
    """
    if baseline is None or baseline == model:
        return Check("crps", "ok", f"{model}: no baseline is issued beside it, so its CRPS is not tested")
    pair = daily[daily["model"].isin([model, baseline])]
    strongest, about = 0.0, ""
    horizons = sorted(int(each) for each in pair["horizon"].unique())
    for horizon in horizons:
        wide = pair[pair["horizon"] == horizon].pivot(index="origin", columns="model", values="crps")
        if not {model, baseline} <= set(wide.columns):
            continue
        difference = _relative(*(wide.sort_index()[name] for name in (model, baseline)))
        difference = difference[np.isfinite(difference)]
        if not len(difference):
            continue
        stated, doubt = _promised(promise, model, horizon, "crps", baseline) or (0.0, 0.0)
        bound = min((stated + tolerance / 2.0 + doubt + SPREAD) / (2.0 * SPREAD), 0.999)
        process = evidence((difference + SPREAD) / (2.0 * SPREAD), bound, horizon)
        strength = float(process[-1].max()) / (horizon * len(horizons))
        if strength >= strongest:
            told, kept = ((1.0 + each) / (1.0 - each) for each in (float(difference.mean()), stated))
            strongest = strength
            about = (
                f"h={horizon}: {told:.4f} of {baseline}, promised {kept:.4f}, over {len(difference)} origins"
            )
    if not about:
        return Check("crps", "ok", f"{model}: no outcome is known yet beside {baseline}")
    return Check("crps", _state(strongest, alpha), f"{model}: {about}, {_odds(strongest)}")


# ------------------------------------------------------------------------------------------------- the inputs


def drift_check(features: Mapping[str, Array], *, recent: int) -> Check:
    """Compare the inputs of recent sessions with those before, block by block.

    Parameters
    ----------
    features : mapping of str to ndarray of shape (n_sessions, n_symbols)
        Numbers without a scale, such as returns over their volatility, in the order of sessions; NaN where
        there is none.
    recent : int
        Sessions that are compared, and of a block.

    Returns
    -------
    Check
        ``drift``: it warns where the recent block is further from the rest than any block of the past was
        from the others, in the distance of Kolmogorov and Smirnov at the borders of `BINS` parts of equal
        probability, and by more than `MATTERS`; it fails at twice the furthest. With fewer than
        `MINIMUM_BLOCKS` blocks it says so.

    Notes
    -----
    Symbols of a day and days in a row are alike, so that the table of Kolmogorov and Smirnov would call
    nearly every quarter a drift. Blocks are compared with blocks instead: were all alike, the recent one
    would be the furthest of n + 1 with a probability of 1 / (n + 1), for each feature and quarter.
    """
    worst_state: State = "ok"
    told: list[str] = []
    blocks = 0
    for name, values in features.items():
        n = (len(values) - recent) // recent
        blocks = max(blocks, n)
        if n < MINIMUM_BLOCKS:
            continue
        # From the end, so that the recent block is whole.
        kept = values[len(values) - (n + 1) * recent :]
        past = kept[:-recent]
        if not np.isfinite(past).any():
            continue
        edges = np.nanquantile(past, np.arange(1, BINS) / BINS)
        counts = _below(kept, edges, recent)
        distances = []
        for block in range(n + 1):
            others = counts[:-1].sum(axis=0) - (counts[block] if block < n else 0.0)
            both = min(counts[block, -1], others[-1]) > 0
            apart = counts[block] / counts[block, -1] - others / others[-1] if both else np.zeros(1)
            distances.append(float(np.abs(apart).max()))
        furthest, distance = max(distances[:-1]), distances[-1]
        if distance > max(furthest, MATTERS):
            state: State = "fail" if distance > 2.0 * furthest else "warn"
            worst_state = worst([worst_state, state])
            told.append(
                f"{name} of the last {recent} sessions lies {distance:.2f} from the past, further than any "
                f"of {n} blocks before ({furthest:.2f} at most)"
            )
    if told:
        return Check("drift", worst_state, "; ".join(told))
    if blocks < MINIMUM_BLOCKS:
        return Check(
            "drift", "ok", f"not judged: {blocks} blocks of {recent} sessions before, {MINIMUM_BLOCKS} needed"
        )
    return Check("drift", "ok", f"the last {recent} sessions are as near to the past as others were")


def _below(values: Array, edges: Array, size: int) -> Array:
    """Count the values up to each edge, and all of them, in blocks of sessions."""
    blocks = np.split(values, range(size, len(values), size))
    counts = np.zeros((len(blocks), len(edges) + 1))
    for number, block in enumerate(blocks):
        known = np.sort(block[np.isfinite(block)])
        counts[number, :-1] = np.searchsorted(known, edges, side="right")
        counts[number, -1] = len(known)
    return counts


# --------------------------------------------------------------------------------------- prices and the night


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def stale_check(behind: Mapping[str, int], total: int, *, minimum_coverage: float) -> Check:
    """Say which symbols lack sessions that their exchange has finished.

    Parameters
    ----------
    behind : mapping of str to int
        Sessions that a symbol lacks, where it lacks any.
    total : int
        Symbols of the job.
    minimum_coverage : float
        Share of the symbols that must be up to date; below it the check fails.
    """
    late = sorted((symbol for symbol in behind if behind[symbol] > 0), key=lambda each: (-behind[each], each))
    if not late:
        return Check("stale", "ok", f"{total} symbols are up to date")
    state: State = "fail" if total - len(late) < minimum_coverage * total else "warn"
    most = behind[late[0]]
    return Check(
        "stale", state, f"{len(late)} of {total} symbols lack sessions, up to {most}: {_named(late)}"
    )


def missing_check(missing: Mapping[str, str], total: int, *, minimum_coverage: float) -> Check:
    """Say which symbols of the job got no forecast.

    Parameters
    ----------
    missing : mapping of str to str
        Symbols without a forecast, and why.
    total : int
        Symbols of the job, those included.
    minimum_coverage : float
        Share of the symbols that must have one; below it the check fails.
    """
    if not missing:
        return Check("missing", "ok", f"{total} symbols have forecasts")
    first = next(iter(sorted(missing)))
    state: State = "fail" if total - len(missing) < minimum_coverage * total else "warn"
    told = f"{len(missing)} of {total} symbols have no forecast: {_named(sorted(missing))}"
    return Check("missing", state, f"{told}; {first}: {missing[first]}")


def runtime_check(
    seconds: Mapping[str, float], before: pd.DataFrame, *, total: float, longest: float
) -> Check:
    """Say whether the steps of an evening took longer than they should.

    Parameters
    ----------
    seconds : mapping of str to float
        What each step took that was done.
    before : DataFrame
        ``step, seconds``: what such steps took on evenings before.
    total : float
        What all steps took, those included that had nothing to do or failed.
    longest : float
        What all may take together; above it the check fails. It warns where a step took a minute more than
        three times its median of at least five evenings.
    """
    if total > longest:
        return Check(
            "runtime", "fail", f"the steps took {total:.0f} s, more than the {longest:.0f} s allowed"
        )
    slow = []
    for step, took in seconds.items():
        usual = before.loc[before["step"] == step, "seconds"]
        if len(usual) >= 5 and took > 3.0 * float(usual.median()) + 60.0:
            slow.append(f"{step} took {took:.0f} s, usually {float(usual.median()):.0f} s")
    if slow:
        return Check("runtime", "warn", "; ".join(slow))
    return Check("runtime", "ok", f"the steps took {total:.0f} s")
