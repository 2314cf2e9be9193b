"""Several erasers in one edit, where some of them train or act while images are sampled."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from training_helpers import assert_resumes, numbers_of, shrunk, work_in

import erasebench.notebook as eb
from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.methods.adapters.spm import SpmUce
from erasebench.methods.by_concept import ByConcept
from erasebench.methods.closed_form.mace import MaceCfr
from erasebench.methods.closed_form.uce import Uce
from erasebench.methods.compose import Compose
from erasebench.methods.guards.negative_prompt import NegativePrompt, NegativeText
from erasebench.methods.guards.safree import Safree
from erasebench.methods.guards.sld import Sld
from erasebench.methods.trained.ablation import Ablation
from erasebench.methods.trained.esd import Esd
from erasebench.methods.trained.few_shot import FewShot
from erasebench.methods.trained.fmn import ForgetMeNot
from erasebench.methods.trained.mace import Mace
from erasebench.methods.trained.receler import Receler
from erasebench.methods.trained.salun import SalUn
from erasebench.methods.trained.spm import Spm
from erasebench.models.load import Model
from erasebench.run import run
from erasebench.runs.training import means_of
from erasebench.store import Store

WITH_IMAGES = {
    "ablation": Ablation,
    "fmn": ForgetMeNot,
    "few_shot": FewShot,
    "salun": SalUn,
    "mace": lambda: Mace(refinement=MaceCfr(templates=("a photo of {}", "{} at night"))),
}
"""Trainings that take images of the model."""


@pytest.fixture
def model(tiny_random_pipe) -> Model:
    return Model("small", "folder", "r", tiny_random_pipe, "sd1", 16, "float32", "cpu")


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_in_a_sequence_a_training_takes_the_model_as_earlier_edits_left_it(model, church_task, tmp_path, name):
    """Beside the same by hand: the first edit is put on, then the second is trained."""
    task, store = church_task, Store(tmp_path)
    second = shrunk(WITH_IMAGES[name](), iterations=1, images=1)
    both = Compose({"first": Uce(), "second": second})
    edit = eb.erase(model, both, task, store=tmp_path)
    first = Uce().edit(model.pipe, task)
    on_it = replace(first, key=first.digest())
    with means_of(both, "a" * 32, task, model, store, 8) as work, on_it.applied(model.pipe):
        seed = int(both.key(model.identity, task)[:15], 16)
        by_hand = second.edit(model.pipe, task, composing=True, work=replace(work, seed=seed).part(1))
    with edit.applied(model.pipe):
        there = {change: weight.detach().clone() for change, weight in edit.check_fits(model.pipe).items()}
    with on_it.applied(model.pipe), by_hand.applied(model.pipe):
        weights = by_hand.check_fits(model.pipe)
        assert weights and all(torch.allclose(there[one], weight, atol=1e-6) for one, weight in weights.items())
    edits = {store.recipe(path.stem).edit for path in tmp_path.glob("images/*/*.png")}
    assert edits == {first.digest()}


def test_by_the_command_a_training_on_images_comes_behind_another_edit(tmp_path):
    done = run(compose([
        "method=compose", "method@method.parts.second=ablation", "method.parts.second.iterations=1",
        "method.parts.second.images=2", "method.parts.second.image_steps=2", "task=object", "task.erase=[church]", "metric=[judge]",
        "prompts.per_erased=1",
        "prompts.per_paraphrased=0", "prompts.per_near=0", "prompts.per_retained=0", "prompts.general=0",
        "protocol.steps=2", "device=cpu",
        f"store.dir={tmp_path}",
    ]))  # fmt: skip
    assert done is not None and not done.problems
    assert set(done.measured.eraser) > {"none"}


def test_a_training_behind_another_goes_on_where_it_was_killed(tiny_random_pipe, church_task, tmp_path):
    eraser = Compose({"first": Uce(), "second": shrunk(Esd())})
    assert_resumes(eraser, tiny_random_pipe, church_task, tmp_path, 2, 3)


def test_no_two_trainings_of_an_edit_draw_the_same_numbers(tiny_random_pipe, church_task, artists_task, tmp_path):
    work = work_in(tmp_path)
    esd = shrunk(Esd(), train="x-strict")
    one, other = (esd.edit(tiny_random_pipe, church_task, work=work.part(number)) for number in (0, 1))
    assert any(not torch.equal(tensor, numbers_of(other)[name]) for name, tensor in numbers_of(one).items())
    seeds = {
        work.seed,
        *(work.part(i).seed for i in range(50)),
        *(work.part(i).part(j).seed for i in (0, 1) for j in (0, 1)),
    }
    assert len(seeds) == 55
    ordered = sorted(seeds)
    assert (
        min(b - a for a, b in zip(ordered, ordered[1:], strict=False)) > 10**6
    )  # no step has the numbers of another's


@pytest.mark.parametrize(
    "first", [NegativePrompt(), SpmUce(), Sld(), Safree(), Spm(iterations=1), Receler(iterations=1)]
)
def test_a_training_behind_what_acts_while_sampling_is_refused_before_any_work(first):
    with pytest.raises(
        UserError, match=rf"parts.second \(esd\) trains, .*parts.first \({first.name}\) .*put parts.second first"
    ):
        Compose({"first": first, "second": Esd()})
    Compose({"first": Esd(), "second": first})
    Compose({"first": first, "second": Esd()}, how="sum")
    Compose({"first": first, "second": Uce()})


def test_an_eraser_by_concept_acts_and_checks_as_the_one_that_it_chooses(tiny_random_pipe, church_task):
    chosen = ByConcept(
        {"a": Uce(anchor="church"), "b": NegativePrompt(), "c": NegativePrompt("x")}, "b", {"church": "a"}
    )
    assert chosen.acts() == (NegativeText,)
    with pytest.raises(UserError, match="is also the anchor"):
        chosen.check(tiny_random_pipe, church_task)


def test_parts_that_want_the_same_place_are_refused_before_any_work():
    with pytest.raises(UserError, match="negative_prompt and negative_prompt both act on the negative prompt"):
        Compose({"first": NegativePrompt(), "second": Safree(variant="released")})
    with pytest.raises(UserError, match="both act on a third pass"):
        Compose({"first": Sld(), "second": Compose({"inner": Safree()})}, how="sum")
