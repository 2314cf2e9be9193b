"""A results folder that came from somebody else: what its config names is neither built nor imported nor looked up."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from report_helpers import make_run
from table_helpers import finish, make_plan

from erasebench.cli import main
from erasebench.store import Store

SECRET = "hf_this_is_a_token"


def received(store: Store, mark: Path, name: str = "one") -> None:
    """Make a run's config name a function that writes a file, and a module that writes one when it is imported."""
    path = store.root / "runs" / name / "config.yaml"
    config = yaml.safe_load(path.read_text())
    call = {
        "_target_": "erasebench.files.write_text",
        "path": {"_target_": "erasebench.files.Path", "_args_": [str(mark)]},
        "text": "called",
    }
    config["plugins"] = ["written_by_import", "table_helpers"]
    config["metric"]["accuracy"] = call
    config["metric"]["more"] = {"_target_": "written_by_import.Metric"}
    config["method"] = {"cure": call, "uce": {"_target_": "written_by_import.Eraser"}}
    config["note"] = "${oc.env:HF_TOKEN}"
    path.write_text(yaml.safe_dump(config))


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once something was called or imported."""
    mark = tmp_path / "mark"
    (tmp_path / "written_by_import.py").write_text(f"open({str(mark)!r}, 'w').write('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    return mark


@pytest.mark.parametrize(
    "command",
    [
        ["table"],
        ["table", "one", "two"],
        ["table", "one", "--best", "retained>=0"],
        ["table", "one", "two", "--allow-mixed"],
        ["report"],
        ["report", "one"],
        ["compare", "one", "two"],
        ["show", "one"],
        ["export", "format=delta", "run=one", "eraser=cure", "task=church"],
    ],
)
def test_a_received_folder_runs_nothing(command: list[str], mark: Path, tmp_path: Path, capfd) -> None:
    store = Store(tmp_path / "results")
    plan = make_plan(prompts=2)
    for name in ("two", "one"):
        finish(store, name, plan, scored=name == "two")
        received(store, mark, name)
    root = str(store.root)
    status = main([*command, f"store={root}"] if command[0] == "export" else [*command, "--store", root])
    said = " ".join("".join(capfd.readouterr()).split())
    assert not mark.exists() and "Traceback" not in said and SECRET not in said
    if command[0] in ("table", "report", "compare"):
        assert status == 2 and "erasebench.files.write_text is not one of our metrics" in said


def test_a_report_prints_a_stored_config_as_it_is(mark: Path, tmp_path: Path) -> None:
    store = make_run(tmp_path / "results")
    path = store.root / "runs" / "one" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    metrics = config["metric"]
    received(store, mark)
    config = yaml.safe_load(path.read_text()) | {"metric": metrics}
    path.write_text(yaml.safe_dump(config))
    assert main(["report", "one", "--plugins", "table_helpers", "--store", str(store.root)]) == 0
    report = store.root / "reports" / "one"
    pages = {path.name: path.read_text(encoding="utf-8") for path in report.glob("*.html")}
    assert "${oc.env:HF_TOKEN}" in pages["provenance.html"] and not mark.exists()
    assert "written_by_import.Eraser is not one of our erasers" in " ".join(pages["method-uce.html"].split())
    for path in report.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


def test_an_unfinished_run_of_somebody_else_runs_nothing(mark: Path, tmp_path: Path, capfd) -> None:
    store = make_run(tmp_path / "results", status="running")
    received(store, mark)
    assert main(["report", "one", "--store", str(store.root)]) == 2
    assert "not one of our metrics" in " ".join(capfd.readouterr().err.split()) and not mark.exists()


@pytest.mark.parametrize("text", ["[a, list]", "a: [", "!!python/object/apply:os.getpid []", "\x00", ""])
def test_a_config_that_is_none_is_a_sentence(text: str, tmp_path: Path, capfd) -> None:
    store = Store(tmp_path / "results")
    folder = finish(store, "one", make_plan(prompts=1))
    (folder / "config.yaml").write_text(text)
    assert main(["table", "one", "--store", str(store.root)]) == 2
    assert "run one: its config.yaml" in " ".join(capfd.readouterr().err.split())
