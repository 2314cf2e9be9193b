"""What a row of a table is called: an eraser and the settings that are not its default.

A label is made once, when a run is planned, and is kept as a value. Nothing is ever read back from its text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from erasebench.errors import UserError

if TYPE_CHECKING:
    from erasebench.edits.attack import Attack
    from erasebench.edits.eraser import Eraser

OF_THIS_MACHINE = {"of this machine": True}
"""Metadata of a setting that says where something lies and decides no edit: labels leave it out."""

UNEDITED = "none"
"""The label of the unedited model."""

LONGEST = 60
"""Characters that a setting may have in a label: a list of 1734 names, or the path of a file, is longer."""


@dataclass(frozen=True)
class Label:
    """The name of a row and what was set for it.

    Attributes:
        name: of the eraser, as its config calls it.
        options: settings that the text shows: those that are not at their default, in the order of the class. A long
            one is a short text that stands for it.
        defaults: the settings that are at their default, or that the name says already.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What tables print: ``cure alpha=5.0``."""
        return " ".join([self.name, *(f"{option}={value}" for option, value in self.options.items())])

    def setting(self, option: str) -> Any:
        """The value of a setting, shown or not; ``None`` if it is not set."""
        return self.options.get(option, self.defaults.get(option))

    def number(self, option: str) -> float | None:
        """The value of a setting if it is a number."""
        value = self.setting(option)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def showing(self, option: str) -> Label:
        """The label with a setting in its text even if it is at its default."""
        if option in self.options or option not in self.defaults:
            return self
        hidden = {name: value for name, value in self.defaults.items() if name != option}
        return Label(self.name, {**self.options, option: self.defaults[option]}, hidden)

    def without(self, options: Iterable[str]) -> Label:
        """The label with these settings out of its text."""
        out = set(options)
        return Label(self.name, {name: value for name, value in self.options.items() if name not in out}, self.defaults)

    def to_json(self) -> dict[str, Any]:
        """It as JSON values."""
        return {"name": self.name, "options": dict(self.options), "defaults": dict(self.defaults)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Label:
        """The inverse of :meth:`to_json`.

        Raises:
            UserError: they are no label.
        """
        try:
            options, defaults = ({str(k): v for k, v in values[key].items()} for key in ("options", "defaults"))
            return cls(str(values["name"]), options, defaults)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"no label of an eraser ({type(error).__name__}: {error})") from error


def label_of(name: str, eraser: Eraser | Attack) -> Label:
    """The label of an eraser, or of an attack.

    Args:
        name: what its config calls it: its own name, or a key of one's choice (``uce2025``).
        eraser: a dataclass, whose fields are its settings.
    """
    options: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    settings: Any = eraser
    for entry in fields(settings):
        value = getattr(eraser, entry.name)
        default = entry.default_factory() if entry.default_factory is not MISSING else entry.default
        # A name such as uce2025 or sld_weak says which variant it is.
        in_name = name in (f"{eraser.name}{value}", f"{eraser.name}_{value}")
        silent = value == default or in_name or entry.metadata == OF_THIS_MACHINE
        (defaults if silent else options)[entry.name] = shown_value(value)
    return Label(name, options, defaults)


def shared(labels: Sequence[Label]) -> set[str]:
    """The settings that all labels show alike: what a plot of them need not repeat."""
    first, *rest = labels
    return {
        option
        for option, value in first.options.items()
        if all(option in other.options and other.options[option] == value for other in rest)
    }


def swept_option(labels: Iterable[Label]) -> str | None:
    """The one number among the settings that tells labels of one name apart; ``None`` if there is none, or several."""
    by_name: dict[str, list[Label]] = {}
    for label in labels:
        by_name.setdefault(label.name, []).append(label)
    varied = set()
    for variants in by_name.values():
        for option in {name for label in variants for name in label.options}:
            # One that is not set (CURE's alpha then depends on the model) is no point of a line, and no reason against one.
            numbers = [label.number(option) for label in variants if label.setting(option) is not None]
            if None not in numbers and len(set(numbers)) > 1:
                varied.add(option)
    return varied.pop() if len(varied) == 1 else None


def shown_value(value: Any) -> Any:
    """A setting as a label holds it: a number, a flag or nothing as it is, else a short text."""
    from erasebench.edits.eraser import Eraser  # loads torch, which reading a label must not

    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Eraser):
        return _part(value)
    if isinstance(value, Mapping) and all(isinstance(entry, Eraser) for entry in value.values()):
        return ",".join(_part(entry) for entry in value.values())
    if isinstance(value, str):
        return value if len(value) <= LONGEST else f"{value[: LONGEST // 2]}… ({_digest(value)})"
    if isinstance(value, Mapping):
        text = ", ".join(f"{key}: {entry}" for key, entry in value.items())
        return f"{{{text}}}" if len(text) <= LONGEST else f"{len(value)} entries ({_digest(value)})"
    if isinstance(value, list | tuple):
        text = ", ".join(map(str, value))
        return f"[{text}]" if len(text) <= LONGEST else f"{len(value)} names ({_digest(value)})"
    return shown_value(str(value))


def _part(eraser: Eraser) -> str:
    """An eraser that another one is made of, in brackets where settings follow its name."""
    label = label_of(eraser.name, eraser)
    return f"({label.text})" if label.options else label.text


def _digest(value: Any) -> str:
    """8 hex digits that tell long settings apart."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


def row_text(eraser: str, attack: str) -> str:
    """What a row is called: its eraser, and the attack it is under if it is under one."""
    return f"{eraser} + {attack}" if attack else eraser


def shown_row(text: str) -> str:
    """A row as people read it: ``none`` is the unedited model, also under an attack."""
    name, plus, attack = text.partition(" + ")
    return f"unedited{plus}{attack}" if name == UNEDITED else text


def short_rows(texts: Sequence[str]) -> dict[str, str]:
    """Rows as people read them where room is short: options of erasers and attacks are cut off, where no other row has that
    name.

    Args:
        texts: all rows that stand together, as tables call them.
    """
    names = {text: " + ".join(re.split(r" \w+=", part)[0] for part in shown_row(text).split(" + ")) for text in texts}
    counts = Counter(names.values())
    return {text: name if counts[name] == 1 else shown_row(text) for text, name in names.items()}
