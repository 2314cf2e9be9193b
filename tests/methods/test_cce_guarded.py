"""CCE through guards: its losses are the formulas of the release, and without a guard it is CCE."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attack_helpers import CHURCH, alphas_cumprod, made_images, recipe

from erasebench.concepts import ErasureTask
from erasebench.edits.attack import Tools
from erasebench.errors import UserError
from erasebench.methods.attacks.cce import Cce
from erasebench.methods.attacks.cce_guarded import CceGuarded
from erasebench.methods.closed_form.uce import Uce
from erasebench.methods.compose import Compose
from erasebench.methods.guards.negative_prompt import NegativePrompt
from erasebench.methods.guards.safree import Safree
from erasebench.methods.guards.sld import Sld
from erasebench.methods.trained.latents import encoded, noising
from erasebench.models.encode import encode_prompts
from erasebench.models.soft_words import placed

SMALL = CceGuarded(iterations=5, images=3, batch=2, accumulate=1, lr=0.05, unroll=3, within=20)

CHURCHES = ErasureTask((CHURCH,))


@pytest.fixture(scope="module")
def pipe(small_pipe):
    built = small_pipe()
    for part in (built.unet, built.text_encoder, built.vae):
        part.double()
    return built


def tools(attack, **more) -> Tools:
    return Tools(targets=made_images(attack.targets([CHURCH], recipe())), **more)


def loss_with(pipe, eraser, asked, seed: int):
    """The loss of a draw with a guard on, for the tokens of a name as the soft word, and all that it was drawn of."""
    latents = encoded(pipe, made_images(SMALL.targets([CHURCH], asked))).double()
    texts = [placed(pipe.tokenizer, "a church", ("church",), 1)]
    vocabulary = pipe.text_encoder.get_input_embeddings().weight.detach()
    words = vocabulary[[7]][None]
    scheduler = noising(pipe.scheduler.config)
    with eraser.edit(pipe, CHURCHES).applied(pipe):
        loss = SMALL.loss_of(pipe, [CHURCH], asked, latents, texts, words, scheduler)(
            torch.Generator().manual_seed(seed)
        )
    ids = texts[0][0].clone()
    ids[0, texts[0][1]] = 7
    with torch.no_grad():
        soft = pipe.text_encoder(ids).last_hidden_state
    prompts = [encode_prompts(pipe, [one.prompt])[0] for one in SMALL.targets([CHURCH], asked)]
    return loss.item(), latents, soft, prompts


def predicted(pipe, z, timestep, rows):
    with torch.no_grad():
        return pipe.unet(z[None], timestep, rows).sample[0]


def test_through_a_negative_prompt_it_is_brought_to_the_concepts_own_guided_prediction(pipe) -> None:
    asked = recipe(negative_prompt="blurry", guidance=7.5)
    ours, latents, soft, prompts = loss_with(pipe, NegativePrompt(text="a church"), asked, 4)
    numbers = torch.Generator().manual_seed(4)
    chosen = torch.randint(3, (2,), generator=numbers).tolist()
    torch.randint(1, (2,), generator=numbers)
    timesteps = torch.randint(1000, (2,), generator=numbers).tolist()
    noise = torch.randn(latents[chosen].shape, generator=numbers).double()
    empty, away = (encode_prompts(pipe, [text])[0] for text in ("blurry", "blurry, a church"))
    total = 0.0
    for row, (image, t) in enumerate(zip(chosen, timesteps, strict=True)):
        left = alphas_cumprod()[t]
        z = left.sqrt() * latents[image] + (1 - left).sqrt() * noise[row]
        none, neg, own, word = (predicted(pipe, z, t, rows) for rows in (empty, away, prompts[image], soft))
        guarded = neg + 7.5 * (word - neg)
        total += float(((guarded - (none + 7.5 * (own - none))) ** 2).mean()) / 2
    assert ours == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("preset", ["max", "medium"])
def test_through_sld_its_momentum_is_that_of_the_timesteps_before(pipe, preset: str) -> None:
    """Literally, with the release's loop: equations 6, 4, 7 and 8 at each timestep, and the loss at the last."""
    asked, guard = recipe(guidance=7.5), Sld(preset=preset, text="a church")
    ours, latents, soft, prompts = loss_with(pipe, guard, asked, 11)
    numbers = torch.Generator().manual_seed(11)
    chosen = torch.randint(3, (2,), generator=numbers).tolist()
    torch.randint(1, (2,), generator=numbers)
    latest = int(torch.randint(20, 1000, (1,), generator=numbers))
    visited = sorted((latest - 20 + torch.randperm(20, generator=numbers)[:3]).tolist(), reverse=True)
    noise = torch.randn(latents[chosen].shape, generator=numbers).double()
    settings, total = guard.constants, 0.0
    empty, concept = (encode_prompts(pipe, [text])[0] for text in ("", "a church"))
    for row, image in enumerate(chosen):
        momentum = torch.zeros_like(latents[0])
        for t in visited:
            left = alphas_cumprod()[t]
            z = left.sqrt() * latents[image] + (1 - left).sqrt() * noise[row]
            none, bad, own, word = (predicted(pipe, z, t, rows) for rows in (empty, concept, prompts[image], soft))
            scale = torch.clamp((word - bad).abs() * settings["scale"], max=1.0)
            scale = torch.where(word - bad >= settings["threshold"], torch.zeros_like(scale), scale)
            safety = (bad - none) * scale + settings["momentum"] * momentum
            momentum = settings["decay"] * momentum + (1 - settings["decay"]) * safety
            warm = (1 - t / 1000) * 50 >= settings["warmup"]
            guarded = none + 7.5 * (word - none - (safety if warm else 0))
        total += float(((guarded - (none + 7.5 * (own - none))) ** 2).mean()) / 2
    assert ours == pytest.approx(total, rel=1e-4)


def test_on_a_model_without_a_guard_it_is_cce_bit_for_bit(pipe) -> None:
    plain = Cce(iterations=5, images=3, batch=2, accumulate=1, lr=0.05)
    ours = SMALL.find(pipe, [CHURCH], recipe(), tools(SMALL)).words
    assert torch.equal(ours, plain.find(pipe, [CHURCH], recipe(), tools(plain)).words)


@pytest.mark.parametrize("guard", [NegativePrompt(), Sld(preset="max")])
def test_it_learns_through_the_guard_alters_nothing_and_goes_on_after_a_kill(pipe, tmp_path, guard) -> None:
    with guard.edit(pipe, CHURCHES).applied(pipe):
        whole = SMALL.find(pipe, [CHURCH], recipe(), tools(SMALL))
        without = replace(SMALL, seed=0, iterations=1, lr=1e-9).find(pipe, [CHURCH], recipe(), tools(SMALL)).words
        done: list[int] = []

        def killed(steps: int) -> None:
            done.append(steps)
            if sum(done) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            SMALL.find(pipe, [CHURCH], recipe(), tools(SMALL, advance=killed, folder=tmp_path))
        again = SMALL.find(pipe, [CHURCH], recipe(), tools(SMALL, folder=tmp_path))
    assert torch.equal(again.words, whole.words) and (whole.words - without).abs().max() > 0.01
    assert all(weight.grad is None for weight in pipe.unet.parameters())
    plain = SMALL.find(pipe, [CHURCH], recipe(), tools(SMALL)).words
    assert not torch.equal(whole.words, plain), "the guard decides what is learnt"


def test_other_guards_and_several_at_once_are_refused_by_name() -> None:
    assert SMALL.refuses_edits(NegativePrompt()) is SMALL.refuses_edits(Sld()) is SMALL.refuses_edits(Uce()) is None
    assert "learns through negative_prompt or sld alone, not through safree" in SMALL.refuses_edits(Safree())
    both = Compose(parts={"a": Sld(), "b": NegativePrompt()})
    assert "not through sld, negative_prompt" in SMALL.refuses_edits(both)
    assert "hook sld acts around the network" in Cce().refuses_edits(Sld())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unroll": 0}, "unroll=0"),
        ({"unroll": 9, "within": 8}, "unroll=9: more than the within=8"),
        ({"seconds": 0}, "seconds=0"),
    ],
)
def test_what_cannot_be_is_refused(options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CceGuarded(**options)
