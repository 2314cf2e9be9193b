"""Nothing that was computed is lost, nothing broken is taken for good, whatever dies and when."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from erasebench import store as store_module
from erasebench.errors import UserError
from erasebench.files import STALE_SECONDS, write_atomic
from erasebench.recipe import Recipe
from erasebench.store import BrokenImage, Store, pixels_sha256, read_png

META = {"seconds": 0.5, "device": "cpu x86_64", "torch": "2"}


def recipe(seed: int = 0, **changes) -> Recipe:
    values = {
        "model": "small",
        "revision": "sha256-1",
        "edit": "",
        "prompt": "a church, \u201cSão Paulo\u201d \U0001f3a8",
        "negative_prompt": "",
        "seed": seed,
        "steps": 4,
        "guidance": 7.5,
        "width": 16,
        "height": 24,
        "scheduler": "DDIMScheduler",
        "scheduler_config": "{}",
        "dtype": "float32",
    }
    return Recipe(**{**values, **changes})


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 16, 3), dtype=np.uint8))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results")


def filled(store: Store, count: int) -> list[str]:
    for seed in range(count):
        store.put_image(recipe(seed), picture(seed), META)
    return [recipe(seed).key for seed in range(count)]


def leftovers(store: Store) -> list[str]:
    return [path.name for path in store.root.rglob(".*")]


# Images


def test_an_image_and_its_record_there_and_back(store):
    key = recipe().key
    assert store.missing([key, key]) == [key]
    store.put_image(recipe(), picture(), META)
    assert store.missing([key, key]) == []
    assert np.array_equal(store.image(key), picture())
    row = store.image_records().set_index("key").loc[key]
    assert Recipe.from_dict({name: row[name] for name in recipe().to_dict()}) == recipe()
    assert row["pixels_sha256"] == pixels_sha256(picture())
    assert {name: row[name] for name in META} == META


def test_prompt_and_seed_are_findable_from_a_lone_png(store, tmp_path):
    made = recipe(2**62 + 1)
    store.put_image(made, picture(), META)
    moved = tmp_path / "sent by mail.png"
    moved.write_bytes(store.image_path(made.key).read_bytes())
    _, found, record = read_png(moved)
    assert (found.prompt, found.seed, record["key"]) == (made.prompt, made.seed, made.key)
    assert store.recipe(made.key) == made


def test_an_unknown_image_is_a_key_error(store):
    with pytest.raises(KeyError):
        store.image("0" * 32)


def test_an_image_that_is_there_is_kept(store):
    store.put_image(recipe(), picture(0), META)
    store.put_image(recipe(), picture(1), META)
    assert np.array_equal(store.image(recipe().key), picture(0))
    assert len(store.image_records()) == 1


def test_an_image_of_the_wrong_size_is_refused(store):
    with pytest.raises(ValueError, match="size"):
        store.put_image(recipe(width=32), picture(), META)


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_cut_png_is_set_aside_and_made_again(store, kept, caplog):
    first, second = filled(store, 2)
    path = store.image_path(first)
    path.write_bytes(path.read_bytes()[:kept])
    assert store.missing([first, second]) == [first]
    assert path.with_name(path.name + ".broken").exists()
    assert "made again" in caplog.text
    store.put_image(recipe(0), picture(0), META)
    assert store.missing([first, second]) == []


def test_damage_in_the_middle_is_found_when_the_image_is_used(store):
    (key,) = filled(store, 1)
    path = store.image_path(key)
    data = bytearray(path.read_bytes())
    middle = data.index(b"IDAT") + 200
    data[middle] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match="Run again"):
        store.image(key)
    assert store.missing([key]) == [key]


def test_changed_pixels_are_found_though_the_png_is_whole(store):
    (key,) = filled(store, 1)
    path = store.image_path(key)
    with Image.open(path) as file:
        texts = store_module.PngImagePlugin.PngInfo()
        for name, text in file.text.items():
            texts.add_text(name, text)
    picture(1).save(path, pnginfo=texts)
    with pytest.raises(BrokenImage, match="not those that were saved"):
        read_png(path)


def test_asking_for_many_images_is_quick(store):
    filled(store, 1)
    data = store.image_path(recipe(0).key).read_bytes()
    keys = [recipe(seed).key for seed in range(1500)]
    for key in keys:
        store.image_path(key).parent.mkdir(exist_ok=True)
        store.image_path(key).write_bytes(data)
    began = time.perf_counter()
    assert store.missing(keys) == []
    # 30 000 in under 30 seconds even on a slow, busy machine; usually one or two.
    assert time.perf_counter() - began < 1.5


# Records


def test_records_are_written_in_shards_and_read_as_one_table(store, monkeypatch):
    monkeypatch.setattr(store_module, "FLUSH_ROWS", 4)
    keys = filled(store, 10)
    assert len(list((store.root / "records/images").glob("*.parquet"))) == 2  # the last two still wait
    assert set(store.image_records()["key"]) == set(keys)
    assert len(list((store.root / "records/images").glob("*.parquet"))) == 3


def test_records_that_a_crash_took_are_made_from_the_images(store):
    keys = filled(store, 5)  # never flushed: the process is killed here
    records = Store(store.root).image_records()
    assert list(records.sort_values("seed")["key"]) == keys
    expected = store.image_records().sort_values("seed").reset_index(drop=True)
    pd.testing.assert_frame_equal(records.sort_values("seed").reset_index(drop=True), expected)
    shards = len(list((store.root / "records/images").glob("*.parquet")))
    Store(store.root).image_records()
    assert len(list((store.root / "records/images").glob("*.parquet"))) == shards  # made once


@pytest.mark.parametrize("kept", [0, 10, 500, -4])
def test_a_cut_parquet_is_set_aside_and_its_rows_are_made_again(store, kept, caplog):
    keys = filled(store, 3)
    store.flush()
    (shard,) = (store.root / "records/images").glob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:kept])
    assert set(Store(store.root).image_records()["key"]) == set(keys)
    assert shard.with_name(shard.name + ".broken").exists()
    assert "set aside" in caplog.text


def test_of_rows_for_one_image_the_last_counts(store):
    filled(store, 1)
    store.flush()
    row = store.image_records()
    store._write_shard("images", row.assign(seconds=9.0))
    assert list(store.image_records()["seconds"]) == [9.0]


def test_two_processes_share_a_store(store):
    one, two = Store(store.root), Store(store.root)
    one.put_image(recipe(0), picture(0), META)
    two.put_image(recipe(0), picture(0), META)
    two.put_image(recipe(1), picture(1), META)
    one.flush()
    two.flush()
    assert sorted(one.image_records()["seed"]) == [0, 1]


# Scores


def test_scores_are_kept_for_each_input_and_only_missing_rows_are_asked_for(store):
    rows = pd.DataFrame(
        {"key": ["a" * 32, "b" * 32, "b" * 32, "b" * 32], "prompt": ["x", "x", "y", "y"], "role": list("1234")}
    )
    asked = store.missing_scores("clip@1", ["prompt"], rows)
    assert list(asked["role"]) == ["1", "2", "3"]  # the last one repeats key and prompt
    store.put_scores("clip@1", asked[["key", "prompt"]].iloc[:2].assign(value=[0.1, 0.2]))
    assert list(store.missing_scores("clip@1", ["prompt"], rows)["role"]) == ["3"]
    assert len(store.missing_scores("clip@2", ["prompt"], rows)) == 3  # another version knows nothing
    store.put_scores("clip@1", asked[["key", "prompt"]].iloc[2:].assign(value=[0.3]))
    assert not len(store.missing_scores("clip@1", ["prompt"], rows))
    assert sorted(store.scores("clip@1", ["prompt"])["value"]) == [0.1, 0.2, 0.3]
    assert store.metric_ids() == ["clip@1"]


def test_a_metric_without_inputs(store):
    rows = pd.DataFrame({"key": ["a" * 32, "a" * 32, "b" * 32]})
    store.put_scores("judge@1", pd.DataFrame({"key": ["a" * 32], "label": ["church"]}))
    assert list(store.missing_scores("judge@1", [], rows)["key"]) == ["b" * 32]
    assert list(store.scores("nothing@1", []).columns) == ["key"]


def test_detections_and_features_come_back_as_they_were(store):
    boxes = [[{"class": "FACE", "score": 0.25, "box": [1, 2, 3, 4]}], []]
    features = [np.arange(4, dtype=np.float32), np.ones(4, dtype=np.float32) / 3]
    store.put_scores("nude@3", pd.DataFrame({"key": ["a" * 32, "b" * 32], "found": boxes, "features": features}))
    store.put_scores("nude@3", pd.DataFrame({"key": ["c" * 32], "found": [[]], "features": [features[0]]}))
    back = store.scores("nude@3", []).set_index("key")
    assert [len(back.loc[key * 32, "found"]) for key in "abc"] == [1, 0, 0]
    found = back.loc["a" * 32, "found"][0]
    assert (found["class"], found["score"], list(found["box"])) == ("FACE", 0.25, [1, 2, 3, 4])
    stacked = np.stack(back["features"])
    assert stacked.dtype == np.float32
    assert np.array_equal(stacked, np.stack([*features, features[0]]))


def test_scores_of_a_broken_shard_are_asked_for_again(store):
    rows = pd.DataFrame({"key": ["a" * 32, "b" * 32]})
    store.put_scores("judge@1", rows.iloc[:1].assign(value=1.0))
    store.put_scores("judge@1", rows.iloc[1:].assign(value=2.0))
    first = min((store.root / "records/judge@1").glob("*.parquet"))
    first.write_bytes(first.read_bytes()[:-1])
    assert list(store.missing_scores("judge@1", [], rows)["key"]) == ["a" * 32]


def test_no_name_becomes_a_path(store):
    store.put_scores("hub/../../../judge@1", pd.DataFrame({"key": ["a" * 32], "value": [1.0]}))
    assert store.metric_ids() == ["hub/../../../judge@1"]
    (shard,) = store.root.rglob("*.parquet")
    assert shard.parent.parent == store.root / "records"
    for bad in ("", "..", "../../etc/passwd", "A" * 32, "0" * 32 + "\n"):
        with pytest.raises(ValueError, match="key"):
            store.image_path(bad)
        with pytest.raises(ValueError, match="key"):
            store.edit_path(bad)
    for bad in ("", "..", "a/b", ".hidden", "x" * 300):
        with pytest.raises(ValueError, match="run"):
            store.run_folder(bad)


# Edits


def test_edits_are_kept_and_a_cut_one_is_made_again(store):
    torch = pytest.importorskip("torch")
    from erasebench.edits.eraser import Change, Edit

    key = "e" * 32
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    edit = Edit({name: Change(delta=torch.ones(2, 3))}, {"method": "cure"})
    assert store.get_edit(key) is None
    store.put_edit(key, edit)
    assert store.has_edit(key)
    assert torch.equal(store.get_edit(key).changes[name].delta, torch.ones(2, 3))
    path = store.edit_path(key)
    path.write_bytes(path.read_bytes()[:-5])
    assert store.get_edit(key) is None
    assert not path.exists()
    assert path.with_name(path.name + ".broken").exists()


# Disks


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_said_and_leaves_nothing_partial(store, monkeypatch, call):
    filled(store, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(UserError, match=r"results.*no space is left"):
            store.put_image(recipe(1), picture(1), META)
        with pytest.raises(UserError, match="no space is left"):
            store.put_scores("judge@1", pd.DataFrame({"key": ["a" * 32], "value": [1.0]}))
        with pytest.raises(UserError, match="no space is left"):
            store.flush()
    assert leftovers(store) == []
    assert store.missing([recipe(1).key]) == [recipe(1).key]
    assert sorted(store.image_records()["seed"]) == [0]  # the row that could not be flushed was not lost


def test_a_write_that_the_system_really_stops_leaves_nothing(tmp_path):
    script = """
import resource, signal, sys
from pathlib import Path
from erasebench.errors import UserError
from erasebench.files import write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path(sys.argv[1]) / "big", b"x" * 5000)
except UserError as error:
    print(error)
"""
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert str(tmp_path) in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused_before_work(tmp_path, monkeypatch):
    Store(tmp_path / "new" / "results").check_writable()
    assert list((tmp_path / "new" / "results").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a file is in the way"):
        Store(tmp_path / "file" / "results").check_writable()
    with pytest.raises(UserError, match="MiB free"):
        Store(tmp_path / "results").check_writable(need_bytes=2**60)

    def denied(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "fsync", denied)
    with pytest.raises(UserError, match="not writable"):
        Store(tmp_path / "results").check_writable()


def test_temporary_files_of_killed_processes_are_swept_and_fresh_ones_kept(store):
    filled(store, 1)
    old, fresh = store.root / "images" / ".1-a.tmp", store.root / "images" / ".2-b.tmp"
    old.write_bytes(b"half")
    fresh.write_bytes(b"half")
    past = time.time() - STALE_SECONDS - 60
    os.utime(old, (past, past))
    store.check_writable()
    assert not old.exists()
    assert fresh.exists()
    assert store.missing([recipe(0).key]) == []


def test_a_file_is_never_seen_half_written(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError):
            write_atomic(path, b"new and longer")
    assert path.read_bytes() == b"old"
