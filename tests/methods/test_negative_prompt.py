"""The guard is what the pipeline's own negative prompt is, and is refused where there is no second pass."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from erasebench.concepts import Concept, ErasureTask
from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.images.generate import generate
from erasebench.images.scheduler import scheduler_identity
from erasebench.methods.guards.negative_prompt import NegativePrompt
from erasebench.recipe import Recipe
from erasebench.run import run
from erasebench.store import Store

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

LEVELS = 1
KEY = "e" * 32


def pipe_of(request, name: str):
    if name == "flux":
        return request.getfixturevalue("small_flux_pipe")(guidance_embeds=False)
    return request.getfixturevalue(f"tiny_random_{name}pipe")


@pytest.mark.parametrize("own", ["", "a dog"])
@pytest.mark.parametrize("family", ["", "sd2_", "sdxl_", "sd3_", "flux"])
def test_it_is_the_negative_prompt_of_the_pipeline_itself(request, family, own, church_task, tmp_path):
    pipe = pipe_of(request, family)
    flow = hasattr(pipe, "transformer")
    scheduler, config = scheduler_identity(pipe, "FlowMatchEulerDiscrete" if flow else "DDIM", {})
    recipe = Recipe("m", "r", KEY, "a cat", own, 5, 3, 4.0, 16, 16, scheduler, config, "float32")
    edit = NegativePrompt().edit(pipe, church_task)
    assert edit.info["text"] == "church, small chapel" and edit.info["share"] == 0 and not edit.changes
    store = Store(tmp_path)
    with type(edit)(edit.changes, edit.info, edit.hooks, KEY).applied(pipe):
        generate(SimpleNamespace(name="m", revision="r", pipe=pipe), [recipe], store)
    made = pipe(
        "a cat",
        negative_prompt=f"{own}, church, small chapel" if own else "church, small chapel",
        generator=torch.Generator().manual_seed(5),
        num_inference_steps=3,
        width=16,
        height=16,
        **({"true_cfg_scale": 4.0} if family == "flux" else {"guidance_scale": 4.0}),
    ).images[0]
    assert np.abs(np.asarray(made, dtype=int) - np.asarray(store.image(recipe.key), dtype=int)).max() <= LEVELS


def test_the_text_is_the_option_or_what_the_task_says(tiny_random_pipe, church_task, artists_task):
    def text(eraser, task):
        return eraser.edit(tiny_random_pipe, task).hooks[0].settings["text"]

    assert text(NegativePrompt(phrases=False), church_task) == "church"
    assert text(NegativePrompt(text="nudity"), church_task) == "nudity"
    assert text(NegativePrompt(), artists_task) == "van gogh, monet"
    twice = ErasureTask((Concept("a", "object", ("b",)), Concept("b", "object")))
    assert text(NegativePrompt(), twice) == "a, b"
    with pytest.raises(UserError, match="text is empty"):
        NegativePrompt(text=" ")


def test_a_network_that_takes_guidance_as_an_input_is_refused_by_name_before_any_image(small_flux_pipe, tmp_path):
    small_flux_pipe().save_pretrained(tmp_path / "dev")
    config = [
        f"model.path={tmp_path / 'dev'}", "model=folder", "model.name=small", f"store.dir={tmp_path / 'results'}",
        "method=negative_prompt", "task=object", "task.erase=[church]", "metric=[]", "protocol=flow_flux",
        "protocol.size=16", "protocol.steps=1", "device=cpu",
    ]  # fmt: skip
    with pytest.raises(UserError, match="method negative_prompt: cannot edit small .flux.: FLUX.1-dev takes guidance"):
        run(compose(config))
    assert not list((tmp_path / "results").rglob("*.png"))
    assert NegativePrompt().refuses(SimpleNamespace(pipe=small_flux_pipe(guidance_embeds=False))) is None
