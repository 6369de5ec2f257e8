"""Is a difference in loss real? Tests on daily losses, verdicts in words, and the champion they allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from forecaster.errors import ParameterError

__all__ = ["Champion", "Comparison", "choose_champion", "daily_losses", "diebold_mariano", "verdicts"]

Array = NDArray[np.float64]

SIGNIFICANCE = 0.05
POWER = 0.8
MARGIN = 1.005
"""A loss up to half a percent higher is *as good as*."""


@dataclass(frozen=True)
class Comparison:
    """A Diebold-Mariano test of one loss against another.

    Parameters
    ----------
    difference : float
        Mean loss of the first minus mean loss of the second, in the units of the loss.
    standard_error : float
        HAC standard error of the difference, with the correction for a small sample.
    statistic, p_value : float
        The two-sided test of equal loss; NaN and 1.0 where the two are identical.
    observations : int
        Days compared.
    """

    difference: float
    standard_error: float
    statistic: float
    p_value: float
    observations: int


def _days_needed(horizon: int) -> int:
    """Fewest days that a test at a horizon is made of: more than its overlap, and a few of their own."""
    return 2 * horizon + 8


def diebold_mariano(difference: Array, horizon: int) -> Comparison:
    """Test whether a daily loss difference has mean zero.

    Parameters
    ----------
    difference : ndarray of shape (n_days,)
        Loss of one model minus loss of the other, one value a day in order, without NaN.
    horizon : int
        Horizon of the forecasts in sessions: overlapping outcomes are correlated.

    Notes
    -----
    Diebold and Mariano, "Comparing Predictive Accuracy", Journal of Business and Economic Statistics 13
    (1995), with a Bartlett HAC variance and the small-sample correction of Harvey, Leybourne and Newbold,
    "Testing the equality of prediction mean squared errors", International Journal of Forecasting 13 (1997),
    equation 9. The number of lags is the larger of 2h and the rule ``4 (n / 100) ** (2 / 9)``.
    """
    n, needed = len(difference), _days_needed(horizon)
    if n < needed:
        raise ParameterError(
            f"a test of losses at horizon {horizon} needs at least {needed} days. Received: {n}"
        )
    centred = difference - difference.mean()
    lags = min(max(2 * horizon, int(4 * (n / 100) ** (2 / 9))), n - 1)
    covariances = np.array([centred[lag:] @ centred[: n - lag] for lag in range(lags + 1)]) / n
    bartlett = 1.0 - np.arange(1, lags + 1) / (lags + 1)
    variance = covariances[0] + 2.0 * bartlett @ covariances[1:]
    correction = np.sqrt(max((n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n, 1.0 / n))
    error = float(np.sqrt(max(variance, 0.0) / n) / correction)
    mean = float(difference.mean())
    if error == 0.0:
        return Comparison(mean, 0.0, float("nan"), 1.0 if mean == 0.0 else 0.0, n)
    statistic = mean / error
    return Comparison(mean, error, statistic, float(2.0 * stats.t.sf(abs(statistic), n - 1)), n)


def daily_losses(rows: pd.DataFrame) -> pd.DataFrame:
    """Average the CRPS over symbols, a row a day.

    Parameters
    ----------
    rows : DataFrame
        Columns ``model, symbol, origin, horizon, crps``; rows without an outcome left out.

    Returns
    -------
    DataFrame
        Indexed by ``horizon, origin``, a column a model.

    Raises
    ------
    ParameterError
        If some symbol, origin and horizon was not forecast by every model, or twice by one.
    """
    keys = ["horizon", "origin", "symbol"]
    if rows.duplicated(["model", *keys]).any():
        raise ParameterError("a model forecasts an origin once. Received: some that one forecast twice")
    # Averaged only once they are side by side: a mean over fewer symbols would hide a missing one.
    wide = rows.pivot(index=keys, columns="model", values="crps")
    if wide.isna().to_numpy().any():
        raise ParameterError(
            "models are compared on identical origins. Received: some that not every model forecast"
        )
    return wide.groupby(level=["horizon", "origin"]).mean().sort_index()


def verdicts(losses: pd.DataFrame, baseline: str, reference: str | None) -> pd.DataFrame:
    """Say in words how each model stands to the best baseline at each horizon.

    Parameters
    ----------
    losses : DataFrame
        As `daily_losses` gives them.
    baseline : str
        The model to beat.
    reference : str or None
        The model of no skill (``historical``); without one, skill is not judged.

    Returns
    -------
    DataFrame
        Columns ``model, horizon, baseline, crps_ratio, p_value, verdict, smallest_detectable, skill``. The
        verdict is *better* or *worse* when a two-sided test at 5% says so, else *as good as* when the 90%
        interval of the loss ratio lies below 1.005, else *cannot tell*. ``smallest_detectable`` is the
        smallest relative difference that the sample would have shown with a probability of 80%. ``skill`` is
        *skill* where the model is better than the reference by the same test, else *no skill*.
    """
    rows = []
    for horizon, part in losses.groupby(level="horizon"):
        h = int(str(horizon))
        base = part[baseline].to_numpy()
        for model in losses.columns:
            mine = part[model].to_numpy()
            ratio = float(mine.mean() / base.mean()) if base.mean() > 0 else float("nan")
            row = {"model": model, "horizon": h, "baseline": baseline, "crps_ratio": ratio}
            if len(part) < _days_needed(h):
                verdict = "best baseline" if model == baseline else "cannot tell"
                row |= {"p_value": np.nan, "verdict": verdict, "smallest_detectable": np.nan}
                rows.append(row | {"skill": "no skill" if reference else ""})
                continue
            test = diebold_mariano(mine - base, h)
            spread = test.standard_error / base.mean()
            critical = stats.t.ppf(1 - SIGNIFICANCE / 2, test.observations - 1)
            powered = critical + stats.t.ppf(POWER, test.observations - 1)
            if model == baseline:
                verdict = "best baseline"
            elif test.p_value < SIGNIFICANCE:
                verdict = "better" if test.difference < 0 else "worse"
            elif ratio + stats.t.ppf(0.95, test.observations - 1) * spread < MARGIN:
                verdict = "as good as"
            else:
                verdict = "cannot tell"
            row |= {"p_value": test.p_value, "verdict": verdict, "smallest_detectable": powered * spread}
            if model == baseline:
                row |= {"p_value": np.nan, "smallest_detectable": np.nan}
            row["skill"] = ""
            if reference is not None:
                against = diebold_mariano(mine - part[reference].to_numpy(), h)
                skilled = against.p_value < SIGNIFICANCE and against.difference < 0
                row["skill"] = "skill" if skilled else "no skill"
            rows.append(row)
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Champion:
    """The model that the job shall use, and why."""

    model: str
    reason: str
    mean_ratios: dict[str, float]


def choose_champion(losses: pd.DataFrame, by_complexity: Sequence[str], reference: str) -> Champion:
    """Choose one model for all horizons: the simplest that the best one does not beat.

    Each model's loss at each horizon is taken relative to the reference's mean and averaged over horizons, on
    the days that every horizon has. The best by that average is compared with every simpler model by a
    Diebold-Mariano test of the averaged relative losses; the simplest one that is not significantly worse is
    the champion. So a more complex model is promoted only if it is better, ties go to the simpler, and a test
    that cannot tell promotes nothing.

    Parameters
    ----------
    losses : DataFrame
        As `daily_losses` gives them.
    by_complexity : sequence of str
        All models, the simplest first.
    reference : str
        The model whose mean loss at each horizon is the unit.
    """
    # A day counts only with every horizon, or the longest would be left out of the last weeks unevenly.
    wide = losses.unstack("horizon").dropna()
    unit = wide[reference].to_numpy().mean(axis=0)
    daily = pd.DataFrame({model: (wide[model].to_numpy() / unit).mean(axis=1) for model in by_complexity})
    ratios = {model: float(daily[model].mean()) for model in by_complexity}
    horizon = int(losses.index.get_level_values("horizon").max())
    simplest = by_complexity[0]
    if len(daily) < _days_needed(horizon):
        return Champion(
            simplest, f"too few days to tell models apart, so the simplest, {simplest}, is kept", ratios
        )
    best = min(by_complexity, key=lambda model: ratios[model])
    if best == simplest:
        return Champion(best, f"{best} is the simplest model and no other is better", ratios)
    lowest = f"{best} has the lowest CRPS over all horizons ({ratios[best]:.4f} of {reference})"
    for model in by_complexity[: by_complexity.index(best)]:
        test = diebold_mariano((daily[best] - daily[model]).to_numpy(), horizon)
        if test.p_value >= SIGNIFICANCE:
            reason = (
                f"{lowest}, but is not significantly better than the simpler {model} ({ratios[model]:.4f}; "
                f"p = {test.p_value:.2f})"
            )
            return Champion(model, reason, ratios)
    return Champion(best, f"{lowest} and is significantly better than every simpler model", ratios)
