"""How far an image moved from the unedited one, in the embedded judge's features. A download-free cousin of LPIPS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from erasebench.errors import UserError
from erasebench.metrics import _embedded
from erasebench.scores.metric import Metric


@dataclass(kw_only=True, eq=False)
class JudgeDistance(Metric):
    """Squared distance of the judge's feature vectors, each scaled to length 1: ``|f/|f| - g/|g||^2``, from 0 to 2.

    LPIPS compares normalised features of every place of an image and weights them by human opinion; this compares one
    normalised vector of the whole image and knows no opinion. It is for the embedded model's images only.

    Attributes:
        device: where it runs.
        batch_size: images at a time.
    """

    device: str = "auto"
    batch_size: int = 256

    name = "judge_distance"
    directions = {"erase": "up", "retain": "down", "general": "down"}
    inputs = ("original_key",)
    paired_with = "original_key"
    describe = "distance to the unedited image of the same prompt and seed, in the embedded judge's features"

    def __post_init__(self) -> None:
        self.version = f"1-{_embedded.fingerprint(_embedded.JUDGE_FOLDER)}"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("the embedded model's judge",)

    def unavailable(self) -> str | None:
        return _embedded.unavailable(_embedded.JUDGE_FOLDER)

    def score(
        self, images: Sequence[Image.Image], rows: pd.DataFrame, originals: Sequence[Image.Image] | None = None
    ) -> pd.DataFrame:
        if originals is None:
            raise UserError(f"{self.name} compares with the unedited images; none were given")
        ours, theirs = (
            _unit(_embedded.judge_features(part, _embedded.JUDGE_FOLDER, self.device, self.batch_size))
            for part in (images, originals)
        )
        return pd.DataFrame({"value": ((ours - theirs) ** 2).sum(axis=1)})


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1 in float64; a row of zeros stays one."""
    wide = rows.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
