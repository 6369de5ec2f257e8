"""The examples of the documentation run as they stand, and print what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pages import DOCS, ROOT, environment

FOLDER = DOCS / "examples"
PAGE = (FOLDER / "index.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"(?<![\w.-])[-+]?\d[\d,]*(?:\.\d+)?(?=\D|$)")
SHOWN = dict(re.findall(r"\]\((\w+)\.py\).*?^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
SLOW = {"keras_network"}


def numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in NUMBER.findall(text)]


def differing(printed: str, shown: str, tolerance: float = 0.02) -> list[str]:
    """Lines that differ in words, or in a number by more than the rounding of another machine."""
    pairs = list(zip(printed.splitlines(), shown.splitlines(), strict=False))
    wrong = [
        line
        for line, expected in pairs
        if NUMBER.sub("#", line).split() != NUMBER.sub("#", expected).split()
        or not np.allclose(numbers(line), numbers(expected), rtol=tolerance, atol=2e-3)
    ]
    return wrong if len(pairs) == len(printed.splitlines()) == len(shown.splitlines()) else [printed]


def test_every_example_is_shown() -> None:
    assert sorted(SHOWN) == sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in sorted(SHOWN)]
)
def test_an_example_prints_what_the_page_says(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", FOLDER / f"{name}.py"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert differing(done.stdout, SHOWN[name]) == []


@pytest.mark.slow
def test_the_public_interface_is_typed_as_the_examples_use_it() -> None:
    """Strictly: an argument of another type, or a result that is not said, is an error."""
    files = [str(path.relative_to(ROOT)) for path in sorted(FOLDER.glob("*.py"))]
    command = [sys.executable, "-m", "mypy", "--strict", *files]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_another_output_is_found() -> None:
    shown = "lin 1 0.987 better\n2018-12-28 -5.2%\n"
    assert differing(shown, shown) == []
    assert differing(shown.replace("0.987", "0.988"), shown) == []
    assert differing(shown.replace("0.987", "1.087"), shown) == ["lin 1 1.087 better"]
    assert differing(shown.replace("better", "worse"), shown) == ["lin 1 0.987 worse"]
    assert differing(shown.replace("2018", "2019"), shown, 1e-9) == ["2019-12-28 -5.2%"]
    assert differing(shown + "more\n", shown) == [shown + "more\n"]
