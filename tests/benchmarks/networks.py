"""The networks that are measured: the five-output one, a dilated one, and the one of a job.

They are descriptions: the application compiles them, and the Keras side makes plain Keras layers of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from measuring import HORIZON, LOOKBACK, ROWS, Array

# isort: split
import numpy as np
from numpy.typing import NDArray

from forecaster.job.convolution import ConvolutionModel
from forecaster.liftings import Lagged, Row
from forecaster.models.convolution.geometry import KernelConvolution
from forecaster.models.convolution.model import ConvolutionForecaster
from forecaster.models.convolution.network import Network, Objective, squared_error
from forecaster.models.convolution.targets import scale_objective
from forecaster.prices.samples import SAMPLE_SYMBOLS, SampleSource
from forecaster.quantiles import LEVELS
from forecaster.returns import forward_returns
from forecaster.windows import Panel

__all__ = [
    "DILATED",
    "FIVE_OUTPUTS",
    "FIVE_RETURNS",
    "HORIZONS",
    "PRODUCTION",
    "PRODUCTION_OBJECTIVE",
    "ProductionInputs",
    "RealInputs",
    "mean_loss",
    "production_inputs",
    "real_inputs",
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


class RealInputs(NamedTuple):
    """What the production network learns on the 20 US stocks, and the loss that it is to reach.

    Attributes
    ----------
    inputs : ProductionInputs
    offsets : ndarray of shape (series + 1,)
    trained, validated : ndarray of int64
        Rows of the origins; the outcomes of the first end before the origins of the second begin.
    target : float
        Validation loss to reach.
    """

    inputs: ProductionInputs
    offsets: NDArray[np.int64]
    trained: NDArray[np.int64]
    validated: NDArray[np.int64]
    target: float


def real_inputs() -> RealInputs:
    """Make the inputs of the production network from the bundled prices.

    The channels and HAR features of each series alone, over and over to the network's widths: a job's others
    need models that are fitted first. The loss to reach is that of a least-squares regression of the size of
    the outcomes on the features.
    """
    source = SampleSource(SAMPLE_SYMBOLS[3:23])
    panel = Panel.from_prices({symbol: source.load(symbol) for symbol in source.symbols()})
    forward = [forward_returns(panel.returns[part], HORIZONS) for part in panel.parts]
    sizes = [forward_returns(np.abs(panel.returns[part]), HORIZONS) for part in panel.parts]
    horizons = np.array(HORIZONS, dtype=float)
    daily = panel.volatility[:, None]
    observed = np.concatenate(
        [np.concatenate(forward) / np.sqrt(horizons), np.concatenate(sizes) / horizons], 1
    )
    observed /= daily
    origins = panel.positions >= 300
    split = panel.calendar[int(len(panel.calendar) * 0.8)]
    newest = panel.calendar[int(len(panel.calendar) * 0.8) - max(HORIZONS) - 1]
    known = np.isfinite(observed).all(axis=1)
    trained = np.flatnonzero(origins & known & (panel.sessions <= newest))
    validated = np.flatnonzero(origins & known & (panel.sessions > split))[::8]
    quantiles = np.quantile(observed[trained, : len(HORIZONS)], LEVELS, axis=0).T
    typical = observed[trained, len(HORIZONS) :].mean(axis=0)
    channels, features = (
        np.ascontiguousarray(values[:, np.arange(width) % values.shape[1]])
        for values, width in (
            (panel.channels, PRODUCTION.channels),
            (panel.har_features, PRODUCTION.features),
        )
    )
    statistics = np.stack([features[trained].mean(axis=0), features[trained].std(axis=0) + 1e-6])
    constants = (quantiles.astype(np.float32), typical.astype(np.float32))
    inputs = ProductionInputs(
        channels, features, observed.astype(np.float32), constants, statistics.astype(np.float32)
    )
    standard = np.clip((features - statistics[0]) / statistics[1], -5.0, 5.0)
    regressors = np.column_stack([standard, np.ones(len(standard))])
    slopes = np.linalg.lstsq(regressors[trained], observed[trained, len(HORIZONS) :] / typical, rcond=None)[0]
    fitted = np.log(np.clip(regressors[validated] @ slopes, 0.2, 5.0))
    return RealInputs(inputs, panel.offsets, trained, validated, mean_loss(fitted, inputs, validated))


def mean_loss(
    log_scale: NDArray[np.floating[Any]], inputs: ProductionInputs, rows: NDArray[np.int64]
) -> float:
    """Mean loss of log scales at some origins, as the job's networks have it in training."""
    outputs, observed = log_scale.astype(np.float32)[None], inputs.observed[rows][None]
    return float(np.mean(PRODUCTION_OBJECTIVE.loss(outputs, observed, inputs.constants)))


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
