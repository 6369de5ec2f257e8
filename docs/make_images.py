"""Draw the pictures of docs/kernels.md, every number in them computed by the code that they explain.

``make docs`` writes them to ``docs/images``. They hold no date and no random name, so a run that changes
nothing leaves no difference. The kernels of the pictures are made so that a folded tap tells what it is the
sum of: row 0 of a kernel counts units, row 1 tens and row 2 hundreds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from html import escape
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import correlate2d

from forecaster.kernels import Folding, Parallel, convolve, fold, frequency_response, lag_weights
from forecaster.liftings import CalendarFold, Column, Lagged, Lifting, Replicate, Row, Spectrogram
from forecaster.models.convolution.geometry import Axis, resolve_axis
from forecaster.report.style import FONT, LIGHT

__all__ = ["FOLDER", "PICTURES", "Picture", "main"]

FOLDER = Path(__file__).parent / "images"
DIGITS = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [100.0, 200.0, 300.0]])
CROSS = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
KERNEL_ROWS = (LIGHT.vermillion, LIGHT.green, LIGHT.grey)
"""Colour of each kernel row; its place among the digits of a tap tells it too."""
WARM_TEXT = "#a84a00"
"""Vermillion, darkened until small letters read."""
WIDTH, HEIGHT, SMALL, TEXT = 30.0, 26.0, 11.5, 13.0
"""Size of a cell and of letters, in pixels."""

Values = npt.NDArray[np.float64]


def mix(colour: str, other: str, share: float) -> str:
    """Blend two hex colours; ``share`` is that of the second."""
    parts = [[int(text[k : k + 2], 16) for k in (1, 3, 5)] for text in (colour, other)]
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(*parts, strict=True))


def number(value: float) -> str:
    """Write a coordinate or a value, without needless digits and never as minus zero."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def signed(value: int) -> str:
    """Write an offset with a true minus sign."""
    return f"−{-value}" if value < 0 else str(value)


class Picture:
    """An SVG on a light page of its own, so that it reads on a dark one.

    Parameters
    ----------
    title, description : str
        For readers who do not see it.
    """

    def __init__(self, title: str, description: str) -> None:
        self.title, self.description = title, description
        self.elements: list[str] = []
        self.right = self.bottom = 0.0

    def add(self, name: str, content: str = "", /, **attributes: float | str) -> None:
        """Add an element; an underscore in the name of an attribute stands for a hyphen."""
        written = "".join(
            f' {key.replace("_", "-")}="{value if isinstance(value, str) else number(value)}"'
            for key, value in attributes.items()
        )
        self.elements.append(
            f"<{name}{written}>{escape(content)}</{name}>" if content else f"<{name}{written}/>"
        )

    def reach(self, x: float, y: float) -> None:
        """Make the picture large enough for a point."""
        self.right, self.bottom = max(self.right, x), max(self.bottom, y)

    def rectangle(
        self, x: float, y: float, width: float, height: float, /, **attributes: float | str
    ) -> None:
        """Draw a rectangle."""
        self.add("rect", x=x, y=y, width=width, height=height, **attributes)
        self.reach(x + width, y + height)

    def line(self, x: float, y: float, to_x: float, to_y: float, /, **attributes: float | str) -> None:
        """Draw a line."""
        self.add("line", x1=x, y1=y, x2=to_x, y2=to_y, **({"stroke": LIGHT.muted} | attributes))
        self.reach(max(x, to_x), max(y, to_y))

    def text(
        self,
        x: float,
        y: float,
        content: str,
        /,
        size: float = TEXT,
        colour: str = LIGHT.ink,
        anchor: str = "start",
        weight: str = "normal",
    ) -> None:
        """Write text whose middle is at height ``y``."""
        self.add(
            "text", content, x=x, y=y + 0.35 * size, font_size=size, fill=colour, text_anchor=anchor,
            font_weight=weight,
        )  # fmt: skip
        # Letters are rarely wider than this in any of the fonts.
        length = 0.56 * size * len(content)
        self.reach(x + {"start": length, "middle": length / 2, "end": 0.0}[anchor], y + size / 2)

    def cell(
        self, x: float, y: float, content: str, fill: str, colour: str = LIGHT.ink, width: float = WIDTH
    ) -> None:
        """Draw one cell of a matrix."""
        self.rectangle(x, y, width, HEIGHT, fill=fill, stroke=LIGHT.line)
        self.text(x + width / 2, y + HEIGHT / 2, content, colour=colour, anchor="middle")

    def svg(self) -> str:
        """Write the picture."""
        width, height = number(round(self.right + 16)), number(round(self.bottom + 14))
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" font-family="{FONT}">'
        )
        page = f'<rect width="{width}" height="{height}" rx="8" fill="{LIGHT.paper}" stroke="{LIGHT.line}"/>'
        about = [f"<title>{escape(self.title)}</title>", f"<desc>{escape(self.description)}</desc>"]
        return "\n".join([head, *about, page, *self.elements, "</svg>", ""])


# --- parts of pictures --------------------------------------------------------------------------------


def session_fill(session: float, newest: float) -> str:
    """Shade of a session: the newer the darker, so that copies of a session are seen as such."""
    if session <= 0:
        return LIGHT.paper
    return mix("#f1f6fb", LIGHT.band_50, session / newest)


def sessions_of(lifting: Lifting, lookback: int) -> Values:
    """Lift a window whose sessions are numbered from 1, the origin last."""
    window = np.arange(1.0, lookback + lifting.history + 1.0)
    return np.asarray(lifting(window[None, :, None])[0, :, :, 0], dtype=np.float64)


def draw_matrix(
    picture: Picture,
    x: float,
    y: float,
    values: npt.NDArray[Any],
    fill: Callable[[float], str],
    width: float = WIDTH,
) -> tuple[float, float]:
    """Draw a matrix of numbers; a zero is pale. Returns its right and bottom end."""
    for (i, j), value in np.ndenumerate(values):
        colour = LIGHT.ink if value else LIGHT.muted
        picture.cell(x + j * width, y + i * HEIGHT, number(value), fill(value), colour, width)
    return x + values.shape[1] * width, y + values.shape[0] * HEIGHT


def draw_window(picture: Picture, x: float, y: float, lookback: int, history: int) -> float:
    """Draw a window as a strip of sessions, its history apart. Returns its bottom end."""
    newest = lookback + history
    if history:
        picture.text(x + history * WIDTH / 2, y - 9, "history", SMALL, LIGHT.muted, "middle")
    picture.text(x + (history + lookback / 2) * WIDTH, y - 9, "lookback", SMALL, LIGHT.muted, "middle")
    _, bottom = draw_matrix(
        picture, x, y, np.arange(1.0, newest + 1.0)[None], partial(session_fill, newest=newest)
    )
    if history:
        border = x + history * WIDTH
        picture.line(border, y - 14, border, bottom + 4, stroke=LIGHT.ink, stroke_width=2)
    picture.text(x + newest * WIDTH + 6, y + HEIGHT / 2, "← origin", SMALL, LIGHT.muted)
    return bottom


def draw_kernel(
    picture: Picture,
    x: float,
    y: float,
    kernel: Values,
    acting: Sequence[int] = (0, 1, 2),
    *,
    across: bool = False,
) -> tuple[float, float]:
    """Draw a kernel, a colour a row (or, ``across``, a column); those that do not act are pale.

    Returns its right and bottom end.
    """
    width = 34.0
    for (a, b), value in np.ndenumerate(kernel):
        filter_of = b if across else a
        acts = filter_of in acting
        fill = mix(KERNEL_ROWS[filter_of], LIGHT.paper, 0.72) if acts else LIGHT.paper
        colour = LIGHT.ink if acts else LIGHT.muted
        picture.cell(x + b * width, y + a * HEIGHT, number(value), fill, colour, width)
    return x + kernel.shape[1] * width, y + kernel.shape[0] * HEIGHT


def draw_taps(
    picture: Picture, x: float, y: float, taps: Values, first: int, *, width: float = 34.0
) -> tuple[float, float]:
    """Draw a folded kernel over its offsets, each digit above the colour of the kernel row it came from."""
    for k, tap in enumerate(taps):
        left = x + k * width
        picture.cell(left, y, number(tap), LIGHT.paper, LIGHT.ink if tap else LIGHT.muted, width)
        for a, colour in enumerate(KERNEL_ROWS):
            if int(tap) // 10**a % 10:
                third = (width - 4) / 3
                picture.rectangle(left + 2 + (2 - a) * third, y + HEIGHT - 4, third, 4, fill=colour)
        picture.text(left + width / 2, y + HEIGHT + 9, signed(first + k), SMALL, LIGHT.muted, "middle")
    return x + len(taps) * width, y + HEIGHT + 16


def complete_kernels(folding: Folding) -> Iterator[tuple[Values, int]]:
    """Taps and first offset of each kernel of complete columns, zeros between taps included."""
    for kernel in folding.kernels:
        if kernel.complete:
            yield kernel.dense()[:, 0, 0], kernel.offsets[0]


def operator(picture: Picture, x: float, y: float, sign: str) -> None:
    """Write the sign between two parts."""
    picture.text(x, y, sign, 20, LIGHT.ink, "middle")


LEFT, TOP = 18.0, 34.0
MEETS = "\N{ASTERISK OPERATOR}"


def draw_strategy(
    picture: Picture,
    y: float,
    lifting: Lifting,
    lookback: int,
    kernel: Values,
    *,
    kernel_label: str = "kernel",
    acting: Sequence[int] = (0, 1, 2),
    foldings: Sequence[tuple[str, Folding]],
    tap_width: float = 34.0,
    below: float = 0.0,
) -> float:
    """Draw a lifted matrix, a kernel and what it folds to, side by side. Returns the bottom end."""
    lifted = sessions_of(lifting, lookback)
    newest = lookback + lifting.history
    middle = y + 12 + max(len(lifted), len(kernel)) * HEIGHT / 2
    top = middle - len(lifted) * HEIGHT / 2
    picture.text(LEFT, top - 12, "lifted", SMALL, LIGHT.muted)
    right, bottom = draw_matrix(picture, LEFT, top, lifted, partial(session_fill, newest=newest))
    operator(picture, right + 20, middle, MEETS)
    top = middle - len(kernel) * HEIGHT / 2
    picture.text(right + 40, top - 12, kernel_label, SMALL, LIGHT.muted)
    right, kernel_bottom = draw_kernel(picture, right + 40, top, kernel, acting)
    operator(picture, right + 20, middle, "=")
    taps_y = y + below
    for label, folding in foldings:
        picture.text(right + 40, taps_y, label, SMALL, LIGHT.muted)
        taps_y += 12
        for taps, first in complete_kernels(folding):
            _, taps_y = draw_taps(picture, right + 40, taps_y, taps, first, width=tap_width)
            taps_y += 8
        taps_y += 10
    return max(bottom, kernel_bottom, taps_y)


# --- the pictures -------------------------------------------------------------------------------------


def row_and_column() -> Picture:
    """Row and column: the window as it is."""
    picture = Picture(
        "Row and column",
        "The window as one row under the middle row of a kernel, and as one column under the middle column "
        "of the transposed kernel: both are the 1D kernel 10, 20, 30.",
    )
    bottom = draw_strategy(
        picture, 20, Row(), 6, DIGITS, acting=(1,), below=24,
        foldings=[("folded, at offsets", fold(DIGITS, Row(), 6))],
    )  # fmt: skip
    lifted, y = sessions_of(Column(), 6), bottom + 22
    middle = y + 12 + len(lifted) * HEIGHT / 2
    picture.text(LEFT, y, "lifted", SMALL, LIGHT.muted)
    right, _ = draw_matrix(picture, LEFT, y + 12, lifted, partial(session_fill, newest=6))
    operator(picture, right + 20, middle, MEETS)
    top = middle - 1.5 * HEIGHT
    picture.text(right + 40, top - 12, "kernel, transposed", SMALL, LIGHT.muted)
    right, _ = draw_kernel(picture, right + 40, top, DIGITS.T, (1,), across=True)
    operator(picture, right + 20, middle, "=")
    kernel, base = fold(DIGITS.T, Column(), 6).at(1, 0)
    picture.text(right + 40, middle - HEIGHT / 2 - 12, "folded, at offsets", SMALL, LIGHT.muted)
    draw_taps(picture, right + 40, middle - HEIGHT / 2, kernel.dense()[:, 0, 0], base + kernel.offsets[0])
    return picture


def replicate() -> Picture:
    """Identical rows: sums of kernel rows."""
    picture = Picture(
        "Identical rows",
        "Three identical rows. In mode valid the kernel is its column sums 111, 222, 333. In mode same the "
        "three output rows are partial sums: rows 1 and 2, all rows, rows 0 and 1.",
    )
    lifting = Replicate(rows=3)
    draw_strategy(
        picture, 20, lifting, 6, DIGITS,
        foldings=[
            ("folded, valid: all kernel rows", fold(DIGITS, lifting, 6, "valid")),
            ("folded, same: output rows 0, 1, 2", fold(DIGITS, lifting, 6)),
        ],
    )  # fmt: skip
    return picture


def lagged() -> Picture:
    """Delayed rows: sums along diagonals."""
    picture = Picture(
        "Delayed rows",
        "Three rows delayed by 0, 1 and 2 sessions: nine weights fold to the five taps 100, 210, 321, 32, 3. "
        "Delayed by 0, 2 and 4 they fold to seven.",
    )
    y = draw_window(picture, LEFT, TOP, 6, 2) + 26
    first = Lagged(rows=3)
    y = draw_strategy(
        picture, y, first, 6, DIGITS, below=24,
        foldings=[("folded: lags 0, 1, 2", fold(DIGITS, first, 6, "valid"))],
    )  # fmt: skip
    y = draw_window(picture, LEFT, y + 46, 6, 4) + 26
    second = Lagged(rows=3, stride=2)
    draw_strategy(
        picture, y, second, 6, DIGITS, below=24,
        foldings=[("folded: lags 0, 2, 4", fold(DIGITS, second, 6, "valid"))],
    )  # fmt: skip
    return picture


def lag_set() -> Picture:
    """Any set of lags: a sparse kernel of long reach."""
    picture = Picture(
        "Any set of lags",
        "Rows delayed by 0, 1 and 5 sessions: the taps lie at offsets -5 to -3 and -1 to 2.",
    )
    lifting = Lagged(lags=(0, 1, 5))
    y = draw_window(picture, LEFT, TOP, 6, 5) + 26
    draw_strategy(
        picture, y, lifting, 6, DIGITS, below=24,
        foldings=[("folded: lags 0, 1, 5", fold(DIGITS, lifting, 6, "valid"))],
    )  # fmt: skip
    return picture


def calendar() -> Picture:
    """Weeks by weekdays: delayed rows of stride 5, upside down."""
    picture = Picture(
        "Calendar fold",
        "Fifteen sessions cut into three weeks of five, the oldest first. The kernel folds to three groups "
        "of three taps, five sessions apart.",
    )
    lifting = CalendarFold(period=5)
    y = draw_window(picture, LEFT, TOP, 15, 4) + 26
    draw_strategy(
        picture, y, lifting, 15, DIGITS, below=24, tap_width=31,
        foldings=[("folded: period 5", fold(DIGITS, lifting, 15, "valid"))],
    )  # fmt: skip
    return picture


def parallel() -> Picture:
    """Each kernel row a filter of its own."""
    picture = Picture(
        "Parallel filters",
        "Each row of the kernel is a 1D filter on the series. Concatenated they are one Conv1D of three "
        "filters; summed they are the kernel 111, 222, 333.",
    )
    x = np.arange(1.0, 7.0)
    picture.text(LEFT, 20, "series", SMALL, LIGHT.muted)
    top = 32.0
    right, _ = draw_matrix(picture, LEFT, top + HEIGHT + 8, x[None], partial(session_fill, newest=6))
    kernels_x, outputs_x = right + 56, right + 56 + 3 * 34 + 44
    picture.text(kernels_x, 20, "filters", SMALL, LIGHT.muted)
    picture.text(outputs_x, 20, "outputs, same size", SMALL, LIGHT.muted)
    outputs = convolve(x, DIGITS, Parallel(), convention="correlation").reshape(3, 6)
    for a in range(3):
        y = top + a * (HEIGHT + 8)
        picture.line(right + 6, top + 1.5 * HEIGHT + 8, kernels_x - 6, y + HEIGHT / 2)
        for b in range(3):
            fill = mix(KERNEL_ROWS[a], LIGHT.paper, 0.72)
            picture.cell(kernels_x + b * 34, y, number(DIGITS[a, b]), fill, width=34)
        picture.line(kernels_x + 3 * 34 + 6, y + HEIGHT / 2, outputs_x - 6, y + HEIGHT / 2)
        for j, value in enumerate(outputs[a]):
            picture.cell(
                outputs_x + j * 42, y, number(value), mix(KERNEL_ROWS[a], LIGHT.paper, 0.88), width=42
            )
    y = top + 3 * (HEIGHT + 8) + 22
    picture.text(kernels_x, y - 12, "summed before a nonlinearity, one filter", SMALL, LIGHT.muted)
    ((taps, first),) = complete_kernels(fold(DIGITS, Parallel(aggregate="sum"), 6))
    draw_taps(picture, kernels_x, y, taps, first)
    for j, value in enumerate(outputs.sum(axis=0)):
        picture.cell(outputs_x + j * 42, y, number(value), LIGHT.paper, width=42)
    operator(picture, outputs_x - 22, y + HEIGHT / 2, "→")
    return picture


def spectrogram() -> Picture:
    """Bands by time of a cycle whose period changes."""
    lifting = Spectrogram(segment=16)
    lookback = 48
    t = np.arange(float(lookback + lifting.history))
    x = np.where(t < 40, np.sin(2 * np.pi * t / 16), np.sin(2 * np.pi * t / 4))
    bands = lifting(x[None, :, None])[0, :, :, 0]
    picture = Picture(
        "Spectrogram",
        "A series that swings every 16 sessions and then every 4, and its spectrogram: the dark band moves "
        "from period 16 to period 4 as the segments that end after the change fill up.",
    )
    left, cell, height = 92.0, 12.0, 15.0
    picture.text(left, 18, f"the last {lookback} sessions of the window", SMALL, LIGHT.muted)
    heights = 50 - 18 * x[lifting.history :]
    points = " ".join(f"{number(left + (k + 0.5) * cell)},{number(y)}" for k, y in enumerate(heights))
    picture.add("polyline", points=points, fill="none", stroke=LIGHT.blue, stroke_width=2)
    top = 88.0
    for i in range(len(bands)):
        for j in range(lookback):
            value = bands[len(bands) - 1 - i, j] / bands.max()
            picture.rectangle(
                left + j * cell, top + i * height, cell, height, fill=mix("#f4f8fc", "#053a5f", value)
            )
    for i, period in enumerate(lifting.periods[::-1]):
        text = "mean" if np.isinf(period) else f"period {number(period)}"
        picture.text(left - 8, top + (i + 0.5) * height, text, SMALL, LIGHT.muted, "end")
    end = top + len(bands) * height + 12
    picture.text(left, end, "oldest column", SMALL, LIGHT.muted)
    picture.text(left + lookback * cell, end, "origin", SMALL, LIGHT.muted, "end")
    return picture


def golden() -> Picture:
    """Worked example: three replicated rows, zeros around them, and one output cell."""
    picture = Picture(
        "The worked example",
        "The series 1 to 6 in three identical rows with zeros around, the cross-shaped kernel laid on the "
        "upper right corner, and the result: rows 3 6 9 12 15 11, 5 10 15 20 25 16 and 3 6 9 12 15 11.",
    )
    x = np.arange(1.0, 7.0)
    padded = np.pad(np.tile(x, (3, 1)), 1)
    result = convolve(x, CROSS, Replicate(rows=3))
    y = 32.0
    picture.text(LEFT, y - 12, "lifted, zeros around", SMALL, LIGHT.muted)
    right, _ = draw_matrix(picture, LEFT, y, padded, partial(session_fill, newest=6))
    picture.rectangle(
        LEFT + 5 * WIDTH, y, 3 * WIDTH, 3 * HEIGHT, fill="none", stroke=LIGHT.vermillion, stroke_width=3
    )
    middle = y + 2.5 * HEIGHT
    operator(picture, right + 18, middle, MEETS)
    picture.text(right + 36, middle - 1.5 * HEIGHT - 12, "kernel", SMALL, LIGHT.muted)
    right, _ = draw_matrix(
        picture, right + 36, middle - 1.5 * HEIGHT, CROSS,
        lambda value: mix(LIGHT.vermillion, LIGHT.paper, 0.72) if value else LIGHT.paper,
    )  # fmt: skip
    operator(picture, right + 18, middle, "=")
    picture.text(right + 36, middle - 1.5 * HEIGHT - 12, "result, same size", SMALL, LIGHT.muted)
    left = right + 36
    right, bottom = draw_matrix(picture, left, middle - 1.5 * HEIGHT, result, lambda _: LIGHT.paper)
    picture.rectangle(
        left + 5 * WIDTH, middle - 1.5 * HEIGHT, WIDTH, HEIGHT, fill="none", stroke=LIGHT.vermillion,
        stroke_width=3,
    )  # fmt: skip
    picture.text(left, bottom + 14, "upper right: 0 + 0 + 6 + 5 + 0 = 11", SMALL, LIGHT.muted)
    return picture


def diagonals() -> Picture:
    """Which weights of a kernel meet the same session."""
    picture = Picture(
        "Diagonals",
        "Each weight of a 3 x 3 kernel marked with its offset b - a s, for row strides 1, 2 and 3. Weights "
        "of equal offset lie on diagonals and add up to one tap: 5, 7 and 9 taps.",
    )
    x = LEFT + 10
    for stride in (1, 2, 3):
        top = 44.0
        ((taps, first),) = complete_kernels(fold(DIGITS, Lagged(rows=3, stride=stride), 6, "valid"))
        picture.text(x, 16, f"lag stride s = {stride}", TEXT, weight="bold")
        picture.text(x, 34, "offset b − a·s of each weight", SMALL, LIGHT.muted)
        offsets = {(a, b): b - a * stride for a in range(3) for b in range(3)}
        for (a, b), m in offsets.items():
            twins = sum(1 for other in offsets.values() if other == m)
            picture.cell(
                x + b * 38,
                top + a * 30,
                signed(m),
                mix(LIGHT.paper, LIGHT.band_50, (twins - 1) / 2),
                width=38,
            )
        for m in sorted(set(offsets.values())):
            cells = [cell for cell, offset in offsets.items() if offset == m]
            for (a, b), (below, right) in pairwise(cells):
                picture.line(
                    x + b * 38 + 29, top + a * 30 + 21, x + right * 38 + 9, top + below * 30 + 5,
                    stroke=LIGHT.ink, stroke_width=1.5,
                )  # fmt: skip
        picture.text(x, top + 108, f"{np.count_nonzero(taps)} taps", SMALL, LIGHT.muted)
        draw_taps(picture, x, top + 120, taps, first, width=30)
        x += len(taps) * 30 + 32
    return picture


def edges() -> Picture:
    """Which folded kernel gives each output cell, in mode same."""
    lookback = 8
    folding = fold(DIGITS, Lagged(rows=4), lookback)
    picture = Picture(
        "Edges",
        "The output of a 3 x 3 kernel on four delayed rows, padded to the same size. Inner cells share one "
        "kernel of five taps; the first and last row and column have truncated kernels of their own.",
    )
    names = "ABCDEFGHI"
    y = 32.0
    picture.text(LEFT, y - 12, "output: which kernel", SMALL, LIGHT.muted)
    for index, kernel in enumerate(folding.kernels):
        inner = len(kernel.rows) > 1 and kernel.complete
        fill = LIGHT.band_50 if inner else LIGHT.band_80 if kernel.complete else LIGHT.band_95
        for i in kernel.rows:
            for j in kernel.columns:
                picture.cell(LEFT + j * WIDTH, y + i * HEIGHT, names[index], fill)
    picture.text(LEFT, y + 4 * HEIGHT + 12, "oldest", SMALL, LIGHT.muted)
    picture.text(LEFT + lookback * WIDTH, y + 4 * HEIGHT + 12, "origin", SMALL, LIGHT.muted, "end")
    top = y + 4 * HEIGHT + 50
    for (line, label), (column, head) in product(
        enumerate(("row 0", "rows 1, 2", "row 3")),
        enumerate(("first column", "inner columns", "last column")),
    ):
        kernel, left = folding.kernels[3 * line + column], LEFT + 78 + column * 206
        if column == 0:
            picture.text(LEFT, top + line * 56 + HEIGHT / 2, label, SMALL, LIGHT.muted)
        if line == 0:
            picture.text(left, top - 12, head, SMALL, LIGHT.muted)
        picture.text(left, top + line * 56 + HEIGHT / 2, names[3 * line + column], weight="bold")
        draw_taps(picture, left + 18, top + line * 56, kernel.dense()[:, 0, 0], kernel.offsets[0], width=32)
    return picture


def deep() -> Picture:
    """Feature maps of a deep stack on delayed rows: one sequence each."""
    picture = Picture(
        "Feature maps of a stack",
        "The lifted map of four delayed rows and the maps after two layers. Cells of equal value carry the "
        "same number: every row is the row above, delayed, so each map holds one sequence.",
    )
    lifting = Lagged(rows=4)
    generator = np.random.default_rng(1)
    values = lifting(generator.standard_normal((1, 11, 1)))[0, :, :, 0]
    x = LEFT
    for label in ("lifted", "after 2 × 3, tanh", "after 2 × 2, tanh"):
        rounded = np.round(values, 9)
        order: list[float] = []
        for j in range(values.shape[1]):
            for i in range(values.shape[0] - 1, -1, -1):
                if rounded[i, j] not in order:
                    order.append(float(rounded[i, j]))
        distinct = np.array([[order.index(value) + 1.0 for value in row] for row in rounded])
        picture.text(x, 18, label, SMALL, LIGHT.muted)
        right, bottom = draw_matrix(picture, x, 32, distinct, partial(session_fill, newest=len(order)), 26)
        picture.text(x, bottom + 16, f"{values.size} cells, {len(order)} values", SMALL, LIGHT.muted)
        size = (2, 3) if label == "lifted" else (2, 2)
        values = np.tanh(correlate2d(values, generator.standard_normal(size), "valid"))
        if label != "after 2 × 2, tanh":
            operator(picture, right + 20, 32 + 2 * HEIGHT, "→")
        x = right + 40
    return picture


WEEKS = fold([[0.2] * 5, [-0.2] * 5], Lagged(rows=2, stride=5), 5, "valid")
"""This week's mean less last week's."""
FORTNIGHT = fold(np.full((1, 10), 0.1), Row(), 10, "valid")
"""The mean of two weeks."""


def bars(
    picture: Picture, x: float, y: float, weights: Values, scale: float, *, width: float, colour: str
) -> None:
    """Draw the weight of each session of a window as a bar, the newest on the right, about the line ``y``."""
    for lag, weight in enumerate(weights):
        left = x + (len(weights) - 1 - lag) * width
        length = abs(weight) * scale
        if length > 0.01:
            picture.rectangle(left + 1.5, y - length if weight > 0 else y, width - 3, length, fill=colour)
    picture.line(x, y, x + len(weights) * width, y, stroke=LIGHT.ink)


def response() -> Picture:
    """Impulse and frequency response of two kernels."""
    picture = Picture(
        "What a kernel sees",
        "Weights over lags and gain over periods of two kernels. This week's mean less last week's is blind "
        "to the level and to a period of five sessions, and strongest near thirteen. The mean of two weeks "
        "keeps the level and erases periods of ten and five.",
    )
    kinds = (
        ("this week less last week", WEEKS, LIGHT.blue, "none"),
        ("mean of two weeks", FORTNIGHT, LIGHT.vermillion, "7 4"),
    )
    for k, (label, folding, colour, _) in enumerate(kinds):
        y = 64.0 + k * 116
        picture.text(LEFT, y - 44, label, TEXT, weight="bold")
        bars(picture, LEFT, y, lag_weights(folding).ravel(), 130, width=20, colour=colour)
        for lag in (9, 5, 0):
            picture.text(LEFT + (9 - lag + 0.5) * 20, y + 36, str(lag), SMALL, LIGHT.muted, "middle")
    picture.text(LEFT + 100, 64 + 116 + 52, "lag in sessions", SMALL, LIGHT.muted, "middle")
    left, top, width, height = 290.0, 34.0, 420.0, 170.0
    shortest, longest, most = 2.0, 63.0, 1.5

    def place(period: float, gain: float) -> tuple[float, float]:
        share = np.log(period / shortest) / np.log(longest / shortest)
        return left + float(share) * width, top + height * (1 - gain / most)

    picture.text(left, top - 14, "gain", SMALL, LIGHT.muted)
    for gain in (0.0, 0.5, 1.0, 1.5):
        _, y = place(2, gain)
        picture.line(left, y, left + width, y, stroke=LIGHT.grid)
        picture.text(left - 8, y, number(gain), SMALL, LIGHT.muted, "end")
    for period in (2, 3, 5, 7, 10, 15, 21, 42, 63):
        x, y = place(period, 0)
        picture.line(x, y, x, y + 4)
        picture.text(x, y + 14, str(period), SMALL, LIGHT.muted, "middle")
    picture.text(left + width / 2, top + height + 36, "period in sessions", SMALL, LIGHT.muted, "middle")
    periods = np.geomspace(shortest, longest, 161)
    for _, folding, colour, dashes in kinds:
        (kernel,) = folding.kernels
        gains, _ = frequency_response(kernel.taps, kernel.offsets, periods)
        points = " ".join(
            ",".join(number(part) for part in place(float(period), float(gain)))
            for period, gain in zip(periods, gains.ravel(), strict=True)
        )
        picture.add(
            "polyline", points=points, fill="none", stroke=colour, stroke_width=2.5, stroke_dasharray=dashes
        )
    picture.text(*place(18, 1.42), "this week less last week", SMALL, LIGHT.blue)
    picture.text(*place(33, 1.05), "mean of two weeks", SMALL, WARM_TEXT)
    return picture


def heads() -> Picture:
    """Weights of the sessions in the last step, and in the mean over the map."""
    picture = Picture(
        "Last step against mean",
        "Weights of the sessions of a window in a feature. The last step weighs the newest sessions by the "
        "kernel; the mean over all columns weighs nearly every session alike.",
    )
    lookback = 20
    folding = fold([[1.0, 2.0, 4.0]], Row(), lookback, "valid")
    every = [lag_weights(folding, 0, column).ravel() for column in range(folding.shape[1])]
    for k, (label, weights) in enumerate(
        [
            ("last step", every[-1]),
            ("mean over all columns (drawn ten times as tall)", np.mean(every, axis=0)),
        ]
    ):
        x = LEFT + k * 340
        picture.text(x, 20, label, weight="bold")
        bars(picture, x, 104, weights, 16 if k == 0 else 160, width=15, colour=LIGHT.blue)
        for lag in (19, 10, 0):
            picture.text(x + (19 - lag + 0.5) * 15, 116, str(lag), SMALL, LIGHT.muted, "middle")
        picture.text(x + 150, 132, "lag in sessions", SMALL, LIGHT.muted, "middle")
    return picture


def alignment() -> Picture:
    """Where a stride of two lays a kernel of three on six sessions."""
    picture = Picture(
        "Alignment of strides",
        "A kernel of three sessions at stride two on six sessions. Counted from the left it never reads the "
        "newest; counted from the right it leaves out the oldest instead.",
    )
    left_out = {False: "counted from the oldest session (TensorFlow)", True: "counted from the newest (here)"}
    for newest_last, label in left_out.items():
        axis = resolve_axis(6, 3, 2, 1, "valid", newest_last=newest_last)
        assert isinstance(axis, Axis)
        x, y = LEFT + newest_last * 330, 36.0
        picture.text(x, 16, label, SMALL, LIGHT.muted)
        read = {place for position in range(axis.count) for _, place in axis.acting(position)}
        for session in range(6):
            fill = session_fill(session + 1, 6) if session in read else LIGHT.paper
            picture.cell(x + session * WIDTH, y, str(session + 1), fill)
            if session not in read:
                picture.rectangle(
                    x + session * WIDTH + 1, y + 1, WIDTH - 2, HEIGHT - 2, fill="none",
                    stroke=LIGHT.vermillion, stroke_width=2,
                )  # fmt: skip
                picture.text(x + session * WIDTH, y + HEIGHT + 20, "not read", SMALL, WARM_TEXT)
        for position in range(axis.count):
            places = [place for _, place in axis.acting(position)]
            begin, end, under = x + places[0] * WIDTH + 3, x + (places[-1] + 1) * WIDTH - 3, y + HEIGHT + 8
            under += position * 10
            picture.line(begin, under, end, under, stroke=LIGHT.ink, stroke_width=4)
        picture.text(x + 6 * WIDTH + 6, y + HEIGHT / 2, "← origin", SMALL, LIGHT.muted)
    return picture


def control() -> Picture:
    """Delayed rows as far apart as the kernel is wide are a flat Conv1D."""
    picture = Picture(
        "A lifting that is its own control",
        "Three rows delayed by 0, 3 and 6 sessions under a 3 x 3 kernel fold to the nine taps 100, 200, 300, "
        "10, 20, 30, 1, 2, 3 side by side: a flat Conv1D of width nine.",
    )
    lifting = Lagged(rows=3, stride=3)
    y = draw_window(picture, LEFT, TOP, 4, 6) + 26
    draw_strategy(
        picture, y, lifting, 4, DIGITS, below=24,
        foldings=[("folded: lags 0, 3, 6", fold(DIGITS, lifting, 4, "valid"))],
    )  # fmt: skip
    return picture


PICTURES: dict[str, Callable[[], Picture]] = {
    "row-and-column": row_and_column,
    "replicate": replicate,
    "lagged": lagged,
    "lag-set": lag_set,
    "calendar": calendar,
    "spectrogram": spectrogram,
    "parallel": parallel,
    "golden": golden,
    "diagonals": diagonals,
    "edges": edges,
    "deep": deep,
    "control": control,
    "response": response,
    "heads": heads,
    "alignment": alignment,
}


def main(folder: Path = FOLDER) -> None:
    """Write every picture into a folder."""
    folder.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (folder / f"{name}.svg").write_text(draw().svg(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
