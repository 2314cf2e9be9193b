"""Numbers that were worked out before: the same to the last digit, and never those of other records or other code."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd
import pytest
from table_helpers import ABOUT, finish, make_plan, make_store, quiet, tabulate

from erasebench.files import temporary_beside
from erasebench.metrics.judge import Judge
from erasebench.runs.folder import write_metrics
from erasebench.store import Store
from erasebench.tables import kept as keeping
from erasebench.tables import tabulate as tables
from erasebench.tables.kept import KEPT_FOLDER, kept, kept_key
from erasebench.tables.numbers import Numbers
from erasebench.tiny.judge import BROKEN
from erasebench.tiny.names import HEADS

CHANCES = {f"{head}_p": 0.9 for head in (*HEADS, BROKEN)}
NONE = dict.fromkeys((*HEADS, BROKEN), "none")


@pytest.fixture
def run(tmp_path: Path) -> tuple[Store, Path]:
    """A finished run whose metric is one of ours."""
    plan, judge = make_plan(prompts=2), Judge()
    store = make_store(tmp_path, plan)
    folder = finish(store, "one", plan, about=ABOUT)
    write_metrics(folder, [judge])
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"metrics": {judge.id: {"not_run": None}}}))
    answers = plan.drop_duplicates("key")
    heads = NONE | {"object": answers.label.replace("", "none")}
    store.put_scores(judge.records_id, pd.DataFrame({"key": answers.key, **heads, **CHANCES}))
    return store, folder


def test_a_second_table_works_nothing_out_and_says_the_same(run: tuple[Store, Path], monkeypatch) -> None:
    store, folder = run
    first, again = quiet(), quiet()
    measured = tabulate(["one"], str(store.root), console=first)
    files = {path.name: path.read_bytes() for path in (folder / "tables").iterdir()}
    monkeypatch.setattr(tables, "reduce_and_write", None)
    pd.testing.assert_frame_equal(tabulate(["one"], str(store.root), console=again), measured)
    assert again.file.getvalue() == first.file.getvalue()
    assert {path.name: path.read_bytes() for path in (folder / "tables").iterdir()} == files


def test_only_files_that_are_no_more_what_they_were_are_written_again(run: tuple[Store, Path], monkeypatch) -> None:
    store, folder = run
    tabulate(["one"], str(store.root), console=quiet())
    files = {path.name: path.read_bytes() for path in (folder / "tables").iterdir()}
    monkeypatch.setattr(tables, "reduce_and_write", None)
    with monkeypatch.context() as kept_files:
        kept_files.setattr(Numbers, "write", None)
        tabulate(["one"], str(store.root), console=quiet())
    changes = {
        "another text": lambda: (folder / "tables" / "object.md").write_text("mine"),
        "gone": lambda: (folder / "tables" / "pairs.csv").unlink(),
        "all gone": lambda: shutil.rmtree(folder / "tables"),
        "never noted": lambda: (folder / KEPT_FOLDER / "written.json").unlink(),
        "no list": lambda: (folder / KEPT_FOLDER / "written.json").write_text("[1]"),
        "nothing noted": lambda: (
            (folder / KEPT_FOLDER / "written.json").write_text("{}"),
            (folder / "tables" / "pairs.md").unlink(),
        ),
    }
    for what, change in changes.items():
        change()
        tabulate(["one"], str(store.root), console=quiet())
        assert {path.name: path.read_bytes() for path in (folder / "tables").iterdir()} == files, what
    replace(ABOUT, model="another model").write(folder)
    tabulate(["one"], str(store.root), console=quiet())
    assert "another model" in (folder / "tables" / "object.md").read_text(), "captions say what the run's folder says"


def test_what_another_process_is_about_to_rename_is_not_noted(run: tuple[Store, Path]) -> None:
    store, folder = run
    tabulate(["one"], str(store.root), console=quiet())
    passing = temporary_beside(folder / "tables" / "object.md")
    passing.write_text("half of it")
    keeping.note_written(folder)
    passing.unlink()
    assert keeping.written_is_there(folder)


def test_kept_numbers_are_those_that_were_worked_out(run: tuple[Store, Path]) -> None:
    store, folder = run
    tabulate(["one"], str(store.root), console=quiet())
    key = kept_key(folder, store, "wilson")
    numbers = kept(folder, key)
    assert isinstance(numbers, Numbers) and {path.stem for path in (folder / KEPT_FOLDER).iterdir()} == {
        "key", "made", "written", *(entry.name for entry in fields(Numbers))
    }  # fmt: skip
    assert kept(folder, kept_key(folder, store, "clopper-pearson")) is None, "other intervals are other numbers"
    (folder / KEPT_FOLDER / "pairs.parquet").write_bytes(b"PAR1")
    assert kept(folder, key) is None, "what cannot be read is worked out again"


def test_other_records_reasons_or_code_are_other_numbers(run: tuple[Store, Path], monkeypatch) -> None:
    store, folder = run
    before = kept_key(folder, store, "wilson")
    assert before == kept_key(folder, store, "wilson")
    with monkeypatch.context() as other:
        other.setattr(keeping, "_code", lambda: "another")
        assert kept_key(folder, store, "wilson") != before
    manifest = json.loads((folder / "manifest.json").read_text())
    reason = {"metrics": {name: {"not_run": "no weights"} for name in manifest["metrics"]}}
    (folder / "manifest.json").write_text(json.dumps(manifest | reason))
    assert kept_key(folder, store, "wilson") != before
    (folder / "manifest.json").write_text(json.dumps(manifest))
    extra = pd.DataFrame({"key": ["f" * 32], **NONE, "object": "church", **CHANCES})
    store.put_scores(Judge().records_id, extra)
    assert kept_key(folder, store, "wilson") != before


def test_a_metric_of_somebody_else_is_worked_out_every_time(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = finish(store, "one", make_plan(prompts=1))
    assert kept_key(folder, store, "wilson") == "", "its code is not ours, and may have changed"
    tabulate(["one"], str(store.root), console=quiet())
    assert not (folder / KEPT_FOLDER).exists()
