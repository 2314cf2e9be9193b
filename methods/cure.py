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

TOKEN_RULE = {"object": "last_content", "artist": "tail", "celebrity": "last_content", "unsafe": "last_content"}
"""Token rows by kind of concept, chosen by measuring on the embedded model; the paper does not say."""


@dataclass(frozen=True)
class Cure(Eraser):
    """Remove from every key and value weight the directions of a concept's tokens, weighted by their energy.

    With forget tokens as columns of E_f: ``E_f = U S V^T``, ``r_i = s_i^2 / sum s_j^2``,
    ``f(r) = alpha r / ((alpha - 1) r + 1)``, ``P_f = U diag(f(r)) U^T``, likewise ``P_r`` from the tokens to keep;
    ``P_dis = P_f - P_f P_r`` and ``W_new = W (I - P_dis)`` for all of them. ``I - P_r`` acts on a token first.

    The paper fixes the formula and alpha. It leaves open which tokens of a prompt enter, which prompts, what is
    kept, and how several concepts are joined; its release holds no editing code. All of these are options.

    The defaults were chosen on the embedded model. Its own numbers, not Stable Diffusion's: 24 prompts a kind that
    ask for an erased concept, 10 sampling steps, per cent that the judge still recognises; lower is better. The
    unedited model is at 100, and 100 % of 8 to 24 prompts for other concepts stayed right in every row.

    ==================================  =======  =======  ===========  ======
    token rule and options              objects  artists  celebrities  unsafe
    ==================================  =======  =======  ===========  ======
    last_content                        13       96       4            25
    last_content, sequential            13       -        4            0
    last_content, retain ``""``         13       -        8            71
    content                             21       100      63           29
    content, templates                  79       100      96           63
    content_eos                         13       63       54           29
    content_eos, templates              63       92       71           54
    mean                                42       92       79           54
    mean, templates                     88       100      96           83
    tail                                79       33       71           96
    tail, alpha 5; alpha 20             -        17; 4    -            -
    last_content, retain task (n = 12)  50       100      75           92
    content, retain task (n = 12)       67       100      100          92
    tail, retain task (n = 12)          100      50       100          100
    ==================================  =======  =======  ===========  ======

    (joint, nothing kept and no templates unless said; the last three rows with a less trained UNet.) So one row a
    concept, the last content token, is the default, and for artists, whose style is carried by EOS and padding, the
    rows from there to the end. More rows split the energy and weaken the edit. A retain list holds what all texts
    share, the concept included, and gave no gain here because nothing was damaged. On Stable Diffusion, where text
    embeddings share more, measure both: ``method.retain=none,task``. With one token alone alpha has no effect; to
    sweep it, choose a rule with several rows, e.g. ``method.token_rule=content_eos``.

    Attributes:
        alpha: strength; ``None`` is by kind, as in the paper (:data:`ALPHA`: 2, and 5 for unsafe). It does nothing
            when one token alone is forgotten.
        alpha_retain: the same for kept tokens; ``None`` is alpha, as the paper reads.
        token_rule: which rows of each prompt enter, see ``erasebench.text.TOKEN_RULES``; ``None`` is by kind
            (:data:`TOKEN_RULE`).
        templates: also use the concept in templates; ``True`` takes five short ones, or give own ones with ``{}``.
        phrases: use all phrases of a concept, not its name alone.
        retain: ``task`` (the task's retain list), ``none``, or a list of texts.
        centre: subtract the mean of all forget and kept rows first, so that what all texts share is not removed.
        multi: several concepts at once: ``joint`` stacks their tokens, so each has a smaller share of the energy;
            ``sequential`` edits one after another, ``W (I - P_1) (I - P_2) ...``. The same for one concept.

    Raises:
        UserError: a strength that is not above 0, an unknown rule or mode.
    """

    name: ClassVar[str] = "cure"
    describe: ClassVar[str] = "CURE: removes a concept's directions from keys and values, closed form (NeurIPS 2025)"

    alpha: float | None = None
    alpha_retain: float | None = None
    token_rule: str | None = None
    templates: bool | Sequence[str] = False
    phrases: bool = True
    retain: str | Sequence[str] = "none"
    centre: bool = False
    multi: str = "sequential"

    def __post_init__(self) -> None:
        check_positive("cure", alpha=self.alpha, alpha_retain=self.alpha_retain)
        if self.token_rule is not None:
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
        rule = TOKEN_RULE[task.kind] if self.token_rule is None else self.token_rule
        forget = {target.name: stacked(pipe, self.texts(target), rule, width) for target in task.targets}
        kept_texts = keep_texts(self.retain, task.retain, "method.retain")
        kept = stacked(pipe, kept_texts, rule, width)
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
            "token_rule": rule,
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


def stacked(pipe: Any, texts: Sequence[str], rule: str, width: int) -> Tensor:
    """Token rows of texts by a rule, stacked: ``[n, width]`` float64."""
    empty = torch.zeros(0, width, dtype=torch.float64)
    return torch.cat([empty, *(part.double() for part in rows_of(pipe, texts, rule))])


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
