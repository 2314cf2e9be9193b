"""Erasers in files of one's own: named by a path, with their options, and never by a config of somebody else's."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from erasebench.concepts import Concept, ErasureTask
from erasebench.config.build import build
from erasebench.config.compose import compose
from erasebench.config.own_files import load_file
from erasebench.edits import Eraser
from erasebench.errors import UserError

SHRINK = """
from dataclasses import dataclass
from erasebench.edits import Change, Eraser
from erasebench.models import text_inputs

@dataclass(frozen=True)
class Shrink(Eraser):
    strength: float = 1.5
    rules: tuple[str, ...] = ("mean", "all")
    note: str = "a 'quoted', text"
    name = "shrink"

    def changes(self, pipe, task):
        return {}, {}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "my folder" / "shrink_of_mine.py"
    path.parent.mkdir()
    path.write_text(SHRINK)
    yield path
    sys.modules.pop("shrink_of_mine", None)


def test_a_file_is_an_eraser_with_its_defaults_and_its_options_are_set_like_those_of_any(file: Path) -> None:
    config = compose([f"method={file}", "method.strength=2", "task=object"])
    assert dict(config.method) == {
        "_target_": "shrink_of_mine.Shrink", "strength": 2, "rules": ["mean", "all"], "note": "a 'quoted', text"
    }  # fmt: skip
    eraser = build(config.method, "method", Eraser, list(config.plugins))
    assert eraser.name == "shrink" and eraser.settings["strength"] == 2


def test_two_files_are_two_rows_and_any_sign_in_a_default_or_a_name_stays(file: Path) -> None:
    other = file.parent / "café, 1" / "cafe_of_mine.py"
    other.parent.mkdir()
    other.write_text(SHRINK.replace("1.5", 'float("inf")').replace("a 'quoted', text", 'café, [x]={y} \\"z\\"'))
    config = compose([f'method=["{file}","{other}"]', "task=object"])
    assert set(config.method) == {"shrink_of_mine", "cafe_of_mine"} and list(config.plugins) == [str(file), str(other)]
    own = config.method["cafe_of_mine"]
    assert own.strength == float("inf") and own.note == 'café, [x]={y} "z"'
    sys.modules.pop("cafe_of_mine")


def test_it_stands_beside_others_and_modules_that_were_allowed_stay_allowed(file: Path) -> None:
    config = compose(
        [f'method=[cure,"{file}"]', "method.shrink_of_mine.strength=3", "plugins=[another]", "task=object"]
    )
    assert set(config.method) == {"cure", "shrink_of_mine"} and config.method.shrink_of_mine.strength == 3
    assert list(config.plugins) == ["another", str(file)]


def test_a_config_that_names_the_class_does_not_run_the_file(file: Path) -> None:
    with pytest.raises(UserError, match="name its module"):
        build({"_target_": "shrink_of_mine.Shrink"}, "method", Eraser, ())
    assert "shrink_of_mine" not in sys.modules
    assert build({"_target_": "shrink_of_mine.Shrink"}, "method", Eraser, (str(file),)).name == "shrink"


def test_another_source_is_another_edit_though_its_version_was_not_raised(file: Path) -> None:
    task = ErasureTask((Concept("church", "object"),))
    node = {"_target_": "shrink_of_mine.Shrink"}
    first = build(node, "method", Eraser, (str(file),)).key("m", task)
    assert build(node, "method", Eraser, (str(file),)).key("m", task) == first
    del sys.modules["shrink_of_mine"]
    file.write_text(SHRINK.replace("return {}, {}", "return {}, {'changed': True}"))
    assert build(node, "method", Eraser, (str(file),)).key("m", task) != first


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("absent.py", None, "absent.py: no such file; beside it: shrink_of_mine.py"),
        ("two-words.py", "", "'two-words' is no name of a module in plain letters; rename the file"),
        ("json.py", "", "a module called json is there already; rename the file"),
        ("empty_one.py", "x = 1\n", "defines no eraser"),
        ("twice.py", SHRINK + SHRINK.replace("class Shrink", "class Other"), r"several erasers \(Shrink, Other\)"),
        ("line_break.py", SHRINK.replace("a 'quoted', text", "a\\\\nb"), "the default of note has a line break"),
        ("broken_one.py", "a = 1\nb = a / 0\n", "broken_one.py line 2: ZeroDivisionError"),
        ("odd_syntax.py", "a = 1\n\nb = (\n", "odd_syntax.py line 3: SyntaxError"),
    ],
)
def test_what_is_no_file_of_one_eraser_is_refused(file: Path, name: str, text: str | None, message: str) -> None:
    path = file.parent / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        compose([f"method={path}", "task=object"])
    sys.modules.pop(path.stem, None) if path.stem != "json" else None


def test_a_file_is_run_once_and_another_of_its_name_is_refused(file: Path, tmp_path: Path) -> None:
    assert load_file(str(file)) is load_file(str(file))
    other = tmp_path / file.name
    shutil.copyfile(file, other)
    with pytest.raises(UserError, match="a module called shrink_of_mine is there already"):
        load_file(str(other))
