"""Runs: what was computed when, by which code on which data, with links to MLflow."""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import Any
from urllib.parse import quote, urlsplit

import pandas as pd

from dashboards import elements, sources
from dashboards.sources import Place
from forecaster.report.style import MISSING, count, ratio

__all__ = ["run_address", "run_rows", "show"]

LOCAL = "http://127.0.0.1:5000"
"""Where `mlflow ui` listens if nothing else is said."""
LINKED = 20


def run_address(server: str, experiment: str, run: str) -> str:
    """Give the address of a run in MLflow's pages."""
    return f"{server.rstrip('/')}/#/experiments/{quote(experiment, safe='')}/runs/{quote(run, safe='')}"


def _server() -> str:
    """Give the address of MLflow's pages, without a password that the environment may hold in it."""
    parts = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return LOCAL
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


def run_rows(records: list[dict[Hashable, Any]]) -> list[list[str]]:
    """Write the runs, one a row; see `dashboards.sources.RUN_COLUMNS`."""
    rows = []
    for run in records:
        took = run["ended_at"] - run["started_at"]
        rows.append(
            [
                _moment(run["started_at"]),
                _text(run["name"]),
                str(run["experiment"]),
                str(run["status"]).lower(),
                MISSING if pd.isna(took) else count(took.total_seconds()),
                ratio(run["mean_crps_ratio"]),
                _text(run["code_version"]),
                _text(run["data_version"])[:12],
            ]
        )
    return rows


def _text(value: Any) -> str:
    return MISSING if pd.isna(value) or value == "" else str(value)


def _moment(value: Any) -> str:
    return MISSING if pd.isna(value) else f"{value:%Y-%m-%d %H:%M}"


def show(place: Place) -> None:
    """Show the page."""
    elements.page(
        "Runs",
        "What was computed in this workspace, the newest first; models and refits lie below each in MLflow.",
    )
    said: list[str] = []
    records = sources.tracked_runs(place, said).to_dict("records")
    server = _server()
    if records:
        elements.table(
            f"{elements.counted(len(records), 'run')}, times in UTC",
            ["began", "job", "experiment", "state", "seconds", "best CRPS ratio", "code", "data"],
            run_rows(records),
            numbers=["seconds", "best CRPS ratio"],
        )
        elements.section("In MLflow", f"Links lead to {server}, where the command below serves them.")
        elements.links(
            [
                (
                    f"{run['name']} of {_moment(run['started_at'])}",
                    run_address(server, str(run["experiment_id"]), str(run["run_id"])),
                )
                for run in records[:LINKED]
            ]
        )
    elements.notes(said)
    elements.command(f"mlflow ui --backend-store-uri sqlite:///{place.tracking}")
