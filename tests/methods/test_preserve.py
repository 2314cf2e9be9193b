"""Preserve caches: the right sums, kept on disk, found again, resumed and repaired."""

from __future__ import annotations

import pytest
import torch
from text_helpers import pick

from erasebench.errors import UserError
from erasebench.methods.closed_form import preserve
from erasebench.methods.closed_form.preserve import forgetful, preserve_cache_folder, preserve_gram, prompts_hash
from erasebench.models.targets import text_inputs
from erasebench.models.text import Texts

PROMPTS = ("a dog in the park", "two boats", "", "a dog in the park", "the sea at night", "one red chair", "a cup")


@pytest.fixture
def part(exact_pipe):
    return text_inputs(exact_pipe)[0]


@pytest.fixture
def encoded(monkeypatch):
    """The texts that were encoded, call by call."""
    seen = []
    encode = Texts.rows

    def rows(self, texts, rule):
        seen.append(list(texts))
        return encode(self, texts, rule)

    monkeypatch.setattr(Texts, "rows", rows)
    return seen


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    monkeypatch.setattr(preserve, "PROMPTS_AT_ONCE", 2)
    monkeypatch.setattr(preserve, "SAVE_SECONDS", 0.0)


def literal(pipe, prompts, rule="all"):
    total = torch.zeros(24, 24, dtype=torch.float64)
    for prompt in prompts:
        for row in pick(pipe, prompt, rule):
            total += torch.outer(row, row)
    return total


# The matrix ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["all", "eos", "last_content"])
def test_it_is_the_sum_over_every_row_of_every_prompt(rule, part, exact_pipe, tmp_path):
    expected = literal(exact_pipe, PROMPTS, rule)
    found = preserve_gram(part, PROMPTS, rule, tmp_path)
    assert found.dtype == torch.float64
    assert torch.linalg.norm(found - expected) < 1e-12 * torch.linalg.norm(expected)


def test_a_second_use_encodes_nothing_and_gives_the_same_bits(part, encoded, tmp_path):
    first = preserve_gram(part, PROMPTS, "all", tmp_path)
    assert sum(map(len, encoded)) == len(PROMPTS)
    encoded.clear()
    assert torch.equal(preserve_gram(part, PROMPTS, "all", tmp_path), first)
    assert not encoded
    assert [file.suffix for file in tmp_path.iterdir()] == [".safetensors"], "no partial file is left"


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_killed_run_goes_on_where_it_was_to_the_same_bits(after, part, encoded, tmp_path, monkeypatch):
    whole = preserve_gram(part, PROMPTS, "all", tmp_path / "whole")
    encoded.clear()
    save = preserve._save

    def killed(path, total, done):
        save(path, total, done)
        if done >= 2 * after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preserve, "_save", killed)
        with pytest.raises(KeyboardInterrupt):
            preserve_gram(part, PROMPTS, "all", tmp_path)
    assert sum(map(len, encoded)) == 2 * after
    resumed = preserve_gram(part, PROMPTS, "all", tmp_path)
    assert torch.equal(resumed, whole)
    assert sum(map(len, encoded)) == len(PROMPTS), "no prompt was encoded twice"
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_rows_are_not_held_on_to(part, tmp_path):
    preserve_gram(part, PROMPTS, "all", tmp_path)
    assert not part.texts._known
    assert forgetful(part).texts is not part.texts


# Faults --------------------------------------------------------------------------------------------------------------


def cut(data):
    return data[: len(data) // 2]


def flipped(data):
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


@pytest.mark.parametrize("damage", [cut, flipped, lambda data: b""])
@pytest.mark.parametrize("partial", [False, True])
def test_a_broken_file_is_set_aside_and_made_again(damage, partial, part, encoded, tmp_path, caplog):
    expected = preserve_gram(part, PROMPTS, "all", tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    damaged = file.with_name(file.name.replace(".safetensors", ".partial.safetensors")) if partial else file
    damaged.write_bytes(damage(file.read_bytes()))
    if partial:
        file.unlink()
    encoded.clear()
    assert torch.equal(preserve_gram(part, PROMPTS, "all", tmp_path), expected)
    assert sum(map(len, encoded)) == len(PROMPTS)
    assert damaged.with_name(damaged.name + ".broken").is_file()
    assert "will be made again" in caplog.text


def test_a_folder_that_cannot_be_made_is_named(part, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file.*in the way of a folder"):
        preserve_gram(part, PROMPTS, "all", tmp_path / "file" / "cache")


def test_no_prompts_and_unknown_rules_are_refused(part, tmp_path):
    with pytest.raises(UserError, match="at least one prompt"):
        preserve_gram(part, [], "all", tmp_path)
    with pytest.raises(UserError, match="unknown token rule"):
        preserve_gram(part, PROMPTS, "some", tmp_path)


def test_t5_is_refused(tiny_random_flux_pipe, tmp_path):
    with pytest.raises(UserError, match="CLIP"):
        preserve_gram(text_inputs(tiny_random_flux_pipe)[0], PROMPTS, "all", tmp_path)


# What a cache is called ----------------------------------------------------------------------------------------------


def test_other_prompts_rules_and_weights_are_other_caches(small_pipe, tmp_path):
    pipe = small_pipe()
    part = text_inputs(pipe)[0]
    preserve_gram(part, PROMPTS, "all", tmp_path)
    preserve_gram(part, PROMPTS, "eos", tmp_path)
    preserve_gram(part, PROMPTS[::-1], "all", tmp_path)
    preserve_gram(part, ["a\nb", "c"], "all", tmp_path)
    preserve_gram(part, ["a", "b\nc"], "all", tmp_path)
    with torch.no_grad():
        pipe.text_encoder.get_parameter(next(name for name, _ in pipe.text_encoder.named_parameters()))[0, 0] += 1e-6
    preserve_gram(part, PROMPTS, "all", tmp_path)
    pipe.text_encoder.half().float()
    preserve_gram(part, PROMPTS, "all", tmp_path)
    assert len(list(tmp_path.iterdir())) == 7


def test_what_a_tokenizer_did_last_is_not_part_of_the_name(small_pipe, encoded, tmp_path):
    pipe = small_pipe()
    first = preserve_gram(text_inputs(pipe)[0], PROMPTS, "all", tmp_path)
    pipe.tokenizer("a", padding="max_length", max_length=5, truncation=True)
    encoded.clear()
    assert torch.equal(preserve_gram(text_inputs(small_pipe())[0], PROMPTS, "all", tmp_path), first)
    assert torch.equal(preserve_gram(text_inputs(pipe)[0], PROMPTS, "all", tmp_path), first)
    assert not encoded


def test_the_default_folder_is_below_the_users_cache(monkeypatch, tmp_path, part):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert preserve_cache_folder() == tmp_path / "erasebench" / "preserve"
    preserve_gram(part, PROMPTS[:1])
    assert len(list(preserve_cache_folder().iterdir())) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert preserve_cache_folder() == tmp_path / "home" / ".cache" / "erasebench" / "preserve"


def test_hashes_tell_lists_apart():
    assert prompts_hash(["a", "b"]) != prompts_hash(["a\nb"]) != prompts_hash(["b", "a"])
