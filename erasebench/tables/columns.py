"""Columns of a table by the names that people type: ``judge.erased``, ``erased``, ``edit_seconds``."""

from __future__ import annotations

import math

import pandas as pd

from erasebench.concepts import NEAR, PARAPHRASE, ROLE
from erasebench.edits.label import UNEDITED
from erasebench.errors import UserError, suggest
from erasebench.tables.slices import POOLED

COLUMN_ENDINGS = {name: role.words for name, role in ROLE.items()} | {"both": "both"}
"""What stands behind a metric's name. ``both`` is the harmonic mean of the two aims."""

SHORT = ("erased", "paraphrased", "near", "retained")
"""Names that need no metric: those of the aims, and the same metrics on prompts in other words and on near concepts."""

Column = tuple[str, str]
"""A role and a metric, as in :data:`erasebench.tables.measure.MEASURED_COLUMNS`."""


def names(measured: pd.DataFrame, kind: str | None = None) -> dict[str, Column]:
    """Every column of a table (of one kind, or of all) by its name: ``METRIC.erased``, for costs the bare name.

    ``erased`` and ``retained`` alone are the columns of :func:`aims`, ``paraphrased`` and ``near`` the same metrics on prompts in
    other words and on concepts near the erased ones, where there are such columns.
    """
    part = measured if kind is None else measured[measured.task_kind == kind]
    found = {}
    for role, metric in dict.fromkeys(zip(part.role, part.metric, strict=True)):
        name = metric.partition("@")[0].removeprefix("H ")
        found[f"{name}.{COLUMN_ENDINGS[role]}" if role in COLUMN_ENDINGS else name] = (role, metric)
    if not (chosen := aims(part)):
        return found
    erased, kept = chosen
    short = dict(zip(SHORT, (erased, (PARAPHRASE, erased[1]), (NEAR, kept[1]), kept), strict=True))
    there = set(found.values())
    return found | {name: column for name, column in short.items() if column in there}


def find(name: str, measured: pd.DataFrame, option: str) -> str:
    """The known name that is meant.

    Args:
        name: as typed; case does not matter.
        measured: the table, of all kinds.
        option: where it was typed, e.g. ``--sort``.

    Raises:
        UserError: no such column, with the nearest and the list.
    """
    known = {entry.casefold(): entry for entry in [*names(measured), *_of_kinds(measured)]}
    if name.strip().casefold() not in known:
        listed = list(dict.fromkeys(known.values()))
        raise UserError(f"{option} {name}: no such column.{suggest(name, listed)} Columns: {', '.join(listed)}")
    return known[name.strip().casefold()]


def _of_kinds(measured: pd.DataFrame) -> list[str]:
    """Names that one kind alone knows: another kind may have other aims."""
    return [name for kind in dict.fromkeys(measured.task_kind) for name in names(measured, kind)]


def aims(part: pd.DataFrame) -> tuple[Column, Column] | None:
    """The columns that tell of both aims: what should be gone, and what should stay.

    A number that goes down where a concept is erased, and the same metric on retained prompts where more is better; if
    there is none, the first number that should go up on retained or general prompts. ``None`` if there is no such pair.

    Args:
        part: rows of a table, of one kind if kinds have metrics of their own.
    """
    known = part[part.value.notna() & (part.eraser != UNEDITED)]
    for metric in dict.fromkeys(known.metric[(known.role == "erase") & (known.direction == "down")]):
        for kept in (known[known.metric == metric], known):
            kept = kept[kept.role.isin(("retain", "general")) & (kept.direction == "up")]
            if len(kept):
                return ("erase", metric), (kept.role.iloc[0], kept.metric.iloc[0])
    return None


def with_metric(name: str, measured: pd.DataFrame, kind: str, option: str) -> str:
    """A column's name with its metric: one of :data:`SHORT` alone is ``judge.erased``, or that of another metric.

    Args:
        name: as :func:`find` gives it.
        measured: the table.
        kind: of the tasks; another kind may have another metric.
        option: where it was typed, e.g. ``--best``.

    Raises:
        UserError: one of :data:`SHORT` would be of a metric that is no rate, because those that are rates have no
            number. Nobody asked for that one.
    """
    aim = names(measured, kind).get(name)
    if name not in SHORT:
        return name
    part = measured[(measured.task_kind == kind) & (measured.eraser != UNEDITED) & (measured.task == POOLED)]
    judges = part[(part.role == "erase") & (part.direction == "down") & (part.unit == "%")]
    chosen = names(measured, kind).get("erased")
    if len(judges) and (chosen is None or chosen[1] not in set(judges.metric)):
        without = "; ".join(
            f"{row.metric}: {row.reason or 'none'}" for row in judges.drop_duplicates("metric").itertuples()
        )
        offered = [entry for entry in names(measured, kind) if entry.endswith((".erased", ".retained", ".general"))]
        raise UserError(
            f"{option} {name}: no metric that recognises concepts of kind {kind} has a number ({without}); name the column "
            f"that is to count instead: {', '.join(offered)}"
        )
    if aim is None:
        return name
    role, metric = aim
    return f"{metric.partition('@')[0]}.{COLUMN_ENDINGS[role]}"


def cells(measured: pd.DataFrame, kind: str, name: str) -> pd.DataFrame:
    """One column of one kind's pooled table, a row an eraser (its index); empty if the kind does not have it."""
    known = names(measured, kind)
    if name not in known:
        return measured.iloc[:0].set_index("eraser")
    role, metric = known[name]
    part = measured[(measured.task_kind == kind) & (measured.task == POOLED)]
    return part[(part.role == role) & (part.metric == metric)].drop_duplicates("eraser").set_index("eraser")


def sort_rows(measured: pd.DataFrame, name: str) -> pd.DataFrame:
    """A table whose erasers stand in the order of a column, the best first; the unedited model stays on top.

    An eraser without that number comes last. A kind without the column keeps its order.

    Args:
        measured: see :func:`erasebench.tables.measure.measure`.
        name: a column, or ``eraser`` for the alphabet.

    Raises:
        UserError: no such column.
    """
    alphabet = name.strip().casefold() == "eraser"
    column = "" if alphabet else find(name, measured, "--sort")
    places: dict[tuple[str, str], tuple[float, str]] = {}
    for kind, part in measured.groupby("task_kind", sort=False):
        chosen = cells(measured, kind, column)
        for number, eraser in enumerate(dict.fromkeys(part.eraser)):
            place = float(number)
            if len(chosen):
                place = math.inf
                if eraser in chosen.index and not math.isnan(chosen.value[eraser]):
                    place = chosen.value[eraser] * (-1 if chosen.direction[eraser] == "up" else 1)
            places[kind, eraser] = (0.0, eraser) if alphabet else (place, "")
    order = sorted(
        range(len(measured)),
        key=lambda i: (
            measured.eraser.iloc[i] != UNEDITED, places[measured.task_kind.iloc[i], measured.eraser.iloc[i]]
        ),
    )  # fmt: skip
    # Within each column only: the order of columns is that of the run.
    block = measured.groupby(["task_kind", "task", "role", "metric"], sort=False).ngroup().to_numpy()
    return measured.iloc[sorted(order, key=lambda i: block[i])]
