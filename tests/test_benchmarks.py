"""The harness of `make bench`: its protocol, its statistics, its files. The sides run there only."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))

import figures  # noqa: E402
import measuring  # noqa: E402
import speed  # noqa: E402

PROMISED = {
    "train_vs_neuralforecast": ">= 100", "train_vs_keras_fit": ">= 100", "score_vs_predict": ">= 300",
    "score_vs_neuralforecast": ">= 150", "refit_vs_rebuild": ">= 20", "peak_mb": "<= 64",
    "peak_over_panel": "<= 3", "growth_time": "<= 10.5", "growth_memory": "<= 10.5",
}  # fmt: skip


def script(folder: Path, body: str) -> speed.Side:
    path = folder / "side.py"
    path.write_text(body, encoding="utf-8")
    return speed.Side(Path(sys.executable), f"{path} speed")


# --- what is measured ---------------------------------------------------------------------------------------


def test_every_promise_is_a_figure_with_its_bound_and_a_figure_of_the_production_network() -> None:
    names = [figure.name for figure in speed.FIGURES]
    assert len(names) == len(set(names))
    assert {figure.name: figure.bound for figure in speed.FIGURES if figure.bound} == PROMISED
    assert {f"{name}_production" for name in PROMISED} <= set(names)


def test_every_figure_is_made_of_sides_that_exist_and_every_side_is_used() -> None:
    assert {side for figure in speed.FIGURES for side in figure.sides} == set(speed.SIDES)
    for side in speed.SIDES.values():
        assert (speed.HERE / side.command.split()[0]).is_file()
        assert side.python == (speed.PEERS if is_peer(side) else speed.OURS)


def is_peer(side: speed.Side) -> bool:
    return side.command.startswith(("side_neuralforecast", "side_darts", "side_aeon"))


def test_the_sides_of_a_ratio_run_in_one_go() -> None:
    order = list(speed.SIDES)
    for figure in speed.FIGURES:
        places = [order.index(side) for side in figure.sides]
        assert max(places) - min(places) <= 3, figure.name


# --- the protocol -------------------------------------------------------------------------------------------


def test_sides_take_turns_and_the_files_are_written_after_each_round() -> None:
    ran: list[str] = []
    seen: list[int] = []

    def run(side: speed.Side) -> Mapping[str, float]:
        ran.append(side.command)
        return {"train": float(len(ran))}

    sides = {name: speed.Side(Path("python"), name) for name in "abc"}
    measured, failures = speed.run_rounds(sides, 2, run, lambda rounds: seen.append(len(rounds)))
    assert ran == ["a", "b", "c", "a", "b", "c"]
    assert seen == [1, 2]
    assert failures == []
    assert measured[1] == {"a": {"train": 4.0}, "b": {"train": 5.0}, "c": {"train": 6.0}}


def test_a_side_that_fails_is_named_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def run(side: speed.Side) -> Mapping[str, float]:
        if side.command == "b":
            raise RuntimeError("exit code 1: no such thing")
        return {"train": 1.0}

    sides = {name: speed.Side(Path("python"), name) for name in "abc"}
    measured, failures = speed.run_rounds(sides, 1, run, lambda _: None)
    assert failures == ["b, round 1: exit code 1: no such thing"]
    assert list(measured[0]) == ["a", "c"]
    assert "[1/1] b (0 s): FAILED: exit code 1: no such thing" in capsys.readouterr().out


def test_a_side_is_a_process_with_one_thread_and_its_last_line_counts(tmp_path: Path) -> None:
    side = script(
        tmp_path,
        "import json, os, sys\n"
        "print('a note')\n"
        "print(json.dumps({'pid': os.getpid(), 'threads': int(os.environ['OMP_NUM_THREADS'])}))\n",
    )
    measured = speed.run_side(side, os.environ | speed.ONE_THREAD, tmp_path)
    assert measured["threads"] == 1
    assert measured["pid"] != os.getpid()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise SystemExit('no data')", "exit code 1: no data"),
        ("print('done')", "its last line is no JSON: 'done"),
        ("", "its last line is no JSON: ''"),
    ],
)
def test_how_a_side_can_fail(tmp_path: Path, body: str, reason: str) -> None:
    with pytest.raises(RuntimeError, match="^" + reason):
        speed.run_side(script(tmp_path, body), os.environ, tmp_path)


def test_a_peer_that_is_not_installed_is_a_failure_of_its_side(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="No such file or directory"):
        speed.run_side(speed.Side(tmp_path / "python", "side_darts.py speed"), os.environ, tmp_path)


# --- statistics and files -----------------------------------------------------------------------------------

rates = st.floats(min_value=1e-3, max_value=1e9)


@given(st.lists(st.tuples(rates, rates), min_size=1, max_size=9))
def test_a_ratio_is_made_within_each_round(pairs: list[tuple[float, float]]) -> None:
    figure = speed.Figure("ratio", ("ours", "train"), ("peer", "train"), "", "")
    rounds = [{"ours": {"train": ours}, "peer": {"train": peer}} for ours, peer in pairs]
    assert speed.values_of([figure], rounds)["ratio"] == [ours / peer for ours, peer in pairs]


def test_a_round_in_which_a_side_failed_has_no_figure_of_it() -> None:
    figure = speed.Figure("ratio", ("ours", "train"), ("peer", "train"), "", "")
    rounds = [{"ours": {"train": 4.0}}, {"ours": {"train": 6.0}, "peer": {"train": 2.0}}]
    assert speed.values_of([figure], rounds) == {"ratio": [3.0]}


@given(st.lists(rates, min_size=1, max_size=9))
def test_the_file_holds_median_least_and_greatest(values: list[float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench" / "speed.json"
        figures.write_figures(path, {"ratio": values, "missing": []})
        written = json.loads(path.read_text(encoding="utf-8"))
    expected = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    assert written == {"figures": {"ratio": expected | {"rounds": len(values)}}}


def test_the_table_says_what_holds() -> None:
    chosen = [
        speed.Figure("fast", ("a", "x"), ("b", "x"), ">= 100", "training"),
        speed.Figure("just", ("a", "x"), ("b", "x"), ">= 100", "scoring"),
        speed.Figure("small", ("a", "y"), None, "<= 64", "memory"),
        speed.Figure("plain", ("a", "z"), None, "", "other"),
        speed.Figure("absent", ("a", "z"), None, "", "nothing"),
    ]
    summary = {
        "fast": {"median": 99.9, "min": 90.0, "max": 150.4, "rounds": 5},
        "just": {"median": 100.0, "min": 100.0, "max": 100.0, "rounds": 1},
        "small": {"median": 64.0, "min": 1.234, "max": 70.0, "rounds": 5},
        "plain": {"median": 0.5, "min": 0.5, "max": 0.5, "rounds": 1},
    }
    assert speed.table_of(chosen, summary).splitlines()[2:] == [
        "| training (`fast`) | 99.9 | 90 to 150 | >= 100: no |",
        "| scoring (`just`) | 100 | 100 to 100 | >= 100: yes |",
        "| memory (`small`) | 64 | 1.23 to 70 | <= 64: yes |",
        "| other (`plain`) | 0.5 | 0.5 to 0.5 |  |",
    ]


def test_the_sizes_of_the_networks_are_said() -> None:
    rounds: list[dict[str, speed.Measured]] = [
        {"ours": {"parameters": 19173, "train": 1.0}, "peer": {"parameters_nhits": 20296}}
    ]
    assert speed.sizes_of(rounds) == "Weights: ours 19,173, peer_nhits 20,296.\n"


# --- what the sides share -----------------------------------------------------------------------------------


def test_start_up_does_not_count() -> None:
    assert measuring.rate(lambda steps: 7.0 + 0.5 * steps, 3, 13, windows_a_step=1024) == pytest.approx(
        2048.0
    )


def test_the_clock_stands_still_while_the_loss_is_computed() -> None:
    losses = iter([0.9, 0.8, 0.7])
    spent: list[int] = []

    def loss() -> float:
        sum(range(3_000_000))
        return next(losses)

    taken, calls, reached = measuring.time_to_loss(lambda: spent.append(1), loss, target=0.75, limit=9)
    assert (calls, reached, len(spent)) == (3, 0.7, 3)
    assert taken < 0.01


def test_a_loss_that_is_not_reached_is_a_failure() -> None:
    with pytest.raises(RuntimeError, match=r"to reach 0\.5000 within 3 calls\. Received: 0\.9000"):
        measuring.time_to_loss(lambda: None, lambda: 0.9, target=0.5, limit=3)


def test_synthetic_returns_repeat_and_cluster_and_are_causal() -> None:
    returns = measuring.synthetic_returns(3, 3000)
    assert returns.shape == (3, 3000)
    assert returns.dtype == np.float32
    np.testing.assert_array_equal(returns, measuring.synthetic_returns(3, 3000))
    np.testing.assert_array_equal(returns[:, :1000], measuring.synthetic_returns(3, 1000))
    # What it is made of is there: memory at one day, clustered size, a spread of about one.
    assert np.corrcoef(returns[:, 1:].ravel(), returns[:, :-1].ravel())[0, 1] > 0.08
    sizes = np.abs(returns)
    assert np.corrcoef(sizes[:, 1:].ravel(), sizes[:, :-1].ravel())[0, 1] > 0.05
    assert 0.8 < returns.std() < 1.3


@pytest.mark.parametrize("lookback", [64, 71])
def test_validation_outcomes_lie_after_the_training_sessions(lookback: int) -> None:
    series = np.tile(np.arange(measuring.SESSIONS, dtype=np.float32), (2, 1))
    windows, outcomes = measuring.validation_windows(series, lookback)
    assert windows.shape[1:] == (lookback,)
    assert outcomes.min() == measuring.TRAINED_SESSIONS
    assert outcomes.max() < measuring.SESSIONS
    np.testing.assert_array_equal(outcomes[:, 0], windows[:, -1] + 1)
    np.testing.assert_array_equal(outcomes, measuring.validation_windows(series, 64)[1])


def test_the_peak_is_that_of_this_process_since_it_was_reset() -> None:
    if not measuring.PEAK_RESET.exists():
        pytest.skip("needs proc(5)")
    # In a process of its own: threads that other tests have left give memory back in the meantime.
    code = (
        "import numpy as np, measuring\n"
        "np.ones(8 * 2**20).sum()  # 64 MB, before the reset\n"
        "measuring.reset_peak()\n"
        "before = measuring.resident_megabytes()\n"
        "np.ones(4 * 2**20).sum()  # 32 MB\n"
        "print(measuring.peak_megabytes() - before)\n"
    )
    folder = Path(measuring.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert 30.0 < float(done.stdout) < 48.0
