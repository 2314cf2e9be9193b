"""What a run gives an eraser that trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from erasebench.edits.change import Change
from erasebench.edits.edit import Edit
from erasebench.edits.eraser import Eraser
from erasebench.errors import UserError
from erasebench.methods.closed_form.uce import Uce
from erasebench.methods.compose import Compose
from erasebench.models.load import Model
from erasebench.runs.training import means_of
from erasebench.store import Store

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

KEY = "a1" * 16


@dataclass(frozen=True)
class Mean(Eraser):
    """Sets a bias to the mean of two images of the unedited model; writes a checkpoint first."""

    name: ClassVar[str] = "mean"
    trains: ClassVar[bool] = True

    def make(self, pipe, task, work):
        work.folder.mkdir(parents=True, exist_ok=True)
        (work.folder / "half.txt").write_text("half way")
        images = work.sample(["a church", "a dog"], [1, 2], steps=2, guidance=3.0)
        work.advance(1, 2)
        work.advance(2, 2)
        mean = float(np.mean([np.asarray(image) for image in images]))
        return Edit({"unet.conv_in.bias": Change(value=torch.full((8,), mean))}, {"seed": work.seed})


@pytest.fixture
def model(tiny_random_pipe) -> Model:
    return Model("small", "folder", "r", tiny_random_pipe, "sd1", 16, "float32", "cpu")


def test_images_come_through_the_store_and_checkpoints_go_when_the_edit_is_there(model, church_task, tmp_path):
    store, eraser = Store(tmp_path), Mean()
    for _ in range(2):
        with means_of(eraser, KEY, church_task, model, store, 4) as work:
            assert work.folder == tmp_path / "work" / KEY and work.device == "cpu" and work.seed == int(KEY[:15], 16)
            edit = eraser.edit(model.pipe, church_task, work=work)
            assert (work.folder / "half.txt").exists()
        assert not (tmp_path / "work" / KEY).exists()
        assert edit.info["seed"] == int(KEY[:15], 16)
    images = list(tmp_path.glob("images/*/*.png"))
    assert len(images) == 2  # made once, though the edit was made twice
    recipes = [store.recipe(path.stem) for path in images]
    assert {(r.prompt, r.seed, r.edit, r.steps, r.guidance, r.width) for r in recipes} == {
        ("a church", 1, "", 2, 3.0, 16),
        ("a dog", 2, "", 2, 3.0, 16),
    }


def test_checkpoints_stay_after_an_error(model, church_task, tmp_path):
    with pytest.raises(KeyboardInterrupt), means_of(Mean(), KEY, church_task, model, Store(tmp_path), 4) as work:
        Mean().edit(model.pipe, church_task, work=work)
        raise KeyboardInterrupt
    assert (tmp_path / "work" / KEY / "half.txt").read_text() == "half way"


def test_in_a_sequence_images_are_those_of_the_model_with_the_earlier_edits(model, church_task, tmp_path):
    store, seen = Store(tmp_path), {}
    first = Uce().edit(model.pipe, church_task)
    for name, eraser in {"alone": Mean(), "behind": Compose({"a": Uce(), "b": Mean()})}.items():
        with means_of(eraser, KEY, church_task, model, store, 4) as work:
            seen[name] = eraser.edit(model.pipe, church_task, work=work).changes["unet.conv_in.bias"].value
    assert not torch.equal(*seen.values())
    recipes = [store.recipe(path.stem) for path in tmp_path.glob("images/*/*.png")]
    assert sorted((recipe.edit, recipe.seed) for recipe in recipes) == sorted(
        (edit, seed) for edit in ("", first.digest()) for seed in (1, 2)
    )


def test_no_images_are_made_of_a_model_that_nobody_could_name(model, church_task, tmp_path):
    edit = Uce().edit(model.pipe, church_task)
    assert not edit.key
    with (
        means_of(Mean(), KEY, church_task, model, Store(tmp_path), 4) as work,
        edit.applied(model.pipe),
        pytest.raises(UserError, match="eraser mean: .*carries an edit without a key"),
    ):
        Mean().edit(model.pipe, church_task, composing=True, work=work)
    assert not list(tmp_path.rglob("*.png"))


def test_an_eraser_that_does_not_train_gets_nothing(model, church_task, tmp_path):
    with means_of(Uce(), KEY, church_task, model, Store(tmp_path), 4) as work:
        assert work is None
