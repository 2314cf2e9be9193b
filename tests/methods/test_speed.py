"""SPEED equals its literal transcription, and keeps what it promises to keep."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from literal import speed as literal
from scipy.cluster.vq import kmeans2

from erasebench.concepts import Concept, ErasureTask
from erasebench.errors import UserError
from erasebench.methods.closed_form.speed import (
    PRESETS,
    Pull,
    Speed,
    common_rows,
    kept_space,
    last_direction,
    outside,
    whole_words,
)
from erasebench.models.load import load_model
from erasebench.models.targets import text_inputs
from erasebench.models.text import Texts

NEIGHBOURS = ("gas pump", "tench", "chain saw", "golf ball", "parachute", "french horn", "a dog", "the sea")
TASK = ErasureTask((Concept("church", "object"), Concept("van gogh", "object", (), "art")), NEIGHBOURS)
THRESHOLD = 0.5
"""On the random pipeline, about half of the 24 directions are below it."""


def tokens(seed: int, *shape: int) -> torch.Tensor:
    """Random token rows that share a direction, as CLIP's do."""
    generator = torch.Generator().manual_seed(seed)
    shared = 3 * torch.randn(shape[-1], generator=generator, dtype=torch.float64)
    return shared + torch.randn(*shape, generator=generator, dtype=torch.float64)


def values(pipe) -> dict[str, torch.Tensor]:
    part = text_inputs(pipe)[0]
    return {name: weight.detach().double() for name, weight in part.weights.items() if "to_v" in name}


def rows(pipe, texts, rule="last_content") -> torch.Tensor:
    return torch.cat([part.double() for part in Texts(pipe).rows(list(texts), rule)])


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-8) -> bool:
    return torch.linalg.norm(found - expected) < tolerance * torch.linalg.norm(expected)


# The formula --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aug, filtered", [(10, True), (3, False), (0, True)])
@pytest.mark.parametrize("scale, lamb", [(1.0, 0.0), (0.05, 0.0), (0.7, 0.5)])
def test_equals_the_literal_formula_layer_by_layer(aug, filtered, scale, lamb, exact_pipe):
    options = {"threshold": THRESHOLD, "retain_scale": scale, "lamb": lamb}
    edit = Speed(aug=aug, filter=filtered, seed=3, **options).edit(exact_pipe, TASK)
    assert set(edit.changes) == set(values(exact_pipe))
    noise = torch.Generator().manual_seed(3)
    fixed = common_rows(rows(exact_pipe, [""], "all"), 3).T
    for name, weight in values(exact_pipe).items():
        drawn = torch.randn(len(NEIGHBOURS), aug, generator=noise, dtype=torch.float64) if aug else None
        expected = literal(
            weight,
            rows(exact_pipe, ["church", "van gogh"]),
            rows(exact_pipe, ["", "art"]),
            rows(exact_pipe, NEIGHBOURS),
            fixed,
            None if drawn is None else drawn.flatten()[:, None] * last_direction(weight),
            THRESHOLD,
            scale,
            lamb,
            filtered,
        )
        change = expected - weight
        assert torch.linalg.norm(change) > 0.05 * torch.linalg.norm(weight), "an empty edit would prove nothing"
        assert close(edit.changes[name].of(weight), change), name


def test_unsafe_content_equals_the_literal_formula_with_all_rows_but_bos(exact_pipe):
    task = ErasureTask((Concept("nudity", "unsafe"), Concept("blood", "unsafe")), NEIGHBOURS)
    edit = Speed(seed=1, retain="none").edit(exact_pipe, task)
    noise = torch.Generator().manual_seed(1)
    empty = rows(exact_pipe, [""], "all")
    for name, weight in values(exact_pipe).items():
        drawn = torch.randn(76, 10, generator=noise, dtype=torch.float64)
        expected = literal(
            weight,
            rows(exact_pipe, ["nudity", "blood"], "no_bos"),
            rows(exact_pipe, ["", ""], "no_bos"),
            empty[1:],
            common_rows(empty, 1).T,
            drawn.flatten()[:, None] * last_direction(weight),
            0.1,
            0.7,
            0.5,
            concepts=2,
        )
        assert close(edit.changes[name].of(weight), expected - weight), name


@pytest.mark.parametrize("out", [12, 24, 40])
@pytest.mark.parametrize("targets", [1, 5, 11, 30])
def test_any_number_of_targets_retained_tokens_and_outputs(out, targets):
    """More retained tokens than a chunk, more targets than the width, weights narrower and wider than it."""
    weight, retain, noise = tokens(0, out, 24), tokens(1, 300, 24), tokens(2, 300, 4)
    sources, anchors, fixed = tokens(3, targets, 24), tokens(4, targets, 24), tokens(5, 4, 24)
    expected = literal(
        weight, sources, anchors, retain, fixed.T, noise.flatten()[:, None] * last_direction(weight), 0.9
    )
    pull = Pull(sources, anchors, targets)
    kept = kept_space(weight, pull, retain, noise, True, 0.9)
    right = pull.inside(kept.basis, fixed, 1.0, 0.0)
    assert 0 < kept.basis.shape[1] < 20
    assert close(weight @ pull.left @ right, expected - weight)


@given(seed=st.integers(0, 2**31), count=st.integers(1, 6), lost=st.integers(0, 12), reach=st.floats(-14, 0))
def test_what_is_kept_is_kept(seed, count, lost, reach):
    """``D K2 = 0`` to 1e-11 of ``||D'|| ||K2||``, D' the edit without the constraint, and ``D c = 0`` where ``P c = 0``.

    Also if K2 barely reaches into P, or fills it, so that nothing is left to edit.
    """
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(16, lost, generator=generator, dtype=torch.float64)).Q
    fixed = tokens(seed, 4, 16)
    fixed = (fixed @ basis) @ basis.T + 10**reach * fixed
    pull = Pull(tokens(seed + 1, count, 16), tokens(seed + 2, count, 16), count)
    change, free = (pull.left @ pull.inside(basis, rows, 0.5, 0.0) for rows in (fixed, fixed[:0]))
    size = torch.linalg.norm(free)
    assert torch.isfinite(change).all() and size > 0
    assert torch.linalg.norm(change @ fixed.T) <= 1e-11 * size * torch.linalg.norm(fixed)
    assert torch.linalg.norm(change @ basis) <= 1e-12 * size
    if lost < 12:
        assert torch.linalg.norm(change) > 1e-6 * size, "there is room for an edit"


@given(seed=st.integers(0, 2**31), count=st.integers(1, 5), scale=st.sampled_from([0.05, 0.7, 3.0]))
def test_it_is_the_constrained_minimum(seed, count, scale):
    """The gradient of ``sum ||(W + D) c - W c*||^2 + N scale ||D||^2`` vanishes along every D with DP = D, D K2 = 0.

    The release takes means over the N targets, so its scale counts N times in the paper's sums.
    """
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(14, 5, generator=generator, dtype=torch.float64)).Q
    weight, fixed = tokens(seed + 3, 9, 14), tokens(seed, 3, 14)
    sources, anchors = tokens(seed + 1, count, 14), tokens(seed + 2, count, 14)
    pull = Pull(sources, anchors, count)
    change = weight @ pull.left @ pull.inside(basis, fixed, scale, 0.0)
    gradient = ((weight + change) @ sources.T - weight @ anchors.T) @ sources + count * scale * change
    held = torch.linalg.qr(torch.cat([basis, fixed.T], dim=1)).Q
    free = gradient - (gradient @ held) @ held.T
    start = (weight @ (sources - anchors).T) @ sources
    assert torch.linalg.norm(free) < 1e-9 * torch.linalg.norm(start)
    assert torch.linalg.norm(change) > 1e-6 * torch.linalg.norm(weight)


def test_more_tokens_than_the_width_are_the_same_edit():
    """Reducing the tokens by a QR changes nothing: twice the same tokens, over twice the count."""
    sources, anchors, fixed = tokens(0, 9, 12), tokens(1, 9, 12), tokens(2, 4, 12)
    basis = torch.linalg.qr(tokens(3, 12, 4)).Q
    once, twice = Pull(sources, anchors, 9), Pull(sources.repeat(2, 1), anchors.repeat(2, 1), 18)
    assert len(twice.rows) == 12
    one, two = (pull.left @ pull.inside(basis, fixed, 1.0, 0.0) for pull in (once, twice))
    assert close(two, one, 1e-10)


# Its parts ----------------------------------------------------------------------------------------------------------


def test_the_centres_of_padding_are_the_best_of_several_starts():
    empty = rows(load_model("embedded", name="embedded", device="cpu").pipe, [""], "all").double()

    def spread(centres):
        return torch.cdist(empty[1:], torch.as_tensor(centres)).min(dim=1).values.square().sum().item()

    alone = [spread(kmeans2(empty[1:].numpy(), 3, iter=100, minit="++", rng=seed)[0]) for seed in range(5)]
    assert max(alone) > 1.03 * min(alone), "a single start need not end at the best"
    for seed in range(5):
        fixed = common_rows(empty, seed)
        assert torch.equal(fixed[:1], empty[:1]) and len(fixed) == 4
        assert spread(fixed[1:]) <= min(alone) * (1 + 1e-6), (
            "whatever the seed, as good as the best of five single starts"
        )


@pytest.mark.parametrize("out", [8, 40, 64, 100])
def test_the_last_direction_is_that_of_an_svd(out):
    generator = torch.Generator().manual_seed(out)
    weight = torch.randn(out, 64, generator=generator, dtype=torch.float64)
    weight = weight @ torch.diag(torch.logspace(0, -3, 64, dtype=torch.float64))
    expected = torch.linalg.svd(weight, full_matrices=False).Vh[-1]
    found = last_direction(weight)
    assert abs((found @ expected).abs().item() - 1) < 1e-14
    assert torch.linalg.norm(found - (found @ expected) * expected) < 1e-9
    assert found[found.abs().argmax()] > 0


def test_a_weight_of_lower_rank_still_has_a_last_direction():
    weight = tokens(0, 20, 3) @ tokens(1, 3, 12)
    found = last_direction(weight)
    assert abs(torch.linalg.norm(found).item() - 1) < 1e-12
    assert torch.linalg.norm(weight @ found) < 1e-12 * torch.linalg.norm(weight)


def test_a_single_retained_token_is_not_filtered_away():
    """It is not above the mean of itself; as released nothing would be left to keep."""
    weight, retain = tokens(0, 6, 12), tokens(1, 1, 12)
    kept = kept_space(
        weight, Pull(tokens(2, 2, 12), tokens(3, 2, 12), 2), retain, torch.zeros(1, 4).double(), True, 0.1
    )
    assert (kept.kept, kept.copies, kept.basis.shape[1]) == (1, 4, 1)
    assert outside(retain, kept.basis) < 1e-12


def test_bos_and_centres_are_what_the_empty_text_is_made_of():
    empty = tokens(0, 77, 8)
    empty[1:30], empty[30:60], empty[60:] = empty[1].clone(), empty[30].clone(), empty[60].clone()
    fixed = common_rows(empty, 0)
    assert torch.equal(fixed[0], empty[0])
    assert sorted(fixed[1:, 0].tolist()) == pytest.approx(sorted(empty[[1, 30, 60], 0].tolist()))


def test_texts_with_a_target_as_a_whole_word_are_dropped():
    texts = ["Golf ball", "church bell", "churchill", "Art's Church", "u.s. flag", ""]
    kept, dropped = whole_words(texts, ["church", "u.s."])
    assert kept == ["Golf ball", "churchill", ""]
    assert dropped == ["church bell", "Art's Church", "u.s. flag"]


# The eraser ---------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_edit_and_another_one_another(exact_pipe):
    one, same, other = (Speed(threshold=THRESHOLD, seed=seed).edit(exact_pipe, TASK) for seed in (0, 0, 1))
    name, weight = next(iter(values(exact_pipe).items()))
    assert torch.equal(one.changes[name].of(weight), same.changes[name].of(weight))
    assert not close(other.changes[name].of(weight), one.changes[name].of(weight), 1e-3)


@pytest.mark.parametrize("params, parts", [("V", {"to_v"}), ("K", {"to_k"}), ("KV", {"to_k", "to_v"})])
def test_params_choose_the_weights(params, parts, tiny_random_pipe):
    changes = Speed(params=params).edit(tiny_random_pipe, TASK).changes
    assert {name.split(".")[-2] for name in changes} == parts
    assert len({id(change.token) for change in changes.values() if change.right is not None}) == 1, "one shared factor"


def test_without_copies_one_change_serves_all_weights(tiny_random_pipe):
    changes = Speed(aug=0, params="KV").edit(tiny_random_pipe, TASK).changes
    assert len({id(change) for change in changes.values()}) == 1


@pytest.mark.parametrize("pipe", ["tiny_random_pipe", "tiny_random_sd2_pipe", "tiny_random_sdxl_pipe"])
@pytest.mark.parametrize("kind", ["object", "artist", "celebrity", "unsafe"])
def test_every_kind_and_family(kind, pipe, request):
    pipe = request.getfixturevalue(pipe)
    edit = Speed().edit(pipe, ErasureTask((Concept("church", kind, ("church", "chapel"), "art"),), NEIGHBOURS))
    before = next(iter(values(pipe).values()))
    with edit.applied(pipe):
        assert not torch.equal(next(iter(values(pipe).values())), before)
    assert edit.info["pairs"] == [["church", "art"], ["chapel", "art"]]


def test_settings_follow_the_task():
    def preset(kind, count, **options):
        targets = tuple(Concept(f"name {i}", kind) for i in range(count))
        return Speed(**options).preset(ErasureTask(targets))

    assert preset("object", 9) == PRESETS["few"]
    assert preset("celebrity", 10) == PRESETS["many"]
    assert preset("unsafe", 12) == PRESETS["unsafe"]
    given = preset("unsafe", 1, lamb=0, filter=False, threshold=2.0, token_rule="last_content")
    assert (given.lamb, given.filter, given.threshold, given.retain_scale) == (0, False, 2.0, 0.7)
    assert given.token_rule == "last_content"


def test_notes_say_what_was_kept(tiny_random_pipe):
    task = ErasureTask(TASK.targets, (*NEIGHBOURS, "a church tower"))
    info = Speed(threshold=THRESHOLD).edit(tiny_random_pipe, task).info
    assert info["dropped"] == ["a church tower"]
    assert info["retain"] == list(NEIGHBOURS)
    assert 0 < info["tokens"]["kept"]["max"] < 8 and 0 < info["tokens"]["augmented"]["min"] < 80
    assert 0 < info["null_space"]["min"] <= info["null_space"]["max"] < 24
    assert 0.05 < info["target_energy_left"] < 1 and "warnings" not in info
    assert info["moved"]["bos"] < 1e-9 < info["moved"]["target"]


def test_a_retain_set_that_spans_the_concept_is_warned_of(tiny_random_pipe):
    info = (
        Speed(threshold=1e-9, filter=False, retain=[f"{a}{b}" for a in "abcdefgh" for b in "xyz"])
        .edit(tiny_random_pipe, TASK)
        .info
    )
    assert info["target_energy_left"] < 0.05
    assert "the retain set spans the concept" in info["warnings"][0]


def test_no_retained_text_means_the_rows_of_the_empty_text(tiny_random_pipe):
    none = Speed(retain="none").edit(tiny_random_pipe, TASK)
    assert (none.info["retain"], none.info["tokens"]["retain"]) == ([], 76)


def test_names_come_from_a_file(tmp_path, tiny_random_pipe):
    file = tmp_path / "names.csv"
    file.write_text("id,concept\n1,gas pump\n2,church bell\n3,tench\n", encoding="utf-8")
    info = Speed(retain=str(file)).edit(tiny_random_pipe, TASK).info
    assert (info["retain"], info["dropped"]) == (["gas pump", "tench"], ["church bell"])
    assert info["settings"]["retain"] == ["gas pump", "church bell", "tench"], "the edit's key knows the names"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"params": "Q"}, "not one of V, K, KV"),
        ({"aug": -1}, "aug is -1"),
        ({"aug": 2.5}, "aug is 2.5"),
        ({"seed": True}, "seed is True"),
        ({"threshold": 0}, "threshold is 0"),
        ({"retain_scale": float("inf")}, "retain_scale is inf"),
        ({"lamb": -0.5}, "lamb is -0.5"),
        ({"token_rule": "lastcontent"}, "last_content"),
        ({"retain": "/no/such/names.csv"}, "names.csv"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Speed(**options)


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_models_without_cross_attention_are_refused_with_the_reason(family, request):
    with pytest.raises(UserError, match="values of cross-attention"):
        Speed().edit(request.getfixturevalue(f"tiny_random_{family}_pipe"), TASK)
