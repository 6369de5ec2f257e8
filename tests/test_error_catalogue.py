"""Every error that a user can meet, provoked through the command line: the rule, the value, the way out.

`test_every_error_is_listed` finds all places in the code that make one, so that none can be forgotten.
"""

from __future__ import annotations

import ast
import resource
import shutil
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import yaml
from error_cases import COMMANDS, ELSEWHERE, FILES, JOB, JOBS, PARQUET, UNREACHABLE, YAHOO, Said, table
from typer.testing import CliRunner, Result

import forecaster.errors
from forecaster.ledger import Ledger
from pipelines.cli import app

ROOT = Path(__file__).parents[1]

# ---------------------------------------------------------------------------- how they are provoked


def call(*arguments: object) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CliRunner().invoke(app, [str(argument) for argument in arguments])


def complaint(result: Result, code: int) -> str:
    """The one line that says what is wrong."""
    assert result.exit_code == code, (result.exit_code, result.stderr)
    lines = [line for line in result.stderr.splitlines() if line.startswith("forecaster: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert "internal error" not in lines[0]
    assert lines[0].isprintable()
    return lines[0]


def placed(value: Any, folder: Path) -> Any:
    """Put the folder where it is named."""
    if isinstance(value, dict):
        return {placed(key, folder): placed(inner, folder) for key, inner in value.items()}
    if isinstance(value, list):
        return [placed(inner, folder) for inner in value]
    return value.replace("{folder}", str(folder)) if isinstance(value, str) else value


def write_job(folder: Path, changes: dict[str, Any], place: Path) -> Path:
    job = {key: value for key, value in {**JOB, **changes}.items() if value is not ...}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(placed(job, place)))
    return path


def ledger_with(path: Path, statement: str) -> None:
    """A ledger in which somebody else did something."""
    shutil.copy(path.with_name("ok.db"), path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.executescript(statement)
    connection.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prices, a store, ledgers and results, and with what only looks like them."""
    folder = tmp_path_factory.mktemp("world")
    table().to_csv(folder / "prices.csv", index=False)
    table(("*",)).to_csv(folder / "star.csv", index=False)
    (folder / "file").write_text("something else, of some length, that is no database at all\n" * 20)
    (folder / "empty").mkdir()
    for name in ("results", "damaged", "others", "foreign"):
        (folder / name).mkdir()
    job = write_job(folder, {"store": "{folder}/store"}, folder)
    assert call("ingest", job).exit_code == 0
    job = write_job(folder, {}, folder)
    assert call("forecast", job, "--output", folder / "results").exit_code == 0
    (folder / "damaged" / "forecasts.parquet").write_text("nothing")
    pd.DataFrame({"symbol": ["ON"]}).to_parquet(folder / "others" / "forecasts.parquet")
    from deltalake import write_deltalake

    write_deltalake(folder / "foreign", pd.DataFrame({"a": [1]}))
    Ledger.open(folder / "ok.db").close()
    other = sqlite3.connect(folder / "other.db")
    other.execute("CREATE TABLE foo (a)")
    other.close()
    ledger_with(folder / "newer.db", "UPDATE ledger_version SET version_num = '9999'")
    ledger_with(folder / "torn.db", "DROP TABLE alerts; DROP TABLE steps")
    ledger_with(
        folder / "changed.db",
        "INSERT INTO jobs VALUES (1, 'mine');"
        "INSERT INTO runs VALUES (1, 1, 'yesterday', 1, '2024-01-02 00:00:00')",
    )
    return folder


def name_of(value: object) -> str | None:
    return value.rule[:40] if isinstance(value, Said) else ""


def judge(line: str, said: Said, folder: Path) -> None:
    for part in said:
        assert part.replace("{folder}", str(folder)).replace("{{", "{").replace("}}", "}") in line


@pytest.mark.parametrize(("job", "said"), JOBS, ids=name_of)
def test_a_job(job: dict[str, Any] | str | bytes, said: Said, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    if isinstance(job, dict):
        write_job(tmp_path, job, tmp_path)
    else:
        path.write_bytes(job.encode() if isinstance(job, str) else job)
    line = complaint(call("validate", path), 2)
    assert line.startswith(f"forecaster: {path}")
    judge(line, said, tmp_path)


@pytest.mark.parametrize(("content", "name", "job", "code", "said"), FILES, ids=name_of)
def test_a_price_file(
    content: str | bytes | None, name: str, job: dict[str, Any], code: int, said: Said, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    path = write_job(tmp_path, {"prices": {"kind": "files", "path": name}, **job}, tmp_path)
    judge(complaint(call("forecast", path, "--output", tmp_path / "out"), code), said, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("column", "said"), PARQUET, ids=name_of)
def test_a_column_of_parquet(column: dict[str, Any], said: Said, tmp_path: Path) -> None:
    row = {"symbol": ["ON"], "session": ["2009-01-02"], "close": [5.0]}
    pd.DataFrame(row | {name: [value] for name, value in column.items()}).to_parquet(tmp_path / "p.parquet")
    path = write_job(tmp_path, {"prices": {"kind": "files", "path": "p.parquet"}}, tmp_path)
    judge(complaint(call("forecast", path, "--output", tmp_path / "out"), 2), said, tmp_path)


@pytest.mark.parametrize(("command", "job", "code", "said"), COMMANDS, ids=name_of)
def test_a_command(command: str, job: dict[str, Any], code: int, said: Said, world: Path) -> None:
    path, output = write_job(world, job, world), world / "out"
    shutil.rmtree(output, ignore_errors=True)
    before = {file for file in world.rglob("*") if "workspace" not in file.parts}
    arguments = [part.format(folder=world, job=path, out=output) for part in command.split()]
    judge(complaint(call(*arguments), code), said, world)
    if code != 3:
        # SQLite keeps its log beside a ledger.
        after = {file for file in world.rglob("*") if "workspace" not in file.parts}
        assert not [file for file in after - before if not file.name.endswith(("-wal", "-shm"))]


def test_what_a_ledger_holds_is_shown_and_not_obeyed(world: Path) -> None:
    said = "red\x1b[31m"
    ledger_with(
        world / "painted.db",
        "INSERT INTO jobs VALUES (1, 'mine');"
        f"INSERT INTO alerts VALUES (1, 1, '2024-01-02', '{said}', 'warn', '{said}', '2024-01-02 00:00:00');"
        f"INSERT INTO model_events VALUES (1, 1, '2024-01-02', '{said}', 'm', '1', 'r', '2024-01-02 00:00')",
    )
    result = call("status", write_job(world, {"ledger": "{folder}/painted.db"}, world))
    assert result.exit_code == 0, result.stderr
    assert "red\\x1b[31m" in result.stdout
    assert "\x1b" not in result.stdout


# Errors of the command line itself are Click's: usage, and one line; never a traceback.
USAGE = [
    ("nosuch", "No such command 'nosuch'"),
    ("forecast", "Missing argument 'CONFIG'"),
    ("backtest job.yaml", "Missing option '--output'"),
    ("validate job.yaml --nosuch", "No such option: --nosuch"),
    ("audit job.yaml --origins 0", "Invalid value for '--origins'"),
    ("reproduce first", "Invalid value for 'ID'"),
    ("dashboard job.yaml --port 99999", "Invalid value for '--port'"),
    ("data accept job.yaml", "Missing argument 'SYMBOL'"),
]


@pytest.mark.parametrize(("command", "said"), USAGE)
def test_a_wrong_use(command: str, said: str) -> None:
    result = call(*command.split())
    assert result.exit_code == 2
    assert said in result.stderr
    assert "--help" in result.stderr
    assert "Traceback" not in result.stderr


def test_symbols_that_yahoo_cannot_be_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORECASTER_YAHOO_GATEWAY", "http://127.0.0.1:1")
    asked = {"kind": "yahoo", "symbols": list(YAHOO), "interval": 0.0, "attempts": 1}
    path = write_job(tmp_path, {"prices": asked, "store": str(tmp_path / "store")}, tmp_path)
    result = call("ingest", path)
    assert result.exit_code == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("forecaster: ")]
    assert len(lines) == len(YAHOO) + 1
    assert "only 0% of the symbols succeeded, below the minimum coverage of 30%" in lines[-1]
    for line, (symbol, (rule, way_out)) in zip(lines, YAHOO.items(), strict=False):
        assert line.startswith(f"forecaster: failed {symbol}: ")
        assert rule in line
        assert way_out in line
    monkeypatch.setenv("FORECASTER_YAHOO_GATEWAY", "ftp://127.0.0.1")
    line = complaint(call("ingest", path), 2)
    assert "the gateway to Yahoo must be an http or https address. Received: 'ftp://127.0.0.1'" in line
    assert line.endswith("correct it or unset FORECASTER_YAHOO_GATEWAY")


@pytest.mark.parametrize("arguments", [("validate", "none.yaml"), ("reproduce", "1", "--ledger", "none.db")])
def test_the_traceback_is_shown_when_asked_for(arguments: tuple[str, ...]) -> None:
    plain, whole = call(*arguments), call(*arguments, "--debug")
    assert "Traceback" not in plain.stderr
    assert whole.stderr.startswith("Traceback (most recent call last):")
    assert whole.stderr.endswith(plain.stderr)
    assert whole.exit_code == plain.exit_code


def test_a_file_system_that_refuses(world: Path, tmp_path: Path) -> None:
    """A file may grow to 4 kB here, as on a disk that is nearly full: nothing is left of what was begun."""
    path = write_job(tmp_path, {"prices": {"kind": "files", "path": str(world / "prices.csv")}}, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "forecast", path, "--output", tmp_path / "out"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert done.returncode == 1, done.stderr
    line = done.stderr.splitlines()[-1]
    assert "the system refused to read or write" in line
    assert "File too large" in line
    assert line.endswith("make room, or allow it, and repeat")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------- that none is missing

TREE = {name for name in forecaster.errors.__all__ if name not in ("ForecasterError", "DataError")} | {
    "ForecasterError",
    "DataError",
    "_UndeliveredError",
}
"""What an error is made of; in a job's settings pydantic takes a ``ValueError``."""


class Site(NamedTuple):
    place: str
    text: str


def constants(node: ast.expr) -> Iterator[str]:
    """Give the constant parts of a message; what is filled in stands between two of them."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif not isinstance(node, ast.FormattedValue):
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.expr):
                yield from constants(inner)


def sites() -> list[Site]:
    """Find every place that makes an error."""
    found = []

    def visit(node: ast.AST, place: str, in_job: bool) -> None:
        for child in ast.iter_child_nodes(node):
            inner = place
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = f"{place}.{child.name}" if ":" in place else f"{place}:{child.name}"
            if isinstance(child, ast.Call) and isinstance(child.func, ast.Name | ast.Attribute):
                called = child.func.id if isinstance(child.func, ast.Name) else child.func.attr
                if called in TREE or (in_job and called in ("ValueError", "ConstructorError")):
                    text = "\0".join(part for each in child.args for part in constants(each))
                    found.append(Site(place, text))
            visit(child, inner, in_job)

    for package in ("forecaster", "pipelines"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            visit(ast.parse(path.read_text(encoding="utf-8")), name, name.startswith("forecaster/job/"))
    return found


def catalogue() -> list[str]:
    lists: tuple[list[Any], ...] = (JOBS, FILES, PARQUET, COMMANDS)
    parts = (
        "the exchange of the suffix `.",
        "the gateway to Yahoo must be",
        "Yahoo gave no usable answer in ",
    )
    yahoo = [*parts, *(rule for rule, _ in YAHOO.values())]
    return [*yahoo, *(case[-1].rule for cases in lists for case in cases)]


def excused(site: Site, key: str) -> bool:
    place, _, beginning = key.partition(" ")
    return (site.place == place or site.place.startswith((f"{place}:", f"{place}.", f"{place}/"))) and (
        beginning in site.text
    )


def test_every_error_is_listed() -> None:
    rules, found = [*catalogue(), *ELSEWHERE], sites()
    assert len(found) > 300
    missing = [
        site
        for site in found
        if not any(rule in part for rule in rules for part in site.text.split("\0"))
        and not any(excused(site, key) for key in UNREACHABLE)
    ]
    assert not missing, "\n".join(f"{site.place} {site.text!r}" for site in missing)


def test_nothing_is_listed_that_is_not_there() -> None:
    found = sites()
    for key in UNREACHABLE:
        assert any(excused(site, key) for site in found), key
    for said, test in ELSEWHERE.items():
        assert any(said in site.text for site in found), said
        path, name = test.split("::")
        source = (ROOT / "tests" / path).read_text(encoding="utf-8")
        assert f"def {name}(" in source, test
