"""Reading a verdict and a ledger: what a backtest promised, what was issued, and what came of it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pandas as pd

from forecaster import (
    Ledger,
    Panel,
    SampleSource,
    Windows,
    fit_windows,
    forecast_table,
    load_job,
    load_prices,
)

# A backtest by the command line, and its verdict: one row a model and horizon.
Path("desk.yaml").write_text(
    """
name: desk
prices: {kind: sample, symbols: [SP500, NASDAQ]}
horizons: [1, 5]
backtest: {start: 2012-01-01, end: 2018-09-28}
models: [{kind: historical}, {kind: ewma_fhs}, {kind: lin}]
"""
)
command = [sys.executable, "-m", "pipelines.cli", "backtest", "desk.yaml", "--output", "results"]
subprocess.run(command, check=True, capture_output=True)
verdict = pd.read_csv("results/verdict.csv")
print(
    verdict[["model", "horizon", "crps_ratio", "p_value", "verdict", "skill"]].round(3).to_string(index=False)
)

# Evenings of the last quarter: issued before the outcome is known, scored when it is. `forecaster daily` does
# this by itself; here the ledger is written by hand.
job = load_job("desk.yaml")
panel = Panel.from_prices(load_prices(SampleSource(("SP500", "NASDAQ")), (), 400).frames)
october = pd.Timestamp("2018-10-01").to_datetime64()
model = job.build("lin").fit(fit_windows(panel, october, job.horizons, job.warm_up))
with Ledger.open("ledger.db") as ledger:
    for evening in panel.calendar[panel.calendar >= october]:
        windows = Windows(panel, (panel.sessions == evening).nonzero()[0], job.horizons)
        issued = forecast_table("lin", windows, model.predict(windows)).assign(
            model_version="1", late=False, close=panel.closes[windows.rows].repeat(len(job.horizons))
        )
        run = ledger.start_run(
            "desk", job_hash="by hand", yaml=Path("desk.yaml").read_text(), as_of=evening.item()
        )
        ledger.issue(run, issued, data_version="sample", known_at=None, code_version="example")
        known = issued.dropna(subset="y")
        place = panel.calendar.searchsorted(evening)
        targets = [panel.calendar[place + h] for h in known["horizon"]]
        outcomes = known[["symbol", "origin", "horizon", "y"]].assign(target=targets)
        ledger.record_outcomes("desk", outcomes, data_version="sample")
    record = ledger.track_record("desk")
    newest = ledger.latest("desk")
columns = ["model", "horizon", "forecasts", "crps", "coverage_80", "hit_rate_0.05"]
print(record[columns].round(4).to_string(index=False))
columns = ["symbol", "origin", "horizon", "close", "q0.1", "q0.9"]
print(newest[columns].to_string(index=False, float_format="{:.4f}".format))

# What was issued is never changed, whoever asks.
with sqlite3.connect("ledger.db") as plain:
    try:
        plain.execute("UPDATE forecasts SET close = 0")
    except sqlite3.IntegrityError as error:
        print("refused:", error)
