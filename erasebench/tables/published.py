"""A run's own numbers beside the published ones of its experiment.

The published numbers are :mod:`erasebench.tables.published_data`; whether two numbers are of one thing is said by
:mod:`erasebench.tables.published_match`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from erasebench.edits.label import UNEDITED, shown_row
from erasebench.errors import printable
from erasebench.files import write_text
from erasebench.runs.about import About
from erasebench.scores.metric import Metric
from erasebench.tables.printed import print_caption
from erasebench.tables.published_data import OBTAINED, of_experiment
from erasebench.tables.published_match import (
    Ran,
    eraser_mismatches,
    find_label,
    metric_mismatches,
    of_model,
    row_mismatches,
    row_reasons,
    run_mismatches,
)
from erasebench.tables.slices import POOLED
from erasebench.texts import escape_markdown, to_csv

SHOWN = 40
"""Rows that are printed in the terminal; files have all."""

RULE = (
    "A difference is taken where the model, the type of its weights, the task, the protocol, the prompts, the metric with "
    "its settings and the settings of the eraser are those of the published number; else the note says what is not"
)

BESIDE_COLUMNS = (
    "task", "method", "metric", "split", "direction", "measured", "low", "high", "n", "published", "difference",
    "obtained", "source", "note", "remark",
)  # fmt: skip


def beside(
    measured: pd.DataFrame, ran: Ran, concepts: pd.DataFrame | None = None, published: pd.DataFrame | None = None
) -> pd.DataFrame:
    """A run's numbers beside the published ones of its experiment.

    Args:
        measured: what :func:`erasebench.tables.measure.measure` returns.
        ran: what the run did.
        concepts: what :func:`erasebench.tables.measure.measure_asked` returns, for published numbers that are of one
            concept's prompts; such are not run if it is not given.
        published: of :func:`erasebench.tables.published_data.load_published`; what is shipped if not given.

    Returns:
        Columns :data:`BESIDE_COLUMNS`, in the scale of the paper. One row a published number, then one for every eraser
        that was measured by the same metrics and has no published number. NaN where there is none. ``note`` says why
        no difference is taken, ``remark`` what to know of one that is.
    """
    kind = ran.experiment["kind"]
    rows = of_experiment(ran.experiment, published)
    ours = _of_kind(measured, kind)
    asked = _of_kind(concepts, kind) if concepts is not None else None
    against, remarks = run_mismatches(ran)
    found, used = [], set()
    for row in rows.to_dict("records"):
        label = find_label(row["eraser"], ran.erasers) if row["eraser"] else None
        cell = _cell(ours, asked, row, label) if label is not None and _is_model_of(row, ran) else None
        notes, said = row_reasons(row), list(remarks)
        if cell is not None and label is not None:
            used.add((label, cell["metric"], cell["role"]))
            of_eraser, choices = eraser_mismatches(label, ran)
            notes += [*row_mismatches(row, ran.config), *metric_mismatches(row, cell["metric"]), *against, *of_eraser]
            said += choices
        else:
            notes += _why_not_run(row, label, ran)
        values = _scaled(cell, row["scale"])
        difference = values["measured"] - row["value"] if cell is not None and not notes else math.nan
        found.append(
            {key: row[key] for key in ("task", "method", "metric", "split", "direction")}
            | values
            | {"published": row["value"], "difference": difference}
            | {"obtained": row["obtained"], "source": row["source"], "note": "; ".join(notes)}
            | {"remark": "" if math.isnan(difference) else "; ".join(said)}
        )
    return pd.DataFrame([*found, *_only_measured(ours, used, set(rows.ours))], columns=list(BESIDE_COLUMNS))


def asked_of(ran: Ran, metrics: Sequence[Metric]) -> list[Metric]:
    """The metrics of a run whose published counterparts are of one concept's prompts."""
    rows = of_experiment(ran.experiment)
    names = set(rows.ours[rows.asked != ""])
    return [metric for metric in metrics if metric.name in names]


def _of_kind(measured: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The numbers of one kind, with the names of their metrics."""
    part = measured[measured.task_kind == kind]
    return part.assign(name=part.metric.str.split("@").str[0])


def _is_model_of(row: Mapping[str, Any], ran: Ran) -> bool:
    """Whether a row of a table may be given a number of this run: one that is a model has none of another model."""
    return row["eraser"] != UNEDITED or of_model(row, ran.config)


def _why_not_run(row: Mapping[str, Any], label: str | None, ran: Ran) -> list[str]:
    """Why a published number, if it could have a counterpart at all, has none in a run."""
    if not row["eraser"]:
        return ["method not built here"]
    if label is None:
        return [f"{row['eraser']} is not among this run's erasers"]
    if not _is_model_of(row, ran):
        return row_mismatches(row, ran.config)
    return ["this run has no such number"] if row["ours"] else []


def _cell(
    ours: pd.DataFrame, asked: pd.DataFrame | None, row: Mapping[str, Any], label: str | None
) -> dict[str, Any] | None:
    """The measured number that is the published one's counterpart."""
    part = asked if row["asked"] else ours
    if not row["ours"] or part is None:
        return None
    part = part[(part.name == row["ours"]) & (part.eraser == label) & part.value.notna()]
    part = part[part.task.str.casefold() == (row["erased"] or POOLED).casefold()]
    if row["role"]:
        part = part[part.role == row["role"]]
    if row["asked"]:
        part = part[part.concept.str.casefold() == row["asked"].casefold()]
    return part.iloc[0].to_dict() if len(part) else None


def _scaled(cell: Mapping[str, Any] | None, scale: str) -> dict[str, float]:
    """Value and interval in the paper's scale; ``total`` is the sum over images."""
    if cell is None:
        return {"measured": math.nan, "low": math.nan, "high": math.nan, "n": 0}
    factor = cell["n"] if scale == "total" else float(scale)
    values = {to: factor * cell[key] for to, key in (("measured", "value"), ("low", "low"), ("high", "high"))}
    return values | {"n": int(cell["n"])}


def _only_measured(ours: pd.DataFrame, used: set[tuple[str, str, str]], names: set[str]) -> list[dict[str, Any]]:
    """Pooled rows of the published metrics without a published number; the published cells stay empty."""
    part = ours[(ours.task == POOLED) & ours.value.notna() & ours.name.isin(names)]
    found = []
    for row in part.to_dict("records"):
        if (row["eraser"], row["metric"], row["role"]) not in used:
            values = _scaled(row, "100" if row["unit"] == "%" else "1")
            metric = f"{row['name']} {row['unit']} {row['role']}".replace("  ", " ")
            found.append(
                {"task": "", "method": row["eraser"], "metric": metric, "split": "all", "direction": row["direction"]}
                | values
                | {"published": math.nan, "difference": math.nan}
                | dict.fromkeys(("obtained", "source", "note", "remark"), "")
            )
    return found


# For people


def texts(table: pd.DataFrame) -> tuple[list[str], list[list[str]], list[str]]:
    """Heads, rows of cells, and the sources as numbered notes; a quoted number has a mark."""
    sources = list(dict.fromkeys(table.source[table.source != ""]))
    notes = list(dict.fromkeys([*table.note[table.note != ""], *table.remark[table.remark != ""]]))
    reasons = set(table.note)
    heads = ["task", "method", "metric", "of", "measured", "published", "difference", "source", "note"]
    rows = []
    for row in table.to_dict("records"):
        measured = "not run" if math.isnan(row["measured"]) else _figure(row["measured"])
        if not math.isnan(row["low"]):
            measured += f" [{_figure(row['low'])}, {_figure(row['high'])}]"
        mark = "~" if row["obtained"] == "quoted" else ""
        rows.append(
            [
                row["task"],
                shown_row(row["method"]),
                row["metric"] + {"up": " ↑", "down": " ↓"}.get(row["direction"], ""),
                row["split"],
                measured,
                "" if math.isnan(row["published"]) else f"{_figure(row['published'])}{mark}",
                "" if math.isnan(row["difference"]) else f"{row['difference']:+.4g}",
                str(sources.index(row["source"]) + 1) if row["source"] else "",
                " ".join(_letters(notes.index(text)) for text in (row["note"], row["remark"]) if text),
            ]
        )
    below = [f"{number}: {text}" for number, text in enumerate(sources, start=1)]
    below += [f"{_letters(i)}: {'no difference: ' if text in reasons else ''}{text}" for i, text in enumerate(notes)]
    return heads, rows, below


def _letters(number: int) -> str:
    """The mark of a note: a to z, then aa, ab, ..."""
    before, last = divmod(number, 26)
    return (_letters(before - 1) if before else "") + chr(ord("a") + last)


def _figure(value: float) -> str:
    return f"{value:.4g}"


def caption(experiment: Mapping[str, Any], about: About) -> str:
    """What a reader must know: which table, how it was measured, what the marks mean."""
    parts = [
        f"{experiment['paper']}, {experiment['table']}, beside what was measured here",
        f"model {about.model}",
        f"protocol {about.protocol}",
        f"~ {OBTAINED['quoted']}; without mark: {OBTAINED['authors']}",
        "not run: no number was made here; an empty cell has no source",
        RULE,
        *([experiment["note"]] if experiment["note"] else []),
    ]
    return f"{'. '.join(parts)}. {about.note}".rstrip()


def write_beside(
    table: pd.DataFrame, folder: Path, experiment: Mapping[str, Any], about: About, name: str = "published"
) -> None:
    """Write ``published.csv`` (full precision) and ``published.md`` beside other tables, under that or another name."""
    heads, rows, below = texts(table)

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"

    lines = [line(heads), "|" + "---|" * len(heads), *map(line, rows), "", escape_markdown(caption(experiment, about))]
    write_text(folder / f"{name}.csv", to_csv(table))
    write_text(folder / f"{name}.md", "\n".join([*lines, "", *(f"- {escape_markdown(text)}" for text in below)]) + "\n")


def print_beside(table: pd.DataFrame, experiment: Mapping[str, Any], about: About, console: Console) -> None:
    """Print the table; quoted numbers are dim. Of a long one, what was measured and the first of the rest."""
    if not len(table):
        print_caption(f"{experiment['paper']}, {experiment['table']}: {experiment['note']}", console, style="")
        return
    shown = table.sort_values("measured", key=lambda values: values.isna(), kind="stable")[:SHOWN]
    heads, rows, below = texts(shown)
    drawn = Table(
        title=Text(printable(f"{experiment['paper']}, {experiment['table']}")), title_justify="left", box=SIMPLE_HEAD
    )
    for head in heads:
        drawn.add_column(head, justify="left" if head in ("task", "method", "metric", "of") else "right")
    for cells in rows:
        styles = ["dim" if head == "published" and text.endswith("~") else "" for head, text in zip(heads, cells, strict=True)]  # fmt: skip
        drawn.add_row(*[Text(printable(text), style=style) for text, style in zip(cells, styles, strict=True)])
    console.print(drawn)
    if len(table) > len(shown):
        console.print(f"{len(table) - len(shown)} more published numbers are in published.md", highlight=False)
    for text in (*below, caption(experiment, about)):
        print_caption(text, console)
