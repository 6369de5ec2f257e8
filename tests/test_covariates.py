"""Covariates and portfolios: what models see of them, when, and what happens without them."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import business_days, garch, prices
from typer.testing import CliRunner

from forecaster.errors import DataError, JobError, ParameterError
from forecaster.job import Job, load_job, parse_job
from forecaster.job.panel import lay_out
from forecaster.models.covariates import COVARIATE_WINDOWS, STALE, CovariateInputs
from forecaster.models.learned import BoostingForecaster
from forecaster.prices.base import load_prices, price_table
from forecaster.prices.levels import inspect_level
from forecaster.returns import log_returns, portfolio_prices
from forecaster.scores import crps
from forecaster.walkforward import fit_windows, origin_windows
from forecaster.windows import Covariate, Panel, Windows
from pipelines.cli import app
from pipelines.loading import load_data

HORIZONS = (1, 5)
WARM_UP = 40
SEEING = {
    "ridge": "{kind: ridge}",
    "quantile_regression": "{kind: quantile_regression}",
    "boosting": "{kind: boosting, iterations: 10}",
    "mlp_sklearn": "{kind: mlp_sklearn, epochs: 2}",
    "random_kernels": "{kind: random_kernels, kernels: 30}",
    "mlp": "{kind: mlp, training: {epochs: 1, seeds: 1}}",
    "convolution": "{kind: convolution, strategy: {kind: lagged}, training: {epochs: 1, seeds: 1}}",
}
BLIND = {"ewma_fhs": "{kind: ewma_fhs}", "harx_fhs": "{kind: harx_fhs}"}


def level(values: np.ndarray, index: pd.DatetimeIndex | None = None) -> pd.DataFrame:
    dates = business_days(len(values)) if index is None else index
    return price_table(pd.DataFrame({"close": values}, index=dates))


def rate(n: int, seed: int) -> np.ndarray:
    """A rate that is positive and negative in turns."""
    return np.cumsum(np.random.default_rng(seed).standard_normal(n)) * 0.1


def frames(n: int = 700) -> dict[str, pd.DataFrame]:
    of = {symbol: prices(garch(n - 1, seed)) for seed, symbol in enumerate(("AAA", "BBB"))}
    return of | {"RATE": level(rate(n, 9)), "FX": prices(garch(n - 1, 8))}


COVARIATES: dict[str, Any] = {"RATE": "level", "FX": "return"}


def panel(change_after: np.datetime64 | None = None, only: tuple[str, ...] = ("RATE", "FX")) -> Panel:
    of = frames()
    if change_after is not None:
        noise = np.random.default_rng(99)
        for symbol in only:
            later = of[symbol].index.to_numpy().astype("datetime64[D]") > change_after
            of[symbol].loc[later, "close"] *= np.exp(noise.standard_normal(int(later.sum())))
    return Panel.from_prices(of, covariates=COVARIATES)


WHOLE = panel()
REFIT, LAST = WHOLE.calendar[500], WHOLE.calendar[560]


def learnable(of: Panel) -> Windows:
    return fit_windows(of, REFIT, HORIZONS, WARM_UP)


def origins(of: Panel) -> Windows:
    return origin_windows(of, REFIT, LAST, HORIZONS, WARM_UP)


def build(name: str) -> Any:
    text = f"""
name: suite
prices: {{kind: sample}}
lookback: 16
backtest: {{start: 2004-01-01}}
models: [{(SEEING | BLIND)[name]}]
"""
    job = parse_job(text, "suite")
    return job.build(job.models[0].name)


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    return {}


@pytest.fixture(params=SEEING)
def model(request: pytest.FixtureRequest, fitted: dict[str, Any]) -> tuple[str, Any]:
    if request.param not in fitted:
        fitted[request.param] = build(request.param).fit(learnable(WHOLE))
    return request.param, fitted[request.param]


# What a panel holds


def test_covariates_are_looked_at_and_not_forecast() -> None:
    assert WHOLE.symbols == ("AAA", "BBB")
    assert WHOLE.universe.members == ("AAA", "BBB")
    assert list(WHOLE.covariates) == ["FX", "RATE"]
    of = frames()
    np.testing.assert_array_equal(WHOLE.covariates["RATE"].values, of["RATE"]["close"])
    np.testing.assert_array_equal(WHOLE.covariates["FX"].values, log_returns(of["FX"])[1:])
    change = Panel.from_prices(of, covariates={"RATE": "difference"}).covariates["RATE"]
    np.testing.assert_array_equal(change.values, np.diff(of["RATE"]["close"]))
    assert change.closings[0] == of["RATE"].index[1].to_numpy()
    assert WHOLE.select(["BBB"]).covariates is WHOLE.covariates


def test_the_market_may_be_a_covariate_too() -> None:
    of = Panel.from_prices(frames(), market="FX", covariates=COVARIATES)
    assert of.symbols == ("AAA", "BBB")
    np.testing.assert_array_equal(of.market().values, of.covariates["FX"].values)


def test_a_panel_refuses_covariates_that_are_not_there() -> None:
    with pytest.raises(ParameterError, match=r"^a covariate is one of the symbols .* Received: 'VIX'"):
        Panel.from_prices(frames(), covariates={"VIX": "level"})
    with pytest.raises(ParameterError, match=r"at least one series\. Received: RATE"):
        Panel.from_prices({"RATE": level(rate(9, 0))}, covariates={"RATE": "level"})
    with pytest.raises(ParameterError, match=r"finite number\. Received: 1 that are not, of RATE"):
        Panel.from_prices(frames() | {"RATE": level(np.array([1.0, np.nan]))}, covariates={"RATE": "level"})


# What models see


def slow(covariate: Covariate, moment: np.datetime64) -> list[float]:
    """Means of the last values, one value after the other."""
    known = [
        (closed, value)
        for closed, value in zip(covariate.closings, covariate.values, strict=True)
        if closed <= moment
    ]
    if not known or moment - known[-1][0] > STALE:
        return [np.nan] * len(COVARIATE_WINDOWS)
    values = [value for _, value in known]
    return [float(np.mean(values[-window:])) for window in COVARIATE_WINDOWS]


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 120), st.integers(0, 40))
def test_inputs_are_means_of_what_was_known_in_training_units(seed: int, length: int, gap: int) -> None:
    """A covariate that begins, pauses and stops at any date, against a loop over its values."""
    random = np.random.default_rng(seed)
    days = business_days(150)
    start = int(random.integers(0, 150 - length + 1))
    kept = np.ones(length, dtype=bool)
    kept[length // 3 : length // 3 + gap] = False
    kept[0] = True
    some = level(random.standard_normal(length) * 10 ** random.uniform(-6, 6), days[start : start + length])
    of = Panel.from_prices({"A": prices(garch(149, 3)), "X": some[kept]}, covariates={"X": "level"})
    train = Windows(of, np.arange(20, 80), (1,))
    inputs = CovariateInputs().fit(train)
    raw = np.array([slow(of.covariates["X"], moment) for moment in of.closed])
    seen = raw[20:80][np.isfinite(raw[20:80]).all(axis=1)]
    everywhere = Windows(of, np.arange(len(of)), (1,))
    found = inputs(everywhere)
    assert np.isfinite(found).all()
    assert (np.abs(found) <= 8.0).all()
    if len(seen) < 2 or (seen.std(axis=0) < 1e-6 * np.abs(seen).max()).any():
        return
    expected = np.clip((raw - seen.mean(axis=0)) / seen.std(axis=0), -8.0, 8.0)
    np.testing.assert_allclose(found, np.nan_to_num(expected), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(inputs.channels(of)[:, 0], found[:, 0])


def test_what_never_moved_or_was_never_known_in_training_says_nothing() -> None:
    of = {"A": prices(garch(299, 3)), "STILL": level(np.r_[np.full(200, 4.0), np.full(100, 5.0)])}
    of["LATE"] = level(rate(100, 1), business_days(300)[200:])
    whole = Panel.from_prices(of, covariates={"STILL": "level", "LATE": "level"})
    inputs = CovariateInputs().fit(Windows(whole, np.arange(20, 150), (1,)))
    assert not inputs(Windows(whole, np.arange(299), (1,))).any()


def test_a_covariate_that_stopped_is_forgotten_after_fourteen_days() -> None:
    of = frames()
    of["RATE"] = of["RATE"].iloc[:600]
    stopped = Panel.from_prices(of, covariates={"RATE": "level"})
    inputs = CovariateInputs().fit(learnable(stopped))
    rows = np.flatnonzero(stopped.series == 0)[595:]
    values = inputs(Windows(stopped, rows, HORIZONS))[:, 0]
    age = stopped.closed[rows] - stopped.covariates["RATE"].closings[-1]
    assert values[age <= np.timedelta64(14, "D")].all()
    assert not values[age > np.timedelta64(14, "D")].any()
    assert (age > np.timedelta64(14, "D")).sum() > 50


def test_tokyo_has_not_seen_new_york_on_the_same_date() -> None:
    days = business_days(300)
    of = {"T": prices(garch(299, 0)), "N": prices(garch(299, 1)), "VIX": level(np.arange(300.0), days)}
    night, noon = np.timedelta64(21, "h"), np.timedelta64(6, "h")
    dates = days.to_numpy().astype("datetime64[s]")
    closings = {"T": dates + noon, "N": dates + night, "VIX": dates + night}
    of_both = Panel.from_prices(of, closings=closings, covariates={"VIX": "level"})
    inputs = CovariateInputs()
    inputs.names, inputs.statistics = ("VIX",), np.stack([np.zeros((1, 3)), np.full((1, 3), 100.0)])
    seen = inputs.channels(of_both)[:, 0] * 100.0
    for symbol, behind in (("T", 1.0), ("N", 0.0)):
        rows = np.flatnonzero(of_both.series == of_both.symbols.index(symbol))
        np.testing.assert_allclose(seen[rows], np.arange(1, 300) - behind, rtol=1e-6)


def test_no_covariate_of_the_future_is_seen(model: tuple[str, Any]) -> None:
    name, of_whole = model
    changed = panel(change_after=LAST)
    again = build(name).fit(learnable(changed))
    assert np.array_equal(again.predict(origins(changed)).values, of_whole.predict(origins(WHOLE)).values)


def test_a_covariate_of_the_past_is_seen(model: tuple[str, Any]) -> None:
    name, of_whole = model
    expected = of_whole.predict(origins(WHOLE)).values
    for symbol in COVARIATES:
        changed = panel(WHOLE.calendar[400], (symbol,))
        again = build(name).fit(learnable(changed))
        assert not np.array_equal(again.predict(origins(changed)).values, expected), symbol


@pytest.mark.parametrize("name", BLIND)
def test_other_models_do_not_look_at_covariates(name: str) -> None:
    of = frames()
    without = Panel.from_prices({symbol: of[symbol] for symbol in ("AAA", "BBB")})
    one, other = (build(name).fit(learnable(each)).predict(origins(each)) for each in (WHOLE, without))
    assert np.array_equal(one.values, other.values)


def test_a_model_is_saved_with_its_covariates(model: tuple[str, Any], tmp_path: Path) -> None:
    name, of_whole = model
    of_whole.save(tmp_path)
    again = build(name).load(tmp_path)
    assert np.array_equal(again.predict(origins(WHOLE)).values, of_whole.predict(origins(WHOLE)).values)
    of = frames()
    del of["RATE"]
    with pytest.raises(ParameterError, match=r"prices without RATE; there are FX$"):
        again.predict(origins(Panel.from_prices(of, covariates={"FX": "return"})))


def test_a_forecast_does_not_depend_on_its_batch(model: tuple[str, Any]) -> None:
    _, of_whole = model
    windows = origins(WHOLE)
    alone = np.flatnonzero(windows.symbols == "BBB")[::-5]
    np.testing.assert_allclose(
        of_whole.predict(windows.take(alone)).values,
        of_whole.predict(windows).values[alone],
        rtol=1e-6,
        atol=1e-9,
    )


def test_a_covariate_that_tells_the_scale_is_used() -> None:
    """Returns whose volatility a series names the day before: a model that sees it has a lower CRPS."""
    random = np.random.default_rng(1)
    n = 1500
    size = np.exp(random.standard_normal(n))
    returns = 0.01 * size[:-1] * random.standard_normal(n - 1)
    of = {"A": prices(returns), "SIZE": level(size)}
    both = Panel.from_prices(of, covariates={"SIZE": "level"}), Panel.from_prices({"A": of["A"]})
    losses = []
    for each in both:
        train = fit_windows(each, each.calendar[1000], (1,), WARM_UP)
        test = origin_windows(each, each.calendar[1000], each.calendar[-2], (1,), WARM_UP)
        losses.append(crps(test.targets, BoostingForecaster().fit(train).predict(test).values).mean())
    assert losses[0] < 0.95 * losses[1]


# Checks of levels


def test_a_level_may_be_negative_and_move_by_any_factor() -> None:
    values = np.array([0.01, -0.5, 0.0, np.nan, 300.0, np.inf, 1.0])
    inspection = inspect_level("RATE", level(values))
    np.testing.assert_array_equal(inspection.prices["close"], [0.01, -0.5, 0.0, 300.0, 1.0])
    assert [finding.code for finding in inspection.findings] == ["infinite-number", "no-close"]
    assert list(inspection.quarantined["codes"]) == ["infinite-number"]
    judged = pd.Series(["", "non-positive-price", "rejected,a typo", "", "unit-slip", "", ""])
    judged.index = level(values).index
    again = inspect_level("RATE", level(values), judged)
    np.testing.assert_array_equal(again.prices["close"], [0.01, -0.5, 300.0, 1.0])
    assert [error.code for error in inspect_level("RATE", level(np.array([1.0]))).errors] == ["too-short"]
    twice = pd.concat([level(values), level(values).tail(1)])
    assert inspect_level("RATE", twice).errors[0].code == "duplicate-session"


class Given:
    def __init__(self, tables: dict[str, pd.DataFrame]) -> None:
        self.tables = tables

    def symbols(self) -> tuple[str, ...]:
        return tuple(self.tables)

    def load(self, symbol: str) -> pd.DataFrame:
        return self.tables[symbol]


def test_prices_are_checked_as_what_they_are() -> None:
    """A negative level is one; the same numbers are no prices, nor is a return taken of them."""
    tables = {"A": level(rate(300, 9)), "B": level(rate(300, 9)), "C": level(rate(300, 9))}
    loaded = load_prices(Given(tables), (), 100, covariates={"A": "level", "B": "return"})
    assert set(loaded.frames) == {"A"}
    assert set(loaded.failures) == {"B", "C"}


# The job


def job(models: str = "{kind: ridge}", **settings: str) -> Job:
    lines = [f"{key}: {value}" for key, value in {"prices": "{kind: sample}", **settings}.items()]
    text = "\n".join(["name: suite", "backtest: {start: 2004-01-01}", f"models: [{models}]", *lines])
    return parse_job(text, "suite")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"covariates": "{SP50: return}"}, "covariates: 'SP50' is none of the symbols; did you mean 'SP500'"),
        (
            {"covariates": "{WTI: lev}"},
            "covariates.WTI: Input should be 'return', 'level' or 'difference'",
        ),
        ({"covariates": "{WTI: level, SP500: level, NASDAQ: level}"}, "no symbol is left to forecast"),
        ({"models": "{kind: zero}", "covariates": "{WTI: level}"}, "no model of the job looks at them"),
        ({"portfolios": "{SP500: {WTI: 1}}"}, "'SP500' is the name of a symbol"),
        ({"portfolios": "{P: {}}"}, "'P' has at least one member, and no weight is zero"),
        ({"portfolios": "{P: {WTI: 0, SP500: 0}}"}, "no weight is zero; received {'WTI': 0.0, 'SP500': 0.0}"),
        ({"portfolios": "{P: {WTI: nan}}"}, "portfolios.P.WTI: Input should be a finite number"),
        ({"portfolios": "{P: {WTO: 1}}"}, "'WTO' in 'P' is none of the symbols; did you mean 'WTI'"),
        (
            {"portfolios": "{P: {WTI: 1}, Q: {P: 1}}"},
            "members of 'Q' are symbols, no covariates or",
        ),
        ({"portfolios": "{P: {WTI: 1}}", "covariates": "{WTI: level}"}, "members of 'P' are symbols"),
        ({"portfolios": "{P: {WTI: 1}}", "variance": "range"}, "the range of a portfolio's prices"),
    ],
)
def test_a_bad_setting_is_one_clear_line(settings: dict[str, str], text: str) -> None:
    with pytest.raises(JobError) as caught:
        job(**settings)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_hash_knows_covariates_and_weights() -> None:
    hashes = {
        job().hash,
        job(covariates="{WTI: level}").hash,
        job(covariates="{WTI: return}").hash,
        job(portfolios="{P: {WTI: 1}}").hash,
        job(portfolios="{P: {WTI: 2}}").hash,
    }
    assert len(hashes) == 5
    one, other = "{WTI: level, NASDAQ: return}", "{NASDAQ: return, WTI: level}"
    assert job(covariates=one).hash == job(covariates=other).hash


FILES = "{kind: files, path: prices.csv}"


def test_a_covariate_without_prices_ends_the_job() -> None:
    of = frames()
    of["RATES"] = of.pop("RATE")
    with pytest.raises(DataError, match=r"^the covariate RATE has no prices .* \(did you mean 'RATES'\?\)"):
        lay_out(job(prices=FILES, covariates="{RATE: level}"), of, 100)


def test_calendars_say_who_closes_first() -> None:
    of = frames(60)
    named = "{AAA: XTKS, BBB: XNYS, RATE: NYSE, FX: XNYS}"
    of_both, _ = lay_out(job(prices=FILES, covariates="{RATE: level, FX: return}", calendars=named), of, 30)
    assert of_both.closings is not None
    seen = of_both.covariates["RATE"].last_known(of_both.closed)
    sessions = of_both.covariates["RATE"].closings[seen].astype("datetime64[D]")
    tokyo = of_both.series == 0
    assert (sessions[tokyo] < of_both.sessions[tokyo])[1:].all()
    assert (sessions[~tokyo] == of_both.sessions[~tokyo]).all()
    del of["RATE"]
    same, _ = lay_out(job(prices=FILES, calendars="{AAA: XNYS, BBB: NYSE}"), of, 30)
    assert same.closings is None
    with pytest.raises(JobError, match=r"Received: none for FX; name theirs$"):
        lay_out(job(prices=FILES, covariates="{FX: level}", calendars="{AAA: XNYS, BBB: XNYS}"), of, 30)


def test_a_covariate_elsewhere_does_not_delay_the_market() -> None:
    """The mean of members that close together is known at that close, whatever else is looked at."""
    of = frames(60)
    named = "{AAA: XNYS, BBB: XNYS, RATE: 24/5, FX: 24/5}"
    beside, _ = lay_out(job(prices=FILES, covariates="{RATE: level, FX: level}", calendars=named), of, 30)
    alone = Panel.from_prices({symbol: of[symbol] for symbol in ("AAA", "BBB")})
    for one, other in ((beside.market(), alone.market()), (beside.cross_section(), alone.cross_section())):
        seen = one.values[one.last_known(beside.closed)]
        np.testing.assert_array_equal(seen, other.values[other.last_known(alone.closed)])
    # The currency's session ends at midnight, after New York has closed.
    known = beside.covariates["FX"]
    last = known.closings[known.last_known(beside.closed)[1:]]
    assert (last <= beside.closed[1:]).all()


# Portfolios


def test_a_portfolio_earns_the_weighted_simple_return() -> None:
    of = frames()
    table = portfolio_prices(of, {"AAA": 0.6, "BBB": -0.3, "FX": 0.2})
    earned = table["close"].pct_change().dropna()
    simple = {name: of[name]["close"].pct_change().dropna() for name in ("AAA", "BBB", "FX")}
    expected = 0.6 * simple["AAA"] - 0.3 * simple["BBB"] + 0.2 * simple["FX"]
    np.testing.assert_allclose(earned, expected, rtol=1e-9, atol=1e-12)
    assert table["close"].iloc[0] == 100.0


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_over_a_session_that_one_member_missed_returns_are_cumulated(seed: int) -> None:
    random = np.random.default_rng(seed)
    of = {name: prices(garch(30, number)) for number, name in enumerate("AB")}
    for name, frame in of.items():
        frame["dividend"] = np.where(random.random(31) < 0.2, 0.5, 0.0)
        of[name] = frame[random.random(31) < 0.8]
    weights = {"A": 0.7, "B": 0.5}
    table = portfolio_prices(of, weights)
    both = of["A"].index.intersection(of["B"].index)
    assert list(table.index) == list(both)
    value = 100.0
    for before, day in itertools.pairwise(both):
        gain = 0.0
        for name, weight in weights.items():
            held = 1.0
            rows = of[name].loc[before:day]
            for old, new in zip(rows.iloc[:-1].itertuples(), rows.iloc[1:].itertuples(), strict=True):
                held *= (new.close + new.dividend) / old.close
            gain += weight * (held - 1.0)
        value *= 1.0 + gain
        assert table.loc[day, "close"] == pytest.approx(value, rel=1e-9)


def test_one_member_of_weight_one_is_that_member() -> None:
    of = frames()
    np.testing.assert_allclose(
        log_returns(portfolio_prices(of, {"AAA": 1.0}))[1:], log_returns(of["AAA"])[1:], atol=1e-12
    )


def test_a_portfolio_that_loses_everything_is_left_out_by_name() -> None:
    of = frames()
    of["AAA"].loc[of["AAA"].index[300] :, "close"] *= 1.6
    with pytest.raises(ParameterError, match=r"stays above zero\. Received: weights .* loses 1\d\d"):
        portfolio_prices(of, {"AAA": -2.0})
    short = job(prices=FILES, portfolios="{SHORT: {AAA: -2}, LONG: {AAA: 0.5, BBB: 0.5}, GONE: {CCC: 1}}")
    del of["RATE"]  # no price
    made, failures = lay_out(short, of, 100)
    assert made.symbols == ("AAA", "BBB", "FX", "LONG")
    assert set(failures) == {"SHORT", "GONE"}
    assert "take smaller ones" in failures["SHORT"]
    assert failures["GONE"].startswith("its members have no prices that can be used: CCC")


def test_a_portfolio_is_no_part_of_the_market() -> None:
    of = {symbol: frame for symbol, frame in frames().items() if symbol in ("AAA", "BBB")}
    made, _ = lay_out(job(prices=FILES, portfolios="{P: {AAA: 0.5, BBB: 0.5}}"), of, 100)
    assert made.symbols == ("AAA", "BBB", "P")
    assert made.universe.members == ("AAA", "BBB")
    short, failures = lay_out(job(prices=FILES, portfolios="{P: {AAA: 0.5, BBB: 0.5}}"), of, 701)
    assert short.symbols == ("AAA", "BBB")
    assert "at least 701 sessions on which all members have a close; it has 700" in failures["P"]
    with pytest.raises(DataError, match="the portfolio AAA has the name of a symbol"):
        lay_out(job(prices=FILES, portfolios="{AAA: {BBB: 1}}"), of, 100)


def test_a_portfolio_does_not_see_the_future() -> None:
    of = frames()
    before = portfolio_prices(of, {"AAA": 0.5, "BBB": 0.7})
    for symbol in ("AAA", "BBB"):
        of[symbol].loc[of[symbol].index[400] :, "close"] *= 1.3
    after = portfolio_prices(of, {"AAA": 0.5, "BBB": 0.7})
    assert before["close"][:400].to_numpy().tobytes() == after["close"][:400].to_numpy().tobytes()
    assert not np.array_equal(before["close"], after["close"])


def test_a_panel_on_disk_is_whole(tmp_path: Path) -> None:
    """What workers read is what the job made: every field, so that none is forgotten."""
    of = frames(60)
    named = "{AAA: XTKS, BBB: XTKS, RATE: XNYS, FX: XNYS}"
    made, _ = lay_out(job(prices=FILES, covariates="{RATE: level, FX: return}", calendars=named), of, 30)
    made.save(tmp_path)
    again = Panel.open(tmp_path)
    for field in dataclasses.fields(Panel):
        one, other = getattr(made, field.name), getattr(again, field.name)
        if field.name == "covariates":
            assert list(one) == list(other) == ["FX", "RATE"]
            for name in one:
                np.testing.assert_array_equal(one[name].closings, other[name].closings)
                np.testing.assert_array_equal(one[name].values, other[name].values)
        else:
            np.testing.assert_array_equal(one, other)
    assert again.one_close
    assert again.closings is not None


def test_a_negative_rate_goes_through_the_store_with_its_sign(tmp_path: Path) -> None:
    """Also where it was stored by a job that took it for a price, and so lies in quarantine."""
    of = {"A": prices(garch(299, 0)), "RATE": level(rate(300, 9))}
    tables = [frame.reset_index()[["session", "close"]].assign(symbol=name) for name, frame in of.items()]
    pd.concat(tables).to_csv(tmp_path / "prices.csv", index=False)
    for name, more in (("price", ""), ("rate", "covariates: {RATE: level}\n")):
        text = f"name: {name}\nprices: {FILES}\nstore: {tmp_path}/{{}}\nlookback: 8\nhorizons: [1]\n{more}"
        text += "backtest: {start: 2000-06-01}\nmodels: [{kind: ridge, lags: 5}]\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    for store, first in (("clean", "rate"), ("held", "price")):
        for name in ("price", "rate"):
            path = tmp_path / f"{name}.yaml"
            path.write_text(path.read_text().replace("{}", store).replace("clean", store))
        told = CliRunner().invoke(app, ["ingest", str(tmp_path / f"{first}.yaml")])
        assert told.exit_code == (0 if first == "rate" else 3), told.output
        data = load_data(load_job(tmp_path / "rate.yaml"), tmp_path, 30)
        np.testing.assert_allclose(data.panel.covariates["RATE"].values, of["RATE"]["close"])
        assert data.panel.symbols == ("A",)
        assert (of["RATE"]["close"] < 0).mean() > 0.1


def test_a_renewed_network_sees_covariates_as_it_was_trained(fitted: dict[str, Any]) -> None:
    name = "convolution"
    fitted[name] = first = fitted.get(name) or build(name).fit(learnable(WHOLE))
    later = fit_windows(WHOLE, WHOLE.calendar[540], HORIZONS, WARM_UP)
    second = build(name).renew(first, later)
    assert second.covariates is first.covariates
    assert second.weights is first.weights
    features = first._features_and_anchors(later)[0]
    np.testing.assert_array_equal(
        second._outputs(later, second._data(later, features), list(second.weights)),
        first._outputs(later, first._data(later, features), list(first.weights)),
    )
    assert {"covariate FX", "covariate RATE"} <= set(second.lag_weights()["channel"])


def test_explain_says_who_looks_at_what(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "name: told\nprices: {kind: sample}\nbacktest: {start: 2004-01-01}\ncovariates: {WTI: level}\n"
        "portfolios: {P: {SP500: 1.5, NASDAQ: -0.5}}\nmodels:\n  - {kind: ridge}\n  - {kind: zero}\n"
        "  - {kind: combination, members: [ridge, zero]}\n"
    )
    told = CliRunner().invoke(app, ["explain", str(path)])
    assert told.exit_code == 0, told.output
    assert "covariates WTI (level): seen by ridge, combination; not looked at by zero\n" in told.output
    assert "portfolio P: 1.5 of SP500, -0.5 of NASDAQ, brought back to that at every close\n" in told.output
