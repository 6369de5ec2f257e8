"""The command line; imports lazily, so that ``--help`` answers at once."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from forecaster.errors import DataError, ForecasterError, JobError, ParameterError

if TYPE_CHECKING:
    from forecaster.job import Job
    from pipelines.backtest import BacktestResult, Progress
    from pipelines.ingest import JobData

__all__ = ["app"]

OK, FAILED, BAD_INPUT, PARTIAL, INTERRUPTED = 0, 1, 2, 3, 130

app = typer.Typer(
    name="forecaster",
    help="Daily forecasts of financial time series, and the truth about how good they are.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
output_console = Console()
console = Console(stderr=True)

Config = Annotated[Path, typer.Argument(help="The job file (YAML).", metavar="CONFIG")]
Output = Annotated[Path, typer.Option("--output", help="Folder for the results.", metavar="DIR")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]


@contextmanager
def _errors(debug: bool) -> Iterator[None]:
    """Turn an error into one line and an exit code."""
    # A scheduler stops a job by SIGTERM: it shall clean up as Ctrl-C does.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        _fail("interrupted; the results are as they were, nothing is half-written", INTERRUPTED, debug)
    except (JobError, DataError, ParameterError) as error:
        _fail(str(error), BAD_INPUT, debug)
    except ForecasterError as error:
        _fail(str(error), FAILED, debug)
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {error}; run again with --debug for the traceback"
        _fail(text, FAILED, debug)
    finally:
        signal.signal(signal.SIGTERM, before)


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    sys.stdout.flush()
    print(f"forecaster: {' '.join(message.split())}", file=sys.stderr)
    raise typer.Exit(code)


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show a progress bar on a terminal, and elsewhere a line whenever something else begins."""
    if not console.is_terminal:
        last = ""

        def say(what: str, done: int, total: int) -> None:
            nonlocal last
            if what != last:
                print(f"{what} ({done} of {total} done)", file=sys.stderr, flush=True)
            last = what

        yield say
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("starting", total=None)

        def tell(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield tell


def _load(config: Path) -> Job:
    from forecaster.job import load_job

    return load_job(config)


def _date(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise JobError(f"--as-of is a date written YYYY-MM-DD. Received: {text!r}") from None


def _quiet() -> None:
    """Silence the libraries' noise on a user's terminal; errors still come through."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    warnings.filterwarnings("ignore", category=FutureWarning)


def _finish(data: JobData, minimum_coverage: float) -> None:
    """Say which symbols were left out, and end with the exit code that follows."""
    for finding in data.prices.findings:
        if finding.code == "stopped":
            print(f"warning: {finding.symbol}: {finding.message}", file=sys.stderr)
    failures = data.prices.failures
    for symbol, reason in failures.items():
        print(f"forecaster: left out {symbol}: {reason}", file=sys.stderr)
    if not failures:
        return
    if data.coverage < minimum_coverage:
        print(
            f"forecaster: only {data.coverage:.0%} of the symbols succeeded, below the minimum coverage of "
            f"{minimum_coverage:.0%}",
            file=sys.stderr,
        )
        raise typer.Exit(FAILED)
    raise typer.Exit(PARTIAL)


@app.command()
def run(
    config: Config,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder for the results.", metavar="DIR")
    ] = None,
    debug: Debug = False,
) -> None:
    """Backtest every model, choose the champion, forecast what comes next, and write the report."""
    with _errors(debug):
        _quiet()
        job = _load(config)
        from pipelines.run import run_job

        with _progress() as progress:
            result = run_job(job, config, output or Path(job.workspace) / job.name, progress)
        _show_leaderboard(result.backtest)
        print(f"Champion: {result.backtest.champion.model}, registered as {result.registered}")
        print(f"Why: {result.backtest.champion.reason}")
        print(f"Report: {result.report}")
        _finish(result.backtest.data, job.minimum_coverage)


@app.command()
def backtest(config: Config, output: Output, debug: Debug = False) -> None:
    """Backtest every model and write forecasts.parquet, scores.csv and the verdict."""
    with _errors(debug):
        _quiet()
        job = _load(config)
        from pipelines.backtest import backtest_job, write_backtest
        from pipelines.ingest import load_data
        from pipelines.results import staged

        data = load_data(job, config.parent, job.minimum_sessions)
        with staged(output) as staging:
            with _progress() as progress:
                result = backtest_job(job, data, progress)
            write_backtest(result, staging)
        _show_leaderboard(result)
        print(f"Results: {output}")
        _finish(result.data, job.minimum_coverage)


@app.command()
def forecast(
    config: Config,
    output: Output,
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of", help="The evening, YYYY-MM-DD; the last session if not given.", metavar="DATE"
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Fit every model on an evening and write its forecasts, from prices up to then and nothing else."""
    with _errors(debug):
        _quiet()
        job = _load(config)
        from pipelines.forecast import forecast_job

        evening = _date(as_of) if as_of is not None else None
        with _progress() as progress:
            data = forecast_job(job, config.parent, evening, output, progress)
        last = str(data.panel.calendar[-1])
        if evening is not None and last != evening.isoformat():
            print(f"forecaster: the last session up to {evening} is {last}", file=sys.stderr)
        print(f"Forecasts: {output / 'forecasts.parquet'}")
        _finish(data, job.minimum_coverage)


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="Folder of finished results.", metavar="DIR")],
    output: Annotated[
        Path | None, typer.Option("--output", help="The HTML file; DIR/report.html if not given.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write the report of finished results again; nothing is computed anew."""
    with _errors(debug):
        from forecaster.report import write_report

        target = output or results / "report.html"
        try:
            print(f"Report: {write_report(results, target)}")
        except OSError as error:
            raise JobError(f"the report cannot be written to {target}: {error.strerror or error}") from None


@app.command()
def validate(config: Config, debug: Debug = False) -> None:
    """Check a job file."""
    with _errors(debug):
        job = _load(config)
        print(f"{config}: a valid job, {len(job.models)} models at {len(job.horizons)} horizons")


@app.command()
def explain(config: Config, debug: Debug = False) -> None:
    """Say how each convolution will be computed: execution, receptive field, parameters and cost."""
    with _errors(debug):
        job = _load(config)
        from pipelines.explain import explain_job

        print(explain_job(job))


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
    output_console.print(table)


if __name__ == "__main__":
    app()
