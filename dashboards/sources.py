"""What the pages show, read from ledger, results and tracking store, and kept until those change."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import time
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from forecaster.errors import DataError, ForecasterError
from forecaster.exports import Newest, export_table, newest_forecasts
from forecaster.job import Job, load_job
from forecaster.quantiles import quantile_columns
from forecaster.report.backtest import Backtest, summarise
from forecaster.report.results import Results, read_results

__all__ = [
    "Place",
    "backtest_of",
    "from_ledger",
    "newest",
    "overview",
    "place_of",
    "quarantine",
    "results_of",
    "returns_of",
    "series_of",
    "tracked_runs",
]

Stamp = tuple[tuple[int, int] | None, ...]
"""Time of change and size of files; None for one that is not there."""

ASKED_AGAIN = 60
"""Seconds after which a ledger on a server, which has no file to look at, is read again."""


@dataclass(frozen=True)
class Place:
    """Where the things of a job lie.

    Parameters
    ----------
    job : Job
    config : Path
        The job file.
    results : Path
        Folder of finished results; it need not exist.
    """

    job: Job
    config: Path
    results: Path

    @property
    def ledger(self) -> str:
        """Path or URL of the ledger; it need not exist."""
        return self.job.ledger_url

    @property
    def tracking(self) -> Path:
        """File of the tracking store; it need not exist."""
        return Path(self.job.workspace) / "mlflow.db"


def stamp(*paths: Path) -> Stamp:
    """Tell files apart from what they were before."""
    found: list[tuple[int, int] | None] = []
    for path in paths:
        try:
            state = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((state.st_mtime_ns, state.st_size))
    return tuple(found)


@lru_cache(maxsize=8)
def _job(config: Path, _: Stamp) -> Job:
    return load_job(config)


def place_of(config: Path, results: Path | None = None) -> Place:
    """Read a job file, again where it has changed.

    Raises
    ------
    JobError
        If it is no job.
    """
    job = _job(config, stamp(config))
    return Place(job, config, results or Path(job.workspace) / job.name)


# ------------------------------------------------------------------------------------------------- the ledger


def _ledger_stamp(url: str) -> Stamp:
    if "://" in url and not url.startswith("sqlite:///"):
        return ((int(time()) // ASKED_AGAIN, 0),)
    path = Path(url.removeprefix("sqlite:///"))
    return stamp(path, path.with_name(path.name + "-wal"))


def _there(url: str) -> bool:
    """Whether there may be a ledger: opening a file that is not there would make one."""
    return _ledger_stamp(url)[0] is not None


Ledgered = Literal["status", "alerts", "model_events", "track_record", "track_record_by_origin"]


@lru_cache(maxsize=32)
def _from_ledger(url: str, job: str, what: Ledgered, _: Stamp) -> pd.DataFrame:
    from forecaster.ledger import Ledger

    with Ledger.open(url) as ledger:
        if what == "status":
            return ledger.status(job, evenings=10)
        if what == "alerts":
            return ledger.alerts(job)
        if what == "model_events":
            return ledger.model_events(job)
        return ledger.track_record(job, by_origin=what == "track_record_by_origin")


def from_ledger(place: Place, what: Ledgered, said: list[str]) -> pd.DataFrame:
    """Read one table of the ledger; an empty one where there is none.

    Parameters
    ----------
    place : Place
    what : str
        A method of `forecaster.ledger.Ledger`.
    said : list of str
        Takes a sentence that says why there is nothing.
    """
    if not _there(place.ledger):
        said.append(f"There is no ledger yet at {place.ledger}: it begins with the first evening.")
        return pd.DataFrame()
    try:
        return _from_ledger(place.ledger, place.job.name, what, _ledger_stamp(place.ledger))
    except ForecasterError as error:
        said.append(f"The ledger cannot be read: {error}.")
        return pd.DataFrame()


# ---------------------------------------------------------------------------------------------- the forecasts


@lru_cache(maxsize=4)
def _newest(job: str, ledger: str, results: Path, _: Stamp) -> Newest:
    return newest_forecasts(job, ledger, results)


def newest(place: Place) -> Newest:
    """Read the newest forecasts: as issued, else those of the results.

    Raises
    ------
    DataError
        If there are none.
    LedgerError
        If the ledger cannot be read.
    """
    files = [place.results / name for name in ("latest.parquet", "forecasts.parquet", "summary.json")]
    state = _ledger_stamp(place.ledger) + stamp(*files)
    return _newest(place.job.name, place.ledger, place.results, state)


@lru_cache(maxsize=4)
def _overview(job: str, ledger: str, results: Path, state: Stamp) -> pd.DataFrame:
    return export_table(_newest(job, ledger, results, state).table)


def overview(place: Place) -> pd.DataFrame:
    """Give the newest forecasts in a reader's units; see `forecaster.exports.export_table`."""
    files = [place.results / name for name in ("latest.parquet", "forecasts.parquet", "summary.json")]
    state = _ledger_stamp(place.ledger) + stamp(*files)
    return _overview(place.job.name, place.ledger, place.results, state)


# ------------------------------------------------------------------------------------------------ the results


@lru_cache(maxsize=4)
def _results(folder: Path, names: tuple[str, ...], _: Stamp) -> Results:
    return read_results(folder)


def results_of(place: Place) -> Results | None:
    """Read the finished results; None where there is no folder of them."""
    if not place.results.is_dir():
        return None
    files = sorted(path for path in place.results.iterdir() if path.is_file())
    return _results(place.results, tuple(path.name for path in files), stamp(*files))


@lru_cache(maxsize=16)
def _backtest(path: Path, model: str, _: Stamp) -> tuple[Backtest, tuple[str, ...]]:
    said: list[str] = []
    return summarise(path, [model], said), tuple(said)


def backtest_of(place: Place, model: str, said: list[str]) -> Backtest:
    """Sum up the backtest of one model; `said` takes a sentence where that cannot be done."""
    path = place.results / "forecasts.parquet"
    found, missing = _backtest(path, model, stamp(path))
    said.extend(missing)
    return found


def quarantine(place: Place) -> pd.DataFrame:
    """Read the sessions that are not used: text, as the file holds them; empty where there is none."""
    try:
        return pd.read_csv(place.results / "quarantine.csv", dtype=str, keep_default_na=False)
    except (OSError, ValueError):
        return pd.DataFrame()


# --------------------------------------------------------------------------------------------- price history


@lru_cache(maxsize=64)
def _outcomes(path: Path, symbol: str, _: Stamp) -> pd.Series:
    """Daily log returns of a symbol, by session: outcomes one session after the origins of a backtest."""
    nothing = pd.Series(dtype=np.float64)
    try:
        data = ds.dataset(path, format="parquet")
        model = data.head(1, columns=["model"]).column("model")[0].as_py()
        wanted = (
            (ds.field("model").cast(pa.string()) == str(model))
            & (ds.field("symbol").cast(pa.string()) == symbol)
            & (ds.field("horizon") == 1)
        )
        rows = data.to_table(columns=["origin", "y"], filter=wanted).to_pandas().sort_values("origin")
    except (OSError, ValueError, IndexError, pa.ArrowException):
        return nothing
    if len(rows) < 2:
        return nothing
    # The return over one session is known in the next one.
    values = pd.Series(rows["y"].to_numpy(dtype=np.float64)[:-1], index=pd.to_datetime(rows["origin"])[1:])
    return values.dropna()


def returns_of(place: Place, symbol: str) -> pd.Series:
    """Give the daily log returns of a symbol that the results hold, oldest first, by session.

    They come from the last closes, and before those from the outcomes that the backtest was scored on.
    """
    path = place.results / "forecasts.parquet"
    before = _outcomes(path, symbol, stamp(path))
    results = results_of(place)
    recent = pd.Series(dtype=np.float64)
    if results is not None:
        prices = results.recent_prices
        mine = prices[(prices["symbol"] == symbol) & (prices["close"] > 0)].sort_values("session")
        recent = np.log(mine.set_index("session")["close"]).diff().dropna()
    if len(recent) and len(before):
        before = before[before.index < recent.index[0]]
    parts = [part for part in (before, recent) if len(part)]
    return pd.concat(parts) if parts else pd.Series(dtype=np.float64, index=pd.DatetimeIndex([]))


SERIES = {
    "log return": "r",
    "size of the log return": "|r|",
    "scaled return": "r over its EWMA(0.94) volatility",
}


def series_of(returns: pd.Series, kind: str) -> pd.Series:
    """Give one of the series that a strategy can be looked at on.

    Parameters
    ----------
    returns : Series
        Daily log returns by session.
    kind : str
        A key of `SERIES`. The scaled return divides by the volatility known before its session.
    """
    if kind == "size of the log return":
        return returns.abs()
    if kind == "scaled return":
        variance = returns.pow(2).ewm(alpha=0.06).mean().shift(1)
        scaled: pd.Series = returns / np.sqrt(variance.where(variance > 0))
        return scaled.dropna()
    return returns


# --------------------------------------------------------------------------------------------------- the runs

RUNS = """
    SELECT runs.run_uuid, runs.name, runs.status, runs.start_time, runs.end_time,
           experiments.experiment_id, experiments.name,
           (SELECT value FROM tags WHERE tags.run_uuid = runs.run_uuid AND key = 'forecaster.code_version'),
           (SELECT value FROM params WHERE params.run_uuid = runs.run_uuid AND key = 'data_version'),
           (SELECT value FROM latest_metrics WHERE latest_metrics.run_uuid = runs.run_uuid
            AND key = 'mean_crps_ratio')
    FROM runs JOIN experiments ON experiments.experiment_id = runs.experiment_id
    WHERE runs.lifecycle_stage = 'active'
      AND NOT EXISTS (SELECT 1 FROM tags WHERE tags.run_uuid = runs.run_uuid AND key = 'mlflow.parentRunId')
    ORDER BY runs.start_time DESC LIMIT ?
"""
RUN_COLUMNS = (
    "run_id", "name", "status", "started_at", "ended_at", "experiment_id", "experiment", "code_version",
    "data_version", "mean_crps_ratio",
)  # fmt: skip
RUNS_SHOWN = 100


@lru_cache(maxsize=4)
def _runs(path: Path, _: Stamp) -> pd.DataFrame:
    # Not by MLflow, which takes six seconds to import; read-only, so that nothing there can change.
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
        rows = connection.execute(RUNS, (RUNS_SHOWN,)).fetchall()
    table = pd.DataFrame(rows, columns=list(RUN_COLUMNS))
    for name in ("started_at", "ended_at"):
        table[name] = pd.to_datetime(table[name], unit="ms", utc=True)
    return table


def tracked_runs(place: Place, said: list[str]) -> pd.DataFrame:
    """Read the newest runs of the tracking store, the jobs and not the models and refits below them.

    Returns
    -------
    DataFrame
        Columns `RUN_COLUMNS`; empty, with a sentence in `said`, where there is nothing to read.
    """
    if not place.tracking.is_file():
        said.append(f"There is no tracking store yet at {place.tracking}: `forecaster run` makes it.")
        return pd.DataFrame(columns=list(RUN_COLUMNS))
    wal = place.tracking.with_name(place.tracking.name + "-wal")
    try:
        return _runs(place.tracking, stamp(place.tracking, wal))
    except (sqlite3.Error, ValueError) as error:
        said.append(
            f"The tracking store {place.tracking} cannot be read here ({error}); look at it by MLflow."
        )
        return pd.DataFrame(columns=list(RUN_COLUMNS))


def symbols_of(frames: Sequence[pd.DataFrame]) -> list[str]:
    """Name the symbols of tables, each once, in order."""
    return sorted(
        {str(symbol) for frame in frames if "symbol" in frame.columns for symbol in frame["symbol"].unique()}
    )


def quantiles_known(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the forecasts that can be drawn: every quantile is finite."""
    finite = np.isfinite(table[quantile_columns()].to_numpy(dtype=np.float64)).all(axis=1)
    known: pd.DataFrame = table.loc[finite]
    return known


def first_error(place: Place) -> str:
    """Say why there are no forecasts; empty where there are some."""
    try:
        newest(place)
    except (DataError, ForecasterError) as error:
        return str(error)
    return ""
