"""Nodes of a config as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf


def plain_values(node: Mapping[str, Any] | DictConfig, resolve: bool = True) -> dict[str, Any]:
    """A node as dicts, lists, texts, numbers and flags.

    Args:
        node: of a config, or values that are plain already.
        resolve: put values in the place of interpolations; else their texts stay.
    """
    values = OmegaConf.to_container(node, resolve=resolve) if isinstance(node, DictConfig) else dict(node)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
