"""Scores against slow integrals, closed forms, other libraries and a loop over rows."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scoringrules
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import integrate, stats

from forecaster.errors import ParameterError
from forecaster.quantiles import LEVELS, QuantileForecast, Tails, quantile_columns
from forecaster.scores import (
    COVERAGES,
    christoffersen,
    crps,
    fissler_ziegel,
    kupiec,
    log_variance_error,
    pinball,
    pit_uniformity,
    qlike,
    row_scores,
    score_table,
    winkler,
)

Array = NDArray[np.float64]

N = len(LEVELS)
NORMAL = stats.norm.ppf(LEVELS)
COARSE = st.integers(-6, 6).map(lambda number: number / 2)


def quantile_rows(rows: int) -> st.SearchStrategy[Array]:
    return hnp.arrays(np.float64, (rows, N), elements=COARSE).map(lambda values: np.sort(values, axis=-1))


def table(y: Any, values: Array, **columns: Any) -> pd.DataFrame:
    """A table of forecasts; columns not given are the same in every row."""
    values = np.broadcast_to(values, (len(y), N))
    keys: dict[str, Any] = {
        "model": "m",
        "symbol": "s",
        "origin": pd.Timestamp("2020-01-01"),
        "horizon": 1,
    } | columns
    return pd.DataFrame(values, columns=quantile_columns()).assign(y=np.asarray(y, dtype=float), **keys)


def normal_crps(y: float) -> float:
    """Gneiting and Raftery (2007), equation 21, for the standard normal."""
    z = float(y)
    density, below = stats.norm.pdf(z), stats.norm.cdf(z)
    return float(z * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi))


def test_pinball_by_hand() -> None:
    losses = pinball(np.array([1.0, -1.0, 0.0]), np.zeros((3, N)))
    np.testing.assert_allclose(losses[0], LEVELS, rtol=1e-15)
    np.testing.assert_allclose(losses[1], 1 - np.array(LEVELS), rtol=1e-15)
    np.testing.assert_array_equal(losses[2], 0.0)


@pytest.mark.parametrize("index", [0, 2, 11, 20, 22])
def test_expected_pinball_is_least_at_the_true_quantile(index: int) -> None:
    # Outcomes of an exponential distribution, one at each of many equally likely points.
    outcomes = stats.expon.ppf((np.arange(40_000) + 0.5) / 40_000)
    truth = stats.expon.ppf(LEVELS[index])

    def expected(candidate: float) -> float:
        return float(pinball(outcomes, np.full((len(outcomes), N), candidate))[:, index].mean())

    candidates = truth + np.linspace(-0.008, 0.008, 9)
    losses = [expected(candidate) for candidate in candidates]
    assert int(np.argmin(losses)) == 4


@given(quantile_rows(1), COARSE)
def test_crps_is_a_slow_integral_of_the_pinball_loss(values: Array, y: float) -> None:
    grid = [0.0, *LEVELS, 1.0]
    losses = [0.0]
    for level, quantile in zip(LEVELS, values[0], strict=True):
        losses.append(level * (y - quantile) if y >= quantile else (1 - level) * (quantile - y))
    losses.append(0.0)
    area = 0.0
    for index in range(N + 1):
        area += (grid[index + 1] - grid[index]) * (losses[index] + losses[index + 1]) / 2
    assert crps(np.array([y]), values)[0] == pytest.approx(2 * area, abs=1e-12)


@pytest.mark.parametrize("y", [-2.5, -1.0, -0.3, 0.0, 0.7, 1.9])
def test_crps_of_a_normal_is_the_closed_form_within_the_error_of_23_levels(y: float) -> None:
    # The 23 levels leave out a little of the tails: about 1% of the score.
    ours = crps(np.array([y]), NORMAL[None])[0]
    assert ours == pytest.approx(normal_crps(y), rel=0.02, abs=0.002)

    def loss(level: float) -> float:
        quantile = float(stats.norm.ppf(level))
        return 2 * (level * (y - quantile) if y >= quantile else (1 - level) * (quantile - y))

    # The closed form itself, integrated over every level: no oracle is taken on trust.
    exact, _ = integrate.quad(loss, 0.0, 1.0, points=[float(stats.norm.cdf(y))], limit=200)
    assert exact == pytest.approx(normal_crps(y), abs=1e-7)


@pytest.mark.parametrize("y", [-1.5, 0.0, 0.4, 3.0])
def test_crps_of_a_point_forecast_is_nearly_the_absolute_error(y: float) -> None:
    # 2 * integral of the level is 1 between the outermost levels and 0; the ends lose 1e-4 / 2 each.
    assert crps(np.array([y]), np.zeros((1, N)))[0] == pytest.approx(abs(y), rel=0.011)


@given(quantile_rows(2), hnp.arrays(np.float64, 2, elements=COARSE), COARSE, st.sampled_from([0.5, 2.0, 8.0]))
def test_crps_moves_with_the_place_and_grows_with_the_scale(
    values: Array, y: Array, shift: float, scale: float
) -> None:
    moved = crps(y * scale + shift, values * scale + shift)
    np.testing.assert_allclose(moved, scale * crps(y, values), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(crps(-y, -values[:, ::-1]), crps(y, values), rtol=1e-12, atol=1e-12)


def test_the_true_distribution_has_the_lowest_expected_crps() -> None:
    outcomes = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    rivals = {0.9: 0.9 * NORMAL, 1.1: 1.1 * NORMAL, -0.1: NORMAL - 0.1, 0.1: NORMAL + 0.1, 0.0: NORMAL}
    expected = {
        name: crps(outcomes, np.broadcast_to(values, (len(outcomes), N))).mean()
        for name, values in rivals.items()
    }
    assert min(expected, key=lambda name: expected[name]) == 0.0
    assert expected[0.0] == pytest.approx(1 / math.sqrt(math.pi), rel=0.01)


@pytest.mark.parametrize(
    ("y", "coverage", "expected"),
    [
        (0.0, 0.8, 2.0),
        (1.0, 0.8, 2.0),
        (-1.0, 0.8, 2.0),
        (1.5, 0.8, 2.0 + 0.5 * 10),
        (-3.0, 0.8, 2.0 + 2 * 10),
        (1.5, 0.95, 2.0 + 0.5 * 40),
        (1.5, 0.5, 2.0 + 0.5 * 4),
    ],
)
def test_winkler_by_hand(y: float, coverage: float, expected: float) -> None:
    score = winkler(np.array([y]), np.array([-1.0]), np.array([1.0]), coverage)
    assert score[0] == pytest.approx(expected, rel=1e-12)


@given(quantile_rows(1), COARSE)
def test_winkler_is_the_sum_of_the_two_pinball_losses_over_half_the_miss(values: Array, y: float) -> None:
    # Gneiting and Raftery (2007), section 6.2: the interval score is 2 / alpha times both pinball losses.
    losses = pinball(np.array([y]), values)[0]
    for coverage, low, high in ((0.5, 0.25, 0.75), (0.8, 0.1, 0.9), (0.95, 0.025, 0.975)):
        ends = [LEVELS.index(low), LEVELS.index(high)]
        score = winkler(np.array([y]), values[:, ends[0]], values[:, ends[1]], coverage)[0]
        assert score == pytest.approx(2 / (1 - coverage) * losses[ends].sum(), abs=1e-9)


@given(quantile_rows(3), hnp.arrays(np.float64, 3, elements=COARSE))
def test_pinball_and_winkler_are_those_of_scoringrules(values: Array, y: Array) -> None:
    losses = pinball(y, values)
    for index, level in enumerate(LEVELS):
        np.testing.assert_allclose(losses[:, index], scoringrules.quantile_score(y, values[:, index], level))
    low, high = values[:, LEVELS.index(0.1)], values[:, LEVELS.index(0.9)]
    np.testing.assert_allclose(
        winkler(y, low, high, 0.8), scoringrules.interval_score(y, low, high, 0.2), atol=1e-9
    )


# Tails: value at risk with expected shortfall, and the variance


def test_fissler_ziegel_by_hand() -> None:
    # A loss of 3 where 2 is the value at risk and 2.5 the shortfall, and a day above the value at risk.
    losses = fissler_ziegel(np.array([-3.0, 1.0]), np.full(2, -2.0), np.full(2, -2.5), 0.05)
    calm = 2.0 / 2.5 + math.log(2.5) - 1
    np.testing.assert_allclose(losses, [1.0 / (0.05 * 2.5) + calm, calm], rtol=1e-14)


@pytest.mark.parametrize("level", [0.01, 0.05])
def test_fissler_ziegel_is_least_at_the_true_pair_where_it_is_a_logarithm(level: float) -> None:
    outcomes = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    at_risk = float(stats.norm.ppf(level))
    shortfall = -float(stats.norm.pdf(at_risk)) / level

    def expected(v: float, e: float) -> float:
        return float(fissler_ziegel(outcomes, np.array(v), np.array(e), level).mean())

    least = expected(at_risk, shortfall)
    # In expectation (v - e) / -e + v / e + log(-e) - 1, in which all but the logarithm cancels.
    assert least == pytest.approx(math.log(-shortfall), abs=1e-3)
    for v, e in ((0.97, 1), (1.03, 1), (1, 0.97), (1, 1.03), (0.97, 0.97), (1.03, 1.03)):
        assert expected(v * at_risk, e * shortfall) > least


@given(st.floats(-4, 4), st.floats(-3, -0.1), st.floats(0.0, 2.0), st.sampled_from([0.01, 0.1, 7.0]))
def test_fissler_ziegel_changes_by_a_constant_with_the_unit(
    y: float, v: float, beyond: float, unit: float
) -> None:
    one = fissler_ziegel(np.array(y), np.array(v), np.array(v - beyond), 0.05)
    other = fissler_ziegel(np.array(y * unit), np.array(v * unit), np.array((v - beyond) * unit), 0.05)
    assert float(other - one) == pytest.approx(math.log(unit), abs=1e-8)


def test_fissler_ziegel_does_not_exist_for_a_shortfall_that_is_a_gain() -> None:
    losses = fissler_ziegel(np.array([0.1, np.nan]), np.array([0.1, -1.0]), np.array([0.0, -2.0]), 0.05)
    assert np.isnan(losses).all()


def test_qlike_by_hand_and_zero_at_the_truth() -> None:
    np.testing.assert_allclose(qlike(np.array([4.0, 2.0]), np.array([4.0, 4.0])), [0.0, 2 - math.log(2) - 1])
    np.testing.assert_allclose(log_variance_error(np.array([1.0]), np.array([math.e**2])), 4.0)
    # A price that did not move counts as one basis point, not as minus infinity.
    assert qlike(np.array([1e-4]), np.array([0.0]))[0] == pytest.approx(1e-4 - math.log(1e-4) - 1)
    assert qlike(np.array([0.0]), np.array([0.0]))[0] == 0.0


def test_qlike_ranks_by_a_noisy_proxy_as_by_the_truth_and_the_log_error_does_not() -> None:
    # Squared returns of variance one: unbiased, and very noisy.
    proxy = stats.chi2.ppf((np.arange(400_000) + 0.5) / 400_000, 1)
    candidates = np.array([0.28, 0.9, 1.0, 1.1])
    likelihoods = [qlike(np.array(v), proxy).mean() for v in candidates]
    assert int(np.argmin(likelihoods)) == 2
    # The log of a squared normal is -1.27 on average: the log error wants .28 of the variance.
    assert int(np.argmin([log_variance_error(np.array(v), proxy).mean() for v in candidates])) == 0


# Value at risk: Kupiec, Christoffersen, uniformity


def hits(count: int, n: int) -> NDArray[np.bool_]:
    return np.arange(n) < count


@pytest.mark.parametrize(
    ("level", "n", "low", "high"),
    [
        # Kupiec (1995), table 2: the numbers of failures that do not reject, both ends included.
        (0.01, 255, 0, 6),
        (0.01, 510, 2, 10),
        (0.01, 1000, 5, 16),
        (0.05, 255, 7, 20),
        (0.05, 510, 17, 35),
        (0.05, 1000, 38, 64),
    ],
)
def test_kupiec_keeps_the_regions_of_his_paper(level: float, n: int, low: int, high: int) -> None:
    kept = [count for count in range(n // 8) if kupiec(hits(count, n), level) >= 0.05]
    assert kept == list(range(kept[0], kept[-1] + 1))
    # Exact p-values keep one count more at an end where the limit rejects in more than one of twenty.
    assert low - kept[0] in (0, 1)
    assert kept[-1] - high in (0, 1)


@pytest.mark.parametrize(("n", "level"), [(1, 0.01), (40, 0.05), (214, 0.01), (300, 0.05)])
def test_the_p_value_of_kupiec_is_exact(n: int, level: float) -> None:
    def ratio(count: int) -> float:
        rate = count / n
        result = (n - count) * (math.log(1 - rate) if count < n else 0.0) if n > count else 0.0
        result += count * math.log(rate) if count else 0.0
        return 2 * (result - count * math.log(level) - (n - count) * math.log(1 - level))

    ratios = [ratio(count) for count in range(n + 1)]
    chances = [math.comb(n, count) * level**count * (1 - level) ** (n - count) for count in range(n + 1)]
    for count in range(min(n, 30) + 1):
        least = ratios[count] - 1e-9
        expected = sum(chance for chance, one in zip(chances, ratios, strict=True) if one >= least)
        assert kupiec(hits(count, n), level) == pytest.approx(expected, abs=1e-12)
    # So a right model is rejected in at most one of twenty samples.
    rejected = [count for count in range(n + 1) if kupiec(hits(count, n), level) < 0.05]
    assert sum(chances[count] for count in rejected) < 0.05


def test_many_outcomes_give_the_chi_square_of_the_likelihood_ratio() -> None:
    n, level = 20_000, 0.05
    for count in (930, 1000, 1070):
        rate = count / n
        ratio = 2 * (count * math.log(rate / level) + (n - count) * math.log((1 - rate) / (1 - level)))
        assert kupiec(hits(count, n), level) == pytest.approx(stats.chi2.sf(ratio, 1), abs=0.02)


def test_christoffersen_by_hand() -> None:
    # Nine steps: four stay calm, two begin a run, two end one, one stays in it.
    series = np.array([0, 0, 1, 1, 0, 0, 0, 1, 0, 0], dtype=bool)
    n00, n01, n10, n11 = 4, 2, 2, 1
    one = n00 * math.log(4 / 6) + n01 * math.log(2 / 6) + n10 * math.log(2 / 3) + n11 * math.log(1 / 3)
    none = 6 * math.log(6 / 9) + 3 * math.log(3 / 9)
    ratio = 2 * (one - none)
    covered = 2 * (3 * math.log(0.3 / 0.05) + 7 * math.log(0.7 / 0.95))
    independence, both = christoffersen(series, 0.05)
    assert independence == pytest.approx(stats.chi2.sf(ratio, 1), rel=1e-9)
    assert both == pytest.approx(stats.chi2.sf(ratio + covered, 2), rel=1e-9)


def test_hits_in_runs_are_told_from_hits_that_come_alone() -> None:
    rng = np.random.default_rng(1)
    alone = [christoffersen(rng.random(2000) < 0.05, 0.05) for _ in range(400)]
    rejected = (np.array(alone) < 0.05).mean(axis=0)
    assert (rejected > 0.015).all()
    assert (rejected < 0.09).all()
    stress = np.repeat(rng.random((200, 100)) < 0.2, 20, axis=1)  # every fifth month holds all the hits
    runs = stress & (rng.random(stress.shape) < 0.25)
    assert np.mean([christoffersen(series, 0.05)[0] < 0.05 for series in runs]) > 0.95
    # As many hits as promised: the test of their number alone does not see it as often.
    assert np.mean([kupiec(series, 0.05) < 0.05 for series in runs]) < 0.5


def test_no_hit_at_all_is_no_run() -> None:
    assert christoffersen(hits(0, 100), 0.05)[0] == 1.0
    assert christoffersen(hits(1, 1), 0.05)[0] == 1.0
    assert christoffersen(hits(100, 100), 0.05)[0] == 1.0


def test_what_cannot_be_tested_is_refused() -> None:
    for test in (kupiec, christoffersen):
        with pytest.raises(ParameterError, match=r"needs at least one outcome\. Received: none"):
            test(hits(0, 0), 0.05)
        with pytest.raises(ParameterError, match=r"a level lies between 0 and 1\. Received: 5"):
            test(hits(0, 10), 5)


def test_uniformity_is_the_chi_square_of_twelve_classes() -> None:
    rng = np.random.default_rng(2)
    # What `row_scores` gives: uniform, with the tails folded onto the outermost levels.
    folded = np.clip(rng.random((500, 214)), 0.01, 0.99)
    p_values = np.array([pit_uniformity(pit) for pit in folded])
    assert (p_values < 0.05).mean() == pytest.approx(0.05, abs=0.03)
    edges = np.array([0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1])
    counts, _ = np.histogram(folded[0], edges)
    expected = np.diff(edges) * 214
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert p_values[0] == pytest.approx(stats.chi2.sf(statistic, 11))
    narrow = stats.norm.cdf(1.3 * rng.normal(size=(100, 500)))
    assert np.mean([pit_uniformity(pit) < 0.05 for pit in narrow]) > 0.9
    assert math.isnan(pit_uniformity(folded[0][:99]))
    # An outcome on a quantile is at or below it.
    assert pit_uniformity(np.repeat(np.array(edges[1:]), 100)) == pytest.approx(
        pit_uniformity(np.repeat(np.array(edges[1:]) - 1e-9, 100))
    )


# Rows


def with_tails(forecasts: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """Normal tails of scale one, and what else a row needs for every loss."""
    shortfall = float(stats.norm.pdf(NORMAL[0])) / 0.01
    extra: dict[str, Any] = {
        "tail_low": -shortfall,
        "tail_high": shortfall,
        "variance": 1.0,
        "scale": 2.0,
        "naive_error": 0.5,
        "realised_variance": 1.5,
    }
    return forecasts.assign(**(extra | columns))


def test_further_columns_give_further_losses() -> None:
    plain = table([0.3, -2.0, np.nan], NORMAL)
    full = row_scores(with_tails(plain))
    new = [
        "crps_normalised",
        "mase",
        "fissler_ziegel_0.01",
        "fissler_ziegel_0.05",
        "qlike",
        "mse_log_variance",
    ]
    assert [name for name in full if name not in row_scores(plain)] == new
    np.testing.assert_allclose(full["crps_normalised"], full["crps"] / 2.0)
    np.testing.assert_allclose(full["mase"][:2], np.array([0.3, 2.0]) / 0.5, atol=1e-12)
    np.testing.assert_allclose(full["qlike"][:2], 1.5 - math.log(1.5) - 1)
    shortfall = -stats.norm.pdf(stats.norm.ppf(0.01)) / 0.01
    calm = stats.norm.ppf(0.01) / shortfall + math.log(-shortfall) - 1
    np.testing.assert_allclose(full["fissler_ziegel_0.01"][:2], calm)
    # At 5% the trapezoid over 1, 2.5 and 5% is within one percent of the truth.
    truth = -stats.norm.pdf(stats.norm.ppf(0.05)) / 0.05
    forecast = QuantileForecast(
        NORMAL[None, None],
        (1,),
        Tails(np.full((1, 1), shortfall), np.full((1, 1), -shortfall), np.ones((1, 1))),
    )
    assert forecast.expected_shortfall(0.05)[0, 0] == pytest.approx(truth, rel=0.01)
    beyond = max(stats.norm.ppf(0.05) + 2.0, 0.0)
    e = forecast.expected_shortfall(0.05)[0, 0]
    assert full["fissler_ziegel_0.05"][1] == pytest.approx(
        -beyond / (0.05 * e) + stats.norm.ppf(0.05) / e + math.log(-e) - 1
    )
    assert full.iloc[2].isna().all()


def test_rows_without_tails_stand_beside_rows_with_them() -> None:
    plain = table([0.3, -2.0], NORMAL)
    mixed = with_tails(pd.concat([plain, plain], ignore_index=True))
    mixed.loc[2:, ["tail_low", "tail_high", "variance"]] = np.nan
    rows, apart = row_scores(mixed), row_scores(with_tails(plain))
    pd.testing.assert_frame_equal(rows.iloc[:2], apart)
    without = row_scores(plain)
    pd.testing.assert_frame_equal(rows.iloc[2:][without.columns].reset_index(drop=True), without)
    tailed = ["fissler_ziegel_0.01", "fissler_ziegel_0.05", "qlike", "mse_log_variance"]
    assert rows.iloc[2:][tailed].isna().to_numpy().all()
    none = row_scores(mixed.iloc[2:])
    assert not set(tailed) & set(none.columns)


def test_a_scale_of_zero_gives_no_number() -> None:
    rows = row_scores(with_tails(table([0.1], NORMAL), scale=0.0, naive_error=np.nan))
    assert rows[["crps_normalised", "mase"]].isna().to_numpy().all()


def test_half_of_the_tails_is_refused() -> None:
    with pytest.raises(ParameterError) as caught:
        row_scores(table([0.1], NORMAL).assign(tail_low=-3.0))
    assert str(caught.value) == (
        "a table of forecasts has all columns of the tails or none. Missing: tail_high, variance"
    )


def test_direction_of_calls_ties_and_prices_that_did_not_move() -> None:
    up, down, undecided = NORMAL + 0.1, NORMAL - 0.1, NORMAL
    rows = row_scores(
        pd.concat(
            [table([1.0, -1.0, 0.0, np.nan], values) for values in (up, down, undecided)], ignore_index=True
        )
    )
    nan = np.nan
    np.testing.assert_array_equal(rows["direction"], [1, 0, nan, nan, 0, 1, nan, nan, 0.5, 0.5, nan, nan])
    np.testing.assert_array_equal(rows["direction_base_rate"], [1, 0, nan, nan] * 3)


def test_a_point_mass_at_zero_makes_no_call() -> None:
    assert row_scores(table([1.0], np.zeros((1, N))))["direction"].tolist() == [0.5]


def test_an_outcome_on_the_end_of_an_interval_is_inside() -> None:
    low, high = NORMAL[LEVELS.index(0.1)], NORMAL[LEVELS.index(0.9)]
    outcomes = [low, high, np.nextafter(low, -9), np.nextafter(high, 9)]
    assert row_scores(table(outcomes, NORMAL))["coverage_80"].tolist() == [1, 1, 0, 0]


def test_a_perfect_forecaster_covers_what_it_says() -> None:
    rng = np.random.default_rng(5)
    scale = np.exp(rng.normal(size=20_000))
    rows = row_scores(table(scale * rng.normal(size=20_000), scale[:, None] * NORMAL))
    for coverage in COVERAGES:
        assert rows[f"coverage_{round(coverage * 100)}"].mean() == pytest.approx(coverage, abs=0.011)
    # Uniform but for the tails, which fold onto the outermost levels.
    assert rows["pit"].mean() == pytest.approx(0.5, abs=0.01)
    assert (rows["pit"] <= 0.25).mean() == pytest.approx(0.25, abs=0.011)
    assert rows["pit"].min() == 0.01
    narrow = row_scores(table(rng.normal(size=20_000), 0.8 * NORMAL))
    assert narrow["coverage_80"].mean() == pytest.approx(
        2 * stats.norm.cdf(0.8 * stats.norm.ppf(0.9)) - 1, abs=0.011
    )


def test_every_score_of_an_unknown_outcome_is_unknown() -> None:
    rows = row_scores(table([np.nan, 0.1], NORMAL))
    assert rows.iloc[0].isna().all()
    assert rows.iloc[1].notna().all()


def test_rows_keep_their_index() -> None:
    forecasts = table([0.1, 0.2], NORMAL)
    forecasts.index = pd.Index([7, 7])
    assert row_scores(forecasts).index.tolist() == [7, 7]


def test_a_missing_quantile_is_named() -> None:
    with pytest.raises(ParameterError) as caught:
        row_scores(table([0.1], NORMAL).drop(columns=["q0.25", "q0.99"]))
    assert str(caught.value) == "a table of forecasts has the 23 quantile columns. Missing: q0.25, q0.99"


# The table of scores

SYMBOLS = ["NA", "TRUE", "*A", "0700", "ALL", "**"]


@st.composite
def forecast_tables(draw: st.DrawFn) -> pd.DataFrame:
    n = draw(st.integers(1, 12))
    values = draw(quantile_rows(n))
    outcomes = draw(
        st.lists(COARSE | st.just(math.nan), min_size=n, max_size=n).filter(
            lambda y: not all(map(math.isnan, y))
        )
    )

    def names(*choices: object) -> list[Any]:
        return draw(st.lists(st.sampled_from(choices), min_size=n, max_size=n))

    keys = {"model": names("a", "NA"), "symbol": names(*SYMBOLS), "horizon": names(1, 5)}
    forecasts = table(outcomes, values, origin=pd.date_range("2020-01-01", periods=n), **keys)
    if draw(st.booleans()):
        reach = np.abs(values).max(axis=1) + 1.0
        variance = draw(hnp.arrays(np.float64, n, elements=st.sampled_from([0.0, 0.5, 4.0])))
        proxy = draw(hnp.arrays(np.float64, n, elements=st.sampled_from([0.0, 0.5, 4.0])))
        tails = {"tail_low": -reach, "tail_high": reach, "variance": variance, "realised_variance": proxy}
        forecasts = with_tails(forecasts, **tails)
    return forecasts


def slow_score_table(forecasts: pd.DataFrame) -> dict[tuple[str, str, int, str], float]:
    """One row after the other, into a list of losses for each key."""
    lists: dict[tuple[str, str, int, str], list[float]] = {}
    outcomes: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    tailed = "tail_low" in forecasts
    for row in forecasts[forecasts["y"].notna()].to_dict("records"):
        levels, quantiles_ = list(LEVELS), [row[f"q{level!r}"] for level in LEVELS]
        low, high = (row["tail_low"], row["tail_high"]) if tailed else (quantiles_[0], quantiles_[-1])
        inner = sum(
            (levels[i + 1] - levels[i]) * (quantiles_[i] + quantiles_[i + 1]) / 2 for i in range(N - 1)
        )
        mean = 0.01 * low + inner + 0.01 * high
        outcomes.setdefault((row["model"], row["symbol"], row["horizon"]), []).append((row["y"], mean))
    for row in forecasts.to_dict("records"):
        y = row["y"]
        if math.isnan(y):
            continue
        quantiles = {level: row[f"q{level!r}"] for level in LEVELS}
        losses = {level: (level if y >= q else level - 1) * (y - q) for level, q in quantiles.items()}
        grid = [0.0, *LEVELS, 1.0]
        heights = [0.0, *losses.values(), 0.0]
        area = sum((grid[i + 1] - grid[i]) * (heights[i] + heights[i + 1]) / 2 for i in range(N + 1))
        scores = {"crps": 2 * area, "origins": 1.0} | {f"pinball_{k!r}": loss for k, loss in losses.items()}
        for percent, low, high in ((50, 0.25, 0.75), (80, 0.1, 0.9), (95, 0.025, 0.975)):
            inside = quantiles[low] <= y <= quantiles[high]
            miss = max(quantiles[low] - y, y - quantiles[high], 0.0)
            scores[f"coverage_{percent}"] = float(inside)
            scores[f"winkler_{percent}"] = quantiles[high] - quantiles[low] + miss * 200 / (100 - percent)
        for level in (0.01, 0.05):
            scores[f"hit_rate_{level}"] = float(y < quantiles[level])
        low, high = (row["tail_low"], row["tail_high"]) if tailed else (quantiles[0.01], quantiles[0.99])
        heights = list(quantiles.values())
        inner = sum((grid[i + 2] - grid[i + 1]) * (heights[i] + heights[i + 1]) / 2 for i in range(N - 1))
        mean = 0.01 * low + inner + 0.01 * high
        same = outcomes[row["model"], row["symbol"], row["horizon"]]
        drift = sum(one for one, _ in same) / len(same)
        shift = sum(one for _, one in same) / len(same)
        moved = np.array([quantiles[level] - shift for level in LEVELS])
        scores["crps_without_drift"] = float(crps(np.array([y - drift]), moved[None])[0])
        if tailed:
            scores["crps_normalised"] = scores["crps"] / row["scale"]
            scores["mase"] = abs(y - quantiles[0.5]) / row["naive_error"]
            ratio = max(row["realised_variance"], 1e-8) / max(row["variance"], 1e-8)
            scores["qlike"] = ratio - math.log(ratio) - 1
            scores["mse_log_variance"] = math.log(ratio) ** 2
            for level, shortfall in (
                (0.01, low),
                (
                    0.05,
                    (
                        0.01 * low
                        + 0.015 * (quantiles[0.01] + quantiles[0.025]) / 2
                        + 0.025 * (quantiles[0.025] + quantiles[0.05]) / 2
                    )
                    / 0.05,
                ),
            ):
                if shortfall < 0:
                    loss = max(quantiles[level] - y, 0.0) / (-level * shortfall)
                    loss += quantiles[level] / shortfall + math.log(-shortfall) - 1
                    scores[f"fissler_ziegel_{level}"] = loss
        scores["squared"] = (y - mean) ** 2
        scores["mae"] = abs(y - quantiles[0.5])
        if y != 0:
            scores["direction_base_rate"] = float(y > 0)
            # More of the distribution above zero than below is a call up.
            zeros = [level for level, q in quantiles.items() if q == 0]
            middle = 1 - (zeros[0] + zeros[-1]) / 2 if zeros else None
            rise = float(quantiles[0.5] > 0) if middle is None else middle
            call = 0 if math.isclose(rise, 0.5, abs_tol=1e-12) else (1 if rise > 0.5 else -1)
            scores["direction"] = 0.5 if call == 0 else float((call > 0) == (y > 0))
        for symbol in (row["symbol"], "*"):
            for metric, value in scores.items():
                lists.setdefault((row["model"], symbol, row["horizon"], metric), []).append(value)
    result = {}
    for (model, symbol, horizon, metric), values in lists.items():
        average = sum(values) / len(values)
        if metric == "origins":
            result[model, symbol, horizon, metric] = float(len(values))
        elif metric == "squared":
            result[model, symbol, horizon, "rmse"] = math.sqrt(average)
        else:
            result[model, symbol, horizon, metric] = average
    return result


@settings(max_examples=40, deadline=None)
@given(forecast_tables())
def test_score_table_is_the_slow_loop_over_rows(forecasts: pd.DataFrame) -> None:
    scores = score_table(forecasts)
    assert list(scores.columns) == ["model", "symbol", "horizon", "metric", "value"]
    keys = list(scores[["model", "symbol", "horizon", "metric"]].itertuples(index=False, name=None))
    assert len(set(keys)) == len(keys)
    ours = dict(zip(keys, scores["value"], strict=True))
    ours = {key: value for key, value in ours.items() if not re.search("_p|passed|rank_ic", key[3])}
    expected = slow_score_table(forecasts)
    # Where no price moved there is no direction: the loop has no entry, the table has NaN.
    undirected = {key for key, value in ours.items() if math.isnan(value)}
    assert {re.sub("_0.0.", "", key[3]) for key in undirected} <= {
        "direction", "direction_base_rate", "fissler_ziegel",
    }  # fmt: skip
    assert set(ours) - undirected == set(expected)
    for key, value in expected.items():
        assert ours[key] == pytest.approx(value, abs=1e-9), key


def test_symbols_that_look_like_something_else_survive_a_csv(tmp_path: Any) -> None:
    scores = score_table(table(np.zeros(6), NORMAL, symbol=SYMBOLS))
    assert set(scores["symbol"]) == {*SYMBOLS, "*"}
    scores.to_csv(tmp_path / "scores.csv", index=False)
    read = pd.read_csv(tmp_path / "scores.csv", dtype={"symbol": str}, keep_default_na=False)
    assert set(read["symbol"]) == {*SYMBOLS, "*"}


def test_a_symbol_named_as_the_pooled_one_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"the symbol '\*' stands for all symbols .*; rename it"):
        score_table(table([0.1, 0.2], NORMAL, symbol=["A", "*"]))


def test_rows_without_an_outcome_do_not_count() -> None:
    known = table([0.1, 0.2, -0.4], NORMAL, symbol=["A", "B", "A"])
    unknown = table([np.nan] * 3, NORMAL + 9, symbol=["A", "B", "C"])
    pd.testing.assert_frame_equal(score_table(pd.concat([known, unknown])), score_table(known))
    assert score_table(unknown).empty
    assert list(score_table(unknown).columns) == ["model", "symbol", "horizon", "metric", "value"]


def test_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    forecasts = table(
        rng.normal(size=40),
        NORMAL,
        symbol=rng.choice(SYMBOLS, 40),
        horizon=rng.choice([1, 5], 40),
        origin=pd.date_range("2020-01-01", periods=40),
    )
    keys = ["model", "symbol", "horizon", "metric"]
    shuffled = score_table(forecasts.sample(frac=1.0, random_state=1)).sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(shuffled, score_table(forecasts).sort_values(keys, ignore_index=True))


# Tests by symbol, and correlations over symbols, in the table


def scores_of(forecasts: pd.DataFrame) -> pd.Series:
    table_ = score_table(forecasts)
    return table_.set_index(["symbol", "horizon", "metric"])["value"].sort_index()


def walk(n: int, symbols: str, horizon: int, seed: int, spread: float = 1.0) -> pd.DataFrame:
    """Forecasts of overlapping sums of normals, right if the spread is one."""
    rng = np.random.default_rng(seed)
    days = pd.date_range("2000-01-01", periods=n)
    parts = []
    for symbol in symbols:
        steps = rng.normal(size=n + horizon - 1)
        y = np.convolve(steps, np.ones(horizon), mode="valid")
        values = spread * math.sqrt(horizon) * NORMAL
        parts.append(table(y, values, symbol=symbol, origin=days, horizon=horizon))
    return pd.concat(parts, ignore_index=True)


def test_value_at_risk_is_tested_on_every_hth_origin_in_order() -> None:
    forecasts = walk(700, "AB", 5, 3)
    scores = scores_of(forecasts.sample(frac=1.0, random_state=1))
    for symbol in "AB":
        mine = forecasts[forecasts["symbol"] == symbol].iloc[::5]
        for level in (0.01, 0.05):
            below = (mine["y"] < mine[f"q{level}"]).to_numpy()
            assert scores[symbol, 5, f"kupiec_p_{level}"] == kupiec(below, level)
            assert scores[symbol, 5, f"christoffersen_p_{level}"] == christoffersen(below, level)[1]
        assert scores[symbol, 5, "pit_p"] == pit_uniformity(row_scores(mine)["pit"].to_numpy())
    metrics = set(scores["*"].index.get_level_values("metric"))
    assert not {metric for metric in metrics if metric.endswith("_p") or "_p_" in metric}
    for metric in ("kupiec_{}_0.01", "kupiec_{}_0.05", "christoffersen_{}_0.05", "pit_{}"):
        passed = [scores[symbol, 5, metric.format("p")] >= 0.05 for symbol in "AB"]
        assert scores["*", 5, metric.format("passed")] == np.mean(passed)


def test_right_forecasts_pass_at_every_horizon_and_narrow_ones_do_not() -> None:
    symbols = "ABCDEFGHIJKLMNOPQRST"
    for horizon in (1, 5):
        right, narrow = (scores_of(walk(1500, symbols, horizon, 4, spread)) for spread in (1.0, 0.7))
        for metric in (
            "kupiec_passed_0.01",
            "kupiec_passed_0.05",
            "christoffersen_passed_0.05",
            "pit_passed",
        ):
            assert right["*", horizon, metric] >= 0.8, metric
        assert narrow["*", horizon, "kupiec_passed_0.05"] < 0.3
        assert right["*", horizon, "hit_rate_0.05"] == pytest.approx(0.05, abs=0.01)


def test_short_samples_have_no_test_of_uniformity() -> None:
    scores = scores_of(walk(99, "A", 1, 0))
    assert "pit_p" not in scores["A", 1].index
    assert "pit_passed" not in scores["*", 1].index
    assert "kupiec_p_0.05" in scores["A", 1].index


def test_rank_correlation_is_the_mean_over_days_of_spearman() -> None:
    rng = np.random.default_rng(6)
    symbols, days = list("ABCDEFG"), pd.date_range("2020-01-01", periods=30)
    rows = []
    expected = []
    for day in days:
        # Coarse numbers, so that ranks tie; on some days too few symbols.
        n = int(rng.integers(3, 8))
        drift, y = rng.integers(-2, 3, n) / 2.0, rng.integers(-3, 4, n) / 2.0
        rows.append(table(y, drift[:, None] + NORMAL, symbol=symbols[:n], origin=day))
        if n >= 5 and len(set(drift)) > 1 and len(set(y)) > 1:
            expected.append(stats.spearmanr(drift, y).statistic)
    forecasts = pd.concat(rows, ignore_index=True)
    assert 0 < len(expected) < len(days)
    assert scores_of(forecasts)["*", 1, "rank_ic"] == pytest.approx(np.mean(expected), abs=1e-12)
    few = forecasts[forecasts["symbol"].isin(symbols[:4])]
    assert "rank_ic" not in scores_of(few)["*", 1].index


def test_drift_alone_leaves_no_gain_when_it_is_taken_out() -> None:
    rng = np.random.default_rng(7)
    noise = rng.normal(size=4000)
    y, days = noise - noise.mean() + 0.3, pd.date_range("2000-01-01", periods=4000)
    knows, not_ = (scores_of(table(y, NORMAL + drift, origin=days))["*", 1] for drift in (0.3, 0.0))
    assert knows["crps"] < 0.97 * not_["crps"]
    assert knows["crps_without_drift"] == pytest.approx(not_["crps_without_drift"], rel=1e-9)
    assert knows["crps_without_drift"] == pytest.approx(knows["crps"], rel=1e-3)
    # What changes with time is no drift, and stays.
    sign = np.tile([1.0, -1.0], 2000)
    timed = scores_of(table(y + sign, NORMAL + sign[:, None], origin=days))["*", 1]
    assert timed["crps_without_drift"] == pytest.approx(not_["crps_without_drift"], rel=0.02)
