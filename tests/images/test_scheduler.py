"""Samplers that cannot make their steps are refused before any image is begun."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler

from erasebench.errors import UserError
from erasebench.images.scheduler import SCHEDULERS, check_steps, make_scheduler

STABLE_DIFFUSION = SimpleNamespace(
    scheduler=DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )
)  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [12, 50])
def test_every_sampler_makes_the_usual_steps(name: str, steps: int) -> None:
    before = torch.random.get_rng_state()
    check_steps(make_scheduler(name, {}, STABLE_DIFFUSION), steps)
    assert torch.equal(before, torch.random.get_rng_state())


COSINE_KARRAS = {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"}


@pytest.mark.parametrize(
    ("name", "config", "steps", "fault"),
    [
        ("DPMSolverMultistep", COSINE_KARRAS, 20, "IndexError"),
        ("UniPCMultistep", COSINE_KARRAS, 20, "AssertionError"),
        ("KDPM2Discrete", COSINE_KARRAS, 20, "not finite"),
        ("PNDM", {}, 1, "ValueError"),
        ("DDIM", {}, 1000, "IndexError"),
    ],
)
def test_steps_that_cannot_be_made_are_a_sentence(name: str, config: dict, steps: int, fault: str) -> None:
    scheduler = make_scheduler(name, config, STABLE_DIFFUSION)
    with pytest.raises(UserError, match=f"protocol.steps={steps}: {name}Scheduler.*{fault}"):
        check_steps(scheduler, steps)
