"""P4D through guards: a text that is drawn as the concept although SAFREE, SLD or a negative prompt is in its way.

Z.-Y. Chin, C.-M. Jiang et al., "Prompting4Debugging" (ICML 2024): its release takes the target's SLD or negative prompt into the
search. SAFREE in it is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import mse_loss

from erasebench.edits.attack import hidden_by
from erasebench.edits.eraser import Eraser
from erasebench.edits.hook import Hook, hooks_on
from erasebench.methods.attacks.concept_vector import token_ids
from erasebench.methods.attacks.p4d import P4d, nearest
from erasebench.methods.guards.negative_prompt import NegativeText
from erasebench.methods.guards.safree import FilteredText
from erasebench.methods.guards.sld import STEPS, SafeGuidance, safety
from erasebench.methods.trained.latents import noised
from erasebench.models.pipeline import Pipeline
from erasebench.models.soft_words import read_at
from erasebench.models.targets import denoiser
from erasebench.recipe import Recipe

GUARDS: tuple[type[Hook], ...] = (NegativeText, SafeGuidance, FilteredText)
"""The guards that it searches through."""


@dataclass(frozen=True)
class P4dGuarded(P4d):
    """``min_e ||guided_with_guards(z_t, t, found) - guided_unedited(z_t, t, prompt)||^2``, both with the guidance ``g`` of the image
    that is attacked; all else is :class:`erasebench.methods.attacks.p4d.P4d`.

    With a negative prompt the first is ``eps_neg + g (eps_found - eps_neg)``, with SLD ``eps_0 + g (eps_found - eps_0 - gamma)``, gamma
    without momentum, as if the image began at t. With SAFREE the network reads the rows of the found tokens as SAFREE filters
    them at the step of that timestep: which tokens lead to the concept, for how many steps, and the projection are those of the
    tokens at hand, and the gradient goes through the projection of their rows. SAFREE and a negative prompt go together, as
    released.

    Every try is drawn with the guards in place, as every attacked image is.
    """

    name: ClassVar[str] = "p4d_guarded"
    describe: ClassVar[str] = "P4D through a negative prompt, SLD or SAFREE's filter: the search sees the guard"
    access: ClassVar[str] = "weights and guard, and the unedited model"

    def refuses_edits(self, eraser: Eraser) -> str | None:
        """Those with a guard of another kind around the network."""
        reason = next((why for kind in eraser.acts() if kind not in GUARDS and (why := hidden_by(kind))), None)
        return reason and f"{reason}; it searches through {', '.join(kind.name for kind in GUARDS)} alone"

    def loss(
        self,
        pipe: Pipeline,
        unedited: Mapping[str, Module],
        recipe: Recipe,
        latents: Tensor,
        wanted: Tensor,
        ids: Tensor,
        words: Tensor,
        places: Sequence[int],
        scheduler: Any,
        numbers: torch.Generator,
    ) -> Tensor:
        """Through the guards that are on the pipeline; arguments as of :meth:`erasebench.methods.attacks.p4d.P4d.loss`."""
        guards = [hook for hook in hooks_on(pipe) if isinstance(hook, GUARDS)]
        negative = next((hook.settings["text"] for hook in guards if isinstance(hook, NegativeText)), "")
        sld = next((hook for hook in guards if isinstance(hook, SafeGuidance)), None)
        z, timesteps, _ = noised(scheduler, latents, numbers)
        step = (1 - timesteps.item() / scheduler.config.num_train_timesteps) * STEPS
        at = [place + 1 for place in places]
        text = read_at(pipe.text_encoder, ids, words[None], at).to(z)
        filled = ids[0].clone()
        filled[at] = nearest(words.detach(), pipe.text_encoder.get_input_embeddings().weight.detach())
        for guard in guards:
            if isinstance(guard, FilteredText):
                text = filtered(guard, pipe, filled.tolist(), text, step)
        with torch.no_grad():
            empty = unedited["text_encoder"](token_ids(pipe, [recipe.negative_prompt]).to(z.device))[0].to(z)
            none, own = unedited["unet"](*_twice(z, timesteps), torch.cat([empty, wanted])).sample
            target = none + recipe.guidance * (own - none)
            away = ", ".join(filter(None, (recipe.negative_prompt, negative)))
            others = [away, *([sld.settings["text"]] if sld else [])]
            rows = pipe.text_encoder(token_ids(pipe, others).to(z.device))[0].to(z)
            base, *concept = (denoiser(pipe)(z, timesteps, row[None]).sample[0] for row in rows)
        found = denoiser(pipe)(z, timesteps, text).sample[0]
        gamma: Tensor | float = 0.0
        if sld and step >= sld.settings["warmup"]:
            gamma, _ = safety(sld.settings, base, found, concept[0], 0.0)
        return mse_loss(base + recipe.guidance * (found - base - gamma), target)


def filtered(guard: FilteredText, pipe: Pipeline, ids: Sequence[int], text: Tensor, step: float) -> Tensor:
    """The rows of a text as SAFREE gives them to the network at a step, in the graph of these rows.

    Args:
        guard: installed on the pipeline.
        pipe: whose text encoder SAFREE asks.
        ids: of the text, BOS first; what stands behind the first EOS is padding.
        text: its rows, [1, positions, d].
        step: of 50, in fractions.
    """
    end = list(ids).index(pipe.tokenizer.eos_token_id, 1)
    positions, projection, last = guard.filtering(pipe, tuple(ids[: end + 1]))
    if last < step:
        return text
    leading = torch.zeros(text.shape[1], 1, dtype=torch.bool, device=text.device)
    leading[positions] = True
    return torch.where(leading, text @ projection.to(text), text)


def _twice(z: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    return z.repeat(2, 1, 1, 1), timesteps.repeat(2)
