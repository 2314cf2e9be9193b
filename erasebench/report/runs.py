"""What a report is made of: the runs it is about, and what an unfinished one lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from erasebench.errors import UserError
from erasebench.runs import folder as stored_runs
from erasebench.runs.about import FILE, About, read_about
from erasebench.runs.folder import check_finished, command_line, metrics_of, read_config, read_manifest, read_plan
from erasebench.store import Store


@dataclass(frozen=True)
class Run:
    """One run's folder, read.

    Attributes:
        folder: where it is.
        manifest: what it says about itself.
        config: its config, as plain values.
        about: what its captions say; ``None`` if it was stopped before that was written.
    """

    folder: Path
    manifest: dict[str, Any]
    config: dict[str, Any]
    about: About | None

    @property
    def name(self) -> str:
        """The folder's name, by which every command knows the run."""
        return self.folder.name

    @property
    def finished(self) -> bool:
        """Whether its numbers are final."""
        return self.manifest["status"] == "ok"

    @property
    def embedded(self) -> bool:
        """Whether its images are drawings of the embedded model."""
        return self.about is not None and self.about.embedded

    @property
    def command(self) -> str:
        """The command that makes it again."""
        return command_line(self.manifest)


@dataclass(frozen=True)
class Part:
    """How much of something an unfinished run has."""

    what: str
    have: int
    want: int


def find_runs(store: Store, names: Sequence[str]) -> list[Run]:
    """The runs of some names (see :func:`erasebench.runs.folder.find_runs`), in order.

    Raises:
        UserError: no such run, no run at all, or one of several that is not finished.
    """
    folders = stored_runs.find_runs(store, names)
    if len(folders) > 1:
        for folder in folders:
            check_finished(folder)
    return [_read(folder) for folder in folders]


def _read(folder: Path) -> Run:
    about = read_about(folder) if (folder / FILE).exists() else None
    return Run(folder, read_manifest(folder), read_config(folder), about)


def parts(run: Run, store: Store, plugins: Sequence[str] = ()) -> list[Part]:
    """What an unfinished run has and lacks: images, and the scores of each metric that it can run.

    Empty if it was stopped before its plan was written.
    """
    if not (run.folder / "plan.parquet").exists():
        return []
    plan = read_plan(run.folder)
    keys = plan.key.nunique()
    found = [Part("images", keys - len(store.missing(plan.key)), keys)]
    metrics, not_run = metrics_of(run.folder, plugins)
    for metric in metrics:
        if metric.id in not_run:
            continue
        wanted = metric.applies_to(plan)
        distinct = len(wanted.drop_duplicates(["key", *metric.inputs]))
        lacking = len(store.missing_scores(metric.records_id, metric.inputs, wanted))
        found.append(Part(f"scores of {metric.id}", distinct - lacking, distinct))
    return found


def check_scored(measured: pd.DataFrame, runs: Sequence[Run], store: Store) -> None:
    """Refuse runs of which no number is left: a report of nothing but "not run" is no report.

    Raises:
        UserError: with the command that makes the records again.
    """
    if not measured.value[measured.role != "cost"].notna().any():
        raise UserError(
            f"{store.root}: no records of {', '.join(run.name for run in runs)} are here, so there is no number to "
            f"report; give the command again, finished work is kept: {runs[0].command}"
        )
