"""How fast the application trains and scores beside its peers, on the same data in the same run.

`make bench` runs it. Every side is a script that runs as a process of its own, with one thread, and prints
one line of JSON. The sides take turns, round by round (A B C A B C ...), and a ratio is made of the two sides
of one round; the file holds the median, the least and the greatest of the rounds. A side that fails is named,
the others go on, and the exit code is 1. What is measured, and by which settings of each peer, is said in the
scripts, `side_*.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from figures import write_figures

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OURS, PEERS = ROOT / ".venv/bin/python", ROOT / ".venv-peers/bin/python"
RESULTS = ROOT / "workspace/bench"
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
}
TIME_LIMIT = 1800.0
"""Seconds after which a side counts as failed."""

Measured = Mapping[str, float]


@dataclass(frozen=True)
class Side:
    """A script that measures one side.

    Attributes
    ----------
    python : Path
        Of the environment that it runs in.
    command : str
        The script and its arguments, below this folder.
    """

    python: Path
    command: str


# In the order in which they run: those that are compared stand side by side.
SIDES = {
    "ours": Side(OURS, "side_ours.py speed"),
    "keras": Side(OURS, "side_keras.py speed"),
    "neuralforecast": Side(PEERS, "side_neuralforecast.py speed"),
    "darts": Side(PEERS, "side_darts.py speed"),
    "ours_production": Side(OURS, "side_ours.py speed --production"),
    "keras_production": Side(OURS, "side_keras.py speed --production"),
    "neuralforecast_production": Side(PEERS, "side_neuralforecast.py speed --production"),
    "random_kernels": Side(OURS, "side_ours.py random_kernels"),
    "minirocket": Side(PEERS, "side_aeon.py speed"),
    "loss": Side(OURS, "side_ours.py time_to_loss"),
    "loss_keras": Side(OURS, "side_keras.py time_to_loss"),
    "loss_neuralforecast": Side(PEERS, "side_neuralforecast.py time_to_loss"),
    "loss_production": Side(OURS, "side_ours.py time_to_loss --production"),
    "loss_keras_production": Side(OURS, "side_keras.py time_to_loss --production"),
    "panel": Side(OURS, "side_ours.py large_panel"),
    "panel_production": Side(OURS, "side_ours.py large_panel --production"),
    "few": Side(OURS, "side_ours.py cost --series 100 --sessions 2000"),
    "many": Side(OURS, "side_ours.py cost --series 1000 --sessions 2000"),
    "few_production": Side(OURS, "side_ours.py cost --series 100 --sessions 2000 --production"),
    "many_production": Side(OURS, "side_ours.py cost --series 1000 --sessions 2000 --production"),
}


@dataclass(frozen=True)
class Figure:
    """A number that the rounds give.

    Attributes
    ----------
    name : str
        In the file.
    above, below : tuple of (str, str), below optional
        Side and measurement; the figure is the first, or the first over the second.
    bound : str
        What it must reach, such as ``>= 100``; empty where nothing is promised.
    text : str
        What it is, for the table.
    """

    name: str
    above: tuple[str, str]
    below: tuple[str, str] | None
    bound: str
    text: str

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides that it is made of."""
        return (self.above[0],) if self.below is None else (self.above[0], self.below[0])

    def of(self, measured: Mapping[str, Measured]) -> float | None:
        """Compute the figure of one round, or None where a side failed."""
        if any(side not in measured for side in self.sides):
            return None
        value = float(measured[self.above[0]][self.above[1]])
        return value if self.below is None else value / float(measured[self.below[0]][self.below[1]])

    def holds(self, value: float) -> bool:
        """Whether a value keeps to the bound."""
        sign, _, bound = self.bound.partition(" ")
        return value >= float(bound) if sign == ">=" else value <= float(bound)


def _ratio(name: str, ours: str, peer: str, what: str, bound: str, text: str) -> Figure:
    return Figure(name, (ours, what), (peer, what), bound, text)


def _times(name: str, ours: tuple[str, str], peer: tuple[str, str], bound: str, text: str) -> Figure:
    """A ratio of times: the peer's over ours."""
    return Figure(name, peer, ours, bound, text)


FIGURES = (
    _ratio("train_vs_neuralforecast", "ours", "neuralforecast", "train", ">= 100",
           "training, neuralforecast's TCN of equal depth and size"),
    Figure("train_vs_neuralforecast_five_layers", ("ours", "train_five_layers"),
           ("neuralforecast", "train_five_layers"), "",
           "training, five dilated layers as in neuralforecast's default TCN"),
    Figure("train_vs_nhits", ("ours", "train"), ("neuralforecast", "train_nhits"), "",
           "training, neuralforecast's NHITS of equal size"),
    _ratio("train_vs_darts", "ours", "darts", "train", "",
           "training, darts' TCN of nearly equal depth and size"),
    _ratio("train_vs_keras_fit", "ours", "keras", "train", ">= 100",
           "training, Keras `fit` on lifted windows, the same network"),
    _ratio("score_vs_predict", "ours", "keras", "score", ">= 300",
           "scoring, Keras `predict` on lifted windows, the same network"),
    _ratio("score_vs_neuralforecast", "ours", "neuralforecast", "score", ">= 150",
           "scoring, neuralforecast's `predict_insample`"),
    _ratio("score_vs_darts", "ours", "darts", "score", "", "scoring, darts' `historical_forecasts`"),
    _times("refit_vs_rebuild", ("ours", "refit"), ("keras", "refit"), ">= 20",
           "a refit of 40 steps of 1,024 windows, a model rebuilt in Keras"),
    _ratio("fit_vs_minirocket", "random_kernels", "minirocket", "fit", "",
           "fitting 1,008 random kernels and a ridge, aeon's MiniRocket and RidgeCV"),
    _ratio("train_vs_neuralforecast_production", "ours_production", "neuralforecast_production", "train", "",
           "production network: training, neuralforecast's TCN of equal depth and size"),
    _ratio("train_vs_keras_fit_production", "ours_production", "keras_production", "train", "",
           "production network: training, Keras `fit`"),
    _ratio("score_vs_predict_production", "ours_production", "keras_production", "score", "",
           "production network: scoring, Keras `predict`"),
    _ratio("score_vs_neuralforecast_production", "ours_production", "neuralforecast_production", "score", "",
           "production network: scoring, neuralforecast's `predict_insample`"),
    _times("refit_vs_rebuild_production", ("ours_production", "refit"), ("keras_production", "refit"), "",
           "production network: a refit, a model rebuilt in Keras"),
    _times("time_to_equal_validation_loss_vs_keras_fit", ("loss", "seconds"), ("loss_keras", "seconds"), "",
           "time to an equal validation loss on real series, Keras `fit`"),
    _times("time_to_equal_validation_loss_vs_keras_fit_production", ("loss_production", "seconds"),
           ("loss_keras_production", "seconds"), "",
           "production network: time to an equal validation loss on real stocks, Keras `fit`"),
    _times("time_to_equal_validation_loss_vs_neuralforecast", ("loss", "seconds"),
           ("loss_neuralforecast", "seconds"), "",
           "time to an equal validation loss on real series, neuralforecast's TCN"),
    _times("time_to_equal_validation_loss_vs_nhits", ("loss", "seconds"),
           ("loss_neuralforecast", "seconds_nhits"), "",
           "time to an equal validation loss on real series, neuralforecast's NHITS"),
    Figure("peak_mb", ("ours", "peak_mb"), None, "<= 64", "peak memory above the imports, MB"),
    Figure("peak_mb_production", ("ours_production", "peak_mb"), None, "",
           "production network: peak memory above the imports, MB"),
    Figure("peak_over_panel", ("panel", "over"), None, "<= 3",
           "peak memory less 64 MB, over a panel of 101 MB"),
    Figure("peak_over_panel_production", ("panel_production", "over"), None, "",
           "production network: peak memory less 64 MB, over a panel of 101 MB"),
    Figure("growth_time", ("many", "seconds"), ("few", "seconds"), "<= 10.5",
           "time, 1,000 series over 100"),
    Figure("growth_memory", ("many", "peak_mb"), ("few", "peak_mb"), "<= 10.5",
           "memory above the imports, 1,000 series over 100"),
    Figure("growth_time_production", ("many_production", "seconds"), ("few_production", "seconds"), "",
           "production network: time, 1,000 series over 100"),
    Figure("growth_memory_production", ("many_production", "peak_mb"), ("few_production", "peak_mb"), "",
           "production network: memory above the imports, 1,000 series over 100"),
)  # fmt: skip


def run_side(side: Side, environment: Mapping[str, str], data: Path) -> Measured:
    """Run a side to its end and read its last line.

    Raises
    ------
    RuntimeError
        When it fails, or its last line is no JSON; with the last line of what it said.
    """
    script, *arguments = side.command.split()
    command = [str(side.python), str(HERE / script), *arguments]
    if "time_to_loss" in arguments:
        command += ["--data", str(data)]
    try:
        ended = subprocess.run(
            command, env=dict(environment), cwd=data, capture_output=True, text=True, timeout=TIME_LIMIT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(str(error)) from error
    if ended.returncode:
        said = (ended.stderr.strip() or ended.stdout.strip() or "nothing said").splitlines()
        raise RuntimeError(f"exit code {ended.returncode}: {said[-1]}")
    try:
        measured: Measured = json.loads(ended.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise RuntimeError(f"its last line is no JSON: {ended.stdout[-200:]!r}") from error
    return measured


def run_rounds(
    sides: Mapping[str, Side],
    rounds: int,
    run: Callable[[Side], Measured],
    ended: Callable[[list[dict[str, Measured]]], None],
) -> tuple[list[dict[str, Measured]], list[str]]:
    """Let the sides take turns.

    Parameters
    ----------
    sides : mapping of str to Side
        In the order of a round.
    rounds : int
        How often each runs.
    run : callable
        Runs one side; a RuntimeError is its failure.
    ended : callable
        Is given the rounds so far after each.

    Returns
    -------
    list of dict
        What each side measured, for each round.
    list of str
        The failures: side, round and reason.
    """
    measured: list[dict[str, Measured]] = []
    failures: list[str] = []
    for number in range(1, rounds + 1):
        measured.append({})
        for name, side in sides.items():
            start = time.perf_counter()
            try:
                measured[-1][name] = run(side)
                told = "  ".join(f"{key} {value:,.4g}" for key, value in measured[-1][name].items())
            except RuntimeError as error:
                failures.append(f"{name}, round {number}: {error}")
                told = f"FAILED: {error}"
            print(f"[{number}/{rounds}] {name} ({time.perf_counter() - start:.0f} s): {told}", flush=True)
        ended(measured)
    return measured, failures


def values_of(
    figures: Sequence[Figure], measured: Sequence[Mapping[str, Measured]]
) -> dict[str, list[float]]:
    """Compute each figure for each round that has it."""
    found = {figure.name: [figure.of(one) for one in measured] for figure in figures}
    return {name: [value for value in values if value is not None] for name, values in found.items()}


def table_of(figures: Sequence[Figure], summary: Mapping[str, Mapping[str, float]]) -> str:
    """Lay out the figures as a table in Markdown, with what each must reach and whether it does."""
    lines = ["| ours against | figure | least to greatest | must be |", "|---|---|---|---|"]
    for figure in figures:
        if figure.name not in summary:
            continue
        one = summary[figure.name]
        verdict = ""
        if figure.bound:
            verdict = f"{figure.bound}: {'yes' if figure.holds(one['median']) else 'no'}"
        span = f"{_number(one['min'])} to {_number(one['max'])}"
        lines.append(f"| {figure.text} (`{figure.name}`) | {_number(one['median'])} | {span} | {verdict} |")
    return "\n".join(lines) + "\n"


def sizes_of(measured: Sequence[Mapping[str, Measured]]) -> str:
    """Say how many weights each network had, in one line."""
    sizes = {
        f"{side}{key.removeprefix('parameters')}": value
        for one in measured
        for side, values in one.items()
        for key, value in values.items()
        if key.startswith("parameters")
    }
    return "Weights: " + ", ".join(f"{name} {size:,}" for name, size in sizes.items()) + ".\n"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main() -> int:
    """Run the benchmark; 1 when a side failed, 0 otherwise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--rounds", type=int, default=5, help="how often each side runs (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=[figure.name for figure in FIGURES], help="these figures"
    )
    parser.add_argument(
        "--clock",
        choices=["wall", "processor"],
        default="wall",
        help="a second is one that passes, or one that the side computes (where others use the machine)",
    )
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    if rounds < 1:
        parser.error(f"--rounds is at least 1. Received: {rounds}")
    figures = [figure for figure in FIGURES if not options.only or figure.name in options.only]
    wanted = {side for figure in figures for side in figure.sides}
    sides = {name: side for name, side in SIDES.items() if name in wanted}
    data = RESULTS / "data"
    data.mkdir(parents=True, exist_ok=True)
    environment = os.environ | ONE_THREAD | {"BENCHMARK_CLOCK": options.clock}
    if any("time_to_loss" in side.command for side in sides.values()):
        subprocess.run([str(OURS), str(HERE / "real_series.py"), str(data)], env=environment, check=True)

    def write(measured: list[dict[str, Measured]]) -> None:
        write_figures(RESULTS / "speed.json", values_of(figures, measured))
        summary = json.loads((RESULTS / "speed.json").read_text(encoding="utf-8"))["figures"]
        text = table_of(figures, summary) + "\n" + sizes_of(measured)
        (RESULTS / "speed.md").write_text(text, encoding="utf-8")
        (RESULTS / "speed-rounds.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")

    _, failures = run_rounds(sides, rounds, lambda side: run_side(side, environment, data), write)
    print((RESULTS / "speed.md").read_text(encoding="utf-8"))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
