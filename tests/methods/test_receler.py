"""Receler's step, masks and erasers are those of the release; its hook treats every image alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional
from training_helpers import assert_resumes, assert_same, draw, work_in

from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.edit import Edit
from erasebench.errors import UserError
from erasebench.export.lora import lora
from erasebench.methods.adapters.receler import PARTS, cross_attention, erased
from erasebench.methods.trained import receler
from erasebench.methods.trained.attention import recorded_attention
from erasebench.methods.trained.examples import token_columns
from erasebench.methods.trained.latents import ddim, denoised, initial_noise, remaining_and_timestep
from erasebench.methods.trained.receler import Receler, masks_of, new_erasers, outside
from erasebench.methods.trained.training import below, generator
from erasebench.models.encode import encode_prompts

SHORT = Receler(iterations=3, inner=6, steps=3, words=4, attack_steps=2, lr=1e-2)


class Released(nn.Module):
    """An eraser as the release writes it."""

    def __init__(self, tensors: dict[str, torch.Tensor], layer: str) -> None:
        super().__init__()
        inner, width = tensors[f"{layer}.down.weight"].shape
        self.down, self.act, self.up = nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width)
        self.double().load_state_dict({part: tensors[f"{layer}.{part}"] for part in PARTS})

    def forward(self, hidden_states):
        return self.up(self.act(self.down(hidden_states)))


def test_one_step_is_that_of_the_release(small_pipe, church_task, tmp_path, monkeypatch):
    """Loss and gradient of the first step in float64, by the loop of the release with modules of its own."""

    def exact():
        pipe = small_pipe()
        pipe.unet.double(), pipe.text_encoder.double()
        return pipe

    pipe, eraser = exact(), replace(SHORT, iterations=1, attack_steps=3, words=5)
    work, ours = work_in(tmp_path), {}

    def spy(self, work, parameters, loss_of, optimization, kept):
        with torch.no_grad():
            for i, parameter in enumerate(parameters.values()):  # an eraser of zeros has no gradient but at its end
                parameter.add_(0.1 * draw(i, *parameter.shape)).requires_grad_(True)
        ours["start"] = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        ours["words"] = {name: tensor.detach().clone() for name, tensor in kept.items() if name.endswith("words")}
        loss = loss_of(0)
        ours["loss"] = loss.detach()
        ours["gradient"] = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
        ours["moved"] = {name: tensor.detach().clone() for name, tensor in kept.items() if name.endswith("words")}
        return {}

    monkeypatch.setattr(receler, "train", spy)
    eraser.edit(pipe, church_task, work=work)

    numbers, unet, phrases = generator(work, 0), exact().unet, ["church", "small chapel"]
    word_idx = below(0, 2, numbers)
    emb_0, emb_p = encode_prompts(pipe, ["", phrases[word_idx]])[0][:, None]
    scheduler = ddim(pipe.scheduler.config, 3)
    remaining, t = remaining_and_timestep(scheduler, numbers)
    erasers = {name: Released(ours["start"], name) for name in cross_attention(unet)}
    outs, on = {}, [True]
    for name, module in cross_attention(unet).items():

        def hook(layer, inputs, output, name=name):
            if not on[0]:
                return output
            outs[name] = erasers[name](output)
            return outs[name] + output

        module.register_forward_hook(hook)
    text_len = len(pipe.tokenizer(phrases[word_idx], add_special_tokens=False).input_ids)
    word_indices = torch.arange(1, 1 + text_len)
    advrs_indices = torch.arange(1 + text_len, 1 + text_len + 5)
    with torch.no_grad():
        z = denoised(unet, scheduler, initial_noise(unet, 1, numbers), emb_p, emb_0, 3.0, remaining)
        on[0] = False
        e_0 = unet(z, t, emb_0).sample
        with recorded_attention(unet) as maps:
            e_p = unet(z, t, emb_p).sample
        on[0] = True
    (middle,) = [
        m[..., word_indices].mean(-1).mean(0) for m in maps.values() if m.shape[1] == 16
    ]  # 4 x 4: nearest to 2
    middle = ((middle - middle.min()) / (middle.max() - middle.min()) >= 0.1).double().reshape(1, 1, 4, 4)
    masks = {
        name: functional.interpolate(middle, (round(m.shape[1] ** 0.5),) * 2).flatten() for name, m in maps.items()
    }
    words = nn.Parameter(ours["words"][f"{word_idx}.words"].clone())
    opt = torch.optim.Adam([words], lr=0.1, weight_decay=0.1)
    for inner_it in range(3):
        emb_n = emb_p.clone()
        emb_n[:, advrs_indices, :] = words.data
        emb_n.requires_grad = True
        e_n = unet(z, t, emb_n).sample
        (grad,) = torch.autograd.grad(functional.mse_loss(e_n, e_p), [emb_n], retain_graph=True)
        words.grad = grad[:, advrs_indices, :]
        opt.step()
        if inner_it == 2:
            loss = functional.mse_loss(e_n, e_0 - 1.0 * (e_p - e_0))
            reg = 0.0
            for name, out in outs.items():
                flip = 1 - masks[name]
                reg = reg + ((out[0] * flip[:, None]) ** 2).mean(1).sum() / (flip.sum() + 1e-9)
            loss = loss + 0.1 * reg / len(outs)
    torch.testing.assert_close(ours["loss"], loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(ours["moved"][f"{word_idx}.words"], words.data, rtol=1e-8, atol=1e-10)
    for name, eraser_of in erasers.items():
        own = dict(eraser_of.named_parameters())
        for part, grad in zip(
            PARTS, torch.autograd.grad(loss, [own[p] for p in PARTS], retain_graph=True), strict=True
        ):
            torch.testing.assert_close(ours["gradient"][f"{name}.{part}"], grad, rtol=1e-7, atol=1e-13)


def test_as_released_a_list_is_one_concept(tiny_random_pipe, church_task, tmp_path):
    edits = [
        replace(SHORT, as_released=released).edit(tiny_random_pipe, church_task, work=work_in(tmp_path / str(released)))
        for released in (False, True)
    ]
    assert [edit.info["phrases"] for edit in edits] == [["church", "small chapel"], ["church, small chapel"]]


def test_masks_are_taken_at_a_quarter_of_the_side_and_fitted_to_every_layer():
    small = torch.zeros(2, 4, 9)
    small[:, :, 5] = torch.tensor([1.0, 0.55, 0.54, 0.5])  # min-max: 1, 0.1, 0.08, 0
    maps = {"large": draw(1, 2, 16, 9).abs().float(), "small": small}
    masks = masks_of(maps, torch.tensor([5]), (8, 8), 0.09)
    assert masks["small"].tolist() == [1, 1, 0, 0]
    assert masks["large"].reshape(4, 4).tolist() == [[1, 1, 1, 1]] * 2 + [[0, 0, 0, 0]] * 2


def test_what_is_added_inside_the_mask_costs_nothing():
    added, mask = {"a": draw(1, 1, 4, 3)}, {"a": torch.tensor([1.0, 1, 0, 0])}
    expected = added["a"][0, 2:].square().mean()
    torch.testing.assert_close(outside(added, mask), expected.double(), rtol=1e-6, atol=0)
    assert outside(added, {"a": torch.ones(4)}) == 0


def test_erasers_start_as_nothing_and_stand_behind_every_cross_attention(tiny_random_pipe, church_task, tmp_path):
    unet = tiny_random_pipe.unet
    fresh = new_erasers(unet, 6, torch.Generator().manual_seed(0))
    layers = [name for name, _ in unet.named_modules() if name.endswith("attn2")]
    assert set(fresh) == {f"{layer}.{part}" for layer in layers for part in PARTS}
    for layer in layers:
        width = unet.get_submodule(layer).to_out[0].out_features
        assert not erased(draw(1, 2, 5, width), fresh, layer).any()
        assert fresh[f"{layer}.down.weight"].abs().max() <= width**-0.5
    edit = SHORT.edit(tiny_random_pipe, church_task, work=work_in(tmp_path))
    (hook,) = edit.hooks
    assert set(hook.tensors) == set(fresh) and not edit.changes
    assert all(hook.tensors[f"{layer}.up.weight"].abs().max() > 0 for layer in layers)
    assert edit.info["trained_parameters"] == sum(tensor.numel() for tensor in fresh.values())


def test_training_leads_away_from_the_concept(tiny_random_pipe, church_task, tmp_path):
    eraser = replace(SHORT, iterations=40, localised=0.0, lr=3e-2)
    curve = eraser.edit(tiny_random_pipe, church_task, work=work_in(tmp_path)).info["loss_curve"]
    assert sum(curve[-8:]) < 0.7 * sum(curve[:8])


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
            together = pipe.unet(x, t, text).sample
            assert (together - unedited).abs().max() > 0.01
            for i in range(3):
                alone = pipe.unet(x[i : i + 1], t, text[i : i + 1]).sample
                torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)
        assert torch.equal(pipe.unet(x, t, text).sample, unedited)
    assert all(torch.equal(a, b) for a, b in zip(before, pipe.unet.parameters(), strict=True))
    with pytest.raises(UserError, match=r"\(receler\) and is in no weights"):
        lora(edit, pipe)


def test_erasers_of_another_model_are_refused(tiny_random_pipe, small_pipe, church_task, tmp_path):
    edit = SHORT.edit(tiny_random_pipe, church_task, work=work_in(tmp_path))
    (hook,) = edit.hooks
    other = small_pipe(transformer_layers_per_block=2)
    with pytest.raises(UserError, match="the edit was made for another model"), edit.applied(other):
        pass
    hook.tensors = {name: tensor[:-1] if name.endswith("up.bias") else tensor for name, tensor in hook.tensors.items()}
    with pytest.raises(UserError, match="the edit was made for another model"), edit.applied(tiny_random_pipe):
        pass


@pytest.mark.parametrize("kill_after", [1, 2])
def test_a_training_that_was_stopped_ends_in_the_same_bits(tiny_random_pipe, tmp_path, kill_after):
    task = ErasureTask((Concept("church", "object"), Concept("tench", "object")))
    assert_resumes(SHORT, tiny_random_pipe, task, tmp_path, kill_after, steps=3)


def test_the_soft_words_stand_behind_the_phrase(tiny_random_pipe):
    assert token_columns(tiny_random_pipe, "{}", "church", pooled=False).tolist() == [1, 2, 3, 4, 5, 6]


def test_options_and_models_that_cannot_be_are_refused(tiny_random_pipe, church_task, tmp_path):
    for wrong in ({"inner": 0}, {"words": 0}, {"eta": -1}, {"localised": float("inf")}, {"threshold": 1.0}):
        with pytest.raises(UserError, match=f"receler: {next(iter(wrong))}"):
            Receler(**wrong)
    with pytest.raises(UserError, match="save_memory=false"):
        Receler(save_memory=True)
    with pytest.raises(UserError, match="no room for 75 soft words"):
        replace(SHORT, words=75).edit(tiny_random_pipe, church_task, work=work_in(tmp_path))
    assert set(Receler.unsupported) == {"sdxl", "sd3", "flux"}
