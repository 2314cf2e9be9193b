"""The algebra that the closed-form erasers share, for any tokens and weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from erasebench.concepts import Concept, ErasureTask
from erasebench.errors import UserError
from erasebench.methods.closed_form.cure import Cure
from erasebench.methods.closed_form.linear import (
    check_positive,
    check_templates,
    energies,
    expand,
    factored,
    gram,
    hold,
    keep_texts,
    moved,
    phrase_pairs,
    pull,
    smallest,
    solve_spd,
)
from erasebench.methods.closed_form.uce import Uce
from erasebench.models.targets import key_value_weights

seeds = st.integers(0, 10_000)
sizes = st.integers(1, 9)


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(a, b, rtol=1e-8):
    assert torch.linalg.norm(a - b) <= rtol * max(torch.linalg.norm(b).item(), 1e-300), (a, b)


@given(seed=seeds, d=sizes, n=sizes, m=sizes, lam=st.floats(0.01, 10), se=st.floats(0.1, 5), sp=st.floats(0.1, 5))
@settings(max_examples=40, deadline=None)
def test_pull_is_where_the_objective_has_no_slope(seed, d, n, m, lam, se, sp):
    weight = draw(seed, 4, d)
    c, goal, p = draw(seed + 1, n, d), draw(seed + 2, n, d), draw(seed + 3, m, d)
    made = [
        pull(c, goal, lam, se, keep=p, keep_scale=sp),
        pull(c, goal, lam, se, keep_gram=gram([p], d), keep_scale=sp),
    ]
    close(made[0].of(weight), made[1].of(weight), 1e-6)
    new = (weight + made[0].of(weight)).requires_grad_()
    loss = (
        se * ((new @ c.T - weight @ goal.T) ** 2).sum()
        + sp * ((new @ p.T - weight @ p.T) ** 2).sum()
        + lam * ((new - weight) ** 2).sum()
    )
    (slope,) = torch.autograd.grad(loss, new)
    assert slope.abs().max() < 1e-8 * (1 + loss.item()) * (1 + se + sp + lam) * 10


@given(seed=seeds, d=st.integers(2, 9), lam=st.floats(1e-4, 10))
@settings(max_examples=30, deadline=None)
def test_one_token_lands_on_its_target_but_for_the_share_of_lam(seed, d, lam):
    """W c = v* + lam / (lam + c^T c) (W_old c - v*): with little lam, v* itself."""
    c, goal = draw(seed, 1, d), draw(seed + 1, 1, d)
    change = pull(c, goal, lam)
    close(c + change.rows(c), goal + lam / (lam + (c**2).sum()) * (c - goal))


@given(seed=seeds, d=st.integers(2, 9))
@settings(max_examples=30, deadline=None)
def test_one_token_moves_others_by_their_overlap(seed, d):
    c, goal, other = draw(seed, 1, d), draw(seed + 1, 1, d), draw(seed + 2, d)
    change = pull(c, goal, 0.5, 2.0)
    expected = 2.0 * (goal - c)[0] * (c[0] @ other) / (0.5 + 2.0 * c[0] @ c[0])
    close(change.rows(other[None])[0], expected)


def test_a_target_equal_to_its_source_changes_nothing():
    c = draw(0, 3, 5)
    assert not pull(c, c, 0.5, keep=draw(1, 2, 5)).of(draw(2, 4, 5)).any()


def test_gram_sums_rows_of_all_parts():
    a, b = draw(0, 2, 4), draw(1, 3, 4)
    close(gram([a.float(), b], 4), a.float().double().T @ a.float().double() + b.T @ b)
    assert not gram([], 4).any()


@given(seed=seeds, n=st.integers(1, 6), m=st.integers(0, 6), lam=st.floats(1e-3, 10))
@settings(max_examples=30, deadline=None)
def test_solving_between_tokens_is_solving_between_coordinates(seed, n, m, lam):
    """Few tokens in a wide space take the short way; more than the width, the long one; the same right factor."""
    c, p = draw(seed, n, 20), draw(seed + 1, m, 20)
    system = lam * torch.eye(20, dtype=torch.float64) + 2 * c.T @ c + 3 * p.T @ p
    close(hold(c, lam, 2.0, p, 3.0), 2 * c @ torch.linalg.inv(system), 1e-8)
    close(hold(c, lam, 2.0, keep_gram=p.T @ p, keep_scale=3.0), 2 * c @ torch.linalg.inv(system), 1e-8)


@given(seed=seeds, d=st.integers(4, 12), rank=sizes)
@settings(max_examples=40, deadline=None)
def test_the_cheaper_form_loses_nothing(seed, d, rank):
    token, right = draw(seed, d, rank), draw(seed + 1, rank, d)
    made, weight = factored(token, right), draw(seed + 2, 3, d)
    close(made.of(weight), weight @ token @ right, 1e-11)
    assert (made.right is None) == (4 * min(rank, d) >= d)


def test_repeated_rows_do_not_raise_the_rank():
    """Duplicate texts give more factors than rank; a nearly full matrix of them is found to be small."""
    token, right = draw(0, 12, 1).expand(12, 6), draw(1, 1, 12).expand(6, 12)
    made = factored(token, right)
    assert made.rank == 1
    close(made.of(draw(2, 3, 12)), draw(2, 3, 12) @ token @ right, 1e-11)


def test_no_change_has_rank_zero():
    made = smallest(torch.zeros(5, 5, dtype=torch.float64))
    assert made.rank == 0 and made.norm(draw(0, 6, 5)) == 0 and not made.of(draw(0, 6, 5)).any()


def test_a_matrix_that_is_not_finite_is_refused():
    with pytest.raises(UserError, match="NaN or infinite"):
        smallest(torch.full((5, 5), float("nan"), dtype=torch.float64))


def test_an_anchor_that_is_the_concept_is_refused():
    with pytest.raises(UserError, match="concept 'church': 'church' is also the anchor"):
        phrase_pairs(Concept("church", "object", ("Church",), "Church"), None, True, False)
    with pytest.raises(UserError, match="erases nothing"):
        Uce(anchor="church").pairs(ErasureTask((Concept("church", "object"),)))


def test_solve_refuses_what_has_no_solution():
    with pytest.raises(UserError, match="raise lam"):
        solve_spd(torch.zeros(3, 3, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64))
    with pytest.raises(UserError, match="raise lam"):
        solve_spd(torch.full((3, 3), float("nan"), dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64))


@given(seed=seeds, n=sizes, d=sizes, scale=st.floats(1e-3, 1e3))
@settings(max_examples=40, deadline=None)
def test_energies_are_shares_and_do_not_depend_on_scale(seed, n, d, scale):
    rows = draw(seed, n, d)
    directions, share = energies(rows)
    close(directions @ directions.T, torch.eye(min(n, d), dtype=torch.float64), 1e-10)
    assert share.sum().item() == pytest.approx(1) and (share >= 0).all()
    close(energies(rows * scale)[1], share)
    close(energies(torch.cat([rows, rows]))[1][: len(share)], share)


def test_rows_of_zeros_have_no_energy():
    assert not energies(torch.zeros(2, 3))[1].any()


def test_texts_and_their_refusals():
    assert expand("church", "object", False) == ["church"]
    assert expand("monet", "artist", True)[1] == "painting by monet"
    assert len(expand("church", "celebrity", True)) == 6
    assert expand("a{}b", "object", ["in {}"]) == ["a{}b", "in a{}b"]
    assert keep_texts("task", ("a", "b", "a"), "o") == ["a", "b"]
    assert keep_texts("none", ("a",), "o") == [] and keep_texts(["x", ""], ("a",), "o") == ["x", ""]
    with pytest.raises(UserError, match="task, none"):
        keep_texts("church", (), "method.retain")
    with pytest.raises(UserError, match="mark where"):
        check_templates(["a photo"])
    for wrong in (0, -1, float("nan"), float("inf"), "2"):
        with pytest.raises(UserError, match="lam"):
            check_positive("uce", lam=wrong)


def test_moved_is_the_share_of_a_token_that_the_edit_moves():
    from erasebench.edits.eraser import Change

    half = Change(token=-0.5 * torch.eye(24, dtype=torch.float64))
    shares = moved(half, {"target": draw(0, 3, 24), "retain": draw(1, 2, 24), "none": draw(2, 0, 24)})
    assert shares == {name: pytest.approx(0.5) for name in ("target", "retain")}


def test_an_edit_moves_its_target_most(tiny_random_pipe):
    task = ErasureTask((Concept("ab", "object"),), ("xyz",))
    for eraser in (Cure(retain="task", alpha_retain=50.0), Uce(variant="2025")):
        shares = eraser.edit(tiny_random_pipe, task).info["moved"]
        assert shares["target"] > shares["retain"]


def test_a_nearly_empty_edit_says_so(tiny_random_pipe):
    """A retain list that holds the concept's own tokens leaves nothing to erase; the edit tells how much."""
    task = ErasureTask((Concept("ab", "object"),), ("ab.", "xyz"))
    info = Cure(retain=["ab"], alpha_retain=1e9).edit(tiny_random_pipe, task).info
    assert info["energy_free_of_retain"] < 1e-6
    assert "nearly empty" in info["warnings"][0] and "retain set spans 100 %" in info["warnings"][0]
    assert "warnings" not in Cure().edit(tiny_random_pipe, task).info


@pytest.mark.parametrize("eraser", [Cure(), Cure(multi="joint"), Uce(), Uce(variant="2025")], ids=str)
def test_texts_that_repeat_each_other_are_no_obstacle(eraser, tiny_random_pipe):
    """The same text under another name, and one text twice, give a rank-deficient system with a finite answer."""
    once = ErasureTask((Concept("ab", "object", ("ab", "cd")),), ("xyz",))
    twice = ErasureTask((Concept("ab", "object", ("ab", "cd", " cd", "cd ")),), ("xyz", "xyz ", "xyz"))
    name, weight = next(iter(key_value_weights(tiny_random_pipe).items()))
    one, two = (eraser.edit(tiny_random_pipe, task).changes[name].of(weight) for task in (once, twice))
    assert torch.isfinite(two).all() and torch.linalg.norm(two - one) < 0.9 * torch.linalg.norm(one)
