"""Attacks in a plan: which images are attacked, and what has to be looked for before they can be made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from PIL import Image

from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.attack import Attack, attacked_concepts
from erasebench.edits.found import Found, Replace
from erasebench.edits.hook import Hook
from erasebench.edits.label import row_text
from erasebench.errors import Damaged, UserError
from erasebench.images.batch_size import BatchSize
from erasebench.images.generate import draw_tries
from erasebench.models.load import Model
from erasebench.recipe import Recipe
from erasebench.scores.metric import Metric
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
        erased: the names of all that the task erases: where a pistol became a knife, and both are erased, a judge sees it.
    """

    attack: Attack
    edit: str
    concepts: tuple[Concept, ...]
    recipe: Recipe
    erased: tuple[str, ...]


def attacked_rows(
    rows: pd.DataFrame,
    task: ErasureTask,
    attacks: Mapping[str, Attack],
    identity: str,
    judge: str,
    recipes: dict[str, Recipe],
    searches: dict[str, Search],
) -> list[pd.DataFrame]:
    """The rows of one edit once more for every attack, where their prompts are attacked.

    Args:
        rows: of the edit, without an attack.
        task: of the edit.
        attacks: by their labels.
        identity: of the model.
        judge: id of the metric that judged attacks ask; empty where there is none.
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
            attack_key = attack.key(identity, recipe.edit, concepts, recipe, judge, task.names)
            edit = recipe.edit if attack.adaptive else ""
            searches.setdefault(attack_key, Search(attack, edit, concepts, recipe, tuple(task.names)))
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


def drawing(
    search: Search, model: Model, edit: str, batch_size: int | BatchSize, store: Store
) -> Callable[[Sequence[Found]], list[Image.Image]]:
    """What draws the images of a search by finds that it tries (:attr:`erasebench.edits.attack.Tools.draw`).

    The prompt as it is, which many searches try first, is not drawn again where the run has its image.

    Args:
        search: whose recipe is drawn.
        model: with the edit on its pipe.
        edit: key of that edit.
        batch_size: images made at a time.
        store: where the image without the attack may be.
    """
    clean = replace(search.recipe, edit=edit, attack="")

    def drawn(results: Sequence[Found]) -> list[Image.Image]:
        tried = {f"try {number}": result for number, result in enumerate(results)}
        hook = search.attack.hook(tried)
        # An attack's own hook may do more than to draw by the prompt or the seed.
        same = [name for name, one in tried.items() if type(hook) is Replace and one.leaves(clean)]
        there = dict.fromkeys(same, image) if same and (image := _image_of(store, clean.key)) else {}
        recipes = [replace(clean, attack=name) for name in tried if name not in there]
        images = iter(draw_tries(model, recipes, batch_size, [hook]))
        return [there[name] if name in there else next(images) for name in tried]

    return drawn


def _image_of(store: Store, key: str) -> Image.Image | None:
    """An image of the store, ``None`` where it is not there or not whole."""
    try:
        return store.image(key)
    except (KeyError, Damaged):
        return None


def judging(metric: Metric, search: Search) -> Callable[[Sequence[Image.Image]], list[bool]]:
    """What says of images whether a metric recognises what a search looks for (:attr:`erasebench.edits.attack.Tools.sees`).

    It is asked as of a prompt that names the first of the concepts, as the table will be.
    """

    def sees(images: Sequence[Image.Image]) -> list[bool]:
        return (_answers(metric, search.concepts[0], search.erased, images) == 1).tolist()

    return sees


def check_judge(label: str, metric: Metric | None, concept: Concept) -> None:
    """Refuse a judged attack without a metric that knows what it looks for; it is shown a grey image.

    Raises:
        UserError: naming the attack, the metric and the concept.
    """
    if metric is None:
        raise UserError(
            f"attack {label}: it stops at the first image in which a metric recognises {concept.name}, and none of this run does; "
            "add one that can run here, e.g. metric=judge"
        )
    if _answers(metric, concept, (concept.name,), [Image.new("RGB", (64, 64), "grey")]).isna().any():
        raise UserError(
            f"attack {label}: it stops at the first image in which {metric.name} recognises {concept.name}, which {metric.name} "
            "does not know; choose a metric or concept that fits"
        )


def _answers(metric: Metric, concept: Concept, erased: Sequence[str], images: Sequence[Image.Image]) -> pd.Series:
    row = {
        "prompt": "", "label": concept.name, "kind": concept.kind, "role": ATTACKED_ROLE,
        "targets": list(erased),
    }  # fmt: skip
    rows = pd.DataFrame([row] * len(images))
    return metric.values(rows.join(metric.score(images, rows)))
