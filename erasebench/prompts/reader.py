"""Read prompt files as papers released them: CSV or Parquet, from a path or a dataset on the Hugging Face Hub.

Every cell is read as text and converted strictly, so an empty prompt stays empty, ``Null`` stays a word and a 64-bit
seed keeps all its digits. The whole file is checked before anything is returned.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from erasebench.concepts import KINDS, ROLES
from erasebench.errors import UserError, suggest
from erasebench.prompts.prompt_set import MAX_SEED, PROMPT_DTYPES, PromptSet, hashed_seed
from erasebench.prompts.schemas import ROLE_OF_WORD, Schema, column_of, identify, label_in, schemas
from erasebench.prompts.sources import fetch, find, place_of, read

__all__ = ["fetch", "load_names", "load_prompts", "schemas"]

READER_VERSION = "1"
"""Raised when the same file would give other rows."""

_WHOLE = re.compile(r"([+-]?\d+)(\.0+)?")
_CONDITION = re.compile(r"(>=|<=|>|<)\s*(-?\d+(?:\.\d+)?)")


def load_prompts(
    source: str | Path,
    *,
    schema: str = "auto",
    kind: str | None = None,
    limit: int | None = None,
    role: str | None = None,
    label: str | None = None,
    revision: str | None = None,
    where: Mapping[str, Any] | None = None,
) -> PromptSet:
    """Read a prompt file of any schema of :func:`schemas`.

    Args:
        source: a path, a dataset on the Hub (``owner/name``), or one file of it (``owner/name/folder/file.csv``).
        schema: name of a schema; ``auto`` recognises it by its columns.
        kind: kind of the concepts; default is what the schema says.
        limit: keep the first rows only (of those that ``where`` lets through).
        role: ``erase``, ``retain`` or ``general`` for all rows; ``file``: the file's own roles hold even for labels
            the task does not know. By default the task decides for rows that have a label.
        label: label of all rows, for files about one concept that have no label column.
        revision: commit, tag or branch of a Hub dataset.
        where: conditions on the file's own columns, all of which must hold: a number condition (``">50"``), a value,
            or a list of values; a cell that lists several (``"violence, self-harm"``) matches each of them.

    Raises:
        UserError: the file cannot be had, is not UTF-8 or is broken; the message names file, row, column and cure.
    """
    if role is not None and role not in (*ROLES, "file"):
        raise UserError(f"prompts.role={role}: give one of {', '.join(ROLES)}, file or null")
    if kind is not None and kind not in (*KINDS, "general"):
        raise UserError(f"prompts.kind={kind}: not one of {', '.join(KINDS)}, general.{suggest(kind, KINDS)}")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise UserError(f"prompts.limit={limit}: give a whole number of 1 or more, or null for all rows")
    path, came_from, pinning = find(source, revision)
    table = read(path)
    found = identify(list(table.columns), path.name, schema)
    rows, notes = _convert(table, found, path.name, kind, label)
    if found.note:
        notes.insert(0, found.note)
    notes += pinning
    if where:
        rows = rows[_matches(table, where, path.name)]
    if rows.empty:
        raise UserError(f"{path.name}: no row has {dict(where or {})}; loosen prompts.where")
    if limit is not None and limit < len(rows):
        notes.append(f"the first {limit} of {len(rows)} rows")
        rows = rows[:limit]
    empty = rows.prompt_id[rows.prompt == ""].tolist()
    if empty:
        notes.append(
            f"empty prompts are kept as they are (prompt_id {', '.join(empty[:5])}{' ...' if empty[5:] else ''})"
        )
    if role == "file" and (rows.role == "").all():
        raise UserError(
            f"{path.name}: prompts.role=file, but the file has no column of roles; give erase, retain or null"
        )
    if role in ROLES:
        rows = rows.assign(role=role)
    elif (rows.label == "").all() and (rows.role == "").all():
        notes.append("no column says what a prompt is about, so rows count as general; give prompts.label or .role")
    name = path.stem if not where else f"{path.stem}[{','.join(f'{key}:{value}' for key, value in where.items())}]"
    return PromptSet(
        name=name,
        version=f"{found.name}-{READER_VERSION}",
        rows=rows,
        source=came_from,
        notes=tuple(notes),
        roles="task" if role is None else "rows",
    )


def load_names(source: str | Path, *, revision: str | None = None) -> tuple[str, ...]:
    """Read a list of names, as SPEED's ``style.csv`` (``id,concept``), for a retain list.

    All rows are kept in their order, also a name that comes twice, because it then weighs twice in an eraser.

    Raises:
        UserError: as :func:`load`, or there is no column ``concept`` or ``name``, or a name is empty.
    """
    path, _, _ = find(source, revision)
    table = read(path)
    column = next((name for name in ("concept", "name") if name in table), None)
    if column is None:
        raise UserError(f"{path.name}: no column 'concept' or 'name'; it has {', '.join(map(repr, table.columns))}")
    names = table[column].str.strip()
    for row, name in enumerate(names, 1):
        if not name:
            raise UserError(f"{place_of(path.name, row, column)}: the name is empty; fill it in or delete the row")
    return tuple(names)


class _Cells:
    """The cells of a table by column of a prompt set, and converting them with an error that says where."""

    def __init__(self, table: pd.DataFrame, schema: Schema, file: str) -> None:
        self.table, self.schema, self.file = table, schema, file
        self.cases = table["case_number"].tolist() if "case_number" in table else None

    def column(self, target: str) -> str | None:
        return column_of(self.schema, target, self.table.columns)

    def texts(self, target: str) -> list[str] | None:
        name = self.column(target)
        return None if name is None else self.table[name].tolist()

    def convert(self, target: str, convert: Callable[[str], Any]) -> list[Any] | None:
        """Convert a column; ``convert`` raises ValueError with what is wrong and the cure."""
        texts = self.texts(target)
        if texts is None:
            return None
        values = []
        for row, text in enumerate(texts, 1):
            try:
                values.append(convert(text.strip()))
            except ValueError as error:
                raise UserError(f"{self.place(row, target)}: {error}") from error
        return values

    def place(self, row: int, target: str) -> str:
        return place_of(self.file, row, self.column(target), self.cases[row - 1] if self.cases else None)


def _convert(
    table: pd.DataFrame, schema: Schema, file: str, kind: str | None, label: str | None
) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a prompt set from the cells of a file, and notes on what was added or is special."""
    cells = _Cells(table, schema, file)
    notes: list[str] = []
    prompts = cells.texts("prompt")
    identities = _identities(cells)
    labels = [label] * len(table) if label else cells.texts("label")
    labels = [text.strip() for text in labels] if labels else [label_in(schema, text) for text in prompts]
    if schema.label_patterns and "" in labels:
        notes.append(f"{labels.count('')} prompts fit none of the templates and have no label")
    roles = cells.convert("role", _role) or [schema.role] * len(table)
    if "role" in schema.columns and "holdout" in set(table[schema.columns["role"]].str.strip().str.casefold()):
        notes.append("holdout rows count as retain")
    kinds = cells.convert("kind", _kind) or [""] * len(table)
    default = "general" if schema.kind == "general" else kind or schema.kind
    seeds = cells.convert("seed", _seed)
    if seeds is None:
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
    return pd.DataFrame(columns, index=table.index)[list(PROMPT_DTYPES)], notes


def _identities(cells: _Cells) -> list[str]:
    """Case numbers (or ids) if every row has its own, else row numbers from 1."""
    column = cells.column("prompt_id")
    rows = [str(row) for row in range(1, len(cells.table) + 1)]
    if column is None:
        return rows
    values = [text.strip() for text in cells.table[column]]
    values = [whole[1] if (whole := _WHOLE.fullmatch(text)) else text for text in values]
    strict = column in ("case_number", "prompt_id")
    first: dict[str, int] = {}
    for row, value in enumerate(values, 1):
        if strict and not value:
            raise UserError(f"{place_of(cells.file, row, column)}: empty; number every row, or delete the column")
        if value in first and strict:
            raise UserError(
                f"{place_of(cells.file, row, column)}: {value!r} is in row {first[value]} too; number the rows uniquely"
            )
        first.setdefault(value, row)
    return values if len(first) == len(rows) else rows


def _sizes(cells: _Cells, notes: list[str]) -> tuple[Sequence[int | None], Sequence[int | None]]:
    """Widths and heights in pixels; both or neither in a row."""
    sides = {
        side: cells.convert(side, lambda text: _side(text, cells.schema.round_size)) for side in ("width", "height")
    }
    none = [None] * len(cells.table)
    widths, heights = sides["width"] or none, sides["height"] or none
    for row, (width, height) in enumerate(zip(widths, heights, strict=True), 1):
        if (width is None) != (height is None):
            given, absent = ("width", "height") if height is None else ("height", "width")
            raise UserError(f"{cells.place(row, given)}: a {given} without a {absent}; give both or neither")
    if cells.schema.round_size and sides["width"]:
        notes.append("sizes of photographs are rounded down to a multiple of 8")
    return widths, heights


def _whole(text: str) -> int:
    match = _WHOLE.fullmatch(text)
    if not match or len(match[1]) > 40:
        raise ValueError(f"{text[:60]!r} is not a whole number; write it in digits only")
    return int(match[1])


def _seed(text: str) -> int:
    if not text:
        raise ValueError("the seed is missing; give one, or delete the whole column to have seeds made")
    seed = _whole(text)
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed {seed} is out of range; give one in 0..2**63-1")
    return seed


def _guidance(text: str) -> float:
    if not text:
        return float("nan")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not math.isfinite(value):
        raise ValueError(
            f"{text[:60]!r} is not a number; give one, or leave the cell empty to use the protocol's guidance"
        )
    if value < 0:
        raise ValueError(f"guidance {text} is negative; give 0 or more")
    return value


def _side(text: str, rounded: bool) -> int | None:
    if not text:
        return None
    pixels = _whole(text)
    if rounded:
        pixels -= pixels % 8
    if pixels <= 0 or pixels % 8:
        raise ValueError(f"{text} pixels; give a positive multiple of 8")
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


def _matches(table: pd.DataFrame, where: Mapping[str, Any], file: str) -> list[bool]:
    """Which rows meet all conditions."""
    keep = [True] * len(table)
    for column, wanted in where.items():
        if column not in table:
            raise UserError(
                f"prompts.where.{column}: {file} has no such column.{suggest(column, table.columns)} "
                f"It has {', '.join(map(repr, table.columns))}"
            )
        condition = _CONDITION.fullmatch(wanted.strip()) if isinstance(wanted, str) else None
        values = [wanted] if isinstance(wanted, str | int | float) else list(wanted)
        words = {str(value).strip().casefold() for value in values}
        for row, text in enumerate(table[column]):
            if condition:
                try:
                    number = float(text)
                except ValueError as error:
                    raise UserError(
                        f"{place_of(file, row + 1, column)}: {text[:60]!r} is not a number, so "
                        f"{wanted!r} cannot be decided; use another column in prompts.where"
                    ) from error
                bound = float(condition[2])
                met = {">": number > bound, ">=": number >= bound, "<": number < bound, "<=": number <= bound}[
                    condition[1]
                ]
            else:
                met = bool(words & {text.strip().casefold(), *(part.strip().casefold() for part in text.split(","))})
            keep[row] = keep[row] and met
    return keep
