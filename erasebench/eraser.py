"""Erasers and edits: what a method is, and the value it returns.

An edit is a set of named weight changes. It is applied to a pipeline for a while and taken back bit for bit, so one
pipeline serves a whole comparison.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from erasebench.concepts import ErasureTask
from erasebench.errors import UserError
from erasebench.targets import named_weight


@dataclass(frozen=True, eq=False)
class Change:
    """The change of one weight ``[out, in]``: dense, or as two factors.

    Attributes:
        delta: ``[out, in]``, or ``None`` when factored.
        left, right: ``[out, r]`` and ``[r, in]``; the change is ``left @ right``. Changes that share their right
            factor should hold the same tensor: it is then saved once.
    """

    delta: Tensor | None = None
    left: Tensor | None = None
    right: Tensor | None = None

    def __post_init__(self) -> None:
        factored = self.left is not None and self.right is not None
        if factored == (self.delta is not None) or (self.left is None) != (self.right is None):
            raise ValueError("a change is either delta, or left and right")
        if factored and self.left.shape[1] != self.right.shape[0]:
            raise ValueError(f"factors do not fit: {list(self.left.shape)} and {list(self.right.shape)}")

    def dense(self) -> Tensor:
        """The change ``[out, in]`` in float64."""
        if self.delta is not None:
            return self.delta.double()
        return self.left.double() @ self.right.double()

    @property
    def shape(self) -> tuple[int, int]:
        """``(out, in)``."""
        if self.delta is not None:
            return tuple(self.delta.shape)
        return (self.left.shape[0], self.right.shape[1])

    @property
    def rank(self) -> int:
        """Inner size of the factors; for a dense change the smaller side (an upper bound)."""
        return min(self.delta.shape) if self.delta is not None else self.right.shape[0]

    def norm(self) -> float:
        """Frobenius norm of the change."""
        if self.delta is not None:
            return torch.linalg.norm(self.delta.double()).item()
        gram = (self.left.double().T @ self.left.double()) * (self.right.double() @ self.right.double().T)
        return gram.sum().clamp_min(0).sqrt().item()

    @property
    def finite(self) -> bool:
        """Whether every number of it is finite."""
        return all(bool(torch.isfinite(t).all()) for t in (self.delta, self.left, self.right) if t is not None)


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
        for name, change in self.changes.items():
            if not change.finite:
                raise UserError(
                    f"{self._method} made a change with NaN or infinite numbers in {name}; "
                    "nothing was applied or saved. Check the eraser's options (alpha, lam, scales) and the model"
                )

    @property
    def _method(self) -> str:
        return f"eraser {self.info['method']}" if "method" in self.info else "the eraser"

    @contextmanager
    def applied(self, pipe: Any) -> Iterator[Any]:
        """Apply the edit to a pipeline inside a ``with`` block; afterwards the weights are as before, bit for bit.

        Weight plus change is computed in float64 on the CPU and rounded once to the weight's own type.

        Raises:
            UserError: a weight is missing or has another shape, or the result is not finite in the weight's type
                (the layer is named). The pipeline is then untouched.
        """
        weights = {name: named_weight(pipe, name) for name in self.changes}
        new = {}
        for name, change in self.changes.items():
            weight = weights[name].detach()
            if tuple(weight.shape) != change.shape:
                raise UserError(
                    f"{name}: the model's weight is {list(weight.shape)}, the edit's {list(change.shape)}; "
                    "the edit was made for another model"
                )
            new[name] = (weight.cpu().double() + change.dense().cpu()).to(weight.dtype)
            if not torch.isfinite(new[name]).all():
                raise UserError(
                    f"{self._method}: {name} is not finite after the edit in {weight.dtype}; "
                    "the run stops. Use dtype=float32, or a weaker edit"
                )
        originals = {name: weight.detach().clone() for name, weight in weights.items()}
        try:
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.copy_(new[name])
            del new
            yield pipe
        finally:
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.copy_(originals[name])

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
            for part in ("delta", "left", "right"):
                tensor = getattr(change, part)
                if tensor is None:
                    continue
                if id(tensor) not in shared:
                    shared[id(tensor)] = f"{name}.{part}"
                    tensors[f"{name}.{part}"] = tensor.detach().cpu().contiguous()
                layout[name][part] = shared[id(tensor)]
        notes = json.dumps(self.info, ensure_ascii=False, indent=1)
        header = {"format": "erasebench edit 1", "layout": json.dumps(layout), "info": notes}
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
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
        """Read an edit back; every tensor and note is as it was saved.

        Raises:
            UserError: no such file, cut off, or not an edit.
        """
        path = Path(path)
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("format") != "erasebench edit 1":
                    raise UserError(f"{path}: a safetensors file, but not an edit written by erasebench")
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            raise UserError(f"{path}: no such edit") from None
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{path}: the edit cannot be read ({error}); delete it and run again to remake it"
            ) from error
        layout = json.loads(header["layout"])
        changes = {
            name: Change(**{part: tensors[key] for part, key in parts.items()}) for name, parts in layout.items()
        }
        return cls(changes, json.loads(header["info"]))


class Eraser(ABC):
    """A method. Subclasses are frozen dataclasses with plain typed fields, one for each option.

    A method implements :meth:`changes`; the caller uses :meth:`edit`. It must not alter the pipeline, and the same
    pipeline and task must give the same changes.

    Class attributes:
        name: short and unique, as in tables.
        version: raised when the same input would give another edit.
        describe: one line for ``erasebench list erasers``.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    describe: ClassVar[str] = ""

    @abstractmethod
    def changes(self, pipe: Any, task: ErasureTask) -> tuple[dict[str, Change], dict[str, Any]]:
        """Work out the edit.

        Args:
            pipe: the pipeline of the unedited model; it must not be altered.
            task: what to erase and what to keep.

        Returns:
            The changes by weight name, and JSON-able notes (tokens, energies, ...) for ``Edit.info``.
        """

    def edit(self, pipe: Any, task: ErasureTask) -> Edit:
        """Make the edit of a task and note how long it took.

        Raises:
            UserError: the task does not suit the method, or its numbers are not finite (the layer is named).
        """
        start = time.perf_counter()
        with torch.no_grad():
            changes, notes = self.changes(pipe, task)
        seconds = time.perf_counter() - start
        touched = sum(named_weight(pipe, name).numel() for name in changes)
        total = sum(p.numel() for p in pipe.unet.parameters()) if getattr(pipe, "unet", None) is not None else 0
        info = {
            "method": self.name,
            "version": self.version,
            "settings": self.settings,
            "task": {"label": task.label, "key": task.key, "kind": task.kind, **asdict(task)},
            "seconds": seconds,
            "weights": len(changes),
            "rank": max((change.rank for change in changes.values()), default=0),
            "share": touched / total if total else 0.0,
            **notes,
        }
        return Edit(changes, json.loads(json.dumps(info)))

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments as JSON values."""
        return {name: _plain(value) for name, value in vars(self).items() if not name.startswith("_")}

    def key(self, model_identity: str, task: ErasureTask) -> str:
        """Hash of all that decides the edit: model, task, method, version and settings. 32 hex digits."""
        text = json.dumps([model_identity, task.key, self.name, self.version, self.settings], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(value: Any) -> Any:
    if isinstance(value, Eraser):
        return {"name": value.name, "version": value.version, "settings": value.settings}
    if is_dataclass(value):
        return {key: _plain(item) for key, item in vars(value).items()}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return [_plain(item) for item in value]


def _replace(partial: Path, path: Path) -> None:
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
