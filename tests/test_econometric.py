"""Volatility models against slow loops, simulation and planted truth."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from planted import prices

from forecaster import features
from forecaster.errors import JobError, NotFittedError, ParameterError
from forecaster.job import parse_job
from forecaster.models.base import ResidualQuantiles
from forecaster.models.econometric import (
    EwmaForecaster,
    GarchForecaster,
    HarLogForecaster,
    HarxForecaster,
    QlikeForecaster,
)
from forecaster.models.econometric import garch as garch_module
from forecaster.models.econometric.garch import (
    PARAMETERS,
    PERSISTENCE_CAP,
    SCALE_FLOOR,
    fit_each,
    fit_garch,
    horizon_scales,
    last_known,
    load_fits,
    next_variance,
    remember,
    save_fits,
    unknown_fits,
)
from forecaster.models.econometric.harx import PENALTY, regressor_names
from forecaster.quantiles import LEVELS
from forecaster.volatility import VARIANCE_FLOOR, daily_variance
from forecaster.walkforward import fit_windows, origin_windows
from forecaster.windows import Panel, Universe, Windows

Array = NDArray[np.float64]

HORIZONS = (1, 5, 21)
UNIT = np.array([100.0, 1e4, 1.0, 1.0, 1.0, 1.0])  # from returns to percent
NONE = np.full(len(PARAMETERS), np.nan)


def simulate_gjr(parameters: Array, n: int, seed: int, paths: int = 1) -> Array:
    """Returns (n, paths) of GJR with Student t shocks, by the definition."""
    mean, omega, alpha, gamma, beta, degrees, start = parameters
    rng = np.random.default_rng(seed)
    shocks = rng.standard_t(degrees, (n, paths)) * np.sqrt((degrees - 2) / degrees)
    variance, out = np.full(paths, start), np.empty((n, paths))
    for t in range(n):
        e = np.sqrt(variance) * shocks[t]
        out[t] = mean + e
        variance = omega + (alpha + gamma * (e < 0)) * e**2 + beta * variance
    return out


TRUTH = np.array([4e-4, 2e-6, 0.03, 0.10, 0.90, 6.0, 1e-4])


@pytest.fixture(scope="module")
def planted() -> Array:
    return simulate_gjr(TRUTH, 8000, 1)[:, 0]


# The recursion


@given(
    hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-0.5, 0.5, allow_subnormal=False)),
    st.tuples(
        st.floats(-0.01, 0.01),
        st.floats(0, 1e-4),
        st.floats(0, 0.3),
        st.floats(-0.1, 0.3),
        st.floats(0, 0.99),
        st.floats(1e-8, 1e-2),
    ),
)
def test_the_variance_is_the_slow_recursion(
    returns: Array, numbers: tuple[float, float, float, float, float, float]
) -> None:
    mean, omega, alpha, gamma, beta, start = numbers
    expected, before = [], start
    for value in returns:
        e = value - mean
        before = omega + (alpha + (gamma if e < 0 else 0.0)) * e**2 + beta * before
        expected.append(before)
    ours = next_variance(returns, np.array([mean, omega, alpha, gamma, beta, 5.0, start]))
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize("asymmetric", [True, False])
def test_the_variance_is_that_of_arch(planted: Array, asymmetric: bool) -> None:
    from arch import arch_model

    returns = planted[:1500]
    ours = fit_garch(returns, asymmetric)
    assert bool(ours[PARAMETERS.index("gamma")] != 0.0) is asymmetric
    model = arch_model(100 * returns, mean="Constant", p=1, o=int(asymmetric), q=1, dist="t", rescale=False)
    theirs = model.fix((UNIT * ours[:6])[[0, 1, 2, *([3] if asymmetric else []), 4, 5]])
    # Variance of session t in arch is made at session t - 1 here.
    variance = next_variance(returns, ours)[:-1]
    np.testing.assert_allclose(theirs.conditional_volatility[1:] / 100, np.sqrt(variance), rtol=1e-9)
    np.testing.assert_allclose((theirs.conditional_volatility[0] / 100) ** 2, ours[-1], rtol=1e-9)


# Estimation


def test_planted_parameters_are_recovered(planted: Array) -> None:
    found = dict(zip(PARAMETERS, fit_garch(planted, asymmetric=True), strict=True))
    assert found["alpha"] == pytest.approx(0.03, abs=0.015)
    assert found["gamma"] == pytest.approx(0.10, abs=0.03)
    assert found["beta"] == pytest.approx(0.90, abs=0.02)
    assert found["degrees_of_freedom"] == pytest.approx(6.0, abs=1.0)
    level = found["omega"] / (1 - found["alpha"] - found["gamma"] / 2 - found["beta"])
    assert level == pytest.approx(2e-6 / 0.02, rel=0.3)
    assert found["mean"] == pytest.approx(4e-4, abs=3e-4)


def test_the_volatility_of_planted_returns_is_found(planted: Array) -> None:
    estimates = fit_garch(planted[:4000], asymmetric=True)
    for horizon, scales in zip(HORIZONS, horizon_scales(planted, estimates, HORIZONS).T, strict=True):
        true = horizon_scales(planted, TRUTH, (horizon,))[:, 0]
        error = np.log(scales[4000:] / true[4000:])
        assert np.sqrt(np.mean(error**2)) < 0.05


def ticks(seed: int, n: int = 400) -> Array:
    """Returns of coarse prices: nearly all zero, and a likelihood with many optima."""
    unchanged = np.random.default_rng(seed).random(n) < 0.5
    return np.round(np.where(unchanged, 0.0, simulate_gjr(TRUTH, n, seed)[:, 0]), 2)


def test_the_better_of_two_starting_points_is_kept() -> None:
    from arch import arch_model

    gained = []
    for seed in range(7):
        percent = ticks(seed) / 0.01
        model = arch_model(percent, mean="Constant", p=1, o=1, q=1, dist="t", rescale=False)
        left = 1.0 - 0.05 - 0.05 / 2.0 - 0.9  # to the last bit: on such series the optimiser is chaotic
        other = np.array([percent.mean(), left * percent.var(), 0.05, 0.05, 0.9, 8.0])
        fits = [model.fit(disp="off", show_warning=False, starting_values=v) for v in (None, other)]
        default, second = (fit.loglikelihood for fit in fits)
        ours = model.fix(UNIT * fit_garch(ticks(seed), asymmetric=True)[:6]).loglikelihood
        assert ours == pytest.approx(max(default, second), rel=1e-3), seed
        gained.append(second - default)
    assert max(gained) > 100, "the second start is never better here: this shows nothing"
    assert min(gained) < -100, "the first start is never better here: this shows nothing"


def test_coarse_prices_give_usable_scales() -> None:
    for seed in (0, 10):
        scales = horizon_scales(ticks(seed), fit_garch(ticks(seed), asymmetric=True), HORIZONS)
        assert np.isfinite(scales).all()
        assert (scales >= SCALE_FLOOR).all()


def test_a_short_or_flat_series_has_no_estimates() -> None:
    returns = simulate_gjr(TRUTH, 300, 2)[:, 0]
    assert np.isfinite(fit_garch(returns[:250], asymmetric=False)).all()
    for hopeless in (returns[:249], np.zeros(300), returns * 1e-9, np.zeros(0)):
        assert np.isnan(fit_garch(hopeless, asymmetric=False)).all()


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_series_of_mostly_unchanged_prices_gives_usable_scales(share: float) -> None:
    rng = np.random.default_rng(3)
    returns = np.where(rng.random(600) < share, 0.0, simulate_gjr(TRUTH, 600, 4)[:, 0])
    scales = horizon_scales(returns, fit_garch(returns, asymmetric=True), HORIZONS)
    assert np.isfinite(scales).all()
    assert (scales >= SCALE_FLOOR).all()
    assert (np.diff(scales, axis=1) >= 0).all()


def test_fits_made_elsewhere_are_those_made_here(tmp_path: Path) -> None:
    series = [simulate_gjr(TRUTH, 400, seed)[:, 0] for seed in range(5, 9)]
    alone = np.array([fit_garch(returns, asymmetric=True) for returns in series])
    garch_module._fits.clear()
    assert len(unknown_fits([(returns, True) for returns in (*series, series[0])])) == 4
    remember(series[:2], True, alone[:2])
    assert [kind for _, kind in unknown_fits([(returns, True) for returns in series])] == [True, True]
    assert fit_each(series, asymmetric=True).tobytes() == alone.tobytes()
    save_fits(tmp_path / "fits.npz")
    garch_module._fits.clear()
    load_fits(tmp_path / "fits.npz")
    # One that was never fitted here with this sign would be another number: these were read.
    assert unknown_fits([(returns, True) for returns in series]) == []
    assert len(unknown_fits([(series[0], False)])) == 1
    # Neither the order, nor what was fitted before, nor other series change a bit of it.
    assert fit_each(series[::-1], asymmetric=True)[::-1].tobytes() == alone.tobytes()
    assert fit_each([], asymmetric=True).shape == (0, len(PARAMETERS))
    garch_module._fits.clear()
    save_fits(tmp_path / "none.npz")
    load_fits(tmp_path / "none.npz")


def test_a_fit_is_made_once() -> None:
    returns = simulate_gjr(TRUTH, 400, 10)[:, 0]
    garch_module._fits.clear()
    fit_each([returns, returns.copy(), returns[1:]], asymmetric=True)
    assert len(garch_module._fits) == 2
    fit_each([returns], asymmetric=False)
    assert len(garch_module._fits) == 3


# The variance over several sessions


def test_the_variance_over_h_sessions_is_that_of_simulated_paths() -> None:
    for start in (3e-4, 3e-5):
        parameters = TRUTH.copy()
        parameters[-1], parameters[5] = start, 12.0
        paths = simulate_gjr(parameters, 21, 11, paths=200_000) - parameters[0]
        # The state before the first step: a return at the mean, whose next variance is `start`.
        parameters[-1] = (start - parameters[1]) / parameters[4]
        scales = horizon_scales(parameters[:1], parameters, HORIZONS)[0]
        for horizon, scale in zip(HORIZONS, scales, strict=True):
            assert paths[:horizon].sum(axis=0).std() == pytest.approx(scale, rel=0.015), horizon


def test_a_persistence_above_the_cap_does_not_let_the_variance_grow() -> None:
    explosive = np.array([0.0, 1e-6, 0.2, 0.1, 0.85, 5.0, 1e-4])
    scales = horizon_scales(np.full(5, 0.01), explosive, (1, 21, 2500))
    assert (scales[:, 1] <= 1.05 * np.sqrt(21) * np.maximum(scales[:, 0], 0.05)).all()
    level = np.sqrt(1e-6 / (1 - PERSISTENCE_CAP))
    assert (scales[:, 2] <= np.sqrt(2500) * np.maximum(scales[:, 0], level) * (1 + 1e-9)).all()


def test_without_estimates_the_scale_is_the_ewma_one() -> None:
    returns = simulate_gjr(TRUTH, 100, 12)[:, 0]
    expected = features.ewma_volatility(returns)[:, None] * np.sqrt([1, 5, 21])
    np.testing.assert_array_equal(horizon_scales(returns, NONE, HORIZONS), expected)


# In windows


def frames(n: int = 620, market: bool = True) -> dict[str, pd.DataFrame]:
    common = simulate_gjr(TRUTH, n, 20)[:, 0]
    result = {
        symbol: prices(0.7 * common + 0.7 * simulate_gjr(TRUTH, n, 21 + number)[:, 0])
        for number, symbol in enumerate(("AAA", "BBB", "CCC"))
    }
    result["CCC"] = result["CCC"].iloc[40:]
    return result | ({"INDEX": prices(common)} if market else {})


PRICES = frames()
WHOLE = Panel.from_prices(PRICES, market="INDEX")
REFIT = WHOLE.calendar[530]
WARM_UP = 100


def train(panel: Panel, embargo: int = 0) -> Windows:
    return fit_windows(panel, REFIT, HORIZONS, WARM_UP, embargo)


def origins(panel: Panel) -> Windows:
    return origin_windows(panel, REFIT, panel.calendar[570], HORIZONS, WARM_UP)


MODELS = {
    "garch": lambda: GarchForecaster(asymmetric=False),
    "gjr": lambda: GarchForecaster(),
    "pooled": lambda: GarchForecaster(by_symbol=False),
    "rolling": lambda: GarchForecaster(window=300),
    "harx": lambda: HarxForecaster(),
    "lin": lambda: HarxForecaster(cross_section=True, target="daily"),
    "har_log": lambda: HarLogForecaster(),
    "qlike_glm": lambda: QlikeForecaster(),
}


@pytest.mark.parametrize("embargo", [0, 7])
def test_what_is_known_is_what_closed_by_the_last_training_outcome(embargo: int) -> None:
    assert last_known(train(WHOLE, embargo)) == WHOLE.calendar[530 - embargo]


@pytest.mark.parametrize("window", [None, 300])
def test_estimates_are_of_the_returns_up_to_the_refit(window: int | None) -> None:
    model = GarchForecaster(window=window).fit(train(WHOLE))
    for number, part in enumerate(WHOLE.parts):
        past = WHOLE.returns[part][WHOLE.sessions[part] <= REFIT]
        expected = fit_garch(past[-window:] if window else past, asymmetric=True)
        assert model.estimates[number].tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", MODELS)
def test_later_prices_change_no_bit_of_a_forecast(name: str) -> None:
    fitted = MODELS[name]().fit(train(WHOLE))
    last = WHOLE.calendar[570]
    later = {symbol: frame.copy() for symbol, frame in PRICES.items()}
    for number, frame in enumerate(later.values()):
        after = frame.index.to_numpy().astype("datetime64[D]") > last
        frame.loc[after, "close"] *= np.exp(np.random.default_rng(number).standard_normal(after.sum()))
    changed = Panel.from_prices(later, market="INDEX")
    assert not np.array_equal(changed.market().values, WHOLE.market().values)
    cut = Panel.from_prices({s: f[f.index <= pd.Timestamp(last)] for s, f in PRICES.items()}, market="INDEX")
    expected = fitted.predict(origins(WHOLE))
    for panel in (changed, cut):
        again = MODELS[name]().fit(train(panel)).predict(origins(panel))
        assert again.values.tobytes() == expected.values.tobytes()
        assert again.tails is not None
        assert expected.tails is not None
        assert again.tails.variance.tobytes() == expected.tails.variance.tobytes()


@pytest.mark.parametrize("name", ["harx", "lin"])
def test_the_market_at_the_origin_is_seen(name: str) -> None:
    moved = {symbol: frame.copy() for symbol, frame in PRICES.items()}
    at = moved["INDEX"].index == pd.Timestamp(WHOLE.calendar[570])
    moved["INDEX"].loc[at, "close"] *= 0.9
    fitted = MODELS[name]().fit(train(WHOLE))
    one = fitted.predict(origins(WHOLE)).values
    other = fitted.predict(origins(Panel.from_prices(moved, market="INDEX"))).values
    newest = origins(WHOLE).sessions == WHOLE.calendar[570]
    assert (one[~newest] == other[~newest]).all()
    assert (one[newest] != other[newest]).any(axis=(1, 2)).all()


# HARX against pandas


def slow_gjr_scales(returns: Array, estimates: Array, horizon: int) -> Array:
    mean, omega, alpha, gamma, beta, _, variance = estimates
    persistence = min(alpha + gamma / 2 + beta, PERSISTENCE_CAP)
    level, out = omega / (1 - persistence), []
    for value in returns:
        e = value - mean
        variance = omega + (alpha + gamma * (e < 0)) * e * e + beta * variance
        out.append(np.sqrt(sum(level + (variance - level) * persistence**k for k in range(horizon))))
    return np.maximum(out, SCALE_FLOOR)


def slow_harx(frames: dict[str, pd.DataFrame], horizon: int, lin: bool) -> dict[str, tuple[Array, Array]]:
    """Scale of each session, and quantiles of past outcomes over it, of each symbol; by pandas."""
    returns = {s: np.log(f["close"]).diff().iloc[1:] for s, f in frames.items()}
    refit = pd.Timestamp(REFIT)
    market = returns.pop("INDEX")
    table = pd.DataFrame(returns)
    usual = table.abs().apply(lambda column: column.dropna().expanding().mean())
    cross = (table.abs() / usual).mean(axis=1)

    def rolling(series: pd.Series, window: int) -> pd.Series:
        return series.rolling(window, min_periods=1).mean()

    def own_gjr(series: pd.Series) -> pd.Series:
        estimates = fit_garch(series[series.index <= refit].to_numpy(), asymmetric=True)
        return pd.Series(slow_gjr_scales(series.to_numpy(), estimates, horizon), series.index)

    market_gjr = own_gjr(market)
    designs, rows, outcomes, totals, scales = {}, [], [], [], {}
    for symbol, r in returns.items():
        ewma = np.sqrt((r**2).ewm(alpha=0.06, adjust=True).mean())
        columns = [rolling(r.abs(), w) / ewma for w in (1, 5, 22, 66, 250)]
        columns += [rolling(r.clip(upper=0), w) / ewma for w in (1, 5)]
        columns += [rolling(market.abs(), w).reindex(r.index) / ewma for w in (1, 5, 22, 66)]
        columns += [rolling(market.clip(upper=0), w).reindex(r.index) / ewma for w in (1, 5)]
        columns += [r.abs().expanding().mean() / ewma, 0.01 / ewma, ewma / ewma]
        if lin:
            columns += [
                rolling(cross, w).reindex(r.index) * usual[symbol].reindex(r.index) / ewma
                for w in (1, 5, 22, 66)
            ]
        root = np.sqrt(horizon)
        columns += [own_gjr(r) / (ewma * root), market_gjr.reindex(r.index) / (ewma * root)]
        designs[symbol] = np.column_stack(columns)
        total = r[::-1].rolling(horizon).sum()[::-1].shift(-1)
        daily = r.abs()[::-1].rolling(horizon).mean()[::-1].shift(-1)
        size = daily / ewma if lin else total.abs() / (ewma * root)
        position = np.arange(len(r))
        last = int((r.index <= refit).sum()) - 1 - max(HORIZONS)
        keep = (position >= WARM_UP - 1) & (position <= last)
        rows.append(designs[symbol][keep])
        outcomes.append(size.clip(upper=8.0)[keep])
        totals.append((total / (ewma * root))[keep])
        scales[symbol] = ewma.to_numpy() * root
    x, y = np.concatenate(rows), np.concatenate(outcomes)
    assert x.shape[1] == len(regressor_names(lin))
    beta = np.linalg.solve(x.T @ x + PENALTY * np.eye(x.shape[1]), x.T @ y)
    residuals = np.concatenate(totals) / np.maximum(x @ beta, 0.25)
    quantiles = np.quantile(residuals, LEVELS)
    return {s: (np.maximum(designs[s] @ beta, 0.25) * scales[s], quantiles) for s in returns}


@pytest.mark.parametrize("name", ["harx", "lin"])
def test_the_pooled_regression_is_that_of_pandas(name: str) -> None:
    windows = origins(WHOLE)
    forecast = MODELS[name]().fit(train(WHOLE)).predict(windows)
    for column, horizon in enumerate(HORIZONS):
        expected = slow_harx(PRICES, horizon, lin=name == "lin")
        for place in range(len(windows)):
            scale, quantiles = expected[str(windows.symbols[place])]
            session = windows.rows[place] - WHOLE.offsets[windows.series[place]]
            np.testing.assert_allclose(
                forecast.values[place, column], scale[session] * quantiles, rtol=1e-6, atol=1e-9
            )


def test_planted_volatility_is_forecast_out_of_sample() -> None:
    """Three symbols of known variance: the regression comes within some percent of the truth."""
    parameters = TRUTH.copy()
    parameters[3], parameters[2] = 0.0, 0.08
    returns = {f"S{k}": simulate_gjr(parameters, 2500, 40 + k)[:, 0] for k in range(3)}
    panel = Panel.from_prices({symbol: prices(values) for symbol, values in returns.items()})
    learned = fit_windows(panel, panel.calendar[2000], HORIZONS, 250)
    windows = origin_windows(panel, panel.calendar[2001], panel.calendar[2450], HORIZONS, 250)
    model = HarxForecaster().fit(learned)
    scales = model.scales(windows)
    for column in range(len(HORIZONS)):
        true = np.concatenate(
            [horizon_scales(values, parameters, HORIZONS)[2001:2451, column] for values in returns.values()]
        )
        ratio = np.log(scales[:, column] / true)
        assert np.std(ratio) < (0.08, 0.11, 0.17)[column]
        if column == 0:
            assert np.std(ratio) < 0.9 * np.std(np.log(windows.scales[:, column] / true))


# The universe


@pytest.mark.parametrize("name", ["harx", "lin"])
def test_one_symbol_without_a_market_is_forecast(name: str) -> None:
    alone = Panel.from_prices({"AAA": PRICES["AAA"]})
    model = MODELS[name]().fit(train(alone))
    assert model.universe == Universe(("AAA",))
    assert model.predict(origins(alone)).values.std() > 0


@pytest.mark.parametrize("name", ["harx", "lin"])
def test_the_universe_is_recorded_and_a_missing_member_is_stated(name: str, tmp_path: Path) -> None:
    fitted = MODELS[name]().fit(train(WHOLE))
    fitted.save(tmp_path)
    model = MODELS[name]().load(tmp_path)
    assert model.universe == fitted.universe == Universe(("AAA", "BBB", "CCC"), "INDEX")
    assert model.parameters == fitted.parameters
    windows = origins(WHOLE)
    mine = windows.symbols == "BBB"
    expected = fitted.predict(windows).values[mine]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.predict(origins(WHOLE.select(["BBB"]))).values.tobytes() == expected.tobytes()
        # Others at hand that were not members do not count.
        more = Panel.from_prices(PRICES | {"NEW": prices(np.full(620, 0.03))}, market="INDEX")
        again = model.predict(origins(more).take(origins(more).symbols == "BBB"))
        assert again.values.tobytes() == expected.tobytes()
    fewer = Panel.from_prices({s: PRICES[s] for s in ("BBB", "INDEX")}, market="INDEX")
    said = "^2 of the symbols that the model looks at have no prices here.* AAA, CCC$"
    with pytest.warns(UserWarning, match=said):
        changed = model.predict(origins(fewer)).values
    assert np.allclose(changed, expected) is (name == "harx")


@pytest.mark.parametrize("name", ["harx", "lin", "qlike_glm"])
def test_a_market_of_the_members_stays_that_of_the_recorded_ones(name: str) -> None:
    members = {symbol: PRICES[symbol] for symbol in ("AAA", "BBB", "CCC")}
    panel = Panel.from_prices(members)
    model = MODELS[name]().fit(train(panel))
    windows = origins(Panel.from_prices(members | {"INDEX": PRICES["INDEX"]}))
    old = windows.take(windows.symbols != "INDEX")
    assert model.predict(old).values.tobytes() == model.predict(origins(panel)).values.tobytes()


def test_before_the_market_begins_the_symbol_stands_in_for_it() -> None:
    late = PRICES | {"INDEX": PRICES["INDEX"].iloc[200:]}
    panel = Panel.from_prices(late, market="INDEX")
    model = HarxForecaster().fit(train(panel))
    early = panel.sessions < panel.market().closings[0]
    windows = Windows(panel, np.flatnonzero(early & (panel.positions > WARM_UP)), HORIZONS)
    names = regressor_names(cross_section=False)
    for _, regressors in model.regressors(windows):
        for columns in regressors:
            for market, own in (
                ("market_abs_22", "abs_22"),
                ("market_negative_5", "negative_5"),
                ("market_gjr", "gjr"),
            ):
                one, other = columns[:, names.index(market)], columns[:, names.index(own)]
                np.testing.assert_array_equal(one, other)


def test_a_symbol_that_is_new_or_short_has_ewma_volatility() -> None:
    fitted = GarchForecaster().fit(train(WHOLE))
    stranger = Panel.from_prices({"NEW": PRICES["AAA"]})
    np.testing.assert_array_equal(fitted.scales(origins(stranger)), origins(stranger).scales)
    short = Panel.from_prices({"AAA": PRICES["AAA"], "ZZZ": PRICES["BBB"].iloc[-250:]})
    windows = fit_windows(short, REFIT, HORIZONS, 60)
    model = GarchForecaster().fit(windows)
    assert np.isnan(model.estimates[1]).all()
    mine = windows.symbols == "ZZZ"
    assert mine.any()
    np.testing.assert_array_equal(model.scales(windows)[mine], windows.scales[mine])


@pytest.mark.parametrize("name", MODELS)
def test_flat_short_and_jumping_series_are_forecast(name: str) -> None:
    returns = simulate_gjr(TRUTH, 620, 60)[:, 0]
    returns[300:420] = 0.0
    returns[500] = np.log(0.6)
    awkward = Panel.from_prices(
        {
            "FLAT": prices(np.zeros(620)),
            "JUMP": prices(returns),
            "SHORT": prices(simulate_gjr(TRUTH, 620, 61)[:, 0]).iloc[380:],
            "STILL": prices(returns * 1e-6),
            "INDEX": PRICES["INDEX"],
        },
        market="INDEX",
    )
    forecast = MODELS[name]().fit(train(awkward)).predict(origins(awkward))
    assert np.isfinite(forecast.values).all()


@pytest.mark.parametrize("name", MODELS)
def test_before_fit_it_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match="call fit first"):
        MODELS[name]().predict(origins(WHOLE))
    with pytest.raises(NotFittedError, match="call fit first"):
        MODELS[name]().save(tmp_path)


# Residual quantiles and tails


@settings(max_examples=30)
@given(st.booleans(), st.integers(0, 2**31))
def test_tails_are_means_beyond_the_outermost_quantiles(by_symbol: bool, seed: int) -> None:
    windows = train(WHOLE)
    rng = np.random.default_rng(seed)
    outcomes = rng.standard_t(3, (len(windows), 3))
    outcomes[rng.random(len(windows)) < 0.05, 1] = np.nan  # the whole row is left out
    scale, location = rng.uniform(0.1, 2.0, outcomes.shape), rng.normal(size=outcomes.shape)
    forecast = ResidualQuantiles(by_symbol).fit(windows, outcomes).forecast(windows, scale, location)
    assert forecast.tails is not None
    usable = np.isfinite(outcomes).all(axis=1)
    for place in rng.integers(0, len(windows), 5):
        same = usable & ((windows.series == windows.series[place]) | (not by_symbol))
        for column in range(3):
            z = np.sort(outcomes[same, column])
            s, m = scale[place, column], location[place, column]
            np.testing.assert_allclose(
                forecast.values[place, column], m + s * np.quantile(z, LEVELS), rtol=1e-9, atol=1e-12
            )
            low, high = np.quantile(z, [0.01, 0.99])
            assert forecast.tails.low[place, column] == pytest.approx(m + s * z[z <= low].mean())
            assert forecast.tails.high[place, column] == pytest.approx(m + s * z[z >= high].mean())
            assert forecast.tails.variance[place, column] == pytest.approx(s**2 * z.var())


def test_ewma_states_its_tails(tmp_path: Path) -> None:
    model = EwmaForecaster(by_symbol=False).fit(train(WHOLE))
    forecast = model.predict(origins(WHOLE))
    assert forecast.tails is not None
    assert (forecast.tails.low < forecast.values[:, :, 0]).all()
    model.save(tmp_path)
    again = EwmaForecaster(by_symbol=False).load(tmp_path).predict(origins(WHOLE))
    assert again.tails is not None
    assert again.tails.low.tobytes() == forecast.tails.low.tobytes()


# Settings


def job(model: str) -> str:
    return f"name: t\nprices: {{kind: sample}}\nbacktest: {{start: 2004-01-01}}\nmodels: [{model}]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{kind: garch_t_fhs}", (False, True, None)),
        ("{kind: gjr_t_fhs}", (True, True, None)),
        ("{kind: gjr_t_fhs, residuals: pooled}", (True, False, None)),
        ("{kind: gjr_t_fhs, name: gjr_t_rolling_fhs, window: 1500}", (True, True, 1500)),
    ],
)
def test_a_job_makes_the_garch_model_it_describes(text: str, expected: tuple[bool, bool, int | None]) -> None:
    spec = parse_job(job(text), "t").models[0]
    model = spec.build(32, 1)
    assert isinstance(model, GarchForecaster)
    assert (model.asymmetric, model.residuals.by_symbol, model.window) == expected
    assert spec.history(32) == 250
    assert ("pooled" in spec.description) is not expected[1]


def test_a_job_makes_harx_and_lin() -> None:
    harx, lin = (parse_job(job(f"{{kind: {kind}}}"), "t").models[0] for kind in ("harx_fhs", "lin"))
    assert isinstance(one := harx.build(32, 1), HarxForecaster)
    assert isinstance(other := lin.build(32, 1), HarxForecaster)
    assert (one.cross_section, one.target) == (False, "total")
    assert (other.cross_section, other.target) == (True, "daily")


def test_a_window_too_short_for_a_fit_is_refused() -> None:
    with pytest.raises(JobError, match=r"models\[0\]\.window: .* greater than or equal to 250.* '100'$"):
        parse_job(job("{kind: gjr_t_fhs, window: 100}"), "t")


# Variance as the target


def test_har_log_is_least_squares_with_its_mean_put_right() -> None:
    learned, windows = train(WHOLE), origins(WHOLE)
    forecast = HarLogForecaster((1, 5, 22)).fit(learned).predict(windows)
    assert forecast.tails is not None

    def design(of: Windows) -> Array:
        rows = []
        for row in of.rows:
            part = WHOLE.parts[WHOLE.series[row]]
            squares = WHOLE.returns[part.start : row + 1] ** 2
            means = [max(squares[-w:].mean(), VARIANCE_FLOOR) for w in (1, 5, 22)]
            rows.append([1.0, *np.log(means)])
        return np.array(rows)

    for column, horizon in enumerate(HORIZONS):
        outcomes = np.array([(WHOLE.returns[row + 1 : row + 1 + horizon] ** 2).sum() for row in learned.rows])
        outcomes = np.maximum(outcomes, horizon * VARIANCE_FLOOR)
        # What is fitted is at least a hundredth of the EWMA variance.
        fitted = np.maximum(outcomes, 0.01 * horizon * learned.volatility**2)
        assert horizon > 1 or (fitted > outcomes).any()
        x = design(learned)
        beta = np.linalg.solve(x.T @ x, x.T @ np.log(fitted))
        factor = np.mean(outcomes / np.exp(x @ beta))
        assert factor > 1.0
        expected = np.exp(design(windows) @ beta) * factor
        np.testing.assert_allclose(forecast.tails.variance[:, column], expected, rtol=1e-7)
        ratio = WHOLE_TARGETS[:, column] / np.sqrt(np.exp(x @ beta) * factor)
        np.testing.assert_allclose(
            forecast.values[:, column], np.sqrt(expected)[:, None] * np.quantile(ratio, LEVELS), rtol=1e-6
        )


WHOLE_TARGETS = train(WHOLE).targets


def test_the_glm_minimises_qlike() -> None:
    """No nearby coefficients have a lower QLIKE on the training rows, but for the small penalty."""
    learned = train(WHOLE)
    model = QlikeForecaster().fit(learned)
    model.factors = np.ones(len(HORIZONS))  # about 1 by the first-order condition of the constant

    def qlike() -> Array:
        ratio = np.maximum(learned.realised_variance, 0.01 * model.ewma(learned)) / model.variance(learned)
        return (ratio - np.log(ratio) - 1).mean(axis=0)

    best = qlike()
    assert model.coefficients is not None
    for place in range(model.coefficients.shape[1]):
        for step in (-0.05, 0.05):
            before = model.coefficients.copy()
            model.coefficients[:, place] += step
            assert (qlike() > best - 2e-5).all(), place
            model.coefficients = before


def test_the_mean_of_a_variance_forecast_is_right_in_training() -> None:
    learned = train(WHOLE)
    for model in (HarLogForecaster(), QlikeForecaster()):
        model.fit(learned)
        ratio = learned.realised_variance / model.variance(learned)
        np.testing.assert_allclose(ratio.mean(axis=0), 1.0, rtol=1e-9)


def test_a_planted_variance_is_forecast() -> None:
    parameters = TRUTH.copy()
    returns = {f"S{k}": simulate_gjr(parameters, 3000, 70 + k)[:, 0] for k in range(4)}
    panel = Panel.from_prices({symbol: prices(values) for symbol, values in returns.items()})
    learned = fit_windows(panel, panel.calendar[2300], HORIZONS, 250)
    windows = origin_windows(panel, panel.calendar[2301], panel.calendar[2950], HORIZONS, 250)
    errors = {}
    for name, model in {"har_log": HarLogForecaster(), "glm": QlikeForecaster()}.items():
        variance = model.fit(learned).variance(windows)
        for column, horizon in enumerate(HORIZONS):
            true = [horizon_scales(v, parameters, (horizon,))[2301:2951, 0] ** 2 for v in returns.values()]
            ratio = np.concatenate(true) / variance[:, column]
            errors[name, horizon] = float(np.mean(ratio - np.log(ratio) - 1))
    assert errors["glm", 1] < 0.05
    for horizon in HORIZONS:
        assert errors["glm", horizon] < errors["har_log", horizon] < 0.3, horizon


def ohlc(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = prices(simulate_gjr(TRUTH, n, seed)[:, 0])
    frame["open"] = frame["close"].shift(1, fill_value=100.0) * np.exp(0.002 * rng.standard_normal(n + 1))
    top, bottom = frame[["open", "close"]].max(axis=1), frame[["open", "close"]].min(axis=1)
    frame["high"] = top * np.exp(0.005 * rng.random(n + 1))
    frame["low"] = bottom * np.exp(-0.005 * rng.random(n + 1))
    return frame


def test_the_variance_of_the_range_can_be_the_target() -> None:
    table = {"A": ohlc(620, 1), "B": ohlc(620, 2)}
    panel = Panel.from_prices(table, variance="range")
    np.testing.assert_array_equal(panel.variances[panel.parts[1]], daily_variance(table["B"])[1:])
    windows = Windows(panel, np.array([300, 5]), (1, 2))
    expected = [panel.variances[301], panel.variances[301:303].sum()]
    np.testing.assert_allclose(windows.realised_variance[0], expected)
    learned = fit_windows(panel, REFIT, HORIZONS, WARM_UP)
    test = origin_windows(panel, REFIT, panel.calendar[590], HORIZONS, WARM_UP)
    for model in (HarLogForecaster(), QlikeForecaster()):
        squared = type(model)().fit(train(Panel.from_prices(table)))
        assert not np.allclose(model.fit(learned).variance(test), squared.variance(origins_like(test, table)))
    # A session without a range keeps its squared return; a symbol without any is refused.
    table["A"].loc[table["A"].index[50], "high"] = np.nan
    some = Panel.from_prices(table, variance="range")
    assert some.variances[49] == some.returns[49] ** 2
    with pytest.raises(
        ParameterError, match=r"^variance from the range needs .* Received: none for B; take "
    ):
        Panel.from_prices({"A": table["A"], "B": PRICES["BBB"]}, variance="range")
    assert np.array_equal(WHOLE.variances, WHOLE.returns**2)
    assert panel.select(["B"]).variances.tobytes() == panel.variances[panel.parts[1]].tobytes()


def origins_like(windows: Windows, table: dict[str, pd.DataFrame]) -> Windows:
    return Windows(Panel.from_prices(table), windows.rows, windows.horizons)
