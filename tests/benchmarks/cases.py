"""The jobs of the benchmark: an eraser and its task, and the same job in the plain way."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import plain
from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.eraser import Eraser
from erasebench.methods.closed_form.cure import Cure
from erasebench.methods.closed_form.rece import Rece
from erasebench.methods.closed_form.speed import Speed
from erasebench.methods.closed_form.uce import Uce

Job = Callable[[Any, torch.dtype], None]
"""Edits a pipeline in place, with numbers of a type."""

CONTEXTS = (
    "{}", "{} at night", "{} in the snow", "{} on a hill", "{} by the sea", "{} in the rain", "{} on a table",
    "{} in the city", "{} in winter", "{} in a garden", "old {}", "small {}", "red {}", "a photo of {}",
    "a painting of {}", "a drawing of {}", "a picture of {}", "two of {}", "the front of {}", "the shadow of {}",
)  # fmt: skip
"""Twenty short prompts of one concept."""


@dataclass(frozen=True)
class Case:
    """One job.

    Attributes:
        id: short name.
        label: what it does, for tables.
        eraser: ours.
        task: what is erased and kept.
        plain: the same in the plain way.
        slow: the plain way takes minutes, so it runs once.
        released: the same in the order of loops of released code, where that differs from the plain way.
        elsewhere: seconds of released code as quoted in the report, lowest and highest; measured in another run.
        aim: by how much ours should be faster than ``elsewhere``.
        factored: the edit is a low-rank one, whose floor is the factored update.
        budget: seconds that solve and apply should stay under.
    """

    id: str
    label: str
    eraser: Eraser
    task: ErasureTask
    plain: Job
    slow: bool = False
    released: Job | None = None
    elsewhere: tuple[float, float] | None = None
    aim: float | None = None
    factored: bool = False
    budget: float | None = None


def cases(names: Sequence[str], divisor: int = 1) -> dict[str, Case]:
    """All cases by id.

    Args:
        names: artists, at least :func:`names_needed` of them.
        divisor: makes lists shorter, for a quick trial; the labels say the true lengths, and there are no quoted
            seconds, which belong to the true ones.
    """

    def some(count: int) -> int:
        return max(3, count // divisor)

    made = [
        _cure(names, some(20)),
        _uce2025(names, "uce2025_1", 1, 0, elsewhere=(1.1, 1.1), factored=True),
        _uce2025(names, "uce2025_10_100", some(10), some(100), elsewhere=(20, 20), aim=15, factored=True),
        _uce2025(names, "uce2025_100_1000", some(100), some(1000), slow=True, factored=True),
        _uce2025(names, "uce2025_1000_700", some(1000), some(700), slow=True, budget=2),
        _uce2023(names, "uce2023_1", 1, elsewhere=(30, 30), aim=60, factored=True),
        _uce2023(names, "uce2023_5", 5),
        _rece(names),
        _speed(names, "speed_10_1000", some(10), some(1000)),
        _speed(names, "speed_100_1000", some(100), some(1000)),
    ]
    return {case.id: case if divisor == 1 else replace(case, elsewhere=None) for case in made}


def names_needed(divisor: int = 1) -> int:
    """How many names :func:`cases` takes."""
    return max(1700 // divisor, 40)


def _artists(names: Sequence[str]) -> tuple[Concept, ...]:
    return tuple(Concept(name, "artist", anchor="art") for name in names)


def _cure(names: Sequence[str], count: int) -> Case:
    forget = tuple(context.format(names[0]) for context in CONTEXTS[:count])
    retain = tuple(CONTEXTS[n].format(name) for n, name in enumerate(names[1 : count + 1]))
    return Case(
        id="cure_20_20",
        label=f"CURE, {count} forget and {count} retain prompts",
        eraser=Cure(token_rule="last_content", retain="task", multi="joint"),
        task=ErasureTask((Concept(names[0], "artist", forget),), retain),
        plain=lambda pipe, dtype: plain.cure(pipe, forget, retain, dtype),
        elsewhere=(4.4, 5.0),
        aim=10,
        factored=True,
    )


def _uce2025(names: Sequence[str], id: str, erased: int, kept: int, **about: Any) -> Case:
    targets, keep = names[:erased], tuple(names[erased : erased + kept])
    pairs = [(name, "art") for name in targets]
    kept_too = f", {kept} preserved" if kept else ""
    return Case(
        id=id,
        label=f"UCE 2025, {_concepts(erased)}{kept_too}",
        eraser=Uce(variant="2025"),
        task=ErasureTask(_artists(targets), keep),
        plain=lambda pipe, dtype: plain.uce_2025(pipe, pairs, keep, dtype),
        **about,
    )


def _uce2023(names: Sequence[str], id: str, erased: int, **about: Any) -> Case:
    pairs = [(name, "art") for name in names[:erased]]
    run = {"pairs": pairs, "keep": [""]}
    return Case(
        id=id,
        label=f"UCE 2023, {_concepts(erased)}",
        eraser=Uce(variant="2023"),
        task=ErasureTask(_artists(names[:erased])),
        plain=lambda pipe, dtype: plain.uce_2023(pipe, **run, dtype=dtype),
        released=lambda pipe, dtype: plain.uce_2023_in_released_order(pipe, **run, dtype=dtype),
        **about,
    )


def _rece(names: Sequence[str]) -> Case:
    return Case(
        id="rece_3_epochs",
        label="RECE, 1 concept, 3 epochs",
        eraser=Rece(epochs=3, regular_scale=0.1, preserve="none"),
        task=ErasureTask((Concept(names[0], "artist", anchor="art"),)),
        plain=lambda pipe, dtype: plain.rece(pipe, [(names[0], "art")], [""], dtype),
    )


def _speed(names: Sequence[str], id: str, erased: int, kept: int) -> Case:
    targets, keep = names[:erased], tuple(names[erased : erased + kept])
    pairs = [(name, "art") for name in targets]
    # The threshold of the release's README; its script's 1e-4 leaves no null space to so many retained texts.
    options = {"threshold": 1e-1, "retain_scale": 0.05}
    return Case(
        id=id,
        label=f"SPEED, {_concepts(erased)}, {kept} retained",
        eraser=Speed(**options, lamb=0.0, filter=False),
        task=ErasureTask(_artists(targets), keep),
        plain=lambda pipe, dtype: plain.speed(pipe, pairs, keep, dtype, **options, filtered=False),
        slow=True,
    )


def _concepts(count: int) -> str:
    return f"{count} concept" if count == 1 else f"{count} concepts"


def read_names(path: Path) -> list[str]:
    """Distinct names of the column ``artist`` (or ``concept``, ``name``) of a CSV file.

    Raises:
        ValueError: no such column.
    """
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        column = next((name for name in ("artist", "concept", "name") if name in (table.fieldnames or ())), None)
        if column is None:
            raise ValueError(f"{path.name}: no column artist; it has {', '.join(table.fieldnames or ['none'])}")
        names = [row[column].strip() for row in table]
    return list({name.casefold(): name for name in names if name}.values())


def made_up_names(count: int, seed: int = 0) -> list[str]:
    """Names of two made-up words of two or three syllables; the same for the same seed."""
    draw = random.Random(seed)
    syllables = [
        first + vowel + last for first in "bdfgklmnprstvz" for vowel in "aeiou" for last in ("", "l", "n", "r")
    ]
    names: dict[str, None] = {}
    while len(names) < count:
        words = ["".join(draw.choices(syllables, k=draw.choice((2, 2, 3)))).capitalize() for _ in range(2)]
        names[" ".join(words)] = None
    return list(names)
