"""Estimators of scikit-learn on lags, and on HAR features of the series and the market; on covariates."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Self

import numpy as np
import skops.io
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning
from sklearn.linear_model import Ridge
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from forecaster.errors import NotFittedError
from forecaster.features import CLIP
from forecaster.models.base import ResidualQuantiles, known_targets, load_arrays, save_arrays
from forecaster.models.covariates import CovariateInputs
from forecaster.models.learned.blocks import SCALE_FLOOR, out_of_sample
from forecaster.models.learned.inputs import ScaleInputs
from forecaster.quantiles import QuantileForecast
from forecaster.windows import Windows

__all__ = ["BoostingForecaster", "MlpForecaster", "RidgeForecaster"]

Array = NDArray[np.float64]

ESTIMATOR = "estimator.skops"

ROWS_AT_ONCE = 2048
"""Rows of each call of an estimator that forecasts, filled up where there are fewer: BLAS adds in another
order for another number, and the bits of a forecast must not depend on what else is forecast."""


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
        windows = windows.pooled
        standardised = known_targets(windows) / windows.scales
        inputs, outcomes = self._inputs(windows), self._outcomes(standardised)
        with warnings.catch_warnings():
            # A fixed number of passes is the rule here, not a failure to converge; one horizon is a column.
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", DataConversionWarning)
            self.fitted = clone(self.estimator).fit(inputs, outcomes)
            predicted = out_of_sample(self.estimator, inputs, outcomes, windows)
        location, scale = self._location_and_scale(predicted)
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
        location, scale = self._location_and_scale(
            self._predicted(self._inputs(windows), len(windows.horizons))
        )
        return self.residuals.forecast(windows, windows.scales * scale, windows.scales * location)

    def _predicted(self, inputs: NDArray[np.float32], n_horizons: int) -> Array:
        """Ask the estimator about each origin: values of shape (n_origins, n_horizons)."""
        result = np.empty((len(inputs), n_horizons))
        for start in range(0, len(inputs), ROWS_AT_ONCE):
            part = inputs[start : start + ROWS_AT_ONCE]
            filled = np.pad(part, [(0, ROWS_AT_ONCE - len(part)), (0, 0)], mode="edge")
            said = self.fitted.predict(filled).reshape(ROWS_AT_ONCE, n_horizons)
            result[start : start + ROWS_AT_ONCE] = said[: len(part)]
        return result

    def save(self, folder: Path) -> None:
        """Write the estimator in the format of skops, and the residual quantiles."""
        if self.fitted is None:
            raise NotFittedError("a model is fitted before it is saved; call fit first")
        skops.io.dump(self.fitted, folder / ESTIMATOR)
        save_arrays(folder, self._state())

    def load(self, folder: Path) -> Self:
        """Read what `save` wrote; only scikit-learn's own types are trusted."""
        path = folder / ESTIMATOR
        trusted = [name for name in skops.io.get_untrusted_types(file=path) if name in TRUSTED]
        self.fitted = skops.io.load(path, trusted=trusted)
        self._restore(load_arrays(folder))
        return self

    def _state(self) -> dict[str, NDArray[np.generic]]:
        return self.residuals.state()

    def _restore(self, state: dict[str, NDArray[np.generic]]) -> None:
        self.residuals.restore(state)


TRUSTED = frozenset(
    {
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogLink",
        "sklearn._loss.loss.HalfPoissonLoss",
        "sklearn._loss._loss.CyHalfPoissonLoss",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    }
)
"""Types of scikit-learn, beyond those that skops trusts by itself, that the models here are made of."""


class RidgeForecaster(_ScikitLearnForecaster):
    """Ridge regression of the scaled return on its own past and on covariates: a model of the mean.

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
        self.covariates = CovariateInputs()
        self.estimator = make_pipeline(StandardScaler(), Ridge(alpha=penalty))

    @property
    def parameters(self) -> int:
        """Number of coefficients and quantiles."""
        coefficients = (
            0 if self.fitted is None else self.fitted[-1].coef_.size + self.fitted[-1].intercept_.size
        )
        return int(coefficients) + self.residuals.parameters

    def fit(self, windows: Windows) -> Self:
        """Fit the estimator on all origins, and the residual quantiles on out-of-sample residuals."""
        windows = windows.pooled
        self.covariates.fit(windows)
        return super().fit(windows)

    def _state(self) -> dict[str, NDArray[np.generic]]:
        return super()._state() | self.covariates.state()

    def _restore(self, state: dict[str, NDArray[np.generic]]) -> None:
        super()._restore(state)
        self.covariates.restore(state)

    def _inputs(self, windows: Windows) -> NDArray[np.float32]:
        lags = windows.lags(self.lags)
        # Without covariates a view of the panel, of no size of its own.
        return np.concatenate([lags, self.covariates(windows)], axis=1) if self.covariates.names else lags

    def _outcomes(self, standardised: Array) -> Array:
        return np.clip(standardised, -CLIP, CLIP)

    def _location_and_scale(self, predicted: Array) -> tuple[Array, Array]:
        return predicted, np.ones_like(predicted)


class _ScaleForecaster(_ScikitLearnForecaster):
    """A model of the scale: the size of the coming return over the EWMA scale, on `ScaleInputs`."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = ScaleInputs()

    def fit(self, windows: Windows) -> Self:
        """Fit the estimator on all origins, and the residual quantiles on out-of-sample residuals."""
        windows = windows.pooled
        self.inputs.fit(windows)
        return super().fit(windows)

    def _state(self) -> dict[str, NDArray[np.generic]]:
        return super()._state() | self.inputs.state()

    def _restore(self, state: dict[str, NDArray[np.generic]]) -> None:
        super()._restore(state)
        self.inputs.restore(state)

    def _inputs(self, windows: Windows) -> NDArray[np.float32]:
        return self.inputs(windows)

    def _outcomes(self, standardised: Array) -> Array:
        return np.minimum(np.abs(standardised), CLIP)

    def _location_and_scale(self, predicted: Array) -> tuple[Array, Array]:
        return np.zeros_like(predicted), np.clip(predicted, SCALE_FLOOR, CLIP)


class BoostingForecaster(_ScaleForecaster):
    """Histogram gradient boosting of the size of the scaled return on `ScaleInputs`: a model of the scale.

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


class MlpForecaster(_ScaleForecaster):
    """A perceptron of one hidden layer for the log of the scale, on `ScaleInputs`.

    Fitted by Adam to the Poisson deviance, whose link is the logarithm and whose minimum is the mean size.
    Inputs are held within the range of the training rows.

    Parameters
    ----------
    units : int
        Units of the hidden layer.
    epochs : int
        Passes over the training origins. There is no early stopping, whose random split would leak over
        overlapping horizons.
    seed : int
        Seed of the weights and of the order of the origins.
    """

    def __init__(self, units: int = 32, epochs: int = 8, seed: int = 0) -> None:
        super().__init__()
        network = MLPRegressor(
            loss="poisson",
            hidden_layer_sizes=(units,),
            learning_rate_init=2e-3,
            max_iter=epochs,
            n_iter_no_change=epochs,
            random_state=seed,
        )
        self.estimator = make_pipeline(MinMaxScaler(clip=True), StandardScaler(), network)

    @property
    def parameters(self) -> int:
        """Number of weights and quantiles."""
        if self.fitted is None:
            return self.residuals.parameters
        network = self.fitted[-1]
        weights = sum(part.size for part in (*network.coefs_, *network.intercepts_))
        return int(weights) + self.residuals.parameters
