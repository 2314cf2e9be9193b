"""What is recorded of every image, and made again from the image where a crash took it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from erasebench.errors import Damaged, UserError
from erasebench.files import read_errors
from erasebench.recipe import Recipe
from erasebench.store.png import read_png

KEY = re.compile(r"[0-9a-f]{16,64}")

_ARROW = {"str": pa.large_string(), "int": pa.int64(), "float": pa.float64()}

TYPES: dict[str, pa.DataType] = {
    **{field.name: _ARROW[str(field.type)] for field in dataclasses.fields(Recipe)},
    **dict.fromkeys(("key", "pixels_sha256", "device"), pa.large_string()),
    "seconds": pa.float64(),
}
"""Of the columns that every record has."""


def library_versions() -> dict[str, str]:
    """The versions that go into a record: they do not decide an image, but explain a drift."""
    return {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers")}


def row(recipe: Recipe, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record: the recipe, seconds, and texts. What a PNG says beside its recipe can be anything, and overrides none."""
    seconds = record.get("seconds")
    fixed = {"key": recipe.key, **recipe.to_dict(), "seconds": seconds if isinstance(seconds, float) else math.nan}
    texts = {
        name: text
        for name, text in sorted(record.items())
        if name not in fixed and isinstance(text, str) and _is_utf8(name + text)
    }
    return fixed | texts


def unrecorded(
    images: Path,
    recorded: set[str],
    damaged: Callable[[Damaged], None],
    unreadable: Callable[[Path, UserError], None],
) -> list[dict[str, Any]]:
    """Records of the images that have none, from the images. Other people's pictures are left alone.

    Args:
        images: the folder of folders of images.
        recorded: keys of images that are not looked at.
        damaged: called with each image that does not parse.
        unreadable: called with each image of a newer version, or that cannot be read now.
    """
    rows = []
    for folder in sorted(images.glob("[0-9a-f][0-9a-f]")):
        for name in sorted(png_names(folder)):
            key = name.removesuffix(".png")
            if key in recorded or not (KEY.fullmatch(key) and key.startswith(folder.name)):
                continue
            try:
                _, recipe, record = read_png(folder / name)
                rows.append(row(recipe, record))
            except FileNotFoundError:
                continue  # gone since it was listed
            except Damaged as error:
                damaged(error)
            except UserError as error:
                unreadable(folder / name, error)
    return rows


def png_names(folder: Path) -> set[str]:
    """The files of a folder that end in ``.png``; none if there is no folder."""
    try:
        with read_errors(folder), os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.name.endswith(".png") and _is_file(entry)}
    except FileNotFoundError:
        return set()


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
