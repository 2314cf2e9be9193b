"""Two processes write the same into one store at the same moment: nothing is lost, cut, or of two minds."""

from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pandas as pd
import torch
from store_helpers import META, broken, leftovers, picture, recipe

from erasebench.edits.edit import Edit
from erasebench.edits.eraser import Change
from erasebench.store import Store
from erasebench.store.png import pixels_sha256

IMAGES, METRIC, EDITS = 40, "judge@1", [f"{number:032x}" for number in range(6)]


def work(root: Path, number: int, barrier: Barrier) -> None:
    """All that a run writes, thing by thing at the same moment as the other process; of what each makes of a thing one can
    tell who made it."""
    store = Store(root, mends=True)
    barrier.wait(60)
    store.check_writable()
    for seed in range(IMAGES):
        barrier.wait(60)
        store.put_image(recipe(seed), picture(seed + 1000 * number), META | {"device": f"cpu {number}"})
        if seed % 5 == 0:
            store.flush()
            rows = pd.DataFrame({"key": [recipe(seed).key, f"{number:032x}"], "value": [float(number), float(seed)]})
            store.put_scores(METRIC, rows)
    for key in EDITS:
        barrier.wait(60)
        change = Change(left=torch.full((3, 1), 1.0 + number), right=torch.ones(1, 4))
        store.put_edit(key, Edit({"unet.a.to_k.weight": change}, {"method": "uce", "seconds": float(number)}))
    barrier.wait(60)
    store.merge_shards()


def test_two_processes_write_the_same_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    processes = [context.Process(target=work, args=(tmp_path, number, barrier)) for number in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0, 0]
    store = Store(tmp_path)
    records = store.image_records().set_index("key")
    assert set(records.index) == {recipe(seed).key for seed in range(IMAGES)} and records.index.is_unique
    for seed in range(IMAGES):
        shown = pixels_sha256(store.image(recipe(seed).key))
        by = [number for number in (0, 1) if shown == pixels_sha256(picture(seed + 1000 * number))]
        assert len(by) == 1, "the image of one of them, whole"
        record = records.loc[recipe(seed).key]
        assert (record.pixels_sha256, record.device) == (shown, f"cpu {by[0]}"), "and what is said is said of that one"
    scores = store.scores(METRIC, []).set_index("key")
    assert scores.index.is_unique and len(scores) == IMAGES // 5 + 2
    for key in EDITS:
        edit, notes = store.get_edit(key), store.edit_notes(key)
        assert edit is not None
        assert edit.changes["unet.a.to_k.weight"].left[0, 0] == 1 + edit.info["seconds"] == 1 + notes["seconds"]
    assert not broken(tmp_path) and not leftovers(store)
