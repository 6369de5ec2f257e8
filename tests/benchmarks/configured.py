"""The backtest of a job in `configs/`, which says how far it is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forecaster.job import Job
    from pipelines.backtest import BacktestResult

ROOT = Path(__file__).parents[2]


def backtest_of(name: str, workers: int = 1) -> tuple[Job, BacktestResult]:
    """Run the backtest of a job.

    Parameters
    ----------
    name : str
        Of the file in `configs/`, without its ending.
    workers : int
        Processes that share the work; the numbers do not depend on them.
    """
    # The limits on threads come before what reads them.
    from forecaster.job import load_job
    from forecaster.threads import limit_threads

    path = ROOT / "configs" / f"{name}.yaml"
    job = load_job(path)
    limit_threads(job.threads)
    from pipelines.backtest import backtest_job
    from pipelines.loading import load_data

    begin = time.perf_counter()

    def progress(model: str, done: int, total: int) -> None:
        print(f"{time.perf_counter() - begin:6.0f} s  {done:3d} of {total}  {model}", flush=True)

    engine = job.engine.model_copy(update={"workers": workers})
    job = job.model_copy(update={"engine": engine})
    return job, backtest_job(job, load_data(job, path.parent, job.minimum_sessions), progress)
