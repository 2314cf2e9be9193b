"""Samplers: the scheduler that a protocol names, fitted to a model, and what of it decides an image."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.schedulers import KarrasDiffusionSchedulers

from erasebench.errors import UserError, suggest
from erasebench.models.pipeline import Pipeline, part_of
from erasebench.recipe import canonical_json

# The first draws its noise for a whole batch at once, the second is made for another noise schedule.
_UNFIT = {"DPMSolverSDEScheduler", "EDMEulerScheduler"}


SCHEDULERS = tuple(entry.name for entry in KarrasDiffusionSchedulers if entry.name not in _UNFIT)
"""The samplers of diffusers that work with Stable Diffusion up to XL and draw noise for each image on its own."""


FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler",)
"""The samplers for flow-matching models (SD 3, FLUX), whose noise schedule is another."""


TRAINED = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
    "rescale_betas_zero_snr",
)  # fmt: skip
"""What a model's scheduler says of the model: the noise it was trained with, and what it predicts."""

STABLE_DIFFUSION = {"steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True}
"""How the samplers of all Stable Diffusion models are set, where a class has the setting."""


def make_scheduler(name: str, config: Mapping[str, Any], pipe: Pipeline) -> Any:
    """Build a sampler for a model.

    Up to Stable Diffusion XL only :data:`TRAINED` is read of the model's own scheduler. The rest of it says how the model
    was last sampled, and is other for one model in two places: diffusers writes down every setting of a model that it
    saves (``timestep_spacing: leading``), which the model's files on the Hub leave to each class (``linspace`` for LMS).
    Flow-matching models keep all of theirs: there is one sampler for them, and its shift is theirs.

    Args:
        name: class name in diffusers; ``DDIM`` is short for ``DDIMScheduler``.
        config: the sampler's settings, where they are not :data:`STABLE_DIFFUSION` or its class's defaults.
        pipe: a diffusers pipeline.

    Raises:
        UserError: an unknown scheduler or setting (the nearest is named), one for another kind of model, or settings
            that cannot be.
    """
    full = name if name.endswith("Scheduler") else f"{name}Scheduler"
    fit, unfit, cure = (SCHEDULERS, FLOW_SCHEDULERS, "default")
    if part_of(pipe, "transformer") is not None:
        fit, unfit, cure = (FLOW_SCHEDULERS, SCHEDULERS, "flow_flux" if hasattr(pipe, "_pack_latents") else "flow")
    if full in unfit:
        raise UserError(
            f"scheduler {full} does not suit {type(pipe).__name__}, which is "
            f"{'a flow-matching model' if fit is FLOW_SCHEDULERS else 'not a flow-matching model'}; "
            f"use protocol={cure} (or protocol.scheduler={fit[0]})"
        )
    if full not in fit:
        hint = suggest(full, fit) or f" There are {', '.join(fit)}."
        raise UserError(f"unknown scheduler {name!r}.{hint}")
    kind = getattr(diffusers, full)
    known = _settings(kind)
    for setting in config:
        if setting not in known:
            hint = suggest(setting, known) or f" There are {', '.join(known)}."
            raise UserError(f"scheduler {full}: unknown setting {setting!r}.{hint}")
    own = pipe.scheduler.config
    if fit is SCHEDULERS:
        own = STABLE_DIFFUSION | {setting: own[setting] for setting in TRAINED if setting in own}
    try:
        made = kind.from_config({setting: own[setting] for setting in known if setting in own}, **config)
    except (ValueError, NotImplementedError, TypeError) as error:
        raise UserError(f"scheduler {full}: settings {dict(config)} do not work: {error}") from error
    if made.config.get("stochastic_sampling"):
        # The pipelines give this sampler no generator, so its noise would come from no image's seed.
        raise UserError(f"scheduler {full}: an image must follow from its seed; set stochastic_sampling=false")
    return made


def check_steps(scheduler: Any, steps: int) -> None:
    """Refuse a sampler that cannot make so many steps with its settings, by a walk through them without a network.

    Some settings agree with each other at some numbers of steps only (DPM++ with Karras sigmas and cosine betas), and
    diffusers notices in the middle of an image.

    Args:
        scheduler: as :func:`make_scheduler` builds it; it is left with these steps set.
        steps: of the protocol.

    Raises:
        UserError: naming the sampler, the steps and what went wrong.
    """
    if type(scheduler).__name__ in FLOW_SCHEDULERS:  # these want to know the size of the image first
        return
    name, fault = type(scheduler).__name__, ""
    latents = torch.zeros(1, 4, 1, 1)
    try:
        with torch.random.fork_rng(devices=[]):  # some draw noise
            scheduler.set_timesteps(steps)
            for timestep in scheduler.timesteps:
                scaled = scheduler.scale_model_input(latents, timestep)
                latents = scheduler.step(torch.zeros_like(scaled), timestep, latents, return_dict=False)[0]
    except (IndexError, ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        fault = f"it stops with {type(error).__name__}: {error}"
    if not fault and not torch.isfinite(latents).all():
        fault = "its numbers are not finite"
    if fault:
        raise UserError(
            f"protocol.steps={steps}: {name} cannot make these steps with its settings ({fault}); take another number of "
            "steps, another protocol.scheduler, or other protocol.scheduler_config (betas and sigmas must suit each other)"
        )


def scheduler_identity(pipe: Pipeline, name: str, config: Mapping[str, Any]) -> tuple[str, str]:
    """The class name and the full settings (canonical JSON) of the scheduler that :func:`make_scheduler` builds.

    These two go into a recipe: the scheduler can be built from them alone.
    """
    scheduler = make_scheduler(name, config, pipe)
    # A config also carries settings of the class it came from, which decide nothing here.
    effective = {setting: scheduler.config[setting] for setting in _settings(type(scheduler))}
    return type(scheduler).__name__, canonical_json(_json_value(effective))


def _settings(kind: Any) -> list[str]:
    return [name for name in inspect.signature(kind.__init__).parameters if name not in ("self", "kwargs")]


def _json_value(value: Any) -> Any:
    """NumPy values as JSON values."""
    if isinstance(value, dict):
        return {name: _json_value(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(entry) for entry in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
