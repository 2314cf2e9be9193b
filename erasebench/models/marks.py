"""The mark of an edited model: ``erasebench.json`` in its folder says what was changed, and in which model; and what a
loaded pipeline carries at the moment."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from erasebench import __version__
from erasebench.errors import UserError
from erasebench.files import write_json
from erasebench.models.pipeline import Pipeline
from erasebench.typed_files import check_type

if TYPE_CHECKING:
    from torch import Tensor  # a table, which reads marks, needs no torch

_EDITS, _KEYS, _ORIGINALS = "_erasebench_edits", "_erasebench_keys", "_erasebench_originals"

MARK = "erasebench.json"
FORMAT = "erasebench mark 1"


class _Named(TypedDict):
    name: str


class ConceptNotes(_Named, total=False):
    """A concept in the notes of an edit."""

    kind: str
    phrases: list[str]
    anchor: str


class TaskNotes(TypedDict, total=False):
    """The task in the notes of an edit."""

    label: str
    kind: str
    targets: list[ConceptNotes]
    retain: list[str]


class EditNotes(TypedDict, total=False):
    """The notes of an edit that tables, reports, cards and estimates rely on; an eraser may note more."""

    method: str
    version: str
    describe: str
    settings: dict[str, Any]
    task: TaskNotes
    model: dict[str, Any]
    seconds: float
    peak_memory_mb: float | None
    device: str
    machine: str
    share: float
    parameters: int
    trained_parameters: int
    gradient_steps: int
    images: int
    trained: bool
    hooks: list[dict[str, Any]]
    rounding: float | None
    norms: dict[str, float] | None
    warnings: list[str]


def read_marks(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], ...]:
    """The notes (``Edit.info``) of the edits that a model folder carries, the first one applied first.

    Returns:
        Empty where the folder has no mark: nothing is known of an edit.

    Raises:
        UserError: a mark that cannot be read; an edited model must not pass for an unedited one.
    """
    path = Path(folder) / MARK
    if not path.is_file():
        return ()
    try:
        mark = json.loads(path.read_text(encoding="utf-8"))
        if mark["format"] != FORMAT:
            raise ValueError(f"its format is {mark['format']!r}, not {FORMAT!r}")
        edits = mark["edits"]
        if not isinstance(edits, list):
            raise ValueError("edits is not a list of notes")
        for info in edits:
            check_notes(info)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: says that this model was edited, but cannot be read ({error}); export the model again, or delete "
            "the file if you know what the weights are"
        ) from error
    return tuple(edits)


def check_notes(info: Any) -> None:
    """Refuse notes of an edit that have not the types that tables, cards and messages count on (:class:`EditNotes`).

    Raises:
        ValueError: naming the note.
    """
    check_type(info, EditNotes, "an edit's notes")


def write_marks(
    folder: Path, base: Mapping[str, Any], edits: Sequence[Mapping[str, Any]], how: str, file: Mapping[str, Any]
) -> None:
    """Mark a folder as edited.

    Args:
        folder: where the model, LoRA or tensors are.
        base: the unedited model: name, source, revision, family, dtype.
        edits: the notes of the edits, the first one applied first.
        how: ``sum`` or ``sequence``; without meaning for one edit.
        file: what the folder holds: its format, and what is known of it (rank, errors, rounding).
    """
    values = {"format": FORMAT, "written_by": f"erasebench {__version__}"}
    write_json(folder / MARK, values | {"base": dict(base), "how": how, "edits": list(edits), "file": dict(file)})


def edits_on(pipe: Pipeline) -> tuple[dict[str, Any], ...]:
    """The notes of the edits that a pipeline carries now, the first one applied first; empty if it is unedited."""
    return getattr(pipe, _EDITS, ())


def keys_on(pipe: Pipeline) -> tuple[str, ...]:
    """The keys of the edits that were applied to a pipeline since it was loaded, the first one first.

    An edit without a key counts as ``""``; those that its model came with do not count. Where the weights are no longer
    known, there is a sentence in place of a key (:func:`mark_spoiled`).
    """
    return getattr(pipe, _KEYS, ())


def key_on(pipe: Pipeline) -> str | None:
    """One key for what a pipeline carries: empty if it is unedited, that of the edit, or a hash of several edits' keys.

    ``None`` where one of them has no key, or nobody knows what the weights are: no image of it can be told from others.
    """
    keys = keys_on(pipe)
    if not all(key.isalnum() for key in keys):
        return None
    return "".join(keys) if len(keys) < 2 else hashlib.sha256(" ".join(keys).encode()).hexdigest()[:32]


def originals_on(pipe: Pipeline) -> Mapping[str, Tensor]:
    """By name, the weights that a pipeline had before the edits that it carries for a ``with`` block changed them. What is done
    for good, or came with its model, is not in it. Not to be altered."""
    return getattr(pipe, _ORIGINALS, {})


def keep_originals(pipe: Pipeline, originals: Mapping[str, Tensor]) -> None:
    """Say which weights were changed, and what they were; it replaces what was said before."""
    setattr(pipe, _ORIGINALS, originals)


def mark_edited(pipe: Pipeline, edits: Sequence[Mapping[str, Any]], keys: Sequence[str] = ()) -> None:
    """Say which edits a pipeline carries, by their notes and keys; it replaces what was said before."""
    setattr(pipe, _EDITS, tuple(edits))
    setattr(pipe, _KEYS, tuple(keys))


def mark_spoiled(pipe: Pipeline, how: str) -> None:
    """Say that nobody knows any longer what a pipeline's weights are, so that no image is made with it.

    Args:
        how: what happened, e.g. ``altered by eraser x``.
    """
    mark_edited(pipe, (*edits_on(pipe), {"method": how}), (*keys_on(pipe), how))
