"""What every learned model of the scale sees of an origin; the one place to add a feature to all of them."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from forecaster.features import CLIP, HAR_FEATURES, LEVERAGE_WINDOWS, MARKET_WINDOWS, har_terms
from forecaster.models.covariates import CovariateInputs
from forecaster.windows import Universe, Windows

__all__ = ["SCALE_INPUTS", "ScaleInputs"]

_MARKET = (
    *(f"log_market_abs_{window}" for window in MARKET_WINDOWS),
    *(f"market_negative_{window}" for window in LEVERAGE_WINDOWS),
)

SCALE_INPUTS = (*HAR_FEATURES, *_MARKET)
"""Names of the inputs, in their order: the HAR features of the series, and the same of the market. Those of
covariates follow."""

_STAND_INS = [HAR_FEATURES.index(f"log_abs_{window}") for window in MARKET_WINDOWS] + [
    HAR_FEATURES.index(f"negative_{window}") for window in LEVERAGE_WINDOWS
]
"""The series' own features that are taken where no session of the market has closed."""


class ScaleInputs:
    """HAR features of an origin's series and of the market, over its volatility, and the covariates.

    The market and the covariates are those of the panel that the model was fitted on, and stay it.
    """

    def __init__(self) -> None:
        self.universe = Universe()
        self.covariates = CovariateInputs()

    @property
    def width(self) -> int:
        """Number of inputs."""
        return len(SCALE_INPUTS) + self.covariates.width

    def fit(self, windows: Windows) -> Self:
        """Record what the market is made of, and how covariates are scaled."""
        self.universe = windows.panel.universe
        self.covariates.fit(windows)
        return self

    def __call__(self, windows: Windows) -> NDArray[np.float32]:
        """Compute the inputs.

        Returns
        -------
        ndarray of shape (n_origins, width), float32
            Of the market, the last session that had closed by the close of the origin.

        Warns
        -----
        UserWarning
            If members of the market have no prices in the panel: it is then made without them.
        """
        panel = windows.panel
        panel.warn_of_missing(self.universe, "the market is")
        own, beside_both = panel.har_features[windows.rows], self.covariates(windows)
        market = panel.market(self.universe)
        if not len(market.values):
            return np.concatenate([own, own[:, _STAND_INS], beside_both], axis=1)
        seen = market.last_known(panel.closed[windows.rows])
        terms = har_terms(market.values, MARKET_WINDOWS)[seen] / windows.volatility[:, None]
        sizes, losses = np.split(terms, [len(MARKET_WINDOWS)], axis=1)
        features = np.concatenate([np.log(np.maximum(sizes, 0.02)), np.maximum(losses, -CLIP)], axis=1)
        beside = np.where(seen[:, None] >= 0, features, own[:, _STAND_INS])
        return np.concatenate([own, beside.astype(np.float32), beside_both], axis=1)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Arrays to save."""
        return self.covariates.state() | {
            "market_members": np.array(self.universe.members, dtype=np.str_),
            "market_index": np.array(self.universe.market or "", dtype=np.str_),
        }

    def restore(self, state: dict[str, NDArray[np.generic]]) -> Self:
        """Take back what `state` gave."""
        members = tuple(str(member) for member in state["market_members"])
        self.universe = Universe(members, str(state["market_index"]) or None)
        self.covariates.restore(state)
        return self
