"""UCE: Unified Concept Editing (Gandikota et al., WACV 2024), in the two rules that were released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Change
from erasebench.errors import UserError, suggest
from erasebench.methods.closed_form.linear import (
    ClosedForm,
    check_positive,
    check_templates,
    factored,
    hold,
    keep_texts,
    keeping,
    listed,
    moved,
    pair_rows,
    phrase_pairs,
    warn_if_empty,
)
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import TextInput


@dataclass(frozen=True)
class Rule:
    """What one release does: token rows of an edit pair, of a kept text, texts that are always kept, and whether an
    anchor stays bare where the concept stands in templates."""

    edit_rows: str
    keep_rows: str
    always_keep: tuple[str, ...]
    bare_anchor: bool


RULES = {
    "2023": Rule(edit_rows="tail", keep_rows="all", always_keep=("",), bare_anchor=True),
    "2025": Rule(edit_rows="last_content", keep_rows="last_content", always_keep=(), bare_anchor=False),
}
"""The two rules that go by the name of UCE; their numbers differ, so a table never calls both ``uce``."""


@dataclass(frozen=True)
class Uce(ClosedForm):
    """Move the keys and values of a concept's tokens to those of its anchor, in closed form.

    For every key and value weight W: ``W_new = (lam W + s_e sum W c* c^T + s_p sum W p p^T) A^-1`` with
    ``A = lam I + s_e sum c c^T + s_p sum p p^T``, over edit tokens c, anchor tokens c* and kept tokens p.

    ``variant``
        ``2023``, the rule behind the paper and most published numbers (as first released): from the last content
        token to the last padding row, row by row, for the concept and its anchor (cut to the shorter of the two);
        all 77 rows of every kept text, and ``""`` is always kept; ``preserve_scale`` is ``max(0.1, 1/kept texts)``.
        ``2025``, the rule of the present release: one token a concept, its last content token (BOS for ``""``), the
        same for kept texts, nothing kept unless asked for, ``preserve_scale`` 1.
    The default is ``2023``: it is what published tables, RECE and this project's protocols mean by UCE.

    Attributes:
        variant: ``2023`` or ``2025``.
        lam: weight of staying near the original weights.
        erase_scale: weight of the edit pairs.
        preserve_scale: weight of the kept tokens; ``None`` is the variant's own.
        technique: ``replace`` (targets are the anchor's outputs) or, for 2023, ``tensor`` (the anchor's outputs less
            their projection on the concept's outputs, taken over a pair's whole rows, as released).
        templates: also edit the concept in templates; ``True`` takes the release's five. The anchor stays bare by the
            rule of 2023, and stands in them by that of 2025.
        phrases: edit all phrases of a concept (the releases take a list of names), not its name alone.
        anchor: text to map to; ``None`` is each concept's own anchor.
        preserve: ``task`` (the task's retain list), ``none``, a list of texts, or a file of names. What is erased is not
            kept. A text with ``{}`` stands for all that it makes of the task's retain list (UnlearnCanvas keeps every other
            style with every object).

    Raises:
        UserError: an unknown variant or technique, a scale that is not above 0.
    """

    name: ClassVar[str] = "uce"
    version: ClassVar[str] = "2"
    describe: ClassVar[str] = "UCE: keys and values of a concept are moved to an anchor's, closed form (WACV 2024)"

    variant: str = "2023"
    lam: float = 0.5
    erase_scale: float = 1.0
    preserve_scale: float | None = None
    technique: str = "replace"
    templates: bool | Sequence[str] = False
    phrases: bool = True
    anchor: str | None = None
    preserve: str | Sequence[str] = "task"

    def __post_init__(self) -> None:
        object.__setattr__(self, "variant", str(self.variant))
        if self.variant not in RULES:
            raise UserError(f"uce: unknown variant {self.variant!r}.{suggest(self.variant, RULES)} Known: 2023, 2025")
        if self.technique not in ("replace", "tensor"):
            raise UserError(f"uce: technique {self.technique!r} is not one of replace, tensor")
        if self.technique == "tensor" and self.variant != "2023":
            raise UserError("uce: technique=tensor belongs to variant=2023; the 2025 release only replaces")
        check_positive("uce", lam=self.lam, erase_scale=self.erase_scale, preserve_scale=self.preserve_scale)
        check_templates(self.templates)
        object.__setattr__(self, "preserve", listed(self.preserve, "method.preserve"))
        keep_texts(self.preserve, (), "method.preserve")

    def solve(self, part: TextInput, task: ErasureTask) -> tuple[Change | Mapping[str, Change], dict[str, Any]]:
        """The closed-form edit of all targets at once."""
        rule = RULES[self.variant]
        texts = self.pairs(task)
        keep = self.kept(task)
        scale = self.scale(keep)
        pairs = pair_rows(part, texts, rule.edit_rows)
        kept = keeping(part, keep, rule.keep_rows)
        sources, targets = (torch.cat(rows) for rows in zip(*pairs, strict=True))
        right = hold(sources, self.lam, self.erase_scale, keep_scale=scale, **kept)
        notes = {
            "pairs": [list(pair) for pair in texts],
            "preserve": keep,
            "preserve_scale": scale,
            "tokens": {"edit": len(sources), "edit_rows": rule.edit_rows, "keep_rows": rule.keep_rows},
        }
        if self.technique == "tensor":
            return _less_projection(part, pairs, right), notes
        change = factored((targets - sources).T, right)
        shares = moved(change, {"target": sources, "retain": kept.get("keep", sources[:0])})
        empty = warn_if_empty(shares, "its anchor is nearly the same, or the preserved texts hold it in place")
        return change, {**notes, "moved": shares, "warnings": empty}

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:
        """A phrase that is its own anchor is refused."""
        self.pairs(task)

    def pairs(self, task: ErasureTask) -> list[tuple[str, str]]:
        """Texts of the targets, each with the anchor text it goes to."""
        bare = RULES[self.variant].bare_anchor
        return [
            pair
            for target in task.targets
            for pair in phrase_pairs(target, self.anchor, self.phrases, self.templates, bare)
        ]

    def kept(self, task: ErasureTask) -> list[str]:
        """Texts whose keys and values are kept, each once; a list loses what is erased, as released for artists."""
        listed_texts = keep_texts(self.preserve, task.retain, "method.preserve")
        own = [text for entry in listed_texts for text in _filled(entry, task.retain)]
        erased = {phrase.casefold() for target in task.targets for phrase in target.phrases}
        kept = (text for text in own if text.casefold() not in erased)
        return list(dict.fromkeys((*RULES[self.variant].always_keep, *kept)))

    def scale(self, kept: Sequence[str]) -> float:
        """The weight of kept tokens: the option, or the variant's own."""
        if self.preserve_scale is not None:
            return self.preserve_scale
        return max(0.1, 1 / len(kept)) if self.variant == "2023" else 1.0


def _filled(text: str, retain: Sequence[str]) -> list[str]:
    """A text to keep, or, if it is a template, what it makes of each text of a retain list."""
    return [text.replace("{}", name) for name in retain] if "{}" in text else [text]


def _less_projection(part: TextInput, pairs: Sequence[tuple[Tensor, Tensor]], right: Tensor) -> dict[str, Change]:
    """Changes whose targets are the anchor's outputs less their projection on the concept's, one factor a pair.

    The factor depends on the layer: with S, T the pair's rows, it is ``<S W^T, T W^T> / |S W^T|^2``. The token rows
    that it makes, ``T - factor S``, differ from layer to layer only by that one number a pair.
    """
    sources, targets = (torch.cat(rows) for rows in zip(*pairs, strict=True))
    pair_of = torch.repeat_interleave(torch.tensor([len(source) for source, _ in pairs]))
    made = {}
    for name, weight in part.weights.items():
        exact = weight.detach().to("cpu", torch.float64)
        old, new = sources @ exact.T, targets @ exact.T
        zero = torch.zeros(len(pairs), dtype=torch.float64)
        energy = zero.index_add(0, pair_of, old.square().sum(dim=1))
        shared = zero.index_add(0, pair_of, (old * new).sum(dim=1))
        factor = torch.where(energy > 0, shared / energy.clamp_min(torch.finfo(torch.float64).tiny), 0.0)[pair_of, None]
        made[name] = Change(left=(new - factor * old - old).T.contiguous(), right=right)
    return made
