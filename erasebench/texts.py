"""Texts of others where they are shown: a name or a prompt may hold anything, and must be read and not obeyed.

One function for each place: Markdown, LaTeX, and a CSV that somebody opens in a spreadsheet. That of the terminal is
:func:`erasebench.errors.printable`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MEANINGFUL = re.compile(r"([\\`*_\[\]<>#|~&$@]|:(?! )|(?<=[wW])\.|^[-+=])")
"""What may mean something in Markdown: emphasis, links (also bare ones), HTML, headings, tables, formulas, names."""

LATEX_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "\n": " ",
}  # fmt: skip

FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
"""How a cell begins that a spreadsheet takes for a formula; and the sign that says it is none."""


def escape_markdown(text: str) -> str:
    """A text on one line that Markdown shows as it is: no emphasis, link, HTML, table or heading comes out of it."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return MEANINGFUL.sub(r"\\\1", line)


def escape_latex(text: str) -> str:
    """A text that LaTeX prints as it is."""
    return "".join(LATEX_ESCAPES.get(sign, sign) for sign in text)


def to_csv(table: pd.DataFrame) -> str:
    """A table as CSV whose texts are texts in a spreadsheet too: a sign ``'`` stands before what would be a formula.

    A carriage return, which some readers take for the end of a row, becomes a line feed.
    """
    texts = table.select_dtypes(exclude="number")
    safe = {name: [_csv_cell(cell) if isinstance(cell, str) else cell for cell in texts[name]] for name in texts}
    return table.assign(**safe).to_csv(index=False)


def _csv_cell(text: str) -> str:
    line = text.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{line}" if text.startswith(FORMULA) else line


def from_csv(table: pd.DataFrame) -> pd.DataFrame:
    """A table that was read from what :func:`to_csv` wrote, with its texts as they were."""
    texts = table.select_dtypes(exclude="number")
    own = {name: [cell.removeprefix("'") if isinstance(cell, str) else cell for cell in texts[name]] for name in texts}
    return table.assign(**own)
