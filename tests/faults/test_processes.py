"""Four equal commands share one store, and one of them is killed in the middle: nothing is made twice but what it was at.

What each process begins to make is written down before it is made, so that also the killed one says what it was at.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_helpers import Ended, Left, left, same

COUNTING = """
import sys
from pathlib import Path
import erasebench.images.generate as images
from erasebench.cli import main

log, sample = Path(sys.argv[1]), images._sample

def _sample(pipe, texts, batch, *rest):
    with open(log, "a") as file:
        file.writelines(f"{recipe.key}\\n" for recipe in batch)
    return sample(pipe, texts, batch, *rest)

images._sample = _sample
sys.exit(main(sys.argv[2:]))
"""

MORE = ["prompts.per_erased=12", "batch_size=1"]
"""Images enough that all four are at work when one is killed; one by one, so that their pixels hang on nothing else."""


def keys(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def shared(run_command: Callable[..., list[str]], folder: Path, kill_at: int) -> tuple[Path, list[Path], Path]:
    """Run four at once and kill the first of them that has begun so many images.

    Returns:
        The store, the logs of all, and that of the killed one.
    """
    root, logs = folder / "results", [folder / f"log-{number}" for number in range(4)]
    command = run_command(root, *MORE)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COUNTING, str(log), *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for log in logs
    ]  # fmt: skip
    try:
        deadline = time.monotonic() + 500
        while not (ready := [number for number, log in enumerate(logs) if len(keys(log)) >= kill_at]):
            assert time.monotonic() < deadline and any(process.poll() is None for process in processes)
            time.sleep(0.01)
        killed = ready[0]
        processes[killed].send_signal(signal.SIGKILL)
        for number, process in enumerate(processes):
            text = process.communicate(timeout=500)[0]
            assert process.returncode == (-signal.SIGKILL if number == killed else 0), text
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return root, logs, logs[killed]


@pytest.fixture(scope="module")
def alone(stepper, run_command, tmp_path_factory: pytest.TempPathFactory) -> Left:
    root = tmp_path_factory.mktemp("alone")
    ended: Ended
    (ended,) = stepper([run_command(root, *MORE)], root)
    assert ended.status == 0, ended.printed
    return left(root)


@pytest.mark.faults
@pytest.mark.parametrize("kill_at", [1, 2, 5])
def test_four_share_a_store_and_one_is_killed(kill_at: int, run_command, alone: Left, tmp_path: Path) -> None:
    root, logs, killed = shared(run_command, tmp_path, kill_at)
    sampled = Counter(key for log in logs for key in keys(log))
    assert set(sampled) == set(alone.pixels), "every image is made"
    again = [key for key, count in sampled.items() if count > 1]
    # One by one: the killed process can have been at one image that was not whole yet.
    assert len(again) <= 1 and set(again) <= {keys(killed)[-1]}
    assert all(count <= 2 for count in sampled.values())
    same(left(root), alone)
    assert not list(root.glob("claims/*"))
