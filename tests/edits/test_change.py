"""A change means the same in each of its forms, added, chained, applied, and rounded."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from erasebench.edits import change as change_module
from erasebench.edits.change import Change
from erasebench.edits.edit import Edit
from erasebench.errors import UserError
from erasebench.methods.closed_form.uce import Uce
from erasebench.models.marks import edits_on

seeds = st.integers(0, 10_000)
FORMS = ("delta", "left", "token", "dense token")
WIDTH, OUT = 5, 7


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(form, seed, rank=2):
    if form == "delta":
        return Change(delta=draw(seed, OUT, WIDTH))
    if form == "left":
        return Change(left=draw(seed, OUT, rank), right=draw(seed + 1, rank, WIDTH))
    if form == "token":
        return Change(token=draw(seed, WIDTH, rank), right=draw(seed + 1, rank, WIDTH))
    return Change(token=draw(seed, WIDTH, WIDTH))


def by_hand(change, weight):
    if change.delta is not None:
        return change.delta
    inner = change.token if change.left is None else change.left
    inner = inner if change.right is None else inner @ change.right
    return weight @ inner if change.left is None else inner


@pytest.mark.parametrize("form", FORMS)
@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_of_factors_norm_and_add_to_agree(form, seed):
    change, weight = make(form, seed), draw(seed + 9, OUT, WIDTH)
    expected = by_hand(change, weight)
    torch.testing.assert_close(change.of(weight), expected)
    assert change.norm(weight) == pytest.approx(torch.linalg.norm(expected).item(), rel=1e-9)
    factors = change.factors(weight)
    assert (factors is None) == (change.right is None)
    if factors is not None:
        torch.testing.assert_close(factors[0] @ factors[1], expected)
    torch.testing.assert_close(change.at(weight).of(None), expected)
    new = weight.clone()
    assert change.add_to(new) == (0.0, 0.0)
    torch.testing.assert_close(new, weight + expected)


@pytest.mark.parametrize("first", FORMS)
@pytest.mark.parametrize("second", FORMS)
@given(seed=seeds)
@settings(max_examples=8, deadline=None)
def test_sum_and_sequence_are_what_doing_them_by_hand_gives(first, second, seed):
    one, two, weight = make(first, seed), make(second, seed + 3), draw(seed + 9, OUT, WIDTH)
    if one.acts_on_token == two.acts_on_token:
        torch.testing.assert_close(one.plus(two).of(weight), one.of(weight) + two.of(weight))
    else:
        with pytest.raises(ValueError, match="at()"):
            one.plus(two)
    middle = weight + one.of(weight)
    expected = middle + two.of(middle) - weight
    if one.acts_on_token or not two.acts_on_token:
        chained = one.then(two) if two.acts_on_token or not one.acts_on_token else one.at(weight).then(two)
    else:
        chained = one.plus(two.at(middle))
    torch.testing.assert_close(chained.of(weight), expected)


@given(seed=seeds, rows=st.integers(1, 12))
@settings(max_examples=15, deadline=None)
def test_a_map_of_tokens_moves_rows_as_it_moves_what_weights_see(seed, rows):
    for form in FORMS[2:]:
        change, weight, tokens = make(form, seed), draw(seed + 5, OUT, WIDTH), draw(seed + 6, rows, WIDTH)
        torch.testing.assert_close(weight @ change.rows(tokens).T, change.of(weight) @ tokens.T)
    with pytest.raises(ValueError, match="token form"):
        make("left", seed).rows(draw(0, 1, WIDTH))


@pytest.mark.parametrize("form", FORMS)
def test_a_weight_changed_in_pieces_is_the_weight_changed_at_once(form, monkeypatch):
    change, whole, pieces = make(form, 3), draw(1, OUT, WIDTH).float(), draw(1, OUT, WIDTH).float()
    change.add_to(whole)
    monkeypatch.setattr(change_module, "WEIGHT_ROWS_AT_ONCE", 2)
    change.add_to(pieces)
    assert torch.equal(whole, pieces)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_rounding_takes_is_told(dtype):
    weight, change = draw(0, OUT, WIDTH).to(dtype), make("token", 4)
    before = weight.double()
    exact = before + change.of(before)
    lost, size = change.add_to(weight)
    assert lost == pytest.approx((weight.double() - exact).square().sum().item())
    assert size == pytest.approx((exact - before).square().sum().item())
    assert 0 < lost < 1e-4 * size


def test_rounding_of_half_precision_is_reported_and_that_of_float32_is_not(small_pipe, church_task):
    pipe = small_pipe()
    edit = Uce().edit(pipe, church_task)
    with edit.applied(pipe) as rounding:
        assert rounding == 0.0
    with edit.applied(pipe.to(torch.bfloat16)) as rounding:
        assert 1e-4 < rounding < 0.1


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"right": torch.ones(2, 3)},
        {"delta": torch.ones(2, 3), "token": torch.ones(3, 3)},
        {"left": torch.ones(2, 2), "right": torch.ones(3, 3)},
        {"token": torch.ones(2, 3)},
        {"token": torch.ones(4, 2), "right": torch.ones(2, 3)},
    ],
)
def test_what_is_no_change_is_refused(wrong):
    with pytest.raises(ValueError):
        Change(**wrong)


def test_a_pipeline_says_which_edits_it_carries_and_no_eraser_edits_it_again(small_pipe, church_task):
    pipe = small_pipe()
    edit = Uce().edit(pipe, church_task)
    assert edits_on(pipe) == ()
    with edit.applied(pipe):
        assert [info["method"] for info in edits_on(pipe)] == ["uce"]
        with pytest.raises(UserError, match=r"already edited by uce \(church\).*compose"):
            Uce().edit(pipe, church_task)
        assert Uce().edit(pipe, church_task, composing=True).changes
    assert edits_on(pipe) == ()
    edit.apply(pipe)
    with pytest.raises(UserError, match="already edited"):
        Uce().edit(pipe, church_task)


def test_offloaded_weights_are_refused_by_name(small_pipe, church_task):
    pipe = small_pipe()
    edit = Uce().edit(pipe, church_task)
    name = list(edit.changes)[2]
    module = pipe.unet.get_submodule(name.removeprefix("unet.").removesuffix(".weight"))
    module.weight = torch.nn.Parameter(module.weight.to("meta"), requires_grad=False)
    for act in (lambda: Uce().edit(pipe, church_task), lambda: edit.apply(pipe)):
        with pytest.raises(UserError, match=f"{name}: the weight is offloaded"):
            act()


def test_an_edit_of_the_first_format_is_still_read(tmp_path):
    from safetensors.torch import save_file

    header = {
        "format": "erasebench edit 1",
        "layout": '{"unet.a.weight": {"left": "unet.a.weight.left", "right": "unet.a.weight.right"}}',
        "info": '{"method": "cure"}',
    }
    tensors = {"unet.a.weight.left": draw(0, 4, 1), "unet.a.weight.right": draw(1, 1, 3)}
    save_file(tensors, tmp_path / "old.safetensors", metadata=header)
    edit = Edit.load(tmp_path / "old.safetensors")
    torch.testing.assert_close(edit.changes["unet.a.weight"].of(None), draw(0, 4, 1) @ draw(1, 1, 3))
