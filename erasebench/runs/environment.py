"""What a run says about itself: its config, its machine, its versions and how to make it again."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from erasebench.models.load import Model

PACKAGES = (
    "erasebench", "torch", "torchvision", "diffusers", "transformers", "accelerate", "open_clip_torch",
    "torchmetrics", "nudenet", "numpy", "scipy", "pandas", "pyarrow", "pillow", "hydra-core",
)  # fmt: skip
"""The packages whose versions can change a number."""


def environment(model: Model) -> dict[str, Any]:
    """Machine, versions and commit."""
    device = (
        torch.cuda.get_device_name(model.device)
        if model.device.startswith("cuda")
        else platform.processor() or platform.machine()
    )
    return {
        "device": f"{model.device} ({device})",
        "dtype": model.dtype,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": versions(),
        "commit": commit(),
    }


def versions() -> dict[str, str]:
    """Installed versions of :data:`PACKAGES`; ``missing`` where one is not installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def commit() -> str | None:
    """The commit of the checkout this package is run from, with ``+changes`` if it is not clean; else ``None``."""
    here = Path(__file__).resolve().parent
    try:
        head = subprocess.run(
            ["git", "describe", "--always", "--dirty=+changes", "--abbrev=12"],
            cwd=here, capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() or None
