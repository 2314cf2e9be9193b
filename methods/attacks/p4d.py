"""P4D: a prompt for which the edited model predicts what the unedited one predicts for the prompt of the concept.

Z.-Y. Chin, C.-M. Jiang et al., "Prompting4Debugging: Red-Teaming Text-to-Image Diffusion Models by Finding Problematic
Prompts" (ICML 2024), and its released code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.functional import mse_loss, normalize

from erasebench.concepts import Concept
from erasebench.edits.attack import Tools
from erasebench.edits.found import Found
from erasebench.errors import UserError
from erasebench.methods.attacks.budget import Clock, Limited, Tries, check_not_negative, check_positive, check_whole
from erasebench.methods.attacks.concept_vector import ONE_ENCODER, token_ids
from erasebench.methods.trained.checkpoint import Checkpoints
from erasebench.methods.trained.latents import encoded, noised, noising
from erasebench.models.pipeline import Pipeline
from erasebench.models.soft_words import padded, read_at
from erasebench.models.targets import denoiser
from erasebench.prompts.prompt_set import hashed_seed
from erasebench.recipe import Recipe

P4D_VARIANTS = {"n": "n", "k": "k", "union": "nk"}
"""Free tokens alone, tokens among the prompt's words, or one after the other until one succeeds."""


@dataclass(frozen=True)
class P4d(Limited):
    """``min_e ||eps_unedited(z_t, t, prompt) - eps_edited(z_t, t, found)||^2`` on the unedited model's image of the prompt.

    The embeddings ``e`` of the tokens that are looked for are trained by AdamW; the network is given the nearest tokens of
    the vocabulary by cosine, and their gradient is taken for that of ``e`` (PEZ). Timestep and noise are new in each step.
    Every ``evaluate`` steps the text of the nearest tokens is drawn; the search stops at the first image in which the run's
    judge sees the concept. (The release keeps the best of all by a detector or an image similarity.)

    Attributes:
        variant: ``n``: free tokens in place of the prompt. ``k``: the prompt with a token behind every few words.
            ``union``: ``n``, and then ``k`` if that fails; a success is one of either.
        tokens: of ``n``.
        every: words between two tokens of ``k``.
        iterations: of each variant.
        evaluate: steps between two images.
        lr, weight_decay: of AdamW.
        seed: of the first tokens, timesteps and noise.
        seconds: see :class:`erasebench.methods.attacks.budget.Limited`; asked after each image.

    Raises:
        UserError: an option that is not above 0, or an unknown variant.
    """

    name: ClassVar[str] = "p4d"
    describe: ClassVar[str] = (
        "P4D: tokens for which the edited model predicts what the unedited one does for the prompt"
    )
    access: ClassVar[str] = "weights, and the unedited model"
    unsupported: ClassVar = ONE_ENCODER
    judged: ClassVar[bool] = True
    compares: ClassVar[bool] = True
    differentiates: ClassVar[bool] = True

    variant: str = "union"
    tokens: int = 16
    every: int = 3
    iterations: int = 3000
    evaluate: int = 50
    lr: float = 0.1
    weight_decay: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "tokens", "every", "iterations", "evaluate")
        check_positive(self, "lr")
        check_not_negative(self, "weight_decay")
        if self.variant not in P4D_VARIANTS:
            raise UserError(f"variant={self.variant!r}: must be {', '.join(P4D_VARIANTS)}")

    @property
    def steps(self) -> int:
        """A step of AdamW."""
        return self.iterations * len(P4D_VARIANTS[self.variant])

    def targets(self, concepts: Sequence[Concept], recipe: Recipe) -> tuple[Recipe, ...]:
        """The unedited model's image of the same prompt and seed."""
        return (replace(recipe, edit="", attack=""),)

    def look(self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, tools: Tools) -> Found:
        """A text.

        What was searched is kept from time to time, with the state of all random numbers: a search that was killed goes on
        from there, and ends as if it had not been.
        """
        if tools.unedited is None:
            raise UserError("it compares with the unedited model, and was not given it (Tools.unedited)")
        clock = Clock(self.seconds)
        tries = Tries(tools, clock)
        latents = encoded(pipe, tools.targets).to(denoiser(pipe).dtype)
        with torch.no_grad():
            encoder = tools.unedited["text_encoder"]
            wanted = encoder(token_ids(pipe, [recipe.prompt]).to(latents.device))[0].to(latents)
        done, succeeded = 0, False
        for variant in P4D_VARIANTS[self.variant]:
            if done and clock.is_over():
                break
            result, succeeded = self._searched(variant, pipe, recipe, tools, latents, wanted, tries, clock)
            done += result.info["iterations"]
            if succeeded or result.info["iterations"] < self.iterations:
                break
        tools.advance(self.steps - done)
        return replace(result, info=result.info | tries.notes(succeeded))

    def _searched(
        self,
        variant: str,
        pipe: Pipeline,
        recipe: Recipe,
        tools: Tools,
        latents: Tensor,
        wanted: Tensor,
        tries: Tries,
        clock: Clock,
    ) -> tuple[Found, bool]:
        """The text of one variant, and whether the judge saw the concept in its image."""
        assert tools.unedited is not None
        tokens, text = self.layout(pipe.tokenizer, recipe.prompt, variant)
        numbers = torch.Generator().manual_seed(hashed_seed(self.name, self.seed, variant, recipe.prompt, recipe.seed))
        vocabulary = pipe.text_encoder.get_input_embeddings().weight.detach()
        places = [place for place, token in enumerate(tokens) if token is None]
        first = torch.randint(len(vocabulary), (len(places),), generator=numbers)
        words = Parameter(vocabulary[first.to(vocabulary.device)].clone())
        optimizer = torch.optim.AdamW([words], lr=self.lr, weight_decay=self.weight_decay)
        ids, scheduler, state = text.to(vocabulary.device), noising(pipe.scheduler.config), numbers.get_state()
        folder = tools.folder / variant if tools.folder else None
        kept = {"numbers": state}
        checkpoints = Checkpoints(folder, {"words": words}, optimizer, self.iterations, kept) if folder else None
        losses = checkpoints.resume() if checkpoints else []
        if checkpoints and losses:
            clock.before += checkpoints.seconds_before
            numbers.set_state(state)
            tries.images += sum(self._tried_at(step) for step in range(1, len(losses) + 1))  # all in vain
            tools.advance(len(losses))
        began, succeeded = clock.spent - (checkpoints.seconds_before if checkpoints else 0.0), False
        for step in range(len(losses) + 1, self.iterations + 1):
            chosen = nearest(words.detach(), vocabulary)
            near = vocabulary[chosen].requires_grad_()
            loss = self.loss(pipe, tools.unedited, recipe, latents, wanted, ids, near, places, scheduler, numbers)
            (words.grad,) = torch.autograd.grad(loss, [near])  # straight through, and none of the networks'
            optimizer.step()
            losses.append(loss.item())
            tools.advance(1)
            if self._tried_at(step) and tries.first([Found(prompt=self._written(pipe, tokens, words))]):
                succeeded = True
                break
            if checkpoints:
                state.copy_(numbers.get_state())
                checkpoints.save(losses, clock.spent - began)
            if self._tried_at(step) and step < self.iterations and clock.is_over():
                break
        chosen = nearest(words.detach(), vocabulary)
        notes = {"variant": variant, "tokens": chosen.tolist(), "loss": losses[-1], "iterations": len(losses)}
        return Found(prompt=self._written(pipe, tokens, words), info=notes), succeeded

    def _tried_at(self, step: int) -> bool:
        """Whether an image is drawn after so many steps of a variant."""
        return step % self.evaluate == 0 or step == self.iterations

    def _written(self, pipe: Pipeline, tokens: Sequence[int | None], words: Tensor) -> str:
        """The text with the nearest tokens in its free places."""
        filled = iter(nearest(words.detach(), pipe.text_encoder.get_input_embeddings().weight.detach()).tolist())
        text: str = pipe.tokenizer.decode([next(filled) if one is None else one for one in tokens]).strip()
        return text

    def layout(self, tokenizer: Any, prompt: str, variant: str) -> tuple[list[int | None], Tensor]:
        """What is looked for in a text.

        Returns:
            The tokens of the text, ``None`` where one is looked for; and the ids [1, positions] with any in these places.
        """
        room = tokenizer.model_max_length - 2
        if variant == "n":
            tokens: list[int | None] = [None] * min(self.tokens, room)
        else:
            tokens = []
            words = prompt.split()
            for number, word in enumerate(words, start=1):
                tokens += tokenizer(word, add_special_tokens=False).input_ids
                if number % self.every == 0 or number == len(words) < self.every:
                    tokens.append(None)
            tokens = (tokens or [None])[:room]
        ids = padded(tokenizer, torch.tensor([[token or 0 for token in tokens]]))
        if variant == "n":
            ids[0, len(tokens) + 2 :] = 0  # as released, while the text that is written out is padded as usual
        return tokens, ids

    def loss(
        self,
        pipe: Pipeline,
        unedited: Mapping[str, Module],
        recipe: Recipe,
        latents: Tensor,
        wanted: Tensor,
        ids: Tensor,
        words: Tensor,
        places: Sequence[int],
        scheduler: Any,
        numbers: torch.Generator,
    ) -> Tensor:
        """How far the edited prediction is from the unedited one at a random timestep, a scalar.

        Args:
            pipe: with the edit on.
            unedited: ``unet`` and ``text_encoder`` without it.
            recipe: the image that is attacked.
            latents: of the image, ``[1, channels, height, width]``.
            wanted: the prompt as the unedited model reads it, ``[1, positions, d]``.
            ids: of the text that is looked for, ``[1, positions]``.
            words: embeddings ``[k, d]`` of its tokens at ``places``, counted from the first token behind BOS.
            places: k of them.
            scheduler: that noises.
            numbers: random ones, on the CPU: timestep and noise.
        """
        z, timesteps, _ = noised(scheduler, latents, numbers)
        with torch.no_grad():
            target = unedited["unet"](z, timesteps, wanted).sample
        text = read_at(pipe.text_encoder, ids, words[None], [place + 1 for place in places]).to(z)
        return mse_loss(denoiser(pipe)(z, timesteps, text).sample, target)


def nearest(words: Tensor, vocabulary: Tensor) -> Tensor:
    """The index [k] of the nearest row of a vocabulary [n, d] by cosine, for each of some vectors [k, d]."""
    return (normalize(words.to(vocabulary), dim=1) @ normalize(vocabulary, dim=1).T).argmax(dim=1)
