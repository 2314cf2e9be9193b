"""Concept Ablation: loss, gradient, prompts and parameters are those of the release, where it says them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from training_helpers import draw, noise_pictures, work_in

from erasebench.concepts import Concept, ErasureTask
from erasebench.errors import UserError
from erasebench.methods.trained.ablation import Ablation, ablation_loss, anchor_prompts, detach_first_position
from erasebench.methods.trained.parameters import group
from erasebench.methods.trained.resized import AWAY, NEAR, WORDS, Resized

SHORT = Ablation(iterations=2, lr=1e-3, images=6, image_steps=2, batch=2)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("loss", ["model", "noise"])
def test_loss_and_gradient_of_a_step_are_those_of_the_release(small_pipe, loss, masked):
    unet = small_pipe().unet.double()
    z, noise, t = draw(3, 2, 4, 8, 8), draw(4, 2, 4, 8, 8), torch.tensor([421, 90])
    concept, anchor = draw(1, 2, 77, 24), draw(2, 2, 77, 24)
    names = [name for name, _ in unet.named_parameters() if "attn2.to_k" in name or "attn2.to_v" in name]
    parameters = [unet.get_parameter(name) for name in names]
    # diffusers/train.py: no mask is a mask of ones, so that each image's mean is taken, then the mean of images.
    mask = torch.ones(2, 1, 8, 8, dtype=torch.float64)
    if masked:
        mask[0, :, 4:], mask[1, :, :, :3] = 0, 0
    predicted = unet(z, t, concept).sample
    with torch.no_grad():
        goal = unet(z, t, anchor).sample if loss == "model" else noise
    error = (predicted - goal) ** 2
    expected = ((error * mask).sum([1, 2, 3]) / (4 * mask.sum([1, 2, 3]))).mean()
    gradients = torch.autograd.grad(expected, parameters)
    ours = ablation_loss(unet, z, t, concept, anchor if loss == "model" else None, noise, mask if masked else None)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(ours, list(group(unet, "x-strict").values())), gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-14)
    assert max(gradient.abs().max() for gradient in gradients) > 1e-6


def test_the_first_position_gets_no_gradient_and_nothing_else_changes(small_pipe):
    unet = small_pipe().unet.double()
    z, t, text = draw(3, 1, 4, 8, 8), torch.tensor([421]), draw(1, 1, 77, 24).requires_grad_(True)
    before = unet(z, t, text).sample
    (whole,) = torch.autograd.grad(before.square().sum(), text)
    detach_first_position(unet)
    after = unet(z, t, text).sample
    (gradient,) = torch.autograd.grad(after.square().sum(), text)
    assert torch.equal(after, before)
    assert whole[0, 0].abs().max() > 1e-8 and not gradient[0, 0].any()
    assert gradient[0, 1:].abs().min() > 0


def test_what_is_trained_is_keys_and_values(tiny_random_pipe, church_task, tmp_path):
    edit = SHORT.edit(tiny_random_pipe, church_task, work=work_in(tmp_path))
    assert set(edit.changes) == {
        f"unet.{name}"
        for name, _ in tiny_random_pipe.unet.named_parameters()
        if "attn2.to_k.weight" in name or "attn2.to_v.weight" in name
    }


def test_prompts_put_the_concept_in_the_anchors_place():
    church = ErasureTask((Concept("church", "object", ("church", "old chapel"), "building"),))
    assert anchor_prompts(church, True) == {
        frame.format("a building"): [frame.format("a church"), frame.format("an old chapel")]
        for frame in ("a photo of {}", "a picture of {}", "an image of {}", "{}")
    }
    without = anchor_prompts(ErasureTask((Concept("church", "object"),)), False)
    assert without["a photo of a tree"] == ["a photo of a church"]
    einstein = anchor_prompts(ErasureTask((Concept("Albert Einstein", "celebrity"),)), False)
    assert einstein["a photo of a man"] == ["a photo of Albert Einstein"] and "a photo of a tree" not in einstein


def test_a_style_is_added_to_a_painting_as_in_the_release(artists_task):
    prompts = anchor_prompts(artists_task, False)
    assert prompts["a painting of a tree"] == [
        "a painting of a tree, in the style of van gogh",
        "in van gogh's style, a painting of a tree",
        "in van gogh's style, a painting of a tree",
        "a painting of a tree, in the style of monet",
        "in monet's style, a painting of a tree",
        "in monet's style, a painting of a tree",
    ]


def test_a_concept_that_is_its_anchor_is_refused(tiny_random_pipe, tmp_path):
    task = ErasureTask((Concept("church", "object", anchor="Church"),))
    with pytest.raises(UserError, match="ablation: concept 'church'.* is also the anchor"):
        SHORT.edit(tiny_random_pipe, task, work=work_in(tmp_path))


def test_images_are_of_anchors_alone(tiny_random_pipe, church_task, tmp_path):
    asked = []

    def sample(prompts, seeds, steps, guidance):
        asked.extend(prompts)
        return noise_pictures(prompts, seeds, steps, guidance)

    edit = SHORT.edit(tiny_random_pipe, church_task, work=replace(work_in(tmp_path), sample=sample))
    assert asked == list(edit.info["prompts"])[:6] and not any("church" in prompt for prompt in asked)


def test_prior_preservation_adds_the_usual_loss(tiny_random_pipe, church_task, tmp_path):
    first = [
        replace(SHORT, prior=prior)
        .edit(tiny_random_pipe, church_task, work=work_in(tmp_path / str(prior)))
        .info["loss"]["first"]
        for prior in (0.0, 1.0, 2.0)
    ]
    assert first[1] - first[0] > 0.1
    assert first[2] - first[0] == pytest.approx(2 * (first[1] - first[0]), rel=1e-5)


def test_training_brings_the_concept_to_the_anchor(tiny_random_pipe, tmp_path):
    task = ErasureTask((Concept("church", "object", anchor="tree"),))
    eraser = replace(SHORT, iterations=30, lr=1e-2, augment=False)
    edit = eraser.edit(tiny_random_pipe, task, work=work_in(tmp_path))
    texts = [tiny_random_pipe.encode_prompt(text, "cpu", 1, False)[0] for text in ("a church", "a tree")]
    z, t = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(5)), torch.tensor([400])

    @torch.no_grad()
    def distance() -> float:
        concept, anchor = (tiny_random_pipe.unet(z, t, text.expand(4, -1, -1)).sample for text in texts)
        return (concept - anchor).square().mean().item()

    before = distance()
    with edit.applied(tiny_random_pipe):
        assert distance() < 0.7 * before


def test_options_that_cannot_be_are_refused():
    for wrong in ({"loss": "anchor"}, {"prior": -1.0}, {"train": "embedding"}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            Ablation(**wrong)


def test_images_are_resized_as_in_the_release_for_all_but_styles(tiny_random_pipe, church_task, artists_task, tmp_path):
    for task, augmented in ((church_task, True), (artists_task, False)):
        losses = {}
        for augment in (None, False, True):
            eraser = replace(SHORT, augment=augment)
            about = eraser.edit(tiny_random_pipe, task, work=work_in(tmp_path / f"{task.kind} {augment}")).info
            assert about["augmented"] == (augmented if augment is None else augment)
            losses[augment] = about["loss"]
        assert losses[None] == losses[augmented] != losses[not augmented]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([16, 64, 512]), st.sampled_from([2, 8]))
def test_a_resized_image_is_whole_or_a_part_of_the_original_where_its_mask_says(seed, side, factor):
    red = Image.new("RGB", (side, side), (200, 30, 30))
    one = Resized.of(red, factor, torch.Generator().manual_seed(seed))
    pixels = torch.tensor(np.asarray(one.image)).permute(2, 0, 1)
    assert one.image.size == (side, side) and one.mask.shape == (side // factor,) * 2 and one.mask.any()
    shown = (pixels == torch.tensor([200, 30, 30])[:, None, None]).all(0)
    share = shown.float().mean().item() ** 0.5  # of the side
    if one.words in NEAR:
        assert share == 1 and one.mask.all()
    else:
        assert share >= (side // 3) / side - 1e-6 and (one.words in AWAY) == (round(share * side) < 0.6 * side)
    if side >= 64 and side // 3 >= 3 * factor:  # not smaller than a few latents: nothing counts that shows nothing
        blocks = shown.float().unfold(0, factor, factor).unfold(1, factor, factor).mean((2, 3))
        assert blocks[one.mask.bool()].min() == 1


def test_sizes_are_drawn_as_often_as_in_the_release():
    picture, numbers = Image.new("RGB", (64, 64)), torch.Generator().manual_seed(0)
    words = [Resized.of(picture, 8, numbers).words for _ in range(2000)]
    shares = {word: words.count(word) / 2000 for word in WORDS}
    assert shares["zoomed in "] + shares["close up "] == pytest.approx(0.34, abs=0.04)
    # 21 to 64 of 64 pixels, of which 21 to 38 are below 0.6 of the side.
    assert shares["a far away "] + shares["very small "] == pytest.approx(0.66 * 18 / 44, abs=0.04)
    assert abs(shares["zoomed in "] - shares["close up "]) < 0.05
