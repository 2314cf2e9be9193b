"""Adapters of low rank beside the layers of a network, to be trained: parameters by name, and what they add.

Not peft's: it puts modules of its own in the layers' places (their names change under it, and ``torch.no_grad`` passes without
adapters need its switch on every layer), and SPM's gates for each image would need a layer of our own in it all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from erasebench.methods.adapters.beside import Addition, rank_one


def new_adapters(
    network: Module, layers: Sequence[str], numbers: torch.Generator, normal: bool = False, rank: int = 1
) -> dict[str, Parameter]:
    """One adapter a layer, of rank one unless said otherwise, which adds nothing yet.

    Args:
        network: whose layers they are for.
        layers: names of linear layers and convolutions.
        numbers: the random numbers, on the CPU.
        normal: ``down`` is drawn from a normal distribution of deviation 1, as LoRAs of diffusers of rank one are, and
            not evenly between ``-b`` and ``b`` with ``b = 1 / sqrt(inputs)``.
        rank: k.

    Returns:
        ``down.<layer>`` [k, in] (a convolution's [k, in, kernel, kernel]) and ``up.<layer>`` [k, out], zeros; float32, on
        the network's device.
    """
    made = {}
    for name in layers:
        weight: Tensor = network.get_submodule(name).weight  # type: ignore[assignment]
        shape = (rank, *weight.shape[1:])
        if normal:
            down = torch.randn(shape, generator=numbers)
        else:
            down = (2 * torch.rand(shape, generator=numbers) - 1) / weight[0].numel() ** 0.5
        made[f"down.{name}"] = Parameter(down.to(weight.device))
        made[f"up.{name}"] = Parameter(torch.zeros(rank, len(weight), device=weight.device))
    return made


def layers_in(parameters: Mapping[str, Any]) -> list[str]:
    """The layers that have an adapter."""
    return [name.removeprefix("up.") for name in parameters if name.startswith("up.")]


def additions(parameters: Mapping[str, Tensor]) -> dict[str, Addition]:
    """What the adapters add, for :func:`erasebench.methods.adapters.beside.beside`."""

    def addition(name: str) -> Addition:
        down, up = parameters[f"down.{name}"], parameters[f"up.{name}"]
        return lambda layer, inputs, output: rank_one(layer, inputs, down, up)

    return {name: addition(name) for name in layers_in(parameters)}
