"""What a pipeline is to this package: what the pipelines of all families share and what is used of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    import torch


@runtime_checkable
class Pipeline(Protocol):
    """A text-to-image pipeline of diffusers: Stable Diffusion 1.x, 2.x, XL and 3, and FLUX.

    The network that makes the image is :func:`erasebench.models.targets.denoiser`, texts are read by
    :class:`erasebench.models.text.Texts`, and what only some families have is :func:`part_of`. The parts themselves are
    classes of diffusers and transformers, whose types do not hold.

    Attributes:
        scheduler: the sampler, replaced by each recipe's own.
        tokenizer: of the first text encoder, which is a CLIP in all families.
        text_encoder: the first text encoder.
        vae_scale_factor: pixels of a side that one latent stands for.
        config: the pipeline's own settings, not those of its parts.
    """

    scheduler: Any
    tokenizer: Any
    text_encoder: Any
    vae_scale_factor: int
    config: Any

    @property
    def components(self) -> dict[str, Any]:
        """All parts by name; ``None`` for those that it was saved without."""

    @property
    def _execution_device(self) -> torch.device:
        """Where its networks compute."""

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast all parts, in place."""

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """Options of its bar over steps, e.g. ``disable``."""

    def encode_prompt(self, *args: Any, **kwargs: Any) -> Any:
        """Embeddings of texts; order and number differ (:func:`erasebench.models.encode.encode_prompts`)."""

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write a folder that can be loaded again."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Sample; an output with ``images`` comes back."""


def part_of(pipe: Pipeline, name: str) -> Any:
    """A part that only some families have (``unet``, ``transformer``, ``text_encoder_2``), or ``None``."""
    return getattr(pipe, name, None)
