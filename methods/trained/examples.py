"""What a concept looks like to the unedited model: prompts, images as latents, and where its words stand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL.Image import Image
from torch import Tensor

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Work
from erasebench.methods.closed_form.mace import span
from erasebench.methods.trained.latents import encoded
from erasebench.methods.trained.training import wide
from erasebench.models.encode import encode_prompts
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import denoiser, text_inputs

TEMPLATES = {"artist": "a photo in the style of {}"}
"""By kind, around the concept, as Forget-Me-Not and MACE have it."""


def template(kind: str) -> str:
    """The sentence in which a kind of concept is shown: ``a photo of the {}``, or the style's."""
    return TEMPLATES.get(kind, "a photo of the {}")


def phrases_of(task: ErasureTask, all_phrases: bool) -> list[str]:
    """What a training erases: every phrase of every concept, or the concepts' names alone."""
    return [phrase for target in task.targets for phrase in (target.phrases if all_phrases else (target.name,))]


def encoded_texts(pipe: Pipeline, texts: Sequence[str]) -> dict[str, Tensor]:
    """Each text as the network reads it: [1, positions, d] in the type it is trained in, without gradients."""
    rows = encode_prompts(pipe, texts)[0].to(wide(denoiser(pipe)))
    return {text: row[None] for text, row in zip(texts, rows, strict=True)}


def example_latents(
    pipe: Pipeline, work: Work, prompts: Sequence[str], images: int, steps: int, guidance: float
) -> Tensor:
    """Latents of images that the unedited model makes of prompts, made once and kept in the store.

    Args:
        pipe: of the unedited model.
        work: of the training; its seed decides the images' seeds.
        prompts: taken in turn.
        images: how many in all.
        steps, guidance: of sampling.

    Returns:
        [images, channels, height, width] float32.
    """
    return encoded(pipe, example_images(work, prompts, images, steps, guidance))


def example_images(work: Work, prompts: Sequence[str], images: int, steps: int, guidance: float) -> list[Image]:
    """The same as pictures."""
    # Seeds below 2^32: PyTorch's generators read no more of them.
    seeds = [(work.seed + number) % 2**32 for number in range(images)]
    texts = [prompts[number % len(prompts)] for number in range(images)]
    return work.sample(texts, seeds, steps, guidance)


def token_columns(pipe: Pipeline, sentence: str, text: str, pooled: bool) -> Tensor:
    """The positions of a text's own tokens in a sentence.

    Args:
        pipe: whose tokenizer reads it.
        sentence: with ``{}`` where the text goes.
        text: the concept.
        pooled: the end-of-text row as well, and padding where it is the same token (``use_pooler`` of the releases).

    Returns:
        Positions, of a sentence with all its padding; BOS is 0.

    Raises:
        UserError: the text's tokens cannot be told from the rest, or the sentence is too long.
    """
    start, stop = span(text_inputs(pipe)[0], sentence, text)
    columns = list(range(start, stop))
    if pooled:
        ids = pipe.tokenizer(sentence.replace("{}", text), padding="max_length", verbose=False).input_ids
        columns += [position for position, token in enumerate(ids) if token == pipe.tokenizer.eos_token_id]
    return torch.tensor(columns)
