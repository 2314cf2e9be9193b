"""Many runs of several stores: which of their numbers may stand in one table, and what is published beside them.

One table is of one kind of concepts, under one attack or none. Its runs agree in model, protocol, prompts, tasks and the
versions of all metrics that they share (the rule of :mod:`erasebench.tables.comparable`); what differs in any has a table
of its own. Costs are in none: seconds are those of a machine.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from erasebench.edits.label import UNEDITED, shown_row
from erasebench.errors import UserError
from erasebench.runs.about import About, read_about
from erasebench.runs.folder import erasers_of, read_config, read_plan, stored_runs
from erasebench.runs.manifest import Manifest, read_manifest
from erasebench.runs.state import parts
from erasebench.scores.rates import WILSON
from erasebench.store import Store
from erasebench.tables import published
from erasebench.tables.answer import key_columns
from erasebench.tables.columns import Column
from erasebench.tables.comparable import METRIC, agreeing
from erasebench.tables.kept import kept, kept_key
from erasebench.tables.measure import measure_asked, wide
from erasebench.tables.published_match import Ran
from erasebench.tables.slices import POOLED
from erasebench.tables.tabulate import join_runs

NUMBERS = ("value", "low", "high", "n")


@dataclass(frozen=True)
class LeftOut:
    """A run that is in no table, and why.

    Attributes:
        run: its name.
        store: where it is.
        why: a sentence.
        broken: it cannot be read; else it is not finished.
    """

    run: str
    store: Path
    why: str
    broken: bool


@dataclass(frozen=True)
class Source:
    """A run whose numbers are in tables.

    Attributes:
        store: the results folder.
        folder: of the run.
        manifest: what it says of itself.
        about: what its captions say.
        measured: its numbers, without costs.
        plan: which images they are of.
        names: of its erasers, by the text of their rows.
        claimed: its numbers beside the published ones of its experiment (:func:`erasebench.tables.published.beside`);
            ``None`` if it is of none.
        experiment: the node of that experiment.
    """

    store: Path
    folder: Path
    manifest: Manifest
    about: About
    measured: pd.DataFrame
    plan: pd.DataFrame
    names: dict[str, str]
    claimed: pd.DataFrame | None = None
    experiment: dict[str, Any] = field(default_factory=dict)

    @property
    def protocol_hash(self) -> str:
        """8 hex digits of all that its protocol decides; empty for a run that did not write it down."""
        last = self.manifest.get("protocol", "").rpartition(" ")[2]
        return last if len(last) == 8 else ""


@dataclass
class Row:
    """An eraser in one table.

    Attributes:
        label: as the runs' tables call it.
        eraser: its name, without its options.
        edits: a hash of its edits; empty for the unedited model.
        sources: the runs that have it, with the same numbers.
        cells: its numbers by column, each a row of the tidy table.
    """

    label: str
    eraser: str
    edits: str
    sources: list[Source]
    cells: dict[Column, dict[str, Any]]


@dataclass(frozen=True)
class Board:
    """One table: what was measured alike.

    Attributes:
        kind: of the concepts.
        attack: that the edits are under; empty for none.
        tasks: what was erased, one edit a task.
        about: what the captions of its runs say.
        columns: those that a reader looks at first, by name (:func:`erasebench.tables.answer.key_columns`).
        more: the other columns.
        rows: the unedited model first, then by what is left of the erased concept.
    """

    kind: str
    attack: str
    tasks: tuple[str, ...]
    about: About
    columns: dict[str, Column]
    more: list[Column]
    rows: list[Row]

    @property
    def sources(self) -> list[Source]:
        """Its runs."""
        return list({source.folder: source for row in self.rows for source in row.sources}.values())


def read_runs(stores: Sequence[Path], plugins: Sequence[str] = ()) -> tuple[list[Source], list[LeftOut]]:
    """All finished runs of some stores, and what is left out.

    Args:
        stores: results folders.
        plugins: modules of the user's own that metrics and erasers of these runs may come from.

    Raises:
        UserError: a store has no run.
    """
    sources: list[Source] = []
    left_out: list[LeftOut] = []
    for root in stores:
        store = Store(root)
        folders = stored_runs(store)
        if not folders:
            raise UserError(f"{root}: no run here; give results folders, which have a folder runs/")
        for folder in folders:
            try:
                there = parts(folder, store, plugins)
                lacking = [str(part) for part in there if part.lacks]
                if lacking or not there:
                    what = (
                        f"missing are {', '.join(lacking)}" if there else "it was stopped before its plan was written"
                    )
                    left_out.append(LeftOut(folder.name, root, f"not finished: {what}", False))
                else:
                    sources.append(_source(folder, store, plugins))
            except UserError as error:
                left_out.append(LeftOut(folder.name, root, str(error), True))
    return sources, left_out


def _source(folder: Path, store: Store, plugins: Sequence[str]) -> Source:
    """One run; its numbers are those that were kept, or are worked out again from its records."""
    config = read_config(folder)
    experiment = config.get("experiment") or {}
    numbers = kept(folder, kept_key(folder, store, WILSON))
    claimed = None
    if numbers is not None and not experiment:
        measured, plan = numbers.measured, read_plan(folder)
    else:
        joint = join_runs([folder], store, plugins=plugins)
        measured, plan = joint.measured, joint.plan
        if experiment:
            ran = Ran.from_folder(folder)
            asked = measure_asked(plan, joint.scores, published.asked_of(ran, joint.metrics), joint.not_run)
            claimed = published.beside(measured, ran, asked)
    measured = measured[(measured.role != "cost") & (measured.task == POOLED)]
    if not measured.value.notna().any():
        raise UserError(f"run {folder.name}: no records of it are in {store.root}, so there is no number")
    names = {text: label.name for text, (label, _) in erasers_of(folder).items()}
    return Source(
        store.root, folder, read_manifest(folder), read_about(folder), measured, plan, names, claimed, dict(experiment)
    )


def boards(sources: Sequence[Source]) -> list[Board]:
    """The tables of runs: each holds what may be compared, and nothing else."""
    parts_of = [(source, kind, attack) for source in sources for kind, attack in _parts(source.plan)]
    tables: list[Board] = []
    for group in agreeing([_facts(*part) for part in parts_of]):
        members = [parts_of[number] for number in group]
        _, kind, attack = members[0]
        if board := _board([source for source, _, _ in members], kind, attack):
            tables.append(board)
    return sorted(tables, key=lambda board: (board.about.embedded, board.kind, board.attack))


def _parts(plan: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """The kinds of a plan, each without an attack and under each."""
    yield from dict.fromkeys(zip(plan.task_kind, plan.attack, strict=True))


def _of_part(table: pd.DataFrame, kind: str, attack: str) -> pd.DataFrame:
    return table[(table.task_kind == kind) & (table.attack == attack)]


def _facts(source: Source, kind: str, attack: str) -> dict[str, str]:
    """All that two runs must agree in for one table, as far as both speak of it."""
    plan = _of_part(source.plan, kind, attack)
    asked = plan[["task", "prompt_id", "role", "original_key"]].drop_duplicates()
    rows = sorted(map(repr, asked.itertuples(index=False, name=None)))
    facts = dict(source.about.of_kind(kind)) | {"kind": kind, "attack": attack, "note": source.about.note}
    facts["tasks and prompts"] = hashlib.sha256("\n".join(rows).encode()).hexdigest()
    for metric in dict.fromkeys(_of_part(source.measured, kind, attack).metric):
        name, _, version = metric.partition("@")
        facts[METRIC + name] = version
    return facts


def _board(sources: Sequence[Source], kind: str, attack: str) -> Board | None:
    """The table of runs that agree; ``None`` where they have no number."""
    measured = pd.concat([_of_part(source.measured, kind, attack) for source in sources], ignore_index=True)
    if not measured.value.notna().any():
        return None
    every: list[Column] = list(wide(measured, kind).columns)
    first = key_columns(measured, kind)
    rows: list[Row] = []
    for source in sources:
        for row in _rows_of(source, kind, attack):
            same = next((other for other in rows if _same(row, other)), None)
            if same is None:
                rows.append(row)
            else:
                same.sources.append(source)
                there = {column: cell for column, cell in same.cells.items() if _has_number(same, column)}
                same.cells = same.cells | row.cells | there
    aim = first.get("erased")

    def place(row: Row) -> tuple[bool, float]:
        cell = row.cells.get(aim) if aim else None
        value = math.inf if cell is None or math.isnan(cell["value"]) else cell["value"]
        return row.eraser != UNEDITED, -value if cell and cell["direction"] == "up" and value < math.inf else value

    plan = _of_part(sources[0].plan, kind, attack)
    return Board(
        kind,
        attack,
        tuple(dict.fromkeys(plan.task)),
        sources[0].about,
        first,
        [column for column in every if column not in first.values()],
        sorted(rows, key=place),
    )


def _rows_of(source: Source, kind: str, attack: str) -> Iterator[Row]:
    plan, measured = _of_part(source.plan, kind, attack), _of_part(source.measured, kind, attack)
    for label, part in measured.groupby("eraser", sort=False):
        of_plan = plan[plan.eraser == label]
        pairs = sorted(set(zip(of_plan.task, of_plan.edit_key, strict=True)))
        edited = any(key for _, key in pairs)
        cells = {(row["role"], row["metric"]): row for row in part.to_dict("records")}
        clean = str(label).removesuffix(f" + {attack}") if attack else str(label)
        edits = hashlib.sha256(repr(pairs).encode()).hexdigest()[:8] if edited else ""
        yield Row(shown_row(str(label)), source.names.get(clean, clean.split(" ")[0]), edits, [source], cells)


def _same(a: Row, b: Row) -> bool:
    """Whether two rows are one: the same edits, and the same numbers wherever both have one."""
    shared = [column for column in a.cells.keys() & b.cells.keys() if _has_number(a, column) and _has_number(b, column)]
    return (
        (a.label, a.edits) == (b.label, b.edits)
        and bool(shared)
        and all(_values_of(a, column) == _values_of(b, column) for column in shared)
    )


def _has_number(row: Row, column: Column) -> bool:
    return not math.isnan(row.cells[column]["value"])


def _values_of(row: Row, column: Column) -> list[float | None]:
    values = [row.cells[column][name] for name in NUMBERS]
    return [None if math.isnan(value) else value for value in values]  # some numbers have no interval
