"""How many images are made at a time: what was asked for, what pays, and half of what was too much."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erasebench.errors import UserError
from erasebench.images import batch_size as module
from erasebench.images.batch_size import AUTO, BatchSize


def settle(sizes: BatchSize, seconds_of) -> int:
    """Run batches whose images take ``seconds_of(size)`` until the size stays."""
    for _ in range(40):
        sizes.took(sizes.now, seconds_of(sizes.now))
    return sizes.now


def test_a_number_is_kept_and_a_cpu_has_one_so_that_pixels_repeat() -> None:
    assert settle(BatchSize(3, "cuda"), lambda size: 1 / size) == 3
    assert settle(BatchSize(AUTO, "cpu"), lambda size: 1 / size) == module.ON_CPU


def test_on_a_gpu_it_grows_while_an_image_gets_cheaper() -> None:
    assert settle(BatchSize(AUTO, "cuda"), lambda size: 1 / size) == module.MOST
    assert settle(BatchSize(AUTO, "cuda"), lambda size: 1.0) == module.FIRST, "nothing is gained"
    assert settle(BatchSize(AUTO, "cuda"), lambda size: max(1 / size, 1 / 32)) == 32, "full at 32"


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_whatever_is_measured_it_is_a_power_of_two_between_the_ends(seconds: list[float]) -> None:
    sizes = BatchSize(AUTO, "cuda")
    for value in seconds:
        sizes.took(sizes.now, value)
        assert module.FIRST <= sizes.now <= module.MOST and sizes.now & (sizes.now - 1) == 0


def test_the_last_batch_of_a_group_tells_nothing() -> None:
    sizes = BatchSize(AUTO, "cuda")
    for _ in range(5):
        sizes.took(3, 1e-6)
    assert sizes.now == module.FIRST


def test_where_memory_ran_out_it_is_half_and_grows_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "denoiser", lambda pipe: SimpleNamespace(device=SimpleNamespace(type="cpu")))
    sizes, recipe = BatchSize(AUTO, "cuda"), SimpleNamespace(width=64, height=64)
    sizes.halve(16, recipe, None)
    assert sizes.now == 8 and settle(sizes, lambda size: 1 / size) == 8
    sizes.halve(4, recipe, None, share=0.5)
    assert sizes.now == 4, "half of the batch was left for images"
    with pytest.raises(UserError, match="for a single image of 64 x 64"):
        sizes.halve(1, recipe, None)
