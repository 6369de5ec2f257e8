"""The main job from prices to report, with MLflow and Keras for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted import garch
from planted import prices as planted_prices

from dashboards.sources import place_of, tracked_runs
from forecaster.errors import SymbolError
from forecaster.job import load_job
from pipelines.run import RunResult, run_job

JOB = """
name: spine
prices: {{kind: sample, symbols: [SP500, NASDAQ, WTI]}}
lookback: 16
horizons: [1, 5]
backtest: {{start: 2016-01-01, end: 2017-06-30, refit_every: 252, rolling: 500}}
models:
  - {{kind: historical}}
  - kind: convolution
    name: lagged
    kernel: 3
    strategy: {{kind: lagged}}
    training: {{epochs: 2, seeds: 1}}
    calibration: {{kind: control, by_symbol: true}}
workspace: {workspace}
"""


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Let no test leave the address of its store in the environment, as `mlflow.set_tracking_uri` does."""
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def finished(workspace: Path) -> RunResult:
    path = workspace / "spine.yaml"
    path.write_text(JOB.format(workspace=workspace))
    told: list[tuple[str, int, int]] = []
    result = run_job(load_job(path), path, workspace / "out", lambda *step: told.append(step))
    assert [step for step in told if step[0] == "lagged"], told
    assert all(0 <= done <= total for _, done, total in told)
    return result


def test_the_results_are_whole(finished: RunResult, workspace: Path) -> None:
    names = {path.name for path in (workspace / "out").iterdir()}
    assert names == {
        "failures.csv",
        "findings.csv",
        "kernel_responses.csv",
        "kernel_weights.csv",
        "forecasts.parquet",
        "latest.parquet",
        "models.csv",
        "promise.csv",
        "provenance.json",
        "quarantine.csv",
        "recent_prices.parquet",
        "report.html",
        "scores.csv",
        "summary.json",
        # Where a model states its tails.
        *(["tails.parquet", "verdict_variance.csv"] if len(finished.backtest.tails) else []),
        "verdict.csv",
    }
    summary = json.loads((workspace / "out" / "summary.json").read_text())
    assert summary["backtest"]["refits"] == 2
    assert summary["symbols"] == ["NASDAQ", "SP500", "WTI"]
    assert len(summary["data_version"]) == len(summary["job_hash"]) == 64
    assert summary["champion"] == finished.backtest.champion.model == "lagged"
    assert (summary["configurations"]["tried"], summary["configurations"]["runs"]) == (finished.tried, 1)
    assert finished.tried == 2
    assert "2 configurations were tried on this test span in 1 run" in " ".join(
        (workspace / "out" / "report.html").read_text().split()
    )


def test_the_latest_forecasts_start_at_the_last_bar(finished: RunResult, workspace: Path) -> None:
    latest = pd.read_parquet(workspace / "out" / "latest.parquet")
    last = {"SP500": "2018-12-31", "NASDAQ": "2018-12-31", "WTI": "2019-01-03"}
    origins = latest.groupby("symbol")["origin"].agg(["min", "max"])
    for symbol, session in last.items():
        assert list(origins.loc[symbol]) == [pd.Timestamp(session)] * 2
    assert set(latest["horizon"]) == {1, 5}
    assert finished.backtest.champion.model in set(latest["model"])


def test_the_tracking_store_holds_parents_children_and_refits(finished: RunResult, workspace: Path) -> None:
    from mlflow.tracking import MlflowClient

    summary = json.loads((workspace / "out" / "summary.json").read_text())["mlflow"]
    client = MlflowClient(summary["tracking_uri"], summary["tracking_uri"])
    experiment = client.get_experiment_by_name("forecaster/spine/backtest")
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    parents = [run for run in runs.values() if "mlflow.parentRunId" not in run.data.tags]
    assert [run.info.run_id for run in parents] == [summary["run_id"]]
    assert all(run.info.status == "FINISHED" for run in runs.values())
    children = {
        run.info.run_name: run
        for run in runs.values()
        if run.data.tags.get("mlflow.parentRunId") == summary["run_id"]
    }
    assert set(children) == {"historical", "lagged"}
    # The dashboard reads the same runs without MLflow.
    said: list[str] = []
    shown = tracked_runs(place_of(workspace / "spine.yaml"), said)
    assert said == []
    parent = parents[0]
    row = shown[shown["run_id"] == parent.info.run_id].iloc[0]
    assert (row["name"], row["experiment"], row["status"]) == ("spine", experiment.name, "FINISHED")
    assert row["mean_crps_ratio"] == parent.data.metrics["mean_crps_ratio"]
    assert row["data_version"] == parent.data.params["data_version"]
    assert row["started_at"].timestamp() * 1000 == pytest.approx(parent.info.start_time)
    assert set(shown["run_id"]) >= {parent.info.run_id}
    assert not set(shown["run_id"]) & {child.info.run_id for child in children.values()}
    lagged = children["lagged"]
    assert lagged.data.params["strategy.lags"] == "[0, 1, 5, 21]"
    scores = pd.read_csv(workspace / "out" / "scores.csv")
    crps = scores.query("model == 'lagged' and symbol == '*' and horizon == 5 and metric == 'crps'")["value"]
    assert lagged.data.metrics["crps_h5"] == pytest.approx(float(crps.iloc[0]), rel=1e-12)
    folds = [run for run in runs.values() if run.data.tags.get("mlflow.parentRunId") == lagged.info.run_id]
    assert len(folds) == 2
    assert {"crps_h1", "crps_h5", "fit_seconds"} <= set(folds[0].data.metrics)
    artifacts = {artifact.path for artifact in client.list_artifacts(summary["run_id"])}
    assert {"report.html", "scores.csv", "forecasts.parquet"} <= artifacts


def test_the_champion_loads_in_a_fresh_process_and_predicts_the_same(
    finished: RunResult, workspace: Path
) -> None:
    summary = json.loads((workspace / "out" / "summary.json").read_text())
    prices = pd.concat(
        frame[["close"]].reset_index().assign(symbol=symbol)
        for symbol, frame in finished.backtest.data.prices.frames.items()
    )
    prices.to_parquet(workspace / "prices.parquet", index=False)
    code = (
        "import mlflow, pandas, sys\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.pyfunc.load_model('models:/forecaster-spine@champion')\n"
        "model.predict(pandas.read_parquet(sys.argv[2])).to_parquet(sys.argv[3])\n"
    )
    arguments = [summary["mlflow"]["tracking_uri"], workspace / "prices.parquet", workspace / "again.parquet"]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, timeout=300)
    latest = pd.read_parquet(workspace / "out" / "latest.parquet")
    mine = latest[latest["model"] == summary["champion"]].reset_index(drop=True)
    again = pd.read_parquet(workspace / "again.parquet")
    assert list(again.columns) == list(mine.columns)
    for column in ("symbol", "horizon", "close", *[name for name in mine if name.startswith("q")]):
        assert np.array_equal(again[column].to_numpy(), mine[column].to_numpy()), column


def test_a_registered_model_holds_no_pickle(finished: RunResult, workspace: Path) -> None:
    stored = [path.name for path in (workspace / "mlartifacts").rglob("*") if path.is_file()]
    assert "job.json" in stored
    assert not [name for name in stored if name.endswith((".pkl", ".pickle", ".joblib"))]


def test_a_second_run_moves_the_aliases(finished: RunResult, workspace: Path) -> None:
    from mlflow.tracking import MlflowClient

    path = workspace / "spine.yaml"
    run_job(load_job(path), path, workspace / "second", lambda *_: None)
    summary = json.loads((workspace / "second" / "summary.json").read_text())["mlflow"]
    client = MlflowClient(summary["tracking_uri"], summary["tracking_uri"])
    before = json.loads((workspace / "out" / "summary.json").read_text())["mlflow"]
    named = client.get_registered_model("forecaster-spine").aliases
    aliases = {alias: str(number) for alias, number in named.items()}
    assert before["version"] < summary["version"]
    assert aliases["champion"] == aliases["challenger"] == str(summary["version"])
    assert aliases["previous"] == str(before["version"])
    # The best baseline is registered beside it.
    baseline = client.get_model_version_by_alias("forecaster-spine", "baseline")
    assert baseline.tags["forecaster.model"] == "historical"
    for name in ("forecasts.parquet", "latest.parquet", "scores.csv"):
        assert (workspace / "second" / name).read_bytes() == (workspace / "out" / name).read_bytes()


def test_the_served_champion_checks_its_prices(finished: RunResult, workspace: Path) -> None:
    import mlflow

    summary = json.loads((workspace / "out" / "summary.json").read_text())
    mlflow.set_tracking_uri(summary["mlflow"]["tracking_uri"])
    champion = mlflow.pyfunc.load_model("models:/forecaster-spine@champion")
    frame = finished.backtest.data.prices.frames["SP500"].tail(300)
    prices = frame[["close"]].reset_index().assign(symbol="SP500")
    known = champion.predict(prices)
    holiday = prices.iloc[[-1]].assign(session=pd.Timestamp("2019-01-01"), close=np.nan)
    pd.testing.assert_frame_equal(champion.predict(pd.concat([prices, holiday])), known)
    with pytest.raises(SymbolError, match="SP500"):
        champion.predict(pd.concat([prices, prices.tail(1)]))
    with pytest.raises(SymbolError, match="SP500"):
        champion.predict(prices.tail(20))


def test_below_the_coverage_threshold_the_champion_stays(workspace: Path, finished: RunResult) -> None:
    from mlflow.tracking import MlflowClient

    text = JOB.format(workspace=workspace).replace("WTI]", "WTI, ABSENT]") + "minimum_coverage: 0.9\n"
    text = text.split("  - kind: convolution")[0] + text[text.index("workspace:") :]
    path = workspace / "short.yaml"
    path.write_text(text)
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    before = client.get_model_version_by_alias("forecaster-spine", "champion").version
    result = run_job(load_job(path), path, workspace / "short", lambda *_: None)
    assert "the champion stays" in result.registered
    assert client.get_model_version_by_alias("forecaster-spine", "champion").version == before


def test_a_failed_run_is_marked(workspace: Path, finished: RunResult) -> None:
    from forecaster.tracking import Tracker

    tracker = Tracker(workspace, "forecaster/spine/backtest")
    with pytest.raises(ZeroDivisionError), tracker.run("broken", {}, {}) as run_id:
        _ = 1 / 0
    from mlflow.tracking import MlflowClient

    assert MlflowClient(tracker.uri).get_run(run_id).info.status == "FAILED"


@pytest.mark.slow
def test_the_quickstart_ends_well(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pipelines.cli", "run", str(root / "configs" / "quickstart.yaml")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "workspace" / "quickstart" / "report.html").exists()
    assert "Champion: " in done.stdout
    verdict = pd.read_csv(tmp_path / "workspace" / "quickstart" / "verdict.csv")
    assert set(verdict["horizon"]) == {1, 5, 21}
    scores = pd.read_csv(tmp_path / "workspace" / "quickstart" / "scores.csv").query("symbol == '*'")
    table = scores.pivot_table(index=["model", "horizon"], columns="metric", values="value")
    # A daily direction accuracy far above always-up would be a bug.
    assert (table["direction"] <= table["direction_base_rate"] + 0.015).all()
    assert ((table["coverage_80"] - 0.8).abs() < 0.06).all()


LOOKING = """
name: looking
prices: {{kind: files, path: prices.csv}}
lookback: 8
horizons: [1, 2]
backtest: {{start: 2002-01-01}}
{settings}
models: [{{kind: {model}}}]
workspace: {workspace}
"""


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("boosting", "covariates: {RATE: level}\nportfolios: {BOTH: {A: 0.5, B: -0.25}}"),
        ("har_log", "variance: range"),
    ],
)
def test_the_champion_is_registered_with_all_that_it_looks_at(
    model: str, settings: str, tmp_path: Path
) -> None:
    """Covariates, portfolios and the range: the registered model forecasts what the run did."""
    import mlflow

    random = np.random.default_rng(0)
    frames = []
    for number, symbol in enumerate("AB"):
        frame = planted_prices(garch(700, number)).reset_index()
        frame = frame[random.random(len(frame)) < 0.97]  # portfolios need more rows of their members
        spread = 1.0 + 0.01 * random.random((2, len(frame)))
        frame["open"], frame["high"] = frame["close"], frame["close"] * spread[0]
        frame["low"] = frame["close"] / spread[1]
        frames.append(frame.assign(symbol=symbol))
    if "RATE" in settings:
        days = frames[0]["session"]
        frames.append(
            pd.DataFrame({"session": days, "close": np.cumsum(random.standard_normal(len(days)))}).assign(
                symbol="RATE"
            )
        )
    prices = pd.concat(frames, ignore_index=True)
    prices[["symbol", "session", "open", "high", "low", "close"]].to_csv(tmp_path / "prices.csv", index=False)
    path = tmp_path / "looking.yaml"
    path.write_text(LOOKING.format(model=model, settings=settings, workspace=tmp_path))
    run_job(load_job(path), path, tmp_path / "out", lambda *_: None)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    champion = mlflow.pyfunc.load_model("models:/forecaster-looking@champion")
    prices["symbol"] = prices["symbol"].astype(object)
    again = champion.predict(prices[["symbol", "session", "open", "high", "low", "close"]])
    latest = pd.read_parquet(tmp_path / "out" / "latest.parquet")
    columns = ["symbol", "horizon", "close", *[name for name in latest if name.startswith("q")]]
    for column in columns:
        assert np.array_equal(again[column].to_numpy(), latest[column].to_numpy()), column
    assert set(again["symbol"]) == {"A", "B", *(["BOTH"] if "RATE" in settings else [])}
    assert {"BOTH"} & set(pd.read_csv(tmp_path / "out" / "scores.csv")["symbol"]) == (
        {"BOTH"} if "RATE" in settings else set()
    )
