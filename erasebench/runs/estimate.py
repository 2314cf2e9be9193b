"""What a run will cost before it is begun: images to make, hours and disk, from what the store has measured here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from erasebench.recipe import Recipe
from erasebench.runs.plan import Prepared, drawn
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
    """

    images: int
    seconds: float | None
    disk_bytes: float | None

    def __str__(self) -> str:
        unknown = "unknown until the first images are made"
        time = unknown if self.seconds is None else _duration(self.seconds)
        disk = unknown if self.disk_bytes is None else f"{self.disk_bytes / 1e6:.3g} MB"
        return f"{self.images} images to make; time for them here: {time}; disk: {disk}"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


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
    found = part.seconds[part.device == device] if part is not None else ()
    return float(found.median()) if len(found) else None


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
    rows: dict[str, list[pd.DataFrame]] = {}
    for label, eraser, kind, task in prepared.edits():
        _, prompts = prepared.groups[kind]
        edit = eraser.key("?", task)
        name = f"{label} {kind} {task.label}" if edit else ""
        rows.setdefault(name, []).append(drawn(prompts.for_task(task), prepared.protocol)[decides])
    return sum(len(pd.concat(parts).drop_duplicates()) for parts in rows.values())
