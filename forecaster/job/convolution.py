"""Settings of the convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from forecaster.job.base import Spec
from forecaster.job.econometric import YEAR
from forecaster.job.model import ModelSpec
from forecaster.job.strategies import StrategySpec

if TYPE_CHECKING:
    from forecaster.kernels import Parallel
    from forecaster.liftings import Lifting
    from forecaster.models.base import Forecaster
    from forecaster.models.convolution.geometry import KernelConvolution

__all__ = ["ConvolutionModel", "DenseModel", "Training"]


class Training(Spec):
    """How a network is trained."""

    epochs: PositiveInt = 6
    """Passes over the training origins."""
    chunk: Annotated[int, Field(ge=64, le=256)] = 64
    """Consecutive origins that go through the network together: 64 to 256."""
    chunks_per_step: Annotated[int, Field(ge=4)] = 4
    """Chunks of a step, each from another place: at least 4."""
    learning_rate: PositiveFloat = 2e-3
    """Peak of the cosine schedule of AdamW."""
    weight_decay: NonNegativeFloat = 1e-3
    """Weight decay of AdamW."""
    half_life: NonNegativeFloat = 8.0
    """Years after which an origin counts half; 0 for no fading."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Share of the features that are dropped in training."""
    seeds: PositiveInt = 5
    """Networks that are trained from different seeds and averaged."""
    warm_start: bool = False
    """Whether each training of a backtest starts from the weights of the one before."""
    devices: PositiveInt = 1
    """Devices of a host (GPUs) that share each step of training; they divide its chunks evenly."""

    @model_validator(mode="after")
    def _even(self) -> Self:
        if self.chunks_per_step % self.devices:
            raise ValueError(
                f"devices divide the chunks of a step evenly; received {self.devices} devices for "
                f"{self.chunks_per_step} chunks"
            )
        return self


class _ScaleNetwork(ModelSpec):
    """What the networks share: a head for what is forecast, which starts at a linear model."""

    complexity: ClassVar[int] = 5
    baseline: ClassVar[bool] = False
    sees_covariates: ClassVar[bool] = True

    dense: PositiveInt = 64
    """Units of the hidden layer."""
    target: Literal["distribution", "variance", "point"] = "distribution"
    """What the network is trained for: the scale of the whole distribution by CRPS, the variance over the
    horizon (of returns or of the range, as the job's `variance` says) by QLIKE, or the mean by squared error.
    Every one of them forecasts quantiles."""
    anchor: Literal["lin", "ewma"] = "lin"
    """What training starts from: a linear model (the scale of `lin`; for the variance, `qlike_glm`), or the
    EWMA volatility. A mean starts at zero and is counted in this scale."""
    refit_every: PositiveInt = 1
    """Refits of a backtest from one training to the next; those between renew all but the network."""
    training: Training = Training()
    """How the network is trained."""

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.convolution.model import ConvolutionForecaster

        return ConvolutionForecaster(
            strategy=self.made_strategy(),
            layers=self.layers(),
            lookback=lookback,
            dense=self.dense,
            target=self.target,
            anchor=self.anchor,
            refit_every=self.refit_every,
            seed=seed,
            **self.training.model_dump(),
        )

    @property
    def _aim(self) -> str:
        """What is forecast, to end a description; nothing for the distribution."""
        return {"distribution": "", "variance": ", for the variance", "point": ", for the mean"}[self.target]

    def made_strategy(self) -> Lifting | Parallel | None:
        """Make what lifts the series; None without a convolution."""
        return None

    def layers(self) -> list[KernelConvolution]:
        """Give the convolutions, for a kernel stack or for a plan of it."""
        return []


class DenseModel(_ScaleNetwork):
    """The network of the convolution without the convolution: a hidden layer on its features."""

    kind: Literal["mlp"]

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"hidden layer of {self.dense} units on HAR features, no convolution{self._aim}"

    def history(self, lookback: int) -> int:
        """Sessions that an origin needs up to itself."""
        return YEAR


class ConvolutionModel(_ScaleNetwork):
    """A 2D kernel applied to the series by a strategy, beside HAR features, with a scale head."""

    kind: Literal["convolution"]
    strategy: StrategySpec
    """How the 2D kernel meets the 1D series."""
    filters: PositiveInt = 16
    """Filters of each convolution."""
    kernel: PositiveInt = 5
    """Steps of time that each kernel spans; the strategy gives its other side."""

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"2D kernel, {self.strategy.description}{self._aim}"

    def history(self, lookback: int) -> int:
        """Sessions that an origin needs up to itself."""
        return max(lookback + self.strategy.history, YEAR)

    def layers(self) -> list[KernelConvolution]:
        """Give the two convolutions, for a kernel stack or for a plan of it."""
        from forecaster.models.convolution.geometry import KernelConvolution

        return [
            KernelConvolution(self.filters, size, dilation=dilation, activation="gelu")
            for size, dilation in self.strategy.kernels(self.kernel)
        ]

    def made_strategy(self) -> Lifting | Parallel:
        """Make what lifts the series."""
        return self.strategy.build()
