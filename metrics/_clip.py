"""CLIP models that score images: OpenAI's and EVA's through open_clip, and the embedded model's own.

Weights are safetensors. A model is loaded once for each backbone and device, however many metrics use it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from erasebench.errors import UserError, suggest
from erasebench.metrics import _embedded
from erasebench.metrics._common import absent, batches, commit_of, device, has_package, hub_file, image_tensor
from erasebench.scores.metric import Metric

EMBEDDED = "embedded"


@dataclass(frozen=True)
class Published:
    """A published CLIP: the architecture as open_clip names it, and the repository with its safetensors.

    OpenAI's networks were trained with the quick form of GELU, so their architecture must be the ``-quickgelu`` one:
    the plain ``ViT-B-32`` loads the same weights without complaint and gives other numbers.
    """

    architecture: str
    repository: str
    file: str = "open_clip_model.safetensors"
    needs_timm: bool = False


PUBLISHED: dict[str, Published] = {
    "ViT-B-32": Published("ViT-B-32-quickgelu", "timm/vit_base_patch32_clip_224.openai"),
    "ViT-L-14": Published("ViT-L-14-quickgelu", "timm/vit_large_patch14_clip_224.openai"),
    "EVA02-L-14-336": Published(
        "EVA02-L-14-336", "timm/eva02_large_patch14_clip_336.merged2b_s6b_b61k", needs_timm=True
    ),
}
BACKBONES = (*PUBLISHED, EMBEDDED)


@dataclass(frozen=True)
class Clip:
    """A pair of encoders. Both return unit vectors, float32 on the CPU.

    Attributes:
        image: images to ``[n, d]``.
        text: texts to ``[n, d]``.
        scale: what cosines are multiplied by before a softmax (100 for OpenAI's).
    """

    image: Callable[[Sequence[Image.Image]], torch.Tensor]
    text: Callable[[Sequence[str]], torch.Tensor]
    scale: float


def check_backbone(name: str, place: str) -> None:
    """Refuse an unknown backbone with the nearest known one."""
    if name not in BACKBONES:
        raise UserError(f"{place}: no backbone {name!r}.{suggest(name, BACKBONES)} Known: {', '.join(BACKBONES)}")


def needs(backbone: str) -> tuple[str, ...]:
    """The weights of a backbone, as people would name them."""
    if backbone == EMBEDDED:
        return ("the embedded model's CLIP",)
    return (f"CLIP {backbone} ({PUBLISHED[backbone].repository})",)


def unavailable(backbone: str, revision: str | None) -> str | None:
    """Why the backbone cannot be loaded, with the cure; ``None`` if it can. Never downloads."""
    if backbone == EMBEDDED:
        return _embedded.unavailable(_embedded.CLIP_FOLDER)
    source = PUBLISHED[backbone]
    if not has_package("open_clip"):
        return "the package open_clip_torch is missing; run: pip install open_clip_torch"
    if source.needs_timm and not has_package("timm"):
        return f"CLIP {backbone} needs the package timm; run: pip install timm"
    if hub_file(source.repository, source.file, revision) is None:
        from huggingface_hub.constants import HF_HUB_CACHE

        return absent(f"CLIP {backbone} ({source.repository})", HF_HUB_CACHE)
    return None


def prefetch(backbone: str, revision: str | None) -> None:
    """Download the weights of a backbone into the Hugging Face cache."""
    if backbone != EMBEDDED:
        from huggingface_hub import hf_hub_download

        hf_hub_download(PUBLISHED[backbone].repository, PUBLISHED[backbone].file, revision=revision)


def fingerprint(backbone: str, revision: str | None) -> str:
    """What decides the numbers of a backbone, for a metric's version."""
    if backbone == EMBEDDED:
        return f"embedded-{_embedded.fingerprint(_embedded.CLIP_FOLDER)}"
    source = PUBLISHED[backbone]
    return f"{backbone}-{commit_of(source.repository, source.file, revision)}"


class OnClip(Metric):
    """A metric by one CLIP: what it needs, whether that is here, and how to get it.

    Attributes:
        backbone: one of :data:`BACKBONES`.
        revision: commit of its repository.
    """

    backbone: str
    revision: str | None

    @property
    def needs(self) -> tuple[str, ...]:
        return needs(self.backbone)

    def unavailable(self) -> str | None:
        return unavailable(self.backbone, self.revision)

    def prefetch(self) -> None:
        prefetch(self.backbone, self.revision)


@functools.lru_cache(maxsize=2)
def load_clip(backbone: str, revision: str | None, device_name: str, batch_size: int) -> Clip:
    """Load a backbone from this machine's cache or from the package.

    Raises:
        UserError: its weights are absent.
    """
    reason = unavailable(backbone, revision)
    if reason:
        raise UserError(reason)
    if backbone == EMBEDDED:
        return from_transformers(_embedded.CLIP_FOLDER, device(device_name), batch_size)
    import open_clip

    source = PUBLISHED[backbone]
    path = hub_file(source.repository, source.file, revision)
    model, _, transform = open_clip.create_model_and_transforms(source.architecture, pretrained=str(path))
    tokenizer = open_clip.get_tokenizer(source.architecture)
    return from_open_clip(model, transform, tokenizer, device(device_name), batch_size)


def from_open_clip(
    model: Any,
    transform: Callable[[Image.Image], torch.Tensor],
    tokenizer: Callable[[list[str]], torch.Tensor],
    on: torch.device,
    batch_size: int,
) -> Clip:
    """Wrap an open_clip model with its own image transform and tokenizer (which cuts texts at 77 tokens)."""
    model = model.eval().to(on)

    @torch.inference_mode()
    def image(images: Sequence[Image.Image]) -> torch.Tensor:
        rows = (torch.stack([transform(entry) for entry in part]).to(on) for part in batches(images, batch_size))
        return torch.cat([model.encode_image(part, normalize=True).float().cpu() for part in rows])

    @torch.inference_mode()
    def text(texts: Sequence[str]) -> torch.Tensor:
        rows = (tokenizer(list(part)).to(on) for part in batches(texts, batch_size))
        return torch.cat([model.encode_text(part, normalize=True).float().cpu() for part in rows])

    return Clip(image, text, float(model.logit_scale.detach().exp()))


def from_transformers(folder: Path, on: torch.device, batch_size: int) -> Clip:
    """Wrap a folder with a ``CLIPModel`` of transformers and its tokenizer.

    Images are scaled to the model's own size and to [-1, 1], as the embedded CLIP was trained.
    """
    from transformers import CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).float().eval().to(on)
    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    size = model.config.vision_config.image_size
    length = model.config.text_config.max_position_embeddings

    @torch.inference_mode()
    def image(images: Sequence[Image.Image]) -> torch.Tensor:
        rows = (image_tensor(part, size).to(on).float() / 127.5 - 1 for part in batches(images, batch_size))
        return torch.cat([_unit(model.visual_projection(model.vision_model(part).pooler_output)) for part in rows])

    @torch.inference_mode()
    def text(texts: Sequence[str]) -> torch.Tensor:
        found = []
        for part in batches(texts, batch_size):
            tokens = tokenizer(
                list(part), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
            ).input_ids.to(on)
            found.append(_unit(model.text_projection(model.text_model(tokens).pooler_output)))
        return torch.cat(found)

    return Clip(image, text, float(model.logit_scale.detach().exp()))


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows.float(), dim=-1).cpu()
