"""From a node of the config to the plugin that it names.

A config may come from somebody else, so a ``_target_`` is no door to whatever Python can call: it names a class of ours,
or of a module that the user has named, and the class is of the kind that its place asks for.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar

from omegaconf import DictConfig

from erasebench.config.own_files import is_file, load_file, module_of
from erasebench.config.values import plain_values
from erasebench.errors import UserError, suggest

T = TypeVar("T")

RELEASED = "released"
"""The key of a node that names the release whose settings it has (:mod:`erasebench.edits.released`); no argument."""

PACKAGES = ("erasebench.methods", "erasebench.metrics")
"""Where the classes are defined that a config may name unasked; a module of somebody else must be allowed by name."""


def build(node: Mapping[str, Any] | DictConfig, place: str, base: type[T], plugins: Sequence[str] = ()) -> T:
    """Construct the plugin that a ``_target_`` node names, and those of the same base that it holds.

    Args:
        node: ``_target_`` and the arguments of the class. An argument may be such a node itself (an eraser that is
            made of erasers), of the same base.
        place: of the node in the config, for messages.
        base: what the class must be: ``Eraser``, ``Metric``.
        plugins: modules beside :data:`PACKAGES` that the user of this process has allowed, or files of them
            (``shrink.py``, :mod:`erasebench.config.own_files`).

    Raises:
        UserError: no target, one that :func:`find_class` refuses, or arguments that its class does not take.
    """
    values = plain_values(node)
    if "_target_" not in values:
        raise UserError(f"{place}: has no _target_; name the class it builds")
    return _constructed(values, place, base, plugins)


def find_class(target: Any, place: str, base: type[T], plugins: Sequence[str] = ()) -> type[T]:
    """The class that a dotted name means. Nothing is imported but the module that defines it, and that only if allowed.

    Args:
        target: the name, ``erasebench.methods.closed_form.cure.Cure``.
        place: where it was written, for messages.
        base: what the class must be derived from.
        plugins: see :func:`build`.

    Raises:
        UserError: no text, a module that is not allowed, no such class, or one that is not of that base or is defined
            elsewhere.
    """
    if not isinstance(target, str):
        raise UserError(f"{place}._target_: {target!r} is no text; write the dotted name of a class")
    module, _, name = target.rpartition(".")
    if not _within(module, plugins):
        ours = target.split(".")[0] == "erasebench"  # the harness itself holds nothing that a config may name
        cure = "" if ours else f"; if you trust it, name its module: {_allowing(module or target)}"
        raise UserError(f"{place}: {target} is not one of our {base.__name__.lower()}s{cure}")
    try:
        for plugin in filter(is_file, plugins):
            if module_of(plugin) == module:
                load_file(plugin)
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{place}: {target} cannot be found ({error})") from error
    if not (inspect.isclass(kind) and issubclass(kind, base)):
        raise UserError(f"{place}: {target} is no {base.__name__}")
    if not _within(kind.__module__, plugins):
        raise UserError(
            f"{place}: {target} is defined in {kind.__module__}; if you trust it, name that: "
            f"{_allowing(kind.__module__)}"
        )
    return kind


def _within(module: str, plugins: Sequence[str]) -> bool:
    return any(module == home or module.startswith(f"{home}.") for home in (*PACKAGES, *map(module_of, plugins)))


def _allowing(module: str) -> str:
    return f"plugins=[{module}] (for a stored run: --plugins {module})"


def _constructed(values: Mapping[str, Any], place: str, base: type[T], plugins: Sequence[str]) -> T:
    """An object of the class that ``_target_`` names, its own parts first."""
    kind = find_class(values["_target_"], place, base, plugins)
    given = {name: value for name, value in values.items() if name not in ("_target_", RELEASED)}
    _check_arguments(kind, given, place)
    arguments = {name: _argument(value, f"{place}.{name}", base, plugins) for name, value in given.items()}
    try:
        return kind(**arguments)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    except Exception as error:  # any: whatever a constructor makes of a setting, the place is what the user must know
        raise UserError(f"{place}: {kind.__name__} cannot be made of these settings ({error})") from error


def _argument(value: Any, place: str, base: type, plugins: Sequence[str]) -> Any:
    """An argument as the class takes it: nodes in it are constructed by the same rule as the node around them."""
    if isinstance(value, dict):
        if "_target_" in value:
            return _constructed(value, place, base, plugins)
        return {name: _argument(entry, f"{place}.{name}", base, plugins) for name, entry in value.items()}
    if isinstance(value, list):
        return [_argument(entry, f"{place}.{i}", base, plugins) for i, entry in enumerate(value)]
    return value


def _check_arguments(kind: type, given: Mapping[str, Any], place: str) -> None:
    """Refuse an option that a class does not have, and the lack of one that it needs.

    Raises:
        UserError: naming the option, with the nearest one.
    """
    takes = inspect.signature(kind).parameters
    if any(entry.kind is entry.VAR_KEYWORD for entry in takes.values()):
        return
    for name in given:
        if name not in takes:
            options = ", ".join(takes) or "none"
            raise UserError(
                f"{place}.{name}: {kind.__name__} has no such option.{suggest(str(name), takes)} Options: {options}"
            )
    for name, entry in takes.items():
        if entry.default is entry.empty and entry.kind is not entry.VAR_POSITIONAL and name not in given:
            raise UserError(f"{place}: {kind.__name__} needs {name}; give it, e.g. {place}.{name}=VALUE")


def places(group: Mapping[str, Any] | DictConfig, place: str, marker: str) -> dict[str, Any]:
    """The nodes of a group by their place in the config: one node, or the members of a composite.

    Raises:
        UserError: nothing is chosen, or what stands there is no node.
    """
    if not isinstance(group, Mapping | DictConfig):
        raise UserError(f"{place}={group}: no node; choose one, e.g. {place}=main")
    if marker in group:
        return {place: group}
    if not group:
        raise UserError(f"{place}: nothing chosen; choose one, e.g. {place}=main")
    nodes = {f"{place}.{name!s}": node for name, node in group.items()}
    for name, node in nodes.items():
        if not isinstance(node, Mapping | DictConfig):
            raise UserError(f"{name}={node}: no node with {marker}; choose one, e.g. {place}=main")
    return nodes
