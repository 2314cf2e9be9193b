"""Prompts are encoded as the pipelines do it, and the token rules pick the rows they name."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from erasebench.errors import UserError
from erasebench.text import TOKEN_RULES, TextRows, encode, token_rows, truncated_text


@pytest.mark.parametrize("pipe_name", ["tiny_random_pipe", "tiny_random_sd2_pipe"])
def test_encode_is_the_pipelines_own_encoding(pipe_name, request):
    pipe = request.getfixturevalue(pipe_name)
    texts = ["a church", "", "a gas pump in the style of monet, " * 5]
    with torch.no_grad():
        expected = torch.cat([pipe.encode_prompt(text, "cpu", 1, False)[0] for text in texts])
    torch.testing.assert_close(encode(pipe, texts).embeddings, expected, atol=1e-6, rtol=1e-5)


def test_encode_sdxl_is_the_pipelines_own_encoding(tiny_random_sdxl_pipe):
    pipe = tiny_random_sdxl_pipe
    with torch.no_grad():
        expected = pipe.encode_prompt("a church", device="cpu", do_classifier_free_guidance=False)[0]
    encoded = encode(pipe, ["a church"])
    assert encoded.embeddings.shape == (1, 77, 28)
    torch.testing.assert_close(encoded.embeddings, expected, atol=1e-6, rtol=1e-5)


def test_lengths_count_content_tokens_and_stop_at_75(tiny_random_pipe):
    encoded = encode(tiny_random_pipe, ["", " ", "church", "a" * 200])
    assert encoded.lengths.tolist() == [0, 0, 6, 75]
    assert torch.equal(encoded.embeddings[0], encoded.embeddings[1])


def test_texts_keep_their_order_and_repeats(tiny_random_pipe):
    texts = ["tench", "church", "tench", ""]
    encoded = encode(tiny_random_pipe, texts)
    assert encoded.texts == tuple(texts) and len(encoded) == 4
    assert torch.equal(encoded.embeddings[0], encoded.embeddings[2])
    assert not torch.equal(encoded.embeddings[0], encoded.embeddings[1])


def test_each_distinct_text_is_encoded_once(tiny_random_pipe):
    seen = []
    handle = tiny_random_pipe.text_encoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(args[0])), with_kwargs=True
    )
    try:
        encode(tiny_random_pipe, ["a", "b", "a", "c", "a"], batch_size=2)
    finally:
        handle.remove()
    assert seen == [2, 1]


def test_batch_size_does_not_change_an_embedding(tiny_random_pipe):
    texts = [f"church {i}" for i in range(5)]
    one, all_ = encode(tiny_random_pipe, texts, 1), encode(tiny_random_pipe, texts, 64)
    torch.testing.assert_close(one.embeddings, all_.embeddings, atol=1e-6, rtol=1e-5)


def test_the_first_row_is_the_same_for_every_text(tiny_random_pipe):
    rows = encode(tiny_random_pipe, ["", "church", "tench"]).embeddings[:, 0]
    torch.testing.assert_close(rows, rows[:1].expand(3, -1), atol=1e-6, rtol=1e-5)


EXPECTED = {
    "last_content": lambda n: [n],
    "content": lambda n: list(range(1, n + 1)),
    "content_eos": lambda n: list(range(1, n + 2)),
    "tail": lambda n: list(range(n, 77)),
    "all": lambda n: list(range(77)),
    "no_bos": lambda n: list(range(1, 77)),
}


@given(lengths=st.lists(st.integers(0, 75), min_size=1, max_size=4), rule=st.sampled_from(TOKEN_RULES))
def test_rules_pick_the_rows_they_name(lengths, rule):
    rows = torch.arange(77.0)[None, :, None].repeat(len(lengths), 1, 2)
    picked = token_rows(TextRows(("x",) * len(lengths), rows, torch.tensor(lengths)), rule)
    for n, got in zip(lengths, picked, strict=True):
        if rule == "mean":
            assert got.shape == (1, 2)
            assert got[0, 0].item() == pytest.approx(sum(range(n + 2)) / (n + 2))
        else:
            assert got[:, 0].tolist() == EXPECTED[rule](n)


def test_an_unknown_rule_is_refused_with_the_nearest_name(tiny_random_pipe):
    with pytest.raises(UserError, match="last_content"):
        token_rows(encode(tiny_random_pipe, ["a"]), "last_contnt")


def test_truncated_text_is_what_the_encoder_does_not_see(tiny_random_pipe):
    assert truncated_text(tiny_random_pipe, "a church") == ""
    assert truncated_text(tiny_random_pipe, "a" * 75) == ""
    prompt = "b" * 75 + " church"
    assert truncated_text(tiny_random_pipe, prompt) == "church"
    short, long = encode(tiny_random_pipe, ["b" * 75, prompt]).embeddings
    assert torch.equal(short[:75], long[:75])


def test_a_pipeline_without_a_clip_encoder_is_refused():
    class Other:
        pass

    with pytest.raises(UserError, match="Other"):
        encode(Other(), ["a"])
