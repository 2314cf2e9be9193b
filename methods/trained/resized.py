"""Images resized at random, with words for it (Custom Diffusion, Kumari et al., CVPR 2023, whose data Concept Ablation has)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from erasebench.methods.trained.training import below

AWAY = ("a far away ", "very small ")
NEAR = ("zoomed in ", "close up ")
WORDS = ("", *AWAY, *NEAR)
"""What may stand before a prompt."""

SMALLER = 0.66
"""The share of images that become smaller, or stay."""

FAR = 0.6
"""Of the side: below it the words say that what is shown is far away."""


@dataclass(frozen=True)
class Resized:
    """An image at another size, in its old frame.

    Attributes:
        image: of the size of the original; grey where nothing is shown.
        mask: [height, width] of its latents, 1 where it shows something and 0 elsewhere.
        words: that say how it was resized; they end with a blank, or are empty.
    """

    image: Image.Image
    mask: Tensor
    words: str

    @classmethod
    def of(cls, picture: Image.Image, factor: int, numbers: torch.Generator) -> Resized:
        """As in the release: in 66 % of all cases a third of the side to all of it, anywhere in the frame, else a cut-out of
        1.2 to 1.4 times the size; mirrored in half of all cases. The outermost latents of a smaller image do not count.

        Args:
            picture: square.
            factor: pixels of a side for each latent.
            numbers: the random numbers.
        """
        side = picture.width
        if torch.rand((), generator=numbers) < SMALLER:
            scale = below(side // 3, side + 1, numbers)
        else:
            scale = below(int(1.2 * side), int(1.4 * side), numbers)
        top, left = (below(0, abs(side - scale) + 1, numbers) for _ in range(2))
        if torch.rand((), generator=numbers) < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        other = picture.convert("RGB").resize((scale, scale), Image.Resampling.BICUBIC)
        mask = torch.zeros(side // factor, side // factor)
        if scale > side:
            other = other.crop((left, top, left + side, top + side))
            mask[:] = 1
        else:
            frame = Image.new("RGB", (side, side), (128, 128, 128))
            frame.paste(other, (left, top))
            other = frame
            rows, columns = (_inside(start, scale, factor) for start in (top, left))
            mask[rows, columns] = 1
        words: tuple[str, ...] = AWAY if scale < FAR * side else NEAR if scale > side else ("",)
        return cls(other, mask, words[below(0, len(words), numbers)])


def _inside(start: int, length: int, factor: int) -> slice:
    """The latents of a stretch of pixels, without the outermost; ours: with them where nothing else would be left."""
    first, last = start // factor, max((start + length) // factor, start // factor + 1)
    return slice(first + 1, last - 1) if last - first > 2 else slice(first, last)
