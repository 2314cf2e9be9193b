"""CURE equals a slow literal transcription of its formula, and obeys the algebra of that formula."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from literal import cure_sequential
from text_helpers import pick

from erasebench.concepts import Concept, ErasureTask
from erasebench.errors import UserError
from erasebench.methods.closed_form.cure import IDLE_ALPHA, Cure, sequence, strength
from erasebench.models.targets import key_value_weights, named_weight
from erasebench.models.text import TOKEN_RULES

seeds = st.integers(0, 10_000)
alphas = st.floats(1.0, 50.0)


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def removal(forget, kept, alpha, alpha_retain):
    """P_dis of token rows, as a matrix."""
    change, _ = sequence([forget.double()], kept.double(), alpha, alpha_retain)
    return -change.of(torch.eye(forget.shape[1]))


def projector(rows, alpha):
    """P_f: nothing is kept."""
    return removal(rows, rows[:0], alpha, alpha)


def norm(matrix):
    return torch.linalg.norm(matrix).item()


def literal_projector(columns, alpha):
    """The formula with tokens as columns, one direction at a time."""
    d = columns.shape[0]
    total = torch.zeros(d, d, dtype=torch.float64)
    if columns.shape[1] == 0:
        return total
    u, s, _ = torch.linalg.svd(columns, full_matrices=False)
    energy = sum(float(value) ** 2 for value in s)
    for i in range(len(s)):
        r = float(s[i]) ** 2 / energy
        f = alpha * r / ((alpha - 1) * r + 1)
        total += f * torch.outer(u[:, i], u[:, i])
    return total


def columns_of(pipe, texts, rule):
    rows = [row for text in texts for row in pick(pipe, text, rule)]
    return torch.stack(rows, dim=1) if rows else torch.zeros(24, 0, dtype=torch.float64)


def literal_cure(pipe, groups, retain, rule, alpha, alpha_retain, centre=False, transpose=False):
    """New weights, layer by layer, group of forget texts after group."""
    forget = [columns_of(pipe, texts, rule) for texts in groups]
    kept = columns_of(pipe, retain, rule)
    if centre:
        mean = torch.cat([*forget, kept], dim=1).mean(dim=1, keepdim=True)
        forget, kept = [part - mean for part in forget], kept - mean
    new = {}
    for name, weight in key_value_weights(pipe).items():
        current = weight.detach().double()
        for part in forget:
            p_forget, p_retain = literal_projector(part, alpha), literal_projector(kept, alpha_retain)
            p_dis = p_forget - p_forget @ p_retain
            if transpose:
                p_dis = p_dis.T
            current = current @ (torch.eye(24, dtype=torch.float64) - p_dis)
        new[name] = current
    return new


def difference(pipe, edit, expected):
    """Largest relative difference of the change of any layer."""
    worst = 0.0
    for name, weight in key_value_weights(pipe).items():
        change = expected[name] - weight.detach().double()
        worst = max(worst, norm(edit.changes[name].of(weight) - change) / norm(change))
    return worst


TASK = ErasureTask(
    (Concept("church", "object", ("church", "small chapel")), Concept("tench", "object")),
    ("gas pump", "golf ball", ""),
)


@pytest.mark.parametrize("rule", TOKEN_RULES)
def test_joint_equals_the_formula(rule, exact_pipe):
    expected = literal_cure(exact_pipe, [["church", "small chapel", "tench"]], TASK.retain, rule, 2.0, 2.0)
    edit = Cure(token_rule=rule, retain="task", multi="joint").edit(exact_pipe, TASK)
    assert difference(exact_pipe, edit, expected) < 1e-8


def test_sequential_equals_the_formula(exact_pipe):
    groups = [["church", "small chapel"], ["tench"]]
    expected = literal_cure(exact_pipe, groups, TASK.retain, "content", 3.0, 7.0)
    cure = Cure(alpha=3.0, alpha_retain=7.0, token_rule="content", multi="sequential", phrases=True, retain="task")
    assert difference(exact_pipe, cure.edit(exact_pipe, TASK), expected) < 1e-8


def test_centred_with_templates_and_own_retain_equals_the_formula(exact_pipe):
    task = ErasureTask((Concept("church", "object", ("church", "small chapel")),), ("tench",))
    expected = literal_cure(
        exact_pipe, [["church", "a church.", "my church"]], ["gas pump"], "content", 2.0, 2.0, centre=True
    )
    cure = Cure(
        alpha=2.0,
        token_rule="content",
        templates=["a {}.", "my {}"],
        phrases=False,
        retain=["gas pump"],
        centre=True,
    )
    assert difference(exact_pipe, cure.edit(exact_pipe, task), expected) < 1e-8


def test_a_transposed_p_dis_is_told_apart(exact_pipe):
    wrong = literal_cure(
        exact_pipe, [["church", "small chapel", "tench"]], TASK.retain, "content", 2.0, 2.0, transpose=True
    )
    cure = Cure(token_rule="content", retain="task", multi="joint")
    assert difference(exact_pipe, cure.edit(exact_pipe, TASK), wrong) > 1e-2


def test_the_retain_part_acts_on_the_token_first():
    """W (I - P_f (I - P_r)) c: a token inside a fully kept span is untouched, whatever is forgotten."""
    forget, kept = draw(0, 3, 6), draw(1, 2, 6)
    part = removal(forget, kept, 2.0, 1e12)
    token = kept[0] + 2 * kept[1]
    assert norm(part @ token) < 1e-9 * norm(token)
    assert norm(part.T @ token) > 1e-2 * norm(token)


@pytest.mark.parametrize(("kind", "alpha"), [("object", 2.0), ("artist", 2.0), ("celebrity", 2.0), ("unsafe", 5.0)])
def test_alpha_by_kind_is_the_papers(kind, alpha, exact_pipe):
    info = Cure().edit(exact_pipe, ErasureTask((Concept("x y", kind),))).info
    assert info["alpha"] == info["alpha_retain"] == alpha


@pytest.mark.parametrize(
    ("alpha", "share", "value"),
    [(2, 0.01, 0.0198), (2, 0.05, 0.0952), (2, 0.5, 0.667), (2, 0.9, 0.947), (2, 0.99, 0.995)]
    + [(5, 0.01, 0.048), (5, 0.05, 0.208), (5, 0.1, 0.357), (5, 0.5, 0.833), (5, 0.9, 0.978)],
)
def test_strength_has_the_known_values(alpha, share, value):
    assert strength(torch.tensor(share), alpha).item() == pytest.approx(value, abs=6e-4)


@given(alpha=alphas, a=st.floats(0, 1), b=st.floats(0, 1))
def test_strength_rises_from_0_to_1_and_is_concave(alpha, a, b):
    f = lambda r: strength(torch.tensor(r, dtype=torch.float64), alpha).item()  # noqa: E731
    assert f(0.0) == 0 and f(1.0) == pytest.approx(1)
    low, high = sorted((a, b))
    assert f(low) <= f(high) + 1e-12
    assert f((a + b) / 2) >= (f(a) + f(b)) / 2 - 1e-12
    assert strength(torch.tensor(a, dtype=torch.float64), 1.0).item() == pytest.approx(a)


@given(seed=seeds, n=st.integers(1, 6), d=st.integers(1, 8), alpha=alphas)
@settings(max_examples=40, deadline=None)
def test_projectors_are_symmetric_with_eigenvalues_in_0_1(seed, n, d, alpha):
    p = projector(draw(seed, n, d), alpha)
    assert norm(p - p.T) < 1e-12
    values = torch.linalg.eigvalsh(p)
    assert values[0] > -1e-12 and values[-1] < 1 + 1e-12


@given(seed=seeds, d=st.integers(2, 8), alpha=alphas)
@settings(max_examples=30, deadline=None)
def test_one_row_is_removed_wholly_whatever_alpha(seed, d, alpha):
    row = draw(seed, 1, d)
    p = projector(row, alpha)
    assert norm(p - row.T @ row / (row @ row.T)) < 1e-10
    assert norm(removal(row, torch.zeros(0, d, dtype=torch.float64), alpha, alpha) @ row[0] - row[0]) < 1e-9 * norm(row)


@given(seed=seeds, n=st.integers(1, 4), d=st.integers(4, 8))
@settings(max_examples=30, deadline=None)
def test_large_alpha_is_the_projector_on_the_whole_span(seed, n, d):
    rows = draw(seed, n, d)
    p = projector(rows, 1e14)
    assert norm(rows @ p - rows) < 1e-4 * norm(rows)
    assert torch.trace(p).item() == pytest.approx(n, abs=1e-4)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 5.0])
def test_equal_energies_share_the_strength(alpha):
    p = projector(torch.eye(20, dtype=torch.float64), alpha)
    assert torch.trace(p).item() / 20 == pytest.approx(alpha / (alpha - 1 + 20))


@given(seed=seeds, scale=st.floats(0.01, 100), copies=st.integers(1, 4), alpha=alphas)
@settings(max_examples=30, deadline=None)
def test_scale_and_duplicates_do_not_matter(seed, scale, copies, alpha):
    rows = draw(seed, 3, 5)
    p = projector(rows, alpha)
    assert norm(projector(torch.cat([rows * scale] * copies), alpha) - p) < 1e-9 * norm(p)


@given(seed=seeds, alpha=alphas)
@settings(max_examples=20, deadline=None)
def test_a_retain_set_that_keeps_everything_removes_nothing(seed, alpha):
    part = removal(draw(seed, 3, 5), torch.eye(5, dtype=torch.float64), alpha, 1e14)
    assert norm(part) < 1e-9


def test_a_direction_shared_by_both_sets_keeps_f_forget_times_one_less_f_retain():
    forget, kept = torch.diag(torch.tensor([3.0, 1.0, 0, 0])), torch.diag(torch.tensor([2.0, 0, 1.0, 0]))
    part = removal(forget, kept, 2.0, 2.0)
    expected = strength(torch.tensor(0.9), 2.0) * (1 - strength(torch.tensor(0.8), 2.0))
    assert part[0, 0].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "rule"),
    [("object", "last_content"), ("artist", "tail"), ("celebrity", "last_content"), ("unsafe", "last_content")],
)
def test_default_token_rule_by_kind_and_nothing_kept(kind, rule, exact_pipe):
    task = ErasureTask((Concept("ab cd", kind),), ("gas pump",))
    default, named = Cure().edit(exact_pipe, task), Cure(token_rule=rule, retain="none").edit(exact_pipe, task)
    assert (default.info["token_rule"], default.info["tokens"]["retain"]) == (rule, 0)
    for name, change in named.changes.items():
        weight = named_weight(exact_pipe, name)
        assert torch.equal(change.of(weight), default.changes[name].of(weight))


def test_alpha_does_nothing_with_a_single_token(exact_pipe):
    task = ErasureTask((Concept("church", "object"),))
    weak, strong = (Cure(alpha=a, token_rule="last_content").edit(exact_pipe, task) for a in (1.0, 50.0))
    for name, change in weak.changes.items():
        weight = named_weight(exact_pipe, name)
        assert torch.allclose(change.of(weight), strong.changes[name].of(weight), rtol=1e-10, atol=1e-12)


def test_a_strength_that_has_no_effect_is_said_to_have_none(exact_pipe):
    task = ErasureTask((Concept("church", "object"),))
    said = {
        (alpha, rule): Cure(alpha=alpha, token_rule=rule).edit(exact_pipe, task).info.get("warnings", [])
        for alpha, rule in ((5.0, "last_content"), (None, "last_content"), (5.0, "content_eos"))
    }
    assert IDLE_ALPHA in said[5.0, "last_content"]
    assert not any(IDLE_ALPHA in warnings for place, warnings in said.items() if place != (5.0, "last_content"))


def test_no_rows_give_no_edit(exact_pipe):
    """An empty prompt has no content rows; as the whole retain list it protects nothing, and breaks nothing."""
    assert not projector(torch.zeros(0, 4, dtype=torch.float64), 2.0).any()
    task = ErasureTask((Concept("church", "object"),), ("",))
    bare = Cure(token_rule="content", retain="none").edit(exact_pipe, task)
    kept = Cure(token_rule="content", retain="task").edit(exact_pipe, task)
    for name, change in bare.changes.items():
        weight = named_weight(exact_pipe, name)
        assert torch.allclose(change.of(weight), kept.changes[name].of(weight), rtol=1e-10, atol=1e-12)


def test_applying_the_edit_twice_is_not_the_same_as_once(exact_pipe):
    edit = Cure(token_rule="content", retain="task").edit(exact_pipe, TASK)
    name, weight = next(iter(key_value_weights(exact_pipe).items()))
    with edit.applied(exact_pipe):
        once = weight.detach().clone()
        again = Cure(token_rule="content", retain="task").edit(exact_pipe, TASK, composing=True)
        with again.applied(exact_pipe):
            assert not torch.allclose(weight, once, rtol=1e-3)


def test_the_edit_is_kept_in_factors(exact_pipe):
    task = ErasureTask((Concept("ab", "object"),), ("gas pump",))
    edit = Cure(token_rule="content").edit(exact_pipe, task)
    assert edit.info["rank"] == edit.info["tokens"]["forget"] == 2
    assert all(change.delta is None for change in edit.changes.values())


def test_notes_describe_the_subspaces(exact_pipe):
    info = Cure(token_rule="content", retain="task", multi="joint").edit(exact_pipe, TASK).info
    assert info["tokens"] == {"forget": 6 + 11 + 5, "retain": 7 + 8}
    assert info["texts"] == {"church": ["church", "small chapel"], "tench": ["tench"]}
    top = info["energies"]["forget"][0]
    assert len(top) == 5 and top == sorted(top, reverse=True) and sum(top) <= 1 + 1e-9
    assert len(info["trace"]) == len(info["largest"]) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.0},
        {"alpha": -2.0},
        {"alpha": float("nan")},
        {"alpha_retain": 0},
        {"token_rule": "contents"},
    ]
    + [{"multi": "both"}, {"retain": "all of them"}, {"templates": ["no place"]}],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(UserError):
        Cure(**options)


@pytest.mark.parametrize(("multi", "orthogonalise"), [("sequential", None), ("orthogonal", "tokens")])
def test_concepts_one_after_another_equal_the_literal_way(multi, orthogonalise, exact_pipe):
    """With and without taking out of a concept's tokens what was erased before; the last text repeats the first."""
    task = ErasureTask(
        (
            Concept("church", "object", ("church", "small chapel")),
            Concept("tench", "object"),
            Concept("Church.", "object"),
        ),
        ("gas pump",),
    )
    groups = [["church", "small chapel"], ["tench"], ["Church."]]
    rows = [torch.cat([pick(exact_pipe, text, "content") for text in texts]) for texts in groups]
    kept = pick(exact_pipe, "gas pump", "content")
    edit = Cure(alpha=3.0, token_rule="content", multi=multi, retain="task").edit(exact_pipe, task)
    for name, weight in key_value_weights(exact_pipe).items():
        weight = weight.detach().double()
        change = cure_sequential(weight, rows, kept, 3.0, orthogonalise=orthogonalise) - weight
        assert norm(edit.changes[name].of(weight) - change) < 1e-8 * norm(change)


@given(seed=seeds, n=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_no_direction_is_removed_twice(seed, n):
    """A concept said again removes nothing more once its directions are out; plainly in sequence it does."""
    rows, none = draw(seed, n, 8), draw(0, 0, 8)
    once = sequence([rows], none, 2.0, 2.0)[0].of(torch.eye(8))
    again = sequence([rows, 3 * rows], none, 2.0, 2.0, orthogonal=True)[0].of(torch.eye(8))
    assert norm(again - once) < 1e-9
    if n > 1:
        assert norm(sequence([rows, rows], none, 2.0, 2.0)[0].of(torch.eye(8)) - once) > 1e-6
