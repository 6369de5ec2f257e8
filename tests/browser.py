"""How tests look at a page as a reader does: by a local Chromium that sends nothing home."""

from __future__ import annotations

from forecaster.report.pdf import QUIET
from forecaster.report.pdf import find_chromium as chromium

__all__ = ["ARGUMENTS", "chromium"]

ARGUMENTS = ("--no-sandbox", *QUIET)
"""Run as root in a container, and send nothing home."""
