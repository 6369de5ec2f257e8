"""The layers of a kernel stack as plain specifications, and their geometry; no TensorFlow.

A feature map has rows and columns. Along each axis, output position ``p`` of a layer reads the input
positions ``start + p * stride + tap * dilation``; `Axis` holds that rule for one axis, padding and alignment
included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forecaster.errors import ParameterError
from forecaster.kernels import Parallel
from forecaster.liftings import (
    CalendarFold,
    Column,
    Lagged,
    Lifting,
    Replicate,
    Row,
    Spectrogram,
    check_choice,
    check_integer,
)

__all__ = [
    "EXECUTIONS",
    "HEADS",
    "Axis",
    "KernelActivation",
    "KernelConvolution",
    "KernelLayer",
    "KernelNormalization",
    "KernelPooling",
    "Step",
    "Strategy",
    "filter_axis",
    "history_of",
    "layer_config",
    "layer_from_config",
    "lifting_of",
    "newest_row_last",
    "output_channels",
    "resolve_axis",
    "strategy_config",
    "strategy_from_config",
    "trace",
]

Strategy = Lifting | Parallel
"""How the 2D kernel meets the 1D series."""

PADDINGS = ("valid", "same")
POOLINGS = ("max", "mean")
NORMALIZATIONS = ("batch", "channels", "window")
HEADS = ("last", "flatten", "mean", "max")
EXECUTIONS = ("auto", "lifted", "folded", "series")

# --- layers -------------------------------------------------------------------------------------------------


def _pair(name: str, value: object) -> tuple[int, int]:
    """Return ``value`` as two positive ints: rows, time."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise ParameterError(f"{name} must be a pair (rows, time) of integers. Received: {value!r}.")
    return check_integer(f"{name}: rows", value[0], 1), check_integer(f"{name}: time", value[1], 1)


def _paddings(name: str, value: object) -> tuple[str, str]:
    """Return ``value`` as two padding modes: rows, time."""
    if isinstance(value, str):
        value = (value, value)
    if not isinstance(value, Sequence) or len(value) != 2:
        raise ParameterError(
            f"{name} must be 'valid', 'same' or a pair (rows, time) of them. Received: {value!r}."
        )
    return check_choice(f"{name}: rows", value[0], PADDINGS), check_choice(
        f"{name}: time", value[1], PADDINGS
    )


def _activation(name: str, value: object) -> str | None:
    """Return ``value`` when it names an activation that keeps the number of channels."""
    if value is not None and (not isinstance(value, str) or not value or value == "glu"):
        raise ParameterError(
            f"{name} must be None or the name of a Keras activation that keeps the number of channels, such "
            f"as 'gelu'. Received: {value!r}."
        )
    return value


@dataclass(frozen=True)
class KernelConvolution:
    """A 2D kernel moved over the feature map: correlation, as Keras does it (the kernel is not flipped).

    With a `forecaster.kernels.Parallel` strategy each row (or column) of the kernel is a 1D filter of its
    own; the activation then belongs to each filter, before they are aggregated. To aggregate before the
    nonlinearity, leave ``activation`` None and let a `KernelActivation` follow.

    Attributes
    ----------
    filters : int
        Output channels of the 2D kernel.
    kernel : tuple of int
        Kernel size (rows, time).
    strides : tuple of int
        Steps (rows, time). In time a stride counts back from the newest session, which is never dropped.
    dilation : tuple of int
        Spacing of the kernel's taps (rows, time).
    padding : str or tuple of str
        "valid" or "same", for both axes or (rows, time). "same" pads zeros as TensorFlow does.
    activation : str, optional
        Name of a Keras activation.
    bias : bool
        Whether each filter has a bias.
    """

    filters: int
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: str | tuple[str, str] = "valid"
    activation: str | None = None
    bias: bool = True

    def __post_init__(self) -> None:
        name = "KernelConvolution"
        object.__setattr__(self, "filters", check_integer(f"{name}: filters", self.filters, 1))
        object.__setattr__(self, "kernel", _pair(f"{name}: kernel", self.kernel))
        object.__setattr__(self, "strides", _pair(f"{name}: strides", self.strides))
        object.__setattr__(self, "dilation", _pair(f"{name}: dilation", self.dilation))
        object.__setattr__(self, "padding", _paddings(f"{name}: padding", self.padding))
        _activation(f"{name}: activation", self.activation)


@dataclass(frozen=True)
class KernelPooling:
    """The maximum or the mean of each patch of the feature map.

    Attributes
    ----------
    size : tuple of int
        Patch size (rows, time).
    statistic : {"max", "mean"}
        What is kept of a patch.
    strides : tuple of int, optional
        Steps (rows, time); the patch size by default. In time they count back from the newest session.
    padding : str or tuple of str
        "valid" or "same", for both axes or (rows, time). Padding takes no part in the maximum or the mean.
    """

    size: tuple[int, int]
    statistic: str = "max"
    strides: tuple[int, int] | None = None
    padding: str | tuple[str, str] = "valid"

    def __post_init__(self) -> None:
        name = "KernelPooling"
        object.__setattr__(self, "size", _pair(f"{name}: size", self.size))
        check_choice(f"{name}: statistic", self.statistic, POOLINGS)
        strides = self.size if self.strides is None else self.strides
        object.__setattr__(self, "strides", _pair(f"{name}: strides", strides))
        object.__setattr__(self, "padding", _paddings(f"{name}: padding", self.padding))


@dataclass(frozen=True)
class KernelNormalization:
    """Normalization of the feature map, followed by a learned scale and shift of each channel.

    Attributes
    ----------
    over : {"batch", "channels", "window"}
        What the mean and variance are taken over: "batch", the whole batch of lifted maps, a channel at a
        time, with running averages at inference; "channels", those of one element (layer normalization);
        "window", the map of one window, a channel at a time, at training and inference alike.
    epsilon : float
        Added to the variance.
    momentum : float
        Weight of the past in the running averages of "batch".
    """

    over: str = "batch"
    epsilon: float = 1e-3
    momentum: float = 0.99

    def __post_init__(self) -> None:
        name = "KernelNormalization"
        check_choice(f"{name}: over", self.over, NORMALIZATIONS)
        if not self.epsilon > 0.0:
            raise ParameterError(f"{name}: epsilon must be positive. Received: {self.epsilon!r}.")
        if not 0.0 <= self.momentum < 1.0:
            raise ParameterError(f"{name}: momentum must lie in [0, 1). Received: {self.momentum!r}.")


@dataclass(frozen=True)
class KernelActivation:
    """A nonlinearity on its own.

    Attributes
    ----------
    activation : str
        Name of a Keras activation.
    """

    activation: str

    def __post_init__(self) -> None:
        if _activation("KernelActivation: activation", self.activation) is None:
            raise ParameterError("KernelActivation: activation must be named. Received: None.")


KernelLayer = KernelConvolution | KernelPooling | KernelNormalization | KernelActivation
"""One layer of a kernel stack."""

_LAYERS: dict[str, type[KernelLayer]] = {
    "convolution": KernelConvolution,
    "pooling": KernelPooling,
    "normalization": KernelNormalization,
    "activation": KernelActivation,
}
_STRATEGIES: dict[str, type[Any]] = {
    "row": Row,
    "column": Column,
    "replicate": Replicate,
    "lagged": Lagged,
    "parallel": Parallel,
    "spectrogram": Spectrogram,
    "calendar_fold": CalendarFold,
}


def _plain(value: object) -> Any:
    """Return ``value`` with every sequence as a list, so that it survives JSON unchanged."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, tuple | list | range) else value


def _from_config(name: str, kinds: Mapping[str, type[Any]], config: Mapping[str, Any]) -> Any:
    """Build the object that `layer_config` or `strategy_config` described."""
    settings = {key: _tuples(value) for key, value in config.items() if key != "kind"}
    kind = check_choice(f"{name}: kind", config.get("kind"), tuple(kinds))
    try:
        return kinds[kind](**settings)
    except TypeError as error:
        raise ParameterError(
            f"{name} {kind!r} does not take these settings. Received: {settings} ({error})."
        ) from error


def _tuples(value: object) -> Any:
    """Undo `_plain`."""
    return tuple(_tuples(item) for item in value) if isinstance(value, tuple | list) else value


def layer_config(layer: KernelLayer) -> dict[str, Any]:
    """Describe a layer as plain JSON."""
    kind = next(kind for kind, known in _LAYERS.items() if type(layer) is known)
    settings = {field.name: _plain(getattr(layer, field.name)) for field in dataclasses.fields(layer)}
    return {"kind": kind, **settings}


def layer_from_config(config: Mapping[str, Any]) -> KernelLayer:
    """Build the layer that `layer_config` described."""
    layer: KernelLayer = _from_config("a layer", _LAYERS, config)
    return layer


def strategy_config(strategy: Strategy) -> dict[str, Any]:
    """Describe a strategy as plain JSON.

    Raises
    ------
    ParameterError
        When it is none of the strategies of `forecaster.liftings` and `forecaster.kernels`.
    """
    for kind, known in _STRATEGIES.items():
        if type(strategy) is known:
            if isinstance(strategy, Parallel):
                lifting = None if strategy.lifting is None else strategy_config(strategy.lifting)
                return {
                    "kind": kind,
                    "axis": strategy.axis,
                    "aggregate": strategy.aggregate,
                    "lifting": lifting,
                }
            settings = strategy.get_params(deep=False)  # type: ignore[attr-defined]
            return {"kind": kind, **{name: _plain(value) for name, value in settings.items()}}
    raise ParameterError(
        f"strategy must be one of {', '.join(known.__name__ for known in _STRATEGIES.values())}. "
        f"Received: {strategy!r}."
    )


def strategy_from_config(config: Mapping[str, Any]) -> Strategy:
    """Build the strategy that `strategy_config` described."""
    if config.get("kind") == "parallel" and config.get("lifting") is not None:
        config = {**config, "lifting": strategy_from_config(config["lifting"])}
    strategy: Strategy = _from_config("a strategy", _STRATEGIES, config)
    return strategy


# --- geometry -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """How a layer reads one axis of its input.

    Output position ``p`` reads the input positions ``start + p * stride + tap * dilation`` that lie inside
    ``[0, size)``; the others are padding.

    Attributes
    ----------
    size : int
        Input positions.
    taps : int
        Kernel size along the axis.
    stride, dilation : int
        As given.
    start : int
        Input position of tap 0 of output position 0; negative where padding comes first.
    count : int
        Output positions.
    """

    size: int
    taps: int
    stride: int
    dilation: int
    start: int
    count: int

    @property
    def padding(self) -> tuple[int, int]:
        """Padding before and after the input; negative where input positions are left out."""
        stop = self.start + (self.count - 1) * self.stride + (self.taps - 1) * self.dilation + 1
        return -self.start, stop - self.size

    @property
    def padded(self) -> bool:
        """Whether any output reads padding."""
        return max(self.padding) > 0

    def acting(self, position: int) -> tuple[tuple[int, int], ...]:
        """Return (tap, input position) of every tap that reads the input, not padding."""
        first = self.start + position * self.stride
        places = ((tap, first + tap * self.dilation) for tap in range(self.taps))
        return tuple((tap, place) for tap, place in places if 0 <= place < self.size)


def resolve_axis(
    size: int, taps: int, stride: int, dilation: int, padding: str, *, newest_last: bool
) -> Axis | None:
    """Place a kernel on one axis as TensorFlow does, but never past the newest session.

    Parameters
    ----------
    size : int
        Input positions.
    taps, stride, dilation : int
        Of the kernel.
    padding : {"valid", "same"}
        "same" gives ``ceil(size / stride)`` outputs and puts the odd zero at the end.
    newest_last : bool
        Whether the newest session is at the end of the axis. Where a stride leaves positions over, they are
        then the oldest; TensorFlow leaves out the last ones.

    Returns
    -------
    Axis or None
        None when a "valid" kernel does not fit.
    """
    reach = (taps - 1) * dilation + 1
    if padding == "valid":
        if reach > size:
            return None
        count = (size - reach) // stride + 1
        total = 0
    else:
        count = -(-size // stride)
        total = max((count - 1) * stride + reach - size, 0)
    left_over = size + total - ((count - 1) * stride + reach)
    start = left_over if newest_last and left_over > 0 else -(total // 2)
    return Axis(size=size, taps=taps, stride=stride, dilation=dilation, start=start, count=count)


@dataclass(frozen=True)
class Step:
    """One layer, placed on the map that it reads.

    Attributes
    ----------
    layer : KernelLayer
        The layer.
    inputs, outputs : tuple of int
        Rows and columns of the map before and after the layer.
    rows, columns : Axis or None
        How the kernel or patch meets each axis. Both None for a layer that works element by element; ``rows``
        None for parallel filters, which leave the rows alone.
    """

    layer: KernelLayer
    inputs: tuple[int, int]
    outputs: tuple[int, int]
    rows: Axis | None = None
    columns: Axis | None = None


def trace(strategy: Strategy, lookback: int, layers: Sequence[KernelLayer]) -> tuple[Step, ...]:
    """Follow the map of one window through the layers.

    Parameters
    ----------
    strategy : Strategy
        The lifting, or parallel filters.
    lookback : int
        Sessions of a window, without the history.
    layers : sequence of KernelLayer
        At least one; the first must be a convolution.

    Raises
    ------
    ParameterError
        When a "valid" kernel does not fit in the map, when some output would read nothing but padding, or
        when a layer does not fit the strategy.
    """
    if not layers or not isinstance(layers[0], KernelConvolution):
        raise ParameterError(f"layers must begin with a KernelConvolution. Received: {list(layers)!r}.")
    for layer in layers:
        if type(layer) not in _LAYERS.values():
            names = ", ".join(known.__name__ for known in _LAYERS.values())
            raise ParameterError(f"every layer must be one of {names}. Received: {layer!r}.")
    size = lifting_of(strategy).shape(lookback)
    steps = []
    for index, layer in enumerate(layers):
        name = f"layer {index} ({type(layer).__name__})"
        if isinstance(layer, KernelConvolution):
            step = _trace_convolution(name, layer, size, strategy)
        elif isinstance(layer, KernelPooling):
            strides = layer.size if layer.strides is None else layer.strides
            step = _trace_patches(name, layer, size, strategy, layer.size, strides, (1, 1), layer.padding)
        else:
            step = Step(layer, size, size)
        steps.append(step)
        size = step.outputs
    return tuple(steps)


def lifting_of(strategy: Strategy) -> Lifting:
    """Return the lifting that the first layer reads; parallel filters read the series itself, as one row."""
    if isinstance(strategy, Parallel):
        return Row() if strategy.lifting is None else strategy.lifting
    return strategy


def history_of(strategy: Strategy) -> int:
    """Sessions that a window needs before its lookback."""
    return lifting_of(strategy).history


def newest_row_last(strategy: Strategy) -> bool:
    """Whether the newest session lies in the last row: in a column and in a calendar, not among lags."""
    return isinstance(lifting_of(strategy), Column | CalendarFold)


def filter_axis(strategy: Parallel) -> int:
    """Return the axis of the kernel that tells the parallel filters apart."""
    return 0 if strategy.axis == "rows" else 1


def output_channels(layer: KernelConvolution, strategy: Strategy) -> int:
    """Channels after a convolution."""
    if isinstance(strategy, Parallel) and strategy.aggregate == "concatenate":
        return layer.filters * layer.kernel[filter_axis(strategy)]
    return layer.filters


def _trace_convolution(
    name: str, layer: KernelConvolution, size: tuple[int, int], strategy: Strategy
) -> Step:
    if not isinstance(strategy, Parallel):
        return _trace_patches(
            name, layer, size, strategy, layer.kernel, layer.strides, layer.dilation, layer.padding
        )
    if layer.strides[0] != 1 or layer.dilation[0] != 1:
        raise ParameterError(
            f"{name}: parallel filters know time only, so strides and dilation must be (1, n). "
            f"Received: strides={layer.strides}, dilation={layer.dilation}."
        )
    across = filter_axis(strategy)
    filters, length = layer.kernel[across], layer.kernel[1 - across]
    if size[0] not in (1, filters):
        raise ParameterError(
            f"{name}: parallel filters read a row each, so the kernel must have {size[0]} {strategy.axis}. "
            f"Received: kernel={layer.kernel}."
        )
    padding = ("valid", layer.padding[1])
    step = _trace_patches(
        name, layer, (1, size[1]), strategy, (1, length), layer.strides, layer.dilation, padding
    )
    return dataclasses.replace(step, inputs=size, rows=None)


def _trace_patches(
    name: str,
    layer: KernelLayer,
    size: tuple[int, int],
    strategy: Strategy,
    patch: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
    padding: str | tuple[str, str],
) -> Step:
    newest_last = (newest_row_last(strategy), True)
    axes = [
        resolve_axis(size[k], patch[k], strides[k], dilation[k], padding[k], newest_last=newest_last[k])
        for k in (0, 1)
    ]
    rows, columns = axes
    if rows is None or columns is None:
        reach = tuple((patch[k] - 1) * dilation[k] + 1 for k in (0, 1))
        raise ParameterError(
            f"{name}: a 'valid' kernel must fit in its map; pad 'same', shrink the kernel or lengthen the "
            f"lookback. Received: a kernel that spans {reach[0]} x {reach[1]} on {size[0]} x {size[1]}."
        )
    for word, axis, dilated in (("row", rows, dilation[0]), ("column", columns, dilation[1])):
        if not any(axis.acting(position) for position in range(axis.count)):
            raise ParameterError(
                f"{name}: a kernel must meet at least one {word}, or its output is the bias; use an odd "
                f"number of kernel {word}s, or {word} dilation 1. Received: {axis.taps} kernel {word}s with "
                f"{word} dilation {dilated} on {axis.size} {word}s, padded 'same'."
            )
    return Step(layer, size, (rows.count, columns.count), rows, columns)
