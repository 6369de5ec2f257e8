"""The forecast of a distribution: quantiles of cumulative log returns at fixed levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecaster.errors import ParameterError

__all__ = ["LEVELS", "QuantileForecast", "average", "quantile_columns", "quantile_weights"]

Array = NDArray[np.float64]

LEVELS: tuple[float, ...] = (
    0.01,
    0.025,
    0.05,
    *(round(0.05 * step, 2) for step in range(2, 19)),
    0.95,
    0.975,
    0.99,
)
"""The levels of every forecast: 0.01, 0.025, 0.05, then 0.1 to 0.9 by 0.05, then 0.95, 0.975, 0.99."""


def quantile_columns() -> list[str]:
    """Name the columns of the quantiles in a table: ``q0.01``, ``q0.025`` to ``q0.99``."""
    return [f"q{level!r}" for level in LEVELS]


def quantile_weights() -> Array:
    """Weights that integrate a function of the level over [0, 1], zero at both ends.

    Returns
    -------
    ndarray of shape (n_levels,)
        Trapezoid weights of the grid ``0, LEVELS, 1`` without its two ends.
    """
    grid = np.array([0.0, *LEVELS, 1.0])
    weights: Array = (grid[2:] - grid[:-2]) / 2.0
    return weights


@dataclass(frozen=True, eq=False)
class QuantileForecast:
    """Quantiles of the cumulative log return over each horizon, one row an origin.

    Parameters
    ----------
    values : ndarray of shape (n_origins, n_horizons, n_levels)
        Cumulative log returns (not percent), non-decreasing along the levels and finite.
    horizons : tuple of int
        Horizons in sessions, one for each entry of the second axis.

    Raises
    ------
    ParameterError
        If the shape is wrong, a value is not finite, or two quantiles cross.
    """

    values: Array
    horizons: tuple[int, ...]

    def __post_init__(self) -> None:
        expected = (len(self.horizons), len(LEVELS))
        if self.values.ndim != 3 or self.values.shape[1:] != expected:
            raise ParameterError(
                "a quantile forecast has the shape (n_origins, n_horizons, n_levels) with "
                f"(n_horizons, n_levels) = {expected}. Received: {self.values.shape}"
            )
        if not np.isfinite(self.values).all():
            rows = np.flatnonzero(~np.isfinite(self.values).all(axis=(1, 2)))
            raise ParameterError(
                f"a quantile forecast is finite everywhere. Received: {rows.size} origins with NaN or "
                f"infinity, the first at row {rows[0]}; check the model and its features"
            )
        if (np.diff(self.values, axis=2) < 0).any():
            rows = np.flatnonzero((np.diff(self.values, axis=2) < 0).any(axis=(1, 2)))
            raise ParameterError(
                f"quantiles do not cross. Received: {rows.size} origins where they do, the first at row "
                f"{rows[0]}; sort the quantiles or mend the model"
            )

    def __len__(self) -> int:
        return len(self.values)

    @property
    def median(self) -> Array:
        """Median of the cumulative log return, shape (n_origins, n_horizons)."""
        return self.values[:, :, LEVELS.index(0.5)]

    @property
    def mean(self) -> Array:
        """Mean of the cumulative log return, shape (n_origins, n_horizons).

        The quantile function is integrated by the trapezoid rule over the levels and held constant beyond the
        outermost ones, so that the far tails weigh as much as the 1% and 99% quantiles.
        """
        grid = np.array([0.0, *LEVELS, 1.0])
        padded = np.concatenate([self.values[..., :1], self.values, self.values[..., -1:]], axis=-1)
        result: Array = np.trapezoid(padded, grid, axis=-1)
        return result

    def interval(self, coverage: float) -> tuple[Array, Array]:
        """Central interval that the outcome falls into with the given probability.

        Parameters
        ----------
        coverage : float
            0.5, 0.8, 0.9, 0.95 or 0.98, or any other whose two ends are levels.

        Returns
        -------
        tuple of two ndarrays of shape (n_origins, n_horizons)
            Lower and upper end.
        """
        low, high = round((1 - coverage) / 2, 6), round((1 + coverage) / 2, 6)
        if not (low < high and low in LEVELS and high in LEVELS):
            allowed = [round(1 - 2 * level, 6) for level in LEVELS if level < 0.5]
            raise ParameterError(
                f"an interval ends at two forecast levels. Received: {coverage}; allowed: {allowed}"
            )
        return self.values[:, :, LEVELS.index(low)], self.values[:, :, LEVELS.index(high)]

    def probability_of_rise(self) -> Array:
        """Probability that the cumulative return is above zero, shape (n_origins, n_horizons).

        The quantile function is interpolated linearly in the level; a zero outside the outermost quantiles
        gives the outermost level, because nothing is known beyond it.
        """
        return 1.0 - probability_below(self.values, np.zeros(self.values.shape[:2]))


def probability_below(values: Array, thresholds: Array) -> Array:
    """Distribution function at a threshold, by linear interpolation between quantiles.

    Parameters
    ----------
    values : ndarray of shape (..., n_levels)
        Non-decreasing quantiles.
    thresholds : ndarray of shape (...)
        Where to read the distribution function; NaN gives NaN.

    Returns
    -------
    ndarray of shape (...)
        Between 0.01 and 0.99: the outermost levels bound what is known. Where several quantiles tie at the
        threshold (a model with a point mass) the middle of their levels is taken.
    """
    levels = np.array(LEVELS)
    below = (values < thresholds[..., None]).sum(axis=-1)
    not_above = (values <= thresholds[..., None]).sum(axis=-1)
    left = np.clip(below - 1, 0, len(levels) - 2)
    start = np.take_along_axis(values, left[..., None], axis=-1)[..., 0]
    stop = np.take_along_axis(values, left[..., None] + 1, axis=-1)[..., 0]
    width = stop - start
    # No width: the outermost quantiles tie, and the threshold lies to one side of both.
    share = np.divide(thresholds - start, width, out=(thresholds > start).astype(float), where=width > 0)
    result = levels[left] + np.clip(share, 0.0, 1.0) * (levels[left + 1] - levels[left])
    tied = not_above > below + 1
    if tied.any():
        first = levels[np.minimum(below, len(levels) - 1)]
        last = levels[np.maximum(not_above - 1, 0)]
        result = np.where(tied, (first + last) / 2.0, result)
    return np.where(np.isnan(thresholds), np.nan, result)


def average(forecasts: Sequence[QuantileForecast]) -> QuantileForecast:
    """Average forecasts level by level with equal weights (Vincentisation), which keeps quantiles in order.

    Parameters
    ----------
    forecasts : sequence of QuantileForecast
        At least one, all of the same shape and horizons.
    """
    if not forecasts:
        raise ParameterError("an average needs at least one forecast. Received: none")
    first = forecasts[0]
    for other in forecasts[1:]:
        if other.horizons != first.horizons or other.values.shape != first.values.shape:
            raise ParameterError(
                "averaged forecasts share origins and horizons. Received: "
                f"{first.values.shape} at {first.horizons} and {other.values.shape} at {other.horizons}"
            )
    return QuantileForecast(np.mean([forecast.values for forecast in forecasts], axis=0), first.horizons)
