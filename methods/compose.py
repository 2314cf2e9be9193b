"""Several erasers in one edit: the sum of their edits, or one after another."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from erasebench.concepts import ErasureTask
from erasebench.edits.combine import check_how, combine
from erasebench.edits.eraser import Edit, Eraser, Hook, Work
from erasebench.edits.hook import check_places
from erasebench.errors import UserError
from erasebench.models.pipeline import Pipeline

if TYPE_CHECKING:
    from erasebench.models.load import Model


@dataclass(frozen=True)
class Compose(Eraser):
    """The edits of several erasers as one edit.

    ``how``
        ``sum``: every eraser edits the unedited model, and the changes are added; the order does not matter.
        ``sequence``: every eraser edits the model that those before it have edited; the changes are applied in this
        order. What an earlier edit removed from the weights (or from the text encoder) a later eraser does not see.
        Where one of them trains on images, they are made by the model so edited.

    What acts while images are sampled acts in the order of the parts either way. A training would not meet it, so in a
    sequence trainings come before such parts.

    Attributes:
        parts: the erasers in order; the keys only name their places in the config.
        how: ``sequence`` or ``sum``.

    Raises:
        UserError: no part, a part that is not an eraser, an unknown way, parts that act on the same place while images
            are sampled, or a training behind a part that acts while images are sampled.
    """

    name: ClassVar[str] = "compose"
    version: ClassVar[str] = "2"
    describe: ClassVar[str] = "several erasers in one edit: one after another (sequence), or their sum"

    parts: Mapping[str, Eraser]
    how: str = "sequence"

    def __post_init__(self) -> None:
        check_how(self.how, "compose: how")
        if not isinstance(self.parts, Mapping) or not self.parts:
            raise UserError("compose: parts is empty; name at least one eraser, e.g. method@method.parts.first=cure")
        for place, part in self.parts.items():
            if not isinstance(part, Eraser):
                raise UserError(
                    f"compose: parts.{place} is {part!r}, not an eraser; e.g. method@method.parts.{place}=cure"
                )
        check_places(self.acts())
        if self.how == "sequence":
            self._check_trainings_come_first()
        # A family of models that one part cannot edit, all of it cannot.
        for name in ("unsupported", "partly"):
            reasons = {family: why for part in self.parts.values() for family, why in getattr(part, name).items()}
            object.__setattr__(self, name, reasons)
        object.__setattr__(self, "trains", any(part.trains for part in self.parts.values()))

    def _check_trainings_come_first(self) -> None:
        acting: tuple[str, Eraser] | None = None
        for place, part in self.parts.items():
            if acting and part.trains:
                raise UserError(
                    f"compose: parts.{place} ({part.name}) trains, and would not meet what parts.{acting[0]} "
                    f"({acting[1].name}) does while images are sampled; put parts.{place} first, or use how=sum, where each "
                    "is made for the unedited model"
                )
            if part.acts():
                acting = place, part

    @property
    def settings(self) -> dict[str, Any]:
        """The parts with their settings, in order: in a sequence it decides the edit."""
        parts = [
            {"name": part.name, "version": part.version, "settings": part.settings} for part in self.parts.values()
        ]
        return {"parts": parts, "how": self.how}

    def key(self, model_identity: str, task: ErasureTask) -> str:
        """As of every eraser, with the keys of the parts for their settings: what decides them decides it."""
        parts = [part.key(model_identity, task) for part in self.parts.values()]
        return self.key_of(model_identity, task, {"parts": parts, "how": self.how})

    def refuses(self, model: Model) -> str | None:
        """Whatever a part refuses."""
        return next((reason for part in self.parts.values() if (reason := part.refuses(model))), None)

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:
        """What every part checks."""
        for part in self.parts.values():
            part.check(pipe, task)

    def acts(self) -> tuple[type[Hook], ...]:
        """The hooks of all parts, in order."""
        return tuple(kind for part in self.parts.values() for kind in part.acts())

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """The changes of all parts as one, their hooks in order, and the notes of each part."""
        edits = []
        with ExitStack() as applied:
            for number, (place, part) in enumerate(self.parts.items()):
                # The pipeline carries an edit here only if this sequence, or the caller, composes.
                edit = part.edit(pipe, task, composing=True, work=work and work.part(number))
                edits.append(edit)
                if self.how == "sequence" and place != list(self.parts)[-1]:
                    applied.enter_context(replace(edit, key=edit.digest()).applied(pipe))
        joined = combine([edit.changes for edit in edits], self.how, pipe)
        warnings = [f"{edit.info['method']}: {text}" for edit in edits for text in edit.info.get("warnings", [])]
        notes = {"parts": [edit.info for edit in edits]} | ({"warnings": warnings} if warnings else {})
        return Edit(joined, notes, tuple(hook for edit in edits for hook in edit.hooks))
