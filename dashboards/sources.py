"""What the pages show, read from ledger, results and tracking store, and kept until those change."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from time import time
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from forecaster.errors import DataError, ForecasterError, SymbolError
from forecaster.exports import Newest, export_table, newest_forecasts
from forecaster.job import Job, load_job
from forecaster.quantiles import quantile_columns
from forecaster.report.backtest import Backtest, summarise
from forecaster.report.results import Results, read_results

__all__ = [
    "Age",
    "Place",
    "age_of",
    "backtest_of",
    "closes_of",
    "finished",
    "from_ledger",
    "late_words",
    "made_words",
    "newest",
    "newest_results",
    "overview",
    "place_of",
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
    folder : Path
        Folder of the job's finished results, and of its evenings below it; it need not exist.
    """

    job: Job
    config: Path
    folder: Path

    @property
    def evening(self) -> Path | None:
        """Folder of the newest evening; None where there is none."""
        return max((path.parent for path in self.folder.glob("evenings/*/summary.json")), default=None)

    @property
    def results(self) -> Path:
        """Folder of finished results; where the job only ran evenings, that of the newest one."""
        if (self.folder / "summary.json").is_file():
            return self.folder
        return self.evening or self.folder

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


@dataclass(frozen=True)
class Age:
    """How far the newest forecasts lie behind what has traded since.

    Parameters
    ----------
    origin : Timestamp
        The newest origin, of the symbols that lie furthest behind where exchanges differ.
    sessions : int
        Finished sessions after it; days from Monday to Friday where the exchange is not known.
    known : bool
        Whether these are sessions of the exchange.
    """

    origin: pd.Timestamp
    sessions: int
    known: bool

    @property
    def words(self) -> str:
        """What was counted, in words."""
        unit = "session" if self.known else "weekday"
        return f"{self.sessions:,} {unit}{'' if self.sessions == 1 else 's'}"


def age_of(job: Job, table: pd.DataFrame, now: datetime) -> Age:
    """Count what has traded since the newest forecasts.

    Parameters
    ----------
    job : Job
    table : DataFrame
        ``symbol, origin`` of the newest forecasts, at least one row.
    now : datetime
        With its zone.
    """
    last = table.groupby("symbol")["origin"].max()
    # As Yahoo spells symbols, or as the job says: symbols of files may be spelled in any way.
    named = last if job.prices.kind == "yahoo" else last[last.index.isin(list(job.calendars))]
    ages = []
    if len(named):
        from forecaster.calendars import Calendars

        calendars = Calendars(job.calendars)
        # One symbol for each exchange, its newest: the others follow the same sessions.
        newest: dict[str, tuple[pd.Timestamp, str]] = {}
        for symbol, origin in named.items():
            with suppress(SymbolError):
                name = calendars.name(str(symbol))
                newest[name] = max(newest.get(name, (origin, str(symbol))), (origin, str(symbol)))
        for origin, symbol in newest.values():
            with suppress(SymbolError):
                ages.append(Age(origin, calendars.sessions_since(symbol, origin.date(), now), True))
    if ages:
        return max(ages, key=lambda age: age.sessions)
    origin, today = last.max(), now.date()
    behind = int(np.busday_count(origin.date(), today)) if origin.date() < today else 0
    return Age(origin, behind, False)


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
    return _newest(place.job.name, place.ledger, place.results, _newest_stamp(place))


def _newest_stamp(place: Place) -> Stamp:
    files = [place.results / name for name in ("latest.parquet", "forecasts.parquet", "summary.json")]
    return _ledger_stamp(place.ledger) + stamp(*files)


@lru_cache(maxsize=4)
def _overview(job: str, ledger: str, results: Path, state: Stamp) -> pd.DataFrame:
    return export_table(_newest(job, ledger, results, state).table)


def overview(place: Place) -> pd.DataFrame:
    """Give the newest forecasts in a reader's units; see `forecaster.exports.export_table`."""
    return _overview(place.job.name, place.ledger, place.results, _newest_stamp(place))


# ------------------------------------------------------------------------------------------------ the results


@lru_cache(maxsize=4)
def _results(folder: Path, names: tuple[str, ...], _: Stamp) -> Results:
    # Nothing is summed up here: `backtest_of` does that for the one model that is looked at.
    return read_results(folder, sums=False)


def _results_in(folder: Path) -> Results | None:
    if not folder.is_dir():
        return None
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return _results(folder, tuple(path.name for path in files), stamp(*files))


def results_of(place: Place) -> Results | None:
    """Read the finished results; None where there is no folder of them."""
    return _results_in(place.results)


def finished(place: Place) -> Results:
    """Read the finished results.

    Raises
    ------
    DataError
        If there are none.
    """
    results = results_of(place)
    if results is None:
        raise DataError(f"There are no results yet in {place.results}: `forecaster run` makes them.")
    return results


def newest_results(place: Place) -> Results:
    """Read what was made last: the newest evening where that came after the results, else these.

    Raises
    ------
    DataError
        If there are none.
    """
    results = finished(place)
    evening = _results_in(place.evening) if place.evening is not None else None
    # Where one of the two does not say when it was made, the comparison is false.
    return evening if evening is not None and _made_at(evening) > _made_at(results) else results


def _made_at(results: Results) -> pd.Timestamp:
    at: pd.Timestamp = pd.to_datetime(
        pd.Series([results.summary.text("created_at")]), utc=True, errors="coerce"
    )[0]
    return at


def made_words(results: Results) -> str:
    """Say where results lie, and when and by what they were made."""
    at, command = _made_at(results), results.summary.text("command")
    return (
        f"From the results in {results.directory}"
        + ("" if pd.isna(at) else f", made on {at:%Y-%m-%d %H:%M} UTC")
        + (f" by `{command}`." if command else ".")
    )


@lru_cache(maxsize=16)
def _backtest(path: Path, model: str, _: Stamp) -> tuple[Backtest, tuple[str, ...]]:
    said: list[str] = []
    return summarise(path, [model], said), tuple(said)


def backtest_of(place: Place, model: str, said: list[str]) -> Backtest:
    """Sum up the backtest of one model; `said` takes a sentence where that cannot be done."""
    results = results_of(place)
    path = (place.results if results is None else results.judged) / "forecasts.parquet"
    found, missing = _backtest(path, model, stamp(path))
    said.extend(missing)
    return found


# --------------------------------------------------------------------------------------------- price history


def _closes(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path, columns=["symbol", "session", "close"])
    except (OSError, ValueError):
        return pd.DataFrame(columns=["symbol", "session", "close"])
    return table.assign(symbol=table["symbol"].astype(str), session=pd.to_datetime(table["session"]))


def closes_of(place: Place) -> pd.DataFrame:
    """Give the last closes of all symbols: those of the newest evening, and of the results for the others.

    Of one symbol they are from one place, because closes that were adjusted on different days do not chain.

    Returns
    -------
    DataFrame
        ``symbol, session, close``.
    """
    folders = dict.fromkeys((place.results, place.evening or place.results))
    files = tuple(folder / "recent_prices.parquet" for folder in folders)
    return _newest_closes(files, stamp(*files))


@lru_cache(maxsize=4)
def _newest_closes(files: tuple[Path, ...], _: Stamp) -> pd.DataFrame:
    tables = [table for file in files if len(table := _closes(file))]
    if not tables:
        return _closes(Path())
    last = pd.concat([table.groupby("symbol")["session"].max() for table in tables], axis="columns")
    # Of two that end on the same session, that of the results.
    chosen = last.fillna(pd.Timestamp.min).to_numpy().argmax(axis=1)
    kept = [table[table["symbol"].isin(last.index[chosen == number])] for number, table in enumerate(tables)]
    return pd.concat(kept, ignore_index=True)


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

    They come from the last closes, and before those from the outcomes that the backtest was scored on; not
    from these where sessions lie between the two, because neighbours must follow each other.
    """
    results = results_of(place)
    path = (place.results if results is None else results.judged) / "forecasts.parquet"
    before = _outcomes(path, symbol, stamp(path))
    prices = closes_of(place)
    mine = prices[(prices["symbol"] == symbol) & (prices["close"] > 0)].sort_values("session")
    logarithms = pd.Series(np.log(mine["close"].to_numpy(dtype=np.float64)), index=mine["session"])
    recent = logarithms.diff().dropna()
    if len(recent) and len(before):
        gap = before.index[-1] < mine["session"].iloc[0]
        before = before[before.index < recent.index[0]] if not gap else before.iloc[:0]
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


def late_words(table: pd.DataFrame) -> str:
    """Say how many forecasts came too late to count; empty where none did."""
    late = int(table["late"].sum())
    if not late:
        return ""
    return (
        f"{late:,} of these {len(table):,} forecasts are late: issued after the first session that they "
        "forecast had opened. They never enter the track record."
    )


def first_error(place: Place) -> str:
    """Say why there are no forecasts; empty where there are some."""
    try:
        newest(place)
    except ForecasterError as error:
        return str(error)
    return ""
