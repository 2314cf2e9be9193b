"""What an eraser that trains may use besides the pipeline: a folder, images, and a way to say how far it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image


class Sample(Protocol):
    """Images of the model as the training has it: unedited, or in a sequence of edits with the earlier ones."""

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
        sample: images of the model as it is, through the store, so that none is made twice.
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
        """The means of one of several trainings that make one edit: a folder and a seed of its own.

        The seed is a hash, so that no two trainings draw the numbers of each other's steps, whose seeds are neighbours.
        """
        digest = hashlib.sha256(f"{self.seed} {number}".encode()).digest()
        return replace(self, folder=self.folder / f"part{number}", seed=int.from_bytes(digest[:8]) % 2**63)
