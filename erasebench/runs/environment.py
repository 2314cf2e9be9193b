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


def commit(package: Path | None = None) -> str | None:
    """The commit of erasebench's own checkout, with ``+changes`` if it is not clean.

    Args:
        package: the folder ``erasebench``; the one that is running if not given.

    Returns:
        ``None`` if it is run from no checkout: an installed wheel, which may well lie inside somebody else's repository.
    """
    checkout = (package or Path(__file__).parents[1]).resolve().parent
    if not (checkout / ".git").exists():  # a folder, or a file in a worktree
        return None
    try:
        head = subprocess.run(
            ["git", "describe", "--always", "--dirty=+changes", "--abbrev=12"],
            cwd=checkout, capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() or None
