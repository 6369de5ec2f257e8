"""The command line; imports lazily, so that ``--help`` answers at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forecaster.errors import JobError
from pipelines import console
from pipelines.cli_data import data_app
from pipelines.cli_nights import ledger_app, nights_app, run_evening
from pipelines.cli_operate import operate_app
from pipelines.cli_readers import readers_app
from pipelines.console import Config, Debug, Symbols

if TYPE_CHECKING:
    from pipelines.audit import Audit
    from pipelines.backtest import BacktestResult
    from pipelines.ingest import IngestResult
    from pipelines.loading import JobData

__all__ = ["app"]

app = typer.Typer(
    name="forecaster",
    help="Daily forecasts of financial time series, and the truth about how good they are.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data_app, name="data")
app.add_typer(nights_app)
app.add_typer(ledger_app, name="ledger")
app.add_typer(readers_app)
app.add_typer(operate_app)

LISTED = 20
"""Lines and names that are printed of a list."""

Output = Annotated[Path, typer.Option("--output", help="Folder for the results.", metavar="DIR")]
KnownAt = Annotated[
    str | None,
    typer.Option(
        "--known-at",
        help="Use what the price store knew at that time; all it knows if not given.",
        metavar="TIME",
    ),
]


def _finish(data: JobData, minimum_coverage: float, failed: dict[str, str] | None = None) -> None:
    """Say what is to be known of the prices and of models that failed, and end with the exit code."""
    for model, reason in (failed or {}).items():
        console.tell(f"forecaster: no forecasts of {model}: {reason}")
    for finding in data.prices.findings:
        if finding.code in ("stopped", "not-point-in-time"):
            of = "" if finding.symbol == "*" else f"{finding.symbol}: "
            console.tell(f"warning: {of}{finding.message}")
    used = data.prices.frames
    held = [each for each in data.prices.findings if each.severity == "quarantine" and each.symbol in used]
    for finding in held[:LISTED]:
        console.tell(f"warning: {finding.symbol}: {finding.reason}")
    if len(held) > LISTED:
        print(f"warning: and {len(held) - LISTED} more, see quarantine.csv", file=sys.stderr)
    if data.known is not None and data.known.behind:
        behind = data.known.behind
        worst = max(behind, key=lambda symbol: behind[symbol])
        print(
            f"warning: the price store is stale: last changed {data.known.mark:%Y-%m-%d %H:%M} UTC, "
            f"{len(behind)} symbols lack sessions, {worst} {behind[worst]}; `forecaster ingest` fetches them",
            file=sys.stderr,
        )
    console.finish(data.prices.failures, data.coverage, minimum_coverage, "left out")
    if failed:
        raise typer.Exit(console.PARTIAL)


@app.command()
def run(
    config: Config,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder for the results.", metavar="DIR")
    ] = None,
    known_at: KnownAt = None,
    debug: Debug = False,
) -> None:
    """Backtest every model, choose the champion, forecast what comes next, and write the report."""
    with console.errors(debug):
        console.quiet()
        job = console.load(config)
        moment = console.parse_moment(known_at, "--known-at")
        from pipelines.run import run_job

        with console.progress_bar() as progress:
            result = run_job(job, config, output or Path(job.workspace) / job.name, progress, moment)
        _show_leaderboard(result.backtest)
        print(f"Champion: {result.backtest.champion.model}, registered as {result.registered}")
        print(f"Why: {result.backtest.champion.reason}")
        print(
            f"Tried on this test span so far: {result.tried} configurations; the best of many looks good "
            "by luck"
        )
        print(f"Report: {result.report}")
        _finish(result.backtest.data, job.minimum_coverage, result.backtest.failed)


@app.command()
def backtest(config: Config, output: Output, known_at: KnownAt = None, debug: Debug = False) -> None:
    """Backtest every model and write forecasts.parquet, scores.csv and the verdict."""
    with console.errors(debug):
        console.quiet()
        job = console.load(config)
        moment = console.parse_moment(known_at, "--known-at")
        from pipelines.backtest import backtest_job, write_backtest
        from pipelines.loading import load_data
        from pipelines.results import staged

        data = load_data(job, config.parent, job.minimum_sessions, known_at=moment)
        with staged(output) as staging:
            with console.progress_bar() as progress:
                result = backtest_job(job, data, progress)
            write_backtest(job, result, staging)
        _show_leaderboard(result)
        print(f"Results: {output}")
        _finish(result.data, job.minimum_coverage, result.failed)


@app.command()
def forecast(
    config: Config,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help="Folder for forecasts by every model; the ledger if not given.", metavar="DIR"
        ),
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of", help="The evening, YYYY-MM-DD; the last session if not given.", metavar="DATE"
        ),
    ] = None,
    known_at: KnownAt = None,
    debug: Debug = False,
) -> None:
    """Forecast on an evening: by every model into a folder, or by the champion into the ledger."""
    if output is None:
        with console.errors(debug):
            if known_at is not None:
                raise JobError(
                    "--known-at goes with --output, as what is issued uses all that is known. Received: "
                    f"--known-at {known_at} alone; add --output DIR, or leave it out"
                )
        run_evening(config, as_of, 0.0, debug, ("forecast",))
        return
    with console.errors(debug):
        console.quiet()
        job = console.load(config)
        from pipelines.forecast import forecast_job

        evening = console.parse_date(as_of, "--as-of")
        moment = console.parse_moment(known_at, "--known-at")
        with console.progress_bar() as progress:
            data = forecast_job(job, config.parent, evening, output, progress, moment)
        last = str(data.panel.calendar[-1])
        if evening is not None and last != evening.isoformat():
            print(f"forecaster: the last session up to {evening} is {last}", file=sys.stderr)
        print(f"Forecasts: {output / 'forecasts.parquet'}")
        _finish(data, job.minimum_coverage)


@app.command()
def ingest(
    config: Config,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", help="Fetch every symbol from this session on, whatever is stored.", metavar="DATE"
        ),
    ] = None,
    symbols: Symbols = "",
    debug: Debug = False,
) -> None:
    """Fetch the prices that are missing into the price store, checked; what is fresh is left alone."""
    with console.errors(debug, "what is stored stays, and the next ingest goes on from there"):
        console.quiet()
        job = console.load(config)
        first = console.parse_date(since, "--since")
        from pipelines.ingest import ingest_job

        with console.progress_bar() as progress:
            result = ingest_job(job, config.parent, progress, first, console.parse_symbols(symbols))
        _show_ingest(result)
        console.finish(result.failures, result.coverage, job.minimum_coverage, "failed")


def _show_ingest(result: IngestResult) -> None:
    """Print what an ingest did: a table of totals, and the symbols of which there is something to say."""
    from rich.table import Table

    from pipelines.ingest import COUNTS

    fetched = len(result.symbols) - len(result.fresh) - len(set(result.failures) - set(result.counts.index))
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for title in ("symbols", "fetched", "fresh", "failed", *COUNTS):
        table.add_column(title, justify="right")
    totals = [len(result.symbols), fetched, len(result.fresh), len(result.failures)]
    table.add_row(*(f"{number:,}" for number in [*totals, *result.counts[COUNTS].sum().astype(int)]))
    print(f"Price store: {result.url}")
    console.output_console.print(table)
    for symbol, notice in result.notices.items():
        print(console.shown(f"{symbol}: {notice}"))
    for row in result.quarantined.head(LISTED).itertuples():
        print(console.shown(f"quarantined {row.symbol} {row.session}: {row.codes}"))
    if len(result.quarantined):
        print(f"{len(result.quarantined)} sessions wait in quarantine: `forecaster data accept` or `reject`")
    if len(result.restatements):
        sessions = result.restatements.groupby("symbol")["session"].nunique()
        named = ", ".join(f"{symbol} {count}" for symbol, count in sessions.head(LISTED).items())
        print(f"restated sessions: {named}; `forecaster data diff` shows them")


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="Folder of finished results.", metavar="DIR")],
    output: Annotated[
        Path | None, typer.Option("--output", help="The HTML file; DIR/report.html if not given.")
    ] = None,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Print it as a PDF too, by a Chromium that is installed.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Write the report of finished results again; nothing is computed anew."""
    with console.errors(debug, "what is written is whole, the rest is as it was"):
        from forecaster.report import write_report

        target = output or results / "report.html"
        try:
            print(f"Report: {write_report(results, target)}")
            if pdf:
                from forecaster.report.pdf import write_pdf

                print(f"PDF: {write_pdf(target, target.with_suffix('.pdf'))}")
        except OSError as error:
            raise JobError(
                f"the report cannot be written to {target}: {error.strerror or error}; "
                "name another by --output"
            ) from None


@app.command()
def validate(config: Config, debug: Debug = False) -> None:
    """Check a job file."""
    with console.errors(debug):
        job = console.load(config)
        print(f"{config}: a valid job, {len(job.models)} models at {len(job.horizons)} horizons")


@app.command()
def explain(config: Config, debug: Debug = False) -> None:
    """Say how each convolution will be computed: execution, receptive field, parameters, cost and memory."""
    with console.errors(debug):
        job = console.load(config)
        from datetime import date

        from pipelines.explain import explain_job

        print(explain_job(job, date.today()))


@app.command()
def audit(
    config: Config,
    models: Annotated[
        str, typer.Option("--models", help="Some of the models only, by name.", metavar="A,B")
    ] = "",
    origins: Annotated[int, typer.Option("--origins", help="Origins that are sampled.", min=1)] = 2,
    debug: Debug = False,
) -> None:
    """Hunt for look-ahead: exit code 1 if a forecast moves with what it cannot have known, 0 if none does."""
    with console.errors(debug):
        console.quiet()
        job = console.load(config)
        from pipelines.audit import audit_job

        with console.progress_bar() as progress:
            result = audit_job(job, config.parent, progress, console.parse_symbols(models), origins)
        _show_audit(result)
        if result.moved:
            raise typer.Exit(console.FAILED)


def _show_audit(result: Audit) -> None:
    """Print what moved, check by check."""
    from rich.table import Table
    from rich.text import Text

    days = ", ".join(map(str, result.origins))
    table = Table(title=f"what moved, at origins up to {days}", caption="see docs/how-to/audit.md")
    for title in ("check", "model", "result", "largest", "found"):
        table.add_column(title, no_wrap=title != "found", overflow="fold")
    for row in result.table.itertuples():
        state = Text("MOVED", style="bold red") if row.moved else Text("ok")
        table.add_row(str(row.check), str(row.model), state, f"{row.largest:.3g}", str(row.found))
    console.output_console.print(table)
    moved = int(result.table["moved"].sum())
    print(f"{moved} of {len(result.table)} checks moved" if moved else "Nothing moved.")


@app.command()
def schema() -> None:
    """Print the JSON schema of the job file."""
    from forecaster.job import json_schema

    print(json.dumps(json_schema(), indent=2))


SIGNS = {"best baseline": "·", "better": "▲", "as good as": "=", "worse": "▼", "cannot tell": "?"}


def _show_leaderboard(result: BacktestResult) -> None:
    """Print the models, the best first, in a table that fits eighty columns."""
    from rich.table import Table
    from rich.text import Text

    verdict, scores = result.verdicts, result.scores
    horizons = sorted(verdict["horizon"].unique())
    table = Table(
        title=f"CRPS as a ratio to the best baseline, {result.baseline}",
        caption="▲ better  = as good as  ▼ worse  ? cannot tell  · best baseline  ★ champion",
    )
    table.add_column("model", no_wrap=True)
    for horizon in horizons:
        table.add_column(f"h={horizon}", justify="right", no_wrap=True)
    for title in ("in 80%", "weights", "fit s"):
        table.add_column(title, justify="right", no_wrap=True)
    ratios = result.champion.mean_ratios
    coverage = scores[(scores["symbol"] == "*") & (scores["metric"] == "coverage_80")]
    for model in sorted(ratios, key=lambda name: ratios[name]):
        rows = verdict[verdict["model"] == model].set_index("horizon")
        cells = [
            f"{rows.loc[horizon, 'crps_ratio']:.4f} {SIGNS[str(rows.loc[horizon, 'verdict'])]}"
            for horizon in horizons
        ]
        about = result.models[result.models["model"] == model].iloc[0]
        covered = coverage.loc[coverage["model"] == model, "value"].mean()
        champion = model == result.champion.model
        table.add_row(
            Text(f"{model} ★" if champion else model, style="bold" if champion else ""),
            *cells,
            f"{covered:.1%}",
            f"{about['parameters']:,}",
            f"{about['fit_seconds']:.2f}",
        )
    console.output_console.print(table)


if __name__ == "__main__":
    app()
