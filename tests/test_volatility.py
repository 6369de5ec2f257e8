"""Variance from the range against simulated sessions whose variance is known, and the papers' formulas."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from forecaster.errors import ParameterError
from forecaster.prices.samples import SampleSource
from forecaster.volatility import (
    VARIANCE_FLOOR,
    copied_opens,
    daily_variance,
    garman_klass,
    parkinson,
    realised_variance,
    rogers_satchell,
    yang_zhang,
)

Array = NDArray[np.float64]
ESTIMATORS = {"parkinson": parkinson, "garman_klass": garman_klass, "rogers_satchell": rogers_satchell}


def sessions(n: int, seed: int, drift: float = 0.0, night: float = 0.0) -> pd.DataFrame:
    """Sessions of 5,000 steps with variance 1e-4 from open to close, a drift and a variance of the night."""
    rng = np.random.default_rng(seed)
    steps = 5000
    rows, before = [], 0.0
    for _ in range(n):
        start = before + math.sqrt(night) * rng.standard_normal()
        path = start + np.cumsum(0.01 / math.sqrt(steps) * rng.standard_normal(steps) + drift / steps)
        rows.append((start, max(start, path.max()), min(start, path.min()), path[-1]))
        before = path[-1]
    return pd.DataFrame(np.exp(rows), columns=["open", "high", "low", "close"])


QUIET = sessions(1500, 1)


@pytest.mark.parametrize(
    ("name", "efficiency"), [("parkinson", 4.9), ("garman_klass", 7.4), ("rogers_satchell", 6.0)]
)
def test_they_find_the_variance_of_simulated_sessions_as_precisely_as_the_papers_say(
    name: str, efficiency: float
) -> None:
    variance = ESTIMATORS[name](QUIET)
    # A range seen at 5,000 points is a little too small.
    assert variance.mean() == pytest.approx(1e-4, rel=0.07)
    squares = np.log(QUIET["close"] / QUIET["open"]) ** 2
    assert squares.var() / variance.var() == pytest.approx(efficiency, rel=0.25)


def test_rogers_satchell_is_right_under_drift_and_the_others_are_not() -> None:
    trending = sessions(1500, 2, drift=0.02)
    assert rogers_satchell(trending).mean() == pytest.approx(1e-4, rel=0.07)
    assert parkinson(trending).mean() > 1.5e-4


def test_yang_zhang_counts_the_night_and_neither_its_drift_nor_the_days() -> None:
    frame = sessions(1500, 3, drift=0.01, night=5e-5)
    assert np.nanmean(yang_zhang(frame)) == pytest.approx(1.5e-4, rel=0.05)


def test_yang_zhang_is_the_formula_of_the_paper() -> None:
    frame = sessions(30, 4, night=3e-5)
    n = 10
    o, h, low, c = (np.log(frame[name]) for name in ("open", "high", "low", "close"))
    night = (o - c.shift(1)).iloc[-n:]
    up, down, day = (h - o).iloc[-n:], (low - o).iloc[-n:], (c - o).iloc[-n:]
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    range_part = (up * (up - day) + down * (down - day)).mean()
    expected = night.var(ddof=1) + k * day.var(ddof=1) + (1 - k) * range_part
    assert yang_zhang(frame, n)[-1] == pytest.approx(expected)
    assert np.isnan(yang_zhang(frame, n)[:n]).all()
    assert np.isfinite(yang_zhang(frame, n)[n:]).all()
    assert np.isnan(yang_zhang(frame.iloc[:5], n)).all()


@given(st.lists(st.tuples(*[st.floats(0.5, 2.0)] * 4), min_size=1, max_size=8))
def test_they_are_the_formulas_for_any_session(quotes: list[tuple[float, float, float, float]]) -> None:
    frame = pd.DataFrame(
        [(a, max(a, b, c, d), min(a, b, c, d), b) for a, b, c, d in quotes],
        columns=["open", "high", "low", "close"],
    )
    for place, row in frame.iterrows():
        o, h, low, c = (math.log(row[name]) for name in ("open", "high", "low", "close"))
        expected = {
            "parkinson": (h - low) ** 2 / (4 * math.log(2)),
            "garman_klass": 0.5 * (h - low) ** 2 - (2 * math.log(2) - 1) * (c - o) ** 2,
            "rogers_satchell": (h - c) * (h - o) + (low - c) * (low - o),
        }
        for name, value in expected.items():
            assert ESTIMATORS[name](frame)[place] == pytest.approx(value, abs=1e-12)
            assert ESTIMATORS[name](frame)[place] >= -1e-15
    assert (daily_variance(frame) >= VARIANCE_FLOOR).all()


def test_copied_opens_are_detected_by_day_and_parkinson_takes_their_place() -> None:
    frame = sessions(40, 5, night=3e-5)
    copied = np.zeros(40, dtype=bool)
    copied[[3, 17, 18]] = True
    previous = frame["close"].shift(1)
    frame.loc[copied, "open"] = previous[copied]
    frame["high"], frame["low"] = frame.max(axis=1), frame.min(axis=1)
    np.testing.assert_array_equal(copied_opens(frame), copied)
    variance = daily_variance(frame)
    np.testing.assert_array_equal(variance[copied], parkinson(frame)[copied])
    np.testing.assert_array_equal(variance[~copied], garman_klass(frame)[~copied])
    # No night can be told from a copy, so that no window which holds one is complete.
    known = np.isfinite(yang_zhang(frame, 5))
    assert np.flatnonzero(~known).tolist() == [*range(8), *range(17, 23)]


def test_opens_of_the_sp500_sample_are_copies_in_the_years_the_data_are_known_for() -> None:
    frame = SampleSource(["SP500"]).load("SP500")
    share = pd.Series(copied_opens(frame), frame.index).groupby(frame.index.year).mean()
    assert (share.loc[1999:2005] > 0.9).all()
    assert (share.loc[[2006, 2012, 2013]] > 0.2).all()
    assert (share.loc[2014:2018] < 0.01).all()
    assert np.isfinite(daily_variance(frame)).all()


def test_a_missing_price_makes_its_session_unknown() -> None:
    frame = sessions(5, 6)
    frame.loc[2, "high"] = np.nan
    assert np.isnan(parkinson(frame)).tolist() == [False, False, True, False, False]
    assert np.isnan(daily_variance(frame)).tolist() == [False, False, True, False, False]


def test_a_session_that_does_not_move_has_the_smallest_variance() -> None:
    frame = pd.DataFrame(np.full((3, 4), 7.0), columns=["open", "high", "low", "close"])
    assert daily_variance(frame).tolist() == [VARIANCE_FLOOR] * 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.drop(columns="low"), r"needs the columns open, .* Received: a frame without low$"),
        (lambda f: f.assign(low=-f["low"]), r"must be positive, .* \(5 in all\)$"),
        (
            lambda f: f.assign(high=f["low"]),
            r"enclose open and close\. Received: 5 sessions .* position 0",
        ),
    ],
)
def test_prices_that_are_not_fit_are_refused(change: object, said: str) -> None:
    frame = sessions(5, 7)
    for estimator in (*ESTIMATORS.values(), daily_variance, yang_zhang):
        with pytest.raises(ParameterError, match=said):
            estimator(change(frame))  # type: ignore[operator]


def test_a_window_of_one_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"^`window` must be at least 2, .* Received: 1$"):
        yang_zhang(QUIET, 1)


def test_realised_variance_is_the_sum_of_the_squares_to_come() -> None:
    returns = np.array([0.5, 0.01, -0.02, 0.03, 0.0])
    expected = [[1e-4, 5e-4], [4e-4, 1.3e-3], [9e-4, 9e-4], [VARIANCE_FLOOR, np.nan], [np.nan, np.nan]]
    np.testing.assert_allclose(realised_variance(returns**2, (1, 2)), expected)
