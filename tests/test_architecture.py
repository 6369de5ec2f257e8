"""The floors of the house hold, their contracts can break, and what must stay light stays light."""

from __future__ import annotations

import json
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dashboards
import forecaster

ROOT = Path(__file__).parents[1]
PACKAGES = ("forecaster", "pipelines", "dashboards")

# Seconds each to import. The heaviest are for a fit or a tracked run, and for nothing else.
HEAVIEST = {"tensorflow", "keras", "mlflow"}
HEAVY = HEAVIEST | {
    "arch",
    "pandas",
    "plotly",
    "pyarrow",
    "ray",
    "scipy",
    "skfolio",
    "sklearn",
    "sqlalchemy",
    "statsmodels",
    "streamlit",
    "yfinance",
}
# The only places that may import them, each behind a lazy import of whoever uses it.
EXCEPT = ("forecaster.tracking", "forecaster.models.convolution")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of ``folder``, its packages first on the path."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as run; run()",
        "--no-cache",
    ]
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "300", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_imports_run_downward_only() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


# One import for each way to break the house: module, the import added to it, what import-linter must say.
PLANTED = [
    ("forecaster/errors.py", "import forecaster.returns", "forecaster.errors -> forecaster.returns"),
    ("forecaster/scores.py", "import forecaster.windows", "forecaster.scores -> forecaster.windows"),
    ("forecaster/returns.py", "import forecaster.quantiles", "forecaster.returns -> forecaster.quantiles"),
    ("forecaster/windows.py", "import forecaster.models", "forecaster.windows -> forecaster.models"),
    (
        "forecaster/job.py",
        "def f():\n    import forecaster.tracking",
        "forecaster.job -> forecaster.tracking",
    ),
    ("forecaster/kernels.py", "import forecaster.features", "forecaster.kernels -> forecaster.features"),
    ("forecaster/quantiles.py", "import pipelines", "forecaster.quantiles -> pipelines"),
    ("dashboards/__init__.py", "import pipelines", "dashboards -> pipelines"),
    ("forecaster/walkforward.py", "def f():\n    import mlflow", "forecaster.walkforward -> mlflow"),
    ("pipelines/__init__.py", "import sqlalchemy.orm", "pipelines -> sqlalchemy"),
    ("forecaster/significance.py", "import alembic", "forecaster.significance -> alembic"),
    ("forecaster/models/base.py", "import keras", "forecaster.models.base -> keras"),
    ("forecaster/tracking/__init__.py", "import tensorflow", "forecaster.tracking -> tensorflow"),
    ("forecaster/helpers.py", "", "forecaster.helpers"),
]


@pytest.fixture(scope="module")
def broken_house(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What import-linter says of a copy with every import of PLANTED in it."""
    copy = tmp_path_factory.mktemp("house")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for path, line, _ in PLANTED:
        with (copy / path).open("a", encoding="utf-8") as module:
            module.write(f"\n{line}\n")
    result = lint_imports(copy)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "0 kept" in result.stdout, result.stdout
    return result.stdout


@pytest.mark.parametrize("expected", [said for _, _, said in PLANTED])
def test_a_broken_rule_is_named(broken_house: str, expected: str) -> None:
    assert any(expected in line for line in broken_house.splitlines()), broken_house


def loaded(code: str, heavy: set[str]) -> dict[str, list[str]]:
    """Run ``code`` in a fresh Python; what of ``heavy`` was loaded at each of its calls of ``look``."""
    program = f"""
import importlib, json, sys
heavy, seen = {sorted(heavy)!r}, {{}}
def look(step):
    seen[step] = [name for name in heavy if name in sys.modules]
{code}
print(json.dumps(seen))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    seen: dict[str, list[str]] = json.loads(run.stdout.splitlines()[-1])
    return seen


def importing(modules: list[str]) -> str:
    return f"""
for module in {modules!r}:
    importlib.import_module(module)
    look(module)
"""


def modules_below(package: object) -> list[str]:
    name, path = package.__name__, package.__path__  # type: ignore[attr-defined]
    found = [name, *(module.name for module in pkgutil.walk_packages(path, prefix=f"{name}."))]
    return [module for module in found if not module.startswith(EXCEPT)]


def test_the_library_loads_no_tensorflow_and_no_mlflow() -> None:
    modules = modules_below(forecaster)
    assert "forecaster.models.learned" in modules
    seen = loaded(importing(modules), HEAVIEST)
    assert {module: heavy for module, heavy in seen.items() if heavy} == {}


def test_dashboards_load_no_tensorflow_and_no_mlflow() -> None:
    # Streamlit is an extra: a page is imported up to there where it is not installed.
    code = f"""
for module in {modules_below(dashboards)!r}:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "streamlit":
            raise
    look(module)
"""
    seen = loaded(code, HEAVIEST)
    assert "dashboards" in seen
    assert {module: heavy for module, heavy in seen.items() if heavy} == {}


def test_the_entries_load_nothing_heavy() -> None:
    entries = [
        "forecaster",
        "forecaster.errors",
        "forecaster.job",
        "forecaster.report",
        "pipelines.cli",
        "dashboards",
    ]
    assert loaded(importing(entries), HEAVY) == {entry: [] for entry in entries}


def test_help_loads_nothing_heavy() -> None:
    code = """
from pipelines.cli import app
try:
    app(["--help"])
except SystemExit as end:
    assert not end.code, end.code
look("--help")
"""
    assert loaded(code, HEAVY) == {"--help": []}


def test_what_is_heavy_is_seen() -> None:
    assert "pandas" in loaded(importing(["pandas"]), HEAVY)["pandas"]
