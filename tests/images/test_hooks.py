"""Hooks act while images are sampled, on each image as if it were alone, and are gone afterwards."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checker_helpers import save_checker

from erasebench.edits.edit import Edit
from erasebench.edits.hook import _KINDS, Hook, hook_class, hooks_on, put_on
from erasebench.errors import UserError
from erasebench.images.generate import generate
from erasebench.images.scheduler import scheduler_identity
from erasebench.methods.adapters.receler import PARTS, RecelerErasers, cross_attention
from erasebench.methods.adapters.spm import Membrane
from erasebench.methods.guards.adavd import ErasedValues, JoinedValues
from erasebench.methods.guards.irece import Disturbed
from erasebench.methods.guards.negative_prompt import NegativeText
from erasebench.methods.guards.safety_checker import BlackImages, checker_files, checksum
from erasebench.methods.guards.safree import FilteredText, Reattended
from erasebench.methods.guards.sld import PRESETS, SafeGuidance
from erasebench.models.targets import key_value_weights
from erasebench.recipe import Recipe
from erasebench.store import Store

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

LEVELS = 1
"""How far a pixel may move with the batch size, in levels of 255."""


class Everything(Hook):
    """Changes whatever a hook can change, for each image by its own recipe."""

    name = "test_everything"
    passes = 1

    def __init__(self):
        super().__init__({"scale": 0.3}, {"shift": torch.full((4, 1, 1), 0.1)})
        self.calls: list[str] = []

    @contextlib.contextmanager
    def installed(self, pipe):
        self.calls.append("in")
        try:
            yield
        finally:
            self.calls.append("out")

    def texts(self, pipe, inputs, batch):
        self.calls.append(f"texts {len(batch)}")
        strength = torch.tensor([self.settings["scale"] * len(recipe.prompt) for recipe in batch])
        return {**inputs, "negative_prompt_embeds": inputs["prompt_embeds"] * strength[:, None, None]}

    def start(self, pipe, latents, batch):
        self.calls.append("start")
        return latents + self.tensors["shift"] * torch.tensor([float(r.seed % 7) for r in batch])[:, None, None, None]

    def on_step(self, pipe, step, timestep, tensors):
        self.calls.append(f"step {step}")
        return {"latents": tensors["latents"] * 0.9}

    def images(self, pipe, images, batch):
        self.calls.append("images")
        return images * 0.9


@pytest.fixture
def model(tiny_random_pipe) -> SimpleNamespace:
    return SimpleNamespace(name="small", revision="random", pipe=tiny_random_pipe)


def recipes(model, count: int, scheduler: str = "DDIM", **changes) -> list[Recipe]:
    scheduler, config = scheduler_identity(model.pipe, scheduler, {})
    values = {
        "model": model.name,
        "revision": model.revision,
        "edit": "",
        "negative_prompt": "",
        "steps": 3,
        "guidance": 4.0,
        "width": 16,
        "height": 16,
        "scheduler": scheduler,
        "scheduler_config": config,
        "dtype": "float32",
        **changes,
    }
    prompts = ["a cat", "a church by monet", "", "two dogs"]
    return [Recipe(prompt=prompts[i % 4], seed=2**40 + i, **values) for i in range(count)]


def pixels(store: Store, wanted: list[Recipe]) -> np.ndarray:
    return np.stack([np.asarray(store.image(recipe.key), dtype=int) for recipe in wanted])


def test_every_part_of_a_hook_is_called_in_order_and_it_is_taken_out(model, tmp_path):
    hook = Everything()
    generate(model, recipes(model, 2), Store(tmp_path), batch_size=8, hooks=[hook])
    assert hook.calls == ["in", "texts 2", "start", "step 0", "step 1", "step 2", "images", "out"]


def membrane(pipe) -> Membrane:
    """Adapters of random directions, strong enough to be seen in a random network."""
    tensors = {}
    for i, (name, weight) in enumerate(key_value_weights(pipe).items()):
        generator = torch.Generator().manual_seed(i)
        tensors[f"up.{name}"] = torch.randn(2, weight.shape[0], generator=generator)
        tensors[f"down.{name}"] = torch.randn(2, weight.shape[1], generator=generator)
    return Membrane({"phrases": [["a church", "monet"], ["dogs"]]}, tensors)


def filtered(pipe) -> tuple[dict, dict]:
    """SAFREE's settings and tensors, for a filter that acts on most prompts and for as long as it can."""
    ids = pipe.tokenizer("church", return_tensors="pt").input_ids
    with torch.no_grad():
        return {"alpha": -1.0, "slope": 0.0, "offset": -50.0}, {"concepts": pipe.text_encoder(ids).pooler_output}


def receler(pipe) -> RecelerErasers:
    """Erasers of random numbers, strong enough to be seen in a random network."""
    generator, tensors = torch.Generator().manual_seed(0), {}
    for name, layer in cross_attention(pipe.unet).items():
        width = layer.to_out[0].out_features
        shapes = {"down.weight": (4, width), "down.bias": (4,), "up.weight": (width, 4), "up.bias": (width,)}
        assert set(shapes) == set(PARTS)
        tensors |= {f"{name}.{part}": torch.randn(shape, generator=generator) for part, shape in shapes.items()}
    return RecelerErasers({}, tensors)


def valued(pipe) -> tuple[dict, dict]:
    """AdaVD's settings and tensors, strong enough to be seen in a random network."""
    concepts = torch.randn(2, 24, generator=torch.Generator().manual_seed(0))
    return {"slope": 0.0, "threshold": 0.0, "strength": 20.0}, {"concepts": concepts}


@functools.cache
def black() -> BlackImages:
    """A checker that sees something in every image."""
    folder = save_checker(Path(tempfile.mkdtemp()), ["a church"], -2.0)
    files = checker_files(str(folder), None)
    return BlackImages({"checker": str(folder), "revision": None, "sha256": checksum(files)})


HOOKS = {
    "test_everything": lambda pipe: Everything(),
    "negative_prompt": lambda pipe: NegativeText({"text": "a church"}),
    "spm": membrane,
    "safree": lambda pipe: FilteredText(*filtered(pipe)),
    "safree_reattention": lambda pipe: Reattended(*filtered(pipe)),
    "adavd": lambda pipe: ErasedValues(*valued(pipe)),
    "adavd_joined": lambda pipe: JoinedValues(*valued(pipe)),
    "receler": receler,
    "irece": lambda pipe: Disturbed(
        {"texts": ["a church", "a dog"], "strength": 5.0, "threshold": 0.5, "until": 50, "seed": 0}
    ),
    "safety_checker": lambda pipe: black(),
    "sld": lambda pipe: SafeGuidance({"text": "a church", **PRESETS["max"]}),
}
"""One hook of every kind that there is, by name."""


def test_every_hook_of_ours_is_tried_below():
    hook_class("none of this name, so that all methods are imported")
    ours = {name for name, kind in _KINDS.items() if kind.__module__.startswith("erasebench.methods.")}
    assert ours and ours <= set(HOOKS)


@pytest.mark.parametrize("scheduler", ["DDIM", "EulerAncestralDiscrete"])
@pytest.mark.parametrize("name", HOOKS)
def test_the_batch_does_not_change_an_image_with_a_hook_in_place(name, scheduler, model, tmp_path):
    hook, wanted = HOOKS[name](model.pipe), recipes(model, 5, scheduler=scheduler)
    alone, one, six = Store(tmp_path / "alone"), Store(tmp_path / "one"), Store(tmp_path / "six")
    generate(model, wanted, alone, batch_size=1)
    generate(model, wanted, one, batch_size=1, hooks=[hook])
    generate(model, wanted[::-1], six, batch_size=6, hooks=[hook])
    assert np.abs(pixels(one, wanted) - pixels(six, wanted)).max() <= LEVELS
    for recipe, plain, hooked in zip(wanted, pixels(alone, wanted), pixels(one, wanted), strict=True):
        if not name.startswith("safree"):
            assert np.abs(plain - hooked).max() > 5 * LEVELS
        elif recipe.prompt:  # it filters words, which are a few rows of 77
            assert np.abs(plain - hooked).max() > 0
    # And nothing of it is left.
    again = Store(tmp_path / "again")
    generate(model, wanted, again, batch_size=1)
    assert np.array_equal(pixels(alone, wanted), pixels(again, wanted))


@pytest.mark.parametrize("name", [name for name in HOOKS if name != "test_everything"])
def test_a_hook_comes_back_from_a_file_and_makes_the_same_images(name, model, tmp_path):
    edit = Edit({}, {"method": name}, (HOOKS[name](model.pipe),), "e" * 32)
    again = Edit.load(edit.save(tmp_path / "e.safetensors"))
    (wanted,), stores = recipes(model, 1, edit="e" * 32), [Store(tmp_path / "one"), Store(tmp_path / "two")]
    for one, store in zip([edit, again], stores, strict=True):
        with one.applied(model.pipe):
            generate(model, [wanted], store)
    assert np.array_equal(*(pixels(store, [wanted]) for store in stores))


@pytest.mark.parametrize(("guidance", "sizes"), [(4.0, ["texts 4", "texts 2"]), (1.0, ["texts 3", "texts 3"])])
def test_further_passes_leave_less_room_for_images(model, tmp_path, guidance, sizes):
    # Six fit with one or two rows an image; a third row leaves room for four, a second for three.
    hook = Everything()
    generate(model, recipes(model, 6, guidance=guidance), Store(tmp_path), batch_size=6, hooks=[hook])
    assert [call for call in hook.calls if call.startswith("texts")] == sizes


def test_out_of_memory_halves_the_images_of_a_batch_with_hooks(model, tmp_path, monkeypatch):
    sizes, original = [], type(model.pipe).__call__

    def limited(self, **inputs):
        sizes.append(len(inputs["latents"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("out of memory")
        return original(self, **inputs)

    monkeypatch.setattr(type(model.pipe), "__call__", limited)
    generate(model, recipes(model, 6), Store(tmp_path), batch_size=8, hooks=[Everything()])
    assert sizes == [5, 2, 2, 2]


def test_hooks_on_the_pipe_act_after_those_that_are_given(model, tmp_path):
    first, second = Everything(), Everything()
    order: list[str] = []
    first.texts = lambda pipe, inputs, batch: order.append("given") or inputs
    second.texts = lambda pipe, inputs, batch: order.append("on the pipe") or inputs
    with put_on([second], model.pipe):
        assert hooks_on(model.pipe) == (second,)
        generate(model, recipes(model, 1), Store(tmp_path), hooks=[first])
    assert order == ["given", "on the pipe"]
    assert hooks_on(model.pipe) == ()
    assert second.calls[0] == "in" and second.calls[-1] == "out" and second.calls.count("in") == 1


def test_hooks_are_taken_out_after_an_exception(model, tmp_path, monkeypatch):
    hook = Everything()
    monkeypatch.setattr(hook, "start", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), put_on([hook], model.pipe):
        generate(model, recipes(model, 1), Store(tmp_path))
    assert hook.calls[-1] == "out"
    assert hooks_on(model.pipe) == ()


def test_a_guard_of_the_second_pass_refuses_images_without_one_before_any_image(model, tmp_path):
    class Guard(Everything):
        name = "test_guard"
        second_pass = True

    store = Store(tmp_path)
    with pytest.raises(UserError, match=r"test_guard.*guidance 1.0.*protocol.guidance above 1"):
        generate(model, [*recipes(model, 2), *recipes(model, 1, guidance=1.0)], store, hooks=[Guard()])
    assert not list(store.root.rglob("*.png"))
    generate(model, recipes(model, 1), store, hooks=[Guard()])


def test_two_hooks_of_one_place_are_never_on_a_pipeline_together(model):
    one, two = NegativeText({"text": "a"}), NegativeText({"text": "b"})
    with pytest.raises(UserError, match="negative_prompt and negative_prompt both act on the negative prompt"):
        Edit({}, {"method": "x"}, (one, Everything(), two))
    with (
        put_on([one, Everything()], model.pipe),
        pytest.raises(UserError, match="both act on the negative prompt"),
        put_on([Everything(), two], model.pipe),
    ):
        pass
    assert hooks_on(model.pipe) == ()


def test_hooks_of_an_edit_act_while_it_is_applied(model, tmp_path):
    store, edit = Store(tmp_path), Edit({}, hooks=(Everything(),), key="e" * 32)
    (alone,), (edited,) = recipes(model, 1), recipes(model, 1, edit="e" * 32)
    with edit.applied(model.pipe):
        generate(model, [edited], store)
    generate(model, [alone], store)
    assert np.abs(pixels(store, [alone]) - pixels(store, [edited])).max() > 5 * LEVELS
    assert edit.hooks[0].calls[0] == "in" and edit.hooks[0].calls[-1] == "out"
