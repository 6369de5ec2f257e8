"""Tests of loss differences against a slow formula, their size and power, and every verdict provoked."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from arch.bootstrap import MCS, StationaryBootstrap
from arch.covariance import kernel as covariance_kernel
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats

from forecaster.errors import ParameterError
from forecaster.models.econometric import EwmaForecaster
from forecaster.models.naive import HistoricalForecaster
from forecaster.quantiles import LEVELS
from forecaster.scores import crps, row_scores
from forecaster.significance import (
    choose_champion,
    confidence_set,
    daily_losses,
    diebold_mariano,
    mean_ratios,
    superior_ability,
    verdicts,
)
from forecaster.walkforward import backtest, folds, forecast_table
from forecaster.windows import Panel

Array = NDArray[np.float64]


def overlapping(rng: np.random.Generator, n: int, horizon: int) -> Array:
    """A moving average of order h - 1: what losses of overlapping outcomes look like."""
    noise = rng.standard_normal(n + horizon - 1)
    return np.convolve(noise, np.ones(horizon) / math.sqrt(horizon), mode="valid")


def losses_of(horizon: int = 1, **models: Array) -> pd.DataFrame:
    """Daily losses of one horizon, as `daily_losses` gives them."""
    days = pd.date_range("2010-01-01", periods=len(next(iter(models.values()))))
    index = pd.MultiIndex.from_product([[horizon], days], names=["horizon", "origin"])
    return pd.DataFrame(models, index=index).rename_axis(columns="model")


def slow_diebold_mariano(difference: Array, horizon: int) -> tuple[float, float]:
    """Statistic and p-value: autocovariance by autocovariance, then the correction for small samples."""
    d = difference.tolist()
    n = len(d)
    mean = sum(d) / n
    lags = min(max(4 * horizon, math.floor(4 * (n / 100) ** (2 / 9))), n - 1)
    variance = squares = 0.0
    # What a sample of independent values of variance one would give: the correction for small samples.
    expected = 0.0
    for lag in range(-lags, lags + 1):
        x = abs(lag) / (lags + 1)
        weight = 1 - 6 * x**2 + 6 * x**3 if x <= 0.5 else 2 * (1 - x) ** 3
        covariance = sum((d[t] - mean) * (d[t - abs(lag)] - mean) for t in range(abs(lag), n)) / n
        variance += weight * covariance
        squares += weight**2
        expected += weight * ((lag == 0) - (n - abs(lag)) / n / n)
    statistic = mean / math.sqrt(variance / n / expected)
    return statistic, 2 * float(stats.t.cdf(-abs(statistic), min(n / squares, n - 1)))


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from([1, 2, 5, 21]),
    st.integers(50, 120),
    st.integers(0, 2**32 - 1),
    st.floats(-1.0, 1.0),
)
def test_diebold_mariano_is_the_slow_formula(horizon: int, n: int, seed: int, shift: float) -> None:
    difference = overlapping(np.random.default_rng(seed), n, horizon) + shift
    test = diebold_mariano(difference, horizon)
    statistic, p_value = slow_diebold_mariano(difference, horizon)
    assert test.statistic == pytest.approx(statistic, rel=1e-9, abs=1e-9)
    assert test.p_value == pytest.approx(p_value, rel=1e-7, abs=1e-9)
    assert test.difference == pytest.approx(difference.mean())
    assert test.standard_error == pytest.approx(abs(test.difference / test.statistic), rel=1e-9)
    assert test.observations == n


@settings(deadline=None, max_examples=50)
@given(
    hnp.arrays(np.float64, st.integers(20, 40), elements=st.floats(-5, 5)),
    st.sampled_from([1, 5]),
    st.sampled_from([0.001, 16.0]),
)
def test_swapping_the_models_turns_the_sign_and_the_unit_does_not_matter(
    difference: Array, horizon: int, unit: float
) -> None:
    one, other = diebold_mariano(difference, horizon), diebold_mariano(-unit * difference, horizon)
    assert other.difference == pytest.approx(-unit * one.difference, abs=1e-12)
    assert 0.0 <= one.p_value <= 1.0
    if one.standard_error > 1e-9:
        assert other.p_value == pytest.approx(one.p_value, abs=1e-9)


@pytest.mark.parametrize(("horizon", "n"), [(1, 250), (5, 500), (21, 1000)])
def test_equal_models_are_told_apart_in_about_one_of_twenty_samples(horizon: int, n: int) -> None:
    rng = np.random.default_rng(horizon)
    p_values = [diebold_mariano(overlapping(rng, n, horizon), horizon).p_value for _ in range(800)]
    rejected = np.mean(np.array(p_values) < 0.05)
    # That the overlap is ignored would give 40% at h = 5 and 65% at h = 21.
    assert 0.025 <= rejected <= 0.08


def clustered(rng: np.random.Generator, n: int, horizon: int) -> Array:
    """Overlapping sums of noise whose variance comes in clusters, as losses do."""
    noise, variance = rng.standard_normal(n + horizon + 199), 1.0
    for t, shock in enumerate(noise):
        noise[t] = math.sqrt(variance) * shock
        variance = 0.02 + 0.08 * noise[t] ** 2 + 0.9 * variance
    return np.convolve(noise[200:], np.ones(horizon) / math.sqrt(horizon), mode="valid")


@pytest.mark.slow
@pytest.mark.parametrize("draw", [overlapping, clustered])
@pytest.mark.parametrize(("horizon", "n"), [(1, 250), (5, 250), (5, 1000), (21, 250), (21, 1000)])
def test_the_size_of_the_test(draw: Callable[..., Array], horizon: int, n: int) -> None:
    rng = np.random.default_rng(100 + horizon)
    p_values = [diebold_mariano(draw(rng, n, horizon), horizon).p_value for _ in range(2000)]
    # Two standard errors of the simulation beyond 4 and 6.5%; 2h Bartlett lags and a Student distribution of
    # n - 1 degrees of freedom reject 7 to 12%.
    assert 0.031 <= np.mean(np.array(p_values) < 0.05) <= 0.076


def test_the_long_run_variance_is_that_of_another_library() -> None:
    difference = overlapping(np.random.default_rng(3), 300, 5) + 0.2
    test = diebold_mariano(difference, 5)
    theirs = covariance_kernel.Parzen(difference, bandwidth=20, df_adjust=0, center=True).cov.long_run
    weights = np.asarray(covariance_kernel.Parzen(difference, bandwidth=20).kernel_weights)[1:]
    lags = np.arange(1, len(weights) + 1)
    expected = 1 - (1 + 2 * weights.sum()) / 300 + 2 * lags @ weights / 300**2
    error = math.sqrt(float(np.squeeze(theirs)) / 300 / expected)
    assert test.standard_error == pytest.approx(error, rel=1e-9)
    assert test.degrees_of_freedom == pytest.approx(300 / (1 + 2 * weights @ weights), rel=1e-9)


def test_lags_that_span_most_of_a_sample_are_allowed_for() -> None:
    # Independent days, of which 40 lags of 60 leave less than two degrees of freedom.
    rng = np.random.default_rng(11)
    tests = [diebold_mariano(rng.standard_normal(60), 10) for _ in range(1500)]
    assert tests[0].degrees_of_freedom < 3
    assert 0.015 <= np.mean([test.p_value < 0.05 for test in tests]) <= 0.075


def test_a_planted_difference_is_found() -> None:
    rng = np.random.default_rng(4)
    # Four standard errors of the mean of an overlapping series: found in more than nine of ten samples.
    shift = 4 * math.sqrt(5 / 500)
    found = [diebold_mariano(overlapping(rng, 500, 5) - shift, 5) for _ in range(200)]
    assert np.mean([test.p_value < 0.05 and test.statistic < 0 for test in found]) > 0.9


def test_identical_models_are_not_told_apart() -> None:
    test = diebold_mariano(np.zeros(100), 5)
    assert (test.difference, test.standard_error, test.p_value) == (0.0, 0.0, 1.0)
    assert math.isnan(test.statistic)


def test_a_constant_difference_is_certain() -> None:
    assert diebold_mariano(np.full(100, 0.5), 5).p_value == 0.0


@pytest.mark.parametrize(("horizon", "needed"), [(1, 10), (5, 18), (21, 50)])
def test_too_few_days_are_refused(horizon: int, needed: int) -> None:
    days = np.arange(float(needed))
    assert diebold_mariano(days, horizon).observations == needed
    with pytest.raises(ParameterError) as caught:
        diebold_mariano(days[1:], horizon)
    assert str(caught.value) == (
        f"a test of losses at horizon {horizon} needs at least {needed} days. Received: {needed - 1}"
    )


# Daily losses


def score_rows(**columns: list[object]) -> pd.DataFrame:
    frame = pd.DataFrame({"horizon": 1, "origin": pd.Timestamp("2020-01-01")} | columns)
    return frame.assign(crps=frame["crps"].astype(float))


def test_daily_losses_are_means_over_symbols_by_day_and_horizon() -> None:
    days = pd.to_datetime(["2020-01-02", "2020-01-01"])
    rows = pd.DataFrame(
        [
            (model, symbol, day, horizon, weight * (place + 1) * horizon)
            for weight, model in ((1.0, "m"), (10.0, "NA"))
            for place, symbol in enumerate("AB")
            for day in days
            for horizon in (5, 1)
        ],
        columns=["model", "symbol", "origin", "horizon", "crps"],
    )
    losses = daily_losses(rows.sample(frac=1.0, random_state=2))
    assert losses.index.names == ["horizon", "origin"]
    assert losses.index.tolist() == [(h, day) for h in (1, 5) for day in sorted(days)]
    assert set(losses.columns) == {"m", "NA"}
    assert losses["m"].tolist() == [1.5, 1.5, 7.5, 7.5]
    assert losses["NA"].tolist() == [15.0, 15.0, 75.0, 75.0]


def test_models_that_did_not_forecast_the_same_are_not_compared() -> None:
    refused = pytest.raises(
        ParameterError,
        match=r"^models are compared on identical origins\. Received: some that not every model",
    )
    with refused:  # a day is missing
        daily_losses(
            score_rows(
                model=["a", "a", "b"],
                symbol=["X"] * 3,
                crps=[1, 2, 3],
                origin=list(pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-01"])),
            )
        )
    with refused:  # a symbol is missing, and the mean over the others would not show it
        daily_losses(score_rows(model=["a", "a", "b"], symbol=["X", "Y", "X"], crps=[1, 2, 3]))
    with refused:  # as many, but others
        daily_losses(score_rows(model=["a", "b"], symbol=["X", "Y"], crps=[1, 2]))
    with pytest.raises(ParameterError, match=r"a model forecasts an origin once. Received: .* twice"):
        daily_losses(score_rows(model=["a", "a"], symbol=["X", "X"], crps=[1, 2]))


# The whole field


def field(rng: np.random.Generator, n: int, models: int, horizon: int, common: float = 1.0) -> pd.DataFrame:
    """Losses of equally good models that share most of their noise, as models of one market do."""
    shared = common * overlapping(rng, n, horizon)
    return pd.DataFrame({f"m{k}": 3.0 + shared + 0.1 * overlapping(rng, n, horizon) for k in range(models)})


def slow_confidence_set(losses: Array, horizon: int, draws: list[Array]) -> dict[int, float]:
    """Hansen, Lunde and Nason (2011), section 3.1.2, with the range statistic, by loops over the draws."""
    models = list(range(losses.shape[1]))
    means = losses.mean(axis=0)
    resampled = np.array([losses[days].mean(axis=0) for days in draws])
    p_values, largest = {}, 0.0
    while len(models) > 1:
        pairs = [(i, j) for i in models for j in models if i != j]
        tests = {pair: diebold_mariano(losses[:, pair[0]] - losses[:, pair[1]], horizon) for pair in pairs}
        worst = max(pairs, key=lambda pair: tests[pair].statistic)
        statistic = stats.norm.isf(tests[worst].p_value / 2)
        away = {(i, j): (resampled[:, i] - resampled[:, j]) - (means[i] - means[j]) for i, j in pairs}
        ranges = np.array([one / math.sqrt(np.mean(one**2)) for one in away.values()]).max(axis=0)
        largest = max(largest, float(np.mean(ranges > statistic)))
        p_values[worst[0]] = largest
        models.remove(worst[0])
    return p_values | {models[0]: 1.0}


def test_the_confidence_set_is_the_slow_elimination() -> None:
    losses = field(np.random.default_rng(21), 200, 4, 2) + np.array([0.0, 0.01, 0.03, 0.06])
    ours = confidence_set(losses, 2)
    # Other draws of the same kind.
    draws = [data[0][0] for data in StationaryBootstrap(6, np.arange(200), seed=5).bootstrap(2000)]
    slow = slow_confidence_set(losses.to_numpy(), 2, draws)
    for place, model in enumerate(losses.columns):
        assert ours[model] == pytest.approx(slow[place], abs=0.04), model
    assert 0.0 < ours["m2"] < 1.0


def test_over_many_days_the_confidence_set_is_that_of_the_library() -> None:
    losses = field(np.random.default_rng(30), 4000, 6, 1) + np.array([0.0, 0.0, 0.003, 0.004, 0.005, 0.02])
    library = MCS(losses, 0.1, reps=2000, block_size=15, seed=1)
    library.compute()
    theirs = library.pvalues["Pvalue"]
    ours = confidence_set(losses, 1)
    for model in losses.columns:
        assert ours[model] == pytest.approx(theirs[model], abs=0.06), model
    assert 0.02 < ours.median() < 0.9


def test_the_confidence_set_always_says_the_same_and_heeds_no_order_unit_or_place() -> None:
    losses = field(np.random.default_rng(22), 300, 5, 5) + 0.02 * np.arange(5)
    first = confidence_set(losses, 5)
    pd.testing.assert_series_equal(confidence_set(losses, 5), first)
    turned = confidence_set(losses[losses.columns[::-1]], 5)
    # But for signs in the last bit: pairs are taken the other way round.
    pd.testing.assert_series_equal(turned.reindex(first.index), first, atol=0.002)
    pd.testing.assert_series_equal(confidence_set(64.0 * losses, 5), first)
    assert first.max() == first[str(losses.mean().idxmin())] == 1.0


def test_models_that_differ_by_a_constant_need_no_bootstrap() -> None:
    noise = 1.0 + 0.01 * np.random.default_rng(23).standard_normal(100)
    losses = pd.DataFrame(
        {"worse": noise + 0.1, "one": noise, "twin": noise, "other": noise[::-1], "far": noise[::-1] + 9}
    )
    p_values = confidence_set(losses, 1)
    assert p_values["worse"] == p_values["far"] == 0.0
    assert p_values["one"] == p_values["twin"]
    assert p_values.loc[["one", "other"]].max() == 1.0
    assert confidence_set(losses[["one", "twin"]], 1).tolist() == [1.0, 1.0]
    assert confidence_set(losses[["worse", "one"]], 1).tolist() == [0.0, 1.0]
    assert confidence_set(losses[["one"]], 1).tolist() == [1.0]


def test_too_few_days_make_no_confidence_set() -> None:
    with pytest.raises(ParameterError) as caught:
        confidence_set(field(np.random.default_rng(0), 17, 2, 5), 5)
    assert str(caught.value) == "a confidence set at horizon 5 needs at least 18 days. Received: 17"


def test_the_confidence_set_drops_the_worse_and_keeps_the_best() -> None:
    rng = np.random.default_rng(24)
    kept_best, dropped = [], []
    for _ in range(20):
        losses = field(rng, 400, 6, 1) + np.array([0.0, 0.0, 0.0, 0.03, 0.03, 0.03])
        p_values = confidence_set(losses, 1)
        kept_best.append((p_values.loc[["m0", "m1", "m2"]] > 0.1).all())
        dropped.append((p_values.loc[["m3", "m4", "m5"]] <= 0.1).all())
    assert np.mean(kept_best) >= 0.75
    assert np.mean(dropped) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("horizon", "n"), [(1, 300), (5, 600), (21, 1000)])
def test_a_field_of_equals_rarely_loses_its_baseline(horizon: int, n: int) -> None:
    rng = np.random.default_rng(25)
    equal = [confidence_set(field(rng, n, 6, horizon), horizon) > 0.1 for _ in range(200)]
    # In 90% of fields none should be lost, so that a given one is lost in fewer still; the library's own
    # elimination loses one in a quarter of the fields at horizon 5 and in a third at 21.
    assert np.mean([kept.all() for kept in equal]) >= 0.8
    assert np.mean([kept["m0"] for kept in equal]) >= 0.93


def test_superior_ability_by_the_studentized_formula() -> None:
    rng = np.random.default_rng(26)
    losses = field(rng, 300, 4, 1) + np.array([0.0, -0.004, 0.01, 0.5])
    ours = superior_ability(losses, "m0", 1)
    # Hansen (2005), section 2.2: the largest standardised gain, against draws centred where it matters.
    gains = losses["m0"].to_numpy()[:, None] - losses[["m1", "m2", "m3"]].to_numpy()
    n = len(gains)
    deviation = np.array([diebold_mariano(gain, 1).standard_error for gain in gains.T])
    statistic = (gains.mean(axis=0) / deviation).max()
    centre = np.where(gains.mean(axis=0) / deviation >= -math.sqrt(2 * math.log(math.log(n))), 1, 0)
    draws = [data[0][0] for data in StationaryBootstrap(6, np.arange(n), seed=8).bootstrap(1000)]
    largest = [((gains[days].mean(axis=0) - centre * gains.mean(axis=0)) / deviation).max() for days in draws]
    assert ours == pytest.approx(np.mean(np.array(largest) > statistic), abs=0.04)
    assert 0.001 < ours < 0.5


def test_superior_ability_finds_a_better_model_and_none_among_worse_ones() -> None:
    rng = np.random.default_rng(27)
    losses = field(rng, 400, 5, 5)
    assert superior_ability(losses - 0.1 * (losses.columns == "m3"), "m0", 5) < 0.05
    assert superior_ability(losses + 0.1 * (losses.columns != "m0"), "m0", 5) == 1.0
    # A model of wild losses beside a better one does not hide it: each is taken in its own unit.
    wild = losses.assign(m4=losses["m4"] + 5 * rng.standard_normal(400) + 0.3, m3=losses["m3"] - 0.1)
    assert superior_ability(wild, "m0", 5) < 0.05


def test_superior_ability_without_rivals() -> None:
    losses = field(np.random.default_rng(28), 100, 1, 1)
    assert superior_ability(losses, "m0", 1) == 1.0
    assert superior_ability(losses.assign(twin=losses["m0"]), "m0", 1) == 1.0
    assert superior_ability(losses.assign(lower=losses["m0"] - 0.1), "m0", 1) == 0.0
    assert superior_ability(losses.assign(higher=losses["m0"] + 0.1), "m0", 1) == 1.0


# Verdicts


def test_many_models_do_not_make_one_better_by_chance() -> None:
    # Fields of equals of which one, by luck, is better than the baseline by the test of the two alone.
    rng = np.random.default_rng(29)
    lucky = better = 0
    for _ in range(100):
        losses = field(rng, 250, 8, 1)
        best = losses.mean().idxmin()
        test = diebold_mariano((losses[best] - losses["m0"]).to_numpy(), 1)
        if best != "m0" and test.p_value < 0.05:
            lucky += 1
            days = pd.date_range("2010-01-01", periods=len(losses))
            losses.index = pd.MultiIndex.from_product([[1], days], names=["horizon", "origin"])
            table = verdicts(losses, "m0", "m0")
            better += int(table[["verdict", "skill"]].isin(["better", "skill"]).to_numpy().any())
    assert lucky >= 8, lucky
    assert better <= lucky / 2


def test_losses_other_than_the_crps_are_judged_alike() -> None:
    rows = score_rows(model=["a", "a", "b", "b"], symbol=["X", "Y", "X", "Y"], crps=[1, 2, 3, 4])
    losses = daily_losses(rows.rename(columns={"crps": "qlike"}), "qlike")
    assert losses.iloc[0].tolist() == [1.5, 3.5]
    table = verdicts(losses_of(1, a=1 + 0.01 * NOISE, b=2 + 0.01 * NOISE), "a", None, "qlike")
    assert table["qlike_ratio"].tolist() == pytest.approx([1.0, 2.0])
    assert "crps_ratio" not in table


def verdict_of(mine: Array, horizon: int = 1, reference: str | None = "base") -> dict[str, object]:
    n = len(mine)
    base = 1.0 + 0.01 * np.random.default_rng(0).standard_normal(n)
    table = verdicts(losses_of(horizon, base=base, mine=base + mine), "base", reference)
    assert table["model"].tolist() == ["base", "mine"]
    assert table["verdict"].tolist()[0] == "best baseline"
    return {str(name): value for name, value in table.iloc[1].items()}


NOISE = np.random.default_rng(1).standard_normal(400)
NOISE -= NOISE.mean()


@pytest.mark.parametrize(
    ("mine", "verdict", "skill"),
    [
        (0.01 * NOISE - 0.002, "better", "skill"),
        (0.01 * NOISE + 0.002, "worse", "no skill"),
        (0.01 * NOISE, "as good as", "no skill"),
        (0.001 * NOISE + 0.004, "worse", "no skill"),
        # A standard error of .0051: the 90% interval ends at 1.0084, or .006 lower.
        (0.12 * NOISE, "cannot tell", "no skill"),
        (0.12 * NOISE - 0.006, "as good as", "no skill"),
        (np.zeros(400), "as good as", "no skill"),
        (0.07 * NOISE[:9], "cannot tell", "no skill"),
    ],
    ids=["better", "worse", "equal", "barely worse", "noisy", "noisy but lower", "identical", "nine days"],
)
def test_each_verdict_can_be_provoked(mine: Array, verdict: str, skill: str) -> None:
    row = verdict_of(mine)
    assert (row["verdict"], row["skill"]) == (verdict, skill)


def test_a_table_of_verdicts_holds_what_the_words_rest_on() -> None:
    rng = np.random.default_rng(2)
    base = 1.0 + 0.1 * rng.standard_normal(500)
    models = {"base": base, "mine": base - 0.01 + 0.05 * rng.standard_normal(500), "none": base + 0.2}
    short = losses_of(1, **models)
    long = losses_of(21, **models)
    table = verdicts(pd.concat([short, long]), "base", "none")
    assert list(table.columns) == [
        "model", "horizon", "baseline", "crps_ratio", "p_value", "verdict", "smallest_detectable", "skill",
        "confidence_set", "mcs_p_value", "spa_p_value",
    ]  # fmt: skip
    assert table[["model", "horizon"]].to_numpy().tolist() == [
        [model, h] for h in (1, 21) for model in ("base", "mine", "none")
    ]
    for row in table[table["model"] == "mine"].to_dict("records"):
        test = diebold_mariano(models["mine"] - base, row["horizon"])
        assert row["p_value"] == pytest.approx(test.p_value)
        assert row["crps_ratio"] == pytest.approx(models["mine"].mean() / base.mean())
        # What a two-sided test at 5% finds with a probability of 80%: 1.96 + .84 standard errors.
        powered = sum(stats.t.ppf(share, test.degrees_of_freedom) for share in (0.975, 0.8))
        assert row["smallest_detectable"] == pytest.approx(powered * test.standard_error / base.mean())
        in_set = confidence_set(pd.DataFrame(models), row["horizon"])["mine"]
        assert row["mcs_p_value"] == in_set
        assert row["confidence_set"] == "in"
        assert math.isnan(row["spa_p_value"])
    for row in table[table["model"] == "base"].to_dict("records"):
        assert row["verdict"] == "best baseline"
        assert row["skill"] == "skill"
        assert math.isnan(row["p_value"])
        assert math.isnan(row["smallest_detectable"])
        assert row["spa_p_value"] == superior_ability(pd.DataFrame(models), "base", row["horizon"])
    assert table.loc[table["model"] == "none", "confidence_set"].tolist() == ["out", "out"]
    assert set(table.loc[table["model"] == "none", "skill"]) == {"no skill"}
    assert set(table["baseline"]) == {"base"}


def verdict_size(sample: Array) -> float:
    test = diebold_mariano(sample, 5)
    return float(
        test.standard_error * sum(stats.t.ppf(share, test.degrees_of_freedom) for share in (0.975, 0.8))
    )


def test_the_power_that_a_table_promises_is_there() -> None:
    rng = np.random.default_rng(6)
    base = np.ones(400)
    samples = [0.02 * overlapping(rng, 400, 5) for _ in range(400)]
    table = verdicts(losses_of(5, base=base, mine=base + samples[0] - samples[0].mean()), "base", None)
    promised = np.median([verdict_size(sample) for sample in samples[:50]])
    assert table["smallest_detectable"].tolist()[1] == pytest.approx(verdict_size(samples[0]))
    tests = [diebold_mariano(sample - promised, 5) for sample in samples]
    found = [test.p_value < 0.05 and test.difference < 0 for test in tests]
    assert np.mean(found) == pytest.approx(0.8, abs=0.08)


def test_without_a_reference_skill_is_not_judged() -> None:
    assert verdict_of(0.01 * NOISE - 0.002, reference=None)["skill"] == ""
    assert verdict_of(0.01 * NOISE[:9], reference=None)["skill"] == ""


def test_a_long_horizon_with_too_few_days_leaves_the_short_one_its_verdict() -> None:
    base = np.ones(40) + 0.01 * NOISE[:40]
    models = {"base": base, "mine": base - 0.1 + 0.01 * NOISE[40:80]}
    table = verdicts(pd.concat([losses_of(1, **models), losses_of(21, **models)]), "base", "base")
    assert table["verdict"].tolist() == ["best baseline", "better", "best baseline", "cannot tell"]


# The champion


def test_the_better_complex_model_is_promoted() -> None:
    losses = losses_of(1, simple=1.0 + 0.01 * NOISE, middle=np.full(400, 0.99), complex=0.9 + 0.01 * NOISE)
    champion = choose_champion(losses, ["simple", "middle", "complex"], "simple")
    assert champion.model == "complex"
    assert champion.reason == (
        "complex has the lowest CRPS over all horizons (0.9000 of simple) and is significantly better than "
        "every simpler model"
    )
    assert champion.mean_ratios == pytest.approx({"simple": 1.0, "middle": 0.99, "complex": 0.9})


def test_the_simplest_that_is_not_beaten_wins() -> None:
    losses = losses_of(
        1,
        simple=1.1 + 0.01 * NOISE,
        middle=1.0 + 0.01 * NOISE,
        other=1.0 + 0.01 * NOISE[::-1],
        complex=0.9999 + 0.01 * np.roll(NOISE, 7),
    )
    champion = choose_champion(losses, ["simple", "middle", "other", "complex"], "middle")
    assert champion.model == "middle"
    assert champion.reason.startswith(
        "complex has the lowest CRPS over all horizons (0.9999 of middle), but is not significantly better "
        "than the simpler middle (1.0000; p = 0."
    )
    # The other order of the two equals: the tie goes to whichever is called the simpler.
    assert choose_champion(losses, ["simple", "other", "middle", "complex"], "middle").model == "other"


@pytest.mark.parametrize(("gain", "promoted"), [(1.5, False), (2.4, True)])
def test_a_model_is_promoted_at_five_percent(gain: float, promoted: bool) -> None:
    error = diebold_mariano(0.01 * NOISE, 1).standard_error
    losses = losses_of(1, simple=np.ones(400), complex=1 + 0.01 * NOISE - gain * error)
    champion = choose_champion(losses, ["simple", "complex"], "simple")
    assert (champion.model == "complex") == promoted
    verdict = verdicts(losses, "simple", None)["verdict"].tolist()[1]
    assert (verdict == "better") == promoted


def test_ratios_are_means_over_horizons_on_the_days_that_all_have() -> None:
    short, long = (
        losses_of(1, a=np.array([1.0, 3.0, 99.0]), b=np.array([2.0, 2.0, 99.0])),
        losses_of(5, a=np.array([8.0, 8.0]), b=np.array([4.0, 12.0])),
    )
    assert mean_ratios(pd.concat([short, long]), "b") == pytest.approx({"a": (2 / 2 + 8 / 8) / 2, "b": 1.0})
    assert mean_ratios(short, "a") == pytest.approx({"a": 1.0, "b": 1.0})


def test_equal_models_leave_the_simpler() -> None:
    equal = 1.0 + 0.01 * NOISE
    champion = choose_champion(losses_of(1, b=equal, a=equal), ["b", "a"], "a")
    assert (champion.model, champion.reason) == ("b", "b is the simplest model and no other is better")


def test_too_few_days_promote_nothing() -> None:
    losses = losses_of(21, simple=np.ones(49) + 0.01 * NOISE[:49], complex=np.full(49, 0.5))
    champion = choose_champion(losses, ["simple", "complex"], "simple")
    assert champion.model == "simple"
    assert champion.reason == "too few days to tell models apart, so the simplest, simple, is kept"
    enough = losses_of(21, simple=np.ones(50) + 0.01 * NOISE[:50], complex=np.full(50, 0.5))
    assert choose_champion(enough, ["simple", "complex"], "simple").model == "complex"


def test_each_horizon_counts_alike_on_the_days_that_all_have() -> None:
    rng = np.random.default_rng(8)
    short = losses_of(
        1, simple=1 + 0.01 * rng.standard_normal(300), complex=1.02 + 0.01 * rng.standard_normal(300)
    )
    # Ten times the loss, of another size of relative gain, on fewer days.
    long = losses_of(
        5, simple=10 + 0.1 * rng.standard_normal(296), complex=9.6 + 0.1 * rng.standard_normal(296)
    )
    # On the days that one horizon alone has, the simple model is a disaster.
    short.iloc[296:, 0] = 50.0
    champion = choose_champion(pd.concat([short, long]), ["simple", "complex"], "simple")
    assert champion.mean_ratios["simple"] == pytest.approx(1.0, abs=1e-12)
    assert champion.mean_ratios["complex"] == pytest.approx((1.02 + 0.96) / 2, abs=0.002)
    assert champion.model == "complex"


# Planted controls, through the whole backtest


def losses_on(returns: Array) -> pd.DataFrame:
    """CRPS of a model of no skill, its twin, and one that sees the scale, walking through two series."""
    n = len(returns) // 2
    days = np.arange(n).astype("datetime64[D]")
    panel = Panel(("A", "B"), np.array([0, n, 2 * n]), np.tile(days, 2), np.ones(2 * n), returns)
    models = {"historical": HistoricalForecaster, "twin": HistoricalForecaster, "ewma": EwmaForecaster}
    tables = [
        forecast_table(result.model, result.fold.test, result.forecast)
        for result in backtest(models, folds(panel, (1, 5), days[500], None, 250, warm_up=10))
    ]
    table = pd.concat(tables, ignore_index=True)
    table["crps"] = row_scores(table)["crps"]
    return daily_losses(table.dropna(subset="y"))


def test_planted_skill_is_found_and_none_is_found_where_there_is_none() -> None:
    rng = np.random.default_rng(9)
    n = 1500
    log_scale = np.zeros(2 * n)
    for t in range(1, 2 * n):
        log_scale[t] = 0.97 * log_scale[t - 1] + 0.2 * rng.standard_normal()
    walk = 0.01 * rng.standard_normal(2 * n)
    changing = walk * np.exp(log_scale)
    shuffled = rng.permutation(changing)
    simplest_first = ["historical", "twin", "ewma"]

    losses = losses_on(changing)
    table = verdicts(losses, "historical", "historical")
    assert set(table[["model", "verdict", "skill"]].itertuples(index=False, name=None)) == {
        ("historical", "best baseline", "no skill"),
        ("twin", "as good as", "no skill"),
        ("ewma", "better", "skill"),
    }
    assert choose_champion(losses, simplest_first, "historical").model == "ewma"

    for without in (walk, shuffled):
        losses = losses_on(without)
        table = verdicts(losses, "historical", "historical")
        assert set(table["skill"]) == {"no skill"}
        assert choose_champion(losses, simplest_first, "historical").model == "historical"


def losses_of_forecasts(y: Array, models: dict[str, Array]) -> pd.DataFrame:
    """Daily CRPS at one session of quantiles of shape (n_series, n_days, n_levels), series after series."""
    n_series, n_days = y.shape
    days = pd.date_range("2000-01-01", periods=n_days)
    frames = [
        pd.DataFrame(
            {
                "model": name,
                "symbol": np.repeat([f"S{number}" for number in range(n_series)], n_days),
                "origin": np.tile(days, n_series),
                "horizon": 1,
                "crps": crps(y, values).ravel(),
            }
        )
        for name, values in models.items()
    ]
    return daily_losses(pd.concat(frames, ignore_index=True))


def planted_garch(rng: np.random.Generator, n_series: int, n_days: int) -> tuple[Array, Array]:
    """Returns of GARCH(1,1) with Student shocks, and the volatility that was known the evening before."""
    variance, sigma = np.ones(n_series), np.empty((n_series, n_days))
    y = np.empty((n_series, n_days))
    for t in range(n_days):
        sigma[:, t] = np.sqrt(variance)
        y[:, t] = sigma[:, t] * rng.standard_t(6, n_series) / math.sqrt(1.5)
        variance = 0.02 + 0.1 * y[:, t] ** 2 + 0.88 * variance
    return 0.01 * y, 0.01 * sigma


STUDENT = stats.t.ppf(LEVELS, 6) / math.sqrt(1.5)


def test_a_known_volatility_is_found_in_a_field_and_a_shuffled_one_is_not() -> None:
    rng = np.random.default_rng(40)
    y, sigma = planted_garch(rng, 3, 1500)
    flat = np.broadcast_to(np.quantile(y, LEVELS), (*y.shape, len(LEVELS)))
    models = {"historical": flat, "known": sigma[..., None] * STUDENT}
    # The right volatilities on the wrong days, four times.
    models |= {f"shuffled {k}": rng.permuted(sigma, axis=1)[..., None] * STUDENT for k in range(4)}
    losses = losses_of_forecasts(y, models)
    table = verdicts(losses, "historical", "historical").set_index("model")
    assert list(table.loc["known", ["verdict", "skill", "confidence_set"]]) == ["better", "skill", "in"]
    assert table.loc["historical", "confidence_set"] == "out"
    assert table["spa_p_value"]["historical"] < 0.01
    for k in range(4):
        assert table.loc[f"shuffled {k}", "skill"] == "no skill"
        assert table.loc[f"shuffled {k}", "confidence_set"] == "out"
    assert choose_champion(losses, list(models), "historical").model == "known"
    # The days shuffled under the forecasts: nothing is left to be found.
    order = rng.permutation(y.shape[1])
    table = verdicts(losses_of_forecasts(y[:, order], models), "historical", "historical").set_index("model")
    assert set(table["skill"]) == {"no skill"}
    assert table.loc["historical", "confidence_set"] == "in"


@pytest.mark.parametrize("found", [True, False])
def test_a_mean_of_known_explained_variance_is_found_by_its_size(found: bool) -> None:
    rng = np.random.default_rng(41)
    explained = 0.04
    mean = math.sqrt(explained) * rng.standard_normal((4, 1500))
    y = mean + math.sqrt(1 - explained) * rng.standard_normal(mean.shape)
    if not found:
        mean = rng.permuted(mean, axis=1)
    normal = stats.norm.ppf(LEVELS)
    models = {
        "historical": np.broadcast_to(normal, (*y.shape, len(LEVELS))),
        "known": mean[..., None] + math.sqrt(1 - explained) * normal,
    }
    table = verdicts(losses_of_forecasts(y, models), "historical", "historical").set_index("model")
    assert table.loc["known", "skill"] == ("skill" if found else "no skill")
    assert table.loc["historical", "confidence_set"] == ("out" if found else "in")
    if found:
        # CRPS is proportional to the scale of the error.
        assert table.loc["known", "crps_ratio"] == pytest.approx(math.sqrt(1 - explained), abs=0.01)


def test_a_random_walk_has_no_skill_in_a_field_of_windows() -> None:
    rng = np.random.default_rng(42)
    y = rng.standard_t(5, (3, 1700))
    models = {}
    for window in (20, 60, 120, 250, 500):
        past = np.lib.stride_tricks.sliding_window_view(y, window, axis=1)[:, 500 - window : -1]
        models[f"last {window}"] = past.std(axis=-1)[..., None] * stats.t.ppf(LEVELS, 5) / math.sqrt(5 / 3)
    models["historical"] = np.broadcast_to(stats.t.ppf(LEVELS, 5), (3, 1200, len(LEVELS)))
    losses = losses_of_forecasts(y[:, 500:], models)
    table = verdicts(losses, "historical", "historical").set_index("model")
    assert set(table["skill"]) == {"no skill"}
    assert table.loc["historical", "confidence_set"] == "in"
    assert list(table.loc["last 20", ["verdict", "confidence_set"]]) == ["worse", "out"]
    assert choose_champion(losses, ["historical", *sorted(models)[1:]], "historical").model == "historical"
