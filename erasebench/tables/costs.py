"""What edits cost, as rows of a table: a column each, but seconds alone where no eraser trains or acts on sampling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from erasebench.scores.estimate import Estimate
from erasebench.scores.means import mean_estimate


@dataclass(frozen=True)
class Cost:
    """A column of :func:`erasebench.runs.costs.read_costs`; less is better in each.

    Attributes:
        of_machine: whether it is another one on another machine: then each machine has a column of its own.
        always: it is shown even if it is the same for all erasers.
    """

    of_machine: bool = False
    always: bool = False


COSTS = {
    "edit_seconds": Cost(of_machine=True, always=True),
    "peak_memory_mb": Cost(of_machine=True, always=True),
    "gradient_steps": Cost(),
    "images": Cost(),
    "parameters": Cost(),
    "image_time": Cost(of_machine=True),
}


def cost_rows(costs: pd.DataFrame) -> Iterator[tuple[dict[str, Any], Estimate]]:
    """A row a kind, eraser and cost, with the mean over its edits.

    Args:
        costs: see :func:`erasebench.runs.costs.read_costs`.
    """
    apart = costs.machine.nunique() > 1
    for name, cost in COSTS.items():
        known = costs.assign(value=costs[name].astype(float))[costs[name].notna()]
        if not cost.always and not _trained_or_acting(costs):
            continue
        by = ["task_kind", "eraser", *(["machine"] if cost.of_machine else [])]
        for (kind, eraser, *machine), part in known.groupby(by, sort=False):
            # An @ would begin a version: "Xeon CPU @ 2.20GHz".
            where = f" [{machine[0].replace('@', 'at') or 'machine unknown'}]" if machine and apart else ""
            identity = {
                "task_kind": kind, "eraser": eraser, "role": "cost", "metric": f"{name}{where}", "unit": "",
                "direction": "down", "attack": "",
            }  # fmt: skip
            mean = mean_estimate(part.value)
            yield identity, replace(mean, low=0.0) if mean.low < 0 else mean  # no cost is below 0


def _trained_or_acting(costs: pd.DataFrame) -> bool:
    """Closed forms alone differ in their seconds; how many parameters each touches is in its notes."""
    return bool((costs.gradient_steps > 0).any() or costs.image_time.notna().any())
