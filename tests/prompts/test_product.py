"""Prompts of scripts: every sentence with every name, in the papers' numbers, and what is refused."""

from __future__ import annotations

import pytest

from erasebench.concepts import Concept
from erasebench.config.compose import compose
from erasebench.config.protocol import Protocol
from erasebench.errors import UserError
from erasebench.prompts.choose import from_config, prompts_here
from erasebench.prompts.product import product
from erasebench.runs.plan import drawn
from erasebench.runs.tasks import task_groups

CATS = [Concept("cat", "object"), Concept("dog", "object")]


def test_every_template_with_every_entry_and_seeds_upwards() -> None:
    made = product(
        ["a {thing} on {ground}", "my {thing}"],
        {"thing": "concepts", "ground": ["sand", "ice"]},
        "thing",
        CATS,
        "object",
        2,
        7,
    )
    rows = made.rows
    assert len(rows) == 2 * 2 * 2 + 2 * 2 and rows.prompt_id.is_unique
    assert set(rows.prompt) == {"a cat on sand", "a cat on ice", "a dog on sand", "a dog on ice", "my cat", "my dog"}
    assert set(rows.seed) == {7, 8} and rows.groupby("prompt").seed.nunique().eq(2).all()
    assert all(row.label in row.prompt for row in rows.itertuples())
    assert set(
        product(["a {thing}"], {"thing": "concepts"}, "thing", CATS, "object", 9, 0, limit=3)
        .rows.groupby("label")
        .size()
    ) == {3}


def of(*overrides: str):
    config = compose(overrides)
    ((kind, group),) = task_groups(config).items()
    return from_config(config.prompts, kind, group.concepts), group, Protocol.from_config(config.protocol)


def test_unlearncanvas_draws_5100_images_of_a_model() -> None:
    """51 themes x 20 objects x the seeds 188, 288, 588, 688, 888; an edit of a style has 100 images of it."""
    for side, edits, own in (("style", 50, 100), ("object", 20, 255)):
        prompts, group, protocol = of(
            "protocol=unlearncanvas", f"prompts=unlearncanvas_{side}", f"task=unlearncanvas_{side}"
        )
        rows = drawn(prompts.for_task(group.tasks[0]), protocol)
        assert len(rows) == 5100 and len(group.tasks) == edits
        assert set(rows.seed) == {188, 288, 588, 688, 888}
        assert (rows.role == "erase").sum() == own and set(rows.role) == {"erase", "retain"}
        assert "A Dogs image in Van Gogh style." in set(rows.prompt)


def test_mace_draws_200_images_of_each_class_and_speed_ten_of_eighty_sentences() -> None:
    prompts, group, _ = of("protocol=mace", "prompts=cifar10", "task=cifar10")
    assert set(prompts.rows.groupby("label").size()) == {200} and len(prompts.rows) == 2000
    assert "a photo of the airplane" in set(prompts.rows.prompt) and len(group.tasks) == 10
    prompts, _, _ = of("protocol=speed", "prompts=speed_instances", "task=instances_1")
    assert set(prompts.rows.groupby("label").size()) == {800} and prompts.rows.prompt.nunique() == 80 * 5
    assert "a photo of many Snoopy." in set(prompts.rows.prompt)


def test_they_need_no_file_and_no_network() -> None:
    for name in ("cifar10", "speed_instances", "unlearncanvas_style"):
        assert prompts_here(compose([f"prompts={name}"]).prompts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"templates": []}, "give a list of sentences"),
        ({"templates": "a {thing}"}, "give a list of sentences"),
        ({"templates": ["a thing"]}, "no blank with a name"),
        ({"templates": ["a {}"]}, "no blank with a name"),
        ({"templates": ["a {thing"]}, "write a blank as"),
        ({"templates": ["a {think}"]}, "no entries for {think}. Did you mean 'thing'"),
        ({"fill": {"thing": []}}, "fill.thing=.*give a list of texts, or concepts"),
        ({"fill": {"thing": "concept"}}, "give a list of texts, or concepts"),
        ({"fill": ["cat"]}, "give the entries of each blank"),
        ({"label": "ground"}, "has no blank of that name"),
        ({"images": 0}, "images=0: give a whole number of 1"),
        ({"images": True}, "images=True"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**63 - 1}, "not 2 seeds from there"),
        ({"limit": 0}, "limit=0"),
        ({"images": 10**6}, "more than 1000000 rows"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict, message: str) -> None:
    options = {
        "templates": ["a {thing}"],
        "fill": {"thing": "concepts"},
        "label": "thing",
        "images": 2,
        "seed": 0,
    } | changes
    with pytest.raises(UserError, match=message):
        product(concepts=CATS, kind="object", **options)


def test_a_node_that_lacks_a_part_or_has_another_is_refused() -> None:
    node = {"source": "templates", "templates": ["a {x}"], "fill": {"x": "concepts"}}
    with pytest.raises(UserError, match="prompts.label: not given"):
        from_config(node, "object", CATS)
    with pytest.raises(UserError, match="prompts.image: no such key for source templates. Did you mean 'images'"):
        from_config({**node, "label": "x", "image": 2}, "object", CATS)
