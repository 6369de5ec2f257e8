"""Malformed input through the command line: refused in one clear line, nothing half-written or executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import skops.io
import yaml
from hypothesis import HealthCheck, given, settings
from planted import garch, prices
from typer.testing import CliRunner, Result

from forecaster.errors import TrackingError
from forecaster.job import parse_job
from forecaster.ledger import Ledger
from forecaster.redaction import CONTROL
from forecaster.tracking.saved import SavedModel, read_model, write_model
from forecaster.windows import Panel
from pipelines.cli import app
from pipelines.train import fit_model

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


def scramble(raw: bytearray, data: st.DataObject) -> None:
    """Put a few other bytes in the place of some."""
    for _ in range(data.draw(st.integers(1, 5))):
        where = data.draw(st.integers(0, len(raw) - 1))
        raw[where : where + 1] = data.draw(st.binary(min_size=1, max_size=3))


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
        scramble(raw, data)
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


# ---------------------------------------------------------------------------------- ledgers and saved models

READERS = ("status", "export", "backup", "reproduce")


@pytest.fixture(scope="module")
def issued(folder: Path) -> Path:
    """A job whose ledger holds an evening: steps, forecasts, outcomes and scores, events and alerts."""
    own = folder / "ledger"
    own.mkdir()
    frame = table()
    frame.to_csv(own / "prices.csv", index=False)
    job = {**JOB, "models": [{"kind": "historical"}], "horizons": [1], "workspace": str(own / "workspace")}
    text = yaml.safe_dump({**job, "ledger": str(own / "ledger.db")})
    (own / "job.yaml").write_text(text)
    assert call("forecast", own / "job.yaml", "--output", own / "out").exit_code == 0
    keys = ["model", "symbol", "origin", "horizon"]
    rows = pd.read_parquet(own / "out" / "forecasts.parquet").drop(columns="y")
    rows = rows.merge(pd.read_parquet(own / "out" / "tails.parquet"), on=keys)
    last = frame.groupby("symbol")["close"].last()
    rows = rows.assign(
        model_version=f"fit-{frame['session'].max()}", late=False, close=rows["symbol"].map(last)
    )
    said = json.loads((own / "out" / "provenance.json").read_text())
    day = rows["origin"].max().date()
    with Ledger.open(own / "ledger.db") as ledger:
        run = ledger.start_run("fuzzed", job_hash="abc", yaml=text, as_of=day, steps=("forecast", "score"))
        with run.step("forecast", code_version="c") as step:
            assert step is not None
            ledger.issue(run, rows, data_version=said["data_version"], known_at=None, code_version="c")
        happened = rows[["symbol", "origin", "horizon"]].assign(target=rows["origin"] + pd.Timedelta(days=1))
        ledger.record_outcomes("fuzzed", happened.assign(y=0.01), data_version="d")
        ledger.record_model_event(
            "fuzzed", as_of=day, event="promotion", model="historical", version="1", reason="better"
        )
        ledger.record_alert("fuzzed", as_of=day, check="coverage", state="warn", reason="low")
    shutil.rmtree(own / "out")
    for reader in READERS:
        assert read_ledger(own, reader).exit_code == 0, reader
    (own / "copy").unlink()
    (own / "export.csv").unlink()
    return own


def read_ledger(own: Path, reader: str) -> Result:
    commands: dict[str, tuple[object, ...]] = {
        "status": ("status", own / "job.yaml"),
        "export": ("export", own / "job.yaml", "--output", own / "export.csv"),
        "backup": ("ledger", "backup", own / "job.yaml", own / "copy"),
        "reproduce": ("reproduce", "1", "--config", own / "job.yaml"),
    }
    return call(*commands[reader])


def tamper(path: Path, data: st.DataObject) -> None:
    """Change tables, columns or cells, as whoever owns the database can; triggers do not hold them."""
    with closing(sqlite3.connect(path)) as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f'DROP TRIGGER "{name}"')
        database.execute("PRAGMA foreign_keys = OFF")
        database.execute("PRAGMA ignore_check_constraints = ON")
        names = [
            name
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if database.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone()
        ]
        for _ in range(data.draw(st.integers(1, 3))):
            table = data.draw(st.sampled_from(names))
            action = data.draw(st.sampled_from(["cell", "cell", "cell", "rows", "drop", "rename"]))
            columns = [row[1] for row in database.execute(f'PRAGMA table_info("{table}")')]
            column = data.draw(st.sampled_from(columns)) if columns else "none"
            value = data.draw(
                st.one_of(
                    st.sampled_from([text for text in EVIL if "\ud7ff" not in text]),
                    st.integers(-(2**63), 2**63 - 1),
                    st.floats(),
                    st.binary(max_size=4),
                    st.none(),
                )
            )
            with suppress(sqlite3.Error):
                if action == "cell":
                    database.execute(f'UPDATE "{table}" SET "{column}" = ?', (value,))
                elif action == "rows":
                    database.execute(f'DELETE FROM "{table}"')
                elif action == "drop":
                    database.execute(f'DROP TABLE "{table}"')
                else:
                    database.execute(f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "other"')
        database.commit()


@settings(FUZZ, max_examples=100)
@given(data=st.data())
def test_a_ledger_that_is_damaged(data: st.DataObject, issued: Path, folder: Path) -> None:
    own = folder / "ledger-damaged"
    shutil.rmtree(own, ignore_errors=True)
    shutil.copytree(issued, own)
    job = (issued / "job.yaml").read_text().replace(str(issued), str(own))
    (own / "job.yaml").write_text(job)
    path = own / "ledger.db"
    bytewise = data.draw(st.booleans())
    if bytewise:
        raw = bytearray(path.read_bytes())
        scramble(raw, data)
        if data.draw(st.booleans()):
            raw = raw[: data.draw(st.integers(0, len(raw)))]
        path.write_bytes(bytes(raw))
    else:
        tamper(path, data)
    # What is made again is fitted again, which takes a second.
    reader = data.draw(st.sampled_from([*READERS[:3] * 3, READERS[3]]))
    before = path.read_bytes()
    result = read_ledger(own, reader)
    assert result.exit_code in (0, 1, 2), (result.exit_code, result.stderr)
    assert "Traceback" not in result.stderr
    assert "internal error" not in result.stderr, result.stderr
    complaints = [line for line in result.stderr.splitlines() if line.startswith("forecaster: ")]
    assert len(complaints) == (result.exit_code != 0), result.stderr
    assert all(line.isprintable() and len(line) < 2000 for line in complaints)
    assert not CONTROL.search(result.stdout.replace("\n", "")), "a terminal is told nothing"
    assert (own / "export.csv").exists() == (reader == "export" and result.exit_code == 0)
    assert (own / "copy").exists() == (reader == "backup" and result.exit_code == 0)
    if not bytewise:
        assert path.read_bytes() == before, "who reads changes nothing"
    assert not Path("executed").exists()
    assert not list(folder.parent.rglob("executed"))


MODELS: dict[str, dict[str, Any]] = {
    "historical": {"kind": "historical"},
    "ewma_fhs": {"kind": "ewma_fhs"},
    "ridge": {"kind": "ridge", "lags": 3, "penalty": 1.0},
    "both": {"kind": "combination", "name": "both", "members": ["historical", "ridge"]},
}


@pytest.fixture(scope="module")
def fitted(folder: Path) -> Path:
    own = folder / "models"
    frames = {f"S{seed}": prices(garch(330, seed)) for seed in range(2)}
    panel = Panel.from_prices(frames)
    job = parse_job(yaml.safe_dump({**JOB, "models": list(MODELS.values())}), "job")
    for name in MODELS:
        model = fit_model(job, name, panel, panel.calendar[-1])
        write_model(own / name, SavedModel(job, name, model))
        assert read_model(own / name).name == name
    return own


class Poison:
    """What is unpickled runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def poisoned(path: Path) -> None:
    """Put in the place of a saved file another of its kind that brings code along."""
    poison = np.array([Poison()], dtype=object)
    if path.suffix == ".npz":
        with np.load(path) as archive:
            arrays = dict(archive)
        with path.open("wb") as file:
            np.savez(file, allow_pickle=True, **dict.fromkeys(arrays, poison))
    elif path.suffix == ".skops":
        skops.io.dump(shutil.rmtree, path)
    else:
        path.write_bytes(pickle.dumps(Poison()))


@settings(FUZZ, max_examples=100)
@given(data=st.data())
def test_a_saved_model_that_is_damaged(data: st.DataObject, fitted: Path, folder: Path) -> None:
    """It is made again or refused as damaged. (The registry compares hashes before it comes to this.)"""
    own = folder / "model-damaged"
    shutil.rmtree(own, ignore_errors=True)
    shutil.copytree(fitted / data.draw(st.sampled_from(sorted(MODELS))), own)
    files = sorted(path for path in own.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    raw = bytearray(path.read_bytes())
    action = data.draw(st.sampled_from(["cut", "bytes", "remove", "poison", "other", "link", "json"]))
    if action == "remove":
        path.unlink()
    elif action == "cut":
        path.write_bytes(bytes(raw[: data.draw(st.integers(0, len(raw) - 1))]))
    elif action == "poison":
        poisoned(path)
    elif action == "other":
        path.write_bytes(data.draw(st.sampled_from(files)).read_bytes())
    elif action == "link":
        path.unlink()
        path.symlink_to("/dev/null")
    elif action == "json":
        content = json.loads((own / "job.json").read_text())
        *above, last = data.draw(st.sampled_from(list(paths(content))))
        node = content
        for key in above:
            node = node[key]
        node[last] = data.draw(ODD)
        (own / "job.json").write_text(json.dumps(content))
    else:
        scramble(raw, data)
        path.write_bytes(bytes(raw))
    before = contents(own)
    refused = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read_model(own)
    except TrackingError as error:
        refused = str(error)
    if refused:
        assert str(own) in refused
        assert len(refused.splitlines()) == 1
        assert len(refused) < 2000
    assert refused or action != "poison"
    assert contents(own) == before
    assert not Path("executed").exists()
    assert not list(folder.parent.rglob("executed"))


@pytest.mark.parametrize("name", MODELS)
def test_no_file_of_a_model_brings_code_along(name: str, fitted: Path, tmp_path: Path) -> None:
    files = [path.relative_to(fitted / name) for path in (fitted / name).rglob("*") if path.is_file()]
    for number, file in enumerate(files):
        own = shutil.copytree(fitted / name, tmp_path / str(number))
        poisoned(own / file)
        with pytest.raises(TrackingError, match=r"a damaged (model|one): .*restore it"):
            read_model(own)
        assert not Path("executed").exists()


def test_what_is_poisoned_would_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Poison()))
    assert Path("executed").exists()
