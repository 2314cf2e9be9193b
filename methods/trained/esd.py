"""ESD: a network is trained to predict, for the concept, what leads away from it (Gandikota et al., ICCV 2023)."""

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
from erasebench.methods.trained.training import Optimization, TrainedEraser, below, train, trained_values
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import denoiser

RELEASES = (2023, 2025)


@dataclass(frozen=True, kw_only=True)
class Esd(TrainedEraser):
    """ESD as released in 2023 or 2025, on the network's own latents; no images are needed.

    A step draws a phrase c of the concepts, a number of remaining steps and noise; a network denoises it for c, with
    guidance ``start_guidance``, until so many of ``steps`` DDIM steps remain, which gives z. With the frozen network
    eps_0 the loss is the mean of ``(eps_theta(z, t, c) - (eps_0(z, t, "") - eta (eps_0(z, t, c) - eps_0(z, t, ""))))^2``
    (equation 7 of the paper).

    ==============  ================================================  =========================================
    release         2023                                              2025
    ==============  ================================================  =========================================
    z comes from    the network in training                           the frozen network
    t               drawn from the slice of the schedule behind z     the next timestep of the sampler
    eta             counted from eps_0(z, t, "")                      from eps_0(z, t, c): its 2 is the other's 1
    their settings  1000 steps, lr 1e-5, eta 1                        200 steps, lr 5e-5, eta 2
    ==============  ================================================  =========================================

    Attributes:
        release: 2023 or 2025.
        train: the parameters trained, of :data:`erasebench.methods.trained.parameters.GROUPS`: ``x`` for artists, ``u``
            for objects and nudity in the paper; ``x-strict`` and ``u-2025`` came with the second release.
        eta: how far beyond the unconditional prediction to go, 0 or more (``negative_guidance`` of the releases).
        start_guidance: of the latents that are trained on; 1 is none.
        steps: of their sampling.
        batch: latents a step, of one phrase and one timestep; 1 in both releases.
        phrases: train on all phrases of a concept, not its name alone.

    Raises:
        UserError: an option out of range.
    """

    name: ClassVar[str] = "esd"
    version: ClassVar[str] = "2"
    describe: ClassVar[str] = "ESD: the network is trained to lead away from the concept (ICCV 2023)"

    iterations: int = 1000
    lr: float = 1e-5
    release: int = 2023
    train: str = "x"
    eta: float = 1.0
    start_guidance: float = 3.0
    steps: int = 50
    batch: int = 1
    phrases: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("esd", start_guidance=self.start_guidance)
        self.check_whole("steps", "batch")
        check_group(self.train)
        if self.release not in RELEASES:
            raise UserError(f"esd: release is {self.release!r}; it must be 2023 or 2025")
        if not 0 <= self.eta < float("inf"):
            raise UserError(f"esd: eta is {self.eta!r}; it must be a number of at least 0")

    def trained_in(self, pipe: Pipeline) -> Mapping[str, Tensor]:
        """The group ``train`` of the network."""
        return group(denoiser(pipe), self.train)

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """Trains, from the last checkpoint if there is one."""
        assert work is not None
        phrases = phrases_of(task, self.phrases)
        texts = encoded_texts(pipe, ["", *phrases])
        frozen = denoiser(pipe)
        student = self.student(frozen)
        parameters = group(student, self.train)
        scheduler = ddim(pipe.scheduler.config, self.steps)
        source = student if self.release == 2023 else frozen

        def loss_of(step: int) -> Tensor:
            draw = Draw.of(work.seed, step, phrases, self, scheduler, student)
            c, empty = texts[draw.phrase], texts[""]
            z = denoised(
                source, scheduler, draw.noise.to(_dtype(source)), c.to(_dtype(source)), empty.to(_dtype(source)),
                self.start_guidance, draw.remaining,
            ).float()  # fmt: skip
            eta = self.eta if self.release == 2023 else self.eta - 1
            return esd_loss(student, frozen, z, draw.timestep, c, empty, eta)

        notes = train(self, work, parameters, loss_of, Optimization())
        return Edit(trained_values("unet", parameters), {"method": self.name, "phrases": phrases, **notes})


@dataclass(frozen=True)
class Draw:
    """The random numbers of one step.

    Attributes:
        phrase: what is erased in this step.
        remaining: how many sampling steps the latents are left short of.
        timestep: [1], of the loss.
        noise: [batch, channels, height, width], where the latents start.
    """

    phrase: str
    remaining: int
    timestep: Tensor
    noise: Tensor

    @classmethod
    def of(cls, seed: int, step: int, phrases: list[str], eraser: Esd, scheduler: Any, unet: Any) -> Draw:
        """Drawn on the CPU, so that every machine draws the same.

        2023 draws 0 to ``steps`` - 1 remaining steps and a timestep from that slice of the schedule. 2025 denoises for 0
        to ``steps`` - 1 steps and takes the timestep that the sampler would take next, so 1 to ``steps`` remain.
        """
        numbers = torch.Generator().manual_seed((seed + step) % 2**63)
        steps = eraser.steps
        phrase, remaining = phrases[below(0, len(phrases), numbers)], below(0, steps, numbers)
        if eraser.release == 2023:
            total = scheduler.config.num_train_timesteps
            first, last = round(remaining / steps * total), round((remaining + 1) / steps * total)
            timestep = torch.tensor([below(first, last, numbers)])
        else:
            remaining += 1
            timestep = scheduler.timesteps[steps - remaining].reshape(1)
        return cls(phrase, remaining, timestep.to(unet.device), initial_noise(unet, eraser.batch, numbers))


def _dtype(network: Module) -> torch.dtype:
    return next(network.parameters()).dtype


def esd_loss(
    student: Module, frozen: Module, z: Tensor, timestep: Tensor, context: Tensor, empty: Tensor, eta: float
) -> Tensor:
    """ESD's loss at latents: the mean square distance to the prediction that leads away from the text.

    Args:
        z: [n, channels, height, width].
        timestep: [1].
        context, empty: [1, positions, d], the text and ``""``.
    """
    context, empty = (text.expand(len(z), -1, -1) for text in (context, empty))
    with torch.no_grad():
        kind = _dtype(frozen)
        without, with_text = (frozen(z.to(kind), timestep, text.to(kind)).sample.to(z) for text in (empty, context))
        target = without - eta * (with_text - without)
    return torch.nn.functional.mse_loss(student(z, timestep, context).sample, target)
