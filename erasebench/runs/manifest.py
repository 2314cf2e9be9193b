"""What a run wrote down of itself when it began: reading it, and the command that it gives."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TypedDict

from erasebench.errors import UserError
from erasebench.runs.names import MANIFEST_FILE
from erasebench.typed_files import read_json


class _ModelUsed(TypedDict, total=False):
    name: str
    source: str
    revision: str
    family: str
    weights: str | None


class _Counts(TypedDict, total=False):
    rows: int
    distinct: int


class PromptsUsed(TypedDict, total=False):
    """One prompt set of a run."""

    version: str | int
    hash: str
    counts: _Counts
    notes: list[str]


class _MetricUsed(TypedDict, total=False):
    needs: list[str]
    not_run: str | None


class _Said(TypedDict, total=False):
    run: str
    config_hash: str
    started: str
    model: _ModelUsed
    prompt_sets: dict[str, PromptsUsed]
    protocol: str
    protocol_hash: str
    truncated_prompts: int
    device: str
    dtype: str
    platform: str
    python: str
    packages: dict[str, str]
    commit: str | None


class Manifest(_Said):
    """What :func:`erasebench.runs.environment.manifest` makes; earlier versions said less.

    Attributes:
        command: the program and its arguments, as they were given.
        metrics: by id, what each needs and why it was not run.
    """

    command: list[str]
    metrics: dict[str, _MetricUsed]


def read_manifest(folder: Path) -> Manifest:
    """What the folder of a run says of it.

    Raises:
        UserError: it cannot be read, or does not hold what it must.
    """
    manifest = read_json(folder / MANIFEST_FILE, Manifest, f"give the command of run {folder.name} again")
    if not manifest["command"]:
        raise UserError(
            f"{folder / MANIFEST_FILE}: cannot be read (command is empty); give the command of run {folder.name} again"
        )
    return manifest


def command_line(manifest: Manifest) -> str:
    """The command that made a run, to be pasted into a shell."""
    program, *arguments = manifest["command"]
    return " ".join([program, shlex.join(arguments)]).strip()
