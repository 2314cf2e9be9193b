"""Slow, literal transcriptions of the closed-form erasers, to check the fast ones against and to time them beside.

Every function is written from the formula named in its docstring, one weight at a time, with a loop over tokens and
explicit inverses. Nothing is shared between weights. Conventions:

- tokens are **rows**: ``[n, d]``; a weight is ``[out, d]`` and acts on a token ``c`` as ``W c``;
- a pair is ``(source_rows [n, d], target_rows [n, d])``, row by row; a text whose rows are kept is one ``[n, d]`` tensor;
- all tensors of a call have one dtype, and the result has it: float64 to check, float32 to time.

Where the formula as published or released and the mathematics disagree, the default is the mathematics and the
docstring says how to get the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]
Preserved = Sequence[tuple[Tensor, float]]
"""Rows to keep, group by group, each with the weight of its group."""


# ---- CURE


def cure_projector(rows: Tensor, alpha: float) -> Tensor:
    """``P = U diag(f(r)) U^T``, ``r_i = s_i^2 / sum_j s_j^2``, ``f(r) = alpha r / ((alpha - 1) r + 1)``.

    Source: CURE (arXiv 2505.12677), spectral expansion. The paper stacks tokens as columns, ``E = U S V^T``.
    """
    directions, values, _ = torch.linalg.svd(rows.T, full_matrices=False)
    total = (values**2).sum()
    projector = rows.new_zeros(rows.shape[1], rows.shape[1])
    for i in range(len(values)):
        share = values[i] ** 2 / total
        projector += alpha * share / ((alpha - 1) * share + 1) * torch.outer(directions[:, i], directions[:, i])
    return projector


def cure(
    weight: Tensor, forget: Tensor, keep: Tensor | None, alpha: float, alpha_retain: float | None = None
) -> Tensor:
    """CURE, joint: ``W (I - P_f + P_f P_r)``, all concepts' rows stacked in ``forget``.

    Source: CURE (arXiv 2505.12677). ``alpha_retain`` of ``None`` is ``alpha``; ``keep`` of ``None`` or without rows
    gives ``P_r = 0``.
    """
    removed = cure_projector(forget, alpha)
    if keep is not None and len(keep):
        removed = removed - removed @ cure_projector(keep, alpha if alpha_retain is None else alpha_retain)
    return weight @ (torch.eye(weight.shape[1], dtype=weight.dtype) - removed)


def cure_sequential(
    weight: Tensor,
    concepts: Sequence[Tensor],
    keep: Tensor | None,
    alpha: float,
    alpha_retain: float | None = None,
    orthogonalise: str | None = None,
    drop: float = 1e-3,
    register: float = 0.01,
) -> Tensor:
    """CURE, one concept after another: ``W (I - P_dis,1) (I - P_dis,2) ...``.

    The paper gives no rule for several concepts. Orthogonalising is an add-on of a third party (CURE-Improve).

    Args:
        weight: ``[out, d]``.
        concepts: rows of each concept, in order.
        keep: rows to keep, the same for each step, or ``None``.
        alpha: strength.
        alpha_retain: strength for kept rows; ``None`` is ``alpha``.
        orthogonalise: against the directions erased before, the bank Q: ``None``: not at all; ``tokens``: each row
            loses its part in the span of Q before the singular value decomposition, so energies are those of what is
            left; ``directions``: energies come from the whole rows, then the directions (strongest first) lose their
            part in the span of Q and are made orthonormal. The third party does the latter. It also raises alpha for
            what is left; that is not done here.
        drop: a row (``tokens``) or direction whose remaining norm is below this share of its own is left out.
        register: a direction enters the bank when its strength ``f`` is above this.
    """
    identity = torch.eye(weight.shape[1], dtype=weight.dtype)
    kept = torch.zeros_like(identity)
    if keep is not None and len(keep):
        kept = cure_projector(keep, alpha if alpha_retain is None else alpha_retain)
    bank: list[Tensor] = []
    for rows in concepts:
        if orthogonalise == "tokens":
            rest = []
            for row in rows:
                left = _without(row, bank)
                if torch.linalg.norm(left) >= drop * torch.linalg.norm(row):
                    rest.append(left)
            if not rest:
                continue
            rows = torch.stack(rest)
        directions, values, _ = torch.linalg.svd(rows.T, full_matrices=False)
        total = (values**2).sum()
        removed, new = torch.zeros_like(identity), []
        for i in range(len(values)):
            share = values[i] ** 2 / total
            strength = alpha * share / ((alpha - 1) * share + 1)
            direction = directions[:, i]
            if orthogonalise == "directions":
                if torch.linalg.norm(_without(direction, bank)) < drop:
                    continue
                direction = _without(direction, bank + new)
                if torch.linalg.norm(direction) < drop:
                    continue
                direction = direction / torch.linalg.norm(direction)
                new.append(direction)
            removed += strength * torch.outer(direction, direction)
            if orthogonalise is not None and strength > register:
                bank.append(direction)
        weight = weight @ (identity - (removed - removed @ kept))
    return weight


def _without(vector: Tensor, directions: Sequence[Tensor]) -> Tensor:
    """A vector less its part along orthonormal directions; twice, for rounding."""
    for _ in range(2):
        for direction in directions:
            vector = vector - torch.dot(direction, vector) * direction
    return vector


# ---- UCE


def uce(
    weight: Tensor,
    pairs: Sequence[Pair],
    keep: Sequence[Tensor],
    lam: float,
    erase_scale: float = 1.0,
    keep_scale: float = 1.0,
    technique: str = "replace",
) -> Tensor:
    """UCE: ``(lam W + s_e sum v* c^T + s_p sum W p p^T) (lam I + s_e sum c c^T + s_p sum p p^T)^-1``.

    Source: UCE (WACV 2024), closed form of eq. 7. The releases of 2023 and 2025 solve the same system; they differ in
    the rows that enter (2023: last content token to the end, all rows of kept texts, ``""`` always kept; 2025: one
    last content token a text) and in scales (2023: ``keep_scale = max(0.1, 1 / number of kept texts)``), which the
    caller sets. For a layer with bias (FLUX) the target is ``W c*`` without the bias; the release adds it twice.

    Args:
        weight: ``[out, d]``.
        pairs: rows of each concept and of what it becomes.
        keep: rows of each kept text.
        lam: weight of ``||W_new - W||^2``.
        erase_scale: ``s_e``.
        keep_scale: ``s_p``.
        technique: ``replace``: ``v* = W c*``; ``tensor``: ``v* = W c* - <u, W c*> u`` where u is the pair's source
            output ``[n, out]`` over its Frobenius norm, and the product sums over all rows of the pair.
    """
    left, right = lam * weight, lam * torch.eye(weight.shape[1], dtype=weight.dtype)
    for sources, targets in pairs:
        for c, value in zip(sources, _uce_values(weight, sources, targets, technique), strict=True):
            left = left + erase_scale * torch.outer(value, c)
            right = right + erase_scale * torch.outer(c, c)
    for rows in keep:
        for p in rows:
            left = left + keep_scale * torch.outer(weight @ p, p)
            right = right + keep_scale * torch.outer(p, p)
    return left @ torch.linalg.inv(right)


def _uce_values(weight: Tensor, sources: Tensor, targets: Tensor, technique: str) -> Tensor:
    """``v*`` of each row of one pair, ``[n, out]``."""
    values = torch.stack([weight @ target for target in targets])
    if technique == "replace":
        return values
    if technique != "tensor":
        raise ValueError(f"technique {technique!r} is not one of replace, tensor")
    outputs = torch.stack([weight @ source for source in sources])
    unit = outputs / torch.linalg.norm(outputs)
    return values - (unit * values).sum() * unit


# ---- RECE


def rece_embedding(
    original: Mapping[str, Tensor], edited: Mapping[str, Tensor], rows: Tensor, regular_scale: float
) -> Tensor:
    """``c' = (lam I + sum_l W~_l^T W~_l)^-1 (sum_l W~_l^T W_l) c`` of each row: ``[n, d]``.

    Source: RECE (ECCV 2024), with ``lam ||c'||^2`` (released as ``close_regzero``). The sums run over all weights.
    """
    left = regular_scale * torch.eye(rows.shape[1], dtype=rows.dtype)
    right = torch.zeros_like(left)
    for name, weight in original.items():
        left = left + edited[name].T @ edited[name]
        right = right + edited[name].T @ weight
    transfer = torch.linalg.inv(left) @ right
    return torch.stack([transfer @ c for c in rows])


def rece(
    original: Mapping[str, Tensor],
    edited: Mapping[str, Tensor],
    pairs: Sequence[Pair],
    keep: Sequence[Tensor],
    epochs: int,
    regular_scale: float,
    lam: float = 0.1,
    keep_scale: float = 0.1,
) -> dict[str, Tensor]:
    """RECE's loop: find the rows that still reach each concept, erase them by UCE from the present weights.

    Source: RECE (ECCV 2024), Algorithm 1; the release takes all 77 rows of the concept's and the guide's prompt.

    Args:
        original: the unedited weights by name.
        edited: the weights to start from, by UCE.
        pairs: rows of each concept and of its guide.
        keep: rows of each kept text; their values come from the present weights.
        epochs: rounds; 0 gives ``edited``.
        regular_scale: weight of ``||c'||^2``.
        lam: weight of ``||W_new - W||^2`` in each UCE edit.
        keep_scale: weight of kept rows in each UCE edit.
    """
    current = dict(edited)
    for _ in range(epochs):
        found = [(rece_embedding(original, current, rows, regular_scale), guides) for rows, guides in pairs]
        current = {name: uce(weight, found, keep, lam, 1.0, keep_scale) for name, weight in current.items()}
    return current


# ---- SPEED


def speed_moments(targets: Tensor, anchors: Tensor, concepts: int | None = None) -> tuple[Tensor, Tensor]:
    """``C1 C1^T`` and ``C* C1^T``: sums over rows, over the number of concepts (``None``: one row a concept).

    The division is as released; in the paper's objective these are sums. It equals a ``retain_scale`` times the number
    of concepts.
    """
    count = len(targets) if concepts is None else concepts
    own = targets.new_zeros(targets.shape[1], targets.shape[1])
    cross = torch.zeros_like(own)
    for c, anchor in zip(targets, anchors, strict=True):
        own = own + torch.outer(c, c)
        cross = cross + torch.outer(anchor, c)
    return own / count, cross / count


def speed_unprojected(weight: Tensor, own: Tensor, cross: Tensor) -> Tensor:
    """``D0 = W (C* C1^T - C1 C1^T) (I + C1 C1^T)^-1``: what an edit without constraint would do (SPEED, IPF)."""
    return weight @ (cross - own) @ torch.linalg.inv(torch.eye(len(own), dtype=own.dtype) + own)


def speed_retain(
    weight: Tensor,
    unprojected: Tensor,
    retain: Tensor,
    noise: Tensor | None,
    filtered: bool = True,
    chunk: int = 128,
) -> Tensor:
    """Rows that the null space is made of: kept by IPF, and with DPA their copies.

    IPF keeps the rows with ``||D0 c||`` above the mean over all rows. DPA adds to each kept row c its copies
    ``c + (z . v) v`` (``P_min = v v^T``), and keeps the copies with ``||D0 c'||`` above the mean over the copies of
    the same chunk. v is the last right-singular vector of the **reduced** decomposition of W: for ``out < d`` it lies
    in the row space of W and is no null direction.

    Source: SPEED, IPF and DPA; the mean by chunk is as released. ``filtered`` off skips IPF alone.

    Args:
        weight: ``[out, d]``.
        unprojected: ``D0``, ``[out, d]``.
        retain: ``[m, d]``.
        noise: z, ``[m * copies, d]``: rows ``i * copies`` to ``(i + 1) * copies - 1`` belong to row i of ``retain``,
            before IPF, and go unused if IPF drops it. ``None`` or no rows: neither DPA nor IPF (as released:
            ``aug_num`` 0 switches IPF off, too).
        filtered: apply IPF.
        chunk: how many kept rows make a chunk.
    """
    augmented = noise is not None and len(noise) > 0
    kept = list(range(len(retain)))
    if augmented and filtered:
        influence = torch.stack([torch.linalg.norm(unprojected @ c) for c in retain])
        kept = [i for i in kept if influence[i] > influence.mean()]
    rows = [retain[i] for i in kept]
    if augmented:
        copies = len(noise) // len(retain)
        v = torch.linalg.svd(weight, full_matrices=False).Vh[-1]
        for start in range(0, len(kept), chunk):
            near = torch.stack(
                [
                    retain[i] + torch.dot(z, v) * v
                    for i in kept[start : start + chunk]
                    for z in noise[i * copies :][:copies]
                ]
            )
            influence = torch.stack([torch.linalg.norm(unprojected @ c) for c in near])
            rows += [near[j] for j in range(len(near)) if influence[j] > influence.mean()]
    return torch.stack(rows) if rows else retain[:0]


def speed_null_space(rows: Tensor, threshold: float) -> Tensor:
    """``P = U0 U0^T``, U0 the directions of ``R = mean c c^T`` with a singular value below the threshold (SPEED)."""
    second = rows.new_zeros(rows.shape[1], rows.shape[1])
    for c in rows:
        second += torch.outer(c, c)
    directions, values, _ = torch.linalg.svd(second / max(len(rows), 1))
    null = directions[:, values < threshold]
    return null @ null.T


def speed_delta(
    weight: Tensor, own: Tensor, cross: Tensor, null: Tensor, fixed: Tensor, retain_scale: float, lam: float
) -> Tensor:
    """``D = W (C* C1^T - C1 C1^T) P [I - M K2 (K2^T P M K2 + lam I)^-1 K2^T P] M``, ``M = (C1 C1^T P + r I)^-1``.

    Source: SPEED, IEC. With ``lam = 0`` the small matrix is singular where K2 lies outside the null space; there the
    constraint holds without it, so a pseudo-inverse takes the place of the inverse (the release inverts).

    Args:
        weight: ``[out, d]``.
        own: ``C1 C1^T``.
        cross: ``C* C1^T``.
        null: P.
        fixed: K2, **columns** ``[d, k]``.
        retain_scale: r.
        lam: ridge of the constraint.
    """
    identity = torch.eye(len(own), dtype=own.dtype)
    m = torch.linalg.inv(own @ null + retain_scale * identity)
    small = fixed.T @ null @ m @ fixed + lam * torch.eye(fixed.shape[1], dtype=own.dtype)
    if lam:
        inverse = torch.linalg.inv(small)
    else:
        rounding = len(own) * torch.finfo(own.dtype).eps * torch.linalg.norm(fixed) ** 2 / retain_scale
        inverse = torch.linalg.pinv((small + small.T) / 2, atol=rounding.item(), rtol=0.0, hermitian=True)
    return weight @ (cross - own) @ null @ (identity - m @ fixed @ inverse @ fixed.T @ null) @ m


def speed(
    weight: Tensor,
    targets: Tensor,
    anchors: Tensor,
    retain: Tensor,
    fixed: Tensor,
    noise: Tensor | None,
    threshold: float = 0.1,
    retain_scale: float = 1.0,
    lam: float = 0.0,
    filtered: bool = True,
    concepts: int | None = None,
    chunk: int = 128,
) -> Tensor:
    """SPEED: null space of the retained rows (IPF, DPA), then the constrained edit (IEC). Returns ``W + D``.

    Args:
        weight: ``[out, d]``.
        targets: ``[n, d]``.
        anchors: ``[n, d]``.
        retain: ``[m, d]``.
        fixed: K2, **columns** ``[d, k]``: BOS and the centres of the rows of ``""``.
        noise: see :func:`speed_retain`.
        threshold: on the singular values of the retained rows' second moment.
        retain_scale: r.
        lam: ridge of the constraint.
        filtered: apply IPF.
        concepts: number of concepts that the rows belong to; ``None``: one row each.
        chunk: see :func:`speed_retain`.
    """
    own, cross = speed_moments(targets, anchors, concepts)
    rows = speed_retain(weight, speed_unprojected(weight, own, cross), retain, noise, filtered, chunk)
    return weight + speed_delta(weight, own, cross, speed_null_space(rows, threshold), fixed, retain_scale, lam)


# ---- MACE and TRCE


def mace_refine(
    weight: Tensor,
    pairs: Sequence[Pair],
    preserved: Preserved,
    lam: float,
    preserve_scale: float = 1.0,
    squared: bool = False,
) -> Tensor:
    """MACE stage 1: ``(lam W + sum W c_new c_old^T + s A) (lam I + sum c_old c_old^T + s B)^-1``.

    ``A = sum w W p p^T`` and ``B = sum w p p^T`` over the groups of preserved rows, w the group's weight.

    Source: MACE (CVPR 2024), closed-form refinement. The rows of a pair are the words beside the concept, under the
    concept (source) and under its mapping (target). ``squared``: as released, s is the square of ``preserve_scale``.
    """
    scale = preserve_scale**2 if squared else preserve_scale
    left, right = lam * weight, lam * torch.eye(weight.shape[1], dtype=weight.dtype)
    for old, new in pairs:
        for c, target in zip(old, new, strict=True):
            left = left + torch.outer(weight @ target, c)
            right = right + torch.outer(c, c)
    for rows, share in preserved:
        for p in rows:
            left = left + scale * share * torch.outer(weight @ p, p)
            right = right + scale * share * torch.outer(p, p)
    return left @ torch.linalg.inv(right)


def mace_fuse(
    weight: Tensor,
    loras: Sequence[tuple[Tensor, Tensor]],
    rows: Sequence[Tensor],
    preserved: Preserved,
    lam: float,
    preserve_scale: float = 1.0,
    original: Tensor | None = None,
) -> Tensor:
    """MACE stage 3: ``(lam W + sum_i sum_c W_i c c^T + s A) (lam I + sum_i sum_c c c^T + s B)^-1``.

    Source: MACE (CVPR 2024), fusion. The scale enters once here, unlike in stage 1 as released.

    Args:
        weight: the refined W, ``[out, d]``.
        loras: ``(up [out, r], down [r, d])`` of each concept, scale included: ``W_i = W + up down``.
        rows: rows of each concept's prompts, ``[n_i, d]``.
        preserved: groups of rows with their weights; ``A = sum w W_0 p p^T``.
        lam: weight of ``||W_new - W||^2``.
        preserve_scale: s.
        original: ``W_0``, from which the preserved values come; ``None``: W.
    """
    original = weight if original is None else original
    left, right = lam * weight, lam * torch.eye(weight.shape[1], dtype=weight.dtype)
    for (up, down), group in zip(loras, rows, strict=True):
        own = weight + up @ down
        for c in group:
            left = left + torch.outer(own @ c, c)
            right = right + torch.outer(c, c)
    for group, share in preserved:
        for p in group:
            left = left + preserve_scale * share * torch.outer(original @ p, p)
            right = right + preserve_scale * share * torch.outer(p, p)
    return left @ torch.linalg.inv(right)


def trce(
    weight: Tensor,
    pairs: Sequence[Pair],
    preserved: Preserved,
    lam: float = 0.0,
    preserve_scale: float = 0.01,
    squared: bool = True,
    average: bool = False,
    cache_size: float = 1.0,
) -> Tensor:
    """TRCE stage 1: MACE's refinement on the first EOS row of each prompt alone.

    Source: TRCE, stage 1; token weights (0, 1, 0, 0) on BOS, first EOS, last EOS, keyword leave one row a prompt.
    As released, ``squared`` is on, the sums over pairs are divided by the number of prompts (``average``) and the
    preserve cache by 30,000 (``cache_size``); one pair is one prompt.
    """
    scale = (preserve_scale**2 if squared else preserve_scale) / cache_size
    share = 1 / len(pairs) if average else 1.0
    left, right = lam * weight, lam * torch.eye(weight.shape[1], dtype=weight.dtype)
    for sources, targets in pairs:
        for c, target in zip(sources, targets, strict=True):
            left = left + share * torch.outer(weight @ target, c)
            right = right + share * torch.outer(c, c)
    for rows, own in preserved:
        for p in rows:
            left = left + scale * own * torch.outer(weight @ p, p)
            right = right + scale * own * torch.outer(p, p)
    return left @ torch.linalg.inv(right)


# ---- diff-quickfix


def quickfix(
    weight: Tensor, bias: Tensor, keys: Tensor, values: Tensor, lam: float = 0.01, released: bool = False
) -> Tensor:
    """diff-quickfix: ``(lam W + sum v k^T) (lam I + sum k k^T)^-1`` on the text encoder's first ``out_proj``.

    Args:
        weight: ``[out, d]``.
        bias: ``[out]``; it stays in the layer.
        keys: inputs of the layer for the old name, ``[n, d]``.
        values: **outputs** of the layer for the new name, bias included, ``[n, out]``.
        lam: weight of ``||W_new - W||^2``.
        released: do not subtract the bias from the values, so that edited tokens get it twice (third-party code).
    """
    left, right = lam * weight, lam * torch.eye(weight.shape[1], dtype=weight.dtype)
    for k, v in zip(keys, values, strict=True):
        left = left + torch.outer(v if released else v - bias, k)
        right = right + torch.outer(k, k)
    return left @ torch.linalg.inv(right)


# ---- LEACE


def covariance(rows: Tensor, shrinkage: bool) -> Tensor:
    """Covariance of rows: over ``n - 1``, or with optimal linear shrinkage over ``n`` (as concept_erasure does).

    ``alpha S + beta Sigma_0`` with ``Sigma_0 = tr(S) / d I``,
    ``alpha = 1 - (tr(S)^2 ||Sigma_0||^2 / n) / (||S||^2 ||Sigma_0||^2 - tr(S Sigma_0)^2)`` and
    ``beta = (1 - alpha) tr(S Sigma_0) / ||Sigma_0||^2``. Source: Bodnar, Gupta, Parolya, arXiv 1308.2608. The formula
    can leave [0, 1] where n is near d and the spectrum is flat; the result then need not be positive, so alpha is
    clamped (the release does not).
    """
    n, d = rows.shape
    mean = rows.mean(dim=0)
    total = rows.new_zeros(d, d)
    for row in rows:
        total += torch.outer(row - mean, row - mean)
    if not shrinkage:
        return total / (n - 1)
    sample = total / n
    trace = torch.trace(sample)
    isotropic = trace / d * torch.eye(d, dtype=rows.dtype)
    size, product = (isotropic**2).sum(), torch.trace(sample @ isotropic)
    alpha = 1 - (trace**2 * size / n) / ((sample**2).sum() * size - product**2)
    alpha = alpha.clamp(0, 1)
    beta = (1 - alpha) * product / size
    return alpha * sample + beta * isotropic


def leace_removal(
    rows: Tensor,
    labels: Tensor,
    shrinkage: bool = True,
    svd_tol: float = 0.01,
    method: str = "leace",
) -> Tensor:
    """The matrix ``E = A B``, ``[d, d]``, of ``r(x) = x - E (x - mu)``.

    ``S`` is the covariance of rows, ``C`` that of rows and labels (over ``n - 1``), ``W = S^(-1/2)``,
    ``u, s = svd(W C)`` without ``s <= svd_tol``, ``A = S^(1/2) u``, ``B = u^T W``. Eigenvalues of S up to
    ``L_max d eps`` count as zero in both roots.

    Source: LEACE (NeurIPS 2023, arXiv 2306.03819) and its package concept_erasure. The package's
    ``constrain_cov_trace`` is left out, for it never acts: with ``P = I - A B`` and orthonormal u,
    ``tr(P S P^T) = tr(S) - tr(u^T S u)``, which is at most ``tr(S)``.

    Args:
        rows: ``[n, d]``.
        labels: ``[n]`` or ``[n, k]``, floating point.
        shrinkage: estimate S with optimal linear shrinkage. C is nulled either way; the change is smallest in the
            metric of the S used.
        svd_tol: see above; with ``orth`` it is in the units of C.
        method: ``leace``, or ``orth``: ``W = I``.
    """
    n, d = rows.shape
    labels = labels.reshape(n, -1)
    identity = torch.eye(d, dtype=rows.dtype)
    mean, mean_label = rows.mean(dim=0), labels.mean(dim=0)
    cross = rows.new_zeros(d, labels.shape[1])
    for row, label in zip(rows, labels, strict=True):
        cross += torch.outer(row - mean, label - mean_label) / (n - 1)
    whiten = unwhiten = identity
    if method == "leace":
        sigma = covariance(rows, shrinkage)
        values, vectors = torch.linalg.eigh(sigma)
        whiten, unwhiten = torch.zeros_like(identity), torch.zeros_like(identity)
        for i in range(d):
            if values[i] > values[-1] * d * torch.finfo(rows.dtype).eps:
                whiten = whiten + torch.outer(vectors[:, i], vectors[:, i]) / values[i].sqrt()
                unwhiten = unwhiten + torch.outer(vectors[:, i], vectors[:, i]) * values[i].sqrt()
    u, s, _ = torch.linalg.svd(whiten @ cross, full_matrices=False)
    u = u[:, s > svd_tol]
    return (unwhiten @ u) @ (u.T @ whiten)


def leace(weight: Tensor, rows: Tensor, labels: Tensor, **options: object) -> tuple[Tensor, Tensor]:
    """LEACE on the tokens that a weight reads (our adaptation): ``W (I - E)`` and the bias ``W E mu``.

    With the bias the edit is the affine ``W r(x)`` and keeps the mean of all rows; without it the mean moves, but the
    projection is the same. Options as in :func:`leace_removal`.
    """
    removal = leace_removal(rows, labels, **options)
    return weight @ (torch.eye(weight.shape[1], dtype=weight.dtype) - removal), weight @ (removal @ rows.mean(dim=0))
