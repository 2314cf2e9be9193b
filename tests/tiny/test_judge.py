"""The judge: what it answers, what it calls broken, and that the shipped one sees what fresh renders show."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from erasebench.tiny.data import FRESH, draw
from erasebench.tiny.judge import BROKEN, NOTHING_SEEN, answer, read_judge
from erasebench.tiny.names import HEADS
from erasebench.tiny.train_judge import accuracy, broken

CHURCHES = ("church", "castle", "bus")


@pytest.mark.parametrize(
    ("chances", "words", "chance"),
    [
        ((0.9, 0.1, 0.2), "church", 0.9),
        ((0.6, 0.1, 0.8), "bus + church", 0.8),
        ((0.4, 0.1, 0.2), NOTHING_SEEN, 0.6),
        ((0.5, 0.1, 0.2), "church", 0.5),
    ],
)
def test_an_answer_names_all_that_is_seen(chances: tuple[float, ...], words: str, chance: float) -> None:
    assert answer(chances, CHURCHES) == (words, pytest.approx(chance))


def test_a_head_that_gives_nan_has_not_looked() -> None:
    words, chance = answer((math.nan, 0.9, 0.2), CHURCHES)
    assert words == "" and math.isnan(chance)


def test_the_shipped_judge_sees_what_fresh_renders_show() -> None:
    right = accuracy(read_judge(), n=500)
    assert set(right) == set(HEADS)
    assert min(right.values()) >= 0.98, right


def test_the_shipped_judge_tells_broken_pictures_from_whole_ones() -> None:
    pixels, *_ = draw(range(FRESH + 5000, FRESH + 5100))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    spoilt = broken(images.float() / 127.5 - 1, torch.Generator().manual_seed(0))
    judge = read_judge()
    seen = judge.chances((spoilt + 1) / 2)
    assert (seen[BROKEN] > 0.5).float().mean() > 0.95
    assert (judge.chances(images)[BROKEN] > 0.5).float().mean() < 0.02
    assert max(float((seen[head] > 0.5).any(1).float().mean()) for head in HEADS) < 0.05


def test_a_broken_picture_keeps_its_colours_or_is_noise() -> None:
    pixels, *_ = draw(range(40))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    spoilt = broken(images, torch.Generator().manual_seed(1))
    assert spoilt.shape == images.shape and spoilt.abs().max() <= 1
    kept = [
        np.array_equal(np.sort(a.ravel()), np.sort(b.ravel()))
        for a, b in zip(images.numpy(), spoilt.numpy(), strict=True)
    ]
    assert 8 < sum(kept) < 32, "half are cut up, half are noise"
    assert not any(torch.equal(a, b) for a, b in zip(images, spoilt, strict=True))
