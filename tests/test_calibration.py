"""Conformal layers against MAPIE, the bounds of their papers, and the clock: nothing is known too early."""

from __future__ import annotations

import dataclasses
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mapie.conformity_scores import AbsoluteConformityScore
from mapie.regression import SplitConformalRegressor, TimeSeriesRegressor
from numpy.typing import NDArray
from scipy import stats
from sklearn.base import BaseEstimator, RegressorMixin

from forecaster.calibration import Adaptive, ConformalQuantiles, Control, Rule, Split
from forecaster.errors import ParameterError
from forecaster.quantiles import LEVELS, QuantileForecast, Tails
from forecaster.scores import crps
from forecaster.windows import Panel, Windows

Array = NDArray[np.float64]

N = len(LEVELS)
NORMAL = stats.norm.ppf(LEVELS)
WIDTH = float(NORMAL[LEVELS.index(0.75)] - NORMAL[LEVELS.index(0.25)])
RULES: list[Rule] = [
    Split(window=200, refresh=5),
    Adaptive(window=200, refresh=5, rate=0.01),
    Control(),
    Control(by_symbol=True, outer=0.1),
]
NAMES = ["split", "adaptive", "control", "by symbol"]
FIRST = np.datetime64("2010-01-01")


def panel_of(*series: Array, start: tuple[int, ...] = ()) -> Panel:
    """Series of returns on consecutive days, each from a day of its own."""
    starts = start or (0,) * len(series)
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in series])]).astype(np.int64)
    days = [day + np.arange(len(one)) for day, one in zip(starts, series, strict=True)]
    sessions = FIRST + np.concatenate(days)
    names = tuple(f"S{number}" for number in range(len(series)))
    return Panel(names, offsets, sessions, np.ones(len(sessions)), np.concatenate(series))


def origins(panel: Panel, horizons: tuple[int, ...] = (1, 5)) -> Windows:
    return Windows(panel, np.arange(len(panel)), horizons)


def layer_of(horizons: tuple[int, ...], rule: Rule) -> ConformalQuantiles:
    return ConformalQuantiles(horizons, rule, ("S0", "S1", "S2"))


def normal_forecast(windows: Windows, scale: Array | float = 1.0) -> QuantileForecast:
    """Normal quantiles of the daily scale, the same at every origin or one an origin."""
    of_horizon = np.sqrt(np.array(windows.horizons))
    scales = np.broadcast_to(np.asarray(scale, dtype=float), len(windows))[:, None] * of_horizon
    reach = scales * float(stats.norm.pdf(NORMAL[0])) / 0.01
    tails = Tails(-reach, reach, np.square(scales))
    return QuantileForecast(scales[:, :, None] * NORMAL, windows.horizons, tails)


def random_panel(seed: int, n: int = 400) -> Panel:
    rng = np.random.default_rng(seed)
    return panel_of(rng.standard_t(4, n), rng.standard_t(4, n - 60), start=(0, 31))


def same(one: QuantileForecast, other: QuantileForecast) -> bool:
    assert one.tails is not None
    assert other.tails is not None
    pairs = [(one.values, other.values)]
    pairs += [(getattr(one.tails, name), getattr(other.tails, name)) for name in ("low", "high", "variance")]
    return all(np.array_equal(*pair) for pair in pairs)


# The clock


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_whatever_comes_after_an_origin_leaves_its_bits(rule: Rule) -> None:
    panel = random_panel(1)
    windows, cut = origins(panel), FIRST + 250
    first = layer_of((1, 5), rule).walk(windows, normal_forecast(windows))
    later = panel.sessions > cut
    changed = Panel(
        panel.symbols, panel.offsets, panel.sessions, panel.closes, np.where(later, -7.0, panel.returns)
    )
    again = layer_of((1, 5), rule).walk(origins(changed), normal_forecast(windows))
    before = windows.sessions <= cut
    assert np.array_equal(first.values[before], again.values[before])
    assert not np.array_equal(first.values[~before], again.values[~before])


@pytest.mark.parametrize("horizon", [1, 5])
def test_an_outcome_counts_from_the_evening_on_which_it_is_known(horizon: int) -> None:
    rng = np.random.default_rng(2)
    calm = 0.1 * rng.standard_normal(60)
    shock = calm.copy()
    shock[30] = 50.0  # above every quantile, for the origins of the h days before
    results = []
    for returns in (calm, shock):
        windows = origins(panel_of(returns), (horizon,))
        layer = layer_of((horizon,), Control())
        results.append(layer.walk(windows, normal_forecast(windows)).values)
    differs = (results[0] != results[1]).any(axis=(1, 2))
    assert np.flatnonzero(differs)[0] == 30


def night_by_night(panel: Panel, rule: Rule) -> tuple[QuantileForecast, Windows]:
    """Each evening a new layer, which knows what the last one saved and sees the prices of that evening."""
    windows = origins(panel)
    raw = normal_forecast(windows)
    values = raw.values.copy()
    low, high, variance = (np.empty(values.shape[:2]) for _ in range(3))
    saved: bytes | None = None
    for evening in panel.calendar:
        layer = layer_of((1, 5), rule)
        if saved is not None:
            with np.load(io.BytesIO(saved), allow_pickle=False) as archive:
                layer.restore(dict(archive))
        past = np.flatnonzero((windows.sessions <= evening) & (windows.sessions >= evening - 20))
        seen = Panel(
            panel.symbols,
            panel.offsets,
            panel.sessions,
            panel.closes,
            np.where(panel.sessions <= evening, panel.returns, np.nan),
        )
        layer.walk(Windows(seen, windows.rows[past], (1, 5)), part(raw, past))
        # A second time, as after a crash: nothing counts twice, and older origins keep what was issued.
        issued = layer.walk(Windows(seen, windows.rows[past], (1, 5)), part(raw, past))
        older, tails = windows.sessions[past] < evening, issued.tails
        assert np.array_equal(issued.values[older], values[past[older]])
        values[past] = issued.values
        assert tails is not None
        low[past], high[past], variance[past] = tails.low, tails.high, tails.variance
        file = io.BytesIO()
        np.savez(file, **layer.state())  # type: ignore[arg-type]
        saved = file.getvalue()
    return QuantileForecast(values, (1, 5), Tails(low, high, variance)), windows


def part(forecast: QuantileForecast, rows: NDArray[np.int64]) -> QuantileForecast:
    assert forecast.tails is not None
    tails = Tails(forecast.tails.low[rows], forecast.tails.high[rows], forecast.tails.variance[rows])
    return QuantileForecast(forecast.values[rows], forecast.horizons, tails)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_night_by_night_gives_the_bits_of_the_walk(rule: Rule) -> None:
    panel = random_panel(3, 200)
    nightly, windows = night_by_night(panel, rule)
    walked = layer_of((1, 5), rule).walk(windows, normal_forecast(windows))
    assert same(nightly, walked)
    assert not np.array_equal(walked.values, normal_forecast(windows).values)


def test_an_error_is_one_of_the_quantile_as_issued_and_not_of_a_later_one() -> None:
    horizon, rate, place = 5, 0.5, LEVELS.index(0.9)
    rng = np.random.default_rng(16)
    windows = origins(panel_of(rng.standard_t(3, 120)), (horizon,))
    raw = normal_forecast(windows)
    walked = layer_of((horizon,), Control(rate=rate, integral=0.0)).walk(windows, raw)
    width = math.sqrt(horizon) * WIDTH
    # Evening by evening: the threshold moves by the outcome that was forecast five sessions before.
    issued: list[Array] = []
    position = np.zeros(N)
    returns = windows.panel.returns
    for evening in range(120):
        if evening >= horizon:
            origin = evening - horizon
            outcome = returns[origin + 1 : evening + 1].sum()
            above = outcome > raw.values[origin, 0] + width * issued[origin]
            position = position + rate / horizon * (above - (1 - np.array(LEVELS)))
        issued.append(position)
        expected = np.sort(raw.values[evening, 0] + width * position)
        np.testing.assert_allclose(walked.values[evening, 0], expected, atol=1e-9)
    assert np.ptp([one[place] for one in issued]) > 0.2


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_the_order_of_rows_does_not_matter(rule: Rule) -> None:
    windows = origins(random_panel(4))
    scale = np.random.default_rng(4).uniform(0.5, 2.0, len(windows))
    walked = layer_of((1, 5), rule).walk(windows, normal_forecast(windows, scale))
    order = np.random.default_rng(5).permutation(len(windows))
    shuffled = layer_of((1, 5), rule).walk(
        windows.take(order), normal_forecast(windows.take(order), scale[order])
    )
    np.testing.assert_allclose(shuffled.values, walked.values[order], rtol=1e-12, atol=1e-12)


def test_each_symbol_has_its_own_thresholds_where_the_rule_says_so() -> None:
    panel = random_panel(6)
    windows = origins(panel)
    rule = Control(by_symbol=True)
    together = layer_of((1, 5), rule).walk(windows, normal_forecast(windows))
    for symbol in panel.symbols:
        alone = origins(panel.select({symbol}))
        mine = windows.symbols == symbol
        same_alone = layer_of((1, 5), rule).walk(alone, normal_forecast(alone))
        assert np.array_equal(same_alone.values, together.values[mine])
        # One symbol alone is also all of them.
        pooled = layer_of((1, 5), Control()).walk(alone, normal_forecast(alone))
        assert np.array_equal(pooled.values, same_alone.values)
    assert not np.array_equal(
        together.values, layer_of((1, 5), Control()).walk(windows, normal_forecast(windows)).values
    )


@pytest.mark.parametrize("rule", [Control(), Control(by_symbol=True)], ids=["pooled", "by symbol"])
def test_a_symbol_that_the_layer_does_not_know_teaches_nothing(rule: Rule) -> None:
    windows = origins(random_panel(6))
    raw = normal_forecast(windows)
    known = windows.symbols == "S0"
    walked = ConformalQuantiles((1, 5), rule, ("S0",)).walk(windows, raw)
    alone = ConformalQuantiles((1, 5), rule, ("S0",)).walk(
        windows.take(known), part(raw, np.flatnonzero(known))
    )
    assert np.array_equal(walked.values[known], alone.values)
    assert np.array_equal(walked.values[~known], raw.values[~known]) == rule.by_symbol


@pytest.mark.parametrize("rule", RULES[:3], ids=NAMES[:3])
@pytest.mark.parametrize("outer", [0.05, 0.1])
def test_only_the_outer_levels_move(rule: Rule, outer: float) -> None:
    windows = origins(random_panel(6))
    raw = normal_forecast(windows)
    every = layer_of((1, 5), rule).walk(windows, raw)
    some = layer_of((1, 5), dataclasses.replace(rule, outer=outer)).walk(windows, raw)  # type: ignore[type-var]
    levels = np.array(LEVELS)
    inner = (levels > outer + 0.01) & (levels < 0.99 - outer)
    # Beside the border a moved level may cross one that is not, and both are sorted.
    assert np.array_equal(some.values[:, :, inner][:, :, 1:-1], raw.values[:, :, inner][:, :, 1:-1])
    assert np.array_equal(some.values[:, :, [0, -1]], every.values[:, :, [0, -1]])
    assert not np.array_equal(some.values[:, :, 0], raw.values[:, :, 0])


def test_where_exchanges_close_at_different_times_a_date_counts_when_it_is_over() -> None:
    panel = random_panel(6)
    midnight = panel.sessions.astype("datetime64[s]")
    closings = np.where(panel.series == 0, midnight, midnight + np.timedelta64(1, "h"))
    apart = dataclasses.replace(panel, closings=closings)
    rows = np.flatnonzero(panel.series == 0)
    shocked = np.where((panel.series == 1) & (panel.sessions == FIRST + 200), 50.0, panel.returns)
    first = {}
    for name, one in (("together", panel), ("apart", apart)):
        results = []
        for returns in (panel.returns, shocked):
            windows = origins(dataclasses.replace(one, returns=returns), (1,))
            results.append(layer_of((1,), Control()).walk(windows, normal_forecast(windows)).values[rows])
        differs = (results[0] != results[1]).any(axis=(1, 2))
        first[name] = panel.sessions[rows][differs][0]
    assert first == {"together": FIRST + 200, "apart": FIRST + 201}


# Split, against MAPIE


class Given(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted regressor that predicts its first feature."""

    fitted_ = True

    def fit(self, X: Array, y: Array) -> Given:
        return self

    def predict(self, X: Array) -> Array:
        return np.asarray(X[:, 0])

    def __sklearn_is_fitted__(self) -> bool:
        return True


@pytest.mark.parametrize("n", [100, 157, 400])
def test_split_is_that_of_mapie(n: int) -> None:
    y = np.random.default_rng(n).standard_t(3, n)
    windows = origins(panel_of(np.concatenate([[0.0], y])), (1,))
    raw = normal_forecast(windows)
    layer = layer_of((1,), Split(window=1000, refresh=1))
    moved = layer.walk(windows, raw).values[-1, 0]
    for coverage in (0.5, 0.8, 0.9, 0.95, 0.98):
        low, high = (LEVELS.index(round(0.5 + sign * coverage / 2, 6)) for sign in (-1, 1))
        # Residuals from either end are MAPIE's signed scores of a prediction that is that end.
        for end in (low, high):
            library = SplitConformalRegressor(
                Given(),
                confidence_level=coverage,
                conformity_score=AbsoluteConformityScore(sym=False),
                prefit=True,
            )
            library.conformalize(np.full((n, 1), NORMAL[end]), y)
            _, bounds = library.predict_interval(np.full((1, 1), NORMAL[end]), allow_infinite_bounds=True)
            theirs = bounds[0, int(end == high), 0]
            if np.isfinite(theirs):
                assert moved[end] == pytest.approx(theirs, abs=1e-12), (coverage, end)


def test_split_covers_in_finite_samples() -> None:
    rng = np.random.default_rng(7)
    inside = {0.8: 0.0, 0.95: 0.0}
    samples = 150
    for _ in range(samples):
        windows = origins(panel_of(rng.standard_t(3, 122)), (1,))
        moved = layer_of((1,), Split(refresh=1)).walk(windows, normal_forecast(windows))
        y = windows.targets[120, 0]
        for coverage in inside:
            low, high = (end[120, 0] for end in moved.interval(coverage))
            inside[coverage] += float(low <= y <= high) / samples
    assert inside[0.8] == pytest.approx(0.81, abs=0.06)
    assert inside[0.95] >= 0.93


# Adaptive, against MAPIE and the bound of the paper


def test_adaptive_levels_are_those_of_mapie() -> None:
    rng = np.random.default_rng(8)
    rate, calibration, level = 0.01, 150, LEVELS.index(0.9)
    scores = np.abs(rng.standard_normal(400)) * np.where(np.arange(400) < 250, 1.0, 1.3)
    # One-sided scores: outcomes above the 90% quantile by the size of a residual.
    y = NORMAL[level] + scores
    windows = origins(panel_of(np.concatenate([[0.0], y])), (1,))
    rule = Adaptive(window=calibration, refresh=1, rate=rate)
    layer = layer_of((1,), rule)
    first = np.arange(calibration + 1)
    layer.walk(windows.take(first), part(normal_forecast(windows), first))
    # The paper starts after the calibration, where MAPIE does.
    layer.restore(layer.state() | {"levels_h1": np.array(LEVELS)})

    library = TimeSeriesRegressor(
        Given(), method="aci", cv="prefit", conformity_score=AbsoluteConformityScore(sym=True)
    )
    library.fit(np.zeros((calibration, 1)), scores[:calibration])
    reached: list[float] = []
    for t in range(calibration, 399):
        x, row = np.zeros((1, 1)), np.array([t - 1, t])
        _, bounds = library.predict(x, confidence_level=[0.9], allow_infinite_bounds=True)
        # Before the levels are put in order, for MAPIE has but one.
        layer.walk(windows.take(row), part(normal_forecast(windows), row))
        ours = layer.trackers[0].thresholds()[0, level] * WIDTH
        assert ours == pytest.approx(float(bounds[0, 1, 0]), abs=1e-9), t
        reached.append(library.current_alpha[0.1])
        library.adapt_conformal_inference(x, scores[t : t + 1], gamma=rate, confidence_level=[0.9])
        library._update_conformity_scores_with_ensemble(x, scores[t : t + 1])
    assert min(reached) < 0.08 < 0.1 < max(reached)


def long_run_error(rule: Rule, scores: Array) -> Array:
    """Share of scores above their thresholds, less the share promised, a level each."""
    tracker, errors = rule.tracker(1, 1), np.zeros(N)
    for score in scores:
        above = score > tracker.thresholds()
        errors += above[0]
        tracker.observe(np.zeros(1, dtype=np.int64), np.full((1, N), score), above)
    result: Array = errors / len(scores) - (1.0 - np.array(LEVELS))
    return result


# Control, against the bounds of the paper


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(np.float64, st.integers(50, 300), elements=st.floats(-2, 2)),
    st.sampled_from([0.05, 0.2, 1.0]),
)
def test_quantile_tracking_keeps_its_bound_whatever_the_scores(scores: Array, rate: float) -> None:
    # Proposition 1: scores of at most b in size are covered up to (b + rate) / (rate T).
    error = long_run_error(Control(rate=rate, integral=0.0), scores)
    assert (np.abs(error) <= (2.0 + rate) / (rate * len(scores)) + 1e-12).all()


@settings(max_examples=20, deadline=None)
@given(hnp.arrays(np.float64, st.integers(100, 400), elements=st.floats(-9, 9)))
def test_the_sum_of_errors_keeps_its_bound_whatever_the_scores(scores: Array) -> None:
    # Proposition 2: the sum of errors never passes where the tangent saturates, h(T), by more than one step.
    days = len(scores) + 1
    error = long_run_error(Control(rate=1e-9, integral=1.0), scores)
    assert (np.abs(error) <= (1.5 * 0.5 * days / math.log(days) + 1.0) / len(scores)).all()


def test_control_is_the_formula_of_the_paper() -> None:
    rng = np.random.default_rng(9)
    scores = rng.standard_t(3, 200)
    rule = Control(rate=0.1, integral=0.7)
    tracker = rule.tracker(1, 1)
    level, place = 0.95, LEVELS.index(0.95)
    position = total = 0.0
    for t, score in enumerate(scores):
        saturated = 0.7 * math.tan(max(-1.5, min(1.5, total * math.log(t + 1) / ((t + 1) * 0.5))))
        assert tracker.thresholds()[0, place] == pytest.approx(position + saturated, abs=1e-12)
        error = float(score > position + saturated)
        above = score > tracker.thresholds()
        tracker.observe(np.zeros(1, dtype=np.int64), np.full((1, N), score), above)
        position += 0.1 * (error - (1 - level))
        total += error - (1 - level)


# What calibration is for


# So wrong a model takes control a larger rate than its careful default, at a horizon that divides it by five.
@pytest.mark.parametrize("rule", [Split(), Adaptive(), Control(rate=0.1)], ids=NAMES[:3])
def test_forecasts_that_are_too_narrow_or_lopsided_come_to_cover(rule: Rule) -> None:
    rng = np.random.default_rng(10)
    sigma = np.exp(0.5 * np.sin(np.arange(2500) / 40))
    series = [sigma * (rng.standard_t(4, 2500) / math.sqrt(2) + 0.3) for _ in range(3)]
    windows = origins(panel_of(*series))
    raw = normal_forecast(windows, 0.7 * np.tile(sigma, 3))
    moved = layer_of((1, 5), rule).walk(windows, raw)
    late = windows.panel.positions > 1500
    y = windows.targets[late]
    known = np.isfinite(y)
    for place in range(2):
        mine = known[:, place]
        for level in (0.01, 0.05, 0.25, 0.5, 0.95, 0.99):
            below = [
                (y[mine, place] <= one.values[late][mine, place, LEVELS.index(level)]).mean()
                for one in (raw, moved)
            ]
            # Two standard errors of 3,000 outcomes, and of a fifth of them; before, up to 25 points away.
            within = (1 + place) * (0.025 if level in (0.25, 0.5) else 0.015)
            assert below[1] == pytest.approx(level, abs=within), (place, level)
        losses = [crps(y[mine, place], one.values[late][mine, place]).mean() for one in (raw, moved)]
        assert losses[1] < 0.99 * losses[0]
    low, high = (end[late][known[:, 0], 0] for end in raw.interval(0.95))
    assert ((low <= y[known[:, 0], 0]) & (y[known[:, 0], 0] <= high)).mean() < 0.88


@pytest.mark.parametrize("rule", [Split(), Adaptive(), Control()], ids=NAMES[:3])
def test_right_forecasts_lose_next_to_nothing(rule: Rule) -> None:
    rng = np.random.default_rng(11)
    windows = origins(panel_of(*(rng.standard_normal(2000) for _ in range(3))))
    raw = normal_forecast(windows)
    moved = layer_of((1, 5), rule).walk(windows, raw)
    for place in range(2):
        y = windows.targets[:, place]
        mine = np.isfinite(y) & (windows.panel.positions > 300)
        after, before = (crps(y[mine], one.values[mine, place]).mean() for one in (moved, raw))
        assert after / before < 1.005


@pytest.mark.parametrize("rule", [Adaptive(), Control()], ids=NAMES[1:3])
def test_a_change_of_the_world_is_followed_sooner_than_by_the_split(rule: Rule) -> None:
    rng = np.random.default_rng(12)
    size = np.where(np.arange(2000) < 1200, 1.0, 2.0)
    windows = origins(panel_of(*(size * rng.standard_normal(2000) for _ in range(3))), (1,))
    raw = normal_forecast(windows)
    mine = (windows.panel.positions >= 1300) & (windows.panel.positions < 1700)
    covered = []
    for one in (Split(window=1000), rule):
        moved = layer_of((1,), one).walk(windows, raw)
        low, high = (end[mine, 0] for end in moved.interval(0.9))
        y = windows.targets[mine, 0]
        covered.append(((low <= y) & (y <= high)).mean())
    assert abs(covered[1] - 0.9) < abs(covered[0] - 0.9) - 0.02


def test_tails_and_variance_move_along() -> None:
    rng = np.random.default_rng(13)
    windows = origins(panel_of(rng.standard_normal(3000)), (1,))
    raw = normal_forecast(windows, 0.5)
    moved = layer_of((1,), Split()).walk(windows, raw)
    assert raw.tails is not None
    assert moved.tails is not None
    # Forecasts of half the scale: the variance is four times what was said.
    assert moved.tails.variance[-1, 0] / raw.tails.variance[-1, 0] == pytest.approx(4.0, rel=0.1)
    np.testing.assert_allclose(
        (moved.tails.low - moved.values[:, :, 0])[-1], (raw.tails.low - raw.values[:, :, 0])[-1], atol=1e-12
    )
    without = QuantileForecast(raw.values, (1,))
    assert layer_of((1,), Split()).walk(windows, without).tails is None


@settings(max_examples=25, deadline=None)
@given(
    hnp.arrays(np.float64, (40, 3), elements=st.sampled_from([-9.0, -1.0, 0.0, 0.1, 5.0])),
    st.sampled_from(
        [Control(rate=2.0, integral=5.0), Split(window=40, refresh=1), Adaptive(refresh=1, rate=0.5)]
    ),
)
def test_levels_stay_in_order_under_any_outcomes(returns: Array, rule: Rule) -> None:
    # QuantileForecast refuses quantiles that cross, tails inside them and what is not finite.
    windows = origins(panel_of(*(np.ascontiguousarray(one) for one in returns.T)), (1,))
    moved = layer_of((1,), rule).walk(windows, normal_forecast(windows))
    assert moved.values.shape == (120, 1, N)


def test_a_point_mass_is_neither_moved_nor_learned_from() -> None:
    rng = np.random.default_rng(14)
    panel = panel_of(rng.standard_normal(200), np.zeros(200))
    windows = origins(panel)
    scale = np.where(panel.series == 1, 0.0, 1.0)
    raw = normal_forecast(windows, scale)
    moved = layer_of((1, 5), Control()).walk(windows, raw)
    flat = panel.series == 1
    assert np.array_equal(moved.values[flat], raw.values[flat])
    alone = origins(panel.select(["S0"]))
    without = layer_of((1, 5), Control()).walk(alone, normal_forecast(alone))
    assert np.array_equal(moved.values[~flat], without.values)


def test_with_few_outcomes_nothing_is_moved_by_their_quantiles() -> None:
    windows = origins(panel_of(np.random.default_rng(15).standard_normal(100)), (1,))
    raw = normal_forecast(windows)
    for rule in (Split(refresh=1), Adaptive(refresh=1)):
        assert np.array_equal(layer_of((1,), rule).walk(windows, raw).values, raw.values)


# Refusals


def test_what_does_not_fit_is_refused() -> None:
    windows = origins(panel_of(np.zeros(50) + 0.1), (1,))
    raw = normal_forecast(windows)
    layer = layer_of((1,), Control())
    with pytest.raises(ParameterError) as caught:
        layer_of((1, 5), Control()).walk(windows, raw)
    assert str(caught.value) == (
        "a layer calibrates forecasts of its own horizons (1, 5). Received: origins at (1,) and forecasts at "
        "(1,)"
    )
    with pytest.raises(ParameterError, match=r"one forecast an origin\. Received: 50 for 49 origins"):
        layer.walk(windows.take(np.arange(49)), raw)


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
@pytest.mark.parametrize("name", ["window", "refresh"])
def test_windows_are_whole_numbers(name: str, value: int) -> None:
    for rule in (Split, Adaptive):
        with pytest.raises(ParameterError) as caught:
            rule(**{name: value})
        assert str(caught.value) == f"`{name}` is a whole number of at least 1. Received: {value}"


@pytest.mark.parametrize("value", [0.0, -0.1, math.inf, math.nan])
def test_rates_are_positive(value: float) -> None:
    for rule in (Adaptive, Control):
        with pytest.raises(ParameterError, match=r"`rate` is a positive number\. Received: "):
            rule(rate=value)
    if value:
        with pytest.raises(ParameterError, match=r"`integral` is a number of at least 0\. Received: "):
            Control(integral=value)


@pytest.mark.parametrize("value", [0.0, 0.6, math.nan])
def test_outer_levels_lie_below_one_half(value: float) -> None:
    for rule in (Split, Adaptive, Control):
        with pytest.raises(ParameterError) as caught:
            rule(outer=value)
        assert str(caught.value) == f"`outer` lies between 0.01 and 0.5. Received: {value}"
