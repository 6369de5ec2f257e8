"""Experiments and models in MLflow; the only importer of it.

The names are loaded when they are used: a saved model is read without MLflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forecaster.tracking.registry import Registry, Version
    from forecaster.tracking.tracker import Tracker

__all__ = ["Registry", "Tracker", "Version"]


def __getattr__(name: str) -> Any:
    if name == "Tracker":
        from forecaster.tracking.tracker import Tracker

        return Tracker
    if name in ("Registry", "Version"):
        from forecaster.tracking import registry

        return getattr(registry, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
