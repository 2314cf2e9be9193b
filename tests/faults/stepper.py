"""A process that has imported everything and runs commands of erasebench in forks, to be disturbed at one of their steps.

A step is what Python's audit hooks tell of in a store: a file opened, renamed, deleted, a folder made. A command does the
same steps in the same order, so a fault at step k falls where it fell the last time, and steps spread over a command
spread over all its stages.

Reads one JSON object a line and answers each with one::

    {"commands": [["run", ...], ["table", ...]], "root": STORE, "kill": K, "fill": [K, FILE, BYTES_LEFT], "copies": N}
    {"ended": [[exit status or -signal, number of steps, where the last one was, what was printed]]}
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.rmdir")


def main() -> None:
    """Import what commands need, then serve."""
    import torch

    import erasebench.commands.report
    import erasebench.commands.run
    import erasebench.commands.table
    import erasebench.report.write
    import erasebench.run  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        asked = json.loads(line)
        children = [_fork(asked) for _ in range(asked.get("copies", 1))]
        print(json.dumps({"ended": [_ended(*child) for child in children]}), flush=True)


def _fork(asked: dict[str, Any]) -> tuple[int, str]:
    report = tempfile.mkdtemp(prefix="step-")
    pid = os.fork()
    if pid:
        return pid, report
    status = 70
    with contextlib.suppress(BaseException):
        status = _child(asked, report)
    os._exit(status)


def _child(asked: dict[str, Any], report: str) -> int:
    output = os.open(f"{report}/output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb"), encoding="utf-8", line_buffering=True)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb"), encoding="utf-8", line_buffering=True)
    root, kill, fill = str(asked["root"]), asked.get("kill", 0), asked.get("fill")
    steps, place = 0, os.open(f"{report}/steps", os.O_WRONLY | os.O_CREAT)

    def step(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal steps
        if event not in EVENTS or not str(arguments[0]).startswith(root):
            return
        steps += 1
        os.pwrite(place, f"{steps} {event} {arguments[0]}\n".ljust(1000).encode(), 0)
        if steps == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if fill and steps == fill[0]:
            free = shutil.disk_usage(root).free
            with contextlib.suppress(OSError), open(fill[1], "wb") as ballast:
                os.posix_fallocate(ballast.fileno(), 0, max(1, free - fill[2]))

    sys.addaudithook(step)
    from erasebench.cli import main as command

    status = 0
    try:
        for arguments in asked["commands"]:
            status = command(arguments)
            if status:
                break
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _ended(pid: int, report: str) -> tuple[int, int, str, str]:
    _, status = os.waitpid(pid, 0)
    steps = Path(report, "steps")
    number, _, where = steps.read_text().strip().partition(" ") if steps.exists() else ("0", "", "")
    printed = Path(report, "output").read_text(encoding="utf-8", errors="replace")
    shutil.rmtree(report, ignore_errors=True)
    return os.waitstatus_to_exitcode(status), int(number or 0), where, printed


if __name__ == "__main__":
    main()
