"""``erasebench report``: a folder of pages about finished runs."""

from __future__ import annotations

import argparse

from erasebench.commands import add_plugins, add_store, verb_parser

REPORT_HELP = """\
Open index.html in the folder. Nothing in it needs a network. tables/ has LaTeX, figures/ PDF and SVG.
Images of unsafe prompts are blurred until a button is pressed, in the embedded model's drawings not at all.

examples:
  erasebench report                     the latest run
  erasebench report RUN --full          with whole images, not thumbnails alone
  erasebench report RUN --out pages     somewhere else
"""


def main(arguments: list[str]) -> int:
    """Parse, and write the report."""
    parser = report_parser("report", REPORT_HELP)
    parser.add_argument("runs", nargs="*", help="names of runs; default: the latest. Several become one report")
    options = parser.parse_args(arguments)
    from erasebench.report.write import write_report

    write_report(
        options.runs, options.store, options.out, force=options.force, full=options.full, plugins=options.plugins
    )
    return 0


def report_parser(verb: str, explanation: str) -> argparse.ArgumentParser:
    """The options of every verb that writes a report."""
    parser = verb_parser(verb, explanation)
    add_store(parser)
    parser.add_argument("--out", help="the report's folder (default: reports/RUN in the results folder)")
    parser.add_argument("--full", action="store_true", help="copy the whole images, too, not only thumbnails")
    parser.add_argument("--force", action="store_true", help="replace a report of other runs")
    add_plugins(parser)
    return parser
