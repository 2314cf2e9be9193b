"""Pictures that tests look at."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def read_picture(path: str | Path) -> Image.Image:
    """The picture in a file, with its mode, read whole, the file closed again."""
    with Image.open(path) as file:
        file.load()
        return file.copy()
