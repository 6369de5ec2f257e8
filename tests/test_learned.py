"""The learned models against slow, obvious ways of computing the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from planted import garch, prices
from scipy.stats import norm
from sklearn.linear_model import QuantileRegressor
from sklearn.neighbors import KNeighborsRegressor

from forecaster.errors import ParameterError
from forecaster.features import CLIP, HAR_FEATURES
from forecaster.models.base import ResidualQuantiles
from forecaster.models.learned import (
    BoostingForecaster,
    MlpForecaster,
    QuantileRegressionForecaster,
    RandomKernelForecaster,
    RidgeForecaster,
    out_of_sample,
)
from forecaster.models.learned.blocks import BLOCKS, SCALE_FLOOR, session_blocks
from forecaster.models.learned.inputs import SCALE_INPUTS, ScaleInputs
from forecaster.models.learned.quantile_regression import BANDWIDTH, fit_quantiles
from forecaster.models.learned.random_kernels import INPUTS, PENALTIES, TAPS, RandomKernels
from forecaster.models.naive import HistoricalForecaster
from forecaster.quantiles import LEVELS, quantile_weights
from forecaster.walkforward import fit_windows, origin_windows
from forecaster.windows import Panel, Universe, Windows

Array = NDArray[np.float64]

HORIZONS = (1, 5)
LOOKBACK = 24


def panel_of(*returns: Array) -> Panel:
    return Panel.from_prices({f"S{number}": prices(series) for number, series in enumerate(returns)})


PANEL = panel_of(garch(500, 0), garch(400, 1))
TRAIN = fit_windows(PANEL, PANEL.calendar[-1], HORIZONS, LOOKBACK)


def pinball(errors: Array, level: float) -> float:
    return float(np.maximum(level * errors, (level - 1.0) * errors).mean())


# Blocks of sessions


def test_blocks_hold_every_origin_once() -> None:
    place, blocks = session_blocks(TRAIN)
    inside = np.array([block.inside(place) for block in blocks])
    assert len(blocks) == BLOCKS
    assert (inside.sum(axis=0) == 1).all()
    np.testing.assert_array_equal(PANEL.calendar[place], TRAIN.sessions)


def test_out_of_sample_means_that_no_outcome_is_shared() -> None:
    """The nearest neighbour in time of each origin lies where no session is in the outcomes of both."""
    place, _ = session_blocks(TRAIN)
    times = place[:, None].astype(np.float32)
    outcomes = np.repeat(place[:, None].astype(float), 2, axis=1)
    predicted = out_of_sample(KNeighborsRegressor(1), times, outcomes, TRAIN)
    assert np.isfinite(predicted).all()
    assert (np.abs(predicted - outcomes) > max(HORIZONS)).all()
    memorised = KNeighborsRegressor(1).fit(times, outcomes).predict(times)
    assert (memorised == outcomes).all()  # in sample it finds itself


# Quantile regression


@st.composite
def regressions(draw: st.DrawFn) -> tuple[Array, Array]:
    """Standardised inputs with a constant, and an outcome whose scale depends on them."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, columns = draw(st.integers(150, 400)), draw(st.integers(1, 3))
    inputs = np.c_[np.ones(rows), random.standard_normal((rows, columns))]
    slopes = random.uniform(-0.3, 0.3, columns + 1)
    return inputs, inputs @ slopes + np.exp(0.2 * inputs[:, 1]) * random.standard_t(5, rows)


@settings(max_examples=15)
@given(regressions(), st.sampled_from([0.05, 0.1, 0.5, 0.75, 0.95]))
def test_the_smoothed_fit_is_as_good_as_the_linear_program(
    problem: tuple[Array, Array], level: float
) -> None:
    inputs, outcomes = problem
    exact = QuantileRegressor(quantile=level, alpha=0.0, fit_intercept=False).fit(inputs, outcomes).coef_
    fitted = fit_quantiles(inputs, outcomes, (level,))[:, 0]
    best = pinball(outcomes - inputs @ exact, level)
    # The smoothed loss lies above the other by at most the width times log 2.
    assert best - 1e-12 <= pinball(outcomes - inputs @ fitted, level) <= best + 0.1 * BANDWIDTH * np.log(2.0)


@settings(max_examples=15)
@given(regressions())
def test_a_line_added_to_the_outcome_is_added_to_every_quantile(problem: tuple[Array, Array]) -> None:
    inputs, outcomes = problem
    line = np.linspace(-0.5, 0.5, inputs.shape[1])
    before, after = (fit_quantiles(inputs, y) for y in (outcomes, outcomes + inputs @ line))
    np.testing.assert_allclose(inputs @ after, inputs @ (before + line[:, None]), atol=2e-3)


def test_a_mirrored_outcome_mirrors_the_quantiles() -> None:
    random = np.random.default_rng(4)
    inputs = np.c_[np.ones(800), random.standard_normal((800, 2))]
    outcomes = random.standard_normal(800)
    up, down = fit_quantiles(inputs, outcomes), fit_quantiles(inputs, -outcomes)
    np.testing.assert_allclose(inputs @ up, -(inputs @ down)[:, ::-1], atol=2e-3)


def test_a_constant_alone_gives_the_sample_quantiles() -> None:
    outcomes = np.random.default_rng(3).standard_normal(5000)
    fitted = fit_quantiles(np.ones((5000, 1)), outcomes)[0]
    np.testing.assert_allclose((outcomes[:, None] < fitted).mean(axis=0), LEVELS, atol=0.002)


def test_inputs_are_held_within_what_was_seen() -> None:
    model = QuantileRegressionForecaster().fit(TRAIN)
    seen = model._inputs(model._raw_inputs(TRAIN))
    wild = panel_of(garch(500, 9, daily=0.5))
    strange = model._inputs(
        model._raw_inputs(origin_windows(wild, *wild.calendar[[100, 400]], HORIZONS, LOOKBACK))
    )
    assert (strange >= seen.min(axis=0) - 1e-12).all()
    assert (strange <= seen.max(axis=0) + 1e-12).all()


# What models of the scale see


def test_the_market_is_seen_as_the_series_is_and_up_to_the_origin() -> None:
    """Beside an index, the market's features are its HAR features but over the volatility of the series."""
    frames = {"A": prices(garch(300, 1)), "B": prices(garch(300, 2)), "INDEX": prices(garch(300, 3))}
    panel, alone = Panel.from_prices(frames, market="INDEX"), Panel.from_prices(frames)
    windows = origin_windows(panel, panel.calendar[100], panel.calendar[290], HORIZONS, LOOKBACK)
    inputs = ScaleInputs().fit(windows)(windows)
    assert inputs.shape == (len(windows), len(SCALE_INPUTS))
    index = alone.parts[alone.symbols.index("INDEX")]
    place = windows.rows - panel.offsets[windows.series]
    own, ratio = alone.har_features[index][place], alone.volatility[index][place] / windows.volatility
    for name, column in zip(SCALE_INPUTS[len(HAR_FEATURES) :], inputs.T[len(HAR_FEATURES) :], strict=True):
        like = own[:, HAR_FEATURES.index(name.replace("market_", ""))]
        expected = like + np.log(ratio) if name.startswith("log") else like * ratio
        apart = (np.minimum(like, expected) > np.log(0.021)) | (not name.startswith("log"))  # of the floor
        assert apart.mean() > 0.95
        np.testing.assert_allclose(column[apart], expected[apart], rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(inputs[:, : len(HAR_FEATURES)], panel.har_features[windows.rows])


def test_without_a_market_the_series_stands_in_and_it_is_said() -> None:
    windows = fit_windows(panel_of(garch(300, 1)), PANEL.calendar[280], HORIZONS, LOOKBACK)
    inputs = ScaleInputs()
    inputs.universe = Universe(("GONE", "AWAY"), None)
    with pytest.warns(UserWarning, match=r"^2 of the symbols .* have no prices here, .*: GONE, AWAY$"):
        seen = inputs(windows)
    own = seen[:, [HAR_FEATURES.index(name.replace("market_", "")) for name in SCALE_INPUTS[-6:]]]
    np.testing.assert_array_equal(seen[:, -6:], own)


# Random kernels


def slow_shares(panel: Panel, row: int, kernels: RandomKernels) -> list[float]:
    """Each kernel on the window of one origin, place by place."""
    result = []
    for channel, dilation, triple, threshold in zip(
        kernels.channels, kernels.dilations, kernels.triples, kernels.thresholds, strict=True
    ):
        window = panel.channels[row - kernels.lookback + 1 : row + 1, channel].astype(float)
        weights = np.full(TAPS, -1.0)
        weights[triple] = 2.0
        span = (TAPS - 1) * dilation + 1
        above = [
            float(np.sum(weights * window[start : start + span : dilation])) > threshold
            for start in range(len(window) - span + 1)
        ]
        result.append(np.mean(above))
    return result


@settings(max_examples=10)
@given(st.integers(TAPS, 60), st.integers(0, 2**32 - 1))
def test_kernels_over_the_series_are_kernels_on_each_window(lookback: int, seed: int) -> None:
    windows = fit_windows(PANEL, PANEL.calendar[-1], HORIZONS, lookback)
    kernels = RandomKernels.draw(20, windows, lookback, seed)
    assert set(kernels.channels) <= set(INPUTS)
    assert ((TAPS - 1) * kernels.dilations < lookback).all()
    part = PANEL.parts[1]
    start, stop = part.start + lookback - 1, part.stop
    shares = kernels.shares(PANEL, start, stop)
    assert shares.shape == (20, stop - start)
    for row in (start, start + 17, stop - 1):
        np.testing.assert_allclose(shares[:, row - start], slow_shares(PANEL, row, kernels), atol=1e-12)


def test_shares_do_not_depend_on_where_they_begin_or_end() -> None:
    kernels = RandomKernels.draw(84, TRAIN, LOOKBACK, 0)
    every = kernels.shares(PANEL, 100, 400)
    assert np.array_equal(kernels.shares(PANEL, 250, 300), every[:, 150:200])
    assert 0.0 <= every.min() < 0.2 < 0.8 < every.max() <= 1.0


def slow_ridge(inputs: Array, sizes: Array, penalty: float, kernels: int) -> Array:
    """Least squares with rows for the penalty appended; a constant, standardised inputs; on the raw scale."""
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0)
    standard = (inputs - mean) / deviation
    weights = np.where(np.arange(inputs.shape[1]) < kernels, penalty, 1e-6) * len(inputs)
    slopes, *_ = np.linalg.lstsq(
        np.vstack([standard, np.diag(np.sqrt(weights))]),
        np.concatenate([sizes - sizes.mean(), np.zeros(inputs.shape[1])]),
    )
    return np.append(slopes / deviation, sizes.mean() - mean @ (slopes / deviation))


def test_all_fits_from_one_pass_are_the_fits_on_their_rows() -> None:
    model = RandomKernelForecaster(kernels=30, lookback=LOOKBACK, seed=1).fit(TRAIN)
    kernels = model.kernels
    assert kernels is not None
    assert model.coefficients is not None
    shares = np.array([slow_shares(PANEL, row, kernels) for row in TRAIN.rows])
    inputs = np.c_[shares, ScaleInputs().fit(TRAIN)(TRAIN)]
    standardised = TRAIN.targets / TRAIN.scales
    sizes = np.minimum(np.abs(standardised), CLIP)
    place, blocks = session_blocks(TRAIN)
    scales = np.empty_like(sizes)
    for horizon in range(len(HORIZONS)):
        held_out = np.empty((len(PENALTIES), len(TRAIN)))
        for block in blocks:
            apart = (place < block.near_first) | (place > block.near_last)
            inside = (place >= block.first) & (place <= block.last)
            for number, penalty in enumerate(PENALTIES):
                fitted = slow_ridge(inputs[apart], sizes[apart, horizon], penalty, 30)
                held_out[number, inside] = np.c_[inputs[inside], np.ones(inside.sum())] @ fitted
        best = int(np.square(held_out - sizes[:, horizon]).mean(axis=1).argmin())
        every = slow_ridge(inputs, sizes[:, horizon], PENALTIES[best], 30)
        np.testing.assert_allclose(model.coefficients[:, horizon], every, rtol=1e-5, atol=1e-8)
        scales[:, horizon] = np.clip(held_out[best], SCALE_FLOOR, CLIP)
    expected = ResidualQuantiles(by_symbol=False).fit(TRAIN, standardised / scales)
    np.testing.assert_allclose(model.residuals.values, expected.values, rtol=1e-7)


@pytest.mark.parametrize(
    "model",
    [
        RidgeForecaster(),
        BoostingForecaster(iterations=5),
        MlpForecaster(epochs=1),
        QuantileRegressionForecaster(lags=3),
        RandomKernelForecaster(kernels=200, lookback=LOOKBACK),
    ],
    ids=lambda model: type(model).__name__,
)
def test_the_bits_of_a_forecast_do_not_depend_on_which_others_are_made(model: Any) -> None:
    """A backtest that ends earlier forecasts fewer origins; those that it forecasts are the same."""
    evening, warm_up = PANEL.calendar[300], 30
    model.fit(fit_windows(PANEL, evening, HORIZONS, warm_up))
    origins = origin_windows(PANEL, evening, PANEL.calendar[-1], HORIZONS, warm_up)
    whole = model.predict(origins).values
    for last in (300, 301, 307, 360):
        kept = origins.sessions <= PANEL.calendar[last]
        assert np.array_equal(model.predict(origins.take(kept)).values, whole[kept])
    for one in (0, 7, len(origins) - 1):  # the evening of a single symbol
        assert np.array_equal(model.predict(origins.take(np.array([one]))).values, whole[[one]])


def test_kernels_need_their_window() -> None:
    early = Windows(PANEL, TRAIN.rows - 3, HORIZONS)
    message = rf"^every origin needs {LOOKBACK} sessions up to it\. Received: 6 origins with fewer"
    with pytest.raises(ParameterError, match=message):
        RandomKernelForecaster(lookback=LOOKBACK).fit(early)
    fitted = RandomKernelForecaster(20, LOOKBACK).fit(TRAIN)
    with pytest.raises(ParameterError, match=message):
        fitted.predict(early)


def test_a_lookback_shorter_than_a_kernel_is_stretched_to_it() -> None:
    windows = fit_windows(PANEL, PANEL.calendar[-1], HORIZONS, TAPS)
    model = RandomKernelForecaster(20, lookback=3).fit(windows)
    assert model.kernels is not None
    assert set(model.kernels.dilations) == {1}
    assert len(model.predict(windows)) == len(windows)


# All of them

EVERY: dict[str, Any] = {
    "ridge": RidgeForecaster,
    "boosting": lambda: BoostingForecaster(iterations=10),
    "mlp": MlpForecaster,
    "quantile_regression": QuantileRegressionForecaster,
    "random_kernels": lambda: RandomKernelForecaster(84, LOOKBACK),
}


@pytest.mark.filterwarnings("error")  # a fixed number of passes is no failure to converge
@pytest.mark.parametrize("name", EVERY)
def test_next_to_nothing_to_learn_from_still_gives_a_forecast(name: str) -> None:
    few = TRAIN.take(np.flatnonzero(TRAIN.series == 0)[:105])
    forecast = EVERY[name]().fit(few).predict(TRAIN)
    assert forecast.tails is not None
    assert (forecast.tails.variance > 0).all()


def known_volatility(returns: Array, daily: float = 0.01) -> Array:
    """Volatility of the session after each, by the recursion that `planted.garch` draws from."""
    variance, result = 1.0, np.empty(len(returns))
    for t, shock in enumerate(returns / daily):
        variance = 0.02 + 0.13 * shock**2 + 0.85 * variance
        result[t] = daily * np.sqrt(variance)
    return result


@pytest.mark.filterwarnings("error")  # one horizon is a column too
@pytest.mark.parametrize("name", [name for name in EVERY if name != "ridge"])
def test_a_planted_volatility_is_found(name: str) -> None:
    """Most of what the truth gains over the unconditional distribution is gained."""
    panel = panel_of(*(garch(2000, seed) for seed in range(10, 13)))
    train = fit_windows(panel, panel.calendar[1400], (1,), LOOKBACK)
    test = origin_windows(panel, panel.calendar[1400], panel.calendar[-2], (1,), LOOKBACK)
    truth = np.concatenate([known_volatility(panel.returns[part]) for part in panel.parts])[test.rows]

    def loss(values: Array) -> float:
        errors = test.targets - values
        losses = np.maximum(np.multiply(LEVELS, errors), np.subtract(LEVELS, 1.0) * errors)
        return float((losses @ quantile_weights()).mean())

    best = loss(truth[:, None] * norm.ppf(LEVELS))
    historical, found = (
        loss(model.fit(train).predict(test).values[:, 0]) for model in (HistoricalForecaster(), EVERY[name]())
    )
    share = (historical - found) / (historical - best)
    assert 0.6 < share < 1.05, share
