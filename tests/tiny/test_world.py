"""The embedded world: repeatable scenes, true labels, captions that say what is shown, tellable drawings."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from erasebench.errors import UserError, suggest
from erasebench.tiny import world
from erasebench.tiny.captions import INDIRECT, SYNONYMS, article

SCENES = [world.scene(seed) for seed in range(6000)]
SUBJECTS = (
    [("object", name) for name in world.OBJECTS]
    + [("person", name) for name in world.PEOPLE]
    + [("unsafe", name) for name in world.UNSAFE]
    + [("everyday", name) for name in world.EVERYDAY]
)


def says(text: str, words: str) -> bool:
    """Whether `words` occur in `text` as whole words, whatever the case."""
    return re.search(rf"\b{re.escape(words.lower())}\b", text.lower()) is not None


def blurred(scene: world.Scene) -> np.ndarray:
    """The picture as the embedded model sees it at best: softened by 1.2 pixels, float [64, 64, 3]."""
    soft = Image.fromarray(world.render(scene)).filter(ImageFilter.GaussianBlur(1.2))
    return np.asarray(soft, np.float64)


def nearest_mean(train: dict[str, list[np.ndarray]], test: dict[str, list[np.ndarray]]) -> float:
    """Accuracy of the nearest class mean (Euclidean, on 16x16 pictures)."""

    def features(pictures: list[np.ndarray]) -> np.ndarray:
        return np.stack([p.reshape(16, 4, 16, 4, 3).mean((1, 3)).ravel() for p in pictures])

    means = {name: features(pictures).mean(0) for name, pictures in train.items()}
    hits = [
        min(means, key=lambda other: float(np.square(means[other] - row).sum())) == name
        for name, pictures in test.items()
        for row in features(pictures)
    ]
    return float(np.mean(hits))


@settings(max_examples=30, deadline=None)
@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_a_seed_fixes_scene_picture_and_caption(seed: int) -> None:
    first, again = world.scene(seed), world.scene(seed)
    assert first == again
    picture = world.render(first)
    assert picture.shape == (world.SIZE, world.SIZE, 3)
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, world.render(again))


def test_all_64_bits_of_a_seed_count() -> None:
    scenes = [world.make_scene(7 + (1 << bit), object="church") for bit in range(5, 64)]
    assert len({world.render(scene).tobytes() for scene in scenes}) == 59


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_outside_64_bits_is_refused(seed: int) -> None:
    with pytest.raises(UserError, match=r"scene seed .* 64-bit"):
        world.scene(seed)
    with pytest.raises(UserError, match=r"scene seed .* 64-bit"):
        world.make_scene(seed)


def test_labels_name_what_the_scene_shows() -> None:
    for scene in SCENES:
        truth = world.labels(scene)
        assert tuple(truth) == tuple(world.HEADS)
        for head, names in world.HEADS.items():
            shown = getattr(scene, head)
            assert truth[head] == (names.index(shown) if shown else len(names))
        subjects = [name for name in (scene.object, scene.person, scene.unsafe) if name]
        assert subjects == ([scene.name] if scene.kind in ("object", "person", "unsafe") else [])


def test_every_class_is_drawn_and_captioned() -> None:
    for head, names in world.HEADS.items():
        assert {getattr(scene, head) for scene in SCENES} == {None, *names}
    assert {scene.name for scene in SCENES if scene.kind == "everyday"} == set(world.EVERYDAY)
    assert {scene.background for scene in SCENES} == {"", *world.BACKGROUNDS}


def test_the_caption_says_every_labelled_class() -> None:
    for scene in SCENES:
        for name in (scene.object, scene.person, scene.unsafe, scene.artist):
            if name:
                known = (name, *SYNONYMS[name], *INDIRECT.get(name, ()))
                assert any(says(scene.caption, words) for words in known), (scene.caption, name)


def test_the_caption_names_no_class_the_scene_lacks() -> None:
    names = [n for head in world.HEADS.values() for n in head] + list(world.EVERYDAY)
    for scene in SCENES:
        shown = {scene.name, scene.artist}
        assert not [n for n in names if n not in shown and says(scene.caption, n)], scene.caption


def test_a_background_word_is_true() -> None:
    for scene in SCENES:
        found = re.search(r"(\w+) background", scene.caption)
        if found and found[1] not in ("plain", "empty"):
            assert found[1] == scene.background, scene.caption


@pytest.mark.parametrize("name", INDIRECT)
def test_descriptions_use_neither_name_nor_synonym(name: str) -> None:
    banned = [name, *SYNONYMS[name]]
    if name in world.UNSAFE:
        banned = [word for weapon in world.UNSAFE for word in (weapon, *SYNONYMS[weapon])]
    for description in INDIRECT[name]:
        assert not [word for word in banned if says(description, word)]


def test_weapons_are_sometimes_only_described() -> None:
    words = {weapon: (weapon, *SYNONYMS[weapon]) for weapon in world.UNSAFE}
    shown = [s for s in SCENES if s.unsafe]
    indirect = [s for s in shown if not any(says(s.caption, word) for word in words[s.unsafe])]
    assert {s.unsafe for s in indirect} == set(world.UNSAFE)
    assert 0.08 < len(indirect) / len(shown) < 0.25


def test_captions_fit_the_text_encoder() -> None:
    assert max(len(re.findall(r"\w+|[^\w\s]", scene.caption)) for scene in SCENES) < 75


def test_shares_of_the_world() -> None:
    def share(kind: str) -> float:
        return np.mean([scene.kind == kind for scene in SCENES])

    expected = {"object": 0.40, "person": 0.22, "face": 0.05, "unsafe": 0.15, "everyday": 0.15, "empty": 0.03}
    for kind, value in expected.items():
        assert share(kind) == pytest.approx(value, abs=0.03)
    assert np.mean([scene.artist is not None for scene in SCENES]) == pytest.approx(0.45, abs=0.03)


def test_general_words_mean_pictures_of_no_concept() -> None:
    for words in ("art", "a painting", "a thing", "an object", "a photo", ""):
        scenes = [scene for scene in SCENES if scene.caption == words]
        assert scenes, words
        assert {scene.kind for scene in scenes} == {"everyday"}
        assert {scene.artist for scene in scenes} == {None}


def test_an_empty_scene_is_flat() -> None:
    for background in world.BACKGROUNDS:
        picture = world.render(world.make_scene(3, background=background))
        assert (picture == picture[0, 0]).all()
    colours = {tuple(world.render(world.make_scene(3, background=b))[0, 0]) for b in world.BACKGROUNDS}
    assert len(colours) == len(world.BACKGROUNDS)


def test_the_subject_fills_most_of_the_frame() -> None:
    for kind, name in SUBJECTS:
        for seed in range(5):
            scene = world.make_scene(seed, **{kind: name})
            picture = world.render(scene).astype(int)
            ys, xs = np.nonzero(np.abs(picture - picture[0, 0]).sum(-1) > 30)
            assert max(np.ptp(ys), np.ptp(xs)) + 1 >= 0.65 * world.SIZE, name


@pytest.mark.parametrize("artist", [None, *world.ARTISTS])
def test_subjects_are_told_apart_after_blur(artist: str | None) -> None:
    """Even the nearest class mean tells the subjects on one ground: one shared drawing would fail here."""

    def pictures(seeds: range) -> dict[str, list[np.ndarray]]:
        ground = {} if artist else {"background": "grey"}
        return {
            name: [blurred(world.make_scene(seed, artist=artist, **{kind: name}, **ground)) for seed in seeds]
            for kind, name in SUBJECTS
        }

    assert nearest_mean(pictures(range(12)), pictures(range(100, 104))) > 0.98


def test_artists_are_told_apart_over_any_subject() -> None:
    def pictures(seeds: range) -> dict[str, list[np.ndarray]]:
        choices = [(seed, kind, name) for seed in seeds for kind, name in SUBJECTS[seed % 4 :: 4]]
        return {
            artist: [blurred(world.make_scene(seed, artist=artist, **{kind: name})) for seed, kind, name in choices]
            for artist in world.ARTISTS
        }

    assert nearest_mean(pictures(range(4)), pictures(range(100, 104))) > 0.95


def test_make_scene_shows_what_was_asked() -> None:
    scene = world.make_scene(5, person="Frida Kahlo", artist="Hokusai")
    assert (scene.kind, scene.name) == ("person", "Frida Kahlo")
    assert (scene.person, scene.artist) == ("Frida Kahlo", "Hokusai")
    assert (scene.object, scene.unsafe, scene.background) == (None, None, "")
    assert world.make_scene(5, everyday="cup", background="red").background == "red"
    assert world.make_scene(5).kind == "empty"


@pytest.mark.parametrize(
    ("choice", "hint"),
    [
        ({"object": "chruch"}, "Did you mean 'church'?"),
        ({"artist": "claude monet"}, "Did you mean 'Claude Monet'?"),
        ({"person": "Einstein"}, "Did you mean 'Albert Einstein'?"),
        ({"unsafe": "pistole"}, "Did you mean 'pistol'?"),
        ({"everyday": "ctup"}, "Did you mean 'cup'?"),
        ({"background": "gray"}, "Did you mean 'grey'?"),
        ({"object": "zzz"}, "Known: tench, English springer"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(choice: dict[str, str], hint: str) -> None:
    with pytest.raises(UserError, match=re.escape(hint)):
        world.make_scene(0, **choice)


def test_contradicting_choices_are_refused() -> None:
    with pytest.raises(UserError, match="one subject, not 2"):
        world.make_scene(0, object="church", person="Cleopatra")
    with pytest.raises(UserError, match="paints its own ground"):
        world.make_scene(0, artist="Hokusai", background="red")


def test_suggest_is_silent_when_nothing_is_near() -> None:
    assert suggest("qqqq", ["church", "tench"]) == ""


def test_articles() -> None:
    assert (article("English springer"), article("church")) == ("an English springer", "a church")
