"""Erasers: what a method is. It turns a pipeline and a task into an :class:`~erasebench.edits.edit.Edit`, a value."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import sys
import time
import traceback
from abc import ABC
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from erasebench.concepts import ErasureTask
from erasebench.edits.change import Change
from erasebench.edits.edit import Edit
from erasebench.edits.hook import Hook
from erasebench.edits.unaltered import unaltered
from erasebench.edits.work import Work
from erasebench.errors import UserError
from erasebench.models.marks import edits_on
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import named_weight

if TYPE_CHECKING:
    from erasebench.models.load import Model

__all__ = ["Change", "Edit", "Eraser", "Hook", "Work"]

ALGEBRA_VERSION = "1"
"""Part of the key of every edit. Raise it when the code that erasers share would give another edit for the same input:
how texts are encoded and which token rows are taken (``models/text*``), which weights are found to read text
(``models/targets``), and the shared solver (``methods/closed_form/linear``, ``preserve``). A change in one eraser alone
raises the version of that eraser."""


class Eraser(ABC):
    """A method. Subclasses are frozen dataclasses with plain typed fields, one for each option.

    A method that only changes weights implements :meth:`changes`; one that also acts while images are sampled, or that
    trains, implements :meth:`make`. The caller uses :meth:`edit`. A method must not alter the pipeline, and the same
    pipeline and task must give the same edit, as far as the machine repeats: an edit is kept as first made.

    Class attributes:
        name: short and unique, as in tables.
        version: raised when the same input would give another edit.
        describe: one line for ``erasebench list erasers``.
        unsupported: families of models (sd1, sd2, sdxl, sd3, flux) that it cannot edit, and why.
        partly: families of models of which it cannot edit some, and which; :meth:`refuses` tells them apart.
        trains: whether it needs gradients, and :class:`~erasebench.edits.work.Work`.
        control: whether it may change nothing.
        forgot: whether its edits leave nothing of any concept in the network, so that no attack may succeed on them.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    describe: ClassVar[str] = ""
    unsupported: ClassVar[Mapping[str, str]] = {}
    partly: ClassVar[Mapping[str, str]] = {}
    trains: ClassVar[bool] = False
    control: ClassVar[bool] = False
    forgot: ClassVar[bool] = False

    def changes(self, pipe: Pipeline, task: ErasureTask) -> tuple[dict[str, Change], dict[str, Any]]:
        """Work out the changes of weights.

        Args:
            pipe: the pipeline of the unedited model; it must not be altered.
            task: what to erase and what to keep.

        Returns:
            The changes by weight name, and JSON-able notes (tokens, energies, ...) for ``Edit.info``.
        """
        raise NotImplementedError(f"{type(self).__name__} implements neither changes nor make")

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """Work out the edit: changes, hooks and notes. By default the changes alone.

        Args:
            pipe: the pipeline of the unedited model; it must not be altered.
            task: what to erase and what to keep.
            work: the means of a training; there wherever ``trains`` is true.
        """
        changes, notes = self.changes(pipe, task)
        return Edit(changes, {"method": self.name, **notes})

    def edit(self, pipe: Pipeline, task: ErasureTask, composing: bool = False, work: Work | None = None) -> Edit:
        """Make the edit of a task and note how long it took.

        Args:
            pipe: the pipeline; unedited unless ``composing``.
            task: what to erase and what to keep.
            composing: the edit is meant to come on top of what the pipeline already carries.
            work: the means of a training; only a method that trains needs it.

        Raises:
            UserError: the task does not suit the method, its numbers are not finite (the layer is named), it failed (the
                error is named), it altered the pipeline, it changes nothing and is no control, or the pipeline is
                already edited.
        """
        there = edits_on(pipe)
        if there and not composing:
            raise UserError(
                f"eraser {self.name}: the model is already edited by {', '.join(describe_edit(info) for info in there)}; "
                "start from the unedited model, or say that you compose (method=compose, or --compose)"
            )
        if self.trains and work is None:
            raise UserError(f"eraser {self.name}: it trains, and needs a folder for it; give Eraser.edit a work")
        self.check(pipe, task)
        start = time.perf_counter()
        try:
            with (
                unaltered(pipe, f"eraser {self.name}", f"the edit of {task.label}"),
                torch.set_grad_enabled(self.trains),
            ):
                start = time.perf_counter()
                made = self.make(pipe, task, work)
                seconds = time.perf_counter() - start
            info = self._notes(pipe, task, made, seconds)
        except UserError:
            raise
        except Exception as error:  # any: what a method does inside is its own; the cause stays attached
            raise UserError(
                f"eraser {self.name} failed on the task {task.label}: {type(error).__name__}: {error} ({_place(error)})"
            ) from error
        unsaid = [hook.name for hook in made.hooks if type(hook) not in self.acts()]
        if unsaid:
            raise UserError(
                f"eraser {self.name}: its edit has a hook {unsaid[0]}, which its acts() does not name; what cannot work is "
                "refused by that before any work"
            )
        if not (made.changes or made.hooks or self.control):
            raise UserError(
                f"eraser {self.name}: its edit of {task.label} changes no weight and has no hook, so its images would be "
                "the unedited model's; check its options and the model"
            )
        return Edit(made.changes, info, made.hooks)

    def _notes(self, pipe: Pipeline, task: ErasureTask, made: Edit, seconds: float) -> dict[str, Any]:
        info = {
            "method": self.name,
            "version": self.version,
            "settings": self.settings,
            "task": {"label": task.label, "key": task.key, "kind": task.kind, **asdict(task)},
            "seconds": seconds + made.info.get("seconds_before", 0.0),  # of a training that was taken up
            "trained": self.trains,
            "weights": len(made.changes),
            "rank": max((change.rank for change in made.changes.values()), default=0),
            "parameters": sum(named_weight(pipe, name).numel() for name in made.changes),
            "share": _share(pipe, made.changes),
            **({"hooks": [{"name": hook.name, "version": hook.version} for hook in made.hooks]} if made.hooks else {}),
            **made.info,
        }
        return json.loads(json.dumps(info))

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments as JSON values."""
        return settings_of(self)

    def key(self, model_identity: str, task: ErasureTask) -> str:
        """Hash of all that decides the edit: model, task, method, version and settings, and of an eraser that is not ours
        its source, whose author changes it more often than its version. 32 hex digits."""
        return self.key_of(model_identity, task, self.settings)

    def key_of(self, model_identity: str, task: ErasureTask, deciding: Mapping[str, Any]) -> str:
        """:meth:`key` where something else than the settings decides the edit: what is in a file, not its name; the key of
        an eraser that is a part, not its settings."""
        parts = [model_identity, task.key, self.name, self.version, deciding, ALGEBRA_VERSION, *source_of(type(self))]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]

    def refuses(self, model: Model) -> str | None:
        """Why it cannot edit a loaded model, or ``None`` if it can."""
        return self.unsupported.get(model.family)

    def absent(self, task: ErasureTask) -> str | None:
        """Why a run is to go on without it where it has nothing for a task, with the cure; ``None``, as by default, if it is
        there, or is to be refused by its :meth:`check`."""
        return None

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:  # noqa: B027 (most refuse none)
        """Refuse, before any work, a task that it could not do on a pipeline; by default none.

        Raises:
            UserError: whatever the task lacks, or has too much of.
        """

    def acts(self) -> tuple[type[Hook], ...]:
        """The kinds of hooks that its edits have with these settings, in order; by default none."""
        return ()


@functools.cache
def source_of(kind: type) -> tuple[str, ...]:
    """The hash of the file that defines a plugin of somebody's own, or in a notebook of its class; nothing for one of ours."""
    if kind.__module__.startswith("erasebench."):
        return ()
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    try:
        source = Path(file).read_bytes() if file else inspect.getsource(kind).encode()
    except (OSError, TypeError):  # typed into a shell: nobody can read it again
        return ()
    return (hashlib.sha256(source).hexdigest(),)


def settings_of(plugin: Any) -> dict[str, Any]:
    """The arguments that an eraser or attack was constructed with, as JSON values."""
    names = [entry.name for entry in fields(plugin)] if is_dataclass(plugin) else list(vars(plugin))
    return {name: _setting_value(getattr(plugin, name)) for name in names if not name.startswith("_")}


def describe_edit(info: Mapping[str, Any]) -> str:
    """An edit in a few words, for messages: ``uce (church)``."""
    return f"{info.get('method', 'an eraser')} ({info.get('task', {}).get('label', 'unknown concepts')})"


def _place(error: BaseException) -> str:
    """Where an error was raised: ``cure.py, line 40``."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "no place known"


def _share(pipe: Pipeline, changes: Mapping[str, Change]) -> float:
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
