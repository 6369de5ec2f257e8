"""Is a difference in loss real? Tests on daily losses, verdicts in words, and the champion they allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from forecaster.errors import ParameterError

__all__ = [
    "Champion",
    "Comparison",
    "choose_champion",
    "confidence_set",
    "daily_losses",
    "diebold_mariano",
    "mean_ratios",
    "superior_ability",
    "verdicts",
]

Array = NDArray[np.float64]

SIGNIFICANCE = 0.05
CONFIDENCE_SET_SIZE = 0.1
"""Share of fields of equal models in which the confidence set may lose one of them."""
POWER = 0.8
MARGIN = 1.005
"""A loss up to half a percent higher is *as good as*."""
REPETITIONS = 1000
SEED = 20050103
"""Of the bootstrap, fixed: the same losses always give the same verdict."""


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
    degrees_of_freedom : float
        Of the Student distribution that the statistic is held against.
    observations : int
        Days compared.
    """

    difference: float
    standard_error: float
    statistic: float
    p_value: float
    degrees_of_freedom: float
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
    (1995), with a HAC variance of Parzen weights w over the larger of 4h lags and ``4 (n / 100) ** (2 / 9)``.
    Overlap alone makes a triangle of autocovariances up to lag h, of which 2h Bartlett lags miss a sixth.

    The variance is divided by its own bias in small samples,
    ``1 - (1 + 2 sum w_j) / n + 2 sum j w_j / n**2``: the correction of Harvey, Leybourne and Newbold,
    "Testing the equality of prediction mean squared errors", International Journal of Forecasting 13 (1997),
    who have h - 1 weights of one. That the variance is an estimate from few independent stretches makes the
    tails fatter (Kiefer and Vogelsang, "A New Asymptotic Theory for Heteroskedasticity-Autocorrelation Robust
    Tests", Econometric Theory 21, 2005); so the statistic is held against a Student distribution with the
    equivalent degrees of freedom of the kernel, ``n / (1 + 2 sum w_j**2)``, at most n - 1. In simulations
    (`tests/test_significance.py`) equal models are told apart in 4 to 7% of samples.
    """
    n, needed = len(difference), _days_needed(horizon)
    if n < needed:
        raise ParameterError(
            f"a test of losses at horizon {horizon} needs at least {needed} days. Received: {n}"
        )
    centred = difference - difference.mean()
    lags = np.arange(1, min(max(4 * horizon, int(4 * (n / 100) ** (2 / 9))), n - 1) + 1)
    distance = lags / (lags[-1] + 1)
    weights = np.where(
        distance <= 0.5, 1.0 - 6.0 * distance**2 * (1.0 - distance), 2.0 * (1.0 - distance) ** 3
    )
    covariances = np.array([centred[lag:] @ centred[: n - lag] for lag in (0, *lags)]) / n
    variance = covariances[0] + 2.0 * weights @ covariances[1:]
    expected = 1.0 - (1.0 + 2.0 * weights.sum()) / n + 2.0 * lags @ weights / n**2
    error = float(np.sqrt(max(variance, 0.0) / n / expected))
    freedom = float(min(n / (1.0 + 2.0 * weights @ weights), n - 1))
    mean = float(difference.mean())
    if error == 0.0:
        return Comparison(mean, 0.0, float("nan"), 1.0 if mean == 0.0 else 0.0, freedom, n)
    statistic = mean / error
    return Comparison(mean, error, statistic, float(2.0 * stats.t.sf(abs(statistic), freedom)), freedom, n)


def _block(n: int, horizon: int) -> int:
    """Mean length of the blocks of a bootstrap: three horizons, so that the overlap stays whole in most."""
    return max(min(max(3 * horizon, int(np.cbrt(n))), n // 5), horizon)


def confidence_set(losses: pd.DataFrame, horizon: int) -> pd.Series[float]:
    """P-value of each model in the Model Confidence Set of the whole field.

    A model belongs to the set that holds the best with 90% where its p-value is above 10%.

    Parameters
    ----------
    losses : DataFrame of shape (n_days, n_models)
        Daily losses in order, a column a model, without NaN.
    horizon : int
        Horizon of the forecasts in sessions.

    Returns
    -------
    Series
        Indexed by model; 1.0 for the model of the lowest loss. Models with identical losses share one value.

    Notes
    -----
    Hansen, Lunde and Nason, "The Model Confidence Set", Econometrica 79 (2011), section 3.1.2: the range
    statistic, held against 1,000 draws of the stationary bootstrap (by `arch.bootstrap`) with blocks of three
    horizons on average. `arch.bootstrap.MCS` divides differences by their deviation over the draws, which
    misses part of the overlap and takes itself for certain: of six equal models it loses one in 14 to 33% of
    samples instead of 10% (300 days at horizon 1, 1,000 at 21). Here they are divided as in
    `diebold_mariano`, and the Student statistic is carried over to the normal one of the same p-value: 10 to
    15%.
    """
    n, needed = len(losses), _days_needed(horizon)
    if n < needed:
        raise ParameterError(
            f"a confidence set at horizon {horizon} needs at least {needed} days. Received: {n}"
        )
    values = losses.to_numpy(dtype=np.float64)
    leader = _leaders(values)
    chosen = np.unique(leader)
    p_values = np.ones(values.shape[1])
    p_values[chosen] = _eliminate(values[:, chosen], horizon)
    means = values.mean(axis=0)
    same = np.isclose(means, means[leader], rtol=1e-12, atol=0.0)
    return pd.Series(np.where(same, p_values[leader], 0.0), index=losses.columns, name="p_value")


def _eliminate(values: Array, horizon: int) -> Array:
    """P-values of the confidence set by eliminating the worst model, one after the other."""
    k = values.shape[1]
    statistics, freedom = np.zeros((k, k)), 1.0
    for i in range(k):
        for j in range(i):
            test = diebold_mariano(values[:, i] - values[:, j], horizon)
            statistics[i, j], freedom = test.statistic, test.degrees_of_freedom
            statistics[j, i] = -test.statistic
    deviations = _resampled_means(values, horizon) - values.mean(axis=0)
    differences = deviations[:, :, None] - deviations[:, None, :]
    spread = np.sqrt(np.square(differences).mean(axis=0))
    differences /= np.where(spread > 0, spread, 1.0)
    p_values = np.ones(k)
    left, largest = np.arange(k), 0.0
    while len(left) > 1:
        among = statistics[np.ix_(left, left)]
        worst = int(np.argmax(among.max(axis=1)))
        # Both tails of a pair count, as the range takes the larger of each pair and its opposite.
        normal = stats.norm.isf(stats.t.sf(among.max(), freedom))
        ranges = differences[:, left[:, None], left].reshape(len(differences), -1).max(axis=1)
        largest = max(largest, float((ranges > normal).mean()))
        p_values[left[worst]] = largest
        left = np.delete(left, worst)
    return p_values


def _resampled_means(values: Array, horizon: int) -> Array:
    """Means of the columns over each draw of the stationary bootstrap, shape (n_draws, n_columns)."""
    # Heavy: imported where used.
    from arch.bootstrap import StationaryBootstrap

    n = len(values)
    draws = StationaryBootstrap(_block(n, horizon), np.arange(n), seed=SEED).bootstrap(REPETITIONS)
    counts = np.array([np.bincount(days[0], minlength=n) for days, _ in draws], dtype=np.float64)
    means: Array = counts @ values / n
    return means


def _leaders(values: Array) -> NDArray[np.int64]:
    """Column that stands for each: of columns that differ by a constant on every day, the lowest.

    A bootstrap has nothing to say about them: of two that are identical both are kept, and of two of which
    one is lower by the same amount every day the other is worse with certainty.
    """
    centred = values - values.mean(axis=0)
    spread = np.abs(values).max(initial=0.0) * 1e-12
    leader = np.arange(values.shape[1])
    order = np.argsort(values.mean(axis=0), kind="stable")
    for place, column in enumerate(order):
        for better in order[:place]:
            if leader[better] == better and np.abs(centred[:, column] - centred[:, better]).max() <= spread:
                leader[column] = better
                break
    return leader


def superior_ability(losses: pd.DataFrame, benchmark: str, horizon: int) -> float:
    """P-value of the hypothesis that no model of the field has a lower loss than a benchmark.

    Parameters
    ----------
    losses : DataFrame of shape (n_days, n_models)
        Daily losses in order, a column a model, without NaN.
    benchmark : str
        The column that the others are held against.
    horizon : int
        Horizon of the forecasts in sessions.

    Returns
    -------
    float
        1.0 where no model has a lower mean loss than the benchmark.

    Notes
    -----
    Hansen, "A Test for Superior Predictive Ability", Journal of Business and Economic Statistics 23 (2005),
    the consistent p-value, by `arch.bootstrap.SPA` with the bootstrap of `confidence_set`. Differences are
    divided by their HAC standard errors first: the studentized form of the paper, which the library leaves
    to do.
    """
    from arch.bootstrap import SPA

    base = losses[benchmark].to_numpy(dtype=np.float64)
    if losses.mean().min() >= base.mean():
        return 1.0
    standardised = []
    for model in losses.columns:
        difference = losses[model].to_numpy(dtype=np.float64) - base
        test = diebold_mariano(difference, horizon)
        if test.standard_error > 0:
            standardised.append(difference / test.standard_error)
        elif test.difference < 0:  # lower by the same amount on every day
            return 0.0
    test = SPA(
        np.zeros(len(base)),
        np.column_stack(standardised),
        block_size=_block(len(base), horizon),
        reps=REPETITIONS,
        bootstrap="stationary",
        studentize=False,
        seed=SEED,
    )
    test.compute()
    return float(test.pvalues["consistent"])


def daily_losses(rows: pd.DataFrame, loss: str = "crps") -> pd.DataFrame:
    """Average a loss over symbols, a row a day.

    Losses of symbols on one day move together: a day counts as one observation, however many symbols it has.

    Parameters
    ----------
    rows : DataFrame
        Columns ``model, symbol, origin, horizon`` and the loss; rows without an outcome left out.
    loss : str
        Column to average: a loss that `forecaster.scores.row_scores` gives, such as ``crps`` or ``qlike``.

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
    wide = rows.pivot(index=keys, columns="model", values=loss)
    if wide.isna().to_numpy().any():
        raise ParameterError(
            "models are compared on identical origins. Received: some that not every model forecast"
        )
    return wide.groupby(level=["horizon", "origin"]).mean().sort_index()


def verdicts(losses: pd.DataFrame, baseline: str, reference: str | None, loss: str = "crps") -> pd.DataFrame:
    """Say in words how each model stands to the best baseline at each horizon.

    A model is *better* than another where a two-sided Diebold-Mariano test at 5% says so and the Model
    Confidence Set of the whole field has lost the other: the first alone would, among many models, find one
    that is better by chance.

    Parameters
    ----------
    losses : DataFrame
        As `daily_losses` gives them.
    baseline : str
        The model to beat.
    reference : str or None
        The model of no skill (``historical``); without one, skill is not judged.
    loss : str
        Name of the loss, for the column of ratios.

    Returns
    -------
    DataFrame
        Columns ``model, horizon, baseline, <loss>_ratio, p_value, verdict, smallest_detectable, skill,
        confidence_set, mcs_p_value, spa_p_value``. The verdict is *better* or *worse* than the baseline
        (worse by the Diebold-Mariano test alone), else *as good as* when the 90% interval of the loss ratio
        lies below 1.005, else *cannot tell*. ``smallest_detectable`` is the smallest relative difference that
        the Diebold-Mariano test would have shown with a probability of 80%. ``skill`` is *skill* where the
        model is better than the reference, else *no skill*. ``confidence_set`` is *in* or *out* of the set
        that holds the best model with 90%, with its p-value. ``spa_p_value``, in the row of the baseline: of
        the hypothesis that no model is better than it. Empty or NaN where there are too few days.
    """
    rows = []
    for horizon, part in losses.groupby(level="horizon"):
        h = int(str(horizon))
        enough = len(part) >= _days_needed(h)
        in_set = confidence_set(part, h) if enough else None
        for model in losses.columns:
            row = _verdict(part, model, baseline, reference, h, in_set)
            row = {
                "model": model,
                "horizon": h,
                "baseline": baseline,
                f"{loss}_ratio": row.pop("ratio"),
            } | row
            if in_set is not None and model == baseline:
                row["spa_p_value"] = superior_ability(part, baseline, h)
            rows.append(row)
    return pd.DataFrame(rows)


def _verdict(
    part: pd.DataFrame,
    model: str,
    baseline: str,
    reference: str | None,
    horizon: int,
    in_set: pd.Series[float] | None,
) -> dict[str, object]:
    """Judge one model at one horizon."""
    mine, base = part[model].to_numpy(), part[baseline].to_numpy()
    ratio = float(mine.mean() / base.mean()) if base.mean() > 0 else float("nan")
    row: dict[str, object] = {
        "ratio": ratio,
        "p_value": np.nan,
        "verdict": "best baseline" if model == baseline else "cannot tell",
        "smallest_detectable": np.nan,
        "skill": "no skill" if reference else "",
        "confidence_set": "",
        "mcs_p_value": np.nan,
        "spa_p_value": np.nan,
    }
    if in_set is None:
        return row
    p_value = float(in_set[model])
    row |= {"mcs_p_value": p_value, "confidence_set": "in" if p_value > CONFIDENCE_SET_SIZE else "out"}
    if reference is not None and _better(part, model, reference, horizon, in_set):
        row["skill"] = "skill"
    if model == baseline:
        return row
    test = diebold_mariano(mine - base, horizon)
    spread, freedom = test.standard_error / base.mean(), test.degrees_of_freedom
    powered = stats.t.ppf(1 - SIGNIFICANCE / 2, freedom) + stats.t.ppf(POWER, freedom)
    row |= {"p_value": test.p_value, "smallest_detectable": powered * spread}
    if test.p_value < SIGNIFICANCE and test.difference > 0:
        row["verdict"] = "worse"
    elif _better(part, model, baseline, horizon, in_set):
        row["verdict"] = "better"
    elif ratio + stats.t.ppf(0.95, freedom) * spread < MARGIN:
        row["verdict"] = "as good as"
    return row


def _better(losses: pd.DataFrame, model: str, other: str, horizon: int, in_set: pd.Series[float]) -> bool:
    """Whether a model is better than another, by both tests."""
    test = diebold_mariano((losses[model] - losses[other]).to_numpy(), horizon)
    lower = test.p_value < SIGNIFICANCE and test.difference < 0
    return lower and float(in_set[other]) <= CONFIDENCE_SET_SIZE


def _relative_losses(losses: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Daily losses over the reference's mean loss at each horizon, averaged over horizons."""
    # A day counts only with every horizon, or the longest would be left out of the last weeks unevenly.
    wide = losses.unstack("horizon").dropna()
    unit = wide[reference].to_numpy().mean(axis=0)
    return pd.DataFrame({model: (wide[model].to_numpy() / unit).mean(axis=1) for model in losses.columns})


def mean_ratios(losses: pd.DataFrame, reference: str) -> dict[str, float]:
    """Loss of each model relative to the reference's, averaged over horizons on the days that all have.

    Parameters
    ----------
    losses : DataFrame
        As `daily_losses` gives them.
    reference : str
        The model whose mean loss at each horizon is the unit.
    """
    daily = _relative_losses(losses, reference)
    return {str(model): float(daily[model].mean()) for model in daily}


@dataclass(frozen=True)
class Champion:
    """The model that the job shall use, and why."""

    model: str
    reason: str
    mean_ratios: dict[str, float]


def choose_champion(losses: pd.DataFrame, by_complexity: Sequence[str], reference: str) -> Champion:
    """Choose one model for all horizons: the simplest that the best one does not beat.

    Each model's loss at each horizon is taken relative to the reference's mean and averaged over horizons, on
    the days that every horizon has. The best by that average is held against every simpler model, by a
    Diebold-Mariano test of the averaged relative losses and their Model Confidence Set; the simplest one that
    it is not better than by both is the champion. So a more complex model is promoted only if it is better,
    ties go to the simpler, and a test that cannot tell promotes nothing.

    Parameters
    ----------
    losses : DataFrame
        As `daily_losses` gives them.
    by_complexity : sequence of str
        All models, the simplest first.
    reference : str
        The model whose mean loss at each horizon is the unit.
    """
    daily = _relative_losses(losses[list(by_complexity)], reference)
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
    in_set = confidence_set(daily, horizon)
    for model in by_complexity[: by_complexity.index(best)]:
        if not _better(daily, best, model, horizon, in_set):
            test = diebold_mariano((daily[best] - daily[model]).to_numpy(), horizon)
            reason = (
                f"{lowest}, but is not significantly better than the simpler {model} ({ratios[model]:.4f}; "
                f"p = {test.p_value:.2f}, in the confidence set p = {in_set[model]:.2f})"
            )
            return Champion(model, reason, ratios)
    return Champion(best, f"{lowest} and is significantly better than every simpler model", ratios)
