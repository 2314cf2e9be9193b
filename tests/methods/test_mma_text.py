"""MMA-Diffusion's text: its gradient is that of one-hot rows, a step is the best of all that it may try, no word is the concept's."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from attack_helpers import CHURCH, read_literally, recipe

from erasebench.concepts import Concept
from erasebench.edits.attack import Tools
from erasebench.errors import UserError
from erasebench.methods.attacks.concept_vector import token_ids
from erasebench.methods.attacks.mma_text import MmaText, allowed_tokens, forbidden_words, kept_when_read, pooled
from erasebench.models.soft_words import padded

SMALL = MmaText(length=5, iterations=8, batch=20, topk=6)


@pytest.fixture(scope="module")
def pipe(small_pipe):
    built = small_pipe()
    for part in (built.unet, built.text_encoder, built.vae):
        part.double()
    return built


def test_texts_are_summed_up_as_the_encoder_does_it(pipe) -> None:
    ids = token_ids(pipe, ["a photo of a church", "", "b" * 90])
    with torch.no_grad():
        torch.testing.assert_close(pooled(pipe, ids), pipe.text_encoder(ids).pooler_output)


def test_the_choices_are_those_of_the_gradient_of_one_hot_rows(pipe) -> None:
    """Literally: rows of a longer vocabulary, each token of each place by its own entry of the gradient."""
    tokens = torch.tensor([3, 9, 27, 4, 11])
    wanted = pooled(pipe, token_ids(pipe, ["a photo of a church"]))[0]
    allowed = [number for number in range(1, 70) if number % 3]
    ours = SMALL.choices(pipe, tokens, wanted, allowed)
    table = pipe.text_encoder.get_input_embeddings().weight.detach()
    one_hot = torch.nn.functional.one_hot(tokens, len(table)).double().requires_grad_()
    rows = read_literally(pipe.text_encoder, padded(pipe.tokenizer, tokens[None]), one_hot @ table, 1)
    summed = rows[0, 6]
    (gradient,) = torch.autograd.grad(-(summed @ wanted) / (summed.norm() * wanted.norm()), [one_hot])
    for place in range(5):
        slopes = sorted((gradient[place, number].item(), number) for number in allowed)
        assert ours[place].tolist() == [number for _, number in slopes[:6]]


def test_texts_that_are_tried_differ_in_one_token_and_all_places_have_their_turn() -> None:
    tokens, choices = torch.arange(5), torch.arange(100, 130).view(5, 6)
    tried = SMALL.replaced(tokens, choices, torch.Generator().manual_seed(1))
    changed = tried != tokens
    assert (changed.sum(dim=1) == 1).all() and changed.sum(dim=0).tolist() == [4] * 5
    assert all(row[place] in choices[place] for row, place in zip(tried, changed.int().argmax(dim=1), strict=True))


def test_a_search_is_the_best_of_each_step_and_keeps_the_best_of_all(pipe) -> None:
    found = SMALL.find(pipe, [CHURCH], recipe(), Tools())
    assert found.form == "prompt" and len(found.info["cosines"]) == 8
    assert found.info["cosine"] == max(found.info["cosines"]) and found.info["cosines"][-1] > found.info["cosines"][0]
    read = token_ids(pipe, [found.prompt])
    cosine = torch.cosine_similarity(pooled(pipe, read), pooled(pipe, token_ids(pipe, [recipe().prompt])), dim=1)
    assert cosine.item() == pytest.approx(found.info["cosine"], abs=1e-9), "of the text as it is read"
    assert SMALL.find(pipe, [CHURCH], recipe(), Tools()).prompt == found.prompt
    assert replace(SMALL, seed=1).find(pipe, [CHURCH], recipe(), Tools()).prompt != found.prompt
    assert all(weight.grad is None for weight in pipe.text_encoder.parameters())


def test_no_word_of_the_concept_is_in_the_text() -> None:
    """With tokens of whole words, of which the forbidden ones alone would do."""
    words = forbidden_words([Concept("Vincent van Gogh", "artist"), Concept("church", "object", ("steeple",))])
    assert {"vincent", "van", "gogh", "church", "steeple"} <= words

    class Tokenizer:
        all_special_ids, eos_token_id, bos_token_id, pad_token_id, model_max_length = (0, 8), 8, 0, 8, 10
        texts = ("<s>", "x", "Church", "gog", "an", "tree", "steeple", "urch", "</s>")

        def __len__(self) -> int:
            return 9

        def decode(self, ids):
            return " ".join(self.texts[number] for number in ids)

        def __call__(self, texts, **options):
            return SimpleNamespace(input_ids=[[self.texts.index(word) for word in text.split()] for text in texts])

    tokenizer = Tokenizer()
    assert allowed_tokens(tokenizer, words) == [1, 4, 5], "neither a word nor a part of one; two letters are no part"
    tried, read = kept_when_read(tokenizer, torch.tensor([[1, 5], [1, 2], [5, 4]]), words)
    assert tried.tolist() == [[1, 5], [5, 4]] and read[:, :4].tolist() == [[0, 1, 5, 8], [0, 5, 4, 8]]


def test_what_was_searched_is_free_of_the_words_and_one_search_serves_all_edits_and_seeds(pipe) -> None:
    odd = Concept("a b c d e f", "object")  # words that are tokens of this tokenizer
    found = SMALL.find(pipe, [odd], recipe(), Tools())
    assert not set(re.findall(r"\w+", found.prompt.casefold())) & forbidden_words([odd])
    keys = {SMALL.key("m", edit, [CHURCH], recipe(seed=seed)) for edit in ("", "e1") for seed in (1, 2)}
    budgets = {
        replace(SMALL, **{name: 7}).key("m", "", [CHURCH], recipe())
        for name in ("length", "iterations", "batch", "topk", "seed")
    }
    assert len(keys) == 1 and len(keys | budgets) == 6


@pytest.mark.parametrize("option", ["length", "iterations", "batch", "topk"])
def test_a_budget_of_zero_is_refused(option: str) -> None:
    with pytest.raises(UserError, match=f"{option}=0"):
        MmaText(**{option: 0})


def test_what_it_cannot_attack_it_names(pipe, small_pipe) -> None:
    long = replace(SMALL, length=76).refuses(SimpleNamespace(family="sd1", pipe=small_pipe()))
    assert "its text encoder reads 75 tokens, not 76" in long
    assert "one CLIP text encoder" in SMALL.refuses(SimpleNamespace(family="sd3", pipe=pipe))
