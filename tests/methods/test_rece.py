"""RECE equals a slow literal transcription: a UCE edit, then per epoch the nearest embedding and another edit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from text_helpers import rows

from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.change import Change
from erasebench.errors import UserError
from erasebench.methods.closed_form.rece import Rece
from erasebench.methods.closed_form.uce import Uce
from erasebench.models.targets import key_value_weights, named_weight


def edit_all(current, pairs, kept, lam, preserve_scale):
    """One UCE edit of all present weights; pairs of rows, rows to keep; values from the present weights."""
    new = {}
    for name, w in current.items():
        numerator, denominator = lam * w, lam * torch.eye(w.shape[1], dtype=torch.float64)
        for source, target in pairs:
            numerator = numerator + torch.outer(w @ target, source)
            denominator = denominator + torch.outer(source, source)
        for p in kept:
            numerator = numerator + preserve_scale * torch.outer(w @ p, p)
            denominator = denominator + preserve_scale * torch.outer(p, p)
        new[name] = numerator @ torch.linalg.inv(denominator)
    return new


def literal_rece(pipe, pairs, retain, epochs, regular, start_scale, start_lam=0.5, lam=0.1, preserve_scale=0.1):
    original = {name: weight.detach().double() for name, weight in key_value_weights(pipe).items()}
    d = next(iter(original.values())).shape[1]
    kept = [p for text in retain for p in rows(pipe, text)[0]]
    tails = []
    for concept, anchor in pairs:
        (source, n), (target, m) = rows(pipe, concept), rows(pipe, anchor)
        tails += list(zip(source[n:], target[m:], strict=False))
    current = edit_all(original, tails, kept, start_lam, start_scale)
    for _ in range(epochs):
        found = []
        for concept, anchor in pairs:
            for c, guide in zip(rows(pipe, concept)[0], rows(pipe, anchor)[0], strict=True):
                left, right = regular * torch.eye(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)
                for name, w in original.items():
                    left = left + current[name].T @ current[name]
                    right = right + current[name].T @ w @ c
                found.append((torch.linalg.solve(left, right), guide))
        current = edit_all(current, found, kept, lam, preserve_scale)
    return original, current


def assert_equal(edit, original, expected, tolerance=1e-8):
    for name, weight in original.items():
        change = expected[name] - weight
        assert torch.linalg.norm(edit.changes[name].of(weight) - change) < tolerance * torch.linalg.norm(change), name


OBJECTS = ErasureTask((Concept("church", "object", ("church", "chapel")), Concept("tench", "object")), ("gas pump", ""))
ARTIST = ErasureTask((Concept("monet", "artist", anchor="art"),), ("hokusai",))
NUDITY = ErasureTask((Concept("nudity", "unsafe"),), ("",))


def test_objects_equal_the_loop_with_released_settings(exact_pipe):
    original, expected = literal_rece(exact_pipe, [("church", ""), ("tench", "")], [""], 1, 1e-3, 1.0)
    edit = Rece(phrases=False, preserve="none").edit(exact_pipe, OBJECTS)
    assert_equal(edit, original, expected)
    assert (edit.info["epochs"], edit.info["regular_scale"], edit.info["preserve"]) == (1, 1e-3, [""])


def test_artists_equal_the_loop_with_released_settings(exact_pipe):
    original, expected = literal_rece(exact_pipe, [("monet", "art")], ["", "hokusai"], 1, 1e-3, 0.1)
    assert_equal(Rece().edit(exact_pipe, ARTIST), original, expected)


def test_unsafe_equals_the_loop_with_released_settings(exact_pipe):
    original, expected = literal_rece(exact_pipe, [("nudity", "")], [""], 3, 1e-1, 1.0)
    assert_equal(Rece(regular_scale=1e-1, preserve="none").edit(exact_pipe, NUDITY), original, expected)


def test_own_settings_equal_the_loop(exact_pipe):
    original, expected = literal_rece(
        exact_pipe,
        [("church", "sky"), ("chapel", "sky"), ("tench", "sky")],
        ["", "pump"],
        2,
        0.05,
        0.3,
        start_lam=0.7,
        lam=0.2,
        preserve_scale=0.4,
    )
    rece = Rece(
        epochs=2,
        regular_scale=0.05,
        lam=0.2,
        preserve_scale=0.4,
        start_lam=0.7,
        start_preserve_scale=0.3,
        anchor="sky",
        preserve=["pump"],
    )
    assert_equal(rece.edit(exact_pipe, OBJECTS), original, expected)


def test_several_unsafe_words_keep_the_empty_text_once_each(exact_pipe):
    words = ("nudity", "blood", "harm")
    task = ErasureTask(tuple(Concept(word, "unsafe") for word in words))
    # train.py: retain_texts = [' ' for _ in old_texts]; the UCE checkpoint it starts from keeps "" once.
    original, expected = literal_rece(
        exact_pipe, [(word, "") for word in words], [""], 2, 1e-1, 1.0, preserve_scale=3 * 0.1
    )
    edit = Rece(epochs=2, regular_scale=1e-1, preserve="none").edit(exact_pipe, task)
    assert_equal(edit, original, expected)
    objects = ErasureTask(tuple(Concept(word, "object") for word in words))  # train_object.py: retain_texts = ['']
    original, expected = literal_rece(exact_pipe, [(word, "") for word in words], [""], 2, 1e-1, 1.0)
    assert_equal(Rece(epochs=2, regular_scale=1e-1, preserve="none").edit(exact_pipe, objects), original, expected)


def test_a_file_of_names_is_kept_but_for_what_is_erased(exact_pipe, tmp_path):
    file = tmp_path / "names.csv"
    file.write_text("id,concept\n1,Monet\n2,hokusai\n3,degas\n", encoding="utf-8")
    original, expected = literal_rece(exact_pipe, [("monet", "art")], ["", "hokusai", "degas"], 1, 1e-3, 0.1)
    edit = Rece(preserve=str(file)).edit(exact_pipe, ARTIST)
    assert_equal(edit, original, expected)
    assert edit.info["preserve"] == ["", "hokusai", "degas"]


def test_no_epoch_is_uce_where_it_keeps_as_hard(exact_pipe):
    rece = Rece(epochs=0, preserve="task", start_preserve_scale=1 / 2).edit(exact_pipe, ARTIST)  # of "" and hokusai
    uce = Uce(variant="2023").edit(exact_pipe, ARTIST)
    for name, change in uce.changes.items():
        weight = named_weight(exact_pipe, name)
        assert torch.allclose(change.of(weight), rece.changes[name].of(weight), rtol=1e-12, atol=1e-14)


def test_no_epoch_is_uce(exact_pipe):
    rece = Rece(epochs=0, preserve="task").edit(exact_pipe, ARTIST)
    uce = Uce(variant="2023", preserve_scale=0.1).edit(exact_pipe, ARTIST)
    for name, change in uce.changes.items():
        weight = named_weight(exact_pipe, name)
        assert torch.allclose(change.of(weight), rece.changes[name].of(weight), rtol=1e-12, atol=1e-14)


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 10_000), n=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_with_unedited_weights_the_found_row_is_the_concept(seed, n):
    weight, concepts = draw(seed, 12, 5), draw(seed + 1, n, 5)
    found = Rece.find(weight.T @ weight, Change(token=torch.zeros(5, 5, dtype=torch.float64)), concepts, 1e-10)
    assert torch.linalg.norm(found - concepts) < 1e-6 * torch.linalg.norm(concepts)


@given(seed=st.integers(0, 10_000), regular=st.floats(1e-3, 1.0))
@settings(max_examples=30, deadline=None)
def test_the_found_row_is_where_its_objective_has_no_slope(seed, regular):
    layers, change, concept = (
        [draw(seed + i, 6, 5) for i in range(3)],
        0.3 * draw(seed + 9, 5, 5),
        draw(seed + 8, 1, 5),
    )
    energy = sum(w.T @ w for w in layers)
    row = Rece.find(energy, Change(token=change), concept, regular)[0].requires_grad_()
    loss = regular * row @ row
    for w in layers:
        loss = loss + ((w + w @ change) @ row - w @ concept[0]).square().sum()
    (slope,) = torch.autograd.grad(loss, row)
    assert slope.abs().max() < 1e-8 * (1 + loss.item()) * 100


def test_a_round_leaves_less_of_the_concept_within_reach(exact_pipe):
    """Nearest outputs that any embedding reaches through the edited weights: further from the concept's after RECE."""
    concept, _ = rows(exact_pipe, "church")
    task = ErasureTask((Concept("church", "object", anchor="sky"),))
    weights = {name: weight.detach().double() for name, weight in key_value_weights(exact_pipe).items()}

    def out_of_reach(eraser):
        edit = eraser.edit(exact_pipe, task)
        edited = {name: w + edit.changes[name].of(w) for name, w in weights.items()}
        left = 1e-3 * torch.eye(24, dtype=torch.float64) + sum(w.T @ w for w in edited.values())
        right = sum(edited[name].T @ w @ concept.T for name, w in weights.items())
        nearest = torch.linalg.solve(left, right)
        return sum((edited[name] @ nearest - w @ concept.T).square().sum().item() for name, w in weights.items())

    assert out_of_reach(Rece(epochs=1)) > out_of_reach(Rece(epochs=0))


@pytest.mark.parametrize(
    "options",
    [{"epochs": -1}, {"epochs": 1.5}, {"regular_scale": 0.0}, {"lam": -1.0}, {"preserve_scale": 0.0}]
    + [{"start_lam": 0.0}, {"preserve": "church"}],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(UserError):
        Rece(**options)
