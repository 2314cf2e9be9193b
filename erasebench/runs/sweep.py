"""Sweeps: what a sweep varies, and the command that gives one of its settings again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from erasebench.config.build import RELEASED
from erasebench.config.choices import CONFIG_MODULE, groups
from erasebench.config.compose import compose, compose_with_hydra
from erasebench.config.overrides import parse_overrides
from erasebench.config.values import plain_values
from erasebench.errors import UserError


@dataclass(frozen=True)
class Choices:
    """What overrides with several values (``method=cure,uce``) choose among.

    Attributes:
        examples: overrides without any, each value standing in one of them at least.
        number: of all combinations.
        varying: the overrides with several values.
    """

    examples: list[list[str]]
    number: int
    varying: list[str]


def choices(overrides: Sequence[str]) -> Choices:
    """Every value of a sweep tried once.

    Raises:
        UserError: an override that cannot be read, or varies in a way that cannot be listed.
    """
    lists: list[list[str]] = []
    varying = []
    for text, parsed in zip(overrides, parse_overrides(overrides), strict=True):
        if not parsed.is_sweep_override():
            lists.append([text])
            continue
        key = parsed.get_key_element()
        if isinstance(parsed.value(), Glob):
            options = parsed.value().filter(groups().get(parsed.key_or_group, []))
            lists.append([f"{key}={name}" for name in options])
        elif parsed.is_discrete_sweep():
            lists.append([f"{key}={value}" for value in parsed.sweep_string_iterator()])
        else:
            raise UserError(f"{text}: a run takes values and ranges; an interval is searched by erasebench tune")
        if not lists[-1]:
            raise UserError(f"{text}: there is no value in it")
        varying.append(text)
    longest = max((len(values) for values in lists), default=1)
    examples = [[values[min(index, len(values) - 1)] for values in lists] for index in range(longest)]
    return Choices(examples, prod(map(len, lists)), varying)


def varied(overrides: Sequence[str]) -> list[str]:
    """What the chosen ``sweep`` varies, as overrides (``method.alpha=1,2,5``); what is given beside it wins.

    Raises:
        UserError: several sweeps at once, or an override that does not fit.
    """
    given = {_key(text): text.partition("=")[2] for text in overrides}
    name = given.get("sweep", "null")
    if "," in name:
        raise UserError(f"sweep={name}: one sweep at a time")
    if name == "null":
        return []
    searched = [text for text in overrides if _key(text) == "hydra.searchpath"]
    settings = compose_with_hydra([*searched, f"sweep={name}"])[1].sweeper.params or {}
    return [f"{key}={value}" for key, value in settings.items() if key not in given]


def command(folders: Sequence[Path], label: str, option: str | None = None) -> str | None:
    """The command that runs one setting of some runs alone.

    The nearest shipped eraser and the settings that differ from it, then all that the run was given beside its eraser.

    Args:
        folders: of runs.
        label: of the eraser in their table.
        option: an option that the table shows even where it has its default, because its runs vary it.

    Returns:
        ``None`` if no run has such a label, or its eraser is made by a config that is not among those shipped.
    """
    # This loads pandas, which refusing a command line must not wait for.
    from erasebench.runs.folder import find_eraser
    from erasebench.runs.manifest import read_manifest

    place = find_eraser(folders, label, option)
    if place is None:
        return None
    folder, node = place
    kept = [
        text
        for text in read_manifest(folder)["command"][1:]
        if not text.startswith("-") and _key(text).split(".")[0] not in ("method", "sweep", "name", "hydra")
    ]
    chosen = _overrides(node, kept)
    return None if chosen is None else f"erasebench run {shlex.join([*chosen, *kept])}"


def store_option(root: Path) -> str:
    """What a command that is printed says of the results folder, with a space before it: nothing of the default one."""
    return "" if str(root) == "results" else f" --store {shlex.quote(str(root))}"


def _overrides(wanted: Mapping[str, Any], kept: Sequence[str]) -> list[str] | None:
    """The fewest overrides that give an eraser beside others, or ``None``.

    One that has the settings of a release is given by that; where its option brings other rows, too, by its settings.
    """
    if RELEASED in wanted:
        option = f"{RELEASED}/{wanted[RELEASED]}"
        rows = _composed([f"method={option}", *kept]) if option in groups()["method"] else None
        if rows is not None and len(rows) == 1:
            ((row, found),) = rows.items()
            changed = [
                f"method.{row}.{key}={literal(value)}" for key, value in wanted.items() if found.get(key) != value
            ]
            return [f"method={option}", *changed]
        wanted = {key: value for key, value in wanted.items() if key != RELEASED}
    best: list[str] | None = None
    for name in _shipped(str(wanted["_target_"])):
        found = _composed([f"method={name}", *kept])
        if found is None or set(wanted) - set(found):
            continue
        different = [f"method.{key}={literal(value)}" for key, value in wanted.items() if found[key] != value]
        chosen = [f"method={name}", *different]
        if (best is None or len(chosen) < len(best)) and _composed([*chosen, *kept]) == wanted:
            best = chosen
    return best


def _shipped(target: str) -> list[str]:
    """The names of the shipped configs of a class of erasers."""
    folder = files(CONFIG_MODULE).joinpath("method")
    return [
        name
        for name in groups()["method"]
        if yaml.safe_load(folder.joinpath(f"{name}.yaml").read_text(encoding="utf-8")).get("_target_") == target
    ]


def _composed(overrides: Sequence[str]) -> dict[str, Any] | None:
    """The eraser's node that overrides give."""
    try:
        return plain_values(compose(overrides).method)
    except (UserError, HydraException, OmegaConfBaseException):
        return None


def literal(value: Any) -> str:
    """A value as an override has it: quoted where Hydra would read it as something else."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("'", "\\'") + "'"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{literal(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(literal, value)) + "]"
    return str(value)


def _key(text: str) -> str:
    return text.partition("=")[0].lstrip("+~")
