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

    viewer: str | None = None
    revision: str | None = None
    device: str = "auto"

    name = "seen"
    for_scoring = ("viewer", "device")
    directions = {"erase": "down", "paraphrase": "down", "retain": "up"}
    inputs = ("label", "kind")
    unit = "%"

    def __post_init__(self) -> None:
        self._viewer = self.viewer or ""
        self.version = f"1-{_viewer.viewer_version(self._viewer, self.revision)}"
        self.describe = f"share of images in which {_viewer.shown_source(self._viewer)} sees the concept (HUB's proportion, by another judge)"

    @property
    def needs(self) -> tuple[str, ...]:
        return (_viewer.shown_source(self._viewer),)

    def unavailable(self) -> str | None:
        if not self._viewer or self._viewer == _viewer.EMBEDDED:
            return "seen asks a vision-language model: set metric.seen.viewer=FOLDER or a Hub id (the embedded world has judge)"
        return _viewer.unavailable(self._viewer, self.revision, "metric.seen.viewer", viewer=True)

    def prefetch(self) -> None:
        _viewer.fetch(self._viewer, self.revision)

    def score(
        self, images: Sequence[Image.Image], rows: pd.DataFrame, originals: Sequence[Image.Image] | None = None
    ) -> pd.DataFrame:
        viewer = _viewer.load_viewer(self._viewer, self.revision, self.device)
        return pd.DataFrame({"answer": viewer.seen(images, rows["label"].fillna("").tolist(), rows["kind"].tolist())})

    def values(self, rows: pd.DataFrame) -> pd.Series:
        seen = (rows["answer"] == _viewer.YES).astype(float)
        return seen.where((rows["answer"] != "") & (rows["label"].fillna("") != ""), np.nan)

    def shown(self, rows: pd.DataFrame) -> pd.Series:
        """Nothing: it says whether the concept is there, and never what is."""
        return pd.Series("", index=rows.index, dtype=str)
