"""Searches without an optimizer: one that was killed goes on inside its prompt, and finds the same tokens as an uncut one."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from attack_helpers import CHURCH, recipe

from erasebench.config.compose import compose
from erasebench.edits.attack import Tools
from erasebench.methods.attacks.budget import Clock
from erasebench.methods.attacks.kept import Kept
from erasebench.methods.attacks.mma_text import MmaText
from erasebench.methods.attacks.ring_a_bell import RingABell
from erasebench.run import run
from erasebench.store import Store

SEARCHES = [
    RingABell(population=8, generations=9, length=4),
    RingABell(population=9, generations=9, length=3, elites=1, mutation=0.9),
    MmaText(length=4, iterations=9, batch=16, topk=5),
]
each = pytest.mark.parametrize("attack", SEARCHES, ids=lambda one: f"{one.name}-{one.length}")


@pytest.fixture(scope="module")
def pipe(small_pipe):
    return small_pipe()


@pytest.fixture(scope="module")
def wanted(pipe) -> dict:
    """What each search finds uncut."""
    return {attack: told(attack.find(pipe, [CHURCH], recipe(), Tools())) for attack in SEARCHES}


def told(found) -> dict:
    """What was found and all that is noted of the search, but for its seconds."""
    notes = {name: value for name, value in found.info.items() if not name.startswith("seconds")}
    return {"prompt": found.prompt, **notes}


@each
def test_killed_after_each_step_it_ends_as_if_it_had_not_been(pipe, wanted, tmp_path, attack) -> None:
    lengths, found = [], None
    while found is None:
        done: list[int] = []

        def killed(steps: int, done=done) -> None:
            done.append(steps)
            # The first says what was kept; two more steps then, of which all searches keep one.
            if len(done) == 3 and sum(done) < attack.steps:
                raise KeyboardInterrupt

        try:
            found = attack.find(pipe, [CHURCH], recipe(), Tools(folder=tmp_path, advance=killed))
        except KeyboardInterrupt:
            lengths.append(done[0])
    assert len(lengths) > 2 and lengths[1:] == sorted(set(lengths[1:])), "or it began anew each time"
    assert sum(done) == attack.steps and done[0] > 1
    assert told(found) == wanted[attack] and found.info["seconds_before"] > 0


@each
def test_the_limit_in_seconds_counts_those_before_a_kill(pipe, tmp_path, attack) -> None:
    limited = replace(attack, seconds=1e4)

    def killed(steps: int, done: list[int] = []) -> None:  # noqa: B006 (kept from call to call)
        done.append(steps)
        if len(done) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        limited.find(pipe, [CHURCH], recipe(), Tools(folder=tmp_path, advance=killed))
    text = (tmp_path / "search.json").read_text()
    head, _, rest = text.partition('"seconds": ')
    (tmp_path / "search.json").write_text(f'{head}"seconds": 20000.0{rest[rest.index(",") :]}')
    found = limited.find(pipe, [CHURCH], recipe(), Tools(folder=tmp_path))
    assert found.info["out_of_time"] and found.info["seconds_before"] == 20000.0


@each
@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"seconds": 1}', '{"seconds": 1, "state": {}}', '{"seconds": 1, "state": [1]}', "broken"]
)
def test_a_state_that_cannot_be_used_is_passed_over(pipe, wanted, tmp_path, caplog, attack, text) -> None:
    (tmp_path / "search.json").write_text(text)
    found = attack.find(pipe, [CHURCH], recipe(), Tools(folder=tmp_path))
    assert "the search begins anew" in caplog.text and told(found) == wanted[attack]
    assert found.info["seconds_before"] == 0


@each
def test_a_state_of_which_a_part_is_lost_is_passed_over_whole(pipe, wanted, tmp_path, caplog, attack) -> None:
    file = tmp_path / "search.json"
    with pytest.raises(KeyboardInterrupt):
        attack.find(pipe, [CHURCH], recipe(), Tools(folder=tmp_path, advance=_after(4)))
    kept = json.loads(file.read_text())
    assert len(kept["state"]) == 5
    for name, broken in itertools.product(kept["state"], (False, True)):
        state = {key: value for key, value in kept["state"].items() if key != name} | ({name: ["x"]} if broken else {})
        file.write_text(json.dumps({**kept, "state": state}))
        caplog.clear()
        found = attack.find(pipe, [CHURCH], recipe(), Tools(folder=tmp_path))
        assert "the search begins anew" in caplog.text and told(found) == wanted[attack]


def _after(calls: int):
    done: list[int] = []

    def killed(steps: int) -> None:
        done.append(steps)
        if len(done) == calls:
            raise KeyboardInterrupt

    return killed


def test_it_is_kept_about_fifty_times_and_not_at_all_without_a_folder(tmp_path) -> None:
    asked: list[int] = []
    kept = Kept(tmp_path, 3000, Clock())
    for step in range(1, 3001):
        kept.save(step, lambda step=step: asked.append(step) or {})
    assert asked == list(range(60, 3001, 60))
    Kept(None, 10, Clock()).save(1, lambda: asked.append(0) or {})
    assert 0 not in asked


@pytest.mark.parametrize("name", ["ring_a_bell", "mma_text"])
def test_after_kill_9_the_same_command_finds_the_same_tokens(small_pipe, tmp_path, name) -> None:
    """In the middle of the second prompt; what the first found is not looked for again."""
    small_pipe().save_pretrained(tmp_path / "small")
    budget = {"ring_a_bell": ("population=8", "generations=6", "length=4"), "mma_text": ("iterations=6", "length=4")}
    command = [
        f"model.path={tmp_path}/small", "model=folder", "model.name=small", "task=object", "task.erase=[church]",
        "task.concepts=[church,tench]", "metric=[]", "prompts.per_erased=2", "prompts.per_paraphrased=0",
        "prompts.per_near=0", "prompts.per_retained=0", "prompts.general=0", "protocol.size=16", "protocol.steps=2",
        "device=cpu", "method=none", f"attack={name}", *(f"attack.{name}.{one}" for one in budget[name]),
    ]  # fmt: skip
    code = (
        "import os, signal\n"
        "from erasebench.methods.attacks.kept import Kept\n"
        "save, calls = Kept.save, []\n"
        "def saved(self, done, state):\n"
        "    save(self, done, state)\n"
        "    calls.append(done)\n"
        "    if calls.count(1) == 2 and done == 3:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "Kept.save = saved\n"
        "from erasebench.cli import main\n"
        f"main(['run', *{[*command, f'store.dir={tmp_path}/killed']!r}])\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    (state,) = (tmp_path / "killed").glob("work/*/search.json")
    for root in ("killed", "whole"):
        done = run(compose([*command, f"store.dir={tmp_path / root}"]))
        assert done is not None and not done.problems
    assert not state.exists()
    stores = [Store(tmp_path / root) for root in ("killed", "whole")]
    keys = [
        sorted(path.stem for path in (tmp_path / root / "attacks").rglob("*.safetensors"))
        for root in ("killed", "whole")
    ]
    assert keys[0] == keys[1] and len(keys[0]) == 2
    for key in keys[0]:
        one, other = (store.get_attack(key) for store in stores)
        assert told(one) == told(other)
    assert sum(stores[0].get_attack(key).info["seconds_before"] > 0 for key in keys[0]) == 1
