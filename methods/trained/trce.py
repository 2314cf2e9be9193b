"""TRCE, both stages: the closed-form edit, then attention is tuned along denoising trajectories (Chen et al., ICCV 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import mse_loss

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Edit, Work
from erasebench.errors import UserError
from erasebench.methods.closed_form.linear import check_positive, phrase_pairs
from erasebench.methods.closed_form.trce import Trce
from erasebench.methods.trained.examples import encoded_texts, template
from erasebench.methods.trained.latents import ddim, denoised, initial_noise
from erasebench.methods.trained.parameters import group
from erasebench.methods.trained.training import Optimization, TrainedEraser, below, generator, train, trained_values
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import denoiser

KEPT_LATENTS = 4
"""Unconditional latents a step on which the network must stay as stage 1 left it (released)."""


@dataclass(frozen=True, kw_only=True)
class TrceFull(TrainedEraser):
    """Stage 2 of TRCE on top of stage 1: self-attention and the queries of cross-attention learn to prefer what is safe.

    A step draws a pair of phrases (n, what is erased; s, its anchor, each in a sentence), noise, and a number i of 0 to
    ``early``; the unedited network eps_0 denoises the noise for n, at guidance 3, for i of ``steps`` DDIM steps, which
    gives z at the sampler's next timestep t. With u the empty text, ``preferred = s + c (s - u)`` and ``rejected =
    n + c (n - u)`` (predictions of eps_0, c the ``contrast``), the loss is

    ``1/2 sum_p max(0, beta (mse(eps(z, t, p), preferred) - mse(eps(z, t, p), rejected) + margin))
    + keep (margin / 4 + mean_k mse(eps(k, t, u), eps_1(k, t, u)))``

    over p in (n, u), with eps_1 the network that stage 1 left, and four latents k of unconditional trajectories.

    Ours: a trajectory of its own for each step, where the release made five a phrase and goes over them three times
    (20 phrases of sexual content: 300 steps). Two defects of the release are followed with ``as_released`` alone: its
    gradients are never set to zero, so that every step takes the sum of all so far; and its latents have been denoised by
    one step more than their timestep says (i + 1 of them).

    Attributes:
        stage1: the closed-form edit that comes first.
        early: the trajectory's first steps, among which i is drawn.
        contrast, beta, margin, keep: of the loss.
        steps: of the trajectories.
        as_released: with the two defects of the release.

    Raises:
        UserError: an option out of range.
    """

    name: ClassVar[str] = "trce_full"
    describe: ClassVar[str] = (
        "TRCE: the closed-form edit, then attention tuned along denoising trajectories (ICCV 2025)"
    )

    iterations: int = 300
    lr: float = 1e-6
    stage1: Trce = field(default_factory=Trce)
    early: int = 25
    contrast: float = 15.0
    beta: float = 1.0
    margin: float = 0.01
    keep: float = 100.0
    steps: int = 50
    as_released: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.name, contrast=self.contrast, beta=self.beta)
        self.check_whole("steps", "early")
        if not isinstance(self.stage1, Trce):
            raise UserError(f"{self.name}: stage1 is {self.stage1!r}; it must be the eraser trce, with its options")
        if self.early >= self.steps:
            raise UserError(f"{self.name}: early is {self.early}; it must be below steps ({self.steps})")
        for option in ("margin", "keep"):
            if not 0 <= getattr(self, option) < float("inf"):
                raise UserError(
                    f"{self.name}: {option} is {getattr(self, option)!r}; it must be a number of at least 0"
                )

    def key(self, model_identity: str, task: ErasureTask) -> str:
        """As of every eraser, with the key of stage 1 for its settings: a file that it reads decides it too."""
        return self.key_of(model_identity, task, self.settings | {"stage1": self.stage1.key(model_identity, task)})

    def copied(self, pipe: Pipeline) -> list[Module]:
        """A student, and what stage 1 left."""
        return [denoiser(pipe)] * 2

    def trained_in(self, pipe: Pipeline) -> Mapping[str, Tensor]:
        """Self-attention, and the queries of cross-attention."""
        return group(denoiser(pipe), "self+queries")

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:
        """As of all trainings, and what stage 1 checks."""
        super().check(pipe, task)
        self.stage1.check(pipe, task)

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """Stage 1, then the training, from its last checkpoint if there is one."""
        assert work is not None
        first = self.stage1.edit(pipe, task, composing=True)
        unedited = denoiser(pipe)
        student, refined = self.student(unedited), self.student(unedited)
        with torch.no_grad():
            for name, change in first.changes.items():
                for network in (student, refined):
                    change.add_to(network.get_parameter(name.removeprefix("unet.")))
        parameters = group(student, "self+queries")
        pairs = [
            (template(target.kind).format(phrase), template(target.kind).format(anchor) if anchor else "")
            for target in task.targets
            for phrase, anchor in phrase_pairs(target, self.stage1.anchor, self.stage1.phrases, False)
        ]
        texts = ["", *dict.fromkeys(text for pair in pairs for text in pair if text)]
        rows = encoded_texts(pipe, texts)
        scheduler = ddim(pipe.scheduler.config, self.steps)
        kind = next(unedited.parameters()).dtype

        def trajectory(text: Tensor, noise: Tensor, taken: int) -> Tensor:
            states = (noise, text, rows[""])
            return denoised(unedited, scheduler, *(x.to(kind) for x in states), 3.0, self.steps - taken).float()

        def loss_of(step: int) -> Tensor:
            numbers = generator(work, step)
            erased, safe = pairs[below(0, len(pairs), numbers)]
            taken = below(0, self.early + 1, numbers)
            noise = initial_noise(student, 1 + KEPT_LATENTS, numbers)
            done = taken + 1 if self.as_released else taken
            z, kept = trajectory(rows[erased], noise[:1], done), trajectory(rows[""], noise[1:], done)
            timestep = scheduler.timesteps[taken].to(z.device)
            with torch.no_grad():
                u, s, n = (
                    unedited(z.to(kind), timestep, rows[text].to(kind)).sample.float() for text in ("", safe, erased)
                )
            preferred, rejected = s + self.contrast * (s - u), n + self.contrast * (n - u)
            empty = rows[""].expand(KEPT_LATENTS, -1, -1)
            return self.preference(student, z, timestep, (rows[erased], rows[""]), preferred, rejected) + (
                self.keeping(student, refined, kept, timestep, empty)
            )

        optimization = Optimization(torch.optim.AdamW, {"weight_decay": 0.01}, adds_up=self.as_released)
        notes = train(self, work, parameters, loss_of, optimization)
        return Edit(
            {**first.changes, **trained_values("unet", parameters)},
            {"method": self.name, "pairs": [list(pair) for pair in pairs], "stage1": first.info, **notes},
        )

    def preference(
        self,
        student: Module,
        z: Tensor,
        timestep: Tensor,
        texts: tuple[Tensor, ...],
        preferred: Tensor,
        rejected: Tensor,
    ) -> Tensor:
        """The hinge: nearer to what is preferred than to what is rejected, by a margin; half the sum over the texts.

        Args:
            z: [1, channels, height, width]; ``preferred`` and ``rejected`` alike.
            texts: [1, positions, d] each: what is erased, and the empty text.
        """
        total = torch.zeros((), device=z.device)
        for text in texts:
            predicted = student(z, timestep, text).sample
            gap = mse_loss(predicted, preferred) - mse_loss(predicted, rejected)
            total = total + torch.clamp(self.beta * (gap + self.margin), min=0)
        return total / 2

    def keeping(self, student: Module, refined: Module, kept: Tensor, timestep: Tensor, empty: Tensor) -> Tensor:
        """How far the unconditional predictions are from those that stage 1 left, weighted.

        Args:
            kept: [4, channels, height, width].
            empty: [4, positions, d].
        """
        with torch.no_grad():
            target = refined(kept, timestep, empty).sample
        return self.keep * (self.margin / len(kept) + mse_loss(student(kept, timestep, empty).sample, target))
