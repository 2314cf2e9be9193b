"""Editing as values: a protocol may measure edits of images that are there, instead of images that are drawn from noise.

An erased model should not bring its concept back when a picture of it is edited (ACE, 2501.01633).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from erasebench.errors import UserError, suggest
from erasebench.recipe import canonical_json

OPTIONS: dict[str, dict[str, type]] = {
    "ddim": {},
    "ledits_pp": {"skip": float, "source_guidance": float, "threshold": float, "mask": bool},
}
"""By the way of editing, its options beside those of all. ``ddim``: the image is inverted under its own prompt without
guidance, and drawn again under the other one. ``ledits_pp``: LEDITS++ of diffusers."""

RANGES = {"skip": (0.0, 1.0), "threshold": (0.0, 1.0), "source_guidance": (0.0, float("inf"))}
"""From, and below what, of options that are numbers."""

ALL: dict[str, type] = {"by": str, "prompts": list, "steps": int, "guidance": float}
"""What every way of editing takes."""

BLANK = "{concept}"
"""In an editing prompt: the name of the concept that the image was asked for."""


@dataclass(frozen=True)
class Editing:
    """How images are edited.

    Attributes:
        by: one of :data:`OPTIONS`.
        prompts: what each image is edited by, one image each; :data:`BLANK` stands for the concept's name.
        steps: of the inversion, and of drawing again.
        guidance: of the editing prompt.
        options: of this way.
    """

    by: str
    prompts: tuple[str, ...]
    steps: int
    guidance: float
    options: Mapping[str, Any]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Editing:
        """From a protocol's ``editing``.

        Raises:
            UserError: an unknown or lacking key, or a value of another type.
        """
        by = values.get("by")
        if by not in OPTIONS:
            raise UserError(
                f"protocol.editing.by={by}: no such way of editing.{suggest(str(by), OPTIONS)} Known: {', '.join(OPTIONS)}"
            )
        takes = ALL | OPTIONS[str(by)]
        for key in values:
            if key not in takes:
                raise UserError(
                    f"protocol.editing.{key}: {by} has no such key.{suggest(str(key), takes)} Keys: {', '.join(takes)}"
                )
        for key, kind in takes.items():
            value = values.get(key)
            right = isinstance(value, (int, float) if kind is float else kind)
            if not right or (isinstance(value, bool) and kind is not bool):
                raise UserError(f"protocol.editing.{key}={value}: give a {kind.__name__}")
        prompts = values["prompts"]
        if not prompts or not all(isinstance(text, str) and text for text in prompts):
            raise UserError(
                f"protocol.editing.prompts={prompts}: give at least one text, e.g. ['{BLANK} wearing a hat']"
            )
        if values["steps"] < 1 or values["guidance"] < 0:
            raise UserError("protocol.editing: steps must be 1 or more, guidance 0 or more")
        for key, (low, high) in RANGES.items():
            if key in values and not low <= values[key] < high:
                raise UserError(f"protocol.editing.{key}={values[key]}: give a number from {low} to below {high}")
        options = {key: values[key] for key in OPTIONS[str(by)]}
        return cls(str(by), tuple(prompts), values["steps"], float(values["guidance"]), options)

    def text(self, source_prompt: str) -> str:
        """What of it decides an image and has no place of its own in a recipe, canonical JSON.

        Args:
            source_prompt: of the image that is edited.
        """
        return canonical_json({"by": self.by, "source_prompt": source_prompt, **self.options})

    def phrase(self, prompt: str, concept: str, place: str) -> str:
        """An editing prompt with the name of a concept in it.

        Raises:
            UserError: it needs a name, and the prompt of the image has none.
        """
        if BLANK in prompt and not concept:
            raise UserError(f"protocol.editing.prompts: {prompt!r} needs a concept, and prompt {place} asks for none")
        return prompt.replace(BLANK, concept)
