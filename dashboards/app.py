"""The dashboard: `streamlit run dashboards/app.py -- CONFIG [RESULTS]`, started by `forecaster dashboard`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import streamlit as st

from dashboards import elements
from dashboards.sources import Place, place_of
from dashboards.views import (
    calibration,
    forecasts,
    leaderboard,
    lifting_explorer,
    quality,
    runs,
    today,
    track_record,
)
from forecaster.errors import ForecasterError

__all__ = ["PAGES", "main"]

PAGES: dict[str, tuple[str, Callable[[Place], None]]] = {
    "today": ("Today", today.show),
    "forecasts": ("Forecasts", forecasts.show),
    "track-record": ("Track record", track_record.show),
    "leaderboard": ("Leaderboard", leaderboard.show),
    "calibration": ("Calibration", calibration.show),
    "data-quality": ("Data quality", quality.show),
    "runs": ("Runs", runs.show),
    "lifting-explorer": ("Lifting explorer", lifting_explorer.show),
}
"""Title and function of each page, by its address. No icons: a browser asks Google for them as favicons."""


def show(page: Callable[[Place], None], config: Path, results: Path | None) -> None:
    """Show one page, or the one line that says why there is none."""
    elements.dress()
    try:
        # Large results take seconds when they are read for the first time.
        with st.spinner("Reading ledger and results"):
            page(place_of(config, results))
    except ForecasterError as error:
        elements.note(str(error), bad=True)


def main(arguments: list[str]) -> None:
    """Lay out the pages of a job.

    Parameters
    ----------
    arguments : list of str
        The job file and, where it is not the job's own, the folder of results.
    """
    if not 1 <= len(arguments) <= 2:
        st.error("The dashboard shows one job. Start it by: forecaster dashboard CONFIG")
        return
    config, results = Path(arguments[0]), Path(arguments[1]) if len(arguments) == 2 else None
    st.set_page_config(page_title="forecaster", layout="wide", menu_items={"About": None})
    pages = [
        st.Page(
            partial(show, page, config, results),
            title=title,
            url_path=address,
            default=address == "today",
        )
        for address, (title, page) in PAGES.items()
    ]
    st.navigation(pages).run()


if __name__ == "__main__":
    main(sys.argv[1:])
