"""``erasebench score``: images that were made elsewhere, scored by our metrics."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from PIL import Image, UnidentifiedImageError
from rich.console import Console

from erasebench.commands import add_plugins, add_store, verb_parser
from erasebench.concepts import KINDS, ROLES, Concept, ErasureTask
from erasebench.config.build import build
from erasebench.config.compose import compose
from erasebench.edits.label import UNEDITED
from erasebench.errors import UserError, suggest
from erasebench.models.load import quiet_libraries
from erasebench.progress import say
from erasebench.prompts.prompt_set import PromptSet
from erasebench.prompts.reader import load_prompts
from erasebench.runs.about import About
from erasebench.scores.metric import Metric
from erasebench.scores.scoring import score_missing
from erasebench.store import Store, pixels_sha256
from erasebench.tables.layout import write_tables
from erasebench.tables.measure import measure
from erasebench.tables.printed import print_tables

METRICS_ASKED = ("classifier", "clip_zero_shot", "nudenet", "clip_score_uce")
"""What is scored if no metric is named: what needs no unedited model."""

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}

SCORE_HELP = """\
An image belongs to the prompt whose id (case_number, prompt_id, id; else the number of its row, from 1) is its name:
12.png, 00012.png, or several of one prompt: 12_0.png, 12_1.png. With --in-order the images, by name, are those of the
prompts one by one.

Roles: --erase NAME makes prompts of that label the erased ones and other labels retained; prompts without a label are
general ones. --role gives all the same. Every number has its n and a 95 % interval. Scores are kept in the store by the
pixels of an image, so that nothing is scored twice. Metrics that compare with the unedited model's images are refused:
a folder does not have these.

examples:
  erasebench score images --prompts imagenette.csv --erase church --metric classifier --metric clip_score_uce
  erasebench score images --prompts i2p.csv --kind unsafe --role erase --metric nudenet --out nudity
  erasebench score images --prompts coco.csv --metric fid_inception_real metric.fid_inception_real.reference=COCO
"""


def main(arguments: list[str]) -> int:
    """Parse, score, and write the tables; 1 if a metric failed."""
    parser = verb_parser("score", SCORE_HELP)
    parser.add_argument("folder", metavar="FOLDER", help="the images: .png, .jpg or .webp")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of metrics, as for run")
    parser.add_argument(
        "--prompts", required=True, metavar="FILE", help="the prompts they were made of, see: list prompts"
    )
    parser.add_argument(
        "--metric", action="append", metavar="NAME", help=f"see: list metrics; default: {', '.join(METRICS_ASKED)}"
    )
    parser.add_argument("--erase", action="append", default=[], metavar="NAME", help="a label that was to be erased")
    parser.add_argument("--role", choices=ROLES, help="the role of all prompts")
    parser.add_argument("--label", help="what all prompts ask for, if the file has no labels")
    parser.add_argument("--kind", choices=KINDS, help="of the concepts, if the file does not say")
    parser.add_argument(
        "--in-order", action="store_true", help="names say nothing: the images are in the prompts' order"
    )
    parser.add_argument("--out", metavar="DIR", help="folder of the tables; default: tables/scored-FOLDER in the store")
    add_store(parser)
    add_plugins(parser)
    options = parser.parse_intermixed_args(arguments)
    metrics = _metrics(options.metric or METRICS_ASKED, options.overrides, options.plugins)
    folder = Path(options.folder).expanduser()
    prompts = load_prompts(options.prompts, kind=options.kind, role=options.role, label=options.label)
    kind = options.kind or next((name for name in prompts.rows.kind if name in KINDS), "general")
    if kind == "general" and (options.erase or (prompts.rows.label != "").any()):
        raise UserError(
            f"{prompts.name}: of which kind are its concepts? Say --kind {', '.join(KINDS[:-1])} or {KINDS[-1]}"
        )
    files = images_in(folder)
    rows = matched(files, with_roles(prompts, options.erase, kind), options.in_order)
    store = FolderImages(options.store, folder, files)
    store.check_writable()
    return score_folder(store, rows, prompts, kind, options.erase, metrics, options.out, Console())


class FolderImages(Store):
    """A store whose images lie in a folder under any names; a key is made of an image's pixels.

    Args:
        root: the results folder, where scores are kept.
        folder: of the images.
        files: the images.

    Raises:
        UserError: an image cannot be read; it is named.
    """

    def __init__(self, root: str | Path, folder: Path, files: Sequence[Path]) -> None:
        super().__init__(root)
        self.folder = folder
        self.keys = {file: hashlib.sha256(pixels_sha256(_opened(file)).encode()).hexdigest()[:32] for file in files}
        self.files = {key: file for file, key in self.keys.items()}

    def image(self, key: str) -> Image.Image:
        """The image of a key, RGB."""
        return _opened(self.files[key])


def _opened(file: Path) -> Image.Image:
    try:
        with Image.open(file, formats=list(dict.fromkeys(FORMATS.values()))) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"{file}: not an image that can be read ({error}); make it again or take it away") from error


def images_in(folder: Path) -> list[Path]:
    """The images of a folder by name; subfolders are not read.

    Raises:
        UserError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        near = [entry.name for entry in folder.parent.glob("*/")] if folder.parent.is_dir() else []
        raise UserError(f"{folder}: no such folder.{suggest(folder.name, near)}")
    files = sorted(
        file for file in folder.iterdir() if file.suffix.lower() in FORMATS and not file.name.startswith(".")
    )
    if not files:
        raise UserError(f"{folder}: no image in it ({', '.join(FORMATS)}); subfolders are not read, name one of them")
    return files


def with_roles(prompts: PromptSet, erase: Sequence[str], kind: str) -> pd.DataFrame:
    """The rows of a prompt set with the role of each.

    Raises:
        UserError: labels, and nothing that says which of them were to be erased; or a name that is no label.
    """
    if erase:
        return prompts.for_task(ErasureTask(tuple(Concept(name, kind) for name in erase)))
    rows = prompts.rows
    undecided = (rows.label != "") & (rows.role == "")
    if undecided.any():
        labels = list(dict.fromkeys(rows.label[undecided]))
        raise UserError(
            f"{prompts.name}: what was to be erased? Name labels with --erase ({', '.join(labels[:8])}), or give all "
            "prompts one role with --role (retain for the unedited model)"
        )
    return rows.assign(role=rows.role.where(rows.role != "", "general"))


def matched(files: Sequence[Path], rows: pd.DataFrame, in_order: bool) -> pd.DataFrame:
    """One row an image: that of its prompt, with the column ``file``; several images of a prompt get ids of their own.

    Raises:
        UserError: an image that belongs to no prompt, or in order: another number of images than of prompts.
    """
    if in_order:
        if len(files) != len(rows):
            raise UserError(f"--in-order: {len(files)} images and {len(rows)} prompts; there must be as many")
        return rows.assign(file=list(files)).reset_index(drop=True)
    places = {_plain_number(name): place for place, name in enumerate(rows.prompt_id)}
    taken, numbers = [], []
    for file in files:
        several = re.fullmatch(r"(.+?)[_-](\d+)", file.stem)
        place = places.get(_plain_number(file.stem))
        numbers.append("" if place is not None or not several else f"/{int(several[2])}")
        if place is None and several:
            place = places.get(_plain_number(several[1]))
        if place is None:
            raise UserError(
                f"{file.name}: belongs to no prompt; their ids are {', '.join(rows.prompt_id[:5])}, ... Name images ID.png "
                "or ID_NUMBER.png, or say --in-order if they are in the order of the prompts"
            )
        taken.append(place)
    images = rows.iloc[taken].assign(file=list(files))
    images = images.assign(prompt_id=images.prompt_id + pd.Series(numbers, index=images.index))
    twice = images[images.prompt_id.duplicated(keep=False)]
    if len(twice):
        raise UserError(
            f"{twice.file.iloc[0].name} and {twice.file.iloc[1].name}: both are image {twice.prompt_id.iloc[0]}"
        )
    return images.reset_index(drop=True)


def _plain_number(name: str) -> str:
    return str(int(name)) if name.isdecimal() else name


def _metrics(names: Sequence[str], overrides: Sequence[str], plugins: Sequence[str]) -> list[Metric]:
    """The metrics asked for.

    Raises:
        UserError: no such metric, or one that needs the unedited model's images.
    """
    config = compose([f"metric=[{','.join(names)}]", *overrides])
    metrics = [
        build(node, f"metric.{name}", Metric, [*plugins, *config.plugins]) for name, node in config.metric.items()
    ]
    for metric in metrics:
        if (
            metric.paired_with or getattr(metric, "against", "") == "original"
        ):  # a set's reference, as FID and KID have it
            raise UserError(
                f"--metric {metric.name}: compares with the unedited model's images of the same prompts, which a folder does "
                "not have; leave it out, or run the model itself: erasebench run model=... (model.weights=FILE)"
            )
    return metrics


def score_folder(
    store: FolderImages,
    images: pd.DataFrame,
    prompts: PromptSet,
    kind: str,
    erase: Sequence[str],
    metrics: Sequence[Metric],
    out: str | None,
    console: Console,
) -> int:
    """Score what has no score yet, print and write the tables; 1 if a metric failed.

    Args:
        store: of the images, and where scores are kept.
        images: what :func:`matched` gives.
        prompts: where they are from.
        kind: of the concepts.
        erase: the labels that were to be erased.
        metrics: to score.
        out: folder of the tables.
        console: where to print.
    """
    quiet_libraries()
    name = store.folder.resolve().name
    keys = [store.keys[file] for file in images.file]
    task = " + ".join(erase) or kind
    plan = images.drop(columns="file").assign(
        eraser=f"{name} (folder)" if name == UNEDITED else name, task=task, task_kind=kind, key=keys, original_key=keys,
        edit_key="", attack="", attack_key="", clean_key=keys, targets=[list(erase) or [task]] * len(images),
    )  # fmt: skip
    for note in [*prompts.notes, *_lacking(images, prompts)]:
        say(console, f"note: {note}")
    not_run: dict[str, str] = {metric.id: reason for metric in metrics if (reason := metric.unavailable())}
    not_run |= {metric.id: "no image is of its kind and role" for metric in metrics if not len(metric.applies_to(plan))}
    unscored = score_missing(plan, [metric for metric in metrics if metric.id not in not_run], store)
    not_run |= {metric: f"failed: {why}" for metric, why in unscored.failed.items()}
    scores = {metric.records_id: store.scores(metric.records_id, metric.inputs) for metric in metrics}
    measured = measure(plan, scores, metrics, not_run_because=not_run)
    digest = hashlib.sha256("".join(sorted(keys)).encode()).hexdigest()[:12]
    about = About(
        model=f"images of the folder {name} ({digest})",
        protocol="made elsewhere: sampler, steps, guidance and seeds are not known here",
        prompts={kind: f"{prompts.name} v{prompts.version} ({prompts.hash[:8]})"},
        names={"model": f"images of the folder {name}", "protocol": "made elsewhere"},
    )
    target = Path(out) if out else store.root / "tables" / f"scored-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}-{digest}"
    written = write_tables(measured, target, about)
    print_tables(measured, about, console)
    for metric, why in not_run.items():
        if metric in set(measured.metric):
            continue  # said below its table
        say(console, f"not run: {metric}: {why}")
    say(console, f"{len(written)} files in {target}")
    return 1 if unscored.problems else 0


def _lacking(images: pd.DataFrame, prompts: PromptSet) -> list[str]:
    """What must be said of prompts that have no image."""
    there = {prompt_id.rpartition("/")[0] or prompt_id for prompt_id in images.prompt_id} | set(images.prompt_id)
    without = [prompt_id for prompt_id in prompts.rows.prompt_id if prompt_id not in there]
    if not without:
        return []
    return [f"{len(without)} of {len(prompts.rows)} prompts have no image here, the first: {without[0]}"]
