"""``erasebench tune``: what an objective may be, and trials that go on where they stopped."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from table_helpers import table

from erasebench import run as run_module
from erasebench.cli import main
from erasebench.commands import tune
from erasebench.tables import halves
from erasebench.tables import tabulate as results

pytest.importorskip("optuna")

SPACE = ["method=cure", "method.alpha=tag(log, interval(0.5, 20))", "task=object"]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Runs that only count: what is kept falls with the strength, what is erased has its least at 4."""
    made: list[float] = []

    def run(config, console=None):
        if len(made) == 3 and made[-1] >= 0:
            made.append(-1.0)
            raise KeyboardInterrupt
        alpha = float(config.method.alpha)
        made.append(alpha)
        points = {"none": (0.95, 0.97), f"cure alpha={alpha}": (abs(alpha - 4) / 20, 0.9)}
        return SimpleNamespace(folder=Path(config.store.dir) / "runs" / f"alpha-{alpha}", measured=table(points))

    monkeypatch.setattr(run_module, "run", run)
    monkeypatch.setattr(halves, "measured_halves", lambda folders, store, plugins: None)
    monkeypatch.setattr(results, "tabulate_sweep", lambda folders, console, plugins: None)
    monkeypatch.setattr(tune, "command", lambda folders, label: f"again {label}")
    return made


def test_trials_go_on_where_they_stopped_and_the_best_is_named(runs: list[float], tmp_path: Path) -> None:
    arguments = [*SPACE, f"store.dir={tmp_path}", "trials=8", "objective=judge.retained - judge.erased"]
    with pytest.raises(KeyboardInterrupt):
        tune.tune(arguments, Console(file=io.StringIO()))
    console = Console(file=io.StringIO(), width=200)
    found = tune.tune(arguments, console)
    assert len(found) == 8 and len([alpha for alpha in runs if alpha >= 0]) == 8, "three of them are not made again"
    assert "3 of 8 trials are there" in console.file.getvalue()
    values = [0.9 - abs(alpha - 4) / 20 for alpha in runs if alpha >= 0]
    assert found.value.tolist() == pytest.approx(sorted(values, reverse=True))
    assert f"again cure alpha={found['method.alpha'][0]}" in console.file.getvalue()
    assert all(0.5 <= alpha <= 20 for alpha in found["method.alpha"])
    again = tune.tune(arguments, Console(file=io.StringIO()))
    assert again.equals(found) and len(runs) == 9, "all are there"
    tune.tune([*arguments[:-2], "trials=1", "objective=retained"], Console(file=io.StringIO()))
    assert len(runs) == 10, "another objective is another search"


def test_a_shipped_sweep_is_a_space(runs: list[float], tmp_path: Path) -> None:
    found = tune.tune(
        ["sweep=cure_alpha", "task=object", f"store.dir={tmp_path}", "trials=3"], Console(file=io.StringIO())
    )
    assert set(found["method.alpha"]) <= {0.5, 1, 2, 3, 5, 10}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method=cure"], "nothing is varied"),
        (["method=cure", "method.alpha=1,2", "task=object,artist"], "only settings of the eraser"),
        (["method=main", "method.cure.alpha=1,2"], "works on one eraser"),
        (["method=cure", "method.alhpa=1,2"], "Did you mean 'method.alpha'"),
        (["sweep=cure_alpha", "trials=0"], "trials=0: write a whole number"),
        (["sweep=cure_alpha", "objective=__import__('os')"], "objective=.*write columns, numbers"),
        (["sweep=cure_alpha", "dry_run=true"], "dry_run has no numbers"),
        (["sweep=cure_alpha", "objective=1"], "write columns, numbers"),
        (["sweep=cure_alpha", "objective=judge.erased **"], "write columns, numbers"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", *arguments, f"store.dir={tmp_path / 'results'}"]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "results").exists()


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--help"]) == 0
    assert "objective=" in capsys.readouterr().out


def test_the_metric_of_an_objective_is_named(runs: list[float], tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    tune.tune([*SPACE, f"store.dir={tmp_path}", "trials=1"], console)
    assert "trial 0: judge.retained - judge.erased = " in console.file.getvalue()
    assert "best of 1 trials: judge.retained - judge.erased = " in console.file.getvalue()


def test_a_setting_is_chosen_on_one_half_of_the_prompts_and_reported_on_the_other(
    runs: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [table({"none": (0.95, 0.97), "cure": point}) for point in ((0.1, 0.9), (0.3, 0.7))]
    monkeypatch.setattr(halves, "measured_halves", lambda folders, store, plugins: tuple(parts))
    console = Console(file=io.StringIO(), width=200)
    found = tune.tune([*SPACE, f"store.dir={tmp_path}", "trials=1"], console)
    assert found.value.tolist() == pytest.approx([0.8])
    assert "= 0.8000 on the prompts it was chosen by, 0.4000 on the other half" in console.file.getvalue()
