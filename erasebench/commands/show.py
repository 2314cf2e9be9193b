"""``erasebench show``: one image, edit, attack or run, and everything that is known of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from os.path import commonprefix
from pathlib import Path
from typing import Any

import numpy as np
import torch

from erasebench.commands import add_store, verb_parser
from erasebench.errors import Damaged, UserError, printable, suggest
from erasebench.runs.folder import read_plan, stored_runs
from erasebench.runs.manifest import command_line, read_manifest
from erasebench.runs.names import GRIDS_FOLDER, PLAN_FILE, TABLES_FOLDER
from erasebench.store import Store, read_png

SHOW_HELP = """\
examples:
  erasebench show results/images/3f/3fa9c1d2.png    prompt, seed, edit, scores, the unedited model's image
  erasebench show 3fa9c1                            an image, edit or attack by the first digits of its key
  erasebench show RUN                               what a run is, what it wrote, and its command
  erasebench show protocol cure                     every choice of a paper, with where it was read
  erasebench show method mace                       what an eraser does, where its release differs, its options
  erasebench show experiment rece_nudity            a table of a paper: each choice as released, ours, its source
"""

INPUTS = ("prompt", "label", "kind", "original_key", "clean_key")
"""Columns of scores that are inputs of a metric: an image has a score for each value of them."""

LONG = 8
"""Lists longer than this (features) are shown by their length."""


def main(arguments: list[str]) -> int:
    """Parse, and print."""
    parser = verb_parser("show", SHOW_HELP)
    parser.add_argument(
        "what",
        nargs="+",
        help="a PNG file, the key of an image, edit or attack (or its first digits), the name of a run, or: method NAME, protocol NAME, experiment NAME",
    )
    add_store(parser)
    options = parser.parse_args(arguments)
    if options.what[0] == "protocol" and len(options.what) == 2:
        from erasebench.commands.protocol_page import page

        print(page(options.what[1]))
        return 0
    if options.what[0] == "method" and len(options.what) == 2:
        from erasebench.commands.method_page import page as method_page

        print(printable(method_page(options.what[1])))
        return 0
    if options.what[0] == "experiment" and len(options.what) >= 2:
        from erasebench.commands.experiment_page import page as experiment_page

        print(printable(experiment_page(options.what[1], options.what[2:])))
        return 0
    if len(options.what) > 1:
        raise UserError(
            f"show {' '.join(options.what)}: show one thing at a time, or: show method NAME, show protocol NAME, "
            "show experiment NAME"
        )
    print(printable(show(Store(options.store), options.what[0])))
    return 0


def show(store: Store, what: str) -> str:
    """Everything the store knows of a thing, as text.

    Args:
        store: the results folder.
        what: a PNG file; the key of an image, of an edit or of what an attack found, or its first digits (at least
            four); or the name of a run, or how it begins.

    Raises:
        UserError: nothing, or more than one thing, goes by that name.
    """
    if what.lower().endswith(".png"):
        path = Path(what)
        if not path.is_file():
            raise UserError(f"{what}: no such file")
        return _image(store, path)
    runs = [folder.name for folder in stored_runs(store)]
    if what in runs:
        return _run(store, what)
    key = what.lower()
    images = _keys(store, f"images/{key[:2]}/{key}*.png", key)
    edits = _keys(store, f"edits/{key}*.safetensors", key)
    attacks = _keys(store, f"attacks/{key[:2]}/{key}*.safetensors", key)
    begun = [run for run in runs if what and run.startswith(what)]
    found = [
        *(f"image {name}" for name in images),
        *(f"edit {name}" for name in edits),
        *(f"attack {name}" for name in attacks),
        *(f"run {name}" for name in begun),
    ]
    if len(found) > 1:
        shown = ", ".join(sorted(found)[:LONG]) + (f" and {len(found) - LONG} more" if len(found) > LONG else "")
        raise UserError(f"{what}: {len(found)} things begin so ({shown}); give more of the name")
    if images:
        return _image(store, store.image_path(images[0]))
    if edits:
        return _edit(store, edits[0])
    if attacks:
        return _attack(store, attacks[0])
    if begun:
        return _run(store, begun[0])
    anything = ("images/??/*.png", "edits/*.safetensors", "attacks/??/*.safetensors")
    keys = [name for pattern in anything for name in _keys(store, pattern, key)]
    near = max(keys, key=lambda name: len(commonprefix([name, key])), default="")
    nearest = f" Did you mean '{near}'?" if len(commonprefix([near, key])) >= 4 else suggest(what, runs)
    raise UserError(
        f"{what}: no image, edit, attack or run goes by that in {store.root}.{nearest} Runs: {', '.join(runs) or 'none'}"
    )


def _keys(store: Store, pattern: str, text: str) -> list[str]:
    """The keys of files in a store; none if the text cannot be the beginning of one."""
    return [path.stem for path in store.root.glob(pattern)] if _hexadecimal(text) else []


def _hexadecimal(text: str) -> bool:
    return len(text) >= 4 and set(text) <= set("0123456789abcdef")


def _image(store: Store, path: Path) -> str:
    try:
        _, recipe, record = read_png(path)
    except Damaged as error:
        raise UserError(f"{path}: {error.why}. If a run made it, give the run's command again to remake it") from None
    key = recipe.key
    lines = [f"image {key}", f"file  {path}", ""]
    lines += _pairs(recipe.to_dict() | record)
    if recipe.attack:
        lines += ["", *_attack(store, recipe.attack).splitlines()]
    used = []
    for folder in stored_runs(store):
        if not (folder / PLAN_FILE).exists():
            continue
        try:
            plan = read_plan(folder)
        except UserError as error:  # one run's fault is not another's
            used.append(f"  unknown: {error}")
            continue
        for row in plan[plan.key == key].itertuples():
            text = f"{folder.name}: {row.eraser}, {row.task} erased, {row.role} {row.label or row.task_kind}, prompt {row.prompt_id}"
            used.append(f"  {text}" + (f", original {row.original_key}" if row.key != row.original_key else ""))
    lines += ["", "in runs", *(dict.fromkeys(used) or ["  none"]), "", "scores"]
    scored = False
    for metric in store.metric_ids():
        columns = store.scores(metric, ()).columns
        table = store.scores(metric, [name for name in INPUTS if name in columns])
        for row in table[table.key == key].drop(columns="key").to_dict("records"):
            scored = True
            lines += [f"  {metric}", *(f"    {line}" for line in _pairs(row))]
    if not scored:
        lines.append("  none")
    return "\n".join(lines)


def _attack(store: Store, key: str) -> str:
    """What an attack found; an image of it may be here without it, e.g. copied from elsewhere."""
    result = store.get_attack(key)
    if result is None:
        return f"attack {key}\nwhat it found is not here"
    value = getattr(result, result.form)
    if isinstance(value, torch.Tensor):
        value = f"a tensor {list(value.shape)}, {value.dtype}"
    elif isinstance(value, Mapping):
        value = f"{len(value)} tensors, {sum(one.numel() for one in value.values())} numbers"
    lines = [f"attack {key}", f"file  {store.attack_path(key)}", ""]
    return "\n".join([*lines, *_pairs({f"found {result.form}": value, **result.info})])


def _edit(store: Store, key: str) -> str:
    edit = store.get_edit(key)
    if edit is None:
        raise UserError(f"edit {key}: its file is broken; run the command that made it again")
    notes = dict(edit.info)
    norms = notes.pop("norms", None)
    if norms is None:  # an edit that no run has stored
        norms = {name: change.norm() for name, change in edit.changes.items() if not change.reads_weight}
    lines = [
        f"edit  {key}",
        f"file  {store.edit_path(key)}",
        "",
        *_pairs(notes),
        "",
        "largest changes (Frobenius norm)",
    ]
    largest = sorted(((norm, name) for name, norm in norms.items()), reverse=True)
    lines += [f"  {norm:10.4f}  {name}" for norm, name in largest[:LONG]]
    return "\n".join(lines)


def _run(store: Store, name: str) -> str:
    folder = store.root / "runs" / name
    manifest = read_manifest(folder)
    lines = [
        f"run   {name}",
        f"in    {folder}",
        "",
        *_pairs({k: v for k, v in manifest.items() if k != "packages"}),
        "",
    ]
    if (folder / PLAN_FILE).exists():
        plan = read_plan(folder)
        missing = len(store.missing(plan.key))
        lines.append(f"{plan.key.nunique()} images, {missing} of them missing; {len(plan)} (eraser, task, prompt) rows")
    made = sorted(
        path.relative_to(folder) for part in (TABLES_FOLDER, GRIDS_FOLDER) for path in folder.glob(f"{part}/*")
    )
    lines += ["files", *(f"  {path}" for path in made), "", f"again: {command_line(manifest)}"]
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
        if isinstance(value, str) and not value.isprintable():  # line breaks, or signs that steer a terminal
            value = json.dumps(value)
        yield f"{name:<{width}}  {value}"
