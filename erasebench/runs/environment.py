"""What a run says about itself: its config, its machine, its versions and how to make it again."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from erasebench.models.load import Model
from erasebench.runs.plan import Prepared

PACKAGES = (
    "erasebench", "torch", "torchvision", "diffusers", "transformers", "accelerate", "open_clip_torch",
    "torchmetrics", "nudenet", "numpy", "scipy", "pandas", "pyarrow", "pillow", "hydra-core",
)  # fmt: skip
"""The packages whose versions can change a number."""


def manifest(prepared: Prepared, model: Model, not_run: Mapping[str, str], truncated: int) -> dict[str, Any]:
    """What a run is, and what it is made with here: all that a reader of its numbers may ask for.

    Args:
        prepared: the checked config.
        model: as loaded.
        not_run: by id, why metrics are not run.
        truncated: prompts that the text encoder does not read to their end.
    """
    return {
        "run": prepared.run_name,
        "config_hash": prepared.hash,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [text for text in sys.argv if not text.startswith("part=")],  # what finishes it
        "model": {key: getattr(model, key) for key in ("name", "source", "revision", "family", "weights")},
        "prompt_sets": {
            kind: {
                "version": prompts.version,
                "hash": prompts.hash,
                "content": prompts.content,
                "counts": prompts.counts(),
                "notes": prompts.notes,
            }
            for kind, (_, prompts) in prepared.groups.items()
        },
        "protocol": prepared.protocol.identity,
        "metrics": {
            metric.id: {"needs": metric.needs, "not_run": not_run.get(metric.id)} for metric in prepared.metrics
        },
        "erasers_left_out": {f"{label}, {kind}": why for (label, kind), why in prepared.left_out.items()},
        "truncated_prompts": truncated,
        **environment(model),
    }


def machine(model: Model) -> str:
    """What a model runs on, as far as it decides seconds: ``cuda NVIDIA H100``, ``cpu Intel Xeon 8375C, 4 threads``."""
    device = model.device.partition(":")[0]
    if device == "cuda":
        return f"cuda {torch.cuda.get_device_name(model.device)}"
    if device == "cpu":
        return f"cpu {_processor()}, {torch.get_num_threads()} threads"
    return f"{device} {_processor()}"


def _processor() -> str:
    """The processor's name; Python does not know it on Linux."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return names[0].strip() if names else platform.processor() or platform.machine()


def environment(model: Model) -> dict[str, Any]:
    """Machine, versions and commit."""
    return {
        "device": f"{model.device} ({machine(model)})",
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
