"""Attacks of somebody else's, for the tests: they look at the edited model, and say what they saw."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace

import torch

from erasebench.edits.attack import Attack
from erasebench.edits.found import Found
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

    def look(self, pipe, concepts, recipe, tools):
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{recipe.key}\n")
        time.sleep(self.seconds)
        tools.advance(1)
        return Found(seed=self.seed, info={"edits": [edit["method"] for edit in edits_on(pipe)]})


@dataclass(frozen=True)
class Uses(Attack):
    """Uses all that a search may ask for, and notes what it was given."""

    name = "uses"
    access = "weights"
    judged = True
    compares = True
    differentiates = True

    def targets(self, concepts, recipe):
        return (replace(recipe, edit="", attack="", seed=recipe.seed + 1),)

    def look(self, pipe, concepts, recipe, tools):
        own = dict(pipe.unet.named_parameters())
        same = all(torch.equal(own[name], weight) for name, weight in tools.unedited["unet"].named_parameters())
        images = tools.draw([Found(seed=recipe.seed), Found(prompt="two dogs"), Found(seed=recipe.seed)])
        first, second, third = (image.tobytes() for image in images)
        tools.advance(1)
        info = {
            "edits": [edit["method"] for edit in edits_on(pipe)],
            "unedited": same,
            "drawn": [first == third, first == second],
            "clean": hashlib.sha256(first).hexdigest(),
            "judged": tools.sees(images),
            "target": hashlib.sha256(tools.targets[0].tobytes()).hexdigest(),
        }
        return Found(seed=recipe.seed, info=info)
