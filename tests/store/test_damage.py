"""What is damaged is absent and is made again; what only cannot be read now stays; what is not ours is left alone."""

from __future__ import annotations

import errno
import io
import json
import os
import struct
import zlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, PngImagePlugin
from store_helpers import META, broken, filled, picture, recipe

from erasebench.edits.eraser import Change, Edit
from erasebench.errors import Damaged, UserError
from erasebench.recipe import canonical_json
from erasebench.store import Store, pixels_sha256, read_png
from erasebench.store.png import RECIPE, RECORD

PASSING = (errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES)
WEIGHT = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results", mends=True)


@pytest.fixture
def reader(store) -> Store:
    return Store(store.root)


def failing(monkeypatch, suffix: str, error: Exception) -> None:
    """Opening a file of this ending fails from now on."""
    real = open

    def fails(path, *args, **kwargs):
        if str(path).endswith(suffix):
            raise error
        return real(path, *args, **kwargs)

    monkeypatch.setattr("builtins.open", fails)


@pytest.mark.parametrize("number", [*PASSING, "memory"])
def test_an_error_that_passes_takes_nothing_away(store, number, monkeypatch):
    (key,) = filled(store, 1)
    store.flush()
    scores = pd.DataFrame({"key": [key], "value": [1.0]})
    store.put_scores("judge@1", scores)
    store.put_edit("e" * 32, Edit({WEIGHT: Change(delta=torch.ones(2, 3))}, {"method": "cure"}))
    before = sorted(path.name for path in store.root.rglob("*"))
    error = MemoryError() if number == "memory" else OSError(number, os.strerror(number))
    expected = MemoryError if number == "memory" else UserError
    for suffix, read in {
        ".png": lambda: store.image(key),
        ".parquet": lambda: store.scores("judge@1", []),
        ".safetensors": lambda: store.get_edit("e" * 32),
    }.items():
        with monkeypatch.context() as patch:
            failing(patch, suffix, error)
            with pytest.raises(expected) as caught:
                read()
            assert not isinstance(caught.value, Damaged)
    assert sorted(path.name for path in store.root.rglob("*")) == before
    assert np.array_equal(store.image(key), picture(0))
    pd.testing.assert_frame_equal(store.scores("judge@1", []), scores)
    assert store.get_edit("e" * 32) is not None


def test_a_reader_renames_nothing_and_says_it_once(store, reader, caplog):
    first, second = filled(store, 2)
    store.flush()
    store.image_path(first).write_bytes(b"cut")
    store.put_scores("judge@1", pd.DataFrame({"key": [first], "value": [1.0]}))
    store.put_scores("judge@1", pd.DataFrame({"key": [second], "value": [2.0]}))
    shard = min((store.root / "records/judge@1").glob("*.parquet"))
    shard.write_bytes(b"cut")
    store.put_edit("e" * 32, Edit({WEIGHT: Change(delta=torch.ones(2, 3))}, {"method": "cure"}))
    store.edit_path("e" * 32).write_bytes(b"cut")
    before = sorted(path.name for path in store.root.rglob("*"))
    caplog.clear()
    for _ in range(3):
        assert list(reader.scores("judge@1", [])["value"]) == [2.0]
        assert reader.get_edit("e" * 32) is None
        with pytest.raises(Damaged):
            reader.image(first)
        assert len(reader.image_records()) == 2
    assert sorted(path.name for path in store.root.rglob("*")) == before
    assert len(caplog.records) == 3
    assert store.get_edit("e" * 32) is None and broken(store.root) == ["e" * 32 + ".safetensors.broken"]


# Odd things with the name of an image


def test_a_folder_or_a_loop_in_the_place_of_an_image_is_none(store):
    folder, loop = recipe(0).key, recipe(1).key
    store.image_path(folder).mkdir(parents=True)
    store.image_path(loop).parent.mkdir(parents=True, exist_ok=True)
    store.image_path(loop).symlink_to(store.image_path(loop).name)
    assert not store.has_image(folder) and not store.has_image(loop)
    assert store.missing([folder, loop]) == [folder, loop]
    assert not len(store.image_records())
    assert filled(store, 2) == [folder, loop]
    assert np.array_equal(store.image(folder), picture(0)) and np.array_equal(store.image(loop), picture(1))
    assert len(broken(store.root)) == 2


def bomb() -> bytes:
    """A PNG of 60 000 x 60 000 pixels, with the right ends."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def png(texts: dict[str, str], seed: int = 0) -> bytes:
    chunks, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    for name, text in texts.items():
        chunks.add_text(name, text)
    picture(seed).save(buffer, format="PNG", pnginfo=chunks)
    return buffer.getvalue()


def texts(record: dict | None = None, **fields) -> dict[str, str]:
    values = {"key": recipe().key, "pixels_sha256": pixels_sha256(picture()), "seconds": 0.5, **(record or {})}
    return {RECIPE: canonical_json(recipe().to_dict() | fields), RECORD: canonical_json(values)}


DEEP = "[" * 200_000 + "]" * 200_000
DAMAGED = {
    "bomb": bomb(),
    "no texts": png({}),
    "deep recipe": png({RECIPE: DEEP, RECORD: "{}"}),
    "deep record": png(texts() | {RECORD: DEEP}),
    "recipe is a list": png(texts() | {RECIPE: "[1]"}),
    "record is a number": png(texts() | {RECORD: "1"}),
    "recipe of other types": png(texts(seed="x")),
    "a number without end": png(texts(guidance=10**400)),
    "another recipe": png(texts(seed=7)),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_image_stops_nothing(store, reader, damage):
    good = recipe(1)
    store.put_image(good, picture(1), META)
    path = store.image_path(recipe().key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(DAMAGED[damage])
    assert list(reader.image_records()["key"]) == [good.key]
    with pytest.raises(Damaged):
        reader.image(recipe().key)
    with pytest.raises(Damaged):
        store.image(recipe().key)
    store.put_image(recipe(), picture(), META)
    assert len(store.image_records()) == 2 and broken(store.root) == [path.name + ".broken"]


def test_a_record_has_no_say_in_the_recipe_and_no_type_of_its_own(store, reader):
    path = store.image_path(recipe().key)
    path.parent.mkdir(parents=True)
    odd = {
        "prompt": "another",
        "seed": 99,
        "seconds": "abc",
        "device": ["x"],
        "torch": "2",
        "half \ud800": "a",
        "b": "\ud800",
    }
    path.write_bytes(png(texts(odd)))
    store.put_image(recipe(1), picture(1), META)
    for records in (reader.image_records(), store.image_records(), reader.image_records()):
        row = records.set_index("key").loc[recipe().key]
        assert (row["prompt"], row["seed"], row["torch"]) == (recipe().prompt, 0, "2")
        assert np.isnan(row["seconds"]) and records["seconds"].dtype == float and records["seed"].dtype == "int64"


def test_an_image_of_a_newer_version_is_left_alone(store):
    newer = {**recipe().to_dict(), "mirrored": True}
    key = "ab" + "0" * 30
    path = store.image_path(key)
    path.parent.mkdir(parents=True)
    path.write_bytes(png({RECIPE: json.dumps(newer), RECORD: json.dumps({"key": key, "pixels_sha256": "x"})}))
    assert not len(store.image_records())
    with pytest.raises(UserError, match="newer erasebench .*mirrored"):
        store.image(key)
    assert path.exists() and not broken(store.root)


def test_pictures_of_other_people_are_left_alone(store, caplog):
    filled(store, 1)
    theirs = [store.root / "images" / name for name in ("ab/holiday.png", "ab/0123.png", "holiday.png", "mine/x.png")]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    before = len(caplog.records)
    assert len(store.image_records()) == 1
    assert all(path.exists() for path in theirs) and len(caplog.records) == before


# Odd shards


def shard_bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


KEY = "a" * 32
ODD = {
    "empty": b"",
    "garbage": b"PAR1" + bytes(range(256)) + b"PAR1",
    "no key": shard_bytes(pa.table({"value": [1.0]})),
    "keys are lists": shard_bytes(pa.table({"key": [[KEY]], "value": [1.0]})),
    "keys are structs": shard_bytes(pa.table({"key": [{"a": KEY}], "value": [1.0]})),
    "keys are numbers": shard_bytes(pa.table({"key": [1], "value": [1.0]})),
    "keys are absent": shard_bytes(pa.table({"key": pa.array([None], pa.string()), "value": [1.0]})),
    "inputs are lists": shard_bytes(pa.table({"key": [KEY], "prompt": [["x"]], "value": [1.0]})),
    "two columns of one name": shard_bytes(
        pa.Table.from_arrays([pa.array([KEY]), pa.array([KEY]), pa.array(["x"])], names=["key", "key", "prompt"])
    ),
    "values are texts": shard_bytes(pa.table({"key": [KEY], "prompt": ["x"], "value": ["high"]})),
    "text that is no UTF-8": shard_bytes(
        pa.table({"key": [KEY], "prompt": ["x"], "note": pa.array([b"\xff\xfe"]).view(pa.string())})
    ),
}


@pytest.mark.parametrize("damage", ODD)
def test_an_odd_shard_stops_nothing(store, reader, damage):
    good = pd.DataFrame({"key": ["b" * 32], "prompt": ["x"], "value": [2.0]})
    store.put_scores("judge@1", good)
    path = store.root / "records" / "judge@1" / f"{9:020d}-x.parquet"
    path.write_bytes(ODD[damage])
    for place in (reader, store):
        if damage == "values are texts":  # an older name stands first; which of two types is right nobody knows
            continue
        pd.testing.assert_frame_equal(place.scores("judge@1", ["prompt"]), good)
        assert len(place.missing_scores("judge@1", ["prompt"], good)) == 0


def test_pandas_notes_in_a_shard_have_no_say(store):
    path = store.root / "records" / "judge@1" / "x.parquet"
    path.parent.mkdir(parents=True)
    for notes in (b"not json", b'{"columns": 1}', b'{"index_columns": ["key"], "columns": []}'):
        table = pa.table({"key": [KEY], "value": [1.0]}).replace_schema_metadata({b"pandas": notes})
        path.write_bytes(shard_bytes(table))
        assert store.scores("judge@1", []).to_dict("list") == {"key": [KEY], "value": [1.0]}


def test_a_folder_and_a_link_called_like_a_shard_stop_nothing(store, reader):
    good = pd.DataFrame({"key": ["b" * 32], "value": [2.0]})
    store.put_scores("judge@1", good)
    place = store.root / "records" / "judge@1"
    (place / "x.parquet").mkdir()
    (place / "loop.parquet").symlink_to("loop.parquet")
    (place / "dangling.parquet").symlink_to("nothing")
    (store.root / "records" / "file@1").write_text("not a folder")
    pd.testing.assert_frame_equal(reader.scores("judge@1", []), good)
    pd.testing.assert_frame_equal(store.scores("judge@1", []), good)
    assert store.metric_ids() == ["judge@1"]
    store.merge_shards()


@pytest.mark.parametrize("place", range(0, 100, 7))
def test_no_byte_of_a_shard_can_change_unseen(store, reader, place):
    store.put_scores("judge@1", pd.DataFrame({"key": [KEY], "value": [1.0]}))
    (path,) = (store.root / "records/judge@1").glob("*.parquet")
    data = bytearray(path.read_bytes())
    data[place * len(data) // 100] ^= 1
    path.write_bytes(data)
    assert not len(reader.scores("judge@1", []))


def test_read_png_of_a_folder_is_damage_and_of_nothing_is_absence(tmp_path):
    with pytest.raises(Damaged):
        read_png(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_png(tmp_path / "nothing.png")
