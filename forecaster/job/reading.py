"""Reading a job file: YAML of text, lists and mappings, and one line for what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from forecaster.errors import JobError
from forecaster.job.base import nearest, shorten, shown
from forecaster.job.settings import Job

__all__ = ["json_schema", "load_job", "parse_job"]


class _Loader(yaml.SafeLoader):
    """A loader of text, lists and mappings: ON, NO, TRUE and 0700 are tickers, not numbers."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        # Here and not at construction, which merges (`<<`) change: an override is no repetition.
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is text", key.start_mark)
            if key.tag != _MERGE and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {shown(key.value)} stands twice", key.start_mark
                )
            seen.add(key.value)
        return node


_MERGE = "tag:yaml.org,2002:merge"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == _MERGE]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: yaml.SafeLoader.yaml_constructors[tag]
    for tag in (*(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")), None)
}


def parse_job(text: str, where: str) -> Job:
    """Read a job from YAML.

    Parameters
    ----------
    text : str
        The YAML document. Plain scalars stay text until the settings say what they are.
    where : str
        Name of the document, for messages.

    Raises
    ------
    JobError
        With the path of the setting, what was given, and what is allowed.
    """
    try:
        data = yaml.load(text, Loader=_Loader)  # nosec B506  # a SafeLoader that makes text, lists, mappings
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        said = ", ".join(shorten(part) for part in (error.context, error.problem) if part)
        raise JobError(f"{where}{line}: not valid YAML: {said}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise JobError(f"{where}: not valid YAML: {_one_line(error)}") from None
    if not isinstance(data, dict):
        raise JobError(f"{where}: a job is a mapping of settings. Received: {shown(data)}")
    try:
        return Job.model_validate(data)
    except ValidationError as error:
        raise JobError(f"{where}: {_explain(error, data)}") from None
    except RecursionError:
        raise JobError(f"{where}: a setting contains itself; remove the alias") from None


def load_job(path: Path | str) -> Job:
    """Read a job file.

    Raises
    ------
    JobError
        If the file cannot be read, or as in `parse_job`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise JobError(f"{path}: no such job file; name one, such as configs/quickstart.yaml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path}: the job file cannot be read as UTF-8 text: {_one_line(error)}") from None
    return parse_job(text, str(path))


def json_schema() -> dict[str, Any]:
    """JSON schema of the job file, for editors."""
    schema = Job.model_json_schema()
    for definition in schema["$defs"].values():
        if "kind" in definition["properties"]:
            definition["properties"]["kind"]["description"] = definition["description"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _explain(error: ValidationError, data: object) -> str:
    """Say the first error in one line: path, what was given, what is allowed."""
    errors = error.errors()
    first = errors[0]
    # A list whose only entry is wrong is also said to be too short.
    others = [other for other in errors[1:] if other["loc"] != first["loc"][: len(other["loc"])]]
    path, value = "", data
    for step in first["loc"]:
        # The location also names the branches of unions, which are no keys of the document.
        if isinstance(value, Mapping) and step in value:
            path, value = f"{path}.{step}" if path else str(step), value[step]
        elif isinstance(value, Sequence) and not isinstance(value, str) and isinstance(step, int):
            path, value = f"{path}[{step}]", value[step] if step < len(value) else None
    context = first.get("ctx", {})
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] != "value_error":
        # YAML has lists and mappings where pydantic speaks of Python's types.
        message = message.replace("Tuple", "List").replace("tuple", "list")
        message = re.sub("dictionary( or object to extract fields from)?", "mapping", message)
    if first["type"] == "missing":
        missing = str(first["loc"][-1])
        path, message = f"{path}.{missing}" if path else missing, "this setting is required"
        text = f"{path}: {message}"
    elif first["type"] == "union_tag_not_found":
        text = f"{path}: a `kind` is required. Received: {shown(value)}"
    elif first["type"] == "union_tag_invalid":
        allowed = [name.strip("'") for name in str(context["expected_tags"]).split(", ")]
        text = f"{path}.kind: unknown kind {shown(context['tag'])}{nearest(str(context['tag']), allowed)}"
    elif first["type"] == "string_pattern_mismatch":
        # The one pattern of a job; an expression says nothing to whoever has to mend the name.
        text = (
            f"{path}: a name has letters, digits and _.- only, and begins with a letter or a digit. "
            f"Received: {shown(value)}"
        )
    elif message.startswith("unknown key"):
        text = f"{path}: {message}" if path else message
    else:
        # Our own rules about a whole mapping say themselves what they received.
        ours_of_mapping = first["type"] == "value_error" and isinstance(value, Mapping)
        received = "" if ours_of_mapping else f". Received: {shown(value)}"
        text = f"{path}: {message}{received}" if path else f"{message}{received}"
    return text + (f" (and {len(others)} more)" if others else "")
