"""The noise probe: its step is DDIM's with the noise that diffusers would add, and more of it; its control has its starts."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from attack_helpers import CHURCH, Drawn, alphas_cumprod, recipe
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from erasebench.errors import UserError
from erasebench.images.generate import draw_tries
from erasebench.images.scheduler import scheduler_identity
from erasebench.methods.attacks.noise_probe import NoiseProbe, noisier
from erasebench.methods.attacks.seeds import Seeds
from erasebench.models.encode import encode_prompts
from erasebench.prompts.prompt_set import hashed_seed

SMALL = NoiseProbe(etas=(1.0, 1.5), spreads=(1.0, 1.1))


@pytest.fixture(scope="module")
def pipe(small_pipe):
    return small_pipe()


def asked(pipe, **changes):
    scheduler, config = scheduler_identity(pipe, "DDIM", {})
    return recipe(**({"scheduler": scheduler, "scheduler_config": config, "steps": 3} | changes))


def drawn(pipe, *recipes, found):
    model = SimpleNamespace(name="small", revision="random", pipe=pipe)
    attacked = [replace(one, attack=f"a{number}") for number, one in enumerate(recipes)]
    return [np.asarray(one, dtype=int) for one in draw_tries(model, attacked, 8, [SMALL.hook(found)])]


@settings(deadline=None)
@given(steps=st.integers(2, 200), step=st.integers(0, 199), eta=st.floats(0.1, 2), seed=st.integers(0, 99))
def test_at_spread_1_a_step_is_that_of_diffusers_with_eta(steps: int, step: int, eta: float, seed: int) -> None:
    """To the end of the variance: beyond it diffusers takes the root of a negative number."""
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    scheduler.alphas_cumprod = alphas_cumprod()
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    scheduler.set_timesteps(steps)
    now = int(scheduler.timesteps[step % steps])
    numbers = torch.Generator().manual_seed(seed)
    z, eps, noise = (torch.randn(4, 2, 2, generator=numbers, dtype=torch.float64) for _ in range(3))
    behind = scheduler.step(eps, now, z).prev_sample
    then = now - 1000 // steps
    a, after = scheduler.alphas_cumprod[now], scheduler.alphas_cumprod[max(then, 0)]
    ours = noisier(z, behind, a, after, eta, 1.0, noise)
    theirs = scheduler.step(eps, now, z, eta=eta, variance_noise=noise).prev_sample
    beyond = theirs.isnan()
    assert not beyond.any() or eta > 1
    if not beyond.any():
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert ours.isfinite().all()


def test_an_image_is_the_formula_step_by_step(pipe) -> None:
    """Literally, with a strength whose noise is more than the step has room for."""
    one = asked(pipe)
    tools = Drawn(SMALL, one, seen_at=4)
    found = SMALL.find(pipe, [CHURCH], one, tools.tools)
    assert (found.info["eta"], found.info["spread"], found.info["images"]) == (1.5, 1.1, 4)
    seed = int(found.tensors["seed"])
    kept, text, empty = alphas_cumprod(), encode_prompts(pipe, [one.prompt])[0], encode_prompts(pipe, [""])[0]
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)).double()
    numbers = torch.Generator().manual_seed(hashed_seed("noise_probe", seed))
    for now, then in ((667, 334), (334, 1), (1, 0)):
        with torch.no_grad():
            without, with_text = (pipe.unet(z.float(), now, rows).sample.double() for rows in (empty, text))
        eps = without + one.guidance * (with_text - without)
        clean = (z - (1 - kept[now]).sqrt() * eps) / kept[now].sqrt()
        sigma = 1.5 * ((1 - kept[then]) / (1 - kept[now]) * (1 - kept[now] / kept[then])).sqrt()
        noise = torch.randn(4, 8, 8, generator=numbers).double()
        z = kept[then].sqrt() * clean + (1 - kept[then] - sigma**2).abs().sqrt() * eps + 1.1 * sigma * noise
    with torch.no_grad():
        pixels = pipe.vae.decode(z.float() / pipe.vae.config.scaling_factor).sample
    wanted = ((pixels / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0) * 255).round().numpy()
    assert np.abs(drawn(pipe, one, found={"a0": found})[0] - wanted).max() <= 1


def test_an_image_is_the_same_alone_and_among_others(pipe) -> None:
    one, two = asked(pipe), asked(pipe, seed=9, prompt="two dogs")
    found = {
        f"a{number}": SMALL.find(pipe, [CHURCH], each, Drawn(SMALL, each, seen_at=2).tools)
        for number, each in enumerate((one, two))
    }
    both = drawn(pipe, one, two, found=found)
    alone = drawn(pipe, one, found=found)
    clean = np.asarray(draw_tries(SimpleNamespace(name="small", revision="random", pipe=pipe), [one])[0], dtype=int)
    assert np.abs(both[0] - alone[0]).max() <= 1 and np.abs(both[0] - clean).max() > 1


def test_the_best_of_as_many_plain_seeds_is_its_control_image_by_image(tiny_random_pipe) -> None:
    attack, control = NoiseProbe(), Seeds()
    tried = []
    for one in (attack, control):
        tools = Drawn(one, recipe(), seen_at=None)
        found = one.find(tiny_random_pipe, [CHURCH], recipe(), tools.tools)
        assert found.info["images"] == one.steps == sum(tools.steps) == 24 and not found.info["succeeded"]
        tried.append(tools.tried)
    assert [int(one.tensors["seed"]) for one in tried[0]] == [one.seed for one in tried[1]]
    assert len({tuple(one.tensors["strengths"].tolist()) for one in tried[0]}) == 24


def test_each_edit_and_judge_is_searched_by_itself_and_other_samplers_are_refused() -> None:
    keys = {SMALL.key("m", edit, [CHURCH], recipe(), judge) for edit in ("e1", "e2") for judge in ("j@1", "j@2")}
    assert len(keys) == 4 and NoiseProbe(etas=[1], spreads=[1]).key("m", "e1", [CHURCH], recipe(), "j@1") not in keys
    assert SMALL.refuses_images(recipe()) is None
    assert "protocol.scheduler=DDIM" in SMALL.refuses_images(recipe(scheduler="EulerDiscreteScheduler"))


@pytest.mark.parametrize("option", ["etas", "spreads"])
@pytest.mark.parametrize("value", [[], [0], [1, -1], [float("nan")], "1", 3, [True, "a"], None])
def test_no_strength_is_no_attack(option: str, value) -> None:
    with pytest.raises(UserError, match=f"{option}=.*: must be a list of at least one finite number above 0"):
        NoiseProbe(**{option: value})
