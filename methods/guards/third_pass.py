"""A third row of the denoiser for each image, beside those of classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from erasebench.errors import UserError
from erasebench.models.pipeline import Pipeline, part_of


@contextmanager
def third_pass(
    pipe: Pipeline, who: str, texts: Callable[[], tuple[Tensor, ...] | None], after: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Send a third text through a UNet with each image, for a ``with`` block.

    Args:
        pipe: a Stable Diffusion pipeline (1.x, 2.x, XL), sampled with guidance.
        who: for messages.
        texts: called at each step for the texts of the batch at hand: rows [n, positions, d], for SDXL the pooled
            texts [n, p] too; ``None`` where no batch is being sampled, and the UNet is then left alone.
        after: from the predictions [3, n, ...] (without the prompt, with it, with the third text) to those [2, n, ...]
            that the pipeline goes on with.

    Raises:
        UserError: while sampling, for a UNet that is not given two rows an image.
    """
    asked = False

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        nonlocal asked
        third = texts()
        asked = third is not None
        if third is None:
            return args, kwargs
        latents, n = args[0], len(third[0])
        if len(latents) != 2 * n:
            raise UserError(
                f"{who}: the UNet was given {len(latents)} rows for {n} images, not one with and one without the "
                "prompt; use protocol.guidance above 1, and a model that makes both passes"
            )
        rows = kwargs["encoder_hidden_states"]
        more = {"encoder_hidden_states": torch.cat([rows, third[0].to(rows)])}
        added = kwargs.get("added_cond_kwargs")
        if added:  # SDXL: the pooled text, and the sizes of the image
            more["added_cond_kwargs"] = added | {
                "text_embeds": torch.cat([added["text_embeds"], third[1].to(rows)]),
                "time_ids": torch.cat([added["time_ids"], added["time_ids"][n:]]),
            }
        return (torch.cat([latents, latents[n:]]), *args[1:]), kwargs | more

    def behind(module: Any, args: tuple[Any, ...], output: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not asked:
            return None
        predicted = output[0]
        return (after(predicted.unflatten(0, (3, len(predicted) // 3))).flatten(0, 1), *output[1:])

    unet = part_of(pipe, "unet")
    handles = [
        unet.register_forward_pre_hook(before, with_kwargs=True),
        unet.register_forward_hook(behind),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
