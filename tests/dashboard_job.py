"""Makes a job with results and a ledger, as the dashboard finds them after some evenings."""

from __future__ import annotations

import contextlib
import datetime
import json
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from report_results import BASELINE, CHAMPION, write_results

from forecaster.ledger import Ledger
from forecaster.quantiles import quantile_columns

__all__ = ["EVENINGS", "JOB", "copy_job", "many_symbols", "write_job", "write_ledger"]

JOB = """name: quickstart
workspace: {workspace}
prices: {{kind: sample}}
lookback: 32
backtest: {{start: 2010-01-01}}
models: [{{kind: historical}}]
"""
EVENINGS = 30


def write_ledger(workspace: Path, forecasts: pd.DataFrame, evenings: int = EVENINGS) -> Path:
    """Issue the last forecasts of a table evening by evening, score them, and leave one step failed."""
    path = workspace / "ledger.db"
    wanted = forecasts[forecasts["model"].isin([CHAMPION, BASELINE])]
    days = np.sort(wanted["origin"].unique())[-evenings:]
    with Ledger.open(path) as ledger:
        for day in pd.to_datetime(days):
            as_of = day.date()
            run = ledger.start_run(
                "quickstart",
                job_hash="abc",
                yaml="name: quickstart\n",
                as_of=as_of,
                steps=("forecast", "score"),
            )
            table = wanted[wanted["origin"] == day].drop(columns="y")
            with run.step("forecast", code_version="c1") as step:
                assert step is not None
                ledger.issue(
                    run, table.assign(model_version="3", late=False), data_version="d1", known_at=None,
                    code_version="c1",
                )  # fmt: skip
        known = wanted[wanted["origin"].isin(days) & wanted["y"].notna()].drop_duplicates(
            ["symbol", "origin", "horizon"]
        )
        targets = known["origin"] + pd.to_timedelta(known["horizon"], unit="D")
        outcomes = known[["symbol", "origin", "horizon", "y"]].assign(target=targets)
        ledger.record_outcomes("quickstart", outcomes, data_version="d1")
        with contextlib.suppress(OSError), run.step("score", code_version="c1"):
            raise OSError("<b>the disk is full</b>")
        for check, state in (("coverage", "ok"), ("stale", "warn"), ("sent by email: stale warn", "ok")):
            ledger.record_alert(
                "quickstart", as_of=as_of, check=check, state=state, reason=f"*{check}* is <{state}>"
            )
        ledger.record_model_event(
            "quickstart", as_of=as_of, event="promotion", model=CHAMPION, version="3", reason="better"
        )
    return path


def write_tracking(workspace: Path) -> None:
    """Write two runs and a model below one, in the tables of MLflow that the page reads."""
    with contextlib.closing(sqlite3.connect(workspace / "mlflow.db")) as connection:
        connection.executescript(
            """
            CREATE TABLE experiments (experiment_id INTEGER, name TEXT);
            CREATE TABLE runs (run_uuid TEXT, name TEXT, status TEXT, start_time INTEGER, end_time INTEGER,
                               experiment_id INTEGER, lifecycle_stage TEXT);
            CREATE TABLE tags (run_uuid TEXT, key TEXT, value TEXT);
            CREATE TABLE params (run_uuid TEXT, key TEXT, value TEXT);
            CREATE TABLE latest_metrics (run_uuid TEXT, key TEXT, value REAL);
            INSERT INTO experiments VALUES (1, 'forecaster/quickstart/backtest');
            INSERT INTO runs VALUES
                ('a1', 'quickstart', 'FINISHED', 1700000000000, 1700000090000, 1, 'active'),
                ('b2', '<b>*bold*</b>', 'RUNNING', 1700000100000, NULL, 1, 'active'),
                ('c3', 'gone', 'FINISHED', 1700000000000, NULL, 1, 'deleted'),
                ('d4', 'a model', 'FINISHED', 1700000000000, NULL, 1, 'active');
            INSERT INTO tags VALUES
                ('d4', 'mlflow.parentRunId', 'a1'), ('a1', 'forecaster.code_version', 'c1');
            INSERT INTO latest_metrics VALUES ('a1', 'mean_crps_ratio', 0.98765);
            """
        )
        connection.commit()


def write_job(folder: Path, symbols: Sequence[str] = ("SPX", "WTI"), sessions: int = 400) -> Path:
    """Write a job file with a workspace of results and a ledger; gives the job file."""
    workspace = folder / "workspace"
    results = write_results(workspace / "quickstart", symbols, (1, 5, 21), sessions)
    forecasts = pd.read_parquet(results / "forecasts.parquet").assign(close=1000.0)
    write_ledger(workspace, forecasts)
    write_tracking(workspace)
    config = folder / "job.yaml"
    config.write_text(JOB.format(workspace=workspace), encoding="utf-8")
    return config


def copy_job(config: Path, folder: Path) -> Path:
    """Copy a job with its workspace, to change the copy."""
    shutil.copytree(config.parent / "workspace", folder / "workspace")
    copied = folder / "job.yaml"
    copied.write_text(JOB.format(workspace=folder / "workspace"), encoding="utf-8")
    return copied


def many_symbols(config: Path, names: Sequence[str]) -> None:
    """Repeat the one symbol of a job under many names, in its results and its ledger."""
    workspace = config.parent / "workspace"
    results = workspace / "quickstart"
    for file in ("latest.parquet", "recent_prices.parquet"):
        one = pd.read_parquet(results / file)
        pd.concat([one.assign(symbol=name) for name in names]).to_parquet(results / file)
    scores = pd.read_csv(results / "scores.csv", dtype=str, keep_default_na=False)
    own = scores[(scores["symbol"] != "*") & scores["model"].isin([CHAMPION, BASELINE])]
    pooled = scores[scores["symbol"] == "*"]
    repeated = [own.assign(symbol=name) for name in names]
    pd.concat([*repeated, pooled]).to_csv(results / "scores.csv", index=False)
    findings = pd.read_csv(results / "findings.csv", dtype=str, keep_default_na=False).head(1)
    pd.concat([findings.assign(symbol=name) for name in names]).to_csv(results / "findings.csv", index=False)
    summary = json.loads((results / "summary.json").read_text())
    (results / "summary.json").write_text(json.dumps(summary | {"symbols": list(names)}))
    latest = pd.read_parquet(results / "latest.parquet")
    latest = latest[latest["model"].isin([CHAMPION, BASELINE])]
    evening = latest["origin"].max().date() + datetime.timedelta(days=1)
    with Ledger.open(workspace / "ledger.db") as ledger:
        run = ledger.start_run("quickstart", job_hash="abc", yaml="name: quickstart\n", as_of=evening)
        table = latest.assign(origin=pd.Timestamp(evening), model_version="3", late=False)
        columns = [
            "model",
            "model_version",
            "symbol",
            "origin",
            "horizon",
            "late",
            "close",
            *quantile_columns(),
        ]
        ledger.issue(run, table[columns], data_version="d1", known_at=None, code_version="c1")
