"""An objective: columns of a table and numbers, added, subtracted, multiplied, divided; nothing else is evaluated."""

from __future__ import annotations

import ast
import math
import operator
import re
from typing import Any

import pandas as pd

from erasebench.edits.label import UNEDITED
from erasebench.errors import UserError
from erasebench.tables import columns

ARITHMETIC: dict[type[ast.AST], Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.USub: operator.neg, ast.UAdd: operator.pos,
}  # fmt: skip
"""The operators of an objective."""


def objective_value(objective: str, measured: pd.DataFrame) -> tuple[float, str]:
    """The objective of one run: the mean over its kinds, of its one eraser; and the objective with every metric named.

    Raises:
        UserError: a column that the table does not have, or that has no number.
    """
    tree = parse_objective(objective)
    values, spelt = [], {}
    for kind in dict.fromkeys(measured.task_kind):
        numbers, full = {}, objective
        for name in _names(tree):
            column_name = columns.with_metric(columns.find(name, measured, "objective"), measured, kind, "objective")
            column = columns.cells(measured, kind, column_name)
            edited = column.value[column.index != UNEDITED]
            if not len(edited) or math.isnan(edited.iloc[0]):
                reasons = "; ".join(column.reason[column.reason != ""].unique())
                raise UserError(f"objective {name}: no number for kind {kind}{': ' if reasons else ''}{reasons}")
            numbers[name] = float(edited.iloc[0])
            full = re.sub(rf"(?<![\w.]){re.escape(name)}(?![\w.])", column_name, full)
        try:
            values.append(_evaluate(tree, numbers))
        except (ZeroDivisionError, OverflowError) as error:
            given = ", ".join(f"{name} = {number:.4g}" for name, number in numbers.items())
            raise UserError(f"objective={objective!r}: {error} where {given}, kind {kind}") from error
        spelt[full] = kind
    return sum(values) / len(values), "; ".join(spelt)


def parse_objective(objective: str) -> ast.expr:
    """The objective as a tree of sums and products of columns and numbers; nothing else is ever evaluated.

    Raises:
        UserError: it is anything else.
    """
    try:
        tree = ast.parse(objective.strip(), mode="eval").body
        at_ones = _evaluate(tree, dict.fromkeys(_names(tree), 1.0))
    except ZeroDivisionError:
        return tree
    except (SyntaxError, TypeError, ValueError, RecursionError, OverflowError, MemoryError):  # MemoryError: too deep
        at_ones = math.nan
    if math.isnan(at_ones) or not _names(tree):
        raise UserError(
            f"objective={objective!r}: write columns, numbers, + - * / and brackets, "
            'e.g. objective="judge.retained - judge.erased"'
        )
    return tree


def _names(tree: ast.expr) -> list[str]:
    """The columns of an objective: ``judge.erased`` is read as an attribute of a name."""
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    owners = {id(node.value) for node in attributes}
    dotted = [f"{node.value.id}.{node.attr}" for node in attributes if isinstance(node.value, ast.Name)]
    bare = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in owners]
    return list(dict.fromkeys([*dotted, *bare]))


def _evaluate(node: ast.expr, numbers: dict[str, float]) -> float:
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        return ARITHMETIC[type(node.op)](_evaluate(node.left, numbers), _evaluate(node.right, numbers))
    if isinstance(node, ast.UnaryOp) and type(node.op) in ARITHMETIC:
        return ARITHMETIC[type(node.op)](_evaluate(node.operand, numbers))
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)  # type: ignore[arg-type]  # its type is looked at above
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return numbers[f"{node.value.id}.{node.attr}"]
    if isinstance(node, ast.Name):
        return numbers[node.id]
    raise ValueError(ast.dump(node))
