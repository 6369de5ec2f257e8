"""What tests of the ledger share with the processes that they start."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Sequence
from multiprocessing.queues import Queue
from typing import Any

import numpy as np
import pandas as pd

from forecaster.ledger import Ledger, LedgerError, Run
from forecaster.quantiles import LEVELS, quantile_columns

SESSION = datetime.date(2024, 1, 5)
KNOWN_AT = datetime.datetime(2024, 1, 5, 22, 30, tzinfo=datetime.UTC)


def table(
    n_symbols: int,
    origin: datetime.date = SESSION,
    model: str = "ewma",
    horizons: Sequence[int] = (1, 5),
    seed: int = 0,
) -> pd.DataFrame:
    """Forecasts of some symbols, the same each time."""
    random = np.random.default_rng([seed, origin.toordinal(), *model.encode()])
    rows = n_symbols * len(horizons)
    scale = 0.01 * np.exp(random.normal(size=rows))
    values = scale[:, None] * (np.array(LEVELS) - 0.5)
    frame = pd.DataFrame(values, columns=quantile_columns())
    frame["model"], frame["model_version"] = model, "3"
    frame["symbol"] = np.repeat([f"S{number:04d}" for number in range(n_symbols)], len(horizons))
    frame["origin"] = pd.Timestamp(origin)
    frame["horizon"] = np.tile(np.array(horizons), n_symbols)
    frame["close"], frame["late"] = 100.0 + random.random(rows), False
    return frame


def start(ledger: Ledger, as_of: datetime.date = SESSION, job: str = "us", **others: Any) -> Run:
    """Begin an evening."""
    return ledger.start_run(job, job_hash="abc", yaml="name: us\n", as_of=as_of, **others)


def issue(ledger: Ledger, run: Run, frame: pd.DataFrame) -> tuple[int, int]:
    """Issue forecasts: how many were new, and how many repeated."""
    issued = ledger.issue(run, frame, data_version="d1", known_at=KNOWN_AT, code_version="c1")
    return issued.new, issued.repeated


def issue_at_once(url: str, n_symbols: int, answers: Queue[tuple[int, int]]) -> None:
    """Open a ledger, new or not, and issue what others issue too."""
    with Ledger.open(url) as ledger:
        answers.put(issue(ledger, start(ledger), table(n_symbols)))


def issue_many(url: str, n_symbols: int, n_models: int, answers: Queue[str]) -> None:
    """Issue forecasts of one model after the other; say so before each."""
    with Ledger.open(url) as ledger:
        run = start(ledger)
        for number in range(n_models):
            model = f"m{number:02d}"
            frame = table(n_symbols, model=model)
            answers.put(model)
            issue(ledger, run, frame)


def hold(url: str, name: str, answers: Queue[str], seconds: float) -> None:
    """Do a step for some time."""
    with Ledger.open(url) as ledger, start(ledger).step(name, code_version="c1") as step:
        answers.put("skipped" if step is None else str(os.getpid()))
        time.sleep(seconds)


def count(url: str, place: str, answers: Queue[str]) -> None:
    """Do ten steps, of which others do the same; each leaves a line in a file."""
    with Ledger.open(url) as ledger:
        run = start(ledger)
        for number in range(10):
            with run.step(f"s{number}", code_version="c1", wait=60) as step:
                if step is not None:
                    with open(place, "a", encoding="utf-8") as file:  # noqa: PTH123
                        file.write(f"s{number}\n")
    answers.put("done")


def write_on(url: str, answers: Queue[str]) -> None:
    """Issue an evening after the other until killed."""
    with Ledger.open(url) as ledger:
        answers.put("begun")
        for number in range(1000):
            day = SESSION + datetime.timedelta(days=number)
            try:
                issue(ledger, start(ledger, day), table(50, day))
            except LedgerError as error:
                answers.put(str(error))
                return
