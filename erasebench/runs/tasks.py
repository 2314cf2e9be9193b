"""The tasks of a run: what each edit erases, what is kept, and the concepts that prompts ask for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from erasebench.concepts import KINDS, Concept, ErasureTask
from erasebench.config.build import places
from erasebench.errors import UserError, suggest

PROMPTS = "prompts"
"""As ``concepts`` and ``erase`` of a task: those that the prompt file names."""


ALL_ERASED = (
    "rohitgandikota/unified-concept-editing@80bb915:data/info/erased-{number}artists-towards_art-preserve_true-sd_1_4-"
    "method_replace.txt"
)
"""The file of UCE that names all artists of a number which it erases."""

MISSPELT = 0.8
"""The ratio of :mod:`difflib` from which a name that a task does not have is one that it has, misspelt ("chruch": 0.83)."""

_NUMBER_ERASED = re.compile(r"erased-(\d+)artists")


@dataclass
class TaskSettings:
    """One node of the task group; see conf/task/object.yaml for what each key means."""

    kind: str
    concepts: list[str]
    erase: list[str]
    joint: bool = False
    anchor: str = ""
    retain: str | list[str] = "others"
    phrases: dict[str, list[str]] = field(default_factory=dict)
    indirect: dict[str, list[str]] = field(default_factory=dict)
    near: dict[str, list[str]] = field(default_factory=dict)
    keep: dict[str, list[str]] = field(default_factory=dict)
    add: str | list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TaskGroup:
    """The tasks of one kind: what is evaluated, and the edits to make.

    Attributes:
        kind: the kind of concept.
        concepts: every concept of the prompt set, the erased ones and those to be kept, with all texts that ask for it.
        tasks: one task an edit.
        near: by the name of a concept, those to be kept that are near it.
    """

    kind: str
    concepts: tuple[Concept, ...]
    tasks: tuple[ErasureTask, ...]
    near: Mapping[str, Sequence[str]] = field(default_factory=dict)


def task_group(node: Mapping[str, Any] | DictConfig, place: str) -> TaskGroup:
    """Build and check the tasks of one kind.

    ``indirect`` and ``near`` may tell of concepts that are not asked for, so that a task can be given fewer or others:
    nothing is taken of these. A name there that is nearly one of the task's is taken for a misspelt one.

    Raises:
        UserError: an unknown key, kind or concept (with the nearest one), a misspelt one, or what :class:`ErasureTask` refuses.
    """
    values: Any = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else dict(node)
    known = [entry.name for entry in fields(TaskSettings)]
    for key in values:
        if key not in known:
            raise UserError(f"{place}.{key}: no such key.{suggest(key, known)}")
    for key, value in values.items():
        _check_type(key, value, place)
    for key in ("kind", "concepts", "erase"):
        if key not in values:
            raise UserError(f"{place}.{key}: not given; choose a task (erasebench list tasks) or give it")
    settings = _with_added(TaskSettings(**values))
    if settings.kind not in KINDS:
        raise UserError(
            f"{place}.kind: {settings.kind!r} is not one of {', '.join(KINDS)}.{suggest(settings.kind, KINDS)}"
        )
    catalogue = {name.casefold(): name for name in settings.concepts}

    def concept(name: str, *more: Mapping[str, list[str]]) -> Concept:
        """A concept with the texts that these keys have for it."""
        texts = [
            text
            for key in more
            for entry, found in key.items()
            if entry.casefold() == name.casefold()
            for text in found
        ]
        return Concept(name, settings.kind, tuple(texts), settings.anchor)

    for key in ("erase", "phrases"):
        for name in getattr(settings, key):
            if str(name).casefold() not in catalogue:
                raise UserError(
                    f"{place}.{key}: {name!r} is not in {place}.concepts.{suggest(str(name), settings.concepts)}"
                    f" Add it there to give it prompts of its own."
                )
    erase = [catalogue[str(name).casefold()] for name in settings.erase]
    if not erase:
        raise UserError(
            f"{place}.erase: the list is empty; name at least one concept, e.g. {place}.erase=[{settings.concepts[0]}]"
        )
    kept = tuple(Concept(name, kind) for kind, names in settings.keep.items() for name in names)
    asked = tuple(concept(name, settings.phrases, settings.indirect) for name in settings.concepts) + kept
    names = [entry.name for entry in asked]
    for key in ("indirect", "near"):
        _check_spelling(getattr(settings, key), names, f"{place}.{key}")
    for name, others in settings.near.items():
        _check_spelling(others, names, f"{place}.near.{name}")
    tasks = []
    for targets in [erase] if settings.joint else [[name] for name in erase]:
        if settings.retain == "others":
            retain = tuple(entry.name for entry in asked if entry.name not in targets)
        elif settings.retain == "none":
            retain = ()
        elif isinstance(settings.retain, str):
            raise UserError(f"{place}.retain: {settings.retain!r} is neither others, none nor a list of texts")
        else:
            retain = tuple(settings.retain)
        tasks.append(ErasureTask(tuple(concept(name, settings.phrases) for name in targets), retain))
    names = [name.casefold() for task in tasks for name in task.names]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{place}.erase: {name!r} is named twice; remove one")
    evaluated = {entry.name.casefold() for entry in asked}
    near = {
        name: tuple(other for other in others if other.casefold() in evaluated)
        for name, others in settings.near.items()
        if name.casefold() in catalogue
    }
    return TaskGroup(settings.kind, asked, tuple(tasks), near)


def _check_spelling(names: Iterable[str], known: Sequence[str], place: str) -> None:
    """Refuse a name that the task does not have and nearly has; what is like none of its names is of other concepts.

    Raises:
        UserError: with the name that was probably meant.
    """
    have = [entry.casefold() for entry in known]
    for name in names:
        folded = name.casefold().strip()
        if folded not in have and difflib.get_close_matches(folded, have, n=1, cutoff=MISSPELT):
            raise UserError(
                f"{place}: {name!r} is no concept of this task.{suggest(name, known)} "
                "Write it as concepts or keep do, or take it out."
            )


def _with_added(settings: TaskSettings) -> TaskSettings:
    """``add`` in its place: concepts of the user's own, which are asked for and erased like the others."""
    added = [settings.add] if isinstance(settings.add, str) else settings.add

    def joined(names: list[str]) -> list[str]:
        there = {name.casefold() for name in names}
        return [*names, *(name for name in added if name.casefold() not in there)]

    return replace(settings, concepts=joined(settings.concepts), erase=joined(settings.erase))


def withheld(group: TaskGroup, held_out: Collection[str]) -> TaskGroup:
    """The tasks without what a prompt file holds out in the texts to retain: an eraser must not be told of it.

    Raises:
        UserError: a held-out concept is to be erased.
    """
    names = {name.casefold() for name in held_out}
    for task in group.tasks:
        if erased := [name for name in task.names if name.casefold() in names]:
            raise UserError(
                f"task: {erased[0]!r} is to be erased, and the prompt file holds it out; take it out of one"
            )
    tasks = (replace(task, retain=tuple(t for t in task.retain if t.casefold() not in names)) for task in group.tasks)
    return replace(group, tasks=tuple(tasks)) if names else group


def _check_type(key: str, value: Any, place: str) -> None:
    """Refuse a value of a task that is of another type than its key takes.

    Raises:
        UserError: with the spelling that was probably meant.
    """
    if key in ("concepts", "erase") and value != PROMPTS and not _is_texts(value):
        names = ",".join(re.findall(r"[^\[\]{}',]+", str(value)))
        raise UserError(f"{place}.{key}={value}: write a list: {place}.{key}=[{names}]")
    if key == "add" and not (isinstance(value, str) or _is_texts(value)):
        raise UserError(f"{place}.add={value}: write a name or a list of names, e.g. {place}.add=[poodle]")
    if key == "retain" and not isinstance(value, str) and not _is_texts(value):
        raise UserError(
            f"{place}.retain={value}: write others, none or a list of texts, e.g. {place}.retain=[sky,road]"
        )
    if key == "keep" and not (_is_lists(value) and set(value) <= set(KINDS)):
        raise UserError(f"{place}.keep={value}: write lists by kind ({', '.join(KINDS)}), e.g. {{object: [church]}}")
    if key in ("phrases", "indirect", "near") and not _is_lists(value):
        raise UserError(f"{place}.{key}={value}: write a list for each concept, e.g. {{church: [chapel]}}")
    if key in ("kind", "anchor") and not isinstance(value, str):
        raise UserError(f"{place}.{key}={value}: write a text, e.g. {place}.{key}=object")
    if key == "joint" and not isinstance(value, bool):
        raise UserError(f"{place}.joint={value}: write true or false")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_lists(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) and _is_texts(entry) for key, entry in value.items())


def task_groups(config: DictConfig) -> dict[str, TaskGroup]:
    """The tasks of a config by kind, checked. See :func:`task_group`."""
    try:
        chosen: Any = config.task
        chosen = OmegaConf.to_container(chosen, resolve=True) if OmegaConf.is_config(chosen) else chosen
    except OmegaConfBaseException as error:
        raise UserError(f"task: {str(error).splitlines()[0]}; give the value itself") from error
    groups: dict[str, TaskGroup] = {}
    for place, node in places(chosen, "task", "kind").items():
        group = task_group(_named_by_file(node, place, config.prompts), place)
        if group.kind in groups:
            raise UserError(f"{place}: a second task of kind {group.kind}; put its concepts into one task")
        groups[group.kind] = group
    return groups


def _named_by_file(node: Mapping[str, Any], place: str, prompts: DictConfig) -> Mapping[str, Any]:
    """A task whose concepts are ``prompts`` with those that the prompt file has: its labels, and which it erases.

    ``erase`` may also be a file of names: UCE erases up to 1500 artists, and has prompts for 100 of them.

    Raises:
        UserError: the prompts come from no file, the file marks nothing as erased, or not all that it is of.
    """
    if PROMPTS not in (node.get("concepts"), node.get("erase")):
        return node
    from erasebench.prompts.choose import from_config  # these are needed here alone
    from erasebench.prompts.names import read_names

    if prompts.get("source") == "builtin":
        raise UserError(f"{place}.erase=prompts: needs a prompt file; choose one, e.g. prompts=uce_artists")
    rows = from_config(prompts, str(node.get("kind")), ()).rows
    names = list(dict.fromkeys(rows.label[rows.label != ""]))
    erase = node.get("erase")
    if not isinstance(erase, str):  # a list, whose names must be the file's
        return {**node, "concepts": names}
    if erase != PROMPTS:
        erased = list(read_names(erase, f"{place}.erase"))
        catalogue = {name.casefold() for name in names}
        names += [name for name in erased if name.casefold() not in catalogue]
        return {**node, "concepts": names, "erase": erased}
    erased = list(dict.fromkeys(rows.label[rows.role == "erase"]))
    if not erased or "" in erased:
        raise UserError(f"{place}.erase=prompts: the prompt file marks no named concept as erased; list them instead")
    file = Path(str(prompts.source)).name
    if (said := _NUMBER_ERASED.search(file)) and int(said[1]) > len(erased):
        raise UserError(
            f"{place}.erase=prompts: {said[1]} artists are erased for {file}, which has prompts for {len(erased)} of them; "
            f"give the file of all names, {place}.erase=FILE: {ALL_ERASED.format(number=said[1])}"
        )
    return {**node, "concepts": names, "erase": erased}
