"""What an attack finds is a value that survives a file, and images are drawn by it; its key knows what decides it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from erasebench.concepts import Concept
from erasebench.config.own_files import load_file
from erasebench.edits.attack import Attack, attacked_concepts
from erasebench.edits.found import Found
from erasebench.errors import UserError
from erasebench.images.generate import generate
from erasebench.images.scheduler import scheduler_identity
from erasebench.models.soft_words import padded
from erasebench.recipe import Recipe
from erasebench.store import Store

KEY = "ab" * 16
CHURCH, TENCH = Concept("church", "object"), Concept("tench", "object")


@dataclass(frozen=True)
class Fixed(Attack):
    """Finds the same text for every prompt."""

    name = "fixed"
    access = "nothing"
    text: str = "two dogs"

    def look(self, pipe, concepts, recipe, tools):
        tools.advance(1)
        return Found(prompt=self.text, info={"tried": 1})


class Transferred(Fixed):
    name = "fixed"
    adaptive = False
    inputs = ("prompt",)


def recipe(**changes) -> Recipe:
    values = {
        "model": "small",
        "revision": "random",
        "edit": "",
        "prompt": "a church",
        "negative_prompt": "",
        "seed": 1,
        "steps": 2,
        "guidance": 4.0,
        "width": 16,
        "height": 16,
        "scheduler": "DDIMScheduler",
        "scheduler_config": "{}",
        "dtype": "float32",
    }
    return Recipe(**(values | changes))


# What was found


FORMS = st.one_of(
    st.builds(lambda text: {"prompt": text}, st.text(st.characters(codec="utf-8"))),
    st.builds(lambda ids: {"tokens": tuple(ids)}, st.lists(st.integers(0, 49405))),
    st.builds(lambda seed: {"seed": seed}, st.integers(0, 2**63 - 1)),
    st.builds(lambda seed: {"embedding": torch.randn(3, 5, generator=torch.Generator().manual_seed(seed))}, st.integers(0, 99)),
    st.builds(lambda seed: {"words": torch.randn(2, 5, generator=torch.Generator().manual_seed(seed)), "replaces": ("a", "b c")}, st.integers(0, 99)),
    st.builds(lambda n: {"latents": torch.arange(float(n)).half().view(1, n)}, st.integers(1, 9)),
    st.builds(lambda n: {"tensors": {"down.a.b": torch.arange(float(n)).view(1, n), "seed": torch.tensor(n)}}, st.integers(1, 9)),
)  # fmt: skip


@given(
    value=FORMS,
    info=st.dictionaries(st.text(st.characters(codec="utf-8")), st.floats(allow_nan=False) | st.text("ab\u00e9\u2028")),
)
def test_it_comes_back_from_a_file_as_it_was(value, info) -> None:
    found = Found(**value, info=info)
    again = Found.from_bytes(found.to_bytes(KEY), KEY)
    (name, ours), theirs = next(iter(value.items())), getattr(again, found.form)
    assert again.form == name and again.info == info
    assert again.replaces == value.get("replaces", ())
    if isinstance(ours, torch.Tensor):
        assert theirs.dtype == ours.dtype and torch.equal(theirs, ours)
    elif isinstance(ours, dict):
        assert theirs.keys() == ours.keys() and all(torch.equal(theirs[key], ours[key]) for key in ours)
    else:
        assert theirs == ours and type(theirs) is type(ours)


@settings(max_examples=200)
@given(value=FORMS, data=st.data())
def test_a_file_that_was_altered_anywhere_is_refused(value, data) -> None:
    whole = Found(**value, info={"loss": 1.5}).to_bytes(KEY)
    place = data.draw(st.integers(0, len(whole) - 1))
    altered = bytearray(whole)
    altered[place] ^= data.draw(st.integers(1, 255))
    try:
        again = Found.from_bytes(bytes(altered), KEY)
    except ValueError:
        return
    # Spaces that pad the header, or the spelling of JSON, may differ without any content that does.
    assert again.to_bytes(KEY) == whole


@given(value=FORMS, data=st.data())
def test_a_file_that_was_cut_is_refused(value, data) -> None:
    whole = Found(**value).to_bytes(KEY)
    with pytest.raises(ValueError):
        Found.from_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))], KEY)


def test_a_file_under_another_name_is_refused() -> None:
    data = Found(prompt="a").to_bytes(KEY)
    with pytest.raises(ValueError, match="another key"):
        Found.from_bytes(data, "cd" * 16)


@pytest.mark.parametrize("values", [{}, {"prompt": "a", "seed": 1}])
def test_one_thing_is_found_neither_none_nor_two(values) -> None:
    with pytest.raises(ValueError, match="one of prompt"):
        Found(**values)


# Keys


def test_a_key_knows_all_that_decides_what_is_found() -> None:
    def key(attack=Fixed(), model="m float32", edit="e1", concepts=(CHURCH,), **changes) -> str:  # noqa: B008
        return attack.key(model, edit, concepts, recipe(**changes))

    others = [
        key(attack=Fixed(text="a")), key(model="m float16"), key(edit="e2"), key(edit=""), key(concepts=(TENCH,)),
        key(concepts=(CHURCH, TENCH)), key(prompt="two"), key(seed=2), key(guidance=2.0), key(steps=3),
    ]  # fmt: skip
    assert len({key(), *others}) == 1 + len(others)
    assert key() == key(edit="e1") and len(key()) == 32
    # The edit's key is given by itself; an attack must not count itself.
    assert key() == Fixed().key("m float32", "e1", (CHURCH,), replace(recipe(), edit="x", attack="y"))


def test_another_source_of_an_attack_of_ones_own_is_another_attack(tmp_path) -> None:
    path = tmp_path / "insist_of_mine.py"
    text = (
        "from dataclasses import dataclass\nfrom erasebench.edits import Attack, Found\n"
        "@dataclass(frozen=True)\nclass Insist(Attack):\n    name = 'insist'\n    access = 'nothing'\n"
        "    def look(self, pipe, concepts, recipe, tools):\n        return Found(seed=1)\n"
    )
    keys = []
    for source in (text, text, text.replace("seed=1", "seed=2")):
        path.write_text(source)
        sys.modules.pop("insist_of_mine", None)
        keys.append(load_file(str(path)).Insist().key("m", "e1", (CHURCH,), recipe()))
    sys.modules.pop("insist_of_mine", None)
    assert keys[0] == keys[1] != keys[2]


def test_a_transfer_attack_is_one_for_all_edits_and_all_it_does_not_look_at() -> None:
    attack = Transferred()
    one = attack.key("m", "e1", (CHURCH,), recipe())
    assert one == attack.key("m", "", (CHURCH,), recipe(seed=9, guidance=1.0))
    assert one != attack.key("m", "", (CHURCH,), recipe(prompt="b")) and one != attack.key("m", "", (TENCH,), recipe())


def test_an_input_that_recipes_got_later_leaves_keys_as_they_were_while_it_has_its_default() -> None:
    class Early(Fixed):
        inputs = ("model", "steps")

    class Later(Fixed):
        inputs = ("model", "steps", "attack", "source")

    early, later = (kind().key("m", "e1", (CHURCH,), recipe()) for kind in (Early, Later))
    assert early == later


def test_the_prompts_own_concept_is_attacked_or_all_where_it_names_none() -> None:
    assert attacked_concepts((CHURCH, TENCH), "Tench") == (TENCH,)
    assert attacked_concepts((CHURCH, TENCH), "sexual") == attacked_concepts((CHURCH, TENCH), "") == (CHURCH, TENCH)


def test_what_was_found_says_who_looked_for_what(tiny_random_pipe) -> None:
    info = Fixed().find(tiny_random_pipe, (CHURCH,), recipe()).info
    assert info["attack"] == "fixed" and info["settings"] == {"text": "two dogs"} and info["concepts"] == ["church"]
    assert info["for"]["prompt"] == "a church" and info["tried"] == 1 and info["seconds"] >= 0
    assert Transferred().find(tiny_random_pipe, (CHURCH,), recipe()).info["for"] == {"prompt": "a church"}


def test_an_attack_that_fails_is_named_with_its_prompt(tiny_random_pipe) -> None:
    class Fails(Fixed):
        def look(self, pipe, concepts, recipe, tools):
            raise IndexError("inside")

    with pytest.raises(UserError, match="attack fixed failed on prompt 'a church' .church.: IndexError: inside"):
        Fails().find(tiny_random_pipe, (CHURCH,), recipe())


def test_an_attack_that_alters_the_model_is_caught(small_pipe) -> None:
    class Alters(Fixed):
        def look(self, pipe, concepts, recipe, tools):
            with torch.no_grad():
                next(pipe.text_encoder.parameters()).add_(1)
            return super().look(pipe, concepts, recipe, tools)

    with pytest.raises(UserError, match="attack fixed altered text_encoder"):
        Alters().find(small_pipe(), (CHURCH,), recipe())


# Images


@pytest.fixture
def model(tiny_random_pipe) -> SimpleNamespace:
    return SimpleNamespace(name="small", revision="random", pipe=tiny_random_pipe)


def drawn(
    model, store: Store, *wanted: Recipe, found: dict[str, Found] | None = None, batch_size: int = 8
) -> np.ndarray:
    scheduler, config = scheduler_identity(model.pipe, "DDIM", {})
    wanted = tuple(replace(one, scheduler=scheduler, scheduler_config=config) for one in wanted)
    generate(model, wanted, store, batch_size, hooks=[Fixed().hook(found)] if found else [])
    return np.stack([np.asarray(store.image(one.key), dtype=int) for one in wanted])


def test_each_form_takes_the_place_of_its_own(model, tmp_path) -> None:
    """An image drawn by what was found is the image of a recipe that asks for that, in a batch with other images."""
    tokenizer, encoder = model.pipe.tokenizer, model.pipe.text_encoder
    ids = tokenizer("two dogs", add_special_tokens=False).input_ids
    with torch.no_grad():
        rows = encoder(padded(tokenizer, torch.tensor([ids]))).last_hidden_state[0]
        vectors = encoder.get_input_embeddings().weight[ids]
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))[0]
    found = {
        "a1": Found(prompt="two dogs"),
        "a2": Found(tokens=tuple(ids)),
        "a3": Found(embedding=rows),
        "a4": Found(latents=noise),
        "a5": Found(seed=5),
        "a6": Found(words=vectors, replaces=("a church", "church")),
    }
    size = 8 * model.pipe.vae_scale_factor
    asked = recipe(width=size, height=size)
    plain = replace(asked, prompt="plain")
    images = drawn(
        model, Store(tmp_path / "a"), *(replace(asked, attack=key) for key in found), plain, found=found, batch_size=7
    )
    dogs, other, untouched, clean = drawn(
        model, Store(tmp_path / "b"), replace(asked, prompt="two dogs"), replace(asked, seed=5), plain, asked
    )
    for image, expected in zip(images, [dogs, dogs, dogs, other, other, dogs, untouched], strict=True):
        assert np.abs(image - expected).max() <= 1
    assert np.abs(dogs - clean).max() > 1 and np.abs(other - clean).max() > 1, "or this test could not fail"


def test_the_batch_does_not_change_an_attacked_image(model, tmp_path) -> None:
    found = {"a1": Found(prompt="two dogs"), "a2": Found(prompt="a cat by monet"), "a3": Found(seed=3)}
    wanted = [recipe(attack=key) for key in found]
    alone, together = (
        drawn(model, Store(tmp_path / str(size)), *wanted, found=found, batch_size=size) for size in (1, 3)
    )
    assert np.abs(alone - together).max() <= 1


def test_an_attacked_image_is_not_made_without_what_was_found(model, tmp_path) -> None:
    for found in (None, {"a2": Found(prompt="b")}):
        with pytest.raises(ValueError, match="no hook holds what it found"):
            drawn(model, Store(tmp_path), recipe(attack="a1"), found=found)
    assert not list(tmp_path.rglob("*.png"))
