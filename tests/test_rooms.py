"""The rooms of the house: which may import which, what a plugin may see, and what is promised to people outside."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ORDER = [
    "errors",
    "texts",
    "files",
    "typed_files",
    "progress",
    "concepts",
    "recipe",
    "config",
    "prompts",
    "models",
    "edits",
    "store",
    "images",
    "scores",
    "runs",
    "tables",
    "run",
    "notebook",
    "export",
    "report",
    "tiny",
    "commands",
    "cli",
    "__main__",
]
"""A room imports itself and what stands before it."""

PLUGINS = {
    "methods": {"concepts", "edits", "errors", "files", "models", "progress", "prompts", "recipe"},
    "metrics": {"concepts", "scores", "errors", "tiny"},
}
"""What an eraser, and what a metric, may see of the core."""

FACES = {
    "erasebench": {"__version__", "compare", "erase", "generate", "load_model", "load_run", "score", "task"},
    "erasebench.edits": {"Attack", "Change", "Edit", "Eraser", "Found", "Hook", "Tools"},
    "erasebench.models": {"Model", "Pipeline", "load_model", "text_inputs"},
    "erasebench.scores": {"Estimate", "Metric"},
}
"""What may be relied upon from outside; everything else may move."""


def dotted(path: Path) -> tuple[str, ...]:
    """The parts of a module's name; plugins are installed under the package's."""
    parts = path.relative_to(ROOT).parts
    return parts if parts[0] == "erasebench" else ("erasebench", *parts)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each module of ours that a file imports, lazily or not, but not for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.startswith("erasebench."))
        if isinstance(node, ast.ImportFrom):
            # from .x in a/b.py is a.x, from ..x is x; nothing stands above the package
            above = dotted(path)[: -node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            if module == "erasebench":
                yield from ((node.lineno, f"erasebench.{alias.name}") for alias in node.names)
            elif module.startswith("erasebench."):
                yield node.lineno, module


def core() -> list[Path]:
    return sorted(path for path in (ROOT / "erasebench").rglob("*.py") if path != ROOT / "erasebench/__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "erasebench").parts[0].removesuffix(".py")


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room_of(path) for path in core()} == set(ORDER)


def test_no_room_imports_one_that_stands_behind_it() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in core()
        for line, name in imported(path)
        if (to := name.split(".")[1]) in ORDER and ORDER.index(to) > ORDER.index(room_of(path))
    ]
    assert not wrong, "\n".join(wrong)


def test_the_core_imports_no_plugin() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in core()
        for line, name in imported(path)
        if name.split(".")[1] in PLUGINS
    ]
    assert not wrong, "\n".join(wrong)


def test_the_core_names_no_plugin_in_its_text_either() -> None:
    """A plugin is named by a config; the unedited model alone is in every run, asked for or not."""
    named = {
        (path.relative_to(ROOT).as_posix(), node.value)
        for path in core()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"erasebench\.(methods|metrics)\.[\w.]+", node.value)
    }
    assert named == {("erasebench/runs/plan.py", "erasebench.methods.controls.none.Unedited")}


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("from erasebench import methods", ["erasebench.methods"]),
        ("import erasebench.methods.uce as u", ["erasebench.methods.uce"]),
        ("def f():\n    from erasebench.metrics.fid import Fid", ["erasebench.metrics.fid"]),
        ("from ..methods import uce", ["erasebench.methods"]),
        ("from .. import methods", ["erasebench.methods"]),
        ("from . import edit", ["erasebench.edits"]),
        ("if TYPE_CHECKING:\n    from erasebench.run import run", []),
        ("import torch", []),
    ],
)
def test_every_way_to_import_is_seen(line: str, names: list[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "erasebench" / "edits" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert [name for _, name in imported(path)] == names


@pytest.mark.parametrize("folder", sorted(PLUGINS))
def test_a_plugin_sees_only_what_it_needs(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, name in imported(path)
        if name.split(".")[1] not in PLUGINS[folder] | {folder}
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", sorted(FACES))
def test_the_public_face_is_what_is_promised(name: str) -> None:
    module = importlib.import_module(name)
    assert set(module.__all__) == FACES[name]
    for entry in module.__all__:
        assert getattr(module, entry) is not None


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "erasebench" / "py.typed").is_file()


def test_names_can_be_searched() -> None:
    """A name at the top of a module says what it is: it is not also that of four other things."""
    places: dict[str, list[str]] = {}
    for path in [*core(), *(ROOT / "methods").rglob("*.py"), *(ROOT / "metrics").rglob("*.py")]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            else:
                continue
            for name in names:
                places.setdefault(name, []).append(path.relative_to(ROOT).as_posix())
    same_by_nature = {"main", "log", "__all__", "__getattr__", "_HOME"}
    assert {name: at for name, at in places.items() if len(at) > 3 and name not in same_by_nature} == {}


def test_nothing_needs_a_module_that_windows_lacks() -> None:
    absent = {"resource", "fcntl", "pwd", "grp", "termios", "tty", "posix"}
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("erasebench", "methods", "metrics")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and absent & {alias.name for alias in node.names})
        or (isinstance(node, ast.ImportFrom) and node.module in absent)
    ]
    assert not wrong, "\n".join(wrong)
