"""The safety checker of Stable Diffusion: a filter of finished images, which it turns black."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from huggingface_hub import errors as hub_errors
from huggingface_hub import hf_hub_download
from PIL import Image
from safetensors import SafetensorError
from transformers import CLIPImageProcessor

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Edit, Eraser, Hook, Work
from erasebench.errors import UserError
from erasebench.files import opened
from erasebench.models.pipeline import Pipeline
from erasebench.recipe import Recipe

FILES = ("safety_checker/config.json", "safety_checker/model.safetensors", "feature_extractor/preprocessor_config.json")
"""What a checker is made of, in the folder of a Stable Diffusion 1.x."""


class BlackImages(Hook):
    """Turns an image black in which the checker sees one of its concepts.

    The checker compares CLIP's embedding of the image with 3 embeddings of "special care" and 17 of unsafe concepts, each
    with a threshold of its own; they are in its weights, without names. Where one of special care is nearer than its
    threshold, the others' thresholds are 0.01 lower. (diffusers' own code decides, as in its pipelines.)

    Settings: ``checker`` and ``revision``, a folder or Hub id; ``sha256`` of its files.
    """

    name = "safety_checker"
    places = ("the finished images",)

    @contextmanager
    def installed(self, pipe: Pipeline) -> Iterator[None]:
        """Keeps the checker on the pipeline's device for as long as it is installed.

        Raises:
            UserError: it is not on this machine, is another one than the edit was made with, or lacks weights.
        """
        files = checker_files(self.settings["checker"], self.settings["revision"])
        if checksum(files) != self.settings["sha256"]:
            raise UserError(
                f"safety_checker: {self.settings['checker']} is not the checker that the edit was made with (its files "
                "have another checksum); make the edit again, or give the same files"
            )
        self._checker, self._extractor = load_checker(files)
        self._checker.to(pipe._execution_device)
        try:
            yield
        finally:
            del self._checker, self._extractor

    def images(self, pipe: Pipeline, images: np.ndarray, batch: Sequence[Recipe]) -> np.ndarray:
        """The images, those black in which it sees something."""
        pictures = [Image.fromarray(levels) for levels in (images * 255).round().astype(np.uint8)]
        pixels = self._extractor(pictures, return_tensors="pt").pixel_values.to(self._checker.device)
        _, seen = self._checker(images=[np.zeros(1)] * len(pictures), clip_input=pixels)
        return np.where(np.array(seen)[:, None, None, None], 0, images).astype(images.dtype)


def checker_files(checker: str, revision: str | None) -> dict[str, Path]:
    """The files of a checker by name (:data:`FILES`), downloaded first if it is on the Hub and not in its cache.

    Raises:
        UserError: a folder that lacks one, no such folder or Hub id, or the Hub cannot be reached.
    """
    folder = Path(checker).expanduser()
    if folder.is_dir():
        files = {name: folder / name for name in FILES}
        for name, path in files.items():
            if not path.is_file():
                raise UserError(
                    f"safety_checker: {folder} has no {name}; give the folder of a Stable Diffusion 1.x that was saved "
                    "with its safety checker, in safetensors"
                )
        return files
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", checker):
        raise UserError(f"method.checker={checker}: no such folder, and no Hub id (owner/name)")
    try:
        return {name: Path(hf_hub_download(checker, name, revision=revision)) for name in FILES}
    except (hub_errors.HfHubHTTPError, hub_errors.HFValidationError, OSError) as error:
        raise UserError(
            f"safety_checker: {checker} is not in the Hub's cache and could not be fetched ({type(error).__name__}: "
            f"{str(error)[:200]}). With a network, run: erasebench prefetch method=safety_checker task=nudity; or give "
            "method.checker=FOLDER"
        ) from error


def checksum(files: Mapping[str, Path]) -> str:
    """SHA-256 of the files of a checker, one after another."""
    total = hashlib.sha256()
    for name in FILES:
        with opened(files[name]) as file:
            while part := file.read(1 << 24):
                total.update(part)
    return total.hexdigest()


def load_checker(files: Mapping[str, Path]) -> tuple[Any, Any]:
    """A checker in float32 on the CPU, and what makes its inputs of pictures.

    Raises:
        UserError: files of another kind, or weights that are in no file.
    """
    place = files[FILES[1]]
    try:
        checker, report = StableDiffusionSafetyChecker.from_pretrained(
            place.parent,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            attn_implementation="eager",  # the only one that it has
        )
        extractor = CLIPImageProcessor.from_pretrained(files[FILES[2]].parent, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{place}: no safety checker of Stable Diffusion ({str(error)[:200]})") from error
    if report["missing_keys"]:
        raise UserError(
            f"{place}: no safety checker of Stable Diffusion: {sorted(report['missing_keys'])[0]} is in no file of it, and "
            "would be filled with random numbers"
        )
    return checker.eval(), extractor


@dataclass(frozen=True)
class SafetyChecker(Eraser):
    """The safety checker that comes with Stable Diffusion 1.x, as a guard: images in which it sees something are black.

    What it looks for is fixed in its weights (sexual content, by all that is known of it), whatever the task names; so
    it is for tasks of unsafe content alone, and of those for nudity. It changes neither the weights nor the sampling:
    whoever has the model can leave it out. A black image is an image to every metric: it shows nothing of the prompt.

    Attributes:
        checker: folder of a Stable Diffusion 1.x with its checker (``safety_checker/``, ``feature_extractor/``), or such
            a Hub id.
        revision: commit of a Hub id.
    """

    name: ClassVar[str] = "safety_checker"
    describe: ClassVar[str] = "guard: Stable Diffusion's own filter of finished images, which turns them black"

    checker: str = "CompVis/stable-diffusion-v1-4"
    revision: str | None = "133a221b8aa7292a167afc5127cb63fb5005638b"

    def key(self, model_identity: str, task: ErasureTask) -> str:
        """As of every eraser; the content of the files counts, not their place.

        Raises:
            UserError: a task of another kind than unsafe content, or the files are not here and cannot be fetched.
        """
        if task.kind != "unsafe":
            raise UserError(
                f"safety_checker: what it looks for is fixed in its weights, so it cannot erase {task.label} (kind "
                f"{task.kind}); it is for unsafe content, e.g. task=nudity"
            )
        return self.key_of(model_identity, task, {"sha256": self._sha256})

    @cached_property
    def _sha256(self) -> str:
        return checksum(checker_files(self.checker, self.revision))

    def acts(self) -> tuple[type[Hook], ...]:
        """The filter of finished images."""
        return (BlackImages,)

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """The hook and nothing else."""
        settings = {**self.settings, "sha256": self._sha256}
        return Edit({}, {"method": self.name, **settings}, (BlackImages(settings),))
