"""Inputs that nobody should give, by a seed: changed bytes, changed cells, changed trees; and what became of them."""

from __future__ import annotations

import copy
import math
import random
import signal
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from erasebench.errors import UserError

LONGEST_SECONDS = 60
"""What takes longer hangs, for all that a user can tell."""

TEXTS = (
    "", " ", "x", "0", "-1", "1.5", "1e400", "nan", "None", "true", "[]", "{}", "${x}", "${oc.env:HOME}", "a,b", 'a"b', "a;b",
    "a\tb", "a\nb", "a\r\nb", "\x00", "\ufeff", "\u202e", "é", "\U0001f3a8", "=1+1", "<b>&", "../../x", "/", "%s", "{0}", "[/x]",
    "x" * 5000, "9" * 400, "99999999999999999999", "church", "erase", "sexual", "2020-01-01", "1,000", "[red]tench", "_target_",
)  # fmt: skip

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3.5, -0.0, 2**63, 10**30, -(10**30), 1e308, math.inf, math.nan, [], {}, [[]], [None], [1, "a"],
    {"a": 1}, {"": None}, {"_target_": "os.system"}, ["church", "church"], [["a"], "b"], {"a": {"b": {"c": []}}}, *TEXTS,
)  # fmt: skip


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bytes with one to three faults: bits turned, pieces cut, doubled, put in, or zeroed."""
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice((1, 2, 8, 64, 1024)))
        how = rng.randrange(8)
        if how <= 1 and start < len(data):
            data = data[:start] + bytes([data[start] ^ (1 << rng.randrange(8))]) + data[start + 1 :]
        elif how == 2:
            data = data[:start] if rng.random() < 0.7 else data[start:]
        elif how == 3:
            data = data[:start] + data[end:]
        elif how == 4:
            data = data[:end] + data[start:]
        elif how == 5:
            data = data[:start] + rng.randbytes(rng.choice((1, 4, 300))) + data[start:]
        elif how == 6:
            data = data[:start] + bytes(end - start) + data[end:]
        else:
            data = data[:start] + rng.choice(TEXTS).encode("utf-8") + data[end:]
    return data


def changed_tree(tree: Any, rng: random.Random) -> Any:
    """A tree of dicts and lists with one to three faults: a value of another kind, a name gone, added or misspelt."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(tree))
        if not places or rng.random() < 0.02:
            return copy.deepcopy(rng.choice(VALUES))
        holder, name = rng.choice(places)
        how = rng.randrange(6)
        if how <= 2:
            holder[name] = copy.deepcopy(rng.choice(VALUES))
        elif how == 3:
            del holder[name]
        elif how == 4:
            holder[name] = [holder[name]] * rng.choice((1, 2, 50))
        elif isinstance(holder, dict):
            holder[rng.choice((f"{name}x", rng.choice(TEXTS), "_target_"))] = holder.pop(name)
        else:
            holder.append(copy.deepcopy(rng.choice(VALUES)))
    return tree


def deep(rng: random.Random) -> str:
    """JSON or YAML that is nested deeper than a parser may go."""
    signs = rng.choice(("[]", "{}"))
    return (signs[0] + ('"a":' if signs == "{}" else "")) * 100_000


def _places(tree: Any) -> Any:
    for name, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, name
        if isinstance(value, dict | list):
            yield from _places(value)


class Hangs(BaseException):
    """An input took too long."""


def outcomes(feed: Callable[[Path, random.Random], None], folder: Path, seeds: range) -> Counter[str]:
    """Feed an input of each seed; counts ``read``, ``refused`` and every traceback by its type and place."""
    counted: Counter[str] = Counter()
    examples: dict[str, str] = {}

    def hangs(*_: Any) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, hangs)
    try:
        for seed in seeds:
            signal.alarm(LONGEST_SECONDS)
            try:
                feed(folder, random.Random(seed))
                counted["read"] += 1
            except UserError:
                counted["refused"] += 1
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                counted[_place(error)] += 1
                examples.setdefault(_place(error), f"{str(error)[:150]!r}, seed {seed}")
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, before)
    return Counter({f"{place}: {examples[place]}" if place in examples else place: n for place, n in counted.items()})


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/erasebench/" in frame.filename and "site-packages" not in frame.filename]
    last = (ours or frames)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
