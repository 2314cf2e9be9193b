"""Few-shot unlearning: loss, gradient and parameters of the text encoder are those of the release."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from training_helpers import draw, work_in

from erasebench.errors import UserError
from erasebench.methods.trained.few_shot import OBJECTS, STYLES, FewShot, ascent_loss, chosen, read
from erasebench.models.encode import encode_prompts

SHORT = FewShot(iterations=3, lr=1e-4, images=2, image_steps=2)


def test_loss_and_gradient_of_a_step_are_those_of_the_release(small_pipe):
    pipe = small_pipe()
    unet, encoder = pipe.unet.double().requires_grad_(False), pipe.text_encoder.double()
    z, noise, t = draw(3, 2, 4, 8, 8), draw(4, 2, 4, 8, 8), torch.tensor([421, 30])
    texts = ["a photo of a church", "a good photo of the church"]
    parameters = list(chosen(encoder, "mlp+last").values())
    # train.py: text_embedding = text_encoder(tokenized)[0]; loss = -mse_loss(model_pred, target).
    tokenized = pipe.tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt").input_ids
    loss = -((unet(z, t, encoder(tokenized)[0]).sample - noise) ** 2).mean()
    expected = torch.autograd.grad(loss, parameters)
    ours = ascent_loss(unet, z, t, read(pipe.tokenizer, encoder, texts), noise)
    torch.testing.assert_close(ours, loss, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(ours, parameters), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-14)
    assert max(gradient.abs().max() for gradient in expected) > 1e-9


def test_texts_are_read_as_the_pipeline_reads_them(small_pipe):
    pipe, texts = small_pipe(), ["a church", ""]
    ours = read(pipe.tokenizer, pipe.text_encoder, texts)
    torch.testing.assert_close(ours, encode_prompts(pipe, texts)[0], rtol=1e-5, atol=1e-6)
    assert ours.requires_grad


def test_what_is_trained_are_the_mlps_and_the_last_attention(tiny_random_pipe, church_task, tmp_path):
    edit = SHORT.edit(tiny_random_pipe, church_task, work=work_in(tmp_path))
    everything = [name for name, _ in tiny_random_pipe.text_encoder.named_parameters()]
    mlps = {name for name in everything if ".mlp.fc1." in name or ".mlp.fc2." in name}
    last = {name for name in everything if "layers.1.self_attn." in name}  # of two layers
    assert len(mlps) == 2 * 4 and len(last) == 8
    assert set(edit.changes) == {f"text_encoder.{name}" for name in mlps | last}
    whole = replace(SHORT, train="all").edit(tiny_random_pipe, church_task, work=work_in(tmp_path / "all"))
    assert set(whole.changes) == {f"text_encoder.{name}" for name in everything}


def test_the_error_grows_and_how_far_the_weights_went_is_noted(tiny_random_pipe, church_task, tmp_path):
    few = SHORT.edit(tiny_random_pipe, church_task, work=work_in(tmp_path / "few"))
    more = replace(SHORT, iterations=30, lr=1e-3).edit(tiny_random_pipe, church_task, work=work_in(tmp_path / "more"))
    assert 0 < few.info["distance"] < more.info["distance"] < 1
    assert few.info["loss"]["first"] < 0  # it is minus an error
    texts, z = ["a photo of a church"], torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    t = torch.full((8,), 300)

    @torch.no_grad()
    def away() -> torch.Tensor:
        return encode_prompts(tiny_random_pipe, texts)[0].expand(8, -1, -1).clone()

    before = tiny_random_pipe.unet(z, t, away()).sample
    with more.applied(tiny_random_pipe):
        after = tiny_random_pipe.unet(z, t, away()).sample
    assert not torch.equal(before, after)


def test_the_network_gets_no_gradient(small_pipe, church_task, tmp_path):
    pipe = small_pipe()
    SHORT.edit(pipe, church_task, work=work_in(tmp_path))
    assert all(
        parameter.grad is None for part in (pipe.unet, pipe.text_encoder, pipe.vae) for parameter in part.parameters()
    )


def test_captions_are_as_many_as_the_release_has():
    assert len(OBJECTS) == len(set(OBJECTS)) == 27 and len(STYLES) == 19 and len(set(STYLES)) == 17
    assert all(caption.count("{}") == 1 for caption in (*OBJECTS, *STYLES))


def test_a_choice_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"few_shot: train is 'mlp'; it must be mlp\+last or all"):
        FewShot(train="mlp")
