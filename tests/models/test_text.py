"""Prompts are encoded as the pipelines do it, and the token rules pick the rows they name."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from text_helpers import pick, rows

from erasebench.errors import UserError
from erasebench.models.text import TOKEN_RULES, Texts, truncated_texts


def encode(pipe, texts):
    return torch.stack(Texts(pipe).rows(texts, "all"))


@pytest.mark.parametrize("pipe_name", ["tiny_random_pipe", "tiny_random_sd2_pipe", "tiny_random_sdxl_pipe"])
def test_all_rows_are_the_pipelines_own_encoding(pipe_name, request):
    pipe = request.getfixturevalue(pipe_name)
    texts = ["a church", "", "a gas pump in the style of monet, " * 5]
    torch.testing.assert_close(
        encode(pipe, texts).double(), torch.stack([rows(pipe, text)[0] for text in texts]), atol=1e-6, rtol=1e-5
    )


@given(
    texts=st.lists(st.text("abcdefg .", max_size=90), min_size=1, max_size=5),
    rules=st.lists(st.sampled_from(TOKEN_RULES), min_size=1, max_size=3),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("pipe_name", ["exact_pipe"])
def test_rules_pick_the_rows_they_name_however_little_is_encoded(pipe_name, request, texts, rules):
    """Short encodings of a causal encoder equal the full ones, in any order of rules; long texts are cut at 75."""
    pipe = request.getfixturevalue(pipe_name)
    encoded = Texts(pipe)
    for rule in rules:
        for text, got in zip(texts, encoded.rows(texts, rule), strict=True):
            torch.testing.assert_close(got.double(), pick(pipe, text, rule), atol=1e-10, rtol=1e-8)


def test_sdxl_rows_of_a_short_rule_are_those_of_the_whole(tiny_random_sdxl_pipe):
    for rule in TOKEN_RULES:
        (got,) = Texts(tiny_random_sdxl_pipe).rows(["a church"], rule)
        torch.testing.assert_close(got.double(), pick(tiny_random_sdxl_pipe, "a church", rule), atol=1e-6, rtol=1e-5)


def positions(pipe, texts, *rules):
    """Sizes of the encoder's calls."""
    seen = []
    handle = pipe.text_encoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        encoded = Texts(pipe)
        for rule in rules:
            encoded.rows(texts, rule)
    finally:
        handle.remove()
    return seen


def test_each_distinct_beginning_is_encoded_once_and_no_further_than_the_rule_looks(tiny_random_pipe):
    texts = ["ab", "b", "ab", "", "abc"]  # a token a letter, its last letter another one: BOS, ab, b, abc less a
    assert positions(tiny_random_pipe, texts, "last_content") == [(1, 1 + 2 + 1 + 2)]
    assert positions(tiny_random_pipe, texts, "eos", "content", "last_content") == [(1, 6 + 4)]
    assert positions(tiny_random_pipe, texts, "content", "eos") == [(1, 6), (1, 10)]
    assert positions(tiny_random_pipe, texts, "all", "tail", "last_content", "mean") == [(4, 77)]


def test_the_first_row_is_the_same_for_every_text(tiny_random_pipe):
    first = encode(tiny_random_pipe, ["", "church", "tench"])[:, 0]
    torch.testing.assert_close(first, first[:1].expand(3, -1), atol=1e-6, rtol=1e-5)


def test_an_unknown_rule_is_refused_with_the_nearest_name(tiny_random_pipe):
    with pytest.raises(UserError, match="last_content"):
        Texts(tiny_random_pipe).rows(["a"], "last_contnt")


def test_truncated_texts_are_what_the_encoder_does_not_see(tiny_random_pipe):
    assert truncated_texts(tiny_random_pipe, ["a church"]) == {}
    assert truncated_texts(tiny_random_pipe, ["a" * 75]) == {}
    prompt = "b" * 75 + " church"
    assert truncated_texts(tiny_random_pipe, ["a", prompt]) == {prompt: "church"}
    short, long = encode(tiny_random_pipe, ["b" * 75, prompt])
    assert torch.equal(short[:75], long[:75])


def test_a_pipeline_without_a_clip_encoder_is_refused():
    class Other:
        pass

    with pytest.raises(UserError, match="Other"):
        Texts(Other())
