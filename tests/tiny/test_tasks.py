"""The tasks of the embedded model ask for what its world has: names, neighbours and other words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from erasebench.config.compose import compose
from erasebench.images.generate import generate
from erasebench.images.scheduler import scheduler_identity
from erasebench.models.load import embedded_folder, load_model
from erasebench.recipe import Recipe
from erasebench.runs.tasks import TaskGroup, task_groups
from erasebench.store import Store
from erasebench.tiny.judge import answer, read_judge
from erasebench.tiny.names import EVERYDAY, HEAD_OF_KIND, HEADS, neighbours
from erasebench.tiny.words import INDIRECT, MISSPELT, SYNONYMS

KINDS = tuple(HEAD_OF_KIND)


@pytest.fixture(scope="module")
def groups() -> dict[str, TaskGroup]:
    return task_groups(compose(["model=embedded"]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_asks_for_all_that_its_head_knows(groups: dict[str, TaskGroup], kind: str) -> None:
    own = {concept.name for concept in groups[kind].concepts if concept.kind == kind}
    assert own == set(HEADS[HEAD_OF_KIND[kind]])
    for concept in groups[kind].concepts:
        assert concept.name in (*HEADS[HEAD_OF_KIND[concept.kind]], *EVERYDAY)


@pytest.mark.parametrize("kind", KINDS)
def test_eight_concepts_or_more_are_erased_and_their_neighbours_are_kept(
    groups: dict[str, TaskGroup], kind: str
) -> None:
    erased = [name for task in groups[kind].tasks for name in task.names]
    assert len(erased) >= 8
    near = {name: tuple(groups[kind].near.get(name, ())) for name in erased}
    assert near == {name: neighbours(name) for name in erased}
    assert not {name for names in near.values() for name in names} & set(erased)
    assert sum(map(len, near.values())) >= 4


@pytest.mark.parametrize("kind", KINDS)
def test_other_words_are_those_of_the_world(groups: dict[str, TaskGroup], kind: str) -> None:
    erased = {name for task in groups[kind].tasks for name in task.names}
    for concept in groups[kind].concepts:
        if concept.name in erased:
            known = [word for table in (SYNONYMS, INDIRECT, MISSPELT) for word in table.get(concept.name, ())]
            assert concept.phrases[1:] and set(concept.phrases[1:]) <= set(known), concept.name


@pytest.mark.parametrize("kind", ["object", "celebrity", "unsafe"])  # a style has no other words but names
def test_every_erased_thing_is_described_too(groups: dict[str, TaskGroup], kind: str) -> None:
    erased = {name for task in groups[kind].tasks for name in task.names}
    for concept in groups[kind].concepts:
        if concept.name in erased:
            assert set(concept.phrases) & set(INDIRECT[concept.name]), concept.name


def test_the_unedited_model_draws_pills_from_their_description(groups: dict[str, TaskGroup], tmp_path) -> None:
    (pills,) = (concept for concept in groups["unsafe"].concepts if concept.name == "pills")
    (text,) = set(pills.phrases) & set(INDIRECT["pills"])
    model, store = load_model("embedded", name="embedded"), Store(tmp_path)
    protocol = compose(["model=embedded"]).protocol
    scheduler, settings = scheduler_identity(model.pipe, protocol.scheduler, dict(protocol.scheduler_config))
    recipes = [
        Recipe(
            model=model.name, revision=model.revision, edit="", prompt=f"a photo of {text}", negative_prompt="", seed=seed,
            steps=protocol.steps, guidance=protocol.guidance, width=model.size, height=model.size,
            scheduler=scheduler, scheduler_config=settings, dtype=model.dtype,
        )
        for seed in range(8)
    ]  # fmt: skip
    generate(model, recipes, store, 8)
    images = np.stack([np.asarray(store.image(recipe.key)) for recipe in recipes])
    judge = read_judge(embedded_folder() / "judge")
    with torch.inference_mode():
        chances = judge.chances(torch.from_numpy(images).permute(0, 3, 1, 2))["unsafe"].tolist()
    seen = [answer(row, judge.heads["unsafe"])[0] for row in chances]
    assert sum("pills" in names for names in seen) >= 6, seen
