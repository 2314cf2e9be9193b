"""SDD: a network learns to predict for the concept what it predicts for nothing (Kim et al., 2023, arXiv 2307.05977)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Module

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Edit, Work
from erasebench.errors import UserError
from erasebench.methods.closed_form.linear import check_positive
from erasebench.methods.trained.examples import encoded_texts, phrases_of
from erasebench.methods.trained.latents import ddim, denoised, initial_noise
from erasebench.methods.trained.parameters import check_group, group
from erasebench.methods.trained.training import (
    Optimization,
    TrainedEraser,
    below,
    generator,
    train,
    trained_values,
)
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import denoiser


@dataclass(frozen=True, kw_only=True)
class Sdd(TrainedEraser):
    """Safe self-distillation: the student's own unconditional prediction is its goal, and its average is the edit.

    The teacher, an exponential average of the student's weights, denoises noise for all concepts joined by ``", "``, with
    guidance, for a random number of DDIM steps, which gives z. Phrases take turns as c. The loss is the mean of ``(eps_theta(z, t, c) - sg eps_theta(z, t, ""))^2`` with t from the slice of the schedule behind z. AdamW
    with weight decay 1e-4, gradients clipped to norm 1.

    As released, but for one case: where no step of denoising is drawn, the release denoises to the end and still takes t
    from the noisiest slice; here z is then noise.

    Attributes:
        decay: of the average, at least 0 and below 1. After ``iterations`` steps the first weights still have a share of
            ``decay ** iterations`` in the edit (22 % with the paper's settings).
        train: the parameters trained, of :data:`erasebench.methods.trained.parameters.GROUPS`.
        start_guidance: of the latents that are trained on; 1 is none.
        steps: of their sampling.
        batch: latents a step, of one phrase and one timestep.
        phrases: train on all phrases of a concept, not its name alone.

    Raises:
        UserError: an option out of range.
    """

    name: ClassVar[str] = "sdd"
    describe: ClassVar[str] = (
        "SDD: the concept's prediction becomes the unconditional one; the weights' average is kept"
    )

    iterations: int = 1500
    lr: float = 1e-5
    decay: float = 0.999
    train: str = "x"
    start_guidance: float = 3.0
    steps: int = 50
    batch: int = 1
    phrases: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("sdd", start_guidance=self.start_guidance)
        self.check_whole("steps", "batch")
        check_group(self.train)
        if not 0 <= self.decay < 1:
            raise UserError(f"sdd: decay is {self.decay!r}; it must be at least 0 and below 1")

    def copied(self, pipe: Pipeline) -> list[Module]:
        """A student, and its average."""
        return [denoiser(pipe)] * 2

    def trained_in(self, pipe: Pipeline) -> Mapping[str, Tensor]:
        """The group ``train`` of the network."""
        return group(denoiser(pipe), self.train)

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """Trains, from the last checkpoint if there is one."""
        assert work is not None
        phrases = phrases_of(task, self.phrases)
        joined = ", ".join(phrases)
        texts = encoded_texts(pipe, ["", joined, *phrases])
        student, teacher = self.student(denoiser(pipe)), self.student(denoiser(pipe))
        parameters, average = group(student, self.train), group(teacher, self.train)
        scheduler = ddim(pipe.scheduler.config, self.steps)

        def loss_of(step: int) -> Tensor:
            numbers = generator(work, step)
            remaining, timestep = slice_drawn(self.steps, scheduler, numbers)
            noise = initial_noise(student, self.batch, numbers)
            z = denoised(teacher, scheduler, noise, texts[joined], texts[""], self.start_guidance, remaining).float()
            return sdd_loss(student, z, timestep.to(z.device), texts[phrases[step % len(phrases)]], texts[""])

        def follow(step: int) -> None:
            for name, parameter in parameters.items():
                average[name].lerp_(parameter, 1 - self.decay)

        optimization = Optimization(torch.optim.AdamW, {"weight_decay": 1e-4}, clip=1.0)
        notes = train(self, work, parameters, loss_of, optimization, kept=average, after=follow)
        return Edit(trained_values("unet", average), {"method": self.name, "phrases": phrases, **notes})


def slice_drawn(steps: int, scheduler: Any, numbers: torch.Generator) -> tuple[int, Tensor]:
    """How many sampling steps remain, 1 to ``steps``, and a timestep [1] from that slice of the schedule."""
    remaining, total = below(1, steps + 1, numbers), scheduler.config.num_train_timesteps
    first, last = round((remaining - 1) / steps * total), round(remaining / steps * total)
    return remaining, torch.tensor([below(first, last, numbers)])


def sdd_loss(student: Module, z: Tensor, timestep: Tensor, context: Tensor, empty: Tensor) -> Tensor:
    """SDD's loss at latents: the mean square distance to the network's own unconditional prediction, held fixed.

    Args:
        z: [n, channels, height, width].
        timestep: [1].
        context, empty: [1, positions, d], the text and ``""``.
    """
    context, empty = (text.expand(len(z), -1, -1) for text in (context, empty))
    with torch.no_grad():
        goal = student(z, timestep, empty).sample
    return torch.nn.functional.mse_loss(student(z, timestep, context).sample, goal)
