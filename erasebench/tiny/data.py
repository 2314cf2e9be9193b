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

from .world import HEADS, SIZE, labels, render, scene

FRESH = 2**40
"""First scene seed of the pictures and prompts that measure; training seeds lie below it."""

_BLOCK = 500


@dataclass(frozen=True)
class World:
    """The drawn training set: `pixels` uint8 [n, 64, 64, 3] (memory-mapped), `labels` int64 [n, heads], `captions`."""

    pixels: np.ndarray
    labels: torch.Tensor
    captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)

    def images(self, index: torch.Tensor) -> torch.Tensor:
        """Pictures of the given indices: float32 [n, 3, 64, 64] in [-1, 1]."""
        return to_float(self.pixels[index.numpy()])

    def draw_batch(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Indices of `n` random pictures."""
        return torch.randint(0, len(self), (n,), generator=generator)


def to_float(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [n, h, w, 3] to float32 [n, 3, h, w] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def draw(seeds: range) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Render the scenes of `seeds`: uint8 [n, 64, 64, 3], class indices int8 [n, heads], captions."""
    scenes = [scene(seed) for seed in seeds]
    truth = np.array([[labels(s)[head] for head in HEADS] for s in scenes], dtype=np.int8)
    return np.stack([render(s) for s in scenes]), truth, [s.caption for s in scenes]


def _draw_block(path: str, start: int, stop: int) -> tuple[int, np.ndarray, list[str]]:
    pixels, truth, captions = draw(range(start, stop))
    np.lib.format.open_memmap(path, mode="r+")[start:stop] = pixels
    return start, truth, captions


def draw_world(out: Path, renders: int, workers: int) -> None:
    """Draw `renders` scenes to `out/data` with `workers` processes; does nothing when that is done already."""
    folder = Path(out) / "data"
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "captions.json").exists():
        print(f"data: {renders} renders are there", flush=True)
        return
    part = folder / "pixels.part.npy"
    np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(renders, SIZE, SIZE, 3)).flush()
    truth = np.zeros((renders, len(HEADS)), np.int8)
    captions = [""] * renders
    started = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_draw_block, str(part), i, min(i + _BLOCK, renders)) for i in range(0, renders, _BLOCK)]
        for done, job in enumerate(jobs, 1):
            start, block, words = job.result()
            truth[start : start + len(block)], captions[start : start + len(words)] = block, words
            if done % 10 == 0 or done == len(jobs):
                passed = time.monotonic() - started
                print(
                    f"data {done * _BLOCK}/{renders}  {done * _BLOCK / passed:.0f} renders/s  {passed / 60:.1f} min, "
                    f"{passed / done * (len(jobs) - done) / 60:.1f} min left",
                    flush=True,
                )
    os.replace(part, folder / "pixels.npy")
    np.save(folder / "labels.npy", truth)
    (folder / "captions.part").write_text(json.dumps(captions))
    os.replace(folder / "captions.part", folder / "captions.json")  # last: its presence says that all is there


def load_world(out: Path) -> World:
    """The training set drawn by `draw_world`."""
    folder = Path(out) / "data"
    return World(
        np.load(folder / "pixels.npy", mmap_mode="r"),
        torch.from_numpy(np.load(folder / "labels.npy").astype(np.int64)),
        json.loads((folder / "captions.json").read_text()),
    )


def shift(images: torch.Tensor, pixels: int, generator: torch.Generator) -> torch.Tensor:
    """Move each image by up to `pixels` in both directions; the edge repeats. [n, c, h, w] to the same."""
    n, _, h, w = images.shape
    padded = torch.nn.functional.pad(images, (pixels,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * pixels + 1, (2, n), generator=generator)
    rows = offsets[0][:, None] + torch.arange(h)
    columns = offsets[1][:, None] + torch.arange(w)
    picked = torch.arange(n)[:, None, None]
    return padded.permute(0, 2, 3, 1)[picked, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
