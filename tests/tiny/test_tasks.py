"""The tasks of the embedded model ask for what its world has: names, neighbours and other words."""

from __future__ import annotations

import pytest

from erasebench.config.compose import compose
from erasebench.runs.tasks import TaskGroup, task_groups
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
