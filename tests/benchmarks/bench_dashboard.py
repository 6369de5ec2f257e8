"""Seconds in which each page of the dashboard answers with 1,000 symbols, after it was loaded once.

`make bench-dashboard` runs it. The job, its results and its ledger are those of the tests; a page is run as
its script is for a browser, which is not part of it. Streamlit collects garbage after each run of a script,
so that a page also costs what else its process holds: each is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

SYMBOLS = 1_000


def main() -> None:
    """Run the benchmark, or one page of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("workspace/bench/dashboard.json"))
    parser.add_argument("--page", help=argparse.SUPPRESS)
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    if options.page:
        print(json.dumps(answer(options.config, options.page, options.rounds)))
        return
    from dashboard_job import many_symbols, write_job
    from figures import write_figures

    from dashboards.app import PAGES

    figures = {}
    with TemporaryDirectory() as folder:
        config = write_job(Path(folder), ("SPX",), 120)
        many_symbols(config, [f"S{index:04d}" for index in range(SYMBOLS)])
        for page in PAGES:
            command = [sys.executable, __file__, "--page", page, "--config", str(config)]
            command += ["--rounds", str(options.rounds)]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
            figures[f"{page}_seconds_{SYMBOLS}"] = json.loads(done.stdout)
            print(f"{page:20} {max(figures[f'{page}_seconds_{SYMBOLS}']):.3f} s at most", flush=True)
    write_figures(options.output, figures)


def answer(config: Path, name: str, rounds: int) -> list[float]:
    """Run a page again and again after its first load, and give the seconds of each."""
    from test_dashboard import open_page

    page = open_page(config, name)
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        page.run()
        seconds.append(time.perf_counter() - begun)
        if page.exception:
            raise SystemExit(f"{name} failed: {page.exception[0].value}")
    return seconds


if __name__ == "__main__":
    main()
