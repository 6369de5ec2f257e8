"""What plain Keras takes for the same networks: `fit` and `predict` on lifted windows, and a rebuilt model.

Lifted windows are made before the clock starts; the batches are the fastest of those that `batches` tries.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from measuring import (
    HORIZON,
    TRAINED_SESSIONS,
    Array,
    rate,
    real_series,
    report,
    seconds,
    synthetic_returns,
    time_to_loss,
    validation_windows,
)

# isort: split
import numpy as np
from networks import (
    FIVE_OUTPUTS,
    PRODUCTION,
    ProductionInputs,
    mean_loss,
    production_inputs,
    real_inputs,
)

from forecaster.kernels import Parallel
from forecaster.liftings import Lifting
from forecaster.models.convolution.geometry import KernelConvolution
from forecaster.models.convolution.layers import KernelStack
from forecaster.models.convolution.network import Network
from forecaster.models.convolution.targets import scale_loss

# isort: split
import keras
import tensorflow as tf

FIT_BATCH, PREDICT_BATCH = 512, 1024
WINDOWS = 24 * 1024
SHORT, LONG = 4 * 1024, 16 * 1024
"""Windows of the two fits whose difference is measured, and of what is scored."""
TRAINED_WINDOWS = 60_000
BATCHES_AT_ONCE = 8
"""Batches between two looks at the validation loss."""
CHUNK, CHUNKS_A_STEP, REFIT_STEPS = 256, 4, 40


def lifted_model(network: Network) -> Any:
    """The network in Keras's own layers, on lifted windows."""
    assert not isinstance(network.strategy, Parallel)
    rows, columns = network.strategy.shape(network.lookback)
    maps = keras.Input((rows, columns, network.channels))
    values = maps
    for layer in network.layers:
        assert isinstance(layer, KernelConvolution)
        values = keras.layers.Conv2D(
            layer.filters, layer.kernel, dilation_rate=layer.dilation, activation=layer.activation
        )(values)
    if network.head == "mean":
        values = keras.layers.GlobalAveragePooling2D()(values)
    else:
        values = keras.layers.Flatten()(values[:, :, -1])
    return with_head(network, [maps], values)


def with_head(network: Network, inputs: list[Any], values: Any) -> Any:
    """Put the layers behind the kernel stack: on windows, or on every window of a series."""
    if network.features:
        features = keras.Input((*values.shape[1:-1], network.features))
        inputs = [*inputs, features]
        values = keras.layers.Dropout(network.dropout)(keras.layers.Concatenate()([values, features]))
        values = keras.layers.Dense(network.dense, activation="gelu")(values)
        values = keras.layers.Concatenate()([values, features])
    initializer = "zeros" if network.zero_output else "glorot_uniform"
    return keras.Model(inputs, keras.layers.Dense(network.outputs, kernel_initializer=initializer)(values))


def production_loss(made: ProductionInputs) -> Callable[[Any, Any], Any]:
    """The loss of the job's network, in the order of arguments that Keras has."""
    constants = [tf.constant(constant) for constant in made.constants]

    def loss(observed: Any, outputs: Any) -> Any:
        if len(outputs.shape) == 2:
            return scale_loss(outputs[None], observed[None], constants)[0]
        return scale_loss(outputs, observed, constants)

    return loss


def lifted(lifting: Lifting, lookback: int, series: Array, count: int) -> Array:
    """Materialise so many random lifted windows of series of shape (series, sessions, channels)."""
    sessions = lookback + lifting.history
    view = np.lib.stride_tricks.sliding_window_view(series, sessions, axis=1)
    generator = np.random.default_rng(0)
    which, when = (generator.integers(0, size, count) for size in (view.shape[0], view.shape[1] - HORIZON))
    windows = view[which, when].transpose(0, 2, 1)
    return np.asarray(lifting(windows), dtype=np.float32)


class Work:
    """A compiled model and its materialised windows."""

    def __init__(self, network: Network) -> None:
        keras.utils.set_random_seed(0)
        self.model = lifted_model(network)
        strategy: Any = network.strategy
        if network.features:
            made = production_inputs(20 * 8000)
            series = made.channels.reshape(20, 8000, network.channels)
            self.inputs = [lifted(strategy, network.lookback, series, WINDOWS), made.features[:WINDOWS]]
            self.observed = made.observed[:WINDOWS]
            loss: Any = production_loss(made)
        else:
            series = synthetic_returns(20, 8000)[:, :, None]
            self.inputs = [lifted(strategy, network.lookback, series, WINDOWS)]
            self.observed = self.inputs[0][:, 0, -HORIZON:, 0].copy()  # any outcomes: speed knows no values
            loss = "mse"
        self.model.compile(optimizer=keras.optimizers.AdamW(1e-3), loss=loss)

    def fit(self, windows: int, batch: int) -> None:
        part = [values[:windows] for values in self.inputs]
        self.model.fit(part, self.observed[:windows], batch_size=batch, epochs=1, verbose=0)

    def train_rate(self, batch: int) -> float:
        self.fit(2 * batch, batch)  # traces
        return rate(lambda windows: seconds(partial(self.fit, windows, batch)), SHORT, LONG, 1)

    def score_rate(self, batch: int) -> float:
        predict: Callable[[], Any] = partial(self.model.predict, self.inputs, batch_size=batch, verbose=0)
        self.model.predict([values[:batch] for values in self.inputs], batch_size=batch, verbose=0)
        return WINDOWS / seconds(predict)


def time_to_equal_loss(folder: Path) -> None:
    """Fit on real series, some batches at a time, until the validation loss is reached."""
    series, target = real_series(folder)
    network, sessions = FIVE_OUTPUTS, FIVE_OUTPUTS.sessions
    strategy: Any = network.strategy
    keras.utils.set_random_seed(0)
    model = lifted_model(network)
    model.compile(optimizer=keras.optimizers.AdamW(1e-3), loss="mse")
    view = np.lib.stride_tricks.sliding_window_view(series[:, :TRAINED_SESSIONS], sessions + HORIZON, axis=1)
    drawn = view.reshape(-1, sessions + HORIZON)
    drawn = drawn[np.random.default_rng(0).permutation(len(drawn))]
    maps = np.asarray(strategy(drawn[:, :sessions, None]), dtype=np.float32)
    outcomes = drawn[:, sessions:].copy()
    seen, known = validation_windows(series, sessions)
    validated = np.asarray(strategy(seen[:, :, None]), dtype=np.float32)

    def loss() -> float:
        outputs = model.predict(validated, batch_size=PREDICT_BATCH, verbose=0)
        return float(np.mean((outputs - known) ** 2))

    until_loss(model, [maps], outcomes, loss, target)


def until_loss(
    model: Any, inputs: list[Array], observed: Array, loss: Callable[[], float], target: float
) -> None:
    """Fit some batches at a time until the validation loss is reached, and report."""
    weights = model.get_weights()
    first = [values[:FIT_BATCH] for values in inputs]
    model.fit(first, observed[:FIT_BATCH], batch_size=FIT_BATCH, verbose=0)  # traces
    model.set_weights(weights)
    for variable in model.optimizer.variables:
        if variable is not model.optimizer.learning_rate:
            variable.assign(keras.ops.zeros_like(variable))
    at_once = BATCHES_AT_ONCE * FIT_BATCH
    starts = itertools.cycle(range(0, len(observed) - at_once, at_once))

    def train() -> None:
        part = slice(start := next(starts), start + at_once)
        values = [each[part] for each in inputs]
        model.fit(values, observed[part], batch_size=FIT_BATCH, shuffle=False, verbose=0)

    taken, calls, reached = time_to_loss(train, loss, target, limit=200)
    report(seconds=taken, windows=calls * at_once, loss=reached)


def time_to_equal_production_loss() -> None:
    """Fit the production network on real series until its validation loss is reached."""
    real = real_inputs()
    strategy: Any = PRODUCTION.strategy
    view = np.lib.stride_tricks.sliding_window_view(real.inputs.channels, PRODUCTION.sessions, axis=0)

    def inputs_at(rows: Any) -> list[Array]:
        windows = view[rows - PRODUCTION.sessions + 1].transpose(0, 2, 1)
        mean, deviation = real.inputs.statistics
        standard = np.clip((real.inputs.features[rows] - mean) / deviation, -5.0, 5.0)
        return [np.asarray(strategy(windows), dtype=np.float32), standard]

    rows = np.random.default_rng(0).permutation(real.trained)[:TRAINED_WINDOWS]
    inputs, observed = inputs_at(rows), real.inputs.observed[rows]
    validated = inputs_at(real.validated)
    keras.utils.set_random_seed(0)
    model = lifted_model(PRODUCTION)
    model.compile(optimizer=keras.optimizers.AdamW(1e-3), loss=production_loss(real.inputs))
    until_loss(
        model,
        inputs,
        observed,
        lambda: mean_loss(
            model.predict(validated, batch_size=PREDICT_BATCH, verbose=0), real.inputs, real.validated
        ),
        real.target,
    )


def rebuild(network: Network) -> float:
    """Build, compile and fit the folded model on chunks, and score one: a refit without an engine."""
    length = CHUNK + network.sessions - 1
    count = CHUNKS_A_STEP * REFIT_STEPS
    generator = np.random.default_rng(0)
    chunks = generator.standard_normal((count, length, network.channels), dtype=np.float32)
    inputs = [chunks]
    width = network.outputs
    loss: Any = "mse"
    if network.features:
        inputs.append(generator.standard_normal((count, CHUNK, network.features), dtype=np.float32))
        width, loss = 2 * network.outputs, production_loss(production_inputs(10000))
    outcomes = generator.standard_normal((count, CHUNK, width), dtype=np.float32)

    def build_and_fit() -> None:
        series = keras.Input((length, network.channels))
        stack = KernelStack(network.strategy, network.lookback, network.layers, network.head)
        model = with_head(network, [series], stack(series, series=True))
        model.compile(optimizer=keras.optimizers.AdamW(1e-3), loss=loss)
        model.fit(inputs, outcomes, batch_size=CHUNKS_A_STEP, verbose=0)
        model.predict([values[:1] for values in inputs], verbose=0)

    build_and_fit()
    return seconds(build_and_fit, repeats=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["speed", "time_to_loss", "batches"])
    parser.add_argument("--production", action="store_true")
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    network = PRODUCTION if arguments.production else FIVE_OUTPUTS
    if arguments.task == "speed":
        work = Work(network)
        report(
            train=work.train_rate(FIT_BATCH),
            score=work.score_rate(PREDICT_BATCH),
            refit=rebuild(network),
            parameters=work.model.count_params(),
        )
    elif arguments.task == "time_to_loss":
        if arguments.production:
            time_to_equal_production_loss()
        else:
            time_to_equal_loss(arguments.data)
    else:
        work = Work(network)
        for batch in (64, 128, 256, 512, 1024, 2048):
            report(batch=batch, train=work.train_rate(batch), score=work.score_rate(batch))


if __name__ == "__main__":
    main()
