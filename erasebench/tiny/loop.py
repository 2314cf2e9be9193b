"""One training loop for every part of the embedded model.

The loop owns what is the same everywhere: AdamW, the learning-rate schedule, the moving average of the weights (EMA),
checkpoints and the progress line. What differs (the loss) is a function of the model and a random generator.

Every step draws its randomness from a generator seeded by (seed, step) alone, so a run that was cut off and resumed is
the run that was never cut off, and a checkpoint needs no generator state.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file

Trained = TypeVar("Trained", bound=torch.nn.Module)
Loss = Callable[[Trained, torch.Generator], "tuple[torch.Tensor, dict[str, torch.Tensor]]"]


@dataclass(frozen=True)
class Fit:
    """How one part is trained.

    `steps` AdamW steps of `batch` images; `lr` warms up over `warmup` steps, stays, and falls along a half cosine to
    2 % over the last share `decay` of the steps. While it stays, nothing depends on `steps`: a run may be lengthened
    until its decay has begun. `ema` is the decay of the averaged weights, which are the ones that are shipped.
    """

    steps: int
    batch: int
    lr: float
    warmup: int = 100
    decay: float = 0.5
    ema: float = 0.999
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0

    def lr_at(self, step: int) -> float:
        """Learning rate of the step with index `step` (0-based)."""
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        fall = 1.0 if left >= 1 else 0.02 + 0.98 * 0.5 * (1 - math.cos(math.pi * left))
        return self.lr * min(1.0, (step + 1) / self.warmup) * fall


def step_generator(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of one training step: a function of the seed and the step only, on the device of the model."""
    return torch.Generator(device).manual_seed((seed * 1_000_003 + step + 1) % 2**63)


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], scalars: dict[str, Any]) -> None:
    """Write tensors and JSON scalars as one safetensors file, by rename, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, part, {"scalars": json.dumps(scalars)})
    os.replace(part, path)


def load_tensors(path: Path, prefix: str = "") -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote: the tensors whose name begins with `prefix` (cut off) and the scalars."""
    with safe_open(path, "pt") as file:
        tensors = {k[len(prefix) :]: file.get_tensor(k) for k in file.keys() if k.startswith(prefix)}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["scalars"])


def checkpoint_path(out: Path, stage: str) -> Path:
    """Where a stage keeps its checkpoint below the training folder."""
    return Path(out) / stage / "checkpoint.safetensors"


def load_ema(model: torch.nn.Module, out: Path, stage: str) -> int:
    """Load the averaged weights of a stage's checkpoint into `model` (eval mode); returns the step they are of."""
    tensors, scalars = load_tensors(checkpoint_path(out, stage), "ema.")
    model.load_state_dict(tensors)
    model.eval()
    return scalars["step"]


class _State:
    """Model, optimiser and EMA of a run in progress, with their checkpoint."""

    def __init__(self, model: torch.nn.Module, fit: Fit, path: Path):
        self.model, self.fit, self.path, self.step, self.seconds = model, fit, path, 0, 0.0
        self.names = [n for n, _ in model.named_parameters()]
        self.parameters = [p for _, p in model.named_parameters()]
        # Biases and norms are not decayed.
        groups = [
            {"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": fit.weight_decay},
            {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=fit.lr, betas=fit.betas, foreach=True)
        self.ema = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self._floats = [k for k, v in self.ema.items() if v.is_floating_point()]

    def average(self) -> None:
        """Move the EMA towards the weights; early on it follows them more closely."""
        now = self.model.state_dict()
        keep = min(self.fit.ema, self.step / (self.step + 10))
        torch._foreach_lerp_([self.ema[k] for k in self._floats], [now[k].detach() for k in self._floats], 1 - keep)
        for k in self.ema.keys() - set(self._floats):
            self.ema[k].copy_(now[k])

    def save(self) -> None:
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.items()}
        for name, p in zip(self.names, self.parameters, strict=True):
            for key, value in self.optimizer.state.get(p, {}).items():
                tensors[f"adam.{name}.{key}"] = value
        save_tensors(self.path, tensors, {"step": self.step, "seconds": round(self.seconds, 1)})

    def load(self) -> None:
        tensors, scalars = load_tensors(self.path)
        self.step, self.seconds = scalars["step"], scalars["seconds"]
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        self.ema = {k[4:]: v.to(self.ema[k[4:]].device) for k, v in tensors.items() if k.startswith("ema.")}
        for name, p in zip(self.names, self.parameters, strict=True):
            moments = {k: tensors.get(f"adam.{name}.{k}") for k in ("step", "exp_avg", "exp_avg_sq")}
            # Adam counts its steps on the CPU, wherever its moments are.
            self.optimizer.state[p] = {
                k: v if k == "step" else v.to(p.device) for k, v in moments.items() if v is not None
            }


def rank() -> int:
    """Which of the processes that train together this one is; 0 if it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def own_share(batch: torch.Tensor) -> torch.Tensor:
    """This process's rows of a batch that all processes drew alike; all rows if it is alone."""
    return batch[rank() :: dist.get_world_size()] if dist.is_initialized() else batch


def _average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Make the gradients of all processes the mean of theirs, so that all take the same step."""
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def train(
    stage: str,
    model: Trained,
    loss_of: Loss[Trained],
    out: Path,
    fit: Fit,
    *,
    seed: int = 0,
    stop_at: int | None = None,
    save_seconds: float = 60.0,
    line_seconds: float = 15.0,
) -> Trained:
    """Train `model` in place and return it with its averaged weights, in eval mode.

    `loss_of(model, generator)` returns the loss of one batch and numbers to print; the generator is on the model's device. The checkpoint below `out/stage` is
    written every `save_seconds` and at the end; when it exists the run goes on from it. `stop_at` ends the run early,
    at that step, as an interruption would.
    """
    state = _State(model, fit, checkpoint_path(out, stage))
    if state.path.exists():
        state.load()
        print(f"{stage}: going on from step {state.step}", flush=True)
    last = min(fit.steps, stop_at if stop_at is not None else fit.steps)
    started = saved = spoken = time.monotonic()
    first, before, spoken_step, count = state.step, state.seconds, state.step, 0
    sums: dict[str, torch.Tensor] = {}
    device = state.parameters[0].device
    model.train()
    while state.step < last:
        lr = fit.lr_at(state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        loss, numbers = loss_of(model, step_generator(seed, state.step, device))
        loss.backward()
        _average_gradients(state.parameters)
        torch.nn.utils.clip_grad_norm_(state.parameters, fit.clip, foreach=True)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.average()
        count += 1
        for k, v in {"loss": loss.detach(), **numbers}.items():  # read only when they are printed: a GPU need not wait
            sums[k] = sums[k] + v if k in sums else v
        now = time.monotonic()
        state.seconds = before + now - started
        if rank() == 0 and (now - spoken > line_seconds or state.step == last):
            rate = (state.step - spoken_step) / max(now - spoken, 1e-9)
            overall = (state.step - first) / max(now - started, 1e-9)
            numbers_text = "  ".join(f"{k} {float(v) / count:.4f}" for k, v in sums.items())
            print(
                f"{time.strftime('%H:%M:%S')} {stage} {state.step}/{fit.steps}  {numbers_text}  lr {lr:.1e}  "
                f"{rate * fit.batch:.0f} samples/s  {state.seconds / 60:.1f} min, "
                f"{(fit.steps - state.step) / overall / 60:.1f} min left",
                flush=True,
            )
            spoken, spoken_step, sums, count = now, state.step, {}, 0
        if rank() == 0 and now - saved > save_seconds and state.step < last:
            state.save()
            saved = now
    if rank() == 0 and (state.step > first or not state.path.exists()):
        state.save()
    model.load_state_dict(state.ema)
    return model.eval()
