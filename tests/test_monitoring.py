"""The checks of the evening: honest when they are looked at every day, and not blind."""

from __future__ import annotations

import datetime
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from forecaster.errors import ParameterError
from forecaster.monitoring import (
    BETS,
    QUARTER,
    Check,
    Remedy,
    coverage_check,
    crps_check,
    drift_check,
    evidence,
    is_delivery,
    missing_check,
    promise_table,
    remedy,
    runtime_check,
    stale_check,
    worst,
)

Array = NDArray[np.float64]

SHARES = st.integers(1, 200).flatmap(lambda n: arrays(np.float64, n, elements=st.floats(0.0, 1.0)))

Z80, Z95 = 1.2815515655446004, 1.959963984540054


def slow_evidence(values: Array, bound: float) -> float:
    """The definition of the notes, at horizon one, after all numbers: every quarter and bet by itself."""
    total, begun = 0.0, (len(values) - 1) // QUARTER + 1
    for quarter in range(begun):
        for bet in BETS:
            stake = 1.0
            for value in values[quarter * QUARTER :]:
                stake *= 1.0 + bet * (value - bound) / bound
            total += stake / ((quarter + 1) * (quarter + 2) * len(BETS))
    # The stakes of the quarters to come.
    return total + sum(1.0 / ((k + 1) * (k + 2)) for k in range(begun, 100_000))


def test_the_evidence_is_what_its_definition_says() -> None:
    generator = np.random.default_rng(1)
    values = generator.uniform(0.3, 1.0, 150)
    found = evidence(values, 0.5)[:, 0]
    for n in (1, 5, QUARTER, QUARTER + 1, 150):
        assert found[n - 1] == pytest.approx(slow_evidence(values[:n], 0.5), rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(SHARES, st.sampled_from([0.05, 0.2, 0.5, 0.95]), st.integers(1, 7), st.integers(0, 200))
def test_evidence_of_the_past_does_not_change_and_never_is_negative(
    values: Array, bound: float, horizon: int, cut: int
) -> None:
    whole = evidence(values, bound, horizon)
    assert whole.shape == (len(values), horizon)
    assert (whole >= 0.0).all()
    np.testing.assert_array_equal(evidence(values[:cut], bound, horizon), whole[:cut])
    # Each process is that of its own origins, and stands still between them.
    for number in range(horizon):
        still = np.ones(len(values), bool)
        still[number::horizon] = False
        before = np.concatenate([[1.0], whole[:-1, number]])
        np.testing.assert_array_equal(whole[still, number], before[still])


def test_one_step_of_the_evidence_is_a_fair_bet() -> None:
    # An even coin against an even bound: what it becomes, on average, is what it was.
    past = np.array([1.0, 0.0, 1.0, 1.0])
    before = evidence(past, 0.5)[-1, 0]
    after = [evidence(np.append(past, outcome), 0.5)[-1, 0] for outcome in (0.0, 1.0)]
    assert np.mean(after) == pytest.approx(before, rel=1e-12)


def test_missing_origins_are_no_evidence() -> None:
    values = np.array([0.9, np.nan, 0.8])
    assert evidence(values, 0.5)[-1, 0] == evidence(np.array([0.9, 0.8]), 0.5)[-1, 0]


def test_endless_evidence_stays_finite() -> None:
    assert np.isfinite(evidence(np.ones(5000), 0.01)).all()


def test_what_is_no_share_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"numbers between 0 and 1\. Received: 1\.5 to 1\.5"):
        evidence(np.array([1.5]), 0.5)
    with pytest.raises(ParameterError, match="a bound lies between 0 and 1"):
        evidence(np.array([0.5]), 1.0)
    with pytest.raises(ParameterError, match="at least one session"):
        evidence(np.array([0.5]), 0.5, 0)


# --- a record that is simulated --------------------------------------------------------------------------


def held(
    generator: np.random.Generator, n: int, horizon: int, symbols: int, scale: float | Array = 1.0
) -> pd.DataFrame:
    """Daily coverage of right forecasts of a common walk and walks of their own; `scale` makes them wrong."""
    common = generator.standard_normal((n + horizon, 1))
    steps = (common + generator.standard_normal((n + horizon, symbols))) / math.sqrt(2.0)
    total = np.concatenate([np.zeros((1, symbols)), np.cumsum(steps, axis=0)])
    outcome = (total[horizon : horizon + n] - total[:n]) / math.sqrt(horizon) * np.reshape(scale, (-1, 1))
    return pd.DataFrame(
        {
            "model": "m",
            "horizon": horizon,
            "origin": pd.bdate_range("2015-01-01", periods=n),
            "coverage_80": (np.abs(outcome) < Z80).mean(axis=1),
            "coverage_95": (np.abs(outcome) < Z95).mean(axis=1),
            "crps": np.abs(outcome).mean(axis=1),
        }
    )


def strengths(record: pd.DataFrame) -> Array:
    """Evidence of the coverage check after each day, without tolerance, as its parts make it."""
    horizons = record["horizon"].unique()
    days = []
    for horizon in horizons:
        rows = record[record["horizon"] == horizon]
        parts = []
        for level, share in (("coverage_80", 0.8), ("coverage_95", 0.95)):
            inside = rows[level].to_numpy()
            parts += [
                evidence(1.0 - inside, 1.0 - share, int(horizon)),
                evidence(inside, share, int(horizon)),
            ]
        days.append(np.mean(parts, axis=0).max(axis=1) / (horizon * len(horizons)))
    strongest: Array = np.max(days, axis=0)
    return strongest


def test_the_check_says_what_its_evidence_says_on_any_day() -> None:
    generator = np.random.default_rng(2)
    record = pd.concat([held(generator, 400, h, 3, 1.25) for h in (1, 5)])
    daily = strengths(record)
    for day in (10, 100, 250, 399):
        mine = record[record["origin"] <= record["origin"].unique()[day]]
        found = coverage_check(mine, None, "m", alpha=0.01, tolerance=0.0)
        state = "fail" if daily[day] >= 100 else "warn" if daily[day] >= 10 else "ok"
        assert found.state == state, (day, daily[day], found)


def test_five_years_of_daily_looks_at_right_forecasts_raise_few_alarms() -> None:
    generator = np.random.default_rng(3)
    alarms = naive = 0
    paths, alpha = 120, 0.1
    for _ in range(paths):
        record = pd.concat([held(generator, 1260, h, 4) for h in (1, 5)])
        alarms += bool(strengths(record).max() >= 1.0 / alpha)
        inside = record.loc[record["horizon"] == 1, "coverage_80"].to_numpy()
        days = np.arange(1, len(inside) + 1)
        z = (np.cumsum(inside) / days - 0.8) / (inside.std() / np.sqrt(days))
        naive += bool((np.abs(z[60:]) > 1.645).any())
    # A share alpha at most; a test at the same level that is merely repeated fails often.
    assert alarms <= alpha * paths
    assert naive > 0.4 * paths


def test_overlapping_outcomes_taken_for_independent_ones_would_raise_many() -> None:
    generator = np.random.default_rng(4)
    together = apart = 0
    for _ in range(60):
        inside = held(generator, 1260, 21, 2)["coverage_80"].to_numpy()
        together += bool(evidence(1.0 - inside, 0.2).max() >= 10.0)
        apart += bool(evidence(1.0 - inside, 0.2, 21).max() / 21 >= 10.0)
    assert together > 20
    assert apart <= 6


def test_a_break_after_good_years_is_found_within_months() -> None:
    generator = np.random.default_rng(5)
    found = []
    for _ in range(20):
        scale = np.where(np.arange(1200) < 1000, 1.0, 1.5)
        daily = strengths(held(generator, 1200, 1, 10, scale))
        assert daily[:1000].max() < 100
        after = np.flatnonzero(daily[1000:] >= 100)
        found.append(int(after[0]) if len(after) else 200)
    assert np.median(found) < 90


def test_forecasts_that_are_too_wide_are_found_as_well() -> None:
    record = held(np.random.default_rng(6), 500, 1, 10, 0.6)
    found = coverage_check(record, None, "m", alpha=0.01, tolerance=0.02)
    assert found.state == "fail"
    assert "promised 80.0%" in found.reason or "promised 95.0%" in found.reason


def test_a_tolerance_forgives_what_lies_within() -> None:
    record = held(np.random.default_rng(7), 1500, 1, 10, 1.06)
    assert coverage_check(record, None, "m", alpha=0.01, tolerance=0.0).state == "fail"
    assert coverage_check(record, None, "m", alpha=0.01, tolerance=0.03).state == "ok"


def test_the_promise_is_that_of_the_backtest() -> None:
    # Held less than its level, and promised so.
    backtest = held(np.random.default_rng(8), 2500, 1, 10, 1.2).assign(model="m")
    promise = promise_table(backtest)
    later = held(np.random.default_rng(9), 1000, 1, 10, 1.2)
    assert coverage_check(later, None, "m", alpha=0.01, tolerance=0.01).state == "fail"
    assert coverage_check(later, promise, "m", alpha=0.01, tolerance=0.01).state == "ok"


def test_without_outcomes_nothing_is_said_against_a_model() -> None:
    empty = held(np.random.default_rng(1), 10, 1, 1).head(0)
    assert coverage_check(empty, None, "m", alpha=0.01, tolerance=0.0) == Check(
        "coverage", "ok", "m: no outcome is known yet"
    )
    assert crps_check(empty, None, "m", "b", alpha=0.01, tolerance=0.0).state == "ok"


# --- CRPS ------------------------------------------------------------------------------------------------


def losses(seed: int, n: int, ratio: float, horizons: tuple[int, ...] = (1,)) -> pd.DataFrame:
    """Daily CRPS of a baseline that moves with the markets, and of a model at a ratio of it, with noise."""
    generator = np.random.default_rng(seed)
    parts = []
    for horizon in horizons:
        calm = np.exp(np.cumsum(0.05 * generator.standard_normal(n)))
        noise = np.exp(0.1 * generator.standard_normal(n) - 0.005)
        origins = pd.bdate_range("2015-01-01", periods=n)
        table = {"horizon": horizon, "origin": origins, "coverage_80": 0.8, "coverage_95": 0.95}
        parts.append(pd.DataFrame({**table, "model": "b", "crps": calm}))
        parts.append(pd.DataFrame({**table, "model": "m", "crps": calm * ratio * noise}))
    return pd.concat(parts, ignore_index=True)


def test_the_promise_table_states_means_and_their_errors() -> None:
    backtest = losses(1, 1000, 0.97, (1, 5))
    table = promise_table(backtest)
    assert list(table.columns) == ["model", "horizon", "metric", "against", "value", "standard_error"]
    mine = table[(table["model"] == "m") & (table["metric"] == "crps") & (table["horizon"] == 1)]
    assert mine["against"].tolist() == ["b"]
    wide = backtest[backtest["horizon"] == 1].pivot(index="origin", columns="model", values="crps")
    difference = ((wide["m"] - wide["b"]) / (wide["m"] + wide["b"])).to_numpy()
    assert mine["value"].iloc[0] == pytest.approx(difference.mean(), rel=1e-12)
    quarters = difference[: 15 * QUARTER].reshape(15, QUARTER).mean(axis=1)
    assert mine["standard_error"].iloc[0] == pytest.approx(quarters.std(ddof=1) / math.sqrt(15), rel=1e-9)
    coverage = table[(table["model"] == "b") & (table["metric"] == "coverage_95")]
    assert coverage["value"].tolist() == pytest.approx([0.95, 0.95])
    assert promise_table(losses(1, 100, 1.0))["standard_error"].isna().all()


def test_a_kept_ratio_raises_no_alarm_whatever_the_markets_do() -> None:
    promise = promise_table(losses(1, 2000, 0.97))
    alarms = 0
    for seed in range(100, 140):
        found = crps_check(losses(seed, 700, 0.97), promise, "m", "b", alpha=0.1, tolerance=0.0)
        alarms += found.state == "fail"
    assert alarms <= 8


def test_a_lost_edge_is_found() -> None:
    promise = promise_table(losses(1, 2000, 0.97))
    found = crps_check(losses(2, 500, 1.06), promise, "m", "b", alpha=0.01, tolerance=0.01)
    assert found.state == "fail"
    assert found.reason.startswith("m: h=1: 1.05")
    assert "of b, promised 0.96" in found.reason
    kept = crps_check(losses(2, 500, 0.97), promise, "m", "b", alpha=0.01, tolerance=0.01)
    assert kept.state == "ok"


def test_a_promise_read_from_csv_is_the_same(tmp_path: Path) -> None:
    promise = promise_table(losses(1, 2000, 0.97))
    promise.to_csv(tmp_path / "promise.csv", index=False)
    again = pd.read_csv(tmp_path / "promise.csv")
    record = losses(2, 300, 1.06)
    for each in ("m", "b"):
        assert coverage_check(record, again, each, alpha=0.01, tolerance=0.01) == coverage_check(
            record, promise, each, alpha=0.01, tolerance=0.01
        )
    assert crps_check(record, again, "m", "b", alpha=0.01, tolerance=0.01) == crps_check(
        record, promise, "m", "b", alpha=0.01, tolerance=0.01
    )


def test_without_a_baseline_the_crps_is_not_tested() -> None:
    found = crps_check(losses(1, 10, 1.0), None, "m", None, alpha=0.01, tolerance=0.0)
    assert found == Check("crps", "ok", "m: no baseline is issued beside it, so its CRPS is not tested")


# --- the inputs ------------------------------------------------------------------------------------------


def scaled(seed: int, n: int = 2200, symbols: int = 3) -> Array:
    """Returns over their volatility, with common days and clusters."""
    generator = np.random.default_rng(seed)
    clusters = np.exp(0.3 * np.sin(np.arange(n) / 40.0) + 0.1 * generator.standard_normal(n))[:, None]
    return clusters * (generator.standard_normal((n, 1)) + generator.standard_normal((n, symbols)))


def test_inputs_as_before_rarely_warn_though_days_are_alike() -> None:
    states = [drift_check({"size": scaled(seed)}, recent=63).state for seed in range(60)]
    # The recent of 34 blocks is the furthest one in 34 times.
    assert sum(state != "ok" for state in states) <= 7
    assert "fail" not in states


def test_inputs_in_another_unit_fail_and_a_shift_warns() -> None:
    values = scaled(1)
    values[-63:] *= 10.0
    found = drift_check({"size of returns": np.abs(values)}, recent=63)
    assert (found.name, found.state) == ("drift", "fail")
    assert found.reason.startswith("size of returns of the last 63 sessions lies 0.")
    shifted = scaled(1)
    shifted[-63:] *= 2.5
    assert drift_check({"size": np.abs(shifted)}, recent=63).state in ("warn", "fail")


def test_a_drift_that_is_sure_and_too_small_to_matter_is_none() -> None:
    # 200 symbols that are alike but for the last quarter, which is 1% larger.
    values = np.abs(np.random.default_rng(3).standard_normal((2200, 200)))
    values[-63:] *= 1.01
    assert drift_check({"size": values}, recent=63).state == "ok"
    values[-63:] *= 1.15
    assert drift_check({"size": values}, recent=63).state == "fail"


def test_drift_sees_nothing_of_a_missing_symbol_and_says_when_it_cannot_judge() -> None:
    values = scaled(2)
    values[:, 1] = np.nan
    assert drift_check({"size": values}, recent=63) == drift_check({"size": values[:, [0, 2]]}, recent=63)
    assert (
        "not judged: 6 blocks of 63 sessions before, 20 needed"
        in drift_check({"size": values[:500]}, recent=63).reason
    )
    assert drift_check({"size": np.full((2000, 2), np.nan)}, recent=63).state == "ok"
    assert drift_check({}, recent=63).state == "ok"


# --- prices, the night, remedies -------------------------------------------------------------------------


def test_stale_symbols_warn_and_too_many_fail() -> None:
    assert stale_check({}, 4, minimum_coverage=0.5).state == "ok"
    found = stale_check({"A": 1, "B": 3, "C": 0}, 4, minimum_coverage=0.5)
    assert found == Check("stale", "warn", "2 of 4 symbols lack sessions, up to 3: B, A")
    assert stale_check({"A": 1, "B": 3, "C": 1}, 4, minimum_coverage=0.5).state == "fail"


def test_missing_symbols_warn_and_too_many_fail() -> None:
    assert missing_check({}, 2, minimum_coverage=0.5).state == "ok"
    found = missing_check({"B": "no prices"}, 2, minimum_coverage=0.5)
    assert found == Check("missing", "warn", "1 of 2 symbols have no forecast: B; B: no prices")
    many = {f"S{number}": "gone" for number in range(8)}
    found = missing_check(many, 10, minimum_coverage=0.5)
    assert (found.state, "S4 and 3 more" in found.reason) == ("fail", True)


def test_an_evening_that_takes_longer_than_usual_warns_and_one_too_long_fails() -> None:
    before = pd.DataFrame({"step": ["ingest"] * 5, "seconds": [10.0, 12.0, 11.0, 9.0, 10.0]})
    assert runtime_check({"ingest": 80.0}, before, total=80, longest=600).state == "ok"
    found = runtime_check({"ingest": 100.0, "score": 1.0}, before, total=101, longest=600)
    assert found == Check("runtime", "warn", "ingest took 100 s, usually 10 s")
    assert runtime_check({"ingest": 100.0}, before.head(4), total=100, longest=600).state == "ok"
    assert runtime_check({"ingest": 10.0}, before, total=601, longest=600).state == "fail"


def test_the_worst_state_counts_and_deliveries_are_no_checks() -> None:
    assert worst(["ok", "fail", "warn"]) == "fail"
    assert worst([]) == "ok"
    assert is_delivery("sent by email: coverage fail")
    assert not is_delivery("coverage")


def events(*rows: tuple[str, str, str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["as_of", "event", "model"])
    return table.assign(as_of=pd.to_datetime(table["as_of"]))


def day(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)


def test_remedies_are_in_force_until_another_model_is_used() -> None:
    first = ("2024-01-02", "promotion", "cnn")
    assert remedy(events()) == Remedy()
    assert remedy(events(first)) == Remedy(since=day("2024-01-02"))
    calibrated = ("2024-02-01", "calibration", "cnn")
    assert remedy(events(first, calibrated)) == Remedy(True, None, day("2024-02-01"))
    fallen = ("2024-03-01", "fallback", "ewma")
    assert remedy(events(first, calibrated, fallen)) == Remedy(False, "ewma", day("2024-03-01"))
    for ended in ("promotion", "rollback", "recovery"):
        assert remedy(events(first, calibrated, fallen, ("2024-04-01", ended, "cnn"))) == Remedy(
            since=day("2024-04-01")
        )


def test_the_record_of_a_model_that_is_trained_anew_goes_on() -> None:
    first, again = ("2024-01-02", "promotion", "cnn"), ("2024-04-02", "promotion", "cnn")
    assert remedy(events(first, again)).since == day("2024-01-02")
    assert remedy(events(first, ("2024-04-02", "promotion", "mlp"))).since == day("2024-04-02")
    assert remedy(events(first, ("2024-04-02", "remark", "cnn"))).since == day("2024-01-02")
