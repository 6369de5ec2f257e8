"""Keras layers that apply a 2D kernel to a 1D series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from scipy.signal import get_window

from forecaster.errors import ParameterError
from forecaster.kernels import Parallel
from forecaster.liftings import Column, Lifting, Placement, Spectrogram, check_choice, check_integer
from forecaster.models.convolution.geometry import (
    EXECUTIONS,
    HEADS,
    Axis,
    KernelActivation,
    KernelConvolution,
    KernelLayer,
    KernelNormalization,
    KernelPooling,
    Step,
    Strategy,
    filter_axis,
    history_of,
    layer_config,
    layer_from_config,
    lifting_of,
    output_channels,
    strategy_config,
    strategy_from_config,
    trace,
)

__all__ = [
    "KernelActivation",
    "KernelConvolution",
    "KernelLayer",
    "KernelNormalization",
    "KernelPooling",
    "KernelStack",
]

Tensor = Any  # Keras types no tensor
Weights = dict[str, Any]


@keras.saving.register_keras_serializable(package="forecaster")
class KernelStack(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """A stack of layers whose 2D kernels meet a 1D series.

    Called on windows, it gives the features of each; `series` gives those of every window of a whole series.

    Parameters
    ----------
    strategy : Strategy or dict
        A lifting of `forecaster.liftings`, `forecaster.kernels.Parallel`, or either as `get_config` describes
        it.
    lookback : int
        Sessions of a window, without the history that the lifting reaches back to.
    layers : sequence of KernelLayer or dict
        At least one; the first is a `KernelConvolution`.
    head : {"last", "flatten", "mean", "max"}, default "last"
        The features: the last step of the last map (every row of it), the whole map, or each channel's mean
        or maximum over it. A mean forgets which lag a feature came from.
    execution : {"auto", "lifted", "folded", "series"}, default "auto"
        How to compute. All give equal results.

    Notes
    -----
    Input is ``(batch, lookback + history, channels)``, oldest session first; output ``(batch, features)``. A
    NaN spreads to every feature that reads it, as in any Keras layer: fill or leave out such sessions before.

    Raises
    ------
    ParameterError
        When an argument breaks a rule; when the input has another rank or length.
    """

    def __init__(
        self,
        strategy: Strategy | Mapping[str, Any],
        lookback: int,
        layers: Sequence[KernelLayer | Mapping[str, Any]],
        head: str = "last",
        execution: str = "auto",
        **kwargs: Any,  # Keras's own: name, dtype, trainable
    ) -> None:
        super().__init__(**kwargs)
        described = strategy if isinstance(strategy, Mapping) else strategy_config(strategy)
        self.strategy = strategy_from_config(described)  # our own: liftings can be changed by set_params
        self.lookback = check_integer("KernelStack: lookback", lookback, 1)
        self.kernel_layers = tuple(
            layer_from_config(layer) if isinstance(layer, Mapping) else layer for layer in layers
        )
        self.head = check_choice("KernelStack: head", head, HEADS)
        self.execution = check_choice("KernelStack: execution", execution, EXECUTIONS)
        self._steps = trace(self.strategy, self.lookback, self.kernel_layers)

    @property
    def sessions(self) -> int:
        """Sessions that one window holds: lookback and history."""
        return self.lookback + self.history

    @property
    def history(self) -> int:
        """Sessions needed before the lookback."""
        return history_of(self.strategy)

    def get_config(self) -> dict[str, Any]:
        """Describe the stack as plain JSON."""
        return {
            **super().get_config(),
            "strategy": strategy_config(self.strategy),
            "lookback": self.lookback,
            "layers": [layer_config(layer) for layer in self.kernel_layers],
            "head": self.head,
            "execution": self.execution,
        }

    # --- weights --------------------------------------------------------------------------------------------

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Create the weights for ``(batch, sessions, channels)``."""
        if len(input_shape) != 3 or input_shape[-1] is None:
            raise ParameterError(
                "KernelStack needs input (batch, sessions, channels) of known channels. "
                f"Received: {input_shape}."
            )
        channels = input_shape[-1]
        weights: list[Weights] = []
        for index, layer in enumerate(self.kernel_layers):
            if isinstance(layer, KernelConvolution):
                weights.append(self._build_convolution(index, layer, channels))
                channels = output_channels(layer, self.strategy)
            elif isinstance(layer, KernelNormalization):
                weights.append(self._build_normalization(index, layer, channels))
            else:
                weights.append({})
        self._layer_weights = weights

    def _build_convolution(self, index: int, layer: KernelConvolution, channels: int) -> Weights:
        initializer: Any = keras.initializers.GlorotUniform()
        bias_shape: tuple[int, ...] = (layer.filters,)
        if isinstance(self.strategy, Parallel):
            initializer = _ParallelGlorot(self.strategy)
            bias_shape = (layer.kernel[filter_axis(self.strategy)], layer.filters)
        weights = {
            "kernel": self.add_weight(
                name=f"kernel_{index}",
                shape=(*layer.kernel, channels, layer.filters),
                initializer=initializer,
            )
        }
        if layer.bias:
            weights["bias"] = self.add_weight(name=f"bias_{index}", shape=bias_shape, initializer="zeros")
        return weights

    def _build_normalization(self, index: int, layer: KernelNormalization, channels: int) -> Weights:
        weights = {
            "scale": self.add_weight(name=f"scale_{index}", shape=(channels,), initializer="ones"),
            "shift": self.add_weight(name=f"shift_{index}", shape=(channels,), initializer="zeros"),
        }
        if layer.over == "batch":
            weights["mean"] = self.add_weight(
                name=f"mean_{index}", shape=(channels,), initializer="zeros", trainable=False
            )
            weights["variance"] = self.add_weight(
                name=f"variance_{index}", shape=(channels,), initializer="ones", trainable=False
            )
        return weights

    # --- calls ----------------------------------------------------------------------------------------------

    def call(self, inputs: Tensor, training: bool | None = None, series: bool = False) -> Tensor:
        """Compute the features of windows, or with ``series`` of every window of a series; see `series`."""
        length = inputs.shape[1] if len(inputs.shape) == 3 else None
        if len(inputs.shape) != 3 or (length is not None and not series and length != self.sessions):
            raise ParameterError(
                f"KernelStack needs windows (batch, {self.sessions}, channels): lookback {self.lookback} and "
                f"history {self.history}. Received: shape {tuple(inputs.shape)}."
            )
        if not series:
            return self._lifted(inputs, bool(training))
        if length is not None and length < self.sessions:
            raise ParameterError(
                f"KernelStack.series needs at least the {self.sessions} sessions of one window. "
                f"Received: {length}."
            )
        return self._windows(inputs, bool(training))

    def series(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Compute the features of every window of a series at once.

        Parameters
        ----------
        inputs : tensor of shape (batch, T, channels)
            T is at least ``sessions``.
        training : bool, optional
            As in a call.

        Returns
        -------
        tensor of shape (batch, T - sessions + 1, features)
            Entry k equals the call on sessions ``k, ..., k + sessions - 1``.
        """
        return self(inputs, training=training, series=True)

    def _windows(self, inputs: Tensor, training: bool) -> Tensor:
        """Cut a series into windows and compute each by itself."""
        shape = ops.shape(inputs)
        count = shape[1] - self.sessions + 1
        places = ops.expand_dims(ops.arange(count), 1) + ops.expand_dims(ops.arange(self.sessions), 0)
        windows = ops.reshape(ops.take(inputs, places, axis=1), (-1, self.sessions, inputs.shape[-1]))
        features = self._lifted(windows, training)
        return ops.reshape(features, (-1, count, features.shape[-1]))

    # --- the lifted execution: the reference ----------------------------------------------------------------

    def _lifted(self, windows: Tensor, training: bool) -> Tensor:
        """Lift the windows and run plain 2D layers."""
        values = lift(windows, lifting_of(self.strategy), self.lookback)
        for step, weights in zip(self._steps, self._layer_weights, strict=True):
            layer = step.layer
            if isinstance(layer, KernelConvolution):
                values = self._convolve(values, step, layer, weights)
            elif isinstance(layer, KernelPooling):
                values = _pool(values, step, layer)
            elif isinstance(layer, KernelNormalization):
                values = self._normalize(values, layer, weights, training)
            else:
                values = keras.activations.get(layer.activation)(values)
        if self.head == "mean":
            return ops.mean(values, axis=(1, 2))
        if self.head == "max":
            return ops.max(values, axis=(1, 2))
        if self.head == "last":
            values = values[:, -1:] if isinstance(self.strategy, Column) else values[:, :, -1:]
        return ops.reshape(values, (-1, int(np.prod(values.shape[1:]))))

    def _convolve(self, values: Tensor, step: Step, layer: KernelConvolution, weights: Weights) -> Tensor:
        assert step.columns is not None
        activation = keras.activations.get(layer.activation)
        if not isinstance(self.strategy, Parallel):
            assert step.rows is not None
            values = _correlate(values, weights["kernel"], step.rows, step.columns)
            return activation(values + weights["bias"] if layer.bias else values)
        across = filter_axis(self.strategy)
        row = Axis(size=1, taps=1, stride=1, dilation=1, start=0, count=1)
        outputs = []
        for number in range(layer.kernel[across]):
            kernel = weights["kernel"][number] if across == 0 else weights["kernel"][:, number]
            own = values[:, number : number + 1] if step.inputs[0] > 1 else values
            output = _correlate(own, kernel[None], row, step.columns)
            outputs.append(activation(output + weights["bias"][number] if layer.bias else output))
        return aggregate(outputs, self.strategy)

    def _normalize(
        self, values: Tensor, layer: KernelNormalization, weights: Weights, training: bool
    ) -> Tensor:
        if layer.over == "batch" and not training:
            mean, variance = weights["mean"], weights["variance"]
        else:
            axes = {"batch": (0, 1, 2), "window": (1, 2), "channels": (3,)}[layer.over]
            mean, variance = ops.moments(values, axes=axes, keepdims=layer.over != "batch")
            if layer.over == "batch":
                self._remember(layer, weights, mean, variance)
        return scale(values, layer, weights, mean, variance)

    def _remember(self, layer: KernelNormalization, weights: Weights, mean: Tensor, variance: Tensor) -> None:
        """Move the running averages towards the statistics of this batch."""
        for name, value in (("mean", mean), ("variance", variance)):
            past = weights[name]
            past.assign(past * layer.momentum + ops.cast(value, past.dtype) * (1.0 - layer.momentum))


class _ParallelGlorot(keras.initializers.Initializer):  # type: ignore[misc]  # Keras is untyped
    """Glorot's uniform weights of the 1D convolution that the parallel filters are together."""

    def __init__(self, strategy: Parallel) -> None:
        self.strategy = strategy

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        across = filter_axis(self.strategy)
        length, filters = shape[1 - across], shape[across]
        kernel = keras.initializers.GlorotUniform()((length, shape[2], filters * shape[3]), dtype=dtype)
        kernel = ops.reshape(kernel, (length, shape[2], filters, shape[3]))
        return ops.transpose(kernel, (2, 0, 1, 3) if across == 0 else (0, 2, 1, 3))


def lift(windows: Tensor, lifting: Lifting, lookback: int) -> Tensor:
    """Lift windows inside the graph, as ``lifting`` does outside of it.

    Parameters
    ----------
    windows : tensor of shape (batch, lookback + history, channels)
        Oldest session first.
    lifting : Lifting
        One of `forecaster.liftings`.
    lookback : int
        Sessions of a window.

    Returns
    -------
    tensor of shape (batch, rows, columns, channels)
    """
    rows, columns = lifting.shape(lookback)
    if isinstance(lifting, Spectrogram):
        first = (lookback - 1) % lifting.hop
        return spectra(windows, lifting)[:, :, first :: lifting.hop]
    assert isinstance(lifting, Placement)
    newest = lifting.history + lookback - columns
    starts = [newest - lag for lag in lifting.row_lags(lookback)]
    if rows <= columns:
        return ops.stack([windows[:, start : start + columns] for start in starts], axis=1)
    return ops.take(windows, np.add.outer(starts, np.arange(columns)), axis=1)


def spectra(inputs: Tensor, lifting: Spectrogram) -> Tensor:
    """Compute the spectrum that ends at every session, as `Spectrogram` scales it.

    Parameters
    ----------
    inputs : tensor of shape (batch, sessions, channels)
        Oldest session first.
    lifting : Spectrogram
        Its segment, taper and scale.

    Returns
    -------
    tensor of shape (batch, bands, sessions - segment + 1, channels)
    """
    segment, bands = lifting.segment, lifting.segment // 2 + 1
    taper = get_window(lifting.taper, segment)
    norm = taper.sum() if lifting.scale == "magnitude" else np.sqrt((taper**2).sum())
    angles = 2.0 * np.pi * np.outer(np.arange(segment), np.arange(bands)) / segment
    waves = np.stack([np.cos(angles), np.sin(angles)], axis=-1) * (taper / norm)[:, None, None]
    channels = inputs.shape[-1]
    series = ops.reshape(ops.transpose(inputs, (0, 2, 1)), (-1, ops.shape(inputs)[1], 1))
    kernel = ops.convert_to_tensor(waves.reshape(segment, 1, 2 * bands), dtype=inputs.dtype)
    parts = ops.conv(series, kernel, padding="valid")
    parts = ops.reshape(parts, (-1, channels, ops.shape(parts)[1], bands, 2))
    values = ops.transpose(ops.sum(ops.square(parts), axis=-1), (0, 3, 2, 1))
    if lifting.scale == "power":
        return values
    if lifting.scale == "log":
        return ops.log1p(values)
    silent = ops.equal(values, 0.0)  # the square root has no gradient there
    return ops.where(silent, 0.0, ops.sqrt(ops.where(silent, 1.0, values)))


def aggregate(outputs: Sequence[Tensor], strategy: Parallel) -> Tensor:
    """Bring the outputs of parallel filters together: side by side as channels, or one for all."""
    if strategy.aggregate == "concatenate":
        return ops.concatenate(outputs, axis=-1)
    stacked = ops.stack(outputs, axis=0)
    reduce = {"mean": ops.mean, "sum": ops.sum, "max": ops.max}[strategy.aggregate]
    return reduce(stacked, axis=0)


def scale(
    values: Tensor, layer: KernelNormalization, weights: Weights, mean: Tensor, variance: Tensor
) -> Tensor:
    """Normalize by the given moments, then apply the learned scale and shift."""
    return (values - mean) * ops.rsqrt(variance + layer.epsilon) * weights["scale"] + weights["shift"]


def _padded(values: Tensor, rows: Axis, columns: Axis, fill: float = 0.0) -> Tensor:
    """Pad the map with ``fill``, and leave out the positions that no output reads."""
    pads = (rows.padding, columns.padding)
    cut = [
        slice(max(-before, 0), axis.size - max(-after, 0))
        for (before, after), axis in zip(pads, (rows, columns), strict=True)
    ]
    values = values[:, cut[0], cut[1]]
    widths = [(0, 0), *((max(before, 0), max(after, 0)) for before, after in pads), (0, 0)]
    return ops.pad(values, widths, constant_values=fill) if max(map(max, widths)) > 0 else values


def _correlate(values: Tensor, kernel: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """2D correlation of maps ``(batch, rows, columns, channels)``."""
    values = _padded(values, rows, columns)
    strides, dilation = (rows.stride, columns.stride), (rows.dilation, columns.dilation)
    if max(strides) > 1 and max(dilation) > 1:  # TensorFlow has no such convolution
        values = ops.conv(values, kernel, padding="valid", dilation_rate=dilation)
        return values[:, :: strides[0], :: strides[1]]
    return ops.conv(values, kernel, strides=strides, padding="valid", dilation_rate=dilation)


def _pool(values: Tensor, step: Step, layer: KernelPooling) -> Tensor:
    """Maximum or mean of each patch, padding left out."""
    rows, columns = step.rows, step.columns
    assert rows is not None
    assert columns is not None
    size, strides = (rows.taps, columns.taps), (rows.stride, columns.stride)
    if layer.statistic == "max":
        return ops.max_pool(_padded(values, rows, columns, -np.inf), size, strides, "valid")
    means = ops.average_pool(_padded(values, rows, columns), size, strides, "valid")
    counts = [np.array([len(axis.acting(p)) for p in range(axis.count)]) for axis in (rows, columns)]
    share = size[0] * size[1] / np.multiply.outer(*counts)
    return means * ops.convert_to_tensor(share[:, :, None], dtype=values.dtype)
