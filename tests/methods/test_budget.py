"""Budgets: a limit in seconds is part of the key and says when it ended a search, and a kill costs no more than a step."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from attack_helpers import CHURCH, Drawn, made_images, recipe

from erasebench.edits.attack import Tools
from erasebench.errors import UserError
from erasebench.methods.attacks import budget
from erasebench.methods.attacks.cce import Cce
from erasebench.methods.attacks.noise_probe import NoiseProbe
from erasebench.methods.attacks.p4d import P4d
from erasebench.methods.attacks.random_prefix import RandomPrefix
from erasebench.methods.attacks.relearn import Relearn
from erasebench.methods.attacks.ring_a_bell import RingABell
from erasebench.methods.attacks.seeds import Seeds
from erasebench.methods.attacks.unlearndiffatk import UnlearnDiffAtk

JUDGED = [
    Seeds(images=20),
    RandomPrefix(images=20),
    NoiseProbe(),
    UnlearnDiffAtk(tokens=2, timesteps=4, iterations=2, lr=0.1),
    P4d(tokens=2, iterations=4, evaluate=2),
    P4d(tokens=2, iterations=3, evaluate=2, variant="k"),
]

OTHERS = [Cce(iterations=5, images=2, batch=1, accumulate=1), Relearn(iterations=5, images=2, batch=1)]

names = dict(argvalues=[*JUDGED, *OTHERS], ids=lambda attack: attack.name)


@pytest.fixture(scope="module")
def pipe(small_pipe):
    return small_pipe()


@pytest.fixture(scope="module")
def unedited(small_pipe):
    other = small_pipe()
    return {name: copy.deepcopy(getattr(other, name)).requires_grad_(False) for name in ("unet", "text_encoder")}


@pytest.fixture
def hours(monkeypatch):
    """A clock that goes on by an hour whenever it is read."""
    now = iter(range(0, 10**9, 3600))
    monkeypatch.setattr(budget.time, "perf_counter", lambda: float(next(now)))


# A limit in seconds


@pytest.mark.parametrize("attack", **names)
def test_a_limit_is_part_of_the_key_and_none_leaves_it_as_it_was(attack) -> None:
    def key(one) -> str:
        return one.key("m", "e", [CHURCH], recipe(), "judge@2")

    assert "seconds" not in attack.settings, "what was found before there were limits keeps its key"
    assert len({key(attack), key(replace(attack, seconds=60)), key(replace(attack, seconds=61))}) == 3
    for seconds in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="seconds="):
            replace(attack, seconds=seconds)


@pytest.mark.parametrize("attack", JUDGED, ids=lambda attack: f"{attack.name}-{len(attack.settings)}")
def test_a_judged_search_that_its_seconds_ended_says_so(pipe, unedited, hours, attack) -> None:
    drawn = Drawn(attack, recipe(), None, unedited=unedited)
    found = replace(attack, seconds=60).find(pipe, [CHURCH], recipe(), drawn.tools)
    assert found.info["out_of_time"] and found.info["succeeded"] is False
    assert 1 <= found.info["images"] == len(drawn.tried) and sum(drawn.steps) == attack.steps, "no step, no search"
    whole = attack.find(pipe, [CHURCH], recipe(), Drawn(attack, recipe(), None, unedited=unedited).tools)
    assert "out_of_time" not in whole.info and whole.info["images"] > found.info["images"]


@pytest.mark.parametrize("attack", OTHERS, ids=lambda attack: attack.name)
def test_a_search_that_learns_ends_after_a_step(pipe, hours, attack) -> None:
    counted: list[int] = []
    tools = Tools(targets=made_images(attack.targets([CHURCH], recipe())), advance=counted.append)
    found = replace(attack, seconds=60).find(pipe, [CHURCH], recipe(), tools)
    assert found.info["out_of_time"] and found.info["iterations"] == 1 and sum(counted) == attack.steps
    assert len(found.info["losses"]) == 1
    whole = attack.find(pipe, [CHURCH], recipe(), tools)
    assert "out_of_time" not in whole.info and len(whole.info["losses"]) == 5


def test_a_genetic_search_ends_after_a_generation(pipe, hours) -> None:
    attack, counted = RingABell(population=4, generations=5, length=3), []
    found = replace(attack, seconds=60).find(pipe, [CHURCH], recipe(), Tools(advance=counted.append))
    assert found.info["out_of_time"] and sum(counted) == attack.steps and len(counted) == 2
    assert "out_of_time" not in attack.find(pipe, [CHURCH], recipe(), Tools()).info


def test_a_limit_that_is_not_reached_changes_nothing(pipe) -> None:
    attack = UnlearnDiffAtk(tokens=2, timesteps=2, iterations=2)
    texts = {
        one.find(pipe, [CHURCH], recipe(), Drawn(one, recipe(), None).tools).prompt
        for one in (attack, replace(attack, seconds=1e6))
    }
    assert len(texts) == 1


# A kill


def value_of(found):
    """What was found, so that two can be compared."""
    value = getattr(found, found.form)
    return {name: tensor.tolist() for name, tensor in value.items()} if found.form == "tensors" else value


@pytest.mark.parametrize("attack", JUDGED, ids=lambda attack: f"{attack.name}-{len(attack.settings)}")
@pytest.mark.parametrize("seen_at", [None, "last"])
def test_a_search_that_was_killed_goes_on_and_finds_the_same(pipe, unedited, tmp_path, attack, seen_at) -> None:
    """It is killed again and again, each time a step later than the last time."""
    first = Drawn(attack, recipe(), None, unedited=unedited)
    attack.find(pipe, [CHURCH], recipe(), first.tools)
    count = len(first.tried)
    whole = Drawn(attack, recipe(), count if seen_at else None, unedited=unedited)
    wanted = attack.find(pipe, [CHURCH], recipe(), whole.tools)
    again, kills = None, 0
    while again is None:
        rest, steps = Drawn(attack, recipe(), None, unedited=unedited), []

        def sees(images, rest=rest):
            last = value_of(rest.tried[-1]) == value_of(whole.tried[-1])
            return [*[False] * (len(images) - 1), bool(seen_at) and last]

        def killed(done: int, steps=steps, last=2 + kills) -> None:
            steps.append(done)
            if len(steps) == last:
                raise KeyboardInterrupt

        tools = replace(rest.tools, sees=sees, advance=killed, folder=tmp_path)
        try:
            again = attack.find(pipe, [CHURCH], recipe(), tools)
        except KeyboardInterrupt:
            kills += 1
    assert kills and len(rest.tried) < count, "or this could not fail: what was tried before is not tried again"
    assert again.info["images"] == wanted.info["images"] == count
    assert again.info["succeeded"] == wanted.info["succeeded"] == bool(seen_at)
    assert value_of(again) == value_of(wanted)


def test_a_note_of_what_was_tried_that_cannot_be_read_is_passed_over(pipe, tmp_path, caplog) -> None:
    attack = Seeds(images=10)
    for text in ("", "[]", '{"images": -1, "seconds": 0}', '{"images": 99, "seconds": 0}', '{"images": 3}'):
        (tmp_path / "tried.json").write_text(text)
        caplog.clear()
        drawn = Drawn(attack, recipe(), None)
        attack.find(pipe, [CHURCH], recipe(), replace(drawn.tools, folder=tmp_path))
        assert len(drawn.tried) == 10 and "the search begins anew" in caplog.text
