"""The memory of an evening is stated beforehand, and held."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from forecaster.job import parse_job
from pipelines.memory import evening_memory, explain_memory

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import bench_scale

JOB = """
name: memory
prices: {kind: files, path: none.csv%s}
backtest: {start: 2008-01-01}
models: [{kind: zero}]
"""


def test_more_symbols_take_more_and_not_in_proportion() -> None:
    # Few symbols are held whole, many in files.
    for counts in ((1, 100, 250), (251, 1_000, 10_000, 20_000)):
        stated = [evening_memory(count) for count in counts]
        assert stated == sorted(stated)
        assert stated[-1] < 4.0
    assert evening_memory(1) < 1.0
    # What must be reached: a night of ten thousand symbols.
    assert evening_memory(10_000, workers=2) < 4.0


def test_a_job_says_what_it_takes() -> None:
    named = explain_memory(parse_job(JOB % ", symbols: [A, B, C]", "job.yaml"))
    assert named.endswith(f"network: {evening_memory(3):.1f} GiB for 3 symbols")
    unnamed = explain_memory(parse_job(JOB % "", "job.yaml"))
    assert f"{evening_memory(10_000):.1f} GiB for 10,000 symbols" in unnamed


@pytest.mark.slow
@pytest.mark.parametrize("count", [40, 300])
def test_what_is_stated_is_held_within_a_quarter(count: int, tmp_path: Path) -> None:
    """In memory, and by blocks in files."""
    options = argparse.Namespace(folder=tmp_path, workers=1)
    bench_scale._run("make", options, count)
    measured = bench_scale._run("night", options, count)["peak_gib"]
    assert evening_memory(count) == pytest.approx(measured, rel=0.25)
