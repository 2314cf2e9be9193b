"""Files that are whole or absent: atomic writes, and setting aside what a crash left broken."""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from erasebench.errors import UserError

log = logging.getLogger(__name__)

LEAST_FREE_BYTES = 16 * 2**20
"""A folder with less room than this counts as full before work starts."""

STALE_SECONDS = 3600
"""A temporary file older than this was left by a killed process; no write takes so long."""


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the file system inside the block into a message that names the folder and the cure.

    Raises:
        UserError: in place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            cure = "no space is left; free some and run the same command again, finished work is kept"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            cure = "it is not writable; change its permissions or choose another results folder"
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            cure = "a file is in the way of a folder; choose another results folder"
        else:
            cure = f"{error.strerror or error}; check the disk or choose another results folder"
        raise UserError(f"cannot write to {folder}: {cure}") from error


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that its name only ever shows whole content, whatever is killed and when.

    A temporary file in the same folder is written, flushed to the disk and renamed. Folders are made.

    Raises:
        UserError: the folder is full or not writable; no partial file is left.
    """
    # A short name of its own: the target's name may be as long as names can be.
    temporary = path.parent / f".{os.getpid()}-{secrets.token_hex(6)}.tmp"
    with disk_errors(path.parent):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """:func:`write_atomic` of a text as UTF-8."""
    write_atomic(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """:func:`write_atomic` of a value as JSON for people: indented, in the order given, UTF-8."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def check_writable(folder: Path, need_bytes: int = 0) -> None:
    """Refuse a folder that work would only later fail to write to.

    Raises:
        UserError: it cannot be made or written, or has less free room than ``need_bytes`` (and some).
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    write_atomic(folder / ".probe", b"erasebench")
    with disk_errors(folder):
        (folder / ".probe").unlink(missing_ok=True)
    need = max(need_bytes, LEAST_FREE_BYTES)
    if free < need:
        raise UserError(
            f"{folder} has {free / 2**20:,.0f} MiB free and this needs about {need / 2**20:,.0f} MiB; "
            "free some space or choose another results folder"
        )


def set_aside(path: Path, why: str) -> Path:
    """Rename a broken file to ``<name>.broken`` with a warning, so that it is made again and can be looked at."""
    aside = path.with_name(path.name + ".broken")
    with disk_errors(path.parent):
        try:
            os.replace(path, aside)
        except FileNotFoundError:
            return aside  # another process has set it aside
    log.warning("%s is broken (%s); set aside as %s, it will be made again", path, why, aside.name)
    return aside


def sweep_temporary(folder: Path, now: float | None = None) -> int:
    """Delete temporary files that killed processes left in a folder and below; returns how many."""
    limit = (time.time() if now is None else now) - STALE_SECONDS
    swept = 0
    for path in folder.rglob(".*"):
        try:
            if path.suffix in (".tmp", ".part") and path.stat().st_mtime < limit:
                path.unlink()
                swept += 1
        except FileNotFoundError:
            continue  # its writer has just renamed it
    return swept
