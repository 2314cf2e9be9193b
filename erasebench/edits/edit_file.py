"""The file of an edit: one safetensors file of tensors and JSON notes. Nothing in it is ever run.

The header holds ``format``, ``key`` (of the edit, empty if no store holds it), ``layout`` (weight name to the tensors of
its change), ``hooks`` (name, version, settings and tensors of each), ``info`` (the notes), and ``sha256`` of all that and
of the tensors. So a flipped bit, or a file under the name of another edit, does not pass for a result.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from erasebench.edits.change import PARTS, Change, add_tensor
from erasebench.edits.edit import Edit
from erasebench.edits.hook import Hook, hook_class
from erasebench.errors import Damaged, UserError
from erasebench.files import give_name, temporary_beside, write_text
from erasebench.models.marks import check_notes

FORMATS = ("erasebench edit 1", "erasebench edit 2", "erasebench edit 3")
"""Headers of edit files; 2 added changes in token form, 3 new weights, hooks, the key and the hash."""

CHECKED = ("format", "key", "layout", "hooks", "info")
"""The entries of a header that the hash covers."""


def write_edit(path: Path, edit: Edit, keep_first: bool = False) -> Path:
    """Write an edit, atomically, and its notes beside it as ``.json`` for people.

    Args:
        path: ends in ``.safetensors``. The file alone holds everything.
        edit: the edit; tensors that changes share are written once.
        keep_first: leave an edit that has the name already, also one that another process has just written.

    Returns:
        The path written.

    Raises:
        UserError: the folder cannot be written or is full.
    """
    tensors: dict[str, Tensor] = {}
    shared: dict[int, str] = {}

    def stored(name: str, tensor: Tensor) -> str:
        """The name that a tensor has in the file."""
        if id(tensor) not in shared:
            shared[id(tensor)] = name
            whole = tensor.detach().cpu().contiguous()
            # A part of a larger tensor would be written with all of it, or refused as shared memory.
            tensors[name] = whole if whole.untyped_storage().nbytes() == whole.nbytes else whole.clone()
        return shared[id(tensor)]

    layout = {
        name: {
            part: stored(f"{name}.{part}", tensor) for part in PARTS if (tensor := getattr(change, part)) is not None
        }
        for name, change in edit.changes.items()
    }
    hooks = [
        {
            "name": hook.name,
            "version": hook.version,
            "settings": hook.settings,
            "tensors": {name: stored(f"hook {i}.{name}", tensor) for name, tensor in hook.tensors.items()},
        }
        for i, hook in enumerate(edit.hooks)
    ]
    notes = json.dumps(edit.info, ensure_ascii=False, indent=1)
    header = {
        "format": FORMATS[-1],
        "key": edit.key,
        "layout": json.dumps(layout),
        "hooks": json.dumps(hooks, allow_nan=False),
        "info": notes,
    }
    header["sha256"] = _sha256(header, tensors)
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            mode = os.stat(file.fileno()).st_mode
        save_file(tensors, temporary, metadata=header)
        temporary.chmod(mode)  # safetensors lets nobody else read its files; a store may be shared
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        if give_name(temporary, path, keep_first):
            write_text(path.with_suffix(".json"), notes + "\n")
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            temporary.unlink()
        raise UserError(
            f"{path}: the edit could not be written ({error}); free space or choose another folder"
        ) from error
    return path


def read_edit(path: Path, key: str = "") -> Edit:
    """Read an edit back; every tensor and note is as it was saved, and shared changes are shared again.

    Args:
        path: of the file. Files of older formats, which have no key and no hash, are read as they are.
        key: of the edit that must be in it; not looked at if empty.

    Raises:
        Damaged: cut off, changed, not an edit, or the edit of another key.
        UserError: no such file, written by a newer version, or with a hook of a plugin that is not here.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") not in FORMATS:
                _refuse_format(path, header.get("format", ""))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: no such edit") from None
    except OSError as error:
        raise UserError(f"{path}: the edit cannot be read now ({error}); check the disk and try again") from error
    except SafetensorError as error:
        raise Damaged(path, f"the edit cannot be read: {error}") from error
    signed = header["format"] not in FORMATS[:2] or "sha256" in header  # a flipped bit may make a 2 of the 3
    if signed and header.get("sha256") != _sha256(header, tensors):
        raise Damaged(path, "its numbers or notes are not those that were saved")
    own = header.get("key", "")
    if key and own and own != key:
        raise Damaged(path, f"it is the edit {own}, not {key}")
    try:
        changes, info = _changes(header, tensors), json.loads(header["info"])
        hooks = json.loads(header["hooks"]) if signed else []
        check_notes(info)
        return Edit(changes, info, tuple(_hook(path, entry, tensors) for entry in hooks), own or key)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(path, f"not a whole edit: {type(error).__name__}: {error}") from error


def _refuse_format(path: Path, name: str) -> None:
    if name.startswith("erasebench edit "):
        raise UserError(f"{path}: written by a newer erasebench ({name}; known here: {FORMATS[-1]}); update erasebench")
    raise Damaged(path, "a safetensors file, but not an edit written by erasebench")


def _sha256(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256(json.dumps([header.get(name) for name in CHECKED]).encode())
    for name in sorted(tensors):
        add_tensor(total, name, tensors[name])
    return total.hexdigest()


def _changes(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Change]:
    shared: dict[tuple[tuple[str, str], ...], Change] = {}
    changes = {}
    for name, parts in json.loads(header["layout"]).items():
        where = tuple(sorted(parts.items()))
        if where not in shared:
            shared[where] = Change(**{part: tensors[stored] for part, stored in parts.items()})
        changes[name] = shared[where]
    return changes


def _hook(path: Path, entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Hook:
    """A hook of a class that is here. What the file says chooses among those, and is never imported."""
    kind = hook_class(entry["name"])
    if kind is None:
        raise UserError(
            f"{path}: it has a hook {entry['name']!r}, which no eraser here knows; name the plugin it comes from "
            "(plugins=[...]), or update erasebench"
        )
    if kind.version != entry["version"]:
        raise UserError(
            f"{path}: its hook {entry['name']} is of version {entry['version']}, and version {kind.version} is here; make "
            "the edit again, or use the erasebench that made it"
        )
    if not isinstance(entry["settings"], dict):
        raise ValueError("settings of a hook are not a mapping")
    return kind(entry["settings"], {name: tensors[stored] for name, stored in entry["tensors"].items()})
