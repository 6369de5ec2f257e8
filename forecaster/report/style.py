"""The look of charts and tables: one palette in two modes, one Plotly template, one way to write a number."""

from __future__ import annotations

import html
import math
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "DARK",
    "LIGHT",
    "MISSING",
    "VERDICT_MARKS",
    "Palette",
    "count",
    "css_variables",
    "dark_of_light",
    "day",
    "p_value",
    "percent",
    "plotly_text",
    "price",
    "ratio",
    "seconds",
    "signed_percent",
    "template",
    "themed",
]

FONT = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
MISSING = "\N{EN DASH}"
"""What a table shows where there is no number."""

VERDICT_MARKS = {
    "better": ("▲", "triangle-up"),
    "as good as": ("●", "circle"),
    "cannot tell": ("◆", "diamond"),
    "worse": ("▼", "triangle-down"),
    "best baseline": ("■", "square"),
}
"""A glyph and a Plotly marker for each verdict, so that no verdict is told by its colour alone."""


@dataclass(frozen=True)
class Palette:
    """Colours of one mode, as six-digit hex codes.

    The series colours are Okabe and Ito's ("Color Universal Design", 2008), lightened in dark mode; the bands
    are one hue in three steps of lightness, so that they keep their order in grey.
    """

    page: str
    paper: str
    ink: str
    muted: str
    line: str
    grid: str
    blue: str
    vermillion: str
    green: str
    purple: str
    grey: str
    band_50: str
    band_80: str
    band_95: str

    def verdict(self, word: str) -> str:
        """Return the colour of a verdict; an unknown word is grey."""
        colours = {
            "better": self.blue,
            "as good as": self.green,
            "worse": self.vermillion,
            "best baseline": self.ink,
        }
        return colours.get(word, self.grey)


LIGHT = Palette(
    page="#f5f6f8",
    paper="#ffffff",
    ink="#1a1f26",
    muted="#57606a",
    line="#cfd6dd",
    grid="#e8ebef",
    blue="#0072b2",
    vermillion="#d55e00",
    green="#009e73",
    purple="#9a4f80",
    grey="#6e7781",
    band_50="#79b0d8",
    band_80="#b0d0e8",
    band_95="#dae8f4",
)
DARK = Palette(
    page="#0e1116",
    paper="#161b22",
    ink="#e7eaee",
    muted="#a2acb8",
    line="#38414c",
    grid="#272e37",
    blue="#56b4e9",
    vermillion="#f28e4b",
    green="#2fc49a",
    purple="#d78ab8",
    grey="#8d97a3",
    band_50="#33779f",
    band_80="#25506d",
    band_95="#1e394c",
)


def dark_of_light() -> dict[str, str]:
    """Map each light colour to its dark one: a figure drawn in light mode is recoloured by exact look-up."""
    light, dark = asdict(LIGHT), asdict(DARK)
    return {light[name]: dark[name] for name in light}


def css_variables(palette: Palette) -> str:
    """Write a palette as CSS custom properties, ``--band-50:#79b0d8`` and so on."""
    return ";".join(f"--{name.replace('_', '-')}:{colour}" for name, colour in asdict(palette).items())


def template(palette: Palette) -> dict[str, Any]:
    """Make the Plotly template of one mode.

    Returns
    -------
    dict
        What ``plotly.graph_objects.layout.Template`` takes; plain, so that a page can embed it.
    """
    axis = {
        "gridcolor": palette.grid,
        "linecolor": palette.line,
        "tickcolor": palette.line,
        "zeroline": False,
        "automargin": True,
        "ticklabelstandoff": 3,
        "title": {"standoff": 8, "font": {"size": 12, "color": palette.muted}},
        "tickfont": {"size": 11, "color": palette.muted},
    }
    return {
        "layout": {
            "font": {"family": FONT, "size": 12, "color": palette.ink},
            "paper_bgcolor": palette.paper,
            "plot_bgcolor": palette.paper,
            "colorway": [palette.blue, palette.vermillion, palette.green, palette.purple, palette.grey],
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
            "showlegend": False,
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
            # A finger that scrolls the page must not zoom a chart.
            "dragmode": False,
            "hovermode": "closest",
            "hoverlabel": {
                "bgcolor": palette.paper,
                "bordercolor": palette.line,
                "align": "left",
                "font": {"family": FONT, "size": 12, "color": palette.ink},
            },
            "xaxis": axis,
            "yaxis": axis,
        }
    }


def _recoloured(value: Any, colours: dict[str, str]) -> Any:
    if isinstance(value, str):
        return colours.get(value, value)
    if isinstance(value, dict):
        return {key: _recoloured(item, colours) for key, item in value.items()}
    return [_recoloured(item, colours) for item in value] if isinstance(value, list | tuple) else value


def themed(figure: dict[str, Any], palette: Palette, *, legend: bool = False) -> dict[str, Any]:
    """Dress a figure of `forecaster.report.charts` for one mode.

    Parameters
    ----------
    figure : dict
        Of a `forecaster.report.charts.Chart`, in light colours and without a template.
    palette : Palette
        `LIGHT` or `DARK`.
    legend : bool
        Whether Plotly draws a legend above the figure; a page that writes its own needs none.

    Returns
    -------
    dict
        ``data`` and ``layout`` with the template: what Plotly and ``streamlit.plotly_chart`` take.
    """
    dressed: dict[str, Any] = figure if palette == LIGHT else _recoloured(figure, dark_of_light())
    layout = {**dressed["layout"], "template": template(palette)}
    if legend:
        layout |= {"showlegend": True, "margin": {"l": 8, "r": 8, "t": 36, "b": 8}}
        layout["height"] = layout["height"] + 28
    return {"data": dressed["data"], "layout": layout}


def plotly_text(text: object) -> str:
    """Escape text for Plotly, which reads a little HTML and, between dollars, LaTeX in all its texts.

    Not for a ``hovertemplate``, which would also read ``%{...}``: give finished text as ``hovertext``.
    """
    return html.escape(str(text), quote=False).replace("$", "&#36;")


def _write(value: object, pattern: str, scale: float = 1.0) -> str:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return MISSING
    text = pattern.format(value * scale)
    # "-0.00" says a sign that the digits do not show.
    return text.replace("-", "", 1) if text.startswith("-") and not text.strip("-0.,%") else text


def day(date: Any) -> str:
    """Write a date, of the standard library or of pandas, as YYYY-MM-DD; NaT and None as missing."""
    return MISSING if date is None or date != date else f"{date:%Y-%m-%d}"


def percent(value: float | None, decimals: int = 2) -> str:
    """Write a fraction as percent: 0.0123 is ``1.23%``."""
    return _write(value, f"{{:,.{decimals}f}}%", 100.0)


def signed_percent(value: float | None, decimals: int = 2) -> str:
    """Write a fraction as percent with its sign: 0.0123 is ``+1.23%``."""
    text = percent(value, decimals)
    return text if text == MISSING or text.startswith("-") or not text.strip("0.%") else f"+{text}"


def ratio(value: float | None) -> str:
    """Write a ratio with four decimals."""
    return _write(value, "{:,.4f}")


def price(value: float | None) -> str:
    """Write a price with thousands separators: two decimals, four significant digits below one."""
    if isinstance(value, int | float) and 0 < abs(value) < 1:
        return _write(value, f"{{:.{min(10, 3 - math.floor(math.log10(abs(value))))}f}}")
    return _write(value, "{:,.2f}")


def count(value: float | None) -> str:
    """Write a whole number with thousands separators."""
    return _write(value, "{:,.0f}")


def seconds(value: float | None) -> str:
    """Write a duration in seconds, with one decimal below 100."""
    return _write(value, "{:,.1f}" if isinstance(value, int | float) and abs(value) < 100 else "{:,.0f}")


def p_value(value: float | None) -> str:
    """Write a p-value with four decimals; below that, ``< 0.0001``."""
    if isinstance(value, int | float) and 0 <= value < 0.00005:
        return "< 0.0001"
    return _write(value, "{:.4f}")
