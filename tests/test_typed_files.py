"""A file of ours is read as what it must hold, or refused with its place, what is there, and the cure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasebench.errors import UserError
from erasebench.typed_files import check_type, read_json, read_parquet


class Part(TypedDict, total=False):
    share: float | None


class Whole(Part):
    names: list[str]
    by: dict[str, Part]


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(value))
    assert read_json(path, Any, "") == value


@pytest.mark.parametrize("value", [{"names": [], "by": {}}, {"names": ["a"], "by": {"x": {}}, "share": 1, "more": 3},
                                   {"names": ["a"], "by": {"x": {"share": 0.5}}, "share": None}])  # fmt: skip
def test_what_is_of_the_type_passes(value: Any) -> None:
    check_type(value, Whole)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "it is None, not named values"),
        ([], "it is [], not named values"),
        ({}, "it has no by, names"),
        ({"names": "a", "by": {}}, "names is 'a', not a list"),
        ({"names": ["a", 1], "by": {}}, "names.1 is 1, not a text"),
        ({"names": [], "by": {"x": {"share": True}}}, "by.x.share is True, not a number or null"),
        ({"names": [], "by": {"x": []}}, "by.x is [], not named values"),
        ({"names": ["x" * 500], "by": 0}, "by is 0, not named values"),
    ],
)
def test_what_is_not_is_named(value: Any, says: str) -> None:
    with pytest.raises(ValueError) as refused:
        check_type(value, Whole)
    assert str(refused.value) == says


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'"\\ud800"', b"9" * 400, b"9" * 5000, b'{"a": "\xff"}']
)
def test_what_is_no_json_is_refused_with_place_and_cure(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.json: cannot be read \(.+\); do this"):
        read_json(path, Any, "do this")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json: not there; do this"):
        read_json(tmp_path / "a.json", Any, "do this")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UserError, match=r"folder\.json: cannot be read \(not a file\); do this"):
        read_json(tmp_path / "folder.json", Any, "do this")
    with pytest.raises(UserError, match="not a file"):
        read_parquet(tmp_path / "folder.json", {}, "do this")
    with pytest.raises(FileNotFoundError):
        read_parquet(tmp_path / "a.parquet", {}, "do this")


@pytest.mark.parametrize(
    ("column", "kind", "right"),
    [
        (["a", ""], str, True), (["a", None], str, False), ([1, 2], str, False), ([b"a", b"b"], str, False),
        ([1, 2], int, True), ([1.5, 2.0], int, False), ([1, None], int, False), (["1", "2"], int, False),
        ([1, None], float, True), ([1.5, 2.0], float, True), ([None, None], float, True), (["1", "2"], float, False),
        ([["a"], []], list, True), ([[1], [2]], list, False), (["a", "b"], list, False), ([["a"], None], list, False),
    ],
)  # fmt: skip
def test_a_column_is_of_its_type_in_every_cell(column: list[Any], kind: type, right: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame({"x": column}).to_parquet(path)
    if right:
        assert len(read_parquet(path, {"x": kind, "other": int}, "do this")) == 2
    else:
        with pytest.raises(UserError, match=r"a\.parquet: cannot be read \(column x holds .*\); do this"):
            read_parquet(path, {"x": kind}, "do this")
