"""``erasebench prefetch``: get all that a config needs, for a machine without a network."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from erasebench.commands import verb_parser
from erasebench.commands.doctor import metrics_asked
from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.models.load import fetch, model_here

PREFETCH_HELP = """\
examples:
  erasebench prefetch model=sd14                       the model and the weights of its metrics
  erasebench prefetch model=sd14 prompts=i2p           the prompts, too
Give the overrides of the run. What is here is not fetched again. The exit status is 1 if something could not be had.
"""


def main(arguments: list[str]) -> int:
    """Parse, and fetch."""
    parser = verb_parser("prefetch", PREFETCH_HELP)
    parser.add_argument("overrides", nargs="*", help="the config to prepare, as for run, e.g. model=sd14")
    return prefetch(parser.parse_args(arguments).overrides)


def prefetch(overrides: Sequence[str], console: Console | None = None) -> int:
    """Download the model and the weights of every metric of a config.

    Returns:
        0 if all of it is here now, 1 if something could not be had (each is named).
    """
    console = console or Console()
    config = compose(overrides)
    failed = 0
    for name, present_now, get in [
        (
            f"model {config.model.path}",
            model_here(config.model.path, config.model.revision),
            lambda: fetch(config.model.path, config.model.revision),
        ),
        *((f"metric {metric.id}", metric.unavailable() is None, metric.prefetch) for metric in metrics_asked(config)),
    ]:
        if present_now:
            console.print(f"here      {name}", highlight=False)
            continue
        console.print(f"getting   {name} ...", highlight=False)
        try:
            get()
        except (UserError, OSError, ImportError) as error:
            failed += 1
            console.print(f"[red]failed[/]    {name}: {error}", highlight=False)
    return 1 if failed else 0
