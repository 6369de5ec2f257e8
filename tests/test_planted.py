"""Planted controls: what is there must be found, and what is not there must not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from planted import autoregression, garch, prices, random_walk
from test_models import FIELD, MODELS

from forecaster.job import parse_job
from forecaster.prices.base import LoadedPrices, content_hash
from forecaster.quantiles import quantile_columns
from forecaster.windows import Panel
from pipelines.backtest import BacktestResult, backtest_job
from pipelines.loading import JobData

JOB = """
name: planted
prices: {kind: sample}
horizons: [1, 5]
backtest: {start: 2006-01-01, refit_every: 520}
models: [%s]
"""
UNCONDITIONAL = ("zero", "historical")
SESSIONS = 2600
SERIES = 4


def judge(returns: list[np.ndarray], models: Sequence[str] = FIELD) -> BacktestResult:
    frames = {f"S{number}": prices(series) for number, series in enumerate(returns)}
    data = JobData(Panel.from_prices(frames), LoadedPrices(frames, (), {}), content_hash(frames))
    return backtest_job(parse_job(JOB % ", ".join(models), "planted"), data, lambda *_: None)


def words(result: BacktestResult, model: str, column: str) -> list[str]:
    rows = result.verdicts[result.verdicts["model"] == model].sort_values("horizon")
    return [str(word) for word in rows[column]]


@pytest.fixture(scope="module")
def walk() -> BacktestResult:
    return judge([random_walk(SESSIONS, seed) for seed in range(SERIES)])


@pytest.fixture(scope="module")
def volatile() -> BacktestResult:
    return judge([garch(SESSIONS, seed) for seed in range(10, 10 + SERIES)])


@pytest.mark.parametrize("model", MODELS)
def test_a_random_walk_is_judged_no_skill(model: str, walk: BacktestResult) -> None:
    assert words(walk, model, "skill") == ["no skill"] * 2


def test_the_past_distribution_of_a_random_walk_is_a_best_model(walk: BacktestResult) -> None:
    assert words(walk, "historical", "confidence_set") == ["in"] * 2
    assert walk.champion.model in UNCONDITIONAL


def test_the_direction_of_a_random_walk_is_not_forecast(walk: BacktestResult) -> None:
    scores = walk.scores.query("symbol == '*' and horizon == 1").set_index(["model", "metric"])["value"]
    n = scores["ridge", "origins"]
    assert abs(scores["ridge", "direction"] - 0.5) < 3.5 * 0.5 / np.sqrt(n)


@pytest.mark.parametrize("model", [name for name in MODELS if name not in UNCONDITIONAL])
def test_changing_volatility_is_found(model: str, volatile: BacktestResult) -> None:
    assert words(volatile, model, "skill") == ["skill"] * 2


def test_the_past_distribution_of_changing_volatility_is_no_best_model(volatile: BacktestResult) -> None:
    assert words(volatile, "historical", "confidence_set") == ["out"] * 2
    assert words(volatile, volatile.champion.model, "confidence_set") == ["in"] * 2
    assert words(volatile, "zero", "verdict") == ["worse"] * 2
    assert volatile.champion.model not in UNCONDITIONAL


def test_intervals_hold_what_they_promise_under_changing_volatility(volatile: BacktestResult) -> None:
    scores = volatile.scores.query("symbol == '*' and horizon == 1").set_index(["model", "metric"])["value"]
    for model in MODELS:
        if model in UNCONDITIONAL:
            continue
        assert scores[model, "coverage_80"] == pytest.approx(0.8, abs=0.025), model
        assert scores[model, "coverage_95"] == pytest.approx(0.95, abs=0.015), model


def test_what_scores_need_beside_forecasts_is_taken_from_the_right_sessions(volatile: BacktestResult) -> None:
    panel, model = volatile.data.panel, "ewma_fhs"
    part = panel.parts[2]
    returns, sessions = panel.returns[part], panel.sessions[part]
    place = {session: row for row, session in enumerate(sessions)}
    mine = volatile.forecasts.query("model == @model and symbol == 'S2' and horizon == 5")
    tails = volatile.tails.query("model == @model and symbol == 'S2' and horizon == 5")
    assert mine["origin"].tolist() == tails["origin"].tolist()
    # Training ends five sessions before the first refit, so that its last outcome is known.
    first = place[np.datetime64(mine["origin"].iloc[0], "D")]
    warm_up = int(volatile.folds[0].train.panel.positions[volatile.folds[0].train.rows].min())
    naive = np.mean([abs(returns[t + 1 : t + 6].sum()) for t in range(warm_up, first - 5 + 1)])
    likelihoods, errors = [], []
    for origin, y, middle, variance in zip(
        mine["origin"], mine["y"], mine["q0.5"], tails["variance"], strict=True
    ):
        row = place[np.datetime64(origin, "D")]
        if row + 5 < len(returns):
            ratio = np.square(returns[row + 1 : row + 6]).sum() / variance
            likelihoods.append(ratio - np.log(ratio) - 1)
            errors.append(abs(y - middle) / naive)
    scores = volatile.scores.query("symbol == 'S2' and horizon == 5").set_index(["model", "metric"])["value"]
    assert scores[model, "origins"] == len(errors)
    assert scores[model, "qlike"] == pytest.approx(np.mean(likelihoods), rel=1e-9)
    assert scores[model, "mase"] == pytest.approx(np.mean(errors), rel=1e-9)


def test_variances_are_judged_among_the_models_that_state_them(volatile: BacktestResult) -> None:
    table = volatile.variance_verdicts
    stating = set(volatile.tails["model"])
    assert "ewma_fhs" in stating
    assert set(table["model"]) == stating
    assert set(table["verdict"]) <= {"better", "as good as", "worse", "cannot tell", "best baseline"}
    pooled = volatile.scores.query("symbol == '*' and metric == 'qlike'").set_index(["model", "horizon"])[
        "value"
    ]
    for row in table.to_dict("records"):
        ratio = pooled[row["model"], row["horizon"]] / pooled[row["baseline"], row["horizon"]]
        assert row["qlike_ratio"] == pytest.approx(ratio, rel=1e-9)
    for name in (
        "fissler_ziegel_0.05",
        "crps_normalised",
        "crps_without_drift",
        "hit_rate_0.01",
        "kupiec_p_0.05",
    ):
        assert name in set(volatile.scores.query("model == 'ewma_fhs'")["metric"]), name
    assert list(volatile.forecasts.columns) == [
        "model",
        "symbol",
        "origin",
        "horizon",
        "y",
        *quantile_columns(),
    ]


@pytest.fixture(scope="module")
def shuffled() -> BacktestResult:
    rng = np.random.default_rng(0)
    return judge([rng.permutation(garch(SESSIONS, seed)) for seed in range(10, 10 + SERIES)])


@pytest.mark.parametrize("model", MODELS)
def test_the_same_returns_shuffled_lose_the_skill(model: str, shuffled: BacktestResult) -> None:
    assert words(shuffled, model, "skill") == ["no skill"] * 2


def test_a_mean_that_is_there_is_found() -> None:
    models = ["{kind: zero}", "{kind: historical}", "{kind: ewma_fhs}", "{kind: ridge, lags: 5, penalty: 10}"]
    result = judge([autoregression(SESSIONS, seed, 0.25) for seed in range(SERIES)], models)
    assert words(result, "ridge", "skill")[0] == "skill"
    assert words(result, "historical", "confidence_set")[0] == "out"
    assert words(result, "ridge", "verdict")[0] in ("better", "best baseline")
    scores = result.scores.query("symbol == '*' and horizon == 1").set_index(["model", "metric"])["value"]
    explained = 1 - (scores["ridge", "rmse"] / scores["zero", "rmse"]) ** 2
    assert explained == pytest.approx(0.25**2, abs=0.02)
    assert result.champion.model == "ridge"
