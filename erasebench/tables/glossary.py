"""What the words and columns of tables mean, and what a metric is called where people read: from ``data/glossary.csv``."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

from erasebench.errors import UserError, suggest


@dataclass(frozen=True)
class Term:
    """A word of the tables.

    Attributes:
        term: as it is asked for: a word, the name of a metric or cost, or a family of metrics (``kid_*``).
        heading: what stands above a column of it.
        scale: its unit, or the range of its values.
        better: where better is.
        words: what it is.
    """

    term: str
    heading: str
    scale: str
    better: str
    words: str

    @property
    def text(self) -> str:
        """All of it in a line or two."""
        scale = f" [{self.scale}]" if self.scale else ""
        return f"{self.heading}{scale}{f', {self.better} is better' if self.better else ''}: {self.words}"


@cache
def glossary() -> dict[str, Term]:
    """Every term by its name, in the order of the file."""
    with files("erasebench").joinpath("data", "glossary.csv").open("r", encoding="utf-8") as file:
        return {row["term"]: Term(**row) for row in csv.DictReader(file)}


def look_up(name: str) -> Term | None:
    """The term of a metric, cost or word: its own, else that of its family; ``None`` if there is none.

    Args:
        name: without a version; case does not matter.
    """
    folded = name.casefold()
    return next((term for entry, term in glossary().items() if fnmatchcase(folded, entry.casefold())), None)


def heading(name: str) -> str:
    """What stands above a column of a metric or cost: ``judge`` is ``recognised``. An unknown name stands for itself.

    Of a family whose members share a heading the member's own word stands in brackets: ``KID (inception)``.
    """
    for mark in ("H ", ""):
        if name.startswith(mark):
            own = name.removeprefix(mark)
            term = look_up(own)
            if term is None:
                return name
            member = own.removeprefix(term.term.rstrip("*")) if term.term.endswith("*") else ""
            bracket = f" ({member.replace('_', ' ')})" if member and member != "embedded" else ""
            return f"H ({term.heading}{bracket})" if mark else f"{term.heading}{bracket}"
    return name


def words_of_heading(text: str) -> str:
    """What the column with a head is, by the term whose heading the head begins with; empty if it is none."""
    named = [term for term in glossary().values() if term.better and text.startswith(term.heading)]
    return max(named, key=lambda term: len(term.heading)).words if named else ""


def explain(name: str) -> str:
    """A term in words; all of them, a line each, where no name is given.

    Raises:
        UserError: no such term, with the nearest.
    """
    if not name:
        return "\n".join(f"{term.term}: {term.text}" for term in glossary().values())
    term = look_up(name.strip())
    if term is None:
        headed = {entry.heading.casefold(): entry for entry in glossary().values()}
        term = headed.get(name.strip().casefold())
    if term is None:
        raise UserError(
            f"explain {name}: no such term.{suggest(name, glossary())} Known: {', '.join(glossary())}; erasers: "
            "erasebench show method NAME; protocols: erasebench show protocol NAME"
        )
    return term.text
