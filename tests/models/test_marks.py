"""The mark of an edited model: what was written is read, and a mark of another shape is a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erasebench.edits.eraser import describe_edit
from erasebench.errors import UserError
from erasebench.export.card import Card, model_card
from erasebench.models.marks import FORMAT, MARK, key_on, mark_edited, read_marks, write_marks

NOTES: dict[str, Any] = {
    "method": "uce", "version": "1", "describe": "an eraser", "settings": {"lam": 0.1}, "warnings": ["w"],
    "model": {"name": "embedded"}, "trained": False, "share": 0.1, "weights": 32, "rank": 1, "seconds": 0.5,
    "task": {"label": "church", "kind": "object", "retain": ["", "sky"],
             "targets": [{"name": "church", "kind": "object", "phrases": ["church", "chapel"], "anchor": ""}]},
}  # fmt: skip


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_marks(tmp_path, {"name": "m"}, [NOTES, {}], "sum", {"format": "diffusers"})
    assert read_marks(tmp_path) == (NOTES, {})


def paths(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [before, *(path for key, entry in inner for path in paths(entry, (*before, key)))]


@settings(max_examples=300, deadline=None)
@given(
    place=st.sampled_from(paths({"format": FORMAT, "edits": [NOTES]})),
    value=st.sampled_from([None, 5, "x", [], {}, [5], [[]], {"a": 1}, True, 1e308, "\u202e[/red]"]),
)
def test_a_mark_of_any_shape_is_described_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[Any, ...], value: Any
) -> None:
    mark: Any = json.loads(json.dumps({"format": FORMAT, "edits": [NOTES]}))
    node: Any = {"": mark}
    for key in (path := ("", *place))[:-1]:
        node = node[key]
    node[path[-1]] = value
    mark = value if not place else mark
    folder = tmp_path_factory.getbasetemp()
    (folder / MARK).write_text(json.dumps(mark))
    try:
        edits = read_marks(folder)
    except UserError as error:
        assert "cannot be read" in str(error)
        return
    base = dict.fromkeys(("name", "source", "revision", "family", "dtype"), "x")
    assert all(describe_edit(info) for info in edits)
    assert not edits or model_card(Card(base, "StableDiffusionPipeline", edits, "delta", ["unet.a.weight"]))


def test_one_key_names_what_a_pipeline_carries_and_none_what_nobody_knows():
    pipe = SimpleNamespace()
    keys = {}
    for carried in ((), ("a1",), ("a1", "b2"), ("b2", "a1"), ("",), ("a1", ""), ("a1", "altered by eraser x")):
        mark_edited(pipe, (), carried)
        keys[carried] = key_on(pipe)
    assert keys[()] == "" and keys[("a1",)] == "a1"
    chains = keys[("a1", "b2")], keys[("b2", "a1")]
    assert len(set(chains)) == 2 and all(len(key) == 32 for key in chains)
    assert {keys[("",)], keys[("a1", "")], keys[("a1", "altered by eraser x")]} == {None}
