"""``erasebench export``: an edit as files that other tools load, with a model card of what was measured.

Three forms: a LoRA, a whole diffusers folder, or the changed weights alone. Each is a folder of its own, with
``README.md`` and the mark ``erasebench.json``, and appears whole or not at all.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import save

from erasebench.config.choices import find_model
from erasebench.edits.edit import Edit
from erasebench.errors import UserError, suggest
from erasebench.export.card import LISTED, NOT_MEASURED, Card, model_card
from erasebench.export.find import Found, edit_of_run, find_edit
from erasebench.export.lora import FILE as LORA_FILE
from erasebench.export.lora import LARGEST, TOLERANCE, Lora, lora
from erasebench.files import check_writable, disk_errors, temporary_beside, write_atomic, write_text
from erasebench.models.load import Model, load_model, quiet_libraries
from erasebench.models.marks import MARK, read_marks, write_marks
from erasebench.progress import say
from erasebench.runs.folder import read_config
from erasebench.store import Store

FORMS = {
    "lora": f"{LORA_FILE}, for pipe.load_lora_weights(folder); needs peft to load",
    "diffusers": "a whole pipeline folder with the edit applied, for from_pretrained(folder)",
    "delta": "changed_weights.safetensors: the new values of the changed weights alone",
}
DELTA_FILE = "changed_weights.safetensors"
KEYS = {
    "format": "one of lora, diffusers, delta (must be given)",
    "run": "the run that made the edit; default: the latest one",
    "edit": "instead of run: the key of an edit in the store (or its first digits), or an edit file",
    "eraser": 'which eraser of the run, as its table calls it, e.g. "eraser=cure alpha=5"',
    "task": "which task of the run, e.g. task=church",
    "out": "the new folder; default: STORE/exports/...",
    "store": "the results folder; default: results",
    "rank": f"rank of the LoRA; default: exact for low-rank edits, else error below {TOLERANCE:g}, at most {LARGEST}",
    "model": "with edit=FILE: the model it was made for, a name, folder or Hub id",
}
"""What ``erasebench export`` takes as key=value."""


def settings(arguments: Sequence[str]) -> dict[str, Any]:
    """The arguments of ``erasebench export``, checked.

    Raises:
        UserError: not key=value, an unknown key (with the nearest one), or one given twice.
    """
    found: dict[str, Any] = {}
    for text in arguments:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise UserError(f"{text}: write key=value, e.g. format=lora. Keys: {', '.join(KEYS)}")
        if key not in KEYS:
            raise UserError(f"{key}: no such key.{suggest(key, KEYS)} Known: {', '.join(KEYS)}")
        if key in found:
            raise UserError(f"{key} is given twice; give it once")
        found[key] = value
    if "rank" in found:
        if not re.fullmatch(r"\d{1,5}", found["rank"]) or int(found["rank"]) < 1:
            raise UserError(f"rank={found['rank']}: must be a whole number, 1 or more")
        found["rank"] = int(found["rank"])
    return found


def export(
    format: str | None = None,
    run: str | None = None,
    edit: str | None = None,
    eraser: str | None = None,
    task: str | None = None,
    out: str | None = None,
    store: str = "results",
    rank: int | None = None,
    model: str | None = None,
    console: Console | None = None,
) -> Path:
    """Export one edit; see :data:`KEYS` for the arguments.

    Returns:
        The new folder.

    Raises:
        UserError: no such run, edit, eraser or task; several to choose from (they are listed); a folder that is not
            empty; a model that is not the one the edit was made for. Nothing is written then.
    """
    console = console or Console()
    if format not in FORMS:
        given = "format must be given" if format is None else f"format={format}: no such format"
        raise UserError(f"{given}.{suggest(format or '', FORMS)} Known: {', '.join(FORMS)}, e.g. format=lora")
    if rank is not None and format != "lora":
        raise UserError(f"rank={rank}: only a LoRA has a rank; leave it out, or use format=lora")
    if edit is not None and (run or eraser or task):
        raise UserError("edit= names one edit; leave out run=, eraser= and task=, or choose by them instead")
    place = Store(store)
    found = find_edit(place, edit) if edit is not None else edit_of_run(place, run, eraser, task)
    found.edit.check_weights_alone("it cannot be exported")
    target = Path(out).expanduser() if out else place.root / "exports" / _name(found, format)
    check_new(target)
    quiet_libraries()
    loaded = _model_of(found, model)
    infos = [*_marks_of(loaded), found.edit.info]
    write_export(target, loaded, found.edit, infos, form=format, rank=rank, effect=found.effect, console=console)
    return target


def _name(found: Found, form: str) -> str:
    info = found.edit.info
    label = f"{info.get('method', 'edit')}-{info.get('task', {}).get('label', '')}"
    short = re.sub(r"[^A-Za-z0-9]+", "-", label).strip("-")[:60]
    return f"{short}-{found.key[:8]}-{form}" if found.key else f"{short}-{form}"


def _model_of(found: Found, named: str | None) -> Model:
    """The unedited model that an edit was made for, loaded on the CPU in the type it was edited in.

    Raises:
        UserError: it is not known, or its weights are not those the edit was made for.
    """
    made_for = found.model
    path, revision, name, variant = made_for.get("source"), None, made_for.get("name"), None
    wanted = made_for.get("revision")
    if path and "/" in path and not Path(path).is_dir():
        revision = wanted  # of a Hub id
    if found.run is not None:
        node = read_config(found.run).get("model", {})
        path, revision, variant = node.get("path", path), node.get("revision"), node.get("variant")
    if named is not None:
        path, revision, name = find_model(named)
    if path is None:
        raise UserError(
            f"{found.origin}: it does not say which model it was made for; give model=NAME, FOLDER or Hub id"
        )
    model = load_model(path, revision, device="cpu", dtype=made_for.get("dtype", "auto"), variant=variant, name=name)
    if wanted is not None and model.revision != wanted:
        raise UserError(
            f"{found.origin}: made for revision {wanted} of the model, and {path} is now {model.revision}; give model= of "
            "the same weights, or use: erasebench apply"
        )
    return model


def _marks_of(model: Model) -> tuple[dict[str, Any], ...]:
    folder = Path(model.source).expanduser()
    return read_marks(folder) if model.source != "embedded" and folder.is_dir() else ()


def check_new(out: Path) -> None:
    """Refuse to write into a folder that holds something, or that cannot be written.

    Raises:
        UserError: naming it.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out}: already there and not an empty folder; choose another one with out, or delete it")
    check_writable(out.absolute().parent)


def write_export(
    out: Path,
    model: Model,
    edit: Edit,
    infos: Sequence[Mapping[str, Any]],
    *,
    form: str,
    how: str = "",
    rank: int | None = None,
    effect: str = NOT_MEASURED,
    warnings: Sequence[str] = (),
    console: Console,
) -> None:
    """Write an edit of a model in one of :data:`FORMS`, with its card and its mark. The model is left edited.

    Args:
        out: the new folder; see :func:`check_new`.
        model: the model, unedited.
        edit: all changes as one edit.
        infos: the notes of all edits that the result carries.
        form: a key of :data:`FORMS`.
        how: how several edits were made one: ``sum`` or ``sequence``.
        rank: of the LoRA.
        effect: the measured effect, as Markdown.
        warnings: what a reader of the card must know first.
        console: where to print what was written.
    """
    base = describe_model(model)
    weights = edit.check_fits(model.pipe)
    made: dict[str, Any] = {"format": form}
    if form == "lora":
        factors = lora(edit, model.pipe, rank)
        made |= {"rank": factors.rank, "exact": not factors.cut, "error": factors.error, "errors": factors.errors}
        facts = lora_facts(factors)
        need = sum(tensor.nbytes for tensor in factors.tensors.values())
    else:
        made["rounding"] = edit.apply(model.pipe)
        facts = _rounding(made["rounding"], model.dtype)
        parts = [part for part in model.pipe.components.values() if isinstance(part, torch.nn.Module)]
        whole = [p for part in parts for p in part.parameters()]
        need = sum(p.nbytes for p in (weights.values() if form == "delta" else whole))
    check_writable(out.absolute().parent, need)
    card = model_card(
        Card(base, type(model.pipe).__name__, infos, form, list(edit.changes), how, facts, effect, warnings)
    )
    with _whole_folder(out) as folder:
        if form == "lora":
            write_atomic(folder / LORA_FILE, save(factors.tensors, metadata={"format": "pt"}))
        elif form == "delta":
            tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
            write_atomic(folder / DELTA_FILE, save(tensors, metadata={"format": "pt"}))
        else:
            model.pipe.save_pretrained(folder, safe_serialization=True)
        write_marks(folder, base, infos, how, made)
        write_text(folder / "README.md", card)
    for text in (*warnings, *facts[:1]):
        say(console, text)
    say(console, f"{form}: {out} ({_size(out)}); README.md there says how to load it")


def describe_model(model: Model) -> dict[str, Any]:
    """What a mark and a card say of a model. Of a local folder only the name: where it lies is nobody's business."""
    source = model.source
    folder = Path(source).expanduser()
    if source != "embedded" and folder.is_dir():
        source = folder.resolve().name
    return {
        "name": model.name, "source": source, "revision": model.revision, "family": model.family, "dtype": model.dtype,
    }  # fmt: skip


def lora_facts(factors: Lora) -> list[str]:
    """What is said of a LoRA's rank and error."""
    name, worst = factors.worst
    kind = "cut: the edit has a larger rank" if factors.cut else "which is exact: the edit has no larger rank"
    missing = factors.error > TOLERANCE
    facts = [
        f"LoRA of rank {factors.rank} in float32, {kind}. Relative error (Frobenius norm of what is missing over that of "
        f"the change): {factors.error:.2g} over all layers, {worst:.2g} in the worst one (`{name}`)."
        + (" A larger rank, or the formats diffusers and delta, lose less." if missing else "")
    ]
    if factors.cut:
        ordered = sorted(factors.errors.items(), key=lambda item: -item[1])
        listed = ", ".join(f"`{layer}` {error:.2g}" for layer, error in ordered[:LISTED])
        facts.append(f"Error by layer, largest first (all are in {MARK}): {listed}.")
    return facts


def _rounding(lost: float, dtype: str) -> list[str]:
    if dtype == "float32":
        return ["Changes are put on in float64 and rounded once to float32."]
    return [f"Changes are put on in float64 and rounded once to {dtype}, which takes or adds {lost:.2g} of the change."]


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder under another name, which gets its own once all is written, or is deleted."""
    partial = temporary_beside(out.absolute())
    with disk_errors(out):
        partial.mkdir(parents=True)
        try:
            yield partial
            os.replace(partial, out)
        except SafetensorError as error:
            raise UserError(f"cannot write to {out}: {error}; free some space or choose another folder") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _size(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6:,.1f} MB"
