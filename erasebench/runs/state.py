"""How far a run is: what it has and what it lacks, told from what is in the store, not from who ended last."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

import pandas as pd

from erasebench.errors import UserError
from erasebench.files import write_json
from erasebench.runs.folder import metrics_of, read_plan
from erasebench.runs.manifest import command_line, read_manifest
from erasebench.runs.names import ERROR_FILE, PLAN_FILE
from erasebench.scores.metric import Metric, rows_to_score
from erasebench.store import Store
from erasebench.typed_files import read_json


class _Noted(TypedDict):
    error: str
    when: str
    process: str


@dataclass(frozen=True)
class Part:
    """How much of something a run has."""

    what: str
    have: int
    want: int

    @property
    def lacks(self) -> int:
        """How much is missing."""
        return self.want - self.have

    def __str__(self) -> str:
        return f"{self.lacks:,} of {self.want:,} {self.what}"


def parts_of(rows: pd.DataFrame, metrics: Sequence[Metric], store: Store) -> list[Part]:
    """What there is of a plan: images, and the scores of each metric. An image that was scored may be gone since.

    Args:
        rows: of the plan.
        metrics: those whose scores are asked for.
        store: where they are.

    Raises:
        UserError: the store cannot be read now.
    """
    scores, scored = [], set()
    for metric in metrics:
        wanted = rows_to_score(rows, metric)
        lacks = store.scored(metric.records_id, metric.inputs).lacks(wanted)
        scored.update(wanted.key[~lacks])
        scores.append(Part(f"scores of {metric.id}", int((~lacks).sum()), len(wanted)))
    keys = rows.key.unique()
    missing = store.missing(key for key in keys if key not in scored)
    return [Part("images", len(keys) - len(missing), len(keys)), *scores]


def parts(folder: Path, store: Store, plugins: Sequence[str] = ()) -> list[Part]:
    """What a stored run has and lacks; empty if it was stopped before its plan was written.

    Args:
        folder: of the run.
        store: where its records are.
        plugins: modules of the user's own that its metrics may come from.
    """
    if not (folder / PLAN_FILE).exists():
        return []
    metrics, not_run = metrics_of(folder, plugins)
    return parts_of(read_plan(folder), [metric for metric in metrics if metric.id not in not_run], store)


def check_finished(folder: Path, store: Store, plugins: Sequence[str] = ()) -> None:
    """Refuse a run that lacks something; what it lacks, and the command that finishes it, are named.

    The arguments are those of :func:`parts`.

    Raises:
        UserError: the run is not finished.
    """
    there = parts(folder, store, plugins)
    lacking = [str(part) for part in there if part.lacks]
    if there and not lacking:
        return
    said = last_error(folder)
    raise UserError(
        f"run {folder.name} is not finished: "
        + (f"missing are {', '.join(lacking)}" if there else "it was stopped before its plan was written")
        + (f" (last error: {said})" if said else "")
        + f"; give its command again: {command_line(read_manifest(folder))}"
    )


def note_error(folder: Path, error: BaseException | str) -> None:
    """Write down what stopped a process that was at work on a run. It decides nothing: it is there to be read."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}".removesuffix(": ")
    write_json(
        folder / ERROR_FILE,
        {
            "error": text,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "process": f"{os.getpid()} on {platform.node()}",
            "command": shlex.join(sys.argv),
        },
    )


def last_error(folder: Path) -> str:
    """What stopped a process of a run last, when, and which; empty if nothing is noted."""
    try:
        noted = read_json(folder / ERROR_FILE, _Noted, "")
        return f"{noted['error']}, {noted['when']}, process {noted['process']}"
    except UserError:
        return ""


def still_lacking(there: Sequence[Part], failed: Mapping[str, str]) -> list[str]:
    """A sentence for each part that a run lacks at its end, unless a metric that failed explains it."""
    explained = {f"scores of {name}" for name in failed}
    return [
        f"{part} are missing: they were deleted or damaged while the run went on; give its command again"
        for part in there
        if part.lacks and part.what not in explained
    ]
