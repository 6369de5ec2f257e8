"""Prints the page as a PDF, by a Chromium that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from forecaster.errors import ReportError
from forecaster.files import whole

__all__ = ["BROWSERS", "QUIET", "find_chromium", "write_pdf"]

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "microsoft-edge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
"""Where a browser that prints is looked for, in this order."""
QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-first-run",
)
"""The browser asks nothing of the network, and needs no screen and no large shared memory."""
PATIENCE = 180.0
"""Seconds that printing may take: a slow machine needs one for a chart."""


def find_chromium() -> str | None:
    """Path of an installed Chromium, Chrome or Edge; None where there is none."""
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


def write_pdf(html: Path, output: Path) -> Path:
    """Print a report as a PDF.

    Parameters
    ----------
    html : Path
        What `forecaster.report.write_report` made.
    output : Path
        The PDF; an older one is replaced at once or not at all.

    Returns
    -------
    Path
        ``output``.

    Raises
    ------
    ReportError
        If no browser is installed, or it does not print.
    """
    browser = find_chromium()
    if browser is None:
        raise ReportError(
            "a PDF needs Chromium, Chrome or Edge on the path. Received: none; install one, or print "
            f"{html} from any browser"
        )
    output.parent.mkdir(parents=True, exist_ok=True)  # refused before the browser takes its time
    with tempfile.TemporaryDirectory(prefix="forecaster-print-") as folder:
        part = Path(folder) / "report.pdf"
        command = [
            browser,
            "--headless",
            # Chromium refuses its sandbox to root, as in a container; the page is our own and loads nothing.
            *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
            *QUIET,
            f"--user-data-dir={folder}/profile",
            "--no-pdf-header-footer",
            # Time as the page sees it: the charts are drawn one after another.
            "--virtual-time-budget=60000",
            f"--print-to-pdf={part}",
            html.resolve().as_uri(),
        ]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ReportError(f"{browser} did not print {html}: {error}; print it from any browser") from None
        if run.returncode or not part.is_file():
            said = next(
                (line for line in reversed(run.stderr.splitlines()) if line.strip()), "it said nothing"
            )
            raise ReportError(
                f"{browser} did not print {html} (exit code {run.returncode}): {said}; print it from any "
                "browser"
            )
        # Another file system may hold the output.
        with whole(output) as beside:
            shutil.copyfile(part, beside)
    return output
