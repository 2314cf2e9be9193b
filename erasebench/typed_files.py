"""Files of ours, read as what they must hold: JSON of a type, Parquet with columns of some types.

They may be cut, edited, or come from somebody else. Whoever reads them with these functions has values of the right
types, or has refused the file in a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints, is_typeddict

from erasebench.errors import Damaged, UserError
from erasebench.files import read_whole

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

CALLED = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}
"""What people call the types of JSON."""

LARGEST = 2**63
"""No whole number of ours is as large; one of thousands of digits is no number that can be counted with."""

LONGEST_SHOWN = 60
"""Characters of a wrong value that a message shows."""


def read_json(path: Path, kind: type[T], cure: str) -> T:
    """The value in a JSON file.

    Args:
        path: of the file.
        kind: what it must be, see :func:`check_type`.
        cure: what to do if it is not, for the message.

    Raises:
        UserError: it is not there, cannot be read, or holds something else; the place in it is named.
    """
    try:
        value = json.loads(read_whole(path), parse_int=_whole_number)
        check_type(value, kind)
    except FileNotFoundError:
        raise UserError(f"{path}: not there; {cure}") from None
    except Damaged as error:
        raise UserError(f"{path}: cannot be read ({error.why}); {cure}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {cure}") from error
    return value


def _whole_number(digits: str) -> int:
    number = int(digits)
    if abs(number) > LARGEST:
        raise ValueError(f"a number of {len(digits)} digits")
    return number


def check_type(value: Any, kind: Any, place: str = "") -> None:
    """Refuse a value of JSON that is not of a type.

    Args:
        value: as JSON or YAML has it.
        kind: ``str``, ``int``, ``float`` (an integer is one, too), ``bool``, ``None``, ``Any``, ``list[...]``,
            ``dict[str, ...]``, a ``TypedDict`` (other keys than its own are allowed), or several of them (``str | None``).
        place: of the value, for the message.

    Raises:
        ValueError: naming the place, what is there, and what should be.
    """
    check_texts_are_text(value)
    wrong = _mismatch(value, kind, place)
    if wrong:
        raise ValueError(wrong)


def check_texts_are_text(value: Any) -> None:
    r"""Refuse texts that no file or terminal can take: JSON may hold half of a sign (``"\ud800"``).

    Raises:
        ValueError: there is one.
    """
    json.dumps(value, ensure_ascii=False, default=str).encode("utf-8")


def _mismatch(value: Any, kind: Any, place: str) -> str:
    """What is wrong with a value; empty if nothing is."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return ""
    if origin is UnionType:
        wrong = [_mismatch(value, option, place) for option in arguments]
        return "" if "" in wrong else _wrong(value, place, " or ".join(map(_called, arguments)))
    if is_typeddict(kind):
        if not isinstance(value, Mapping):
            return _wrong(value, place, "named values")
        hints = get_type_hints(kind)
        lacking = [name for name in sorted(kind.__required_keys__) if name not in value]
        if lacking:
            return f"{place or 'it'} has no {', '.join(lacking)}"
        return _first(_mismatch(value[name], hints[name], _below(place, name)) for name in hints if name in value)
    if origin is list:
        if not isinstance(value, list):
            return _wrong(value, place, "a list")
        return _first(_mismatch(entry, arguments[0], _below(place, i)) for i, entry in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            return _wrong(value, place, "named values")
        return _first(_mismatch(entry, arguments[1], _below(place, name)) for name, entry in value.items())
    wanted = NoneType if kind is None else kind
    takes = (int, float) if wanted is float else wanted
    right = isinstance(value, takes) and not (isinstance(value, bool) and wanted is not bool)
    return "" if right else _wrong(value, place, _called(wanted))


def _first(wrong: Any) -> str:
    return next(filter(None, wrong), "")


def _below(place: str, name: object) -> str:
    return f"{place}.{name}" if place else str(name)


def _called(kind: Any) -> str:
    return CALLED.get(kind) or ("a list" if get_origin(kind) is list else "named values")


def _wrong(value: Any, place: str, wanted: str) -> str:
    text = repr(value)
    shown = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
    return f"{place or 'it'} is {shown}, not {wanted}"


def read_parquet(path: Path, columns: Mapping[str, type], cure: str) -> pd.DataFrame:
    """The table in a Parquet file.

    Args:
        path: of the file.
        columns: what the cells must be, where there is such a column: ``str`` and ``int`` (in every cell), ``float``
            (or nothing), ``list`` (of texts).
        cure: what to do if they are not, for the message.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it cannot be read, or a column holds something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = read_whole(path)
    except Damaged as error:
        raise UserError(f"{path}: cannot be read ({error.why}); {cure}") from error
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read().replace_schema_metadata(None)
        table.validate(full=True)
        if len(set(table.column_names)) < len(table.column_names):
            raise ValueError("two columns of one name")
        for name in columns:
            if name in table.column_names and not _holds(table[name], columns[name]):
                raise ValueError(f"column {name} holds {table[name].type}, or nothing in some cells")
        return table.to_pandas()
    except MemoryError:
        raise
    except Exception as error:  # whatever Arrow raises: the bytes are all there, so they are wrong
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: cannot be read ({why}); {cure}") from error


def _holds(column: Any, kind: type) -> bool:
    """Whether every cell of an Arrow column is of a type."""
    import pyarrow as pa

    def text(held: Any) -> bool:
        return pa.types.is_string(held) or pa.types.is_large_string(held)

    held = column.type
    if kind is str:
        return text(held) and not column.null_count
    if kind is int:
        return pa.types.is_integer(held) and not column.null_count
    if kind is list:
        return pa.types.is_list(held) and text(held.value_type) and not column.null_count
    return pa.types.is_integer(held) or pa.types.is_floating(held) or pa.types.is_null(held)
