"""Check a config and plan a run: which images, made by which edits, scored by which metrics.

Everything here happens before any work. What cannot be right is refused; what cannot be measured is said.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from erasebench.concepts import ErasureTask
from erasebench.config.build import build, places
from erasebench.config.protocol import check as check_protocol
from erasebench.config.protocol import dtype_of, rng_of, seeds_of
from erasebench.edits.eraser import Eraser
from erasebench.edits.label import UNEDITED, eraser_label
from erasebench.errors import UserError
from erasebench.images.scheduler import scheduler_identity
from erasebench.models.load import Model, find_device, find_dtype
from erasebench.prompts.choose import from_config as prompt_set
from erasebench.prompts.prompt_set import PromptSet
from erasebench.recipe import Recipe
from erasebench.runs.tasks import TaskGroup, task_groups
from erasebench.scores.metric import Metric
from erasebench.store import Store

NOT_IDENTITY = ("device", "batch_size", "dry_run", "store", "name", "plugins", "experiment", "scale")
"""Keys of the config that do not change what a run measures."""


@dataclass
class Prepared:
    """A checked config: every part built, nothing done yet."""

    config: DictConfig
    groups: dict[str, tuple[TaskGroup, PromptSet]]
    erasers: dict[str, Eraser]
    metrics: list[Metric]
    store: Store
    not_run: dict[str, str] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """Hash of what the config measures (not of where or how fast), 12 hex digits."""
        values = OmegaConf.to_container(self.config, resolve=True)
        values = {key: value for key, value in values.items() if key not in NOT_IDENTITY}
        values["metric"] = {
            name: {key: value for key, value in node.items() if key not in ("device", "batch_size")}
            for name, node in values["metric"].items()
        }
        # A prompt file may change behind its name, and the type follows the device where it is "auto".
        values["prompt_sets"] = {kind: prompts.hash for kind, (_, prompts) in self.groups.items()}
        values["dtype"] = find_dtype(self.dtype, find_device(self.config.device))
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def dtype(self) -> str:
        """The type to load weights in, or ``auto``: what was asked for, else the protocol's."""
        return dtype_of(self.config.dtype, self.config.protocol, find_device(self.config.device))

    @property
    def run_name(self) -> str:
        """The name given, or one made of the kinds, the model, the erasers and the hash."""
        if self.config.name:
            return self.config.name
        names = "-".join([*self.groups, self.config.model.name, *(name for name in self.erasers if name != UNEDITED)])
        return f"{re.sub(r'[^A-Za-z0-9.]+', '-', names)[:60].strip('-')}-{self.hash}"

    def edits(self) -> Iterator[tuple[str, Eraser, str, ErasureTask]]:
        """Every (eraser label, eraser, kind, task) of the run, the unedited model first."""
        for label, eraser in self.erasers.items():
            for kind, (group, _) in self.groups.items():
                for task in group.tasks:
                    yield label, eraser, kind, task


def prepare(config: DictConfig) -> Prepared:
    """Build and check every part of a config, the cheap parts first.

    Raises:
        UserError: whatever is wrong, named with its place and cure.
    """
    if config.batch_size < 1:
        raise UserError(f"batch_size={config.batch_size}: must be 1 or more")
    check_protocol(config.protocol)
    if config.name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}", config.name):
        raise UserError(
            f"name={config.name}: a run's name is made of letters, digits, '.', '_' and '-', at most 121 of them, and "
            "starts with a letter or digit"
        )
    groups = {
        kind: (group, prompt_set(config.prompts, kind, group.concepts)) for kind, group in task_groups(config).items()
    }
    store = Store(config.store.dir, mends=not config.dry_run)
    store.check_writable()
    plugins = tuple(config.plugins)
    erasers: dict[str, Eraser] = {}
    nodes = places(config.method, "method", "_target_")
    for place, node in nodes.items():
        eraser = build(node, place, plugins)
        # A name with two underscores is one of several of an eraser: cure__1 and cure__2 are cure at two settings.
        label = eraser_label(place.split(".")[1].split("__")[0] if "." in place else eraser.name, eraser)
        if label in erasers:
            raise UserError(f"{place}: a second eraser called {label!r}; give it another key")
        if label == UNEDITED and eraser.name != UNEDITED:
            raise UserError(f"{place}: {UNEDITED!r} is the unedited model; give eraser {eraser.name} another key")
        erasers[label] = eraser
    unedited = erasers.pop(UNEDITED, None) or build({"_target_": "erasebench.methods.controls.none.Unedited"}, "method")
    erasers = {UNEDITED: unedited, **erasers}
    metrics = [build(node, f"metric.{name}", plugins) for name, node in config.metric.items()]
    not_run = {metric.id: reason for metric in metrics if (reason := metric.unavailable())}
    return Prepared(config, groups, erasers, metrics, store, not_run)


@dataclass(frozen=True)
class Plan:
    """What a run consists of.

    Attributes:
        rows: one row an (eraser, task, prompt), with the keys of its image, its original and its edit. ``kind`` is
            that of the concept a prompt asks for, ``task_kind`` that of the task it is measured for, ``targets`` the
            names of all concepts that the task erases.
        recipes: the recipe of every distinct image.
    """

    rows: pd.DataFrame
    recipes: dict[str, Recipe]

    def keys(self, eraser: str, task: str, kind: str) -> list[str]:
        """The distinct image keys of one edit."""
        rows = self.rows
        chosen = rows[(rows.eraser == eraser) & (rows.task == task) & (rows.task_kind == kind)]
        return list(dict.fromkeys(chosen.key))


def make_plan(prepared: Prepared, model: Model) -> Plan:
    """Turn a checked config into rows and recipes for a loaded model."""
    protocol = prepared.config.protocol
    scheduler, scheduler_config = scheduler_identity(
        model.pipe, protocol.scheduler, OmegaConf.to_container(protocol.scheduler_config)
    )
    size, rng = protocol.size or model.size, rng_of(protocol, model.device)
    recipes: dict[str, Recipe] = {}
    frames = []

    def recipe_key(row: Any, edit: str) -> str:
        own_guidance = protocol.prompt_guidance and pd.notna(row.guidance)
        own_size = protocol.prompt_size and pd.notna(row.width) and pd.notna(row.height)
        recipe = Recipe(
            model=model.name,
            revision=model.revision,
            edit=edit,
            prompt=row.prompt,
            negative_prompt=row.negative_prompt or protocol.negative_prompt,
            seed=int(row.seed),
            steps=protocol.steps,
            guidance=float(row.guidance if own_guidance else protocol.guidance),
            width=int(row.width if own_size else size),
            height=int(row.height if own_size else size),
            scheduler=scheduler,
            scheduler_config=scheduler_config,
            dtype=model.dtype,
            rng=rng,
        )
        recipes.setdefault(recipe.key, recipe)
        return recipe.key

    for label, eraser, kind, task in prepared.edits():
        _, prompts = prepared.groups[kind]
        rows = drawn(prompts.for_task(task), protocol)
        edit = eraser.key(model.identity, task)
        original = [recipe_key(row, "") for row in rows.itertuples()]
        frames.append(
            rows.assign(
                eraser=label,
                task=task.label,
                targets=[list(task.names)] * len(rows),
                task_kind=kind,
                edit_key=edit,
                original_key=original,
                key=[recipe_key(row, edit) for row in rows.itertuples()] if edit else original,
            )
        )
    return Plan(pd.concat(frames, ignore_index=True), recipes)


def drawn(rows: pd.DataFrame, protocol: DictConfig) -> pd.DataFrame:
    """The rows of a prompt set, once for every seed that the protocol draws a prompt with."""
    if protocol.seeds is None and protocol.images_per_prompt == 1:
        return rows
    rows = rows.assign(seed=[seeds_of(protocol, int(seed)) for seed in rows.seed]).explode("seed", ignore_index=True)
    prompt_id = rows.prompt_id + "/" + rows.groupby("prompt_id", sort=False).cumcount().astype(str)
    return rows.assign(seed=rows.seed.astype("int64"), prompt_id=prompt_id)
