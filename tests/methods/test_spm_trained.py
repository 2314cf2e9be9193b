"""SPM's training: its loss, anchors, layers and rate are those of the release, and its adapters reach the hook."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import assert_resumes, assert_same, draw, work_in

from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.edit import Edit
from erasebench.edits.hook import put_on
from erasebench.errors import UserError
from erasebench.export.lora import lora
from erasebench.methods.adapters.beside import beside, mixed, rank_one
from erasebench.methods.adapters.spm import Membrane
from erasebench.methods.trained.low_rank import additions, new_adapters
from erasebench.methods.trained.spm import Spm, aim, anchors_of, cut_at_random, layers_of, predicted

SHORT = Spm(iterations=3, steps=3, lr=1e-2, warmup=0.0)


def test_loss_and_gradient_of_a_step_are_those_of_the_release(small_pipe):
    unet, plain = small_pipe().unet.double().requires_grad_(False), small_pipe().unet.double()
    z, t, c, empty, anchors = (
        draw(1, 1, 4, 8, 8),
        torch.tensor([421]),
        draw(2, 1, 77, 24),
        draw(3, 1, 77, 24),
        draw(4, 3, 77, 24),
    )
    parameters = {
        name: torch.nn.Parameter(p.detach().double() + 0.1 * draw(i, *p.shape))
        for i, (name, p) in enumerate(new_adapters(unet, layers_of(unet), torch.Generator()).items())
    }
    with beside(unet, additions(parameters)) as without:
        with torch.no_grad(), without():
            goals = aim(unet, z, t, c, empty, 1.5), predicted(unet, z, t, anchors)
        ours = sum(
            weight * torch.nn.functional.mse_loss(predicted(unet, z, t, texts), goal)
            for weight, texts, goal in zip((1, 1000.0), (c, anchors), goals, strict=True)
        )
    gradient = torch.autograd.grad(ours, list(parameters.values()))

    # The same network with weights W + up down.
    changed = small_pipe().unet.double()
    weights = {name: p.detach() for name, p in changed.named_parameters()}
    for name in layers_of(changed):
        up, down = parameters[f"up.{name}"][0], parameters[f"down.{name}"][0]
        weights[f"{name}.weight"] = weights[f"{name}.weight"] + (up[:, None] * down.flatten()).reshape(-1, *down.shape)

    def predict(texts):
        return torch.cat([torch.func.functional_call(changed, weights, (z, t, text[None])).sample for text in texts])

    with torch.no_grad():
        neutral, positive = (plain(z, t, text).sample for text in (empty, c))
        anchor_ori = torch.cat([plain(z, t, text[None]).sample for text in anchors])
    criteria = torch.nn.MSELoss()
    loss = criteria(predict(c), neutral - 1.5 * (positive - neutral)) + 1000.0 * criteria(predict(anchors), anchor_ori)
    torch.testing.assert_close(ours, loss, rtol=1e-9, atol=0)
    for a, b in zip(gradient, torch.autograd.grad(loss, list(parameters.values())), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-9)


def test_the_adapters_stand_at_every_layer_of_the_transformer_blocks(tiny_random_pipe, tiny_random_sd2_pipe):
    for pipe, projection in ((tiny_random_pipe, torch.nn.Conv2d), (tiny_random_sd2_pipe, torch.nn.Linear)):
        layers = layers_of(pipe.unet)
        blocks = [name for name, _ in pipe.unet.named_modules() if name.endswith("transformer_blocks.0")]
        parts = {
            "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2",
            *(f"attn{i}.{part}" for i in (1, 2) for part in ("to_q", "to_k", "to_v", "to_out.0")),
        }  # fmt: skip
        assert len(layers) == len(set(layers)) == len(parts) * len(blocks)
        assert all(
            name.split("transformer_blocks.0.")[-1].split(".attentions.")[-1][2:] in parts
            or name.split("transformer_blocks.0.")[-1] in parts
            for name in layers
        )
        assert isinstance(pipe.unet.get_submodule(next(name for name in layers if "proj_in" in name)), projection)


def test_what_is_trained_reaches_the_hook(tiny_random_pipe, church_task, tmp_path):
    edit = SHORT.edit(tiny_random_pipe, church_task, work=work_in(tmp_path))
    (hook,) = edit.hooks
    names = {f"unet.{name}.weight" for name in layers_of(tiny_random_pipe.unet)}
    assert set(hook.tensors) == {f"{kind}.{name}" for kind in ("up", "down") for name in names}
    assert all(hook.tensors[f"up.{name}"].abs().max() > 0 for name in names) and not edit.changes
    assert hook.settings == {"phrases": [["church", "small chapel"]]}
    total = sum(tensor.numel() for tensor in hook.tensors.values())
    assert edit.info["adapters"]["church"]["trained_parameters"] == total


def test_two_concepts_are_trained_apart_and_stand_side_by_side(tiny_random_pipe, tmp_path):
    church, tench = Concept("church", "object"), Concept("tench", "object")
    (both,) = SHORT.edit(tiny_random_pipe, ErasureTask((church, tench)), work=work_in(tmp_path / "a")).hooks
    (one,) = SHORT.edit(tiny_random_pipe, ErasureTask((church,)), work=work_in(tmp_path / "b")).hooks
    for name, tensor in both.tensors.items():
        assert len(tensor) == 2 and torch.equal(tensor[:1], one.tensors[name]), name
    with put_on([both], tiny_random_pipe):
        pass


@given(seed=st.integers(0, 1000), stride=st.sampled_from([1, 2]), kernel=st.sampled_from([1, 3]))
@settings(max_examples=20, deadline=None)
def test_an_adapter_of_a_convolution_is_that_of_its_weight_image_by_image(seed, stride, kernel):
    layer = torch.nn.Conv2d(3, 5, kernel, stride, kernel // 2, bias=False).double()
    x, down, up, gates = (
        draw(seed, 2, 3, 6, 6),
        draw(seed + 1, 2, 3, kernel, kernel),
        draw(seed + 2, 2, 5),
        draw(seed + 3, 2, 2),
    )
    ours = rank_one(layer, x, down, up, gates)
    for image in range(2):
        change = sum(gates[image, k] * torch.einsum("o,ihw->oihw", up[k], down[k]) for k in range(2))
        expected = torch.nn.functional.conv2d(x[image : image + 1], change, None, stride, kernel // 2)
        torch.testing.assert_close(ours[image : image + 1], expected, rtol=1e-9, atol=1e-9)


@given(seed=st.integers(0, 1000), stride=st.sampled_from([1, 2]), kernel=st.sampled_from([1, 3]))
@settings(max_examples=20, deadline=None)
def test_mixed_factors_of_a_convolution_are_summed_before_they_meet(seed, stride, kernel):
    layer = torch.nn.Conv2d(3, 5, kernel, stride, kernel // 2, bias=False).double()
    x, down, up, gates = (
        draw(seed, 2, 3, 6, 6),
        draw(seed + 1, 2, 3, kernel, kernel),
        draw(seed + 2, 2, 5),
        draw(seed + 3, 2, 2),
    )
    for image in range(2):
        (ours,) = mixed(layer, x[image : image + 1], down, up, gates[image : image + 1])
        down_sum, up_sum = (torch.tensordot(gates[image], factor, 1) for factor in (down, up))
        change = torch.einsum("o,ihw->oihw", up_sum, down_sum)
        (expected,) = torch.nn.functional.conv2d(x[image : image + 1], change, None, stride, kernel // 2)
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_as_released_latents_are_of_random_size_and_the_hook_is_told(tiny_random_pipe, church_task, tmp_path):
    noise, numbers = draw(0, 1, 4, 64, 64), torch.Generator().manual_seed(0)
    sides = {tuple(cut_at_random(noise, numbers).shape[-2:]) for _ in range(200)}
    assert sides == {(height, width) for height in (32, 40, 48, 56) for width in (32, 40, 48, 56)}, "256 to 448 pixels"
    eraser = Spm(iterations=3, steps=3, lr=1e-2, warmup=0.0, as_released=True, gate_scale=2.0)
    edit = eraser.edit(tiny_random_pipe, church_task, work=work_in(tmp_path / "a"))
    (hook,) = edit.hooks
    assert hook.settings == {"phrases": [["church", "small chapel"]], "scale": 2.0, "mixed": True}
    (paper,) = SHORT.edit(tiny_random_pipe, church_task, work=work_in(tmp_path / "b")).hooks
    assert any(not torch.equal(tensor, paper.tensors[name]) for name, tensor in hook.tensors.items())


def test_an_image_does_not_depend_on_its_batch_and_the_file_keeps_the_hook(tiny_random_pipe, church_task, tmp_path):
    pipe = tiny_random_pipe
    edit = SHORT.edit(pipe, church_task, work=work_in(tmp_path / "work"))
    (hook,) = edit.hooks
    hook.tensors = {name: tensor + 0.3 * draw(1, *tensor.shape).float() for name, tensor in hook.tensors.items()}
    again = Edit.load(edit.save(tmp_path / "edit.safetensors"))
    assert_same(again, edit)
    before = [parameter.clone() for parameter in pipe.unet.parameters()]
    x, t, text = draw(1, 3, 4, 8, 8).float(), torch.tensor([300]), draw(2, 3, 77, 24).float()
    with torch.no_grad():
        unedited = pipe.unet(x, t, text).sample
        with again.applied(pipe):
            acting = again.hooks[0]
            acting.gates = torch.tensor([[0.2], [1.0], [0.5]])
            together = pipe.unet(x, t, text).sample
            assert (together - unedited).abs().max() > 0.01
            for i in range(3):
                acting.gates = torch.tensor([[0.2], [1.0], [0.5]])[i : i + 1]
                alone = pipe.unet(x[i : i + 1], t, text[i : i + 1]).sample
                torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)
        assert torch.equal(pipe.unet(x, t, text).sample, unedited)
    assert all(torch.equal(a, b) for a, b in zip(before, pipe.unet.parameters(), strict=True))
    with pytest.raises(UserError, match=r"\(spm\) and is in no weights"):
        lora(edit, pipe)


def test_an_adapter_of_another_model_is_refused(tiny_random_pipe, tiny_random_sd2_pipe, church_task, tmp_path):
    edit = SHORT.edit(tiny_random_pipe, church_task, work=work_in(tmp_path))
    with pytest.raises(UserError, match="the edit was made for another model"), edit.applied(tiny_random_sd2_pipe):
        pass


def test_anchors_are_of_the_texts_length_and_not_near_it():
    context, numbers = draw(1, 1, 5, 3), torch.Generator().manual_seed(0)
    anchors = anchors_of(context, 4000, numbers)
    lengths = anchors.flatten(1).norm(dim=1) / context.norm()
    assert 0.8 <= lengths.min() < 0.82 and 1.18 < lengths.max() <= 1.2
    cosines = torch.cosine_similarity(anchors.flatten(1), context.flatten(1))
    # Of directions drawn evenly, those with cos > 0 are taken with 1 - cos and the others always.
    even = draw(2, 20000, 15)
    cosine = (even @ context.flatten()) / even.norm(dim=1) / context.norm()
    taken = (1 - cosine).clamp(max=1)
    assert cosines.mean().item() == pytest.approx(((cosine * taken).mean() / taken.mean()).item(), abs=0.012)
    assert cosines.mean() < -0.02


def test_the_rate_rises_and_falls_in_three_cosines():
    from transformers import get_cosine_with_hard_restarts_schedule_with_warmup as schedule

    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = schedule(optimizer, 500, 3000, 3)
    eraser = Spm()
    for step in range(3000):
        assert math.isclose(eraser.rate(step), theirs.get_last_lr()[0], abs_tol=1e-12), step
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("kill_after", [2, 4])
def test_a_training_that_was_stopped_ends_in_the_same_bits(tiny_random_pipe, tmp_path, kill_after):
    task = ErasureTask((Concept("church", "object"), Concept("tench", "object")))
    assert_resumes(SHORT, tiny_random_pipe, task, tmp_path, kill_after, steps=6)


def test_options_and_models_that_cannot_be_are_refused():
    for wrong in (
        {"eta": -1},
        {"anchoring": float("nan")},
        {"anchors": 0},
        {"steps": 1},
        {"warmup": 1.0},
        {"cycles": 0},
    ):
        with pytest.raises(UserError, match=f"spm: {next(iter(wrong))}"):
            Spm(**wrong)
    assert set(Spm.unsupported) == {"sdxl", "sd3", "flux"} and Membrane.name == Spm.name
