"""What must be true of every eraser that trains, whatever it trains."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel
from training_helpers import assert_resumes, assert_same, numbers_of, shrunk, work_in

from erasebench.commands.list import eraser_classes
from erasebench.config.build import build, places
from erasebench.config.choices import groups
from erasebench.config.compose import compose
from erasebench.edits.eraser import Edit, Eraser
from erasebench.errors import UserError
from erasebench.export.lora import lora
from erasebench.methods.closed_form.uce import Uce
from erasebench.methods.compose import Compose
from erasebench.methods.trained.training import TrainedEraser
from erasebench.models.targets import named_weight


def options() -> list[str]:
    """The names of configs of one eraser that trains."""
    return [
        name
        for name in groups()["method"]
        if len(eraser_classes(name)) == 1 and issubclass(eraser_classes(name)[0], TrainedEraser)
    ]


def small(option: str, **more) -> TrainedEraser:
    """The eraser of a config with small settings."""
    config = compose([f"method={option}"])
    (eraser,) = [build(node, place, Eraser) for place, node in places(config.method, "method", "_target_").items()]
    return shrunk(eraser, **more)


OUTSIDE = ("u", "u-2025", "full")
"""Groups of parameters that reach beyond attention."""


@pytest.fixture
def work(tmp_path):
    return work_in(tmp_path / "work")


@pytest.mark.parametrize("option", options())
def test_it_repeats_and_goes_on_where_it_was_killed(tiny_random_pipe, church_task, tmp_path, option):
    assert_resumes(small(option), tiny_random_pipe, church_task, tmp_path, 2, 3)


@pytest.mark.parametrize("option", options())
def test_an_edit_is_put_on_composed_and_taken_back_bit_for_bit(tiny_random_pipe, church_task, work, option):
    pipe = tiny_random_pipe
    before = {
        f"{part}.{name}": parameter.detach().clone()
        for part in ("unet", "text_encoder")
        for name, parameter in getattr(pipe, part).named_parameters()
    }
    edit = Compose({"first": small(option), "second": Uce()}, how="sequence").edit(pipe, church_task, work=work)
    alone = small(option).edit(pipe, church_task, work=work)
    with alone.applied(pipe):
        for name, change in alone.changes.items():
            assert not torch.equal(named_weight(pipe, name), before[name]), name
            if change.value is not None:
                assert torch.equal(named_weight(pipe, name), change.value)
    with edit.applied(pipe):
        pass
    assert all(torch.equal(named_weight(pipe, name), value) for name, value in before.items())


@pytest.mark.parametrize("option", options())
def test_what_is_trained_in_bfloat16_is_what_is_trained_in_float32(tiny_random_pipe, church_task, work, option):
    edits = [
        small(option, precision=precision).edit(
            tiny_random_pipe, church_task, work=replace(work, folder=work.folder / precision)
        )
        for precision in ("float32", "bfloat16")
    ]
    one, other = (numbers_of(edit) for edit in edits)
    assert one.keys() == other.keys() and not any(tensor.dtype == torch.bfloat16 for tensor in other.values())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("option", options())
def test_several_styles_can_be_erased_at_once(tiny_random_pipe, artists_task, work, option):
    edit = small(option).edit(tiny_random_pipe, artists_task, work=work)
    assert edit.changes or edit.hooks


@pytest.mark.parametrize("option", options())
def test_models_that_it_cannot_train_are_refused_with_a_reason(option):
    for family in ("sdxl", "sd3", "flux"):
        assert len(small(option).refuses(SimpleNamespace(family=family))) > 20


@pytest.mark.parametrize("option", options())
def test_options_out_of_range_are_refused(option):
    has = {entry.name for entry in fields(small(option))}
    for wrong in ({"lr": 0}, {"iterations": 0.5}, {"steps": 0}, {"images": 0}, {"batch": 1.5}, {"guidance": -1}):
        if set(wrong) <= has:
            with pytest.raises(UserError, match=next(iter(wrong))):
                small(option, **wrong)


@pytest.mark.parametrize("option", [name for name in options() if getattr(small(name), "train", "") not in OUTSIDE])
def test_a_training_that_would_train_nothing_is_refused_by_name(small_pipe, church_task, work, option):
    """On a network that has no attention, and so reads no text. (Some train what is outside attention, which is there.)"""
    pipe = small_pipe()
    pipe.unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2, mid_block_type=None, cross_attention_dim=24, norm_num_groups=4,
    ).eval()  # fmt: skip
    eraser = small(option, **({"warmup": 1.0} if option == "advunlearn" else {}))
    with pytest.raises(UserError) as refusal:
        eraser.edit(pipe, church_task, work=work)
    assert "failed on the task" not in str(refusal.value), "a sentence about the cause, not the error of a library"
    assert not work.folder.exists()


@pytest.mark.parametrize("option", options())
def test_an_edit_is_kept_in_a_file_and_exported_or_refused_by_name(
    tiny_random_pipe, small_pipe, church_task, work, option
):
    eraser = small(option)
    edit = eraser.edit(tiny_random_pipe, church_task, work=work)
    again = Edit.load(edit.save(work.folder.parent / "edit.safetensors"))
    assert_same(again, edit)
    assert again.info == edit.info and edit.info["method"] == eraser.name and edit.info["trained"] is True
    assert {type(hook) for hook in edit.hooks} == set(eraser.acts())
    pipe = small_pipe()
    if edit.hooks:  # a folder of weights cannot hold it
        with pytest.raises(UserError, match=rf"eraser {eraser.name}: .* acts while images are sampled"):
            edit.apply(pipe)
        with pytest.raises(UserError, match=rf"eraser {eraser.name}: .* acts while images are sampled"):
            lora(edit, pipe)
        return
    with edit.applied(tiny_random_pipe):
        expected = {name: named_weight(tiny_random_pipe, name).detach().clone() for name in edit.changes}
    again.apply(pipe)
    assert all(torch.equal(named_weight(pipe, name), weight) for name, weight in expected.items())
    fits = all(name.endswith(".weight") and weight.ndim == 2 for name, weight in expected.items())
    try:
        assert set(lora(edit, tiny_random_pipe).tensors)
    except UserError as refusal:
        assert not fits or option in ("fmn", "few_shot"), refusal
        assert "use format=delta or diffusers" in str(refusal)
