"""Every page of the documentation runs as it stands: jobs, commands and snippets, in order."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forecaster.job import parse_job
from pipelines.cli import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\w*)(?: title=\"\w+\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TESTED_ELSEWHERE = {"kernels.md", "speed.md", "prices.md"}
"""By tests/test_docs.py and tests/test_ingest.py."""
GENERATED = {"reference/commands.md", "reference/job.md"}
PAGES = sorted(
    name
    for path in DOCS.rglob("*.md")
    if (name := path.relative_to(DOCS).as_posix()) not in TESTED_ELSEWHERE | GENERATED
)


def parts(page: str) -> list[tuple[str, str]]:
    return FENCE.findall((DOCS / page).read_text(encoding="utf-8"))


READ_ONLY = {"operations.md", "how-to/dashboard.md"}
"""Their commands serve until they are stopped, or need an evening's results: here they are only read."""
JOB = """
name: us
prices: {kind: sample, symbols: [SP500, NASDAQ]}
backtest: {start: 2014-01-01}
models: [{kind: historical}, {kind: ewma_fhs}]
"""


def command(line: str, read_only: bool) -> None:
    program, *arguments = shlex.split(line, comments=True)
    if program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{arguments[0]}:", makefile, re.MULTILINE), line
        return
    if Path(program).name == "pip":
        extra = re.fullmatch(r"\.\[(\w+)\]", arguments[-1])
        assert arguments[0] == "install", line
        assert extra, line
        assert (
            extra[1]
            in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        )
        return
    assert Path(program).name == "forecaster", line
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # What stands before `--help` is read, and refused where there is no such option.
        result = CliRunner().invoke(app, [*arguments, "--help"] if read_only else arguments)
    assert result.exit_code == 0, f"{line}\n{result.stdout}\n{result.stderr}"


@pytest.mark.parametrize("page", [page for page in PAGES if parts(page)])
def test_a_page_runs_as_it_stands(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for kind, body in parts(page):
        if kind == "yaml" and (title := re.match(r"# (\w+\.yaml)\n", body)):
            Path(title[1]).write_text(body, encoding="utf-8")
        elif kind == "yaml":
            parse_job(JOB + body, "a part of a job")
        elif kind == "python":
            exec(compile(body, page, "exec"), names)
        elif kind == "sh":
            for line in body.splitlines():
                command(line, page in READ_ONLY)
        elif kind == "json":
            json.loads(body)
        else:
            assert kind == "text", f"{page}: a code block is yaml, python, sh, json or text, not {kind!r}"


def test_links_of_every_page_lead_somewhere() -> None:
    for path in DOCS.rglob("*.md"):
        text = FENCE.sub("", path.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)#]+?)(?:#[\w-]+)?\)", text):
            assert "://" in target or (path.parent / target).exists(), f"{path.name}: {target}"


def test_every_page_is_in_the_navigation_and_there() -> None:
    named = re.findall(r'= "([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_the_terms_of_the_glossary_are_in_order_and_explained() -> None:
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^\*\*(.+)\*\*\n:   \S", text, re.MULTILINE)
    assert terms == sorted(terms, key=str.lower)
    assert len(terms) == text.count("\n**")


def test_the_reference_is_that_of_the_code(tmp_path: Path) -> None:
    code = "import runpy, sys; from pathlib import Path; "
    code += f"runpy.run_path({str(DOCS / 'make_reference.py')!r})['main'](Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=ROOT)
    for name in GENERATED:
        made = (tmp_path / Path(name).name).read_text(encoding="utf-8")
        assert made == (DOCS / name).read_text(encoding="utf-8"), "run `make docs`"


def test_the_reference_of_python_names_the_public_interface() -> None:
    import forecaster

    text = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    listed = [line.rsplit(".", 1)[1] for line in re.findall(r"^::: (\S+)$", text, re.MULTILINE)]
    assert sorted(listed) == forecaster.__all__


def test_the_site_is_built_without_a_broken_link_and_asks_nothing_of_the_network(tmp_path: Path) -> None:
    text = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    (tmp_path / "zensical.toml").write_text(text.replace('paths = ["."]', f'paths = ["{ROOT}"]'))
    shutil.copytree(DOCS, tmp_path / "docs")
    target = tmp_path / tomllib.loads(text)["project"]["site_dir"]
    done = subprocess.run(
        [Path(sys.executable).with_name("zensical"), "build"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stdout + done.stderr
    pages = list(target.rglob("*.html"))
    assert len(pages) >= len(PAGES)
    for page in pages:
        asked = re.findall(
            r'<(?:script|link|img|iframe)[^>]+(?:src|href)="?(https?:[^" >]+)', page.read_text()
        )
        assert asked == [], page.name
