"""Settings of the scikit-learn models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from forecaster.job.model import ModelSpec

if TYPE_CHECKING:
    from forecaster.models.base import Forecaster

__all__ = ["BoostingModel", "MlpModel", "QuantileRegressionModel", "RandomKernelsModel", "RidgeModel"]


class RidgeModel(ModelSpec):
    """Ridge regression of the scaled return on its lags, with residual quantiles."""

    complexity: ClassVar[int] = 3
    sees_covariates: ClassVar[bool] = True

    kind: Literal["ridge"]
    lags: PositiveInt = 22
    """Scaled daily returns that serve as inputs."""
    penalty: PositiveFloat = 1000.0
    """Weight of the squared coefficients, over standardised inputs."""

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"ridge on {self.lags} lags, residual quantiles"

    def history(self, lookback: int) -> int:
        """Sessions that an origin needs up to itself."""
        return self.lags

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.learned import RidgeForecaster

        return RidgeForecaster(self.lags, self.penalty)


class BoostingModel(ModelSpec):
    """Histogram gradient boosting of the scale on HAR features and the market, with residual quantiles."""

    complexity: ClassVar[int] = 4
    sees_covariates: ClassVar[bool] = True

    kind: Literal["boosting"]
    iterations: PositiveInt = 60
    """Trees for each horizon."""
    learning_rate: PositiveFloat = 0.05
    """Share of each tree that is added."""
    leaves: int = Field(8, ge=2)
    """Largest number of leaves of a tree."""

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"gradient boosting of the scale, {self.iterations} trees a horizon"

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.learned import BoostingForecaster

        return BoostingForecaster(self.iterations, self.learning_rate, self.leaves, seed)


class QuantileRegressionModel(ModelSpec):
    """Linear quantile regression of the scaled return on HAR features and its lags, level by level."""

    complexity: ClassVar[int] = 3
    sees_covariates: ClassVar[bool] = True

    kind: Literal["quantile_regression"]
    lags: PositiveInt = 5
    """Scaled daily returns that serve as inputs beside the HAR features."""

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"linear quantile regression on HAR features and {self.lags} lags"

    def history(self, lookback: int) -> int:
        """Sessions that an origin needs up to itself."""
        return self.lags

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.learned import QuantileRegressionForecaster

        return QuantileRegressionForecaster(self.lags)


class MlpModel(ModelSpec):
    """A perceptron of scikit-learn for the scale on HAR features and the market, residual quantiles."""

    complexity: ClassVar[int] = 4
    sees_covariates: ClassVar[bool] = True

    kind: Literal["mlp_sklearn"]
    units: PositiveInt = 32
    """Units of the hidden layer."""
    epochs: PositiveInt = 8
    """Passes over the training origins."""

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"perceptron of scikit-learn of the scale, {self.units} hidden units"

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.learned import MlpForecaster

        return MlpForecaster(self.units, self.epochs, seed)


class RandomKernelsModel(ModelSpec):
    """Ridge of the scale on random convolution kernels, HAR features and the market, residual quantiles."""

    complexity: ClassVar[int] = 4
    sees_covariates: ClassVar[bool] = True

    kind: Literal["random_kernels"]
    kernels: PositiveInt = 336
    """Random kernels of nine taps."""

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"ridge of the scale on {self.kernels} random kernels, HAR features and the market"

    def history(self, lookback: int) -> int:
        """Sessions that an origin needs up to itself: the lookback, or the nine of the shortest kernel."""
        return max(lookback, 9)

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.learned import RandomKernelForecaster

        return RandomKernelForecaster(self.kernels, lookback, seed)
