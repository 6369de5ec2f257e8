"""Which code made a result."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

__all__ = ["code_version", "package_versions"]

PACKAGES = ("arch", "keras", "mlflow", "numpy", "pandas", "scikit-learn", "scipy", "tensorflow")
"""Those that numbers depend on."""


@cache
def code_version() -> str:
    """Version of the package and, in a checkout, the commit; ``+changed`` where files differ from it."""
    number = version("forecaster")
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return number
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+changed", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return number
    return f"{number}+{described.stdout.strip()}"


def package_versions() -> dict[str, str]:
    """Give the versions of the packages that numbers depend on."""
    return {package: version(package) for package in PACKAGES}
