"""Settings of releases: what the authors of an eraser ran, where that was read, and what of it a run here does otherwise.

``data/released.csv`` has one row a choice. A node of ``conf/method/released`` names its rows by the key ``released``; its
options are ours, so the two are compared, and a row of a table says whether it is as released.

==========  ==========================================================================================
what        meaning of a row
==========  ==========================================================================================
setting     the option must have the released value
differs     the release does what is no option here; ``ours`` says what is done instead
unknown     neither paper nor release says it; ``ours`` says what was chosen
note        said on the page alone, such as what is random on both sides
==========  ==========================================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from erasebench.config.build import PACKAGES, RELEASED, find_class
from erasebench.edits.label import Label, shown_value
from erasebench.errors import UserError, suggest
from erasebench.prompts.names import read_names

WHATS = ("setting", "differs", "unknown", "note")

NOT_OF_THE_EDIT = ("seed", "save_memory", "_target_", RELEASED)
"""Options that a release does not decide: which random numbers, and where they are kept while it trains."""

LIST = "${lists."
"""How a released value begins that is a list in a file: ``${lists.artists}``."""


@dataclass(frozen=True)
class Choice:
    """One choice of a release.

    Attributes:
        option: its dotted place in the node, or what it is about.
        value: as released; of a ``setting`` a value as YAML reads it.
        source: repository@commit:file:line, with the name of an option or function in place of a line of a long file.
        what: one of :data:`WHATS`.
        ours: what a run here does instead; empty for a setting.
    """

    option: str
    value: Any
    source: str
    what: str
    ours: str


@dataclass(frozen=True)
class KnownList:
    """A list of names that releases read from a file which is not part of erasebench.

    Attributes:
        name: the key below ``lists`` in the config.
        says: what it is.
        file: repository@commit:file.
        content: hash of the distinct names (:func:`list_content`); empty if it is not known.
    """

    name: str
    says: str
    file: str
    content: str


@cache
def releases() -> dict[str, tuple[Choice, ...]]:
    """The choices of every release, by the name that nodes call it.

    Raises:
        UserError: a row without a source, or of none of the kinds of :data:`WHATS`.
    """
    found: dict[str, list[Choice]] = {}
    for row in _table("released.csv").itertuples():
        if row.what not in WHATS or not row.source:
            raise UserError(f"released.csv, {row.released} {row.option}: needs a source, and one of {', '.join(WHATS)}")
        value = yaml.safe_load(row.value) if row.what == "setting" else row.value
        found.setdefault(row.released, []).append(Choice(row.option, value, row.source, row.what, row.ours))
    return {name: tuple(choices) for name, choices in found.items()}


@cache
def known_lists() -> dict[str, KnownList]:
    """The lists of ``data/released_lists.csv`` by their names."""
    return {row.name: KnownList(*row) for row in _table("released_lists.csv").itertuples(index=False, name="List")}


def release_of(node: Mapping[str, Any]) -> tuple[Choice, ...] | None:
    """The choices of the release whose settings a node of ``method`` is to have; ``None`` if it names none.

    Raises:
        UserError: an unknown release.
    """
    name = node.get(RELEASED)
    if name is None:
        return None
    if name not in releases():
        raise UserError(f"released: {name}: no such release.{suggest(str(name), releases())}")
    return releases()[name]


def setting_in(node: Mapping[str, Any], option: str) -> Any:
    """The setting at a dotted place of a node; ``None`` where there is nothing."""
    value: Any = node
    for part in option.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def deviations(node: Mapping[str, Any]) -> dict[str, Any] | None:
    """What of a node of ``method`` is not as its release has it: by option, what it is here.

    Empty if all is as released; ``None`` for settings of our own, which claim no release. Choices that no source tells
    count too.
    """
    choices = release_of(node)
    if choices is None:
        return None
    of_choices = {c.option: ours_of(c, node) for c in choices if c.what in ("differs", "unknown")}
    return of_choices | changed_settings(node)


def changed_settings(node: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a node that names its release and are not as released, at any depth, with what they are here.

    An option that no row of ``data/released.csv`` names is as released at the default of its class.
    """
    choices = release_of(node) or ()
    settings = [choice for choice in choices if choice.what == "setting"]
    found = {c.option: ours for c in settings if not same(c.value, ours := setting_in(node, c.option))}
    named = {choice.option for choice in choices}
    return found | {option: value for option, value in _not_default(node) if option not in named}


def _not_default(node: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The options of an eraser, and of those that it is made of, that are not at the default of their class."""
    from erasebench.edits.eraser import Eraser  # loads torch

    if not str(node["_target_"]).startswith(f"{PACKAGES[0]}."):
        yield f"{before}_target_", node["_target_"]  # somebody else's class, of which nothing is known here
        return
    settings: Any = find_class(node["_target_"], before or "method", Eraser)
    for entry in fields(settings):
        if entry.name in NOT_OF_THE_EDIT or entry.name not in node:
            continue
        default = entry.default_factory() if entry.default_factory is not MISSING else entry.default
        for option, value in _parts(node[entry.name], f"{before}{entry.name}"):
            if isinstance(value, Mapping):
                yield from _not_default(value, f"{option}.")
            elif option != f"{before}{entry.name}" or value != (
                list(default) if isinstance(default, tuple) else default
            ):
                yield option, value


def _parts(value: Any, option: str) -> Iterator[tuple[str, Any]]:
    """A value by its option; of several by names (the erasers of RECE's objects) each by its own."""
    if isinstance(value, Mapping) and "_target_" not in value:
        for name, part in value.items():
            yield from _parts(part, f"{option}.{name}")
    else:
        yield option, value


def ours_of(choice: Choice, node: Mapping[str, Any]) -> Any:
    """What a node has in a choice that is no setting of the release: its own value where it has one, else the words."""
    value = setting_in(node, choice.option) if choice.what == "unknown" else None
    return choice.ours if value is None else value


def same(released: Any, ours: Any) -> bool:
    """Whether a setting has its released value; a list in a file is compared by its names."""
    if isinstance(released, str) and released.startswith(LIST):
        known = known_lists()[released.removeprefix(LIST).removesuffix("}")]
        here = bool(known.content) and isinstance(ours, str) and Path(ours).expanduser().is_file()
        return here and list_content(ours) == known.content
    return bool(released == ours)


def list_content(source: str) -> str:
    """Hash of the distinct names of a file, in any order and case, 16 hex digits."""
    names = sorted({name.casefold() for name in read_names(source, "lists")})
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def label_as_released(label: Label, node: Mapping[str, Any]) -> Label:
    """The label of a row that names its release: ``uce as released``, or what is not so.

    An option that has another value than the released one is shown with its value; what cannot be as released here by
    its name: ``mace as released but for masks``. Where a choice is unknown, the settings are ``our choice``.
    """
    choices, deviating = release_of(node), deviations(node)
    if choices is None or deviating is None:
        return label
    unknown = any(choice.what == "unknown" for choice in choices)
    but = [choice.option for choice in choices if choice.what == "differs"]
    name = f"{label.name} our choice" if unknown else f"{label.name} as released"
    name += f" but for {', '.join(but)}" if but else ""
    if unknown:
        return replace(label, name=name)
    of_release = {choice.option.split(".")[0] for choice in choices}
    options = {option: value for option, value in label.options.items() if option not in of_release}
    options |= {option: shown_value(value) for option, value in deviating.items() if option not in but}
    every = {**label.options, **label.defaults}
    return Label(name, options, {option: value for option, value in every.items() if option not in options})


def check_lists(node: Mapping[str, Any], place: str) -> None:
    """Refuse a node whose release reads a list that was not given.

    Raises:
        UserError: naming the file, with its repository and commit, and the key to give it by.
    """
    for choice in release_of(node) or ():
        if choice.what == "setting" and str(choice.value).startswith(LIST) and not setting_in(node, choice.option):
            known = known_lists()[choice.value.removeprefix(LIST).removesuffix("}")]
            raise UserError(
                f"{place}.{choice.option}: needs {known.says}, which is not part of erasebench: {known.file}; give its "
                f"path with lists.{known.name}=FILE. Another file of that kind is taken, too, and named in the row"
            )


def _table(name: str) -> pd.DataFrame:
    with files("erasebench").joinpath("data", name).open("r", encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)
