"""Linear quantile regression on HAR features, lags and covariates, for every level and horizon."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve
from scipy.special import expit

from forecaster.errors import NotFittedError
from forecaster.models.base import ResidualQuantiles, known_targets, load_arrays, row_by_row, save_arrays
from forecaster.models.covariates import CovariateInputs
from forecaster.models.learned.blocks import SCALE_FLOOR
from forecaster.quantiles import LEVELS, QuantileForecast, Tails
from forecaster.windows import Windows

__all__ = ["QuantileRegressionForecaster", "fit_quantiles"]

Array = NDArray[np.float64]

BANDWIDTH = 0.02
"""Width of the smoothing of the loss around zero, in units of the outcome."""

STEPS = 100
"""Most Newton steps for a level; about five are taken."""

TOLERANCE = 1e-10
"""A step that promises less than this of the mean loss ends the search."""

NORMAL_WIDTH = 3.2897
"""The 95% quantile of a standard normal less its 5% quantile."""


def fit_quantiles(inputs: Array, outcomes: Array, levels: tuple[float, ...] = LEVELS) -> Array:
    """Fit a linear function of the inputs to each quantile of the outcome.

    Parameters
    ----------
    inputs : ndarray of shape (n_rows, n_inputs)
        Of about unit size, a column of ones for the constant among them.
    outcomes : ndarray of shape (n_rows,)
        Of about unit size; `BANDWIDTH` is in this unit.
    levels : tuple of float
        Increasing, each between 0 and 1.

    Returns
    -------
    ndarray of shape (n_inputs, n_levels)
        Coefficients. The fitted quantiles of a row are not yet in order.

    Notes
    -----
    Minimises the mean of ``level * e + b * log(1 + exp(-e / b))`` over the errors e: the pinball loss,
    smoothed by a logistic kernel of width b. Newton's method takes a few steps for each level from the
    solution of the level beside it. On 20,000 rows and 10 inputs that is 0.03 s a level, where
    ``sklearn.linear_model.QuantileRegressor``, a linear program, takes 20 to 40 s; the pinball losses of the
    two differ by less than 1e-4 of themselves.

    Zheng, "Gradient descent algorithms for quantile regression with smooth approximation", International
    Journal of Machine Learning and Cybernetics 2 (2011); He, Pan, Tan and Zhou, "Smoothed quantile regression
    with large-scale inference", Journal of Econometrics 232 (2023).
    """
    transposed = np.ascontiguousarray(inputs.T)
    middle = int(np.argmin(np.abs(np.array(levels) - 0.5)))
    result = np.zeros((inputs.shape[1], len(levels)))
    result[:, middle] = _fit_level(inputs, transposed, outcomes, levels[middle], result[:, middle])
    for index in range(middle + 1, len(levels)):
        result[:, index] = _fit_level(inputs, transposed, outcomes, levels[index], result[:, index - 1])
    for index in range(middle - 1, -1, -1):
        result[:, index] = _fit_level(inputs, transposed, outcomes, levels[index], result[:, index + 1])
    return result


def _smoothed_loss(errors: Array, level: float) -> float:
    return float(np.mean(level * errors + BANDWIDTH * np.logaddexp(0.0, -errors / BANDWIDTH)))


def _fit_level(inputs: Array, transposed: Array, outcomes: Array, level: float, start: Array) -> Array:
    """Newton's method with a line search on the smoothed loss, which is convex."""
    coefficients, errors = start, outcomes - inputs @ start
    loss = _smoothed_loss(errors, level)
    for _ in range(STEPS):
        below = expit(-errors / BANDWIDTH)
        gradient = transposed @ (below - level) / len(outcomes)
        weight = below * (1.0 - below)
        near = np.flatnonzero(weight > 1e-6)  # a small part of the rows bends the loss at all
        part = inputs[near]
        curvature = (part.T * weight[near]) @ part / (len(outcomes) * BANDWIDTH)
        # Far tails and collinear inputs have next to no curvature: keep the step finite.
        curvature.flat[:: len(curvature) + 1] += 1e-6
        step = solve(curvature, -gradient, assume_a="pos")
        promised = -float(gradient @ step)
        if promised < TOLERANCE:
            break
        moved, size = inputs @ step, 1.0
        while (attempt := _smoothed_loss(errors - size * moved, level)) > loss - 1e-4 * size * promised:
            size /= 2.0
            if size < 1e-6:
                return coefficients
        coefficients, errors, loss = coefficients + size * step, errors - size * moved, attempt
    return coefficients


class QuantileRegressionForecaster:
    """Each quantile of the scaled return as a linear function of HAR features, lags and covariates.

    Quantiles that cross at an origin are put in order, which brings them nearer to the truth (Chernozhukov,
    Fernandez-Val and Galichon, "Quantile and Probability Curves Without Crossing", Econometrica 78, 2010).
    Inputs are held within the range of the training rows: a line goes on for ever, the data do not.

    Parameters
    ----------
    lags : int
        Scaled daily returns up to the origin that serve as inputs beside the HAR features.
    """

    def __init__(self, lags: int = 5) -> None:
        self.lags = lags
        self.tails = ResidualQuantiles(by_symbol=False)
        self.covariates = CovariateInputs()
        self.scaling: Array | None = None
        self.coefficients: Array | None = None

    @property
    def parameters(self) -> int:
        """Number of coefficients and of what states the tails."""
        coefficients = 0 if self.coefficients is None else self.coefficients.size
        return coefficients + self.tails.parameters

    def fit(self, windows: Windows) -> Self:
        """Fit every level at every horizon on all origins."""
        windows = windows.pooled
        standardised = known_targets(windows) / windows.scales
        self.covariates.fit(windows)
        raw = self._raw_inputs(windows)
        low, high = raw.min(axis=0), raw.max(axis=0)
        deviation = raw.std(axis=0)
        self.scaling = np.stack([low, high, raw.mean(axis=0), np.where(deviation > 1e-9, deviation, 1.0)])
        inputs = self._inputs(raw)
        self.coefficients = np.stack([fit_quantiles(inputs, column) for column in standardised.T])
        location, scale = _location_and_scale(self._quantiles(inputs))
        self.tails.fit(windows, (standardised - location) / scale)
        return self

    def _raw_inputs(self, windows: Windows) -> Array:
        features = windows.panel.har_features[windows.rows]
        parts = [features, windows.lags(self.lags), self.covariates(windows)]
        return np.concatenate(parts, axis=1, dtype=np.float64)

    def _inputs(self, raw: Array) -> Array:
        assert self.scaling is not None
        low, high, mean, deviation = self.scaling
        standardised = (np.clip(raw, low, high) - mean) / deviation
        return np.concatenate([np.ones((len(raw), 1)), standardised], axis=1)

    def _quantiles(self, inputs: Array) -> Array:
        assert self.coefficients is not None
        fitted = [row_by_row(inputs, coefficients) for coefficients in self.coefficients]
        return np.sort(np.stack(fitted, axis=1), axis=2)

    def predict(self, windows: Windows) -> QuantileForecast:
        """Evaluate the lines at each origin; the tails beyond them are those of past outcomes."""
        if self.coefficients is None:
            raise NotFittedError("a model is fitted before it predicts; call fit first")
        quantiles = self._quantiles(self._inputs(self._raw_inputs(windows)))
        location, scale = _location_and_scale(quantiles)
        tails = self.tails.forecast(windows, windows.scales * scale, windows.scales * location).tails
        values = windows.scales[:, :, None] * quantiles
        assert tails is not None
        ordered = Tails(
            np.minimum(tails.low, values[:, :, 0]), np.maximum(tails.high, values[:, :, -1]), tails.variance
        )
        return QuantileForecast(values, windows.horizons, ordered)

    def save(self, folder: Path) -> None:
        """Write the coefficients, the scaling of the inputs and the tails."""
        if self.coefficients is None or self.scaling is None:
            raise NotFittedError("a model is fitted before it is saved; call fit first")
        learned: dict[str, NDArray[np.generic]] = {"coefficients": self.coefficients, "scaling": self.scaling}
        save_arrays(folder, learned | self.covariates.state() | self.tails.state())

    def load(self, folder: Path) -> Self:
        """Read what `save` wrote."""
        state = load_arrays(folder)
        self.coefficients = state["coefficients"].astype(np.float64)
        self.scaling = state["scaling"].astype(np.float64)
        self.covariates.restore(state)
        self.tails.restore(state)
        return self


def _location_and_scale(quantiles: Array) -> tuple[Array, Array]:
    """Median, and the width of the middle 90% over that of a standard normal."""
    low, middle, high = (quantiles[:, :, LEVELS.index(level)] for level in (0.05, 0.5, 0.95))
    return middle, np.maximum((high - low) / NORMAL_WIDTH, SCALE_FLOOR)
