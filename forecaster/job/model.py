"""What every model of a job has in its settings."""

from __future__ import annotations

from typing import ClassVar

from forecaster.job.base import Name, NamedSpec
from forecaster.job.calibration import CalibrationSpec

__all__ = ["ModelSpec"]


class ModelSpec(NamedSpec):
    """What every model has: a name, and what it needs."""

    complexity: ClassVar[int]
    """Rank among the kinds; the simpler model wins a tie."""
    baseline: ClassVar[bool] = True
    """Whether it is one of the models to beat."""
    sees_covariates: ClassVar[bool] = False
    """Whether it looks at the covariates of the job."""

    name: Name = ""
    """Name in tables and in the tracking store; the kind where it is not given."""
    calibration: CalibrationSpec | None = None
    """How past outcomes move its quantiles; not at all where it is not given."""

    def history(self, lookback: int) -> int:
        """Sessions that an origin needs up to itself."""
        del lookback
        return 2
