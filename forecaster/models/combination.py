"""Combinations: the equal-weight average of the quantiles of several models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from forecaster.errors import NotFittedError, ParameterError
from forecaster.models.base import Forecaster
from forecaster.models.econometric.garch import FitsGarch
from forecaster.quantiles import QuantileForecast, average
from forecaster.windows import Windows

__all__ = ["CombinationForecaster"]


class CombinationForecaster:
    """Averages the forecasts of its members level by level with equal weights.

    Parameters
    ----------
    members : mapping of str to Forecaster
        At least two, by the names that they have in the job. A member that is fitted already need not be
        fitted again: a backtest hands in those that it has.

    Notes
    -----
    Averaging quantiles (Vincentisation) keeps the shape of a family of locations and scales, which averaging
    probabilities would widen: Lichtendahl, Grushka-Cockayne and Winkler, "Is It Better to Average
    Probabilities or Quantiles?", Management Science 59 (2013).
    """

    def __init__(self, members: Mapping[str, Forecaster]) -> None:
        if len(members) < 2:
            raise ParameterError(f"a combination has at least two members. Received: {list(members)}")
        self.members = dict(members)

    @property
    def parameters(self) -> int:
        """Number of fitted numbers of all members."""
        return sum(member.parameters for member in self.members.values())

    def fit(self, windows: Windows) -> Self:
        """Fit every member."""
        for member in self.members.values():
            member.fit(windows)
        return self

    def garch_fits(self, windows: Windows) -> list[tuple[NDArray[np.float64], bool]]:
        """Return the series that the members estimate GARCH on, and whether with asymmetry."""
        fitting = [member for member in self.members.values() if isinstance(member, FitsGarch)]
        return [each for member in fitting for each in member.garch_fits(windows)]

    def predict(self, windows: Windows) -> QuantileForecast:
        """Average what the members forecast."""
        return average([member.predict(windows) for member in self.members.values()])

    def save(self, folder: Path) -> None:
        """Write each member into a folder of its own."""
        if not self.parameters:
            raise NotFittedError("a model is fitted before it is saved; call fit first")
        for name, member in self.members.items():
            (folder / name).mkdir()
            member.save(folder / name)

    def load(self, folder: Path) -> Self:
        """Read what `save` wrote."""
        for name, member in self.members.items():
            member.load(folder / name)
        return self
