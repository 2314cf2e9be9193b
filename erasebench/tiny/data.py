"""Training pictures of the embedded world, drawn once: pixels, captions and labels in three files.

Training uses the scene seeds 0 .. n-1. What is measured uses seeds from `FRESH` on, so it is never trained on.
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from .names import NAMES
from .world import DETAILS, SIZE, details, labels, render, scene

FRESH = 2**40
"""First scene seed of the pictures and prompts that measure; training seeds lie below it."""

_BLOCK = 500


@dataclass(frozen=True)
class World:
    """The drawn training set: `pixels` uint8 [n, 64, 64, 3], `labels` bool [n, names] (columns: `NAMES`), `captions`,
    `details` int8 [n, 4] (see `world.details`).

    The pixels are memory-mapped until `to` brings them to a device; a batch lies where they lie.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    captions: list[str]
    details: torch.Tensor

    def to(self, device: torch.device | str) -> World:
        """The same set with pixels and labels on a device."""
        device = torch.device(device)
        if device == self.labels.device:
            return self
        return World(self.pixels.to(device), self.labels.to(device), self.captions, self.details.to(device))

    def __len__(self) -> int:
        return len(self.captions)

    def images(self, index: torch.Tensor) -> torch.Tensor:
        """Pictures of the given indices: float32 [n, 3, 64, 64] in [-1, 1]."""
        return to_float(self.pixels[index])

    def draw_batch(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Indices of `n` random pictures."""
        return torch.randint(0, len(self), (n,), generator=generator, device=generator.device)


def to_float(pixels: np.ndarray | torch.Tensor) -> torch.Tensor:
    """uint8 [n, h, w, 3] to float32 [n, 3, h, w] in [-1, 1]."""
    return torch.as_tensor(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def draw(seeds: range) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """Render the scenes of `seeds`: uint8 [n, 64, 64, 3], labels bool [n, names], captions, details int8 [n, 4]."""
    scenes = [scene(seed) for seed in seeds]
    truth = np.stack([labels(s) for s in scenes])
    return (
        np.stack([render(s) for s in scenes]),
        truth,
        [s.caption for s in scenes],
        np.stack([details(s) for s in scenes]),
    )


def _draw_block(path: str, start: int, stop: int) -> tuple[int, np.ndarray, list[str], np.ndarray]:
    pixels, truth, captions, detail = draw(range(start, stop))
    np.lib.format.open_memmap(path, mode="r+")[start:stop] = pixels
    return start, truth, captions, detail


def draw_world(out: Path, renders: int, workers: int) -> None:
    """Draw `renders` scenes to `out/data` with `workers` processes; does nothing when that is done already."""
    folder = Path(out) / "data"
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "captions.json").exists():
        print(f"data: {renders} renders are there", flush=True)
        return
    part = folder / "pixels.part.npy"
    np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(renders, SIZE, SIZE, 3)).flush()
    truth, detail = np.zeros((renders, len(NAMES)), bool), np.zeros((renders, len(DETAILS)), np.int8)
    captions = [""] * renders
    started = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_draw_block, str(part), i, min(i + _BLOCK, renders)) for i in range(0, renders, _BLOCK)]
        for done, job in enumerate(jobs, 1):
            start, block, words, more = job.result()
            part_of_all = slice(start, start + len(words))
            truth[part_of_all], captions[part_of_all], detail[part_of_all] = block, words, more
            if done % 10 == 0 or done == len(jobs):
                passed = time.monotonic() - started
                print(
                    f"data {done * _BLOCK}/{renders}  {done * _BLOCK / passed:.0f} renders/s  {passed / 60:.1f} min, "
                    f"{passed / done * (len(jobs) - done) / 60:.1f} min left",
                    flush=True,
                )
    os.replace(part, folder / "pixels.npy")
    np.save(folder / "labels.npy", truth)
    np.save(folder / "details.npy", detail)
    (folder / "captions.part").write_text(json.dumps(captions))
    os.replace(folder / "captions.part", folder / "captions.json")  # last: its presence says that all is there


def load_world(out: Path) -> World:
    """The training set drawn by `draw_world`."""
    folder = Path(out) / "data"
    return World(
        torch.from_numpy(np.load(folder / "pixels.npy", mmap_mode="c")),  # copied on a write that never comes
        torch.from_numpy(np.load(folder / "labels.npy")),
        json.loads((folder / "captions.json").read_text()),
        torch.from_numpy(np.load(folder / "details.npy")),
    )


def shift(images: torch.Tensor, pixels: int, generator: torch.Generator) -> torch.Tensor:
    """Move each image by up to `pixels` in both directions; the edge repeats. [n, c, h, w] to the same."""
    n, _, h, w = images.shape
    padded = torch.nn.functional.pad(images, (pixels,) * 4, mode="replicate")
    on = generator.device
    offsets = torch.randint(0, 2 * pixels + 1, (2, n), generator=generator, device=on)
    rows = offsets[0][:, None] + torch.arange(h, device=on)
    columns = offsets[1][:, None] + torch.arange(w, device=on)
    picked = torch.arange(n, device=on)[:, None, None]
    return padded.permute(0, 2, 3, 1)[picked, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
