"""What a run wrote down of itself when it began: reading it, and the command that it gives."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from erasebench.errors import UserError
from erasebench.files import disk_errors
from erasebench.runs.names import MANIFEST_FILE, STARTS_FILE
from erasebench.typed_files import check_type, read_json


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
    erasers_left_out: dict[str, str]
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


STARTED_WITH = ("started", "command", "device", "platform", "python", "packages", "commit")
"""What is written down of every start."""


class Start(TypedDict, total=False):
    """One process that began to work on a run."""

    started: str
    command: list[str]
    device: str
    platform: str
    python: str
    packages: dict[str, str]
    commit: str | None


def note_start(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Add a start to those of a run. A line is added and nothing is read, so that processes may do it at the same time."""
    line = json.dumps({name: manifest[name] for name in STARTED_WITH if name in manifest}, ensure_ascii=False)
    with disk_errors(folder), (folder / STARTS_FILE).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def read_starts(folder: Path) -> list[Start]:
    """Every start of a run, in order; none of a run of an earlier version. Lines that a full disk cut off are left out."""
    try:
        lines = (folder / STARTS_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    starts: list[Start] = []
    for line in lines:
        try:
            start = json.loads(line)
            check_type(start, Start)
        except (ValueError, TypeError):
            continue
        starts.append(start)
    return starts


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


def command_line(manifest: Manifest | Start) -> str:
    """The command that made a run, to be pasted into a shell."""
    program, *arguments = manifest["command"]
    return " ".join([program, shlex.join(arguments)]).strip()
