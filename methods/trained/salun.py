"""SalUn: only the weights that the concept's gradient is largest in are trained (Fan et al., ICLR 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import mse_loss

from erasebench.concepts import ErasureTask, with_article
from erasebench.edits.eraser import Edit, Work
from erasebench.errors import UserError
from erasebench.methods.closed_form.linear import check_positive
from erasebench.methods.trained.examples import encoded_texts, example_latents
from erasebench.methods.trained.latents import noised, noising
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
class SalUn(TrainedEraser):
    """Saliency unlearning: on images of the concept, its prompt learns the prediction of another prompt.

    First the mask: over all images of the concept, the gradients of ``-mse(noise, (1 + g) eps(z, t, c) - g eps(z, t, ""))``
    are added up, and the ``share`` of the network's weights whose sum is largest in size may change. Then steps of Adam
    on ``mse(eps(z, t, c), sg eps(z, t, c')) + alpha mse(eps(z', t', r), noise')``, with gradients times the mask, so that
    all other weights stay as they are, bit for bit. z are noised images of the concept c; c' is another prompt, and both
    predictions are of the same network; z' are noised images of what is to stay, with their prompts r.

    c' is the task's anchor; without one, ours, the first text of its retain list (the release takes the next class). What
    is to stay is the retain list and the anchor. The release has Imagenette's photos, or 800 images of nudity that the model
    made; here the unedited model makes all images. An early state of the released script for the mask sorted the wrong
    way and let the *smallest* gradients change; later ones, and this, do not.

    Attributes:
        train: the parameters trained, of :data:`erasebench.methods.trained.parameters.GROUPS`, as far as the mask lets them.
        share: of the whole network's weights that may change, above 0 and at most 1; 1 is no mask.
        mask_guidance: g above.
        alpha: weight of what is to stay.
        images: of each concept, and as many of what is to stay.
        image_steps, guidance: of their sampling.
        batch: images a step, of the concept and of what is to stay.

    Raises:
        UserError: an option out of range; the task has neither an anchor nor texts to retain.
    """

    name: ClassVar[str] = "salun"
    describe: ClassVar[str] = (
        "SalUn: the weights that matter most to the concept are trained on another prompt (ICLR 2024)"
    )

    iterations: int = 500
    lr: float = 1e-5
    train: str = "full"
    share: float = 0.5
    mask_guidance: float = 7.5
    alpha: float = 0.5
    images: int = 800
    image_steps: int = 50
    guidance: float = 7.5
    batch: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("salun", guidance=self.guidance)
        self.check_whole("images", "image_steps", "batch")
        check_group(self.train)
        if not 0 < self.share <= 1:
            raise UserError(f"salun: share is {self.share!r}; it must be above 0 and at most 1")
        for option in ("alpha", "mask_guidance"):
            if not 0 <= getattr(self, option) < float("inf"):
                raise UserError(f"salun: {option} is {getattr(self, option)!r}; it must be a number of at least 0")

    def trained_in(self, pipe: Pipeline) -> Mapping[str, Tensor]:
        """The group ``train`` of the network."""
        return group(denoiser(pipe), self.train)

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:
        """As of all trainings; and a task with neither an anchor nor texts to retain is refused."""
        super().check(pipe, task)
        prompts_of(task)

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """The mask, then the training, from its last checkpoint if there is one."""
        assert work is not None
        others, stays = prompts_of(task)
        concepts, count = list(others), self.images * len(others)
        texts = encoded_texts(pipe, list(dict.fromkeys(["", *concepts, *others.values(), *stays])))
        sampling = (self.image_steps, self.guidance)
        forget = example_latents(pipe, work, concepts, count, *sampling)
        stay = example_latents(pipe, work, stays, count, *sampling)
        scheduler, student = noising(pipe.scheduler.config), self.student(denoiser(pipe))

        def rows(prompts: Iterable[str]) -> Tensor:
            return torch.cat([texts[prompt] for prompt in prompts])

        def saliency_batches() -> Iterable[tuple[Tensor, ...]]:
            for start in range(0, count, self.batch):
                images = range(start, min(start + self.batch, count))
                numbers = generator(work, self.draws + start)  # not those of a draw of the training
                z, timesteps, noise = noised(scheduler, forget[list(images)], numbers)
                shown = rows(concepts[image % len(concepts)] for image in images)
                yield z, timesteps, noise, shown, texts[""].expand(len(z), -1, -1)

        mask = largest(saliency(student, saliency_batches(), self.mask_guidance), self.share)
        parameters = {name: p for name, p in group(student, self.train).items() if mask[name].any()}
        for name, parameter in parameters.items():
            parameter.requires_grad_(True).register_hook(lambda gradient, part=mask[name]: gradient * part)

        def loss_of(step: int) -> Tensor:
            numbers = generator(work, step)
            images, kept = ([below(0, count, numbers) for _ in range(self.batch)] for _ in range(2))
            shown = [concepts[image % len(concepts)] for image in images]
            z, timesteps, _ = noised(scheduler, forget[images], numbers)
            loss = forget_loss(student, z, timesteps, rows(shown), rows(others[prompt] for prompt in shown))
            z, timesteps, noise = noised(scheduler, stay[kept], numbers)
            predicted = student(z, timesteps, rows(stays[image % len(stays)] for image in kept)).sample
            return loss + self.alpha * mse_loss(predicted, noise)

        notes = train(self, work, parameters, loss_of, Optimization())
        free = sum(int(mask[name].sum()) for name in parameters)
        return Edit(
            trained_values("unet", parameters),
            {"method": self.name, "prompts": others, "stays": stays, "free_weights": free, **notes},
        )


def prompts_of(task: ErasureTask) -> tuple[dict[str, str], list[str]]:
    """The prompt of each concept with the one whose prediction it is to get, and the prompts of what is to stay.

    Raises:
        UserError: the task has neither an anchor nor texts to retain.
    """
    frame = "a painting in the style of {}" if task.kind == "artist" else "a photo of {}"

    def shown(text: str) -> str:
        return frame.format(text if task.kind in ("artist", "celebrity") else with_article(text))

    retained = [shown(text) for text in task.retain if text]
    others = {}
    for target in task.targets:
        # A style's anchor (art) is what is painted in no artist's style.
        anchor = target.anchor if task.kind == "artist" else target.anchor and shown(target.anchor)
        if not (anchor or retained):
            raise UserError(
                f"salun: concept {target.name!r} has no anchor and the task nothing to retain, so there is no other prompt "
                "to go to; set task.anchor or task.retain"
            )
        others[shown(target.name)] = anchor or retained[0]
    return others, retained or list(dict.fromkeys(others.values()))


def saliency(network: Module, batches: Iterable[tuple[Tensor, ...]], guidance: float) -> dict[str, Tensor]:
    """Sums over batches of the gradients of ``-mse(noise, (1 + g) eps(z, t, c) - g eps(z, t, ""))``, on the CPU.

    Args:
        network: whose every parameter gets one; afterwards none requires gradients.
        batches: z, t, noise, c and ``""`` of each.
        guidance: g.
    """
    parameters = dict(network.requires_grad_(True).named_parameters())
    sums = {name: torch.zeros(parameter.shape, dtype=parameter.dtype) for name, parameter in parameters.items()}
    for z, timesteps, noise, concept, empty in batches:
        with_text, without = (network(z, timesteps, text).sample for text in (concept, empty))
        loss = -mse_loss((1 + guidance) * with_text - guidance * without, noise)
        for name, gradient in zip(sums, torch.autograd.grad(loss, list(parameters.values())), strict=True):
            sums[name] += gradient.cpu()
    network.requires_grad_(False)
    return sums


def largest(gradients: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Where the share of all numbers lies that is largest in size: a tensor of truth for each.

    Args:
        gradients: float32.
        share: of all their numbers; at least one is taken, and all that are as large as the least that is.
    """
    count = max(1, int(sum(gradient.numel() for gradient in gradients.values()) * share))
    # Sorting the numbers of a whole network takes four times their memory. Sizes have the order of their bits, so the
    # largest bound that count numbers reach is found bit by bit.
    bound = 0
    for bit in reversed(range(31)):
        higher = bound | 1 << bit
        if sum(int((_bits(gradient) >= higher).sum()) for gradient in gradients.values()) >= count:
            bound = higher
    return {name: _bits(gradient) >= bound for name, gradient in gradients.items()}


def _bits(gradient: Tensor) -> Tensor:
    """The bits of the sizes of float32 numbers, as whole numbers."""
    return gradient.abs().view(torch.int32)


def forget_loss(student: Module, z: Tensor, timesteps: Tensor, concept: Tensor, other: Tensor) -> Tensor:
    """Mean square distance of the concept's prediction to another prompt's by the same network, held fixed.

    Args:
        z: [n, channels, height, width], noised images of the concept.
        timesteps: [n].
        concept, other: [n, positions, d].
    """
    with torch.no_grad():
        goal = student(z, timesteps, other).sample
    return mse_loss(student(z, timesteps, concept).sample, goal)
