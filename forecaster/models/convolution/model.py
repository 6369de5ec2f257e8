"""The convolution as a forecaster: a 2D kernel on the series beside features, with a scale head."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from forecaster.models.convolution import runtime  # noqa: F401  # before TensorFlow

# isort: split
import numpy as np
import pandas as pd
import tensorflow as tf
from numpy.typing import NDArray

from forecaster.errors import NotFittedError, ParameterError
from forecaster.kernels import FoldedKernel, frequency_response
from forecaster.models.base import Forecaster, ResidualQuantiles, known_targets, load_arrays, save_arrays
from forecaster.models.convolution.chunks import check_runs, runs_of
from forecaster.models.convolution.folding import first_folding
from forecaster.models.convolution.geometry import KernelLayer, Strategy, newest_row_last, trace
from forecaster.models.convolution.inputs import CHANNELS, feature_count, network_channels, network_features
from forecaster.models.convolution.network import Network, Objective
from forecaster.models.convolution.training import Data, Schedule, Trainer, trainer_of
from forecaster.models.econometric.harx import HarxForecaster
from forecaster.models.learned.blocks import session_blocks
from forecaster.quantiles import LEVELS, QuantileForecast, quantile_weights
from forecaster.returns import forward_returns
from forecaster.windows import Panel, Universe, Windows

__all__ = ["ConvolutionForecaster", "scale_loss", "scale_objective"]

Array = NDArray[np.float64]
Tensor = Any  # TensorFlow's types say no shape

LOG_SCALE_BOUND = 2.0
"""The network may stretch or shrink the anchor by a factor of e squared at most."""
YEAR = 252
"""Sessions by which the age of an origin is counted."""
LINEAR = "linear"
"""Folder of the linear model."""
PERIODS = np.geomspace(2.0, 252.0, 64)
"""From two sessions, the shortest that daily data can tell, to a year."""


class ConvolutionForecaster:
    """Forecasts the scale of the outcome; its shape comes from past standardised outcomes.

    The network sees the channels of each window through two convolutions, the first of which applies a 2D
    kernel by a strategy, takes the last step, joins it with standardised features, and gives for each
    horizon a number s. The scale of the outcome is ``S = anchor * exp(s)``, where the anchor is the scale of
    a linear model or the EWMA one; the last layer starts at zero, so that training starts at the anchor.
    Quantiles are S times the pooled quantiles of outcomes over S. Several seeds are averaged in s.

    It is trained for `scale_loss` on chunks of consecutive origins, and scored a block of the series at a
    time. The compiled network is shared with all others of its shape; the model holds the weights.

    Outcomes over the S of networks that were trained on them would be too narrow. Those of a `fit` are made
    out of sample: the training sessions are cut into four blocks, and each is scored by one network that was
    trained on the others, without the origins whose outcomes overlap it. A `renew` adds the outcomes since
    then over the scales that were forecast for them.

    Parameters
    ----------
    strategy : Lifting or Parallel or None
        How the 2D kernel meets the series; None for the same network without the convolutions.
    layers : sequence of KernelLayer
        What the lifted series goes through; none without a strategy.
    lookback : int
        Sessions of a window, without the history that the strategy reaches back to.
    dense : int
        Units of the hidden layer.
    anchor : {"lin", "ewma"}
        Where the scale starts: the pooled linear model with the cross-section, fitted to mean absolute
        returns (`forecaster.models.econometric.HarxForecaster`), or the EWMA volatility times the root of h.
    refit_every : int
        Refits of a backtest from one training to the next. At those between, the linear model and its GJR
        volatilities are estimated anew, and so are the residual quantiles; the network stays.
    half_life : float
        Years after which an origin counts half in training; 0 for no fading.
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
        strategy: Strategy | None,
        layers: Sequence[KernelLayer],
        lookback: int,
        dense: int,
        anchor: Literal["lin", "ewma"],
        refit_every: int,
        half_life: float,
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
        self.anchor, self.refit_every, self.half_life = anchor, refit_every, half_life
        self.chunk, self.dropout = chunk, dropout
        self.schedule = Schedule(epochs, chunks_per_step, learning_rate, weight_decay)
        self.seeds, self.warm_start, self.seed = seeds, warm_start, seed
        self.weights: NDArray[np.float32] | None = None
        self.linear = HarxForecaster(cross_section=True, target="daily")
        self.residuals = ResidualQuantiles(by_symbol=False)
        self.statistics = np.empty((2, 0), dtype=np.float32)
        self._first_weights: NDArray[np.float32] | None = None
        self._outcomes: tuple[Panel, NDArray[np.int64], Array] | None = None

    @property
    def parameters(self) -> int:
        """Number of trained weights, coefficients and estimates of the linear model, and quantiles."""
        weights = 0 if self.weights is None else self.weights.size
        return int(weights) + self.linear.parameters + self.residuals.parameters

    def network(self, n_horizons: int) -> Network:
        """Describe the network for so many horizons."""
        return Network(
            self.strategy,
            self.lookback,
            self.layers,
            channels=len(CHANNELS),
            outputs=n_horizons,
            head="last",
            features=feature_count(n_horizons, self.anchor == "lin"),
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
        self._first_weights = self._weights_of(previous, "a warm start is made from")
        return self

    def renew(self, previous: Forecaster, windows: Windows) -> Self:
        """Keep the networks of an earlier refit; estimate anchors, volatilities and residual quantiles anew.

        Parameters
        ----------
        previous : ConvolutionForecaster
            Fitted, or renewed, on the same panel with the same settings.
        windows : Windows
            Origins whose outcomes are known.

        Raises
        ------
        ParameterError
            When it is another kind of model, has other weights or learned from another panel.
        NotFittedError
            When it is not fitted.
        """
        self.weights = self._weights_of(previous, "a renewal is made from")
        assert isinstance(previous, ConvolutionForecaster)
        targets = known_targets(windows)
        if previous._outcomes is None or previous._outcomes[0] is not windows.panel:
            raise ParameterError(
                "a renewal adds outcomes to those of the panel that the model was fitted on. Received: "
                "another panel, or a model that was loaded; fit it afresh"
            )
        _, rows, known = previous._outcomes
        place = np.searchsorted(rows, windows.rows)
        held = rows[np.minimum(place, len(rows) - 1)] == windows.rows
        standardised = np.empty_like(targets)
        standardised[held] = known[place[held]]
        later = windows.take(~held)
        standardised[~held] = targets[~held] / previous._scales(later)
        self.statistics = previous.statistics
        self.linear.fit(windows)
        self._take_residuals(windows, standardised)
        return self

    def _weights_of(self, previous: Forecaster, purpose: str) -> NDArray[np.float32]:
        if not isinstance(previous, ConvolutionForecaster) or previous._settings() != self._settings():
            raise ParameterError(
                f"{purpose} a convolution of the same network and seeds. Received: "
                f"{type(previous).__name__} of other settings; start afresh"
            )
        if previous.weights is None:
            raise NotFittedError(f"{purpose} a fitted model; fit the earlier one first")
        return previous.weights

    def _settings(self) -> tuple[str, int]:
        """Return what weights belong to."""
        return self.network(1).identity, self.seeds

    def fit(self, windows: Windows) -> Self:
        """Train on all origins, from fresh weights unless `start_from` gave others."""
        targets = known_targets(windows)
        self.linear.fit(windows)
        anchors, features = self._anchors(windows), self._features(windows)
        # Not quite zero where a feature is constant.
        self.statistics = np.stack([features.mean(axis=0), features.std(axis=0) + np.float32(1e-6)])
        observed = self._observed(windows, targets, anchors)
        data = self._data(windows, features, observed, self._ages(windows))
        constants = self._constants(observed)
        self.weights = np.stack(
            [
                self._trained(windows, data, constants, member, start)
                for member, start in enumerate(
                    [None] * self.seeds if self._first_weights is None else self._first_weights
                )
            ]
        )
        self._take_residuals(windows, targets / self._scales_out_of_sample(windows, anchors, data, constants))
        return self

    def _trained(
        self,
        windows: Windows,
        data: Data,
        constants: tuple[Array, Array],
        member: int,
        start: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Train one network on some origins."""
        trainer, offsets = self.trainer(len(windows.horizons)), windows.panel.offsets
        runs = runs_of(windows.rows, offsets)
        check_runs(runs, offsets, trainer.network.sessions)
        return trainer.fit(
            data,
            runs,
            self.schedule,
            self.seed + member,
            weights=start,
            constants=constants,
            statistics=self.statistics,
        )

    def _scales_out_of_sample(
        self, windows: Windows, anchors: Array, data: Data, constants: tuple[Array, Array]
    ) -> Array:
        """Scale each block of training sessions by a network that was trained on the others.

        A block whose surroundings leave next to nothing to train on is scaled by the model itself.
        """
        assert self.weights is not None
        scales = np.empty_like(anchors)
        place, blocks = session_blocks(windows)
        for number, block in enumerate(blocks):
            mine = (place >= block.first) & (place <= block.last)
            far = (place < block.near_first) | (place > block.near_last)
            members: Sequence[NDArray[np.float32]] = list(self.weights)
            if far.sum() >= ResidualQuantiles.minimum:
                members = [self._trained(windows.take(far), data, constants, self.seeds + number)]
            scales[mine] = anchors[mine] * self._stretches(windows.take(mine), data, members)
        return scales

    def _take_residuals(self, windows: Windows, standardised: Array) -> None:
        order = np.argsort(windows.rows, kind="stable")
        self._outcomes = windows.panel, windows.rows[order], standardised[order]
        self.residuals.fit(windows, standardised)

    def predict(self, windows: Windows) -> QuantileForecast:
        """Stretch the residual quantiles by each origin's scale; say which members have no prices."""
        if self.weights is None:
            raise NotFittedError("a model is fitted before it predicts; call fit first")
        windows.panel.warn_of_missing(self.linear.universe, "the market and the cross-section are")
        return self.residuals.forecast(windows, self._scales(windows))

    def save(self, folder: Path) -> None:
        """Write the weights by name, the feature statistics, the residual quantiles and the linear model."""
        state = self.residuals.state() | {"feature_mean": self.statistics[0]}
        state |= {"feature_deviation": self.statistics[1]}
        members = [self._named(member) for member in range(self.seeds)]
        state |= {f"weights/{name}": np.stack([member[name] for member in members]) for name in members[0]}
        save_arrays(folder, state)
        (folder / LINEAR).mkdir()
        self.linear.save(folder / LINEAR)

    def load(self, folder: Path) -> Self:
        """Read what `save` wrote."""
        state = load_arrays(folder)
        self.linear.load(folder / LINEAR)
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
            For a spectrogram, which has no linear kernel on the series, and without convolutions.
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
        members = [self._named(member) for member in range(self.seeds)]
        if self.strategy is None:
            raise ParameterError(
                "a kernel on the series is shown of a network that has one. Received: a network without "
                "convolutions"
            )
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

    def _anchors(self, windows: Windows) -> Array:
        """Scales that training starts from, shape (n_origins, n_horizons)."""
        return self.linear.scales(windows) if self.anchor == "lin" else windows.scales

    def _features(self, windows: Windows) -> NDArray[np.float32]:
        return network_features(self.linear, windows, self.anchor == "lin")

    def _ages(self, windows: Windows) -> NDArray[np.float32] | None:
        """Weight of each origin by its age, shape (n_origins,); None where all weigh the same."""
        if not self.half_life:
            return None
        place = np.searchsorted(windows.panel.calendar, windows.sessions)
        weights: NDArray[np.float32] = (0.5 ** ((place.max() - place) / (YEAR * self.half_life))).astype("f4")
        return weights

    @staticmethod
    def _observed(windows: Windows, targets: Array, anchors: Array) -> Array:
        """Outcomes over their anchors, and realised mean absolute returns over them, side by side."""
        ahead, panel = np.array(windows.horizons, dtype=np.float64), windows.panel
        sizes = np.empty_like(targets)
        for part, mine in windows.by_series():
            sums = forward_returns(np.abs(panel.returns[part]), windows.horizons)
            sizes[mine] = sums[windows.rows[mine] - part.start]
        return np.concatenate([targets / anchors, sizes / np.sqrt(ahead) / anchors], axis=1)

    @staticmethod
    def _constants(observed: Array) -> tuple[Array, Array]:
        """Return what the loss takes from the training origins: see `scale_loss`."""
        outcomes, sizes = np.split(observed, 2, axis=1)
        return np.quantile(outcomes, LEVELS, axis=0).T, sizes.mean(axis=0)

    def _data(
        self,
        windows: Windows,
        features: NDArray[np.float32],
        observed: Array | None = None,
        weights: NDArray[np.float32] | None = None,
    ) -> Data:
        """Put on the device what is known of some origins; zero at all others."""

        def whole(values: NDArray[Any] | None) -> NDArray[np.float32] | None:
            if values is None:
                return None
            table = np.zeros((len(windows.panel), *values.shape[1:]), dtype=np.float32)
            table[windows.rows] = values
            return table

        placed = Data.of(np.zeros((0, 0), np.float32), whole(observed), whole(features), whole(weights))
        return placed._replace(channels=_channels_on_device(windows.panel, self.linear.universe))

    def _stretches(self, windows: Windows, data: Data, members: Sequence[NDArray[np.float32]]) -> Array:
        """Give exp(s) of each origin, shape (n_origins, n_horizons), s averaged over some networks."""
        trainer, offsets = self.trainer(len(windows.horizons)), windows.panel.offsets
        scored = [trainer.score(one, data, windows.rows, offsets, self.statistics) for one in members]
        log_scale = np.mean(scored, axis=0, dtype=np.float64)
        stretches: Array = np.exp(np.clip(log_scale, -LOG_SCALE_BOUND, LOG_SCALE_BOUND))
        return stretches

    def _scales(self, windows: Windows) -> Array:
        assert self.weights is not None
        data = self._data(windows, self._features(windows))
        return self._anchors(windows) * self._stretches(windows, data, list(self.weights))


# --- what is trained for -----------------------------------------------------------------------------------


def scale_loss(outputs: Tensor, observed: Tensor, constants: Sequence[Tensor]) -> Tensor:
    """Loss of a log scale s.

    Twice the CRPS of the outcome over its anchor, against fixed pooled quantiles times ``exp(s)``, plus
    ``a * exp(-s) + s`` with a the realised mean absolute return over the horizon in units of the anchor a day
    and of its own average (the likelihood of a Laplace scale); the mean over horizons.

    Parameters
    ----------
    outputs : tensor of shape (chunks, origins, n_horizons)
        The log scale.
    observed : tensor of shape (chunks, origins, 2 * n_horizons)
        Outcomes over the anchor, and realised mean absolute returns over it.
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


_ON_DEVICE: weakref.WeakKeyDictionary[Panel, dict[Universe, Tensor]] = weakref.WeakKeyDictionary()


def _channels_on_device(panel: Panel, universe: Universe) -> Tensor:
    """Put the channels of a panel on the device, once for all models and refits."""
    held = _ON_DEVICE.setdefault(panel, {})
    if universe not in held:
        held[universe] = tf.constant(network_channels(panel, universe))
    return held[universe]
