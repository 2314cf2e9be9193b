"""erasebench: measure how well a text-to-image model forgets a concept, and what it costs the rest.

Start with ``erasebench run`` (``erasebench --help`` lists the commands), or in a notebook with
:mod:`erasebench.notebook`, whose functions are here, too: ``import erasebench as eb; eb.load_model("embedded")``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["__version__", "compare", "erase", "generate", "load_model", "load_run", "score", "task"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The functions of :mod:`erasebench.notebook`, imported when first used: they bring torch along."""
    if name in __all__:
        return getattr(import_module("erasebench.notebook"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
