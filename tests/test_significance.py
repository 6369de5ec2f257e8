"""Tests of loss differences against a slow formula, their size and power, and every verdict provoked."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats

from forecaster.errors import ParameterError
from forecaster.models.econometric import EwmaForecaster
from forecaster.models.naive import HistoricalForecaster
from forecaster.scores import row_scores
from forecaster.significance import choose_champion, daily_losses, diebold_mariano, verdicts
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
    lags = min(max(2 * horizon, math.floor(4 * (n / 100) ** (2 / 9))), n - 1)
    variance = 0.0
    for lag in range(-lags, lags + 1):
        covariance = sum((d[t] - mean) * (d[t - abs(lag)] - mean) for t in range(abs(lag), n)) / n
        variance += (1 - abs(lag) / (lags + 1)) * covariance
    uncorrected = mean / math.sqrt(variance / n)
    small_sample = math.sqrt((n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n)
    statistic = uncorrected * small_sample
    return statistic, 2 * float(stats.t.cdf(-abs(statistic), n - 1))


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
    # A little above nominal where outcomes overlap, because Bartlett weights lean on near lags; that the
    # overlap is ignored would give 40% at h = 5 and 65% at h = 21.
    assert 0.025 <= rejected <= 0.09


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


# Verdicts


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
    ]  # fmt: skip
    assert table[["model", "horizon"]].to_numpy().tolist() == [
        [model, h] for h in (1, 21) for model in ("base", "mine", "none")
    ]
    for row in table[table["model"] == "mine"].to_dict("records"):
        test = diebold_mariano(models["mine"] - base, row["horizon"])
        assert row["p_value"] == pytest.approx(test.p_value)
        assert row["crps_ratio"] == pytest.approx(models["mine"].mean() / base.mean())
        # What a two-sided test at 5% finds with a probability of 80%: 1.96 + .84 standard errors.
        assert row["smallest_detectable"] == pytest.approx(2.81 * test.standard_error / base.mean(), rel=0.01)
    for row in table[table["model"] == "base"].to_dict("records"):
        assert row["verdict"] == "best baseline"
        assert row["skill"] == "skill"
        assert math.isnan(row["p_value"])
        assert math.isnan(row["smallest_detectable"])
    assert set(table.loc[table["model"] == "none", "skill"]) == {"no skill"}
    assert set(table["baseline"]) == {"base"}


def test_the_power_that_a_table_promises_is_there() -> None:
    rng = np.random.default_rng(6)
    found = []
    for _ in range(300):
        noise = 0.02 * rng.standard_normal(400)
        base = np.ones(400)
        table = verdicts(losses_of(1, base=base, mine=base + noise - 2.8 * 0.02 / 20), "base", None)
        found.append(table["verdict"].tolist()[1] == "better")
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)


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
