"""What an eraser that trains may use besides the pipeline: a folder, images, and a way to say how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image


class Sample(Protocol):
    """Images of the unedited model."""

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float) -> list[Image]:
        """One image for each prompt and its seed, by DDIM (or the model's own flow) in the model's own size.

        All that decides them comes from the eraser, so that it is in the edit's key if it is in the eraser's settings.
        """


@dataclass(frozen=True)
class Work:
    """The means of one training.

    A training may be killed at any moment and is then begun again with the same work. What it left in ``folder`` is
    there, so it goes on from its last checkpoint, and must then end in the same edit as if it had not been killed (on
    the same machine, where the machine itself repeats).

    Attributes:
        folder: for checkpoints, of this edit alone; made by whoever first writes into it, and deleted when the edit is
            stored. Write files whole (:func:`erasebench.files.write_atomic`).
        sample: images of the unedited model, through the store, so that none is made twice. Only while the pipeline is
            unedited.
        advance: to be called with the steps done so far and their number.
        seed: for all random numbers; it follows from the edit's key, so that another task or setting draws others.
        device: where the model is, e.g. ``cuda``.
    """

    folder: Path
    sample: Sample
    advance: Callable[[int, int], None]
    seed: int
    device: str

    def part(self, number: int) -> Work:
        """The means of one of several trainings that make one edit: a folder and a seed of its own."""
        return replace(self, folder=self.folder / f"part{number}", seed=(self.seed + number) % 2**63)
