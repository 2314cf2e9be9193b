"""Few-shot unlearning: the text encoder is trained to make the network fail on a few images (Fuchi and Takagi, BMVC 2024)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.functional import mse_loss

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Edit, Work
from erasebench.errors import UserError
from erasebench.methods.closed_form.linear import check_positive
from erasebench.methods.trained.examples import example_latents, phrases_of
from erasebench.methods.trained.latents import noised, noising
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

CHOICES = ("mlp+last", "all")

OBJECTS = (
    *(
        f"a photo of {words} {{}}"
        for words in ("a", "the", "one", "my", "the weird", "the large", "a clean", "a dirty")
    ),
    *(f"a photo of {which} {how} {{}}" for how in ("nice", "cool", "small") for which in ("a", "the")),
    *("a photo of the clean {}", "the photo of a {}"),
    *(f"a {how} photo of {which} {{}}" for how in ("cropped", "close-up", "good") for which in ("a", "the")),
    *(f"a {how} photo of the {{}}" for how in ("dark", "bright")),
    *(f"a {words} {{}}" for words in ("rendering of a", "rendition of a", "rendition of the")),
)
"""The 27 captions of textual inversion (Gal et al., ICLR 2023) that the release takes."""

STYLES = tuple(
    f"{words} in the style of {{}}"
    for words in (
        *(f"a {made}" for made in ("painting", "rendering", "picture", "rendition")),
        "the painting",
        *(f"a {how} painting" for how in ("cropped", "clean", "dirty", "dark", "cool", "bright", "good", "nice")),
        *(f"a {how} painting" for how in ("close-up", "small", "weird", "large", "cropped", "close-up")),
    )
)
"""Of a style, 19; two of them come twice, as in the release."""


@dataclass(frozen=True, kw_only=True)
class FewShot(TrainedEraser):
    """Gradient ascent on the usual loss of a few images of the concept, in the text encoder alone.

    A step noises images of the concept, each with a caption that names it, and the loss is ``-mse(eps(z, t, c), noise)``,
    with c read by the text encoder in training and the network frozen. Adam with betas 0.9 and 0.98, eps 1e-6 and weight
    decay 1e-8.

    Ascent has no floor: nothing but the number of steps ends it, and what is not the concept goes with it if there are
    too many. An edit's notes say how far the weights went (``distance``, relative to their own norm). The paper stops by
    epoch or by a CLIP score; here it is by steps. The release means to train ``mlp+last`` and, by a misspelt attribute,
    trains the whole text encoder (``train=all``). Its images are a folder's; here the unedited model makes them. Not
    built: its option to train on uniform noise in the place of images.

    Attributes:
        train: ``mlp+last``: the MLPs of all layers and the last layer's self-attention; ``all``: the text encoder.
        images: of each phrase.
        image_steps, guidance: of their sampling.
        batch: images a step.
        phrases: train on all phrases of a concept, not its name alone.

    Raises:
        UserError: an option out of range.
    """

    name: ClassVar[str] = "few_shot"
    describe: ClassVar[str] = "few-shot unlearning: the text encoder is trained to fail on a few images (BMVC 2024)"

    iterations: int = 10
    lr: float = 1e-5
    train: str = "mlp+last"
    images: int = 4
    image_steps: int = 50
    guidance: float = 7.5
    batch: int = 2
    phrases: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("few_shot", guidance=self.guidance)
        self.check_whole("images", "image_steps", "batch")
        if self.train not in CHOICES:
            raise UserError(f"few_shot: train is {self.train!r}; it must be mlp+last or all")

    def copied(self, pipe: Pipeline) -> list[Module]:
        """The network, and the text encoder."""
        return [denoiser(pipe), pipe.text_encoder]

    def trained_in(self, pipe: Pipeline) -> Mapping[str, Tensor]:
        """The group ``train`` of the text encoder."""
        return chosen(pipe.text_encoder, self.train)

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """Trains, from the last checkpoint if there is one."""
        assert work is not None
        phrases, captions = phrases_of(task, self.phrases), STYLES if task.kind == "artist" else OBJECTS
        count = self.images * len(phrases)
        prompts = [captions[0].format(phrase) for phrase in phrases]
        latents = example_latents(pipe, work, prompts, count, self.image_steps, self.guidance)
        scheduler, network = noising(pipe.scheduler.config), self.student(denoiser(pipe))
        encoder: Any = copy.deepcopy(pipe.text_encoder).float().requires_grad_(False)
        parameters = chosen(encoder, self.train)
        start = {name: parameter.detach().clone() for name, parameter in parameters.items()}

        def loss_of(step: int) -> Tensor:
            numbers = generator(work, step)
            images = [below(0, count, numbers) for _ in range(self.batch)]
            texts = [captions[below(0, len(captions), numbers)].format(phrases[i % len(phrases)]) for i in images]
            z, timesteps, noise = noised(scheduler, latents[images], numbers)
            return ascent_loss(network, z, timesteps, read(pipe.tokenizer, encoder, texts), noise)

        options = {"betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 1e-8}
        notes = train(self, work, parameters, loss_of, Optimization(torch.optim.Adam, options))
        away = sum((parameters[name].detach() - before).square().sum() for name, before in start.items())
        size = sum(before.square().sum() for before in start.values())
        return Edit(
            trained_values("text_encoder", parameters),
            {"method": self.name, "phrases": phrases, "distance": float(away / size) ** 0.5, **notes},
        )


def chosen(encoder: Module, choice: str) -> dict[str, Parameter]:
    """The parameters of a CLIP text encoder that are trained, by name."""
    last = max(
        int(name.partition("layers.")[2].partition(".")[0])
        for name, _ in encoder.named_parameters()
        if "layers." in name
    )
    parts = (".mlp.fc1.", ".mlp.fc2.", f"layers.{last}.self_attn.")
    return {
        name: parameter
        for name, parameter in encoder.named_parameters()
        if choice == "all" or any(part in name for part in parts)
    }


def read(tokenizer: Any, encoder: Module, texts: list[str]) -> Tensor:
    """Texts as Stable Diffusion 1.x and 2.x read them, with gradients: [n, positions, d]."""
    ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return encoder(ids.to(next(encoder.parameters()).device))[0]


def ascent_loss(network: Module, z: Tensor, timesteps: Tensor, context: Tensor, goal: Tensor) -> Tensor:
    """Minus the mean square error of a prediction.

    Args:
        z, goal: [n, channels, height, width].
        timesteps: [n].
        context: [n, positions, d].
    """
    return -mse_loss(network(z, timesteps, context).sample, goal)
