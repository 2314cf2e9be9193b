"""What one benchmark session holds and measures: a pipeline, its original weights, and a record of every case."""

from __future__ import annotations

import copy
import ctypes
import math
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import plain
from benchmarks.cases import Case
from erasebench.models.targets import key_value_weights
from erasebench.models.text import Texts

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


FLOOR_RANK = 20
"""The least rank whose update is taken as a floor; below it reading and writing are nearly all."""


class Stopwatch:
    """Adds up the seconds spent inside a function."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*given: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


@dataclass
class Session:
    """One run of the benchmark.

    Attributes:
        pipe: the pipeline that is edited; its weights are put back before every round.
        cases: what to run, by id.
        rounds: rounds of what is not slow.
        dtype: of the plain way's numbers.
        plain: also run the plain ways.
        records: by case and way (``ours``, ``plain``, ``released``): seconds and the rest.
        floors: name to the best seconds of its rounds.
    """

    pipe: Any
    cases: Mapping[str, Case]
    rounds: int = 3
    dtype: torch.dtype = torch.float32
    plain: bool = True
    records: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    floors: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.weights: dict[str, Tensor] = {n: w.data for n, w in key_value_weights(self.pipe).items()}
        self._original = {name: weight.clone() for name, weight in self.weights.items()}
        self._edited: dict[str, dict[str, Tensor]] = {}
        self._now = ""

    def restore(self) -> None:
        """Put the original weights back."""
        for name, weight in self.weights.items():
            weight.copy_(self._original[name])

    def run(self, benchmark: Any, case: Case, way: str) -> None:
        """Time one way of a case by pytest-benchmark and record it."""
        rounds = 1 if (case.slow and way == "plain") or way == "released" else self.rounds
        parts: list[dict[str, float]] = []
        before = None

        def setup() -> None:
            nonlocal before
            self.restore()
            if before is None:
                before = reset_peak()

        job = {"ours": self._ours, "plain": case.plain, "released": case.released}[way]
        benchmark.group = case.id
        if way == "ours":
            benchmark.pedantic(lambda: parts.append(job(case)), setup=setup, rounds=rounds, iterations=1)
        else:
            benchmark.pedantic(lambda: parts.append(self._timed(job)), setup=setup, rounds=rounds, iterations=1)
        peak = peak_above(before)
        seconds = list(benchmark.stats.stats.data)
        best = min(range(rounds), key=seconds.__getitem__)
        self._record(case.id, way, {
            "seconds": seconds[best], "median": statistics.median(seconds), "rounds": rounds, **parts[best],
            "peak_mb": peak,
        })  # fmt: skip
        self._compare(case.id, way)
        if way == "ours" and case.factored:
            self.records[case.id][way]["floor"] = self.update_floor(max(FLOOR_RANK, parts[best]["rank"]))

    def _ours(self, case: Case) -> dict[str, float]:
        watch = Stopwatch()
        pipe = copy.copy(self.pipe)  # an applied edit leaves a mark; it goes with the copy
        with replaced(Texts, "parts", watch.watch(Texts.parts)):
            start = time.perf_counter()
            edit = case.eraser.edit(pipe, case.task)
            made = time.perf_counter()
            edit.apply(pipe)
            done = time.perf_counter()
        return {
            "text": watch.seconds, "solve": made - start - watch.seconds, "apply": done - made,
            "rank": edit.info["rank"],
        }  # fmt: skip

    def _timed(self, job: Callable[[Any, torch.dtype], None]) -> dict[str, float]:
        watch = Stopwatch()
        with replaced(plain, "encode", watch.watch(plain.encode)):
            job(self.pipe, self.dtype)
        return {"text": watch.seconds}

    def _record(self, case: str, way: str, about: dict[str, Any]) -> None:
        self.records.setdefault(case, {})[way] = about

    def _compare(self, case: str, way: str) -> None:
        """Note how far the weights now in the pipeline are from those that ours made."""
        if case != self._now:
            self._now, self._edited = case, {}
        self._edited[way] = {name: weight.clone() for name, weight in self.weights.items()}
        ours = self._edited.get("ours")
        pairs = [(self._edited[way][name], self._original[name], name) for name in self.weights]
        note = self.records[case][way]
        note["change"] = max(_share(new - old, old) for new, old, _ in pairs)
        if ours is not None and way != "ours":
            note["difference"] = max(_share(new - ours[name], new) for new, _, name in pairs)
            note["difference_of_change"] = _share(
                torch.cat([(new - ours[name]).flatten() for new, _, name in pairs]),
                torch.cat([(new - old).flatten() for new, old, _ in pairs]),
            )

    def update_floor(self, rank: int) -> float:
        """Seconds of a float32 update of all weights by two factors of this rank, the best of some rounds."""
        width = next(iter(self.weights.values())).shape[1]
        token, right = torch.randn(2, width, rank) / width
        best = math.inf
        for _ in range(3 * self.rounds):
            self.restore()
            start = time.perf_counter()
            for weight in self.weights.values():
                weight.addmm_(weight @ token.to(weight.dtype), right.T.to(weight.dtype))
            best = min(best, time.perf_counter() - start)
        self.restore()
        return best

    def floor(self, benchmark: Any, name: str, job: Callable[[], Any]) -> None:
        """Time something that no edit can do without."""
        benchmark.group = "floors"
        benchmark.pedantic(job, setup=self.restore, rounds=5 * self.rounds, iterations=1, warmup_rounds=1)
        self.floors[name] = benchmark.stats.stats.min


def _share(part: Tensor, whole: Tensor) -> float:
    """One Frobenius norm over another; 0 if both are (a weight that neither way edits)."""
    above, below = torch.linalg.norm(part.double()).item(), torch.linalg.norm(whole.double()).item()
    if below == 0:
        return 0.0 if above == 0 else float("inf")
    return above / below


@contextmanager
def replaced(owner: Any, name: str, new: Any) -> Iterator[None]:
    """Another attribute inside a ``with`` block."""
    old = getattr(owner, name)
    setattr(owner, name, new)
    try:
        yield
    finally:
        setattr(owner, name, old)


def reset_peak() -> int | None:
    """Give freed memory back and forget the process's peak so far (Linux).

    Returns:
        Resident memory now in kB, or ``None`` where the system cannot do this.
    """
    try:
        CLEAR.write_text("5")
    except OSError:
        return None
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5")
    return _status("VmRSS")


def peak_above(before: int | None) -> float | None:
    """The peak of resident memory since :func:`reset_peak`, above what there was then, in MB."""
    return None if before is None else (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    return int(re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)[1])
