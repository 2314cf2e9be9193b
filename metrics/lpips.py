"""LPIPS to the unedited image of the same prompt and seed: how far did the edit move this image."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from PIL import Image

from erasebench.errors import UserError, suggest
from erasebench.metrics._common import (
    absent,
    batches,
    device,
    download_torch_hub,
    has_package,
    read_torch_hub,
    torch_hub_file,
)
from erasebench.scores.metric import Metric

ALEXNET_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
SIDE = 64
"""Pixels of the papers' down-scaled images."""


def resize_antialiased(image: Image.Image) -> np.ndarray:
    """The shorter side to 64 pixels, bilinear, antialiased: torchvision's ``Resize(64)`` on PIL (ESD, UCE, CURE)."""
    from torchvision.transforms.functional import resize

    return np.array(resize(image.convert("RGB"), SIDE))


def resize_plain(image: Image.Image) -> np.ndarray:
    """To 64 x 64, bilinear without antialiasing: OpenCV's ``resize`` (RECE). It reads a few of the pixels only."""
    import cv2

    return cv2.resize(np.array(image.convert("RGB")), (SIDE, SIDE))


def no_resize(image: Image.Image) -> np.ndarray:
    """The image as it is."""
    return np.array(image.convert("RGB"))


@dataclass(frozen=True)
class Variant:
    """How images are prepared, and who reports it so."""

    prepare: Callable[[Image.Image], np.ndarray]
    describe: str


VARIANTS = {
    "64": Variant(resize_antialiased, "LPIPS (AlexNet) to the unedited image at 64 px, antialiased (ESD, UCE, CURE)"),
    "64_cv2": Variant(resize_plain, "LPIPS (AlexNet) to the unedited image at 64 px by OpenCV, no antialiasing (RECE)"),
    "full": Variant(no_resize, "LPIPS (AlexNet) to the unedited image at full size"),
}


@functools.lru_cache(maxsize=1)
def _network(device_name: str) -> torch.nn.Module:
    """LPIPS 0.1 with AlexNet. The linear weights are in the package; AlexNet's are read as plain tensors."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=UserWarning)  # torchvision's, about the old name of an argument
        network = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
    weights = read_torch_hub(ALEXNET_URL)
    places = network.net.state_dict()  # slice1.0.weight ...: the layers of AlexNet's features under their own numbers
    network.net.load_state_dict({place: weights["features." + place.split(".", 1)[1]] for place in places})
    return network.eval().to(device(device_name))


@dataclass(kw_only=True, eq=False)
class Lpips(Metric):
    """Learned perceptual distance (Zhang et al., 2018; package ``lpips``, weights 0.1, AlexNet) of image and original.

    Papers report it on images scaled down to 64 pixels, in two ways that give two scales, and rarely at full size.
    Up is better for erased prompts (LPIPS_e) and down for the others (LPIPS_u).

    Attributes:
        variant: ``64``, ``64_cv2`` or ``full``; the metric is called ``lpips_<variant>``.
        device: where it runs.
        batch_size: pairs at a time (1 is used where sizes differ).

    Raises:
        UserError: unknown variant.
    """

    variant: str
    device: str = "auto"
    batch_size: int = 32

    version = "1-7be5be79"
    directions = {"erase": "up", "retain": "down", "general": "down"}
    inputs = ("original_key",)
    paired_with = "original_key"

    def __post_init__(self) -> None:
        self.variant = str(self.variant)
        if self.variant not in VARIANTS:
            hint = suggest(self.variant, VARIANTS)
            raise UserError(f"lpips: no variant {self.variant!r}.{hint} Known: {', '.join(VARIANTS)}")
        self.name = f"lpips_{self.variant}"
        self.describe = VARIANTS[self.variant].describe

    @property
    def needs(self) -> tuple[str, ...]:
        return ("package lpips", "AlexNet (torchvision, IMAGENET1K_V1)")

    def unavailable(self) -> str | None:
        if not has_package("lpips"):
            return "the package lpips is missing; run: pip install lpips"
        place = torch_hub_file(ALEXNET_URL)
        return None if place.exists() else absent("AlexNet of torchvision", place)

    def prefetch(self) -> None:
        download_torch_hub(ALEXNET_URL)

    def score(
        self, images: Sequence[Image.Image], rows: pd.DataFrame, originals: Sequence[Image.Image] | None = None
    ) -> pd.DataFrame:
        if originals is None:
            raise UserError(f"{self.name} compares with the unedited images; none were given")
        network = _network(self.device)
        return pd.DataFrame({"value": self._distances(network, images, originals)})

    @torch.inference_mode()
    def _distances(
        self, network: torch.nn.Module, images: Sequence[Image.Image], originals: Sequence[Image.Image]
    ) -> list[float]:
        prepare, on = VARIANTS[self.variant].prepare, device(self.device)
        pairs = [(prepare(image), prepare(original)) for image, original in zip(images, originals, strict=True)]
        for place, (ours, theirs) in enumerate(pairs):
            if ours.shape != theirs.shape:
                raise UserError(f"{self.name}: image {place} has shape {ours.shape}, its original {theirs.shape}")
        one_size = len({ours.shape for ours, _ in pairs}) == 1
        found: list[float] = []
        for part in batches(pairs, self.batch_size if one_size else 1):
            one, other = (
                torch.from_numpy(np.stack(side)).permute(0, 3, 1, 2).to(on).float() / 127.5 - 1
                for side in zip(*part, strict=True)
            )
            found.extend(network(one, other).flatten().double().cpu().tolist())
        return found
