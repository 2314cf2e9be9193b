"""Where images, edits and scores are kept, found by what decides them.

Layout of a results folder::

    images/ab/<key>.png              one image; its recipe is inside the PNG
    edits/<key>.safetensors, .json   one edit
    attacks/ab/<key>.safetensors     what an attack found for one prompt
    records/images/<shard>.parquet   recipe, pixel hash, seconds, device, library versions: a row an image
    records/<metric id>/<shard>.parquet   raw scores: a row an image and input
    runs/<run>/                      what a run writes: plan, manifest, tables
    claims/<job>                     which process is at work on what

Any number of processes may work on one store: files are renamed into place whole, no file is ever appended to, and
every process writes record shards of its own. No text of a user becomes part of a path.

What is damaged (:class:`erasebench.errors.Damaged`) counts as absent. Only a store that mends sets it aside, under
another name: the store of a run, which makes it again. A store that reads renames nothing.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import pandas as pd
from PIL import Image

from erasebench.errors import Damaged, UserError
from erasebench.files import (
    check_writable,
    disk_errors,
    opened,
    read_whole,
    set_aside,
    sweep_temporary,
    write_atomic,
)
from erasebench.models.marks import check_notes
from erasebench.recipe import Recipe
from erasebench.store import records, shards
from erasebench.store.claims import Claims
from erasebench.store.png import END, START, png_bytes, read_png
from erasebench.store.scored import Scored

if TYPE_CHECKING:
    from erasebench.edits.eraser import Edit
    from erasebench.edits.found import Found

log = logging.getLogger(__name__)

FLUSH_ROWS = 200
FLUSH_SECONDS = 30.0
"""Image records wait in memory for at most so many rows or seconds; a crash in between loses none of them, since
they are also in the PNGs."""

FOLDERS = (
    "images", "edits", "records", "runs", "tables", "reports", "exports", "work", "claims", "attacks",
)  # fmt: skip
"""What is ours in a results folder. Whatever else is there belongs to somebody else."""

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")


class Store:
    """One results folder.

    Args:
        root: the folder; made on the first write.
        mends: set what is damaged aside, so that it is made again. For who makes it again.

    Attributes:
        claims: which process is at work on what.
    """

    def __init__(self, root: str | Path, mends: bool = False) -> None:
        self.root = Path(root)
        self.mends = mends
        self._rows: list[dict[str, Any]] = []
        self._flushed_at = time.monotonic()
        self._warned: set[Path] = set()
        self.claims = Claims(self.root / "claims")

    def check_writable(self, need_bytes: int = 0) -> None:
        """To be called before any work: can it be written to, is there room, what did killed processes leave.

        An image whose record was not written before the kill is read as a whole: a crash of the machine may have cut it.

        Args:
            need_bytes: about how much the work will write.

        Raises:
            UserError: the folder cannot be written to, or is too full.
        """
        now = check_writable(self.root, need_bytes)
        # The probe of a killed process lies beside our folders.
        sweep_temporary([*(self.root / name for name in FOLDERS), *self.root.glob(".erasebench-*.tmp")], now)
        self.claims.sweep(now)
        if self.mends:
            self.flush()
            recorded = shards.read(self._folder("images"), ["key"], self._damaged, columns=["key"])
            self._rows = self._unrecorded(set(recorded["key"]))
            self.flush()

    def _damaged(self, error: Damaged | shards.LacksColumns) -> None:
        """What happens to a damaged file: it is set aside, or left with a warning; one that is whole is always left."""
        if self.mends and isinstance(error, Damaged):
            set_aside(error.path, error.why)
        else:
            self._warn(error.path, error)

    def _warn(self, path: Path, error: UserError) -> None:
        """Say what is wrong with a file, once."""
        if path not in self._warned:
            self._warned.add(path)
            log.warning("%s", error)

    # Images

    def image_path(self, key: str) -> Path:
        """Where the image of a key is or will be."""
        return self.root / "images" / _checked(key)[:2] / f"{key}.png"

    def has_image(self, key: str) -> bool:
        """Whether the image is there and whole at both ends; reads 20 bytes. :meth:`image` checks every pixel.

        Raises:
            UserError: it cannot be read now.
        """
        try:
            with opened(self.image_path(key)) as file:
                start = file.read(len(START))
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - len(END)))
                return start == START and file.read() == END
        except (FileNotFoundError, Damaged):
            return False

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys, each once and in order, that have no image file.

        Lists the folders and opens no file, so that 100 000 keys take a second also where opening one is slow. What
        kills left is found before (:meth:`check_writable`), what was damaged since when it is read (:meth:`image`).
        """
        asked = dict.fromkeys(keys)
        there: set[str] = set()
        for start in sorted({_checked(key)[:2] for key in asked}):
            there |= records.png_names(self.root / "images" / start)
        return [key for key in asked if f"{key}.png" not in there]

    def put_image(self, recipe: Recipe, image: Image.Image, meta: Mapping[str, Any]) -> None:
        """Save an image with its recipe inside, and remember its record.

        An image that is already there is kept: the same recipe made it.

        Args:
            recipe: what made it.
            image: RGB, of the recipe's size.
            meta: the other columns of its record: ``seconds``, and texts (device, versions).

        Raises:
            UserError: the folder is full or not writable; nothing partial is left.
            ValueError: the image is not what the recipe asks for.
        """
        if image.mode != "RGB" or image.size != (recipe.width, recipe.height):
            raise ValueError(
                f"{recipe.key}: an image of mode {image.mode}, size {image.size} was made for a recipe that asks for "
                f"RGB, {(recipe.width, recipe.height)}"
            )
        path = self.image_path(recipe.key)
        if self.has_image(recipe.key):
            return
        if os.path.lexists(path):
            set_aside(path, "not a whole PNG")
        data, record = png_bytes(image, recipe, meta)
        if write_atomic(path, data, keep_first=True):  # another process may just have made it, too
            self._rows.append(records.row(recipe, record))
        if len(self._rows) >= FLUSH_ROWS or time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def image(self, key: str) -> Image.Image:
        """The image of a key, RGB, every pixel checked.

        Raises:
            KeyError: there is none.
            Damaged: it is not what was saved. A store that mends has set it aside.
            UserError: it cannot be read now.
        """
        path = self.image_path(key)
        try:
            return read_png(path)[0]
        except FileNotFoundError:
            raise KeyError(key) from None
        except Damaged as error:
            self._damaged(error)
            raise

    def recipe(self, key: str) -> Recipe:
        """What made the image of a key; raises as :meth:`image` does."""
        self.image(key)
        return read_png(self.image_path(key))[1]

    def flush(self) -> None:
        """Write the image records that wait in memory."""
        if self._rows:
            shards.write(self._folder("images"), shards.encode(pd.DataFrame(self._rows)))
            self._rows = []
        self._flushed_at = time.monotonic()

    def image_records(self) -> pd.DataFrame:
        """One row for every image in the store: ``key``, the recipe's fields, ``pixels_sha256`` and the meta columns.

        A record that was lost (a crash, a damaged shard) is made again from its PNG. A record whose image is gone is
        kept; of an image that was made twice, the later record counts.
        """
        written = shards.read(self._folder("images"), ["key"], self._damaged, types=records.TYPES)
        recorded = {*written["key"], *(row["key"] for row in self._rows)}
        rows = [*self._rows, *self._unrecorded(recorded)]
        parts = [part for part in (written, pd.DataFrame(rows)) if len(part)] or [written]
        return pd.concat(parts).drop_duplicates("key", keep="last", ignore_index=True)

    # Edits

    def edit_path(self, key: str) -> Path:
        """Where the weights of an edit are or will be; its ``.json`` is beside it."""
        return self.root / "edits" / f"{_checked(key)}.safetensors"

    def has_edit(self, key: str) -> bool:
        """Whether the edit is there and can be read."""
        return self.get_edit(key) is not None

    def get_edit(self, key: str) -> Edit | None:
        """The edit of a key; ``None`` if there is none, or it is damaged.

        Raises:
            UserError: it cannot be read now, was written by a newer version, or has a hook that is not here.
        """
        from erasebench.edits.eraser import Edit

        path = self.edit_path(key)
        try:
            with opened(path):  # safetensors says "no such file" of every file that cannot be opened
                return Edit.load(path, key)
        except FileNotFoundError:
            return None
        except Damaged as error:
            self._damaged(error)
        return None

    def put_edit(self, key: str, edit: Edit) -> None:
        """Save an edit under its key. The first one is kept: a trained one may not come out the same again, and images
        hang on it.

        Raises:
            UserError: the folder is full or not writable.
        """
        path = self.edit_path(key)
        with disk_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            if self.get_edit(key) is not None:
                return
            if os.path.lexists(path):
                set_aside(path, "not an edit that can be read")
            replace(edit, key=key).save(path, keep_first=True)

    def edit_notes(self, key: str) -> dict[str, Any]:
        """What is noted of an edit, from the file beside its weights, which need not be there; empty if nothing is."""
        try:
            notes = json.loads(read_whole(self.edit_path(key).with_suffix(".json")))
            check_notes(notes)
        except (FileNotFoundError, Damaged, ValueError, RecursionError):
            return {}
        return dict(notes)

    # Attacks

    def attack_path(self, key: str) -> Path:
        """Where what an attack found is or will be."""
        return self.root / "attacks" / _checked(key)[:2] / f"{key}.safetensors"

    def get_attack(self, key: str) -> Found | None:
        """What an attack found; ``None`` if it has not been found yet, or is damaged.

        Raises:
            UserError: it cannot be read now.
        """
        from erasebench.edits.found import Found

        path = self.attack_path(key)
        try:
            data = read_whole(path)
            try:
                return Found.from_bytes(data, key)
            except ValueError as error:
                raise Damaged(path, str(error)) from error
        except FileNotFoundError:
            return None
        except Damaged as error:
            self._damaged(error)
        return None

    def put_attack(self, key: str, found: Found) -> None:
        """Save what an attack found. What is there is kept: images hang on it, and another search may end elsewhere.

        Raises:
            UserError: the folder is full or not writable.
        """
        path = self.attack_path(key)
        if self.get_attack(key) is not None:
            return
        if os.path.lexists(path):
            set_aside(path, "not what an attack found")
        write_atomic(path, found.to_bytes(key), keep_first=True)

    # Scores

    def scores(self, metric_id: str, inputs: Sequence[str]) -> pd.DataFrame:
        """All stored scores of a metric: ``key``, its inputs, its raw columns. Of equal rows the first written counts.

        Two processes may have scored one image at once, with numbers that differ in the last digits. What a table said
        once, it goes on to say.

        Args:
            metric_id: ``name@version``.
            inputs: the columns besides ``key`` that decide a score (``Metric.inputs``).

        Returns:
            Empty, with the columns ``key`` and inputs, if there are none.

        Raises:
            UserError: they cannot be read now.
        """
        by = ["key", *inputs]
        scores = shards.read(self._folder(metric_folder(metric_id)), by, self._damaged)
        return scores.drop_duplicates(by, ignore_index=True)

    def put_scores(self, metric_id: str, scores: pd.DataFrame) -> None:
        """Store scores as they are. Cells may be lists (detections) or arrays (features).

        Raises:
            UserError: the folder is full or not writable.
            ValueError: there is no column ``key``, or a cell that no table can hold.
        """
        if "key" not in scores.columns:
            raise ValueError(f"scores of {metric_id} have no column 'key': {list(scores.columns)}")
        if len(scores):
            shards.write(self._folder(metric_folder(metric_id)), shards.encode(scores))

    def missing_scores(self, metric_id: str, inputs: Sequence[str], rows: pd.DataFrame) -> pd.DataFrame:
        """The rows that have no stored score yet, each ``key`` and inputs once, in order, all columns kept."""
        wanted = rows.drop_duplicates(["key", *inputs])
        return wanted[self.scored(metric_id, inputs).lacks(wanted)].reset_index(drop=True)

    def scored(self, metric_id: str, inputs: Sequence[str]) -> Scored:
        """Which rows have scores of a metric, to be looked up again and again; arguments as :meth:`scores`."""
        return Scored(self._folder(metric_folder(metric_id)), ["key", *inputs], self._damaged)

    def merge_shards(self) -> None:
        """Put the records that are spread over many small files together; for the end of a run.

        Raises:
            UserError: the folder is full or not writable; nothing is lost then.
        """
        self.flush()
        for folder in _folders(self.root / "records"):
            shards.merge(folder)

    def metric_ids(self) -> list[str]:
        """The metrics that have scores here."""
        return [unquote(folder.name) for folder in _folders(self.root / "records") if "@" in folder.name]

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

    def _unrecorded(self, recorded: set[str]) -> list[dict[str, Any]]:
        return records.unrecorded(self.root / "images", recorded, self._damaged, self._warn)

    def _folder(self, folder: str) -> Path:
        return self.root / "records" / folder


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_dir())


def _checked(key: str) -> str:
    if not records.KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not a key: 16 to 64 hexadecimal digits")
    return key


def metric_folder(metric_id: str) -> str:
    """``name@version`` as a folder name; every sign with a meaning in paths is escaped (a Hub id has a slash)."""
    name, at, version = metric_id.partition("@")
    folder = quote(metric_id, safe="@+=,")
    if not (name and at and version) or len(folder) > 200:
        raise ValueError(f"metric id {metric_id!r} is not of the form name@version, or is too long")
    return folder
