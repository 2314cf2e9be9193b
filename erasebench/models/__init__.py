"""The network that is edited: loading it, reading its text, finding its weights."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erasebench.models.load import Model, load_model
    from erasebench.models.pipeline import Pipeline
    from erasebench.models.targets import text_inputs

__all__ = ["Model", "Pipeline", "load_model", "text_inputs"]

_HOME = {"Model": "load", "Pipeline": "pipeline", "load_model": "load", "text_inputs": "targets"}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: a refusal on the command line must not wait for PyTorch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
