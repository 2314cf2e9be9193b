"""The error class a user is meant to read, and helpers for texts that are shown: misspelt names, signs that steer."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """Bad input or a missing requirement; the message names the thing, the place and the cure."""


class Damaged(UserError):
    """A file of ours whose content cannot be what was written: cut, changed, of another kind.

    Only what fails to parse is damaged. An error that passes (a disk that does not answer, too many open files, memory
    that ran out) never is.

    Args:
        path: the file.
        why: what is wrong with it.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is damaged ({why}); give the command that made it again, it will be made anew")
        self.path, self.why = path, why


def suggest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the entry of `known` nearest to `name`, or "" if none is near.

    Case is ignored, and a name that is a whole word of a known one counts as near ("Einstein").
    """
    lowered = {entry.lower(): entry for entry in known}
    wanted = name.lower().strip()
    near = difflib.get_close_matches(wanted, lowered, n=1, cutoff=0.6)
    if not near:
        near = [entry for entry in lowered if wanted and wanted in entry.split()]
    return f" Did you mean '{lowered[near[0]]}'?" if near else ""


def printable(text: str) -> str:
    r"""A text in which no sign steers a terminal or turns the direction of what follows: such a sign is shown by its code
    (``\x1b``). Line breaks, tabs and all kinds of spaces stay."""
    return "".join(
        sign
        if sign.isprintable() or sign in "\n\t" or unicodedata.category(sign) == "Zs"
        else sign.encode("unicode_escape").decode("ascii")
        for sign in text
    )
