"""Negative prompt: guidance away from the concept, the oldest guard of Stable Diffusion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Edit, Eraser, Hook, Work
from erasebench.errors import UserError
from erasebench.models.encode import encode_prompts
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import denoiser
from erasebench.recipe import Recipe

if TYPE_CHECKING:
    from erasebench.models.load import Model

ONE_PASS = "FLUX.1-dev takes guidance as an input and makes no second pass (FLUX.1-schnell does, at a guidance above 1)"


class NegativeText(Hook):
    """Puts a text at the end of each image's negative prompt.

    Settings: ``text``.
    """

    name = "negative_prompt"
    second_pass = True
    places = ("the negative prompt",)

    @contextmanager
    def installed(self, pipe: Pipeline) -> Iterator[None]:
        """Keeps the encoded texts for as long as it is installed."""
        self._encoded: dict[str, tuple[Tensor, ...]] = {}
        try:
            yield
        finally:
            del self._encoded

    def texts(self, pipe: Pipeline, inputs: dict[str, Tensor], batch: Sequence[Recipe]) -> dict[str, Tensor]:
        """The negative embeddings of ``<own negative prompt>, <text>``, or of the text alone."""
        wanted = [", ".join(filter(None, (recipe.negative_prompt, self.settings["text"]))) for recipe in batch]
        for text in dict.fromkeys(wanted):
            if text not in self._encoded:
                self._encoded[text] = tuple(part[0] for part in encode_prompts(pipe, [text], negative=True))
        parts = [torch.stack(rows) for rows in zip(*(self._encoded[text] for text in wanted), strict=True)]
        return inputs | dict(zip(("negative_prompt_embeds", "negative_pooled_prompt_embeds"), parts, strict=False))


@dataclass(frozen=True)
class NegativePrompt(Eraser):
    """The concept as the negative prompt: ``eps = eps_neg + s (eps_p - eps_neg)``, with no weight changed.

    The usual baseline of papers on guards. It acts on the second pass alone, so an attack on the prompt's own pass
    does not meet it, and at a guidance of 1 or less it does nothing (such images are refused).

    Attributes:
        text: the negative prompt; ``None`` is the concepts' phrases, joined by commas. Papers differ in the wording;
            for unsafe content ``nudity`` and the long safety text of SLD are usual.
        phrases: take all phrases of a concept, not its name alone.

    Raises:
        UserError: an empty text.
    """

    name: ClassVar[str] = "negative_prompt"
    describe: ClassVar[str] = "guard: the concept as negative prompt; no weight is changed"
    partly: ClassVar[dict[str, str]] = {"flux": ONE_PASS}

    text: str | None = None
    phrases: bool = True

    def __post_init__(self) -> None:
        if self.text is not None and not self.text.strip():
            raise UserError("negative_prompt: text is empty; give a text, or null for the concepts' own phrases")

    def refuses(self, model: Model) -> str | None:
        """A network that takes guidance as an input."""
        return ONE_PASS if denoiser(model.pipe).config.get("guidance_embeds") else None

    def acts(self) -> tuple[type[Hook], ...]:
        """The negative prompt."""
        return (NegativeText,)

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """The hook and nothing else."""
        own = [phrase for target in task.targets for phrase in (target.phrases if self.phrases else (target.name,))]
        text = self.text if self.text is not None else ", ".join(dict.fromkeys(own))
        return Edit({}, {"method": self.name, "text": text}, (NegativeText({"text": text}),))
