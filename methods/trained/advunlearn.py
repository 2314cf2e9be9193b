"""AdvUnlearn (Zhang et al., NeurIPS 2024): the text encoder is trained against a soft word that brings a concept back."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.functional import mse_loss

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Edit, Work
from erasebench.errors import UserError
from erasebench.methods.closed_form.linear import check_positive
from erasebench.methods.trained.examples import encoded_texts, phrases_of
from erasebench.methods.trained.latents import ddim, denoised, initial_noise, remaining_and_timestep
from erasebench.methods.trained.training import (
    Optimization,
    TrainedEraser,
    below,
    generator,
    train,
    trained_values,
    wide,
)
from erasebench.models.pipeline import Pipeline
from erasebench.models.soft_words import read_with
from erasebench.models.targets import denoiser
from erasebench.prompts.names import read_captions

STARTS = ("random", "latest")


@dataclass(frozen=True, kw_only=True)
class AdvUnlearn(TrainedEraser):
    """AdvUnlearn on the text encoder: its layers and last norm are trained, its embeddings and the UNet stay.

    A step draws a phrase c of the concepts. From step ``warmup`` on, ``prefix`` soft words between BOS and the phrase are
    moved by ``attack_steps`` steps of Adam to bring the concept back: ``mean((eps(z, t, adv) - eps(z, t, c_0))^2)``, each
    step at latents z and a timestep t of its own. The encoder then takes one step against ESD's loss for the text so
    attacked, ``mean((eps(z, t, adv) - (eps(z, t, "") - eta (eps(z, t, c_0) - eps(z, t, ""))))^2)``, and ``retain_weight``
    times ``mean((eps(z', t, r) - eps(z', t, r_0))^2)`` over ``retain_batch`` prompts r to retain. c_0, "" and r_0 are as the
    unedited encoder reads them; latents are denoised for c_0 (r_0).

    The settings are those of the release's own command (``reg``, weight 0.3, a random first word); its script alone has
    another step for the retained prompts after each (``iter``), which is not here. Its retained prompts name COCO's
    objects; the default here is the task's retain list.

    Three defects of the release are followed with ``as_released`` alone: gradients of the attack add up over its steps (none
    is reset); a phrase's length is counted in words, not tokens, so that the soft words push out the tokens behind as many
    tokens as it has words, where here they push out the end; the attack hands on the words before its last step.

    Attributes:
        eta: how far beyond the unconditional prediction to go, 0 or more.
        start_guidance: of the latents that are trained on; 1 is none.
        steps: of their sampling.
        warmup: the share of the steps before the first attack.
        prefix: soft words.
        attack_steps, attack_lr: of Adam on them, a step.
        attack_start: ``random`` words of the vocabulary in every step, or the ``latest`` soft words.
        retain: prompts to retain: ``task`` (in ``retain_template``), ``none``, or a file of prompts.
        retain_template: a sentence with ``{}`` for the task's own list.
        retain_weight, retain_batch: of the retained prompts, a step.
        phrases: train on all phrases of a concept, not its name alone.
        as_released: with the three defects of the release.

    Raises:
        UserError: an option out of range, or a file that cannot be read.
    """

    name: ClassVar[str] = "advunlearn"
    describe: ClassVar[str] = "AdvUnlearn: the text encoder, trained against an adversarial prefix (NeurIPS 2024)"
    unsupported: ClassVar[Mapping[str, str]] = {
        "sdxl": "its training has one text encoder, and this network reads two and a pooled text",
        **dict.fromkeys(("sd3", "flux"), "its training has one text encoder of CLIP, and this network reads T5 too"),
    }

    iterations: int = 1000
    lr: float = 1e-5
    eta: float = 1.0
    start_guidance: float = 3.0
    steps: int = 50
    warmup: float = 0.2
    prefix: int = 1
    attack_steps: int = 30
    attack_lr: float = 1e-3
    attack_start: str = "random"
    retain: str = "task"
    retain_template: str = "a photo of a {}"
    retain_weight: float = 0.3
    retain_batch: int = 5
    phrases: bool = True
    as_released: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_whole("steps", "prefix", "attack_steps", "retain_batch")
        check_positive(self.name, start_guidance=self.start_guidance, attack_lr=self.attack_lr)
        for option in ("eta", "retain_weight"):
            if not 0 <= getattr(self, option) < math.inf:
                raise UserError(f"advunlearn: {option} is {getattr(self, option)!r}; it must be a number of at least 0")
        if not 0 <= self.warmup <= 1:
            raise UserError(f"advunlearn: warmup is {self.warmup!r}; it must be a share of the steps, of 0 to 1")
        if self.attack_start not in STARTS:
            raise UserError(f"advunlearn: attack_start is {self.attack_start!r}; it must be random or latest")
        if "{}" not in self.retain_template:
            raise UserError(f"advunlearn: retain_template {self.retain_template!r}: mark where the name goes with {{}}")
        _ = self._file

    @cached_property
    def _file(self) -> tuple[str, ...] | None:
        """The prompts of the file that ``retain`` names, if it names one."""
        return None if self.retain in ("task", "none") else read_captions(self.retain, "method.retain")

    def key(self, model_identity: str, task: ErasureTask) -> str:
        """As of every eraser; the content of the file counts, not its name."""
        return self.key_of(model_identity, task, self.settings | ({"retain": self._file} if self._file else {}))

    def retained(self, task: ErasureTask) -> list[str]:
        """Prompts to retain."""
        if self._file is not None:
            return list(self._file)
        names = [text for text in task.retain if text] if self.retain == "task" else []
        return [self.retain_template.replace("{}", name) for name in names]

    def copied(self, pipe: Pipeline) -> list[Module]:
        """The network, and the text encoder."""
        return [denoiser(pipe), pipe.text_encoder]

    def trained_in(self, pipe: Pipeline) -> Mapping[str, Tensor]:
        """All of the text encoder but its embeddings."""
        return layers_of(pipe.text_encoder)

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """Trains, from the last checkpoint if there is one."""
        assert work is not None
        phrases, retain = phrases_of(task, self.phrases), self.retained(task)
        before = encoded_texts(pipe, ["", *phrases, *retain])
        unet = self.student(denoiser(pipe))
        encoder = Encoder(pipe, self.as_released)
        scheduler = ddim(pipe.scheduler.config, self.steps)
        words = torch.zeros(1, self.prefix, encoder.width, device=work.device, dtype=encoder.vocabulary.dtype)
        vocabulary = encoder.vocabulary

        def drawn(texts: Tensor, numbers: torch.Generator) -> tuple[Tensor, Tensor]:
            """Latents denoised for texts [n, positions, d] of the unedited encoder, and a timestep."""
            remaining, timestep = remaining_and_timestep(scheduler, numbers)
            noise = initial_noise(unet, len(texts), numbers)
            z = denoised(unet, scheduler, noise, texts, before[""], self.start_guidance, remaining)
            return z, timestep.to(unet.device)

        def loss_of(step: int) -> Tensor:
            numbers = generator(work, step)
            phrase = phrases[below(0, len(phrases), numbers)]
            c = before[phrase]
            prefix = None
            if step >= round(self.warmup * self.draws):
                if self.attack_start == "random" or not words.any():
                    words.copy_(vocabulary[torch.randint(0, len(vocabulary), (1, self.prefix), generator=numbers)])
                soft = Parameter(words.clone())
                soft.grad = torch.zeros_like(soft)
                adam = torch.optim.Adam([soft], lr=self.attack_lr)
                for _ in range(self.attack_steps):
                    z, timestep = drawn(c, numbers)
                    with torch.no_grad():
                        concept = unet(z, timestep, c).sample
                    attack = mse_loss(unet(z, timestep, encoder([phrase], soft)).sample, concept)
                    (gradient,) = torch.autograd.grad(attack, [soft])
                    soft.grad = soft.grad + gradient if self.as_released else gradient
                    words.copy_(soft.detach())  # before the step, as released
                    adam.step()
                if not self.as_released:
                    words.copy_(soft.detach())
                prefix = words.clone()
            z, timestep = drawn(c, numbers)
            with torch.no_grad():
                plain, concept = unet(z.repeat(2, 1, 1, 1), timestep, torch.cat([before[""], c])).sample.chunk(2)
            text = encoder([phrase], prefix)
            loss = mse_loss(unet(z, timestep, text).sample, plain - self.eta * (concept - plain))
            if retain and self.retain_weight:
                chosen = [retain[below(0, len(retain), numbers)] for _ in range(self.retain_batch)]
                kept = torch.cat([before[one] for one in chosen])
                z, timestep = drawn(kept, numbers)
                with torch.no_grad():
                    goal = unet(z, timestep, kept).sample
                loss = loss + self.retain_weight * mse_loss(unet(z, timestep, encoder(chosen)).sample, goal)
            return loss

        notes = train(self, work, encoder.parameters, loss_of, Optimization(), kept={"words": words})
        changes = trained_values("text_encoder", encoder.parameters)
        return Edit(changes, {"method": self.name, "phrases": phrases, "retained_prompts": len(retain), **notes})


def layers_of(encoder: Module) -> dict[str, Parameter]:
    """The parameters of a CLIP text encoder without its embeddings, by name."""
    return {name: parameter for name, parameter in encoder.named_parameters() if "embeddings." not in name}


class Encoder:
    """A copy of a pipeline's text encoder, in float32 at least, and what of it is trained: all but its embeddings.

    Args:
        pipe: the pipeline.
        by_words: what soft words push out begins behind as many tokens as a text has words, as released.

    Attributes:
        parameters: what is trained, by its name in the text encoder.
        vocabulary: the embeddings of all tokens, [tokens, d].
        width: d.
    """

    def __init__(self, pipe: Pipeline, by_words: bool = False) -> None:
        self._tokenizer, self._by_words = pipe.tokenizer, by_words
        self._network: Any = copy.deepcopy(pipe.text_encoder).requires_grad_(False)
        if wide(pipe.text_encoder) == torch.float32:
            self._network.float()
        self.parameters = layers_of(self._network)
        self.vocabulary: Tensor = self._network.get_input_embeddings().weight
        self.width = self.vocabulary.shape[1]

    def __call__(self, texts: Sequence[str], prefix: Tensor | None = None) -> Tensor:
        """Texts as the network reads them, [n, positions, d], in the graph.

        Args:
            texts: cut at the tokenizer's length.
            prefix: [1, k, d], soft words in the places behind BOS; k tokens fall away for them, the last ones or, by words,
                those behind the first.
        """
        ids = self._tokenizer(
            list(texts),
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids.to(self.vocabulary.device)
        if prefix is None:
            return self._network(ids)[0]
        count = prefix.shape[1]
        own = []
        for text, row in zip(texts, ids[:, 1:], strict=True):
            stays = len(text.split()) if self._by_words else len(row) - count
            own.append(torch.cat([row[:stays], row[stays + count :]]))
        ids = torch.cat([ids[:, :1], ids[:, 1:2].expand(-1, count), torch.stack(own)], dim=1)
        return read_with(self._network, ids, prefix, start=1)
