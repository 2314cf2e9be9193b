"""A page for each concept: how far it is gone where it is erased, what came instead, and who takes it along elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from erasebench.concepts import PARAPHRASE, ROLE
from erasebench.edits.label import short_rows
from erasebench.report import forest
from erasebench.report.outcomes import OUTCOMES
from erasebench.report.site import Contents, Link, Writer, fragment
from erasebench.report.thumbnails import thumbnail_path
from erasebench.tables.answer import key_columns
from erasebench.tables.instead import INSTEAD_EXPLAINED, instead_cells
from erasebench.tables.slices import POOLED

ROWS = {"erase": 6, PARAPHRASE: 2, "retain": 4}
"""Rows of images of a concept on its page, by role: failures first. The image browser has all."""

MARKS = {"f": "✗ ", "l": "✗ ", "g": "✓ ", "k": "✓ "}
"""What stands before the word of an outcome."""


@dataclass(frozen=True)
class Seen:
    """One image of a row: whose it is, where its thumbnail is (empty: gone), and what became of the concept."""

    eraser: str
    path: str
    mark: str
    words: str
    meaning: str
    answer: str


@dataclass(frozen=True)
class ImageRow:
    """A prompt and seed, and the images of all erasers."""

    prompt: str
    prompt_id: str
    seed: int
    role: str
    role_words: str
    task: str
    images: list[Seen]


def concepts_of(contents: Contents, kind: str) -> list[str]:
    """The concepts that the prompts of a kind ask for: the erased ones first, then those to be kept."""
    plan = contents.joint.plan
    part = plan[(plan.task_kind == kind) & plan.role.isin(ROWS) & (plan.label.fillna("") != "")]
    erased = part.role.isin(["erase", PARAPHRASE])
    return list(dict.fromkeys([*part.label[erased], *part.label[~erased]]))


def write_concepts(contents: Contents, write: Writer, kind: str, concepts: Sequence[str]) -> None:
    """Write the page of every concept of a kind."""
    plan, numbers = contents.joint.plan, contents.numbers
    measured = contents.joint.measured
    rows = _rows_by_concept(contents, kind)
    columns = key_columns(measured, kind)
    rates = numbers.concepts[(numbers.concepts.task_kind == kind) & (numbers.concepts.attack == "")]
    several_tasks = plan.task[plan.task_kind == kind].nunique() > 1
    own = plan[(plan.task_kind == kind) & plan.role.isin(["erase", PARAPHRASE])]
    erased_by = own.groupby("label", sort=False).task.unique()
    for concept in concepts:
        plots = []
        for name, title in (("erased", "still there where it is erased"), ("kept", "kept where others are erased")):
            if name in columns:
                role, metric = columns[name]
                own_rates = rates[(rates.concept == concept) & (rates.role == role) & (rates.metric == metric)]
                plots.append(forest.panel(title, own_rates, {}) if len(own_rates) else None)
        tasks = list(erased_by.get(concept, ()))
        instead = _instead(numbers.instead, kind, concept) if tasks else None
        write(
            "concept.html", write.concept_page(kind, concept),
            title=concept,
            kind=kind,
            kind_page=write.kind_page(kind),
            erased=bool(tasks),
            tasks=[Link(write.task_page(kind, task), f"Only {task} erased") for task in tasks] if several_tasks else [],
            forest=[plot for plot in plots if plot],
            instead=instead,
            instead_explained=INSTEAD_EXPLAINED,
            rows=rows.get(concept, []),
            classifier=contents.classifier,
            blurred=kind in contents.sensitive,
            link=fragment(kind=kind, label=concept),
        )  # fmt: skip


def _instead(instead: pd.DataFrame, kind: str, concept: str) -> tuple[list[str], list[list[str]]] | None:
    """What came instead of one concept; where a kind erases one alone, its rows are those of all."""
    part = instead[instead.task_kind == kind]
    own = part[part.concept == concept]
    if not len(own) and set(part.concept) == {POOLED}:
        own = part
    return instead_cells(own, kind) if len(own) else None


def _rows_by_concept(contents: Contents, kind: str) -> dict[str, list[ImageRow]]:
    """The rows of images of every concept of a kind, those in which most erasers failed first."""
    rows, plan = contents.rows, contents.joint.plan
    clean = set(plan.eraser[plan.attack == ""])
    names = short_rows(rows.erasers)
    columns = [place for place, eraser in enumerate(rows.erasers) if eraser in clean]
    kept: dict[str, list[ImageRow]] = {}
    room: dict[tuple[str, str], int] = {}
    labels, roles = list(rows.frame.label.fillna("")), list(rows.frame.role)
    kinds = list(rows.frame.task_kind)
    for place in rows.worst_first():
        role, label = roles[place], labels[place]
        if kinds[place] != kind or not label or room.get((label, role), ROWS.get(role, 0)) < 1:
            continue
        room[label, role] = room.get((label, role), ROWS[role]) - 1
        row = rows.frame.iloc[place]
        images = [
            _seen(contents, names[rows.erasers[i]], rows.keys[place][i], rows.signs[place][i], rows.answers[place][i])
            for i in columns
            if rows.keys[place][i]
        ]
        one = ImageRow(
            row.prompt, str(row.prompt_id), int(row.seed), ROLE[role].sign, ROLE[role].words, row.task, images
        )
        kept.setdefault(label, []).append(one)
    order = [ROLE[role].sign for role in ROWS]
    return {label: sorted(of_label, key=lambda row: order.index(row.role)) for label, of_label in kept.items()}


def _seen(contents: Contents, eraser: str, key: str, sign: str, answer: str) -> Seen:
    word, meaning = OUTCOMES[sign]
    path = thumbnail_path(key) if key in contents.thumbnails else ""
    return Seen(eraser, path, sign, MARKS.get(sign, "") + word, meaning, answer)
