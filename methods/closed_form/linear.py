"""The algebra that the closed-form erasers share.

They edit every weight that reads the text by a right multiplication, ``W_new = W (I + D)`` with one ``D`` of ``[d, d]``
for all of them, where d is the width of a token row. So ``D`` is worked out once, in float64, and kept in factors
where its rank is below a quarter of d; each layer then costs one thin product. Token vectors are rows here: a text's
rows are ``[n, d]``, and ``W_new c = W (c + D c)``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.eraser import Change, Eraser
from erasebench.errors import UserError
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import TextInput, text_inputs
from erasebench.prompts.formats import SUFFIXES
from erasebench.prompts.names import read_names

RESIDUAL = 1e-6
"""Largest relative residual of a solve that is accepted."""

GRAM_ROWS = 4096
"""Rows of one product of :func:`gram`."""

WEAK = 0.05
"""An edit that moves the concept's own tokens by less than this share of their length is called nearly empty."""


@dataclass(frozen=True)
class ClosedForm(Eraser):
    """An eraser that edits the weights which read the text.

    Attributes:
        where: by which way text enters: ``auto`` is the keys and values of cross-attention (UNets), or
            ``context_embedder+pooled`` (SD 3, FLUX). See :func:`erasebench.models.targets.text_inputs`.
    """

    where: str = field(default="auto", kw_only=True)

    @abstractmethod
    def solve(self, part: TextInput, task: ErasureTask) -> tuple[Change | Mapping[str, Change], dict[str, Any]]:
        """Work out the edit of one text input.

        Returns:
            One change for all its weights, or one for each by name; and JSON-able notes.
        """

    def changes(self, pipe: Pipeline, task: ErasureTask) -> tuple[dict[str, Change], dict[str, Any]]:
        """The changes of all text inputs. Notes of several inputs stand under their names."""
        made: dict[str, Change] = {}
        notes: dict[str, dict[str, Any]] = {}
        for part in text_inputs(pipe, self.where):
            change, notes[part.name] = self.solve(part, task)
            made |= dict.fromkeys(part.weights, change) if isinstance(change, Change) else change
        warnings = [text for about in notes.values() for text in about.pop("warnings", [])]
        joined = next(iter(notes.values())) if len(notes) == 1 else notes
        return made, {**joined, "where": "+".join(notes), **({"warnings": warnings} if warnings else {})}


def gram(parts: Iterable[Tensor], width: int) -> Tensor:
    """Sum of ``rows^T rows`` over tensors ``[n_i, width]``: ``[width, width]`` float64. Zero if there are none.

    Parts are put together to some thousand rows a product, so that short ones cost no more than long ones.
    """
    total = torch.zeros(width, width, dtype=torch.float64)
    waiting: list[Tensor] = []
    count = 0
    for rows in parts:
        waiting.append(rows)
        count += len(rows)
        if count >= GRAM_ROWS:
            stacked = torch.cat(waiting).double()
            total.addmm_(stacked.T, stacked)
            waiting, count = [], 0
    if waiting:
        stacked = torch.cat(waiting).double()
        total.addmm_(stacked.T, stacked)
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


def factored(token: Tensor, right: Tensor) -> Change:
    """The map of tokens ``token @ right``, ``[d, r]`` and ``[r, d]``, in the cheaper form.

    Factors are kept below a quarter of the width. Above, they are made smaller if their true rank (at float64
    precision, so nothing is lost) is below it, else multiplied out.
    """
    width = token.shape[0]
    if 4 * right.shape[0] < width:
        return Change(token=token, right=right)
    return smallest(token @ right)


def smallest(change: Tensor) -> Change:
    """A map of tokens ``[d, d]`` in factors if its rank is below a quarter of d, else as it is.

    Raises:
        UserError: it is not finite.
    """
    if not torch.isfinite(change).all():
        raise UserError("the edit's matrix has NaN or infinite numbers; check the eraser's options and the model")
    width = len(change)
    # A random sketch has the rank of what it is a sketch of, up to its own width, in a tenth of the time of the SVD.
    probe = torch.randn(width, -(-width // 4), generator=torch.Generator().manual_seed(0), dtype=change.dtype)
    if 4 * _rank(torch.linalg.svdvals(change @ probe), width) >= width:
        return Change(token=change)
    u, s, right = torch.linalg.svd(change)
    rank = _rank(s, width)
    if 4 * rank >= width:
        return Change(token=change)
    return Change(token=u[:, :rank] * s[:rank], right=right[:rank].contiguous())


def _rank(values: Tensor, width: int) -> int:
    """How many singular values are above rounding."""
    return int((values > values[0] * width * torch.finfo(values.dtype).eps).sum())


def pull(
    sources: Tensor,
    targets: Tensor,
    lam: float,
    erase_scale: float = 1.0,
    keep: Tensor | None = None,
    keep_scale: float = 1.0,
    keep_gram: Tensor | None = None,
) -> Change:
    """The map of tokens that pulls source tokens to target tokens and keeps others in place.

    For every weight W at once it minimises, over ``W_new = W (I + D)``,
    ``erase_scale sum ||W_new c - W c*||^2 + keep_scale sum ||W_new p - W p||^2 + lam ||W_new - W||_F^2``,
    which is solved by ``D = erase_scale sum (c* - c) c^T A^-1`` with
    ``A = lam I + erase_scale sum c c^T + keep_scale sum p p^T`` (UCE, equation 7 of the paper, with W taken out).

    Args:
        sources, targets: ``[n, d]``, row i of one goes to row i of the other.
        lam: weight of staying near W, above 0 unless ``keep_gram`` has full rank.
        erase_scale, keep_scale: weights of the two sums.
        keep: ``[m, d]``, tokens to keep.
        keep_gram: ``[d, d]``, the gram matrix of more tokens to keep (:func:`gram`).

    Raises:
        UserError: the equations have no unique solution.
    """
    return factored(
        (targets.double() - sources.double()).T, hold(sources, lam, erase_scale, keep, keep_scale, keep_gram)
    )


def hold(
    sources: Tensor,
    lam: float,
    erase_scale: float = 1.0,
    keep: Tensor | None = None,
    keep_scale: float = 1.0,
    keep_gram: Tensor | None = None,
) -> Tensor:
    """The right factor of :func:`pull`: ``erase_scale C A^-1`` with the sources as rows of C, ``[n, d]`` float64.

    With fewer tokens than the width, the equations are solved between tokens instead of between coordinates:
    ``X (lam I + X^T X)^-1 = (lam I + X X^T)^-1 X`` for the stacked, scaled rows X.
    """
    sources = sources.double()
    keep = sources[:0] if keep is None else keep.double()
    if keep_gram is None and len(sources) + len(keep) < sources.shape[1]:
        rows = torch.cat([erase_scale**0.5 * sources, keep_scale**0.5 * keep])
        system = rows @ rows.T
        system.diagonal().add_(lam)
        return erase_scale**0.5 * solve_spd(system, rows)[: len(sources)]
    system = erase_scale * (sources.T @ sources) + keep_scale * (keep.T @ keep)
    if keep_gram is not None:
        system += keep_scale * keep_gram
    system.diagonal().add_(lam)
    return erase_scale * solve_spd(system, sources.T).T


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


def moved(change: Change, groups: Mapping[str, Tensor]) -> dict[str, float]:
    """How far a map of tokens moves groups of token rows: the mean of ``||D c|| / ||c||`` by group.

    Args:
        groups: rows ``[n, d]`` by name, e.g. ``target``, ``retain``, ``bos``; empty groups are left out.
    """
    return {
        name: (torch.linalg.norm(change.rows(rows), dim=1) / torch.linalg.norm(rows.double(), dim=1)).mean().item()
        for name, rows in groups.items()
        if len(rows)
    }


def warn_if_empty(shares: Mapping[str, float], why: str) -> list[str]:
    """A warning, in a list, if an edit hardly moves its own targets (:data:`WEAK`); otherwise none."""
    share = shares.get("target", 1.0)
    if share >= WEAK:
        return []
    return [f"the edit is nearly empty: it moves the concept's tokens by {100 * share:.2g} % of their length; {why}"]


# Texts -------------------------------------------------------------------------------------------------------------

CONCEPT_TEMPLATES = {
    "artist": ("painting by {}", "art by {}", "artwork by {}", "picture by {}", "style of {}"),
    "object": ("image of {}", "photo of {}", "portrait of {}", "picture of {}", "painting of {}"),
}
"""The short templates of the UCE release, by kind; celebrities and unsafe content take those of objects."""


def expand(text: str, kind: str, templates: bool | Sequence[str]) -> list[str]:
    """The text alone, then in each template.

    Args:
        text: a concept, or the anchor it goes to; both are expanded alike, also when the text is ``""``.
        kind: kind of concept, picks from :data:`CONCEPT_TEMPLATES`.
        templates: ``False`` none, ``True`` those of the kind, or own ones with ``{}`` where the text goes.
    """
    chosen = CONCEPT_TEMPLATES.get(kind, CONCEPT_TEMPLATES["object"]) if templates is True else templates or ()
    return [text, *(template.replace("{}", text) for template in chosen)]


def check_templates(templates: Any) -> None:
    """Refuse templates that are neither a switch nor texts with ``{}``."""
    if not isinstance(templates, bool):
        for template in templates:
            if not isinstance(template, str) or "{}" not in template:
                raise UserError(f"template {template!r}: mark where the concept goes with {{}}, e.g. 'a photo of {{}}'")


def listed(keep: str | Sequence[str], option: str) -> str | Sequence[str]:
    """Texts to keep as :func:`keep_texts` takes them; a file of names (:func:`erasebench.prompts.names.read_names`) is read.

    Raises:
        UserError: the file cannot be read.
    """
    if isinstance(keep, str) and Path(keep).suffix.lower() in SUFFIXES:
        return read_names(keep, option)
    return keep


def keep_texts(keep: str | Sequence[str], task_retain: Sequence[str], option: str) -> list[str]:
    """Texts to keep: ``task`` for the task's own retain list, ``none``, or a list; each once.

    Raises:
        UserError: a single string that is neither word.
    """
    if isinstance(keep, str):
        if keep not in ("task", "none"):
            raise UserError(
                f"{option}={keep!r}: use task, none, a list of texts, e.g. {option}=[{keep}], or a file of names"
            )
        keep = task_retain if keep == "task" else ()
    return list(dict.fromkeys(keep))


def check_positive(name: str, **values: float | None) -> None:
    """Refuse options that are not finite numbers above 0 (``None`` passes)."""
    for option, value in values.items():
        if value is not None and not (isinstance(value, int | float) and 0 < value < float("inf")):
            raise UserError(f"{name}: {option} is {value!r}; it must be a number above 0")


def phrase_pairs(
    target: Concept, anchor: str | None, phrases: bool, templates: bool | Sequence[str], bare_anchor: bool = False
) -> list[tuple[str, str]]:
    """Texts of a concept, each with the anchor text it goes to.

    Args:
        target: the concept.
        anchor: in place of the concept's own anchor.
        phrases: all its phrases, not its name alone.
        templates: as :func:`expand` takes them; anchors are expanded alike.
        bare_anchor: anchors are not expanded.

    Raises:
        UserError: a phrase is the anchor itself, so there would be nothing to erase.
    """
    anchor = target.anchor if anchor is None else anchor
    chosen = target.phrases if phrases else (target.name,)
    for phrase in chosen:
        if phrase.strip().casefold() == anchor.strip().casefold():
            raise UserError(
                f"concept {target.name!r}: {phrase!r} is also the anchor it would be mapped to, which erases nothing; "
                "choose another anchor, e.g. task.anchor='' or method.anchor=art"
            )
    anchors = expand(anchor, target.kind, templates)
    if bare_anchor:
        anchors = [anchor] * len(anchors)
    return [pair for phrase in chosen for pair in zip(expand(phrase, target.kind, templates), anchors, strict=True)]


def pair_rows(part: TextInput, pairs: Sequence[tuple[str, str]], rule: str) -> list[tuple[Tensor, Tensor]]:
    """Rows ``[n_i, d]`` float64 of each text and of its anchor, cut to the shorter of the two."""
    return part.pairs(pairs, rule)


def keeping(part: TextInput, texts: Sequence[str], rule: str) -> dict[str, Tensor]:
    """Kept texts as :func:`pull` takes them: their rows as ``keep``, or if these are many, ``keep_gram``."""
    rows = part.texts.rows(texts, rule) if texts else []
    if sum(len(one) for one in rows) < part.width:
        return {"keep": stacked(part, texts, rule)}
    return {"keep_gram": gram((part.rows([text], rule)[0] for text in texts), part.width)}


def stacked(part: TextInput, texts: Sequence[str], rule: str) -> Tensor:
    """Token rows of texts by a rule, stacked: ``[n, d]`` float64; no texts give no rows."""
    return torch.cat([torch.zeros(0, part.width, dtype=torch.float64), *part.rows(texts, rule)])
