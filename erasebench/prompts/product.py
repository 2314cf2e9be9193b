"""Prompts that papers make in their scripts: every sentence with every name, some images of each, and no file released."""

from __future__ import annotations

import itertools
import string
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from erasebench.concepts import KINDS, PARAPHRASE, ROLES, Concept
from erasebench.errors import UserError, suggest
from erasebench.prompts.names import read_names
from erasebench.prompts.prompt_set import PROMPT_DTYPES, PromptSet
from erasebench.recipe import LARGEST_SEED

CONCEPTS = "concepts"
"""As the entries of a blank: the names of all concepts of the run."""

MOST_ROWS = 1_000_000
"""Rows beyond which a product is a slip: no paper draws so many images."""


def product(
    templates: Sequence[str],
    fill: Mapping[str, Sequence[str] | str],
    label: str,
    concepts: Sequence[Concept],
    kind: str,
    images: int = 1,
    seed: int = 0,
    limit: int | None = None,
    paraphrases: Sequence[str] = (),
    role: str | None = None,
    first: int | None = None,
) -> PromptSet:
    """Every template with every entry of its blanks, ``images`` times with seeds from ``seed`` upwards.

    Args:
        templates: sentences with blanks, ``An image of {object} in {style} style.``.
        fill: the entries of each blank; :data:`CONCEPTS` for the names of the run's concepts, or a file of names.
        label: the blank whose entry a prompt asks for.
        concepts: of the run.
        kind: of what the prompts ask for; by default that of the task. HUB's nouns near a style are objects.
        images: images of each prompt.
        seed: of the first.
        limit: the first rows of each label only, and of its paraphrases.
        paraphrases: templates that are filled with the other phrases of each concept instead of its name, with role
            ``paraphrase``: MACE's synonyms, EraseEval's descriptions.
        role: of all other rows, whatever the task erases (HUB's nouns near a target are kept); by default the task decides.
        first: how many entries of a file of names are taken; by default all.

    Raises:
        UserError: a template without blanks or with unknown ones, a blank without entries, or numbers that cannot be.
    """
    fill = (
        {blank: _from_file(blank, names, first) for blank, names in fill.items()} if isinstance(fill, Mapping) else fill
    )
    _check(templates, fill, label)
    if role is not None and role not in ROLES:
        raise UserError(f"prompts.role={role}: give one of {', '.join(ROLES)} or null.{suggest(str(role), ROLES)}")
    if paraphrases:
        _check(paraphrases, fill, label)
        if fill[label] != CONCEPTS:
            raise UserError(
                f"prompts.paraphrases: needs prompts.fill.{label}={CONCEPTS}, whose other phrases they are; now {fill[label]!r:.60}"
            )
    if kind not in (*KINDS, "general"):
        raise UserError(f"prompts.kind={kind}: not one of {', '.join(KINDS)}, general.{suggest(str(kind), KINDS)}")
    for key, value, least in (("images", images, 1), ("seed", seed, 0), ("limit", 1 if limit is None else limit, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"prompts.{key}={value}: give a whole number of {least} or more")
    if seed + images - 1 > LARGEST_SEED:
        raise UserError(f"prompts.seed={seed}: there are not {images} seeds from there on; give a smaller one")
    entries = {
        blank: [concept.name for concept in concepts] if names == CONCEPTS else list(names)
        for blank, names in fill.items()
    }
    named = [(name, name) for name in entries[label]]
    # Which concept each other phrase is of: the same words may stand for two.
    worded = [(phrase, concept.name) for concept in concepts for phrase in concept.phrases[1:]]
    rows: list[tuple[Any, ...]] = []
    for own, sentences, asked in ((role or "", templates, named), (PARAPHRASE, paraphrases, worded)):
        counts: dict[str, int] = {}
        for number, template in enumerate(sentences):
            blanks = _blanks(template)
            choices: list[Sequence[Any]] = [asked if blank == label else entries[blank] for blank in blanks]
            for chosen in itertools.product(*choices):
                filled = dict(zip(blanks, chosen, strict=True))
                filled[label], name = filled[label]
                prompt = template.format(**filled)
                for image in range(images):
                    counts[name] = counts.get(name, 0) + 1
                    if limit is not None and counts[name] > limit:
                        break
                    words = [f"{own}/{name}"] if own == PARAPHRASE else []
                    place = "/".join([*words, f"{number:02d}", *(filled[blank] for blank in blanks), str(image)])
                    rows.append((place, prompt, "", seed + image, None, None, None, name, kind, own))
                    if len(rows) > MOST_ROWS:
                        raise UserError(f"prompts: more than {MOST_ROWS} rows; give fewer templates, entries or images")
    frame = pd.DataFrame(rows, columns=list(PROMPT_DTYPES))
    many = f"{len(templates)} templates x {' x '.join(f'{len(names)} {blank}' for blank, names in entries.items())}"
    origin = f"{many} x {images} images, made as the paper's script makes them"
    return PromptSet("templates", "1", frame, origin, roles="task" if role is None else "rows")


def _from_file(blank: str, names: Any, first: int | None) -> Any:
    """The entries of a blank that are in a file; other entries as they are.

    Raises:
        UserError: there is no such file, or it has fewer names than are to be taken.
    """
    if not isinstance(names, str) or names == CONCEPTS:
        return names
    listed = read_names(names, f"prompts.fill.{blank}")
    if first is None:
        return list(listed)
    if isinstance(first, bool) or not isinstance(first, int) or not 1 <= first <= len(listed):
        raise UserError(
            f"prompts.first={first}: {names} has {len(listed)} names; give a whole number up to that, or null"
        )
    return list(listed[:first])


def _blanks(template: str) -> list[str]:
    """The blanks of a template in their order.

    Raises:
        UserError: it is not a sentence with names in braces.
    """
    try:
        names = [name for _, name, spec, how in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise UserError(f"prompts.templates: {template!r:.80}: {error}; write a blank as {{object}}") from error
    if not names or not all(name.isidentifier() for name in names):
        raise UserError(f"prompts.templates: {template!r:.80} has no blank with a name; write one as {{object}}")
    return list(dict.fromkeys(names))


def _check(templates: Sequence[str], fill: Mapping[str, Any], label: str) -> None:
    if not isinstance(templates, Sequence) or isinstance(templates, str) or not templates:
        raise UserError(f"prompts.templates={templates!r:.60}: give a list of sentences with blanks")
    if not isinstance(fill, Mapping):
        raise UserError(f"prompts.fill={fill!r:.60}: give the entries of each blank, e.g. {{object: concepts}}")
    for blank, names in fill.items():
        listed = isinstance(names, Sequence) and not isinstance(names, str)
        if names != CONCEPTS and not (listed and names and all(isinstance(name, str) and name for name in names)):
            raise UserError(
                f"prompts.fill.{blank}={names!r:.60}: give a list of texts, a file of names, or {CONCEPTS} for those of the task"
            )
    for template in templates:
        for blank in _blanks(str(template)):
            if blank not in fill:
                raise UserError(
                    f"prompts.templates: {template!r:.80}: no entries for {{{blank}}}.{suggest(blank, fill)}"
                )
        if label not in _blanks(str(template)):
            raise UserError(f"prompts.label={label}: {template!r:.80} has no blank of that name; a prompt asks for one")
