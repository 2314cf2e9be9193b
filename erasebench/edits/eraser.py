"""Erasers: what a method is. It turns a pipeline and a task into an :class:`~erasebench.edits.edit.Edit`, a value."""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, ClassVar

import torch

from erasebench.concepts import ErasureTask
from erasebench.edits.change import Change
from erasebench.edits.edit import Edit
from erasebench.errors import UserError
from erasebench.models.marks import edits_on
from erasebench.models.targets import named_weight

__all__ = ["Change", "Edit", "Eraser"]


class Eraser(ABC):
    """A method. Subclasses are frozen dataclasses with plain typed fields, one for each option.

    A method implements :meth:`changes`; the caller uses :meth:`edit`. It must not alter the pipeline, and the same
    pipeline and task must give the same changes.

    Class attributes:
        name: short and unique, as in tables.
        version: raised when the same input would give another edit.
        describe: one line for ``erasebench list erasers``.
        unsupported: families of models (sd1, sd2, sdxl, sd3, flux) that it cannot edit, and why.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    describe: ClassVar[str] = ""
    unsupported: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def changes(self, pipe: Any, task: ErasureTask) -> tuple[dict[str, Change], dict[str, Any]]:
        """Work out the edit.

        Args:
            pipe: the pipeline of the unedited model; it must not be altered.
            task: what to erase and what to keep.

        Returns:
            The changes by weight name, and JSON-able notes (tokens, energies, ...) for ``Edit.info``.
        """

    def edit(self, pipe: Any, task: ErasureTask, composing: bool = False) -> Edit:
        """Make the edit of a task and note how long it took.

        Args:
            pipe: the pipeline; unedited unless ``composing``.
            task: what to erase and what to keep.
            composing: the edit is meant to come on top of what the pipeline already carries.

        Raises:
            UserError: the task does not suit the method, its numbers are not finite (the layer is named), or the
                pipeline is already edited.
        """
        there = edits_on(pipe)
        if there and not composing:
            raise UserError(
                f"eraser {self.name}: the model is already edited by {', '.join(describe_edit(info) for info in there)}; "
                "start from the unedited model, or say that you compose (method=compose, or --compose)"
            )
        start = time.perf_counter()
        with torch.no_grad():
            changes, notes = self.changes(pipe, task)
        seconds = time.perf_counter() - start
        info = {
            "method": self.name,
            "version": self.version,
            "settings": self.settings,
            "task": {"label": task.label, "key": task.key, "kind": task.kind, **asdict(task)},
            "seconds": seconds,
            "weights": len(changes),
            "rank": max((change.rank for change in changes.values()), default=0),
            "share": _share(pipe, changes),
            **notes,
        }
        return Edit(changes, json.loads(json.dumps(info)))

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments as JSON values."""
        return settings_of(self)

    def key(self, model_identity: str, task: ErasureTask) -> str:
        """Hash of all that decides the edit: model, task, method, version and settings. 32 hex digits."""
        text = json.dumps([model_identity, task.key, self.name, self.version, self.settings], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def settings_of(plugin: Any) -> dict[str, Any]:
    """The arguments that an eraser or attack was constructed with, as JSON values."""
    names = [entry.name for entry in fields(plugin)] if is_dataclass(plugin) else list(vars(plugin))
    return {name: _setting_value(getattr(plugin, name)) for name in names if not name.startswith("_")}


def describe_edit(info: Mapping[str, Any]) -> str:
    """An edit in a few words, for messages: ``uce (church)``."""
    return f"{info.get('method', 'an eraser')} ({info.get('task', {}).get('label', 'unknown concepts')})"


def _share(pipe: Any, changes: Mapping[str, Change]) -> float:
    """The changed weights as a share of the parameters of the parts that hold them (UNet, text encoder)."""
    parts = {name.partition(".")[0] for name in changes}
    total = sum(p.numel() for part in parts for p in getattr(pipe, part).parameters())
    return sum(named_weight(pipe, name).numel() for name in changes) / total if total else 0.0


def _setting_value(value: Any) -> Any:
    if isinstance(value, Eraser):
        return {"name": value.name, "version": value.version, "settings": value.settings}
    if is_dataclass(value):
        return {key: _setting_value(item) for key, item in vars(value).items()}
    if isinstance(value, Mapping):
        return {str(key): _setting_value(item) for key, item in value.items()}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return [_setting_value(item) for item in value]
