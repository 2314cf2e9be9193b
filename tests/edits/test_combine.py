"""Several erasers in one edit: what a sum and a sequence must be, by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from erasebench.config.build import build
from erasebench.config.compose import compose
from erasebench.edits.change import Change
from erasebench.edits.combine import HOW, additive, combine
from erasebench.edits.edit import Edit
from erasebench.edits.eraser import Eraser
from erasebench.edits.label import label_of
from erasebench.errors import UserError
from erasebench.methods.closed_form.cure import Cure
from erasebench.methods.closed_form.uce import Uce
from erasebench.methods.compose import Compose
from erasebench.methods.controls.noop import NoOp
from erasebench.models.marks import edits_on
from erasebench.models.targets import key_value_weights, named_weight

FORMS = ("delta", "factors", "token", "token_dense", "value")


def weights_of(pipe, names) -> dict[str, torch.Tensor]:
    return {name: named_weight(pipe, name).detach().clone() for name in names}


def random_changes(pipe, form: str, seed: int) -> dict[str, Change]:
    """Random changes of two weights; the token forms share one change."""
    names = list(key_value_weights(pipe))[:2]
    generator = torch.Generator().manual_seed(seed)

    def gauss(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) / 5

    width = named_weight(pipe, names[0]).shape[1]
    if form == "token":
        shared = Change(token=gauss(width, 2), right=gauss(2, width))
        return dict.fromkeys(names, shared)
    if form == "token_dense":
        return dict.fromkeys(names, Change(token=gauss(width, width)))
    rows = {name: named_weight(pipe, name).shape[0] for name in names}
    if form == "delta":
        return {name: Change(delta=gauss(rows[name], width)) for name in names}
    if form == "value":
        return {name: Change(value=gauss(rows[name], width)) for name in names}
    return {name: Change(left=gauss(rows[name], 2), right=gauss(2, width)) for name in names}


@settings(max_examples=40, deadline=None)
@given(forms=st.lists(st.sampled_from(FORMS), min_size=2, max_size=3), seed=st.integers(0, 99))
def test_sum_and_sequence_are_what_they_say_for_every_form(tiny_random_pipe, forms: list[str], seed: int) -> None:
    pipe = tiny_random_pipe
    parts = [random_changes(pipe, form, seed + i) for i, form in enumerate(forms)]
    for name in parts[0]:
        weight = named_weight(pipe, name).detach().double()
        changes = [part[name] for part in parts]
        together = combine(parts, "sum", pipe)[name].of(weight)
        torch.testing.assert_close(together, sum(change.of(weight) for change in changes), rtol=1e-9, atol=1e-9)
        backwards = combine(parts[::-1], "sum", pipe)[name].of(weight)
        torch.testing.assert_close(together, backwards, rtol=1e-9, atol=1e-9)
        now = weight
        for change in changes:
            now = now + change.of(now)
        chained = combine(parts, "sequence", pipe)[name].of(weight)
        torch.testing.assert_close(weight + chained, now, rtol=1e-9, atol=1e-9)
        if all(form in ("delta", "factors") for form in forms):
            torch.testing.assert_close(chained, together, rtol=1e-9, atol=1e-9)


def test_a_new_weight_at_the_end_of_a_sequence_is_there_bit_for_bit(tiny_random_pipe) -> None:
    parts = [random_changes(tiny_random_pipe, form, 3) for form in ("token", "value")]
    assert combine(parts, "sequence", tiny_random_pipe) == parts[1]
    assert combine(parts[1:], "sum", tiny_random_pipe) == parts[1]


def test_the_order_of_new_weights_matters_and_is_said(tiny_random_pipe) -> None:
    assert additive(random_changes(tiny_random_pipe, "delta", 0))
    assert not additive(random_changes(tiny_random_pipe, "value", 0))
    assert not additive(random_changes(tiny_random_pipe, "token", 0))


def test_weights_that_shared_a_change_share_one_again(tiny_random_pipe) -> None:
    for how in HOW:
        parts = [random_changes(tiny_random_pipe, "token", seed) for seed in range(3)]
        assert len({id(change) for change in combine(parts, how, tiny_random_pipe).values()}) == 1


def test_parts_may_change_different_weights(tiny_random_pipe) -> None:
    first, second = random_changes(tiny_random_pipe, "token", 0), random_changes(tiny_random_pipe, "delta", 1)
    one, two = list(first)
    made = combine([{one: first[one]}, {two: second[two]}], "sequence", tiny_random_pipe)
    assert made == {one: first[one], two: second[two]}


def applied(pipe, edit: Edit) -> dict[str, torch.Tensor]:
    with edit.applied(pipe):
        return weights_of(pipe, edit.changes)


def test_a_sequence_is_one_eraser_after_another_by_hand(exact_pipe, church_task) -> None:
    pipe = exact_pipe
    first, second = Uce(), Cure(alpha=5)
    edit = Compose({"first": first, "second": second}).edit(pipe, church_task)
    before = weights_of(pipe, edit.changes)
    with first.edit(pipe, church_task).applied(pipe), second.edit(pipe, church_task, composing=True).applied(pipe):
        by_hand = weights_of(pipe, edit.changes)
    composed = applied(pipe, edit)
    for name, weight in composed.items():
        # by hand, weights are rounded to float32 in between
        torch.testing.assert_close(weight, by_hand[name], rtol=1e-5, atol=1e-6)
        assert torch.equal(named_weight(pipe, name), before[name])
    assert edits_on(pipe) == ()
    assert [part["method"] for part in edit.info["parts"]] == ["uce", "cure"]


def test_a_sum_is_the_sum_and_differs_from_the_sequence(exact_pipe, church_task) -> None:
    pipe = exact_pipe
    one, two = Uce(), Cure(alpha=5)
    edits = {how: Compose({"a": one, "b": two}, how=how).edit(pipe, church_task) for how in HOW}
    other = Compose({"a": two, "b": one}, how="sum").edit(pipe, church_task)
    apart = False
    for name, change in edits["sum"].changes.items():
        weight = named_weight(pipe, name).detach()
        by_hand = sum(part.edit(pipe, church_task).changes[name].of(weight) for part in (one, two))
        torch.testing.assert_close(change.of(weight), by_hand, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(change.of(weight), other.changes[name].of(weight), rtol=1e-9, atol=1e-10)
        apart |= not torch.allclose(change.of(weight), edits["sequence"].changes[name].of(weight), rtol=1e-3)
    assert apart


def test_a_sequence_with_a_no_op_is_the_other_alone(exact_pipe, church_task) -> None:
    alone = applied(exact_pipe, Uce().edit(exact_pipe, church_task))
    for parts in ({"a": NoOp(), "b": Uce()}, {"a": Uce(), "b": NoOp()}):
        for how in HOW:
            made = applied(exact_pipe, Compose(parts, how=how).edit(exact_pipe, church_task))
            for name, weight in made.items():
                torch.testing.assert_close(weight, alone[name], rtol=1e-6, atol=1e-7)


@dataclass(frozen=True)
class Encoder(Eraser):
    """Changes the text encoder, for the test below."""

    name: ClassVar[str] = "encoder"

    def changes(self, pipe, task):
        name = "text_encoder.encoder.layers.0.self_attn.v_proj.weight"
        return {name: Change(delta=named_weight(pipe, name).detach().double() * -0.5)}, {"warnings": ["halved"]}


def test_in_a_sequence_a_later_eraser_reads_what_the_edited_text_encoder_says(exact_pipe, church_task) -> None:
    alone = Uce().edit(exact_pipe, church_task)
    for how, same in {"sum": True, "sequence": False}.items():
        edit = Compose({"a": Encoder(), "b": Uce()}, how=how).edit(exact_pipe, church_task)
        name = next(iter(alone.changes))
        weight = named_weight(exact_pipe, name).detach()
        equal = torch.allclose(edit.changes[name].of(weight), alone.changes[name].of(weight), rtol=1e-6)
        assert equal == same
        assert "encoder: halved" in edit.info["warnings"]


def test_the_config_gives_parts_in_order_and_lets_them_be_chosen() -> None:
    eraser = build(compose(["method=compose"]).method, "method", Eraser)
    assert [part.name for part in eraser.parts.values()] == ["uce", "cure"] and eraser.how == "sequence"
    overrides = [
        "method=compose",
        "method@method.parts.first=rece",
        "method.parts.second.alpha=5",
        "+method@method.parts.third=noop",
    ]
    eraser = build(compose(overrides).method, "method", Eraser)
    assert [part.name for part in eraser.parts.values()] == ["rece", "cure", "noop"]
    assert eraser.parts["second"].alpha == 5
    assert len(build(compose(["method=compose", "~method@method.parts.second"]).method, "method", Eraser).parts) == 1


def test_key_and_label_know_the_parts_their_settings_and_their_order(church_task) -> None:
    one, two = Cure(), Uce()
    variants = [
        Compose({"a": one, "b": two}), Compose({"a": two, "b": one}), Compose({"b": two, "a": one}),
        Compose({"a": one, "b": two}, how="sum"), Compose({"a": Cure(alpha=5), "b": two}),
    ]  # fmt: skip
    keys = [variant.key("model", church_task) for variant in variants]
    assert keys[1] == keys[2], "the places' names do not decide the edit"
    assert len(set(keys)) == 4
    assert "alpha=5" in label_of("compose", variants[4]).text and "cure" in label_of("compose", variants[0]).text


def test_it_cannot_edit_what_one_of_its_parts_cannot() -> None:
    @dataclass(frozen=True)
    class Old(NoOp):
        unsupported: ClassVar[dict[str, str]] = {"flux": "old"}

    assert Compose({"a": NoOp(), "b": Old()}).unsupported == {"flux": "old"}
    assert Compose({"a": NoOp()}).unsupported == {}


@pytest.mark.parametrize(
    ("parts", "how", "message"),
    [({}, "sum", "parts is empty"), ({"a": "cure"}, "sum", "parts.a"), ({"a": Cure()}, "summ", "Did you mean 'sum'")],
)
def test_bad_options_are_refused(parts, how: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Compose(parts, how)
