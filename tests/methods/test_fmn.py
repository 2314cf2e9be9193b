"""Forget-Me-Not: loss, gradient, columns and parameters are those of the release."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from training_helpers import assert_resumes, draw, noise_pictures, work_in

from erasebench.errors import UserError
from erasebench.methods.trained import fmn
from erasebench.methods.trained.attention import recorded_attention
from erasebench.methods.trained.examples import token_columns
from erasebench.methods.trained.fmn import ForgetMeNot, Place, attention_loss
from erasebench.methods.trained.parameters import group
from erasebench.models.encode import encode_prompts
from erasebench.models.targets import named_weight

SHORT = ForgetMeNot(iterations=2, lr=1e-3, images=2, image_steps=2)


def test_loss_and_gradient_of_a_step_are_those_of_the_release(small_pipe):
    unet = small_pipe().unet.double()
    z, t, text = draw(3, 1, 4, 8, 8), torch.tensor([421]), draw(1, 1, 77, 24)
    columns = torch.tensor([5, 6, 12])
    parameters = [parameter for name, parameter in unet.named_parameters() if "attn2" in name]
    # The attention of every layer by hand: softmax(q k^T / sqrt(d)) for each head, from what enters the layer.
    squares: list[torch.Tensor] = []

    def by_hand(layer, inputs, options, output):
        x, c = inputs[0] if inputs else options["hidden_states"], options["encoder_hidden_states"]
        q, k = layer.to_q(x)[0], layer.to_k(c)[0]
        width = q.shape[1] // layer.heads
        for head in range(layer.heads):
            part = slice(head * width, (head + 1) * width)
            scores = q[:, part] @ k[:, part].T / width**0.5
            squares.append((scores.exp() / scores.exp().sum(1, keepdim=True))[:, columns].square().sum())

    hooks = [
        module.register_forward_hook(by_hand, with_kwargs=True)
        for name, module in unet.named_modules()
        if name.endswith("attn2")
    ]
    unet(z, t, text)
    for hook in hooks:
        hook.remove()
    loss = sum(squares).sqrt()
    expected = torch.autograd.grad(loss, parameters, allow_unused=True)
    with recorded_attention(unet) as maps:
        unet(z, t, text)
        ours = attention_loss(maps, columns)
    gradients = torch.autograd.grad(ours, list(group(unet, "x").values()), allow_unused=True)
    torch.testing.assert_close(ours, loss, rtol=1e-10, atol=0)
    for a, b in zip(gradients, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-14)
    assert any(gradient is None for gradient in gradients)  # behind the last layer's probabilities
    assert max(gradient.abs().max() for gradient in gradients if gradient is not None) > 1e-8


def test_the_columns_are_those_of_the_concepts_tokens_and_of_the_end_of_text(tiny_random_pipe, church_task, tmp_path):
    edit = SHORT.edit(tiny_random_pipe, church_task, work=work_in(tmp_path))
    assert edit.info["sentences"] == ["a photo of church", "a photo of small chapel"]
    for sentence, phrase, columns in zip(
        edit.info["sentences"], ["church", "small chapel"], edit.info["columns"], strict=True
    ):
        ids = tiny_random_pipe.tokenizer(sentence, padding="max_length").input_ids
        own = tiny_random_pipe.tokenizer(phrase, add_special_tokens=False).input_ids
        end = [i for i, token in enumerate(ids) if token == tiny_random_pipe.tokenizer.eos_token_id]
        assert [ids[i] for i in columns[: len(own)]] == own and columns[len(own) :] == end
        assert token_columns(tiny_random_pipe, "a photo of {}", phrase, False).tolist() == columns[: len(own)]


def test_where_padding_is_another_token_only_the_end_itself_is_looked_away_from(small_pipe):
    pipe = small_pipe()
    pipe.tokenizer.pad_token = "a"  # SD 2.x pads with "!"
    columns = token_columns(pipe, "a photo of {}", "dog", True).tolist()
    assert columns == [*range(9, 12), 12]


@pytest.mark.parametrize("choice", ["full", "x"])
def test_all_is_trained_that_the_loss_can_see(tiny_random_pipe, church_task, tmp_path, choice):
    edit = replace(SHORT, train=choice).edit(tiny_random_pipe, church_task, work=work_in(tmp_path))
    names = {name.removeprefix("unet.") for name in edit.changes}
    everything = set(group(tiny_random_pipe.unet, choice))
    # The last to be evaluated; the middle block comes behind the others in the list of modules alone.
    last = [
        name for name, _ in tiny_random_pipe.unet.named_modules() if "up_blocks" in name and name.endswith("attn2")
    ][-1]
    behind = everything - names
    assert {f"{last}.{part}" for part in ("to_v.weight", "to_out.0.weight", "to_out.0.bias")} <= behind
    if choice == "x":
        assert len(behind) == 3
    else:
        assert "conv_out.weight" in behind and "conv_in.weight" in names and "time_embedding.linear_1.weight" in names
    for name, change in edit.changes.items():
        assert not torch.equal(change.value, named_weight(tiny_random_pipe, name)), name


def test_images_of_every_phrase_are_made_with_its_sentence(tiny_random_pipe, church_task, tmp_path):
    asked = []

    def sample(prompts, seeds, steps, guidance):
        asked.append((list(prompts), steps, guidance))
        return noise_pictures(prompts, seeds, steps, guidance)

    SHORT.edit(tiny_random_pipe, church_task, work=replace(work_in(tmp_path), sample=sample))
    assert asked == [(["a photo of church", "a photo of small chapel"] * 2, 2, 7.5)]


def test_training_takes_attention_from_the_concept(tiny_random_pipe, church_task, tmp_path):
    eraser = replace(SHORT, iterations=20, lr=1e-2, train="x", phrases=False)
    edit = eraser.edit(tiny_random_pipe, church_task, work=work_in(tmp_path))
    assert edit.info["loss"]["last"] < 0.8 * edit.info["loss"]["first"]


def test_memory_cannot_be_saved():
    with pytest.raises(UserError, match="fmn: save_memory=true"):
        ForgetMeNot(save_memory=True)


# Textual inversion.

INVERTED = replace(SHORT, inversion=3, inversion_words=4, inversion_lr=1e-2, phrases=False)


@pytest.mark.parametrize("pooled", [False, True])
def test_soft_words_stand_where_the_phrase_would_and_start_as_its_tokens(small_pipe, pooled):
    pipe = small_pipe()
    place = Place.of(pipe, "a photo of {}", "church", 6, pooled)  # six tokens: the tokenizer's are single characters
    encoder = pipe.text_encoder
    start = place.start(encoder, torch.Generator())
    torch.testing.assert_close(place.read(encoder, start), encode_prompts(pipe, ["a photo of church"])[0])
    assert place.columns.tolist() == token_columns(pipe, "a photo of {}", "church", pooled).tolist()
    longer = Place.of(pipe, "a photo of {}", "ox", 5, pooled).start(encoder, torch.Generator().manual_seed(1))
    own = pipe.tokenizer("ox", add_special_tokens=False).input_ids
    assert torch.equal(longer[0, :2], encoder.get_input_embeddings().weight[own]) and longer[0, 2:].std() > 0.5


def test_a_step_of_inversion_is_the_usual_loss_of_the_words_alone(small_pipe, church_task, tmp_path, monkeypatch):
    """Loss and gradient in float64, beside embeddings that are put into the text encoder by hand."""
    pipe, seen = small_pipe(), []
    for part in (pipe.unet, pipe.text_encoder):
        part.double()
    z, t, noise = draw(3, 1, 4, 8, 8), torch.tensor([421]), draw(4, 1, 4, 8, 8)
    monkeypatch.setattr(fmn, "noised", lambda *args: (z, t, noise))

    def spy(eraser, work, parameters, loss_of, optimization):
        (words,) = parameters.values()
        seen.append((eraser.iterations, eraser.lr, words, loss_of(0), optimization))
        return {}

    monkeypatch.setattr(fmn, "train", spy)
    place = Place.of(pipe, "a photo of {}", "church", 4, True)
    INVERTED.invert(pipe.unet, pipe.text_encoder, place, z, None, work_in(tmp_path))
    (iterations, rate, words, loss, optimization) = seen[0]
    assert (iterations, rate, optimization.options) == (3, 1e-2, {"weight_decay": 0.0})
    (ours,) = torch.autograd.grad(loss, [words])
    table = pipe.text_encoder.get_input_embeddings()
    rows = torch.nn.Parameter(table(place.ids)[0].detach().clone())
    with torch.no_grad():
        rows[9:13] = words[0]
    handle = table.register_forward_hook(lambda layer, inputs, output: rows[None])
    theirs = ((pipe.unet(z, t, pipe.text_encoder(place.ids)[0]).sample - noise) ** 2).mean()
    handle.remove()
    (gradient,) = torch.autograd.grad(theirs, [rows])
    torch.testing.assert_close(loss, theirs, rtol=1e-10, atol=0)
    torch.testing.assert_close(ours[0], gradient[9:13], rtol=1e-8, atol=1e-14)
    assert ours.abs().max() > 1e-8


def test_inversion_comes_first_and_goes_on_where_it_was_killed(tiny_random_pipe, church_task, tmp_path):
    for kill_after in (2, 4):
        assert_resumes(INVERTED, tiny_random_pipe, church_task, tmp_path / str(kill_after), kill_after, 5)
    edit = INVERTED.edit(tiny_random_pipe, church_task, work=work_in(tmp_path / "a"))
    assert (
        list(edit.info["inversion"]) == ["church"] and edit.info["inversion"]["church"]["trained_parameters"] == 4 * 24
    )
    assert edit.info["columns"][0][:4] == [9, 10, 11, 12] and not any("text_encoder" in name for name in edit.changes)
    without = replace(INVERTED, inversion=0).edit(tiny_random_pipe, church_task, work=work_in(tmp_path / "b"))
    assert without.info["columns"][0][:6] == list(range(9, 15)) and "inversion" not in without.info
    two = replace(INVERTED, phrases=True).edit(tiny_random_pipe, church_task, work=work_in(tmp_path / "c"))
    assert list(two.info["inversion"]) == ["church", "small chapel"]


def test_inversion_learns_the_images(tiny_random_pipe, church_task, tmp_path, monkeypatch):
    same = draw(3, 1, 4, 8, 8).float(), torch.tensor([421]), draw(4, 1, 4, 8, 8).float()
    monkeypatch.setattr(fmn, "noised", lambda *args: same)
    eraser = replace(INVERTED, inversion=60, inversion_lr=1e-1, images=1, iterations=1)
    curve = eraser.edit(tiny_random_pipe, church_task, work=work_in(tmp_path)).info["inversion"]["church"]["loss_curve"]
    assert len(curve) == 60 and curve[-1] < curve[0]


def test_options_of_inversion_that_cannot_be_are_refused():
    for wrong in ({"inversion": -1}, {"inversion": 1.5}, {"inversion_lr": 0}, {"inversion_words": 0}):
        with pytest.raises(UserError, match=f"fmn: {next(iter(wrong))}"):
            ForgetMeNot(**wrong)
