"""Thumbnails: every image of a report once, small, by its key."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, features

from erasebench.errors import UserError
from erasebench.progress import progress
from erasebench.store import Store

SIDE = 128
"""The longer side of a thumbnail in pixels, at most; a smaller image is not enlarged."""

QUALITY = 80
FOLDER, FULL = "thumbs", "full"


def suffix() -> str:
    """The kind of file that thumbnails are: WebP, or JPEG where Pillow was built without it."""
    return "webp" if features.check("webp") else "jpg"


def thumbnail_path(key: str) -> str:
    """Where an image's thumbnail is, from a page of the report."""
    return f"{FOLDER}/{key[:2]}/{key}.{suffix()}"


def encode(image: Image.Image) -> bytes:
    """An image as the bytes of its thumbnail, without any metadata."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, {"webp": "WEBP", "jpg": "JPEG"}[suffix()], quality=QUALITY)
    return buffer.getvalue()


def write_thumbnails(
    store: Store, keys: Iterable[str], folder: Path, *, before: Path | None = None, full: bool = False
) -> set[str]:
    """Write a thumbnail for every key, and with ``full`` the image itself.

    Args:
        store: where the images are.
        keys: of images; each is written once.
        folder: the report's folder; files are ``thumbs/ab/<key>.webp`` and ``full/ab/<key>.png``.
        before: an older report, whose thumbnails are taken over: a key always means the same pixels.
        full: copy the whole images, too.

    Returns:
        The keys that have one. An image that is gone or broken has none.
    """
    keys = list(dict.fromkeys(keys))
    for name in (FOLDER, FULL) if full else (FOLDER,):
        for start in {key[:2] for key in keys}:
            (folder / name / start).mkdir(parents=True, exist_ok=True)

    def one(key: str) -> str | None:
        target = folder / FOLDER / key[:2] / f"{key}.{suffix()}"
        older = before / FOLDER / key[:2] / target.name if before else None
        try:
            if older is not None and older.is_file() and not full:
                shutil.copyfile(older, target)
                return key
            target.write_bytes(encode(store.image(key)))
        except (KeyError, UserError):  # gone, or set aside as broken with a warning: its place stays empty
            return None
        if full:
            shutil.copyfile(store.image_path(key), folder / FULL / key[:2] / f"{key}.png")
        return key

    with progress("thumbnails", len(keys)) as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        written: set[str] = set()
        try:
            for key in pool.map(one, keys):
                if key is not None:
                    written.add(key)
                advance(1)
        except BaseException:  # stopped: do not make the rest first
            pool.shutdown(cancel_futures=True)
            raise
    return written
