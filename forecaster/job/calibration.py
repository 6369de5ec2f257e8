"""Settings of calibration: how past outcomes move the quantiles of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from forecaster.job.base import Spec

if TYPE_CHECKING:
    from forecaster.calibration import Rule

__all__ = ["CalibrationSpec"]


class _Layer(Spec):
    """What the rules share."""

    outer: Annotated[float, Field(ge=0.01, le=0.5)] = 0.5
    """Levels up to this one, and from one minus it, are moved; 0.5 moves all of them."""


class _RecentScores(_Layer):
    """What the rules that look at recent scores share."""

    window: PositiveInt = 1000
    """Evenings whose outcomes count."""
    refresh: PositiveInt = 63
    """Evenings after which the scores are sorted anew."""


class SplitCalibration(_RecentScores):
    """Empirical quantiles of recent scores: split conformal."""

    kind: Literal["split"]

    def build(self) -> Rule:
        """Make the rule."""
        from forecaster.calibration import Split

        return Split(self.window, self.refresh, self.outer)


class AdaptiveCalibration(_RecentScores):
    """Empirical quantiles of recent scores at levels that follow the errors: adaptive conformal."""

    kind: Literal["adaptive"]
    rate: PositiveFloat = 0.005
    """How far a level moves for an evening on which every outcome lay above, at one session ahead."""

    def build(self) -> Rule:
        """Make the rule."""
        from forecaster.calibration import Adaptive

        return Adaptive(self.window, self.refresh, self.rate, self.outer)


class ControlCalibration(_Layer):
    """Thresholds moved by the last error and by the sum of errors: conformal control."""

    kind: Literal["control"]
    rate: PositiveFloat = 0.02
    """How many widths a threshold moves for an evening on which every outcome lay above, at h = 1."""
    integral: NonNegativeFloat = 0.3
    """Weight of the sum of errors, in widths, at one session ahead."""
    by_symbol: bool = False
    """Whether each symbol has thresholds of its own."""

    def build(self) -> Rule:
        """Make the rule."""
        from forecaster.calibration import Control

        return Control(self.rate, self.integral, self.by_symbol, self.outer)


CalibrationSpec = Annotated[
    SplitCalibration | AdaptiveCalibration | ControlCalibration, Field(discriminator="kind")
]
