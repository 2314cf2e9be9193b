"""Receler (Huang et al., ECCV 2024): erasers behind cross-attention, trained against soft words that bring a concept back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.functional import interpolate, mse_loss

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Edit, Hook, Work
from erasebench.errors import UserError
from erasebench.methods.adapters.beside import beside
from erasebench.methods.adapters.receler import RecelerErasers, cross_attention, erased
from erasebench.methods.closed_form.linear import check_positive
from erasebench.methods.trained.attention import layer_shape, recorded_attention
from erasebench.methods.trained.examples import phrases_of, token_columns
from erasebench.methods.trained.latents import ddim, denoised, initial_noise, remaining_and_timestep
from erasebench.methods.trained.training import Optimization, TrainedEraser, below, generator, train
from erasebench.models.encode import encode_prompts
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import denoiser


@dataclass(frozen=True, kw_only=True)
class Receler(TrainedEraser):
    """Receler: the UNet stays; an eraser behind every cross-attention is trained.

    A step draws a phrase c of the concepts, a number of remaining DDIM steps and a timestep of that part of the schedule;
    the network with its erasers denoises noise for c to z. ``words`` soft words stand in the text's embeddings behind the
    phrase's tokens; ``attack_steps`` steps of Adam move them to bring the concept back, against
    ``mean((eps(z, t, adv) - eps_0(z, t, c))^2)``. The erasers then take one step against ESD's loss for the text so
    attacked, ``mean((eps(z, t, adv) - (eps_0(z, t, "") - eta (eps_0(z, t, c) - eps_0(z, t, ""))))^2)``, and ``localised``
    times what they add outside the concept: the mean, over layers and pixels outside a mask, of its squares. The mask is
    where attention to c's tokens, on maps of a quarter of the latents' side, min-max normalised, is at least ``threshold``.
    eps_0 is the network without erasers.

    Each phrase has its own soft words and Adam over all of the training. As released, the erasers' gradient is taken at the
    last of the ``attack_steps`` evaluations, before the words move on.

    Ours: where no map is of a quarter of the side, those nearest to it; a step draws one of the concepts' phrases, where
    the release has one word a concept. The release divides a list of concepts only where it is told at what sign, and else
    takes all of it for one concept, "church, tench": so ``as_released`` does with the phrases of a task. (It trains 500 steps however many words there are; raise ``iterations`` with them.)

    Attributes:
        inner: width of an eraser.
        eta: how far beyond the unconditional prediction to go, 0 or more.
        start_guidance: of the latents that are trained on; 1 is none.
        steps: of their sampling.
        words: soft words.
        attack_steps: of Adam on them, a step.
        attack_lr, attack_decay: of that Adam.
        localised: weight of adding nothing outside the concept; 0 leaves it out.
        threshold: of the mask, between 0 and 1.
        phrases: train on all phrases of a concept, not its name alone.
        as_released: all phrases are one text, with commas between them.

    Raises:
        UserError: an option out of range.
    """

    name: ClassVar[str] = "receler"
    describe: ClassVar[str] = "Receler: erasers behind cross-attention, trained against soft words (ECCV 2024)"

    iterations: int = 500
    lr: float = 3e-4
    inner: int = 128
    eta: float = 1.0
    start_guidance: float = 3.0
    steps: int = 50
    words: int = 16
    attack_steps: int = 50
    attack_lr: float = 0.1
    attack_decay: float = 0.1
    localised: float = 0.1
    threshold: float = 0.1
    phrases: bool = True
    as_released: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_whole("inner", "steps", "words", "attack_steps")
        check_positive(self.name, start_guidance=self.start_guidance, attack_lr=self.attack_lr)
        for option in ("eta", "attack_decay", "localised"):
            if not 0 <= getattr(self, option) < math.inf:
                raise UserError(f"receler: {option} is {getattr(self, option)!r}; it must be a number of at least 0")
        if not 0 < self.threshold < 1:
            raise UserError(f"receler: threshold is {self.threshold!r}; it must be between 0 and 1")
        if self.save_memory:
            raise UserError("receler: its loss reads what every eraser adds; use save_memory=false")

    def acts(self) -> tuple[type[Hook], ...]:
        """The erasers."""
        return (RecelerErasers,)

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:
        """As of all trainings; and a phrase is refused that leaves the soft words no room."""
        super().check(pipe, task)
        self.columns(pipe, task)

    def columns(self, pipe: Pipeline, task: ErasureTask) -> dict[str, Tensor]:
        """The positions of each phrase's own tokens.

        Raises:
            UserError: there is no room for the soft words behind them.
        """
        phrases = phrases_of(task, self.phrases)
        shown = [", ".join(phrases)] if self.as_released else phrases
        columns = {phrase: token_columns(pipe, "{}", phrase, pooled=False) for phrase in shown}
        for phrase, own in columns.items():
            if len(own) + self.words >= pipe.tokenizer.model_max_length:
                raise UserError(f"receler: behind {phrase!r} there is no room for {self.words} soft words; lower words")
        return columns

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """Trains, from the last checkpoint if there is one."""
        assert work is not None
        columns = self.columns(pipe, task)
        phrases = list(columns)
        network = self.student(denoiser(pipe))
        empty, *contexts = encode_prompts(pipe, ["", *phrases])[0].to(network.dtype)[:, None]
        scheduler = ddim(pipe.scheduler.config, self.steps)
        numbers = generator(work, self.draws)
        parameters = new_erasers(network, self.inner, numbers)
        attacks = [SoftWords(empty, self, numbers) for _ in phrases]
        seen: dict[str, Tensor] = {}

        def addition(name: str) -> Any:
            def add(layer: Module, inputs: Tensor, output: Tensor) -> Tensor:
                seen[name] = erased(output, parameters, name)
                return seen[name]

            return add

        def loss_of(step: int) -> Tensor:
            numbers = generator(work, step)
            chosen = below(0, len(phrases), numbers)
            c, own, attack = contexts[chosen], columns[phrases[chosen]], attacks[chosen]
            remaining, timestep = remaining_and_timestep(scheduler, numbers)
            timestep = timestep.to(network.device)
            z = denoised(
                network, scheduler, initial_noise(network, 1, numbers), c, empty, self.start_guidance, remaining
            )
            with torch.no_grad(), without():
                plain = network(z, timestep, empty).sample
                with recorded_attention(network) as maps:
                    concept = network(z, timestep, c).sample
                masks = masks_of(maps, own.to(z.device), z.shape[-2:], self.threshold)
            prediction = concept
            for _ in range(self.attack_steps):
                text = attack.text(c, own)
                prediction = network(z, timestep, text).sample
                added = dict(seen)
                attack.step(mse_loss(prediction, concept))
            erase = mse_loss(prediction, plain - self.eta * (concept - plain))
            return erase + self.localised * outside(added, masks) if self.localised else erase

        kept = {f"{i}.{name}": tensor for i, attack in enumerate(attacks) for name, tensor in attack.kept().items()}
        with beside(network, {name: addition(name) for name in cross_attention(network)}) as without:
            notes = train(self, work, parameters, loss_of, Optimization(), kept=kept)
        tensors = {name: parameter.detach().cpu().clone() for name, parameter in parameters.items()}
        return Edit({}, {"method": self.name, "phrases": phrases, **notes}, (RecelerErasers({}, tensors),))


class SoftWords:
    """Soft words of one phrase, and Adam over them.

    Args:
        like: embeddings [1, positions, d] of some text.
        eraser: how many, and Adam's rate and decay.
        numbers: they start between 0 and 1.
    """

    def __init__(self, like: Tensor, eraser: Receler, numbers: torch.Generator) -> None:
        start = torch.rand(1, eraser.words, like.shape[-1], generator=numbers)
        self.words = Parameter(start.to(like))
        self.adam = torch.optim.Adam([self.words], lr=eraser.attack_lr, weight_decay=eraser.attack_decay)
        # Adam's own first state, made now, so that a checkpoint can be read into it.
        zeros = torch.zeros_like(self.words)
        self.adam.state[self.words] = {"step": torch.tensor(0.0), "exp_avg": zeros, "exp_avg_sq": zeros.clone()}

    def kept(self) -> dict[str, Tensor]:
        """What changes in place from step to step, by name."""
        return {"words": self.words.data, **self.adam.state[self.words]}

    def text(self, context: Tensor, own: Tensor) -> Tensor:
        """A phrase's embeddings with the words behind its own tokens, which stand at ``own``."""
        end = int(own[-1]) + 1
        return torch.cat([context[:, :end], self.words, context[:, end + self.words.shape[1] :]], dim=1)

    def step(self, loss: Tensor) -> None:
        """One step of Adam, and the loss's graph stays for the erasers."""
        (self.words.grad,) = torch.autograd.grad(loss, [self.words], retain_graph=True)
        self.adam.step()


def new_erasers(network: Module, inner: int, numbers: torch.Generator) -> dict[str, Parameter]:
    """Erasers that add nothing yet: ``down`` as a Linear starts, ``up`` zeros. By the layer's name and the part's."""
    made = {}
    for name, layer in cross_attention(network).items():
        width, like = layer.to_out[0].out_features, layer.to_out[0].weight
        for part, shape in (("down.weight", (inner, width)), ("down.bias", (inner,))):
            made[f"{name}.{part}"] = ((2 * torch.rand(shape, generator=numbers) - 1) / width**0.5).to(like)
        made |= {f"{name}.up.weight": torch.zeros(width, inner), f"{name}.up.bias": torch.zeros(width)}
    return {name: Parameter(tensor.to(like)) for name, tensor in made.items()}


def masks_of(maps: Mapping[str, Tensor], columns: Tensor, size: Sequence[int], threshold: float) -> dict[str, Tensor]:
    """Where the network looks for a concept, at the size of every layer.

    Args:
        maps: attention by layer, [heads, pixels, positions], of one image.
        columns: positions of the concept's own tokens.
        size: height and width of the latents.
        threshold: of attention, min-max normalised.

    Returns:
        By layer, [pixels], 1 at the concept and 0 elsewhere.
    """
    shapes = {name: layer_shape(one.shape[1], size) for name, one in maps.items()}
    side = min((abs(shape[0] - size[0] // 4), shape[0]) for shape in shapes.values())[1]
    chosen = [
        one[..., columns].mean(-1).mean(0).reshape(shapes[name])
        for name, one in maps.items()
        if shapes[name][0] == side
    ]
    mean = torch.stack(chosen).mean(0)
    low, high = mean.aminmax()
    mask = ((mean - low) / (high - low).clamp_min(torch.finfo(mean.dtype).tiny) >= threshold).to(mean)
    return {name: interpolate(mask[None, None], shape).flatten() for name, shape in shapes.items()}


def outside(added: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
    """The mean over layers of what erasers add outside the masks: of squares, over channels and pixels.

    Args:
        added: by layer, [1, pixels, d].
        masks: by layer, [pixels].
    """
    parts = []
    for name, one in added.items():
        elsewhere = 1 - masks[name]
        parts.append((one.square().mean(-1) * elsewhere).sum() / (elsewhere.sum() + 1e-9))
    return torch.stack(parts).mean()
