"""UCE, both rules, equals a slow literal transcription: layer by layer, pair by pair, row by row."""

from __future__ import annotations

import pytest
import torch
from text_helpers import rows

from erasebench.concepts import Concept, ErasureTask
from erasebench.errors import UserError
from erasebench.methods.closed_form.uce import Uce
from erasebench.models.targets import key_value_weights, named_weight

RELEASE_2023 = {
    "artist": ["painting by {}", "art by {}", "artwork by {}", "picture by {}", "style of {}"],
    "object": ["image of {}", "photo of {}", "portrait of {}", "picture of {}", "painting of {}"],
}


def literal_2023(pipe, pairs, retain, lam, preserve_scale, erase_scale=1.0, technique="replace"):
    """New weights by the first release's loop, with outputs of each layer and no shared algebra."""
    new = {}
    for name, weight in key_value_weights(pipe).items():
        w = weight.detach().double()
        d = w.shape[1]
        numerator, denominator = lam * w, lam * torch.eye(d, dtype=torch.float64)
        for concept, anchor in pairs:
            (source, n), (target, m) = rows(pipe, concept), rows(pipe, anchor)
            source, target = source[n:], target[m:]
            length = min(len(source), len(target))
            old = [w @ source[t] for t in range(length)]
            goal = [w @ target[t] for t in range(length)]
            if technique == "tensor":
                size = torch.sqrt(sum((o @ o) for o in old))
                direction = [o / size for o in old]
                along = sum(u @ g for u, g in zip(direction, goal, strict=True))
                goal = [g - along * u for u, g in zip(direction, goal, strict=True)]
            for t in range(length):
                numerator = numerator + erase_scale * torch.outer(goal[t], source[t])
                denominator = denominator + erase_scale * torch.outer(source[t], source[t])
        for text in retain:
            for p in rows(pipe, text)[0]:
                numerator = numerator + preserve_scale * torch.outer(w @ p, p)
                denominator = denominator + preserve_scale * torch.outer(p, p)
        new[name] = numerator @ torch.linalg.inv(denominator)
    return new


def literal_2025(pipe, pairs, retain, lam, preserve_scale):
    """The same by the present release: one token, the last content token, for every text."""
    new = {}
    for name, weight in key_value_weights(pipe).items():
        w = weight.detach().double()
        numerator, denominator = lam * w, lam * torch.eye(w.shape[1], dtype=torch.float64)
        for concept, anchor in [*pairs, *((text, text) for text in retain)]:
            scale = 1.0 if (concept, anchor) in pairs else preserve_scale
            (source, n), (target, m) = rows(pipe, concept), rows(pipe, anchor)
            numerator = numerator + scale * torch.outer(w @ target[m], source[n])
            denominator = denominator + scale * torch.outer(source[n], source[n])
        new[name] = numerator @ torch.linalg.inv(denominator)
    return new


def assert_equal(pipe, edit, expected, tolerance=1e-8):
    for name, weight in key_value_weights(pipe).items():
        change = expected[name] - weight.detach().double()
        assert torch.linalg.norm(edit.changes[name].of(weight) - change) < tolerance * torch.linalg.norm(change), name


OBJECTS = ErasureTask((Concept("church", "object"), Concept("tench", "object")), ("gas pump", ""))


@pytest.mark.parametrize("technique", ["replace", "tensor"])
def test_2023_equals_its_loop(technique, exact_pipe):
    expected = literal_2023(
        exact_pipe, [("church", ""), ("tench", "")], ["", "gas pump"], 0.5, 0.5, technique=technique
    )
    assert_equal(exact_pipe, Uce(technique=technique).edit(exact_pipe, OBJECTS), expected)


def test_2023_with_anchor_templates_and_phrases_equals_its_loop(exact_pipe):
    task = ErasureTask((Concept("monet", "artist", ("monet", "claude monet"), "art"),), ())
    pairs = [
        (template.format(phrase), "art")  # the guide stays bare: new_texts = [guide for _ in old_texts]
        for phrase in ("monet", "claude monet")
        for template in ["{}", *RELEASE_2023["artist"]]
    ]
    expected = literal_2023(exact_pipe, pairs, [""], 0.2, 0.3, erase_scale=2.0)
    uce = Uce(lam=0.2, preserve_scale=0.3, erase_scale=2.0, templates=True)
    assert_equal(exact_pipe, uce.edit(exact_pipe, task), expected)


def test_the_name_alone(exact_pipe):
    task = ErasureTask((Concept("monet", "artist", ("monet", "claude monet"), "art"),), ())
    expected = literal_2023(exact_pipe, [("monet", "art")], [""], 0.5, 1.0)
    assert_equal(exact_pipe, Uce(phrases=False).edit(exact_pipe, task), expected)


def test_2025_equals_its_loop(exact_pipe):
    expected = literal_2025(exact_pipe, [("church", ""), ("tench", "")], ["gas pump"], 0.5, 1.0)
    uce = Uce(variant="2025", preserve=["gas pump"])
    assert_equal(exact_pipe, uce.edit(exact_pipe, OBJECTS), expected)


def test_2025_keeps_nothing_unless_asked(exact_pipe):
    expected = literal_2025(exact_pipe, [("church", "sky"), ("tench", "sky")], [], 0.5, 1.0)
    edit = Uce(variant="2025", preserve="none", anchor="sky").edit(exact_pipe, OBJECTS)
    assert edit.info["preserve"] == []
    assert_equal(exact_pipe, edit, expected)


def test_the_two_rules_differ(exact_pipe):
    old, new = (Uce(variant=v).edit(exact_pipe, OBJECTS) for v in ("2023", "2025"))
    name = next(iter(old.changes))
    weight = named_weight(exact_pipe, name)
    difference = torch.linalg.norm(old.changes[name].of(weight) - new.changes[name].of(weight))
    assert difference > 0.1 * old.changes[name].norm(weight)


@pytest.mark.parametrize(("n", "scale"), [(0, 1.0), (1, 0.5), (4, 0.2), (30, 0.1)])
def test_2023_preserve_scale_by_the_number_of_kept_texts(n, scale, exact_pipe):
    task = ErasureTask((Concept("church", "object"),), tuple(f"thing {i}" for i in range(n)))
    info = Uce().edit(exact_pipe, task).info
    assert info["preserve_scale"] == pytest.approx(scale)
    assert info["preserve"][0] == "" and len(info["preserve"]) == n + 1


def test_a_kept_text_with_a_blank_stands_for_all_that_it_makes_of_the_retain_list():
    """UnlearnCanvas: every other style with every object, and "" by the rule."""
    task = ErasureTask((Concept("Van Gogh", "artist", anchor="Photo"),), ("Bricks", "Rust"))
    uce = Uce(preserve=("A Dogs image in {} style", "art", "A Cats image in {} style"))
    assert uce.kept(task) == [
        "", "A Dogs image in Bricks style", "A Dogs image in Rust style", "art", "A Cats image in Bricks style",
        "A Cats image in Rust style",
    ]  # fmt: skip


def test_the_empty_text_is_kept_once(exact_pipe):
    assert Uce().edit(exact_pipe, OBJECTS).info["preserve"] == ["", "gas pump"]


def test_a_single_token_lands_on_its_anchor_as_lam_goes_to_zero(exact_pipe):
    task = ErasureTask((Concept("church", "object", anchor="sky"),))
    edit = Uce(variant="2025", lam=1e-9, preserve="none").edit(exact_pipe, task)
    (source, n), (target, m) = rows(exact_pipe, "church"), rows(exact_pipe, "sky")
    for name, weight in key_value_weights(exact_pipe).items():
        w = weight.detach().double()
        reached = (w + edit.changes[name].of(w)) @ source[n]
        assert torch.linalg.norm(reached - w @ target[m]) < 1e-6 * torch.linalg.norm(w @ target[m])
    assert edit.info["rank"] == 1


def test_more_weight_on_kept_texts_moves_them_less(exact_pipe):
    task = ErasureTask((Concept("church", "object"),), ("chapel",))
    kept = rows(exact_pipe, "chapel")[0]
    moved = []
    for scale in (0.01, 1.0, 100.0):
        edit = Uce(preserve_scale=scale).edit(exact_pipe, task)
        moved.append(
            sum(
                torch.linalg.norm(change.of(named_weight(exact_pipe, name)) @ kept.T).item()
                for name, change in edit.changes.items()
            )
        )
    assert moved[0] > moved[1] > moved[2]


@pytest.mark.parametrize(
    "options",
    [{"variant": "2024"}, {"technique": "swap"}, {"variant": "2025", "technique": "tensor"}, {"lam": 0.0}]
    + [{"erase_scale": -1.0}, {"preserve_scale": float("nan")}, {"preserve": "church"}, {"templates": ["x"]}],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(UserError):
        Uce(**options)
