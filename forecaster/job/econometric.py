"""Settings of the econometric models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from forecaster.job.base import ModelSpec

if TYPE_CHECKING:
    from forecaster.models.base import Forecaster

__all__ = ["EwmaModel"]


class EwmaModel(ModelSpec):
    """EWMA volatility with filtered historical simulation."""

    complexity: ClassVar[int] = 2

    kind: Literal["ewma_fhs"]
    decay: float = Field(0.94, gt=0.0, lt=1.0)
    """Weight of yesterday's variance."""
    residuals: Literal["symbol", "pooled"] = "symbol"
    """Whether each symbol has residual quantiles of its own."""

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"EWMA({self.decay:g}) volatility, {self.residuals} residuals"

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.econometric import EwmaForecaster

        return EwmaForecaster(self.decay, by_symbol=self.residuals == "symbol")
