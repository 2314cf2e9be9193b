"""Soft words: embeddings, trained or searched for, that stand in a text in the place of tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def read_with(encoder: Any, ids: Tensor, words: Tensor, start: int) -> Tensor:
    """A text as a CLIP text encoder reads it with soft words in the places of some of its tokens, in the graph.

    Args:
        encoder: of transformers.
        ids: [n, positions], token ids; what stands where the words go does not matter.
        words: [1, k, d], embeddings.
        start: the first word's position.

    Returns:
        [n, positions, d].
    """
    stop = start + words.shape[1]

    def put(layer: Any, inputs: Any, output: Tensor) -> Tensor:
        return torch.cat([output[:, :start], words.expand(len(output), -1, -1), output[:, stop:]], dim=1)

    handle = encoder.get_input_embeddings().register_forward_hook(put)
    try:
        return encoder(ids)[0]
    finally:
        handle.remove()
