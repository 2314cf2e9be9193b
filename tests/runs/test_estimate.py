"""What is still to be made, and what it will take, is said before it is begun."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from erasebench import run as walk
from erasebench.config.compose import compose
from erasebench.edits.found import Found
from erasebench.errors import UserError
from erasebench.run import run
from erasebench.runs.estimate import Cost
from erasebench.store import Store

FEW = [
    "task=object", "method=uce", "metric=[]", "prompts.per_erased=1", "prompts.per_paraphrased=0", "prompts.per_near=0",
    "prompts.per_retained=0", "prompts.general=0",
    "protocol.steps=1", "device=cpu",
]  # fmt: skip


def dry(store: Path, *overrides: str) -> str:
    console = Console(file=io.StringIO(), width=200)
    assert run(compose([*FEW, f"store.dir={store}", "dry_run=true", *overrides]), console) is None
    return " ".join(console.file.getvalue().split())


def test_edits_cost_time_and_disk_and_that_is_known_once_one_is_made(tmp_path: Path) -> None:
    one, two = "task.erase=[church]", "task.erase=[church,tench,gas pump]"
    assert "1 edits to make; time for them here: unknown until the first edits are made; disk: unknown" in dry(
        tmp_path, one
    )
    run(compose([*FEW, f"store.dir={tmp_path}", one]), Console(file=io.StringIO()))
    assert "0 images to make" in dry(tmp_path, one) and "edits to make" not in dry(tmp_path, one)
    (edit,) = tmp_path.glob("edits/*.safetensors")
    said = dry(tmp_path, two)
    assert f"2 edits to make; time for them here: 0.0 minutes; disk: {2 * edit.stat().st_size / 1e6:.3g} MB" in said
    assert "unknown" in dry(tmp_path, two, "method=cure"), "another eraser's edits say nothing of its"


def test_a_training_costs_what_one_with_the_same_settings_took_here(tmp_path: Path) -> None:
    """An eraser that trains takes as long as its settings say: ten steps tell nothing of a thousand."""
    esd = ["method=esd", "method.iterations=2", "method.steps=2"]
    one, two = "task.erase=[church]", "task.erase=[church,tench,gas pump]"
    text = dry(tmp_path, one, *esd)
    assert "1 trainings to do; time for them here: not known yet; disk: not known yet" in text
    assert "edits to make" not in text
    run(compose([*FEW, f"store.dir={tmp_path}", one, *esd]), Console(file=io.StringIO()))
    assert "trainings" not in dry(tmp_path, one, *esd)
    (path,) = tmp_path.glob("edits/*.safetensors")
    notes = json.loads(path.with_suffix(".json").read_text())
    size = f"{2 * path.stat().st_size / 1e6:.3g} MB"
    path.with_suffix(".json").write_text(json.dumps(notes | {"seconds": 90.0}))
    assert f"2 trainings to do; time for them here: 3.0 minutes; disk: {size}" in dry(tmp_path, two, *esd)
    assert "3 trainings to do; time for them here: not known yet" in dry(tmp_path, two, *esd[:1], "method.iterations=3")
    path.with_suffix(".json").write_text(json.dumps(notes | {"machine": "cuda another"}))
    assert f"2 trainings to do; time for them here: not known yet; disk: {size}" in dry(tmp_path, two, *esd)
    both = dry(tmp_path, one, "method=[esd,uce]", "method.esd.iterations=3")
    assert "1 edits to make" in both and "1 trainings to do" in both


def test_searches_cost_what_the_same_attack_took_here(tmp_path: Path) -> None:
    few = ["task.erase=[church]", "prompts.per_erased=4", "attack=random_tokens"]
    unknown = "searches of attacks to do; time for them here: unknown until the first is done"
    assert f"4 {unknown}" in dry(tmp_path, *few)
    run(compose([*FEW, f"store.dir={tmp_path}", *few, "prompts.per_erased=1"]), Console(file=io.StringIO()))
    text = dry(tmp_path, *few)
    assert "3 searches of attacks to do; time for them here: 0.0 minutes" in text, "one of the four is done"
    (path,) = tmp_path.glob("attacks/*/*.safetensors")
    notes = Store(tmp_path).get_attack(path.stem).info

    def measured(*each: dict) -> str:
        """What a dry run says where these notes are all there is; the image of one search is there, so it is not wanted."""
        for old in tmp_path.glob("attacks/*/*.safetensors"):
            old.unlink()
        for number, more in enumerate(each):
            Store(tmp_path).put_attack(f"{number}" * 32, Found(prompt="x", info=notes | more))
        return dry(tmp_path, *few)

    took = [{"seconds": seconds} for seconds in (60.0, 90.0, 6000.0)]
    assert "3 searches of attacks to do; time for them here: 4.5 minutes" in measured(*took), "three medians"
    assert f"3 {unknown}" in measured({"settings": notes["settings"] | {"length": 5}}), (
        "another budget is another attack"
    )
    assert unknown in measured({"machine": "cuda another"}) and unknown in measured({"attack": "ring_a_bell"})


def test_half_an_estimate_of_searches_is_none(tmp_path: Path) -> None:
    """Two attacks, one of which has never looked for anything here."""
    few = ["task.erase=[church]", "method=uce"]
    run(compose([*FEW, f"store.dir={tmp_path}", *few, "attack=random_tokens"]), Console(file=io.StringIO()))
    both = dry(tmp_path, *few, "prompts.per_erased=2", "attack=[random_tokens,ring_a_bell_direct]")
    assert "3 searches of attacks to do; time for them here: unknown" in both


def test_a_disk_that_is_too_small_for_all_of_it_is_refused_before_any_work(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(walk, "estimate_run", lambda *given: Cost(1, 1.0, 5e17, 1, 1.0, 5e17))
    with pytest.raises(UserError, match="MiB free and this needs about 953,674,316,406 MiB"):
        run(compose([*FEW, f"store.dir={tmp_path}"]), Console(file=io.StringIO()))
    assert not list(tmp_path.glob("runs/*")) and not Store(tmp_path).metric_ids()


def test_what_is_unknown_is_not_counted_as_nothing_in_words() -> None:
    cost = Cost(3, None, None, 2, 60.0, 5e6)
    assert str(cost).count("unknown") == 2 and cost.known_bytes == 5_000_000
    assert "edits" not in str(dataclasses.replace(cost, edits=0))
    trainings = dataclasses.replace(cost, trainings=2, training_seconds=7200.0, training_bytes=3e6)
    assert "2 trainings to do; time for them here: 2.0 hours; disk: 3 MB" in str(trainings)
    assert trainings.known_bytes == 8_000_000
