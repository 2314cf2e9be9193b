"""A small run that is disturbed, and what an undisturbed one gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_helpers import SMALL, Ended, Left, commands_of, left


@pytest.fixture(scope="session")
def small_model(small_pipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small-model")
    small_pipe().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def run_command(small_model: Path) -> Callable[..., list[str]]:
    """The command of the small run for a store."""

    def command(root: Path, *more: str) -> list[str]:
        return ["run", *SMALL, f"model.path={small_model}", f"store.dir={root}", *more]

    return command


@pytest.fixture(scope="session")
def stepper() -> Iterator[Callable[..., list[Ended]]]:
    """Runs commands in forks of a process that has imported everything; see :mod:`stepper`."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("stepper.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdin and process.stdout

    def call(commands: list[list[str]], root: Path, **asked: Any) -> list[Ended]:
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps({"commands": commands, "root": str(root), **asked}) + "\n")
        process.stdin.flush()
        return [Ended(*ended) for ended in json.loads(process.stdout.readline())["ended"]]

    yield call
    process.stdin.close()
    process.wait()


@pytest.fixture(scope="session")
def undisturbed(stepper, run_command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Left, Ended]:
    """The run, its table and its report, as they come out if nothing goes wrong."""
    root = tmp_path_factory.mktemp("undisturbed")
    (ended,) = stepper(commands_of(run_command, root), root)
    assert ended.status == 0, ended.printed
    return left(root), ended
