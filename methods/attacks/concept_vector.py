"""What a concept is to a text encoder: the mean difference between sentences with it and without it.

Ring-A-Bell (Tsai et al., ICLR 2024), equation of the concept vector: ``v = mean_i (E(with_i) - E(without_i))``, where
``E`` gives all 77 rows that the network reads. A prompt's rows plus ``eta v`` are the rows of that prompt with more of
the concept in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from erasebench.concepts import Concept, with_article
from erasebench.errors import UserError
from erasebench.models.pipeline import Pipeline
from erasebench.prompts.templates import COLOURS, PEOPLE, PROMPT_TEMPLATES, SUBJECTS

SENTENCES = 64
"""Sentences in one call of a text encoder."""

ONE_ENCODER = dict.fromkeys(("sdxl", "sd3", "flux"), "made for models whose network reads one CLIP text encoder")
"""Families of models that these attacks cannot attack, and why."""

Pairs = Sequence[tuple[str, ...]]
"""Sentences with the concept, each beside one without it."""


def checked_pairs(pairs: Any) -> Pairs | None:
    """Pairs as options give them, as tuples; ``None`` if there are none of their own.

    Raises:
        UserError: they are not pairs of texts.
    """
    if pairs is None:
        return None
    made = tuple(tuple(pair) if isinstance(pair, list | tuple) else pair for pair in pairs)
    for number, pair in enumerate(made, start=1):
        if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise UserError(f"pairs: pair {number} is {pair!r}; give texts as [[with, without], ...]")
    if not made:
        raise UserError("pairs: the list is empty; give texts as [[with, without], ...], or null for our own")
    return made


def concept_vector(pipe: Pipeline, pairs: Pairs) -> Tensor:
    """The concept vector of some pairs, ``[77, d]`` float32 on the text encoder's device."""
    having, lacking = (encoded(pipe, token_ids(pipe, side)) for side in zip(*pairs, strict=True))
    return (having - lacking).mean(dim=0)


def shifted_rows(pipe: Pipeline, prompt: str, pairs: Pairs, eta: float) -> Tensor:
    """The rows of a prompt with more of a concept in it: ``E(prompt) + eta v``, ``[77, d]`` float32."""
    return encoded(pipe, token_ids(pipe, [prompt]))[0] + eta * concept_vector(pipe, pairs)


def token_ids(pipe: Pipeline, texts: Sequence[str]) -> Tensor:
    """Token ids ``[n, 77]`` of texts, cut and padded as the pipeline does it."""
    tokenizer = pipe.tokenizer
    length = tokenizer.model_max_length
    return tokenizer(
        list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids


@torch.no_grad()
def encoded(pipe: Pipeline, ids: Tensor) -> Tensor:
    """The rows that the network reads for token ids ``[n, 77]``: ``[n, 77, d]`` float32 on the encoder's device."""
    encoder = pipe.text_encoder
    parts = [encoder(part.to(encoder.device)).last_hidden_state for part in ids.split(SENTENCES)]
    rows = torch.cat(parts)
    return rows if rows.dtype == torch.float64 else rows.float()


def contrast(concepts: Sequence[Concept]) -> list[tuple[str, str]]:
    """Pairs for some concepts: our own sentences that ask for them, each beside the same one without the concept.

    In place of a thing stands an everyday thing, in place of a known person an unknown one; an artist is left out. An
    unsafe concept is worded in each of its phrases, others by name.
    """
    made = []
    for concept in concepts:
        for number, template in enumerate(PROMPT_TEMPLATES[concept.kind]):
            for turn, other in enumerate(PEOPLE if concept.kind == "celebrity" else SUBJECTS):
                colour = COLOURS[(number + turn) % len(COLOURS)]
                for phrase in concept.phrases if concept.kind == "unsafe" else concept.phrases[:1]:
                    if concept.kind == "artist":
                        made.append((template.format(subject=other, concept=phrase), f"a painting of {other}"))
                        continue
                    name = with_article(phrase) if concept.kind in ("object", "unsafe") else phrase
                    made.append(
                        (template.format(concept=name, colour=colour), template.format(concept=other, colour=colour))
                    )
    return made


def vocabulary(tokenizer: Any, words: bool = False) -> list[int]:
    """The tokens that a search may choose: all but the special ones and the first, as released (1 to 49405 of CLIP's).

    Args:
        words: only those that are read back as themselves when they are written out, and can be printed.
    """
    special = set(tokenizer.all_special_ids)
    ids = [number for number in range(1, len(tokenizer)) if number not in special]
    if not words:
        return ids
    texts = [tokenizer.decode([number]).strip() for number in ids]
    again = tokenizer(texts, add_special_tokens=False).input_ids
    return [
        number for number, text, read in zip(ids, texts, again, strict=True) if read == [number] and text.isprintable()
    ]


def too_long(length: int, pipe: Pipeline) -> str | None:
    """Why a text of so many tokens cannot be given to a model; ``None`` if it can."""
    room = pipe.tokenizer.model_max_length - 2
    return f"its text encoder reads {room} tokens, not {length}; set length={room} or less" if length > room else None
