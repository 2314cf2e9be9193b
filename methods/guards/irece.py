"""IRECE: where the unedited model looks for the concept in an image that is being sampled, its latents are disturbed.

Named in "M-ErasureBench" (2512.22877), whose abstract is all that was to be had: the cross-attention of an unedited backbone localises
the concept, and the latents are perturbed there while sampling. All formulas and constants below are ours.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import interpolate

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Edit, Eraser, Hook, Work
from erasebench.errors import UserError
from erasebench.methods.guards.sld import STEPS
from erasebench.methods.trained.attention import layer_shape, recorded_attention
from erasebench.models.marks import originals_on
from erasebench.models.pipeline import Pipeline, part_of
from erasebench.prompts.prompt_set import hashed_seed
from erasebench.recipe import Recipe

CELLS = 16
"""Cells in each direction of the finest maps of attention that count: those of Stable Diffusion that show things best."""


class Disturbed(Hook):
    """After each step i up to ``until`` of 50: ``z <- z + mask s n`` where the unedited network looks for the concept, n ~ N(0, I).

    The network without its edit reads the latents and the concept's text alone, whatever the prompt is. Its probabilities of the
    text's own tokens, the mean over heads, tokens and the finest cross-attentions of at most 16 x 16 cells, from 0 to 1 in each image,
    are a mask where they are ``threshold`` and more; of several texts their union, enlarged bilinearly. ``s = strength sigma``, the
    noise that the latents hold. Then the disturbed elements (mask of a half and more) are scaled about their mean so that they
    spread as the others do.

    The noise follows from the image's own seed. It takes a copy of the network, and an evaluation a step.

    Settings: ``texts``, ``strength``, ``threshold``, ``until``, ``seed``.
    """

    name = "irece"
    places: ClassVar[tuple[str, ...]] = ("the latents between steps",)

    @contextmanager
    def installed(self, pipe: Pipeline) -> Iterator[None]:
        """Keeps the unedited network and what it makes of the texts, for as long as it is installed."""
        encoder, self._network = _unedited(pipe, "text_encoder"), _unedited(pipe, "unet")
        tokenizer = pipe.tokenizer
        ids = [tokenizer(text, padding="max_length", truncation=True).input_ids for text in self.settings["texts"]]
        self._own = [range(1, row.index(tokenizer.eos_token_id, 1)) for row in ids]
        with torch.no_grad():
            self._rows = encoder(torch.tensor(ids).to(pipe._execution_device))[0]
        self._batch: Sequence[Recipe] = ()
        try:
            with recorded_attention(self._network) as self._maps:
                yield
        finally:
            del self._network, self._rows, self._maps

    def texts(self, pipe: Pipeline, inputs: dict[str, Tensor], batch: Sequence[Recipe]) -> dict[str, Tensor]:
        """Begins a batch; changes no text."""
        self._batch = batch
        return inputs

    @torch.no_grad()
    def on_step(self, pipe: Pipeline, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Disturbs the latents that the next step begins with."""
        count = part_of(pipe, "num_timesteps")
        if step + 1 == count or step * STEPS > self.settings["until"] * count:
            return tensors
        latents, scheduler = tensors["latents"], pipe.scheduler
        timestep = scheduler.timesteps[step + 1]
        scaled = scheduler.scale_model_input(latents, timestep)
        masks = interpolate(self._masks(scaled, timestep), latents.shape[2:], mode="bilinear")
        sigma = (1 - scheduler.alphas_cumprod[int(timestep)]).sqrt().item()
        # Some schedulers keep latents larger than the network reads them.
        larger = (latents.flatten(1).norm(dim=1) / scaled.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)
        noise = torch.stack(
            [
                torch.randn(
                    latents.shape[1:],
                    generator=torch.Generator().manual_seed(
                        hashed_seed(self.name, self.settings["seed"], recipe.prompt, recipe.seed, step)
                    ),
                )
                for recipe in self._batch
            ]
        ).to(latents)
        moved = latents + masks * (self.settings["strength"] * sigma * larger * noise)
        pairs = zip(moved, masks[:, 0] >= 0.5, strict=True)
        return tensors | {"latents": torch.stack([spread_alike(one, mask) for one, mask in pairs]).to(latents)}

    def _masks(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Where the unedited network looks for any of the texts, [n, 1, rows, columns], 0 or 1."""
        n, size = len(latents), latents.shape[2:]
        whole = None
        for row, own in zip(self._rows, self._own, strict=True):
            self._network(latents, timestep, row.expand(n, *row.shape).to(latents))
            maps = self._finest(n, size, own)
            low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
            mask = (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny) >= self.settings["threshold"]
            whole = mask if whole is None else whole | mask
        assert whole is not None
        return whole[:, None].to(latents)

    def _finest(self, n: int, size: Sequence[int], own: range) -> Tensor:
        """The mean probability of a text's own tokens, [n, rows, columns], of the finest layers that count."""
        shapes = {name: layer_shape(maps.shape[1], size) for name, maps in self._maps.items()}
        fitting = [shape for shape in shapes.values() if max(shape) <= CELLS]
        if not fitting:
            raise UserError(
                f"{self.name}: no cross-attention of the network has {CELLS} x {CELLS} cells or fewer at latents of "
                f"{size[0]} x {size[1]}; use a smaller protocol.size"
            )
        finest = max(fitting)
        probabilities = [
            self._maps[name].unflatten(0, (n, -1))[..., own.start : own.stop].mean(dim=(1, 3)).view(n, *finest)
            for name, shape in shapes.items()
            if shape == finest
        ]
        return torch.stack(probabilities).mean(dim=0)


def spread_alike(latents: Tensor, mask: Tensor) -> Tensor:
    """Latents [channels, height, width] whose masked elements are scaled about their mean to the standard deviation of the others."""
    inside, outside = latents[:, mask], latents[:, ~mask]
    if inside.numel() < 2 or outside.numel() < 2 or inside.std() == 0:
        return latents
    made = latents.clone()
    made[:, mask] = inside.mean() + (inside - inside.mean()) * (outside.std() / inside.std())
    return made


def _unedited(pipe: Pipeline, part: str) -> Module:
    """A copy of a network of a pipeline with its weights as they were before the edits that are on it, and nothing installed in it."""
    network: Module = copy.deepcopy(part_of(pipe, part)).requires_grad_(False)
    for module in network.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    with torch.no_grad():
        for name, value in originals_on(pipe).items():
            if name.startswith(f"{part}."):
                network.get_parameter(name.removeprefix(f"{part}.")).copy_(value)
    return network


@dataclass(frozen=True)
class Irece(Eraser):
    """IRECE: latents are disturbed where the unedited model looks for the concept. It erases little by itself, and is meant to go
    with an edit of weights (``method=uce_irece``): against attacks that find latents or embeddings and not words.

    It acts on every image, whether the concept is in it or not: where the unedited network looks most is disturbed.

    Attributes:
        strength: of the noise, in shares of what the latents hold.
        threshold: from which share of an image's highest attention on a cell belongs to the concept.
        until: the last step that it acts after, of 50.
        texts: what is looked for; ``None``: the names of the concepts.
        seed: of the noise.

    Raises:
        UserError: a number out of its range, or an empty text.
    """

    name: ClassVar[str] = "irece"
    describe: ClassVar[str] = (
        "guard: IRECE (ours after 2512.22877), latents are disturbed where the concept is looked for"
    )
    unsupported: ClassVar[Mapping[str, str]] = {
        "sdxl": "its unedited network reads one text, and this model's needs a second and the sizes of the image",
        **dict.fromkeys(("sd3", "flux"), "it looks at the cross-attention of a UNet, and this network has none"),
    }

    strength: float = 0.3
    threshold: float = 0.5
    until: float = 20
    texts: tuple[str, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in {"strength": (1e-6, 1e6), "threshold": (0, 1), "until": (0, STEPS)}.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise UserError(f"irece: {name} is {value}; it must be from {low:g} to {high:g}")
        if self.texts is not None and not (self.texts and all(text.strip() for text in self.texts)):
            raise UserError("irece: texts has none, or an empty one; give texts, or null for the concepts' names")

    def acts(self) -> tuple[type[Hook], ...]:
        """The disturbance."""
        return (Disturbed,)

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """The hook and nothing else."""
        texts = list(dict.fromkeys(target.name for target in task.targets) if self.texts is None else self.texts)
        settings = {"strength": self.strength, "threshold": self.threshold, "until": self.until, "seed": self.seed}
        return Edit({}, {"method": self.name, "texts": texts, **settings}, (Disturbed({"texts": texts, **settings}),))
