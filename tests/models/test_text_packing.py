"""Texts side by side in one sequence get the rows that each would get alone."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from erasebench.models import text_packing
from erasebench.models.text_packing import encode_packed, pack, pack_evenly

BOS = 80
TEXTS = st.lists(st.lists(st.integers(0, 3), max_size=11).map(lambda ids: [BOS, *ids]), min_size=1, max_size=40)


@given(TEXTS, st.integers(12, 30))
@pytest.mark.parametrize("packing", [pack, pack_evenly])
def test_every_beginning_is_laid_in_once_a_sequence_and_sees_itself_alone(packing, texts, length):
    sequences, places = packing(texts, length)
    for text, (sequence, slots) in zip(texts, places, strict=True):
        assert [sequences[sequence].tokens[slot] for slot in slots] == text
        for k, slot in enumerate(slots):
            assert sequences[sequence].beginnings[slot] == slots[: k + 1]
    for sequence in sequences:
        assert len(sequence.tokens) <= length
        read = [tuple(sequence.tokens[slot] for slot in slots) for slots in sequence.beginnings]
        assert len(set(read)) == len(read)
    assert {sequence for sequence, _ in places} == set(range(len(sequences)))


@given(TEXTS)
def test_even_sequences_are_no_more_and_no_longer(texts):
    packed, even = pack(texts, 20)[0], pack_evenly(texts, 20)[0]
    assert len(even) == len(packed)
    assert max(len(s.tokens) for s in even) <= max(len(s.tokens) for s in packed)


@given(texts=TEXTS, positions=st.sampled_from([1, 160, 2048]))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("attention, tolerance", [("sdpa", 1e-11), ("eager", 1e-5)])  # eager: softmax in float32
def test_rows_are_those_of_each_text_alone(exact_pipe, monkeypatch, texts, positions, attention, tolerance):
    encoder = exact_pipe.text_encoder
    monkeypatch.setattr(text_packing, "POSITIONS", positions)
    before = encoder.config._attn_implementation
    encoder.set_attn_implementation(attention)
    try:
        got = encode_packed(encoder, texts, 77, penultimate=False)
        for text, rows in zip(texts, got, strict=True):
            with torch.no_grad():
                alone = encoder(torch.tensor([text])).last_hidden_state[0]
            torch.testing.assert_close(rows, alone, atol=tolerance, rtol=tolerance)
    finally:
        encoder.set_attn_implementation(before)


def test_half_precision_is_masked_too(exact_pipe):
    """The mask has the encoder's type, and the least number of that type hides a token wholly."""
    texts = [[BOS, 1, 2], [BOS, 3, 4, 5], [BOS, 1, 6]]
    encoder = copy.deepcopy(exact_pipe.text_encoder).to(torch.bfloat16)
    rows = encode_packed(encoder, texts, 77, penultimate=False)
    for got, text in zip(rows, texts, strict=True):
        with torch.no_grad():
            alone = encoder(torch.tensor([text])).last_hidden_state[0]
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got, alone, atol=0.05, rtol=0.05)
