"""Pick one setting of a sweep: conditions on columns, and the setting that erases most of those that fulfil them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from erasebench.edits.label import UNEDITED
from erasebench.errors import UserError
from erasebench.tables import columns


@dataclass(frozen=True)
class Condition:
    """What a setting must fulfil: ``retained>=0.9``, ``retained>=90%``."""

    column: str
    relation: str
    number: float
    percent: bool

    def bound(self, unit: str) -> float:
        """The number in the column's own unit: of a rate, ``90%`` and ``0.9`` are one.

        Raises:
            UserError: a rate above 1 without a percent sign, or one that cannot be more (``<=1``: one per cent?); a percent
                sign of a column that is no rate.
        """
        typed = f"{self.column}{self.relation}{self.number:g}"
        if unit != "%" and self.percent:
            raise UserError(f"--best {typed}%: {self.column} is no rate; write its number as the table has it")
        if unit == "%" and not self.percent and self.number > 1:
            raise UserError(
                f"--best {typed}: {self.column} is a rate from 0 to 1; write {typed}% or {self.number / 100:g}"
            )
        if unit == "%" and not self.percent and (self.relation, self.number) == ("<=", 1):
            raise UserError(
                f"--best {typed}: of a rate, 1 is 100 %, and every one is at most that; for 1 % write {typed}%"
            )
        return self.number / 100 if self.percent else self.number

    def text(self, unit: str) -> str:
        """It as it was understood: ``retained >= 90 %``."""
        bound = f"{100 * self.bound(unit):g} %" if unit == "%" else f"{self.number:g}"
        return f"{self.column} {self.relation} {bound}"

    def holds(self, value: float, unit: str) -> bool:
        """Whether a value fulfils it; a lacking one does not."""
        bound = self.bound(unit)
        return {">=": value >= bound, ">": value > bound, "<=": value <= bound, "<": value < bound}[self.relation]

    def gap(self, value: float, unit: str) -> float:
        """How far a value is from fulfilling it."""
        return abs(value - self.bound(unit))


def conditions(text: str, measured: pd.DataFrame) -> list[Condition]:
    """Read ``retained>=0.9, clip_score_uce.general>26``.

    A rate's number is from 0 to 1, or in per cent with a percent sign; other columns' numbers are as tables have them.

    Raises:
        UserError: what is no condition, no column of the table, or has a number in another unit than the column.
    """
    wanted = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([^<>=]+?)\s*(>=|<=|>|<)\s*([0-9.eE+-]+)\s*(%?)\s*", part)
        try:
            number = float(match[3]) if match else float("nan")
        except ValueError:
            number = float("nan")
        if not match or np.isnan(number):
            raise UserError(
                f"--best {part.strip()!r}: write COLUMN>=NUMBER (or <=, >, <), several with commas, "
                'e.g. --best "retained>=0.9" or, what is the same of a rate, "retained>=90%"'
            )
        condition = Condition(columns.find(match[1], measured, "--best"), match[2], number, bool(match[4]))
        for kind in dict.fromkeys(measured.task_kind):
            for unit in columns.cells(measured, kind, condition.column).unit.unique():
                condition.bound(unit)
        wanted.append(condition)
    return wanted


@dataclass(frozen=True)
class Choice:
    """The setting that ``--best`` picks: for which kind and conditions, its label and numbers, and those as good."""

    kind: str
    wanted: str
    eraser: str
    text: str
    alike: tuple[str, ...]


def choose(measured: pd.DataFrame, kind: str, wanted: Sequence[Condition], other: pd.DataFrame | None = None) -> Choice:
    """The setting with the lowest ``erased`` of those that fulfil every condition.

    Args:
        measured: what it is chosen by.
        kind: kind of the tasks.
        wanted: the conditions.
        other: the same settings on other prompts, whose numbers are reported; not given: those that it is chosen by.

    Raises:
        UserError: none does, with the nearest; or the kind lacks a column.
    """
    aim = columns.with_metric("erased", measured, kind, "--best")
    wanted = [replace(part, column=columns.with_metric(part.column, measured, kind, "--best")) for part in wanted]
    erased = columns.cells(measured, kind, aim)
    if not len(erased):
        raise UserError(
            f"--best: no metric of kind {kind} says both what is erased and what is kept; score one that does"
        )
    fits = {name: True for name in erased.index if name != UNEDITED and not np.isnan(erased.value[name])}
    for condition in wanted:
        column = columns.cells(measured, kind, condition.column)
        if not len(column):
            raise UserError(f"--best {condition.column}: not measured for kind {kind}")
        for name in fits:
            there = name in column.index
            fits[name] &= there and condition.holds(column.value[name], column.unit[name])
    able = [name for name, good in fits.items() if good]
    if not able:
        raise UserError(_nearest(measured, kind, wanted, list(fits)))
    best = min(able, key=lambda name: erased.value[name])
    top = erased.loc[best]
    alike = tuple(
        name for name in able if name != best and erased.low[name] <= top.high and top.low <= erased.high[name]
    )
    told = measured if other is None else other
    texts = [_measured_text(told, kind, name, best) for name in dict.fromkeys([aim, *(c.column for c in wanted)])]
    units = {c.column: columns.cells(measured, kind, c.column).unit.iloc[0] for c in wanted}
    return Choice(kind, ", ".join(c.text(units[c.column]) for c in wanted), best, ", ".join(texts), alike)


def _nearest(measured: pd.DataFrame, kind: str, wanted: Sequence[Condition], erasers: Sequence[str]) -> str:
    """Why nothing fulfils the conditions, and what comes nearest."""
    said = []
    for condition in wanted:
        column = columns.cells(measured, kind, condition.column)
        known = column[column.index.isin(erasers) & column.value.notna()]
        unit = column.unit.iloc[0]
        told = condition.text(unit)
        holding = [name for name in known.index if condition.holds(known.value[name], unit)]
        if holding:
            said.append(f"{told} is met by {len(holding)} of {len(known)}")
        elif len(known):
            near = min(known.index, key=lambda name: condition.gap(known.value[name], unit))
            said.append(
                f"{told} is met by none; the nearest is {near}: {_measured_text(measured, kind, condition.column, near)}"
            )
        else:
            said.append(f"{told}: no setting has that number")
    return f"--best: no setting of kind {kind} fits: " + "; ".join(said)


def _measured_text(measured: pd.DataFrame, kind: str, name: str, eraser: str) -> str:
    row = columns.cells(measured, kind, name).loc[eraser]
    scale, digits, unit = (100, 1, " %") if row.unit == "%" else (1, 4, "")
    ends = "" if np.isnan(row.low) else f" [{scale * row.low:.{digits}f}, {scale * row.high:.{digits}f}]"
    return f"{name} {scale * row.value:.{digits}f}{unit}{ends}"
