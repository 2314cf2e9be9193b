"""diff-quickfix: a closed-form edit of the text encoder's first layer (ICLR 2024, arXiv 2310.13730)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from erasebench.concepts import ErasureTask
from erasebench.edits.change import Change
from erasebench.edits.eraser import Eraser
from erasebench.errors import UserError
from erasebench.methods.closed_form.linear import (
    check_positive,
    check_templates,
    hold,
    moved,
    phrase_pairs,
    pull,
    warn_if_empty,
)
from erasebench.models.pipeline import Pipeline, part_of

PHOTO_TEMPLATES = ("A photo of {}", "An image of {}", "A picture of {}")
"""The prompts in which a concept is also edited, beside its name alone."""

BATCH = 64
"""Texts in one call of the first layer."""


@dataclass(frozen=True)
class QuickFix(Eraser):
    """diff-quickfix: in the text encoder's first layer, a concept's attention output becomes the anchor's.

    One weight is edited, ``self_attn.out_proj`` of layer 0, to which the paper traces what a name stands for. Keys k
    are its inputs for the concept, targets k* those for the anchor. ``W (I + D) k = W k*`` is solved in the least
    squares, as in UCE: ``D = sum (k* - k) k^T (lam I + sum k k^T)^-1``. That is
    ``(lam W + sum v k^T) (lam I + sum k k^T)^-1`` with the values ``v = W k*``.

    Rows are the last content token of both, and with ``use_eos`` EOS and the padding after it, in order; the longer
    one is cut. Nothing is retained: what else moves is decided by lam and by how near other keys lie. The network
    that denoises is not touched, so the edit acts through every text, the empty one of guidance included.

    The authors' code was not read; the rule follows a third-party implementation (erase-eval). There values are taken
    after the bias, ``v = W k* + b``, though the layer adds b once more: ``bias=as_released``.

    Attributes:
        lam: weight of staying near the original weight. 0.01 is the published value; what it means depends on the
            size of the keys, so measure it on another model.
        use_eos: also move EOS and padding. Erases more, and on the embedded model costs much of what should stay
            unless lam is raised (``method.lam=1``).
        templates: also edit the concept in prompts, and the anchor likewise; ``True`` takes three
            (:data:`PHOTO_TEMPLATES`), or give own ones with ``{}``.
        phrases: use all phrases of a concept, not its name alone.
        anchor: text to map to; ``None`` is each concept's own anchor.
        bias: ``subtracted``, or ``as_released``.

    Raises:
        UserError: lam is not above 0, templates without ``{}``, an unknown bias; and when it edits, a concept that is
            its own anchor, or a text encoder that is not CLIP's.
    """

    name: ClassVar[str] = "quickfix"
    describe: ClassVar[str] = "diff-quickfix: the text encoder's first layer reads a concept as its anchor (ICLR 2024)"
    unsupported: ClassVar[Mapping[str, str]] = {
        "sd3": "it edits CLIP's text encoders, and T5 carries the text beside them",
        "flux": "it edits CLIP's text encoder, and T5 carries the text",
    }

    lam: float = 0.01
    use_eos: bool = False
    templates: bool | Sequence[str] = True
    phrases: bool = True
    anchor: str | None = None
    bias: str = "subtracted"

    def __post_init__(self) -> None:
        check_positive("quickfix", lam=self.lam)
        check_templates(self.templates)
        if self.bias not in ("subtracted", "as_released"):
            raise UserError(f"quickfix: bias {self.bias!r} is not one of subtracted, as_released")

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:
        """A phrase that is its own anchor is refused."""
        self.pairs(task)

    def pairs(self, task: ErasureTask) -> list[tuple[str, str]]:
        """Texts of the targets, each with the anchor text it goes to."""
        templates = PHOTO_TEMPLATES if self.templates is True else self.templates
        return [pair for target in task.targets for pair in phrase_pairs(target, self.anchor, self.phrases, templates)]

    def changes(self, pipe: Pipeline, task: ErasureTask) -> tuple[dict[str, Change], dict[str, Any]]:
        """One weight for each text encoder, of which SDXL has two."""
        pairs = self.pairs(task)
        kept = [text for text in task.retain if text]
        made: dict[str, Change] = {}
        notes: dict[str, Any] = {"pairs": [list(pair) for pair in pairs], "tokens": 0, "moved": {}, "warnings": []}
        for component, tokenizer, encoder in clip_encoders(pipe):
            place, layer = first_projection(encoder)
            keys = FirstLayer(tokenizer, encoder, layer).keys([*sum(pairs, ()), *kept], self.use_eos)
            sources, targets = matched(keys, pairs)
            change = pull(sources, targets, self.lam)
            others = [keys[text] for text in kept]
            shares = moved(change, {"target": sources, "retain": torch.cat(others) if others else sources[:0]})
            if self.bias == "as_released" and layer.bias is not None:
                change = change.at(layer.weight).plus(twice(layer.bias, sources, self.lam))
            name = f"{component}.{place}.weight"
            made[name] = change
            notes["tokens"] += len(sources)
            notes["moved"][name] = shares
            notes["warnings"] += [f"{name}: {text}" for text in warn_if_empty(shares, "lower lam")]
        return made, notes


class FirstLayer:
    """The inputs of the first layer's ``out_proj`` for texts. What comes after it is not computed."""

    def __init__(self, tokenizer: Any, encoder: nn.Module, layer: nn.Linear) -> None:
        self.tokenizer, self.encoder, self.layer = tokenizer, encoder, layer

    @torch.no_grad()
    def keys(self, texts: Sequence[str], use_eos: bool) -> dict[str, Tensor]:
        """Rows ``[n, d]`` float64 of each distinct text: its last content token (BOS if it is empty), and with
        ``use_eos`` EOS and padding."""
        distinct = list(dict.fromkeys(texts))
        tokens = self.tokenizer(
            distinct,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        last = (tokens.attention_mask.sum(dim=1) - 2).tolist()
        found: dict[str, Tensor] = {}
        for start in range(0, len(distinct), BATCH):
            batch = slice(start, start + BATCH)
            # Attention is causal, so positions behind the last one that is wanted change nothing.
            length = None if use_eos else max(last[batch]) + 1
            rows = self._inputs(tokens.input_ids[batch, :length].to(self.encoder.device))
            for text, position, row in zip(distinct[batch], last[batch], rows, strict=True):
                found[text] = row[position:] if use_eos else row[position : position + 1]
        return found

    def _inputs(self, ids: Tensor) -> Tensor:
        def stop(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            raise _Reached(inputs[0])

        handle = self.layer.register_forward_pre_hook(stop)
        try:
            self.encoder(ids)
        except _Reached as reached:
            return reached.rows.to("cpu", torch.float64)
        finally:
            handle.remove()
        raise UserError(f"{type(self.encoder).__name__}: its first layer's out_proj was not called; nothing to edit")


class _Reached(Exception):
    """Carries what the layer was given out of the encoder's forward."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows


def clip_encoders(pipe: Pipeline) -> list[tuple[str, Any, nn.Module]]:
    """Component name, tokenizer and text encoder of each CLIP text encoder of a pipeline.

    Raises:
        UserError: the pipeline has none, or has another kind beside.
    """
    found = []
    for suffix in ("", "_2", "_3"):
        encoder = part_of(pipe, f"text_encoder{suffix}")
        if encoder is None:
            continue
        if "CLIP" not in type(encoder).__name__:
            raise UserError(
                f"quickfix: text_encoder{suffix} is {type(encoder).__name__}; it edits CLIP's text encoders alone. "
                "Use a Stable Diffusion 1.x, 2.x or XL model"
            )
        found.append((f"text_encoder{suffix}", getattr(pipe, f"tokenizer{suffix}"), encoder))
    if not found:
        raise UserError(f"quickfix: {type(pipe).__name__} has no CLIP text encoder to edit")
    return found


def first_projection(encoder: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the first layer's ``self_attn.out_proj``, found by structure.

    Raises:
        UserError: there is none.
    """
    for name, module in encoder.named_modules():  # in the order of the layers
        if name.endswith("self_attn.out_proj") and isinstance(module, nn.Linear):
            return name, module
    raise UserError(f"quickfix: {type(encoder).__name__} has no self_attn.out_proj to edit")


def matched(keys: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """Rows of concepts and of their anchors, ``[n, d]`` each, every pair cut to the shorter of the two."""
    sources, targets = [], []
    for concept, anchor in pairs:
        length = min(len(keys[concept]), len(keys[anchor]))
        sources.append(keys[concept][:length])
        targets.append(keys[anchor][:length])
    return torch.cat(sources), torch.cat(targets)


def twice(bias: Tensor, sources: Tensor, lam: float) -> Change:
    """What the values gain when the bias is left in them: ``b (sum k)^T (lam I + sum k k^T)^-1``."""
    right = hold(sources, lam).sum(dim=0, keepdim=True)
    return Change(left=bias.detach().to("cpu", torch.float64)[:, None], right=right)
