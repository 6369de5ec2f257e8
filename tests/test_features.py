"""Features against slow recursions and pandas, and causal to the last bit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from forecaster.features import (
    CHANNELS,
    CLIP,
    HAR_FEATURES,
    LEVERAGE_WINDOWS,
    VOLATILITY_FLOOR,
    channels,
    ewma_volatility,
    har_features,
    har_terms,
    relative_size,
)

Array = NDArray[np.float64]

RETURNS = st.floats(-0.5, 0.5, allow_subnormal=False) | st.just(0.0)
SERIES = hnp.arrays(np.float64, st.integers(1, 60), elements=RETURNS)


def realistic(n: int = 600, seed: int = 1) -> Array:
    rng = np.random.default_rng(seed)
    return 0.01 * np.exp(np.cumsum(0.1 * rng.normal(size=n)) / 4) * rng.standard_t(4, size=n)


def everything(returns: Array) -> tuple[Array, NDArray[np.float32], NDArray[np.float32]]:
    """All features of a series, in the order of sessions."""
    volatility = ewma_volatility(returns)
    return volatility, channels(returns, volatility), har_features(returns, volatility)


def assert_same_past(before: Array, after: Array, origin: int) -> None:
    one, other = everything(before), everything(after)
    assert one[0][: origin + 1].tobytes() == other[0][: origin + 1].tobytes()
    assert one[1][: origin + 1].tobytes() == other[1][: origin + 1].tobytes()
    assert one[2][: origin + 1].tobytes() == other[2][: origin + 1].tobytes()


@given(SERIES, st.data())
def test_what_comes_after_an_origin_changes_no_bit_of_its_features(
    returns: Array, data: st.DataObject
) -> None:
    origin = data.draw(st.integers(0, len(returns) - 1))
    # Other returns, wild ones, and another number of them.
    tail = data.draw(hnp.arrays(np.float64, st.integers(0, 60), elements=st.floats(-1e6, 1e6)))
    assert_same_past(returns, np.concatenate([returns[: origin + 1], tail]), origin)


@pytest.mark.parametrize("origin", [0, 1, 249, 250, 598])
def test_a_realistic_series_has_no_look_ahead_either(origin: int) -> None:
    # Long enough for every window, and for the blocks in which sums could be taken.
    returns = realistic()
    changed = returns.copy()
    changed[origin + 1 :] = 1e3 * changed[origin + 1 :][::-1]
    assert_same_past(returns, changed, origin)
    assert_same_past(returns, returns[: origin + 1], origin)


@given(SERIES, st.sampled_from([0.5, 0.94, 0.999]))
def test_ewma_is_the_slow_recursion_with_weights_that_sum_to_one(returns: Array, decay: float) -> None:
    expected = []
    for stop in range(1, len(returns) + 1):
        weights = [decay ** (stop - 1 - age) for age in range(stop)]
        squares = [weight * value**2 for weight, value in zip(weights, returns[:stop], strict=True)]
        expected.append(max(np.sqrt(sum(squares) / sum(weights)), VOLATILITY_FLOOR))
    np.testing.assert_allclose(ewma_volatility(returns, decay), expected, rtol=1e-9)


def test_ewma_is_pandas_mean_of_squares() -> None:
    returns = realistic()
    expected = np.sqrt(pd.Series(returns**2).ewm(alpha=1 - 0.94, adjust=True).mean())
    np.testing.assert_allclose(ewma_volatility(returns), expected, rtol=1e-12)
    assert ewma_volatility(returns)[0] == pytest.approx(abs(returns[0]))


@given(st.floats(2e-4, 0.5))
def test_ewma_of_returns_of_one_size_is_that_size_from_the_first_session_on(size: float) -> None:
    signs = np.where(np.arange(40) % 3, 1.0, -1.0)
    np.testing.assert_allclose(ewma_volatility(size * signs), size, rtol=1e-9)


def test_channels_are_what_they_say() -> None:
    returns = realistic()
    volatility = ewma_volatility(returns)
    z = returns / volatility
    ordinary = pd.Series(np.abs(returns)).expanding().mean()
    expected = {
        "z": z,
        "abs_z": np.abs(z),
        "log_abs_z": np.log(np.abs(z) + 0.1),
        "log_volatility_ratio": np.log(volatility / ordinary),
    }
    ours = channels(returns, volatility)
    assert ours.dtype == np.float32
    assert ours.shape == (600, len(CHANNELS))
    assert tuple(expected) == CHANNELS
    for index, name in enumerate(CHANNELS):
        np.testing.assert_allclose(ours[:, index], expected[name], rtol=2e-6, atol=2e-6, err_msg=name)


def test_har_features_are_those_of_pandas() -> None:
    returns = realistic()
    volatility = ewma_volatility(returns)
    size, negative = pd.Series(np.abs(returns)), pd.Series(returns).clip(upper=0)

    def logs(mean: pd.Series) -> Array:
        return np.log(np.maximum(mean.to_numpy() / volatility, 0.02))

    expected = {f"log_abs_{w}": logs(size.rolling(w, min_periods=1).mean()) for w in (1, 5, 22, 66, 250)}
    for w in (1, 5):
        leverage = negative.rolling(w, min_periods=1).mean().to_numpy() / volatility
        expected[f"negative_{w}"] = np.maximum(leverage, -CLIP)
    expected["log_abs_expanding"] = logs(size.expanding().mean())
    expected["log_volatility"] = np.log(100 * volatility)
    ours = har_features(returns, volatility)
    assert ours.dtype == np.float32
    assert ours.shape == (600, len(HAR_FEATURES))
    assert set(expected) == set(HAR_FEATURES)
    for index, name in enumerate(HAR_FEATURES):
        np.testing.assert_allclose(ours[:, index], expected[name], rtol=2e-6, atol=2e-6, err_msg=name)


@given(SERIES, st.floats(1.5, 20.0))
def test_features_but_the_volatility_itself_do_not_know_the_unit(returns: Array, factor: float) -> None:
    # Sizes far above the floors, which are in the unit of a return.
    returns = np.where(returns >= 0, 0.02, -0.02) + returns
    one, other = everything(returns), everything(factor * returns)
    np.testing.assert_allclose(other[0], factor * one[0], rtol=1e-9)
    np.testing.assert_allclose(other[1], one[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(other[2][:, :-1], one[2][:, :-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "returns",
    [
        np.zeros(300),
        np.full(300, 1e-12),
        np.concatenate([np.zeros(299), [-5.0]]),
        np.concatenate([[5.0], np.zeros(3000)]),
        np.array([0.0]),
    ],
    ids=["flat", "nearly flat", "crash after a flat stretch", "jump, then flat for ever", "one session"],
)
def test_flat_and_broken_series_give_finite_features(returns: Array) -> None:
    volatility, seen, har = everything(returns)
    assert (volatility >= VOLATILITY_FLOOR).all()
    assert np.isfinite(seen).all()
    assert np.isfinite(har).all()
    assert np.abs(seen).max() <= CLIP


def test_a_crash_is_clipped() -> None:
    # Within an EWMA that holds the crash itself no ratio passes 1 / sqrt(1 - decay); a slower scale's does.
    returns = np.concatenate([np.full(50, 0.001), [-0.9]])
    slow = np.full(51, 0.001)
    assert channels(returns, slow)[-1, :2].tolist() == [-CLIP, CLIP]
    assert har_features(returns, slow)[-1, HAR_FEATURES.index("negative_1")] == -CLIP


def test_no_sessions_give_no_features() -> None:
    assert [block.shape for block in everything(np.zeros(0))] == [
        (0,),
        (0, len(CHANNELS)),
        (0, len(HAR_FEATURES)),
    ]


@given(SERIES)
def test_har_terms_are_means_of_the_last_sessions(returns: Array) -> None:
    terms = har_terms(returns, (1, 5, 22))
    for t in range(len(returns)):
        past = returns[: t + 1]
        expected = [np.mean(np.abs(past[-w:])) for w in (1, 5, 22)]
        expected += [np.mean(np.minimum(past[-w:], 0.0)) for w in LEVERAGE_WINDOWS]
        np.testing.assert_allclose(terms[t], expected, rtol=1e-9, atol=1e-12)


def test_the_relative_size_is_over_the_mean_so_far() -> None:
    returns = realistic()
    usual = pd.Series(np.abs(returns)).expanding().mean().to_numpy()
    np.testing.assert_allclose(relative_size(returns), np.abs(returns) / usual, rtol=1e-9)
    assert relative_size(np.zeros(5)).tolist() == [0.0] * 5
