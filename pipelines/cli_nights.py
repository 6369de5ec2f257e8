"""The commands of the evening: its steps, what was done, and what is done again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines import console
from pipelines.console import Config, Debug

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence

    import pandas as pd

    from forecaster.job import Job
    from pipelines.daily import Night

__all__ = ["ledger_app", "nights_app", "run_evening"]

nights_app = typer.Typer(add_completion=False, rich_markup_mode=None)
ledger_app = typer.Typer(
    help="Copy the ledger, and bring a copy back.", no_args_is_help=True, rich_markup_mode=None
)

SHOWN_REASON = 100
"""Characters of a reason in the table of the status."""

LATER = "what is done stays, and the next attempt goes on from there"

AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        help="The evening, YYYY-MM-DD; the last finished session if not given.",
        metavar="DATE",
    ),
]
Wait = Annotated[
    float,
    typer.Option("--wait", min=0.0, help="Seconds to wait for another process that does the same."),
]
File = Annotated[Path, typer.Argument(help="The copy.", metavar="FILE")]


@nights_app.command()
def daily(config: Config, as_of: AsOf = None, wait: Wait = 0.0, debug: Debug = False) -> None:
    """Do the evening: ingest, train where it is due, forecast into the ledger, score, report and tidy."""
    run_evening(config, as_of, wait, debug, ())


@nights_app.command()
def train(config: Config, as_of: AsOf = None, wait: Wait = 0.0, debug: Debug = False) -> None:
    """Train a challenger where one is due, and let the verdict decide whether it becomes the champion."""
    run_evening(config, as_of, wait, debug, ("train",))


@nights_app.command()
def score(config: Config, as_of: AsOf = None, wait: Wait = 0.0, debug: Debug = False) -> None:
    """Record the outcomes that are known, and score the forecasts of them."""
    run_evening(config, as_of, wait, debug, ("score",))


def run_evening(config: Path, as_of: str | None, wait: float, debug: bool, names: Sequence[str]) -> None:
    """Do some steps of an evening, or all of them, and end with the exit code that follows."""
    with console.errors(debug, LATER):
        console.quiet()
        job = console.load(config)
        evening = _evening(job, as_of)
        from pipelines.daily import STEPS, run_steps

        with console.progress_bar() as progress, _later():
            night = run_steps(job, config, evening, tuple(names or STEPS), progress, wait=wait)
        _show_night(job, night)
        console.finish(night.failures, night.coverage, job.minimum_coverage, "failed")
        if "failed" in night.steps.values():
            raise typer.Exit(console.PARTIAL)


@contextmanager
def _later() -> Iterator[None]:
    """Turn what prices are to blame for into a failure that another attempt may not meet."""
    from forecaster.errors import DataError, ForecasterError

    try:
        yield
    except DataError as error:
        raise ForecasterError(f"{error}; {LATER}") from error


def _evening(job: Job, as_of: str | None) -> datetime.date:
    given = console.parse_date(as_of, "--as-of")
    if given is not None:
        return given
    from pipelines.evening import evening_of, utc_now

    return evening_of(job, utc_now())


def _show_night(job: Job, night: Night) -> None:
    done = ", ".join(f"{name} {became}" for name, became in night.steps.items())
    print(f"{job.name}, evening of {night.as_of}: {done}")
    print(f"Ledger: {_shown_url(job)}")


def _shown_url(job: Job) -> str:
    from forecaster.redaction import redact

    return redact(job.ledger_url)


@nights_app.command()
def backfill(
    config: Config,
    start: Annotated[str, typer.Option("--from", help="First evening, YYYY-MM-DD.", metavar="DATE")],
    end: Annotated[str, typer.Option("--to", help="Last evening, YYYY-MM-DD.", metavar="DATE")],
    wait: Wait = 0.0,
    debug: Debug = False,
) -> None:
    """Do every evening of a span that was missed; forecasts that come too late are marked."""
    with console.errors(debug, LATER):
        console.quiet()
        job = console.load(config)
        first, last = console.parse_date(start, "--from"), console.parse_date(end, "--to")
        assert first is not None
        assert last is not None
        from pipelines.backfill import backfill_job

        failures: dict[str, str] = {}
        partly, coverage = False, 1.0
        with console.progress_bar() as progress, _later():
            for night in backfill_job(job, config, first, last, progress, wait=wait):
                _show_night(job, night)
                failures |= night.failures
                partly |= "failed" in night.steps.values()
                coverage = min(coverage, night.coverage)
        console.finish(failures, coverage, job.minimum_coverage, "failed")
        if partly:
            raise typer.Exit(console.PARTIAL)


@nights_app.command()
def status(
    config: Config,
    evenings: Annotated[int, typer.Option("--evenings", min=1, help="How many of the last evenings.")] = 5,
    debug: Debug = False,
) -> None:
    """Show what was done on the last evenings, what went wrong, and how good the forecasts were."""
    with console.errors(debug):
        job = console.load(config)
        from pipelines.evening import open_ledger

        _require_ledger(job.ledger_url, " yet; `forecaster daily` makes it on the first evening")
        with open_ledger(job) as ledger:
            steps = ledger.status(job.name, evenings=evenings)
            record, events = ledger.track_record(job.name), ledger.model_events(job.name)
            alerts = ledger.alerts(job.name)
        seconds = (steps["finished_at"] - steps["started_at"]).dt.total_seconds()
        shown = steps.assign(seconds=seconds)
        _table(
            f"{job.name}: the last evenings",
            shown[["as_of", "step", "attempt", "status", "seconds", "reason"]],
        )
        _table("Models in use", events[["as_of", "event", "model", "version", "reason"]].tail(5))
        _table("Alerts", alerts[["as_of", "check", "state", "reason"]].tail(10))
        _table(
            "Track record, late forecasts left out",
            record[["model", "horizon", "forecasts", "first_origin", "last_origin", "crps", "coverage_80"]],
        )


def _require_ledger(url: str, way_out: str) -> None:
    """Refuse a file that is not there: to open it would make a ledger."""
    from forecaster.errors import LedgerError

    path = url.removeprefix("sqlite:///")
    if "://" not in path and not Path(path).exists():
        raise LedgerError(f"there is no ledger {path}{way_out}")


def _table(title: str, rows: pd.DataFrame) -> None:
    import pandas as pd
    from rich.table import Table
    from rich.text import Text

    if rows.empty:
        return
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), header_style="bold")
    for name in rows.columns:
        table.add_column(str(name), no_wrap=name != "reason", overflow="fold")

    def text(value: object) -> str:
        if value is None or value is pd.NaT or value != value:
            return ""
        if isinstance(value, pd.Timestamp):
            midnight = value.tzinfo is None and value == value.normalize()
            return f"{value:%Y-%m-%d}" if midnight else f"{value:%m-%d %H:%M:%S}"
        if isinstance(value, float):
            return f"{value:.4g}"
        said = console.shown(str(value))
        return said if len(said) <= SHOWN_REASON else f"{said[: SHOWN_REASON - 3]}..."

    for row in rows.itertuples(index=False):
        table.add_row(*(Text(text(value)) for value in row))
    console.output_console.print(table)


@nights_app.command()
def rollback(
    config: Config,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")] = "asked for",
    debug: Debug = False,
) -> None:
    """Make the previous model the champion again; the champion until now becomes the previous one."""
    with console.errors(debug):
        console.quiet()
        job = console.load(config)
        from pipelines.rollback import rollback_job

        champion, previous = rollback_job(job, reason)
        print(f"Champion: {champion.model}, version {champion.number}; before: version {previous.number}")


@nights_app.command()
def reproduce(
    forecast_id: Annotated[int, typer.Argument(help="Id of a forecast in the ledger.", metavar="ID")],
    config: Annotated[
        Path | None,
        typer.Option("--config", help="The job file; says where the ledger is.", metavar="CONFIG"),
    ] = None,
    ledger: Annotated[
        str | None, typer.Option("--ledger", help="The ledger, instead of --config.", metavar="URL")
    ] = None,
    debug: Debug = False,
) -> None:
    """Make an issued forecast again from the versions that the ledger has of it, and compare every bit."""
    with console.errors(debug):
        console.quiet()
        from forecaster.errors import ForecasterError
        from forecaster.ledger import Ledger
        from pipelines.reproduce import reproduce_forecast

        url = ledger or (console.load(config).ledger_url if config else "workspace/ledger.db")
        _require_ledger(url, "; name another by --config or --ledger")
        with Ledger.open(url) as opened:
            done = reproduce_forecast(opened, forecast_id, config.parent if config else Path())
        row = done.issued
        print(
            f"Forecast {forecast_id}: {row['model']} version {row['model_version']}, {row['symbol']} from "
            f"{row['origin']:%Y-%m-%d} over {row['horizon']} sessions, issued "
            f"{row['issued_at']:%Y-%m-%d %H:%M:%S} UTC{', late' if row['late'] else ''}"
        )
        if row["code_version"] != done.code_version:
            print(
                f"warning: made by code {row['code_version']}; this is {done.code_version}", file=sys.stderr
            )
        if done.differing:
            name = done.differing[0]
            raise ForecasterError(
                f"forecast {forecast_id} is not the same: {len(done.differing)} numbers differ, such as "
                f"{name}: issued {float(row[name])!r}, again {float(done.again[name])!r}; the CPU, the "
                "threads, the libraries or the code are others"
            )
        print("Made again: identical to the bit")


@ledger_app.command()
def backup(config: Config, file: File, debug: Debug = False) -> None:
    """Copy the ledger, as it is at one moment, into a file that is not there yet."""
    with console.errors(debug):
        job = console.load(config)
        from pipelines.evening import open_ledger

        with open_ledger(job) as ledger:
            ledger.backup(file)
        print(f"Backup: {file}")


@ledger_app.command()
def restore(config: Config, file: File, debug: Debug = False) -> None:
    """Make the job's ledger, which must not be there, from a backup."""
    with console.errors(debug):
        job = console.load(config)
        from forecaster.ledger import Ledger

        Ledger.restore(file, job.ledger_url)
        print(f"Ledger: {_shown_url(job)}")
