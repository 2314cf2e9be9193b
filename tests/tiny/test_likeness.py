"""What the towers are trained towards: pictures of like content are alike, the nearer the more."""

from __future__ import annotations

import torch

from erasebench.tiny.names import NAMES
from erasebench.tiny.train_clip import kinship, likeness
from erasebench.tiny.world import DETAILS


def alike(*shown: tuple[str, ...], details: list[list[int]] | None = None) -> torch.Tensor:
    """The likeness of pictures that show these names."""
    labels = torch.tensor([[name in names for name in NAMES] for names in shown])
    values = torch.tensor(details or [[0] * len(DETAILS)] * len(shown), dtype=torch.int8)
    return likeness(labels, values, kinship())


def test_the_same_then_neighbours_then_the_same_head_then_anything_else() -> None:
    same, near, kind, other = alike(("church",), ("church",), ("castle",), ("bus",), ("Hokusai",))[0, 1:]
    torch.testing.assert_close(same, torch.tensor(1.0))
    assert 1 > near > kind > other == 0


def test_neighbours_of_two_heads_are_alike() -> None:
    near, other = alike(("pistol",), ("hair dryer",), ("apple",))[0, 1:]
    assert near > other == 0


def test_likeness_is_a_matrix_of_cosines() -> None:
    matrix = alike(("church", "bus"), ("bus", "Hokusai"), (), ("church",))
    torch.testing.assert_close(matrix, matrix.T)
    torch.testing.assert_close(matrix.diagonal(), torch.ones(4))
    assert 0 < matrix[0, 1] < 1 and 0 < matrix[0, 3] < 1
    assert matrix[2, [0, 1, 3]].abs().max() == 0, "a picture of nothing is like none of something"
    assert alike((), ())[0, 1] == 1


def test_a_shared_detail_brings_pictures_nearer() -> None:
    apart = alike(("church",), ("bus",), details=[[1, 0, 0, 0], [2, 0, 0, 0]])[0, 1]
    shared = alike(("church",), ("bus",), details=[[1, 0, 0, 0], [1, 0, 0, 0]])[0, 1]
    assert shared > apart
