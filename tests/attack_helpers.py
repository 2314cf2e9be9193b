"""What tests of attacks share: a recipe, a concept, and images in place of the unedited model's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from erasebench.concepts import Concept
from erasebench.edits.attack import Attack, Tools
from erasebench.edits.found import Found
from erasebench.recipe import Recipe

CHURCH = Concept("church", "object")


def recipe(prompt: str = "a photo of a church", **changes) -> Recipe:
    """An image of a small random pipeline, 16 pixels wide."""
    values = {
        "model": "small",
        "revision": "random",
        "edit": "",
        "prompt": prompt,
        "negative_prompt": "",
        "seed": 1,
        "steps": 2,
        "guidance": 4.0,
        "width": 16,
        "height": 16,
        "scheduler": "DDIMScheduler",
        "scheduler_config": "{}",
        "dtype": "float32",
    }
    return Recipe(**(values | changes))


def made_images(recipes: Sequence[Recipe], size: int = 16) -> list[Image.Image]:
    """A random image for each recipe, by its seed."""
    return [
        Image.fromarray(np.random.default_rng(one.seed).integers(0, 255, (size, size, 3), dtype=np.uint8))
        for one in recipes
    ]


class Drawn:
    """Tools of a judged search, without a model to draw: the judge sees the concept from a certain image on.

    Attributes:
        tools: for :meth:`erasebench.edits.attack.Attack.find`.
        tried: the finds whose images were drawn, in order.
        steps: that were reported.
    """

    def __init__(self, attack: Attack, asked: Recipe, seen_at: int | None, **more) -> None:
        self.tried: list[Found] = []
        self.steps: list[int] = []
        self._seen_at = seen_at
        self.tools = Tools(
            advance=self.steps.append,
            targets=made_images(attack.targets([CHURCH], asked)),
            draw=self._draw,
            sees=self._sees,
            **more,
        )

    def _draw(self, results: Sequence[Found]) -> list[Image.Image]:
        self.tried += results
        return made_images([recipe() for _ in results])

    def _sees(self, images: Sequence[Image.Image]) -> list[bool]:
        first = len(self.tried) - len(images) + 1
        return [self._seen_at is not None and number >= self._seen_at for number in range(first, len(self.tried) + 1)]


def alphas_cumprod() -> torch.Tensor:
    """The schedule of the small pipelines, by hand: float64 [1000]."""
    return torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)


def read_literally(encoder, ids: torch.Tensor, words: torch.Tensor, place: int) -> torch.Tensor:
    """What a text encoder makes of ids [1, positions] in which words [k, d] stand from a place on: as tokens of their own."""
    (name,) = (name for name, _ in encoder.named_parameters() if name.endswith("token_embedding.weight"))
    vocabulary = encoder.get_input_embeddings().weight.detach()
    ids = ids.clone()
    ids[0, place : place + len(words)] = torch.arange(len(vocabulary), len(vocabulary) + len(words))
    longer = {name: torch.cat([vocabulary, words])}
    return torch.func.functional_call(encoder, longer, (ids,)).last_hidden_state


class LiteralAdam:
    """Adam in float64, step by step; with ``decoupled`` AdamW."""

    def __init__(self, lr: float, weight_decay: float, decoupled: bool) -> None:
        self.lr, self.weight_decay, self.decoupled = lr, weight_decay, decoupled
        self.n, self.mean, self.square = 0, 0.0, 0.0

    def step(self, value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        self.n += 1
        if self.decoupled:
            value = value - self.lr * self.weight_decay * value
        else:
            gradient = gradient + self.weight_decay * value
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        mean, square = self.mean / (1 - 0.9**self.n), self.square / (1 - 0.999**self.n)
        return value - self.lr * mean / (square.sqrt() + 1e-8)
