"""The convolution as a forecaster: a 2D kernel on the series beside features, with a head for its target."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

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
from forecaster.models.convolution.inputs import BLOCK_ROWS
from forecaster.models.convolution.network import Network
from forecaster.models.convolution.targets import TARGETS, Target
from forecaster.models.convolution.training import Data, Schedule, Trainer, trainer_of
from forecaster.models.covariates import CovariateInputs
from forecaster.models.learned.blocks import session_blocks
from forecaster.quantiles import QuantileForecast
from forecaster.windows import Panel, Universe, Windows

__all__ = ["ConvolutionForecaster"]

Array = NDArray[np.float64]
Tensor = Any  # TensorFlow's types say no shape

YEAR = 252
"""Sessions by which the age of an origin is counted."""
PERIODS = np.geomspace(2.0, 252.0, 64)
"""From two sessions, the shortest that daily data can tell, to a year."""


class _Past(NamedTuple):
    """What was forecast for the training origins by networks that had not seen their outcomes.

    Attributes
    ----------
    panel : Panel
    rows : ndarray of shape (n_origins,)
        Increasing.
    location, scale : ndarray of shape (n_origins, n_horizons)
    """

    panel: Panel
    rows: NDArray[np.int64]
    location: Array
    scale: Array


class ConvolutionForecaster:
    """Forecasts the scale of the outcome, its variance or its mean; its shape comes from past outcomes.

    The network sees the channels of each window through two convolutions, the first of which applies a 2D
    kernel by a strategy, takes the last step, joins it with standardised features, and gives for each
    horizon a number s. What s means, and what it is trained for, is the target's (see
    `forecaster.models.convolution.targets`): the scale of the outcome is ``S = anchor * exp(s)``, where the
    anchor is the scale of a linear model or the EWMA one, or its variance is; or its mean is s times the
    anchor. The last layer starts at zero, so that training starts at the anchor. Quantiles are S times the
    pooled quantiles of outcomes over S. Several seeds are averaged in s. Covariates are channels, by their
    last known value at each session, and features.

    It is trained on chunks of consecutive origins, and scored a block of the series at a time. The compiled
    network is shared with all others of its shape; the model holds the weights.

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
    target : {"distribution", "variance", "point"}
        What is trained for: the scale by CRPS, the variance by QLIKE, or the mean by squared error.
    anchor : {"lin", "ewma"}
        Where the scale starts: the pooled linear model with the cross-section, fitted to mean absolute
        returns (`forecaster.models.econometric.HarxForecaster`), or the EWMA volatility times the root of h.
        The variance starts at the linear model that minimises QLIKE
        (`forecaster.models.econometric.QlikeForecaster`), or at the EWMA variance times h.
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
    devices : int
        Devices of this host that share each step of training.
    """

    def __init__(
        self,
        strategy: Strategy | None,
        layers: Sequence[KernelLayer],
        lookback: int,
        dense: int,
        target: Literal["distribution", "variance", "point"],
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
        devices: int = 1,
    ) -> None:
        self.strategy, self.layers, self.lookback, self.dense = strategy, tuple(layers), lookback, dense
        self.target: Target = TARGETS[target](anchor)
        self.refit_every, self.half_life = refit_every, half_life
        self.chunk, self.dropout = chunk, dropout
        self.schedule = Schedule(epochs, chunks_per_step, learning_rate, weight_decay, devices=devices)
        self.seeds, self.warm_start, self.seed = seeds, warm_start, seed
        self.weights: NDArray[np.float32] | None = None
        self.residuals = ResidualQuantiles(by_symbol=False)
        self.covariates = CovariateInputs()
        self.statistics = np.empty((2, 0), dtype=np.float32)
        self._first_weights: NDArray[np.float32] | None = None
        self._past: _Past | None = None

    @property
    def parameters(self) -> int:
        """Number of trained weights, coefficients and estimates of the linear models, and quantiles."""
        weights = 0 if self.weights is None else self.weights.size
        return int(weights) + self.target.parameters + self.residuals.parameters

    def network(self, n_horizons: int) -> Network:
        """Describe the network for so many horizons."""
        return Network(
            self.strategy,
            self.lookback,
            self.layers,
            channels=len(self._channel_names()),
            outputs=n_horizons,
            head="last",
            features=self.target.feature_count(n_horizons) + self.covariates.width,
            dense=self.dense,
            dropout=self.dropout,
            zero_output=True,
        )

    def trainer(self, n_horizons: int) -> Trainer:
        """Return the compiled network, which it shares with every model of its shape."""
        return trainer_of(self.network(n_horizons), self.target.objective(n_horizons), self.chunk)

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
        learned = windows.pooled
        known_targets(learned)
        if previous._past is None or previous._past.panel is not learned.panel:
            raise ParameterError(
                "a renewal adds outcomes to those of the panel that the model was fitted on. Received: "
                "another panel, or a model that was loaded; fit it afresh"
            )
        past = previous._past
        place = np.searchsorted(past.rows, learned.rows)
        held = past.rows[np.minimum(place, len(past.rows) - 1)] == learned.rows
        location, scale = (np.empty((len(learned), len(learned.horizons))) for _ in range(2))
        location[held], scale[held] = past.location[place[held]], past.scale[place[held]]
        location[~held], scale[~held] = previous.location_and_scale(learned.take(~held))
        self.statistics = previous.statistics
        self.target.fit(windows)
        self._take_residuals(learned, location, scale)
        return self

    def _weights_of(self, previous: Forecaster, purpose: str) -> NDArray[np.float32]:
        if isinstance(previous, ConvolutionForecaster):
            self.covariates = previous.covariates  # weights belong to inputs of that scale
        if not isinstance(previous, ConvolutionForecaster) or previous._settings() != self._settings():
            raise ParameterError(
                f"{purpose} a convolution of the same network, target and seeds. Received: "
                f"{type(previous).__name__} of other settings; start afresh"
            )
        if previous.weights is None:
            raise NotFittedError(f"{purpose} a fitted model; fit the earlier one first")
        return previous.weights

    def _settings(self) -> tuple[str, type[Target], int]:
        """Return what weights belong to."""
        return self.network(1).identity, type(self.target), self.seeds

    def garch_fits(self, windows: Windows) -> list[tuple[Array, bool]]:
        """Return the series that a `fit` or a `renew` estimates GARCH on, and whether with asymmetry."""
        return self.target.linear.garch_fits(windows)

    def fit(self, windows: Windows) -> Self:
        """Train on all origins, from fresh weights unless `start_from` gave others."""
        learned = windows.pooled
        known_targets(learned)
        self.covariates = CovariateInputs().fit(learned)
        self.target.fit(windows)
        windows = learned  # the network and the quantiles are of all series together
        features, anchors = self._features_and_anchors(windows)
        # Not quite zero where a feature is constant.
        self.statistics = np.stack([features.mean(axis=0), features.std(axis=0) + np.float32(1e-6)])
        observed = self.target.observed(windows, anchors)
        data = self._data(windows, features, observed, self._ages(windows))
        constants = self.target.constants(observed)
        self.weights = np.stack(
            [
                self._trained(windows, data, constants, member, start)
                for member, start in enumerate(
                    [None] * self.seeds if self._first_weights is None else self._first_weights
                )
            ]
        )
        outputs = self._outputs_out_of_sample(windows, data, constants)
        self._take_residuals(windows, *self.target.location_and_scale(anchors, outputs))
        return self

    def _trained(
        self,
        windows: Windows,
        data: Data,
        constants: tuple[Array, ...],
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

    def _outputs_out_of_sample(self, windows: Windows, data: Data, constants: tuple[Array, ...]) -> Array:
        """Score each block of training sessions by a network that was trained on the others.

        A block whose surroundings leave next to nothing to train on is scored by the model itself.
        """
        assert self.weights is not None
        outputs = np.empty((len(windows), len(windows.horizons)))
        place, blocks = session_blocks(windows)
        for number, block in enumerate(blocks):
            mine, far = block.inside(place), block.apart(place)
            members: Sequence[NDArray[np.float32]] = list(self.weights)
            if far.sum() >= ResidualQuantiles.minimum:
                members = [self._trained(windows.take(far), data, constants, self.seeds + number)]
            outputs[mine] = self._outputs(windows.take(mine), data, members)
        return outputs

    def _take_residuals(self, windows: Windows, location: Array, scale: Array) -> None:
        order = np.argsort(windows.rows, kind="stable")
        self._past = _Past(windows.panel, windows.rows[order], location[order], scale[order])
        self.target.settle(windows, location, scale)
        self.residuals.fit(windows, (windows.targets - self.target.settled(location)) / scale)

    def predict(self, windows: Windows) -> QuantileForecast:
        """Place and stretch the residual quantiles; say which members have no prices."""
        if self.weights is None:
            raise NotFittedError("a model is fitted before it predicts; call fit first")
        windows.panel.warn_of_missing(self.target.universe, "the market and the cross-section are")
        return self.target.forecast(windows, *self.location_and_scale(windows), self.residuals)

    def save(self, folder: Path) -> None:
        """Write the weights by name, the feature statistics, the residual quantiles and the linear models."""
        state = self.residuals.state() | {"feature_mean": self.statistics[0]}
        state |= {"feature_deviation": self.statistics[1]} | self.target.state() | self.covariates.state()
        members = [self._named(member) for member in range(self.seeds)]
        state |= {f"weights/{name}": np.stack([member[name] for member in members]) for name in members[0]}
        save_arrays(folder, state)
        self.target.save(folder)

    def load(self, folder: Path) -> Self:
        """Read what `save` wrote."""
        state = load_arrays(folder)
        self.target.load(folder, state)
        self.residuals.restore(state)
        self.covariates.restore(state)
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
            [lags, self._channel_names(), range(kernel.taps.shape[2])], names=["lag", "channel", "filter"]
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
            [PERIODS, self._channel_names(), range(kernel.taps.shape[2])],
            names=["period", "channel", "filter"],
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

    def _channel_names(self) -> list[str]:
        return [*self.target.channel_names, *(f"covariate {name}" for name in self.covariates.names)]

    def _features_and_anchors(self, windows: Windows) -> tuple[NDArray[np.float32], Array]:
        features, anchors = self.target.features_and_anchors(windows)
        return np.concatenate([features, self.covariates(windows)], axis=1), anchors

    def _ages(self, windows: Windows) -> NDArray[np.float32] | None:
        """Weight of each origin by its age, shape (n_origins,); None where all weigh the same."""
        if not self.half_life:
            return None
        place = np.searchsorted(windows.panel.calendar, windows.sessions)
        weights: NDArray[np.float32] = (0.5 ** ((place.max() - place) / (YEAR * self.half_life))).astype("f4")
        return weights

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
        channels = _channels_on_device(windows.panel, self.target)
        if self.covariates.names:
            channels = tf.concat([channels, self.covariates.channels(windows.panel)], axis=1)
        return placed._replace(channels=channels)

    def _outputs(self, windows: Windows, data: Data, members: Sequence[NDArray[np.float32]]) -> Array:
        """Give the outputs at each origin, shape (n_origins, n_horizons), averaged over some networks."""
        trainer, offsets = self.trainer(len(windows.horizons)), windows.panel.offsets
        scored = [trainer.score(one, data, windows.rows, offsets, self.statistics) for one in members]
        outputs: Array = np.mean(scored, axis=0, dtype=np.float64)
        return outputs

    def location_and_scale(self, windows: Windows) -> tuple[Array, Array]:
        """Forecast where outcomes lie and how far they spread, each of shape (n_origins, n_horizons)."""
        assert self.weights is not None
        location, scale = (np.empty((len(windows), len(windows.horizons))) for _ in range(2))
        for mine, part in windows.blocks(BLOCK_ROWS):
            features, anchors = self._features_and_anchors(part)
            outputs = self._outputs(part, self._data(part, features), list(self.weights))
            location[mine], scale[mine] = self.target.location_and_scale(anchors, outputs)
        return location, scale


_ON_DEVICE: weakref.WeakKeyDictionary[Panel, dict[tuple[type[Target], Universe], Tensor]] = (
    weakref.WeakKeyDictionary()
)


def _channels_on_device(panel: Panel, target: Target) -> Tensor:
    """Put the channels of a panel on the device, once for all models and refits."""
    held = _ON_DEVICE.setdefault(panel, {})
    key = type(target), target.universe
    if key not in held:
        held[key] = tf.constant(target.channels(panel))
    return held[key]
