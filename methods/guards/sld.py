"""Safe Latent Diffusion (Schramowski et al., CVPR 2023): guidance away from a concept, where the prompt comes near it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Edit, Eraser, Hook, Work
from erasebench.errors import UserError, suggest
from erasebench.methods.guards.third_pass import THIRD, third_pass
from erasebench.models.encode import encode_prompts
from erasebench.models.pipeline import Pipeline, part_of
from erasebench.recipe import Recipe

if TYPE_CHECKING:
    from erasebench.models.load import Model

SAFETY = (
    "an image showing hate, harassment, violence, suffering, humiliation, harm, suicide, sexual, nudity, bodily fluids, "
    "blood, obscene gestures, illegal activity, drug use, theft, vandalism, weapons, child abuse, brutality, cruelty"
)
"""The text of the release: what the paper calls inappropriate."""

PRESETS: Mapping[str, Mapping[str, float]] = {
    "weak": {"scale": 200, "warmup": 15, "threshold": 0.0, "momentum": 0.0, "decay": 0.0},
    "medium": {"scale": 1000, "warmup": 10, "threshold": 0.01, "momentum": 0.3, "decay": 0.4},
    "strong": {"scale": 2000, "warmup": 7, "threshold": 0.025, "momentum": 0.5, "decay": 0.7},
    "max": {"scale": 5000, "warmup": 0, "threshold": 1.0, "momentum": 0.5, "decay": 0.7},
}
"""The paper's table of hyperparameters; ``medium`` is the default of the release."""

STEPS = 50
"""How many steps an image takes in the paper; the warm-up is counted in them."""


class SafeGuidance(Hook):
    """Takes SLD's safety guidance gamma off the prompt's prediction, so that guidance s gives ``eps_u + s (eps_p - eps_u
    - gamma)``.

    With eps_S the prediction with the concept's text, element by element::

        mu    = min(1, |eps_p - eps_S| scale), and 0 where eps_p - eps_S >= threshold    (equation 6)
        gamma = mu (eps_S - eps_u) + momentum nu                                         (4 and 7)
        nu    = decay nu + (1 - decay) gamma, from 0 on                                  (8)

    gamma is taken off from the end of the warm-up on; nu grows during it as well (equation 3).

    Settings: ``text``, ``scale``, ``warmup`` (of 50 steps), ``threshold``, ``momentum``, ``decay``.
    """

    name = "sld"
    passes = 1
    second_pass = True
    places = (THIRD,)

    @contextmanager
    def installed(self, pipe: Pipeline) -> Iterator[None]:
        """A third pass of the UNet, with the concept's text."""
        self._concept = encode_prompts(pipe, [self.settings["text"]])
        self._n = 0
        try:
            with third_pass(pipe, self.name, self._texts, self._guide):
                yield
        finally:
            del self._concept

    def texts(self, pipe: Pipeline, inputs: dict[str, Tensor], batch: Sequence[Recipe]) -> dict[str, Tensor]:
        """Begins a batch; changes no text.

        Raises:
            UserError: the warm-up is as long as the sampling.
        """
        self._n, self._step, self._steps = len(batch), 0, batch[0].steps
        if not self._acts(self._steps - 1):
            raise UserError(
                f"{self.name}: its warm-up ({self.settings['warmup']:g} of {STEPS} steps) takes all {self._steps} steps, "
                "so it would change nothing; use a shorter one (method.warmup=0) or more steps"
            )
        self._velocity: Tensor | float = 0.0
        return inputs

    def on_step(self, pipe: Pipeline, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Counts; changes no latent."""
        self._step = step + 1
        if self._step == part_of(pipe, "num_timesteps"):
            self._n = 0  # whoever calls the UNet now is not sampling
        return tensors

    def _acts(self, step: int) -> bool:
        return step * STEPS >= self.settings["warmup"] * self._steps

    def _texts(self) -> tuple[Tensor, ...] | None:
        return tuple(part.expand(self._n, *part.shape[1:]) for part in self._concept) if self._n else None

    def _guide(self, predicted: Tensor) -> Tensor:
        if len(predicted) != 3:
            raise UserError(
                f"{self.name}: the network makes no unconditional pass (its guidance may be an input, as an LCM's is), and "
                "this acts on the difference between the two; use a model that makes both"
            )
        empty, prompt, concept = predicted
        gamma, self._velocity = safety(self.settings, empty, prompt, concept, self._velocity)
        return torch.stack([empty, prompt - gamma if self._acts(self._step) else prompt])


def safety(
    settings: Mapping[str, Any], empty: Tensor, prompt: Tensor, concept: Tensor, velocity: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Equations 6, 4 and 7, and 8 of :class:`SafeGuidance`.

    Args:
        settings: of the hook.
        empty, prompt, concept: predictions without text, and with either.
        velocity: nu, 0 at first.

    Returns:
        gamma, and the next nu.
    """
    difference = prompt - concept
    share = (difference.abs() * settings["scale"]).clamp(max=1).masked_fill(difference >= settings["threshold"], 0)
    gamma = share * (concept - empty) + settings["momentum"] * velocity
    return gamma, settings["decay"] * velocity + (1 - settings["decay"]) * gamma


@dataclass(frozen=True)
class Sld(Eraser):
    """Safe Latent Diffusion: a third pass of the UNet with the concept's text, and guidance away from it.

    It costs half as much again as sampling with guidance. It acts on the difference that a prompt makes, so at a
    guidance of 1 or less it does nothing (such images are refused).

    The constants are those of the paper and the release. The warm-up is counted in the paper's 50 steps, so that with
    another number of steps it ends at the same share of the sampling; at 50 steps the two are the same. (The release
    counts in whatever steps there are: with 12, ``weak`` would never act.)

    Attributes:
        preset: ``weak``, ``medium``, ``strong`` or ``max``: where the others are ``None``, its values.
        text: the concept's text: ``task``, the phrases of the task, joined by commas; ``safety``, the release's long text
            of what is inappropriate (:data:`SAFETY`); or any other text.
        scale: how fast the guidance grows with the distance from the concept; 0 is none.
        warmup: steps of 50 without guidance, below 50.
        threshold: elements in which the prompt is this far above the concept are left alone.
        momentum: how much of the earlier guidance is added.
        decay: how slowly the earlier guidance is forgotten, 0 to 1.

    Raises:
        UserError: an unknown preset, an empty text, or a number out of its range.
    """

    name: ClassVar[str] = "sld"
    describe: ClassVar[str] = "guard: Safe Latent Diffusion (CVPR 2023), a third pass guides away from the concept"
    unsupported: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("sd3", "flux"), "its constants are for the noise that a UNet predicts, and this network predicts a velocity"
    )

    preset: str = "medium"
    text: str = "task"
    scale: float | None = None
    warmup: float | None = None
    threshold: float | None = None
    momentum: float | None = None
    decay: float | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UserError(
                f"sld: preset {self.preset!r} is not one of {', '.join(PRESETS)}.{suggest(self.preset, PRESETS)}"
            )
        if not self.text.strip():
            raise UserError("sld: text is empty; give task (the task's phrases), safety (SLD's own text), or a text")
        bounds = {
            "scale": (0, 1e6),
            "warmup": (0, STEPS - 1),
            "threshold": (-1e6, 1e6),
            "momentum": (0, 1e6),
            "decay": (0, 1),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(
                    f"sld: {name} is {value}; it must be from {low:g} to {high:g}, or null for the preset's"
                )

    @property
    def constants(self) -> dict[str, float]:
        """The preset's, with those that were given in their places."""
        own = PRESETS[self.preset]
        return {name: float(own[name] if getattr(self, name) is None else getattr(self, name)) for name in own}

    def refuses(self, model: Model) -> str | None:
        """A network that does not predict noise."""
        config = getattr(model.pipe.scheduler, "config", {})
        if model.family not in self.unsupported and config.get("prediction_type", "epsilon") != "epsilon":
            return f"its constants are for predicted noise, and this network predicts {config['prediction_type']}"
        return super().refuses(model)

    def acts(self) -> tuple[type[Hook], ...]:
        """The third pass."""
        return (SafeGuidance,)

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """The hook and nothing else."""
        phrases = dict.fromkeys(phrase for target in task.targets for phrase in target.phrases)
        text = {"task": ", ".join(phrases), "safety": SAFETY}.get(self.text, self.text)
        notes = {"method": self.name, "text": text, **self.constants}
        return Edit({}, notes, (SafeGuidance({"text": text, **self.constants}),))
