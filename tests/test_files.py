"""A file is whole or absent, and an error of a disk is a sentence."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from erasebench.errors import Damaged, UserError
from erasebench.files import TEMPORARY, check_writable, read_whole, set_aside, temporary_beside, write_atomic


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_write_that_the_system_really_stops_leaves_nothing(tmp_path):
    script = """
import resource, signal, sys
from pathlib import Path
from erasebench.errors import UserError
from erasebench.files import write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path(sys.argv[1]) / "big", b"x" * 5000)
except UserError as error:
    print(error)
"""
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert str(tmp_path) in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_never_seen_half_written(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError):
            write_atomic(path, b"new and longer")
    assert path.read_bytes() == b"old"


def test_a_folder_that_cannot_be_written_or_is_full_is_refused(tmp_path, monkeypatch):
    check_writable(tmp_path / "new" / "results")
    assert list((tmp_path / "new" / "results").iterdir()) == []
    with pytest.raises(UserError, match="MiB free"):
        check_writable(tmp_path / "results", need_bytes=2**60)

    def denied(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "fsync", denied)
    with pytest.raises(UserError, match="not writable"):
        check_writable(tmp_path / "results")


def test_a_temporary_name_is_ours_short_and_never_twice_the_same(tmp_path):
    names = {temporary_beside(tmp_path / ("x" * 255)).name for _ in range(100)}
    assert len(names) == 100 and all(TEMPORARY.fullmatch(name) for name in names)
    for theirs in (".x.tmp", ".1-abcdef012345.tmp", ".thesis.pdf.part", "x.erasebench-1-abcdef012345.tmp"):
        assert not TEMPORARY.fullmatch(theirs)


def test_what_is_set_aside_never_replaces_anything(tmp_path):
    for content in ("one", "two", "three"):
        (tmp_path / "file").write_text(content)
        set_aside(tmp_path / "file", "cut")
    (tmp_path / "file").mkdir()
    set_aside(tmp_path / "file", "not a file")
    contents = [(tmp_path / f"file.broken{end}").read_text() for end in ("", "-2", "-3")]
    assert contents == ["one", "two", "three"] and (tmp_path / "file.broken-4").is_dir()
    set_aside(tmp_path / "gone", "another process was faster")


def test_reading_tells_absent_damaged_and_not_now_apart(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"content")
    assert read_whole(tmp_path / "file") == b"content"
    for name in ("nothing", "dangling", "file/below"):
        with pytest.raises(FileNotFoundError):
            read_whole(tmp_path / name)
    for name in ("folder", "loop", "pipe"):
        with pytest.raises(Damaged, match="not a file"):
            read_whole(tmp_path / name)
    for number in (errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES):

        def fails(*_, number=number, **__):
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr("builtins.open", fails)
            with pytest.raises(UserError, match="cannot be read now") as caught:
                read_whole(tmp_path / "file")
            assert not isinstance(caught.value, Damaged)


def test_the_first_file_of_a_name_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / "file"
    assert write_atomic(path, b"one", keep_first=True) and not write_atomic(path, b"two", keep_first=True)
    assert path.read_bytes() == b"one" and [entry.name for entry in path.parent.iterdir()] == ["file"]
    assert write_atomic(path, b"three") and path.read_bytes() == b"three"

    def no_links(*paths: object) -> None:
        raise PermissionError("links are not made here")

    monkeypatch.setattr("os.link", no_links)
    other = tmp_path / "other"
    assert write_atomic(other, b"one", keep_first=True) and other.read_bytes() == b"one"
