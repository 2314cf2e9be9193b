"""The slow transcriptions themselves keep the invariants that the papers claim."""

from __future__ import annotations

import pytest
import torch
from literal import (
    covariance,
    cure,
    cure_projector,
    cure_sequential,
    leace,
    leace_removal,
    mace_fuse,
    mace_refine,
    quickfix,
    rece,
    rece_embedding,
    speed,
    speed_delta,
    speed_moments,
    speed_null_space,
    speed_retain,
    speed_unprojected,
    trce,
    uce,
)

D = 12


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(7)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def near(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_cure_of_one_row_removes_it_whatever_alpha(draw):
    weight, row = draw(7, D), draw(1, D)
    near(cure(weight, row, None, 2.0), cure(weight, row, None, 50.0))
    near(cure(weight, row, None, 2.0) @ row[0], torch.zeros(7, dtype=torch.float64))


def test_cure_with_equal_energies_has_the_known_strength(draw):
    rows = torch.linalg.qr(draw(D, 4)).Q.T
    near(torch.linalg.eigvalsh(cure_projector(rows, 2.0))[-4:], torch.full((4,), 2 / (2 - 1 + 4), dtype=torch.float64))


def test_cure_lets_the_retained_rows_act_first(draw):
    weight, row = draw(7, D), draw(1, D)
    near(cure(weight, row, row, 2.0), weight)
    other = draw(1, D)
    near(cure(weight, row, other, 2.0) @ other[0], weight @ other[0])


def test_cure_in_sequence_is_one_edit_after_another(draw):
    weight, first, second, keep = draw(7, D), draw(2, D), draw(3, D), draw(2, D)
    near(cure_sequential(weight, [first, second], keep, 2.0), cure(cure(weight, first, keep, 2.0), second, keep, 2.0))


@pytest.mark.parametrize("orthogonalise", ["tokens", "directions"])
def test_cure_orthogonalised_erases_nothing_twice(draw, orthogonalise):
    weight, first, second = draw(7, D), draw(1, D), draw(1, D)
    once = cure_sequential(weight, [first], None, 2.0, orthogonalise=orthogonalise)
    near(cure_sequential(weight, [first, first], None, 2.0, orthogonalise=orthogonalise), once)
    # one row each: both orders remove the whole span
    there = cure_sequential(weight, [first, second], None, 2.0, orthogonalise=orthogonalise)
    back = cure_sequential(weight, [second, first], None, 2.0, orthogonalise=orthogonalise)
    near(there, back)
    near(there @ second[0], torch.zeros(7, dtype=torch.float64))
    near(there @ first[0], torch.zeros(7, dtype=torch.float64))


def test_cure_in_sequence_of_orthogonal_concepts_needs_no_orthogonalising(draw):
    basis = torch.linalg.qr(draw(D, 6)).Q.T
    weight, concepts = draw(7, D), [draw(2, 3) @ basis[:3], draw(2, 3) @ basis[3:]]
    for rule in ("tokens", "directions"):
        near(
            cure_sequential(weight, concepts, None, 2.0, orthogonalise=rule),
            cure_sequential(weight, concepts, None, 2.0),
        )


def test_uce_reaches_its_target_as_lam_vanishes(draw):
    weight, source, target = draw(7, D), draw(1, D), draw(1, D)
    near(uce(weight, [(source, target)], [], 1e-9) @ source[0], weight @ target[0], 1e-6)


def test_uce_of_one_token_is_the_rank_one_update(draw):
    weight, c, target = draw(7, D), draw(D), draw(D)
    expected = weight + 3.0 * torch.outer(weight @ (target - c), c) / (0.5 + 3.0 * c @ c)
    near(uce(weight, [(c[None], target[None])], [], 0.5, 3.0), expected)


def test_uce_is_stationary(draw):
    weight, sources, targets, keep = draw(7, D), draw(2, D), draw(2, D), [draw(2, D), draw(1, D)]
    new = uce(weight, [(sources, targets)], keep, 0.5, 2.0, 0.3)
    gradient = 2.0 * (new @ sources.T - weight @ targets.T) @ sources + 0.5 * (new - weight)
    kept = torch.cat(keep)
    near(gradient + 0.3 * (new - weight) @ kept.T @ kept, torch.zeros_like(weight))


def test_uce_tensor_leaves_targets_without_the_source(draw):
    weight, sources, targets = draw(7, D), draw(2, D), draw(2, D)
    new = uce(weight, [(sources, targets)], [], 1e-6, technique="tensor")
    near((sources @ new.T * (sources @ weight.T)).sum(), torch.tensor(0.0, dtype=torch.float64), 1e-4)
    with pytest.raises(ValueError, match="technique"):
        uce(weight, [(sources, targets)], [], 1.0, technique="other")


def test_rece_finds_the_concept_itself_in_unedited_weights(draw):
    weights = {"a": draw(9, D), "b": draw(9, D)}
    rows = draw(3, D)
    near(rece_embedding(weights, weights, rows, 1e-10), rows, 1e-6)


def test_rece_solves_its_normal_equations_and_counts_epochs(draw):
    weights = {"a": draw(9, D), "b": draw(5, D)}
    pairs = [(draw(3, D), draw(3, D))]
    edited = {name: uce(weight, pairs, [], 0.5) for name, weight in weights.items()}
    found = rece_embedding(weights, edited, pairs[0][0], 0.1)
    gradient = 0.1 * found
    for name, weight in weights.items():
        gradient = gradient + (found @ edited[name].T - pairs[0][0] @ weight.T) @ edited[name]
    near(gradient, torch.zeros_like(found))
    near(rece(weights, edited, pairs, [], 0, 0.1)["a"], edited["a"])
    once = rece(weights, edited, pairs, [draw(2, D)], 1, 0.1)
    assert torch.linalg.norm(once["a"] - edited["a"]) > 1e-3


def speed_case(draw):
    weight, targets, anchors = draw(7, D), draw(2, D), draw(2, D)
    retain, fixed = 2 * draw(5, D), draw(D, 2)
    return weight, targets, anchors, retain, fixed


def test_speed_keeps_its_constraints(draw):
    weight, targets, anchors, retain, fixed = speed_case(draw)
    delta = speed(weight, targets, anchors, retain, fixed, None, threshold=1e-9) - weight
    assert torch.linalg.norm(delta) > 0.1
    near(delta @ fixed, torch.zeros(7, 2, dtype=torch.float64))
    near(delta @ retain.T, torch.zeros(7, 5, dtype=torch.float64))


def test_speed_survives_a_constraint_that_already_holds(draw):
    weight, targets, anchors, retain, fixed = speed_case(draw)
    inside = torch.cat([fixed, retain[:1].T], dim=1)
    near(
        speed(weight, targets, anchors, retain, inside, None, threshold=1e-9),
        speed(weight, targets, anchors, retain, fixed, None, threshold=1e-9),
    )


@pytest.mark.parametrize("retain_scale", [1.0, 0.05])
def test_speed_minimises_its_objective_where_it_may_move(draw, retain_scale):
    weight, targets, anchors, retain, fixed = speed_case(draw)
    own, cross = speed_moments(targets, anchors, concepts=1)
    null = speed_null_space(retain, 1e-9)
    delta = speed_delta(weight, own, cross, null, fixed, retain_scale, 0.0)
    free = null - (null @ fixed) @ torch.linalg.pinv(null @ fixed)
    near(delta @ free, delta)
    gradient = ((weight + delta) @ targets.T - weight @ anchors.T) @ targets + retain_scale * delta
    near(gradient @ free, torch.zeros_like(weight))


def test_speed_mean_over_concepts_is_a_larger_retain_scale(draw):
    weight, targets, anchors, retain, fixed = speed_case(draw)
    near(
        speed(weight, targets, anchors, retain, fixed, None, 1e-9, retain_scale=0.3),
        speed(weight, targets, anchors, retain, fixed, None, 1e-9, retain_scale=0.6, concepts=1),
    )


def test_speed_filters_and_augments_along_the_weakest_direction(draw):
    weight, targets, anchors, retain, _ = speed_case(draw)
    unprojected = speed_unprojected(weight, *speed_moments(targets, anchors))
    noise = draw(5 * 3, D)
    rows = speed_retain(weight, unprojected, retain, noise)
    influence = torch.linalg.norm(retain @ unprojected.T, dim=1)
    kept = retain[influence > influence.mean()]
    assert 0 < len(kept) < 5
    near(rows[: len(kept)], kept)
    assert 0 < len(rows) - len(kept) < 3 * len(kept)
    v = torch.linalg.svd(weight, full_matrices=False).Vh[-1]
    across = torch.eye(D, dtype=torch.float64) - torch.outer(v, v)
    for copy in rows[len(kept) :]:
        assert torch.linalg.norm((kept - copy) @ across, dim=1).min() < 1e-9
    assert len(speed_retain(weight, unprojected, retain, noise, filtered=False)) > len(rows)
    near(speed_retain(weight, unprojected, retain, None), retain)
    # two chunks have two means, but the same originals
    near(speed_retain(weight, unprojected, retain, noise, chunk=1)[: len(kept)], kept)


def test_mace_fusion_of_nothing_is_the_identity(draw):
    weight, up, down = draw(7, D), torch.zeros(7, 1, dtype=torch.float64), draw(1, D)
    near(mace_fuse(weight, [(up, down)] * 2, [draw(3, D), draw(2, D)], [(draw(4, D), 2.0)], 0.1, 0.5), weight)


def test_mace_fusion_of_one_lora_without_lam_is_that_lora(draw):
    weight, up, down = draw(7, D), draw(7, 1), draw(1, D)
    near(mace_fuse(weight, [(up, down)], [draw(30, D)], [], 0.0), weight + up @ down)


def test_mace_refinement_is_uce_with_the_cache_as_kept_rows(draw):
    weight, pairs, keep = draw(7, D), [(draw(2, D), draw(2, D))], draw(4, D)
    near(mace_refine(weight, pairs, [(keep, 3.0)], 0.5, 0.1), uce(weight, pairs, [keep], 0.5, 1.0, 0.3))
    near(mace_refine(weight, pairs, [(keep, 3.0)], 0.5, 0.1, squared=True), uce(weight, pairs, [keep], 0.5, 1.0, 0.03))


def test_trce_is_mace_with_another_scale(draw):
    weight, pairs, keep = draw(7, D), [(draw(1, D), draw(1, D)) for _ in range(3)], [(draw(40, D), 1.0)]
    near(trce(weight, pairs, keep, 0.0, 0.2), mace_refine(weight, pairs, keep, 0.0, 0.2, squared=True))
    released = trce(weight, pairs, keep, 0.0, 0.2, average=True, cache_size=30.0)
    near(released, mace_refine(weight, pairs, keep, 0.0, 0.04 * 3 / 30))


def test_quickfix_gives_the_new_output_bias_included(draw):
    weight, bias, key, new = draw(7, D), draw(7), draw(1, D), draw(1, D)
    values = new @ weight.T + bias
    near(quickfix(weight, bias, key, values, 1e-7) @ key[0] + bias, values[0], 1e-5)
    near(quickfix(weight, bias, key, values, 1e-7, released=True) @ key[0] + bias, values[0] + bias, 1e-5)


def leace_case(draw):
    spread = torch.logspace(-1, 1, D, dtype=torch.float64)
    labels = torch.arange(60).remainder(2).double()
    rows = (draw(60, D) + 0.8 * labels[:, None] * draw(D)) * spread @ torch.linalg.qr(draw(D, D)).Q + draw(D)
    return draw(7, D), rows, labels


def cross_covariance(rows, labels):
    return (rows - rows.mean(dim=0)).T @ (labels - labels.mean(dim=0))


@pytest.mark.parametrize("options", [{"shrinkage": False}, {}, {"method": "orth"}])
def test_leace_leaves_no_linear_predictor_and_the_same_class_means(draw, options):
    weight, rows, labels = leace_case(draw)
    assert torch.linalg.norm(cross_covariance(rows, labels)) > 1
    new, bias = leace(weight, rows, labels, **options)
    out = rows @ new.T + bias
    near(cross_covariance(out, labels), torch.zeros(7, dtype=torch.float64))
    near(out[labels == 0].mean(dim=0), out[labels == 1].mean(dim=0))
    near(out.mean(dim=0), weight @ rows.mean(dim=0))


def test_leace_removal_is_an_oblique_projector_of_the_rank_of_the_labels(draw):
    _, rows, labels = leace_case(draw)
    removal = leace_removal(rows, torch.stack([labels, 1 - labels], dim=1))
    near(removal @ removal, removal)
    near(torch.trace(removal), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("count", [60, 8])
@pytest.mark.parametrize("shrinkage", [True, False])
def test_leace_never_raises_the_trace(draw, count, shrinkage):
    """So the package's constraint on it needs no transcription."""
    _, rows, _ = leace_case(draw)
    rows = rows[:count]
    sigma = covariance(rows, shrinkage)
    labels = torch.stack([rows @ torch.linalg.eigh(sigma).eigenvectors[:, 0], draw(count), draw(count)], dim=1)
    removal = leace_removal(rows, labels, shrinkage=shrinkage, svd_tol=1e-6)
    left = torch.eye(D, dtype=torch.float64) - removal
    assert torch.linalg.matrix_rank(removal) >= 2
    assert torch.trace(left @ sigma @ left.T) < torch.trace(sigma)


def test_shrinkage_lies_between_the_sample_and_a_multiple_of_the_identity(draw):
    rows = draw(20, D)
    sample, shrunk = covariance(rows, False) * 19 / 20, covariance(rows, True)
    near(torch.trace(shrunk), torch.trace(sample))
    mean = torch.trace(sample) / D * torch.eye(D, dtype=torch.float64)
    share = ((shrunk - mean) * (sample - mean)).sum() / ((sample - mean) ** 2).sum()
    assert 0 <= share < 1
    near(shrunk, share * sample + (1 - share) * mean)
