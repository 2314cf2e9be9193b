"""Which parameters a training may change, by the names that papers give to the choices."""

from __future__ import annotations

from collections.abc import Callable

from torch.nn import Conv2d, Linear, Module, Parameter

from erasebench.errors import UserError, suggest

_OUTSIDE = ("conv_norm_out.", "conv_out.", "time_embedding.")

GROUPS: dict[str, tuple[str, Callable[[str, Module], bool]]] = {
    "x": ("cross-attention (attn2), biases included", lambda name, module: ".attn2." in name),
    "x-strict": (
        "keys and values of cross-attention",
        lambda name, module: ".attn2.to_k." in name or ".attn2.to_v." in name,
    ),
    "u": (
        "all but cross-attention, the time embedding and the last layer (ESD-u of 2023)",
        lambda name, module: ".attn2." not in name and not name.startswith(_OUTSIDE),
    ),
    "u-2025": (
        "linear layers and convolutions outside cross-attention (ESD-u of 2025)",
        lambda name, module: ".attn2." not in name and isinstance(module, Linear | Conv2d),
    ),
    "self": ("self-attention (attn1), biases included", lambda name, module: ".attn1." in name),
    "attention": ("all attention", lambda name, module: ".attn1." in name or ".attn2." in name),
    "self+queries": (
        "self-attention, and the queries of cross-attention (stage 2 of TRCE)",
        lambda name, module: ".attn1." in name or ".attn2.to_q." in name,
    ),
    "full": ("the whole network", lambda name, module: True),
}
"""Groups of a UNet's parameters: what they are, and whether a parameter of a name in a module belongs to them."""


def group(unet: Module, choice: str) -> dict[str, Parameter]:
    """The parameters of a group, by their names in the UNet.

    Raises:
        UserError: no such group, or one that this network has nothing of (nothing would be trained).
    """
    check_group(choice)
    belongs = GROUPS[choice][1]
    chosen = {
        f"{path}.{name}" if path else name: parameter
        for path, module in unet.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
        if belongs(f"{path}.{name}" if path else name, module)
    }
    if not chosen:
        raise UserError(f"train={choice} ({GROUPS[choice][0]}): {type(unet).__name__} has no such parameter")
    return chosen


def check_group(choice: str) -> None:
    """Refuse a group that is none.

    Raises:
        UserError: it names those there are.
    """
    if choice not in GROUPS:
        listing = "; ".join(f"{name}: {words}" for name, (words, _) in GROUPS.items())
        raise UserError(f"train={choice} is no group of parameters.{suggest(choice, GROUPS)} There are {listing}")
