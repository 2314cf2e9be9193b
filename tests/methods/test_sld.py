"""SLD is what diffusers' own safe pipeline computes, each image by itself, and only while images are sampled."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from guard_helpers import (
    KEY,
    LEVELS,
    check_alone_as_in_a_batch,
    check_leaves_nothing_and_comes_back,
    judged,
    pictures,
    recipes,
)
from hypothesis import given
from hypothesis import strategies as st

from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.edit import Edit
from erasebench.edits.label import label_of
from erasebench.errors import UserError
from erasebench.methods.closed_form.uce import Uce
from erasebench.methods.compose import Compose
from erasebench.methods.guards.negative_prompt import NegativePrompt
from erasebench.methods.guards.sld import PRESETS, SAFETY, SafeGuidance, Sld

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

CONSTANTS = ("scale", "warmup", "threshold", "momentum", "decay")


def safe_pipeline(pipe):
    """diffusers' StableDiffusionPipelineSafe on the same networks."""
    from diffusers.pipelines.deprecated.stable_diffusion_safe import StableDiffusionPipelineSafe

    safe = StableDiffusionPipelineSafe(
        **{name: getattr(pipe, name) for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")},
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    safe.set_progress_bar_config(disable=True)
    return safe


@pytest.mark.parametrize("preset", PRESETS)
def test_an_image_is_that_of_diffusers_safe_pipeline(preset, tiny_random_pipe, church_task, tmp_path):
    pipe, steps = tiny_random_pipe, 50
    edit = Sld(preset, text="safety").edit(pipe, church_task)
    (recipe,) = recipes(pipe, steps=steps)
    (made,) = pictures(pipe, edit, [recipe], tmp_path)
    safe, constants = safe_pipeline(pipe), PRESETS[preset]
    assert safe.safety_concept == SAFETY == edit.info["text"]
    generator = torch.Generator().manual_seed(recipe.seed)
    scheduler = pipe.scheduler
    expected = safe(
        recipe.prompt, height=16, width=16, num_inference_steps=steps, guidance_scale=4.0, generator=generator,
        output_type="np", sld_guidance_scale=constants["scale"], sld_warmup_steps=constants["warmup"],
        sld_threshold=constants["threshold"], sld_momentum_scale=constants["momentum"],
        sld_mom_beta=constants["decay"],
    ).images[0]  # fmt: skip
    pipe.scheduler = scheduler
    assert np.abs((expected * 255).round().astype(int) - made).max() <= LEVELS


numbers = st.floats(-3, 3, allow_nan=False, width=64)


@given(
    st.lists(st.tuples(numbers, numbers, numbers), min_size=4, max_size=4),
    *(
        st.sampled_from(values)
        for values in ([0.5, 20.0, 5000.0], [0, 20, 49], [0.0, 0.01, 1.0], [0.0, 0.5], [0.0, 0.7])
    ),
)
def test_the_guidance_is_the_papers_equations_number_by_number(triples, scale, warmup, threshold, momentum, decay):
    steps = len(triples)
    hook = SafeGuidance(
        {"text": "", "scale": scale, "warmup": warmup, "threshold": threshold, "momentum": momentum, "decay": decay}
    )
    if (steps - 1) * 50 < warmup * steps:
        with pytest.raises(UserError, match="its warm-up .* takes all 4 steps"):
            hook.texts(None, {}, [SimpleNamespace(steps=steps)])
        return
    hook.texts(None, {}, [SimpleNamespace(steps=steps)])
    nu, s = 0.0, 7.5
    for i, (u, p, c) in enumerate(triples):
        mu = 0.0 if p - c >= threshold else min(1.0, abs(p - c) * scale)
        gamma = mu * (c - u) + momentum * nu
        nu = decay * nu + (1 - decay) * gamma
        expected = u + s * (p - u - (gamma if i >= warmup / 50 * steps else 0.0))
        empty, prompt = hook._guide(torch.tensor([[u], [p], [c]], dtype=torch.float64))
        assert (empty + s * (prompt - empty)).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)
        hook.on_step(SimpleNamespace(num_timesteps=steps), i, None, {})


@pytest.mark.parametrize("family", ["", "sd2_", "sdxl_"])
def test_without_strength_an_image_is_the_unedited_one(request, family, tmp_path):
    pipe = request.getfixturevalue(f"tiny_random_{family}pipe")
    none = SafeGuidance({"text": "a church", **PRESETS["max"], "scale": 0.0})
    ours = pictures(pipe, Edit({}, {}, (none,)), recipes(pipe, 3), tmp_path / "a")
    without = pictures(pipe, None, recipes(pipe, 3, edit=""), tmp_path / "b")
    assert np.abs(ours - without).max() <= LEVELS
    strong = pictures(
        pipe, Edit({}, {}, (SafeGuidance({"text": "a church", **PRESETS["max"]}),)), recipes(pipe, 3), tmp_path / "c"
    )
    assert np.abs(strong - without).max() > 5 * LEVELS


def test_what_else_is_in_the_batch_does_not_change_an_image(tiny_random_pipe, church_task, tmp_path):
    check_alone_as_in_a_batch(tiny_random_pipe, Sld("max").edit(tiny_random_pipe, church_task), tmp_path)


def test_it_leaves_nothing_behind_and_comes_back_from_a_file(tiny_random_pipe, church_task, tmp_path):
    check_leaves_nothing_and_comes_back(tiny_random_pipe, Sld("max").edit(tiny_random_pipe, church_task), tmp_path)


def test_between_batches_the_network_is_as_it_was_and_elsewhere_it_says_what_is_missing(tiny_random_pipe, tmp_path):
    pipe = tiny_random_pipe
    hook = SafeGuidance({"text": "a church", **PRESETS["max"]})
    latents, rows = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 24)
    with torch.no_grad():
        expected = pipe.unet(latents, 5, encoder_hidden_states=rows, return_dict=False)[0]
        with Edit({}, {}, (hook,), KEY).applied(pipe):
            pictures(pipe, None, recipes(pipe, 2), tmp_path)
            assert torch.equal(pipe.unet(latents, 5, encoder_hidden_states=rows, return_dict=False)[0], expected)
            hook.texts(pipe, {}, recipes(pipe, 2))
            with pytest.raises(UserError, match="sld: the network makes no unconditional pass"):
                pipe.unet(latents, 5, encoder_hidden_states=rows, return_dict=False)
            hook.texts(pipe, {}, recipes(pipe, 3))
            with pytest.raises(UserError, match="sld: the UNet was given 2 rows for 3 images, not one or two for each"):
                pipe.unet(latents, 5, encoder_hidden_states=rows, return_dict=False)


def test_without_guidance_it_is_refused_before_any_image(tiny_random_pipe, church_task, tmp_path):
    edit = Sld().edit(tiny_random_pipe, church_task)
    with pytest.raises(UserError, match="sld: acts on the second, unconditional pass"):
        pictures(tiny_random_pipe, edit, recipes(tiny_random_pipe, guidance=1.0), tmp_path)
    assert not list(tmp_path.rglob("*.png"))


def test_it_goes_with_an_edit_of_the_weights_and_with_another_guard_but_not_with_itself(
    tiny_random_pipe, church_task, tmp_path
):
    pipe = tiny_random_pipe

    def both(*parts):
        return Compose({f"p{i}": part for i, part in enumerate(parts)}).edit(pipe, church_task)

    edits = [Sld("max").edit(pipe, church_task), Uce().edit(pipe, church_task), both(Uce(), Sld("max"))]
    edits.append(both(Sld("max"), NegativePrompt()))
    images = [pictures(pipe, edit, recipes(pipe), tmp_path / str(i)) for i, edit in enumerate(edits)]
    for i, image in enumerate(images):
        assert all(np.abs(image - other).max() > 2 * LEVELS for other in images[:i])
    for twice, place in ((Sld(), "a third pass of the network"), (NegativePrompt(), "the negative prompt")):
        with pytest.raises(UserError, match=f"{twice.name} and {twice.name} both act on {place}"):
            both(twice, twice)


def test_texts_and_constants_are_those_of_the_task_and_the_preset(tiny_random_pipe, church_task):
    assert Sld().constants == {"scale": 1000, "warmup": 10, "threshold": 0.01, "momentum": 0.3, "decay": 0.4}
    assert Sld("max", warmup=5).constants == {**PRESETS["max"], "warmup": 5}
    notes = Sld("weak").edit(tiny_random_pipe, church_task).info
    assert notes["text"] == "church, small chapel" and {name: notes[name] for name in CONSTANTS} == PRESETS["weak"]
    assert Sld(text="a knife").edit(tiny_random_pipe, church_task).info["text"] == "a knife"
    two = ErasureTask((Concept("a", "object", ("b",)), Concept("b", "object")))
    assert Sld().edit(tiny_random_pipe, two).info["text"] == "a, b"
    assert label_of("sld_weak", Sld("weak")).text == "sld_weak"
    assert label_of("sld", Sld("weak")).text == "sld preset=weak"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "medum"}, "sld: preset 'medum' .*medium"),
        ({"text": " "}, "sld: text is empty"),
        ({"decay": 1.5}, "sld: decay is 1.5; it must be from 0 to 1"),
        ({"warmup": 50}, "sld: warmup is 50"),
        ({"scale": float("nan")}, "sld: scale is nan"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Sld(**options)


def test_models_that_do_not_predict_noise_are_refused(tiny_random_pipe):
    def model(family, **config):
        return SimpleNamespace(family=family, pipe=SimpleNamespace(scheduler=SimpleNamespace(config=config)))

    assert Sld().refuses(model("sd2", prediction_type="epsilon")) is None
    assert "predicts v_prediction" in Sld().refuses(model("sd2", prediction_type="v_prediction"))
    for family in ("sd3", "flux"):
        assert "velocity" in Sld().refuses(model(family))


def test_by_the_public_command_the_strongest_setting_erases_and_keeps(tmp_path):
    church = ("task=object", "task.erase=[church]", "task.concepts=[church,parachute,golf ball]")
    seen = judged("sld_max", tmp_path, *church)
    assert seen["none", "erase"] >= 0.75 and seen["guard", "erase"] <= 0.25 and seen["guard", "retain"] >= 0.5
