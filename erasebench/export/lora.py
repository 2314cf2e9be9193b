"""An edit as a LoRA: two thin factors a layer, in the names that diffusers' ``load_lora_weights`` reads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from erasebench.edits.change import Change
from erasebench.edits.edit import Edit
from erasebench.errors import UserError
from erasebench.models.pipeline import Pipeline
from erasebench.progress import progress

FILE = "pytorch_lora_weights.safetensors"
"""The name that ``load_lora_weights(folder)`` looks for."""

TOLERANCE = 1e-3
"""Unless a rank is given, a dense change is cut at the smallest rank whose relative Frobenius error is below this."""

LARGEST = 128
"""The rank a dense change is cut at in any case, unless a rank is given."""

EXACT = 1e-7
"""A low-rank change is kept up to the rounding of float32, in which a LoRA is written."""

LOADED = ("unet", "transformer", "text_encoder", "text_encoder_2")
LOADED_OF_TEXT_ENCODERS = ("q_proj", "k_proj", "v_proj", "out_proj")
"""What diffusers' loaders look for: components, and the linear layers of a text encoder."""


@dataclass(frozen=True)
class Lora:
    """A LoRA and how far it is from the edit.

    Attributes:
        tensors: ``<component>.<module>.lora_A.weight`` [rank, in] and ``.lora_B.weight`` [out, rank], float32.
            W + B A is the edited weight, at scale 1.
        rank: one for all layers. Layers of a smaller rank are filled up with zeros: loaders differ in which scale
            they give to a file whose layers have several ranks, and none of them errs if there is one.
        cut: whether any layer was cut to a smaller rank than it has.
        errors: by weight name, ||change - B A|| / ||change|| (Frobenius), of the factors as written.
        error: the same over all layers together.
    """

    tensors: dict[str, Tensor]
    rank: int
    cut: bool
    errors: dict[str, float]
    error: float

    @property
    def worst(self) -> tuple[str, float]:
        """The layer with the largest relative error."""
        return max(self.errors.items(), key=lambda item: item[1])


def lora(edit: Edit, pipe: Pipeline, rank: int | None = None) -> Lora:
    """Write an edit of a pipeline's weights as a LoRA.

    Args:
        edit: the edit; it must fit the pipeline.
        pipe: the unedited pipeline: a change in token form is a map of its weights.
        rank: the rank of every layer. ``None``: low-rank changes keep theirs, and dense ones get the smallest whose
            relative error is below :data:`TOLERANCE`, at most :data:`LARGEST`.

    Raises:
        UserError: an edit that no LoRA can hold (hooks; no changes; a weight that is not a linear layer's, or that the
            text encoder's loader does not read), or a rank below 1.
    """
    if rank is not None and rank < 1:
        raise UserError(f"rank={rank}: a LoRA has rank 1 or more")
    edit.check_weights_alone("no LoRA can hold it")
    if not edit.changes:
        raise UserError("the edit changes nothing, so there is no LoRA to write")
    weights = edit.check_fits(pipe)
    modules = {name: _module(pipe, name) for name in edit.changes}
    halves: dict[str, tuple[Tensor, Tensor]] = {}
    errors: dict[str, float] = {}
    lost = size = 0.0
    cut = False
    with progress("factor", len(weights), "layers") as advance:
        for name, weight in weights.items():
            change = edit.changes[name]
            whole = change.of(weight)
            left, right, shortened = _factors(change, weight, whole, rank)
            cut |= shortened
            halves[name] = left, right
            gone, there = (whole - left.double() @ right.double()).square().sum().item(), whole.square().sum().item()
            errors[name] = math.sqrt(gone / there) if there else 0.0
            lost, size = lost + gone, size + there
            advance(1)
    common = max(1, *(right.shape[0] for _, right in halves.values()))
    tensors = {}
    for name, (left, right) in halves.items():
        missing = common - right.shape[0]
        tensors[f"{modules[name]}.lora_A.weight"] = nn.functional.pad(right, (0, 0, 0, missing)).contiguous()
        tensors[f"{modules[name]}.lora_B.weight"] = nn.functional.pad(left, (0, missing)).contiguous()
    return Lora(tensors, common, cut, errors, math.sqrt(lost / size) if size else 0.0)


def _factors(change: Change, weight: Tensor, whole: Tensor, rank: int | None) -> tuple[Tensor, Tensor, bool]:
    """``[out, r]`` and ``[r, in]`` float32 nearest to a change, and whether that cuts what it has.

    The factors are the singular vectors, each scaled by the root of its singular value: no number is far from the
    others, so that they also survive a loader that casts them to float16.
    """
    factors = change.factors(weight) if change.rank < min(whole.shape) else None
    low = factors is not None
    u, s, vh = _gram_svd(whole) if factors is None else _thin_svd(*factors)
    # energy beyond the first r singular values, for r = 0 ... len(s)
    tail = torch.cat([s.square().flip(0).cumsum(0).flip(0), s.new_zeros(1)]).sqrt()
    own = _least(tail, EXACT)
    wanted = rank or (own if low else min(_least(tail, TOLERANCE), LARGEST))
    kept = min(own, wanted)
    root = s[:kept].sqrt()
    return (u[:, :kept] * root).float(), (root[:, None] * vh[:kept]).float(), kept < own


def _least(tail: Tensor, tolerance: float) -> int:
    """The smallest rank, 1 or more, that leaves at most a share of the norm out."""
    return max(1, int((tail > tolerance * tail[0]).sum()))


def _thin_svd(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular values and vectors of ``left @ right`` without forming the product."""
    q_left, r_left = torch.linalg.qr(left)
    q_right, r_right = torch.linalg.qr(right.T)
    u, s, vh = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    return q_left @ u, s, vh @ q_right.T


def _gram_svd(whole: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular values and vectors by eigenvectors of the smaller Gram matrix: several times faster than an SVD.

    Squaring costs half the digits: singular values below 1e-8 of the largest are noise. They are below what float32
    holds, and the other side's vectors are computed from the matrix itself.
    """
    if whole.shape[0] < whole.shape[1]:
        u, s, vh = _gram_svd(whole.T)
        return vh.T, s, u.T
    values, vectors = torch.linalg.eigh(whole.T @ whole)
    order = values.argsort(descending=True)
    s, v = values[order].clamp_min(0).sqrt(), vectors[:, order]
    u = torch.where(s > 0, (whole @ v) / s.clamp_min(torch.finfo(s.dtype).tiny), 0)
    return u, s, v.T


def _module(pipe: Pipeline, name: str) -> str:
    """The name that the loader knows a weight's layer by."""
    component, _, rest = name.removesuffix(".weight").partition(".")
    module = getattr(pipe, component).get_submodule(rest) if name.endswith(".weight") else None
    if component not in LOADED or not isinstance(module, nn.Linear):
        raise UserError(
            f"{name}: not a linear layer that a LoRA of {type(pipe).__name__} can hold; use format=delta or diffusers"
        )
    if component.startswith("text_encoder"):
        if rest.rpartition(".")[2] not in LOADED_OF_TEXT_ENCODERS:
            raise UserError(
                f"{name}: diffusers reads LoRA layers of a text encoder only for {', '.join(LOADED_OF_TEXT_ENCODERS)}; use "
                "format=delta or diffusers"
            )
        # Older releases of transformers keep the encoder in text_model; the loader drops the name where it is gone.
        if "CLIP" in type(getattr(pipe, component)).__name__ and not rest.startswith("text_model."):
            rest = f"text_model.{rest}"
    return f"{component}.{rest}"
