"""Settings of combinations of other models."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from forecaster.job.base import Name
from forecaster.job.model import ModelSpec

__all__ = ["CombinationModel"]


class CombinationModel(ModelSpec):
    """The equal-weight average of the quantiles of models that stand before it in the job."""

    complexity: ClassVar[int] = 6
    baseline: ClassVar[bool] = False

    kind: Literal["combination"]
    members: tuple[Name, ...] = Field(min_length=2)
    """Names of the models that are averaged."""

    @field_validator("members")
    @classmethod
    def _distinct(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(members)) < len(members):
            raise ValueError("members are distinct")
        return members

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"average of {' and '.join(self.members)}"
