"""Checkpoints of a training: what was trained so far, the optimizer's state and the losses, so that a kill costs little."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Parameter

from erasebench.errors import UserError
from erasebench.files import written_whole

log = logging.getLogger(__name__)

CHECKPOINTS = 50
"""How many are written in one training, at most: a kill costs a fiftieth of it."""


class Checkpoints:
    """The checkpoint of one training, in one file that is whole at any moment.

    Args:
        folder: of the training alone (:attr:`erasebench.edits.work.Work.folder`).
        parameters: what is trained, by name.
        optimizer: over these parameters; what it keeps of each is tensors or numbers.
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
        # Written from where they lie: a copy of a whole network in training would double the memory that it takes.
        tensors |= {f"kept.{name}": tensor.detach() for name, tensor in self.kept.items()}
        for name, parameter in self.parameters.items():
            tensors[f"value.{name}"] = parameter.detach()
            for entry, value in self.optimizer.state[parameter].items():
                tensors[f"state.{entry}.{name}"] = torch.as_tensor(value)
        try:
            with written_whole(self.path) as temporary:
                save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)
        except SafetensorError as error:
            raise UserError(
                f"{self.path}: the checkpoint could not be written ({error}); free some space and run the same command "
                "again, what was finished is kept"
            ) from error

    def resume(self) -> list[float]:
        """Take up the last checkpoint; returns the losses of the steps that need not be done again.

        One that cannot be read, or is of another network, is passed over with a warning.
        """
        try:
            with safe_open(self.path, framework="pt") as file:
                names = set(file.keys())
                targets: dict[str, Tensor] = {f"value.{name}": parameter for name, parameter in self.parameters.items()}
                targets |= {f"kept.{name}": tensor for name, tensor in self.kept.items()}
                for name, tensor in targets.items():
                    if name not in names or file.get_slice(name).get_shape() != list(tensor.shape):
                        raise KeyError(name)
                losses, seconds = (file.get_tensor(name) for name in ("losses", "seconds"))
                with torch.no_grad():
                    for name, tensor in targets.items():
                        tensor.copy_(file.get_tensor(name))
                for key in names:
                    if key.startswith("state."):
                        _, entry, name = key.split(".", 2)
                        value, parameter = file.get_tensor(key), self.parameters[name]
                        # Optimizers count their steps on the CPU and keep the rest beside the parameter.
                        self.optimizer.state[parameter][entry] = value.to(parameter.device) if value.ndim else value
        except FileNotFoundError:
            return []
        except (SafetensorError, KeyError) as error:
            log.warning("%s cannot be used (%s); the training begins anew", self.path, error)
            return []
        self.seconds_before = seconds.item()
        log.info("training goes on after %d steps (%s)", len(losses), self.path)
        return losses.tolist()
