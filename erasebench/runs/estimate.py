"""What a run will cost before it is begun: images to make, hours and disk, from what the store has measured here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import median
from typing import Any

import pandas as pd

from erasebench.edits.attack import Attack
from erasebench.images.generate import device_name
from erasebench.models.load import Model
from erasebench.recipe import Recipe
from erasebench.runs.attacks import ATTACKED_ROLE
from erasebench.runs.environment import machine
from erasebench.runs.jobs import attack_jobs
from erasebench.runs.plan import Plan, Prepared, drawn
from erasebench.store import Store

LIKE = ("model", "steps", "width", "height", "dtype", "scheduler")
"""Images that agree in these take about the same time; the first, third and fourth decide their size on disk."""

SAMPLE = 200
"""Files whose size is looked at."""


@dataclass(frozen=True)
class Cost:
    """An estimate.

    Attributes:
        images: how many are to be made.
        seconds: for all of them; ``None``: images like these have not been made here yet.
        disk_bytes: for all of them; ``None`` likewise.
        edits: how many are to be made, but for those that are trained.
        edit_seconds: for all of them; ``None``: no edits of these erasers have been made here yet.
        edit_bytes: for all of them; ``None`` likewise.
        trainings: how many edits are to be trained.
        training_seconds: for all of them; ``None``: none with these settings has been done here yet.
        training_bytes: of these edits; ``None`` likewise.
        searches: how many attacks have to look for something.
        search_seconds: for all of them; ``None``: these attacks have not looked for anything here yet.
    """

    images: int
    seconds: float | None
    disk_bytes: float | None
    edits: int = 0
    edit_seconds: float | None = 0.0
    edit_bytes: float | None = 0.0
    trainings: int = 0
    training_seconds: float | None = 0.0
    training_bytes: float | None = 0.0
    searches: int = 0
    search_seconds: float | None = 0.0

    @property
    def known_bytes(self) -> int:
        """What is known of the disk that all of it takes."""
        return int((self.disk_bytes or 0) + (self.edit_bytes or 0) + (self.training_bytes or 0))

    def __str__(self) -> str:
        lines = [_line(self.images, "images", self.seconds, self.disk_bytes)]
        if self.edits:
            lines.append(_line(self.edits, "edits", self.edit_seconds, self.edit_bytes))
        if self.trainings:
            time = "not known yet" if self.training_seconds is None else _duration(self.training_seconds)
            disk = "not known yet" if self.training_bytes is None else _size(self.training_bytes)
            lines.append(f"{self.trainings} trainings to do; time for them here: {time}; disk: {disk}")
        if self.searches:
            time = "unknown until the first is done" if self.search_seconds is None else _duration(self.search_seconds)
            lines.append(f"{self.searches} searches of attacks to do; time for them here: {time}")
        return "\n".join(lines)


def _line(count: int, what: str, seconds: float | None, size: float | None) -> str:
    unknown = f"unknown until the first {what} are made"
    time = unknown if seconds is None else _duration(seconds)
    disk = unknown if size is None else _size(size)
    return f"{count} {what} to make; time for them here: {time}; disk: {disk}"


def _size(size: float) -> str:
    return f"{size / 1e6:.3g} MB"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def estimate_run(prepared: Prepared, model: Model, plan: Plan, missing: Sequence[str]) -> Cost:
    """The cost of all that a run still has to make.

    Args:
        prepared: the checked config.
        model: as loaded.
        plan: of the run.
        missing: keys of the images that are to be made.
    """
    store = prepared.store
    images = estimate(store, [plan.recipes[key] for key in missing], device_name(model.pipe))
    edits = {key: eraser for _, eraser, _, task in prepared.edits() if (key := eraser.key(model.identity, task))}
    wanted = [eraser for key, eraser in edits.items() if not store.edit_path(key).is_file()]
    made, trained = ([eraser for eraser in wanted if eraser.trains is trains] for trains in (False, True))
    seconds, size = _edit_costs(store, [eraser.name for eraser in made], model)
    trained_alike = [_same(eraser.name, eraser.settings) for eraser in trained]
    training_seconds, training_size = _edit_costs(store, trained_alike, model)
    searches = [plan.searches[job.hash].attack for job in attack_jobs(plan, missing) if not store.get_attack(job.hash)]
    return replace(
        images,
        edits=len(made),
        edit_seconds=seconds,
        edit_bytes=size,
        trainings=len(trained),
        training_seconds=training_seconds,
        training_bytes=training_size,
        searches=len(searches),
        search_seconds=_search_seconds(store, searches, model),
    )


def _edit_costs(store: Store, wanted: Sequence[str], model: Model) -> tuple[float | None, float | None]:
    """Seconds and bytes of edits, from the median of those made before of a model of that name.

    Args:
        store: where edits are.
        wanted: the method of each edit; of those that are trained, with all settings (:func:`_same`): they decide how long.
        model: as loaded.
    """
    if not wanted:
        return 0.0, 0.0
    here = machine(model)
    seconds: dict[str, list[float]] = {}
    sizes: dict[str, list[int]] = {}
    for path in (store.root / "edits").glob("*.safetensors"):
        notes = store.edit_notes(path.stem)
        if notes.get("model", {}).get("name") != model.name:
            continue
        alike = notes.get("method", "")
        if notes.get("trained"):
            alike = _same(alike, notes.get("settings", {}))
        sizes.setdefault(alike, []).append(path.stat().st_size)
        if notes.get("machine") == here:
            seconds.setdefault(alike, []).append(notes["seconds"])
    return (
        sum(median(seconds[alike]) for alike in wanted) if set(wanted) <= set(seconds) else None,
        sum(median(sizes[alike]) for alike in wanted) if set(wanted) <= set(sizes) else None,
    )


def _search_seconds(store: Store, attacks: Sequence[Attack], model: Model) -> float | None:
    """Seconds of searches, from the median of those that the same attacks have done here."""
    here = machine(model)
    seconds: dict[str, list[float]] = {}
    for path in islice((store.root / "attacks").glob("*/*.safetensors"), SAMPLE if attacks else 0):
        result = store.get_attack(path.stem)
        if result is not None and result.info.get("machine") == here:
            seconds.setdefault(_same(result.info["attack"], result.info["settings"]), []).append(result.info["seconds"])
    names = [_same(attack.name, attack.settings) for attack in attacks]
    return sum(median(seconds[name]) for name in names) if set(names) <= set(seconds) else None


def _same(name: str, settings: Mapping[str, Any]) -> str:
    return json.dumps([name, settings], sort_keys=True)


def estimate(store: Store, missing: Iterable[Recipe], device: str) -> Cost:
    """The cost of the images that are missing, by the median seconds and bytes of like images in the store.

    Args:
        store: where images were made before.
        missing: the recipes of what is to be made.
        device: as records name it (:func:`erasebench.images.generate.device_name`); seconds on another one do not count.
    """
    wanted = pd.Series([tuple(getattr(recipe, name) for name in LIKE) for recipe in missing], dtype=object)
    if not len(wanted):
        return Cost(0, 0.0, 0.0)
    records = store.image_records()
    if not len(records) or "seconds" not in records:
        return Cost(len(wanted), None, None)
    counts = wanted.value_counts()
    groups = {like: part for like, part in records.groupby(list(LIKE), sort=False)}
    seconds = [_seconds(groups.get(like), device) for like in counts.index]
    sizes = [_bytes(store, groups.get(like)) for like in counts.index]
    return Cost(len(wanted), _total(counts, seconds), _total(counts, sizes))


def _seconds(part: pd.DataFrame | None, device: str) -> float | None:
    here = None if part is None else part.seconds[part.device == device]
    return None if here is None or here.empty else float(here.median())


def _bytes(store: Store, part: pd.DataFrame | None) -> float | None:
    paths = [store.image_path(key) for key in part.key.iloc[:SAMPLE]] if part is not None else []
    sizes = [path.stat().st_size for path in paths if path.exists()]
    return sum(sizes) / len(sizes) if sizes else None


def _total(counts: pd.Series, each: Sequence[float | None]) -> float | None:
    """``None`` if any part is unknown: half an estimate misleads."""
    return None if any(one is None for one in each) else float(sum(counts * pd.Series(each, index=counts.index)))


def images_without_a_model(prepared: Prepared) -> int:
    """How many images a run has, counted from its prompts alone, for a model that is not here to be loaded."""
    decides = ["prompt", "negative_prompt", "seed", "guidance", "width", "height"]
    decides += ["source_prompt"] if prepared.protocol.editing else []
    rows: dict[str, list[pd.DataFrame]] = {}
    for label, eraser, kind, task in prepared.edits():
        _, prompts = prepared.groups[kind]
        edit = eraser.key("?", task)
        name = f"{label} {kind} {task.label}" if edit else ""
        wanted = drawn(prompts.for_task(task), prepared.protocol)
        if prepared.protocol.editing:  # images of the unedited model that are edited
            rows.setdefault("sources", []).append(wanted.assign(prompt=wanted.source_prompt, source_prompt="")[decides])
        rows.setdefault(name, []).append(wanted[decides])
        for attack in prepared.attacks:
            attacked = wanted[wanted.role == ATTACKED_ROLE]
            rows.setdefault(f"{name} {attack} {task.label}", []).append(attacked[decides])
    return sum(len(pd.concat(parts).drop_duplicates()) for parts in rows.values())
