"""Forget-Me-Not: cross-attention learns to look away from the concept's words (Zhang et al., 2023, arXiv 2303.17591)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.functional import mse_loss

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Edit, Work
from erasebench.errors import UserError
from erasebench.methods.closed_form.linear import check_positive
from erasebench.methods.trained.attention import recorded_attention
from erasebench.methods.trained.examples import encoded_texts, example_latents, phrases_of, token_columns
from erasebench.methods.trained.latents import noised, noising
from erasebench.methods.trained.parameters import check_group, group
from erasebench.methods.trained.training import Optimization, TrainedEraser, below, generator, train, trained_values
from erasebench.models.pipeline import Pipeline
from erasebench.models.soft_words import read_with
from erasebench.models.targets import denoiser

SENTENCES = {"artist": "a photo in the style of {}"}
"""By kind, around the concept, as released; all other kinds stand in ``a photo of {}``."""


@dataclass(frozen=True, kw_only=True)
class ForgetMeNot(TrainedEraser):
    """Attention re-steering: the attention that the concept's tokens get on images of the concept is made small.

    A step noises an image of the concept, evaluates the network on it with the sentence that the concept stands in, and
    takes as loss the Frobenius norm of the probabilities, over all cross-attention layers, heads and pixels, in the
    columns of the concept's tokens. AdamW with weight decay 0.01, gradients clipped to norm 1. Parameters behind the last
    layer's probabilities, which the loss cannot see, stay as they are.

    The release takes some ten photos of the concept from a folder; here the unedited model makes them. Its other step,
    which comes first and is optional, is textual inversion (``inversion``, 500 steps in the release): for each phrase, soft
    words in the phrase's place learn the usual loss on its images, ``mse(eps(z, t, c), noise)``, with all networks as they
    are; then the attention to these words is what is made small. They start as the phrase's own tokens, and beyond these as
    normal numbers; AdamW without weight decay.

    Attributes:
        train: the parameters trained, of :data:`erasebench.methods.trained.parameters.GROUPS`: ``full`` as released, ``x``
            with its ``only_optimize_ca``.
        pooled: the end-of-text columns, too (``use_pooler``).
        images: of each phrase.
        image_steps, guidance: of their sampling.
        phrases: train on all phrases of a concept, not its name alone.
        inversion: steps of textual inversion for each phrase; 0 is none.
        inversion_lr, inversion_words: of it.

    Raises:
        UserError: an option out of range.
    """

    name: ClassVar[str] = "fmn"
    describe: ClassVar[str] = "Forget-Me-Not: cross-attention is trained to look away from the concept's words"

    iterations: int = 35
    lr: float = 2e-6
    train: str = "full"
    pooled: bool = True
    images: int = 10
    image_steps: int = 50
    guidance: float = 7.5
    phrases: bool = True
    inversion: int = 0
    inversion_lr: float = 1e-3
    inversion_words: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("fmn", guidance=self.guidance)
        self.check_whole("images", "image_steps", "inversion_words")
        check_positive("fmn", inversion_lr=self.inversion_lr)
        if not isinstance(self.inversion, int) or self.inversion < 0:
            raise UserError(f"fmn: inversion is {self.inversion!r}; it must be a whole number of steps, 0 for none")
        check_group(self.train)
        if self.save_memory:
            raise UserError(
                "fmn: save_memory=true evaluates the network twice, and the attention that it trains would be that of "
                "the pass without gradients; leave it false"
            )

    def copied(self, pipe: Pipeline) -> list[Module]:
        """The network, and for textual inversion the text encoder."""
        return [denoiser(pipe), *([pipe.text_encoder] if self.inversion else [])]

    def trained_in(self, pipe: Pipeline) -> Mapping[str, Tensor]:
        """The group ``train`` of the network."""
        return group(denoiser(pipe), self.train)

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:
        """As of all trainings; and a phrase is refused whose tokens cannot be told from the sentence's."""
        super().check(pipe, task)
        self.columns(pipe, task)

    def columns(self, pipe: Pipeline, task: ErasureTask) -> dict[str, Tensor]:
        """The sentence of each phrase, and the positions in it that are to be looked away from."""
        frame = SENTENCES.get(task.kind, "a photo of {}")
        return {
            frame.format(phrase): token_columns(pipe, frame, phrase, self.pooled)
            for phrase in phrases_of(task, self.phrases)
        }

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """Trains, from the last checkpoint if there is one."""
        assert work is not None
        columns = self.columns(pipe, task)
        sentences, inverted = list(columns), {}
        count = self.images * len(sentences)
        latents = example_latents(pipe, work, sentences, count, self.image_steps, self.guidance)
        texts, scheduler = encoded_texts(pipe, sentences), noising(pipe.scheduler.config)
        student = self.student(denoiser(pipe))
        own, before = work, self.inversion * len(sentences)
        if self.inversion:
            encoder = copy.deepcopy(pipe.text_encoder).float().requires_grad_(False)
            for number, (phrase, sentence) in enumerate(zip(phrases_of(task, self.phrases), sentences, strict=True)):
                place = Place.of(
                    pipe, SENTENCES.get(task.kind, "a photo of {}"), phrase, self.inversion_words, self.pooled
                )
                part = replace(
                    work.part(number), advance=behind(work, number * self.inversion, before + self.iterations)
                )
                shown = latents[number :: len(sentences)]
                texts[sentence], inverted[phrase] = self.invert(student, encoder, place, shown, scheduler, part)
                columns[sentence] = place.columns
            own = replace(work, advance=behind(work, before, before + self.iterations))

        def loss_of(step: int) -> Tensor:
            numbers = generator(work, step)
            image = below(0, count, numbers)
            sentence = sentences[image % len(sentences)]
            z, timesteps, _ = noised(scheduler, latents[image : image + 1], numbers)
            with recorded_attention(student) as maps:
                student(z, timesteps, texts[sentence])
                return attention_loss(maps, columns[sentence])

        parameters = reached(group(student, self.train), lambda: loss_of(0))
        optimization = Optimization(torch.optim.AdamW, {"weight_decay": 0.01}, clip=1.0)
        notes = train(self, own, parameters, loss_of, optimization)
        about = {"sentences": sentences, "columns": [one.tolist() for one in columns.values()]}
        return Edit(
            trained_values("unet", parameters),
            {"method": self.name, **about, **notes, **({"inversion": inverted} if inverted else {})},
        )

    def invert(
        self, network: Module, encoder: Any, place: Place, latents: Tensor, scheduler: Any, work: Work
    ) -> tuple[Tensor, dict[str, Any]]:
        """Textual inversion of one phrase.

        Args:
            network: which predicts the noise.
            encoder: of texts.
            place: where the words stand, and how they start.
            latents: of the phrase's images.
            scheduler: that noises them.
            work: of this training alone.

        Returns:
            The sentence with the words that were learnt, as the network reads it, and notes of the training.
        """
        own = replace(self, iterations=self.inversion, lr=self.inversion_lr)
        words = Parameter(place.start(encoder, generator(work, own.draws)))

        def loss_of(step: int) -> Tensor:
            numbers = generator(work, step)
            image = below(0, len(latents), numbers)
            z, timesteps, noise = noised(scheduler, latents[image : image + 1], numbers)
            return mse_loss(network(z, timesteps, place.read(encoder, words)).sample, noise)

        notes = train(own, work, {"words": words}, loss_of, Optimization(torch.optim.AdamW, {"weight_decay": 0.0}))
        with torch.no_grad():
            return place.read(encoder, words.detach()), notes


def behind(work: Work, done: int, of: int) -> Callable[[int, int], None]:
    """A bar for a training that others came before: ``done`` of ``of`` steps."""
    return lambda step, steps: work.advance(done + step, of)


@dataclass(frozen=True)
class Place:
    """A sentence with room for soft words where a phrase would stand.

    Attributes:
        ids: [1, positions], with any tokens in that room.
        own: the phrase's own tokens, as far as there is room for them.
        columns: the positions of the words, and with ``pooled`` of the end of the text.
    """

    ids: Tensor
    own: Tensor
    columns: Tensor
    words: int

    @classmethod
    def of(cls, pipe: Pipeline, frame: str, phrase: str, words: int, pooled: bool) -> Place:
        """The place of a phrase at the end of a sentence (``a photo of {}``)."""
        tokenizer = pipe.tokenizer
        before = tokenizer(frame.replace("{}", "").rstrip(), add_special_tokens=False).input_ids
        own = tokenizer(phrase, add_special_tokens=False).input_ids[:words]
        start, length = 1 + len(before), tokenizer.model_max_length
        ids = [tokenizer.bos_token_id, *before, *[own[0]] * words, tokenizer.eos_token_id]
        ids += [tokenizer.pad_token_id] * (length - len(ids))
        columns = list(range(start, start + words))
        if pooled:
            columns += [place for place in range(start + words, length) if ids[place] == tokenizer.eos_token_id]
        return cls(torch.tensor([ids]), torch.tensor(own), torch.tensor(columns), words)

    def start(self, encoder: Any, numbers: torch.Generator) -> Tensor:
        """What the words are before they are trained, [1, words, d]."""
        vocabulary = encoder.get_input_embeddings().weight
        drawn = torch.randn(self.words - len(self.own), vocabulary.shape[1], generator=numbers).to(vocabulary)
        return torch.cat([vocabulary[self.own.to(vocabulary.device)].detach(), drawn])[None]

    def read(self, encoder: Any, words: Tensor) -> Tensor:
        """The sentence with these words, [1, positions, d]."""
        return read_with(encoder, self.ids.to(words.device), words, int(self.columns[0]))


def attention_loss(maps: Mapping[str, Tensor], columns: Tensor) -> Tensor:
    """The Frobenius norm of attention probabilities in some columns, over all layers.

    Args:
        maps: [heads, pixels, positions] by layer.
        columns: positions.
    """
    return torch.cat([probabilities[..., columns].flatten() for probabilities in maps.values()]).norm()


def reached(parameters: Mapping[str, Parameter], loss_of: Callable[[], Tensor]) -> dict[str, Parameter]:
    """The parameters that a loss depends on."""
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    gradients = torch.autograd.grad(loss_of(), list(parameters.values()), allow_unused=True)
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    pairs = zip(parameters.items(), gradients, strict=True)
    return {name: parameter for (name, parameter), gradient in pairs if gradient is not None}
