"""``erasebench show``: one image, edit or run, and everything that is known of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from erasebench.errors import UserError, suggest
from erasebench.store import Store, read_png

LONG = 8
"""Lists longer than this (features) are shown by their length."""


def show(store: Store, what: str) -> str:
    """Everything the store knows of a thing, as text.

    Args:
        store: the results folder.
        what: a PNG file; the key of an image or edit, or its first digits (at least four); or the name of a run.

    Raises:
        UserError: nothing, or more than one thing, goes by that name.
    """
    if what.lower().endswith(".png"):
        path = Path(what)
        if not path.exists():
            raise UserError(f"{what}: no such file")
        _, recipe, _ = read_png(path)
        return _image(store, recipe.key, path)
    images = [path.stem for path in store.root.glob(f"images/{what[:2]}/{what}*.png")] if _hexadecimal(what) else []
    edits = [path.stem for path in store.root.glob(f"edits/{what}*.safetensors")] if _hexadecimal(what) else []
    runs = sorted(path.parent.name for path in store.root.glob("runs/*/manifest.json"))
    if what in runs:
        return _run(store, what)
    if len(images) + len(edits) > 1:
        raise UserError(f"{what}: {len(images)} images and {len(edits)} edits begin so; give more digits")
    if images:
        return _image(store, images[0], store.image_path(images[0]))
    if edits:
        return _edit(store, edits[0])
    raise UserError(
        f"{what}: no image, edit or run goes by that in {store.root}.{suggest(what, runs)} Runs: {', '.join(runs) or 'none'}"
    )


def _hexadecimal(text: str) -> bool:
    return len(text) >= 4 and set(text) <= set("0123456789abcdef")


def _image(store: Store, key: str, path: Path) -> str:
    _, recipe, record = read_png(path)
    lines = [f"image {key}", f"file  {path}", ""]
    lines += _pairs(recipe.to_dict() | record)
    used = []
    for plan_path in sorted(store.root.glob("runs/*/plan.parquet")):
        plan = pd.read_parquet(plan_path)
        for row in plan[plan.key == key].itertuples():
            text = f"{plan_path.parent.name}: {row.eraser}, {row.task} erased, {row.role} {row.label or row.task_kind}, prompt {row.prompt_id}"
            used.append(f"  {text}" + (f", original {row.original_key}" if row.key != row.original_key else ""))
    lines += ["", "in runs", *(dict.fromkeys(used) or ["  none"]), "", "scores"]
    scored = False
    for metric in store.metric_ids():
        table = store.scores(metric, ())
        for row in table[table.key == key].drop(columns="key").to_dict("records"):
            scored = True
            lines += [f"  {metric}", *(f"    {line}" for line in _pairs(row))]
    if not scored:
        lines.append("  none")
    return "\n".join(lines)


def _edit(store: Store, key: str) -> str:
    edit = store.get_edit(key)
    if edit is None:
        raise UserError(f"edit {key}: its file is broken; run the command that made it again")
    lines = [f"edit  {key}", f"file  {store.edit_path(key)}", "", *_pairs(edit.info), "", "largest changes (Frobenius norm)"]
    norms = sorted(((change.norm(), name) for name, change in edit.changes.items()), reverse=True)
    lines += [f"  {norm:10.4f}  {name}" for norm, name in norms[:LONG]]
    return "\n".join(lines)


def _run(store: Store, name: str) -> str:
    folder = store.root / "runs" / name
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    lines = [f"run   {name}", f"in    {folder}", "", *_pairs({k: v for k, v in manifest.items() if k != "packages"}), ""]
    if (folder / "plan.parquet").exists():
        plan = pd.read_parquet(folder / "plan.parquet")
        missing = len(store.missing(plan.key))
        lines.append(f"{plan.key.nunique()} images, {missing} of them missing; {len(plan)} (eraser, task, prompt) rows")
    made = sorted(path.relative_to(folder) for pattern in ("tables/*", "grids/*") for path in folder.glob(pattern))
    lines += ["files", *(f"  {path}" for path in made), "", f"again: {shlex.join(manifest['command'])}"]
    return "\n".join(lines)


def _pairs(values: dict[str, Any]) -> Iterable[str]:
    """``name  value`` lines; nested values as JSON, long lists by their length."""
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        if isinstance(value, np.ndarray | list | tuple) and len(value) > LONG:
            value = f"{len(value)} values"
        elif isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, dict | list):
            value = json.dumps(value, ensure_ascii=False, default=str)
        yield f"{name:<{width}}  {value}"
