"""Edits: what an eraser made, as a value.

An edit is a set of named weight changes. It is applied to a pipeline for a while and taken back bit for bit, so one
pipeline serves a whole comparison; or it is applied for good, to be exported.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from erasebench.edits.change import Change
from erasebench.errors import UserError
from erasebench.files import temporary_beside
from erasebench.models.marks import edits_on, mark_edited
from erasebench.models.targets import named_weight

FORMATS = ("erasebench edit 1", "erasebench edit 2")
"""Headers of edit files; 2 added changes in token form."""


@dataclass(frozen=True, eq=False)
class Edit:
    """What an eraser made: weight changes by name, and notes about them.

    Attributes:
        changes: weight name (``unet.<...>.attn2.to_k.weight``) to change. Empty for the unedited model.
        info: JSON-able notes: method, version, settings, task, seconds, tokens, rank, share of parameters, and
            what the method adds.

    Raises:
        UserError: a change that is not finite; the layer is named.
    """

    changes: Mapping[str, Change]
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known: dict[int, bool] = {}
        for name, change in self.changes.items():
            if id(change) not in known:
                known[id(change)] = change.finite
            if not known[id(change)]:
                raise UserError(
                    f"{self._method} made a change with NaN or infinite numbers in {name}; "
                    "nothing was applied or saved. Check the eraser's options (alpha, lam, scales) and the model"
                )

    @property
    def _method(self) -> str:
        return f"eraser {self.info['method']}" if "method" in self.info else "the eraser"

    def check_fits(self, pipe: Any) -> dict[str, Tensor]:
        """The weights that the edit changes, by name.

        Raises:
            UserError: a weight is missing, has another shape, or is not in this process's memory (offloaded).
        """
        weights = {name: named_weight(pipe, name) for name in self.changes}
        for name, change in self.changes.items():
            weight = weights[name]
            if not change.fits(tuple(weight.shape)):
                raise UserError(
                    f"{name}: the model's weight is {list(weight.shape)}, the edit's {change.shown_shape}; "
                    "the edit was made for another model"
                )
            if weight.is_meta:
                raise UserError(f"{name}: the weight is offloaded; load the model without device_map or offloading")
        return weights

    @contextmanager
    def applied(self, pipe: Any) -> Iterator[float]:
        """Apply the edit to a pipeline inside a ``with`` block; afterwards the weights are as before, bit for bit.

        Weight plus change is computed in float64 on the CPU and rounded once to the weight's own type. The block
        gets what :meth:`apply` returns.

        Raises:
            UserError: a weight is missing or has another shape, or the result is not finite in the weight's type
                (the layer is named). The pipeline is then untouched.
        """
        weights = self.check_fits(pipe)
        originals = {name: weight.detach().clone() for name, weight in weights.items()}
        before = edits_on(pipe)
        try:
            yield self.apply(pipe)
        finally:
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.copy_(originals[name])
            mark_edited(pipe, before)

    @torch.no_grad()
    def apply(self, pipe: Any) -> float:
        """Apply the edit to a pipeline for good, and mark the pipeline as edited (:func:`edits_on`).

        Returns:
            What rounding to a 16-bit weight type takes or adds, as a share of the change (Frobenius norms over all
            weights); 0 for 32-bit weights.

        Raises:
            UserError: it does not fit, or the result is not finite in the weight's type (the layer is named). In
                the second case weights before that layer are already changed; :meth:`applied` takes them back.
        """
        weights = self.check_fits(pipe)
        lost = size = 0.0
        for name, weight in weights.items():
            part = self.changes[name].add_to(weight)
            lost, size = lost + part[0], size + part[1]
            low, high = weight.aminmax()  # NaN in any number is NaN in both; ten times faster than isfinite of each
            if not (torch.isfinite(low) and torch.isfinite(high)):
                raise UserError(
                    f"{self._method}: {name} is not finite after the edit in {weight.dtype}; "
                    "the run stops. Use dtype=float32, or a weaker edit"
                )
        mark_edited(pipe, (*edits_on(pipe), self.info))
        return math.sqrt(lost / size) if size else 0.0

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the edit, atomically, and its notes beside it as ``.json`` for people.

        Args:
            path: ends in ``.safetensors``. The file alone holds everything; the notes are also in its header.

        Returns:
            The path written.

        Raises:
            UserError: the folder cannot be written or is full.
        """
        path = Path(path)
        tensors: dict[str, Tensor] = {}
        shared: dict[int, str] = {}
        layout: dict[str, dict[str, str]] = {}
        for name, change in self.changes.items():
            layout[name] = {}
            for part in ("delta", "left", "right", "token"):
                tensor = getattr(change, part)
                if tensor is None:
                    continue
                if id(tensor) not in shared:
                    shared[id(tensor)] = f"{name}.{part}"
                    tensors[f"{name}.{part}"] = tensor.detach().cpu().contiguous()
                layout[name][part] = shared[id(tensor)]
        notes = json.dumps(self.info, ensure_ascii=False, indent=1)
        header = {"format": FORMATS[-1], "layout": json.dumps(layout), "info": notes}
        partial = temporary_beside(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, partial, metadata=header)
            _replace(partial, path)
            partial.write_text(notes + "\n", encoding="utf-8")
            _replace(partial, path.with_suffix(".json"))
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                partial.unlink()
            raise UserError(
                f"{path}: the edit could not be written ({error}); free space or choose another folder"
            ) from error
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Edit:
        """Read an edit back; every tensor and note is as it was saved, and shared changes are shared again.

        Raises:
            UserError: no such file, cut off, or not an edit.
        """
        path = Path(path)
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("format") not in FORMATS:
                    raise UserError(f"{path}: a safetensors file, but not an edit written by erasebench")
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            raise UserError(f"{path}: no such edit") from None
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{path}: the edit cannot be read ({error}); delete it and run again to remake it"
            ) from error
        layout = json.loads(header["layout"])
        shared: dict[tuple[str, ...], Change] = {}
        changes = {}
        for name, parts in layout.items():
            where = tuple(sorted(parts.values()))
            if where not in shared:
                shared[where] = Change(**{part: tensors[key] for part, key in parts.items()})
            changes[name] = shared[where]
        return cls(changes, json.loads(header["info"]))


def _replace(partial: Path, path: Path) -> None:
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
