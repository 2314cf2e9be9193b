"""``erasebench tune``: look for the setting of an eraser with the best objective, by Optuna.

Each trial is a run like any other: its images and scores stay in the store, and a setting that was tried costs nothing
again. The trials are kept in the store, too, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from erasebench.commands import VERBS
from erasebench.config.build import places
from erasebench.config.compose import compose, spelt_out
from erasebench.config.overrides import parse_overrides
from erasebench.edits.label import UNEDITED
from erasebench.errors import UserError
from erasebench.files import check_writable
from erasebench.progress import say
from erasebench.runs.sweep import command, literal, varied
from erasebench.tables.objective import objective_value, parse_objective

TRIALS, OBJECTIVE = 20, "retained - erased"
SETTINGS = {
    "objective": f"what to make as large as possible, of columns of the table and numbers (default: {OBJECTIVE})",
    "trials": f"how many settings to try in all, those of an earlier call included (default: {TRIALS})",
}

TUNE_EXAMPLES = """\
  erasebench tune sweep=cure_alpha task=artist trials=6
  erasebench tune method=cure 'method.alpha=tag(log, interval(0.5, 20))' task=artist
  erasebench tune method=rece method.epochs=1,3,5 objective='judge.retained - 2 * judge.erased'

Rates are between 0 and 1. Each trial is a run; the same command goes on where it was stopped."""


def main(arguments: list[str]) -> int:
    """Help, or the search."""
    if arguments and not {"-h", "--help"} & set(arguments):
        tune(arguments)
        return 0
    print("usage: erasebench tune VARIED [objective=EXPRESSION] [trials=NUMBER] [overrides as for run]\n")
    print(f"{VERBS['tune'][0].upper()}{VERBS['tune'][1:]}.\n")
    print("\n".join(f"  {name + '=':<12} {text}" for name, text in SETTINGS.items()))
    print(f"\n{TUNE_EXAMPLES}")
    return 0


def tune(arguments: Sequence[str], console: Console | None = None) -> pd.DataFrame:
    """Try settings, and print the best and the command that runs it alone.

    Args:
        arguments: overrides as for ``erasebench run``; what they vary (``sweep=NAME``, ``method.alpha=1,2``, or
            ``'method.alpha=tag(log, interval(0.5, 20))'``) is the space to search. Beside them :data:`SETTINGS`.
        console: where to print.

    Returns:
        A row a trial, the best first: the settings, ``value``, ``run`` and ``eraser`` (its label).

    Raises:
        UserError: Optuna is missing, nothing is varied, or the objective is none; before any work but the last, which
            the first trial tells.
    """
    console = console or Console()
    if find_spec("optuna") is None:
        raise UserError("tune: the package optuna is missing; run: pip install optuna")
    given = {name: value for name, _, value in (text.partition("=") for text in arguments) if name in SETTINGS}
    objective = given.get("objective", OBJECTIVE)
    parse_objective(objective)
    number = given.get("trials", str(TRIALS))
    if not number.isdecimal() or int(number) < 1:
        raise UserError(f"trials={number}: write a whole number, 1 or more")
    overrides = spelt_out([text for text in arguments if text.partition("=")[0] not in SETTINGS])
    space, fixed = _space([*varied(overrides), *overrides])
    config = compose([*fixed, *(f"{name}={literal(_first(sweep))}" for name, sweep in space.items())])
    erasers = list(places(config.method, "method", "_target_"))
    if len(erasers) != 1:
        raise UserError(f"tune: works on one eraser, not on {', '.join(erasers)}; choose one, e.g. method=cure")
    if config.dry_run:
        raise UserError("tune: dry_run has no numbers; leave it out")
    check_writable(Path(config.store.dir))
    # These load Optuna, pandas and torch, which refusing a command line must not wait for.
    from erasebench.runs.trials import Trials
    from erasebench.tables.tabulate import tabulate_sweep

    trials = Trials(Path(config.store.dir) / "tune", _study_name(config, space, objective))
    say(
        console,
        f"tuning {', '.join(space)} for the largest {objective}: {len(trials.finished)} of {number} trials are there",
    )
    more = True
    while more:
        with trials.next(int(number)) as trial:
            more = trial is not None
            if more:
                trials.study.tell(trial, _value(trial, space, fixed, objective, console))
    if elsewhere := len(trials.running):
        say(console, f"{elsewhere} more are under way in other processes")
    rows = [trial.params | {"value": trial.value} | trial.user_attrs for trial in trials.finished]
    if not rows:
        raise UserError("tune: no trial is finished yet; give the command again when the other processes are done")
    tried = pd.DataFrame(rows).sort_values("value", ascending=False, kind="stable", ignore_index=True)
    runs = Path(config.store.dir) / "runs"
    if tried.run.nunique() > 1:
        tabulate_sweep([runs / name for name in dict.fromkeys(tried.run)], console, tuple(config.plugins))
    best = tried.iloc[0]
    # Trials of an older version do not say which metrics they took.
    meant = best["objective"] if "objective" in tried and isinstance(best["objective"], str) else objective
    say(console, f"best of {len(tried)} trials: {meant} = {best.value:.4f}{_of_others(best)}")
    again = command([runs / best.run], best.eraser)
    say(console, f"  {again or best.run}")
    return tried


def _of_others(best: pd.Series) -> str:
    """The objective of a trial on the prompts that it was not chosen by; or that there are none."""
    if isinstance(other := best.get("other"), float) and not math.isnan(other):
        return f" on the prompts it was chosen by, {other:.4f} on the other half"
    return " (on the prompts it was chosen by, which flatters it)"


def _study_name(config: DictConfig, space: Mapping[str, Any], objective: str) -> str:
    """One name for one search: what is measured, what is varied and how, and the objective."""
    from erasebench.runs.plan import NOT_IDENTITY

    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    for key in NOT_IDENTITY:
        values.pop(key, None)
    values["method"] = {key: value for key, value in values["method"].items() if f"method.{key}" not in space}
    text = json.dumps(
        [values, {name: str(sweep) for name, sweep in space.items()}, objective, "on one half of the prompts"],
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _value(trial: Any, space: Mapping[str, Any], fixed: Sequence[str], objective: str, console: Console) -> float:
    """One run, and its objective. What stops it leaves the trial to be taken up again."""
    from erasebench.run import run
    from erasebench.store import Store
    from erasebench.tables.halves import measured_halves

    values = {name: _suggest(trial, name, sweep) for name, sweep in space.items()}
    chosen = [f"{name}={literal(value)}" for name, value in values.items()]
    say(console, f"trial {trial.number}: {' '.join(chosen)}")
    sys.argv = ["erasebench run", *chosen, *fixed]  # what the run's manifest says: the command of this trial alone
    config = compose([*chosen, *fixed])
    finished = run(config, console)
    assert finished is not None  # no dry run
    halves = measured_halves([finished.folder], Store(config.store.dir), plugins=tuple(config.plugins))
    value, meant = objective_value(objective, halves[0] if halves else finished.measured)
    if halves:
        trial.set_user_attr("other", objective_value(objective, halves[1])[0])
    trial.set_user_attr("run", finished.folder.name)
    trial.set_user_attr("eraser", next(name for name in finished.measured.eraser if name != UNEDITED))
    trial.set_user_attr("objective", meant)
    say(console, f"trial {trial.number}: {meant} = {value:.4f}")
    return value


def _space(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """What is varied, and the overrides that are not.

    Raises:
        UserError: nothing is varied, or something besides the eraser's settings.
    """
    space: dict[str, Any] = {}
    fixed: list[str] = []
    for override, text in zip(parse_overrides(overrides), overrides, strict=True):
        if override.is_sweep_override():
            name = override.get_key_element()
            if not name.startswith("method."):
                raise UserError(f"tune {text}: only settings of the eraser (method.…) can be varied")
            space[name] = override.value()
        else:
            fixed.append(text)
    if not space:
        raise UserError("tune: nothing is varied; choose a sweep (sweep=cure_alpha), or write method.alpha=1,2,5")
    return space, fixed


def _first(sweep: Any) -> Any:
    """One value of a sweep, to try whether it composes."""
    if isinstance(sweep, ChoiceSweep):
        return _unquoted(sweep.list[0])
    return sweep.start


def _suggest(trial: Any, name: str, sweep: Any) -> Any:
    """Ask Optuna for a value: of a list, a whole or broken number of a range, or any of an interval."""
    if isinstance(sweep, ChoiceSweep):
        return trial.suggest_categorical(name, [_unquoted(value) for value in sweep.list])
    log = "log" in sweep.tags
    if isinstance(sweep, RangeSweep):
        last = sweep.stop - sweep.step if isinstance(sweep.step, int) else sweep.stop
        suggest = trial.suggest_int if isinstance(sweep.start, int) else trial.suggest_float
        return suggest(name, sweep.start, last, step=sweep.step)
    assert isinstance(sweep, IntervalSweep)
    return trial.suggest_float(name, sweep.start, sweep.end, log=log)


def _unquoted(value: Any) -> Any:
    """A value of a list as Python has it; a quoted one is its text."""
    return getattr(value, "text", value)
