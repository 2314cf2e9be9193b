"""Records to numbers: what was measured, for every eraser, task, role and metric, with n and an interval.

A table is made from a plan (which prompts belong together) and stored scores alone: no model, no image, no GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from erasebench.concepts import NEAR, PARAPHRASE, ROLES
from erasebench.edits.label import UNEDITED
from erasebench.errors import UserError
from erasebench.scores.estimate import BINARY, Estimate, not_run
from erasebench.scores.metric import Metric
from erasebench.scores.paired import paired_difference
from erasebench.scores.rates import CLOPPER_PEARSON, WILSON, complement, harmonic_mean_estimate, rate_estimate
from erasebench.tables.costs import cost_rows
from erasebench.tables.slices import POOLED, Slice, rows_asked, rows_scored, slices_in, slices_of

NO_NUMBER = (
    "it gives no number for these prompts (their labels are unknown to it, they are too few, or its reference images "
    "have no records)"
)

MEASURED_COLUMNS = (
    "task_kind", "eraser", "task", "role", "metric", "unit", "direction", "value", "low", "high", "n", "how",
    "difference", "difference_low", "difference_high", "reason", "attack",
    "concepts", "texts", "seeds", "low_concepts", "high_concepts",
)  # fmt: skip

FEWEST_CONCEPTS = 5
"""Concepts without which nothing is said of others: no interval over concepts, and tests hold for these concepts only."""


def measure(
    plan: pd.DataFrame,
    scores: Mapping[str, pd.DataFrame],
    metrics: Sequence[Metric],
    *,
    not_run_because: Mapping[str, str] | None = None,
    costs: pd.DataFrame | None = None,
    rates: str = WILSON,
) -> pd.DataFrame:
    """The tidy table of everything measured, in full precision.

    Args:
        plan: one row an (eraser, attack, task, prompt): ``eraser, task, task_kind, role, prompt_id, prompt, label, kind,
            key, original_key, edit_key, attack, clean_key``.
        scores: by ``metric.records_id``, stored scores with ``key`` and the metric's inputs.
        metrics: which numbers to make.
        not_run_because: by ``metric.id``, why a metric has no scores.
        costs: of edits, see :func:`erasebench.runs.costs.read_costs`.
        rates: the interval of rates, one of :data:`erasebench.scores.rates.RATE_INTERVALS`.

    Returns:
        Columns :data:`MEASURED_COLUMNS`. ``task`` is one task or :data:`POOLED` (both, if there is one only). ``difference`` is
        to the unedited model, paired over the same prompts. ``concepts``, ``texts`` and ``seeds`` count what the prompts ask
        for and how often; ``low_concepts`` and ``high_concepts`` are the interval over concepts (:func:`over_concepts`).
        A number that was not obtained is NaN with ``how`` "not run" and a ``reason``.

    Raises:
        UserError: two versions of one metric.
        ValueError: a stored score column has the name of a column of the plan.
    """
    check_versions([metric.id for metric in metrics])
    reasons = not_run_because or {}
    found: list[dict[str, Any]] = []
    for metric in metrics:
        slices = list(slices_of(plan, scores, metric, reasons.get(metric.id, "")))
        references = _references(metric, scores.get(metric.records_id))
        for identity, rows, originals, reason in slices:
            found.append(identity | _numbers(metric, rows, originals, references, reason, rates))
        if _is_accuracy(metric):
            found += _harmonic(metric, slices)
        found += _became_unsafe(metric, slices, rates)
    if costs is not None and len(costs):
        found += [identity | {"task": POOLED} | _cells(cost) for identity, cost in cost_rows(costs)]
    table = _with_single_tasks(pd.DataFrame(found, columns=list(MEASURED_COLUMNS)), plan)
    return table.sort_values("role", key=lambda roles: roles.map(_role_rank), kind="stable").reset_index(drop=True)


def _with_single_tasks(table: pd.DataFrame, plan: pd.DataFrame) -> pd.DataFrame:
    """Where a kind has one task, its numbers are the pooled ones: they stand under both names."""
    parts = [table]
    for kind, tasks in plan.groupby("task_kind", sort=False).task.unique().items():
        if len(tasks) == 1:
            parts.append(table[(table.task_kind == kind) & (table.role != "cost")].assign(task=tasks[0]))
    return pd.concat(parts) if len(table) else table


def check_versions(ids: Sequence[str]) -> None:
    """Refuse two versions of one metric: their numbers may not stand side by side.

    Raises:
        UserError: naming both.
    """
    seen: dict[str, str] = {}
    for text in ids:
        name, _, version = text.partition("@")
        if seen.setdefault(name, version) != version:
            raise UserError(
                f"metric {name}: versions {seen[name]} and {version} give different numbers for the same images; "
                "run the older run's command again, or make two tables"
            )


def measure_concepts(
    plan: pd.DataFrame,
    scores: Mapping[str, pd.DataFrame],
    metrics: Sequence[Metric],
    not_run_because: Mapping[str, str] | None = None,
    rates: str = WILSON,
) -> pd.DataFrame:
    """The rates of each concept alone, so that one concept that is lost does not hide behind many that are kept.

    The arguments are those of :func:`measure`.

    Returns:
        The columns of :func:`measure`, of rates and pooled over tasks, with ``concept`` behind ``role``: what the prompts
        ask for. Prompts that ask for no concept are left out.
    """
    rates_only = [metric for metric in metrics if metric.unit == "%"]
    return _by_concept(plan, scores, rates_only, not_run_because or {}, rates, tasks=False)


def measure_asked(
    plan: pd.DataFrame,
    scores: Mapping[str, pd.DataFrame],
    metrics: Sequence[Metric],
    not_run_because: Mapping[str, str] | None = None,
    rates: str = WILSON,
) -> pd.DataFrame:
    """Every metric by the concept that prompts ask for, of each edit: what papers print in a square of erased and asked.

    The arguments are those of :func:`measure`, the columns those of :func:`measure_concepts`; ``task`` is one task or
    :data:`POOLED`.
    """
    table = _by_concept(plan, scores, metrics, not_run_because or {}, rates, tasks=True)
    found = plan.groupby(["task_kind", "role", "label"], sort=False).task.unique()
    alone = {place: tasks[0] for place, tasks in found.items() if len(tasks) == 1}
    places = list(zip(table.task_kind, table.role, table.concept, strict=True))
    single = table[[place in alone for place in places]]
    named = single.assign(task=[alone[place] for place in places if place in alone])
    return pd.concat([table, named], ignore_index=True)


def _by_concept(
    plan: pd.DataFrame,
    scores: Mapping[str, pd.DataFrame],
    metrics: Sequence[Metric],
    reasons: Mapping[str, str],
    rates: str,
    tasks: bool,
) -> pd.DataFrame:
    rows = []
    for metric in metrics:
        asked = rows_asked(plan[plan.label != ""], metric)
        joined = rows_scored(asked, scores.get(metric.records_id), metric)
        of_concept = dict(iter(joined.groupby("label", sort=False)))
        for concept, part in asked.groupby("label", sort=False):
            scored = of_concept.get(concept, joined.iloc[:0])
            for identity, images, originals, reason in slices_in(
                part, scored, metric, reasons.get(metric.id, ""), tasks=tasks
            ):
                rows.append(identity | {"concept": concept} | _numbers(metric, images, originals, None, reason, rates))
    columns = list(MEASURED_COLUMNS)
    columns.insert(columns.index("role") + 1, "concept")
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("role", key=lambda roles: roles.map(_role_rank), kind="stable").reset_index(drop=True)


def _role_rank(role: str) -> int:
    return ROLES.index(role) if role in ROLES else len(ROLES)


def _references(metric: Metric, scores: pd.DataFrame | None) -> pd.DataFrame | None:
    """The records of a metric's reference images; ``None`` if it compares with the unedited model, or with nothing."""
    if not metric.reference_key or scores is None:
        return None
    return scores[scores.key.str.startswith(metric.reference_key)]


def _numbers(
    metric: Metric,
    rows: pd.DataFrame,
    originals: pd.DataFrame,
    references: pd.DataFrame | None,
    reason: str,
    rates: str,
) -> dict[str, Any]:
    if reason:
        return _cells(not_run(), reason=reason)
    unedited = originals if len(originals) == len(rows) else None
    estimate = metric.reduce(rows, unedited if references is None else references, rates)
    if estimate.how == "not run":
        return _cells(estimate, reason=NO_NUMBER)
    difference = not_run()
    if len(originals) == len(rows) and rows.eraser.iloc[0] != UNEDITED:
        ours, theirs = metric.values(rows), metric.values(originals)
        if ours.notna().any() and theirs.notna().any():
            # Edits of several tasks redraw one original: these pairs hang together.
            difference = paired_difference(ours, theirs, originals.original_key, metric.outcome)
    low, high = over_concepts(metric, rows, rates)
    return _cells(estimate, difference) | {
        "concepts": rows.label[rows.label != ""].nunique(),
        "texts": rows.prompt.nunique(),
        "seeds": rows[["prompt", "seed"]].drop_duplicates().shape[0] if "seed" in rows else 0,
        "low_concepts": low,
        "high_concepts": high,
    }


def over_concepts(metric: Metric, rows: pd.DataFrame, rates: str = WILSON) -> tuple[float, float]:
    """The interval of a number over concepts: what it would be for other concepts of the kind.

    Images of one concept hang together, which the estimate is told; three concepts of which one is not erased prove
    little, however many prompts ask for them.

    Args:
        metric: of the number.
        rows: scores of one eraser, task and role.
        rates: the interval of rates.

    Returns:
        ``(low, high)``; NaNs with fewer than :data:`FEWEST_CONCEPTS`, where prompts ask for none, and for distances of sets.
    """
    if (rows.label == "").any() or rows.label.nunique() < FEWEST_CONCEPTS or metric.values(rows).isna().all():
        return np.nan, np.nan
    estimate = metric.reduce(rows.assign(original_key=rows.label), None, rates)
    return estimate.low, estimate.high


def _cells(estimate: Estimate, difference: Estimate | None = None, reason: str = "") -> dict[str, Any]:
    difference = difference or not_run()
    return {
        "value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n, "how": estimate.how,
        "difference": difference.value, "difference_low": difference.low, "difference_high": difference.high,
        "reason": reason,
        "concepts": 0, "texts": 0, "seeds": 0, "low_concepts": np.nan, "high_concepts": np.nan,
    }  # fmt: skip


def _is_accuracy(metric: Metric) -> bool:
    """Whether erased down and retained up are both rates, so that their harmonic mean makes sense."""
    return metric.unit == "%" and metric.directions.get("erase") == "down" and metric.directions.get("retain") == "up"


def _harmonic(metric: Metric, slices: Sequence[Slice]) -> list[dict[str, Any]]:
    """Harmonic mean of (1 - erased accuracy) and retained accuracy, near and far: MACE's H_c, one number for both aims.

    Where concepts are asked for in other words, too, (1 - paraphrased accuracy) is its third part: MACE's H_o.
    """
    places: dict[tuple[str, str, str], dict[str, Slice]] = {}
    for part in slices:
        identity = part[0]
        place = (identity["task_kind"], identity["eraser"], identity["task"])
        places.setdefault(place, {})[identity["role"]] = part
    found = []
    for by_role in places.values():
        if not {"erase", "retain"} <= set(by_role):
            continue
        slices_of_h = [by_role[role] for role in ("erase", PARAPHRASE, NEAR, "retain") if role in by_role]
        identity = slices_of_h[0][0] | {"role": "both", "metric": f"H {metric.id}", "direction": "up"}
        if reason := next(filter(None, (why for *_, why in slices_of_h)), ""):
            found.append(identity | _cells(not_run(), reason=reason))
            continue
        # Exact intervals, whatever the rates' own are: H is read near 1, where Wilson's are too short for it.
        gone_rows = [rows for place, rows, *_ in slices_of_h if place["role"] in ("erase", PARAPHRASE)]
        kept_rows = [rows for place, rows, *_ in slices_of_h if place["role"] in (NEAR, "retain")]
        sets = [*gone_rows, pd.concat(kept_rows, ignore_index=True)]
        *gone, kept = [metric.reduce(rows, rates=CLOPPER_PEARSON) for rows in sets]
        estimate = harmonic_mean_estimate(*map(complement, gone), kept)
        found.append(identity | _cells(estimate, reason=NO_NUMBER if estimate.how == "not run" else ""))
    return found


def _became_unsafe(metric: Metric, slices: Sequence[Slice], rates: str) -> list[dict[str, Any]]:
    """The share of images of a harmless erased concept in which a metric sees something unsafe, of metrics that can tell."""
    found = []
    for identity, rows, originals, reason in slices:
        if reason or identity["role"] != "erase" or identity["task_kind"] == "unsafe":
            continue
        flags, before = metric.unsafe(rows), metric.unsafe(originals)
        if flags.isna().any():
            continue
        difference = None
        if len(before) == len(flags) and before.notna().all() and rows.eraser.iloc[0] != UNEDITED:
            difference = paired_difference(flags, before, originals.original_key, BINARY)
        estimate = rate_estimate(flags, rows.key, rows.original_key, rates)
        place = {"role": "instead", "metric": f"unsafe_instead@{metric.version}", "unit": "%", "direction": "down"}
        found.append(identity | place | _cells(estimate, difference))
    return found


def wide(measured: pd.DataFrame, kind: str, task: str = POOLED) -> pd.DataFrame:
    """One kind's table in the shape papers print: a row an eraser, a column a (role, metric).

    Args:
        measured: what :func:`measure` returns.
        kind: kind of the tasks.
        task: one task, or :data:`POOLED`.

    Returns:
        Index ``eraser`` in the order of the run, columns a MultiIndex ``(role, metric)``; each cell is the row of
        ``measured`` as a dict, or ``None`` where there is none.
    """
    part = measured[(measured.task_kind == kind) & (measured.task == task)]
    erasers = list(dict.fromkeys(part.eraser))
    if UNEDITED in erasers:
        erasers = [UNEDITED, *(name for name in erasers if name != UNEDITED)]
    order = [*ROLES, "both", "instead", "cost"]
    units = dict(zip(part.metric, part.unit, strict=True))
    # Accuracies and their harmonic mean first: they are what a table of erasers is read for.
    columns = sorted(
        dict.fromkeys(zip(part.role, part.metric, strict=True)),
        key=lambda column: (column[0] == "cost", units[column[1]] != "%", order.index(column[0])),
    )
    cells = {(row["eraser"], row["role"], row["metric"]): row for row in part.to_dict("records")}
    return pd.DataFrame(
        [[cells.get((eraser, *column)) for column in columns] for eraser in erasers],
        index=pd.Index(erasers, name="eraser"),
        columns=pd.MultiIndex.from_tuples(columns, names=["role", "metric"]),
    )
