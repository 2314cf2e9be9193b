"""``erasebench prefetch``: get all that a config needs, for a machine without a network."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from erasebench.commands import verb_parser
from erasebench.commands.doctor import erasers_asked, metrics_asked
from erasebench.config.compose import compose, compose_with_hydra, spelt_out
from erasebench.errors import UserError
from erasebench.models.load import fetch, model_here
from erasebench.progress import say
from erasebench.prompts.choose import fetch_prompts, prompts_here
from erasebench.prompts.released_files import ReleasedFile, fetch_released, released_files
from erasebench.prompts.sources import from_the_cache_alone
from erasebench.runs.sweep import literal
from erasebench.runs.tasks import task_groups
from erasebench.scores.metric import Metric

PREFETCH_HELP = """\
examples:
  erasebench prefetch model=sd14                       the model and the weights of its metrics
  erasebench prefetch model=sd14 prompts=i2p           the prompts, too
  erasebench prefetch experiment=cure_objects          model, metrics and prompt file of a paper's table
Give the overrides of the run. What is here is not fetched again. A prompt file that a paper released on GitHub is put into
STORE/prompts, if what arrives is that file; else its repository, path, commit and hash are printed. Its licence is its
repository's. The exit status is 1 if something could not be had.
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
    config, hydra_node = compose_with_hydra(spelt_out(overrides))
    model, failed, refused = config.model, 0, set[str]()
    prompts = str(hydra_node.runtime.choices.get("prompts"))
    released = released_files().get(prompts) if not config.prompts.source else None
    if released is not None:
        overrides, fetched = _with_released(released, config, overrides, console)
        if fetched:
            config = compose(overrides)
        else:
            failed, refused = 1, {_refusal(config)}
    for name, is_here, get in [
        (
            f"model {model.path}",
            lambda: model_here(model.path, model.revision, model.variant),
            lambda: fetch(model.path, model.revision, model.variant),
        ),
        *(
            [
                (
                    f"prompts {config.prompts.source or prompts}",
                    lambda: prompts_here(config.prompts),
                    lambda: fetch_prompts(config.prompts),
                )
            ]
            if released is None
            else []
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
            if str(error) not in refused:
                failed += 1
                say(console, f"   {name}: {error}", "failed", "red")
    if released is not None and not refused:
        say(console, shlex.join(["erasebench", "run", *overrides]), "run it with:")
    return 1 if failed else 0


def _with_released(
    released: ReleasedFile, config: DictConfig, overrides: Sequence[str], console: Console
) -> tuple[Sequence[str], bool]:
    """The overrides with the place of a released prompt file, fetched if need be; and whether it is there."""
    folder, name = Path(config.store.dir) / "prompts", f"prompts {released.prompts}"
    here = (folder / f"{released.prompts}.csv").exists()
    say(console, f"{'here' if here else 'getting':<9} {name}{'' if here else ' ...'}")
    try:
        path = fetch_released(released, folder)
    except UserError as error:
        say(console, f"   {name}: {error}", "failed", "red")
        return overrides, False
    plain = re.fullmatch(r"[\w./-]+", str(path))
    return [*overrides, f"prompts.source={path if plain else literal(str(path))}"], True


def _refusal(config: DictConfig) -> str:
    """What whoever reads the prompts of a config without a file says of it, too."""
    try:
        prompts_here(config.prompts)
    except UserError as error:
        return str(error)
    return ""


def _wrong_with_erasers(config: DictConfig) -> list[UserError]:
    with from_the_cache_alone():
        return list(erasers_asked(config, task_groups(config)))


def _fetch_files_of_erasers(config: DictConfig) -> None:
    for error in erasers_asked(config, task_groups(config)):
        raise error


def _has_weights(metric: Metric) -> Callable[[], bool]:
    return lambda: metric.unavailable() is None
