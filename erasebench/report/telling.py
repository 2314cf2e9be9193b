"""The image pairs of the first page: what came in the place of what was erased, what is still there, what went with it."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any

import pandas as pd

from erasebench.edits.label import UNEDITED, short_rows
from erasebench.report.thumbnails import thumbnail_path

PAIRS = 6
"""Pairs on the page, at most."""

OF_EACH = 3
"""Pairs of things that came instead, and of things that are still there; where there are fewer, others take their places."""


@dataclass(frozen=True)
class TellingPair:
    """One prompt and seed before an edit and after it.

    Attributes:
        eraser: its name, short where no other has it.
        task: what was erased.
        prompt: that both images were drawn from.
        before: path of the unedited image in the report.
        after: path of the edited one.
        words: what became of the concept.
        bad: it is still there, or another concept that the same edit erased, or something unsafe came.
    """

    eraser: str
    task: str
    prompt: str
    before: str
    after: str
    words: str
    bad: bool


def telling_pairs(
    plan: pd.DataFrame, verdicts: pd.DataFrame, thumbnails: Set[str], sensitive: Set[str]
) -> list[TellingPair]:
    """Up to :data:`PAIRS`: things that came instead, unsafe ones first, concepts that are still there, and kept ones lost.

    They are the worst that there are, not a sample: as far as it goes each is of another kind, eraser and task.

    Args:
        plan: rows of some runs.
        verdicts: what :func:`erasebench.tables.recognised.recognised` says of them.
        thumbnails: keys that have one.
        sensitive: kinds whose images are blurred; they stay off the first page.
    """
    names = short_rows(list(dict.fromkeys(plan.eraser)))
    rows = plan.assign(**{name: verdicts[name] for name in ("recognised", "answer", "shown", "unsafe")})
    rows = rows.assign(called=rows.eraser.map(names))
    before = dict(zip(rows.key, rows.recognised, strict=True))
    rows = rows[(rows.attack == "") & (rows.eraser != UNEDITED) & (rows.key != rows.original_key)]
    rows = rows[~rows.task_kind.isin(sensitive) & rows.key.isin(thumbnails) & rows.original_key.isin(thumbnails)]
    erased = rows[rows.role == "erase"]
    gone = erased[(erased.recognised == 0) & (erased.shown != "")]
    still = erased[erased.recognised == 1].assign(
        unsafe=float("nan")
    )  # an erased weapon is no worse than a church there
    lost = rows[(rows.role == "retain") & (rows.recognised == 0) & (rows.original_key.map(before) == 1)]
    sorts = [
        [_pair(row, f"{row.shown} came instead", row.unsafe == 1) for row in _spread(gone)],
        [_pair(row, _still_there(row), True) for row in _spread(still)],
        [_pair(row, f"{row.label}, to be kept, is lost", True) for row in _spread(lost)],
    ]
    first = [pair for pairs in sorts[:2] for pair in pairs[:OF_EACH]]
    rest = [*sorts[2], *(pair for pairs in sorts[:2] for pair in pairs[OF_EACH:])]
    return [*first, *rest[: PAIRS - len(first)]]


def _still_there(row: Any) -> str:
    """What was not erased: the concept, or, where one edit erased several, another of them that is seen in its place."""
    shown = str(row.shown).casefold()
    others = {str(name).casefold() for name in row.targets} - {row.label.casefold()}
    if shown in others and row.label.casefold() not in str(row.answer).casefold():
        return f"{row.shown}, erased too, is there in place of {row.label}"
    return f"{row.label} is still there"


def _spread(rows: pd.DataFrame) -> Iterator[Any]:
    """The first :data:`PAIRS` rows, unsafe ones before others; the kinds take turns, and each eraser and task comes once
    before any comes twice."""
    place = {
        "safe": rows.unsafe != 1,
        "turn": rows.groupby(["eraser", "task"], sort=False).cumcount(),
        "nth": rows.groupby("eraser", sort=False).cumcount(),
    }
    ordered = rows.assign(**place).sort_values(list(place), kind="stable")
    ordered = ordered.assign(of_kind=ordered.groupby(["safe", "task_kind"], sort=False).cumcount())
    return ordered.sort_values(["safe", "of_kind"], kind="stable").head(PAIRS).itertuples()


def _pair(row: Any, words: str, bad: bool) -> TellingPair:
    before, after = thumbnail_path(row.original_key), thumbnail_path(row.key)
    return TellingPair(row.called, row.task, row.prompt, before, after, words, bool(bad))
