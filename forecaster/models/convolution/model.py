"""The convolution as a forecaster: a 2D kernel on the series beside HAR features, with a scale head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from forecaster.models.convolution import runtime  # before Keras

# isort: split
import keras
import numpy as np
import pandas as pd
from keras import ops
from numpy.typing import NDArray

from forecaster.errors import NotFittedError
from forecaster.features import CHANNELS, HAR_FEATURES
from forecaster.kernels import FoldedKernel, Folding, frequency_response
from forecaster.models.base import ResidualQuantiles, known_targets, load_arrays, save_arrays
from forecaster.models.convolution.geometry import KernelLayer, Strategy, history_of, newest_row_last
from forecaster.models.convolution.layers import KernelStack
from forecaster.quantiles import LEVELS, QuantileForecast, quantile_weights
from forecaster.returns import forward_returns
from forecaster.windows import Windows

__all__ = ["ConvolutionForecaster"]

Array = NDArray[np.float64]

WEIGHTS = "network.weights.h5"
LOG_SCALE_BOUND = 2.0
"""The network may stretch or shrink the EWMA scale by a factor of e squared at most."""
PREDICT_BATCH = 2048
WARM_UP_STEPS = 20
PERIODS = np.geomspace(2.0, 252.0, 64)
"""From two sessions, the shortest that daily data can tell, to a year."""


class ConvolutionForecaster:
    """Forecasts the scale of the outcome; its shape comes from past standardised outcomes.

    The network sees the channels of each window through two convolutions, the first of which applies a 2D
    kernel by a strategy, takes the last step, joins it with standardised HAR features, and gives for each
    horizon a number s. The scale of the outcome is ``S = volatility * sqrt(h) * exp(s)``; the last layer
    starts at zero, so that training starts at the EWMA model. Quantiles are S times the pooled quantiles of
    past outcomes over S.

    The loss is twice the CRPS of the outcome over the EWMA scale, against fixed pooled quantiles
    times ``exp(s)``, plus ``a * exp(-s) + s`` with a the realised mean absolute return over the horizon in
    units of the EWMA scale (the likelihood of a Laplace scale).

    Parameters
    ----------
    strategy : Lifting or Parallel
        How the 2D kernel meets the series.
    layers : sequence of KernelLayer
        What the lifted series goes through.
    lookback : int
        Sessions of a window, without the history that the strategy reaches back to.
    dense : int
        Units of the hidden layer.
    epochs, batch : int
        Passes over the training origins, and origins a step.
    learning_rate, weight_decay, dropout : float
        Of AdamW with a cosine schedule, and of the joined features.
    seed : int
        Seed of the weights, the shuffling and the dropout.
    """

    def __init__(
        self,
        strategy: Strategy,
        layers: Sequence[KernelLayer],
        lookback: int,
        dense: int,
        epochs: int,
        batch: int,
        learning_rate: float,
        weight_decay: float,
        dropout: float,
        seed: int,
    ) -> None:
        self.strategy, self.layers, self.lookback, self.dense = strategy, tuple(layers), lookback, dense
        self.epochs, self.batch = epochs, batch
        self.learning_rate, self.weight_decay, self.dropout = learning_rate, weight_decay, dropout
        self.seed = seed
        self.network: Any = None
        self.residuals = ResidualQuantiles(by_symbol=False)
        self.feature_mean = np.zeros(len(HAR_FEATURES), dtype=np.float32)
        self.feature_deviation = np.ones(len(HAR_FEATURES), dtype=np.float32)

    @property
    def sessions(self) -> int:
        """Sessions that one window holds."""
        return self.lookback + history_of(self.strategy)

    @property
    def parameters(self) -> int:
        """Number of trained weights and residual quantiles."""
        weights = 0 if self.network is None else self.network.count_params()
        return int(weights) + self.residuals.parameters

    def fit(self, windows: Windows) -> Self:
        """Train from fresh weights on all origins."""
        targets = known_targets(windows)
        features = windows.panel.har_features[windows.rows]
        self.feature_mean = features.mean(axis=0)
        self.feature_deviation = features.std(axis=0) + np.float32(1e-6)
        runtime.be_deterministic(self.seed)
        self.network = self._build(len(windows.horizons))
        standardised = targets / windows.scales
        sizes = _realised_sizes(windows)
        sizes /= sizes.mean(axis=0)
        steps = self.epochs * -(-len(windows) // self.batch)
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, max(steps - WARM_UP_STEPS, 1), warmup_target=self.learning_rate, warmup_steps=WARM_UP_STEPS
        )
        self.network.compile(
            optimizer=keras.optimizers.AdamW(schedule, weight_decay=self.weight_decay),
            loss=_scale_loss(np.quantile(standardised, LEVELS, axis=0).T),
        )
        inputs = self._inputs(windows)
        observed = np.stack([standardised, sizes], axis=-1).astype(np.float32)
        shuffle = np.random.default_rng(self.seed)
        for _ in range(self.epochs):
            order = shuffle.permutation(len(windows))
            for start in range(0, len(order), self.batch):
                rows = order[start : start + self.batch]
                self.network.train_on_batch([part[rows] for part in inputs], observed[rows])
        self.residuals.fit(windows, targets / self._scales(windows))
        return self

    def predict(self, windows: Windows) -> QuantileForecast:
        """Forecast the scale at each origin and stretch the residual quantiles by it."""
        if self.network is None:
            raise NotFittedError("a model is fitted before it predicts; call fit first")
        values = self._scales(windows)[:, :, None] * self.residuals.predict(windows)
        return QuantileForecast(values, windows.horizons)

    def save(self, folder: Path) -> None:
        """Write the weights, the feature statistics and the residual quantiles."""
        if self.network is None:
            raise NotFittedError("a model is fitted before it is saved; call fit first")
        self.network.save_weights(folder / WEIGHTS)
        statistics = {"feature_mean": self.feature_mean, "feature_deviation": self.feature_deviation}
        save_arrays(folder, self.residuals.state() | statistics)

    def load(self, folder: Path) -> Self:
        """Read what `save` wrote."""
        state = load_arrays(folder)
        self.residuals.restore(state)
        self.feature_mean = state["feature_mean"].astype(np.float32)
        self.feature_deviation = state["feature_deviation"].astype(np.float32)
        assert self.residuals.values is not None
        self.network = self._build(self.residuals.values.shape[1])
        self.network.load_weights(folder / WEIGHTS)
        return self

    def lag_weights(self) -> pd.DataFrame:
        """Lay out what the first kernel sees, lag by lag: its impulse response on the series.

        Returns
        -------
        DataFrame
            Columns ``channel``, ``filter``, ``lag`` (sessions before the newest that the kernel reads) and
            ``weight``; parallel filters stand side by side. Lags that the kernel skips have no row.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ParameterError
            For a spectrogram, which has no linear kernel on the series.
        """
        kernel = self._first_kernel()
        newest = max(kernel.offsets)
        lags = newest - np.array(kernel.offsets)
        grid = pd.MultiIndex.from_product(
            [lags, CHANNELS, range(kernel.taps.shape[2])], names=["lag", "channel", "filter"]
        )
        table = pd.DataFrame({"weight": kernel.taps.ravel()}, index=grid).reset_index()
        ordered = table.sort_values(["channel", "filter", "lag"], ignore_index=True)
        return ordered[["channel", "filter", "lag", "weight"]]

    def frequency_responses(self) -> pd.DataFrame:
        """Lay out what the first kernel sees, period by period: its frequency response.

        Returns
        -------
        DataFrame
            Columns ``channel``, ``filter``, ``period`` (sessions), ``magnitude`` (amplitude out over
            amplitude in) and ``phase`` (radians; a delay is negative).

        Raises
        ------
        NotFittedError, ParameterError
            As `lag_weights`.
        """
        kernel = self._first_kernel()
        offsets = np.array(kernel.offsets) - max(kernel.offsets)
        magnitude, phase = frequency_response(kernel.taps, offsets, PERIODS)
        grid = pd.MultiIndex.from_product(
            [PERIODS, CHANNELS, range(kernel.taps.shape[2])], names=["period", "channel", "filter"]
        )
        columns = {"magnitude": magnitude.ravel(), "phase": phase.ravel()}
        table = pd.DataFrame(columns, index=grid).reset_index()
        ordered = table.sort_values(["channel", "filter", "period"], ignore_index=True)
        return ordered[["channel", "filter", "period", "magnitude", "phase"]]

    def _first_kernel(self) -> FoldedKernel:
        if self.network is None:
            raise NotFittedError("a model has kernels once it is fitted; call fit first")
        folding: Folding = self.network.get_layer("kernel").first_kernels()
        return folding.at(row=-1 if newest_row_last(self.strategy) else 0, column=-1)[0]

    def _build(self, n_horizons: int) -> Any:
        series = keras.Input((self.sessions, len(CHANNELS)), name="series")
        features = keras.Input((len(HAR_FEATURES),), name="features")
        body = KernelStack(self.strategy, self.lookback, self.layers, head="last", name="kernel")
        joined = keras.layers.Concatenate()([body(series), features])
        hidden = keras.layers.Dropout(self.dropout)(joined)
        hidden = keras.layers.Dense(self.dense, activation="gelu")(hidden)
        hidden = keras.layers.Concatenate()([hidden, features])
        log_scale = keras.layers.Dense(n_horizons, kernel_initializer="zeros", name="log_scale")(hidden)
        return keras.Model([series, features], log_scale)

    def _inputs(self, windows: Windows) -> list[NDArray[np.float32]]:
        features = windows.panel.har_features[windows.rows]
        standard = np.clip((features - self.feature_mean) / self.feature_deviation, -5.0, 5.0)
        return [windows.sequences(self.sessions), standard]

    def _scales(self, windows: Windows) -> Array:
        inputs = self._inputs(windows)
        log_scale = np.concatenate(
            [
                self.network.predict_on_batch([part[start : start + PREDICT_BATCH] for part in inputs])
                for start in range(0, len(windows), PREDICT_BATCH)
            ]
        )
        bounded = np.clip(log_scale.astype(np.float64), -LOG_SCALE_BOUND, LOG_SCALE_BOUND)
        scales: Array = windows.scales * np.exp(bounded)
        return scales


def _realised_sizes(windows: Windows) -> Array:
    """Mean absolute return over each horizon over the day's volatility, shape (n_origins, n_horizons)."""
    panel = windows.panel
    total = [forward_returns(np.abs(panel.returns[part]), windows.horizons) for part in panel.parts]
    mean = np.concatenate(total)[windows.rows] / np.array(windows.horizons)
    result: Array = mean / windows.volatility[:, None]
    return result


def _scale_loss(base: Array) -> Any:
    """Loss of a log scale, against fixed quantiles ``base`` of shape (n_horizons, n_levels)."""
    quantiles = ops.convert_to_tensor(base.astype(np.float32))
    levels = ops.convert_to_tensor(np.array(LEVELS, dtype=np.float32))
    weights = ops.convert_to_tensor(quantile_weights().astype(np.float32))

    def loss(observed: Any, log_scale: Any) -> Any:
        outcome, size = observed[..., 0], observed[..., 1]
        error = outcome[..., None] - quantiles * ops.exp(log_scale)[..., None]
        pinball = ops.sum(ops.maximum(levels * error, (levels - 1.0) * error) * weights, axis=-1)
        return ops.mean(2.0 * 2.0 * pinball + size * ops.exp(-log_scale) + log_scale, axis=-1)

    return loss
