"""Lists of texts read from a file for an eraser: names to keep or to tell apart, and captions whose rows are kept.

A method never sees a prompt set: it gets the texts as values, and says them in its settings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from erasebench.errors import UserError
from erasebench.prompts.formats import Table, read
from erasebench.prompts.schemas import named, spelt
from erasebench.prompts.sources import find

NAMES = ("concept", "name", "artist", "noun")
CAPTIONS = ("prompt", "caption", "text", "name", "concept")
"""Columns that hold the texts of a table, the first one that it has. A list of one text a line has no header."""


def read_names(source: str | Path, option: str = "source") -> tuple[str, ...]:
    """Names of concepts from a file, as SPEED's ``style.csv`` (``id,concept``), or one a line of a ``.txt``.

    A ``.txt`` may also be one line of JSON, a list of texts, as UCE writes what it erased. All are kept in their order, also one that comes twice, because it then weighs twice in an eraser.

    Args:
        source: a path, or a dataset on the Hugging Face Hub (:func:`erasebench.prompts.sources.find`).
        option: what to call the option in messages, e.g. ``method.retain``.

    Raises:
        UserError: no such file, none of the columns :data:`NAMES`, or a name is empty.
    """
    table, column = _table(source, option, NAMES, "names")
    names = _json_list([text.strip() for text in table.cells[column]])
    if "" in names:
        raise UserError(f"{table.place(names.index('') + 1, column)}: the name is empty; fill it in or delete the row")
    return tuple(names)


def read_captions(source: str | Path, option: str = "source") -> tuple[str, ...]:
    """Captions (prompts) from a file: a column of :data:`CAPTIONS`, or one a line of a ``.txt``, repeats kept.

    Args:
        source, option: as :func:`read_names` takes them.

    Raises:
        UserError: no such file, or none of those columns.
    """
    table, column = _table(source, option, CAPTIONS, "prompts")
    return tuple(table.cells[column])


def _json_list(names: list[str]) -> list[str]:
    """The texts of a list of JSON that stands in a single cell; other names as they are."""
    if len(names) != 1 or not names[0].startswith("["):
        return names
    try:
        listed = json.loads(names[0])
    except ValueError:
        return names
    return [text.strip() for text in listed] if all(isinstance(text, str) for text in listed) else names


def _table(source: str | Path, option: str, columns: Sequence[str], what: str) -> tuple[Table, str]:
    table = read(find(source, None, option)[0])
    header = list(table.cells.columns)
    column = (
        header[0] if not table.header else next((there for name in columns if (there := spelt(name, header))), None)
    )
    if column is None:
        raise UserError(
            f"{table.file}: no column of {what} ({', '.join(columns)}); it has {named(header)}. "
            "Rename the column that holds them; a list without a header is a .txt file"
        )
    return table, column
