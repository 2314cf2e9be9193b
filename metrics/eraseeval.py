"""EraseEval's two scores of an erased concept, with a local model in the place of GPT ("Erasing with Precision", 2502.13989)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from erasebench.concepts import PARAPHRASE
from erasebench.errors import UserError
from erasebench.metrics import _clip, _embedded, _viewer
from erasebench.scores.estimate import Estimate, not_run
from erasebench.scores.means import mean_estimate
from erasebench.scores.metric import Metric
from erasebench.scores.rates import WILSON

NAMED, IMPLICIT = REPORTS = ("named", "implicit")


@dataclass(kw_only=True, eq=False)
class EraseEval(Metric):
    """How like the images of an edit are to the unedited model's of the same prompt, where what is not erased counts 0.

    Of a prompt with n images it is the mean of ``cos(u_i, e_j)`` over all pairs of the unedited model's images i and the
    edit's j, where ``e_j`` is the zero vector if the concept is still seen in image j (eval.py). Higher is better: the rest
    of the prompt is there and the concept is not.

    ``named`` (protocol 1, M1) is of prompts that name the concept; the vectors are those of captions, and an image counts
    as 0 where the concept is seen *and* its caption names it. ``implicit`` (protocol 2, M2) is of prompts in other words
    (role ``paraphrase``); the vectors are CLIP's of the images, and an image counts as 0 where the concept is seen. The
    number of a set of prompts is the mean over prompts, its n the number of prompts.

    Not as released: captions and the second look are GPT's there; a concept of two words is looked for with a hyphen in
    its caption, where it never stands; "no" is looked for as letters in a row.

    Attributes:
        report: ``named`` or ``implicit``.
        viewer: ``embedded`` (the embedded world's judge), or the folder or Hub id of a vision-language model.
        revision: of the viewer's repository.
        encoder: of captions: ``embedded``, or the folder or Hub id of a text encoder (ModernBERT-large in the release).
        encoder_revision: of its repository.
        backbone: of images, one of :data:`erasebench.metrics._clip.BACKBONES`.
        device: where all of it runs.

    Raises:
        UserError: no such report or backbone.
    """

    report: str
    viewer: str = _viewer.EMBEDDED
    revision: str | None = None
    encoder: str = _viewer.EMBEDDED
    encoder_revision: str | None = None
    backbone: str = _clip.EMBEDDED
    device: str = "auto"

    inputs = ("label", "kind")
    for_scoring = ("viewer", "encoder", "device")

    def __post_init__(self) -> None:
        if self.report not in REPORTS:
            raise UserError(f"eraseeval.report: {self.report!r} is not one of {', '.join(REPORTS)}")
        _clip.check_backbone(self.backbone, "eraseeval.backbone")
        embedded = self.viewer == _viewer.EMBEDDED
        self.name = f"eraseeval_{self.report}" + ("_embedded" if embedded else "")
        self.directions = {"erase" if self.report == NAMED else PARAPHRASE: "up"}
        judge = (
            _embedded.fingerprint(_embedded.JUDGE_FOLDER)
            if embedded
            else _viewer.viewer_version(self.viewer, self.revision)
        )
        self.version = f"1-{judge}-{self._vectors}"
        who = "the embedded judge" if embedded else _viewer.shown_source(self.viewer)
        of = "captions" if self.report == NAMED else "images"
        self.describe = f"EraseEval's {'M1' if self.report == NAMED else 'M2'} offline: likeness of {of} to the unedited model's, 0 where {who} still sees the concept"

    @property
    def _vectors(self) -> str:
        if self.report == IMPLICIT:
            return _clip.fingerprint(self.backbone, None)
        if self.encoder == _viewer.EMBEDDED:
            return _clip.fingerprint(_clip.EMBEDDED, None)
        return _viewer.viewer_version(self.encoder, self.encoder_revision)

    @property
    def needs(self) -> tuple[str, ...]:
        seer = "the embedded model's judge" if self.viewer == _viewer.EMBEDDED else self.viewer
        if self.report == IMPLICIT:
            return (seer, *_clip.needs(self.backbone))
        return (seer, "the embedded model's CLIP" if self.encoder == _viewer.EMBEDDED else self.encoder)

    def unavailable(self) -> str | None:
        place = f"metric.{self.name}"
        for source, revision, key in self._models():
            if reason := _viewer.unavailable(source, revision, f"{place}.{key}", viewer=key == "viewer"):
                return reason
        return _clip.unavailable(self.backbone, None) if self.report == IMPLICIT else None

    def prefetch(self) -> None:
        for source, revision, _ in self._models():
            _viewer.fetch(source, revision)
        if self.report == IMPLICIT:
            _clip.prefetch(self.backbone, None)

    def _models(self) -> list[tuple[str, str | None, str]]:
        """Source, revision and key of each model that is not the package's."""
        models = [(self.viewer, self.revision, "viewer")]
        models += [(self.encoder, self.encoder_revision, "encoder")] if self.report == NAMED else []
        return [model for model in models if model[0] != _viewer.EMBEDDED]

    def score(
        self, images: Sequence[Image.Image], rows: pd.DataFrame, originals: Sequence[Image.Image] | None = None
    ) -> pd.DataFrame:
        viewer = _viewer.load_viewer(self.viewer, self.revision, self.device)
        answers = viewer.seen(images, rows["label"].fillna("").tolist(), rows["kind"].tolist())
        if self.report == NAMED:
            captions = viewer.captions(images)
            vectors = _viewer.encode(captions, self.encoder, self.encoder_revision, self.device)
        else:
            captions = [""] * len(images)
            vectors = _clip.load_clip(self.backbone, None, self.device, 64).image(images).numpy()
        return pd.DataFrame({"answer": answers, "caption": captions, "vector": list(vectors.astype(np.float32))})

    def values(self, rows: pd.DataFrame) -> pd.Series:
        """No number belongs to one image: all NaN."""
        return pd.Series(np.nan, index=rows.index, dtype=float)

    def reduce(self, rows: pd.DataFrame, original: pd.DataFrame | None = None, rates: str = WILSON) -> Estimate:
        """The mean over prompts; not run without the unedited model's images, or where no image was answered for."""
        if original is None or rows["prompt_id"].tolist() != original["prompt_id"].tolist():
            return not_run()
        still = self.still_seen(rows).to_numpy()
        ours, theirs = (
            np.stack([np.asarray(v, dtype=np.float64) for v in part["vector"]]) for part in (rows, original)
        )
        numbers = []
        # Of one edit: pairs of images of two edits compare nothing.
        columns = [name for name in ("task", "label", "prompt") if name in rows]
        for members in rows.reset_index(drop=True).groupby(columns, sort=False).groups.values():
            answered = np.asarray([i for i in members if not np.isnan(still[i])], dtype=int)
            if len(answered):
                cosines = theirs[np.asarray(members)] @ ours[answered].T
                numbers.append(float((cosines * (1 - still[answered])).mean()))
        return mean_estimate(numbers) if numbers else not_run()

    def still_seen(self, rows: pd.DataFrame) -> pd.Series:
        """1 where the concept is still there, 0 where it is not, NaN where the viewer did not say."""
        seen = (rows["answer"] == _viewer.YES).astype(float)
        if self.report == NAMED:
            pairs = zip(rows["label"].fillna("").astype(str), rows["caption"], strict=True)
            seen *= [float(bool(label) and label.casefold() in caption.casefold()) for label, caption in pairs]
        return seen.where(rows["answer"] != "")

    def answers(self, rows: pd.DataFrame) -> pd.Series:
        said = rows["answer"].where(rows["answer"] != "", "?")
        return said.where(rows["caption"] == "", said + ": " + rows["caption"])
