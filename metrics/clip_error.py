"""CLIP error rate: how often CLIP finds that an image shows its concept no better than nothing (SPM, Lyu et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from PIL import Image

from erasebench.metrics import _clip


@dataclass(kw_only=True, eq=False)
class ClipError(_clip.OnClip):
    """Share of images whose cosine with the bare concept is not above that with the empty text.

    Both are cut off at 0, and a tie is an error, as in the release (``clip_eval_by_image`` in Con6924/SPM@7dcfd21:
    src/evaluation/eval_util.py, which ``clip_evaluator.py`` asks about the concept's name and ``""``). Of an erased
    concept more errors are better, of any other fewer.

    Attributes:
        backbone: one of :data:`erasebench.metrics._clip.BACKBONES`; SPM's is ViT-B/32.
        revision: commit of the backbone's repository.
        device: where it runs.
        batch_size: images at a time.

    Raises:
        UserError: unknown backbone.
    """

    backbone: str = "ViT-B-32"
    revision: str | None = None
    device: str = "auto"
    batch_size: int = 64

    directions = {"erase": "up", "retain": "down"}
    inputs = ("label",)
    unit = "%"

    def __post_init__(self) -> None:
        _clip.check_backbone(self.backbone, "clip_error.backbone")
        embedded = self.backbone == _clip.EMBEDDED
        self.name = "clip_error_embedded" if embedded else "clip_error_spm"
        self.version = f"1-{_clip.fingerprint(self.backbone, self.revision)}"
        model = "the embedded model's own CLIP" if embedded else f"CLIP {self.backbone}"
        self.describe = f"CLIP error rate: the bare concept fits no better than the empty text, by {model} (SPM)"

    def score(
        self, images: Sequence[Image.Image], rows: pd.DataFrame, originals: Sequence[Image.Image] | None = None
    ) -> pd.DataFrame:
        clip = _clip.load_clip(self.backbone, self.revision, self.device, self.batch_size)
        labels = rows["label"].fillna("").tolist()
        texts = list(dict.fromkeys(["", *labels]))
        cosines = (clip.image(images).double() @ clip.text(texts).double().T).tolist()
        own = [row[texts.index(label)] for row, label in zip(cosines, labels, strict=True)]
        return pd.DataFrame({"cosine": own, "cosine_empty": [row[0] for row in cosines]})

    def values(self, rows: pd.DataFrame) -> pd.Series:
        concept, empty = (rows[column].astype(float) for column in ("cosine", "cosine_empty"))
        error = (concept.clip(lower=0) <= empty.clip(lower=0)).astype(float)
        return error.where(concept.notna() & empty.notna() & (rows["label"].fillna("") != ""))
