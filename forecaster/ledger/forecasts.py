"""Forecasts as issued: written once, and read."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Select, func, insert, select

from forecaster.errors import LedgerError, ParameterError
from forecaster.ledger.database import Database, first_or_insert, grown
from forecaster.ledger.steps import Run
from forecaster.ledger.tables import (
    NUMBERS,
    forecasts,
    issues,
    job_files,
    jobs,
    outcomes,
    runs,
    tracks,
)
from forecaster.quantiles import TAIL_COLUMNS, quantile_columns

__all__ = [
    "FORECAST_COLUMNS",
    "KEY",
    "Issued",
    "dates",
    "issue",
    "read_forecasts",
    "read_latest",
    "read_seen",
]

KEY = ["symbol", "origin", "horizon"]
ISSUED_COLUMNS = ["model", "model_version", *KEY, "late", "close", *quantile_columns()]
_SHARED = (
    "model_version", "data_version", "known_at", "code_version", "job_hash", "issued_at",
)  # fmt: skip
FORECAST_COLUMNS = ["id", "job", "as_of", "model", *KEY, "y", "late", *NUMBERS, *_SHARED]
"""Columns of a table of forecasts that is read from the ledger."""


@dataclass(frozen=True)
class Issued:
    """What an issue of forecasts did.

    Parameters
    ----------
    new : int
        Forecasts that were recorded.
    repeated : int
        Forecasts that had been recorded before, with the same numbers.
    """

    new: int
    repeated: int


def issue(
    database: Database,
    run: Run,
    table: pd.DataFrame,
    *,
    data_version: str,
    known_at: datetime.datetime | None,
    code_version: str,
    issued_at: datetime.datetime,
) -> Issued:
    """Record forecasts; see `forecaster.ledger.Ledger.issue`."""
    if known_at is not None and known_at.tzinfo is None:
        raise ParameterError(
            f"`known_at` has a time zone. Received: {known_at.isoformat()}; take it from the store"
        )
    checked = _checked(table, run.as_of)
    new = 0
    with database.writing() as connection:
        # In this order the rows of an evening lie side by side.
        for (model, version), rows in checked.groupby(["model", "model_version"], sort=True):
            track_id = first_or_insert(connection, tracks, {"job_id": run.job_id, "model": model})
            fresh = rows[~_repeated(connection, track_id, str(model), str(version), rows)]
            if fresh.empty:
                continue
            made = connection.execute(
                insert(issues).values(
                    run_id=run.id,
                    track_id=track_id,
                    job_file_id=run.job_file_id,
                    model_version=version,
                    data_version=data_version,
                    known_at=known_at,
                    code_version=code_version,
                    issued_at=issued_at,
                    first_origin=min(fresh["origin"]),
                    last_origin=max(fresh["origin"]),
                )
            )
            assert made.inserted_primary_key is not None
            shared = {"issue_id": int(made.inserted_primary_key[0]), "track_id": track_id}
            connection.execute(insert(forecasts), [{**shared, **row} for row in _records(fresh)])
            new += len(fresh)
        if new:
            grown(connection, forecasts)
    return Issued(new, len(checked) - new)


def _checked(table: pd.DataFrame, as_of: datetime.date) -> pd.DataFrame:
    """Bring a table into the form of the ledger, or say what is wrong with it."""
    # SciPy, which it imports, is not needed to read a ledger.
    from forecaster.scores.losses import forecast_of

    missing = [name for name in ISSUED_COLUMNS if name not in table.columns]
    if missing:
        raise ParameterError(
            f"a table of forecasts to issue has the columns of a forecast. Missing: {', '.join(missing)}"
        )
    if table.empty:
        raise ParameterError("an issue holds at least one forecast. Received: none; skip the step instead")
    forecast_of(table)
    columns = table[["model", "model_version", *KEY, "late"]].reset_index(drop=True)
    for name in ("model", "model_version", "symbol"):
        texts = columns[name].map(lambda value: isinstance(value, str) and value != "")
        if not texts.all():
            raise ParameterError(
                f"`{name}` is a text that is not empty. Received: {columns[name][~texts].tolist()[0]!r}"
            )
    if columns["late"].dtype != bool:
        raise ParameterError(
            f"`late` says true or false of every forecast. Received: a column of {columns['late'].dtype}"
        )
    columns["origin"] = dates(columns["origin"], "origin")
    if (columns["origin"] > as_of).any():
        raise ParameterError(
            f"a forecast of the evening of {as_of} has an origin up to then. Received: "
            f"{max(columns['origin'])}; it would have seen what comes after"
        )
    horizons = columns["horizon"]
    if not pd.api.types.is_integer_dtype(horizons.dtype) or (horizons < 1).any():
        raise ParameterError(f"horizons are positive whole numbers. Received: {sorted(set(horizons))}")
    twice = columns.duplicated(["model", *KEY])
    if twice.any():
        model, symbol, origin, horizon = columns.loc[twice, ["model", *KEY]].iloc[0]
        raise ParameterError(
            "a table of forecasts has one row a model, symbol, origin and horizon. Received more than once: "
            f"{model}, {symbol}, {origin}, {horizon}"
        )
    numbers = table.reindex(columns=list(NUMBERS)).to_numpy(dtype=np.float64)
    if not np.isfinite(numbers[:, 0]).all():
        symbol = columns["symbol"][~np.isfinite(numbers[:, 0])].iloc[0]
        raise ParameterError(f"the close of a forecast is finite. Received: one of {symbol} that is not")
    stated = np.isfinite(numbers[:, [NUMBERS.index(name) for name in TAIL_COLUMNS]])
    partly = stated.any(axis=1) & ~stated.all(axis=1)
    if partly.any():
        raise ParameterError(
            f"a forecast states both tails and the variance, or none of them. Received: "
            f"{columns['symbol'][partly].iloc[0]}, which lacks some"
        )
    # SQLite knows no negative zero; the ledger says the same everywhere.
    sound = pd.DataFrame(numbers + 0.0, columns=list(NUMBERS))
    return pd.concat([columns, sound], axis=1).sort_values(["model", "model_version", *KEY])


def dates(column: pd.Series[Any], name: str) -> pd.Series[Any]:
    """Give dates; a time of day is an error."""
    moments = pd.to_datetime(column)
    if moments.isna().any() or (moments != moments.dt.normalize()).any():
        raise ParameterError(f"`{name}` is a session: a date without a time. Received: a column that has one")
    return pd.Series(moments.dt.date, index=column.index, dtype=object)


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Give rows as the database takes them: Python's own types, None where a tail is not stated."""
    columns: dict[str, list[Any]] = {}
    for name in (*KEY, "late", *NUMBERS):
        values = rows[name].tolist()
        if name in TAIL_COLUMNS:
            values = [None if value != value else value for value in values]
        columns[name] = values
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _repeated(
    connection: Connection, track_id: int, model: str, version: str, rows: pd.DataFrame
) -> NDArray[np.bool_]:
    """Rows that are in the ledger already, after a check that they say the same."""
    names = [*KEY, *NUMBERS]
    found = connection.execute(
        select(*(forecasts.c[name] for name in names), issues.c.model_version)
        .join(issues)
        .where(
            forecasts.c.track_id == track_id,
            forecasts.c.origin.in_(sorted(set(rows["origin"]))),
        )
    ).all()
    if not found:
        return np.zeros(len(rows), dtype=bool)
    there = pd.DataFrame(found, columns=[*names, "version"])
    both = rows[names].merge(there, on=KEY, how="left", suffixes=("", " there"), indicator=True)
    repeated = np.asarray(both["_merge"] == "both")
    mine = both[list(NUMBERS)].to_numpy(dtype=np.float64)
    theirs = both[[f"{name} there" for name in NUMBERS]].to_numpy(dtype=np.float64)
    same = ((mine == theirs) | (np.isnan(mine) & np.isnan(theirs))).all(axis=1)
    _refuse_other(both[repeated & ~same], model, "other numbers")
    other = repeated & np.asarray(both["version"] != version)
    if other.any():
        _refuse_other(both[other], model, f"version {both['version'][other].iloc[0]}, not {version}")
    return repeated


def _refuse_other(rows: pd.DataFrame, model: str, what: str) -> None:
    if len(rows):
        symbol, origin, horizon = rows[KEY].iloc[0]
        raise LedgerError(
            f"a forecast is issued once: {len(rows)} of {model} were issued before with {what}, such as "
            f"{symbol}, {origin}, horizon {horizon}; those stand, so leave them out"
        )


# ----------------------------------------------------------------------------------------------- reading


def _select(job: str | None) -> Select[Any]:
    own = {"id", *KEY, "late", *NUMBERS}
    others: dict[str, ColumnElement[Any]] = {
        "job": jobs.c.name,
        "as_of": runs.c.as_of,
        "model": tracks.c.model,
        "y": outcomes.c.y,
        "job_hash": job_files.c.hash,
    }
    columns = [
        forecasts.c[name] if name in own else others[name] if name in others else issues.c[name]
        for name in FORECAST_COLUMNS
    ]
    query = (
        select(*columns)
        .select_from(forecasts)
        .join(tracks, tracks.c.id == forecasts.c.track_id)
        .join(jobs, jobs.c.id == tracks.c.job_id)
        .join(issues, issues.c.id == forecasts.c.issue_id)
        .join(runs, runs.c.id == issues.c.run_id)
        .join(job_files, job_files.c.id == issues.c.job_file_id)
        .outerjoin(
            outcomes,
            (outcomes.c.job_id == tracks.c.job_id)
            & (outcomes.c.origin == forecasts.c.origin)
            & (outcomes.c.symbol == forecasts.c.symbol)
            & (outcomes.c.horizon == forecasts.c.horizon),
        )
    )
    return query if job is None else query.where(jobs.c.name == job)


def _table(connection: Connection, query: Select[Any]) -> pd.DataFrame:
    rows = connection.execute(query).all()
    table = pd.DataFrame(rows, columns=FORECAST_COLUMNS)
    kinds = dict.fromkeys((*NUMBERS, "y"), "float64") | {"id": "int64", "horizon": "int64", "late": "bool"}
    table = table.astype(kinds)
    for name in ("as_of", "origin"):
        table[name] = pd.to_datetime(table[name]).astype("datetime64[ms]")
    for name in ("known_at", "issued_at"):
        table[name] = pd.to_datetime(table[name], utc=True).astype("datetime64[us, UTC]")
    return table.sort_values(["job", "model", *KEY], ignore_index=True)


def read_forecasts(
    connection: Connection,
    job: str | None = None,
    models: Sequence[str] | None = None,
    symbols: Sequence[str] | None = None,
    start: datetime.date | None = None,
    end: datetime.date | None = None,
    horizons: Sequence[int] | None = None,
    forecast_id: int | None = None,
) -> pd.DataFrame:
    """Read forecasts; see `forecaster.ledger.Ledger.forecasts`."""
    query = _select(job)
    if models is not None:
        query = query.where(tracks.c.model.in_(models))
    if symbols is not None:
        query = query.where(forecasts.c.symbol.in_(symbols))
    if horizons is not None:
        query = query.where(forecasts.c.horizon.in_(horizons))
    if start is not None:
        query = query.where(forecasts.c.origin >= start)
    if end is not None:
        query = query.where(forecasts.c.origin <= end)
    if forecast_id is not None:
        query = query.where(forecasts.c.id == forecast_id)
    return _table(connection, query)


def read_latest(connection: Connection, job: str, as_of: datetime.date | None = None) -> pd.DataFrame:
    """Read the forecasts of the last evening; see `forecaster.ledger.Ledger.latest`."""
    of_job = issues.join(runs).join(jobs, jobs.c.id == runs.c.job_id)
    evenings = select(func.max(runs.c.as_of)).select_from(of_job).where(jobs.c.name == job)
    if as_of is not None:
        evenings = evenings.where(runs.c.as_of <= as_of)
    last = connection.execute(evenings).scalar()
    spans = connection.execute(
        select(issues.c.id, issues.c.track_id, issues.c.first_origin, issues.c.last_origin)
        .select_from(of_job)
        .where(jobs.c.name == job, runs.c.as_of == last)
    ).all()
    tables = [
        _table(
            connection,
            # By track and origin, of which there is an index.
            _select(job).where(
                forecasts.c.track_id == span.track_id,
                forecasts.c.origin >= span.first_origin,
                forecasts.c.origin <= span.last_origin,
                forecasts.c.issue_id == span.id,
            ),
        )
        for span in spans
    ]
    if not tables:
        return _table(connection, _select(job).where(forecasts.c.id < 0))
    return pd.concat(tables).sort_values(["model", *KEY], ignore_index=True)


def read_seen(connection: Connection, symbol: str, session: datetime.date) -> pd.DataFrame:
    """Read which forecasts had seen a price; see `forecaster.ledger.Ledger.seen`."""
    query = _select(None).where(forecasts.c.symbol == symbol, forecasts.c.origin >= session)
    return _table(connection, query).drop(columns=[*NUMBERS, "y"])
