"""Recipes, pictures and filled stores, for the tests of what is kept and found again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from erasebench.recipe import Recipe
from erasebench.store import Store

META = {"seconds": 0.5, "device": "cpu x86_64", "torch": "2"}


def recipe(seed: int = 0, **changes) -> Recipe:
    values = {
        "model": "small",
        "revision": "sha256-1",
        "edit": "",
        "prompt": "a church, \u201cSão Paulo\u201d \U0001f3a8",
        "negative_prompt": "",
        "seed": seed,
        "steps": 4,
        "guidance": 7.5,
        "width": 16,
        "height": 24,
        "scheduler": "DDIMScheduler",
        "scheduler_config": "{}",
        "dtype": "float32",
    }
    return Recipe(**{**values, **changes})


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 16, 3), dtype=np.uint8))


def filled(store: Store, count: int) -> list[str]:
    for seed in range(count):
        store.put_image(recipe(seed), picture(seed), META)
    return [recipe(seed).key for seed in range(count)]


def leftovers(store: Store) -> list[str]:
    return [path.name for path in store.root.rglob(".*")]


def broken(root: Path) -> list[str]:
    """What has been set aside."""
    return sorted(path.name for path in root.rglob("*.broken*"))
