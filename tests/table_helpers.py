"""A small plan, made-up metrics and their scores, for the tests of tables and pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from erasebench.metric import Metric
from erasebench.recipe import Recipe
from erasebench.store import Store

OBJECTS = ("church", "gas pump", "tench", "golf ball")


class Accuracy(Metric):
    """What a classifier answered, against the label."""

    name, version, unit = "classifier", "1", "%"
    directions = {"erase": "down", "retain": "up"}

    def score(self, images, rows, originals=None):
        raise NotImplementedError

    def values(self, rows: pd.DataFrame) -> pd.Series:
        return (rows["answer"] == rows["label"]).astype(float)


class TextMatch(Metric):
    """A cosine for each prompt."""

    name, version = "text_match", "2-a_b"
    directions = {"retain": "up", "general": "up"}
    inputs = ("prompt",)

    def score(self, images, rows, originals=None):
        raise NotImplementedError


class Change(Metric):
    """A distance to the unedited image."""

    name, version, paired = "change", "1", True
    directions = {"retain": "down"}
    inputs = ("original_key",)

    def score(self, images, rows, originals=None):
        raise NotImplementedError


METRICS = (Accuracy(), TextMatch(), Change())


def recipe(prompt: str, seed: int, edit: str) -> Recipe:
    return Recipe(
        model="small", revision="r", edit=edit, prompt=prompt, negative_prompt="", seed=seed, steps=2, guidance=7.5,
        width=64, height=64, scheduler="DDIMScheduler", scheduler_config="{}", dtype="float32",
    )  # fmt: skip


def make_plan(
    erasers: Sequence[str] = ("none", "cure", "uce"), tasks: Sequence[str] = ("church", "gas pump"), prompts: int = 5
) -> pd.DataFrame:
    """A plan as a run makes it: every eraser and task with the same prompts, images of ``none`` shared by all tasks."""
    rows = []
    for eraser in erasers:
        for task in tasks:
            edit = "" if eraser == "none" else hashlib.sha256(f"{eraser} {task}".encode()).hexdigest()[:32]
            for label in (*OBJECTS, ""):
                for i in range(prompts):
                    prompt = f"photo {i} of a {label}" if label else f"photo {i} of a street"
                    seed = 100 * len(label) + i
                    rows.append(
                        {
                            "eraser": eraser, "task": task, "task_kind": "object", "kind": "object" if label else "",
                            "role": "erase" if label == task else "retain" if label else "general",
                            "prompt_id": f"{label}-{i}", "prompt": prompt, "label": label, "seed": seed,
                            "key": recipe(prompt, seed, edit).key, "original_key": recipe(prompt, seed, "").key,
                            "guidance": 7.5, "edit_key": edit,
                        }
                    )  # fmt: skip
    return pd.DataFrame(rows)


def make_scores(plan: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Scores of a perfect eraser ``cure``; every other one changes nothing but the text match."""
    images = plan.drop_duplicates("key").reset_index(drop=True)
    gone = (images.eraser == "cure") & (images.role == "erase")
    match = np.random.default_rng(0).uniform(0.25, 0.35, len(images))
    edited = images[images.key != images.original_key]
    return {
        "classifier@1": pd.DataFrame({"key": images.key, "answer": images.label.where(~gone, "nothing")}),
        "text_match@2-a_b": pd.DataFrame({"key": images.key, "prompt": images.prompt, "value": match}),
        "change@1": pd.DataFrame({"key": edited.key, "original_key": edited.original_key, "value": 0.5}),
    }


def make_costs(plan: pd.DataFrame) -> pd.DataFrame:
    edits = plan[plan.eraser != "none"].drop_duplicates(["eraser", "task_kind", "task"])
    return edits[["eraser", "task_kind", "task"]].assign(edit_seconds=1.5, peak_memory_mb=900.0)


def make_store(root: Path, plan: pd.DataFrame) -> Store:
    """A store with an image for every key of a plan: one colour an image, found by :func:`colour`."""
    store = Store(root)
    for row in plan.drop_duplicates("key").itertuples():
        image = Image.new("RGB", (64, 64), colour(row.key))
        store.put_image(recipe(row.prompt, row.seed, row.edit_key), image, {"seconds": 0.1, "device": "cpu"})
    store.flush()
    return store


def colour(key: str) -> tuple[int, int, int]:
    return int(key[:2], 16), int(key[2:4], 16), int(key[4:6], 16)
