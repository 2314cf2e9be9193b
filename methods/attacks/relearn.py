"""Re-learning: a few steps of LoRA on images of the concept, and the edited model is asked again.

Fine-tuning on what was unlearnt, as studied of diffusion models in "Meta-Unlearning on Diffusion Models: Preventing Relearning
Unlearned Concepts" (2410.12777) and of language models before. Layers, rank and budget are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Linear, Module, Parameter
from torch.nn.functional import mse_loss

from erasebench.concepts import Concept
from erasebench.edits.attack import Tools
from erasebench.edits.found import Found
from erasebench.edits.hook import Hook
from erasebench.errors import UserError
from erasebench.methods.adapters.beside import Addition, beside, rank_one
from erasebench.methods.attacks.between_steps import BetweenSteps
from erasebench.methods.attacks.budget import Clock, Limited, check_positive, check_whole
from erasebench.methods.attacks.concept_vector import ONE_ENCODER
from erasebench.methods.attacks.learning import ANY_PROMPT, Learning, concept_images, learnt
from erasebench.methods.trained.latents import encoded, noised, noising
from erasebench.methods.trained.low_rank import additions, layers_in, new_adapters
from erasebench.models.encode import encode_prompts
from erasebench.models.pipeline import Pipeline, part_of
from erasebench.models.targets import denoiser
from erasebench.prompts.prompt_set import hashed_seed
from erasebench.recipe import Recipe

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""The layers that are adapted, of self- and cross-attention: those of diffusers' LoRA script."""


@dataclass(frozen=True)
class Relearn(Limited):
    """``min_A E ||eps - eps_edited+A(z_t, t, E(prompt))||^2`` over adapters A beside the attention of the edited denoiser, on the
    unedited model's images of the concept and their own prompts.

    The prompts that are then drawn are plain; the adapters stand beside the edited weights meanwhile. What comes back in a few
    steps and images was hidden, not removed; what needs as many as a concept that the model never knew (the row of a
    retrained model) is gone. One search serves all prompts of a concept.

    Attributes:
        iterations: steps of AdamW.
        images: to learn from; the same as those of :class:`erasebench.methods.attacks.cce.Cce`.
        rank: of each adapter.
        lr: of AdamW.
        batch, accumulate: images a draw, and draws a step.
        seed: of images, adapters and noise.
        seconds: see :class:`erasebench.methods.attacks.budget.Limited`.

    Raises:
        UserError: an option that is not above 0.
    """

    name: ClassVar[str] = "relearn"
    describe: ClassVar[str] = "re-learning: a few steps of LoRA on images of the concept, then plain prompts"
    access: ClassVar[str] = "weights, which it changes"
    inputs: ClassVar[tuple[str, ...]] = ANY_PROMPT
    unsupported: ClassVar = ONE_ENCODER
    differentiates: ClassVar[bool] = True

    iterations: int = 100
    images: int = 25
    rank: int = 4
    lr: float = 1e-3
    batch: int = 4
    accumulate: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "iterations", "images", "rank", "batch", "accumulate")
        check_positive(self, "lr")

    @property
    def steps(self) -> int:
        """A step of AdamW."""
        return self.iterations

    def targets(self, concepts: Sequence[Concept], recipe: Recipe) -> tuple[Recipe, ...]:
        """Images of the concepts in turn, each from a prompt and seed of its own."""
        return concept_images(concepts, recipe, self.images, self.seed)

    def look(self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, tools: Tools) -> Found:
        """The adapters, float32, with the loss by step."""
        network: Any = denoiser(pipe)
        latents = encoded(pipe, tools.targets).to(network.dtype)
        prompts = [target.prompt for target in self.targets(concepts, recipe)]
        texts = encode_prompts(pipe, prompts)[0].to(network.dtype)
        own = hashed_seed(self.name, self.seed, *(one.name for one in concepts))
        first = new_adapters(network, attention_layers(network), torch.Generator().manual_seed(own), rank=self.rank)
        adapters = {name: Parameter(value.detach().to(network.dtype)) for name, value in first.items()}
        scheduler = noising(pipe.scheduler.config)
        with beside(network, additions(adapters)):
            notes = learnt(
                adapters,
                Learning(self.iterations, self.accumulate, self.lr, own),
                lambda numbers: self.loss(network, latents, texts, scheduler, numbers),
                tools,
                Clock(self.seconds),
            )
        return Found(
            tensors={name: value.detach().float().cpu() for name, value in adapters.items()},
            info={"images": self.images, "layers": len(adapters) // 2, **notes},
        )

    def loss(self, network: Any, latents: Tensor, texts: Tensor, scheduler: Any, numbers: torch.Generator) -> Tensor:
        """The loss of one draw, a scalar: images, timesteps and noise by ``numbers``, in this order.

        Args:
            network: the denoiser, with the edit on and the adapters beside it.
            latents: of the images, ``[n, channels, height, width]``.
            texts: rows of their prompts as the edited model reads them, ``[n, positions, d]``.
            scheduler: that noises.
            numbers: random ones, on the CPU.
        """
        chosen = torch.randint(len(latents), (self.batch,), generator=numbers).to(latents.device)
        z, timesteps, target = noised(scheduler, latents[chosen], numbers)
        return mse_loss(network(z, timesteps, texts[chosen]).sample, target)

    def hook(self, found: Mapping[str, Found]) -> Hook:
        """Puts the adapters beside the network, for the images that they were found for."""
        return _Relearnt(found)


class _Relearnt(BetweenSteps):
    """Adapters beside a network, each in the rows of its own images."""

    @contextmanager
    def installed(self, pipe: Pipeline) -> Iterator[None]:
        """Forward hooks at the layers.

        Raises:
            UserError: a layer is missing or has another shape.
        """
        network: Any = denoiser(pipe)
        like = next(network.parameters())
        self._adapters = {
            key: {name: tensor.to(like) for name, tensor in (one.tensors or {}).items()}
            for key, one in self.found.items()
        }
        for adapters in self._adapters.values():
            for layer in layers_in(adapters):
                _check_fits(network, layer, adapters)
        layers = dict.fromkeys(layer for adapters in self._adapters.values() for layer in layers_in(adapters))
        try:
            with beside(network, {layer: self._addition(layer) for layer in layers}):
                yield
        finally:
            self.ended()
            del self._adapters

    def _addition(self, layer: str) -> Addition:
        def add(module: Module, inputs: Tensor, output: Tensor) -> Tensor:
            total, batch = output.new_zeros(()), self.batch
            for key in dict.fromkeys(recipe.attack for recipe in batch if recipe.attack in self._adapters):
                down, up = (self._adapters[key][f"{side}.{layer}"] for side in ("down", "up"))
                # The passes of a batch follow each other: [all images without the prompt, all images with it].
                own = inputs.new_tensor([[recipe.attack == key] for recipe in batch])
                gates = own.repeat(len(inputs) // len(own), len(down))
                total = total + rank_one(module, inputs, down, up, gates)
            return total

        return add

    def on_step(self, pipe: Pipeline, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Ends a batch; changes no latent."""
        if step + 1 == part_of(pipe, "num_timesteps"):
            self.ended()
        return tensors


def attention_layers(network: Module) -> list[str]:
    """The names of the linear layers of a denoiser's attention."""
    return [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, Linear) and name.endswith(tuple(f".{part}" for part in ATTENTION))
    ]


def _check_fits(network: Module, layer: str, adapters: Mapping[str, Tensor]) -> None:
    weight = dict(network.named_parameters()).get(f"{layer}.weight")
    wanted = (adapters[f"up.{layer}"].shape[1], adapters[f"down.{layer}"].shape[1])
    if weight is None or tuple(weight.shape) != wanted:
        there = "is not there" if weight is None else f"is {list(weight.shape)}, the adapter's {list(wanted)}"
        raise UserError(f"attack relearn: {layer}.weight {there}; what it found was found on another model")
