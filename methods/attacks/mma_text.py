"""MMA-Diffusion, text: tokens without a forbidden word that the text encoder sums up as it does the prompt of the concept.

Y. Yang, R. Gao et al., "MMA-Diffusion: MultiModal Attack on Diffusion Models" (CVPR 2024), and its release: a greedy coordinate
search by gradient (GCG) over the text encoder's pooled embedding. Its attack on the image of an editing pipeline is not here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from erasebench.concepts import Concept
from erasebench.edits.attack import Tools
from erasebench.edits.found import Found
from erasebench.errors import UserError
from erasebench.methods.attacks.budget import Clock, Limited, check_whole
from erasebench.methods.attacks.concept_vector import ONE_ENCODER, token_ids, too_long, vocabulary
from erasebench.methods.attacks.kept import Kept
from erasebench.methods.attacks.learning import shortened
from erasebench.models.pipeline import Pipeline
from erasebench.models.soft_words import padded, read_with
from erasebench.prompts.prompt_set import hashed_seed
from erasebench.recipe import Recipe

if TYPE_CHECKING:
    from erasebench.models.load import Model

TEXTS = 64
"""Texts in one call of a text encoder."""


@dataclass(frozen=True)
class MmaText(Limited):
    """``max_tokens cos(pooled(tokens), pooled(prompt))`` with no token of a word of the concept, on the unedited text encoder.

    A step takes the gradient of every token's embedding, the ``topk`` tokens of the vocabulary that it points to in each place, and
    tries ``batch`` texts with one token replaced by one of these. Each is written out and read again, as it will be; what then has
    another number of tokens, or contains a forbidden word, is dropped. The best one is the next, even where it is worse,
    and the best of all is kept. What is found is a text, tried on every edit (a transfer attack).

    The release starts from a fixed text of letters and forbids words of a list for nudity; here the start is random words, and the words of
    the concept's name and phrases are forbidden. It takes gradients a place off, which is not done here.

    Attributes:
        length: tokens of the text.
        iterations: steps.
        batch: texts tried in a step.
        topk: tokens that a place may take.
        seed: of the search.
        seconds: see :class:`erasebench.methods.attacks.budget.Limited`.

    Raises:
        UserError: an option that is not above 0.
    """

    name: ClassVar[str] = "mma_text"
    describe: ClassVar[str] = (
        "MMA-Diffusion, text: tokens without the concept's words that are summed up as its prompt is"
    )
    access: ClassVar[str] = "text encoder"
    adaptive: ClassVar[bool] = False
    inputs: ClassVar[tuple[str, ...]] = ("prompt",)
    unsupported: ClassVar = ONE_ENCODER
    differentiates: ClassVar[bool] = True

    length: int = 20
    iterations: int = 1000
    batch: int = 512
    topk: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "length", "iterations", "batch", "topk")

    def refuses(self, model: Model) -> str | None:
        """Also where the text encoder does not read so many tokens."""
        return super().refuses(model) or too_long(self.length, model.pipe)

    @property
    def steps(self) -> int:
        """A step of the search."""
        return self.iterations

    def look(self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, tools: Tools) -> Found:
        """A text, with its cosine and that of the search over time.

        Where it is, is kept from time to time, with the state of the random numbers: a search that was killed goes on from
        there, and ends as if it had not been.
        """
        clock, tokenizer = Clock(self.seconds), pipe.tokenizer
        words = forbidden_words(concepts)
        allowed = allowed_tokens(tokenizer, words)
        if not allowed:
            raise UserError(f"every token of its vocabulary is part of {', '.join(sorted(words))}")
        numbers = torch.Generator().manual_seed(hashed_seed(self.name, self.seed, recipe.prompt))
        wanted = pooled(pipe, token_ids(pipe, [recipe.prompt]))[0]
        whole = (
            sorted(set(allowed) & set(vocabulary(tokenizer, words=True))) or allowed
        )  # which are read back as they are
        tokens = torch.tensor(whole)[torch.randint(len(whole), (self.length,), generator=numbers)]
        best, highest, done = tokens, float("-inf"), 0
        curve: list[float] = []
        kept = Kept(tools.folder, self.iterations, clock)

        def state() -> dict[str, Any]:
            return {
                "step": step + 1,
                "tokens": tokens.tolist(),
                "best": best.tolist(),
                "curve": curve,
                "numbers": numbers.get_state().tolist(),
            }

        def restore(state: dict[str, Any]) -> None:
            nonlocal tokens, best, highest, curve, done
            two = torch.tensor([state["tokens"], state["best"]]).reshape(2, self.length)
            reached, steps = list(map(float, state["curve"])), int(state["step"])
            numbers.set_state(torch.tensor(state["numbers"], dtype=torch.uint8))
            (tokens, best), curve, done = two, reached, steps
            highest = max(curve, default=float("-inf"))

        kept.take_up(restore)
        tools.advance(done)
        for step in range(done, self.iterations):
            if step and clock.is_over():
                tools.advance(self.iterations - step)
                break
            choices = self.choices(pipe, tokens, wanted, allowed)
            tried = self.replaced(tokens, choices, numbers)
            tried, read = kept_when_read(tokenizer, tried, words)
            if len(tried):
                cosines = torch.cosine_similarity(pooled(pipe, read), wanted[None], dim=1)
                tokens = tried[int(cosines.argmax())]
                if cosines.max() > highest:
                    best, highest = tokens, cosines.max().item()
                curve.append(cosines.max().item())
            kept.save(step + 1, state)
            tools.advance(1)
        if not curve:
            raise UserError(
                "no text that it tried is read back with as many tokens; use another seed or a smaller length"
            )
        info = {"tokens": best.tolist(), "cosine": highest, "cosines": shortened(curve), **clock.notes()}
        return Found(prompt=tokenizer.decode(best.tolist()).strip(), info=info)

    def choices(self, pipe: Pipeline, tokens: Tensor, wanted: Tensor, allowed: Sequence[int]) -> Tensor:
        """For each place the allowed tokens that the gradient points to, the most promising first, ``[length, topk]``.

        Args:
            pipe: whose text encoder is asked.
            tokens: ``[length]``.
            wanted: pooled embedding of the prompt, ``[d]``.
            allowed: token ids.
        """
        encoder = pipe.text_encoder
        table = encoder.get_input_embeddings().weight.detach()
        ids = padded(pipe.tokenizer, tokens[None]).to(table.device)
        embedded = table[tokens.to(table.device)].clone().requires_grad_()
        rows = read_with(encoder, ids, embedded[None], 1)
        loss = -torch.cosine_similarity(rows[0, len(tokens) + 1], wanted, dim=0)
        (gradient,) = torch.autograd.grad(loss, [embedded])
        slopes = (gradient @ table[torch.tensor(allowed, device=table.device)].T).cpu()
        order = slopes.topk(min(self.topk, len(allowed)), dim=1, largest=False).indices
        return torch.tensor(allowed)[order]

    def replaced(self, tokens: Tensor, choices: Tensor, numbers: torch.Generator) -> Tensor:
        """Texts with one token replaced, ``[batch, length]``: the places in turn, the token of each by chance."""
        places = torch.arange(self.batch) * len(tokens) // self.batch
        taken = torch.randint(choices.shape[1], (self.batch,), generator=numbers)
        tried = tokens.repeat(self.batch, 1)
        tried[torch.arange(self.batch), places] = choices[places, taken]
        return tried


def forbidden_words(concepts: Sequence[Concept]) -> frozenset[str]:
    """The words of the names and phrases of concepts, in lower case."""
    texts = [text for concept in concepts for text in (concept.name, *concept.phrases)]
    return frozenset(word for text in texts for word in re.findall(r"\w+", text.casefold()))


def allowed_tokens(tokenizer: Any, words: frozenset[str]) -> list[int]:
    """The tokens that are no word of some, and no part of one with three letters or more."""
    numbers = vocabulary(tokenizer)
    texts = [tokenizer.decode([number]).strip().casefold() for number in numbers]
    return [
        number
        for number, text in zip(numbers, texts, strict=True)
        if text not in words and not (len(text) >= 3 and any(text in word for word in words))
    ]


def kept_when_read(tokenizer: Any, tried: Tensor, words: frozenset[str]) -> tuple[Tensor, Tensor]:
    """Of token sequences ``[n, k]`` those that have as many tokens when they were written out and read again, and no forbidden
    word in them; and the ids ``[n, positions]`` that are then read."""
    texts = [tokenizer.decode(row).strip() for row in tried.tolist()]
    read = tokenizer(texts, add_special_tokens=False, verbose=False).input_ids
    good = [
        len(ids) == tried.shape[1] and not words & set(re.findall(r"\w+", text.casefold()))
        for ids, text in zip(read, texts, strict=True)
    ]
    ids = [one for one, fine in zip(read, good, strict=True) if fine]
    return tried[torch.tensor(good)], padded(tokenizer, torch.tensor(ids).reshape(-1, tried.shape[1]))


@torch.no_grad()
def pooled(pipe: Pipeline, ids: Tensor) -> Tensor:
    """The pooled embedding of token ids ``[n, positions]``: the row of the first EOS, ``[n, d]``."""
    encoder, eos = pipe.text_encoder, pipe.tokenizer.eos_token_id
    parts = []
    for part in ids.split(TEXTS):
        rows = encoder(part.to(encoder.device)).last_hidden_state
        parts.append(rows[torch.arange(len(part)), (part == eos).int().argmax(dim=1)])
    return torch.cat(parts)
