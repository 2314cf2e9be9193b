"""UnlearnDiffAtk: its loss is the formula, its rows stay probabilities, and it stops where the judge sees the concept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_helpers import CHURCH, Drawn, LiteralAdam, alphas_cumprod, read_literally, recipe
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from erasebench.errors import UserError
from erasebench.methods.attacks.unlearndiffatk import UnlearnDiffAtk, drawn_rows, on_simplex, prefixed
from erasebench.methods.trained.latents import encoded, noising
from erasebench.prompts.prompt_set import hashed_seed

SMALL = UnlearnDiffAtk(tokens=2, timesteps=3, iterations=2)

ROWS = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(2, 30)), elements=st.floats(-5, 5))


# The steps


def sorted_projection(row: np.ndarray) -> np.ndarray:
    """The nearest probabilities by sorting (Held, Wolfe and Crowder, 1974)."""
    ordered = np.sort(row)[::-1]
    shares = (np.cumsum(ordered) - 1) / np.arange(1, len(row) + 1)
    mu = shares[np.nonzero(ordered > shares)[0][-1]]
    return np.maximum(row - mu, 0)


@settings(deadline=None)
@given(rows=ROWS)
def test_rows_are_brought_to_the_nearest_probabilities(rows: np.ndarray) -> None:
    ours = on_simplex(torch.from_numpy(rows)).numpy()
    assert (ours >= 0).all() and np.allclose(ours.sum(axis=1), 1, atol=1e-5 * rows.shape[1])
    assert np.allclose(ours, [sorted_projection(row) for row in rows], atol=1e-5)
    assert np.allclose(on_simplex(torch.from_numpy(ours)).numpy(), ours, atol=1e-5), "probabilities stay as they are"


@settings(deadline=None)
@given(rows=ROWS, seed=st.integers(0, 99))
def test_a_row_is_drawn_by_its_probabilities_and_the_gradient_passes_cut(rows: np.ndarray, seed: int) -> None:
    probabilities = on_simplex(torch.from_numpy(rows)).requires_grad_()
    slope = torch.linspace(-3, 3, probabilities.numel(), dtype=torch.float64).view(probabilities.shape)
    drawn = drawn_rows(probabilities, torch.Generator().manual_seed(seed))
    assert (drawn.sum(dim=1) == 1).all() and ((drawn == 0) | (drawn == 1)).all()
    assert (probabilities.detach()[drawn.detach() == 1] > 0).all(), "what has no chance is never drawn"
    (drawn * slope).sum().backward()
    assert torch.equal(probabilities.grad, slope.clamp(-1, 1))


def test_tokens_are_drawn_as_often_as_they_are_probable() -> None:
    rows = torch.tensor([[0.7, 0.2, 0.1]]).expand(4000, 3)
    shares = drawn_rows(rows, torch.Generator().manual_seed(1)).mean(dim=0)
    assert torch.allclose(shares, rows[0], atol=0.03)


# The loss


@pytest.fixture(scope="module")
def pipe(small_pipe):
    built = small_pipe()
    for part in (built.unet, built.text_encoder, built.vae):
        part.double()
    return built


def test_the_loss_is_how_badly_noise_is_predicted_with_the_words_before_the_prompt(pipe) -> None:
    """Literally: with whole tokens in place of their embeddings it is the loss of the text that they make."""
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    vocabulary = pipe.text_encoder.get_input_embeddings().weight.detach()
    tokens = torch.tensor([5, 11])
    ids = prefixed(pipe.tokenizer, "a photo of a church", 2)
    ours = SMALL.loss(
        pipe, latents, ids, vocabulary[tokens], noising(pipe.scheduler.config), torch.tensor([300]),
        torch.Generator().manual_seed(7),
    )  # fmt: skip

    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(7)).double()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    left = torch.prod(1 - betas[:301])
    own = pipe.tokenizer("a photo of a church", add_special_tokens=False).input_ids
    whole = [pipe.tokenizer.bos_token_id, 5, 11, *own]
    whole += [pipe.tokenizer.eos_token_id] * (77 - len(whole))
    with torch.no_grad():
        rows = pipe.text_encoder(torch.tensor([whole])).last_hidden_state
        predicted = pipe.unet(left.sqrt() * latents + (1 - left).sqrt() * noise, 300, rows).sample
    assert ours.item() == pytest.approx(float(((predicted - noise) ** 2).mean()), rel=1e-5)


def test_a_search_takes_the_steps_of_the_paper(pipe) -> None:
    """Literally: a token of each row by chance, its gradient for the row's and cut, Adam, the nearest probabilities."""
    attack = UnlearnDiffAtk(tokens=2, timesteps=3, iterations=2, lr=0.05)
    drawn = Drawn(attack, recipe(), seen_at=None)
    found = attack.find(pipe, [CHURCH], recipe(), drawn.tools)

    numbers = torch.Generator().manual_seed(hashed_seed("unlearndiffatk", 0, recipe().prompt, recipe().seed))
    vocabulary = pipe.text_encoder.get_input_embeddings().weight.detach()
    latents = encoded(pipe, drawn.tools.targets).double()
    own = pipe.tokenizer(recipe().prompt, add_special_tokens=False).input_ids
    ids = [pipe.tokenizer.bos_token_id, 0, 0, *own]
    ids = torch.tensor([ids + [pipe.tokenizer.eos_token_id] * (77 - len(ids))])
    rows = torch.full((2, len(vocabulary)), 1 / len(vocabulary), dtype=torch.float64)
    adam, texts, means = LiteralAdam(0.05, 0.1, decoupled=False), [recipe().prompt], []
    for timestep in (166, 500, 833):  # the middles of three equal parts of 1000
        losses = []
        for _ in range(2):
            chosen = torch.multinomial(rows, 1, generator=numbers)[:, 0]
            words = vocabulary[chosen].clone().requires_grad_()
            noise = torch.randn(latents.shape, generator=numbers).double()
            left = alphas_cumprod()[timestep]
            z = left.sqrt() * latents + (1 - left).sqrt() * noise
            predicted = pipe.unet(z, timestep, read_literally(pipe.text_encoder, ids, words, 1)).sample
            loss = ((predicted - noise) ** 2).mean()
            (gradient,) = torch.autograd.grad(loss, [words])
            rows = adam.step(rows, (gradient @ vocabulary.T).clamp(-1, 1))
            rows = torch.from_numpy(np.stack([sorted_projection(row) for row in rows.numpy()]))
            losses.append(loss.item())
        means.append(sum(losses) / 2)
        texts.append(f"{pipe.tokenizer.decode(rows.argmax(dim=1).tolist()).strip()} {recipe().prompt}")
    assert [one.prompt for one in drawn.tried] == texts and len(set(texts)) > 2
    assert found.info["losses"] == pytest.approx(means, rel=1e-4)


def test_a_long_prompt_loses_its_end_and_never_the_words(pipe) -> None:
    ids = prefixed(pipe.tokenizer, "b" * 90, 3)
    assert ids.shape == (1, 77) and ids[0, 1:4].tolist() == [0, 0, 0] and ids[0, 76] == pipe.tokenizer.eos_token_id


# The search


def test_the_clean_prompt_is_tried_first_and_counts(pipe) -> None:
    drawn = Drawn(SMALL, recipe(), seen_at=1)
    found = SMALL.find(pipe, [CHURCH], recipe(), drawn.tools)
    assert (found.prompt, found.info["images"], found.info["succeeded"]) == ("a photo of a church", 1, True)
    assert sum(drawn.steps) == SMALL.steps == 6


def test_it_stops_at_the_first_image_in_which_the_concept_is_seen(pipe) -> None:
    drawn = Drawn(SMALL, recipe(), seen_at=3)
    found = SMALL.find(pipe, [CHURCH], recipe(), drawn.tools)
    assert found.info["images"] == 3 and found.info["succeeded"] and len(found.info["losses"]) == 2
    assert found.prompt == drawn.tried[-1].prompt and found.prompt.endswith(" a photo of a church")
    assert sum(drawn.steps) == SMALL.steps


def test_a_search_that_fails_says_so_and_is_the_same_again(pipe) -> None:
    first, second = (SMALL.find(pipe, [CHURCH], recipe(), Drawn(SMALL, recipe(), seen_at=None).tools) for _ in range(2))
    assert first.info["images"] == 4 and first.info["succeeded"] is False
    assert first.prompt == second.prompt and first.info["losses"] == second.info["losses"]
    other = replace(SMALL, seed=1)
    assert other.find(pipe, [CHURCH], recipe(), Drawn(other, recipe(), seen_at=None).tools).prompt != first.prompt
    assert all(weight.grad is None for weight in pipe.unet.parameters())


def test_the_key_knows_budget_and_judge() -> None:
    def key(attack: UnlearnDiffAtk, judge: str = "judge@2") -> str:
        return attack.key("m", "e1", [CHURCH], recipe(), judge)

    budgets = [SMALL, *(replace(SMALL, **{name: 9}) for name in ("tokens", "timesteps", "iterations", "lr", "seed"))]
    assert len({key(one) for one in budgets} | {key(SMALL, "judge@3")}) == 7
    others = [
        SMALL.key("m", "e1", [CHURCH], recipe(), "judge@2", erased) for erased in ((), ["Church"], ["church", "tench"])
    ]
    assert others[0] == others[1] == key(SMALL) != others[2], "a judge may see what else the task erases"
    assert SMALL.targets([CHURCH], recipe(edit="e1", attack="a")) == (recipe(),)


@pytest.mark.parametrize("option", ["tokens", "timesteps", "iterations", "lr"])
def test_a_budget_of_zero_is_refused(option: str) -> None:
    with pytest.raises(UserError, match=f"{option}=0"):
        UnlearnDiffAtk(**{option: 0})


def test_without_a_judge_it_says_so(pipe) -> None:
    bare = replace(Drawn(SMALL, recipe(), seen_at=1).tools, sees=None)
    with pytest.raises(UserError, match="nothing to draw or to judge"):
        SMALL.find(pipe, [CHURCH], recipe(), bare)
