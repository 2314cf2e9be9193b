"""One number over all kinds of concepts: the plain mean of the numbers of each kind, as HUB's overall score is made."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from erasebench.concepts import ROLES, kind_words
from erasebench.edits.label import UNEDITED
from erasebench.files import write_text
from erasebench.tables.layout import column_text, markdown_table, title
from erasebench.tables.slices import POOLED
from erasebench.texts import escape_markdown, to_csv

OVERALL_COLUMNS = ("eraser", "role", "metric", "unit", "direction", "value", "low", "high", "n", "how")

EACH_KIND = "the judge of each kind"
"""What a column is called whose kinds were judged by metrics of their own (HUB: a detector of faces, Q16, a model)."""

OVERALL_EXPLAINED = (
    "The plain mean of the numbers of {kinds}, each kind weighing the same however many prompts or concepts it has (HUB, ICCV "
    "2025). The kinds were measured apart, so the interval is put together from theirs (MOVER). An eraser that lacks a number "
    "for one kind has none here."
)


def overall(measured: pd.DataFrame) -> pd.DataFrame:
    """The mean over kinds of every number that all kinds have.

    Args:
        measured: what :func:`erasebench.tables.measure.measure` returns, of two kinds or more.

    Returns:
        Columns :data:`OVERALL_COLUMNS`, a row an eraser and axis; no row where there is one kind. A metric that all kinds
        have is an axis; where kinds are judged by different metrics, the first rate of each kind is (:data:`EACH_KIND`).
    """
    part = measured[(measured.task == POOLED) & measured.role.isin(ROLES) & (measured.attack == "")]
    kinds = list(dict.fromkeys(part.task_kind))
    rows = []
    if len(kinds) > 1:
        for role, name, chosen in _axes(part, kinds):
            of_eraser = chosen.groupby("eraser", sort=False)
            for eraser, numbers in of_eraser:
                complete = len(numbers) == len(kinds) and numbers.value.notna().all()
                first = numbers.iloc[0]
                axis = {
                    "eraser": eraser,
                    "role": role,
                    "metric": name,
                    "unit": first.unit,
                    "direction": first.direction,
                }
                rows.append(axis | (_mean(numbers) if complete else _none()))
    return pd.DataFrame(rows, columns=list(OVERALL_COLUMNS))


def _axes(part: pd.DataFrame, kinds: list[str]) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Role, name and rows of each axis."""
    for role in ROLES:
        of_role = part[part.role == role]
        counts = of_role.groupby("metric", sort=False).task_kind.nunique()
        common = [metric for metric, count in counts.items() if count == len(kinds)]
        for metric in common:
            yield role, str(metric), of_role[of_role.metric == metric]
        rates = of_role[(of_role.unit == "%") & of_role.value.notna()]
        if not set(rates.metric) & set(common):
            first = rates.drop_duplicates(["task_kind"])[["task_kind", "metric"]]
            if len(first) == len(kinds):
                yield role, EACH_KIND, of_role.merge(first, on=["task_kind", "metric"])


def _mean(numbers: pd.DataFrame) -> dict[str, Any]:
    """The mean of independent numbers with an interval put together from theirs (G. Y. Zou and A. Donner, 2008)."""
    value, count = float(numbers.value.mean()), len(numbers)
    low = value - math.sqrt(float(((numbers.value - numbers.low) ** 2).sum(skipna=False))) / count
    high = value + math.sqrt(float(((numbers.high - numbers.value) ** 2).sum(skipna=False))) / count
    how = "none" if math.isnan(low) else "mean of kinds"
    return {"value": value, "low": low, "high": high, "n": int(numbers.n.sum()), "how": how}


def _none() -> dict[str, Any]:
    return {"value": math.nan, "low": math.nan, "high": math.nan, "n": 0, "how": "not run"}


def write_overall(measured: pd.DataFrame, folder: Path) -> list[Path]:
    """Write ``overall.csv`` (full precision) and ``overall.md`` of a table with several kinds.

    Returns:
        The files written; none where there is one kind, or nothing that all kinds have.
    """
    table = overall(measured)
    if not len(table):
        return []
    written = [folder / "overall.csv", folder / "overall.md"]
    write_text(written[0], to_csv(table))
    erasers = sorted(dict.fromkeys(table.eraser), key=lambda name: name != UNEDITED)
    heads, columns = ["eraser"], [erasers]
    for (role, metric), rows in table.groupby(["role", "metric"], sort=False):
        cells = {row["eraser"]: row | {"reason": ""} for row in rows.to_dict("records")}
        first = rows.iloc[0]
        heads.append(title(str(role), str(metric), first.direction, first.unit))
        columns.append(column_text([cells.get(eraser) for eraser in erasers]))
    kinds = " and ".join(kind_words(kind) for kind in dict.fromkeys(measured.task_kind))
    lines = [list(line) for line in zip(*columns, strict=True)]
    text = f"{markdown_table(heads, lines)}\n\n{escape_markdown(OVERALL_EXPLAINED.format(kinds=kinds))}\n"
    write_text(written[1], text)
    return written
