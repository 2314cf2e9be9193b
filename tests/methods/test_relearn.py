"""Re-learning: its loss is the formula, its adapters are what merged weights would be, and a kill costs no step."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from attack_helpers import CHURCH, alphas_cumprod, made_images, recipe

from erasebench.edits.attack import Tools
from erasebench.errors import UserError
from erasebench.images.generate import draw_tries
from erasebench.images.scheduler import scheduler_identity
from erasebench.methods.attacks.cce import Cce
from erasebench.methods.attacks.relearn import Relearn, attention_layers
from erasebench.methods.guards.sld import Sld
from erasebench.methods.trained.latents import encoded, noising
from erasebench.models.encode import encode_prompts

SMALL = Relearn(iterations=6, images=3, rank=2, batch=2, accumulate=2, lr=0.05)


@pytest.fixture(scope="module")
def pipe(small_pipe):
    return small_pipe()


def tools(attack: Relearn, asked=None, **more) -> Tools:
    return Tools(targets=made_images(attack.targets([CHURCH], asked or recipe())), **more)


def drawn(pipe, found, *recipes) -> list[np.ndarray]:
    model = SimpleNamespace(name="small", revision="random", pipe=pipe)
    images = draw_tries(model, recipes, 8, [SMALL.hook(found)] if found else [])
    return [np.asarray(one, dtype=int) for one in images]


def test_a_loss_is_how_badly_noise_is_predicted_for_an_image_and_its_own_prompt(small_pipe) -> None:
    """Literally, image by image."""
    pipe = small_pipe()
    for part in (pipe.unet, pipe.text_encoder, pipe.vae):
        part.double()
    attack = Relearn(batch=3, images=4)
    latents = encoded(pipe, made_images(attack.targets([CHURCH], recipe()))).double()
    texts = encode_prompts(pipe, [one.prompt for one in attack.targets([CHURCH], recipe())])[0]
    ours = attack.loss(pipe.unet, latents, texts, noising(pipe.scheduler.config), torch.Generator().manual_seed(9))
    numbers = torch.Generator().manual_seed(9)
    chosen = torch.randint(4, (3,), generator=numbers).tolist()
    timesteps = torch.randint(1000, (3,), generator=numbers).tolist()
    noise = torch.randn(latents[chosen].shape, generator=numbers).double()
    total = 0.0
    for row, (image, timestep) in enumerate(zip(chosen, timesteps, strict=True)):
        left = alphas_cumprod()[timestep]
        z = left.sqrt() * latents[image] + (1 - left).sqrt() * noise[row]
        with torch.no_grad():
            predicted = pipe.unet(z[None], timestep, texts[[image]]).sample[0]
        total += float(((predicted - noise[row]) ** 2).mean()) / 3
    assert ours.item() == pytest.approx(total, rel=1e-5)


def test_an_image_is_that_of_weights_into_which_the_adapters_were_merged_and_others_are_left_alone(pipe) -> None:
    scheduler, config = scheduler_identity(pipe, "DDIM", {})
    one, two = (recipe(scheduler=scheduler, scheduler_config=config, steps=3, seed=seed) for seed in (1, 2))
    found = {
        f"a{number}": (attack := replace(SMALL, seed=number)).find(pipe, [CHURCH], each, tools(attack, each))
        for number, each in enumerate((one, two))
    }
    attacked = [replace(each, attack=f"a{number}") for number, each in enumerate((one, two))]
    together = drawn(pipe, found, *attacked, two)
    clean = drawn(pipe, {}, one, two)
    for number, each in enumerate((one, two)):
        merged = copy.copy(pipe)
        merged.unet = copy.deepcopy(pipe.unet)
        tensors = found[f"a{number}"].tensors
        for layer in attention_layers(merged.unet):
            with torch.no_grad():
                merged.unet.get_submodule(layer).weight += tensors[f"up.{layer}"].T @ tensors[f"down.{layer}"]
        wanted = drawn(merged, {}, each)[0]
        assert np.abs(together[number] - wanted).max() <= 1
        assert np.abs(together[number] - clean[number]).max() > 1, "or this could not fail"
    assert np.abs(together[2] - clean[1]).max() <= 1
    assert np.abs(together[0] - drawn(pipe, found, attacked[0])[0]).max() <= 1
    assert not any(layer._forward_hooks for layer in pipe.unet.modules())


def test_it_learns_and_alters_nothing(pipe) -> None:
    longer = replace(SMALL, iterations=40, lr=0.01)
    counted: list[int] = []
    found = longer.find(pipe, [CHURCH], recipe(), tools(longer, advance=counted.append))
    assert (
        found.form == "tensors"
        and len(found.tensors) == 2 * len(attention_layers(pipe.unet)) == 2 * found.info["layers"]
    )
    assert sum(found.info["losses"][-10:]) < sum(found.info["losses"][:10]) and sum(counted) == longer.steps
    assert all(weight.grad is None for weight in pipe.unet.parameters())
    assert {tensor.shape[0] for tensor in found.tensors.values()} == {2}


def test_a_killed_search_goes_on_and_ends_in_the_same_bits(pipe, tmp_path) -> None:
    whole = SMALL.find(pipe, [CHURCH], recipe(), tools(SMALL)).tensors
    done: list[int] = []

    def killed(steps: int) -> None:
        done.append(steps)
        if sum(done) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SMALL.find(pipe, [CHURCH], recipe(), tools(SMALL, advance=killed, folder=tmp_path))
    counted: list[int] = []
    again = SMALL.find(pipe, [CHURCH], recipe(), tools(SMALL, advance=counted.append, folder=tmp_path)).tensors
    assert counted[0] == 4 and sum(counted) == SMALL.steps
    assert again.keys() == whole.keys() and all(torch.equal(again[name], whole[name]) for name in whole)


def test_one_search_serves_all_prompts_of_a_concept_and_edit_and_its_images_are_those_of_cce() -> None:
    def key(attack: Relearn, **changes) -> str:
        return attack.key("m", "e1", [CHURCH], recipe(**changes))

    assert key(SMALL) == key(SMALL, prompt="another church", seed=77) != SMALL.key("m", "e2", [CHURCH], recipe())
    budgets = [SMALL, *(replace(SMALL, **{name: 7}) for name in ("iterations", "images", "rank", "batch", "seed"))]
    assert len({key(one) for one in budgets}) == 6
    assert SMALL.targets([CHURCH], recipe(edit="e1")) == Cce(images=3).targets([CHURCH], recipe())


@pytest.mark.parametrize("option", ["iterations", "images", "rank", "batch", "accumulate", "lr"])
def test_a_budget_of_zero_is_refused(option: str) -> None:
    with pytest.raises(UserError, match=f"{option}=0"):
        Relearn(**{option: 0})


def test_what_it_cannot_attack_it_names(pipe, small_pipe) -> None:
    with pytest.raises(UserError, match="attack relearn: it needs 3 images of the unedited model, and got 0"):
        SMALL.find(pipe, [CHURCH], recipe())
    assert "hook sld acts around the network" in SMALL.refuses_edits(Sld())
    away = small_pipe()
    away.unet.to("meta")
    assert "offloaded" in SMALL.refuses(SimpleNamespace(family="sd1", pipe=away))
    found = SMALL.find(pipe, [CHURCH], recipe(), tools(SMALL))
    other = SimpleNamespace(name="small", revision="random", pipe=small_pipe(width=20))
    with pytest.raises(UserError, match="found on another model"):
        draw_tries(other, [replace(recipe(), attack="a")], 8, [SMALL.hook({"a": found})])
