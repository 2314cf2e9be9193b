"""The file of an edit gives back what was saved, or says what is wrong; and nothing in it is ever run."""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from erasebench.edits.change import PARTS, Change
from erasebench.edits.edit import Edit
from erasebench.edits.edit_file import FORMATS
from erasebench.edits.hook import Hook, hook_class
from erasebench.errors import Damaged, UserError
from erasebench.store import Store


class Halves(Hook):
    """A hook with settings and tensors."""

    name = "test_halves"
    version = "3"


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def edit() -> Edit:
    shared = Change(token=draw(0, 4, 1), right=draw(1, 1, 4))
    changes = {
        "unet.a.weight": shared,
        "unet.b.weight": shared,
        "unet.conv.weight": Change(value=draw(2, 3, 2, 2, 2).half()),
        "unet.norm.bias": Change(value=draw(3, 5).bfloat16()),
        "unet.scale": Change(value=draw(4).float()),
        "unet.c.weight": Change(left=draw(5, 3, 2), right=draw(6, 2, 8)),
        "unet.d.weight": Change(delta=draw(7, 3, 4)),
    }
    hook = Halves({"scale": 0.5, "words": ["église", "a"]}, {"gate": draw(8, 4).float(), "of.layer": draw(9, 2, 3)[1]})
    info = {"method": "ours", "version": "1", "settings": {}, "task": {"label": "église", "targets": [{"name": "x"}]}}
    return Edit(changes, info, (hook, Halves()), "ab" * 16)


def assert_same(a: Edit, b: Edit) -> None:
    assert a.info == b.info and a.key == b.key and list(a.changes) == list(b.changes)
    for name, change in a.changes.items():
        for part in PARTS:
            x, y = getattr(change, part), getattr(b.changes[name], part)
            assert (x is None and y is None) or (x.dtype == y.dtype and torch.equal(x, y))
    assert [(type(hook), hook.settings) for hook in a.hooks] == [(type(hook), hook.settings) for hook in b.hooks]
    for one, other in zip(a.hooks, b.hooks, strict=True):
        assert list(one.tensors) == list(other.tensors)
        assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


def test_everything_comes_back_bit_for_bit(edit, tmp_path):
    path = edit.save(tmp_path / "deep" / "e.safetensors")
    again = Edit.load(path)
    assert_same(edit, again)
    assert again.changes["unet.a.weight"] is again.changes["unet.b.weight"]
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["e.json", "e.safetensors"]
    assert json.loads(path.with_suffix(".json").read_text()) == edit.info
    assert path.stat().st_mode == path.with_suffix(".json").stat().st_mode  # whoever may read the one reads the other


def test_no_bit_can_flip_unseen(edit, tmp_path):
    path = edit.save(tmp_path / "e.safetensors")
    data = path.read_bytes()
    # The header is padded with blanks, whose bits mean nothing; every other byte counts.
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 3]) + data[place + 1 :])
        try:
            loaded = Edit.load(path)
        except UserError:
            continue
        assert_same(edit, loaded)
    # The one bit that would make an older format of it, which has no hash.
    path.write_bytes(data.replace(b"erasebench edit 3", b"erasebench edit 2"))
    with pytest.raises(Damaged):
        Edit.load(path)


@pytest.mark.parametrize("size", [0, 5, 8, 100, -1])
def test_a_cut_file_is_damaged(edit, tmp_path, size):
    path = edit.save(tmp_path / "e.safetensors")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(Damaged):
        Edit.load(path)


def test_a_file_under_the_key_of_another_edit_is_damaged(edit, tmp_path):
    path = edit.save(tmp_path / "e.safetensors")
    assert_same(Edit.load(path, edit.key), edit)
    with pytest.raises(Damaged, match=f"it is the edit {edit.key}, not {'cd' * 16}"):
        Edit.load(path, "cd" * 16)


def test_a_store_sets_a_swapped_edit_aside_and_keeps_the_first_of_a_key(edit, tmp_path):
    store, one, two = Store(tmp_path, mends=True), "ab" * 16, "cd" * 16
    store.put_edit(one, edit)
    store.put_edit(two, Edit({"unet.d.weight": Change(delta=draw(1, 3, 4))}))
    assert store.get_edit(two).key == two
    os.replace(store.edit_path(one), store.edit_path(two))
    assert Store(tmp_path).get_edit(two) is None and store.edit_path(two).exists()
    assert store.get_edit(two) is None
    assert store.edit_path(two).with_name(f"{two}.safetensors.broken").exists()
    store.put_edit(one, edit)
    store.put_edit(one, Edit({}, {"method": "later"}))
    assert_same(store.get_edit(one), edit)


def test_a_store_leaves_what_it_cannot_read_now_where_it_is(edit, tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.put_edit(edit.key, edit)
    monkeypatch.setattr(
        "erasebench.edits.edit_file.safe_open", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "io"))
    )
    with pytest.raises(UserError):
        store.get_edit(edit.key)
    monkeypatch.undo()
    assert store.get_edit(edit.key) is not None


def test_two_writers_never_share_a_temporary_file(edit, tmp_path, monkeypatch):
    # In containers every process may have the same number.
    monkeypatch.setattr(os, "getpid", lambda: 7)
    written: list[Path] = []

    def watched(tensors, path, metadata):
        written.append(Path(path))
        save_file(tensors, path, metadata=metadata)

    monkeypatch.setattr("erasebench.edits.edit_file.save_file", watched)
    for _ in range(2):
        edit.save(tmp_path / "e.safetensors")
    assert len(set(written)) == 2


@pytest.mark.parametrize("number", [1, 2])
def test_files_of_older_formats_are_read(tmp_path, number):
    name = FORMATS[number - 1]
    layout = {"unet.a.weight": {"left": "unet.a.weight.left", "right": "unet.a.weight.right"}}
    header = {"format": name, "layout": json.dumps(layout), "info": '{"method": "cure"}'}
    tensors = {"unet.a.weight.left": draw(0, 4, 1), "unet.a.weight.right": draw(1, 1, 3)}
    save_file(tensors, tmp_path / "old.safetensors", metadata=header)
    old = Edit.load(tmp_path / "old.safetensors", "ab" * 16)
    torch.testing.assert_close(old.changes["unet.a.weight"].of(None), draw(0, 4, 1) @ draw(1, 1, 3))
    assert old.key == "ab" * 16 and old.hooks == ()


def test_a_file_of_a_newer_format_is_not_called_damaged(tmp_path):
    save_file({}, tmp_path / "new.safetensors", metadata={"format": "erasebench edit 9"})
    with pytest.raises(UserError, match="newer erasebench.*update") as caught:
        Edit.load(tmp_path / "new.safetensors")
    assert not isinstance(caught.value, Damaged)


def rewritten(path: Path, **entries: str) -> None:
    """The file with other header entries and the hash that belongs to them: what a hostile person would write."""
    from erasebench.edits.edit_file import _sha256

    with safe_open(path, framework="pt") as file:
        header = (file.metadata() or {}) | entries
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata=header | {"sha256": _sha256(header, tensors)})


def test_a_hook_is_chosen_among_those_that_are_here_and_nothing_is_imported(edit, tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = edit.save(tmp_path / "e.safetensors")
    for name in ("evil_module", "evil_module.Hook", "os.system", "erasebench.edits.hook.Hook", "__main__"):
        hooks = [{"name": name, "version": "1", "settings": {}, "tensors": {}}]
        rewritten(path, hooks=json.dumps(hooks))
        with pytest.raises(UserError, match="a hook .* which no eraser here knows"):
            Edit.load(path)
    assert "evil_module" not in sys.modules


def test_a_hook_of_another_version_is_refused(edit, tmp_path):
    path = edit.save(tmp_path / "e.safetensors")
    rewritten(path, hooks=json.dumps([{"name": "test_halves", "version": "2", "settings": {}, "tensors": {}}]))
    with pytest.raises(UserError, match="test_halves is of version 2, and version 3 is here"):
        Edit.load(path)


@pytest.mark.parametrize(
    "entries",
    [
        {"info": "[]"},
        {"info": "nonsense"},
        {"info": '{"task": []}'},
        {"info": '{"task": {"targets": [1]}}'},
        {"info": '{"method": 5}'},
        {"info": '{"warnings": "x"}'},
        {"info": "[" * 100_000},
        {"layout": "[]"},
        {"layout": '{"unet.a.weight": {"delta": "none of these"}}'},
        {"layout": '{"unet.a.weight": {"sigma": "unet.d.weight.delta"}}'},
        {"layout": '{"unet.a.weight": {}}'},
        {"hooks": "{}x"},
        {"hooks": "[5]"},
        {"hooks": '[{"name": "test_halves", "version": "3", "settings": 5, "tensors": {}}]'},
        {"hooks": '[{"name": "test_halves", "version": "3", "settings": {}, "tensors": {"a": "none of these"}}]'},
    ],
)
def test_what_is_no_edit_is_damaged_and_said_in_one_sentence(edit, tmp_path, entries):
    path = edit.save(tmp_path / "e.safetensors")
    rewritten(path, **entries)
    with pytest.raises(Damaged, match="not a whole edit"):
        Edit.load(path)


def test_a_header_that_is_no_safetensors_is_damaged(tmp_path):
    path = tmp_path / "e.safetensors"
    header = b"[" * 2000
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(Damaged):
        Edit.load(path)


def test_two_hooks_of_one_name_are_refused_where_they_are_defined():
    with pytest.raises(TypeError, match="a hook called 'test_halves' is already in"):

        class Other(Hook):
            name = "test_halves"

    assert hook_class("test_halves") is Halves
    assert hook_class("no such hook") is None


def test_a_hook_with_nan_is_refused():
    with pytest.raises(UserError, match="eraser ours made a hook test_halves with NaN .* in gate"):
        Edit({}, {"method": "ours"}, (Halves({}, {"gate": torch.tensor([float("nan")])}),))
