"""Files that are whole or absent: atomic writes, careful reads, and what crashes left behind."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from erasebench.errors import Damaged, UserError

log = logging.getLogger(__name__)

LEAST_FREE_BYTES = 16 * 2**20
"""A folder with less room than this counts as full before work starts."""

STALE_SECONDS = 24 * 3600
"""What bears a temporary name and is older than this was left by a killed process. No write takes so long, and the
clock of a machine with a wrong time zone is not off by more."""

TEMPORARY = re.compile(r"\.erasebench-\d+-[0-9a-f]{12}\.tmp")
"""The temporary names of ours; nothing else is ever swept."""


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the file system while writing into a message that names the folder and the cure.

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


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn an error of the file system while reading into a message; that a file is absent is none.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: in place of any other ``OSError``: it may pass, and says nothing of the content.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(str(path)) from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read now ({error.strerror or error}); it was left as it is. Check the disk, its "
            "permissions and the limit of open files, then give the same command again"
        ) from error


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file of ours, open for reading.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: something else has its name: a folder, a pipe, a link to itself.
        UserError: it cannot be read now.
    """
    with read_errors(path):
        try:
            regular = stat.S_ISREG(path.stat().st_mode)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            regular = False
        if not regular:
            raise Damaged(path, "not a file")
        with open(path, "rb") as file:
            yield file


def read_whole(path: Path) -> bytes:
    """The content of a file of ours; raises as :func:`opened` does."""
    with opened(path) as file:
        return file.read()


def temporary_beside(path: Path) -> Path:
    """A new name in the folder of a path, for a file or folder that will be renamed to it when it is whole.

    No other process has it, also of another machine or container, and :func:`sweep_temporary` knows it. It is short:
    the target's own name may be as long as names can be.
    """
    return path.with_name(f".erasebench-{os.getpid()}-{secrets.token_hex(6)}.tmp")


def write_atomic(path: Path, data: bytes, keep_first: bool = False) -> bool:
    """Write a file so that its name only ever shows whole content, whatever is killed and when.

    A temporary file in the same folder is written, flushed to the disk and renamed. Folders are made.

    Args:
        path: of the file.
        data: its content.
        keep_first: leave a file that has the name already, also one that another process has just written.

    Returns:
        Whether it is this content that has the name now.

    Raises:
        UserError: the folder is full or not writable; no partial file is left.
    """
    temporary = temporary_beside(path)
    with disk_errors(path.parent):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            return give_name(temporary, path, keep_first)
        except BaseException:
            with suppress(OSError):  # the first error is the one to tell
                temporary.unlink()
            raise


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """:func:`write_atomic` of what is too large to be held as bytes.

    Yields:
        The temporary file, for the block to write. After an error in the block it is gone, and what had the name stays.

    Raises:
        UserError: the folder is full or not writable.
    """
    temporary = temporary_beside(path)
    with disk_errors(path.parent):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):  # the first error is the one to tell
                temporary.unlink()
            raise


def give_name(temporary: Path, path: Path, keep_first: bool = False) -> bool:
    """Let a whole temporary file have its name; arguments and result as of :func:`write_atomic`.

    Raises:
        OSError: as the file system has it.
    """
    if keep_first:
        try:
            os.link(temporary, path)  # unlike a rename it never replaces
        except FileExistsError:
            temporary.unlink()
            return False
        except OSError:  # no links on this file system: the name was free when we looked
            os.replace(temporary, path)
            return True
        temporary.unlink()
        return True
    os.replace(temporary, path)
    return True


def write_text(path: Path, text: str) -> None:
    """:func:`write_atomic` of a text as UTF-8."""
    write_atomic(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """:func:`write_atomic` of a value as JSON for people: indented, in the order given, UTF-8."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def check_writable(folder: Path, need_bytes: int = 0) -> float:
    """Refuse a folder that work would only later fail to write to.

    Returns:
        The time by the clock of its file system, which stamps the files of all machines that share it.

    Raises:
        UserError: it cannot be made or written, or has less free room than ``need_bytes`` (and some).
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    probe = temporary_beside(folder / "probe")
    write_atomic(probe, b"erasebench")
    with disk_errors(folder):
        now = probe.stat().st_mtime
        probe.unlink()
    need = max(need_bytes, LEAST_FREE_BYTES)
    if free < need:
        raise UserError(
            f"{folder} has {free / 2**20:,.0f} MiB free and this needs about {need / 2**20:,.0f} MiB; "
            "free some space or choose another results folder"
        )
    return now


def check_place(folder: Path) -> None:
    """Refuse a path that cannot become a folder, without making it: for who only says what would be done.

    Raises:
        UserError: a file is in the way, or no folder can have such a name.
    """
    with disk_errors(folder):
        there = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), None)
        if there is not None and not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def set_aside(path: Path, why: str) -> Path:
    """Rename what is damaged to ``<name>.broken`` with a warning, so that it is made again and can be looked at.

    Raises:
        UserError: the folder is not writable.
    """
    aside = path.with_name(path.name + ".broken")
    number = 1
    while os.path.lexists(aside):  # nothing is overwritten, not even what is broken
        number += 1
        aside = path.with_name(f"{path.name}.broken-{number}")
    with disk_errors(path.parent):
        try:
            os.replace(path, aside)
        except FileNotFoundError:
            return aside  # another process has set it aside
    log.warning("%s is damaged (%s); set aside as %s, it will be made again", path, why, aside.name)
    return aside


def sweep_temporary(folders: Iterable[Path], now: float) -> int:
    """Delete what killed processes left in folders and below; a link to another folder is not followed.

    Args:
        folders: folders of ours, or single files.
        now: the time by the clock of their file system (:func:`check_writable`).

    Returns:
        How many files and folders were deleted. What cannot be deleted is left for the next time.
    """
    swept = 0
    for top in folders:
        one = [(str(top.parent), list[str](), [top.name])] if top.is_file() else None
        for place, names, files in one or os.walk(top):
            inside = [name for name in names if TEMPORARY.fullmatch(name)]
            for path in (Path(place, name) for name in (*inside, *filter(TEMPORARY.fullmatch, files))):
                with suppress(OSError):
                    if path.lstat().st_mtime > now - STALE_SECONDS:
                        continue  # somebody may be writing it
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
                    swept += 1
            names[:] = [name for name in names if name not in inside]
    return swept
