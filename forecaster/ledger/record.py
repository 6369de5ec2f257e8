"""Outcomes, scores and the track record."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Connection, Select, func, insert, select

from forecaster.errors import LedgerError, ParameterError
from forecaster.ledger.database import Database, grown
from forecaster.ledger.forecasts import KEY, dates, read_forecasts
from forecaster.ledger.tables import SCORES, forecasts, jobs, outcomes, scores, tracks

__all__ = ["Scored", "pending_outcomes", "read_scores", "record_outcomes", "track_record"]

_OUTCOME = [*KEY, "target", "y"]


@dataclass(frozen=True)
class Scored:
    """What a record of outcomes did.

    Parameters
    ----------
    outcomes : int
        Outcomes that were new.
    scores : int
        Forecasts that were scored.
    """

    outcomes: int
    scores: int


def pending_outcomes(connection: Connection, job: str, since: datetime.date) -> pd.DataFrame:
    """Read what has no outcome; see `forecaster.ledger.Ledger.pending_outcomes`."""
    known = (
        select(outcomes.c.horizon)
        .where(
            outcomes.c.job_id == tracks.c.job_id,
            outcomes.c.origin == forecasts.c.origin,
            outcomes.c.symbol == forecasts.c.symbol,
            outcomes.c.horizon == forecasts.c.horizon,
        )
        .exists()
    )
    rows = connection.execute(
        select(*(forecasts.c[name] for name in KEY))
        .select_from(forecasts)
        .join(tracks, tracks.c.id == forecasts.c.track_id)
        .where(forecasts.c.track_id.in_(list(_models(connection, job))), forecasts.c.origin >= since, ~known)
        .distinct()
        .order_by(*(forecasts.c[name] for name in KEY))
    ).all()
    table = pd.DataFrame(rows, columns=KEY).astype({"horizon": "int64"})
    table["origin"] = pd.to_datetime(table["origin"]).astype("datetime64[ms]")
    return table


def _models(connection: Connection, job: str) -> dict[int, str]:
    """Names of a job's models by the id of their track."""
    query = select(tracks.c.id, tracks.c.model).join(jobs).where(jobs.c.name == job)
    return {row.id: row.model for row in connection.execute(query)}


def record_outcomes(
    database: Database, job: str, table: pd.DataFrame, data_version: str, scored_at: datetime.datetime
) -> Scored:
    """Record outcomes and score forecasts; see `forecaster.ledger.Ledger.record_outcomes`."""
    checked = _checked(table)
    with database.writing() as connection:
        job_id = connection.execute(select(jobs.c.id).where(jobs.c.name == job)).scalar()
        if job_id is None:
            raise LedgerError(f"outcomes belong to a job of the ledger. Received: {job!r}; start a run first")
        fresh = checked[~_repeated(connection, job_id, checked)]
        if len(fresh):
            shared = {"job_id": job_id, "data_version": data_version, "scored_at": scored_at}
            rows = _records(fresh[_OUTCOME])
            connection.execute(insert(outcomes), [{**shared, **row} for row in rows])
            grown(connection, outcomes)
        return Scored(len(fresh), _score(connection, job, checked))


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    missing = [name for name in _OUTCOME if name not in table.columns]
    if missing:
        raise ParameterError(f"a table of outcomes has 5 columns. Missing: {', '.join(missing)}")
    checked = table[_OUTCOME].reset_index(drop=True)
    for name in ("origin", "target"):
        checked[name] = dates(checked[name], name)
    if (checked["target"] <= checked["origin"]).any():
        symbol, origin = checked.loc[checked["target"] <= checked["origin"], ["symbol", "origin"]].iloc[0]
        raise ParameterError(f"an outcome comes after its origin. Received: {symbol}, {origin}, no later")
    y = checked["y"].to_numpy(dtype=np.float64) + 0.0
    if not np.isfinite(y).all():
        symbol, origin, _ = checked.loc[~np.isfinite(y), KEY].iloc[0]
        raise ParameterError(
            f"an outcome is a finite number. Received: {symbol}, {origin} without one; leave it out until it "
            "is known"
        )
    if checked.duplicated(KEY).any():
        symbol, origin, horizon = checked.loc[checked.duplicated(KEY), KEY].iloc[0]
        raise ParameterError(
            f"there is one outcome a symbol, origin and horizon. Received more: {symbol}, {origin}, {horizon}"
        )
    return checked.assign(y=y)


def _repeated(connection: Connection, job_id: int, rows: pd.DataFrame) -> pd.Series[bool]:
    """Outcomes that are in the ledger already, after a check that they are the same."""
    found = connection.execute(
        select(*(outcomes.c[name] for name in _OUTCOME)).where(
            outcomes.c.job_id == job_id, outcomes.c.origin.in_(sorted(set(rows["origin"])))
        )
    ).all()
    there = pd.DataFrame(found, columns=_OUTCOME, dtype=object)
    both = rows.merge(there, on=KEY, how="left", suffixes=("", " there"), indicator=True)
    repeated = both["_merge"] == "both"
    other = both[repeated & ((both["y"] != both["y there"]) | (both["target"] != both["target there"]))]
    if len(other):
        symbol, origin, horizon = other[KEY].iloc[0]
        raise LedgerError(
            f"an outcome is recorded once: {len(other)} were recorded before with another value, such as "
            f"{symbol}, {origin}, horizon {horizon}; those stand, so leave them out"
        )
    return repeated


def _score(connection: Connection, job: str, checked: pd.DataFrame) -> int:
    """Score the forecasts in time that these outcomes are of, and that have no score yet."""
    from forecaster.scores import row_scores

    wanted = pd.MultiIndex.from_frame(checked[KEY].assign(origin=pd.to_datetime(checked["origin"])))
    ids = {model: track_id for track_id, model in _models(connection, job).items()}
    count = 0
    # An origin at a time: a year of forecasts that waited for their outcome would not fit into memory.
    for origin in sorted(set(checked["origin"])):
        horizons = sorted(set(checked["horizon"][checked["origin"] == origin].tolist()))
        found = read_forecasts(connection, job, start=origin, end=origin, horizons=horizons)
        found = found[~found["late"] & pd.MultiIndex.from_frame(found[KEY]).isin(wanted)]
        done = connection.execute(
            select(scores.c.track_id, scores.c.symbol, scores.c.horizon).where(
                scores.c.track_id.in_(list(ids.values())),
                scores.c.horizon.in_(horizons),
                scores.c.origin == origin,
            )
        ).all()
        found["track_id"] = found["model"].map(ids)
        keys = pd.MultiIndex.from_frame(found[["track_id", "symbol", "horizon"]])
        found = found[~keys.isin([tuple(row) for row in done])]
        if found.empty:
            continue
        losses = row_scores(found)[list(SCORES)]
        new = pd.concat([found[["track_id", "symbol", "horizon"]], losses], axis=1).assign(origin=origin)
        connection.execute(insert(scores), _records(new))
        count += len(new)
    if count:
        grown(connection, scores)
    return count


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Give rows as the database takes them, in Python's own types."""
    names = [str(name) for name in table.columns]
    columns = [table[name].tolist() for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


# ------------------------------------------------------------------------------------------ the track record


def _of(
    query: Select[Any], ids: list[int], start: datetime.date | None, end: datetime.date | None
) -> Select[Any]:
    """Keep the scores of some models and origins."""
    query = query.where(scores.c.track_id.in_(ids))
    if start is not None:
        query = query.where(scores.c.origin >= start)
    if end is not None:
        query = query.where(scores.c.origin <= end)
    return query


def track_record(
    connection: Connection,
    job: str,
    start: datetime.date | None,
    end: datetime.date | None,
    by_origin: bool,
) -> pd.DataFrame:
    """Average scores; see `forecaster.ledger.Ledger.track_record`."""
    group = [scores.c.track_id, scores.c.horizon, *([scores.c.origin] if by_origin else [])]
    averages = [func.avg(scores.c[name]).label(name) for name in SCORES]
    spans = [] if by_origin else [func.min(scores.c.origin), func.max(scores.c.origin)]
    query = select(*group, func.count(), *spans, *averages).group_by(*group).order_by(*group)
    models = _models(connection, job)
    rows = connection.execute(_of(query, list(models), start, end)).all()
    origins = ["origin"] if by_origin else ["first_origin", "last_origin"]
    first = ["model", "horizon", *(["origin"] if by_origin else [])]
    columns = [*first, "forecasts", *([] if by_origin else origins), *SCORES]
    table = pd.DataFrame(rows, columns=columns)
    table["model"] = table["model"].map(models).astype("str")
    for name in origins:
        table[name] = pd.to_datetime(table[name]).astype("datetime64[ms]")
    kinds = dict.fromkeys(SCORES, "float64") | dict.fromkeys(("horizon", "forecasts"), "int64")
    return table.astype(kinds).sort_values(first, ignore_index=True)


def read_scores(
    connection: Connection, job: str, start: datetime.date | None, end: datetime.date | None
) -> pd.DataFrame:
    """Read scores; see `forecaster.ledger.Ledger.scores`."""
    columns = [scores.c[name] for name in (*KEY, *SCORES)]
    query = select(tracks.c.model, *columns).join(tracks, tracks.c.id == scores.c.track_id)
    rows = connection.execute(_of(query, list(_models(connection, job)), start, end)).all()
    table = pd.DataFrame(rows, columns=["model", *KEY, *SCORES])
    table["origin"] = pd.to_datetime(table["origin"]).astype("datetime64[ms]")
    table = table.astype(dict.fromkeys(SCORES, "float64") | {"horizon": "int64"})
    return table.sort_values(["model", *KEY], ignore_index=True)
