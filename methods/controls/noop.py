"""Control: an edit of size zero that takes the whole path of an edit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Change, Eraser
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import text_inputs


@dataclass(frozen=True)
class NoOp(Eraser):
    """Adds zero to every weight that reads text (keys and values of a UNet).

    Its images must equal the unedited model's exactly. If they do not, applying, restoring or seeding is broken,
    and no other row of the table can be trusted.
    """

    name: ClassVar[str] = "noop"
    describe: ClassVar[str] = "control: adds zero to every weight that reads text"
    control: ClassVar[bool] = True

    def changes(self, pipe: Pipeline, task: ErasureTask) -> tuple[dict[str, Change], dict[str, Any]]:
        """For each text input, one map of tokens for all its weights, of rank one, that is zero."""
        made: dict[str, Change] = {}
        for part in text_inputs(pipe):
            zero = torch.zeros(part.width, 1, dtype=torch.float64)
            made |= dict.fromkeys(part.weights, Change(token=zero, right=zero.T.clone()))
        return made, {}
