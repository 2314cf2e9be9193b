"""Where text enters a network: the weights that read it, found by structure, never by a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Parameter

from erasebench.errors import UserError, suggest
from erasebench.models.pipeline import Pipeline, part_of
from erasebench.models.text import Pooled, Texts


@dataclass(frozen=True, eq=False)
class TextInput:
    """One way by which text enters a network: weights, and the token rows that they read.

    Attributes:
        name: a key of :data:`TEXT_INPUTS`.
        weights: name to parameter ``[out, width]``. Where the layer has a bias, it stays as it is and is no part of
            what an eraser aims at: outputs here are ``W c``. (UCE's released script for FLUX takes ``W c* + b`` for
            the new ``W c`` and leaves b in place, so that edited tokens get b twice.)
        texts: the encoded texts of the pipeline, as these weights read them.
        width: length of a token row.
    """

    name: str
    weights: dict[str, Parameter]
    texts: Texts | Pooled | ContextTokens
    width: int

    def rows(self, texts: Sequence[str], rule: str) -> list[Tensor]:
        """Token rows ``[n_i, width]`` float64 of each text by a token rule; no texts give an empty list."""
        return [rows.double() for rows in self.texts.rows(texts, rule)] if texts else []

    def pairs(self, texts: Sequence[tuple[str, str]], rule: str) -> list[tuple[Tensor, Tensor]]:
        """Rows ``[n_i, width]`` float64 of each text and of its partner, cut to the shorter of the two.

        Where a text has rows of two encoders (SD 3), each encoder's rows are cut by themselves, so that a row of CLIP
        never goes to one of T5.
        """
        parts = self.texts.parts([text for pair in texts for text in pair], rule) if texts else []
        cut: list[list[tuple[Tensor, Tensor]]] = []
        for rows in parts:
            sizes = [min(len(first), len(second)) for first, second in zip(rows[::2], rows[1::2], strict=True)]
            both = zip(rows[::2], rows[1::2], sizes, strict=True)
            cut.append([(first[:size].double(), second[:size].double()) for first, second, size in both])
        return [
            (torch.cat([first for first, _ in pair]), torch.cat([second for _, second in pair]))
            for pair in zip(*cut, strict=True)
        ]


class ContextTokens:
    """Token rows as the joint attention of SD 3 and FLUX reads them, approximately.

    A row is the LayerNorm, without scale and shift, of what ``context_embedder`` makes of the text's row (with its
    bias). The true input of a block is also scaled and shifted by the timestep and the pooled text, and from the
    second block on it has passed the blocks before; none of that is one fixed row. The approximation is ours.
    """

    def __init__(self, texts: Texts, embedder: Linear) -> None:
        self._texts, self._embedder = texts, embedder

    def rows(self, texts: Sequence[str], rule: str) -> list[Tensor]:
        """One ``[n_i, out]`` float64 tensor on the CPU for each text, in order."""
        return [self._through(rows) for rows in self._texts.rows(texts, rule)]

    def parts(self, texts: Sequence[str], rule: str) -> list[list[Tensor]]:
        """The rows of each encoder by themselves (:meth:`erasebench.models.text.Texts.parts`)."""
        return [[self._through(rows) for rows in part] for part in self._texts.parts(texts, rule)]

    def _through(self, rows: Tensor) -> Tensor:
        weight = self._embedder.weight.detach().to("cpu", torch.float64)
        made = rows.double() @ weight.T
        if self._embedder.bias is not None:
            made = made + self._embedder.bias.detach().to("cpu", torch.float64)
        return torch.nn.functional.layer_norm(made, made.shape[-1:], eps=1e-6)


TEXT_INPUTS = {
    "cross_attention": "the keys and values of a UNet's cross-attention (SD 1.x, 2.x, XL)",
    "context_embedder": "the layer through which all token rows enter the transformer (SD 3, FLUX)",
    "pooled": "the layer that adds the pooled text to the timestep (SD 3, FLUX)",
    "joint_attention": "the keys and values of the text in joint attention (SD 3, FLUX); rows are approximate",
}
"""The ways by which text enters a network. ``auto`` is every one that it has, but ``joint_attention``."""


def text_inputs(pipe: Pipeline, where: str = "auto") -> list[TextInput]:
    """The ways by which text enters the pipeline's network.

    Args:
        pipe: a Stable Diffusion (1.x, 2.x, XL, 3) or FLUX pipeline.
        where: ``auto`` (:data:`TEXT_INPUTS`), or the name of one of them; ``+`` joins several.

    Raises:
        UserError: a name that this network does not have, no known way in for text, quantised or offloaded weights,
            or a text encoder that is not known.
    """
    if part_of(pipe, "transformer") is None:
        known = {"cross_attention": key_value_weights(pipe)}
    else:
        known = _transformer_weights(pipe)
    names = [name for name in known if name != "joint_attention"] if where == "auto" else where.split("+")
    for name in dict.fromkeys(names):
        if name not in known:
            raise UserError(
                f"where={where}: {type(pipe).__name__} has no text input {name!r}.{suggest(name, known)} "
                f"It has: {', '.join(known)}"
            )
    tokens = Texts(pipe)
    made = []
    for name in dict.fromkeys(names):
        weights = known[name]
        texts: Texts | Pooled | ContextTokens = tokens
        if name == "pooled":
            texts = Pooled(pipe)
        elif name == "joint_attention":
            texts = ContextTokens(tokens, denoiser(pipe).context_embedder)
        made.append(TextInput(name, weights, texts, next(iter(weights.values())).shape[1]))
    return made


def _transformer_weights(pipe: Pipeline) -> dict[str, dict[str, Parameter]]:
    """The weights that read text in a transformer with joint attention, by :data:`TEXT_INPUTS`."""
    transformer = denoiser(pipe)
    layers: dict[str, Any] = {}
    for name, module in transformer.named_modules():
        if name in ("context_embedder", "time_text_embed.text_embedder.linear_1"):
            layers[name] = module
        for part in ("add_k_proj", "add_v_proj"):
            if getattr(module, part, None) is not None:
                layers[f"{name}.{part}"] = getattr(module, part)
    found: dict[str, dict[str, Parameter]] = {"context_embedder": {}, "pooled": {}, "joint_attention": {}}
    for name, module in layers.items():
        kind = {"context_embedder": name, "time_text_embed.text_embedder.linear_1": "pooled"}.get(
            name, "joint_attention"
        )
        found[kind][f"transformer.{name}.weight"] = module.weight
    if not all(found.values()):
        raise UserError(
            f"{type(pipe).__name__} ({type(transformer).__name__}): text does not enter this transformer in a way that "
            "is known (context_embedder, pooled text, joint attention); use a Stable Diffusion or FLUX model"
        )
    for weights in found.values():
        _check_weights(weights)
    return found


def key_value_weights(pipe: Pipeline) -> dict[str, Parameter]:
    """The ``to_k`` and ``to_v`` weights of every cross-attention (``attn2``) of the pipeline's UNet.

    Args:
        pipe: a Stable Diffusion pipeline (1.x, 2.x, XL).

    Returns:
        Name to parameter ``[out, d]`` in the order of the UNet's modules, e.g.
        ``unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight``; ``d`` is the width of the text
        embedding and the same for all. SD 1.x has 32 of them, SDXL 140.

    Raises:
        UserError: no UNet (SD 3, FLUX and other transformers), no cross-attention, quantised or offloaded weights, or
            weights of different widths.
    """
    unet = part_of(pipe, "unet")
    if unet is None:
        transformer = part_of(pipe, "transformer")
        instead = type(transformer).__name__ if transformer is not None else "no UNet"
        raise UserError(
            f"{type(pipe).__name__} ({instead}): this pipeline has no UNet with cross-attention to edit; "
            "use a Stable Diffusion 1.x, 2.x or XL model"
        )
    weights = {
        f"unet.{name}.{part}.weight": getattr(module, part).weight
        for name, module in unet.named_modules()
        if name.rsplit(".", 1)[-1] == "attn2"
        for part in ("to_k", "to_v")
    }
    if not weights:
        raise UserError(
            f"{type(unet).__name__}: no cross-attention (attn2) in this UNet, so no way in for text to edit"
        )
    _check_weights(weights)
    widths = {weight.shape[1] for weight in weights.values()}
    if len(widths) > 1:
        raise UserError(f"{type(unet).__name__}: cross-attention of several input widths {sorted(widths)}")
    return weights


def _check_weights(weights: dict[str, Parameter]) -> None:
    for name, weight in weights.items():
        if not weight.is_floating_point() or weight.dtype.itemsize < 2 or weight.ndim != 2:
            raise UserError(f"{name}: {weight.dtype} {list(weight.shape)}; load the model without quantisation")
        if weight.is_meta:
            raise UserError(f"{name}: the weight is offloaded; load the model without device_map or offloading")


def denoiser(pipe: Pipeline) -> Any:
    """The network that makes the image: the UNet, or the transformer of SD 3 and FLUX, a module of diffusers."""
    unet = part_of(pipe, "unet")
    return unet if unet is not None else part_of(pipe, "transformer")


def named_weight(pipe: Pipeline, name: str) -> Parameter:
    """The weight of a pipeline with a name such as ``unet.<module>.weight``.

    Raises:
        UserError: there is none of that name.
    """
    component, _, rest = name.partition(".")
    try:
        return getattr(pipe, component).get_parameter(rest)
    except AttributeError:
        raise UserError(f"{type(pipe).__name__} has no weight {name}; the edit was made for another model") from None
