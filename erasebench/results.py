"""From the records of finished runs to tables and pictures: what ``run`` ends with and ``table`` does again.

Nothing here loads a model. A run's folder says which prompts, images and metrics belong together; the records of the
store say what was measured.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from erasebench import figures, tables
from erasebench.config import build
from erasebench.errors import UserError, suggest
from erasebench.files import write_atomic, write_json
from erasebench.metric import Metric
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
    measured = _measure(plan, costs, store, metrics, not_run)
    write_tables(measured, folder / "tables", about)
    for kind in dict.fromkeys(plan.task_kind):
        figures.grid(plan, store, kind, folder / "grids" / f"{kind}.png", blur=kind == "unsafe" and not about["note"])
    print_tables(measured, about, console)
    return measured


def _measure(
    plan: pd.DataFrame, costs: pd.DataFrame, store: Store, metrics: Sequence[Metric], not_run: Mapping[str, str]
) -> pd.DataFrame:
    scores = {metric.records_id: store.scores(metric.records_id, metric.inputs) for metric in metrics}
    return tables.measure(plan, scores, metrics, not_run_because=not_run, costs=costs)


def tabulate(runs: Sequence[str], store_dir: str, out: str | None = None, console: Console | None = None) -> pd.DataFrame:
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
    folders = [_find_run(store, name) for name in runs] or [_latest_run(store)]
    if len(folders) == 1 and out is None:
        metrics, not_run = _metrics_of(folders[0])
        return reduce_and_write(folders[0], store, metrics, not_run, console)
    target = Path(out) if out else store.root / "tables" / "+".join(folder.name for folder in folders)[:120]
    return _together(folders, store, target, console)


def tabulate_sweep(folders: Sequence[Path], console: Console | None = None) -> pd.DataFrame:
    """The runs of a sweep in one table, with a plot of strength if one option was varied."""
    store = Store(folders[0].parent.parent)
    target = store.root / "tables" / f"sweep-{folders[0].name[-12:]}-{len(folders)}"
    return _together(folders, store, target, console or Console())


def _together(folders: Sequence[Path], store: Store, target: Path, console: Console) -> pd.DataFrame:
    abouts = [json.loads((folder / "about.json").read_text(encoding="utf-8")) for folder in folders]
    for folder, about in zip(folders[1:], abouts[1:], strict=True):
        for key in abouts[0]:
            if about.get(key) != abouts[0][key]:
                raise UserError(
                    f"runs {folders[0].name} and {folder.name} cannot stand in one table: {key} differs "
                    f"({abouts[0][key]} and {about.get(key)})"
                )
    by_id: dict[str, Metric] = {}
    not_run: dict[str, str] = {}
    for folder in folders:
        metrics, reasons = _metrics_of(folder)
        by_id |= {metric.id: metric for metric in metrics}
        not_run |= reasons
    plan, costs = (
        pd.concat([pd.read_parquet(folder / f"{name}.parquet") for folder in folders]).drop_duplicates(same)
        for name, same in (
            ("plan", ["eraser", "task_kind", "task", "prompt_id"]),
            ("costs", ["eraser", "task_kind", "task"]),
        )
    )
    measured = _measure(plan, costs, store, list(by_id.values()), not_run)
    write_tables(measured, target, abouts[0])
    option = swept_option(list(dict.fromkeys(plan.eraser)))
    if option:
        for kind in dict.fromkeys(measured.task_kind):
            figures.strength(measured, kind, option, target / f"{kind}-{option}.png")
    print_tables(measured, abouts[0], console)
    console.print(f"[bold]{target}[/]", highlight=False)
    return measured


def swept_option(labels: Sequence[str]) -> str | None:
    """The one numeric option that tells eraser labels apart (``cure alpha=1``, ``cure alpha=2`` -> ``alpha``)."""
    names = set()
    for label in labels:
        for part in label.split()[1:]:
            name, _, value = part.partition("=")
            try:
                float(value)
            except ValueError:
                continue
            names.add(name)
    return names.pop() if len(names) == 1 else None


def _metrics_of(folder: Path) -> tuple[list[Metric], dict[str, str]]:
    config = OmegaConf.load(folder / "config.yaml")
    assert isinstance(config, DictConfig)
    metrics = [build(node, f"metric.{name}", tuple(config.plugins)) for name, node in config.metric.items()]
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if manifest["status"] != "ok":
        raise UserError(
            f"run {folder.name} is {manifest['status']}, not finished; give its command again: "
            + " ".join(manifest["command"])
        )
    reasons = {name: about["not_run"] for name, about in manifest["metrics"].items() if about["not_run"]}
    return metrics, reasons


def _runs(store: Store) -> list[Path]:
    return sorted((path.parent for path in (store.root / "runs").glob("*/plan.parquet")), key=lambda path: path.name)


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
