"""kill -9 at any step of a run, a table or a report: the same commands end as if nothing had been, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from fault_helpers import commands_of, left, same

from erasebench.files import STALE_SECONDS, TEMPORARY


def files(root: Path) -> dict[Path, bytes]:
    """The images and shards that are there: no kill may take one."""
    return {path: path.read_bytes() for pattern in ("images/*/*.png", "records/*/*") for path in root.glob(pattern)}


def disturb(stepper, run_command, undisturbed, root: Path, kills: list[int]) -> list[str]:
    """Kill at each of the steps, every run going on from the one before, then let the commands finish.

    Returns:
        Where the kills fell.
    """
    commands, places, before = commands_of(run_command, root), [], {}
    for kill in kills:
        (ended,) = stepper(commands, root, kill=kill)
        if ended.status == 0:  # fewer steps are left than that
            continue
        assert ended.status == -signal.SIGKILL, ended.printed
        places.append(ended.where)
        now = files(root)
        assert all(now.get(path) == data for path, data in before.items())
        left(root)
        before = now
    past = time.time() - STALE_SECONDS - 60
    for path in root.rglob(".*"):
        os.utime(path, (past, past))
    (ended,) = stepper(commands, root)
    assert ended.status == 0, ended.printed
    same(left(root), undisturbed[0])
    assert not [path for path in root.rglob(".*") if TEMPORARY.fullmatch(path.name)], "what kills left is swept"
    return places


def test_a_kill_in_several_stages_loses_nothing(stepper, run_command, undisturbed, tmp_path: Path) -> None:
    total = undisturbed[1].steps
    assert len(disturb(stepper, run_command, undisturbed, tmp_path, [total // 10, total // 3, total // 2])) == 3


@pytest.mark.faults
@pytest.mark.parametrize("chain", range(10))
def test_fifty_kills_over_all_stages_lose_nothing(
    chain: int, stepper, run_command, undisturbed, tmp_path: Path
) -> None:
    total = undisturbed[1].steps
    for part in range(5):  # each in a store of its own: a step is then where it is undisturbed
        places = disturb(
            stepper, run_command, undisturbed, tmp_path / str(part), [1 + total * (10 * part + chain) // 50]
        )
        assert len(places) == 1
        print(f"killed {places[0]}")
        shutil.rmtree(tmp_path / str(part))
