"""The plain way: closed-form erasers written down layer by layer and concept by concept, as one would from a paper.

Each function edits a pipeline in place and is a whole job: encode, sum, invert, write. Prompts are encoded one at a
time at all 77 positions, each once; every layer builds its own sums of products, a concept at a time, and inverts its
own matrix. The numbers are of the type asked for (released code works in float32). The token rows are the erasers'
own, so both ways must give the same weights.

:func:`uce_2023_in_released_order` also does what the first UCE release does: it encodes each pair anew in every layer,
asks all layers for their outputs each time, and adds up one outer product a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

Pairs = Sequence[tuple[str, str]]
"""Texts of concepts, each with its anchor text."""


def layers(pipe: Any) -> Iterator[nn.Linear]:
    """The key and value projections of all cross-attentions."""
    for name, module in pipe.unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            yield module


@torch.no_grad()
def encode(pipe: Any, texts: Sequence[str]) -> list[tuple[Tensor, int]]:
    """Rows ``[77, d]`` of texts in one call of the text encoder, and their numbers of content tokens."""
    tokens = pipe.tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    rows = pipe.text_encoder(tokens.input_ids)[0]
    return [(row, int(mask.sum()) - 2) for row, mask in zip(rows, tokens.attention_mask, strict=True)]


def encode_each(pipe: Any, texts: Sequence[str], dtype: torch.dtype) -> dict[str, tuple[Tensor, int]]:
    """Each distinct text, one at a time."""
    encoded = {}
    for text in texts:
        if text not in encoded:
            rows, length = encode(pipe, [text])[0]
            encoded[text] = (rows.to(dtype), length)
    return encoded


def last_content(encoded: tuple[Tensor, int]) -> Tensor:
    """The row of the last content token (BOS if there is none), ``[1, d]``."""
    rows, length = encoded
    return rows[length : length + 1]


def tails(source: tuple[Tensor, int], target: tuple[Tensor, int]) -> tuple[Tensor, Tensor]:
    """Rows from the last content token to the end, of both, cut to the shorter."""
    size = 77 - max(source[1], target[1])
    return source[0][source[1] :][:size], target[0][target[1] :][:size]


@torch.no_grad()
def uce_2025(pipe: Any, pairs: Pairs, keep: Sequence[str], dtype: torch.dtype, lam: float = 0.5) -> None:
    """UCE by the 2025 rule: one token a text."""
    texts = [text for pair in pairs for text in pair] + list(keep)
    token = {text: last_content(rows) for text, rows in encode_each(pipe, texts, dtype).items()}
    for layer in layers(pipe):
        weight = layer.weight.to(dtype)
        first, second = lam * weight, lam * torch.eye(weight.shape[1], dtype=dtype)
        for concept, anchor in pairs:
            value = token[anchor] @ weight.T
            first += value.T @ token[concept]
            second += token[concept].T @ token[concept]
        for text in keep:
            value = token[text] @ weight.T
            first += value.T @ token[text]
            second += token[text].T @ token[text]
        layer.weight.copy_(first @ torch.inverse(second))


@torch.no_grad()
def uce_2023(
    pipe: Any, pairs: Pairs, keep: Sequence[str], dtype: torch.dtype, lam: float = 0.5, keep_scale: float = 1.0
) -> None:
    """UCE by the 2023 rule: the rows from the last content token to the end; all rows of kept texts."""
    encoded = encode_each(pipe, [text for pair in pairs for text in pair] + list(keep), dtype)
    rows = [tails(encoded[concept], encoded[anchor]) for concept, anchor in pairs]
    for layer in layers(pipe):
        _edit(layer, rows, [encoded[text][0] for text in keep], lam, keep_scale)


def _edit(layer: nn.Linear, pairs: Sequence[tuple[Tensor, Tensor]], keep: Sequence[Tensor], lam: float, scale: float):
    """The UCE edit of one layer: rows ``[n_i, d]`` of concepts and anchors, rows of kept texts."""
    dtype = pairs[0][0].dtype
    weight = layer.weight.to(dtype)
    first, second = lam * weight, lam * torch.eye(weight.shape[1], dtype=dtype)
    for source, target in pairs:
        value = target @ weight.T
        first += value.T @ source
        second += source.T @ source
    for rows in keep:
        value = rows @ weight.T
        first += scale * (value.T @ rows)
        second += scale * (rows.T @ rows)
    layer.weight.copy_(first @ torch.inverse(second))


@torch.no_grad()
def uce_2023_in_released_order(
    pipe: Any, pairs: Pairs, keep: Sequence[str], dtype: torch.dtype, lam: float = 0.5, keep_scale: float = 1.0
) -> None:
    """The same in the order of loops of the first release."""
    projections = list(layers(pipe))
    original = [layer.weight.to(dtype) for layer in projections]

    def add(index: int, source: Tensor, target: Tensor, scale: float, first: Tensor, second: Tensor) -> None:
        values = [target @ weight.T for weight in original][index]
        first += scale * (values[:, :, None] @ source[:, None, :]).sum(dim=0)
        second += scale * (source[:, :, None] @ source[:, None, :]).sum(dim=0)

    for index, layer in enumerate(projections):
        weight = original[index]
        first, second = lam * weight, lam * torch.eye(weight.shape[1], dtype=dtype)
        for pair in pairs:
            encoded = [(rows.to(dtype), length) for rows, length in encode(pipe, list(pair))]
            add(index, *tails(*encoded), 1.0, first, second)
        for text in keep:
            # The release encodes a kept text twice, as its own anchor.
            (rows, _), (same, _) = encode(pipe, [text, text])
            add(index, rows.to(dtype), same.to(dtype), keep_scale, first, second)
        layer.weight.copy_(first @ torch.inverse(second))


@torch.no_grad()
def rece(
    pipe: Any, pairs: Pairs, keep: Sequence[str], dtype: torch.dtype, epochs: int = 3, regular: float = 0.1,
    lam: float = 0.1, keep_scale: float = 0.1, start_lam: float = 0.5, start_keep_scale: float = 1.0,
) -> None:  # fmt: skip
    """RECE: UCE by the 2023 rule, then rounds of finding what still reaches the concepts, and of erasing it."""
    encoded = encode_each(pipe, [text for pair in pairs for text in pair] + list(keep), dtype)
    projections = list(layers(pipe))
    original = [layer.weight.to(dtype, copy=True) for layer in projections]
    kept = [encoded[text][0] for text in keep]
    rows = [tails(encoded[concept], encoded[anchor]) for concept, anchor in pairs]
    for layer in projections:
        _edit(layer, rows, kept, start_lam, start_keep_scale)
    for _ in range(epochs):
        width = original[0].shape[1]
        system, reached = regular * torch.eye(width, dtype=dtype), torch.zeros(width, width, dtype=dtype)
        for layer, old in zip(projections, original, strict=True):
            weight = layer.weight.to(dtype)
            system += weight.T @ weight
            reached += weight.T @ old
        back = torch.inverse(system) @ reached
        rows = [(encoded[concept][0] @ back.T, encoded[anchor][0]) for concept, anchor in pairs]
        for layer in projections:
            _edit(layer, rows, kept, lam, keep_scale)


@torch.no_grad()
def cure(pipe: Any, forget: Sequence[str], retain: Sequence[str], dtype: torch.dtype, alpha: float = 2.0) -> None:
    """CURE on the last content tokens of forget and retain prompts."""
    encoded = encode_each(pipe, [*forget, *retain], dtype)

    def projector(texts: Sequence[str]) -> Tensor:
        tokens = torch.cat([last_content(encoded[text]) for text in texts])
        directions, s, _ = torch.linalg.svd(tokens.T, full_matrices=False)
        share = s**2 / (s**2).sum()
        return directions @ torch.diag(alpha * share / ((alpha - 1) * share + 1)) @ directions.T

    forgotten = projector(forget)
    discriminative = forgotten - forgotten @ projector(retain)
    unlearn = torch.eye(len(discriminative), dtype=dtype) - discriminative
    for layer in layers(pipe):
        layer.weight.copy_(layer.weight.to(dtype) @ unlearn)


@torch.no_grad()
def speed(
    pipe: Any, pairs: Pairs, retain: Sequence[str], dtype: torch.dtype, threshold: float, retain_scale: float,
    filtered: bool, copies: int = 10, chunk: int = 128, seed: int = 0,
) -> None:  # fmt: skip
    """SPEED on the value weights: null space of the retained tokens and their copies, then the constrained edit.

    The copies' noise is drawn as numbers along the weight's last direction, which is the same in distribution as
    projecting a whole random vector on it; that makes the two ways comparable number by number.
    """
    encoded = encode_each(pipe, ["", *(text for pair in pairs for text in pair), *retain], dtype)
    token = {text: last_content(rows) for text, rows in encoded.items()}
    empty = encoded[""][0]
    width = empty.shape[1]
    identity = torch.eye(width, dtype=dtype)
    own, cross = torch.zeros(width, width, dtype=dtype), torch.zeros(width, width, dtype=dtype)
    for concept, anchor in pairs:
        own += token[concept].T @ token[concept] / len(pairs)
        cross += token[anchor].T @ token[concept] / len(pairs)
    rest, numbers = empty[1:].double().numpy(), np.random.default_rng(seed)
    starts = [kmeans2(rest, 3, iter=100, minit="++", rng=numbers) for _ in range(10)]
    centres, _ = min(starts, key=lambda start: ((rest - start[0][start[1]]) ** 2).sum())
    fixed = torch.cat([empty[:1], torch.from_numpy(centres).to(dtype)]).T
    retained = torch.cat([token[text] for text in retain])
    noise = torch.Generator().manual_seed(seed)
    for name, layer in pipe.unet.named_modules():
        if not name.endswith("attn2.to_v"):
            continue
        weight = layer.weight.to(dtype)
        drawn = torch.randn(len(retained), copies, generator=noise, dtype=torch.float64).to(dtype)
        wish = weight @ (cross - own) @ torch.inverse(identity + own)
        rows = retained
        if filtered:
            influence = torch.linalg.norm(rows @ wish.T, dim=1)
            rows, drawn = rows[influence > influence.mean()], drawn[influence > influence.mean()]
        last = torch.linalg.svd(weight, full_matrices=False).Vh[-1]
        last = last * last[last.abs().argmax()].sign()
        total, count = rows.T @ rows, len(rows)
        for some, numbers in zip(rows.split(chunk), drawn.split(chunk), strict=True):
            near = (some[:, None, :] + numbers[:, :, None] * last).flatten(0, 1)
            influence = torch.linalg.norm(near @ wish.T, dim=1)
            near = near[influence > influence.mean()]
            total, count = total + near.T @ near, count + len(near)
        directions, values, _ = torch.linalg.svd(total / count)
        null = directions[:, values < threshold]
        null = null @ null.T
        m = torch.inverse(own @ null + retain_scale * identity)
        small = fixed.T @ null @ m @ fixed
        # Where the fixed rows hardly reach into the null space an inverse would be rounding alone.
        rounding = width * torch.finfo(dtype).eps * torch.linalg.norm(fixed) ** 2 / retain_scale
        back = torch.linalg.pinv((small + small.T) / 2, atol=rounding.item(), rtol=0.0, hermitian=True)
        layer.weight.copy_(weight + weight @ (cross - own) @ null @ (identity - m @ fixed @ back @ fixed.T @ null) @ m)
