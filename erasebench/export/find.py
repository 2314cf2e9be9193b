"""Which edit is meant: one of a run, one of a store by its key, or one in a file; and what is known of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from erasebench.edits.edit import Edit
from erasebench.errors import UserError, suggest
from erasebench.export.card import LISTED, NOT_MEASURED, measured_effect
from erasebench.runs.folder import find_run, latest_first, latest_run, read_plan
from erasebench.runs.manifest import read_manifest
from erasebench.runs.names import MEASURED_FILE, PLAN_FILE, TABLES_FOLDER
from erasebench.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """An edit and what is known of where it comes from.

    Attributes:
        edit: the edit.
        origin: what to call it in messages.
        key: its key in the store; empty for a file from elsewhere.
        run: the latest finished run that used it, if any.
        row: ``eraser``, ``task_kind`` and ``task`` of it in that run's tables.
    """

    edit: Edit
    origin: str
    key: str = ""
    run: Path | None = None
    row: Mapping[str, str] | None = None

    @property
    def model(self) -> dict[str, Any]:
        """The model that the edit was made for, as far as it or its run says: name, source, family, revision, dtype."""
        if self.run is not None:
            manifest = read_manifest(self.run)
            return {**manifest.get("model", {}), "dtype": manifest.get("dtype", "auto")}
        model = self.edit.info.get("model")
        return model if isinstance(model, dict) else {}

    @property
    def effect(self) -> str:
        """The measured effect, as Markdown."""
        if self.run is None or self.row is None:
            return NOT_MEASURED
        return measured_effect(self.run, self.row["eraser"], self.row["task_kind"], self.row["task"])


def _check_ours(path: Path) -> None:
    """Refuse a file that is no edit of ours, damaged or not: it may be all that somebody has of their weights.

    Raises:
        UserError: with the way to bring such weights in.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(2**20)
    except FileNotFoundError:
        raise UserError(f"{path}: no such edit") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    if b"erasebench edit " not in start:  # the header comes first, also of a file that was cut
        raise UserError(
            f"{path}: not an edit that erasebench wrote. A UNet's weights or a LoRA of another method are put on their model "
            f"by: erasebench run model=NAME model.weights={path} method=none (which says how a pickle is converted)"
        )


def find_edit(store: Store, text: str) -> Found:
    """An edit by its key in the store, the first digits of it (at least four), or its file.

    Raises:
        UserError: nothing, or several, go by that; a file that cannot be read.
    """
    path = Path(text).expanduser()
    if path.suffix == ".safetensors" or path.is_file():
        _check_ours(path)
        try:
            found = Found(Edit.load(path), text)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{text}: not a whole edit file ({type(error).__name__}: {error}); make it again"
            ) from error
        key = path.stem
        if path.resolve().parent != (store.root / "edits").resolve():
            return found
    else:
        if not re.fullmatch(r"[0-9a-f]{4,64}", text.lower()):
            raise UserError(f"{text}: no such file, and not the key of an edit (4 hexadecimal digits or more)")
        keys = sorted(entry.stem for entry in store.root.glob(f"edits/{text.lower()}*.safetensors"))
        if len(keys) != 1:
            several = f"{len(keys)} edits begin so ({', '.join(keys[:4])}...); give more digits"
            raise UserError(f"{text}: {several if keys else f'no edit in {store.root} has this key'}")
        key = keys[0]
        stored = store.get_edit(key)
        if stored is None:
            raise UserError(f"edit {key}: its file is broken; give the command of the run that made it again")
        found = Found(stored, f"edit {key[:12]}")
    for folder in latest_first(store):
        if not ((folder / TABLES_FOLDER / MEASURED_FILE).exists() and (folder / PLAN_FILE).exists()):
            continue
        try:
            read_manifest(folder)
            rows = _edits_of(folder)
        except UserError as error:  # another run may have used it, too
            log.warning("left out: %s", error)
            continue
        rows = rows[rows.edit_key == key]
        if len(rows):
            return Found(found.edit, found.origin, key, folder, rows.iloc[0].to_dict())
    return Found(found.edit, found.origin, key)


def edit_of_run(store: Store, run: str | None, eraser: str | None, task: str | None) -> Found:
    folder = find_run(store, run) if run else latest_run(store)
    rows = _edits_of(folder)
    place = f"run {folder.name}"
    if not len(rows):
        raise UserError(f"{place}: it made no edit; there is only the unedited model")
    for column, wanted in (("eraser", eraser), ("task", task)):
        known = list(dict.fromkeys(rows[column]))
        if wanted is not None and wanted not in known:
            raise UserError(
                f"{column}={wanted}: {place} has none of that name.{suggest(wanted, known)} There: {', '.join(known)}"
            )
    chosen = rows[[eraser in (None, row.eraser) and task in (None, row.task) for row in rows.itertuples()]]
    if len(chosen) != 1:
        listed = [f'  "eraser={row.eraser}" "task={row.task}" ({row.task_kind})' for row in chosen.itertuples()]
        more = f"\n  and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
        raise UserError(
            f"{place} has {len(chosen)} edits; say which one (or give edit=KEY):\n" + "\n".join(listed[:LISTED]) + more
        )
    row = chosen.iloc[0].to_dict()
    edit = store.get_edit(row["edit_key"])
    if edit is None:
        raise UserError(
            f"{place}: the edit {row['edit_key']} is no longer in {store.root}; give the run's command again to remake it"
        )
    return Found(edit, f"{row['eraser']} ({row['task']}) of {place}", row["edit_key"], folder, row)


def _edits_of(folder: Path) -> pd.DataFrame:
    """The edits of a run: ``eraser, task_kind, task, edit_key``."""
    plan = read_plan(folder)[["eraser", "task_kind", "task", "edit_key"]]
    return plan[plan.edit_key != ""].drop_duplicates(ignore_index=True)
