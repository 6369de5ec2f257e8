"""What the application takes: training, scoring, refits, memory, and their growth with the series."""

from __future__ import annotations

import argparse
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import measuring
from measuring import Array, peak_megabytes, rate, report, reset_peak, resident_megabytes, seconds

# isort: split
import numpy as np
from networks import (
    DILATED,
    FIVE_OUTPUTS,
    FIVE_RETURNS,
    HORIZONS,
    PRODUCTION,
    PRODUCTION_OBJECTIVE,
    mean_loss,
    production_inputs,
    real_inputs,
)
from numpy.typing import NDArray

from forecaster.models.convolution.chunks import cut_chunks, runs_of
from forecaster.models.convolution.network import Network
from forecaster.models.convolution.training import Data, Schedule, Trainer, trainer_of
from forecaster.models.learned.random_kernels import RandomKernelForecaster
from forecaster.windows import Panel, Windows

CHUNK, CHUNKS_A_STEP = 256, 4
Rows = NDArray[np.int64]

SHORT, LONG = 1, 5
"""Epochs of the two fits whose difference is measured."""
REFIT_STEPS = 40
RANDOM_KERNELS = 1008
STEPS_AT_ONCE = 4
"""Steps between two looks at the validation loss."""
LARGE_PANEL, TRAINED_SERIES = 101.0, 20
"""Megabytes of the large panel, and how many of its series are trained on."""


class Work:
    """A network, a panel of equally long series, and the origins whose window and outcomes are known."""

    def __init__(self, network: Network, series: int, sessions: int, values: Array | None = None) -> None:
        self.production = bool(network.features)
        objective = PRODUCTION_OBJECTIVE if self.production else FIVE_RETURNS
        self.trainer: Trainer = trainer_of(network, objective, CHUNK)
        self.offsets = np.arange(series + 1, dtype=np.int64) * sessions
        first, last = network.sessions - 1, sessions - 1 - max(objective.leads)
        self.runs = self.offsets[:-1, None] + np.array([[first, last]])
        self.constants: tuple[Array, ...] = ()
        self.statistics: Array | None = None
        if self.production:
            inputs = production_inputs(series * sessions)
            self.data = Data.of(inputs.channels, inputs.observed, inputs.features)
            self.constants, self.statistics = inputs.constants, inputs.statistics
        else:
            returns = (synthetic(series, sessions) if values is None else values).reshape(-1, 1)
            self.data = Data.of(returns, returns)

    @cached_property
    def rows(self) -> Rows:
        """Every origin that has a whole window, whether its outcomes are known or not."""
        return np.concatenate(
            [np.arange(run[0], stop) for run, stop in zip(self.runs, self.offsets[1:], strict=True)]
        )

    @property
    def weights(self) -> int:
        return self.trainer.function.size

    def fit(self, epochs: int, runs: Rows | None = None) -> Array:
        """Train from fresh weights on all origins, or on some runs of them, and give the weights."""
        return self.trainer.fit(
            self.data,
            self.runs if runs is None else runs,
            Schedule(epochs, CHUNKS_A_STEP, learning_rate=1e-3),
            seed=0,
            constants=self.constants,
            statistics=self.statistics,
        )

    def score(self, weights: Array, rows: Rows | None = None) -> Array:
        origins = self.rows if rows is None else rows
        return self.trainer.score(weights, self.data, origins, self.offsets, self.statistics)

    @property
    def origins(self) -> int:
        return int((self.runs[:, 1] - self.runs[:, 0] + 1).sum())


def synthetic(series: int, sessions: int) -> Array:
    """Simulate returns into one array, a hundred series at a time: only the array itself takes memory."""
    returns = np.empty((series, sessions), dtype=np.float32)
    for start in range(0, series, 100):
        returns[start : start + 100] = measuring.synthetic_returns(
            min(100, series - start), sessions, seed=start
        )
    return returns


def train_rate(work: Work) -> float:
    return rate(lambda epochs: seconds(partial(work.fit, epochs)), SHORT, LONG, work.origins)


def speed(network: Network, series: int, sessions: int) -> None:
    before = resident_megabytes()
    reset_peak()
    work = Work(network, series, sessions)
    weights = work.fit(1)
    work.score(weights)
    peak = peak_megabytes() - before
    train = train_rate(work)
    score = len(work.rows) / seconds(partial(work.score, weights), repeats=7)
    measured = {"train": train, "score": score, "peak_mb": peak, "parameters": work.weights}
    measured["refit"] = seconds(partial(refit_once, work), repeats=5)
    if not work.production:
        dilated = Work(DILATED, series, sessions)
        dilated.fit(1)
        measured["parameters_five_layers"] = dilated.weights
        measured["train_five_layers"] = train_rate(dilated)
    report(**measured)


def refit_once(work: Work) -> None:
    """One refit of a walk-forward, from fresh weights: the windows of 40 steps of 1,024; one chunk scored.

    They are origins of as few series as hold them: a run that is cut at random ends in incomplete chunks.
    """
    windows = REFIT_STEPS * CHUNK * CHUNKS_A_STEP
    longest = int((work.runs[:, 1] - work.runs[:, 0]).min()) + 1
    count = -(-windows // longest)
    runs = work.runs[:count].copy()
    runs[:, 1] = runs[:, 0] + -(-windows // count) - 1
    work.score(work.fit(1, runs), work.rows[:CHUNK])


def time_to_equal_loss(folder: Path) -> None:
    """Train on real series, a few steps at a time, until the validation loss is reached."""
    series, target = measuring.real_series(folder)
    work = Work(FIVE_OUTPUTS, len(series), series.shape[1], series)
    trainer = work.trainer
    _, outcomes = measuring.validation_windows(series)
    first = measuring.TRAINED_SESSIONS - 1
    last = series.shape[1] - 1 - measuring.HORIZON
    validated = np.arange(first, last + 1, measuring.VALIDATION_STEP)
    rows = (work.offsets[:-1, None] + validated).ravel()
    runs = np.stack([work.runs[:, 0], work.offsets[:-1] + first - measuring.HORIZON], axis=1)
    generator = np.random.default_rng(0)
    chunks = np.concatenate([cut_chunks(runs, CHUNK, CHUNKS_A_STEP, generator) for _ in range(20)])
    state = trainer.start(trainer.function.first_weights(0))
    rates = np.full(STEPS_AT_ONCE, 1e-3, dtype=np.float32)
    expected = np.full(STEPS_AT_ONCE, float(CHUNK * CHUNKS_A_STEP))
    trainer.train(state, work.data, chunks[:STEPS_AT_ONCE], rates, expected=expected)  # traces

    def train() -> None:
        nonlocal state
        start = int(state.step)
        state, _ = trainer.train(
            state, work.data, chunks[start : start + STEPS_AT_ONCE], rates, expected=expected
        )

    def loss() -> float:
        return float(np.mean((work.score(state.weights.numpy(), rows) - outcomes) ** 2))

    limit = len(chunks) // STEPS_AT_ONCE
    taken, calls, reached = measuring.time_to_loss(train, loss, target, limit)
    report(seconds=taken, windows=calls * STEPS_AT_ONCE * CHUNK * CHUNKS_A_STEP, loss=reached)


def time_to_equal_production_loss() -> None:
    """Train the production network on real series until its validation loss is reached."""
    real = real_inputs()
    trainer = trainer_of(PRODUCTION, PRODUCTION_OBJECTIVE, CHUNK)
    data = Data.of(real.inputs.channels, np.nan_to_num(real.inputs.observed), real.inputs.features)
    generator = np.random.default_rng(0)
    runs = runs_of(real.trained, real.offsets)
    chunks = np.concatenate([cut_chunks(runs, CHUNK, CHUNKS_A_STEP, generator) for _ in range(20)])
    rates = np.full(STEPS_AT_ONCE, 1e-3, dtype=np.float32)
    fixed: dict[str, Any] = {
        "expected": np.full(STEPS_AT_ONCE, float(CHUNK * CHUNKS_A_STEP)),
        "constants": real.inputs.constants,
        "statistics": real.inputs.statistics,
    }
    state = trainer.start(trainer.function.first_weights(0))
    trainer.train(state, data, chunks[:STEPS_AT_ONCE], rates, **fixed)  # traces

    def train() -> None:
        nonlocal state
        start = int(state.step)
        state, _ = trainer.train(state, data, chunks[start : start + STEPS_AT_ONCE], rates, **fixed)

    def loss() -> float:
        outputs = trainer.score(
            state.weights.numpy(), data, real.validated, real.offsets, real.inputs.statistics
        )
        return mean_loss(outputs, real.inputs, real.validated)

    limit = len(chunks) // STEPS_AT_ONCE
    taken, calls, reached = measuring.time_to_loss(train, loss, real.target, limit)
    report(seconds=taken, windows=calls * STEPS_AT_ONCE * CHUNK * CHUNKS_A_STEP, loss=reached)


def cost(network: Network, series: int, sessions: int) -> None:
    """One epoch and the scoring of every origin, compiled before; and all memory above the imports."""
    before = resident_megabytes()
    reset_peak()
    warm = Work(network, 4, sessions)
    warm.score(warm.fit(1))
    work = Work(network, series, sessions)
    taken = seconds(lambda: work.score(work.fit(1)), repeats=3)
    report(seconds=taken, peak_mb=peak_megabytes() - before)


def large_panel(network: Network, megabytes: float) -> None:
    """Peak memory of some steps and of scoring every series of a large panel, whose outputs are not kept."""
    before = resident_megabytes()
    reset_peak()
    sessions = 8000
    columns = network.channels + network.features + (2 * network.outputs if network.features else 0)
    series = int(np.ceil(megabytes * 2**20 / (4 * sessions * columns)))
    work = Work(network, series, sessions)
    weights = work.fit(1, work.runs[:TRAINED_SERIES])
    for first, stop in zip(work.runs[:, 0], work.offsets[1:], strict=True):
        rows = np.arange(first, stop)
        for _ in work.trainer.score_blocks(weights, work.data, rows, work.offsets, work.statistics):
            pass
    peak = peak_megabytes() - before
    panel = series * sessions * columns * 4 / 2**20
    report(panel_mb=panel, peak_mb=peak, over=(peak - 64.0) / panel)


def random_kernels() -> None:
    """Fit of the random kernels and their ridge regression, out-of-sample residuals included."""
    series, sessions = 4, 8000
    returns = synthetic(series, sessions).ravel().astype(np.float64) / 100.0
    days = np.tile(np.datetime64("1990-01-01") + np.arange(sessions), series)
    offsets = np.arange(series + 1) * sessions
    panel = Panel(tuple(f"S{number}" for number in range(series)), offsets, days, np.exp(returns), returns)
    rows = np.flatnonzero((panel.positions >= 300) & (panel.positions < sessions - max(HORIZONS)))
    windows = Windows(panel, rows, HORIZONS)
    model = RandomKernelForecaster(RANDOM_KERNELS, measuring.LOOKBACK)
    report(fit=len(rows) / seconds(partial(model.fit, windows)), features=RANDOM_KERNELS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["speed", "random_kernels", "time_to_loss", "cost", "large_panel"])
    parser.add_argument("--production", action="store_true")
    parser.add_argument("--series", type=int, default=20)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sessions", type=int, default=8000)
    arguments = parser.parse_args()
    network = PRODUCTION if arguments.production else FIVE_OUTPUTS
    if arguments.task == "speed":
        speed(network, arguments.series, arguments.sessions)
    elif arguments.task == "time_to_loss":
        if arguments.production:
            time_to_equal_production_loss()
        else:
            time_to_equal_loss(arguments.data)
    elif arguments.task == "random_kernels":
        random_kernels()
    elif arguments.task == "cost":
        cost(network, arguments.series, arguments.sessions)
    else:
        large_panel(network, LARGE_PANEL)


if __name__ == "__main__":
    main()
