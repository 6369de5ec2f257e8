"""Time, memory and disk of the price store at full size; `make bench-store` runs it.

10,000 symbols x 7,500 sessions of synthetic prices are appended in blocks, and 0.1% of the rows restated.
Then rounds alternate between the read of all closes into the panel, DuckDB's ``SELECT symbol, session,
close`` of the same Parquet files fetched as Arrow, the update of a day, and the read of what was known before
the restatement. Each runs in a process of its own and times what comes after its imports.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pandas as pd

from forecaster.prices.base import PRICE_COLUMNS
from forecaster.prices.store import Fetch, PriceStore

LAST = datetime.date(2023, 12, 29)
START = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
BLOCK = 500  # symbols a write
UPDATE = 10  # sessions that a daily update fetches again
EXTRA = 20  # sessions after the history, one a round


def main() -> None:
    """Run the benchmark, or one side of it."""
    options = _options()
    if options.side:
        result = SIDES[options.side](options)
        result["cpu_seconds"] = time.process_time()
        result["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(result))
        return
    # Imported here: the sides are started as scripts and need nothing of it.
    from figures import write_figures

    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.store = Path(options.store or mkdtemp(prefix="store-", dir=options.output.parent))
    figures: dict[str, list[float]] = {}

    def note(**values: float) -> None:
        for name, value in values.items():
            figures.setdefault(name, []).append(value)
            print(f"{name} {value:.3f}", flush=True)
        write_figures(options.output, figures)

    try:
        done = _run("append", options)
        note(append_seconds=done["seconds"], append_peak_gib=done["peak_gib"], disk_gib=done["disk_gib"])
        note(compact_seconds=done["compact_seconds"], rows=done["rows"])
        for number in range(options.rounds):
            ours, duckdb = _run("read", options), _run("duckdb", options)
            if ours["rows"] != duckdb["rows"] - duckdb["amended"]:
                raise SystemExit(f"the panel has {ours['rows']} rows and DuckDB read {duckdb['rows']}")
            note(
                read_seconds=ours["seconds"], peak_gib=ours["peak_gib"], duckdb_seconds=duckdb["seconds"],
                duckdb_peak_gib=duckdb["peak_gib"], panel_vs_duckdb=ours["seconds"] / duckdb["seconds"],
            )  # fmt: skip
            day = _run("day", options, "--day", str(number))
            note(incremental_seconds=day["seconds"], incremental_peak_gib=day["peak_gib"])
            note(known_at_seconds=_run("known", options)["seconds"])
    finally:
        if not options.keep:
            shutil.rmtree(options.store, ignore_errors=True)
            _tails(options).unlink(missing_ok=True)


def append(options: argparse.Namespace) -> dict[str, float]:
    """Append all history in blocks, restate some of it, and merge what is small."""
    store = PriceStore(options.store)
    sessions = _sessions(options.sessions)
    window = (sessions[0].date(), sessions[options.sessions - 1].date())
    tails = np.zeros((options.symbols, UPDATE + EXTRA, len(PRICE_COLUMNS)))
    seconds, rows = 0.0, 0
    for first in range(0, options.symbols, BLOCK):
        block = {}
        for number in range(first, min(first + BLOCK, options.symbols)):
            history = _history(number, sessions)
            tails[number] = history.iloc[-UPDATE - EXTRA :]
            block[_name(number)] = Fetch(history.iloc[: options.sessions], window, full=True)
        begun = time.perf_counter()
        store.write(block, fetched_at=START, source="synthetic")
        seconds += time.perf_counter() - begun
        rows += sum(len(fetch.prices) for fetch in block.values())
        print(f"{first + len(block)} of {options.symbols} symbols", file=sys.stderr, flush=True)
    np.save(_tails(options), tails)
    random = np.random.default_rng(1)
    restated = {}
    for number in random.choice(options.symbols, max(1, options.symbols // 100), replace=False):
        history = _history(int(number), sessions).iloc[: options.sessions]
        some = np.sort(random.choice(len(history), len(history) // 10, replace=False))
        restated[_name(int(number))] = Fetch(history.iloc[some] * 1.001)
    store.write(restated, fetched_at=START + datetime.timedelta(days=1), source="synthetic")
    begun = time.perf_counter()
    store.compact()
    compact_seconds = time.perf_counter() - begun
    disk = sum(file.stat().st_size for file in Path(options.store).rglob("*") if file.is_file())
    return {"seconds": seconds, "compact_seconds": compact_seconds, "rows": rows, "disk_gib": disk / 2**30}


def read(options: argparse.Namespace) -> dict[str, float]:
    """Read all closes, as of the newest session, laid out as the panel: end to end, with offsets."""
    import deltalake  # noqa: F401

    begun = time.perf_counter()
    closes = PriceStore(options.store).closes(as_of=datetime.date(2030, 1, 1))
    seconds = time.perf_counter() - begun
    rows = len(closes.columns["close"])
    if rows != closes.offsets[-1] or len(closes.sessions) != rows:
        raise SystemExit("the panel does not fit its offsets")
    return {"seconds": seconds, "rows": rows}


def known(options: argparse.Namespace) -> dict[str, float]:
    """Read the same as it was known before anything was restated."""
    begun = time.perf_counter()
    closes = PriceStore(options.store).closes(known_at=START + datetime.timedelta(hours=12))
    return {"seconds": time.perf_counter() - begun, "rows": len(closes.sessions)}


def duckdb(options: argparse.Namespace) -> dict[str, float]:
    """Let DuckDB read the same files."""
    import duckdb
    from deltalake import DeltaTable

    files = DeltaTable(f"{options.store}/prices").file_uris()
    begun = time.perf_counter()
    query = duckdb.sql("SELECT symbol, session, close FROM read_parquet($files)", params={"files": files})
    rows = query.to_arrow_table().num_rows
    seconds = time.perf_counter() - begun
    amended = [file for file in files if "amended=true" in file]
    extra = duckdb.sql("SELECT count(*) FROM read_parquet($files)", params={"files": amended}).fetchall()
    return {"seconds": seconds, "rows": rows, "amended": extra[0][0]}


def day(options: argparse.Namespace) -> dict[str, float]:
    """Fetch the last sessions of every symbol again, with a new one."""
    last = options.day + UPDATE + 1
    sessions = _sessions(options.sessions)[-UPDATE - EXTRA :][options.day : last]
    window = (sessions[0].date(), sessions[-1].date())
    fetches = {
        _name(number): Fetch(pd.DataFrame(tail[options.day : last], sessions, list(PRICE_COLUMNS)), window)
        for number, tail in enumerate(np.load(_tails(options)))
    }
    begun = time.perf_counter()
    result = PriceStore(options.store).write(
        fetches, fetched_at=START + datetime.timedelta(days=2 + options.day), source="synthetic"
    )
    seconds = time.perf_counter() - begun
    added, changed = int(result.counts["added"].sum()), int(result.counts["changed"].sum())
    if added != options.symbols or changed > options.symbols // 20:
        raise SystemExit(f"a day adds one session a symbol; it added {added} and changed {changed}")
    return {"seconds": seconds}


SIDES = {"append": append, "read": read, "known": known, "duckdb": duckdb, "day": day}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=10_000)
    parser.add_argument("--sessions", type=int, default=7_500)
    parser.add_argument("--rounds", type=int, default=5, choices=range(1, EXTRA + 1))
    parser.add_argument("--output", type=Path, default=Path("workspace/bench/store.json"))
    parser.add_argument("--store", type=Path, help="folder for the store; a temporary one by default")
    parser.add_argument("--keep", action="store_true", help="leave the store where it is")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--day", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(side: str, options: argparse.Namespace, *more: str) -> dict[str, float]:
    """Run a side in a process of its own and return what it printed."""
    shape = ["--symbols", str(options.symbols), "--sessions", str(options.sessions)]
    command = [sys.executable, __file__, "--side", side, "--store", str(options.store), *shape, *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _tails(options: argparse.Namespace) -> Path:
    return Path(f"{options.store}.tails.npy")


def _name(number: int) -> str:
    return f"S{number:05d}"


def _sessions(count: int) -> pd.DatetimeIndex:
    """Return the sessions that are appended, and after them those of the daily updates."""
    return pd.bdate_range(end=LAST, periods=count + EXTRA, unit="s", name="session")


def _history(number: int, sessions: pd.DatetimeIndex) -> pd.DataFrame:
    """Make the prices of one symbol: a random walk in cents, with dividends, splits and volume."""
    random = np.random.default_rng(number)
    size = len(sessions)
    close = np.exp(np.log(20 + number % 400) + np.cumsum(random.normal(0, 0.015, size)))
    opened = close * np.exp(random.normal(0, 0.005, size))
    reach = np.exp(np.abs(random.normal(0, 0.005, (2, size))))
    columns = {
        "open": opened,
        "high": np.maximum(opened, close) * reach[0],
        "low": np.minimum(opened, close) / reach[1],
        "close": close,
    }
    data = {name: np.maximum(np.round(values, 2), 0.01) for name, values in columns.items()}
    data["volume"] = np.round(np.exp(random.normal(13, 0.5, size)))
    data["dividend"] = np.where(np.arange(size) % 63 == 62, np.round(close / 200, 2), 0.0)
    data["split"] = np.where(random.random(size) < 1 / 4000, 2.0, 1.0)
    return pd.DataFrame(data, sessions)


if __name__ == "__main__":
    main()
