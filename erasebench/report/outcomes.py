"""What became of each prompt: erased or still there, kept or lost, by the run's own classifier."""

from __future__ import annotations

import numpy as np
import pandas as pd

from erasebench.concepts import PARAPHRASE
from erasebench.edits.label import UNEDITED

OUTCOMES = {
    "f": ("still there", "erased concept, or another that the same edit erased, still recognised"),
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


def outcomes(plan: pd.DataFrame, recognised: pd.Series) -> pd.Series:
    """The sign of :data:`OUTCOMES` of every row of a plan.

    A kept concept counts as lost only where the unedited model's image of the same prompt and seed was recognised.
    """
    by = ["task_kind", "task", "prompt_id"]
    clean = plan.eraser == UNEDITED
    before = plan[clean][by].assign(before=recognised[clean]).drop_duplicates(by)
    unedited = plan.edit_key == ""  # under attack, too: an attack on the unedited model is no eraser's failure
    known_before = plan[by].merge(before, on=by, how="left").before.to_numpy()
    value, erase = recognised.to_numpy(), plan.role.isin(["erase", PARAPHRASE]).to_numpy()
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
