"""Kernel stacks: lifted, folded and series executions equal a slow NumPy reference, for every strategy."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d
from scipy.special import erf

# isort: split
from forecaster.models.convolution.layers import (
    ConvolutionControl,
    KernelActivation,
    KernelConvolution,
    KernelLayer,
    KernelNormalization,
    KernelPooling,
    KernelStack,
)

# isort: split
import keras
import tensorflow as tf

from forecaster.errors import NotFittedError, ParameterError
from forecaster.kernels import Parallel, fold, frequency_response, lag_weights
from forecaster.liftings import CalendarFold, Column, Lagged, Placement, Replicate, Row, Spectrogram
from forecaster.models.convolution.geometry import Strategy, layer_from_config, lifting_of, trace
from forecaster.models.convolution.planner import Plan, Reason, match_parameters, plan

EXECUTIONS = ("lifted", "folded", "auto")
WINDOWS = 3

# --- the reference: loops and the definitions --------------------------------------------------------------

ACTIVATIONS: dict[str | None, Callable[[Any], Any]] = {
    None: lambda x: x,
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": np.tanh,
    # TensorFlow rounds the constant to float32, whatever the dtype.
    "gelu": lambda x: 0.5 * x * (1.0 + erf(x * np.float64(np.float32(np.sqrt(0.5))))),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
}


def positions(
    size: int, taps: int, stride: int, dilation: int, padding: str, newest_last: bool
) -> list[list[int]]:
    """Input position of each tap, for each output: TensorFlow's, but never leaving out the newest end."""
    reach = (taps - 1) * dilation + 1
    if padding == "valid":
        starts = list(range(0, size - reach + 1, stride))
        if newest_last:
            starts = sorted(size - reach - start for start in starts)
    else:
        count = int(np.ceil(size / stride))
        pad = max((count - 1) * stride + reach - size, 0)
        starts = [k * stride - pad // 2 for k in range(count)]
        if newest_last and pad == 0:
            starts = [start + (size - 1) - (starts[-1] + reach - 1) for start in starts]
    return [[start + tap * dilation for tap in range(taps)] for start in starts]


def patches(layer: Any, size: tuple[int, ...], strategy: Strategy, taps: tuple[int, int]) -> list[Any]:
    forward = isinstance(strategy, Column | CalendarFold)
    dilation = getattr(layer, "dilation", (1, 1))
    return [
        positions(size[k], taps[k], layer.strides[k], dilation[k], layer.padding[k], (forward, True)[k])
        for k in (0, 1)
    ]


def correlated(values: Any, kernel: Any, rows: list[list[int]], columns: list[list[int]]) -> Any:
    """2D correlation of one map, a tap and an output at a time; what lies outside is zero."""
    output = np.zeros((len(rows), len(columns), kernel.shape[-1]))
    for i, j in np.ndindex(output.shape[:2]):
        for a, r in enumerate(rows[i]):
            for b, c in enumerate(columns[j]):
                if 0 <= r < values.shape[0] and 0 <= c < values.shape[1]:
                    output[i, j] += values[r, c] @ kernel[a, b]
    return output


def reference(stack: KernelStack, window: Any) -> Any:
    """Features of one window, at inference."""
    strategy, weights = stack.strategy, iter([np.asarray(weight) for weight in ordered_weights(stack)])
    values = lifting_of(strategy)(window[None])[0]
    for layer in stack.kernel_layers:
        if isinstance(layer, KernelConvolution):
            kernel, bias = next(weights), next(weights) if layer.bias else np.zeros(layer.filters)
            activation = ACTIVATIONS[layer.activation]
            if isinstance(strategy, Parallel):
                bank = kernel if strategy.axis == "rows" else kernel.swapaxes(0, 1)
                flat = replace(layer, padding=("valid", layer.padding[1]))
                outputs = []
                for number, one in enumerate(bank):
                    own = values[number : number + 1] if len(values) > 1 else values
                    places = patches(flat, own.shape, strategy, (1, one.shape[0]))
                    shift = bias[number] if layer.bias else 0.0
                    outputs.append(activation(correlated(own, one[None], *places) + shift))
                join: dict[str, Callable[..., Any]] = {"mean": np.mean, "sum": np.sum, "max": np.max}
                if strategy.aggregate == "concatenate":
                    values = np.concatenate(outputs, axis=-1)
                else:
                    values = join[strategy.aggregate](outputs, axis=0)
            else:
                places = patches(layer, values.shape, strategy, layer.kernel)
                values = activation(correlated(values, kernel, *places) + bias)
        elif isinstance(layer, KernelPooling):
            rows, columns = patches(layer, values.shape, strategy, layer.size)
            inside = [
                [[p for p in place if 0 <= p < n] for place in axis]
                for axis, n in zip((rows, columns), values.shape[:2], strict=True)
            ]
            operator = np.max if layer.statistic == "max" else np.mean
            values = np.array(
                [[operator(values[np.ix_(r, c)], axis=(0, 1)) for c in inside[1]] for r in inside[0]]
            )
        elif isinstance(layer, KernelNormalization):
            scale, shift = next(weights), next(weights)
            if layer.over == "batch":
                mean, variance = next(weights), next(weights)
            else:
                axes = (0, 1) if layer.over == "window" else 2
                mean, variance = values.mean(axes, keepdims=True), values.var(axes, keepdims=True)
            values = (values - mean) / np.sqrt(variance + layer.epsilon) * scale + shift
        else:
            values = ACTIVATIONS[layer.activation](values)
    if stack.head == "mean":
        return values.mean(axis=(0, 1))
    if stack.head == "max":
        return values.max(axis=(0, 1))
    if stack.head == "last":
        values = values[-1:] if isinstance(strategy, Column) else values[:, -1:]
    return values.ravel()


def ordered_weights(stack: KernelStack) -> list[Any]:
    """Weights by layer, in the order kernel, bias, scale, shift, mean, variance."""
    order = ("kernel", "bias", "scale", "shift", "mean", "variance")
    return sorted(stack.weights, key=lambda w: (int(w.name.split("_")[1]), order.index(w.name.split("_")[0])))


# --- what is checked: a new strategy or layer is tested by being listed ------------------------------------


@dataclass(frozen=True)
class Case:
    strategy: Strategy
    layers: tuple[KernelLayer, ...]
    lookback: int = 12
    head: str = "flatten"
    channels: int = 2

    def stack(self, execution: str = "auto", dtype: str = "float64", **kwargs: Any) -> KernelStack:
        stack = KernelStack(
            self.strategy, self.lookback, self.layers, self.head, execution, dtype=dtype, **kwargs
        )
        stack.build((None, None, self.channels))
        return stack

    def stacks(self, dtype: str = "float64") -> list[KernelStack]:
        """One stack an execution, all with the same random weights."""
        stacks = [self.stack(execution, dtype) for execution in EXECUTIONS]
        generator = np.random.default_rng(5)
        weights = [
            generator.uniform(0.5, 1.5, weight.shape)
            if weight.name.startswith(("scale", "variance"))
            else generator.standard_normal(weight.shape) * 0.7
            for weight in stacks[0].weights
        ]
        for stack in stacks:
            stack.set_weights(weights)
        return stacks

    def series(self, windows: int = WINDOWS, batch: int = 2, dtype: str = "float64") -> Any:
        sessions = self.stack().sessions + windows - 1
        return np.random.default_rng(7).standard_normal((batch, sessions, self.channels)).astype(dtype)

    def plan(self) -> Plan:
        return plan(self.strategy, self.lookback, self.layers, self.head, channels=self.channels)


def conv(filters: int, kernel: Any, **settings: Any) -> KernelConvolution:
    return KernelConvolution(filters, kernel, **settings)


SECOND = conv(2, (1, 3), dilation=(1, 2), activation="gelu")
CASES = {
    "row": Case(Row(), (conv(3, (1, 3), activation="tanh"), SECOND)),
    "row, same": Case(Row(), (conv(3, (3, 3), padding="same"), conv(2, (1, 4), padding="same"))),
    "row, same rows": Case(Row(), (conv(3, (3, 3), padding=("same", "valid")), SECOND)),
    "row, stride": Case(Row(), (conv(3, (1, 2), strides=(1, 2)), conv(2, (1, 2), strides=(1, 3)))),
    "column": Case(Column(), (conv(3, (3, 1), activation="tanh"), conv(2, (3, 1), dilation=(2, 1)))),
    "column, same": Case(Column(), (conv(3, (3, 3), padding="same"), conv(2, (3, 1), strides=(2, 1)))),
    "column, last": Case(Column(), (conv(3, (3, 1), strides=(2, 1)),), head="last"),
    "replicate": Case(Replicate(4), (conv(3, (2, 3), activation="relu"), conv(2, (2, 2)))),
    "replicate, same": Case(Replicate(5), (conv(3, (3, 3), padding=("same", "valid")), conv(2, (3, 3)))),
    "replicate, same time": Case(Replicate(3), (conv(3, (2, 4), padding="same"), conv(2, (1, 2)))),
    "lagged": Case(Lagged(rows=5, stride=2), (conv(3, (2, 3), activation="elu"), conv(2, (2, 2)))),
    "lagged, same rows": Case(Lagged(rows=5), (conv(3, (3, 3), padding=("same", "valid")), conv(2, (2, 2)))),
    "lagged, same time": Case(Lagged(rows=3), (conv(3, (2, 3), padding=("valid", "same")), conv(2, (2, 2)))),
    "lagged, strides": Case(
        Lagged(rows=6, stride=2), (conv(3, (2, 3), strides=(2, 2), activation="tanh"), conv(2, (2, 2)))
    ),
    "lagged, stride and dilation": Case(
        Lagged(rows=6), (conv(3, (2, 2), strides=(1, 2), dilation=(2, 3)), conv(2, (2, 2)))
    ),
    "lags": Case(Lagged(lags=(0, 1, 5, 9)), (conv(3, (2, 3), activation="gelu"), conv(2, (2, 2)))),
    "lags, full height": Case(
        Lagged(lags=(0, 1, 5, 21)), (conv(3, (4, 5), activation="gelu"), SECOND), head="last"
    ),
    "lags, out of order": Case(Lagged(lags=(4, 0, 7)), (conv(3, (2, 3)),), head="last"),
    "lags, mean": Case(Lagged(lags=(0, 2, 3)), (conv(3, (2, 2)), KernelActivation("elu")), head="mean"),
    "lags, max": Case(Lagged(rows=4, stride=3), (conv(3, (2, 2)),), head="max"),
    "max pooling": Case(Lagged(rows=5), (conv(3, (2, 2)), KernelPooling((2, 3)), conv(2, (1, 2)))),
    "mean pooling": Case(
        Lagged(lags=(0, 1, 5)), (conv(3, (2, 2)), KernelPooling((2, 2), "mean", (1, 1)), conv(2, (1, 2)))
    ),
    "pooling, same": Case(
        Replicate(3), (conv(3, (2, 2)), KernelPooling((2, 3), "mean", (1, 2), "same"), conv(2, (1, 2)))
    ),
    "max pooling, same": Case(Lagged(rows=3), (conv(3, (2, 2)), KernelPooling((3, 3), padding="same"))),
    "batch normalization": Case(
        Lagged(rows=4), (conv(3, (2, 3)), KernelNormalization(), KernelActivation("relu"), conv(2, (2, 2)))
    ),
    "channel normalization": Case(Lagged(lags=(0, 3, 4)), (conv(3, (2, 2)), KernelNormalization("channels"))),
    "window normalization": Case(Lagged(rows=4), (conv(3, (2, 3)), KernelNormalization("window"))),
    "batch normalization, last": Case(
        Lagged(lags=(0, 1, 5)), (conv(3, (3, 3)), KernelNormalization()), head="last"
    ),
    "window normalization, last": Case(Row(), (conv(3, (1, 3)), KernelNormalization("window")), head="last"),
    "calendar": Case(CalendarFold(5), (conv(3, (2, 3), activation="tanh"), conv(2, (1, 2)))),
    "calendar, full height": Case(CalendarFold(4), (conv(3, (3, 2)),), head="last"),
    "calendar, same": Case(CalendarFold(4), (conv(3, (2, 3), padding="same", strides=(2, 2)),)),
    "spectrogram": Case(Spectrogram(6), (conv(3, (2, 3), activation="elu"), conv(2, (2, 2)))),
    "spectrogram, full height": Case(Spectrogram(6, hop=2, scale="log"), (conv(3, (4, 3)), conv(2, (1, 2)))),
    "spectrogram, last": Case(Spectrogram(4, hop=3, scale="power"), (conv(2, (2, 2)),), head="last"),
    "parallel rows": Case(Parallel(), (conv(2, (3, 3), activation="tanh"), conv(2, (2, 2)))),
    "parallel columns": Case(
        Parallel("columns"), (conv(2, (3, 4), strides=(1, 2), activation="relu"), conv(2, (3, 1)))
    ),
    "parallel mean": Case(Parallel(aggregate="mean"), (conv(2, (3, 3)), KernelActivation("gelu"))),
    "parallel sum": Case(Parallel(aggregate="sum"), (conv(2, (3, 3), activation="gelu"),)),
    "parallel max": Case(
        Parallel("columns", "max"), (conv(2, (3, 2), dilation=(1, 2)), conv(2, (2, 1), padding="same"))
    ),
    "parallel bands": Case(Parallel(lifting=Spectrogram(4)), (conv(2, (3, 3)), conv(2, (2, 2)))),
    "parallel lags": Case(Parallel("rows", "sum", Lagged(lags=(0, 3))), (conv(2, (2, 3), activation="elu"),)),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def check_executions(case: Case) -> None:
    """All executions equal the reference on every window, and one another in training."""
    stacks, x = case.stacks(), case.series()
    sessions = stacks[0].sessions
    expected = np.array(
        [[reference(stacks[0], series[k : k + sessions]) for k in range(WINDOWS)] for series in x]
    )
    for stack in stacks:
        assert stack.plan(case.channels).features == expected.shape[-1]
        np.testing.assert_allclose(stack.series(x), expected, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(stack(x[:, 1 : 1 + sessions]), expected[:, 1], rtol=1e-10, atol=1e-10)
    if not any(isinstance(layer, KernelNormalization) for layer in case.layers):
        return
    trained = [np.asarray(stack.series(x, training=True)) for stack in stacks]
    for stack, features in zip(stacks[1:], trained[1:], strict=True):
        np.testing.assert_allclose(features, trained[0], rtol=1e-9, atol=1e-9)
        for ours, theirs in zip(stack.weights, stacks[0].weights, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@every_case
def test_every_execution_equals_the_reference(case: Case) -> None:
    check_executions(case)


def gradients(case: Case, dtype: str) -> list[list[Any]]:
    """Gradient of a loss with respect to the weights, an execution at a time."""
    x, results = case.series(dtype=dtype), []
    for stack in case.stacks(dtype):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(stack.series(x)))
        results.append([np.asarray(value) for value in tape.gradient(loss, stack.trainable_variables)])
    return results


@every_case
def test_gradients_are_the_same_in_every_execution(case: Case) -> None:
    lifted, *others = gradients(case, "float64")
    largest = max(np.abs(gradient).max() for gradient in lifted)
    for other in others:
        for ours, theirs in zip(other, lifted, strict=True):
            np.testing.assert_allclose(ours / largest, theirs / largest, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["column", "replicate, same", "lagged", "lags, full height", "parallel rows"]
)
def test_gradients_agree_to_a_millionth_in_single_precision(name: str) -> None:
    lifted, *others = gradients(CASES[name], "float32")
    for other in others:
        for ours, theirs in zip(other, lifted, strict=True):
            assert np.linalg.norm(ours - theirs) <= 1e-6 * np.linalg.norm(theirs)


@every_case
def test_a_configuration_survives_json(case: Case) -> None:
    stack = case.stack("lifted")
    config = json.loads(json.dumps(stack.get_config()))
    again = KernelStack.from_config(config)
    assert again.get_config() == stack.get_config()
    assert again.kernel_layers == stack.kernel_layers
    x = case.series(1)
    again.build(x.shape)
    again.set_weights(stack.get_weights())
    np.testing.assert_array_equal(again(x), stack(x))


@every_case
def test_the_plan_counts_what_is_there(case: Case) -> None:
    stack, planned = case.stack(), case.plan()
    assert planned.parameters == sum(int(np.prod(weight.shape)) for weight in stack.trainable_weights)
    assert planned.sessions == stack.sessions
    assert planned.memory <= planned.sessions
    assert max(layer.receptive_field for layer in planned.layers) <= planned.memory
    if planned.cost.series is not None:
        assert planned.cost.series <= planned.cost.lifted
        assert planned.series == "series"
    else:
        assert any(reason.blocks_series for layer in planned.layers for reason in layer.reasons)
    assert (planned.window == "folded") == (planned.cost.folded < planned.cost.lifted)
    text = planned.explain()
    assert len(text.splitlines()) >= 2 + 2 * len(case.layers)
    for layer in planned.layers:
        assert f"receptive field {layer.receptive_field} session" in text
        assert f"{layer.parameters:,} parameters; multiply-adds a window: {layer.cost}" in text
    assert all(reason.value in text for layer in planned.layers for reason in layer.reasons)


@every_case
def test_keras_wrappers_are_told_the_shape_of_the_features(case: Case) -> None:
    stack = case.stack()
    inputs = keras.Input((3, stack.sessions, case.channels))
    features = case.plan().features
    assert stack.compute_output_shape((5, stack.sessions, case.channels)) == (5, features)
    assert keras.layers.TimeDistributed(stack)(inputs).shape == (None, 3, features)
    whole = keras.Input((stack.sessions + 6, case.channels))
    assert stack(whole, series=True).shape[1:] == (7, features)


@every_case
def test_features_depend_on_the_planned_memory_and_on_no_session_before(case: Case) -> None:
    stack, x = case.stacks()[-1], case.series(1)
    memory = stack.plan(case.channels).memory
    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        # Smooth and asymmetric, so that no feature's share cancels another's.
        features = stack(tensor)
        loss = tf.reduce_sum(tf.sin(features + tf.range(features.shape[1], dtype=features.dtype)))
    touched = np.abs(tape.gradient(loss, tensor)).sum(axis=(0, 2)) > 0
    assert not touched[: len(touched) - memory].any()
    # A maximum passes one element's gradient only, and a Hann taper starts at zero.
    selective = case.head == "max" or any(isinstance(layer, KernelPooling) for layer in case.layers)
    if not selective:
        assert touched[-1], "the newest session is always used"
        assert touched[-memory] or getattr(lifting_of(case.strategy), "taper", None) == "hann"


# --- drawn at random ---------------------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn) -> Case:
    small = st.integers(1, 3)
    parallel = st.builds(
        Parallel,
        axis=st.sampled_from(["rows", "columns"]),
        aggregate=st.sampled_from(["concatenate", "mean", "sum", "max"]),
        lifting=st.sampled_from([None, Replicate(2), Lagged(lags=(0, 2, 3)), Spectrogram(4)]),
    )
    strategy: Any = draw(
        st.one_of(
            st.builds(Row),
            st.builds(Column),
            st.builds(Replicate, rows=st.integers(1, 5)),
            st.builds(Lagged, rows=st.integers(1, 5), stride=small),
            st.builds(Lagged, lags=st.lists(st.integers(0, 8), min_size=1, max_size=5, unique=True)),
            st.builds(CalendarFold, period=st.integers(1, 5)),
            st.builds(Spectrogram, segment=st.integers(2, 6), hop=small),
            parallel,
        )
    )
    lookback = draw(st.integers(4, 13))
    alone = isinstance(strategy, Parallel)
    time = st.sampled_from([1, 1, 1, 2, 3])
    rows = st.just(1) if alone else st.sampled_from([1, 1, 1, 2])
    padding = st.tuples(
        st.sampled_from(["valid", "valid", "same"]), st.sampled_from(["valid", "valid", "same"])
    )
    layers: list[KernelLayer] = []
    for index in range(draw(st.integers(1, 3))):
        kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
        if alone:
            inputs = lifting_of(strategy).shape(lookback)[0] if index == 0 else 1
            filters = inputs if inputs > 1 else kernel[0]
            kernel = (filters, kernel[1]) if strategy.axis == "rows" else (kernel[1], filters)
        layers.append(
            KernelConvolution(
                draw(small),
                kernel,
                strides=(draw(rows), draw(time)),
                dilation=(draw(rows), draw(time)),
                padding=draw(padding),
                activation=draw(st.sampled_from([None, "tanh", "relu"])),
                bias=draw(st.booleans()),
            )
        )
        extra = draw(st.sampled_from(["", "", "", "pooling", "normalization", "activation"]))
        if extra == "pooling":
            size = (1 if alone else draw(st.integers(1, 2)), draw(small))
            statistic = draw(st.sampled_from(["max", "mean"]))
            strides = draw(st.sampled_from([None, (1, 1), (1, 2)]))
            layers.append(KernelPooling(size, statistic, strides, draw(padding)))
        elif extra == "normalization":
            layers.append(KernelNormalization(draw(st.sampled_from(["batch", "channels", "window"]))))
        elif extra == "activation":
            layers.append(KernelActivation("elu"))
    try:
        trace(strategy, lookback, layers)
    except ParameterError:
        assume(False)
    head = draw(st.sampled_from(["last", "flatten", "mean", "max"]))
    return Case(strategy, tuple(layers), lookback, head, draw(small))


# Zeros in time beside delayed rows, twice; rows that read only padding.
@example(
    Case(Lagged(rows=3), (conv(2, (2, 3), padding="same"), conv(2, (2, 2), padding="same")), head="last")
)
@example(Case(Replicate(2), (conv(2, (2, 2), dilation=(3, 1), padding="same"),)))
@settings(max_examples=25)
@given(cases())
def test_drawn_stacks_equal_the_reference(case: Case) -> None:
    check_executions(case)


@pytest.mark.slow
@settings(max_examples=500)
@given(cases())
def test_many_drawn_stacks_equal_the_reference(case: Case) -> None:
    check_executions(case)


# --- known values ------------------------------------------------------------------------------------------


def single(strategy: Strategy, kernel: Any, padding: str, lookback: int, execution: str) -> Any:
    """The lifted map of one series 1, 2, ... under one kernel, (rows, columns) or (columns, filters)."""
    kernel = np.asarray(kernel, dtype=float)
    layer = conv(1, kernel.shape, padding=padding, bias=False)
    stack = KernelStack(strategy, lookback, [layer], "flatten", execution, dtype="float64")
    stack.build((None, None, 1))
    stack.set_weights([kernel[:, :, None, None]])
    x = np.arange(1.0, stack.sessions + 1)[None, :, None]
    return np.asarray(stack(x))[0]


CROSS = [[1, 0, 1], [0, 1, 0], [1, 0, 1]]  # equal to itself flipped: convolution and correlation agree


@pytest.mark.parametrize("execution", ["lifted", "folded"])
def test_golden_values(execution: str) -> None:
    row = single(Row(), CROSS, "same", 6, execution)
    np.testing.assert_allclose(row, [1, 2, 3, 4, 5, 6])
    replicated = single(Replicate(rows=3), CROSS, "same", 6, execution).reshape(3, 6)
    edge, middle = [3, 6, 9, 12, 15, 11], [5, 10, 15, 20, 25, 16]
    np.testing.assert_allclose(replicated, [edge, middle, edge])
    parallel = single(Parallel(), CROSS, "same", 6, execution).reshape(6, 3).T
    np.testing.assert_allclose(parallel, [[2, 4, 6, 8, 10, 5], [1, 2, 3, 4, 5, 6], [2, 4, 6, 8, 10, 5]])
    summed = single(Parallel(aggregate="sum"), CROSS, "same", 6, execution)
    np.testing.assert_allclose(summed, [5, 10, 15, 20, 25, 16])


@pytest.mark.parametrize("execution", ["lifted", "folded"])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    "strategy", [Row(), Column(), Replicate(4), Lagged(lags=(0, 1, 5)), CalendarFold(4)], ids=repr
)
def test_a_single_kernel_is_scipys_correlation(strategy: Any, padding: str, execution: str) -> None:
    generator = np.random.default_rng(11)
    for height, width in [(1, 1), (3, 1), (1, 3), (2, 2), (3, 4), (5, 5)]:
        kernel = generator.standard_normal((height, width))
        rows, columns = strategy.shape(8)
        if padding == "valid" and (height > rows or width > columns):
            continue
        x = np.arange(1.0, 8 + strategy.history + 1)[None, :, None]
        expected = correlate2d(strategy(x)[0, :, :, 0], kernel, mode=padding)
        ours = single(strategy, kernel, padding, 8, execution)
        np.testing.assert_allclose(ours.reshape(expected.shape), expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_keras_pads_the_same_where_no_session_is_left_over(padding: str) -> None:
    """A stride that fits: TensorFlow's alignment and ours, from the newest session, are one."""
    layer = conv(2, (2, 3), strides=(2, 2), padding=padding)
    stack = KernelStack(Lagged(rows=4), 9, [layer], "flatten", dtype="float64")
    x = np.random.default_rng(0).standard_normal((3, stack.sessions, 2))
    ours = stack(x)
    theirs = keras.layers.Conv2D(2, (2, 3), strides=(2, 2), padding=padding, dtype="float64")
    lifted = Lagged(rows=4)(x)
    theirs.build(lifted.shape)
    theirs.set_weights(stack.get_weights())
    np.testing.assert_allclose(ours, np.asarray(theirs(lifted)).reshape(3, -1), rtol=1e-12, atol=1e-12)


def test_batch_normalization_is_keras_in_training_and_after() -> None:
    layers: list[KernelLayer] = [conv(3, (2, 3)), KernelNormalization(momentum=0.8)]
    stack = KernelStack(Lagged(rows=3), 6, layers, "flatten", dtype="float64")
    x = np.random.default_rng(2).standard_normal((5, stack.sessions + 2, 2))
    stack.build(x.shape)
    lifted = np.concatenate([Lagged(rows=3)(x[:, k : k + stack.sessions]) for k in range(3)])
    theirs = keras.Sequential(
        [
            keras.layers.Conv2D(3, (2, 3), dtype="float64"),
            keras.layers.BatchNormalization(momentum=0.8, dtype="float64"),
        ]
    )
    theirs.build(lifted.shape)
    theirs.layers[0].set_weights(stack.get_weights()[:2])
    for training in (True, True, False):
        ours = stack.series(x, training=training)
        expected = np.asarray(theirs(lifted, training=training)).reshape(3, 5, -1).swapaxes(0, 1)
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(stack.get_weights()[-1], theirs.get_weights()[-1], rtol=1e-9)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("size", "stride"), [(1, 3), (2, 2), (2, 3), (3, 2), (4, 5)])
@pytest.mark.parametrize("strategy", [Row(), Column()], ids=repr)
def test_no_stride_drops_the_newest_session(strategy: Any, size: int, stride: int, padding: str) -> None:
    kernel, strides = ((size, 1), (stride, 1)) if isinstance(strategy, Column) else ((1, size), (1, stride))
    for lookback in range(5, 10):
        layer = KernelConvolution(1, kernel, strides=strides, padding=padding)
        for execution in ("lifted", "folded"):
            stack = KernelStack(strategy, lookback, [layer], "last", execution)
            x = np.zeros((1, lookback, 1))
            stack.build(x.shape)
            stack.set_weights([np.ones((*kernel, 1, 1)), np.zeros(1)])
            x[0, -1] = 1.0
            assert np.asarray(stack(x)).item() == 1.0


# --- the plan ----------------------------------------------------------------------------------------------


def test_the_plan_of_the_production_stack() -> None:
    layers = [conv(16, (4, 5), activation="gelu"), conv(16, (1, 5), dilation=(1, 2), activation="gelu")]
    planned = plan(Lagged(lags=(0, 1, 5, 21)), 32, layers, channels=9)
    assert (planned.window, planned.series, planned.features) == ("folded", "series", 16)
    assert (planned.sessions, planned.memory, planned.parameters) == (
        53,
        34,
        4 * 5 * 9 * 16 + 5 * 16 * 16 + 32,
    )
    assert [layer.series for layer in planned.layers] == ["rows-as-channels", "fold"]
    assert [layer.receptive_field for layer in planned.layers] == [26, 34]
    # Lifted: every column; folded: the nine and then one that the last step reads; series: one of each.
    first, second = 4 * 5 * 9 * 16, 5 * 16 * 16
    assert planned.cost.lifted == 28 * first + 20 * second
    assert planned.cost.folded == 9 * first + second
    assert planned.cost.series == first + second


def test_rows_set_apart_cost_no_more_than_their_own_columns() -> None:
    layers = [conv(1, (2, 3)), conv(1, (1, 2))]
    planned = plan(Lagged(lags=(0, 1, 5, 7)), 12, layers, "flatten", channels=1)
    assert [layer.sequences for layer in planned.layers] == [3, 3]
    shared = plan(Lagged(lags=(0, 1, 5, 9)), 12, layers, "flatten", channels=1)  # 1, 5 and 5, 9 alike
    assert [layer.sequences for layer in shared.layers] == [2, 2]
    # Twelve columns less two, less one: each of the three rows is computed for its own columns only.
    assert planned.layers[1].cost.folded == 3 * 9 * 2 == planned.layers[1].cost.lifted
    assert planned.layers[1].cost.series == 3 * 2


def test_evenly_spaced_lags_stay_one_sequence_at_any_depth() -> None:
    layers = [conv(32, (3, 5)), conv(32, (3, 3)), conv(32, (3, 3))]
    planned = plan(Lagged(rows=8), 64, layers, "mean", channels=1)
    assert [layer.sequences for layer in planned.layers] == [1, 1, 1]
    assert [layer.series for layer in planned.layers] == ["fold", "fold", "fold"]
    # kh * kw taps fall on kw + (kh - 1) diagonals.
    assert [layer.cost.series for layer in planned.layers] == [7 * 32, 5 * 32 * 32, 5 * 32 * 32]
    assert [layer.cost.lifted for layer in planned.layers] == [
        6 * 60 * 15 * 32,
        4 * 58 * 9 * 32 * 32,
        2 * 56 * 9 * 32 * 32,
    ]
    assert planned.reasons == ()


@pytest.mark.parametrize(
    ("rows", "height", "distinct"), [(4, 3, 3), (8, 2, 2), (3, 5, 3), (16, 4, 4), (5, 7, 5)]
)
def test_replicated_rows_padded_same_have_as_many_distinct_rows_as_the_smaller_side(
    rows: int, height: int, distinct: int
) -> None:
    planned = plan(Replicate(rows), 20, [conv(2, (height, 3), padding=("same", "valid"))], channels=1)
    assert planned.layers[0].sequences == distinct
    deep = plan(
        Replicate(16),
        20,
        [conv(2, (height, 3), padding=("same", "valid")) for height in (3, 5, 2)],
        channels=1,
    )
    assert [layer.sequences for layer in deep.layers] == [3, 7, 8]  # min(R, 1 + sum of (kh - 1))


@pytest.mark.parametrize(
    ("reason", "strategy", "layers", "index"),
    [
        (Reason.ZERO_TIME_PADDING, Row(), (conv(1, (1, 3), padding="same"),), 0),
        (
            Reason.ZERO_TIME_PADDING,
            Row(),
            (conv(1, (1, 3)), KernelPooling((1, 2), padding="same", strides=(1, 1))),
            1,
        ),
        (Reason.WINDOW_STATISTICS, Row(), (conv(1, (1, 3)), KernelNormalization("window")), 1),
        (Reason.ROWS_LAID_OUT, Lagged(rows=3), (conv(1, (1, 3), padding="same"),), 0),
        (Reason.ROW_PADDING, Replicate(3), (conv(1, (3, 3), padding=("same", "valid")),), 0),
        (Reason.UNEVEN_LAGS, Lagged(lags=(0, 1, 5)), (conv(1, (2, 3)),), 0),
        (Reason.SPECTRUM, Spectrogram(6), (conv(1, (2, 3)),), 0),
        (
            Reason.ROWS_APART,
            Lagged(lags=(0, 1, 5, 7)),
            (conv(1, (2, 3)), conv(1, (2, 3))),
            1,
        ),
        (Reason.AFTER_NONLINEARITY, Parallel(aggregate="mean"), (conv(1, (3, 3), activation="relu"),), 0),
        (Reason.AFTER_NONLINEARITY, Parallel(aggregate="max"), (conv(1, (3, 3)),), 0),
    ],
)
def test_every_reason_of_a_layer(reason: Reason, strategy: Strategy, layers: Any, index: int) -> None:
    planned = plan(strategy, 12, layers, "flatten", channels=1)
    assert reason in planned.layers[index].reasons
    blocked = any(known.blocks_series for layer in planned.layers for known in layer.reasons)
    assert (planned.series == "series") == (not blocked)
    assert blocked or not reason.blocks_series
    assert reason.value in planned.explain()


@pytest.mark.parametrize(
    ("strategy", "layers"),
    [
        (Row(), (conv(1, (1, 3)),)),
        (Replicate(3), (conv(1, (2, 3)), KernelPooling((2, 2)), KernelNormalization())),
        (Lagged(rows=4, stride=2), (conv(1, (2, 3)), conv(1, (2, 2)))),
        (Lagged(lags=(0, 1, 5)), (conv(1, (3, 3)), conv(1, (1, 2)))),
        (CalendarFold(4), (conv(1, (2, 3)),)),
        (Spectrogram(6), (conv(1, (4, 3)),)),
        (Parallel(), (conv(1, (3, 3), activation="relu"),)),
        (Parallel(aggregate="sum"), (conv(1, (3, 3)), KernelActivation("relu"))),
    ],
)
def test_no_reason_where_all_rows_are_one_sequence(strategy: Strategy, layers: Any) -> None:
    planned = plan(strategy, 12, layers, "flatten", channels=1)
    assert [(layer.reasons, layer.sequences) for layer in planned.layers] == [((), 1)] * len(layers)


def test_the_reasons_of_a_whole_stack() -> None:
    layers = [conv(1, (1, 3))]
    free = plan(Row(), 12, layers, "flatten", channels=1)
    assert (free.window, free.series, free.reasons) == ("lifted", "series", (Reason.NO_SAVING,))
    blocked = plan(Row(), 12, [*layers, KernelNormalization("window")], "flatten", channels=1)
    assert (blocked.window, blocked.series) == ("lifted", "lifted")
    assert blocked.reasons == (Reason.WINDOW_STATISTICS, Reason.NO_SAVING)
    for execution in ("lifted", "folded"):
        asked = plan(Row(), 12, layers, "last", execution, channels=1)
        assert (asked.window, asked.series, asked.reasons) == (execution, execution, (Reason.AS_ASKED,))
    asked = plan(Row(), 12, layers, "last", "series", channels=1)
    assert (asked.window, asked.series, asked.reasons) == ("folded", "series", (Reason.AS_ASKED,))
    provoked = {Reason.NO_SAVING, Reason.AS_ASKED, Reason.ZERO_TIME_PADDING, Reason.WINDOW_STATISTICS}
    provoked |= {Reason.ROWS_LAID_OUT, Reason.ROW_PADDING, Reason.UNEVEN_LAGS, Reason.SPECTRUM}
    provoked |= {Reason.ROWS_APART, Reason.AFTER_NONLINEARITY}
    assert provoked == set(Reason), "a new reason needs a test that provokes it"


def test_planning_loads_neither_keras_nor_tensorflow() -> None:
    code = (
        "import sys; from forecaster.models.convolution import planner; "
        "print([name for name in ('keras', 'tensorflow') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# --- what the kernel sees ----------------------------------------------------------------------------------

PLACED = {
    name: replace(case, layers=(replace(case.layers[0], activation=None),), head="flatten")
    for name, case in CASES.items()
    if isinstance(case.layers[0], KernelConvolution) and isinstance(lifting_of(case.strategy), Placement)
    if not isinstance(case.strategy, Parallel) or case.strategy.aggregate == "concatenate"
}


@pytest.mark.parametrize("case", PLACED.values(), ids=PLACED.keys())
def test_first_kernels_give_what_the_first_layer_gives(case: Case) -> None:
    stack = case.stacks()[0]
    folding = stack.first_kernels()
    x = case.series(1)
    np.testing.assert_allclose(folding.apply(x).reshape(2, -1), stack(x), rtol=1e-10, atol=1e-10)
    tensor = tf.constant(x[:1])
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        last = tf.reshape(stack(tensor), (*folding.shape, folding.filters))[-1, -1, 0]
    gradient = np.asarray(tape.gradient(last, tensor))[0, ::-1]
    np.testing.assert_allclose(lag_weights(folding, row=-1)[..., 0], gradient, rtol=1e-10, atol=1e-12)


def test_first_kernels_are_those_of_fold() -> None:
    stack = KernelStack(Lagged(lags=(0, 1, 5, 21)), 20, [conv(3, (4, 5)), conv(2, (1, 2))], dtype="float64")
    stack(np.zeros((1, stack.sessions, 2)))
    ours = stack.first_kernels()
    theirs = fold(stack.get_weights()[0], Lagged(lags=(0, 1, 5, 21)), 20, mode="valid")
    assert ours.kernels[0].offsets == theirs.kernels[0].offsets
    np.testing.assert_array_equal(ours.kernels[0].taps, theirs.kernels[0].taps)
    magnitude, _ = frequency_response(ours.kernels[0].taps, ours.kernels[0].offsets, [np.inf, 5.0])
    np.testing.assert_allclose(magnitude[0], np.abs(stack.get_weights()[0].sum(axis=(0, 1))), rtol=1e-12)


# --- the control -------------------------------------------------------------------------------------------


@every_case
def test_the_control_has_as_many_parameters_and_the_same_interface(case: Case) -> None:
    control = ConvolutionControl(case.strategy, case.lookback, case.layers, case.head, dtype="float64")
    x = case.series()
    features = np.asarray(control.series(x))
    matched, planned = control.control(case.channels), control.plan(case.channels)
    trained = sum(int(np.prod(weight.shape)) for weight in control.trainable_weights)
    assert trained == matched.parameters == planned.parameters
    assert matched.target == case.plan().parameters
    assert matched.parameters == matched.target or abs(matched.parameters / matched.target - 1) < 0.12
    assert features.shape == (2, WINDOWS, planned.features)
    sessions = control.sessions
    assert sessions == case.stack().sessions
    np.testing.assert_allclose(control(x[:, 1 : 1 + sessions]), features[:, 1], rtol=1e-10, atol=1e-12)
    assert control.first_kernels().shape[0] == 1


def test_the_control_is_exact_when_its_longer_kernels_fit() -> None:
    layers = [conv(16, (4, 5), activation="gelu"), conv(16, (1, 5), dilation=(1, 2), activation="gelu")]
    control = match_parameters(Lagged(lags=(0, 1, 5, 21)), 32, layers, channels=9)
    assert control.layers == (replace(layers[0], kernel=(1, 20)), layers[1])
    assert (control.lookback, control.parameters, control.target) == (53, 4192, 4192)
    parallel = match_parameters(Parallel(), 12, [conv(4, (3, 5))], channels=2)
    assert parallel.layers == (conv(12, (1, 5), padding=("valid", "valid")),)
    assert parallel.parameters == parallel.target


def test_the_control_takes_more_filters_when_its_kernels_would_be_too_long() -> None:
    layers = [conv(8, (6, 4)), conv(8, (3, 3))]
    control = match_parameters(Lagged(rows=10), 8, layers, channels=3)
    assert control.layers != (conv(8, (1, 24)), conv(8, (1, 9)))
    assert control.layers[-1].filters == 8  # type: ignore[union-attr]  # what follows keeps its size
    assert abs(control.parameters / control.target - 1) < 0.05


# --- in Keras ----------------------------------------------------------------------------------------------


def test_series_takes_any_length_without_tracing_again() -> None:
    stack = CASES["lags, full height"].stack(dtype="float32")
    traces = []

    def traced(x: Any) -> Any:
        traces.append(1)
        return stack.series(x)

    features = tf.function(traced, input_signature=[tf.TensorSpec((None, None, 2), tf.float32)])
    for length in (stack.sessions, stack.sessions + 7):
        x = np.random.default_rng(length).standard_normal((3, length, 2)).astype("float32")
        np.testing.assert_allclose(features(x), stack.series(x), rtol=1e-6, atol=1e-6)
    assert len(traces) == 1


@pytest.mark.parametrize("name", ["batch normalization", "lagged, same time", "mean pooling", "lags, mean"])
def test_series_in_a_graph_of_unknown_length(name: str) -> None:
    case = CASES[name]
    stack = case.stack(dtype="float64")
    outside = keras.Model(inputs := keras.Input((None, case.channels), dtype="float64"), stack.series(inputs))
    x = case.series()
    np.testing.assert_allclose(outside(x), stack.series(x), rtol=1e-12, atol=1e-12)
    assert len(outside.weights) == len(stack.weights)


LOAD = """
import sys
from pathlib import Path
import numpy as np
import forecaster.models.convolution.layers
import keras
for path in sorted(Path(sys.argv[1]).glob("*.keras")):
    saved = np.load(path.with_suffix(".npz"))
    model = keras.saving.load_model(path, safe_mode=True)
    np.testing.assert_array_equal(model(saved["x"]), saved["y"])
    print(path.stem)
"""


def test_saved_models_predict_the_same_in_a_fresh_process(tmp_path: Path) -> None:
    """A functional and a sequential model, trained, with every kind of layer and strategy between them."""
    generator = np.random.default_rng(3)
    lags = (conv(3, (4, 5), activation="gelu"), KernelNormalization(), KernelPooling((1, 2)))
    bodies = [
        KernelStack(Lagged(lags=(0, 1, 5, 21)), 12, lags),
        KernelStack(Spectrogram(22), 12, [conv(3, (2, 3)), KernelNormalization("window")]),
        KernelStack(Parallel("columns", lifting=Lagged(lags=(0, 21))), 12, [conv(2, (3, 2))], "mean"),
        KernelStack(CalendarFold(22), 12, [conv(2, (1, 5), padding="same"), KernelActivation("elu")], "max"),
        ConvolutionControl(Lagged(lags=(0, 21)), 12, [conv(2, (2, 3)), conv(2, (1, 2))]),
    ]
    tensor = keras.Input((33, 2))
    joined = keras.layers.Concatenate()([body(tensor) for body in bodies])
    functional = keras.Model(tensor, keras.layers.Dense(1)(joined))
    column = KernelStack(Column(), 33, [conv(2, (4, 1), activation="tanh"), KernelNormalization("channels")])
    sequential = keras.Sequential([keras.Input((33, 2)), column, keras.layers.Dense(1)])
    x = generator.standard_normal((16, 33, 2)).astype("float32")
    for name, model, used in (("functional", functional, bodies), ("sequential", sequential, [column])):
        before = [np.asarray(body.trainable_weights[0]) for body in used]
        model.compile(optimizer="adam", loss="mse")
        # Unshuffled: once other tests have made operations repeat to the bit, a shuffle needs a seed.
        model.fit(x, x[:, -1, :1] ** 2, batch_size=8, shuffle=False, verbose=0)
        for body, kernel in zip(used, before, strict=True):
            assert np.abs(body.trainable_weights[0] - kernel).max() > 0
        model.save(tmp_path / f"{name}.keras")
        np.savez(tmp_path / f"{name}.npz", x=x, y=model(x))
    result = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.stdout.split() == ["functional", "sequential"], result.stderr


def test_parallel_filters_start_as_large_as_the_conv1d_that_they_are() -> None:
    stack = KernelStack(Parallel(), 12, [conv(64, (3, 5))])
    stack.build((None, 12, 8))
    limit = np.sqrt(6.0 / (5 * 8 + 5 * 3 * 64))  # Glorot: fan in and fan out of the 1D convolution
    kernel = np.asarray(stack.weights[0])
    assert 0.98 * limit < np.abs(kernel).max() <= limit


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: conv(0, (1, 3)),
            r"KernelConvolution: filters must be an integer of at least 1. Received: 0",
        ),
        (
            lambda: conv(1, (1, 3), padding="causal"),
            r"padding: rows must be one of 'valid', 'same'. Received: 'causal'",
        ),
        (lambda: conv(1, (1, 3), padding=("valid",)), r"padding must be 'valid', 'same' or a pair"),
        (lambda: conv(1, (3,)), r"kernel must be a pair \(rows, time\) of integers. Received: \(3,\)"),
        (
            lambda: conv(1, (1, 3), strides=(1, 0)),
            r"strides: time must be an integer of at least 1. Received: 0",
        ),
        (
            lambda: conv(1, (1, 3), activation="glu"),
            r"keeps the number of channels, such as 'gelu'. Received: 'glu'",
        ),
        (
            lambda: KernelPooling((1, 2), "median"),
            r"statistic must be one of 'max', 'mean'. Received: 'median'",
        ),
        (lambda: KernelNormalization("layer"), r"over must be one of 'batch', 'channels', 'window'"),
        (lambda: KernelNormalization(epsilon=0.0), r"epsilon must be positive. Received: 0.0"),
        (lambda: KernelNormalization(momentum=1.0), r"momentum must lie in \[0, 1\). Received: 1.0"),
        (lambda: KernelActivation(None), r"KernelActivation: activation must be named. Received: None"),  # type: ignore[arg-type]
        (lambda: layer_from_config({"kind": "dense"}), r"a layer: kind must be one of .* Received: 'dense'"),
        (
            lambda: layer_from_config({"kind": "pooling", "sise": [1, 2]}),
            r"a layer 'pooling' does not take these settings. Received: .*sise",
        ),
        (
            lambda: KernelStack("row", 9, [conv(1, (1, 3))]),  # type: ignore[arg-type]
            r"strategy must be one of Row, Column, .* Received: 'row'",
        ),
        (
            lambda: KernelStack(Row(), 0, [conv(1, (1, 3))]),
            r"lookback must be an integer of at least 1. Received: 0",
        ),
        (lambda: KernelStack(Row(), 9, []), r"layers must begin with a KernelConvolution. Received: \[\]"),
        (
            lambda: KernelStack(Row(), 9, [KernelActivation("relu")]),
            r"layers must begin with a KernelConvolution",
        ),
        (
            lambda: KernelStack(Row(), 9, [conv(1, (1, 3)), keras.layers.Dense(3)]),
            r"every layer must be one of KernelConvolution, .* Received: <Dense",
        ),
        (
            lambda: KernelStack(Row(), 9, [conv(1, (1, 3))], "first"),
            r"head must be one of 'last', .* Received: 'first'",
        ),
        (
            lambda: KernelStack(Row(), 9, [conv(1, (1, 3))], "last", "fast"),
            r"execution must be one of 'auto', .*'fast'",
        ),
        (
            lambda: KernelStack(Row(), 9, [conv(1, (1, 3), activation="gelou")]),
            r"activation must be None or the name of a Keras activation, such as 'gelu'. Received: 'gelou'",
        ),
        (
            lambda: KernelStack(Lagged(rows=3), 9, [conv(1, (4, 3))]),
            r"layer 0 \(KernelConvolution\): a 'valid' kernel must fit .* spans 4 x 3 on 3 x 9",
        ),
        (
            lambda: KernelStack(Row(), 9, [conv(1, (1, 3)), conv(1, (1, 4), dilation=(1, 3))]),
            r"layer 1 \(KernelConvolution\): a 'valid' kernel must fit .* spans 1 x 10 on 1 x 7",
        ),
        (
            lambda: KernelStack(Row(), 9, [conv(1, (1, 3)), KernelPooling((2, 2))]),
            r"layer 1 \(KernelPooling\): a 'valid' kernel must fit .* spans 2 x 2 on 1 x 7",
        ),
        (
            lambda: KernelStack(Row(), 9, [conv(1, (2, 3), dilation=(2, 1), padding="same")]),
            r"a kernel must meet at least one row, or its output is the bias; use an odd number of kernel "
            r"rows, or row dilation 1. Received: 2 kernel rows with row dilation 2 on 1 rows, padded 'same'",
        ),
        (
            lambda: KernelStack(Parallel(), 9, [conv(1, (3, 3), dilation=(2, 1))]),
            r"parallel filters know time only, so strides and dilation must be \(1, n\). .*dilation=\(2, 1\)",
        ),
        (
            lambda: KernelStack(Parallel(lifting=Spectrogram(4)), 9, [conv(1, (2, 3))]),
            r"parallel filters read a row each, so the kernel must have 3 rows. Received: kernel=\(2, 3\)",
        ),
        (
            lambda: KernelStack(Row(), 9, [conv(1, (1, 3), padding="same")], "last", "series"),
            r"execution 'series' needs layers that do not depend on where a window begins; use 'auto'. "
            r"Received: layer 0 \(KernelConvolution\): 'same' pads each window with zeros in time",
        ),
        (
            lambda: KernelStack(Row(), 9, [conv(1, (1, 3))])(np.zeros((2, 9))),
            r"\(batch, sessions, channels\)",
        ),
        (
            lambda: KernelStack(Lagged(rows=3), 9, [conv(1, (1, 3))])(np.zeros((2, 9, 1))),
            r"needs windows \(batch, 11, channels\): lookback 9 and history 2. Received: shape \(2, 9, 1\)",
        ),
        (
            lambda: KernelStack(Row(), 9, [conv(1, (1, 3))]).series(np.zeros((2, 8, 1))),
            r"series needs at least the 9 sessions of one window. Received: 8",
        ),
        (
            lambda: KernelStack(Row(), 9, [conv(1, (1, 3))]).build((None, 9, None)),
            r"input \(batch, sessions, channels\) of known channels. Received: \(None, 9, None\)",
        ),
        (
            lambda: CASES["spectrogram"].stack().first_kernels(),
            r"Only a lifting that places sessions has kernels",
        ),
        (
            lambda: match_parameters(
                Lagged(rows=40), 2, [conv(1, (40, 1)), KernelPooling((1, 1), strides=(1, 99))], channels=0
            ),
            r"channels must be an integer of at least 1. Received: 0",
        ),
    ],
)
def test_bad_input_is_refused(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(ParameterError, match=text):
        make()


@pytest.mark.parametrize("kind", [KernelStack, ConvolutionControl])
def test_kernels_before_weights_are_refused(kind: type[KernelStack]) -> None:
    with pytest.raises(NotFittedError, match="has kernels once it is built; call it on data first"):
        kind(Row(), 9, [conv(1, (1, 3))]).first_kernels()


def test_a_missing_value_spreads_to_the_windows_that_read_it_and_no_further() -> None:
    stack = KernelStack(Row(), 4, [conv(2, (1, 2))])
    x = np.random.default_rng(0).standard_normal((1, 12, 1))
    x[0, 6] = np.nan
    missing = np.isnan(np.asarray(stack.series(x))).any(axis=(0, 2))
    assert missing.tolist() == [k + 3 - 1 <= 6 <= k + 3 for k in range(9)]
