"""EWMA volatility with filtered historical simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from forecaster import features
from forecaster.models.base import ResidualQuantiles, known_targets, load_arrays, save_arrays
from forecaster.quantiles import QuantileForecast
from forecaster.windows import Windows

__all__ = ["EwmaForecaster"]


class EwmaForecaster:
    """EWMA volatility times the square root of the horizon, times quantiles of past standardised outcomes.

    Parameters
    ----------
    decay : float
        Weight of yesterday's variance, between 0 and 1.
    by_symbol : bool
        Whether the standardised outcomes of each symbol give its own quantiles, or all are pooled.
    """

    def __init__(self, decay: float = features.DECAY, by_symbol: bool = True) -> None:
        self.decay = decay
        self.residuals = ResidualQuantiles(by_symbol)

    @property
    def parameters(self) -> int:
        """Number of quantiles held."""
        return self.residuals.parameters

    def _scales(self, windows: Windows) -> NDArray[np.float64]:
        volatility = np.empty(len(windows))
        for part, mine in windows.by_series():
            of_series = features.ewma_volatility(windows.panel.returns[part], self.decay)
            volatility[mine] = of_series[windows.rows[mine] - part.start]
        scales: NDArray[np.float64] = volatility[:, None] * np.sqrt(np.array(windows.horizons, dtype=float))
        return scales

    def fit(self, windows: Windows) -> Self:
        """Take the quantiles of the standardised training outcomes."""
        learned = windows if self.residuals.by_symbol else windows.pooled
        self.residuals.fit(learned, known_targets(learned) / self._scales(learned))
        return self

    def predict(self, windows: Windows) -> QuantileForecast:
        """Scale the quantiles by each origin's volatility."""
        return self.residuals.forecast(windows, self._scales(windows))

    def save(self, folder: Path) -> None:
        """Write the quantiles."""
        save_arrays(folder, self.residuals.state())

    def load(self, folder: Path) -> Self:
        """Read the quantiles."""
        self.residuals.restore(load_arrays(folder))
        return self
