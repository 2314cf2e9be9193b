"""ESD: a network is trained to predict, for the concept, what leads away from it (Gandikota et al., ICCV 2023)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.nn import Module, Parameter

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Change, Edit, Eraser, Work
from erasebench.errors import UserError
from erasebench.methods.closed_form.linear import check_positive
from erasebench.methods.trained.checkpoint import Checkpoints
from erasebench.models.encode import encode_prompts
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import denoiser


@dataclass(frozen=True)
class Esd(Eraser):
    """ESD-x, as first released: all parameters of cross-attention are trained on the network's own latents.

    A step draws a phrase c of the concepts, a number k of 0 to ``steps`` - 1 and noise; the network in training denoises
    it for c, with guidance ``start_guidance``, until k of ``steps`` DDIM steps remain, which gives z; and a timestep t is
    drawn from the k-th of ``steps`` equal parts of the schedule. With the frozen network eps_0 the loss is the mean of
    ``(eps_theta(z, t, c) - (eps_0(z, t, "") - eta (eps_0(z, t, c) - eps_0(z, t, ""))))^2`` (equation 7 of the paper).
    Trained are the parameters of ``attn2``: queries, keys, values, and the layer behind them with its bias.

    It trains in float32, whatever the model's type, one latent a step, with Adam. The random numbers of a step follow
    from its number and the edit's key alone, so a training that was killed goes on as if it had not been.

    Attributes:
        iterations: steps; 1000 in the release, which takes over an hour for Stable Diffusion on a GPU.
        lr: of Adam.
        eta: how far beyond the unconditional prediction to go, 0 or more (``negative_guidance`` of the release). 1 for
            artists in the paper; the release of 2025 counts it from another point, so that its 2 is this 1.
        start_guidance: of the latents that are trained on; 1 is none.
        steps: of their sampling.
        phrases: train on all phrases of a concept, not its name alone.
        seed: another one gives another training.

    Raises:
        UserError: an option out of range.
    """

    name: ClassVar[str] = "esd"
    describe: ClassVar[str] = "ESD-x: cross-attention is trained to lead away from the concept (ICCV 2023)"
    trains: ClassVar[bool] = True
    unsupported: ClassVar[Mapping[str, str]] = {
        "sdxl": "its training gives the network no pooled text and no sizes, which this UNet also takes",
        **dict.fromkeys(("sd3", "flux"), "it trains the cross-attention of a UNet, which this transformer lacks"),
    }

    iterations: int = 1000
    lr: float = 1e-5
    eta: float = 1.0
    start_guidance: float = 3.0
    steps: int = 50
    phrases: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive("esd", lr=self.lr, start_guidance=self.start_guidance)
        for option in ("iterations", "steps"):
            value = getattr(self, option)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"esd: {option} is {value!r}; it must be a whole number of at least 1")
        if not 0 <= self.eta < float("inf"):
            raise UserError(f"esd: eta is {self.eta!r}; it must be a number of at least 0")

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """Trains, from the last checkpoint if there is one."""
        assert work is not None
        phrases = [phrase for target in task.targets for phrase in (target.phrases if self.phrases else (target.name,))]
        texts = {
            text: rows.float()
            for text, rows in zip(["", *phrases], encode_prompts(pipe, ["", *phrases])[0], strict=True)
        }
        frozen = denoiser(pipe)
        student = copy.deepcopy(frozen).float()
        student.requires_grad_(False)
        parameters = cross_attention(student)
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        optimizer = torch.optim.Adam(parameters.values(), lr=self.lr)
        checkpoints = Checkpoints(work.folder, parameters, optimizer, self.iterations)
        losses = checkpoints.resume()
        scheduler = ddim(pipe.scheduler.config, self.steps)
        for step in range(len(losses), self.iterations):
            draw = Draw.of(work.seed, step, phrases, self.steps, scheduler, student)
            context = texts[draw.phrase][None]
            z = denoised(student, scheduler, draw.noise, context, texts[""][None], self.start_guidance, draw.remaining)
            loss = esd_loss(student, frozen, z, draw.timestep, context, texts[""][None], self.eta)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            checkpoints.save(losses)
            work.advance(step + 1, self.iterations)
        changes = {f"unet.{name}": Change(value=p.detach().cpu().clone()) for name, p in parameters.items()}
        return Edit(
            changes, {"method": self.name, "phrases": phrases, "loss": {"first": losses[0], "last": losses[-1]}}
        )


def cross_attention(unet: Module) -> dict[str, Parameter]:
    """What ESD-x trains: every parameter whose name has ``attn2`` in it."""
    return {name: parameter for name, parameter in unet.named_parameters() if "attn2" in name}


def ddim(config: Mapping[str, Any], steps: int) -> Any:
    """The DDIM sampler of a model, without noise of its own, set to a number of steps."""
    scheduler = DDIMScheduler.from_config(config, clip_sample=False)
    scheduler.set_timesteps(steps)
    return scheduler


@dataclass(frozen=True)
class Draw:
    """The random numbers of one step.

    Attributes:
        phrase: what is erased in this step.
        remaining: how many sampling steps the latent is left short of.
        timestep: [1], of the loss.
        noise: [1, channels, height, width], where the latent starts.
    """

    phrase: str
    remaining: int
    timestep: Tensor
    noise: Tensor

    @classmethod
    def of(cls, seed: int, step: int, phrases: list[str], steps: int, scheduler: Any, unet: Any) -> Draw:
        """Drawn on the CPU, so that every machine draws the same."""
        generator = torch.Generator().manual_seed((seed + step) % 2**63)

        def below(low: int, high: int) -> int:
            return int(torch.randint(low, high, (1,), generator=generator))

        phrase, remaining = phrases[below(0, len(phrases))], below(0, steps)
        total = scheduler.config.num_train_timesteps
        first, last = round(remaining / steps * total), round((remaining + 1) / steps * total)
        timestep = torch.tensor([below(first, max(first + 1, last))], device=unet.device)
        size = unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        noise = torch.randn((1, unet.config.in_channels, height, width), generator=generator)
        return cls(phrase, remaining, timestep, noise.to(unet.device))


@torch.no_grad()
def denoised(
    unet: Module, scheduler: Any, latents: Tensor, context: Tensor, empty: Tensor, guidance: float, remaining: int
) -> Tensor:
    """Latents denoised for a text until so many steps of the scheduler remain.

    Args:
        latents: [1, channels, height, width], noise.
        context, empty: [1, positions, d], the text and ``""``.
    """
    both = torch.cat([empty, context])
    for timestep in scheduler.timesteps[: len(scheduler.timesteps) - remaining]:
        without, with_text = unet(torch.cat([latents] * 2), timestep, both).sample.chunk(2)
        noise = without + guidance * (with_text - without)
        latents = scheduler.step(noise, timestep, latents).prev_sample
    return latents


def esd_loss(
    student: Module, frozen: Module, z: Tensor, timestep: Tensor, context: Tensor, empty: Tensor, eta: float
) -> Tensor:
    """ESD's loss at a latent: the mean square distance to the prediction that leads away from the text.

    Args:
        z: [1, channels, height, width].
        timestep: [1].
        context, empty: [1, positions, d], the text and ``""``.
    """
    with torch.no_grad():
        kind = next(frozen.parameters()).dtype
        without, with_text = (frozen(z.to(kind), timestep, text.to(kind)).sample.to(z) for text in (empty, context))
        target = without - eta * (with_text - without)
    return torch.nn.functional.mse_loss(student(z, timestep, context).sample, target)
