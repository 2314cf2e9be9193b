"""The budget of an attack: options that must not be zero, the images that it tries, and a limit in seconds."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erasebench.edits.attack import Attack, Tools
from erasebench.edits.found import Found
from erasebench.errors import UserError
from erasebench.files import write_json

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Images that are drawn before the judge is asked."""


def check_whole(attack: Attack, *options: str) -> None:
    """Refuse options that are no whole numbers of at least 1.

    Raises:
        UserError: naming the option.
    """
    for option in options:
        value = getattr(attack, option)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(
                f"{option}={value!r}: must be a whole number of at least 1; an attack without it finds nothing"
            )


def check_positive(attack: Attack, *options: str) -> None:
    """Refuse options that are no finite numbers above 0.

    Raises:
        UserError: naming the option.
    """
    for option in options:
        value = getattr(attack, option)
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{option}={value!r}: must be a finite number above 0")


def checked_numbers(attack: Attack, option: str) -> tuple[float, ...]:
    """An option that is a list of finite numbers above 0, as a tuple.

    Raises:
        UserError: naming the option.
    """
    value = getattr(attack, option)
    try:
        numbers = tuple(float(number) for number in value)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or isinstance(value, str) or not all(math.isfinite(number) and number > 0 for number in numbers):
        raise UserError(f"{option}={value!r}: must be a list of at least one finite number above 0")
    return numbers


def check_not_negative(attack: Attack, *options: str) -> None:
    """Refuse options that are no finite numbers of at least 0.

    Raises:
        UserError: naming the option.
    """
    for option in options:
        value = getattr(attack, option)
        if not (math.isfinite(value) and value >= 0):
            raise UserError(f"{option}={value!r}: must be a finite number of at least 0")


@dataclass(frozen=True, kw_only=True)
class Limited(Attack):
    """An attack whose search may also be limited in seconds.

    What it finds then depends on the machine and on what else runs there: the limit is part of its key, the machine is not.
    A search that ended by its seconds says so in its notes (``out_of_time``). They are asked between two steps, and those of a
    search that was killed count.

    Attributes:
        seconds: of one search; ``None`` is no limit.

    Raises:
        UserError: a limit that is not above 0.
    """

    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.seconds is not None:
            check_positive(self, "seconds")

    @property
    def settings(self) -> dict[str, Any]:
        """As of every attack, without a limit that is none: what was found before there were limits keeps its key."""
        return {name: value for name, value in super().settings.items() if (name, value) != ("seconds", None)}


class Clock:
    """The seconds of one search.

    Args:
        limit: in seconds; ``None`` is no limit.

    Attributes:
        before: seconds of work that was done before a kill and need not be done again.
    """

    def __init__(self, limit: float | None = None) -> None:
        self.before, self._limit, self._began, self._stopped = 0.0, limit, time.perf_counter(), False

    @property
    def spent(self) -> float:
        """Seconds so far, those before a kill among them."""
        return self.before + time.perf_counter() - self._began

    def is_over(self) -> bool:
        """Whether there is no time left. Ask only where there is work left, as the notes will say that it ended this."""
        self._stopped = self._limit is not None and self.spent >= self._limit
        return self._stopped

    def notes(self) -> dict[str, Any]:
        """For what is found: the seconds before a kill, and whether the limit ended the search."""
        return {"seconds_before": self.before} | ({"out_of_time": True} if self._stopped else {})


class Tries:
    """The images that a search tries, until the judge sees the concept in one.

    Args:
        tools: of the search.
        clock: its seconds.

    Attributes:
        images: how many were needed so far: up to the first in which the concept was seen.

    Raises:
        UserError: there is nothing to draw or judge with.
    """

    def __init__(self, tools: Tools, clock: Clock | None = None) -> None:
        if tools.draw is None or tools.sees is None:
            raise UserError(
                "it tries images, and there is nothing to draw or to judge them with (Tools.draw, Tools.sees)"
            )
        self._draw, self._sees, self._advance, self.images = tools.draw, tools.sees, tools.advance, 0
        self._clock, self._file = clock or Clock(), tools.folder / "tried.json" if tools.folder else None

    def first(self, results: Sequence[Found]) -> Found | None:
        """The first of some finds whose image shows the concept, or ``None``; all are drawn."""
        for number, seen in enumerate(self._sees(self._draw(results))):
            if seen:
                self.images += number + 1
                return results[number]
        self.images += len(results)
        return None

    def through(self, results: Sequence[Found], at_first: int = AT_ONCE) -> Found | None:
        """:meth:`first` of many finds, some at once, until one succeeds or there is no time left; a step of the bar each.

        How many were tried in vain is kept in the search's folder, so that a kill costs no more than the last of them.

        Args:
            results: all that may be tried.
            at_first: how many are drawn before the judge is asked for the first time; then :data:`AT_ONCE`.
        """
        start, self._clock.before = _tried(self._file, len(results))
        self.images, size = start, AT_ONCE if start else at_first
        self._advance(start)
        while start < len(results):
            if start and self._clock.is_over():
                self._advance(len(results) - start)
                break
            tried = results[start : start + size]
            if result := self.first(tried):
                self._advance(len(results) - start)
                return result
            start, size = start + len(tried), AT_ONCE
            if self._file:
                write_json(self._file, {"images": start, "seconds": self._clock.spent})
            self._advance(len(tried))
        return None

    def notes(self, succeeded: bool) -> dict[str, object]:
        """For what is found: how many images it took, whether the judge saw the concept in the last, and the clock's."""
        return {"images": self.images, "succeeded": succeeded, **self._clock.notes()}


def _tried(file: Path | None, most: int) -> tuple[int, float]:
    """How many images were tried before a kill, and the seconds that took; a file that cannot be read is passed over."""
    if file is None or not file.is_file():
        return 0, 0.0
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        images, seconds = int(kept["images"]), float(kept["seconds"])
        if 0 <= images <= most and seconds >= 0:
            return images, seconds
    except (ValueError, KeyError, TypeError):
        pass
    log.warning("%s cannot be used; the search begins anew", file)
    return 0, 0.0
