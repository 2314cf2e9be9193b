"""The folder of a report: what may be replaced, and how it comes into being whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from erasebench import __version__
from erasebench.errors import UserError
from erasebench.files import disk_errors, temporary_beside, write_json

MARKER = "report.json"
"""The file that says that a folder is a report of ours, and of which runs."""

FORMAT = "erasebench report 1"


def check_target(out: Path, runs: Sequence[str], force: bool = False) -> None:
    """Refuse to write over anything but a report of the same runs; with ``force``, over any report of ours.

    Raises:
        UserError: naming what is there and the cure.
    """
    if not out.exists() and not out.is_symlink():
        return
    if out.is_symlink() or not out.is_dir():
        raise UserError(f"{out}: not a folder; choose another one with --out")
    if not any(out.iterdir()):
        return
    theirs = runs_of(out)
    if theirs is None:
        raise UserError(
            f"{out} exists, is not empty and is not a report of erasebench; choose another folder with --out"
        )
    if sorted(theirs) != sorted(runs) and not force:
        raise UserError(
            f"{out} is the report of {', '.join(theirs) or 'other runs'}; choose another folder with --out, or replace "
            "it with --force"
        )


def runs_of(folder: Path) -> list[str] | None:
    """The runs that a report folder is about; ``None`` if it is not a report of ours."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return [str(name) for name in marker["runs"]] if marker["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def replacing(out: Path, runs: Sequence[str]) -> Iterator[Path]:
    """A new folder to write into, which takes the place of ``out`` when the block ends well.

    If the block fails or is stopped, ``out`` is as it was.

    Raises:
        UserError: the disk is full or not writable.
    """
    out = out.absolute()
    new, old = temporary_beside(out), temporary_beside(out)
    with disk_errors(out.parent):
        new.mkdir(parents=True)
        try:
            yield new
            write_json(new / MARKER, {"format": FORMAT, "runs": list(runs), "erasebench": __version__})
            if out.exists():
                os.replace(out, old)
            os.replace(new, out)
        finally:
            shutil.rmtree(new, ignore_errors=True)
            if old.exists() and not out.exists():  # stopped between the two renames
                os.replace(old, out)
            shutil.rmtree(old, ignore_errors=True)
