"""``erasebench compare``: several runs in one table and one report."""

from __future__ import annotations

from erasebench.commands.report import report_parser

COMPARE_HELP = """\
The runs must be of one protocol, model and prompts; else the message says what differs.

examples:
  erasebench compare MINE BASELINES             one's own eraser beside the baselines
  erasebench compare RUN RUN --out comparison
"""


def main(arguments: list[str]) -> int:
    """Parse, and write the table and the report."""
    parser = report_parser("compare", COMPARE_HELP)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="names of two runs or more")
    options = parser.parse_args(arguments)
    from erasebench.report.write import compare

    compare(options.runs, options.store, options.out, force=options.force, full=options.full, plugins=options.plugins)
    return 0
