"""The networks that are shipped with the embedded model and look at its images: the judge and its CLIP.

Their weights are part of the package, so their metrics need no download. A hash of the weights is in the version of
every metric that uses them: retrain them, and old numbers do not mix with new ones.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

import erasebench.tiny
from erasebench.errors import UserError
from erasebench.metrics._common import batches, device, image_tensor, short_hash, text_hash

if TYPE_CHECKING:
    from erasebench.tiny.judge import Judge

SIZE = 64
"""Side of the pictures that they look at, in pixels."""

WEIGHTS = Path(erasebench.tiny.__file__).parent / "weights"
JUDGE_FOLDER = WEIGHTS / "judge"
CLIP_FOLDER = WEIGHTS / "clip"


def unavailable(folder: Path) -> str | None:
    """Why the weights in a folder cannot be used, with the cure; ``None`` if they are there."""
    if any(folder.glob("*.safetensors")):
        return None
    return (
        f"the embedded model's {folder.name} is not in this installation ({folder} has no weights); reinstall "
        "erasebench, or make it with: erasebench tiny train"
    )


@functools.cache
def fingerprint(folder: Path) -> str:
    """8 hex digits that change when the weights in a folder change; ``absent`` if there are none."""
    files = sorted(folder.glob("*.safetensors"))
    return text_hash(" ".join(short_hash(file) for file in files)) if files else "absent"


@functools.lru_cache(maxsize=2)
def load_judge(folder: Path, device_name: str) -> Judge:
    """The judge of a folder, on a device, loaded once.

    Raises:
        UserError: its weights are absent.
    """
    from erasebench.tiny import judge

    reason = unavailable(folder)
    if reason:
        raise UserError(reason)
    return judge.read_judge(folder).to(device(device_name))


@torch.inference_mode()
def judge_answers(images: Sequence[Image.Image], folder: Path, device_name: str, batch_size: int) -> dict[str, list]:
    """By head of the judge, and for ``broken``, its answer for each image, and under ``<head>_p`` the answer's probability.

    See :func:`erasebench.tiny.judge.answer`.
    """
    from erasebench.tiny.judge import BROKEN, answer

    network, on = load_judge(folder, device_name), device(device_name)
    answers: dict[str, list] = {}
    for part in batches(images, batch_size):
        for head, chances in network.chances(image_tensor(part, SIZE).to(on)).items():
            names = network.heads.get(head, (BROKEN,))
            for row in chances.tolist():
                words, chance = answer(row, names)
                answers.setdefault(head, []).append(words)
                answers.setdefault(f"{head}_p", []).append(chance)
    return answers


@torch.inference_mode()
def judge_features(images: Sequence[Image.Image], folder: Path, device_name: str, batch_size: int) -> np.ndarray:
    """The judge's feature vectors, float32 ``[n, 192]``. Images are scaled to the world's size first."""
    network, on = load_judge(folder, device_name), device(device_name)
    parts = [network.features(image_tensor(part, SIZE).to(on)).float().cpu() for part in batches(images, batch_size)]
    return torch.cat(parts).numpy()
