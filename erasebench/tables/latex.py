"""Tables in LaTeX: a narrow one for a column of text, and wide ones for the page, both in letters that can be read."""

from __future__ import annotations

import pandas as pd

from erasebench.runs.about import About
from erasebench.tables.answer import key_columns, short_end
from erasebench.tables.layout import Layout, caption, differences_text, how_measured, is_tested, layout
from erasebench.tables.letters import LETTERS_EXPLAINED, Mark
from erasebench.tables.slices import POOLED
from erasebench.texts import escape_latex

ASIDE = ("peak_memory_mb",)
"""Columns that stay in the CSV file."""

ABREAST = 6
"""Columns of numbers that stand beside each other on a page; more go on in a table of their own."""


def latex(measured: pd.DataFrame, kind: str, about: About, pairs: pd.DataFrame | None = None) -> str:
    """One kind's tables in LaTeX with every column: pooled, and differences to the unedited model.

    They need ``\\usepackage{booktabs}`` and ``\\usepackage{graphicx}`` only. ``table*`` is both columns of a two-column
    article, and the page of any other. Intervals stand below their numbers; a table that is still too wide is shrunk.
    """
    part = measured[~measured.metric.str.startswith(ASIDE)]
    note = how_measured(measured, kind, about, is_tested(pairs, kind))
    first, *more = _abreast(layout(part, kind, pairs=pairs))
    tables = [_table(first, caption(measured, kind, about), note)]
    tables += [_table(table, f"Erasing concepts of kind {kind}, continued.") for table in more]
    differences = layout(part, kind, of="difference")
    if differences[1]:
        words = f"Erasing concepts of kind {kind}. {differences_text(measured)}."
        tables += [_table(table, words) for table in _abreast(differences)]
    return "\n".join(tables)


def latex_narrow(measured: pd.DataFrame, kind: str, about: About, pairs: pd.DataFrame | None = None) -> str:
    """The key columns of one kind (:func:`erasebench.tables.answer.key_columns`), for one column of a two-column article.

    The ends of intervals are rounded, and rows under an attack are left out: the wide tables have them.
    """
    clean = measured[(measured.task == POOLED) & (measured.attack == "")]
    keys = set(key_columns(measured, kind).values())
    part = clean[[place in keys for place in zip(clean.role, clean.metric, strict=True)]]
    table = layout(part, kind, pairs=pairs)
    lettered = any(mark.letters for marks in table[2] for mark in marks)
    return _table(table, caption(measured, kind, about), f"{LETTERS_EXPLAINED}." if lettered else "", narrow=True)


def _abreast(table: Layout) -> list[Layout]:
    """A table in parts that a page has room for; each has the erasers in front."""
    heads, rows, marked = table
    parts = -(-(len(heads) - 1) // ABREAST) or 1
    size = -(-(len(heads) - 1) // parts) or 1  # parts of about the same width
    return [
        (
            [heads[0], *heads[start : start + size]],
            [[row[0], *row[start : start + size]] for row in rows],
            [[marks[0], *marks[start : start + size]] for marks in marked],
        )
        for start in range(1, max(2, len(heads)), size)
    ]


def _table(table: Layout, caption_text: str, note: str = "", narrow: bool = False) -> str:
    heads, rows, marked = table
    body = []
    for row, marks in zip(rows, marked, strict=True):
        split = [cell.partition(" [") for cell in row[1:]]
        values = [_marked(value, mark) for (value, _, _), mark in zip(split, marks[1:], strict=True)]
        body.append(" & ".join([escape_latex(row[0]), *values]) + r" \\")
        if any(interval for _, _, interval in split):
            below = [_interval(interval, narrow) for _, _, interval in split]
            body.append(" & ".join(["", *below]) + r" \\[2pt]")
    environment = "table" if narrow else "table*"
    lines = [
        rf"\begin{{{environment}}}",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}" if narrow else r"\centering\small",
        rf"\caption{{{escape_latex(caption_text)}}}",
        r"\smallskip",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        r"\toprule",
        " & ".join([escape_latex(heads[0]), *map(_stacked, heads[1:])]) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        *([rf"\par\smallskip\parbox{{\linewidth}}{{\scriptsize {escape_latex(note)}}}"] if note else []),
        rf"\end{{{environment}}}",
        "",
    ]
    return "\n".join(lines)


def _interval(text: str, rounded: bool) -> str:
    """What stands below a number: ``[83.9, 100.0]``, or rounded ``[84, 100]``."""
    if not text:
        return ""
    ends = text.removesuffix("]").split(", ")
    shown = ", ".join(map(short_end, ends) if rounded else ends)
    return rf"\scriptsize {escape_latex(f'[{shown}]')}"


def _marked(value: str, mark: Mark) -> str:
    text = escape_latex(value)
    letters = rf"\rlap{{\textsuperscript{{{mark.letters}}}}}" if mark.letters else ""
    return (rf"\textbf{{{text}}}" if mark.best else text) + letters


def _stacked(head: str) -> str:
    """A head over two lines: what is measured, and on which prompts."""
    words = head.split()
    cut = min(range(len(words) + 1), key=lambda i: max(len(" ".join(words[:i])), len(" ".join(words[i:]))))
    above, below = (escape_latex(" ".join(part)) for part in (words[:cut], words[cut:]))
    return rf"\shortstack[r]{{{above}\\{below}}}" if above else below
