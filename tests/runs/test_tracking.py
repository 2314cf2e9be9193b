"""Trackers are guests: asked for by name, never imported unasked, and whatever they do the run is as it was."""

from __future__ import annotations

import importlib
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from table_helpers import printed, quiet, table

from erasebench.cli import main
from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.run import run
from erasebench.runs import tracking
from erasebench.runs.tracking import TRACKERS, Tracker, check_tracking, numbers_told, tracked

LIKE_WANDB = """
calls = []
def init(**options): calls.append(("init", options))
def log(numbers): calls.append(("log", numbers))
def finish(**options): calls.append(("finish", options))
"""

LIKE_MLFLOW = """
calls = []
def set_experiment(name): calls.append(("experiment", name))
def start_run(run_name): calls.append(("init", run_name))
def log_params(params): calls.append(("params", params))
def log_metrics(numbers, step): calls.append(("log", numbers, step))
def end_run(status): calls.append(("finish", status))
"""

SMALL = (
    "name=one", "task=object", "task.erase=[church]", "task.concepts=[church,tench,castle,gas pump]", "method=uce",
    "metric=[judge]", "prompts.per_erased=1",
    "prompts.per_paraphrased=0", "prompts.per_near=0", "prompts.per_retained=1", "prompts.general=0",
    "protocol.steps=1",
)  # fmt: skip


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A function that puts a module where it is found; it is gone after the test."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    (tmp_path / "site").mkdir()

    def put(name: str, code: str) -> None:
        (tmp_path / "site" / f"{name}.py").write_text(code)
        importlib.invalidate_caches()
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]

    return put


def calls_of(name: str) -> list[tuple]:
    return sys.modules[name].calls


@pytest.mark.parametrize("name", TRACKERS)
def test_a_run_tells_what_it_is_how_far_and_its_numbers(name: str, install, tmp_path: Path) -> None:
    install(name, LIKE_MLFLOW if name == "mlflow" else LIKE_WANDB)
    finished = run(compose([*SMALL, f"store.dir={tmp_path / 'results'}", f"tracking={name}"]), quiet())
    assert finished is not None and not finished.problems
    calls = calls_of(name)
    first, last = next(call for call in calls if call[0] == "init"), calls[-1]
    assert first[1] == "one" if name == "mlflow" else first[1]["name"] == "one"
    facts = next(call[1] for call in calls if call[0] == "params") if name == "mlflow" else first[1]["config"]
    assert facts["erasers"] == "none, uce" and "embedded" in facts["model"]
    logged = {key: value for call in calls if call[0] == "log" for key, value in call[1].items()}
    assert logged["progress/images"] == logged["progress/images of"] > 0
    measured = finished.measured
    rate = measured[(measured.eraser == "uce") & (measured.role == "erase") & measured.metric.str.startswith("judge")]
    told = {key: value for key, value in logged.items() if key.startswith("object/uce/erase/judge")}
    assert rate.value.iloc[0] in told.values() and any(key.endswith("/low") for key in told)
    assert last == ("finish", "FINISHED" if name == "mlflow" else {})


def test_what_a_run_measures_does_not_hang_on_who_is_told(install, tmp_path: Path) -> None:
    install("wandb", LIKE_WANDB)
    store = f"store.dir={tmp_path / 'results'}"
    assert run(compose([*SMALL, store]), quiet()) is not None
    before = json.loads((tmp_path / "results/runs/one/manifest.json").read_text())["config_hash"]
    assert run(compose([*SMALL, store, "tracking=wandb"]), quiet()) is not None, "it goes on with the same run"
    assert json.loads((tmp_path / "results/runs/one/manifest.json").read_text())["config_hash"] == before


def test_nothing_is_imported_unless_it_is_asked_for(install) -> None:
    for name in TRACKERS:
        install(name, "raise AssertionError('imported')")
    with tracked("none", "one", {}, quiet()) as tracker:
        tracker.log({"a": 1.0})
        assert tracker.counting("images", 3, print) is print
    check_tracking("wandb")
    assert not set(TRACKERS) & set(sys.modules)


def test_a_missing_library_is_refused_before_any_work_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    store = tmp_path / "results"
    assert main(["run", *SMALL, f"store.dir={store}", "tracking=wandb"]) == 2
    assert "pip install 'erasebench[wandb]'" in capsys.readouterr().err
    assert not store.exists()


def test_a_folder_that_a_tracker_left_behind_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(UserError, match=r"not installed; install it with: pip install 'erasebench\[mlflow\]'"):
        check_tracking("mlflow")


def test_a_misspelt_tracker_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'wandb'.* Known: none, trackio, wandb, mlflow"):
        check_tracking("wandd")


@pytest.mark.parametrize(
    "code",
    [
        "raise ImportError('half installed')",
        LIKE_WANDB.replace('calls.append(("init", options))', "raise ConnectionError('no key')"),
        LIKE_WANDB.replace('calls.append(("log", numbers))', "raise ConnectionError('no network')"),
        LIKE_WANDB.replace('calls.append(("finish", options))', "raise SystemExit(3)"),
    ],
)
def test_a_tracker_that_fails_costs_one_warning_and_nothing_of_the_run(code: str, install, tmp_path: Path) -> None:
    install("wandb", code)
    console = quiet()
    finished = run(compose([*SMALL, f"store.dir={tmp_path / 'results'}", "tracking=wandb"]), console)
    assert finished is not None and not finished.problems and (finished.folder / "tables" / "measured.csv").exists()
    assert printed(console).count("tracking=wandb failed and is left out") == 1


def test_a_tracker_that_does_not_answer_is_not_waited_for_for_ever(install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("wandb", LIKE_WANDB + "import threading\nanswer = threading.Event()\ndef log(numbers): answer.wait()\n")
    monkeypatch.setattr(tracking, "PATIENCE", 0.2)
    console = quiet()
    with tracked("wandb", "one", {}, console) as tracker:
        for number in range(3):
            tracker.log({"a": number})
    assert "it did not take all within 0.2 s" in printed(console)
    sys.modules["wandb"].answer.set()
    tracker._thread.join(10)


def test_a_run_that_fails_is_told_as_failed(install) -> None:
    install("mlflow", LIKE_MLFLOW)
    with pytest.raises(KeyboardInterrupt), tracked("mlflow", "one", {}, quiet()):
        raise KeyboardInterrupt
    assert calls_of("mlflow")[-1] == ("finish", "FAILED")


def test_names_that_mlflow_does_not_know_are_respelt(install) -> None:
    install("mlflow", LIKE_MLFLOW)
    with tracked("mlflow", "one", {"task": "x" * 9000}, quiet()) as tracker:
        tracker.log({"object/cure alpha=5 <b>/erase/judge@2": 1.0})
        tracker.log({"a": 2.0})
    logged = [call for call in calls_of("mlflow") if call[0] == "log"]
    assert [call[2] for call in logged] == [0, 1]
    assert list(logged[0][1]) == ["object/cure alpha_5 _b_/erase/judge_2"]
    assert len(next(call[1] for call in calls_of("mlflow") if call[0] == "params")["task"]) == 500


def test_progress_is_told_now_and_then_and_at_the_end(install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("wandb", LIKE_WANDB)
    clock = [0.0]
    monkeypatch.setattr(tracking.time, "monotonic", lambda: clock[0])
    bar: list[int] = []
    tracker = Tracker("wandb", "one", {}, quiet())
    count = tracker.counting("images", 100, bar.append)
    for _ in range(100):
        clock[0] += 1.0
        count(1)
    tracker.end(failed=False)
    done = [call[1]["progress/images"] for call in calls_of("wandb") if call[0] == "log"]
    assert bar == [1] * 100 and done == sorted(done) and done[-1] == 100 and 5 <= len(done) <= 15
    assert not any(thread.name == "tracking" for thread in threading.enumerate())


def test_numbers_that_were_not_obtained_are_not_told() -> None:
    measured = table()
    told = numbers_told(measured, "all")
    assert told["object/cure alpha=1/erase/judge@2"] == 0.6 and told["object/cure alpha=1/erase/judge@2/n"] == 20
    assert "object/none/cost/edit_seconds" not in told
    assert not any(pd.isna(value) for value in told.values())
