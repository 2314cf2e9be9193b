"""A picture becomes numbers, and numbers get intervals."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erasebench.scores.estimate import Estimate
    from erasebench.scores.metric import Metric

__all__ = ["Estimate", "Metric"]

_HOME = {"Estimate": "estimate", "Metric": "metric"}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: a refusal on the command line must not wait for PyTorch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
