"""What attacks share that learn from images of a concept: the images, and steps of AdamW that a kill costs little of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from erasebench.concepts import Concept
from erasebench.edits.attack import Tools
from erasebench.errors import UserError
from erasebench.methods.attacks.budget import Clock
from erasebench.methods.trained.checkpoint import Checkpoints
from erasebench.prompts.prompt_set import hashed_seed
from erasebench.prompts.templates import concept_prompt
from erasebench.recipe import Recipe

ANY_PROMPT = tuple(
    entry.name for entry in dataclasses.fields(Recipe) if entry.name not in ("prompt", "seed", "edit", "attack")
)
"""What decides the images of :func:`concept_images` besides their prompts and seeds, which are their own: one search serves
all prompts of a concept."""

LOSSES_SHOWN = 50
"""The notes hold the mean loss of so many parts of the search at most."""


def concept_images(concepts: Sequence[Concept], recipe: Recipe, count: int, seed: int) -> tuple[Recipe, ...]:
    """So many images of the unedited model, of the concepts in turn, each from a prompt of ours and a seed of its own."""
    return tuple(
        dataclasses.replace(
            recipe,
            edit="",
            attack="",
            prompt=concept_prompt(concept.kind, (concept.name,), number),
            seed=hashed_seed("cce", seed, concept.name, number),  # all attacks that learn share their images
        )
        for number in range(count)
        for concept in (concepts[number % len(concepts)],)
    )


@dataclass(frozen=True)
class Learning:
    """How long and how fast it is learnt.

    Attributes:
        iterations: steps of AdamW (weight decay 0.01).
        accumulate: draws of the loss a step, one after another, whose mean it takes.
        lr: rate.
        seed: the random numbers of a draw follow from it and the draw's number.
    """

    iterations: int
    accumulate: int
    lr: float
    seed: int


def learnt(
    parameters: Mapping[str, Parameter],
    how: Learning,
    loss_of: Callable[[torch.Generator], Tensor],
    tools: Tools,
    clock: Clock,
) -> dict[str, Any]:
    """Change parameters in place so that a loss gets smaller, from the last checkpoint on if there is one.

    Args:
        parameters: by name; nothing else gets a gradient.
        how: steps and rate.
        loss_of: the loss of a draw, a scalar, by random numbers on the CPU.
        tools: bar and folder.
        clock: which may end it before its last step, never before its first.

    Returns:
        Notes: the loss over time, the number of steps where the clock ended it, and what the clock says.

    Raises:
        UserError: the loss or its gradient is not finite.
    """
    values = list(parameters.values())
    optimizer = torch.optim.AdamW(values, lr=how.lr, weight_decay=0.01)
    checkpoints = Checkpoints(tools.folder, parameters, optimizer, how.iterations, {}) if tools.folder else None
    losses = checkpoints.resume() if checkpoints else []
    clock.before = checkpoints.seconds_before if checkpoints else 0.0
    tools.advance(len(losses))
    for step in range(len(losses), how.iterations):
        if step and clock.is_over():
            tools.advance(how.iterations - step)
            break
        optimizer.zero_grad()
        loss, finite = 0.0, True
        for draw in range(step * how.accumulate, (step + 1) * how.accumulate):
            part = loss_of(torch.Generator().manual_seed(how.seed + draw)) / how.accumulate
            gradients = torch.autograd.grad(part, values)  # and none of the networks'
            for value, gradient in zip(values, gradients, strict=True):
                value.grad = gradient if value.grad is None else value.grad + gradient
                finite = finite and bool(value.grad.isfinite().all())
            loss += part.item()
        if not (loss < float("inf") and finite):
            raise UserError(f"step {step}: the loss or its gradient is not finite; use dtype=float32 or a smaller lr")
        optimizer.step()
        losses.append(loss)
        if checkpoints:
            checkpoints.save(losses, clock.spent)
        tools.advance(1)
    steps = {} if len(losses) == how.iterations else {"iterations": len(losses)}
    return {"losses": shortened(losses), **steps, **clock.notes()}


def shortened(values: Sequence[float]) -> list[float]:
    """At most :data:`LOSSES_SHOWN` points of a curve, each the mean of an equal part of it."""
    width = -(-len(values) // LOSSES_SHOWN)
    parts = [values[start : start + width] for start in range(0, len(values), width)]
    return [sum(part) / len(part) for part in parts]
