"""Tables in LaTeX that fit the page of a one-column article, and both columns of a two-column one."""

from __future__ import annotations

import pandas as pd

from erasebench.runs.about import About
from erasebench.tables.layout import Layout, caption, differences_text, how_measured, is_tested, layout
from erasebench.tables.letters import Mark
from erasebench.texts import escape_latex

ASIDE = ("peak_memory_mb",)
"""Columns that stay in the CSV file."""


def latex(measured: pd.DataFrame, kind: str, about: About, pairs: pd.DataFrame | None = None) -> str:
    """One kind's tables in LaTeX: pooled, and differences to the unedited model.

    They need ``\\usepackage{booktabs}`` and ``\\usepackage{graphicx}`` only. ``table*`` is both columns of a two-column
    article, and the page of any other. Intervals stand below their numbers; a table that is still too wide is shrunk.
    """
    part = measured[~measured.metric.str.startswith(ASIDE)]
    note = how_measured(measured, kind, about, is_tested(pairs, kind))
    text = _table(layout(part, kind, pairs=pairs), caption(measured, kind, about), note)
    differences = layout(part, kind, of="difference")
    if differences[1]:
        text += "\n" + _table(differences, f"Erasing concepts of kind {kind}. {differences_text(measured)}.")
    return text


def _table(table: Layout, caption_text: str, note: str = "") -> str:
    heads, rows, marked = table
    body = []
    for row, marks in zip(rows, marked, strict=True):
        split = [cell.partition(" [") for cell in row[1:]]
        values = [_marked(value, mark) for (value, _, _), mark in zip(split, marks[1:], strict=True)]
        body.append(" & ".join([escape_latex(row[0]), *values]) + r" \\")
        if any(interval for _, _, interval in split):
            below = [rf"\scriptsize {escape_latex('[' + interval)}" if interval else "" for _, _, interval in split]
            body.append(" & ".join(["", *below]) + r" \\[2pt]")
    lines = [
        r"\begin{table*}",
        r"\centering\small",
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
        r"\end{table*}",
        "",
    ]
    return "\n".join(lines)


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
