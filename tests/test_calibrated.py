"""A model behind its calibration: one forecaster, whose forecasts follow from the past alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from numpy.typing import NDArray
from planted import garch, prices

from forecaster.calibration import Adaptive, ConformalQuantiles, Control, Rule, Split
from forecaster.errors import JobError, NotFittedError, ParameterError
from forecaster.job import Job, parse_job
from forecaster.models.base import Forecaster
from forecaster.models.calibrated import Calibrated
from forecaster.models.combination import CombinationForecaster
from forecaster.models.econometric import EwmaForecaster
from forecaster.models.naive import HistoricalForecaster
from forecaster.quantiles import QuantileForecast, average
from forecaster.walkforward import FoldForecast, backtest, fit_windows, folds
from forecaster.windows import Panel, Windows

HORIZONS = (1, 5)
WARM_UP = 30
RULES: list[Rule] = [
    Split(refresh=5),
    Adaptive(refresh=5, rate=0.02),
    Control(rate=0.2),
    Control(rate=0.2, by_symbol=True, outer=0.1),
]
NAMES = ["split", "adaptive", "control", "by symbol"]


class Narrow:
    """EWMA quantiles at a share of their size: a model that calibration has something to mend in."""

    def __init__(self, share: float = 0.6) -> None:
        self.inside, self.share = EwmaForecaster(0.94), share

    @property
    def parameters(self) -> int:
        return self.inside.parameters

    def fit(self, windows: Windows) -> Self:
        self.inside.fit(windows)
        return self

    def predict(self, windows: Windows) -> QuantileForecast:
        return QuantileForecast(self.share * self.inside.predict(windows).values, windows.horizons)

    def save(self, folder: Path) -> None:
        self.inside.save(folder)

    def load(self, folder: Path) -> Self:
        self.inside.load(folder)
        return self


@pytest.fixture(scope="module")
def panel() -> Panel:
    # One symbol starts later, and one ends earlier.
    frames = {f"S{seed}": prices(garch(700, seed)) for seed in range(3)}
    return Panel.from_prices(
        {"S0": frames["S0"], "S1": frames["S1"].iloc[150:], "S2": frames["S2"].iloc[:660]}
    )


def every_origin(panel: Panel, first: int = 0) -> Windows:
    chosen = (panel.positions >= WARM_UP - 1) & (panel.sessions >= panel.calendar[first])
    return Windows(panel, np.flatnonzero(chosen), HORIZONS)


def fitted(panel: Panel, rule: Rule, evening: int = 400) -> Calibrated:
    windows = fit_windows(panel, panel.calendar[evening], HORIZONS, WARM_UP)
    return Calibrated(Narrow(), rule, WARM_UP).fit(windows)


def backtested(
    panel: Panel, rule: Rule, refit_every: int = 100
) -> tuple[list[FoldForecast], NDArray[np.int64], NDArray[np.float64]]:
    """Results, and rows and values of all folds in one order."""
    over = folds(panel, HORIZONS, panel.calendar[400], None, refit_every, WARM_UP)
    results = list(backtest({"narrow": Narrow}, over, None, {"narrow": rule}, WARM_UP))
    rows = np.concatenate([result.fold.test.rows for result in results])
    values = np.concatenate([result.forecast.values for result in results])
    return results, rows, values


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_a_forecast_does_not_depend_on_which_origins_are_asked_for(panel: Panel, rule: Rule) -> None:
    model, windows = fitted(panel, rule), every_origin(panel, 380)
    whole = model.predict(windows)
    # Some before the fit, some twice, in any order, and one alone.
    chosen = np.random.default_rng(1).integers(0, len(windows), 200)
    for some in (chosen, np.array([len(windows) - 1]), np.array([0])):
        assert np.array_equal(model.predict(windows.take(some)).values, whole.values[some])
    assert len(model.predict(windows.take(chosen[:0]))) == 0
    late = windows.sessions > panel.calendar[500]
    assert not np.array_equal(whole.values[late], model.model.predict(windows).values[late])


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_whatever_comes_after_an_origin_leaves_its_bits(panel: Panel, rule: Rule) -> None:
    cut = panel.calendar[550]
    changed = dataclasses.replace(panel, returns=np.where(panel.sessions > cut, 0.3, panel.returns))
    _, rows, values = backtested(panel, rule)
    _, again_rows, again = backtested(changed, rule)
    assert np.array_equal(rows, again_rows)
    before = panel.sessions[rows] <= cut
    assert np.array_equal(values[before], again[before])
    assert not np.array_equal(values[~before], again[~before])
    # Nor does it matter that there is no later session at all.
    short = panel.sessions <= cut
    offsets = np.concatenate([[0], np.cumsum([short[part].sum() for part in panel.parts])])
    ended = dataclasses.replace(
        panel,
        offsets=offsets.astype(np.int64),
        sessions=panel.sessions[short],
        closes=panel.closes[short],
        returns=panel.returns[short],
    )
    _, _, of_ended = backtested(ended, rule)
    assert np.array_equal(values[before], of_ended)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_a_backtest_walks_over_all_folds(panel: Panel, rule: Rule) -> None:
    results, _, values = backtested(panel, rule)
    # The oracle: one layer over the training origins as the first fit forecasts them, and then over each
    # fold as its fit does. Outcomes of the days before a refit are those of the newer fit's forecasts.
    layer = ConformalQuantiles(HORIZONS, rule, panel.symbols)
    expected = []
    evenings = [*(result.fold.refit for result in results), panel.calendar[-1] + 1]
    for number, result in enumerate(results):
        fitted_model = result.fitted
        assert isinstance(fitted_model, Narrow)
        assert result.layer is not None
        assert result.layer.layer is not None
        assert result.layer.layer.until == result.fold.refit
        first = panel.calendar[0] if number == 0 else evenings[number] - 15
        chosen = (panel.sessions >= first) & (panel.sessions < evenings[number + 1])
        mine = Windows(panel, np.flatnonzero(chosen & (panel.positions >= WARM_UP - 1)), HORIZONS)
        moved = layer.walk(mine, fitted_model.predict(mine))
        wanted = np.searchsorted(mine.rows, result.fold.test.rows)
        expected.append(moved.values[wanted])
        # The last evening before a refit is walked by the old model, the outcomes of the evening too.
        if number + 1 < len(results):
            evening = Windows(
                panel,
                np.flatnonzero(
                    (panel.sessions >= evenings[number + 1] - 15)
                    & (panel.sessions <= evenings[number + 1])
                    & (panel.positions >= WARM_UP - 1)
                ),
                HORIZONS,
            )
            layer.walk(evening, fitted_model.predict(evening))
    np.testing.assert_allclose(values, np.concatenate(expected), rtol=1e-12, atol=1e-15)


def test_a_model_that_is_too_narrow_comes_to_cover(panel: Panel) -> None:
    _, rows, values = backtested(panel, Control(rate=0.1))
    windows = Windows(panel, rows, HORIZONS)
    raw = np.concatenate(
        [
            part.forecast.values
            for part in backtest(
                {"narrow": Narrow}, folds(panel, HORIZONS, panel.calendar[400], None, 100, WARM_UP)
            )
        ]
    )
    y = windows.targets[:, 0]
    known = np.isfinite(y)
    inside = []
    for quantiles in (raw, values):
        low, high = QuantileForecast(quantiles, HORIZONS).interval(0.8)
        inside.append(((low[:, 0] <= y) & (y <= high[:, 0]))[known].mean())
    assert inside[0] < 0.65
    assert inside[1] == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_a_saved_model_makes_the_same_bits(panel: Panel, rule: Rule, tmp_path: Path) -> None:
    model = fitted(panel, rule)
    model.save(tmp_path)
    loaded = Calibrated(Narrow(), rule, WARM_UP).load(tmp_path)
    windows = every_origin(panel, 390)
    assert np.array_equal(model.predict(windows).values, loaded.predict(windows).values)
    assert loaded.parameters == model.parameters > 0
    # And goes on to the next fit alike.
    later = fit_windows(panel, panel.calendar[600], HORIZONS, WARM_UP)
    goes_on, too = (
        Calibrated(Narrow(), rule, WARM_UP).start_from(one).fit(later).predict(windows).values
        for one in (model, loaded)
    )
    assert np.array_equal(goes_on, too)
    afresh = Calibrated(Narrow(), rule, WARM_UP).fit(later)
    assert not np.array_equal(afresh.predict(windows).values, goes_on)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_a_symbol_may_be_forecast_without_the_others(panel: Panel, rule: Rule) -> None:
    """The others still teach, as long as their prices are at hand."""
    model, windows = fitted(panel, rule), every_origin(panel, 390)
    whole = model.predict(windows)
    for symbol in panel.symbols:
        alone = every_origin(panel.select({symbol}), 0)
        alone = alone.take(alone.sessions >= panel.calendar[390])
        mine = windows.symbols == symbol
        np.testing.assert_allclose(model.predict(alone).values, whole.values[mine], rtol=1e-9, atol=1e-12)


def test_a_symbol_that_came_later_is_forecast_too(panel: Panel) -> None:
    known = panel.select({"S0", "S2"})
    for rule in RULES:
        model = fitted(known, rule)
        windows = every_origin(panel, 500)
        new = windows.symbols == "S1"
        values = model.predict(windows).values
        raw = model.model.predict(windows).values
        assert np.array_equal(values[new], raw[new]) == rule.by_symbol
        expected = model.predict(every_origin(known, 500)).values
        np.testing.assert_allclose(values[~new], expected, rtol=1e-9, atol=1e-12)


def test_the_blocks_of_a_long_way_change_no_bit(panel: Panel) -> None:
    windows = every_origin(panel, 390)
    model = fitted(panel, Control(rate=0.2))
    whole = model.predict(windows)
    model.block = 40
    assert np.array_equal(model.predict(windows).values, whole.values)


def test_a_champion_is_calibrated_afterwards_without_a_fit(panel: Panel) -> None:
    """As on the evening on which its coverage breaks."""
    windows = fit_windows(panel, panel.calendar[400], HORIZONS, WARM_UP)
    champion = Narrow().fit(windows)
    late = every_origin(panel, 600)
    wrapped = Calibrated(champion, Adaptive(), WARM_UP).begin(windows)
    again = Calibrated(Narrow(), Adaptive(), WARM_UP).fit(windows)
    assert np.array_equal(wrapped.predict(late).values, again.predict(late).values)


@pytest.mark.parametrize("apart", [False, True], ids=["one close", "two closes"])
def test_a_combination_averages_its_members_as_calibrated(panel: Panel, apart: bool) -> None:
    if apart:
        hours = np.where(panel.series == 0, np.timedelta64(6, "h"), np.timedelta64(21, "h"))
        panel = dataclasses.replace(panel, closings=panel.sessions + hours)
    over = folds(panel, HORIZONS, panel.calendar[400], None, 150, WARM_UP)
    rule = Control(rate=0.2)
    models: dict[str, Callable[[], Forecaster]] = {"narrow": Narrow, "past": HistoricalForecaster}
    combinations = {"mean": ["narrow", "past"], "both": ["narrow", "past"]}
    results = list(backtest(models, over, combinations, {"narrow": rule, "both": rule}, WARM_UP))
    of = {(result.model, result.fold.number): result for result in results}
    earlier: Calibrated | None = None
    for fold in over:
        mean = average([of["narrow", fold.number].forecast, of["past", fold.number].forecast])
        assert np.array_equal(of["mean", fold.number].forecast.values, mean.values)
        # The oracle: the models themselves, fitted and carried on as a nightly training does.
        member = Calibrated(Narrow(), rule, WARM_UP)
        whole = Calibrated(
            CombinationForecaster({"narrow": member, "past": HistoricalForecaster()}), rule, WARM_UP
        )
        if earlier is not None:
            assert isinstance(earlier.model, CombinationForecaster)
            member.start_from(earlier.model.members["narrow"])
            whole.start_from(earlier)
        issued = whole.fit(fold.train).predict(fold.test)
        assert np.array_equal(issued.values, of["both", fold.number].forecast.values)
        assert not np.array_equal(issued.values, mean.values)
        earlier = whole


def test_a_fit_goes_on_from_a_backtest_that_ended_earlier(panel: Panel) -> None:
    """The evenings between are walked by the newer model: that of the backtest is no longer there."""
    rule = Control(rate=0.2)
    over = folds(panel, HORIZONS, panel.calendar[400], panel.calendar[500], 60, WARM_UP)
    last = list(backtest({"narrow": Narrow}, over, None, {"narrow": rule}, WARM_UP))[-1]
    assert last.layer is not None
    later = fit_windows(panel, panel.calendar[600], HORIZONS, WARM_UP)
    went_on = Calibrated(Narrow(), rule, WARM_UP).start_from(last.layer).fit(later)
    assert went_on.layer is not None
    assert went_on.layer.until == panel.calendar[600]
    afresh = Calibrated(Narrow(), rule, WARM_UP).fit(later)
    windows = every_origin(panel, 600)
    assert not np.array_equal(went_on.predict(windows).values, afresh.predict(windows).values)
    with pytest.raises(NotFittedError, match="fitted elsewhere is not asked for other forecasts; fit it"):
        last.layer.predict(windows)


def test_refusals(panel: Panel, tmp_path: Path) -> None:
    rule = Control()
    model = Calibrated(Narrow(), rule, WARM_UP)
    with pytest.raises(
        NotFittedError, match="a model is fitted before it is calibrated or saved; call fit first"
    ):
        model.save(tmp_path)
    with pytest.raises(NotFittedError, match="call fit first"):
        Calibrated(Narrow(), rule, WARM_UP).start_from(model)
    with pytest.raises(
        ParameterError, match=r"go on from those of the same rule, Control.*\. Received: Split"
    ):
        model.start_from(fitted(panel, Split()))
    with pytest.raises(ParameterError, match=r"\. Received: Narrow"):
        model.start_from(Narrow())
    model.start_from(fitted(panel, rule, 500))
    with pytest.raises(ParameterError, match=r"an earlier fit at the horizons \(1, 5\)\. Received: one of"):
        model.fit(fit_windows(panel, panel.calendar[400], HORIZONS, WARM_UP))


# In a job

JOB = """
name: test
prices: {{kind: sample}}
backtest: {{start: 2010-01-01}}
models:
  - {{kind: ewma_fhs, calibration: {calibration}}}
  - {{kind: historical}}
  - {{kind: combination, members: [ewma_fhs, historical]}}
"""


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{kind: split, window: 500}", Split(window=500)),
        ("{kind: adaptive, rate: 0.01, outer: 0.1}", Adaptive(rate=0.01, outer=0.1)),
        ("{kind: control, by_symbol: true, outer: 0.1}", Control(by_symbol=True, outer=0.1)),
        ("{kind: control}", Control()),
    ],
)
def test_a_job_says_how_a_model_is_calibrated(text: str, rule: Rule) -> None:
    job = parse_job(JOB.format(calibration=text), "job.yaml")
    assert job.calibrations == {"ewma_fhs": rule}
    model = job.build("ewma_fhs")
    assert isinstance(model, Calibrated)
    assert (model.rule, model.warm_up) == (rule, job.warm_up)
    assert isinstance(job.build_plain("ewma_fhs"), EwmaForecaster)
    both = job.build("combination")
    assert isinstance(both, CombinationForecaster)
    assert isinstance(both.members["ewma_fhs"], Calibrated)
    assert Job.model_validate_json(job.model_dump_json()).hash == job.hash
    plain = parse_job(JOB.format(calibration=text).replace(f", calibration: {text}", ""), "job.yaml")
    assert plain.calibrations == {}
    assert plain.hash != job.hash


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{kind: spilt}", "unknown kind 'spilt'; did you mean 'split'?"),
        ("{kind: split, by_symbol: true}", "unknown key 'by_symbol'"),
        ("{kind: control, outer: 0.6}", "Input should be less than or equal to 0.5. Received: '0.6'"),
        ("{kind: control, rate: 0}", "Input should be greater than 0. Received: '0'"),
    ],
)
def test_a_wrong_calibration_is_said_in_one_line(text: str, message: str) -> None:
    with pytest.raises(JobError) as caught:
        parse_job(JOB.format(calibration=text), "job.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("job.yaml: models[0].calibration")
    assert "\n" not in str(caught.value)
