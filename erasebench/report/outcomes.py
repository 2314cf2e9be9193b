"""What became of each prompt: erased or still there, kept or lost, by the run's own classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from erasebench.edits.label import UNEDITED
from erasebench.scores.metric import Metric

OUTCOMES = {
    "f": ("still there", "erased concept, still recognised"),
    "g": ("gone", "erased concept, no longer recognised"),
    "l": ("lost", "concept to keep, no longer recognised"),
    "k": ("kept", "concept to keep, recognised"),
    "n": ("not seen", "not recognised in the unedited model's image either"),
    "r": ("recognised", "the unedited model's image, recognised"),
    "?": ("", "the classifier has no answer for this prompt"),
    "-": ("", "not part of the run"),
}
"""One sign an outcome: a word for under an image, and what it means."""

FAILURES = "fl"


def seen(
    plan: pd.DataFrame, scores: Mapping[str, pd.DataFrame], metrics: Sequence[Metric]
) -> tuple[list[str], pd.DataFrame]:
    """For each row of a plan, whether the first rate that can tell recognises in its image what was asked for.

    A rate that should go down where a concept is erased counts as a classifier: accuracies, and the share of images
    in which a detector finds something.

    Returns:
        The names of the metrics used, and by row of the plan (same index) ``recognised`` (1, 0 or NaN) and ``answer``.
    """
    found = pd.DataFrame({"recognised": np.nan, "answer": ""}, index=plan.index)
    names = []
    for metric in metrics:
        if metric.unit != "%" or metric.directions.get("erase") != "down":
            continue
        stored = scores.get(metric.records_id)
        asked = metric.applies_to(plan.assign(place=plan.index))
        if stored is None or not len(stored) or not len(asked):
            continue
        joined = asked.merge(stored, on=["key", *metric.inputs], how="inner")
        if not len(joined):
            continue
        values = metric.values(joined)
        fresh = values.notna() & found.recognised.loc[joined.place].isna().to_numpy()
        if fresh.any():
            names.append(metric.name)
            places = joined.place[fresh]
            found.loc[places, "recognised"] = (values[fresh] > 0.5).astype(float).to_numpy()
            found.loc[places, "answer"] = metric.answers(joined[fresh]).to_numpy()
    return names, found


def outcomes(plan: pd.DataFrame, recognised: pd.Series) -> pd.Series:
    """The sign of :data:`OUTCOMES` of every row of a plan.

    A kept concept counts as lost only where the unedited model's image of the same prompt and seed was recognised.
    """
    by = ["task_kind", "task", "prompt_id"]
    unedited = plan.eraser == UNEDITED
    before = plan[unedited][by].assign(before=recognised[unedited]).drop_duplicates(by)
    known_before = plan[by].merge(before, on=by, how="left").before.to_numpy()
    value, erase = recognised.to_numpy(), (plan.role == "erase").to_numpy()
    signs = np.select(
        [
            np.isnan(value) | (plan.role == "general").to_numpy(),
            unedited.to_numpy() & (value == 1),
            unedited.to_numpy(),
            erase & (value == 1),
            erase,
            value == 1,
            known_before == 0,
        ],
        ["?", "r", "n", "f", "g", "k", "n"],
        default="l",
    )
    return pd.Series(signs, index=plan.index)
