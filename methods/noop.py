"""Control: an edit of size zero that takes the whole path of an edit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from erasebench.concepts import ErasureTask
from erasebench.eraser import Change, Eraser
from erasebench.targets import key_value_weights


@dataclass(frozen=True)
class NoOp(Eraser):
    """Adds zero to every key and value weight.

    Its images must equal the unedited model's exactly. If they do not, applying, restoring or seeding is broken,
    and no other row of the table can be trusted.
    """

    name: ClassVar[str] = "noop"
    describe: ClassVar[str] = "control: adds zero to every key and value weight"

    def changes(self, pipe: Any, task: ErasureTask) -> tuple[dict[str, Change], dict[str, Any]]:
        """One map of tokens for all weights, of rank one, that is zero."""
        weights = key_value_weights(pipe)
        width = next(iter(weights.values())).shape[1]
        zero = torch.zeros(width, 1, dtype=torch.float64)
        return dict.fromkeys(weights, Change(token=zero, right=zero.T.clone())), {}
