"""The algebra that the closed-form erasers share.

They all edit every key and value weight by the same right multiplication, ``W_new = W (I + D)`` with one ``D`` of
``[d, d]``, where d is the width of the text embedding. So ``D`` is worked out once in float64, and each layer costs
one product. Token vectors are rows here: a text's rows are ``[n, d]``, and ``W_new c = W (c + D c)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from erasebench.concepts import ErasureTask
from erasebench.eraser import Change
from erasebench.errors import UserError
from erasebench.text import encode, token_rows

RESIDUAL = 1e-6
"""Largest relative residual of a solve that is accepted."""


def gram(parts: Iterable[Tensor], width: int) -> Tensor:
    """Sum of ``rows^T rows`` over tensors ``[n_i, width]``: ``[width, width]`` float64. Zero if there are none."""
    total = torch.zeros(width, width, dtype=torch.float64)
    for rows in parts:
        rows = rows.double()
        total += rows.T @ rows
    return total


def solve_spd(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve ``matrix @ x = right`` for a symmetric positive definite matrix, by Cholesky, with a residual check.

    Args:
        matrix: ``[d, d]`` float64.
        right: ``[d, k]`` float64.

    Raises:
        UserError: the matrix is not positive definite, or the residual is above :data:`RESIDUAL`.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed or not torch.isfinite(factor).all():
        raise UserError("the equations of the edit have no unique solution; raise lam (it must be above 0)")
    solution = torch.cholesky_solve(right, factor)
    scale = torch.linalg.norm(right)
    if scale > 0 and torch.linalg.norm(matrix @ solution - right) > RESIDUAL * scale:
        raise UserError("the equations of the edit are too ill-conditioned to solve in float64; raise lam")
    return solution


def pull(sources: Tensor, targets: Tensor, keep: Tensor, lam: float, erase_scale: float, keep_scale: float) -> Tensor:
    """The ``D`` that pulls source tokens to target tokens and keeps others in place.

    For every weight W at once it minimises, over ``W_new = W (I + D)``,
    ``erase_scale sum ||W_new c - W c*||^2 + keep_scale sum ||W_new p - W p||^2 + lam ||W_new - W||_F^2``,
    which is solved by ``D = erase_scale sum (c* - c) c^T A^-1`` with
    ``A = lam I + erase_scale sum c c^T + keep_scale sum p p^T`` (UCE, equation 7 of the paper, with W taken out).

    Args:
        sources, targets: ``[n, d]``, row i of one goes to row i of the other.
        keep: ``[d, d]``, the gram matrix of the tokens to keep (:func:`gram`).
        lam: weight of staying near W, above 0.
        erase_scale, keep_scale: weights of the two sums.

    Returns:
        ``[d, d]`` float64.
    """
    sources, targets = sources.double(), targets.double()
    system = lam * torch.eye(sources.shape[1], dtype=torch.float64) + keep_scale * keep
    system += erase_scale * (sources.T @ sources)
    if len(sources) < sources.shape[1]:  # few rows: the product of its factors keeps the rank exact
        return erase_scale * (targets - sources).T @ solve_spd(system, sources.T).T
    return solve_spd(system, erase_scale * (sources.T @ (targets - sources))).T


def multiply_right(weights: Mapping[str, Tensor], change: Tensor) -> dict[str, Change]:
    """The changes ``W D`` of every weight, in factors that share their right side wherever that is smaller.

    Args:
        weights: name to ``[out, d]``, any type.
        change: ``D``, ``[d, d]`` float64. Its rank is taken at float64 precision, so nothing is lost.

    Returns:
        Float64 changes by name.

    Raises:
        UserError: ``D`` is not finite.
    """
    if not torch.isfinite(change).all():
        raise UserError("the edit's matrix has NaN or infinite numbers; check the eraser's options and the model")
    u, s, right = torch.linalg.svd(change)
    rank = int((s > s[0] * len(s) * torch.finfo(s.dtype).eps).sum())
    left, right = u[:, :rank] * s[:rank], right[:rank].contiguous()
    made = {}
    for name, weight in weights.items():
        rows, width = weight.shape
        weight = weight.detach().cpu().double()
        if rank * (rows + width) < rows * width:
            made[name] = Change(left=weight @ left, right=right)
        else:
            made[name] = Change(delta=weight @ change)
    return made


def energies(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Singular directions of token rows and their share of the energy.

    Args:
        rows: ``[n, d]``, n at least 1.

    Returns:
        Directions ``[k, d]`` (orthonormal rows) and ``s_i^2 / sum s_j^2`` (``[k]``, sums to 1; all zero if the rows
        are), float64, k = min(n, d).
    """
    _, s, directions = torch.linalg.svd(rows.double(), full_matrices=False)
    total = s.square().sum()
    return directions, s.square() / total if total > 0 else s


def moved(pipe: Any, change: Tensor, task: ErasureTask) -> dict[str, float]:
    """How far an edit moves tokens, as ``||D c|| / ||c||``, averaged over tokens.

    Args:
        change: ``D``, ``[d, d]`` float64.

    Returns:
        One number each for the content tokens of the targets' names (``target``) and of up to 64 retained texts
        (``retain``, absent if there are none), for the BOS token (``bos``), which every prompt shares, and for
        the padding of the empty text (``padding``).
    """
    kept = [text for text in task.retain if text][:64]
    encoded = encode(pipe, ["", *task.names, *kept])
    empty, content = encoded.embeddings[0], token_rows(encoded, "content")[1:]
    count = len(task.names)
    groups = {"target": content[:count], "retain": content[count:], "bos": [empty[:1]], "padding": [empty[2:]]}
    shares = {}
    for name, rows in groups.items():
        if rows:
            tokens = torch.cat(rows).double()
            share = torch.linalg.norm(tokens @ change.T, dim=1) / torch.linalg.norm(tokens, dim=1)
            shares[name] = share.mean().item()
    return shares


# Texts -------------------------------------------------------------------------------------------------------------

TEMPLATES = {
    "artist": ("painting by {}", "art by {}", "artwork by {}", "picture by {}", "style of {}"),
    "object": ("image of {}", "photo of {}", "portrait of {}", "picture of {}", "painting of {}"),
}
"""The short templates of the UCE release, by kind; celebrities and unsafe content take those of objects."""


def expand(text: str, kind: str, templates: bool | Sequence[str]) -> list[str]:
    """The text alone, then in each template.

    Args:
        text: a concept, or the anchor it goes to; both are expanded alike, also when the text is ``""``.
        kind: kind of concept, picks from :data:`TEMPLATES`.
        templates: ``False`` none, ``True`` those of the kind, or own ones with ``{}`` where the text goes.
    """
    chosen = TEMPLATES.get(kind, TEMPLATES["object"]) if templates is True else templates or ()
    return [text, *(template.replace("{}", text) for template in chosen)]


def check_templates(templates: Any) -> None:
    """Refuse templates that are neither a switch nor texts with ``{}``."""
    if not isinstance(templates, bool):
        for template in templates:
            if not isinstance(template, str) or "{}" not in template:
                raise UserError(f"template {template!r}: mark where the concept goes with {{}}, e.g. 'a photo of {{}}'")


def keep_texts(keep: str | Sequence[str], task_retain: Sequence[str], option: str) -> list[str]:
    """Texts to keep: ``task`` for the task's own retain list, ``none``, or a list; each once.

    Raises:
        UserError: a single string that is neither word.
    """
    if isinstance(keep, str):
        if keep not in ("task", "none"):
            raise UserError(f"{option}={keep!r}: use task, none, or a list of texts, e.g. {option}=[{keep}]")
        keep = task_retain if keep == "task" else ()
    return list(dict.fromkeys(keep))


def check_positive(name: str, **values: float | None) -> None:
    """Refuse options that are not finite numbers above 0 (``None`` passes)."""
    for option, value in values.items():
        if value is not None and not (isinstance(value, int | float) and 0 < value < float("inf")):
            raise UserError(f"{name}: {option} is {value!r}; it must be a number above 0")


def rows_of(pipe: Any, texts: Sequence[str], rule: str) -> list[Tensor]:
    """Encode texts and pick rows: one ``[n_i, d]`` float32 tensor a text; an empty list for no texts."""
    return token_rows(encode(pipe, texts), rule) if texts else []
