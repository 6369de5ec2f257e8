"""One suite over every model: a new kind is tested by standing in a job's union."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from planted import garch, prices

from forecaster import job as job_module
from forecaster.errors import NotFittedError, ParameterError
from forecaster.job import AnyModel, StrategySpec, parse_job
from forecaster.quantiles import LEVELS
from forecaster.walkforward import fit_windows, origin_windows
from forecaster.windows import Panel, Windows

HORIZONS = (1, 5, 21)
LOOKBACK = 32
TRAINING = "training: {epochs: 1, seeds: 1}"
STRATEGIES = {
    "row": "{kind: row}",
    "column": "{kind: column}",
    "replicate": "{kind: replicate, rows: 3}",
    "lagged": "{kind: lagged, lags: [0, 1, 5, 21]}",
    "parallel": "{kind: parallel, filters: 3}",
    "calendar_fold": "{kind: calendar_fold}",
    "spectrogram": "{kind: spectrogram, segment: 8}",
    "control": "{kind: control, rows: 3}",
}
LIGHT = {
    kind: f"{{kind: {kind}}}"
    for kind in (
        "zero",
        "historical",
        "ewma_fhs",
        "garch_t_fhs",
        "gjr_t_fhs",
        "harx_fhs",
        "lin",
        "har_log",
        "qlike_glm",
        "ridge",
        "quantile_regression",
        "mlp_sklearn",
    )
} | {
    "boosting": "{kind: boosting, iterations: 10}",
    "random_kernels": "{kind: random_kernels, kernels: 84}",
}
DEEP = {
    f"convolution_{name}": f"{{kind: convolution, strategy: {strategy}, {TRAINING}}}"
    for name, strategy in STRATEGIES.items()
} | {
    "mlp": f"{{kind: mlp, {TRAINING}}}",
    "convolution_ewma": f"{{kind: convolution, strategy: {{kind: row}}, anchor: ewma, {TRAINING}}}",
    "convolution_variance": f"{{kind: convolution, strategy: {{kind: row}}, target: variance, {TRAINING}}}",
    "convolution_point": f"{{kind: convolution, strategy: {{kind: row}}, target: point, {TRAINING}}}",
}
COMBINED = {"combination": "{kind: combination, members: [harx_fhs, ridge]}"}
CALIBRATED = {
    "split": "{kind: ewma_fhs, calibration: {kind: split}}",
    "adaptive": "{kind: harx_fhs, calibration: {kind: adaptive, refresh: 5}}",
    "by_symbol": "{kind: ridge, calibration: {kind: control, by_symbol: true, outer: 0.1}}",
}
MODELS = LIGHT | DEEP | COMBINED | CALIBRATED
BY_SYMBOL = {"zero", "historical", "ewma_fhs", "garch_t_fhs", "gjr_t_fhs"}
"""Those that learn nothing from other symbols."""
FIELD = [
    *LIGHT.values(),
    *(f"{{name: {name}, {text[1:]}" for name, text in (DEEP | CALIBRATED).items()),
    *COMBINED.values(),
]
"""All of them as the models of one job."""


def kinds(union: Any) -> set[str]:
    return {get_args(member.model_fields["kind"].annotation)[0] for member in get_args(get_args(union)[0])}


def test_every_kind_is_in_this_suite() -> None:
    assert kinds(AnyModel) == {text.split("kind: ")[1].split(",")[0].rstrip("}") for text in MODELS.values()}
    assert kinds(StrategySpec) == set(STRATEGIES)


def job_of(name: str, seed: int) -> job_module.Job:
    before = "{kind: harx_fhs}, {kind: ridge}, " if name in COMBINED else ""
    text = f"""
name: suite
prices: {{kind: sample}}
lookback: {LOOKBACK}
backtest: {{start: 2004-01-01}}
models: [{before}{MODELS[name]}]
seed: {seed}
"""
    return parse_job(text, "suite")


def build(name: str, seed: int = 3) -> Any:
    job = job_of(name, seed)
    return job.build(job.models[-1].name)


WARM_UP = LOOKBACK + 21


def panel(
    change_after: np.datetime64 | None = None, symbols: tuple[str, ...] = ("AAA", "BBB", "CCC")
) -> Panel:
    """Three GARCH series; optionally with every price after a session changed."""
    frames = {symbol: prices(garch(700, seed)) for seed, symbol in enumerate(symbols)}
    if change_after is not None:
        noise = np.random.default_rng(99)
        for frame in frames.values():
            later = frame.index.to_numpy().astype("datetime64[D]") > change_after
            frame.loc[later, "close"] *= np.exp(noise.standard_normal(int(later.sum())))
    return Panel.from_prices(frames)


WHOLE = panel()
REFIT = WHOLE.calendar[500]
LAST = WHOLE.calendar[560]


def learnable(of: Panel, until: np.datetime64 = REFIT) -> Windows:
    return fit_windows(of, until, HORIZONS, WARM_UP)


def origins(of: Panel) -> Windows:
    return origin_windows(of, REFIT, LAST, HORIZONS, WARM_UP)


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    return {}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, fitted: dict[str, Any]) -> tuple[str, Any]:
    name = request.param
    if name not in fitted:
        fitted[name] = build(name).fit(learnable(WHOLE))
    return name, fitted[name]


def test_forecasts_do_not_see_the_future(model: tuple[str, Any]) -> None:
    name, fitted = model
    changed = panel(change_after=LAST)
    assert not np.array_equal(changed.returns, WHOLE.returns)
    again = build(name).fit(learnable(changed))
    assert np.array_equal(again.predict(origins(changed)).values, fitted.predict(origins(WHOLE)).values)


def test_a_change_before_the_origin_is_seen(model: tuple[str, Any]) -> None:
    """The suite can fail: the same change at an earlier session reaches the forecast."""
    name, fitted = model
    changed = panel(change_after=WHOLE.calendar[400])
    again = build(name).fit(learnable(changed))
    assert not np.array_equal(again.predict(origins(changed)).values, fitted.predict(origins(WHOLE)).values)


def test_a_rerun_gives_the_same_bits(model: tuple[str, Any]) -> None:
    name, fitted = model
    np.random.default_rng().standard_normal(3)
    again = build(name).fit(learnable(WHOLE))
    assert np.array_equal(again.predict(origins(WHOLE)).values, fitted.predict(origins(WHOLE)).values)


def test_a_forecast_does_not_depend_on_its_batch(model: tuple[str, Any]) -> None:
    _, fitted = model
    windows = origins(WHOLE)
    every = fitted.predict(windows).values
    order = np.random.default_rng(0).permutation(len(windows))
    np.testing.assert_allclose(fitted.predict(windows.take(order)).values, every[order], rtol=1e-6, atol=1e-9)
    alone = np.flatnonzero(windows.symbols == "BBB")[:7]
    np.testing.assert_allclose(fitted.predict(windows.take(alone)).values, every[alone], rtol=1e-6, atol=1e-9)
    assert len(fitted.predict(windows.take(alone[:0]))) == 0


def test_a_forecast_does_not_depend_on_other_symbols_at_hand(model: tuple[str, Any]) -> None:
    _, fitted = model
    alone = WHOLE.select(("BBB",))
    windows = origins(WHOLE)
    np.testing.assert_allclose(
        fitted.predict(origins(alone)).values,
        fitted.predict(windows).values[windows.symbols == "BBB"],
        rtol=1e-6,
        atol=1e-9,
    )


def test_a_saved_model_predicts_the_same_bits(model: tuple[str, Any], tmp_path: Path) -> None:
    name, fitted = model
    fitted.save(tmp_path)
    assert not list(tmp_path.glob("**/*.pkl"))
    again = build(name).load(tmp_path)
    assert np.array_equal(again.predict(origins(WHOLE)).values, fitted.predict(origins(WHOLE)).values)
    assert again.parameters == fitted.parameters > 0


def test_quantiles_are_finite_and_ordered_on_awkward_prices(model: tuple[str, Any]) -> None:
    """Flat runs, a 40% jump, a series that hardly moves: no NaN, no crossing (the class refuses both)."""
    name, _ = model
    returns = garch(700, 5)
    returns[200:300] = 0.0
    returns[450] = np.log(0.6)
    returns[505:530] = 0.0
    awkward = Panel.from_prices({"JUMP": prices(returns), "STILL": prices(garch(700, 6) * 1e-6)})
    forecast = build(name).fit(learnable(awkward)).predict(origins(awkward))
    assert forecast.values.shape == (len(origins(awkward)), 3, 23)


def test_before_fit_a_model_says_so(model: tuple[str, Any], tmp_path: Path) -> None:
    name, _ = model
    with pytest.raises(NotFittedError, match="fit"):
        build(name).predict(origins(WHOLE))
    with pytest.raises(NotFittedError, match="fit"):
        build(name).save(tmp_path)


def test_fitting_needs_known_outcomes(model: tuple[str, Any]) -> None:
    name, _ = model
    with pytest.raises(ParameterError, match="at least one origin"):
        build(name).fit(learnable(WHOLE).take(np.array([], dtype=int)))
    unknown = Windows(WHOLE, WHOLE.last_rows(), HORIZONS)
    with pytest.raises(ParameterError, match="outcomes are known"):
        build(name).fit(unknown)


def test_a_new_symbol_takes_the_pooled_quantiles(model: tuple[str, Any]) -> None:
    _, fitted = model
    stranger = panel(symbols=("NEW",))
    assert np.isfinite(fitted.predict(origins(stranger)).values).all()


@pytest.mark.parametrize("name", [*LIGHT, "convolution_row", "convolution_variance", "mlp", "by_symbol"])
def test_models_of_all_symbols_learn_from_some_and_forecast_all(name: str) -> None:
    of = panel(symbols=("AAA", "BBB", "CCC", "DDD", "EEE"))
    some = replace(of, learn_from=2)
    drawn = some.pooled.symbols
    assert len(drawn) == 2
    fitted = build(name).fit(learnable(some))
    # Those that are learned from have the forecasts of a model that has nothing else to learn from, unless
    # its thresholds move with all symbols.
    few = origins(of.select(drawn))
    alone = build(name).fit(learnable(of.select(drawn)))
    if name != "by_symbol":
        np.testing.assert_array_equal(fitted.predict(few).values, alone.predict(few).values)
    # What is estimated symbol by symbol is that of all.
    others = sorted(set(of.symbols) - set(drawn))
    rest = origins(of.select(others))
    whole = build(name).fit(learnable(of))
    same = np.array_equal(fitted.predict(rest).values, whole.predict(rest).values)
    assert same == (name in BY_SYMBOL)
    assert np.isfinite(fitted.predict(rest).values).all()
    for inside in (fitted, getattr(getattr(fitted, "target", None), "linear", None)):
        garch = getattr(inside, "garch", inside)
        if hasattr(garch, "estimates"):
            assert garch.symbols == of.symbols
            assert np.isfinite(garch.estimates).all()


def test_a_renewal_learns_from_the_same_symbols(fitted: dict[str, Any]) -> None:
    of = replace(panel(symbols=("AAA", "BBB", "CCC", "DDD", "EEE")), learn_from=2)
    first = build("convolution_row").fit(learnable(of))
    again = build("convolution_row").renew(first, learnable(of, LAST))
    alone = of.select(of.pooled.symbols)
    other = build("convolution_row").renew(
        build("convolution_row").fit(learnable(alone)), learnable(alone, LAST)
    )
    few = origins(alone)
    np.testing.assert_array_equal(again.predict(few).values, other.predict(few).values)
    assert again.target.linear.garch.symbols == of.symbols


def test_the_seed_matters_where_chance_does() -> None:
    first = build("convolution_row", seed=1).fit(learnable(WHOLE)).predict(origins(WHOLE))
    second = build("convolution_row", seed=2).fit(learnable(WHOLE)).predict(origins(WHOLE))
    assert not np.array_equal(first.values, second.values)


def test_the_control_has_as_many_parameters() -> None:
    counts = {
        name: build(name).fit(learnable(WHOLE)).parameters
        for name in ("convolution_replicate", "convolution_control")
    }
    assert counts["convolution_replicate"] == counts["convolution_control"]


@pytest.mark.parametrize(
    "name",
    ["convolution_lagged", "convolution_ewma", "mlp", "convolution_variance", "convolution_point"],
)
def test_the_network_starts_at_its_anchor(name: str) -> None:
    """Before training, s is zero: the scale is that of the linear model, or the EWMA one, and no mean."""
    untrained, windows = build(name), origins(WHOLE)
    untrained.target.fit(learnable(WHOLE))
    count = untrained.network(len(HORIZONS)).features
    untrained.statistics = np.stack([np.zeros(count), np.ones(count)]).astype(np.float32)
    untrained.weights = untrained.trainer(len(HORIZONS)).function.first_weights(0)[None]
    if name == "convolution_ewma":
        anchors = windows.scales
    elif name == "convolution_variance":
        anchors = np.sqrt(build("qlike_glm").fit(learnable(WHOLE)).variance(windows))
    else:
        anchors = build("lin").fit(learnable(WHOLE)).scales(windows)
    location, scale = untrained.location_and_scale(windows)
    np.testing.assert_allclose(scale, anchors, rtol=1e-6)
    np.testing.assert_allclose(location, 0.0, atol=1e-12)


@pytest.mark.parametrize("name", [f"convolution_{name}" for name in STRATEGIES if name != "spectrogram"])
def test_what_the_kernel_sees_is_what_the_first_layer_does(name: str, fitted: dict[str, Any]) -> None:
    """An impulse in one channel, so many sessions ago, moves the first layer by the weight of that lag."""
    from forecaster.models.convolution.inputs import CHANNELS
    from forecaster.models.convolution.layers import KernelConvolution, KernelStack

    fitted[name] = model = fitted.get(name) or build(name).fit(learnable(WHOLE))
    weights = model.lag_weights()
    assert list(weights.columns) == ["channel", "filter", "lag", "weight"]
    assert weights["lag"].min() == 0
    first = model.layers[0]
    linear = KernelConvolution(first.filters, first.kernel, dilation=first.dilation)
    alone = KernelStack(model.strategy, LOOKBACK, [linear], head="last")
    alone.build((None, alone.sessions, len(CHANNELS)))
    trained = model.trainer(len(HORIZONS)).function.named(model.weights[0])
    alone.set_weights([trained["stack/kernel_0"], np.zeros_like(trained["stack/bias_0"])])
    newest_row = -first.filters if name == "convolution_calendar_fold" else None
    for channel, lag in (("z", 0), ("abs_z", 2), ("log_volatility_ratio", 4)):
        impulse = np.zeros((1, alone.sessions, len(CHANNELS)), dtype=np.float32)
        impulse[0, -1 - lag, CHANNELS.index(channel)] = 1.0
        moved = np.asarray(alone(impulse))[0]
        moved = moved[newest_row:] if newest_row else moved
        rows = weights[(weights["channel"] == channel) & (weights["lag"] == lag)].sort_values("filter")
        np.testing.assert_allclose(rows["weight"], moved[: len(rows)], atol=1e-6)


def renewed(of: Panel, first: Any, name: str = "convolution_row") -> Any:
    """A model that was trained on an evening and renewed 40 sessions later."""
    return build(name).renew(first, learnable(of, WHOLE.calendar[540]))


@pytest.mark.parametrize("name", ["convolution_row", "convolution_variance", "convolution_point"])
def test_a_renewal_keeps_the_network_and_takes_what_happened_since(name: str, fitted: dict[str, Any]) -> None:
    fitted[name] = first = fitted.get(name) or build(name).fit(learnable(WHOLE))
    second = renewed(WHOLE, first, name)
    assert second.weights is first.weights
    windows = learnable(WHOLE, WHOLE.calendar[540])
    assert np.array_equal(
        second.target.linear.coefficients,
        build(name).target.linear.fit(windows).coefficients,  # estimated anew
    )
    # Outcomes up to the training are those of the training; later ones are over what was forecast then.
    rows, location, scale = second._past.rows, second._past.location, second._past.scale
    later = ~np.isin(rows, first._past.rows)
    assert 0 < later.sum() <= 3 * 40
    assert np.array_equal(scale[~later], first._past.scale)
    assert np.array_equal(location[~later], first._past.location)
    then = first.location_and_scale(Windows(WHOLE, rows[later], HORIZONS))
    np.testing.assert_allclose((location[later], scale[later]), then, rtol=1e-6)
    place = second.target.settled(location)
    standardised = (Windows(WHOLE, rows, HORIZONS).targets - place) / scale
    np.testing.assert_allclose(
        second.residuals.values[0], np.quantile(standardised, LEVELS, axis=0).T, rtol=1e-12
    )


def test_a_renewal_does_not_see_the_future(fitted: dict[str, Any]) -> None:
    name = "convolution_row"
    fitted[name] = first = fitted.get(name) or build(name).fit(learnable(WHOLE))
    changed = panel(change_after=LAST)
    again = renewed(changed, build(name).fit(learnable(changed)))
    expected = renewed(WHOLE, first).predict(origins(WHOLE)).values
    assert np.array_equal(again.predict(origins(changed)).values, expected)
    seen = panel(change_after=WHOLE.calendar[520])
    moved = renewed(seen, build(name).fit(learnable(seen)))
    at_the_renewal = origins(WHOLE).sessions <= WHOLE.calendar[520]
    assert not np.array_equal(moved.predict(origins(seen)).values[at_the_renewal], expected[at_the_renewal])


def test_a_renewal_of_something_else_is_refused(fitted: dict[str, Any], tmp_path: Path) -> None:
    name = "convolution_row"
    fitted[name] = first = fitted.get(name) or build(name).fit(learnable(WHOLE))
    with pytest.raises(
        ParameterError, match="a renewal is made from a convolution of the same network, target"
    ):
        renewed(WHOLE, build("convolution_ewma"))
    with pytest.raises(NotFittedError, match="a renewal is made from a fitted model"):
        renewed(WHOLE, build(name))
    with pytest.raises(ParameterError, match="Received: another panel, or a model that was loaded"):
        renewed(panel(), first)
    first.save(tmp_path)
    with pytest.raises(ParameterError, match="fit it afresh"):
        renewed(WHOLE, build(name).load(tmp_path))


def test_residuals_are_of_networks_that_have_not_seen_the_outcome(fitted: dict[str, Any]) -> None:
    """A network that is fitted on all origins far from a block gives the scales of the block's residuals."""
    name = "convolution_row"
    fitted[name] = model = fitted.get(name) or build(name).fit(learnable(WHOLE))
    train = learnable(WHOLE)
    assert np.array_equal(model._past.rows, train.rows)
    sessions = np.unique(train.sessions)
    quarter = np.array_split(sessions, 4)[1]
    inside = np.isin(train.sessions, quarter)
    ends = WHOLE.sessions[train.rows + max(HORIZONS)]
    overlapping = (ends > quarter[0]) & (train.sessions <= WHOLE.sessions[train.rows[inside] + 21].max())
    far = ~overlapping & ~inside
    reach = np.searchsorted(sessions, train.sessions)
    first, last = np.searchsorted(sessions, quarter[[0, -1]])
    used = (reach < first - 42) | (reach > last + 42)
    assert (far | ~used).all(), "no outcome that is trained on overlaps one of the block"
    target, (features, anchors) = model.target, model.target.features_and_anchors(train)
    observed = target.observed(train, anchors)
    data = model._data(train, features, observed, model._ages(train))
    alone = model._trained(train.take(used), data, target.constants(observed), member=1 + 1)
    scales = anchors[inside] * np.exp(model._outputs(train.take(inside), data, [alone]))
    np.testing.assert_allclose(model._past.scale[inside], scales, rtol=1e-5)
    standardised = train.targets / model._past.scale
    np.testing.assert_allclose(
        model.residuals.values[0], np.quantile(standardised, LEVELS, axis=0).T, rtol=1e-12
    )


def test_a_frequency_response_follows_from_the_lags(fitted: dict[str, Any]) -> None:
    name = "convolution_lagged"
    fitted[name] = model = fitted.get(name) or build(name).fit(learnable(WHOLE))
    weights = model.lag_weights().query("channel == 'z' and filter == 3")
    responses = model.frequency_responses().query("channel == 'z' and filter == 3")
    period = responses["period"].iloc[10]
    expected = np.sum(weights["weight"] * np.exp(-2j * np.pi * weights["lag"] / period))
    assert responses["magnitude"].iloc[10] == pytest.approx(abs(expected), rel=1e-9)
    assert responses["phase"].iloc[10] == pytest.approx(np.angle(expected), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "text"), [("convolution_spectrogram", "Spectrogram"), ("mlp", "a network without convolutions")]
)
def test_what_has_no_kernel_on_the_series(name: str, text: str, fitted: dict[str, Any]) -> None:
    fitted[name] = model = fitted.get(name) or build(name).fit(learnable(WHOLE))
    with pytest.raises(ParameterError, match=text):
        model.lag_weights()


def test_loading_a_model_trusts_no_other_type(tmp_path: Path) -> None:
    import skops.io

    ridge = build("ridge").fit(learnable(WHOLE))
    ridge.save(tmp_path)
    skops.io.dump({"evil": subprocess.Popen}, tmp_path / "estimator.skops")
    with pytest.raises(Exception, match="Untrusted"):
        build("ridge").load(tmp_path)


def test_starting_tensorflow_is_silent() -> None:
    code = "import forecaster.models.convolution.model, keras\nkeras.layers.Dense(2)(keras.ops.ones((1, 3)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout == ""
