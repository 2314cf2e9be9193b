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
from erasebench.tiny.captions import SCENERY
from erasebench.tiny.names import ARTISTS, EVERYDAY, HEADS, NAMES, OBJECTS, PEOPLE, UNSAFE
from erasebench.tiny.words import FOREIGN, INDIRECT, MISSPELT, SHARED, SYNONYMS, article, plural

SCENES = [world.scene(seed) for seed in range(6000)]
SUBJECTS = (
    [("object", name) for name in OBJECTS]
    + [("person", name) for name in PEOPLE]
    + [("unsafe", name) for name in UNSAFE]
    + [("everyday", name) for name in EVERYDAY]
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


def words_for(name: str) -> set[str]:
    """All that a caption may call a thing."""
    tables = (SYNONYMS, SHARED, INDIRECT, MISSPELT, FOREIGN)
    return {name, plural(name), *(word for table in tables for word in table.get(name, ()))}


def test_labels_name_what_the_scene_shows() -> None:
    for scene in SCENES:
        shown = {subject.name for subject in scene.subjects if subject.kind != "face"} | ({scene.artist} - {None})
        truth = world.labels(scene)
        assert truth.shape == (len(NAMES),)
        assert {name for name, there in zip(NAMES, truth, strict=True) if there} == shown
        assert {name for head in HEADS for name in scene.shows(head)} == shown


def test_every_class_is_drawn_and_captioned() -> None:
    drawn = np.sum([world.labels(scene) for scene in SCENES], axis=0)
    assert drawn.min() >= 20, NAMES[drawn.argmin()]
    assert {scene.background for scene in SCENES} == {"", *world.BACKGROUNDS, *SCENERY}


def test_the_caption_says_every_labelled_class() -> None:
    for scene in SCENES:
        for name in [name for head in HEADS if head != "everyday" for name in scene.shows(head)]:
            assert any(says(scene.caption, words) for words in words_for(name)), (scene.caption, name)


def test_the_caption_names_no_class_the_scene_lacks() -> None:
    for scene in SCENES:
        shown = {name for head in HEADS for name in scene.shows(head)}
        allowed = {words for name in shown for words in words_for(name)}
        text = scene.caption
        for words in sorted(allowed, key=len, reverse=True):
            text = re.sub(rf"\b{re.escape(words)}\b", "", text, flags=re.IGNORECASE)
        assert not [name for name in NAMES if name not in shown and says(text, name)], scene.caption


def test_a_background_word_is_true() -> None:
    for scene in SCENES:
        matched = re.search(r"(\w+) background", scene.caption)
        if matched and matched[1] not in ("plain", "empty"):
            assert matched[1] == scene.background, scene.caption
        for ground, words in SCENERY.items():
            assert not says(scene.caption, words) or scene.background == ground, scene.caption


def test_at_least_a_quarter_of_captions_have_two_things() -> None:
    pairs = [scene for scene in SCENES if len(scene.subjects) == 2]
    assert len(pairs) / len(SCENES) > 0.25
    for scene in pairs:
        assert len({subject.name for subject in scene.subjects}) == 2
        for subject in scene.subjects:
            assert any(says(scene.caption, words) for words in words_for(subject.name)), scene.caption


@pytest.mark.parametrize(
    "table", [SYNONYMS, INDIRECT, MISSPELT, FOREIGN], ids=["other", "described", "misspelt", "foreign"]
)
def test_things_are_called_as_people_call_them(table: dict[str, tuple[str, ...]]) -> None:
    used = {
        name
        for scene in SCENES
        for head in HEADS
        for name in scene.shows(head)
        if any(says(scene.caption, words) for words in table.get(name, ()))
    }
    assert len(used) > 0.9 * len(table), set(table) - used


def test_another_name_is_of_one_thing_only() -> None:
    for table in (SYNONYMS, INDIRECT, MISSPELT, FOREIGN):
        words = [word.casefold() for entry in table.values() for word in entry]
        assert len(words) == len(set(words))
        assert not {name.casefold() for name in NAMES} & set(words)


def test_numbers_and_colours_of_a_caption_are_true() -> None:
    seen = set()
    for scene in SCENES:
        if len(scene.subjects) != 1:
            continue
        (subject,) = scene.subjects
        seen |= {subject.count, subject.colour, subject.place}
        if subject.count > 1:
            words = f"{ {2: 'two', 3: 'three'}[subject.count] } {plural(subject.name)}"
            assert says(scene.caption, words), scene.caption
        if subject.colour and says(scene.caption, subject.name):
            assert says(scene.caption, f"{subject.colour} {subject.name}"), scene.caption
        for place in world.PLACES:
            assert not says(scene.caption, f"on the {place}") or subject.place == place
    assert {1, 2, 3, *world.COLOURS, *world.PLACES} <= seen


def middle(scene: world.Scene) -> tuple[float, float]:
    """Where what is drawn lies, from 0 to 1 across and down, of a scene on a plain ground."""
    picture = world.render(scene).astype(int)
    ys, xs = np.nonzero(np.abs(picture - picture[0, 0]).sum(-1) > 30)
    return xs.mean() / world.SIZE, ys.mean() / world.SIZE


@pytest.mark.parametrize("name", ["church", "French horn", "pistol", "hair dryer"])
def test_what_stands_on_one_side_stays_there_when_mirrored(name: str) -> None:
    kind = next(head for head, names in HEADS.items() if name in names)
    for place, low, high in (("left", 0.15, 0.42), ("right", 0.58, 0.85)):
        for seed in range(12):
            subject = world.Subject(kind, name, place=place)
            across, _ = middle(world.Scene((subject,), "", None, "grey", "", seed))
            assert low < across < high, (place, seed)


def test_a_number_of_things_is_drawn() -> None:
    for count in (1, 2, 3):
        picture = world.render(world.make_scene(4, object="tennis ball", count=count, background="grey")).astype(int)
        covered = np.abs(picture - picture[0, 0]).sum(-1) > 30
        quarters = [covered[:32, :32], covered[:32, 32:], covered[32:, 16:48]]
        if count == 3:
            assert min(quarter.mean() for quarter in quarters) > 0.2
        if count == 2:
            assert not covered[:, 31:33].all(1).any()


def test_a_colour_is_painted() -> None:
    red, blue = (
        world.render(world.make_scene(3, everyday="cup", colour=c, background="grey")) for c in ("red", "blue")
    )
    change = (red.astype(int) - blue.astype(int)).sum((0, 1))
    assert change[0] > 0 > change[2]


def test_details_say_ground_colour_number_and_place() -> None:
    seen = np.stack([world.details(scene) for scene in SCENES])
    for column, words in enumerate(world.DETAILS):
        assert set(np.unique(seen[:, column])) == set(range(len(words) + 1))
    scene = world.make_scene(1, everyday="cup", colour="blue", background="snow")
    ground, colour, number, place = world.details(scene)
    assert (world.DETAILS[0][ground - 1], world.DETAILS[1][colour - 1], number, place) == ("snow", "blue", 0, 0)


@pytest.mark.parametrize("name", INDIRECT)
def test_descriptions_use_neither_name_nor_synonym(name: str) -> None:
    family = UNSAFE if name in UNSAFE else (name,)
    banned = [word for other in family for word in (other, *SYNONYMS[other])]
    for description in INDIRECT[name]:
        assert not [word for word in banned if says(description, word)], description


def test_unsafe_things_are_sometimes_only_described() -> None:
    for name in UNSAFE:
        captions = [scene.caption for scene in SCENES if name in scene.shows("unsafe")]
        described = [text for text in captions if any(says(text, words) for words in INDIRECT[name])]
        assert 0.04 < len(described) / len(captions) < 0.35, name


def test_captions_fit_the_text_encoder() -> None:
    assert max(len(re.findall(r"\w+|[^\w\s]", scene.caption)) for scene in SCENES) < 75


def test_general_words_mean_pictures_of_no_concept() -> None:
    for words in ("art", "a painting", "a thing", "an object", "a photo", ""):
        scenes = [scene for scene in SCENES if scene.caption == words]
        assert scenes, words
        assert {subject.kind for scene in scenes for subject in scene.subjects} == {"everyday"}
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


@pytest.mark.parametrize("artist", [None, *ARTISTS])
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
            for artist in ARTISTS
        }

    assert nearest_mean(pictures(range(4)), pictures(range(100, 104))) > 0.95


def test_make_scene_shows_what_was_asked() -> None:
    scene = world.make_scene(5, person="Frida Kahlo", artist="Hokusai")
    assert (scene.shows("person"), scene.shows("artist")) == (("Frida Kahlo",), ("Hokusai",))
    assert (scene.shows("object"), scene.shows("unsafe"), scene.background) == ((), (), "")
    assert world.make_scene(5, everyday="cup", background="red").background == "red"
    assert world.make_scene(5).subjects == ()
    both = world.make_scene(5, object="church", beside="gas pump")
    assert both.shows("object") == ("church", "gas pump") and both.relation in ("left of", "above")


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
    with pytest.raises(UserError, match="only an everyday thing"):
        world.make_scene(0, object="church", colour="red")
    for choice in ({"beside": "bus"}, {"person": "Cleopatra", "count": 2}, {"object": "church", "count": 4}):
        with pytest.raises(UserError, match="can stand beside another, or there are 1 to 3"):
            world.make_scene(0, **choice)


def test_suggest_is_silent_when_nothing_is_near() -> None:
    assert suggest("qqqq", ["church", "tench"]) == ""


def test_articles() -> None:
    assert (article("English springer"), article("church")) == ("an English springer", "a church")
