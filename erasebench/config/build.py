"""From a node of the config to the plugin that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pydoc import locate
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from erasebench.errors import UserError, suggest

ALLOWED_TARGETS = ("erasebench.",)


def build(node: Mapping[str, Any] | DictConfig, place: str, plugins: Sequence[str] = ()) -> Any:
    """Construct the plugin that a ``_target_`` node names.

    Only targets below :data:`ALLOWED_TARGETS` or in a module listed under ``plugins`` are constructed, because a
    config may come from somebody else.

    Raises:
        UserError: no target, a target that cannot be imported, or an argument its constructor does not take.
    """
    values = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else dict(node)
    targets = list(_targets(values))
    if "_target_" not in values:
        raise UserError(f"{place}: has no _target_; name the class it builds")
    for target in targets:
        if not target.startswith((*ALLOWED_TARGETS, *(f"{module}." for module in plugins))):
            module = target.split(".")[0]
            raise UserError(
                f"{place}: {target} is not one of ours; if you trust it, allow its module: plugins=[{module}]"
            )
    try:
        return instantiate(values, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise UserError(f"{place}: {cause}") from error
        raise UserError(f"{place}: {cause or error}{_argument_hint(values)}") from error


def _targets(values: Any) -> Iterator[str]:
    """Every ``_target_`` in a node and below it."""
    if isinstance(values, dict):
        if "_target_" in values:
            yield values["_target_"]
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            yield from _targets(value)


def _argument_hint(values: Mapping[str, Any]) -> str:
    """The nearest argument, if one was given that the class does not take."""
    made = locate(values["_target_"])
    known = [entry.name for entry in fields(made)] if is_dataclass(made) else []
    wrong = [name for name in values if known and name not in (*known, "_target_", "_convert_")]
    return f".{suggest(wrong[0], known)}" if wrong else ""


def places(group: DictConfig, place: str, marker: str) -> dict[str, Any]:
    """The nodes of a group by their place in the config: one node, or the members of a composite."""
    if marker in group:
        return {place: group}
    if not group:
        raise UserError(f"{place}: nothing chosen; choose one, e.g. {place}=main")
    return {f"{place}.{name}": node for name, node in group.items()}
