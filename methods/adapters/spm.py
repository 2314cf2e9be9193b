"""SPM: one-dimensional adapters with a gate for each prompt (Lyu et al., CVPR 2024).

Their training is :mod:`erasebench.methods.trained.spm`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Module

from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.eraser import Change, Edit, Eraser, Hook, Work
from erasebench.errors import UserError
from erasebench.methods.adapters.beside import Addition, beside, mixed, rank_one
from erasebench.methods.closed_form.linear import check_positive
from erasebench.methods.closed_form.uce import Uce
from erasebench.models.encode import encode_prompts
from erasebench.models.pipeline import Pipeline, part_of
from erasebench.models.targets import denoiser, named_weight
from erasebench.recipe import Recipe


class Membrane(Hook):
    """Adapters ``y + sum_k g_k(prompt) (x d_k) u_k`` beside linear layers and convolutions, one rank a concept k.

    The gate g_k is SPM's "facilitated transport": the largest, over the concept's phrases, of the cosine of the prompt's
    and the phrase's embeddings (all rows, flattened) and of the share of the phrase's tokens that the prompt has. Both
    passes of guidance get the gate of the image's prompt. Where the network is used without a prompt being announced,
    the gates are 1.

    Each adapter counts once, by itself, as in the paper. With ``mixed`` the gate multiplies both factors, as the release
    has it (``infer_spm.py``): it counts squared, and with several concepts every factor of one meets every factor of the
    others (:func:`erasebench.methods.adapters.beside.mixed`).

    Settings: ``phrases``, a list for each concept; ``scale``, a factor of every gate (the paper's gamma, the release's
    ``facilitate_factor``; 1 if it is not there); ``mixed``. Tensors: for every layer ``down.<weight name>`` [k, in] (a
    convolution's [k, in, kernel, kernel]) and ``up.<weight name>`` [k, out].
    """

    name = "spm"

    gates: Tensor | None = None
    """[n, k], of the batch at hand."""

    @contextmanager
    def installed(self, pipe: Pipeline) -> Iterator[None]:
        """Forward hooks at the layers.

        Raises:
            UserError: a layer is missing or has another shape.
        """
        phrases = [text for texts in self.settings["phrases"] for text in texts]
        self._embedded = dict(zip(phrases, encode_prompts(pipe, phrases)[0], strict=True))
        additions = {}
        for name in [key.removeprefix("up.") for key in self.tensors if key.startswith("up.")]:
            weight, up, down = named_weight(pipe, name), self.tensors[f"up.{name}"], self.tensors[f"down.{name}"]
            if weight.shape != (up.shape[1], *down.shape[1:]):
                raise UserError(
                    f"{name}: the model's weight is {list(weight.shape)}, the adapter's "
                    f"{[up.shape[1], *down.shape[1:]]}; the edit was made for another model"
                )
            component, _, path = name.removesuffix(".weight").partition(".")
            if component != "unet":
                raise UserError(f"{name}: adapters of SPM stand in a UNet; the edit was made for another model")
            additions[path] = self._addition(down.to(weight), up.to(weight))
        try:
            with beside(denoiser(pipe), additions):
                yield
        finally:
            self.gates = None
            del self._embedded

    def _addition(self, down: Tensor, up: Tensor) -> Addition:
        def add(layer: Module, inputs: Tensor, output: Tensor) -> Tensor:
            gates = self.gates
            if gates is not None:
                # The passes of a batch follow each other: [all images without the prompt, all images with it].
                gates = gates.repeat(len(inputs) // len(gates), 1).to(inputs)
            if self.settings.get("mixed"):
                return mixed(layer, inputs, down, up, down.new_ones(len(inputs), len(up)) if gates is None else gates)
            return rank_one(layer, inputs, down, up, gates)

        return add

    def texts(self, pipe: Pipeline, inputs: dict[str, Tensor], batch: Sequence[Recipe]) -> dict[str, Tensor]:
        """Sets the gates of a batch; changes no text."""
        self.gates = torch.stack(
            [
                self._gates(pipe, recipe.prompt, rows)
                for recipe, rows in zip(batch, inputs["prompt_embeds"], strict=True)
            ]
        )
        return inputs

    def on_step(self, pipe: Pipeline, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Ends a batch; changes no latent."""
        if step + 1 == part_of(pipe, "num_timesteps"):
            self.gates = None  # whoever calls the UNet now is not sampling
        return tensors

    def _gates(self, pipe: Pipeline, prompt: str, rows: Tensor) -> Tensor:
        """The gate of each concept for one prompt, [k]."""
        said = _tokens(pipe, prompt)
        gates = torch.stack(
            [
                torch.stack(
                    [
                        torch.maximum(_cosine(rows, self._embedded[text]), _share(_tokens(pipe, text), said))
                        for text in texts
                    ]
                ).max()
                for texts in self.settings["phrases"]
            ]
        )
        return gates * self.settings.get("scale", 1.0)


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    return torch.cosine_similarity(one.flatten().float(), other.flatten().float(), dim=0).cpu()


def _share(wanted: set[int], there: set[int]) -> Tensor:
    return torch.tensor(len(wanted & there) / max(1, len(wanted)))


def _tokens(pipe: Pipeline, text: str) -> set[int]:
    return set(pipe.tokenizer(text, truncation=True).input_ids) - set(pipe.tokenizer.all_special_ids)


@dataclass(frozen=True)
class SpmUce(Eraser):
    """SPM's gated rank-one adapters with directions in closed form.

    SPM trains its adapters; this takes the change that UCE (2023) makes for the concept, layer by layer, and keeps the
    one direction of it with the largest singular value. The gates are SPM's. So it is a composition of ours, and its
    numbers are not SPM's: the adapters sit on the keys and values of cross-attention alone, where SPM trains one at
    every layer of the transformer blocks.

    Attributes:
        scale: of the adapters, above 0.
    """

    name: ClassVar[str] = "spm_uce"
    describe: ClassVar[str] = (
        "adapters: SPM's gates for each prompt (CVPR 2024) on UCE's main direction (ours, untrained)"
    )
    unsupported: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("sd3", "flux"), "its adapters sit on the keys and values of a UNet's cross-attention"
    )

    scale: float = 1.0

    def __post_init__(self) -> None:
        check_positive("spm_uce", scale=self.scale)

    def acts(self) -> tuple[type[Hook], ...]:
        """The adapters."""
        return (Membrane,)

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """One adapter a concept and layer, and no change of weights."""
        parts = [self._adapters(pipe, target, task.retain) for target in task.targets]
        tensors: dict[str, Tensor] = {}
        kept: list[float] = []
        for name in parts[0]:
            ups, downs, shares = zip(*(part[name] for part in parts), strict=True)
            tensors[f"up.{name}"] = (self.scale * torch.stack(ups)).float()
            tensors[f"down.{name}"] = torch.stack(downs).float()
            kept += shares
        phrases = [list(target.phrases) for target in task.targets]
        notes = {"method": self.name, "layers": len(parts[0]), "kept": sum(kept) / len(kept)}
        return Edit({}, notes, (Membrane({"phrases": phrases}, tensors),))

    def _adapters(
        self, pipe: Pipeline, target: Concept, retain: tuple[str, ...]
    ) -> dict[str, tuple[Tensor, Tensor, float]]:
        changes, _ = Uce().changes(pipe, ErasureTask((target,), retain))
        return {name: main_direction(change, named_weight(pipe, name).detach()) for name, change in changes.items()}


def main_direction(change: Change, weight: Tensor) -> tuple[Tensor, Tensor, float]:
    """The largest singular direction of a weight's change.

    Returns:
        ``up`` [out] and ``down`` [in], float64, with ``outer(up, down)`` the nearest change of rank one, and its share of
        the change's squared Frobenius norm.
    """
    factors = change.factors(weight)
    if factors is None:
        u, s, vh = torch.linalg.svd(change.of(weight), full_matrices=False)
    else:
        (q_left, r_left), (q_right, r_right) = torch.linalg.qr(factors[0]), torch.linalg.qr(factors[1].T)
        u, s, vh = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
        u, vh = q_left @ u, vh @ q_right.T
    energy = s.square().sum().item()
    return u[:, 0] * s[0], vh[0].clone(), s[0].item() ** 2 / energy if energy else 0.0
