"""One concept after another: what is left of an eraser when requests to forget come one at a time (UnlearnCanvas)."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from erasebench.concepts import ErasureTask
from erasebench.edits.combine import combine
from erasebench.edits.eraser import Edit, Eraser, Work
from erasebench.errors import UserError
from erasebench.models.pipeline import Pipeline

if TYPE_CHECKING:
    from erasebench.models.load import Model


@dataclass(frozen=True)
class OneByOne(Eraser):
    """An eraser that is given the targets of a task one at a time, each time in the model that it has left before.

    A task of several targets in one edit (``task.joint=true``) is a sequence of requests in their order; the texts to
    retain are those of the task at every request. How far earlier targets come back as more are erased shows a sweep over
    ``task.erase=[A]``, ``[A,B]``, ``[A,B,C]`` (UnlearnCanvas's sequential unlearning); the eraser alone on the same task is
    the joint edit beside it.

    Attributes:
        eraser: what erases each target; it must change weights alone.

    Raises:
        UserError: the eraser acts while images are sampled: several of it would act in one place.
    """

    name: ClassVar[str] = "one_by_one"
    version: ClassVar[str] = "1"
    describe: ClassVar[str] = "an eraser for each target in turn, in the model that the ones before left"

    eraser: Eraser

    def __post_init__(self) -> None:
        if not isinstance(self.eraser, Eraser):
            raise UserError(f"one_by_one: {self.eraser!r} is no eraser; e.g. method@method.eraser=cure")
        if self.eraser.acts():
            raise UserError(
                f"one_by_one: {self.eraser.name} acts while images are sampled, which several of it cannot do in one place; "
                "take an eraser that changes weights alone"
            )
        for name in ("unsupported", "partly"):
            object.__setattr__(self, name, getattr(self.eraser, name))
        object.__setattr__(self, "trains", self.eraser.trains)

    @property
    def settings(self) -> dict[str, Any]:
        """The eraser with its settings."""
        part = self.eraser
        return {"eraser": {"name": part.name, "version": part.version, "settings": part.settings}}

    def key(self, model_identity: str, task: ErasureTask) -> str:
        """As of every eraser, with the keys of its steps for their settings: what decides them decides it."""
        steps = [self.eraser.key(model_identity, step) for step in requests(task)]
        return self.key_of(model_identity, task, {"steps": steps})

    def refuses(self, model: Model) -> str | None:
        """Whatever the eraser refuses."""
        return self.eraser.refuses(model)

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:
        """What the eraser checks of every request."""
        for step in requests(task):
            self.eraser.check(pipe, step)

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """The changes of all requests as one, with the notes of each."""
        edits: list[Edit] = []
        with ExitStack() as applied:
            for number, step in enumerate(requests(task)):
                if edits:
                    applied.enter_context(replace(edits[-1], key=edits[-1].digest()).applied(pipe))
                edits.append(self.eraser.edit(pipe, step, composing=True, work=work and work.part(number)))
        joined = combine([edit.changes for edit in edits], "sequence", pipe)
        warnings = [f"{edit.info['task']['label']}: {text}" for edit in edits for text in edit.info.get("warnings", [])]
        return Edit(joined, {"parts": [edit.info for edit in edits]} | ({"warnings": warnings} if warnings else {}))


def requests(task: ErasureTask) -> list[ErasureTask]:
    """A task for each target of a task, in order, with its texts to retain."""
    return [ErasureTask((target,), task.retain) for target in task.targets]
