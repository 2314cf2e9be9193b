"""Many short texts through a causal text encoder at the price of their distinct beginnings.

A row of a causal encoder depends on the tokens up to it alone, so texts that begin alike share the rows of that
beginning: BOS is the same for all, and ``painting by`` for every artist in that template. Here texts are laid side by
side in sequences of the encoder's length, each shared beginning once; an attention mask lets a token see its own
beginning and nothing else, and position numbers count from each text's BOS. The rows are those of each text alone, up
to the rounding of the encoder's type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

POSITIONS = 2048
"""Positions (sequences times tokens) in one call of a text encoder."""

EVEN = 8
"""Up to so many sequences are made equally long; with more, what the last one wastes is small."""


@dataclass
class Packed:
    """One sequence: distinct beginnings of texts, each at the slot of its last token.

    Attributes:
        tokens: the token at each slot.
        beginnings: the slots of the tokens up to and with each one: what it may see.
    """

    tokens: list[int] = field(default_factory=list)
    beginnings: list[list[int]] = field(default_factory=list)
    _next: dict[tuple[int, int], int] = field(default_factory=dict)  # slot and a token after it: that one's slot

    def new(self, text: Sequence[int]) -> int:
        """How many of a text's tokens are not here yet."""
        slot = -1
        for known, token in enumerate(text):
            if (slot, token) not in self._next:
                return len(text) - known
            slot = self._next[slot, token]
        return 0

    def add(self, text: Sequence[int]) -> list[int]:
        """Lay a text in; returns the slots of its tokens."""
        place: list[int] = []
        slot = -1
        for token in text:
            slot = self._next.setdefault((slot, token), len(self.tokens))
            place = [*place, slot]
            if slot == len(self.tokens):
                self.tokens.append(token)
                self.beginnings.append(place)
        return place


def pack(texts: Sequence[list[int]], length: int) -> tuple[list[Packed], list[tuple[int, list[int]]]]:
    """Lay texts into sequences of at most ``length`` tokens.

    Args:
        texts: token ids of each text, BOS first, none longer than ``length``.

    Returns:
        The sequences; and for each text the number of its sequence and its slots there.
    """
    sequences: list[Packed] = []
    places: list[tuple[int, list[int]]] = [(0, [])] * len(texts)
    for index in sorted(range(len(texts)), key=lambda i: texts[i]):  # texts that begin alike are neighbours
        if not sequences or len(sequences[-1].tokens) + sequences[-1].new(texts[index]) > length:
            sequences.append(Packed())
        places[index] = (len(sequences) - 1, sequences[-1].add(texts[index]))
    return sequences, places


def pack_evenly(texts: Sequence[list[int]], length: int) -> tuple[list[Packed], list[tuple[int, list[int]]]]:
    """:func:`pack` into the same number of sequences, as short as they can be."""
    packed = pack(texts, length)
    count = len(packed[0])
    if count <= EVEN:
        total = sum(len(sequence.tokens) for sequence in packed[0])
        for shorter in range(max(math.ceil(total / count), *map(len, texts), 1), length):
            tried = pack(texts, shorter)
            if len(tried[0]) == count:
                return tried
    return packed


@torch.no_grad()
def encode_packed(encoder: Any, texts: Sequence[list[int]], length: int, penultimate: bool) -> list[Tensor]:
    """Rows ``[n_i, d]`` of texts by a CLIP text encoder, on its device and in its type.

    Args:
        texts: token ids of each text, BOS first.
        length: the encoder's longest sequence.
        penultimate: the last-but-one hidden states, else the last after the final layer norm.
    """
    sequences, places = pack_evenly(texts, length)
    rows: list[Tensor] = []
    size = max(1, POSITIONS // max(len(sequence.tokens) for sequence in sequences))
    for start in range(0, len(sequences), size):
        output = encoder(**_inputs(sequences[start : start + size], encoder), output_hidden_states=penultimate)
        rows += output.hidden_states[-2] if penultimate else output.last_hidden_state
    return [rows[sequence][slots] for sequence, slots in places]


def _inputs(sequences: Sequence[Packed], encoder: Any) -> dict[str, Tensor]:
    longest = max(len(sequence.tokens) for sequence in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    positions = torch.zeros_like(ids)
    seen = torch.eye(longest, dtype=torch.bool).repeat(len(sequences), 1, 1, 1)
    for n, sequence in enumerate(sequences):
        ids[n, : len(sequence.tokens)] = torch.tensor(sequence.tokens)
        positions[n, : len(sequence.tokens)] = torch.tensor([len(slots) - 1 for slots in sequence.beginnings])
        for slot, slots in enumerate(sequence.beginnings):
            seen[n, 0, slot, slots] = True
    inputs = {"input_ids": ids, "position_ids": positions}
    # One text in each, all equally long, is what the encoder does by itself.
    if not torch.equal(seen, torch.ones(longest, longest, dtype=torch.bool).tril().expand_as(seen)):
        hidden = torch.zeros(seen.shape, dtype=encoder.dtype).masked_fill(~seen, torch.finfo(encoder.dtype).min)
        inputs["attention_mask"] = hidden
    return {name: tensor.to(encoder.device) for name, tensor in inputs.items()}
