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


HOUSE = "The application stands on the library"
FLOORS = "Every module of the library is on one floor and imports downward only"
FEATURES = "Only windows, on its own floor, takes features"
MLFLOW = "Only forecaster.tracking imports MLflow"
SQLALCHEMY = "Only forecaster.ledger imports SQLAlchemy and Alembic"
KERAS = "Only forecaster.models.convolution imports Keras and TensorFlow"


@pytest.mark.parametrize(
    ("path", "line", "broken", "said"),
    [
        ("forecaster/errors.py", "import forecaster.returns", FLOORS, "errors -> forecaster.returns"),
        ("forecaster/returns.py", "import forecaster.quantiles", FLOORS, "returns -> forecaster.quantiles"),
        ("forecaster/features.py", "import forecaster.scores", FLOORS, "features -> forecaster.scores"),
        ("forecaster/scores.py", "import forecaster.windows", FLOORS, "scores -> forecaster.windows"),
        ("forecaster/windows.py", "import forecaster.models", FLOORS, "windows -> forecaster.models"),
        ("forecaster/walkforward.py", "import forecaster.significance", FLOORS, "-> forecaster.significance"),
        (
            "forecaster/job/settings.py",
            "def f():\n    import forecaster.tracking",
            FLOORS,
            "-> forecaster.tracking",
        ),
        ("forecaster/report/page.py", "import forecaster.tracking", FLOORS, "page -> forecaster.tracking"),
        ("forecaster/helpers.py", "", FLOORS, "forecaster.helpers"),
        ("forecaster/kernels.py", "import forecaster.features", FEATURES, "kernels -> forecaster.features"),
        ("forecaster/quantiles.py", "import pipelines", HOUSE, "quantiles -> pipelines"),
        ("dashboards/__init__.py", "import pipelines", HOUSE, "dashboards -> pipelines"),
        ("forecaster/walkforward.py", "def f():\n    import mlflow", MLFLOW, "walkforward -> mlflow"),
        ("pipelines/__init__.py", "import sqlalchemy.orm", SQLALCHEMY, "pipelines -> sqlalchemy"),
        ("forecaster/significance.py", "import alembic", SQLALCHEMY, "significance -> alembic"),
        ("forecaster/models/base.py", "import keras", KERAS, "models.base -> keras"),
        ("forecaster/tracking/__init__.py", "import tensorflow", KERAS, "tracking -> tensorflow"),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, path: str, line: str, broken: str, said: str) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / path).open("a", encoding="utf-8") as module:
        module.write(f"\n{line}\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "1 broken" in result.stdout, result.stdout
    assert f"{broken} BROKEN" in result.stdout
    assert said in result.stdout


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
