"""The algebra that the closed-form erasers share, for any tokens and weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from erasebench.concepts import Concept, ErasureTask
from erasebench.errors import UserError
from erasebench.methods.cure import Cure
from erasebench.methods.linear import (
    check_positive,
    check_templates,
    energies,
    expand,
    gram,
    keep_texts,
    moved,
    multiply_right,
    pull,
    solve_spd,
)
from erasebench.methods.uce import Uce

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
    new = (weight + weight @ pull(c, goal, gram([p], d), lam, se, sp)).requires_grad_()
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
    change = pull(c, goal, torch.zeros(d, d, dtype=torch.float64), lam, 1.0, 1.0)
    close(c + c @ change.T, goal + lam / (lam + (c**2).sum()) * (c - goal))


@given(seed=seeds, d=st.integers(2, 9))
@settings(max_examples=30, deadline=None)
def test_one_token_moves_others_by_their_overlap(seed, d):
    c, goal, other = draw(seed, 1, d), draw(seed + 1, 1, d), draw(seed + 2, d)
    change = pull(c, goal, torch.zeros(d, d, dtype=torch.float64), 0.5, 2.0, 1.0)
    expected = 2.0 * (goal - c)[0] * (c[0] @ other) / (0.5 + 2.0 * c[0] @ c[0])
    close(change @ other, expected)


def test_a_target_equal_to_its_source_changes_nothing():
    c = draw(0, 3, 5)
    assert torch.equal(pull(c, c, gram([draw(1, 2, 5)], 5), 0.5, 1.0, 1.0), torch.zeros(5, 5, dtype=torch.float64))


def test_gram_sums_rows_of_all_parts():
    a, b = draw(0, 2, 4), draw(1, 3, 4)
    close(gram([a.float(), b], 4), a.float().double().T @ a.float().double() + b.T @ b)
    assert not gram([], 4).any()


@given(seed=seeds, d=sizes, rank=sizes)
@settings(max_examples=40, deadline=None)
def test_multiply_right_loses_nothing(seed, d, rank):
    change = draw(seed, d, rank) @ draw(seed + 1, rank, d)
    weights = {"a": draw(seed + 2, 12, d), "b": draw(seed + 3, 3, d).float()}
    for name, made in multiply_right(weights, change).items():
        close(made.dense(), weights[name].double() @ change, 1e-11)


def test_multiply_right_shares_a_small_factor():
    made = multiply_right({"a": draw(0, 30, 20), "b": draw(1, 30, 20)}, draw(2, 20, 2) @ draw(3, 2, 20))
    assert made["a"].rank == 2 and made["a"].right is made["b"].right


def test_no_change_has_rank_zero():
    made = multiply_right({"a": draw(0, 6, 5)}, torch.zeros(5, 5, dtype=torch.float64))["a"]
    assert made.rank == 0 and made.norm() == 0 and not made.dense().any()


def test_a_matrix_that_is_not_finite_is_refused():
    with pytest.raises(UserError, match="NaN or infinite"):
        multiply_right({"a": draw(0, 6, 5)}, torch.full((5, 5), float("nan"), dtype=torch.float64))


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


def test_moved_is_the_share_of_a_token_that_the_edit_moves(tiny_random_pipe, church_task):
    half = -0.5 * torch.eye(24, dtype=torch.float64)
    shares = moved(tiny_random_pipe, half, church_task)
    assert shares == {name: pytest.approx(0.5) for name in ("target", "retain", "bos", "padding")}
    alone = ErasureTask(church_task.targets)
    assert set(moved(tiny_random_pipe, half, alone)) == {"target", "bos", "padding"}


def test_an_edit_moves_its_target_most(tiny_random_pipe):
    task = ErasureTask((Concept("ab", "object"),), ("xyz",))
    for eraser in (Cure(retain="none"), Uce(variant="2025", preserve="none")):
        shares = eraser.edit(tiny_random_pipe, task).info["moved"]
        assert shares["target"] > max(shares["retain"], shares["padding"])
