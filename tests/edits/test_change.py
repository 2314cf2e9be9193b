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
FORMS = ("delta", "left", "token", "dense token", "value")
WIDTH, OUT = 5, 7


def draw(seed, *shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(form, seed, rank=2):
    if form == "delta":
        return Change(delta=draw(seed, OUT, WIDTH))
    if form == "left":
        return Change(left=draw(seed, OUT, rank), right=draw(seed + 1, rank, WIDTH))
    if form == "token":
        return Change(token=draw(seed, WIDTH, rank), right=draw(seed + 1, rank, WIDTH))
    if form == "value":
        return Change(value=draw(seed, OUT, WIDTH))
    return Change(token=draw(seed, WIDTH, WIDTH))


def by_hand(change, weight):
    if change.delta is not None:
        return change.delta
    if change.value is not None:
        return change.value - weight
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
    if one.value is not None or two.value is not None:
        with pytest.raises(ValueError, match="at()"):
            one.plus(two)
    elif one.acts_on_token == two.acts_on_token:
        torch.testing.assert_close(one.plus(two).of(weight), one.of(weight) + two.of(weight))
    else:
        with pytest.raises(ValueError, match="at()"):
            one.plus(two)
    middle = weight + one.of(weight)
    expected = middle + two.of(middle) - weight
    if two.value is not None:
        chained = one.then(two)
        assert chained is two
    elif one.value is not None:
        chained = one.at(weight).plus(two.at(middle))
    elif one.acts_on_token or not two.acts_on_token:
        chained = one.then(two) if two.acts_on_token or not one.acts_on_token else one.at(weight).then(two)
    else:
        chained = one.plus(two.at(middle))
    torch.testing.assert_close(chained.of(weight), expected)


@given(seed=seeds, rows=st.integers(1, 12))
@settings(max_examples=15, deadline=None)
def test_a_map_of_tokens_moves_rows_as_it_moves_what_weights_see(seed, rows):
    for form in ("token", "dense token"):
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


SHAPES = {
    "conv": (OUT, 3, 2, 2),
    "bias": (OUT,),
    "matrix": (OUT, WIDTH),
    "scale": (),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_new_weight_is_there_bit_for_bit_in_any_shape(shape, dtype, monkeypatch):
    monkeypatch.setattr(change_module, "WEIGHT_ROWS_AT_ONCE", 3)
    weight, value = draw(1, *shape).to(dtype), draw(2, *shape).to(dtype)
    change, before = Change(value=value), weight.double()
    assert change.fits(shape) and not change.fits((*shape, 1)) and change.shape == shape and change.reads_weight
    torch.testing.assert_close(change.of(weight), value.double() - before)
    assert change.norm(weight) == pytest.approx((value.double() - before).square().sum().sqrt().item())
    delta = change.at(weight)
    lost, size = change.add_to(weight)
    assert torch.equal(weight, value) and lost == 0.0
    again = before.to(dtype)
    delta.add_to(again)
    assert torch.equal(again, value)
    assert size == (0.0 if dtype == torch.float32 else pytest.approx((value.double() - before).square().sum().item()))


def test_a_new_weight_of_a_wider_type_is_rounded_once_and_it_is_told():
    value, weight = draw(0, OUT, WIDTH).float(), torch.zeros(OUT, WIDTH, dtype=torch.bfloat16)
    lost, size = Change(value=value).add_to(weight)
    assert torch.equal(weight, value.bfloat16())
    assert 0 < lost < 1e-4 * size


@given(seed=seeds, rank=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_factors_of_a_convolution_are_those_of_its_rows(seed, rank):
    shape = SHAPES["conv"]
    change = Change(left=draw(seed, OUT, rank), right=draw(seed + 1, rank, 12))
    weight = draw(seed + 2, *shape)
    expected = (change.left @ change.right).view(shape)
    assert change.fits(shape) and not change.fits((OUT,)) and not change.fits((OUT, 3, 2))
    torch.testing.assert_close(change.of(weight), expected)
    for memory in (torch.contiguous_format, torch.channels_last):  # a view of rows is not always one in memory
        new = weight.clone().contiguous(memory_format=memory)
        change.add_to(new)
        torch.testing.assert_close(new, weight + expected)
    dense = Change(delta=draw(seed + 3, *shape))
    for both in (dense.plus(change), change.plus(dense)):
        torch.testing.assert_close(both.of(weight), dense.delta + expected)


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
        {"value": torch.ones(2), "delta": torch.ones(2)},
        {"left": torch.ones(2, 3, 2, 2), "right": torch.ones(3, 3)},
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
