"""Tensor operations of a kernel stack: on lifted maps, the reference, and on the sequences that hold them.

Lifted maps are ``(batch, rows, columns, channels)``, sequences ``(batch, sequences, entries, channels)``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from forecaster.models.convolution import runtime  # noqa: F401  # before Keras

# isort: split
import keras
import numpy as np
import tensorflow as tf
from keras import ops
from scipy.signal import get_window

from forecaster.kernels import Parallel
from forecaster.liftings import Column, Lifting, Placement, Spectrogram
from forecaster.models.convolution.folding import Layout, Program, Stage, Term, folded_size, merged
from forecaster.models.convolution.geometry import (
    Axis,
    KernelConvolution,
    KernelNormalization,
    KernelPooling,
    Step,
    Strategy,
    filter_axis,
    lifting_of,
)

__all__ = [
    "convolve_map",
    "convolve_sequences",
    "features_of_map",
    "features_of_sequences",
    "gelu",
    "lift",
    "linear",
    "moments_of_map",
    "moments_of_sequences",
    "normalize",
    "pool_map",
    "pool_sequences",
    "source_sequences",
]

Tensor = Any  # Keras types no tensor
Weights = dict[str, Any]

# --- lifted maps: the reference ---------------------------------------------------------------------------


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
        return _spectra(windows, lifting)[:, :, first :: lifting.hop]
    assert isinstance(lifting, Placement)
    newest = lifting.history + lookback - columns
    starts = [newest - lag for lag in lifting.row_lags(lookback)]
    if rows <= columns:
        return ops.stack([windows[:, start : start + columns] for start in starts], axis=1)
    return ops.take(windows, np.add.outer(starts, np.arange(columns)), axis=1)


def _spectra(inputs: Tensor, lifting: Spectrogram) -> Tensor:
    """Compute the spectrum that ends at every session: (batch, bands, sessions - segment + 1, channels)."""
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


def convolve_map(values: Tensor, step: Step, strategy: Strategy, weights: Weights) -> Tensor:
    """Run a convolution, its bias and its activation on lifted maps."""
    layer, columns = step.layer, step.columns
    assert isinstance(layer, KernelConvolution)
    assert columns is not None
    activation = keras.activations.get(layer.activation)
    if not isinstance(strategy, Parallel):
        assert step.rows is not None
        values = _correlate(values, weights["kernel"], step.rows, columns)
        return activation(values + weights["bias"] if layer.bias else values)
    row = Axis(size=1, taps=1, stride=1, dilation=1, start=0, count=1)
    outputs = []
    bank = _bank(weights["kernel"], strategy)
    for number in range(bank.shape[0]):
        own = values[:, number : number + 1] if step.inputs[0] > 1 else values
        output = _correlate(own, bank[number : number + 1], row, columns)
        outputs.append(activation(output + weights["bias"][number] if layer.bias else output))
    return _aggregate(ops.stack(outputs, axis=-2), strategy)


def _padded(values: Tensor, rows: Axis, columns: Axis, fill: float = 0.0) -> Tensor:
    """Pad the map with ``fill``, and leave out the positions that no output reads."""
    cuts, widths = [], [(0, 0)]
    for axis in (rows, columns):
        before, after = axis.padding
        cuts.append(slice(max(-before, 0), axis.size - max(-after, 0)))
        widths.append((max(before, 0), max(after, 0)))
    values = values[:, cuts[0], cuts[1]]
    padded = rows.padded or columns.padded
    return ops.pad(values, [*widths, (0, 0)], constant_values=fill) if padded else values


def _correlate(values: Tensor, kernel: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """2D correlation of maps."""
    values = _padded(values, rows, columns)
    strides, dilation = (rows.stride, columns.stride), (rows.dilation, columns.dilation)
    if max(strides) > 1 and max(dilation) > 1:  # TensorFlow has no such convolution
        values = ops.conv(values, kernel, padding="valid", dilation_rate=dilation)
        return values[:, :: strides[0], :: strides[1]]
    return ops.conv(values, kernel, strides=strides, padding="valid", dilation_rate=dilation)


def pool_map(values: Tensor, step: Step) -> Tensor:
    """Maximum or mean of each patch of lifted maps, padding left out."""
    layer, rows, columns = step.layer, step.rows, step.columns
    assert isinstance(layer, KernelPooling)
    assert rows is not None
    assert columns is not None
    size, strides = (rows.taps, columns.taps), (rows.stride, columns.stride)
    if layer.statistic == "max":
        return ops.max_pool(_padded(values, rows, columns, -np.inf), size, strides, "valid")
    means = ops.average_pool(_padded(values, rows, columns), size, strides, "valid")
    share = size[0] * size[1] / np.multiply.outer(_counts(rows), _counts(columns))
    return means * ops.convert_to_tensor(share[:, :, None], dtype=values.dtype)


def _counts(axis: Axis) -> Any:
    """How many input positions each output position reads."""
    return np.array([len(axis.acting(position)) for position in range(axis.count)])


def moments_of_map(values: Tensor, over: str) -> tuple[Tensor, Tensor]:
    """Mean and variance of lifted maps over the batch, each window, or the channels of each element."""
    axes = {"batch": (0, 1, 2), "window": (1, 2), "channels": (3,)}[over]
    mean, variance = ops.moments(values, axes=axes, keepdims=over != "batch")
    return mean, variance


def features_of_map(values: Tensor, head: str, strategy: Strategy) -> Tensor:
    """Apply the head to lifted maps: (batch, features)."""
    if head == "mean":
        return ops.mean(values, axis=(1, 2))
    if head == "max":
        return ops.max(values, axis=(1, 2))
    if head == "last":
        values = values[:, -1:] if isinstance(strategy, Column) else values[:, :, -1:]
    return ops.reshape(values, (-1, int(np.prod(values.shape[1:]))))


# --- shared -----------------------------------------------------------------------------------------------


def _bank(kernel: Tensor, strategy: Parallel) -> Tensor:
    """Return the parallel filters of a 2D kernel: (filters, length, channels, outputs)."""
    return kernel if filter_axis(strategy) == 0 else ops.transpose(kernel, (1, 0, 2, 3))


def _aggregate(outputs: Tensor, strategy: Parallel) -> Tensor:
    """Join the outputs of parallel filters, which are the last axis but one."""
    if strategy.aggregate == "concatenate":
        return ops.reshape(outputs, (*ops.shape(outputs)[:-2], outputs.shape[-2] * outputs.shape[-1]))
    reductions: dict[str, Callable[..., Tensor]] = {"mean": ops.mean, "sum": ops.sum, "max": ops.max}
    return reductions[strategy.aggregate](outputs, axis=-2)


def normalize(
    values: Tensor, layer: KernelNormalization, weights: Weights, mean: Tensor, variance: Tensor
) -> Tensor:
    """Normalize by the given moments, then apply the learned scale and shift."""
    return (values - mean) * ops.rsqrt(variance + layer.epsilon) * weights["scale"] + weights["shift"]


def linear(values: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply the last axis by a kernel of shape (channels, outputs), as one matrix."""
    product = tf.matmul(tf.reshape(values, (-1, kernel.shape[0])), kernel)
    if bias is not None:
        product = tf.nn.bias_add(product, bias)
    known = values.shape[1:-1]
    shape = (-1, *known) if None not in known else (*tf.unstack(tf.shape(values))[:-1],)
    return tf.reshape(product, (*shape, kernel.shape[1]))


def gelu(values: Tensor) -> Tensor:
    """Keras's exact gelu, ``x * Phi(x)``, in half the operations in single precision.

    TensorFlow's erf is good to 5e-9 in double precision, which then stays with Keras and its erfc.
    """
    if values.dtype != tf.float32:
        return keras.activations.gelu(values, approximate=False)
    return _single_gelu(values)


@tf.custom_gradient  # type: ignore[untyped-decorator]  # TensorFlow types no decorator
def _single_gelu(values: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    below = 0.5 + 0.5 * tf.math.erf(values * math.sqrt(0.5))

    def gradient(upstream: Tensor) -> Tensor:
        density = tf.exp(-0.5 * tf.square(values)) * (1.0 / math.sqrt(2.0 * math.pi))
        return upstream * (below + values * density)

    return values * below, gradient


def _activation(name: str | None) -> Callable[[Tensor], Tensor]:
    """Return Keras's activation, or our own where it is the same and quicker."""
    found: Callable[[Tensor], Tensor] = gelu if name == "gelu" else keras.activations.get(name)
    return found


# --- sequences --------------------------------------------------------------------------------------------


def _part(
    values: Tensor,
    start: int = 0,
    end: int = 0,
    *,
    sequence: int | None = None,
    channels: slice | None = None,
    every: int = 1,
) -> Tensor:
    """Cut out entries ``start`` to ``end``, of all sequences or one; ``end`` counts down from the last, 0.

    Not by indexing: the gradient of TensorFlow's strided slice takes twenty times as long.
    """
    # Sizes are given where they are known, or a graph of unknown length would forget them.
    begin: list[Any] = [0, 0, 0, 0]
    size: list[Any] = [-1, *(-1 if known is None else known for known in values.shape[1:])]
    one = sequence is not None and values.shape[1] > 1
    if start or end:
        begin[2], size[2] = start, ops.shape(values)[2] - start + end
    if one:
        begin[1], size[1] = sequence, 1
    if channels is not None:
        begin[3], size[3] = channels.start, channels.stop - channels.start
    if start or end or one or channels is not None:
        values = ops.slice(values, begin, size)
    return values if every == 1 else values[:, :, ::every]


def source_sequences(inputs: Tensor, program: Program, strategy: Strategy) -> Tensor:
    """Return the sequences that hold the lifted map of ``(batch, sessions, channels)``."""
    lifting = lifting_of(strategy)
    values = _spectra(inputs, lifting) if isinstance(lifting, Spectrogram) else ops.expand_dims(inputs, 1)
    return _part(values, program.start, -program.unused, every=program.thinning)


def _laid_out(values: Tensor, stage: Stage) -> Tensor:
    """Give each row a sequence of its own, where the stage reads them so."""
    layout = stage.incoming
    if stage.before == layout:
        return values
    over = layout.span - (layout.columns - 1) * layout.step
    rows = [
        _part(values, offset, offset - over, sequence=sequence, every=layout.step)
        for sequence, offset in sorted(set(layout.rows))
    ]
    return ops.concatenate(rows, axis=1)


def _prepared(values: Tensor, stage: Stage, fill: float = 0.0) -> Tensor:
    """Pad the sequences as the layer does, and by the entries that only unread outputs would need."""
    values = _laid_out(values, stage)
    before, after = stage.padding
    if before or after:
        values = ops.pad(values, [(0, 0), (0, 0), (before, after), (0, 0)], constant_values=fill)
    if stage.excess:
        values = ops.pad(values, [(0, 0), (0, 0), (0, stage.excess), (0, 0)])
    return values


def _entries(stage: Stage) -> int:
    """Entries of the prepared sequences, less one a window."""
    return stage.before.span + sum(stage.padding) + stage.excess


def _term(parts: Tensor, stage: Stage, term: Term, channels: slice | None = None) -> Tensor:
    """Cut out of the time-correlated input what one term adds."""
    end = term.start + stage.reach - _entries(stage) + (len(stage.taps) - 1) * stage.spacing
    return _part(parts, term.start, end, sequence=term.sequence, channels=channels, every=stage.thinning)


def convolve_sequences(values: Tensor, stage: Stage, strategy: Strategy, weights: Weights) -> Tensor:
    """Run a convolution, its bias and its activation on sequences."""
    layer = stage.step.layer
    assert isinstance(layer, KernelConvolution)
    activation = _activation(layer.activation)
    values = _prepared(values, stage)
    kernel, bias = weights["kernel"], weights.get("bias")
    if isinstance(strategy, Parallel):
        return _parallel(values, stage, strategy, kernel, bias, activation)
    methods = {"fold": _fold, "rows-as-channels": _rows_as_channels, "shift-add": _shift_add}
    values = methods[stage.method](values, stage, _acting(kernel, stage))
    # TensorFlow fuses a convolution with such a bias and a relu, not with a broadcast sum.
    return activation(values if bias is None else tf.nn.bias_add(values, bias))


def _acting(kernel: Tensor, stage: Stage) -> Tensor:
    """Return the kernel columns that act in time."""
    whole = len(stage.taps) == kernel.shape[1]
    return kernel if whole else kernel[:, stage.taps[0] : stage.taps[-1] + 1]


def _correlate_time(values: Tensor, kernel: Tensor, spacing: int, every: int) -> Tensor:
    """Correlate every sequence with a kernel of ``(taps, channels, filters)``."""
    sequences, kernel = values.shape[1], ops.expand_dims(kernel, 0)
    if spacing == 1:
        return ops.conv(values, kernel, strides=(1, every), padding="valid")
    values = ops.conv(values, kernel, padding="valid", dilation_rate=(1, spacing))
    # On a series of unknown length, TensorFlow's dilation forgets the other sizes too.
    values = ops.reshape(values, (-1, sequences, ops.shape(values)[2], kernel.shape[-1]))
    return values if every == 1 else values[:, :, ::every]


def _fold(values: Tensor, stage: Stage, kernel: Tensor) -> Tensor:
    """Fold the 2D kernel inside the graph, and correlate the one sequence that it reads."""
    size, spacing = folded_size(stage)
    height, width, channels, filters = kernel.shape
    count = len(stage.terms)
    places = np.zeros((size, count, height, width))
    for number, terms in enumerate(stage.terms):
        for term in terms:
            first = term.start - stage.first
            for tap in range(width):
                places[(first + tap * stage.spacing) // spacing, number, term.tap, tap] = 1.0
    kappa = ops.matmul(
        ops.convert_to_tensor(places.reshape(-1, height * width), dtype=kernel.dtype),
        ops.reshape(kernel, (height * width, channels * filters)),
    )
    kappa = ops.reshape(kappa, (size, count, channels, filters))
    kappa = ops.reshape(ops.transpose(kappa, (0, 2, 1, 3)), (size, channels, count * filters))
    end = stage.first + stage.reach + (size - 1) * spacing - _entries(stage)
    sequence = next(term.sequence for terms in stage.terms for term in terms)
    values = _part(values, stage.first, end, sequence=sequence)
    values = _correlate_time(values, kappa, spacing, stage.thinning)
    if count == 1:
        return values
    values = ops.reshape(values, (-1, ops.shape(values)[2], count, filters))
    return ops.transpose(values, (0, 2, 1, 3))


def _rows_as_channels(values: Tensor, stage: Stage, kernel: Tensor) -> Tensor:
    """Lay the rows that the kernel reads side by side as channels."""
    height, width, channels, filters = kernel.shape
    outputs = []
    for terms in stage.terms:
        rows = [
            _part(
                values,
                term.start,
                term.start + stage.reach + (width - 1) * stage.spacing - _entries(stage),
                sequence=term.sequence,
            )
            for term in terms
        ]
        taps = [term.tap for term in terms]
        own = kernel if taps == list(range(height)) else ops.take(kernel, np.array(taps), axis=0)
        own = ops.reshape(ops.transpose(own, (1, 0, 2, 3)), (width, len(terms) * channels, filters))
        joined = ops.concatenate(rows, axis=-1) if len(rows) > 1 else rows[0]
        outputs.append(_correlate_time(joined, own, stage.spacing, stage.thinning))
    return ops.concatenate(outputs, axis=1) if len(outputs) > 1 else outputs[0]


def _shift_add(values: Tensor, stage: Stage, kernel: Tensor) -> Tensor:
    """Correlate every sequence with every kernel row once, and add slices."""
    rows = sorted({term.tap for terms in stage.terms for term in terms})
    filters = kernel.shape[-1]
    if len(rows) < kernel.shape[0]:
        kernel = ops.take(kernel, np.array(rows), axis=0)
    parts = _correlate_rows(values, kernel, stage.spacing)
    outputs: list[Tensor | None] = []
    for terms in stage.terms:
        total = None
        for term in terms:
            place = rows.index(term.tap) * filters
            part = _term(parts, stage, term, slice(place, place + filters))
            total = part if total is None else total + part
        outputs.append(total)
    shape = next(output for output in outputs if output is not None)
    return ops.concatenate(
        [ops.zeros_like(shape) if output is None else output for output in outputs], axis=1
    )


def _correlate_rows(values: Tensor, kernel: Tensor, spacing: int) -> Tensor:
    """Correlate every sequence with every row of a kernel: (batch, sequences, entries, rows * filters)."""
    rows, width, channels, filters = kernel.shape
    flat = ops.reshape(ops.transpose(kernel, (1, 2, 0, 3)), (width, channels, rows * filters))
    return _correlate_time(values, flat, spacing, 1)


def _parallel(
    values: Tensor,
    stage: Stage,
    strategy: Parallel,
    kernel: Tensor,
    bias: Tensor | None,
    activation: Callable[[Tensor], Tensor],
) -> Tensor:
    """Run parallel filters on the sequence that each reads."""
    bank = _acting(_bank(kernel, strategy), stage)
    (terms,) = stage.terms
    number, filters = bank.shape[0], bank.shape[-1]
    if merged(stage, strategy):
        reduce = ops.mean if strategy.aggregate == "mean" else ops.sum
        values = _correlate_rows(values, reduce(bank, axis=0, keepdims=True), stage.spacing)
        values = _term(values, stage, terms[0])
        return values if bias is None else values + reduce(bias, axis=0)
    parts = _correlate_rows(values, bank, stage.spacing)
    if stage.step.inputs[0] == 1:
        parts = _term(parts, stage, terms[0])
    else:
        own = [
            _term(parts, stage, term, slice(term.tap * filters, (term.tap + 1) * filters)) for term in terms
        ]
        parts = ops.concatenate(own, axis=-1)
    parts = ops.reshape(parts, (-1, ops.shape(parts)[2], number, filters))
    outputs = activation(parts if bias is None else parts + bias)
    return ops.expand_dims(_aggregate(outputs, strategy), 1)


def pool_sequences(values: Tensor, stage: Stage) -> Tensor:
    """Maximum or mean of each patch: along time first, then over rows."""
    layer, columns = stage.step.layer, stage.step.columns
    assert isinstance(layer, KernelPooling)
    assert columns is not None
    largest = layer.statistic == "max"
    values = _prepared(values, stage, -np.inf if largest else 0.0)
    values = _running(values, len(stage.taps), stage.spacing, largest)
    outputs = []
    for terms in stage.terms:
        parts = [_term(values, stage, term) for term in terms]
        count = len(parts) * (_counts(columns) if any(stage.padding) else np.array([len(stage.taps)]))
        joined = _joined(parts, largest)
        outputs.append(joined if largest else joined / ops.convert_to_tensor(count[:, None], joined.dtype))
    return ops.concatenate(outputs, axis=1) if len(outputs) > 1 else outputs[0]


def _joined(parts: Sequence[Tensor], largest: bool) -> Tensor:
    """Maximum or sum of tensors."""
    total = parts[0]
    for part in parts[1:]:
        total = ops.maximum(total, part) if largest else total + part
    return total


def _running(values: Tensor, count: int, spacing: int, largest: bool) -> Tensor:
    """Maximum or sum of ``count`` entries, ``spacing`` apart, from each on: built by doubling."""
    total, done, power, width = None, 0, values, 1
    while True:
        if count & width:
            part = _part(power, done * spacing, (done + width - count) * spacing)
            total = part if total is None else _joined([total, part], largest)
            done += width
        if done == count:
            return total
        power = _joined([_part(power, 0, -width * spacing), _part(power, width * spacing)], largest)
        width *= 2


def moments_of_sequences(
    values: Tensor, layout: Layout, over: str, windows: Tensor | int
) -> tuple[Tensor, Tensor]:
    """Mean and variance of the lifted maps that sequences hold: each entry counts as often as it is used."""
    if over == "channels":
        return moments_of_map(values, over)
    counts = layout.multiplicity()
    # How often all windows together use each entry: every window adds its own counts.
    ones = ops.pad(ops.ones((1, windows, 1), dtype=values.dtype), [(0, 0), (layout.span,) * 2, (0, 0)])
    kernel = ops.convert_to_tensor(counts[:, ::-1].T[:, None, :], dtype=values.dtype)
    uses = ops.expand_dims(ops.transpose(ops.conv(ones, kernel, padding="valid"), (0, 2, 1)), -1)
    total = ops.sum(uses)

    def mean_of(entries: Tensor) -> Tensor:
        means = ops.sum(entries * uses, axis=(1, 2), keepdims=True) / total
        return ops.mean(means, axis=0, keepdims=True) if over == "batch" else means

    mean = mean_of(values)
    variance = mean_of(ops.square(values - mean))
    if over == "batch":
        channels = (values.shape[-1],)
        return ops.reshape(mean, channels), ops.reshape(variance, channels)
    return mean, variance


def features_of_sequences(
    values: Tensor, layout: Layout, head: str, strategy: Strategy, projection: Tensor | None = None
) -> Tensor:
    """Apply the head to sequences, and a projection of the features behind it: (batch, windows, features)."""
    if projection is not None and head != "mean":
        return ops.matmul(features_of_sequences(values, layout, head, strategy), projection)
    if head in ("mean", "max"):
        largest = head == "max"
        if projection is not None:  # of the mean is the mean of it, over fewer channels
            values = linear(values, projection)
        values = _running(values, layout.columns, layout.step, largest)
        over = layout.span - (layout.columns - 1) * layout.step
        parts = []
        for (sequence, offset), uses in Counter(layout.rows).items():
            part = _part(values, offset, offset - over, sequence=sequence)
            parts.append(part if largest or uses == 1 else part * uses)
        joined = ops.squeeze(_joined(parts, largest), axis=1)
        return joined if largest else joined / (len(layout.rows) * layout.columns)
    columns, rows = range(layout.columns), layout.rows
    if head == "last":
        rows, columns = (rows[-1:], columns) if isinstance(strategy, Column) else (rows, columns[-1:])
    steps = [(sequence, offset + column * layout.step) for sequence, offset in rows for column in columns]
    parts = [_part(values, entry, entry - layout.span, sequence=sequence) for sequence, entry in steps]
    return ops.squeeze(ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0], axis=1)
