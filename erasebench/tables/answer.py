"""The answer first: a sentence a kind made from the paired tests, and one compact table over all kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from erasebench.concepts import NEAR, PARAPHRASE
from erasebench.edits.label import UNEDITED, short_rows
from erasebench.errors import printable
from erasebench.runs.about import About
from erasebench.tables.columns import Column, aims
from erasebench.tables.glossary import heading
from erasebench.tables.layout import ABSENT, EMPTY, column_text, not_run_reasons
from erasebench.tables.letters import ALPHA, NO_MARK, Mark, marks
from erasebench.tables.pairs import MOST_ERASERS
from erasebench.tables.printed import print_caption
from erasebench.tables.slices import POOLED

HEADS = {
    "erased": "erased ↓", "words": "in other\nwords ↓", "near": "kept\nnear ↑", "kept": "kept ↑", "everyday": "everyday ↑",
    "unsafe": "became\nunsafe ↓",
}  # fmt: skip
"""The heads of the compact table, in its order."""

ABREAST = 4
"""With more columns than these the intervals stand below their numbers, so that all fit 80 characters."""

LISTED = 4
"""Erasers that a sentence names; of more it says how many."""

SAYS = {
    "erased": ("erasing", "erases more than", "still there"),
    "words": (
        "erasing by other words",
        "erases more of what is asked for in other words than",
        "still there in other words",
    ),
    "near": ("keeping what is near", "keeps more of what is near than", "kept near"),
    "kept": ("keeping", "keeps more than", "kept"),
    "everyday": ("everyday prompts", "keeps everyday prompts better than", "everyday"),
}
"""Of each column what is done, what an eraser does that is told from another, and what the number is."""


def key_columns(measured: pd.DataFrame, kind: str) -> dict[str, Column]:
    """The columns of the compact table that a kind has: ``erased, words, near, kept, everyday, unsafe``, each a role and a metric.

    Erased and kept are those of :func:`erasebench.tables.columns.aims`; words and near are the same metrics on prompts in
    other words and on concepts near the erased ones; everyday is the first number of general prompts that should go up,
    or down.
    """
    part = measured[(measured.task_kind == kind) & (measured.task == POOLED)]
    chosen = aims(part)
    found: dict[str, Column] = dict(zip(("erased", "kept"), chosen, strict=True)) if chosen else {}
    if not chosen:
        first = part[(part.role == "erase") & (part.eraser != UNEDITED)]
        found = {"erased": ("erase", first.metric.iloc[0])} if len(first) else {}
    for name, of, role in (("words", "erased", PARAPHRASE), ("near", "kept", NEAR)):
        metric = found.get(of, ("", ""))[1]
        if len(part[(part.role == role) & (part.metric == metric) & part.value.notna()]):
            found[name] = (role, metric)
    for direction in ("down", "up"):  # the last that there is
        general = part[(part.role == "general") & (part.direction == direction) & part.value.notna()]
        if len(general):
            found["everyday"] = ("general", general.metric.iloc[0])
    instead = part[part.role == "instead"]
    if len(instead):
        found["unsafe"] = ("instead", instead.metric.iloc[0])
    shown = (name for name in HEADS if name in found)
    return {name: found[name] for name in shown if name != "kept" or found[name] != found.get("everyday")}


def verdict(measured: pd.DataFrame, pairs: pd.DataFrame, kind: str) -> str:
    """What the tests say of one kind, in a sentence or two.

    Nobody is said to be better than somebody else unless their paired test says so.

    Args:
        measured: see :func:`erasebench.tables.measure.measure`.
        pairs: see :func:`erasebench.tables.pairs.compare`.
        kind: kind of the tasks.
    """
    sentences, alike = [], []
    tested = (pairs.task_kind == kind).any()
    for name, column in key_columns(measured, kind).items():
        rows = _rows(measured, kind, column)
        ours = rows[(rows.eraser != UNEDITED) & (rows.attack == "") & rows.value.notna()]
        if not len(ours):
            continue
        tests = pairs[(pairs.task_kind == kind) & (pairs.role == column[0]) & (pairs.metric == column[1])]
        if name == "unsafe":
            worse = ours[ours.difference_low > 0].sort_values("value", ascending=False, kind="stable")
            if len(worse):
                sentences.append(f"became unsafe: {_listed([_named(row) for row in _records(worse)])}")
        elif len(ours) == 1:
            row = _records(ours)[0]
            before = rows[(rows.eraser == UNEDITED) & rows.value.notna()]
            was = f" (unedited {_value(before.iloc[0])})" if len(before) else ""
            sentences.append(f"{SAYS[name][2]} with {_named(row)}{was}")
        elif told := _told(name, ours, tests):
            sentences.append(told)
        elif name != "everyday":
            alike.append(f"{SAYS[name][0]} ({_span(ours)} {SAYS[name][2]})")
    if alike:
        erasers = measured[(measured.task_kind == kind) & (measured.eraser != UNEDITED)].eraser.nunique()
        many = f"more than {MOST_ERASERS} erasers are not tested against each other"
        none = many if erasers > MOST_ERASERS else "no eraser was tested against another"
        sentences.append(f"{'no test tells one eraser from another' if tested else none} in {' or '.join(alike)}")
    return "; ".join(sentences) + "." if sentences else "nothing was measured."


def _told(name: str, ours: pd.DataFrame, tests: pd.DataFrame) -> str:
    """Who is told from whom in one column; nothing where nobody is."""
    values = {row["eraser"]: row for row in _records(ours)}
    apart = {(row.a, row.b) for row in tests[tests.p_holm < ALPHA].itertuples()}
    if not apart:
        return ""
    up = bool(ours.direction.iloc[0] == "up")
    order = sorted(values, key=lambda eraser: -values[eraser]["value"] if up else values[eraser]["value"])
    best, more = order[0], SAYS[name][1]
    beaten = [eraser for eraser in order if (best, eraser) in apart or (eraser, best) in apart]
    if not beaten:  # it has too few images to be told from anybody, and others are
        of_pairs = [sorted(pair, key=order.index) for pair in sorted(apart)]
        return _listed([f"{_named(values[a])} {more} {_named(values[b])}" for a, b in of_pairs])
    alike = [eraser for eraser in order if eraser != best and eraser not in beaten]
    sentence = f"{_named(values[best])} {more} {_listed([_named(values[eraser]) for eraser in beaten])}"
    same = f", and is not told from {_listed([_named(values[eraser]) for eraser in alike])}" if alike else ""
    return sentence + same


def _span(ours: pd.DataFrame) -> str:
    """The least and the largest number of a column."""
    low, high = (_value(ours.loc[place]) for place in (ours.value.idxmin(), ours.value.idxmax()))
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def _records(rows: pd.DataFrame) -> list[dict[Any, Any]]:
    return rows.to_dict("records")


def _value(row: Mapping[str, Any] | pd.Series) -> str:
    """A number with its unit: ``6.7 %``."""
    text = column_text([dict(row)])[0].partition(" [")[0]
    return f"{text} %" if row["unit"] == "%" else text


def _named(row: Mapping[str, Any]) -> str:
    return f"{row['called']} ({_value(row)})"


def _listed(words: Sequence[str]) -> str:
    if len(words) <= 1:
        return "".join(words)
    if len(words) > LISTED:
        return f"{', '.join(words[:LISTED])} and {len(words) - LISTED} more"
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _rows(measured: pd.DataFrame, kind: str, column: Column) -> pd.DataFrame:
    part = measured[(measured.task_kind == kind) & (measured.task == POOLED)]
    rows = part[(part.role == column[0]) & (part.metric == column[1])].drop_duplicates("eraser")
    return rows.assign(called=rows.eraser.map(short_rows(list(dict.fromkeys(part.eraser)))))


def print_answer(measured: pd.DataFrame, pairs: pd.DataFrame, about: About, console: Console) -> None:
    """Print the sentences, the compact table and what must be known of it."""
    kinds = list(dict.fromkeys(measured.task_kind))
    console.print(Text("What the tests say", style="bold"))
    for kind in kinds:
        console.print(Text.assemble((f"  {printable(kind)}: ", "bold"), printable(verdict(measured, pairs, kind))))
    console.print()
    table, columns = compact(measured, pairs, kinds)
    console.print(table)
    for line in _legend(measured, pairs, kinds, columns, about):
        print_caption(line, console)
    for metric, reason in not_run_reasons(measured):
        print_caption(f"not run: {metric}: {reason}", console, style="")
    console.print()


def compact(
    measured: pd.DataFrame, pairs: pd.DataFrame, kinds: Sequence[str]
) -> tuple[Table, dict[str, dict[str, Column]]]:
    """The table over all kinds: a row a kind and eraser, with what is erased, kept, left of everyday prompts, and unsafe.

    Returns:
        The table, and the columns of each kind.
    """
    columns = {kind: key_columns(measured, kind) for kind in kinds}
    shown = [name for name in HEADS if any(name in of_kind for of_kind in columns.values())]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    below = len(shown) > ABREAST
    table.add_column("", overflow="fold", max_width=max(15, 78 - (11 if below else 17) * len(shown)))
    for name in shown:
        table.add_column(_head(name, measured, columns), justify="right", no_wrap=True)
    for number, kind in enumerate(kinds):
        known_marks = marks(pairs, kind)
        part = measured[(measured.task_kind == kind) & (measured.task == POOLED)]
        erasers = sorted(dict.fromkeys(part.eraser), key=lambda eraser: eraser != UNEDITED)
        called_here = short_rows(erasers)
        cells = {}
        for name in shown:
            column = columns[kind].get(name)
            rows = {} if column is None else {row["eraser"]: row for row in _records(_rows(measured, kind, column))}
            texts = column_text([rows.get(eraser) for eraser in erasers])
            of_column = [
                NO_MARK if column is None else known_marks.get((*column, eraser), NO_MARK) for eraser in erasers
            ]
            cells[name] = [_with_interval(text, mark, below) for text, mark in zip(texts, of_column, strict=True)]
        table.add_row(Text(printable(kind), style="bold"), *[""] * len(shown))
        for i, eraser in enumerate(erasers):
            last = i == len(erasers) - 1 and number < len(kinds) - 1
            called = Text(f" {printable(called_here[eraser])}")
            table.add_row(called, *(cells[column][i] for column in shown), end_section=last and len(kinds) > 8)
    return table, columns


def _head(name: str, measured: pd.DataFrame, columns: Mapping[str, Mapping[str, Column]]) -> str:
    """A head with its unit and direction, where all kinds have the same."""
    known = [
        measured[(measured.role == c[0]) & (measured.metric == c[1])].iloc[0]
        for k in columns.values()
        if (c := k.get(name))
    ]
    units = {row.unit for row in known}
    head = HEADS[name]
    if all(row.direction == "down" for row in known):
        head = head.replace("↑", "↓")
    return head.replace(" ↓", " % ↓").replace(" ↑", " % ↑") if units == {"%"} else head


def _with_interval(text: str, mark: Mark, below: bool) -> Text:
    """``a 6.7   3–16``: letters, number, interval, which may stand below."""
    if text in (EMPTY, ABSENT):
        return Text(text, style="dim")
    value, _, interval = text.partition(" [")
    low, _, high = interval.removesuffix("]").partition(", ")
    ends = f"{short_end(low)}–{short_end(high)}" if high else ""
    letters = f"{mark.letters} " if mark.letters else ""
    ends = f"\n{ends}" if below else f" {ends:>7}"
    return Text.assemble((letters, ""), (value, "bold" if mark.best else ""), (ends if high else "", "dim"))


def short_end(end: str) -> str:
    """The end of an interval without its decimals, where that leaves a number."""
    return f"{float(end):.0f}" if abs(float(end)) >= 1 or not end.strip("-0.") else end


def _legend(
    measured: pd.DataFrame,
    pairs: pd.DataFrame,
    kinds: Sequence[str],
    columns: Mapping[str, Mapping[str, Column]],
    about: About,
) -> list[str]:
    """What the numbers are, what letters mean, and whose they are: a line or two each."""
    by_text: dict[str, list[str]] = {}
    for kind in kinds:
        by_name: dict[str, list[str]] = {}
        for name, (_, metric) in columns[kind].items():
            by_name.setdefault(heading(metric.partition("@")[0]), []).append(name)
        words = [f"{', '.join(names)}: {text}" for text, names in by_name.items() if names != ["unsafe"]]
        by_text.setdefault("; ".join(words), []).append(kind)
    what = (
        next(iter(by_text)) if len(by_text) == 1 else "; ".join(f"{' and '.join(k)}: {t}" for t, k in by_text.items())
    )
    lines = [f"{what}; at each number its 95 % interval"]
    if any(marks(pairs, kind) for kind in kinds):
        lines.append(
            f"no common letter: told apart by the paired tests (Holm over a column, p < {ALPHA:.2f}); bold: the best, and all that is not "
            "told from it"
        )
    counts = measured[(measured.task == POOLED) & (measured.role == "erase") & (measured.n > 0)].n
    least, most = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
    n = f"{most}" if least == most else f"{least} to {most}"
    concepts = (
        " (they speak for these concepts)"
        if len(pairs) and (pairs[pairs.role == "erase"].units == "prompts").any()
        else ""
    )
    lines.append(
        f"model {about.name('model')}, protocol {about.name('protocol')}, {n} images of erased concepts{concepts}. {about.note}".rstrip()
    )
    return lines
