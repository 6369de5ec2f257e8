"""Settings of the econometric models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveInt

from forecaster.job.model import ModelSpec

if TYPE_CHECKING:
    from forecaster.models.base import Forecaster

__all__ = [
    "EwmaModel",
    "GarchModel",
    "GjrModel",
    "HarLogModel",
    "HarxModel",
    "LinModel",
    "QlikeModel",
]

YEAR = 250
"""Sessions that the longest mean of HARX, and a GARCH fit, look back on."""


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


class _GarchSettings(ModelSpec):
    """What the GARCH models share."""

    complexity: ClassVar[int] = 3

    residuals: Literal["symbol", "pooled"] = "symbol"
    """Whether each symbol has residual quantiles of its own."""
    window: int | None = Field(None, ge=YEAR)
    """Estimate on the last so many returns of a symbol; on all of them where not given."""

    @property
    def _about(self) -> str:
        span = f"last {self.window:,} returns" if self.window else "all past returns"
        return f"{span}, {self.residuals} residuals"

    def history(self, lookback: int) -> int:
        """Sessions that an origin needs up to itself."""
        return YEAR


class GarchModel(_GarchSettings):
    """GARCH(1,1) volatility with Student t shocks, with filtered historical simulation."""

    kind: Literal["garch_t_fhs"]

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"GARCH-t volatility on {self._about}"

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.econometric import GarchForecaster

        return GarchForecaster(False, self.residuals == "symbol", self.window)


class GjrModel(_GarchSettings):
    """GJR-GARCH(1,1,1) volatility, in which losses weigh more, with filtered historical simulation."""

    kind: Literal["gjr_t_fhs"]

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"GJR-GARCH-t volatility on {self._about}"

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.econometric import GarchForecaster

        return GarchForecaster(True, self.residuals == "symbol", self.window)


class HarxModel(ModelSpec):
    """Pooled regression of the size of the return on past sizes, losses, the market and GJR volatility."""

    complexity: ClassVar[int] = 3

    kind: Literal["harx_fhs"]

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return "HAR of absolute returns with leverage, market and GJR, pooled residuals"

    def history(self, lookback: int) -> int:
        """Sessions that an origin needs up to itself."""
        return YEAR

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.econometric import HarxForecaster

        return HarxForecaster()


class LinModel(ModelSpec):
    """HARX with the cross-section of all symbols, fitted to the mean size of the coming daily returns."""

    complexity: ClassVar[int] = 3

    kind: Literal["lin"]

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return "HARX and the cross-section, fitted to mean daily sizes, pooled residuals"

    def history(self, lookback: int) -> int:
        """Sessions that an origin needs up to itself."""
        return YEAR

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.econometric import HarxForecaster

        return HarxForecaster(cross_section=True, target="daily")


class HarLogModel(ModelSpec):
    """Heterogeneous autoregression of the log variance, pooled over symbols."""

    complexity: ClassVar[int] = 3

    kind: Literal["har_log"]
    windows: tuple[PositiveInt, ...] = Field((1, 5, 22, 66, 250), min_length=1)
    """Sessions of the mean variances that serve as regressors."""

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"HAR of the log variance over {', '.join(map(str, self.windows))} sessions"

    def history(self, lookback: int) -> int:
        """Sessions that an origin needs up to itself."""
        return max(self.windows)

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.econometric import HarLogForecaster

        return HarLogForecaster(self.windows)


class QlikeModel(ModelSpec):
    """Log-linear model of the variance that minimises QLIKE: a gamma GLM, pooled over symbols."""

    complexity: ClassVar[int] = 3

    kind: Literal["qlike_glm"]

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return "GLM of the variance by QLIKE, with leverage and the cross-section"

    def history(self, lookback: int) -> int:
        """Sessions that an origin needs up to itself."""
        return YEAR

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.econometric import QlikeForecaster

        return QlikeForecaster()
