"""``erasebench explain``: what a word or column of the tables means."""

from __future__ import annotations

import shutil
import textwrap

from erasebench.commands import verb_parser

EXPLAIN_HELP = """\
examples:
  erasebench explain H             one word, metric or cost
  erasebench explain               all of them
"""


def main(arguments: list[str]) -> int:
    """Parse, and print."""
    parser = verb_parser("explain", EXPLAIN_HELP)
    parser.add_argument("term", nargs="*", help="a word of a table's head or caption, e.g. H, kept, kid_embedded")
    term = " ".join(parser.parse_args(arguments).term)
    from erasebench.tables.glossary import explain

    width = max(40, shutil.get_terminal_size().columns)
    for line in explain(term).splitlines():
        print(textwrap.fill(line, width, subsequent_indent="  "))
    return 0
