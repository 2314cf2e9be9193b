"""Tables in many small files, written by any number of processes: shards.

A shard is written whole under a name of its own and never changed. Its name is its place in the order and the hash of
its content, ``<number>-<hash>.parquet``: the number is one more than the largest in the folder, so that the order does
not hang on the clocks of several machines, and whoever reads it knows that every byte is as it was written.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from erasebench.errors import Damaged, UserError
from erasebench.files import read_errors, read_whole, write_atomic

SMALL_BYTES, MERGED_BYTES = 4 * 2**20, 32 * 2**20
"""Shards below the first size are merged, into shards of up to the second, when there are many of them."""

MANY = 32
"""So many small shards of one folder are many; the scores of 100 000 images are written as 800."""

HASH_DIGITS = 16
_NAME = re.compile(r"(\d{20})-([0-9a-f]{16})\.parquet")


class LacksColumns(UserError):
    """A shard that is whole, and was written before a column was asked for: it is left out, and never set aside.

    Args:
        path: of the shard.
        columns: that it lacks.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        super().__init__(f"{path} is left out: it has no column {', '.join(columns)}, which is asked for now")
        self.path = path


LeftOut = Callable[[Damaged | LacksColumns], None]
"""Called with each shard whose rows are absent from what is read."""


def encode(rows: pd.DataFrame) -> bytes:
    """Rows as the bytes of a shard.

    Raises:
        ValueError: a cell, or cells of one column together, that no table can hold; the column is named.
    """
    try:
        return _bytes(pa.Table.from_pandas(rows, preserve_index=False))
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise ValueError(f"cannot be stored as a table: {' '.join(map(str, error.args))}") from error


def write(folder: Path, data: bytes) -> None:
    """Put a shard into a folder, behind all others.

    Raises:
        ValueError: its columns do not go with those of the first one.
        UserError: the folder is full or not writable.
    """
    there, schema = _listed(folder), pq.read_schema(pa.BufferReader(data))
    for path in there[:1]:
        try:
            before = pq.read_schema(path).remove_metadata()
        except (OSError, pa.ArrowException):  # damaged, or just merged into another: its readers say so
            continue
        try:
            pa.unify_schemas([before, schema], promote_options="permissive")
        except pa.ArrowException as error:
            raise ValueError(f"columns of other types than those stored before under this version: {error}") from error
    _put(folder, 1 + max(map(_number, there), default=0), data)


def read(
    folder: Path,
    by: Sequence[str],
    left_out: LeftOut,
    *,
    columns: Sequence[str] | None = None,
    types: Mapping[str, pa.DataType] | None = None,
    read_before: set[Path] | None = None,
) -> pd.DataFrame:
    """All rows of a folder, in the order of the shards.

    Args:
        folder: of shards; need not be there.
        by: columns that every shard must have: the first a key, the others plain values.
        left_out: called with each shard that does not parse, does not go with those before it, or lacks a column of
            ``by`` beside the key; its rows are absent.
        columns: read no others.
        types: of columns, where a shard has them.
        read_before: shards that are left out; those that are read now are added.

    Returns:
        Empty, with the columns ``by``, if there are no rows.

    Raises:
        UserError: a shard cannot be read now. Its rows are not taken for absent.
    """
    tables: list[pa.Table] = []
    schema = pa.schema({})
    for path, table in _tables(folder, by, left_out, columns, types or {}, read_before).items():
        try:
            schema = pa.unify_schemas([schema, table.schema], promote_options="permissive")
            tables.append(table)
        except pa.ArrowException as error:
            left_out(Damaged(path, f"its columns do not go with those of other shards: {error}"))
    if not tables:
        return pd.DataFrame(columns=list(by))
    return pa.concat_tables(tables, promote_options="permissive").to_pandas()


def merge(folder: Path) -> None:
    """Put many small shards of a folder together into few larger ones, in their order.

    Safe beside other processes and kills: the merged shard is on the disk before the first of its parts is deleted,
    and rows that are in two shards count once. A shard that cannot be read is left alone.

    Raises:
        UserError: the folder is full or not writable; nothing is lost then.
    """
    sizes = {}
    for path in _listed(folder):
        with suppress(OSError):
            sizes[path] = path.stat().st_size
    small = [path for path, size in sizes.items() if size < SMALL_BYTES]
    if len(small) < MANY:
        return
    parts: list[Path] = []
    for path in small:
        if parts and sum(sizes[part] for part in parts) + sizes[path] > MERGED_BYTES:
            _merge(folder, parts)
            parts = []
        parts.append(path)
    _merge(folder, parts)


def _merge(folder: Path, parts: Sequence[Path]) -> None:
    tables = {}
    for path in parts:
        with suppress(FileNotFoundError, UserError):  # another process has merged it, or it is damaged
            tables[path] = _parsed(path, (), None, {})
    if len(tables) < 2:
        return
    try:
        whole = pa.concat_tables(tables.values(), promote_options="permissive")
    except pa.ArrowException:  # the columns of one do not go with the others': its readers will say so
        return
    merged = _put(folder, _number(next(iter(tables))), _bytes(whole))
    with suppress(OSError):  # that both were there is on the disk before that the parts are gone
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    for path in tables.keys() - {merged}:
        with suppress(OSError):
            path.unlink()


def _listed(folder: Path) -> list[Path]:
    """The shards of a folder in their order."""
    try:
        with read_errors(folder):
            names = os.listdir(folder)
    except FileNotFoundError:
        return []
    shards = [folder / name for name in names if name.endswith(".parquet") and not name.startswith(".")]
    return sorted(shards, key=lambda path: (_number(path), path.name))


def _number(path: Path) -> int:
    """The place of a shard in the order; one of another name stands first."""
    name = _NAME.match(path.name)
    return int(name[1]) if name else 0


def _put(folder: Path, number: int, data: bytes) -> Path:
    path = folder / f"{number:020d}-{hashlib.sha256(data).hexdigest()[:HASH_DIGITS]}.parquet"
    write_atomic(path, data)
    return path


def _bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    # Without pandas' own notes: what a column is, its type says.
    pq.write_table(table.replace_schema_metadata(None), buffer, compression="zstd")
    return buffer.getvalue()


def _tables(
    folder: Path,
    by: Sequence[str],
    left_out: LeftOut,
    columns: Sequence[str] | None,
    types: Mapping[str, pa.DataType],
    read_before: set[Path] | None,
) -> dict[Path, pa.Table]:
    """What every shard of a folder holds, all of one moment."""
    parsed: dict[Path, pa.Table | None] = dict.fromkeys(read_before or ())
    gone: set[Path] = set()
    while True:
        shards = _listed(folder)
        while shards != (again := _listed(folder)):  # a listing is not of one moment: a merge may fall into it
            shards = again
        for path in shards:
            if path in parsed:
                continue
            try:
                parsed[path] = _parsed(path, by, columns, types)
            except (Damaged, LacksColumns) as error:
                parsed[path] = None
                left_out(error)
            except FileNotFoundError:
                if path not in gone:
                    gone.add(path)
                    break  # another process has just merged it: its rows are in a shard that was not listed yet
                parsed[path] = None  # listed, and not there, twice: a link to nothing
        else:
            if read_before is not None:
                read_before.update(shards)
            return {path: table for path in shards if (table := parsed[path]) is not None}


def _parsed(path: Path, by: Sequence[str], columns: Sequence[str] | None, types: Mapping[str, pa.DataType]) -> pa.Table:
    data = read_whole(path)
    name = _NAME.fullmatch(path.name)
    if name and name[2] != hashlib.sha256(data).hexdigest()[:HASH_DIGITS]:
        raise Damaged(path, "its content is not what was written")
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        if lacking := [column for column in by if column not in names]:
            if lacking[0] != by[0]:
                raise LacksColumns(path, lacking)
            raise ValueError(f"no column {', '.join(lacking)}")
        if len(set(names)) < len(names):
            raise ValueError("two columns of one name")
        table = file.read(columns).replace_schema_metadata(None)
        for column in set(types) & set(table.column_names):
            place = table.column_names.index(column)
            table = table.set_column(place, column, table[column].cast(types[column]))
        for column in by:
            if pa.types.is_nested(table[column].type):
                raise ValueError(f"column {column} holds no plain values")
        if by and not (_is_text(table[by[0]].type) and not table[by[0]].null_count):
            raise ValueError(f"column {by[0]} holds no keys")
        if not name:  # not checked by a hash: whether all of it can be used is tried
            table.validate(full=True)
            table.to_pandas()
    except (MemoryError, LacksColumns):
        raise
    except Exception as error:  # whatever Arrow raises: the bytes are all there, so they are wrong
        raise Damaged(path, " ".join(str(error).split())[:200]) from error
    return table


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_large_string(kind) or pa.types.is_string(kind)
