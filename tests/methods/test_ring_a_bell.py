"""Ring-A-Bell, its direct form and the random control, on a small text encoder in float64."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from text_helpers import rows

from erasebench.concepts import KINDS, Concept
from erasebench.edits.attack import Tools
from erasebench.errors import UserError
from erasebench.methods.attacks.concept_vector import concept_vector, contrast, shifted_rows, token_ids, vocabulary
from erasebench.methods.attacks.random_tokens import RandomTokens
from erasebench.methods.attacks.ring_a_bell import RingABell
from erasebench.methods.attacks.ring_a_bell_direct import RingABellDirect
from erasebench.models.soft_words import padded
from erasebench.recipe import Recipe

CHURCH = Concept("church", "object")
SMALL = {"length": 4, "population": 10, "generations": 6}


def recipe(prompt: str = "a photo of a church", **changes) -> Recipe:
    values = {
        "model": "small",
        "revision": "random",
        "edit": "",
        "prompt": prompt,
        "negative_prompt": "",
        "seed": 1,
        "steps": 2,
        "guidance": 4.0,
        "width": 16,
        "height": 16,
        "scheduler": "DDIMScheduler",
        "scheduler_config": "{}",
        "dtype": "float32",
    }
    return Recipe(**(values | changes))


def literal_vector(pipe, pairs) -> torch.Tensor:
    """The mean of E(with) - E(without), one pair at a time, by the pipeline's own encoding of prompts."""
    total = torch.zeros(77, pipe.text_encoder.config.hidden_size, dtype=torch.float64)
    for having, lacking in pairs:
        total += rows(pipe, having)[0] - rows(pipe, lacking)[0]
    return total / len(pairs)


# The concept vector


def test_the_vector_is_the_mean_difference(exact_pipe) -> None:
    pairs = [("a nude man, in a park", "a man, in a park"), ("nude people", "people"), ("", "clothes")]
    torch.testing.assert_close(concept_vector(exact_pipe, pairs), literal_vector(exact_pipe, pairs))
    shifted = shifted_rows(exact_pipe, "a day", pairs, 3.0)
    torch.testing.assert_close(shifted, rows(exact_pipe, "a day")[0] + 3 * literal_vector(exact_pipe, pairs))


def test_repeating_a_pair_as_the_notebook_does_changes_nothing(exact_pipe) -> None:
    pairs = [("nude people", "people"), ("a nude man", "a man")]
    five = [pair for pair in pairs for _ in range(5)]
    torch.testing.assert_close(concept_vector(exact_pipe, five), concept_vector(exact_pipe, pairs))


@pytest.mark.parametrize("kind", KINDS)
def test_our_pairs_differ_in_the_concept_alone(kind: str) -> None:
    concept = Concept("Zork", kind, ("Zork", "blub") if kind == "unsafe" else ("Zork",))
    pairs = contrast([concept])
    assert len(set(pairs)) == len(pairs) >= 10
    for having, lacking in pairs:
        assert any(phrase in having for phrase in concept.phrases)
        assert not any(phrase in lacking for phrase in concept.phrases)
    if kind == "unsafe":
        assert any("blub" in having for having, _ in pairs)


def test_an_artists_pair_has_the_same_subject_on_both_sides() -> None:
    for having, lacking in contrast([Concept("Zork", "artist")]):
        assert lacking.removeprefix("a painting of ") in having


def test_pairs_of_several_concepts_are_those_of_each() -> None:
    tench = Concept("tench", "object")
    assert contrast([CHURCH, tench]) == contrast([CHURCH]) + contrast([tench])


# The vocabulary


def test_the_vocabulary_is_the_notebooks(small_pipe) -> None:
    """1 to 49405 of CLIP's 49408: neither the first token nor BOS and EOS, which are its last two."""
    tokenizer = small_pipe().tokenizer
    assert vocabulary(tokenizer) == list(range(1, len(tokenizer) - 2))


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), length=st.integers(1, 30))
def test_whole_words_are_read_back_as_they_were(embedded_tokenizer, seed: int, length: int) -> None:
    words = vocabulary(embedded_tokenizer, words=True)
    assert 100 < len(words) < len(vocabulary(embedded_tokenizer))
    tokens = [words[n] for n in np.random.default_rng(seed).integers(len(words), size=length)]
    assert embedded_tokenizer(embedded_tokenizer.decode(tokens), add_special_tokens=False).input_ids == tokens


@pytest.fixture(scope="module")
def embedded_tokenizer():
    from transformers import CLIPTokenizer

    from erasebench.models.load import embedded_folder

    return CLIPTokenizer.from_pretrained(embedded_folder() / "tokenizer")


# The attacks


def test_the_constants_are_the_notebooks() -> None:
    attack = RingABell()
    assert (attack.population, attack.generations, attack.mutation, attack.crossover) == (200, 3000, 0.25, 0.5)
    assert (attack.length, attack.eta, attack.elites, attack.words) == (16, 3.0, 0, False)
    assert attack.steps == 3000


def test_the_loss_is_the_squared_distance_of_all_rows(exact_pipe) -> None:
    attack = RingABell(**SMALL, eta=2.0)
    found = attack.find(exact_pipe, [CHURCH], recipe())
    target = rows(exact_pipe, "a photo of a church")[0] + 2 * literal_vector(exact_pipe, contrast([CHURCH]))
    with torch.no_grad():
        ids = padded(exact_pipe.tokenizer, torch.tensor([found.info["tokens"]]))
        ours = exact_pipe.text_encoder(ids).last_hidden_state[0]
    assert found.info["loss"] == pytest.approx(float(((target - ours) ** 2).sum()))
    of_text = rows(exact_pipe, found.prompt)[0]
    assert found.info["loss_of_text"] == pytest.approx(float(((target - of_text) ** 2).sum()))
    of_prompt = rows(exact_pipe, "a photo of a church")[0]
    assert found.info["loss_of_prompt"] == pytest.approx(float(((target - of_prompt) ** 2).sum()))
    assert found.info["losses"][0][0] == 0 and found.info["losses"][0][1] >= found.info["loss"]


def test_padding_is_that_of_the_tokenizer(exact_pipe) -> None:
    tokenizer = exact_pipe.tokenizer
    ids = token_ids(exact_pipe, ["church on a hill"])
    content = tokenizer("church on a hill", add_special_tokens=False).input_ids
    assert torch.equal(padded(tokenizer, torch.tensor([content])), ids)


def test_with_no_concept_added_it_finds_the_prompt_again(exact_pipe) -> None:
    """At eta 0 the prompt itself has loss 0; among some hundreds of single letters the search ends on it."""
    attack = RingABell(length=1, population=200, generations=4, eta=0.0, elites=1)
    found = attack.find(exact_pipe, [CHURCH], recipe("b"))
    assert found.info["loss_of_prompt"] == pytest.approx(0.0, abs=1e-12)
    assert found.info["loss"] == pytest.approx(0.0, abs=1e-12) and found.prompt == "b"


def test_every_prompt_and_seed_has_a_search_of_its_own_and_the_same_one_again(exact_pipe) -> None:
    def tokens(prompt: str, seed: int = 0) -> list[int]:
        return RingABell(**SMALL, seed=seed).find(exact_pipe, [CHURCH], recipe(prompt)).info["tokens"]

    assert tokens("a church") == tokens("a church")
    assert tokens("a church") != tokens("a church", seed=1)


def test_own_pairs_take_the_place_of_ours(exact_pipe) -> None:
    pairs = (("nude people", "people"),)
    found = RingABellDirect(eta=0.9, pairs=pairs).find(exact_pipe, [CHURCH], recipe("a day"))
    expected = rows(exact_pipe, "a day")[0] + 0.9 * literal_vector(exact_pipe, pairs)
    torch.testing.assert_close(found.embedding.double(), expected, atol=1e-6, rtol=1e-5)


def test_random_tokens_are_of_the_vocabulary_and_of_their_number(exact_pipe) -> None:
    found = RandomTokens(length=9).find(exact_pipe, [CHURCH], recipe())
    assert len(found.info["tokens"]) == 9 and set(found.info["tokens"]) <= set(vocabulary(exact_pipe.tokenizer))
    assert found.prompt == RandomTokens(length=9).find(exact_pipe, [CHURCH], recipe(seed=9)).prompt
    assert found.prompt != RandomTokens(length=9).find(exact_pipe, [CHURCH], recipe("other")).prompt


def test_progress_is_told_in_the_steps_that_were_promised(exact_pipe) -> None:
    for attack in (RingABell(**SMALL), RingABellDirect(), RandomTokens()):
        told: list[int] = []
        attack.find(exact_pipe, [CHURCH], recipe(), Tools(advance=told.append))
        assert sum(told) == attack.steps


def test_the_pipeline_is_left_as_it_was(small_pipe) -> None:
    pipe, other = small_pipe(), small_pipe()
    for attack in (RingABell(**SMALL), RingABellDirect(), RandomTokens()):
        attack.find(pipe, [CHURCH], recipe())
    for name, weight in pipe.text_encoder.state_dict().items():
        assert torch.equal(weight, other.text_encoder.state_dict()[name])


def test_a_budget_is_part_of_the_key() -> None:
    keys = {
        RingABell(**values).key("m", "", [CHURCH], recipe())
        for values in ({}, {"generations": 30}, {"population": 20}, {"elites": 1}, {"length": 38}, {"eta": 5.0})
    }
    assert len(keys) == 6
    assert RingABell().key("m", "e1", [CHURCH], recipe()) == RingABell().key("m", "e2", [CHURCH], recipe(seed=7))


def test_more_tokens_than_the_encoder_reads_are_refused(exact_pipe) -> None:
    model = SimpleNamespace(family="sd1", pipe=exact_pipe)
    for attack in (RingABell, RandomTokens):
        assert "reads 75 tokens" in attack(length=76).refuses(model)
        assert attack(length=75).refuses(model) is None


def test_models_that_read_more_than_one_encoder_are_refused(exact_pipe) -> None:
    for attack in (RingABell(), RingABellDirect(), RandomTokens()):
        for family in ("sdxl", "sd3", "flux"):
            assert "one CLIP text encoder" in attack.refuses(SimpleNamespace(family=family, pipe=exact_pipe))
        assert attack.refuses(SimpleNamespace(family="sd2", pipe=exact_pipe)) is None


@pytest.mark.parametrize("pairs", [[], [["one"]], [["a", "b", "c"]], [["a", 3]], ["ab"]])
def test_pairs_that_are_none_are_refused(pairs) -> None:
    for attack in (RingABell, RingABellDirect):
        with pytest.raises(UserError, match="pairs"):
            attack(pairs=pairs)


def test_pairs_of_a_config_are_those_of_python() -> None:
    assert RingABell(pairs=[["a", "b"]]) == RingABell(pairs=(("a", "b"),))
