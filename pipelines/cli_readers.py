"""The commands for those who read forecasts: the export and the dashboard."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from forecaster.errors import JobError
from pipelines import console
from pipelines.console import Config, Debug

__all__ = ["readers_app"]

readers_app = typer.Typer(add_completion=False, rich_markup_mode=None)

Results = Annotated[
    Path | None,
    typer.Option("--results", help="Folder of finished results; WORKSPACE/NAME if not given.", metavar="DIR"),
]


@readers_app.command()
def export(
    config: Config,
    output: Annotated[Path, typer.Option("--output", help="A .csv or .xlsx file.", metavar="FILE")],
    results: Results = None,
    debug: Debug = False,
) -> None:
    """Write the newest forecasts, from the ledger or else the results, with the versions that made them."""
    with console.errors(debug):
        job = console.load(config)
        from forecaster.exports import newest_forecasts, write_export

        newest = newest_forecasts(job.name, job.ledger_url, results or Path(job.workspace) / job.name)
        rows = write_export(newest, job.name, output)
        print(f"Export: {output}, {rows:,} forecasts, {newest.source}")


@readers_app.command()
def dashboard(
    config: Config,
    results: Results = None,
    address: Annotated[
        str,
        typer.Option(
            "--address", help="Address to listen on; others than 127.0.0.1 let others in.", metavar="IP"
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = 8501,
    debug: Debug = False,
) -> None:
    """Show forecasts, track record, leaderboard and the lifting explorer in a browser, until Ctrl-C."""
    with console.errors(debug):
        console.load(config)
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise JobError(f"--address is an IP address, such as 127.0.0.1. Received: {address!r}") from None
        if importlib.util.find_spec("streamlit") is None:
            raise JobError(
                "the dashboard needs Streamlit, which is not installed; install forecaster[dashboard]"
            )
        command = dashboard_command(config, results, address, port)
        sys.stdout.flush()
        # In the place of this process: signals then reach the server itself.
        os.execve(sys.executable, command, dashboard_environment())


def dashboard_command(config: Path, results: Path | None, address: str, port: int) -> list[str]:
    """Give the command that serves the dashboard."""
    package = importlib.util.find_spec("dashboards")
    if package is None or not package.submodule_search_locations:
        raise JobError("the dashboard is part of the application; install it from its checkout")
    script = Path(package.submodule_search_locations[0]) / "app.py"
    # After the dashes: arguments of the script. Given as paths: a name that begins with - is no option.
    arguments = [str(config.absolute()), *([str(results.absolute())] if results else [])]
    options = {
        "server.address": address,
        "server.port": str(port),
        "server.headless": "true",
        # Nothing is sent home, and no font, script or version is asked of the network.
        "browser.gatherUsageStats": "false",
        "server.fileWatcherType": "none",
        "client.toolbarMode": "minimal",
        "runner.magicEnabled": "false",
        "client.showErrorDetails": "none",
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    # -P: a folder named dashboards where the command happens to run is not taken for ours.
    # -u: the address is said at once, also to a log.
    return [sys.executable, "-P", "-u", "-m", "streamlit", "run", str(script), *flags, "--", *arguments]


def dashboard_environment() -> dict[str, str]:
    """Give the environment of the dashboard: the colours of the report, as Streamlit's settings."""
    from forecaster.report.style import DARK, LIGHT

    settings = {}
    for mode, palette in (("LIGHT", LIGHT), ("DARK", DARK)):
        prefix = f"STREAMLIT_THEME_{mode}"
        settings[f"{prefix}_PRIMARY_COLOR"] = palette.blue
        settings[f"{prefix}_BACKGROUND_COLOR"] = palette.page
        settings[f"{prefix}_SECONDARY_BACKGROUND_COLOR"] = palette.paper
        settings[f"{prefix}_TEXT_COLOR"] = palette.ink
        settings[f"{prefix}_LINK_COLOR"] = palette.blue
        settings[f"{prefix}_BORDER_COLOR"] = palette.line
        settings[f"{prefix}_SIDEBAR_BACKGROUND_COLOR"] = palette.paper
    return {**os.environ, **settings}
