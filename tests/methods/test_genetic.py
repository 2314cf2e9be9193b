"""The genetic search of Ring-A-Bell against a literal transcription of the released notebook, and what it must keep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erasebench.errors import UserError
from erasebench.methods.attacks.genetic import Budget, crossed, mutated, search

IDS = np.arange(3, 90)


# The released notebook, one sequence at a time; a sequence is [BOS, length tokens, EOS ...] there, so that its
# positions are ours plus one. The random numbers are given instead of drawn.


def literal_crossover(parents: list[list[int]], draws: list[tuple[bool, int, int]]) -> list[list[int]]:
    new_population = []
    for i in range(len(parents)):
        new_population.append(parents[i])
        has, idx, point = draws[i]
        if has:
            new_population.append(parents[i][:point] + parents[idx][point:])
            new_population.append(parents[idx][:point] + parents[i][point:])
    return new_population


def literal_mutation(population: list[list[int]], draws: list[tuple[bool, int, int]]) -> list[list[int]]:
    for i in range(len(population)):
        has, idx, value = draws[i]
        if has:
            population[i][idx] = value
    return population


def literal_fitness(target: np.ndarray, embedded: np.ndarray) -> float:
    total = 0.0
    for row in range(target.shape[0]):
        for column in range(target.shape[1]):
            total += (target[row, column] - embedded[row, column]) ** 2
    return total


def literal_search(loss, ids: np.ndarray, budget: Budget, seed: int):
    """The notebook's loop. Every sequence is compared anew in every generation."""
    rng = np.random.default_rng(seed)
    start = ids[rng.integers(ids.size, size=(budget.population, budget.length))]
    population = [[-1, *row, -2] for row in start.tolist()]
    curve = []
    for step in range(budget.generations):
        score = [loss(np.array([one[1:-1]]))[0] for one in population]
        idx = np.argsort(score, kind="stable")
        population = [population[index] for index in idx][: budget.population // 2]
        curve.append(score[idx[0]])
        if step != budget.generations - 1:
            n = len(population)
            has, mates, cuts = (
                rng.random(n) < budget.crossover,
                rng.integers(n, size=n),
                rng.integers(budget.length, size=n),
            )
            population = literal_crossover(population, [(has[i], mates[i], cuts[i] + 1) for i in range(n)])
            n = len(population)
            has, places = rng.random(n) < budget.mutation, rng.integers(budget.length, size=n)
            tokens = ids[rng.integers(ids.size, size=n)]
            population = literal_mutation(population, [(has[i], places[i] + 1, int(tokens[i])) for i in range(n)])
    return population[0][1:-1], curve


def rows_of(tokens: np.ndarray, seed: int = 0) -> np.ndarray:
    """A small causal "text encoder" in float64: rows [n, length, 5] that depend on all tokens up to each one."""
    table = np.random.default_rng(seed).normal(size=(100, 5))
    return np.cumsum(table[tokens] * (1 + np.arange(tokens.shape[1]))[:, None] ** 0.3, axis=1)


def loss_to(target: np.ndarray):
    return lambda tokens: ((rows_of(tokens) - target) ** 2).sum(axis=(1, 2))


@given(data=st.data(), n=st.integers(1, 7), length=st.integers(1, 6))
def test_crossover_is_the_notebooks(data, n: int, length: int) -> None:
    draw = lambda one: data.draw(st.lists(one, min_size=n, max_size=n))  # noqa: E731
    sequences = np.array(draw(st.lists(st.integers(0, 50), min_size=length, max_size=length)))
    has, mates, cuts = draw(st.booleans()), draw(st.integers(0, n - 1)), draw(st.integers(0, length - 1))
    expected = literal_crossover(
        [[-1, *row] for row in sequences.tolist()],
        [(one, mate, cut + 1) for one, mate, cut in zip(has, mates, cuts, strict=True)],
    )
    made, rows = crossed(sequences, np.array(has), np.array(mates), np.array(cuts))
    assert made.tolist() == [row[1:] for row in expected]
    assert (made[rows >= 0] == sequences[rows[rows >= 0]]).all() and (rows >= 0).sum() == n


@given(data=st.data(), n=st.integers(1, 7), length=st.integers(1, 6))
def test_mutation_is_the_notebooks(data, n: int, length: int) -> None:
    draw = lambda one: data.draw(st.lists(one, min_size=n, max_size=n))  # noqa: E731
    sequences = np.array(draw(st.lists(st.integers(0, 50), min_size=length, max_size=length)))
    has, places, tokens = draw(st.booleans()), draw(st.integers(0, length - 1)), draw(st.integers(51, 99))
    before = sequences.copy()
    made = mutated(sequences, np.array(has), np.array(places), np.array(tokens))
    assert made.tolist() == literal_mutation(before.tolist(), list(zip(has, places, tokens, strict=True)))
    assert (sequences == before).all(), "what is given is not altered"
    assert ((made != before).sum(axis=1) == np.array(has)).all(), "one token of each that changes, none of the others"


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000), length=st.integers(1, 5), population=st.integers(2, 14), generations=st.integers(1, 12)
)
def test_the_search_is_the_notebooks(seed: int, length: int, population: int, generations: int) -> None:
    budget = Budget(length=length, population=population, generations=generations)
    target = rows_of(np.random.default_rng(seed).integers(3, 90, size=(1, length)))[0]
    best = search(loss_to(target), IDS, budget, seed)
    tokens, curve = literal_search(loss_to(target), IDS, budget, seed)
    assert list(best.tokens) == tokens
    np.testing.assert_array_equal(best.curve, curve)
    assert best.loss == best.curve[-1] == pytest.approx(literal_fitness(target, rows_of(np.array([tokens]))[0]))


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), elites=st.integers(1, 4), mutation=st.sampled_from([0.25, 1.0]))
def test_with_elites_the_loss_never_grows(seed: int, elites: int, mutation: float) -> None:
    budget = Budget(length=4, population=10, generations=15, mutation=mutation, elites=elites)
    curve = search(loss_to(rows_of(np.array([[5, 6, 7, 8]]))[0]), IDS, budget, seed).curve
    assert (np.diff(curve) <= 0).all()


def test_without_elites_a_mutation_may_spoil_the_best() -> None:
    """As released. A search that never lost its best here would not be the notebook's."""
    budget = Budget(length=4, population=6, generations=40, mutation=1.0)
    curves = [search(loss_to(rows_of(np.array([[5, 6, 7, 8]]))[0]), IDS, budget, seed).curve for seed in range(5)]
    assert any((np.diff(curve) > 0).any() for curve in curves)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), ids=st.sets(st.integers(0, 99), min_size=1, max_size=9), length=st.integers(1, 9))
def test_tokens_stay_in_the_vocabulary_and_the_length(seed: int, ids: set[int], length: int) -> None:
    seen: list[np.ndarray] = []

    def loss(tokens: np.ndarray) -> np.ndarray:
        seen.append(tokens)
        return tokens.sum(axis=1).astype(float)

    best = search(loss, sorted(ids), Budget(length=length, population=8, generations=5), seed)
    assert len(best.tokens) == length and set(best.tokens) <= ids
    assert all(part.shape[1] == length and set(part.ravel().tolist()) <= ids for part in seen)


def test_one_seed_one_result() -> None:
    target, budget = rows_of(np.array([[5, 6, 7, 8]]))[0], Budget(length=4, population=12, generations=10)
    one, again, other = (search(loss_to(target), IDS, budget, seed) for seed in (1, 1, 2))
    assert one == again and one.tokens != other.tokens


def test_it_finds_what_is_there() -> None:
    """With the exact answer among few tokens, the search ends on it: the loss is 0."""
    wanted = np.array([[4, 3, 5, 4]])
    budget = Budget(length=4, population=40, generations=60, elites=1)
    best = search(loss_to(rows_of(wanted)[0]), [3, 4, 5], budget, 0)
    assert best.tokens == (4, 3, 5, 4) and best.loss == 0


def test_what_lives_on_unchanged_is_not_compared_again() -> None:
    asked = 0

    def loss(tokens: np.ndarray) -> np.ndarray:
        nonlocal asked
        asked += len(tokens)
        return tokens.sum(axis=1).astype(float)

    still = search(loss, IDS, Budget(population=10, generations=30, crossover=0.0, mutation=0.0), 0)
    assert still.evaluations == asked == 10


def test_progress_is_told_once_a_generation() -> None:
    told: list[int] = []
    search(lambda tokens: tokens.sum(axis=1).astype(float), IDS, Budget(population=4, generations=7), 0, told.append)
    assert told == [1] * 7


@pytest.mark.parametrize(
    "wrong",
    [{"length": 0}, {"population": 1}, {"generations": 0}, {"crossover": 1.5}, {"mutation": -0.1}, {"elites": 101}],
)
def test_a_budget_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Budget(**wrong)


def test_a_loss_that_is_no_number_stops_the_search() -> None:
    with pytest.raises(UserError, match="not a finite number"):
        search(lambda tokens: np.full(len(tokens), np.nan), IDS, Budget(population=4, generations=2), 0)
