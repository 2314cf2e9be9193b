"""File names of pages: safe in a path and in a link, and one for each thing, however things are called."""

from __future__ import annotations

import re
from collections.abc import Hashable


class Names:
    """Gives each thing a file name made of what it is called; two things never get the same."""

    def __init__(self, *taken: str) -> None:
        self._names: dict[Hashable, str] = {}
        self._taken = set(taken)

    def __call__(self, thing: Hashable, text: str) -> str:
        """The name of a thing, the same at every call: lower case letters, digits and hyphens."""
        if thing not in self._names:
            slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "page"
            name, number = slug, 1
            while name in self._taken:
                number += 1
                name = f"{slug}-{number}"
            self._taken.add(name)
            self._names[thing] = name
        return self._names[thing]
