"""A results folder that came from somebody else: what its files name is neither built nor imported nor looked up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from report_helpers import make_run
from table_helpers import finish, make_plan

from erasebench.cli import main
from erasebench.store import Store

SECRET = "hf_this_is_a_token"
COMMANDS = [
    ["table"],
    ["table", "one", "two"],
    ["table", "one", "--best", "retained>=0"],
    ["table", "one", "two", "--allow-mixed"],
    ["report"],
    ["report", "one"],
    ["compare", "one", "two"],
    ["show", "one"],
    ["export", "format=delta", "run=one", "eraser=cure", "task=church"],
]


def received(folder: Path, mark: Path) -> None:
    """Make a run's config name a function that writes a file, and a module that writes one when it is imported."""
    path = folder / "config.yaml"
    call = {
        "_target_": "erasebench.files.write_text",
        "path": {"_target_": "erasebench.files.Path", "_args_": [str(mark)]},
        "text": "called",
    }
    config = yaml.safe_load(path.read_text()) | {
        "plugins": ["written_by_import", "table_helpers"],
        "metric": {"accuracy": call, "more": {"_target_": "written_by_import.Metric"}},
        "method": {"cure": call, "uce": {"_target_": "written_by_import.Eraser"}},
        "note": "${oc.env:HF_TOKEN}",
    }
    path.write_text(yaml.safe_dump(config))
    erasers = json.loads((folder / "erasers.json").read_text())
    nodes = {"cure": call, "uce": {"_target_": "written_by_import.Eraser"}}
    erasers = [entry | {"node": nodes.get(entry["label"]["name"], entry["node"])} for entry in erasers]
    (folder / "erasers.json").write_text(json.dumps(erasers))


def renamed(folder: Path, target: str, settings: dict) -> None:
    """Make the record of a run's first metric name something else."""
    path = folder / "metrics.json"
    first, *rest = json.loads(path.read_text())
    path.write_text(json.dumps([first | {"class": target, "settings": settings}, *rest]))


def run(command: list[str], store: Store) -> int:
    place = [f"store={store.root}"] if command[0] == "export" else ["--store", str(store.root)]
    return main([*command, *place])


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once something was called or imported."""
    mark = tmp_path / "mark"
    (tmp_path / "written_by_import.py").write_text(f"open({str(mark)!r}, 'w').write('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    return mark


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "results")
    for name in ("two", "one"):
        finish(store, name, make_plan(prompts=2), scored=name == "two")
    return store


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("earlier", [False, True], ids=["now", "earlier version"])
def test_a_received_config_runs_nothing(command: list[str], earlier: bool, mark: Path, store: Store, capfd) -> None:
    for name in ("one", "two"):
        received(store.root / "runs" / name, mark)
        if earlier:  # when metrics were read from the config
            (store.root / "runs" / name / "metrics.json").unlink()
    status = run(command, store)
    said = " ".join("".join(capfd.readouterr()).split())
    assert not mark.exists() and "Traceback" not in said and SECRET not in said
    if command[0] in ("table", "report", "compare"):
        which = "erasebench.files.write_text" if earlier else "table_helpers.Accuracy"
        assert status == 2 and f"{which} is not one of our metrics" in said


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("target", ["erasebench.files.write_text", "written_by_import.Metric", "pickle.loads"])
def test_a_received_record_of_a_metric_runs_nothing(
    command: list[str], target: str, mark: Path, store: Store, capfd
) -> None:
    for name in ("one", "two"):
        renamed(store.root / "runs" / name, target, {"path": str(mark), "text": "called"})
    status = run(command, store)
    said = " ".join("".join(capfd.readouterr()).split())
    assert not mark.exists() and "Traceback" not in said
    if command[0] in ("table", "report", "compare"):
        assert status == 2 and f"{target} is not one of our metrics" in said


def test_a_report_prints_a_stored_config_as_it_is(mark: Path, tmp_path: Path) -> None:
    store = make_run(tmp_path / "results")
    received(store.root / "runs" / "one", mark)
    assert main(["report", "one", "--plugins", "table_helpers", "--store", str(store.root)]) == 0
    report = store.root / "reports" / "one"
    pages = {path.name: path.read_text(encoding="utf-8") for path in report.glob("*.html")}
    assert "${oc.env:HF_TOKEN}" in pages["provenance.html"] and not mark.exists()
    assert "written_by_import.Eraser is not one of our erasers" in " ".join(pages["method-uce.html"].split())
    for path in report.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


def test_an_unfinished_run_of_somebody_else_runs_nothing(mark: Path, tmp_path: Path, capfd) -> None:
    store = make_run(tmp_path / "results", scored=False)
    received(store.root / "runs" / "one", mark)
    renamed(store.root / "runs" / "one", "written_by_import.Metric", {})
    assert main(["report", "one", "--store", str(store.root)]) == 2
    assert "not one of our metrics" in " ".join(capfd.readouterr().err.split()) and not mark.exists()


@pytest.mark.parametrize("name", ["config.yaml", "metrics.json", "erasers.json", "manifest.json"])
@pytest.mark.parametrize(
    "text", ["[a, list", "a: [", "!!python/object/apply:os.getpid []", "\x00", "", "3", "[[[1]]]", "[" * 100_000]
)
def test_a_file_that_is_none_is_a_sentence(name: str, text: str, store: Store, capfd) -> None:
    (store.root / "runs" / "one" / name).write_text(text)
    assert main(["table", "one", "--plugins", "table_helpers", "--store", str(store.root)]) == 2
    said = " ".join(capfd.readouterr().err.split())
    assert f"runs/one/{name}: cannot be read" in said and "give the command of run one again" in said
