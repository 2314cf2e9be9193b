"""DDIM inversion is DDIM backwards, and needs the sampler whose start it finds."""

from __future__ import annotations

import json

import pytest
import torch
from attack_helpers import CHURCH, made_images, recipe

from erasebench.edits.attack import Tools
from erasebench.errors import UserError
from erasebench.methods.attacks.ddim_inversion import DdimInversion, inverted


@pytest.fixture(scope="module")
def pipe(small_pipe):
    built = small_pipe()
    for part in (built.unet, built.text_encoder, built.vae):
        part.double()
    return built


def test_steps_are_the_formula(pipe) -> None:
    """Literally, with the schedule by hand."""
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    text = torch.randn(1, 77, 24, generator=torch.Generator().manual_seed(3)).double()
    told: list[int] = []
    ours = inverted(pipe, z, text, 900, 3, Tools(advance=told.append))
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0)
    for now, then in ((0, 300), (300, 600), (600, 900)):
        with torch.no_grad():
            noise = pipe.unet(z, now, text).sample
        z = (
            kept[then].sqrt() * (z - (1 - kept[now]).sqrt() * noise) / kept[now].sqrt()
            + (1 - kept[then]).sqrt() * noise
        )
    torch.testing.assert_close(ours, z, rtol=1e-4, atol=1e-5)
    assert told == [1, 1, 1]


def test_sampling_from_there_comes_back_the_closer_the_more_steps_there_are(pipe) -> None:
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    text = torch.randn(1, 77, 24, generator=torch.Generator().manual_seed(3)).double()
    kept = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)

    def off(steps: int) -> float:
        there = inverted(pipe, z, text, 900, steps, Tools())
        times = torch.linspace(900, 0, steps + 1).round().long().tolist()
        for now, then in zip(times[:-1], times[1:], strict=True):
            with torch.no_grad():
                noise = pipe.unet(there, now, text).sample
            clean = (there - (1 - kept[now]).sqrt() * noise) / kept[now].sqrt()
            there = kept[then].sqrt() * clean + (1 - kept[then]).sqrt() * noise
        return float((there - z).abs().mean())

    assert off(60) < 0.5 * off(6)


def test_it_finds_latents_and_needs_ddim(pipe) -> None:
    attack = DdimInversion(timesteps=2)
    tools = Tools(targets=made_images(attack.targets([CHURCH], recipe())))
    found = attack.find(pipe, [CHURCH], recipe(), tools)
    assert found.form == "latents" and found.latents.shape == (4, 8, 8) and found.latents.isfinite().all()
    assert attack.refuses_images(recipe()) is None
    assert "use protocol.scheduler=DDIM" in attack.refuses_images(recipe(scheduler="EulerDiscreteScheduler"))
    for spacing, first in (("leading", 500), ("trailing", 999)):  # where the image's own sampler starts, in two steps
        own = recipe(scheduler_config=json.dumps({"timestep_spacing": spacing}))
        tools = Tools(targets=made_images(attack.targets([CHURCH], own)))
        assert attack.find(pipe, [CHURCH], own, tools).info["start"] == first
    with pytest.raises(UserError, match="timesteps=0"):
        DdimInversion(timesteps=0)
