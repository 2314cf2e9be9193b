"""Prompts as T5 encodes them for SD 3 and FLUX: token rows, and the rules that pick rows of them.

T5 has no BOS: a prompt is the content tokens 0..n-1, EOS at n, and padding up to the pipeline's length. Its attention
looks both ways and the pipelines give it no mask, so every row depends on the whole padded text. A text is therefore
always encoded at full length, also where only one row is wanted.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from erasebench.models.pipeline import Pipeline

POSITIONS = 2048
"""Positions (texts times length) in one call of the encoder."""


class T5Rows:
    """The T5 token rows of texts; each distinct text is encoded once, and only rows that were asked for are kept.

    The rules of :data:`erasebench.models.text.TOKEN_RULES`, for n content tokens:

    ``last_content`` row n-1 (EOS, row 0, for an empty text: there is no BOS) · ``content`` rows 0..n-1 ·
    ``content_eos`` rows 0..n · ``eos`` row n · ``tail`` rows n-1 to the end (all for an empty text) · ``all`` and
    ``no_bos`` every row · ``mean`` one row, the mean of content and EOS (rows 0..n).

    Args:
        tokenizer, encoder: T5's.
        length: positions of a text; longer ones are cut (:func:`t5_length`).
    """

    def __init__(self, tokenizer: Any, encoder: Any, length: int) -> None:
        self.tokenizer, self.encoder, self.length = tokenizer, encoder, length
        self._known: dict[str, tuple[int, Tensor]] = {}

    def rows(self, texts: Sequence[str], rule: str) -> list[Tensor]:
        """The rows of each text by a rule: one ``[rows_i, d]`` float32 tensor on the CPU a text, in order."""
        self._encode(list(dict.fromkeys(texts)), rule)
        return [_t5_rows_of_rule(*self._known[text], rule) for text in texts]

    @torch.no_grad()
    def _encode(self, texts: list[str], rule: str) -> None:
        new = [text for text in texts if text not in self._known or not self._holds(text, rule)]
        size = max(1, POSITIONS // self.length)
        for start in range(0, len(new), size):
            batch = new[start : start + size]
            tokens = self.tokenizer(
                batch, padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
            )
            hidden = self.encoder(tokens.input_ids.to(self.encoder.device)).last_hidden_state
            hidden = (hidden if hidden.dtype == torch.float64 else hidden.float()).cpu()
            counts = (tokens.attention_mask.sum(dim=1) - 1).tolist()
            for text, count, rows in zip(batch, counts, hidden, strict=True):
                self._known[text] = (count, rows[: _needed(rule, count, self.length)].clone())

    def _holds(self, text: str, rule: str) -> bool:
        count, rows = self._known[text]
        return len(rows) >= _needed(rule, count, self.length)


def t5_length(pipe: Pipeline) -> int:
    """Positions that the pipeline gives T5 unless told otherwise: 256 for SD 3, 512 for FLUX."""
    return inspect.signature(pipe.encode_prompt).parameters["max_sequence_length"].default


def _needed(rule: str, count: int, whole: int) -> int:
    """How many rows, from the first, a rule picks from for a text of ``count`` content tokens."""
    if rule in ("last_content", "content"):
        return max(count, 1)
    return count + 1 if rule in ("content_eos", "eos", "mean") else whole


def _t5_rows_of_rule(n: int, rows: Tensor, rule: str) -> Tensor:
    last = max(n - 1, 0)
    if rule == "mean":
        return rows[: n + 1].mean(dim=0, keepdim=True)
    return {
        "last_content": rows[last : last + 1],
        "content": rows[:n],
        "content_eos": rows[: n + 1],
        "eos": rows[n : n + 1],
        "tail": rows[last:],
        "all": rows,
        "no_bos": rows,
    }[rule]
