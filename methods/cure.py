"""CURE: Concept Unlearning via Orthogonal Representation Editing (NeurIPS 2025, arXiv 2505.12677)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from erasebench.concepts import Concept, ErasureTask
from erasebench.eraser import Change, Eraser
from erasebench.errors import UserError
from erasebench.methods.linear import (
    check_positive,
    check_templates,
    energies,
    expand,
    keep_texts,
    moved,
    multiply_right,
    rows_of,
)
from erasebench.targets import key_value_weights
from erasebench.text import check_rule

ALPHA = {"object": 2.0, "artist": 2.0, "celebrity": 2.0, "unsafe": 5.0}
"""Strength by kind of concept, as the paper sets it."""


@dataclass(frozen=True)
class Cure(Eraser):
    """Remove from every key and value weight the directions of a concept's tokens, weighted by their energy.

    With forget tokens as columns of E_f: ``E_f = U S V^T``, ``r_i = s_i^2 / sum s_j^2``,
    ``f(r) = alpha r / ((alpha - 1) r + 1)``, ``P_f = U diag(f(r)) U^T``, likewise ``P_r`` from the tokens to keep;
    ``P_dis = P_f - P_f P_r`` and ``W_new = W (I - P_dis)`` for all of them. ``I - P_r`` acts on a token first.

    The paper fixes the formula and alpha. It leaves open which tokens of a prompt enter, which prompts, what is
    kept, and how several concepts are joined; its release holds no editing code. All of these are options.

    Attributes:
        alpha: strength; ``None`` is by kind, as in the paper (:data:`ALPHA`: 2, and 5 for unsafe). It does nothing
            when one token alone is forgotten.
        alpha_retain: the same for kept tokens; ``None`` is alpha, as the paper reads.
        token_rule: which rows of each prompt enter, see ``erasebench.text.TOKEN_RULES``.
        templates: also use the concept in templates; ``True`` takes five short ones, or give own ones with ``{}``.
        phrases: use all phrases of a concept, not its name alone.
        retain: ``task`` (the task's retain list), ``none``, or a list of texts.
        centre: subtract the mean of all forget and kept rows first, so that what all texts share is not removed.
        multi: several concepts at once: ``joint`` stacks their tokens, so each has a smaller share of the energy;
            ``sequential`` edits one after another, ``W (I - P_1) (I - P_2) ...``.

    Raises:
        UserError: a strength that is not above 0, an unknown rule or mode.
    """

    name: ClassVar[str] = "cure"
    describe: ClassVar[str] = "CURE: removes a concept's directions from keys and values, closed form (NeurIPS 2025)"

    alpha: float | None = None
    alpha_retain: float | None = None
    token_rule: str = "content"
    templates: bool | Sequence[str] = False
    phrases: bool = True
    retain: str | Sequence[str] = "task"
    centre: bool = False
    multi: str = "joint"

    def __post_init__(self) -> None:
        check_positive("cure", alpha=self.alpha, alpha_retain=self.alpha_retain)
        check_rule(self.token_rule)
        check_templates(self.templates)
        keep_texts(self.retain, (), "method.retain")
        if self.multi not in ("joint", "sequential"):
            raise UserError(f"cure: multi {self.multi!r} is not one of joint, sequential")

    def changes(self, pipe: Any, task: ErasureTask) -> tuple[dict[str, Change], dict[str, Any]]:
        """One matrix for the whole UNet, in factors."""
        alpha = ALPHA[task.kind] if self.alpha is None else self.alpha
        alpha_retain = alpha if self.alpha_retain is None else self.alpha_retain
        weights = key_value_weights(pipe)
        width = next(iter(weights.values())).shape[1]
        forget = {target.name: self.rows(pipe, self.texts(target), width) for target in task.targets}
        kept_texts = keep_texts(self.retain, task.retain, "method.retain")
        kept = self.rows(pipe, kept_texts, width)
        if self.centre:
            mean = torch.cat([*forget.values(), kept]).mean(dim=0)
            forget, kept = {name: rows - mean for name, rows in forget.items()}, kept - mean
        groups = [torch.cat(list(forget.values()))] if self.multi == "joint" else list(forget.values())
        parts = [removal(rows, kept, alpha, alpha_retain) for rows in groups]
        change = -parts[0]
        for part in parts[1:]:
            change = change - part - change @ part
        notes = {
            "texts": {target.name: self.texts(target) for target in task.targets},
            "retain": kept_texts,
            "alpha": alpha,
            "alpha_retain": alpha_retain,
            "tokens": {"forget": sum(len(rows) for rows in forget.values()), "retain": len(kept)},
            "energies": {"forget": [_top(rows) for rows in groups], "retain": _top(kept)},
            "trace": [torch.trace(part).item() for part in parts],
            "largest": [torch.linalg.eigvalsh((part + part.T) / 2)[-1].item() for part in parts],
            "moved": moved(pipe, change, task),
        }
        return multiply_right(weights, change), notes

    def texts(self, target: Concept) -> list[str]:
        """The forget prompts of a concept."""
        phrases = target.phrases if self.phrases else (target.name,)
        return [text for phrase in phrases for text in expand(phrase, target.kind, self.templates)]

    def rows(self, pipe: Any, texts: Sequence[str], width: int) -> Tensor:
        """Token rows of texts by the token rule, stacked: ``[n, width]`` float64."""
        empty = torch.zeros(0, width, dtype=torch.float64)
        return torch.cat([empty, *(rows.double() for rows in rows_of(pipe, texts, self.token_rule))])


def strength(share: Tensor, alpha: float) -> Tensor:
    """``f(r) = alpha r / ((alpha - 1) r + 1)``: 0 at 0, 1 at 1; alpha 1 is the identity, large alpha tends to 1."""
    return alpha * share / ((alpha - 1) * share + 1)


def projector(rows: Tensor, alpha: float) -> Tensor:
    """``P = U diag(f(r)) U^T`` of token rows ``[n, d]``: ``[d, d]`` float64, symmetric, eigenvalues in [0, 1].

    No rows give zero.
    """
    if len(rows) == 0:
        return torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    directions, share = energies(rows)
    return directions.T @ (strength(share, alpha)[:, None] * directions)


def removal(forget: Tensor, kept: Tensor, alpha: float, alpha_retain: float) -> Tensor:
    """``P_dis = P_f - P_f P_r`` of token rows ``[n_f, d]`` and ``[n_r, d]``; the edit is ``W (I - P_dis)``."""
    removed = projector(forget, alpha)
    return removed - removed @ projector(kept, alpha_retain)


def _top(rows: Tensor) -> list[float]:
    return energies(rows)[1][:5].tolist() if len(rows) else []
