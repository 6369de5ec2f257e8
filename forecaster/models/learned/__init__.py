"""Models learned by regression: of scikit-learn, of quantiles, and on random kernels."""

from forecaster.models.learned.blocks import out_of_sample
from forecaster.models.learned.estimators import BoostingForecaster, MlpForecaster, RidgeForecaster
from forecaster.models.learned.quantile_regression import QuantileRegressionForecaster
from forecaster.models.learned.random_kernels import RandomKernelForecaster

__all__ = [
    "BoostingForecaster",
    "MlpForecaster",
    "QuantileRegressionForecaster",
    "RandomKernelForecaster",
    "RidgeForecaster",
    "out_of_sample",
]
