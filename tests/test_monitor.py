"""The monitoring of an evening, on a real ledger: what it records, and what it switches on."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from forecaster.job import Job, parse_job
from forecaster.ledger import Ledger
from forecaster.monitoring import Check, promise_table, remedy
from forecaster.quantiles import LEVELS, quantile_columns
from forecaster.windows import Panel
from pipelines.loading import load_data
from pipelines.monitor import SAMPLED, Watched, features, monitor_evening, read_promise

MODELS = ("cnn", "ewma")
SYMBOLS = tuple("ABCDEFGH")
NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


def job_of(more: str = "") -> Job:
    return parse_job(
        "name: us\nprices: {kind: sample}\nhorizons: [1]\nbacktest: {start: 2008-01-01}\n"
        f"models: [{{kind: historical}}]\n{more}",
        "job.yaml",
    )


class Clock:
    def __init__(self) -> None:
        self.now = datetime.datetime(2024, 1, 2, 22, tzinfo=datetime.UTC)

    def __call__(self) -> datetime.datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.db", clock=clock) as opened:
        yield opened


Z = np.array(
    [float(pd.Series(np.random.default_rng(0).standard_normal(200_000)).quantile(p)) for p in LEVELS]
)


def issue(ledger: Ledger, sessions: pd.DatetimeIndex, scale: float = 1.0, seed: int = 1) -> None:
    """Right forecasts of a span by two models; with a scale, outcomes are that much larger."""
    generator = np.random.default_rng(seed)
    origins = sessions[:-1]
    run = ledger.start_run("us", job_hash="h", yaml="name: us", as_of=origins[-1].date())
    keys = [(model, symbol, origin) for model in MODELS for symbol in SYMBOLS for origin in origins]
    rows = pd.DataFrame(keys, columns=["model", "symbol", "origin"])
    versions = rows["model"].map({"cnn": "1", "ewma": "2"})
    rows = rows.assign(model_version=versions, horizon=1, close=100.0, late=False)
    rows[list(quantile_columns())] = 0.01 * Z
    ledger.issue(run, rows, data_version="d", known_at=None, code_version="c")
    outcomes = rows.loc[rows["model"] == "cnn", ["symbol", "origin", "horizon"]]
    following = dict(zip(origins, sessions[1:], strict=True))
    size = 0.01 * scale * generator.standard_normal(len(outcomes))
    outcomes = outcomes.assign(target=outcomes["origin"].map(following), y=size)
    ledger.record_outcomes("us", outcomes, data_version="d")


WATCHED = Watched("cnn", "1", "ewma")


def states(ledger: Ledger, as_of: datetime.date) -> dict[str, str]:
    table = ledger.alerts("us")
    mine = table[table["as_of"] == str(as_of)]
    return dict(zip(mine["check"], mine["state"], strict=True))


def evening(
    ledger: Ledger, sessions: pd.DatetimeIndex, job: Job | None = None, watched: Watched = WATCHED
) -> str:
    """Check the last session; give the reason of the coverage."""
    as_of = sessions[-2].date()
    checks = monitor_evening(job or job_of(), ledger, as_of, watched, None, NOW)
    return next(check.reason for check in checks if check.name == "coverage")


def sessions_from(first: str, count: int) -> pd.DatetimeIndex:
    return pd.bdate_range(first, periods=count)


def test_a_sound_model_is_well_and_all_of_it_is_recorded(ledger: Ledger) -> None:
    sessions = sessions_from("2024-01-02", 40)
    issue(ledger, sessions)
    assert evening(ledger, sessions).startswith("cnn: h=1: ")
    assert states(ledger, sessions[-2].date()) == {"coverage": "ok", "crps": "ok", "runtime": "ok"}
    assert ledger.model_events("us").empty


def test_a_broken_promise_is_calibrated_then_replaced_and_each_is_recorded_once(ledger: Ledger) -> None:
    ledger.record_model_event(
        "us", as_of=datetime.date(2024, 1, 1), event="promotion", model="cnn", version="1", reason="better"
    )
    first = sessions_from("2024-01-02", 24)
    issue(ledger, first, scale=3.0)
    assert evening(ledger, first).endswith("cnn is calibrated adaptively from the next evening on")
    assert states(ledger, first[-2].date())["coverage"] == "fail"
    now = remedy(ledger.model_events("us"))
    assert (now.calibrate, now.fallback, now.since) == (True, None, first[-2].date())
    # What had been issued before counts no more, and a repetition of the evening records nothing new.
    assert "no outcome is known yet" in evening(ledger, first)
    assert len(ledger.model_events("us")) == 2

    second = sessions_from(str(first[-1].date()), 24)
    issue(ledger, second, scale=3.0, seed=2)
    assert evening(ledger, second).endswith("ewma takes its place from the next evening on")
    events = ledger.model_events("us")
    assert events["event"].tolist() == ["promotion", "calibration", "fallback"]
    assert events["model"].tolist() == ["cnn", "cnn", "ewma"]
    assert "% held" in events["reason"].iloc[-1]

    third = sessions_from(str(second[-1].date()), 24)
    issue(ledger, third, scale=3.0, seed=3)
    said = evening(ledger, third, watched=Watched("ewma", "2"))
    assert said.endswith("the fallback ewma is in use already: train, or promote, another model")
    assert len(ledger.model_events("us")) == 3

    ledger.record_model_event(
        "us", as_of=third[-2].date(), event="promotion", model="mlp", version="3", reason="better"
    )
    assert remedy(ledger.model_events("us")).fallback is None


def test_nothing_is_switched_on_where_the_job_says_so_or_nothing_is_there(ledger: Ledger) -> None:
    sessions = sessions_from("2024-01-02", 24)
    issue(ledger, sessions, scale=3.0)
    said = evening(ledger, sessions, job_of("monitoring: {remedies: false}"))
    assert said.endswith("nothing is done about it, as the job says")
    assert ledger.model_events("us").empty
    calibrated = {"event": "calibration", "model": "cnn", "version": "1", "reason": "x"}
    ledger.record_model_event("us", as_of=datetime.date(2024, 1, 1), **calibrated)
    alone = evening(ledger, sessions, watched=Watched("cnn", "1"))
    assert alone.endswith("it is calibrated already, and no baseline could take its place")


def test_late_forecasts_speak_neither_for_nor_against_a_model(ledger: Ledger, tmp_path: Path) -> None:
    sessions = sessions_from("2024-01-02", 3)
    run = ledger.start_run("us", job_hash="h", yaml="name: us", as_of=sessions[0].date())
    rows = pd.DataFrame({"model": "cnn", "model_version": "1", "symbol": SYMBOLS, "origin": sessions[0]})
    rows = rows.assign(horizon=1, close=100.0, late=True)
    rows[list(quantile_columns())] = 0.01 * Z
    ledger.issue(run, rows, data_version="d", known_at=None, code_version="c")
    assert evening(ledger, sessions) == "cnn: no outcome is known yet"


def test_without_a_model_only_the_rest_is_checked(ledger: Ledger) -> None:
    checks = monitor_evening(job_of(), ledger, datetime.date(2024, 1, 2), None, None, NOW)
    assert [(check.name, check.state) for check in checks] == [("coverage", "ok"), ("runtime", "ok")]
    assert checks[0].reason == (
        "no registered model was fitted by this evening, so that there is no promise to hold"
    )


def test_prices_of_an_evening_are_checked(ledger: Ledger, tmp_path: Path) -> None:
    job = parse_job(
        "name: us\nprices: {kind: sample}\nbacktest: {start: 2008-01-01}\nmodels: [{kind: historical}]\n"
        "calendars: {SP500: XNYS}\nminimum_coverage: 0.1\n",
        "job.yaml",
    )
    data = load_data(job, tmp_path, 50)
    last = data.prices.frames["SP500"].index[-1].date()
    # Days later: SP500 lacks sessions by its calendar; of the others only the prices tell, which end.
    as_of = last + datetime.timedelta(days=4)
    failures = {"WTI": "its last session is old"}
    checks = monitor_evening(job, ledger, as_of, None, data, NOW, failures)
    found = {check.name: check for check in checks}
    assert set(found) == {"coverage", "drift", "stale", "missing", "runtime"}
    assert found["stale"].state == "warn"
    assert "SP500" in found["stale"].reason
    assert found["missing"].reason == "1 of 3 symbols have no forecast: WTI; WTI: its last session is old"
    # A session that is not over is not missing.
    early = datetime.datetime.combine(last, datetime.time(23, 30), datetime.UTC)
    again = monitor_evening(job, ledger, as_of, None, data, early)
    assert "SP500" not in next(check for check in again if check.name == "stale").reason
    # A calendar that ends with the year of its last known holidays tells what it can, and fails no evening.
    bombay = job.model_copy(update={"calendars": {"SP500": "XBOM"}})
    later = datetime.date(2049, 12, 30)
    checks = monitor_evening(bombay, ledger, later, None, data, NOW.replace(year=2050))
    assert "SP500" in next(check for check in checks if check.name == "stale").reason


def test_time_of_steps_is_compared_with_other_evenings(ledger: Ledger, clock: Clock) -> None:
    for number, session in enumerate(sessions_from("2024-01-02", 7)):
        run = ledger.start_run("us", job_hash="h", yaml="name: us", as_of=session.date(), steps=("ingest",))
        with run.step("ingest", code_version="c"):
            clock.now += datetime.timedelta(seconds=200 if number == 6 else 20)
    checks = monitor_evening(job_of(), ledger, session.date(), None, None, NOW)
    assert checks[-1].reason == "ingest took 200 s, usually 20 s"
    # What had nothing to do took its time all the same.
    with ledger.start_run("us", job_hash="h", yaml="name: us", as_of=session.date()).step(
        "train", code_version="c"
    ) as step:
        assert step is not None
        clock.now += datetime.timedelta(seconds=1000)
        step.skip("not due")
    checks = monitor_evening(job_of(), ledger, session.date(), None, None, NOW)
    assert checks[-1].reason == "ingest took 200 s, usually 20 s"
    # An evening that is looked at later is compared with those before it, and with none after it.
    third = sessions_from("2024-01-02", 3)[-1].date()
    assert monitor_evening(job_of(), ledger, third, None, None, NOW)[-1].reason == "the steps took 20 s"
    limited = job_of("monitoring: {longest_seconds: 1199}")
    checks = monitor_evening(limited, ledger, session.date(), None, None, NOW)
    assert checks[-1] == Check("runtime", "fail", "the steps took 1200 s, more than the 1199 s allowed")


def test_features_look_at_no_later_session(tmp_path: Path) -> None:
    data = load_data(job_of(), tmp_path, 50)
    whole = features(data.panel)
    until = np.datetime64("2015-06-30")
    cut = {symbol: frame[frame.index <= until] for symbol, frame in data.prices.frames.items()}
    before = features(Panel.from_prices(cut))
    for name, values in before.items():
        dates = data.panel.calendar
        shared = whole[name][dates[-len(whole[name]) :] <= until]
        np.testing.assert_array_equal(shared, values[-len(shared) :])
        assert np.isfinite(values).any()


def test_features_of_many_symbols_are_those_of_some() -> None:
    sessions = pd.bdate_range("2020-01-01", periods=60).astype("datetime64[s]")
    generator = np.random.default_rng(1)
    prices = {
        f"S{number:04}": pd.DataFrame(
            {"close": np.exp(np.cumsum(generator.standard_normal(60))), "dividend": 0.0, "split": 1.0},
            sessions,
        )
        for number in range(SAMPLED + 300)
    }
    whole = features(Panel.from_prices(prices))
    chosen = [list(prices)[number] for number in (0, -1)]
    few = features(Panel.from_prices({symbol: prices[symbol] for symbol in chosen}))
    for name, values in whole.items():
        assert values.shape == (59, SAMPLED)
        np.testing.assert_array_equal(values[:, [0, -1]], few[name])


def test_a_promise_is_read_with_the_names_that_it_was_written_with(tmp_path: Path) -> None:
    daily = pd.DataFrame(
        {
            "model": np.repeat(["NA", "null"], 100),
            "horizon": 1,
            "origin": np.tile(pd.bdate_range("2020-01-01", periods=100), 2),
            "crps": 1.0,
            "coverage_80": 0.8,
            "coverage_95": 0.95,
        }
    )
    table = promise_table(daily)
    table.to_csv(tmp_path / "promise.csv", index=False)
    again = read_promise(tmp_path)
    assert again is not None
    pd.testing.assert_frame_equal(again, table, check_dtype=False)
    assert read_promise(tmp_path / "absent") is None
    assert read_promise(None) is None
