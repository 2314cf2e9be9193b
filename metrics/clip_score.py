"""CLIP score: how well an image fits a text. Published tables use six forms of it; each is a variant of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from PIL import Image

from erasebench.errors import UserError, suggest
from erasebench.metrics import _clip
from erasebench.scores.estimate import Estimate
from erasebench.scores.metric import Metric
from erasebench.scores.rates import WILSON


def file_name_text(prompt: str) -> str:
    """The text that survives when a prompt is made a file name and read back: no punctuation, single spaces."""
    return " ".join(re.sub(r"[^\w\s]", "", prompt).replace("_", " ").split())


@dataclass(frozen=True)
class Variant:
    """One form of the score.

    Attributes:
        backbone: the CLIP.
        text: ``prompt``, ``label`` (the bare concept) or ``file name`` (:func:`file_name_text`; a prompt that asks for no
            concept, as a COCO caption, as it is).
        scale: the number it is multiplied by.
        clip_each: negative cosines count as 0.
        clip_mean: a negative mean counts as 0 (torchmetrics clips the mean, not the images).
        describe: who reports it so.
    """

    backbone: str
    text: str
    scale: float
    describe: str
    clip_each: bool = False
    clip_mean: bool = False


VARIANTS: dict[str, Variant] = {
    "uce": Variant("ViT-B-32", "prompt", 100, "ViT-B/32, 100 cos with the prompt (UCE, MACE, RECE; ~31 on COCO)"),
    "torchmetrics": Variant(
        "ViT-L-14",
        "prompt",
        100,
        "ViT-L/14, as torchmetrics does: 100 cos with the prompt, the mean clipped at 0",
        clip_mean=True,
    ),
    "speed": Variant(
        "ViT-L-14", "file name", 100, "ViT-L/14, 100 cos with the prompt less its punctuation, captions whole (SPEED)"
    ),
    "spm": Variant(
        "ViT-B-32",
        "label",
        2.5,
        "ViT-B/32, 2.5 max(cos, 0) with the bare concept (SPM, after Hessel et al. 2021)",
        clip_each=True,
    ),
    "eraseeval": Variant("EVA02-L-14-336", "prompt", 1, "EVA02-L/14 at 336 px, cosine with the prompt (EraseEval)"),
    "embedded": Variant(_clip.EMBEDDED, "prompt", 100, "the embedded model's own CLIP, 100 cos with the prompt"),
}


@dataclass(kw_only=True, eq=False)
class ClipScore(Metric):
    """CLIP score of an image and a text.

    What is stored is the cosine; :data:`VARIANTS` says which CLIP, which text and what is made of the cosine. A prompt
    without the text that the variant reads (a general prompt has no label) has no number. SPEED's release averages
    over batches first, which weighs a short last batch more; here every image weighs the same.

    Attributes:
        variant: a key of :data:`VARIANTS`; the metric is called ``clip_score_<variant>``.
        revision: commit of the backbone's repository, 40 hex digits; not given: what is in the cache under ``main``.
        device: where it runs.
        batch_size: images at a time.

    Raises:
        UserError: unknown variant.
    """

    variant: str
    revision: str | None = None
    device: str = "auto"
    batch_size: int = 64

    directions = {"erase": "down", "paraphrase": "down", "retain": "up", "general": "up"}

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            hint = suggest(self.variant, VARIANTS)
            raise UserError(f"clip_score: no variant {self.variant!r}.{hint} Known: {', '.join(VARIANTS)}")
        self._variant = VARIANTS[self.variant]
        self.name = f"clip_score_{self.variant}"
        rule = "2" if self._variant.text == "file name" else "1"  # 1 read captions less their punctuation, too
        self.version = f"{rule}-{_clip.fingerprint(self._variant.backbone, self.revision)}"
        self.inputs = {"label": ("label",), "prompt": ("prompt",), "file name": ("prompt", "label")}[self._variant.text]
        self.describe = f"CLIP score: {self._variant.describe}"

    @property
    def needs(self) -> tuple[str, ...]:
        return _clip.needs(self._variant.backbone)

    def unavailable(self) -> str | None:
        return _clip.unavailable(self._variant.backbone, self.revision)

    def prefetch(self) -> None:
        _clip.prefetch(self._variant.backbone, self.revision)

    def score(
        self, images: Sequence[Image.Image], rows: pd.DataFrame, originals: Sequence[Image.Image] | None = None
    ) -> pd.DataFrame:
        clip = _clip.load_clip(self._variant.backbone, self.revision, self.device, self.batch_size)
        return pd.DataFrame({"cosine": cosines(clip, images, self._texts(rows))})

    def _texts(self, rows: pd.DataFrame) -> list[str]:
        readers: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
            "prompt": lambda rows: rows["prompt"],
            "label": lambda rows: rows["label"].fillna(""),
            "file name": lambda rows: rows["prompt"].where(
                rows["label"].fillna("") == "", rows["prompt"].map(file_name_text)
            ),
        }
        return readers[self._variant.text](rows).tolist()

    def values(self, rows: pd.DataFrame) -> pd.Series:
        numbers = rows["cosine"].astype(float)
        numbers = (numbers.clip(lower=0) if self._variant.clip_each else numbers) * self._variant.scale
        return numbers.where(rows["label"].fillna("") != "") if self._variant.text == "label" else numbers

    def reduce(self, rows: pd.DataFrame, original: pd.DataFrame | None = None, rates: str = WILSON) -> Estimate:
        estimate = super().reduce(rows, original)
        if not self._variant.clip_mean:
            return estimate
        value, low, high = np.maximum((estimate.value, estimate.low, estimate.high), 0.0).tolist()
        return replace(estimate, value=value, low=low, high=high)


def cosines(clip: _clip.Clip, images: Sequence[Image.Image], texts: Sequence[str]) -> np.ndarray:
    """Cosine of each image with its text, float64 ``[n]``. Each distinct text is encoded once."""
    distinct = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    encoded = clip.text(list(distinct)).double()
    chosen = encoded[[distinct[text] for text in texts]]
    return (clip.image(images).double() * chosen).sum(dim=1).numpy()
