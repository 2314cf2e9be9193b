"""Checkpoints of a training: what was trained so far, Adam's moments and the losses, so that a kill costs little."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import Parameter

from erasebench.files import write_atomic

log = logging.getLogger(__name__)

CHECKPOINTS = 50
"""How many are written in one training, at most: a kill costs a fiftieth of it."""

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps for each parameter."""


class Checkpoints:
    """The checkpoint of one training, in one file that is whole at any moment.

    Args:
        folder: of the training alone (:attr:`erasebench.edits.work.Work.folder`).
        parameters: what is trained, by name.
        optimizer: Adam over these parameters.
        iterations: steps of the whole training.
        kept: further tensors that the training changes in place, by name.
    """

    def __init__(
        self,
        folder: Path,
        parameters: Mapping[str, Parameter],
        optimizer: Any,
        iterations: int,
        kept: Mapping[str, Tensor],
    ) -> None:
        self.path = folder / "checkpoint.safetensors"
        self.parameters, self.optimizer, self.kept = parameters, optimizer, kept
        self.every = -(-iterations // CHECKPOINTS)
        self.seconds_before = 0.0
        """How long the steps took that need not be done again."""

    def save(self, losses: list[float], seconds: float) -> None:
        """Write one if it is time: after every fiftieth of the steps.

        Args:
            losses: of all steps so far.
            seconds: that they took.

        Raises:
            UserError: the folder is full or not writable.
        """
        if len(losses) % self.every:
            return
        tensors: dict[str, Tensor] = {
            "losses": torch.tensor(losses, dtype=torch.float64),
            "seconds": torch.tensor([seconds], dtype=torch.float64),
        }
        tensors |= {f"kept.{name}": tensor.detach().cpu().clone() for name, tensor in self.kept.items()}
        for name, parameter in self.parameters.items():
            tensors[f"value.{name}"] = parameter.detach().cpu().clone()
            for moment in MOMENTS:
                tensors[f"{moment}.{name}"] = self.optimizer.state[parameter][moment].cpu().clone()
        write_atomic(self.path, save(tensors))

    def resume(self) -> list[float]:
        """Take up the last checkpoint; returns the losses of the steps that need not be done again.

        One that cannot be read, or is of another network, is passed over with a warning.
        """
        try:
            tensors = load(self.path.read_bytes())
            values = {name: tensors[f"value.{name}"] for name in self.parameters}
            kept = {name: tensors[f"kept.{name}"] for name in self.kept}
            moments = {name: {moment: tensors[f"{moment}.{name}"] for moment in MOMENTS} for name in self.parameters}
            losses = tensors["losses"].tolist()
            seconds = tensors["seconds"].item()
        except FileNotFoundError:
            return []
        except (SafetensorError, KeyError) as error:
            log.warning("%s cannot be used (%s); the training begins anew", self.path, error)
            return []
        with torch.no_grad():
            for name, tensor in self.kept.items():
                tensor.copy_(kept[name])
            for name, parameter in self.parameters.items():
                parameter.copy_(values[name])
                # Adam counts its steps on the CPU and keeps the rest beside the parameter.
                step, *rest = moments[name].values()
                self.optimizer.state[parameter] = dict(
                    zip(MOMENTS, (step, *(moment.to(parameter) for moment in rest)), strict=True)
                )
        self.seconds_before = seconds
        log.info("training goes on after %d steps (%s)", len(losses), self.path)
        return losses
