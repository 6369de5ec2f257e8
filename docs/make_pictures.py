"""Take the pictures of the README from the report of a finished run.

``forecaster run configs/quickstart.yaml`` and then ``python docs/make_pictures.py workspace/quickstart``
write them to ``docs/pictures``. They show what the run found, so another run gives other pictures.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from forecaster.errors import ReportError
from forecaster.report import write_report
from forecaster.report.pdf import QUIET, find_chromium

__all__ = ["FOLDER", "PICTURES", "main"]

FOLDER = Path(__file__).parent / "pictures"
PICTURES: Mapping[str, tuple[str, str]] = {
    "verdict": ("header", "#verdict .champion"),
    "forecasts": ("#forecasts h3", "#forecasts .panel"),
    "leaderboard": ("#leaderboard h3", "#leaderboard .panel"),
    "kernels": ("#kernels h2", "#kernels .panel"),
}
"""Each picture reaches from the top of the first element to the end of the second."""
WIDTH, MARGIN = 1200, 14


def _clip(page: Page, first: str, last: str) -> dict[str, float]:
    top = page.locator(first).first.bounding_box()
    bottom = page.locator(last).first.bounding_box()
    if top is None or bottom is None:
        raise ReportError(f"the report has no {first} or no {last}: the run lacks what the picture shows")
    start = max(top["y"] - MARGIN, 0.0)
    return {"x": 0.0, "y": start, "width": WIDTH, "height": bottom["y"] + bottom["height"] + MARGIN - start}


def main(results: Path, folder: Path = FOLDER) -> None:
    """Write every picture into a folder.

    Parameters
    ----------
    results : Path
        Folder of a finished run.
    folder : Path
        Made where it is missing.
    """
    browser = find_chromium()
    if browser is None:
        raise ReportError("pictures need Chromium, Chrome or Edge on the path. Received: none; install one")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        address = write_report(results, Path(place) / "report.html").as_uri()
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", *QUIET])
        page = chromium.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page.goto(address)
        charts = page.locator("[data-figure]")
        for index in range(charts.count()):
            charts.nth(index).locator(".main-svg").first.wait_for()
        # What stays on top while a page is scrolled has no place in a picture of the page.
        page.add_style_tag(content="nav, #mode { display: none !important; }")
        for name, (first, last) in PICTURES.items():
            page.screenshot(path=folder / f"{name}.png", clip=_clip(page, first, last), full_page=True)
        chromium.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "workspace/quickstart"))
