"""Attacks in a plan: which images are attacked, and what has to be looked for before they can be made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.attack import Attack, Found, attacked_concepts
from erasebench.edits.hook import Hook
from erasebench.edits.label import row_text
from erasebench.errors import UserError
from erasebench.recipe import Recipe
from erasebench.store import Store

ATTACKED_ROLE = "erase"
"""The prompts that are attacked: those that ask for what was erased. What is kept needs no attack to be seen."""


@dataclass(frozen=True)
class Search:
    """What an attack has to look for.

    Attributes:
        attack: which attack.
        edit: key of the edit that must be on the model; ``""`` for the unedited one, and for a transfer attack.
        concepts: what should be brought back.
        recipe: the image without the attack.
    """

    attack: Attack
    edit: str
    concepts: tuple[Concept, ...]
    recipe: Recipe


def attacked_rows(
    rows: pd.DataFrame,
    task: ErasureTask,
    attacks: Mapping[str, Attack],
    identity: str,
    recipes: dict[str, Recipe],
    searches: dict[str, Search],
) -> list[pd.DataFrame]:
    """The rows of one edit once more for every attack, where their prompts are attacked.

    Args:
        rows: of the edit, without an attack.
        task: of the edit.
        attacks: by their labels.
        identity: of the model.
        recipes: by key, those of the rows; those of the attacked images are added.
        searches: by attack key; those that the new rows need are added.
    """
    clean = rows[rows.role == ATTACKED_ROLE]
    frames = []
    for label, attack in attacks.items():
        keys, attack_keys = [], []
        for row in clean.itertuples():
            recipe = recipes[row.key]
            concepts = attacked_concepts(task.targets, row.label)
            attack_key = attack.key(identity, recipe.edit, concepts, recipe)
            searches.setdefault(attack_key, Search(attack, recipe.edit if attack.adaptive else "", concepts, recipe))
            attacked = replace(recipe, attack=attack_key)
            recipes.setdefault(attacked.key, attacked)
            keys.append(attacked.key)
            attack_keys.append(attack_key)
        frames.append(
            clean.assign(
                eraser=[row_text(eraser, label) for eraser in clean.eraser],
                attack=label,
                attack_key=attack_keys,
                key=keys,
                clean_key=clean.key,
            )
        )
    return frames


def attack_hooks(recipes: Iterable[Recipe], searches: Mapping[str, Search], store: Store) -> list[Hook]:
    """What draws the attacked images among some: a hook for each attack, with all that it found for them.

    Raises:
        UserError: something has not been found yet.
    """
    found: dict[Attack, dict[str, Found]] = defaultdict(dict)
    for key in dict.fromkeys(recipe.attack for recipe in recipes if recipe.attack):
        one = store.get_attack(key)
        if one is None:
            raise UserError(
                f"{store.attack_path(key)}: what attack {searches[key].attack.name} found is gone; give the command again"
            )
        found[searches[key].attack][key] = one
    return [attack.hook(of_attack) for attack, of_attack in found.items()]
