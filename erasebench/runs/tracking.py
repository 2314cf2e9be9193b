"""``tracking=wandb``: a run's progress and numbers, told to a tracker beside what the run writes itself.

A tracker is a guest. Its library is imported only if it is asked for, in a thread of its own, which alone speaks to it: a
tracker that fails or does not answer costs a warning and nothing of the run.
"""

from __future__ import annotations

import importlib
import importlib.util
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import pandas as pd
from rich.console import Console

from erasebench.errors import UserError, suggest
from erasebench.progress import say

PROJECT = "erasebench"
"""What the project, or the experiment, is called there."""

LOG_SECONDS = 10.0
"""How often progress is told."""

PATIENCE = 60.0
"""Seconds that a run waits at its end for a tracker to take what is left."""


class _Service(Protocol):
    """What is asked of a tracker."""

    def begin(self, run: str, facts: Mapping[str, str]) -> None: ...

    def log(self, numbers: Mapping[str, float]) -> None: ...

    def end(self, failed: bool) -> None: ...


class _Wandb:
    """Weights & Biases, and trackio, which has the same functions."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def begin(self, run: str, facts: Mapping[str, str]) -> None:
        self.module.init(project=PROJECT, name=run, config=dict(facts))

    def log(self, numbers: Mapping[str, float]) -> None:
        self.module.log(dict(numbers))

    def end(self, failed: bool) -> None:
        if failed and self.module.__name__ == "wandb":
            self.module.finish(exit_code=1)
        else:
            self.module.finish()


class _Mlflow:
    """MLflow, whose names are made of fewer signs."""

    def __init__(self, module: Any) -> None:
        self.module, self.step = module, 0

    def begin(self, run: str, facts: Mapping[str, str]) -> None:
        self.module.set_experiment(PROJECT)
        self.module.start_run(run_name=run)
        self.module.log_params({name: text[:500] for name, text in facts.items()})

    def log(self, numbers: Mapping[str, float]) -> None:
        named = {re.sub(r"[^\w ./-]", "_", name)[:250]: value for name, value in numbers.items()}
        self.module.log_metrics(named, step=self.step)
        self.step += 1

    def end(self, failed: bool) -> None:
        self.module.end_run("FAILED" if failed else "FINISHED")


TRACKERS: dict[str, Callable[[Any], _Service]] = {"trackio": _Wandb, "wandb": _Wandb, "mlflow": _Mlflow}
"""By the name of the module and of the extra that installs it."""

NO_TRACKING = "none"


def check_tracking(name: str) -> None:
    """Refuse a tracker that is none or not installed; nothing is imported.

    Raises:
        UserError: with the known ones, or the command that installs it.
    """
    if name == NO_TRACKING:
        return
    if name not in TRACKERS:
        names = (NO_TRACKING, *TRACKERS)
        raise UserError(f"tracking={name}: no such tracker.{suggest(name, names)} Known: {', '.join(names)}")
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # a mere folder of that name, which trackers leave behind, is none
        raise UserError(f"tracking={name}: it is not installed; install it with: pip install 'erasebench[{name}]'")


class Tracker:
    """One run as a tracker sees it.

    Args:
        name: a key of :data:`TRACKERS`, or ``none``.
        run: the name of the run.
        facts: what it is: model, protocol, erasers.
        console: where a failure is said, once.
    """

    def __init__(self, name: str, run: str, facts: Mapping[str, str], console: Console) -> None:
        self.name, self._console = name, console
        self._failure = ""
        self._said = False
        self._left: queue.SimpleQueue[Mapping[str, float] | bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._tell, args=(run, facts), name="tracking", daemon=True)
        if name != NO_TRACKING:
            self._thread.start()

    def _tell(self, run: str, facts: Mapping[str, str]) -> None:
        """All that is said to the tracker, in order; the last thing is whether the run failed."""
        try:
            service = TRACKERS[self.name](importlib.import_module(self.name))
            service.begin(run, facts)
            while not isinstance(numbers := self._left.get(), bool):
                service.log(numbers)
            service.end(failed=numbers)
        # Whatever it is, also an exit that a library asks for: the run is not its business.
        except BaseException as error:
            self._failure = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": ")

    def counting(self, what: str, total: int, advance: Callable[[int], None]) -> Callable[[int], None]:
        """A function to call with numbers of things done, which advances a bar and now and then tells the tracker."""
        if self.name == NO_TRACKING or not total:
            return advance
        done, last = 0, -LOG_SECONDS

        def count(number: int) -> None:
            nonlocal done, last
            advance(number)
            done += number
            if done >= total or time.monotonic() - last >= LOG_SECONDS:
                last = time.monotonic()
                self.log({f"progress/{what}": done, f"progress/{what} of": total})

        return count

    def log(self, numbers: Mapping[str, float]) -> None:
        """Tell some numbers; returns at once."""
        if self.name != NO_TRACKING and not self._complain():
            self._left.put(dict(numbers))

    def end(self, failed: bool) -> None:
        """Tell that the run is over, and wait a while until all is told."""
        if self.name == NO_TRACKING:
            return
        self._left.put(failed)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._failure = self._failure or f"it did not take all within {PATIENCE:g} s"
        self._complain()

    def _complain(self) -> bool:
        """Whether the tracker failed, which is said once."""
        if self._failure and not self._said:
            self._said = True
            text = f"tracking={self.name} failed and is left out ({self._failure}); the run itself is not touched by it"
            say(self._console, text, "warning", "yellow")
        return bool(self._failure)


@contextmanager
def tracked(name: str, run: str, facts: Mapping[str, str], console: Console) -> Iterator[Tracker]:
    """A tracker for the block: whether that failed is told at its end."""
    tracker = Tracker(name, run, facts, console)
    try:
        yield tracker
    except BaseException:
        tracker.end(failed=True)
        raise
    tracker.end(failed=False)


def numbers_told(measured: pd.DataFrame, pooled: str) -> dict[str, float]:
    """The numbers of a run by names such as ``object/cure/erase/judge@2``, with the ends of their intervals and n.

    Args:
        measured: see :func:`erasebench.tables.measure.measure`.
        pooled: the task that stands for all.
    """
    numbers: dict[str, float] = {}
    for row in measured[(measured.task == pooled) & measured.value.notna()].to_dict("records"):
        place = f"{row['task_kind']}/{row['eraser']}/{row['role']}/{row['metric']}"
        for end, column in (("", "value"), ("/low", "low"), ("/high", "high"), ("/n", "n")):
            if pd.notna(row[column]):
                numbers[place + end] = float(row[column])
    return numbers
