"""AdaVD (CVPR 2025): the part of each token's value in cross-attention that lies along a concept's is taken away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Edit, Eraser, Hook, Work
from erasebench.errors import UserError, suggest
from erasebench.models.encode import encode_prompts
from erasebench.models.pipeline import Pipeline, part_of
from erasebench.models.targets import key_value_weights, text_inputs
from erasebench.recipe import Recipe

DEPENDENT = 1e-6
"""A target of which less than this share (of its square) is left beside those before it says nothing of its own."""

THRESHOLDS = {"paper": 0.86, "released": 0.93}
"""The gate's middle. The release's 0.93 is for the values of both passes side by side. Those of the unconditional pass are
the concept's own, so where both halves are of one length a cosine x of the prompt's half is (1 + x) / 2 of both: 0.93 is
0.86 of the prompt's half (ours)."""


class ErasedValues(Hook):
    """Takes the concepts' directions out of the values of the prompt's tokens, all but BOS, at every step.

    With v a token's value (all heads together), t_k the value of concept k's last token, and q_k the targets made
    orthogonal to each other (Gram and Schmidt)::

        v' = v - sum_k w_k <v, q_k> / <q_k, q_k> q_k,    w_k = strength / (1 + exp(-slope (cos(v, t_k) - threshold)))

    Settings: ``slope``, ``threshold``, ``strength``; slope 0 makes every w half the strength. Tensors: ``concepts``
    [k, d], the rows of the concepts' last tokens.
    """

    name = "adavd"
    places = ("the values of cross-attention",)

    @contextmanager
    def installed(self, pipe: Pipeline) -> Iterator[None]:
        """Forward hooks at the layers of values.

        Raises:
            UserError: the pipeline's text has another width.
        """
        rows = self.tensors["concepts"]
        (empty,) = encode_prompts(pipe, [""], negative=True)[:1]
        self._n = 0
        with ExitStack() as stack:
            for name, weight in key_value_weights(pipe).items():
                if not name.endswith("to_v.weight"):
                    continue
                if weight.shape[1] != rows.shape[1]:
                    raise UserError(
                        f"{self.name}: texts of the model are {weight.shape[1]} wide, the edit's {rows.shape[1]}; the edit "
                        "was made for another model"
                    )
                w = weight.detach().double()
                targets = self._targets(rows.to(w) @ w.T, empty[0].to(w) @ w.T)
                layer = part_of(pipe, "unet").get_submodule(name.removeprefix("unet.").removesuffix(".weight"))
                handle = layer.register_forward_hook(self._erasing(targets, orthogonal(targets)))
                stack.callback(handle.remove)
            yield

    def texts(self, pipe: Pipeline, inputs: dict[str, Tensor], batch: Sequence[Recipe]) -> dict[str, Tensor]:
        """Begins a batch; changes no text."""
        self._n = len(batch)
        return inputs

    def on_step(self, pipe: Pipeline, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Ends a batch; changes no latent."""
        if step + 1 == part_of(pipe, "num_timesteps"):
            self._n = 0  # whoever calls the UNet now is not sampling
        return tensors

    def _targets(self, concepts: Tensor, empty: Tensor) -> Tensor:
        """What values are compared with: [k, 1 or positions, length]."""
        return concepts[:, None]

    def _erasing(self, targets: Tensor, basis: Tensor) -> Callable[[Any, tuple[Any, ...], Tensor], Tensor | None]:
        def erased(layer: Any, args: tuple[Any, ...], values: Tensor) -> Tensor | None:
            if not self._n:
                return None
            passes = list(values.unflatten(0, (-1, self._n)))
            prompt = min(1, len(passes) - 1)  # the first pass is the unconditional one, if there are several
            passes[prompt] = without(passes[prompt], targets, basis, self.settings)
            return torch.cat(passes)

        return erased


class JoinedValues(ErasedValues):
    """The same for the values of the unconditional pass and of the prompt's side by side, as released: each is compared
    and shortened as one vector of twice the length, so that values of the unconditional pass change too."""

    name = "adavd_joined"
    second_pass = True

    def _targets(self, concepts: Tensor, empty: Tensor) -> Tensor:
        k, positions = len(concepts), len(empty)
        return torch.cat([empty.expand(k, -1, -1), concepts[:, None].expand(-1, positions, -1)], dim=-1)

    def _erasing(self, targets: Tensor, basis: Tensor) -> Callable[[Any, tuple[Any, ...], Tensor], Tensor | None]:
        def erased(layer: Any, args: tuple[Any, ...], values: Tensor) -> Tensor | None:
            if not self._n:
                return None
            passes = list(values.unflatten(0, (-1, self._n)))
            joined = without(torch.cat(passes[:2], dim=-1), targets, basis, self.settings)
            return torch.cat([*joined.chunk(2, dim=-1), *passes[2:]])

        return erased


def orthogonal(targets: Tensor) -> Tensor:
    """Targets [k, positions, length], at each position made orthogonal to those before them; 0 where nothing is left."""
    basis: list[Tensor] = []
    for target in targets:
        left = target
        for other in basis:
            left = left - _share(left, other)[..., None] * other
        own = left.square().sum(-1) > DEPENDENT * target.square().sum(-1)
        basis.append(left * own[..., None])
    return torch.stack(basis)


def _share(values: Tensor, direction: Tensor) -> Tensor:
    """``<v, q> / <q, q>``; 0 where q is 0."""
    size = direction.square().sum(-1)
    return (values * direction).sum(-1) / torch.where(size > 0, size, 1)


def without(values: Tensor, targets: Tensor, basis: Tensor, settings: Mapping[str, float]) -> Tensor:
    """Values [n, positions, length] without the concepts' directions, all but the first position's."""
    exact = values.to(torch.promote_types(values.dtype, torch.float32))
    left = exact.clone()
    for target, direction in zip(targets.to(exact), basis.to(exact), strict=True):
        near = torch.cosine_similarity(exact, target, dim=-1) - settings["threshold"]
        weight = settings["strength"] * torch.sigmoid(settings["slope"] * near)
        left -= (weight * _share(exact, direction))[..., None] * direction
    left[:, 0] = exact[:, 0]
    return left.to(values)


@dataclass(frozen=True)
class AdaVd(Eraser):
    """AdaVD: value decomposition in cross-attention, with a gate for each token.

    A concept's target is the value of its last token, at every position but BOS. The release compares the values of the
    unconditional and the prompt's pass side by side, and changes both; in the paper's formula a value is one token's.
    ``paper`` does the latter to the prompt's pass alone, with a threshold of its own (:data:`THRESHOLDS`).

    Attributes:
        variant: ``paper`` or ``released``.
        gate: false: every token loses the whole of its part along the concept (w = 1).
        slope: how sharp the gate is.
        threshold: the cosine at which it is half open; ``None`` is that of the variant.
        strength: of the open gate; above 1 the part along the concept changes its sign.
        phrases: take all phrases of a concept, not its name alone.

    Raises:
        UserError: an unknown variant, or a number out of its range.
    """

    name: ClassVar[str] = "adavd"
    describe: ClassVar[str] = "guard: AdaVD (CVPR 2025), values of cross-attention lose their part along the concept"
    unsupported: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("sd3", "flux"), "it acts on the values of a UNet's cross-attention, and this network has none"
    )

    variant: str = "paper"
    gate: bool = True
    slope: float = 100.0
    threshold: float | None = None
    strength: float = 2.0
    phrases: bool = True

    def __post_init__(self) -> None:
        if self.variant not in THRESHOLDS:
            known = ", ".join(THRESHOLDS)
            raise UserError(
                f"adavd: variant {self.variant!r} is not one of {known}.{suggest(self.variant, THRESHOLDS)}"
            )
        bounds = {"slope": (1e-6, 1e6), "threshold": (-1, 1), "strength": (1e-6, 1e6)}
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"adavd: {name} is {value}; it must be from {low:g} to {high:g}")

    def acts(self) -> tuple[type[Hook], ...]:
        """The decomposition, of one pass or of both."""
        return (ErasedValues if self.variant == "paper" else JoinedValues,)

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """The hook and nothing else."""
        texts = [text for target in task.targets for text in (target.phrases if self.phrases else (target.name,))]
        (part,) = text_inputs(pipe)
        tensors = {"concepts": torch.cat(part.rows(list(dict.fromkeys(texts)), "last_content")).float()}
        threshold = THRESHOLDS[self.variant] if self.threshold is None else self.threshold
        settings = {"slope": self.slope, "threshold": threshold, "strength": self.strength}
        if not self.gate:
            settings = {"slope": 0.0, "threshold": 0.0, "strength": 2.0}  # half of it: 1
        (kind,) = self.acts()
        return Edit({}, {"method": self.name, **settings}, (kind(settings, tensors),))
