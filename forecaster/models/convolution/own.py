"""A Keras network of one's own as a forecaster: it gives the scale, the residuals give the quantiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from forecaster.models.convolution import runtime

# isort: split
import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from forecaster.errors import NotFittedError, ParameterError
from forecaster.features import CHANNELS, CLIP
from forecaster.models.base import ResidualQuantiles, known_targets, load_arrays, save_arrays
from forecaster.models.learned.blocks import session_blocks
from forecaster.quantiles import QuantileForecast
from forecaster.windows import Windows

__all__ = ["KerasForecaster"]

Array = NDArray[np.float64]
WEIGHTS = "network.weights.h5"
ROWS_AT_ONCE = 256
"""Origins of each call that forecasts, filled up where there are fewer: the bits of a forecast must not
depend on what else is forecast."""
LARGEST_STRETCH = 3.0
"""Bound of the log of what the network multiplies the EWMA scale by."""


def _scale_loss(size: Any, stretch: Any) -> Any:
    """Minus the log-likelihood of a Laplace scale, whose minimum is the mean size."""
    return ops.mean(size * ops.exp(-stretch) + stretch, axis=-1)


class KerasForecaster:
    """A network of one's own in place of the convolution.

    The network sees the channels of the last sessions (`forecaster.features.CHANNELS`: the return over the
    EWMA volatility of its day, and what follows from it) and says by how much the scale of each horizon
    differs from the EWMA one. Quantiles are those of past outcomes over the forecast scale, made out of
    sample in four blocks of sessions by networks that were trained on the others.

    Parameters
    ----------
    network : callable
        Given the number of horizons, makes a new, uncompiled Keras model from ``(lookback, 4)`` to
        ``(n_horizons,)``: the log of the stretch of the scale, held within 3 either way.
    lookback : int
        Sessions that the network sees.
    epochs, batch : int
        Passes over the training origins, and origins in a step.
    learning_rate : float
        Of Adam.
    seed : int
        Seed of the weights, of dropout and of the order of the origins.

    Raises
    ------
    ParameterError
        In `fit`, if the network does not take and give these shapes.
    """

    def __init__(
        self,
        network: Callable[[int], keras.Model],
        lookback: int = 64,
        epochs: int = 6,
        batch: int = 1024,
        learning_rate: float = 2e-3,
        seed: int = 0,
    ) -> None:
        self.network = network
        self.lookback = lookback
        self.epochs = epochs
        self.batch = batch
        self.learning_rate = learning_rate
        self.seed = seed
        self.residuals = ResidualQuantiles(by_symbol=False)
        self.fitted: keras.Model | None = None

    def __repr__(self) -> str:
        state = "not fitted" if self.fitted is None else f"{self.parameters:,} parameters"
        name = getattr(self.network, "__name__", "network")
        return f"KerasForecaster({name}, lookback {self.lookback}; {state})"

    @property
    def parameters(self) -> int:
        """Number of weights and quantiles."""
        return self.residuals.parameters + (0 if self.fitted is None else int(self.fitted.count_params()))

    def fit(self, windows: Windows) -> Self:
        """Train on all origins, and take the residual quantiles out of sample."""
        windows = windows.pooled
        scales = windows.scales
        sizes = np.minimum(np.abs(known_targets(windows) / scales), CLIP).astype(np.float32)
        inputs = windows.sequences(self.lookback)
        stretches = np.full_like(scales, np.nan)
        place, blocks = session_blocks(windows)
        for number, block in enumerate(blocks, start=1):
            inside, apart = block.inside(place), block.apart(place)
            if apart.sum() >= ResidualQuantiles.minimum:
                other = self._trained(inputs[apart], sizes[apart], self.seed + number)
                stretches[inside] = self._stretches(other, inputs[inside])
        self.fitted = self._trained(inputs, sizes, self.seed)
        if np.isfinite(stretches).all(axis=1).sum() < ResidualQuantiles.minimum:
            # Too few origins to hold any out: the residuals of the fit itself are all there is.
            stretches = self._stretches(self.fitted, inputs)
        self.residuals.fit(windows, windows.targets / (scales * stretches))
        return self

    def predict(self, windows: Windows) -> QuantileForecast:
        """Scale the quantiles by what the network says of each origin."""
        if self.fitted is None:
            raise NotFittedError("a network is fitted before it predicts; call fit first")
        stretches = self._stretches(self.fitted, windows.sequences(self.lookback))
        return self.residuals.forecast(windows, windows.scales * stretches)

    def save(self, folder: Path) -> None:
        """Write the weights and the quantiles; the network itself is the caller's to make again."""
        if self.fitted is None:
            raise NotFittedError("a model is fitted before it is saved; call fit first")
        self.fitted.save_weights(folder / WEIGHTS)
        horizons = np.array(self.fitted.output_shape[-1])
        save_arrays(folder, {**self.residuals.state(), "horizons": horizons})

    def load(self, folder: Path) -> Self:
        """Read the weights into a network made anew."""
        state = load_arrays(folder)
        self.fitted = self._made(int(state["horizons"]), self.seed)
        self.fitted.load_weights(folder / WEIGHTS)
        self.residuals.restore(state)
        return self

    def _made(self, horizons: int, seed: int) -> keras.Model:
        runtime.repeat_to_the_bit()
        keras.utils.set_random_seed(seed % 2**32)
        network = self.network(horizons)
        if not isinstance(network, keras.Model):
            raise ParameterError(f"a network is a Keras model. Received: {type(network).__name__}")
        if not network.built:
            network.build((None, self.lookback, len(CHANNELS)))
        given = tuple(network(np.zeros((2, self.lookback, len(CHANNELS)), np.float32)).shape)
        if given != (2, horizons):
            raise ParameterError(
                f"a network gives one number an origin and horizon, (n, {horizons}) for (n, {self.lookback}, "
                f"{len(CHANNELS)}). Received: {given[1:]} each"
            )
        return network

    def _trained(self, inputs: NDArray[np.float32], sizes: NDArray[np.float32], seed: int) -> keras.Model:
        network = self._made(sizes.shape[1], seed)
        network.compile(keras.optimizers.Adam(self.learning_rate), _scale_loss)
        order = np.random.default_rng(seed)
        # Not `fit`: its pipeline of batches writes notes at error level, and each call costs a second.
        for _ in range(self.epochs):
            for rows in np.split(order.permutation(len(sizes)), range(self.batch, len(sizes), self.batch)):
                network.train_on_batch(inputs[rows], sizes[rows])
        return network

    def _stretches(self, network: keras.Model, inputs: NDArray[np.float32]) -> Array:
        logs = np.empty((len(inputs), network.output_shape[-1]))
        for start in range(0, len(inputs), ROWS_AT_ONCE):
            part = inputs[start : start + ROWS_AT_ONCE]
            filled = np.pad(part, [(0, ROWS_AT_ONCE - len(part)), (0, 0), (0, 0)], mode="edge")
            logs[start : start + len(part)] = ops.convert_to_numpy(network(filled, training=False))[
                : len(part)
            ]
        stretch: Array = np.exp(np.clip(logs, -LARGEST_STRETCH, LARGEST_STRETCH))
        return stretch
