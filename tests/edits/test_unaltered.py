"""An eraser that alters the pipeline, fails or does nothing is refused by name, and no image comes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from erasebench.edits.change import Change
from erasebench.edits.edit import Edit
from erasebench.edits.eraser import Eraser
from erasebench.edits.unaltered import bits, fingerprint
from erasebench.errors import UserError
from erasebench.images.generate import generate
from erasebench.images.scheduler import scheduler_identity
from erasebench.methods.closed_form.uce import Uce
from erasebench.models.marks import keys_on
from erasebench.recipe import Recipe
from erasebench.store import Store


@dataclass(frozen=True)
class Acts(Eraser):
    """Does something with the pipeline and changes one weight by nothing."""

    name: ClassVar[str] = "acts"

    act: Callable[[Any], Any]

    @property
    def settings(self):
        return {}

    def changes(self, pipe, task):
        self.act(pipe)
        return {"unet.conv_in.bias": Change(delta=torch.zeros(8, dtype=torch.float64))}, {}


def one_number(pipe):
    with torch.no_grad():
        pipe.unet.conv_out.weight[0, 0, 0, 0] += 1e-7


def behind_autograd(pipe):
    pipe.text_encoder.get_parameter("final_layer_norm.bias").data.add_(1.0)


def another_parameter(pipe):
    pipe.unet.conv_in.bias = torch.nn.Parameter(pipe.unet.conv_in.bias.detach() + 1)


def an_adapter(pipe):
    pipe.unet.conv_in.register_module("lora", torch.nn.Linear(2, 2))


def a_vae(pipe):
    torch.nn.init.ones_(pipe.vae.decoder.conv_out.bias)


def left_in_training_mode(pipe):
    pipe.unet.mid_block.train()


def a_forward_hook(pipe):
    pipe.unet.conv_in.register_forward_hook(lambda *_: None)


ACTS = {
    one_number: "unet.conv_out.weight",
    behind_autograd: "text_encoder.final_layer_norm.bias",
    another_parameter: "unet.conv_in.bias",
    an_adapter: "unet.conv_in.lora.weight",
    a_vae: "vae.decoder.conv_out.bias",
    left_in_training_mode: r"the mode \(train or eval\) of unet.mid_block",
    a_forward_hook: "the forward hooks of unet.conv_in",
}


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_an_eraser_that_alters_the_pipeline_is_named_with_what_it_altered(act, small_pipe, church_task, tmp_path):
    pipe, store = small_pipe(), Store(tmp_path)
    with pytest.raises(UserError, match=f"eraser acts altered {ACTS[act]} of the pipeline.*the edit of church"):
        Acts(act).edit(pipe, church_task)
    # Whoever goes on with this pipeline is stopped before any edit and any image.
    with pytest.raises(UserError, match="already edited by altered by eraser acts"):
        Uce().edit(pipe, church_task)
    scheduler, config = scheduler_identity(pipe, "DDIM", {})
    recipe = Recipe("m", "r", "", "a cat", "", 1, 2, 4.0, 16, 16, scheduler, config, "float32")
    for wanted in (recipe, dataclasses.replace(recipe, edit="e" * 32)):
        with pytest.raises(ValueError, match="the pipeline carries altered by eraser acts"):
            generate(SimpleNamespace(name="m", revision="r", pipe=pipe), [wanted], store)
    assert not list(tmp_path.rglob("*.png"))


def put_back(pipe):
    weight = pipe.unet.conv_in.weight
    before = weight.detach().clone()
    weight.data.mul_(2)
    weight.data.copy_(before)
    pipe.unet.train()
    pipe.unet.eval()
    pipe.unet.requires_grad_(True)
    pipe.unet.conv_in.register_forward_hook(lambda *_: None).remove()


def test_an_eraser_that_puts_everything_back_is_not_refused(small_pipe, church_task):
    assert Acts(put_back).edit(small_pipe(), church_task).changes


def test_an_eraser_that_fails_is_named_with_its_task_the_error_and_its_place(tiny_random_pipe, church_task):
    def fail(pipe):
        raise KeyError("no such layer")

    with pytest.raises(
        UserError,
        match=r"eraser acts failed on the task church: KeyError: 'no such layer' \(test_unaltered.py, line \d+\)",
    ) as caught:
        Acts(fail).edit(tiny_random_pipe, church_task)
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_eraser_that_fails_and_alters_the_pipeline_is_refused_for_both(small_pipe, church_task):
    def both(pipe):
        one_number(pipe)
        raise KeyError("no such layer")

    pipe = small_pipe()
    with pytest.raises(UserError, match="altered unet.conv_out.weight") as caught:
        Acts(both).edit(pipe, church_task)
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_interrupt_stays_one_and_the_pipeline_is_marked(small_pipe, church_task):
    def interrupted(pipe):
        one_number(pipe)
        raise KeyboardInterrupt

    pipe = small_pipe()
    with pytest.raises(KeyboardInterrupt):
        Acts(interrupted).edit(pipe, church_task)
    assert keys_on(pipe) == ("altered by eraser acts",)


def test_what_a_method_refuses_itself_is_said_in_its_own_words(tiny_random_pipe, church_task):
    def refuse(pipe):
        raise UserError("acts: not for churches")

    with pytest.raises(UserError, match="^acts: not for churches$"):
        Acts(refuse).edit(tiny_random_pipe, church_task)


def test_notes_that_are_no_json_are_named(tiny_random_pipe, church_task):
    @dataclass(frozen=True)
    class Notes(Eraser):
        name: ClassVar[str] = "notes"

        def changes(self, pipe, task):
            return {"unet.conv_in.bias": Change(delta=torch.zeros(8, dtype=torch.float64))}, {"tensor": torch.ones(2)}

    with pytest.raises(UserError, match="eraser notes failed on the task church: TypeError: .*JSON"):
        Notes().edit(tiny_random_pipe, church_task)


@pytest.mark.parametrize("control", [True, False])
def test_an_edit_of_nothing_is_refused_unless_it_is_a_control(tiny_random_pipe, church_task, control):
    @dataclass(frozen=True)
    class Nothing(Eraser):
        name: ClassVar[str] = "nothing"

        def changes(self, pipe, task):
            return {}, {}

    Nothing.control = control
    if control:
        assert Nothing().edit(tiny_random_pipe, church_task).changes == {}
    else:
        with pytest.raises(UserError, match="eraser nothing: its edit of church changes no weight and has no hook"):
            Nothing().edit(tiny_random_pipe, church_task)


def test_an_eraser_without_any_method_says_so(tiny_random_pipe, church_task):
    @dataclass(frozen=True)
    class Empty(Eraser):
        name: ClassVar[str] = "empty"

    with pytest.raises(UserError, match="eraser empty failed.*implements neither changes nor make"):
        Empty().edit(tiny_random_pipe, church_task)


def test_an_eraser_that_trains_needs_its_work_and_has_gradients(tiny_random_pipe, church_task):
    @dataclass(frozen=True)
    class Trains(Eraser):
        name: ClassVar[str] = "trains"
        trains: ClassVar[bool] = True

        def make(self, pipe, task, work):
            assert torch.is_grad_enabled()
            return Edit({"unet.conv_in.bias": Change(value=torch.full((8,), float(work.seed)))})

    with pytest.raises(UserError, match="eraser trains: it trains, and needs a folder"):
        Trains().edit(tiny_random_pipe, church_task)
    edit = Trains().edit(tiny_random_pipe, church_task, work=SimpleNamespace(seed=5))
    assert edit.info["trained"] is True and edit.info["method"] == "trains"
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64])
@pytest.mark.parametrize("shape", [(), (3,), (7, 5), (4, 3, 3, 3), (0, 2)])
def test_the_bits_of_a_tensor_change_with_any_number(dtype, shape):
    tensor = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 9).to(dtype)
    before = bits(tensor)
    assert bits(tensor.clone()) == before
    for i in range(tensor.numel()):
        flat = tensor.clone().reshape(-1)
        flat[i] += 1
        assert bits(flat.reshape(shape)) != before


def test_a_part_of_a_larger_tensor_has_bits_of_its_own():
    whole = torch.arange(9, dtype=torch.float32)
    assert bits(whole[1:]) == bits(whole[1:].clone())


def test_two_prints_of_one_pipeline_are_equal(tiny_random_sdxl_pipe):
    assert fingerprint(tiny_random_sdxl_pipe) == fingerprint(tiny_random_sdxl_pipe)


def test_the_first_edit_of_a_freshly_loaded_model_is_not_taken_for_an_alteration(
    tiny_random_sdxl_pipe, church_task, tmp_path
):
    """transformers puts hooks into a text encoder when its hidden states are first asked for, as SDXL's are."""
    tiny_random_sdxl_pipe.save_pretrained(tmp_path)
    fresh = type(tiny_random_sdxl_pipe).from_pretrained(tmp_path)
    assert not any(module._forward_hooks for module in fresh.text_encoder.modules())
    assert Uce().edit(fresh, church_task).changes
    assert keys_on(fresh) == ()
