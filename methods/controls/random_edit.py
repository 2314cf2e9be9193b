"""Control: a random edit as large as another eraser's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Change, Edit, Eraser, Work
from erasebench.errors import UserError
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import named_weight

if TYPE_CHECKING:
    from erasebench.models.load import Model


@dataclass(frozen=True)
class RandomEdit(Eraser):
    """Gaussian changes of the same rank and, weight by weight, the same Frobenius norm as another eraser's.

    An eraser that does no better than this removes concepts by damage alone.

    Attributes:
        like: the eraser whose ranks and norms are taken.
        seed: of the Gaussian numbers, 0 or above.

    Raises:
        UserError: ``like`` is not an eraser, or is ``none``; a negative seed.
    """

    name: ClassVar[str] = "random"
    describe: ClassVar[str] = "control: a random edit of the same rank and norm as another eraser's"

    like: Eraser
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.like, Eraser):
            raise UserError(f"random: like is {self.like!r}, not an eraser; e.g. method/like=cure")
        if self.seed < 0:
            raise UserError(f"random: seed is {self.seed}; it must be 0 or above")
        for name in ("unsupported", "partly", "trains"):
            object.__setattr__(self, name, getattr(self.like, name))

    def key(self, model_identity: str, task: ErasureTask) -> str:
        """As of every eraser, with the key of the other eraser for its settings."""
        return self.key_of(model_identity, task, {"like": self.like.key(model_identity, task), "seed": self.seed})

    def refuses(self, model: Model) -> str | None:
        """What the other eraser refuses."""
        return self.like.refuses(model)

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:
        """What the other eraser checks."""
        self.like.check(pipe, task)

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """Random factors (or a dense change where the reference is dense), scaled weight by weight."""
        like = self.like.edit(pipe, task, composing=True, work=work)
        like.check_weights_alone("there is no random edit of the same size")
        reference = like.changes
        if not reference:
            raise UserError(f"random: eraser {self.like.name!r} changes nothing, so there is no norm to match")
        generator = torch.Generator().manual_seed(self.seed)

        def gauss(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        made, norms = {}, {}
        for name, change in reference.items():
            weight = named_weight(pipe, name)
            norms[name] = change.norm(weight)
            if change.right is None:
                delta = gauss(*weight.shape)
                made[name] = Change(delta=delta * (norms[name] / Change(delta=delta).norm(weight)))
            else:
                left, right = gauss(weight.shape[0], change.rank), gauss(change.rank, change.right.shape[1])
                scale = norms[name] / Change(left=left, right=right).norm(weight) if change.rank else 0.0
                made[name] = Change(left=left * scale, right=right)
        return Edit(made, {"norms": norms})
