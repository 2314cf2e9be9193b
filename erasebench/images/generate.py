"""Make the images of recipes that are not in the store yet.

What decides an image is its recipe alone. Every image draws its noise from a generator of its own, in float32, so that
the batch it is made in changes it by no more than the order of floating-point sums. The generator is the CPU's, so that
the machine changes it no more than that either, unless the recipe says ``cuda``.
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import diffusers
import numpy as np
import torch
from PIL import Image

from erasebench.edits.hook import Hook, all_installed, hooks_on
from erasebench.errors import UserError
from erasebench.images.batch_size import BatchSize, is_out_of_memory
from erasebench.images.edit_image import edit_images
from erasebench.images.encoded import Texts
from erasebench.models.marks import key_on, keys_on
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import denoiser
from erasebench.recipe import Recipe
from erasebench.store import Store, library_versions

if TYPE_CHECKING:
    from erasebench.models.load import Model


def generate(
    model: Model,
    recipes: Iterable[Recipe],
    store: Store,
    batch_size: int | BatchSize = 8,
    on_progress: Callable[[int], None] | None = None,
    about: Mapping[str, Any] | None = None,
    hooks: Sequence[Hook] = (),
) -> int:
    """Make every image of ``recipes`` that the store lacks, and save each as soon as its batch is done.

    Images of one size, guidance and scheduler share batches, whatever their prompts. The edit of the recipes is
    applied by the caller (:meth:`erasebench.edits.edit.Edit.applied`), and must be the one on the pipe; its hooks are on
    the pipe with it, and act here. On the same machine the batch size changes an image by at most a level or two of 255,
    where a rounding tips over; only KDPM2 ancestral grows that to 19 levels in 4 % of pixels. When memory runs out, the batch is halved and work goes on.

    Args:
        model: as loaded; its pipe runs in its own dtype, without autocast.
        recipes: any number, in any order, equal ones once; all of this model.
        store: where the images go.
        batch_size: images made at a time, or what finds it, which several calls may share.
        on_progress: called with the number of images just saved.
        about: more columns for the records of the images made now, e.g. the protocol they were made for.
        hooks: what acts while sampling besides the hooks of the edit, e.g. that of an attack. They come before those
            of the edit, which answers to what it is given.

    Returns:
        How many images were made.

    Raises:
        UserError: a recipe the scheduler cannot do; memory is too small for one image; the model's output is not
            finite (prompt and key named, nothing saved for it); the store cannot be written to.
        ValueError: a recipe of another model or dtype, or of another edit than the pipe carries; an attacked one without
            what the attack found; a batch size below 1.
        KeyError: an image that is to be edited is not there.
    """
    sizes = _sizes(batch_size, model.pipe)
    unique = {recipe.key: recipe for recipe in recipes}
    for attack in {recipe.attack for recipe in unique.values()} - {""}:
        if not any(hook.holds(attack) for hook in hooks):
            raise ValueError(f"attack {attack}: no hook holds what it found, so its images cannot be made")
    # Images that are edited come before their edits.
    missing = sorted((r for r in unique.values() if not store.has_image(r.key)), key=lambda r: bool(r.editing))
    acting = (*hooks, *hooks_on(model.pipe))
    _check(model, missing, acting)
    groups = _groups(missing)
    for group in groups:
        _check_group(model, group[0])
    texts, done = Texts(model.pipe), 0
    meta = {"device": device_name(model.pipe), **library_versions(), **(about or {})}
    with _quiet(model.pipe), all_installed(hooks, model.pipe):
        try:
            for group in groups:
                model.pipe.scheduler = _scheduler(group[0])
                start, share = 0, _share_of_hooks(group[0], acting, model.pipe)
                while start < len(group):
                    taken = group[start : start + max(1, int(sizes.now * share))]
                    batch = [recipe for recipe in taken if not store.has_image(recipe.key)]  # another process's?
                    if not batch:
                        start += len(taken)
                        continue
                    images = None
                    began = time.perf_counter()
                    try:
                        images = _images_of(model.pipe, texts, batch, acting, store)
                    except (RuntimeError, MemoryError) as error:
                        if not is_out_of_memory(error):
                            raise
                    if images is None:  # outside the except, where the traceback would keep the tensors alive
                        sizes.halve(len(batch), batch[0], model.pipe, float(share))
                        continue
                    seconds = (time.perf_counter() - began) / len(batch)
                    if share == 1 and not batch[0].editing:
                        sizes.took(len(batch), seconds)
                    _save(store, batch, images, {"seconds": seconds, **meta})
                    start += len(taken)
                    done += len(batch)
                    if on_progress is not None:
                        on_progress(len(batch))
        finally:
            store.flush()
    return done


def draw_tries(
    model: Model, recipes: Sequence[Recipe], batch_size: int | BatchSize = 8, hooks: Sequence[Hook] = ()
) -> list[Image.Image]:
    """Images as :func:`generate` makes them, kept nowhere: what a search tries.

    Args:
        model: as loaded, with the edit of the recipes on its pipe.
        recipes: of one size, guidance and scheduler.
        batch_size, hooks: see :func:`generate`, which also says what is raised.
    """
    acting, texts = (*hooks, *hooks_on(model.pipe)), Texts(model.pipe)
    images: list[Image.Image] = []
    sizes = _sizes(batch_size, model.pipe)
    _check(model, recipes, acting)
    share = _share_of_hooks(recipes[0], acting, model.pipe) if recipes else Fraction(1)
    with _quiet(model.pipe), all_installed(hooks, model.pipe):
        while len(images) < len(recipes):
            batch = recipes[len(images) : len(images) + max(1, int(sizes.now * share))]
            model.pipe.scheduler = _scheduler(batch[0])
            pixels = None
            try:
                pixels = _sample(model.pipe, texts, batch, acting)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if pixels is None:  # outside the except, where the traceback would keep the tensors alive
                sizes.halve(len(batch), batch[0], model.pipe, float(share))
                continue
            if not _whole(pixels).all():
                raise UserError(f"an image of {batch[0].prompt!r} is not numbers from 0 to 1; use dtype=float32")
            images += [Image.fromarray(one) for one in (pixels * 255).round().astype(np.uint8)]
    return images


def _sizes(batch_size: int | BatchSize, pipe: Pipeline) -> BatchSize:
    if isinstance(batch_size, BatchSize):
        return batch_size
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    return BatchSize(batch_size, denoiser(pipe).device.type)


def device_name(pipe: Pipeline) -> str:
    """What the pipe runs on, for records: ``cuda NVIDIA A100``, ``mps arm64``, ``cpu x86_64``."""
    device = denoiser(pipe).device
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"{device.type} {platform.machine()}"


def _groups(recipes: Sequence[Recipe]) -> list[list[Recipe]]:
    """Recipes that one call of the pipe can make together; within a group, those of one prompt side by side."""
    groups: dict[tuple, dict[tuple[str, str], list[Recipe]]] = {}
    for recipe in recipes:
        call = (
            *(recipe.width, recipe.height, recipe.guidance, recipe.steps),
            *(recipe.scheduler, recipe.scheduler_config, recipe.rng, bool(recipe.editing)),
        )
        texts = groups.setdefault(call, {})
        texts.setdefault((recipe.prompt, recipe.negative_prompt), []).append(recipe)
    return [[recipe for same in texts.values() for recipe in same] for texts in groups.values()]


def _check(model: Model, recipes: Sequence[Recipe], hooks: Sequence[Hook]) -> None:
    """Refuse recipes of which any is not one of this model as it is now."""
    ours = {
        "model": model.name,
        "revision": model.revision,
        "dtype": str(denoiser(model.pipe).dtype).removeprefix("torch."),
    }
    embeds = _embeds_guidance(model.pipe)
    for recipe in recipes:
        for field, value in ours.items():
            if getattr(recipe, field) != value:
                raise ValueError(
                    f"recipe {recipe.key}: {field} is {getattr(recipe, field)!r}, the model's is {value!r}"
                )
        if key_on(model.pipe) != recipe.edit:
            wanted = f"the edit {recipe.edit}" if recipe.edit else "the unedited model"
            there = ", then ".join(key or "an edit without a key" for key in keys_on(model.pipe)) or "no edit"
            raise ValueError(f"recipe {recipe.key}: it asks for {wanted}, and the pipeline carries {there}")
        if embeds and recipe.negative_prompt:
            raise UserError(
                f"negative prompt {recipe.negative_prompt!r}: {type(model.pipe).__name__} of this kind takes guidance as "
                "an input and makes no second, negative pass; set protocol.negative_prompt='' and use prompts without one"
            )
        check_passes(model.pipe, recipe, hooks)
    if getattr(model.pipe, "safety_checker", None) is not None:
        raise ValueError(f"model {model.name} has a safety checker, which turns images black; load it without one")


def check_passes(pipe: Pipeline, recipe: Recipe, hooks: Sequence[Hook | type[Hook]]) -> None:
    """Refuse an image without a second pass where a hook, or a kind of hooks, acts on that pass.

    Raises:
        UserError: naming the hook and the guidance.
    """
    if recipe.editing and hooks:
        raise UserError(
            f"{hooks[0].name}: acts while an image is drawn from noise, which is not done where images are edited; take a "
            "protocol without editing, or another method"
        )
    guards = [hook.name for hook in hooks if hook.second_pass]
    if guards and not _second_pass(pipe, recipe):
        raise UserError(
            f"{guards[0]}: acts on the second, unconditional pass, which an image at guidance {recipe.guidance} of "
            f"{type(pipe).__name__} does not have, so it would change nothing; use protocol.guidance above 1 "
            "(and a model that makes that pass)"
        )


def _check_group(model: Model, recipe: Recipe) -> None:
    """Refuse what this model or its sampler cannot do, of all recipes that share size, steps and sampler with this one."""
    pixels = _pixels(model.pipe)
    for field in ("width", "height"):
        size = getattr(recipe, field)
        if size % pixels:
            raise UserError(
                f"{field}: {type(model.pipe).__name__} makes images in multiples of {pixels} pixels, not {size}; set "
                f"protocol.size={max(pixels, round(size / pixels) * pixels)} and protocol.prompt_size=false"
            )
    if recipe.rng == "cuda" and denoiser(model.pipe).device.type != "cuda":
        raise UserError(f"recipe {recipe.key}: its noise is drawn on an NVIDIA GPU, and the model is not on one")
    scheduler = _scheduler(recipe)
    # Where the shift follows the image size, the pipeline gives it; the number of steps works with any.
    shift = {"mu": 1.0} if scheduler.config.get("use_dynamic_shifting") else {}
    try:
        scheduler.set_timesteps(recipe.steps, **shift)
    except (ValueError, IndexError) as error:
        raise UserError(f"steps: {recipe.steps} steps do not work with {recipe.scheduler}: {error}") from error


def _scheduler(recipe: Recipe) -> Any:
    return getattr(diffusers, recipe.scheduler)(**json.loads(recipe.scheduler_config))


def _pixels(pipe: Pipeline) -> int:
    """Pixels in each direction that one token of a transformer stands for; of a latent for a UNet."""
    if hasattr(pipe, "_pack_latents"):
        return pipe.vae_scale_factor * 2  # FLUX packs 2 x 2, whatever its config says
    return pipe.vae_scale_factor * (pipe.patch_size if hasattr(pipe, "patch_size") else 1)


def _embeds_guidance(pipe: Pipeline) -> bool:
    """Whether guidance is an input of the network (FLUX.1-dev), not a second pass."""
    return bool(denoiser(pipe).config.get("guidance_embeds"))


@contextlib.contextmanager
def _quiet(pipe: Pipeline) -> Iterator[None]:
    """No bar of the pipe's own inside, and its scheduler as it was afterwards."""
    scheduler, bar = pipe.scheduler, getattr(pipe, "_progress_bar_config", {})
    pipe.set_progress_bar_config(**{**bar, "disable": True})
    try:
        yield
    finally:
        pipe.set_progress_bar_config(**bar)
        pipe.scheduler = scheduler


def _second_pass(pipe: Pipeline, recipe: Recipe) -> bool:
    """Whether an image takes a second, unconditional row of the network. As in diffusers, at guidance 1 and below not."""
    return recipe.guidance > 1 and not _embeds_guidance(pipe)


def _share_of_hooks(recipe: Recipe, hooks: Sequence[Hook], pipe: Pipeline) -> Fraction:
    """The share of a batch that is left for images where hooks send further rows through the network."""
    rows = 1 + _second_pass(pipe, recipe)
    return Fraction(rows, rows + sum(hook.passes for hook in hooks))


def _images_of(
    pipe: Pipeline, texts: Texts, batch: Sequence[Recipe], hooks: Sequence[Hook], store: Store
) -> np.ndarray:
    """Images [n, height, width, 3] of a batch, drawn from noise or edited from images of the store."""
    if not batch[0].editing:
        return _sample(pipe, texts, batch, hooks)
    return edit_images(pipe, texts, batch, [store.image(recipe.source) for recipe in batch])


def _sample(pipe: Pipeline, texts: Texts, batch: Sequence[Recipe], hooks: Sequence[Hook]) -> np.ndarray:
    """Images [n, height, width, 3] of a batch, 0 to 1, float32; NaN where the model broke down."""
    first = batch[0]
    on = pipe._execution_device if first.rng == "cuda" else "cpu"
    drawn = [_drawn_as(recipe, hooks) for recipe in batch]
    generators = [torch.Generator(on).manual_seed(recipe.seed) for recipe in drawn]
    inputs = dict(zip(("prompt_embeds", "pooled_prompt_embeds"), texts([r.prompt for r in drawn]), strict=False))
    options: dict[str, Any] = {}
    if _second_pass(pipe, first):
        negative = texts([recipe.negative_prompt for recipe in batch], negative=True)
        inputs |= zip(("negative_prompt_embeds", "negative_pooled_prompt_embeds"), negative, strict=False)
        if hasattr(pipe, "_pack_latents"):  # FLUX.1-schnell: guidance by a second pass has a name of its own
            options["true_cfg_scale"] = first.guidance
    latents = _noise(pipe, first, generators)
    with torch.no_grad():
        for hook in hooks:
            inputs = hook.texts(pipe, inputs, drawn)  # a guard answers to what an attack types
        inputs.pop("prompt_ids", None)
        for hook in hooks:
            latents = hook.start(pipe, latents, drawn)
    if hooks:

        def on_step(pipe: Pipeline, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            for hook in hooks:
                tensors = hook.on_step(pipe, step, timestep, tensors)
            return tensors

        options["callback_on_step_end"] = on_step
    output = pipe(
        **inputs,
        **options,
        latents=latents,
        generator=generators,  # what a stochastic sampler adds also comes from the image's own generator
        num_inference_steps=first.steps,
        guidance_scale=first.guidance,
        height=first.height,
        width=first.width,
        output_type="np",
    )
    return _filtered(pipe, output.images, drawn, hooks)


def _filtered(pipe: Pipeline, images: np.ndarray, batch: Sequence[Recipe], hooks: Sequence[Hook]) -> np.ndarray:
    """What hooks make of finished images. What is no image stays as it is, and is complained about later."""
    whole = _whole(images)
    safe = np.where(whole, images, 0).astype(images.dtype)
    for hook in hooks:
        safe = hook.images(pipe, safe, batch)
    return np.where(whole, safe, images).astype(images.dtype)


def _whole(images: np.ndarray) -> np.ndarray:
    """Which images [n, height, width, 3] are numbers from 0 to 1, [n, 1, 1, 1]. NaN is neither; beyond, a level would wrap
    around."""
    return np.all((images >= 0) & (images <= 1), axis=(1, 2, 3), keepdims=True)


def _drawn_as(recipe: Recipe, hooks: Sequence[Hook]) -> Recipe:
    for hook in hooks:
        recipe = hook.drawn_as(recipe)
    return recipe


def _noise(pipe: Pipeline, recipe: Recipe, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """The latents that a batch starts from, each from its own generator, in the pipe's type and layout."""
    network, factor = denoiser(pipe), pipe.vae_scale_factor
    packed = hasattr(pipe, "_pack_latents")  # FLUX: 2 x 2 latents are one token of four times the channels
    shape = (network.config.in_channels // (4 if packed else 1), recipe.height // factor, recipe.width // factor)
    noise = torch.cat(
        [torch.randn((1, *shape), generator=one, dtype=torch.float32, device=one.device) for one in generators]
    )
    if hasattr(pipe, "_pack_latents"):
        noise = pipe._pack_latents(noise, len(noise), *shape)
    return noise.to(device=pipe._execution_device, dtype=network.dtype)


def _save(store: Store, batch: Sequence[Recipe], images: np.ndarray, meta: Mapping[str, Any]) -> None:
    """Save what are images; then complain about what are not."""
    broken = []
    for recipe, pixels, whole in zip(batch, images, _whole(images), strict=True):
        if whole.item():
            store.put_image(recipe, Image.fromarray((pixels * 255).round().astype(np.uint8)), meta)
        else:
            broken.append(recipe)
    if broken:
        first = broken[0]
        edit = f"edit {first.edit}" if first.edit else "the unedited model"
        raise UserError(
            f"{len(broken)} of {len(batch)} images are not numbers from 0 to 1 (NaN, infinite or beyond), first {first.key}, prompt {first.prompt!r}, "
            f"seed {first.seed}, {edit}; nothing was saved for them. Look for weights that are too large, "
            f"or use dtype=float32 (now {first.dtype})"
        )
