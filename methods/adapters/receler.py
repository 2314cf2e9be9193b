"""Receler's erasers (Huang et al., ECCV 2024): a small network behind every cross-attention.

Their training is :mod:`erasebench.methods.trained.receler`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.nn import Module
from torch.nn.functional import gelu, linear

from erasebench.edits.hook import Hook
from erasebench.errors import UserError
from erasebench.methods.adapters.beside import Addition, beside
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import denoiser

PARTS = ("down.weight", "down.bias", "up.weight", "up.bias")
"""The tensors of one eraser: [inner, d], [inner], [d, inner], [d]."""


def erased(output: Tensor, tensors: Mapping[str, Tensor], layer: str) -> Tensor:
    """What the eraser of a layer adds to its output [..., d]: ``up(gelu(down(output)))``."""
    down, down_bias, up, up_bias = (tensors[f"{layer}.{part}"].to(output) for part in PARTS)
    return linear(gelu(linear(output, down, down_bias)), up, up_bias)


def cross_attention(network: Module) -> dict[str, Any]:
    """The cross-attention layers (``attn2``) of a UNet by name."""
    return {name: module for name, module in network.named_modules() if name.rsplit(".", 1)[-1] == "attn2"}


class RecelerErasers(Hook):
    """Erasers behind cross-attention: its output y becomes ``y + up(gelu(down(y)))``, in both passes of guidance.

    Tensors: for every layer the four of :data:`PARTS`, under the layer's name in the UNet.
    """

    name = "receler"

    @contextmanager
    def installed(self, pipe: Pipeline) -> Iterator[None]:
        """Forward hooks at the layers.

        Raises:
            UserError: a layer is missing or has another width.
        """
        network = denoiser(pipe)
        layers = cross_attention(network)
        names = {name.removesuffix(f".{PARTS[0]}") for name in self.tensors if name.endswith(PARTS[0])}
        for name in sorted(names | set(layers)):
            width = layers[name].to_out[0].out_features if name in layers else None
            there = len(self.tensors[f"{name}.up.bias"]) if name in names else None
            if width != there:
                raise UserError(
                    f"unet.{name}: the model's cross-attention is {width or 'not there'}, the eraser's {there or 'neither'}; "
                    "the edit was made for another model"
                )
        device = next(network.parameters()).device
        tensors = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        with beside(network, {name: self._addition(name, tensors) for name in names}):
            yield

    def _addition(self, name: str, tensors: Mapping[str, Tensor]) -> Addition:
        return lambda layer, inputs, output: erased(output, tensors, name)
