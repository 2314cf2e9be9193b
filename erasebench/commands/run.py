"""``erasebench run``: the Hydra app around :func:`erasebench.run.run`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

from erasebench.config.choices import CONFIG_MODULE
from erasebench.config.compose import at_scale, compose
from erasebench.errors import UserError
from erasebench.runs.sweep import varied
from erasebench.runs.tasks import task_groups

_finished: list[Path] = []
"""Folders of the runs that this process has finished: a sweep's jobs, tabulated together at its end."""

_problems: list[str] = []
"""What went wrong in them, though they went on to their tables."""


@hydra.main(config_path=f"pkg://{CONFIG_MODULE}", config_name="config", version_base="1.3")
def _app(config: DictConfig) -> None:
    from erasebench.run import run

    _tell_own_command()
    try:
        finished = run(config)
    except UserError as error:
        # Hydra would print a traceback.
        print(f"erasebench run: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    if finished is not None:
        _finished.append(finished.folder)
        _problems.extend(finished.problems)


def main(arguments: list[str]) -> int:
    """Check the overrides, run the app, and tabulate a sweep; returns the exit status, 1 if a part failed.

    Raises:
        UserError: an override that does not fit, before anything heavy is loaded.
    """
    overrides = overrides_in(arguments)
    if not any(text in arguments for text in ("--help", "-h", "--hydra-help", "--info")) and not _own_configs(
        arguments
    ):
        for choice in _every_choice([*varied(overrides), *overrides]):
            task_groups(compose(choice))
        if (spelt_out := at_scale(overrides)) != overrides:
            arguments = [*(text for text in arguments if text not in overrides), *spelt_out]
    sys.argv = ["erasebench run", *arguments]
    _finished.clear()
    _problems.clear()
    _app()
    folders = list(dict.fromkeys(_finished))
    if len(folders) > 1:
        from erasebench.tables.tabulate import tabulate_sweep

        tabulate_sweep(folders)
    return 1 if _problems else 0


def _tell_own_command() -> None:
    """In a job of a sweep, make the command line that of this job alone: a run's manifest says how to make it again."""
    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        own = [text for text in hydra_config.overrides.hydra if not text.startswith("hydra.mode=")]
        sys.argv = [sys.argv[0], *own, *hydra_config.overrides.task]


def overrides_in(arguments: Sequence[str]) -> list[str]:
    """The arguments that are overrides: no options of Hydra, nor the values of those (``--cfg job``)."""
    return [
        text
        for before, text in pairwise(["", *arguments])
        if not text.startswith("-") and before not in ("--cfg", "-c", "--package", "-p")
    ]


def _own_configs(arguments: Sequence[str]) -> bool:
    """Whether the user adds a config folder of their own, which only the app itself can read."""
    marks = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "hydra.searchpath")
    return any(text.startswith(marks) for text in arguments)


def _every_choice(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides with each value of a sweep tried once (``method=cure,uce`` is two choices)."""
    plain = [text for text in overrides if not text.startswith("hydra.")]
    try:
        parsed = OverridesParser.create().parse_overrides(plain)
    except hydra.errors.HydraException as error:
        raise UserError(
            f"{error}".splitlines()[0] + " (write key=value; quote values with spaces or brackets)"
        ) from error
    lists = [list(entry.sweep_string_iterator()) if entry.is_sweep_override() else [None] for entry in parsed]
    choices = []
    for index in range(max((len(values) for values in lists), default=1)):
        choice = []
        for text, entry, values in zip(plain, parsed, lists, strict=True):
            value = values[min(index, len(values) - 1)]
            choice.append(text if value is None else f"{entry.get_key_element()}={value}")
        choices.append(choice)
    return choices
