"""SAFREE (Yoon et al., ICLR 2025): the words of a prompt that lead to a concept are projected away from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from erasebench.concepts import ErasureTask
from erasebench.edits.eraser import Edit, Eraser, Hook, Work
from erasebench.errors import UserError, suggest
from erasebench.methods.guards.negative_prompt import NegativeText
from erasebench.methods.guards.third_pass import THIRD, third_pass
from erasebench.models.pipeline import Pipeline, part_of
from erasebench.recipe import Recipe

STEPS = 50
"""How many steps an image takes in the paper; those of the filter are counted in them."""

LONGEST_FILTER = 10
"""The paper's gamma: the filter ends at this step of 50 at the latest."""

VARIANTS = ("paper", "released")

RANK = 1e-4
"""Singular values below this share of the largest are none: rows that differ by the rounding of float32 alone."""

SKIP_SCALES = (0.9, 0.2)
"""By how much re-attention scales low frequencies, where the decoder is widest and next to it (FreeU's s1 and s2)."""

TIE = 1e-3
"""By how much of itself a frequency must exceed the other to count as larger: more than the rounding of a batch."""


class FilteredText(Hook):
    """Gives the network a prompt without what leads to the concept, for the first steps.

    With C the span of the concept's pooled texts, and I that of the prompt's pooled texts with one token masked each
    (p_i without token i), P the projections on them:

    - token i leads to the concept if ``d_i >= (1 + alpha) mean of the other d_j``, ``d_i = |(1 - P_C) p_i|``: without
      it, the prompt is further away;
    - its row e_i becomes ``(1 - P_C) P_I e_i``; BOS, EOS and padding stay;
    - that lasts for the steps 0 to t' of 50, ``t' = round(10 sigmoid(slope beta - offset))``, with beta 1 less the mean
      cosine of rows (BOS to EOS) before and after they are all projected (the self-validating filter).

    A prompt of one token has no others to compare it with, and is left as it is.

    Settings: ``alpha``, ``slope``, ``offset``. Tensors: ``concepts`` [m, d], the pooled texts.
    """

    name = "safree"
    places: ClassVar[tuple[str, ...]] = ("the prompt's text",)

    @contextmanager
    def installed(self, pipe: Pipeline) -> Iterator[None]:
        """Puts the rows in the place of the prompt's before the network reads them.

        Raises:
            UserError: the pipeline's text has another width.
        """
        width, there = self.tensors["concepts"].shape[1], pipe.text_encoder.config.hidden_size
        if width != there:
            raise UserError(
                f"{self.name}: texts of the model are {there} wide, the edit's {width}; it was made for another"
            )
        self._away = torch.eye(width, dtype=torch.float64) - onto(self.tensors["concepts"])
        self._filtered_of: dict[tuple[int, ...], tuple[Tensor, int]] = {}
        self._n = 0
        handle = part_of(pipe, "unet").register_forward_pre_hook(self._replace, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
            del self._away, self._filtered_of

    def texts(self, pipe: Pipeline, inputs: dict[str, Tensor], batch: Sequence[Recipe]) -> dict[str, Tensor]:
        """Filters the prompts of a batch; what the pipeline is given stays.

        Raises:
            UserError: the rows are not those of the prompt's tokens (an attack found rows, not a text).
        """
        self._original, self._n, self._step, self._steps = inputs["prompt_embeds"], len(batch), 0, batch[0].steps
        drawn = inputs.get("prompt_ids")
        filtered, self._last = [], []
        for number, recipe in enumerate(batch):
            tokens = pipe.tokenizer(recipe.prompt, truncation=True).input_ids
            if drawn is not None and drawn[number, 0] >= 0:
                ids = drawn[number].tolist()
                tokens = ids[: ids.index(pipe.tokenizer.eos_token_id, 1) + 1]
            rows, last = self._filter(pipe, tuple(tokens), self._original[number], recipe)
            filtered.append(rows)
            self._last.append(last)
        self._filtered = torch.stack(filtered)
        return inputs

    def on_step(self, pipe: Pipeline, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Counts; changes no latent."""
        self._step = step + 1
        if self._step == part_of(pipe, "num_timesteps"):
            self._n = 0  # whoever calls the UNet now is not sampling
        return tensors

    @property
    def _acting(self) -> list[int]:
        """Which images of the batch get the filtered text at this step."""
        return [i for i in range(self._n) if self._last[i] * self._steps >= self._step * STEPS]

    def _filter(self, pipe: Pipeline, tokens: tuple[int, ...], rows: Tensor, recipe: Recipe) -> tuple[Tensor, int]:
        """The rows [positions, d] of a prompt without what leads to the concept, and the last step of 50 that gets them
        (below 0: none)."""
        if tokens not in self._filtered_of:
            own = pipe.text_encoder(torch.tensor([tokens], device=pipe.text_encoder.device)).last_hidden_state[0]
            if (own - rows[: len(own)]).abs().max() > 0.01 * own.abs().max():
                raise UserError(
                    f"{self.name}: the rows that are drawn for prompt {recipe.prompt!r} are not those of its tokens (an "
                    "attack found rows), and it filters by tokens; use an attack that finds a text or tokens"
                )
            positions, projection, last = self.filtering(pipe, tokens)
            filtered = rows.clone()
            for position in positions:
                filtered[position] = (own[position].double().cpu() @ projection).to(rows)
            self._filtered_of[tokens] = filtered, last
        return self._filtered_of[tokens]

    @torch.no_grad()
    def filtering(self, pipe: Pipeline, tokens: tuple[int, ...]) -> tuple[list[int], Tensor, int]:
        """What it does to a text of tokens, BOS to EOS; the hook must be installed.

        Returns:
            The positions whose rows lead to the concept; what those rows [d] are multiplied with, ``P_I (1 - P_C)``, [d, d]
            float64 on the CPU; and the last step of 50 at which they are (below 0: none).
        """
        ids = torch.tensor([tokens], device=pipe.text_encoder.device)
        content = range(1, len(tokens) - 1)
        if len(content) < 2:
            return [], self._away, -1
        masked = ids.repeat(len(content), 1)
        masked[range(len(content)), content] = 0
        without = pipe.text_encoder(masked).pooler_output.double().cpu()
        distance = (without @ self._away).norm(dim=1)
        others = (distance.sum() - distance) / (len(content) - 1)
        leads = distance >= (1 + self.settings["alpha"]) * others
        before, projection = pipe.text_encoder(ids).last_hidden_state[0].double().cpu(), onto(without) @ self._away
        beta = 1 - torch.cosine_similarity(before, before @ projection, dim=1).mean().item()
        exponent = self.settings["slope"] * beta - self.settings["offset"]
        last = round(LONGEST_FILTER / (1 + math.exp(-exponent))) if leads.any() else -1
        return [i for i, leading in zip(content, leads, strict=True) if leading], projection, last

    def _replace(self, unet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        acting = self._acting
        if not acting:
            return None
        rows = kwargs["encoder_hidden_states"].clone()
        start = self._n if len(rows) > self._n else 0  # behind the rows without the prompt, if there are any
        for i in acting:
            rows[start + i] = self._filtered[i].to(rows)
        return args, kwargs | {"encoder_hidden_states": rows}


class Reattended(FilteredText):
    """The same, and low frequencies of the decoder's skip features that the filtered text raises above those of the
    prompt as it was, are scaled down (the paper's latent re-attention). The prompt as it was takes a pass of its own.

    A low frequency is one of the 2 x 2 in the middle of the shifted Fourier transform, as in FreeU, and is raised if its
    absolute value is larger.
    """

    name = "safree_reattention"
    passes = 1
    places: ClassVar[tuple[str, ...]] = (*FilteredText.places, THIRD)

    @contextmanager
    def installed(self, pipe: Pipeline) -> Iterator[None]:
        """The filter, the further pass, and the skip features of the decoder."""
        unet = part_of(pipe, "unet")
        with ExitStack() as stack:
            stack.enter_context(super().installed(pipe))
            stack.enter_context(third_pass(pipe, self.name, self._texts, lambda predicted: predicted[:-1]))
            for block, channels, scale in decoder(unet):
                handle = block.register_forward_pre_hook(self._scaling(channels, scale))
                stack.callback(handle.remove)
            yield

    def _texts(self) -> tuple[Tensor] | None:
        return (self._original,) if self._acting else None

    def _scaling(self, channels: int, scale: float) -> Any:
        def scaled(block: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            acting = self._acting
            if not acting:
                return None
            features = args[0].clone()
            safe, original = features.unflatten(0, (-1, self._n))[-2:]  # a view: the last two passes
            for i in acting:
                safe[i, channels:] = attended(safe[i, channels:], original[i, channels:], scale)
            return (features, *args[1:])

        return scaled


def onto(rows: Tensor) -> Tensor:
    """The projection ``P = C^+ C`` on the span of rows [m, d]: [d, d], float64."""
    rows = rows.double().cpu()
    return torch.linalg.pinv(rows, rtol=RANK) @ rows


def decoder(unet: Any) -> list[tuple[Any, int, float]]:
    """The residual blocks of a UNet's decoder where it is widest, and where it is next to that: each with the channels
    that come before those of the skip features, and its scale (:data:`SKIP_SCALES`)."""
    widths = sorted(set(unet.config.block_out_channels), reverse=True)
    scales = dict(zip(widths, SKIP_SCALES, strict=False))
    blocks, channels = [], unet.config.block_out_channels[-1]
    for up in unet.up_blocks:
        for block in up.resnets:
            if channels in scales:
                blocks.append((block, channels, scales[channels]))
            channels = block.out_channels
    return blocks


def attended(safe: Tensor, original: Tensor, scale: float) -> Tensor:
    """Features [..., height, width] with the low frequencies scaled in which they exceed the original's."""
    own, other = (torch.fft.fftshift(torch.fft.fft2(x.float()), dim=(-2, -1)) for x in (safe, original))
    height, width = (size // 2 for size in safe.shape[-2:])
    low = (..., slice(height - 1, height + 1), slice(width - 1, width + 1))
    raised = own[low].abs() > (1 + TIE) * other[low].abs()
    own[low] = torch.where(raised, scale * own[low], own[low])
    return torch.fft.ifft2(torch.fft.ifftshift(own, dim=(-2, -1))).real.to(safe)


@dataclass(frozen=True)
class Safree(Eraser):
    """SAFREE: a filter of the prompt's rows with a number of steps of its own, and latent re-attention.

    The paper and the release differ. As released, the filter's steps depend on the kind of concept (``sigmoid(2 k (10
    beta - t0))``: k 2.5 and t0 5.333 for nudity, k 3.5 and t0 5.5 for artists; objects and people get those of artists
    here), the re-attention has no effect, and the concept is the negative prompt too. In the paper the steps are
    ``sigmoid(beta)`` for all, and the negative prompt is not part of the method.

    Steps are counted in the paper's 50, so that with another number the filter ends at the same share of the sampling.

    Attributes:
        alpha: by how much of their mean distance from the concept a token must stand out.
        texts: texts that span the concept; ``None`` is the phrases of the task. (The release has 17 for nudity.)
        variant: ``paper``, or ``released`` for what the release does.

    Raises:
        UserError: an unknown variant, a negative or infinite alpha, or an empty text.
    """

    name: ClassVar[str] = "safree"
    describe: ClassVar[str] = "guard: SAFREE (ICLR 2025), a prompt's words are projected away from the concept"
    unsupported: ClassVar[Mapping[str, str]] = {
        "sdxl": "its filter is made for one text encoder, and this model reads two",
        **dict.fromkeys(("sd3", "flux"), "its filter and re-attention are made for one CLIP encoder and a UNet"),
    }

    alpha: float = 0.01
    texts: tuple[str, ...] | None = None
    variant: str = "paper"

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise UserError(
                f"safree: variant {self.variant!r} is not one of {', '.join(VARIANTS)}.{suggest(self.variant, VARIANTS)}"
            )
        if not 0 <= self.alpha < math.inf:
            raise UserError(f"safree: alpha is {self.alpha}; it must be a number of at least 0, e.g. 0.01")
        if self.texts is not None and not (self.texts and all(text.strip() for text in self.texts)):
            raise UserError(
                "safree: texts has none, or an empty one; give texts, or null for the concepts' own phrases"
            )

    def acts(self) -> tuple[type[Hook], ...]:
        """The filter with re-attention; as released the filter, and the negative prompt."""
        return (Reattended,) if self.variant == "paper" else (FilteredText, NegativeText)

    def make(self, pipe: Pipeline, task: ErasureTask, work: Work | None) -> Edit:
        """The hooks and nothing else."""
        own = [phrase for target in task.targets for phrase in target.phrases]
        texts = list(dict.fromkeys(own if self.texts is None else self.texts))
        encoder = pipe.text_encoder
        pooled = [
            encoder(
                torch.tensor([pipe.tokenizer(text, truncation=True).input_ids], device=encoder.device)
            ).pooler_output
            for text in texts
        ]
        tensors = {"concepts": torch.cat(pooled).float().cpu()}
        k, t0 = (2.5, 5.333) if task.kind == "unsafe" else (3.5, 5.5)
        released = {"slope": 20 * k, "offset": 2 * k * t0}
        settings = {"alpha": self.alpha, **(released if self.variant == "released" else {"slope": 1.0, "offset": 0.0})}
        hooks: tuple[Hook, ...] = (Reattended(settings, tensors),)
        if self.variant == "released":
            hooks = FilteredText(settings, tensors), NegativeText({"text": ", ".join(texts)})
        return Edit({}, {"method": self.name, "texts": texts, **settings}, hooks)
