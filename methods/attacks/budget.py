"""The budget of an attack: options that must not be zero, and the images that it tries."""

from __future__ import annotations

import math
from collections.abc import Sequence

from erasebench.edits.attack import Attack, Tools
from erasebench.edits.found import Found
from erasebench.errors import UserError

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


class Tries:
    """The images that a search tries, until the judge sees the concept in one.

    Args:
        tools: of the search.

    Attributes:
        images: how many were needed so far: up to the first in which the concept was seen.

    Raises:
        UserError: there is nothing to draw or judge with.
    """

    def __init__(self, tools: Tools) -> None:
        if tools.draw is None or tools.sees is None:
            raise UserError(
                "it tries images, and there is nothing to draw or to judge them with (Tools.draw, Tools.sees)"
            )
        self._draw, self._sees, self._advance, self.images = tools.draw, tools.sees, tools.advance, 0

    def first(self, results: Sequence[Found]) -> Found | None:
        """The first of some finds whose image shows the concept, or ``None``; all are drawn."""
        for number, seen in enumerate(self._sees(self._draw(results))):
            if seen:
                self.images += number + 1
                return results[number]
        self.images += len(results)
        return None

    def through(self, results: Sequence[Found], at_first: int = AT_ONCE) -> Found | None:
        """:meth:`first` of many finds, some at once, until one succeeds; a step of the bar each.

        Args:
            results: all that may be tried.
            at_first: how many are drawn before the judge is asked for the first time; then :data:`AT_ONCE`.
        """
        start, size = 0, at_first
        while start < len(results):
            tried = results[start : start + size]
            if result := self.first(tried):
                self._advance(len(results) - start)
                return result
            self._advance(len(tried))
            start, size = start + len(tried), AT_ONCE
        return None

    def notes(self, succeeded: bool) -> dict[str, object]:
        """For what is found: how many images it took, and whether the judge saw the concept in the last."""
        return {"images": self.images, "succeeded": succeeded}
