"""Nothing that was computed is lost, nothing broken is taken for good, whatever dies and when."""

from __future__ import annotations

import errno
import os
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image, PngImagePlugin
from store_helpers import META, broken, filled, leftovers, picture, recipe

from erasebench.errors import Damaged, UserError
from erasebench.files import STALE_SECONDS, temporary_beside
from erasebench.recipe import Recipe
from erasebench.store import Store, pixels_sha256, read_png
from erasebench.store import store as store_module


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results", mends=True)


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
def test_a_cut_png_is_found_when_it_is_used_and_made_again(store, kept, caplog):
    first, second = filled(store, 2)
    path = store.image_path(first)
    path.write_bytes(path.read_bytes()[:kept])
    assert not store.has_image(first)
    with pytest.raises(Damaged):
        store.image(first)
    assert store.missing([first, second]) == [first]
    assert broken(store.root) == [f"{first}.png.broken"]
    assert "made again" in caplog.text
    store.put_image(recipe(0), picture(0), META)
    assert np.array_equal(store.image(first), picture(0))
    path.write_bytes(b"cut again")
    store.put_image(recipe(0), picture(0), META)
    assert np.array_equal(store.image(first), picture(0))
    assert broken(store.root) == [f"{first}.png.broken", f"{first}.png.broken-2"], "nothing is overwritten"


def test_damage_in_the_middle_is_found_when_the_image_is_used(store):
    (key,) = filled(store, 1)
    path = store.image_path(key)
    data = bytearray(path.read_bytes())
    middle = data.index(b"IDAT") + 200
    data[middle] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(Damaged, match="give the command that made it again"):
        store.image(key)
    assert store.missing([key]) == [key]


def test_changed_pixels_are_found_though_the_png_is_whole(store):
    (key,) = filled(store, 1)
    path = store.image_path(key)
    with Image.open(path) as file:
        texts = PngImagePlugin.PngInfo()
        for name, text in file.text.items():
            texts.add_text(name, text)
    picture(1).save(path, pnginfo=texts)
    with pytest.raises(Damaged, match="not those that were saved"):
        read_png(path)


def test_asking_for_many_images_opens_no_file(store, monkeypatch):
    keys = filled(store, 5)

    def opened(*_, **__):
        raise AssertionError("a file was opened")

    monkeypatch.setattr("builtins.open", opened)
    monkeypatch.setattr("os.open", opened)
    assert store.missing([*keys, recipe(5).key, keys[0]]) == [recipe(5).key]


def test_of_an_image_that_is_put_twice_the_first_stays(store):
    one, two = Store(store.root), Store(store.root)
    one.put_image(recipe(0), picture(0), META)
    two.put_image(recipe(0), picture(1), META)
    two.put_image(recipe(1), picture(1), META)
    one.flush()
    two.flush()
    assert np.array_equal(one.image(recipe(0).key), picture(0))
    records = store.image_records().set_index("seed")
    assert list(records.pixels_sha256[[0, 1]]) == [pixels_sha256(picture(0)), pixels_sha256(picture(1))]


# Records


def test_records_are_written_in_shards_and_read_as_one_table(store, monkeypatch):
    monkeypatch.setattr(store_module, "FLUSH_ROWS", 4)
    keys = filled(store, 10)
    assert len(list((store.root / "records/images").glob("*.parquet"))) == 2  # the last two still wait
    assert set(store.image_records()["key"]) == set(keys)


def test_records_that_a_crash_took_are_made_from_the_images(store):
    keys = filled(store, 5)  # never flushed: the process is killed here
    assert list(Store(store.root).image_records()["key"].sort_values()) == sorted(keys)
    assert not (store.root / "records").exists(), "who reads writes nothing"
    records = Store(store.root, mends=True).image_records()
    assert list(records.sort_values("seed")["key"]) == keys
    expected = store.image_records().sort_values("seed").reset_index(drop=True)
    pd.testing.assert_frame_equal(records.sort_values("seed").reset_index(drop=True), expected)
    for _ in range(2):
        Store(store.root, mends=True).check_writable()
        assert len(list((store.root / "records/images").glob("*.parquet"))) == 1, "made once"
    assert len(Store(store.root).image_records()) == 5


def test_what_a_crash_cut_is_found_before_work_begins(store):
    (recorded,) = filled(store, 1)
    store.flush()
    fresh = filled(store, 4)[1:]
    for key, keep in zip(fresh[:2], (0, 100), strict=True):
        store.image_path(key).write_bytes(store.image_path(key).read_bytes()[:keep])
    Store(store.root).check_writable()
    assert broken(store.root) == [] and store.missing([recorded, *fresh]) == []
    Store(store.root, mends=True).check_writable()
    assert store.missing([recorded, *fresh]) == fresh[:2]
    assert len(Store(store.root).image_records()) == 2


@pytest.mark.parametrize("kept", [0, 10, 500, -4])
def test_a_cut_parquet_is_set_aside_and_its_rows_are_made_again(store, kept, caplog):
    keys = filled(store, 3)
    store.flush()
    (shard,) = (store.root / "records/images").glob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:kept])
    assert set(Store(store.root).image_records()["key"]) == set(keys)
    assert broken(store.root) == []
    assert set(Store(store.root, mends=True).image_records()["key"]) == set(keys)
    assert broken(store.root) == [shard.name + ".broken"]
    assert "set aside" in caplog.text


def test_of_an_image_that_was_made_twice_the_later_record_counts(store):
    (key,) = filled(store, 1)
    store.flush()
    store.image_path(key).unlink()
    store.put_image(recipe(0), picture(0), META | {"seconds": 9.0})
    assert list(store.image_records()["seconds"]) == [9.0]
    store.flush()
    assert list(Store(store.root).image_records()["seconds"]) == [9.0]


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


@pytest.mark.parametrize("calls", [["fsync"], ["link", "replace"]])
def test_a_full_disk_is_said_and_leaves_nothing_partial(store, monkeypatch, calls):
    filled(store, 1)
    with monkeypatch.context() as patch:
        for call in calls:
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


def test_a_folder_that_cannot_be_written_is_refused_before_work(store, tmp_path):
    store.check_writable()
    assert list(store.root.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a file is in the way"):
        Store(tmp_path / "file" / "results").check_writable()


def test_only_what_is_ours_is_swept(store, tmp_path):
    past = time.time() - STALE_SECONDS - 60
    ours = [
        temporary_beside(store.root / place) for place in ("images/ab/x", "reports/run", "edits/x", "records/m@1/x")
    ]
    for path in ours[1:2]:  # a report that was killed leaves a folder
        (path / "data").mkdir(parents=True)
        (path / "data" / "index.html").write_text("half")
    linked = tmp_path / "elsewhere"
    kept = [
        store.root / ".thesis.pdf.part", store.root / "downloads" / ".video.tmp", temporary_beside(store.root / "mine" / "x"),
        store.root / "images" / ".mine.tmp", store.root / "images" / "ab" / ".1-a.tmp", temporary_beside(linked / "x"),
    ]  # fmt: skip
    for path in (*ours, *kept):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"half")
        os.utime(path, (past, past))
    (store.root / "images" / "link").symlink_to(linked)
    fresh = temporary_beside(store.root / "images" / "x")
    fresh.write_bytes(b"somebody is writing this")
    store.check_writable()
    assert [path.name for path in ours if path.exists()] == []
    assert [path.name for path in (*kept, fresh) if not path.exists()] == []


def test_what_cannot_be_swept_is_no_reason_to_stop(store, monkeypatch):
    path = temporary_beside(store.root / "images" / "x")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    past = time.time() - STALE_SECONDS - 60
    os.utime(path, (past, past))

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    unlink = type(path).unlink
    monkeypatch.setattr(type(path), "unlink", lambda self, *a, **b: denied() if self == path else unlink(self, *a, **b))
    store.check_writable()
    assert path.exists()


def test_a_clock_that_is_wrong_deletes_nothing(store, monkeypatch):
    path = temporary_beside(store.root / "images" / "x")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"another machine is writing this")
    monkeypatch.setattr(time, "time", lambda: 0.0 + 2**33)
    store.check_writable()
    assert path.exists()


@pytest.mark.parametrize(
    "odd",
    [
        "[]",
        "3",
        '{"seconds": "x"}',
        '{"norms": {"a": []}}',
        '{"warnings": [1]}',
        '{"device": null}',
        "{",
        '{"a": "\\ud800"}',
    ],
)
def test_notes_of_an_edit_that_cannot_be_are_as_none(store, odd):
    path = store.edit_path("ab" * 16).with_suffix(".json")
    path.parent.mkdir(parents=True)
    path.write_text('{"seconds": 1, "norms": {"w": 2.5}, "warnings": ["x"], "own": [1]}')
    assert store.edit_notes("ab" * 16)["own"] == [1]
    path.write_text(odd)
    assert store.edit_notes("ab" * 16) == {}


def test_the_probe_of_a_killed_process_is_swept(store):
    store.root.mkdir()
    old, young, foreign = (store.root / f".erasebench-{n}-{'0' * 12}.tmp" for n in (1, 2, "x"))
    for path in (old, young, foreign):
        path.write_bytes(b"erasebench")
    for path in (old, foreign):
        os.utime(path, (0, 0))
    store.check_writable()
    assert sorted(leftovers(store)) == sorted([young.name, foreign.name])
