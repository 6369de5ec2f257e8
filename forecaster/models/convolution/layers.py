"""Keras layers that apply a 2D kernel to a 1D series."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from forecaster.models.convolution import runtime  # noqa: F401  # before Keras

# isort: split
import keras
import numpy as np
from keras import ops

from forecaster.errors import NotFittedError, ParameterError
from forecaster.kernels import Folding, Parallel
from forecaster.liftings import Row, check_choice, check_integer
from forecaster.models.convolution.folding import Program, compile_program, first_folding
from forecaster.models.convolution.geometry import (
    HEADS,
    KernelActivation,
    KernelConvolution,
    KernelLayer,
    KernelNormalization,
    KernelPooling,
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
from forecaster.models.convolution.operations import (
    Tensor,
    Weights,
    convolve_map,
    convolve_sequences,
    features_of_map,
    features_of_sequences,
    lift,
    moments_of_map,
    moments_of_sequences,
    normalize,
    pool_map,
    pool_sequences,
    source_sequences,
)
from forecaster.models.convolution.planner import Control, Plan, check_execution, match_parameters, plan

__all__ = [
    "ConvolutionControl",
    "KernelActivation",
    "KernelConvolution",
    "KernelLayer",
    "KernelNormalization",
    "KernelPooling",
    "KernelStack",
]


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

    Examples
    --------
    >>> from forecaster.liftings import Lagged
    >>> layers = [KernelConvolution(16, (4, 5), activation="gelu"), KernelConvolution(16, (1, 5))]
    >>> body = KernelStack(Lagged(lags=(0, 1, 5, 21)), lookback=32, layers=layers)
    >>> body(np.zeros((8, 53, 9))).shape  # eight windows of nine channels
    TensorShape([8, 16])
    >>> body.series(np.zeros((2, 500, 9))).shape  # every window of two series
    TensorShape([2, 448, 16])
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
        self._steps = trace(self.strategy, self.lookback, self.kernel_layers)
        self.execution = check_execution(execution, self._steps)
        for layer in self.kernel_layers:
            _check_activation(getattr(layer, "activation", None))

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
        channels = _channels(input_shape)
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
        self._compile(_channels(input_shape))

    def _compile(self, channels: int) -> None:
        """Choose the executions for a number of channels."""
        self._plan = self.plan(channels)
        compiled = partial(compile_program, self.strategy, self.lookback, self._steps, self.head, channels)
        window = compiled(window=True)
        assert window is not None
        self._window_program = window
        self._series_program = compiled(window=False)

    def plan(self, channels: int) -> Plan:
        """Say how the stack is computed on a series of so many channels, and why."""
        return plan(
            self.strategy, self.lookback, self.kernel_layers, self.head, self.execution, channels=channels
        )

    def first_kernels(self) -> Folding:
        """Return what the first convolution sees: its trained kernels, folded to taps on the series.

        Returns
        -------
        Folding
            For `forecaster.kernels.lag_weights`, `frequency_response` and their like: each of its kernels has
            ``taps`` of shape (taps, channels, filters), and ``offsets``, a session a tap. Parallel filters
            stand side by side, before they are aggregated.

        Raises
        ------
        NotFittedError
            Before the stack has weights.
        ParameterError
            For a spectrogram, which has no linear kernel on the series.
        """
        if not self.built:
            raise NotFittedError("A stack has kernels once it is built; call it on data first.")
        weights = {name: np.asarray(value) for name, value in self._layer_weights[0].items()}
        return first_folding(
            self.strategy, self.lookback, self._steps[0], weights["kernel"], weights.get("bias")
        )

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

    # --- calls ------------------------------------------------------------------------------------------

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        """Return ``(batch, features)`` for windows ``(batch, sessions, channels)``; wrappers ask for it."""
        return input_shape[0], self.plan(_channels(input_shape)).features

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Trace the call, which checks its input and knows ``series``; a shape alone does not."""
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def call(
        self,
        inputs: Tensor,
        training: bool | None = None,
        series: bool = False,
        projection: Tensor | None = None,
    ) -> Tensor:
        """Compute the features of windows, or with ``series`` of every window of a series; see `series`."""
        length = inputs.shape[1] if len(inputs.shape) == 3 else None
        if len(inputs.shape) != 3 or (length is not None and not series and length != self.sessions):
            raise ParameterError(
                f"KernelStack needs windows (batch, {self.sessions}, channels): lookback {self.lookback} and "
                f"history {self.history}. Received: shape {tuple(inputs.shape)}."
            )
        if not series:
            return _projected(self._each(inputs, self._plan.window, bool(training)), projection)
        if length is not None and length < self.sessions:
            raise ParameterError(
                f"KernelStack.series needs at least the {self.sessions} sessions of one window. "
                f"Received: {length}."
            )
        if self._plan.series == "series":
            assert self._series_program is not None
            return self._sequences(inputs, self._series_program, bool(training), projection)
        windows = self._windows(inputs)
        features = _projected(self._each(windows, self._plan.series, bool(training)), projection)
        return ops.reshape(features, (-1, ops.shape(inputs)[1] - self.sessions + 1, features.shape[-1]))

    def series(
        self, inputs: Tensor, training: bool | None = None, projection: Tensor | None = None
    ) -> Tensor:
        """Compute the features of every window of a series at once.

        Parameters
        ----------
        inputs : tensor of shape (batch, T, channels)
            T is at least ``sessions``.
        training : bool, optional
            As in a call. In training, "batch" normalization takes all windows as one batch.
        projection : tensor of shape (features, outputs), optional
            What the features are multiplied by: before they are pooled, where that is cheaper.

        Returns
        -------
        tensor of shape (batch, T - sessions + 1, features)
            Entry k equals the call on sessions ``k, ..., k + sessions - 1``.
        """
        return self(inputs, training=training, series=True, projection=projection)

    def _windows(self, inputs: Tensor) -> Tensor:
        """Cut a series into windows: (batch * windows, sessions, channels)."""
        count = ops.shape(inputs)[1] - self.sessions + 1
        places = ops.expand_dims(ops.arange(count), 1) + ops.expand_dims(ops.arange(self.sessions), 0)
        return ops.reshape(ops.take(inputs, places, axis=1), (-1, self.sessions, inputs.shape[-1]))

    def _each(self, windows: Tensor, execution: str, training: bool) -> Tensor:
        """Compute windows one by one: (batch, features)."""
        if execution == "folded":
            return self._sequences(windows, self._window_program, training)[:, 0]
        values = lift(windows, lifting_of(self.strategy), self.lookback)
        for step, weights in zip(self._steps, self._layer_weights, strict=True):
            layer = step.layer
            if isinstance(layer, KernelConvolution):
                values = convolve_map(values, step, self.strategy, weights)
            elif isinstance(layer, KernelPooling):
                values = pool_map(values, step)
            elif isinstance(layer, KernelNormalization):
                moments = self._moments(layer, weights, training, partial(moments_of_map, values, layer.over))
                values = normalize(values, layer, weights, *moments)
            else:
                values = keras.activations.get(layer.activation)(values)
        return features_of_map(values, self.head, self.strategy)

    def _sequences(
        self, inputs: Tensor, program: Program, training: bool, projection: Tensor | None = None
    ) -> Tensor:
        """Compute every window of a series, or the only one, on sequences: (batch, windows, features)."""
        windows = ops.shape(inputs)[1] - self.sessions + 1
        values = source_sequences(inputs, program, self.strategy)
        for stage, weights in zip(program.stages, self._layer_weights, strict=True):
            layer = stage.step.layer
            if isinstance(layer, KernelConvolution):
                values = convolve_sequences(values, stage, self.strategy, weights)
            elif isinstance(layer, KernelPooling):
                values = pool_sequences(values, stage)
            elif isinstance(layer, KernelNormalization):
                measure = partial(moments_of_sequences, values, stage.before, layer.over, windows)
                moments = self._moments(layer, weights, training, measure)
                values = normalize(values, layer, weights, *moments)
            else:
                values = keras.activations.get(layer.activation)(values)
        return features_of_sequences(values, program.result, self.head, self.strategy, projection)

    def _moments(
        self,
        layer: KernelNormalization,
        weights: Weights,
        training: bool,
        measure: Callable[[], tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, Tensor]:
        """Return mean and variance to normalize by; "batch" remembers those of training for inference."""
        if layer.over == "batch" and not training:
            return weights["mean"], weights["variance"]
        moments = measure()
        if layer.over == "batch":
            for past, value in zip((weights["mean"], weights["variance"]), moments, strict=True):
                past.assign(past * layer.momentum + ops.cast(value, past.dtype) * (1.0 - layer.momentum))
        return moments


@keras.saving.register_keras_serializable(package="forecaster")
class ConvolutionControl(KernelStack):
    """The control of a kernel stack: a flat Conv1D stack with as many parameters, as nearly as possible.

    A comparison of liftings without it misleads. It takes the arguments and the input of the `KernelStack`
    that it stands in for, and sees the same sessions as one row: see `match_parameters` for how it is matched
    and `control` for the count. Under the head "last" it gives the filters of its one row.
    """

    def control(self, channels: int) -> Control:
        """Return the layers and the exact number of parameters, for a number of channels."""
        return match_parameters(self.strategy, self.lookback, self.kernel_layers, channels=channels)

    def plan(self, channels: int) -> Plan:
        """Say how the control is computed on a series of so many channels, and why."""
        control = self.control(channels)
        return plan(Row(), control.lookback, control.layers, self.head, self.execution, channels=channels)

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Match the parameters for the channels of the input, and create the weights."""
        channels = _channels(input_shape)
        control = self.control(channels)
        self.body = KernelStack(
            Row(), control.lookback, control.layers, self.head, self.execution, dtype=self.dtype_policy
        )
        self.body.build(input_shape)

    def call(
        self,
        inputs: Tensor,
        training: bool | None = None,
        series: bool = False,
        projection: Tensor | None = None,
    ) -> Tensor:
        """Compute the features of windows, or with ``series`` of every window of a series; see `series`."""
        return self.body(inputs, training=training, series=series, projection=projection)

    def first_kernels(self) -> Folding:
        """Return what the first convolution sees, as for a `KernelStack`."""
        if not self.built:
            raise NotFittedError("A control has kernels once it is built; call it on data first.")
        return self.body.first_kernels()


def _projected(features: Tensor, projection: Tensor | None) -> Tensor:
    """Multiply features by a projection, where there is one."""
    return features if projection is None else ops.matmul(features, projection)


def _check_activation(name: str | None) -> None:
    """Refuse an activation that Keras does not know."""
    try:
        keras.activations.get(name)
    except ValueError as error:
        raise ParameterError(
            f"activation must be None or the name of a Keras activation, such as 'gelu'. Received: {name!r}."
        ) from error


def _channels(input_shape: Sequence[int | None]) -> int:
    """Return the channels of ``(batch, sessions, channels)``."""
    if len(input_shape) != 3 or input_shape[-1] is None:
        raise ParameterError(
            "KernelStack needs input (batch, sessions, channels) of known channels. "
            f"Received: {tuple(input_shape)}."
        )
    return input_shape[-1]


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
