"""A market on this machine that moves session by session, and the evenings of a job on it."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import random
import signal
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pandas as pd
from yahoo_server import Bar, Listing, YahooServer

from forecaster.job import load_job
from forecaster.ledger import Ledger
from forecaster.ledger.tables import NUMBERS, SCORES
from pipelines.daily import Night, daily_job

GATEWAY = "FORECASTER_YAHOO_GATEWAY"
SYMBOLS = {"^GSPC": "sp500", "^IXIC": "nasdaq"}
LIGHT = """
name: year
prices: {{kind: yahoo, symbols: ["^GSPC", "^IXIC"], interval: 0.0, attempts: 1}}
store: {store}
ledger: {ledger}
workspace: {folder}/workspace
horizons: [1, 5]
lookback: 8
train_every: {train_every}
backtest: {{start: 2016-06-01, refit_every: 252, rolling: 500}}
models: {models}
"""
DESK = """
name: desk
prices: {{kind: sample, symbols: [SP500, NASDAQ]}}
calendars: {{SP500: XNYS, NASDAQ: XNYS}}
store: {folder}/prices
workspace: {folder}/workspace
lookback: 8
horizons: [1, 5]
backtest: {{start: 2016-06-01, refit_every: 252, rolling: 500}}
models: [{{kind: historical}}, {{kind: ewma_fhs}}]
"""
"""A job on bundled prices with a store of its own."""
LIGHT_MODELS = "[{kind: historical}, {kind: ewma_fhs}]"
NETWORK = (
    "[{kind: convolution, name: net, kernel: 3, strategy: {kind: row}, training: {epochs: 1, seeds: 1}}]"
)


def traded(name: str, start: str) -> dict[datetime.date, Bar]:
    """Bundled prices as bars."""
    import importlib

    table: pd.DataFrame = importlib.import_module(f"arch.data.{name}").load().rename(columns=str.lower)
    table = table.loc[start:]
    columns = ["open", "high", "low", "close", "volume"]
    rows = table[columns].to_numpy(dtype=np.float64).tolist()
    days = [day.date() for day in pd.DatetimeIndex(table.index)]
    return {day: (a, b, c, d, e) for day, (a, b, c, d, e) in zip(days, rows, strict=True)}


@dataclass
class Market:
    """Bundled prices that a server on this machine gives out up to a session.

    Parameters
    ----------
    server : YahooServer
    start : str
        First session that anybody knows.
    restated : dict of date to (symbol, date)
        On an evening the close of an earlier session of a symbol turns out to have been 1% higher.
    """

    server: YahooServer
    start: str = "2014-01-01"
    restated: dict[datetime.date, tuple[str, datetime.date]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bars = {symbol: traded(name, self.start) for symbol, name in SYMBOLS.items()}

    def sessions(self, first: datetime.date, last: datetime.date) -> list[datetime.date]:
        """Sessions of the exchange."""
        return [day for day in self.bars["^GSPC"] if first <= day <= last]

    def arrive(self, day: datetime.date) -> None:
        """Let the server know every bar up to a day, corrected as it is known then."""
        for symbol, bars in self.bars.items():
            known = {session: bar for session, bar in bars.items() if session <= day}
            for evening, (of, session) in self.restated.items():
                if of == symbol and evening <= day and session in known:
                    old = known[session]
                    assert old[1] is not None
                    assert old[3] is not None
                    known[session] = (old[0], old[1] * 1.01, old[2], old[3] * 1.01, old[4])
            self.server.listings[symbol] = Listing(known)


def write_job(
    folder: Path,
    ledger: str | None = None,
    models: str = LIGHT_MODELS,
    store: Path | None = None,
    train_every: int = 63,
) -> Path:
    """Write the job file of a world."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.yaml"
    place = store or folder / "prices"
    text = LIGHT.format(
        folder=folder,
        store=place,
        ledger=ledger or folder / "ledger.db",
        models=models,
        train_every=train_every,
    )
    path.write_text(text)
    return path


def evening_at(day: datetime.date, hour: float = 22.0) -> datetime.datetime:
    """Give an hour of an evening, in UTC; New York closes at 20 or 21."""
    return datetime.datetime.combine(day, datetime.time(), datetime.UTC) + datetime.timedelta(hours=hour)


def evening(path: Path, gateway: str, day: datetime.date, now: datetime.datetime | None = None) -> Night:
    """Do an evening, as it would be done at a time."""
    os.environ[GATEWAY] = gateway
    moment = now or evening_at(day)
    return daily_job(load_job(path), path, day, lambda *_: None, clock=lambda: moment)


def forked() -> ForkServerContext:
    """Give processes that are forked from one that has imported everything and done nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["nights", "deltalake", "pandera.pandas", "pyarrow.parquet", "forecaster.tracking.registry",
         "forecaster.prices.store.store", "forecaster.windows", "pipelines.champion", "pipelines.ingest",
         "pipelines.forecast", "pipelines.score", "alembic.command", "yfinance"]
    )  # fmt: skip
    return context


def killed_evening(path: Path, gateway: str, day: datetime.date, url: str, chance: random.Random) -> bool:
    """Do an evening in a process of its own, and kill that at a random point of it.

    Returns
    -------
    bool
        Whether it was killed in the middle of a step; not where the step was over too soon.
    """
    wanted = chance.choice(["ingest", "train", "forecast", "score", "report"])
    process = forked().Process(target=evening, args=(path, gateway, day))
    process.start()
    with Ledger.open(url) as ledger:
        while process.is_alive():
            steps = ledger.status(evenings=1)
            begun = steps[(steps["as_of"] == pd.Timestamp(day)) & (steps["step"] == wanted)]
            if len(begun) and begun["status"].iloc[-1] != "pending":
                break
            process.join(0.005)
        process.join(chance.uniform(0.0, 0.05))
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        steps = ledger.status(evenings=1)
    died = steps["reason"].fillna("").str.contains("died in the middle")
    return bool((died & (steps["as_of"] == pd.Timestamp(day))).any())


def says(url: str, job: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a ledger says of forecasts, outcomes and scores, without times and versions."""
    with Ledger.open(url) as ledger:
        forecasts, scores = ledger.forecasts(job), ledger.scores(job)
    keys = ["as_of", "model", "symbol", "origin", "horizon", "late", "y"]
    return forecasts[[*keys, *NUMBERS]], scores[["model", "symbol", "origin", "horizon", *SCORES]]


def reasons(url: str, job: str) -> pd.DataFrame:
    """Every attempt at every step."""
    with Ledger.open(url) as ledger:
        return ledger.status(job, evenings=1000)
