"""The tables of the ledger, as the code reads them; `migrations` makes them.

============ ==========================================================================================
table        one row
============ ==========================================================================================
jobs         a job, by name
job_files    one content of a job's file
runs         one evening of a job: the session `as_of`
steps        one attempt at a step of a run
tracks       a model of a job: what a track record is of
issues       what the forecasts that one model issued together share: versions, and when
forecasts    a forecast as issued: a symbol, an origin and a horizon
outcomes     what then happened: the cumulative log return, as the job computes returns
scores       losses of a forecast that was issued in time
model_events a change of the model in use: promotion, rollback, fallback
alerts       what the monitoring found wrong
============ ==========================================================================================

Runs and steps change while they are worked on. Every other row is written once: triggers refuse UPDATE,
DELETE and TRUNCATE, in SQLite also the replacement of a row, and the score of a late forecast.
"""

from __future__ import annotations

import datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

from forecaster.quantiles import TAIL_COLUMNS, quantile_columns

__all__ = [
    "APPEND_ONLY",
    "METADATA",
    "NUMBERS",
    "SCORES",
    "VERSION_TABLE",
    "alerts",
    "forecasts",
    "issues",
    "job_files",
    "jobs",
    "model_events",
    "outcomes",
    "runs",
    "scores",
    "steps",
    "tracks",
]

VERSION_TABLE = "ledger_version"
"""Holds the revision of the schema; no other tool's, so that a database of another tool is recognised."""

NUMBERS = ("close", *quantile_columns(), *TAIL_COLUMNS)
"""Columns of `forecasts` that hold what is forecast, and the close that prices follow from."""

SCORES = (
    "crps",
    "pit",
    "absolute_error",
    "coverage_50",
    "coverage_80",
    "coverage_95",
    "hit_rate_0.01",
    "hit_rate_0.05",
    "pinball_0.01",
    "pinball_0.05",
    "pinball_0.95",
    "pinball_0.99",
)
"""Columns of `scores`, named and defined as by `forecaster.scores.row_scores`."""

METADATA = MetaData()
IDENTITY = BigInteger().with_variant(Integer(), "sqlite")


class Moment(TypeDecorator[datetime.datetime]):
    """A time in UTC, to the microsecond: aware in Python, without a zone in SQLite, which has none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self, value: datetime.datetime | None, dialect: Dialect
    ) -> datetime.datetime | None:
        """Give UTC; a time without a zone is an error, not a guess."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time of the ledger has a zone. Received: {value.isoformat()}")
        moment = value.astimezone(datetime.UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(
        self, value: datetime.datetime | None, dialect: Dialect
    ) -> datetime.datetime | None:
        """Give an aware time in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value.astimezone(datetime.UTC)


jobs = Table(
    "jobs",
    METADATA,
    Column("id", IDENTITY, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)

job_files = Table(
    "job_files",
    METADATA,
    Column("id", IDENTITY, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("hash", Text, nullable=False),
    Column("yaml", Text, nullable=False),
    Column("added_at", Moment, nullable=False),
    UniqueConstraint("job_id", "hash"),
)

runs = Table(
    "runs",
    METADATA,
    Column("id", IDENTITY, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("as_of", Date, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("started_at", Moment, nullable=False),
    UniqueConstraint("job_id", "as_of"),
)

steps = Table(
    "steps",
    METADATA,
    Column("id", IDENTITY, primary_key=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Column("code_version", Text),
    Column("data_version", Text),
    Column("model_version", Text),
    Column("reason", Text),
    Column("host", Text),
    Column("pid", Integer),
    Column("process", Text),
    Column("lease_until", Moment),
    UniqueConstraint("run_id", "name", "attempt"),
)

tracks = Table(
    "tracks",
    METADATA,
    Column("id", IDENTITY, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("model", Text, nullable=False),
    UniqueConstraint("job_id", "model"),
)

issues = Table(
    "issues",
    METADATA,
    Column("id", IDENTITY, primary_key=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("track_id", ForeignKey("tracks.id"), nullable=False),
    Column("job_file_id", ForeignKey("job_files.id"), nullable=False),
    Column("model_version", Text, nullable=False),
    Column("data_version", Text, nullable=False),
    Column("known_at", Moment),
    Column("code_version", Text, nullable=False),
    Column("issued_at", Moment, nullable=False),
    Column("first_origin", Date, nullable=False),
    Column("last_origin", Date, nullable=False),
    Index("issues_of_run", "run_id"),
)

forecasts = Table(
    "forecasts",
    METADATA,
    Column("id", IDENTITY, primary_key=True),
    Column("issue_id", ForeignKey("issues.id"), nullable=False),
    Column("track_id", ForeignKey("tracks.id"), nullable=False),
    Column("symbol", Text, nullable=False),
    Column("origin", Date, nullable=False),
    Column("horizon", Integer, nullable=False),
    Column("late", Boolean, nullable=False),
    *(Column(name, Double, nullable=name in TAIL_COLUMNS) for name in NUMBERS),
    # Evenings are appended at one end of it.
    UniqueConstraint("track_id", "origin", "symbol", "horizon", name="forecasts_once"),
    Index("forecasts_of_symbol", "symbol", "origin"),
)

outcomes = Table(
    "outcomes",
    METADATA,
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("origin", Date, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("horizon", Integer, nullable=False),
    Column("target", Date, nullable=False),
    Column("y", Double, nullable=False),
    Column("data_version", Text, nullable=False),
    Column("scored_at", Moment, nullable=False),
    PrimaryKeyConstraint("job_id", "origin", "symbol", "horizon"),
    sqlite_with_rowid=False,
)

scores = Table(
    "scores",
    METADATA,
    Column("track_id", BigInteger, nullable=False),
    Column("horizon", Integer, nullable=False),
    Column("origin", Date, nullable=False),
    Column("symbol", Text, nullable=False),
    *(Column(name, Double, nullable=False) for name in SCORES),
    # A track record reads a model and horizon in one sweep.
    PrimaryKeyConstraint("track_id", "horizon", "origin", "symbol"),
    ForeignKeyConstraint(
        ["track_id", "origin", "symbol", "horizon"],
        ["forecasts.track_id", "forecasts.origin", "forecasts.symbol", "forecasts.horizon"],
    ),
    sqlite_with_rowid=False,
)

model_events = Table(
    "model_events",
    METADATA,
    Column("id", IDENTITY, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("as_of", Date, nullable=False),
    Column("event", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("recorded_at", Moment, nullable=False),
    UniqueConstraint("job_id", "as_of", "event", "model", "version"),
)

alerts = Table(
    "alerts",
    METADATA,
    Column("id", IDENTITY, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("as_of", Date, nullable=False),
    Column("check", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("recorded_at", Moment, nullable=False),
    UniqueConstraint("job_id", "as_of", "check", "state"),
)

APPEND_ONLY = (jobs, job_files, tracks, issues, forecasts, outcomes, scores, model_events, alerts)
"""Tables whose rows are never changed."""
