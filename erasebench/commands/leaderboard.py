"""``erasebench leaderboard``: one page over the runs of several stores."""

from __future__ import annotations

from erasebench.commands import add_plugins, verb_parser

LEADERBOARD_HELP = """\
One page, no network needed: open FOLDER/index.html. Only numbers that may be compared stand in one table (model, protocol,
prompts, tasks, versions of metrics); published numbers stand beside those of runs of a paper's table. Reports that were
written (erasebench report RUN) are linked where they lie, so serve stores and page from one folder.
A run that is not finished or cannot be read is named and left out; the exit status is 1 if one cannot be read.

examples:
  erasebench leaderboard results --out board
  erasebench leaderboard mine/results theirs/results --out board
"""


def main(arguments: list[str]) -> int:
    """Parse, and write the page."""
    parser = verb_parser("leaderboard", LEADERBOARD_HELP)
    parser.add_argument("stores", nargs="+", metavar="STORE", help="results folders")
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="the new folder; an earlier leaderboard is replaced"
    )
    parser.add_argument("--force", action="store_true", help="replace a report that is there")
    add_plugins(parser)
    options = parser.parse_args(arguments)
    from erasebench.report.leaderboard import write_leaderboard

    left_out = write_leaderboard(options.stores, options.out, force=options.force, plugins=options.plugins)
    return int(any(left.broken for left in left_out))
