"""The names of a run's files stand in one module."""

from __future__ import annotations

import ast
from pathlib import Path

from erasebench.runs import names

PACKAGE = Path(names.__file__).parents[1]
FILES = [value for name, value in vars(names).items() if name.endswith("_FILE")]


def texts(tree: ast.AST) -> list[tuple[int, str]]:
    """Every text of a module that is not there for people to read alone: no docstring."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone
    ]


def test_no_other_module_spells_the_name_of_a_runs_file() -> None:
    assert {"manifest.json", "plan.parquet", "measured.csv", "metrics.json"} <= set(FILES)
    elsewhere = [
        f"{path.relative_to(PACKAGE)}:{line} {text!r}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != Path(names.__file__)
        for line, text in texts(ast.parse(path.read_text(encoding="utf-8")))
        if any(name in text for name in FILES)
    ]
    assert not elsewhere, "\n".join(elsewhere)
