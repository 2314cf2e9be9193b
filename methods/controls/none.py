"""The unedited model, in every table as the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Change, Eraser
from erasebench.models.pipeline import Pipeline


@dataclass(frozen=True)
class Unedited(Eraser):
    """Changes nothing. Its images carry no edit key, so all erasers and tasks share them."""

    name: ClassVar[str] = "none"
    describe: ClassVar[str] = "the unedited model"
    control: ClassVar[bool] = True

    def changes(self, pipe: Pipeline, task: ErasureTask) -> tuple[dict[str, Change], dict[str, Any]]:
        """No changes."""
        return {}, {}

    def key(self, model_identity: str, task: ErasureTask) -> str:
        """The empty string: there is no edit."""
        return ""
