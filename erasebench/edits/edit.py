"""Edits: what an eraser made, as a value.

An edit is a set of named weight changes, and of hooks that act while images are sampled. It is applied to a pipeline for
a while and taken back bit for bit, so one pipeline serves a whole comparison; or its changes are applied for good, to be
exported.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from erasebench.edits.change import PARTS, Change, add_tensor
from erasebench.edits.hook import Hook, check_places, put_on
from erasebench.errors import UserError
from erasebench.models.marks import edits_on, keep_originals, keys_on, mark_edited, originals_on
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import named_weight


@dataclass(frozen=True, eq=False, repr=False)
class Edit:
    """What an eraser made: weight changes by name, notes about them, and hooks.

    Attributes:
        changes: weight name (``unet.<...>.attn2.to_k.weight``) to change. Empty for the unedited model.
        info: JSON-able notes: method, version, settings, task, seconds, tokens, rank, share of parameters, and
            what the method adds.
        hooks: what acts while images are sampled, in order.
        key: what names the edit in a store and in recipes (``Eraser.key``); empty for one that no store holds.

    Raises:
        UserError: a change or a hook that is not finite (the layer is named), or two hooks that take the same place.
    """

    changes: Mapping[str, Change]
    info: dict[str, Any] = field(default_factory=dict)
    hooks: tuple[Hook, ...] = ()
    key: str = ""

    def __post_init__(self) -> None:
        finite: dict[int, bool] = {}
        for name, change in self.changes.items():
            if id(change) not in finite:
                finite[id(change)] = change.finite
            if not finite[id(change)]:
                raise UserError(
                    f"{self._method} made a change with NaN or infinite numbers in {name}; "
                    "nothing was applied or saved. Check the eraser's options (alpha, lam, scales) and the model"
                )
        check_places(self.hooks)
        for hook in self.hooks:
            for name, tensor in hook.tensors.items():
                if not torch.isfinite(tensor).all():
                    raise UserError(
                        f"{self._method} made a hook {hook.name} with NaN or infinite numbers in {name}; nothing was "
                        "applied or saved. Check the eraser's options and the model"
                    )

    def __repr__(self) -> str:
        what = [f"{len(self.changes)} weights", *(hook.name for hook in self.hooks)]
        task = self.info.get("task")
        of = f" of {task['label']}" if isinstance(task, dict) and "label" in task else ""
        return (
            f"<Edit {self.key[:12] or 'without a key'}: {self.info.get('method', 'an eraser')}{of}, {', '.join(what)}>"
        )

    @property
    def _method(self) -> str:
        return f"eraser {self.info['method']}" if "method" in self.info else "the eraser"

    def digest(self) -> str:
        """Hash of what it does to a model, whatever is noted of it: 32 hex digits, a key for an edit that no store holds."""
        total = hashlib.sha256()
        for name in sorted(self.changes):
            for part in PARTS:
                if (tensor := getattr(self.changes[name], part)) is not None:
                    add_tensor(total, f"{name}.{part}", tensor)
        for hook in self.hooks:
            total.update(json.dumps([hook.name, hook.version, hook.settings], sort_keys=True).encode())
            for name in sorted(hook.tensors):
                add_tensor(total, name, hook.tensors[name])
        return total.hexdigest()[:32]

    def check_fits(self, pipe: Pipeline) -> dict[str, Tensor]:
        """The weights that the edit changes, by name.

        Raises:
            UserError: a weight is missing, has another shape, or is not in this process's memory (offloaded).
        """
        weights: dict[str, Tensor] = {name: named_weight(pipe, name) for name in self.changes}
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
    def applied(self, pipe: Pipeline) -> Iterator[float]:
        """Apply the edit to a pipeline inside a ``with`` block; afterwards the weights are as before, bit for bit.

        Weight plus change is computed in float64 on the CPU and rounded once to the weight's own type. The hooks are
        installed, and whoever samples with the pipeline calls them (:func:`erasebench.edits.hook.hooks_on`). The
        pipeline is marked with the edit's key (:func:`erasebench.models.marks.keys_on`). The block gets what
        :meth:`apply` returns.

        Raises:
            UserError: a weight is missing or has another shape, or the result is not finite in the weight's type
                (the layer is named). The pipeline is then untouched.
        """
        weights = self.check_fits(pipe)
        originals = {name: weight.detach().clone() for name, weight in weights.items()}
        before, earlier = (edits_on(pipe), keys_on(pipe)), originals_on(pipe)
        keep_originals(pipe, {**originals, **earlier})
        try:
            rounding = self._change(pipe, weights)
            with put_on(self.hooks, pipe):
                yield rounding
        finally:
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.copy_(originals[name])
            mark_edited(pipe, *before)
            keep_originals(pipe, earlier)

    def apply(self, pipe: Pipeline) -> float:
        """Apply the edit to a pipeline for good, and mark the pipeline as edited (:func:`edits_on`).

        Returns:
            What rounding to a 16-bit weight type takes or adds, as a share of the change (Frobenius norms over all
            weights); 0 for 32-bit weights.

        Raises:
            UserError: it has hooks, which no weights can hold; it does not fit; or the result is not finite in the
                weight's type (the layer is named). In the last case weights before that layer are already changed;
                :meth:`applied` takes them back.
        """
        self.check_weights_alone("it cannot be applied for good")
        return self._change(pipe, self.check_fits(pipe))

    def check_weights_alone(self, so: str) -> None:
        """Refuse an edit that is more than weights.

        Args:
            so: what cannot be done with it.

        Raises:
            UserError: it has hooks; they are named.
        """
        if self.hooks:
            names = " and ".join(dict.fromkeys(hook.name for hook in self.hooks))
            raise UserError(
                f"{self._method}: a part of this edit acts while images are sampled ({names}) and is in no weights, so "
                f"{so}; measure it with erasebench run, which installs it"
            )

    @torch.no_grad()
    def _change(self, pipe: Pipeline, weights: Mapping[str, Tensor]) -> float:
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
        mark_edited(pipe, (*edits_on(pipe), self.info), (*keys_on(pipe), self.key))
        return math.sqrt(lost / size) if size else 0.0

    def save(self, path: str | os.PathLike[str], keep_first: bool = False) -> Path:
        """Write the edit; see :func:`erasebench.edits.edit_file.write_edit`."""
        from erasebench.edits.edit_file import write_edit  # it needs Edit

        return write_edit(Path(path), self, keep_first)

    @classmethod
    def load(cls, path: str | os.PathLike[str], key: str = "") -> Edit:
        """Read an edit back; see :func:`erasebench.edits.edit_file.read_edit`."""
        from erasebench.edits.edit_file import read_edit

        return read_edit(Path(path), key)
