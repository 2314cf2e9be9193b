"""``erasebench tune``: look for the setting of an eraser with the best objective, by Optuna.

Each trial is a run like any other: its images and scores stay in the store, and a setting that was tried costs nothing
again. The trials are kept in the store, too, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import operator
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from erasebench.commands import VERBS
from erasebench.config.build import places
from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.runs.sweep import command, literal, varied
from erasebench.tables import columns
from erasebench.tables.measure import UNEDITED

TRIALS, OBJECTIVE = 20, "retained - erased"
SETTINGS = {
    "objective": f"what to make as large as possible, of columns of the table and numbers (default: {OBJECTIVE})",
    "trials": f"how many settings to try in all, those of an earlier call included (default: {TRIALS})",
}
OPERATORS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.USub: operator.neg, ast.UAdd: operator.pos,
}  # fmt: skip


TUNE_EXAMPLES = """\
  erasebench tune sweep=cure_alpha task=object trials=6
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
    _parsed(objective)
    trials = given.get("trials", str(TRIALS))
    if not trials.isdecimal() or int(trials) < 1:
        raise UserError(f"trials={trials}: write a whole number, 1 or more")
    overrides = [text for text in arguments if text.partition("=")[0] not in SETTINGS]
    space, fixed = _space([*varied(overrides), *overrides])
    config = compose([*fixed, *(f"{name}={literal(_first(sweep))}" for name, sweep in space.items())])
    erasers = list(places(config.method, "method", "_target_"))
    if len(erasers) != 1:
        raise UserError(f"tune: works on one eraser, not on {', '.join(erasers)}; choose one, e.g. method=cure")

    import optuna

    from erasebench.tables.tabulate import tabulate_sweep

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = Path(config.store.dir) / "tune"
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=_study_name(config, space, objective),
        storage=f"sqlite:///{folder / 'trials.sqlite'}",
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=0),
    )
    _take_up(study)
    there = len(_finished(study))
    console.print(
        f"tuning {', '.join(space)} for the largest {objective}: {there} of {trials} trials are there",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    while len(_finished(study)) < int(trials):
        _trial(study, space, fixed, objective, console)
    rows = [trial.params | {"value": trial.value} | trial.user_attrs for trial in _finished(study)]
    found = pd.DataFrame(rows).sort_values("value", ascending=False, kind="stable", ignore_index=True)
    runs = Path(config.store.dir) / "runs"
    if found.run.nunique() > 1:
        tabulate_sweep([runs / name for name in dict.fromkeys(found.run)], console, tuple(config.plugins))
    best = found.iloc[0]
    console.print(f"best of {len(found)} trials: {objective} = {best.value:.4f}", markup=False, highlight=False)
    again = command([runs / best.run], best.eraser, plugins=tuple(config.plugins))
    console.print(f"  {again or best.run}", markup=False, highlight=False, soft_wrap=True)
    return found


def _study_name(config: DictConfig, space: Mapping[str, Any], objective: str) -> str:
    """One name for one search: what is measured, what is varied and how, and the objective."""
    from erasebench.runs.plan import NOT_IDENTITY

    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    for key in NOT_IDENTITY:
        values.pop(key, None)
    values["method"] = {key: value for key, value in values["method"].items() if f"method.{key}" not in space}
    text = json.dumps([values, {name: str(sweep) for name, sweep in space.items()}, objective], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _trial(study: Any, space: dict[str, Any], fixed: Sequence[str], objective: str, console: Console) -> None:
    """One run, told to the study. What stops it leaves the trial to be taken up again."""
    from erasebench.run import run

    trial = study.ask()
    values = {name: _suggest(trial, name, sweep) for name, sweep in space.items()}
    chosen = [f"{name}={literal(value)}" for name, value in values.items()]
    console.print(f"trial {trial.number}: {' '.join(chosen)}", markup=False, highlight=False)
    sys.argv = ["erasebench run", *chosen, *fixed]  # what the run's manifest says: the command of this trial alone
    finished = run(compose([*chosen, *fixed]), console)
    if finished is None:
        raise UserError("tune: dry_run has no numbers; leave it out")
    value = score(objective, finished.measured)
    trial.set_user_attr("run", finished.folder.name)
    trial.set_user_attr("eraser", next(name for name in finished.measured.eraser if name != UNEDITED))
    study.tell(trial, value)
    console.print(f"trial {trial.number}: {objective} = {value:.4f}", markup=False, highlight=False)


def _finished(study: Any) -> list[Any]:
    return [trial for trial in study.trials if trial.state.name == "COMPLETE"]


def _take_up(study: Any) -> None:
    """Put the settings of trials that were stopped first in line: most of their images may be there."""
    for trial in study.trials:
        if trial.state.name == "RUNNING":
            study.tell(trial.number, state=type(trial.state).FAIL)
            if trial.params:
                study.enqueue_trial(trial.params, skip_if_exists=True)


def score(objective: str, measured: pd.DataFrame) -> float:
    """The objective of one run: the mean over its kinds, of its one eraser.

    Raises:
        UserError: a column that the table does not have, or that has no number.
    """
    values = []
    for kind in dict.fromkeys(measured.task_kind):
        numbers = {}
        for name in _names(_parsed(objective)):
            column = columns.cells(measured, kind, columns.find(name, measured, "objective"))
            found = column.value[column.index != UNEDITED]
            if not len(found) or math.isnan(found.iloc[0]):
                reasons = "; ".join(column.reason[column.reason != ""].unique())
                raise UserError(f"objective {name}: no number for kind {kind}{': ' if reasons else ''}{reasons}")
            numbers[name] = float(found.iloc[0])
        values.append(_evaluate(_parsed(objective), numbers))
    return sum(values) / len(values)


def _parsed(objective: str) -> ast.expr:
    """The objective as a tree of sums and products of columns and numbers; nothing else is ever evaluated.

    Raises:
        UserError: it is anything else.
    """
    try:
        tree = ast.parse(objective.strip(), mode="eval").body
        known = _evaluate(tree, dict.fromkeys(_names(tree), 1.0))
    except ZeroDivisionError:
        return tree
    except (SyntaxError, TypeError, ValueError, RecursionError):
        known = math.nan
    if math.isnan(known) or not _names(tree):
        raise UserError(
            f"objective={objective!r}: write columns, numbers, + - * / and brackets, "
            'e.g. objective="judge.retained - judge.erased"'
        )
    return tree


def _names(tree: ast.expr) -> list[str]:
    """The columns of an objective: ``judge.erased`` is read as an attribute of a name."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.append(f"{node.value.id}.{node.attr}")
    owners = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found += [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in owners]
    return list(dict.fromkeys(found))


def _evaluate(node: ast.expr, numbers: dict[str, float]) -> float:
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_evaluate(node.left, numbers), _evaluate(node.right, numbers))
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_evaluate(node.operand, numbers))
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return numbers[f"{node.value.id}.{node.attr}"]
    if isinstance(node, ast.Name):
        return numbers[node.id]
    raise ValueError(ast.dump(node))


def _space(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """What is varied, and the overrides that are not.

    Raises:
        UserError: nothing is varied, or something besides the eraser's settings.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UserError(f"{error}".splitlines()[0] + " (write key=value)") from error
    space: dict[str, Any] = {}
    fixed: list[str] = []
    for override, text in zip(parsed, overrides, strict=True):
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
