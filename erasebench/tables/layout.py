"""Tables for people as texts: CSV, Markdown and LaTeX that paste into a paper."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from erasebench.concepts import ROLES
from erasebench.edits.label import UNEDITED, shown_row
from erasebench.files import write_text
from erasebench.runs.about import About
from erasebench.runs.names import MEASURED_FILE
from erasebench.scores.rates import THREE
from erasebench.tables import measure as tables
from erasebench.tables.glossary import heading
from erasebench.tables.letters import LETTERS_EXPLAINED, NO_MARK, Mark, marks
from erasebench.texts import escape_markdown, to_csv

ARROWS = {"up": "↑", "down": "↓"}
ROLE_HEADINGS = {
    "erase": "erased",
    "paraphrase": "in other words",
    "near": "kept near",
    "retain": "kept",
    "general": "everyday",
    "instead": "",
    "both": "",
    "cost": "",
}
"""What a role is called in the head of a column, whose metric says the rest."""
INTERVALS = {
    "wilson": "Wilson for rates", "clopper-pearson": "Clopper-Pearson for rates",
    "joint": "those of both rates, exact and put together, for H", "bca": "BCa bootstrap for means",
    "t": "Student's t for means of fewer than 30", "poisson": "Poisson for counts that are all equal",
    "percentile": "percentile bootstrap otherwise", "exact": "none where all values are equal",
}  # fmt: skip
"""How intervals are made, by what an estimate says of itself up to a comma, in words."""

REMARKS = {
    ", clustered": "images of one prompt and seed under several edits hang together, which their intervals know",
    f", {THREE}": "H has three parts: not erased, not paraphrased, retained (pooled; MACE's H_o of several classes is the mean "
    "of each class's)",
    ", biased": "a Fréchet distance is too large, the more so the fewer images it is of, and its interval "
    "shows the noise alone: compare equal n only",
}  # fmt: skip
"""What an estimate may say of itself behind a comma, in words."""

EMPTY = "not run"
DIFFERENCES = "Difference to the unedited model on the same prompts and seeds (rates in percentage points)"
DIFFERENCES_ATTACKED = (
    "Difference to the unedited model, and under an attack to the same edit without it, on the same prompts and seeds "
    "(rates in percentage points)"
)
ATTACKED = (
    "a row with + is the edit before it under the attack behind it, on the prompts that ask for what was erased: "
    "rates there are attack success rates"
)
FEW_CONCEPTS = (
    f"where a role has fewer than {tables.FEWEST_CONCEPTS} concepts, its numbers and intervals hold for these concepts only "
    "(each by itself: by_concept.md)"
)
NUMBER = re.compile(r"[-+–0-9., \[\]]*")
"""A cell that holds numbers alone."""

ABSENT = "–"
"""Where no number is to be expected (the unedited model has no edit)."""


def title(role: str, metric: str, direction: str, unit: str) -> str:
    """A column's head: ``recognised % erased ↓``. The version is in the caption."""
    base, bracket, machine = metric.partition("@")[0].partition(" [")
    name = heading(base) + bracket + machine
    words = [name, unit, ROLE_HEADINGS.get(role, role), ARROWS.get(direction, "")]
    return " ".join(word for word in words if word)


def column_text(cells: Sequence[Mapping[str, Any] | None], of: str = "value") -> list[str]:
    """One column's cells: ``12.3 [10.1, 14.9]``, with the same decimals down the column.

    Rates are in per cent with one decimal; other numbers have three digits where the largest begins. A cell is
    ``not run`` where a number is lacking and ``–`` where none is to be expected.

    Args:
        cells: rows of the tidy table as dicts, or ``None``.
        of: ``value``, or ``difference`` (to the unedited model; with its sign).
    """
    low, high = ("low", "high") if of == "value" else (f"{of}_low", f"{of}_high")
    numbers = [abs(cell[of]) for cell in cells if cell is not None and not math.isnan(cell[of])]
    largest = max(numbers, default=0.0)
    sign = "" if of == "value" else "+"

    def text(cell: Mapping[str, Any] | None) -> str:
        if cell is None:
            return ABSENT
        if math.isnan(cell[of]):
            return EMPTY if cell["reason"] or (of == "value" and cell["how"] == "not run") else ABSENT
        scale, digits = (100, 1) if cell["unit"] == "%" else (1, _digits(largest))
        value, *ends = (f"{scale * cell[name]:{sign}.{digits}f}" for name in (of, low, high))
        return value if math.isnan(cell[low]) or cell["role"] == "cost" else f"{value} [{ends[0]}, {ends[1]}]"

    return [text(cell) for cell in cells]


def _digits(largest: float) -> int:
    return min(6, max(0, 2 - math.floor(math.log10(largest)))) if largest > 0 else 1


Layout = tuple[list[str], list[list[str]], list[list[Mark]]]
"""Heads, rows of cells (the eraser first), and what the tests say of each cell."""


def unmarked(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Layout:
    """A table of which the tests say nothing."""
    return list(heads), [list(row) for row in rows], [[NO_MARK] * len(heads) for _ in rows]


def layout(
    measured: pd.DataFrame, kind: str, task: str = tables.POOLED, of: str = "value", pairs: pd.DataFrame | None = None
) -> Layout:
    """One kind's table as texts.

    Args:
        measured: what :func:`erasebench.tables.measure.measure` returns.
        kind: kind of the tasks.
        task: one task, or all of them pooled.
        of: ``value``, or ``difference`` for the differences to the unedited model; these have only the columns and erasers
            that have any.
        pairs: the tests of :func:`erasebench.tables.pairs.compare`, which mark pooled values.
    """
    known_marks = marks(pairs, kind) if of == "value" and task == tables.POOLED else {}
    if of == "difference":
        part = measured[(measured.task_kind == kind) & (measured.task == task) & measured.difference.notna()]
        measured = part[part.eraser != UNEDITED]
    wide = tables.wide(measured, kind, task)
    heads, columns = ["eraser"], [[shown_row(eraser) for eraser in wide.index]]
    marked = [[NO_MARK] * len(wide)]
    for role, metric in wide.columns:
        cells = list(wide[(role, metric)])
        known = next(cell for cell in cells if cell is not None)
        heads.append(title(role, metric, known["direction"], known["unit"]))
        columns.append(column_text(cells, of))
        marked.append([known_marks.get((role, metric, eraser), NO_MARK) for eraser in wide.index])
    return heads, [list(row) for row in zip(*columns, strict=True)], [list(row) for row in zip(*marked, strict=True)]


def caption(measured: pd.DataFrame, kind: str, about: About) -> str:
    """What must stand under the numbers: whose they are, from which prompts, and from how many images."""
    part = measured[(measured.task_kind == kind) & (measured.task == tables.POOLED)]
    counts = []
    for role in ROLES:
        numbers = part[(part.role == role) & (part.n > 0)].n
        if len(numbers):
            least, most = int(numbers.min()), int(numbers.max())
            many = f"{most}" if least == most else f"{least} to {most}"
            counts.append(f"{many} {ROLE_HEADINGS[role]}")
    what = f"Erasing concepts of kind {kind} ({tasks_text(measured, kind)}), {about.name('model')}, {about.name('protocol')}"
    images = f"images of an eraser: {', '.join(counts)}; 95 % intervals" if counts else "no images"
    return f"{what}; {images}. {about.note}".rstrip()


def tasks_text(measured: pd.DataFrame, kind: str) -> str:
    """What is erased: ``church, gas pump, one at a time``."""
    names = [name for name in dict.fromkeys(measured[measured.task_kind == kind].task) if name != tables.POOLED]
    return ", ".join(names) + (", one at a time" if len(names) > 1 else "")


def how_measured(measured: pd.DataFrame, kind: str, about: About, tested: bool = False) -> str:
    """All that decides one kind's numbers: model, protocol, prompts, counts, intervals, marks, metric versions.

    Args:
        measured: see :func:`erasebench.tables.measure.measure`.
        kind: kind of the tasks.
        about: the runs.
        tested: whether erasers were tested against each other, so that letters may stand at the numbers.
    """
    part = measured[(measured.task_kind == kind) & (measured.task == tables.POOLED)]
    counts = [
        f"{ROLE_HEADINGS[role]}{text}"
        for role in ROLES
        if (text := _asked_for(part[(part.role == role) & (part.n > 0)]))
    ]
    ways = list(part.how.unique())
    intervals = [words for how, words in INTERVALS.items() if how in {way.partition(",")[0] for way in ways}]
    metrics = [name for name in dict.fromkeys(part.metric) if "@" in name and not name.startswith("H ")]
    sentences = [
        "How this was measured: " + ". ".join(f"{name} {text}" for name, text in about.of_kind(kind)),
        *([f"prompts: {', '.join(counts)}"] if counts else []),
        *([FEW_CONCEPTS] if ((part.concepts > 0) & (part.concepts < tables.FEWEST_CONCEPTS)).any() else []),
        f"95 % intervals ({', '.join(intervals)})" if intervals else "no intervals",
        *(words for mark, words in REMARKS.items() if any(mark in way for way in ways)),
        *([LETTERS_EXPLAINED] if tested else []),
        *([ATTACKED] if part.attack.any() else []),
        f"metrics {', '.join(metrics)}",
        *(f"not run: {name} ({reason})" for name, reason in not_run_reasons(part)),
    ]
    return f"{'. '.join(sentences)}."


def _asked_for(rows: pd.DataFrame) -> str:
    """How many concepts, texts and seeds the prompts of a role have: `` (3 concepts, 24 texts, 60 seeds)``."""
    counts = {name: rows[name].max() for name in ("concepts", "texts", "seeds")}
    words = [f"{count:.0f} {name if count > 1 else name[:-1]}" for name, count in counts.items() if count > 0]
    return f" ({', '.join(words)})" if words else ""


def differences_text(measured: pd.DataFrame) -> str:
    """What a table of differences is called."""
    return DIFFERENCES_ATTACKED if measured.attack.any() else DIFFERENCES


def not_run_reasons(measured: pd.DataFrame) -> list[tuple[str, str]]:
    """Each metric with a number that was not obtained, and why, once."""
    missing = measured[(measured.reason != "") & ~measured.metric.str.startswith("H ")].drop_duplicates("metric")
    return list(zip(missing.metric, missing.reason, strict=True))


def markdown(measured: pd.DataFrame, kind: str, about: About, pairs: pd.DataFrame | None = None) -> str:
    """One kind's tables in Markdown: pooled with its caption, differences to the unedited model, one a task; then how."""
    table = layout(measured, kind, pairs=pairs)
    parts = [_markdown_rows(table), escape_markdown(caption(measured, kind, about))]
    differences = layout(measured, kind, of="difference")
    if differences[1]:
        parts += [f"**{differences_text(measured)}**", _markdown_rows(differences)]
    tasks = [task for task in dict.fromkeys(measured.task[measured.task_kind == kind]) if task != tables.POOLED]
    if len(tasks) > 1:
        for task in tasks:
            parts += [f"**Only {escape_markdown(task)} erased**", _markdown_rows(layout(measured, kind, task))]
    parts.append(escape_markdown(how_measured(measured, kind, about, is_tested(pairs, kind))))
    return "\n\n".join(parts) + "\n"


def is_tested(pairs: pd.DataFrame | None, kind: str) -> bool:
    """Whether erasers of a kind were tested against each other."""
    return pairs is not None and bool((pairs.task_kind == kind).any())


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Any table in Markdown; the first column to the left, the others to the right."""
    return _markdown_rows(unmarked(heads, rows))


def _markdown_rows(table: Layout) -> str:
    heads, rows, marked = table
    lines = [_pipes(heads), "|" + "|".join(["---", *["---:"] * (len(heads) - 1)]) + "|"]
    for row, of_row in zip(rows, marked, strict=True):
        cells = (_markdown_cell(cell) for cell in row)
        shown = [
            f"{f'**{cell}**' if mark.best else cell} {mark.letters}".rstrip()
            for cell, mark in zip(cells, of_row, strict=True)
        ]
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)


def write_tables(measured: pd.DataFrame, folder: Path, about: About, pairs: pd.DataFrame | None = None) -> list[Path]:
    """Write ``measured.csv`` (tidy, full precision), and for each kind a Markdown file, a LaTeX file of all columns, and one
    of the key columns for a column of text (``object-narrow.tex``).

    Returns:
        The files written.
    """
    from erasebench.tables.latex import latex, latex_narrow  # which are made of this module's texts

    written = [folder / MEASURED_FILE]
    write_text(written[0], to_csv(without_attacks(measured)))
    for kind in dict.fromkeys(measured.task_kind):
        for suffix, form in ((".md", markdown), (".tex", latex), ("-narrow.tex", latex_narrow)):
            written.append(folder / f"{re.sub(r'[^a-z0-9]+', '-', kind.lower())}{suffix}")
            write_text(written[-1], form(measured, kind, about, pairs))
    return written


def without_attacks(table: pd.DataFrame) -> pd.DataFrame:
    """A table without the column of attacks where nothing was attacked."""
    return table if table.attack.any() else table.drop(columns="attack")


def _markdown_cell(text: str) -> str:
    """A cell as Markdown shows it; a number with its interval needs no escapes."""
    return text if NUMBER.fullmatch(text) else escape_markdown(text)


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"
