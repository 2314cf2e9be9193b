"""Seeing that an eraser or an attack leaves the pipeline as it was: its images would else be those of no known model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from erasebench.errors import UserError
from erasebench.models.marks import mark_spoiled
from erasebench.models.pipeline import Pipeline


@contextmanager
def unaltered(pipe: Pipeline, who: str, doing: str) -> Iterator[None]:
    """Refuse a block that alters a pipeline: its weights and buffers (added, taken away or changed), the training mode of
    its parts, or the hooks of its modules.

    A sum of the bits of every tensor is compared, which takes half a second for a Stable Diffusion in float32. Whatever
    was altered, the pipeline is marked so that no image is made with it (:func:`erasebench.models.marks.mark_spoiled`).

    Args:
        pipe: the pipeline.
        who: what is in the block, for messages: ``eraser x``.
        doing: what it does: ``the edit of church``.

    Raises:
        UserError: naming ``who`` and the first thing that differs.
    """
    before = fingerprint(pipe)
    cause: BaseException | None = None
    try:
        yield
    except BaseException as error:
        cause = error
        raise
    finally:
        after = fingerprint(pipe)
        if after != before:
            first = next(name for name in {**before, **after} if before.get(name) != after.get(name))
            mark_spoiled(pipe, f"altered by {who}")
            if cause is not None and not isinstance(cause, Exception):
                raise cause  # a Ctrl-C stays one
            raise UserError(
                f"{who} altered {first} of the pipeline while it made {doing}, and must leave it as it is; no "
                "image is made with what is left. It should change a copy (copy.deepcopy), or put everything back"
            ) from cause


def fingerprint(pipe: Pipeline) -> dict[str, Any]:
    """What :func:`unaltered` compares: names to values that differ where the pipeline does."""
    prints: dict[str, Any] = {}
    for part, network in pipe.components.items():
        if not isinstance(network, torch.nn.Module):
            continue
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            prints[f"{part}.{name}"] = (tuple(tensor.shape), tensor.dtype, bits(tensor))
        for name, module in network.named_modules():
            place = f"{part}.{name}".rstrip(".")
            prints[f"the mode (train or eval) of {place}"] = module.training
            prints[f"the forward hooks of {place}"] = [
                number
                for hooks in (module._forward_pre_hooks, module._forward_hooks)
                for number, hook in hooks.items()
                # transformers puts in what collects hidden states when they are first asked for, and leaves it there.
                if not str(getattr(hook, "__module__", "")).startswith("transformers.")
            ]
    return prints


def bits(tensor: Tensor) -> int:
    """The sum of a tensor's bits, taken as whole numbers of 64 bits, and at its end of 8. Exact on every device."""
    if tensor.is_meta:  # offloaded: it is not here to be altered
        return 0
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if flat.storage_offset() % 8:  # a part of a larger tensor that does not begin where a whole number of 64 bits does
        flat = flat.clone()
    whole = len(flat) // 8 * 8
    return int(flat[:whole].view(torch.int64).sum()) + int(flat[whole:].sum(dtype=torch.int64))
