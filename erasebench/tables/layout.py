"""Tables for people: printed in the terminal, and as CSV, Markdown and LaTeX that paste into a paper."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from erasebench.concepts import ROLE, ROLES
from erasebench.edits.label import UNEDITED
from erasebench.errors import printable
from erasebench.files import write_text
from erasebench.runs.about import About
from erasebench.runs.names import MEASURED_FILE
from erasebench.tables import measure as tables
from erasebench.tables.costs import COSTS
from erasebench.texts import escape_latex, escape_markdown, to_csv

ARROWS = {"up": "↑", "down": "↓"}
ROLE_HEADINGS = {name: role.words for name, role in ROLE.items()} | {"both": "", "cost": ""}
"""What a role is called in the head of a column, whose metric says the rest."""
NAMES = {name: cost.heading for name, cost in COSTS.items()}
INTERVALS = {
    "wilson": "Wilson for rates", "clopper-pearson": "Clopper-Pearson for rates",
    "joint": "those of both rates, exact and put together, for H", "bca": "BCa bootstrap for means",
    "t": "Student's t for means of fewer than 30", "poisson": "Poisson for counts that are all equal",
    "percentile": "percentile bootstrap otherwise", "exact": "none where all values are equal",
}  # fmt: skip
"""How intervals are made, by what an estimate says of itself up to a comma, in words."""

REMARKS = {
    ", clustered": "images of one prompt and seed under several edits hang together, which their intervals know",
    ", biased": "a Fréchet distance of so few images is too large, the more so the fewer they are, and its interval "
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
ERASER_WIDTH = 24
"""Characters of an eraser's label on one line in the terminal."""

NUMBER = re.compile(r"[-+–0-9., \[\]]*")
"""A cell that holds numbers alone."""

ABSENT = "–"
"""Where no number is to be expected (the unedited model has no edit)."""


def title(role: str, metric: str, direction: str, unit: str) -> str:
    """A column's head: ``judge % erased ↓``. The version is in the caption."""
    base, bracket, machine = metric.partition("@")[0].partition(" [")
    name = NAMES.get(base, base) + bracket + machine
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


Layout = tuple[list[str], list[list[str]], list[list[bool]]]
"""Heads, rows of cells (the eraser first), and which cells are best."""


def layout(measured: pd.DataFrame, kind: str, task: str = tables.POOLED, of: str = "value") -> Layout:
    """One kind's table as texts.

    Args:
        measured: what :func:`erasebench.tables.measure.measure` returns.
        kind: kind of the tasks.
        task: one task, or all of them pooled.
        of: ``value``, or ``difference`` for the differences to the unedited model; these have no best, and only the
            columns and erasers that have any.
    """
    if of == "difference":
        part = measured[(measured.task_kind == kind) & (measured.task == task) & measured.difference.notna()]
        measured = part[part.eraser != UNEDITED]
    wide = tables.wide(measured, kind, task)
    heads, columns, marks = ["eraser"], [list(wide.index)], [[False] * len(wide)]
    for role, metric in wide.columns:
        cells = list(wide[(role, metric)])
        known = next(cell for cell in cells if cell is not None)
        heads.append(title(role, metric, known["direction"], known["unit"]))
        columns.append(column_text(cells, of))
        marks.append(tables.best(cells) if of == "value" else [False] * len(cells))
    return heads, [list(row) for row in zip(*columns, strict=True)], [list(row) for row in zip(*marks, strict=True)]


def caption(measured: pd.DataFrame, kind: str, about: About) -> str:
    """What a reader must know to use the numbers: how they were measured, from how many images, and whose they are."""
    part = measured[(measured.task_kind == kind) & (measured.task == tables.POOLED)]
    tasks = [name for name in dict.fromkeys(measured[measured.task_kind == kind].task) if name != tables.POOLED]
    counts = []
    for role in ROLES:
        numbers = part[(part.role == role) & (part.n > 0)].n
        if len(numbers):
            least, most = int(numbers.min()), int(numbers.max())
            many = f"{most}" if least == most else f"{least} to {most}"
            counts.append(f"{ROLE_HEADINGS[role]} n = {many}{_asked_for(part[(part.role == role) & (part.n > 0)])}")
    ways = list(part.how.unique())
    intervals = [words for how, words in INTERVALS.items() if how in {way.partition(",")[0] for way in ways}]
    metrics = [name for name in dict.fromkeys(part.metric) if "@" in name and not name.startswith("H ")]
    sentences = [
        f"Erasing concepts of kind {kind}"
        + (f", one at a time ({', '.join(tasks)}), pooled" if len(tasks) > 1 else f" ({''.join(tasks)})"),
        *(f"{name} {text}" for name, text in about.of_kind(kind)),
        f"images per eraser: {', '.join(counts)}" if counts else "no images",
        *([FEW_CONCEPTS] if ((part.concepts > 0) & (part.concepts < tables.FEWEST_CONCEPTS)).any() else []),
        f"95 % intervals ({', '.join(intervals)})" if intervals else "no intervals",
        *(words for mark, words in REMARKS.items() if any(mark in way for way in ways)),
        "bold: best of the erasers, and all that its interval does not tell apart",
        *([ATTACKED] if part.attack.any() else []),
        f"metrics {', '.join(metrics)}",
        *(f"not run: {name} ({reason})" for name, reason in _reasons(part)),
    ]
    return f"{'. '.join(sentences)}. {about.note}".rstrip()


def _asked_for(rows: pd.DataFrame) -> str:
    """How many concepts, texts and seeds the prompts of a role have: `` (3 concepts, 24 texts, 60 seeds)``."""
    counts = {name: rows[name].max() for name in ("concepts", "texts", "seeds")}
    words = [f"{count:.0f} {name if count > 1 else name[:-1]}" for name, count in counts.items() if count > 0]
    return f" ({', '.join(words)})" if words else ""


def _differences(measured: pd.DataFrame) -> str:
    return DIFFERENCES_ATTACKED if measured.attack.any() else DIFFERENCES


def _reasons(measured: pd.DataFrame) -> list[tuple[str, str]]:
    """Each metric with a number that was not obtained, and why, once."""
    missing = measured[(measured.reason != "") & ~measured.metric.str.startswith("H ")].drop_duplicates("metric")
    return list(zip(missing.metric, missing.reason, strict=True))


def markdown(measured: pd.DataFrame, kind: str, about: About) -> str:
    """One kind's tables in Markdown: pooled with its caption, differences to the unedited model, one a task."""
    parts = [_markdown_rows(layout(measured, kind)), escape_markdown(caption(measured, kind, about))]
    differences = layout(measured, kind, of="difference")
    if differences[1]:
        parts += [f"**{_differences(measured)}**", _markdown_rows(differences)]
    tasks = [task for task in dict.fromkeys(measured.task[measured.task_kind == kind]) if task != tables.POOLED]
    if len(tasks) > 1:
        for task in tasks:
            parts += [f"**Only {escape_markdown(task)} erased**", _markdown_rows(layout(measured, kind, task))]
    return "\n\n".join(parts) + "\n"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Any table in Markdown; the first column to the left, the others to the right."""
    return _markdown_rows((list(heads), [list(row) for row in rows], [[False] * len(heads)] * len(rows)))


def _markdown_rows(table: Layout) -> str:
    heads, rows, marks = table
    lines = [_pipes(heads), "|" + "|".join(["---", *["---:"] * (len(heads) - 1)]) + "|"]
    for row, mark in zip(rows, marks, strict=True):
        lines.append("| " + " | ".join(_bold([_markdown_cell(cell) for cell in row], mark, "**{}**".format)) + " |")
    return "\n".join(lines)


def latex(measured: pd.DataFrame, kind: str, about: About) -> str:
    """One kind's tables in LaTeX: pooled, and differences to the unedited model.

    They need ``\\usepackage{booktabs}`` and ``\\usepackage{graphicx}`` only.
    """
    text = _latex_table(layout(measured, kind), caption(measured, kind, about))
    differences = layout(measured, kind, of="difference")
    if differences[1]:
        text += "\n" + _latex_table(differences, f"Erasing concepts of kind {kind}. {_differences(measured)}.")
    return text


def _latex_table(table: Layout, caption_text: str) -> str:
    heads, rows, marks = table
    escaped = [[escape_latex(text) for text in row] for row in rows]
    body = [
        " & ".join(_bold(row, mark, r"\textbf{{{}}}".format)) + r" \\" for row, mark in zip(escaped, marks, strict=True)
    ]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(caption_text)}}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            " & ".join(escape_latex(head) for head in heads) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def write_tables(measured: pd.DataFrame, folder: Path, about: About) -> list[Path]:
    """Write ``measured.csv`` (tidy, full precision) and a Markdown and a LaTeX file for each kind.

    Returns:
        The files written.
    """
    written = [folder / MEASURED_FILE]
    write_text(written[0], to_csv(without_attacks(measured)))
    for kind in dict.fromkeys(measured.task_kind):
        for suffix, text in ((".md", markdown(measured, kind, about)), (".tex", latex(measured, kind, about))):
            written.append(folder / f"{re.sub(r'[^a-z0-9]+', '-', kind.lower())}{suffix}")
            write_text(written[-1], text)
    return written


def print_caption(text: str, console: Console, style: str = "dim") -> None:
    """Print a sentence of a table as it stands, broken at words to the terminal's width."""
    console.print(Text(printable(text), style=style))


def without_attacks(table: pd.DataFrame) -> pd.DataFrame:
    """A table without the column of attacks where nothing was attacked."""
    return table if table.attack.any() else table.drop(columns="attack")


def print_tables(measured: pd.DataFrame, about: About, console: Console) -> None:
    """Print one table a kind, and why something was not run.

    To fit a terminal, intervals stand below their numbers, columns without any number and the peak memory are left to
    the files, and what is too wide for one table goes into a second one.
    """
    for kind in dict.fromkeys(measured.task_kind):
        heads, rows, marks = layout(measured[~measured.metric.str.startswith("peak_memory_mb")], kind)
        shown = [i for i in range(1, len(heads)) if any(row[i] not in (EMPTY, ABSENT) for row in rows)]
        print_columns(kind, (heads, rows, marks), shown, console)
        print_caption(caption(measured, kind, about), console)
        console.print()
    for metric, reason in _reasons(measured):
        print_caption(f"not run: {metric}: {reason}", console, style="")


def print_columns(name: str, table: Layout, shown: Sequence[int], console: Console) -> None:
    """Print a table with its intervals below its numbers, in as many tables as the terminal's width asks for.

    Args:
        name: what stands above it.
        table: its first column is in each of them.
        shown: which of the other columns, by number.
        console: where to print.
    """
    heads, rows, marks = table
    heads = [printable(head) for head in heads]
    cells = [[printable(row[0]), *(_below(cell) for cell in row[1:])] for row in rows]
    for number, part in enumerate(_fitting(heads, cells, shown, console.width)):
        drawn = Table(
            title=Text(printable(f"{name}, more columns" if number else name)),
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        drawn.add_column(heads[0], max_width=ERASER_WIDTH, overflow="fold")
        for i in part:
            drawn.add_column(_stacked(heads[i]), justify="right", no_wrap=True)
        for row, mark in zip(cells, marks, strict=True):
            drawn.add_row(Text(row[0]), *[Text(row[i], style="bold" if mark[i] else "") for i in part])
        console.print(drawn)


def _below(cell: str) -> str:
    """``12.3 [10.1, 14.9]`` with its interval below it: ``10.1–14.9``, or ``-2.0 to 1.5`` where a sign is in it."""
    value, _, interval = cell.partition(" [")
    return f"{value}\n{interval[:-1].replace(', ', ' to ' if '-' in interval else '–')}" if interval else cell


def _fitting(heads: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[int], room: int) -> list[list[int]]:
    """The columns in parts that each fit into a width beside the eraser's."""
    first = min(ERASER_WIDTH, max(len(text) for text in (heads[0], *(row[0] for row in rows)))) + 2
    parts: list[list[int]] = []
    left = 0
    for i in columns:
        lines = [line for text in (_stacked(heads[i]).plain, *(row[i] for row in rows)) for line in text.split("\n")]
        width = max(map(len, lines)) + 2
        if not parts or width > left:
            parts.append([])
            left = room - first
        parts[-1].append(i)
        left -= width
    return parts


def _stacked(head: str) -> Text:
    """A head over several lines, so that columns are as narrow as their numbers."""
    return Text(
        head.replace("_", " ").replace(" ", "\n").replace("\n%", " %").replace("\n↑", " ↑").replace("\n↓", " ↓")
    )


def _bold(row: Sequence[str], mark: Sequence[bool], style: Callable[[str], str]) -> list[str]:
    return [style(text) if best else text for text, best in zip(row, mark, strict=True)]


def _markdown_cell(text: str) -> str:
    """A cell as Markdown shows it; a number with its interval needs no escapes."""
    return text if NUMBER.fullmatch(text) else escape_markdown(text)


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"
