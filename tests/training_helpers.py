"""What tests of trained erasers share: means of a training, and whether a killed one ends in the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from erasebench.concepts import ErasureTask
from erasebench.edits.change import PARTS
from erasebench.edits.edit import Edit
from erasebench.edits.eraser import Eraser
from erasebench.edits.work import Work
from erasebench.models.pipeline import Pipeline

SMALL = {"iterations": 3, "steps": 2, "images": 3, "image_steps": 2, "batch": 2, "early": 1, "lr": 1e-3}
"""Settings under which a training takes a moment."""


def shrunk(eraser: Any, **more: Any) -> Any:
    """An eraser that trains, with :data:`SMALL` settings as far as it has them."""
    has = {entry.name for entry in fields(eraser)}
    return replace(eraser, **{name: value for name, value in SMALL.items() if name in has} | more)


def noise_pictures(prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float) -> list[Image.Image]:
    """A picture of noise for each seed, 16 pixels wide as the random pipelines make them."""
    return [
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)) for seed in seeds
    ]


def work_in(folder: Path) -> Work:
    """The means of a training that keeps its checkpoints in a folder."""
    return Work(folder, noise_pictures, lambda done, of: None, 7, "cpu")


def draw(seed: int, *shape: int) -> torch.Tensor:
    """Normal numbers in float64."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def numbers_of(edit: Edit) -> dict[str, torch.Tensor]:
    """Every tensor of an edit, those of its changes and those of its hooks."""
    made = {f"{name}.{part}": getattr(change, part) for name, change in edit.changes.items() for part in PARTS}
    made |= {f"hook {i} {name}": tensor for i, hook in enumerate(edit.hooks) for name, tensor in hook.tensors.items()}
    return {name: tensor for name, tensor in made.items() if tensor is not None}


def assert_same(one: Edit, other: Edit) -> None:
    """Two edits are the same, bit for bit."""
    first, second = numbers_of(one), numbers_of(other)
    assert first and first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert [hook.settings for hook in one.hooks] == [hook.settings for hook in other.hooks]


def assert_resumes(
    eraser: Eraser, pipe: Pipeline, task: ErasureTask, folder: Path, kill_after: int, steps: int
) -> None:
    """A training that is killed after some of its steps goes on there, and ends in the edit of one that was not; another
    seed ends in another."""
    whole = eraser.edit(pipe, task, work=work_in(folder / "whole"))
    assert_same(eraser.edit(pipe, task, work=work_in(folder / "again")), whole)

    def stop(done: int, of: int) -> None:
        assert of == steps
        if done == kill_after:
            raise KeyboardInterrupt

    stopped = replace(work_in(folder / "stopped"), advance=stop)
    with pytest.raises(KeyboardInterrupt):
        eraser.edit(pipe, task, work=stopped)
    seen: list[int] = []
    resumed = eraser.edit(pipe, task, work=replace(stopped, advance=lambda done, of: seen.append(done)))
    assert seen == list(range(kill_after + 1, steps + 1))
    assert_same(resumed, whole)
    other = numbers_of(eraser.edit(pipe, task, work=replace(work_in(folder / "other"), seed=8)))
    assert any(not torch.equal(tensor, other[name]) for name, tensor in numbers_of(whole).items())
