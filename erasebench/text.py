"""Prompts as the UNet sees them: token embeddings, and rules that pick rows of them.

A Stable Diffusion text encoder turns a prompt into 77 rows: BOS, the content tokens 1..n, EOS at n+1, and padding.
Row i depends on tokens up to i only (causal attention), so the BOS row is the same for every prompt, and the rows
after EOS do carry the prompt. The pipelines call the encoder without an attention mask; so does this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from erasebench.errors import UserError, suggest

TOKEN_RULES = ("last_content", "content", "content_eos", "tail", "all", "no_bos", "mean")
"""Names for choices of rows of a prompt with n content tokens:

``last_content`` row n (BOS for an empty prompt) · ``content`` rows 1..n (none for an empty prompt) ·
``content_eos`` rows 1..n+1 · ``tail`` rows n..76 · ``all`` rows 0..76 · ``no_bos`` rows 1..76 ·
``mean`` one row, the mean of BOS, content and the first EOS (rows 0..n+1).
"""


@dataclass(frozen=True)
class TextRows:
    """Encoded texts.

    Attributes:
        texts: the texts, in the order they were given, repeats included.
        embeddings: ``[n, 77, d]`` float32 on the CPU, the cross-attention input of each text.
        lengths: ``[n]`` int64, number of content tokens (0 for ``""``; at most 75).
    """

    texts: tuple[str, ...]
    embeddings: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.texts)


@torch.no_grad()
def encode(pipe: Any, texts: Sequence[str], batch_size: int = 64) -> TextRows:
    """Encode texts exactly as the pipeline encodes its prompts; each distinct text is encoded once.

    SD 1.x and 2.x: the text encoder's last hidden state after the final layer norm. SDXL: the last-but-one hidden
    states of both encoders, side by side. Prompts are padded to the tokenizer's length and cut there; no attention
    mask is used.

    Args:
        pipe: a Stable Diffusion pipeline (1.x, 2.x or XL).
        texts: any strings; ``""`` is the unconditional text.
        batch_size: distinct texts in one call of the encoder.

    Returns:
        The rows and the numbers of content tokens. ``lengths`` come from the first tokenizer.

    Raises:
        UserError: the pipeline has no CLIP text encoder.
    """
    encoders = _encoders(pipe)
    distinct = list(dict.fromkeys(texts))
    parts, counts = [], []
    for start in range(0, len(distinct), batch_size):
        batch = distinct[start : start + batch_size]
        parts.append(torch.cat([_hidden(*pair, batch, len(encoders) > 1) for pair in encoders], dim=-1))
        counts += [_content_length(encoders[0][0], text) for text in batch]
    if not distinct:
        raise UserError("no text to encode; give at least one")
    index = {text: i for i, text in enumerate(distinct)}
    order = torch.tensor([index[text] for text in texts])
    return TextRows(tuple(texts), torch.cat(parts)[order], torch.tensor(counts)[order])


def token_rows(encoded: TextRows, rule: str) -> list[Tensor]:
    """Pick rows of each text by a rule of :data:`TOKEN_RULES`.

    Returns:
        One ``[rows_i, d]`` float32 tensor for each text, in order.

    Raises:
        UserError: unknown rule.
    """
    check_rule(rule)
    picked = []
    for rows, n in zip(encoded.embeddings, encoded.lengths.tolist(), strict=True):
        picked.append(
            {
                "last_content": lambda rows=rows, n=n: rows[n : n + 1],
                "content": lambda rows=rows, n=n: rows[1 : n + 1],
                "content_eos": lambda rows=rows, n=n: rows[1 : n + 2],
                "tail": lambda rows=rows, n=n: rows[n:],
                "all": lambda rows=rows: rows,
                "no_bos": lambda rows=rows: rows[1:],
                "mean": lambda rows=rows, n=n: rows[: n + 2].mean(dim=0, keepdim=True),
            }[rule]()
        )
    return picked


def check_rule(rule: str) -> str:
    """Return a token rule's name if it is one, else raise :class:`UserError` with the nearest name."""
    if rule not in TOKEN_RULES:
        raise UserError(f"unknown token rule {rule!r}.{suggest(rule, TOKEN_RULES)} Known: {', '.join(TOKEN_RULES)}")
    return rule


def truncated_text(pipe: Any, prompt: str) -> str:
    """The part of a prompt that the text encoder never sees because it lies behind the last position.

    Returns:
        The text that is cut, as the tokenizer writes it; ``""`` if the whole prompt fits.
    """
    tokenizer = _encoders(pipe)[0][0]
    ids = tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
    return tokenizer.decode(ids[tokenizer.model_max_length - 2 :]).strip()


def _encoders(pipe: Any) -> list[tuple[Any, Any]]:
    pairs = [
        (getattr(pipe, f"tokenizer{suffix}", None), getattr(pipe, f"text_encoder{suffix}", None))
        for suffix in ("", "_2")
    ]
    pairs = [(tokenizer, encoder) for tokenizer, encoder in pairs if tokenizer is not None and encoder is not None]
    if not pairs or hasattr(pipe, "text_encoder_3") or any("CLIP" not in type(e).__name__ for _, e in pairs):
        raise UserError(
            f"{type(pipe).__name__}: prompts of this pipeline cannot be encoded; "
            "erasebench knows pipelines with CLIP text encoders (Stable Diffusion 1.x, 2.x, XL)"
        )
    return pairs


def _hidden(tokenizer: Any, encoder: Any, texts: list[str], penultimate: bool) -> Tensor:
    ids = tokenizer(
        texts,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids.to(encoder.device)
    output = encoder(ids, output_hidden_states=penultimate)
    hidden = output.hidden_states[-2] if penultimate else output.last_hidden_state
    return hidden.float().cpu()


def _content_length(tokenizer: Any, text: str) -> int:
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return min(len(ids), tokenizer.model_max_length - 2)
