"""``erasebench apply``: edits onto any model whose weights they fit, as a diffusers folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from erasebench.config.choices import find_model
from erasebench.edits.combine import HOW, additive, check_how, combine
from erasebench.edits.edit import Edit
from erasebench.edits.eraser import describe_edit
from erasebench.errors import UserError
from erasebench.export.export import check_new, describe_model, write_export
from erasebench.export.find import Found, find_edit
from erasebench.models.load import Model, load_model, quiet_libraries
from erasebench.models.marks import read_marks
from erasebench.models.targets import named_weight
from erasebench.progress import say
from erasebench.store import Store


def apply(
    edits: Sequence[str],
    to: str,
    out: str,
    how: str = "sum",
    dtype: str = "auto",
    compose: bool = False,
    store: str = "results",
    console: Console | None = None,
) -> Path:
    """Apply edits to a model and write it as a diffusers folder with a model card.

    Args:
        edits: edit files, or keys of edits in the store (or their first digits), in order.
        to: the model: a name of ``erasebench list models``, ``embedded``, a folder or a Hub id.
        out: the new folder.
        how: for several edits, a key of :data:`erasebench.edits.combine.HOW`.
        dtype: type of the weights, in which they are also written; ``auto`` is float32 here.
        compose: allow a model that is already edited.
        store: the results folder where keys are looked up.
        console: where to print.

    Returns:
        The new folder.

    Raises:
        UserError: an edit that acts while images are sampled, or that does not fit (the first weight, both shapes and both models are named), a model that is
            already edited, a folder that is not empty. Nothing is written then.
    """
    console = console or Console()
    check_how(how, "--how")
    target = Path(out).expanduser()
    check_new(target)
    found = [find_edit(Store(store), text) for text in edits]
    for entry in found:
        entry.edit.check_weights_alone("it cannot be applied for good")
    if len({entry.key or str(Path(text).resolve()) for entry, text in zip(found, edits, strict=True)}) < len(found):
        raise UserError("an edit is named twice; name each once")
    path, revision, name = find_model(to)
    marks = read_marks(path) if path != "embedded" and Path(path).is_dir() else ()
    if marks and not compose:
        raise UserError(
            f"--to {to}: already edited by {', '.join(describe_edit(info) for info in marks)}; start from the unedited "
            "model, or say --compose to put the edits on top"
        )
    quiet_libraries()
    model = load_model(path, revision, device="cpu", dtype=dtype, name=name)
    for entry in found:
        check_fits(entry, model)
    changes = combine([entry.edit.changes for entry in found], how, model.pipe)
    infos = [entry.edit.info for entry in found]
    if len(found) > 1:
        same = all(additive(entry.edit.changes) for entry in found)
        say(
            console,
            f"{len(found)} edits, {how}: {HOW[how]}"
            + ("; these edits do not read the weights they change, so sum and sequence are the same" if same else ""),
        )
    write_export(
        target,
        model,
        Edit(changes, {"method": " and ".join(str(info.get("method", "an edit")) for info in infos)}),
        [*marks, *infos],
        form="diffusers",
        how="" if marks else how if len(found) > 1 else "",
        warnings=[text for entry in found for text in _other_weights(entry, model)],
        console=console,
    )
    return target


def check_fits(found: Found, model: Model) -> None:
    """Whether every change of an edit has a weight of its shape in a model.

    Raises:
        UserError: naming the first weight, both shapes and both models.
    """
    here, there = describe_model(model), _made_for(found)
    for name, change in found.edit.changes.items():
        try:
            shape = list(named_weight(model.pipe, name).shape)
        except UserError:
            theirs = "no such weight"
        else:
            if change.fits(tuple(shape)):
                continue
            theirs = str(shape)
        raise UserError(
            f"{found.origin} does not fit: {name} is {change.shown_shape} in the edit (made for {there}), and {theirs} in "
            f"{here['name']} ({here['family']}, revision {here['revision']}). Nothing was written; apply it to a model of "
            "the family it was made for, or make the edit anew: erasebench run model.path=..."
        )


def _made_for(found: Found) -> str:
    model = found.model
    if not model:
        return "a model that it does not name"
    return f"{model.get('name')} ({model.get('family')}, revision {model.get('revision')})"


def _other_weights(found: Found, model: Model) -> list[str]:
    """What must be said where an edit is applied to other weights than those it was made for."""
    if found.model.get("revision") == model.revision:
        return []
    return [
        f"{describe_edit(found.edit.info)} was made for {_made_for(found)} and fits {model.name} (revision "
        f"{model.revision}) by its shapes; nothing says that it erases as well there."
    ]
