"""The safety checker turns images black, by the rule of diffusers, and only where images are finished."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from checker_helpers import CLIP, save_checker, text_embeddings
from guard_helpers import (
    LEVELS,
    check_alone_as_in_a_batch,
    check_leaves_nothing_and_comes_back,
    judged,
    pictures,
    recipes,
)
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessor, CLIPModel

from erasebench.commands.prefetch import prefetch
from erasebench.concepts import Concept, ErasureTask
from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.images.generate import _filtered
from erasebench.methods.closed_form.uce import Uce
from erasebench.methods.compose import Compose
from erasebench.methods.guards.safety_checker import BlackImages, SafetyChecker, checker_files, load_checker
from erasebench.run import run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

WEAPONS = ("a photo of a knife", "a photo of a pistol", "a photo of a bomb")
NUDITY = ErasureTask((Concept("nudity", "unsafe"),))
THRESHOLD = 0.57
"""Of the cosine of the embedded CLIP between a weapon's image (0.63 and more) and text; a rifle and a pistol have 0.5."""


@pytest.fixture(scope="module")
def weapons(tmp_path_factory):
    """The folder of a checker that sees weapons."""
    return save_checker(tmp_path_factory.mktemp("weapons"), WEAPONS, THRESHOLD)


def guard(folder) -> SafetyChecker:
    return SafetyChecker(str(folder), None)


def seen_by(folder, pipe, images: np.ndarray) -> list[bool]:
    """Which images are black afterwards; the others are as they were."""
    hook = BlackImages({"checker": str(folder), "revision": None, "sha256": guard(folder)._sha256})
    with hook.installed(pipe):
        made = hook.images(pipe, images, [])
    assert made.shape == images.shape and made.dtype == images.dtype
    black = [not image.any() for image in made]
    assert all(dark or (image == before).all() for dark, image, before in zip(black, made, images, strict=True))
    return black


def noise(count: int) -> np.ndarray:
    """Images of blocks of colour, which CLIP tells apart."""
    small = np.random.default_rng(0).random((count, 4, 4, 3), dtype=np.float32)
    return small.repeat(16, axis=1).repeat(16, axis=2)


def cosines(images: np.ndarray, texts) -> np.ndarray:
    clip, extractor = CLIPModel.from_pretrained(CLIP), CLIPImageProcessor.from_pretrained(CLIP)
    pictures = [Image.fromarray((image * 255).round().astype(np.uint8)) for image in images]
    with torch.no_grad():
        rows = clip.visual_projection(
            clip.vision_model(extractor(pictures, return_tensors="pt").pixel_values).pooler_output
        )
    rows, other = rows.double().numpy(), text_embeddings(texts).double().numpy()
    return rows @ other.T / np.linalg.norm(rows, axis=1, keepdims=True)


def test_an_image_is_black_where_a_concept_is_nearer_than_its_threshold_and_special_care_lowers_it(
    tiny_random_pipe, tmp_path
):
    images = noise(24)
    texts, special = ("a church", "a dog"), ("a boat",)
    near, care = cosines(images, texts), cosines(images, special)
    # Thresholds between the images, so that rounding decides nothing.
    order = np.sort(near.max(axis=1))
    gaps = np.diff(order)
    threshold = float(order[np.argmax(gaps[6:18]) + 6] + gaps[6:18].max() / 2)
    care_order = np.sort(care[:, 0])
    limit = float((care_order[11] + care_order[12]) / 2)
    folder = save_checker(tmp_path / "c", texts, threshold, special, limit)
    expected = []
    for concepts, one in zip(near, care, strict=True):
        lower = 0.01 if any(round(x - limit, 3) > 0 for x in one) else 0.0
        expected.append(any(round(x - threshold + lower, 3) > 0 for x in concepts))
    assert seen_by(folder, tiny_random_pipe, images) == expected
    assert 0 < sum(expected) < len(expected)
    bare = [any(round(x - threshold, 3) > 0 for x in concepts) for concepts in near]
    assert seen_by(save_checker(tmp_path / "d", texts, threshold), tiny_random_pipe, images) == bare


def test_special_care_lowers_the_other_thresholds_by_a_hundredth(tiny_random_pipe, tmp_path):
    images = noise(1)
    near = cosines(images, ["a church"])[0, 0]
    black = []
    for number, (above, limit) in enumerate([(0.005, 2.0), (0.005, -2.0), (0.015, -2.0), (-0.005, 2.0)]):
        folder = save_checker(tmp_path / str(number), ["a church"], float(near) + above, ["a boat"], limit)
        black += seen_by(folder, tiny_random_pipe, images)
    assert black == [False, True, False, True]


def test_files_as_the_hub_has_them_are_read_and_what_is_no_checker_is_refused(weapons, tmp_path):
    """Weights of Stable Diffusion 1.x have the names of an older transformers, and a buffer that is none now."""
    old = tmp_path / "old"
    shutil.copytree(weapons, old)
    place = old / "safety_checker" / "model.safetensors"
    weights = load_file(place)
    renamed = {name.replace("vision_model.", "vision_model.vision_model.", 1): w for name, w in weights.items()}
    renamed["vision_model.vision_model.embeddings.position_ids"] = torch.arange(65)[None]
    save_file(renamed, place, metadata={"format": "pt"})
    ours, theirs = (load_checker(checker_files(str(folder), None))[0].state_dict() for folder in (weapons, old))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)

    del weights["visual_projection.weight"]
    save_file(weights, place, metadata={"format": "pt"})
    with pytest.raises(UserError, match="visual_projection.weight is in no file of it"):
        load_checker(checker_files(str(old), None))
    place.write_bytes(b"none")
    with pytest.raises(UserError, match="no safety checker of Stable Diffusion"):
        load_checker(checker_files(str(old), None))
    place.unlink()
    (place.parent / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(UserError, match="old has no safety_checker/model.safetensors"):
        guard(old).key("", NUDITY)


def test_the_key_is_of_the_files_and_another_checker_under_the_same_name_is_refused(
    weapons, tiny_random_pipe, tmp_path
):
    moved = tmp_path / "moved"
    shutil.copytree(weapons, moved)
    assert guard(weapons).key("m", NUDITY) == guard(moved).key("m", NUDITY)
    edit = guard(moved).edit(tiny_random_pipe, NUDITY)
    config = moved / "safety_checker" / "config.json"
    config.write_text(config.read_text() + " ")
    assert guard(weapons).key("m", NUDITY) != guard(moved).key("m", NUDITY)
    with (
        pytest.raises(UserError, match="moved is not the checker that the edit was made with"),
        edit.applied(tiny_random_pipe),
    ):
        pass


def test_what_is_not_here_and_other_kinds_are_refused_by_name(church_task, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="safety_checker: .* it cannot erase church .kind object.; it is for unsafe"):
        SafetyChecker().key("", church_task)
    with pytest.raises(
        UserError, match="nobody/none is not in the Hub's cache .*erasebench prefetch method=safety_checker"
    ):
        SafetyChecker("nobody/none").key("", NUDITY)
    with pytest.raises(UserError, match="method.checker=/no/such/folder: no such folder, and no Hub id"):
        SafetyChecker("/no/such/folder").key("", NUDITY)
    store = tmp_path / "results"
    config = [
        "method=safety_checker",
        "task=object",
        "task.erase=[church]",
        "metric=[]",
        f"store.dir={store}",
        "device=cpu",
    ]
    with pytest.raises(UserError, match="cannot erase church"):
        run(compose(config))
    assert not list(store.rglob("*.png"))
    assert prefetch(["method=safety_checker", "method.checker=nobody/none", "task=nudity"]) == 1


def test_an_image_that_is_none_is_not_hidden_by_black(tiny_random_pipe, tmp_path):
    folder = save_checker(tmp_path, ["a church"], -2.0)
    hook = BlackImages({"checker": str(folder), "revision": None, "sha256": guard(folder)._sha256})
    images = noise(3)
    images[0, 0, 0, 0], images[1, 0, 0, 0] = np.nan, 1.5
    with hook.installed(tiny_random_pipe):
        made = _filtered(tiny_random_pipe, images, [], [hook])
    assert np.array_equal(made[:2], images[:2], equal_nan=True) and not made[2].any()


def test_in_a_batch_as_alone_and_nothing_is_left(tiny_random_pipe, tmp_path):
    pipe = tiny_random_pipe
    wanted = recipes(pipe, 4, edit="")
    near = cosines(pictures(pipe, None, wanted, tmp_path / "plain") / 255, ["a church"])[:, 0]
    middle = float(np.sort(near)[1:3].mean())
    edit = guard(save_checker(tmp_path / "some", ["a church"], middle)).edit(pipe, NUDITY)
    made = pictures(pipe, edit, recipes(pipe, 4), tmp_path / "made")
    assert [not image.any() for image in made] == [x > middle for x in near]
    edit = guard(save_checker(tmp_path / "all", ["a church"], -2.0)).edit(pipe, NUDITY)
    check_alone_as_in_a_batch(pipe, edit, tmp_path)
    check_leaves_nothing_and_comes_back(pipe, edit, tmp_path)


def test_one_that_sees_nothing_leaves_images_and_it_goes_with_an_edit_of_the_weights(tiny_random_pipe, tmp_path):
    pipe = tiny_random_pipe
    blind = guard(save_checker(tmp_path, ["a church"], 2.0))
    ours = pictures(pipe, blind.edit(pipe, NUDITY), recipes(pipe, 3), tmp_path / "a")
    assert np.abs(ours - pictures(pipe, None, recipes(pipe, 3, edit=""), tmp_path / "b")).max() <= LEVELS
    both = Compose({"one": Uce(), "two": blind}).edit(pipe, NUDITY)
    edited = pictures(pipe, Uce().edit(pipe, NUDITY), recipes(pipe, 3), tmp_path / "c")
    assert np.abs(pictures(pipe, both, recipes(pipe, 3), tmp_path / "d") - edited).max() <= LEVELS
    with pytest.raises(UserError, match="safety_checker and safety_checker both act on the finished images"):
        Compose({"one": blind, "two": blind}).edit(pipe, NUDITY)


def test_by_the_public_command_a_checker_of_weapons_hides_them_and_nothing_else(weapons, tmp_path):
    few = ("task=unsafe", "task.erase=[knife,pistol,bomb]", "task.keep.object=[church,spoon,bowling ball]")
    seen = judged("safety_checker", tmp_path, *few, f"method.checker={weapons}", "method.revision=null")
    assert seen["none", "erase"] >= 0.9 and seen["guard", "erase"] <= 0.1
    assert seen["guard", "retain"] == seen["none", "retain"]
