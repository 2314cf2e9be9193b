"""Soft words stand where a phrase stood, and a text with them is read as one with those tokens."""

from __future__ import annotations

import pytest
import torch
from conftest import character_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from erasebench.models.soft_words import padded, placed, read_at, read_with

TOKENIZER = character_tokenizer()


def ids_of(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("a photo of a church by day", "a photo of a", "by day"),
        ("CHURCH", "", ""),
        ("a small church", "a", ""),
        ("a churchyard", "a churchyard", ""),  # no whole word: behind the text
        ("church and church", "", "and church"),
        ("", "", ""),
    ],
)
def test_they_stand_in_place_of_the_phrase(text: str, before: str, after: str) -> None:
    ids, start = placed(TOKENIZER, text, ("church", "small church"), 2)
    assert start == 1 + len(ids_of(before))
    expected = padded(TOKENIZER, torch.tensor([[*ids_of(before), 0, 0, *ids_of(after)]], dtype=torch.long))
    assert torch.equal(ids, expected)


@settings(deadline=None)
@given(before=st.integers(0, 90), after=st.integers(0, 90), count=st.integers(1, 75))
def test_a_text_that_is_too_long_never_loses_their_room(before: int, after: int, count: int) -> None:
    text = f"{'a' * before} church {'b' * after}"
    ids, start = placed(TOKENIZER, text, ("church",), count)
    assert ids.shape == (1, 77) and start >= 1 and start + count <= 76
    assert (ids[0, start : start + count] == 0).all() and TOKENIZER.eos_token_id in ids[0, start + count :]


def test_the_rows_of_tokens_in_their_own_places_are_those_of_the_text(exact_pipe) -> None:
    encoder = exact_pipe.text_encoder
    whole = padded(TOKENIZER, torch.tensor([ids_of("a church on a hill")]))
    with torch.no_grad():
        expected = encoder(whole).last_hidden_state
        words = encoder.get_input_embeddings().weight[whole[0, [2, 5, 6]]][None]
        other = whole.clone()
        other[0, [2, 5, 6]] = 0
        assert torch.allclose(read_at(encoder, other, words, [2, 5, 6]), expected)
        together = encoder.get_input_embeddings().weight[whole[0, 3:6]][None]
        assert torch.allclose(read_with(encoder, whole, together, 3), expected)
    assert not encoder.get_input_embeddings()._forward_hooks
