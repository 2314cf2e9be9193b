"""Names and prompts of others, shown in Markdown, LaTeX and spreadsheets: read and never obeyed."""

from __future__ import annotations

import csv
import io
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from erasebench.texts import FORMULA, escape_latex, escape_markdown, from_csv, to_csv

HOSTILE = (
    "[click](http://example.org)", "![x](http://example.org/x.png)", "a|b", "<img src=x onerror=alert(1)>", "http://example.org",
    "www.example.org", "*a* _b_ `c`", "# head", "- list", "[a]: http://example.org", "[red]x[/red] [/] [link=http://a]",
    "=HYPERLINK(1)", "\x1b[31mred", "right \u202e left", "a\nb", "@somebody", "~~a~~", "&lt;", "$x$", "1. one",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_a_name_as_it_is(text: str) -> None:
    reader = MarkdownIt("commonmark", {"linkify": False}).enable("table").enable("strikethrough")
    page = f"| head | n |\n|---|---:|\n| {escape_markdown(text)} | 1 |\n\nErasing {escape_markdown(text)}.\n"
    tokens = [token for block in reader.parse(page) for token in [block, *(block.children or [])]]
    kinds = {token.type for token in tokens}
    assert not kinds & {
        "link_open",
        "image",
        "html_inline",
        "html_block",
        "em_open",
        "strong_open",
        "code_inline",
        "s_open",
    }
    assert [token.type for token in tokens].count("td_open") == 2, "a pipe in a name makes no column"
    texts = ["".join(child.content for child in token.children or []) for token in tokens if token.type == "inline"]
    words = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    assert texts[2] == words and texts[-1] == f"Erasing {words}."


@given(st.text())
def test_escaped_markdown_is_one_line_without_bare_signs(text: str) -> None:
    shown = escape_markdown(text)
    assert "\n" not in shown and not re.search(r"(?<!\\)(?:\\\\)*[*_`<\[|]", shown)


SPECIAL = {
    r"\textbackslash{}": "\\", r"\&": "&", r"\%": "%", r"\$": "$", r"\#": "#", r"\_": "_", r"\{": "{", r"\}": "}",
    r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textless{}": "<", r"\textgreater{}": ">",
    r"\textbar{}": "|",
}  # fmt: skip


@given(st.text(alphabet=st.sampled_from("ab \\&%$#_{}~^<>|"), max_size=30))
def test_latex_escapes_are_complete_and_can_be_read_back(text: str) -> None:
    escaped = escape_latex(text)
    pattern = "|".join(re.escape(sign) for sign in SPECIAL)
    assert re.sub(pattern, lambda match: SPECIAL[match.group()], escaped) == text
    assert not re.search(r"[\\&%$#_{}~^<>|]", re.sub(pattern, "", escaped)), "no special sign is left"


@given(st.lists(st.text(alphabet=st.sampled_from("=+-@'\t\r\"a, \n|1")), min_size=1, max_size=5))
def test_a_csv_has_no_formula_and_is_read_back_as_it_was(names: list[str]) -> None:
    table = pd.DataFrame({"eraser": names, "value": [-1.5 - number for number in range(len(names))], "n": 3})
    text = to_csv(table)
    rows = list(csv.reader(io.StringIO(text, newline="")))[1:]
    lines = [re.sub("\r\n?", "\n", name) for name in names]
    for name, line, row in zip(names, lines, rows, strict=True):
        assert row[0] == (f"'{line}" if name.startswith(FORMULA) else line)
    assert [float(row[1]) for row in rows] == list(table.value), "a negative number is no formula"
    back = from_csv(pd.read_csv(io.StringIO(text, newline=""), keep_default_na=False, dtype={"eraser": str}))
    assert list(back.eraser) == lines and list(back.value) == list(table.value)
