"""Read prompt files as papers released them, from a path or a dataset on the Hugging Face Hub.

The whole file is checked before anything is returned, and whatever of it is not read is said in a note.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from erasebench.concepts import KINDS, ROLES
from erasebench.errors import UserError, suggest
from erasebench.prompts.convert import convert, held_out, number
from erasebench.prompts.formats import Table, read
from erasebench.prompts.prompt_set import PromptSet
from erasebench.prompts.schemas import COLUMN_SPELLINGS, identify, named, schemas, spelt
from erasebench.prompts.sources import fetch, find
from erasebench.recipe import LARGEST_SEED

__all__ = ["fetch", "load_prompts", "schemas"]

READER_VERSION = "2"
"""Raised when the same file would give other rows. 2: columns cfg, cfg_scale, negative and type, and lists, are read."""

_CONDITION = re.compile(r"(>=|<=|>|<)\s*(-?[0-9]+(?:\.[0-9]+)?)")


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
    missing_seed: int | None = None,
    empty: str | None = None,
    columns: Mapping[str, str] | None = None,
    sample: Sequence[int] | None = None,
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
        missing_seed: seed of all rows of a file without seeds (RECE and SAFREE: 42); by default each row has its own.
        empty: text in the place of empty prompts (``nan`` in the releases of ESD, UCE, RECE and MACE); by default they
            stay empty.
        columns: which column of the file is which of a prompt set's (``{"prompt": "text", "label": "animal"}``), where
            its name does not say so.
        sample: how many rows (of those that ``where`` lets through) are drawn by chance, and the random state of pandas that
            draws them: ``[1000, 2024]`` of EraseEval, ``[3000, 42]`` of RECE's validation.

    Raises:
        UserError: the file cannot be had, is not UTF-8 or is broken; the message names file, row, column and cure.
    """
    _check_options(schema=schema, kind=kind, role=role, label=label, revision=revision, empty=empty)
    if missing_seed is not None and (
        isinstance(missing_seed, bool) or not isinstance(missing_seed, int) or not 0 <= missing_seed <= LARGEST_SEED
    ):
        raise UserError(f"prompts.missing_seed={missing_seed}: give a whole number from 0 to {LARGEST_SEED}, or null")
    if role is not None and role not in (*ROLES, "file"):
        raise UserError(
            f"prompts.role={role}: give one of {', '.join(ROLES)}, file or null.{suggest(role, (*ROLES, 'file'))}"
        )
    if kind is not None and kind not in (*KINDS, "general"):
        raise UserError(f"prompts.kind={kind}: not one of {', '.join(KINDS)}, general.{suggest(kind, KINDS)}")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise UserError(f"prompts.limit={limit}: give a whole number of 1 or more, or null for all rows")
    if sample is not None and not (
        isinstance(sample, list | tuple)
        and len(sample) == 2
        and all(isinstance(number, int) and not isinstance(number, bool) for number in sample)
        and sample[0] >= 1
        and 0 <= sample[1] < 2**32
    ):
        raise UserError(
            f"prompts.sample={sample!r:.60}: give how many rows and a random state, e.g. [1000,2024], or null"
        )
    conditions = _conditions(where)
    path, came_from, pinning = find(source, revision)
    table = read(path, _named_columns(columns))
    own = _columns(columns, table)
    meant = [next((ours for ours, name in own.items() if name == column), column) for column in table.cells.columns]
    recognised = identify(meant, table.file, schema or "auto")
    recognised = replace(recognised, columns={**recognised.columns, **own})
    met = [_meets(table, column, wanted) for column, wanted in conditions.items()]
    looked_at = [spelt(column, list(table.cells.columns)) or column for column in conditions]
    rows, notes = convert(table, recognised, kind, (label or "").strip(), looked_at, missing_seed)
    unseen = held_out(table, recognised, rows.label.tolist())
    if recognised.note:
        notes.insert(0, recognised.note)
    notes += pinning
    rows = rows[[all(row) for row in zip(*met, strict=True)]] if met else rows
    if rows.empty:
        raise UserError(f"{table.file}: no row has {conditions}; loosen prompts.where")
    if sample is not None:
        if sample[0] > len(rows):
            raise UserError(
                f"prompts.sample={list(sample)}: {table.file} has {len(rows)} rows to draw from; give fewer"
            )
        rows = rows.sample(sample[0], random_state=sample[1])
        notes.append(f"{sample[0]} rows drawn by chance (random state {sample[1]})")
    if limit is not None and limit < len(rows):
        notes.append(f"the first {limit} of {len(rows)} rows")
        rows = rows[:limit]
    if blank := rows.prompt_id[rows.prompt == ""].tolist():
        kept = f"are drawn as {empty!r}, as prompts.empty says" if empty else "are kept as they are"
        notes.append(f"empty prompts {kept} (prompt_id {', '.join(blank[:5])}{' ...' if blank[5:] else ''})")
        rows = rows.assign(prompt=rows.prompt.replace("", empty or ""))
    if role == "file" and (rows.role == "").all():
        raise UserError(
            f"{table.file}: prompts.role=file, but the file has no column of roles; give erase, retain or null"
        )
    if role in ROLES:
        rows = rows.assign(role=role)
    elif (rows.label == "").all() and (rows.role == "").all():
        notes.append(
            "no column says what a prompt is about, so every prompt counts as general and none as erased; if they are "
            "about one concept say so with prompts.label=NAME or prompts.role=erase"
        )
    name = table.file.rpartition(".")[0]
    if conditions:
        name += f"[{','.join(f'{key}:{value}' for key, value in conditions.items())}]"
    return PromptSet(
        name=name,
        version=f"{recognised.name}-{READER_VERSION}",
        rows=rows,
        source=came_from,
        notes=tuple(notes),
        roles="task" if role is None else "rows",
        held_out=unseen,
    )


def _named_columns(columns: Mapping[str, str] | None) -> list[str]:
    """The file's columns that the user names.

    Raises:
        UserError: what was given does not say which is which.
    """
    if columns is not None and not isinstance(columns, Mapping):
        raise UserError(
            f"prompts.columns={columns!r:.60}: say which column is which, e.g. {{prompt: text, label: animal}}"
        )
    return [str(name) for name in (columns or {}).values()]


def _columns(columns: Mapping[str, str] | None, table: Table) -> dict[str, str]:
    """Which column of a table is which, as the user says; names as the file spells them.

    Raises:
        UserError: a column that no prompt set has, or the file.
    """
    names = list(table.cells.columns)
    own: dict[str, str] = {}
    for ours, theirs in (columns or {}).items():
        if ours not in COLUMN_SPELLINGS:
            hint = suggest(ours, COLUMN_SPELLINGS)
            raise UserError(
                f"prompts.columns: {ours!r} is no column of prompts.{hint} Known: {', '.join(COLUMN_SPELLINGS)}"
            )
        there = spelt(str(theirs), names)
        if there is None:
            raise UserError(f"{table.file}: prompts.columns.{ours}={theirs}: no such column.{suggest(str(theirs), names)} It has: {', '.join(names)}")  # fmt: skip
        if there in own.values():
            raise UserError(f"{table.file}: prompts.columns: {there!r} is named for two columns; it can be one")
        own[ours] = there
    return own


def _check_options(**options: Any) -> None:
    """Refuse a value that is no text where one is wanted, as a command line gives it for ``5`` or ``[a]``."""
    for name, value in options.items():
        if value is not None and not isinstance(value, str):
            raise UserError(f"prompts.{name}={value!r:.60}: give a text or null; a number goes in quotes: \"'5'\"")


def _conditions(where: Mapping[str, Any] | None) -> dict[str, Any]:
    """Conditions by column, each one a text or number or a list of them."""
    example = "e.g. 'prompts.where={nudity_percentage: \">50\"}'"
    if where is None:
        return {}
    if not isinstance(where, Mapping):
        raise UserError(f"prompts.where={where!r:.60}: give conditions on columns, {example}")
    for column, wanted in where.items():
        entries = list(wanted) if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
        if not isinstance(column, str) or not entries or not all(isinstance(one, str | int | float) for one in entries):
            raise UserError(
                f"prompts.where.{column}={wanted!r:.60}: give a text, a number or a list of them, {example}"
            )
    return dict(where)


def _meets(table: Table, column: str, wanted: Any) -> list[bool]:
    """Which rows meet a condition on a column of the file."""
    header = list(table.cells.columns)
    name = spelt(column, header)
    if name is None:
        raise UserError(
            f"prompts.where.{column}: {table.file} has no such column.{suggest(column, header)} It has {named(header)}"
        )
    cells = table.cells[name].tolist()
    condition = _CONDITION.fullmatch(wanted.strip()) if isinstance(wanted, str) else None
    if condition:
        compare = {">": float.__gt__, ">=": float.__ge__, "<": float.__lt__, "<=": float.__le__}[condition[1]]
        bound, met = float(condition[2]), []
        for row, text in enumerate(cells, 1):
            try:
                met.append(compare(number(text.strip()), bound))
            except ValueError as error:
                raise UserError(
                    f"{table.place(row, name)}: {error}, so {wanted!r} cannot be decided; use another column in "
                    "prompts.where"
                ) from error
        return met
    words = {str(value).strip().casefold() for value in ([wanted] if isinstance(wanted, str | int | float) else wanted)}
    return [bool(words & {part.strip().casefold() for part in (text, *text.split(","))}) for text in cells]
