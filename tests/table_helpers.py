"""A small plan, made-up metrics and their scores, for the tests of tables and pictures."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from PIL import Image
from rich.console import Console

from erasebench.edits.label import Label, row_text
from erasebench.recipe import Recipe
from erasebench.runs.about import About
from erasebench.runs.costs import COST_COLUMNS
from erasebench.runs.folder import write_erasers, write_metrics, write_plan
from erasebench.scores.metric import Metric
from erasebench.store import Store
from erasebench.tables import tabulate as tables
from erasebench.tables.measure import MEASURED_COLUMNS

PLUGINS = ("table_helpers",)
"""What a user of these metrics must name: a stored config does not say what may be imported."""

POINTS = {"none": (0.95, 0.97), "cure alpha=1": (0.6, 0.95), "cure alpha=2": (0.3, 0.93), "cure alpha=5": (0.1, 0.7),
          "cure alpha=10": (0.2, 0.4)}  # fmt: skip
"""Erased and retained."""

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

    name, version, paired_with = "change", "1", "original_key"
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
                            "guidance": 7.5, "edit_key": edit, "attack": "", "attack_key": "",
                            "clean_key": recipe(prompt, seed, edit).key,
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
    known = edits[["eraser", "task_kind", "task"]].assign(edit_seconds=1.5, peak_memory_mb=900.0, machine="cuda A")
    return known.reindex(columns=list(COST_COLUMNS))


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


ABOUT = About(
    model="embedded (0123456789ab, float32)",
    protocol="embedded v1 (DDIMScheduler, 20 steps, guidance 4)",
    prompts={"object": "builtin-object v1 (deadbeef)"},
    embedded=True,
)


def finish(
    store: Store,
    name: str,
    plan: pd.DataFrame,
    *,
    about: About | None = None,
    not_run: dict[str, str] | None = None,
    planned: bool = True,
    scored: bool = True,
    labels: dict[str, Label] | None = None,
) -> Path:
    """The folder of a run as ``erasebench run`` leaves it; the images are not needed."""
    folder = store.run_folder(name)
    config = {"metric": {}, "method": {"_target_": "some.Eraser"}}
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    manifest = {
        "command": ["erasebench run", "task.erase=[church, gas pump]"],
        "metrics": {id: {"not_run": (not_run or {}).get(id)} for id in [metric.id for metric in METRICS]},
    }
    labels = labels or labels_of(plan.eraser)
    write_erasers(folder, labels, {text: {"_target_": f"some.{label.name}"} for text, label in labels.items()})
    write_metrics(folder, METRICS)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    if planned:
        for metric, scores in make_scores(plan).items():
            if scored and metric not in (not_run or {}):
                store.put_scores(metric, scores)
        write_plan(folder, plan, about or ABOUT)
        make_costs(plan).to_parquet(folder / "costs.parquet")  # as runs of earlier versions have it
    return folder


def tabulate(*arguments: Any, **options: Any) -> pd.DataFrame:
    """``erasebench table`` as a user gives it who has written these metrics: ``--plugins table_helpers``."""
    return tables.tabulate(*arguments, **{"plugins": PLUGINS} | options)


def tabulate_sweep(*arguments: Any, **options: Any) -> pd.DataFrame | None:
    """The same for a sweep."""
    return tables.tabulate_sweep(*arguments, **{"plugins": PLUGINS} | options)


def label(text: str) -> Label:
    """The label whose text is ``cure alpha=1 rule=mean``; a test may read it back, the product never does."""

    def value(word: str) -> int | float | str:
        for kind in (int, float):
            try:
                return kind(word)
            except ValueError:
                continue
        return word

    if " + " in text:  # an eraser under an attack
        return Label(text)
    name, *options = text.split()
    made = Label(name, {key: value(word) for key, _, word in (option.partition("=") for option in options)})
    assert made.text == text
    return made


def labels_of(erasers: Iterable[str]) -> dict[str, Label]:
    """Labels by their texts."""
    return {text: label(text) for text in dict.fromkeys(erasers)}


def quiet() -> Console:
    return Console(file=io.StringIO(), width=100)


def printed(console: Console) -> str:
    return " ".join(console.file.getvalue().split())


def table(points: dict[str, tuple[float, float]] = POINTS, kind: str = "object", half: float = 0.02) -> pd.DataFrame:
    """A tidy table with an accuracy, a score and a cost."""
    rows = []
    for number, (eraser, (erased, retained)) in enumerate(points.items()):
        cells = [
            ("erase", "judge@2", "%", "down", erased),
            ("retain", "judge@2", "%", "up", retained),
            ("both", "H judge@2", "%", "up", retained - erased),
            ("general", "clip_score_uce@1", "", "up", 31 - number),
            ("cost", "edit_seconds", "", "down", math.nan if eraser == "none" else 5.0 - number),
        ]
        for role, metric, unit, direction, value in cells:
            rows.append(
                {
                    "task_kind": kind, "eraser": eraser, "task": "all", "role": role, "metric": metric, "unit": unit,
                    "direction": direction, "value": value, "low": value - half, "high": value + half, "n": 20,
                    "how": "wilson", "difference": math.nan, "difference_low": math.nan, "difference_high": math.nan,
                    "reason": "", "attack": "",
                }
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(MEASURED_COLUMNS))


def attacked_plan(attacks: tuple[str, ...] = ("ring",), prompts: int = 5) -> pd.DataFrame:
    """A plan with attacks on every edit, the attacked rows behind the clean ones of their edit, as a run makes it."""
    clean, parts = make_plan(prompts=prompts), []
    for _, rows in clean.groupby("eraser", sort=False):
        parts.append(rows)
        for attack in attacks:
            hit = rows[rows.role == "erase"]
            keys = [recipe(f"{attack}: {row.prompt}", row.seed, row.edit_key).key for row in hit.itertuples()]
            parts.append(
                hit.assign(
                    eraser=[row_text(eraser, attack) for eraser in hit.eraser],
                    attack=attack, attack_key="aa" * 16, clean_key=hit.key, key=keys,
                )
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def attacked_scores(plan: pd.DataFrame, brought_back: int) -> dict[str, pd.DataFrame]:
    """As :func:`make_scores`: ``cure`` is perfect, but of each task's attacked images so many show the concept."""
    scores = make_scores(plan)
    hit = plan[plan.eraser == "cure + ring"]
    missed = hit[hit.groupby("task").cumcount() >= brought_back].key
    table = scores["classifier@1"]
    scores["classifier@1"] = table.assign(answer=table.answer.where(~table.key.isin(missed), "nothing"))
    return scores
