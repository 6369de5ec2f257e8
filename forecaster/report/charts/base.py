"""What every chart is, and how its numbers and axes are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forecaster.quantiles import LEVELS
from forecaster.report.style import LIGHT, plotly_text

__all__ = [
    "CLOSES_SHOWN",
    "INTERVAL_MARKS",
    "Chart",
    "Figure",
    "interval_ends",
    "labelled_columns",
    "labelled_rows",
    "level",
    "named_rows",
    "rounded",
    "sessions",
    "upright",
]

INTERVAL_MARKS = ((LIGHT.blue, "circle"), (LIGHT.vermillion, "square"), (LIGHT.green, "diamond"))
"""Colour and marker of the 50%, 80% and 95% lines."""
CLOSES_SHOWN = 60
"""How many of the last closes a fan chart draws."""


@dataclass(frozen=True)
class Chart:
    """A figure and the words that belong to it.

    Parameters
    ----------
    figure : dict
        Plotly's ``data`` and ``layout`` in light colours, without a template: see
        `forecaster.report.style.themed`.
    summary : str
        What this figure says, with its numbers, for those who do not see it.
    shows, hides : str
        What charts of this kind show and what they do not, each the end of a sentence.
    """

    figure: dict[str, Any]
    summary: str
    shows: str
    hides: str


class Figure:
    """A figure in the making, of plain dicts.

    Plotly's own objects check each property, which takes twenty times as long as the drawing; here the tests
    do that once for every chart.
    """

    def __init__(self) -> None:
        self.data: list[dict[str, Any]] = []
        self.layout: dict[str, Any] = {}

    def add(self, kind: str, **properties: Any) -> None:
        """Add a trace; a property that is None is left out."""
        self.data.append(
            {"type": kind, **{name: value for name, value in properties.items() if value is not None}}
        )

    def arrange(self, **layout: Any) -> None:
        """Set properties of the layout."""
        self.layout |= layout

    def plain(self) -> dict[str, Any]:
        """Give what Plotly takes, without a template: a page holds one for all."""
        return {"data": self.data, "layout": self.layout}


def rounded(values: Sequence[float] | np.ndarray, digits: int = 6) -> list[float | None]:
    """Round to significant digits, which keeps a file small; what is not finite becomes a gap."""
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in values]


def sessions(horizon: int) -> str:
    """Write a number of sessions."""
    return f"{horizon:,} session" + ("" if horizon == 1 else "s")


def interval_ends(coverage: float) -> tuple[int, int]:
    """Positions in `LEVELS` of the two ends of a central interval."""
    low, high = (LEVELS.index(round((1 + sign * coverage) / 2, 6)) for sign in (-1, 1))
    return low, high


def upright(x: float, colour: str, **line: Any) -> dict[str, Any]:
    """Make a vertical line through the whole height, below the data."""
    return {
        "type": "line",
        "x0": x,
        "x1": x,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "layer": "below",
        "line": {"color": colour, "width": 1, **line},
    }


def level(y: float, colour: str, **line: Any) -> dict[str, Any]:
    """Make a horizontal line through the whole width."""
    return {
        "type": "line",
        "x0": 0,
        "x1": 1,
        "xref": "paper",
        "y0": y,
        "y1": y,
        "line": {"color": colour, "width": 1, **line},
    }


def labelled_columns(names: Sequence[str], shown: int, title: str) -> dict[str, Any]:
    """Make the horizontal axis of an image, of whose columns about so many are named."""
    step = -(-len(names) // shown)
    return {
        "tickvals": list(range(0, len(names), step)),
        "ticktext": [plotly_text(name) for name in list(names)[::step]],
        "tickangle": 0,
        "showgrid": False,
        "title": {"text": title},
    }


def labelled_rows(names: Sequence[str]) -> dict[str, Any]:
    """Make the vertical axis of an image, the first row on top."""
    return {
        "tickvals": list(range(len(names))),
        "ticktext": [plotly_text(name) for name in names],
        "autorange": "reversed",
        "showgrid": False,
    }


def named_rows(names: list[str]) -> dict[str, Any]:
    """Make an axis of names, the first on top, that shortens what is too long to read."""
    return {
        "tickvals": list(range(len(names))),
        "ticktext": [plotly_text(name if len(name) <= 24 else name[:23] + "…") for name in names],
        "range": [len(names) - 0.4, -0.6],
        "showgrid": False,
        "tickfont": {"size": 12, "color": LIGHT.ink},
    }
