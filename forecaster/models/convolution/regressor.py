"""The convolution as a scikit-learn regressor: a 2D kernel on rows that are windows of a 1D series."""

from __future__ import annotations

import functools
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from forecaster.models.convolution import runtime  # before Keras

# isort: split
import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy.stats import norm
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Ridge
from sklearn.metrics import d2_pinball_score
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from forecaster.errors import ParameterError
from forecaster.kernels import Parallel
from forecaster.liftings import Row, check_choice, check_integer
from forecaster.models.convolution.geometry import (
    HEADS,
    Strategy,
    filter_axis,
    history_of,
    lifting_of,
    strategy_config,
    strategy_from_config,
)
from forecaster.models.convolution.layers import KernelConvolution, KernelStack

__all__ = ["ConvolutionRegressor"]

Array = npt.NDArray[np.float64]
Tensor = Any  # TensorFlow is untyped

LOSSES = ("squared_error", "quantile")
KERNEL_SIZE = 5
"""Rows and columns of the kernel that is taken when none is given, where the map has as many."""
PREDICT_BATCH = 8192
PRECISION = "float64"
"""In float32 a weight of two would not be the same as a row given twice to more than three digits."""
MEAN_DECAY, SQUARE_DECAY, SMALLEST_ROOT = 0.9, 0.999, 1e-7
"""Of Adam, as Keras sets them."""
COMPILED_NETWORKS = 64
"""Networks kept compiled; each holds a graph of a few megabytes."""


class ConvolutionRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """Regression on windows of a series, by a 2D kernel that meets them by a strategy.

    Each row of ``X`` is one window, oldest session first and newest last. A kernel moves over the lifted
    window; its features, after an optional hidden layer, give the outputs together with a linear shortcut
    from the window. Training starts at the ridge regression of y on the window, and the rest of the network
    at zero: what the kernel adds is what a linear model cannot say.

    Parameters
    ----------
    strategy : Lifting or Parallel, optional
        How the 2D kernel meets the window: a lifting of `forecaster.liftings` or
        `forecaster.kernels.Parallel`. None means ``Row()``. A window holds the strategy's history and at
        least one more session. The parameters of a lifting can be set, and searched over, as
        ``strategy__rows`` and so on.
    kernel : tuple of int, optional
        Rows and columns (time) of the kernel. None means 5 by 5, or what the lifted window has of it; of
        `Parallel`, five filters, or one for each row of its lifting.
    filters : int, default 8
        Output channels of the kernel.
    head : {"flatten", "last", "mean", "max"}, default "flatten"
        What is taken of the map; see `forecaster.models.convolution.layers.KernelStack`. "last" sees only the
        sessions under the newest position of the kernel; "mean" and "max" forget which lag is which.
    dense : int, default 16
        Units of the hidden layer; 0 for none.
    loss : {"squared_error", "quantile"}, default "squared_error"
        Squared error, for the conditional mean; or the pinball loss, for conditional quantiles.
    quantiles : tuple of float, default (0.1, 0.5, 0.9)
        Levels, increasing inside (0, 1), of the quantiles to predict. Only the loss "quantile" reads it.
    epochs : int, default 20
        Passes over the training rows.
    batch_size : int, default 64
        Rows a step.
    learning_rate : float, default 0.01
        First step size of Adam, falling to zero along a cosine.
    l2 : float, default 1e-3
        Weight of the squared weights (not the biases) in the loss, and of the ridge regression at the start.
    standardise : bool, default True
        Whether to shift and scale X and y, by means and deviations of the training rows. X has one mean
        and one deviation for all sessions: they are values of one series, whose shape is kept. For columns of
        different units, put a ``StandardScaler`` before.
    random_state : int, RandomState or None, default None
        Seed of the first weights and of the order of the rows. With an integer, a refit gives the same bits
        on the same machine.

    Attributes
    ----------
    weights_ : dict of str to ndarray
        Weights of the network by name.
    kernel_ : tuple of int
        Rows and columns of the kernel.
    loss_curve_ : list of float
        Mean loss of the standardised outputs, penalty included, in each epoch.
    n_outputs_ : int
        Columns of y.
    n_features_in_ : int
        Sessions of a window: lookback and history.
    feature_names_in_ : ndarray of str
        Names of the columns of X, when they were all text.

    Notes
    -----
    Quantiles are sorted for each row, which cannot raise their loss (Chernozhukov, Fernández-Val and
    Galichon, "Quantile and probability curves without crossing", Econometrica 78, 2010). With more than one
    quantile, predictions have one axis more than y; what scikit-learn calls a regressor predicts arrays like
    y, so the estimator's tags then name no type, and ``VotingRegressor`` and its like refuse it.

    The optimiser is Adam (Kingma and Ba, ICLR 2015). Everything is computed in float64. NaN, infinities,
    complex numbers and sparse matrices are refused. A fitted estimator holds NumPy arrays, not a Keras model:
    it can be pickled and sent to other processes. `fit` switches TensorFlow to operations that repeat to the
    bit, for the whole process, and leaves the global random generators alone.

    Examples
    --------
    >>> from forecaster.liftings import Lagged
    >>> generator = np.random.default_rng(0)
    >>> X = generator.standard_normal((200, 12))
    >>> y = np.abs(X[:, -1]) + 0.1 * generator.standard_normal(200)
    >>> model = ConvolutionRegressor(Lagged(rows=3), epochs=5, random_state=0)
    >>> model.fit(X, y).predict(X).shape
    (200,)
    """

    def __init__(
        self,
        strategy: Strategy | None = None,
        *,
        kernel: tuple[int, int] | None = None,
        filters: int = 8,
        head: str = "flatten",
        dense: int = 16,
        loss: str = "squared_error",
        quantiles: Sequence[float] = (0.1, 0.5, 0.9),
        epochs: int = 20,
        batch_size: int = 64,
        learning_rate: float = 0.01,
        l2: float = 1e-3,
        standardise: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.strategy = strategy
        self.kernel = kernel
        self.filters = filters
        self.head = head
        self.dense = dense
        self.loss = loss
        self.quantiles = quantiles
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.l2 = l2
        self.standardise = standardise
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Train from fresh weights.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Windows, oldest session first. Finite.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Outcomes. Finite.
        sample_weight : array-like of shape (n_samples,), optional
            Weight of each row, not negative. A weight of zero leaves the row out. Within one batch, a weight
            of two is a row given twice; over several, the rows meet in another order.

        Raises
        ------
        ParameterError
            When a parameter breaks a rule, when the windows are too short for the strategy or the kernel, or
            when training diverges.
        ValueError
            When scikit-learn refuses the data.
        """
        X, y = validate_data(
            self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=2
        )
        inputs, outcomes = np.asarray(X), np.asarray(y, dtype=np.float64)
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        inputs, outcomes, weights = (part[weights > 0.0] for part in (inputs, outcomes, weights))

        self.n_outputs_ = 1 if outcomes.ndim == 1 else outcomes.shape[1]
        self._flat = outcomes.ndim == 1
        self._network = self._describe(inputs.shape[1])
        self.kernel_ = self._network.kernel
        rate = _positive("learning_rate", self.learning_rate)
        penalty = _positive("l2", self.l2, or_zero=True)
        epochs = check_integer("ConvolutionRegressor: epochs", self.epochs, 1)
        batch = check_integer("ConvolutionRegressor: batch_size", self.batch_size, 1)
        generator = np.random.default_rng(check_random_state(self.random_state).randint(2**31))

        outcomes = outcomes.reshape(len(outcomes), -1)
        self._input_place, self._input_scale = self._moments(inputs, weights[:, None])
        self._place, self._scale = self._moments(outcomes, weights[:, None], axis=0)
        inputs = (inputs - self._input_place) / self._input_scale
        outcomes = (outcomes - self._place) / self._scale

        compiled = _compiled(self._network)
        first = compiled.first_weights(generator) | _linear_start(
            self._network, inputs, outcomes, weights, penalty
        )
        self.weights_, self.loss_curve_ = compiled.train(
            first, inputs, outcomes, weights / weights.mean(), generator, epochs, batch, rate, penalty
        )
        if not all(np.isfinite(value).all() for value in self.weights_.values()):
            raise ParameterError(
                "ConvolutionRegressor: training diverged; lower learning_rate. "
                f"Received: learning_rate={self.learning_rate!r}."
            )
        return self

    def predict(self, X: npt.ArrayLike) -> Array:
        """Predict the outcome of each window.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Windows, oldest session first. Finite.

        Returns
        -------
        ndarray
            Of the shape of y; with more than one quantile, that shape and one more axis, of quantiles in
            increasing order: (n_samples, n_quantiles) or (n_samples, n_outputs, n_quantiles).
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        inputs = (np.asarray(X) - self._input_place) / self._input_scale
        predicted = _compiled(self._network).predict(self.weights_, inputs)
        predicted = np.sort(predicted * self._scale[:, None] + self._place[:, None], axis=2)
        if predicted.shape[2] == 1:
            predicted = predicted[:, :, 0]
        return predicted[:, 0] if self._flat else predicted

    def score(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> float:
        """Score the predictions: 1 is perfect, 0 is as good as a constant.

        Returns
        -------
        float
            R2, the share of the variance that is explained; for the loss "quantile", D2, the same of the
            pinball loss, averaged over the quantiles and outputs (scikit-learn's ``d2_pinball_score``).
        """
        predicted = self.predict(X)
        levels = self._network.levels
        if levels is None:
            return float(super().score(X, y, sample_weight))
        predicted = predicted.reshape(*np.shape(y), len(levels))
        shares = [
            d2_pinball_score(y, predicted[..., place], alpha=level, sample_weight=sample_weight)
            for place, level in enumerate(levels)
        ]
        return float(np.mean(shares))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.single_output = True
        tags.target_tags.multi_output = True
        if self.loss == "quantile" and np.size(self.quantiles) > 1:
            tags.estimator_type = None
            tags.regressor_tags = None
        return tags

    def _describe(self, sessions: int) -> _Network:
        """Check the parameters of the network, and describe it for windows of so many sessions."""
        strategy = Row() if self.strategy is None else self.strategy
        config = strategy_config(strategy)
        lookback = sessions - history_of(strategy)
        if lookback < 1:
            raise ParameterError(
                f"ConvolutionRegressor: {type(lifting_of(strategy)).__name__} needs windows of at least "
                f"{sessions - lookback + 1} sessions: its history and one more; give longer rows, or take a "
                f"lifting that reaches back less. Received: n_features={sessions}."
            )
        kernel = _default_kernel(strategy, lookback) if self.kernel is None else self.kernel
        convolution = KernelConvolution(self.filters, kernel, activation="gelu")
        return _Network(
            strategy=json.dumps(config),
            lookback=lookback,
            sessions=sessions,
            kernel=convolution.kernel,
            filters=convolution.filters,
            head=check_choice("ConvolutionRegressor: head", self.head, HEADS),
            dense=check_integer("ConvolutionRegressor: dense", self.dense, 0),
            outputs=self.n_outputs_,
            levels=self._levels(),
        )

    def _levels(self) -> tuple[float, ...] | None:
        """Return the levels of the quantiles; None for the mean."""
        if check_choice("ConvolutionRegressor: loss", self.loss, LOSSES) == "squared_error":
            return None
        levels = np.asarray(self.quantiles)
        increasing = levels.ndim == 1 and levels.size > 0 and levels.dtype.kind == "f"
        if not increasing or not (np.diff(levels, prepend=0.0, append=1.0) > 0.0).all():
            raise ParameterError(
                "ConvolutionRegressor: quantiles must be levels that increase inside (0, 1), such as "
                f"(0.1, 0.5, 0.9). Received: {self.quantiles!r}."
            )
        return tuple(float(level) for level in levels)

    def _moments(
        self, values: Array, weights: Array, axis: int | None = None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the weighted mean and deviation to standardise by; a constant is left in its own units."""
        if not self.standardise:
            shape = () if axis is None else values.shape[1:]
            return np.zeros(shape), np.ones(shape)
        weights = np.broadcast_to(weights, values.shape)
        mean = np.average(values, axis=axis, weights=weights)
        deviation = np.sqrt(np.average((values - mean) ** 2, axis=axis, weights=weights))
        # The deviation of a constant is a rounding error, not zero.
        constant = deviation <= 1e-12 * np.abs(mean)
        return np.asarray(mean), np.where(constant, 1.0, deviation)


def _positive(name: str, value: object, or_zero: bool = False) -> float:
    """Return ``value`` as a finite, positive float."""
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    number = float(value) if real else math.nan  # type: ignore[arg-type]  # mypy does not follow `real`
    if math.isfinite(number) and (number > 0.0 or (or_zero and number == 0.0)):
        return number
    rule = "a number, zero or positive" if or_zero else "a positive number"
    raise ParameterError(f"ConvolutionRegressor: {name} must be {rule}. Received: {value!r}.")


def _default_kernel(strategy: Strategy, lookback: int) -> tuple[int, int]:
    """Return the largest kernel, up to `KERNEL_SIZE` both ways, that fits in a lifted window."""
    rows, columns = lifting_of(strategy).shape(lookback)
    if not isinstance(strategy, Parallel):
        return min(KERNEL_SIZE, rows), min(KERNEL_SIZE, columns)
    filters = rows if rows > 1 else KERNEL_SIZE
    length = min(KERNEL_SIZE, columns)
    return (filters, length) if filter_axis(strategy) == 0 else (length, filters)


# --- the network --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Network:
    """What a network is, without its weights: plain values, so that it is pickled and compared as such.

    Attributes
    ----------
    strategy : str
        The strategy as JSON.
    lookback, sessions : int
        Sessions of a window without and with the history.
    kernel : tuple of int
        Rows and columns of the kernel.
    filters : int
        Of the kernel.
    head : str
        Of the kernel stack.
    dense : int
        Units of the hidden layer; 0 for none.
    outputs : int
        Columns of y.
    levels : tuple of float, optional
        Levels of the quantiles; None for the mean.
    """

    strategy: str
    lookback: int
    sessions: int
    kernel: tuple[int, int]
    filters: int
    head: str
    dense: int
    outputs: int
    levels: tuple[float, ...] | None

    @property
    def values(self) -> int:
        """Values predicted for each output."""
        return 1 if self.levels is None else len(self.levels)


class _Compiled:
    """A network as two functions of its weights; it keeps no state, so that threads may share it."""

    def __init__(self, network: _Network) -> None:
        self.network = network
        strategy = strategy_from_config(json.loads(network.strategy))
        windows = keras.Input((network.sessions,), dtype=PRECISION)
        stack = KernelStack(
            strategy,
            network.lookback,
            [KernelConvolution(network.filters, network.kernel, activation="gelu")],
            head=network.head,
            name="stack",
            dtype=PRECISION,
        )
        hidden = stack(keras.layers.Reshape((network.sessions, 1), dtype=PRECISION)(windows))
        if network.dense:
            hidden = keras.layers.Dense(network.dense, activation="gelu", name="hidden", dtype=PRECISION)(
                hidden
            )
        width = network.outputs * network.values
        output = keras.layers.Dense(width, name="output", dtype=PRECISION)(hidden)
        shortcut = keras.layers.Dense(width, use_bias=False, name="shortcut", dtype=PRECISION)(windows)
        self.model = keras.Model(windows, keras.layers.Add(dtype=PRECISION)([output, shortcut]))
        self.shapes = {variable.path: tuple(variable.shape) for variable in self.model.trainable_variables}
        # What one output sums over: a parallel filter is a single row, or column, of the kernel.
        filters = network.kernel[filter_axis(strategy)] if isinstance(strategy, Parallel) else 1
        self.taps = math.prod(network.kernel) // filters
        self._epoch = self._compile()

    def first_weights(self, generator: np.random.Generator) -> dict[str, Array]:
        """Draw the weights to start from: Glorot's uniform, and zeros for the biases and the last layer."""
        weights = {name: np.zeros(shape) for name, shape in self.shapes.items()}
        kernel, hidden = "stack/kernel_0", "hidden/kernel"
        fans = {kernel: (self.taps, math.prod(self.shapes[kernel])), hidden: self.shapes.get(hidden, ())}
        for name, fan in fans.items():
            if name in weights:
                bound = math.sqrt(6.0 / sum(fan))
                weights[name] = generator.uniform(-bound, bound, self.shapes[name])
        return weights

    def train(
        self,
        weights: dict[str, Array],
        inputs: Array,
        outcomes: Array,
        row_weights: Array,
        generator: np.random.Generator,
        epochs: int,
        batch: int,
        rate: float,
        penalty: float,
    ) -> tuple[dict[str, Array], list[float]]:
        """Minimise the loss; return the weights and the mean loss of each epoch."""
        # Nothing here draws from TensorFlow's generators: only its operations are made to repeat to the bit.
        runtime.repeat_to_the_bit()
        steps = -(-len(inputs) // batch)
        rates = rate * 0.5 * (1.0 + np.cos(np.pi * np.arange(epochs * steps) / (epochs * steps)))
        data = [tf.constant(part) for part in (inputs, outcomes, row_weights)]
        state = [tuple(tf.constant(value) for value in weights.values())]
        state += [tuple(tf.zeros_like(value) for value in state[0])] * 2
        losses = []
        for epoch in range(epochs):
            order = tf.constant(generator.permutation(len(inputs)), dtype=tf.int64)
            planned = tf.constant(rates[epoch * steps : (epoch + 1) * steps])
            *state, loss = self._epoch(
                *state, *data, order, planned, tf.constant(epoch * steps), tf.constant(batch), penalty
            )
            losses.append(float(loss))
        return {name: value.numpy() for name, value in zip(weights, state[0], strict=True)}, losses

    def predict(self, weights: dict[str, Array], inputs: Array) -> Array:
        """Compute the standardised outputs, shape (n_samples, n_outputs, n_values)."""
        ordered = [tf.constant(weights[name]) for name in self.shapes]
        parts = [
            self._outputs(ordered, tf.constant(inputs[start : start + PREDICT_BATCH])).numpy()
            for start in range(0, len(inputs), PREDICT_BATCH)
        ]
        return np.concatenate(parts)

    def _outputs(self, weights: Sequence[Tensor], windows: Tensor) -> Tensor:
        outputs, _ = self.model.stateless_call(list(weights), [], windows)
        return tf.reshape(outputs, (-1, self.network.outputs, self.network.values))

    def _losses(self, weights: Sequence[Tensor], inputs: Tensor, outcomes: Tensor) -> Tensor:
        """Loss of each row, summed over outputs and quantiles."""
        error = outcomes[:, :, None] - self._outputs(weights, inputs)
        if self.network.levels is None:
            losses = tf.square(error)
        else:
            levels = tf.constant(self.network.levels, dtype=PRECISION)
            losses = tf.maximum(levels * error, (levels - 1.0) * error)
        return tf.reduce_sum(losses, axis=(1, 2))

    def _squares(self, weights: Sequence[Tensor]) -> Tensor:
        """Sum of the squared weights, without the biases."""
        named = zip(self.shapes, weights, strict=True)
        return tf.add_n([tf.reduce_sum(tf.square(value)) for name, value in named if "kernel" in name])

    def _compile(self) -> Any:
        """Compile one epoch of Adam: the whole loop is one call, since a step alone is all overhead."""
        shapes = tuple(tf.TensorSpec(shape, PRECISION) for shape in self.shapes.values())
        signature = (
            *(shapes,) * 3,
            tf.TensorSpec((None, self.network.sessions), PRECISION),
            tf.TensorSpec((None, self.network.outputs), PRECISION),
            tf.TensorSpec((None,), PRECISION),
            tf.TensorSpec((None,), tf.int64),
            tf.TensorSpec((None,), PRECISION),
            tf.TensorSpec((), tf.int32),
            tf.TensorSpec((), tf.int32),
            tf.TensorSpec((), PRECISION),
        )

        def epoch(
            weights: Tensor,
            means: Tensor,
            squares: Tensor,
            inputs: Tensor,
            outcomes: Tensor,
            row_weights: Tensor,
            order: Tensor,
            rates: Tensor,
            past: Tensor,
            batch: Tensor,
            penalty: Tensor,
        ) -> Tensor:
            def step(index: Tensor, weights: Tensor, means: Tensor, squares: Tensor, total: Tensor) -> Tensor:
                rows = order[index * batch : (index + 1) * batch]
                with tf.GradientTape() as tape:
                    tape.watch(weights)
                    losses = self._losses(weights, tf.gather(inputs, rows), tf.gather(outcomes, rows))
                    loss = tf.reduce_mean(tf.gather(row_weights, rows) * losses)
                    loss += penalty * self._squares(weights)
                gradients = tape.gradient(loss, weights)
                means = _averaged(means, gradients, MEAN_DECAY)
                squares = _averaged(squares, [tf.square(g) for g in gradients], SQUARE_DECAY)
                age = tf.cast(past + index + 1, PRECISION)
                size = rates[index] * tf.sqrt(1.0 - SQUARE_DECAY**age) / (1.0 - MEAN_DECAY**age)
                weights = tuple(
                    weight - size * mean / (tf.sqrt(square) + SMALLEST_ROOT)
                    for weight, mean, square in zip(weights, means, squares, strict=True)
                )
                return index + 1, weights, means, squares, total + loss

            start = (tf.constant(0), weights, means, squares, tf.constant(0.0, PRECISION))
            count = tf.size(rates)
            _, weights, means, squares, total = tf.while_loop(
                lambda index, *_: index < count, step, start, parallel_iterations=1
            )
            return weights, means, squares, total / tf.cast(count, PRECISION)

        return tf.function(epoch, input_signature=signature, autograph=False)


def _averaged(averages: Sequence[Tensor], values: Sequence[Tensor], decay: float) -> tuple[Tensor, ...]:
    """Move exponential averages on by one step."""
    return tuple(
        decay * average + (1.0 - decay) * value for average, value in zip(averages, values, strict=True)
    )


@functools.lru_cache(maxsize=COMPILED_NETWORKS)
def _compiled(network: _Network) -> _Compiled:
    """Build and compile a network, once: that takes longer than training it on a few hundred rows."""
    # Keras seeds first weights, which are not used here, from Python's global generator.
    drawn = random.getstate()
    try:
        return _Compiled(network)
    finally:
        random.setstate(drawn)


def _linear_start(
    network: _Network, inputs: Array, outcomes: Array, weights: Array, penalty: float
) -> dict[str, Array]:
    """Return the weights of the shortcut and the last bias at which training starts: a ridge regression.

    For quantiles, its coefficients serve all levels, and the biases are those of normal residuals. (Their
    empirical quantiles are rows of the sample, where the pinball loss has its kinks: rounding would choose
    the first gradient.)
    """
    ridge = Ridge(alpha=penalty * weights.sum()).fit(inputs, outcomes, sample_weight=weights)
    coefficients = np.reshape(ridge.coef_, (network.outputs, network.sessions))
    if network.levels is None:
        return {"shortcut/kernel": coefficients.T.copy(), "output/bias": np.ravel(ridge.intercept_)}
    residuals = outcomes - ridge.predict(inputs).reshape(outcomes.shape)
    deviation = np.sqrt(np.average(residuals**2, axis=0, weights=weights))
    biases = ridge.intercept_[:, None] + deviation[:, None] * norm.ppf(network.levels)
    return {
        "shortcut/kernel": np.repeat(coefficients.T, network.values, axis=1),
        "output/bias": np.ravel(biases),
    }
