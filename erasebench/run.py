"""One run, in one walk: check, plan, erase, attack, generate, score, tabulate.

A second call with the same config does only what is missing, so a killed run is finished by giving its command again,
and several calls at once share the work (:mod:`erasebench.runs.jobs`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig
from rich.console import Console

from erasebench.config.choices import model_name
from erasebench.edits.eraser import describe_edit
from erasebench.edits.label import UNEDITED
from erasebench.errors import UserError
from erasebench.files import check_writable
from erasebench.images.generate import check_passes
from erasebench.models.load import Model, load_model, model_here, quiet_libraries
from erasebench.models.text import truncated_texts
from erasebench.progress import duration, progress, say
from erasebench.runs.about import About
from erasebench.runs.attacks import check_judge
from erasebench.runs.environment import manifest
from erasebench.runs.estimate import estimate_run, images_without_a_model
from erasebench.runs.folder import open_run
from erasebench.runs.jobs import Job, Tally, attack_jobs, jobs, score_job, share_out
from erasebench.runs.plan import Plan, Prepared, make_plan, prepare
from erasebench.runs.state import Part, note_error, parts_of, still_lacking
from erasebench.runs.sweep import store_option
from erasebench.runs.tracking import Tracker, numbers_told, tracked
from erasebench.runs.worker import Worker
from erasebench.scores.metric import Metric
from erasebench.scores.scoring import Unscored, chunks_to_score
from erasebench.tables.slices import POOLED
from erasebench.tables.tabulate import reduce_and_write, show_kept

SHOWN_WARNINGS = 5


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
        The finished run; ``None`` for a dry run, and for a process that made only its part.

    Raises:
        UserError: whatever is wrong with the input, before any work; or an edit that is not finite.
    """
    console = console or Console()
    quiet_libraries()
    started = time.monotonic()
    prepared = prepare(config)
    _say_what_is_asked(prepared, console)
    settings = prepared.model
    if prepared.dry_run and not model_here(settings.path, settings.revision, settings.variant):
        say(
            console,
            f"about {images_without_a_model(prepared)} images; {settings.name} is not on this machine (there is no folder "
            f"{settings.path} here, so it is taken for a Hub id), so which of them are there, time and disk are unknown "
            f"(get it with: erasebench prefetch model={settings.name})",
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
        say(console, model.weights, f"{model.name}:")
    _check_supported(prepared, model)
    plan = make_plan(prepared, model)
    _check_passes(prepared, model, plan)
    truncated = _warn_truncated(model, plan, console)
    missing = prepared.store.missing(plan.recipes)
    say(
        console,
        f"{len(plan.recipes)} images, {len(plan.recipes) - len(missing)} of them there; "
        f"{model.name} on {model.device} in {model.dtype}",
    )
    cost = estimate_run(prepared, model, plan, missing)
    if prepared.dry_run:
        say(console, str(cost))
        return None
    check_writable(prepared.store.root, cost.known_bytes)
    not_run = _not_run(prepared, plan)
    idle = [metric for metric in prepared.metrics if metric.id in not_run or not len(metric.applies_to(plan.rows))]
    if idle and missing and len(idle) == len(prepared.metrics):
        why = "; ".join(f"{metric.id}: {prepared.not_run.get(metric.id)}" for metric in idle)
        raise UserError(
            f"none of its metrics can run here, so that {len(missing)} images would be made and nothing measured ({why}). "
            "What a machine lacks: erasebench doctor; for the images alone: metric=[]"
        )
    folder = open_run(prepared, manifest(prepared, model, not_run, truncated), plan.rows, about(prepared, model))
    facts = {**about(prepared, model).facts(), "erasers": ", ".join(prepared.erasers), "config": prepared.hash}
    try:
        with tracked(prepared.tracking, folder.name, facts, console) as tracker:
            metrics = [metric for metric in prepared.metrics if metric.id not in not_run]
            unscored, there = _work(prepared, model, plan, metrics, console, tracker)
            if prepared.share.of > 1:
                _say_what_is_left(folder, there, prepared, console)
                return None
            failed = {name: f"failed: {why}" for name, why in unscored.failed.items()}
            problems = (*unscored.problems, *still_lacking(there, unscored.failed))
            whole = not (failed or problems)
            # Other scores have another key; images that were made anew have to be drawn.
            kept = show_kept(folder, prepared.store, console) if whole and not missing else None
            measured = (
                kept.measured
                if kept is not None
                else reduce_and_write(folder, prepared.store, prepared.metrics, not_run | failed, console, whole=whole)
            )
            tracker.log(numbers_told(measured, POOLED))
        if problems:
            note_error(folder, "; ".join(problems))
    except BaseException as error:
        note_error(folder, error)
        raise
    for problem in problems:
        say(console, problem, "problem", "red")
    say(console, f"in {duration(time.monotonic() - started)}", str(folder))
    return Finished(folder, measured, problems)


def _say_what_is_asked(prepared: Prepared, console: Console) -> None:
    """Print the prompts of each kind, what their reader has to say, and which metrics cannot run here."""
    for kind, (_, prompts) in prepared.groups.items():
        say(console, str(prompts.counts()), f"{kind}:")
        for note in prompts.notes:
            say(console, note, "note", "yellow")
    for metric, reason in prepared.not_run.items():
        say(console, f"{metric}: {reason}", "not run", "yellow")
    for (eraser, kind), reason in prepared.left_out.items():
        say(console, f"{eraser}, {kind}: {reason}", "not run", "yellow")


def about(prepared: Prepared, model: Model) -> About:
    """What the caption of every table of a run says."""
    protocol = prepared.protocol
    sets = {kind: prompts for kind, (_, prompts) in prepared.groups.items()}
    return About(
        model=f"{model.name} ({model.short_revision}, {model.dtype})",
        protocol=protocol.described(protocol.differences(model.device, model.dtype)),
        prompts={kind: f"{prompts.name} v{prompts.version} ({prompts.hash[:8]})" for kind, prompts in sets.items()},
        embedded=model.source == "embedded",
        names={
            "model": model.name,
            "protocol": f"{protocol.name} v{protocol.version}",
            **{f"prompts of kind {kind}": f"{prompts.name} v{prompts.version}" for kind, prompts in sets.items()},
        },
        forgot=tuple(label for label, eraser in prepared.erasers.items() if eraser.forgot),
    )


def _check_supported(prepared: Prepared, model: Model) -> None:
    """Refuse erasers that cannot edit a model of this family or do one of the tasks, and to edit an edited model unasked.

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
    for _, eraser, _, task in prepared.edits():
        eraser.check(model.pipe, task)
    for label, attack in prepared.attacks.items():
        if reason := attack.refuses(model):
            raise UserError(f"attack {label}: cannot attack {model.name} ({model.family}): {reason}")
        for name, eraser in prepared.erasers.items():
            if reason := attack.refuses_edits(eraser):
                raise UserError(f"attack {label}: cannot attack {name}: {reason}; leave one of the two out")
        if attack.judged and not (prepared.judge and prepared.judge.id in prepared.not_run):
            for task in {task.key: task for _, _, _, task in prepared.edits()}.values():
                for target in task.targets:
                    check_judge(label, prepared.judge, target)


def _check_passes(prepared: Prepared, model: Model, plan: Plan) -> None:
    """Refuse a guard that acts on a pass which some of its images do not have, and an attack on images that it cannot attack,
    or with a judge that cannot be asked here."""
    for label, eraser in prepared.erasers.items():
        if kinds := eraser.acts():
            for key in dict.fromkeys(plan.rows.key[plan.rows.eraser == label]):
                check_passes(model.pipe, plan.recipes[key], kinds)
    labels = {attack: label for label, attack in prepared.attacks.items()}
    for key, search in plan.searches.items():
        label = labels[search.attack]
        if reason := search.attack.refuses_images(search.recipe):
            raise UserError(f"attack {label}: {reason}")
        wanted = search.attack.judged and not prepared.store.attack_path(key).exists()
        if wanted and prepared.judge and (reason := prepared.not_run.get(prepared.judge.id)):
            raise UserError(
                f"attack {label}: it asks {prepared.judge.name} of images, which cannot run here ({reason}); cure that, or name "
                "a metric before it that can"
            )


def _warn_truncated(model: Model, plan: Plan, console: Console) -> int:
    """Say which prompts the text encoder will not read to their end, and what it will not read."""
    prompts = list(dict.fromkeys(recipe.prompt for recipe in plan.recipes.values()))
    cut = truncated_texts(model.pipe, prompts)
    for prompt, rest in list(cut.items())[:SHOWN_WARNINGS]:
        text = f"prompt too long for the text encoder; not read: {rest!r} (of {prompt[:60]!r}...)"
        say(console, text, "warning", "yellow")
    if len(cut) > SHOWN_WARNINGS:
        say(console, f"{len(cut)} prompts of {len(prompts)} are too long", "warning", "yellow")
    return len(cut)


def _not_run(prepared: Prepared, plan: Plan) -> dict[str, str]:
    """By id, why metrics are not run; not those that cannot run here and yet have all their scores."""
    wanting = [metric for metric in prepared.metrics if metric.id in prepared.not_run]
    chunks = chunks_to_score(plan.rows, wanting, prepared.store)
    lacking = {metric.id for chunk in chunks for metric in chunk.metrics}
    return {name: why for name, why in prepared.not_run.items() if name in lacking}


def _work(
    prepared: Prepared, model: Model, plan: Plan, metrics: Sequence[Metric], console: Console, tracker: Tracker
) -> tuple[Unscored, list[Part]]:
    """Make and score what is missing, together with other processes of this run.

    What is deleted or damaged meanwhile is made again, once. Gives what could not be scored, and what is there now.
    """
    failed: dict[str, str] = {}
    for _ in range(2):
        _make_images(prepared, model, plan, console, tracker, attacked=False)  # which searches begin from
        _attack(prepared, model, plan, console, tracker)
        _make_images(prepared, model, plan, console, tracker, attacked=True)
        unscored = _score(
            [metric for metric in metrics if metric.id not in failed], prepared, model, plan, console, tracker
        )
        failed |= unscored.failed
        there = parts_of(plan.rows, metrics, prepared.store)
        if not still_lacking(there, failed) or prepared.share.of > 1:
            break
    prepared.store.merge_shards()
    unscored.failed = failed
    return unscored, there


def _attack(prepared: Prepared, model: Model, plan: Plan, console: Console, tracker: Tracker) -> None:
    """Find what the attacked images of this process's share need that are missing."""
    missing = set(prepared.store.missing(plan.recipes))
    wanted = {job: plan.searches[job.hash].attack.steps for job in attack_jobs(plan, missing, prepared.share)}
    with progress("attack", sum(wanted.values()), "steps") as advance:
        tally = Tally(tracker.counting("steps of attacks", sum(wanted.values()), advance), wanted)
        with Worker(prepared, model, plan, advance=tally.made) as worker:
            share_out(list(wanted), worker, prepared.store, console, tally.finished)


def _make_images(
    prepared: Prepared, model: Model, plan: Plan, console: Console, tracker: Tracker, *, attacked: bool
) -> None:
    """Make the images under attack of this process's share that are missing, or every edit and all other images, and pass on
    what erasers warn of."""
    store = prepared.store
    missing = set(store.missing(plan.recipes))
    chosen = [job for job in jobs(plan, prepared.share) if _under_attack(job, plan) == attacked]
    wanted = {job: sum(key in missing for key in job.keys) for job in chosen}
    what = "images under attack" if attacked else "images"
    with progress(f"generate {what}" if attacked else "erase and generate", sum(wanted.values())) as advance:
        tally = Tally(tracker.counting(what, sum(wanted.values()), advance), wanted)
        with Worker(prepared, model, plan, advance=tally.made) as worker:
            # Listed, an image is there; that a file is whole is not asked again of all of them.
            work = [job for job, lacks in wanted.items() if lacks or not (job.keys or worker.done(job))]
            share_out(work, worker, store, console, tally.finished)
    if attacked:
        return
    for label, eraser, _, task in prepared.edits():
        for text in store.edit_notes(eraser.key(model.identity, task)).get("warnings", ()):
            say(console, f"{label}, {task.label}: {text}", "warning", "yellow")


def _under_attack(job: Job, plan: Plan) -> bool:
    return bool(job.keys and plan.recipes[job.keys[0]].attack)


def _score(
    metrics: Sequence[Metric], prepared: Prepared, model: Model, plan: Plan, console: Console, tracker: Tracker
) -> Unscored:
    """Score every image that lacks scores; one process of several scores what has its images already."""
    store = prepared.store
    chunks = chunks_to_score(plan.rows, metrics, store)
    part = prepared.share.of > 1
    if part:
        absent = set(store.missing(plan.recipes))
        chunks = [chunk for chunk in chunks if absent.isdisjoint(chunk.images)]
    wanted = {score_job(chunk): len(chunk.missing()) for chunk in chunks}
    with progress("score", sum(wanted.values())) as advance:
        tally = Tally(tracker.counting("scores", sum(wanted.values()), advance), wanted)
        worker = Worker(prepared, model, plan, chunks, tally.made)
        share_out(list(wanted), worker, store, console, tally.finished, wait=not part)
    return worker.unscored


def _say_what_is_left(folder: Path, there: Sequence[Part], prepared: Prepared, console: Console) -> None:
    """Print what the other parts of a run are still to make, and what makes the tables in the end."""
    lacking = ", ".join(str(part) for part in there if part.lacks) or "nothing"
    say(
        console,
        f"part {prepared.share.number} of {prepared.share.of} is done; missing in all parts: {lacking}. "
        f"When nothing is: erasebench finish {folder.name}{store_option(prepared.store.root)}",
    )
