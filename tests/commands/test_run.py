"""``erasebench run`` from the command line: sweeps that go on past a failure, stores that cannot be written, spellings."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from erasebench import run as run_module
from erasebench.cli import main

QUICK = [
    "task=object", "task.erase=[church]", "metric=[judge]", "prompts.per_erased=1", "prompts.per_paraphrased=0",
    "prompts.per_near=0", "prompts.per_retained=0",
    "prompts.general=0", "protocol.steps=2", "device=cpu",
]  # fmt: skip


def test_a_sweep_goes_on_past_a_failing_job_and_tabulates_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = run_module.run, []

    def run(config, console=None):
        asked.append(config.method._target_.split(".")[-1])
        if asked[-1] == "Cure":
            raise RuntimeError("a fault of cure's")
        return real(config, console)

    monkeypatch.setattr(run_module, "run", run)
    assert main(["run", "-m", "method=uce,cure,none", *QUICK, f"store.dir={tmp_path}"]) == 1
    shown = capsys.readouterr()
    assert asked == ["Uce", "Cure", "Unedited"]
    assert "1 of 3 jobs failed" in shown.err and "job 1 (method=cure" in shown.err and "a fault of cure's" in shown.err
    (listed,) = tmp_path.glob("tables/sweep-*/runs.json")
    assert len(json.loads(listed.read_text())) == 2
    table = pd.read_csv(listed.parent / "measured.csv")
    assert set(table.eraser) == {"none", "uce"}


def test_a_refused_job_of_a_sweep_is_named_and_the_rest_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["-m", "method=none", "protocol.guidance=1e30,4", *QUICK, f"store.dir={tmp_path}"]
    assert main(["run", *overrides]) == 1
    shown = capsys.readouterr()
    assert "job 0 (method=none protocol.guidance=1e+30" in shown.err and "nothing was saved" in shown.err
    assert "Traceback" not in shown.err
    finished = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/manifest.json")]
    assert len(finished) == 2 and len(list(tmp_path.glob("runs/*/last_error.json"))) == 1
    assert all("hydra.sweep.dir" not in text for manifest in finished for text in manifest["command"])


def test_a_failing_metric_gives_status_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from erasebench.metrics.judge import Judge

    def score(self, images, rows, originals=None):
        raise RuntimeError("no")

    monkeypatch.setattr(Judge, "score", score)
    assert main(["run", "method=none", *QUICK, f"store.dir={tmp_path}"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "name=mine", "protocol.guidance=3,4"], "name=mine: a name is of one run, and this sweep has 2"),
        (["protocol.guidance=3,4"], "protocol.guidance=3,4: several values are a sweep; add -m"),
        (["-m", "method=cure", "method.alpha=interval(1, 2)"], "erasebench tune"),
        (["-m", "method=[cure,uce],[rece]"], "a sweep over lists is not done"),
        (["method=[cure,cure]"], "named twice"),
        (["method=[cure,ucee]"], "Did you mean 'uce'"),
        (["protocol=[cure,rece]"], "erasebench run -m protocol=cure,rece"),
        (["task.erase=church"], r"write a list: task.erase=[church]"),
        (["task.erase=[a"], "put it in quotes: 'task.erase=[\"a\"]'"),
        (["task=object task.erase=[church]"], "several overrides in one word"),
        (["name=${x}"], "name: Interpolation key 'x' not found"),
        (["+protocol.stepps=3"], "Did you mean 'steps'"),
        (["protocol.seeds=[9223372036854775808]"], "whole numbers, from 0 to 9223372036854775807"),
        (["protocol.steps=ten"], "protocol.steps=ten: Value 'ten'"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_work(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [text for text in QUICK if text.split("=")[0] not in {a.split("=")[0] for a in arguments}]
    assert main(["run", *given, *arguments, f"store.dir={tmp_path / 'results'}"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_several_erasers_and_signs_of_other_languages_are_taken_as_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "été.csv"
    prompts.write_text("prompt,class\na church,church\n")
    given = [text for text in QUICK if not text.startswith("prompts.")]
    overrides = ["prompts=file", f"prompts.source={prompts}", f"store.dir={tmp_path / 'prüfung'}"]
    several = ["method=[cure,uce]", "method.cure.alpha=3", "protocol.scheduler=DPMSolverMultistep"]
    several += ["protocol.scheduler_config={use_karras_sigmas: true}", "protocol.scheduler_config.solver_order=2"]
    assert main(["run", *given, *overrides, *several]) == 0
    (plan,) = (tmp_path / "prüfung").glob("runs/*/plan.parquet")
    assert set(pd.read_parquet(plan).eraser) == {"none", "cure alpha=3", "uce"}
    manifest = json.loads((plan.parent / "manifest.json").read_text(encoding="utf-8"))
    assert main(["run", *manifest["command"][1:], "dry_run=true"]) == 0
    assert "0 images to make" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["/proc/nope", "file/results"])
@pytest.mark.parametrize("sweep", [[], ["-m", "protocol.guidance=3,4"]])
def test_a_store_that_cannot_be_written_to_is_a_sentence(
    place: str, sweep: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    assert main(["run", *sweep, *QUICK, "method=none", f"store.dir={place}"]) == 2
    error = capsys.readouterr().err
    assert f"cannot write to {place}" in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "nothing is made elsewhere"


@pytest.mark.parametrize("sweep", [[], ["-m", "protocol.guidance=3,4"]])
def test_a_dry_run_needs_no_place_to_write_to(
    sweep: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", *sweep, *QUICK, "method=none", "store.dir=/proc/nope", "dry_run=true"]) == 0
    assert "1 images to make" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
