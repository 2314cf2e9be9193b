"""What is written for people who use Python: the page of docstrings is theirs, their examples and the notebook run."""

from __future__ import annotations

import doctest
import importlib.util
import json
import re
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType

import matplotlib
import pytest

from erasebench.cli import main

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOK = DOCS / "first_steps.ipynb"


def test_the_page_says_what_the_docstrings_say() -> None:
    spec = importlib.util.spec_from_file_location("make", DOCS / "make.py")
    assert spec is not None and spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    assert make.PAGE.read_text(encoding="utf-8") == make.page(), "write it anew: python docs/make.py"
    for module, names in make.PARTS.values():
        assert set(names) == set(import_module(module).__all__) - {"__version__"}


def test_the_page_on_sharing_names_commands_and_options_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    text = (DOCS / "sharing.md").read_text(encoding="utf-8")
    commands = re.findall(r"^erasebench (\w+)(.*?)(?:#.*)?$", text, re.MULTILINE)
    assert {verb for verb, _ in commands} == {"leaderboard", "publish", "run"}
    for verb, rest in commands:
        with suppress(SystemExit):
            main([verb, "--help"])
        shown = capsys.readouterr().out
        for option in re.findall(r"--[\w-]+|tracking=\w+", rest):
            assert option in shown, f"erasebench {verb} {option}"


@pytest.mark.parametrize("module", ["erasebench.notebook", "erasebench.progress"])
def test_examples_in_docstrings_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(import_module(module))
    assert tried > 0 and not failed


def test_the_notebook_runs_and_shows_nothing_of_the_machine_it_was_made_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "/home" not in text and "site-packages" not in text
    cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    module = ModuleType("first_steps")
    monkeypatch.setitem(sys.modules, "first_steps", module)
    for cell in cells:
        exec(compile(cell, NOTEBOOK.name, "exec"), vars(module))  # our own file
    assert module.mine and {"none", "cure"} == set(module.table.eraser)


def test_the_pictures_of_the_page_on_reports_are_there_and_small() -> None:
    text = (DOCS / "report.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"screenshots/[\w-]+\.png", text))
    assert shown == {path.relative_to(DOCS).as_posix() for path in DOCS.glob("screenshots/*")}
    assert all((DOCS / name).stat().st_size <= 60_000 for name in shown)
