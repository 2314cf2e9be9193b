"""An image of ours as a PNG: its recipe and its record are inside, and every pixel is checked when it is read."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from erasebench.errors import Damaged, UserError
from erasebench.files import read_whole
from erasebench.recipe import Recipe, canonical_json

RECIPE, RECORD = "erasebench.recipe", "erasebench.record"
"""Text chunks of every PNG: the recipe, and the other columns of its record (with the key), both JSON."""

START = b"\x89PNG\r\n\x1a\n"
END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
"""How every whole PNG begins and ends."""


def png_bytes(image: Image.Image, recipe: Recipe, meta: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The file of an image, and its record: key, pixel hash and ``meta``."""
    record = {"key": recipe.key, "pixels_sha256": pixels_sha256(image), **meta}
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(RECIPE, canonical_json(recipe.to_dict()))
    chunks.add_text(RECORD, canonical_json(record))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=chunks)
    return buffer.getvalue(), record


def read_png(path: str | Path) -> tuple[Image.Image, Recipe, dict[str, Any]]:
    """An image that erasebench made, from anywhere: its pixels, its recipe, and the rest of its record.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it is cut, its pixels are not those that were saved, or it is not from erasebench.
        UserError: a newer erasebench made it, or it cannot be read now.
    """
    path = Path(path)
    data = read_whole(path)
    if not (data.startswith(START) and data.endswith(END)):
        raise Damaged(path, f"not a whole PNG: {len(data)} bytes")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as file:
            file.load()
            image, texts = file.convert("RGB"), dict(getattr(file, "text", {}))
    except MemoryError:
        raise
    except Exception as error:  # whatever a decoder raises: the bytes are all there, so they are wrong
        raise Damaged(path, f"not a whole PNG: {error}") from error
    try:
        values, record = json.loads(texts[RECIPE]), json.loads(texts[RECORD])
        newer = sorted(values.keys() - {field.name for field in dataclasses.fields(Recipe)})
        recipe = Recipe.from_dict({name: value for name, value in values.items() if name not in newer})
        promised = record["key"], record["pixels_sha256"]
    except MemoryError:
        raise
    except Exception as error:  # as above: JSON of any depth and type
        raise Damaged(path, f"holds no recipe of erasebench: {error}") from error
    if newer:
        raise UserError(
            f"{path} was made by a newer erasebench (its recipe has {', '.join(newer)}); update erasebench to read it"
        )
    if promised != (recipe.key, pixels_sha256(image)):
        raise Damaged(path, "its pixels or its recipe are not those that were saved")
    return image, recipe, record


def pixels_sha256(image: Image.Image) -> str:
    """SHA-256 of size and pixels, the same for equal pixels however they are packed in a file."""
    pixels = np.asarray(image.convert("RGB"))
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
