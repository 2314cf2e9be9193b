"""Published numbers as data: which there are, where each was read, and what it is among ours.

======================  ==========================================================================================
file in ``data``        a row is
======================  ==========================================================================================
published.csv           a number: of which task, model, method, metric and prompts, and how it was obtained
published_tables.csv    a table of a paper, and where it was read
published_metrics.csv   what a printed metric is among ours, or why it is none; a row without a paper is for all
published_methods.csv   what a method is called here; a row with a paper is for that paper alone
======================  ==========================================================================================

``erased`` names the concepts of the edit a number is of as a run names its task (``Snoopy + Mickey``; empty: all edits
together), ``asked`` the concept that its prompts ask for (empty: all of them).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pandas as pd

from erasebench.errors import UserError, suggest

OBTAINED = {
    "authors": "in the authors' own text, of their own method or of what they measured as a benchmark",
    "quoted": "second-hand: of another's method, or read in somebody else's text",
}
"""How a number was obtained."""

PUBLISHED_COLUMNS = (
    "table_id", "task", "model", "method", "metric", "direction", "split", "erased", "asked", "value", "obtained",
    "doubt", "copy_of",
)  # fmt: skip
TABLE_COLUMNS = ("id", "paper", "arxiv", "table", "source")
DEFINITION_COLUMNS = ("paper", "metric", "task", "ours", "version", "role", "scale", "protocol", "why")
METHOD_COLUMNS = ("method", "paper", "ours")

BEGINS = "*"
"""At the end of a condition of an experiment: the cell begins with what stands before it."""


@cache
def shipped() -> pd.DataFrame:
    """All published numbers that are shipped; see :func:`load_published`."""
    return load_published(files("erasebench").joinpath("data"))


def load_published(folder: Traversable | Path) -> pd.DataFrame:
    """Published numbers, each joined with its table and with what its metric and method are among ours.

    Args:
        folder: where the four files are.

    Returns:
        ``paper, arxiv, table, source``, then :data:`PUBLISHED_COLUMNS`, then ``ours`` (name of the metric; empty: none),
        ``version`` (what its version must hold, such as the beginning of the hash of a network), ``role`` (empty: that of
        the prompts), ``scale, protocol, why`` of its definition, and ``eraser`` (what the method is called here; empty: not
        built). ``doubt`` says what is wrong with a printed value, ``copy_of`` the table that it was printed in before.

    Raises:
        UserError: an unknown table, method or metric, a value that is no number, a table without a source, a number
            that is there twice.
    """
    rows = _read(folder, "published.csv", PUBLISHED_COLUMNS)
    tables = _read(folder, "published_tables.csv", TABLE_COLUMNS)
    definitions = _read(folder, "published_metrics.csv", DEFINITION_COLUMNS)
    methods = _read(folder, "published_methods.csv", METHOD_COLUMNS)
    if len(unsourced := tables[tables.source == ""]):
        raise UserError(f"published_tables.csv: {unsourced.id.iloc[0]} needs a source")
    of_table = {row["id"]: row for row in tables.to_dict("records")}
    of_metric = {(row["paper"], row["metric"], row["task"]): row for row in definitions.to_dict("records")}
    of_method = {(row.paper, row.method): row.ours for row in methods.itertuples()}
    joined = []
    for number, row in enumerate(rows.to_dict("records"), start=2):
        place = f"published.csv row {number}"
        if row["table_id"] not in of_table:
            raise UserError(f"{place}: table {row['table_id']!r} is unknown.{suggest(row['table_id'], of_table)}")
        if row["obtained"] not in OBTAINED:
            raise UserError(f"{place}: obtained must be one of {', '.join(OBTAINED)}")
        table = {key: value for key, value in of_table[row["table_id"]].items() if key != "id"}
        definition = _definition(of_metric, table["paper"], row, place)
        kept = {key: definition[key] for key in ("ours", "version", "role", "scale", "protocol", "why")}
        eraser = _eraser(of_method, table["paper"], row["method"], place)
        joined.append(table | row | {"value": _number(row["value"], place)} | kept | {"eraser": eraser})
    found = pd.DataFrame(joined)
    twice = found[found.duplicated(["paper", "table", "task", "model", "method", "metric", "split"])]
    if len(twice):
        row = twice.iloc[0]
        raise UserError(
            f"published.csv: {row['method']}, {row['metric']} ({row['split']}) of {row['paper']} is there twice"
        )
    return found


def _read(folder: Traversable | Path, name: str, columns: Sequence[str]) -> pd.DataFrame:
    with folder.joinpath(name).open("r", encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    lacking = [column for column in columns if column not in table]
    if lacking:
        raise UserError(f"{name}: no column {', '.join(lacking)}")
    return table[list(columns)]


def _definition(
    of_metric: Mapping[tuple[str, str, str], dict[str, str]], paper: str, row: Mapping[str, str], place: str
) -> dict[str, str]:
    metric = row["metric"]
    for key in ((paper, metric, row["task"]), (paper, metric, ""), ("", metric, "")):
        if key in of_metric:
            return of_metric[key]
    names = [name for of, name, _ in of_metric if of in (paper, "")]
    raise UserError(
        f"{place}: metric {metric!r} of {paper} is unknown.{suggest(metric, names)} "
        "Say what it is in published_metrics.csv"
    )


def _eraser(of_method: Mapping[tuple[str, str], str], paper: str, method: str, place: str) -> str:
    for key in ((paper, method), ("", method)):
        if key in of_method:
            return of_method[key]
    raise UserError(
        f"{place}: method {method!r} is unknown.{suggest(method, [name for _, name in of_method])} "
        "Add it to published_methods.csv (with an empty last cell if it is not built)"
    )


def _number(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{place}: {text!r} is not a number; leave out what is not known")
    return value


def of_experiment(experiment: Mapping[str, Any], table: pd.DataFrame | None = None) -> pd.DataFrame:
    """The published rows that an experiment asks for.

    Args:
        experiment: its node. ``published`` is a list of conditions, each a text by column; one that ends in ``*`` is
            met by what begins so. Rows of all conditions follow each other, each row once.
        table: of :func:`load_published`; what is shipped if not given.

    Raises:
        UserError: an unknown column, or a condition that no row meets; it is named.
    """
    table = shipped() if table is None else table
    chosen: dict[Any, None] = {}
    for wanted in experiment["published"]:
        part = table
        for column, value in wanted.items():
            if column not in table:
                raise UserError(
                    f"experiment {experiment['name']}: published.{column}: no such column.{suggest(column, table)}"
                )
            begins = value.endswith(BEGINS)
            part = part[part[column].str.startswith(value[:-1]) if begins else part[column] == value]
        if not len(part):
            raise UserError(f"experiment {experiment['name']}: no published number with {dict(wanted)}")
        chosen |= dict.fromkeys(part.index)
    return table.loc[list(chosen)].reset_index(drop=True)
