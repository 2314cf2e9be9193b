"""Sweeps: what a sweep varies, and the command that gives one of its settings again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from erasebench.config.build import build, places
from erasebench.config.choices import CONFIG_MODULE, groups
from erasebench.config.compose import _initialized, compose
from erasebench.errors import UserError


def varied(overrides: Sequence[str]) -> list[str]:
    """What the chosen ``sweep`` varies, as overrides (``method.alpha=1,2,5``); what is given beside it wins.

    Raises:
        UserError: several sweeps at once.
    """
    given = {_key(text): text.partition("=")[2] for text in overrides}
    name = given.get("sweep", "null")
    if name == "null":
        return []
    if "," in name:
        raise UserError(f"sweep={name}: one sweep at a time")
    compose([f"sweep={name}"])  # refuses an unknown one by name
    with _initialized():
        settings = hydra_compose("config", [f"sweep={name}"], return_hydra_config=True).hydra.sweeper.params or {}
    return [f"{key}={value}" for key, value in settings.items() if key not in given]


def labelled(config: DictConfig, option: str | None = None) -> dict[str, DictConfig]:
    """The erasers of a run's config by the labels that tables give them.

    Args:
        config: of a run.
        option: an option that tables show even where it has its default, because their runs vary it.
    """
    from erasebench.edits.label import eraser_label  # loads torch, which refusing a command line must not wait for

    found = {}
    for place, node in places(config.method, "method", "_target_").items():
        eraser = build(node, place, tuple(config.plugins))
        label = eraser_label(place.split(".")[1].split("__")[0] if "." in place else eraser.name, eraser)
        if option and f" {option}=" not in label and option in node:
            label += f" {option}={node[option]}"
        found[label] = node
    return found


def command(folders: Sequence[Path], label: str, option: str | None = None) -> str | None:
    """The command that runs one setting of some runs alone.

    The nearest shipped eraser and the settings that differ from it, then all that the run was given beside its eraser.

    Args:
        folders: of runs.
        label: of the eraser in their table.
        option: see :func:`labelled`.

    Returns:
        ``None`` if no run has such a label, or its eraser is made by a config that is not among those shipped.
    """
    for folder in folders:
        config = OmegaConf.load(folder / "config.yaml")
        assert isinstance(config, DictConfig)
        node = labelled(config, option).get(label)
        if node is not None:
            given = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["command"][1:]
            kept = [
                text
                for text in given
                if not text.startswith("-") and _key(text).split(".")[0] not in ("method", "sweep", "name", "hydra")
            ]
            chosen = _overrides(OmegaConf.to_container(node, resolve=True), kept)
            return None if chosen is None else f"erasebench run {shlex.join([*chosen, *kept])}"
    return None


def _overrides(wanted: Mapping[str, Any], kept: Sequence[str]) -> list[str] | None:
    """The fewest overrides that give an eraser beside others, or ``None``."""
    best: list[str] | None = None
    for name in _shipped(wanted["_target_"]):
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
        return OmegaConf.to_container(compose(overrides).method, resolve=True)
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
