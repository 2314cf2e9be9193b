"""Runs that were measured differently: what keeps them out of one column, and putting them into labelled columns.

Two runs differ if any part of what their captions say differs (model, protocol, prompts), or a metric that both asked
for has another version, which a reference set is part of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from erasebench.errors import UserError
from erasebench.runs.about import About, read_about
from erasebench.runs.manifest import read_manifest
from erasebench.runs.sweep import store_option

METRIC = "metric "
"""How the keys of metrics begin in what :func:`said` returns."""


def said(folder: Path) -> dict[str, str]:
    """All that a run says about how it was measured: its captions' parts, and the version of each metric."""
    about = read_about(folder)
    facts = {**about.facts(), "note": about.note}
    for metric in read_manifest(folder)["metrics"]:
        name, _, version = metric.partition("@")
        facts[METRIC + name] = version
    return facts


def check_same(folders: Sequence[Path]) -> About:
    """What the captions of some runs say, if they agree wherever they speak of the same thing.

    Raises:
        UserError: naming the runs, what differs, and how to see them side by side all the same.
    """
    common: dict[str, str] = {}
    said_by: dict[str, str] = {}
    for folder in folders:
        for key, value in said(folder).items():
            if common.setdefault(key, value) != value:
                what = f"the version or reference set of {key}" if key.startswith(METRIC) else key
                raise UserError(
                    f"runs {said_by[key]} and {folder.name} cannot stand in one table: {what} differs "
                    f"({common[key]} and {value}); for columns of their own: "
                    f"erasebench table {said_by[key]} {folder.name} --allow-mixed{store_option(folder.parent.parent)}"
                )
            said_by.setdefault(key, folder.name)
    abouts = [read_about(folder) for folder in folders]
    prompts = {kind: text for about in abouts for kind, text in about.prompts.items()}
    names = {key: text for about in abouts for key, text in about.names.items()}
    forgot = tuple(dict.fromkeys(eraser for about in abouts for eraser in about.forgot))
    return replace(abouts[0], prompts=prompts, names=names, forgot=forgot)


def alike(folders: Sequence[Path]) -> list[list[Path]]:
    """The runs in groups that may stand in one table each, in their order."""
    return [[folders[number] for number in group] for group in agreeing([said(folder) for folder in folders])]


def agreeing(facts: Sequence[Mapping[str, str]]) -> list[list[int]]:
    """What was measured alike, in groups: the numbers of those that agree wherever two of them speak of the same thing."""
    groups: list[list[int]] = []
    for number, mine in enumerate(facts):
        for group in groups:
            if all(mine[key] == value for other in group for key, value in facts[other].items() if key in mine):
                group.append(number)
                break
        else:
            groups.append([number])
    return groups


def labels(groups: Sequence[Sequence[Path]]) -> list[str]:
    """A short name for each group, made of what tells it from the others: ``default v1``."""
    whole = [{key: value for folder in group for key, value in said(folder).items()} for group in groups]
    keys = [key for key in dict.fromkeys(key for one in whole for key in one) if key != "note"]
    telling = [key for key in keys if len({one.get(key) for one in whole}) > 1]
    telling.sort(key=lambda key: (key != "protocol", key != "model", key.startswith(METRIC)))
    abouts = {folder: read_about(folder) for group in groups for folder in group}

    def short(key: str, group: Sequence[Path]) -> str:
        """What a group says of one thing in a few words; nothing if it does not speak of it."""
        if key.startswith(METRIC):
            versions = [version for folder in group if (version := said(folder).get(key))]
            return f"{key.removeprefix(METRIC)}@{versions[-1]}" if versions else ""
        return next((abouts[folder].name(key) for folder in group if key in abouts[folder].facts()), "")

    names = [""] * len(groups)
    for key in telling:
        names = [", ".join(filter(None, [name, short(key, group)])) for name, group in zip(names, groups, strict=True)]
        if len(set(names)) == len(names):
            return names
    return [f"{name or 'group'} {letter}" for name, letter in zip(names, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", strict=False)]


def labelled(measured: pd.DataFrame, label: str) -> pd.DataFrame:
    """A tidy table whose metrics carry a label, so that each has columns of its own: ``judge [default v1]@2``."""

    def rename(metric: str) -> str:
        name, at, version = metric.partition("@")
        return f"{name} [{label}]{at}{version}"

    return measured.assign(metric=measured.metric.map(rename))


def captions(groups: Sequence[About], names: Sequence[str]) -> About:
    """One caption for several groups: what they agree in once, the rest with each group's label."""

    def merged(texts: Sequence[str]) -> str:
        if len(set(texts)) == 1:
            return texts[0]
        return "; ".join(f"[{name}] {text}" for name, text in zip(names, texts, strict=True) if text)

    kinds = dict.fromkeys(kind for about in groups for kind in about.prompts)
    embedded = all(about.embedded for about in groups)
    # Where only some groups are of the embedded model, the sentence stands beside their model.
    models = [about.model if embedded else f"{about.model}. {about.note}".rstrip(". ") for about in groups]
    return About(
        merged(models),
        merged([about.protocol for about in groups]),
        {kind: merged([about.prompts.get(kind, "") for about in groups]) for kind in kinds},
        embedded,
        forgot=tuple(dict.fromkeys(eraser for about in groups for eraser in about.forgot)),
    )


def _check_comparable(plan: pd.DataFrame) -> None:
    """Refuse erasers that were not measured on the same tasks and prompts, and one label for two edits or images.

    Raises:
        UserError: naming the erasers and what differs.
    """
    for (eraser, _, task), part in plan.groupby(["eraser", "task_kind", "task"], sort=False):
        if part.edit_key.nunique() > 1:
            raise UserError(
                f"{eraser} erased {task} in two ways (another retain list, anchor or phrases of the task, or another "
                "eraser of that name); tabulate these runs apart"
            )
        if part.duplicated("prompt_id").any():
            raise UserError(
                f"{eraser} drew prompt {part.prompt_id[part.duplicated('prompt_id')].iloc[0]} with {task} erased in two "
                "ways (another size, negative prompt or scheduler setting); tabulate these runs apart"
            )
    for (kind, _), part in plan.groupby(["task_kind", "attack"], sort=False):
        by_eraser = {
            eraser: set(zip(rows.task, rows.prompt_id, rows.role, rows.original_key, strict=True))
            for eraser, rows in part.groupby("eraser", sort=False)
        }
        every = set().union(*by_eraser.values())
        for eraser, rows in by_eraser.items():
            if every - rows:
                task, prompt_id, role, _ = min(every - rows)
                raise UserError(
                    f"the runs cannot stand in one table: {eraser} was not measured on all prompts of kind {kind} that "
                    f"others were ({len(every - rows)} lacking, e.g. {prompt_id} with {task} erased, to {role}); "
                    "give the runs the same tasks and prompts"
                )
