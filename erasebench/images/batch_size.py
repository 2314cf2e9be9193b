"""How many images are made at a time: as many as was asked for, or as many as pays, and fewer where memory is short."""

from __future__ import annotations

import logging
import math

import torch

from erasebench.errors import UserError
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import denoiser
from erasebench.recipe import Recipe

log = logging.getLogger(__name__)

AUTO = "auto"
ON_CPU = 16
"""By itself on a CPU, where 8 to 64 small images a batch were equally fast; a fixed number, so that pixels repeat."""

FIRST, MOST = 8, 128
"""By itself on a GPU: the first batches, and the largest."""

PAYS = 0.95
"""A batch of twice the images pays if an image takes less than this share of its time."""

OUT_OF_MEMORY = (
    "out of memory", "not enough memory", "can't allocate memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed",
)  # fmt: skip
"""How errors say that memory ran out, in lower case."""


class BatchSize:
    """The number of images a batch, shared by all that a process generates.

    By itself it begins with :data:`FIRST` on a GPU and is doubled while an image gets cheaper, two batches a size (the first
    may be slowed by preparations); it is halved where memory runs out, and does not grow again.

    Args:
        size: images a batch, or :data:`AUTO`.
        device: type of the device, e.g. ``cuda``.

    Attributes:
        now: images of the next batch.
    """

    def __init__(self, size: int | str, device: str) -> None:
        self._grows = size == AUTO and device != "cpu"
        self.now = int(size) if size != AUTO else FIRST if self._grows else ON_CPU
        self._seconds: dict[int, list[float]] = {}

    def took(self, count: int, seconds: float) -> None:
        """Say what an image of a batch of some images took; only whole batches tell of their size."""
        if not self._grows or count != self.now:
            return
        self._seconds.setdefault(count, []).append(seconds)
        if len(self._seconds[count]) < 2:
            return
        before = self._seconds.get(count // 2)
        if before and min(self._seconds[count]) > PAYS * min(before):
            self.now, self._grows = count // 2, False
        elif count >= MOST:
            self._grows = False
        else:
            self.now = 2 * count

    def halve(self, count: int, recipe: Recipe, pipe: Pipeline, share: float = 1.0) -> None:
        """Go on with half of what was too much.

        Args:
            count: images of the batch for which memory was too small.
            recipe: one of them.
            pipe: whose memory it is.
            share: of a batch that is left for images where hooks need the rest.

        Raises:
            UserError: it was one image.
        """
        device = denoiser(pipe).device.type
        if device in ("cuda", "mps"):
            getattr(torch, device).empty_cache()
        if count == 1:
            raise UserError(
                f"{device}: out of memory for a single image of {recipe.width} x {recipe.height} pixels; "
                "close other programs, use dtype=float16, a smaller protocol.size, or device=cpu"
            )
        log.warning("%s: out of memory at %d images a batch; going on with %d", device, count, count // 2)
        self.now, self._grows = math.ceil(count // 2 / share), False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # Metal, the CPU allocator and the libraries of CUDA raise a plain RuntimeError.
    text = str(error).lower()
    return any(words in text for words in OUT_OF_MEMORY)
