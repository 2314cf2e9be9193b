"""Settings that depend on the concept: each task has the edit of the eraser that is named for it, and no other."""

from __future__ import annotations

import pytest
import torch

from erasebench.concepts import Concept, ErasureTask
from erasebench.config.build import build
from erasebench.config.compose import compose
from erasebench.config.values import plain_values
from erasebench.edits.eraser import Eraser
from erasebench.errors import UserError
from erasebench.methods.by_concept import ByConcept
from erasebench.methods.closed_form.rece import Rece
from erasebench.methods.closed_form.uce import Uce
from erasebench.models.targets import named_weight


def task(*names: str) -> ErasureTask:
    return ErasureTask(tuple(Concept(name, "object") for name in names), ("sky",))


MIXED = ByConcept(erasers={"hard": Rece(), "soft": Uce(preserve="none")}, concepts={"church": "hard"}, others="soft")


@pytest.mark.parametrize(("name", "alone"), [("Church", Rece()), ("tench", Uce(preserve="none"))])
def test_a_task_has_the_edit_of_the_eraser_named_for_it(name, alone, tiny_random_pipe):
    edit, expected = (eraser.edit(tiny_random_pipe, task(name)) for eraser in (MIXED, alone))
    for weight_name, change in expected.changes.items():
        weight = named_weight(tiny_random_pipe, weight_name).detach()
        torch.testing.assert_close(edit.changes[weight_name].of(weight), change.of(weight), rtol=0, atol=0)
    assert MIXED.key("model", task(name)) == alone.key("model", task(name)), "one edit, stored once"
    for key in ("method", "version", "settings", "task", "weights", "rank"):
        assert edit.info[key] == expected.info[key]


def test_concepts_of_several_settings_are_not_one_edit(tiny_random_pipe):
    with pytest.raises(UserError, match="church . tench have settings of their own each .hard, soft.*task.joint=false"):
        MIXED.edit(tiny_random_pipe, task("church", "tench"))
    assert MIXED.edit(tiny_random_pipe, task("gas pump", "tench")).info["method"] == "uce"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"erasers": {}, "others": "a"}, "erasers is empty"),
        ({"erasers": {"a": "uce"}, "others": "a"}, "erasers.a is 'uce', not an eraser"),
        ({"erasers": {"hard": Uce()}, "others": "hrd"}, "'hrd' is not among erasers. Did you mean 'hard'"),
        ({"erasers": {"hard": Uce()}, "others": "hard", "concepts": {"church": "soft"}}, "'soft' is not among erasers"),
    ],
)
def test_names_of_no_eraser_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        ByConcept(**options)


def test_a_family_that_one_of_them_cannot_edit_all_cannot():
    mixed = build(plain_values(compose(["method=released/mace_objects"]).method)["mace__released"], "method", Eraser)
    assert mixed.trains and set(mixed.unsupported) >= {"sdxl", "sd3", "flux"}
    assert not MIXED.trains and not MIXED.unsupported
