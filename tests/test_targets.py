"""What a network can be trained for: the losses against their definitions, planted variances and means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from planted import garch, prices

from forecaster.features import CLIP, ewma_volatility
from forecaster.job import parse_job
from forecaster.models.convolution.inputs import VARIANCE_CHANNELS, variance_channels
from forecaster.models.convolution.model import ConvolutionForecaster
from forecaster.models.convolution.network import squared_error
from forecaster.models.convolution.targets import variance_loss
from forecaster.scores import qlike
from forecaster.walkforward import fit_windows, origin_windows
from forecaster.windows import Panel, Universe, Windows

# isort: split
import tensorflow as tf

Array = NDArray[np.float64]

HORIZONS = (1, 5)
WARM_UP = 60


def build(target: str, kind: str = "convolution", **more: Any) -> ConvolutionForecaster:
    strategy = "strategy: {kind: row}, " if kind == "convolution" else ""
    settings = "".join(f"{name}: {value}, " for name, value in more.items())
    job = parse_job(
        "name: t\nprices: {kind: sample}\nlookback: 32\nbacktest: {start: 2004-01-01}\n"
        f"models: [{{kind: {kind}, {strategy}target: {target}, {settings}training: {{seeds: 1}}}}]",
        "t",
    )
    model = job.build(kind)
    assert isinstance(model, ConvolutionForecaster)
    return model


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_the_loss_of_a_variance_is_qlike_but_for_what_no_forecast_changes(seed: int) -> None:
    generator = np.random.default_rng(seed)
    anchors, realised = np.exp(generator.normal(-9.0, 1.0, (2, 4, 3, 2)))
    first, second = generator.normal(0.0, 0.7, (2, 4, 3, 2))
    typical = (realised / anchors).mean(axis=(0, 1))

    def ours(outputs: Array) -> Array:
        tensors = [tf.constant(value, tf.float64) for value in (outputs, realised / anchors, typical)]
        given: Array = variance_loss(tensors[0], tensors[1], [tensors[2]]).numpy()
        return given

    def theirs(outputs: Array) -> Array:
        return qlike(anchors * typical * np.exp(outputs), realised).mean(axis=-1)

    difference = ours(first) - ours(second)
    np.testing.assert_allclose(difference, theirs(first) - theirs(second), rtol=1e-9, atol=1e-12)


def of_range(n: int, seed: int) -> pd.DataFrame:
    """Prices whose range follows a GARCH variance far more closely than their returns do."""
    generator = np.random.default_rng(seed)
    frame = prices(garch(n, seed))
    frame["open"] = frame["close"].shift(1, fill_value=100.0) * np.exp(
        1e-4 * generator.standard_normal(n + 1)
    )
    returns = np.log(frame["close"]).diff().fillna(0.0).to_numpy()
    spread = ewma_volatility(returns) * np.exp(0.2 * generator.standard_normal(n + 1))
    frame["high"] = frame[["open", "close"]].max(axis=1) * np.exp(spread / 2)
    frame["low"] = frame[["open", "close"]].min(axis=1) * np.exp(-spread / 2)
    return frame


FRAMES = {f"S{seed}": of_range(900, seed) for seed in range(3)}
PANEL = Panel.from_prices(FRAMES, variance="range")
LEARNED = fit_windows(PANEL, PANEL.calendar[700], HORIZONS, WARM_UP)
TEST = origin_windows(PANEL, PANEL.calendar[701], PANEL.calendar[890], HORIZONS, WARM_UP)


@pytest.fixture(scope="module")
def variance_model() -> ConvolutionForecaster:
    return build("variance").fit(LEARNED)


def test_the_variance_of_the_range_is_what_is_forecast(variance_model: ConvolutionForecaster) -> None:
    """Its mean is right on training rows scored out of sample; quantiles are its root times past ones."""
    past = variance_model._past
    assert past is not None
    realised = Windows(PANEL, past.rows, HORIZONS).realised_variance
    factors = (realised / past.scale**2).mean(axis=0)
    location, scale = variance_model.location_and_scale(TEST)
    forecast = variance_model.predict(TEST)
    assert forecast.tails is not None
    assert not location.any()
    np.testing.assert_allclose(forecast.tails.variance, scale**2 * factors, rtol=1e-12)
    standardised = Windows(PANEL, past.rows, HORIZONS).targets / past.scale
    np.testing.assert_allclose(forecast.median, scale * np.median(standardised, axis=0), rtol=1e-9)
    known = np.isfinite(TEST.realised_variance).all(axis=1)
    ratio = TEST.realised_variance[known] / forecast.tails.variance[known]
    np.testing.assert_allclose(ratio.mean(axis=0), 1.0, atol=0.15)
    unconditional = qlike(LEARNED.realised_variance.mean(axis=0), TEST.realised_variance[known])
    assert (qlike(ratio, ratio**2).mean(axis=0) < 0.8 * unconditional.mean(axis=0)).all()


def test_the_same_prices_without_their_range_give_other_forecasts(
    variance_model: ConvolutionForecaster,
) -> None:
    of_returns = Panel.from_prices(FRAMES)
    squares = build("variance").fit(Windows(of_returns, LEARNED.rows, HORIZONS))
    stated = [
        model.predict(Windows(panel, TEST.rows, HORIZONS)).tails
        for model, panel in ((variance_model, PANEL), (squares, of_returns))
    ]
    assert stated[0] is not None
    assert stated[1] is not None
    assert np.median(np.abs(np.log(stated[0].variance / stated[1].variance))) > 0.05


def test_kernels_of_the_variance_are_shown_by_channel(variance_model: ConvolutionForecaster) -> None:
    assert set(variance_model.lag_weights()["channel"]) >= {"z", *VARIANCE_CHANNELS}


def test_channels_of_the_variance_are_those_of_pandas() -> None:
    seen = variance_channels(PANEL, PANEL.universe)
    logs, smooth = {}, {}
    for symbol, part in zip(PANEL.symbols, PANEL.parts, strict=True):
        variances = pd.Series(PANEL.variances[part], PANEL.sessions[part])
        logs[symbol] = np.log(variances)
        smooth[symbol] = np.log(variances.ewm(alpha=0.06).mean())
    own = pd.DataFrame(logs) - pd.DataFrame(smooth)
    for symbol, part in zip(PANEL.symbols, PANEL.parts, strict=True):
        expected = np.stack([own[symbol], own.mean(axis=1)], axis=1).clip(-CLIP, CLIP)
        np.testing.assert_allclose(seen[part], expected, atol=1e-5)
    alone = variance_channels(PANEL, Universe())
    np.testing.assert_array_equal(alone[:, 0], alone[:, 1])  # nothing is known of anybody: its own


def test_a_planted_mean_is_found_and_no_other() -> None:
    """Half of yesterday's move is taken back: R2 of a quarter. On pure GARCH returns there is none."""

    def r_squared(reversal: float) -> Array:
        series = {}
        for seed in range(3):
            returns = garch(900, seed)
            for day in range(1, len(returns)):
                returns[day] -= reversal * returns[day - 1]
            series[f"S{seed}"] = prices(returns)
        panel = Panel.from_prices(series)
        model = build("point").fit(fit_windows(panel, panel.calendar[700], HORIZONS, WARM_UP))
        test = origin_windows(panel, panel.calendar[701], panel.calendar[890], HORIZONS, WARM_UP)
        forecast = model.predict(test)
        location, scale = model.location_and_scale(test)
        past = model._past
        assert past is not None
        outcomes, slopes = Windows(panel, past.rows, HORIZONS).targets, model.target.slopes
        for column in range(2):
            clipped = np.clip(outcomes[:, column] / past.scale[:, column], -CLIP, CLIP)
            slope = np.polyfit((past.location / past.scale)[:, column], clipped, 1)[0]
            assert slopes[column] == pytest.approx(np.clip(slope, 0.0, 1.0), rel=1e-6, abs=1e-9)
        standardised = (outcomes - slopes * past.location) / past.scale
        expected = slopes * location + scale * np.median(standardised, axis=0)
        np.testing.assert_allclose(forecast.median, expected, rtol=1e-6, atol=1e-9)
        errors = np.square(test.targets - forecast.mean).mean(axis=0)
        gain: Array = 1.0 - errors / np.square(test.targets).mean(axis=0)
        return gain

    planted, none = r_squared(0.5), r_squared(0.0)
    assert 0.1 < planted[0] < 0.35
    assert (np.abs(none) < 0.01).all()


def test_the_mean_is_trained_on_outcomes_in_units_of_the_scale_and_clipped() -> None:
    model = build("point", anchor="ewma")
    target = model.target
    observed = target.observed(LEARNED, LEARNED.scales)
    np.testing.assert_array_equal(observed, np.clip(LEARNED.targets / LEARNED.scales, -8.0, 8.0))
    objective = target.objective(2)
    assert (objective.loss, objective.columns, objective.constants) == (squared_error, 2, ())


def test_a_job_says_what_is_trained_for() -> None:
    text = (
        "name: t\nprices: {{kind: sample}}\nbacktest: {{start: 2004-01-01}}\n"
        "models: [{{kind: mlp, target: {target}}}]"
    )
    described = [
        parse_job(text.format(target=name), "t").models[0].description for name in ("variance", "point")
    ]
    assert described[0].endswith("no convolution, for the variance")
    assert described[1].endswith("no convolution, for the mean")
    with pytest.raises(Exception, match=r"models\[0\]\.target: .*'distribution', 'variance' or 'point'"):
        parse_job(text.format(target="volatility"), "t")


def test_without_the_linear_model_the_variance_starts_at_its_ewma() -> None:
    target = build("variance", anchor="ewma").target
    target.fit(LEARNED)
    _, anchors = target.features_and_anchors(LEARNED)
    for part, mine in LEARNED.by_series():
        smooth = pd.Series(PANEL.variances[part]).ewm(alpha=0.06).mean().to_numpy()
        place = LEARNED.rows[mine] - part.start
        np.testing.assert_allclose(anchors[mine], smooth[place][:, None] * np.array(HORIZONS), rtol=1e-9)


def test_later_ranges_change_no_bit_of_a_variance(variance_model: ConvolutionForecaster) -> None:
    evening = PANEL.calendar[750]
    changed = {}
    for symbol, frame in FRAMES.items():
        other = frame.copy()
        later = other.index.to_numpy().astype("datetime64[D]") > evening
        other.loc[later, ["open", "high", "low", "close"]] *= 1.3
        other.loc[later, "high"] *= 1.1
        changed[symbol] = other
    panel = Panel.from_prices(changed, variance="range")
    assert not np.array_equal(panel.variances, PANEL.variances)
    learned = fit_windows(panel, panel.calendar[700], HORIZONS, WARM_UP)
    model = build("variance").fit(learned)
    origins = TEST.take(TEST.sessions <= evening)
    expected = variance_model.predict(origins)
    again = model.predict(Windows(panel, origins.rows, HORIZONS))
    assert expected.tails is not None
    assert again.tails is not None
    assert again.values.tobytes() == expected.values.tobytes()
    assert again.tails.variance.tobytes() == expected.tails.variance.tobytes()
