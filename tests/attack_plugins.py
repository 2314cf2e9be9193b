"""An attack of somebody else's, for the tests: it looks at the edited model, and says what it saw."""

from __future__ import annotations

import time
from dataclasses import dataclass

from erasebench.edits.attack import Attack, Found
from erasebench.models.marks import edits_on


@dataclass(frozen=True)
class Looks(Attack):
    """Finds a seed, and notes which edits were on the model while it looked.

    Attributes:
        seed: what it finds.
        seconds: how long it takes.
        log: a file that gets a line for each search that is begun.
    """

    name = "looks"
    access = "weights"
    seed: int = 7
    seconds: float = 0.0
    log: str = ""

    def look(self, pipe, concepts, recipe, advance):
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{recipe.key}\n")
        time.sleep(self.seconds)
        advance(1)
        return Found(seed=self.seed, info={"edits": [edit["method"] for edit in edits_on(pipe)]})
