"""LEACE, least-squares concept erasure (NeurIPS 2023, arXiv 2306.03819), in our adaptation to cross-attention.

The paper erases a concept from the hidden states of language models. No paper that we know of applies it to the
weights of a diffusion model; what follows is ours, and so are its choices of prompts, rows and labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.change import Change
from erasebench.errors import UserError, suggest
from erasebench.methods.closed_form.linear import ClosedForm, check_positive, check_templates, expand, moved, stacked
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import TextInput
from erasebench.models.text import check_rule
from erasebench.prompts.names import read_names

METHODS = ("leace", "orth")


@dataclass(frozen=True)
class Leace(ClosedForm):
    """LEACE (our adaptation to cross-attention): what tells a concept from others can no longer be read linearly.

    Rows x are tokens of prompts; label column j is 1 on the prompts of concept j and 0 elsewhere; the controls, in
    the same templates, are 0 in all columns. With ``S = Cov(x)``, ``C = Cov(x, z)`` and ``u`` the left singular
    vectors of ``S^-1/2 C``: ``A = S^1/2 u``, ``B = u^T S^-1/2`` and ``W_new = W (I - A B)`` for every weight that
    reads text. Of all projections that make the covariance of ``(I - A B) x`` and z zero, and so the class means
    equal, this one moves x least in the mean square. Its rank is at most the number of concepts.

    Two things differ from the published package ``concept-erasure``:

    - No affine part. The paper subtracts ``A B (x - mean)``; keys and values have no bias that could take up
      ``A B mean``, so ``A B x`` is subtracted. Classes are as equal as with it, but all of them are moved by the same
      vector, whose size is in the notes (``shift``). (After a final layer norm with scale g and offset b,
      ``sum(x / g)`` is the same for every row, so the constant could ride on it. On the embedded model that takes a
      change 1000 times as large as the weights, so we leave it.)
    - No ``constrain_cov_trace``. It acts only if the projection raises the trace of the covariance, and it cannot:
      ``trace((I - A B) S (I - A B)^T) = trace(S) - ||A||_F^2``.

    Attributes:
        token_rule: which rows of each prompt enter, see ``erasebench.models.text.TOKEN_RULES``. One mean row a prompt, with
            templates, was chosen by measuring all kinds on the embedded model.
        method: ``leace``, or ``orth``: the same without whitening, an orthogonal projection (S = I).
        shrinkage: estimate S by optimal linear shrinkage towards a multiple of the identity. Without it give at
            least twice as many rows as the embedding is wide; with fewer rows the inverse is taken on their span.
        svd_tol: singular values of ``S^-1/2 C`` (of C for ``orth``) up to this are dropped.
        templates: prompts in which concepts and controls are named; ``True`` takes five short ones, or give own ones
            with ``{}``. The name alone is always used, too.
        phrases: use all phrases of a concept, not its name alone.
        controls: what the concept is told apart from. ``task`` (the task's retain list), a list of names, or a
            file of names (:func:`erasebench.prompts.names.read_names`), each taken once.

    Raises:
        UserError: an unknown rule or method, a tolerance that is not above 0, a file of controls that cannot be used.
    """

    name: ClassVar[str] = "leace"
    describe: ClassVar[str] = "LEACE (our adaptation to cross-attention): class means of tokens made equal, closed form"

    token_rule: str = "mean"
    method: str = "leace"
    shrinkage: bool = True
    svd_tol: float = 0.01
    templates: bool | Sequence[str] = True
    phrases: bool = True
    controls: str | Sequence[str] = "task"

    def __post_init__(self) -> None:
        check_rule(self.token_rule)
        if self.method not in METHODS:
            raise UserError(f"leace: method {self.method!r} is not one of {', '.join(METHODS)}")
        check_positive("leace", svd_tol=self.svd_tol)
        check_templates(self.templates)
        if isinstance(self.controls, str) and self.controls != "task":  # the names are kept, as the file may change
            if not Path(self.controls).suffix:
                hint = suggest(self.controls, ("task",))
                raise UserError(f"leace: controls={self.controls}: not task, a list or a file of names.{hint}")
            names = dict.fromkeys(read_names(self.controls, "method.controls"))
            object.__setattr__(self, "controls", tuple(names))

    def solve(self, part: TextInput, task: ErasureTask) -> tuple[Change, dict[str, Any]]:
        """One change of rank k or less for k concepts, shared by all weights of the part."""
        forget = [self.texts(target) for target in task.targets]
        controls = self.control_names(task)
        compared = [text for name in controls for text in expand(name, task.kind, self.templates)]
        groups = [stacked(part, texts, self.token_rule) for texts in (*forget, compared)]
        rows, labels = torch.cat(groups), one_column_each([len(group) for group in groups[:-1]], len(groups[-1]))
        left, right, facts = fit(rows, labels, self.method, self.shrinkage, self.svd_tol)
        change = Change(token=-left, right=right)
        means = [group.mean(dim=0, keepdim=True) for group in groups]
        after = [mean + change.rows(mean) for mean in means]
        notes = {
            "texts": dict(zip(task.names, forget, strict=True)),
            "controls": controls,
            "token_rule": self.token_rule,
            "tokens": {"concept": sum(len(group) for group in groups[:-1]), "control": len(groups[-1])},
            **facts,
            "shift": torch.linalg.norm(change.rows(rows.mean(dim=0, keepdim=True))).item(),
            "distance_to_controls": {
                name: {
                    "before": torch.linalg.norm(means[i] - means[-1]).item(),
                    "after": torch.linalg.norm(after[i] - after[-1]).item(),
                }
                for i, name in enumerate(task.names)
            },
            "moved": moved(change, {"target": torch.cat(groups[:-1]), "control": groups[-1]}),
            "warnings": self.warnings(rows, facts, len(forget)),
        }
        return change, notes

    def texts(self, target: Concept) -> list[str]:
        """The prompts of a concept."""
        phrases = target.phrases if self.phrases else (target.name,)
        return list(dict.fromkeys(text for phrase in phrases for text in expand(phrase, target.kind, self.templates)))

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:
        """A task without controls is refused, and one whose concept is a control."""
        self.control_names(task)

    def control_names(self, task: ErasureTask) -> list[str]:
        """The names that a concept is told apart from, each once.

        Raises:
            UserError: there are none, or one of them is a name or phrase of a concept.
        """
        names = [name for name in dict.fromkeys(task.retain if self.controls == "task" else self.controls) if name]
        if not names:
            raise UserError(
                f"leace: nothing to tell {task.label} apart from, as the task retains nothing. Give "
                "task.retain=others, or names of the same kind in method.controls=[...] or method.controls=FILE.csv"
            )
        own = {phrase.casefold() for target in task.targets for phrase in target.phrases}
        for name in names:
            if name.casefold() in own:
                raise UserError(f"leace: {name!r} is to be erased and is a control, too; take it out of the controls")
        return names

    def warnings(self, rows: Tensor, facts: dict[str, Any], concepts: int) -> list[str]:
        """What a reader of the numbers should know."""
        count, width = rows.shape
        found = []
        if self.method == "leace" and not self.shrinkage and count < 2 * width:
            found.append(
                f"leace: {count} rows for a covariance of {width} x {width}, inverted on their span alone; "
                "use method.shrinkage=true, or more controls or templates"
            )
        if facts["columns"] < concepts:
            found.append(
                f"leace: {facts['columns']} of {concepts} directions are above svd_tol={self.svd_tol}; "
                "the rest is not erased. Lower method.svd_tol, or give fewer controls"
            )
        return found


def one_column_each(counts: Sequence[int], controls: int) -> Tensor:
    """Labels ``[n, k]`` float64: column j is 1 on the rows of group j; the last ``controls`` rows are 0 in all."""
    groups = torch.repeat_interleave(torch.arange(len(counts) + 1), torch.tensor([*counts, controls]))
    return torch.nn.functional.one_hot(groups, len(counts) + 1)[:, :-1].double()


def fit(rows: Tensor, labels: Tensor, method: str, shrinkage: bool, svd_tol: float) -> tuple[Tensor, Tensor, dict]:
    """``A`` and ``B`` of LEACE, so that ``(I - A B) x`` has no covariance with the labels.

    All of it happens in the span of the centred rows, where the cross-covariance lies: a thin SVD of ``[n, d]`` for
    few rows, eigenvectors of ``[d, d]`` for many.

    Args:
        rows: ``[n, d]`` float64, n at least 2.
        labels: ``[n, k]`` float64, no column constant.
        method, shrinkage, svd_tol: see :class:`Leace`.

    Returns:
        ``A`` ``[d, r]`` and ``B`` ``[r, d]`` float64, ``B A = I``, r at most k; and facts: ``columns`` (r),
        ``correlations`` (all k singular values), ``covariance_rank`` and ``shrinkage`` (weight of the identity;
        absent for ``orth``).

    Raises:
        UserError: all rows are equal.
    """
    count, width = rows.shape
    centred = rows - rows.mean(dim=0)
    cross = centred.T @ (labels - labels.mean(dim=0)) / (count - 1)
    if method == "orth":
        u, s, _ = torch.linalg.svd(cross, full_matrices=False)
        u = u[:, s > svd_tol]
        return u, u.T.contiguous(), {"columns": u.shape[1], "correlations": s.tolist()}
    values, vectors = spectrum(centred)
    if len(values) == 0:
        raise UserError("leace: concepts and controls give equal tokens; use other controls or another token_rule")
    weight = shrinkage_weight(values / count, count, width) if shrinkage else 0.0
    values = values / count if shrinkage else values / (count - 1)
    rank, values = len(values), (1 - weight) * values + weight * values.sum() / width
    root = values.sqrt()[:, None]
    u, s, _ = torch.linalg.svd(vectors.T @ cross / root, full_matrices=False)
    u = u[:, s > svd_tol]
    facts = {"columns": u.shape[1], "correlations": s.tolist(), "covariance_rank": rank, "shrinkage": weight}
    return vectors @ (root * u), (vectors @ (u / root)).T.contiguous(), facts


def spectrum(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``[r]`` and eigenvectors ``[d, r]`` of ``X^T X`` of rows ``[n, d]``, without what is zero.

    Values up to ``largest * d * eps`` count as zero, the threshold of a pseudo-inverse.
    """
    count, width = centred.shape
    if count < width:
        _, s, directions = torch.linalg.svd(centred, full_matrices=False)
        values, vectors = s.square(), directions.T
    else:
        values, vectors = torch.linalg.eigh(centred.T @ centred)
    kept = values > values.max() * width * torch.finfo(values.dtype).eps
    return values[kept], vectors[:, kept]


def shrinkage_weight(values: Tensor, count: int, width: int) -> float:
    """Weight of the identity in optimal linear shrinkage (Bodnar, Gupta and Parolya 2014, arXiv 1308.2608).

    The estimate is ``(1 - w) S + w trace(S)/d I``. The formula can leave [0, 1] when rows are few; w is held there,
    as only there the estimate is positive. (The published package does not hold it.)

    Args:
        values: the eigenvalues of S above zero; S is divided by n, not n - 1.
        count, width: n and d.
    """
    trace, square = values.sum(), values.square().sum()
    spread = square - trace.square() / width
    return (trace.square() / count / spread).clamp(0, 1).item() if spread > 0 else 1.0
