"""Quantile forecasts against slow readings of the distribution function, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats

from forecaster.errors import ParameterError
from forecaster.quantiles import (
    LEVELS,
    QuantileForecast,
    Tails,
    average,
    expected_shortfall,
    probability_below,
    quantile_columns,
    quantile_weights,
)

Array = NDArray[np.float64]

N = len(LEVELS)
NORMAL = stats.norm.ppf(LEVELS)
# Halves and their multiples: ties among quantiles and with thresholds are common, arithmetic is exact.
COARSE = st.integers(-6, 6).map(lambda number: number / 2)
FINE = st.floats(-1.0, 1.0, allow_subnormal=False)


def quantile_rows(elements: st.SearchStrategy[float], rows: int = 3) -> st.SearchStrategy[Array]:
    return hnp.arrays(np.float64, (rows, N), elements=elements).map(lambda values: np.sort(values, axis=-1))


def forecast(values: Array, horizons: tuple[int, ...] = (1,)) -> QuantileForecast:
    return QuantileForecast(np.asarray(values, dtype=np.float64).reshape(-1, len(horizons), N), horizons)


def slow_probability_below(values: Array, threshold: float) -> float:
    """Walk along the quantile function: the middle of a tie, else the chord between two neighbours."""
    equal = [level for level, value in zip(LEVELS, values, strict=True) if value == threshold]
    if equal:
        return (equal[0] + equal[-1]) / 2
    if threshold < values[0]:
        return LEVELS[0]
    for index in range(N - 1):
        low, high = values[index], values[index + 1]
        if low < threshold < high:
            share = float((threshold - low) / (high - low))
            return LEVELS[index] + share * (LEVELS[index + 1] - LEVELS[index])
    return LEVELS[-1]


def test_levels_are_the_23_of_the_contract() -> None:
    assert LEVELS[:3] == (0.01, 0.025, 0.05)
    assert LEVELS[-3:] == (0.95, 0.975, 0.99)
    assert LEVELS[3:-3] == tuple(round(0.1 + 0.05 * step, 2) for step in range(17))
    assert quantile_columns()[:5] == ["q0.01", "q0.025", "q0.05", "q0.1", "q0.15"]
    assert quantile_columns()[-2:] == ["q0.975", "q0.99"]


def test_weights_integrate_what_is_zero_at_both_ends() -> None:
    levels, grid = np.array(LEVELS), np.array([0.0, *LEVELS, 1.0])
    parabola = levels * (1 - levels) @ quantile_weights()
    assert parabola == pytest.approx(np.trapezoid(grid * (1 - grid), grid), rel=1e-14)
    # Exact for a tent whose kink is a level.
    assert np.minimum(levels, 1 - levels) @ quantile_weights() == pytest.approx(0.25, rel=1e-14)


@given(quantile_rows(COARSE), hnp.arrays(np.float64, 3, elements=COARSE | st.sampled_from([-99.0, 99.0])))
def test_probability_below_is_the_slow_reading_with_ties_and_outside(
    values: Array, thresholds: Array
) -> None:
    expected = [slow_probability_below(row, at) for row, at in zip(values, thresholds, strict=True)]
    np.testing.assert_allclose(probability_below(values, thresholds), expected, rtol=0, atol=1e-12)


@given(quantile_rows(FINE), hnp.arrays(np.float64, 3, elements=st.floats(-2.0, 2.0)))
def test_probability_below_is_the_slow_reading_anywhere(values: Array, thresholds: Array) -> None:
    expected = [slow_probability_below(row, at) for row, at in zip(values, thresholds, strict=True)]
    np.testing.assert_allclose(probability_below(values, thresholds), expected, rtol=0, atol=1e-9)


@given(quantile_rows(COARSE, rows=1), COARSE, COARSE)
def test_probability_below_never_falls_and_stays_within_the_levels(
    values: Array, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    below = probability_below(np.repeat(values, 2, axis=0), np.array([low, high]))
    assert LEVELS[0] <= below[0] <= below[1] <= LEVELS[-1]


def test_probability_below_inverts_the_quantile_function() -> None:
    values = np.broadcast_to(NORMAL, (N, N))
    np.testing.assert_allclose(probability_below(values, NORMAL), LEVELS, rtol=0, atol=1e-15)
    middles = (np.array(LEVELS[1:]) + np.array(LEVELS[:-1])) / 2
    thresholds = np.interp(middles, LEVELS, NORMAL)
    np.testing.assert_allclose(probability_below(values[1:], thresholds), middles, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("threshold", "expected"), [(-1.0, 0.01), (0.0, 0.5), (1.0, 0.99), (np.inf, 0.99), (-np.inf, 0.01)]
)
def test_a_point_mass_has_the_middle_at_it_and_the_outermost_levels_beside_it(
    threshold: float, expected: float
) -> None:
    assert probability_below(np.zeros((1, N)), np.array([threshold]))[0] == pytest.approx(expected, abs=1e-15)


def test_probability_below_of_an_unknown_threshold_is_unknown() -> None:
    below = probability_below(np.stack([NORMAL, np.zeros(N)]), np.array([np.nan, np.nan]))
    assert np.isnan(below).all()


@given(quantile_rows(COARSE))
def test_probability_of_rise_mirrors_with_the_sign(values: Array) -> None:
    rise = forecast(values).probability_of_rise()
    mirrored = forecast(-values[:, ::-1]).probability_of_rise()
    np.testing.assert_allclose(rise + mirrored, 1.0, rtol=0, atol=1e-12)


def test_probability_of_rise_of_a_normal_with_drift() -> None:
    # 0.9 is a level, so that no interpolation error is left.
    rise = forecast(NORMAL + stats.norm.ppf(0.9)).probability_of_rise()
    assert rise[0, 0] == pytest.approx(0.9, abs=1e-12)


def test_median_and_mean_of_a_symmetric_and_of_a_skewed_forecast() -> None:
    shifted = forecast(np.stack([NORMAL, NORMAL + 2.0]))
    np.testing.assert_allclose(shifted.median[:, 0], [0.0, 2.0], atol=1e-12)
    np.testing.assert_allclose(shifted.mean[:, 0], [0.0, 2.0], atol=1e-12)
    uniform = forecast(np.array(LEVELS))
    # Uniform on [0.01, 0.99], with the tails folded onto its ends.
    assert uniform.mean[0, 0] == pytest.approx(0.5, abs=1e-12)
    skewed = forecast(np.array(LEVELS) ** 2)
    dense = np.linspace(0.0, 1.0, 1_000_001)
    folded = np.interp(dense, LEVELS, np.array(LEVELS) ** 2)
    assert skewed.mean[0, 0] == pytest.approx(np.trapezoid(folded, dense), abs=1e-8)


@pytest.mark.parametrize(
    ("coverage", "low", "high"),
    [(0.5, 0.25, 0.75), (0.8, 0.1, 0.9), (0.9, 0.05, 0.95), (0.95, 0.025, 0.975), (0.98, 0.01, 0.99)],
)
def test_an_interval_ends_at_its_two_levels(coverage: float, low: float, high: float) -> None:
    ends = forecast(np.stack([np.array(LEVELS), 2 * np.array(LEVELS)])).interval(coverage)
    np.testing.assert_array_equal(ends[0][:, 0], [low, 2 * low])
    np.testing.assert_array_equal(ends[1][:, 0], [high, 2 * high])


@pytest.mark.parametrize("coverage", [0.99, 0.33, 0.0, 1.0, -0.8, 80, float("nan")])
def test_other_intervals_are_refused(coverage: float) -> None:
    with pytest.raises(
        ParameterError,
        match=r"an interval ends at two forecast levels. Received: .*; allowed: \[0.98, 0.95, 0.9",
    ):
        forecast(NORMAL).interval(coverage)


@given(quantile_rows(FINE), st.integers(0, 2), st.integers(0, N - 1))
def test_a_value_that_is_not_finite_is_refused_with_its_row(values: Array, row: int, level: int) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        broken = values.copy()
        broken[row, level] = bad
        with pytest.raises(ParameterError) as caught:
            forecast(broken)
        assert str(caught.value) == (
            "a quantile forecast is finite everywhere. Received: 1 origins with NaN or infinity, the first "
            f"at row {row}; check the model and its features"
        )


def test_crossing_quantiles_are_refused_with_their_row_and_equal_ones_are_not() -> None:
    values = np.tile(NORMAL, (4, 1))
    values[2, [5, 6]] = values[2, [6, 5]]
    values[3, 0] = 0.0
    with pytest.raises(ParameterError) as caught:
        forecast(values)
    assert str(caught.value) == (
        "quantiles do not cross. Received: 2 origins where they do, the first at row 2; sort the quantiles "
        "or mend the model"
    )
    assert len(forecast(np.zeros((4, N)))) == 4


@pytest.mark.parametrize("shape", [(2, N), (2, 1, N - 1), (2, 2, N), (2, 1, N, 1)])
def test_a_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ParameterError, match=r"\(n_horizons, n_levels\) = \(1, 23\). Received: \(2, "):
        QuantileForecast(np.zeros(shape), (1,))


def test_no_origins_make_an_empty_forecast() -> None:
    empty = forecast(np.zeros((0, N)))
    assert (len(empty), empty.median.shape, empty.probability_of_rise().shape) == (0, (0, 1), (0, 1))


@given(quantile_rows(st.floats(-1e6, 1e6)), quantile_rows(st.floats(-1e6, 1e6)), quantile_rows(FINE))
def test_average_is_the_mean_of_each_quantile_and_stays_in_order(
    one: Array, two: Array, three: Array
) -> None:
    result = average([forecast(one), forecast(two), forecast(three)])
    np.testing.assert_allclose(result.values[:, 0], (one + two + three) / 3, rtol=1e-12, atol=1e-9)
    assert (np.diff(result.values) >= 0).all()


def test_average_of_one_is_itself_and_of_a_wide_and_a_narrow_normal_is_between() -> None:
    np.testing.assert_array_equal(average([forecast(NORMAL)]).values, forecast(NORMAL).values)
    # Averaging quantiles averages the scale, where averaging densities would fatten the tails.
    between = average([forecast(NORMAL), forecast(3 * NORMAL)])
    np.testing.assert_allclose(between.values, forecast(2 * NORMAL).values, rtol=1e-14)


def test_average_refuses_nothing_and_forecasts_of_other_origins_or_horizons() -> None:
    with pytest.raises(ParameterError, match=r"an average needs at least one forecast. Received: none"):
        average([])
    with pytest.raises(
        ParameterError, match=r"share origins and horizons. Received: \(1, 1, 23\) at \(1,\) and .* \(5,\)"
    ):
        average([forecast(NORMAL), forecast(NORMAL, (5,))])
    with pytest.raises(ParameterError, match=r"Received: \(1, 1, 23\) at \(1,\) and \(2, 1, 23\)"):
        average([forecast(NORMAL), forecast(np.tile(NORMAL, (2, 1)))])


# Tails


def normal_tails(mean: float = 0.0, scale: float = 1.0, rows: int = 1) -> Tails:
    reach = float(stats.norm.pdf(NORMAL[0])) / 0.01
    columns = (mean - scale * reach, mean + scale * reach, scale**2)
    return Tails(*(np.full((rows, 1), column) for column in columns))


def with_tails(values: Array, tails: Tails) -> QuantileForecast:
    return QuantileForecast(np.asarray(values, dtype=np.float64).reshape(-1, 1, N), (1,), tails)


def test_tails_complete_the_mean() -> None:
    exponential = stats.expon.ppf(LEVELS)
    low = float(stats.expon.expect(lambda x: x, ub=exponential[0])) / 0.01
    tails = Tails(np.full((1, 1), low), np.full((1, 1), exponential[-1] + 1.0), np.ones((1, 1)))
    folded, whole = forecast(exponential).mean[0, 0], with_tails(exponential, tails).mean[0, 0]
    assert whole == pytest.approx(1.0, abs=0.007)
    # One percent beyond each end: the mean excess of an exponential is one.
    assert whole - folded == pytest.approx(0.01 * (1.0 + low - exponential[0]), rel=1e-9)


@pytest.mark.parametrize("level", [0.01, 0.025, 0.05, 0.1, 0.25])
def test_expected_shortfall_of_a_normal(level: float) -> None:
    truth = 0.2 - 3.0 * float(stats.norm.pdf(stats.norm.ppf(level))) / level
    ours = with_tails(0.2 + 3.0 * NORMAL, normal_tails(0.2, 3.0)).expected_shortfall(level)[0, 0]
    assert ours == pytest.approx(truth, rel=1e-9 if level == 0.01 else 0.012)


@given(quantile_rows(FINE), st.floats(0.0, 1.0), st.sampled_from([0.01, 0.025, 0.05, 0.1]))
def test_expected_shortfall_is_a_slow_integral_and_lies_below_the_value_at_risk(
    values: Array, beyond: float, level: float
) -> None:
    low = values[:, 0] - beyond
    ours = expected_shortfall(values, low, level)
    for row in range(len(values)):
        area = 0.01 * low[row]
        for index in range(LEVELS.index(level)):
            area += (LEVELS[index + 1] - LEVELS[index]) * (values[row, index] + values[row, index + 1]) / 2
        assert ours[row] == pytest.approx(area / level, abs=1e-12)
        assert ours[row] <= values[row, LEVELS.index(level)] + 1e-12


def test_a_shortfall_that_cannot_be_told_is_refused() -> None:
    with pytest.raises(ParameterError) as caught:
        forecast(NORMAL).expected_shortfall(0.05)
    assert str(caught.value) == (
        "an expected shortfall needs the mean below the 1% quantile. Received: a forecast without tails; use "
        "a model that states them"
    )
    with pytest.raises(
        ParameterError, match=r"at a level below one half\. Received: 0\.9; allowed: \[0\.01,"
    ):
        with_tails(NORMAL, normal_tails()).expected_shortfall(0.9)


@pytest.mark.parametrize("broken", ["low", "high", "variance"])
@pytest.mark.parametrize("value", [np.nan, -np.inf, None])
def test_tails_that_contradict_the_quantiles_are_refused(broken: str, value: float | None) -> None:
    sound = normal_tails(rows=3)
    columns = {name: getattr(sound, name).copy() for name in ("low", "high", "variance")}
    inside = {"low": -1.0, "high": 1.0, "variance": -1e-9}
    columns[broken][1] = inside[broken] if value is None else value
    with pytest.raises(ParameterError) as caught:
        with_tails(np.tile(NORMAL, (3, 1)), Tails(**columns))
    assert str(caught.value) == (
        "a tail mean lies beyond the outermost quantile and a variance is not negative, both finite. "
        "Received: 1 origins where they do not, the first at row 1; take them from the outcomes that the "
        "quantiles came from"
    )


def test_tails_of_another_shape_are_refused() -> None:
    with pytest.raises(
        ParameterError, match=r"shape \(n_origins, n_horizons\) = \(1, 1\). Received: \[\(2, 1\)"
    ):
        with_tails(NORMAL, normal_tails(rows=2))


def test_tails_average_as_quantiles_do_and_only_if_all_state_them() -> None:
    one, three = with_tails(NORMAL, normal_tails()), with_tails(3 * NORMAL, normal_tails(0.0, 3.0))
    between = average([one, three])
    assert between.tails is not None
    # Normals differ in scale alone: the average is the normal of the average scale.
    for name in ("low", "high", "variance"):
        np.testing.assert_allclose(getattr(between.tails, name), getattr(normal_tails(0.0, 2.0), name))
    assert average([one, forecast(NORMAL)]).tails is None


@given(st.lists(st.floats(0.1, 3.0), min_size=2, max_size=5))
def test_an_average_of_point_like_tails_is_still_a_forecast(scales: list[float]) -> None:
    # Tail means that equal the outermost quantiles: rounding must not put them inside.
    forecasts = []
    for scale in scales:
        values = scale * NORMAL
        ends = np.full((1, 1), values[0]), np.full((1, 1), values[-1]), np.full((1, 1), scale)
        forecasts.append(with_tails(values, Tails(*ends)))
    assert average(forecasts).tails is not None
