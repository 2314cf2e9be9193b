"""From the records of finished runs to tables and pictures: what ``run`` ends with and ``table`` does again.

Nothing here loads a model. A run's folder says which prompts, images and metrics belong together; the records of the
store say what was measured.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape

from erasebench import figures, tables
from erasebench.config import build
from erasebench.errors import UserError, suggest
from erasebench.files import write_atomic, write_json
from erasebench.metric import Metric
from erasebench.show import command_line
from erasebench.store import Store
from erasebench.table_files import print_tables, write_tables


def write_plan(folder: Path, rows: pd.DataFrame, costs: pd.DataFrame, about: Mapping[str, str]) -> None:
    """Put a run's plan, what its edits cost and what its captions say beside its config."""
    write_json(folder / "about.json", dict(about))
    for name, frame in (("plan", rows), ("costs", costs)):
        buffer = io.BytesIO()
        frame.to_parquet(buffer, compression="zstd", index=False)
        write_atomic(folder / f"{name}.parquet", buffer.getvalue())


def reduce_and_write(
    folder: Path, store: Store, metrics: Sequence[Metric], not_run: Mapping[str, str], console: Console
) -> pd.DataFrame:
    """Make the tables and pictures of a run from its plan and the store's records, and print the tables."""
    plan = pd.read_parquet(folder / "plan.parquet")
    costs = pd.read_parquet(folder / "costs.parquet")
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    scores = _scores(store, metrics)
    measured = tables.measure(plan, scores, metrics, not_run_because=not_run, costs=costs)
    write_tables(measured, folder / "tables", about)
    by, seen = tables.recognised(plan, scores, [metric for metric in metrics if metric.id not in not_run])
    for kind in dict.fromkeys(plan.task_kind):
        path, blur = folder / "grids" / f"{kind}.png", kind == "unsafe" and not about["note"]
        figures.grid(plan, store, kind, path, blur=blur, seen=seen, seen_by=by)
    print_tables(measured, about, console)
    return measured


def _scores(store: Store, metrics: Sequence[Metric]) -> dict[str, pd.DataFrame]:
    """The stored scores of metrics by their ``records_id``, each read once."""
    inputs = {metric.records_id: metric.inputs for metric in metrics}
    return {records: store.scores(records, columns) for records, columns in inputs.items()}


def tabulate(
    runs: Sequence[str], store_dir: str, out: str | None = None, console: Console | None = None
) -> pd.DataFrame:
    """``erasebench table``: the tables of finished runs, made again from records.

    Args:
        runs: names of runs; none is the latest one. Several are put into one table.
        store_dir: the results folder.
        out: where to write; a single run's own folder if not given.

    Raises:
        UserError: no such run, or runs whose numbers cannot stand in one table (what differs is named).
    """
    console = console or Console()
    store = Store(store_dir)
    folders = [_find_run(store, name) for name in dict.fromkeys(runs)] or [_latest_run(store)]
    for folder in folders:
        _check_finished(folder)
    if len(folders) == 1 and out is None:
        metrics, not_run = _metrics_of(folders[0])
        return reduce_and_write(folders[0], store, metrics, not_run, console)
    target = Path(out) if out else store.root / "tables" / _joint_name(folders)
    return _together(folders, store, target, console)


def tabulate_sweep(folders: Sequence[Path], console: Console | None = None) -> pd.DataFrame | None:
    """The runs of a sweep in one table, with a plot of strength if one option was varied.

    Returns:
        ``None`` if their numbers cannot stand in one table (a sweep over models); why is printed.
    """
    console = console or Console()
    store = Store(folders[0].parent.parent)
    try:
        return _together(folders, store, store.root / "tables" / f"sweep-{_joint_name(folders)}", console)
    except UserError as error:
        console.print(f"no table of the whole sweep: {error}", markup=False, highlight=False)
        return None


def _joint_name(folders: Sequence[Path]) -> str:
    """A folder name for some runs together: one set of runs, one name."""
    names = "+".join(folder.name for folder in folders)
    return f"{names[:80]}-{hashlib.sha256(names.encode()).hexdigest()[:8]}"


def _together(folders: Sequence[Path], store: Store, target: Path, console: Console) -> pd.DataFrame:
    about = _common_about(folders)
    by_id: dict[str, Metric] = {}
    reasons: list[tuple[set[str], dict[str, str]]] = []
    for folder in folders:
        asked, why = _metrics_of(folder)
        by_id |= {metric.id: metric for metric in asked}
        reasons.append(({metric.id for metric in asked}, why))
    # What one run could not measure may have been measured by another one.
    not_run = {
        name: next(why[name] for _, why in reasons if name in why)
        for name in by_id
        if all(name in why for asked, why in reasons if name in asked)
    }
    plans, costs = ([pd.read_parquet(folder / f"{name}.parquet") for folder in folders] for name in ("plan", "costs"))
    option = swept_option(list(dict.fromkeys(label for plan in plans for label in plan.eraser)))
    if option:
        for folder, frames in zip(folders, zip(plans, costs, strict=True), strict=True):
            _name_default(folder, option, frames)
    plan = pd.concat(plans, ignore_index=True).drop_duplicates(["eraser", "task_kind", "task", "prompt_id", "key"])
    _check_comparable(plan)
    cost = pd.concat(costs, ignore_index=True).drop_duplicates(["eraser", "task_kind", "task"])
    metrics = list(by_id.values())
    measured = tables.measure(plan, _scores(store, metrics), metrics, not_run_because=not_run, costs=cost)
    write_tables(measured, target, about)
    if option:
        for kind in dict.fromkeys(measured.task_kind):
            figures.strength(measured, kind, option, target / f"{kind}-{option}.png")
    print_tables(measured, about, console)
    console.print(f"[bold]{escape(str(target))}[/]", highlight=False, soft_wrap=True)
    return measured


def _common_about(folders: Sequence[Path]) -> dict[str, str]:
    """What the captions of some runs say, if they agree wherever they speak of the same thing.

    Raises:
        UserError: naming what differs.
    """
    common: dict[str, str] = {}
    said_by: dict[str, str] = {}
    for folder in folders:
        for key, value in json.loads((folder / "about.json").read_text(encoding="utf-8")).items():
            if common.setdefault(key, value) != value:
                raise UserError(
                    f"runs {said_by[key]} and {folder.name} cannot stand in one table: {key} differs "
                    f"({common[key]} and {value})"
                )
            said_by.setdefault(key, folder.name)
    return common


def _check_comparable(plan: pd.DataFrame) -> None:
    """Refuse erasers that were not measured on the same tasks and prompts, and one label for two edits or images.

    Raises:
        UserError: naming the erasers and what differs.
    """
    for (eraser, _, task), part in plan.groupby(["eraser", "task_kind", "task"], sort=False):
        if part.edit_key.nunique() > 1:
            raise UserError(
                f"{eraser} erased {task} in two ways (another retain list, anchor or phrases of the task, or another "
                "eraser of that name); tabulate these runs apart"
            )
        if part.duplicated("prompt_id").any():
            raise UserError(
                f"{eraser} drew prompt {part.prompt_id[part.duplicated('prompt_id')].iloc[0]} with {task} erased in two "
                "ways (another size, negative prompt or scheduler setting); tabulate these runs apart"
            )
    for kind, part in plan.groupby("task_kind", sort=False):
        by_eraser = {
            eraser: set(zip(rows.task, rows.prompt_id, rows.role, rows.original_key, strict=True))
            for eraser, rows in part.groupby("eraser", sort=False)
        }
        every = set().union(*by_eraser.values())
        for eraser, rows in by_eraser.items():
            if every - rows:
                task, prompt_id, role, _ = min(every - rows)
                raise UserError(
                    f"the runs cannot stand in one table: {eraser} was not measured on all prompts of kind {kind} that "
                    f"others were ({len(every - rows)} lacking, e.g. {prompt_id} with {task} erased, to {role}); "
                    "give the runs the same tasks and prompts"
                )


def swept_option(labels: Sequence[str]) -> str | None:
    """The one numeric option that tells labels of one eraser apart (``cure alpha=1``, ``cure alpha=2`` -> ``alpha``).

    A label without the option has its default.
    """
    erasers: dict[str, list[dict[str, str]]] = {}
    for label in labels:
        name, *options = label.split()
        erasers.setdefault(name, []).append(dict(part.split("=", 1) for part in options if "=" in part))
    varied = set()
    for variants in erasers.values():
        for option in {name for variant in variants for name in variant}:
            values = {variant.get(option) for variant in variants}
            if len(values) > 1 and all(value is None or _is_number(value) for value in values):
                varied.add(option)
    return varied.pop() if len(varied) == 1 else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _name_default(folder: Path, option: str, frames: Sequence[pd.DataFrame]) -> None:
    """Put a swept option into the label of the run whose value is the default, which labels do not show."""
    value = OmegaConf.select(OmegaConf.load(folder / "config.yaml"), f"method.{option}")
    if value is None:
        return
    for frame in frames:
        bare = (frame.eraser != tables.UNEDITED) & ~frame.eraser.str.contains(f" {option}=", regex=False)
        frame.loc[bare, "eraser"] += f" {option}={value}"


def _metrics_of(folder: Path) -> tuple[list[Metric], dict[str, str]]:
    config = OmegaConf.load(folder / "config.yaml")
    assert isinstance(config, DictConfig)
    metrics = [build(node, f"metric.{name}", tuple(config.plugins)) for name, node in config.metric.items()]
    manifest = _manifest(folder)
    reasons = {name: about["not_run"] for name, about in manifest["metrics"].items() if about["not_run"]}
    return metrics, reasons


def _manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def _check_finished(folder: Path) -> None:
    manifest = _manifest(folder)
    if manifest["status"] != "ok":
        raise UserError(
            f"run {folder.name} is not finished (status {manifest['status']}); give its command again: "
            + command_line(manifest)
        )


def _runs(store: Store) -> list[Path]:
    return sorted((path.parent for path in (store.root / "runs").glob("*/manifest.json")), key=lambda path: path.name)


def _find_run(store: Store, name: str) -> Path:
    folders = {folder.name: folder for folder in _runs(store)}
    if name not in folders:
        known = ", ".join(folders) or "none"
        raise UserError(f"{name}: no such run in {store.root}.{suggest(name, folders)} Runs there: {known}")
    return folders[name]


def _latest_run(store: Store) -> Path:
    folders = _runs(store)
    if not folders:
        raise UserError(f"{store.root}: no run here; make one with: erasebench run")
    return max(folders, key=lambda folder: (folder / "manifest.json").stat().st_mtime)
