"""Which images every number is made of: the rows of an eraser, task, role and metric, and those they are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from erasebench.edits.label import UNEDITED, row_text
from erasebench.scores.metric import Metric

POOLED = "all"
"""The task of a row that is pooled over all tasks of a kind."""

NO_ROW = "it compares with the row {0}, which this table does not have; add method={0} to the run"

Slice = tuple[dict[str, Any], pd.DataFrame, pd.DataFrame, str]
"""What a number is of, its scored rows, the rows of the same prompts that it is compared with (of the unedited model;
under an attack, of the same edit without it), why there is no number."""


def slices_of(
    plan: pd.DataFrame, scores: Mapping[str, pd.DataFrame], metric: Metric, reason: str = "", tasks: bool = True
) -> Iterator[Slice]:
    """What every number of a metric is made of: see :data:`Slice`; without ``tasks`` the pooled ones alone.

    The other arguments are those of :func:`erasebench.tables.measure.measure`.
    """
    asked = rows_asked(plan, metric)
    return slices_in(asked, rows_scored(asked, scores.get(metric.records_id), metric), metric, reason, tasks)


def rows_asked(plan: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """The rows of a plan that a metric is reported on, numbered by a column ``row``."""
    chosen = metric.applies_to(plan)
    return chosen.assign(row=range(len(chosen)))


def rows_scored(asked: pd.DataFrame, scores: pd.DataFrame | None, metric: Metric) -> pd.DataFrame:
    """The rows that have a score, with the score columns."""
    if scores is None or not len(scores):
        return asked.iloc[:0]
    by = ["key", *metric.inputs]
    clash = [column for column in scores.columns if column in asked.columns and column not in by]
    if clash:
        raise ValueError(f"metric {metric.id} stores columns that a plan has, too: {', '.join(clash)}; rename them")
    joined = asked.merge(scores, on=by, how="inner", validate="many_to_one")
    # Thousands of slices are taken of it, and a row of many columns of strings costs many times one of plain objects.
    return joined.astype(dict.fromkeys(joined.select_dtypes("string").columns, object))


def slices_in(
    asked: pd.DataFrame, joined: pd.DataFrame, metric: Metric, reason: str, tasks: bool = True
) -> Iterator[Slice]:
    """Every (eraser, task or pooled, role) a metric is reported on; without ``tasks`` the pooled ones alone.

    Rows and originals are of the same prompts in the same order. A slice of which any row has no score gets a reason
    instead of a number: a mean over the images that happen to be scored is not the number that was asked for.
    """
    places = pd.Index(joined.row)
    for (kind, role), part in asked.groupby(["task_kind", "role"], sort=False):
        single = list(dict.fromkeys(part.task)) if tasks else []
        for task in [POOLED, *single] if len(single) > 1 else [POOLED]:
            of_task = part if task == POOLED else part[part.task == task]
            beside = of_task[(of_task.eraser == metric.beside) & (of_task.attack == "")]
            of_beside = _by_prompt(beside)
            for (eraser, attack), wanted in of_task.groupby(["eraser", "attack"], sort=False):
                rows = _taken(joined, places, wanted.row)
                base, of_base = beside, of_beside
                if attack and metric.beside == UNEDITED:
                    base = _clean_rows(of_task, wanted)
                    of_base = _by_prompt(base)
                same = [of_base.get(prompt) for prompt in zip(rows.task, rows.prompt_id, strict=True)]
                paired = _taken(joined, places, [row for row in same if row is not None])
                identity = {
                    "task_kind": kind, "eraser": eraser, "task": task, "role": role, "metric": metric.id,
                    "unit": metric.unit, "direction": metric.better[role], "attack": attack,
                }  # fmt: skip
                what = "rows without the attack" if base is not beside else f"rows of {row_text(metric.beside, '')}"
                lacks = "" if len(base) or metric.beside == UNEDITED else NO_ROW.format(metric.beside)
                yield (
                    *(identity, rows, paired),
                    reason or _gap(wanted, rows, "rows") or lacks or _gap(base, base[base.row.isin(places)], what),
                )


def _by_prompt(rows: pd.DataFrame) -> dict[tuple[str, str], int]:
    """The number of each row by its task and prompt; one row each."""
    return dict(zip(zip(rows.task, rows.prompt_id, strict=True), rows.row, strict=True))


def _taken(joined: pd.DataFrame, places: pd.Index, rows: Sequence[int] | pd.Series) -> pd.DataFrame:
    """Those of some rows that have a score, with the score columns."""
    found = places.get_indexer(rows)
    return joined.take(found[found >= 0]).reset_index(drop=True)


def _clean_rows(rows: pd.DataFrame, attacked: pd.DataFrame) -> pd.DataFrame:
    """The rows of the same edits and prompts as some attacked ones, without the attack."""
    clean = rows[(rows.attack == "") & rows.key.isin(attacked.clean_key)]
    return clean.drop_duplicates(["task", "prompt_id"])  # two erasers may have made the same edit


def _gap(wanted: pd.DataFrame, scored: pd.DataFrame, what: str) -> str:
    lacking = len(wanted) - len(scored)
    return f"{lacking} of {len(wanted)} {what} have no score; give the run's command again" if lacking else ""
