"""Where images, edits and scores are kept, found by what decides them.

Layout of a results folder::

    images/ab/<key>.png              one image; its recipe is inside the PNG
    edits/<key>.safetensors, .json   one edit
    records/images/<shard>.parquet   recipe, pixel hash, seconds, device, library versions: a row an image
    records/<metric id>/<shard>.parquet   raw scores: a row an image and input
    runs/<run>/                      what a run writes: plan, manifest, tables

Any number of processes may work on one store: files are renamed into place whole, no file is ever appended to, and
every process writes record shards of its own. No text of a user becomes part of a path.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image, PngImagePlugin

from erasebench.errors import UserError
from erasebench.files import check_writable, disk_errors, set_aside, sweep_temporary, write_atomic
from erasebench.recipe import Recipe, canonical_json

if TYPE_CHECKING:
    from erasebench.edits.eraser import Edit

log = logging.getLogger(__name__)

FLUSH_ROWS = 200
FLUSH_SECONDS = 30.0
"""Image records wait in memory for at most so many rows or seconds; a crash in between loses none of them, since
they are also in the PNGs."""

PNG_RECIPE, PNG_RECORD = "erasebench.recipe", "erasebench.record"
"""Text chunks of every PNG: the recipe, and the other columns of its record (with the key), both JSON."""

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_KEY = re.compile(r"[0-9a-f]{16,64}")
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")


class BrokenImage(Exception):
    """A PNG that cannot be read, was cut, or does not hold what it says it holds."""


class Store:
    """One results folder.

    Args:
        root: the folder; made on the first write.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._rows: list[dict[str, Any]] = []
        self._flushed_at = time.monotonic()

    def check_writable(self, need_bytes: int = 0) -> None:
        """To be called before any work: can it be written to, is there room, what did killed processes leave.

        Args:
            need_bytes: about how much the work will write.

        Raises:
            UserError: the folder cannot be written to, or is too full.
        """
        check_writable(self.root, need_bytes)
        sweep_temporary(self.root)

    # Images

    def image_path(self, key: str) -> Path:
        """Where the image of a key is or will be."""
        return self.root / "images" / _checked(key)[:2] / f"{key}.png"

    def has_image(self, key: str) -> bool:
        """Whether the image is there and whole at both ends. A cut file is set aside and counts as absent.

        Reads 20 bytes of the file, so that asking for 30 000 images takes seconds; :meth:`image` checks every pixel.
        """
        path = self.image_path(key)
        try:
            with open(path, "rb") as file:
                start = file.read(len(_PNG_START))
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - len(_PNG_END)))
                end = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return False
        if start == _PNG_START and end == _PNG_END:
            return True
        set_aside(path, f"cut after {size} bytes")
        return False

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys, each once and in order, whose image has yet to be made."""
        return [key for key in dict.fromkeys(keys) if not self.has_image(key)]

    def put_image(self, recipe: Recipe, image: Image.Image, meta: Mapping[str, Any]) -> None:
        """Save an image with its recipe inside, and remember its record.

        An image that is already there is kept: the same recipe made it.

        Args:
            recipe: what made it.
            image: RGB, of the recipe's size.
            meta: the other columns of its record, plain values: seconds, device, versions.

        Raises:
            UserError: the folder is full or not writable; nothing partial is left.
            ValueError: the image is not what the recipe asks for.
        """
        if image.mode != "RGB" or image.size != (recipe.width, recipe.height):
            raise ValueError(
                f"{recipe.key}: an image of mode {image.mode}, size {image.size} was made for a recipe that asks for "
                f"RGB, {(recipe.width, recipe.height)}"
            )
        if self.has_image(recipe.key):
            return
        record = {"key": recipe.key, "pixels_sha256": pixels_sha256(image), **meta}
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text(PNG_RECIPE, canonical_json(recipe.to_dict()))
        chunks.add_text(PNG_RECORD, canonical_json(record))
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", pnginfo=chunks)
        write_atomic(self.image_path(recipe.key), buffer.getvalue())
        self._rows.append(_row(recipe, record))
        if len(self._rows) >= FLUSH_ROWS or time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def image(self, key: str) -> Image.Image:
        """The image of a key, RGB, every pixel checked.

        Raises:
            KeyError: there is none.
            UserError: the file is broken; it has been set aside.
        """
        path = self.image_path(key)
        try:
            return read_png(path)[0]
        except FileNotFoundError:
            raise KeyError(key) from None
        except BrokenImage as error:
            aside = set_aside(path, str(error))
            raise UserError(f"{path} is broken ({error}); set aside as {aside.name}. Run again to remake it") from None

    def recipe(self, key: str) -> Recipe:
        """What made the image of a key; raises as :meth:`image` does."""
        self.image(key)
        return read_png(self.image_path(key))[1]

    def flush(self) -> None:
        """Write the image records that wait in memory."""
        if self._rows:
            self._write_shard("images", pd.DataFrame(self._rows))
            self._rows = []
        self._flushed_at = time.monotonic()

    def image_records(self) -> pd.DataFrame:
        """One row for every image in the store: ``key``, the recipe's fields, ``pixels_sha256`` and the meta columns.

        A record that was lost (a crash, a broken shard) is made again from its PNG. A record whose image is gone
        is kept.
        """
        self.flush()
        records = self._read_shards("images", ["key"])
        known = set(records["key"]) if len(records) else set()
        rebuilt = []
        for path in sorted((self.root / "images").glob("??/*.png")):
            if path.stem in known:
                continue
            try:
                _, recipe, record = read_png(path)
            except BrokenImage as error:
                set_aside(path, str(error))
            except FileNotFoundError:
                continue  # set aside by another process
            else:
                rebuilt.append(_row(recipe, record))
        if rebuilt:
            log.info("%d image records were made again from their images", len(rebuilt))
            self._rows = rebuilt
            self.flush()
            records = self._read_shards("images", ["key"])
        return records

    # Edits

    def edit_path(self, key: str) -> Path:
        """Where the weights of an edit are or will be; its ``.json`` is beside it."""
        return self.root / "edits" / f"{_checked(key)}.safetensors"

    def has_edit(self, key: str) -> bool:
        """Whether the edit is there and can be read. A broken one is set aside and counts as absent."""
        return self.get_edit(key) is not None

    def get_edit(self, key: str) -> Edit | None:
        """The edit of a key, or ``None`` if there is none or it is broken (then it is set aside)."""
        from erasebench.edits.eraser import Edit

        path = self.edit_path(key)
        if not path.exists():
            return None
        try:
            return Edit.load(path)
        except Exception as error:  # any: whatever is wrong inside, the edit is cheap to make again, and we say so
            set_aside(path, f"{type(error).__name__}: {error}")
            return None

    def put_edit(self, key: str, edit: Edit) -> None:
        """Save an edit.

        Raises:
            UserError: the folder is full or not writable.
        """
        path = self.edit_path(key)
        with disk_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            edit.save(path)

    # Scores

    def scores(self, metric_id: str, inputs: Sequence[str]) -> pd.DataFrame:
        """All stored scores of a metric: ``key``, its inputs, its raw columns. Of equal rows the newest counts.

        Args:
            metric_id: ``name@version``.
            inputs: the columns besides ``key`` that decide a score (``Metric.inputs``).

        Returns:
            Empty, with the columns ``key`` and inputs, if there are none.
        """
        return self._read_shards(_metric_folder(metric_id), ["key", *inputs])

    def put_scores(self, metric_id: str, scores: pd.DataFrame) -> None:
        """Store scores as they are. Cells may be lists (detections) or arrays (features).

        Raises:
            UserError: the folder is full or not writable.
            ValueError: there is no column ``key``.
        """
        if "key" not in scores.columns:
            raise ValueError(f"scores of {metric_id} have no column 'key': {list(scores.columns)}")
        if len(scores):
            self._write_shard(_metric_folder(metric_id), scores.reset_index(drop=True))

    def missing_scores(self, metric_id: str, inputs: Sequence[str], rows: pd.DataFrame) -> pd.DataFrame:
        """The rows that have no stored score yet, each ``key`` and inputs once, in order, all columns kept."""
        by = ["key", *inputs]
        wanted = rows.drop_duplicates(by)
        have = self.scores(metric_id, inputs)
        if not len(have):
            return wanted.reset_index(drop=True)
        done = pd.MultiIndex.from_frame(have[by].astype(object))
        asked = pd.MultiIndex.from_frame(wanted[by].astype(object))
        return wanted[~asked.isin(done)].reset_index(drop=True)

    def metric_ids(self) -> list[str]:
        """The metrics that have scores here."""
        folders = sorted((self.root / "records").glob("*@*/"))
        return [unquote(folder.name) for folder in folders]

    # Runs

    def run_folder(self, run: str) -> Path:
        """The folder of a run, made if need be.

        Raises:
            ValueError: a name that is not safe in a path.
        """
        if not _RUN.fullmatch(run):
            raise ValueError(f"run {run!r}: letters, digits and . _ - only, not starting with a sign")
        folder = self.root / "runs" / run
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    # Shards

    def _write_shard(self, folder: str, rows: pd.DataFrame) -> None:
        buffer = io.BytesIO()
        rows.to_parquet(buffer, compression="zstd", index=False)
        # Time first: shards sort from old to new.
        name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}.parquet"
        write_atomic(self.root / "records" / folder / name, buffer.getvalue())

    def _read_shards(self, folder: str, by: list[str]) -> pd.DataFrame:
        shards = []
        for path in sorted((self.root / "records" / folder).glob("*.parquet")):
            try:
                shard = pd.read_parquet(path)
                lacking = [name for name in by if name not in shard.columns]
                if lacking:
                    raise pa.ArrowInvalid(f"no column {', '.join(lacking)}")
            except FileNotFoundError:
                continue
            except (pa.ArrowException, OSError, ValueError) as error:
                set_aside(path, str(error).splitlines()[0])
            else:
                shards.append(shard)
        if not shards:
            return pd.DataFrame(columns=by)
        return pd.concat(shards, ignore_index=True).drop_duplicates(by, keep="last", ignore_index=True)


def read_png(path: str | Path) -> tuple[Image.Image, Recipe, dict[str, Any]]:
    """An image that erasebench made, from anywhere: its pixels, its recipe, and the rest of its record.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenImage: it is cut, its pixels are not those that were saved, or it is not from erasebench.
    """
    data = Path(path).read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as file:
            file.load()
            image, texts = file.convert("RGB"), dict(file.text)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise BrokenImage(f"not a whole PNG: {error}") from error
    try:
        recipe, record = Recipe.from_dict(json.loads(texts[PNG_RECIPE])), json.loads(texts[PNG_RECORD])
        promised = record["key"], record["pixels_sha256"]
    except (KeyError, ValueError, TypeError, UserError) as error:
        raise BrokenImage(f"holds no recipe of erasebench: {error}") from error
    if promised != (recipe.key, pixels_sha256(image)):
        raise BrokenImage("its pixels or its recipe are not those that were saved")
    return image, recipe, record


def pixels_sha256(image: Image.Image) -> str:
    """SHA-256 of size and pixels, the same for equal pixels however they are packed in a file."""
    pixels = np.asarray(image.convert("RGB"))
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def library_versions() -> dict[str, str]:
    """The versions that go into a record: they do not decide an image, but explain a drift."""
    return {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers")}


def _row(recipe: Recipe, record: Mapping[str, Any]) -> dict[str, Any]:
    return {"key": recipe.key, **recipe.to_dict(), **record}


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not a key: 16 to 64 hexadecimal digits")
    return key


def _metric_folder(metric_id: str) -> str:
    """``name@version`` as a folder name; every sign with a meaning in paths is escaped (a Hub id has a slash)."""
    name, at, version = metric_id.partition("@")
    folder = quote(metric_id, safe="@+=,")
    if not (name and at and version) or len(folder) > 200:
        raise ValueError(f"metric id {metric_id!r} is not of the form name@version, or is too long")
    return folder
