"""Parts of a page: headings, notes, tables and charts. All text from outside is escaped here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

import streamlit as st

from forecaster.report.charts import Chart
from forecaster.report.style import DARK, LIGHT, Palette, count, css_variables, themed

__all__ = [
    "cards",
    "chart",
    "command",
    "counted",
    "dress",
    "links",
    "note",
    "notes",
    "page",
    "palette",
    "section",
    "table",
]

SHORT = 26
"""Characters up to which the text of a cell stays on one line."""

CSS = """
[data-testid="stMainBlockContainer"] {padding-top: 3rem; padding-bottom: 3rem}
.fc {color: var(--ink); font-size: .92rem; line-height: 1.5}
.fc h1 {font-size: 1.6rem; font-weight: 650; margin: 0; padding: 0; color: var(--ink)}
.fc h2 {font-size: 1.1rem; font-weight: 650; margin: .8rem 0 0; padding: 0; color: var(--ink)}
.fc p {margin: .15rem 0; max-width: 60rem; overflow-wrap: anywhere}
.fc .muted, .fc caption {color: var(--muted); font-size: .84rem}
.fc .scroll {overflow-x: auto; max-width: 100%}
.fc table {border-collapse: collapse; font-size: .86rem; background: var(--paper); min-width: 60%}
.fc caption {text-align: left; padding: .2rem 0 .4rem}
.fc th, .fc td {padding: .32rem .5rem; border: 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; color: var(--ink); max-width: 30rem;
  overflow-wrap: break-word}
.fc thead th {color: var(--muted); font-weight: 600; white-space: nowrap; border-bottom-width: 2px}
.fc .s {white-space: nowrap}
.fc a {color: var(--blue)}
.fc td.l {min-width: 11rem}
.fc code {color: inherit; background: none; padding: 0; font-size: .95em}
.fc pre {white-space: pre-wrap; overflow-wrap: anywhere; background: var(--paper); color: var(--ink);
  border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; margin: .4rem 0;
  font-size: .84rem}
.fc tbody th {font-weight: 600}
.fc .n {text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap}
.fc .cards {display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .7rem;
  margin: .4rem 0}
.fc .card {background: var(--paper); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .8rem}
.fc .card b {display: block; font-size: 1.12rem; font-weight: 650; overflow-wrap: anywhere}
.fc .card span {color: var(--muted); font-size: .82rem; overflow-wrap: anywhere}
.fc .note {border-left: 3px solid var(--blue); background: var(--paper); padding: .5rem .8rem}
.fc .note.bad {border-color: var(--vermillion)}
"""


def palette() -> Palette:
    """Give the colours of the reader's mode."""
    return DARK if st.context.theme.type == "dark" else LIGHT


def dress() -> None:
    """Set the style of all that follows; once a page."""
    st.html(f"<style>:root{{{css_variables(palette())}}}{CSS}</style>")


def _html(inner: str) -> None:
    st.html(f'<div class="fc">{inner}</div>')


def _words(text: str) -> str:
    """Escape a text, and set what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def page(title: str, about: str) -> None:
    """Begin a page: its title, and what it is for in a sentence."""
    _html(f'<h1>{escape(title)}</h1><p class="muted">{escape(about)}</p>')


def section(title: str, about: str = "") -> None:
    """Begin a part of a page."""
    words = f'<p class="muted">{_words(about)}</p>' if about else ""
    _html(f"<h2>{escape(title)}</h2>{words}" if title else words)


def note(text: str, *, bad: bool = False) -> None:
    """Say something that the reader must not miss."""
    kind = "note bad" if bad else "note"
    _html(f'<div class="{kind}" role="note"><p>{_words(text)}</p></div>')


def notes(texts: Sequence[str]) -> None:
    """Say several things, each once."""
    for text in dict.fromkeys(texts):
        note(text)


def cards(facts: Sequence[tuple[str, str, str]]) -> None:
    """Show a few facts side by side: name, value, and a word on it."""
    inner = "".join(
        f'<div class="card"><span>{escape(name)}</span><b>{escape(value)}</b>'
        f"<span>{escape(word)}</span></div>"
        for name, value, word in facts
    )
    _html(f'<div class="cards">{inner}</div>')


def table(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Sequence[str] = (),
) -> None:
    """Show a table whose first column names the rows.

    Parameters
    ----------
    caption : str
        What it is.
    columns : sequence of str
        Heads, distinct.
    rows : sequence of sequences of str
        Finished text.
    numbers : sequence of str
        Heads of the columns whose text is set to the right.
    """
    right = [name in numbers for name in columns]
    head = "".join(
        f'<th scope="col"{" class=n" if number else ""}>{escape(name)}</th>'
        for name, number in zip(columns, right, strict=True)
    )
    body = []
    for row in rows:
        first, *others = [
            (f' class="{"n" if number else "s" if len(text) <= SHORT else "l"}">{escape(text)}')
            for text, number in zip(row, right, strict=True)
        ]
        cells = "".join(f"<td{cell}</td>" for cell in others)
        body.append(f'<tr><th scope="row"{first}</th>{cells}</tr>')
    _html(
        # A part that scrolls is reached by the keyboard.
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
        "</table></div>"
    )


def counted(number: int, what: str, listed: int | None = None) -> str:
    """Write how many there are of something, and how many of them are listed where not all are."""
    more = f", the first {listed}" if listed is not None and number > listed else ""
    return f"{count(number)} {what}{'' if number == 1 else 's'}{more}"


def command(text: str) -> None:
    """Show a command to type."""
    _html(f"<pre>{escape(text)}</pre>")


def links(targets: Sequence[tuple[str, str]]) -> None:
    """List links: their words and their addresses, which begin with http."""
    items = "".join(
        f'<li><a href="{escape(address)}" rel="noreferrer">{escape(words)}</a></li>'
        for words, address in targets
    )
    _html(f"<ul>{items}</ul>")


def chart(drawn: Chart, key: str, *, legend: bool = False) -> None:
    """Show a chart and its words."""
    st.plotly_chart(
        themed(drawn.figure, palette(), legend=legend),
        theme=None,
        key=key,
        config={"displayModeBar": False, "responsive": True},
        alt=drawn.summary,
    )
    _html(
        f'<p>{escape(drawn.summary)}</p><p class="muted">Shows {escape(drawn.shows)}. '
        f"Does not show {escape(drawn.hides)}.</p>"
    )
