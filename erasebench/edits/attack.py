"""Attacks: what looks for a way to bring an erased concept back.

An attack is to one prompt what an eraser is to a task: it looks for something, and what it found is a value that is
kept under the hash of all that decides it. So the name of an attacked image is known before the attack has run.
"""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch.nn import Module

from erasebench.concepts import Concept
from erasebench.edits.eraser import Eraser, settings_of, source_of
from erasebench.edits.found import Found, Replace
from erasebench.edits.hook import Hook
from erasebench.edits.unaltered import unaltered
from erasebench.errors import UserError
from erasebench.models.pipeline import Pipeline, part_of
from erasebench.recipe import Recipe

if TYPE_CHECKING:
    from PIL.Image import Image

    from erasebench.models.load import Model

BESIDE_THE_NETWORK = ("texts", "start", "on_step", "images")
"""What a hook may override to act around the network instead of in it: a gradient of the network does not know of that."""


@dataclass(frozen=True)
class Tools:
    """What a search may use besides the pipeline.

    Attributes:
        advance: called with a number of steps done, :attr:`Attack.steps` in all.
        targets: the images of :meth:`Attack.targets`, in their order.
        draw: the attacked image by each of some finds, by the model as it is, with all that its edit does. Kept nowhere.
        sees: for each image, whether the run's judge recognises what is attacked; of a :attr:`Attack.judged` one.
        unedited: ``unet`` and ``text_encoder`` without the edit, for an attack that :attr:`Attack.compares`. Not to be
            altered.
        folder: for checkpoints, of this search alone, made by whoever first writes into it and deleted when the find is
            kept. A search that was killed gets the same one again.
    """

    advance: Callable[[int], None] = lambda steps: None
    targets: Sequence[Image] = ()
    draw: Callable[[Sequence[Found]], list[Image]] | None = None
    sees: Callable[[Sequence[Image]], list[bool]] | None = None
    unedited: Mapping[str, Module] | None = None
    folder: Path | None = None


class Attack(ABC):
    """A way to look for what brings a concept back. Subclasses are frozen dataclasses, one plain typed field an option.

    An attack implements :meth:`look`; the caller uses :meth:`find`. It must not alter the pipeline. Its budget is
    among its options, so that a longer search is another attack.

    Class attributes:
        name: short and unique, as in tables.
        version: raised when the same input would find something else.
        describe: one line for ``erasebench list attacks``.
        access: what it must be given of a model, as people say it: ``text encoder``, ``weights``, ``nothing``.
        adaptive: it looks at the edited model. An attack that does not is run once, on the unedited model, and what it
            found is tried on every edit (a transfer attack).
        inputs: the fields of a recipe that decide what is found; empty for all.
        unsupported: families of models that it cannot attack, and why.
        judged: it asks the run's judge of images that it tries, and may stop at the first that shows the concept. Which
            judge that is decides what is found.
        compares: it needs the unedited networks beside the edited ones.
        differentiates: it takes gradients through the denoiser and the text encoder.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    describe: ClassVar[str] = ""
    access: ClassVar[str]
    adaptive: ClassVar[bool] = True
    inputs: ClassVar[tuple[str, ...]] = ()
    unsupported: ClassVar[Mapping[str, str]] = {}
    judged: ClassVar[bool] = False
    compares: ClassVar[bool] = False
    differentiates: ClassVar[bool] = False

    @abstractmethod
    def look(self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, tools: Tools) -> Found:
        """Look for one prompt.

        Args:
            pipe: the pipeline with the edit applied, if the attack is adaptive; else unedited. Not to be altered.
            concepts: what the image should show: the concepts that the task erases and the prompt asks for.
            recipe: the image without the attack.
            tools: a bar, and what the attack has asked for (:class:`Tools`).

        Returns:
            What was found; its ``info`` holds what is worth knowing of the search.
        """

    def targets(self, concepts: Sequence[Concept], recipe: Recipe) -> tuple[Recipe, ...]:
        """The images of the unedited model that a search needs; by default none. They are kept like all others."""
        return ()

    def find(
        self,
        pipe: Pipeline,
        concepts: Sequence[Concept],
        recipe: Recipe,
        tools: Tools = Tools(),  # noqa: B008 (frozen)
    ) -> Found:
        """:meth:`look`, with notes of who looked for what and how long it took.

        Raises:
            UserError: it failed (the error is named), altered the pipeline, or lacks images of the concept.
        """
        wanted = len(self.targets(concepts, recipe))
        if len(tools.targets) != wanted:
            raise UserError(
                f"attack {self.name}: it needs {wanted} images of the unedited model, and got {len(tools.targets)}; a run "
                "makes them, elsewhere make those of Attack.targets"
            )
        names = ", ".join(concept.name for concept in concepts)
        try:
            with unaltered(pipe, f"attack {self.name}", f"a search for {names}"):
                began = time.perf_counter()
                result = self.look(pipe, concepts, recipe, tools)
                seconds = time.perf_counter() - began
        except UserError as error:
            if str(error).startswith(f"attack {self.name}"):
                raise
            raise UserError(f"attack {self.name} on prompt {recipe.prompt!r}: {error}") from error
        except Exception as error:  # any: what an attack does inside is its own; the cause stays attached
            raise UserError(
                f"attack {self.name} failed on prompt {recipe.prompt!r} ({names}): {type(error).__name__}: {error}"
            ) from error
        notes = {
            "attack": self.name,
            "version": self.version,
            "access": self.access,
            "adaptive": self.adaptive,
            "settings": self.settings,
            "concepts": [concept.name for concept in concepts],
            "for": self._deciding(recipe),
            **result.info,
            "seconds": seconds + result.info.get("seconds_before", 0.0),  # of a search that was taken up
        }
        return replace(result, info=json.loads(json.dumps(notes)))

    def hook(self, found: Mapping[str, Found]) -> Hook:
        """What draws images by what was found, for :func:`erasebench.images.generate.generate`.

        Args:
            found: by attack key.
        """
        return Replace(found)

    def refuses(self, model: Model) -> str | None:
        """Why it cannot attack a loaded model, or ``None`` if it can."""
        reason = self.unsupported.get(model.family)
        return reason or (_no_gradient(model.pipe) if self.differentiates else None)

    def refuses_edits(self, eraser: Eraser) -> str | None:
        """Why it cannot attack the edits of an eraser, or ``None`` if it can."""
        if not (self.adaptive and self.differentiates):
            return None
        return next((reason for kind in eraser.acts() if (reason := hidden_by(kind))), None)

    def refuses_images(self, recipe: Recipe) -> str | None:
        """Why it cannot attack images that are drawn like this one, with the cure, or ``None`` if it can."""
        return None

    @property
    def steps(self) -> int:
        """How many steps :meth:`look` reports."""
        return 1

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments as JSON values."""
        return settings_of(self)

    def _deciding(self, recipe: Recipe) -> dict[str, Any]:
        """The :attr:`inputs` of a recipe, all where none are named; a field that came later is left out at its default."""
        values = recipe.to_dict()
        return {name: values[name] for name in self.inputs or values if name in values}

    def key(
        self,
        model_identity: str,
        edit_key: str,
        concepts: Sequence[Concept],
        recipe: Recipe,
        judge: str = "",
        erased: Sequence[str] = (),
    ) -> str:
        """Hash of all that decides what is found, and of an attack that is not ours its source. 32 hex digits.

        Args:
            model_identity: of the unedited model.
            edit_key: of the edit that is attacked; ``""`` for the unedited model. It counts if the attack is adaptive.
            concepts: as :meth:`look` gets them.
            recipe: the image without the attack; its :attr:`inputs` count.
            judge: id of the metric that is asked. It counts if the attack is judged.
            erased: names of all that the task erases. Where they are more than the concepts, a judge may see one of the
                others, so they count with it.
        """
        others = sorted({name.casefold() for name in erased} - {concept.name.casefold() for concept in concepts})
        decides = {name: value for name, value in self._deciding(recipe).items() if name not in ("edit", "attack")}
        text = json.dumps(
            [
                *(self.name, self.version, self.settings, model_identity, edit_key if self.adaptive else ""),
                *([asdict(concept) for concept in concepts], decides),
                *([judge, *([others] if others else [])] if self.judged else []),
                *source_of(type(self)),
            ],
            sort_keys=True,
        )
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def attacked_concepts(targets: Sequence[Concept], label: str) -> tuple[Concept, ...]:
    """The concepts that an attack on a prompt goes for: the one it asks for, or all where its label is none of them."""
    return tuple(target for target in targets if target.name.casefold() == label.casefold()) or tuple(targets)


def hidden_by(kind: type[Hook]) -> str | None:
    """Why a gradient of the network does not know what a kind of hook does; ``None`` if it does."""
    if any(getattr(kind, name) is not getattr(Hook, name) for name in BESIDE_THE_NETWORK):
        return f"its hook {kind.name} acts around the network, which hides it from the gradient"
    return None


def _no_gradient(pipe: Pipeline) -> str | None:
    """Why no gradient can be taken through a pipeline; ``None`` if one can."""
    for part in ("unet", "text_encoder"):
        for name, weight in (part_of(pipe, part) or Module()).named_parameters():
            if weight.is_meta:
                return f"{part}.{name} is offloaded, and it takes gradients; load the model without offloading"
            if not weight.is_floating_point() or weight.dtype.itemsize < 2:
                return (
                    f"{part}.{name} is quantised ({weight.dtype}), and it takes gradients; load it without quantisation"
                )
            if weight.dtype.itemsize < 4:  # Adam's epsilon is 0 there, and a row of probabilities has no digits left
                return f"{part}.{name} is {str(weight.dtype).removeprefix('torch.')}, and it takes gradients; use dtype=float32"
    return None
