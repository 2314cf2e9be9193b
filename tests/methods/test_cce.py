"""CCE: its loss is the formula, it goes on where it was killed, and what it finds stands in place of the concept's name."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from attack_helpers import CHURCH, made_images, recipe

from erasebench.edits.attack import Tools
from erasebench.errors import UserError
from erasebench.methods.attacks.cce import Cce, CceTransfer
from erasebench.methods.trained.latents import encoded, noising
from erasebench.models.soft_words import placed

SMALL = Cce(iterations=6, images=3, words=2, batch=2, accumulate=2, lr=0.1)


@pytest.fixture(scope="module")
def pipe(small_pipe):
    built = small_pipe()
    for part in (built.unet, built.text_encoder, built.vae):
        part.double()
    return built


def tools(attack: Cce, **more) -> Tools:
    return Tools(targets=made_images(attack.targets([CHURCH], recipe())), **more)


def test_a_loss_is_that_of_a_new_token_whose_noise_is_predicted(pipe) -> None:
    """Literally: the words are rows of a larger vocabulary, and every image is noised and predicted by itself."""
    attack = Cce(batch=3, words=2)
    images = made_images(attack.targets([CHURCH], recipe())[:4])
    latents = encoded(pipe, images).double()
    texts = [placed(pipe.tokenizer, text, ("church",), 2) for text in ("a photo of a church", "church")]
    words = torch.randn(1, 2, 24, generator=torch.Generator().manual_seed(3)).double()
    ours = attack.loss(pipe, latents, texts, words, noising(pipe.scheduler.config), torch.Generator().manual_seed(9))

    encoder = copy.deepcopy(pipe.text_encoder)
    size = encoder.get_input_embeddings().weight.shape[0]
    encoder.resize_token_embeddings(size + 2)
    with torch.no_grad():
        encoder.get_input_embeddings().weight[size:] = words[0]
    numbers = torch.Generator().manual_seed(9)
    chosen = [int(one) for one in torch.randint(4, (3,), generator=numbers)]
    sentences = [int(one) for one in torch.randint(2, (3,), generator=numbers)]
    timesteps = [int(one) for one in torch.randint(1000, (3,), generator=numbers)]
    noise = torch.randn(latents[chosen].shape, generator=numbers).double()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    total, count = 0.0, 0
    for row in range(3):
        left = torch.prod(1 - betas[: timesteps[row] + 1])
        noised = left.sqrt() * latents[chosen[row]] + (1 - left).sqrt() * noise[row]
        ids, place = texts[sentences[row]]
        ids = ids.clone()
        ids[0, place], ids[0, place + 1] = size, size + 1
        with torch.no_grad():
            predicted = pipe.unet(noised[None], timesteps[row], encoder(ids).last_hidden_state).sample[0]
        total += float(((predicted - noise[row]) ** 2).sum())
        count += noise[row].numel()
    assert ours.item() == pytest.approx(total / count, rel=1e-5)  # the schedule of diffusers is in float32


def test_the_gradient_is_that_of_the_loss(pipe) -> None:
    latents = encoded(pipe, made_images(SMALL.targets([CHURCH], recipe()))).double()
    texts = [placed(pipe.tokenizer, "a church", ("church",), 2)]
    words = torch.randn(1, 2, 24, generator=torch.Generator().manual_seed(1)).double().requires_grad_()

    def loss(words):
        scheduler = noising(pipe.scheduler.config)
        return SMALL.loss(pipe, latents, texts, words, scheduler, torch.Generator().manual_seed(2))

    (gradient,) = torch.autograd.grad(loss(words), [words])
    way = torch.randn(1, 2, 24, generator=torch.Generator().manual_seed(4)).double()
    with torch.no_grad():
        slope = (loss(words + 1e-5 * way) - loss(words - 1e-5 * way)) / 2e-5
    assert slope.item() == pytest.approx((gradient * way).sum().item(), rel=1e-4)


def test_it_starts_as_the_name_and_learns_and_alters_nothing(pipe) -> None:
    found = SMALL.find(pipe, [CHURCH], recipe(), tools(SMALL))
    assert found.form == "words" and found.words.shape == (2, 24) and "church" in found.replaces
    first = Cce(iterations=1, images=3, words=2, batch=2, accumulate=2, lr=1e-9)
    start = first.find(pipe, [CHURCH], recipe(), tools(first)).words
    own = pipe.tokenizer("church", add_special_tokens=False).input_ids[:2]
    torch.testing.assert_close(start, pipe.text_encoder.get_input_embeddings().weight[own].float())
    assert (found.words - start).abs().max() > 0.1
    assert all(weight.grad is None for weight in pipe.unet.parameters())


def test_a_killed_search_goes_on_and_ends_in_the_same_bits(pipe, tmp_path) -> None:
    whole = SMALL.find(pipe, [CHURCH], recipe(), tools(SMALL)).words
    done: list[int] = []

    def killed(steps: int) -> None:
        done.append(steps)
        if sum(done) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SMALL.find(pipe, [CHURCH], recipe(), tools(SMALL, advance=killed, folder=tmp_path))
    counted: list[int] = []
    again = SMALL.find(pipe, [CHURCH], recipe(), tools(SMALL, advance=counted.append, folder=tmp_path))
    assert counted[0] == 4 and sum(counted) == SMALL.steps
    assert torch.equal(again.words, whole)


def test_one_search_serves_all_prompts_of_a_concept_and_edit() -> None:
    def key(attack: Cce, **changes) -> str:
        return attack.key("m", "e1", [CHURCH], recipe(**changes))

    assert key(SMALL) == key(SMALL, prompt="another church", seed=77)
    budgets = [SMALL, *(replace(SMALL, **{name: 7}) for name in ("iterations", "images", "words", "batch", "seed"))]
    assert len({key(one) for one in budgets}) == 6 and key(SMALL) != key(SMALL, guidance=9.0)
    assert key(SMALL) != SMALL.key("m", "e2", [CHURCH], recipe())
    transfer = CceTransfer(iterations=6)
    assert key(transfer) == transfer.key("m", "e2", [CHURCH], recipe())


def test_it_learns_from_images_of_the_unedited_model_alone() -> None:
    wanted = SMALL.targets([CHURCH], recipe(edit="e1", attack="a1"))
    assert len({one.seed for one in wanted}) == 3 and all("church" in one.prompt for one in wanted)
    assert {(one.edit, one.attack) for one in wanted} == {("", "")}


@pytest.mark.parametrize("option", ["iterations", "images", "words", "batch", "accumulate", "lr"])
def test_a_budget_of_zero_is_refused(option: str) -> None:
    with pytest.raises(UserError, match=f"{option}=0"):
        Cce(**{option: 0})


def test_without_its_images_it_says_so(pipe) -> None:
    with pytest.raises(UserError, match="attack cce: it needs 3 images of the unedited model, and got 0"):
        SMALL.find(pipe, [CHURCH], recipe())


def test_offloaded_and_quantised_weights_and_other_families_are_refused(small_pipe) -> None:
    whole = small_pipe()
    assert SMALL.refuses(SimpleNamespace(family="sd1", pipe=whole)) is None
    assert "one CLIP text encoder" in SMALL.refuses(SimpleNamespace(family="flux", pipe=whole))
    away = small_pipe()
    away.unet.to("meta")
    assert "offloaded" in SMALL.refuses(SimpleNamespace(family="sd1", pipe=away))
    half = small_pipe()
    half.unet.half()
    assert "is float16, and it takes gradients; use dtype=float32" in SMALL.refuses(
        SimpleNamespace(family="sd1", pipe=half)
    )
    coarse = small_pipe()
    weight = next(coarse.text_encoder.parameters())
    weight.requires_grad_(False)
    weight.data = weight.data.to(torch.int8)
    assert "quantised" in SMALL.refuses(SimpleNamespace(family="sd1", pipe=coarse))
