"""What the edits of a run cost, from the notes of the edits themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from erasebench.errors import UserError
from erasebench.runs.names import COSTS_FILE
from erasebench.store import Store
from erasebench.typed_files import read_parquet

COST_COLUMNS = ("eraser", "task_kind", "task", "edit_seconds", "peak_memory_mb", "machine")


def read_costs(folder: Path, plan: pd.DataFrame, store: Store) -> pd.DataFrame:
    """The cost of each edit of a run's plan.

    Args:
        folder: of the run. Runs of earlier versions have a table of costs there; it counts where an edit has no notes.
        plan: of the run.
        store: where the edits are; their weights need not be.

    Returns:
        Columns :data:`COST_COLUMNS`, one row an edit. ``machine`` says what the edit was made on: seconds of two
        machines are not to be compared.
    """
    edits = plan[(plan.edit_key != "") & (plan.attack == "")].drop_duplicates(["eraser", "task_kind", "task"])
    before = _written(folder)
    rows = []
    for edit in edits.itertuples():
        notes = store.edit_notes(edit.edit_key)
        cost = _of_notes(notes) if notes else before.get((edit.eraser, edit.task_kind, edit.task))
        if cost:
            rows.append({"eraser": edit.eraser, "task_kind": edit.task_kind, "task": edit.task, **cost})
    return pd.DataFrame(rows, columns=list(COST_COLUMNS))


def _of_notes(notes: dict[str, Any]) -> dict[str, Any]:
    device = str(notes.get("device", ""))
    return {
        "edit_seconds": notes.get("seconds"),
        # On a CPU earlier versions noted the peak of the whole process, which is not the edit's.
        "peak_memory_mb": notes.get("peak_memory_mb") if device.startswith("cuda") else None,
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
            "peak_memory_mb": None,
            "machine": "",
        }
        for row in rows.to_dict("records")
    }
