"""The built-in prompt sets: our own prompts, made of templates, each with a seed of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from erasebench.concepts import PARAPHRASE, Concept
from erasebench.errors import UserError
from erasebench.prompts import templates as prompt_templates
from erasebench.prompts.prompt_set import PROMPT_DTYPES, PromptSet, hashed_seed


def builtin(
    kind: str,
    concepts: Sequence[Concept],
    *,
    per_concept: int = 20,
    paraphrased: int = 0,
    general: int = 16,
    seed: int = 0,
) -> PromptSet:
    """Our own prompts for some concepts, and general ones beside them.

    The first rows of a label do not depend on how many follow, on the other concepts or on the kind of task, so
    a short run shares its images with a long one.

    Args:
        kind: the kind of concept the set is for; part of its name.
        concepts: what is asked for. Each row has the kind of its own concept.
        per_concept: rows of each concept, by its name.
        paraphrased: rows of role ``paraphrase`` of each concept that has other phrases than its name, by these in turn.
        general: rows that ask for no concept.
        seed: another number gives every row another seed (the seeds are hashes, 0..2**31-1).

    Raises:
        UserError: a concept comes twice, or a count is negative.
    """
    for key, count in (("per_concept", per_concept), ("paraphrased", paraphrased), ("general", general)):
        if count < 0:
            raise UserError(f"prompts: {key}={count}; give 0 or more")
    names = [concept.name.casefold() for concept in concepts]
    for concept, name in zip(concepts, names, strict=True):
        if names.count(name) > 1:
            raise UserError(f"prompts: concept {concept.name!r} is listed twice; remove one")
    rows = [
        _row(
            concept.kind,
            concept.name,
            index,
            seed,
            prompt_templates.concept_prompt(concept.kind, concept.phrases[:1], index),
        )
        for concept in concepts
        for index in range(per_concept)
    ]
    rows += [
        _row(
            concept.kind,
            concept.name,
            index,
            seed,
            prompt_templates.concept_prompt(concept.kind, concept.phrases[1:], index),
            PARAPHRASE,
        )
        for concept in concepts
        for index in range(paraphrased if len(concept.phrases) > 1 else 0)
    ]
    rows += [_row("general", "", index, seed, prompt_templates.general_prompt(index)) for index in range(general)]
    frame = pd.DataFrame(rows, columns=list(PROMPT_DTYPES))
    return PromptSet(f"builtin-{kind}", prompt_templates.VERSION, frame, "erasebench's own templates")


def _row(kind: str, label: str, index: int, seed: int, prompt: str, role: str = "") -> tuple[Any, ...]:
    what = [part for part in (kind, label, role) if part]
    place = "/".join([*what, f"{index:03d}"])
    row_seed = hashed_seed("builtin", prompt_templates.VERSION, seed, kind, label, *what[2:], index)
    return place, prompt, "", row_seed, None, None, None, label, kind, role or ("" if label else "general")
