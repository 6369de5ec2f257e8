"""Tests of whether value at risk and the whole distribution hold what they promise.

All of them take outcomes that do not overlap: at a horizon of h sessions every h-th origin. Hits of
overlapping outcomes come in runs, which every test here would take for a fault of the model.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from forecaster.errors import ParameterError

__all__ = ["christoffersen", "kupiec", "pit_uniformity"]

Array = NDArray[np.float64]
Hits = NDArray[np.bool_]

PIT_EDGES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
PIT_MINIMUM = 100
"""Outcomes that the test of uniformity needs: five expected in its smallest class."""


def _coverage_ratio(hits: Array, n: int, level: float) -> Array:
    """Likelihood ratio of the rate of hits against the level (Kupiec 1995, equation 6)."""
    rate = hits / n
    of_rate = special.xlogy(hits, rate) + special.xlog1py(n - hits, -rate)
    of_level = special.xlogy(hits, level) + special.xlog1py(n - hits, -level)
    # Rounding can make the ratio of equals a hair negative.
    ratio: Array = np.maximum(2.0 * (of_rate - of_level), 0.0)
    return ratio


@lru_cache(maxsize=4096)
def _coverage_p_values(n: int, level: float) -> Array:
    """Exact p-value of each possible number of hits, 0 to n."""
    hits = np.arange(n + 1, dtype=np.float64)
    ratios = _coverage_ratio(hits, n, level)
    chances = stats.binom.pmf(hits, n, level)
    order = np.argsort(ratios, kind="stable")
    # The chance of a ratio at least as large; equal ratios count together, within rounding.
    least = np.searchsorted(ratios[order], ratios * (1.0 - 1e-12))
    above: Array = np.concatenate([np.cumsum(chances[order][::-1])[::-1], [0.0]])
    return np.minimum(above[least], 1.0)


def _check(hits: Hits, level: float) -> None:
    if not len(hits):
        raise ParameterError("a test of value at risk needs at least one outcome. Received: none")
    if not 0.0 < level < 1.0:
        raise ParameterError(f"a level lies between 0 and 1. Received: {level}")


def kupiec(hits: Hits, level: float) -> float:
    """P-value of the test that outcomes fall below the value at risk as often as promised.

    The likelihood ratio of Kupiec, "Techniques for verifying the accuracy of risk measurement models",
    Journal of Derivatives 3 (1995). Its p-value is exact (the binomial chance of a ratio at least as large)
    rather than that of the chi-square limit, which rejects a right model too often where few hits are
    expected: at 1% and 214 outcomes no hit at all, a chance of 12%, would be rejected.

    Parameters
    ----------
    hits : ndarray of shape (n_origins,), bool
        Whether each outcome was below the value at risk; outcomes must not overlap.
    level : float
        Promised share of hits.
    """
    _check(hits, level)
    return float(_coverage_p_values(len(hits), level)[int(hits.sum())])


def christoffersen(hits: Hits, level: float) -> tuple[float, float]:
    """P-values of the tests that hits do not follow each other, and that they also are as many as promised.

    Likelihood ratios against a first-order Markov chain, of independence (one degree of freedom) and of
    conditional coverage (the sum with Kupiec's, two): Christoffersen, "Evaluating Interval Forecasts",
    International Economic Review 39 (1998), equations 5 and 6. Chi-square limits; with fewer than some ten
    expected hits they have next to no power and are a rough guide.

    Parameters
    ----------
    hits : ndarray of shape (n_origins,), bool
        Whether each outcome was below the value at risk, in order; outcomes must not overlap.
    level : float
        Promised share of hits.

    Returns
    -------
    tuple of two floats
        P-value of independence and of conditional coverage.
    """
    _check(hits, level)
    before, after = hits[:-1], hits[1:]
    calm = np.array([np.sum(~before & ~after), np.sum(before & ~after)], dtype=float)
    hit = np.array([np.sum(~before & after), np.sum(before & after)], dtype=float)

    def log_likelihood(misses: Array, matches: Array) -> float:
        total = misses + matches
        rate = np.divide(matches, total, out=np.zeros_like(matches), where=total > 0)
        return float(np.sum(special.xlogy(matches, rate) + special.xlog1py(misses, -rate)))

    pooled = log_likelihood(calm.sum(keepdims=True), hit.sum(keepdims=True))
    independence = max(2.0 * (log_likelihood(calm, hit) - pooled), 0.0)
    coverage = float(_coverage_ratio(np.array(float(hits.sum())), len(hits), level))
    return float(stats.chi2.sf(independence, 1)), float(stats.chi2.sf(independence + coverage, 2))


def pit_uniformity(pit: Array) -> float:
    """P-value of the chi-square test that outcomes fall evenly over the forecast distribution.

    Twelve classes, of 10% each and the outer two halved: their edges are forecast levels, so that the test
    needs no assumption about what lies between or beyond the quantiles (Diebold, Gunther and Tay, "Evaluating
    Density Forecasts", International Economic Review 39, 1998, for the idea).

    Parameters
    ----------
    pit : ndarray of shape (n_origins,)
        Probability integral transforms, as `forecaster.quantiles.probability_below` gives them; outcomes must
        not overlap.

    Returns
    -------
    float
        NaN with fewer than 100 outcomes.
    """
    if len(pit) < PIT_MINIMUM:
        return float("nan")
    edges = np.array(PIT_EDGES)
    # An outcome on a quantile belongs to the class below it. The inner edges are levels, met exactly.
    places = np.searchsorted(edges[1:-1], pit, side="left")
    counts = np.bincount(places, minlength=len(edges) - 1)
    return float(stats.chisquare(counts, np.diff(edges) * len(pit)).pvalue)
