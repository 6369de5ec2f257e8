"""What is switched on when coverage breaks: issued, watched, reproduced, and ended by another model."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nights import DESK, evening_at

from forecaster.job import load_job
from forecaster.ledger import Ledger
from forecaster.quantiles import quantile_columns
from pipelines.daily import Night, daily_job
from pipelines.evening import open_ledger
from pipelines.reproduce import reproduce_forecast

DAYS = [datetime.date(2018, 6, day) for day in (1, 4, 5, 6)]


def do(path: Path, day: datetime.date) -> Night:
    return daily_job(load_job(path), path, day, lambda *_: None, clock=lambda: evening_at(day))


def record(ledger: Ledger, day: datetime.date, event: str, model: str) -> None:
    ledger.record_model_event("desk", as_of=day, event=event, model=model, version="1", reason="80% held 61%")


def issued(ledger: Ledger, day: datetime.date) -> pd.DataFrame:
    return ledger.forecasts("desk", start=day, end=day)


@pytest.mark.slow
def test_a_calibration_and_a_fallback_hold_from_the_next_evening_on(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(DESK.format(folder=tmp_path))
    job = load_job(path)
    do(path, DAYS[0])
    with open_ledger(job) as ledger:
        events = ledger.model_events("desk")
        (champion,) = events.loc[events["event"] == "promotion", "model"]
        plain = issued(ledger, DAYS[0])
        number = plain.loc[plain["model"] == champion, "model_version"].iloc[0]
        record(ledger, DAYS[0], "calibration", champion)
    do(path, DAYS[1])
    with open_ledger(job) as ledger:
        mine = issued(ledger, DAYS[1])
        calibrated = mine[mine["model"] == champion]
        assert set(calibrated["model_version"]) == {f"{number}+adaptive"}
        # Another forecast than the model's own, and a forecast all the same: made again to the bit.
        values = calibrated[list(quantile_columns())].to_numpy()
        assert (np.diff(values, axis=1) >= 0).all()
        for forecast_id in calibrated["id"]:
            again = reproduce_forecast(ledger, int(forecast_id), tmp_path)
            assert again.differing == ()
        status = ledger.status("desk")
        reason = status.loc[status["step"] == "forecast", "reason"].iloc[-1]
        assert f"{champion} is calibrated adaptively since {DAYS[0]}" in reason
        others = [name for name in ("historical", "ewma_fhs") if name != champion]
        record(ledger, DAYS[1], "fallback", others[0])
    do(path, DAYS[2])
    with open_ledger(job) as ledger:
        assert "+adaptive" not in "".join(issued(ledger, DAYS[2])["model_version"])
        record(ledger, DAYS[2], "recovery", champion)
    do(path, DAYS[3])
    with open_ledger(job) as ledger:
        last = issued(ledger, DAYS[3])
        assert set(last.loc[last["model"] == champion, "model_version"]) == {number}
        checks = ledger.alerts("desk")
        assert {"coverage", "crps", "drift", "stale", "missing", "runtime"} <= set(checks["check"])
