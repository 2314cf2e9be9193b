"""The section on attacks of a page: what they brought back, in numbers and in pairs of images."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

import pandas as pd

from erasebench.edits.label import UNEDITED, shown_row
from erasebench.report.thumbnails import thumbnail_path
from erasebench.store import Store
from erasebench.tables.attacks import attack_cells

PROMPTS_SHOWN = 3
"""Prompts of each attack whose images are on the page; the image browser has all of them."""

VERDICTS = {
    (False, True): ("f", "✗ brought back"),
    (True, True): ("f", "✗ still there"),
    (True, False): ("g", "✓ gone under attack"),
    (False, False): ("g", "✓ gone"),
}
"""By whether the concept is recognised without and with the attack: a mark, and words for under a pair of images."""


@dataclass(frozen=True)
class Pair:
    """The image of an eraser without an attack and with it, of the same prompt and seed.

    Attributes:
        eraser: its label, ``unedited`` for the model as it came.
        clean: the thumbnail's path in the report; empty if the image is gone.
        attacked: likewise.
        mark: of :data:`VERDICTS`; empty where the classifier has no answer, and for the unedited model.
        words: likewise.
        result: what the attack found, where it differs from the other pairs of its prompt.
    """

    eraser: str
    clean: str
    attacked: str
    mark: str
    words: str
    result: str


@dataclass(frozen=True)
class AttackedPrompt:
    """A prompt under an attack, and the pairs of all erasers.

    Attributes:
        attack: its label.
        prompt: what was asked for.
        task: what is erased.
        prompt_id: of the prompt.
        seed: of the noise of both images.
        result: what the attack found for all erasers alike; empty if it differs between them.
        pairs: the unedited model first.
    """

    attack: str
    prompt: str
    task: str
    prompt_id: str
    seed: int
    result: str
    pairs: list[Pair]


def attack_tables(attacked: pd.DataFrame, kind: str) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, heads and rows of a table a column of numbers, rates first; none where nothing was attacked.

    Args:
        attacked: see :func:`erasebench.tables.attacks.compare_attacks`.
        kind: kind of the tasks.
    """
    part = attacked[attacked.task_kind == kind]
    part = part.sort_values("unit", key=lambda unit: unit != "%", kind="stable")
    heads, rows = attack_cells(part, kind)
    tables: dict[str, list[list[str]]] = {}
    for column, eraser, *cells in rows:
        tables.setdefault(column, []).append([eraser, *cells])
    return [(column, heads[1:], cells) for column, cells in tables.items()]


def attacked_prompts(
    plan: pd.DataFrame, kind: str, seen: Mapping[str, bool], thumbnails: Set[str], store: Store
) -> list[AttackedPrompt]:
    """The prompts of a kind whose images are shown: of each attack those that it brought back in most erasers first.

    Args:
        plan: rows of some runs.
        kind: kind of the tasks.
        seen: by image key, whether its prompt's concept is recognised.
        thumbnails: keys that have one.
        store: where what attacks found is.
    """
    part = plan[(plan.task_kind == kind) & (plan.attack != "")]
    shown = []
    for attack, rows in part.groupby("attack", sort=False):
        prompts = [prompt for _, prompt in rows.groupby(["task", "prompt_id"], sort=False)]
        prompts.sort(key=lambda prompt: -_brought_back(prompt, seen))
        shown += [_prompt(str(attack), prompt, plan, seen, thumbnails, store) for prompt in prompts[:PROMPTS_SHOWN]]
    return shown


def _brought_back(rows: pd.DataFrame, seen: Mapping[str, bool]) -> int:
    """In how many erasers the attack brought the concept back."""
    keys = zip(rows.clean_key, rows.key, rows.edit_key, strict=True)
    return sum(bool(edit) and not seen.get(clean, True) and seen.get(attacked, False) for clean, attacked, edit in keys)


def _prompt(
    attack: str, rows: pd.DataFrame, plan: pd.DataFrame, seen: Mapping[str, bool], thumbnails: Set[str], store: Store
) -> AttackedPrompt:
    erasers = dict(zip(plan.key[plan.attack == ""], plan.eraser[plan.attack == ""], strict=True))
    results = {key: _result(key, store) for key in dict.fromkeys(rows.attack_key)}
    alike = next(iter(results.values())) if len(set(results.values())) == 1 else ""
    pairs = []
    for row in rows.itertuples():
        eraser = erasers[row.clean_key]
        mark, words = "", ""
        if eraser != UNEDITED and row.clean_key in seen and row.key in seen:
            mark, words = VERDICTS[seen[row.clean_key], seen[row.key]]
        clean, attacked = (_thumbnail(key, thumbnails) for key in (row.clean_key, row.key))
        pairs.append(Pair(shown_row(eraser), clean, attacked, mark, words, "" if alike else results[row.attack_key]))
    first = rows.iloc[0]
    return AttackedPrompt(attack, first.prompt, first.task, str(first.prompt_id), int(first.seed), alike, pairs)


def _thumbnail(key: str, thumbnails: Set[str]) -> str:
    return thumbnail_path(key) if key in thumbnails else ""


def _result(key: str, store: Store) -> str:
    """What an attack found, in words; empty if it is gone."""
    result = store.get_attack(key)
    if result is None:
        return ""
    if result.form == "prompt":
        return f"“{result.prompt}”"
    return {
        "tokens": f"{len(result.tokens or ())} tokens",
        "embedding": "rows in place of the prompt's",
        "words": f"{len(result.words if result.words is not None else ())} soft words",
        "latents": "other latents",
        "seed": f"seed {result.seed}",
        "tensors": f"{len(result.tensors or ())} tensors",
    }[result.form]
