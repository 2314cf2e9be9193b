"""Rows in many files: one order for everyone, and merging loses none of them, whatever dies and when."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import numpy as np
import pandas as pd
import pytest

from erasebench.errors import UserError
from erasebench.store import Store, shards
from erasebench.store.shards import MANY


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results", mends=True)


def rows(start: int, count: int = 3, value: float = 0.0) -> pd.DataFrame:
    return pd.DataFrame({"key": [f"{i:032x}" for i in range(start, start + count)], "value": float(value)})


def files(store: Store) -> list[str]:
    return sorted(os.listdir(store.root / "records" / "judge@1"))


def test_of_equal_scores_the_first_written_counts_whatever_the_clock_says(store, monkeypatch):
    for value, clock in enumerate((100.0, 1.0, 1000.0)):
        monkeypatch.setattr(time, "time", lambda clock=clock: clock)
        monkeypatch.setattr(time, "time_ns", lambda clock=clock: int(clock * 1e9))
        Store(store.root).put_scores("judge@1", rows(0, value=value))
    assert set(store.scores("judge@1", [])["value"]) == {0.0}


def test_scores_that_two_wrote_at_once_are_the_same_for_every_reader(store, monkeypatch):
    monkeypatch.setattr(shards, "_listed", lambda folder: [])  # neither sees the other's shard
    store.put_scores("judge@1", rows(0, value=1))
    store.put_scores("judge@1", rows(0, value=2))
    monkeypatch.undo()
    assert len(files(store)) == 2
    before = store.scores("judge@1", [])
    assert len(before) == 3
    store.put_scores("judge@1", rows(0, value=3))
    pd.testing.assert_frame_equal(Store(store.root).scores("judge@1", []), before)


def test_merging_changes_no_row_and_no_order(store):
    for part in range(MANY):
        store.put_scores("judge@1", rows(2 * part, value=part))  # each repeats a key of the one before
    before = store.scores("judge@1", [])
    store.merge_shards()
    assert len(files(store)) == 1
    pd.testing.assert_frame_equal(store.scores("judge@1", []), before)
    store.put_scores("judge@1", rows(0, count=100, value=-1))
    assert store.scores("judge@1", []).iloc[: len(before)].equals(before)


def test_few_shards_and_large_ones_are_left_as_they_are(store, monkeypatch):
    for part in range(MANY - 1):
        store.put_scores("judge@1", rows(part))
    before = files(store)
    store.merge_shards()
    assert files(store) == before
    monkeypatch.setattr(shards, "SMALL_BYTES", 100)
    store.put_scores("judge@1", rows(99))
    store.merge_shards()
    assert set(before) < set(files(store))


def test_merged_shards_are_no_larger_than_they_may(store, monkeypatch):
    for part in range(MANY):
        store.put_scores("judge@1", rows(part))
    size = (store.root / "records" / "judge@1" / files(store)[0]).stat().st_size
    monkeypatch.setattr(shards, "MERGED_BYTES", 8 * size)
    before = store.scores("judge@1", [])
    store.merge_shards()
    assert 3 <= len(files(store)) <= 8
    pd.testing.assert_frame_equal(store.scores("judge@1", []), before)


def test_shards_of_other_columns_and_damaged_ones_survive_a_merge(store):
    for part in range(MANY):
        more = {"features": [np.arange(3, dtype=np.float32)] * 3} if part % 2 else {"note": "x"}
        store.put_scores("judge@1", rows(3 * part).assign(**more))
    damaged = store.root / "records" / "judge@1" / files(store)[5]
    damaged.write_bytes(b"cut")
    before = Store(store.root).scores("judge@1", [])
    assert len(before) == 3 * (MANY - 1)
    store.merge_shards()
    assert len(files(store)) == 2 and damaged.read_bytes() == b"cut"
    pd.testing.assert_frame_equal(Store(store.root).scores("judge@1", []), before)


def test_a_disk_that_is_full_stops_a_merge_and_takes_nothing(store, monkeypatch):
    for part in range(MANY):
        store.put_scores("judge@1", rows(part))
    before = files(store)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="no space is left"):
            store.merge_shards()
    assert files(store) == before


def merging(root, rounds: int) -> None:
    for _ in range(rounds):
        Store(root).merge_shards()


def writing(root, start: int, count: int) -> None:
    store = Store(root)
    for part in range(count):
        store.put_scores("judge@1", rows(start + part, count=1, value=start))


def test_readers_writers_and_merges_at_once_lose_no_row(store, monkeypatch):
    monkeypatch.setattr(shards, "MANY", 2)
    context = multiprocessing.get_context("fork")
    for part in range(40):
        store.put_scores("judge@1", rows(part, count=1))
    workers = [context.Process(target=merging, args=(store.root, 40)) for _ in range(2)]
    workers += [context.Process(target=writing, args=(store.root, 1000 * n, 40)) for n in (1, 2)]
    for worker in workers:
        worker.start()
    seen = []
    while any(worker.is_alive() for worker in workers):
        seen.append(len(store.scores("judge@1", [])))
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(store.scores("judge@1", [])) == 120
    assert seen == sorted(seen) and min(seen, default=40) >= 40, "a row that was there once stays"


def test_a_merge_that_is_killed_anywhere_loses_no_row(store, monkeypatch):
    monkeypatch.setattr(shards, "MANY", 2)
    context = multiprocessing.get_context("fork")
    total = 0
    for round in range(8):
        for _ in range(12):
            store.put_scores("judge@1", rows(total, count=1))
            total += 1
        worker = context.Process(target=merging, args=(store.root, 1000))
        worker.start()
        time.sleep(0.002 * round)
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        scores = Store(store.root).scores("judge@1", [])
        assert list(scores["key"].sort_values()) == [f"{i:032x}" for i in range(total)]


def test_a_shard_cannot_hold_everything_and_says_what(store):
    for cell in (object(), {1: "a"}, 1j):
        with pytest.raises(ValueError, match="value"):
            store.put_scores("judge@1", rows(0, count=1).astype({"value": object}).assign(value=[cell]))
    with pytest.raises(ValueError, match="no column 'key'"):
        store.put_scores("judge@1", pd.DataFrame({"value": [1.0]}))
    assert not (store.root / "records").exists()


@pytest.mark.parametrize("mends", [True, False])
def test_a_shard_from_before_a_column_was_asked_for_is_left_out_and_stays(store, caplog, mends):
    store = Store(store.root, mends=mends)
    store.put_scores("m@1", pd.DataFrame({"key": ["a" * 32], "value": [0.1]}))
    (old,) = store.root.glob("records/m@1/*.parquet")
    store.put_scores("m@1", pd.DataFrame({"key": ["b" * 32], "label": ["x"], "value": [0.2]}))
    rows = pd.DataFrame({"key": ["a" * 32, "b" * 32], "label": ["x", "x"]})
    assert list(store.scores("m@1", ["label"]).key) == ["b" * 32]
    assert list(store.scored("m@1", ["label"]).lacks(rows)) == [True, False]
    assert old.is_file() and not list(store.root.glob("records/m@1/*.broken"))
    assert f"{old} is left out: it has no column label, which is asked for now" in caplog.text
    assert set(store.scores("m@1", []).key) == {"a" * 32, "b" * 32}, "a metric that asks for less has all of it"
