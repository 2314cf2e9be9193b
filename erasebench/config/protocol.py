"""Protocols as values: what one is, its hash, and what a run does otherwise.

A protocol is a file of ``conf/protocol``: sampler, seeds, prompt sets, metric variants and counting rules of one paper,
each with where it was read. Numbers of two protocols never share a column.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from erasebench.config.choices import groups
from erasebench.config.compose import compose
from erasebench.config.editing import Editing
from erasebench.config.settings import ProtocolSettings
from erasebench.config.values import plain_values
from erasebench.errors import UserError, suggest
from erasebench.recipe import LARGEST_SEED

OBEYED = (
    "scheduler", "scheduler_config", "steps", "guidance", "prompt_guidance", "prompt_size", "negative_prompt", "size",
    "seeding", "seeds", "images_per_prompt", "dtype", "editing",
)  # fmt: skip
"""The keys that decide images."""

SAID = ("prompts", "metrics", "lacks", "counting")
"""The keys that say what its numbers mean."""

SEEDING = {"cpu": "a CPU generator for each image", "device": "a generator of the GPU for each image"}
"""Where the noise of an image is drawn."""


@dataclass(frozen=True)
class Protocol:
    """How images are sampled, and what the numbers mean. Every field is as in conf/protocol/default.yaml.

    Attributes:
        name: of the file it was made from.
        version: raised when the same name stands for other choices.
        scheduler: the sampler's class in diffusers.
        scheduler_config: settings of the sampler that are not the model's own.
        steps: sampling steps.
        guidance: scale of classifier-free guidance.
        prompt_guidance: a prompt's own guidance counts where it has one.
        prompt_size: a prompt's own size counts where it has one.
        negative_prompt: of all prompts that have none of their own.
        size: pixels of a side; ``None`` for the model's own.
        seeding: where noise is drawn, see :data:`SEEDING`.
        seeds: of every prompt; ``None`` for the prompt's own.
        images_per_prompt: seeds from a prompt's own upwards.
        dtype: type of the weights; ``None`` for what suits the device.
        prompts: prompt sets of the paper, and what each is for.
        metrics: metrics of the paper that are built here.
        lacks: numbers of the paper that cannot be measured here, and why.
        counting: what is counted as what.
        differs: what a run here does otherwise than the paper's code.
        cites: where each choice was read.
        unsure: choices that no source settles.
        defects: of the released code, each with the overrides that bring it back.
        editing: how images of the unedited model are edited, where these edits are measured; empty where images are drawn
            from noise. :attr:`editor` is the same as a value.
    """

    name: str
    version: int
    scheduler: str
    scheduler_config: Mapping[str, Any]
    steps: int
    guidance: float
    prompt_guidance: bool
    prompt_size: bool
    negative_prompt: str
    size: int | None
    seeding: str
    seeds: tuple[int, ...] | None
    images_per_prompt: int
    dtype: str | None
    prompts: Mapping[str, str]
    metrics: tuple[str, ...]
    lacks: Mapping[str, str]
    counting: Mapping[str, str]
    differs: Mapping[str, str]
    cites: Mapping[str, str]
    unsure: Mapping[str, str]
    defects: Mapping[str, Any]
    editing: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_config(cls, node: Mapping[str, Any] | DictConfig) -> Protocol:
        """A protocol from its node of a config; keys that are not there have their defaults.

        Raises:
            UserError: a key that is unknown or lacking, or a value of another type.
        """
        values = plain_values(node)
        try:
            full = OmegaConf.to_container(
                OmegaConf.merge(OmegaConf.structured(ProtocolSettings), values), throw_on_missing=True
            )
        except OmegaConfBaseException as error:
            raise UserError(f"protocol: {str(error).splitlines()[0]}") from error
        assert isinstance(full, dict)
        choices = {str(key): value for key, value in full.items()}
        kinds = {entry.name: str(entry.type) for entry in fields(ProtocolSettings)}
        for key, value in choices.items():
            if isinstance(value, str) and not kinds[key].startswith("str"):  # "${...}", which no type refuses
                raise UserError(f"protocol.{key}={value}: give the value itself")
        seeds, metrics = choices.pop("seeds"), choices.pop("metrics")
        return cls(
            seeds=None if seeds is None else tuple(seeds),
            metrics=tuple(metrics),
            **choices,
        )

    def check(self) -> None:
        """Refuse values that cannot be, before any work.

        Raises:
            UserError: naming the key and the cure.
        """
        if self.seeding not in SEEDING:
            hint = suggest(self.seeding, SEEDING)
            raise UserError(f"protocol.seeding={self.seeding}: no such way.{hint} Known: {', '.join(SEEDING)}")
        if self.editing:
            Editing.of(self.editing)
        for key in ("steps", "images_per_prompt"):
            if getattr(self, key) < 1:
                raise UserError(f"protocol.{key}={getattr(self, key)}: must be 1 or more")
        if self.seeds is not None:
            right = all(isinstance(seed, int) and 0 <= seed <= LARGEST_SEED for seed in self.seeds)
            if not self.seeds or not right or len(set(self.seeds)) < len(self.seeds):
                raise UserError(
                    f"protocol.seeds={list(self.seeds)}: give different whole numbers, from 0 to {LARGEST_SEED}, or null "
                    "for the prompts' own"
                )
            if self.images_per_prompt > 1:
                raise UserError(
                    "protocol.images_per_prompt: with protocol.seeds there is one image a seed; leave it at 1"
                )

    @property
    def editor(self) -> Editing | None:
        """How images are edited; ``None`` where they are drawn.

        Raises:
            UserError: :attr:`editing` is not as it should be.
        """
        return Editing.of(self.editing) if self.editing else None

    @property
    def hash(self) -> str:
        """Hash of all that decides a number (:data:`OBEYED`, :data:`SAID`, the version), 8 hex digits.

        Names, citations and comments are not part of it.
        """
        values = {key: getattr(self, key) for key in ("version", *OBEYED, *SAID)}
        if not self.editing:  # protocols that draw are called as before there was editing
            del values["editing"]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def identity(self) -> str:
        """Name, version and hash, for records: ``rece v1 6a1b7fe6``."""
        return f"{self.name} v{self.version} {self.hash}"

    @property
    def changed(self) -> dict[str, tuple[Any, Any]]:
        """The deciding keys that are not as the shipped protocol of that name has them: ``(here, shipped)`` by key."""
        original = shipped(self.name)
        if original is None:
            return {}
        pairs = {key: (getattr(self, key), getattr(original, key)) for key in (*OBEYED, *SAID)}
        return {key: (here, there) for key, (here, there) in pairs.items() if here != there}

    def weights_dtype(self, asked: str, device: str) -> str:
        """The type to load weights in: what was asked for, else the protocol's, which a CPU does in float32 only.

        Args:
            asked: ``config.dtype``.
            device: as :func:`erasebench.models.load.find_device` gives it.
        """
        if asked != "auto" or not self.dtype:
            return asked
        return "float32" if device == "cpu" else self.dtype

    def noise_on(self, device: str) -> str:
        """Where noise is drawn here: ``cuda`` if the protocol says ``device`` and there is one, else ``cpu``."""
        return "cuda" if self.seeding == "device" and device.startswith("cuda") else "cpu"

    def seeds_of(self, own: int) -> list[int]:
        """The seeds that a prompt with a seed of its own is drawn with.

        Raises:
            UserError: the seeds after its own run out.
        """
        if self.seeds is None and own + self.images_per_prompt - 1 > LARGEST_SEED:
            raise UserError(
                f"protocol.images_per_prompt={self.images_per_prompt}: a prompt has seed {own}, after which there are not "
                f"so many (the last is {LARGEST_SEED}); give it a smaller one, or set protocol.seeds"
            )
        return list(self.seeds or range(own, own + self.images_per_prompt))

    def differences(self, device: str, dtype: str) -> dict[str, str]:
        """What a run on a device, in a type, does otherwise than the paper's code, by subject; for captions."""
        differs = dict(self.differs)
        if self.seeding == "device" and self.noise_on(device) == "cpu":
            differs["seeding"] = (
                "noise is drawn on the CPU here, by the release on a GPU: other images of the same seeds"
            )
        if self.dtype and dtype != self.dtype:
            differs["dtype"] = f"{dtype} here, {self.dtype} in the release"
        return differs

    def described(self, differs: Mapping[str, str] | None = None) -> str:
        """One line for captions: name, version, hash, sampler, what was changed on the command line, what is otherwise.

        Args:
            differs: what the run does otherwise than the release (:meth:`differences`).
        """
        base = (
            f"{self.name} v{self.version} ({self.scheduler}, {self.steps} steps, guidance {self.guidance:g}; "
            f"hash {self.hash})"
        )
        other = [f"{key} {shown(here)} instead of {shown(there)}" for key, (here, there) in self.changed.items()]
        base += f", changed: {'; '.join(other)}" if other else ""
        return base + "".join(f"; {subject} differs: {text}" for subject, text in (differs or {}).items())


@functools.cache
def shipped(name: str) -> Protocol | None:
    """The protocol of this name as it is shipped; ``None`` if there is none."""
    if name not in groups()["protocol"]:
        return None
    return Protocol.from_config(compose([f"protocol={name}"]).protocol)


def shown(value: Any) -> str:
    """A choice as people read it: ``null``, a text as it is (an empty one in quotes), else JSON."""
    if value is None:
        return "null"
    return value or "''" if isinstance(value, str) else json.dumps(value)
