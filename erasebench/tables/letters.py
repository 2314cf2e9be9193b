"""Compact letters: which erasers the paired tests of a column tell apart, as a letter or two behind each number."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from erasebench.scores.estimate import CONFIDENCE

ALPHA = 1 - CONFIDENCE
"""A test whose corrected p is below it tells two erasers apart."""

COLUMN = ["task_kind", "role", "metric", "unit", "direction"]
"""What a column of numbers is told from others by, in the tables of tests."""

LETTERS_EXPLAINED = (
    f"Erasers that share a letter are not told apart by the paired tests (Holm over a column, p < {ALPHA:.2f}). Bold: the best, and all "
    "that the tests do not tell from it. No letter: no test tells any two apart in that column, or there is none"
)


class Mark(NamedTuple):
    """What the tests say of one number: its letters, and whether it is not told from the best of its column."""

    letters: str = ""
    best: bool = False


NO_MARK = Mark()


def compact_letters(names: Sequence[str], apart: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Letters such that two names share one if and only if they are not told apart (H.-P. Piepho, JCGS 13, 2004).

    It is his insert-and-absorb: a group of all is split by each pair that is told apart, and groups inside others go.

    Args:
        names: in the order that the letters follow, the best first.
        apart: pairs that are told apart.

    Returns:
        The letters of each name. None of any where it would take more than 52 letters.
    """
    groups = [frozenset(names)]
    for a, b in apart:
        split = [part for group in groups for part in ((group - {a}, group - {b}) if {a, b} <= group else (group,))]
        groups = [group for group in dict.fromkeys(split) if not any(group < other for other in split)]
    if len(groups) > len(string.ascii_letters):
        return dict.fromkeys(names, "")
    groups.sort(key=lambda group: [i for i, name in enumerate(names) if name in group])
    return {
        name: "".join(letter for letter, group in zip(string.ascii_letters, groups, strict=False) if name in group)
        for name in names
    }


def letters(pairs: pd.DataFrame) -> pd.DataFrame:
    """The letters that the tests allow.

    Args:
        pairs: see :func:`erasebench.tables.pairs.compare`.

    Returns:
        ``task_kind, role, metric, unit, direction, eraser, value, letters, best``, a row an eraser, the best value first.
        A column whose tests tell no two erasers apart has no rows.
    """
    rows = []
    for place, part in pairs.groupby(COLUMN, sort=False):
        told_apart = part[part.p_holm < ALPHA]
        if not len(told_apart):
            continue
        values = dict(zip(part.a, part.value_a, strict=True)) | dict(zip(part.b, part.value_b, strict=True))
        order = sorted(values, key=lambda name: -values[name] if place[-1] == "up" else values[name])
        apart = list(zip(told_apart.a, told_apart.b, strict=True))
        of_name = compact_letters(order, apart)
        beaten = {name for pair in apart if order[0] in pair for name in pair} - {order[0]}
        for name in order:
            identity = dict(zip(COLUMN, place, strict=True))
            rows.append(
                identity | {"eraser": name, "value": values[name], "letters": of_name[name], "best": name not in beaten}
            )
    return pd.DataFrame(rows, columns=[*COLUMN, "eraser", "value", "letters", "best"])


def marks(pairs: pd.DataFrame | None, kind: str) -> Mapping[tuple[str, str, str], Mark]:
    """The marks of one kind's pooled numbers, by role, metric and eraser; none where there are no tests."""
    if pairs is None or not len(pairs):
        return {}
    rows = letters(pairs[pairs.task_kind == kind])
    return {(row.role, row.metric, row.eraser): Mark(row.letters, row.best) for row in rows.itertuples()}
