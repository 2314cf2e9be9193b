"""Where text enters a UNet: the key and value weights of its cross-attention, found by structure, never by a list."""

from __future__ import annotations

from typing import Any

from torch.nn import Parameter

from erasebench.errors import UserError


def key_value_weights(pipe: Any) -> dict[str, Parameter]:
    """The ``to_k`` and ``to_v`` weights of every cross-attention (``attn2``) of the pipeline's UNet.

    Args:
        pipe: a Stable Diffusion pipeline (1.x, 2.x, XL).

    Returns:
        Name to parameter ``[out, d]`` in the order of the UNet's modules, e.g.
        ``unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight``; ``d`` is the width of the text
        embedding and the same for all. SD 1.x has 32 of them, SDXL 140.

    Raises:
        UserError: no UNet (SD 3, FLUX and other transformers), no cross-attention, quantised weights, or weights
            of different widths.
    """
    unet = getattr(pipe, "unet", None)
    if unet is None:
        found = type(pipe.transformer).__name__ if getattr(pipe, "transformer", None) is not None else "no UNet"
        raise UserError(
            f"{type(pipe).__name__} ({found}): this pipeline has no UNet with cross-attention to edit; "
            "use a Stable Diffusion 1.x, 2.x or XL model"
        )
    weights = {
        f"unet.{name}.{part}.weight": getattr(module, part).weight
        for name, module in unet.named_modules()
        if name.rsplit(".", 1)[-1] == "attn2"
        for part in ("to_k", "to_v")
    }
    if not weights:
        raise UserError(
            f"{type(unet).__name__}: no cross-attention (attn2) in this UNet, so no way in for text to edit"
        )
    for name, weight in weights.items():
        if not weight.is_floating_point() or weight.ndim != 2:
            raise UserError(f"{name}: {weight.dtype} {list(weight.shape)}; load the model without quantisation")
    widths = {weight.shape[1] for weight in weights.values()}
    if len(widths) > 1:
        raise UserError(f"{type(unet).__name__}: cross-attention of several input widths {sorted(widths)}")
    return weights


def named_weight(pipe: Any, name: str) -> Parameter:
    """The weight of a pipeline with a name such as ``unet.<module>.weight``.

    Raises:
        UserError: there is none of that name.
    """
    component, _, rest = name.partition(".")
    try:
        return getattr(pipe, component).get_parameter(rest)
    except AttributeError:
        raise UserError(f"{type(pipe).__name__} has no weight {name}; the edit was made for another model") from None
