"""``erasebench run``: the Hydra app around :func:`erasebench.run.run`, for one run or a sweep of runs.

The jobs of a sweep may run in other processes, whatever launcher Hydra has. So each leaves a note in the sweep's
folder of what became of it, and the end of a sweep reads these.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from erasebench.config.choices import CONFIG_MODULE
from erasebench.config.compose import compose_with_hydra, spelt_out
from erasebench.errors import UserError
from erasebench.files import check_writable, write_json
from erasebench.runs.sweep import choices, literal, varied
from erasebench.runs.tasks import task_groups

OPTIONS_WITH_VALUE = (
    "--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn",
)  # fmt: skip
"""Options of Hydra that take the word behind them."""

ONLY_SHOWS = ("--help", "-h", "--hydra-help", "--info", "-i", "--version", "--shell-completion", "-sc")
"""Options that print something of Hydra's instead of running."""


@dataclass(frozen=True)
class JobNote:
    """What became of one job of a sweep.

    Attributes:
        number: from 0.
        overrides: of this job.
        folder: of its run, if it finished one (a dry run has none).
        error: why it failed, or why a part of it did though it went on; empty if nothing failed.
    """

    number: int
    overrides: list[str]
    folder: str | None = None
    error: str = ""


@hydra.main(config_path=f"pkg://{CONFIG_MODULE}", config_name="config", version_base="1.3")
def _app(config: DictConfig) -> None:
    """One job. In a sweep what stops it is noted and the next one runs; alone it ends the command."""
    from erasebench.run import run

    hydra_config = HydraConfig.get()
    if hydra_config.mode != RunMode.MULTIRUN:
        try:
            finished = run(config)
        except UserError as error:
            # Hydra would print a traceback.
            print(f"erasebench run: {error}", file=sys.stderr)
            raise SystemExit(2) from error
        if finished is not None and finished.problems:
            raise SystemExit(1)
        return
    overrides = list(hydra_config.overrides.task)
    # A run's manifest says how to make it again: the command of this job alone.
    own = [text for text in hydra_config.overrides.hydra if not text.startswith(("hydra.mode=", "hydra.sweep.dir="))]
    sys.argv = ["erasebench run", *own, *overrides]
    folder, failure = None, ""
    try:
        if finished := run(config):
            folder, failure = str(finished.folder.resolve()), "; ".join(finished.problems)
    except UserError as refusal:
        failure = str(refusal)
    except Exception as fault:  # any: it is printed and noted, and the other jobs are not its fault
        traceback.print_exc()
        failure = f"{type(fault).__name__}: {fault}"
    if failure:
        print(f"erasebench run: job {hydra_config.job.num} ({' '.join(overrides)}): {failure}", file=sys.stderr)
    note = JobNote(hydra_config.job.num, overrides, folder, failure)
    write_json(_note_path(Path(hydra_config.sweep.dir), note.number), asdict(note))


def main(arguments: list[str]) -> int:
    """Check the overrides, run the app, and tabulate a sweep.

    Returns:
        0; 1 if a job of a sweep failed.

    Raises:
        UserError: an override that does not fit, or a folder that cannot be written to, before anything heavy is loaded.
    """
    overrides = overrides_in(arguments)
    options = [text for text in arguments if text not in overrides]
    if any(text.startswith(("--config-path", "-cp", "--config-name", "-cn", *ONLY_SHOWS)) for text in options):
        return _hydra(arguments)  # nothing is run, or another tree is read, which only the app can
    searched = [
        f"hydra.searchpath=[{literal(f'file://{Path(folder).resolve()}')}]" for folder in config_folders(options)
    ]
    spelt = spelt_out([*searched, *overrides])[len(searched) :]
    every = choices([*searched, *varied([*searched, *spelt]), *spelt])
    composed = [compose_with_hydra(choice) for choice in every.examples]
    for config, _ in composed:
        task_groups(config)
    hydra_node = composed[0][1]
    if any(text in options for text in ("--cfg", "-c")):
        return _hydra([*options, *spelt])
    if not ({"-m", "--multirun"} & set(options) or hydra_node.mode == RunMode.MULTIRUN):
        for text in every.varying:
            raise UserError(f"{text}: several values are a sweep; add -m for a run of each")
        return _hydra([*options, *spelt])
    configs = [config for config, _ in composed]
    name = next((text for text in spelt if text.startswith("name=") and text not in every.varying), None)
    if name and every.number > 1:
        raise UserError(f"{name}: a name is of one run, and this sweep has {every.number}; leave it out")
    return _sweep([*options, *spelt], every.number, configs, Path(hydra_node.sweep.dir))


def _hydra(arguments: Sequence[str]) -> int:
    """Run the app; returns the exit status. What failed has been said."""
    sys.argv = ["erasebench run", *arguments]
    try:
        _app()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _sweep(arguments: Sequence[str], number: int, configs: Sequence[DictConfig], folder: Path) -> int:
    """Run all jobs, say which failed, and put those that finished into one table."""
    dry = all(config.dry_run for config in configs)
    if dry:  # that needs no place to write to
        folder = Path(tempfile.mkdtemp(prefix="erasebench-"))
    else:
        for place in dict.fromkeys([*(Path(config.store.dir) for config in configs if not config.dry_run), folder]):
            check_writable(place)
    folder = folder.resolve()
    for earlier in folder.glob("job-*.json"):  # of another sweep in a folder that the user gave
        earlier.unlink()
    status = _hydra([*arguments, f"hydra.sweep.dir={literal(str(folder))}"])
    noted = [JobNote(**json.loads(path.read_text("utf-8"))) for path in folder.glob("job-*.json")]
    notes = sorted(noted, key=lambda note: note.number)
    if dry:
        shutil.rmtree(folder, ignore_errors=True)
    here = Path.cwd()
    paths = [Path(note.folder) for note in notes if note.folder]
    runs = list(dict.fromkeys(path.relative_to(here) if path.is_relative_to(here) else path for path in paths))
    if len(runs) > 1:
        from erasebench.tables.tabulate import tabulate_sweep

        allowed = dict.fromkeys(name for config in configs for name in config.plugins)
        tabulate_sweep(runs, plugins=list(allowed))
    failed = [note for note in notes if note.error]
    if len(notes) < number:
        print(
            f"{number - len(notes)} of {number} jobs left no word; what their launcher says is in {folder}",
            file=sys.stderr,
        )
    if failed:
        print(f"{len(failed)} of {number} jobs failed; the same command makes only what is missing:", file=sys.stderr)
        for note in failed:
            print(f"  job {note.number} ({' '.join(note.overrides)}): {note.error}", file=sys.stderr)
    return status or int(bool(failed) or len(notes) < number)


def _note_path(folder: Path, number: int) -> Path:
    return folder / f"job-{number}.json"


def overrides_in(arguments: Sequence[str]) -> list[str]:
    """The arguments that are overrides: no options of Hydra, nor the values of those (``--cfg job``)."""
    return [
        text
        for before, text in pairwise(["", *arguments])
        if not text.startswith("-") and before not in OPTIONS_WITH_VALUE
    ]


def config_folders(options: Sequence[str]) -> list[str]:
    """The folders of config files that the user adds (``--config-dir``)."""
    folders = [text for before, text in pairwise(["", *options]) if before in ("--config-dir", "-cd")]
    return folders + [text.partition("=")[2] for text in options if text.startswith("--config-dir=")]
