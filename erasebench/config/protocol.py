"""Protocols as data: what one is, its hash, what a run does otherwise, and the page that explains it.

A protocol is a file of ``conf/protocol``: sampler, seeds, prompt sets, metric variants and counting rules of one paper,
each with where it was read. Numbers of two protocols never share a column.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from erasebench.config.choices import groups
from erasebench.config.compose import compose
from erasebench.config.settings import ProtocolSettings
from erasebench.errors import UserError, suggest

OBEYED = (
    "scheduler", "scheduler_config", "steps", "guidance", "prompt_guidance", "prompt_size", "negative_prompt", "size",
    "seeding", "seeds", "images_per_prompt", "dtype",
)  # fmt: skip
"""The keys that decide images."""

SAID = ("prompts", "metrics", "lacks", "counting")
"""The keys that say what its numbers mean."""

SEEDING = {"cpu": "a CPU generator for each image", "device": "a generator of the GPU for each image"}
"""Where the noise of an image is drawn."""


def protocol_hash(protocol: Mapping[str, Any] | DictConfig) -> str:
    """Hash of all that decides a number (:data:`OBEYED`, :data:`SAID`, the version), 8 hex digits.

    Names, citations and comments are not part of it.
    """
    values = _protocol_values(protocol)
    text = json.dumps({key: values[key] for key in ("version", *OBEYED, *SAID)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@functools.cache
def shipped(name: str) -> dict[str, Any] | None:
    """The protocol of this name as it is shipped (not to be changed); ``None`` if there is none."""
    if name not in groups()["protocol"]:
        return None
    return _protocol_values(compose([f"protocol={name}"]).protocol)


def changed(protocol: Mapping[str, Any] | DictConfig) -> dict[str, tuple[Any, Any]]:
    """The deciding keys that are not as the shipped protocol of that name has them: ``(here, shipped)`` by key."""
    values, known = _protocol_values(protocol), shipped(protocol["name"])
    if known is None:
        return {}
    return {key: (values[key], known[key]) for key in (*OBEYED, *SAID) if values[key] != known[key]}


def check(protocol: Mapping[str, Any] | DictConfig) -> None:
    """Refuse values that cannot be, before any work.

    Raises:
        UserError: naming the key and the cure.
    """
    if protocol["seeding"] not in SEEDING:
        hint = suggest(protocol["seeding"], SEEDING)
        raise UserError(f"protocol.seeding={protocol['seeding']}: no such way.{hint} Known: {', '.join(SEEDING)}")
    for key in ("steps", "images_per_prompt"):
        if protocol[key] < 1:
            raise UserError(f"protocol.{key}={protocol[key]}: must be 1 or more")
    seeds = protocol["seeds"]
    if seeds is not None and (not len(seeds) or len(set(seeds)) < len(seeds) or min(seeds) < 0):
        raise UserError(
            f"protocol.seeds={list(seeds)}: give different whole numbers of 0 or more, or null for the prompts' own"
        )
    if seeds is not None and protocol["images_per_prompt"] > 1:
        raise UserError("protocol.images_per_prompt: with protocol.seeds there is one image a seed; leave it at 1")


def dtype_of(asked: str, protocol: Mapping[str, Any] | DictConfig, device: str) -> str:
    """The type to load weights in: what was asked for, else the protocol's, which a CPU does in float32 only.

    Args:
        asked: ``config.dtype``.
        protocol: the composed protocol.
        device: as :func:`erasebench.models.load.find_device` gives it.
    """
    if asked != "auto" or not protocol["dtype"]:
        return asked
    return "float32" if device == "cpu" else protocol["dtype"]


def rng_of(protocol: Mapping[str, Any] | DictConfig, device: str) -> str:
    """Where noise is drawn here: ``cuda`` if the protocol says ``device`` and there is one, else ``cpu``."""
    return "cuda" if protocol["seeding"] == "device" and device.startswith("cuda") else "cpu"


def seeds_of(protocol: Mapping[str, Any] | DictConfig, own: int) -> list[int]:
    """The seeds that a prompt with a seed of its own is drawn with."""
    return list(protocol["seeds"] or range(own, own + protocol["images_per_prompt"]))


def differences(protocol: Mapping[str, Any] | DictConfig, device: str, dtype: str) -> dict[str, str]:
    """What a run here does otherwise than the release, by subject; for captions."""
    found = dict(protocol["differs"])
    if protocol["seeding"] == "device" and rng_of(protocol, device) == "cpu":
        found["seeding"] = "noise is drawn on the CPU here, by the release on a GPU: other images of the same seeds"
    if protocol["dtype"] and dtype != protocol["dtype"]:
        found["dtype"] = f"{dtype} here, {protocol['dtype']} in the release"
    return found


def identity(protocol: Mapping[str, Any] | DictConfig) -> str:
    """Name, version and hash, for records: ``rece v1 6a1b7fe6``."""
    return f"{protocol['name']} v{protocol['version']} {protocol_hash(protocol)}"


def described(protocol: Mapping[str, Any] | DictConfig, differs: Mapping[str, str] | None = None) -> str:
    """One line for captions: name, version, hash, sampler, what was changed on the command line, what is otherwise.

    Args:
        protocol: the composed protocol.
        differs: what the run does otherwise than the release (:func:`differences`).
    """
    base = (
        f"{protocol['name']} v{protocol['version']} ({protocol['scheduler']}, {protocol['steps']} steps, "
        f"guidance {protocol['guidance']:g}; hash {protocol_hash(protocol)})"
    )
    other = [f"{key} {_short(here)} instead of {_short(there)}" for key, (here, there) in changed(protocol).items()]
    base += f", changed: {'; '.join(other)}" if other else ""
    return base + "".join(f"; {subject} differs: {text}" for subject, text in (differs or {}).items())


def _protocol_values(protocol: Mapping[str, Any] | DictConfig) -> dict[str, Any]:
    """A protocol as plain values with every key of the schema."""
    full = OmegaConf.merge(OmegaConf.structured(ProtocolSettings), protocol)
    values = OmegaConf.to_container(full, resolve=True)
    assert isinstance(values, dict)
    return values


def _short(value: Any) -> str:
    if value is None:
        return "null"
    return value or "''" if isinstance(value, str) else json.dumps(value)
