"""From the cells of a prompt file to the rows of a prompt set, strictly: what cannot be read as it stands is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from erasebench.concepts import KINDS
from erasebench.errors import UserError
from erasebench.prompts.formats import Table
from erasebench.prompts.prompt_set import LARGEST_SIDE, PROMPT_DTYPES, hashed_seed
from erasebench.prompts.schemas import ROLE_OF_WORD, Schema, column_of, label_in, named, spelt
from erasebench.recipe import LARGEST_SEED

_WHOLE = re.compile(r"([+-]?[0-9]+)(\.0+)?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def convert(
    table: Table,
    schema: Schema,
    kind: str | None,
    label: str,
    asked: Sequence[str] = (),
    missing_seed: int | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a prompt set, and notes on what was added, is special, or was not read.

    Args:
        table: the file's cells.
        schema: what its columns mean.
        kind: kind of the concepts, where the file and its schema do not say.
        label: label of all rows, whose own labels are then not read; empty for those of the file.
        asked: columns that conditions look at.
        missing_seed: seed of all rows of a file without seeds; ``None`` for a hash of each row's number and prompt.

    Raises:
        UserError: a cell that is not what its column should hold; file, row, column and cure are named.
    """
    cells = _Cells(table, schema)
    notes = list(table.notes)
    prompts = cells.texts("prompt") or []
    identities = _identities(cells, notes)
    labels = _labels(cells, prompts, label, notes)
    roles = _roles(cells, notes)
    kinds = cells.convert("kind", _kind) or [""] * len(prompts)
    default = "general" if schema.kind == "general" else kind or schema.kind
    seeds = cells.convert("seed", _seed)
    if seeds is None and missing_seed is not None:
        seeds = [missing_seed] * len(prompts)
        notes.append(f"the file has no seeds; every row got {missing_seed}, as prompts.missing_seed says")
    elif seeds is None:
        seeds = [hashed_seed("prompt file", *pair) for pair in zip(identities, prompts, strict=True)]
        notes.append("the file has no seeds; each row got one that is a hash of its number and prompt")
    widths, heights = _sizes(cells, notes)
    columns = {
        "prompt_id": identities,
        "prompt": prompts,
        "negative_prompt": cells.texts("negative_prompt") or "",
        "seed": seeds,
        "guidance": cells.convert("guidance", _guidance) or float("nan"),
        "width": pd.array(widths, dtype="Int64"),
        "height": pd.array(heights, dtype="Int64"),
        "label": labels,
        "kind": [own or default for own in kinds],
        "role": roles,
    }
    unread = [name for name in table.cells if name not in cells.read | set(asked)]
    if unread:
        notes.append(f"not read: {'column' if len(unread) == 1 else 'columns'} {named(unread)}")
    return pd.DataFrame(columns, index=table.cells.index)[list(PROMPT_DTYPES)], notes


class _Cells:
    """The cells of a table by column of a prompt set; it remembers which columns were read."""

    def __init__(self, table: Table, schema: Schema) -> None:
        self.table, self.schema = table, schema
        self.names = list(table.cells.columns)
        self.read: set[str] = set()

    def column(self, target: str) -> str | None:
        return column_of(self.schema, target, self.names)

    def texts(self, target: str) -> list[str] | None:
        name = self.column(target)
        return None if name is None else self.take(name)

    def take(self, name: str) -> list[str]:
        self.read.add(name)
        return self.table.cells[name].tolist()

    def convert(self, target: str, converter: Callable[[str], Any]) -> list[Any] | None:
        """Convert a column; ``converter`` raises ValueError with what is wrong and the cure."""
        texts = self.texts(target)
        if texts is None:
            return None
        values = []
        for row, text in enumerate(texts, 1):
            try:
                values.append(converter(text.strip()))
            except ValueError as error:
                raise UserError(f"{self.place(row, target)}: {error}") from error
        return values

    def place(self, row: int, target: str) -> str:
        return self.table.place(row, self.column(target))


def _identities(cells: _Cells, notes: list[str]) -> list[str]:
    """Case numbers (or ids) if every row has its own, else row numbers from 1."""
    texts = cells.texts("prompt_id")
    rows = [str(row) for row in range(1, len(cells.table.cells) + 1)]
    if texts is None:
        return rows
    values = [text.strip() for text in texts]
    values = [whole[1] if (whole := _WHOLE.fullmatch(text)) else text for text in values]
    first: dict[str, int] = {}
    for row, value in enumerate(values, 1):
        if not value or value in first:
            what = f"{value[:40]!r} is in rows {first[value]} and {row}" if value else f"it is empty in row {row}"
            notes.append(f"column {cells.column('prompt_id')!r} does not number the rows ({what}); row numbers do")
            return rows
        first[value] = row
    return values


def _labels(cells: _Cells, prompts: Sequence[str], label: str, notes: list[str]) -> list[str]:
    """The concept that each prompt asks for; empty where none is named."""
    if label:
        return [label] * len(prompts)
    texts = cells.texts("label")
    labels = (
        [label_in(cells.schema, prompt) for prompt in prompts] if texts is None else [text.strip() for text in texts]
    )
    if cells.schema.label_patterns and "" in labels:
        notes.append(f"{labels.count('')} prompts fit none of the templates and have no label")
    if texts and any(labels) and all(_WHOLE.fullmatch(text) for text in labels if text):
        notes.append(
            f"the labels (column {cells.column('label')!r}, {len(set(labels))} of them) are numbers, not names; if they "
            "are no concepts, rename that column"
        )
    return labels


def _roles(cells: _Cells, notes: list[str]) -> list[str]:
    """Why each prompt is there, where the file says so: in a column of roles, or of types that are all roles."""
    roles = cells.convert("role", _role)
    column = cells.column("role")
    if roles is None and (column := spelt("type", cells.names)):
        words = {text.strip().casefold() for text in cells.table.cells[column]}
        if words <= set(ROLE_OF_WORD) and words != {""}:
            roles = [_role(text.strip()) for text in cells.take(column)]
            meant = ", ".join(f"{word} = {ROLE_OF_WORD[word]}" for word in sorted(words - {""}))
            notes.append(f"column {column!r} is read as roles: {meant}")
    if roles is None:
        return [cells.schema.role] * len(cells.table.cells)
    if "holdout" in set(cells.table.cells[column].str.strip().str.casefold()):
        notes.append("holdout rows count as retain")
    return roles


def held_out(table: Table, schema: Schema, labels: Sequence[str]) -> tuple[str, ...]:
    """The labels of rows that a file marks as held out: concepts to be kept that no eraser may be told of.

    Args:
        labels: of all rows of the table.
    """
    names = list(table.cells.columns)
    column = column_of(schema, "role", names) or spelt("type", names)
    words = table.cells[column].str.strip().str.casefold() if column else []
    return tuple(
        dict.fromkeys(label for label, word in zip(labels, words, strict=False) if word == "holdout" and label)
    )


def _sizes(cells: _Cells, notes: list[str]) -> tuple[Sequence[int | None], Sequence[int | None]]:
    """Widths and heights in pixels; both or neither in a row."""
    sides = {
        side: cells.convert(side, lambda text: _side(text, cells.schema.round_size)) for side in ("width", "height")
    }
    none = [None] * len(cells.table.cells)
    widths, heights = sides["width"] or none, sides["height"] or none
    for row, (width, height) in enumerate(zip(widths, heights, strict=True), 1):
        if (width is None) != (height is None):
            given, absent = ("width", "height") if height is None else ("height", "width")
            raise UserError(f"{cells.place(row, given)}: a {given} without a {absent}; give both or neither")
    if cells.schema.round_size and sides["width"]:
        notes.append("sizes of photographs are rounded down to a multiple of 8")
    return widths, heights


def number(text: str) -> float:
    """A finite number as people write one.

    Raises:
        ValueError: it is none.
    """
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    if not math.isfinite(value):
        raise ValueError(f"{text[:60]!r} is not a number")
    return value


def _whole(text: str) -> int:
    match = _WHOLE.fullmatch(text)
    if not match or len(match[1]) > 40:
        raise ValueError(f"{text[:60]!r} is not a whole number; write it in digits only")
    return int(match[1])


def _seed(text: str) -> int:
    if not text:
        raise ValueError("the seed is missing; give one, or delete the whole column to have seeds made")
    seed = _whole(text)
    if not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed {seed} is out of range; give one in 0..2**63-1")
    return seed


def _guidance(text: str) -> float:
    if not text:
        return float("nan")
    try:
        value = number(text)
    except ValueError as error:
        raise ValueError(f"{error}; give one, or leave the cell empty to use the protocol's guidance") from error
    if value < 0:
        raise ValueError(f"guidance {text} is negative; give 0 or more")
    return value


def _side(text: str, rounded: bool) -> int | None:
    if not text:
        return None
    pixels = _whole(text)
    if rounded:
        pixels -= pixels % 8
    if not 0 < pixels <= LARGEST_SIDE or pixels % 8:
        raise ValueError(f"{text[:60]} pixels; give a positive multiple of 8, {LARGEST_SIDE} at most")
    return pixels


def _role(text: str) -> str:
    word = text.casefold()
    if word not in ROLE_OF_WORD:
        raise ValueError(f"{text[:60]!r} is no role; known: {', '.join(word for word in ROLE_OF_WORD if word)}")
    return ROLE_OF_WORD[word]


def _kind(text: str) -> str:
    if text and text not in (*KINDS, "general"):
        raise ValueError(f"{text[:60]!r} is no kind of concept; known: {', '.join(KINDS)}, general")
    return text
