"""What is still to be made, and what it will take, is said before it is begun."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from erasebench import run as walk
from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.run import run
from erasebench.runs.estimate import Cost
from erasebench.store import Store

FEW = [
    "task=object", "method=uce", "metric=[]", "prompts.per_erased=1", "prompts.per_retained=0", "prompts.general=0",
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


def test_a_disk_that_is_too_small_for_all_of_it_is_refused_before_any_work(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(walk, "estimate_run", lambda *given: Cost(1, 1.0, 5e17, 1, 1.0, 5e17))
    with pytest.raises(UserError, match="MiB free and this needs about 953,674,316,406 MiB"):
        run(compose([*FEW, f"store.dir={tmp_path}"]), Console(file=io.StringIO()))
    assert not list(tmp_path.glob("runs/*")) and not Store(tmp_path).metric_ids()


def test_what_is_unknown_is_not_counted_as_nothing_in_words() -> None:
    cost = Cost(3, None, None, 2, 60.0, 5e6)
    assert str(cost).count("unknown") == 2 and cost.known_bytes == 5_000_000
    assert "edits" not in str(dataclasses.replace(cost, edits=0))
