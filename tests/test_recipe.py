"""A recipe is a value: equal things have equal keys, different things different ones, and nonsense has none."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasebench.errors import UserError
from erasebench.recipe import LARGEST_SEED, Recipe

VALUES = {
    "model": "small",
    "revision": "sha256-1",
    "edit": "",
    "prompt": "a church",
    "negative_prompt": "",
    "seed": 1,
    "steps": 4,
    "guidance": 7.5,
    "width": 64,
    "height": 64,
    "scheduler": "DDIMScheduler",
    "scheduler_config": "{}",
    "dtype": "float32",
}


def recipe(**changes) -> Recipe:
    return Recipe(**{**VALUES, **changes})


def test_the_key_is_the_hash_of_canonical_json():
    # Written out by hand: a key that changes makes every image in every store unfindable.
    text = (
        '{"dtype":"float32","edit":"","guidance":7.5,"height":64,"model":"small","negative_prompt":"",'
        '"prompt":"a church","revision":"sha256-1","rng":"cpu","scheduler":"DDIMScheduler","scheduler_config":"{}",'
        '"seed":1,"steps":4,"version":"1","width":64}'
    )
    assert recipe().key == hashlib.sha256(text.encode()).hexdigest()[:32]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, "56003f1f36a7780999ad36f6bffd225c"),
        (
            {
                "edit": "0123456789abcdef0123456789abcdef",
                "negative_prompt": "blurry, \u00dcn\u00efcode",
                "seed": 2**63 - 1,
                "guidance": 1,
                "dtype": "float16",
            },
            "4a22693b1df4ec2b6a87ae98be926d3d",
        ),
        (
            {
                "model": "sd14",
                "steps": 50,
                "width": 512,
                "height": 768,
                "scheduler": "EulerAncestralDiscreteScheduler",
                "scheduler_config": '{"beta_end":0.012}',
                "rng": "cuda",
            },
            "4665ef760a5b7ff58ddd472665d2e974",
        ),
    ],
)
def test_keys_of_the_first_recipes_stay(changes, key):
    # Computed before any field was added: if one of these changes, the images of every store are lost from sight.
    assert recipe(**changes).key == key
    assert Recipe.from_dict(recipe(**changes).to_dict()).key == key


def test_a_field_added_later_is_unsaid_at_its_default_and_counts_otherwise():
    assert "attack" not in recipe().to_dict()
    attacked = recipe(attack="a" * 32)
    assert attacked.to_dict()["attack"] == "a" * 32
    assert attacked.key != recipe().key
    assert Recipe.from_dict(json.loads(json.dumps(attacked.to_dict()))) == attacked
    assert Recipe.from_dict({**VALUES, "attack": ""}) == recipe()


def test_every_field_is_in_the_key():
    other = {"guidance": 7.25, "seed": 2, "steps": 5, "width": 72, "height": 72, "version": "2"}
    for field in dataclasses.fields(Recipe):
        if field.name == "rng":
            continue
        changed = dataclasses.replace(recipe(), **{field.name: other.get(field.name, "other")})
        assert changed.key != recipe().key, field.name


def test_equal_values_of_other_types_have_one_key():
    same = recipe(seed=np.int64(1), steps=np.int32(4), guidance=np.float64(7.5), width=64.0, height=np.uint8(64))
    assert same == recipe()
    assert same.key == recipe().key
    assert recipe(guidance=7).key == recipe(guidance=7.0).key
    assert recipe(guidance=-0.0).key == recipe(guidance=0.0).key


@given(st.text(), st.integers(0, LARGEST_SEED), st.floats(0, 1e6))
def test_there_and_back(prompt, seed, guidance):
    try:
        prompt.encode()
    except UnicodeEncodeError:
        return
    made = recipe(prompt=prompt, seed=seed, guidance=guidance)
    back = Recipe.from_dict(json.loads(json.dumps(made.to_dict())))
    assert back == made
    assert back.key == made.key


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("steps", -3),
        ("steps", 2.5),
        ("steps", True),
        ("seed", -1),
        ("seed", LARGEST_SEED + 1),
        ("seed", "1"),
        ("seed", float("nan")),
        ("guidance", -0.5),
        ("guidance", float("nan")),
        ("guidance", float("inf")),
        ("guidance", None),
        ("width", 0),
        ("width", 65),
        ("height", -8),
        ("prompt", None),
        ("prompt", float("nan")),
        ("prompt", "half \ud83d"),
        ("rng", "mps"),
    ],
)
def test_nonsense_is_refused_by_name(field, value):
    with pytest.raises(UserError, match=f"^{field}: "):
        recipe(**{field: value})


def test_from_dict_names_what_is_wrong():
    with pytest.raises(UserError, match="'promt'.*'prompt'"):
        Recipe.from_dict({**VALUES, "promt": "x"})
    with pytest.raises(UserError, match="no value for seed"):
        Recipe.from_dict({name: value for name, value in VALUES.items() if name != "seed"})
