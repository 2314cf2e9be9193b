"""A genetic search over token sequences, as Ring-A-Bell runs it (Tsai et al., ICLR 2024, and its notebook)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from erasebench.errors import UserError
from erasebench.methods.attacks.budget import Clock
from erasebench.methods.attacks.kept import Kept

Loss = Callable[[np.ndarray], np.ndarray]
"""Token ids ``[n, length]`` to their losses ``[n]``; smaller is better."""


@dataclass(frozen=True)
class Budget:
    """How long and how widely a search looks. The defaults are those of the released notebook.

    Attributes:
        length: tokens of a sequence; the paper also uses 38 and 75.
        population: sequences at the start; the better half of each generation goes on.
        generations: how often the sequences are compared.
        crossover: the chance that a survivor has two children with another one.
        mutation: the chance that a sequence has one token changed.
        elites: how many of the best are never changed. As released it is 0: a mutation may spoil the best one.

    Raises:
        UserError: a number that cannot be.
    """

    length: int = 16
    population: int = 200
    generations: int = 3000
    crossover: float = 0.5
    mutation: float = 0.25
    elites: int = 0

    def __post_init__(self) -> None:
        for name, least in (("length", 1), ("population", 2), ("generations", 1), ("elites", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)}: must be {least} or more")
        for name in ("crossover", "mutation"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}={getattr(self, name)}: is a chance, between 0 and 1")
        if self.elites > self.population // 2:
            raise UserError(f"elites={self.elites}: more than the {self.population // 2} that survive a generation")


@dataclass(frozen=True)
class Best:
    """What a search ends with.

    Attributes:
        tokens: the best sequence of the last generation.
        loss: its loss.
        curve: the smallest loss of every generation.
        evaluations: how many sequences were given to the loss; one that lives on unchanged is not given again.
    """

    tokens: tuple[int, ...]
    loss: float
    curve: tuple[float, ...]
    evaluations: int


def search(
    loss: Loss,
    ids: Sequence[int],
    budget: Budget,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
    is_over: Callable[[], bool] = lambda: False,
    kept: Kept | None = None,
) -> Best:
    """Look for the sequence of the smallest loss.

    Each generation is sorted by loss and halved. The survivors, two children of some of them, and mutations of all of
    these are the next generation; after the last one nothing is changed any more.

    Args:
        loss: of token ids, in any order and number.
        ids: the tokens to choose from.
        budget: see :class:`Budget`.
        seed: of every random choice.
        advance: called with 1 after each generation, and at first with those that need not be done again.
        is_over: asked after each generation that is not the last, whether that was the last.
        kept: from which it goes on; the search then ends as one that was not killed.
    """
    rng = np.random.default_rng(seed)
    choice = np.asarray(ids)
    sequences = choice[rng.integers(choice.size, size=(budget.population, budget.length))]
    losses = np.full(budget.population, np.nan)
    curve: list[float] = []
    evaluations = 0
    kept = kept or Kept(None, budget.generations, Clock())

    def state() -> dict[str, Any]:
        return {
            "sequences": sequences.tolist(),
            "losses": [None if np.isnan(one) else one for one in losses.tolist()],
            "curve": curve,
            "evaluations": evaluations,
            "numbers": rng.bit_generator.state,
        }

    def restore(state: dict[str, Any]) -> None:
        nonlocal sequences, losses, curve, evaluations
        there = np.array(state["sequences"], dtype=choice.dtype).reshape(-1, budget.length)
        values = np.array([np.nan if one is None else one for one in state["losses"]], dtype=float)
        if len(there) != len(values) or len(there) < budget.population // 2:
            raise ValueError("its sequences and losses do not fit")
        reached, asked = list(map(float, state["curve"])), int(state["evaluations"])
        rng.bit_generator.state = state["numbers"]
        sequences, losses, curve, evaluations = there, values, reached, asked

    kept.take_up(restore)
    if curve:
        advance(len(curve))
    for generation in range(len(curve), budget.generations):
        new = np.isnan(losses)  # not compared yet: what lives on unchanged keeps its loss
        if new.any():
            losses[new] = loss(sequences[new])
        evaluations += int(new.sum())
        if not np.isfinite(losses).all():
            raise UserError(
                f"generation {generation + 1}: a loss is not a finite number; is the text encoder in order?"
            )
        order = np.argsort(losses, kind="stable")[: budget.population // 2]
        sequences, losses = sequences[order], losses[order]
        curve.append(float(losses[0]))
        advance(1)
        if generation == budget.generations - 1 or is_over():
            break
        n = len(sequences)
        having = rng.random(n) < budget.crossover
        sequences, parents = crossed(sequences, having, rng.integers(n, size=n), rng.integers(budget.length, size=n))
        losses = np.where(parents >= 0, losses[parents], np.nan)
        n = len(sequences)
        changing = rng.random(n) < budget.mutation
        changing[np.flatnonzero(parents >= 0)[: budget.elites]] = False
        sequences = mutated(
            sequences, changing, rng.integers(budget.length, size=n), choice[rng.integers(choice.size, size=n)]
        )
        losses[changing] = np.nan
        kept.save(len(curve), state)
    return Best(tuple(map(int, sequences[0])), curve[-1], tuple(curve), evaluations)


def crossed(
    sequences: np.ndarray, having: np.ndarray, mates: np.ndarray, cuts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Every sequence, and behind it its two children if it has any.

    The first child has the sequence's own tokens before the cut and its mate's from there on, the second the other way
    round. A cut of 0 makes them copies of both.

    Args:
        sequences: ``[n, length]``.
        having: ``[n]``, who has children.
        mates: ``[n]``, with whom: a row of ``sequences``, perhaps its own.
        cuts: ``[n]``, where, from 0 to ``length - 1``.

    Returns:
        The sequences ``[n + 2 having.sum(), length]``, and for each its row in ``sequences``, -1 for a child.
    """
    own, other = sequences, sequences[mates]
    first = np.arange(sequences.shape[1]) < cuts[:, None]
    family = np.stack([own, np.where(first, own, other), np.where(first, other, own)], axis=1)
    there = np.stack([np.ones_like(having), having, having], axis=1)
    rows = np.full(there.shape, -1)
    rows[:, 0] = np.arange(len(sequences))
    return family[there], rows[there]


def mutated(sequences: np.ndarray, changing: np.ndarray, places: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Sequences with one token replaced in each that changes.

    Args:
        sequences: ``[n, length]``; not altered.
        changing: ``[n]``, which change.
        places: ``[n]``, at which position.
        tokens: ``[n]``, to which token.
    """
    made = sequences.copy()
    made[changing, places[changing]] = tokens[changing]
    return made
