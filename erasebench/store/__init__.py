"""The results folder: images, edits and scores, found by what decides them."""

from __future__ import annotations

from erasebench.store.png import pixels_sha256, read_png
from erasebench.store.records import library_versions
from erasebench.store.scored import Scored
from erasebench.store.store import Store

__all__ = ["Scored", "Store", "library_versions", "pixels_sha256", "read_png"]
