"""``erasebench prefetch``: get all that a config needs, for a machine without a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omegaconf import DictConfig
from rich.console import Console

from erasebench.commands import verb_parser
from erasebench.commands.doctor import erasers_asked, metrics_asked
from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.models.load import fetch, model_here
from erasebench.progress import say
from erasebench.prompts.choose import fetch_prompts, prompts_here
from erasebench.prompts.sources import from_the_cache_alone
from erasebench.runs.tasks import task_groups
from erasebench.scores.metric import Metric

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
    """Download the model, the prompts, the files of the erasers and the weights of every metric of a config.

    Returns:
        0 if all of it is here now, 1 if something could not be had (each is named).
    """
    console = console or Console()
    config = compose(overrides)
    model, failed = config.model, 0
    for name, is_here, get in [
        (
            f"model {model.path}",
            lambda: model_here(model.path, model.revision, model.variant),
            lambda: fetch(model.path, model.revision, model.variant),
        ),
        (
            f"prompts {config.prompts.source}",
            lambda: prompts_here(config.prompts),
            lambda: fetch_prompts(config.prompts),
        ),
        ("files that erasers read", lambda: not _wrong_with_erasers(config), lambda: _fetch_files_of_erasers(config)),
        *((f"metric {metric.id}", _has_weights(metric), metric.prefetch) for metric in metrics_asked(config)),
    ]:
        try:
            if is_here():
                say(console, f"here      {name}")
                continue
            say(console, f"getting   {name} ...")
            get()
        except (UserError, OSError, ImportError) as error:
            failed += 1
            say(console, f"   {name}: {error}", "failed", "red")
    return 1 if failed else 0


def _wrong_with_erasers(config: DictConfig) -> list[UserError]:
    with from_the_cache_alone():
        return list(erasers_asked(config, task_groups(config)))


def _fetch_files_of_erasers(config: DictConfig) -> None:
    for error in erasers_asked(config, task_groups(config)):
        raise error


def _has_weights(metric: Metric) -> Callable[[], bool]:
    return lambda: metric.unavailable() is None
