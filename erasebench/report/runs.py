"""What a report is made of: the runs it is about, and what an unfinished one lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from erasebench.errors import UserError
from erasebench.runs import folder as stored_runs
from erasebench.runs.about import About, read_about
from erasebench.runs.folder import read_config
from erasebench.runs.manifest import Manifest, command_line, read_manifest
from erasebench.runs.names import ABOUT_FILE
from erasebench.runs.state import Part, check_finished, last_error, parts
from erasebench.store import Store


@dataclass(frozen=True)
class Run:
    """One run's folder, read.

    Attributes:
        folder: where it is.
        manifest: what it says about itself.
        config: its config, as plain values.
        about: what its captions say; ``None`` if it was stopped before that was written.
        parts: what it has and lacks; empty if it was stopped before its plan was written.
    """

    folder: Path
    manifest: Manifest
    config: dict[str, Any]
    about: About | None
    parts: list[Part]

    @property
    def name(self) -> str:
        """The folder's name, by which every command knows the run."""
        return self.folder.name

    @property
    def finished(self) -> bool:
        """Whether its numbers are final."""
        return bool(self.parts) and not any(part.lacks for part in self.parts)

    @property
    def error(self) -> str:
        """What stopped one of its processes last, if it is not finished."""
        return "" if self.finished else last_error(self.folder)

    @property
    def embedded(self) -> bool:
        """Whether its images are drawings of the embedded model."""
        return self.about is not None and self.about.embedded

    @property
    def command(self) -> str:
        """The command that makes it again."""
        return command_line(self.manifest)


def find_runs(store: Store, names: Sequence[str], plugins: Sequence[str] = ()) -> list[Run]:
    """The runs of some names (see :func:`erasebench.runs.folder.find_runs`), in order.

    Args:
        store: where they are.
        names: of runs or of a sweep; none is the latest run.
        plugins: modules of the user's own that their metrics may come from.

    Raises:
        UserError: no such run, no run at all, or one of several that is not finished.
    """
    folders = stored_runs.find_runs(store, names)
    if len(folders) > 1:
        for folder in folders:
            check_finished(folder, store, plugins)
    return [_read(folder, store, plugins) for folder in folders]


def _read(folder: Path, store: Store, plugins: Sequence[str]) -> Run:
    about = read_about(folder) if (folder / ABOUT_FILE).exists() else None
    return Run(folder, read_manifest(folder), read_config(folder), about, parts(folder, store, plugins))


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
