"""What several metrics need: a device, batches, and whether weights are on this machine."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlparse

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open

from erasebench.errors import UserError

T = TypeVar("T")


def device(name: str) -> torch.device:
    """``auto`` is CUDA, else MPS, else the CPU; any other name is torch's."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Slices of at most ``size`` items, in order."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def image_tensor(images: Sequence[Image.Image], size: int | None = None) -> torch.Tensor:
    """Images as uint8 ``[n, 3, height, width]``; scaled to ``size`` x ``size`` (bicubic) where they have another size.

    Without ``size`` all images must have one size.
    """
    fitted = [
        image if size is None or image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)
        for image in images
    ]
    return torch.stack([torch.from_numpy(np.array(image.convert("RGB"))) for image in fitted]).permute(0, 3, 1, 2)


def slug(text: str) -> str:
    """A text that is safe in a version and so in a folder name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-")


def file_hash(path: Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_hash(path: Path) -> str:
    """First 8 hex digits of the SHA-256 of a file."""
    return file_hash(path)[:8]


def text_hash(text: str) -> str:
    """First 8 hex digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def own_tensors(file: str | None, what: str, option: str, convert: str) -> str | None:
    """Why a file of tensors that the user converted cannot be used; ``None`` if it can be read.

    Args:
        file: the ``.safetensors``.
        what: of what it is, and where the release's own file is.
        option: the setting that names it.
        convert: the command that makes it of the release's file.
    """
    if file and Path(file).suffix == ".safetensors" and Path(file).is_file():
        try:
            with safe_open(file, framework="pt") as opened:
                opened.keys()
            return None
        except (SafetensorError, OSError) as error:
            return f"{file}: no readable safetensors file ({error!s:.80}); convert it again"
    return f"{what}: {file or 'no file'} is no .safetensors file that is here. Convert the release's with {convert} and set {option}=FILE"


def own_file_hash(file: str | None) -> str:
    """First 8 hex digits of the SHA-256 of a file of the user's own, for a version; ``absent`` where there is none."""
    return short_hash(Path(file)) if file and Path(file).is_file() else "absent"


def has_package(name: str) -> bool:
    """Whether a package can be imported, without importing it."""
    return importlib.util.find_spec(name) is not None


def absent(what: str, place: str | Path) -> str:
    """The sentence for weights that are not on this machine, with the cure."""
    return (
        f"{what} is not on this machine (looked in {place}); where there is a network, run `erasebench prefetch` with "
        "the same settings"
    )


def torch_hub_file(url: str) -> Path:
    """Where torch hub keeps the file of a URL, whether or not it is there."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


def download_torch_hub(url: str) -> None:
    """Download a file into torch hub's cache, unless it is there; its name carries a hash, which is checked."""
    target = torch_hub_file(url)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), hash_prefix=_hash_in_name(target))


def read_torch_hub(url: str) -> dict[str, torch.Tensor]:
    """The tensors of a file in torch hub's cache.

    The file must have the hash that its name states, and only tensors are read from it, never code.
    """
    return torch.load(check_torch_hub(url), map_location="cpu", weights_only=True)


def check_torch_hub(url: str) -> Path:
    """The path of a file in torch hub's cache after its hash was checked.

    Raises:
        UserError: the file is cut off or is another one.
    """
    path = torch_hub_file(url)
    expected = _hash_in_name(path)
    if not short_hash(path).startswith(expected):
        raise UserError(f"{path}: damaged (its SHA-256 does not start with {expected}); delete it and prefetch again")
    return path


def _hash_in_name(path: Path) -> str:
    """``resnet50-11ad3fa6.pth`` -> ``11ad3fa6``."""
    return path.stem.rsplit("-", 1)[-1]


def hub_file(repo: str, file: str, revision: str | None) -> Path | None:
    """The cached file of a Hugging Face repository, or ``None``. Never downloads."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def commit_of(repo: str, file: str, revision: str | None) -> str:
    """First 8 digits of the commit whose cached file is used; the revision asked for where none is cached."""
    found = hub_file(repo, file, revision)
    return (found.parent.name if found else revision or "main")[:8]
