"""Encoded texts of one pipeline, kept while images of them are made."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from erasebench.models.encode import encode_prompts
from erasebench.models.pipeline import Pipeline

KEPT_TEXTS = 256
"""How many encoded texts are kept; 30 000 of them would fill several GiB."""


class Texts:
    """Encoded texts of one pipeline: each distinct text is encoded once while it is in use."""

    def __init__(self, pipe: Pipeline) -> None:
        self.pipe = pipe
        self.kept: dict[tuple[str, bool], tuple[torch.Tensor, ...]] = {}

    def __call__(self, texts: Sequence[str], negative: bool = False) -> tuple[torch.Tensor, ...]:
        """Embeddings [n, positions, d], and for all but SD 1.x and 2.x the pooled ones [n, p], of texts."""
        wanted = [(text, negative) for text in texts]
        new = [entry for entry in dict.fromkeys(wanted) if entry not in self.kept]
        if new:
            if len(self.kept) + len(new) > KEPT_TEXTS:
                self.kept = {entry: self.kept[entry] for entry in wanted if entry in self.kept}
            parts = encode_prompts(self.pipe, [text for text, _ in new], negative)
            # Clones, so that one kept text does not keep its whole batch.
            self.kept.update((entry, tuple(p[i].clone() for p in parts)) for i, entry in enumerate(new))
        return tuple(torch.stack(rows) for rows in zip(*(self.kept[entry] for entry in wanted), strict=True))
