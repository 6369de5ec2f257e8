"""Returns against a holder who reinvests, a slow loop, and the invariances that define them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from forecaster.errors import ParameterError
from forecaster.returns import adjusted_prices, forward_returns, log_returns, to_log_returns, to_prices

PRICES = st.floats(0.01, 1e5)
RATIOS = st.sampled_from([1.0, 1.0, 1.0, 2.0, 4.0, 1.5, 0.1, 7.0])
DIVIDENDS = st.sampled_from([0.0, 0.0, 0.25, 3.0])


@st.composite
def histories(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.lists(st.tuples(PRICES, DIVIDENDS, RATIOS), min_size=1, max_size=30))
    return pd.DataFrame(rows, columns=["close", "dividend", "split"])


def wealth_of_holder(frame: pd.DataFrame, *, reinvest: bool) -> list[float]:
    """Hold shares from the first close on, through splits; buy more with each dividend at that close."""
    shares = 1.0
    wealth = []
    for position, (close, dividend, split) in enumerate(
        frame[["close", "dividend", "split"]].itertuples(index=False)
    ):
        if position > 0:
            shares *= split
            if reinvest:
                shares += shares * dividend / close
        wealth.append(shares * close)
    return wealth


@given(histories())
def test_total_return_is_that_of_a_holder_who_reinvests(frame: pd.DataFrame) -> None:
    wealth = wealth_of_holder(frame, reinvest=True)
    expected = [math.log(after / before) for before, after in itertools.pairwise(wealth)]
    returns = log_returns(frame)
    assert math.isnan(returns[0])
    np.testing.assert_allclose(returns[1:], expected, rtol=1e-9, atol=1e-9)


@given(histories())
def test_price_return_is_that_of_a_holder_who_spends_the_dividends(frame: pd.DataFrame) -> None:
    wealth = wealth_of_holder(frame, reinvest=False)
    expected = [math.log(after / before) for before, after in itertools.pairwise(wealth)]
    np.testing.assert_allclose(log_returns(frame, "price")[1:], expected, rtol=1e-9, atol=1e-9)


@given(histories(), st.data())
def test_further_splits_leave_returns_unchanged(frame: pd.DataFrame, data: st.DataObject) -> None:
    ratios = np.array(data.draw(st.lists(RATIOS, min_size=len(frame), max_size=len(frame))))
    shares = np.cumprod(ratios)  # shares that one share of before has become
    split = frame.assign(
        close=frame["close"] / shares, dividend=frame["dividend"] / shares, split=frame["split"] * ratios
    )
    for kind in ("total", "price"):
        np.testing.assert_allclose(log_returns(split, kind), log_returns(frame, kind), rtol=1e-9, atol=1e-9)


def test_apple_four_for_one_is_a_return_of_three_percent() -> None:
    apple = pd.DataFrame({"close": [499.23, 129.04], "dividend": 0.0, "split": [1.0, 4.0]})
    assert log_returns(apple)[1] == pytest.approx(math.log(129.04 / 124.8075))


def test_a_missing_close_spoils_its_own_return_and_the_next() -> None:
    frame = pd.DataFrame({"close": [1.0, 2.0, np.nan, 4.0, 5.0], "dividend": 0.0, "split": 1.0})
    assert np.isnan(log_returns(frame)).tolist() == [True, False, True, True, False]


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({}, "net", "`kind` must be 'total' or 'price'. Received: kind='net'"),
        ({"close": [1.0, -36.98]}, "total", "`close` must be positive.*Received: -36.98 at position 1"),
        ({"split": [0.0, 1.0]}, "price", "`split` must be positive.*Received: 0 at position 0"),
        ({"dividend": [0.0, -3.0]}, "total", "`dividend` must be at least 0. Received: -3"),
    ],
)
def test_log_returns_refuses(change: dict[str, list[float]], kind: str, text: str) -> None:
    frame = pd.DataFrame({"close": [1.0, 2.0], "dividend": 0.0, "split": 1.0}).assign(**change)
    with pytest.raises(ParameterError, match=text):
        log_returns(frame, kind)  # type: ignore[arg-type]


def dated(frame: pd.DataFrame) -> pd.DataFrame:
    index = pd.bdate_range("2020-01-01", periods=len(frame), name="session")
    return frame.set_axis(index, axis=0).assign(open=frame["close"].to_numpy() * 1.5, volume=700.0)


@pytest.mark.parametrize("kind", ["total", "price"])
@given(frame=histories())
def test_adjusted_closes_move_as_the_wealth_of_a_holder(frame: pd.DataFrame, kind: str) -> None:
    adjusted = adjusted_prices(dated(frame), kind=kind)  # type: ignore[arg-type]
    wealth = np.array(wealth_of_holder(frame, reinvest=kind == "total"))
    expected = wealth / wealth[-1] * frame["close"].iloc[-1]
    np.testing.assert_allclose(adjusted["close"], expected, rtol=1e-9)
    np.testing.assert_allclose(adjusted["open"], 1.5 * expected, rtol=1e-9)
    later = np.append(np.cumprod(frame["split"].to_numpy()[:0:-1])[::-1], 1.0)  # ratios of later splits
    np.testing.assert_allclose(adjusted["volume"], 700.0 * later, rtol=1e-9)
    assert (adjusted["split"] == 1).all()
    if kind == "total":
        assert (adjusted["dividend"] == 0).all()
    else:
        np.testing.assert_allclose(adjusted["dividend"], frame["dividend"] / later, rtol=1e-9)
    for counted in ("total", "price") if kind == "price" else ("total",):
        np.testing.assert_allclose(
            log_returns(adjusted, counted)[1:],
            log_returns(frame, counted)[1:],
            rtol=1e-9,
            atol=1e-9,
        )


@given(histories(), st.data())
def test_adjustment_as_of_a_session_knows_nothing_later(frame: pd.DataFrame, data: st.DataObject) -> None:
    frame = dated(frame)
    session = data.draw(st.integers(0, len(frame) - 1))
    as_of = frame.index[session].date()
    later = frame.copy()
    later.iloc[session + 1 :] = data.draw(st.sampled_from([math.nan, 0.0, -1.0, 1e9]))
    for kind in ("total", "price"):
        known = adjusted_prices(frame.iloc[: session + 1], kind=kind)
        pd.testing.assert_frame_equal(adjusted_prices(later, as_of, kind), known, check_exact=True)


def test_prices_without_actions_are_their_own_adjustment() -> None:
    frame = dated(pd.DataFrame({"close": [1 / 3, 0.7, 1e-5], "dividend": 0.0, "split": 1.0}))
    pd.testing.assert_frame_equal(adjusted_prices(frame), frame, check_exact=True)
    frame.iloc[1, 0] = math.nan  # a missing close without a dividend leaves the rest alone
    pd.testing.assert_frame_equal(adjusted_prices(frame), frame, check_exact=True)
    with pytest.raises(ParameterError, match="`kind` must be 'total' or 'price'"):
        adjusted_prices(frame, kind="net")  # type: ignore[arg-type]


def test_log_returns_names_missing_columns() -> None:
    with pytest.raises(ParameterError, match="Missing: dividend, split"):
        log_returns(pd.DataFrame({"close": [1.0]}))


SERIES = hnp.arrays(
    np.float64, st.integers(0, 40), elements=st.floats(-0.5, 0.5) | st.just(float("nan"))
)  # fmt: skip
HORIZONS = st.lists(st.integers(1, 25), min_size=1, max_size=4)


@given(SERIES, HORIZONS)
def test_forward_returns_equal_a_slow_loop(returns: NDArray[np.float64], horizons: list[int]) -> None:
    result = forward_returns(returns, horizons)
    assert result.shape == (returns.size, len(horizons))
    for origin in range(returns.size):
        for column, horizon in enumerate(horizons):
            future = returns[origin + 1 : origin + 1 + horizon]
            expected = math.fsum(future) if future.size == horizon else math.nan
            np.testing.assert_allclose(result[origin, column], expected, rtol=1e-12, atol=1e-14)


@given(SERIES.filter(lambda values: values.size > 0), HORIZONS, st.data())
def test_one_session_touches_only_the_origins_that_wait_for_it(
    returns: NDArray[np.float64], horizons: list[int], data: st.DataObject
) -> None:
    session = data.draw(st.integers(0, returns.size - 1))
    changed = returns.copy()
    changed[session] = 17.0
    before, after = forward_returns(returns, horizons), forward_returns(changed, horizons)
    for column, horizon in enumerate(horizons):
        waits = np.zeros(returns.size, dtype=bool)
        waits[max(session - horizon, 0) : session] = True
        # Bit for bit, NaN included: not even rounding may carry a session to another origin.
        assert before[~waits, column].tobytes() == after[~waits, column].tobytes()
        known = waits & ~np.isnan(after[:, column])
        assert (before[known, column] != after[known, column]).all()


@pytest.mark.parametrize("horizons", [(), (0,), (1, -5), (1.0,), (True,)])
def test_forward_returns_refuses_horizons(horizons: tuple[int, ...]) -> None:
    with pytest.raises(ParameterError, match="`horizons` must be whole numbers of at least 1"):
        forward_returns(np.zeros(3), horizons)


def test_forward_returns_refuses_a_table() -> None:
    with pytest.raises(ParameterError, match=r"one dimension. Received: shape \(3, 2\)"):
        forward_returns(np.zeros((3, 2)), (1,))


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.tuples(
            hnp.arrays(np.float64, n, elements=PRICES),
            hnp.arrays(np.float64, (n, 3, n), elements=st.floats(-5, 5)),
        )
    )
)
def test_prices_and_log_returns_are_inverses(pair: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    close, returns = pair
    prices = to_prices(close, returns)
    for origin in range(close.size):
        np.testing.assert_allclose(prices[origin], close[origin] * np.exp(returns[origin]), rtol=1e-14)
    np.testing.assert_allclose(to_log_returns(close, prices), returns, rtol=1e-12, atol=1e-12)


def test_prices_refuse_axes_that_only_broadcasting_would_match() -> None:
    with pytest.raises(ParameterError, match=r"first axes of `log_return`.*Received: \(2, 3\) and \(3,\)"):
        to_prices(np.ones(3), np.zeros((2, 3)))
    with pytest.raises(ParameterError, match=r"`close` must be positive.*Received: 0 at position 1"):
        to_prices(np.array([1.0, 0.0]), np.zeros(2))
    with pytest.raises(ParameterError, match=r"`prices` must be positive.*Received: -2 at position 3"):
        to_log_returns(np.ones(2), np.array([[1.0, 1.0], [1.0, -2.0]]))
