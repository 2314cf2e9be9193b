"""How well the judge recognises what the embedded model draws, unedited: the ground under every number of it.

    erasebench tiny evaluate

Fresh prompts (the builtin templates, other seeds than the main job's) of all four kinds, the sampler of
``protocol=embedded``. For each kind: how often its head sees what was asked for; for each head: how often it sees something in images of
the other kinds, where there is nothing for it to see.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from erasebench.config.compose import compose
from erasebench.images.generate import generate
from erasebench.images.scheduler import scheduler_identity
from erasebench.models.load import Model, embedded_folder, load_model
from erasebench.progress import progress
from erasebench.prompts.builtin import builtin
from erasebench.recipe import Recipe
from erasebench.runs.tasks import task_groups
from erasebench.scores.estimate import Estimate
from erasebench.scores.rates import wilson
from erasebench.store import Store
from erasebench.tiny import judge as judges
from erasebench.tiny.names import HEAD_OF_KIND

FRESH_SEED = 1
"""Seed of the prompt sets; the main job's is 0."""


@dataclass(frozen=True)
class Evaluation:
    """Accuracy by kind, and false alarms by head (over the prompts of all other kinds)."""

    accuracy: dict[str, Estimate]
    false_alarms: dict[str, Estimate]
    answers: pd.DataFrame


def evaluate(
    model: Model, store: Store, per_kind: int, overrides: Sequence[str] = (), batch_size: int = 32
) -> Evaluation:
    """Draw and judge at least ``per_kind`` images a kind.

    Args:
        model: the embedded model, loaded.
        store: where the images are kept.
        per_kind: prompts of each kind, at least.
        overrides: of the config, e.g. ``protocol.guidance=5``.
        batch_size: images at a time.
    """
    config = compose(["model=embedded", *overrides])
    protocol = config.protocol
    scheduler, settings = scheduler_identity(model.pipe, protocol.scheduler, dict(protocol.scheduler_config))
    frames = []
    for kind, group in task_groups(config).items():
        concepts = [concept for concept in group.concepts if concept.kind == kind]
        count = math.ceil(per_kind / len(concepts))
        frames.append(builtin(kind, concepts, per_concept=count, general=0, seed=FRESH_SEED).rows)
    rows = pd.concat(frames, ignore_index=True)
    recipes = [
        Recipe(
            model=model.name, revision=model.revision, edit="", prompt=row.prompt, negative_prompt="", seed=int(row.seed),
            steps=protocol.steps, guidance=protocol.guidance, width=model.size, height=model.size,
            scheduler=scheduler, scheduler_config=settings, dtype=model.dtype,
        )
        for row in rows.itertuples()
    ]  # fmt: skip
    missing = len(store.missing(recipe.key for recipe in recipes))
    with progress("draw", missing) as advance:
        generate(model, recipes, store, batch_size, advance)
    network = judges.read_judge(embedded_folder() / "judge")
    parts = []
    for start in range(0, len(recipes), 256):
        images = [np.asarray(store.image(recipe.key)) for recipe in recipes[start : start + 256]]
        with torch.inference_mode():
            chances = network.chances(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
        parts.append(
            pd.DataFrame(
                {
                    head: [judges.answer(row, names)[0] for row in chances[head].tolist()]
                    for head, names in network.heads.items()
                }
            )
        )
    answers = pd.concat([rows, pd.concat(parts, ignore_index=True)], axis=1)
    answers["key"] = [recipe.key for recipe in recipes]
    accuracy, alarms = {}, {}
    for kind, head in HEAD_OF_KIND.items():
        own = answers[answers.kind == kind]
        others = answers[answers.kind != kind]
        accuracy[kind] = wilson(int(recognised(own, head).sum()), len(own))
        alarms[head] = wilson(int((others[head] != judges.NOTHING_SEEN).sum()), len(others))
    return Evaluation(accuracy, alarms, answers)


def recognised(answers: pd.DataFrame, head: str) -> pd.Series:
    """In which images a head sees their label, among what else it sees: booleans."""
    pairs = zip(answers.label, answers[head], strict=True)
    return pd.Series([name in seen.split(judges.AND) for name, seen in pairs], index=answers.index)


def main(argv: Sequence[str] | None = None) -> int:
    """``erasebench tiny evaluate``."""
    parser = argparse.ArgumentParser(
        "erasebench tiny evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="of the config, e.g. protocol.guidance=5 protocol.steps=25")
    parser.add_argument("--per-kind", type=int, default=200, help="prompts of each kind, at least (default 200)")
    parser.add_argument("--store", type=Path, default=Path("results"), help="the results folder (default: results)")
    parser.add_argument("--wrong", action="store_true", help="list what was not recognised")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for how far the judge's chances can be trusted, and how near words are to each other",
    )
    options = parser.parse_args(argv)
    model = load_model("embedded", name="embedded")
    result = evaluate(model, Store(options.store, mends=True), options.per_kind, options.overrides)
    console = Console()
    table = Table(title="the unedited embedded model, judged", title_justify="left")
    for head in ("kind", "recognised %", "n", "head", "false alarms %", "n "):
        table.add_column(head, justify="left" if head in ("kind", "head") else "right")
    for (kind, seen), (head, alarm) in zip(result.accuracy.items(), result.false_alarms.items(), strict=True):
        table.add_row(kind, _percent(seen), str(seen.n), head, _percent(alarm), str(alarm.n))
    console.print(table)
    if options.out:
        from erasebench.tiny.calibration import write_calibration  # which draws, and loads what draws

        judge = judges.read_judge(embedded_folder() / "judge")
        for path in write_calibration(judge, model, options.out):
            console.print(str(path), highlight=False)
    if options.wrong:
        for kind, head in HEAD_OF_KIND.items():
            own = result.answers[(result.answers.kind == kind)]
            for row in own[~recognised(own, head)].to_dict("records"):
                console.print(
                    f"{row['key'][:12]} {row['prompt']!r}: {head} seen as {row[head]}", markup=False, highlight=False
                )
    return 0


def _percent(estimate: Estimate) -> str:
    return rf"{100 * estimate.value:.1f} \[{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
