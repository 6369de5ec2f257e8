"""The memory of an evening and of a backtest is stated beforehand, and held."""

from __future__ import annotations

import argparse
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from forecaster.job import Job, parse_job
from pipelines.memory import backtest_memory, evening_memory, explain_memory, fitting_memory

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import bench_scale

JOB = """
name: memory
prices: {kind: files, path: none.csv%s}
backtest: {start: 2008-01-01}
models: [{kind: zero}]
"""
UNTIL = date(2023, 12, 29)
BACKTEST = """
name: memory
prices: {kind: files, path: prices.parquet}
workspace: %s
backtest: {start: 2016-01-04, refit_every: 1100}
engine: {workers: %d}
models:
  - {kind: historical}
  - {kind: harx_fhs}
  - kind: convolution
    strategy: {kind: lagged, lags: [0, 1, 5, 21]}
    training: {epochs: 1, seeds: 1}
"""


def job_of(**settings: object) -> Job:
    made = parse_job(BACKTEST % ("workspace", 1), "job.yaml").model_dump() | settings
    return Job.model_validate(made)


def test_more_symbols_take_more_and_not_in_proportion() -> None:
    # Few symbols are held whole, many in files.
    for counts in ((1, 100, 250), (251, 1_000, 10_000, 20_000)):
        stated = [evening_memory(count) for count in counts]
        assert stated == sorted(stated)
        assert stated[-1] < stated[-2] * counts[-1] / counts[-2]
    assert evening_memory(1) < 1.0
    # What must be reached: a night of ten thousand symbols.
    assert evening_memory(10_000, workers=2) < 4.0


def test_a_job_says_what_it_takes() -> None:
    job = parse_job(JOB % ", symbols: [A, B, C]", "job.yaml")
    evening, backtest = explain_memory(job, UNTIL).splitlines()
    assert evening.endswith(f"network: {evening_memory(3):.1f} GiB for 3 symbols")
    # Sixteen years of 252 sessions, less two days.
    assert ", workers: 1, on thirty years of prices and 4,030 test sessions: " in backtest
    assert f"{backtest_memory(job, 3, UNTIL):.1f} GiB for 3 symbols; `forecaster run` takes 0." in backtest
    for store, whole in (("", True), ("store: prices", False)):
        unnamed = explain_memory(parse_job(JOB % "" + store, "job.yaml"), UNTIL)
        assert f"{evening_memory(10_000, whole=whole):.1f} GiB for 10,000 symbols" in unnamed
    assert evening_memory(10_000, whole=True) > 2 * evening_memory(10_000)
    assert evening_memory(100, whole=True) == evening_memory(100)
    away = job_of(engine={"kind": "dask", "address": "tcp://127.0.0.1:8786"})
    assert explain_memory(away, UNTIL).splitlines()[2] == (
        f"memory of each worker of the cluster: {fitting_memory(away, 100):.1f} GiB for 100 symbols, "
        f"{fitting_memory(away, 1_000):.1f} GiB for 1,000 symbols, "
        f"{fitting_memory(away, 10_000):.1f} GiB for 10,000 symbols"
    )


def test_a_backtest_takes_what_it_does_at_once() -> None:
    one = backtest_memory(job_of(), 100, UNTIL)
    two, four = (backtest_memory(job_of(engine={"workers": number}), 100, UNTIL) for number in (2, 4))
    fitting = fitting_memory(job_of(), 100)
    assert 1.5 * fitting < four - two < 2 * fitting, "they share what is read from the same files"
    assert one < two < one + 2 * fitting
    threads = backtest_memory(job_of(engine={"kind": "threading", "workers": 2}), 100, UNTIL)
    assert one < threads < two, "TensorFlow is loaded once"
    # Longer tests are scored, and more is learned from, but where it is said how much.
    span = {"start": "2016-01-04", "end": "2017-01-04"}
    assert backtest_memory(job_of(backtest=span), 100, UNTIL) < one
    assert backtest_memory(job_of(backtest=span), 100, date(2016, 6, 30)) < one
    few = job_of(backtest=span | {"learn_from": 100})
    assert fitting_memory(few, 100) == fitting
    assert fitting < fitting_memory(few, 1_000) < fitting_memory(job_of(), 1_000)


@pytest.mark.slow
@pytest.mark.parametrize("count", [40, 300])
def test_what_is_stated_is_held_within_a_quarter(count: int, tmp_path: Path) -> None:
    """In memory, and by blocks in files."""
    options = argparse.Namespace(folder=tmp_path, workers=1)
    bench_scale._run("make", options, count)
    measured = bench_scale._run("night", options, count)["peak_gib"]
    print(f"stated {evening_memory(count):.2f}, measured {measured:.2f} GiB")
    assert evening_memory(count) == pytest.approx(measured, rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "workers"), [(20, 1), (60, 2)])
def test_what_is_stated_of_a_backtest_is_held_within_a_quarter(
    count: int, workers: int, tmp_path: Path
) -> None:
    """Training included: the command itself, on thirty years of prices."""
    sessions = pd.bdate_range(end=UNTIL, periods=bench_scale.SESSIONS, freq="B", unit="s")
    returns = bench_scale._garch(np.random.default_rng(0), count, 0.013)
    prices = pd.DataFrame(
        {
            "symbol": np.repeat([f"S{number:05d}" for number in range(count)], len(sessions)),
            "session": np.tile(sessions, count),
            "close": 50.0 * np.exp(np.cumsum(returns, axis=0)).T.ravel(),
        }
    )
    prices.assign(open=prices["close"], high=prices["close"], low=prices["close"], volume=1e6).to_parquet(
        tmp_path / "prices.parquet"
    )
    text = BACKTEST % (tmp_path / "workspace", workers)
    (tmp_path / "job.yaml").write_text(text)
    command = [sys.executable, "-m", "pipelines.cli", "backtest", str(tmp_path / "job.yaml")]
    _, measured = bench_scale.watched([*command, "--output", str(tmp_path / "out")])
    stated = backtest_memory(parse_job(text, "job.yaml"), count, UNTIL)
    print(f"stated {stated:.2f}, measured {measured['peak_gib']:.2f} GiB")
    assert stated == pytest.approx(measured["peak_gib"], rel=0.25)
