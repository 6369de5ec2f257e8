"""The convolution as a forecaster: a 2D kernel on the series beside HAR features, with a scale head."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from forecaster.models.convolution import runtime  # noqa: F401  # before TensorFlow

# isort: split
import numpy as np
import pandas as pd
import tensorflow as tf
from numpy.typing import NDArray

from forecaster.errors import NotFittedError, ParameterError
from forecaster.features import CHANNELS, HAR_FEATURES
from forecaster.kernels import FoldedKernel, frequency_response
from forecaster.models.base import Forecaster, ResidualQuantiles, known_targets, load_arrays, save_arrays
from forecaster.models.convolution.chunks import check_runs, runs_of
from forecaster.models.convolution.folding import first_folding
from forecaster.models.convolution.geometry import KernelLayer, Strategy, newest_row_last, trace
from forecaster.models.convolution.network import Network, Objective
from forecaster.models.convolution.training import Data, Schedule, Trainer, trainer_of
from forecaster.quantiles import LEVELS, QuantileForecast, quantile_weights
from forecaster.returns import forward_returns
from forecaster.windows import Panel, Windows

__all__ = ["ConvolutionForecaster", "scale_loss", "scale_objective"]

Array = NDArray[np.float64]
Tensor = Any  # TensorFlow's types say no shape

LOG_SCALE_BOUND = 2.0
"""The network may stretch or shrink the EWMA scale by a factor of e squared at most."""
PERIODS = np.geomspace(2.0, 252.0, 64)
"""From two sessions, the shortest that daily data can tell, to a year."""


class ConvolutionForecaster:
    """Forecasts the scale of the outcome; its shape comes from past standardised outcomes.

    The network sees the channels of each window through two convolutions, the first of which applies a 2D
    kernel by a strategy, takes the last step, joins it with standardised HAR features, and gives for each
    horizon a number s. The scale of the outcome is ``S = volatility * sqrt(h) * exp(s)``; the last layer
    starts at zero, so that training starts at the EWMA model. Quantiles are S times the pooled quantiles of
    past outcomes over S. Several seeds are averaged in s.

    It is trained for `scale_loss` on chunks of consecutive origins, and scored a block of the series at a
    time. The compiled network is shared with all others of its shape; the model holds the weights.

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
    epochs : int
        Passes over the training origins.
    chunk, chunks_per_step : int
        Consecutive origins of a chunk, 64 to 256, and chunks of a step, at least four.
    learning_rate, weight_decay, dropout : float
        Of AdamW with a cosine schedule, and of the joined features.
    seeds : int
        Networks that are trained, from ``seed`` on, and averaged.
    warm_start : bool
        Whether `start_from` has an effect.
    seed : int
        Seed of the weights, the cuts, the order and the dropout of the first network.
    """

    def __init__(
        self,
        strategy: Strategy,
        layers: Sequence[KernelLayer],
        lookback: int,
        dense: int,
        epochs: int,
        chunk: int,
        chunks_per_step: int,
        learning_rate: float,
        weight_decay: float,
        dropout: float,
        seeds: int,
        warm_start: bool,
        seed: int,
    ) -> None:
        self.strategy, self.layers, self.lookback, self.dense = strategy, tuple(layers), lookback, dense
        self.chunk, self.dropout = chunk, dropout
        self.schedule = Schedule(epochs, chunks_per_step, learning_rate, weight_decay)
        self.seeds, self.warm_start, self.seed = seeds, warm_start, seed
        self.weights: NDArray[np.float32] | None = None
        self.residuals = ResidualQuantiles(by_symbol=False)
        self.statistics = np.stack([np.zeros(n := len(HAR_FEATURES)), np.ones(n)]).astype(np.float32)
        self._first_weights: NDArray[np.float32] | None = None

    @property
    def parameters(self) -> int:
        """Number of trained weights and residual quantiles."""
        weights = 0 if self.weights is None else self.weights.size
        return int(weights) + self.residuals.parameters

    def network(self, n_horizons: int) -> Network:
        """Describe the network for so many horizons."""
        return Network(
            self.strategy,
            self.lookback,
            self.layers,
            channels=len(CHANNELS),
            outputs=n_horizons,
            head="last",
            features=len(HAR_FEATURES),
            dense=self.dense,
            dropout=self.dropout,
            zero_output=True,
        )

    def trainer(self, n_horizons: int) -> Trainer:
        """Return the compiled network, which it shares with every model of its shape."""
        return trainer_of(self.network(n_horizons), scale_objective(n_horizons), self.chunk)

    def start_from(self, previous: Forecaster) -> Self:
        """Start the next `fit` at the weights of the refit before, if the settings ask for a warm start.

        Parameters
        ----------
        previous : ConvolutionForecaster
            Fitted with the same settings on outcomes known before: its weights have seen nothing else.

        Raises
        ------
        ParameterError
            When it is another kind of model, or has other weights.
        NotFittedError
            When it is not fitted.
        """
        if not self.warm_start:
            return self
        if not isinstance(previous, ConvolutionForecaster) or previous._settings() != self._settings():
            raise ParameterError(
                "a warm start is made from a convolution of the same network and seeds. Received: "
                f"{type(previous).__name__} of other settings; start afresh"
            )
        if previous.weights is None:
            raise NotFittedError("a warm start is made from a fitted model; fit the earlier one first")
        self._first_weights = previous.weights
        return self

    def _settings(self) -> tuple[str, int]:
        """Return what weights belong to."""
        return self.network(1).identity, self.seeds

    def fit(self, windows: Windows) -> Self:
        """Train on all origins, from fresh weights unless `start_from` gave others."""
        targets = known_targets(windows)
        features = windows.panel.har_features[windows.rows]
        # Not quite zero where a feature is constant.
        self.statistics = np.stack([features.mean(axis=0), features.std(axis=0) + np.float32(1e-6)])
        trainer = self.trainer(len(windows.horizons))
        runs = runs_of(windows.rows, windows.panel.offsets)
        check_runs(runs, windows.panel.offsets, trainer.network.sessions)
        data = _data_of(windows.panel, windows.horizons)
        constants = self._constants(windows)
        starts = [None] * self.seeds if self._first_weights is None else list(self._first_weights)
        self.weights = np.stack(
            [
                trainer.fit(
                    data,
                    runs,
                    self.schedule,
                    self.seed + member,
                    weights=start,
                    constants=constants,
                    statistics=self.statistics,
                )
                for member, start in enumerate(starts)
            ]
        )
        self.residuals.fit(windows, targets / self._scales(windows))
        return self

    def predict(self, windows: Windows) -> QuantileForecast:
        """Forecast the scale at each origin and stretch the residual quantiles by it."""
        if self.weights is None:
            raise NotFittedError("a model is fitted before it predicts; call fit first")
        return self.residuals.forecast(windows, self._scales(windows))

    def save(self, folder: Path) -> None:
        """Write the weights by name, the feature statistics and the residual quantiles."""
        state = self.residuals.state() | {"feature_mean": self.statistics[0]}
        state |= {"feature_deviation": self.statistics[1]}
        members = [self._named(member) for member in range(self.seeds)]
        state |= {f"weights/{name}": np.stack([member[name] for member in members]) for name in members[0]}
        save_arrays(folder, state)

    def load(self, folder: Path) -> Self:
        """Read what `save` wrote."""
        state = load_arrays(folder)
        self.residuals.restore(state)
        self.statistics = np.stack([state["feature_mean"], state["feature_deviation"]]).astype(np.float32)
        assert self.residuals.values is not None
        function = self.trainer(self.residuals.values.shape[1]).function
        named = {name: state[f"weights/{name}"] for name in function.shapes}
        self.weights = np.stack(
            [
                function.flat({name: value[member] for name, value in named.items()})
                for member in range(self.seeds)
            ]
        )
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

    def _constants(self, windows: Windows) -> tuple[Array, Array]:
        """Return what the loss takes from the training origins: see `scale_loss`."""
        quantiles = np.quantile(windows.targets / windows.scales, LEVELS, axis=0).T
        return quantiles, _realised_sizes(windows.panel, windows.horizons)[windows.rows].mean(axis=0)

    def _first_kernel(self) -> FoldedKernel:
        members = [self._named(member) for member in range(self.seeds)]
        first = trace(self.strategy, self.lookback, self.layers)[0]
        # The filters of all networks stand side by side.
        kernel = np.concatenate([member["stack/kernel_0"] for member in members], axis=-1)
        bias = np.concatenate([member["stack/bias_0"] for member in members], axis=-1)
        folding = first_folding(self.strategy, self.lookback, first, kernel, bias)
        return folding.at(row=-1 if newest_row_last(self.strategy) else 0, column=-1)[0]

    def _named(self, member: int) -> dict[str, NDArray[np.float32]]:
        """Weights of one network by name."""
        if self.weights is None or self.residuals.values is None:
            raise NotFittedError("a model has weights to show or to save once it is fitted; call fit first")
        return self.trainer(self.residuals.values.shape[1]).function.named(self.weights[member])

    def _scales(self, windows: Windows) -> Array:
        assert self.weights is not None
        panel, trainer = windows.panel, self.trainer(len(windows.horizons))
        data = _data_of(panel, windows.horizons)
        members = [
            trainer.score(weights, data, windows.rows, panel.offsets, self.statistics)
            for weights in self.weights
        ]
        log_scale = np.mean(members, axis=0, dtype=np.float64)
        bounded = np.clip(log_scale, -LOG_SCALE_BOUND, LOG_SCALE_BOUND)
        scales: Array = windows.scales * np.exp(bounded)
        return scales


# --- what is trained for -----------------------------------------------------------------------------------


def scale_loss(outputs: Tensor, observed: Tensor, constants: Sequence[Tensor]) -> Tensor:
    """Loss of a log scale s.

    Twice the CRPS of the outcome over the EWMA scale, against fixed pooled quantiles times ``exp(s)``, plus
    ``a * exp(-s) + s`` with a the realised mean absolute return over the horizon in units of the EWMA scale
    and of its own average (the likelihood of a Laplace scale); the mean over horizons.

    Parameters
    ----------
    outputs : tensor of shape (chunks, origins, n_horizons)
        The log scale.
    observed : tensor of shape (chunks, origins, 2 * n_horizons)
        Outcomes over the EWMA scale, and realised mean absolute returns over it.
    constants : tensors of shape (n_horizons, n_levels) and (n_horizons,)
        The pooled quantiles, and the average of the realised mean absolute returns.
    """
    quantiles, typical = constants
    # The pinball losses of y against q * scale add up to a function of y / scale that is linear between the
    # quantiles: sum of w * (level * (y - q * scale) + max(q * scale - y, 0)), the maximum zero for quantiles
    # below y / scale. One horizon a row: the search takes a row of quantiles each.
    outcome, size = (
        tf.transpose(tf.reshape(part, (-1, outputs.shape[-1]))) for part in tf.split(observed, 2, axis=-1)
    )
    log_scale = tf.transpose(tf.reshape(outputs, (-1, outputs.shape[-1])))
    scale = tf.exp(log_scale)
    levels, weights = (np.array(values, dtype=np.float32) for values in (LEVELS, quantile_weights()))
    slopes = np.sum(weights * levels) - np.append(np.cumsum(weights[::-1])[::-1], np.float32(0.0))
    heights = tf.pad(tf.cumsum(weights * quantiles, axis=1, reverse=True), [(0, 0), (0, 1)])
    heights -= tf.reduce_sum(weights * levels * quantiles, axis=1, keepdims=True)
    above = tf.searchsorted(quantiles, outcome / scale)
    pinball = (
        tf.gather(tf.constant(slopes), above) * outcome + tf.gather(heights, above, batch_dims=1) * scale
    )
    losses = 4.0 * pinball + size / (typical[:, None] * scale) + log_scale
    return tf.reshape(tf.reduce_mean(losses, axis=0), tf.shape(outputs)[:-1])


def scale_objective(n_horizons: int) -> Objective:
    """Return the objective of a scale head for so many horizons."""
    return Objective(scale_loss, columns=2 * n_horizons, constants=((n_horizons, len(LEVELS)), (n_horizons,)))


_ON_DEVICE: weakref.WeakKeyDictionary[Panel, dict[tuple[int, ...], Data]] = weakref.WeakKeyDictionary()


def _data_of(panel: Panel, horizons: tuple[int, ...]) -> Data:
    """Put a panel on the device, once for all models and refits."""
    held = _ON_DEVICE.setdefault(panel, {})
    if horizons not in held:
        parts = [forward_returns(panel.returns[part], horizons) for part in panel.parts]
        scales = panel.volatility[:, None] * np.sqrt(np.array(horizons, dtype=float))
        outcomes = np.concatenate(parts) / scales
        observed = np.concatenate([outcomes, _realised_sizes(panel, horizons)], axis=1)
        held[horizons] = Data.of(panel.channels, observed.astype(np.float32), panel.har_features)
    return held[horizons]


def _realised_sizes(panel: Panel, horizons: tuple[int, ...]) -> Array:
    """Mean absolute return over each horizon over the day's volatility, shape (total, n_horizons)."""
    total = [forward_returns(np.abs(panel.returns[part]), horizons) for part in panel.parts]
    result: Array = np.concatenate(total) / np.array(horizons) / panel.volatility[:, None]
    return result
