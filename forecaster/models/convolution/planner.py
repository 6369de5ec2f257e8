"""The choice of how to compute a kernel stack, with the reasons and the costs; no TensorFlow."""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from forecaster.errors import ParameterError
from forecaster.kernels import Parallel
from forecaster.liftings import Column, Placement, Row, Spectrogram, check_choice, check_integer
from forecaster.models.convolution.folding import Program, Stage, compile_program, merged, needs_window
from forecaster.models.convolution.geometry import (
    EXECUTIONS,
    HEADS,
    KernelConvolution,
    KernelLayer,
    KernelNormalization,
    KernelPooling,
    Step,
    Strategy,
    filter_axis,
    history_of,
    lifting_of,
    output_channels,
    trace,
)

__all__ = [
    "Control",
    "Cost",
    "LayerPlan",
    "Plan",
    "Reason",
    "check_execution",
    "match_parameters",
    "plan",
]


class Reason(enum.Enum):
    """Why a stack, or a layer of it, is not computed in the cheapest way there is."""

    ZERO_TIME_PADDING = "'same' pads each window with zeros in time, so neighbouring windows share no map"
    WINDOW_STATISTICS = "mean and variance are those of one window, so neighbouring windows share no map"
    ROWS_LAID_OUT = "zeros are padded in time to rows of different delays, so each row is laid out by itself"
    ROW_PADDING = "rows of zeros beside the map set the rows near its edge apart"
    UNEVEN_LAGS = "rows whose lags are not evenly spaced do not share a sequence"
    SPECTRUM = "the bands of a spectrum are different sequences"
    ROWS_APART = "an earlier layer has set the rows apart"
    AFTER_NONLINEARITY = "parallel filters are joined after a nonlinearity, so they do not sum to one filter"
    NO_SAVING = "folding the windows would cost no less than lifting them"
    AS_ASKED = "this execution was asked for"

    @property
    def blocks_series(self) -> bool:
        """Whether it rules out one pass over the series; the others only make it cost more."""
        return self in (Reason.ZERO_TIME_PADDING, Reason.WINDOW_STATISTICS)


@dataclass(frozen=True)
class Cost:
    """Multiply-adds.

    Attributes
    ----------
    lifted, folded : int
        Of one window, computed by itself.
    series : int or None
        Of one more window, when all are computed in one pass; None when they cannot be.
    """

    lifted: int
    folded: int
    series: int | None

    def __str__(self) -> str:
        series = "-" if self.series is None else f"{self.series:,}"
        return f"lifted {self.lifted:,}, folded {self.folded:,}, series {series}"


@dataclass(frozen=True)
class LayerPlan:
    """How one layer is computed.

    Attributes
    ----------
    layer : KernelLayer
        The layer.
    inputs, outputs : tuple of int
        Rows, columns and channels of the map of one window, before and after the layer.
    window, series : str
        How the layer is computed on windows, and on a series: "lifted", or on sequences by "fold",
        "shift-add", "bank" (parallel filters), "pool" or "pointwise".
    sequences : int
        Sequences that hold the output map when it is not lifted; 1 when all rows are delayed copies.
    receptive_field : int
        Sessions from the oldest to the newest that one element of the output may depend on.
    parameters : int
        Trained weights.
    cost : Cost
        Of this layer.
    reasons : tuple of Reason
        Why it is not computed more cheaply.
    """

    layer: KernelLayer
    inputs: tuple[int, int, int]
    outputs: tuple[int, int, int]
    window: str
    series: str
    sequences: int
    receptive_field: int
    parameters: int
    cost: Cost
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Plan:
    """How a kernel stack is computed, and why.

    Attributes
    ----------
    window : {"lifted", "folded"}
        Execution of a call on windows.
    series : {"series", "folded", "lifted"}
        Execution on a whole series: in one pass, or window by window.
    features : int
        Features of one window.
    sessions : int
        Sessions of one window: lookback and history.
    memory : int
        Sessions, back from the newest, that the features depend on; at most ``sessions``.
    parameters : int
        Trained weights.
    cost : Cost
        Of all layers and the head.
    reasons : tuple of Reason
        Why the stack as a whole is computed so.
    layers : tuple of LayerPlan
        One a layer.
    """

    window: str
    series: str
    features: int
    sessions: int
    memory: int
    parameters: int
    cost: Cost
    reasons: tuple[Reason, ...]
    layers: tuple[LayerPlan, ...]

    def explain(self) -> str:
        """Say in a few lines how the stack is computed, what it costs and why."""
        lines = [
            f"windows {self.window}, series {self.series}; {self.parameters:,} parameters; "
            f"{self.features} features from the last {self.memory} of {self.sessions} sessions",
            f"multiply-adds a window: {self.cost}",
            *(f"  {reason.value}" for reason in self.reasons),
        ]
        for index, layer in enumerate(self.layers):
            rows, columns, channels = layer.outputs
            field = layer.receptive_field
            lines += [
                f"layer {index} {type(layer.layer).__name__}: {rows} x {columns} x {channels}, "
                f"{layer.sequences} sequence{'s' if layer.sequences > 1 else ''}, windows {layer.window}, "
                f"series {layer.series}",
                f"  receptive field {field} session{'s' if field > 1 else ''}; "
                f"{layer.parameters:,} parameters; multiply-adds a window: {layer.cost}",
                *(f"  {reason.value}" for reason in layer.reasons),
            ]
        return "\n".join(lines)


def plan(
    strategy: Strategy,
    lookback: int,
    layers: Sequence[KernelLayer],
    head: str = "last",
    execution: str = "auto",
    *,
    channels: int,
) -> Plan:
    """Choose how to compute a kernel stack.

    Parameters
    ----------
    strategy, lookback, layers, head, execution
        As `KernelStack` takes them.
    channels : int
        Channels of the series.

    Raises
    ------
    ParameterError
        When an argument breaks a rule, or when the execution asked for is impossible.
    """
    check_choice("head", head, HEADS)
    check_integer("channels", channels, 1)
    steps = trace(strategy, lookback, layers)
    check_execution(execution, steps)
    window = compile_program(strategy, lookback, steps, head, channels, window=True)
    assert window is not None
    series = compile_program(strategy, lookback, steps, head, channels, window=False)
    planned = _layers(strategy, lookback, steps, channels, window, series)
    cost = _total_cost(planned, window, series, head)
    chosen, reasons = _choose(execution, cost, planned)
    rows, columns, last = planned[-1].outputs
    features = {
        "last": columns if isinstance(strategy, Column) else rows,
        "flatten": rows * columns,
    }.get(head, 1) * last
    return Plan(
        window=chosen[0],
        series=chosen[1],
        features=features,
        sessions=lookback + history_of(strategy),
        memory=_memory(strategy, lookback, steps, head),
        parameters=sum(layer.parameters for layer in planned),
        cost=cost,
        reasons=reasons,
        layers=tuple(
            replace(
                layer,
                window=layer.window if chosen[0] == "folded" else "lifted",
                series={"series": layer.series, "folded": layer.window}.get(chosen[1], "lifted"),
            )
            for layer in planned
        ),
    )


def check_execution(execution: str, steps: Sequence[Step]) -> str:
    """Return ``execution`` when a stack can be computed so.

    Raises
    ------
    ParameterError
        When it is unknown; when it is "series" and a layer depends on where a window begins.
    """
    check_choice("execution", execution, EXECUTIONS)
    causes = [
        f"layer {index} ({type(step.layer).__name__}): {reason.value}"
        for index, step in enumerate(steps)
        for reason in _blocking(step)
    ]
    if execution == "series" and causes:
        raise ParameterError(
            "execution 'series' needs layers that do not depend on where a window begins; use 'auto'. "
            f"Received: {'; '.join(causes)}."
        )
    return execution


def _choose(
    execution: str, cost: Cost, layers: Sequence[LayerPlan]
) -> tuple[tuple[str, str], tuple[Reason, ...]]:
    """Return the executions of windows and of a series, and the reasons."""
    blocked = tuple(
        dict.fromkeys(reason for layer in layers for reason in layer.reasons if reason.blocks_series)
    )
    if execution in ("lifted", "folded"):
        return (execution, execution), (Reason.AS_ASKED,)
    cheaper = cost.folded < cost.lifted
    if execution == "series":
        return ("folded", "series"), (Reason.AS_ASKED,)
    each = "folded" if cheaper else "lifted"
    reasons = (*blocked, *(() if cheaper else (Reason.NO_SAVING,)))
    return (each, each if blocked else "series"), reasons


def _blocking(step: Step) -> Iterator[Reason]:
    """Reasons why a layer's output depends on where the window begins."""
    if step.columns is not None and step.columns.padded and step.columns.size > 1:
        yield Reason.ZERO_TIME_PADDING
    if needs_window(step):
        yield Reason.WINDOW_STATISTICS


def _reasons(stage: Stage, first: bool, strategy: Strategy) -> Iterator[Reason]:
    """Reasons why a layer costs more than one sequence would."""
    step = stage.step
    yield from _blocking(step)
    if stage.before != stage.incoming:
        yield Reason.ROWS_LAID_OUT
    if step.rows is None and isinstance(step.layer, KernelConvolution):
        assert isinstance(strategy, Parallel)
        if strategy.aggregate != "concatenate" and not merged(stage, strategy):
            yield Reason.AFTER_NONLINEARITY
    if not stage.terms or stage.after.sequences == 1:
        return
    if stage.incoming.sequences > 1:
        spectral = first and isinstance(lifting_of(strategy), Spectrogram)
        yield Reason.SPECTRUM if spectral else Reason.ROWS_APART
    if step.rows is not None and step.rows.padded:
        yield Reason.ROW_PADDING
    offsets = [offset for _, offset in stage.incoming.rows]
    if len({after - before for before, after in itertools.pairwise(offsets)}) > 1:
        yield Reason.UNEVEN_LAGS


def parameters_of(layer: KernelLayer, channels: int, strategy: Strategy) -> int:
    """Trained weights of a layer that reads ``channels`` channels."""
    if isinstance(layer, KernelConvolution):
        filters = layer.kernel[filter_axis(strategy)] if isinstance(strategy, Parallel) else 1
        return layer.filters * (math.prod(layer.kernel) * channels + filters * layer.bias)
    return 2 * channels if isinstance(layer, KernelNormalization) else 0


def _layers(
    strategy: Strategy,
    lookback: int,
    steps: Sequence[Step],
    channels: int,
    window: Program,
    series: Program | None,
) -> list[LayerPlan]:
    fields = _receptive_fields(strategy, lookback, steps)
    planned = []
    for index, (step, stage) in enumerate(zip(steps, window.stages, strict=True)):
        alike = None if series is None else series.stages[index]
        layer = step.layer
        after = output_channels(layer, strategy) if isinstance(layer, KernelConvolution) else channels
        planned.append(
            LayerPlan(
                layer=layer,
                inputs=(*step.inputs, channels),
                outputs=(*step.outputs, after),
                window=stage.method,
                series=stage.method if alike is None else alike.method,
                sequences=stage.after.sequences,
                receptive_field=fields[index].width,
                parameters=parameters_of(layer, channels, strategy),
                cost=Cost(
                    lifted=_lifted_cost(step, channels, after),
                    folded=stage.cost,
                    series=None if alike is None else alike.cost,
                ),
                reasons=tuple(_reasons(stage, index == 0, strategy)),
            )
        )
        channels = after
    return planned


def _lifted_cost(step: Step, channels: int, after: int) -> int:
    """Multiply-adds of one layer on the lifted map of one window."""
    elements = math.prod(step.outputs)
    if isinstance(step.layer, KernelConvolution):
        parallel = step.rows is None
        taps = 1 if parallel else math.prod(step.layer.kernel)
        filters = math.prod(step.layer.kernel) * step.layer.filters if parallel else after
        return elements * taps * channels * filters
    if isinstance(step.layer, KernelPooling):
        return elements * channels * (math.prod(step.layer.size) - 1)
    return elements * channels


def _total_cost(layers: Sequence[LayerPlan], window: Program, series: Program | None, head: str) -> Cost:
    """Sum over layers and head."""
    rows, columns, channels = layers[-1].outputs
    pooled = head in ("mean", "max")
    lifted = sum(layer.cost.lifted for layer in layers) + pooled * rows * columns * channels
    folded = sum(layer.cost.folded for layer in layers) + pooled * rows * columns * channels
    if series is None:
        return Cost(lifted, folded, None)
    # A running mean or maximum of n entries is built by doubling; then the rows are added.
    doubling = max(columns - 1, 0).bit_length() * series.result.sequences + rows
    total = sum(layer.cost.series or 0 for layer in layers) + pooled * doubling * channels
    return Cost(lifted, folded, total)


# --- what a feature depends on ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Field:
    """Oldest and newest session of the window that each row, plus each column, of a map depends on.

    The two add: element (i, j) depends on sessions ``rows[i][0] + columns[j][0]`` to ``rows[i][1] +
    columns[j][1]``.
    """

    rows: tuple[tuple[int, int], ...]
    columns: tuple[tuple[int, int], ...]

    @property
    def width(self) -> int:
        """Sessions of the element that depends on most."""
        return 1 + sum(max(newest - oldest for oldest, newest in axis) for axis in (self.rows, self.columns))


def _receptive_fields(strategy: Strategy, lookback: int, steps: Sequence[Step]) -> list[_Field]:
    """Follow what each element depends on through the layers."""
    lifting = lifting_of(strategy)
    rows, columns = lifting.shape(lookback)
    if isinstance(lifting, Spectrogram):
        first = (lookback - 1) % lifting.hop
        field = _Field(
            ((0, lifting.history),) * rows, tuple((first + j * lifting.hop,) * 2 for j in range(columns))
        )
    else:
        assert isinstance(lifting, Placement)
        newest = lookback + lifting.history - columns
        field = _Field(
            tuple((newest - lag,) * 2 for lag in lifting.row_lags(lookback)),
            tuple((j, j) for j in range(columns)),
        )
    fields = []
    for step in steps:
        if step.columns is not None:
            columns_read = [step.columns.acting(column) for column in range(step.columns.count)]
            rows_read = (
                [tuple(enumerate(range(step.inputs[0])))]
                if step.rows is None
                else [step.rows.acting(row) for row in range(step.rows.count)]
            )
            field = _Field(_hull(field.rows, rows_read), _hull(field.columns, columns_read))
        elif needs_window(step):
            everything = [tuple(enumerate(range(size))) for size in step.inputs]
            field = _Field(
                _hull(field.rows, [everything[0]] * step.inputs[0]),
                _hull(field.columns, [everything[1]] * step.inputs[1]),
            )
        fields.append(field)
    return fields


def _hull(
    ranges: Sequence[tuple[int, int]], read: Sequence[tuple[tuple[int, int], ...]]
) -> tuple[tuple[int, int], ...]:
    """Oldest and newest of what each output position reads; the last one's where it reads nothing."""
    return tuple(
        (min(ranges[place][0] for _, place in places), max(ranges[place][1] for _, place in places))
        if places
        else ranges[-1]
        for places in read
    )


def _memory(strategy: Strategy, lookback: int, steps: Sequence[Step], head: str) -> int:
    """Sessions, back from the newest, that the features depend on."""
    field = _receptive_fields(strategy, lookback, steps)[-1]
    rows, columns = field.rows, field.columns
    if head == "last":
        rows, columns = (rows[-1:], columns) if isinstance(strategy, Column) else (rows, columns[-1:])
    oldest = min(oldest for oldest, _ in rows) + min(oldest for oldest, _ in columns)
    return lookback + history_of(strategy) - oldest


# --- the control ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Control:
    """A flat Conv1D stack with as many parameters as a kernel stack, as nearly as possible.

    Attributes
    ----------
    layers : tuple of KernelLayer
        To run on the bare series, with kernels one row high.
    lookback : int
        All sessions that the kernel stack may see: its lookback and history.
    parameters : int
        Trained weights of the control.
    target : int
        Trained weights of the kernel stack.
    """

    layers: tuple[KernelLayer, ...]
    lookback: int
    parameters: int
    target: int


def match_parameters(
    strategy: Strategy, lookback: int, layers: Sequence[KernelLayer], *, channels: int
) -> Control:
    """Find the control of a kernel stack: the same depth, without the second dimension.

    Each kernel of height ``kh`` and width ``kw`` becomes one of width ``kh * kw`` on the bare series, which
    has exactly as many weights (parallel filters that are concatenated become so many more filters). Where
    such kernels are longer than the sessions allow, the widest are shortened until they fit, and the filters
    of all convolutions but the last are multiplied to make up for it; the last keeps its filters, so that
    what follows the stack keeps its size, unless it is the only one.

    Parameters
    ----------
    strategy, lookback, layers
        Of the kernel stack.
    channels : int
        Channels of the series.
    """
    check_integer("channels", channels, 1)
    steps = trace(strategy, lookback, layers)
    target = _count(layers, channels, strategy)
    sessions = lookback + history_of(strategy)
    flat = [_flattened(step, strategy) for step in steps]
    while not _fits(flat, sessions):
        flat = _shortened(flat)
    flat = _refilled(flat, channels, target)
    return Control(tuple(flat), sessions, _count(flat, channels, Row()), target)


def _count(layers: Sequence[KernelLayer], channels: int, strategy: Strategy) -> int:
    """Trained weights of a stack."""
    total = 0
    for layer in layers:
        total += parameters_of(layer, channels, strategy)
        if isinstance(layer, KernelConvolution):
            channels = output_channels(layer, strategy)
    return total


def _flattened(step: Step, strategy: Strategy) -> KernelLayer:
    """Return a layer without its second dimension."""
    layer = step.layer
    along = 0 if isinstance(strategy, Column) else 1
    if isinstance(layer, KernelConvolution):
        length, filters = math.prod(layer.kernel), layer.filters
        if isinstance(strategy, Parallel):
            along = 1
            if strategy.aggregate == "concatenate":
                filters = output_channels(layer, strategy)
                length = layer.kernel[1 - filter_axis(strategy)]
        return replace(
            layer,
            filters=filters,
            kernel=(1, length),
            strides=(1, layer.strides[along]),
            dilation=(1, layer.dilation[along]),
            padding=("valid", layer.padding[along]),
        )
    if isinstance(layer, KernelPooling):
        assert layer.strides is not None
        return replace(
            layer,
            size=(1, layer.size[along]),
            strides=(1, layer.strides[along]),
            padding=("valid", layer.padding[along]),
        )
    return layer


def _fits(layers: Sequence[KernelLayer], sessions: int) -> bool:
    try:
        trace(Row(), sessions, layers)
    except ParameterError:
        return False
    return True


def _shortened(layers: Sequence[KernelLayer]) -> list[KernelLayer]:
    """Return the layers with the longest kernel one session shorter."""
    kernels = {
        index: layer.kernel[1] for index, layer in enumerate(layers) if isinstance(layer, KernelConvolution)
    }
    longest = max(kernels, key=kernels.__getitem__)
    shorter = list(layers)
    layer = shorter[longest]
    assert isinstance(layer, KernelConvolution)
    if layer.kernel[1] == 1:
        raise ParameterError(
            "The control needs a lookback that its strides and pools leave something of. "
            f"Received: {list(layers)!r}."
        )
    shorter[longest] = replace(layer, kernel=(1, layer.kernel[1] - 1))
    return shorter


def _refilled(layers: Sequence[KernelLayer], channels: int, target: int) -> list[KernelLayer]:
    """Multiply the filters of the hidden convolutions until the parameters are nearest to the target."""
    convolutions = [index for index, layer in enumerate(layers) if isinstance(layer, KernelConvolution)]
    hidden = convolutions[:-1] or convolutions

    def scaled(thousandths: int) -> list[KernelLayer]:
        result = list(layers)
        for index in hidden:
            layer = result[index]
            assert isinstance(layer, KernelConvolution)
            result[index] = replace(layer, filters=max(round(layer.filters * thousandths / 1000), 1))
        return result

    def distance(candidate: Sequence[KernelLayer]) -> int:
        return abs(_count(candidate, channels, Row()) - target)

    best = scaled(1000)
    if distance(best) == 0:
        return best
    upper = 1000
    while _count(scaled(upper), channels, Row()) < target:
        upper *= 2
    for thousandths in range(upper // 2, upper + 1):
        best = min(best, scaled(thousandths), key=distance)
    return best
