"""A finished run in a store of its own, with images, edits and unfriendly names, for the tests of the report."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image
from table_helpers import METRICS, PLUGINS, colour, labels_of, make_plan, make_scores, make_store, quiet, recipe

from erasebench.edits.eraser import Edit
from erasebench.edits.found import Found
from erasebench.edits.label import row_text
from erasebench.recipe import Recipe
from erasebench.report.write import write_report
from erasebench.runs.about import About
from erasebench.runs.folder import write_erasers, write_metrics, write_plan
from erasebench.store import Store

ABOUT = About(
    model="small (0123456789ab, float32)",
    protocol="default v1 (DDIMScheduler, 20 steps, guidance 7.5)",
    prompts={"object": "mine-object v1 (deadbeef)"},
    names={"model": "small", "protocol": "default v1"},
)
SCRIPT = "</script><script>document.title = 'owned'</script>"
QUOTES = "\"><img src=x onerror=\"document.title='owned'\"> it's 100 % & more"
TASK = "church <b>\"'&"


def plan_of(erasers: tuple[str, ...] = ("none", "cure", "uce"), prompts: int = 4) -> pd.DataFrame:
    """The plan of the table tests with unsafe prompts beside it."""
    plan = make_plan(erasers, prompts=prompts)
    unsafe = make_plan(erasers, ("church",), prompts).assign(task_kind="unsafe")
    unsafe = unsafe[unsafe.role != "general"].assign(kind="unsafe", edit_key=unsafe.edit_key.str[::-1])
    return renamed(pd.concat([plan, unsafe], ignore_index=True))


def renamed(plan: pd.DataFrame) -> pd.DataFrame:
    """The plan with HTML, quotes and a script in prompts and in the name of a task; keys are made again."""
    plan = plan.copy()
    plan.loc[plan.prompt_id == "church-0", "prompt"] = SCRIPT
    plan.loc[plan.prompt_id == "tench-0", "prompt"] = QUOTES
    plan["label"] = plan.label.replace({"church": TASK})
    plan["task"] = plan.task.replace({"church": TASK})
    rows = list(zip(plan.prompt, plan.seed, plan.edit_key, strict=True))
    plan["key"] = [recipe(*row).key for row in rows]
    plan["original_key"] = [recipe(prompt, seed, "").key for prompt, seed, _ in rows]
    return plan


def finish(
    store: Store,
    name: str,
    plan: pd.DataFrame,
    *,
    scored: bool = True,
    about: About | None = None,
    source: str = "some/model",
    planned: bool = True,
    config: dict[str, Any] | None = None,
) -> Path:
    """The folder of a run as ``erasebench run`` leaves it, with its scores and the notes of its edits."""
    folder = store.run_folder(name)
    nodes = {name: node_of(name) for name in ("cure", "uce")}
    config = (config or {}) | {"metric": {}, "method": nodes}
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    manifest = {
        "command": ["erasebench run", f"name={name}", "task.erase=[church, gas pump]"],
        "config_hash": "0123456789ab",
        "started": "2026-01-01T00:00:00+00:00",
        "model": {"name": "small", "source": source, "revision": "r", "family": "sd1"},
        "metrics": {metric.id: {"needs": ["weights"], "not_run": None} for metric in METRICS},
        "packages": {"torch": "2.13.0"},
    }
    labels = labels_of(plan.eraser)
    write_erasers(folder, labels, {text: node_of(label.name) for text, label in labels.items()})
    write_metrics(folder, METRICS)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    if planned:
        write_plan(folder, plan, about or ABOUT)
    if scored:
        for metric, scores in make_scores(plan).items():
            store.put_scores(metric, scores)
    for row in plan[plan.edit_key != ""].drop_duplicates("edit_key").itertuples():
        store.put_edit(row.edit_key, Edit({}, notes(row.eraser, row.task)))
    return folder


def node_of(name: str) -> dict[str, Any]:
    """What a config says of an eraser."""
    return {"_target_": f"erasebench.methods.closed_form.{name}.{name.title()}"}


def notes(method: str, task: str) -> dict[str, Any]:
    """The notes of an edit as a run leaves them."""
    return {
        "method": method, "version": "1", "settings": {"alpha": 2.0, "retain": None}, "task": {"label": task},
        "seconds": 0.25, "weights": 2, "rank": 3, "share": 0.028, "rounding": 0.0, "moved": {"target": 1.0},
        "norms": {f"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.{part}.weight": 1.5 for part in ("to_k", "to_v")},
        "energies": {"forget": [[0.75, 0.25]]}, "warnings": ["the anchor <i> is empty"], "anchor": "art & co",
    }  # fmt: skip


def make_run(root: Path, name: str = "one", **options: Any) -> Store:
    """A store with one finished run and all of its images."""
    plan = options.pop("plan", None)
    plan = plan_of() if plan is None else plan
    make_store(root, plan.drop_duplicates("key"))
    store = Store(root)
    finish(store, name, plan, **options)
    return store


RING = "ab" * 16


def attacked_recipe(row: Any) -> Recipe:
    return replace(recipe(row.prompt, row.seed, row.edit_key), attack=RING)


def attacked(plan: pd.DataFrame) -> pd.DataFrame:
    """The plan with an attack on every edit; ``cure`` alone lets nothing through without it, and all with it."""
    parts = []
    for _, rows in plan.groupby("eraser", sort=False):
        hit = rows[rows.role == "erase"]
        keys = [attacked_recipe(row).key for row in hit.itertuples()]
        labels = [row_text(eraser, "ring") for eraser in hit.eraser]
        parts += [rows, hit.assign(eraser=labels, attack="ring", attack_key=RING, clean_key=hit.key, key=keys)]
    return pd.concat(parts, ignore_index=True)


def write_attacked(root: Path, plan: pd.DataFrame, **options: Any) -> Path:
    """The report of a run with an attack; options are those of :func:`finish`."""
    store = make_run(root, plan=plan, **options)
    for row in plan[plan.attack == "ring"].drop_duplicates("key").itertuples():
        store.put_image(
            attacked_recipe(row), Image.new("RGB", (64, 64), colour(row.key)), {"seconds": 0.1, "device": "cpu"}
        )
    store.flush()
    store.put_attack(RING, Found(prompt=SCRIPT + " tilted"))
    with pytest.MonkeyPatch.context() as patch:  # figures and grids take most of the time
        patch.setattr("erasebench.report.kinds._draw", lambda *arguments: [])
        patch.setattr("erasebench.report.kinds._grid", lambda *arguments: "")
        return write_report(["one"], str(root), console=quiet(), plugins=PLUGINS)


class Page(HTMLParser):
    """Links, sources, tags and texts of a page; scripts are told from texts."""

    VOID = {"meta", "link", "img", "br", "input", "wbr", "path", "use", "line"}

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        given = dict(attributes)
        self.links += [given[name] for name in ("href", "src", "xlink:href") if name in given]
        self.ids += [given["id"]] if "id" in given else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())
