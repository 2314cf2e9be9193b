"""MACE (Lu et al., CVPR 2024), stage 1: closed-form refinement of co-existing words.

In a sentence, what stands beside a concept's name carries the concept too, because the text encoder mixes words: the
words after it, the end-of-text row and all padding. Stage 1 moves those rows to what they are beside a harmless word.
The rows of the name itself are no target of it. In the method they are the matter of stage 2, which trains one LoRA a
concept (:mod:`erasebench.methods.trained.mace`). So numbers of stage 1 are not numbers of MACE, and
how much of a directly named concept stage 1 alone leaves depends on how much a model reads from the padding.
Stage 3 is :mod:`erasebench.methods.closed_form.fusion`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from erasebench.concepts import ErasureTask
from erasebench.edits.change import Change
from erasebench.edits.eraser import Eraser
from erasebench.edits.label import OF_THIS_MACHINE
from erasebench.errors import UserError
from erasebench.methods.closed_form.linear import (
    ClosedForm,
    check_positive,
    moved,
    phrase_pairs,
    smallest,
    solve_spd,
    stacked,
    warn_if_empty,
)
from erasebench.methods.closed_form.preserve import encoders, forgetful, preserve_gram, prompts_hash
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import TextInput
from erasebench.progress import progress
from erasebench.prompts.names import read_captions, read_names

_OBJECT = """\
{} in a photo; a photo of {}; a picture of {}; an image that shows {}; here is {}; a small {}; a large {} outdoors;
{} on a white background; {} on a table; {} near a tree; {} in the morning; {} at night; {} under a blue sky;
{} and a chair; a bright photo of {}; a dark photo of {}; {} seen from above; {} seen from far away;
a close photo of {}; a drawing of {}; a painting of {}; {} in the rain; {} in the snow; an old photo of {};
a new image of {}; {} in a film; a friend with {}; {} and a man; a woman beside {}; a picture of {} in colour"""
_ARTIST = """\
a painting by {}; a picture by {}; art by {}; a drawing by {}; an image in the style of {}; a tree by {};
a portrait in the style of {}; a landscape by {}; the sea as {} would paint it; {} painted a house;
a room in the manner of {}; a late work of {}; an early work of {}; a large painting by {} in a museum;
a sketch by {} on paper; flowers painted by {}; a street at night by {}; a copy of a painting by {};
{} and the art of the time; a photo made to look like {}; an animal painted by {}; a boat in the style of {};
the colours of {}; the brush of {} on canvas; a famous picture by {}; an unknown picture by {};
a chair painted in the style of {}; a city in the style of {}; a poster after {}; a book about {} with pictures"""
OBJECT, ARTIST = (tuple(text.strip() for text in texts.split(";")) for texts in (_OBJECT, _ARTIST))
"""Sentences around a concept; 30 is the release's number, the sentences are ours. All kinds but artists take
``OBJECT``."""

BATCH = 8
"""Phrases whose prompts are encoded together; their rows are then summed and forgotten."""


@dataclass(frozen=True)
class Setting:
    """Defaults for one kind of concept.

    Attributes:
        lam: weight of staying near the original weights, where there is a file of prompts to keep.
        lam_alone: the same where there is none.
        preserve_scale: weight of the preserve cache.
        domain_weight: weight of the domain's rows within the cache, by the least number of concepts (from 1).
    """

    lam: float
    lam_alone: float
    preserve_scale: float
    domain_weight: Mapping[int, float]


@dataclass(frozen=True)
class Refinement(ClosedForm):
    """An edit that moves rows of a concept's sentences to rows of an anchor's, beside a preserve cache.

    For every weight W at once: ``W_new = W (I + D)`` with ``D = sum (c* - c) c^T (lam I + sum c c^T + s B)^-1``, over
    pairs of rows c of a concept's sentence and c* of the anchor's, and the gram matrix B of the preserve cache
    (MACE, equation of stage 1, with W taken out).

    Attributes:
        lam: weight of staying near the original weights; ``None`` is the default of the kind. 0 needs ``preserve`` or
            ``domain``.
        anchor: text to map to; ``None`` is each concept's own anchor.
        phrases: edit all phrases of a concept, not its name alone.
        templates: sentences with ``{}`` where the concept goes, as a word of its own; ``None`` is the method's own.
        preserve: file of prompts whose rows are kept, all of them
            (:func:`~erasebench.prompts.names.read_captions`); ``None`` for none.
        domain: neighbours of the concept whose rows are kept in the same sentences: ``none``, ``task`` (the task's
            retain list), or a file of names.
        domain_weight: weight of the domain's rows beside those of ``preserve``; ``None`` is the default of the kind.
        preserve_scale: weight s of both together; ``None`` is the default of the kind.
        squared_scale: use s squared.
        cache_dir: folder of preserve caches; ``None`` is below the user's cache folder. It does not alter the edit.

    Raises:
        UserError: an option out of range, or a file that cannot be read.
    """

    settings_by_kind: ClassVar[Mapping[str, Setting]]
    unsupported: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("sd3", "flux"),
        "it pairs rows around the concept, which takes a text encoder that reads in one direction (CLIP); "
        "T5 reads in both, so no row is free of the concept",
    )

    lam: float | None = None
    anchor: str | None = None
    phrases: bool = True
    templates: Sequence[str] | None = None
    preserve: str | None = None
    domain: str = "task"
    domain_weight: float | None = None
    preserve_scale: float | None = None
    squared_scale: bool = False
    cache_dir: str | None = field(default=None, metadata=OF_THIS_MACHINE)

    def __post_init__(self) -> None:
        check_positive(self.name, preserve_scale=self.preserve_scale, domain_weight=self.domain_weight)
        if self.lam != 0:
            check_positive(self.name, lam=self.lam)
        for template in self.templates or ():
            if not isinstance(template, str) or template.count("{}") != 1:
                raise UserError(
                    f"{self.name}: template {template!r}: mark once where the concept goes with {{}}, "
                    "e.g. 'a photo of {} at night'"
                )
        if self.templates is not None and not self.templates:
            raise UserError(f"{self.name}: templates is empty; give sentences with {{}}, or null for the method's own")
        if self.lam == 0 and self.preserve is None and self.domain == "none":
            raise UserError(self._needs_cache("there is none"))
        _ = self._files

    @abstractmethod
    def default_templates(self, kind: str) -> Sequence[str]:
        """The method's own sentences for a kind of concept."""

    @abstractmethod
    def refine(
        self, part: TextInput, pairs: Sequence[tuple[str, str]], templates: Sequence[str], **system: Any
    ) -> tuple[Change, dict[str, Any]]:
        """Solve for the map of tokens.

        Args:
            pairs: phrases and the anchor of each.
            templates: sentences for both.
            system: ``lam``, and with a preserve cache ``keep_gram`` and ``keep_scale``, as
                :func:`~erasebench.methods.closed_form.linear.pull` takes them.
        """

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:
        """A phrase that is its own anchor is refused, and ``lam`` 0 where nothing else holds the weights in place."""
        self.pairs(task)
        if self.lam == 0 and not self._files and not any(task.retain):
            raise UserError(self._needs_cache("the task's retain list is empty"))

    def pairs(self, task: ErasureTask) -> list[tuple[str, str]]:
        """Phrases of the targets, each with the anchor it goes to."""
        return [pair for target in task.targets for pair in phrase_pairs(target, self.anchor, self.phrases, False)]

    def solve(self, part: TextInput, task: ErasureTask) -> tuple[Change, dict[str, Any]]:
        """The closed-form edit of all targets at once."""
        pairs = self.pairs(task)
        system, about = self.system(part, task)
        change, notes = self.refine(part, pairs, self.sentences(task.kind), **system)
        probe = stacked(part, [text for text in task.retain if text][:64], "content_eos")
        notes["moved"] |= moved(change, {"retain": probe})
        return change, {"pairs": [list(pair) for pair in pairs], **about, **notes}

    def sentences(self, kind: str) -> tuple[str, ...]:
        """Sentences with ``{}`` around a concept of a kind."""
        return tuple(self.templates or self.default_templates(kind))

    def system(self, part: TextInput, task: ErasureTask) -> tuple[dict[str, Any], dict[str, Any]]:
        """What holds the weights in place: ``lam``, and with a preserve cache ``keep_gram`` and ``keep_scale``; and notes.

        Raises:
            UserError: nothing does.
        """
        defaults, templates = self.settings_by_kind[task.kind], self.sentences(task.kind)
        kept, about = self._kept(part, task, templates, defaults)
        lam = self.lam
        if lam == 0 and kept is None:
            raise UserError(self._needs_cache("the task's retain list is empty"))
        if lam is None:
            lam = defaults.lam_alone if self.preserve is None else defaults.lam
        scale = defaults.preserve_scale if self.preserve_scale is None else self.preserve_scale
        scale = scale**2 if self.squared_scale else scale
        system: dict[str, Any] = {"lam": lam} | ({} if kept is None else {"keep_gram": kept, "keep_scale": scale})
        preserve = {**about, "scale": scale} if about else None
        return system, {"templates": list(templates), "lam": lam, "preserve": preserve}

    def _needs_cache(self, why: str) -> str:
        return (
            f"{self.name}: lam=0 needs a preserve cache and {why}, so the equations have no unique solution; "
            "give method.preserve=FILE (prompts) or method.domain (task, or a file of names), or a lam above 0"
        )

    def key(self, model_identity: str, task: ErasureTask) -> str:
        """As of every eraser; the content of the prompt files counts, and the cache's folder does not."""
        plain = Eraser.key(replace(self, cache_dir=None), model_identity, task)
        hashes = {option: prompts_hash(prompts) for option, prompts in self._files.items()}
        return prompts_hash([plain, *map(str, hashes.items())]) if hashes else plain

    @cached_property
    def _files(self) -> dict[str, tuple[str, ...]]:
        """Texts of the files that the options name."""
        texts: dict[str, tuple[str, ...]] = {}
        if self.preserve is not None:
            texts["preserve"] = read_captions(self.preserve, "method.preserve")
        if self.domain not in ("none", "task"):
            texts["domain"] = read_names(self.domain, "method.domain")
        return texts

    def _kept(
        self, part: TextInput, task: ErasureTask, templates: Sequence[str], defaults: Setting
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """The gram matrix of the preserve cache, ``None`` if there is none, and what is in it."""
        kept: Tensor | None = None
        about: dict[str, Any] = {}
        if "preserve" in self._files:
            kept = preserve_gram(part, self._files["preserve"], "all", self.cache_dir)
            about |= {"prompts": len(self._files["preserve"]), "hash": prompts_hash(self._files["preserve"])}
        names = self._files.get("domain", tuple(filter(None, task.retain)) if self.domain == "task" else ())
        if names:
            weight = self.domain_weight
            if weight is None:
                table = defaults.domain_weight
                weight = table[max(number for number in table if number <= len(task.targets))]
            prompts = [template.replace("{}", name) for name in names for template in templates]
            domain = weight * preserve_gram(part, prompts, "all", self.cache_dir)
            kept = domain if kept is None else kept + domain
            about |= {"domain": list(names), "domain_weight": weight}
        return kept, about


@dataclass(frozen=True)
class MaceCfr(Refinement):
    """MACE stage 1: words beside a concept's name become what they are beside its anchor.

    Rows of a pair of sentences: all positions but the concept's own tokens, that is BOS and the words before, which
    are equal in both and so are kept in place, then the words after, EOS and the padding, side by side and cut to the
    shorter. (As released, tokens that concept and anchor share at their ends count as words beside them too.)

    The release's settings by kind: lam 1000, 100 or 10 for objects (it differs by object; we take 100) and no caches;
    for the rest lam 0 and caches, scale 1e-4 (explicit content 7e-7 and captions alone), domain weight 8e3, 5e4, 8e4,
    2e5 for 1, 5, 10, 100 celebrities and 8e4 for 100 artists. The scales suit the half million captions of COCO; with
    a smaller file raise ``preserve_scale``. As released, stage 1 uses the scale squared (``squared_scale``); the
    default is the scale once, as in the equation.

    Ours: the sentences; the task's retain list as the domain for every kind, weighted for objects as for celebrities and
    for unsafe content 1.1e6 (scale times weight is 0.8 then, as for one celebrity); lam 100 wherever there is no file
    of captions. Measured on the embedded model, 8 prompts a concept (judge, erased down and retained up, in %): one
    object at a time 8 and 100 at weight 8e3, 50 and 100 at 8e4, 12 and 91 with no domain; lam 1000 leaves 92.
    """

    name: ClassVar[str] = "mace_cfr"
    describe: ClassVar[str] = "MACE stage 1: words beside a concept's name go to those beside an anchor (CVPR 2024)"
    settings_by_kind: ClassVar[Mapping[str, Setting]] = {
        "object": Setting(
            lam=100.0, lam_alone=100.0, preserve_scale=1e-4, domain_weight={1: 8e3, 5: 5e4, 10: 8e4, 100: 2e5}
        ),
        "artist": Setting(lam=0.0, lam_alone=100.0, preserve_scale=1e-4, domain_weight={1: 8e4}),
        "celebrity": Setting(
            lam=0.0, lam_alone=100.0, preserve_scale=1e-4, domain_weight={1: 8e3, 5: 5e4, 10: 8e4, 100: 2e5}
        ),
        "unsafe": Setting(lam=0.0, lam_alone=100.0, preserve_scale=7e-7, domain_weight={1: 1.1e6}),
    }

    def default_templates(self, kind: str) -> Sequence[str]:
        """Thirty sentences for artists, thirty for the rest."""
        return ARTIST if kind == "artist" else OBJECT

    def refine(
        self, part: TextInput, pairs: Sequence[tuple[str, str]], templates: Sequence[str], **system: Any
    ) -> tuple[Change, dict[str, Any]]:
        """Sums of outer products over all rows, some phrases at a time, and one solve."""
        cross = torch.zeros(part.width, part.width, dtype=torch.float64)
        gram = torch.zeros_like(cross)
        count = 0
        sample: dict[str, Tensor] = {}
        with progress(self.name, len(pairs) if len(pairs) > BATCH else 0, "phrases") as advance:
            for start in range(0, len(pairs), BATCH):
                batch = pairs[start : start + BATCH]
                before, own, after, goals = beside(part, batch, templates)
                cross.addmm_((goals - after).T, after)  # the words before are equal in both
                gram.addmm_(before.T, before).addmm_(after.T, after)
                count += len(before) + len(after)
                sample = sample or {"beside": after, "concept": own}
                advance(len(batch))
        change = pull_sums(cross, gram, **system)
        shares = moved(change, sample)
        why = "lower lam or preserve_scale, or choose an anchor that differs more"
        return change, {
            "tokens": {"edit": count, "edit_rows": "all but the concept's own"},
            "moved": shares,
            "warnings": warn_if_empty({"target": shares.get("beside", 1.0)}, why),
        }


def beside(part: TextInput, pairs: Sequence[tuple[str, str]], templates: Sequence[str]) -> tuple[Tensor, ...]:
    """Rows of all sentences about some phrases, sorted by where they stand.

    Args:
        pairs: phrases and the anchor of each.
        templates: sentences with ``{}``.

    Returns:
        Four tensors ``[n, d]`` float64: rows before the phrase's own tokens (BOS among them), its own, those after, and
        those after the anchor beside the latter, row by row.
    """
    fresh = forgetful(part)  # rows of phrases are not met again; those of anchors are, and stay in `part`
    sentences = [(template, *pair) for pair in pairs for template in templates]
    rows = fresh.rows([template.replace("{}", phrase) for template, phrase, _ in sentences], "all")
    goal_rows = part.rows([template.replace("{}", anchor) for template, _, anchor in sentences], "all")
    before, own, after, goals = [], [], [], []
    for (template, phrase, anchor), row, goal in zip(sentences, rows, goal_rows, strict=True):
        (first, last), (_, behind) = span(part, template, phrase), span(part, template, anchor)
        length = min(len(row) - last, len(goal) - behind)
        before.append(row[:first])
        own.append(row[first:last])
        after.append(row[last : last + length])
        goals.append(goal[behind : behind + length])
    return torch.cat(before), torch.cat(own), torch.cat(after), torch.cat(goals)


def pull_sums(
    cross: Tensor, gram: Tensor, lam: float, keep_gram: Tensor | None = None, keep_scale: float = 1.0
) -> Change:
    """:func:`~erasebench.methods.closed_form.linear.pull` from sums over the rows: for more rows than memory holds.

    Args:
        cross: ``sum (c* - c) c^T``, ``[d, d]`` float64.
        gram: ``sum c c^T``, ``[d, d]`` float64.
        lam, keep_gram, keep_scale: as ``pull`` takes them.
    """
    return smallest(solve_spd(system_of(gram, lam, keep_gram, keep_scale), cross.T).T)


def system_of(gram: Tensor, lam: float, keep_gram: Tensor | None, keep_scale: float) -> Tensor:
    """``lam I + sum c c^T + s B``."""
    system = gram.clone() if keep_gram is None else gram + keep_scale * keep_gram
    system.diagonal().add_(lam)
    return system


def span(part: TextInput, template: str, text: str) -> tuple[int, int]:
    """Where a text's own tokens stand in a sentence: first position and the one behind the last; BOS is position 0.

    Raises:
        UserError: the text is not a word of its own there (its tokens change with what is around it), or the sentence
            is longer than the text encoder reads.
    """
    prefix, suffix = template.split("{}")
    prompt = template.replace("{}", text)
    start = stop = 0
    for tokenizer, _ in encoders(part):

        def ids(piece: str, tokenizer: Any = tokenizer) -> list[int]:
            return tokenizer(piece, add_special_tokens=False, verbose=False).input_ids

        pieces = [ids(prefix), ids(text), ids(suffix)]
        if sum(pieces, []) != ids(prompt):
            raise UserError(
                f"sentence {template!r} with {text!r}: the tokens of {text!r} change with what stands beside it, so "
                "its own cannot be told from the rest; put spaces around {} in method.templates"
            )
        if sum(map(len, pieces)) > tokenizer.model_max_length - 2:
            raise UserError(
                f"sentence {template!r} with {text[:60]!r}: longer than the {tokenizer.model_max_length} positions the "
                "text encoder reads; shorten the concept's phrase or method.templates"
            )
        start, stop = 1 + len(pieces[0]), 1 + len(pieces[0]) + len(pieces[1])
    return start, stop
