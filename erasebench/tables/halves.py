"""Two halves of the prompts: a setting is chosen on one and reported on the other.

The best of many settings on some prompts is partly the luckiest on them, so that its own numbers flatter it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from erasebench.scores.rates import WILSON
from erasebench.store import Store
from erasebench.tables.measure import measure
from erasebench.tables.tabulate import join_runs


def split_prompts(plan: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of a plan by every second prompt of each concept, with all erasers, tasks and seeds of a prompt together."""
    codes = pd.Series(0, index=plan.index)
    for _, rows in plan.groupby(["task_kind", "label"], sort=False):
        codes[rows.index] = pd.factorize(rows.prompt)[0]
    return plan[codes % 2 == 0], plan[codes % 2 == 1]


def measured_halves(
    folders: Sequence[Path], store: Store, rates: str = WILSON, plugins: Sequence[str] = ()
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """What finished runs measured on each half of their prompts.

    Args:
        folders: of the runs.
        store: of their records.
        rates: the interval of rates.
        plugins: modules of the user's own that metrics may come from.

    Returns:
        ``None`` where a half would lack prompts of a kind and role that the whole has.
    """
    joint = join_runs(folders, store, rates, plugins)
    parts = split_prompts(joint.plan)
    wanted = set(zip(joint.plan.task_kind, joint.plan.task, joint.plan.role, strict=True))
    if any(set(zip(part.task_kind, part.task, part.role, strict=True)) != wanted for part in parts):
        return None
    first, second = (
        measure(part, joint.scores, joint.metrics, not_run_because=joint.not_run, costs=joint.costs, rates=rates)
        for part in parts
    )
    return first, second
