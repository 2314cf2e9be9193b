"""Protocols as data: what one is, its hash, what a run does otherwise, and the page that explains it.

A protocol is a file of ``conf/protocol``: sampler, seeds, prompt sets, metric variants and counting rules of one paper,
each with where it was read. Numbers of two protocols never share a column.
"""

from __future__ import annotations

import functools
import hashlib
import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from erasebench.config import ProtocolSettings, compose, groups
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

WIDTH = 100
"""Columns of a page."""


def protocol_hash(protocol: Mapping[str, Any] | DictConfig) -> str:
    """Hash of all that decides a number (:data:`OBEYED`, :data:`SAID`, the version), 8 hex digits.

    Names, citations and comments are not part of it.
    """
    values = _plain(protocol)
    text = json.dumps({key: values[key] for key in ("version", *OBEYED, *SAID)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@functools.cache
def shipped(name: str) -> dict[str, Any] | None:
    """The protocol of this name as it is shipped (not to be changed); ``None`` if there is none."""
    if name not in groups()["protocol"]:
        return None
    return _plain(compose([f"protocol={name}"]).protocol)


def changed(protocol: Mapping[str, Any] | DictConfig) -> dict[str, tuple[Any, Any]]:
    """The deciding keys that are not as the shipped protocol of that name has them: ``(here, shipped)`` by key."""
    values, known = _plain(protocol), shipped(protocol["name"])
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
        device: as :func:`erasebench.pipelines.find_device` gives it.
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


def page(name: str) -> str:
    """All of a protocol for people: every choice with where it was read, what is unsure, what differs, known defects.

    Raises:
        UserError: no such protocol.
    """
    protocol = shipped(name)
    if protocol is None:
        known = groups()["protocol"]
        raise UserError(f"show protocol {name}: no such protocol.{suggest(name, known)} Known: {', '.join(known)}")
    lines = [f"protocol {name}, version {protocol['version']}, hash {protocol_hash(protocol)}", *_comment(name), ""]
    lines += ["how images are made (obeyed; part of the key of every image)"]
    lines += _choices(protocol, OBEYED)
    lines += ["", "what its numbers mean"]
    for key, title in (
        ("prompts", "prompt sets"), ("metrics", "metrics (conf/metric)"), ("counting", "counting rules"),
        ("lacks", "not built here: such numbers are published ones or 'not run'"),
    ):  # fmt: skip
        if protocol[key]:
            lines += [f"  {title}{_cited(protocol, key)}", *_entries(protocol[key])]
    for key, title in (("differs", "what a run here does otherwise"), ("unsure", "unsure")):
        if protocol[key]:
            lines += ["", title, *_entries(protocol[key], 2)]
    if protocol["defects"]:
        lines += ["", "known defects of the release (off here)"]
        for defect, about in protocol["defects"].items():
            lines += _wrapped(f"{defect}: {about['what']} [{about['read']}]", 2)
            variant = " ".join(about["as_released"])
            lines += _wrapped(f"as released: {variant}" if variant else "told here; not reproduced", 6)
    lines += ["", f"use it with: erasebench run protocol={name}"]
    return "\n".join(lines)


def _plain(protocol: Mapping[str, Any] | DictConfig) -> dict[str, Any]:
    """A protocol as plain values with every key of the schema."""
    full = OmegaConf.merge(OmegaConf.structured(ProtocolSettings), protocol)
    values = OmegaConf.to_container(full, resolve=True)
    assert isinstance(values, dict)
    return values


def _comment(name: str) -> Iterator[str]:
    from erasebench.listing import first_comment

    yield from _wrapped(first_comment("protocol", name), 0)


def _choices(protocol: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    for key in keys:
        mark = " (unsure)" if key in protocol["unsure"] else ""
        yield from _wrapped(f"{key:<18} {_short(protocol[key])}{_cited(protocol, key)}{mark}", 2, hang=19)


def _cited(protocol: Mapping[str, Any], key: str) -> str:
    """Where a choice was read, in brackets; nothing for one that no source speaks of."""
    cites = protocol["cites"]
    text = cites.get(key) or cites.get("all", "")
    return f"  [{text}]" if text else ""


def _entries(values: Any, indent: int = 4) -> Iterator[str]:
    for entry in values.items() if isinstance(values, dict) else values:
        yield from _wrapped(": ".join(entry) if isinstance(entry, tuple) else entry, indent)


def _wrapped(text: str, indent: int, hang: int = 2) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * (indent + hang), break_on_hyphens=False
    )


def _short(value: Any) -> str:
    if value is None:
        return "null"
    return value or "''" if isinstance(value, str) else json.dumps(value)
