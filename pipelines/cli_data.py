"""The commands under ``forecaster data``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipelines import console
from pipelines.console import Config, Debug, Symbols

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["data_app"]

LISTED = 60
"""Rows that are printed of a table; all of it goes into the file of ``--output``."""

data_app = typer.Typer(
    help="Look into the price store, settle what is quarantined, and tidy it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Output = Annotated[
    Path | None, typer.Option("--output", help="Write the whole table to this CSV file.", metavar="FILE")
]
Session = Annotated[str, typer.Argument(help="The session, YYYY-MM-DD.", metavar="SESSION")]
Symbol = Annotated[str, typer.Argument(help="The symbol.", metavar="SYMBOL")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.")]
Results = Annotated[
    list[Path] | None,
    typer.Option("--results", help="Folder of finished results; may be given more than once.", metavar="DIR"),
]


@data_app.command()
def status(config: Config, symbols: Symbols = "", output: Output = None, debug: Debug = False) -> None:
    """Show what the store holds of each symbol, when it was fetched, and how far it lies behind."""
    with console.errors(debug):
        job = console.load(config)
        from pipelines.data import data_status

        table = data_status(job, console.parse_symbols(symbols)).reset_index()
        shown = {
            "symbol": table["symbol"],
            "sessions": table["sessions"],
            "first": table["first_session"],
            "last": table["last_session"],
            "behind": table["behind"],
            "fetched": table["last_fetched"],
            "held": table["quarantined"],
            "restated": table["restated"],
        }
        _show(shown, table, output)
        for row in table[table["notice"].notna()].head(LISTED).itertuples():
            print(console.shown(f"{row.symbol}: {row.notice}"))


@data_app.command()
def diff(
    config: Config,
    since: Annotated[
        str | None, typer.Option("--since", help="Only what was fetched after this time.", metavar="TIME")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="Only what was fetched up to this time.", metavar="TIME")
    ] = None,
    symbols: Symbols = "",
    results: Results = None,
    output: Output = None,
    debug: Debug = False,
) -> None:
    """Show what sources changed in history, and which forecasts had seen the old values."""
    with console.errors(debug):
        job = console.load(config)
        from pipelines.data import data_diff, forecasts_that_saw, issued_forecasts
        from pipelines.loading import open_store

        begin = console.parse_moment(since, "--since", begins=True)
        moments = (begin, console.parse_moment(until, "--until"))
        table = data_diff(job, *moments, console.parse_symbols(symbols))
        shown = {
            "symbol": table["symbol"],
            "session": table["session"],
            "number": table["column"],
            "old": table["old"],
            "new": table["new"],
            "fetched": table["new_fetched_at"],
        }
        _show(shown, table, output)
        if results:
            issued, url = issued_forecasts(results), open_store(job).url
            # The same store may have been reached by another path.
            others = issued.loc[issued["store"] != url, ["results", "store"]].drop_duplicates()
            for folder, store in others.itertuples(index=False):
                console.tell(
                    f"warning: {folder}: its forecasts were made from the store {store}, this is {url}; what "
                    "follows of them is true if both are the same"
                )
            seen = forecasts_that_saw(table, issued)
            for (folder, symbol), rows in seen.groupby(["results", "symbol"]):
                origins = rows["origin"]
                print(
                    f"{folder}: {len(rows)} forecasts of {symbol} saw old values, of origins "
                    f"{origins.min():%Y-%m-%d} to {origins.max():%Y-%m-%d}"
                )
            if seen.empty:
                print("no forecast of these results saw an old value")


@data_app.command()
def quarantine(config: Config, symbols: Symbols = "", output: Output = None, debug: Debug = False) -> None:
    """Show the sessions that wait for a decision."""
    with console.errors(debug):
        job = console.load(config)
        from pipelines.data import data_quarantine

        table = data_quarantine(job, console.parse_symbols(symbols))
        shown = {
            "symbol": table["symbol"],
            "session": table["session"],
            "close": table["close"],
            "dividend": table["dividend"],
            "split": table["split"],
            "reason": table["reason"],
        }
        _show(shown, table, output)


@data_app.command()
def accept(
    config: Config,
    symbol: Symbol,
    session: Session,
    reason: Reason = "looked at and found true",
    debug: Debug = False,
) -> None:
    """Accept a quarantined session: from now on it is read."""
    _settle(config, symbol, session, "accept", reason, debug)


@data_app.command()
def reject(
    config: Config,
    symbol: Symbol,
    session: Session,
    reason: Reason = "looked at and found wrong",
    debug: Debug = False,
) -> None:
    """Reject a session: from now on it is not read."""
    _settle(config, symbol, session, "reject", reason, debug)


def _settle(
    config: Path, symbol: str, session: str, decision: Literal["accept", "reject"], reason: str, debug: bool
) -> None:
    with console.errors(debug):
        job = console.load(config)
        day = console.parse_date(session, "SESSION")
        from pipelines.data import settle_session

        changed = day is not None and settle_session(job, symbol, day, decision, reason)
        print(f"{symbol} {session}: {'' if changed else 'was already '}{decision}ed")


@data_app.command()
def compact(
    config: Config,
    before: Annotated[
        str | None,
        typer.Option(
            "--before", help="Drop what was known before this time and is known no more.", metavar="TIME"
        ),
    ] = None,
    results: Results = None,
    debug: Debug = False,
) -> None:
    """Merge the files of the store; what forecasts in the workspace and in --results saw is kept."""
    with console.errors(debug):
        job = console.load(config)
        from pipelines.data import compact_data

        limit = console.parse_moment(before, "--before", begins=True)
        compacted = compact_data(job, limit, results or [])
        done = compacted.done
        print(
            f"{done.files_before} files became {done.files_after}; {done.rows_dropped} rows dropped, "
            f"{done.files_deleted} old files deleted"
        )
        if compacted.kept:
            print(f"kept what forecasts of {compacted.kept} earlier times saw")
        for moment in done.lost:
            print(f"warning: what was known at {moment} was dropped before and cannot be kept")


@data_app.command()
def backup(
    config: Config,
    folder: Annotated[Path, typer.Argument(help="The copy: a folder that is not there yet.", metavar="DIR")],
    debug: Debug = False,
) -> None:
    """Copy the price store, as it is at one moment."""
    with console.errors(debug):
        from pipelines.loading import open_store

        open_store(console.load(config)).backup(folder)
        print(f"Backup: {folder}")


@data_app.command()
def restore(
    config: Config,
    folder: Annotated[Path, typer.Argument(help="What `data backup` wrote.", metavar="DIR")],
    debug: Debug = False,
) -> None:
    """Make the job's price store, which must not be there, from a copy."""
    with console.errors(debug):
        from pipelines.loading import open_store

        store = open_store(console.load(config))
        store.restore(folder)
        print(f"Price store: {store.url}")


def _show(columns: dict[str, pd.Series], table: pd.DataFrame, output: Path | None) -> None:
    """Print the first rows of some columns, and write the whole table where it is asked for."""
    from rich.table import Table
    from rich.text import Text

    from forecaster.errors import JobError

    if output is not None:
        try:
            table.to_csv(output, index=False)
        except OSError as error:
            raise JobError(
                f"the table cannot be written to {output}: {error.strerror or error}; name another file"
            ) from None
    shown = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for name in columns:
        shown.add_column(
            name,
            justify="left" if name in ("symbol", "number", "reason") else "right",
            no_wrap=name not in ("symbol", "reason"),
            overflow="fold",
        )
    for row in zip(*(values.head(LISTED) for values in columns.values()), strict=True):
        shown.add_row(*(Text(_text(value)) for value in row))
    console.output_console.print(shown)
    if len(table) > LISTED:
        print(f"the first {LISTED} of {len(table)}; --output writes all")


def _text(value: object) -> str:
    import pandas as pd

    if value is None or value is pd.NaT or value is pd.NA or value != value:
        return ""
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}" if value.tzinfo is None else f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, float):
        return f"{value:,.10g}"
    return console.shown(str(value))
