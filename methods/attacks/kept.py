"""What a search without an optimizer has so far, kept in its folder, so that a kill costs no more than a fiftieth of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from erasebench.files import write_json
from erasebench.methods.attacks.budget import Clock
from erasebench.methods.trained.checkpoint import CHECKPOINTS

log = logging.getLogger(__name__)


class Kept:
    """The state of one search, a JSON file that is whole at any moment.

    Args:
        folder: of the search alone (:attr:`erasebench.edits.attack.Tools.folder`); ``None``: nothing is kept.
        steps: of the whole search.
        clock: whose seconds are kept as well, and counted when the search is taken up.
    """

    def __init__(self, folder: Path | None, steps: int, clock: Clock) -> None:
        self.path = folder / "search.json" if folder else None
        self.every, self._clock = -(-steps // CHECKPOINTS), clock

    def save(self, done: int, state: Callable[[], dict[str, Any]]) -> None:
        """Keep the state after some steps, if it is time: after every fiftieth of the steps.

        Args:
            done: steps.
            state: gives it, JSON values; not asked where nothing is kept.

        Raises:
            UserError: the folder is full or not writable.
        """
        if self.path is not None and done % self.every == 0:
            write_json(self.path, {"seconds": self._clock.spent, "state": state()})

    def take_up(self, restore: Callable[[dict[str, Any]], None]) -> None:
        """Go on from the state that was kept, if there is one; what cannot be read is passed over with a warning.

        Args:
            restore: takes the state, and raises what a dictionary and its values raise if it is another one, before it has
                changed anything.
        """
        if self.path is None or not self.path.is_file():
            return
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            seconds = float(kept["seconds"])
            restore(kept["state"])
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            log.warning("%s cannot be used (%s); the search begins anew", self.path, error)
            return
        self._clock.before = seconds
