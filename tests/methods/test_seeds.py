"""Best of N, and random tokens with as many tries: the controls of searches that look at images."""

from __future__ import annotations

import pytest
from attack_helpers import CHURCH, Drawn, recipe

from erasebench.errors import UserError
from erasebench.methods.attacks.random_prefix import RandomPrefix
from erasebench.methods.attacks.seeds import Seeds


@pytest.mark.parametrize("attack", [Seeds(images=20), RandomPrefix(images=20)])
@pytest.mark.parametrize("seen_at", [1, 2, 9, 20, None])
def test_they_take_the_first_image_that_shows_the_concept(tiny_random_pipe, attack, seen_at) -> None:
    drawn = Drawn(attack, recipe(), seen_at)
    found = attack.find(tiny_random_pipe, [CHURCH], recipe(), drawn.tools)
    assert found.info["images"] == (seen_at or 20) and found.info["succeeded"] == (seen_at is not None)
    assert len(drawn.tried) <= 20 and sum(drawn.steps) == attack.steps == 20
    if seen_at:
        assert getattr(found, found.form) == getattr(drawn.tried[seen_at - 1], found.form)
    first = drawn.tried[0]
    assert first.seed == 1 or first.prompt == "a photo of a church", "what was asked for is tried first"
    assert len({(one.seed, one.prompt) for one in drawn.tried}) == len(drawn.tried)


def test_random_tokens_stand_before_the_prompt(tiny_random_pipe) -> None:
    drawn = Drawn(RandomPrefix(images=4), recipe(), None)
    RandomPrefix(images=4).find(tiny_random_pipe, [CHURCH], recipe(), drawn.tools)
    assert all(one.prompt.endswith("a photo of a church") for one in drawn.tried)
    assert all(len(one.prompt) > len("a photo of a church") for one in drawn.tried[1:])


@pytest.mark.parametrize("kind", [Seeds, RandomPrefix])
def test_no_image_is_no_attack(kind) -> None:
    with pytest.raises(UserError, match="images=0"):
        kind(images=0)
