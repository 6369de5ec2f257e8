"""The commands for those who keep the evenings running: the service, the monitoring, a test of alerts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forecaster.errors import ForecasterError, JobError
from pipelines import console
from pipelines.cli_nights import AsOf, Wait, run_evening
from pipelines.console import Config, Debug

__all__ = ["operate_app"]

operate_app = typer.Typer(add_completion=False, rich_markup_mode=None)


@operate_app.command()
def serve(
    configs: Annotated[list[Path], typer.Argument(help="Job files (YAML).", metavar="CONFIG...")],
    address: Annotated[
        str, typer.Option("--address", help="Where /health is answered; this machine alone by default.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="Its port; any free one for 0.", min=0, max=65535)
    ] = 8765,
    heartbeat: Annotated[
        Path | None,
        typer.Option(
            "--heartbeat",
            help="File that is written every 15 s; WORKSPACE/serve.json of the first job if not given.",
            metavar="FILE",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Do the evening of every job when its exchange has closed, and what was missed, until it is stopped."""
    with console.errors(debug, "the evening that was being done is gone on with at the next start"):
        console.quiet()
        from forecaster.job import load_job

        jobs = [(config, load_job(config)) for config in configs]
        from pipelines.serve import serve_jobs

        serve_jobs(jobs, heartbeat or Path(jobs[0][1].workspace) / "serve.json", address, port)


@operate_app.command()
def monitor(config: Config, as_of: AsOf = None, wait: Wait = 0.0, debug: Debug = False) -> None:
    """Check an evening and the record so far: coverage, CRPS, drift, prices, symbols, time; and tell."""
    run_evening(config, as_of, wait, debug, ("monitor",))


@operate_app.command("test-alerts")
def alerts_arrive(config: Config, debug: Debug = False) -> None:
    """Send a message to everybody whom the job would tell that something is wrong."""
    with console.errors(debug):
        job = console.load(config)
        if not job.alerts:
            raise JobError(
                f"{config}: the job has no `alerts`; name who is to be told, see docs/operations.md"
            )
        from pipelines.alerts import try_alerts

        outcome = try_alerts(job)
        for name, failed in outcome.items():
            print(console.shown(f"{name}: {failed or 'sent'}"))
        if any(outcome.values()):
            raise ForecasterError("a message could not be sent; the lines above say which and why")
