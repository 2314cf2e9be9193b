"""The folders of runs: a broken one is named and hides no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from table_helpers import PLUGINS, finish, make_plan

from erasebench.cli import main
from erasebench.commands.show import show
from erasebench.errors import UserError
from erasebench.export.find import find_edit
from erasebench.runs.folder import find_runs, latest_run, read_plan
from erasebench.runs.manifest import command_line, read_manifest
from erasebench.runs.names import MANIFEST_FILE, PLAN_FILE
from erasebench.store import Store

BROKEN = ["{", "[]", "{}", '{"command": [], "metrics": {}}', '{"command": "x", "metrics": {}}',
          '{"command": ["x"], "metrics": {"a": 1}}', '{"command": ["x"], "metrics": {}, "model": 3}']  # fmt: skip


@pytest.fixture(params=BROKEN)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A good run, and one that was started later and whose manifest is broken."""
    store = Store(tmp_path / "results")
    for name in ("good", "later"):
        finish(store, name, make_plan(("none", "uce"), ("church",), 2))
    path = store.root / "runs" / "later" / MANIFEST_FILE
    path.write_text(request.param)
    os.utime(path, (2_000_000_000, 2_000_000_000))
    return store


def test_the_latest_run_is_the_latest_that_can_be_read(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    assert latest_run(store).name == "good"
    assert f"later/{MANIFEST_FILE}: cannot be read" in caplog.text
    assert [folder.name for folder in find_runs(store, [])] == ["good"]


def test_every_command_reads_the_good_one_and_names_the_broken_one(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    at = ["--store", str(store.root), "--plugins", *PLUGINS]
    assert main(["table", "good", *at]) == 0
    assert main(["show", "good", *at[:2]]) == 0
    plan = read_plan(store.root / "runs" / "good")
    edited = plan[plan.edit_key != ""].iloc[0]
    with pytest.raises(UserError, match="no image, edit, attack or run goes by that.*good, later"):
        show(store, edited.edit_key)
    capfd.readouterr()
    for command in (["table", "later", *at], ["show", "later", *at[:2]], ["table", "good", "later", *at]):
        assert main(command) == 2
        assert f"later/{MANIFEST_FILE}: cannot be read" in capfd.readouterr().err


def test_a_run_that_cannot_be_read_hides_no_edit(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    import torch

    from erasebench.edits.edit import Edit
    from erasebench.edits.eraser import Change

    key = read_plan(store.root / "runs" / "good").edit_key.max()
    store.put_edit(
        key, Edit({"unet.a.weight": Change(left=torch.ones(2, 1), right=torch.ones(1, 2))}, {"method": "uce"})
    )
    (store.root / "runs" / "good" / "tables").mkdir()
    (store.root / "runs" / "good" / "tables" / "measured.csv").write_text("")
    (store.root / "runs" / "later" / "tables").mkdir()
    (store.root / "runs" / "later" / "tables" / "measured.csv").write_text("")
    run = find_edit(store, key[:8]).run
    assert run is not None and run.name == "good" and "left out" in caplog.text
    (store.root / "runs" / "good" / PLAN_FILE).write_bytes(b"PAR1")
    assert find_edit(store, key[:8]).run is None


def test_a_plan_that_cannot_be_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    plan = make_plan(("none", "uce"), ("church",), 2)
    odd = {
        "no-key": plan.assign(key="../../x"), "no-seed": plan.assign(seed="x"), "no-rows": plan.iloc[:0],
        "no-text": plan.assign(eraser=3), "empty-cell": plan.assign(label=None), "no-column": plan.drop(columns="role"),
        "no-clean-key": plan.assign(clean_key=""), "no-targets": plan.assign(targets="church"),
    }  # fmt: skip
    for name, changed in odd.items():
        folder = finish(store, name, plan)
        changed.to_parquet(folder / PLAN_FILE)
        with pytest.raises(UserError, match=name):
            read_plan(folder)
    folder = finish(store, "of-before", plan)
    plan.drop(columns=["attack", "attack_key", "clean_key"]).to_parquet(folder / PLAN_FILE)
    read = read_plan(folder)
    assert list(read.clean_key) == list(plan.key) and not read.attack.any()
    assert command_line(read_manifest(folder)) == "erasebench run 'task.erase=[church, gas pump]'"
