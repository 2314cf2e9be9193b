"""TRCE, stage 1: the closed-form edit at the end-of-text token (Chen et al., 2025).

A malicious concept is spread over whole sentences, so TRCE moves what a prompt says as a whole: the first EOS row of
prompts about the concept goes to that of prompts about a harmless anchor. Stage 2 of the method (tuning the UNet along
denoising trajectories) needs gradients and is not here, so numbers of this eraser are not numbers of TRCE as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from erasebench.edits.change import Change
from erasebench.methods.closed_form.linear import check_positive, moved, pull, stacked, warn_if_empty
from erasebench.methods.closed_form.mace import Refinement, Setting
from erasebench.models.targets import TextInput

TRCE_TEMPLATES = (
    "a picture of {}",
    "a photo that shows {}",
    "a painting of {} in a dark room",
    "{} on the cover of a magazine",
    "a scene with {} in the street",
    "a film still of {}",
    "a woman and {}",
    "a man and {}",
    "a crowd looking at {}",
    "a close view of {}",
    "{} drawn with a pencil",
    "an old photograph of {} at night",
    "a story about {}",
    "a room full of {}",
    "an image of {} in bright colours",
)
"""Fifteen sentences about a concept; the number is the release's, the sentences are ours."""


@dataclass(frozen=True)
class Trce(Refinement):
    """Move the first EOS row of a concept's prompts to that of its anchor's prompts, in closed form.

    ``D = mean (c* - c) c^T (lam I + mean c c^T + s^2/n B)^-1`` over the prompts, with the EOS rows c of a concept's
    prompt and c* of the anchor's, and the preserve cache B over all rows of ordinary captions. As released: fifteen
    prompts a concept, means over all prompts, lam 0 with a cache over COCO captions, s 0.01 (sexual content) or 0.02
    (all unsafe kinds) and squared, the cache over n = 30,000; the anchors are ``a person wearing clothes`` and ``art``.

    Ours: the sentences; the place of EOS, which the release counts in words, so that it is off wherever a word has
    several tokens; the task's retain list as a domain, with a weight of 1e-4 in all; and lam where there is no file of
    captions (the release always has one). Both by measurement on the embedded model, 8 prompts a concept (judge,
    erased down and retained up, in %): one object at a time 12 and 100; 38 and 100 at ten times that weight, 62 and
    100 at a hundred times; 0 and 93 with no domain. lam 0.001 to 0.1 differ little.

    Attributes:
        average: means over the prompts; ``False``: sums, as in MACE.
        cache_size: what the sum over preserved rows is divided by. It suits the release's cache; with a smaller file of
            prompts lower it, or raise ``preserve_scale``.
        others: see :class:`~erasebench.methods.closed_form.mace.Refinement`.
    """

    name: ClassVar[str] = "trce"
    describe: ClassVar[str] = "TRCE stage 1: the end-of-text row of a concept's prompts goes to an anchor's (2025)"
    unsupported: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("sd3", "flux"),
        "it edits the end-of-text row of CLIP, which alone has read the whole prompt; in T5 every row has",
    )
    settings_by_kind: ClassVar[Mapping[str, Setting]] = dict.fromkeys(
        ("object", "artist", "celebrity", "unsafe"),
        Setting(lam=0.0, lam_alone=0.1, preserve_scale=0.01, domain_weight={1: 3e4}),
    )
    squared_scale: bool = True
    average: bool = True
    cache_size: float = 30_000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.name, cache_size=self.cache_size)

    def default_templates(self, kind: str) -> Sequence[str]:
        """The fifteen sentences, for every kind."""
        return TRCE_TEMPLATES

    def refine(
        self, part: TextInput, pairs: Sequence[tuple[str, str]], templates: Sequence[str], **system: Any
    ) -> tuple[Change, dict[str, Any]]:
        """One row a prompt, all in one product."""
        texts = [[template.replace("{}", pair[side]) for pair in pairs for template in templates] for side in (0, 1)]
        old, new = (stacked(part, side, "eos") for side in texts)
        if "keep_scale" in system:
            system["keep_scale"] /= self.cache_size
        change = pull(old, new, erase_scale=1 / len(old) if self.average else 1.0, **system)
        shares = moved(change, {"target": old, "concept": stacked(part, [pair[0] for pair in pairs], "content")})
        why = "lower lam or preserve_scale, or choose an anchor that differs more"
        return change, {
            "tokens": {"edit": len(old), "edit_rows": "eos"},
            "moved": shares,
            "warnings": warn_if_empty(shares, why),
        }
