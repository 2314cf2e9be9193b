"""A further row of the denoiser for each image, beside that of the prompt and the unconditional one of guidance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from erasebench.errors import UserError
from erasebench.models.pipeline import Pipeline, part_of

THIRD = "a third pass of the network"
"""The place of hooks that make one (:attr:`erasebench.edits.hook.Hook.places`)."""


@contextmanager
def third_pass(
    pipe: Pipeline, who: str, texts: Callable[[], tuple[Tensor, ...] | None], after: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Send one more text through a UNet with each image, for a ``with`` block.

    Args:
        pipe: a Stable Diffusion pipeline (1.x, 2.x, XL).
        who: for messages.
        texts: called at each step for the texts of the batch at hand: rows [n, positions, d], for SDXL the pooled
            texts [n, p] too; ``None`` where no batch is being sampled, and the UNet is then left alone.
        after: from the predictions [k + 1, n, ...] (k = 2: without the prompt, with it, with the further text; without
            guidance k = 1) to those [k, n, ...] that the pipeline goes on with.

    Raises:
        UserError: while sampling, for a UNet that is not given one or two rows an image.
    """
    unet = part_of(pipe, "unet")
    asked = 0

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        nonlocal asked
        third = texts()
        asked = 0 if third is None else len(third[0])
        if third is None:
            return args, kwargs
        latents, n = args[0], asked
        if len(latents) not in (n, 2 * n):
            raise UserError(f"{who}: the UNet was given {len(latents)} rows for {n} images, not one or two for each")
        rows = kwargs["encoder_hidden_states"]
        more = {"encoder_hidden_states": torch.cat([rows, third[0].to(rows)])}
        added = kwargs.get("added_cond_kwargs")
        if added:  # SDXL: the pooled text, and the sizes of the image
            more["added_cond_kwargs"] = added | {
                "text_embeds": torch.cat([added["text_embeds"], third[1].to(rows)]),
                "time_ids": torch.cat([added["time_ids"], added["time_ids"][-n:]]),
            }
        return (torch.cat([latents, latents[-n:]]), *args[1:]), kwargs | more

    def behind(module: Any, args: tuple[Any, ...], output: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not asked:
            return None
        return (after(output[0].unflatten(0, (-1, asked))).flatten(0, 1), *output[1:])

    handles = [unet.register_forward_pre_hook(before, with_kwargs=True), unet.register_forward_hook(behind)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
