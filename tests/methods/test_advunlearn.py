"""AdvUnlearn's step is that of the release: an attack by a soft prefix, ESD's loss, and prompts to retain."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from training_helpers import assert_resumes, assert_same, work_in

from erasebench.concepts import Concept, ErasureTask
from erasebench.errors import UserError
from erasebench.export.lora import lora
from erasebench.methods.trained import advunlearn
from erasebench.methods.trained.advunlearn import AdvUnlearn, Encoder
from erasebench.methods.trained.latents import ddim, denoised, initial_noise, remaining_and_timestep
from erasebench.methods.trained.training import below, generator
from erasebench.models.encode import encode_prompts
from erasebench.models.targets import named_weight

SHORT = AdvUnlearn(iterations=3, steps=3, attack_steps=2, retain_batch=2, warmup=0.0, lr=1e-3)


def test_an_encoder_reads_texts_as_the_pipeline_and_a_prefix_of_words_as_these_words(tiny_random_pipe):
    pipe, encoder = tiny_random_pipe, Encoder(tiny_random_pipe)
    torch.testing.assert_close(encoder(["church", ""]).detach(), encode_prompts(pipe, ["church", ""])[0])
    # The tokenizer's tokens are characters: "b c" is the words b and c.
    ids = pipe.tokenizer("b", add_special_tokens=False).input_ids
    prefixed = encoder(["c"], encoder.vocabulary[ids][None]).detach()
    torch.testing.assert_close(prefixed, encode_prompts(pipe, ["b c"])[0])
    torch.testing.assert_close(encoder(["c"]).detach(), encode_prompts(pipe, ["c"])[0])  # nothing is left behind


@pytest.mark.parametrize(("warm", "released"), [(False, False), (True, False), (False, True)])
def test_one_step_is_that_of_the_release(small_pipe, church_task, tmp_path, monkeypatch, warm, released):
    """Loss and gradient of the first step in float64, by the loop of the release, with its defects or without them."""

    def exact():
        pipe = small_pipe()
        pipe.unet.double(), pipe.text_encoder.double()
        return pipe

    pipe, work, ours = exact(), work_in(tmp_path), {}
    eraser = replace(
        SHORT, iterations=1, attack_steps=3, retain_weight=0.4, eta=1.5, warmup=float(warm), as_released=released
    )

    def spy(self, work, parameters, loss_of, optimization, kept):
        with torch.no_grad():  # an encoder that has been trained for a while
            for i, parameter in enumerate(parameters.values()):
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        ours["values"] = {name: p.detach().clone() for name, p in parameters.items()}
        loss = loss_of(0)
        ours["loss"] = loss.detach()
        ours["gradient"] = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
        return {}

    monkeypatch.setattr(advunlearn, "train", spy)
    eraser.edit(pipe, church_task, work=work)

    pipe, numbers = exact(), generator(work, 0)
    unet, tokenizer, text_encoder = pipe.unet, pipe.tokenizer, pipe.text_encoder
    phrases, retain = ["church", "small chapel"], ["a photo of a gas pump", "a photo of a tench"]
    original = {
        text: row[None]
        for text, row in zip(["", *phrases, *retain], encode_prompts(pipe, ["", *phrases, *retain])[0], strict=True)
    }
    with torch.no_grad():
        for name, value in ours["values"].items():
            text_encoder.get_parameter(name).copy_(value)
    scheduler = ddim(pipe.scheduler.config, 3)
    word = phrases[below(0, 2, numbers)]
    emb_0, emb_p = original[""], original[word]
    criteria = nn.MSELoss()

    def sampled(embeddings):
        remaining, t = remaining_and_timestep(scheduler, numbers)
        noise = initial_noise(unet, len(embeddings), numbers)
        # One after another, each with its own text.
        each = [
            denoised(unet, scheduler, x[None], text[None], emb_0, 3.0, remaining)
            for x, text in zip(noise, embeddings, strict=True)
        ]
        return torch.cat(each), t

    def encoded(words, prefix=None):
        ids = tokenizer(words, padding="max_length", max_length=77, return_tensors="pt").input_ids
        table, seen = text_encoder.get_input_embeddings(), {}
        if prefix is not None:
            embd, k = table(ids), prefix.shape[1]
            length = len(words[0].split()) if released else 76 - k
            sot, mid, _, eot = torch.split(embd, [1, length, k, 76 - length - k], dim=1)
            seen["embd"] = torch.cat([sot, prefix, mid, eot], dim=1)
        handle = table.register_forward_hook(lambda layer, inputs, out: seen.get("embd"))
        made = text_encoder(ids)[0]
        handle.remove()
        return made

    prefix = None
    if not warm:
        vocabulary = text_encoder.get_input_embeddings().weight.detach()
        prefix = vocabulary[torch.randint(0, len(vocabulary), (1, 1), generator=numbers)].clone().requires_grad_(True)
        opt = torch.optim.Adam([prefix], lr=1e-3)
        for _ in range(3):
            if not released:
                opt.zero_grad()
            handed_on = prefix.detach().clone()
            z, t = sampled(emb_p)
            with torch.no_grad():
                e_p = unet(z, t, emb_p).sample
            criteria(unet(z, t, encoded([word], prefix)).sample, e_p).backward(inputs=[prefix])
            opt.step()
        prefix = handed_on if released else prefix.detach()
    z, t = sampled(emb_p)
    with torch.no_grad():
        e_0, e_p = unet(z, t, emb_0).sample, unet(z, t, emb_p).sample
    loss = criteria(unet(z, t, encoded([word], prefix)).sample, e_0 - 1.5 * (e_p - e_0))
    words = [retain[below(0, 2, numbers)] for _ in range(2)]
    z, t = sampled(torch.cat([original[one] for one in words]))
    with torch.no_grad():
        retain_e_p = unet(z, t, torch.cat([original[one] for one in words])).sample
    loss = loss + 0.4 * criteria(unet(z, t, encoded(words)).sample, retain_e_p)
    torch.testing.assert_close(ours["loss"], loss.detach(), rtol=1e-10, atol=0)
    parameters = [text_encoder.get_parameter(name) for name in ours["gradient"]]
    for name, grad in zip(ours["gradient"], torch.autograd.grad(loss, parameters), strict=True):
        torch.testing.assert_close(ours["gradient"][name], grad, rtol=1e-7, atol=1e-13, msg=name)


def test_all_of_the_encoder_but_its_embeddings_is_trained(tiny_random_pipe, church_task, tmp_path):
    edit = SHORT.edit(tiny_random_pipe, church_task, work=work_in(tmp_path))
    names = {f"text_encoder.{name}" for name, _ in tiny_random_pipe.text_encoder.named_parameters()}
    assert (
        set(edit.changes) == {name for name in names if "embedding" not in name} and len(names - set(edit.changes)) == 2
    )
    assert any("final_layer_norm" in name for name in edit.changes)
    for name, change in edit.changes.items():
        assert change.value.shape == named_weight(tiny_random_pipe, name).shape
    assert edit.info["retained_prompts"] == 2 and not edit.hooks


def test_an_edit_of_the_text_encoder_comes_off_again_and_its_file_keeps_it(tiny_random_pipe, church_task, tmp_path):
    pipe = tiny_random_pipe
    before = encode_prompts(pipe, ["church"])[0]
    edit = SHORT.edit(pipe, church_task, work=work_in(tmp_path / "work"))
    again = edit.load(edit.save(tmp_path / "edit.safetensors"))
    assert_same(again, edit)
    with again.applied(pipe):
        assert not torch.allclose(encode_prompts(pipe, ["church"])[0], before, atol=1e-5)
    assert torch.equal(encode_prompts(pipe, ["church"])[0], before)
    with pytest.raises(UserError, match=r"text_encoder\..*not a linear layer.*use format=delta or diffusers"):
        lora(edit, pipe)  # norms and biases are in it


def test_prompts_to_retain_come_from_the_task_a_file_or_nowhere(church_task, tmp_path):
    file = tmp_path / "captions.txt"
    file.write_text("a dog in a park\na red bus\n")
    assert AdvUnlearn().retained(church_task) == ["a photo of a gas pump", "a photo of a tench"]
    assert AdvUnlearn(retain=str(file)).retained(church_task) == ["a dog in a park", "a red bus"]
    assert AdvUnlearn(retain="none").retained(church_task) == []
    key = AdvUnlearn(retain=str(file)).key("m", church_task)
    file.write_text("a dog in a park\na red car\n")
    assert AdvUnlearn(retain=str(file)).key("m", church_task) != key


def test_training_leads_away_from_the_concept(tiny_random_pipe, church_task, tmp_path):
    eraser = replace(SHORT, iterations=40, warmup=1.0, retain="none", lr=1e-2)
    curve = eraser.edit(tiny_random_pipe, church_task, work=work_in(tmp_path)).info["loss_curve"]
    assert sum(curve[-8:]) < 0.8 * sum(curve[:8])


@pytest.mark.parametrize(("kill_after", "start"), [(1, "random"), (2, "latest")])
def test_a_training_that_was_stopped_ends_in_the_same_bits(tiny_random_pipe, tmp_path, kill_after, start):
    task = ErasureTask((Concept("church", "object"), Concept("tench", "object")), ("gas pump",))
    assert_resumes(replace(SHORT, attack_start=start), tiny_random_pipe, task, tmp_path, kill_after, steps=3)


def test_options_and_models_that_cannot_be_are_refused():
    for wrong in ({"prefix": 0}, {"eta": -1}, {"warmup": 1.5}, {"attack_start": "last"}, {"retain_template": "a"}):
        with pytest.raises(UserError, match=f"advunlearn: {next(iter(wrong))}"):
            AdvUnlearn(**wrong)
    with pytest.raises(UserError, match="nowhere"):
        AdvUnlearn(retain="nowhere.csv")
    assert set(AdvUnlearn.unsupported) == {"sdxl", "sd3", "flux"}
