"""Forecasts that know nothing but the past distribution: what every model must beat to have any skill."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np

from forecaster.models.base import ResidualQuantiles, known_targets, load_arrays, save_arrays
from forecaster.quantiles import QuantileForecast
from forecaster.windows import Windows

__all__ = ["HistoricalForecaster"]


class HistoricalForecaster:
    """Unconditional quantiles of each symbol's past outcomes, the same at every origin of a fold.

    Parameters
    ----------
    centred : bool
        Whether each symbol's mean outcome is taken off first, so that the forecast has no drift: the model
        ``zero``.
    """

    def __init__(self, centred: bool = False) -> None:
        self.centred = centred
        self.residuals = ResidualQuantiles(by_symbol=True)

    @property
    def parameters(self) -> int:
        """Number of quantiles held."""
        return self.residuals.parameters

    def fit(self, windows: Windows) -> Self:
        """Take the quantiles of the training outcomes."""
        targets = known_targets(windows)
        if self.centred:
            targets = targets.copy()
            for _, mine in windows.by_series():
                targets[mine] -= targets[mine].mean(axis=0)
        self.residuals.fit(windows, targets)
        return self

    def predict(self, windows: Windows) -> QuantileForecast:
        """Repeat the quantiles of each origin's symbol."""
        return self.residuals.forecast(windows, np.ones((len(windows), len(windows.horizons))))

    def save(self, folder: Path) -> None:
        """Write the quantiles."""
        save_arrays(folder, self.residuals.state())

    def load(self, folder: Path) -> Self:
        """Read the quantiles."""
        self.residuals.restore(load_arrays(folder))
        return self
