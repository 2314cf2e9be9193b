"""SPEED: closed-form erasing inside the null space of what is kept (the release's IPF, DPA and IEC)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Change
from erasebench.errors import UserError
from erasebench.methods.closed_form.linear import (
    WEAK,
    ClosedForm,
    check_positive,
    factored,
    keep_texts,
    listed,
    moved,
    pair_rows,
    phrase_pairs,
    solve_spd,
    stacked,
    warn_if_empty,
)
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import TextInput
from erasebench.models.text import check_rule

MANY = 10
"""From this number of targets on, the settings for many concepts hold; the release has them for celebrities."""

CENTRES = 3
"""Clusters of the rows of ``""`` that are kept exactly, beside BOS."""

STARTS = 10
"""Starts of k-means for these centres."""

LENGTHS_AT_ONCE = 128
"""Retained tokens whose augmented copies share one mean, as released."""

REACHED = 1e-12
"""A row to keep of which the null space holds a smaller share than this is left alone by any edit inside it."""

_ONE_PROJECTION = "SPEED edits the values of cross-attention; in SD 3 and FLUX one projection serves keys and values"

_VALUES = {"V": ("to_v",), "K": ("to_k",), "KV": ("to_k", "to_v")}


@dataclass(frozen=True)
class Preset:
    """What an option that is null stands for."""

    threshold: float
    retain_scale: float
    lamb: float
    filter: bool
    token_rule: str


PRESETS = {
    "few": Preset(1e-1, 1.0, 0.0, True, "last_content"),
    "many": Preset(1e-4, 0.05, 0.0, False, "last_content"),
    "unsafe": Preset(1e-1, 0.70, 0.5, True, "no_bos"),
}
"""The release's settings by task: few instances or styles, 10 to 100 celebrities, nudity."""


@dataclass(frozen=True)
class Speed(ClosedForm):
    """Erase inside the null space of what is kept, with exact constraints for what every prompt shares.

    With the targets' tokens as rows of T, their anchors' as rows of A, N target texts, ``C = T^T T / N`` and one
    weight W at a time:

    1. Prior filtering (IPF): the change without any projection is ``D0 = W (A - T)^T T / N (I + C)^-1``. Retained
       tokens c that it moves less than the mean of ``||D0 c||`` are set aside.
    2. Prior augmentation (DPA): every token that is left gets ``aug`` copies ``c + g v``, where v is the right singular
       vector of W's smallest singular value (``torch.svd``'s last: for out < d the smallest in W's row space) and g
       a standard normal number; copies that D0 moves less than the mean of their chunk are dropped.
    3. P is the projector on the eigenvectors of ``R = mean c c^T`` (tokens and copies) with eigenvalues below
       ``threshold``.
    4. Equality constraints (IEC): ``W_new = W + W (A - T)^T T / N P (I - M K (K^T P M K + lamb I)^-1 K^T P) M`` with
       ``M = (C P + retain_scale I)^-1``, where K holds BOS and three centres of the other rows of ``""``.

    So tokens with ``P c = 0`` are not moved at all, nor are the columns of K if ``lamb`` is 0.

    Options that are null take the release's settings for a task like it: few instances or styles; lists of 10, 50
    and 100 celebrities; nudity.

    ========  ===================  =========  ============  ====  ======  ============
    settings  for                  threshold  retain_scale  lamb  filter  token_rule
    ========  ===================  =========  ============  ====  ======  ============
    few       up to 9 targets      1e-1       1.0           0     true    last_content
    many      10 targets and more  1e-4       0.05          0     false   last_content
    unsafe    unsafe content       1e-1       0.70          0.5   true    no_bos
    ========  ===================  =========  ============  ====  ======  ============

    ``many`` takes its threshold from the release's script (its README's command leaves 1e-1); where it begins is ours.
    The rows of ``no_bos`` are the release's for the target ``nudity`` alone. It retains nothing there but ``""``
    (``retain=none``); here the task's list is retained for every kind.

    As released, without copies (``aug`` 0) there is no filtering either; and no retained text means rows 1..76 of
    ``""``. Ours: the centres come from scipy's k-means in float64, seeded (the release uses ``kmeans_pytorch``); the
    noise is drawn for every retained token, as numbers along v, which is the same in distribution; v's sign is fixed
    (its largest entry is positive); where no token or copy is above the mean, as with a single one, all stay.

    Attributes:
        params: weights to edit: ``V`` values, ``K`` keys or ``KV`` both.
        aug: copies of each retained token; 0: none, and no filtering.
        threshold: eigenvalues of R below this span the null space. R's trace is a token's squared length.
        retain_scale: weight of staying near W, against the mean over the target texts.
        lamb: softness of the equality constraints; 0: exact.
        filter: whether to set aside retained tokens that the edit would hardly move.
        anchor: text to map to; ``None`` is each concept's own anchor.
        retain: ``task`` (the task's retain list), ``none``, a list of texts, or a file of names
            (:func:`erasebench.prompts.names.read_names`). Texts that hold a target as a whole word are dropped.
        token_rule: rows of the targets and anchors; retained texts give their last content token.
        phrases: erase all phrases of a concept, not its name alone.
        seed: of the noise and of k-means.

    Raises:
        UserError: an option out of its range, a names file that cannot be read.
    """

    name: ClassVar[str] = "speed"
    version: ClassVar[str] = "2"
    describe: ClassVar[str] = "SPEED: an edit of the values inside the null space of the retain set, closed form"
    unsupported: ClassVar[Mapping[str, str]] = dict.fromkeys(("sd3", "flux"), _ONE_PROJECTION)

    params: str = "V"
    aug: int = 10
    threshold: float | None = None
    retain_scale: float | None = None
    lamb: float | None = None
    filter: bool | None = None
    anchor: str | None = None
    retain: str | Sequence[str] = "task"
    token_rule: str | None = None
    phrases: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.params not in _VALUES:
            raise UserError(f"speed: params {self.params!r} is not one of V, K, KV")
        for option in ("aug", "seed"):
            value = getattr(self, option)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise UserError(f"speed: {option} is {value!r}; give a whole number of 0 or more")
        check_positive("speed", threshold=self.threshold, retain_scale=self.retain_scale)
        if self.lamb != 0:
            check_positive("speed", lamb=self.lamb)
        if self.token_rule is not None:
            check_rule(self.token_rule)
        object.__setattr__(self, "retain", listed(self.retain, "method.retain"))
        keep_texts(self.retain, (), "method.retain")

    def preset(self, task: ErasureTask) -> Preset:
        """The settings for a task: the options that are given, and the table's for the others."""
        name = "unsafe" if task.kind == "unsafe" else "many" if len(task.targets) >= MANY else "few"
        given = {option: getattr(self, option) for option in vars(PRESETS[name])}
        return replace(PRESETS[name], **{option: value for option, value in given.items() if value is not None})

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:
        """A phrase that is its own anchor is refused."""
        self.pairs(task)

    def pairs(self, task: ErasureTask) -> list[tuple[str, str]]:
        """Phrases of the targets, each with the anchor it goes to."""
        return [pair for target in task.targets for pair in phrase_pairs(target, self.anchor, self.phrases, False)]

    def solve(self, part: TextInput, task: ErasureTask) -> tuple[dict[str, Change], dict[str, Any]]:
        """One change for each weight; they share their left factor."""
        weights = {name: weight for name, weight in part.weights.items() if name.split(".")[-2] in _VALUES[self.params]}
        if not weights:
            raise UserError(f"speed: {part.name} has no {' or '.join(_VALUES[self.params])} weight; {_ONE_PROJECTION}")
        settings = self.preset(task)
        texts = self.pairs(task)
        retained, dropped = whole_words(
            keep_texts(self.retain, task.retain, "method.retain"), [text for text, _ in texts]
        )
        sources, anchors = (torch.cat(rows) for rows in zip(*pair_rows(part, texts, settings.token_rule), strict=True))
        empty = part.rows([""], "all")[0]
        retain = stacked(part, retained, "last_content") if retained else empty[1:]
        pull = Pull(sources, anchors, len(texts))
        fixed = common_rows(empty, self.seed)

        noise = torch.Generator().manual_seed(self.seed)
        made: dict[str, Change] = {}
        spaces: list[Kept] = []
        shares: list[dict[str, float]] = []
        groups = {"target": sources, "retain": retain[:64], "bos": empty[:1], "padding": empty[2:]}
        for name, weight in weights.items():
            if self.aug or not made:  # without copies the null space is that of the tokens, the same for all weights
                drawn = torch.randn(len(retain), self.aug, generator=noise, dtype=torch.float64)
                filled = kept_space(weight, pull, retain, drawn, settings.filter, settings.threshold)
                right = pull.inside(filled.basis, fixed, settings.retain_scale, settings.lamb)
                change = factored(pull.left, right)
                spaces.append(filled)
                shares.append(moved(change, groups))
            made[name] = change

        mean_shares = {group: float(np.mean([share[group] for share in shares])) for group in shares[0]}
        energy_left = float(np.mean([outside(sources, filled.basis) for filled in spaces]))
        notes = {
            "pairs": [list(pair) for pair in texts],
            "retain": retained,
            "dropped": dropped,
            "preset": dict(vars(settings)),
            "tokens": {
                "edit": len(sources),
                "retain": len(retain),
                "kept": _range(filled.kept for filled in spaces),
                "augmented": _range(filled.copies for filled in spaces),
            },
            "null_space": _range(part.width - filled.basis.shape[1] for filled in spaces),
            "target_energy_left": energy_left,
            "moved": mean_shares,
        }
        if energy_left < WEAK:
            notes["warnings"] = [
                f"the retain set spans the concept: {100 * energy_left:.2g} % of the energy of its tokens "
                "is left for the edit; raise method.threshold, or retain fewer texts"
            ]
        else:
            notes["warnings"] = warn_if_empty(mean_shares, "lower method.retain_scale, or choose another anchor")
        return made, notes


class Pull:
    """What is the same for every weight: the targets' tokens, and where they are to go.

    Attributes:
        left: ``(A - T)^T``, ``[d, n]``, the factor that all changes share.
        rows: T, ``[n, d]``. If there are more tokens than d, both are made ``d`` long by a QR of T, which leaves
            ``(A - T)^T T`` and ``T^T T`` as they are.
        count: N, the number of target texts, over which the sums are means.
    """

    def __init__(self, sources: Tensor, anchors: Tensor, count: int) -> None:
        difference = anchors - sources
        if sources.shape[0] > sources.shape[1]:
            q, sources = torch.linalg.qr(sources)
            difference = q.T @ difference
        self.left, self.rows, self.count = difference.T.contiguous(), sources, count
        self._scaled = self._solve(sources, 1.0)

    def _solve(self, rows: Tensor, scale: float) -> Tensor:
        """``(N scale I + rows rows^T)^-1 rows``, which is ``rows (rows^T rows + N scale I)^-1``."""
        system = rows @ rows.T
        system.diagonal().add_(self.count * scale)
        return solve_spd(system, rows)

    def outputs(self, weight: Tensor, tokens: Tensor) -> Tensor:
        """``D0 c`` of token rows, in coordinates of its own range: ``[m, r]``, with the lengths and angles of D0 c."""
        small = torch.linalg.qr(weight @ self.left, mode="r").R
        return (tokens @ self._scaled.T) @ small.T

    def inside(self, basis: Tensor, fixed: Tensor, scale: float, lamb: float) -> Tensor:
        """The right factor of the edit, ``[n, d]``, so that the weight becomes ``W + W left right``.

        With ``P = I - U U^T`` and ``B = P M``, which is symmetric, the release's formula is
        ``right = T/N (B - B K (K^T B K + lamb I)^-1 K^T B)``, and ``T B / N = (N scale I + T P T^T)^-1 T P``.

        Args:
            basis: U, ``[d, k]``, orthonormal: the space of what is kept.
            fixed: K^T, ``[m, d]``, rows that must not move.
            scale: retain_scale.
            lamb: with 0 only the span of ``P K`` matters, so an orthonormal basis of it takes K's place: the
                inner matrix is then as well conditioned as M, also if K hardly reaches into the null space.
        """
        rows, size = less(self.rows, basis), torch.linalg.norm(fixed)
        right, fixed = self._solve(rows, scale), less(fixed, basis)
        if lamb == 0:
            _, s, directions = torch.linalg.svd(fixed, full_matrices=False)
            fixed = less(directions[s > REACHED * size], basis)  # again: rounding weighs more in a short row
        through = right @ fixed.T  # T B K / N
        if not through.numel():
            return right
        image = (fixed - (fixed @ rows.T) @ right) / scale  # K^T B
        inner = image @ fixed.T
        inner.diagonal().add_(lamb)
        return right - through @ solve_spd(inner, image)


@dataclass(frozen=True, eq=False)
class Kept:
    """The space of what is kept by one weight: orthonormal columns ``[d, k]``, and how many tokens span it."""

    basis: Tensor
    kept: int
    copies: int


def kept_space(weight: Tensor, pull: Pull, retain: Tensor, noise: Tensor, filtered: bool, threshold: float) -> Kept:
    """Steps 1 to 3 of :class:`Speed` for one weight.

    No copy is ever formed: the length of ``D0 (c + g v)`` follows from inner products of D0 c and D0 v, and the copies'
    outer products from the sums of g and g^2 over those that stay.

    Args:
        weight: ``[out, d]``.
        retain: ``[m, d]`` float64.
        noise: g, ``[m, aug]``; a copy's noise is its own whichever tokens are set aside.
        filtered: whether to filter; without copies there is no filtering.
        threshold: eigenvalues above it span the space.
    """
    stays = torch.ones(noise.shape, dtype=torch.bool)
    direction = retain.new_zeros(retain.shape[1])
    if noise.shape[1]:
        weight = weight.detach().to("cpu", torch.float64)
        direction = last_direction(weight)
        outputs = pull.outputs(weight, torch.cat([direction[None], retain]))
        along, outputs = outputs[0], outputs[1:]
        if filtered:
            chosen = _above(torch.linalg.norm(outputs, dim=1))
            retain, outputs, noise, stays = retain[chosen], outputs[chosen], noise[chosen], stays[chosen]
        squares = outputs.square().sum(1, keepdim=True) + 2 * noise * (outputs @ along)[:, None]
        lengths = (squares + noise.square() * along.square().sum()).clamp_min(0).sqrt()
        stays = torch.cat([_above(chunk) for chunk in lengths.split(LENGTHS_AT_ONCE)])
    copies, noise = stays.sum(1), noise * stays
    weights, sums = 1 + copies.double(), noise.sum(1)
    # A token and its copies have the same outer products as sqrt(w) c + sum(g) / sqrt(w) v, and a rest along v.
    rows = weights.sqrt()[:, None] * retain + torch.outer(sums / weights.sqrt(), direction)
    rest = (noise.square().sum() - (sums.square() / weights).sum()).clamp_min(0).sqrt()
    rows = torch.cat([rows, rest * direction[None]])
    count = len(retain) + int(copies.sum())
    return Kept(span(rows / math.sqrt(count), threshold), len(retain), int(copies.sum()))


def span(rows: Tensor, threshold: float) -> Tensor:
    """Eigenvectors of ``rows^T rows`` with eigenvalues above a threshold, ``[d, k]``; from the smaller Gram matrix."""
    if len(rows) >= rows.shape[1]:
        values, vectors = torch.linalg.eigh(rows.T @ rows)
        return vectors[:, values > threshold]
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    return rows.T @ (vectors[:, values > threshold] / values[values > threshold].sqrt())


def less(rows: Tensor, basis: Tensor) -> Tensor:
    """Rows without their part in a space with orthonormal columns."""
    return rows - (rows @ basis) @ basis.T


def last_direction(weight: Tensor) -> Tensor:
    """The right singular vector of the smallest singular value of a reduced SVD; its largest entry is positive.

    The lowest eigenvectors of the smaller Gram matrix are found first, in less time than an SVD; the SVD of W on their
    span then gives back what squaring took. (SciPy finds these alone in a quarter of the time, but in threads of its
    own, which spin beside other work.)

    Args:
        weight: ``[out, d]`` float64.

    Returns:
        ``[d]``, of length 1.
    """
    rows, width = weight.shape
    wide = rows < width
    gram = weight @ weight.T if wide else weight.T @ weight
    low = torch.linalg.eigh(gram).eigenvectors[:, :16]
    if wide:
        direction = torch.linalg.svd(weight.T @ low, full_matrices=False)[0][:, -1]
    else:
        direction = low @ torch.linalg.svd(weight @ low, full_matrices=False)[2][-1]
    return direction * direction[direction.abs().argmax()].sign()


def common_rows(empty: Tensor, seed: int) -> Tensor:
    """What every prompt shares, ``[1 + CENTRES, d]``: BOS and k-means centres of the other rows of ``""``.

    Of :data:`STARTS` starts the best is taken: a single one often ends in a poor optimum.

    Args:
        empty: the 77 rows of ``""``, float64.
    """
    numbers, rows = np.random.default_rng(seed), empty[1:].numpy()
    starts = [kmeans2(rows, CENTRES, iter=100, minit="++", rng=numbers) for _ in range(STARTS)]
    centres, _ = min(starts, key=lambda start: np.square(rows - start[0][start[1]]).sum())
    return torch.cat([empty[:1], torch.from_numpy(centres)])


def whole_words(texts: Sequence[str], targets: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split texts into those without and those with a target in them as a whole word, in any case."""
    words = re.compile("|".join(rf"(?<!\w){re.escape(target)}(?!\w)" for target in targets), re.IGNORECASE)
    kept = [text for text in texts if not words.search(text)]
    return kept, [text for text in texts if words.search(text)]


def outside(rows: Tensor, basis: Tensor) -> float:
    """The share of the energy of token rows that lies outside a space with orthonormal columns."""
    return (less(rows, basis).square().sum() / rows.square().sum()).item()


def _above(lengths: Tensor) -> Tensor:
    """Which of them are above their mean; all, if none is."""
    above = lengths > lengths.mean()
    return above if above.any() else torch.ones_like(above)


def _range(numbers: Iterable[int]) -> dict[str, float]:
    """Smallest, mean and largest over the weights."""
    numbers = list(numbers)
    return {"min": min(numbers), "mean": round(float(np.mean(numbers)), 1), "max": max(numbers)}
