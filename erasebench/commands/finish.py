"""``erasebench finish``: the tables of a run whose parts are done."""

from __future__ import annotations

from erasebench.commands import add_store, verb_parser

FINISH_HELP = """\
examples:
  erasebench run part=1/4 ...      on four machines or GPUs that share the results folder,
  erasebench run part=2/4 ...      each its part of the images
  erasebench finish RUN            then the tables; if something is missing, it says what

Without part=, any number of equal commands at once share the work, too, and each ends with the tables.
"""


def main(arguments: list[str]) -> int:
    """Parse, and make the tables."""
    parser = verb_parser("finish", FINISH_HELP)
    parser.add_argument("run", help="name of the run, as its parts print it")
    add_store(parser)
    options = parser.parse_args(arguments)
    from erasebench.tables.tabulate import tabulate

    tabulate([options.run], options.store)
    return 0
