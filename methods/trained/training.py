"""The loop of every eraser that trains: steps of Adam, checkpoints, a weight average, and a stop where it diverges."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import psutil
import torch
from torch import Tensor
from torch.nn import Module, Parameter
from transformers.optimization import Adafactor

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Change, Eraser, Work
from erasebench.errors import UserError
from erasebench.methods.closed_form.linear import check_positive
from erasebench.methods.trained.checkpoint import Checkpoints
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import denoiser

CURVE = 200
"""Points of the loss that an edit's notes keep, at most: each is the mean of the steps up to it."""

DIVERGED = 1e4
"""A loss of so many times the largest of the first ten, and above 1, has diverged."""

OPTIMIZERS: dict[str, Callable[[Tensor], int]] = {
    "adam": lambda weight: 2 * weight.numel(),
    # of a matrix a row and a column; of a convolution that of every kernel
    "adafactor": lambda weight: (
        weight.numel() // weight.shape[-1] + weight.numel() // weight.shape[-2] if weight.ndim > 1 else weight.numel()
    ),
}
"""How many numbers an optimizer keeps for a weight."""

LATER = {
    "accumulate": 1,
    "optimizer": "adam",
    "as_released": False,
    "gate_scale": 1.0,
    "inversion": 0,
    "inversion_lr": 1e-3,
    "inversion_words": 4,
    "segment": None,
    "segment_revision": None,
    "segment_threshold": 0.5,
}
"""Options that came after edits had been stored: at these values they do what was done before them."""


@dataclass(frozen=True, kw_only=True)
class TrainedEraser(Eraser):
    """What erasers that train have in common. A method's file says what is trained and what its loss is.

    It trains in float32, whatever the model's type. The random numbers of a step follow from its number and the edit's
    key alone, so a training that was killed goes on as if it had not been.

    Device and precision are PyTorch's own (the pipeline's device, ``torch.autocast``) and not accelerate's: one process
    trains on one device, and the checkpoints must also hold what accelerate does not know of (averages, soft words).

    Attributes:
        iterations: steps.
        lr: of the optimizer.
        accumulate: draws of the loss a step, each with random numbers of its own, one after another: the step takes the
            mean of their gradients, as of a batch so many times larger, in the memory of one.
        optimizer: ``adam``, as the method has it; or ``adafactor``, which keeps a row and a column for a matrix where Adam
            keeps two of it. At the same rate (it is not scaled by the parameters); another edit.
        seed: another one gives another training.
        precision: ``float32``, or ``bfloat16``: the network is evaluated under autocast. Faster on a GPU, another edit.
        save_memory: activations are computed twice instead of kept (gradient checkpointing). Slower; the same loss.

    Raises:
        UserError: an option out of range.
    """

    trains: ClassVar[bool] = True
    unsupported: ClassVar[Mapping[str, str]] = {
        "sdxl": "its training gives the network no pooled text and no sizes, which this UNet also takes",
        **dict.fromkeys(("sd3", "flux"), "it trains the cross-attention of a UNet, which this transformer lacks"),
    }

    iterations: int
    lr: float
    accumulate: int = 1
    optimizer: str = "adam"
    seed: int = 0
    precision: str = "float32"
    save_memory: bool = False

    def __post_init__(self) -> None:
        check_positive(self.name, lr=self.lr)
        self.check_whole("iterations", "accumulate")
        if self.optimizer not in OPTIMIZERS:
            raise UserError(f"{self.name}: optimizer is {self.optimizer!r}; it must be {' or '.join(OPTIMIZERS)}")
        if self.precision not in ("float32", "bfloat16"):
            raise UserError(f"{self.name}: precision is {self.precision!r}; it must be float32 or bfloat16")

    def check_whole(self, *options: str) -> None:
        """Refuse options that are no whole numbers of at least 1."""
        for option in options:
            value = getattr(self, option)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{self.name}: {option} is {value!r}; it must be a whole number of at least 1")

    @property
    def settings(self) -> dict[str, Any]:
        """As of every eraser, without :data:`LATER` ones where they change nothing: what took hours keeps its key."""
        return {name: value for name, value in super().settings.items() if (name, value) not in LATER.items()}

    @property
    def draws(self) -> int:
        """How many times the loss is drawn; numbers from here on are free for other random numbers."""
        return self.iterations * self.accumulate

    def student(self, network: Module) -> Any:
        """A float32 copy of a network (float64 of one in float64), of which nothing is trained yet."""
        student: Any = copy.deepcopy(network).requires_grad_(False)
        if wide(network) == torch.float32:
            student.float()  # and not to(dtype), which diffusers warns of
        if self.save_memory:
            student.enable_gradient_checkpointing()
            student.train()  # diffusers recomputes only then; its UNets drop nothing out
        return student

    def copied(self, pipe: Pipeline) -> list[Module]:
        """The networks of a pipeline that it copies, each as often as it does; by default the denoiser once."""
        return [denoiser(pipe)]

    def trained_in(self, pipe: Pipeline) -> Mapping[str, Tensor]:
        """What of a pipeline it trains, by its name in the part that holds it; adapters, which are not there yet, are not.

        Raises:
            UserError: the pipeline has nothing of that.
        """
        return {}

    def memory(self, pipe: Pipeline) -> int:
        """Bytes that it takes at least, besides the pipeline: float32 copies of networks, and of what is trained the
        gradients and what the optimizer keeps. Activations come on top."""
        copies = sum(parameter.numel() for network in self.copied(pipe) for parameter in network.parameters())
        kept = OPTIMIZERS[self.optimizer]
        return 4 * (copies + sum(weight.numel() + kept(weight) for weight in self.trained_in(pipe).values()))

    def check(self, pipe: Pipeline, task: ErasureTask) -> None:
        """A model is refused of which nothing would be trained, or whose training (:meth:`memory`) cannot fit into the
        memory that is free."""
        check_memory(self.name, self.memory(pipe), next(denoiser(pipe).parameters()).device)

    def autocast(self, device: str) -> AbstractContextManager[Any]:
        """Where a network is evaluated."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(torch.device(device).type, torch.bfloat16)


def wide(network: Any) -> torch.dtype:
    """The type in which a network is trained: float32 at least."""
    return torch.promote_types(next(network.parameters()).dtype, torch.float32)


@dataclass(frozen=True)
class Optimization:
    """How a method steps.

    Attributes:
        adam: ``torch.optim.Adam`` or ``AdamW``.
        options: its arguments besides the rate, e.g. ``{"weight_decay": 0.01}``.
        clip: the gradient's norm is cut to it; ``None`` is not.
        rate: factor of the rate at a step, of 0 to ``iterations - 1``.
        adds_up: the gradient is never set to zero, so that a step takes the sum of all so far (a defect of a release).
    """

    adam: type[torch.optim.Adam] = torch.optim.Adam
    options: Mapping[str, Any] = field(default_factory=dict)
    clip: float | None = None
    rate: Callable[[int], float] = lambda step: 1.0
    adds_up: bool = False

    def over(self, parameters: Iterable[Parameter], eraser: TrainedEraser) -> torch.optim.Optimizer:
        """The optimizer that the eraser asks for; Adafactor takes the weight decay, and knows no other option of Adam's."""
        if eraser.optimizer == "adam":
            return self.adam(parameters, lr=eraser.lr, **self.options)
        decay = self.options.get("weight_decay", 0.0)
        return Adafactor(parameters, eraser.lr, weight_decay=decay, scale_parameter=False, relative_step=False)


def train(
    eraser: TrainedEraser,
    work: Work,
    parameters: Mapping[str, Parameter],
    loss_of: Callable[[int], Tensor],
    optimization: Optimization,
    kept: Mapping[str, Tensor] | None = None,
    after: Callable[[int], None] = lambda step: None,
) -> dict[str, Any]:
    """Train parameters in place, from the last checkpoint if there is one.

    Args:
        eraser: who trains: its iterations, rate and precision.
        work: folder, device and bar.
        parameters: what is trained, by name. They are made to require gradients, and all else should not.
        loss_of: the loss of a draw, a scalar; draws are counted from 0 to ``eraser.draws`` - 1, and a step takes
            ``eraser.accumulate`` of them.
        optimization: how to step.
        kept: tensors besides the parameters that steps change in place (a weight average, soft prompts); they go into
            the checkpoints.
        after: called after each step with its number, under ``no_grad``.

    Returns:
        Notes for the edit: the loss's first and last value and its curve, the number of steps and of parameters, and the
        seconds of the steps that were done before a kill.

    Raises:
        UserError: nothing is trained; a loss or gradient that is not finite, or a loss that has grown without bound
            (the last good checkpoint stays); the folder cannot be written.
    """
    if not parameters:
        raise UserError(f"{eraser.name}: no parameter of this model is trained by it; choose another option or model")
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    optimizer = optimization.over(parameters.values(), eraser)
    kept = dict(kept or {})
    if optimization.adds_up:
        for name, parameter in parameters.items():
            parameter.grad = kept[f"gradient.{name}"] = torch.zeros_like(parameter)
    checkpoints = Checkpoints(work.folder, parameters, optimizer, eraser.iterations, kept)
    losses = checkpoints.resume()
    began = time.perf_counter() - checkpoints.seconds_before
    for step in range(len(losses), eraser.iterations):
        for group in optimizer.param_groups:
            group["lr"] = eraser.lr * optimization.rate(step)
        if not optimization.adds_up:
            optimizer.zero_grad()
        loss = 0.0
        for draw in range(step * eraser.accumulate, (step + 1) * eraser.accumulate):
            with eraser.autocast(work.device):
                part = loss_of(draw) / eraser.accumulate
            if not part.requires_grad:
                raise UserError(
                    f"{eraser.name}: its loss depends on nothing that it trains, as this network does not read the text by "
                    "cross-attention; choose another model"
                )
            part.backward()
            loss += part.item()
        if step == len(losses) == 0:
            _check_all_trained(eraser, parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), optimization.clip or math.inf)
        _check_converging(eraser, step, losses, loss, norm.item())
        optimizer.step()
        losses.append(loss)
        with torch.no_grad():
            after(step)
        checkpoints.save(losses, time.perf_counter() - began)
        work.advance(step + 1, eraser.iterations)
    optimizer.zero_grad()  # the gradients' memory, before the edit is made of copies
    return {
        "loss": {"first": losses[0], "last": losses[-1]},
        "loss_curve": curve(losses),
        **({"seconds_before": checkpoints.seconds_before} if checkpoints.seconds_before else {}),
        "gradient_steps": eraser.iterations,
        "trained_parameters": sum(parameter.numel() for parameter in parameters.values()),
    }


def totals(trained: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What several trainings of one edit took together, for its notes.

    Args:
        trained: the notes of each, as :func:`train` returns them.
    """
    counted = ("gradient_steps", "trained_parameters", "seconds_before")
    sums = {name: sum(notes.get(name, 0) for notes in trained.values()) for name in counted}
    return {name: total for name, total in sums.items() if total}


def _check_all_trained(eraser: TrainedEraser, parameters: Mapping[str, Parameter]) -> None:
    without = [name for name, parameter in parameters.items() if parameter.grad is None]
    if without:
        raise UserError(
            f"{eraser.name}: its loss does not depend on {len(without)} of the {len(parameters)} parameters that it "
            f"trains, e.g. {without[0]}; choose another group of parameters"
        )


def _check_converging(eraser: TrainedEraser, step: int, losses: list[float], loss: float, norm: float) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        largest = max(map(abs, losses[:10]), default=abs(loss))
        if abs(loss) <= max(1.0, DIVERGED * largest):
            return
    raise UserError(
        f"{eraser.name}: the training diverged at step {step + 1} of {eraser.iterations} (loss {loss:.3g}, norm of the "
        f"gradient {norm:.3g}); nothing was stored. Use a smaller lr than {eraser.lr:g}"
        + (", or precision=float32" if eraser.precision != "float32" else "")
    )


def curve(losses: list[float]) -> list[float]:
    """At most :data:`CURVE` points of a loss, each the mean of an equal part of the steps, to four digits."""
    width = -(-len(losses) // CURVE)
    parts = [losses[start : start + width] for start in range(0, len(losses), width)]
    return [float(f"{sum(part) / len(part):.4g}") for part in parts]


def trained_values(part: str, parameters: Mapping[str, Parameter | Tensor]) -> dict[str, Change]:
    """The changes of an edit: what was trained of a part of the pipeline (``unet``) is its new weights."""
    return {f"{part}.{name}": Change(value=value.detach().cpu().clone()) for name, value in parameters.items()}


def generator(work: Work, draw: int) -> torch.Generator:
    """The random numbers of a draw, on the CPU, so that every machine draws the same."""
    return torch.Generator().manual_seed((work.seed + draw) % 2**63)


def own_work(work: Work, number: int, of: int) -> Work:
    """The means of one of several trainings of equal length, whose bar is that of all.

    The first has the seed of the whole, so that one concept alone is trained as if there could be no others.
    """

    def advance(done: int, steps: int) -> None:
        work.advance(number * steps + done, of * steps)

    own = replace(work.part(number), advance=advance)
    return own if number else replace(own, seed=work.seed)


def below(low: int, high: int, numbers: torch.Generator) -> int:
    """A whole number of at least ``low`` and below ``high``."""
    return int(torch.randint(low, max(high, low + 1), (1,), generator=numbers))


def check_memory(name: str, needed: int, device: torch.device) -> None:
    """Refuse a training that needs more bytes than are free.

    Raises:
        UserError: how much is needed and free.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + cached
    else:
        free = psutil.virtual_memory().available
    if needed > free:
        raise UserError(
            f"{name}: training needs at least {needed / 2**30:.1f} GiB for copies of the network, gradients and moments, and "
            f"{free / 2**30:.1f} GiB are free on {device}; use optimizer=adafactor, train fewer parameters, or use a machine with more memory"
        )
