"""One request after another: the same as applying edits by hand, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from erasebench.concepts import Concept, ErasureTask
from erasebench.config.build import build
from erasebench.config.compose import compose
from erasebench.edits import Eraser
from erasebench.errors import UserError
from erasebench.methods.closed_form.uce import Uce
from erasebench.methods.guards.negative_prompt import NegativePrompt
from erasebench.methods.one_by_one import OneByOne
from erasebench.models.targets import named_weight

TASK = ErasureTask(
    (Concept("church", "object"), Concept("tench", "object"), Concept("gas pump", "object")), ("golf ball", "")
)  # fmt: skip


def weights(pipe, names) -> dict[str, torch.Tensor]:
    return {name: named_weight(pipe, name).detach().clone() for name in names}


def test_it_is_each_edit_on_the_model_that_the_last_one_left(small_pipe) -> None:
    pipe, uce = small_pipe(), Uce()
    edit = OneByOne(uce).edit(pipe, TASK)
    with replace(edit, key="k").applied(pipe):
        found = weights(pipe, edit.changes)
    hand = small_pipe()
    for target in TASK.targets:  # applied for good, one on the other
        step = uce.edit(hand, ErasureTask((target,), TASK.retain))
        with replace(step, key="k").applied(hand):
            after = weights(hand, step.changes)
        with torch.no_grad():
            for name, weight in after.items():
                named_weight(hand, name).copy_(weight)
    for name, weight in found.items():
        assert weight == pytest.approx(named_weight(hand, name).detach(), abs=1e-5)
    joint = uce.edit(pipe, TASK)
    with replace(joint, key="k").applied(pipe):
        together = weights(pipe, edit.changes)
    assert max(float((found[name] - together[name]).abs().max()) for name in found) > 1e-4, "it is no joint edit"
    assert [part["task"]["label"] for part in edit.info["parts"]] == ["church", "tench", "gas pump"]


def test_of_one_target_it_is_the_eraser_itself(small_pipe) -> None:
    pipe, one = small_pipe(), ErasureTask(TASK.targets[:1], TASK.retain)
    found, alone = OneByOne(Uce()).edit(pipe, one), Uce().edit(pipe, one)
    for name, change in alone.changes.items():
        before = named_weight(pipe, name)
        assert found.changes[name].of(before) == pytest.approx(change.of(before), abs=1e-9)


def test_the_order_and_the_eraser_decide_its_key() -> None:
    turned = ErasureTask(TASK.targets[::-1], TASK.retain)
    keys = {OneByOne(Uce()).key("m", TASK), OneByOne(Uce()).key("m", turned), OneByOne(Uce(lam=1.0)).key("m", TASK)}
    assert len(keys | {Uce().key("m", TASK)}) == 4


def test_what_acts_while_sampling_is_refused() -> None:
    with pytest.raises(UserError, match="negative_prompt acts while images are sampled"):
        OneByOne(NegativePrompt())
    with pytest.raises(UserError, match="is no eraser"):
        OneByOne("uce")


def test_the_option_takes_any_eraser_in_its_place() -> None:
    assert isinstance(build(compose(["method=one_by_one"]).method, "method", Eraser).eraser, Uce)
    other = build(compose(["method=one_by_one", "method@method.eraser=cure"]).method, "method", Eraser)
    assert other.eraser.name == "cure"
