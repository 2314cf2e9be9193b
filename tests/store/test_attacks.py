"""What attacks found is kept as images and edits are: whole or absent, the first one counts, nothing is overwritten."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from erasebench.edits.found import Found
from erasebench.errors import Damaged, UserError
from erasebench.store import Store

KEY = "a1" * 16


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results", mends=True)


def test_it_is_found_again(store) -> None:
    assert store.get_attack(KEY) is None
    store.put_attack(KEY, Found(embedding=torch.ones(2, 3), info={"attack": "x"}))
    again = Store(store.root).get_attack(KEY)
    assert again is not None and torch.equal(again.embedding, torch.ones(2, 3)) and again.info == {"attack": "x"}


def test_the_first_one_stays(store) -> None:
    store.put_attack(KEY, Found(prompt="first"))
    store.put_attack(KEY, Found(prompt="second"))
    assert store.get_attack(KEY).prompt == "first"


@pytest.mark.parametrize("damage", [b"", b"cut", None])
def test_what_is_damaged_is_set_aside_by_who_makes_it_again_only(store, damage) -> None:
    store.put_attack(KEY, Found(prompt="first"))
    path = store.attack_path(KEY)
    bad = path.read_bytes().replace(b"first", b"worst") if damage is None else damage
    path.write_bytes(bad)
    assert Store(store.root).get_attack(KEY) is None and path.read_bytes() == bad
    assert store.get_attack(KEY) is None and not path.exists()
    assert path.with_name(path.name + ".broken").read_bytes() == bad
    store.put_attack(KEY, Found(prompt="again"))
    assert store.get_attack(KEY).prompt == "again"


def test_a_file_of_another_key_is_damaged(store) -> None:
    store.put_attack(KEY, Found(prompt="first"))
    other = store.attack_path("b2" * 16)
    other.parent.mkdir(parents=True)
    other.write_bytes(store.attack_path(KEY).read_bytes())
    assert store.get_attack("b2" * 16) is None


def test_an_error_that_passes_takes_nothing_away(store, monkeypatch) -> None:
    store.put_attack(KEY, Found(prompt="first"))
    real = open

    def fails(path, *args, **kwargs):
        if str(path).endswith(".safetensors"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", fails)
        with pytest.raises(UserError) as caught:
            store.get_attack(KEY)
        assert not isinstance(caught.value, Damaged)
    assert store.get_attack(KEY).prompt == "first"


def test_a_full_disk_names_the_folder_and_leaves_no_part(store, monkeypatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="attacks"):
            store.put_attack(KEY, Found(prompt="first"))
    assert not [path for path in store.root.rglob("*") if path.is_file()]
