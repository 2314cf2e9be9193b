"""All that decides one image, as one value. Its hash is the image's name.

Two runs that ask for the same recipe share one image. What does not decide an image (batch size, device, paths,
library versions) is not in a recipe; it is recorded beside the image instead.

A recipe can grow. A field that is added later has a default under which everything is as it was before, and is left
out of the key and of the stored text while it has that default: the images made before the field was there keep their
names. Such a field is declared with ``metadata=ADDED_LATER``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import operator
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from functools import cached_property
from typing import Any

from erasebench.errors import UserError, suggest

GENERATOR_VERSION = "1"
"""Raised when :mod:`erasebench.images.generate` would make another image from the same recipe."""

LARGEST_SEED = 2**63 - 1

ADDED_LATER = {"added_later": True}
"""Marks a field that the first recipes did not have: out of the key and the stored text while it has its default."""


def canonical_json(value: Any) -> str:
    """JSON with one spelling for one value: sorted names, no spaces, ASCII, floats by ``repr``.

    An infinity is written as ``Infinity``, as diffusers does in scheduler settings.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


@dataclass(frozen=True)
class Recipe:
    """One image to make.

    Attributes:
        model: name of the model.
        revision: which weights: a Hub commit, or the hash of a folder's contents.
        edit: key of the edit that is applied; ``""`` is the unedited model.
        prompt: the text; may be empty.
        negative_prompt: text to move away from; ``""`` is the usual unconditional text.
        seed: of the image's own generator, 0 to ``2**63 - 1``. (PyTorch's CPU generator itself starts from
            the low 32 bits, as everywhere in diffusers.)
        steps: sampling steps, at least 1.
        guidance: classifier-free guidance scale, finite, at least 0; 1 and below is no guidance.
        width, height: pixels, multiples of 8.
        scheduler: class name in diffusers.
        scheduler_config: everything the scheduler was built with, canonical JSON
            (:func:`erasebench.images.scheduler.scheduler_identity`).
        dtype: of the weights and of the sampling, e.g. ``float32``.
        rng: where random numbers are drawn: ``cpu``, where every machine starts from the same noise, or ``cuda`` for
            protocols of papers that draw on the GPU.
        version: of the generator, :data:`GENERATOR_VERSION`.
        attack: key of what an attack found for this image; ``""`` is no attack.
        source: key of the image that this one is an edit of; ``""`` is an image that is drawn from noise.
        editing: how it is edited, canonical JSON (:meth:`erasebench.config.editing.Editing.text`); ``prompt``, ``steps`` and
            ``guidance`` are then those of the editing.

    Raises:
        UserError: a value that cannot be; the message names the field.
    """

    model: str
    revision: str
    edit: str
    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance: float
    width: int
    height: int
    scheduler: str
    scheduler_config: str
    dtype: str
    rng: str = "cpu"
    version: str = GENERATOR_VERSION
    attack: str = field(default="", metadata=ADDED_LATER)
    source: str = field(default="", metadata=ADDED_LATER)
    editing: str = field(default="", metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            object.__setattr__(self, entry.name, _CHECKS[str(entry.type)](entry.name, value))
        if not 0 <= self.seed <= LARGEST_SEED:
            raise UserError(f"seed: {self.seed} is out of range; use 0 to {LARGEST_SEED}")
        if self.steps < 1:
            raise UserError(f"steps: {self.steps} is too few; use at least 1, e.g. steps=25")
        if not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise UserError(f"guidance: {self.guidance} must be a finite number of at least 0, e.g. guidance=7.5")
        for name in ("width", "height"):
            size = getattr(self, name)
            if size <= 0 or size % 8:
                near = max(8, round(size / 8) * 8)
                raise UserError(f"{name}: {size} is not a positive multiple of 8; the nearest is {near}")
        if self.rng not in ("cpu", "cuda"):
            raise UserError(f"rng: {self.rng!r} is not supported; random numbers are drawn on 'cpu' or 'cuda'")

    @cached_property
    def key(self) -> str:
        """First 32 hexadecimal digits of the SHA-256 of :func:`canonical_json` of :meth:`to_dict`."""
        return hashlib.sha256(canonical_json(self.to_dict()).encode("ascii")).hexdigest()[:32]

    def to_dict(self) -> dict[str, str | int | float]:
        """The fields, in order, as plain values; without those that were added later and have their default."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        unsaid = {
            entry.name
            for entry in dataclasses.fields(self)
            if entry.metadata == ADDED_LATER and values[entry.name] == entry.default
        }
        return {name: value for name, value in values.items() if name not in unsaid}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The inverse of :meth:`to_dict`. A field that has a default may be absent.

        Raises:
            UserError: a field is missing or unknown, or has a value that cannot be.
        """
        names = [entry.name for entry in dataclasses.fields(cls)]
        for name in values:
            if name not in names:
                hint = suggest(name, names) or f" There are {', '.join(names)}."
                raise UserError(f"recipe: unknown field {name!r}.{hint}")
        needed = [entry.name for entry in dataclasses.fields(cls) if entry.default is MISSING]
        missing = [name for name in needed if name not in values]
        if missing:
            raise UserError(f"recipe: no value for {', '.join(missing)}")
        return cls(**values)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{name}: {value!r} is not a text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{name}: character {error.start} is half of a surrogate pair; save the text as UTF-8"
        ) from None
    return str(value)


def _integer(name: str, value: Any) -> int:
    """Whole numbers of any library (NumPy, pandas); a float only if it is whole and exact; never a bool."""
    if not isinstance(value, bool):
        if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
            return int(value)
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise UserError(f"{name}: {value!r} is not a whole number")


def _checked_float(name: str, value: Any) -> float:
    try:
        if not isinstance(value, bool | str):
            return float(value) + 0.0  # -0.0 becomes 0.0: one value, one key
    except (TypeError, ValueError):
        pass
    raise UserError(f"{name}: {value!r} is not a number")


_CHECKS = {"str": _text, "int": _integer, "float": _checked_float}
