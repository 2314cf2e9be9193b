"""One run, in one walk: check, plan, erase, generate, score, reduce, manifest.

A second call with the same config does only what is missing, so a killed run is finished by giving its command again.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from erasebench.concepts import ErasureTask
from erasebench.config.choices import model_name
from erasebench.edits.eraser import Edit, Eraser, describe_edit
from erasebench.edits.label import UNEDITED
from erasebench.errors import UserError
from erasebench.files import write_json
from erasebench.images.generate import device_name, generate
from erasebench.models.load import Model, load_model, model_here, quiet_libraries
from erasebench.models.targets import named_weight
from erasebench.models.text import truncated_text
from erasebench.progress import progress
from erasebench.runs.about import About
from erasebench.runs.environment import environment
from erasebench.runs.estimate import estimate, images_without_a_model
from erasebench.runs.folder import open_run, write_plan
from erasebench.runs.plan import Plan, Prepared, make_plan, prepare
from erasebench.runs.training import means_of
from erasebench.scores.scoring import score_missing
from erasebench.store import Store
from erasebench.tables.tabulate import reduce_and_write

SHOWN_WARNINGS = 5
COST_COLUMNS = ("eraser", "task_kind", "task", "edit_seconds", "peak_memory_mb", "rank", "share")


@dataclass(frozen=True)
class Finished:
    """What a run leaves behind: its folder, its tidy table of measurements, and what went wrong though it went on."""

    folder: Path
    measured: pd.DataFrame
    problems: tuple[str, ...] = ()


def run(config: DictConfig, console: Console | None = None) -> Finished | None:
    """Do all that a config asks for and is not there yet.

    Args:
        config: as :func:`erasebench.config.compose.compose` makes it.
        console: where to print; the terminal if not given.

    Returns:
        The finished run; ``None`` for a dry run.

    Raises:
        UserError: whatever is wrong with the input, before any work; or an edit that is not finite.
    """
    console = console or Console()
    quiet_libraries()
    started = time.monotonic()
    prepared = prepare(config)
    for kind, (_, prompts) in prepared.groups.items():
        console.print(f"[bold]{kind}[/]: {escape(str(prompts.counts()))}", highlight=False)
        for note in prompts.notes:
            console.print(f"[yellow]note[/] {escape(note)}", highlight=False)
    for metric, reason in prepared.not_run.items():
        console.print(f"[yellow]not run[/] {metric}: {reason}", highlight=False)
    settings = prepared.model
    if prepared.dry_run and not model_here(settings.path, settings.revision, settings.variant):
        console.print(
            f"about {images_without_a_model(prepared)} images; {settings.name} is not on this machine (there is no folder "
            f"{settings.path} here, so it is taken for a Hub id), so which of them are there, time and disk are unknown "
            f"(get it with: erasebench prefetch model={settings.name})",
            highlight=False,
        )
        return None
    model = load_model(
        settings.path,
        settings.revision,
        device=prepared.device,
        dtype=prepared.dtype,
        variant=settings.variant,
        weights=settings.weights,
        name=model_name(settings),
    )
    prepared = replace(prepared, revision=model.revision)
    if model.weights:
        console.print(f"[bold]{escape(model.name)}[/]: {escape(model.weights)}", highlight=False)
    _check_supported(prepared, model)
    plan = make_plan(prepared, model)
    truncated = _warn_truncated(model, plan, console)
    missing = prepared.store.missing(plan.recipes)
    console.print(
        f"{len(plan.recipes)} images, {len(plan.recipes) - len(missing)} of them there; "
        f"{model.name} on {model.device} in {model.dtype}",
        highlight=False,
    )
    if prepared.dry_run:
        cost = estimate(prepared.store, [plan.recipes[key] for key in missing], device_name(model.pipe))
        console.print(str(cost), highlight=False)
        return None
    folder = open_run(prepared)
    manifest: dict[str, Any] = {
        "status": "running",
        "run": folder.name,
        "config_hash": prepared.hash,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "model": {key: getattr(model, key) for key in ("name", "source", "revision", "family", "weights")},
        "prompt_sets": {
            kind: {"version": prompts.version, "hash": prompts.hash, "counts": prompts.counts(), "notes": prompts.notes}
            for kind, (_, prompts) in prepared.groups.items()
        },
        "protocol": prepared.protocol.identity,
        "metrics": {
            metric.id: {"needs": metric.needs, "not_run": prepared.not_run.get(metric.id)}
            for metric in prepared.metrics
        },
        "truncated_prompts": truncated,
        **environment(model),
    }
    write_json(folder / "manifest.json", manifest)
    # The plan first: a run that is killed can then say what it lacks.
    write_plan(folder, plan.rows, pd.DataFrame(columns=list(COST_COLUMNS)), about(prepared, model))
    try:
        costs = _erase_and_generate(prepared, model, plan, set(missing), console)
        ready = [metric for metric in prepared.metrics if metric.id not in prepared.not_run]
        unscored = score_missing(plan.rows, ready, prepared.store)
        if unscored.lost:  # deleted or damaged while the run went on: made again, once
            _erase_and_generate(prepared, model, plan, set(unscored.lost), console)
            unscored = score_missing(plan.rows, ready, prepared.store)
        prepared.store.merge_shards()
        write_plan(folder, plan.rows, costs, about(prepared, model))
        not_run = prepared.not_run | {name: f"failed: {why}" for name, why in unscored.failed.items()}
        measured = reduce_and_write(folder, prepared.store, prepared.metrics, not_run, console)
    except BaseException as error:
        manifest |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        write_json(folder / "manifest.json", manifest)
        raise
    for problem in unscored.problems:
        console.print(f"[red]problem[/] {escape(problem)}", highlight=False)
    manifest |= {
        "status": "incomplete" if unscored.problems else "ok",
        "problems": unscored.problems,
        "seconds": round(time.monotonic() - started, 1),
        "images": len(plan.recipes),
        "images_made": len(missing),
    }
    write_json(folder / "manifest.json", manifest)
    console.print(f"[bold]{folder}[/] in {manifest['seconds']:.0f} s", highlight=False)
    return Finished(folder, measured, unscored.problems)


def about(prepared: Prepared, model: Model) -> About:
    """What the caption of every table of a run says."""
    protocol = prepared.protocol
    return About(
        model=f"{model.name} ({model.short_revision}, {model.dtype})",
        protocol=protocol.described(protocol.differences(model.device, model.dtype)),
        prompts={
            kind: f"{prompts.name} v{prompts.version} ({prompts.hash[:8]})"
            for kind, (_, prompts) in prepared.groups.items()
        },
        embedded=model.source == "embedded",
    )


def _check_supported(prepared: Prepared, model: Model) -> None:
    """Refuse erasers that cannot edit a model of this family, and to edit an edited model unasked.

    Raises:
        UserError: naming the eraser, the model and why.
    """
    for label, eraser in prepared.erasers.items():
        if model.edits and label != UNEDITED and not prepared.model.compose:
            raise UserError(
                f"method {label}: {model.name} is already edited by {', '.join(map(describe_edit, model.edits))}; "
                "measure it as it is with method=none, or edit it further with model.compose=true"
            )
        if reason := eraser.refuses(model):
            raise UserError(
                f"method {label}: cannot edit {model.name} ({model.family}): {reason}; "
                "see what fits with: erasebench list models"
            )


def _warn_truncated(model: Model, plan: Plan, console: Console) -> int:
    """Say which prompts the text encoder will not read to their end, and what it will not read."""
    prompts = list(dict.fromkeys(recipe.prompt for recipe in plan.recipes.values()))
    cut = {prompt: rest for prompt in prompts if (rest := truncated_text(model.pipe, prompt))}
    for prompt, rest in list(cut.items())[:SHOWN_WARNINGS]:
        console.print(
            f"[yellow]warning[/] prompt too long for the text encoder; not read: {escape(repr(rest))} "
            f"(of {escape(repr(prompt[:60]))}...)",
            highlight=False,
        )
    if len(cut) > SHOWN_WARNINGS:
        console.print(f"[yellow]warning[/] {len(cut)} prompts of {len(prompts)} are too long", highlight=False)
    return len(cut)


def _erase_and_generate(
    prepared: Prepared, model: Model, plan: Plan, missing: set[str], console: Console
) -> pd.DataFrame:
    """Make every edit and every image that is missing; returns what the edits cost."""
    costs, warnings = [], []
    record = {"protocol": prepared.protocol.identity}
    with progress("erase and generate", len(missing)) as advance:
        made: set[str] = set()
        for label, eraser, kind, task in prepared.edits():
            key = eraser.key(model.identity, task)
            recipes = [plan.recipes[name] for name in plan.keys(label, task.label, kind) if name in missing - made]
            if not key:
                generate(model, recipes, prepared.store, prepared.batch_size, advance, record)
            else:
                edit = _edit(prepared.store, key, eraser, model, task, prepared.batch_size)
                costs.append({"eraser": label, "task_kind": kind, "task": task.label, **_cost(edit.info)})
                warnings += [f"{label}, {task.label}: {text}" for text in edit.info.get("warnings", [])]
                if recipes:
                    with edit.applied(model.pipe):
                        generate(model, recipes, prepared.store, prepared.batch_size, advance, record)
            made |= {recipe.key for recipe in recipes}
    for text in warnings:
        console.print(f"[yellow]warning[/] {escape(text)}", highlight=False)
    return pd.DataFrame(costs, columns=list(COST_COLUMNS))


def _edit(store: Store, key: str, eraser: Eraser, model: Model, task: ErasureTask, batch_size: int) -> Edit:
    """The stored edit of a key, or a new one, measured and saved."""
    stored = store.get_edit(key)
    if stored is not None:
        return stored
    cuda = model.device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats(model.device)
    with means_of(eraser, key, task, model, store, batch_size) as work:
        edit = eraser.edit(model.pipe, task, composing=bool(model.edits), work=work)
        peak = torch.cuda.max_memory_allocated(model.device) if cuda else _peak_resident()
        norms = {name: change.norm(named_weight(model.pipe, name)) for name, change in edit.changes.items()}
        base = {name: getattr(model, name) for name in ("name", "source", "revision", "family", "dtype")}
        if Path(model.source).is_dir():  # edits are passed on; folders of this machine are not
            base["source"] = Path(model.source).name
        about = {
            "model": base,
            "describe": eraser.describe,
            "peak_memory_mb": round(peak / 2**20, 1),
            "device": model.device,
            "norms": norms,
        }
        with edit.applied(model.pipe) as rounding:  # refuses what does not fit or is not finite, before it is saved
            about["rounding"] = rounding
        store.put_edit(key, replace(edit, info=edit.info | about))
    # The one that is stored: another process may have been first, and a training need not come out the same.
    return store.get_edit(key) or replace(edit, info=edit.info | about, key=key)


def _peak_resident() -> int:
    """Peak resident memory of this process in bytes (the whole process: there is no finer measure on a CPU)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cost(info: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "edit_seconds": info["seconds"],
        "peak_memory_mb": info.get("peak_memory_mb"),
        "rank": info["rank"],
        "share": info["share"],
    }
