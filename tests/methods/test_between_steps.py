"""Probes between the steps of DDIM: by the formula, image by image, and no more than the model can."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from attack_helpers import CHURCH, alphas_cumprod, made_images, recipe

from erasebench.edits.attack import Attack, Tools
from erasebench.errors import UserError
from erasebench.images.generate import draw_tries
from erasebench.images.scheduler import scheduler_identity
from erasebench.methods.attacks.diffusion_completion import DiffusionCompletion
from erasebench.methods.attacks.inpainting import Inpainting
from erasebench.methods.attacks.partial_diffusion import PartialDiffusion
from erasebench.methods.trained.latents import encoded
from erasebench.models.encode import encode_prompts
from erasebench.prompts.prompt_set import hashed_seed

PROBES = [PartialDiffusion(), Inpainting(), DiffusionCompletion(base=2)]


@pytest.fixture(scope="module")
def pipe(small_pipe):
    return small_pipe()


def asked(pipe, **changes):
    scheduler, config = scheduler_identity(pipe, "DDIM", {})
    return recipe(**({"scheduler": scheduler, "scheduler_config": config, "steps": 4} | changes))


def drawn(pipe, attack: Attack, *recipes, others=()):
    found = {}
    for number, one in enumerate(recipes):
        tools = Tools(targets=made_images(attack.targets([CHURCH], one)))
        found[f"a{number}"] = attack.find(pipe, [CHURCH], one, tools)
    model = SimpleNamespace(name="small", revision="random", pipe=pipe)
    attacked = [replace(one, attack=f"a{number}") for number, one in enumerate(recipes)]
    images = draw_tries(model, [*attacked, *others], 8, [attack.hook(found)] if found else [])
    return np.stack([np.asarray(one, dtype=int) for one in images])


def decoded(pipe, z):
    with torch.no_grad():
        pixels = pipe.vae.decode(z.float() / pipe.vae.config.scaling_factor).sample
    return ((pixels / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0) * 255).round().numpy()


def stepped(pipe, z, now: int, then: int, text, empty, guidance: float):
    """A step of DDIM by hand."""
    kept = alphas_cumprod()
    with torch.no_grad():
        without, with_text = (pipe.unet(z.float(), now, rows).sample.double() for rows in (empty, text))
    noise = without + guidance * (with_text - without)
    clean = (z - (1 - kept[now]).sqrt() * noise) / kept[now].sqrt()
    left = kept[max(then, 0)]
    return left.sqrt() * clean + (1 - left).sqrt() * noise


def test_partial_diffusion_is_the_second_half_of_the_steps_from_the_noised_image(pipe) -> None:
    """Literally, with steps 751, 501, 251, 1 of which the last two are taken."""
    one, attack = asked(pipe), PartialDiffusion(strength=0.5)
    image = encoded(pipe, made_images(attack.targets([CHURCH], one))).double()
    numbers = torch.Generator().manual_seed(hashed_seed("partial_diffusion", 0, one.prompt, one.seed))
    kept, empty = alphas_cumprod(), encode_prompts(pipe, [""])[0]
    z = kept[251].sqrt() * image + (1 - kept[251]).sqrt() * torch.randn(image.shape, generator=numbers).double()
    for now, then in ((251, 1), (1, -249)):
        z = stepped(pipe, z, now, then, empty, empty, 1.0)
    assert np.abs(drawn(pipe, attack, one)[0] - decoded(pipe, z)).max() <= 1


def test_inpainting_draws_the_middle_alone(pipe) -> None:
    """Literally: after each step the rest is the image, noised with the noise that the sampling began from."""
    one, attack = asked(pipe), Inpainting(share=0.5)
    image = encoded(pipe, made_images(attack.targets([CHURCH], one))).double()
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(one.seed)).double()
    text, empty = encode_prompts(pipe, [one.prompt])[0], encode_prompts(pipe, [""])[0]
    kept, z, hole = alphas_cumprod(), noise, torch.zeros(image.shape, dtype=torch.bool)
    size = image.shape[-1]
    hole[..., size // 4 : size // 4 + size // 2, size // 4 : size // 4 + size // 2] = True
    for now, then in ((751, 501), (501, 251), (251, 1), (1, -249)):
        z = stepped(pipe, z, now, then, text, empty, one.guidance)
        around = kept[then].sqrt() * image + (1 - kept[then]).sqrt() * noise if then >= 0 else image
        z = torch.where(hole, z, around)
    whole = torch.from_numpy(decoded(pipe, z))
    square = whole[4:12, 4:12].permute(2, 0, 1)[None]
    larger = torch.nn.functional.interpolate(square, (16, 16), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    assert np.abs(drawn(pipe, attack, one)[0] - larger.numpy()).max() <= 1.5


@pytest.mark.parametrize("guidance", [4.0, 1.0])
def test_the_unedited_model_completes_its_own_image_and_another_does_not(pipe, small_pipe, guidance) -> None:
    """Literally on the other: its own steps from the first two latents of the first model."""
    one, attack = asked(pipe, guidance=guidance, negative_prompt="blurry"), DiffusionCompletion(base=2)
    clean = drawn(pipe, attack, others=[one])[0]
    assert np.abs(drawn(pipe, attack, one)[0] - clean).max() <= 1
    other = small_pipe()
    with torch.no_grad():
        other.unet.conv_out.weight *= -0.5
    found = {"a0": attack.find(pipe, [CHURCH], one, Tools())}
    model = SimpleNamespace(name="small", revision="random", pipe=other)
    completed = np.asarray(draw_tries(model, [replace(one, attack="a0")], 8, [attack.hook(found)])[0], dtype=int)
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(one.seed)).double()
    text, empty = encode_prompts(pipe, [one.prompt])[0], encode_prompts(pipe, ["blurry"])[0]
    for number, (now, then) in enumerate(((751, 501), (501, 251), (251, 1), (1, -249))):
        z = stepped(pipe if number < 2 else other, z, now, then, text, empty, guidance)
    assert np.abs(completed - decoded(pipe, z)).max() <= 1
    assert np.abs(completed - clean).max() > 1, "or this could not fail"


@pytest.mark.parametrize("attack", PROBES)
def test_an_image_is_the_same_alone_and_among_others_which_stay_as_they_are(pipe, attack) -> None:
    one, two = asked(pipe), asked(pipe, seed=9, prompt="two dogs")
    both = drawn(pipe, attack, one, two, others=[asked(pipe, seed=5)])
    clean = drawn(pipe, attack, others=[one, asked(pipe, seed=5)])
    assert np.abs(both[0] - drawn(pipe, attack, one)[0]).max() <= 1
    assert np.abs(both[2] - clean[1]).max() <= 1
    if attack.name != "diffusion_completion":  # which on the model that it was found on completes that one's own image
        assert np.abs(both[0] - clean[0]).max() > 1, "or this could not fail"


@pytest.mark.parametrize("attack", PROBES)
def test_one_find_serves_all_edits_and_other_samplers_and_absent_images_are_refused(pipe, attack) -> None:
    keys = {attack.key("m", edit, [CHURCH], recipe()) for edit in ("", "e1", "e2")}
    assert len(keys) == 1 and attack.key("m", "", [CHURCH], recipe(seed=2)) not in keys
    assert attack.refuses_images(recipe(steps=3)) is None
    assert "protocol.scheduler=DDIM" in attack.refuses_images(recipe(scheduler="EulerDiscreteScheduler"))
    if attack.targets([CHURCH], recipe()):
        with pytest.raises(
            UserError, match=f"attack {attack.name}: it needs 1 images of the unedited model, and got 0"
        ):
            attack.find(pipe, [CHURCH], recipe())


def test_a_budget_of_nothing_or_all_is_refused() -> None:
    for value in (0, 1, -0.5, float("nan")):
        with pytest.raises(UserError, match="strength="):
            PartialDiffusion(strength=value)
        with pytest.raises(UserError, match="share="):
            Inpainting(share=value)
    with pytest.raises(UserError, match="base=0"):
        DiffusionCompletion(base=0)
    assert "base=4 are all of the image's 4 steps" in DiffusionCompletion(base=4).refuses_images(recipe(steps=4))
    assert "a single step has no middle" in PartialDiffusion().refuses_images(recipe(steps=1))
    assert [PartialDiffusion(strength=share).before(4) for share in (0.01, 0.5, 0.99)] == [3, 2, 1]
