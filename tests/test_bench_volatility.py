"""The next session's variance of two indices: the baseline is no straw man, and the promised ratios hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from forecaster.job import Job, load_job
from forecaster.prices.samples import SampleSource
from forecaster.scores import qlike
from forecaster.volatility import daily_variance
from pipelines.backtest import backtest_job
from pipelines.loading import load_data

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))

import bench_volatility  # noqa: E402

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def job() -> Job:
    return load_job(ROOT / "configs" / "volatility.yaml")


def by_hand(prices: dict[str, pd.DataFrame], starts: list[np.datetime64], warm_up: int) -> Array:
    """HAR-log in pandas: a row an origin of the test span, its QLIKE."""
    tables = []
    for frame in prices.values():
        variance = pd.Series(daily_variance(frame), frame.index).iloc[1:]
        columns = {f"mean_{w}": np.log(variance.rolling(w, min_periods=1).mean()) for w in (1, 5, 22)}
        tables.append(pd.DataFrame(columns | {"y": variance.shift(-1), "constant": 1.0}).iloc[warm_up - 1 :])
    table = pd.concat(tables)
    x = table.drop(columns="y").to_numpy()
    y, session = table["y"].to_numpy(), table.index.to_numpy()
    losses = []
    for start, stop in zip(starts, [*starts[1:], np.datetime64("2100-01-01")], strict=True):
        learned = session < start
        beta = np.linalg.lstsq(x[learned], np.log(y[learned]), rcond=None)[0]
        mean_ratio = (y[learned] / np.exp(x[learned] @ beta)).mean()
        test = (session >= start) & (session < stop) & np.isfinite(y)
        losses.append(qlike(np.exp(x[test] @ beta) * mean_ratio, y[test]))
    return np.concatenate(losses)


def test_har_log_is_that_of_pandas_and_the_glm_beats_it(job: Job) -> None:
    few = job.model_copy(update={"models": [m for m in job.models if m.name in ("har_log", "qlike_glm")]})
    data = load_data(few, ROOT / "configs", few.minimum_sessions)
    result = backtest_job(few, data, lambda *_: None)
    scores = result.scores.query("metric == 'qlike' and symbol == '*'").set_index("model")["value"]
    source = SampleSource(job.prices.symbols)
    prices = {symbol: source.load(symbol) for symbol in job.prices.symbols}
    expected = by_hand(prices, [fold.refit for fold in result.folds], few.warm_up)
    losses = bench_volatility.row_losses(result.forecasts, result.tails, result.data.panel)
    assert (losses["model"] == "har_log").sum() == len(expected) > 7000
    # The floor under the outcomes that HAR-log is fitted to touches a few of them.
    assert scores["har_log"] == pytest.approx(expected.mean(), rel=2e-3)
    assert scores["har_log"] < expected.mean() + 1e-4, "the baseline is no weaker for it"
    assert 0.88 < scores["qlike_glm"] / scores["har_log"] < 0.90
    figures = bench_volatility.measure(losses)
    assert figures["qlike_har_log_1"] == pytest.approx(scores["har_log"], rel=1e-12)
    assert figures["qlike_qlike_glm_to_har_log_1_p"] < 0.001


def test_what_is_promised_is_in_the_job(job: Job) -> None:
    names = [model.name for model in job.models]
    assert {bench_volatility.BASELINE, *bench_volatility.PROMISED} <= set(names)
    assert (job.horizons, job.variance) == ((bench_volatility.HORIZON,), "range")


def test_figures_are_ratios_to_har_log() -> None:
    days = pd.date_range("2020-01-01", periods=40)
    rows = [
        (model, symbol, day, 1, 1.0, loss + 0.01 * (number % 3) * (model == "mlp"))
        for model, loss in (("har_log", 0.4), ("mlp", 0.3))
        for symbol in ("A", "B")
        for number, day in enumerate(days)
    ]
    losses = pd.DataFrame(rows, columns=["model", "symbol", "origin", "horizon", "crps", "qlike"])
    figures = bench_volatility.measure(losses)
    mean = 0.3 + 0.01 * np.mean([number % 3 for number in range(40)])
    assert figures["qlike_mlp_1"] == pytest.approx(mean)
    assert figures["qlike_mlp_to_har_log_1_ratio"] == pytest.approx(mean / 0.4)
    assert figures["qlike_mlp_to_har_log_1_symbols"] == 2.0
    text = bench_volatility.table(["har_log", "mlp"], figures)
    assert text.splitlines()[2:] == ["| `har_log` | 0.4000 | 1 |  |", "| `mlp` | 0.3097 | 0.7744 | 0.0000 |"]


@pytest.mark.slow
def test_networks_and_the_glm_keep_the_promised_ratio(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "tests" / "benchmarks" / "bench_volatility.py"),
        "--output",
        tmp_path,
    ]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert "NOT reached" not in done.stdout
    written = json.loads((tmp_path / "volatility.json").read_text(encoding="utf-8"))["figures"]
    for model in bench_volatility.PROMISED:
        name = f"qlike_{model}_to_har_log_1"
        assert written[f"{name}_ratio"]["median"] <= bench_volatility.BOUND
        assert written[f"{name}_p"]["median"] < 0.01
        assert written[f"{name}_symbols"]["median"] == 2
    assert (tmp_path / "volatility" / "forecasts.parquet").exists()
