"""Which metrics have nothing to measure in a run, found before any work is done for the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from erasebench.concepts import ROLES
from erasebench.prompts.prompt_set import PromptSet
from erasebench.runs.tasks import TaskGroup
from erasebench.scores.metric import Metric


def nothing_to_measure(
    metrics: Sequence[Metric],
    groups: Mapping[str, tuple[TaskGroup, PromptSet]],
    edited: bool,
    attacked: bool = False,
) -> dict[str, str]:
    """Why metrics apply to no row of a run, by their ids.

    Args:
        metrics: all that are asked for.
        groups: the tasks and prompts of a run, by kind.
        edited: whether there is an eraser beside the unedited model.
        attacked: whether there are attacks, the images of which are none of the unedited model's either.

    Raises:
        UserError: prompts that do not fit their tasks.
    """
    parts = [prompts.for_task(task) for group, prompts in groups.values() for task in group.tasks]
    rows = pd.concat([part.drop_duplicates(["role", "kind", "label"]) for part in parts], ignore_index=True)
    clean = "edited" if edited else "original"
    rows = rows.assign(key="attacked" if attacked else clean, original_key="original", clean_key=clean)
    return {
        metric.id: _why(metric, rows, edited or attacked, attacked)
        for metric in metrics
        if not len(metric.applies_to(rows))
    }


def _why(metric: Metric, rows: pd.DataFrame, edited: bool, attacked: bool) -> str:
    if metric.paired_with == "clean_key" and not attacked:
        return "it compares attacked images with those that were not, and nothing is attacked"
    if metric.paired_with == "original_key" and not edited:
        return "it compares edited images with the unedited model's, and nothing is edited"
    kinds, roles = set(rows.kind), set(rows.role)
    if metric.kinds and not kinds & set(metric.kinds):
        return f"it is for {' and '.join(metric.kinds)} prompts, and these are {' and '.join(sorted(kinds))}"
    lacking = [role for role in ROLES if role in metric.directions and role not in roles]
    return f"it is for prompts of role {' or '.join(lacking) or ' or '.join(metric.directions)}, and there are none"
