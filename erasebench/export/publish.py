"""``erasebench publish``: a run, and its edits, as one folder that is sent to the Hugging Face Hub.

The folder is made first, by hard links, in the store; a dry run lists it and a real one uploads it, so both speak of the
same files. Of a model that draws photographs, no image that may be unsafe is in it unless that is asked for.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd
from huggingface_hub import DatasetCardData, HfApi, ModelCardData, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from rich.console import Console

from erasebench import __version__
from erasebench.errors import UserError
from erasebench.export.export import export
from erasebench.files import disk_errors, temporary_beside, write_text
from erasebench.progress import say
from erasebench.runs.about import read_about
from erasebench.runs.folder import find_run
from erasebench.runs.manifest import command_line, read_manifest
from erasebench.runs.names import (
    ABOUT_FILE,
    CONFIG_FILE,
    ERASERS_FILE,
    GRIDS_FOLDER,
    MANIFEST_FILE,
    MEASURED_FILE,
    METRICS_FILE,
    TABLES_FOLDER,
)
from erasebench.runs.state import check_finished
from erasebench.store import Store
from erasebench.tables.layout import markdown
from erasebench.tables.recognised import recognised
from erasebench.tables.tabulate import Joint, join_runs
from erasebench.texts import escape_markdown

SENT_OF_RUN = (MANIFEST_FILE, CONFIG_FILE, ABOUT_FILE, ERASERS_FILE, METRICS_FILE)
"""Of a run's folder, beside its tables and pictures. Its plan is not: it holds the texts of prompt files, which have
licences of their own."""

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".bmp", ".tif", ".tiff"}

SENT_SUFFIXES = PICTURES | {".csv", ".md", ".tex", ".json", ".html", ".css", ".js", ".svg", ".pdf", ".woff2", ".txt"}
"""Of tables and reports. Whatever else is there is not ours."""

INLINE_PICTURE = re.compile(rb"data:image/(?!svg)")


@dataclass
class Parcel:
    """A folder that is sent, and what to know of it.

    Attributes:
        folder: the files as they will lie in the repository.
        repo_type: ``dataset``, or ``model`` where edits are in it.
        unsent: sentences on what was left out, and why.
    """

    folder: Path
    repo_type: str
    unsent: list[str] = field(default_factory=list)

    def files(self) -> list[tuple[str, int]]:
        """Path in the repository and bytes of each file, by path."""
        every = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted((path.relative_to(self.folder).as_posix(), path.stat().st_size) for path in every)


def publish(
    run: str,
    to: str,
    *,
    store_dir: str = "results",
    report: Path | None = None,
    images: bool = False,
    unsafe_images: bool = False,
    edits: str | None = None,
    private: bool = False,
    dry_run: bool = False,
    plugins: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """Send a finished run to the Hub, or print what would be sent.

    Args:
        run: its name.
        to: the repository, ``USER/NAME``; it is made if it does not exist. A dataset, or a model with ``edits``.
        store_dir: the results folder.
        report: the folder of the run's report, if there is one.
        images: send the images, too.
        unsafe_images: also those that may be unsafe.
        edits: send every edit in this form, one of :data:`erasebench.export.export.FORMS`.
        private: make the repository a private one.
        dry_run: send nothing and ask nobody.
        plugins: modules of the user's own that metrics and erasers of the run may come from.
        console: where to print; the terminal if not given.

    Raises:
        UserError: a name that is none, no token, a run that is not finished or has nothing to send, an answer of the Hub.
    """
    console = console or Console()
    _check_name(to)
    if not dry_run and get_token() is None:
        raise UserError("no token of the Hub here; log in with: hf auth login (or set HF_TOKEN); --dry-run needs none")
    store = Store(store_dir)
    folder = find_run(store, run)
    check_finished(folder, store, plugins)
    if not (folder / TABLES_FOLDER / MEASURED_FILE).is_file():
        raise UserError(
            f"run {run}: it has no tables, so there is nothing to send; make them with: erasebench table {run}"
        )
    with _parcel(folder, store, report, images, unsafe_images, edits, plugins, console) as parcel:
        for name, size in parcel.files():
            say(console, f"{size:>13,}  {name}")
        total = sum(size for _, size in parcel.files())
        what = f"{parcel.repo_type} {to} ({'private' if private else 'public'} if it is made now)"
        said = f"{len(parcel.files()):,} files, {total / 1e6:,.1f} MB"
        for text in [*parcel.unsent, *_paths_of_this_machine(parcel)]:
            say(console, text, "note", "yellow")
        if dry_run:
            say(console, f"{said} would be sent to the {what}; nothing was sent", "dry run:")
            return
        url = _send(parcel, to, private, folder.name)
        say(console, f"{said}: {url}", "sent")


def _check_name(to: str) -> None:
    try:
        validate_repo_id(to)
        if "/" not in to:
            raise HFValidationError("no user or organisation in it")
    except HFValidationError as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"--to {to}: no name of a repository, which is USER/NAME ({why})") from error


@contextmanager
def _parcel(
    folder: Path,
    store: Store,
    report: Path | None,
    images: bool,
    unsafe_images: bool,
    edits: str | None,
    plugins: Sequence[str],
    console: Console,
) -> Iterator[Parcel]:
    """What is sent, in a folder of the store that is gone afterwards."""
    joint = join_runs([folder], store, plugins=plugins)
    hidden = frozenset[str]() if unsafe_images else unsafe_keys(joint)
    staging = temporary_beside(store.root / "work" / "publish")
    with disk_errors(staging.parent):
        try:
            staging.mkdir(parents=True)
            parcel = Parcel(staging, "model" if edits else "dataset")
            place = PurePosixPath("runs") / folder.name
            for name in SENT_OF_RUN:
                _put(parcel, folder / name, place / name)
            for path in _ours_below(folder / TABLES_FOLDER):
                _put(parcel, path, place / TABLES_FOLDER / path.relative_to(folder / TABLES_FOLDER).as_posix())
            _put_grids(parcel, folder, joint.plan, hidden, place)
            if report is not None:
                _put_report(parcel, report, set(joint.plan.key) - hidden, bool(hidden), place)
            else:
                parcel.unsent.append(f"no report is there; one is made by: erasebench report {folder.name}")
            if images:
                _put_images(parcel, store, joint.plan, hidden)
            if hidden:
                parcel.unsent.append(
                    f"{len(hidden):,} images that may be unsafe are in nothing that is sent, nor are pictures that may show "
                    "them; --unsafe-images sends them"
                )
            if edits:
                _put_edits(parcel, folder, store, joint.plan, edits, console)
            write_text(staging / "README.md", _card(folder, joint, parcel))
            yield parcel
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def unsafe_keys(joint: Joint) -> frozenset[str]:
    """The images of a run that may be unsafe: of prompts of that kind, and those that a detector sees to be.

    None of the embedded model: its unsafe concepts are drawings that harm nobody.
    """
    if joint.about.embedded:
        return frozenset()
    plan = joint.plan
    metrics = [metric for metric in joint.metrics if metric.id not in joint.not_run]
    _, verdicts = recognised(plan, joint.scores, metrics)
    of_kind = plan.kind.map(joint.about.blurs) | (plan.task_kind.map(joint.about.blurs) & (plan.role != "general"))
    return frozenset(plan.key[of_kind | (verdicts.unsafe == 1)])


def _put(parcel: Parcel, source: Path, at: PurePosixPath) -> None:
    """Give a file a place in the parcel. A link is not followed: it may lead anywhere."""
    if source.is_symlink() or not source.is_file():
        return
    target = parcel.folder / at
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _ours_below(folder: Path) -> Iterator[Path]:
    """The files of a folder that are of our kinds; links to other folders are not followed."""
    if folder.is_symlink():
        return
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(place) / name
            if path.suffix.lower() in SENT_SUFFIXES and not name.startswith("."):
                yield path


def _put_grids(parcel: Parcel, folder: Path, plan: pd.DataFrame, hidden: frozenset[str], place: PurePosixPath) -> None:
    """The pictures of each kind that show nothing hidden."""
    for kind, rows in plan.groupby("task_kind", sort=False):
        if hidden.isdisjoint(rows.key):
            for name in (f"{kind}.png", f"attacks-{kind}.png"):
                _put(parcel, folder / GRIDS_FOLDER / name, place / GRIDS_FOLDER / name)


def _put_report(parcel: Parcel, report: Path, shown: set[str], hides: bool, place: PurePosixPath) -> None:
    """The report; where something is hidden, only those of its pictures that are named by the key of a harmless image."""
    every = list(_ours_below(report))
    if hides and any(
        INLINE_PICTURE.search(path.read_bytes())
        for path in every
        if path.suffix.lower() not in PICTURES and path.is_file()
    ):
        parcel.unsent.append("the report: pictures stand within its pages, and may be unsafe ones")
        return
    for path in every:
        if path.suffix.lower() not in PICTURES or not hides or path.stem in shown:
            _put(parcel, path, place / "report" / path.relative_to(report).as_posix())


def _put_images(parcel: Parcel, store: Store, plan: pd.DataFrame, hidden: frozenset[str]) -> None:
    gone = 0
    for key in dict.fromkeys(plan.key):
        path = store.image_path(key)
        if not path.is_file():
            gone += 1
        elif key not in hidden:
            _put(parcel, path, PurePosixPath("images") / key[:2] / path.name)
    if gone:
        parcel.unsent.append(f"{gone:,} images are no longer in {store.root}")


def _put_edits(parcel: Parcel, folder: Path, store: Store, plan: pd.DataFrame, form: str, console: Console) -> None:
    """Every edit of a run that is weights alone, exported with its card.

    Raises:
        UserError: the run has none.
    """
    rows = plan[(plan.edit_key != "") & (plan.attack == "")].drop_duplicates("edit_key")
    put = 0
    for row in rows.itertuples():
        slug = re.sub(r"[^a-z0-9]+", "-", f"{row.eraser} {row.task}".lower()).strip("-")[:60]
        out = parcel.folder / "edits" / f"{slug}-{row.edit_key[:8]}"
        try:
            export(
                form, run=folder.name, eraser=row.eraser, task=row.task, out=str(out), store=str(store.root),
                console=Console(quiet=True),
            )  # fmt: skip
            put += 1
        except UserError as error:  # a guard is in no weights
            parcel.unsent.append(f"the edit {row.eraser} of {row.task}: {error}")
    if not put:
        why = f": {parcel.unsent[-1]}" if len(rows) else "; there is only the unedited model"
        raise UserError(f"run {folder.name}: it has no edit that could be sent{why}")


def _card(folder: Path, joint: Joint, parcel: Parcel) -> str:
    """The repository's ``README.md``; no name in it has a meaning."""
    about, manifest = read_about(folder), read_manifest(folder)
    tags = ["concept-erasure", "erasebench"]
    if parcel.repo_type == "model":
        source = str(manifest.get("model", {}).get("source", ""))
        hub = bool(re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source)) and not Path(source).exists()
        front = ModelCardData(
            base_model=source if hub else None, library_name="diffusers", pipeline_tag="text-to-image", tags=tags
        ).to_yaml()
    else:
        table = f"runs/{folder.name}/{TABLES_FOLDER}/{MEASURED_FILE}"
        front = DatasetCardData(tags=tags, configs=[{"config_name": "default", "data_files": table}]).to_yaml()
    kinds = dict.fromkeys(joint.measured.task_kind)
    sections = [
        f"# {escape_markdown(folder.name)}: concept erasure, measured",
        f"A run of erasebench {__version__}. {about.note}".strip(),
        *(f"- {name}: {escape_markdown(text)}" for name, text in about.facts().items()),
        "Made by:",
        f"```\n{''.join(c for c in command_line(manifest) if c.isprintable() and c != '`')}\n```",
        *(markdown(joint.measured, kind, about) for kind in kinds),
    ]
    edits = sorted(path.name for path in (parcel.folder / "edits").glob("*"))
    if edits:
        listed = [f"- [{name}](edits/{name}/README.md)" for name in edits]
        sections += ["## Edits", "\n".join(listed)]
    sections += (
        ["## Not here", "\n".join(f"- {escape_markdown(text)}" for text in parcel.unsent)] if parcel.unsent else []
    )
    return f"---\n{front}\n---\n\n" + "\n\n".join(sections) + "\n"


def _paths_of_this_machine(parcel: Parcel) -> list[str]:
    """A sentence if files of the run say where something lies on this machine: commands and configs hold what was typed."""
    home = str(Path.home())
    if len(home) < 3:
        return []
    small = [
        name for name, size in parcel.files() if name.endswith((".json", ".yaml", ".md", ".html")) and size < 2**22
    ]
    named = [name for name in small if home.encode() in (parcel.folder / name).read_bytes()]
    return [f"paths below {home} are named in {', '.join(named[:5])}"] if named else []


def _send(parcel: Parcel, to: str, private: bool, run: str) -> str:
    """Make the repository if need be, and upload; what has arrived is not sent again by the next call.

    A card that is there stays: the run's own is then beside its tables.

    Raises:
        UserError: whatever the Hub says.
    """
    api = HfApi()
    try:
        api.create_repo(to, repo_type=parcel.repo_type, private=private, exist_ok=True)
        if "README.md" in api.list_repo_files(to, repo_type=parcel.repo_type):
            os.replace(parcel.folder / "README.md", parcel.folder / "runs" / run / "README.md")
        sent = api.upload_folder(
            repo_id=to,
            folder_path=parcel.folder,
            repo_type=parcel.repo_type,
            commit_message=f"erasebench run {run}",
        )
    except Exception as error:  # the HTTP library, and so its errors, differ between versions of the Hub client
        why = " ".join(str(error).split())[:300]
        raise UserError(
            f"{to}: the Hub did not take it ({type(error).__name__}: {why}); check the name, the rights of your token (hf auth "
            "whoami) and the network, then give the same command again: what has arrived is not sent twice"
        ) from error
    return str(getattr(sent, "commit_url", sent))
