"""The networks that are measured: the five-output one, a dilated one, and the one of a job.

They are descriptions: the application compiles them, and the Keras side makes plain Keras layers of them.
"""

from __future__ import annotations

from typing import NamedTuple

from measuring import HORIZON, LOOKBACK, ROWS, Array

# isort: split
import numpy as np

from forecaster.job.convolution import ConvolutionModel
from forecaster.liftings import Lagged, Row
from forecaster.models.convolution.geometry import KernelConvolution
from forecaster.models.convolution.model import ConvolutionForecaster, scale_objective
from forecaster.models.convolution.network import Network, Objective, squared_error
from forecaster.quantiles import LEVELS

__all__ = [
    "DILATED",
    "FIVE_OUTPUTS",
    "FIVE_RETURNS",
    "HORIZONS",
    "PRODUCTION",
    "PRODUCTION_OBJECTIVE",
    "ProductionInputs",
    "production_inputs",
]

HORIZONS = (1, 5, 21)
_FILTERS = 32

FIVE_OUTPUTS = Network(
    strategy=Lagged(rows=ROWS),
    lookback=LOOKBACK,
    layers=tuple(KernelConvolution(_FILTERS, size, activation="relu") for size in ((3, 5), (3, 3), (3, 3))),
    channels=1,
    outputs=HORIZON,
    head="mean",
)
"""Three convolutions on the window as eight rows, each a session behind the last, pooled by their mean."""

DILATED = Network(
    strategy=Row(),
    lookback=LOOKBACK,
    layers=tuple(
        KernelConvolution(_FILTERS, (1, 3), dilation=(1, 2**depth), activation="relu") for depth in range(5)
    ),
    channels=1,
    outputs=HORIZON,
    dense=_FILTERS,
)
"""Five dilated convolutions on the window as one row: the layers of the peers' temporal networks."""

_job = ConvolutionModel.model_validate({"kind": "convolution", "strategy": {"kind": "lagged"}})
_model = _job.build(LOOKBACK, seed=0)
assert isinstance(_model, ConvolutionForecaster)
PRODUCTION = _model.network(len(HORIZONS))
"""The network of a job with its default settings: several channels, HAR features that skip the convolutions,
and a log scale a horizon, by which 23 quantiles each are stretched in the loss."""
PRODUCTION_OBJECTIVE = scale_objective(len(HORIZONS))
FIVE_RETURNS = Objective(squared_error, columns=1, leads=tuple(range(1, HORIZON + 1)))


class ProductionInputs(NamedTuple):
    """Arrays of the shapes and the spread that the production network sees; its speed knows no values.

    Attributes
    ----------
    channels, features : ndarray of shape (total, channels) and (total, features)
    observed : ndarray of shape (total, 2 * horizons)
        Scaled outcomes, then realised sizes.
    constants : tuple of ndarray
        What the loss needs: pooled quantiles, which it stretches, and the average size.
    statistics : ndarray of shape (2, features)
        Mean and deviation of the features.
    """

    channels: Array
    features: Array
    observed: Array
    constants: tuple[Array, ...]
    statistics: Array


def production_inputs(total: int) -> ProductionInputs:
    """Draw what the production network sees of so many sessions."""
    generator = np.random.default_rng(0)
    channels, features, observed = (
        generator.standard_normal((total, width), dtype=np.float32)
        for width in (PRODUCTION.channels, PRODUCTION.features, 2 * PRODUCTION.outputs)
    )
    np.abs(observed[:, PRODUCTION.outputs :], out=observed[:, PRODUCTION.outputs :])
    quantiles = np.quantile(observed[:10000, : PRODUCTION.outputs], LEVELS, axis=0).T.astype(np.float32)
    constants = (quantiles, np.ones(PRODUCTION.outputs, dtype=np.float32))
    statistics = np.stack([np.zeros(PRODUCTION.features), np.ones(PRODUCTION.features)]).astype(np.float32)
    return ProductionInputs(channels, features, observed, constants, statistics)
