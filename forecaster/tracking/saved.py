"""A fitted model on disk: the job that it is made again from, and what it learned; no pickle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from forecaster.errors import TrackingError
from forecaster.job import Job
from forecaster.job.base import shorten
from forecaster.models.base import Forecaster
from forecaster.redaction import one_line

__all__ = ["SavedModel", "folder_hash", "read_model", "registered_name", "write_model"]

JOB, LEARNED = "job.json", "learned"


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A model, its name, and the job that it belongs to."""

    job: Job
    name: str
    model: Forecaster


def registered_name(job: Job) -> str:
    """Give the name under which a job's models are registered."""
    return f"forecaster-{job.name}"


def folder_hash(folder: Path) -> str:
    """SHA-256 of the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def write_model(folder: Path, saved: SavedModel) -> None:
    """Save a fitted model beside its job, in a folder that does not exist yet."""
    (folder / LEARNED).mkdir(parents=True)
    content = {"model": saved.name, "job": saved.job.model_dump(mode="json")}
    (folder / JOB).write_text(json.dumps(content, indent=2), encoding="utf-8")
    saved.model.save(folder / LEARNED)


def read_model(folder: Path) -> SavedModel:
    """Make a saved model again.

    Raises
    ------
    TrackingError
        If the folder is not one that `write_model` wrote.
    """
    try:
        content = json.loads((folder / JOB).read_text(encoding="utf-8"))
        job, name = Job.model_validate(content["job"]), content["model"]
        model = job.build(name)
    except (OSError, ValueError, KeyError, TypeError, StopIteration, ValidationError) as error:
        raise TrackingError(
            f"{folder}: not a saved model, or a damaged one: {shorten(one_line(str(error)))}; "
            "restore it from a backup, or train again"
        ) from error
    try:
        return SavedModel(job, name, model.load(folder / LEARNED))
    # What a cut file does to NumPy, zip and Keras is of many types.
    except Exception as error:
        raise TrackingError(
            f"{folder}: a damaged model: {shorten(one_line(str(error)))}; "
            "restore it from a backup, or train again"
        ) from error
