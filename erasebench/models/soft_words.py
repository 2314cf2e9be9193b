"""Soft words: embeddings, trained or searched for, that stand in a text in the place of tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def padded(tokenizer: Any, tokens: Tensor) -> Tensor:
    """Token ids ``[n, k]`` between BOS and EOS, padded as the tokenizer pads: ``[n, positions]``."""
    n, k = tokens.shape
    ids = torch.full((n, tokenizer.model_max_length), tokenizer.pad_token_id)
    ids[:, 0], ids[:, k + 1] = tokenizer.bos_token_id, tokenizer.eos_token_id
    ids[:, 1 : k + 1] = tokens
    return ids


def placed(tokenizer: Any, text: str, phrases: Sequence[str], count: int) -> tuple[Tensor, int]:
    """A text with room for soft words in the place of the first of some phrases in it; at its end where it has none.

    A text that gets too long loses its last tokens, never the room.

    Args:
        tokenizer: of CLIP.
        text: as it is typed.
        phrases: whole words, in any case; where several begin at one place the longest is replaced.
        count: of soft words.

    Returns:
        Token ids [1, positions], any in the room, and the first position of the room.
    """
    worded = "|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True))
    match = re.search(rf"(?<!\w)(?:{worded})(?!\w)", text, re.IGNORECASE) if worded else None
    parts = (text[: match.start()], text[match.end() :]) if match else (text, "")
    before, after = tokenizer(list(parts), add_special_tokens=False, verbose=False).input_ids
    room = tokenizer.model_max_length - 2 - count
    before = before[:room]
    ids = [*before, *[0] * count, *after[: room - len(before)]]
    return padded(tokenizer, torch.tensor([ids])), 1 + len(before)


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
    return read_at(encoder, ids, words, range(start, start + words.shape[1]))


def read_at(encoder: Any, ids: Tensor, words: Tensor, places: Sequence[int]) -> Tensor:
    """:func:`read_with` at any positions: the words [1, k, d] stand at ``places``, k of them."""
    where = torch.tensor(list(places), device=ids.device)

    def put(layer: Any, inputs: Any, output: Tensor) -> Tensor:
        return output.index_copy(1, where, words.to(output).expand(len(output), -1, -1))

    handle = encoder.get_input_embeddings().register_forward_hook(put)
    try:
        return encoder(ids)[0]
    finally:
        handle.remove()
