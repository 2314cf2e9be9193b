"""Prompts as the network sees them: token embeddings, and rules that pick rows of them.

A CLIP text encoder turns a prompt into 77 rows: BOS, the content tokens 1..n, EOS at n+1, and padding.
Row i depends on tokens up to i only (causal attention), so the BOS row is the same for every prompt, and the rows
after EOS do carry the prompt. The pipelines call the encoder without an attention mask; so does this file. T5, which
SD 3 and FLUX also read, is in :mod:`erasebench.models.text_t5`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from erasebench.errors import UserError, suggest
from erasebench.models.pipeline import Pipeline, part_of
from erasebench.models.text_packing import POSITIONS, encode_packed
from erasebench.models.text_t5 import T5Rows, t5_length

TOKEN_RULES = ("last_content", "content", "content_eos", "eos", "tail", "all", "no_bos", "mean")
"""Names for choices of rows of a prompt with n content tokens:

``last_content`` row n (BOS for an empty prompt) · ``content`` rows 1..n (none for an empty prompt) ·
``content_eos`` rows 1..n+1 · ``eos`` row n+1 · ``tail`` rows n..76 · ``all`` rows 0..76 · ``no_bos`` rows 1..76 ·
``mean`` one row, the mean of BOS, content and the first EOS (rows 0..n+1).

These are CLIP's positions; T5 has no BOS (:class:`erasebench.models.text_t5.T5Rows`).
"""

PROMPTS_AT_ONCE = 1000
"""Prompts that are split into tokens at a time, to see which are too long."""


class Texts:
    """The token rows of texts as a pipeline's network sees them; each distinct text is encoded once.

    SD 1.x and 2.x: the text encoder's last hidden state after the final layer norm. SDXL: the last-but-one hidden
    states of both encoders, side by side. SD 3: those, with zeros to the width of T5, and behind them T5's rows by the
    same rule (none where the model came without T5: its pipeline reads zeros there). FLUX: T5's rows alone. Prompts
    are cut at the tokenizer's length; no attention mask is used.

    CLIP's attention is causal, so a row depends on the tokens up to it alone: rules that end at the last content token
    or at EOS never compute the padding behind it, texts that begin alike share that beginning, and the rows are the
    same (:mod:`erasebench.models.text_packing`).

    Args:
        pipe: a Stable Diffusion (1.x, 2.x, XL, 3) or FLUX pipeline.

    Attributes:
        encoders: the CLIP tokenizers and text encoders whose rows these are, in pairs.
        t5: the rows of T5 (SD 3, FLUX), or None.

    Raises:
        UserError: the pipeline has other text encoders than CLIP and T5.
    """

    def __init__(self, pipe: Pipeline) -> None:
        clip, t5 = _encoders(pipe)
        self.encoders = [] if t5 and not hasattr(pipe, "text_encoder_3") else clip  # FLUX: CLIP's pooled text only
        self.t5 = T5Rows(*t5, t5_length(pipe)) if t5 else None
        transformer = part_of(pipe, "transformer")
        self._width = transformer.config.joint_attention_dim if transformer is not None else None
        self._known: dict[str, tuple[int, Tensor]] = {}

    def fresh(self) -> Texts:
        """The same encoders with nothing encoded yet: rows of many texts are forgotten with it."""
        other = copy(self)
        other._known = {}
        return other

    def rows(self, texts: Sequence[str], rule: str) -> list[Tensor]:
        """The rows of each text by a rule of :data:`TOKEN_RULES`.

        Returns:
            One ``[rows_i, d]`` float32 tensor on the CPU for each text, in order.

        Raises:
            UserError: unknown rule.
        """
        parts = self.parts(texts, rule)
        return parts[0] if len(parts) == 1 else [torch.cat(rows) for rows in zip(*parts, strict=True)]

    def parts(self, texts: Sequence[str], rule: str) -> list[list[Tensor]]:
        """The rows of :meth:`rows`, those of CLIP and those of T5 by themselves: for SD 3 two lists, else one."""
        check_rule(rule)
        made = []
        if self.encoders:
            self._encode(list(dict.fromkeys(texts)), rule)
            rows = [_rows_of_rule(row, count, rule) for count, row in map(self._known.__getitem__, texts)]
            made.append([pad(row, (0, self._width - row.shape[1])) for row in rows] if self._width else rows)
        if self.t5 is not None:
            made.append(self.t5.rows(texts, rule))
        return made

    @torch.no_grad()
    def _encode(self, texts: list[str], rule: str) -> None:
        """Encode what is not known yet, or not as far as the rule looks."""
        new = [
            text for text in texts if text not in self._known or len(self._known[text][1]) < self._length(rule, text)
        ]
        if not new:
            return
        tokens = [
            tokenizer(new, padding="max_length", max_length=tokenizer.model_max_length, truncation=True)
            for tokenizer, _ in self.encoders
        ]
        counts = [sum(mask) - 2 for mask in tokens[0].attention_mask]
        whole = len(tokens[0].input_ids[0])
        parts = []
        for (_, encoder), part in zip(self.encoders, tokens, strict=True):
            ids = [ids[: _needed(rule, count, whole)] for ids, count in zip(part.input_ids, counts, strict=True)]
            parts.append(encode_packed(encoder, ids, whole, len(self.encoders) > 1))
        for text, count, rows in zip(new, counts, zip(*parts, strict=True), strict=True):
            row = torch.cat(rows, dim=-1).cpu()
            self._known[text] = (count, row if row.dtype == torch.float64 else row.float())

    def _length(self, rule: str, text: str) -> int:
        count, _ = self._known[text]
        return _needed(rule, count, self.encoders[0][0].model_max_length)


class Pooled:
    """The pooled text of SD 3 and FLUX: one row a text, whatever the rule.

    SD 3: the projected pooled text of both CLIP encoders, side by side. FLUX: the pooled text of its CLIP encoder,
    without projection. Both are read at the first EOS, so nothing behind it is computed.

    Args:
        pipe: an SD 3 or FLUX pipeline.
    """

    def __init__(self, pipe: Pipeline) -> None:
        self._encoders, _ = _encoders(pipe)
        self._known: dict[str, Tensor] = {}

    def rows(self, texts: Sequence[str], rule: str) -> list[Tensor]:
        """One ``[1, d]`` float32 tensor on the CPU for each text, in order."""
        check_rule(rule)
        self._encode([text for text in dict.fromkeys(texts) if text not in self._known])
        return [self._known[text] for text in texts]

    def parts(self, texts: Sequence[str], rule: str) -> list[list[Tensor]]:
        """The rows, as the one list there is."""
        return [self.rows(texts, rule)]

    @torch.no_grad()
    def _encode(self, texts: list[str]) -> None:
        tokens = [
            tokenizer(
                texts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
            )
            for tokenizer, _ in (self._encoders if texts else [])
        ]
        lengths = tokens[0].attention_mask.sum(dim=1).tolist() if texts else []
        for batch in _batches(lengths):
            pooled = []
            for (_, encoder), part in zip(self._encoders, tokens, strict=True):
                output = encoder(part.input_ids[batch, : lengths[batch[-1]]].to(encoder.device))
                made = output.text_embeds if "text_embeds" in output else output.pooler_output
                pooled.append((made if made.dtype == torch.float64 else made.float()).cpu())
            for index, row in zip(batch, torch.cat(pooled, dim=-1), strict=True):
                self._known[texts[index]] = row[None]


def _needed(rule: str, count: int, whole: int) -> int:
    """How many positions a rule looks at, for a text of ``count`` content tokens."""
    if rule in ("last_content", "content"):
        return count + 1
    return count + 2 if rule in ("content_eos", "eos", "mean") else whole


def _rows_of_rule(rows: Tensor, n: int, rule: str) -> Tensor:
    if rule == "last_content":
        return rows[n : n + 1]
    if rule == "content":
        return rows[1 : n + 1]
    if rule == "content_eos":
        return rows[1 : n + 2]
    if rule == "eos":
        return rows[n + 1 : n + 2]
    if rule == "mean":
        return rows[: n + 2].mean(dim=0, keepdim=True)
    return {"tail": rows[n:], "all": rows, "no_bos": rows[1:]}[rule]


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of texts from short to long, so many at a time that :data:`POSITIONS` is not exceeded."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > POSITIONS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def check_rule(rule: str) -> str:
    """Return a token rule's name if it is one, else raise :class:`UserError` with the nearest name."""
    if rule not in TOKEN_RULES:
        raise UserError(f"unknown token rule {rule!r}.{suggest(rule, TOKEN_RULES)} Known: {', '.join(TOKEN_RULES)}")
    return rule


def truncated_texts(pipe: Pipeline, prompts: Sequence[str]) -> dict[str, str]:
    """The parts of prompts that no text encoder sees because they lie behind the last position.

    Returns:
        By prompt, the text that is cut, as the tokenizer writes it; only prompts that do not fit.
    """
    clip, t5 = _encoders(pipe)
    tokenizer, seen = clip[0][0], clip[0][0].model_max_length - 2  # without BOS and EOS
    if t5:  # it reads further than CLIP, and knows EOS alone
        tokenizer, seen = t5[0], t5_length(pipe) - 1
    cut = {}
    for start in range(0, len(prompts), PROMPTS_AT_ONCE):
        part = list(prompts[start : start + PROMPTS_AT_ONCE])
        for prompt, ids in zip(part, tokenizer(part, add_special_tokens=False, verbose=False).input_ids, strict=True):
            if len(ids) > seen and (rest := tokenizer.decode(ids[seen:]).strip()):
                cut[prompt] = rest
    return cut


def _encoders(pipe: Pipeline) -> tuple[list[tuple[Any, Any]], tuple[Any, Any] | None]:
    """The pipeline's CLIP tokenizers and encoders, and its T5 ones if it has any."""
    pairs = [
        (part_of(pipe, f"tokenizer{suffix}"), part_of(pipe, f"text_encoder{suffix}")) for suffix in ("", "_2", "_3")
    ]
    pairs = [(tokenizer, encoder) for tokenizer, encoder in pairs if tokenizer is not None and encoder is not None]
    clip = [pair for pair in pairs if "CLIP" in type(pair[1]).__name__]
    t5 = [pair for pair in pairs if "T5" in type(pair[1]).__name__]
    if not clip or len(t5) > 1 or len(clip) + len(t5) < len(pairs):
        raise UserError(
            f"{type(pipe).__name__}: prompts of this pipeline cannot be encoded; "
            "erasebench knows pipelines with CLIP and T5 text encoders (Stable Diffusion 1.x, 2.x, XL, 3, and FLUX)"
        )
    return clip, t5[0] if t5 else None
