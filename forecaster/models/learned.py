"""scikit-learn models on lags and HAR features, made into distributions by their own residuals."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import skops.io
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from forecaster.errors import NotFittedError
from forecaster.features import CLIP
from forecaster.models.base import ResidualQuantiles, known_targets, load_arrays, save_arrays
from forecaster.quantiles import QuantileForecast
from forecaster.windows import Windows

__all__ = ["BoostingForecaster", "RidgeForecaster", "out_of_sample"]

Array = NDArray[np.float64]

ESTIMATOR = "estimator.skops"
BLOCKS = 4
"""Blocks of consecutive sessions in which residuals are made out of sample."""

SCALE_FLOOR = 0.25
"""Smallest forecast scale, as a share of the EWMA one."""


def out_of_sample(estimator: Any, inputs: NDArray[np.float32], outcomes: Array, windows: Windows) -> Array:
    """Predict each training origin by an estimator that was fitted on other blocks of sessions.

    The origins are cut into `BLOCKS` blocks of consecutive sessions. Each block is predicted from the rest
    without the origins whose outcomes, or whose own outcomes, overlap with it: residuals made on the rows
    that a flexible model was fitted on are too narrow.

    Parameters
    ----------
    estimator : scikit-learn regressor
        Cloned for each block.
    inputs : ndarray of shape (n_origins, n_features)
    outcomes : ndarray of shape (n_origins, n_horizons)
    windows : Windows
        The training origins.

    Returns
    -------
    ndarray of shape (n_origins, n_horizons)
        NaN where a block has nothing else to learn from.
    """
    predicted = np.full_like(outcomes, np.nan)
    calendar = windows.panel.calendar
    place = np.searchsorted(calendar, windows.sessions)
    # A series that misses sessions reaches further along the calendar than h sessions of it.
    reach = 2 * max(windows.horizons)
    for block in np.array_split(np.unique(place), BLOCKS):
        if not block.size:
            continue
        inside = (place >= block[0]) & (place <= block[-1])
        apart = (place < block[0] - reach) | (place > block[-1] + reach)
        if apart.sum() >= ResidualQuantiles.minimum:
            fitted = _fit(estimator, inputs[apart], outcomes[apart])
            predicted[inside] = fitted.predict(inputs[inside]).reshape(-1, outcomes.shape[1])
    return predicted


def _fit(estimator: Any, inputs: NDArray[np.float32], outcomes: Array) -> Any:
    """Fit a copy on one thread: more gain nothing here, and wait for each other on a busy machine."""
    with threadpool_limits(limits=1):
        return clone(estimator).fit(inputs, outcomes)


class _ScikitLearnForecaster:
    """What the scikit-learn models share: fit, honest residuals, and the safe format of skops."""

    estimator: Any

    def __init__(self) -> None:
        self.fitted: Any = None
        self.residuals = ResidualQuantiles(by_symbol=False)

    def _inputs(self, windows: Windows) -> NDArray[np.float32]:
        raise NotImplementedError

    def _outcomes(self, standardised: Array) -> Array:
        raise NotImplementedError

    def _location_and_scale(self, predicted: Array) -> tuple[Array, Array]:
        """Location and scale of the outcome, both over the EWMA scale."""
        raise NotImplementedError

    def fit(self, windows: Windows) -> Self:
        """Fit the estimator on all origins, and the residual quantiles on out-of-sample residuals."""
        standardised = known_targets(windows) / windows.scales
        inputs, outcomes = self._inputs(windows), self._outcomes(standardised)
        self.fitted = _fit(self.estimator, inputs, outcomes)
        location, scale = self._location_and_scale(out_of_sample(self.estimator, inputs, outcomes, windows))
        residuals = (standardised - location) / scale
        if not np.isfinite(residuals).all(axis=1).sum() >= ResidualQuantiles.minimum:
            # Too few origins to hold any out: the residuals of the fit itself are all there is.
            in_sample = self.fitted.predict(inputs).reshape(outcomes.shape)
            location, scale = self._location_and_scale(in_sample)
            residuals = (standardised - location) / scale
        self.residuals.fit(windows, residuals)
        return self

    def predict(self, windows: Windows) -> QuantileForecast:
        """Place and stretch the residual quantiles by what the estimator says of each origin."""
        if self.fitted is None:
            raise NotFittedError("a model is fitted before it predicts; call fit first")
        predicted = self.fitted.predict(self._inputs(windows)).reshape(len(windows), len(windows.horizons))
        location, scale = self._location_and_scale(predicted)
        standardised = location[:, :, None] + scale[:, :, None] * self.residuals.predict(windows)
        return QuantileForecast(windows.scales[:, :, None] * standardised, windows.horizons)

    def save(self, folder: Path) -> None:
        """Write the estimator in the format of skops, and the residual quantiles."""
        if self.fitted is None:
            raise NotFittedError("a model is fitted before it is saved; call fit first")
        skops.io.dump(self.fitted, folder / ESTIMATOR)
        save_arrays(folder, self.residuals.state())

    def load(self, folder: Path) -> Self:
        """Read what `save` wrote; only scikit-learn's own types are trusted."""
        path = folder / ESTIMATOR
        trusted = [name for name in skops.io.get_untrusted_types(file=path) if name in TRUSTED]
        self.fitted = skops.io.load(path, trusted=trusted)
        self.residuals.restore(load_arrays(folder))
        return self


TRUSTED = frozenset(
    {
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogLink",
        "sklearn._loss.loss.HalfPoissonLoss",
        "sklearn._loss._loss.CyHalfPoissonLoss",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    }
)
"""Types of scikit-learn, beyond those that skops trusts by itself, that the models here are made of."""


class RidgeForecaster(_ScikitLearnForecaster):
    """Ridge regression of the scaled return on its own past: a model of the mean.

    Parameters
    ----------
    lags : int
        Scaled daily returns up to the origin that serve as inputs.
    penalty : float
        Weight of the squared coefficients, over standardised inputs.
    """

    def __init__(self, lags: int = 22, penalty: float = 1000.0) -> None:
        super().__init__()
        self.lags = lags
        self.estimator = make_pipeline(StandardScaler(), Ridge(alpha=penalty))

    @property
    def parameters(self) -> int:
        """Number of coefficients and quantiles."""
        coefficients = (
            0 if self.fitted is None else self.fitted[-1].coef_.size + self.fitted[-1].intercept_.size
        )
        return int(coefficients) + self.residuals.parameters

    def _inputs(self, windows: Windows) -> NDArray[np.float32]:
        return windows.sequences(self.lags)[:, :, 0]

    def _outcomes(self, standardised: Array) -> Array:
        return np.clip(standardised, -CLIP, CLIP)

    def _location_and_scale(self, predicted: Array) -> tuple[Array, Array]:
        return predicted, np.ones_like(predicted)


class BoostingForecaster(_ScikitLearnForecaster):
    """Histogram gradient boosting of the size of the scaled return on HAR features: a model of the scale.

    Parameters
    ----------
    iterations : int
        Trees for each horizon. Early stopping is off: its random split leaks over overlapping horizons.
    learning_rate : float
        Share of each tree that is added.
    leaves : int
        Largest number of leaves of a tree.
    seed : int
        Seed of the estimator.
    """

    def __init__(
        self, iterations: int = 60, learning_rate: float = 0.05, leaves: int = 8, seed: int = 0
    ) -> None:
        super().__init__()
        self.estimator = MultiOutputRegressor(
            HistGradientBoostingRegressor(
                loss="poisson",
                max_iter=iterations,
                learning_rate=learning_rate,
                max_leaf_nodes=leaves,
                min_samples_leaf=100,
                early_stopping=False,
                random_state=seed,
            )
        )

    @property
    def parameters(self) -> int:
        """Number of leaves and quantiles."""
        if self.fitted is None:
            return self.residuals.parameters
        predictors = [
            tree for model in self.fitted.estimators_ for trees in model._predictors for tree in trees
        ]
        return int(sum(tree.get_n_leaf_nodes() for tree in predictors)) + self.residuals.parameters

    def _inputs(self, windows: Windows) -> NDArray[np.float32]:
        return windows.panel.har_features[windows.rows]

    def _outcomes(self, standardised: Array) -> Array:
        return np.minimum(np.abs(standardised), CLIP)

    def _location_and_scale(self, predicted: Array) -> tuple[Array, Array]:
        return np.zeros_like(predicted), np.maximum(predicted, SCALE_FLOOR)
