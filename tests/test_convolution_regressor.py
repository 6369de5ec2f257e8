"""The scikit-learn regressor: scikit-learn's own suite, slow oracles, and truths that are planted."""

from __future__ import annotations

import pickle
import random
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.base import clone, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_pinball_loss
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from forecaster.errors import ParameterError
from forecaster.kernels import Parallel
from forecaster.liftings import CalendarFold, Column, Lagged, Replicate, Row, Spectrogram
from forecaster.models.convolution import regressor as module
from forecaster.models.convolution.geometry import history_of
from forecaster.models.convolution.regressor import ConvolutionRegressor

# isort: split
import keras
import tensorflow as tf

SMALL: dict[str, Any] = {"filters": 2, "dense": 3, "epochs": 3, "random_state": 0}
STRATEGIES: dict[str, Any] = {
    "row": Row(),
    "column": Column(),
    "replicate": Replicate(rows=3),
    "lagged": Lagged(lags=(0, 1, 5)),
    "calendar": CalendarFold(period=5),
    "spectrogram": Spectrogram(segment=4),
    "parallel": Parallel(),
    "parallel_columns": Parallel(axis="columns", aggregate="max"),
    "parallel_bands": Parallel(lifting=Spectrogram(segment=4)),
}


def noise(n: int, sessions: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((n, sessions)), generator.standard_normal(n)


# The lagged rows reach back one session only: scikit-learn fits windows of two sessions and more, and asks
# that a single one be fitted or refused by an error that names the number of features.
@parametrize_with_checks(  # type: ignore[untyped-decorator]  # scikit-learn is untyped
    [
        ConvolutionRegressor(epochs=5),
        ConvolutionRegressor(Lagged(rows=2), **SMALL),
        ConvolutionRegressor(loss="quantile", **SMALL),
        ConvolutionRegressor(loss="quantile", quantiles=(0.5,), **SMALL),
    ]
)
def test_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


# --- oracles ------------------------------------------------------------------------------------------------


def test_training_starts_at_the_ridge_regression() -> None:
    X, y = noise(60, 7)
    y = y + X[:, 2]
    model = ConvolutionRegressor(epochs=1, learning_rate=1e-12, l2=0.3, random_state=0).fit(X, y)
    scaled = (X - X.mean()) / X.std()
    ridge = Ridge(alpha=0.3 * len(y)).fit(scaled, (y - y.mean()) / y.std())
    np.testing.assert_allclose(model.predict(X), ridge.predict(scaled) * y.std() + y.mean(), atol=1e-9)


@pytest.mark.parametrize("loss", ["squared_error", "quantile"])
def test_the_compiled_epochs_are_those_of_keras(loss: str) -> None:
    """Keras's Adam, a step at a time, on the loss in NumPy's words; one batch, so that no order matters."""
    X, y = noise(40, 6)
    weights = np.random.default_rng(1).uniform(0.5, 2.0, 40)
    chosen: dict[str, Any] = {"loss": loss, "quantiles": (0.2, 0.7), "standardise": False, "l2": 0.01}
    model = ConvolutionRegressor(**SMALL | chosen | {"epochs": 4}, learning_rate=0.02)
    model.fit(X, y, sample_weight=weights)

    start = ConvolutionRegressor(**SMALL | chosen | {"epochs": 1}, learning_rate=1e-14)
    start.fit(X, y, sample_weight=weights)
    network = keras.models.clone_model(module._compiled(model._network).model)
    for variable in network.trainable_variables:
        variable.assign(start.weights_[variable.path])
    rates = [0.01 * (1.0 + np.cos(np.pi * epoch / 4)) for epoch in range(4)]
    optimizer = keras.optimizers.Adam(1.0)
    for rate in rates:
        optimizer.learning_rate = rate
        with tf.GradientTape() as tape:
            error = y[:, None] - network(X)
            if loss == "quantile":
                levels = np.array([0.2, 0.7])
                rows = keras.ops.sum(keras.ops.maximum(levels * error, (levels - 1.0) * error), axis=1)
            else:
                rows = keras.ops.sum(error**2, axis=1)
            value = keras.ops.sum(rows * weights) / weights.sum()
            for variable in network.trainable_variables:
                if "bias" not in variable.path:
                    value += 0.01 * keras.ops.sum(variable**2)
        optimizer.apply(tape.gradient(value, network.trainable_variables), network.trainable_variables)
    for variable in network.trainable_variables:
        # Keras rounds its rates and decays to float32.
        np.testing.assert_allclose(model.weights_[variable.path], variable.numpy(), rtol=1e-5, atol=1e-6)
    assert not np.allclose(model.weights_["shortcut/kernel"], start.weights_["shortcut/kernel"], atol=1e-3)


def test_first_weights_are_glorots() -> None:
    """As Keras draws them for the same layers: parallel filters are one 1D convolution."""
    X, y = noise(20, 9)
    for strategy, taps in ((Row(), 4), (Replicate(rows=3), 12), (Parallel(), 4)):
        kernel = (1, 4) if isinstance(strategy, Row) else (3, 4)
        model = ConvolutionRegressor(
            strategy, kernel=kernel, filters=50, epochs=1, learning_rate=1e-14, random_state=0
        ).fit(X, y)
        outputs = 50 * (3 if isinstance(strategy, Parallel) else 1)
        values = model.weights_["stack/kernel_0"]
        bound = np.sqrt(6.0 / (taps + 50 * np.prod(kernel)))
        assert outputs * taps == 50 * np.prod(kernel)
        assert 0.95 * bound < np.abs(values).max() <= bound + 1e-12
        assert np.unique(values).size == values.size


@settings(max_examples=15)
@given(
    loss=st.sampled_from(["squared_error", "quantile"]),
    shift=st.floats(-100.0, 100.0),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 100),
)
def test_units_do_not_matter(loss: str, shift: float, scale: float, seed: int) -> None:
    X, y = noise(30, 6, seed)
    model = ConvolutionRegressor(loss=loss, **SMALL)
    plain = model.fit(X, y).predict(X)
    moved = model.fit(X * scale + shift, y * scale + shift).predict(X * scale + shift)
    np.testing.assert_allclose(moved, plain * scale + shift, rtol=1e-6, atol=1e-6 * (1.0 + scale))


@settings(max_examples=15)
@given(
    levels=st.sampled_from([(0.4, 0.5), (0.1, 0.5, 0.9), (0.49, 0.5, 0.51, 0.99)]),
    seed=st.integers(0, 100),
    rate=st.sampled_from([1e-3, 0.1, 1.0]),
)
def test_quantiles_never_cross(levels: tuple[float, ...], seed: int, rate: float) -> None:
    X, y = noise(20, 6, seed)
    model = ConvolutionRegressor(loss="quantile", quantiles=levels, learning_rate=rate, **SMALL)
    predicted = model.fit(X, y).predict(np.concatenate([X, 50.0 * X]))
    assert predicted.shape == (40, len(levels))
    assert (np.diff(predicted, axis=1) >= 0.0).all()


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_fits_rows_of_its_shortest_window_and_longer(name: str) -> None:
    strategy = STRATEGIES[name]
    history = history_of(strategy)
    for sessions in (history + 1, 14):
        X, y = noise(12, sessions)
        predicted = ConvolutionRegressor(strategy, **SMALL).fit(X, y).predict(X)
        assert np.isfinite(predicted).all()
    with pytest.raises(ValueError, match=r"n_features=0|0 feature\(s\)|windows of at least"):
        ConvolutionRegressor(strategy, **SMALL).fit(X[:, :history], y)


# --- planted truths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [Row(), Lagged(lags=(0, 5))])
def test_a_target_that_depends_on_lag_five_is_found(strategy: Any) -> None:
    """The size of the return five sessions before the origin: nothing that a linear model can see."""
    X, shocks = noise(2000, 12)
    y = np.abs(X[:, -6]) + 0.1 * shocks
    model = ConvolutionRegressor(strategy, random_state=0).fit(X[:1500], y[:1500])
    assert Ridge().fit(X[:1500], y[:1500]).score(X[1500:], y[1500:]) < 0.05
    assert model.score(X[1500:], y[1500:]) > 0.85
    shuffled = np.random.default_rng(1).permutation(y)
    assert model.fit(X[:1500], shuffled[:1500]).score(X[1500:], shuffled[1500:]) < 0.02


def test_pure_noise_is_not_found() -> None:
    X, y = noise(2000, 12)
    for loss in ("squared_error", "quantile"):
        model = ConvolutionRegressor(loss=loss, random_state=0).fit(X[:1000], y[:1000])
        assert -0.1 < model.score(X[1000:], y[1000:]) < 0.01, loss


def test_the_newest_session_is_the_last_column() -> None:
    """The head "last" with a kernel of one session sees the newest session, and only it."""
    X, _ = noise(600, 8)
    model = ConvolutionRegressor(kernel=(1, 1), head="last", epochs=40, random_state=0)
    newest, oldest = np.abs(X[:, -1]), np.abs(X[:, 0])
    assert model.fit(X[:400], newest[:400]).score(X[400:], newest[400:]) > 0.8
    assert model.fit(X[:400], oldest[:400]).score(X[400:], oldest[400:]) < 0.1


def test_quantiles_are_calibrated_where_the_scale_is_planted() -> None:
    """The size of the noise depends on the third newest session, its mean on the newest."""
    generator = np.random.default_rng(0)
    X = generator.standard_normal((8000, 8))
    scale = np.exp(0.5 * X[:, -3])
    y = 0.5 * X[:, -1] + scale * generator.standard_normal(8000)
    levels = (0.1, 0.5, 0.9)
    model = ConvolutionRegressor(loss="quantile", quantiles=levels, random_state=0).fit(X[:4000], y[:4000])
    predicted, outcomes, scale = model.predict(X[4000:]), y[4000:], scale[4000:]
    calm, wild = scale < np.quantile(scale, 0.3), scale > np.quantile(scale, 0.7)
    for rows in (np.full(len(scale), True), calm, wild):
        np.testing.assert_allclose((outcomes[rows, None] < predicted[rows]).mean(axis=0), levels, atol=0.05)
    truth = 0.5 * X[4000:, -1:] + scale[:, None] * norm.ppf(levels)
    for place, level in enumerate(levels):
        best = mean_pinball_loss(outcomes, truth[:, place], alpha=level)
        assert mean_pinball_loss(outcomes, predicted[:, place], alpha=level) < 1.03 * best
    flat = np.quantile(y[:4000], levels)
    assert mean_pinball_loss(outcomes, np.full(len(outcomes), flat[0]), alpha=0.1) > 1.2 * (
        mean_pinball_loss(outcomes, truth[:, 0], alpha=0.1)
    )


# --- scikit-learn's tools -----------------------------------------------------------------------------------


def test_grid_search_over_strategy_and_filters_in_a_pipeline() -> None:
    X, shocks = noise(300, 12)
    y = np.abs(X[:, -1] + X[:, -6]) + 0.1 * shocks
    grid = {
        "regressor__strategy": [Spectrogram(segment=8), Lagged(lags=(0, 5))],
        "regressor__filters": [1, 8],
    }
    regressor = ConvolutionRegressor(random_state=0, epochs=30)
    pipeline = Pipeline([("scaler", StandardScaler()), ("regressor", regressor)])
    search = GridSearchCV(pipeline, grid, cv=TimeSeriesSplit(2)).fit(X, y)
    assert isinstance(search.best_params_["regressor__strategy"], Lagged)
    assert search.best_params_["regressor__filters"] == 8
    # Threads share the compiled networks; the answers are the same to the bit.
    with joblib.parallel_config(backend="threading"):
        threads = GridSearchCV(pipeline, grid, cv=TimeSeriesSplit(2), n_jobs=3).fit(X, y)
    for key in ("split0_test_score", "split1_test_score"):
        np.testing.assert_array_equal(search.cv_results_[key], threads.cv_results_[key])


def test_parameters_of_the_lifting_are_searched_too() -> None:
    X, y = noise(40, 8)
    search = GridSearchCV(
        ConvolutionRegressor(Replicate(rows=2), **SMALL), {"strategy__rows": [1, 3]}, cv=2
    ).fit(X, y)
    assert search.best_estimator_.kernel_[0] == search.best_params_["strategy__rows"]


@pytest.mark.parametrize("name", ["row", "lagged", "parallel_bands"])
def test_clones_and_pickles_predict_the_same_bits(name: str) -> None:
    X, y = noise(30, 14)
    model = ConvolutionRegressor(STRATEGIES[name], **SMALL)
    same = clone(model)
    predicted = model.fit(X, y).predict(X)
    module._compiled.cache_clear()  # as in another process
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), predicted)
    np.testing.assert_array_equal(same.fit(X, y).predict(X), predicted)
    fresh = clone(model)
    with pytest.raises(NotFittedError, match="not fitted"):
        fresh.predict(X)
    np.testing.assert_array_equal(fresh.fit(X, y).predict(X), predicted)
    other = clone(model).set_params(random_state=1).fit(X, y).predict(X)
    assert not np.array_equal(other, predicted)


def test_the_global_generators_are_left_alone() -> None:
    X, y = noise(20, 6)
    np.random.seed(3)
    random.seed(3)
    before = np.random.get_state(legacy=True), random.getstate()
    ConvolutionRegressor(**SMALL).fit(X, y)
    assert str(np.random.get_state(legacy=True)) == str(before[0])
    assert random.getstate() == before[1]


def test_a_set_parameter_does_not_change_a_fitted_model() -> None:
    X, y = noise(30, 8)
    model = ConvolutionRegressor(**SMALL).fit(X, y)
    before = model.predict(X)
    model.set_params(strategy=Lagged(rows=2), loss="quantile", filters=5)
    np.testing.assert_array_equal(model.predict(X), before)


def test_several_outputs_and_several_quantiles() -> None:
    X, y = noise(30, 8)
    both = np.column_stack([y, 10.0 * X[:, -1]])
    assert ConvolutionRegressor(**SMALL).fit(X, both).predict(X).shape == (30, 2)
    model = ConvolutionRegressor(loss="quantile", quantiles=(0.2, 0.8), **SMALL).fit(X, both)
    predicted = model.predict(X)
    assert predicted.shape == (30, 2, 2)
    assert (predicted[..., 0] <= predicted[..., 1]).all()
    assert np.corrcoef(predicted[:, 1, 0], both[:, 1])[0, 1] > 0.95
    assert np.isfinite(model.score(X, both))
    single = ConvolutionRegressor(loss="quantile", quantiles=(0.5,), **SMALL)
    assert single.fit(X, y).predict(X).shape == (30,)
    assert single.fit(X, both).predict(X).shape == (30, 2)
    assert is_regressor(single)
    assert not is_regressor(model)  # its predictions are not like y


def test_the_score_of_quantiles_is_their_pinball_loss_against_a_constant() -> None:
    X, y = noise(50, 6)
    weights = np.random.default_rng(2).integers(1, 4, 50)
    y = y + X[:, -1]
    model = ConvolutionRegressor(loss="quantile", quantiles=(0.25, 0.5), **SMALL).fit(X, y)
    predicted = model.predict(X)
    repeated = np.repeat(y, weights)
    shares = []
    for place, level in enumerate((0.25, 0.5)):
        loss = mean_pinball_loss(y, predicted[:, place], alpha=level, sample_weight=weights)
        constants = [mean_pinball_loss(repeated, np.full(len(repeated), c), alpha=level) for c in y]
        shares.append(1.0 - loss / min(constants))
    assert model.score(X, y, weights) == pytest.approx(np.mean(shares), abs=1e-3)


def test_constants_are_predicted_as_they_are() -> None:
    X, _ = noise(20, 5)
    y = np.full(20, 0.1)
    np.testing.assert_allclose(ConvolutionRegressor(**SMALL).fit(X, y).predict(X), y, atol=1e-3)
    level = np.full((20, 5), 0.3)
    assert np.isfinite(ConvolutionRegressor(**SMALL).fit(level, X[:, 0]).predict(level)).all()


def test_scaling_is_that_of_the_training_rows() -> None:
    """A row's prediction does not depend on the rows beside it."""
    X, y = noise(40, 6)
    model = ConvolutionRegressor(**SMALL).fit(X[:30], y[:30])
    wild = np.concatenate([X[30:31], 1e6 * X[31:]])
    np.testing.assert_allclose(model.predict(wild)[0], model.predict(X[30:31])[0], rtol=1e-12)


def test_rows_of_zero_weight_are_left_out_to_the_bit() -> None:
    """Over several batches, too, where they would thin out the others."""
    X, y = noise(40, 6)
    weights = np.arange(40.0) % 4.0
    kept = weights > 0.0
    model = ConvolutionRegressor(**SMALL, batch_size=8)
    predicted = model.fit(X, y, sample_weight=weights).predict(X)
    without = model.fit(X[kept], y[kept], sample_weight=weights[kept]).predict(X)
    np.testing.assert_array_equal(predicted, without)


def test_frames_keep_their_names() -> None:
    X, y = noise(20, 4)
    frame = pd.DataFrame(X, columns=["t-3", "t-2", "t-1", "t"])
    model = ConvolutionRegressor(**SMALL).fit(frame, y)
    assert model.feature_names_in_.tolist() == ["t-3", "t-2", "t-1", "t"]
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[["t", "t-1", "t-2", "t-3"]])


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"strategy": "row"}, "strategy must be one of Row, Column"),
        (
            {"strategy": Lagged(lags=(0, 21))},
            "ConvolutionRegressor: Lagged needs windows of at least 22 sessions: its history and one more; "
            "give longer rows, or take a lifting that reaches back less. Received: n_features=6.",
        ),
        ({"kernel": (1, 7)}, "a kernel that spans 1 x 7 on 1 x 6"),
        ({"kernel": 3}, "KernelConvolution: kernel must be a pair"),
        ({"filters": 0}, "filters must be an integer of at least 1. Received: 0."),
        ({"head": "lst"}, "Received: 'lst'. Did you mean 'last'?"),
        ({"dense": -1}, "ConvolutionRegressor: dense must be an integer of at least 0. Received: -1."),
        ({"loss": "absolute"}, "loss must be one of 'squared_error', 'quantile'. Received: 'absolute'."),
        (
            {"loss": "quantile", "quantiles": (0.9, 0.1)},
            "ConvolutionRegressor: quantiles must be levels that increase inside (0, 1), such as "
            "(0.1, 0.5, 0.9). Received: (0.9, 0.1).",
        ),
        ({"loss": "quantile", "quantiles": (0.5, 1.0)}, "Received: (0.5, 1.0)."),
        ({"loss": "quantile", "quantiles": ()}, "Received: ()."),
        ({"loss": "quantile", "quantiles": 0.5}, "Received: 0.5."),
        ({"epochs": 0}, "ConvolutionRegressor: epochs must be an integer of at least 1. Received: 0."),
        ({"batch_size": 2.5}, "batch_size must be an integer of at least 1. Received: 2.5."),
        ({"learning_rate": 0.0}, "learning_rate must be a positive number. Received: 0.0."),
        ({"learning_rate": True}, "learning_rate must be a positive number. Received: True."),
        ({"l2": -1.0}, "ConvolutionRegressor: l2 must be a number, zero or positive. Received: -1.0."),
        ({"learning_rate": 1e200}, "training diverged; lower learning_rate. Received: learning_rate=1e+200."),
    ],
)
def test_a_bad_parameter_is_told_at_fit(parameters: dict[str, Any], text: str) -> None:
    X, y = noise(10, 6)
    with pytest.raises(ParameterError) as caught:
        ConvolutionRegressor(**SMALL | parameters).fit(X, y)
    assert text in str(caught.value)
