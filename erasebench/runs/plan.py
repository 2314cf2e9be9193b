"""Check a config and plan a run: which images, made by which edits, scored by which metrics.

Everything here happens before any work. What cannot be right is refused; what cannot be measured is said.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from erasebench.concepts import ErasureTask
from erasebench.config.build import build, places
from erasebench.config.compose import check_texts
from erasebench.config.protocol import Protocol
from erasebench.config.settings import ModelSettings
from erasebench.edits.attack import Attack
from erasebench.edits.eraser import Eraser
from erasebench.edits.label import UNEDITED, Label, label_of
from erasebench.edits.released import check_lists, label_as_released
from erasebench.errors import UserError
from erasebench.files import check_place
from erasebench.images.batch_size import AUTO
from erasebench.images.recipes import recipe_maker, source_maker
from erasebench.models.load import Model, find_device, find_dtype
from erasebench.prompts.choose import from_config as prompt_set
from erasebench.prompts.prompt_set import PromptSet
from erasebench.recipe import GENERATOR_VERSION, Recipe
from erasebench.runs.attacks import Search, attacked_rows
from erasebench.runs.coverage import nothing_to_measure
from erasebench.runs.tasks import TaskGroup, task_groups, withheld
from erasebench.runs.tracking import check_tracking
from erasebench.scores.metric import Metric
from erasebench.store import Store

UNEDITED_NODE = {"_target_": "erasebench.methods.controls.none.Unedited"}
"""The unedited model is in every run, asked for or not."""

NOT_IDENTITY = ("device", "batch_size", "dry_run", "part", "store", "name", "plugins", "scale", "lists", "tracking")
"""Keys of the config that do not change what a run measures."""


@dataclass(frozen=True)
class Share:
    """The part of a run's images that one process is to make: ``3/16`` is the third of sixteen."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Share:
        """A share as it is written; none is the whole.

        Raises:
            UserError: it is not of that form.
        """
        if text is None:
            return cls()
        parts = re.fullmatch(r"(\d{1,6})/(\d{1,6})", str(text))
        if not parts or not 1 <= int(parts[1]) <= int(parts[2]):
            raise UserError(f"part={text}: write which part of how many, from part=1/16 to part=16/16")
        return cls(int(parts[1]), int(parts[2]))

    def takes(self, index: int) -> bool:
        """Whether a piece of work belongs to it."""
        return index % self.of == self.number - 1


@dataclass(frozen=True)
class Prepared:
    """A checked config as values: every part built, nothing done yet.

    Attributes:
        protocol: how images are sampled.
        model: which model, under the name that tables give it.
        groups: by kind, the tasks and the prompts that they are measured on.
        erasers: by the labels of their rows, the unedited model first.
        attacks: by their labels; none unless asked for.
        labels: the same labels as values.
        nodes: what the config says of each eraser, by its label.
        metrics: all that were asked for.
        store: where everything is kept.
        not_run: by the ids of metrics that cannot run here, why.
        left_out: by eraser and kind, why it is not run on the tasks of that kind. It is no longer among ``erasers`` where that
            holds for all kinds.
        device: as :func:`erasebench.models.load.find_device` gives it.
        dtype: the type to load weights in, or ``auto``.
        batch_size: images a batch, or ``auto``.
        dry_run: only say what would be done.
        experiment: the node of the experiment, if it is a run of one; it says which published numbers stand beside.
        name: of the run, if it was given one.
        share: the part of the images that this process is to make.
        tracking: who is told of the run beside, see :mod:`erasebench.runs.tracking`.
        config: the whole config, resolved: written down and hashed, and read by nobody.
        revision: of the model's weights, once it is loaded: a folder or file may change behind its name.
    """

    protocol: Protocol
    model: ModelSettings
    groups: Mapping[str, tuple[TaskGroup, PromptSet]]
    erasers: Mapping[str, Eraser]
    attacks: Mapping[str, Attack]
    labels: Mapping[str, Label]
    nodes: Mapping[str, Mapping[str, Any]]
    metrics: list[Metric]
    store: Store
    not_run: Mapping[str, str]
    left_out: Mapping[tuple[str, str], str]
    device: str
    dtype: str
    batch_size: int | str
    dry_run: bool
    experiment: Mapping[str, Any]
    name: str | None
    share: Share
    tracking: str
    config: Mapping[str, Any]
    revision: str = ""

    @cached_property
    def hash(self) -> str:
        """Hash of what is measured (not of where or how fast), 12 hex digits.

        It also knows in which version: whatever makes other images, edits or numbers of the same config makes another
        run of it, beside the one before.
        """
        values = {key: value for key, value in self.config.items() if key not in NOT_IDENTITY}
        values["metric"] = {
            name: {key: value for key, value in node.items() if key not in ("device", "batch_size")}
            for name, node in values["metric"].items()
        }
        if not self.protocol.editing:  # a run that draws its images is called as before there was editing
            values["protocol"] = {key: value for key, value in values["protocol"].items() if key != "editing"}
        # The experiment decides which published table the run has; its texts do not.
        values["experiment"] = self.experiment.get("name")
        # A prompt file may change behind its name, and the type follows the device where it is "auto".
        values["prompt_sets"] = {kind: prompts.hash for kind, (_, prompts) in self.groups.items()}
        values["dtype"] = find_dtype(self.dtype, self.device)
        values["revision"] = self.revision
        values["versions"] = {
            "generator": GENERATOR_VERSION,
            "edits": [eraser.key("", task) for _, eraser, _, task in self.edits()],
            # Behind the number stands which weights this machine has, and they may come later.
            "metrics": [f"{metric.name}@{metric.rule_version}" for metric in self.metrics],
        }
        if self.attacks:
            values["versions"]["attacks"] = [f"{attack.name}@{attack.version}" for attack in self.attacks.values()]
        else:  # a run that attacks nothing is called as before there were attacks
            del values["attack"]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def run_name(self) -> str:
        """The name given, or one made of the kinds, the model, the erasers and the hash."""
        if self.name:
            return self.name
        erasers = (name for name in self.erasers if name != UNEDITED)
        names = "-".join([*self.groups, self.model.name, *erasers, *self.attacks])
        return f"{re.sub(r'[^A-Za-z0-9.]+', '-', names)[:60].strip('-')}-{self.hash}"

    @property
    def judge(self) -> Metric | None:
        """The metric that judged attacks ask: the first that recognises and is for a kind of this run, whether it can run here
        or not: what a run is may not hang on the machine."""
        return next(
            (
                metric
                for metric in self.metrics
                if metric.recognises and (not metric.kinds or set(metric.kinds) & set(self.groups))
            ),
            None,
        )

    def edits(self) -> Iterator[tuple[str, Eraser, str, ErasureTask]]:
        """Every (eraser label, eraser, kind, task) of the run, the unedited model first."""
        for label, eraser in self.erasers.items():
            for kind, (group, _) in self.groups.items():
                if (label, kind) not in self.left_out:
                    for task in group.tasks:
                        yield label, eraser, kind, task


def prepare(config: DictConfig) -> Prepared:
    """Build and check every part of a config, the cheap parts first.

    Raises:
        UserError: whatever is wrong, named with its place and cure.
    """
    check_texts(config)
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    if config.batch_size != AUTO and (type(config.batch_size) is not int or config.batch_size < 1):
        raise UserError(f"batch_size={config.batch_size}: must be 1 or more, or {AUTO}")
    protocol = Protocol.from_config(config.protocol)
    protocol.check()
    share = Share.parse(config.part)
    check_tracking(config.tracking)
    device = find_device(config.device)
    find_dtype(config.dtype, device)  # refuses one that there is not, before prompts are read
    if config.name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}", config.name):
        raise UserError(
            f"name={config.name}: a run's name is made of letters, digits, '.', '_' and '-', at most 121 of them, and "
            "starts with a letter or digit"
        )
    groups = {}
    for kind, group in task_groups(config).items():
        prompts = replace(prompt_set(config.prompts, kind, group.concepts), near=group.near)
        groups[kind] = (withheld(group, prompts.held_out), prompts)
    store = Store(config.store.dir, mends=not config.dry_run)
    if config.dry_run:  # which writes nothing, so that it works on results that are read-only
        check_place(store.root)
    else:
        store.check_writable()
    plugins = tuple(config.plugins)
    erasers: dict[str, Eraser] = {}
    labels: dict[str, Label] = {}
    nodes: dict[str, Mapping[str, Any]] = {}
    for place, node in (places(plain["method"], "method", "_target_") | {"": UNEDITED_NODE}).items():
        if config.scale == "full":
            check_lists(node, place)
        eraser = build(node, place, Eraser, plugins)
        # A name with two underscores is one of several of an eraser: cure__1 and cure__2 are cure at two settings.
        label = label_of(place.split(".")[1].split("__")[0] if "." in place else eraser.name, eraser)
        label = label_as_released(label, node)
        if label.text in erasers:
            if not place:  # the unedited model was asked for by name
                continue
            raise UserError(f"{place}: a second eraser called {label.text!r}; give it another key")
        if label.text == UNEDITED and eraser.name != UNEDITED:
            raise UserError(f"{place}: {UNEDITED!r} is the unedited model; give eraser {eraser.name} another key")
        erasers[label.text], labels[label.text], nodes[label.text] = eraser, label, node
    left_out = _left_out(erasers, groups)
    for name in [name for name in erasers if all((name, kind) in left_out for kind in groups)]:
        del erasers[name], labels[name], nodes[name]
    erasers = {UNEDITED: erasers.pop(UNEDITED), **erasers}
    attacks: dict[str, Attack] = {}
    for key, node in config.attack.items():
        attack = build(node, f"attack.{key}", Attack, plugins)
        name = label_of(key.split("__")[0], attack).text
        if name in attacks:
            raise UserError(f"attack.{key}: a second attack called {name!r}; give it another key")
        attacks[name] = attack
    if attacks and protocol.editing:
        raise UserError(
            f"attack {next(iter(attacks))}: looks for what to draw an image from, and protocol {protocol.name} edits images "
            "that are there; use attack=none or a protocol without editing"
        )
    metrics = [build(node, f"metric.{name}", Metric, plugins) for name, node in config.metric.items()]
    unavailable = {metric.id: reason for metric in metrics if (reason := metric.unavailable())}
    not_run = unavailable | nothing_to_measure(metrics, groups, edited=len(erasers) > 1, attacked=bool(attacks))
    return Prepared(
        protocol=protocol,
        model=ModelSettings(**plain["model"]),
        groups=groups,
        erasers=erasers,
        attacks=attacks,
        labels=labels,
        nodes=nodes,
        metrics=metrics,
        store=store,
        not_run=not_run,
        left_out=left_out,
        device=device,
        dtype=protocol.weights_dtype(config.dtype, device),
        batch_size=config.batch_size,
        dry_run=config.dry_run,
        experiment=plain.get("experiment") or {},
        name=config.name,
        share=share,
        tracking=config.tracking,
        config={str(key): value for key, value in plain.items()},
    )


def _left_out(
    erasers: Mapping[str, Eraser], groups: Mapping[str, tuple[TaskGroup, PromptSet]]
) -> dict[tuple[str, str], str]:
    """By eraser and kind, why it is left out: a table of a kind has all of its tasks, so one that is absent leaves out all."""
    reasons = {}
    for label, eraser in erasers.items():
        for kind, (group, _) in groups.items():
            if absent := [why for task in group.tasks if (why := eraser.absent(task))]:
                reasons[label, kind] = "; ".join(absent)
    return reasons


@dataclass(frozen=True)
class Plan:
    """What a run consists of.

    Attributes:
        rows: one row an (eraser, attack, task, prompt), with the keys of its image, its original and its edit. ``kind``
            is that of the concept a prompt asks for, ``task_kind`` that of the task it is measured for, ``targets`` the
            names of all concepts that the task erases. ``attack`` is the label of the attack (``""``: none),
            ``attack_key`` that of what it finds, ``clean_key`` the image of the same edit without an attack.
        recipes: the recipe of every distinct image.
        searches: by attack key, what the attacks have to find.
    """

    rows: pd.DataFrame
    recipes: dict[str, Recipe]
    searches: dict[str, Search]

    def keys(self, eraser: str, task: str, kind: str) -> list[str]:
        """The distinct image keys of one edit."""
        rows = self.rows
        chosen = rows[(rows.eraser == eraser) & (rows.task == task) & (rows.task_kind == kind)]
        return list(dict.fromkeys(chosen.key))


def make_plan(prepared: Prepared, model: Model) -> Plan:
    """Turn a checked config into rows and recipes for a loaded model."""
    protocol = prepared.protocol
    recipe_of, source_of = recipe_maker(model, protocol), source_maker(model, protocol)
    recipes: dict[str, Recipe] = {}
    searches: dict[str, Search] = {}
    judge = prepared.judge.id if prepared.judge else ""
    frames = []

    def recipe_key(row: Any, edit: str) -> str:
        recipe = recipe_of(row, edit)
        if recipe.source and recipe.source not in recipes:
            recipes[recipe.source] = source_of(row._replace(prompt=row.source_prompt), "")
        recipes.setdefault(recipe.key, recipe)
        return recipe.key

    for label, eraser, kind, task in prepared.edits():
        _, prompts = prepared.groups[kind]
        rows = drawn(prompts.for_task(task), protocol)
        edit = eraser.key(model.identity, task)
        original = [recipe_key(row, "") for row in rows.itertuples()]
        keys = [recipe_key(row, edit) for row in rows.itertuples()] if edit else original
        clean = rows.assign(
            eraser=label,
            task=task.label,
            targets=[list(task.names)] * len(rows),
            task_kind=kind,
            edit_key=edit,
            original_key=original,
            key=keys,
            attack="",
            attack_key="",
            clean_key=keys,
        )
        frames += [clean, *attacked_rows(clean, task, prepared.attacks, model.identity, judge, recipes, searches)]
    return Plan(pd.concat(frames, ignore_index=True), recipes, searches)


def drawn(rows: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """The rows of a prompt set, once for every seed that the protocol draws a prompt with, and for every editing prompt.

    Where a protocol edits, ``prompt`` is what an image is edited by, and ``source_prompt`` what it was drawn for.
    """
    if protocol.seeds is not None or protocol.images_per_prompt > 1:
        rows = rows.assign(seed=[protocol.seeds_of(int(seed)) for seed in rows.seed])
        rows = _one_by_one(rows, "seed").astype({"seed": "int64"})
    editing = protocol.editor
    if editing is None:
        return rows
    phrases = [
        [editing.phrase(prompt, row.label, row.prompt_id) for prompt in editing.prompts] for row in rows.itertuples()
    ]
    return _one_by_one(rows.assign(source_prompt=rows.prompt, prompt=phrases), "prompt")


def _one_by_one(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """A row for each value of a column of lists; the numbers of prompts say which."""
    rows = rows.explode(column, ignore_index=True)
    numbers = rows.groupby("prompt_id", sort=False).cumcount().astype(str)
    return rows.assign(prompt_id=rows.prompt_id + "/" + numbers)
