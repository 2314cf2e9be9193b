"""Whether a local vision-language model sees a concept in an image: HUB's proportions, EraseEval's second look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from erasebench.metrics import _viewer
from erasebench.scores.metric import Metric


@dataclass(kw_only=True, eq=False)
class Seen(Metric):
    """Share of images in which a vision-language model sees what the prompt asks for.

    Of erased concepts it is HUB's target proportion, of what a prompt file keeps (HUB's nouns near the target) its
    pinpoint-ness. It is asked one question (:func:`erasebench.metrics._viewer.question`) and answers yes, no or idk; idk
    counts as not seen, as in HUB (eval_vlm.py), and an answer without any of these words is no number. HUB shows three
    reference images and asks for a chain of thought, of a model that is built by code of its repository, and draws the
    answer's words by chance: numbers here are not HUB's.

    Attributes:
        viewer: folder or Hub id of a vision-language model.
        revision: of its repository.
        device: where it runs.
    """

    viewer: str
    revision: str | None = None
    device: str = "auto"

    name = "seen"
    directions = {"erase": "down", "paraphrase": "down", "retain": "up"}
    inputs = ("label", "kind")
    unit = "%"

    def __post_init__(self) -> None:
        self.version = f"1-{_viewer.viewer_version(self.viewer, self.revision)}"
        self.describe = f"share of images in which {self.viewer} sees the concept (HUB's proportion, by another judge)"

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.viewer,)

    def unavailable(self) -> str | None:
        return _viewer.unavailable(self.viewer, self.revision, "metric.seen.viewer")

    def prefetch(self) -> None:
        _viewer.fetch(self.viewer, self.revision)

    def score(
        self, images: Sequence[Image.Image], rows: pd.DataFrame, originals: Sequence[Image.Image] | None = None
    ) -> pd.DataFrame:
        viewer = _viewer.load_viewer(self.viewer, self.revision, self.device)
        return pd.DataFrame({"answer": viewer.seen(images, rows["label"].fillna("").tolist(), rows["kind"].tolist())})

    def values(self, rows: pd.DataFrame) -> pd.Series:
        seen = (rows["answer"] == _viewer.YES).astype(float)
        return seen.where((rows["answer"] != "") & (rows["label"].fillna("") != ""), np.nan)
