"""CCE: a soft word that an edited model reads as the concept, learnt by textual inversion.

M. Pham, K. O. Marshall et al., "Circumventing Concept Erasure Methods For Text-to-Image Generative Models" (ICLR 2024):
the plain attack of its release on ESD, UCE, concept ablation, Forget-Me-Not and selective amnesia. Those on negative
prompts and SLD, which train through the guidance, are :mod:`erasebench.methods.attacks.cce_guarded`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import mse_loss

from erasebench.concepts import Concept, with_article
from erasebench.edits.attack import Tools
from erasebench.edits.found import Found
from erasebench.methods.attacks.budget import Clock, Limited, check_positive, check_whole
from erasebench.methods.attacks.concept_vector import ONE_ENCODER
from erasebench.methods.attacks.learning import ANY_PROMPT, Learning, concept_images, learnt
from erasebench.methods.trained.latents import encoded, noised, noising
from erasebench.models.pipeline import Pipeline
from erasebench.models.soft_words import placed, read_with
from erasebench.models.targets import denoiser
from erasebench.prompts.prompt_set import hashed_seed
from erasebench.recipe import Recipe

WORD_SENTENCES = {
    "artist": ("a painting in the style of {}", "a picture in the style of {}", "an image in the style of {}"),
}
"""By kind, the sentences that the word is learnt in."""

OTHER_SENTENCES = ("a photo of {}", "a picture of {}", "an image of {}", "{}")


@dataclass(frozen=True)
class Cce(Limited):
    """Textual inversion: ``min_v E ||eps - eps_edited(z_t, t, E(sentence with v))||^2`` on images of the concept.

    All networks stay as they are, and only the embedding ``v`` that the text encoder reads in place of the concept's name
    is trained, by AdamW (weight decay 0.01, as in diffusers' script, which the release extends). It starts as the name's
    own first tokens. The images are the unedited model's, drawn from our prompts for the concept's name.

    One search serves all prompts of a concept: what is found is put in place of its name or another of its phrases.

    Attributes:
        iterations: steps of the optimizer.
        images: to learn from.
        words: how many vectors.
        lr: the release's 5e-3 is scaled by batch and accumulation (``--scale_lr``), 16 in all.
        batch, accumulate: images a draw, and draws a step.
        seed: of images and noise.
        seconds: see :class:`erasebench.methods.attacks.budget.Limited`.

    Raises:
        UserError: an option that is not above 0.
    """

    name: ClassVar[str] = "cce"
    describe: ClassVar[str] = "CCE: textual inversion on the edited model, from images of the unedited one"
    access: ClassVar[str] = "weights"
    inputs: ClassVar[tuple[str, ...]] = ANY_PROMPT
    unsupported: ClassVar = ONE_ENCODER
    differentiates: ClassVar[bool] = True

    iterations: int = 5000
    images: int = 25
    words: int = 1
    lr: float = 0.08
    batch: int = 4
    accumulate: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "iterations", "images", "words", "batch", "accumulate")
        check_positive(self, "lr")

    @property
    def steps(self) -> int:
        """A step of the optimizer."""
        return self.iterations

    def targets(self, concepts: Sequence[Concept], recipe: Recipe) -> tuple[Recipe, ...]:
        """Images of the concepts in turn, each from a prompt and seed of its own."""
        return concept_images(concepts, recipe, self.images, self.seed)

    def look(self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, tools: Tools) -> Found:
        """The words, float32, with the loss by step."""
        name = concepts[0].name
        latents = encoded(pipe, tools.targets).to(denoiser(pipe).dtype)
        texts = [
            placed(pipe.tokenizer, sentence.format(with_article(name)), (name,), self.words)
            for sentence in WORD_SENTENCES.get(concepts[0].kind, OTHER_SENTENCES)
        ]
        words, scheduler = Parameter(self._start(pipe, name)), noising(pipe.scheduler.config)
        own = hashed_seed("cce", self.seed, *(one.name for one in concepts))
        notes = learnt(
            {"words": words},
            Learning(self.iterations, self.accumulate, self.lr, own),
            self.loss_of(pipe, concepts, recipe, latents, texts, words, scheduler),
            tools,
            Clock(self.seconds),
        )
        return Found(
            words=words.detach()[0].float().cpu(),
            replaces=tuple(phrase for concept in concepts for phrase in (concept.name, *concept.phrases)),
            info={"images": self.images, **notes},
        )

    def loss_of(
        self,
        pipe: Pipeline,
        concepts: Sequence[Concept],
        recipe: Recipe,
        latents: Tensor,
        texts: Sequence[tuple[Tensor, int]],
        words: Tensor,
        scheduler: Any,
    ) -> Callable[[torch.Generator], Tensor]:
        """The loss of a draw, by its random numbers; the arguments are those of :meth:`look` and :meth:`loss`."""
        return lambda numbers: self.loss(pipe, latents, texts, words, scheduler, numbers)

    def loss(
        self,
        pipe: Pipeline,
        latents: Tensor,
        texts: Sequence[tuple[Tensor, int]],
        words: Tensor,
        scheduler: Any,
        numbers: torch.Generator,
    ) -> Tensor:
        """The loss of one draw, a scalar: images, a sentence for each, timesteps and noise by ``numbers``, in this order.

        Args:
            pipe: with the edit on.
            latents: of the images, ``[n, channels, height, width]``.
            texts: token ids with room for the words, and where that is.
            words: ``[1, k, d]``.
            scheduler: that noises.
            numbers: random ones, on the CPU.
        """
        chosen = torch.randint(len(latents), (self.batch,), generator=numbers)
        sentences = torch.randint(len(texts), (self.batch,), generator=numbers).tolist()
        z, timesteps, target = noised(scheduler, latents[chosen.to(latents.device)], numbers)
        encoder = pipe.text_encoder
        read = {n: read_with(encoder, texts[n][0].to(words.device), words, texts[n][1]) for n in set(sentences)}
        predicted = denoiser(pipe)(z, timesteps, torch.cat([read[n] for n in sentences]).to(z)).sample
        return mse_loss(predicted, target)

    def _start(self, pipe: Pipeline, name: str) -> Tensor:
        """The first tokens of a name, its last one again where it has too few, ``[1, words, d]``."""
        vocabulary = pipe.text_encoder.get_input_embeddings().weight
        own = pipe.tokenizer(name, add_special_tokens=False).input_ids[: self.words]
        return vocabulary[own + own[-1:] * (self.words - len(own))].detach().clone()[None]


@dataclass(frozen=True)
class CceTransfer(Cce):
    """:class:`Cce` on the unedited model: what was learnt there is tried on every edit (the black-box embeddings of
    M-ErasureBench, 2512.22877)."""

    name: ClassVar[str] = "cce_transfer"
    describe: ClassVar[str] = (
        "CCE as a transfer attack: the soft word is learnt on the unedited model, tried on every edit"
    )
    access: ClassVar[str] = "weights of the unedited model, and embeddings"
    adaptive: ClassVar[bool] = False
