"""Concept Ablation: the concept's prompts come to be read as the anchor's (Kumari et al., ICCV 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import mse_loss

from erasebench.concepts import ErasureTask, with_article
from erasebench.edits.eraser import Edit, Work
from erasebench.errors import UserError
from erasebench.methods.closed_form.linear import check_positive
from erasebench.methods.trained.examples import encoded_texts, example_images
from erasebench.methods.trained.latents import encoded, noised, noising
from erasebench.methods.trained.parameters import check_group, group
from erasebench.methods.trained.resized import WORDS, Resized
from erasebench.methods.trained.training import Optimization, TrainedEraser, below, generator, train, trained_values
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import denoiser
from erasebench.prompts.templates import PEOPLE, SUBJECTS

ANCHORS = {"object": SUBJECTS, "celebrity": PEOPLE, "unsafe": PEOPLE}
"""What a concept goes to where the task names no anchor, by kind. Ours: the paper has an anchor for each concept (a cat for
Grumpy Cat), which only ``task.anchor`` can say."""

SENTENCES = ("a photo of {}", "a picture of {}", "an image of {}", "{}")
"""Around an anchor and, in its place, the concept. Ours; the release has 200 captions by a language model."""

STYLES = ("{0}, in the style of {1}", "in {1}'s style, {0}", "in {1}'s style, {0}")
"""What the release makes of the prompt of a painting and an artist's name, each as often as it stands here."""

LOSSES = ("model", "noise")


@dataclass(frozen=True, kw_only=True)
class Ablation(TrainedEraser):
    """Concept Ablation: on images of an anchor, a network learns to predict for the concept what it does for the anchor.

    A step noises images of anchor prompts. With c the prompt that has the concept in the anchor's place (or the artist's
    name added), and a the anchor's own prompt, the loss is the mean of ``(eps_theta(z, t, c) - goal)^2``, where the goal is
    ``sg eps_theta(z, t, a)`` of the same network (``loss=model``), or the noise itself (``loss=noise``). AdamW with weight
    decay 0.01, gradients clipped to norm 1. ``prior`` adds the denoising loss on anchor images with their own prompts.

    As released, the keys and values of the beginning of a text, which are the same for all texts, get no gradient
    (``detach_bos``). A style's anchor is a painting without the artist's name, whatever the task's anchor. Ours: anchors
    where the task has none (:data:`ANCHORS`), and plain anchor prompts. As released, images are resized at random, with words
    for it before both prompts ("zoomed in"), for all but styles (:class:`Resized`); the loss then counts what shows
    something. Not built: its group ``embedding``; memorised images.

    Attributes:
        loss: ``model`` or ``noise``.
        train: the parameters trained, of :data:`erasebench.methods.trained.parameters.GROUPS`: ``x-strict`` (keys and
            values) for objects and styles, ``attention`` for nudity in the release.
        prior: weight of the denoising loss; 0 is without. The release has 1 where the anchor is a word of the concept,
            and for nudity.
        detach_bos: no gradient through the keys and values of the first position.
        images: of the anchors, in all.
        image_steps, guidance: of their sampling.
        batch: images a step.
        phrases: train on all phrases of a concept, not its name alone.
        augment: resize the images at random; ``None`` is as released, for all but styles.

    Raises:
        UserError: an option out of range.
    """

    name: ClassVar[str] = "ablation"
    describe: ClassVar[str] = (
        "Concept Ablation: the concept's prompts are trained to be read as its anchor's (ICCV 2023)"
    )

    iterations: int = 200
    lr: float = 8e-6
    loss: str = "model"
    train: str = "x-strict"
    prior: float = 0.0
    detach_bos: bool = True
    images: int = 1000
    image_steps: int = 50
    guidance: float = 7.5
    batch: int = 4
    phrases: bool = True
    augment: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("ablation", guidance=self.guidance)
        self.check_whole("images", "image_steps", "batch")
        check_group(self.train)
        if self.loss not in LOSSES:
            raise UserError(f"ablation: loss is {self.loss!r}; it must be model or noise")
        if not 0 <= self.prior < float("inf"):
            raise UserError(f"ablation: prior is {self.prior!r}; it must be a number of at least 0")

    def trained_in(self, pipe: Pipeline) -> Mapping[str, Tensor]:
        """The group ``train`` of the network."""
        return group(denoiser(pipe), self.train)

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:
        """As of all trainings; and a phrase that is its own anchor is refused."""
        super().check(pipe, task)
        anchor_prompts(task, self.phrases)

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """Trains, from the last checkpoint if there is one."""
        assert work is not None
        readings = anchor_prompts(task, self.phrases)
        anchors = list(readings)
        pictures = example_images(work, anchors, self.images, self.image_steps, self.guidance)
        augment = task.kind != "artist" if self.augment is None else self.augment
        latents = None if augment else encoded(pipe, pictures)
        plain = dict.fromkeys([*anchors, *(text for one in readings.values() for text in one)])
        texts = encoded_texts(pipe, [words + text for words in (WORDS if augment else ("",)) for text in plain])
        scheduler, student = (noising(pipe.scheduler.config), self.student(denoiser(pipe)))
        if self.detach_bos:
            detach_first_position(student)

        def images(
            numbers: torch.Generator,
        ) -> tuple[list[str], list[str], tuple[Tensor, Tensor, Tensor], Tensor | None]:
            """Anchor prompts, words before them, the images of these prompts, noised, and where they show something."""
            chosen = [below(0, self.images, numbers) for _ in range(self.batch)]
            prompts = [anchors[image % len(anchors)] for image in chosen]
            if latents is not None:
                return prompts, [""] * self.batch, noised(scheduler, latents[chosen], numbers), None
            shown = [Resized.of(pictures[image], pipe.vae_scale_factor, numbers) for image in chosen]
            z = noised(scheduler, encoded(pipe, [one.image for one in shown]), numbers)
            mask = torch.stack([one.mask for one in shown])[:, None].to(z[0])
            return prompts, [one.words for one in shown], z, mask

        def rows(words: list[str], prompts: list[str]) -> Tensor:
            return torch.cat([texts[before + prompt] for before, prompt in zip(words, prompts, strict=True)])

        def loss_of(step: int) -> Tensor:
            numbers = generator(work, step)
            prompts, words, (z, timesteps, noise), mask = images(numbers)
            concepts = [readings[prompt][below(0, len(readings[prompt]), numbers)] for prompt in prompts]
            anchor = rows(words, prompts) if self.loss == "model" else None
            loss = ablation_loss(student, z, timesteps, rows(words, concepts), anchor, noise, mask)
            if self.prior:
                prompts, words, (z, timesteps, noise), mask = images(numbers)
                loss = loss + self.prior * masked_mse(student(z, timesteps, rows(words, prompts)).sample, noise, mask)
            return loss

        parameters = group(student, self.train)
        optimization = Optimization(torch.optim.AdamW, {"weight_decay": 0.01}, clip=1.0)
        notes = train(self, work, parameters, loss_of, optimization)
        return Edit(
            trained_values("unet", parameters),
            {"method": self.name, "prompts": readings, "augmented": augment, **notes},
        )


def anchor_prompts(task: ErasureTask, all_phrases: bool) -> dict[str, list[str]]:
    """Prompts of anchors, each with the prompts of concepts that are to be read like it."""
    readings: dict[str, list[str]] = {}
    for target in task.targets:
        anchors = (with_article(target.anchor),) if target.anchor else ANCHORS.get(task.kind, SUBJECTS)
        for phrase in target.phrases if all_phrases else (target.name,):
            if task.kind == "artist":
                prompts = [f"a painting of {subject}" for subject in SUBJECTS]
                pairs = [(prompt, style.format(prompt, phrase)) for prompt in prompts for style in STYLES]
            else:
                frames = [(frame, anchor) for anchor in anchors for frame in SENTENCES]
                pairs = [(frame.format(anchor), frame.format(with_article(phrase))) for frame, anchor in frames]
            if phrase.strip().casefold() == target.anchor.strip().casefold():
                raise UserError(
                    f"ablation: concept {target.name!r}: {phrase!r} is also the anchor, so there would be nothing to erase; "
                    "choose another task.anchor"
                )
            for anchor, concept in pairs:
                readings.setdefault(anchor, []).append(concept)
    return readings


def detach_first_position(unet: Module) -> None:
    """Let no gradient through the keys and values of the first position of a text, in all cross-attention."""

    def detach(module: Module, inputs: Any, output: Tensor) -> Tensor:
        return torch.cat([output[:, :1].detach(), output[:, 1:]], dim=1)

    for name, module in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            module.register_forward_hook(detach)


def ablation_loss(
    student: Module,
    z: Tensor,
    timesteps: Tensor,
    concept: Tensor,
    anchor: Tensor | None,
    noise: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """Mean square distance of the concept's prediction to the anchor's by the same network, held fixed; or to the noise.

    Args:
        z, noise: [n, channels, height, width].
        timesteps: [n].
        concept, anchor: [n, positions, d]; without an anchor it is the noise.
        mask: as :func:`masked_mse` has it.
    """
    goal = noise
    if anchor is not None:
        with torch.no_grad():
            goal = student(z, timesteps, anchor).sample
    return masked_mse(student(z, timesteps, concept).sample, goal, mask)


def masked_mse(one: Tensor, other: Tensor, mask: Tensor | None) -> Tensor:
    """Mean square distance; with a mask the mean over images of the means inside it.

    Args:
        one, other: [n, channels, height, width].
        mask: [n, 1, height, width] of 0 and 1, each with a 1; ``None`` is everywhere.
    """
    if mask is None:
        return mse_loss(one, other)
    inside = (one - other).square().mean(1, keepdim=True) * mask
    return (inside.sum([1, 2, 3]) / mask.sum([1, 2, 3])).mean()
