"""What cross-attention looks at: its probabilities while a network is evaluated, with their gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from torch.nn import Module


@contextmanager
def recorded_attention(unet: Module) -> Iterator[dict[str, Tensor]]:
    """Record the probabilities of every cross-attention (``attn2``) of a network, until the block ends.

    The plain processor of diffusers stands in for the fused one, which never has the probabilities as a tensor. An
    evaluation replaces what the one before it recorded. Not with gradient checkpointing, whose first pass has no
    gradients.

    Yields:
        By the layer's name, in the order of evaluation: [images * heads, pixels, positions], in the graph.
    """
    layers: dict[str, Any] = {
        name: module for name, module in unet.named_modules() if name.rsplit(".", 1)[-1] == "attn2"
    }
    processors = {name: layer.processor for name, layer in layers.items()}
    maps: dict[str, Tensor] = {}

    def record(name: str, layer: Any) -> None:
        scores = type(layer).get_attention_scores

        def recording(*args: Any, **options: Any) -> Tensor:
            maps[name] = scores(layer, *args, **options)
            return maps[name]

        layer.get_attention_scores = recording
        layer.set_processor(AttnProcessor())

    try:
        for name, layer in layers.items():
            record(name, layer)
        yield maps
    finally:
        for name, layer in layers.items():
            vars(layer).pop("get_attention_scores", None)
            layer.set_processor(processors[name])


def layer_shape(pixels: int, size: Sequence[int]) -> tuple[int, int]:
    """Height and width of what a layer looks from, by its number of pixels and the height and width of the image."""
    height, width = size
    scale = round((height * width / pixels) ** 0.5)
    return -(-height // scale), -(-width // scale)
