"""An image depends on its recipe alone: not on its batch, its neighbours, a kill, or how much memory there was."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from erasebench.edits.change import Change
from erasebench.edits.edit import Edit
from erasebench.errors import UserError
from erasebench.images import generate as generate_module
from erasebench.images.encoded import Texts
from erasebench.images.generate import generate
from erasebench.images.scheduler import FLOW_SCHEDULERS, SCHEDULERS, make_scheduler, scheduler_identity
from erasebench.recipe import Recipe
from erasebench.store import Store

HERE = Path(__file__).parent

# The schedulers of diffusers call NumPy in old ways.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

LEVELS = 1
"""How far a pixel may move with the batch size, in levels of 255: where rounding tips over."""


def as_model(pipe) -> SimpleNamespace:
    """What generating asks of a model."""
    return SimpleNamespace(name="small", revision="random", pipe=pipe)


@pytest.fixture
def model(tiny_random_pipe) -> SimpleNamespace:
    return as_model(tiny_random_pipe)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results")


def recipes(model, count: int = 6, scheduler: str = "DDIM", **changes) -> list[Recipe]:
    name, config = scheduler_identity(model.pipe, scheduler, {})
    base = Recipe(
        model=model.name,
        revision=model.revision,
        edit="",
        prompt="",
        negative_prompt="",
        seed=0,
        steps=3,
        guidance=4.0,
        width=16,
        height=16,
        scheduler=name,
        scheduler_config=config,
        dtype="float32",
    )
    prompts = ["a cat", "a church by monet", "", "two dogs", "a gas pump"]
    return [
        dataclasses.replace(base, **{"prompt": prompts[i % len(prompts)], "seed": 2**40 + i, **changes})
        for i in range(count)
    ]


def pixels(store: Store, wanted: list[Recipe]) -> np.ndarray:
    return np.stack([np.asarray(store.image(recipe.key), dtype=int) for recipe in wanted])


def count_calls(monkeypatch, pipe, name: str) -> list:
    """Record the arguments of every call of a method of the pipe's class."""
    calls, original = [], getattr(type(pipe), name)

    @functools.wraps(original)
    def counted(self, *args, **kwargs):
        calls.append(kwargs)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(pipe), name, counted)
    return calls


# What decides an image


@pytest.mark.parametrize("scheduler", ["DDIM", "PNDM", "LMSDiscrete", "DPMSolverMultistep", "EulerAncestralDiscrete"])
def test_the_batch_does_not_change_an_image(model, tmp_path, scheduler):
    wanted = recipes(model, 6, scheduler, steps=5)
    one, four = Store(tmp_path / "one"), Store(tmp_path / "four")
    assert generate(model, wanted, one, batch_size=1) == 6
    assert generate(model, wanted[::-1], four, batch_size=4) == 6
    difference = np.abs(pixels(one, wanted) - pixels(four, wanted))
    assert difference.max() <= LEVELS
    spread = np.abs(pixels(one, wanted[:1]) - pixels(one, wanted[1:2]))
    assert spread.max() > 20 * LEVELS  # the images do differ from each other


def test_it_is_the_image_that_the_pipeline_makes_alone(model, store):
    (wanted,) = recipes(model, 1, prompt="a cat", negative_prompt="a dog", seed=5)
    generate(model, [wanted], store, batch_size=3)
    made = model.pipe(
        "a cat",
        negative_prompt="a dog",
        generator=torch.Generator().manual_seed(5),
        num_inference_steps=3,
        guidance_scale=4.0,
        width=16,
        height=16,
    ).images[0]
    assert np.abs(np.asarray(made, dtype=int) - pixels(store, [wanted])[0]).max() <= LEVELS


@pytest.mark.parametrize("negative", ["", "a dog"])
def test_sdxl_gets_its_pooled_texts_and_its_zeros_for_no_negative_prompt(tiny_random_sdxl_pipe, store, negative):
    model = as_model(tiny_random_sdxl_pipe)
    wanted = recipes(model, 5, negative_prompt=negative)
    generate(model, wanted, store, batch_size=4)
    for recipe in wanted:
        made = model.pipe(
            recipe.prompt,
            negative_prompt=negative or None,
            generator=torch.Generator().manual_seed(recipe.seed),
            num_inference_steps=3,
            guidance_scale=4.0,
            width=16,
            height=16,
        ).images[0]
        assert np.abs(np.asarray(made, dtype=int) - pixels(store, [recipe])[0]).max() <= LEVELS


# SD 3 and FLUX


@pytest.fixture(params=["sd3", "sd3_without_t5", "flux", "flux_without_guidance_input"])
def flow_model(request) -> SimpleNamespace:
    """A random pipeline of every flow-matching shape."""
    if request.param == "sd3_without_t5":
        return as_model(request.getfixturevalue("small_sd3_pipe")(t5=False))
    if request.param == "flux_without_guidance_input":
        return as_model(request.getfixturevalue("small_flux_pipe")(guidance_embeds=False))
    return as_model(request.getfixturevalue(f"tiny_random_{request.param}_pipe"))


def flow_recipes(model, count: int, **changes) -> list[Recipe]:
    return recipes(model, count, "FlowMatchEulerDiscrete", **changes)


def test_flow_models_make_the_same_image_in_any_batch(flow_model, tmp_path):
    wanted = flow_recipes(flow_model, 4, width=24)
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    assert generate(flow_model, wanted, one, batch_size=1) == 4
    assert generate(flow_model, wanted[::-1], two, batch_size=2) == 4
    assert np.abs(pixels(one, wanted) - pixels(two, wanted)).max() <= LEVELS
    assert np.abs(pixels(one, wanted[:1]) - pixels(one, wanted[1:2])).max() > 20 * LEVELS
    assert one.image(wanted[0].key).size == (24, 16)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_flow_models_make_the_image_that_the_pipeline_makes_alone(flow_model, store, guidance):
    wanted = flow_recipes(flow_model, 2, prompt="a cat", guidance=guidance)
    generate(flow_model, wanted, store, batch_size=2)
    pipe = flow_model.pipe
    options = {"guidance_scale": guidance}
    if "Flux" in type(pipe).__name__ and not pipe.transformer.config.guidance_embeds:
        options = {"true_cfg_scale": guidance, "negative_prompt": ""}
    for recipe in wanted:
        made = pipe(
            "a cat",
            generator=torch.Generator().manual_seed(recipe.seed),
            num_inference_steps=3,
            width=16,
            height=16,
            **options,
        ).images[0]
        assert np.abs(np.asarray(made, dtype=int) - pixels(store, [recipe])[0]).max() <= LEVELS


def test_every_guidance_matters(flow_model, store):
    weak, strong = flow_recipes(flow_model, 1, prompt="a cat", guidance=1.5) + flow_recipes(
        flow_model, 1, prompt="a cat", guidance=8.0
    )
    generate(flow_model, [weak, strong], store)
    assert not np.array_equal(*pixels(store, [weak, strong]))


def test_a_negative_prompt_where_guidance_is_an_input_is_refused(tiny_random_flux_pipe, store):
    model = as_model(tiny_random_flux_pipe)
    wanted = [*flow_recipes(model, 2), *flow_recipes(model, 1, negative_prompt="a dog")]
    with pytest.raises(UserError, match="'a dog'.*FluxPipeline.*protocol.negative_prompt=''"):
        generate(model, wanted, store)
    assert not list(store.root.rglob("*.png"))


def test_a_size_that_does_not_divide_into_tokens_is_refused_before_any_image(flow_model, store):
    flow_model.pipe.vae_scale_factor, factor = 8, flow_model.pipe.vae_scale_factor
    try:
        with pytest.raises(UserError, match=r"height: .*multiples of 16 pixels, not 24.*protocol.size=(16|32)"):
            generate(flow_model, flow_recipes(flow_model, 1, height=24), store)
    finally:
        flow_model.pipe.vae_scale_factor = factor
    assert not list(store.root.rglob("*.png"))


def test_each_kind_of_model_takes_its_own_samplers(flow_model, model):
    with pytest.raises(UserError, match="DDIMScheduler does not suit .*a flow-matching model; use protocol=flow"):
        make_scheduler("DDIM", {}, flow_model.pipe)
    with pytest.raises(UserError, match="not a flow-matching model; use protocol=default"):
        make_scheduler("FlowMatchEulerDiscrete", {}, model.pipe)
    with pytest.raises(UserError, match="Did you mean 'FlowMatchEulerDiscreteScheduler'"):
        make_scheduler("FlowMatchEulerDiscret", {}, flow_model.pipe)
    assert not set(SCHEDULERS) & set(FLOW_SCHEDULERS)


def test_noise_that_no_seed_decides_is_refused(flow_model):
    with pytest.raises(UserError, match="stochastic_sampling=false"):
        make_scheduler("FlowMatchEulerDiscrete", {"stochastic_sampling": True}, flow_model.pipe)


def test_the_shift_of_the_schedule_is_in_the_recipe(flow_model):
    _, own = scheduler_identity(flow_model.pipe, "FlowMatchEulerDiscrete", {})
    _, other = scheduler_identity(flow_model.pipe, "FlowMatchEulerDiscrete", {"shift": 5.0})
    assert '"shift":3.0' in own and '"shift":5.0' in other


@pytest.mark.parametrize(
    "change",
    [{"seed": 9}, {"prompt": "x"}, {"negative_prompt": "x"}, {"guidance": 9.0}, {"steps": 4}],
)
def test_what_is_in_the_recipe_changes_the_image(model, store, change):
    (one,) = recipes(model, 1)
    other = dataclasses.replace(one, **change)
    generate(model, [one, other], store, batch_size=2)
    assert not np.array_equal(*pixels(store, [one, other]))


def test_an_image_of_an_edit_is_made_with_that_edit_on_the_pipe_alone(model, store):
    (unedited,) = recipes(model, 1)
    edited, another = (dataclasses.replace(unedited, edit=letter * 32) for letter in "ef")
    name = "unet.conv_in.weight"
    change = {name: Change(delta=torch.full(model.pipe.unet.conv_in.weight.shape, 0.1, dtype=torch.float64))}
    edit = Edit(change, key="e" * 32)
    with pytest.raises(ValueError, match="asks for the edit e{32}, and the pipeline carries no edit"):
        generate(model, [edited], store)
    with edit.applied(model.pipe):
        generate(model, [edited], store)
        # The second of a batch is looked at like the first.
        for wrong in ([edited, unedited], [dataclasses.replace(edited, seed=9), another]):
            with pytest.raises(ValueError, match="and the pipeline carries e{32}"):
                generate(model, wrong, store)
        with Edit(change, key="f" * 32).applied(model.pipe), pytest.raises(ValueError, match="e{32}, then f{32}"):
            generate(model, [another], store)
    with Edit(change).applied(model.pipe), pytest.raises(ValueError, match="carries an edit without a key"):
        generate(model, [unedited], store)
    generate(model, [unedited], store)
    assert not np.array_equal(*pixels(store, [unedited, edited]))
    assert store.missing([another.key])


def test_mixed_sizes_guidances_and_samplers_in_one_call(model, store):
    wanted = [
        *recipes(model, 2, width=24),
        *recipes(model, 2, guidance=1.0),
        *recipes(model, 2, guidance=0.0, seed=3),
        *recipes(model, 2, "PNDM", steps=4),
    ]
    scheduler = model.pipe.scheduler
    assert generate(model, wanted, store, batch_size=4) == len({recipe.key for recipe in wanted})
    assert store.image(wanted[0].key).size == (24, 16)
    assert model.pipe.scheduler is scheduler


# Only what is missing


def test_only_missing_images_are_made_and_each_once(model, store):
    wanted = recipes(model, 5)
    seen = []
    assert generate(model, wanted[:2], store, batch_size=2) == 2
    assert generate(model, [*wanted, *wanted], store, batch_size=2, on_progress=seen.append) == 3
    assert seen == [2, 1]
    assert generate(model, wanted, store) == 0
    records = store.image_records()
    assert sorted(records["key"]) == sorted(recipe.key for recipe in wanted)
    assert (records["seconds"] > 0).all()
    assert records["torch"].eq(torch.__version__.split("+")[0]).all() or records["torch"].eq(torch.__version__).all()
    assert records["device"].str.startswith("cpu").all()


def test_what_another_process_makes_meanwhile_is_not_made_again(model, store, tmp_path, monkeypatch):
    asked, sampled = recipes(model, 6), []

    def sample(pipe, texts, batch, hooks):
        if not sampled:  # beside the first batch, another process makes the third and one of the second
            sampled.append([])
            generate(model, asked[2:5], Store(store.root))
        sampled.append([recipe.seed - 2**40 for recipe in batch])
        return real(pipe, texts, batch, hooks)

    real = generate_module._sample
    monkeypatch.setattr(generate_module, "_sample", sample)
    assert generate(model, asked, store, batch_size=2) == 3
    assert sampled == [[], [2, 3, 4], [0, 5], [1]], "0 and 5 are of one prompt"


def test_each_text_is_encoded_once(model, store, monkeypatch):
    calls = count_calls(monkeypatch, model.pipe, "encode_prompt")
    generate(model, recipes(model, 12, negative_prompt="bad"), store, batch_size=2)
    # The pipe also calls it, with embeddings instead of texts.
    texts = [text for call in calls for text in call.get("prompt") or []]
    assert sorted(texts) == sorted(["", "a cat", "a church by monet", "a gas pump", "bad", "two dogs"])


def test_few_encoded_texts_are_kept(model, store, monkeypatch):
    monkeypatch.setattr("erasebench.images.encoded.KEPT_TEXTS", 4)
    texts = Texts(model.pipe)
    fresh = Texts(model.pipe)
    for i in range(9):
        (rows,) = texts([f"a {i}", "", f"b {i}"])
        assert len(texts.kept) <= 4
        assert torch.allclose(rows, fresh([f"a {i}", "", f"b {i}"])[0], atol=1e-5)


# Killed

SCRIPT = """
import pathlib, sys
sys.path[:0] = [sys.argv[1], str(pathlib.Path(sys.argv[1]).parent)]
import conftest, torch, test_generate as here
from erasebench.store import Store
torch.set_num_threads(int(sys.argv[3]))
model = here.as_model(conftest.build_pipe())
here.generate(model, here.recipes(model, 60, steps=8), Store(sys.argv[2]), batch_size=1)
"""


def test_killed_at_some_point_and_run_again_it_is_the_same(model, tmp_path):
    wanted = recipes(model, 60, steps=8)
    whole, killed = Store(tmp_path / "whole"), Store(tmp_path / "killed")
    generate(model, wanted, whole, batch_size=1)
    script = [sys.executable, "-c", SCRIPT, str(HERE), str(killed.root), str(torch.get_num_threads())]
    process = subprocess.Popen(script, stderr=subprocess.PIPE, text=True)
    try:
        limit = time.monotonic() + 120
        while len(list(killed.root.glob("images/*/*.png"))) < 3:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < limit
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
    left = killed.missing(recipe.key for recipe in wanted)
    assert 0 < len(left) < 60
    assert not list((killed.root / "records").rglob("*.parquet"))  # its records died with it
    assert generate(model, wanted, killed, batch_size=1) == len(left)

    def result(store: Store) -> dict[str, str]:
        return store.image_records().set_index("key")["pixels_sha256"].to_dict()

    assert result(killed) == result(whole)
    for recipe in wanted:
        killed.image(recipe.key)


def test_an_interrupt_keeps_the_records_of_what_was_made(model, store):
    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(model, recipes(model, 4), store, batch_size=2, on_progress=stop)
    assert len(list((store.root / "records/images").glob("*.parquet"))) == 1
    assert len(store.image_records()) == 2


# Memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_batch_and_goes_on(model, tmp_path, monkeypatch, error, caplog):
    sizes, original = [], type(model.pipe).__call__

    def limited(self, **inputs):
        sizes.append(len(inputs["latents"]))
        if sizes[-1] > 2:
            raise error
        return original(self, **inputs)

    wanted = recipes(model, 5)
    plain, tight = Store(tmp_path / "plain"), Store(tmp_path / "tight")
    generate(model, wanted, plain, batch_size=1)
    monkeypatch.setattr(type(model.pipe), "__call__", limited)
    assert generate(model, wanted, tight, batch_size=8) == 5
    assert sizes == [5, 2, 2, 1]
    assert "going on with 2" in caplog.text
    assert np.abs(pixels(plain, wanted) - pixels(tight, wanted)).max() <= LEVELS


def test_out_of_memory_for_one_image_says_what_to_do(model, store, monkeypatch):
    def never(self, **inputs):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(type(model.pipe), "__call__", never)
    with pytest.raises(UserError, match="single image of 16 x 16.*smaller"):
        generate(model, recipes(model, 3), store, batch_size=2)


def test_another_error_is_not_taken_for_memory(model, store, monkeypatch):
    def wrong(self, **inputs):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(type(model.pipe), "__call__", wrong)
    with pytest.raises(RuntimeError, match="mat1"):
        generate(model, recipes(model, 3), store, batch_size=2)


# Bad output, bad input


@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_not_finite_is_never_saved_as_a_black_image(small_pipe, store):
    model = as_model(small_pipe())
    wanted = recipes(model, 3, prompt="a cat", edit="e" * 32)
    with Edit({}, key="e" * 32).applied(model.pipe):
        with torch.no_grad():
            model.pipe.unet.conv_out.weight[0, 0] = float("nan")
        with pytest.raises(UserError, match=f"{wanted[0].key}.*'a cat'.*{'e' * 32}"):
            generate(model, wanted, store, batch_size=3)
    assert len(store.missing(recipe.key for recipe in wanted)) == 3


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.01, 1.01])
def test_the_good_images_of_a_batch_are_kept_when_one_is_no_image(model, store, monkeypatch, wrong):
    original = type(model.pipe).__call__

    def broken(self, **inputs):
        output = original(self, **inputs)
        output.images[1, 3, 5, 0] = wrong  # one number is enough
        return output

    monkeypatch.setattr(type(model.pipe), "__call__", broken)
    wanted = recipes(model, 3)
    with pytest.raises(UserError, match="1 of 3 images"):
        generate(model, wanted, store, batch_size=3)
    assert store.missing(recipe.key for recipe in wanted) == [wanted[1].key]
    assert len(store.image_records()) == 2


def test_a_full_disk_stops_the_run_with_its_folder(model, store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"results.*no space is left"):
        generate(model, recipes(model, 3), store, batch_size=3)
    assert not list(store.root.rglob("*.png"))
    assert not list(store.root.rglob(".*"))


def test_recipes_of_another_model_are_refused(model, store):
    for change in ({"model": "sd14"}, {"revision": "other"}, {"dtype": "float16"}):
        good = recipes(model, 3)
        for wrong in ([dataclasses.replace(good[0], **change)], [*good[:2], dataclasses.replace(good[2], **change)]):
            with pytest.raises(ValueError, match=next(iter(change))):
                generate(model, wrong, store)
    assert not list(store.root.rglob("*.png"))
    with pytest.raises(ValueError, match="batch_size"):
        generate(model, recipes(model, 1), store, batch_size=0)


def test_more_steps_than_the_schedule_has_are_refused_before_any_image(model, store):
    with pytest.raises(UserError, match="steps: 1001"):
        generate(model, [*recipes(model, 1), *recipes(model, 1, steps=1001)], store)
    assert not list(store.root.rglob("*.png"))


# Schedulers


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_is_rebuilt_from_its_identity_alone(model, name):
    short, config = scheduler_identity(model.pipe, name.removesuffix("Scheduler"), {"num_train_timesteps": 500})
    assert short == name
    (recipe,) = recipes(model, 1, scheduler=name)
    rebuilt = generate_module._scheduler(dataclasses.replace(recipe, scheduler_config=config))
    made = make_scheduler(name, {"num_train_timesteps": 500}, model.pipe)
    rebuilt.set_timesteps(7)
    made.set_timesteps(7)
    assert torch.equal(torch.as_tensor(rebuilt.timesteps), torch.as_tensor(made.timesteps))
    assert torch.equal(rebuilt.alphas_cumprod, made.alphas_cumprod)
    assert rebuilt.config.beta_start == model.pipe.scheduler.config.beta_start  # the model's own, not the class's


def test_misspelt_schedulers_and_settings_are_named(model):
    with pytest.raises(UserError, match="Did you mean 'DDIMScheduler'"):
        make_scheduler("DDIMM", {}, model.pipe)
    with pytest.raises(UserError, match="Did you mean 'clip_sample'"):
        make_scheduler("DDIM", {"clip_sampel": True}, model.pipe)
    with pytest.raises(UserError, match="do not work"):
        make_scheduler("DDIM", {"beta_schedule": "wavy"}, model.pipe)
