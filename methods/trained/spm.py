"""SPM, trained (Lyu et al., CVPR 2024): an adapter of rank one a concept at every layer of the transformer blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import Transformer2DModel
from torch import Tensor
from torch.nn import Conv2d, Linear, Module

from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.eraser import Edit, Hook, Work
from erasebench.errors import UserError
from erasebench.methods.adapters.beside import beside
from erasebench.methods.adapters.spm import Membrane
from erasebench.methods.closed_form.linear import check_positive
from erasebench.methods.trained.latents import ddim, denoised, initial_noise
from erasebench.methods.trained.low_rank import additions, layers_in, new_adapters
from erasebench.methods.trained.training import Optimization, TrainedEraser, below, generator, own_work, totals, train
from erasebench.models.encode import encode_prompts
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import denoiser


@dataclass(frozen=True, kw_only=True)
class Spm(TrainedEraser):
    """SPM's adapters, one training a concept, with its gates for each prompt (:class:`Membrane`).

    A step draws k of 1 to ``steps`` - 1 DDIM steps; the network with its adapters denoises noise for the concept c, with
    guidance ``start_guidance``, for k of them, which gives z at timestep t. With the network without adapters eps_0 the
    loss is the mean of ``(eps(z, t, c) - (eps_0(z, t, "") - eta (eps_0(z, t, c) - eps_0(z, t, ""))))^2``, and
    ``anchoring`` times the mean of ``(eps(z, t, a) - eps_0(z, t, a))^2`` over ``anchors`` embeddings a: normal numbers, of
    0.8 to 1.2 times the length of c, taken with probability ``1 - cos(a, c)``.

    The rate rises over the first ``warmup`` of the steps and falls to 0 in ``cycles`` cosines.

    Ours: AdamW in 32 bits, where the release has it in 8; a step draws one of the concept's phrases. (For unsafe content
    the paper has eta 3, anchoring 100, gates times 2 and 15000 steps; for artists gates times 2.)

    The release does three things that the paper does not say, followed with ``as_released`` alone: z has a height and a
    width of 4, 5, 6 or 7 eighths of the network's own, drawn in every step (``dynamic_resolution``); the gate multiplies
    both factors of an adapter, and so counts squared; the factors of several concepts are summed before they are multiplied.

    Attributes:
        eta: how far beyond the unconditional prediction to go, 0 or more.
        anchoring: weight of staying as it was elsewhere.
        anchors: embeddings a step.
        steps: of the sampling that latents come from.
        start_guidance: of this sampling; 1 is none.
        warmup: the share of the steps in which the rate rises.
        cycles: of the rate.
        gate_scale: a factor of every gate when images are made (gamma), above 0.
        phrases: train on all phrases of a concept, not its name alone. The gates know all phrases.
        as_released: with the three things above.

    Raises:
        UserError: an option out of range.
    """

    name: ClassVar[str] = "spm"
    version: ClassVar[str] = "2"
    describe: ClassVar[str] = "SPM: trained rank-one adapters with a gate for each prompt (CVPR 2024)"

    iterations: int = 3000
    lr: float = 1e-4
    eta: float = 1.0
    anchoring: float = 1000.0
    anchors: int = 4
    steps: int = 30
    start_guidance: float = 3.0
    warmup: float = 0.16667
    cycles: int = 3
    gate_scale: float = 1.0
    phrases: bool = True
    as_released: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.name, start_guidance=self.start_guidance, gate_scale=self.gate_scale)
        self.check_whole("anchors", "steps", "cycles")
        if self.steps < 2:
            raise UserError("spm: steps is 1; latents need at least 2 sampling steps")
        for option in ("eta", "anchoring"):
            if not 0 <= getattr(self, option) < math.inf:
                raise UserError(f"spm: {option} is {getattr(self, option)!r}; it must be a number of at least 0")
        if not 0 <= self.warmup < 1:
            raise UserError(
                f"spm: warmup is {self.warmup!r}; it must be a share of the steps, of at least 0 and below 1"
            )

    def acts(self) -> tuple[type[Hook], ...]:
        """The adapters."""
        return (Membrane,)

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """Trains the adapters of one concept after another, each from its last checkpoint if there is one."""
        assert work is not None
        network = self.student(denoiser(pipe))
        parts: list[dict[str, Tensor]] = []
        trained = {}
        for number, target in enumerate(task.targets):
            part, trained[target.name] = self.adapters(pipe, network, target, own_work(work, number, len(task.targets)))
            parts.append(part)
        tensors = {
            f"{kind}.unet.{layer}.weight": torch.cat([part[f"{kind}.{layer}"] for part in parts])
            for layer in layers_in(parts[0])
            for kind in ("down", "up")
        }
        gates: dict[str, Any] = {"phrases": [list(target.phrases) for target in task.targets]}
        gates |= {"scale": self.gate_scale} if self.gate_scale != 1 else {}
        gates |= {"mixed": True} if self.as_released else {}
        notes = {"method": self.name, **totals(trained), "adapters": trained}
        return Edit({}, notes, (Membrane(gates, tensors),))

    def adapters(
        self, pipe: Pipeline, network: Any, target: Concept, work: Work
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The adapters of one concept on the CPU, by name as :func:`new_adapters` has them, and notes of the training."""
        texts = ["", *(target.phrases if self.phrases else (target.name,))]
        empty, *contexts = encode_prompts(pipe, texts)[0].float()[:, None]
        scheduler = ddim(pipe.scheduler.config, self.steps)
        total = scheduler.config.num_train_timesteps
        parameters = new_adapters(network, layers_of(network), generator(work, self.draws))

        def loss_of(step: int) -> Tensor:
            numbers = generator(work, step)
            context, taken = contexts[below(0, len(contexts), numbers)], below(1, self.steps, numbers)
            noise, drawn = initial_noise(network, 1, numbers), anchors_of(context, self.anchors, numbers)
            noise = cut_at_random(noise, numbers) if self.as_released else noise
            z = denoised(network, scheduler, noise, context, empty, self.start_guidance, self.steps - taken)
            timestep = torch.tensor([total - 1 - taken * total // self.steps], device=z.device)
            with torch.no_grad(), without():
                aims = aim(network, z, timestep, context, empty, self.eta), predicted(network, z, timestep, drawn)
            erase, keep = (
                torch.nn.functional.mse_loss(predicted(network, z, timestep, texts), goal)
                for texts, goal in zip((context, drawn), aims, strict=True)
            )
            return erase + self.anchoring * keep

        optimization = Optimization(torch.optim.AdamW, {"weight_decay": 0.01}, rate=self.rate)
        with beside(network, additions(parameters)) as without:
            notes = train(self, work, parameters, loss_of, optimization)
        return {name: parameter.detach().cpu().clone() for name, parameter in parameters.items()}, notes

    def rate(self, step: int) -> float:
        """The factor of the rate at a step: a rise, then cosines that begin anew (``cosine_with_restarts``)."""
        rise = round(self.warmup * self.iterations)
        if step < rise:
            return step / rise
        through = (step - rise) / max(1, self.iterations - rise)
        return 0.5 * (1 + math.cos(math.pi * (self.cycles * through % 1)))


def layers_of(network: Module) -> list[str]:
    """The linear layers and convolutions inside the transformer blocks of a UNet."""
    blocks = [name for name, module in network.named_modules() if isinstance(module, Transformer2DModel)]
    return [
        f"{block}.{name}"
        for block in blocks
        for name, module in network.get_submodule(block).named_modules()
        if isinstance(module, Linear | Conv2d)
    ]


def cut_at_random(noise: Tensor, numbers: torch.Generator) -> Tensor:
    """A corner of noise [1, channels, height, width], each side of it 4, 5, 6 or 7 eighths long."""
    height, width = (side * below(4, 8, numbers) // 8 for side in noise.shape[-2:])
    return noise[:, :, :height, :width]


def anchors_of(context: Tensor, count: int, numbers: torch.Generator) -> Tensor:
    """Embeddings [count, positions, d] of other things than a text's [1, positions, d]."""
    taken: list[Tensor] = []
    while len(taken) < count:
        direction = torch.randn(context.shape, generator=numbers).to(context)
        cosine = torch.cosine_similarity(direction.flatten(), context.flatten(), dim=0)
        if torch.rand((), generator=numbers) < 1 - cosine.cpu():
            length = 0.8 + 0.4 * torch.rand((), generator=numbers).item()
            taken.append(length * context.norm() * direction / direction.norm())
    return torch.cat(taken)


def predicted(network: Module, z: Tensor, timestep: Tensor, texts: Tensor) -> Tensor:
    """What a network predicts for one latent and each of n texts: [n, channels, height, width]."""
    prediction: Tensor = network(z.expand(len(texts), -1, -1, -1), timestep, texts).sample
    return prediction


def aim(network: Module, z: Tensor, timestep: Tensor, context: Tensor, empty: Tensor, eta: float) -> Tensor:
    """What leads away from a text, by the network as it was: ``eps("") - eta (eps(c) - eps(""))``."""
    without, with_text = predicted(network, z, timestep, torch.cat([empty, context])).chunk(2)
    return without - eta * (with_text - without)
