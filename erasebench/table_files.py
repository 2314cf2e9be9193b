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

from erasebench import tables
from erasebench.files import write_text

ARROWS = {"up": "↑", "down": "↓"}
ROLE_WORDS = {"erase": "erased", "retain": "retained", "general": "general", "both": "", "cost": ""}
NAMES = {"edit_seconds": "edit s", "peak_memory_mb": "peak MB"}
EMPTY = "not run"
ABSENT = "–"
"""Where no number is to be expected (the unedited model has no edit)."""

LATEX_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--",
}  # fmt: skip


def title(role: str, metric: str, direction: str, unit: str) -> str:
    """A column's head: ``judge % erased ↓``. The version is in the caption."""
    name = NAMES.get(metric, metric.partition("@")[0])
    words = [name, unit, ROLE_WORDS.get(role, role), ARROWS.get(direction, "")]
    return " ".join(word for word in words if word)


def cell_text(cell: Mapping[str, Any] | None) -> str:
    """``12.3 [10.1, 14.9]``; rates in per cent; ``not run`` where there is no number, ``–`` where there is none to be."""
    if cell is None:
        return ABSENT
    if math.isnan(cell["value"]):
        return EMPTY if cell["how"] == "not run" else ABSENT
    scale = 100 if cell["unit"] == "%" else 1
    digits = 1 if cell["unit"] == "%" or abs(cell["value"]) >= 10 else 2 if abs(cell["value"]) >= 0.1 else 4
    value, low, high = (f"{scale * cell[name]:.{digits}f}" for name in ("value", "low", "high"))
    return value if math.isnan(cell["low"]) or cell["role"] == "cost" else f"{value} [{low}, {high}]"


def layout(measured: pd.DataFrame, kind: str, task: str = tables.POOLED) -> tuple[list[str], list[list[str]], list[list[bool]]]:
    """Heads, cells and which cells are best, of one kind's table; the first column is the eraser."""
    wide = tables.wide(measured, kind, task)
    heads, columns, marks = ["eraser"], [list(wide.index)], [[False] * len(wide)]
    for role, metric in wide.columns:
        cells = list(wide[(role, metric)])
        known = next(cell for cell in cells if cell is not None)
        heads.append(title(role, metric, known["direction"], known["unit"]))
        columns.append([cell_text(cell) for cell in cells])
        marks.append(tables.best(cells))
    return heads, [list(row) for row in zip(*columns, strict=True)], [list(row) for row in zip(*marks, strict=True)]


def caption(measured: pd.DataFrame, kind: str, about: Mapping[str, str]) -> str:
    """What a reader must know to use the numbers: how they were measured, from how many images, and whose they are."""
    part = measured[(measured.task_kind == kind) & (measured.task == tables.POOLED)]
    tasks = [name for name in dict.fromkeys(measured[measured.task_kind == kind].task) if name != tables.POOLED]
    counts = []
    for role in ("erase", "retain", "general"):
        numbers = part[(part.role == role) & (part.n > 0)].n
        if len(numbers):
            counts.append(f"{ROLE_WORDS[role]} n = {numbers.max():.0f}")
    metrics = [name for name in dict.fromkeys(part.metric) if "@" in name and not name.startswith("H ")]
    sentences = [
        f"Erasing concepts of kind {kind}" + (f", one at a time ({', '.join(tasks)}), pooled" if tasks else ""),
        *(f"{key.removesuffix(f' of kind {kind}')} {value}" for key, value in about.items() if _concerns(key, kind)),
        f"images per eraser: {', '.join(counts)}" if counts else "no images",
        "95 % intervals in brackets (Wilson for rates, bootstrap otherwise)",
        "bold: best of the erasers, and all that its interval does not tell apart",
        f"metrics {', '.join(metrics)}",
    ]
    return ". ".join(sentences) + "." + (f" {about['note']}" if about.get("note") else "")


def _concerns(key: str, kind: str) -> bool:
    return key != "note" and (" of kind " not in key or key.endswith(f" of kind {kind}"))


def markdown(measured: pd.DataFrame, kind: str, about: Mapping[str, str], task: str = tables.POOLED) -> str:
    """One kind's table in Markdown, with its caption."""
    heads, rows, marks = layout(measured, kind, task)
    lines = [_pipes(heads), "|" + "|".join(["---", *["---:"] * (len(heads) - 1)]) + "|"]
    lines += [_pipes(_bold(row, mark, "**{}**".format)) for row, mark in zip(rows, marks, strict=True)]
    return "\n".join(lines) + f"\n\n{_no_pipes(caption(measured, kind, about))}\n"


def latex(measured: pd.DataFrame, kind: str, about: Mapping[str, str], task: str = tables.POOLED) -> str:
    """One kind's table in LaTeX; it needs ``\\usepackage{booktabs}`` and ``\\usepackage{graphicx}`` only."""
    heads, rows, marks = layout(measured, kind, task)
    escaped = [[escape_latex(text) for text in row] for row in rows]
    body = [" & ".join(_bold(row, mark, r"\textbf{{{}}}".format)) + r" \\" for row, mark in zip(escaped, marks, strict=True)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(caption(measured, kind, about))}}}",
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


def write_tables(measured: pd.DataFrame, folder: Path, about: Mapping[str, str]) -> list[Path]:
    """Write ``measured.csv`` (tidy, full precision) and a Markdown and a LaTeX file for each kind.

    Returns:
        The files written.
    """
    written = [folder / "measured.csv"]
    write_text(written[0], measured.to_csv(index=False))
    for kind in dict.fromkeys(measured.task_kind):
        for suffix, text in ((".md", markdown(measured, kind, about)), (".tex", latex(measured, kind, about))):
            written.append(folder / f"{re.sub(r'[^a-z0-9]+', '-', kind.lower())}{suffix}")
            write_text(written[-1], text)
    return written


def print_tables(measured: pd.DataFrame, about: Mapping[str, str], console: Console) -> None:
    """Print one table a kind, and why something was not run.

    To fit a terminal, intervals stand below their numbers, and columns without any number and the peak memory are left
    to the files.
    """
    for kind in dict.fromkeys(measured.task_kind):
        heads, rows, marks = layout(measured[measured.metric != "peak_memory_mb"], kind)
        shown = [i for i in range(len(heads)) if i == 0 or any(row[i] not in (EMPTY, ABSENT) for row in rows)]
        table = Table(title=kind, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
        for i in shown:
            table.add_column(_stacked(heads[i]), justify="left" if i == 0 else "right", no_wrap=True)
        for row, mark in zip(rows, marks, strict=True):
            table.add_row(*[Text(row[i].replace(" [", "\n["), style="bold" if mark[i] else "") for i in shown])
        console.print(table)
        console.print(caption(measured, kind, about), style="dim", markup=False, highlight=False)
        console.print()
    missing = measured[measured.reason != ""].drop_duplicates("metric")
    for row in missing.itertuples():
        console.print(f"not run: {row.metric}: {row.reason}", markup=False, highlight=False)


def escape_latex(text: str) -> str:
    """A text that LaTeX prints as it is."""
    return "".join(LATEX_ESCAPES.get(character, character) for character in text)


def _stacked(head: str) -> Text:
    """A head over several lines, so that columns are as narrow as their numbers."""
    return Text(head.replace("_", " ").replace(" ", "\n").replace("\n%", " %").replace("\n↑", " ↑").replace("\n↓", " ↓"))


def _bold(row: Sequence[str], mark: Sequence[bool], style: Callable[[str], str]) -> list[str]:
    return [style(text) if best else text for text, best in zip(row, mark, strict=True)]


def _no_pipes(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_no_pipes(cell) for cell in cells) + " |"
