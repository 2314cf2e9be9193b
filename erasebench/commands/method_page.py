"""``erasebench show method NAME``: what an eraser does, by which paper, where its release differs, and its options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from erasebench.commands.list import chosen_options, eraser_classes
from erasebench.commands.protocol_page import wrapped
from erasebench.config.choices import first_comment, groups, option_text
from erasebench.errors import UserError, suggest


def page(name: str) -> str:
    """All of an option of ``method`` for people.

    Raises:
        UserError: no such option.
    """
    known = groups()["method"]
    if name not in known:
        raise UserError(f"show method {name}: no such method.{suggest(name, known)} Known: {', '.join(known)}")
    lines = [f"method {name}", *wrapped(first_comment("method", name), 0)]
    for kind in eraser_classes(name):
        lines += ["", f"{kind.name}, version {kind.version}: {kind.describe}", "", *_about(kind)]
        for family, why in kind.unsupported.items():
            lines += wrapped(f"not for {family}: {why}", 2)
    for option in chosen_options(name):
        if options := list(_options(option)):
            lines += ["", f"options of {option} (method.NAME=VALUE) and what they are if not given", *options]
    return "\n".join([*lines, "", f"use it with: erasebench run method={name}"])


def _about(kind: type[Any]) -> Iterator[str]:
    """What a class says of itself, without what it raises and without the marks of the documentation's format."""
    text = re.split(r"\n(?:Raises|Class attributes):\n", inspect.getdoc(kind) or "")[0]
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", text).replace("``", "")
    yield from (f"  {line}".rstrip() for line in text.strip().splitlines())


def _options(option: str) -> Iterator[str]:
    """The lines of an option's file that set something, with the comments behind them."""
    inside = False
    for line in option_text("method", option).splitlines():
        if line.startswith("defaults:"):
            inside = line.rstrip() == "defaults:"
        elif inside and line.startswith((" ", "-")):
            continue
        elif line.strip() and not line.startswith(("#", "_target_")):
            inside = False
            yield f"  {line}"
