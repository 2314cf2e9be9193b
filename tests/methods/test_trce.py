"""TRCE stage 1 equals its literal transcription: one EOS row a prompt, means, the cache's scale squared."""

from __future__ import annotations

import pytest
import torch
from literal import trce as literal
from text_helpers import pick

from erasebench.concepts import Concept, ErasureTask
from erasebench.errors import UserError
from erasebench.methods.closed_form.trce import TRCE_TEMPLATES, Trce
from erasebench.models.targets import key_value_weights

TASK = ErasureTask((Concept("blood", "unsafe", ("blood", "a wound"), "a person wearing clothes"),), ("a dog", ""))
PAIRS = [("blood", "a person wearing clothes"), ("a wound", "a person wearing clothes")]
CAPTIONS = ["a dog in the park", "two boats", "the sea"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def full_pipe(small_pipe):
    """As ``exact_pipe``, and its rows span every direction, as those of trained models do (lam may be 0)."""
    pipe = small_pipe()
    pipe.text_encoder.double()
    torch.nn.init.normal_(pipe.text_encoder.final_layer_norm.bias)
    return pipe


def eos_pairs(pipe, templates=TRCE_TEMPLATES, pairs=PAIRS):
    return [tuple(pick(pipe, t.replace("{}", text), "eos") for text in pair) for pair in pairs for t in templates]


def assert_equal(pipe, edit, **options):
    for name, weight in key_value_weights(pipe).items():
        weight = weight.detach().double()
        expected = literal(weight, **options) - weight
        assert torch.linalg.norm(expected) > 0.01 * torch.linalg.norm(weight), "an empty edit would prove nothing"
        assert torch.linalg.norm(edit.changes[name].of(weight) - expected) < 1e-8 * torch.linalg.norm(expected), name


def test_without_a_cache_it_equals_its_loop(exact_pipe):
    edit = Trce(domain="none", lam=0.3).edit(exact_pipe, TASK)
    assert_equal(exact_pipe, edit, pairs=eos_pairs(exact_pipe), preserved=[], lam=0.3, average=True)
    assert edit.info["tokens"] == {"edit": 30, "edit_rows": "eos"} and edit.info["preserve"] is None


def test_its_own_lam_without_a_cache(exact_pipe):
    edit = Trce(domain="none").edit(exact_pipe, TASK)
    assert_equal(exact_pipe, edit, pairs=eos_pairs(exact_pipe), preserved=[], lam=edit.info["lam"], average=True)


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("average", [True, False])
def test_with_a_cache_it_equals_its_loop(squared, average, full_pipe, tmp_path):
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS))
    options = {"preserve_scale": 0.5, "squared_scale": squared, "average": average, "cache_size": 7.0}
    edit = Trce(domain="none", preserve=str(tmp_path / "captions.txt"), cache_dir=str(tmp_path), **options).edit(
        full_pipe, TASK
    )
    assert edit.info["lam"] == 0
    preserved = [(pick(full_pipe, caption, "all"), 1.0) for caption in CAPTIONS]
    assert_equal(
        full_pipe,
        edit,
        pairs=eos_pairs(full_pipe),
        preserved=preserved,
        lam=0.0,
        preserve_scale=0.5,
        squared=squared,
        average=average,
        cache_size=7.0,
    )


def test_the_released_scale_is_a_hundredth_squared_over_thirty_thousand(exact_pipe, tmp_path):
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS))
    edit = Trce(domain="none", lam=0.5, preserve=str(tmp_path / "captions.txt"), cache_dir=str(tmp_path)).edit(
        exact_pipe, TASK
    )
    preserved = [(pick(exact_pipe, caption, "all"), 1.0) for caption in CAPTIONS]
    assert_equal(
        exact_pipe,
        edit,
        pairs=eos_pairs(exact_pipe),
        preserved=preserved,
        lam=0.5,
        average=True,
        cache_size=3e4,
    )


def test_by_default_the_tasks_retain_list_is_kept(exact_pipe):
    edit = Trce().edit(exact_pipe, TASK)
    preserved = [(pick(exact_pipe, template.replace("{}", "a dog"), "all"), 3e4) for template in TRCE_TEMPLATES]
    pairs = eos_pairs(exact_pipe)
    assert_equal(exact_pipe, edit, pairs=pairs, preserved=preserved, lam=edit.info["lam"], average=True, cache_size=3e4)


def test_own_sentences_the_name_alone_and_another_anchor(exact_pipe):
    trce = Trce(domain="none", lam=0.2, templates=["a {} here", "{}"], phrases=False, anchor="art")
    pairs = eos_pairs(exact_pipe, ["a {} here", "{}"], [("blood", "art")])
    assert_equal(exact_pipe, trce.edit(exact_pipe, TASK), pairs=pairs, preserved=[], lam=0.2, average=True)


def test_fifteen_different_sentences():
    assert len(set(TRCE_TEMPLATES)) == 15 and all(text.count("{}") == 1 for text in TRCE_TEMPLATES)


def test_few_prompts_make_an_edit_of_low_rank(tiny_random_sd2_pipe):
    assert (
        Trce(domain="none", templates=["{}", "a {}"], phrases=False).edit(tiny_random_sd2_pipe, TASK).info["rank"] == 2
    )


def test_a_faint_edit_is_called_so(exact_pipe):
    (warning,) = Trce(domain="none", lam=1e9).edit(exact_pipe, TASK).info["warnings"]
    assert "nearly empty" in warning


@pytest.mark.parametrize(
    "options", [{"cache_size": 0.0}, {"lam": 0, "domain": "none"}, {"lam": -1.0}, {"templates": ["no place"]}]
)
def test_wrong_options_are_refused(options):
    with pytest.raises(UserError):
        Trce(**options)
