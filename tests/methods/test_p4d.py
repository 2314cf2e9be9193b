"""P4D: its loss is the formula, it takes the nearest tokens, and its variants stop where the judge sees the concept."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_helpers import CHURCH, Drawn, LiteralAdam, alphas_cumprod, read_literally, recipe
from hypothesis import given, settings
from hypothesis import strategies as st

from erasebench.errors import UserError
from erasebench.methods.attacks.concept_vector import token_ids
from erasebench.methods.attacks.p4d import P4d, nearest
from erasebench.methods.trained.latents import encoded, noising
from erasebench.prompts.prompt_set import hashed_seed

SMALL = P4d(tokens=4, every=2, iterations=4, evaluate=2)


@pytest.fixture(scope="module")
def pipe(small_pipe):
    built = small_pipe()
    for part in (built.unet, built.text_encoder, built.vae):
        part.double()
    return built


@pytest.fixture(scope="module")
def unedited(pipe):
    parts = {name: copy.deepcopy(getattr(pipe, name)) for name in ("unet", "text_encoder")}
    with torch.no_grad():
        for weight in parts["unet"].parameters():
            weight.mul_(1.1)
    return parts


@settings(deadline=None)
@given(seed=st.integers(0, 999), k=st.integers(1, 5))
def test_the_nearest_token_is_that_of_the_largest_cosine(seed: int, k: int) -> None:
    numbers = np.random.default_rng(seed)
    words, vocabulary = numbers.normal(size=(k, 7)), numbers.normal(size=(30, 7))
    ours = nearest(torch.from_numpy(words), torch.from_numpy(vocabulary)).tolist()
    for word, index in zip(words, ours, strict=True):
        cosines = vocabulary @ word / np.linalg.norm(vocabulary, axis=1) / np.linalg.norm(word)
        assert cosines[index] == pytest.approx(cosines.max())
    own = torch.from_numpy(vocabulary)
    assert nearest(3 * own, own).tolist() == list(range(30)), "a token is its own nearest, however long"


def test_the_loss_is_how_far_one_prediction_is_from_the_other(pipe, unedited) -> None:
    """Literally: noise and timestep by hand, and whole tokens in place of their embeddings."""
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    tokens, ids = SMALL.layout(pipe.tokenizer, "a photo of a church", "n")
    with torch.no_grad():
        wanted = unedited["text_encoder"](token_ids(pipe, ["a photo of a church"])).last_hidden_state
    vocabulary = pipe.text_encoder.get_input_embeddings().weight.detach()
    chosen = torch.tensor([3, 9, 27, 4])
    ours = SMALL.loss(
        pipe, unedited, recipe(), latents, wanted, ids, vocabulary[chosen], range(4), noising(pipe.scheduler.config),
        torch.Generator().manual_seed(5),
    )  # fmt: skip

    numbers = torch.Generator().manual_seed(5)
    timestep = int(torch.randint(1000, (1,), generator=numbers))
    noise = torch.randn(latents.shape, generator=numbers).double()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    left = torch.prod(1 - betas[: timestep + 1])
    z = left.sqrt() * latents + (1 - left).sqrt() * noise
    whole = [pipe.tokenizer.bos_token_id, *chosen.tolist(), pipe.tokenizer.eos_token_id, *[0] * 71]
    with torch.no_grad():
        target = unedited["unet"](z, timestep, wanted).sample
        predicted = pipe.unet(z, timestep, pipe.text_encoder(torch.tensor([whole])).last_hidden_state).sample
    assert ours.item() == pytest.approx(float(((predicted - target) ** 2).mean()), rel=1e-5)


def test_a_search_takes_the_steps_of_the_paper(pipe, unedited) -> None:
    """Literally: the nearest tokens, their gradient for that of the words, AdamW, and the text after each step."""
    attack = P4d(variant="n", tokens=4, iterations=3, evaluate=1)
    drawn = Drawn(attack, recipe(), seen_at=None, unedited=unedited)
    found = attack.find(pipe, [CHURCH], recipe(), drawn.tools)

    numbers = torch.Generator().manual_seed(hashed_seed("p4d", 0, "n", recipe().prompt, recipe().seed))
    vocabulary = pipe.text_encoder.get_input_embeddings().weight.detach()
    latents = encoded(pipe, drawn.tools.targets).double()
    with torch.no_grad():
        wanted = unedited["text_encoder"](token_ids(pipe, [recipe().prompt])).last_hidden_state
    ids = torch.tensor([[pipe.tokenizer.bos_token_id, 0, 0, 0, 0, pipe.tokenizer.eos_token_id, *[0] * 71]])
    words = vocabulary[torch.randint(len(vocabulary), (4,), generator=numbers)].clone()
    adam, texts = LiteralAdam(0.1, 0.1, decoupled=True), []

    def closest(rows: torch.Tensor) -> list[int]:
        cosines = [[float(torch.cosine_similarity(row, own, dim=0)) for own in vocabulary] for row in rows]
        return [max(range(len(vocabulary)), key=of.__getitem__) for of in cosines]

    for _ in range(3):
        near = vocabulary[closest(words)].clone().requires_grad_()
        timestep = int(torch.randint(1000, (1,), generator=numbers))
        noise = torch.randn(latents.shape, generator=numbers).double()
        left = alphas_cumprod()[timestep]
        z = left.sqrt() * latents + (1 - left).sqrt() * noise
        target = unedited["unet"](z, timestep, wanted).sample.detach()
        predicted = pipe.unet(z, timestep, read_literally(pipe.text_encoder, ids, near, 1)).sample
        loss = ((predicted - target) ** 2).mean()
        (gradient,) = torch.autograd.grad(loss, [near])
        words = adam.step(words, gradient)
        texts.append(pipe.tokenizer.decode(closest(words)).strip())
    assert [one.prompt for one in drawn.tried] == texts and len(set(texts)) > 1
    assert found.info["loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_where_the_tokens_stand(pipe) -> None:
    tokenizer = pipe.tokenizer

    def words(*texts: str) -> list[int]:
        return [token for text in texts for token in tokenizer(text, add_special_tokens=False).input_ids]

    tokens, ids = SMALL.layout(tokenizer, "a photo of a church", "k")
    assert tokens == [*words("a", "photo"), None, *words("of", "a"), None, *words("church")]
    assert ids[0, 0] == tokenizer.bos_token_id and ids[0, len(tokens) + 1] == tokenizer.eos_token_id
    assert SMALL.layout(tokenizer, "church", "k")[0] == [*words("church"), None], "a short prompt has one behind it"
    assert SMALL.layout(tokenizer, "", "k")[0] == [None]
    assert SMALL.layout(tokenizer, "a photo", "n")[0] == [None] * 4
    assert len(SMALL.layout(tokenizer, "a " * 90, "k")[0]) == 75


def test_the_union_goes_on_with_the_second_variant_and_stops_at_a_success(pipe, unedited) -> None:
    drawn = Drawn(SMALL, recipe(), seen_at=3, unedited=unedited)
    found = SMALL.find(pipe, [CHURCH], recipe(), drawn.tools)
    assert (found.info["variant"], found.info["images"], found.info["succeeded"]) == ("k", 3, True)
    assert found.prompt == drawn.tried[-1].prompt and sum(drawn.steps) == SMALL.steps == 8
    failed = Drawn(SMALL, recipe(), seen_at=None, unedited=unedited)
    found = SMALL.find(pipe, [CHURCH], recipe(), failed.tools)
    assert found.info["images"] == len(failed.tried) == 4 and found.info["succeeded"] is False
    assert sum(failed.steps) == SMALL.steps


@pytest.mark.parametrize(("variant", "steps"), [("n", 4), ("k", 4), ("union", 8)])
def test_each_variant_finds_the_same_again(pipe, unedited, variant: str, steps: int) -> None:
    attack = replace(SMALL, variant=variant)
    texts = {
        attack.find(pipe, [CHURCH], recipe(), Drawn(attack, recipe(), None, unedited=unedited).tools).prompt
        for _ in range(2)
    }
    assert len(texts) == 1 and attack.steps == steps


def test_without_the_unedited_model_it_says_so(pipe) -> None:
    with pytest.raises(UserError, match="was not given it"):
        SMALL.find(pipe, [CHURCH], recipe(), Drawn(SMALL, recipe(), seen_at=1).tools)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "m"}, "variant='m'"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        *(({name: 0}, f"{name}=0") for name in ("tokens", "every", "iterations", "lr")),
    ],
)
def test_what_cannot_be_is_refused(options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        P4d(**options)
