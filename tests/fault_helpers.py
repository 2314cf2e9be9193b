"""What commands leave in a store when they are disturbed, to be compared with what they leave when they are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from erasebench.store import Store

SMALL = (
    "model=folder", "model.name=small", "protocol=embedded", "protocol.steps=2", "task=object", "task.erase=[church]",
    "task.concepts=[church,tench,castle,gas pump]",
    "method=uce", "metric=[judge]", "prompts.per_erased=3", "prompts.per_paraphrased=0", "prompts.per_near=0",
    "prompts.per_retained=1", "prompts.general=1", "device=cpu",
    "batch_size=2",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status (negative: by a signal), its steps, where the last one was, its words."""

    status: int
    steps: int
    where: str
    printed: str


@dataclass(frozen=True)
class Left:
    """What is in a store, to be compared: pixels by key, scores, and the table without costs."""

    pixels: dict[str, str]
    scores: dict[str, pd.DataFrame]
    measured: pd.DataFrame | None


def left(root: Path) -> Left:
    """What a command left in a store; fails on anything that cannot be read."""
    store = Store(root)
    pixels = {}
    for path in sorted(root.glob("images/*/*.png")):
        store.image(path.stem)
    records = store.image_records()
    if len(records):  # none are there before the first image
        pixels = dict(zip(records.key, records.pixels_sha256, strict=True))
    scores = {metric: store.scores(metric, []).sort_values("key", ignore_index=True) for metric in store.metric_ids()}
    for path in root.glob("edits/*.safetensors"):
        assert store.get_edit(path.stem) is not None
    tables = sorted(root.glob("runs/*/tables/measured.csv"))
    measured = pd.read_csv(tables[0]) if tables else None
    if measured is not None:
        measured = measured[measured.role != "cost"].reset_index(drop=True)
    assert not list(root.rglob("*.broken*"))
    return Left(pixels, scores, measured)


def same(one: Left, other: Left) -> None:
    """Fail unless two stores hold the same pixels, scores and table, to the last digit."""
    assert one.pixels == other.pixels
    assert one.scores.keys() == other.scores.keys()
    for metric, scores in one.scores.items():
        pd.testing.assert_frame_equal(scores, other.scores[metric])
    assert (one.measured is None) == (other.measured is None)
    if one.measured is not None:
        pd.testing.assert_frame_equal(one.measured, other.measured)


def commands_of(run_command: Callable[..., list[str]], root: Path) -> list[list[str]]:
    """A run, its table made again, and its report."""
    return [run_command(root), ["table", "--store", str(root)], ["report", "--store", str(root)]]
