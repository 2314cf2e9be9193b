"""A disk that fills up, by the command line: a sentence, no partial file, and the same command goes on once there is room.

The disk is a tmpfs that is mounted for the test; where that is not allowed, these are skipped.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_helpers import commands_of, left, same

from erasebench.files import TEMPORARY

LEVELS = (0, 1, 4096, 16_384, 65_536, 200_000, 400_000, 800_000, 1_600_000)
"""Bytes left from some step on: from nothing at all to nearly enough."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """40 MB, of which checks before work want 16."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m,nr_inodes=2000", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fills_up(stepper, run_command, undisturbed, disk: Path, level: int, step: int) -> None:
    """Fill the disk at a step, look at what is there, make room, and go on."""
    root, ballast = disk / "results", disk / "ballast"
    commands = commands_of(run_command, root)
    (ended,) = stepper(commands, root, fill=[step, str(ballast), level])
    assert "Traceback" not in ended.printed, ended.printed
    if ended.status:
        assert ended.status in (1, 2), ended.printed
        assert "no space is left" in ended.printed or "free" in ended.printed, ended.printed
    left(root)
    assert not [path for path in root.rglob(".*") if TEMPORARY.fullmatch(path.name)]
    ballast.unlink(missing_ok=True)
    (ended,) = stepper(commands, root)
    assert ended.status == 0, ended.printed
    same(left(root), undisturbed[0])


def test_a_disk_that_fills_up_is_a_sentence(stepper, run_command, undisturbed, disk: Path) -> None:
    fills_up(stepper, run_command, undisturbed, disk, 4096, undisturbed[1].steps // 3)


@pytest.mark.faults
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("part", range(1, 6))
def test_every_level_at_every_stage_is_a_sentence(level, part, stepper, run_command, undisturbed, disk: Path) -> None:
    fills_up(stepper, run_command, undisturbed, disk, level, undisturbed[1].steps * part // 6)


def test_a_disk_that_is_full_before_is_refused(stepper, run_command, disk: Path) -> None:
    root = disk / "results"
    with open(disk / "ballast", "wb") as ballast:
        ballast.truncate(0)
        while shutil.disk_usage(disk).free:
            ballast.write(bytes(min(2**20, shutil.disk_usage(disk).free)))
            ballast.flush()
    (ended,) = stepper([run_command(root)], root)
    assert ended.status == 2 and "Traceback" not in ended.printed, ended.printed
    assert str(root) in ended.printed and ("no space is left" in ended.printed or "MiB free" in ended.printed)


def test_a_disk_without_inodes_is_refused(stepper, run_command, disk: Path) -> None:
    root = disk / "results"
    for number in range(3000):
        try:
            (disk / f"file{number}").touch()
        except OSError:
            break
    (ended,) = stepper([run_command(root)], root)
    assert ended.status == 2 and "Traceback" not in ended.printed, ended.printed
    assert "no space is left" in ended.printed


def test_a_disk_that_is_read_only_is_refused_and_still_shows(stepper, run_command, disk: Path, tmp_path: Path) -> None:
    root = disk / "results"
    (ended,) = stepper([run_command(root)], root)
    assert ended.status == 0, ended.printed
    image = next(root.glob("images/*/*.png"))
    image.write_bytes(b"cut")  # one damaged file more
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    (ended,) = stepper([run_command(root)], root)
    assert ended.status == 2 and "not writable" in ended.printed and "Traceback" not in ended.printed, ended.printed
    run = next(root.glob("runs/*")).name
    reading = [
        ["table", run, "--store", str(root), "--out", str(tmp_path / "tables")],
        ["report", run, "--store", str(root), "--out", str(tmp_path / "report")],
        ["show", run, "--store", str(root)],
    ]
    for command in reading:
        (ended,) = stepper([command], root)
        assert ended.status == 0 and "Traceback" not in ended.printed, ended.printed
