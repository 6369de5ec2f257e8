"""A kernel stack as a program on 1D sequences, exact for any lifting; no TensorFlow.

Liftings repeat: most rows of a lifted map are one another's delayed copies, and the maps of neighbouring
windows overlap. A map is therefore held as a few *sequences*, and a `Layout` that says where its elements lie
in them. With ``y_g`` the sequence and ``o_r`` the offset of input row r, a convolution gives output row i

    Y_i[n] = bias + sum over the acting kernel rows a of P_a[n + o_r],   P_a = y_g correlated with K[a]

so two output rows whose acting rows have the same sequences, and the same offsets but for one common delay,
are one sequence. Evenly spaced lags keep a single sequence at any depth, replicated rows too; a kernel of
full height returns to one; zero rows at the edge, or uneven lags, set rows apart. The sums are computed in
the way that costs least:

- *fold*: correlate with the folded kernel ``kappa[m] = sum of K[a, b] over b * dilation + o_r = m``;
- *rows-as-channels*: lay the rows that the kernel reads side by side;
- *shift-add*: P once, then sums of its slices, whatever the lags and however many output rows.

On a whole series, entry ``k`` of the sequences serves window ``k``: one pass computes every window, and a
stride becomes the step between the entries that later layers read. On a single window only the entries that
its map holds are kept and, under a head that takes the last step, only those that it depends on.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from forecaster.errors import ParameterError
from forecaster.kernels import Folding, Parallel
from forecaster.kernels.folding import fold_placed, join_bank
from forecaster.liftings import CalendarFold, Column, Placement, Spectrogram
from forecaster.models.convolution.geometry import (
    Axis,
    KernelConvolution,
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

__all__ = ["Layout", "Program", "Stage", "Term", "compile_program", "first_folding"]


class Term(NamedTuple):
    """One summand of an output sequence.

    Attributes
    ----------
    tap : int
        Kernel row, or number of the parallel filter.
    sequence : int
        Input sequence.
    start : int
        Entry of the time-correlated input that entry 0 of the output reads.
    """

    tap: int
    sequence: int
    start: int


@dataclass(frozen=True)
class Layout:
    """Where the elements of a feature map lie in 1D sequences.

    Element (row, column) of window ``k`` is entry ``k + offset + column * step`` of its sequence.

    Attributes
    ----------
    rows : tuple of (int, int)
        Sequence and offset of each row.
    columns : int
        Columns of the map.
    step : int
        Entries between neighbouring columns.
    """

    rows: tuple[tuple[int, int], ...]
    columns: int
    step: int

    @property
    def sequences(self) -> int:
        """Number of sequences."""
        return 1 + max(sequence for sequence, _ in self.rows)

    @property
    def span(self) -> int:
        """Entries that one window needs, less one: n windows need ``n + span``."""
        return max(offset for _, offset in self.rows) + (self.columns - 1) * self.step

    def multiplicity(self) -> npt.NDArray[np.float64]:
        """How many elements of one window's map each entry is, shape (sequences, 1 + span)."""
        counts = np.zeros((self.sequences, 1 + self.span))
        for sequence, offset in self.rows:
            counts[sequence, offset : offset + (self.columns - 1) * self.step + 1 : self.step] += 1
        return counts

    @property
    def aligned(self) -> bool:
        """Whether the entries of a single window are its columns."""
        return all(offset == 0 for _, offset in self.rows) and (self.step == 1 or self.columns == 1)


Method = Literal["pointwise", "fold", "rows-as-channels", "shift-add", "bank", "pool"]


@dataclass(frozen=True)
class Stage:
    """One layer, as an operation on sequences.

    Attributes
    ----------
    step : Step
        The layer and the map that it reads.
    incoming, before, after : Layout
        Of the input as it comes, of the input as it is read, and of the output. The first two differ when
        each row must first be laid out by itself.
    method : str
        How the output sequences are computed.
    terms : tuple of tuples of Term
        Summands of each output sequence. Empty for a layer that works element by element.
    taps : tuple of int
        Kernel columns that act in time.
    spacing : int
        Entries between neighbouring kernel columns.
    padding : tuple of int
        Zeros put before and after each sequence; on single windows only.
    reach : int
        n windows compute ``n + reach`` entries of each output sequence, before thinning.
    thinning : int
        Of the computed entries, every how many-th is kept; on single windows only.
    cost : int
        Multiply-adds: of one window, or on a series of one more window.
    """

    step: Step
    incoming: Layout
    before: Layout
    after: Layout
    method: Method
    terms: tuple[tuple[Term, ...], ...] = ()
    taps: tuple[int, ...] = (0,)
    spacing: int = 1
    padding: tuple[int, int] = (0, 0)
    reach: int = 0
    thinning: int = 1
    cost: int = 0

    @property
    def first(self) -> int:
        """Smallest start of any term."""
        return min((term.start for terms in self.terms for term in terms), default=0)

    @property
    def folded_offsets(self) -> tuple[int, ...]:
        """Offsets, from `first`, of every tap of the folded kernels."""
        return tuple(
            sorted(
                {
                    term.start - self.first + number * self.spacing
                    for terms in self.terms
                    for term in terms
                    for number in range(len(self.taps))
                }
            )
        )

    @property
    def excess(self) -> int:
        """Entries by which the longest output sequence would read past the end of the input."""
        last = max((term.start for terms in self.terms for term in terms), default=0)
        needed = last + self.reach + (len(self.taps) - 1) * self.spacing
        return max(needed - self.before.span - sum(self.padding), 0)


@dataclass(frozen=True)
class Program:
    """A kernel stack on sequences.

    Attributes
    ----------
    source : Layout
        Of the lifted map.
    start, unused : int
        Entries of the series (or of its spectra) before the first, and after the last, that the maps hold.
    thinning : int
        Of those in between, every how many-th is kept; on single windows only.
    stages : tuple of Stage
        One a layer.
    """

    source: Layout
    start: int
    unused: int
    thinning: int
    stages: tuple[Stage, ...]

    @property
    def result(self) -> Layout:
        """Layout of the last map."""
        return self.stages[-1].after


def compile_program(
    strategy: Strategy, lookback: int, steps: Sequence[Step], head: str, channels: int, *, window: bool
) -> Program | None:
    """Write the program of a kernel stack.

    Parameters
    ----------
    strategy : Strategy
        The lifting, or parallel filters.
    lookback : int
        Sessions of a window, without the history.
    steps : sequence of Step
        As `trace` gives them.
    head : str
        What is kept of the last map.
    channels : int
        Channels of the series.
    window : bool
        For a single window at a time; otherwise for all windows of a series in one pass.

    Returns
    -------
    Program or None
        None when there is none for a series: a layer reads or makes something that belongs to one window.
    """
    skipped = lookback - _needed_lookback(strategy, lookback, steps, head)
    lookback -= skipped
    steps = trace(strategy, lookback, [step.layer for step in steps])
    rows, columns, step = _source(strategy, lookback)
    (start, *_), layout = _normalized(rows, columns, step)
    entries = lookback if isinstance(lifting_of(strategy), Spectrogram) else lookback + history_of(strategy)
    unused = entries - 1 - start - layout.span
    thinning = 1
    if window:
        layout, thinning = _thinned(layout)
    source = layout
    stages = []
    for each in steps:
        stage = _stage(each, layout, strategy, channels, window=window)
        if stage is None:
            return None
        stages.append(stage)
        layout = stage.after
        if isinstance(each.layer, KernelConvolution):
            channels = output_channels(each.layer, strategy)
    return Program(source, start + skipped, unused, thinning, tuple(stages))


def _needed_lookback(strategy: Strategy, lookback: int, steps: Sequence[Step], head: str) -> int:
    """Sessions of the lookback that the head depends on: less than all where it takes the last step."""
    lifting = lifting_of(strategy)
    if head != "last" or isinstance(lifting, CalendarFold):
        return lookback
    if isinstance(strategy, Parallel) and isinstance(lifting, Column):
        return lookback  # a filter a session
    needed = 1
    for step in reversed(steps):
        if isinstance(step.layer, KernelNormalization) and step.layer.over != "channels":
            return lookback  # its statistics are those of the whole map
        axis = step.rows if isinstance(strategy, Column) else step.columns
        if axis is None:
            continue
        if axis.padded:
            return lookback
        needed = (needed - 1) * axis.stride + (axis.taps - 1) * axis.dilation + 1
    return (needed - 1) * (lifting.hop if isinstance(lifting, Spectrogram) else 1) + 1


def _source(strategy: Strategy, lookback: int) -> tuple[list[tuple[int, int]], int, int]:
    """Rows (sequence, offset in the window), columns and step of the lifted map."""
    lifting = lifting_of(strategy)
    rows, columns = lifting.shape(lookback)
    if isinstance(lifting, Spectrogram):
        return [(band, (lookback - 1) % lifting.hop) for band in range(rows)], columns, lifting.hop
    assert isinstance(lifting, Placement)
    newest = lookback + lifting.history - columns
    return [(0, newest - lag) for lag in lifting.row_lags(lookback)], columns, 1


def _normalized(rows: Sequence[tuple[int, int]], columns: int, step: int) -> tuple[tuple[int, ...], Layout]:
    """Let every sequence begin with the first entry that is needed; return how much each loses."""
    trims: dict[int, int] = {}
    for sequence, offset in rows:
        trims[sequence] = min(offset, trims.get(sequence, offset))
    layout = Layout(tuple((sequence, offset - trims[sequence]) for sequence, offset in rows), columns, step)
    return tuple(trims[sequence] for sequence in sorted(trims)), layout


def _stage(step: Step, layout: Layout, strategy: Strategy, channels: int, *, window: bool) -> Stage | None:
    """Write one layer as an operation on sequences."""
    layer = step.layer
    if not isinstance(layer, KernelConvolution | KernelPooling):
        if not window and needs_window(step):
            return None
        entries = layout.sequences * (1 + layout.span if window else 1)
        return Stage(step, layout, layout, layout, "pointwise", cost=entries * channels)
    assert step.columns is not None
    columns, taps = step.columns, tuple(range(step.columns.taps))
    if columns.padded and columns.size == 1:
        # A single column: the one tap that meets it acts, and no padding is needed.
        taps = tuple(tap for tap, _ in columns.acting(0))
        columns = Axis(size=1, taps=1, stride=1, dilation=1, start=0, count=1)
    before = layout
    if columns.padded:
        if not window:
            return None
        if not layout.aligned:
            distinct = sorted(set(layout.rows))
            before = Layout(tuple((distinct.index(row), 0) for row in layout.rows), layout.columns, 1)
    inside = 0 if columns.padded else columns.start * before.step
    signatures, placed = _output_rows(step, before, strategy, inside)
    trims, after = _normalized(placed, columns.count, before.step * columns.stride)
    terms = tuple(
        tuple(Term(tap, sequence, start + trim) for tap, sequence, start in signature)
        for signature, trim in zip(signatures, trims, strict=True)
    )
    stage = Stage(
        step,
        layout,
        before,
        after,
        "pool",
        terms,
        taps,
        columns.dilation * before.step,
        columns.padding if columns.padded else (0, 0),
        after.span,
    )
    if window:
        kept, thinning = _thinned(after)
        stage = replace(stage, after=kept, thinning=thinning)
    return _with_method(stage, strategy, channels, window=window)


def needs_window(step: Step) -> bool:
    """Whether a layer uses the statistics of one window."""
    return getattr(step.layer, "over", None) == "window"


def _output_rows(
    step: Step, before: Layout, strategy: Strategy, inside: int
) -> tuple[list[tuple[Term, ...]], list[tuple[int, int]]]:
    """Find the distinct output sequences, and the (sequence, offset) of every output row."""
    if step.rows is None:  # parallel filters: one output row, a term a filter
        assert isinstance(strategy, Parallel)
        assert isinstance(step.layer, KernelConvolution)
        filters = step.layer.kernel[filter_axis(strategy)]
        acting = [tuple((number, number if step.inputs[0] > 1 else 0) for number in range(filters))]
    else:
        acting = [step.rows.acting(row) for row in range(step.rows.count)]
    pooling = isinstance(step.layer, KernelPooling)
    signatures: dict[Hashable, int] = {}
    found: list[tuple[Term, ...]] = []
    placed = []
    for pairs in acting:
        lead = min((before.rows[row][1] for _, row in pairs), default=0)
        terms = [Term(tap, before.rows[row][0], before.rows[row][1] - lead) for tap, row in pairs]
        if pooling:  # every row of a patch weighs the same
            terms = sorted(term._replace(tap=0) for term in terms)
        signature = tuple(terms)
        if signature not in signatures:
            signatures[signature] = len(found)
            found.append(signature)
        placed.append((signatures[signature], lead + inside))
    return found, placed


def _thinned(layout: Layout) -> tuple[Layout, int]:
    """Keep only the entries that the map of a single window holds: every how many-th."""
    step = layout.step if layout.columns > 1 else 0
    thinning = math.gcd(step, *(offset for _, offset in layout.rows)) or 1
    rows = tuple((sequence, offset // thinning) for sequence, offset in layout.rows)
    return Layout(rows, layout.columns, step // thinning or 1), thinning


def _with_method(stage: Stage, strategy: Strategy, channels: int, *, window: bool) -> Stage:
    """Choose the cheapest way to compute a stage, and count its multiply-adds."""
    layer, taps = stage.step.layer, len(stage.taps)
    computed = 1 + stage.reach if window else 1
    correlated = 1 + stage.before.span + sum(stage.padding) - (taps - 1) * stage.spacing if window else 1
    summands = sum(len(terms) for terms in stage.terms)
    if isinstance(layer, KernelPooling):
        cost = stage.before.sequences * (taps - 1) * correlated + (summands - len(stage.terms)) * computed
        return replace(stage, cost=cost * channels)
    assert isinstance(layer, KernelConvolution)
    weights = channels * layer.filters
    if stage.step.rows is None:
        assert isinstance(strategy, Parallel)
        if merged(stage, strategy):
            return replace(stage, method="bank", cost=taps * weights * _kept(stage, computed))
        cost = stage.before.sequences * summands * taps * weights * correlated
        return replace(stage, method="bank", cost=cost)
    rows = len({term.tap for terms in stage.terms for term in terms})
    adding = rows * stage.before.sequences * taps * weights * correlated
    adding += summands * layer.filters * computed
    strided = _kept(stage, computed)
    costs: dict[Method, int] = {}
    if len({term.sequence for terms in stage.terms for term in terms}) == 1:
        size, spacing = folded_size(stage)
        costs["fold"] = size * len(stage.terms) * weights * (strided if spacing == 1 else computed)
    if all(stage.terms):
        entries = strided if stage.spacing == 1 else computed
        costs["rows-as-channels"] = summands * taps * weights * entries
    costs["shift-add"] = adding
    method = min(costs, key=costs.__getitem__)
    return replace(stage, method=method, cost=costs[method])


def merged(stage: Stage, strategy: Parallel) -> bool:
    """Whether parallel filters can be summed before they act: all read one row, linearly."""
    layer = stage.step.layer
    assert isinstance(layer, KernelConvolution)
    linear = layer.activation is None and strategy.aggregate in ("mean", "sum")
    return linear and stage.step.inputs[0] == 1


def folded_size(stage: Stage) -> tuple[int, int]:
    """Return the taps of the folded kernels, zeros between included, and the entries between them."""
    offsets = stage.folded_offsets
    spacing = math.gcd(*offsets) or 1
    return (offsets[-1] // spacing + 1 if offsets else 0), spacing


def _kept(stage: Stage, computed: int) -> int:
    """Entries that are left after thinning."""
    return -(-computed // stage.thinning)


def first_folding(
    strategy: Strategy,
    lookback: int,
    step: Step,
    kernel: npt.NDArray[np.floating[Any]],
    bias: npt.NDArray[np.floating[Any]] | None,
) -> Folding:
    """Fold the first convolution of a stack, as placed and padded there, to kernels on the series.

    Parameters
    ----------
    strategy, lookback
        Of the stack.
    step : Step
        Its first.
    kernel : ndarray of shape (rows, time, channels, filters)
        The trained kernel.
    bias : ndarray of shape (filters,), or (parallel filters, filters) for `Parallel`, or None
        The trained bias.

    Returns
    -------
    Folding
        Parallel filters stand side by side, before they are aggregated.

    Raises
    ------
    ParameterError
        When the lifting does not place sessions: a spectrogram has no linear kernel on the series.
    """
    lifting, columns = lifting_of(strategy), step.columns
    if not isinstance(lifting, Placement):
        raise ParameterError(
            f"Only a lifting that places sessions has kernels on the series. Received: {lifting!r}."
        )
    assert columns is not None
    taps, rows = np.asarray(kernel, dtype=np.float64), step.rows
    if rows is None:
        assert isinstance(strategy, Parallel)
        taps = taps if filter_axis(strategy) == 0 else taps.swapaxes(0, 1)
        taps, number = join_bank(taps, "concatenate"), len(taps)
        acting_rows = [tuple((tap, tap if step.inputs[0] > 1 else 0) for tap in range(number))]
    else:
        acting_rows = [rows.acting(row) for row in range(rows.count)]
    shift = np.zeros(taps.shape[3]) if bias is None else np.asarray(bias, dtype=np.float64).ravel()
    lags = lifting.row_lags(lookback)
    row_terms = tuple(tuple((tap, lags[row]) for tap, row in pairs) for pairs in acting_rows)
    # Where a tap acts, it reads the session of its place: what is padded reads nothing.
    column_terms = [
        tuple((tap, tap * columns.dilation) for tap, _ in columns.acting(column))
        for column in range(columns.count)
    ]
    sessions = lookback + lifting.history
    start = sessions - columns.size + columns.start
    return fold_placed(
        taps, row_terms, column_terms, columns.dilation, shift, 0.0, sessions, start, columns.stride
    )
