"""The control that no attack may bring anything back from: the same numbers in another order, everywhere."""

from __future__ import annotations

import torch

from erasebench.concepts import Concept, ErasureTask
from erasebench.methods.controls.shuffled import Shuffled

TASK = ErasureTask((Concept("church", "object"),))


def test_every_weight_has_its_own_numbers_in_another_order_that_the_seed_decides(tiny_random_pipe) -> None:
    changes, _ = Shuffled().changes(tiny_random_pipe, TASK)
    again, other = (Shuffled(seed=seed).changes(tiny_random_pipe, TASK)[0] for seed in (0, 1))
    own = {f"unet.{name}": weight.detach() for name, weight in tiny_random_pipe.unet.named_parameters()}
    assert changes.keys() == own.keys()
    for name, weight in own.items():
        value = changes[name].value
        assert value.shape == weight.shape and torch.equal(
            value.flatten().sort().values, weight.flatten().sort().values
        )
        assert torch.equal(value, again[name].value)
        if weight.unique().numel() > 8:  # biases are all 0, scales of norms all 1
            assert not torch.equal(value, weight) and not torch.equal(value, other[name].value)
    assert sum(weight.unique().numel() > 8 for weight in own.values()) > 10
