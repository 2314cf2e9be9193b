"""erasebench in a notebook: erase, look, score, compare; each a function that takes and returns values.

    import erasebench as eb

    model = eb.load_model("embedded")
    task = eb.task("church")
    edit = eb.erase(model, "cure", task)
    images = eb.generate(model, ["a photo of a church"] * 4, edit=edit)
    eb.score(images, "judge", label="church")

Edits, images and scores of runs are kept in the same store as those of ``erasebench run``, so nothing is made twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
from omegaconf import OmegaConf
from PIL import Image
from rich.console import Console

from erasebench.concepts import KINDS, Concept, ErasureTask
from erasebench.config.build import build
from erasebench.config.choices import groups
from erasebench.config.compose import compose
from erasebench.config.overrides import quoted
from erasebench.config.protocol import Protocol
from erasebench.edits.edit import Edit
from erasebench.edits.eraser import Eraser
from erasebench.errors import UserError, suggest
from erasebench.files import write_text
from erasebench.images.generate import generate as generate_missing
from erasebench.images.recipes import recipe_maker
from erasebench.models.load import Model, quiet_libraries
from erasebench.models.load import load_model as load_pipeline
from erasebench.run import run
from erasebench.runs.folder import find_run, latest_run
from erasebench.runs.names import TABLES_FOLDER
from erasebench.runs.tasks import task_group
from erasebench.runs.training import means_of
from erasebench.runs.worker import new_edit
from erasebench.scores.metric import Metric
from erasebench.store import Store
from erasebench.tables.measured_file import read_measured

RESULTS = "results"
"""The store of every call that names none."""

PROMPTS_FOLDER = "prompts"
"""Below a store, where tables of prompts of a notebook are kept."""

BATCH = 8
"""Images made at a time."""


def load_model(path: str, **options: Any) -> Model:
    """Load a model, without the bars and notes of the libraries below.

    Args:
        path: ``embedded``, a folder that diffusers saved, or a Hub id.
        options: as of :func:`erasebench.models.load.load_model`: revision, device, dtype, variant, weights, name.

    Example:
        >>> model = load_model("embedded", device="cpu")
        >>> model.family, model.size
        ('sd1', 64)
    """
    quiet_libraries()
    return load_pipeline(path, **options)


def task(
    *concepts: str,
    kind: str | None = None,
    anchor: str | None = None,
    retain: Sequence[str] | None = None,
    phrases: Sequence[str] = (),
) -> ErasureTask:
    """What is to be erased, in one edit.

    A concept of the shipped tasks (``church``, ``Vincent van Gogh``) brings its kind, phrases, anchor and the others of
    its kind to be retained. Any other one needs a ``kind``.

    Args:
        concepts: names.
        kind: ``object``, ``artist``, ``celebrity`` or ``unsafe``.
        anchor: the text it is mapped to by erasers that need one.
        retain: texts whose meaning should survive.
        phrases: more texts that evoke it, where there is one concept.

    Raises:
        UserError: a name of no shipped task without a kind; several with phrases; what a task refuses.

    Example:
        >>> task("church").kind, len(task("church").retain)
        ('object', 19)
        >>> task("poodle", kind="object", anchor="dog").targets[0].anchor
        'dog'
    """
    if phrases and len(concepts) != 1:
        raise UserError(f"phrases are of one concept, and there are {len(concepts)}; make them a Concept each")
    shipped = _shipped_task(concepts) if kind is None else None
    if shipped is None:
        if kind is None:
            raise UserError(
                f"{', '.join(concepts) or 'no concept'}: not in one of the shipped tasks (erasebench list tasks); say which "
                f'kind it is of, e.g. task("poodle", kind="object"). Kinds: {", ".join(KINDS)}'
            )
        shipped = ErasureTask(tuple(Concept(name, kind) for name in concepts))
    targets = tuple(
        replace(
            target,
            phrases=(*target.phrases, *phrases),
            anchor=target.anchor if anchor is None else anchor,
        )
        for target in shipped.targets
    )
    return ErasureTask(targets, shipped.retain if retain is None else tuple(retain))


def _shipped_task(names: Sequence[str]) -> ErasureTask | None:
    """The task of these concepts among those of the main job, all of one kind; ``None`` if there is none."""
    wanted = {name.casefold() for name in names}
    for place, node in compose().task.items():
        if wanted and wanted <= {str(name).casefold() for name in node.concepts}:
            values = OmegaConf.to_container(node, resolve=True)
            assert isinstance(values, dict)
            chosen = {str(key): value for key, value in values.items()} | {"erase": list(names), "joint": True}
            return task_group(chosen, f"task.{place}").tasks[0]
    return None


def erase(
    model: Model, method: str | Eraser, task: ErasureTask, *, store: str | Path = RESULTS, **options: Any
) -> Edit:
    """Make the edit of a task, or take it from the store. The model stays as it is.

    Args:
        model: unedited, as :func:`load_model` gives it.
        method: a name of ``erasebench list erasers``, or an eraser of your own.
        task: see :func:`task`.
        store: the folder where edits are kept.
        options: of the method by name, e.g. ``alpha=5``.

    Raises:
        UserError: no such method or option; or whatever the eraser refuses.

    Example:
        >>> edit = erase(load_model("embedded", device="cpu"), "uce", task("church"), lam=0.5)
        >>> edit.info["method"], len(edit.changes)
        ('uce', 14)
    """
    eraser = method if isinstance(method, Eraser) else _plugin("method", method, Eraser, options)
    if reason := eraser.refuses(model):
        raise UserError(f"{eraser.name}: cannot edit {model.name} ({model.family}): {reason}")
    eraser.check(model.pipe, task)
    kept, key = Store(store), eraser.key(model.identity, task)
    edit = kept.get_edit(key)
    if edit is None:
        with means_of(eraser, key, task, model, kept, BATCH) as work:
            kept.put_edit(key, new_edit(eraser, task, model, work))
        edit = kept.get_edit(key)
    assert edit is not None
    return edit


def generate(
    model: Model,
    prompts: str | Sequence[str],
    *,
    edit: Edit | None = None,
    seeds: Sequence[int] | None = None,
    store: str | Path = RESULTS,
    protocol: str | None = None,
    **settings: Any,
) -> list[Image.Image]:
    """Make images, or take them from the store; one for each prompt.

    Args:
        model: as :func:`load_model` gives it.
        prompts: one or several.
        edit: what :func:`erase` returned; ``None`` for the unedited model.
        seeds: one for each prompt; 0, 1, 2 ... if not given.
        store: the folder where images are kept.
        protocol: a name of ``erasebench list protocols``; if not given, that of the embedded model for it, and the
            default for any other.
        settings: of the protocol, e.g. ``steps=20, guidance=7.5``.

    Raises:
        UserError: an edit in the model's place; another number of seeds than of prompts; an edit that no store holds; a
            protocol that cannot be.

    Example:
        >>> (image,) = generate(load_model("embedded", device="cpu"), "a photo of a church", seeds=[7], steps=2)
        >>> image.size
        (64, 64)
    """
    if isinstance(model, Edit):
        raise UserError("generate: an edit is no model; give the model first and the edit as edit=")
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    numbers = list(range(len(texts))) if seeds is None else list(seeds)
    if len(numbers) != len(texts):
        raise UserError(f"{len(numbers)} seeds and {len(texts)} prompts; give one seed for each prompt")
    if edit is not None and not edit.key:
        raise UserError("this edit has no key, so its images could not be told from others; make it with erase()")
    name = protocol or ("embedded" if model.source == "embedded" else "default")
    config = compose([f"protocol={name}"])
    OmegaConf.update(config, "protocol", _known(settings, config.protocol, "protocol"))
    chosen = Protocol.from_config(config.protocol)
    chosen.check()
    if chosen.editing:
        raise UserError(f"protocol {chosen.name} edits images that are there; run it with erasebench run")
    recipe_of = recipe_maker(model, chosen)
    key = edit.key if edit else ""
    recipes = [
        recipe_of(
            SimpleNamespace(prompt=text, seed=seed, negative_prompt="", guidance=None, width=None, height=None), key
        )
        for text, seed in zip(texts, numbers, strict=True)
    ]
    kept = Store(store)
    missing = set(kept.missing([recipe.key for recipe in recipes]))
    lacking = list({recipe.key: recipe for recipe in recipes if recipe.key in missing}.values())
    if lacking:
        with edit.applied(model.pipe) if edit else nullcontext():
            generate_missing(model, lacking, kept, BATCH, about={"protocol": chosen.identity})
    return [kept.image(recipe.key) for recipe in recipes]


def score(
    images: Sequence[Image.Image],
    metric: str | Metric,
    *,
    prompts: str | Sequence[str] = "",
    label: str | Sequence[str] = "",
    kind: str | None = None,
    originals: Sequence[Image.Image] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Score images: one row an image, the raw columns of the metric, and ``number``: what a table would count.

    Args:
        images: any, RGB.
        metric: a name of ``erasebench list metrics``, or a metric of your own.
        prompts: of the images, one for all or one each, for metrics that read them.
        label: the concept that each should show, likewise, for metrics that look for one.
        kind: of that concept; found out for the concepts of shipped tasks.
        originals: the unedited model's images of the same prompts and seeds, for metrics that compare.
        options: of the metric by name.

    Raises:
        UserError: no such metric or option, it cannot run here, or it compares and there are no originals.

    Example:
        >>> images = generate(load_model("embedded", device="cpu"), ["a photo of a church"] * 2)
        >>> score(images, "judge", label="church").number.tolist()
        [1.0, 1.0]
    """
    scorer = metric if isinstance(metric, Metric) else _plugin("metric", metric, Metric, options)
    if reason := scorer.unavailable():
        raise UserError(f"{scorer.name}: {reason}")
    if scorer.paired_with and originals is None:
        raise UserError(f"{scorer.name}: compares with the unedited model's images; give them as originals=")
    labels = [label] * len(images) if isinstance(label, str) else list(label)
    kinds = {text: kind or _kind_of(text) for text in dict.fromkeys(labels)}
    rows = pd.DataFrame(
        {
            "prompt": [prompts] * len(images) if isinstance(prompts, str) else list(prompts),
            "label": labels,
            "kind": [kinds[text] for text in labels],
        }
    )
    scores = scorer.score([image.convert("RGB") for image in images], rows, originals).reset_index(drop=True)
    # What a plan says besides: each image is asked for its own label, as if that had been erased.
    ids = [str(number) for number in range(len(images))]
    plan = rows.assign(
        role=["erase" if text else "general" for text in labels], targets=[[text] for text in labels],
        task=labels, task_kind=rows.kind, prompt_id=ids, key=ids, original_key=ids, clean_key=ids,
    )  # fmt: skip
    numbers = scorer.values(pd.concat([plan, scores], axis=1))
    return pd.concat([rows, scores], axis=1).assign(number=numbers)


def _kind_of(label: str) -> str:
    """The kind of a concept of the shipped tasks; ``general`` for any other and for none."""
    shipped = _shipped_task([label]) if label else None
    return shipped.kind if shipped else "general"


def compare(
    methods: str | Sequence[str],
    task: str = "object",
    *,
    erase: Sequence[str] | None = None,
    prompts: pd.DataFrame | None = None,
    model: str = "embedded",
    store: str | Path = RESULTS,
    settings: Sequence[str] = (),
    quiet: bool = True,
) -> pd.DataFrame:
    """``erasebench run``: erasers beside the unedited model, as a tidy table with intervals.

    The same call again does only what is missing.

    Args:
        methods: one or several of ``erasebench list erasers``.
        task: of ``erasebench list tasks``.
        erase: the concepts to erase; those of the task if not given.
        prompts: rows with a column ``prompt`` (others as a prompt file may have them: ``label``, ``seed``, ``role`` ...),
            checked as a file is. They are written below the store, where the run that used them finds them again.
        model: of ``erasebench list models``.
        store: the results folder.
        settings: anything else as on the command line, e.g. ``["prompts.per_erased=8", "metric=[judge]"]``.
        quiet: print no tables.

    Returns:
        One row a number: eraser, role, metric, value, low and high (95 %), n, how, and the reason where it was not run.

    Example:
        >>> few = ["prompts.per_erased=2", "prompts.per_near=1", "prompts.general=0", "metric=[judge]"]
        >>> table = compare("uce", "object", erase=["church"], settings=few)
        >>> unedited = table[(table.eraser == "none") & (table.role == "erase") & (table.task == "all")].iloc[0]
        >>> float(unedited.value), int(unedited.n), unedited.how
        (1.0, 2, 'wilson')
    """
    names = [methods] if isinstance(methods, str) else list(methods)
    method = names[0] if len(names) == 1 else f"[{','.join(names)}]"
    from_table = []
    if prompts is not None:
        file = _prompt_file(prompts, Path(store) / PROMPTS_FOLDER)
        from_table = ["prompts=file", f"prompts.source={quoted(str(file))}"]
    config = compose([f"model={model}", f"task={task}", f"method={method}", *from_table, *settings])
    OmegaConf.update(config, "store.dir", str(store))
    if erase is not None:
        OmegaConf.update(config, "task.erase", list(erase))
    finished = run(config, Console(quiet=quiet))
    if finished is None:
        raise UserError("a dry run, or a part of a run, has no table; leave dry_run and part out of settings")
    return finished.measured


def _prompt_file(prompts: pd.DataFrame, folder: Path) -> Path:
    """A table of prompts as a file whose name is its content's hash, so that none is ever overwritten by another."""
    text = prompts.to_csv(index=False)
    file = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.csv"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    return file


def load_run(name: str = "latest", *, store: str | Path = RESULTS) -> pd.DataFrame:
    """The tidy table of a finished run.

    Args:
        name: of the run's folder in ``results/runs``; ``latest`` for the last one.
        store: the results folder.

    Raises:
        UserError: no such run, or it has no tables yet.
    """
    kept = Store(store)
    folder = latest_run(kept) if name == "latest" else find_run(kept, name)
    try:
        return read_measured(folder / TABLES_FOLDER)
    except FileNotFoundError:
        raise UserError(f"run {folder.name}: has no tables yet; finish it: erasebench finish {folder.name}") from None


def _plugin(group: str, name: str, base: type[Any], options: Mapping[str, Any]) -> Any:
    """The eraser or metric of a name of the config, with options."""
    if name not in groups()[group]:
        raise UserError(f"{name}: no such {group}.{suggest(name, groups()[group])} See: erasebench list {group}s")
    config = compose([f"{group}={name}" if group == "method" else f"{group}=[{name}]"])
    node = config[group] if group == "method" else config[group].get(name)
    if node is None or "_target_" not in node:
        raise UserError(f"{name}: several {group}s in one; name one of them: erasebench list {group}s")
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    return build({str(key): value for key, value in values.items()} | dict(options), name, base)


def _known(settings: Mapping[str, Any], node: Any, place: str) -> Mapping[str, Any]:
    for name in settings:
        if name not in node:
            raise UserError(f"{name}: no setting of a {place}.{suggest(name, list(node))}")
    return settings
