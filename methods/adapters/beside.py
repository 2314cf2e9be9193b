"""What stands beside the layers of a network: added to their outputs while it is installed, and the weights untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Conv2d, Module

Addition = Callable[[Any, Tensor, Tensor], Tensor]
"""What is added to a layer's output, from the layer, its first input and its output."""


@contextmanager
def beside(network: Module, additions: Mapping[str, Addition]) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Add to the outputs of layers for a ``with`` block.

    Args:
        network: whose layers they are.
        additions: by the layer's name in the network.

    Yields:
        A context manager in which nothing is added: the network as it was.
    """
    adding = True

    @contextmanager
    def without() -> Iterator[None]:
        nonlocal adding
        adding = False
        try:
            yield
        finally:
            adding = True

    def hook_of(addition: Addition) -> Callable[[Module, tuple[Tensor, ...], Tensor], Tensor]:
        def add(layer: Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + addition(layer, inputs[0], output) if adding else output

        return add

    with ExitStack() as stack:
        for name, addition in additions.items():
            stack.callback(network.get_submodule(name).register_forward_hook(hook_of(addition)).remove)
        yield without


def rank_one(layer: Any, inputs: Tensor, down: Tensor, up: Tensor, gates: Tensor | None = None) -> Tensor:
    """What k rank-one adapters of a layer add to its output: ``sum_k g_k (d_k * x) u_k``.

    Args:
        layer: a Linear, or a Conv2d whose stride, padding and dilation the adapters share.
        inputs: x, [n, ..., in] or [n, in, height, width].
        down: d, [k, in], or [k, in, kernel, kernel] of a convolution.
        up: u, [k, out].
        gates: g, [n, k]; ``None`` is 1 everywhere.
    """
    if isinstance(layer, Conv2d):
        inner = torch.nn.functional.conv2d(inputs, down, None, layer.stride, layer.padding, layer.dilation)
        inner = inner if gates is None else inner * gates[:, :, None, None]
        return torch.einsum("nkhw,ko->nohw", inner, up)
    inner = inputs @ down.T
    if gates is not None:
        inner = inner * gates.reshape(len(inner), *[1] * (inner.ndim - 2), -1)
    return inner @ up


def mixed(layer: Any, inputs: Tensor, down: Tensor, up: Tensor, gates: Tensor) -> Tensor:
    """What one adapter adds whose factors are sums of k: ``(sum_k g_k d_k * x) (sum_j g_j u_j)``.

    Args: as of :func:`rank_one`.
    """
    inner = rank_one(layer, inputs, down, torch.ones_like(up[:, :1]), gates)
    if isinstance(layer, Conv2d):
        return inner * (gates @ up)[:, :, None, None]
    return inner * (gates @ up).reshape(len(inner), *[1] * (inner.ndim - 2), -1)
