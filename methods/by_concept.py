"""One eraser whose settings depend on the concept, as some releases have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Edit, Eraser, Hook, Work
from erasebench.errors import UserError, suggest
from erasebench.models.pipeline import Pipeline

if TYPE_CHECKING:
    from erasebench.models.load import Model


@dataclass(frozen=True)
class ByConcept(Eraser):
    """Each task is done by the eraser of its concepts. RECE's release has two settings for objects and leaves others to
    UCE; MACE's has one for each of three objects.

    Attributes:
        erasers: by names of one's choice.
        concepts: which of them erases a concept, by the concept's name.
        others: which of them erases a concept that is not among these.

    Raises:
        UserError: no eraser, one that is none, or a name of none.
    """

    name: ClassVar[str] = "by_concept"
    describe: ClassVar[str] = "one of several erasers, by the concept (settings of a release that differ by concept)"

    erasers: Mapping[str, Eraser]
    others: str
    concepts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.erasers, Mapping) or not self.erasers:
            raise UserError("by_concept: erasers is empty; name at least one, e.g. method@method.erasers.first=uce")
        for name, eraser in self.erasers.items():
            if not isinstance(eraser, Eraser):
                raise UserError(f"by_concept: erasers.{name} is {eraser!r}, not an eraser")
        for name in (self.others, *self.concepts.values()):
            if name not in self.erasers:
                raise UserError(f"by_concept: {name!r} is not among erasers.{suggest(str(name), self.erasers)}")
        # A family of models that one of them cannot edit, all of it cannot.
        for attribute in ("unsupported", "partly"):
            reasons = {family: why for one in self.erasers.values() for family, why in getattr(one, attribute).items()}
            object.__setattr__(self, attribute, reasons)
        object.__setattr__(self, "trains", any(eraser.trains for eraser in self.erasers.values()))

    def chosen(self, task: ErasureTask) -> Eraser:
        """The eraser of a task.

        Raises:
            UserError: its concepts have several.
        """
        by_name = {concept.casefold(): eraser for concept, eraser in self.concepts.items()}
        names = {by_name.get(name.casefold(), self.others) for name in task.names}
        if len(names) > 1:
            raise UserError(
                f"by_concept: {task.label} have settings of their own each ({', '.join(sorted(names))}); erase them one "
                "at a time: task.joint=false"
            )
        return self.erasers[names.pop()]

    def key(self, model_identity: str, task: ErasureTask) -> str:
        """The key of the eraser that does it: the edit is the same."""
        return self.chosen(task).key(model_identity, task)

    def refuses(self, model: Model) -> str | None:
        """Whatever one of them refuses."""
        return next((reason for one in self.erasers.values() if (reason := one.refuses(model))), None)

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:
        """What the eraser that does it checks."""
        self.chosen(task).check(pipe, task)

    def acts(self) -> tuple[type[Hook], ...]:
        """The hooks of all of them, each once."""
        return tuple(dict.fromkeys(kind for one in self.erasers.values() for kind in one.acts()))

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """The edit of the eraser that does it, with what it says of itself."""
        eraser = self.chosen(task)
        made = eraser.make(pipe, task, work)
        about = {"version": eraser.version, "settings": eraser.settings, "trained": eraser.trains}
        return Edit(made.changes, {**made.info, **about}, made.hooks)
