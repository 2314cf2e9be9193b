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


def make_scheduler(name: str, config: Mapping[str, Any], pipe: Pipeline) -> Any:
    """Build a scheduler as the model's own with another class and some other settings.

    Args:
        name: class name in diffusers; ``DDIM`` is short for ``DDIMScheduler``.
        config: settings that differ from the model's own scheduler.
        pipe: a diffusers pipeline, whose scheduler's settings (betas, prediction type) are the start.

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
    try:
        made = kind.from_config(pipe.scheduler.config, **config)
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
