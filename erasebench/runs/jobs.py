"""The work of a run as jobs, which any number of processes share: N identical commands do it once, not N times.

A job is an edit, a search of an attack, some images of one edit, or some scores of one metric. Its id is the same in every process that was
given the same command, so a process that claims it in the store keeps the others from it. Whoever finds nothing left to
claim waits for the others' jobs, and takes over those of processes that were killed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console

from erasebench.progress import say
from erasebench.runs.plan import Plan, Share
from erasebench.scores.scoring import Chunk
from erasebench.store import Store

EDIT, ATTACK, IMAGES, SCORES = "edit", "attack", "images", "scores"

IMAGES_A_JOB = 64
"""Images that one process makes at a time. Not a setting: processes that share a run must agree on it."""

WAITS = (0.1, 5.0)
"""Seconds between two looks at the jobs of other processes, at first and at most."""


@dataclass(frozen=True)
class Job:
    """A piece of work that one process does at a time.

    Attributes:
        kind: what it makes: :data:`EDIT`, :data:`ATTACK`, :data:`IMAGES`, :data:`SCORES`.
        hash: of what it is made of, the same in every process; of an attack its key.
        edit: key of the edit that is made, attacked, or that the images are made with; ``""`` is the unedited model.
        keys: of the images that are made or scored.
    """

    kind: str
    hash: str
    edit: str = ""
    keys: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Its name in the store."""
        return f"{self.kind}-{self.hash}"


def jobs(plan: Plan, share: Share = Share()) -> list[Job]:  # noqa: B008 (frozen)
    """The edits and images of a plan, those of one edit together, the unedited model's first, attacked ones by themselves.

    All of them, whether they are there already or not: processes that begin at different times divide them alike.
    """
    by_edit: dict[str, dict[bool, list[str]]] = {}
    for recipe in plan.recipes.values():
        by_edit.setdefault(recipe.edit, {False: [], True: []})[bool(recipe.attack)].append(recipe.key)
    work: list[Job] = []
    number = 0
    for index, (edit, by_attacked) in enumerate(by_edit.items()):
        images = []
        for keys in by_attacked.values():
            for start in range(0, len(keys), IMAGES_A_JOB):
                part = tuple(keys[start : start + IMAGES_A_JOB])
                if share.takes(number):
                    images.append(Job(IMAGES, _hash(part), edit, part))
                number += 1
        if edit and (images or share.takes(index)):
            work.append(Job(EDIT, edit, edit))
        work += images
    return work


def attack_jobs(plan: Plan, missing: Collection[str], share: Share = Share()) -> list[Job]:  # noqa: B008 (frozen)
    """What has to be found before the missing images of a share can be made; searches on one edit together."""
    keys = [key for job in jobs(plan, share) for key in job.keys if key in missing]
    needed = dict.fromkeys(plan.recipes[key].attack for key in keys)
    work = [Job(ATTACK, key, plan.searches[key].edit) for key in needed if key]
    edits = list(dict.fromkeys(job.edit for job in work))
    return sorted(work, key=lambda job: edits.index(job.edit))


def score_job(chunk: Chunk) -> Job:
    """The job of scoring a chunk."""
    return Job(SCORES, chunk.id, keys=tuple(chunk.rows.key))


def _hash(keys: Iterable[str]) -> str:
    return hashlib.sha256(json.dumps(list(keys)).encode()).hexdigest()[:32]


class Doing(Protocol):
    """What does jobs: a :class:`erasebench.runs.worker.Worker`."""

    def done(self, job: Job) -> bool:
        """Whether there is nothing left to do."""

    def work(self, job: Job) -> bool:
        """Do what is missing; returns whether it could: what it needs may be in another process's hands."""


class Tally:
    """How far some jobs are, for a progress bar: what this process makes, and what others have made when it looks.

    Args:
        advance: called with a number of things that are done.
        wanted: by job, how many things there are to do.
    """

    def __init__(self, advance: Callable[[int], None], wanted: Mapping[Job, int]) -> None:
        self._advance, self._wanted, self._made = advance, wanted, 0

    def made(self, count: int) -> None:
        """This process has done so many things of the job at hand."""
        self._made += count
        self._advance(count)

    def finished(self, job: Job) -> None:
        """A job is done: the rest of it by others."""
        by_others, self._made = self._wanted[job] - self._made, 0
        if by_others > 0:
            self._advance(by_others)


def share_out(
    work: Sequence[Job],
    worker: Doing,
    store: Store,
    console: Console,
    finished: Callable[[Job], None] = lambda job: None,
    wait: bool = True,
) -> None:
    """Do the jobs that no other process does, and wait until the others' are done, too.

    Args:
        work: the jobs, in the order in which they are best done.
        worker: who does them.
        store: where they are claimed.
        console: where it is said that the others are waited for.
        finished: called with each job that is done, whoever did it.
        wait: for the jobs of others.

    Raises:
        UserError: whatever the worker raises; claims are given back.
    """
    left, pause, waiting = list(work), WAITS[0], False
    while left:
        others: list[Job] = []
        for job in left:
            if worker.done(job) or _do(job, worker, store):
                finished(job)
            else:
                others.append(job)
        if not wait:
            return
        if len(others) == len(left):
            if not waiting:
                waiting = True
                owner = next(filter(None, (store.claims.owner(job.id) for job in others)), "another process")
                say(console, f"waiting for {len(others)} jobs that other processes are at work on ({owner})")
            time.sleep(pause)
            pause = min(2 * pause, WAITS[1])
        else:
            pause = WAITS[0]
        left = others


def _do(job: Job, worker: Doing, store: Store) -> bool:
    with store.claims.claim(job.id) as ours:
        return ours and worker.work(job)
