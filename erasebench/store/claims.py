"""Claims: which process is at work on what, so that several processes share the work of one store.

A claim is a small file that only one process can make. Its owner touches it while it is at work and removes it at the
end. A claim whose owner was killed is taken over: at once if the owner was a process of this machine and is gone, else
when the file has not been touched for a while, by the clock of the one who looks; clocks of two machines are never
compared. Should two processes own one claim all the same (one was suspended for minutes), both do the work: what they
store is whole, and of two the first counts.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from erasebench.files import STALE_SECONDS, disk_errors, temporary_beside

CLAIM_SECONDS = 120.0
"""A claim that has not been touched for so long is taken over. More than a file system may be late to show a touch."""

TOUCHES = 8
"""How often a claim is touched in that time."""

_NAME = re.compile(r"[a-z]+-[0-9a-f]{16,64}")


class Claims:
    """The claims of a store.

    Args:
        folder: of the claims; made with the first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: dict[str, tuple[object, float]] = {}

    @contextmanager
    def claim(self, job: str, seconds: float = CLAIM_SECONDS) -> Iterator[bool]:
        """Claim a job for a ``with`` block; the block gets whether it is ours.

        Args:
            job: its id.
            seconds: without a touch, after which a claim is taken over.

        Raises:
            UserError: the folder is full or not writable.
        """
        if not _NAME.fullmatch(job):
            raise ValueError(f"{job!r} is not the id of a job: a word, '-' and 16 to 64 hexadecimal digits")
        path = self.folder / job
        content = self._take(path, seconds)
        if content is None:
            yield False
            return
        ended = threading.Event()
        touching = threading.Thread(target=_touch, args=(path, ended, seconds / TOUCHES), daemon=True)
        touching.start()
        try:
            yield True
        finally:
            ended.set()
            touching.join()
            with suppress(OSError):
                if path.read_bytes() == content:  # it may have been taken over
                    path.unlink()

    def owner(self, job: str) -> str:
        """Who is at work on a job, for people: ``process 4711 on node7``; empty if nobody is."""
        owner = _parsed(_content(self.folder / job)[0])
        return f"process {owner.get('pid')} on {owner.get('host')}" if owner else ""

    def sweep(self, now: float) -> None:
        """Remove what processes left that were killed and whose work nobody took up again.

        Args:
            now: by the clock of the file system.
        """
        for path in self.folder.glob("*-*"):
            with suppress(OSError):
                if _NAME.fullmatch(path.name) and (
                    _is_dead(_content(path)[0]) or path.stat().st_mtime < now - STALE_SECONDS
                ):
                    path.unlink()

    def _take(self, path: Path, seconds: float) -> bytes | None:
        """Make a claim's file, or take over an abandoned one; its content, or ``None`` if another process is at work."""
        content = json.dumps(_owner() | {"token": secrets.token_hex(8)}).encode()
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for last in (False, True):
                try:
                    with open(path, "xb") as file:
                        try:
                            file.write(content)
                        except BaseException:
                            path.unlink(missing_ok=True)
                            raise
                    return content
                except FileExistsError:
                    if last or not self._remove_abandoned(path, seconds):
                        return None
        return None

    def _remove_abandoned(self, path: Path, seconds: float) -> bool:
        """Remove a claim if its owner is gone; returns whether it is away."""
        content, touched = _content(path)
        if not _is_dead(content):
            state = (content, touched)
            before, since = self._seen.get(path.name, (None, 0.0))
            if state != before:
                self._seen[path.name] = (state, time.monotonic())
                return touched is None
            if time.monotonic() - since <= seconds:
                return False
        # Renamed, not deleted: should another process have taken it over since we looked, it is put back.
        aside = temporary_beside(path)
        try:
            os.replace(path, aside)
        except FileNotFoundError:
            return True
        if aside.read_bytes() != content:
            os.replace(aside, path)
            return False
        aside.unlink()
        return True


def _touch(path: Path, ended: threading.Event, pause: float) -> None:
    while not ended.wait(pause):
        with suppress(OSError):  # taken over, or the disk fails for a moment
            os.utime(path)


def _content(path: Path) -> tuple[bytes, int | None]:
    """A claim's content and when it was touched; opened, so that a network file system looks anew."""
    try:
        with open(path, "rb") as file:
            return file.read(4096), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return b"", None


def _owner() -> dict[str, Any]:
    """What tells this process from any other, on any machine."""
    process = psutil.Process()
    return {"place": _place(), "host": platform.node(), "pid": process.pid, "started": process.create_time()}


@functools.cache
def _place() -> str:
    """Where process ids mean the same: this boot of this machine and, on Linux, this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{platform.node()} {psutil.boot_time():.0f}"


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        owner = json.loads(content)
    except ValueError:  # its owner is just writing it
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_dead(content: bytes) -> bool:
    """Whether a claim's owner was a process of this machine that is gone."""
    owner = _parsed(content)
    if owner.get("place") != _place():
        return False
    try:
        process = psutil.Process(owner["pid"])
        return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - owner["started"]) > 1
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False
