"""Malformed input through the command line: refused in one clear line, nothing half-written or executed."""

from __future__ import annotations

import io
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from planted import garch, prices
from typer.testing import CliRunner, Result

from pipelines.cli import app

FUZZ = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
EVIL = [
    "!!python/object/apply:os.system ['touch executed']",
    "!!python/name:os.system",
    "<script>alert(1)</script>",
    "../../executed",
    "=cmd|' /C calc'!A0",
    "'; DROP TABLE forecasts; --",
    "$(touch executed)",
    "`touch executed`",
    "{{ 7 * 7 }}",
    "%s%n",
    "\x00",
    "\ud7ff\u202e",
    "A" * 5000,
    "NaN",
    "1e999",
    "-1",
    "0x10",
    "1_000",
    "true",
    "null",
    "~",
    "[]",
    "{}",
    "&a [*a]",
    "2024-02-30",
    "99999999999999999999999999",
]
STRAY = ['"', "\x00", "\ufeff", "\r", "é", ",,,", "\t"]
JOB: dict[str, Any] = {
    "name": "fuzzed",
    "prices": {"kind": "files", "path": "prices.csv", "symbols": ["ON", "NO", "0700"]},
    "horizons": [1, 5],
    "lookback": 8,
    "backtest": {"start": "2001-01-01", "end": "2001-03-30", "refit_every": 60, "embargo": 1},
    "returns": "total",
    "variance": "returns",
    "minimum_coverage": 0.3,
    "seed": 7,
    "models": [{"kind": "historical"}, {"kind": "ridge", "lags": 3, "penalty": 1.0}],
}


def table() -> pd.DataFrame:
    parts = []
    for seed, symbol in enumerate(("ON", "NO", "0700")):
        frame = prices(garch(330, seed))
        days = frame.index.strftime("%Y-%m-%d")
        parts.append(pd.DataFrame({"symbol": symbol, "session": days, "close": frame["close"].to_numpy()}))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fuzz")
    table().to_csv(place / "prices.csv", index=False)
    return place


def contents(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def call(*arguments: object) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CliRunner().invoke(app, [str(argument) for argument in arguments])


def judge(result: Result, place: Path, output: Path, before: dict[str, bytes]) -> None:
    """Whatever came in: it works, or is refused in one line a symbol; the input is as it was."""
    assert result.exit_code in (0, 1, 2, 3), (result.exit_code, result.stderr)
    assert "Traceback" not in result.stderr
    assert "internal error" not in result.stderr, result.stderr
    complaints = [line for line in result.stderr.splitlines() if line.startswith("forecaster: ")]
    if result.exit_code == 0:
        assert not complaints
    else:
        assert complaints, result.stderr
        assert all(len(line) < 2000 for line in complaints)
    if result.exit_code == 1:  # fewer symbols than asked for, said as such
        assert "minimum coverage" in result.stderr, result.stderr
    if result.exit_code == 2:
        assert len(complaints) == 1
        assert not output.exists(), "nothing half-written"
    elif output.exists():
        assert {"forecasts.parquet", "provenance.json"} <= {path.name for path in output.iterdir()}
        shutil.rmtree(output)
    assert contents(place) == before, "the input is as it was"
    assert not Path("executed").exists()
    assert not list(place.parent.rglob("executed"))


def paths(node: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    if isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            yield from paths(value, (*at, key))


ODD = st.one_of(
    st.sampled_from(EVIL),
    st.text(max_size=12),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


@FUZZ
@given(data=st.data())
def test_a_job_with_something_odd_in_it(data: st.DataObject, folder: Path) -> None:
    job = json.loads(json.dumps(JOB))
    for _ in range(data.draw(st.integers(1, 2))):
        *above, last = data.draw(st.sampled_from(list(paths(job))))
        node = job
        for key in above:
            node = node[key]
        action = data.draw(st.sampled_from(["replace", "delete", "add"]))
        if action == "replace":
            node[last] = data.draw(ODD)
        elif action == "delete":
            del node[last]
        elif isinstance(node, dict):
            node[data.draw(st.text(min_size=1, max_size=8))] = data.draw(ODD)
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job, allow_unicode=True))
    before = contents(folder)
    judge(call("validate", path), folder, folder.parent / "out", before)


@FUZZ
@given(
    where=st.integers(0, 10_000),
    what=st.one_of(st.sampled_from(EVIL), st.text(max_size=6)),
    cut=st.booleans(),
)
def test_a_job_file_that_is_damaged(where: int, what: str, cut: bool, folder: Path) -> None:
    text = yaml.safe_dump(JOB)
    where %= len(text)
    path = folder / "job.yaml"
    path.write_bytes(
        (text[:where] + what + ("" if cut else text[where:])).encode("utf-8", errors="surrogatepass")
    )
    before = contents(folder)
    judge(call("validate", path), folder, folder.parent / "out", before)


@FUZZ
@given(data=st.data())
def test_prices_in_csv_with_something_odd_in_them(data: st.DataObject, folder: Path) -> None:
    own = folder / "csv"
    own.mkdir(exist_ok=True)
    raw = table().to_csv(index=False)
    lines = raw.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        row = data.draw(st.integers(0, len(lines) - 1))
        action = data.draw(st.sampled_from(["cell", "cut", "twice", "bytes", "drop", "join"]))
        if action == "cell":
            cells = lines[row].split(",")
            cells[data.draw(st.integers(0, len(cells) - 1))] = str(data.draw(ODD))
            lines[row] = ",".join(cells)
        elif action == "cut":
            lines[row] = lines[row][: data.draw(st.integers(0, 12))]
        elif action == "twice":
            lines.insert(row, lines[row])
        elif action == "drop":
            del lines[row]
        elif action == "join":
            lines[row] = lines[row] + "," + lines[row]
        else:
            lines[row] = lines[row] + data.draw(
                st.sampled_from(['"', "\x00", "\ufeff", "\r", "é", ",,,", "\t"])
            )
    (own / "prices.csv").write_bytes("\n".join(lines).encode("utf-8", errors="surrogatepass"))
    path = own / "job.yaml"
    path.write_text(yaml.safe_dump({**JOB, "models": [{"kind": "historical"}], "horizons": [1]}))
    before = contents(own)
    output = folder / "out-csv"
    judge(call("forecast", path, "--output", output), own, output, before)


@FUZZ
@given(data=st.data())
def test_bytes_that_are_no_prices(data: st.DataObject, folder: Path) -> None:
    """Parquet and CSV files with bytes changed, cut off or put in."""
    own = folder / "bytes"
    own.mkdir(exist_ok=True)
    parquet = data.draw(st.booleans())
    if parquet:
        buffer = io.BytesIO()
        table().to_parquet(buffer, index=False)
        raw = bytearray(buffer.getvalue())
    else:
        raw = bytearray(table().to_csv(index=False).encode())
    for _ in range(data.draw(st.integers(1, 8))):
        where = data.draw(st.integers(0, len(raw) - 1))
        raw[where : where + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    for old in own.glob("prices.*"):
        old.unlink()
    name = "prices.parquet" if parquet else "prices.csv"
    (own / name).write_bytes(bytes(raw))
    path = own / "job.yaml"
    job = {**JOB, "models": [{"kind": "historical"}], "horizons": [1]}
    path.write_text(yaml.safe_dump(job | {"prices": {"kind": "files", "path": name}}))
    before = contents(own)
    output = folder / "out-bytes"
    judge(call("forecast", path, "--output", output), own, output, before)


@FUZZ
@given(symbol=st.one_of(st.sampled_from(EVIL), st.text(min_size=1, max_size=20)))
def test_symbols_are_text_and_nothing_else(symbol: str, folder: Path) -> None:
    own = folder / "symbols"
    own.mkdir(exist_ok=True)
    frame = table()
    frame["symbol"] = frame["symbol"].replace("NO", symbol)
    try:
        frame.to_csv(own / "prices.csv", index=False)
    except UnicodeEncodeError:
        return
    path = own / "job.yaml"
    job = {**JOB, "models": [{"kind": "historical"}], "horizons": [1]}
    path.write_text(
        yaml.safe_dump(job | {"prices": {"kind": "files", "path": "prices.csv"}}, allow_unicode=True)
    )
    before = contents(own)
    output = folder / "out-symbols"
    judge(call("forecast", path, "--output", output), own, output, before)


@pytest.fixture(scope="module")
def stored(folder: Path) -> Path:
    """A job with a price store beside it."""
    own = folder / "store"
    own.mkdir()
    table().to_csv(own / "prices.csv", index=False)
    job = {**JOB, "models": [{"kind": "historical"}], "horizons": [1], "store": str(own / "prices")}
    (own / "job.yaml").write_text(yaml.safe_dump(job))
    assert call("ingest", own / "job.yaml").exit_code == 0
    return own


@FUZZ
@given(data=st.data())
def test_a_price_store_that_is_damaged(data: st.DataObject, stored: Path, folder: Path) -> None:
    own = folder / "damaged"
    shutil.rmtree(own, ignore_errors=True)
    shutil.copytree(stored, own)
    (own / "job.yaml").write_text(
        (stored / "job.yaml").read_text().replace(str(stored / "prices"), str(own / "prices"))
    )
    files = sorted(path for path in (own / "prices").rglob("*") if path.is_file() and path.stat().st_size)
    path = data.draw(st.sampled_from(files))
    raw = bytearray(path.read_bytes())
    action = data.draw(st.sampled_from(["cut", "bytes", "remove", "empty", "json"]))
    if action == "remove":
        path.unlink()
    elif action == "empty":
        path.write_bytes(b"")
    elif action == "cut":
        path.write_bytes(bytes(raw[: data.draw(st.integers(0, len(raw) - 1))]))
    elif action == "json":
        path.write_text(json.dumps({"add": {"path": "../../../etc/passwd", "size": 1}}) + "\n")
    else:
        for _ in range(data.draw(st.integers(1, 5))):
            where = data.draw(st.integers(0, len(raw) - 1))
            raw[where : where + 1] = data.draw(st.binary(min_size=1, max_size=3))
        path.write_bytes(bytes(raw))
    before = contents(own)
    output = folder / "out-store"
    result = call("forecast", own / "job.yaml", "--output", output)
    if result.exit_code == 1 and "minimum coverage" not in result.stderr:
        # A store that cannot be read is a failure of the store, not bad input of the user's.
        assert str(own / "prices") in result.stderr, result.stderr
        assert "internal error" not in result.stderr, result.stderr
        assert not output.exists()
        return
    judge(result, own, output, before)
