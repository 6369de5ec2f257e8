"""Time and memory of a night, a refit and the scoring of all origins, from 100 to 10,000 symbols.

`make bench-scale` runs it. Prices are synthetic: GARCH(1,1) with Student t shocks and a market factor, 7,500
sessions a symbol. Each side runs in a process of its own:

- ``night``: from the price store to the ledger, imports included: prices are read and checked, the panel is
  laid out, a convolution of five networks forecasts three horizons, and all quantiles are issued;
- ``refit``: one refit of a walk-forward backtest: GARCH of every symbol, and the convolution on 100 of them;
- ``score``: every origin of every symbol is scored, and what its quantiles follow from is written;
- ``speedup``: a backtest on one worker and on two.

The model that forecasts was fitted on the first symbols; the GARCH estimates of the others are the truth of
the simulation, as 10,000 fits of them are no part of a night. Peaks are of all processes together: memory
that several share is counted once.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd

SESSIONS = 7_500
SHARE = 500  # symbols that are simulated at once
FITTED = 20  # symbols that the model is fitted on
LEARNED = 100  # symbols that a refit learns from
LAST = datetime.date(2023, 12, 29)
FETCHED = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
HORIZONS = (1, 5, 21)
TRUTH = (0.02, 0.08, 0.90)  # omega over the variance, alpha, beta
JOB = """
name: scale
prices: {{kind: files, path: none.csv}}
store: {store}
workspace: {workspace}
backtest: {{start: {start}, refit_every: {every}, learn_from: {learned}}}
engine: {{workers: {workers}}}
models: [{models}]
"""
CONVOLUTION = "{kind: convolution, name: convolution, strategy: {kind: lagged, lags: [0, 1, 5, 21]}}"
FIELD = "{kind: historical}, {kind: gjr_t_fhs}, {kind: harx_fhs}, {kind: boosting}, " + CONVOLUTION


def main() -> None:
    """Run the benchmark, or one side of it."""
    options = _options()
    if options.side:
        print(json.dumps(SIDES[options.side](options)))
        return
    from figures import write_figures

    options.output.parent.mkdir(parents=True, exist_ok=True)
    kept = options.folder is not None
    options.folder = options.folder or Path(mkdtemp(prefix="scale-", dir=options.output.parent))
    figures: dict[str, list[float]] = {}

    def note(**values: float) -> None:
        for name, value in values.items():
            figures.setdefault(name, []).append(value)
            print(f"{name} {value:.4g}", flush=True)
        write_figures(options.output, figures)

    try:
        for count in options.symbols:
            if not (options.folder / str(count) / "prices").exists():
                _run("make", options, count)
            for _ in range(options.rounds):
                done = _run("night", options, count)
                note(**{f"nightly_seconds_{count}": done["seconds"]})
                note(**{f"nightly_cpu_seconds_{count}": done["cpu_seconds"]})
                note(**{f"nightly_peak_gib_{count}": done["peak_gib"]})
                for step, seconds in done["steps"].items():
                    note(**{f"nightly_{step}_share_{count}": seconds / done["seconds"]})
            if "score" in options.only:
                done = _run("score", options, count)
                note(**{f"score_all_seconds_{count}": done["seconds"]})
                note(**{f"score_all_cpu_seconds_{count}": done["cpu_seconds"]})
                note(**{f"score_all_peak_gib_{count}": done["peak_gib"]})
                note(**{f"score_all_gib_on_disk_{count}": done["disk_gib"]})
            if "refit" in options.only:
                done = _run("refit", options, count)
                note(**{f"refit_seconds_{count}": done["seconds"]})
                note(**{f"refit_cpu_seconds_{count}": done["cpu_seconds"]})
                note(**{f"refit_peak_gib_{count}": done["peak_gib"]})
        if len(options.symbols) > 1:
            least, most = min(options.symbols), max(options.symbols)
            for what in ("seconds", "cpu_seconds"):
                ratio = min(figures[f"nightly_{what}_{most}"]) / min(figures[f"nightly_{what}_{least}"])
                exponent = math.log(ratio) / math.log(most / least)
                note(**{"nightly_growth_exponent" + "_cpu" * (what != "seconds"): exponent})
        if "speedup" in options.only:
            least = min(options.symbols)
            for _ in range(options.rounds):
                one, two = (_run("speedup", options, least, workers=number) for number in (1, 2))
                note(one_worker_seconds=one["seconds"], two_workers_seconds=two["seconds"])
                note(two_workers_speedup=one["seconds"] / two["seconds"])
    finally:
        if not kept:
            shutil.rmtree(options.folder, ignore_errors=True)


# ------------------------------------------------------------------------------------------------- sides


def make(options: argparse.Namespace) -> dict[str, Any]:
    """Fill a price store, and fit the model on the first symbols."""
    from forecaster.prices.store import Fetch, PriceStore

    folder, count = options.folder / str(options.count), options.count
    sessions = pd.bdate_range(end=LAST, periods=SESSIONS, unit="s", name="session")
    window = (sessions[0].date(), sessions[-1].date())
    store = PriceStore(folder / "making")
    market = _garch(np.random.default_rng(0), 1, 0.009)
    for first in range(0, count, SHARE):
        number = min(SHARE, count - first)
        random = np.random.default_rng(first + 1)
        returns = market * random.uniform(0.6, 1.4, number) + _garch(random, number, 0.013)
        closes = np.round(np.maximum(50.0 * np.exp(np.cumsum(returns, axis=0)), 0.01), 4)
        opens = np.round(closes * np.exp(random.normal(0, 0.004, closes.shape)), 4)
        volumes = np.round(np.exp(random.normal(13, 0.5, closes.shape)))
        fetches = {}
        for column in range(number):
            frame = {"open": opens[:, column], "close": closes[:, column], "volume": volumes[:, column]}
            frame |= {"high": np.maximum(frame["open"], frame["close"]) * 1.003}
            frame |= {"low": np.minimum(frame["open"], frame["close"]) / 1.003}
            table = pd.DataFrame(frame | {"dividend": 0.0, "split": 1.0}, index=sessions)
            fetches[f"S{first + column:05d}"] = Fetch(table, window, full=True)
        store.write(fetches, fetched_at=FETCHED, source="synthetic")
    (folder / "making").rename(folder / "prices")
    _fit(options)
    return {}


def _garch(random: np.random.Generator, series: int, daily: float) -> Any:
    """Simulate GARCH(1,1) with Student t shocks of six degrees of freedom, shape (SESSIONS, series)."""
    omega, alpha, beta = TRUTH
    shocks = random.standard_t(6, (SESSIONS, series)) / math.sqrt(1.5)
    variance, returns = np.ones(series), np.empty((SESSIONS, series))
    for session in range(SESSIONS):
        returns[session] = np.sqrt(variance) * shocks[session]
        variance = omega + alpha * np.square(returns[session]) + beta * variance
    return daily * returns


def _fit(options: argparse.Namespace) -> None:
    """Fit the model on a few symbols, and let it know of all."""
    from forecaster.job.panel import lay_out
    from forecaster.models.econometric.garch import PARAMETERS
    from forecaster.prices.store import PriceStore
    from forecaster.tracking.saved import SavedModel, write_model
    from forecaster.windows import Universe
    from pipelines.train import fit_model

    job = _job(options)
    store = PriceStore(options.folder / str(options.count) / "prices")
    names = store.symbols()
    panel, _ = lay_out(job, store.read(names[:FITTED]).frames, job.minimum_sessions)
    model: Any = fit_model(job, "convolution", panel, panel.calendar[-1])
    linear = model.target.linear
    omega, alpha, beta = TRUTH
    truth = {"mean": 0.0, "omega": omega * 0.016**2, "alpha": alpha, "gamma": 0.0, "beta": beta}
    truth |= {"degrees_of_freedom": 6.0, "start": 0.016**2}
    of_all = np.tile([truth[name] for name in PARAMETERS], (len(names), 1))
    of_all[: len(linear.garch.estimates)] = linear.garch.estimates
    linear.garch.symbols, linear.garch.estimates, linear.universe = names, of_all, Universe(names)
    write_model(options.folder / str(options.count) / "model", SavedModel(job, "convolution", model))


def night(options: argparse.Namespace) -> dict[str, Any]:
    """Forecast from the store into the ledger."""
    laps = _Laps()
    from forecaster.ledger import Ledger
    from forecaster.tracking.saved import read_model
    from forecaster.walkforward import latest_table
    from forecaster.windows import Windows
    from pipelines.loading import load_data

    laps("imports")
    job = _job(options)
    data = load_data(job, options.folder, job.warm_up + 1, LAST)
    laps("prices")
    saved = read_model(options.folder / str(options.count) / "model")
    laps("model")
    origins = Windows(data.panel, data.panel.last_rows(), job.horizons)
    forecast = saved.model.predict(origins)
    laps("forecast")
    table = latest_table(saved.name, origins, forecast)
    table.insert(1, "model_version", "1")
    table["late"] = False
    assert forecast.tails is not None
    for name, values in vars(forecast.tails).items():
        table[name if name == "variance" else f"tail_{name}"] = values.ravel()
    path = Path(mkdtemp(dir=options.folder)) / "ledger.db"
    with Ledger.open(path) as ledger:
        run = ledger.start_run("scale", job_hash=job.hash, yaml="", as_of=LAST)
        assert data.known is not None
        known_at = data.known.mark.to_pydatetime()
        done = ledger.issue(
            run, table, data_version=data.data_version, known_at=known_at, code_version="bench"
        )
    if done.new != options.count * len(HORIZONS):
        raise SystemExit(f"{options.count * len(HORIZONS)} forecasts are issued; there were {done.new}")
    shutil.rmtree(path.parent)
    laps("ledger")
    return {"steps": laps.seconds}


def score(options: argparse.Namespace) -> dict[str, Any]:
    """Score every origin from a panel in files."""
    from pipelines.loading import load_data
    from pipelines.origins import score_origins

    job = _job(options)
    panel = Path(mkdtemp(prefix="panel-", dir=options.folder))
    output = Path(mkdtemp(prefix="scores-", dir=options.folder))
    load_data(job, options.folder, job.warm_up + 1, LAST).panel.save(panel)
    with job.engine.build(job.threads) as engine:
        model = options.folder / str(options.count) / "model"
        crps = score_origins(engine, panel, model, job.warm_up, job.horizons, output)
    if not (crps > 0).all():
        raise SystemExit(f"CRPS is positive; it was {crps}")
    disk = sum(path.stat().st_size for path in output.iterdir()) / 2**30
    shutil.rmtree(panel)
    shutil.rmtree(output)
    return {"disk_gib": disk}


def refit(options: argparse.Namespace) -> dict[str, Any]:
    """Estimate GARCH for all, and train the convolution on some."""
    from pipelines.loading import load_data
    from pipelines.train import fit_model

    job = _job(options)
    data = load_data(job, options.folder, job.warm_up + 1, LAST)
    fit_model(job, "convolution", data.panel, data.panel.calendar[-1])
    return {}


def speedup(options: argparse.Namespace) -> dict[str, Any]:
    """Backtest a field of models on some symbols."""
    from forecaster.job.panel import lay_out
    from forecaster.prices.base import LoadedPrices, content_hash
    from forecaster.prices.store import PriceStore
    from pipelines.backtest import backtest_job
    from pipelines.loading import JobData

    job = _job(options, FIELD, every=252)
    store = PriceStore(options.folder / str(options.count) / "prices")
    frames = dict(store.read(store.symbols()[:20]).frames)
    panel, _ = lay_out(job, frames, job.minimum_sessions)
    data = JobData(panel, LoadedPrices(frames, (), {}), content_hash(frames))
    backtest_job(job, data, lambda *_: None)
    return {}


SIDES = {"make": make, "night": night, "score": score, "refit": refit, "speedup": speedup}


# ---------------------------------------------------------------------------------------------- measuring


class _Laps:
    """Seconds of each step of this process."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step], self._last = now - self._last, now


def _job(options: argparse.Namespace, models: str = CONVOLUTION, every: int = 504) -> Any:
    from forecaster.job import parse_job
    from forecaster.threads import limit_threads

    folder = options.folder / str(options.count)
    text = JOB.format(
        store=folder / "prices", workspace=options.folder, start="2012-01-02", every=every,
        workers=options.workers, models=models, learned=LEARNED,
    )  # fmt: skip
    job = parse_job(text, "scale")
    limit_threads(job.threads)
    return job


def _tree(root: int) -> list[int]:
    """Give a process and all that it started."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        try:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                waiting += [int(child) for child in (thread / "children").read_text().split()]
        except OSError:
            continue
    return found


def _resident(pids: list[int]) -> int:
    """Give the KiB that processes have together: what is their own, and once what they share.

    Not their proportional set sizes: those fall when strangers load the same libraries.
    """
    own, shared = 0, 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        kinds = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
        own += kinds.get("Private_Clean:", 0) + kinds.get("Private_Dirty:", 0)
        shared = max(shared, kinds.get("Shared_Clean:", 0) + kinds.get("Shared_Dirty:", 0))
    return own + shared


def _run(side: str, options: argparse.Namespace, count: int, workers: int | None = None) -> dict[str, Any]:
    """Run a side in a process of its own, and watch it."""
    command = [sys.executable, __file__, "--side", side, "--folder", str(options.folder.resolve())]
    command += ["--count", str(count), "--workers", str(workers or options.workers)]
    said, measured = watched(command)
    result: dict[str, Any] = json.loads(said.splitlines()[-1])
    return result | measured


def watched(command: list[str]) -> tuple[str, dict[str, float]]:
    """Run a command, and measure it and what it starts.

    Returns
    -------
    said : str
        What it printed.
    measured : dict of str to float
        ``seconds``, ``cpu_seconds`` and ``peak_gib``, of all processes together.

    Raises
    ------
    SystemExit
        If it fails.
    """
    before, begun = os.times(), time.perf_counter()
    peak, over = [0], threading.Event()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:

        def watch() -> None:
            while not over.wait(0.2):
                peak[0] = max(peak[0], _resident(_tree(process.pid)))

        watcher = threading.Thread(target=watch)
        watcher.start()
        said, _ = process.communicate()
        over.set()
        watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    seconds, after = time.perf_counter() - begun, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return said, {"seconds": seconds, "cpu_seconds": cpu, "peak_gib": peak[0] / 2**20}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--symbols", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=["score", "refit", "speedup"], help="beside the nights")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("workspace/bench/scale.json"))
    parser.add_argument("--folder", type=Path, help="keep stores and models here; a temporary one by default")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
