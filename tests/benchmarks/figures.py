"""The file in which a benchmark leaves its figures."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_figures(path: Path, figures: Mapping[str, Sequence[float]]) -> None:
    """Write ``{"figures": {NAME: {"median", "min", "max", "rounds"}}}``, at once or not at all.

    Parameters
    ----------
    path : Path
        The JSON file; its folder is made.
    figures : mapping of str to sequence of float
        The value of each round; a figure without any is left out.
    """
    summary = {
        name: {
            "median": statistics.median(values),
            "min": min(values),
            "max": max(values),
            "rounds": len(values),
        }
        for name, values in figures.items()
        if values
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps({"figures": summary}, indent=2) + "\n", encoding="utf-8")
    part.replace(path)
