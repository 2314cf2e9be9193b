"""CURE: Concept Unlearning via Orthogonal Representation Editing (NeurIPS 2025, arXiv 2505.12677)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.eraser import Change
from erasebench.errors import UserError, suggest
from erasebench.methods.closed_form.linear import (
    ClosedForm,
    check_positive,
    check_templates,
    energies,
    expand,
    factored,
    keep_texts,
    moved,
    stacked,
    warn_if_empty,
)
from erasebench.models.targets import TextInput
from erasebench.models.text import check_rule

ALPHA = {"object": 2.0, "artist": 2.0, "celebrity": 2.0, "unsafe": 5.0}
"""Strength by kind of concept, as the paper sets it."""

MULTI = ("joint", "sequential", "orthogonal")
"""How several concepts are joined."""

ERASED = 0.01
"""A direction that is removed by more than this counts as erased before (``multi=orthogonal``)."""

SPENT = 1e-3
"""A token of which less than this share of its length was not erased before has no direction of its own left."""

TOKEN_RULE = {"object": "last_content", "artist": "tail", "celebrity": "last_content", "unsafe": "last_content"}
"""Token rows by kind of concept, chosen by measuring on the embedded model; the paper does not say."""

IDLE_ALPHA = (
    "alpha has no effect: one token alone is forgotten, which goes wholly at any strength; "
    "method.token_rule=content_eos takes several"
)
"""What is said where somebody sets a strength that changes nothing."""


@dataclass(frozen=True)
class Cure(ClosedForm):
    """Remove from every key and value weight the directions of a concept's tokens, weighted by their energy.

    With forget tokens as columns of E_f: ``E_f = U S V^T``, ``r_i = s_i^2 / sum s_j^2``,
    ``f(r) = alpha r / ((alpha - 1) r + 1)``, ``P_f = U diag(f(r)) U^T``, likewise ``P_r`` from the tokens to keep;
    ``P_dis = P_f - P_f P_r`` and ``W_new = W (I - P_dis)`` for all of them. ``I - P_r`` acts on a token first.

    The paper fixes the formula and alpha. It leaves open which tokens of a prompt enter, which prompts, what is
    kept, and how several concepts are joined; its release holds no editing code. All of these are options.

    The defaults by kind were chosen by measuring on the embedded model, not on Stable Diffusion; the command that does it
    again and prints the table is ``erasebench run sweep=cure_tokens protocol.steps=10`` (with ``method.retain=none,task``
    or ``method.multi=joint,sequential`` for these). One row a concept, the last content token, erases most; of artists,
    whose style is carried by EOS and padding, the rows from there to the end. More rows split the energy and weaken the
    edit. A retain list holds what all texts share, the concept included, and gave no gain where nothing was damaged. On
    Stable Diffusion, where text embeddings share more, measure both. With one token alone alpha has no effect; to sweep
    it, choose a rule with several rows, e.g. ``method.token_rule=content_eos``.

    Attributes:
        alpha: strength; ``None`` is by kind, as in the paper (:data:`ALPHA`: 2, and 5 for unsafe). It does nothing
            when one token alone is forgotten.
        alpha_retain: the same for kept tokens; ``None`` is alpha, as the paper reads.
        token_rule: which rows of each prompt enter, see ``erasebench.models.text.TOKEN_RULES``; ``None`` is by kind
            (:data:`TOKEN_RULE`).
        templates: also use the concept in templates; ``True`` takes five short ones, or give own ones with ``{}``.
        phrases: use all phrases of a concept, not its name alone.
        retain: ``task`` (the task's retain list), ``none``, or a list of texts.
        centre: subtract the mean of all forget and kept rows first, so that what all texts share is not removed.
        multi: several concepts at once: ``joint`` stacks their tokens, so each has a smaller share of the energy;
            ``sequential`` edits one after another, ``W (I - P_1) (I - P_2) ...``; ``orthogonal`` does so too, but
            first takes out of each concept's tokens the directions that were erased before (those removed by more
            than :data:`ERASED`), so that no direction is removed twice. The same for one concept.

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
        if self.multi not in MULTI:
            raise UserError(f"cure: multi {self.multi!r} is not one of {', '.join(MULTI)}.{suggest(self.multi, MULTI)}")

    def solve(self, part: TextInput, task: ErasureTask) -> tuple[Change, dict[str, Any]]:
        """One map of tokens, in factors."""
        alpha = ALPHA[task.kind] if self.alpha is None else self.alpha
        alpha_retain = alpha if self.alpha_retain is None else self.alpha_retain
        rule = TOKEN_RULE[task.kind] if self.token_rule is None else self.token_rule
        kept_texts = keep_texts(self.retain, task.retain, "method.retain")
        texts = {target.name: self.texts(target) for target in task.targets}
        part.rows([*(text for own in texts.values() for text in own), *kept_texts], rule)  # one batch for all
        forget = {name: stacked(part, own, rule) for name, own in texts.items()}
        kept = stacked(part, kept_texts, rule)
        if self.centre:
            mean = torch.cat([*forget.values(), kept]).mean(dim=0)
            forget, kept = {name: rows - mean for name, rows in forget.items()}, kept - mean
        groups = [torch.cat(list(forget.values()))] if self.multi == "joint" else list(forget.values())
        change, about = sequence(groups, kept, alpha, alpha_retain, orthogonal=self.multi == "orthogonal")
        target = torch.cat(groups)
        left = free_share(target, kept)
        notes = {
            "texts": texts,
            "retain": kept_texts,
            "alpha": alpha,
            "alpha_retain": alpha_retain,
            "token_rule": rule,
            "tokens": {"forget": len(target), "retain": len(kept)},
            **about,
            "energy_free_of_retain": left,
        }
        shares = moved(change, {"target": target, "retain": kept})
        why = (
            f"the retain set spans {100 * (1 - left):.0f} % of the energy of its tokens; retain fewer texts"
            if len(kept) and left < 0.5
            else "its energy is spread over many directions; use a larger alpha, or token_rule=last_content"
        )
        warnings = warn_if_empty(shares, why)
        if self.alpha is not None and max(map(len, groups)) == 1 and len(kept) < 2:
            warnings.append(IDLE_ALPHA)
        return change, {**notes, "moved": shares, "warnings": warnings}

    def texts(self, target: Concept) -> list[str]:
        """The forget prompts of a concept."""
        phrases = target.phrases if self.phrases else (target.name,)
        return [text for phrase in phrases for text in expand(phrase, target.kind, self.templates)]


def strength(share: Tensor, alpha: float) -> Tensor:
    """``f(r) = alpha r / ((alpha - 1) r + 1)``: 0 at 0, 1 at 1; alpha 1 is the identity, large alpha tends to 1."""
    return alpha * share / ((alpha - 1) * share + 1)


def sequence(
    groups: Sequence[Tensor], kept: Tensor, alpha: float, alpha_retain: float, orthogonal: bool = False
) -> tuple[Change, dict[str, Any]]:
    """``(I - P_1) (I - P_2) ... - I`` over groups of forget rows, with ``P_i = P_f - P_f P_r``, in factors.

    ``P_f = U diag(f) U^T`` of a group's rows, so ``P_i = (U f) (U^T - U^T P_r)``: its rank is that of the rows.

    Args:
        groups: ``[n_i, d]`` rows, one group a concept (or one for all).
        kept: ``[m, d]`` rows, may be none.
        alpha, alpha_retain: strengths of f.
        orthogonal: take what earlier groups erased out of a group's rows first.

    Returns:
        The map of tokens, and notes: the top energies of each group and of what is kept, and of each ``P_i`` the
        trace and the largest eigenvalue of its symmetric part.
    """
    width = groups[0].shape[1]
    keep_directions, keep_share = energies(kept) if len(kept) else (kept, kept[:, 0])
    keep_strength = strength(keep_share, alpha_retain)[:, None]
    erased = torch.zeros(0, width, dtype=torch.float64)
    total: Change | None = None
    tops, traces, largest = [], [], []
    for rows in groups:
        if orthogonal and len(erased):
            rest = rows - (rows @ erased.T) @ erased
            rows = rest[torch.linalg.norm(rest, dim=1) > SPENT * torch.linalg.norm(rows, dim=1)]
        directions, share = energies(rows)
        weights = strength(share, alpha)
        right = directions - (directions @ keep_directions.T) @ (keep_strength * keep_directions)
        change = Change(token=-(directions * weights[:, None]).T, right=right)
        total = change if total is None else total.then(change)
        if orthogonal:
            erased = torch.cat([erased, directions[weights > ERASED]])
        tops.append(share[:5].tolist())
        traces.append((weights * (directions * right).sum(dim=1)).sum().item())
        largest.append(_largest(directions * weights[:, None], right))
    assert total is not None
    notes = {
        "energies": {"forget": tops, "retain": keep_share[:5].tolist()},
        "trace": traces,
        "largest": largest,
    }
    return (total if total.right is None else factored(total.token, total.right)), notes


def _largest(left: Tensor, right: Tensor) -> float:
    """Largest eigenvalue of the symmetric part of ``left^T right``, which lies in the rows of both."""
    if not len(left):
        return 0.0
    basis = torch.linalg.qr(torch.cat([left, right]).T).Q
    inner = (left @ basis).T @ (right @ basis)
    return torch.linalg.eigvalsh((inner + inner.T) / 2)[-1].item()


def free_share(rows: Tensor, kept: Tensor) -> float:
    """Share of the rows' energy that lies outside the span of kept rows, 0 to 1."""
    energy = rows.square().sum()
    if len(kept) == 0 or energy == 0:
        return 1.0
    directions, share = energies(kept)
    span = directions[share > len(kept) * torch.finfo(torch.float64).eps]
    return (1 - (rows @ span.T).square().sum() / energy).clamp(0, 1).item()
