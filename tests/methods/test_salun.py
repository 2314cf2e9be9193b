"""SalUn: mask, loss and gradient are those of the release; what is not in the mask stays bit for bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import draw, noise_pictures, work_in

from erasebench.concepts import Concept, ErasureTask
from erasebench.errors import UserError
from erasebench.methods.trained.parameters import group
from erasebench.methods.trained.salun import SalUn, forget_loss, largest, prompts_of, saliency
from erasebench.models.targets import named_weight

SHORT = SalUn(iterations=3, lr=1e-3, images=3, image_steps=2, batch=2)


def test_gradients_of_the_mask_are_those_of_the_release(small_pipe):
    unet = small_pipe().unet.double()
    batches = [
        (draw(i, 2, 4, 8, 8), torch.tensor([421, i]), draw(9 + i, 2, 4, 8, 8), draw(20 + i, 2, 77, 24),
         draw(30, 1, 77, 24).expand(2, -1, -1))
        for i in range(3)
    ]  # fmt: skip
    # generate_mask.py: optimizer.zero_grad, backward and += for each batch.
    c_guidance, gradients = 7.5, dict.fromkeys(dict(unet.named_parameters()), 0)
    for z, t, noise, forget_emb, null_emb in batches:
        unet.zero_grad()
        forget_out, null_out = unet(z, t, forget_emb).sample, unet(z, t, null_emb).sample
        preds = (1 + c_guidance) * forget_out - c_guidance * null_out
        loss = -((noise - preds) ** 2).mean()
        loss.backward()
        for name, parameter in unet.named_parameters():
            gradients[name] += parameter.grad
    unet.zero_grad()
    ours = saliency(unet, batches, 7.5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-9, atol=1e-12)
    assert not any(parameter.requires_grad for parameter in unet.parameters())


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=40, unique_by=abs), st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_the_mask_is_the_share_that_is_largest_in_size(values, share):
    whole = torch.tensor(values)
    mask = largest({"a": whole[:1], "b": whole[1:]}, share)
    flat = torch.cat([mask["a"], mask["b"]])
    count = max(1, int(len(values) * share))
    # The release ranks all numbers by size and takes those of the first ranks.
    ranks = torch.argsort(torch.argsort(-whole.abs()))
    assert torch.equal(flat, ranks < count)


def test_loss_and_gradient_of_a_step_are_those_of_the_release(small_pipe):
    unet = small_pipe().unet.double()
    z, t, concept, other = (
        draw(3, 2, 4, 8, 8), torch.tensor([421, 7]), draw(1, 2, 77, 24), draw(2, 2, 77, 24),
    )  # fmt: skip
    parameters = list(unet.parameters())
    forget_out = unet(z, t, concept).sample
    pseudo_out = unet(z, t, other).sample.detach()
    loss = ((forget_out - pseudo_out) ** 2).mean()
    expected = torch.autograd.grad(loss, parameters)
    ours = forget_loss(unet, z, t, concept, other)
    torch.testing.assert_close(ours, loss, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(ours, parameters), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("share", [0.5, 0.02])
def test_weights_outside_the_mask_stay_and_those_inside_move(tiny_random_pipe, church_task, tmp_path, share):
    edit = replace(SHORT, share=share).edit(tiny_random_pipe, church_task, work=work_in(tmp_path))
    total = moved = 0
    for name, parameter in tiny_random_pipe.unet.named_parameters():
        total += parameter.numel()
        if f"unet.{name}" in edit.changes:
            moved += int((edit.changes[f"unet.{name}"].value != parameter).sum())
    assert edit.info["free_weights"] == pytest.approx(share * total, abs=2)
    assert 0.98 * share * total < moved <= edit.info["free_weights"]


@pytest.mark.parametrize("choice", ["full", "x"])
def test_what_is_trained_is_the_group(tiny_random_pipe, church_task, tmp_path, choice):
    edit = replace(SHORT, train=choice, share=1.0).edit(tiny_random_pipe, church_task, work=work_in(tmp_path))
    assert set(edit.changes) == {f"unet.{name}" for name in group(tiny_random_pipe.unet, choice)}
    for name, change in edit.changes.items():
        assert not torch.equal(change.value, named_weight(tiny_random_pipe, name)), name


def test_alpha_weighs_the_loss_of_what_is_to_stay(tiny_random_pipe, church_task, tmp_path):
    first = [
        replace(SHORT, alpha=alpha)
        .edit(tiny_random_pipe, church_task, work=work_in(tmp_path / str(alpha)))
        .info["loss"]["first"]
        for alpha in (0.0, 0.5, 1.0)
    ]
    assert first[1] - first[0] > 0.1
    assert first[2] - first[0] == pytest.approx(2 * (first[1] - first[0]), rel=1e-5)


def test_prompts_are_the_anchors_or_the_first_of_what_is_to_stay(church_task, artists_task):
    assert prompts_of(church_task) == (
        {"a photo of a church": "a photo of a gas pump"},
        ["a photo of a gas pump", "a photo of a tench"],
    )
    assert prompts_of(artists_task) == (
        {"a painting in the style of van gogh": "art", "a painting in the style of monet": "art"},
        ["a painting in the style of hokusai"],
    )
    nudity = ErasureTask((Concept("nude person", "unsafe", anchor="a person wearing clothes"),))
    assert prompts_of(nudity) == (
        {"a photo of a nude person": "a photo of a person wearing clothes"},
        ["a photo of a person wearing clothes"],
    )
    with pytest.raises(UserError, match=r"salun: concept 'church' has no anchor.*task.anchor or task.retain"):
        prompts_of(ErasureTask((Concept("church", "object"),), ("",)))


def test_images_are_of_the_concept_and_of_what_is_to_stay(tiny_random_pipe, church_task, tmp_path):
    asked = []

    def sample(prompts, seeds, steps, guidance):
        asked.append(list(prompts))
        return noise_pictures(prompts, seeds, steps, guidance)

    SHORT.edit(tiny_random_pipe, church_task, work=replace(work_in(tmp_path), sample=sample))
    pump, tench = "a photo of a gas pump", "a photo of a tench"
    assert asked == [["a photo of a church"] * 3, [pump, tench, pump]]


def test_options_that_cannot_be_are_refused():
    for wrong in ({"share": 0.0}, {"share": 1.5}, {"alpha": -1}, {"mask_guidance": float("nan")}):
        with pytest.raises(UserError, match=f"salun: {next(iter(wrong))}"):
            SalUn(**wrong)
