"""The folders of stored runs: finding them, and reading and writing what they say of themselves."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

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
from erasebench.runs.manifest import command_line, note_start, read_manifest
from erasebench.runs.names import CONFIG_FILE, ERASERS_FILE, MANIFEST_FILE, METRICS_FILE, PLAN_FILE, SWEPT_FILE
from erasebench.scores.metric import Metric
from erasebench.scores.stored import from_record, to_record
from erasebench.store import Store
from erasebench.store.records import KEY
from erasebench.typed_files import check_type, read_json, read_parquet

if TYPE_CHECKING:
    from erasebench.runs.plan import Prepared

log = logging.getLogger(__name__)

PLAN = {
    "eraser": str, "task": str, "task_kind": str, "role": str, "prompt_id": str, "prompt": str, "seed": int, "label": str,
    "kind": str, "key": str, "original_key": str, "edit_key": str,
}  # fmt: skip
"""Columns that every plan has had, and what is in them."""

LATER = {"targets": list, "attack": str, "attack_key": str, "clean_key": str}
"""Columns that came later; they can be told from the rest."""

KEYS = {"key": False, "original_key": False, "edit_key": True, "attack_key": True, "clean_key": False}
"""The columns of keys, and whether they may be empty: the unedited model has no edit."""


class _Node(TypedDict):
    _target_: str


class _Label(TypedDict):
    name: str
    options: dict[str, str | float | bool | None]
    defaults: dict[str, str | float | bool | None]


class _Eraser(TypedDict):
    label: _Label
    node: _Node


class _Experiment(TypedDict):
    name: str
    paper: str
    table: str
    kind: str
    note: str
    published: list[dict[str, str]]


class _Model(TypedDict, total=False):
    name: str
    path: str
    revision: str | None
    variant: str | None
    weights: str | None


class _Config(TypedDict, total=False):
    metric: dict[str, dict[str, Any]]
    model: _Model
    protocol: dict[str, Any]
    prompts: dict[str, Any]
    experiment: dict[str, Any] | None
    scale: str


def write_plan(folder: Path, rows: pd.DataFrame, about: About) -> None:
    """Put a run's plan and what its captions say beside its config."""
    about.write(folder)
    buffer = io.BytesIO()
    rows.to_parquet(buffer, compression="zstd", index=False)
    write_atomic(folder / PLAN_FILE, buffer.getvalue())


def write_metrics(folder: Path, metrics: Sequence[Metric]) -> None:
    """Put what a table needs to know of a run's metrics beside its config."""
    write_json(folder / METRICS_FILE, [to_record(metric) for metric in metrics])


def write_erasers(folder: Path, labels: Mapping[str, Label], nodes: Mapping[str, Mapping[str, Any]]) -> None:
    """Put the labels of a run's erasers, and what the config says of each, beside its config."""
    write_json(
        folder / ERASERS_FILE, [{"label": label.to_json(), "node": nodes[text]} for text, label in labels.items()]
    )


def erasers_of(folder: Path) -> dict[str, tuple[Label, dict[str, Any]]]:
    """By the text of its label, the label of each eraser of a run, and what the run's config says of it.

    Empty for a run of an earlier version.

    Raises:
        UserError: the file cannot be read.
    """
    if not (folder / ERASERS_FILE).exists():
        return {}
    entries = read_json(folder / ERASERS_FILE, list[_Eraser], _cure(folder))
    labels = [Label.from_json(entry["label"]) for entry in entries]
    return {label.text: (label, dict(entry["node"])) for label, entry in zip(labels, entries, strict=True)}


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
    path = folder / PLAN_FILE
    try:
        plan = read_parquet(path, PLAN | LATER, _cure(folder))
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
    if not {"attack", "attack_key", "clean_key"} <= set(plan):
        plan = plan.assign(attack="", attack_key="", clean_key=plan.key)
    for name, may_be_empty in KEYS.items():
        right = plan[name].str.fullmatch(KEY) | ((plan[name] == "") & may_be_empty)
        if not right.all():
            raise UserError(
                f"{path}: cannot be read ({name} {plan[name][~right].iloc[0]!r} is no key); {_cure(folder)}"
            )
    if not len(plan):
        raise UserError(f"{path}: cannot be read (it has no rows); {_cure(folder)}")
    return plan


def _cure(folder: Path) -> str:
    return f"give the command of run {folder.name} again, images are kept"


def read_config(folder: Path) -> dict[str, Any]:
    """The config that a run was made with, as plain values.

    A run's folder may come from somebody else: a text in it stays a text, whatever OmegaConf would read in its place
    (``${oc.env:HF_TOKEN}``), and nothing that it names is imported.

    Raises:
        UserError: the file cannot be read, or what its readers need is of another type.
    """
    path = folder / CONFIG_FILE
    try:
        config = OmegaConf.load(io.StringIO(read_whole(path).decode("utf-8")))
        if not isinstance(config, DictConfig) or not config:
            raise ValueError("it holds no config")
        values = plain_values(config, resolve=False)
        check_type(values, _Config)
        if values.get("experiment"):
            check_type(values["experiment"], _Experiment, "experiment")
    except FileNotFoundError:
        raise UserError(f"{path}: not there; {_cure(folder)}") from None
    except Damaged as error:
        raise UserError(f"{path}: cannot be read ({error.why}); {_cure(folder)}") from error
    except (OSError, ValueError, RecursionError, YAMLError, OmegaConfBaseException) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: cannot be read ({why}); {_cure(folder)}") from error
    return values


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
    if (folder / METRICS_FILE).exists():
        records = read_json(folder / METRICS_FILE, list[dict[str, Any]], _cure(folder))
        metrics = [from_record(record, place, plugins) for record in records]
    else:  # of an earlier version, which only a machine like its own can read
        nodes = read_config(folder).get("metric") or {}
        metrics = [build(node, f"{place}.{name}", Metric, plugins) for name, node in nodes.items()]
    manifest = read_manifest(folder)
    reasons = {name: why for name, used in manifest["metrics"].items() if (why := used.get("not_run"))}
    return metrics, reasons


def stored_runs(store: Store) -> list[Path]:
    """The folders of all runs of a store, by name."""
    return sorted(
        (path.parent for path in (store.root / "runs").glob(f"*/{MANIFEST_FILE}")), key=lambda path: path.name
    )


def find_runs(store: Store, names: Sequence[str]) -> list[Path]:
    """The folders of runs by their names; the name of a sweep's table stands for all its runs, no name for the latest.

    Raises:
        UserError: no such run, or none at all.
    """
    folders = []
    for name in names:
        listed = store.root / "tables" / name / SWEPT_FILE
        of_name = [name]
        if re.fullmatch(r"sweep-[\w.+-]+", name) and listed.exists():
            of_name = read_json(listed, list[str], "name its runs one by one")
        folders += [find_run(store, run) for run in of_name]
    return list(dict.fromkeys(folders)) or [latest_run(store)]


def find_run(store: Store, name: str) -> Path:
    """The folder of a run; an unknown name is refused with the nearest."""
    folders = {folder.name: folder for folder in stored_runs(store)}
    if name not in folders:
        others = ", ".join(folders) or "none"
        raise UserError(f"{name}: no such run in {store.root}.{suggest(name, folders)} Runs there: {others}")
    return folders[name]


def latest_run(store: Store) -> Path:
    """The folder of the run that was started last, of those that can be read; a later one that cannot is named.

    Raises:
        UserError: no run is here, or none that can be read.
    """
    why = f"{store.root}: no run here; make one with: erasebench run"
    for folder in latest_first(store):
        try:
            read_manifest(folder)
            return folder
        except UserError as error:
            why = str(error)
            log.warning("%s", error)
    raise UserError(why)


def latest_first(store: Store) -> list[Path]:
    """The folders of all runs of a store, the one that was started last first."""

    def started(folder: Path) -> float:
        try:
            return (folder / MANIFEST_FILE).stat().st_mtime
        except OSError:  # deleted just now, or a link to nothing
            return 0.0

    return sorted(stored_runs(store), key=started, reverse=True)


def open_run(prepared: Prepared, manifest: Mapping[str, Any], rows: pd.DataFrame, about: About) -> Path:
    """Make the folder of a run and put all there that its tables need besides scores: config, manifest, plan, captions.

    Any process of a run may do it again: it says the same, but for who was the last to begin.

    Raises:
        UserError: a run of this name was made with another config.
    """
    folder = prepared.store.run_folder(prepared.run_name)
    mark = folder / MANIFEST_FILE
    try:
        before: Mapping[str, Any] = read_manifest(folder) if mark.is_file() else {}
    except UserError:  # a broken one is written anew
        before = {}
    if before.get("config_hash", prepared.hash) != prepared.hash:
        raise UserError(
            f"name={prepared.run_name}: a run of this name measured something else (config {before.get('config_hash')}, "
            f"now {prepared.hash}); choose another name, or delete {folder}"
        )
    write_erasers(folder, prepared.labels, prepared.nodes)
    write_metrics(folder, prepared.metrics)
    write_text(folder / CONFIG_FILE, OmegaConf.to_yaml(OmegaConf.create(dict(prepared.config))))
    write_plan(folder, rows, about)
    write_json(mark, {**manifest, "started": before.get("started", manifest["started"])})
    note_start(folder, manifest)
    return folder
