"""Sweeps: shipped ones fit their erasers, a killed one goes on, and a picked setting is given by its command."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from erasebench.cli import main
from erasebench.config.build import build, places
from erasebench.config.choices import groups
from erasebench.config.compose import compose
from erasebench.edits.eraser import Eraser
from erasebench.edits.label import UNEDITED
from erasebench.runs.folder import erasers_of, write_erasers
from erasebench.runs.plan import prepare
from erasebench.runs.state import check_finished
from erasebench.runs.sweep import command, literal, varied
from erasebench.store import Store

TINY = [
    "task=object", "task.erase=[church]", "task.concepts=[church,tench,castle,bus]", "metric=[judge]",
    "prompts.per_erased=2", "prompts.per_paraphrased=0",
    "prompts.per_near=0", "prompts.per_retained=1",
    "prompts.general=1", "protocol.steps=2", "device=cpu", "batch_size=2",
]  # fmt: skip


@pytest.mark.parametrize("name", groups()["sweep"])
def test_every_shipped_value_is_one_that_its_eraser_takes(name: str) -> None:
    node = OmegaConf.to_container(compose([f"sweep={name}"]).method)
    settings = varied([f"sweep={name}"])
    assert settings
    for override in OverridesParser.create().parse_overrides(settings):
        option = override.get_key_element().removeprefix("method.")
        values = list(override.sweep_iterator())
        assert option in node and len(values) > 1
        labels = {build(node | {option: value}, "method", Eraser).settings[option] for value in values}
        assert len(labels) == len(values), "each is a setting of its own"


def test_what_is_given_beside_a_sweep_wins() -> None:
    assert varied(["sweep=cure_alpha"])[0].startswith("method.alpha=")
    assert varied(["sweep=cure_alpha", "method.alpha=1,2"]) == []
    assert [text.partition("=")[0] for text in varied(["sweep=uce_scales", "method.erase_scale=2"])] == [
        "method.preserve_scale"
    ]
    assert varied(["method=cure"]) == varied(["sweep=null"]) == []
    assert compose(["experiment=esd_objects", "sweep=cure_alpha"]).method._target_.endswith(".Cure")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sweep=cure_alhpa"], "[Dd]id you mean 'cure_alpha'"),
        (["sweep=cure_alpha,uce_scales"], "one sweep at a time"),
        (["sweep=cure_alpha", "method=uce"], "method.alpha: no such key"),
        (["sweep=cure_alpha", "task.erase=[chruch]", "task=object"], "[Dd]id you mean 'church'"),
    ],
)
def test_a_sweep_that_does_not_fit_is_refused_before_any_work(
    overrides: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *overrides, f"store.dir={tmp_path / 'results'}"]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "results").exists()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-99, 99) | st.floats(-9, 9) | st.text("ab ',=[]{}$:null", max_size=8),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    )
)
@settings(max_examples=100, deadline=None)
def test_a_literal_is_read_back_as_the_value_it_was(value: object) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"method.x={literal(value)}"])

    def plain(found: object) -> object:
        if isinstance(found, list):
            return [plain(entry) for entry in found]
        return getattr(found, "text", found)

    read = plain(override.value())
    assert read == value and type(read) is type(value)


def opened(root: Path, overrides: list[str], given: list[str]) -> Path:
    """A run's folder as far as its command is concerned."""
    prepared = prepare(compose([*overrides, f"store.dir={root}"]))
    folder = prepared.store.run_folder(prepared.run_name)
    write_erasers(folder, prepared.labels, prepared.nodes)
    (folder / "manifest.json").write_text(json.dumps({"command": ["erasebench run", *given], "metrics": {}}))
    return folder


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (["sweep=cure_alpha", "method.alpha=5"], "method=cure method.alpha=5"),
        (["method=uce2025", "method.erase_scale=3.0"], "method=uce2025 method.erase_scale=3.0"),
        (["method=cure", "method.retain=['a b', c]"], """method=cure 'method.retain=['"'"'a b'"'"','"'"'c'"'"']'"""),
        (["method=closed_form"], None),
    ],
)
def test_the_command_of_a_setting_gives_that_setting(chosen: list[str], said: str | None, tmp_path: Path) -> None:
    given = ["-m", *chosen, "name=mine", "task=object", "task.erase=[church, tench]"]
    folder = opened(tmp_path, [*chosen, *given[-2:]], given)
    config = compose([*chosen, *given[-2:]])
    nodes = places(OmegaConf.to_container(config.method, resolve=True), "method", "_target_")
    erasers = erasers_of(folder)
    assert [node for _, node in erasers.values() if "none.Unedited" not in node["_target_"]] == list(nodes.values())
    for label, node in erasers.values():
        if label.text == UNEDITED:
            continue
        line = command([folder], label.text)
        assert line.startswith("erasebench run method=") and (said is None or said in line)
        again = compose(shlex.split(line)[2:])
        assert OmegaConf.to_container(again.method) == node
        assert OmegaConf.to_container(again.task) == OmegaConf.to_container(config.task) and again.name is None
    assert command([folder], "nobody") is None


def test_a_setting_is_found_by_the_label_that_its_table_shows(tmp_path: Path) -> None:
    folder = opened(tmp_path, ["method=uce", "task=object"], ["method=uce", "task=object"])
    assert command([folder], "uce") == command([folder], "uce erase_scale=1.0", "erase_scale")
    assert command([folder], "uce erase_scale=1.0") is None


def manifests(store: Path) -> dict[str, dict]:
    found = {}
    for path in store.glob("runs/*/manifest.json"):
        manifest = json.loads(path.read_text())
        found[next(text for text in manifest["command"] if text.startswith("method.alpha="))] = manifest
    return found


def test_a_killed_sweep_given_again_does_only_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "results"
    line = ["run", "sweep=cure_alpha", "method.alpha=1,2,10", *TINY, f"store.dir={store}"]
    process = subprocess.Popen([sys.executable, "-m", "erasebench", *line], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 500
    while process.poll() is None and time.monotonic() < deadline:
        if len(manifests(store)) == 2:
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = manifests(store)
    assert set(before) == {"method.alpha=1", "method.alpha=2"}
    made = {path: path.stat().st_mtime_ns for path in store.glob("images/*/*.png")}

    assert main(line) == 0
    after = manifests(store)
    for folder in store.glob("runs/*"):
        check_finished(folder, Store(store))
    assert {path: path.stat().st_mtime_ns for path in made} == made, "nothing is made twice"
    assert after["method.alpha=10"]["command"][1:] == [
        "method.alpha=10",
        "sweep=cure_alpha",
        *TINY,
        f"store.dir={store}",
    ]
    (table,) = store.glob("tables/sweep-*")
    assert {f"object-frontier.{end}" for end in ("png", "pdf", "svg")} | {"pairs.csv", "object-alpha.png"} <= {
        path.name for path in table.iterdir()
    }
    measured = pd.read_csv(table / "measured.csv")
    assert set(measured.eraser) == {"none", *(f"cure alpha={alpha}" for alpha in (1, 2, 10))}

    capsys.readouterr()
    arguments = ["table", table.name, "--store", str(store)]
    assert main([*arguments, "--best", "retained>=0", "--sort", "erased", "--power"]) == 0
    said = capsys.readouterr().out
    again = shlex.split(next(row for row in said.splitlines() if row.startswith("  erasebench run")))[2:]
    chosen = compose(again)
    column = measured[(measured.role == "erase") & (measured.task == "all") & (measured.eraser != "none")]
    least = column[column.value == column.value.min()].eraser
    assert f"cure alpha={chosen.method.alpha}" in set(least) and chosen.task.erase == ["church"]
    assert "prompts, or concepts, to tell two erasers apart" in said and "n needed" in said
    assert main([*arguments, "--best", "retained>1"]) == 2
    assert "retained > 100 % is met by none; the nearest is cure alpha=" in capsys.readouterr().err
    assert main([*arguments, "--sort", "jugde.erased"]) == 2
    assert "Did you mean 'judge.erased'? Columns: " in capsys.readouterr().err


def test_the_command_of_a_row_as_released_names_its_release(tmp_path: Path) -> None:
    given = ["method=released/rece_nudity", "method.rece__released.epochs=1", "task=nudity"]
    folder = opened(tmp_path, given, given)
    (label,) = (text for text in erasers_of(folder) if text != UNEDITED)
    assert label == "rece as released but for checkpoint epochs=1"
    line = command([folder], label)
    assert line == "erasebench run method=released/rece_nudity method.rece__released.epochs=1 task=nudity"
    assert compose(shlex.split(line)[2:]).method == compose(given).method


def test_the_command_of_one_of_several_choices_gives_that_one_alone(tmp_path: Path) -> None:
    given = ["method=released/cure", "task=nudity"]
    folder = opened(tmp_path, given, given)
    line = command([folder], "cure our choice token_rule=mean")
    node = OmegaConf.to_container(compose(shlex.split(line)[2:]).method)
    assert node == {
        k: v for k, v in erasers_of(folder)["cure our choice token_rule=mean"][1].items() if k != "released"
    }
