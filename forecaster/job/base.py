"""What every setting of a job is: frozen, strict about its keys, and clear about what is wrong."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from forecaster.redaction import CONTROL

__all__ = [
    "Date",
    "Line",
    "Name",
    "NamedSpec",
    "Share",
    "Spec",
    "Symbol",
    "Symbols",
    "Text",
    "nearest",
    "shorten",
    "shown",
]

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]


def _printable(symbol: str) -> str:
    if not symbol.isprintable():
        raise ValueError("a symbol is printable text")
    return symbol


def _on_one_line(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError("a text stands on one line and holds no control characters")
    return text


Symbol = Annotated[
    str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True), AfterValidator(_printable)
]
Line = Annotated[str, AfterValidator(_on_one_line)]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True), AfterValidator(_on_one_line)]


def _distinct(symbols: tuple[str, ...]) -> tuple[str, ...]:
    seen: set[str] = set()
    for symbol in symbols:
        if symbol in seen:
            raise ValueError(f"each symbol is named once; {symbol!r} stands more than once")
        seen.add(symbol)
    return symbols


Symbols = Annotated[tuple[Symbol, ...], AfterValidator(_distinct)]
Share = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]


def _iso_date(value: object) -> object:
    """Take YYYY-MM-DD alone: pydantic would read 20080101 as seconds since 1970."""
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        raise ValueError("a date is written YYYY-MM-DD")
    return value


Date = Annotated[date, BeforeValidator(_iso_date)]


class Spec(BaseModel):
    """A part of a job: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: object) -> object:
        """Name the nearest key: pydantic only says that a key is not permitted."""
        if not isinstance(data, Mapping):
            return data
        for key in data:
            if key not in cls.model_fields:
                raise ValueError(f"unknown key {shown(key)}{nearest(str(key), list(cls.model_fields))}")
        return data


class NamedSpec(Spec):
    """A part of a job that has a name: that of its kind where it is given none."""

    name: Name = ""

    @model_validator(mode="before")
    @classmethod
    def _name_after_kind(cls, data: object) -> object:
        if isinstance(data, Mapping) and "name" not in data and isinstance(data.get("kind"), str):
            return {**data, "name": data["kind"]}
        return data


def nearest(given: str, names: Sequence[str]) -> str:
    """Name the nearest of the names, if one is near, and all that are allowed."""
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{hint} (allowed: {', '.join(names)})"


def shorten(text: str) -> str:
    """Cut a text that is too long for a line."""
    return text if len(text) <= 120 else f"{text[:117]}..."


# Not `repr`: a few aliases of aliases stand for more text than memory holds.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring = 2, 80


def shown(value: object) -> str:
    """Show a value in a message, shortened."""
    return shorten(_SHORT.repr(value))
