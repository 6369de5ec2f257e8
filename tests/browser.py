"""Finds a local Chromium for tests that look at a page as a reader does."""

from __future__ import annotations

import shutil

__all__ = ["ARGUMENTS", "chromium"]

ARGUMENTS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-first-run",
)
"""Run as root in a container, and send nothing home."""


def chromium() -> str | None:
    """Path of an installed Chromium or Chrome, None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for path in map(shutil.which, names) if path), None)
