"""``erasebench table``: the tables of finished runs, made again from records."""

from __future__ import annotations

from erasebench.commands import add_plugins, add_store, verb_parser
from erasebench.errors import UserError

TABLE_HELP = """\
examples:
  erasebench table                                  the latest run again
  erasebench table RUN --full                       every column, and how all of it was measured
  erasebench table RUN RUN                          two runs of one protocol in one table
  erasebench table SWEEP --best "retained>=0.9"     the setting that erases most, and the command that runs it
  erasebench table RUN --by-concept                 which concept it leaves in place, and which it takes along
  erasebench table RUN --power                      how many prompts it takes to tell two erasers apart
  erasebench table RUN --orders OTHER               does a run with other concepts order the erasers alike?
Nothing is generated or scored. Beside each number stands its 95 % interval; "not run" says why there is none. What a
word means: erasebench explain WORD
"""


def main(arguments: list[str]) -> int:
    """Parse, and make the tables."""
    parser = verb_parser("table", TABLE_HELP)
    parser.add_argument(
        "runs", nargs="*", help="names of runs, or of a sweep; default: the latest run. Several become one table"
    )
    add_store(parser)
    parser.add_argument("--out", help="folder for CSV, Markdown and LaTeX; default: the run's own tables/")
    parser.add_argument(
        "--allow-mixed",
        action="store_true",
        help="put runs of other protocols, prompts, models or metric versions into labelled columns of their own",
    )
    parser.add_argument(
        "--sort", metavar="COLUMN", help="order the printed rows by a column, the best first: erased, judge.retained"
    )
    parser.add_argument(
        "--power", action="store_true", help="how many prompts it takes to tell every two erasers apart"
    )
    parser.add_argument(
        "--by-concept",
        action="store_true",
        help="print the rates of each concept alone, those furthest from the aim first (always written: by_concept.csv)",
    )
    parser.add_argument(
        "--reliability",
        action="store_true",
        help="what the order of erasers is worth: pairs told apart, halves of the concepts, published orders "
        "(always written: reliability.csv)",
    )
    parser.add_argument(
        "--orders",
        metavar="OTHER",
        help="also whether another run, of other concepts, orders the erasers alike (written: orders.csv)",
    )
    parser.add_argument(
        "--best",
        metavar="CONDITION",
        help='the setting with the least of "erased" that fulfils it, e.g. "retained>=0.9", and the command that runs it; '
        'rates are written from 0 to 1, or in per cent with the sign: "retained>=90%%, erased<=1%%"',
    )
    parser.add_argument(
        "--rates",
        choices=("wilson", "clopper-pearson"),
        default="wilson",
        help="the interval of rates (clopper-pearson: never too short, often too long)",
    )
    parser.add_argument(
        "--full", action="store_true", help="print every column, a table a kind, and all that decides the numbers"
    )
    add_plugins(parser)
    options = parser.parse_args(arguments)
    from erasebench.tables.tabulate import tabulate
    from erasebench.tables.view import View

    view = View(
        options.sort, options.power, options.best, options.rates, options.by_concept, options.reliability, options.full
    )
    if options.orders and len(options.runs) != 1:
        raise UserError("--orders: name one run before it; its order is compared with that of OTHER")
    tabulate(options.runs, options.store, options.out, None, options.allow_mixed, view, options.plugins)
    if options.orders:
        from rich.console import Console

        from erasebench.store import Store
        from erasebench.tables.orders import show_orders

        show_orders(options.runs[0], options.orders, Store(options.store), Console())
    return 0
