"""Control: a network that has forgotten everything, from which no attack can bring back anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Change, Eraser
from erasebench.models.pipeline import Pipeline, part_of
from erasebench.models.targets import denoiser


@dataclass(frozen=True)
class Shuffled(Eraser):
    """Puts the entries of every weight and bias of the denoiser into a random order.

    The network then draws noise, whatever it is asked for. An attack that succeeds here has not found the concept in the
    model: it has made it itself, or fooled the judge (the control of TINA+: an attack on random weights must fail).

    Attributes:
        seed: of the order.
    """

    name: ClassVar[str] = "shuffled"
    describe: ClassVar[str] = "control: every weight of the denoiser in a random order; no attack may succeed on it"
    forgot: ClassVar[bool] = True

    seed: int = 0

    def changes(self, pipe: Pipeline, task: ErasureTask) -> tuple[dict[str, Change], dict[str, Any]]:
        """New values of all parameters of the denoiser."""
        numbers = torch.Generator().manual_seed(self.seed)
        part = "unet" if part_of(pipe, "unet") is not None else "transformer"
        made = {}
        for name, weight in denoiser(pipe).named_parameters():
            order = torch.randperm(weight.numel(), generator=numbers)
            made[f"{part}.{name}"] = Change(value=weight.detach().cpu().flatten()[order].view(weight.shape).clone())
        return made, {}
