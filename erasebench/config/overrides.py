"""Overrides as people type them, spelt as Hydra takes them, and why one cannot be read.

Hydra's grammar has its own ideas of what a text, a list and an open mapping look like. What is meant without doubt is
respelt; the rest is refused with the spelling that works.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from erasebench.errors import UserError

OPEN_MAPPINGS = re.compile(
    r"(protocol\.(scheduler_config|editing)|prompts\.where|prompts\.(columns|sample)|task\.(\w+\.)?(phrases|indirect|near|keep|add))(\.\S+)?"
)
"""Keys that need not be there, or below which anything may stand; Hydra wants ``++`` before a new one."""

ONE_OF = ("model", "prompts", "protocol", "experiment", "sweep")
"""Groups of which a run has one option: Hydra would merge a list of them into something that nobody asked for."""


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Overrides as Hydra reads them.

    Raises:
        UserError: one cannot be read; it says how it would be.
    """
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            (override,) = parser.parse_overrides([text])
        except HydraException as error:
            raise UserError(_unreadable(text)) from error
        if not override.key_or_group:
            raise UserError(f"{text}: write key=value, e.g. task=object")
        parsed.append(override)
    return parsed


def respelt(text: str) -> str:
    """An override that Hydra would refuse though it can mean one thing only, as Hydra takes it; any other unchanged.

    A text with signs that the grammar does not know (``prompts.source=14_été.csv``) is quoted, ``~/`` is the home
    folder, a key of :data:`OPEN_MAPPINGS` gets ``++``.
    """
    key, sign, value = text.partition("=")
    if value.startswith("~/"):
        value = os.path.expanduser(value)
        text = f"{key}={value}"
    if sign and _reads(text) is None and not re.search(r"""[\[\]{}()'",\\\n]|\$\{|^\s|\s$""", value):
        text = f"{key}={quoted(value)}"
    return f"++{text}" if OPEN_MAPPINGS.fullmatch(key) and sign else text


def quoted(value: str) -> str:
    """A text as Hydra's grammar takes it, whatever signs are in it but line breaks."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _reads(text: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        return None


def _unreadable(text: str) -> str:
    """Why an override cannot be read, with a spelling of it that can, if one is found."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip() or key != key.strip():
        return f"{text}: write key=value without blanks around the sign, e.g. task=object"
    if re.search(r"\s[\w.@+~]+=", value):
        return f"{text}: several overrides in one word; take the quotes around them away"
    inner = value.strip().removeprefix("[").removesuffix("]")
    quoted_list = "[" + ",".join(quoted(part.strip().strip("'\"")) for part in inner.split(",")) + "]"
    for spelling in [quoted_list] if value.strip().startswith("[") else [quoted(value)]:
        if _reads(f"{key}={spelling}") is not None:
            return f"{text}: the value cannot be read as it is; put it in quotes: {shlex.quote(f'{key}={spelling}')}"
    return f"{text}: the value cannot be read; quote each text in it, and close every bracket and quote"
