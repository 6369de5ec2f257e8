"""Planted controls: what is there must be found, and what is not there must not."""

from __future__ import annotations

import numpy as np
import pytest
from planted import autoregression, garch, prices, random_walk

from forecaster.job import parse_job
from forecaster.prices.base import LoadedPrices, content_hash
from forecaster.windows import Panel
from pipelines.backtest import BacktestResult, backtest_job
from pipelines.loading import JobData

JOB = """
name: planted
prices: {kind: sample}
horizons: [1, 5]
lookback: 16
backtest: {start: 2006-01-01, refit_every: 520}
models:
  - {kind: zero}
  - {kind: historical}
  - {kind: ewma_fhs, residuals: pooled}
  - {kind: ridge, lags: 5, penalty: 10}
  - {kind: boosting, iterations: 30}
  - kind: convolution
    kernel: 3
    strategy: {kind: lagged, rows: 3}
    training: {epochs: 2}
"""
SESSIONS = 2600
SERIES = 4


def judge(returns: list[np.ndarray]) -> BacktestResult:
    frames = {f"S{number}": prices(series) for number, series in enumerate(returns)}
    data = JobData(Panel.from_prices(frames), LoadedPrices(frames, (), {}), content_hash(frames))
    return backtest_job(parse_job(JOB, "planted"), data, lambda *_: None)


def words(result: BacktestResult, model: str, column: str) -> list[str]:
    rows = result.verdicts[result.verdicts["model"] == model].sort_values("horizon")
    return [str(word) for word in rows[column]]


@pytest.fixture(scope="module")
def walk() -> BacktestResult:
    return judge([random_walk(SESSIONS, seed) for seed in range(SERIES)])


@pytest.fixture(scope="module")
def volatile() -> BacktestResult:
    return judge([garch(SESSIONS, seed) for seed in range(10, 10 + SERIES)])


def test_a_random_walk_is_judged_no_skill(walk: BacktestResult) -> None:
    for model in ("ewma_fhs", "ridge", "boosting", "convolution"):
        assert words(walk, model, "skill") == ["no skill"] * 2, model
    # The unconditional past belongs to the models that may be the best.
    assert words(walk, "historical", "confidence_set") == ["in"] * 2
    assert walk.champion.model in ("zero", "historical")


def test_the_direction_of_a_random_walk_is_not_forecast(walk: BacktestResult) -> None:
    scores = walk.scores.query("symbol == '*' and horizon == 1").set_index(["model", "metric"])["value"]
    n = scores["ridge", "origins"]
    assert abs(scores["ridge", "direction"] - 0.5) < 3.5 * 0.5 / np.sqrt(n)


def test_changing_volatility_is_found(volatile: BacktestResult) -> None:
    for model in ("ewma_fhs", "boosting", "convolution"):
        assert words(volatile, model, "skill") == ["skill"] * 2, model
    assert words(volatile, "historical", "confidence_set") == ["out"] * 2
    assert words(volatile, volatile.champion.model, "confidence_set") == ["in"] * 2
    assert words(volatile, "zero", "verdict") == ["worse"] * 2
    assert volatile.champion.model not in ("zero", "historical")


def test_intervals_hold_what_they_promise_under_changing_volatility(volatile: BacktestResult) -> None:
    scores = volatile.scores.query("symbol == '*' and horizon == 1").set_index(["model", "metric"])["value"]
    for model in ("ewma_fhs", "boosting", "convolution"):
        assert scores[model, "coverage_80"] == pytest.approx(0.8, abs=0.025), model
        assert scores[model, "coverage_95"] == pytest.approx(0.95, abs=0.015), model


def test_the_same_returns_shuffled_lose_the_skill() -> None:
    rng = np.random.default_rng(0)
    result = judge([rng.permutation(garch(SESSIONS, seed)) for seed in range(10, 10 + SERIES)])
    for model in ("ewma_fhs", "boosting", "convolution"):
        assert words(result, model, "skill") == ["no skill"] * 2, model
    assert words(result, "historical", "confidence_set") == ["in"] * 2


def test_a_mean_that_is_there_is_found() -> None:
    result = judge([autoregression(SESSIONS, seed, 0.25) for seed in range(SERIES)])
    assert words(result, "ridge", "skill")[0] == "skill"
    assert words(result, "historical", "confidence_set")[0] == "out"
    assert words(result, "ridge", "verdict")[0] in ("better", "best baseline")
    scores = result.scores.query("symbol == '*' and horizon == 1").set_index(["model", "metric"])["value"]
    explained = 1 - (scores["ridge", "rmse"] / scores["zero", "rmse"]) ** 2
    assert explained == pytest.approx(0.25**2, abs=0.02)
    assert result.champion.model == "ridge"
