"""What the edits of a run cost, from the notes of the edits themselves and the seconds of their images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from erasebench.errors import UserError
from erasebench.runs.names import COSTS_FILE
from erasebench.store import Store
from erasebench.typed_files import read_parquet

COST_COLUMNS = (
    "eraser", "task_kind", "task", "edit_seconds", "peak_memory_mb", "gradient_steps", "images", "parameters",
    "image_time", "machine",
)  # fmt: skip


def read_costs(folder: Path, plan: pd.DataFrame, store: Store) -> pd.DataFrame:
    """The cost of each edit of a run's plan.

    Args:
        folder: of the run. Runs of earlier versions have a table of costs there; it counts where an edit has no notes.
        plan: of the run.
        store: where the edits are; their weights need not be.

    Returns:
        Columns :data:`COST_COLUMNS`, one row an edit. ``machine`` says what the edit was made on: seconds of two
        machines are not to be compared. ``gradient_steps`` and ``images`` (of the unedited model, as examples) are what
        a training took, ``parameters`` those of the weights that are changed, or that are added where none is.
        ``image_time`` is how many times as long an image takes as one of the unedited model, for edits that act while
        images are sampled; changed weights alone take no time. What is not known is missing.
    """
    edits = plan[(plan.edit_key != "") & (plan.attack == "")].drop_duplicates(["eraser", "task_kind", "task"])
    before = _written(folder)
    rows, acting = [], set()
    for edit in edits.itertuples():
        notes = store.edit_notes(edit.edit_key)
        if notes.get("hooks"):
            acting.add(edit.edit_key)
        cost = _of_notes(notes) if notes else before.get((edit.eraser, edit.task_kind, edit.task))
        if cost:
            rows.append({"eraser": edit.eraser, "task_kind": edit.task_kind, "task": edit.task, **cost})
    costs = pd.DataFrame(rows, columns=list(COST_COLUMNS))
    if acting:
        costs["image_time"] = _image_times(costs, plan[plan.edit_key.isin({"", *acting})], store)
    return costs


def _image_times(costs: pd.DataFrame, plan: pd.DataFrame, store: Store) -> list[float]:
    """Median seconds of each edit's images, in those of the unedited model for the same prompts on the same device."""
    images = store.image_records().reindex(columns=["key", "seconds", "device"])
    timed = plan[plan.attack == ""].merge(images, on="key")
    unedited = timed[timed.edit_key == ""].drop_duplicates(["task_kind", "task", "prompt_id", "device"])
    beside = timed[timed.edit_key != ""].merge(
        unedited[["task_kind", "task", "prompt_id", "device", "seconds"]],
        on=["task_kind", "task", "prompt_id", "device"],
        suffixes=("", "_unedited"),
    )
    medians = beside.groupby(["eraser", "task_kind", "task"])[["seconds", "seconds_unedited"]].median()
    times = (medians.seconds / medians.seconds_unedited).to_dict()
    return [times.get(edit, math.nan) for edit in zip(costs.eraser, costs.task_kind, costs.task, strict=True)]


def _of_notes(notes: dict[str, Any]) -> dict[str, Any]:
    device = str(notes.get("device", ""))
    return {
        "edit_seconds": notes.get("seconds"),
        # On a CPU earlier versions noted the peak of the whole process, which is not the edit's.
        "peak_memory_mb": notes.get("peak_memory_mb") if device.startswith("cuda") else None,
        "gradient_steps": notes.get("gradient_steps", None if notes.get("trained", True) else 0),
        "images": notes.get("images"),
        "parameters": notes.get("parameters") or notes.get("trained_parameters", notes.get("parameters")),
        "machine": str(notes.get("machine") or device),
    }


def _written(folder: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The seconds in the table of a run of an earlier version, by eraser, kind and task."""
    path, cure = folder / COSTS_FILE, "delete it: what is known of edits stands in their notes"
    columns = dict.fromkeys(COST_COLUMNS[:3], str) | {"edit_seconds": float}
    try:
        rows = read_parquet(path, columns, cure)
    except FileNotFoundError:
        return {}
    if lacking := [name for name in columns if name not in rows]:
        raise UserError(f"{path}: cannot be read (no column {', '.join(lacking)}); {cure}")
    return {
        (row["eraser"], row["task_kind"], row["task"]): {
            "edit_seconds": row["edit_seconds"],
            "machine": "",
        }
        for row in rows.to_dict("records")
    }
