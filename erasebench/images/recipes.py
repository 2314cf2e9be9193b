"""From a row of prompts and a protocol to the recipe of its image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd

from erasebench.config.protocol import Protocol
from erasebench.images.edit_image import SCHEDULERS, check_editable
from erasebench.images.scheduler import check_steps, make_scheduler, scheduler_identity
from erasebench.models.load import Model
from erasebench.recipe import Recipe


def recipe_maker(model: Model, protocol: Protocol) -> Callable[[Any, str], Recipe]:
    """What makes the recipe of one image in a loaded model under a protocol.

    Returns:
        A function of a row (attributes ``prompt``, ``seed``, ``negative_prompt``, and ``guidance``, ``width`` and
        ``height``, which may be missing numbers) and of the key of an edit (``""``: the unedited model). Where a protocol
        edits images, the recipe is that of an edited one, and the row has ``source_prompt``, too.

    Raises:
        UserError: the sampler is not one of this model's, or cannot make so many steps; or its images cannot be edited.
    """
    drawn = source_maker(model, protocol)
    editing = protocol.editor
    if editing is None:
        return drawn
    check_editable(model.pipe, editing.by)
    name, config = SCHEDULERS[editing.by]
    scheduler, scheduler_config = scheduler_identity(model.pipe, name, config)
    check_steps(make_scheduler(name, config, model.pipe), editing.steps)

    def edited(row: Any, edit: str) -> Recipe:
        source = drawn(row._replace(prompt=row.source_prompt), "")
        return replace(
            source,
            edit=edit,
            prompt=row.prompt,
            steps=editing.steps,
            guidance=editing.guidance,
            scheduler=scheduler,
            scheduler_config=scheduler_config,
            source=source.key,
            editing=editing.text(row.source_prompt),
        )

    return edited


def source_maker(model: Model, protocol: Protocol) -> Callable[[Any, str], Recipe]:
    """What makes the recipe of an image that is drawn from noise; of a protocol that edits, of the images that are edited.

    Raises:
        UserError: as :func:`recipe_maker`.
    """
    scheduler, scheduler_config = scheduler_identity(model.pipe, protocol.scheduler, protocol.scheduler_config)
    check_steps(make_scheduler(protocol.scheduler, protocol.scheduler_config, model.pipe), protocol.steps)
    size, rng = protocol.size or model.size, protocol.noise_on(model.device)

    def recipe_of(row: Any, edit: str) -> Recipe:
        own_guidance = protocol.prompt_guidance and pd.notna(row.guidance)
        own_size = protocol.prompt_size and pd.notna(row.width) and pd.notna(row.height)
        return Recipe(
            model=model.name,
            revision=model.revision,
            edit=edit,
            prompt=row.prompt,
            negative_prompt=row.negative_prompt or protocol.negative_prompt,
            seed=int(row.seed),
            steps=protocol.steps,
            guidance=float(row.guidance if own_guidance else protocol.guidance),
            width=int(row.width if own_size else size),
            height=int(row.height if own_size else size),
            scheduler=scheduler,
            scheduler_config=scheduler_config,
            dtype=model.dtype,
            rng=rng,
        )

    return recipe_of
