"""``erasebench leaderboard``: one page over the runs of several stores, offline and without a server."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from rich.console import Console

from erasebench import __version__
from erasebench.edits.label import UNEDITED
from erasebench.errors import UserError
from erasebench.progress import say
from erasebench.report.folder import check_target, replacing
from erasebench.report.names import Names
from erasebench.report.pages import environment
from erasebench.report.summary import kind_heading
from erasebench.tables import layout, published
from erasebench.tables.answer import HEADS
from erasebench.tables.columns import Column
from erasebench.tables.glossary import words_of_heading
from erasebench.tables.leaderboard import Board, LeftOut, Row, Source, boards, read_runs
from erasebench.texts import to_csv

LEADERBOARD = "a leaderboard"
"""What a leaderboard's mark says in place of runs; no run can be called so."""

CSV_FILE = "leaderboard.csv"

TASKS_NAMED = 12
"""Tasks that are named above a table."""


@dataclass(frozen=True)
class NumberHead:
    """The head of a column: its words, its arrow, which way is better, what is measured."""

    text: str
    arrow: str
    better: str
    tip: str


@dataclass(frozen=True)
class NumberCell:
    """A number, its interval, and what it is sorted by (empty: it comes last)."""

    text: str
    interval: str
    sort: str


@dataclass(frozen=True)
class RunLink:
    """A run in a row: its name, its store, its report (empty: none is there), when it was started."""

    name: str
    store: str
    report: str
    started: str


@dataclass(frozen=True)
class ShownRow:
    """An eraser in a table of the page."""

    label: str
    eraser: str
    unedited: bool
    cells: Sequence[NumberCell]
    runs: Sequence[RunLink]
    protocol_hash: str


@dataclass(frozen=True)
class ShownBoard:
    """A table of the page, with what its numbers have in common and what it is filtered by."""

    id: str
    title: str
    kind: str
    protocol: str
    model: str
    embedded: bool
    facts: Sequence[tuple[str, str]]
    heads: Sequence[NumberHead]
    first: int
    rows: Sequence[ShownRow]


@dataclass(frozen=True)
class Claimed:
    """Numbers of an experiment beside the published ones."""

    id: str
    title: str
    run: RunLink
    kind: str
    protocol: str
    model: str
    embedded: bool
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    quoted: Sequence[bool]
    below: Sequence[str]
    caption: str
    rest: int


def write_leaderboard(
    stores: Sequence[str],
    out: str,
    *,
    force: bool = False,
    plugins: Sequence[str] = (),
    console: Console | None = None,
) -> list[LeftOut]:
    """Write the page of all finished runs of some stores.

    Args:
        stores: results folders.
        out: the new folder; ``index.html`` in it is the page.
        force: replace a report that is there; another leaderboard is replaced anyway.
        plugins: modules of the user's own that metrics and erasers of these runs may come from.
        console: where to print; the terminal if not given.

    Returns:
        What is in no table; each is named on the page, too.

    Raises:
        UserError: a store without a run, no run that can be read, or a folder that is not ours to replace.
    """
    console = console or Console()
    target = Path(out)
    roots = list({Path(store).resolve(): Path(store) for store in stores}.values())
    check_target(target, [LEADERBOARD], force)
    for root in roots:
        if root.resolve() == target.resolve():
            raise UserError(f"{out}: that is a store; choose another folder for the page")
    sources, left_out = read_runs(roots, plugins)
    for left in left_out:
        say(console, f"{left.run} of {left.store}: {left.why}", "left out", "yellow")
    if not sources:
        raise UserError(f"{', '.join(map(str, roots))}: no finished run that can be read, so there is nothing to show")
    names = store_names(roots)
    tables = boards(sources)
    with replacing(target, [LEADERBOARD]) as folder:
        (folder / "assets").mkdir()
        for asset in ("report.css", "report.js", "leaderboard.js"):
            (folder / "assets" / asset).write_bytes(files("erasebench.report").joinpath("static", asset).read_bytes())
        (folder / CSV_FILE).write_text(to_csv(tidy(tables, names)), encoding="utf-8")
        page = Page(target.resolve(), names)
        shown = [page.board(board) for board in tables]
        claimed = [page.claimed(source) for source in sources if source.claimed is not None]
        text = (
            environment()
            .get_template("leaderboard.html")
            .render(
                version=__version__,
                boards=shown,
                claimed=claimed,
                kinds=_values([*shown, *claimed], "kind"),
                protocols=_values([*shown, *claimed], "protocol"),
                models=_values([*shown, *claimed], "model"),
                erasers=sorted({row.eraser for board in shown for row in board.rows if not row.unedited}),
                runs=len(sources),
                stores=list(names.values()),
                embedded=all(source.about.embedded for source in sources),
                note=next((source.about.note for source in sources if source.about.note), ""),
                left_out=[(left.run, names[left.store], _without_path(left, names)) for left in left_out],
                csv=CSV_FILE,
            )
        )
        (folder / "index.html").write_text(text, encoding="utf-8")
    say(console, f"{len(tables)} tables of {len(sources)} runs: {target / 'index.html'}")
    return left_out


def _values(shown: Sequence[ShownBoard | Claimed], name: str) -> list[str]:
    return sorted({str(getattr(each, name)) for each in shown})


def store_names(roots: Sequence[Path]) -> dict[Path, str]:
    """What stores are called on a page, which others read: their folders' names, with a number where two are alike."""
    counts: Counter[str] = Counter()
    names = {}
    for root in roots:
        name = root.resolve().name or "store"
        counts[name] += 1
        names[root] = name if counts[name] == 1 else f"{name} ({counts[name]})"
    return names


def _without_path(left: LeftOut, names: Mapping[Path, str]) -> str:
    """Why a run is left out, without the place of its store on this machine."""
    return left.why.replace(str(left.store), names[left.store]).replace(str(left.store.resolve()), names[left.store])


class Page:
    """Tables as the page shows them.

    Args:
        target: the folder that the page will stand in; links lead from there.
        names: of the stores.
    """

    def __init__(self, target: Path, names: Mapping[Path, str]) -> None:
        self.target, self.names = target, names
        self.ids = Names()

    def run(self, source: Source) -> RunLink:
        """A run with the link to its report."""
        index = source.store.resolve() / "reports" / source.folder.name / "index.html"
        href = quote(Path(os.path.relpath(index, self.target)).as_posix()) if index.is_file() else ""
        return RunLink(
            source.folder.name, self.names[source.store], href, source.manifest.get("started", "")[: len("2026-01-31")]
        )

    def board(self, board: Board) -> ShownBoard:
        """One table."""
        columns = [*board.columns.values(), *board.more]
        short = {column: HEADS[name].rpartition(" ")[0] for name, column in board.columns.items()}
        heads = [_number_head(board.rows, column, short.get(column, "")) for column in columns]
        texts = [_number_cells(board.rows, column) for column in columns]
        twice = {label for label, times in Counter(row.label for row in board.rows if row.edits).items() if times > 1}
        differs = {label for label in twice if len({row.edits for row in board.rows if row.label == label}) > 1}
        rows = [
            ShownRow(
                f"{row.label} (edits {row.edits})" if row.label in differs else row.label,
                row.eraser,
                row.eraser == UNEDITED,
                [column[i] for column in texts],
                [self.run(source) for source in row.sources],
                row.sources[0].protocol_hash,
            )
            for i, row in enumerate(board.rows)
        ]
        about, under = board.about, f" under {board.attack}" if board.attack else ""
        tasks = ", ".join(board.tasks[:TASKS_NAMED]) + (
            f" and {len(board.tasks) - TASKS_NAMED} more" if len(board.tasks) > TASKS_NAMED else ""
        )
        model = "the embedded model" if about.embedded else about.name("model")
        metrics = dict.fromkeys(metric for _, metric in columns)
        title = f"{kind_heading(board.kind)}{under}, on {model}"
        return ShownBoard(
            self.ids(id(board), title), title, board.kind, about.name("protocol"), about.name("model"), about.embedded,
            [("erased", tasks), *about.of_kind(board.kind), ("metrics", ", ".join(metrics))],
            heads, len(board.columns), rows,
        )  # fmt: skip

    def claimed(self, source: Source) -> Claimed:
        """What was measured of an experiment beside what is published of it; the rest is only counted."""
        assert source.claimed is not None
        table = source.claimed[source.claimed.measured.notna()]
        heads, rows, below = published.texts(table)
        title = f"{source.experiment['paper']}, {source.experiment['table']}"
        return Claimed(
            self.ids(("claimed", source.folder), title), title, self.run(source),
            str(source.experiment["kind"]), source.about.name("protocol"), source.about.name("model"), source.about.embedded,
            heads, rows, [value == "quoted" for value in table.obtained], below,
            published.caption(source.experiment, source.about), len(source.claimed) - len(table),
        )  # fmt: skip


def _number_head(rows: Sequence[Row], column: Column, short: str) -> NumberHead:
    """The head of a column, by a short name if it has one."""
    cell = next(cell for row in rows if (cell := row.cells.get(column)) is not None)
    whole = layout.title(*column, cell["direction"], cell["unit"])
    arrow = layout.ARROWS.get(cell["direction"], "")
    text = " ".join(filter(None, [short, cell["unit"]])) if short else whole.replace(arrow, "").strip()
    return NumberHead(text, arrow, cell["direction"], f"{whole}: {words_of_heading(whole)}".removesuffix(": "))


def _number_cells(rows: Sequence[Row], column: Column) -> list[NumberCell]:
    """A column as it is read."""
    cells = [row.cells.get(column) for row in rows]
    shown = []
    for text, cell in zip(layout.column_text(cells), cells, strict=True):
        value, _, interval = text.partition(" [")
        number = "" if cell is None or math.isnan(cell["value"]) else repr(float(cell["value"]))
        shown.append(NumberCell(value, interval.removesuffix("]").replace(", ", " to "), number))
    return shown


def tidy(tables: Sequence[Board], names: Mapping[Path, str]) -> pd.DataFrame:
    """All numbers of all tables in full precision: a row a number. ``table`` counts the tables from 1."""
    numbers = []
    for number, board in enumerate(tables, start=1):
        for row in board.rows:
            for (role, metric), cell in row.cells.items():
                numbers.append(
                    {
                        "table": number,
                        "kind": board.kind,
                        "attack": board.attack,
                        "eraser": row.label,
                        "edits": row.edits,
                    }
                    | {"role": role, "metric": metric}
                    | {name: cell[name] for name in ("unit", "direction", "value", "low", "high", "n", "how", "reason")}
                    | {
                        "runs": " ".join(source.folder.name for source in row.sources),
                        "stores": " ".join(dict.fromkeys(names[source.store] for source in row.sources)),
                        "protocol_hash": row.sources[0].protocol_hash,
                        "model": board.about.model,
                        "embedded": board.about.embedded,
                        "protocol": board.about.protocol,
                        "prompts": board.about.prompts.get(board.kind, ""),
                    }
                )
    return pd.DataFrame(numbers)
