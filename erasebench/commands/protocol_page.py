"""``erasebench show protocol NAME``: every choice of a protocol, with where it was read."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from erasebench.config.choices import groups
from erasebench.config.protocol import OBEYED, Protocol, shipped, shown
from erasebench.errors import UserError, suggest

WIDTH = 100
"""Columns of a page."""


def page(name: str) -> str:
    """All of a protocol for people: every choice with where it was read, what is unsure, what differs, known defects.

    Raises:
        UserError: no such protocol.
    """
    protocol = shipped(name)
    if protocol is None:
        known = groups()["protocol"]
        raise UserError(f"show protocol {name}: no such protocol.{suggest(name, known)} Known: {', '.join(known)}")
    lines = [f"protocol {name}, version {protocol.version}, hash {protocol.hash}", *_comment(name), ""]
    lines += ["how images are made (obeyed; part of the key of every image)"]
    lines += choices_of(protocol, OBEYED)
    lines += ["", "what its numbers mean"]
    for key, title in (
        ("prompts", "prompt sets"), ("metrics", "metrics (conf/metric)"), ("counting", "counting rules"),
        ("lacks", "not built here: such numbers are published ones or 'not run'"),
    ):  # fmt: skip
        if chosen := getattr(protocol, key):
            lines += [f"  {title}{_cited(protocol, key)}", *entries(chosen)]
    for key, title in (("differs", "what a run here does otherwise"), ("unsure", "unsure")):
        if chosen := getattr(protocol, key):
            lines += ["", title, *entries(chosen, 2)]
    if protocol.defects:
        lines += ["", "known defects of the release (off here)"]
        for defect, about in protocol.defects.items():
            lines += wrapped(f"{defect}: {about['what']} [{about['read']}]", 2)
            variant = " ".join(about["as_released"])
            lines += wrapped(f"as released: {variant}" if variant else "told here; not reproduced", 6)
    lines += ["", f"use it with: erasebench run protocol={name}"]
    return "\n".join(lines)


def _comment(name: str) -> Iterator[str]:
    from erasebench.config.choices import first_comment

    yield from wrapped(first_comment("protocol", name), 0)


def choices_of(protocol: Protocol, keys: tuple[str, ...]) -> Iterator[str]:
    """Lines of some choices of a protocol, with where they were read."""
    for key in keys:
        if key == "editing" and not protocol.editing:  # of few protocols
            continue
        mark = " (unsure)" if key in protocol.unsure else ""
        yield from wrapped(f"{key:<18} {shown(getattr(protocol, key))}{_cited(protocol, key)}{mark}", 2, hang=19)


def _cited(protocol: Protocol, key: str) -> str:
    """Where a choice was read, in brackets; nothing for one that no source speaks of."""
    cites = protocol.cites
    text = cites.get(key) or cites.get("all", "")
    return f"  [{text}]" if text else ""


def entries(values: Any, indent: int = 4) -> Iterator[str]:
    """Lines of named texts, or of texts."""
    for entry in values.items() if isinstance(values, dict) else values:
        yield from wrapped(": ".join(entry) if isinstance(entry, tuple) else entry, indent)


def wrapped(text: str, indent: int, hang: int = 2) -> list[str]:
    """A text in lines of :data:`WIDTH`, all but the first further in by ``hang``."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hang),
        break_on_hyphens=False,
        break_long_words=False,
    )
