"""TINA+: its steps are the formula of the paper, it draws without a text, and it needs what DDIM inversion needs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from attack_helpers import CHURCH, LiteralAdam, alphas_cumprod, made_images, recipe

from erasebench.edits.attack import Tools
from erasebench.errors import UserError
from erasebench.images.generate import draw_tries
from erasebench.images.scheduler import scheduler_identity
from erasebench.methods.attacks.ddim_inversion import DdimInversion, DdimInversionTransfer
from erasebench.methods.attacks.tina_plus import TinaPlus
from erasebench.methods.guards.sld import Sld

SMALL = TinaPlus(timesteps=4, updates=3, lr=0.05)


@pytest.fixture(scope="module")
def pipe(small_pipe):
    built = small_pipe()
    for part in (built.unet, built.text_encoder, built.vae):
        part.double()
    return built


def tools(attack, asked, **more) -> Tools:
    return Tools(targets=made_images(attack.targets([CHURCH], asked)), **more)


@pytest.mark.parametrize("size", [5.0, 0.02])
def test_steps_are_the_formula(pipe, size: float) -> None:
    """Literally, with AdamW by hand; once with latents so small that their norm is pulled up."""
    numbers = torch.Generator().manual_seed(2)
    image, noise, text = (
        torch.randn(shape, generator=numbers).double() for shape in ((1, 4, 8, 8), (1, 4, 8, 8), (1, 77, 24))
    )
    image, noise = image * size, noise * size
    counted: list[int] = []
    ours, off = SMALL.corrected(pipe, image, noise, text, 900, Tools(advance=counted.append))

    kept, pulled = alphas_cumprod(), 0
    z, now = kept[100].sqrt() * image + (1 - kept[100]).sqrt() * noise, 100
    for then in (225, 450, 675, 900):
        a, b = kept[now], kept[then]

        def led(at, time, z=z, a=a, b=b):
            eps = pipe.unet(at, time, text).sample
            return b.sqrt() * (z - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps

        with torch.no_grad():
            guess = led(z, now)
        adam = LiteralAdam(0.05, 0.01, decoupled=True)
        for _ in range(3):
            guess = guess.clone().requires_grad_()
            dimensions, norm = 4 * 8 * 8, (image**2).sum()
            r = ((guess**2).sum() - b * norm - (1 - b) * dimensions) / torch.sqrt(
                2 * (1 - b) ** 2 * dimensions + 4 * b * (1 - b) * norm
            )
            apart = ((led(guess, then) - guess) ** 2).sum()
            pulled += bool(-r - 10 > 0)
            loss = apart + torch.relu(-r - 10) ** 2
            (gradient,) = torch.autograd.grad(loss, [guess])
            guess = adam.step(guess.detach(), gradient)
        z, now = guess, then
    torch.testing.assert_close(ours, z, rtol=1e-3, atol=1e-4)
    assert off == pytest.approx(apart.item() / 256, rel=1e-2) and sum(counted) == SMALL.steps
    assert bool(pulled) == (size < 1), "both sides of the norm's term are met"


def test_more_updates_agree_better_with_the_network(pipe) -> None:
    def off(updates: int) -> float:
        attack = TinaPlus(timesteps=4, updates=updates, lr=0.05)
        return attack.find(pipe, [CHURCH], recipe(), tools(attack, recipe())).info["off"]

    assert off(20) < off(1)


def test_it_is_drawn_from_its_latents_with_the_empty_prompt(small_pipe) -> None:
    pipe = small_pipe()
    scheduler, config = scheduler_identity(pipe, "DDIM", {})
    one = recipe(scheduler=scheduler, scheduler_config=config, steps=3)
    model = SimpleNamespace(name="small", revision="random", pipe=pipe)

    def drawn(attack, *prompts) -> list[np.ndarray]:
        found = attack.find(pipe, [CHURCH], one, tools(attack, one))
        recipes = [replace(one, attack="a", prompt=prompt) for prompt in prompts]
        return [np.asarray(image, dtype=int) for image in draw_tries(model, recipes, 8, [attack.hook({"a": found})])]

    for attack in (
        SMALL,
        DdimInversion(timesteps=3, unconditional=True),
        DdimInversionTransfer(timesteps=3, unconditional=True),
    ):
        first, second = drawn(attack, one.prompt, "two dogs")
        assert np.abs(first - second).max() <= 1
    first, second = drawn(DdimInversion(timesteps=3), one.prompt, "two dogs")
    assert np.abs(first - second).max() > 1, "with the prompt, if not said otherwise"


def test_a_transfer_is_found_once_and_what_was_found_before_there_was_a_choice_keeps_its_key() -> None:
    def key(attack, edit: str = "e1") -> str:
        return attack.key("m", edit, [CHURCH], recipe())

    assert DdimInversion().settings == {"timesteps": 50}
    assert key(DdimInversion()) != key(DdimInversion(unconditional=True)) != key(SMALL)
    assert key(DdimInversionTransfer()) == key(DdimInversionTransfer(), "e2") and key(SMALL) != key(SMALL, "e2")
    budgets = [
        SMALL,
        *(replace(SMALL, **{name: 7}) for name in ("timesteps", "updates", "lr", "seed")),
        replace(SMALL, start=0.2),
    ]
    assert len({key(one) for one in budgets}) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 0}, "start=0"),
        ({"start": 1}, "start=1"),
        *(({name: 0}, f"{name}=0") for name in ("timesteps", "updates", "lr")),
    ],
)
def test_what_cannot_be_is_refused(pipe, options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TinaPlus(**options)
    assert "hook sld acts around the network" in SMALL.refuses_edits(Sld())
    assert "protocol.scheduler=DDIM" in SMALL.refuses_images(recipe(scheduler="EulerDiscreteScheduler"))
    late = TinaPlus(start=0.99, timesteps=2)
    with pytest.raises(UserError, match="use a smaller start"):
        late.find(pipe, [CHURCH], recipe(), tools(late, recipe()))
