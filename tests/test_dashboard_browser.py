"""The dashboard in Chromium: every page on a desk and a phone, light and dark, by mouse and by keyboard."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
from browser import ARGUMENTS, chromium
from dashboard_job import many_symbols, write_job

pytest.importorskip("streamlit", reason="the dashboard is an extra")
pytest.importorskip("playwright", reason="a browser is driven by Playwright")
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from dashboards.app import PAGES
from forecaster.exports import EXPORT_COLUMNS
from pipelines.cli_readers import dashboard_command, dashboard_environment

if chromium() is None:
    pytest.skip("needs a Chromium", allow_module_level=True)

ColorScheme = Literal["light", "dark"]
HOSTILE = "<script>alert(1)</script>"
PATIENCE = 60_000
"""Milliseconds to wait for a page on a busy machine."""


@dataclass
class Heard:
    """What a page said and asked for."""

    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("browser")
    config = write_job(folder, ("SPX",), 300)
    many_symbols(config, ("SPX", HOSTILE, "A-VERY-LONG-NAME-OF-A-SYMBOL-WITHOUT-ANY-SPACE-IN-IT.XNYS"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = dashboard_command(config, None, "127.0.0.1", port)
    log = folder / "server.log"
    with (
        log.open("w") as stream,
        subprocess.Popen(
            command, stdout=stream, stderr=stream, env=dashboard_environment(), cwd=folder
        ) as server,
    ):
        deadline = time.monotonic() + PATIENCE / 1000
        while f"URL: http://127.0.0.1:{port}" not in log.read_text():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        server.terminate()
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        yield opened
        opened.close()


def listen(page: Page, address: str) -> Heard:
    heard = Heard()

    def console(message: ConsoleMessage) -> None:
        # Streamlit looks for its server below the address of a page first, and then above it.
        own = "/_stcore/" in str(message.location.get("url", ""))
        if message.type == "error" and not own:
            heard.errors.append(f"{message.text} {message.location.get('url')}")

    def request(asked: Request) -> None:
        if not asked.url.startswith((address, address.replace("http", "ws"), "data:", "blob:")):
            heard.outside.append(asked.url)

    page.on("console", console)
    page.on("pageerror", lambda error: heard.errors.append(str(error)))
    page.on("request", request)
    page.on("dialog", lambda dialog: (heard.errors.append(dialog.message), dialog.dismiss()))
    return heard


def settled(page: Page, title: str) -> None:
    """Wait until a page is whole: its script has ended and its charts are drawn."""
    page.locator(".fc h1", has_text=title).wait_for(timeout=PATIENCE)
    page.wait_for_function(
        """() => document.querySelector('[data-testid="stApp"]')?.dataset.testScriptState === 'notRunning'
            && !document.querySelector('[data-testid="stSkeleton"]')
            && document.querySelectorAll('[data-testid="stPlotlyChart"]').length
               === document.querySelectorAll('[data-testid="stPlotlyChart"] .main-svg:first-child').length""",
        timeout=PATIENCE,
    )


WIDER = """() => {
    const main = document.querySelector('[data-testid="stMain"]');
    return [document.documentElement.scrollWidth - window.innerWidth, main.scrollWidth - main.clientWidth];
}"""


def faults(page: Page) -> list[str]:
    """Say what a page breaks: it scrolls sideways, or a serious rule of accessibility."""
    wider = page.evaluate(WIDER)
    found = [f"scrolls sideways by {max(wider)} pixels"] if max(wider) > 0 else []
    return found + [
        f"{violation['id']}: {[node['target'] for node in violation['nodes']][:5]}"
        for violation in Axe().run(page).response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_every_page_in_a_browser(browser: Browser, address: str, width: int, mode: ColorScheme) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=mode)
    page = context.new_page()
    heard = listen(page, address)
    wrong = {}
    for name, (title, _) in PAGES.items():
        page.goto(f"{address}/{'' if name == 'today' else name}")
        settled(page, title)
        wrong[name] = faults(page)
        if kept := os.environ.get("FORECASTER_SCREENSHOTS"):
            page.set_viewport_size({"width": width, "height": 3600})
            page.screenshot(path=Path(kept) / f"{name}-{width}-{mode}.png")
            page.set_viewport_size({"width": width, "height": 900})
    context.close()
    assert heard == Heard()
    assert wrong == {name: [] for name in PAGES}


def test_every_page_opens_and_narrows(browser: Browser, address: str) -> None:
    page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="dark")
    heard = listen(page, address)
    page.goto(address)
    wrong = {}
    for name, (title, _) in PAGES.items():
        page.get_by_role("link", name=title, exact=True).click()
        settled(page, title)
        wrong[name] = faults(page)
        page.set_viewport_size({"width": 390, "height": 900})
        # Charts follow the window a moment later.
        page.wait_for_function(f"() => Math.max(...({WIDER})()) <= 0", timeout=PATIENCE)
        page.set_viewport_size({"width": 1440, "height": 900})
    page.close()
    assert heard == Heard()
    assert wrong == {name: [] for name in PAGES}


def test_axe_finds_what_is_wrong(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    settled(page, "Today")
    page.evaluate("document.body.append(Object.assign(document.createElement('img'), {src: 'data:,'}))")
    assert "image-alt" in {violation["id"] for violation in Axe().run(page).response["violations"]}
    page.close()


def test_by_keyboard_to_a_symbol_and_its_file(browser: Browser, address: str, tmp_path: Path) -> None:
    page = browser.new_page()
    heard = listen(page, address)
    page.goto(address)
    settled(page, "Today")
    link = page.get_by_role("link", name="Forecasts")
    for _ in range(20):
        page.keyboard.press("Tab")
        if link.evaluate("link => link === document.activeElement"):
            break
    page.keyboard.press("Enter")
    settled(page, "Forecasts")
    box = page.get_by_role("combobox", name="Symbol (type to search)")
    box.focus()
    page.keyboard.type("XNYS")
    page.keyboard.press("Enter")
    page.locator(".fc h2", has_text="A-VERY-LONG-NAME").wait_for(timeout=PATIENCE)
    settled(page, "Forecasts")
    page.get_by_role("button", name="Download CSV").focus()
    with page.expect_download(timeout=PATIENCE) as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename.startswith("quickstart-2009-")
    download.value.save_as(tmp_path / "today.csv")
    rows = pd.read_csv(tmp_path / "today.csv", dtype=str, keep_default_na=False)
    assert tuple(rows.columns) == EXPORT_COLUMNS
    assert HOSTILE in set(rows["symbol"])
    page.close()
    assert heard == Heard()
