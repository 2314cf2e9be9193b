"""Prompt files as tables of texts: CSV, TSV, JSON lines, Parquet, and lists of one prompt a line.

Nothing is converted here: an empty cell stays empty, ``Null`` stays a word, and a seed keeps all its digits.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from erasebench.errors import UserError
from erasebench.prompts.schemas import KNOWN, named

SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt", ".parquet")
"""What a prompt file may end in."""

MOST_COLUMNS = 1000
"""A file with more is no prompt file, and would take hours to look through."""

LONGEST = 131_072
"""Characters of one cell; a longer one is a file that was not split into rows."""

LISTED = "prompt"
"""What the only column of a list is called."""

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_INDEX = re.compile(r"Unnamed: [\d.]+|index|__index_level_\d+__|")
_LINE_END = re.compile(r"\r\n|\n|\r")  # str.splitlines also splits at signs that a learned prompt may hold


@dataclass(frozen=True)
class Table:
    """The cells of a file.

    Attributes:
        file: its name, for messages.
        cells: one text a cell; every column has a name of its own.
        notes: what a reader of numbers should know about how it was read.
        lines: the line that each row is on, for files that a spreadsheet does not show.
        header: whether the file names its columns; a list has one column, :data:`LISTED`, and no name for it.
    """

    file: str
    cells: pd.DataFrame
    notes: tuple[str, ...] = ()
    lines: tuple[int, ...] = ()
    header: bool = True

    def place(self, row: int, column: str | None = None) -> str:
        """Where something is. Rows count from 1; a spreadsheet counts the header too."""
        where = f"line {self.lines[row - 1]}" if self.lines else f"row {row} (spreadsheet row {row + 1}"
        if not self.lines:
            case = self.cells["case_number"].iloc[row - 1] if "case_number" in self.cells else ""
            where += f", case {case[:40]})" if case else ")"
        return f"{self.file} {where}" + (f", column {column[:60]!r}" if column else "")


def read(path: Path, columns: Iterable[str] = ()) -> Table:
    """All cells of a file as text, without a leading index column and columns that have no name.

    Args:
        path: the file.
        columns: names that a header of it has, beside those by which any header is known.

    Raises:
        UserError: it is empty, cut off, no UTF-8, no table, or far too large for a prompt file; file, row and cure
            are named.
    """
    suffix = path.suffix.lower()
    file = path.name.encode("utf-8", "backslashreplace").decode()  # a name may hold bytes that are no text
    if suffix == ".parquet":
        table = Table(file, _parquet(file, path))
    elif suffix == ".jsonl":
        table = _json_lines(file, _text(file, path))
    elif suffix == ".txt":
        table = _list(file, _text(file, path), ())
    else:
        table = _separated(file, _text(file, path), "\t" if suffix == ".tsv" else ",", KNOWN | _folded(columns))
    cells = table.cells
    if not len(cells):
        raise UserError(f"{file}: no rows below the header; is this the right file?")
    if len(cells.columns) > 1 and _INDEX.fullmatch(cells.columns[0]):
        cells = cells.iloc[:, 1:]
    cells = cells.loc[:, [name != "" for name in cells.columns]]
    for column in cells:
        longest = max(map(len, cells[column]))
        if longest > LONGEST:
            row = next(row for row, text in enumerate(cells[column], 1) if len(text) == longest)
            raise UserError(f"{table.place(row, column)}: {longest} characters in one cell; put one prompt into a row")
    return Table(table.file, cells, table.notes, table.lines, table.header)


def _text(file: str, path: Path) -> str:
    """A file as text, or why it is none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error}); check its permissions") from error
    if content.startswith(b"version https://git-lfs"):
        raise UserError(f"{file}: this is a Git LFS pointer, not the file itself; fetch it with: git lfs pull")
    try:
        text = content.decode("utf-8-sig")
        if "\0" in text:  # as UTF-16 without its mark has beside every letter
            raise UnicodeDecodeError("utf-8", content, content.index(b"\0"), content.index(b"\0") + 1, "NUL")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        kind = "text" if path.suffix.lower() in (".txt", ".jsonl") else "CSV"
        raise UserError(f"{file} line {line}: not UTF-8 text; save the file as {kind} UTF-8") from error
    if not text.strip():
        raise UserError(f"{file}: the file is empty; was it downloaded fully?")
    return text


def _separated(file: str, text: str, usual: str, header_words: Collection[str]) -> Table:
    """A table whose cells stand between separators, or a list of prompts that only looks like one."""
    separator = next(
        (mark for mark in (usual, *_SEPARATORS) if _folded(_first_record(text, mark)) & set(header_words)), None
    )
    if separator is None and (listed := _sentences(file, text, usual)):
        return listed
    separator = separator or usual
    notes: tuple[str, ...] = () if separator == usual else (f"columns are separated by {_SEPARATORS[separator]}",)
    try:
        header, records = _records(file, text, separator)
    except UserError:
        # Tabs are also written without any quoting, and a text may then begin with a quote of its own.
        rows = [line.split("\t") for line in _LINE_END.split(text) if line] if separator == "\t" else [[]]
        if len(rows[0]) < 2 or {len(row) for row in rows} != {len(rows[0])}:
            raise
        header, records = _header(file, rows[0]), rows[1:]
        notes += ("quotes are part of the texts, as no cell is quoted",)
    return Table(file, pd.DataFrame(records, columns=header, dtype=str), notes)


def _records(file: str, text: str, separator: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table whose cells may be quoted."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    records: list[list[str]] = []
    try:
        header = _header(file, next(filter(None, reader), []))
        for fields in reader:
            if fields:
                records.append(fields)
            if fields and len(fields) != len(header):
                raise UserError(
                    f"{file} row {len(records)} (spreadsheet row {len(records) + 1}), line {reader.line_num}: "
                    f"{len(fields)} cells under {len(header)} columns ({', '.join(fields)[:80]!r}); put quotes around "
                    f"a text that has a {_SEPARATORS[separator].removesuffix('s')}"
                )
    except csv.Error as error:
        row = len(records) + 1
        raise UserError(
            f"{file} row {row} (spreadsheet row {row + 1}), line {reader.line_num}: {error}; "
            'close every quote, and write "" for one inside a text'
        ) from error
    return header, records


def _first_record(text: str, separator: str) -> list[str]:
    try:
        return next(filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=separator)), [])
    except csv.Error:
        return []


def _folded(names: Iterable[str]) -> set[str]:
    return {name.strip().casefold() for name in names}


def _sentences(file: str, text: str, separator: str) -> Table | None:
    """A list without a header, one prompt a line; ``None`` if the file is a table after all.

    Where every line is one cell, quotes are those of CSV; else quotes and separators are part of the prompts.
    """
    first = _LINE_END.split(text.lstrip(), maxsplit=1)[0]
    if len(first.split()) < 3:  # names of columns, or of concepts, but no sentence
        return None
    note = f"the file has no header, so every line is taken as a prompt; the first is {first[:60]!r}"
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    try:
        records = [(reader.line_num, record) for record in reader if record]
    except csv.Error:
        return _list(file, text, (note,))
    widths = {len(record) for _, record in records}
    if widths == {1}:
        prompts = pd.DataFrame({LISTED: [cell.strip() for _, (cell,) in records]}, dtype=str)
        return Table(file, prompts, (note,), tuple(line for line, _ in records), False)
    return None if len(widths) == 1 else _list(file, text, (note,))


def _list(file: str, text: str, notes: tuple[str, ...]) -> Table:
    """One prompt a line, without the blanks around it; lines of blanks alone are none."""
    lines = {number: line.strip() for number, line in enumerate(_LINE_END.split(text), 1) if line.strip()}
    return Table(file, pd.DataFrame({LISTED: list(lines.values())}, dtype=str), notes, tuple(lines), False)


def _json_lines(file: str, text: str) -> Table:
    """One JSON object a line; numbers keep their digits, and a value that an object lacks is empty."""
    rows: dict[int, dict[str, str]] = {}
    for number, line in enumerate(_LINE_END.split(text), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_int=str, parse_float=str, parse_constant=lambda word: None)
            if not isinstance(value, dict):
                raise ValueError(f"it is {line.strip()[:40]!r}")
            rows[number] = {key.strip(): _written(entry, key) for key, entry in value.items()}
            "".join((*rows[number], *rows[number].values())).encode()  # refuses half a character, as "\ud800" is
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{file} line {number}: not a JSON object of texts and numbers ({str(error)[:120]}); write one a line"
            ) from error
    header = list(dict.fromkeys(key for row in rows.values() for key in row))
    _header(file, header)
    cells = {key: [row.get(key, "") for row in rows.values()] for key in header}
    return Table(file, pd.DataFrame(cells, columns=header, dtype=str), (), tuple(rows))


def _parquet(file: str, path: Path) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
        names = [name.strip() for name in table.column_names]
    except Exception as error:  # what a damaged file raises is Arrow's, Unicode's or the system's
        raise UserError(f"{file}: not a readable Parquet file ({str(error)[:120]}); download it again") from error
    _header(file, names)
    columns: dict[str, list[str]] = {}
    for name, column in zip(names, table.columns, strict=True):
        try:
            columns[name] = [_written(value, name) for value in column.to_pylist()]
        except Exception as error:  # dates before year 1, unknown time zones, texts that are none, and more
            raise UserError(
                f"{file}, column {name[:60]!r}: holds what cannot be written as text ({str(error)[:120]}); "
                "correct it, or leave the column out"
            ) from error
    return pd.DataFrame(columns, dtype=str)


def _written(value: Any, column: str) -> str:
    """A value as the text that a CSV would hold.

    Raises:
        ValueError: a list in a column that is read: which of its texts is meant is not said.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Mapping | Sequence) and not isinstance(value, str):
        if column.strip().casefold() in KNOWN:
            raise ValueError(f"{column!r} holds a list or an object; give one text or number")
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _header(file: str, names: Iterable[str]) -> list[str]:
    """The names of columns without blanks around them, checked."""
    header = [name.strip() for name in names]
    if len(header) > MOST_COLUMNS:
        raise UserError(f"{file}: {len(header)} columns; a prompt file has a few. Is this the right file?")
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise UserError(f"{file}: two columns are named {named(twice[:1])}; rename one")
    return header
