"""What a row of a table is called: an eraser and the settings that are not its default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from erasebench.edits.eraser import Eraser

UNEDITED = "none"


def eraser_label(name: str, eraser: Eraser) -> str:
    """The row of a table: the eraser's name and every setting that is not its default."""
    changed = []
    for entry in fields(eraser):
        value = getattr(eraser, entry.name)
        if value != entry.default:
            changed.append(f"{entry.name}={_shown(value)}")
    return " ".join([name, *changed])


def _shown(value: Any) -> Any:
    """A setting as a label shows it; erasers in it by their own labels."""
    if isinstance(value, Eraser):
        return eraser_label(value.name, value)
    if isinstance(value, Mapping) and all(isinstance(entry, Eraser) for entry in value.values()):
        return " + ".join(eraser_label(entry.name, entry) for entry in value.values())
    return value


def row_text(eraser: str, attack: str) -> str:
    """What a row is called: its eraser, and the attack it is under if it is under one."""
    return f"{eraser} + {attack}" if attack else eraser
