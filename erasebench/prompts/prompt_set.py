"""Prompt sets: rows of prompt, seed, guidance and size, and why each row is in a run.

A set has a version and a hash of its rows, so that a number can say exactly which prompts it was measured on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from erasebench.concepts import KINDS, NEAR, PARAPHRASE, ROLES, ErasureTask
from erasebench.errors import UserError, suggest
from erasebench.recipe import LARGEST_SEED

PROMPT_DTYPES = {
    "prompt_id": "str",
    "prompt": "str",
    "negative_prompt": "str",
    "seed": "int64",
    "guidance": "float64",
    "width": "Int64",
    "height": "Int64",
    "label": "str",
    "kind": "str",
    "role": "str",
}
"""Columns of a prompt set. ``guidance`` NaN and sizes NA (pixels) mean: as the protocol says. An empty ``label``
means that a prompt asks for no named concept. An empty ``role`` is decided by the task."""

LARGEST_SIDE = 16_384
"""The most pixels that a width or height may ask for: no model draws more, and a mistyped one would fill the memory."""


class Counts(dict):
    """What is in a prompt set, as plain numbers; printed as one sentence."""

    def __str__(self) -> str:
        parts = [f"{self['rows']} prompts, {self['distinct']} distinct generations (prompt, seed, guidance, size)"]
        labels = self["labels"]
        if len(labels) > 6:
            counts = sorted(set(labels.values()))
            parts.append(
                f"{len(labels)} labels with {'-'.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))} each"
            )
        elif labels:
            parts.append(", ".join(f"{label} {n}" for label, n in labels.items()))
        if self["roles"]:
            parts.append("roles " + ", ".join(f"{role} {n}" for role, n in self["roles"].items()))
        if self["empty"]:
            parts.append(f"{self['empty']} empty")
        if self["multiline"]:
            parts.append(f"{self['multiline']} over several lines")
        return "; ".join(parts)


@dataclass(frozen=True)
class Budget:
    """How many prompts a task is measured on: of each erased concept by name and in other words, of each concept near one,
    of each other concept, and general ones."""

    erased: int
    retained: int
    general: int
    paraphrased: int = 0
    near: int = 0


@dataclass(frozen=True, eq=False)
class PromptSet:
    """Prompts with their seeds, labels and roles.

    Attributes:
        name: what tables call it.
        version: of our templates, or of the schema's reader.
        rows: a table with the columns of :data:`PROMPT_DTYPES`, ``prompt_id`` unique.
        source: where it came from.
        notes: what a reader of a number should know about these prompts, one sentence each.
        roles: ``task``: the task decides the role of every row that has a label, and a row's own role holds where
            there is none; ``rows``: a row's own role always holds.
        budget: how many rows :meth:`for_task` takes; ``None`` for all.
        near: by the name of a concept, labels whose prompts have the role ``near`` where it is erased.
        held_out: labels that a file marks as held out; no eraser is told of them (:func:`erasebench.runs.tasks.withheld`).

    Raises:
        UserError: a column is missing, a ``prompt_id`` comes twice, a role or kind is unknown, a seed is no whole
            number in 0..2**63-1, a guidance or size cannot be, a prompt is missing, or there is no row.
    """

    name: str
    version: str
    rows: pd.DataFrame
    source: str
    notes: tuple[str, ...] = ()
    roles: str = "task"
    budget: Budget | None = None
    near: Mapping[str, Sequence[str]] = field(default_factory=dict)
    held_out: tuple[str, ...] = ()
    # The rows of tasks, by what they erase: every eraser of a run asks for the same.
    _by_names: dict[tuple[str, ...], pd.DataFrame] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        missing = [column for column in PROMPT_DTYPES if column not in self.rows]
        if missing:
            raise UserError(
                f"prompt set {self.name}: column {missing[0]!r} is missing; it needs {', '.join(PROMPT_DTYPES)}"
            )
        if self.rows.empty:
            raise UserError(f"prompt set {self.name}: no prompt; give at least one row")
        rows = _checked(self.rows[list(PROMPT_DTYPES)].reset_index(drop=True), f"prompt set {self.name}")
        twice = rows.prompt_id[rows.prompt_id.duplicated()]
        if len(twice):
            raise UserError(f"prompt set {self.name}: prompt_id {twice.iloc[0]!r} comes twice; number prompts uniquely")
        for column, allowed in (("role", ROLES), ("kind", (*KINDS, "general"))):
            for value in rows[column].unique():
                if value and value not in allowed:
                    raise UserError(
                        f"prompt set {self.name}: {column} {value!r} is not one of {', '.join(allowed)}."
                        f"{suggest(value, allowed)}"
                    )
        object.__setattr__(self, "rows", rows)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over all rows in their order, 64 hex digits. Names, notes and places are not part of it."""
        digest = hashlib.sha256(json.dumps([self.roles, *PROMPT_DTYPES]).encode())
        for row in self.rows.astype(object).where(self.rows.notna(), None).itertuples(index=False):
            digest.update(b"\n" + json.dumps(row).encode())
        return digest.hexdigest()

    @cached_property
    def content(self) -> str:
        """SHA-256 over what is drawn: prompt, seed, guidance and size of all rows in their order, 64 hex digits.

        Labels, roles and numbers of rows are not part of it, so that copies of one file under other heads are one.
        """
        drawn = self.rows[["prompt", "seed", "guidance", "width", "height"]]
        digest = hashlib.sha256()
        for row in drawn.astype(object).where(drawn.notna(), None).itertuples(index=False):
            digest.update(json.dumps(row).encode() + b"\n")
        return digest.hexdigest()

    def counts(self) -> Counts:
        """Rows, distinct generations, rows of each label and role, empty prompts, prompts over several lines."""
        rows = self.rows
        image = ["prompt", "negative_prompt", "seed", "guidance", "width", "height"]
        return Counts(
            rows=len(rows),
            distinct=int((~rows.duplicated(image)).sum()),
            labels={str(label): int(n) for label, n in rows.label[rows.label != ""].value_counts(sort=False).items()},
            roles={str(role): int(n) for role, n in rows.role[rows.role != ""].value_counts(sort=False).items()},
            empty=int((rows.prompt == "").sum()),
            multiline=int(rows.prompt.str.contains("\n", regex=False).sum()),
        )

    def for_task(self, task: ErasureTask) -> pd.DataFrame:
        """The rows that one task is measured on, each with its role.

        A row whose label the task erases has role ``erase``, one whose label is :attr:`near` to what it erases ``near``,
        another labelled row ``retain``, one without label ``general``, unless the set says otherwise (:attr:`roles`). Labels and names are compared without case. A row of role
        ``paraphrase`` asks in other words for what the task erases; those for other concepts are left out.

        Raises:
            UserError: rows have labels, and none of them is a concept the task erases.
        """
        # A frame of its own for each caller, who may add to it.
        if task.names not in self._by_names:
            self._by_names[task.names] = self._rows_for(task)
        return self._by_names[task.names].copy()

    def _rows_for(self, task: ErasureTask) -> pd.DataFrame:
        rows = self.take(task.names, self.budget) if self.budget else self.rows
        labelled = rows.label != ""
        asked = [self._asked(rows, task.names), self._asked(rows, self._neighbours(task.names)), labelled]
        by_task = np.select(asked, ["erase", NEAR, "retain"], "general")
        own = rows.role != ""
        if self.roles == "task":
            own &= ~labelled | rows.role.isin(["general", PARAPHRASE])
        of_others = labelled & (rows.role == PARAPHRASE) & (by_task != "erase")
        labels = list(dict.fromkeys(rows.label[labelled]))
        rows = rows.assign(role=np.where(own, rows.role, by_task))[~of_others].reset_index(drop=True)
        if self.roles == "task" and labels and not rows.role.isin(["erase", PARAPHRASE]).any():
            near = next((hint for name in task.names if (hint := suggest(name, labels))), "")
            raise UserError(
                f"prompt set {self.name}: no prompt has the label {task.label!r}.{near} It has {_some(labels)}. "
                "Erase one of these, or say what the rows are for with prompts.role=file, erase or retain"
            )
        return rows

    def take(self, erase: Sequence[str], budget: Budget) -> pd.DataFrame:
        """The first rows of each label, by name and in other words, and of those without label.

        Raises:
            UserError: a name in ``erase`` is no label of the set, or a label has fewer rows than asked for.
        """
        rows = self.rows
        labels = list(dict.fromkeys(rows.label[rows.label != ""]))
        for name in erase:
            if name.casefold() not in {label.casefold() for label in labels}:
                raise UserError(
                    f"prompt set {self.name}: no prompts for {name!r}.{suggest(name, labels)} It has {_some(labels)}"
                )
        kinds = [self._asked(rows, erase), self._asked(rows, self._neighbours(erase)), rows.label != ""]
        by_name = np.select(kinds, [budget.erased, budget.near, budget.retained], budget.general)
        worded = (rows.role == PARAPHRASE).to_numpy()
        wanted = np.where(worded, np.where(kinds[0], budget.paraphrased, 0), by_name)
        parts = rows.groupby([rows.label, worded], sort=False)
        for (label, _), part in parts:
            most = int(wanted[part.index[0]])
            if len(part) < most:
                raise UserError(
                    f"prompt set {self.name}: {len(part)} prompts of {label or 'no label'!r}, {most} asked for"
                )
        return rows[parts.cumcount() < wanted].reset_index(drop=True)

    def _neighbours(self, erase: Sequence[str]) -> list[str]:
        """The labels that are near to some concepts."""
        folded = {name.casefold() for name in erase}
        return [label for name, labels in self.near.items() if name.casefold() in folded for label in labels]

    @staticmethod
    def _asked(rows: pd.DataFrame, names: Sequence[str]) -> pd.Series:
        return rows.label.str.casefold().isin([name.casefold() for name in names])


def _checked(rows: pd.DataFrame, place: str) -> pd.DataFrame:
    """Rows with the types of :data:`PROMPT_DTYPES`, each value as it was meant or refused.

    A frame made in a notebook has NaN where a text is empty, and a column of whole numbers becomes one of fractions
    as soon as one is missing.
    """
    columns: dict[str, pd.Series] = {}
    for column, dtype in PROMPT_DTYPES.items():
        if _is_right(column, rows[column]):
            columns[column] = rows[column]
            continue
        values = []
        for row, value in enumerate(rows[column].astype(object)):
            try:
                values.append(_value(column, value))
            except ValueError as error:
                who = f"row {row + 1} (prompt_id {str(rows.prompt_id.iloc[row])[:40]!r})"
                raise UserError(f"{place}: {who}, {column} {error}") from error
        columns[column] = pd.Series(values, dtype=dtype)
    one_side = columns["width"].isna() != columns["height"].isna()
    if one_side.any():
        row = int(one_side.idxmax())
        raise UserError(f"{place}: row {row + 1} has a width without a height, or the reverse; give both or neither")
    return pd.DataFrame(columns)


def _value(column: str, value: object) -> str | int | float | None:
    """A cell as its column should hold it.

    Raises:
        ValueError: it cannot be meant; what it is and the cure.
    """
    text = PROMPT_DTYPES[column] == "str"
    if pd.api.types.is_scalar(value) and pd.isna(value):
        if column in ("prompt_id", "prompt", "seed"):
            raise ValueError("is missing; give one (a prompt may be an empty text)")
        return "" if text else None
    if isinstance(value, str) and text:
        return value
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise ValueError(f"is {value!r:.60}; give {'a text' if text else 'a number'}")
    figure = int(value) if isinstance(value, int | np.integer) else float(value)
    if column == "prompt_id" and isinstance(figure, int):
        return str(figure)
    if text:
        raise ValueError(f"is {figure}; give a text")
    if column == "guidance":
        if not 0 <= figure < float("inf"):
            raise ValueError(f"is {figure}; give a finite number of 0 or more")
    elif column == "seed":
        if not 0 <= figure <= (2**53 if isinstance(figure, float) else LARGEST_SEED) or figure % 1:
            raise ValueError(f"{figure} is not a whole number in 0..2**63-1 (0..2**53 in a column of fractions)")
    elif not 8 <= figure <= LARGEST_SIDE or figure % 8:
        raise ValueError(f"{figure} is not a multiple of 8 in 8..{LARGEST_SIDE}")
    return float(figure) if column == "guidance" else int(figure)


def _is_right(column: str, values: pd.Series) -> bool:
    """Whether a column needs no second look: sets are cut and cut again, and each piece is a set."""
    dtype = PROMPT_DTYPES[column]
    if values.dtype != dtype:
        return False
    if dtype == "str":
        return not values.isna().any()
    given = values.dropna()
    if column == "guidance":
        return bool((np.isfinite(given) & (given >= 0)).all())
    if column == "seed":
        return bool((given >= 0).all())
    return bool(((given > 0) & (given <= LARGEST_SIDE) & (given % 8 == 0)).all())


def hashed_seed(*identity: str | int) -> int:
    """A seed in 0..2**31-1 that depends on ``identity`` alone."""
    digest = hashlib.sha256(json.dumps(identity).encode()).digest()
    return int.from_bytes(digest[:8], "big") % 2**31


def _some(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:10])
    return f"{shown} and {len(labels) - 10} more" if len(labels) > 10 else shown
