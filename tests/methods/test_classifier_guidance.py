"""Classifier guidance: its step is DDIM's with the pulled prediction, its classifier learns, and what it cannot attack it names."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from attack_helpers import CHURCH, Drawn, alphas_cumprod, recipe

from erasebench.concepts import Concept
from erasebench.errors import UserError
from erasebench.images.generate import draw_tries
from erasebench.images.scheduler import scheduler_identity
from erasebench.methods.attacks.classifier_guidance import ClassifierGuidance, logit, pull
from erasebench.methods.attacks.seeds import Seeds
from erasebench.methods.trained.latents import noising
from erasebench.models.encode import encode_prompts
from erasebench.prompts.prompt_set import hashed_seed

SMALL = ClassifierGuidance(scales=(5.0, 300.0), etas=(0.5,), images=3, epochs=4)


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


def test_the_classifier_tells_two_kinds_of_latents_apart_and_pulls_towards_the_first() -> None:
    numbers = torch.Generator().manual_seed(1)
    having, without = (torch.randn(40, 4, 8, 8, generator=numbers) * 0.3 + mean for mean in (1.0, -1.0))
    scheduler = noising({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"})
    attack = ClassifierGuidance(epochs=60)
    classifier, losses = attack.trained(scheduler, torch.cat([having, without]), torch.Generator().manual_seed(2))
    assert losses[-1] < 0.6 * losses[0]
    share = torch.full((40,), 0.1)
    right = [(logit(classifier, z, share) > 0).float().mean() for z in (having, -without)]
    assert (logit(classifier, having, share) > logit(classifier, without, share)).float().mean() > 0.95, right
    assert pull(classifier, without[0], 0.1).mean() > 0


def test_the_pull_is_the_slope_of_the_log_of_the_probability(pipe) -> None:
    one = asked(pipe)
    tensors = SMALL.find(pipe, [CHURCH], one, Drawn(SMALL, one, seen_at=1).tools).tensors
    wide = {name: value.double() for name, value in tensors.items() if value.is_floating_point()}
    numbers = torch.Generator().manual_seed(3)
    z, way = (torch.randn(4, 8, 8, generator=numbers).double() for _ in range(2))

    def log_probability(at):
        return torch.log(torch.sigmoid(logit(wide, at[None], torch.tensor([0.4]))))[0]

    slope = (log_probability(z + 1e-5 * way) - log_probability(z - 1e-5 * way)) / 2e-5
    assert (pull(wide, z, 0.4) * way).sum().item() == pytest.approx(slope.item(), rel=1e-4)


def test_an_image_is_the_formula_step_by_step(pipe) -> None:
    """Literally: the prediction is pulled, DDIM takes its step with it, and noise is added."""
    one = asked(pipe)
    found = SMALL.find(pipe, [CHURCH], one, Drawn(SMALL, one, seen_at=2).tools)
    assert (found.info["eta"], found.info["scale"], found.info["images"]) == (0.5, 300.0, 2)
    seed = int(found.tensors["seed"])
    kept, text, empty = alphas_cumprod(), encode_prompts(pipe, [one.prompt])[0], encode_prompts(pipe, [""])[0]
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)).double()
    numbers = torch.Generator().manual_seed(hashed_seed("noise_probe", seed))
    for now, then in ((667, 334), (334, 1), (1, 0)):
        with torch.no_grad():
            without, with_text = (pipe.unet(z.float(), now, rows).sample.double() for rows in (empty, text))
        eps = without + one.guidance * (with_text - without)
        slope = pull(found.tensors, z[0].float(), now / 1000)[None].double()
        eps = eps - 300.0 * (1 - kept[now]).sqrt() * slope
        clean = (z - (1 - kept[now]).sqrt() * eps) / kept[now].sqrt()
        sigma = 0.5 * ((1 - kept[then]) / (1 - kept[now]) * (1 - kept[now] / kept[then])).sqrt()
        noise = torch.randn(4, 8, 8, generator=numbers).double()
        z = kept[then].sqrt() * clean + (1 - kept[then] - sigma**2).abs().sqrt() * eps + sigma * noise
    with torch.no_grad():
        pixels = pipe.vae.decode(z.float() / pipe.vae.config.scaling_factor).sample
    wanted = ((pixels / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0) * 255).round().numpy()
    assert np.abs(drawn(pipe, one, found={"a0": found})[0] - wanted).max() <= 1
    weak = replace(found, tensors=dict(found.tensors) | {"scale": torch.tensor(1e-9, dtype=torch.float64)})
    assert np.abs(drawn(pipe, one, found={"a0": weak})[0] - wanted).max() > 1, "or this could not fail"


def test_an_image_is_the_same_alone_and_among_others(pipe) -> None:
    one, two = asked(pipe), asked(pipe, seed=9, prompt="two dogs")
    found = {
        f"a{number}": SMALL.find(pipe, [CHURCH], each, Drawn(SMALL, each, seen_at=2).tools)
        for number, each in enumerate((one, two))
    }
    assert np.abs(drawn(pipe, one, two, found=found)[0] - drawn(pipe, one, found=found)[0]).max() <= 1


def test_its_control_has_its_starts_and_its_images_are_with_the_concept_and_without(tiny_random_pipe) -> None:
    attack, control = ClassifierGuidance(images=2, epochs=1), Seeds()
    tools = Drawn(attack, recipe(), seen_at=None)
    found = attack.find(tiny_random_pipe, [CHURCH], recipe(), tools.tools)
    plain = Drawn(control, recipe(), seen_at=None)
    control.find(tiny_random_pipe, [CHURCH], recipe(), plain.tools)
    assert found.info["images"] == attack.steps == 24 and not found.info["succeeded"]
    assert [int(one.tensors["seed"]) for one in tools.tried] == [one.seed for one in plain.tried]
    for concept in (CHURCH, Concept("Vincent van Gogh", "artist"), Concept("Albert Einstein", "celebrity")):
        wanted = attack.targets([concept], recipe(edit="e", attack="a"))
        says = [concept.name in one.prompt for one in wanted]
        assert says == [True, True, False, False] and {(one.edit, one.attack) for one in wanted} == {("", "")}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"scales": []}, "scales="), ({"etas": [0]}, "etas="), ({"images": 0}, "images=0"), ({"epochs": 0}, "epochs=0")],
)
def test_what_cannot_be_is_refused(options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ClassifierGuidance(**options)
    assert "protocol.scheduler=DDIM" in SMALL.refuses_images(recipe(scheduler="EulerDiscreteScheduler"))
    keys = {SMALL.key("m", edit, [CHURCH], recipe(), judge) for edit in ("e1", "e2") for judge in ("j@1", "j@2")}
    assert len(keys) == 4
