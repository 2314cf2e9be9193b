"""Edits of images that are there: inversion against its formula, LEDITS++ as diffusers has it, and the walk of a run."""

from __future__ import annotations

import io
import json
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import LEditsPPPipelineStableDiffusion, UNet2DConditionModel
from metric_helpers import pictures
from rich.console import Console

from erasebench.config.compose import compose
from erasebench.config.editing import Editing
from erasebench.config.protocol import Protocol, shipped
from erasebench.errors import UserError
from erasebench.images.edit_image import SCHEDULERS, check_editable, edit_images, inverted
from erasebench.images.encoded import Texts
from erasebench.images.generate import generate
from erasebench.images.recipes import recipe_maker, source_maker
from erasebench.images.scheduler import make_scheduler
from erasebench.models.load import load_model
from erasebench.recipe import Recipe
from erasebench.run import run
from erasebench.runs.estimate import images_without_a_model
from erasebench.runs.plan import make_plan, prepare
from erasebench.store import Store

LEDITS = {
    "by": "ledits_pp", "prompts": ["a tench"], "steps": 6, "guidance": 8.0, "skip": 0.2, "source_guidance": 1.5,
    "threshold": 0.9, "mask": True,
}  # fmt: skip


@cache
def embedded():
    return load_model("embedded", name="embedded", device="cpu")


def protocol(**editing) -> Protocol:
    given = [f"protocol.editing.{key}={json.dumps(value)}" for key, value in editing.items()]
    return Protocol.from_config(
        compose(["model=embedded", "protocol=embedded_editing", "protocol.steps=6", *given]).protocol
    )


class NamedRow(SimpleNamespace):
    def _replace(self, **changes):
        return NamedRow(**{**vars(self), **changes})


ROW = NamedRow(
    prompt="a tench", source_prompt="a photo of a church", seed=3, negative_prompt="", guidance=None, width=None, height=None
)  # fmt: skip


def source(chosen: Protocol, root) -> tuple[Store, Recipe, Recipe]:
    """A store with the image to be edited, its recipe, and that of its edit."""
    drawn = source_maker(embedded(), chosen)(ROW._replace(prompt=ROW.source_prompt), "")
    edited = recipe_maker(embedded(), chosen)(ROW, "")
    store = Store(root)
    generate(embedded(), [drawn], store)
    return store, drawn, edited


def test_an_edit_is_told_from_what_it_is_an_edit_of() -> None:
    drawn = source_maker(embedded(), protocol())(ROW._replace(prompt=ROW.source_prompt), "")
    plain = recipe_maker(embedded(), shipped("embedded"))(ROW, "")
    assert not {"source", "editing"} & set(plain.to_dict()) and not {"source", "editing"} & set(drawn.to_dict())
    edited = recipe_maker(embedded(), protocol(steps=24))(ROW, "e")
    assert (edited.source, edited.prompt, edited.steps) == (drawn.key, "a tench", 24)
    assert json.loads(edited.editing) == {"by": "ddim", "source_prompt": "a photo of a church"}
    assert Recipe.from_dict(edited.to_dict()) == edited
    other = {
        recipe_maker(embedded(), protocol(**change))(ROW, "e").key for change in ({"steps": 25}, {"guidance": 5.0})
    }
    assert len(other | {edited.key, drawn.key}) == 4


def test_inversion_is_the_formula_of_the_release() -> None:
    """next_step of src/eval_edit.py, in a plain loop."""
    pipe, steps = embedded().pipe, 8
    scheduler = make_scheduler("DDIM", {"timestep_spacing": "leading"}, pipe)
    before, pipe.scheduler = pipe.scheduler, scheduler
    try:
        torch.manual_seed(0)
        latents = torch.randn(2, pipe.unet.config.in_channels, 16, 16) * 0.5
        text = Texts(pipe)(["a photo of a church", "a tench"])[0]
        found = inverted(pipe, latents, text, steps)
        scheduler.set_timesteps(steps)
        alphas, expected = scheduler.alphas_cumprod.double(), latents.double()
        for timestep in scheduler.timesteps.flip(0).tolist():
            earlier = timestep - scheduler.config.num_train_timesteps // steps
            a = alphas[earlier] if earlier >= 0 else scheduler.final_alpha_cumprod.double()
            with torch.no_grad():
                noise = pipe.unet(expected.float(), timestep, encoder_hidden_states=text).sample.double()
            clean = (expected - (1 - a) ** 0.5 * noise) / a**0.5
            expected = alphas[timestep] ** 0.5 * clean + (1 - alphas[timestep]) ** 0.5 * noise
    finally:
        pipe.scheduler = before
    assert found.double() == pytest.approx(expected, abs=2e-3)


def test_drawn_again_under_its_own_prompt_an_image_comes_back(tmp_path) -> None:
    """Without guidance, in many steps; the rest is what the encoder of images loses. Another image is far away."""
    chosen = protocol(steps=40, guidance=1.0)
    store, drawn, _ = source(chosen, tmp_path)
    again = recipe_maker(embedded(), chosen)(ROW._replace(prompt=ROW.source_prompt), "")
    generate(embedded(), [again], store)
    image, back = (np.asarray(store.image(key), dtype=float) for key in (drawn.key, again.key))
    other = source_maker(embedded(), chosen)(ROW._replace(prompt="a photo of a gas pump", seed=9), "")
    generate(embedded(), [other], store)
    assert np.abs(image - back).mean() < 12 < np.abs(image - np.asarray(store.image(other.key), dtype=float)).mean()


@pytest.mark.parametrize("mask", [False, True])
def test_ledits_is_that_of_diffusers_and_leaves_the_network_as_it_was(mask: bool, small_pipe) -> None:
    pipe = small_pipe()
    if mask:  # which is taken from attention at a quarter of the latents' size
        torch.manual_seed(5)
        pipe.unet = UNet2DConditionModel(
            sample_size=16, layers_per_block=1, block_out_channels=(8, 16, 16), norm_num_groups=4, attention_head_dim=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), cross_attention_dim=24,
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        ).eval()  # fmt: skip
    check_editable(pipe, "ledits_pp")
    name, settings = SCHEDULERS["ledits_pp"]
    way = {
        "by": "ledits_pp",
        "source_prompt": "a church",
        "skip": 0.2,
        "source_guidance": 1.5,
        "threshold": 0.9,
        "mask": mask,
    }
    recipe = Recipe(
        model="m", revision="r", edit="", prompt="a tench", negative_prompt="", seed=3, steps=6, guidance=8.0, width=32,
        height=32, scheduler=name, scheduler_config="{}", dtype="float32", source="s", editing=json.dumps(way),
    )  # fmt: skip
    (image,) = pictures(1, 32)
    attention = dict(pipe.unet.attn_processors)
    pipe.scheduler = make_scheduler(name, settings, pipe)
    found = edit_images(pipe, Texts(pipe), [recipe], [image])
    assert pipe.unet.attn_processors == attention, "the same objects, in the same places"
    editor = LEditsPPPipelineStableDiffusion(
        pipe.vae, pipe.text_encoder, pipe.tokenizer, pipe.unet, make_scheduler(name, settings, pipe), None, None,
        requires_safety_checker=False,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    editor.invert(
        image=image,
        source_prompt="a church",
        source_guidance_scale=1.5,
        num_inversion_steps=6,
        skip=0.2,
        generator=generator,
    )
    expected = editor(
        editing_prompt=["a tench"], edit_guidance_scale=8.0, edit_threshold=0.9, use_cross_attn_mask=mask,
        use_intersect_mask=mask, generator=generator, output_type="np",
    ).images  # fmt: skip
    assert found == pytest.approx(expected, abs=1e-4) and np.isfinite(found).all() and found.shape == (1, 32, 32, 3)


def test_what_ledits_cannot_do_is_a_sentence(small_pipe) -> None:
    with pytest.raises(UserError, match="edits latents of 4 channels, and this model has 16.*by=ddim"):
        recipe_maker(embedded(), protocol(**LEDITS))
    pipe = small_pipe()
    pipe.scheduler = make_scheduler(*SCHEDULERS["ledits_pp"], pipe)
    way = {key: LEDITS[key] for key in ("by", "skip", "source_guidance", "threshold", "mask")} | {"source_prompt": ""}
    recipe = Recipe(
        "m", "r", "", "a tench", "", 3, 4, 8.0, 32, 32, "DPMSolverMultistepScheduler", "{}", "float32", source="s",
        editing=json.dumps(way),
    )  # fmt: skip
    with pytest.raises(UserError, match="set protocol.editing.mask=false"):
        edit_images(pipe, Texts(pipe), [recipe], pictures(1, 32))


def test_a_run_edits_the_unedited_models_images_with_every_edit(tmp_path) -> None:
    overrides = [
        "task=object", "task.erase=[church]", "task.concepts=[church,tench]", "method=[noop,uce]", "metric=[judge]",
        "protocol=embedded_editing", "protocol.steps=6", "protocol.editing.steps=10", "prompts.per_erased=2",
        "prompts.per_paraphrased=0", "prompts.per_near=0", "prompts.per_retained=1", "prompts.general=0",
        f"store.dir={tmp_path}", "device=cpu",
    ]  # fmt: skip
    prepared = prepare(compose(overrides))
    plan = make_plan(prepared, embedded())
    sources = {recipe.source for recipe in plan.recipes.values()} - {""}
    assert len(sources) == 3 and sources <= set(plan.recipes) and set(plan.rows.key) == set(plan.recipes) - sources
    assert len(plan.recipes) == 3 + 3 * 3 * 2 == images_without_a_model(prepared)
    assert {plan.recipes[key].edit for key in sources} == {""}
    assert "a picture of church on a blue background" in set(plan.rows.prompt)
    done = run(compose(overrides), Console(file=io.StringIO(), width=200))
    assert not done.problems
    store = Store(tmp_path)
    rows = plan.rows.set_index(["eraser", "prompt_id"]).key
    for prompt in plan.rows.prompt_id.unique():
        pictures = {name: np.asarray(store.image(rows[name, prompt])) for name in ("none", "noop", "uce")}
        assert (pictures["none"] == pictures["noop"]).all()
        assert (pictures["none"] != pictures["uce"]).any()
    again = Console(file=io.StringIO(), width=200)
    assert run(compose([*overrides, "dry_run=true"]), again) is None
    assert "21 images, 21 of them there" in " ".join(again.file.getvalue().split())


def test_what_cannot_be_edited_is_refused_before_any_work(tmp_path) -> None:
    small = [
        "task=object", "task.erase=[church]", "task.concepts=[church,tench]", "protocol=embedded_editing",
        "prompts.per_erased=1",
        "prompts.per_paraphrased=0", "prompts.per_near=0", "prompts.per_retained=1", "prompts.general=0",
        f"store.dir={tmp_path}", "device=cpu",
    ]  # fmt: skip
    with pytest.raises(
        UserError, match="acts while an image is drawn from noise, which is not done where images are edited"
    ):
        run(compose([*small, "method=negative_prompt"]), Console(file=io.StringIO()))
    with pytest.raises(UserError, match="attack random_tokens: looks for what to draw .* use attack=none"):
        prepare(compose([*small, "attack=random_tokens"]))
    with pytest.raises(UserError, match="needs a concept, and prompt general/000 asks for none"):
        run(compose([*small, "prompts.general=1", "method=noop"]), Console(file=io.StringIO()))
    with pytest.raises(UserError, match="edited with Stable Diffusion 1.x and 2.x"):
        check_editable(SimpleNamespace(transformer=1, vae=1), "ddim")
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": "dim"}, "no such way of editing. Did you mean 'ddim'"),
        (
            {"by": "ledits_pp", "source_guidance": 3.0, "threshold": 0.9, "mask": False, "skip": 5.0},
            "skip=5.0: give a number from 0.0 to below 1.0",
        ),
        ({"skip": 0.1}, "ddim has no such key"),
        ({"steps": 0}, "steps must be 1 or more"),
        ({"steps": True}, "steps=True: give a int"),
        ({"prompts": []}, "give at least one text"),
        ({"guidance": None}, "guidance=None: give a float"),
    ],
)
def test_ways_of_editing_that_cannot_be_are_refused(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Editing.of({"by": "ddim", "prompts": ["x"], "steps": 3, "guidance": 2.0} | change)


def test_a_batch_is_edited_image_by_image(tmp_path) -> None:
    """Images of one batch do not see each other."""
    chosen = protocol(steps=5)
    store, drawn, edited = source(chosen, tmp_path)
    other = recipe_maker(embedded(), chosen)(ROW._replace(prompt="a gas pump"), "")
    pipe = embedded().pipe
    before, pipe.scheduler = pipe.scheduler, make_scheduler("DDIM", {"timestep_spacing": "leading"}, pipe)
    try:
        image = store.image(drawn.key)
        both = edit_images(pipe, Texts(pipe), [edited, other], [image, image])
        alone = edit_images(pipe, Texts(pipe), [other], [image])
    finally:
        pipe.scheduler = before
    assert both[1] == pytest.approx(alone[0], abs=5e-3)
