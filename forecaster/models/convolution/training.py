"""Training and scoring of networks at the speed that the algebra allows.

Overlapping windows repeat nearly all of their work. So the panel is put on the device once, an epoch is one
compiled loop over chunks of consecutive origins, each of which runs through the network once as a series, and
scoring is one call a block of the series. A compiled program holds no weights: it takes and gives them, so
that all folds, seeds and models of one network share one trace and do not disturb each other.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from forecaster.models.convolution import runtime

# isort: split
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from forecaster.errors import ParameterError
from forecaster.models.convolution.chunks import (
    FEWEST_CHUNKS,
    LONGEST_CHUNK,
    SHORTEST_CHUNK,
    cut_chunks,
    find_blocks,
)
from forecaster.models.convolution.network import Network, NetworkFunction, Objective
from forecaster.models.convolution.rates import cosine_rates

__all__ = ["Data", "Schedule", "Trainer", "TrainingState", "trainer_of"]

Tensor = Any  # TensorFlow's types say no shape
Array = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

MEAN_DECAY, SQUARE_DECAY, SMALLEST_ROOT = 0.9, 0.999, 1e-7
"""Of AdamW, as in Keras."""
COMPILED = 64
"""Programs that are kept; a job has about as many as models."""
DEVICE_SEED = 1_000_003
"""Between the seeds of the dropout of two devices."""
SCORING_BLOCK = 2048
"""Origins that are scored as one series."""
SCORING_GROUP = 8
"""Blocks of one call: few enough that their activations take some megabytes only."""


class Data(NamedTuple):
    """A panel on the device.

    Attributes
    ----------
    channels : tensor of shape (total, channels), float32
        Finite in every window that is trained on or scored.
    features : tensor of shape (total, features), float32
        Of each origin; of shape (0, 0) where the network has none.
    observed : tensor of shape (total, columns), float32
        What training compares with, finite at every training origin; of shape (0, columns) to score only.
    weights : tensor of shape (total,) or (1,), float32
        Weight of each origin, or of all.
    """

    channels: Tensor
    features: Tensor
    observed: Tensor
    weights: Tensor

    @classmethod
    def of(
        cls,
        channels: Array,
        observed: Array | None = None,
        features: Array | None = None,
        weights: Array | None = None,
    ) -> Self:
        """Put arrays on the device; the same array twice is put there once."""
        placed = tf.constant(channels)
        if observed is None:
            seen = tf.zeros((0, 1))
        else:
            seen = placed if observed is channels else tf.constant(observed)
        return cls(
            placed,
            tf.zeros((0, 0)) if features is None else tf.constant(features),
            seen,
            tf.ones((1,)) if weights is None else tf.constant(weights),
        )


class TrainingState(NamedTuple):
    """Weights and what AdamW remembers.

    Attributes
    ----------
    weights, means, squares : tensor of shape (size,), float32
        Flat weights; averages of the gradient and of its square.
    step : tensor of shape (), int32
        Steps made.
    """

    weights: Tensor
    means: Tensor
    squares: Tensor
    step: Tensor


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a network is trained.

    Attributes
    ----------
    epochs : int
        Passes over the origins.
    chunks_per_step : int
        Chunks of a step; at least four, or the origins of a step resemble each other too much.
    learning_rate : float
        Peak of the cosine schedule of AdamW.
    weight_decay : float
        Of AdamW, on every weight, biases and scales of a normalization too, as Keras has it by default.
    warm_up : int
        Steps in which the rate rises.
    devices : int
        Devices of this host that share each step: GPUs, where there are as many, and else CPUs. Their
        gradients are added, so that results are those of one device but for rounding and dropout.
    """

    epochs: int
    chunks_per_step: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    warm_up: int = 20
    devices: int = 1

    def __post_init__(self) -> None:
        if self.devices < 1 or self.chunks_per_step % self.devices:
            raise ParameterError(
                "the chunks of a step are divided evenly among devices. Received: "
                f"{self.chunks_per_step} chunks and {self.devices} devices."
            )
        if self.chunks_per_step < FEWEST_CHUNKS:
            raise ParameterError(
                f"a step takes at least {FEWEST_CHUNKS} chunks. Received: {self.chunks_per_step}."
            )


def _total_weight(weights: Tensor, runs: Rows) -> float:
    """Weight of all origins together."""
    if len(weights) == 1:
        return float(weights[0]) * float((runs[:, 1] - runs[:, 0] + 1).sum())
    held = weights.numpy()
    return float(sum(held[first : last + 1].sum(dtype=np.float64) for first, last in runs))


class Trainer:
    """A network, an objective and a chunk length, compiled; it holds no weights and no data.

    `trainer_of` gives the same one for the same network, so that it is traced once.

    Parameters
    ----------
    network : Network
    objective : Objective
    chunk : int
        Origins of a chunk, from 64 to 256.

    Attributes
    ----------
    traces : Counter
        How often what has been traced: ``("train", chunks a step)``, for each number of devices, and
        ``("score", origins of a block)``, where a single window is a block of 1.
    """

    def __init__(self, network: Network, objective: Objective, chunk: int) -> None:
        if not SHORTEST_CHUNK <= chunk <= LONGEST_CHUNK:
            raise ParameterError(
                f"a chunk holds {SHORTEST_CHUNK} to {LONGEST_CHUNK} origins. Received: {chunk}."
            )
        runtime.repeat_to_the_bit()
        self.network, self.objective, self.chunk = network, objective, chunk
        self.function = NetworkFunction(network)
        # Where each window is computed by itself, a block saves nothing and holds the maps of all of them.
        self._by_window = network.strategy is not None and network.plan().series != "series"
        self.traces: Counter[tuple[str, int]] = Counter()
        # Shapes are known when they are traced: all that depends on them alone is computed there.
        self._train = functools.cache(self._compile_training)
        self._score = functools.cache(self._compile_scoring)

    # --- training -------------------------------------------------------------------------------------------

    def fit(
        self,
        data: Data,
        runs: Rows,
        schedule: Schedule,
        seed: int,
        *,
        weights: Array | None = None,
        constants: Sequence[npt.NDArray[Any]] = (),
        statistics: Array | None = None,
    ) -> Array:
        """Train from fresh weights, or from given ones, on all origins of some runs.

        Parameters
        ----------
        data : Data
        runs : ndarray of shape (n_runs, 2)
            As `forecaster.models.convolution.chunks.runs_of` gives them; see `check_runs` there.
        schedule : Schedule
        seed : int
            Seed of the first weights, of the cuts and their order, and of the dropout.
        weights : ndarray of shape (size,), optional
            To start from; the optimiser starts afresh all the same.
        constants, statistics
            As `train` takes them.

        Returns
        -------
        ndarray of shape (size,), float32
            The trained weights.

        Raises
        ------
        ParameterError
            When there is no origin, or when training diverges.
        """
        if not len(runs):
            raise ParameterError("training needs at least one origin. Received: none.")
        generator = np.random.default_rng([seed, 1])
        epochs = [
            cut_chunks(runs, self.chunk, schedule.chunks_per_step, generator) for _ in range(schedule.epochs)
        ]
        total = _total_weight(data.weights, runs)
        expected = np.concatenate([np.full(len(epoch), total / len(epoch)) for epoch in epochs])
        state, _ = self.train(
            self.start(self.function.first_weights(seed) if weights is None else weights),
            data,
            np.concatenate(epochs),
            cosine_rates(schedule.learning_rate, len(expected), schedule.warm_up),
            expected=expected,
            weight_decay=schedule.weight_decay,
            constants=constants,
            statistics=statistics,
            dropout_seed=seed,
            devices=schedule.devices,
        )
        trained: Array = state.weights.numpy()
        if not np.isfinite(trained).all():
            raise ParameterError(
                f"training diverged; lower learning_rate. Received: learning_rate={schedule.learning_rate:g}."
            )
        return trained

    def start(self, weights: Array) -> TrainingState:
        """Begin at given weights, with an optimiser that remembers nothing."""
        flat = tf.constant(weights, dtype=tf.float32)
        return TrainingState(flat, tf.zeros_like(flat), tf.zeros_like(flat), tf.constant(0))

    def train(
        self,
        state: TrainingState,
        data: Data,
        chunks: npt.NDArray[np.int32],
        rates: Array,
        *,
        expected: npt.NDArray[Any],
        weight_decay: float = 0.0,
        constants: Sequence[npt.NDArray[Any]] = (),
        statistics: Array | None = None,
        dropout_seed: int = 0,
        devices: int = 1,
    ) -> tuple[TrainingState, Array]:
        """Train on chunks, a step a group of them.

        Parameters
        ----------
        state : TrainingState
            As `start` or an earlier epoch gave it; it stays as it is.
        data : Data
        chunks : ndarray of shape (n_steps, per_step, 3), int32
            As `cut_chunks` gives them.
        rates : ndarray of shape (n_steps,)
            Learning rate of each step.
        expected : ndarray of shape (n_steps,)
            The sum of weighted losses of a step is divided by it: the mean weight of a step of the epoch, the
            same for all of them, so that each origin counts once, and as much as any other of its weight.
        weight_decay : float
            Of AdamW.
        constants : sequence of ndarray
            What the loss needs, in the shapes that the objective says.
        statistics : ndarray of shape (2, features), optional
            Mean and deviation that features are standardised by.
        dropout_seed : int
            Seed of the dropout.
        devices : int
            As of a `Schedule`.

        Returns
        -------
        TrainingState
        ndarray of shape (n_steps,), float32
            The loss of each step, before it was made.

        Notes
        -----
        Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2, with the
        epsilon where Keras has it.
        """
        *after, losses = self._train(chunks.shape[1], devices)(
            *state,
            *self._checked(data, "observed"),
            tf.constant(chunks, dtype=tf.int32),
            tf.constant(rates, dtype=tf.float32),
            tf.constant(1.0 / expected, dtype=tf.float32),
            tf.constant(weight_decay, dtype=tf.float32),
            tuple(tf.constant(constant, dtype=tf.float32) for constant in constants),
            self._statistics(statistics),
            tf.constant(dropout_seed, dtype=tf.int32),
        )
        return TrainingState(*after), losses.numpy()

    def gradient(
        self,
        weights: Array,
        data: Data,
        chunks: npt.NDArray[np.int32],
        *,
        expected: float,
        constants: Sequence[npt.NDArray[Any]] = (),
        statistics: Array | None = None,
    ) -> tuple[float, Array]:
        """Compute the loss of one step, and its gradient, without dropout; for tests, and not compiled."""
        held = tuple(tf.constant(constant, dtype=tf.float32) for constant in constants)
        loss, gradient = self._loss_and_gradient(
            tf.constant(weights),
            data,
            tf.constant(chunks, dtype=tf.int32),
            tf.constant(1.0 / expected, dtype=tf.float32),
            held,
            self._statistics(statistics),
            None,
        )
        return float(loss), gradient.numpy()

    def _statistics(self, statistics: Array | None) -> Tensor:
        if statistics is None or not self.network.features:
            return tf.stack([tf.zeros(self.network.features), tf.ones(self.network.features)])
        return tf.constant(statistics, dtype=tf.float32)

    def _loss_and_gradient(
        self,
        weights: Tensor,
        data: Data,
        chunks: Tensor,
        share: Tensor,
        constants: Sequence[Tensor],
        statistics: Tensor,
        dropout_seed: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Loss of the counted origins of some chunks, and its gradient by the weights."""
        begin, first, last = (chunks[:, number, None] for number in range(3))
        context = self.network.sessions - 1
        # Nothing but the windows of the counted origins is read: whatever else lies beside them in the panel,
        # another series, a later session, NaN, leaves no trace in the gradient. Where a chunk counts nothing,
        # its last lies before its first; it reads that one.
        end = tf.maximum(first, last)
        reach = begin - context + tf.range(self.chunk + context)
        series = tf.gather(data.channels, tf.clip_by_value(reach, first - context, end))
        places = begin + tf.range(self.chunk)
        rows = tf.clip_by_value(places, first, end)
        counted = tf.logical_and(places >= first, places <= last)
        weight = tf.gather(data.weights, tf.minimum(rows, tf.size(data.weights) - 1))
        weight = tf.where(counted, weight, 0.0) * share
        observed = [tf.gather(data.observed, rows + lead if lead else rows) for lead in self.objective.leads]
        features = tf.gather(data.features, rows) if self.network.features else None
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            outputs = self.function(weights, series, features, statistics, dropout_seed)
            seen = tf.concat(observed, axis=-1) if len(observed) > 1 else observed[0]
            loss = tf.reduce_sum(weight * self.objective.loss(outputs, seen, constants))
        return loss, tape.gradient(loss, weights)

    def _compile_training(self, per_step: int, devices: int) -> Callable[..., Any]:
        spread = _Spread(devices) if devices > 1 else None
        flat = tf.TensorSpec((self.function.size,), tf.float32)
        signature = (
            *(flat, flat, flat, tf.TensorSpec((), tf.int32)),
            *self._data_signature(),
            tf.TensorSpec((None, per_step, 3), tf.int32),
            *(tf.TensorSpec((None,), tf.float32),) * 2,
            tf.TensorSpec((), tf.float32),
            tuple(tf.TensorSpec(shape, tf.float32) for shape in self.objective.constants),
            tf.TensorSpec((2, self.network.features), tf.float32),
            tf.TensorSpec((), tf.int32),
        )

        def train(
            weights: Tensor,
            means: Tensor,
            squares: Tensor,
            past: Tensor,
            channels: Tensor,
            features: Tensor,
            observed: Tensor,
            origin_weights: Tensor,
            chunks: Tensor,
            rates: Tensor,
            shares: Tensor,
            weight_decay: Tensor,
            constants: Sequence[Tensor],
            statistics: Tensor,
            dropout_seed: Tensor,
        ) -> Tensor:
            self.traces["train", per_step] += 1
            data = Data(channels, features, observed, origin_weights)
            compute = self._loss_and_gradient
            if spread is not None:
                compute = spread.shared(compute, data)
            count = tf.shape(chunks)[0]
            age = tf.cast(past + 1 + tf.range(count), tf.float32)
            sizes = rates * tf.sqrt(1.0 - SQUARE_DECAY**age) / (1.0 - MEAN_DECAY**age)
            decays = 1.0 - rates * weight_decay

            def step(
                index: Tensor, weights: Tensor, means: Tensor, squares: Tensor, losses: Tensor
            ) -> tuple[Tensor, ...]:
                loss, gradient = compute(
                    weights,
                    data,
                    chunks[index],
                    shares[index],
                    constants,
                    statistics,
                    tf.stack([dropout_seed, past + index]),
                )
                means = means + (gradient - means) * (1.0 - MEAN_DECAY)
                squares = squares + (tf.square(gradient) - squares) * (1.0 - SQUARE_DECAY)
                moved = sizes[index] * means / (tf.sqrt(squares) + SMALLEST_ROOT)
                return index + 1, weights * decays[index] - moved, means, squares, losses.write(index, loss)

            held = tf.TensorArray(tf.float32, size=count, element_shape=())
            _, weights, means, squares, held = tf.while_loop(
                lambda index, *_: index < count,
                step,
                (tf.constant(0), weights, means, squares, held),
                parallel_iterations=1,
            )
            return weights, means, squares, past + count, held.stack()

        compiled: Callable[..., Any] = tf.function(train, input_signature=signature, autograph=False)
        return compiled

    def _data_signature(self) -> Data:
        widths = (self.network.channels, self.network.features, self.objective.columns)
        channels, features, observed = (tf.TensorSpec((None, width), tf.float32) for width in widths)
        return Data(channels, features, observed, weights=tf.TensorSpec((None,), tf.float32))

    def _checked(self, data: Data, *more: str) -> Data:
        """Refuse arrays of other widths than the network's; features that it does not take are left out."""
        signature = self._data_signature()
        if not self.network.features:
            data = data._replace(features=tf.zeros((0, 0)))
        for name in ("channels", "features", *more):
            given, needed = getattr(data, name).shape, getattr(signature, name).shape
            if len(given) != 2 or given[1] != needed[1]:
                raise ParameterError(
                    f"the network needs {name} of shape (total, {needed[1]}). Received: shape {tuple(given)}."
                )
        return data

    # --- scoring --------------------------------------------------------------------------------------------

    def score(
        self, weights: Array, data: Data, rows: Rows, offsets: Rows, statistics: Array | None = None
    ) -> Array:
        """Compute the outputs at origins.

        Parameters
        ----------
        weights : ndarray of shape (size,)
        data : Data
        rows : ndarray of shape (n_origins,)
            Flat rows of the origins, in any order, some perhaps more than once; each has the sessions of one
            window up to it.
        offsets : ndarray of shape (n_series + 1,)
            Where the series of the panel begin.
        statistics : ndarray of shape (2, features), optional
            As in `train`.

        Returns
        -------
        ndarray of shape (n_origins, outputs), float32
        """
        result = np.empty((len(rows), self.network.outputs), dtype=np.float32)
        for places, outputs in self.score_blocks(weights, data, rows, offsets, statistics):
            result[places] = outputs
        return result

    def score_blocks(
        self, weights: Array, data: Data, rows: Rows, offsets: Rows, statistics: Array | None = None
    ) -> Iterator[tuple[slice | Rows, Array]]:
        """Compute the outputs at origins, block by block, so that they need not be held all at once.

        An origin always stands at the same place of a block of the same length, counted from the start of its
        series, so that neither what comes after it nor other series move it. Where few origins of a block are
        asked for, their windows are computed instead, with the same values but for rounding.

        Parameters
        ----------
        weights, data, rows, offsets, statistics
            As `score` takes them.

        Yields
        ------
        places : slice or ndarray of int64
            Which of the ``rows``.
        outputs : ndarray of shape (n_places, outputs), float32
        """
        order, ordered = None, np.asarray(rows, dtype=np.int64)
        if (np.diff(ordered) <= 0).any():
            order = np.argsort(ordered, kind="stable")
            ordered = ordered[order]
        held, read = self._statistics(statistics), self._checked(data)[:2]
        flat = tf.constant(weights, dtype=tf.float32)

        def compute(plan: Rows, length: int) -> Array:
            blocks = tf.constant(plan, dtype=tf.int32)
            outputs: Array = self._score(length)(flat, *read, blocks, held).numpy()
            return outputs

        begins, cuts = find_blocks(ordered, offsets, self.network.sessions, SCORING_BLOCK)
        counts = np.diff(cuts)
        dense = (counts * self.network.sessions > SCORING_BLOCK) & (not self._by_window)
        chosen = np.flatnonzero(dense)
        for start in range(0, len(chosen), SCORING_GROUP):
            group = chosen[start : start + SCORING_GROUP]
            firsts, lasts = ordered[cuts[group]], ordered[cuts[group + 1] - 1]
            outputs = compute(np.stack([begins[group], firsts, lasts], axis=1), SCORING_BLOCK)
            for number, block in enumerate(group):
                part = slice(cuts[block], cuts[block + 1])
                places = ordered[part] - begins[block]
                within: slice | Rows = places
                if (np.diff(places) == 1).all():  # a view, not a copy
                    within = slice(places[0], places[-1] + 1)
                yield part if order is None else order[part], outputs[number, within]
        alone = np.flatnonzero(np.repeat(~dense, counts))
        # As many sessions a call as its blocks have: a network of features alone has windows of one session.
        at_once = max(SCORING_BLOCK * SCORING_GROUP // self.network.sessions, 1)
        for start in range(0, len(alone), at_once):
            few = alone[start : start + at_once]
            outputs = compute(np.repeat(ordered[few, None], 3, axis=1), 1)
            yield few if order is None else order[few], outputs[:, 0]

    def _compile_scoring(self, length: int) -> Callable[..., Any]:
        signature = (
            tf.TensorSpec((self.function.size,), tf.float32),
            *self._data_signature()[:2],
            tf.TensorSpec((None, 3), tf.int32),
            tf.TensorSpec((2, self.network.features), tf.float32),
        )

        def score(
            weights: Tensor,
            channels: Tensor,
            features: Tensor,
            blocks: Tensor,
            statistics: Tensor,
        ) -> Tensor:
            self.traces["score", length] += 1
            begin, first, last = (blocks[:, number, None] for number in range(3))
            context = self.network.sessions - 1
            reach = begin - context + tf.range(length + context)
            series = tf.gather(channels, tf.clip_by_value(reach, first - context, last))
            beside = None
            if self.network.features:
                beside = tf.gather(features, tf.clip_by_value(begin + tf.range(length), first, last))
            return self.function(weights, series, beside, statistics)

        compiled: Callable[..., Any] = tf.function(score, input_signature=signature, autograph=False)
        return compiled


class _Spread:
    """Several devices of this host, each of which does its share of the chunks of every step.

    Parameters
    ----------
    devices : int
        At least two.

    Raises
    ------
    ParameterError
        If this host has fewer.
    """

    def __init__(self, devices: int) -> None:
        found = tf.config.list_logical_devices("GPU")
        if len(found) < devices:
            found = tf.config.list_logical_devices("CPU")
        if len(found) < devices:
            raise ParameterError(
                f"devices that share a step are GPUs, or logical CPUs, of this host. Received: {devices}, "
                f"while TensorFlow sees {len(found)} of a kind."
            )
        self._strategy = tf.distribute.MirroredStrategy([device.name for device in found[:devices]])

    def shared(self, compute: Callable[..., Any], data: Data) -> Callable[..., Any]:
        """Make of a loss and gradient of all chunks the sum of those of each device."""
        strategy = self._strategy
        # Before the loop, so that the panel is copied to each device once.
        held = strategy.run(lambda: tuple(tf.identity(part) for part in data))

        def together(weights: Tensor, _: Data, chunks: Tensor, share: Tensor, *others: Tensor) -> Tensor:
            *settings, seed = others

            def alone(mine: Sequence[Tensor]) -> Tensor:
                number = tf.distribute.get_replica_context().replica_id_in_sync_group
                chosen = chunks[number :: strategy.num_replicas_in_sync]
                # A mask of its own, or each device would drop the same.
                own = seed + tf.stack([number, 0]) * DEVICE_SEED
                return compute(weights, Data(*mine), chosen, share, *settings, own)

            parts = strategy.run(alone, args=(held,))
            return tuple(strategy.reduce(tf.distribute.ReduceOp.SUM, part, axis=None) for part in parts)

        return together


@dataclass(frozen=True)
class _Key:
    """What tells compiled programs apart; `network` follows from `identity`."""

    identity: str
    objective: Objective
    chunk: int


_NETWORKS: dict[str, Network] = {}


@functools.lru_cache(maxsize=COMPILED)
def _compiled(key: _Key) -> Trainer:
    return Trainer(_NETWORKS[key.identity], key.objective, key.chunk)


def trainer_of(network: Network, objective: Objective, chunk: int) -> Trainer:
    """Give the compiled network: the same one for all folds, seeds and models that are computed alike."""
    _NETWORKS.setdefault(network.identity, network)
    return _compiled(_Key(network.identity, objective, chunk))
