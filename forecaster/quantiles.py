"""The forecast of a distribution: quantiles of cumulative log returns at fixed levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecaster.errors import ParameterError

__all__ = [
    "LEVELS",
    "TAIL_COLUMNS",
    "QuantileForecast",
    "Tails",
    "average",
    "concatenate",
    "expected_shortfall",
    "probability_below",
    "quantile_columns",
    "quantile_weights",
]

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

TAIL_COLUMNS = ("tail_low", "tail_high", "variance")
"""Columns of a table of forecasts that hold its tails, where a model states them."""


SHOWN = 5
"""Origins that a notebook shows of a forecast."""


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
class Tails:
    """What the 23 levels leave open: the means beyond the outermost ones, and the variance.

    One rule states them: *filtered historical simulation*. A model that forecasts a location m and a scale S
    takes its quantiles from standardised outcomes z of the past; ``low`` is then m + S times the mean of the
    z at or below their 1% quantile, ``high`` the same above 99%, and ``variance`` is S squared times the
    variance of the z. They are stored with the forecast, so that expected shortfall and variance are those
    that were issued.

    Parameters
    ----------
    low, high : ndarray of shape (n_origins, n_horizons)
        Mean outcome below the 1% quantile and above the 99% quantile, cumulative log returns.
    variance : ndarray of shape (n_origins, n_horizons)
        Variance of the cumulative log return; zero for a point mass.
    """

    low: Array
    high: Array
    variance: Array


@dataclass(frozen=True, eq=False, repr=False)
class QuantileForecast:
    """Quantiles of the cumulative log return over each horizon, one row an origin.

    Parameters
    ----------
    values : ndarray of shape (n_origins, n_horizons, n_levels)
        Cumulative log returns (not percent), non-decreasing along the levels and finite.
    horizons : tuple of int
        Horizons in sessions, one for each entry of the second axis.
    tails : Tails or None
        Tail means and variance, where the model states them.

    Raises
    ------
    ParameterError
        If the shape is wrong, a value is not finite, two quantiles cross, or a tail mean lies inside the
        outermost quantiles.
    """

    values: Array
    horizons: tuple[int, ...]
    tails: Tails | None = None

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
        if self.tails is not None:
            self._check_tails(self.tails)

    def _check_tails(self, tails: Tails) -> None:
        expected = self.values.shape[:2]
        shapes = {tails.low.shape, tails.high.shape, tails.variance.shape}
        if shapes != {expected}:
            raise ParameterError(
                f"tails have the shape (n_origins, n_horizons) = {expected}. Received: {sorted(shapes)}"
            )
        # Negated, so that NaN and a negative variance fail too.
        sound = (
            np.isfinite(tails.low + tails.high + tails.variance)
            & (tails.low <= self.values[:, :, 0])
            & (tails.high >= self.values[:, :, -1])
            & (tails.variance >= 0)
        )
        if not sound.all():
            rows = np.flatnonzero(~sound.all(axis=1))
            raise ParameterError(
                "a tail mean lies beyond the outermost quantile and a variance is not negative, both finite. "
                f"Received: {rows.size} origins where they do not, the first at row {rows[0]}; take them "
                "from the outcomes that the quantiles came from"
            )

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> QuantileForecast:
        """Keep the selected origins, by a mask or by positions."""
        tails = self.tails
        if tails is not None:
            tails = Tails(tails.low[rows], tails.high[rows], tails.variance[rows])
        return QuantileForecast(self.values[rows], self.horizons, tails)

    def __repr__(self) -> str:
        horizons = ", ".join(map(str, self.horizons))
        tails = ", with tails" if self.tails is not None else ""
        return f"QuantileForecast({len(self):,} origins; horizons {horizons}; {len(LEVELS)} levels{tails})"

    def _repr_html_(self) -> str:
        """Show the first origins in a notebook: median and 80% interval, in percent."""
        low, high = self.interval(0.8)
        percent = 100 * np.stack([self.median, low, high], axis=-1)[:SHOWN]
        rows = [
            "".join(
                f"<td>{middle:+.2f}% ({below:+.2f} to {above:+.2f})</td>" for middle, below, above in origin
            )
            for origin in percent
        ]
        cells = "".join(f"<tr>{row}</tr>" for row in rows)
        heads = "".join(f'<th scope="col">{h} sessions</th>' for h in self.horizons)
        caption = f"<caption>{self!r}: median and 80% interval of the log return</caption>"
        return f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{cells}</tbody></table>"

    @property
    def median(self) -> Array:
        """Median of the cumulative log return, shape (n_origins, n_horizons)."""
        return self.values[:, :, LEVELS.index(0.5)]

    @property
    def mean(self) -> Array:
        """Mean of the cumulative log return, shape (n_origins, n_horizons).

        The quantile function is integrated by the trapezoid rule over the levels; beyond the outermost ones
        it is the tail means where they are stated, else it is held constant.
        """
        inner: Array = np.trapezoid(self.values, np.array(LEVELS), axis=-1)
        low, high = self.values[..., 0], self.values[..., -1]
        if self.tails is not None:
            low, high = self.tails.low, self.tails.high
        return inner + LEVELS[0] * low + (1.0 - LEVELS[-1]) * high

    def expected_shortfall(self, level: float) -> Array:
        """Mean cumulative log return over the worst outcomes, shape (n_origins, n_horizons).

        See `expected_shortfall`.

        Parameters
        ----------
        level : float
            Share of the worst outcomes: a forecast level below one half.

        Raises
        ------
        ParameterError
            If the level is no such level, or the forecast states no tails.
        """
        if self.tails is None:
            raise ParameterError(
                "an expected shortfall needs the mean below the 1% quantile. Received: a forecast without "
                "tails; use a model that states them"
            )
        return expected_shortfall(self.values, self.tails.low, level)

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


def expected_shortfall(values: Array, tail_low: Array, level: float) -> Array:
    """Mean outcome over the worst share of a distribution.

    The quantile function integrated from 0 to the level, over the level (Acerbi and Tasche, "On the coherence
    of expected shortfall", Journal of Banking and Finance 26, 2002, equation 3.3): the stated mean below the
    1% quantile, then the trapezoid rule over the levels.

    Parameters
    ----------
    values : ndarray of shape (..., n_levels)
        Quantiles.
    tail_low : ndarray of shape (...)
        Mean outcome below the 1% quantile.
    level : float
        Share of the worst outcomes: a forecast level below one half.

    Returns
    -------
    ndarray of shape (...)
        Cumulative log return, at most the quantile at the level where the tail mean is at most the outermost.
    """
    allowed = [one for one in LEVELS if one < 0.5]
    if level not in allowed:
        raise ParameterError(
            f"an expected shortfall is taken at a level below one half. Received: {level}; allowed: {allowed}"
        )
    stop = LEVELS.index(level) + 1
    inner: Array = np.trapezoid(values[..., :stop], np.array(LEVELS[:stop]), axis=-1)
    return (LEVELS[0] * tail_low + inner) / level


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


def concatenate(forecasts: Sequence[QuantileForecast]) -> QuantileForecast:
    """Lay forecasts at the same horizons end to end; tails are kept where every forecast states them."""
    if len({forecast.horizons for forecast in forecasts}) != 1:
        raise ParameterError(
            "forecasts that are laid end to end share their horizons. Received: "
            f"{[forecast.horizons for forecast in forecasts]}"
        )
    values = np.concatenate([forecast.values for forecast in forecasts])
    stated = [forecast.tails for forecast in forecasts if forecast.tails is not None]
    if len(stated) < len(forecasts):
        return QuantileForecast(values, forecasts[0].horizons)
    tails = Tails(
        np.concatenate([one.low for one in stated]),
        np.concatenate([one.high for one in stated]),
        np.concatenate([one.variance for one in stated]),
    )
    return QuantileForecast(values, forecasts[0].horizons, tails)


def average(forecasts: Sequence[QuantileForecast]) -> QuantileForecast:
    """Average forecasts level by level with equal weights (Vincentisation), which keeps quantiles in order.

    Tails are kept where every forecast states them. Tail means average as quantiles do. The standard
    deviation is the average of standard deviations: exact where the forecasts differ in place and scale
    alone, else an upper bound (by Cauchy and Schwarz), close for forecasts of one return.

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
    values = np.mean([forecast.values for forecast in forecasts], axis=0)
    stated = [forecast.tails for forecast in forecasts if forecast.tails is not None]
    if len(stated) < len(forecasts):
        return QuantileForecast(values, first.horizons)
    tails = Tails(
        # Rounding must not put a tail inside the quantile beside it.
        np.minimum(np.mean([one.low for one in stated], axis=0), values[:, :, 0]),
        np.maximum(np.mean([one.high for one in stated], axis=0), values[:, :, -1]),
        np.square(np.mean([np.sqrt(one.variance) for one in stated], axis=0)),
    )
    return QuantileForecast(values, first.horizons, tails)
