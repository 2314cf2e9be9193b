"""A run that was copied to another machine: the same tables and report, without weights, caches, packages or folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from table_helpers import quiet

from erasebench.config.compose import compose
from erasebench.run import run

BARE = """
import sys
from importlib import import_module
for name in ("open_clip", "nudenet", "torch_fidelity", "lpips", "timm"):
    sys.modules[name] = None  # as if it were not installed
embedded = import_module("erasebench.metrics._embedded")
embedded.fingerprint = lambda folder: "absent"
for module in ("_common", "_clip", "classifier", "nudenet", "lpips", "_features"):
    module = import_module(f"erasebench.metrics.{module}")
    if hasattr(module, "has_package"):
        module.has_package = lambda name: False
    if hasattr(module, "hub_file"):
        module.hub_file = lambda *arguments: None
from erasebench.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""A process of a machine that has PyTorch and nothing else."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a run of two kinds, four metrics and a reference set, whose folder is gone now."""
    root = tmp_path_factory.mktemp("made")
    reference = root / "real images"
    reference.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(reference / f"{i}.png")
    run(
        compose(
            [
                "name=mine", "method=uce", "task=main", "~task.artist", "~task.celebrity", "~task.unsafe",
                "task.object.erase=[church]", "task.object.concepts=[church,tench,castle,gas pump]",
                "prompts.per_erased=2", "prompts.per_paraphrased=0", "prompts.per_near=0",
                "prompts.per_retained=1", "prompts.general=3",
                "metric=[judge,clip_score_embedded,kid_embedded,kid_embedded_real,judge_distance]",
                f"metric.kid_embedded_real.reference={reference}", "protocol.steps=2", "device=cpu",
                f"store.dir={root / 'results'}",
            ]
        ),
        quiet(),
    )  # fmt: skip
    shutil.rmtree(reference)
    return root / "results"


def on_a_bare_machine(*arguments: str) -> str:
    """Give a command there; its output."""
    done = subprocess.run(
        [sys.executable, "-c", BARE, *arguments],
        capture_output=True, text=True, env=os.environ | {"HF_HOME": "/nonexistent", "TORCH_HOME": "/nonexistent"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copied_run_gives_the_same_tables(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copied"
    shutil.copytree(finished, copy)
    tables = copy / "runs" / "mine" / "tables"
    before = files_of(tables)
    shutil.rmtree(tables)
    assert b"kid_embedded_real" in before["measured.csv"]
    said = on_a_bare_machine("table", "mine", "--store", str(copy))
    assert files_of(tables) == before and "no score" not in said
    out = on_a_bare_machine("report", "mine", "--store", str(copy))
    assert "index.html" in out
    assert (copy / "reports/mine/tables/measured.csv").read_bytes() == before["measured.csv"]


def test_what_is_stored_of_a_metric_is_of_no_machine(finished: Path) -> None:
    text = (finished / "runs" / "mine" / "metrics.json").read_text()
    records = {record["name"]: record for record in json.loads(text)}
    assert set(records) == {"judge", "clip_score_embedded", "kid_embedded", "kid_embedded_real", "judge_distance"}
    assert str(finished.parent) not in text
    assert records["judge"]["class"] == "erasebench.metrics.judge.Judge"
