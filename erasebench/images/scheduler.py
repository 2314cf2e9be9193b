"""Samplers: the scheduler that a protocol names, fitted to a model, and what of it decides an image."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
import numpy as np
from diffusers.schedulers import KarrasDiffusionSchedulers

from erasebench.errors import UserError, suggest
from erasebench.recipe import canonical_json

# The first draws its noise for a whole batch at once, the second is made for another noise schedule.
_UNFIT = {"DPMSolverSDEScheduler", "EDMEulerScheduler"}


SCHEDULERS = tuple(entry.name for entry in KarrasDiffusionSchedulers if entry.name not in _UNFIT)
"""The samplers of diffusers that work with Stable Diffusion up to XL and draw noise for each image on its own."""


FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler",)
"""The samplers for flow-matching models (SD 3, FLUX), whose noise schedule is another."""


def make_scheduler(name: str, config: Mapping[str, Any], pipe: Any) -> Any:
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
    if getattr(pipe, "transformer", None) is not None:
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


def scheduler_identity(pipe: Any, name: str, config: Mapping[str, Any]) -> tuple[str, str]:
    """The class name and the full settings (canonical JSON) of the scheduler that :func:`make_scheduler` builds.

    These two go into a recipe: the scheduler can be built from them alone.
    """
    scheduler = make_scheduler(name, config, pipe)
    # A config also carries settings of the class it came from, which decide nothing here.
    effective = {setting: scheduler.config[setting] for setting in _settings(type(scheduler))}
    return type(scheduler).__name__, canonical_json(_json_value(effective))


def _settings(kind: type) -> list[str]:
    return [name for name in inspect.signature(kind.__init__).parameters if name not in ("self", "kwargs")]


def _json_value(value: Any) -> Any:
    """NumPy values as JSON values."""
    if isinstance(value, dict):
        return {name: _json_value(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(entry) for entry in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
