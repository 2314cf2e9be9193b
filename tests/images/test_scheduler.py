"""Samplers are a protocol's and not a saved model's, and those that cannot make their steps are refused before any image."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from erasebench.config.choices import groups
from erasebench.config.protocol import shipped
from erasebench.errors import UserError
from erasebench.images.generate import generate
from erasebench.images.recipes import recipe_maker
from erasebench.images.scheduler import SCHEDULERS, check_steps, make_scheduler, scheduler_identity
from erasebench.models.load import embedded_folder, load_model
from erasebench.store import Store

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
        ("PNDM", {"skip_prk_steps": False}, 1, "ValueError"),
        ("DDIM", {}, 1000, "IndexError"),
    ],
)
def test_steps_that_cannot_be_made_are_a_sentence(name: str, config: dict, steps: int, fault: str) -> None:
    scheduler = make_scheduler(name, config, STABLE_DIFFUSION)
    with pytest.raises(UserError, match=f"protocol.steps={steps}: {name}Scheduler.*{fault}"):
        check_steps(scheduler, steps)


HUB = {
    "_class_name": "PNDMScheduler", "_diffusers_version": "0.2.2", "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True,
    "steps_offset": 1, "trained_betas": None, "clip_sample": False,
}  # fmt: skip
"""The scheduler of Stable Diffusion 1.4 as its files on the Hub have it."""


def folder_with(pipe, folder: Path, config: dict) -> Path:
    pipe.save_pretrained(folder)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", config["_class_name"]]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


SAVED = {
    "pndm": HUB | {"timestep_spacing": "leading", "prediction_type": "epsilon"},
    "dpm": {
        "_class_name": "DPMSolverMultistepScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "num_train_timesteps": 1000, "timestep_spacing": "trailing", "use_karras_sigmas": True,
        "steps_offset": 0, "prediction_type": "epsilon", "algorithm_type": "sde-dpmsolver++",
    },
    "ddim": {
        "_class_name": "DDIMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
        "num_train_timesteps": 1000, "clip_sample": True, "set_alpha_to_one": True, "steps_offset": 0,
    },
}  # fmt: skip
"""One model as other people saved it: by diffusers, and with another sampler in its place."""


@pytest.mark.parametrize("protocol", ["cure", "speed", "spm", "mace", "default"])
def test_one_model_saved_in_other_ways_gives_the_same_images(tiny_random_pipe, tmp_path: Path, protocol: str) -> None:
    small = replace(shipped(protocol), size=16, steps=3, dtype=None, seeding="cpu")
    row = SimpleNamespace(prompt="a church", seed=7, negative_prompt="", guidance=math.nan, width=None, height=None)
    pixels, settings = {}, set()
    for name, config in {"hub": HUB, **SAVED}.items():
        folder = folder_with(tiny_random_pipe, tmp_path / name, config)
        model, store = load_model(str(folder), device="cpu"), Store(tmp_path / f"results-{name}")
        recipe = recipe_maker(model, small)(row, "")
        generate(model, [recipe], store)
        pixels[name] = np.asarray(store.image(recipe.key))
        settings.add((recipe.scheduler, recipe.scheduler_config))
    assert len(settings) == 1
    assert all(np.array_equal(image, pixels["hub"]) for image in pixels.values())


@pytest.mark.parametrize("protocol", [name for name in groups()["protocol"] if not name.startswith("flow")])
def test_every_protocol_says_how_its_steps_are_spaced_and_its_hash_knows(protocol: str) -> None:
    whole = shipped(protocol)
    own = whole.scheduler_config["timestep_spacing"]
    assert own in ("linspace", "leading", "trailing")
    other = {**whole.scheduler_config, "timestep_spacing": "leading" if own == "trailing" else "trailing"}
    assert replace(whole, scheduler_config=other).hash != whole.hash


@pytest.mark.parametrize(
    ("protocol", "first", "last"),
    [("cure", 999.0, 0.0), ("rece", 999.0, 0.0), ("speed", 999, 50), ("spm", 958, 1), ("mace", 981, 1)],
)
def test_steps_are_those_of_the_releases(protocol: str, first: float, last: float) -> None:
    """Of SD 1.4 from the Hub, as the released generators build their samplers."""
    whole = shipped(protocol)
    steps = make_scheduler(
        whole.scheduler, whole.scheduler_config, SimpleNamespace(scheduler=SimpleNamespace(config=HUB))
    )
    steps.set_timesteps(whole.steps)
    assert (float(steps.timesteps[0]), float(steps.timesteps[-1])) == (first, last)


def test_the_sampler_of_the_embedded_model_is_setting_by_setting_its_own() -> None:
    """What its images were made with from the beginning: their names and pixels stay."""
    own = json.loads((embedded_folder() / "scheduler" / "scheduler_config.json").read_text())
    pipe, protocol = SimpleNamespace(scheduler=SimpleNamespace(config=own)), shipped("embedded")
    name, settings = scheduler_identity(pipe, protocol.scheduler, protocol.scheduler_config)
    assert name == own["_class_name"]
    assert json.loads(settings) == {key: value for key, value in own.items() if not key.startswith("_")}


def test_a_models_own_noise_and_prediction_are_kept() -> None:
    own = HUB | {"prediction_type": "v_prediction", "beta_end": 0.02, "rescale_betas_zero_snr": True}
    made = make_scheduler("DDIM", {}, SimpleNamespace(scheduler=SimpleNamespace(config=own)))
    assert (made.config.prediction_type, made.config.beta_end, made.config.rescale_betas_zero_snr) == (
        "v_prediction",
        0.02,
        True,
    )
