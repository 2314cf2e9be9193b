"""The folders of stored runs: finding them, and reading and writing what they say of themselves."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from erasebench.config.build import build
from erasebench.config.values import plain_values
from erasebench.edits.label import Label
from erasebench.errors import Damaged, UserError, suggest
from erasebench.files import read_whole, write_atomic, write_json, write_text
from erasebench.runs.about import About
from erasebench.runs.plan import Prepared
from erasebench.scores.metric import Metric
from erasebench.scores.stored import from_record, to_record
from erasebench.store import Store

PLAN = (
    "eraser", "task", "task_kind", "role", "prompt_id", "prompt", "seed", "label", "kind", "key", "original_key", "edit_key",
)  # fmt: skip
"""Columns that every plan has had; ``targets`` and what is said of attacks came later and can be told from the rest."""


ERASERS = "erasers.json"
"""In a run's folder: the label of each of its erasers, and what its config says of it."""

METRICS = "metrics.json"
"""In a run's folder: what a table needs to know of each of its metrics, see :mod:`erasebench.scores.stored`."""

SWEPT = "runs.json"
"""In the folder of a sweep's table: the names of its runs."""


def write_plan(folder: Path, rows: pd.DataFrame, about: About) -> None:
    """Put a run's plan and what its captions say beside its config."""
    about.write(folder)
    buffer = io.BytesIO()
    rows.to_parquet(buffer, compression="zstd", index=False)
    write_atomic(folder / "plan.parquet", buffer.getvalue())


def write_metrics(folder: Path, metrics: Sequence[Metric]) -> None:
    """Put what a table needs to know of a run's metrics beside its config."""
    write_json(folder / METRICS, [to_record(metric) for metric in metrics])


def write_erasers(folder: Path, labels: Mapping[str, Label], nodes: Mapping[str, Mapping[str, Any]]) -> None:
    """Put the labels of a run's erasers, and what the config says of each, beside its config."""
    write_json(folder / ERASERS, [{"label": label.to_json(), "node": nodes[text]} for text, label in labels.items()])


def erasers_of(folder: Path) -> dict[str, tuple[Label, dict[str, Any]]]:
    """By the text of its label, the label of each eraser of a run, and what the run's config says of it.

    Empty for a run of an earlier version.

    Raises:
        UserError: the file cannot be read.
    """
    if not (folder / ERASERS).exists():
        return {}
    try:
        entries = [
            (Label.from_json(entry["label"]), dict(entry["node"])) for entry in _read_json(folder / ERASERS, list)
        ]
    except (UserError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"run {folder.name}: its {ERASERS} cannot be read ({error}); give its command again") from error
    return {label.text: (label, node) for label, node in entries}


def find_eraser(folders: Sequence[Path], label: str, option: str | None) -> tuple[Path, dict[str, Any]] | None:
    """The run that has an eraser, and what its config says of it.

    Args:
        folders: of runs.
        label: of the eraser in their table.
        option: an option that the table shows even where it has its default, because its runs vary it.

    Returns:
        ``None`` if no run has such a label, or they are of an earlier version.
    """
    for folder in folders:
        for own, node in erasers_of(folder).values():
            if label in (own.text, own.showing(option).text if option else own.text):
                return folder, node
    return None


def read_plan(folder: Path) -> pd.DataFrame:
    """The plan of a run; one of an older version is brought up to date.

    Raises:
        UserError: there is none, or it lacks columns that cannot be told from the others; they are named.
    """
    try:
        plan = pd.read_parquet(folder / "plan.parquet")
    except FileNotFoundError:
        raise UserError(
            f"run {folder.name}: it was stopped before its plan was written; give its command again: "
            + command_line(read_manifest(folder))
        ) from None
    lacking = [name for name in PLAN if name not in plan.columns]
    if lacking:
        raise UserError(
            f"run {folder.name}: its plan was written by another version (no column {', '.join(lacking)}); give its "
            f"command again, images are kept: {command_line(read_manifest(folder))}"
        )
    if "targets" not in plan:
        plan = plan.assign(targets=plan.task.str.split(" + ", regex=False))
    return plan if "attack" in plan else plan.assign(attack="", attack_key="", clean_key=plan.key)


def read_config(folder: Path) -> dict[str, Any]:
    """The config that a run was made with, as plain values.

    A run's folder may come from somebody else: a text in it stays a text, whatever OmegaConf would read in its place
    (``${oc.env:HF_TOKEN}``), and nothing that it names is imported.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        config = OmegaConf.load(folder / "config.yaml")
    except (OSError, ValueError, RecursionError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"run {folder.name}: its config.yaml cannot be read ({error})") from error
    if not isinstance(config, DictConfig) or not config:
        raise UserError(f"run {folder.name}: its config.yaml holds no config")
    return plain_values(config, resolve=False)


def metrics_of(folder: Path, plugins: Sequence[str] = ()) -> tuple[list[Metric], dict[str, str]]:
    """The metrics of a run as it was scored by them, and why those that were not run were not, by id.

    Args:
        folder: of the run.
        plugins: modules that the user of this process allows metrics to come from, beside our own; those that the
            run's config lists do not count.

    Raises:
        UserError: a metric that is not ours and whose module is not allowed.
    """
    place = f"run {folder.name}: metric"
    metrics: list[Metric]
    if (folder / METRICS).exists():
        metrics = [from_record(record, place, plugins) for record in _read_json(folder / METRICS, list)]
    else:  # of an earlier version, which only a machine like its own can read
        nodes = read_config(folder).get("metric") or {}
        metrics = [build(node, f"{place}.{name}", Metric, plugins) for name, node in nodes.items()]
    manifest = read_manifest(folder)
    reasons = {name: about["not_run"] for name, about in manifest["metrics"].items() if about["not_run"]}
    return metrics, reasons


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a run wrote down of itself.

    Raises:
        UserError: it cannot be read.
    """
    return _read_json(folder / "manifest.json", dict)


T = TypeVar("T", dict, list)


def _read_json(path: Path, kind: type[T]) -> T:
    """A JSON file of a run.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    run = path.parent.name
    try:
        value = json.loads(read_whole(path))
    except (FileNotFoundError, Damaged, ValueError, RecursionError) as error:
        raise UserError(f"run {run}: its {path.name} cannot be read ({error}); give its command again") from error
    if not isinstance(value, kind):
        raise UserError(f"run {run}: its {path.name} holds something else; give its command again")
    return value


def stored_runs(store: Store) -> list[Path]:
    """The folders of all runs of a store, by name."""
    return sorted((path.parent for path in (store.root / "runs").glob("*/manifest.json")), key=lambda path: path.name)


def find_runs(store: Store, names: Sequence[str]) -> list[Path]:
    """The folders of runs by their names; the name of a sweep's table stands for all its runs, no name for the latest.

    Raises:
        UserError: no such run, or none at all.
    """
    found = []
    for name in names:
        listed = store.root / "tables" / name / SWEPT
        a_sweep = re.fullmatch(r"sweep-[\w.+-]+", name) and listed.is_file()
        of_name = json.loads(listed.read_text(encoding="utf-8")) if a_sweep else [name]
        found += [find_run(store, run) for run in of_name]
    return list(dict.fromkeys(found)) or [latest_run(store)]


def find_run(store: Store, name: str) -> Path:
    """The folder of a run; an unknown name is refused with the nearest."""
    folders = {folder.name: folder for folder in stored_runs(store)}
    if name not in folders:
        known = ", ".join(folders) or "none"
        raise UserError(f"{name}: no such run in {store.root}.{suggest(name, folders)} Runs there: {known}")
    return folders[name]


def latest_run(store: Store) -> Path:
    """The folder of the run that was started last."""
    folders = stored_runs(store)
    if not folders:
        raise UserError(f"{store.root}: no run here; make one with: erasebench run")
    return max(folders, key=lambda folder: (folder / "manifest.json").stat().st_mtime)


def command_line(manifest: Mapping[str, Any]) -> str:
    """The command that made a run, to be pasted into a shell."""
    program, *arguments = manifest["command"]
    return " ".join([program, shlex.join(arguments)]).strip()


def open_run(prepared: Prepared, manifest: Mapping[str, Any], rows: pd.DataFrame, about: About) -> Path:
    """Make the folder of a run and put all there that its tables need besides scores: config, manifest, plan, captions.

    Any process of a run may do it again: it says the same, but for who was the last to begin.

    Raises:
        UserError: a run of this name was made with another config.
    """
    folder = prepared.store.run_folder(prepared.run_name)
    mark = folder / "manifest.json"
    try:
        before = read_manifest(folder) if mark.is_file() else {}
    except UserError:  # a broken one is written anew
        before = {}
    if before.get("config_hash", prepared.hash) != prepared.hash:
        raise UserError(
            f"name={prepared.run_name}: a run of this name measured something else (config {before.get('config_hash')}, "
            f"now {prepared.hash}); choose another name, or delete {folder}"
        )
    write_erasers(folder, prepared.labels, prepared.nodes)
    write_metrics(folder, prepared.metrics)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(prepared.config))))
    write_plan(folder, rows, about)
    write_json(mark, {**manifest, "started": before.get("started", manifest["started"])})
    return folder
