"""Write the reference of the commands and of the job file from the code; ``make docs`` runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from forecaster.job import json_schema
from pipelines.cli import app

FOLDER = Path(__file__).parent / "reference"


def commands() -> str:
    """Lay out every command with its arguments and options."""
    lines = [
        "# Commands",
        "",
        "Exit codes: 0 success; 2 a bad job or bad input, in one line; 3 some symbol failed;",
        "1 fewer symbols succeeded than `minimum_coverage` asks for, or any other failure; 130 interrupted.",
        "Every command takes `--help`, and `--debug` for the traceback of an error.",
        "",
    ]
    for path, command in _walk(typer.main.get_command(app), "forecaster"):
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        named = "".join(f" {one.metavar or one.name.upper()}" for one in arguments)
        lines += [f"## `{path}{named}`", "", _cell(command.help or ""), ""]
        options = [
            one
            for one in command.params
            if one.param_type_name == "option" and one.name not in ("debug", "help")
        ]
        if options:
            lines += ["| option | what |", "|---|---|"]
            for one in options:
                name = ", ".join(f"`{spelling}`" for spelling in (*one.opts, *one.secondary_opts))
                value = "" if one.is_flag else f" {one.metavar or one.name.upper()}"
                need = " Required." if one.required else ""
                lines.append(f"| {name}{value} | {_cell(one.help or '')}{need} |")
            lines.append("")
    return "\n".join(lines)


def _walk(group: Any, path: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            found += _walk(command, f"{path} {name}")
        elif not command.hidden:
            found.append((f"{path} {name}", command))
    return found


def job() -> str:
    """Lay out every setting of the job file."""
    schema = json_schema()
    lines = [
        "# Job file",
        "",
        "A job is one YAML file. An unknown key is an error that names the nearest one; every scalar is text",
        "until a setting says what it is, so that `NO` and `0700` stay symbols. `forecaster schema` prints",
        "the same as JSON schema, for editors.",
        "",
        *_settings("The job", schema, schema),
    ]
    for name, definition in sorted(schema["$defs"].items()):
        if "properties" in definition:
            lines += _settings(name, definition, schema)
    return "\n".join(lines)


def _settings(name: str, definition: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    kind = definition["properties"].get("kind", {}).get("const")
    said = "" if kind is None else f"`kind: {kind}`. "
    lines = [f"## {name}", "", said + _cell(definition.get("description", "")), ""]
    rows = [(key, one) for key, one in definition["properties"].items() if key != "kind"]
    if rows:
        lines += ["| setting | type | default | what |", "|---|---|---|---|"]
        for key, one in rows:
            default = (
                f"`{one['default']!r}`"
                if "default" in one
                else ("required" if key in definition.get("required", ()) else "")
            )
            lines.append(
                f"| `{key}` | {_type(one)} | {_cell(default)} | {_cell(one.get('description', ''))} |"
            )
        lines.append("")
    return lines


def _type(one: dict[str, Any]) -> str:
    if "$ref" in one:
        name = one["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "const" in one:
        return f"`{one['const']}`"
    if "enum" in one:
        return " or ".join(f"`{value}`" for value in one["enum"])
    for union in ("anyOf", "oneOf"):
        if union in one:
            return " or ".join(dict.fromkeys(_type(part) for part in one[union]))
    if one.get("type") == "array":
        inside = one.get("items") or {}
        return f"list of {_type(inside)}" if inside else "list"
    if one.get("type") == "object":
        inside = one.get("additionalProperties")
        return f"mapping to {_type(inside)}" if isinstance(inside, dict) else "mapping"
    return str(one.get("type", "anything")).replace("integer", "whole number").replace("string", "text")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(folder: Path = FOLDER) -> None:
    """Write both pages."""
    (folder / "commands.md").write_text(commands(), encoding="utf-8")
    (folder / "job.md").write_text(job(), encoding="utf-8")


if __name__ == "__main__":
    main()
