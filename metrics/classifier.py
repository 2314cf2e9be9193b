"""Top-1 accuracy by a published image classifier (ResNet-50 of torchvision by default)."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from erasebench.concepts import KINDS
from erasebench.errors import UserError, suggest
from erasebench.metrics._common import (
    absent,
    batches,
    commit_of,
    device,
    download_torch_hub,
    has_package,
    hub_file,
    read_torch_hub,
    slug,
    text_hash,
    torch_hub_file,
)
from erasebench.scores.estimate import Estimate, not_run
from erasebench.scores.metric import Metric
from erasebench.scores.rates import WILSON

IMAGENETTE = {
    "tench": 0,
    "english springer": 217,
    "cassette player": 482,
    "chain saw": 491,
    "church": 497,
    "french horn": 566,
    "garbage truck": 569,
    "gas pump": 571,
    "golf ball": 574,
    "parachute": 701,
}
"""ImageNet-1k numbers of the ten Imagenette classes."""

ALIASES = {"chainsaw": "chain saw", "english springer spaniel": "english springer"}
"""Spellings of prompt sets that are not in ImageNet's class names."""

BACKENDS = ("torchvision", "timm", "hub")
KEPT = 5
"""How many of the best classes are stored."""


@dataclass(frozen=True)
class _Network:
    """A loaded classifier: images to logits ``[n, classes]`` float32 on the CPU, and the class names."""

    logits: Callable[[Sequence[Image.Image]], torch.Tensor]
    classes: tuple[str, ...]


def plain(label: str) -> str:
    """A label without case, underscores or hyphens."""
    text = " ".join(re.sub(r"[_\-]+", " ", str(label)).casefold().split())
    return ALIASES.get(text, text)


def class_numbers(classes: Sequence[str]) -> dict[str, int]:
    """Which class a label means: by the Imagenette table for 1000 classes, else by name.

    A class may list synonyms, ``gas pump, gasoline pump``; each is a name. The first class to have a name keeps it
    (ImageNet has two cranes).
    """
    found: dict[str, int] = dict(IMAGENETTE) if len(classes) == 1000 else {}
    for number, names in enumerate(classes):
        for name in (names, *names.split(",")):
            found.setdefault(plain(name), number)
    return found


@dataclass(kw_only=True, eq=False)
class Classifier(Metric):
    """Top-k accuracy of a classifier, among all of its classes or among some.

    Ranking among ten classes instead of a thousand moves accuracies by tens of points, so it is in the name:
    ``classifier`` ranks among all, ``classifier_10way`` among ten. What is stored: ``answer`` and its probability,
    the best five classes with theirs (``best``, JSON), the number of the prompt's label (``label_id``, -1 if the
    classifier has no such class; such a prompt has no number), and ``value``. Probabilities are among the classes
    that are ranked.

    Attributes:
        backend: ``torchvision``, ``timm`` or ``hub`` (an image classification model of the Hugging Face Hub).
        model: its name there: ``resnet50``, ``resnet50.tv2_in1k``, ``microsoft/resnet-50``.
        weights: for torchvision, the name of the weights (``IMAGENET1K_V2``).
        revision: for timm and hub, the commit of the repository, 40 hex digits; needed for hub.
        ways: class names to rank among, or ``imagenette``; not given: all classes.
        top: the label must be among this many best (1 to 5).
        unseen: labels that RECE's ``imageclassify.py`` does not know again where they are the erased one (it compares
            with the name in lower case): the accuracy of the erased is 0 then, and what is right of it counts for the
            others, whose accuracy may exceed 1. For comparison with its numbers; such a sum has no interval.
        kinds: the kinds of concept it judges.
        device: where it runs.
        batch_size: images at a time.

    Raises:
        UserError: unknown backend, model, weights or kind; no revision for hub; ``top`` out of range.
    """

    backend: str = "torchvision"
    model: str = "resnet50"
    weights: str = "IMAGENET1K_V2"
    revision: str | None = None
    ways: str | Sequence[str] | None = None
    top: int = 1
    unseen: Sequence[str] = ()
    kinds: tuple[str, ...] = ("object",)
    device: str = "auto"
    batch_size: int = 64

    directions = {"erase": "down", "paraphrase": "down", "retain": "up"}
    inputs = ("label",)
    unit = "%"

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise UserError(
                f"classifier.backend: no {self.backend!r}.{suggest(self.backend, BACKENDS)} "
                f"Known: {', '.join(BACKENDS)}"
            )
        if not 1 <= self.top <= KEPT:
            raise UserError(f"classifier.top: {self.top} is not from 1 to {KEPT}")
        for kind in self.kinds:
            if kind not in KINDS:
                raise UserError(f"classifier.kinds: no kind {kind!r}.{suggest(kind, KINDS)} Known: {', '.join(KINDS)}")
        if self.backend == "hub" and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise UserError(f"classifier.revision: pin {self.model} to a commit of its repository (40 hex digits)")
        if self.backend == "torchvision":
            self._torchvision_weights()
        self.kinds = tuple(self.kinds)
        self._ways = tuple(IMAGENETTE) if self.ways == "imagenette" else self.ways
        if isinstance(self._ways, str) or (self._ways is not None and len(self._ways) < 2):
            raise UserError(f"classifier.ways: {self.ways!r} is neither imagenette nor a list of at least two classes")
        ranked = f"_{len(self._ways)}way" if self._ways else ""
        self.name = "classifier" + ranked + (f"_top{self.top}" if self.top > 1 else "")
        self.name += "_rece_blind" if self.unseen else ""
        which = [self.backend, slug(self.model), self._weights_id()]
        if self._ways:
            which.append(text_hash(json.dumps(sorted(plain(name) for name in self._ways))))
        self._answers = "-".join(["1", *which])
        self._unseen = tuple(plain(name) for name in self.unseen)
        self.version = self._answers
        if self.unseen:
            self.version = "-".join(["2", *which, text_hash(json.dumps(sorted(self._unseen)))])
        among = f"{len(self._ways)} classes" if self._ways else "all its classes"
        self.describe = f"top-{self.top} accuracy of {self.model} ({self.backend}) among {among}"

    @property
    def records_id(self) -> str:
        return f"{self.name.removesuffix('_rece_blind')}@{self._answers}"  # what is seen is the same

    @property
    def needs(self) -> tuple[str, ...]:
        return (f"{self.model} ({self.backend}{' ' + self.weights if self.backend == 'torchvision' else ''})",)

    def unavailable(self) -> str | None:
        if self.backend == "torchvision":
            place = torch_hub_file(self._torchvision_weights().url)
            return None if place.exists() else absent(self.needs[0], place)
        if self.backend == "timm" and not has_package("timm"):
            return "the package timm is missing; run: pip install timm"
        repository, files = self._repository()
        if any(hub_file(repository, file, self.revision) is None for file in files):
            from huggingface_hub.constants import HF_HUB_CACHE

            return absent(f"{self.needs[0]}, {repository}", HF_HUB_CACHE)
        return None

    def prefetch(self) -> None:
        if self.backend == "torchvision":
            download_torch_hub(self._torchvision_weights().url)
            return
        from huggingface_hub import hf_hub_download

        repository, files = self._repository()
        for file in files:
            hf_hub_download(repository, file, revision=self.revision)

    def score(
        self, images: Sequence[Image.Image], rows: pd.DataFrame, originals: Sequence[Image.Image] | None = None
    ) -> pd.DataFrame:
        reason = self.unavailable()
        if reason:
            raise UserError(reason)
        return self.judged(self._network, images, rows["label"].fillna("").tolist())

    def judged(self, network: _Network, images: Sequence[Image.Image], labels: Sequence[str]) -> pd.DataFrame:
        """The score columns by a loaded network."""
        numbers = class_numbers(network.classes)
        ranked = list(range(len(network.classes)))
        if self._ways:
            unknown = [name for name in self._ways if plain(name) not in numbers]
            if unknown:
                hint = suggest(unknown[0], numbers)
                raise UserError(f"classifier.ways: {self.model} has no class {unknown[0]!r}.{hint}")
            ranked = [numbers[plain(name)] for name in self._ways]
        logits = torch.cat([network.logits(part) for part in batches(images, self.batch_size)])
        chances, order = logits[:, ranked].softmax(dim=1).sort(dim=1, descending=True, stable=True)
        order = np.asarray(ranked)[order.numpy()]
        own = np.array([numbers.get(plain(label), -1) if plain(label) else -1 for label in labels])
        own[~np.isin(own, ranked)] = -1
        kept = min(KEPT, len(ranked))
        best = [
            [[int(i), network.classes[i], round(float(p), 6)] for i, p in zip(row, part, strict=True)]
            for row, part in zip(order[:, :kept], chances[:, :kept], strict=True)
        ]
        right = (order[:, : self.top] == own[:, None]).any(axis=1)
        answered = ~chances[:, 0].isnan().numpy()  # NaN is no answer, and not a wrong one
        return pd.DataFrame(
            {
                "answer": [network.classes[row[0]] if sure else "" for row, sure in zip(order, answered, strict=True)],
                "answer_p": chances[:, 0].tolist(),
                "best": [json.dumps(row) for row in best],
                "label_id": own,
                "value": np.where((own >= 0) & answered, right, np.nan).astype(float),
            }
        )

    def applies_to(self, rows: pd.DataFrame) -> pd.DataFrame:
        """As of any metric; erased images of :attr:`unseen` labels are also counted beside the retained ones."""
        chosen = super().applies_to(rows)
        if not self.unseen:
            return chosen
        again = chosen[self._blind(chosen)].assign(role="retain", moved=True)
        return pd.concat([chosen.assign(moved=False), again])

    def _blind(self, rows: pd.DataFrame) -> pd.Series:
        """Which images are of an erased concept that the released script does not know again."""
        return (rows["role"] == "erase") & rows["label"].fillna("").map(plain).isin(self._unseen)

    def values(self, rows: pd.DataFrame) -> pd.Series:
        right = super().values(rows)
        return right.mask(self._blind(rows), 0.0) if self.unseen else right

    def reduce(self, rows: pd.DataFrame, original: pd.DataFrame | None = None, rates: str = WILSON) -> Estimate:
        moved = rows["moved"].astype(bool) if "moved" in rows else pd.Series(False, index=rows.index)
        if not moved.any():
            return super().reduce(rows, original, rates)
        values = self.values(rows)
        n = int(values[~moved].notna().sum())  # the script divides by the images of the nine others
        return Estimate(float(values.sum()) / n, n, math.nan, math.nan, "none") if n else not_run()

    def _torchvision_weights(self) -> Any:
        """The weights entry of torchvision: its file, transform and class names; needs no download."""
        import torchvision.models as zoo

        try:
            known = zoo.get_model_weights(self.model)
        except ValueError as error:
            names = zoo.list_models(module=zoo)
            hint = suggest(self.model, names)
            raise UserError(f"classifier.model: torchvision has no {self.model!r}.{hint}") from error
        if self.weights not in known.__members__:
            raise UserError(
                f"classifier.weights: {self.model} has no {self.weights!r}.{suggest(self.weights, known.__members__)} "
                f"Known: {', '.join(known.__members__)}"
            )
        return known[self.weights]

    def _weights_id(self) -> str:
        """What pins the weights, for the version."""
        if self.backend == "torchvision":
            return self.weights
        repository, files = self._repository()
        return commit_of(repository, files[-1], self.revision)

    def _repository(self) -> tuple[str, tuple[str, ...]]:
        """Hub repository and the files that are read from it."""
        if self.backend == "timm":
            return f"timm/{self.model}", ("model.safetensors",)
        return self.model, ("config.json", "preprocessor_config.json", "model.safetensors")

    @functools.cached_property
    def _network(self) -> _Network:
        on = device(self.device)
        return {"torchvision": self._from_torchvision, "timm": self._from_timm, "hub": self._from_hub}[self.backend](on)

    def _from_torchvision(self, on: torch.device) -> _Network:
        import torchvision.models as zoo

        weights = self._torchvision_weights()
        network = zoo.get_model(self.model, weights=None)
        network.load_state_dict(read_torch_hub(weights.url))
        return _tensors(network, weights.transforms(), tuple(weights.meta["categories"]), on)

    def _from_timm(self, on: torch.device) -> _Network:
        import timm
        from safetensors.torch import load_file
        from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_model_data_config

        network = timm.create_model(self.model, pretrained=False)
        network.load_state_dict(load_file(hub_file(f"timm/{self.model}", "model.safetensors", self.revision)))
        subset = infer_imagenet_subset(network)
        if subset is None:
            raise UserError(f"classifier.model: timm does not name the classes of {self.model}; use backend=hub")
        info = ImageNetInfo(subset)
        classes = tuple(info.index_to_description(number) for number in range(info.num_classes()))
        transform = create_transform(**resolve_model_data_config(network), is_training=False)
        return _tensors(network, transform, classes, on)

    def _from_hub(self, on: torch.device) -> _Network:
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        pinned = {"revision": self.revision, "local_files_only": True, "trust_remote_code": False}
        network = AutoModelForImageClassification.from_pretrained(self.model, use_safetensors=True, **pinned)
        network = network.eval().to(on)
        processor = AutoImageProcessor.from_pretrained(self.model, **pinned)
        names = network.config.id2label

        @torch.inference_mode()
        def logits(images: Sequence[Image.Image]) -> torch.Tensor:
            pixels = processor([image.convert("RGB") for image in images], return_tensors="pt")
            return network(pixel_values=pixels["pixel_values"].to(on)).logits.float().cpu()

        return _Network(logits, tuple(names[number] for number in range(len(names))))


def _tensors(
    network: torch.nn.Module,
    transform: Callable[[Image.Image], torch.Tensor],
    classes: tuple[str, ...],
    on: torch.device,
) -> _Network:
    """A network that takes a batch of transformed images."""
    network = network.eval().to(on)

    @torch.inference_mode()
    def logits(images: Sequence[Image.Image]) -> torch.Tensor:
        return network(torch.stack([transform(image.convert("RGB")) for image in images]).to(on)).float().cpu()

    return _Network(logits, classes)
