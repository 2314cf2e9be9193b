"""UnlearnDiffAtk: words before the prompt, for which the erased model is a good classifier of an image of the concept.

Y. Zhang, J. Jia et al., "To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy To Generate Unsafe
Images ... For Now" (ECCV 2024), and its released code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import hardtanh, mse_loss, one_hot

from erasebench.concepts import Concept
from erasebench.edits.attack import Tools
from erasebench.edits.found import Found
from erasebench.methods.attacks.budget import Clock, Limited, Tries, check_not_negative, check_positive, check_whole
from erasebench.methods.attacks.concept_vector import ONE_ENCODER
from erasebench.methods.trained.checkpoint import Checkpoints
from erasebench.methods.trained.latents import encoded, noising, target_of
from erasebench.models.pipeline import Pipeline
from erasebench.models.soft_words import padded, read_with
from erasebench.models.targets import denoiser
from erasebench.prompts.prompt_set import hashed_seed
from erasebench.recipe import Recipe

SIMPLEX_TOLERANCE = 1e-5
"""Of the bisection that projects onto the simplex, as released."""


@dataclass(frozen=True)
class UnlearnDiffAtk(Limited):
    """``min_w ||eps - eps_edited(z_t, t, E([w; prompt]))||^2`` over k tokens w, on the unedited model's image of the prompt.

    Each token is a row of probabilities over the vocabulary, uniform at first. A step draws a token of each row, takes the
    gradient as if the drawn one had been the row (straight through, each entry cut to -1 to 1), steps with Adam and
    projects the rows onto the simplex. Timesteps are visited from low to high, equally spaced (10, 30 ... 990 of 1000).
    After each the most probable tokens are written out before the prompt, and that text is drawn as any other; the search
    stops at the first image in which the run's judge sees the concept. The clean prompt is tried first, so that the rate
    under attack counts prompts that succeed without it, as the paper's ASR does.

    Attributes:
        tokens: k: 3 for objects and styles, 5 for nudity and violence in the paper.
        timesteps: how many, and so how many images at most besides the clean one.
        iterations: steps at each timestep.
        lr, weight_decay: of Adam.
        seed: of tokens and noise.
        seconds: see :class:`erasebench.methods.attacks.budget.Limited`; asked after each timestep.

    Raises:
        UserError: an option that is not above 0.
    """

    name: ClassVar[str] = "unlearndiffatk"
    describe: ClassVar[str] = (
        "UnlearnDiffAtk: words before the prompt, searched by the edited model's own noise prediction"
    )
    access: ClassVar[str] = "weights"
    unsupported: ClassVar = ONE_ENCODER
    judged: ClassVar[bool] = True
    differentiates: ClassVar[bool] = True

    tokens: int = 3
    timesteps: int = 50
    iterations: int = 40
    lr: float = 0.01
    weight_decay: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "tokens", "timesteps", "iterations")
        check_positive(self, "lr")
        check_not_negative(self, "weight_decay")

    @property
    def steps(self) -> int:
        """A step of Adam."""
        return self.timesteps * self.iterations

    def targets(self, concepts: Sequence[Concept], recipe: Recipe) -> tuple[Recipe, ...]:
        """The unedited model's image of the same prompt and seed."""
        return (replace(recipe, edit="", attack=""),)

    def look(self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, tools: Tools) -> Found:
        """The prompt with words before it, or the prompt alone where that is enough.

        What was searched is kept after each timestep, with the state of all random numbers: a search that was killed goes on
        from there, and ends as if it had not been.
        """
        clock = Clock(self.seconds)
        tries = Tries(tools, clock)
        vocabulary = pipe.text_encoder.get_input_embeddings().weight.detach()
        rows = Parameter(torch.full((self.tokens, len(vocabulary)), 1 / len(vocabulary)).to(vocabulary))
        optimizer = torch.optim.Adam([rows], lr=self.lr, weight_decay=self.weight_decay)
        numbers = torch.Generator().manual_seed(hashed_seed(self.name, self.seed, recipe.prompt, recipe.seed))
        state = numbers.get_state()
        kept = {"numbers": state}
        checkpoints = (
            Checkpoints(tools.folder, {"rows": rows}, optimizer, self.timesteps, kept) if tools.folder else None
        )
        losses = checkpoints.resume() if checkpoints else []
        if checkpoints and losses:
            clock.before = checkpoints.seconds_before
            numbers.set_state(state)
            tries.images = 1 + len(losses)  # the clean one, and one after each timestep, all in vain
            tools.advance(len(losses) * self.iterations)
        elif clean := tries.first([Found(prompt=recipe.prompt)]):
            tools.advance(self.steps)
            return replace(clean, info=tries.notes(True))
        scheduler = noising(pipe.scheduler.config)
        latents = encoded(pipe, tools.targets).to(denoiser(pipe).dtype)
        ids = prefixed(pipe.tokenizer, recipe.prompt, self.tokens).to(vocabulary.device)
        spacing, succeeded = scheduler.config.num_train_timesteps / self.timesteps, False
        for number in range(len(losses), self.timesteps):
            if losses and clock.is_over():
                break
            timestep = torch.tensor([int(spacing * (number + 0.5))], device=latents.device)
            total = 0.0
            for _ in range(self.iterations):
                chosen = drawn_rows(rows, numbers)
                loss = self.loss(pipe, latents, ids, chosen @ vocabulary, scheduler, timestep, numbers)
                (rows.grad,) = torch.autograd.grad(loss, [rows])  # and none of the networks'
                optimizer.step()
                with torch.no_grad():
                    rows.copy_(on_simplex(rows))
                total += loss.item()
                tools.advance(1)
            losses.append(total / self.iterations)
            if tries.first([self._written(pipe.tokenizer, rows, recipe.prompt)]):
                succeeded = True
                break
            if checkpoints:
                state.copy_(numbers.get_state())
                checkpoints.save(losses, clock.spent)
        tools.advance(self.steps - len(losses) * self.iterations)
        result = self._written(pipe.tokenizer, rows, recipe.prompt)
        return replace(result, info={"tokens": rows.argmax(dim=1).tolist(), "losses": losses, **tries.notes(succeeded)})

    def _written(self, tokenizer: Any, rows: Tensor, prompt: str) -> Found:
        """The most probable tokens, written out before the prompt."""
        return Found(prompt=f"{tokenizer.decode(rows.argmax(dim=1).tolist()).strip()} {prompt}".strip())

    def loss(
        self,
        pipe: Pipeline,
        latents: Tensor,
        ids: Tensor,
        words: Tensor,
        scheduler: Any,
        timestep: Tensor,
        numbers: Any,
    ) -> Tensor:
        """How badly the edited model predicts fresh noise on the image, a scalar.

        Args:
            pipe: with the edit on.
            latents: of the image, ``[1, channels, height, width]``.
            ids: of the prompt, with room for the words behind BOS.
            words: their embeddings, ``[k, d]``.
            scheduler: that noises.
            timestep: ``[1]``.
            numbers: random ones, on the CPU, for the noise.
        """
        noise = torch.randn(latents.shape, generator=numbers).to(latents)
        z, target = scheduler.add_noise(latents, noise, timestep), target_of(scheduler, latents, noise, timestep)
        text = read_with(pipe.text_encoder, ids, words[None], 1).to(z)
        return mse_loss(denoiser(pipe)(z, timestep, text).sample, target)


def prefixed(tokenizer: Any, prompt: str, count: int) -> Tensor:
    """Token ids [1, positions] of a prompt with room for some tokens before it; its own last ones are lost if it gets long."""
    own = tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
    return padded(tokenizer, torch.tensor([[*[0] * count, *own[: tokenizer.model_max_length - 2 - count]]]))


class _Drawn(torch.autograd.Function):
    """One-hot rows for rows of probabilities; the gradient passes straight through, cut to -1 to 1."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, numbers: torch.Generator) -> Tensor:
        chosen = torch.multinomial(rows.detach().double().cpu(), 1, generator=numbers)[:, 0]
        return one_hot(chosen, rows.shape[1]).to(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return hardtanh(gradient), None


def drawn_rows(rows: Tensor, numbers: torch.Generator) -> Tensor:
    """One-hot rows [k, n], one entry drawn from each row of probabilities; their gradient is that of ``rows``, each entry
    cut to -1 to 1."""
    drawn: Tensor = _Drawn.apply(rows, numbers)
    return drawn


def on_simplex(rows: Tensor) -> Tensor:
    """The nearest rows of probabilities: ``max(row - mu, 0)`` with the ``mu`` that makes the sum 1, by bisection."""
    low, high = rows.amax(dim=1, keepdim=True) - 1, rows.amax(dim=1, keepdim=True)
    while (high - low).max() > SIMPLEX_TOLERANCE:
        middle = (low + high) / 2
        above = (rows - middle).clamp(min=0).sum(dim=1, keepdim=True) > 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (rows - low).clamp(min=0)
