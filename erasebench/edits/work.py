"""What an eraser that trains may use besides the pipeline: a folder, images, and a way to say how far it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Work:
    """The means of one training.

    A training may be killed at any moment and is then begun again with the same work. What it left in ``folder`` is
    there, so it goes on from its last checkpoint, and must then end in the same edit as if it had not been killed (on
    the same machine, where the machine itself repeats).

    Attributes:
        folder: for checkpoints, of this edit alone; made by whoever first writes into it, and deleted when the edit is
            stored. Write files whole (:func:`erasebench.files.write_atomic`).
        sample: images of the unedited model for prompts and their seeds, as the protocol of the run makes them; through
            the store, so that none is made twice. Only while the pipeline is unedited.
        advance: to be called with the steps done so far and their number.
        seed: for all random numbers; it follows from the edit's key, so that another task or setting draws others.
        device: where the model is, e.g. ``cuda``.
    """

    folder: Path
    sample: Callable[[Sequence[str], Sequence[int]], list[Image]]
    advance: Callable[[int, int], None]
    seed: int
    device: str

    def part(self, number: int) -> Work:
        """The means of one of several trainings that make one edit: a folder and a seed of its own."""
        return replace(self, folder=self.folder / f"part{number}", seed=(self.seed + number) % 2**63)
