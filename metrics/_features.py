"""Feature vectors of images, and what FID and KID share: both compare two sets of the same stored features."""

from __future__ import annotations

import functools
import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from erasebench.errors import UserError, suggest
from erasebench.metrics import _embedded
from erasebench.metrics._common import (
    absent,
    batches,
    check_torch_hub,
    device,
    download_torch_hub,
    file_hash,
    has_package,
    image_tensor,
    torch_hub_file,
)
from erasebench.scores.estimate import Estimate, not_run
from erasebench.scores.metric import Metric
from erasebench.scores.rates import WILSON

EMBEDDED, INCEPTION = "embedded", "inception"
EXTRACTORS = (INCEPTION, EMBEDDED)
ORIGINAL, REAL, RETRAINED = "original", "real", "retrained"
DIRECTIONS = {
    ORIGINAL: {"retain": "down", "general": "down"},
    REAL: {"general": "down"},
    RETRAINED: {"erase": "down"},
}
"""The roles that a distance is reported on, by what it is taken to."""
TARGETS = {
    ORIGINAL: "the unedited model's images",
    REAL: "a folder of real images",
    RETRAINED: "the images of a model trained without the concept",
}
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
"""Inception v3 as ported from TensorFlow, the network of the published FID. Its name carries its hash."""


@functools.lru_cache(maxsize=1)
def _inception(device_name: str) -> torch.nn.Module:
    """The 2048-number Inception of torch-fidelity, with TensorFlow 1's way of resizing to 299 pixels."""
    from torchmetrics.image.fid import NoTrainInceptionV3

    path = check_torch_hub(INCEPTION_URL)
    torch.load(path, map_location="cpu", weights_only=True)  # refuses a file that holds anything but tensors
    network = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path), antialias=False)
    return network.to(device(device_name))


@torch.inference_mode()
def inception_features(images: Sequence[Image.Image], device_name: str, batch_size: int) -> np.ndarray:
    """Inception features, float32 ``[n, 2048]``. Images of different sizes are passed one by one."""
    network, on = _inception(device_name), device(device_name)
    one_size = len({image.size for image in images}) == 1
    size = batch_size if one_size else 1
    parts = [network(image_tensor(part).to(on)).float().cpu() for part in batches(images, size)]
    return torch.cat(parts).numpy()


@dataclass(kw_only=True, eq=False)
class FeatureMetric(Metric):
    """A distance between the features of a set of images and those of a reference set.

    Three references exist and never share a column. ``against: original`` is the unedited model's images of the same
    prompts and seeds: how much did the edit move what should have stayed. ``against: retrained`` is the images of the
    table's row ``retrained`` for the same prompts and seeds, a model that never saw the concept: how near does the edit
    come to it where the concept is asked for. ``against: real`` is a folder of images: how real do the images look. Stored for every image is ``features``; the distance is taken when a table is made.

    The interval is a bootstrap over images (against the original: over unedited images with all their edited ones).
    It shows the noise of this many images, not the bias that a distance may have at this many.

    Attributes:
        extractor: ``inception`` (2048 numbers, torch-fidelity's port) or ``embedded`` (192 numbers of the embedded
            world's judge). They have names of their own: ``fid_inception``, ``fid_embedded``.
        against: ``original``, ``retrained`` or ``real``; the names of the latter two end in ``_retrained`` and ``_real``.
        reference: for ``real``, the folder of images (png, jpg, webp, bmp; subfolders are not read). What is in them
            decides the version, not their names; their features are kept with the scores.
        resamples: of the bootstrap.
        interval_up_to: no bootstrap for more images than this (Inception features of 30 000 images would take hours).
        device: where the extractor runs.
        batch_size: images at a time.

    Raises:
        UserError: unknown extractor or reference.
    """

    extractor: str
    against: str = ORIGINAL
    reference: str | None = None
    resamples: int = 100
    interval_up_to: int = 2000
    device: str = "auto"
    batch_size: int = 64

    kind_of_distance = ""
    for_scoring = ("reference", "device", "batch_size")

    def __post_init__(self) -> None:
        if self.extractor not in EXTRACTORS:
            hint = suggest(self.extractor, EXTRACTORS)
            known = ", ".join(EXTRACTORS)
            raise UserError(f"{self.kind_of_distance}.extractor: no {self.extractor!r}.{hint} Known: {known}")
        if self.against not in (ORIGINAL, RETRAINED, REAL):
            raise UserError(
                f"{self.kind_of_distance}.against: {self.against!r} is neither {ORIGINAL} nor {RETRAINED} nor {REAL}"
            )
        if self.reference and self.against != REAL:
            raise UserError(f"{self.kind_of_distance}: a reference folder needs against={REAL}")
        real = self.against == REAL
        self.name = f"{self.kind_of_distance}_{self.extractor}" + (
            "" if self.against == ORIGINAL else f"_{self.against}"
        )
        self.version = f"1-{self._weights}" + (f"-{_set_name(self.reference)}" if real else "")
        self.directions = DIRECTIONS[self.against]
        self.beside = "retrained" if self.against == RETRAINED else Metric.beside
        target = TARGETS[self.against]
        network = "Inception v3" if self.extractor == INCEPTION else "the embedded judge"
        self.describe = f"{self.kind_of_distance.upper()} to {target}, features of {network}"

    @property
    def _weights(self) -> str:
        if self.extractor == INCEPTION:
            return "6726825d"
        return _embedded.fingerprint(_embedded.JUDGE_FOLDER)

    @property
    def records_id(self) -> str:
        return f"features_{self.extractor}@1-{self._weights}"

    @property
    def needs(self) -> tuple[str, ...]:
        own = "the embedded model's judge" if self.extractor == EMBEDDED else "Inception v3 (torch-fidelity)"
        return (own, f"real images in {self.reference}") if self.against == REAL else (own,)

    def unavailable(self) -> str | None:
        if self.against == REAL and not _image_files(self.reference):
            given = f"{self.reference} holds none" if self.reference else "none is given"
            return f"{self.name} needs a folder of real images and {given}; set metric.{self.name}.reference=FOLDER"
        if self.extractor == EMBEDDED:
            return _embedded.unavailable(_embedded.JUDGE_FOLDER)
        if not has_package("torch_fidelity"):
            return "the package torch-fidelity is missing; run: pip install torch-fidelity"
        place = torch_hub_file(INCEPTION_URL)
        return None if place.exists() else absent("Inception v3 of torch-fidelity", place)

    def prefetch(self) -> None:
        if self.extractor == INCEPTION:
            download_torch_hub(INCEPTION_URL)

    @property
    def reference_key(self) -> str:
        """Of the set that the version names, so that a table needs no folder: the version and the records are enough."""
        return f"reference-{self.version.rpartition('-')[2]}-" if self.against == REAL else ""

    def reference_images(self) -> dict[str, Path]:
        files = _image_files(self.reference) if self.against == REAL else ()
        return {f"{self.reference_key}{number}": file for number, file in enumerate(files)}

    def score(
        self, images: Sequence[Image.Image], rows: pd.DataFrame, originals: Sequence[Image.Image] | None = None
    ) -> pd.DataFrame:
        return pd.DataFrame({"features": list(self._extract(images))})

    def values(self, rows: pd.DataFrame) -> pd.Series:
        """No number belongs to one image: all NaN."""
        return pd.Series(np.nan, index=rows.index, dtype=float)

    def reduce(self, rows: pd.DataFrame, original: pd.DataFrame | None = None, rates: str = WILSON) -> Estimate:
        """The distance; not run with fewer than two images, and ``reference`` for the row that it is taken to."""
        first = ~rows["key"].duplicated().to_numpy()
        ours = stack(rows["features"][first])
        if self.against == REAL:
            theirs = stack(original["features"]) if original is not None else ours[:0]
            whole = str(len(theirs)) == self.version.rpartition("-")[2].partition(".")[0]
            return self._estimate(ours, theirs, None) if whole and len(ours) > 1 else not_run()
        if original is None or rows["key"].tolist() == original["key"].tolist():
            return not_run("reference")
        if rows["prompt_id"].tolist() != original["prompt_id"].tolist():
            raise ValueError(f"{self.name}: rows and original are not of the same prompts in the same order")
        theirs = stack(original["features"][first])
        partners = original["key"][first].to_numpy()
        return not_run() if len(set(partners)) < 2 else self._estimate(ours, theirs, partners)

    def _extract(self, images: Sequence[Image.Image]) -> np.ndarray:
        if self.extractor == EMBEDDED:
            return _embedded.judge_features(images, _embedded.JUDGE_FOLDER, self.device, self.batch_size)
        return inception_features(images, self.device, self.batch_size)

    @abstractmethod
    def _estimate(self, ours: np.ndarray, theirs: np.ndarray, partners: np.ndarray | None) -> Estimate:
        """The distance of two feature sets ``[n, d]`` and ``[m, d]`` with its interval.

        ``partners [n]`` names the unedited image of each row where both sets are of the same prompts and seeds (m = n);
        it repeats where several edits are pooled.
        """


def stack(features: pd.Series) -> np.ndarray:
    """A column of feature vectors as float64 ``[n, d]``."""
    return np.stack([np.asarray(row, dtype=np.float64) for row in features]) if len(features) else np.empty((0, 0))


def _image_files(folder: str | None) -> tuple[Path, ...]:
    """The images of a folder in an order that their content alone decides; none if there is no such folder."""
    return tuple(file for _, file in _hashed_images(folder))


def _set_name(folder: str | None) -> str:
    """How many images a folder has and 12 hex digits that change with the content of any: ``5000.0123456789ab``."""
    hashes = [content for content, _ in _hashed_images(folder)]
    return f"{len(hashes)}.{hashlib.sha256(' '.join(hashes).encode()).hexdigest()[:12]}"


def _hashed_images(folder: str | None) -> list[tuple[str, Path]]:
    """The SHA-256 of each image in a folder, sorted by it."""
    if not folder or not Path(folder).is_dir():
        return []
    files = [file for file in Path(folder).iterdir() if file.suffix.lower() in IMAGE_ENDINGS]
    return sorted((_content(file, stat.st_size, stat.st_mtime_ns), file) for file in files for stat in [file.stat()])


@functools.cache
def _content(file: Path, size: int, changed_ns: int) -> str:
    """The SHA-256 of a file, read once by a process as long as it stays as it is."""
    return file_hash(file)
