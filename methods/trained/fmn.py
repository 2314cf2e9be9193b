"""Forget-Me-Not: cross-attention learns to look away from the concept's words (Zhang et al., 2023, arXiv 2303.17591)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import Parameter

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Edit, Work
from erasebench.errors import UserError
from erasebench.methods.closed_form.linear import check_positive
from erasebench.methods.trained.attention import recorded_attention
from erasebench.methods.trained.examples import encoded_texts, example_latents, phrases_of, token_columns
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

SENTENCES = {"artist": "a photo in the style of {}"}
"""By kind, around the concept, as released; all other kinds stand in ``a photo of {}``."""


@dataclass(frozen=True, kw_only=True)
class ForgetMeNot(TrainedEraser):
    """Attention re-steering: the attention that the concept's tokens get on images of the concept is made small.

    A step noises an image of the concept, evaluates the network on it with the sentence that the concept stands in, and
    takes as loss the Frobenius norm of the probabilities, over all cross-attention layers, heads and pixels, in the
    columns of the concept's tokens. AdamW with weight decay 0.01, gradients clipped to norm 1. Parameters behind the last
    layer's probabilities, which the loss cannot see, stay as they are.

    The release takes some ten photos of the concept from a folder; here the unedited model makes them. Its other step,
    which comes first and is optional, textual inversion of four new tokens in the concept's place, is not built: the
    concept's own words are what is re-steered.

    Attributes:
        train: the parameters trained, of :data:`erasebench.methods.trained.parameters.GROUPS`: ``full`` as released, ``x``
            with its ``only_optimize_ca``.
        pooled: the end-of-text columns, too (``use_pooler``).
        images: of each phrase.
        image_steps, guidance: of their sampling.
        phrases: train on all phrases of a concept, not its name alone.

    Raises:
        UserError: an option out of range.
    """

    name: ClassVar[str] = "fmn"
    describe: ClassVar[str] = "Forget-Me-Not: cross-attention is trained to look away from the concept's words"

    iterations: int = 35
    lr: float = 2e-6
    train: str = "full"
    pooled: bool = True
    images: int = 10
    image_steps: int = 50
    guidance: float = 7.5
    phrases: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("fmn", guidance=self.guidance)
        self.check_whole("images", "image_steps")
        check_group(self.train)
        if self.save_memory:
            raise UserError(
                "fmn: save_memory=true evaluates the network twice, and the attention that it trains would be that of "
                "the pass without gradients; leave it false"
            )

    def trained_in(self, pipe: Pipeline) -> Mapping[str, Tensor]:
        """The group ``train`` of the network."""
        return group(denoiser(pipe), self.train)

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:
        """As of all trainings; and a phrase is refused whose tokens cannot be told from the sentence's."""
        super().check(pipe, task)
        self.columns(pipe, task)

    def columns(self, pipe: Pipeline, task: ErasureTask) -> dict[str, Tensor]:
        """The sentence of each phrase, and the positions in it that are to be looked away from."""
        frame = SENTENCES.get(task.kind, "a photo of {}")
        return {
            frame.format(phrase): token_columns(pipe, frame, phrase, self.pooled)
            for phrase in phrases_of(task, self.phrases)
        }

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """Trains, from the last checkpoint if there is one."""
        assert work is not None
        columns = self.columns(pipe, task)
        sentences = list(columns)
        count = self.images * len(sentences)
        latents = example_latents(pipe, work, sentences, count, self.image_steps, self.guidance)
        texts, scheduler = encoded_texts(pipe, sentences), noising(pipe.scheduler.config)
        student = self.student(denoiser(pipe))

        def loss_of(step: int) -> Tensor:
            numbers = generator(work, step)
            image = below(0, count, numbers)
            sentence = sentences[image % len(sentences)]
            z, timesteps, _ = noised(scheduler, latents[image : image + 1], numbers)
            with recorded_attention(student) as maps:
                student(z, timesteps, texts[sentence])
                return attention_loss(maps, columns[sentence])

        parameters = reached(group(student, self.train), lambda: loss_of(0))
        optimization = Optimization(torch.optim.AdamW, {"weight_decay": 0.01}, clip=1.0)
        notes = train(self, work, parameters, loss_of, optimization)
        return Edit(
            trained_values("unet", parameters),
            {
                "method": self.name,
                "sentences": sentences,
                "columns": [own.tolist() for own in columns.values()],
                **notes,
            },
        )


def attention_loss(maps: Mapping[str, Tensor], columns: Tensor) -> Tensor:
    """The Frobenius norm of attention probabilities in some columns, over all layers.

    Args:
        maps: [heads, pixels, positions] by layer.
        columns: positions.
    """
    return torch.cat([probabilities[..., columns].flatten() for probabilities in maps.values()]).norm()


def reached(parameters: Mapping[str, Parameter], loss_of: Callable[[], Tensor]) -> dict[str, Parameter]:
    """The parameters that a loss depends on."""
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    gradients = torch.autograd.grad(loss_of(), list(parameters.values()), allow_unused=True)
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    pairs = zip(parameters.items(), gradients, strict=True)
    return {name: parameter for (name, parameter), gradient in pairs if gradient is not None}
