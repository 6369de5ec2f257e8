"""Settings of the naive models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from forecaster.job.model import ModelSpec

if TYPE_CHECKING:
    from forecaster.models.base import Forecaster

__all__ = ["HistoricalModel", "ZeroModel"]


class ZeroModel(ModelSpec):
    """Past distribution of each symbol without its mean: no drift, no skill."""

    complexity: ClassVar[int] = 0

    kind: Literal["zero"]

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return "past distribution without drift"

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.naive import HistoricalForecaster

        return HistoricalForecaster(centred=True)


class HistoricalModel(ModelSpec):
    """Past distribution of each symbol: the reference of no skill."""

    complexity: ClassVar[int] = 1

    kind: Literal["historical"]

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return "past distribution"

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.naive import HistoricalForecaster

        return HistoricalForecaster()
