"""The training and scoring engine, against Keras window by window on what is really lifted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import garch, prices

from forecaster.errors import NotFittedError, ParameterError
from forecaster.kernels import Parallel
from forecaster.liftings import CalendarFold, Column, Lagged, Replicate, Row, Spectrogram
from forecaster.models.convolution.chunks import MOST_ROWS, check_runs, cut_chunks, find_blocks, runs_of
from forecaster.models.convolution.geometry import KernelConvolution, KernelNormalization
from forecaster.models.convolution.inputs import network_channels
from forecaster.models.convolution.layers import KernelStack
from forecaster.models.convolution.model import ConvolutionForecaster
from forecaster.models.convolution.network import FEATURE_CLIP, Network, Objective, squared_error
from forecaster.models.convolution.rates import cosine_rates
from forecaster.models.convolution.targets import scale_loss, scale_objective
from forecaster.models.convolution.training import (
    Data,
    Schedule,
    Trainer,
    trainer_of,
)
from forecaster.prices.samples import SampleSource
from forecaster.walkforward import Fold, backtest, fit_windows, folds
from forecaster.windows import Panel, Windows

# isort: split
import keras
import tensorflow as tf

Array = np.ndarray[Any, np.dtype[Any]]

# --- chunks -------------------------------------------------------------------------------------------------


@st.composite
def ragged(draw: st.DrawFn) -> tuple[Array, Array, int]:
    """Offsets of a ragged panel, some of its rows with gaps, and the sessions of a window."""
    lengths = draw(st.lists(st.integers(1, 400), min_size=1, max_size=6))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    sessions = draw(st.integers(1, 40))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([1.0, 0.97, 0.3]))
    positions = np.concatenate([np.arange(length) for length in lengths])
    rows = np.flatnonzero((positions >= sessions - 1) & (generator.random(offsets[-1]) < share))
    return offsets, rows, sessions


@given(ragged(), st.sampled_from([64, 100, 256]), st.sampled_from([4, 7]), st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_every_origin_counts_once_and_no_chunk_crosses_a_boundary(
    panel: tuple[Array, Array, int], length: int, per_step: int, seed: int
) -> None:
    offsets, rows, sessions = panel
    runs = runs_of(np.random.default_rng(seed).permutation(rows), offsets)
    check_runs(runs, offsets, sessions)
    assert np.array_equal(np.concatenate([np.arange(a, b + 1) for a, b in runs] + [np.empty(0)]), rows)
    chunks = cut_chunks(runs, length, per_step, np.random.default_rng(seed))
    assert chunks.shape[1:] == (per_step, 3)
    counted = []
    for begin, first, last in chunks.reshape(-1, 3):
        if last < first:
            continue  # fills the last step
        counted.append(np.arange(first, last + 1))
        assert begin <= first <= last < begin + length
        series = np.searchsorted(offsets, [first - sessions + 1, first, last], side="right")
        assert len(set(series)) == 1
    together = np.concatenate(counted) if counted else np.empty(0)
    assert np.array_equal(np.sort(together), rows)
    empty = int((chunks[..., 2] < chunks[..., 1]).sum())
    assert empty < per_step


def test_each_epoch_is_cut_elsewhere_and_each_seed_repeats() -> None:
    runs = np.array([[10, 2000], [2100, 2150]])
    first, again = (cut_chunks(runs, 64, 4, np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(first, again)
    generator = np.random.default_rng(1)
    one, two = (np.sort(cut_chunks(runs, 64, 4, generator)[..., 0], axis=None) for _ in range(2))
    assert not np.array_equal(one, two)


def test_no_origins_give_no_chunks() -> None:
    runs = runs_of(np.empty(0, dtype=np.int64), np.array([0, 10]))
    assert cut_chunks(runs, 64, 4, np.random.default_rng(0)).shape == (0, 4, 3)


def test_rows_that_32_bits_cannot_count_are_refused_before_they_wrap_around() -> None:
    held = np.array([[MOST_ROWS - 10, MOST_ROWS - 1]])
    chunks = cut_chunks(held, 64, 4, np.random.default_rng(0))
    assert chunks[..., 0].min() > MOST_ROWS - 100
    expected = f"at most {MOST_ROWS} rows; split it. Received: {MOST_ROWS + 1}."
    with pytest.raises(ParameterError, match=expected):
        cut_chunks(held + 1, 64, 4, np.random.default_rng(0))
    offsets = np.array([0, MOST_ROWS])
    assert find_blocks(np.array([MOST_ROWS - 1]), offsets, 16, 2048)[0] < MOST_ROWS
    with pytest.raises(ParameterError, match=expected):
        find_blocks(np.array([20]), offsets + 1, 16, 2048)


@pytest.mark.parametrize("length", [64, 65, 255, 256])
@pytest.mark.parametrize("origins", [1, 2, 63, 64, 65, 255, 256, 257])
def test_runs_of_one_origin_of_a_chunk_and_of_one_more(origins: int, length: int) -> None:
    """Wherever the cut falls: runs of the lengths at which an origin would be lost or counted twice."""
    runs = np.array([[7, 6 + origins], [1000, 999 + origins], [2000, 2000]])
    for seed in range(40):
        chunks = cut_chunks(runs, length, 4, np.random.default_rng(seed)).reshape(-1, 3)
        counted = np.concatenate([np.arange(first, last + 1) for _, first, last in chunks])
        assert np.array_equal(np.sort(counted), np.concatenate([np.arange(a, b + 1) for a, b in runs]))
        assert (chunks[:, 0] <= chunks[:, 1]).all()
        assert (chunks[:, 2] < chunks[:, 0] + length).all()


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([3, 4, 4], "every origin is there once; drop the doubles. Received: row 4 twice."),
        ([3, 20], "origins are rows of the panel, from 0 to 19. Received: rows from 3 to 20."),
        ([-1, 3], "Received: rows from -1 to 3."),
    ],
)
def test_rows_that_are_no_origins(rows: list[int], text: str) -> None:
    with pytest.raises(ParameterError) as caught:
        runs_of(np.array(rows), np.array([0, 10, 20]))
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (
            [5, 12],
            "a run of origins lies within one series, its first row before its last. Received: rows [5, 12].",
        ),
        ([15, 14], "Received: rows [15, 14]."),
        ([15, 20], "Received: rows [15, 20]."),
        (
            [12, 14],
            "every origin needs 4 sessions up to it; start later or look back less. Received: an origin "
            "with 3.",
        ),
    ],
)
def test_runs_that_cannot_be_trained_on(run: list[int], text: str) -> None:
    with pytest.raises(ParameterError) as caught:
        check_runs(np.array([run]), np.array([0, 10, 20]), 4)
    assert text in str(caught.value)


# --- the oracle: Keras, a window at a time, on what is really lifted ----------------------------------------

LENGTHS = (150, 40, 90)
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])
TOTAL = int(OFFSETS[-1])
LOOKBACK = 16


def layers(
    *kernels: tuple[tuple[int, int], tuple[int, int]], **settings: Any
) -> tuple[KernelConvolution, ...]:
    return tuple(
        KernelConvolution(5, size, dilation=dilation, activation="gelu", **settings)
        for size, dilation in kernels
    )


FLAT = (((1, 3), (1, 1)), ((1, 3), (1, 2)))
NETWORKS: dict[str, dict[str, Any]] = {
    "row": {"strategy": Row(), "layers": layers(*FLAT)},
    "column": {"strategy": Column(), "layers": layers(((3, 1), (1, 1)), ((3, 1), (2, 1)))},
    "replicate": {"strategy": Replicate(rows=3), "layers": layers(((3, 3), (1, 1)), ((1, 3), (1, 2)))},
    "lagged": {
        "strategy": Lagged(lags=(0, 1, 5)),
        "layers": (*layers(((3, 3), (1, 1))), KernelNormalization("channels"), *layers(((1, 3), (1, 2)))),
    },
    "lagged, not full height": {"strategy": Lagged(lags=(0, 1, 5, 6)), "layers": layers(((2, 3), (1, 1)))},
    "parallel": {"strategy": Parallel(), "layers": layers(((3, 3), (1, 1)), ((1, 3), (1, 2)))},
    "parallel, largest": {"strategy": Parallel(aggregate="max"), "layers": layers(((3, 3), (1, 1)))},
    "calendar": {"strategy": CalendarFold(period=5), "layers": layers(((2, 3), (1, 1)), ((2, 1), (1, 1)))},
    "spectrogram": {"strategy": Spectrogram(segment=4), "layers": layers(((3, 3), (1, 1)))},
    "pooled": {
        "strategy": Lagged(rows=4),
        "layers": layers(((3, 3), (1, 1)), ((2, 3), (1, 1))),
        "head": "mean",
        "features": 0,
        "dense": 0,
    },
    "zeros padded in time": {"strategy": Row(), "layers": layers(FLAT[0], padding="same"), "head": "flatten"},
    "statistics of a window": {
        "strategy": Replicate(rows=2),
        "layers": (*layers(((2, 3), (1, 1))), KernelNormalization("window")),
    },
}
BY_WINDOW = {"zeros padded in time", "statistics of a window"}


def network(name: str, **changes: Any) -> Network:
    chosen = {"lookback": LOOKBACK, "channels": 2, "outputs": 3, "features": 2, "dense": 4}
    return Network(**chosen | NETWORKS[name] | changes)


def draws(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


CHANNELS, FEATURES, OBSERVED = draws(0, TOTAL, 2), draws(1, TOTAL, 2), draws(2, TOTAL, 6)
WEIGHTS = np.random.default_rng(3).uniform(0.5, 2.0, TOTAL).astype(np.float32)
BASE, TYPICAL = np.sort(draws(4, 3, 23)), np.exp(draws(5, 3))
STATISTICS = np.stack([FEATURES.mean(axis=0), FEATURES.std(axis=0)])


def rows_of(of: Network, gap: int = 90) -> Array:
    """All origins but a gap, so that there are runs of all lengths."""
    positions = np.concatenate([np.arange(length) for length in LENGTHS])
    rows = np.flatnonzero(positions >= of.sessions - 1)
    return rows[(rows < gap) | (rows > gap + 7)]


class Oracle:
    """The network as a Keras model of single windows, its kernels on materialised liftings, in float64."""

    def __init__(self, of: Network, weights: dict[str, Array]) -> None:
        assert of.strategy is not None
        windows = keras.Input((of.sessions, of.channels), dtype="float64")
        features = keras.Input((of.features,), dtype="float64")
        stack = KernelStack(
            of.strategy, of.lookback, of.layers, of.head, execution="lifted", name="stack", dtype="float64"
        )
        values = stack(windows)
        if of.features:
            values = keras.layers.Concatenate(dtype="float64")([values, features])
        if of.dense:
            values = keras.layers.Dense(of.dense, activation="gelu", name="hidden", dtype="float64")(values)
            if of.features:
                values = keras.layers.Concatenate(dtype="float64")([values, features])
        outputs = keras.layers.Dense(of.outputs, name="output", dtype="float64")(values)
        self.of = of
        self.model = keras.Model([windows, features], outputs)
        for variable in self.model.variables:
            variable.assign(weights[variable.path])

    def inputs(self, rows: Array) -> list[Array]:
        windows = np.stack([CHANNELS[row - self.of.sessions + 1 : row + 1] for row in rows])
        standard = np.clip((FEATURES - STATISTICS[0]) / STATISTICS[1], -FEATURE_CLIP, FEATURE_CLIP)
        return [windows.astype(np.float64), standard[rows, : self.of.features].astype(np.float64)]

    def outputs(self, rows: Array) -> Array:
        return np.asarray(self.model(self.inputs(rows)))

    def loss(self, rows: Array) -> Any:
        constants = [BASE.astype(np.float64), TYPICAL.astype(np.float64)]
        losses = oracle_loss(self.model(self.inputs(rows)), OBSERVED[rows].astype(np.float64), *constants)
        return tf.reduce_sum(losses * WEIGHTS[rows]) / WEIGHTS[rows].sum(dtype=np.float64)

    def gradient(self, rows: Array) -> dict[str, Array]:
        with tf.GradientTape() as tape:
            loss = self.loss(rows)
        variables = self.model.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        return {v.path: np.asarray(g) for v, g in zip(variables, gradients, strict=True)}


def oracle_loss(log_scale: Any, observed: Any, base: Array, typical: Array) -> Any:
    """Twice the CRPS, by a loop over the levels, plus the likelihood of a Laplace scale."""
    from forecaster.quantiles import LEVELS

    grid = [0.0, *LEVELS, 1.0]
    total = 0.0
    for horizon in range(3):
        s = log_scale[..., horizon]
        crps = 0.0
        for place, level in enumerate(LEVELS):
            error = observed[..., horizon] - base[horizon, place] * tf.exp(s)
            pinball = tf.where(error >= 0.0, level * error, (level - 1.0) * error)
            crps = crps + 2.0 * pinball * (grid[place + 2] - grid[place]) / 2.0
        laplace = observed[..., 3 + horizon] / typical[horizon] * tf.exp(-s) + s
        total = total + (2.0 * crps + laplace) / 3.0
    return total


OBJECTIVE = scale_objective(3)


def panel_data(channels: Array = CHANNELS, observed: Array = OBSERVED, **more: Array) -> Data:
    return Data.of(channels, observed, more.get("features", FEATURES), more.get("weights", WEIGHTS))


def made(name: str, **changes: Any) -> Trainer:
    return trainer_of(network(name, **changes), OBJECTIVE, 64)


def some_weights(trainer: Trainer) -> Array:
    """The first weights, moved, so that no bias and no output is zero."""
    moved: Array = trainer.function.first_weights(0) + np.float32(0.1) * draws(6, trainer.function.size)
    return moved


def relative(given: Array, expected: Array) -> float:
    return float(np.linalg.norm(given - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", NETWORKS)
def test_chunks_reach_the_gradient_of_windows_one_by_one(name: str) -> None:
    trainer = made(name)
    assert (trainer.network.plan().series != "series") == (name in BY_WINDOW)
    rows = rows_of(trainer.network)
    chunks = cut_chunks(runs_of(rows, OFFSETS), 64, 4, np.random.default_rng(0)).reshape(1, -1, 3)[0]
    weights = some_weights(trainer)
    oracle = Oracle(trainer.network, trainer.function.named(weights))
    loss, gradient = trainer.gradient(
        weights,
        panel_data(),
        chunks,
        expected=float(WEIGHTS[rows].sum()),
        constants=(BASE, TYPICAL),
        statistics=STATISTICS,
    )
    assert loss == pytest.approx(float(oracle.loss(rows)), rel=1e-6)
    assert relative(gradient, trainer.function.flat(oracle.gradient(rows))) < 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_scoring_gives_what_each_window_gives(name: str) -> None:
    trainer = made(name)
    rows = np.random.default_rng(0).permutation(rows_of(trainer.network))
    weights = some_weights(trainer)
    expected = Oracle(trainer.network, trainer.function.named(weights)).outputs(rows)
    outputs = trainer.score(weights, panel_data(), rows, OFFSETS, STATISTICS)
    np.testing.assert_allclose(outputs, expected, rtol=2e-5, atol=2e-5)
    sparse = rows[:3]
    alone = trainer.score(weights, panel_data(), sparse, OFFSETS, STATISTICS)
    np.testing.assert_allclose(alone, expected[:3], rtol=2e-5, atol=2e-5)


def test_steps_are_those_of_keras() -> None:
    """Whole training: Keras's AdamW on the loss of each step's windows, against the compiled loop."""
    trainer = made("row")
    runs = runs_of(rows_of(trainer.network), OFFSETS)
    chunks = cut_chunks(runs, 64, 4, np.random.default_rng(0))
    chunks = np.concatenate([chunks, cut_chunks(runs, 64, 4, np.random.default_rng(1))])
    rates = cosine_rates(0.01, len(chunks), 2)
    expected = np.full(len(chunks), 50.0)
    start = trainer.start(trainer.function.first_weights(0))
    fixed: dict[str, Any] = {"weight_decay": 0.02, "constants": (BASE, TYPICAL), "statistics": STATISTICS}
    state, losses = trainer.train(start, panel_data(), chunks, rates, expected=expected, **fixed)

    oracle = Oracle(trainer.network, trainer.function.named(trainer.function.first_weights(0)))
    optimizer = keras.optimizers.AdamW(0.0, weight_decay=0.02)
    optimizer.build(oracle.model.trainable_variables)
    seen = []
    for step, rate in zip(chunks, rates, strict=True):
        rows = np.concatenate([np.arange(first, last + 1) for _, first, last in step])
        share = WEIGHTS[rows].sum(dtype=np.float64) / 50.0
        seen.append(float(oracle.loss(rows)) * share)
        gradient = oracle.gradient(rows)
        optimizer.learning_rate = float(rate)
        variables = oracle.model.trainable_variables
        optimizer.apply_gradients([(gradient[v.path] * share, v) for v in variables])
    reached = trainer.function.flat({v.path: np.asarray(v) for v in oracle.model.variables})
    assert np.abs(reached - start.weights.numpy()).max() > 0.01
    np.testing.assert_allclose(losses, seen, rtol=1e-5)
    np.testing.assert_allclose(state.weights.numpy(), reached, atol=2e-5)
    assert int(state.step) == len(chunks)


def test_epochs_one_by_one_are_the_same_as_at_once() -> None:
    trainer = made("row", dropout=0.3)
    chunks = cut_chunks(runs_of(rows_of(trainer.network), OFFSETS), 64, 4, np.random.default_rng(0))
    start = trainer.start(trainer.function.first_weights(0))
    fixed: dict[str, Any] = {"constants": (BASE, TYPICAL), "statistics": STATISTICS, "dropout_seed": 5}
    twice, rates = np.concatenate([chunks, chunks]), cosine_rates(0.01, 2 * len(chunks), 0)
    whole, _ = trainer.train(start, panel_data(), twice, rates, expected=np.full(len(twice), 99.0), **fixed)
    state = start
    for part in (rates[: len(chunks)], rates[len(chunks) :]):
        state, _ = trainer.train(
            state, panel_data(), chunks, part, expected=np.full(len(chunks), 99.0), **fixed
        )
    assert np.array_equal(state.weights.numpy(), whole.weights.numpy())


# --- what is read, and what is not --------------------------------------------------------------------------


def trained(trainer: Trainer, data: Data, rows: Array, seed: int = 0, **settings: Any) -> Array:
    schedule = Schedule(epochs=2, weight_decay=0.01, **settings)
    return trainer.fit(
        data, runs_of(rows, OFFSETS), schedule, seed, constants=(BASE, TYPICAL), statistics=STATISTICS
    )


@pytest.mark.parametrize("name", ["lagged", "pooled", "spectrogram", "zeros padded in time"])
def test_what_no_window_holds_leaves_no_trace(name: str) -> None:
    """Every other row is NaN: later sessions, other series, the gap; the trained bits do not change."""
    trainer = made(name, dropout=0.2)
    rows = rows_of(trainer.network)
    rows = rows[(rows < OFFSETS[1] - 30) | (rows >= OFFSETS[2])]
    read = np.zeros(TOTAL, dtype=bool)
    for row in rows:
        read[row - trainer.network.sessions + 1 : row + 1] = True
    origin = np.isin(np.arange(TOTAL), rows)
    assert not read.all()
    spoilt = panel_data(
        np.where(read[:, None], CHANNELS, np.float32(np.nan)),
        np.where(origin[:, None], OBSERVED, np.float32(np.nan)),
        features=np.where(origin[:, None], FEATURES, np.float32(np.nan)),
        weights=np.where(origin, WEIGHTS, np.float32(np.nan)),
    )
    weights = trained(trainer, panel_data(), rows)
    assert np.array_equal(trained(trainer, spoilt, rows), weights)
    scored = trainer.score(weights, panel_data(), rows, OFFSETS, STATISTICS)
    assert np.array_equal(trainer.score(weights, spoilt, rows, OFFSETS, STATISTICS), scored)
    assert np.isfinite(scored).all()


def test_a_target_after_the_origin_is_read_where_it_is_one() -> None:
    """Leads: comparing with the next rows is comparing with a table of them."""
    given = network("pooled", channels=2, outputs=4)
    ahead = trainer_of(given, Objective(squared_error, 2, leads=(1, 3)), 64)
    table = trainer_of(given, Objective(squared_error, 4), 64)
    rows = rows_of(given)
    rows = rows[~np.isin(rows, [*range(147, 150), *range(187, 190), *range(277, 280)])]
    outcomes = np.concatenate([np.roll(CHANNELS, -1, axis=0), np.roll(CHANNELS, -3, axis=0)], axis=1)
    runs, schedule = runs_of(rows, OFFSETS), Schedule(epochs=2)
    first = ahead.fit(Data.of(CHANNELS, CHANNELS), runs, schedule, 0)
    assert np.array_equal(table.fit(Data.of(CHANNELS, outcomes), runs, schedule, 0), first)


@pytest.mark.parametrize("name", ["lagged", "pooled"])
def test_the_bits_of_a_score_do_not_depend_on_what_else_there_is(name: str) -> None:
    """Neither on other origins that are scored, nor on later sessions, nor on the series before it."""
    trainer, weights = made(name), made(name).function.first_weights(3)
    series = draws(8, 3000, 2), draws(9, 3000, 2)
    other = draws(10, 777, 2), draws(11, 777, 2)
    rows = np.arange(100, 2000)

    def score(*parts: tuple[Array, Array], at: Array) -> Array:
        offsets = np.concatenate([[0], np.cumsum([len(part[0]) for part in parts])])
        channels, features = (np.concatenate(of) for of in zip(*parts, strict=True))
        data = Data.of(channels, features=features)
        return trainer.score(weights, data, at, offsets, STATISTICS)

    whole = score(series, at=rows)
    assert np.array_equal(score((series[0][:2000], series[1][:2000]), at=rows), whole)
    assert np.array_equal(score(series, at=rows[700:]), whole[700:])
    assert np.array_equal(score(other, series, at=rows + 777), whole)


def test_blocks_are_bounded_and_cover_every_origin() -> None:
    trainer = made("row")
    data = Data.of(draws(8, 20_000, 2), features=draws(9, 20_000, 2))
    rows = np.arange(50, 20_000)
    blocks = list(
        trainer.score_blocks(trainer.function.first_weights(0), data, rows, np.array([0, 20_000]), STATISTICS)
    )
    assert max(len(outputs) for _, outputs in blocks) <= 2048
    every = np.arange(len(rows))
    assert np.array_equal(np.sort(np.concatenate([every[places] for places, _ in blocks])), every)
    assert not list(
        trainer.score_blocks(trainer.function.first_weights(0), data, rows[:0], np.array([0, 20_000]))
    )


SCORED_LENGTHS = (2500, 1, 40, 5000)
SCORED_OFFSETS = np.concatenate([[0], np.cumsum(SCORED_LENGTHS)])
SCORED_DATA = Data.of(draws(12, int(SCORED_OFFSETS[-1]), 2), features=draws(13, int(SCORED_OFFSETS[-1]), 2))


@given(st.integers(0, 2**32), st.sampled_from([1, 3, 200, 3000]), st.booleans())
@settings(max_examples=30, deadline=None)
def test_any_selection_of_origins_is_scored_as_each_of_them_is(seed: int, count: int, near: bool) -> None:
    """Of series shorter than a window too, in any order, with gaps, and some more than once."""
    trainer = made("row")
    weights = some_weights(trainer)
    positions = np.concatenate([np.arange(length) for length in SCORED_LENGTHS])
    every = np.flatnonzero(positions >= trainer.network.sessions - 1)
    whole = np.full((len(positions), trainer.network.outputs), np.nan, dtype=np.float32)
    whole[every] = trainer.score(weights, SCORED_DATA, every, SCORED_OFFSETS, STATISTICS)
    generator = np.random.default_rng(seed)
    rows = generator.choice(every[: 2 * count] if near else every, count)
    outputs = trainer.score(weights, SCORED_DATA, rows, SCORED_OFFSETS, STATISTICS)
    np.testing.assert_allclose(outputs, whole[rows], rtol=2e-5, atol=2e-5)


def test_an_origin_there_twice_does_not_hide_that_another_is_missing() -> None:
    trainer = made("row")
    rows = np.arange(100, 400)
    rows[200] = rows[199]
    expected = trainer.score(
        some_weights(trainer), SCORED_DATA, np.arange(100, 400), SCORED_OFFSETS, STATISTICS
    )
    outputs = trainer.score(some_weights(trainer), SCORED_DATA, rows, SCORED_OFFSETS, STATISTICS)
    assert np.array_equal(outputs, expected[rows - 100])


def test_one_origin_of_one_series_is_learned_and_scored() -> None:
    trainer = made("row")
    sessions = trainer.network.sessions
    data = Data.of(CHANNELS[:sessions], OBSERVED[:sessions], FEATURES[:sessions])
    offsets, row = np.array([0, sessions]), np.array([sessions - 1])
    more: dict[str, Any] = {"constants": (BASE, TYPICAL), "statistics": STATISTICS}
    weights = trainer.fit(data, runs_of(row, offsets), Schedule(epochs=5), 0, **more)
    assert np.abs(weights - trainer.function.first_weights(0)).max() > 1e-3
    assert np.isfinite(trainer.score(weights, data, row, offsets, STATISTICS)).all()


def test_windows_that_share_no_work_are_scored_few_at_a_time() -> None:
    """A block of them would hold the maps of all its windows, asked for or not."""
    trainer = made("zeros padded in time")
    weights, rows = some_weights(trainer), np.arange(2600, 7000)
    blocks = list(trainer.score_blocks(weights, SCORED_DATA, rows, SCORED_OFFSETS, STATISTICS))
    assert max(len(outputs) for _, outputs in blocks) * trainer.network.sessions <= 8 * 2048
    assert set(trainer.traces) <= {("train", 4), ("score", 1)}


def test_features_alone_are_scored_in_few_calls() -> None:
    trainer = trainer_of(Network(None, 1, (), channels=2, outputs=3, features=2, dense=4), OBJECTIVE, 64)
    weights, rows = some_weights(trainer), np.arange(7500)
    blocks = list(trainer.score_blocks(weights, SCORED_DATA, rows, SCORED_OFFSETS, STATISTICS))
    assert len(blocks) == 1
    one = trainer.score(weights, SCORED_DATA, rows[:1], SCORED_OFFSETS, STATISTICS)
    np.testing.assert_allclose(blocks[0][1][:1], one, rtol=2e-5)


# --- sharing ------------------------------------------------------------------------------------------------


def test_equal_networks_share_one_program_and_do_not_disturb_each_other() -> None:
    first, second = made("row"), trainer_of(network("row"), scale_objective(3), 64)
    assert second is first
    assert made("row", dropout=0.1) is not first
    rows = rows_of(first.network)
    alone = trained(first, panel_data(), rows, seed=1)
    other = trained(second, panel_data(), rows[:100], seed=2)
    assert not np.array_equal(other, alone)
    assert np.array_equal(trained(first, panel_data(), rows, seed=1), alone)
    assert first.traces["train", 4] == 1
    assert set(first.traces.values()) == {1}


def test_a_warm_start_begins_where_it_is_told() -> None:
    trainer = made("row")
    rows = rows_of(trainer.network)
    weights = trainer.function.first_weights(9)
    still = trainer.fit(
        panel_data(),
        runs_of(rows, OFFSETS),
        Schedule(epochs=1, learning_rate=1e-12),
        0,
        weights=weights,
        constants=(BASE, TYPICAL),
        statistics=STATISTICS,
    )
    np.testing.assert_allclose(still, weights, atol=1e-6)


def test_weights_go_by_name_and_come_back() -> None:
    function = made("parallel").function
    weights = function.first_weights(0)
    assert np.array_equal(function.flat(function.named(weights)), weights)
    kernel = function.named(weights)["stack/kernel_0"]
    # Three filters of three taps on two channels: one Conv1D with 3 * 5 outputs.
    assert np.abs(kernel).max() == pytest.approx(np.sqrt(6.0 / (3 * 2 + 3 * 15)), rel=0.05)
    assert not function.named(weights)["hidden/bias"].any()


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    function = made("row", dropout=0.4, features=0, dense=0).function
    weights = draws(7, function.size)
    channels = tf.constant(draws(8, 1, 4000, 2))
    plain = function(weights, channels).numpy()
    dropped = np.mean([function(weights, channels, dropout_seed=(1, k)).numpy() for k in range(50)], axis=0)
    assert np.abs(function(weights, channels, dropout_seed=(1, 0)).numpy() - plain).max() > 0.1
    assert np.abs((dropped - plain).mean(axis=(0, 1))).max() < 0.05


def test_dropout_drops_others_at_each_step_and_for_each_seed() -> None:
    """The same chunk again and again, at a rate of zero: losses differ by what is dropped alone."""
    trainer, plain = made("row", dropout=0.3), made("row")
    chunks = cut_chunks(runs_of(np.arange(20, 80), OFFSETS), 64, 4, np.random.default_rng(0))[:1]
    again, rates = np.repeat(chunks, 4, axis=0), np.zeros(4, dtype=np.float32)

    def losses(of: Trainer, seed: int) -> list[float]:
        fixed: dict[str, Any] = {"constants": (BASE, TYPICAL), "statistics": STATISTICS, "dropout_seed": seed}
        start = of.start(some_weights(of))
        _, given = of.train(start, panel_data(), again, rates, expected=np.full(4, 60.0), **fixed)
        return [float(loss) for loss in given]

    assert len(set(losses(trainer, 1) + losses(trainer, 2))) == 8
    assert losses(trainer, 1) == losses(trainer, 1)
    assert len(set(losses(plain, 1) + losses(plain, 2))) == 1


# --- the forecaster -----------------------------------------------------------------------------------------


def garch_panel(n: int = 900) -> Panel:
    return Panel.from_prices({f"S{seed}": prices(garch(n, seed)) for seed in range(2)})


def forecaster(**changes: Any) -> ConvolutionForecaster:
    settings: dict[str, Any] = {
        "epochs": 1,
        "chunk": 64,
        "chunks_per_step": 4,
        "learning_rate": 2e-3,
        "weight_decay": 1e-3,
    }
    settings |= {"dropout": 0.2, "seeds": 1, "warm_start": False, "seed": 7, "dense": 8, "lookback": 20}
    settings |= {"target": "distribution", "anchor": "ewma", "refit_every": 1, "half_life": 8.0}
    network = {"strategy": Lagged(lags=(0, 1, 5)), "layers": layers(((3, 3), (1, 1)), ((1, 3), (1, 2)))}
    return ConvolutionForecaster(**network | settings | changes)


def ten_folds(panel: Panel) -> list[Fold]:
    start, every = panel.calendar[600], 30
    return folds(panel, (1, 5), start, None, every, 30)


def test_one_trace_serves_ten_folds_five_seeds_and_two_models() -> None:
    walk = ten_folds(garch_panel())
    assert len(walk) == 10
    built = {name: lambda seed=seed: forecaster(seeds=5, seed=seed) for name, seed in (("a", 1), ("b", 50))}
    results = list(backtest(built, walk))
    assert len(results) == 20
    traces = forecaster().trainer(2).traces
    assert set(traces) <= {("train", 4), ("score", 2048), ("score", 1)}
    assert set(traces.values()) == {1}


def test_several_seeds_are_averaged_in_logs() -> None:
    fold = ten_folds(garch_panel())[0]
    both = forecaster(seeds=2, seed=7).fit(fold.train)
    alone = [forecaster(seed=seed).fit(fold.train) for seed in (7, 8)]
    assert both.weights is not None
    for member, single in zip(both.weights, alone, strict=True):
        assert single.weights is not None
        assert np.array_equal(member, single.weights[0])
    logs = [np.log(single.location_and_scale(fold.test)[1]) for single in alone]
    together = np.log(both.location_and_scale(fold.test)[1])
    np.testing.assert_allclose(together, np.mean(logs, axis=0), rtol=1e-9)
    assert np.abs(logs[0] - logs[1]).max() > 1e-3
    beside = both.residuals.parameters + both.target.parameters
    assert both.parameters - beside == 2 * alone[0].weights.size  # type: ignore[union-attr]
    assert set(both.lag_weights()["filter"]) == set(range(10))


def test_a_warm_start_takes_the_weights_of_the_refit_before_and_of_no_other() -> None:
    walk = ten_folds(garch_panel())[:3]
    still = {"learning_rate": 1e-12, "weight_decay": 0.0}
    cold = forecaster().fit(walk[0].train)
    settings: list[dict[str, Any]] = [{}, still, still]
    builders = iter([lambda more=more: forecaster(warm_start=True, **more) for more in settings])
    warm = [result.fitted for result in backtest({"m": lambda: next(builders)()}, walk)]
    for fitted in warm:
        assert isinstance(fitted, ConvolutionForecaster)
        np.testing.assert_allclose(fitted.weights, cold.weights, atol=1e-6)  # type: ignore[arg-type]


def test_a_warm_start_sees_nothing_later() -> None:
    panel = garch_panel()
    walk = ten_folds(panel)[:2]
    evening = walk[1].refit
    changed = {f"S{seed}": prices(garch(900, seed)) for seed in range(2)}
    for frame in changed.values():
        later = frame.index.to_numpy().astype("datetime64[D]") > evening
        frame.loc[later, "close"] *= 1.5
    other = ten_folds(Panel.from_prices(changed))[:2]

    def run(over: list[Fold]) -> list[Array]:
        return [
            result.forecast.values for result in backtest({"m": lambda: forecaster(warm_start=True)}, over)
        ]

    (first, second), (again, changed_second) = run(walk), run(other)
    assert np.array_equal(first, again)
    on_the_evening = walk[1].test.sessions <= evening
    assert on_the_evening.any()
    assert np.array_equal(second[on_the_evening], changed_second[on_the_evening])
    assert not np.array_equal(second, changed_second)


def test_a_warm_start_from_something_else_is_refused() -> None:
    train = ten_folds(garch_panel())[0].train
    with pytest.raises(ParameterError, match="of the same network, target and seeds"):
        forecaster(warm_start=True).start_from(forecaster(dense=9).fit(train))
    with pytest.raises(ParameterError, match="of the same network, target and seeds"):
        forecaster(warm_start=True).start_from(forecaster(target="point").fit(train))
    with pytest.raises(NotFittedError, match="fit the earlier one first"):
        forecaster(warm_start=True).start_from(forecaster())


def by_window(of: ConvolutionForecaster, train: Windows, seed: int) -> Any:
    """Train the slow obvious way: Keras, lifted windows in random order, the same steps and rates."""
    trainer = of.trainer(len(train.horizons))
    network, observed = trainer.network, of.target.observed(train, of.target.features_and_anchors(train)[1])
    assert network.strategy is not None
    windows = keras.Input((network.sessions, network.channels))
    features = keras.Input((network.features,))
    stack = KernelStack(network.strategy, network.lookback, network.layers, execution="lifted", name="stack")
    joined = keras.layers.Concatenate()([stack(windows), features])
    hidden = keras.layers.Dense(of.dense, activation="gelu", name="hidden")(joined)
    hidden = keras.layers.Concatenate()([hidden, features])
    model = keras.Model([windows, features], keras.layers.Dense(network.outputs, name="output")(hidden))
    first = trainer.function.named(trainer.function.first_weights(seed))
    for variable in model.variables:
        variable.assign(first[variable.path])
    steps = -(-len(train) // 256) * of.schedule.epochs
    rates = cosine_rates(of.schedule.learning_rate, steps, of.schedule.warm_up)
    optimizer = keras.optimizers.AdamW(0.0, weight_decay=of.schedule.weight_decay)
    optimizer.build(model.trainable_variables)
    constants = [tf.constant(value, tf.float32) for value in of.target.constants(observed)]
    channels = network_channels(train.panel, train.panel.universe)
    sequences = np.stack([channels[row - network.sessions + 1 : row + 1] for row in train.rows])
    raw = of.target.features_and_anchors(train)[0]
    standard = np.clip((raw - of.statistics[0]) / of.statistics[1], -FEATURE_CLIP, FEATURE_CLIP)
    observed = observed.astype(np.float32)

    @tf.function  # type: ignore[untyped-decorator]  # TensorFlow types no decorator
    def step(series: Any, beside: Any, seen: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(scale_loss(model([series, beside])[None], seen[None], constants))
        variables = model.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))

    generator = np.random.default_rng(seed)
    for place in range(steps):
        if place % (steps // of.schedule.epochs) == 0:
            order = list(np.array_split(generator.permutation(len(train)), steps // of.schedule.epochs))
        rows = order.pop()
        optimizer.learning_rate = float(rates[place])
        step(sequences[rows], standard[rows], observed[rows])
    return trainer.function.flat({variable.path: np.asarray(variable) for variable in model.variables})


@pytest.mark.slow
def test_chunks_and_windows_learn_equally_well_on_real_returns() -> None:
    source = SampleSource(("SP500", "NASDAQ"))
    panel = Panel.from_prices({symbol: source.load(symbol) for symbol in source.symbols()})
    whole = fit_windows(panel, np.datetime64("2015-12-31"), (1, 5, 21), 60)
    before = whole.sessions < np.datetime64("2011-11-01")
    train, after = whole.take(before), whole.take(whole.sessions >= np.datetime64("2012-01-01"))
    losses: dict[str, list[float]] = {"chunks": [], "windows": []}
    for seed in range(4):
        model = forecaster(epochs=3, dropout=0.0, half_life=0.0, seed=seed).fit(train)
        trainer = model.trainer(3)
        features, anchors = model.target.features_and_anchors(after)
        observed = model.target.observed(after, anchors).astype(np.float32)
        data = model._data(after, features)
        assert model.weights is not None
        for kind, weights in (("chunks", model.weights[0]), ("windows", by_window(model, train, seed))):
            outputs = trainer.score(weights, data, after.rows, panel.offsets, model.statistics)
            learned = model.target.observed(train, model.target.features_and_anchors(train)[1])
            constants = [tf.constant(value, tf.float32) for value in model.target.constants(learned)]
            seen = tf.constant(observed)
            losses[kind].append(float(tf.reduce_mean(scale_loss(outputs[None], seen[None], constants))))
        still = np.zeros_like(outputs)
        untrained = float(tf.reduce_mean(scale_loss(still[None], seen[None], constants)))
    chunks, windows = (np.array(values) for values in losses.values())
    noise = np.sqrt((chunks.var(ddof=1) + windows.var(ddof=1)) / len(chunks))
    gain = untrained - windows.mean()
    assert gain > 0.005, "there is something to learn"
    assert abs(chunks.mean() - windows.mean()) < 3.0 * noise
    assert noise < 0.2 * gain, "and the noise does not hide it"


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: trainer_of(network("row"), OBJECTIVE, 63), "a chunk holds 64 to 256 origins. Received: 63."),
        (lambda: trainer_of(network("row"), OBJECTIVE, 257), "Received: 257."),
        (lambda: Schedule(epochs=1, chunks_per_step=3), "a step takes at least 4 chunks. Received: 3."),
        (
            lambda: Network(None, 1, (), channels=2, outputs=1),
            "Network: without a strategy there are features, and no layers. Received: 0 features, 0 layers.",
        ),
        (lambda: network("row", dropout=1.0), "Network: dropout must lie in [0, 1). Received: 1.0."),
        (
            lambda: network("row", outputs=0),
            "Network: outputs must be an integer of at least 1. Received: 0.",
        ),
        (
            lambda: network("row", layers=(*layers(FLAT[0]), KernelNormalization("batch"))),
            "Network: a layer may not normalize over the batch, whose moments are no trained weights; "
            "normalize over 'channels'. Received: [",
        ),
        (
            lambda: trained(made("row"), panel_data(), np.empty(0, dtype=np.int64)),
            "training needs at least one origin. Received: none.",
        ),
        (
            lambda: trained(made("row"), panel_data(), np.arange(20, 60), learning_rate=1e30),
            "training diverged; lower learning_rate. Received: learning_rate=1e+30.",
        ),
        (
            lambda: made("row").score(
                made("row").function.first_weights(0), panel_data(), np.array([155]), OFFSETS, STATISTICS
            ),
            "every origin needs 16 sessions up to it; start later or look back less. Received: an origin "
            "with 6.",
        ),
        (
            lambda: trained(made("row"), panel_data(draws(0, TOTAL, 3)), np.arange(20, 60)),
            "the network needs channels of shape (total, 2). Received: shape (280, 3).",
        ),
        (
            lambda: trained(made("row"), panel_data(observed=draws(0, TOTAL, 5)), np.arange(20, 60)),
            "the network needs observed of shape (total, 6). Received: shape (280, 5).",
        ),
        (
            lambda: trained(made("row"), Data.of(CHANNELS, OBSERVED), np.arange(20, 60)),
            "the network needs features of shape (total, 2). Received: shape (0, 0).",
        ),
    ],
)
def test_what_is_refused(make: Any, text: str) -> None:
    with pytest.raises(ParameterError) as caught:
        make()
    assert text in str(caught.value)


@pytest.mark.parametrize(("steps", "warm_up"), [(1, 20), (10, 20), (200, 20), (200, 0)])
def test_rates_rise_then_fall_and_are_never_zero(steps: int, warm_up: int) -> None:
    rates: Sequence[float] = cosine_rates(0.5, steps, warm_up).tolist()
    assert len(rates) == steps
    assert max(rates) <= 0.5
    assert min(rates) > 0.0
    peak = rates.index(max(rates))
    assert peak <= max(min(warm_up, steps // 4), 1)
    assert all(later < earlier for earlier, later in zip(rates[peak:], rates[peak + 1 :], strict=False))
