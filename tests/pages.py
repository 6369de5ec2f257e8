"""A reader of the documentation, who types what a page says, line by line."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
import urllib.request
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
from clusters import wait_until
from typer.testing import CliRunner

from forecaster.job import parse_job
from pipelines.cli import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\w*)(?: title=\"\w+\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ENDLESS = {"serve", "dashboard"}
"""Commands that go on until they are stopped: they are only read, unless a page starts them with `&`."""
JOB = """
name: us
prices: {kind: sample, symbols: [SP500, NASDAQ]}
backtest: {start: 2014-01-01}
models: [{kind: historical}, {kind: ewma_fhs}]
"""


def parts(text: str) -> list[tuple[str, str]]:
    """Kind and body of each code block of a page."""
    return FENCE.findall(text)


@dataclass
class Reader:
    """Types the code blocks of a page, in a folder that is the current one.

    Parameters
    ----------
    monkeypatch : MonkeyPatch
        Takes back what the page exports.
    ports : dict of str to int
        Free ports in place of those that the page names.
    read_only : bool
        See that every command could be typed, and type none.
    sql : callable, optional
        Runs a statement.
    """

    monkeypatch: pytest.MonkeyPatch
    ports: Mapping[str, int] = field(default_factory=dict)
    read_only: bool = False
    sql: Callable[[str], Any] | None = None
    names: dict[str, object] = field(default_factory=lambda: {"__name__": "page"})
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _ends: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def read(self, text: str) -> None:
        """Do every code block of a text, in order."""
        for port, free in self.ports.items():
            text = re.sub(rf"(?<=[: ]){port}\b", str(free), text)
        for kind, body in parts(text):
            if kind == "yaml" and (title := re.match(r"# ([\w-]+\.yaml)\n", body)):
                Path(title[1]).write_text(body, encoding="utf-8")
            elif kind == "yaml":
                parse_job(JOB + body, "a part of a job")
            elif kind == "python":
                self._snippet(body)
            elif kind == "sh":
                for line in body.replace("\\\n", " ").splitlines():
                    self.type(line)
            elif kind == "json":
                json.loads(body)
            elif kind == "sql":
                assert self.sql is not None, body
                for statement in body.strip().removesuffix(";").split(";\n"):
                    self.sql(statement)
            else:
                assert kind == "text", f"a code block is yaml, python, sh, json, sql or text, not {kind!r}"

    def _snippet(self, body: str) -> None:
        code = compile(body, "a page", "exec")
        if not self.read_only:
            exec(code, self.names)

    def type(self, line: str) -> None:
        """Type one line; what it starts in the background is awaited."""
        words = shlex.split(line, comments=True)
        if words[0] == "sudo":
            words = words[1:]
        program, *arguments = words
        do = getattr(self, f"_{Path(program).name}", None)
        assert do is not None, f"nobody knows how to type {line!r}"
        do(line, arguments)

    def _forecaster(self, line: str, arguments: list[str]) -> None:
        if arguments[-1] == "&":
            self._background(line, [sys.executable, "-m", "pipelines.cli", *arguments[:-1]])
            return
        # What stands before `--help` is read, and refused where there is no such option.
        read_only = self.read_only or arguments[0] in ENDLESS
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = CliRunner().invoke(app, [*arguments, "--help"] if read_only else arguments)
        assert result.exit_code == 0, f"{line}\n{result.stdout}\n{result.stderr}"

    def _background(self, line: str, command: list[str]) -> None:
        log = Path(f"log-{len(self.servers)}")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env=environment(), start_new_session=True
            )
        self._ends.callback(self._end, process)
        self.servers.append(process)
        for port in re.findall(r"--port (\d+)", line):
            wait_until(partial(self._answers, process, log, int(port)), 240)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)

    @staticmethod
    def _answers(process: subprocess.Popen[bytes], log: Path, port: int) -> bool:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def _installed(self, line: str, arguments: list[str]) -> None:
        """Start a program of the environment that serves."""
        assert arguments[-1] == "&", line
        self._background(line, [str(Path(sys.executable).with_name(line.split()[0])), *arguments[:-1]])

    _dask = _ray = _mlflow = _installed

    def _export(self, line: str, arguments: list[str]) -> None:
        name, _, value = arguments[0].partition("=")
        self.monkeypatch.setenv(name, value)

    def _curl(self, line: str, arguments: list[str]) -> None:
        assert "--retry" in arguments, line
        wait_until(partial(self._healthy, arguments[-1]), 120)

    @staticmethod
    def _healthy(url: str) -> bool:
        with suppress(OSError), urllib.request.urlopen(url, timeout=30) as answer:
            return bool(answer.status == 200)
        return False

    # --- what a test leaves alone: it sees that what is named is there ----------------------------

    def _make(self, line: str, arguments: list[str]) -> None:
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{arguments[0]}:", makefile, re.MULTILINE), line

    def _pip(self, line: str, arguments: list[str]) -> None:
        extra = re.fullmatch(r"\.\[(\w+)\]", arguments[-1])
        assert arguments[0] == "install", line
        assert extra, line
        assert extra[1] in PROJECT["project"]["optional-dependencies"], line

    def _python(self, line: str, arguments: list[str]) -> None:
        assert (ROOT / arguments[0]).is_file(), line

    def _deployed(self, line: str, arguments: list[str]) -> None:
        named = [word for word in arguments if word.startswith("configs/")]
        units = [word for word in arguments if word.endswith((".service", ".timer"))]
        assert named or units or "job.yaml" in line, line
        for path in [*named, *(f"configs/deploy/{Path(unit).name}" for unit in units)]:
            assert (ROOT / path).is_file(), line

    _cp = _systemctl = _docker = _kubectl = _deployed


def environment() -> dict[str, str]:
    """What a script of the documentation needs to find this checkout, and nothing of the tests."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
