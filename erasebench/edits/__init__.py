"""What an eraser makes (changes of weights, and hooks while sampling) and what an attack finds, as values."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erasebench.edits.attack import Attack, Tools
    from erasebench.edits.change import Change
    from erasebench.edits.edit import Edit
    from erasebench.edits.eraser import Eraser
    from erasebench.edits.found import Found
    from erasebench.edits.hook import Hook

__all__ = ["Attack", "Change", "Edit", "Eraser", "Found", "Hook", "Tools"]

_HOME = {
    "Attack": "attack",
    "Change": "change",
    "Edit": "edit",
    "Eraser": "eraser",
    "Found": "found",
    "Hook": "hook",
    "Tools": "attack",
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: a refusal on the command line must not wait for PyTorch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
