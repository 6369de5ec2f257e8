"""Scores against slow integrals, closed forms and a loop over rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import integrate, stats

from forecaster.errors import ParameterError
from forecaster.quantiles import LEVELS, quantile_columns
from forecaster.scores import COVERAGES, crps, pinball, row_scores, score_table, winkler

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


# Rows


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

    return table(outcomes, values, model=names("a", "NA"), symbol=names(*SYMBOLS), horizon=names(1, 5))


def slow_score_table(forecasts: pd.DataFrame) -> dict[tuple[str, str, int, str], float]:
    """One row after the other, into a list of losses for each key."""
    lists: dict[tuple[str, str, int, str], list[float]] = {}
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
        filled = [quantiles[0.01], *quantiles.values(), quantiles[0.99]]
        mean = sum((grid[i + 1] - grid[i]) * (filled[i] + filled[i + 1]) / 2 for i in range(N + 1))
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
    expected = slow_score_table(forecasts)
    # Where no price moved there is no direction: the loop has no entry, the table has NaN.
    undirected = {key for key, value in ours.items() if math.isnan(value)}
    assert {key[3] for key in undirected} <= {"direction", "direction_base_rate"}
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
        rng.normal(size=40), NORMAL, symbol=rng.choice(SYMBOLS, 40), horizon=rng.choice([1, 5], 40)
    )
    keys = ["model", "symbol", "horizon", "metric"]
    shuffled = score_table(forecasts.sample(frac=1.0, random_state=1)).sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(shuffled, score_table(forecasts).sort_values(keys, ignore_index=True))
