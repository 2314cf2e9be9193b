"""Whether two runs order erasers alike, though other concepts were erased: what holds for these concepts, does it hold for others?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from erasebench.errors import UserError
from erasebench.files import write_text
from erasebench.runs.folder import find_run
from erasebench.runs.names import TABLES_FOLDER
from erasebench.store import Store
from erasebench.tables.layout import ABSENT, markdown_table, title
from erasebench.tables.measured_file import read_measured
from erasebench.tables.printed import print_caption
from erasebench.tables.reliability import agreement, order_of, rate_columns
from erasebench.tables.slices import POOLED
from erasebench.texts import to_csv

FIELDS = ("task_kind", "role", "metric", "with", "value", "low", "high", "n", "note")
"""Columns of the table: ``value`` is a correlation of -1 to 1, ``n`` the erasers that are in both runs."""

ORDERS_EXPLAINED = (
    "Spearman's correlation between the orders of the erasers of two runs, column by column, with Bonett and Wright's 95 % interval "
    "(1.00, -1.00 and four erasers bound nothing: -1 to 1). Both orders are of means over concepts; erasers that are alike in one "
    "of the runs have no order there."
)


def orders(measured: pd.DataFrame, other: pd.DataFrame, name: str) -> pd.DataFrame:
    """Of each kind and column of rates that both runs have, whether they order erasers alike.

    Args:
        measured: see :func:`erasebench.tables.measure.measure`.
        other: the same of another run.
        name: of the other run.

    Returns:
        A row a kind and column, with :data:`FIELDS`.
    """
    rows: list[dict[str, Any]] = []
    clean, others = (table[(table.task == POOLED) & (table.attack == "")] for table in (measured, other))
    for kind in dict.fromkeys(clean.task_kind):
        part, theirs = clean[clean.task_kind == kind], others[others.task_kind == kind]
        for column in rate_columns(part):
            if column not in rate_columns(theirs):
                continue
            same = agreement(order_of(part, column), order_of(theirs, column))
            rows.append(same | {"task_kind": kind, "role": column[0], "metric": column[1], "with": name})
    return pd.DataFrame(rows, columns=list(FIELDS))


def show_orders(run: str, other: str, store: Store, console: Console) -> list[Path]:
    """Print whether two finished runs order erasers alike, and write it beside the tables of the first.

    Returns:
        ``orders.csv`` (full precision) and ``orders.md``.

    Raises:
        UserError: no such run, a run without tables, or two runs that share no kind and column.
    """
    folders = [find_run(store, name) for name in (run, other)]
    tables = []
    for folder in folders:
        try:
            table = read_measured(folder / TABLES_FOLDER)
        except FileNotFoundError as error:
            raise UserError(
                f"run {folder.name} has no tables yet; make them with: erasebench finish {folder.name}"
            ) from error
        tables.append(table if "attack" in table else table.assign(attack=""))
    answers = orders(tables[0], tables[1], folders[1].name)
    if answers.empty:
        raise UserError(
            f"runs {folders[0].name} and {folders[1].name} have no kind and rate in common; nothing to compare"
        )
    heads, cells = ["kind", "column", f"order in {folders[1].name}", "erasers", "note"], []
    for row in answers.to_dict("records"):
        alike = ABSENT if pd.isna(row["value"]) else f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        cells.append([row["task_kind"], title(row["role"], row["metric"], "", ""), alike, str(row["n"]), row["note"]])
        print_caption(
            f"{cells[-1][0]}: same order in {folders[1].name}, {cells[-1][1]}: {alike}, n {row['n']}", console, style=""
        )
    print_caption(ORDERS_EXPLAINED, console)
    written = [folders[0] / TABLES_FOLDER / "orders.csv", folders[0] / TABLES_FOLDER / "orders.md"]
    write_text(written[0], to_csv(answers))
    write_text(written[1], f"{markdown_table(heads, cells)}\n\n{ORDERS_EXPLAINED}\n")
    return written
