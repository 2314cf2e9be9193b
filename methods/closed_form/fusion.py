"""MACE (Lu et al., CVPR 2024), stage 3: fusion of one LoRA a concept into one edit.

The LoRAs come from stage 2 (:mod:`erasebench.methods.trained.mace`), or from elsewhere: files as diffusers or peft write
them, of ``to_k`` and ``to_v`` of cross-attention.

Example:
    >>> part = text_inputs(pipe)[0]                                                 # doctest: +SKIP
    >>> loras = [read_lora("church.safetensors"), read_lora("tench.safetensors")]   # doctest: +SKIP
    >>> rows = [template_rows(part, name, OBJECT) for name in ("church", "tench")]  # doctest: +SKIP
    >>> Edit(fuse(part.weights, loras, rows, lam=10.0)).apply(pipe)                 # doctest: +SKIP
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from erasebench.edits.change import Change
from erasebench.errors import UserError
from erasebench.methods.closed_form.linear import solve_spd, stacked
from erasebench.methods.closed_form.mace import system_of
from erasebench.models.targets import TextInput


def template_rows(part: TextInput, text: str, templates: Sequence[str]) -> Tensor:
    """All rows of a concept's sentences, ``[m, d]`` float64: what :func:`fuse` takes for each concept."""
    return stacked(part, [template.replace("{}", text) for template in templates], "all")


def fuse(
    weights: Mapping[str, Tensor],
    loras: Sequence[Mapping[str, tuple[Tensor, Tensor]]],
    rows: Sequence[Tensor],
    lam: float,
    keep_gram: Tensor | None = None,
    keep_scale: float = 1.0,
    kept: Mapping[str, Tensor] | None = None,
) -> dict[str, Change]:
    """MACE stage 3: one change of each weight that does on every concept's rows what that concept's LoRA does.

    For every weight W it minimises
    ``sum_i sum_{c in rows_i} ||W_new c - (W + L_i) c||^2 + s sum_p ||W_new p - W_kept p||^2 + lam ||W_new - W||_F^2``,
    which is solved by ``W_new - W = (sum_i L_i G_i + s (W_kept - W) B) A^-1`` with ``A = lam I + sum_i G_i + s B`` and
    the gram matrix ``G_i`` of each concept's rows. A is the same for all weights, so there is one solve, and with
    ``L_i = l_i r_i`` the change stays in factors ``[l_1 .. l_n] [r_i G_i A^-1]``.

    Args:
        weights: name to W ``[out, d]``, e.g. ``part.weights``: after stage 1 if that was done.
        loras: for each concept, name to ``(left [out, r], right [r, d])``; a weight it does not name stays.
        rows: for each concept, its token rows ``[m_i, d]`` (:func:`template_rows`).
        lam: weight of staying near W; 0 only with a ``keep_gram`` of full rank.
        keep_gram: ``B``, ``[d, d]`` (:func:`~erasebench.methods.closed_form.preserve.preserve_gram`).
        keep_scale: its weight s.
        kept: weights whose outputs on the rows of ``keep_gram`` are to be kept, by name: as released, those before
            stage 1 (its cache holds their outputs). The change is then dense. ``None``: W itself.

    Returns:
        A change for every weight that some LoRA names (every weight, with ``kept``); float64.

    Raises:
        UserError: lists of different lengths, a LoRA that does not fit, or equations without a unique solution.
    """
    if len(loras) != len(rows) or not loras:
        raise UserError(f"fuse: {len(loras)} LoRAs and rows of {len(rows)} concepts; give one of each a concept")
    _check_loras(weights, loras)
    width = rows[0].shape[1]
    total = torch.zeros(width, width, dtype=torch.float64)
    products, order = [], []
    for lora, tokens in zip(loras, rows, strict=True):
        tokens = tokens.double()
        total.addmm_(tokens.T, tokens)
        rights = torch.cat([right.double() for _, right in lora.values()]) if lora else total[:0]
        products.append((rights @ tokens.T) @ tokens)  # r_i G_i of all weights at once
        order.append([(name, right.shape[0]) for name, (_, right) in lora.items()])
    system = system_of(total, lam, keep_gram, keep_scale)
    drift: dict[str, Tensor] = {}
    if kept is not None and keep_gram is not None:
        drift = {name: keep_scale * (kept[name].double() - w.detach().cpu().double()) for name, w in weights.items()}
        products += [part @ keep_gram for part in drift.values()]
    solved = solve_spd(system, torch.cat(products).T).T
    lefts: dict[str, list[Tensor]] = {}
    rights_of: dict[str, list[Tensor]] = {}
    at = 0
    for lora, names in zip(loras, order, strict=True):
        for name, rank in names:
            lefts.setdefault(name, []).append(lora[name][0].double())
            rights_of.setdefault(name, []).append(solved[at : at + rank])
            at += rank
    made = {name: Change(left=torch.cat(lefts[name], 1), right=torch.cat(rights_of[name])) for name in lefts}
    for name, part in drift.items():
        back = Change(delta=solved[at : at + len(part)])
        made[name] = back.plus(made[name]) if name in made else back
        at += len(part)
    return made


def _check_loras(weights: Mapping[str, Tensor], loras: Sequence[Mapping[str, tuple[Tensor, Tensor]]]) -> None:
    for number, lora in enumerate(loras, 1):
        for name, (left, right) in lora.items():
            if name not in weights:
                raise UserError(
                    f"LoRA {number} changes {name}, which is not among the weights given; "
                    "train it on to_k and to_v of cross-attention (attn2) alone"
                )
            shape, found = list(weights[name].shape), [left.shape[0], right.shape[1]]
            if found != shape or left.shape[1] != right.shape[0]:
                raise UserError(
                    f"LoRA {number}: {name} is {shape}, its factors are {list(left.shape)} and {list(right.shape)}; "
                    "it was made for another model"
                )


_FACTOR = re.compile(
    r"(?:base_model\.model\.)?(?:unet\.)?(?!text_encoder)(.+)\.(?:lora_([AB])|lora\.(down|up))\.weight"
)
_ALPHA = re.compile(r"(?:base_model\.model\.)?(?:unet\.)?(?!text_encoder)(.+)\.alpha")


def read_lora(path: str | os.PathLike[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Read a LoRA of a UNet as diffusers or peft write it (safetensors only).

    The scale ``alpha / r`` becomes part of ``left``: alpha is an ``.alpha`` tensor, or what the file's own notes say;
    without either it is r.

    Returns:
        Weight name (``unet.<...>.attn2.to_k.weight``) to ``(left [out, r], right [r, in])`` float64: the LoRA is
        ``left @ right``.

    Raises:
        UserError: no such file, not safetensors, half of a pair is missing, or tensors of another kind.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key).double() for key in file.keys()}  # noqa: SIM118
            notes = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such LoRA file") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a LoRA in safetensors ({error}); convert or download it again") from error
    pairs: dict[str, dict[str, Tensor]] = {}
    alphas: dict[str, float] = {}
    for key, tensor in tensors.items():
        if match := _FACTOR.fullmatch(key):
            pairs.setdefault(match[1], {})["right" if match[2] == "A" or match[3] == "down" else "left"] = tensor
        elif match := _ALPHA.fullmatch(key):
            alphas[match[1]] = tensor.item()
        else:
            raise UserError(
                f"{path.name}: tensor {key!r} is none of a LoRA of a UNet as diffusers or peft write it (lora_A, "
                "lora_B, alpha); convert it with diffusers (load_lora_weights, then save_lora_weights)"
            )
    if not pairs:
        raise UserError(f"{path.name}: no tensor of a LoRA in it; is this the right file?")
    of_all = notes.get("unet.lora_alpha", notes.get("lora_alpha"))
    of_some = notes.get("unet.alpha_pattern", notes.get("alpha_pattern")) or {}
    made = {}
    for module, pair in pairs.items():
        if len(pair) < 2:
            raise UserError(f"{path.name}: {module} has only one of its two factors; save the LoRA again")
        rank = pair["right"].shape[0]
        alpha = alphas.get(module, of_some.get(module, of_all))
        scale = 1.0 if alpha is None else alpha / rank
        made[f"unet.{module}.weight"] = (scale * pair["left"], pair["right"])
    return made
