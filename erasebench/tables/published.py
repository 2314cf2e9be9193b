"""Published numbers as data, and a run's own numbers beside them.

``data/published.csv`` holds the numbers, each with its source and whether it was read in the authors' own text
(``authors``) or quoted by somebody else (``quoted``). ``data/published_metrics.csv`` says what a printed metric is among
ours, ``data/published_methods.csv`` the same for methods; what has no counterpart stays a published number. Whether two
numbers are of one thing is said by :mod:`erasebench.tables.published_match`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from erasebench.edits.label import UNEDITED
from erasebench.errors import UserError, printable, suggest
from erasebench.files import write_text
from erasebench.runs.about import About
from erasebench.tables.layout import print_caption
from erasebench.tables.measure import POOLED
from erasebench.tables.published_match import row_mismatches, run_mismatches
from erasebench.texts import escape_markdown, to_csv

OBTAINED = {"authors": "read in the authors' own text", "quoted": "quoted by somebody else"}
"""How a number was obtained."""

SHOWN = 40
"""Rows that are printed in the terminal; files have all."""

RULE = (
    "A difference is taken where the model, the task, the protocol, the content of the prompts and the metric with its "
    "settings are those of the published number, and the eraser has our defaults for it; else the note says what is not"
)

PUBLISHED_COLUMNS = ("paper", "arxiv", "table", "task", "model", "method", "metric", "direction", "split", "value", "source", "obtained")  # fmt: skip
DEFINITION_COLUMNS = ("paper", "metric", "task", "ours", "role", "scale", "slice", "protocol", "why")


def load_published(folder: Traversable | Path | None = None) -> pd.DataFrame:
    """All published numbers, each joined with what its metric and method are among ours.

    Args:
        folder: where the three files are; those shipped if not given.

    Returns:
        :data:`PUBLISHED_COLUMNS`, ``ours`` (name of the metric; empty: none), ``role, scale, slice, protocol, why`` of its
        definition, and ``eraser`` (label of the method; empty: not built).

    Raises:
        UserError: an unknown method or metric, a value that is no number, a row without a source, a number twice.
    """
    folder = folder or files("erasebench").joinpath("data")
    rows = _read(folder, "published.csv", PUBLISHED_COLUMNS)
    definitions = _read(folder, "published_metrics.csv", DEFINITION_COLUMNS)
    methods = _read(folder, "published_methods.csv", ("method", "ours"))
    known = {(row.paper, row.metric, row.task): row for row in definitions.itertuples()}
    erasers = dict(zip(methods.method, methods.ours, strict=True))
    found = []
    for number, row in enumerate(rows.itertuples(), start=2):
        place = f"published.csv row {number}"
        definition = known.get((row.paper, row.metric, row.task)) or known.get((row.paper, row.metric, ""))
        if definition is None:
            of_paper = [metric for paper, metric, _ in known if paper == row.paper]
            raise UserError(
                f"{place}: metric {row.metric!r} of {row.paper} is unknown.{suggest(row.metric, of_paper)} "
                "Say what it is in published_metrics.csv"
            )
        if row.method not in erasers:
            raise UserError(
                f"{place}: method {row.method!r} is unknown.{suggest(row.method, erasers)} "
                "Add it to published_methods.csv (with an empty second cell if it is not built)"
            )
        if row.obtained not in OBTAINED or not row.source:
            raise UserError(f"{place}: needs a source, and obtained must be one of {', '.join(OBTAINED)}")
        found.append(
            (_published_value(row.value, place), definition.ours, definition.role, definition.scale, definition.slice,
             definition.protocol, definition.why, erasers[row.method])
        )  # fmt: skip
    names = ["value", "ours", "role", "scale", "slice", "protocol", "why", "eraser"]
    table = rows.drop(columns="value").join(pd.DataFrame(found, columns=names, index=rows.index))
    twice = table[table.duplicated(["paper", "table", "task", "model", "method", "metric", "split"])]
    if len(twice):
        row = twice.iloc[0]
        raise UserError(f"published.csv: {row.method}, {row.metric} ({row.split}) of {row.paper} is there twice")
    return table


def _read(folder: Traversable | Path, name: str, columns: Sequence[str]) -> pd.DataFrame:
    with folder.joinpath(name).open("r", encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    lacking = [column for column in columns if column not in table]
    if lacking:
        raise UserError(f"{name}: no column {', '.join(lacking)}")
    return table[list(columns)]


def _published_value(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{place}: {text!r} is not a number; leave out what is not known")
    return value


def of_experiment(experiment: Mapping[str, Any], table: pd.DataFrame | None = None) -> pd.DataFrame:
    """The published rows that an experiment asks for.

    Raises:
        UserError: a condition that no row meets; it is named.
    """
    table = load_published() if table is None else table
    parts = []
    for wanted in experiment["published"]:
        part = table
        for column, value in wanted.items():
            part = part[part[column] == value]
        if not len(part):
            raise UserError(f"experiment {experiment['name']}: no published number with {dict(wanted)}")
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else table.iloc[:0]


def beside(measured: pd.DataFrame, config: Mapping[str, Any], prompt_sets: Mapping[str, Any]) -> pd.DataFrame:
    """A run's numbers beside the published ones of its experiment.

    Args:
        measured: what :func:`erasebench.tables.measure.measure` returns.
        config: the run's config as plain values, with its ``experiment``.
        prompt_sets: what the run's manifest says of its prompts, by kind.

    Returns:
        Columns ``method, metric, split, direction, measured, low, high, n, published, difference, obtained, source,
        note``, in the scale of the paper. One row a published number, then one for every eraser that was measured by
        the same metrics and has no published number. NaN where there is none.
    """
    experiment = config["experiment"]
    rows = of_experiment(experiment)
    ours = measured[(measured.task_kind == experiment["kind"])].assign(name=measured.metric.str.partition("@")[0])
    of_kind = prompt_sets.get(experiment["kind"])
    against = run_mismatches(config, str(of_kind.get("content", "")) if isinstance(of_kind, Mapping) else "")
    found, used = [], set()
    for row in rows.to_dict("records"):
        cell = _cell(ours, row)
        notes = [note for note in (row["why"], *against, *row_mismatches(row, config)) if note]
        values = _scaled(cell, row["scale"])
        if cell is not None:
            used.add((cell["eraser"], cell["metric"], cell["role"]))
        elif not row["eraser"]:
            notes = [*([row["why"]] if row["why"] else []), "method not built here"]
        difference = values["measured"] - row["value"] if cell is not None and not notes else math.nan
        found.append(
            {key: row[key] for key in ("method", "metric", "split", "direction")}
            | values
            | {"published": row["value"], "difference": difference}
            | {"obtained": row["obtained"], "source": row["source"], "note": "; ".join(notes)}
        )
    found += _only_measured(ours, used, set(rows.ours))
    names = (
        "method", "metric", "split", "direction", "measured", "low", "high", "n", "published", "difference",
        "obtained", "source", "note",
    )  # fmt: skip
    return pd.DataFrame(found, columns=list(names))


def _cell(ours: pd.DataFrame, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The measured number that is the published one's counterpart."""
    if not row["ours"] or not row["eraser"]:
        return None
    task = row["split"] if row["slice"] == "split" else POOLED
    part = ours[(ours.name == row["ours"]) & (ours.role == row["role"]) & (ours.eraser == row["eraser"])]
    part = part[(part.task.str.casefold() == task.casefold()) & part.value.notna()]
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
                {"method": row["eraser"], "metric": metric, "split": "all", "direction": row["direction"], **values}
                | {"published": math.nan, "difference": math.nan, "obtained": "", "source": "", "note": ""}
            )
    return found


# For people


def texts(table: pd.DataFrame) -> tuple[list[str], list[list[str]], list[str]]:
    """Heads, rows of cells, and the sources as numbered notes; a quoted number has a mark."""
    sources = list(dict.fromkeys(table.source[table.source != ""]))
    notes = list(dict.fromkeys(table.note[table.note != ""]))
    heads = ["method", "metric", "of", "measured", "published", "difference", "source", "note"]
    rows = []
    for row in table.to_dict("records"):
        measured = "not run" if math.isnan(row["measured"]) else _figure(row["measured"])
        if not math.isnan(row["low"]):
            measured += f" [{_figure(row['low'])}, {_figure(row['high'])}]"
        mark = "~" if row["obtained"] == "quoted" else ""
        rows.append(
            [
                "none (unedited)" if row["method"] == UNEDITED else row["method"],
                row["metric"] + {"up": " ↑", "down": " ↓"}.get(row["direction"], ""),
                row["split"],
                measured,
                "" if math.isnan(row["published"]) else f"{_figure(row['published'])}{mark}",
                "" if math.isnan(row["difference"]) else f"{row['difference']:+.4g}",
                str(sources.index(row["source"]) + 1) if row["source"] else "",
                _letters(notes.index(row["note"])) if row["note"] else "",
            ]
        )
    below = [f"{number}: {text}" for number, text in enumerate(sources, start=1)]
    below += [f"{_letters(i)}: no difference: {text}" for i, text in enumerate(notes)]
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
        f"~ {OBTAINED['quoted']}; without mark {OBTAINED['authors']}",
        "not run: no number was made here; an empty cell has no source",
        RULE,
        *([experiment["note"]] if experiment["note"] else []),
    ]
    return f"{'. '.join(parts)}. {about.note}".rstrip()


def write_beside(table: pd.DataFrame, folder: Path, experiment: Mapping[str, Any], about: About) -> None:
    """Write ``published.csv`` (full precision) and ``published.md`` beside a run's other tables."""
    heads, rows, below = texts(table)

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"

    lines = [line(heads), "|" + "---|" * len(heads), *map(line, rows), "", escape_markdown(caption(experiment, about))]
    write_text(folder / "published.csv", to_csv(table))
    write_text(
        folder / "published.md", "\n".join([*lines, "", *(f"- {escape_markdown(text)}" for text in below)]) + "\n"
    )


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
        drawn.add_column(head, justify="left" if head in ("method", "metric", "of") else "right")
    for cells in rows:
        styles = ["dim" if head == "published" and text.endswith("~") else "" for head, text in zip(heads, cells, strict=True)]  # fmt: skip
        drawn.add_row(*[Text(printable(text), style=style) for text, style in zip(cells, styles, strict=True)])
    console.print(drawn)
    if len(table) > len(shown):
        console.print(f"{len(table) - len(shown)} more published numbers are in published.md", highlight=False)
    for text in (*below, caption(experiment, about)):
        print_caption(text, console)
