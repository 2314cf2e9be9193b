"""One process at work on a run: it makes edits, attacks, images and scores, one job after the other, in one loaded model."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from PIL.Image import Image
from torch.nn import Module

from erasebench.concepts import ErasureTask
from erasebench.edits.attack import Tools
from erasebench.edits.eraser import Edit, Eraser, Work
from erasebench.edits.work import Sample
from erasebench.images.batch_size import BatchSize
from erasebench.images.generate import generate
from erasebench.models.load import Model
from erasebench.models.targets import named_weight
from erasebench.runs.attacks import attack_hooks, drawing, judging
from erasebench.runs.environment import machine
from erasebench.runs.jobs import ATTACK, EDIT, IMAGES, Job, score_job
from erasebench.runs.plan import Plan, Prepared
from erasebench.runs.training import means_of
from erasebench.scores.scoring import Chunk, Unscored, score_chunk


class Worker:
    """Does jobs. Between two jobs of one edit the edit stays on the model; a ``with`` block ends with it as it was.

    Args:
        prepared: the checked config.
        model: as loaded.
        plan: of the run.
        chunks: of scores to make.
        advance: called with the number of images that were made or scored, or of steps of an attack.

    Attributes:
        unscored: what could not be scored.
    """

    def __init__(
        self,
        prepared: Prepared,
        model: Model,
        plan: Plan,
        chunks: Sequence[Chunk] = (),
        advance: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.prepared, self.model, self.plan, self.advance = prepared, model, plan, advance
        self.unscored = Unscored()
        self._store = prepared.store
        self._chunks = {score_job(chunk).id: chunk for chunk in chunks}
        self._makers = {eraser.key(model.identity, task): (eraser, task) for _, eraser, _, task in prepared.edits()}
        self._on_model = ""
        self._applied = ExitStack()
        self._sizes = BatchSize(prepared.batch_size, torch.device(prepared.device).type)
        self._unedited: dict[str, Module] | None = None  # for attacks that compare

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put_on("")

    def done(self, job: Job) -> bool:
        """Whether there is nothing left to do."""
        if job.kind == EDIT:
            return self._store.edit_path(job.edit).is_file()
        if job.kind == ATTACK:
            return self._store.get_attack(job.hash) is not None
        if job.kind == IMAGES:
            return all(map(self._store.has_image, job.keys))
        chunk = self._chunks[job.id]
        return chunk.metric.id in self.unscored.failed or chunk.missing().empty

    def work(self, job: Job) -> bool:
        """Do what is missing of a job; returns whether it could: another process may just be making its edit.

        Raises:
            UserError: whatever is wrong with an edit or the store.
        """
        if job.kind == EDIT:
            return self._edit(job.edit) is not None
        if job.kind == ATTACK:
            return self._attack(job)
        if job.kind == IMAGES:
            self._make_sources(job)
            if not self._put_on(job.edit):
                return False
            recipes = [self.plan.recipes[key] for key in self._store.missing(job.keys)]
            hooks = attack_hooks(recipes, self.plan.searches, self._store)
            generate(self.model, recipes, self._store, self._sizes, self.advance, self._about, hooks)
            return True
        self.advance(score_chunk(self._chunks[job.id], self._store, self.unscored))
        return True

    def _make_sources(self, job: Job) -> None:
        """Make the images that a job is to edit, if they are not there: they are the unedited model's."""
        needed = dict.fromkeys(self.plan.recipes[key].source for key in self._store.missing(job.keys))
        sources = [self.plan.recipes[key] for key in self._store.missing([key for key in needed if key])]
        if sources:
            self._put_on("")
            generate(self.model, sources, self._store, self._sizes, about=self._about)

    @property
    def _about(self) -> dict[str, str]:
        """What the records of images say of this run."""
        return {"protocol": self.prepared.protocol.identity}

    def _attack(self, job: Job) -> bool:
        """Look for what an attack is to find and save it with notes of the machine; returns whether its edit could be had.

        What it needs of the unedited model comes first, before the edit is put on.
        """
        search, judge = self.plan.searches[job.hash], self.prepared.judge
        attack, folder = search.attack, self._store.root / "work" / job.hash
        targets = attack.targets(search.concepts, search.recipe)
        if lacking := [recipe for recipe in targets if not self._store.has_image(recipe.key)]:
            self._put_on("")
            generate(self.model, lacking, self._store, self._sizes, about=self._about)
        if attack.compares and self._unedited is None:
            self._put_on("")
            self._unedited = {
                name: copy.deepcopy(getattr(self.model.pipe, name)).requires_grad_(False)
                for name in ("unet", "text_encoder")
            }
        if not self._put_on(job.edit):
            return False
        tools = Tools(
            advance=self.advance,
            targets=[self._store.image(recipe.key) for recipe in targets],
            draw=drawing(search, self.model, job.edit, self._sizes, self._store) if attack.judged else None,
            sees=judging(judge, search) if judge and attack.judged else None,
            unedited=self._unedited if attack.compares else None,
            folder=folder,
        )
        result = attack.find(self.model.pipe, search.concepts, search.recipe, tools)
        notes = {"device": self.model.device, "machine": machine(self.model)}
        self._store.put_attack(job.hash, replace(result, info=result.info | notes))
        shutil.rmtree(folder, ignore_errors=True)
        return True

    def _put_on(self, key: str) -> bool:
        """Bring the model to an edit (``""``: to none); returns whether the edit could be had."""
        if key == self._on_model:
            return True
        self._applied.close()
        self._on_model = ""
        if key:
            edit = self._edit_or_claim(key)
            if edit is None:
                return False
            self._applied.enter_context(edit.applied(self.model.pipe))
            self._on_model = key
        return True

    def _edit_or_claim(self, key: str) -> Edit | None:
        stored = self._store.get_edit(key)
        if stored is not None:
            return stored
        with self._store.claims.claim(Job(EDIT, key, key).id) as ours:
            return self._edit(key) if ours else None

    def _edit(self, key: str) -> Edit:
        """The stored edit of a key, or a new one, measured and saved; the job must be claimed."""
        stored = self._store.get_edit(key)
        if stored is not None:
            return stored
        self._put_on("")
        eraser, task = self._makers[key]
        with means_of(eraser, key, task, self.model, self._store, self._sizes) as work:
            edit = new_edit(eraser, task, self.model, work)
            self._store.put_edit(key, edit)
        # The one that is stored: another process may have been first, and a training need not come out the same.
        return self._store.get_edit(key) or replace(edit, key=key)


def new_edit(eraser: Eraser, task: ErasureTask, model: Model, work: Work | None) -> Edit:
    """A new edit, with notes of the model, of what it cost on which machine, and of what it changed.

    The images that a training has taken count whether they were there or had to be made: another machine needs them all.
    """
    sampled: set[tuple[str, int, int, float]] = set()
    if work is not None:
        work = replace(work, sample=_counted(work.sample, sampled))
    cuda = model.device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats(model.device)
    edit = eraser.edit(model.pipe, task, composing=bool(model.edits), work=work)
    base = {name: getattr(model, name) for name in ("name", "source", "revision", "family", "dtype")}
    if Path(model.source).is_dir():  # edits are passed on; folders of this machine are not
        base["source"] = Path(model.source).name
    notes: dict[str, Any] = {
        "model": base,
        "describe": eraser.describe,
        "device": model.device,
        "machine": machine(model),
        "images": len(sampled),
    }
    if cuda:  # elsewhere there is no measure of an edit alone
        notes["peak_memory_mb"] = round(torch.cuda.max_memory_allocated(model.device) / 2**20, 1)
    notes["norms"] = {name: change.norm(named_weight(model.pipe, name)) for name, change in edit.changes.items()}
    with edit.applied(model.pipe) as rounding:  # refuses what does not fit or is not finite, before it is saved
        notes["rounding"] = rounding
    return replace(edit, info=edit.info | notes)


def _counted(sample: Sample, sampled: set[tuple[str, int, int, float]]) -> Sample:
    """Images of the unedited model as before; what decides each is kept in ``sampled``."""

    def counted(prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float) -> list[Image]:
        sampled.update((prompt, seed, steps, guidance) for prompt, seed in zip(prompts, seeds, strict=True))
        return sample(prompts, seeds, steps, guidance)

    return counted
